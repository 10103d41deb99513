//! Making one state of what devlink and sysfs say: which NICs there are, their functions, and whose representor is which. Pure;
//! what it is made from is read in `look.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use devlink::{
    Device, Eswitch, EswitchMode, Flavour, Found, FunctionNumber, FunctionPart, FunctionState, Neighbour, NetdevFacts,
    PciAddress, PfNumber, Port, Role, Sought, SoughtFunction, Uplink, uplink,
};

use crate::model::{FunctionPort, MacAddr, Nic, NicFunction, NicPort, PciFunction, Representor, VfCount};

/// Where a device does not say how many virtual functions it can have (netdevsim): as many as have numbers.
const NUMBERED: u32 = u16::MAX as u32;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// devlink's instances, and their switches as far as they have one.
    pub(super) instances: BTreeMap<Device, Option<Eswitch>>,
    /// devlink's ports, of all instances.
    pub(super) ports: Vec<Port>,
    /// Network functions on the PCI bus.
    pub(super) functions: BTreeMap<PciAddress, Function>,
    /// devlink's instances that are not on the PCI bus.
    pub(super) others: BTreeMap<Device, OffBus>,
    /// Indices of the netdevs that are named above and are in this network namespace, by name.
    pub(super) indices: BTreeMap<String, u32>,
    /// Netdevs, where it takes them to find representors; see [`Facts::need_netdevs`].
    pub(super) netdevs: Vec<NetdevFacts>,
}

/// What sysfs shows of a network function on the PCI bus.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// The vendor's number; a virtual function has its physical one's.
    pub(super) vendor: u16,
    pub(super) driver: Option<String>,
    pub(super) driver_override: Option<String>,
    pub(super) iommu_group: Option<u32>,
    pub(super) role: Role,
    pub(super) netdevs: BTreeSet<String>,
}

/// What sysfs shows of a device that is not on the PCI bus.
#[derive(Clone, Debug, Default)]
pub(super) struct OffBus {
    pub(super) driver: Option<String>,
    pub(super) vfs: Option<VfCount>,
    pub(super) netdevs: BTreeSet<String>,
}

/// Devlink's ports by what they are of.
#[derive(Default)]
struct Ports<'a> {
    of_functions: BTreeMap<Device, BTreeMap<FunctionNumber, Vec<&'a Port>>>,
}

impl<'a> Ports<'a> {
    fn new(ports: &'a [Port]) -> Self {
        let mut sorted = Ports::default();
        for port in ports {
            if let Some(number) = function_number(port.flavour) {
                let of_device = sorted.of_functions.entry(port.device()).or_default();
                of_device.entry(number).or_default().push(port);
            }
        }
        sorted
    }

    fn of(&self, device: &Device) -> Option<&BTreeMap<FunctionNumber, Vec<&'a Port>>> {
        self.of_functions.get(device)
    }
}

/// The function that a port is for; none for other ports.
fn function_number(flavour: Flavour) -> Option<FunctionNumber> {
    let (controller, external, pf, part) = match flavour {
        Flavour::PciPf { controller, external, pf } => (controller, external, pf, FunctionPart::Pf),
        Flavour::PciVf { controller, external, pf, vf } => (controller, external, pf, FunctionPart::Vf(vf)),
        Flavour::PciSf { controller, external, pf, sf } => (controller, external, pf, FunctionPart::Sf(sf)),
        _ => return None,
    };
    Some(FunctionNumber { controller: external.then_some(controller), pf, part })
}

impl Facts {
    /// Names of netdevs that are spoken of and have no index with them.
    pub(super) fn named(&self) -> impl Iterator<Item = &String> {
        let on_pci = self.functions.values().flat_map(|function| &function.netdevs);
        on_pci.chain(self.others.values().flat_map(|other| &other.netdevs))
    }

    /// Whether what netdevs say of themselves is needed: where a NIC has representors that devlink does not tell of.
    pub(super) fn need_netdevs(&self, devlink: bool) -> bool {
        let ports = Ports::new(&self.ports);
        let silent = |device: &Device, vfs: usize| {
            let of_vfs = |(number, _): &(&FunctionNumber, _)| matches!(number.part, FunctionPart::Vf(_));
            ports.of(device).map_or(0, |ports| ports.iter().filter(of_vfs).count()) < vfs
        };
        self.functions.iter().any(|(address, function)| {
            let vfs = vfs_of(function).map_or(0, BTreeMap::len);
            let device = Device::from(*address);
            let switch = self.instances.get(&device).copied().flatten();
            let is_switchdev = match switch.and_then(|switch| switch.mode) {
                Some(mode) => mode != EswitchMode::Legacy,
                // Whoever cannot ask devlink cannot know.
                None => !devlink,
            };
            vfs > 0 && is_switchdev && silent(&device, vfs)
        })
    }

