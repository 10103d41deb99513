//! `VIFVHostUser` with a profile of a fast path, which is Open vSwitch with DPDK here: the guest's vhost-user port and an
//! internal port on a small bridge of the userspace datapath, and where the internal port's netdev goes from there: into
//! a Linux bridge, or nowhere, where the host routes to it. Why a bridge for each VIF is told in ADR 16.

use super::bridge::{provided, shared_bridge, veth_to_openvswitch};
use super::vhostuser::port;
use super::{Blueprint, LinkMaker, Unbuildable, WantedBridge, WantedLink, WantedPort, interface_ids, mtu, needed};
use crate::model::{MacAddr, OpenVSwitchProfile, VhostUserMode, Vif, cut_name};
use crate::plan::Settings;

/// `VIFPortProfileFPBridge`: into the Linux bridge of the network.
pub(super) fn bridge(
    vif: &Vif,
    vif_name: Option<&str>,
    path: &str,
    mode: VhostUserMode,
    linux_bridge: &str,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let mut blueprint = small_bridge(vif, path, mode, &internal(vif, vif_name), None, settings)?;
    for link in &mut blueprint.links {
        link.master = Some(linux_bridge.to_owned());
    }
    let mut links = provided(vif, linux_bridge, settings)?;
    if links.is_empty() {
        links.push(shared_bridge(linux_bridge));
    }
    links.append(&mut blueprint.links);
    Ok(Blueprint { links, ..blueprint })
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
    vif_name: Option<&str>,
    path: &str,
    mode: VhostUserMode,
    own: Option<&str>,
    profile: &OpenVSwitchProfile,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let own = own.map_or_else(|| cut_name("qbr", vif.id), str::to_owned);
    let mut blueprint = small_bridge(vif, path, mode, &internal(vif, vif_name), None, settings)?;
    for link in &mut blueprint.links {
        link.master = Some(own.clone());
    }
    let mut veth = veth_to_openvswitch(vif, &own, profile, settings)?;
    veth.links.append(&mut blueprint.links);
    blueprint.ports.append(&mut veth.ports);
    blueprint.bridges.append(&mut veth.bridges);
    Ok(Blueprint { links: veth.links, ..blueprint })
}

/// Name of the internal port: the record's, by which packet filters and agents of Linux bridges know the guest's device.
fn internal(vif: &Vif, vif_name: Option<&str>) -> String {
    vif_name.map_or_else(|| cut_name("fpi", vif.id), str::to_owned)
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
    let netdev = WantedLink {
        mac,
        mtu: Some(mtu(vif, settings)),
        up: Some(vif.active),
        ..WantedLink::new(internal, LinkMaker::Switch)
    };
    Ok(Blueprint {
        links: vec![netdev],
        socket_dirs,
        bridges: vec![WantedBridge { name: bridge, datapath_type: "netdev".to_owned(), disposable: true }],
        ports: vec![guests, internal_port],
        socket: Some(socket),
        ..Blueprint::default()
    })
}
