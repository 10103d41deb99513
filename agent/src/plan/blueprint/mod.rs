//! What one VIF wants on the host, whatever is there now: a file per VIF type. Comparing it with what is
//! there is `compare`'s work.

mod association;
mod bridge;
mod direct;
mod fastpath;
mod function;
mod generic;
mod openvswitch;
mod sub_port;
mod vhostuser;

pub use association::WantedAssociation;
pub use function::{FunctionSettings, FunctionWay, WantedFunction};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::settings::qos_id;
use super::{Missing, Settings};
use crate::backend::ovs::{NewQos, StringMap};
use crate::model::{
    BridgeConfig, DeviceAccess, DirectMode, LinkKind, MacAddr, Mark, OpenVSwitchProfile, Parent, ProfileKind, Vif,
    VifId, VifKind,
};

/// How a port of type `openvswitch` is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// On the network's bridge.
    Plain,
    /// On a bridge of its own, with a patch pair to the network's.
    PerPortBridge,
}

/// Everything that one VIF wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blueprint {
    /// Kernel links, each after those that it is put into or stands on.
    pub links: Vec<WantedLink>,
    /// Directories for sockets that the guest makes.
    pub socket_dirs: Vec<PathBuf>,
    /// Bridges that have to be there.
    pub bridges: Vec<WantedBridge>,
    /// Ports, the guest's own first.
    pub ports: Vec<WantedPort>,
    /// The guest's vhost-user socket.
    pub socket: Option<PathBuf>,
    /// The port of a trunk that it is a sub-port on.
    pub sub_port: Option<WantedSubPort>,
    /// The function of a NIC that it has.
    pub function: Option<WantedFunction>,
    /// What the switch beyond the link that its macvtap stands on is asked for.
    pub association: Option<WantedAssociation>,
    /// Names of links of its that are left as they are.
    pub kept: Vec<String>,
    /// Nothing is wanted before this is there.
    pub waits: Option<Missing>,
}

impl Blueprint {
    /// The port that flows are for. With a bridge of its own in between, the port on the network's bridge is the last.
    pub(super) fn managed_port(&self, settings: &Settings) -> Option<&WantedPort> {
        self.ports.iter().rev().find(|port| settings.bridges.contains_key(&port.bridge))
    }

    /// The bridge that flows are on.
    pub(super) fn managed_bridge(&self, settings: &Settings) -> Option<&str> {
        let of_sub_port = self.sub_port.as_ref().filter(|sub_port| !sub_port.patched).map(|sub_port| &sub_port.bridge);
        of_sub_port.or_else(|| self.managed_port(settings).map(|port| &port.bridge)).map(String::as_str)
    }

    /// The link that carries the VIF's traffic to its port, or to the guest where there is no port.
    #[must_use]
    pub fn netdev(&self) -> Option<&WantedLink> {
        let made = || self.links.iter().filter(|link| link.maker != LinkMaker::Hypervisor);
        let of_port = self.ports.iter().find_map(|port| made().find(|link| port.name == link.name));
        // What a macvtap stands on is the NIC's.
        of_port.or_else(|| made().find(|link| !link.shared && link.maker != LinkMaker::Nic))
    }

    /// The guest's device that the hypervisor makes and that goes into a Linux bridge.
    #[must_use]
    pub fn guest_device(&self) -> Option<&WantedLink> {
        self.links.iter().find(|link| link.maker == LinkMaker::Hypervisor)
    }

    /// Name of the link by which the VIF's Linux bridge leads out of the host, or that its macvtap stands on.
    #[must_use]
    pub fn uplink(&self) -> Option<&str> {
        self.links.iter().find_map(|link| match &link.maker {
            LinkMaker::Vifd(Make::Bridge { uplink, .. }) => uplink.as_deref(),
            LinkMaker::Vifd(Make::Macvtap { on, .. }) => Some(on),
            _ => None,
        })
    }

