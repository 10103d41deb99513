//! Looking at everything: devlink, sysfs, the features of links and the settings of virtual functions, whole, one after the other.
//! What is made of it is `view.rs`'s business; when it is done, `follow.rs`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use devlink::{
    Device, Devlink, Eswitch, Ethtool, HW_TC_OFFLOAD, LinkRef, LinkSocket, PciAddress, Sysfs, SysfsError, vf,
};
use nix::net::if_::if_nametoindex;

use super::hear::Interest;
use super::view::{Facts, OffBus};
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
    /// The index of a netdev of this network namespace.
    index: fn(&str) -> Option<u32>,
    /// What was complained of, so that it is said once.
    said: BTreeSet<String>,
}

impl Eyes {
    /// Opens what there is to open.
    pub(super) fn open(sysfs: Option<Sysfs>) -> Self {
        let mut eyes = Eyes {
            sysfs,
            devlink: None,
            ethtool: None,
            links: None,
            index: |name| if_nametoindex(name).ok(),
            said: BTreeSet::new(),
        };
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

    /// Looks at everything. It blocks.
    pub(super) async fn look(&mut self) -> Result<Seen, LookError> {
        let mut facts = Facts::default();
        self.look_at_devlink(&mut facts).await?;
        if let Some(sysfs) = self.sysfs.clone() {
            self.look_at_functions(&sysfs, &mut facts);
            look_off_bus(&sysfs, &mut facts)?;
            facts.indices = self.indices(&sysfs, &facts);
        }
        let any = facts.need_netdevs(self.devlink.is_some());
        if let (true, Some(sysfs)) = (any, &self.sysfs) {
            facts.netdevs = sysfs.netdevs()?;
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
        let devices = match devlink.devices().await {
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
                Err(error) if error.refusal().is_some() => None,
                Err(error) => return Err(error.into()),
            };
            facts.instances.insert(status.device, eswitch);
        }
        facts.ports = devlink.ports().await?;
        Ok(())
    }

    /// The network functions on the PCI bus. One that is gone by now, or cannot be read, is left out.
    fn look_at_functions(&mut self, sysfs: &Sysfs, facts: &mut Facts) {
        let addresses = sysfs.pci_functions().unwrap_or_else(|error| {
            complain(&mut self.said, "PCI functions", &error);
            BTreeSet::new()
        });
        for address in addresses.into_iter().filter(|address| is_network(sysfs, *address)) {
            match sysfs.pci_function(address) {
                Ok(function) => drop(facts.functions.insert(address, function)),
                Err(SysfsError::NoFunction(_)) => {}
                Err(error) => complain(&mut self.said, "a PCI function", &error),
            }
        }
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
        vlan: told.vlan.id,
        qos: told.vlan.qos,
        max_rate: told.max_tx_rate_mbps,
        spoof_check: told.spoof_check,
        trust: told.trust,
    }
}

/// By its class, which is all that is read of functions that are not for the network.
fn is_network(sysfs: &Sysfs, address: PciAddress) -> bool {
    let read = fs::read_to_string(sysfs.root().join(format!("bus/pci/devices/{address}/class")));
    let class = read.ok().and_then(|text| u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok());
    class.is_some_and(|class| class >> 16 == NETWORK)
}

/// What sysfs shows of devlink's instances that are not on the PCI bus.
fn look_off_bus(sysfs: &Sysfs, facts: &mut Facts) -> Result<(), LookError> {
    for device in facts.instances.keys().filter(|device| device.bus != "pci") {
        let path = sysfs.root().join("bus").join(&device.bus).join("devices").join(&device.dev).join("driver");
        let driver = fs::read_link(path).ok();
        let driver = driver.as_ref().and_then(|driver| driver.file_name()).map(|name| name.to_string_lossy().into());
        let vfs = sysfs.sriov(device)?;
        let most = |total: Option<u32>| total.unwrap_or(u16::MAX.into());
        facts.others.insert(
            device.clone(),
            OffBus {
                driver,
                vfs: vfs.map(|vfs| VfCount { made: vfs.num, most: most(vfs.total) }),
                netdevs: sysfs.netdevs_of(device)?,
            },
        );
    }
    Ok(())
}
