//! `VIFDirect`: a macvtap for the guest over an interface of the host or over a VLAN of it.

use super::bridge::vlan;
use super::{Blueprint, LinkMaker, Make, Unbuildable, WantedLink, mtu, needed};
use crate::model::{DirectMode, Vif};
use crate::plan::Settings;

pub(super) fn blueprint(
    vif: &Vif,
    vif_name: Option<&str>,
    mode: DirectMode,
    vlan_name: Option<&str>,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let name = needed(vif, "vif.vif_name", vif_name)?;
    let network = vif.network.as_ref();
    let interface = network.and_then(|network| network.bridge_interface.as_deref());
    let mtu = mtu(vif, settings);
    let mut links = Vec::new();
    let on = match (vlan_name, interface) {
        (Some(vlan_name), Some(interface)) => {
            // Without an id the VLAN link is somebody else's to make.
            let id = network.and_then(|network| network.vlan);
            links.extend(id.map(|id| vlan(vlan_name, interface, id, mtu)));
            vlan_name
        }
        (Some(vlan_name), None) => vlan_name,
        (None, Some(interface)) => interface,
        (None, None) => return needed(vif, "vif.dev_address", None).map(|_: &str| Blueprint::default()),
    };
    links.push(WantedLink {
        mac: vif.address,
        mtu: Some(mtu),
        up: Some(vif.active),
        device: settings.device_access,
        ..WantedLink::new(name, LinkMaker::Vifd(Make::Macvtap { on: on.to_owned(), mode }))
    });
    Ok(Blueprint { links, ..Blueprint::default() })
}
