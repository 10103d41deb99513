//! Looking at everything: devlink, sysfs, the features of links and the settings of virtual functions, whole, one after the other.
//! What is made of it is `view.rs`'s business; when it is done, `follow.rs`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use devlink::{
    Device, Devlink, Eswitch, Ethtool, HW_TC_OFFLOAD, LinkRef, LinkSocket, PciAddress, Port, Role, Sysfs, SysfsError,
    vf,
};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::hear::Interest;
use super::under_way::UnderWay;
use super::view::{Facts, Function, OffBus};
use crate::model::{MacAddr, Nic, NicPort, PciFunction, Representor, VfCount, VfSettings};

/// Class of network controllers (`PCI_BASE_CLASS_NETWORK`, `linux/pci_ids.h`).
const NETWORK: u32 = 0x02;
/// Different complaints that are told of; those of a driver that complains of something else each time are not.
const MOST_SAID: usize = 64;

/// Why there is no whole picture: it is to be looked at again.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// devlink or ethtool.
    #[error(transparent)]
    Devlink(#[from] devlink::Error),
    /// A function or a NIC.
    #[error(transparent)]
    Sysfs(#[from] SysfsError),
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) nics: BTreeMap<Device, Nic>,
    pub(super) pci: BTreeMap<PciAddress, PciFunction>,
    pub(super) interest: Interest,
}

/// Everything that NICs are looked at with, in the network namespace of the thread that opened it. What this host does not
/// have is `None`.
pub(super) struct Eyes {
    sysfs: Option<Sysfs>,
    devlink: Option<Devlink>,
    ethtool: Option<Ethtool>,
    links: Option<LinkSocket>,
    /// What somebody is changing. A function whose driver does not let go keeps its lock, and whoever reads of it would wait, too
    /// (`driver_override_show`, `drivers/pci/pci-sysfs.c`; `sriov_numvfs_show`, `drivers/pci/iov.c`).
    under_way: UnderWay,
    /// The functions as they were seen last; what is known of those meanwhile, and of those that cannot be read for a while: a
    /// function that is there and is not seen would be taken for gone, and what was noted of it with it.
    last: BTreeMap<PciAddress, Function>,
    /// The same of devlink's instances, their switches and ports, and of devices that are not on the PCI bus.
    switches: BTreeMap<Device, Option<Eswitch>>,
    ports: Vec<Port>,
    others: BTreeMap<Device, OffBus>,
    /// The index of a netdev of this network namespace.
    index: fn(&str) -> Option<u32>,
    /// What was complained of, so that it is said once.
    said: BTreeSet<String>,
}

impl Eyes {
    /// Opens what there is to open.
    pub(super) fn open(sysfs: Option<Sysfs>, under_way: UnderWay) -> Self {
        let mut eyes = Eyes { under_way, ..Eyes::blind(sysfs) };
        match Devlink::open() {
            Ok(devlink) => eyes.devlink = Some(devlink),
            Err(error) => complain(&mut eyes.said, "devlink", &error),
        }
        match Ethtool::open() {
            Ok(ethtool) => eyes.ethtool = Some(ethtool),
            Err(error) => complain(&mut eyes.said, "the features of links", &error),
        }
        match LinkSocket::open() {
            Ok(links) => eyes.links = Some(links),
            Err(error) => complain(&mut eyes.said, "the settings of virtual functions", &error),
        }
        eyes
    }

    /// With sysfs alone.
    fn blind(sysfs: Option<Sysfs>) -> Self {
        Eyes {
            sysfs,
            devlink: None,
            ethtool: None,
            links: None,
            under_way: UnderWay::default(),
            last: BTreeMap::new(),
            switches: BTreeMap::new(),
            ports: Vec::new(),
            others: BTreeMap::new(),
            index: |name| if_nametoindex(name).ok(),
            said: BTreeSet::new(),
        }
    }

