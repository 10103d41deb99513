//! The other way round: which function a netdev represents, and which netdev is a device's uplink.

use std::collections::BTreeSet;

use super::{PortName, Representor, by_devlink, by_sysfs, pci};
use crate::{
    Device, Flavour, FunctionAddress, FunctionNumber, FunctionPart, NetdevFacts, PciAddress, Port, Sysfs, SysfsError,
};

/// The function that a netdev represents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Represented {
    /// In devlink's terms.
    pub function: FunctionAddress,
    /// Its PCI address, if it is a virtual function of this host: looked up the other way, that address leads to the
    /// netdev.
    pub pci: Option<PciAddress>,
}

/// The netdev by which a device is connected to the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uplink {
    /// This one.
    Found {
        /// Its name.
        netdev: String,
        /// The bond that it is enslaved to, which is the uplink then for whoever forwards.
        bond: Option<String>,
    },
    /// The device has no netdev in this network namespace that could be it.
    None,
    /// It has several ports.
    Several(BTreeSet<String>),
}

/// The uplink of a device: the netdev of its physical port, in switchdev mode and in legacy mode. Pure: `ports` are
/// devlink's, of all devices, and `netdevs` are [`Sysfs::netdevs`].
#[must_use]
pub fn uplink(device: &Device, ports: &[Port], netdevs: &[NetdevFacts]) -> Uplink {
    let physical = |port: &&Port| {
        (&port.bus, &port.dev) == (&device.bus, &device.dev) && matches!(port.flavour, Flavour::Physical { .. })
    };
    let mut names: BTreeSet<&str> =
        ports.iter().filter(physical).filter_map(|port| Some(port.netdev.as_ref()?.name.as_str())).collect();
    if names.is_empty() {
        let own = || netdevs.iter().filter(|netdev| netdev.device.as_ref() == Some(device));
        let is_physical = |netdev: &&NetdevFacts| {
            let name = netdev.phys_port_name.as_deref().and_then(|name| name.parse().ok());
            matches!(name, Some(PortName::Physical { .. }))
        };
        names = own().filter(is_physical).map(|netdev| netdev.name.as_str()).collect();
        if names.is_empty() {
            let is_functions =
                |netdev: &NetdevFacts| netdev.phys_switch_id.is_some() && by_sysfs::function_of(netdev).is_some();
            names = own().filter(|netdev| !is_functions(netdev)).map(|netdev| netdev.name.as_str()).collect();
        }
    }
    let mut names = names.into_iter();
    match (names.next(), names.len()) {
        (None, _) => Uplink::None,
        (Some(name), 0) => {
            let find = |name: &str| netdevs.iter().find(|netdev| netdev.name == name);
            let master = find(name).and_then(|netdev| find(netdev.master.as_deref()?));
            let bond = master.filter(|master| master.bond_slaves.is_some()).map(|bond| bond.name.clone());
            Uplink::Found { netdev: name.to_owned(), bond }
        }
        (Some(first), _) => Uplink::Several(names.chain([first]).map(str::to_owned).collect()),
    }
}

impl Sysfs {
    /// The function that a netdev represents; none if it represents none, or it is not certain which. `ports` are
    /// devlink's, of all devices, and `netdevs` are [`Sysfs::netdevs`], both of the same network namespace.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn represented(
        &self,
        netdev: &str,
        ports: &[Port],
        netdevs: &[NetdevFacts],
    ) -> Result<Option<Represented>, SysfsError> {
        let Some((device, function)) = by_port(netdev, ports).or_else(|| by_name(netdev, netdevs)) else {
            return Ok(None);
        };
        let mut represented = None;
        if let FunctionNumber { controller: None, part: FunctionPart::Vf(vf), .. } = function
            && let Some(own) = pci(&device)
        {
            let neighbours = self.neighbours(&device, &BTreeSet::new())?;
            for pf in neighbours.iter().map(|neighbour| neighbour.address).chain([own]) {
                let Some(sriov) = self.sriov(&pf.into())? else { continue };
                let Some(address) = sriov.vfs.get(&vf).copied() else { continue };
                match self.representor(&address.into(), ports, netdevs)? {
                    Representor::Found(found) if found.netdev == netdev => represented = Some(address),
                    _ => {}
                }
            }
        }
        Ok(Some(Represented { function: FunctionAddress::Port { device, function }, pci: represented }))
    }
}

fn by_port(netdev: &str, ports: &[Port]) -> Option<(Device, FunctionNumber)> {
    let port = ports.iter().find(|port| port.netdev.as_ref().is_some_and(|link| link.name == netdev))?;
    Some((port.device(), by_devlink::function_of(port)?))
}

fn by_name(netdev: &str, netdevs: &[NetdevFacts]) -> Option<(Device, FunctionNumber)> {
    let netdev = netdevs.iter().find(|one| one.name == netdev)?;
    let switch = netdev.phys_switch_id.as_ref()?;
    let (controller, pf, part) = by_sysfs::function_of(netdev)?;
    let digit = |device: &Device| pci(device).map_or(0, |address| u16::from(address.function));
    let device = match &netdev.device {
        Some(device) => device.clone(),
        None => {
            let on_switch = netdevs.iter().filter(|other| other.phys_switch_id.as_ref() == Some(switch));
            let devices: BTreeSet<&Device> = on_switch.filter_map(|other| other.device.as_ref()).collect();
            let mut fit = devices.iter().filter(|device| devices.len() == 1 || pf == Some(digit(device)));
            let only = fit.next().filter(|_| fit.next().is_none())?;
            (*only).clone()
        }
    };
    let pf = pf.unwrap_or_else(|| digit(&device));
    Some((device, FunctionNumber { controller, pf, part }))
}
