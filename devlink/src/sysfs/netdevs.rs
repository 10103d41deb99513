//! Netdevs as `/sys/class/net` shows them (`Documentation/ABI/testing/sysfs-class-net`).

use std::collections::BTreeSet;

use super::{Sysfs, SysfsError};
use crate::{Device, function};

/// A netdev: what its driver says of the port behind it, and what it stands on and under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevFacts {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace.
    pub ifindex: u32,
    /// The device that its driver hung it on. Representors are hung on the function that has the switch, or on nothing:
    /// drivers differ.
    pub device: Option<Device>,
    /// The switch that its port is on, in hexadecimal. None in legacy mode, or where there is no switch.
    pub phys_switch_id: Option<String>,
    /// Which port of the switch or of the device it is; see [`crate::PortName`].
    pub phys_port_name: Option<String>,
    /// The physical port, in hexadecimal: the same for all functions that share a port.
    pub phys_port_id: Option<String>,
    /// The port of a device that has several ports, from 0.
    pub dev_port: Option<u32>,
    /// The netdev that it is enslaved to: a bond, a bridge.
    pub master: Option<String>,
    /// What is enslaved to it, if it is a bond; an empty set is a bond without slaves.
    pub bond_slaves: Option<BTreeSet<String>>,
}

impl Sysfs {
    /// A netdev by name; none if there is no such netdev in this network namespace.
    ///
    /// # Errors
    /// [`SysfsError::BadName`] for what cannot be a name; otherwise what could not be read.
    pub fn netdev(&self, name: &str) -> Result<Option<NetdevFacts>, SysfsError> {
        if !is_netdev_name(name) {
            return Err(SysfsError::BadName(function::shown(name)));
        }
        let path = format!("class/net/{name}");
        let Some(folder) = self.folder(&path)? else { return Ok(None) };
        let Some(ifindex) = folder.number("ifindex")? else { return Ok(None) };
        let device = match folder.link("device")? {
            Some(dev) => self.link(&format!("{path}/device/subsystem"))?.map(|bus| Device { bus, dev }),
            None => None,
        };
        let slaves = folder.text("bonding/slaves")?;
        let is_bond = slaves.is_some() || folder.exists("bonding")?;
        Ok(Some(NetdevFacts {
            name: name.to_owned(),
            ifindex,
            device,
            phys_switch_id: folder.text("phys_switch_id")?,
            phys_port_name: folder.text("phys_port_name")?,
            phys_port_id: folder.text("phys_port_id")?,
            dev_port: folder.number("dev_port")?,
            master: folder.link("master")?,
            bond_slaves: is_bond
                .then(|| slaves.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()),
        }))
    }

    /// The netdevs of this network namespace, by name. What goes while they are read is left out, and so is one that cannot be
    /// read: `left_out` is told of it, and the others are there all the same.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn netdevs(&self, mut left_out: impl FnMut(&str, &SysfsError)) -> Result<Vec<NetdevFacts>, SysfsError> {
        let mut names = self.list("class/net")?;
        names.sort_unstable();
        let mut netdevs = Vec::with_capacity(names.len());
        for name in names {
            // Beside netdevs there is `bonding_masters`, a file, which is none.
            match self.netdev(&name) {
                Ok(netdev) => netdevs.extend(netdev),
                Err(error) => left_out(&name, &error),
            }
        }
        Ok(netdevs)
    }
}

/// Whether this can be the name of a netdev as far as a path goes: the kernel takes any octets but blanks, `/` and `:`
/// (`dev_valid_name`, `net/core/dev.c`), so one of a guest's may be `tapé`.
fn is_netdev_name(name: &str) -> bool {
    let odd = |char: char| char.is_ascii_whitespace() || char == '/' || char == '\0';
    !name.is_empty() && !name.contains(odd) && name != "." && name != ".."
}
