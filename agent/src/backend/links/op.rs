//! What can be asked of the kernel. How it is done is `perform.rs`'s business.

use std::path::PathBuf;

use crate::model::{BridgeConfig, DeviceAccess, DirectMode, FileOwner, MacAddr};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LinkOp {
    /// Makes a link. A crash in the middle leaves nothing of a tap, and of other kinds a link that is in the nursery
    /// (`LinksConfig::nursery`) and bears no mark.
    CreateLink {
        /// How it is to be.
        link: Box<NewLink>,
        /// What kind of device.
        kind: NewKind,
    },
    /// Changes what is `Some`, provided that `index` still has this `name`.
    ChangeLink {
        /// Kernel index.
        index: u32,
        /// Its name, as the guard.
        name: String,
        /// What to change.
        change: Box<LinkChange>,
    },
    /// Deletes a link, provided that `index` still has this `name` and `alias`; the other end of a veth goes with it.
    DeleteLink {
        /// Kernel index.
        index: u32,
        /// Its name, as a guard.
        name: String,
        /// Its mark, as a guard; empty for one without.
        alias: String,
    },
    /// Takes an interface into a bridge, which takes over the interface's addresses and routes; or lets it out, and
    /// gives them back. Provided that both indices still have these names. Done in an order in which a route is there
    /// at every moment, and so that it can be done again from wherever a crash has left it.
    MoveUplink {
        /// Kernel index and name of the interface.
        interface: (u32, String),
        /// Kernel index and name of the bridge.
        bridge: (u32, String),
        /// Octets that the interface has to carry at least when it comes.
        mtu: Option<u32>,
        /// Whether it comes or goes.
        join: bool,
    },
    /// Gives the character device of a macvtap owner and mode, provided that `index` still has this `name`.
    OwnDevice {
        /// Kernel index.
        index: u32,
        /// Its name, as the guard.
        name: String,
        /// How it shall be.
        access: DeviceAccess,
    },
    /// Makes a directory (and those above it, from the allowed one down) for vhost-user sockets, or puts its
    /// owner and mode right.
    MakeSocketDirectory {
        /// Absolute path.
        path: PathBuf,
        /// How it shall be. `uid`, `gid` and `mode` are set; the label where there is one.
        owner: FileOwner,
    },
    /// Removes a left-over socket; anything that is not a socket is refused.
    RemoveSocket {
        /// Absolute path.
        path: PathBuf,
    },
}

/// A link to be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewLink {
    /// At most 15 bytes.
    pub name: String,
    /// Link-layer address; the kernel's choice when absent.
    pub mac: Option<MacAddr>,
    /// Octets; the kernel's choice when absent.
    pub mtu: Option<u32>,
    /// Whether to set it up.
    pub up: bool,
    /// `IFF_PROMISC`.
    pub promiscuous: bool,
    /// Name of the Linux bridge to put it into, which may be made earlier in the same batch.
    pub master: Option<String>,
    /// `IFLA_IFALIAS`: our mark.
    pub alias: String,
}

/// Kinds of links that vifd makes. On each the kernel's IPv6 and ARP settings are as os-vif has them when it is made; of
/// later changes to those the kernel tells nobody, and they are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NewKind {
    /// A persistent tap, IPv6 off.
    Tap {
        /// `IFF_MULTI_QUEUE`.
        multi_queue: bool,
    },
    /// A Linux bridge, IPv6 off, `arp_ignore` 1, `arp_announce` 2.
    Bridge(BridgeConfig),
    /// A veth pair: the other end.
    Veth(Box<NewLink>),
    /// A VLAN (802.1Q).
    Vlan {
        /// Name of the link that it stands on.
        on: String,
        /// 1 to 4094.
        id: u16,
    },
    /// A macvtap, IPv6 off.
    Macvtap {
        /// Name of the link that it stands on.
        on: String,
        /// Its mode.
        mode: DirectMode,
    },
}

impl NewKind {
    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            NewKind::Tap { .. } => "tap",
            NewKind::Bridge(_) => "bridge",
            NewKind::Veth(_) => "veth",
            NewKind::Vlan { .. } => "vlan",
            NewKind::Macvtap { .. } => "macvtap",
        }
    }
}

/// What to change of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkChange {
    /// New name. Kernels before 6.2 have to set a link down for it, which stays so unless `up` says otherwise.
    pub rename: Option<String>,
    /// New link-layer address.
    pub mac: Option<MacAddr>,
    /// New MTU in octets.
    pub mtu: Option<u32>,
    /// New administrative state.
    pub up: Option<bool>,
    /// New `IFF_PROMISC`.
    pub promiscuous: Option<bool>,
    /// Name of the Linux bridge to put it into.
    pub master: Option<String>,
    /// As a guard: it is in no bridge yet. The kernel tells of a link that goes from one bridge to another that it has left
    /// the one, and a moment later that it is in the other.
    pub unattached: bool,
    /// New settings of a bridge.
    pub bridge: Option<BridgeConfig>,
    /// New mark (`IFLA_IFALIAS`); empty to take it off.
    pub alias: Option<String>,
}
