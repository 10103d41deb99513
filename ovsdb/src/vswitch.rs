//! The tables and columns of the `Open_vSwitch` database that programs here use (ovs-vswitchd.conf.db(5)).
//! A column is added here and nowhere else, when something reads it: each is sent, read and held for every row.
//! `statistics` is left out on purpose: it changes every five seconds for every port.

mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use crate::pairs::Pairs;
use crate::text::Text;
use crate::value::Uuid;
pub use snapshot::Snapshot;

/// Name of the database.
pub const DATABASE: &str = "Open_vSwitch";

crate::table! {
    /// The one row that everything else hangs from.
    pub struct OpenVSwitch = "Open_vSwitch" {
        /// Every bridge of the host.
        required BRIDGES bridges: BTreeSet<Uuid> = "bridges",
        /// The `next_cfg` that ovs-vswitchd has acted upon. It gets there even when interfaces failed.
        required CUR_CFG cur_cfg: i64 = "cur_cfg",
        /// Incremented by whoever wants to see `cur_cfg` follow.
        required NEXT_CFG next_cfg: i64 = "next_cfg",
        /// Other programs' data, e.g. `system-id`, `ovn-…`.
        required EXTERNAL_IDS external_ids: Pairs = "external_ids",
        /// Switch-wide settings, e.g. `dpdk-init`, `hw-offload`.
        required OTHER_CONFIG other_config: Pairs = "other_config",
        /// Version of ovs-vswitchd; empty until it has started once.
        required OVS_VERSION ovs_version: Option<Text> = "ovs_version",
        /// Version of the schema that the database was converted to.
        required DB_VERSION db_version: Option<Text> = "db_version",
        /// Datapath types that ovs-vswitchd supports: `system`, `netdev`. Since schema 7.13.
        optional DATAPATH_TYPES datapath_types: BTreeSet<Text> = "datapath_types",
        /// Interface types that ovs-vswitchd supports. Since schema 7.13.
        optional IFACE_TYPES iface_types: BTreeSet<Text> = "iface_types",
        /// Whether DPDK is up. Since schema 7.16.
        optional DPDK_INITIALIZED dpdk_initialized: Option<bool> = "dpdk_initialized",
        /// Version of DPDK. Since schema 7.16.
        optional DPDK_VERSION dpdk_version: Option<Text> = "dpdk_version",
    }
}

crate::table! {
    /// A virtual switch.
    pub struct Bridge = "Bridge" {
        /// Unique; the name of its local port and interface too.
        required NAME name: Text = "name",
        /// Its ports.
        required PORTS ports: BTreeSet<Uuid> = "ports",
        /// `system`, `netdev` or empty, which means `system`.
        required DATAPATH_TYPE datapath_type: Text = "datapath_type",
        /// OpenFlow datapath ID, 16 hexadecimal digits; set by ovs-vswitchd.
        required DATAPATH_ID datapath_id: Option<Text> = "datapath_id",
        /// `standalone` or `secure`.
        required FAIL_MODE fail_mode: Option<Text> = "fail_mode",
        /// OpenFlow controllers.
        required CONTROLLER controller: BTreeSet<Uuid> = "controller",
        /// OpenFlow versions allowed, e.g. `OpenFlow14`; empty means the defaults. Since schema 6.10.
        optional PROTOCOLS protocols: BTreeSet<Text> = "protocols",
        /// Other programs' data.
        required EXTERNAL_IDS external_ids: Pairs = "external_ids",
        /// Settings, e.g. `hwaddr`.
        required OTHER_CONFIG other_config: Pairs = "other_config",
    }
}

crate::table! {
    /// A port of a bridge: one interface, or several that are bonded.
    pub struct Port = "Port" {
        /// Unique; that of its interface, unless it is a bond.
        required NAME name: Text = "name",
        /// Its interfaces, at least one.
        required INTERFACES interfaces: BTreeSet<Uuid> = "interfaces",
        /// VLAN of an access port, or the native one; 0 to 4095.
        required TAG tag: Option<i64> = "tag",
        /// VLANs of a trunk; empty means all.
        required TRUNKS trunks: BTreeSet<i64> = "trunks",
        /// `access`, `trunk`, `native-tagged`, `native-untagged` or `dot1q-tunnel`.
        required VLAN_MODE vlan_mode: Option<Text> = "vlan_mode",
        /// Its quality of service.
        required QOS qos: Option<Uuid> = "qos",
        /// Other programs' data.
        required EXTERNAL_IDS external_ids: Pairs = "external_ids",
        /// Settings, e.g. `transient`.
        required OTHER_CONFIG other_config: Pairs = "other_config",
    }
}

crate::table! {
    /// A network device within a port.
    pub struct Interface = "Interface" {
        /// Unique; for most types that of the kernel's device.
        required NAME name: Text = "name",
        /// `system` or empty, `internal`, `tap`, `patch`, `dpdkvhostuserclient`, `vxlan`, …
        required TYPE type_: Text = "type",
        /// Settings of the type, e.g. `vhost-server-path`.
        required OPTIONS options: Pairs = "options",
        /// Other programs' data, e.g. `iface-id`, `attached-mac`.
        required EXTERNAL_IDS external_ids: Pairs = "external_ids",
        /// Ethernet address asked for.
        required MAC mac: Option<Text> = "mac",
        /// OpenFlow port number; -1 when the interface could not be made, empty when not tried.
        required OFPORT ofport: Option<i64> = "ofport",
        /// Why the interface could not be made. Since schema 7.11.
        optional ERROR error: Option<Text> = "error",
        /// Bytes; 0 or empty when unknown.
        required MTU mtu: Option<i64> = "mtu",
        /// Bytes asked for. Since schema 7.14.
        optional MTU_REQUEST mtu_request: Option<i64> = "mtu_request",
        /// `up` or `down`; of a vhost port whether the peer has brought its queues up.
        required LINK_STATE link_state: Option<Text> = "link_state",
        /// Facts that the device tells, e.g. `status` (`connected`) and `socket` of a vhost port.
        required STATUS status: Pairs = "status",
        /// The kernel's interface index; 0 or empty when there is none.
        optional IFINDEX ifindex: Option<i64> = "ifindex",
    }
}

crate::table! {
    /// Quality of service that ports refer to.
    pub struct Qos = "QoS" {
        /// `linux-htb`, `linux-noop`, `egress-policer`, …
        required TYPE type_: Text = "type",
        /// Other programs' data.
        required EXTERNAL_IDS external_ids: Pairs = "external_ids",
        /// Settings of the type, e.g. `max-rate` in bit/s.
        required OTHER_CONFIG other_config: Pairs = "other_config",
        /// Queues by number.
        required QUEUES queues: BTreeMap<i64, Uuid> = "queues",
    }
}
