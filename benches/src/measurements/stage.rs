//! Hosts that several measurements share, since making one of 4,000 VIFs takes half a minute and ending it more.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Context, Result};
use vifd_integration::lab::{Ovs, Vifd};

use crate::{Scale, host};

/// A host on which vifd runs. Whoever measures on it leaves it as it was.
pub struct Host {
    // vifd goes before its Open vSwitch.
    /// vifd.
    pub vifd: Vifd,
    /// Its Open vSwitch.
    pub ovs: Ovs,
}

/// What is handed from measurement to measurement.
pub struct Stage {
    /// How much is measured.
    pub scale: Scale,
    hosts: BTreeMap<u32, Host>,
}

impl Stage {
    /// Without a host yet.
    #[must_use]
    pub fn new(scale: Scale) -> Stage {
        Stage { scale, hosts: BTreeMap::new() }
    }

    /// The host with as many VIFs, all ready.
    ///
    /// # Errors
    /// When it is not there yet and does not come about.
    pub fn with_vifs(&mut self, count: u32) -> Result<&mut Host> {
        match self.hosts.entry(count) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => {
                let (ovs, vifd) = host::with_vifs(count).with_context(|| format!("a host with {count} VIFs"))?;
                Ok(place.insert(Host { vifd, ovs }))
            }
        }
    }

    /// Ends every host, all at once: the kernel takes its time for each socket that ovs-vswitchd leaves.
    pub fn clear(&mut self) {
        std::thread::scope(|scope| {
            for (_, host) in std::mem::take(&mut self.hosts) {
                scope.spawn(move || drop(host));
            }
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}
