//! VIFs that have a function of a NIC: `VIFHostDevice`, `VIFDirect` over a function, `VIFNestedDPDK`. What the NIC alone
//! tells (the name of a representor, the netdev of a function) is left out here, and filled in by `functions`.

use std::collections::BTreeMap;

use devlink::FunctionAddress;

use super::{
    Blueprint, LinkMaker, Make, Unbuildable, WantedBridge, WantedLink, WantedPort, datapath_type, interface_id,
    interface_ids, mtu, needed, network_bridge, system_port, unsupported,
};
use crate::model::{DevType, DirectMode, MacAddr, OpenVSwitchProfile, PortProfile, ProfileKind, Vif, cut_name};
use crate::plan::Settings;

/// The driver by which a guest gets a function whole.
const VFIO: &str = "vfio-pci";

/// A function of a NIC.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedFunction {
    /// Which.
    pub address: FunctionAddress,
    /// How its traffic gets to the guest and out of the host.
    pub way: FunctionWay,
    /// Address that it gets: the guest's.
    pub mac: Option<MacAddr>,
    /// Driver to bind it to.
    pub driver: Option<String>,
    /// Whether it stays as it is when the VIF goes.
    pub preserve: bool,
}

/// How a function is joined to a network.
#[derive(Clone, Debug, PartialEq)]
pub enum FunctionWay {
    /// Its representor is a port: the first link and the first port of the blueprint, which have no names yet.
    Representor {
        /// Name that the representor gets.
        name: Option<String>,
    },
    /// Its representor is a port of DPDK's: the first port of the blueprint, which has no devargs yet.
    DpdkRepresentor,
    /// By the settings that its physical function has for it.
    Settings(FunctionSettings),
    /// As [`FunctionWay::Settings`], and a macvtap stands on its netdev: the last link of the blueprint, which does not say
    /// yet on what.
    Macvtap(FunctionSettings),
    /// That is nobody's business but the guest's.
    Driver,
}

impl FunctionWay {
    /// Whether a representor is a port, so that flows can be in the NIC.
    #[must_use]
    pub fn is_represented(&self) -> bool {
        matches!(self, FunctionWay::Representor { .. } | FunctionWay::DpdkRepresentor)
    }
}

/// What a physical function is to say of a virtual one, its address aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionSettings {
    /// VLAN, 0 for none.
    pub vlan: u16,
    /// Mbit/s from the guest, 0 for no limit.
    pub max_rate: u32,
    /// Whether frames from another address than its own are dropped.
    pub spoof_check: bool,
    /// Whether it may ask for more than its own.
    pub trust: bool,
}

pub(super) fn host_device(
    vif: &Vif,
    dev_type: Option<DevType>,
    address: &FunctionAddress,
    profile: Option<&PortProfile>,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let driver = (dev_type == Some(DevType::Generic)).then(|| VFIO.to_owned());
    let offload = profile.and_then(|profile| profile.datapath_offload.as_ref());
    let ovs = match profile.map(|profile| &profile.kind) {
        Some(ProfileKind::OpenVSwitch(ovs) | ProfileKind::OvsRepresentor { ovs, .. }) => ovs,
        Some(ProfileKind::Base) if offload.is_some() => &OpenVSwitchProfile::default(),
        None | Some(ProfileKind::Base) => {
            let way = FunctionWay::Settings(function_settings(vif));
            return Ok(Blueprint { function: Some(wanted(vif, address, way, driver)), ..Blueprint::default() });
        }
        Some(profile) => return unsupported("vif.type", &format!("VIFHostDevice with {}", profile.object_name())),
    };
    let bridge = network_bridge(vif)?;
    let datapath = datapath_type(ovs, "system");
    let ids = interface_ids(vif, interface_id(vif, ovs), bridge);
    let bridges = vec![WantedBridge {
        name: bridge.to_owned(),
        datapath_type: datapath.clone(),
        disposable: super::is_trunk_bridge(bridge),
    }];
    let (way, port, links) = if datapath == "netdev" {
        let port = WantedPort {
            ids,
            mtu_request: Some(mtu(vif, settings)),
            ..WantedPort::new(bridge, cut_name("vfr", vif.id), "dpdk")
        };
        (FunctionWay::DpdkRepresentor, port, Vec::new())
    } else {
        let named = match profile.map(|profile| &profile.kind) {
            Some(ProfileKind::OvsRepresentor { representor_name, .. }) => representor_name.as_ref(),
            _ => None,
        };
        let name =
            offload.and_then(|offload| offload.representor_name.as_ref()).or(named).filter(|name| !name.is_empty());
        let link =
            WantedLink { mtu: Some(mtu(vif, settings)), up: Some(vif.active), ..WantedLink::new("", LinkMaker::Nic) };
        let port = system_port(bridge, "", ids, &datapath, settings);
        (FunctionWay::Representor { name: name.cloned() }, port, vec![link])
    };
    Ok(Blueprint {
        links,
        bridges,
        ports: vec![port],
        function: Some(wanted(vif, address, way, driver)),
        ..Blueprint::default()
    })
}

