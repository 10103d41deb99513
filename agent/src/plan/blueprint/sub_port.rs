//! A trunk's sub-port: what the guest sends with a tag. Where the trunk's port is on a bridge that vifd manages, it is a
//! VLAN of that port and has none of its own; on one of neutron's trunk bridges it is a patch pair to the bridge of its
//! network, as neutron's agent makes it (`neutron/services/trunk/drivers/openvswitch/agent/trunk_manager.py`).

use std::collections::BTreeMap;

use super::{
    Blueprint, Isolation, Unbuildable, WantedBridge, WantedPort, WantedSubPort, interface_id, is_trunk_bridge,
    unsupported,
};
use crate::model::{Parent, ProfileKind, Vif, VifKind};
use crate::plan::Settings;

/// Longest name of a port that neutron gives (`neutron_lib.constants.DEVICE_NAME_MAX_LEN`).
const LONGEST_NAME: usize = 15;

/// What `vif` wants as a sub-port of `trunk`, which wants `of`. Marks aside.
pub(super) fn blueprint(
    vif: &Vif,
    parent: Parent,
    trunk: &Vif,
    of: &Blueprint,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let unbuildable = |field: &str, reason: String| Err(Unbuildable { field: field.to_owned(), reason });
    let (VifKind::OpenVSwitch { .. }, Some(ProfileKind::OpenVSwitch(profile))) =
        (&vif.kind, vif.profile.as_ref().map(|profile| &profile.kind))
    else {
        return unsupported("vif.type", &format!("a sub-port that is a {}", vif.kind.object_name()));
    };
    if trunk.parent.is_some() {
        return unbuildable("parent.vif", format!("VIF {} is a sub-port itself", trunk.id));
    }
    let bridge = vif.network.as_ref().and_then(|network| network.bridge.as_deref());
    let on = |port: &WantedPort, patched| WantedSubPort {
        parent: trunk.id,
        bridge: port.bridge.clone(),
        port: port.name.clone(),
        maker: port.maker,
        vlan: parent.vlan,
        patched,
        active: trunk.active,
    };
    if let Some(port) = of.managed_port(settings) {
        return match bridge.filter(|bridge| *bridge != port.bridge) {
            Some(other) => unbuildable(
                "vif.network.bridge",
                format!("is {other}, and the trunk's port is on bridge {}, whose flows reach no other", port.bridge),
            ),
            None => Ok(Blueprint { sub_port: Some(on(port, false)), ..Blueprint::default() }),
        };
    }
    let Some(trunk_port) = of.ports.last().filter(|port| is_trunk_bridge(&port.bridge)) else {
        let on = of.ports.last().map_or_else(|| "no bridge".to_owned(), |port| format!("bridge {}", port.bridge));
        return unbuildable(
            "parent.vif",
            format!(
                "VIF {} is on {on}: sub-ports take one with flows = \"managed\", or a trunk bridge of neutron's (tbr-…)",
                trunk.id
            ),
        );
    };
    let Some(bridge) = bridge.filter(|bridge| *bridge != trunk_port.bridge) else {
        return unbuildable(
            "vif.network.bridge",
            format!(
                "has to be the bridge of the sub-port's network, to which trunk bridge {} leads",
                trunk_port.bridge
            ),
        );
    };
    let mut ids = BTreeMap::from([("iface-id".to_owned(), interface_id(vif, profile))]);
    ids.extend(vif.address.map(|address| ("attached-mac".to_owned(), address.to_string())));
    let (near, far) = (patch_name("spt-", vif), patch_name("spi-", vif));
    let patch =
        |bridge: &str, name: &str, peer: &str| WantedPort { ids: ids.clone(), ..WantedPort::patch(bridge, name, peer) };
    let mut bridges: Vec<WantedBridge> =
        of.bridges.iter().filter(|wanted| wanted.name == trunk_port.bridge).cloned().collect();
    let datapath_type = bridges.first().map_or_else(String::new, |trunk| trunk.datapath_type.clone());
    bridges.push(WantedBridge { name: bridge.to_owned(), datapath_type, disposable: false });
    let near = WantedPort { access: Some(parent.vlan), ..patch(&trunk_port.bridge, &near, &far) };
    let far = WantedPort { isolation: settings.isolate.then_some(Isolation::Tag), ..patch(bridge, &far, &near.name) };
    Ok(Blueprint { bridges, ports: vec![near, far], sub_port: Some(on(trunk_port, true)), ..Blueprint::default() })
}

fn patch_name(prefix: &str, vif: &Vif) -> String {
    let mut name = format!("{prefix}{}", vif.id);
    name.truncate(LONGEST_NAME);
    name
}