    /// Whether vifd makes a link of this name for this VIF.
    #[must_use]
    pub fn makes(&self, name: &str) -> bool {
        self.links.iter().any(|link| matches!(link.maker, LinkMaker::Vifd(_)) && link.name == name)
    }
}

/// A VLAN of a trunk's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSubPort {
    /// The trunk's VIF.
    pub parent: VifId,
    /// Bridge of its port.
    pub bridge: String,
    /// Its port.
    pub port: String,
    /// Who makes that.
    pub maker: Maker,
    /// VLAN, 1 to 4094.
    pub vlan: u16,
    /// Whether ports of the VIF's own lead there; otherwise the flows of the bridge do.
    pub patched: bool,
    /// Whether the trunk is active: otherwise nobody sends or gets anything by that port.
    pub active: bool,
}

/// A kernel link. What is `None` is left as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedLink {
    /// Name, at most 15 bytes.
    pub name: String,
    /// Who makes it.
    pub maker: LinkMaker,
    /// Whether any number of VIFs may want it: then one that is there and nobody's is used as it is, and one of ours goes
    /// with the last VIF that wants it.
    pub shared: bool,
    /// Address.
    pub mac: Option<MacAddr>,
    /// Octets.
    pub mtu: Option<u32>,
    /// Administrative state.
    pub up: Option<bool>,
    /// Whether it has to be promiscuous.
    pub promiscuous: bool,
    /// Name of the Linux bridge that it is in.
    pub master: Option<String>,
    /// Our mark, on what vifd makes.
    pub alias: Option<String>,
    /// Who is to get at its character device.
    pub device: DeviceAccess,
}

impl WantedLink {
    /// One of which no more is wanted than that it is there.
    #[must_use]
    pub fn new(name: impl Into<String>, maker: LinkMaker) -> Self {
        WantedLink {
            name: name.into(),
            maker,
            shared: false,
            mac: None,
            mtu: None,
            up: None,
            promiscuous: false,
            master: None,
            alias: None,
            device: DeviceAccess::default(),
        }
    }
}

/// Who makes a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkMaker {
    /// vifd, like this.
    Vifd(Make),
    /// ovs-vswitchd, for an internal port of the VIF's.
    Switch,
    /// A NIC: the representor of a function, or the function's own netdev.
    Nic,
    /// The hypervisor: vifd puts it into its bridge and does nothing else to it.
    Hypervisor,
}

/// What vifd makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Make {
    /// A tap.
    Tap {
        /// Whether it has several queues.
        multi_queue: bool,
    },
    /// A Linux bridge.
    Bridge {
        /// Its settings.
        config: BridgeConfig,
        /// The interface that leads out of the host, whose addresses and routes the bridge takes over.
        uplink: Option<String>,
    },
    /// One end of a veth pair.
    Veth {
        /// Name of the other end, a link of the same blueprint.
        peer: String,
    },
    /// A VLAN.
    Vlan {
        /// Name of the link that it stands on.
        on: String,
        /// 1 to 4094.
        id: u16,
    },
    /// A macvtap.
    Macvtap {
        /// Name of the link that it stands on.
        on: String,
        /// Its mode.
        mode: DirectMode,
    },
}

impl Make {
    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Make::Tap { .. } => "tap",
            Make::Bridge { .. } => "bridge",
            Make::Veth { .. } => "veth",
            Make::Vlan { .. } => "vlan",
            Make::Macvtap { .. } => "macvtap",
        }
    }

    /// Whether a link of this kind may be it.
    #[must_use]
    pub fn is(&self, kind: &LinkKind) -> bool {
        kind.name() == self.name()
    }
}

/// A bridge that has to be there. One that is there already is left as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedBridge {
    /// Name.
    pub name: String,
    /// `datapath_type` if it has to be made.
    pub datapath_type: String,
    /// Whether it goes when its last port goes.
    pub disposable: bool,
}

/// Who makes a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// vifd.
    Vifd,
    /// The hypervisor: vifd tends it.
    Hypervisor,
}