pub(super) fn direct(
    vif: &Vif,
    vif_name: Option<&str>,
    address: &FunctionAddress,
    mode: DirectMode,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let name = needed(vif, "vif.vif_name", vif_name)?;
    let mtu = mtu(vif, settings);
    let lower = WantedLink { mtu: Some(mtu), up: Some(true), ..WantedLink::new("", LinkMaker::Nic) };
    let macvtap = WantedLink {
        mac: vif.address,
        mtu: Some(mtu),
        up: Some(vif.active),
        device: settings.device_access,
        ..WantedLink::new(name, LinkMaker::Vifd(Make::Macvtap { on: String::new(), mode }))
    };
    let way = FunctionWay::Macvtap(function_settings(vif));
    // With passthrough the netdev and the macvtap have one address. Else they have two, and its driver sees to it that both
    // are received, which it may not where its address was given to it.
    let mac = vif.address.filter(|_| mode == DirectMode::Passthrough);
    Ok(Blueprint {
        links: vec![lower, macvtap],
        function: Some(WantedFunction { mac, ..wanted(vif, address, way, None) }),
        ..Blueprint::default()
    })
}

pub(super) fn nested(vif: &Vif, address: devlink::PciAddress, driver: Option<&str>) -> Result<Blueprint, Unbuildable> {
    let driver = needed(vif, "vif.dev_driver", driver)?;
    let wanted = wanted(vif, &address.into(), FunctionWay::Driver, Some(driver.to_owned()));
    Ok(Blueprint { function: Some(WantedFunction { mac: None, ..wanted }), ..Blueprint::default() })
}

fn wanted(vif: &Vif, address: &FunctionAddress, way: FunctionWay, driver: Option<String>) -> WantedFunction {
    WantedFunction { address: address.clone(), way, mac: vif.address, driver, preserve: vif.preserve_on_delete }
}

fn function_settings(vif: &Vif) -> FunctionSettings {
    // The limit of a function is in Mbit/s. A smaller one would be none.
    let rate = vif.policy.rate.egress_kbps.div_ceil(1000);
    FunctionSettings {
        vlan: vif.network.as_ref().and_then(|network| network.vlan).unwrap_or(0),
        max_rate: u32::try_from(rate).unwrap_or(u32::MAX),
        spoof_check: vif.policy.spoof_check,
        trust: vif.policy.trust,
    }
}

impl WantedPort {
    /// The devargs by which DPDK finds the representor of a virtual function.
    pub(in crate::plan) fn representor_of(&mut self, physical: &str, number: u16) {
        self.options = BTreeMap::from([("dpdk-devargs".to_owned(), format!("{physical},representor=[{number}]"))]);
    }
}
