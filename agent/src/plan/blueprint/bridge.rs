//! `VIFBridge`: on Open vSwitch with a Linux bridge of its own in between ("hybrid", where packet filters of the kernel
//! are), or on a Linux bridge alone.

use super::{
    Blueprint, LinkMaker, Make, Unbuildable, WantedBridge, WantedLink, datapath_type, interface_id, interface_ids,
    is_trunk_bridge, mtu, needed, network_bridge, system_port,
};
use crate::model::{BridgeConfig, OpenVSwitchProfile, Vif, cut_name};
use crate::plan::Settings;

/// The Linux bridges of os-vif: nobody waits for a port to forward, no spanning tree, multicast goes everywhere.
const LINUX_BRIDGE: BridgeConfig =
    BridgeConfig { ageing_time: 30_000, forward_delay: 0, stp: false, multicast_snooping: false };

/// The one between a guest and its veth floods: it knows of nobody else, and what it had learned would be wrong after a
/// guest has moved.
const FLOODING: BridgeConfig = BridgeConfig { ageing_time: 0, ..LINUX_BRIDGE };

/// A Linux bridge, a veth pair, and a port of Open vSwitch at its end.
pub(super) fn hybrid(
    vif: &Vif,
    vif_name: Option<&str>,
    bridge_name: Option<&str>,
    profile: &OpenVSwitchProfile,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let own = needed(vif, "vif.bridge_name", bridge_name)?;
    let mut blueprint = veth_to_openvswitch(vif, own, profile, settings)?;
    blueprint.links.extend(vif_name.filter(|_| vif.active).map(|name| hypervisors(name, own)));
    Ok(blueprint)
}

/// The VIF's own Linux bridge with a veth pair to the bridge of its network, and the port there.
pub(super) fn veth_to_openvswitch(
    vif: &Vif,
    own: &str,
    profile: &OpenVSwitchProfile,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let bridge = network_bridge(vif)?;
    let (near, far) = (cut_name("qvb", vif.id), cut_name("qvo", vif.id));
    let end = |name: &str, peer: &str, master: Option<&str>| WantedLink {
        mtu: Some(mtu(vif, settings)),
        up: Some(vif.active),
        promiscuous: true,
        master: master.map(str::to_owned),
        ..WantedLink::new(name, LinkMaker::Vifd(Make::Veth { peer: peer.to_owned() }))
    };
    let datapath_type = datapath_type(profile, "system");
    let ids = interface_ids(vif, interface_id(vif, profile), bridge);
    Ok(Blueprint {
        links: vec![
            linux_bridge(own, FLOODING, None, false, None),
            end(&near, &far, Some(own)),
            end(&far, &near, None),
        ],
        ports: vec![system_port(bridge, &far, ids, &datapath_type, settings)],
        bridges: vec![WantedBridge { name: bridge.to_owned(), datapath_type, disposable: is_trunk_bridge(bridge) }],
        ..Blueprint::default()
    })
}

/// A place in a Linux bridge, which leads out of the host by an interface or by a VLAN of it.
pub(super) fn plain(
    vif: &Vif,
    vif_name: Option<&str>,
    bridge_name: Option<&str>,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let bridge = needed(vif, "vif.bridge_name", bridge_name)?;
    let mut links = provided(vif, bridge, settings)?;
    links.extend(vif_name.filter(|_| vif.active).map(|name| hypervisors(name, bridge)));
    Ok(Blueprint { links, ..Blueprint::default() })
}

/// The Linux bridge of the VIF's network with what it stands on, where the network leaves it to us.
pub(super) fn provided(vif: &Vif, bridge: &str, settings: &Settings) -> Result<Vec<WantedLink>, Unbuildable> {
    let mut links = Vec::new();
    if let Some(network) = vif.network.as_ref().filter(|network| network.should_provide_bridge && !network.multi_host) {
        let interface = network.bridge_interface.as_deref();
        let mtu = mtu(vif, settings);
        let uplink = match network.vlan.filter(|_| network.should_provide_vlan) {
            Some(id) => {
                let on = needed(vif, "vif.network.bridge_interface", interface)?;
                let name = format!("vlan{id}");
                links.push(vlan(&name, on, id, mtu));
                Some(name)
            }
            None => interface.map(str::to_owned),
        };
        // Without an uplink the kernel's own choice stands: the least of its ports'.
        let mtu = uplink.is_some().then_some(mtu);
        links.push(linux_bridge(bridge, LINUX_BRIDGE, uplink, true, mtu));
    }
    Ok(links)
}

/// A Linux bridge that several VIFs share.
pub(super) fn shared_bridge(name: &str) -> WantedLink {
    linux_bridge(name, LINUX_BRIDGE, None, true, None)
}

/// A VLAN link that several VIFs share.
pub(super) fn vlan(name: &str, on: &str, id: u16, mtu: u32) -> WantedLink {
    WantedLink {
        shared: true,
        mtu: Some(mtu),
        up: Some(true),
        ..WantedLink::new(name, LinkMaker::Vifd(Make::Vlan { on: on.to_owned(), id }))
    }
}

fn linux_bridge(
    name: &str,
    config: BridgeConfig,
    uplink: Option<String>,
    shared: bool,
    mtu: Option<u32>,
) -> WantedLink {
    let up = Some(true);
    WantedLink { shared, mtu, up, ..WantedLink::new(name, LinkMaker::Vifd(Make::Bridge { config, uplink })) }
}

/// The guest's device, which the hypervisor makes, and its bridge. That of a VIF that is not active is left where it is.
fn hypervisors(name: &str, bridge: &str) -> WantedLink {
    WantedLink { master: Some(bridge.to_owned()), ..WantedLink::new(name, LinkMaker::Hypervisor) }
}