    /// Every NIC and every PCI function.
    pub(super) fn nics(&self) -> (BTreeMap<Device, Nic>, BTreeMap<PciAddress, PciFunction>) {
        let ports = Ports::new(&self.ports);
        let (mut nics, mut pci) = (BTreeMap::new(), BTreeMap::new());
        for (device, switch) in &self.instances {
            if !self.is_virtual(device) {
                nics.insert(device.clone(), self.nic(device.clone(), *switch, &ports));
            }
        }
        for (address, function) in &self.functions {
            if let Role::Physical { sriov: Some(_) } = &function.role {
                let device = Device::from(*address);
                nics.entry(device.clone()).or_insert_with(|| self.nic(device, None, &ports));
            }
        }
        nics.retain(|_, nic| nic.eswitch.is_some() || nic.vfs.is_some() || !nic.functions.is_empty());
        let mut whose = BTreeMap::new();
        for nic in nics.values() {
            for (number, function) in &nic.functions {
                if let Some(address) = function.pci {
                    whose.insert(address, (nic.device.clone(), *number));
                }
            }
        }
        for (address, function) in &self.functions {
            let of = whose.remove(address);
            if of.is_none() && matches!(function.role, Role::Virtual { .. }) {
                // On its way, in or out. As one that is nobody's virtual function it would be taken for the host's own.
                continue;
            }
            let seen = PciFunction {
                of,
                driver: function.driver.clone(),
                driver_override: function.driver_override.clone(),
                iommu_group: function.iommu_group,
                netdevs: function.netdevs.iter().filter(|name| self.indices.contains_key(*name)).cloned().collect(),
            };
            pci.insert(*address, seen);
        }
        (nics, pci)
    }

    fn on_pci(&self, device: &Device) -> Option<(PciAddress, &Function)> {
        let address = if device.bus == "pci" { device.dev.parse().ok()? } else { return None };
        Some((address, self.functions.get(&address)?))
    }

    /// Whether this is the devlink instance of a virtual function's own driver.
    fn is_virtual(&self, device: &Device) -> bool {
        self.on_pci(device).is_some_and(|(_, function)| matches!(function.role, Role::Virtual { .. }))
    }

    fn nic(&self, device: Device, eswitch: Option<Eswitch>, ports: &Ports<'_>) -> Nic {
        let function = self.on_pci(&device);
        let other = self.others.get(&device);
        let (driver, vfs) = match (function, other) {
            (Some((_, Function { driver, role: Role::Physical { sriov: Some(sriov) }, .. })), _) => {
                (driver.clone(), Some(VfCount { made: sriov.num, most: sriov.total.unwrap_or(NUMBERED) }))
            }
            (Some((_, function)), _) => (function.driver.clone(), None),
            (None, Some(other)) => (other.driver.clone(), other.vfs),
            (None, None) => (None, None),
        };
        let mut functions: BTreeMap<FunctionNumber, NicFunction> = BTreeMap::new();
        for (number, of) in ports.of(&device).into_iter().flatten() {
            functions.insert(*number, self.by_port(of));
        }
        if let Some(function) = function {
            self.pci_vfs(function, ports, &mut functions);
        } else if let Some(VfCount { made, .. }) = vfs {
            // Without ports nothing but their number is known.
            for vf in (0..made).filter_map(|vf| u16::try_from(vf).ok()) {
                functions.entry(FunctionNumber { controller: None, pf: 0, part: FunctionPart::Vf(vf) }).or_default();
            }
        }
        let uplinks = self.uplinks(&device, eswitch);
        Nic { device, driver, uplinks, eswitch, vfs, functions }
    }

    /// A function as its port has it, or its ports, where there are several.
    fn by_port(&self, ports: &[&Port]) -> NicFunction {
        let netdevs = || ports.iter().filter_map(|port| port.netdev.as_ref());
        let representor = match (ports, netdevs().next()) {
            (_, None) => Representor::None,
            ([_], Some(netdev)) => Representor::Is(self.port(&netdev.name, netdev.index)),
            (_, Some(_)) => Representor::Ambiguous(netdevs().map(|netdev| netdev.name.clone()).collect()),
        };
        let port = if let [port] = ports { Some(function_port(port)) } else { None };
        NicFunction { representor, port, ..NicFunction::default() }
    }