/// A port with one interface.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPort {
    /// Bridge to be on.
    pub bridge: String,
    /// Name of port and interface.
    pub name: String,
    /// Who makes it.
    pub maker: Maker,
    /// `Interface.type`.
    pub kind: String,
    /// Entries of `Interface.options`.
    pub options: StringMap,
    /// Our marks, for the port and for its interface.
    pub marks: StringMap,
    /// Entries of `Interface.external_ids`, the marks among them.
    pub ids: StringMap,
    /// `Interface.mac`.
    pub mac: Option<MacAddr>,
    /// `Interface.mtu_request`.
    pub mtu_request: Option<u32>,
    /// MTU to set on the netdev of this name when the hypervisor brings it.
    pub netdev_mtu: Option<u32>,
    /// VLAN that it is an access port of, where that is vifd's to say.
    pub access: Option<u16>,
    /// Where a new port starts on the dead VLAN.
    pub isolation: Option<Isolation>,
    /// QoS row of a new port.
    pub qos: Option<NewQos>,
}

impl WantedPort {
    /// One that vifd makes, of this type (`Interface.type`), and of which nothing else is wanted.
    #[must_use]
    pub fn new(bridge: impl Into<String>, name: impl Into<String>, kind: impl Into<String>) -> Self {
        WantedPort {
            bridge: bridge.into(),
            name: name.into(),
            maker: Maker::Vifd,
            kind: kind.into(),
            options: StringMap::new(),
            marks: StringMap::new(),
            ids: StringMap::new(),
            mac: None,
            mtu_request: None,
            netdev_mtu: None,
            access: None,
            isolation: None,
            qos: None,
        }
    }

    /// One end of a patch that vifd makes, whose other end is `peer`.
    fn patch(bridge: &str, name: &str, peer: &str) -> Self {
        WantedPort {
            options: BTreeMap::from([("peer".to_owned(), peer.to_owned())]),
            ..WantedPort::new(bridge, name, "patch")
        }
    }
}

/// How a new port is kept apart until somebody else gives it a VLAN (os-vif's `isolate_vif`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// `tag`, `trunks` and `vlan_mode`.
    Trunk,
    /// `tag` alone.
    Tag,
}

/// The dead VLAN of os-vif and neutron.
pub const DEAD_VLAN: u16 = 4095;

impl Isolation {
    /// `tag`, `trunks` and `vlan_mode` of a new port.
    #[must_use]
    pub fn columns(self) -> (Option<u16>, BTreeSet<u16>, Option<String>) {
        match self {
            Isolation::Trunk => (Some(DEAD_VLAN), BTreeSet::from([DEAD_VLAN]), Some("trunk".to_owned())),
            Isolation::Tag => (Some(DEAD_VLAN), BTreeSet::new(), None),
        }
    }
}

/// Why a record has no blueprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbuildable {
    /// Path of the field in the record.
    pub field: String,
    /// One sentence.
    pub reason: String,
}

/// What `vif` wants, which is no sub-port.
///
/// # Errors
/// The record asks for what this version cannot do, or what the host's configuration forbids.
pub fn blueprint(vif: &Vif, layout: Layout, settings: &Settings) -> Result<Blueprint, Unbuildable> {
    of_kind(vif, layout, settings).map(|blueprint| marked(blueprint, vif, settings))
}

/// What `vif` wants as a sub-port of the VIF `trunk`, which wants `of`.
///
/// # Errors
/// It cannot be one of that.
pub fn sub_port(
    vif: &Vif,
    parent: Parent,
    trunk: &Vif,
    of: &Blueprint,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    sub_port::blueprint(vif, parent, trunk, of, settings).map(|blueprint| marked(blueprint, vif, settings))
}

