//! What the peers say: written by the backends alone, read by the planner alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ovsdb::pairs::Pairs;
use ovsdb::text::Text;
use uuid::Uuid;

use super::{Link, MacAddr, NicState, SwitchStates, Table};

/// A peer's state, or the fact that it is not complete. Nothing is concluded from a view that is `Syncing`.
#[derive(Debug, Default, PartialEq)]
pub enum View<T> {
    /// Not known, or known to be incomplete.
    #[default]
    Syncing,
    /// All of it, as of the peer's last word.
    Ready(Arc<T>),
}

impl<T> View<T> {
    /// The state, when it is complete.
    #[must_use]
    pub fn ready(&self) -> Option<&T> {
        match self {
            View::Syncing => None,
            View::Ready(state) => Some(state),
        }
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        match self {
            View::Syncing => View::Syncing,
            View::Ready(state) => View::Ready(Arc::clone(state)),
        }
    }
}

/// Everything that the planner knows of the host.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The kernel's links and the vhost-user sockets.
    pub links: View<LinkState>,
    /// The Open_vSwitch database.
    pub ovs: View<OvsState>,
    /// The NICs.
    pub nics: View<NicState>,
    /// What the switches say, an entry for each managed bridge that is in the database.
    pub flows: SwitchStates,
}

impl Observed {
    /// Whether all is seen of what bears marks of VIFs. Until then an absence is no news.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.links.ready().is_some() && self.nics.ready().is_some() && self.ovs.ready().is_some()
    }
}

/// What the kernel says of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Every link, by name.
    pub links: Table<String, Link>,
    /// The directory of vhost-user sockets.
    pub sockets: SocketState,
}

/// The directory in which vhost-user sockets are allowed, as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The directory and every directory below it.
    pub directories: BTreeMap<PathBuf, FileOwner>,
    /// Every socket below it.
    pub sockets: BTreeSet<PathBuf>,
}

/// Owner and mode of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileOwner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// `security.selinux`, where the file system has it.
    pub label: Option<String>,
}

/// The Open_vSwitch database as far as vifd reads it. Names are unique in it, so everything is by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OvsState {
    /// Whether ovs-vswitchd is running. While it is not, `ofport`, `error` and `status` are stale.
    pub vswitchd_alive: bool,
    /// Whether it runs and has not carried out yet what somebody waits for: `cur_cfg` is behind `next_cfg`.
    pub vswitchd_behind: bool,
    /// Names of devices whose ports vifd deleted and that ovs-vswitchd, which runs, has not let go of yet.
    pub letting_go: BTreeSet<Text>,
    /// `other_config:flow-restore-wait`: somebody is about to put back the flows of before a restart, and until then
    /// ovs-vswitchd forwards by what it had in the datapath.
    pub restoring: bool,
    /// `other_config` of table Open_vSwitch: settings of the whole switch.
    pub other_config: Pairs,
    /// Bridges that OVN says are its own (`external_ids:ovn-bridge`).
    pub ovn_bridges: BTreeSet<Text>,
    /// Bridges by name.
    pub bridges: Table<Text, Bridge>,
    /// Ports by name.
    pub ports: Table<Text, Port>,
    /// Interfaces by name.
    pub interfaces: Table<Text, Interface>,
    /// QoS rows by row uuid.
    pub qos: Table<Uuid, Qos>,
}

/// A row of table Bridge (ovs-vswitchd.conf.db(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Row.
    pub uuid: Uuid,
    /// `name`.
    pub name: Text,
    /// `datapath_type`, empty for the kernel's.
    pub datapath_type: Text,
    /// Names of its ports, its own local port among them.
    pub ports: BTreeSet<Text>,
    /// `external_ids`.
    pub external_ids: Pairs,
    /// `other_config`.
    pub other_config: Pairs,
    /// `fail_mode`: `secure`, `standalone`, or absent, which means `standalone`.
    pub fail_mode: Option<Text>,
    /// `controller`: rows of table Controller.
    pub controllers: BTreeSet<Uuid>,
    /// `protocols`, empty for Open vSwitch's default.
    pub protocols: BTreeSet<Text>,
    /// `datapath_id`, set by ovs-vswitchd.
    pub datapath_id: Option<Text>,
}

