//! The numbers of `linux/devlink.h`, `linux/ethtool_netlink.h` and `linux/genetlink.h` that are used here, under their
//! names there. They are the kernel's promise to programs and never change.

/// `enum devlink_command`.
pub(crate) mod command {
    pub(crate) const GET: u8 = 1;
    pub(crate) const NEW: u8 = 3;
    pub(crate) const DEL: u8 = 4;
    pub(crate) const PORT_GET: u8 = 5;
    pub(crate) const PORT_SET: u8 = 6;
    pub(crate) const PORT_NEW: u8 = 7;
    pub(crate) const PORT_DEL: u8 = 8;
    pub(crate) const ESWITCH_GET: u8 = 29;
    pub(crate) const ESWITCH_SET: u8 = 30;
    pub(crate) const RELOAD: u8 = 37;
    pub(crate) const INFO_GET: u8 = 51;
    pub(crate) const HEALTH_REPORTER_GET: u8 = 52;
    pub(crate) const HEALTH_REPORTER_RECOVER: u8 = 54;
    pub(crate) const RATE_GET: u8 = 74;
    pub(crate) const RATE_SET: u8 = 75;
    pub(crate) const RATE_NEW: u8 = 76;
    pub(crate) const RATE_DEL: u8 = 77;
}

/// `enum devlink_attr`.
pub(crate) mod attr {
    pub(crate) const BUS_NAME: u16 = 1;
    pub(crate) const DEV_NAME: u16 = 2;
    pub(crate) const PORT_INDEX: u16 = 3;
    pub(crate) const PORT_TYPE: u16 = 4;
    pub(crate) const PORT_NETDEV_IFINDEX: u16 = 6;
    pub(crate) const PORT_NETDEV_NAME: u16 = 7;
    pub(crate) const PORT_IBDEV_NAME: u16 = 8;
    pub(crate) const PORT_SPLIT_GROUP: u16 = 10;
    pub(crate) const ESWITCH_MODE: u16 = 25;
    pub(crate) const ESWITCH_INLINE_MODE: u16 = 26;
    pub(crate) const ESWITCH_ENCAP_MODE: u16 = 62;
    pub(crate) const PORT_FLAVOUR: u16 = 77;
    pub(crate) const PORT_NUMBER: u16 = 78;
    pub(crate) const PORT_SPLIT_SUBPORT_NUMBER: u16 = 79;
    pub(crate) const INFO_DRIVER_NAME: u16 = 98;
    pub(crate) const INFO_SERIAL_NUMBER: u16 = 99;
    pub(crate) const INFO_VERSION_FIXED: u16 = 100;
    pub(crate) const INFO_VERSION_RUNNING: u16 = 101;
    pub(crate) const INFO_VERSION_STORED: u16 = 102;
    pub(crate) const INFO_VERSION_NAME: u16 = 103;
    pub(crate) const INFO_VERSION_VALUE: u16 = 104;
    pub(crate) const HEALTH_REPORTER: u16 = 114;
    pub(crate) const HEALTH_REPORTER_NAME: u16 = 115;
    pub(crate) const HEALTH_REPORTER_STATE: u16 = 116;
    pub(crate) const HEALTH_REPORTER_ERR_COUNT: u16 = 117;
    pub(crate) const HEALTH_REPORTER_RECOVER_COUNT: u16 = 118;
    pub(crate) const HEALTH_REPORTER_GRACEFUL_PERIOD: u16 = 120;
    pub(crate) const HEALTH_REPORTER_AUTO_RECOVER: u16 = 121;
    pub(crate) const PORT_PCI_PF_NUMBER: u16 = 127;
    pub(crate) const PORT_PCI_VF_NUMBER: u16 = 128;
    pub(crate) const RELOAD_FAILED: u16 = 136;
    pub(crate) const PORT_FUNCTION: u16 = 145;
    pub(crate) const INFO_BOARD_SERIAL_NUMBER: u16 = 146;
    pub(crate) const PORT_LANES: u16 = 147;
    pub(crate) const PORT_SPLITTABLE: u16 = 148;
    pub(crate) const PORT_EXTERNAL: u16 = 149;
    pub(crate) const PORT_CONTROLLER_NUMBER: u16 = 150;
    pub(crate) const RELOAD_ACTION: u16 = 153;
    pub(crate) const RELOAD_ACTIONS_PERFORMED: u16 = 154;
    pub(crate) const DEV_STATS: u16 = 156;
    pub(crate) const RELOAD_STATS: u16 = 157;
    pub(crate) const RELOAD_STATS_ENTRY: u16 = 158;
    pub(crate) const RELOAD_STATS_LIMIT: u16 = 159;
    pub(crate) const RELOAD_STATS_VALUE: u16 = 160;
    pub(crate) const REMOTE_RELOAD_STATS: u16 = 161;
    pub(crate) const RELOAD_ACTION_INFO: u16 = 162;
    pub(crate) const RELOAD_ACTION_STATS: u16 = 163;
    pub(crate) const PORT_PCI_SF_NUMBER: u16 = 164;
    pub(crate) const RATE_TYPE: u16 = 165;
    pub(crate) const RATE_TX_SHARE: u16 = 166;
    pub(crate) const RATE_TX_MAX: u16 = 167;
    pub(crate) const RATE_NODE_NAME: u16 = 168;
    pub(crate) const RATE_PARENT_NODE_NAME: u16 = 169;
}

