//! One link of the kernel, as far as vifd reads it.

use ipnet::IpNet;

use super::{DirectMode, MacAddr};

/// One kernel link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index, unique as long as the link lives.
    pub index: u32,
    /// At most 15 bytes.
    pub name: String,
    /// What kind of device it is.
    pub kind: LinkKind,
    /// Link-layer address, where it is an Ethernet one.
    pub mac: Option<MacAddr>,
    /// Octets.
    pub mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_PROMISC`, as somebody asked for it; that a bridge makes its ports promiscuous does not show here.
    pub promiscuous: bool,
    /// `IFLA_IFALIAS`, where vifd's mark stands.
    pub alias: Option<String>,
    /// `IFLA_MASTER`: index of the bridge or Open vSwitch datapath that it is enslaved to.
    pub master: Option<u32>,
    /// `IFLA_LINK`, where that is in the same network namespace: index of the link that a VLAN or macvtap stands on, or
    /// of the other end of a veth.
    pub lower: Option<u32>,
    /// `IFLA_GROUP`, 0 unless somebody chose one.
    pub group: u32,
    /// Its addresses of global scope, in order.
    pub addresses: Vec<IpNet>,
    /// The node of its character device, where it is a macvtap and has one.
    pub device: Option<DeviceOwner>,
}

impl Link {
    /// A bare Ethernet link, down, of 1500 octets.
    #[must_use]
    pub fn new(index: u32, name: impl Into<String>, kind: LinkKind) -> Self {
        Link {
            index,
            name: name.into(),
            kind,
            mac: None,
            mtu: 1500,
            up: false,
            promiscuous: false,
            alias: None,
            master: None,
            lower: None,
            group: 0,
            addresses: Vec::new(),
            device: None,
        }
    }
}

/// Kinds of links that the planner tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A tap (`IFF_TAP`).
    Tap {
        /// `IFF_MULTI_QUEUE`.
        multi_queue: bool,
        /// Whether it outlives the process that made it.
        persistent: bool,
    },
    /// A Linux bridge.
    Bridge(BridgeConfig),
    /// One end of a veth pair; `Link::lower` is the other.
    Veth,
    /// A VLAN (802.1Q) of the link below.
    Vlan {
        /// 1 to 4094.
        id: u16,
    },
    /// A macvtap on the link below.
    Macvtap {
        /// Its mode; `None` for those that no VIF asks for (`private`, `source`).
        mode: Option<DirectMode>,
    },
    /// Anything else: `IFLA_INFO_KIND`, or empty for hardware.
    Other(String),
}

impl LinkKind {
    /// `IFLA_INFO_KIND`; `tap` for a tap, `device` where there is none, as with hardware.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            LinkKind::Tap { .. } => "tap",
            LinkKind::Bridge(_) => "bridge",
            LinkKind::Veth => "veth",
            LinkKind::Vlan { .. } => "vlan",
            LinkKind::Macvtap { .. } => "macvtap",
            LinkKind::Other(kind) if kind.is_empty() => "device",
            LinkKind::Other(kind) => kind,
        }
    }
}

/// Settings of a Linux bridge (`IFLA_BR_*`, `linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BridgeConfig {
    /// `IFLA_BR_AGEING_TIME`: for how long an address is remembered, hundredths of a second; 0 floods everything.
    pub ageing_time: u32,
    /// `IFLA_BR_FORWARD_DELAY`: for how long a new port does not forward, hundredths of a second.
    pub forward_delay: u32,
    /// `IFLA_BR_STP_STATE`: whether the spanning tree protocol is spoken.
    pub stp: bool,
    /// `IFLA_BR_MCAST_SNOOPING`: whether multicast goes only where it was asked for.
    pub multicast_snooping: bool,
}

/// Owner and mode of a character device's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOwner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, `0o7777`.
    pub mode: u32,
}

/// Who is to get at a character device. What is `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceAccess {
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// Permission bits, `0o777`.
    pub mode: Option<u32>,
}

impl DeviceAccess {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        *self == DeviceAccess::default()
    }

    /// Whether a device is as wanted.
    #[must_use]
    pub fn is_met_by(&self, has: DeviceOwner) -> bool {
        let met = |wanted: Option<u32>, has| wanted.is_none_or(|wanted| wanted == has);
        met(self.uid, has.uid) && met(self.gid, has.gid) && met(self.mode, has.mode)
    }
}

/// Name of the character device of the macvtap with this index (`macvtap_device_event` in `drivers/net/macvtap.c`).
#[must_use]
pub fn device_name(index: u32) -> String {
    format!("tap{index}")
}