fn marked(mut blueprint: Blueprint, vif: &Vif, settings: &Settings) -> Blueprint {
    let marks = settings.marks(Some(vif.id), vif.preserve_on_delete);
    for link in &mut blueprint.links {
        let LinkMaker::Vifd(make) = &link.maker else { continue };
        let uplink = if let Make::Bridge { uplink, .. } = make { uplink.as_deref() } else { None };
        link.alias = Some(match link.shared {
            true => Mark::shared_text(&settings.agent, false, uplink),
            false => Mark::text(&settings.agent, vif.id, vif.preserve_on_delete),
        });
    }
    for port in &mut blueprint.ports {
        port.ids.extend(marks.clone());
        port.marks.clone_from(&marks);
        if let Some(qos) = &mut port.qos {
            qos.external_ids.extend(marks.clone());
        }
    }
    blueprint
}

/// What `vif` wants, the marks aside.
fn of_kind(vif: &Vif, layout: Layout, settings: &Settings) -> Result<Blueprint, Unbuildable> {
    match (&vif.kind, vif.profile.as_ref().map(|profile| &profile.kind)) {
        (VifKind::Generic { vif_name }, _) => Ok(generic::blueprint(vif, vif_name, settings)),
        (VifKind::OpenVSwitch { vif_name, .. }, Some(ProfileKind::OpenVSwitch(profile))) => {
            openvswitch::blueprint(vif, vif_name, profile, layout, settings)
        }
        (VifKind::Bridge { vif_name, bridge_name }, Some(ProfileKind::OpenVSwitch(profile))) => {
            bridge::hybrid(vif, vif_name.as_deref(), bridge_name.as_deref(), profile, settings)
        }
        (VifKind::Bridge { vif_name, bridge_name }, None | Some(ProfileKind::Base)) => {
            bridge::plain(vif, vif_name.as_deref(), bridge_name.as_deref(), settings)
        }
        (VifKind::VHostUser { path, mode, .. }, Some(ProfileKind::OpenVSwitch(profile))) => {
            vhostuser::blueprint(vif, path, *mode, network_bridge(vif)?, profile, settings)
        }
        (
            VifKind::VHostUser { vif_name, path, mode },
            Some(ProfileKind::FpOpenVSwitch { ovs, bridge_name, hybrid_plug }),
        ) => {
            let bridge = bridge_name.as_deref();
            match hybrid_plug {
                true => fastpath::hybrid(vif, vif_name.as_deref(), path, *mode, bridge, ovs, settings),
                false => vhostuser::blueprint(
                    vif,
                    path,
                    *mode,
                    bridge.map_or_else(|| network_bridge(vif), Ok)?,
                    ovs,
                    settings,
                ),
            }
        }
        (VifKind::VHostUser { vif_name, path, mode }, Some(ProfileKind::FpBridge { bridge_name })) => {
            fastpath::bridge(vif, vif_name.as_deref(), path, *mode, bridge_name, settings)
        }
        (VifKind::VHostUser { vif_name, path, mode }, Some(ProfileKind::FpTap { mac_address })) => {
            fastpath::tap(vif, vif_name.as_deref(), path, *mode, *mac_address, settings)
        }
        (
            VifKind::Direct { vif_name, dev_address, mode, vlan_name },
            profile @ (None | Some(ProfileKind::Base | ProfileKind::Qbg { .. } | ProfileKind::Qbh { .. })),
        ) => {
            // The kernel's own default is the same (`macvlan_common_newlink`).
            let mode = mode.unwrap_or(DirectMode::Vepa);
            let blueprint = match (dev_address, vlan_name) {
                (Some(address), None) => function::direct(vif, vif_name.as_deref(), address, mode, settings),
                (_, vlan_name) => direct::blueprint(vif, vif_name.as_deref(), mode, vlan_name.as_deref(), settings),
            };
            Ok(Blueprint { association: association::wanted(vif, profile)?, ..blueprint? })
        }
        (VifKind::HostDevice { dev_type, dev_address }, _) => {
            function::host_device(vif, *dev_type, dev_address, vif.profile.as_ref(), settings)
        }
        (
            VifKind::NestedDpdk { pci_address, dev_driver },
            None | Some(ProfileKind::Base | ProfileKind::K8sDpdk { .. }),
        ) => function::nested(vif, *pci_address, dev_driver.as_deref()),
        (kind, Some(profile)) => {
            unsupported("vif.type", &format!("{} with {}", kind.object_name(), profile.object_name()))
        }
        (kind, None) => unsupported("vif.type", &format!("{} without a port profile", kind.object_name())),
    }
}