    /// Looks at everything. It blocks.
    pub(super) async fn look(&mut self) -> Result<Seen, LookError> {
        let mut facts = Facts::default();
        self.look_at_devlink(&mut facts).await?;
        if let Some(sysfs) = self.sysfs.clone() {
            self.look_at_functions(&sysfs, &mut facts);
            self.look_off_bus(&sysfs, &mut facts);
            facts.indices = self.indices(&sysfs, &facts);
        }
        let any = facts.need_netdevs(self.devlink.is_some());
        if let (true, Some(sysfs)) = (any, &self.sysfs) {
            let said = &mut self.said;
            facts.netdevs = sysfs.netdevs(|name, error| complain(said, &format!("netdev {name:?}"), error))?;
            facts.netdevs.retain(|netdev| (self.index)(&netdev.name) == Some(netdev.ifindex));
            facts.indices.extend(facts.netdevs.iter().map(|netdev| (netdev.name.clone(), netdev.ifindex)));
        }
        let (mut nics, pci) = facts.nics();
        for nic in nics.values_mut() {
            self.look_at_features(nic).await?;
            self.look_at_settings(nic).await;
        }
        let representors = |nic: &Nic| {
            nic.functions.values().filter_map(|f| f.representor.netdev()).map(|port| port.index).collect::<Vec<_>>()
        };
        let indices = nics.values().flat_map(|nic| nic.uplinks.iter().map(|port| port.index).chain(representors(nic)));
        let indices = indices.collect();
        Ok(Seen { nics, pci, interest: Interest { indices, any } })
    }