impl Bridge {
    /// Whether ovs-vswitchd switches itself, without the kernel.
    #[must_use]
    pub fn is_userspace(&self) -> bool {
        self.datapath_type == "netdev"
    }

    /// Whether it has a port of this name.
    #[must_use]
    pub fn has_port(&self, name: &str) -> bool {
        self.ports.contains(name)
    }
}

/// A row of table Port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Row.
    pub uuid: Uuid,
    /// `name`.
    pub name: Text,
    /// Name of the bridge that has it; empty while no bridge of the view does.
    pub bridge: Text,
    /// Names of its interfaces, in order.
    pub interfaces: Vec<Text>,
    /// `tag`.
    pub tag: Option<u16>,
    /// `trunks`.
    pub trunks: BTreeSet<u16>,
    /// `vlan_mode`.
    pub vlan_mode: Option<Text>,
    /// `qos`.
    pub qos: Option<Uuid>,
    /// `external_ids`.
    pub external_ids: Pairs,
    /// `other_config`.
    pub other_config: Pairs,
}

impl Port {
    /// Whether one of its interfaces has this name.
    #[must_use]
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|interface| interface == name)
    }
}

/// A row of table Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Row.
    pub uuid: Uuid,
    /// `name`.
    pub name: Text,
    /// `type`, empty for a system device.
    pub kind: Text,
    /// `options`.
    pub options: Pairs,
    /// `external_ids`.
    pub external_ids: Pairs,
    /// `mac`: the address asked for.
    pub mac: Option<MacAddr>,
    /// `mtu_request`.
    pub mtu_request: Option<u32>,
    /// `mtu`.
    pub mtu: Option<u32>,
    /// `ofport`: absent until ovs-vswitchd has looked at it, -1 when it could not be made.
    pub ofport: Option<i64>,
    /// `error`: why not.
    pub error: Option<Text>,
    /// `ifindex`: index of the netdev of its name, 0 when ovs-vswitchd knows that there is none.
    pub ifindex: Option<u32>,
    /// `link_state` is `up`.
    pub link_up: bool,
    /// `status`, e.g. `status=connected` of a vhost-user port.
    pub status: Pairs,
}

impl Interface {
    /// Why ovs-vswitchd could not make the port, where it could not. `error` alone does not say: when a device comes
    /// while the word that it is missing is on its way to the database, ovs-vswitchd (3.1) numbers the port and leaves
    /// the word standing, since the column was empty when it last looked. Number and index of the netdev are then the
    /// newer words.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        let error = self.error.as_deref().filter(|error| !error.is_empty())?;
        let made = self.ofport.is_some_and(|number| number > 0) && self.ifindex.is_some_and(|index| index > 0);
        (!(made && error.contains("No such device"))).then_some(error)
    }

    /// Its type as people know it: an empty column means `system`.
    #[must_use]
    pub fn type_name(&self) -> &str {
        if self.kind.is_empty() { "system" } else { &self.kind }
    }
}

/// A row of table QoS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// Row.
    pub uuid: Uuid,
    /// `type`.
    pub kind: Text,
    /// `external_ids`.
    pub external_ids: Pairs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_that_has_a_number_and_an_index_is_there() {
        let interface = |error: &str, ofport, ifindex| Interface {
            error: Some(error.into()),
            ofport: Some(ofport),
            ifindex: Some(ifindex),
            ..Interface::default()
        };
        let missing = "could not open network device tap1 (No such device)";
        assert_eq!(interface(missing, 7, 12).fault(), None);
        assert_eq!(interface(missing, -1, 12).fault(), Some(missing));
        assert_eq!(interface(missing, 7, 0).fault(), Some(missing));
        assert_eq!(interface("Device or resource busy", 7, 12).fault(), Some("Device or resource busy"));
        assert_eq!(interface("", -1, 0).fault(), None);
    }
}