    /// The virtual functions on the PCI bus, which have their number by their physical one and perhaps a port.
    fn pci_vfs(
        &self,
        (pf, function): (PciAddress, &Function),
        ports: &Ports<'_>,
        functions: &mut BTreeMap<FunctionNumber, NicFunction>,
    ) {
        let Some(vfs) = vfs_of(function) else { return };
        let device = Device::from(pf);
        let own = ports.of(&device);
        let digit = u16::from(pf.function);
        let number = |pf, vf| FunctionNumber { controller: None, pf, part: FunctionPart::Vf(vf) };
        // Physical functions of this host that ports of this device are for.
        let seen: BTreeSet<u16> = own
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|number| number.controller.is_none())
            .map(|number| number.pf)
            .collect();
        let is_plain = seen.contains(&digit);
        let mut neighbours = None;
        let mut doubtful = BTreeMap::new();
        let mut found_pf = None;
        for (vf, address) in vfs {
            if is_plain && let Some(function) = functions.get_mut(&number(digit, *vf)) {
                function.pci = Some(*address);
                continue;
            }
            // With no ports and no netdevs to look through there is nothing to find.
            if own.is_none() && self.netdevs.is_empty() {
                doubtful.insert(*vf, (*address, Representor::None));
                continue;
            }
            let neighbours = neighbours.get_or_insert_with(|| self.neighbours(pf, function.vendor)).clone();
            let sought = SoughtFunction {
                device: device.clone(),
                controller: None,
                pf: PfNumber::Digit(digit),
                part: FunctionPart::Vf(*vf),
                neighbours,
            };
            let representor = match Sought::Function(sought).representor(&self.ports, &self.netdevs) {
                devlink::Representor::Found(Found { netdev, ifindex, function, .. }) => {
                    if let devlink::FunctionAddress::Port { function, .. } = function {
                        found_pf = Some(function.pf);
                    }
                    Representor::Is(self.port(&netdev, ifindex))
                }
                devlink::Representor::Ambiguous { candidates, .. } => {
                    Representor::Ambiguous(candidates.into_iter().collect())
                }
                _ => Representor::None,
            };
            doubtful.insert(*vf, (*address, representor));
        }
        let ambiguous = doubtful.values().any(|(_, representor)| matches!(representor, Representor::Ambiguous(_)));
        let known = found_pf.or_else(|| match seen.first() {
            // All ports are of one, which is this one under another number.
            Some(only) if !is_plain && !ambiguous && seen.len() == 1 => Some(*only),
            _ => None,
        });
        for (vf, (address, representor)) in doubtful {
            let function = functions.entry(number(known.unwrap_or(digit), vf)).or_default();
            function.pci = Some(address);
            if representor != Representor::None {
                function.representor = representor;
            }
        }
    }

    /// The vendor's other physical functions that can have virtual ones: who else may be on the same switch.
    fn neighbours(&self, pf: PciAddress, vendor: u16) -> Vec<Neighbour> {
        let others = self.functions.iter().filter(|(address, other)| **address != pf && other.vendor == vendor);
        others
            .filter_map(|(address, other)| match &other.role {
                Role::Physical { sriov: Some(sriov) } => Some(Neighbour { address: *address, num_vfs: sriov.num }),
                _ => None,
            })
            .collect()
    }

    fn uplinks(&self, device: &Device, eswitch: Option<Eswitch>) -> Vec<NicPort> {
        let physical = |port: &&Port| {
            (&port.bus, &port.dev) == (&device.bus, &device.dev) && matches!(port.flavour, Flavour::Physical { .. })
        };
        let mut by_devlink: Vec<NicPort> = self
            .ports
            .iter()
            .filter(physical)
            .filter_map(|port| port.netdev.as_ref())
            .map(|netdev| self.port(&netdev.name, netdev.index))
            .collect();
        if !by_devlink.is_empty() {
            by_devlink.sort_by_key(|port| port.index);
            return by_devlink;
        }
        let names = match eswitch.and_then(|eswitch| eswitch.mode) {
            None | Some(EswitchMode::Legacy) if self.netdevs.is_empty() => {
                let on_pci = self.on_pci(device).map(|(_, function)| &function.netdevs);
                on_pci.or_else(|| Some(&self.others.get(device)?.netdevs)).cloned().unwrap_or_default()
            }
            _ => match uplink(device, &self.ports, &self.netdevs) {
                Uplink::Found { netdev, .. } => BTreeSet::from([netdev]),
                Uplink::Several(names) => names,
                Uplink::None => BTreeSet::new(),
            },
        };
        let mut ports: Vec<NicPort> =
            names.iter().filter_map(|name| Some(self.port(name, *self.indices.get(name)?))).collect();
        ports.sort_by_key(|port| port.index);
        ports
    }

    fn port(&self, name: &str, index: u32) -> NicPort {
        NicPort { index, name: name.to_owned(), tc_offload: None }
    }
}

