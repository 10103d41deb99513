//! The Open_vSwitch database over OVSDB: what can be asked of it, and the backend that asks.

mod dial;
mod liveness;
mod mirror;
mod restart;
mod session;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::MacAddr;

pub(crate) use self::dial::Server;
pub(crate) use self::liveness::control_sockets;
pub use self::session::{OtherInstance, Ovs};

/// A map column: `external_ids`, `options`, `other_config`.
pub type StringMap = BTreeMap<String, String>;

/// What can be asked of the database. A batch of these is one transaction; rows made in it may be named by
/// later operations of the same batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OvsOp {
    /// Inserts a bridge with its local port, provided that none has this name.
    InsertBridge {
        /// Name of the bridge.
        name: String,
        /// `datapath_type`.
        datapath_type: String,
        /// `external_ids`.
        external_ids: StringMap,
        /// Whether it starts as [`OvsOp::SecureBridge`] makes one, without a moment in between.
        secure: bool,
    },
    /// Makes a bridge one that forwards by the flows it is given and by nothing else, provided that it still has these
    /// marks: `fail_mode=secure`, `other_config:disable-in-band=true`. A changed `fail_mode` drops all its flows.
    SecureBridge {
        /// Row.
        uuid: Uuid,
        /// Name of the bridge.
        name: String,
        /// Entries that `external_ids` must still hold.
        marks: StringMap,
    },
    /// Deletes a bridge, provided that it still has this mark and no port but its own.
    DeleteBridge {
        /// Row.
        uuid: Uuid,
        /// Name of the bridge.
        name: String,
        /// Entries that `external_ids` must still hold.
        marks: StringMap,
    },
    /// Sets entries of `other_config` of table Open_vSwitch and leaves the others as they are.
    ConfigureSwitch {
        /// The entries.
        other_config: StringMap,
    },
    /// Inserts a port with one interface into a bridge.
    InsertPort(Box<NewPort>),
    /// Deletes a port, provided that `bridge` still has it and its interface still holds `marks`.
    DeletePort {
        /// Row of the port.
        uuid: Uuid,
        /// Name of the port.
        name: String,
        /// Name of the bridge.
        bridge: String,
        /// Row of its interface, with the entries that its `external_ids` must still hold.
        interface: Option<(Uuid, StringMap)>,
        /// QoS row of ours to delete with it.
        qos: Option<Uuid>,
    },
    /// Changes a port, entry by entry. Anything empty stays as it is.
    ChangePort {
        /// Row.
        uuid: Uuid,
        /// Name, as a guard.
        name: String,
        /// Name of the bridge that must still have it.
        bridge: String,
        /// Entries of `external_ids` to set.
        external_ids: StringMap,
        /// Entries of `other_config` to set.
        other_config: StringMap,
        /// VLAN to make it an access port of.
        access: Option<u16>,
    },
    /// Changes an interface, entry by entry. Anything empty or `None` stays as it is.
    ChangeInterface {
        /// Row.
        uuid: Uuid,
        /// Name, as a guard.
        name: String,
        /// Entries that `external_ids` must still hold.
        guard: StringMap,
        /// New `type`.
        kind: Option<String>,
        /// Entries of `options` to set.
        options: StringMap,
        /// Entries of `external_ids` to set.
        external_ids: StringMap,
        /// New `mac`.
        mac: Option<MacAddr>,
        /// New `mtu_request`.
        mtu_request: Option<u32>,
    },
    /// Deletes a QoS row that still holds `marks` and that no port refers to.
    DeleteQos {
        /// Row.
        uuid: Uuid,
        /// Entries that `external_ids` must still hold.
        marks: StringMap,
    },
    /// Sets entries of `external_ids` and nothing else: a row that somebody else made becomes ours. Of ports and
    /// interfaces that is done with [`OvsOp::ChangePort`] and [`OvsOp::ChangeInterface`], which see to more.
    Mark {
        /// Which table.
        table: MarkedTable,
        /// Row.
        uuid: Uuid,
        /// Name, for people.
        name: String,
        /// Entries that `external_ids` must still hold.
        guard: StringMap,
        /// Entries to set.
        external_ids: StringMap,
    },
    /// Deletes entries of `external_ids`, provided that the row is there: our marks come off.
    Unmark {
        /// Which table.
        table: MarkedTable,
        /// Row.
        uuid: Uuid,
        /// Name, for people.
        name: String,
        /// Keys to delete.
        keys: BTreeSet<String>,
    },
}

/// The entry of `Bridge.other_config` without which a manager that ovsdb-server connects to gets flows of its own above
/// all others (ovs-vswitchd.conf.db(5), `disable-in-band`).
#[must_use]
pub fn no_in_band() -> StringMap {
    StringMap::from([("disable-in-band".to_owned(), "true".to_owned())])
}

/// The `fail_mode` of a bridge that forwards by its flows alone.
pub const SECURE: &str = "secure";

/// The `vlan_mode` of a port that is on one VLAN.
pub const ACCESS: &str = "access";

/// Tables whose rows carry vifd's marks in `external_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkedTable {
    /// Bridge.
    Bridge,
    /// Port.
    Port,
    /// Interface.
    Interface,
    /// QoS.
    Qos,
}

/// A port to insert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NewPort {
    /// Bridge to put it into: one that is there, or one inserted earlier in the batch.
    pub bridge: String,
    /// Name of the port and of its interface.
    pub name: String,
    /// `Port.tag`.
    pub tag: Option<u16>,
    /// `Port.trunks`.
    pub trunks: BTreeSet<u16>,
    /// `Port.vlan_mode`.
    pub vlan_mode: Option<String>,
    /// `Port.external_ids`.
    pub external_ids: StringMap,
    /// `Port.other_config`.
    pub other_config: StringMap,
    /// QoS row to insert with it.
    pub qos: Option<NewQos>,
    /// `Interface.type`.
    pub kind: String,
    /// `Interface.options`.
    pub options: StringMap,
    /// `Interface.external_ids`.
    pub interface_ids: StringMap,
    /// `Interface.mac`.
    pub mac: Option<MacAddr>,
    /// `Interface.mtu_request`.
    pub mtu_request: Option<u32>,
}

/// A QoS row to insert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NewQos {
    /// `QoS.type`.
    pub kind: String,
    /// `QoS.external_ids`.
    pub external_ids: StringMap,
}