fn unsupported<T>(field: &str, what: &str) -> Result<T, Unbuildable> {
    Err(Unbuildable { field: field.to_owned(), reason: format!("not supported by this version: {what}") })
}

/// A field without which the VIF cannot be built.
fn needed<'a>(vif: &Vif, field: &str, value: Option<&'a str>) -> Result<&'a str, Unbuildable> {
    value.ok_or_else(|| Unbuildable {
        field: field.to_owned(),
        reason: format!("{} needs it here, and the record does not have it", vif.kind.object_name()),
    })
}

/// Name of the bridge that the VIF's network is on.
fn network_bridge(vif: &Vif) -> Result<&str, Unbuildable> {
    vif.network.as_ref().and_then(|network| network.bridge.as_deref()).ok_or_else(|| Unbuildable {
        field: "vif.network.bridge".to_owned(),
        reason: format!("{} needs the bridge of its network, and the record names none", vif.kind.object_name()),
    })
}

/// MTU of the VIF's network, else the configured one.
fn mtu(vif: &Vif, settings: &Settings) -> u32 {
    vif.network.as_ref().and_then(|network| network.mtu).filter(|mtu| *mtu > 0).unwrap_or(settings.mtu)
}

/// Whether `bridge` is one of neutron's trunk bridges.
pub(crate) fn is_trunk_bridge(bridge: &str) -> bool {
    bridge.starts_with("tbr-")
}

/// What every interface of a VIF carries in `external_ids`, as os-vif writes it, with `vm-id` besides, which is
/// the key that Open vSwitch documents.
fn interface_ids(vif: &Vif, interface_id: String, bridge: &str) -> StringMap {
    let mut ids =
        BTreeMap::from([("iface-id".to_owned(), interface_id), ("iface-status".to_owned(), "active".to_owned())]);
    if let Some(address) = vif.address {
        ids.insert("attached-mac".to_owned(), address.to_string());
    }
    if let Some(instance) = &vif.instance {
        ids.insert("vm-uuid".to_owned(), instance.uuid.clone());
        ids.insert("vm-id".to_owned(), instance.uuid.clone());
    }
    if is_trunk_bridge(bridge) {
        ids.insert("bridge_name".to_owned(), bridge.to_owned());
    }
    ids
}

/// `iface-id` by the profile: the VIF's own id where the profile has none.
fn interface_id(vif: &Vif, profile: &OpenVSwitchProfile) -> String {
    profile.interface_id.clone().unwrap_or_else(|| vif.id.to_string())
}

/// The datapath that the record asks for.
fn datapath_type(profile: &OpenVSwitchProfile, default: &str) -> String {
    profile.datapath_type.clone().filter(|kind| !kind.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// A tap of the guest's.
fn tap(vif: &Vif, name: &str, multi_queue: bool, settings: &Settings) -> WantedLink {
    WantedLink {
        mac: vif.address,
        mtu: Some(mtu(vif, settings)),
        up: Some(vif.active),
        ..WantedLink::new(name, LinkMaker::Vifd(Make::Tap { multi_queue }))
    }
}

/// A port that vifd makes for a netdev of the host's.
fn system_port(bridge: &str, name: &str, ids: StringMap, datapath_type: &str, settings: &Settings) -> WantedPort {
    WantedPort {
        ids,
        isolation: (settings.isolate && !is_trunk_bridge(bridge)).then_some(Isolation::Trunk),
        qos: (datapath_type == "system" && !settings.qos_type.is_empty()).then(|| NewQos {
            kind: settings.qos_type.clone(),
            external_ids: BTreeMap::from([
                ("id".to_owned(), qos_id(name)),
                ("_type".to_owned(), settings.qos_type.clone()),
            ]),
        }),
        ..WantedPort::new(bridge, name, "")
    }
}
