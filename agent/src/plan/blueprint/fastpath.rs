//! `VIFVHostUser` with a profile of a fast path, which is Open vSwitch with DPDK here: the guest's vhost-user port and an
//! internal port on a small bridge of the userspace datapath, and where the internal port's netdev goes from there: into
//! a Linux bridge, or nowhere, where the host routes to it.

use super::bridge::{shared_bridge, veth_to_openvswitch};
use super::vhostuser::port;
use super::{Blueprint, LinkMaker, Unbuildable, WantedBridge, WantedLink, WantedPort, interface_ids, mtu, needed};
use crate::model::{MacAddr, OpenVSwitchProfile, VhostUserMode, Vif, cut_name};
use crate::plan::Settings;

/// `VIFPortProfileFPBridge`: into the Linux bridge of the network.
pub(super) fn bridge(
    vif: &Vif,
    path: &str,
    mode: VhostUserMode,
    linux_bridge: &str,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let mut blueprint = small_bridge(vif, path, mode, &cut_name("fpi", vif.id), None, settings)?;
    for link in &mut blueprint.links {
        link.master = Some(linux_bridge.to_owned());
    }
    blueprint.links.insert(0, shared_bridge(linux_bridge));
    Ok(blueprint)
}

/// `VIFPortProfileFPTap`: the host routes to the internal port's netdev, which has the name that the record gives.
pub(super) fn tap(
    vif: &Vif,
    vif_name: Option<&str>,
    path: &str,
    mode: VhostUserMode,
    mac: Option<MacAddr>,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    small_bridge(vif, path, mode, needed(vif, "vif.vif_name", vif_name)?, mac, settings)
}

/// `VIFPortProfileFPOpenVSwitch` with `hybrid_plug`: into a Linux bridge of the VIF's own, and from there by a veth pair to
/// the bridge of the network.
pub(super) fn hybrid(
    vif: &Vif,
    path: &str,
    mode: VhostUserMode,
    own: Option<&str>,
    profile: &OpenVSwitchProfile,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let own = own.map_or_else(|| cut_name("qbr", vif.id), str::to_owned);
    let mut small = small_bridge(vif, path, mode, &cut_name("fpi", vif.id), None, settings)?;
    for link in &mut small.links {
        link.master = Some(own.clone());
    }
    let mut blueprint = veth_to_openvswitch(vif, &own, profile, settings)?;
    blueprint.links.append(&mut small.links);
    blueprint.ports.append(&mut small.ports);
    blueprint.bridges.append(&mut small.bridges);
    blueprint.socket_dirs = small.socket_dirs;
    blueprint.socket = small.socket;
    Ok(blueprint)
}

/// The guest's port and an internal one, alone on a bridge. Of neither anybody asks who it is, so there is no `iface-id`.
fn small_bridge(
    vif: &Vif,
    path: &str,
    mode: VhostUserMode,
    internal: &str,
    mac: Option<MacAddr>,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let bridge = cut_name("fpb", vif.id);
    let mut ids = interface_ids(vif, String::new(), &bridge);
    ids.remove("iface-id");
    let (guests, socket, socket_dirs) = port(vif, path, mode, &bridge, ids, None, settings)?;
    let internal_port =
        WantedPort { mac, mtu_request: Some(mtu(vif, settings)), ..WantedPort::new(&bridge, internal, "internal") };
    let netdev = WantedLink { up: Some(vif.active), ..WantedLink::new(internal, LinkMaker::Switch) };
    Ok(Blueprint {
        links: vec![netdev],
        socket_dirs,
        bridges: vec![WantedBridge { name: bridge, datapath_type: "netdev".to_owned(), disposable: true }],
        ports: vec![guests, internal_port],
        socket: Some(socket),
        ..Blueprint::default()
    })
}
