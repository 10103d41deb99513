//! `VIFOpenVSwitch`: a port that vifd makes or tends, its tap where asked, and the bridge of its own where
//! `per_port_bridge` is set.

use super::{
    Blueprint, Isolation, Layout, Maker, Unbuildable, WantedBridge, WantedPort, datapath_type, interface_id,
    interface_ids, is_trunk_bridge, mtu, network_bridge, system_port, tap,
};
use crate::backend::ovs::StringMap;
use crate::model::{OpenVSwitchProfile, Vif, cut_name};
use crate::plan::Settings;

pub(super) fn blueprint(
    vif: &Vif,
    vif_name: &str,
    profile: &OpenVSwitchProfile,
    layout: Layout,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let bridge = network_bridge(vif)?;
    let datapath_type = datapath_type(profile, "system");
    let mtu = mtu(vif, settings);
    let mut blueprint = Blueprint::default();
    if profile.create_tap {
        if !profile.create_port && layout == Layout::Plain {
            return Err(Unbuildable {
                field: "vif.port_profile.create_tap".to_owned(),
                reason: "a tap is made only together with its port: create_port has to be true as well".to_owned(),
            });
        }
        blueprint.links.push(tap(vif, vif_name, profile.multiqueue, settings));
    }
    let port = |bridge: &str, ids: StringMap, maker: Maker| WantedPort {
        maker,
        netdev_mtu: (maker == Maker::Vifd && !profile.create_tap).then_some(mtu),
        ..system_port(bridge, vif_name, ids, &datapath_type, settings)
    };
    let wanted_bridge = |name: &str, disposable: bool| WantedBridge {
        name: name.to_owned(),
        datapath_type: datapath_type.clone(),
        disposable,
    };
    blueprint.bridges.push(wanted_bridge(bridge, is_trunk_bridge(bridge)));
    if layout == Layout::PerPortBridge {
        // os-vif: the port stands on a bridge of its own without ids; the ids are on the far end of a patch
        // pair, and its iface-id is the VIF's id, not the profile's.
        let own = cut_name("pb", vif.id);
        let (near, far) = (patch_name("pbp", vif), patch_name("ibp", vif));
        blueprint.bridges.push(wanted_bridge(&own, true));
        blueprint.ports.push(port(&own, StringMap::new(), Maker::Vifd));
        let patch = |bridge: &str, name: &str, peer: &str, ids: StringMap, isolation: Option<Isolation>| WantedPort {
            ids,
            isolation,
            ..WantedPort::patch(bridge, name, peer)
        };
        blueprint.ports.push(patch(&own, &near, &far, StringMap::new(), None));
        let mut ids = interface_ids(vif, vif.id.to_string(), bridge);
        ids.remove("bridge_name");
        blueprint.ports.push(patch(bridge, &far, &near, ids, settings.isolate.then_some(Isolation::Tag)));
    } else {
        let maker = if profile.create_port { Maker::Vifd } else { Maker::Hypervisor };
        blueprint.ports.push(port(bridge, interface_ids(vif, interface_id(vif, profile), bridge), maker));
    }
    Ok(blueprint)
}

/// `prefix` and the VIF's id, up to the 64 bytes that os-vif allows a patch port.
fn patch_name(prefix: &str, vif: &Vif) -> String {
    let mut name = format!("{prefix}{}", vif.id);
    name.truncate(64);
    name
}