    async fn look_at_devlink(&mut self, facts: &mut Facts) -> Result<(), LookError> {
        let Some(devlink) = self.devlink.clone() else { return Ok(()) };
        if self.under_way.is_about_any(|device| self.switches.contains_key(device)) {
            // Lists are made of all instances, and wait for the lock of each.
            facts.instances.clone_from(&self.switches);
            facts.ports.clone_from(&self.ports);
            return Ok(());
        }
        let said = &mut self.said;
        let devices = match devlink.devices(|error| complain(said, "a NIC", &error)).await {
            Ok(devices) => devices,
            // Not for us, or not in this kernel.
            Err(error) if error.refusal().is_some() => {
                complain(&mut self.said, "devlink", &error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if devices.is_empty() {
            return Ok(());
        }
        for status in devices {
            let eswitch = match devlink.eswitch(&status.device).await {
                Ok(eswitch) => Some(eswitch).filter(|eswitch| *eswitch != Eswitch::default()),
                // It has none, is gone, or is not for us.
                Err(error) if error.refusal().is_some_and(says_none) => None,
                // Its driver or its firmware is in trouble: what it was seen to have is not less true for that.
                Err(error) if error.is_of_one_device() => {
                    complain(&mut self.said, &format!("the eswitch of {}", status.device), &error);
                    self.switches.get(&status.device).copied().flatten()
                }
                Err(error) => return Err(error.into()),
            };
            facts.instances.insert(status.device, eswitch);
        }
        self.switches.clone_from(&facts.instances);
        let said = &mut self.said;
        facts.ports = devlink.ports(|error| complain(said, "a port of a NIC", &error)).await?;
        self.ports.clone_from(&facts.ports);
        Ok(())
    }

    /// The network functions on the PCI bus. One that is gone by now, or cannot be read, is left out.
    fn look_at_functions(&mut self, sysfs: &Sysfs, facts: &mut Facts) {
        let addresses = sysfs.pci_functions().unwrap_or_else(|error| {
            complain(&mut self.said, "PCI functions", &error);
            self.last.keys().copied().collect()
        });
        // Which number a virtual function has is told by the physical one, for all of them at once.
        let (mut virtual_ones, mut numbers) = (Vec::new(), BTreeMap::new());
        for address in addresses.into_iter().filter(|address| is_network(sysfs, *address)) {
            if let Some(pf) = link(sysfs, address, "physfn").and_then(|name| name.parse().ok()) {
                virtual_ones.push((address, pf));
                continue;
            }
            let function = match self.known(address) {
                Some(function) => function,
                None => match sysfs.pci_function(address) {
                    Ok(function) => physical(function),
                    Err(SysfsError::NoFunction(_)) => continue,
                    Err(error) => {
                        complain(&mut self.said, "a PCI function", &error);
                        let Some(function) = self.last.get(&address) else { continue };
                        function.clone()
                    }
                },
            };
            if let Role::Physical { sriov: Some(sriov) } = &function.role {
                numbers.extend(sriov.vfs.iter().map(|(index, vf)| (*vf, *index)));
            }
            facts.functions.insert(address, function);
        }
        for (address, pf) in virtual_ones {
            let Some(vendor) = facts.functions.get(&pf).map(|pf| pf.vendor) else { continue };
            let role = Role::Virtual { pf, index: numbers.get(&address).copied() };
            match self.known(address).map_or_else(|| virtual_one(sysfs, address, vendor, role), Ok) {
                Ok(function) => drop(facts.functions.insert(address, function)),
                Err(error) => {
                    complain(&mut self.said, "a virtual function", &error);
                    facts.functions.extend(self.last.get(&address).map(|function| (address, function.clone())));
                }
            }
        }
        self.last.clone_from(&facts.functions);
    }

    /// What is known of a function that is being written to.
    fn known(&self, address: PciAddress) -> Option<Function> {
        self.under_way.is_about(&address.into()).then(|| self.last.get(&address).cloned()).flatten()
    }

    /// What sysfs shows of devlink's instances that are not on the PCI bus.
    fn look_off_bus(&mut self, sysfs: &Sysfs, facts: &mut Facts) {
        for device in facts.instances.keys().filter(|device| device.bus != "pci") {
            let other = off_bus(sysfs, device).or_else(|error| {
                complain(&mut self.said, &format!("NIC {device}"), &error);
                self.others.get(device).cloned().ok_or(error)
            });
            facts.others.extend(other.ok().map(|other| (device.clone(), other)));
        }
        self.others.clone_from(&facts.others);
    }

    /// The indices of the netdevs that are spoken of. sysfs may be that of another network namespace: a name is taken only where
    /// it has the same index here.
    fn indices(&self, sysfs: &Sysfs, facts: &Facts) -> BTreeMap<String, u32> {
        let both = |name: &String| {
            let path = sysfs.root().join("class/net").join(name).join("ifindex");
            let there: u32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            ((self.index)(name) == Some(there)).then(|| (name.clone(), there))
        };
        facts.named().filter_map(both).collect()
    }

    /// `hw-tc-offload` of uplinks and representors, where flows can be handed to the NIC at all.
    async fn look_at_features(&mut self, nic: &mut Nic) -> Result<(), LookError> {
        let Some(ethtool) = self.ethtool.clone().filter(|_| nic.eswitch.is_some()) else { return Ok(()) };
        let representors = nic.functions.values_mut().filter_map(|function| match &mut function.representor {
            Representor::Is(port) => Some(port),
            Representor::None | Representor::Ambiguous(_) => None,
        });
        for port in nic.uplinks.iter_mut().chain(representors) {
            let NicPort { index, tc_offload, .. } = port;
            *tc_offload = match ethtool.features(&LinkRef::Index(*index)).await {
                Ok(features) => {
                    let active = features.active.contains(HW_TC_OFFLOAD);
                    (active || !features.is_fixed(HW_TC_OFFLOAD)).then_some(active)
                }
                // It is gone by now, or has none.
                Err(error) if error.refusal().is_some() => None,
                Err(error) if error.is_of_one_device() => {
                    complain(&mut self.said, "the features of a link", &error);
                    None
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    /// What the physical function tells of its virtual ones. One that is gone by now, or cannot tell, tells nothing.
    async fn look_at_settings(&mut self, nic: &mut Nic) {
        let Eyes { links: Some(links), said, .. } = self else { return };
        let Some(VfCount { made: 1.., .. }) = nic.vfs else { return };
        let mut told = BTreeMap::new();
        for uplink in &nic.uplinks {
            match vf::read(links, uplink.index).await {
                Ok(vfs) if vfs.is_empty() => {}
                Ok(vfs) => {
                    told = vfs;
                    break;
                }
                Err(error) => complain(said, &format!("the virtual functions of {}", uplink.name), &error),
            }
        }
        for (number, function) in &mut nic.functions {
            if let (None, devlink::FunctionPart::Vf(vf)) = (number.controller, number.part) {
                function.settings = told.get(&vf.into()).map(settings);
            }
        }
    }
}

/// Says once what cannot be looked at.
fn complain(said: &mut BTreeSet<String>, what: &str, error: &(impl std::error::Error + ?Sized)) {
    let words = format!("{what}: {error}");
    if said.len() < MOST_SAID && said.insert(words) {
        tracing::warn!(%error, "cannot look at {what}");
    }
}

fn settings(told: &vf::VfSettings) -> VfSettings {
    VfSettings {
        mac: told.mac.map(MacAddr),
        vlan: told.vlan,
        max_rate: told.max_tx_rate_mbps,
        spoof_check: told.spoof_check,
        trust: told.trust,
    }
}

fn physical(function: devlink::PciFunction) -> Function {
    let devlink::PciFunction { vendor, driver, driver_override, iommu, role, netdevs, .. } = function;
    Function { vendor, driver, driver_override, iommu_group: iommu.map(|iommu| iommu.group), role, netdevs }
}

/// What is to be known of a virtual function. [`Sysfs::pci_function`] would read the list of all its siblings for each.
fn virtual_one(sysfs: &Sysfs, address: PciAddress, vendor: u16, role: Role) -> Result<Function, SysfsError> {
    let text = fs::read_to_string(folder(sysfs, address).join("driver_override")).unwrap_or_default();
    Ok(Function {
        vendor,
        driver: sysfs.driver(address)?,
        // What is not set is shown so by `driver_override_show` (`drivers/pci/pci-sysfs.c`).
        driver_override: Some(text.trim().to_owned()).filter(|name| !name.is_empty() && name != "(null)"),
        iommu_group: link(sysfs, address, "iommu_group").and_then(|name| name.parse().ok()),
        role,
        netdevs: sysfs.netdevs_of(&address.into())?,
    })
}

fn folder(sysfs: &Sysfs, address: PciAddress) -> PathBuf {
    sysfs.root().join("bus/pci/devices").join(address.to_string())
}

/// The last name in a link of a function's.
fn link(sysfs: &Sysfs, address: PciAddress, name: &str) -> Option<String> {
    let target = fs::read_link(folder(sysfs, address).join(name)).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// By its class, which is all that is read of functions that are not for the network.
fn is_network(sysfs: &Sysfs, address: PciAddress) -> bool {
    let read = fs::read_to_string(folder(sysfs, address).join("class"));
    let class = read.ok().and_then(|text| u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok());
    class.is_some_and(|class| class >> 16 == NETWORK)
}

/// What sysfs shows of a device that is not on the PCI bus.
fn off_bus(sysfs: &Sysfs, device: &Device) -> Result<OffBus, SysfsError> {
    let path = sysfs.root().join("bus").join(&device.bus).join("devices").join(&device.dev).join("driver");
    let driver = fs::read_link(path).ok();
    let driver = driver.as_ref().and_then(|driver| driver.file_name()).map(|name| name.to_string_lossy().into());
    let vfs = sysfs.sriov(device)?;
    let most = |total: Option<u32>| total.unwrap_or(u16::MAX.into());
    Ok(OffBus {
        driver,
        vfs: vfs.map(|vfs| VfCount { made: vfs.num, most: most(vfs.total) }),
        netdevs: sysfs.netdevs_of(device)?,
    })
}

/// Whether a refusal says that there is nothing to be told; any other says that it could not be.
fn says_none(refusal: &devlink::Extack) -> bool {
    let not_for_us = [Errno::EPERM as i32, Errno::EACCES as i32].contains(&refusal.errno);
    refusal.is_unsupported() || refusal.is_absent() || refusal.is_invalid() || not_for_us
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use devlink::{FunctionNumber, FunctionPart};

    use super::*;

    const PF: &str = "0000:03:00.1";

    /// A sysfs with a function of this class, and what it shows of itself.
    fn function(root: &Path, address: &str, class: &str, attributes: &[(&str, &str)]) {
        let folder = root.join("bus/pci/devices").join(address);
        fs::create_dir_all(&folder).unwrap();
        let known = [("class", class), ("vendor", "0x8086"), ("device", "0x10c9")];
        for (name, text) in known.iter().chain(attributes) {
            fs::write(folder.join(name), format!("{text}\n")).unwrap();
        }
    }

    fn lead(root: &Path, at: &str, to: &str) {
        symlink(to, root.join("bus/pci/devices").join(at)).unwrap();
    }

    fn netdev(root: &Path, address: &str, name: &str, index: u32) {
        fs::create_dir_all(root.join(format!("bus/pci/devices/{address}/net/{name}"))).unwrap();
        fs::create_dir_all(root.join(format!("class/net/{name}"))).unwrap();
        fs::write(root.join(format!("class/net/{name}/ifindex")), format!("{index}\n")).unwrap();
    }

    async fn look(root: &Path) -> Seen {
        let index: fn(&str) -> Option<u32> = |name| match name {
            "eth0" => Some(1 << 20),
            // In this network namespace it is another's.
            "eth9" => Some(1 << 21),
            _ => None,
        };
        let mut eyes = Eyes { index, ..Eyes::blind(Sysfs::at(root).ok()) };
        eyes.look().await.unwrap()
    }

    #[tokio::test]
    async fn functions_are_seen_with_whose_they_are() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        function(root, "0000:00:02.0", "0x030000", &[]);
        function(root, PF, "0x020000", &[("sriov_numvfs", "2"), ("sriov_totalvfs", "7")]);
        fs::create_dir_all(root.join("bus/pci/drivers/igb")).unwrap();
        lead(root, &format!("{PF}/driver"), "../../drivers/igb");
        netdev(root, PF, "eth0", 1 << 20);
        symlink(format!("../../../bus/pci/devices/{PF}"), root.join("class/net/eth0/device")).unwrap();
        lead(root, &format!("{PF}/subsystem"), "../../../pci");
        for (number, vf) in ["0000:03:10.1", "0000:03:10.3"].into_iter().enumerate() {
            function(root, vf, "0x020000", &[("driver_override", "vfio-pci")]);
            lead(root, &format!("{PF}/virtfn{number}"), &format!("../{vf}"));
            lead(root, &format!("{vf}/physfn"), &format!("../{PF}"));
        }
        fs::create_dir_all(root.join("kernel/iommu_groups/17/devices")).unwrap();
        lead(root, "0000:03:10.3/iommu_group", "../../../../kernel/iommu_groups/17");
        // A function that comes or goes, one that is all that a guest sees of a NIC, and one of another namespace.
        function(root, "0000:03:10.5", "0x020000", &[]);
        lead(root, "0000:03:10.5/physfn", &format!("../{PF}"));
        function(root, "0000:09:00.0", "0x020000", &[]);
        netdev(root, "0000:09:00.0", "eth9", 9);

        let seen = look(root).await;
        let device: Device = format!("pci/{PF}").parse().unwrap();
        assert_eq!(seen.nics.keys().collect::<Vec<_>>(), [&device]);
        let nic = &seen.nics[&device];
        assert_eq!((nic.driver.as_deref(), nic.vfs), (Some("igb"), Some(VfCount { made: 2, most: 7 })));
        assert_eq!(nic.uplinks, [NicPort { index: 1 << 20, name: "eth0".into(), tc_offload: None }]);
        // Without devlink any netdev may be a representor.
        assert_eq!(seen.interest, Interest { indices: [1 << 20].into(), any: true });
        let number = |vf| FunctionNumber { controller: None, pf: 1, part: FunctionPart::Vf(vf) };
        let functions: Vec<_> = nic.functions.iter().map(|(number, f)| (*number, f.pci.unwrap().to_string())).collect();
        assert_eq!(functions, [(number(0), "0000:03:10.1".to_owned()), (number(1), "0000:03:10.3".to_owned())]);

        let addresses: Vec<String> = seen.pci.keys().map(ToString::to_string).collect();
        assert_eq!(addresses, [PF, "0000:03:10.1", "0000:03:10.3", "0000:09:00.0"]);
        let of = |address: &str| &seen.pci[&address.parse().unwrap()];
        assert_eq!(of("0000:03:10.3").of, Some((device, number(1))));
        assert_eq!(of("0000:03:10.3").iommu_group, Some(17));
        assert_eq!(of("0000:03:10.3").driver_override.as_deref(), Some("vfio-pci"));
        assert_eq!((&of(PF).of, of(PF).netdevs.len()), (&None, 1));
        assert_eq!(*of("0000:09:00.0"), PciFunction::default());
    }

    /// What cannot be read for a while is as it was seen last; what never could is left out, and nobody else with it.
    #[tokio::test]
    async fn one_odd_function_hides_nobody() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (address, vendor) in [(PF, "0x8086"), ("0000:04:00.0", "0x8086"), ("0000:05:00.0", "nobody's")] {
            let sriov = [("sriov_numvfs", "0"), ("sriov_totalvfs", "7"), ("vendor", vendor)];
            function(root, address, "0x020000", &sriov);
        }
        let mut eyes = Eyes::blind(Sysfs::at(root).ok());
        let seen = |seen: &Seen| seen.nics.keys().map(|device| device.dev.clone()).collect::<Vec<_>>();
        assert_eq!(seen(&eyes.look().await.unwrap()), [PF, "0000:04:00.0"]);
        fs::write(root.join(format!("bus/pci/devices/{PF}/sriov_numvfs")), "many\n").unwrap();
        assert_eq!(seen(&eyes.look().await.unwrap()), [PF, "0000:04:00.0"]);
        assert!(eyes.said.iter().any(|said| said.contains("many")), "{:?}", eyes.said);
        fs::remove_dir_all(root.join("bus/pci/devices").join(PF)).unwrap();
        assert_eq!(seen(&eyes.look().await.unwrap()), ["0000:04:00.0"]);
    }

    #[tokio::test]
    async fn a_host_without_sysfs_or_without_nics_has_none() {
        let root = tempfile::tempdir().unwrap();
        for root in [root.path().to_owned(), root.path().join("nowhere")] {
            let seen = look(&root).await;
            assert!(seen.nics.is_empty() && seen.pci.is_empty() && seen.interest == Interest::default());
        }
    }
}