fn vfs_of(function: &Function) -> Option<&BTreeMap<u16, PciAddress>> {
    match &function.role {
        Role::Physical { sriov: Some(sriov) } => Some(&sriov.vfs),
        _ => None,
    }
}

fn function_port(port: &Port) -> FunctionPort {
    let function = port.function.as_ref();
    let active = |state| match state {
        FunctionState::Active => Some(true),
        FunctionState::Inactive => Some(false),
        FunctionState::Other(_) => None,
    };
    FunctionPort {
        index: port.index,
        hw_addr: function.and_then(|function| function.hw_addr).map(MacAddr),
        active: function.and_then(|function| function.state).and_then(active),
    }
}

/// `new` with the rows of `old` that are the same, so that whoever holds both has them once.
pub(super) fn keep_rows(old: &BTreeMap<Device, Arc<Nic>>, new: BTreeMap<Device, Nic>) -> BTreeMap<Device, Arc<Nic>> {
    new.into_iter()
        .map(|(device, nic)| {
            let kept = old.get(&device).filter(|before| ***before == nic).cloned();
            (device, kept.unwrap_or_else(|| Arc::new(nic)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use devlink::{Netdev, PortFunction, PortType, Sriov};

    use super::*;

    fn pci(address: &str, role: Role) -> (PciAddress, Function) {
        let (driver, netdevs) = (Some("mlx5_core".into()), BTreeSet::new());
        let function = Function { vendor: 0x15b3, driver, driver_override: None, iommu_group: None, role, netdevs };
        (address.parse().unwrap(), function)
    }

    /// A physical function with one virtual one, behind devlink.
    fn facts(pf: &str, vf: &str) -> Facts {
        let sriov = Sriov { total: Some(8), num: 1, autoprobe: true, vfs: [(0, vf.parse().unwrap())].into() };
        let virtual_one = Role::Virtual { pf: pf.parse().unwrap(), index: Some(0) };
        let switch = Eswitch { mode: Some(EswitchMode::Switchdev), ..Eswitch::default() };
        Facts {
            instances: [
                (format!("pci/{pf}").parse().unwrap(), Some(switch)),
                (format!("pci/{vf}").parse().unwrap(), None),
            ]
            .into(),
            functions: [pci(pf, Role::Physical { sriov: Some(sriov) }), pci(vf, virtual_one)].into(),
            ..Facts::default()
        }
    }

    fn port(dev: &str, index: u32, flavour: Flavour, netdev: Option<&str>) -> Port {
        let netdev = netdev.map(|name| Netdev { index: 100 + index, name: name.into() });
        let function = Some(PortFunction {
            hw_addr: Some([2, 0, 0, 0, 0, 1]),
            state: Some(FunctionState::Inactive),
            ..PortFunction::default()
        });
        let kind = PortType::Ethernet;
        let (lanes, splittable, ibdev) = (None, None, None);
        Port { bus: "pci".into(), dev: dev.into(), index, kind, flavour, netdev, ibdev, lanes, splittable, function }
    }

    fn vf(controller: u32, external: bool, pf: u16, vf: u16) -> Flavour {
        Flavour::PciVf { controller, external, pf, vf }
    }

    const PHYSICAL: Flavour = Flavour::Physical { number: Some(0), split: None };

    #[test]
    fn a_function_has_its_address_its_port_and_its_representor_together() {
        let (pf, address) = ("0000:03:00.0", "0000:03:00.2");
        let mut facts = facts(pf, address);
        facts.ports = vec![
            port(pf, 0, PHYSICAL, Some("p0")),
            port(pf, 1, vf(0, false, 0, 0), Some("rep0")),
            // Of another host, and on its way.
            port(pf, 2, vf(1, true, 0, 0), Some("rep1")),
            port(pf, 3, vf(0, false, 0, 1), None),
        ];
        assert!(!facts.need_netdevs(true), "devlink says everything");
        let (nics, pci) = facts.nics();
        let device: Device = format!("pci/{pf}").parse().unwrap();
        assert_eq!(nics.keys().collect::<Vec<_>>(), [&device], "a function's own devlink is no NIC");
        let nic = &nics[&device];
        assert_eq!(nic.uplinks, [NicPort { index: 100, name: "p0".into(), tc_offload: None }]);
        let of = |number: &str| &nic.functions[&number.parse().unwrap()];
        assert_eq!(of("pf0vf0").pci, Some(address.parse().unwrap()));
        assert_eq!(of("pf0vf0").representor.netdev().map(|port| port.name.as_str()), Some("rep0"));
        let function = FunctionPort { index: 1, hw_addr: Some(MacAddr([2, 0, 0, 0, 0, 1])), active: Some(false) };
        assert_eq!(of("pf0vf0").port, Some(function));
        assert_eq!((of("c1pf0vf0").pci, of("pf0vf1").representor.clone()), (None, Representor::None));
        assert_eq!(nic.functions.len(), 3);
        assert_eq!(pci[&address.parse().unwrap()].of, Some((device, "pf0vf0".parse().unwrap())));
    }

    #[test]
    fn the_number_of_a_physical_function_is_devlinks_where_it_says_one() {
        // As in a guest that was given the function: its digit is 0, and devlink calls it 1.
        let (pf, address) = ("0000:03:00.0", "0000:03:00.2");
        let mut facts = facts(pf, address);
        for netdev in [Some("rep0"), None] {
            facts.ports = vec![port(pf, 1, vf(0, false, 1, 0), netdev)];
            let (nics, pci) = facts.nics();
            let nic = nics.values().next().unwrap();
            assert_eq!(nic.functions.len(), 1);
            let function = &nic.functions[&"pf1vf0".parse().unwrap()];
            assert_eq!(function.pci, Some(address.parse().unwrap()));
            assert_eq!(function.representor.netdev().map(|port| port.name.as_str()), netdev);
            assert_eq!(function.port.map(|port| port.index), Some(1));
            assert_eq!(pci[&address.parse().unwrap()].of.as_ref().unwrap().1, "pf1vf0".parse().unwrap());
        }
    }

    #[test]
    fn what_devlink_does_not_tell_of_is_found_by_netdevs() {
        let (pf, address) = ("0000:03:00.0", "0000:03:00.2");
        let mut facts = facts(pf, address);
        facts.ports = vec![port(pf, 0, PHYSICAL, Some("p0"))];
        assert!(facts.need_netdevs(true));
        let netdev = |name: &str, port_name: &str, ifindex| NetdevFacts {
            name: name.into(),
            ifindex,
            device: Some(format!("pci/{pf}").parse().unwrap()),
            phys_switch_id: Some("0a0b".into()),
            phys_port_name: Some(port_name.into()),
            phys_port_id: None,
            dev_port: None,
            master: None,
            bond_slaves: None,
        };
        facts.netdevs = vec![netdev("p0", "p0", 100), netdev("rep0", "pf0vf0", 7)];
        let (nics, _) = facts.nics();
        let function = &nics.values().next().unwrap().functions[&"pf0vf0".parse().unwrap()];
        assert_eq!(function.representor, Representor::Is(NicPort { index: 7, name: "rep0".into(), tc_offload: None }));
        // Nobody has representors in legacy mode.
        facts.instances.values_mut().flatten().for_each(|switch| switch.mode = Some(EswitchMode::Legacy));
        assert!(!facts.need_netdevs(true));
    }

    #[test]
    fn rows_that_did_not_change_are_kept() {
        let facts = facts("0000:03:00.0", "0000:03:00.2");
        let first = keep_rows(&BTreeMap::new(), facts.nics().0);
        let again = keep_rows(&first, facts.nics().0);
        assert!(first.values().zip(again.values()).all(|(one, other)| Arc::ptr_eq(one, other)));
        let mut changed = facts.nics().0;
        changed.values_mut().for_each(|nic| nic.driver = None);
        let changed = keep_rows(&first, changed);
        assert!(first.values().zip(changed.values()).all(|(one, other)| !Arc::ptr_eq(one, other)));
    }
}
