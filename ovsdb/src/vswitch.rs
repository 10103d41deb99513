//! The tables and columns of the `Open_vSwitch` database that programs here use (ovs-vswitchd.conf.db(5)).
//! A column is added here and nowhere else. `statistics` is left out on purpose: it changes every five
//! seconds for every port.

mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

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
        required EXTERNAL_IDS external_ids: BTreeMap<String, String> = "external_ids",
        /// Switch-wide settings, e.g. `dpdk-init`, `hw-offload`.
        required OTHER_CONFIG other_config: BTreeMap<String, String> = "other_config",
        /// Version of ovs-vswitchd; empty until it has started once.
        required OVS_VERSION ovs_version: Option<String> = "ovs_version",
        /// Version of the schema that the database was converted to.
        required DB_VERSION db_version: Option<String> = "db_version",
        /// Datapath types that ovs-vswitchd supports: `system`, `netdev`. Since schema 7.13.
        optional DATAPATH_TYPES datapath_types: BTreeSet<String> = "datapath_types",
        /// Interface types that ovs-vswitchd supports. Since schema 7.13.
        optional IFACE_TYPES iface_types: BTreeSet<String> = "iface_types",
        /// Whether DPDK is up. Since schema 7.16.
        optional DPDK_INITIALIZED dpdk_initialized: Option<bool> = "dpdk_initialized",
        /// Version of DPDK. Since schema 7.16.
        optional DPDK_VERSION dpdk_version: Option<String> = "dpdk_version",
    }
}

crate::table! {
    /// A virtual switch.
    pub struct Bridge = "Bridge" {
        /// Unique; the name of its local port and interface too.
        required NAME name: String = "name",
        /// Its ports.
        required PORTS ports: BTreeSet<Uuid> = "ports",
        /// `system`, `netdev` or empty, which means `system`.
        required DATAPATH_TYPE datapath_type: String = "datapath_type",
        /// OpenFlow datapath ID, 16 hexadecimal digits; set by ovs-vswitchd.
        required DATAPATH_ID datapath_id: Option<String> = "datapath_id",
        /// `standalone` or `secure`.
        required FAIL_MODE fail_mode: Option<String> = "fail_mode",
        /// OpenFlow controllers.
        required CONTROLLER controller: BTreeSet<Uuid> = "controller",
        /// OpenFlow versions allowed, e.g. `OpenFlow14`; empty means the defaults. Since schema 6.10.
        optional PROTOCOLS protocols: BTreeSet<String> = "protocols",
        /// Other programs' data.
        required EXTERNAL_IDS external_ids: BTreeMap<String, String> = "external_ids",
        /// Settings, e.g. `hwaddr`.
        required OTHER_CONFIG other_config: BTreeMap<String, String> = "other_config",
    }
}

crate::table! {
    /// A port of a bridge: one interface, or several that are bonded.
    pub struct Port = "Port" {
        /// Unique; that of its interface, unless it is a bond.
        required NAME name: String = "name",
        /// Its interfaces, at least one.
        required INTERFACES interfaces: BTreeSet<Uuid> = "interfaces",
        /// VLAN of an access port, or the native one; 0 to 4095.
        required TAG tag: Option<i64> = "tag",
        /// VLANs of a trunk; empty means all.
        required TRUNKS trunks: BTreeSet<i64> = "trunks",
        /// `access`, `trunk`, `native-tagged`, `native-untagged` or `dot1q-tunnel`.
        required VLAN_MODE vlan_mode: Option<String> = "vlan_mode",
        /// Its quality of service.
        required QOS qos: Option<Uuid> = "qos",
        /// Other programs' data.
        required EXTERNAL_IDS external_ids: BTreeMap<String, String> = "external_ids",
        /// Settings, e.g. `transient`.
        required OTHER_CONFIG other_config: BTreeMap<String, String> = "other_config",
    }
}

crate::table! {
    /// A network device within a port.
    pub struct Interface = "Interface" {
        /// Unique; for most types that of the kernel's device.
        required NAME name: String = "name",
        /// `system` or empty, `internal`, `tap`, `patch`, `dpdkvhostuserclient`, `vxlan`, …
        required TYPE type_: String = "type",
        /// Settings of the type, e.g. `vhost-server-path`.
        required OPTIONS options: BTreeMap<String, String> = "options",
        /// Other programs' data, e.g. `iface-id`, `attached-mac`.
        required EXTERNAL_IDS external_ids: BTreeMap<String, String> = "external_ids",
        /// OpenFlow port number; -1 when the interface could not be made, empty when not tried.
        required OFPORT ofport: Option<i64> = "ofport",
        /// The number asked for, 1 to 65279.
        required OFPORT_REQUEST ofport_request: Option<i64> = "ofport_request",
        /// Why the interface could not be made. Since schema 7.11.
        optional ERROR error: Option<String> = "error",
        /// The address asked for.
        required MAC mac: Option<String> = "mac",
        /// The address it has.
        required MAC_IN_USE mac_in_use: Option<String> = "mac_in_use",
        /// Bytes; 0 or empty when unknown.
        required MTU mtu: Option<i64> = "mtu",
        /// Bytes asked for. Since schema 7.14.
        optional MTU_REQUEST mtu_request: Option<i64> = "mtu_request",
        /// `up` or `down`.
        required ADMIN_STATE admin_state: Option<String> = "admin_state",
        /// `up` or `down`; of a vhost port whether the peer has brought its queues up.
        required LINK_STATE link_state: Option<String> = "link_state",
        /// Facts that the device tells, e.g. `status` (`connected`) and `socket` of a vhost port.
        required STATUS status: BTreeMap<String, String> = "status",
        /// The kernel's interface index; 0 or empty when there is none.
        optional IFINDEX ifindex: Option<i64> = "ifindex",
    }
}

crate::table! {
    /// Quality of service that ports refer to.
    pub struct Qos = "QoS" {
        /// `linux-htb`, `linux-noop`, `egress-policer`, …
        required TYPE type_: String = "type",
        /// Other programs' data.
        required EXTERNAL_IDS external_ids: BTreeMap<String, String> = "external_ids",
        /// Settings of the type, e.g. `max-rate` in bit/s.
        required OTHER_CONFIG other_config: BTreeMap<String, String> = "other_config",
        /// Queues by number.
        required QUEUES queues: BTreeMap<i64, Uuid> = "queues",
    }
}