/// `enum devlink_port_function_attr`.
pub(crate) mod function {
    pub(crate) const HW_ADDR: u16 = 1;
    pub(crate) const STATE: u16 = 2;
    pub(crate) const OPSTATE: u16 = 3;
    /// Since Linux 6.2.
    pub(crate) const CAPS: u16 = 4;
}

/// `enum devlink_port_flavour`.
pub(crate) mod flavour {
    pub(crate) const PHYSICAL: u16 = 0;
    pub(crate) const CPU: u16 = 1;
    pub(crate) const DSA: u16 = 2;
    pub(crate) const PCI_PF: u16 = 3;
    pub(crate) const PCI_VF: u16 = 4;
    pub(crate) const VIRTUAL: u16 = 5;
    pub(crate) const UNUSED: u16 = 6;
    pub(crate) const PCI_SF: u16 = 7;
}

/// `linux/genetlink.h`: the family that knows the others (`GENL_ID_CTRL`).
pub(crate) mod ctrl {
    pub(crate) const FAMILY: u16 = 16;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const GETFAMILY: u8 = 3;
    pub(crate) const ATTR_FAMILY_ID: u16 = 1;
    pub(crate) const ATTR_FAMILY_NAME: u16 = 2;
    pub(crate) const ATTR_MCAST_GROUPS: u16 = 7;
    pub(crate) const MCAST_GRP_NAME: u16 = 1;
    pub(crate) const MCAST_GRP_ID: u16 = 2;
}

/// `linux/ethtool_netlink.h`: features.
pub(crate) mod ethtool {
    pub(crate) const FEATURES_GET: u8 = 11;
    pub(crate) const FEATURES_SET: u8 = 12;
    /// `ETHTOOL_A_FEATURES_…`.
    pub(crate) const HEADER: u16 = 1;
    pub(crate) const HW: u16 = 2;
    pub(crate) const WANTED: u16 = 3;
    pub(crate) const ACTIVE: u16 = 4;
    pub(crate) const NOCHANGE: u16 = 5;
    /// `ETHTOOL_A_HEADER_…`.
    pub(crate) const HEADER_DEV_INDEX: u16 = 1;
    pub(crate) const HEADER_DEV_NAME: u16 = 2;
    /// `ETHTOOL_A_BITSET_…`.
    pub(crate) const BITSET_NOMASK: u16 = 1;
    pub(crate) const BITSET_BITS: u16 = 3;
    /// `ETHTOOL_A_BITSET_BITS_BIT`.
    pub(crate) const BITS_BIT: u16 = 1;
    /// `ETHTOOL_A_BITSET_BIT_…`.
    pub(crate) const BIT_NAME: u16 = 2;
    pub(crate) const BIT_VALUE: u16 = 3;
}
