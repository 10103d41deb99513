//! PCI functions as `/sys/bus/pci/devices` shows them (`Documentation/ABI/testing/sysfs-bus-pci`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Sysfs, SysfsError};
use crate::{Device, PciAddress};

/// A PCI function: what it is, what drives it, what stands on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Its address.
    pub address: PciAddress,
    /// The vendor's number.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
    /// Class, sub-class and interface, an octet of each; Ethernet is 0x020000.
    pub class: u32,
    /// The names by which modules say that they drive it.
    pub modalias: Option<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The one driver that may have it, if that was set.
    pub driver_override: Option<String>,
    /// Its IOMMU group, where there is an IOMMU.
    pub iommu: Option<Iommu>,
    /// Physical or virtual.
    pub role: Role,
    /// The netdevs on it that this network namespace has, by name. For a physical function in switchdev mode they are
    /// its uplink's and, with most drivers, its representors too.
    pub netdevs: BTreeSet<String>,
}

/// What is given to a guest together: the functions that the IOMMU does not tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// The number of the group.
    pub group: u32,
    /// The devices of the group, this one too; names of PCI functions nearly always.
    pub members: BTreeSet<String>,
}

/// What a PCI function is to SR-IOV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A physical function.
    Physical {
        /// Its virtual functions; none if it cannot have any.
        sriov: Option<Sriov>,
    },
    /// A virtual function.
    Virtual {
        /// The physical function that it belongs to.
        pf: PciAddress,
        /// Its number there; none while it comes or goes.
        index: Option<u16>,
    },
}

/// The virtual functions of a physical one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// How many there can be (`sriov_totalvfs`); none if the device does not say, as netdevsim.
    pub total: Option<u32>,
    /// How many there are (`sriov_numvfs`).
    pub num: u32,
    /// Whether the kernel looks for a driver when a virtual function is made (`sriov_drivers_autoprobe`; on when the
    /// kernel does not say).
    pub autoprobe: bool,
    /// The virtual functions by number, as far as they are PCI functions; netdevsim's are none.
    pub vfs: BTreeMap<u16, PciAddress>,
}

/// A physical function that can have virtual ones, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SriovNic {
    /// What it is: a PCI function, or netdevsim's.
    pub device: Device,
    /// The driver that has it.
    pub driver: Option<String>,
    /// How many virtual functions there can be; none if the device does not say.
    pub total_vfs: Option<u32>,
    /// How many there are.
    pub num_vfs: u32,
    /// Its netdevs that are in this network namespace.
    pub netdevs: BTreeSet<String>,
}

/// A physical function, and its virtual ones by number.
pub(crate) type Siblings = (PciAddress, BTreeMap<u16, PciAddress>);

/// Where a PCI function is in the tree.
pub(super) fn folder(address: PciAddress) -> String {
    format!("bus/pci/devices/{address}")
}

/// Where a device is in the tree.
pub(super) fn device_folder(device: &Device) -> Result<String, SysfsError> {
    for name in [&device.bus, &device.dev] {
        if !crate::function::is_sysfs_name(name) {
            return Err(SysfsError::BadName(crate::function::shown(name)));
        }
    }
    Ok(format!("bus/{}/devices/{}", device.bus, device.dev))
}

impl Sysfs {
    /// Everything about a PCI function.
    ///
    /// # Errors
    /// [`SysfsError::NoFunction`] if it is not there; otherwise what could not be read or made sense of.
    pub fn pci_function(&self, address: PciAddress) -> Result<PciFunction, SysfsError> {
        let folder = folder(address);
        let at = |name: &str| format!("{folder}/{name}");
        let number = |name: &str| self.hexadecimal(&at(name))?.ok_or(SysfsError::NoFunction(address));
        let short = |name: &str| {
            let value = number(name)?;
            u16::try_from(value).map_err(|_| self.malformed(&at(name), &format!("{value:#x}"), "a number of 16 bits"))
        };
        Ok(PciFunction {
            address,
            vendor: short("vendor")?,
            device: short("device")?,
            class: number("class")?,
            modalias: self.text(&at("modalias"))?,
            driver: self.driver(address)?,
            // What is not set is shown so by `driver_override_show`.
            driver_override: self.text(&at("driver_override"))?.filter(|name| name != "(null)"),
            iommu: self.iommu(address)?,
            role: self.role(address)?,
            netdevs: self.list(&at("net"))?.into_iter().collect(),
        })
    }

    /// The driver that has a PCI function.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn driver(&self, address: PciAddress) -> Result<Option<String>, SysfsError> {
        self.link(&format!("{}/driver", folder(address)))
    }

    fn iommu(&self, address: PciAddress) -> Result<Option<Iommu>, SysfsError> {
        let path = format!("{}/iommu_group", folder(address));
        let Some(name) = self.link(&path)? else { return Ok(None) };
        let group = name.parse().map_err(|_| self.malformed(&path, &name, "the number of an IOMMU group"))?;
        let members = self.list(&format!("kernel/iommu_groups/{group}/devices"))?.into_iter().collect();
        Ok(Some(Iommu { group, members }))
    }

    /// What a PCI function is to SR-IOV: a virtual function says whose it is and which.
    ///
    /// # Errors
    /// [`SysfsError::NoFunction`] if it is not there; otherwise what could not be read.
    pub fn role(&self, address: PciAddress) -> Result<Role, SysfsError> {
        if let Some((pf, vfs)) = self.siblings(address)? {
            let index = vfs.into_iter().find(|(_, vf)| *vf == address).map(|(index, _)| index);
            return Ok(Role::Virtual { pf, index });
        }
        if !self.exists(&folder(address))? {
            return Err(SysfsError::NoFunction(address));
        }
        Ok(Role::Physical { sriov: self.sriov(&address.into())? })
    }

    /// The virtual functions of a device; none if it cannot have any, or is not there.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn sriov(&self, device: &Device) -> Result<Option<Sriov>, SysfsError> {
        let folder = device_folder(device)?;
        let Some(num) = self.number(&format!("{folder}/sriov_numvfs"))? else { return Ok(None) };
        Ok(Some(Sriov {
            total: self.number(&format!("{folder}/sriov_totalvfs"))?,
            num,
            autoprobe: self.number(&format!("{folder}/sriov_drivers_autoprobe"))? != Some(0),
            vfs: self.virtual_functions(&folder)?,
        }))
    }

    /// How many virtual functions a device has; none if it cannot have any.
    pub(crate) fn num_vfs(&self, device: &Device) -> Result<Option<u32>, SysfsError> {
        self.number(&format!("{}/sriov_numvfs", device_folder(device)?))
    }

    /// The vendor's number of a PCI function.
    pub(crate) fn vendor(&self, address: PciAddress) -> Result<Option<u32>, SysfsError> {
        self.hexadecimal(&format!("{}/vendor", folder(address)))
    }

    /// Whether a device is on its bus.
    pub(crate) fn has_device(&self, device: &Device) -> Result<bool, SysfsError> {
        self.exists(&device_folder(device)?)
    }

    /// The physical function of a virtual one, and all of its virtual functions; none if this is none.
    pub(crate) fn siblings(&self, address: PciAddress) -> Result<Option<Siblings>, SysfsError> {
        let Some(pf) = self.link_to_pci(&format!("{}/physfn", folder(address)))? else { return Ok(None) };
        Ok(Some((pf, self.virtual_functions(&folder(pf))?)))
    }

    fn virtual_functions(&self, folder: &str) -> Result<BTreeMap<u16, PciAddress>, SysfsError> {
        let mut vfs = BTreeMap::new();
        for name in self.list(folder)? {
            let Some(index) = name.strip_prefix("virtfn").and_then(|index| index.parse().ok()) else { continue };
            if let Some(vf) = self.link_to_pci(&format!("{folder}/{name}"))? {
                vfs.insert(index, vf);
            }
        }
        Ok(vfs)
    }

    /// The addresses of all PCI functions.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn pci_functions(&self) -> Result<BTreeSet<PciAddress>, SysfsError> {
        Ok(self.list("bus/pci/devices")?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The netdevs of a device that are in this network namespace.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn netdevs_of(&self, device: &Device) -> Result<BTreeSet<String>, SysfsError> {
        Ok(self.list(&format!("{}/net", device_folder(device)?))?.into_iter().collect())
    }

    /// The NICs of this host that can have virtual functions: the PCI functions of class 02, whatever drives them, and
    /// what else netdevs stand on.
    ///
    /// # Errors
    /// If something of a NIC cannot be read. What goes while it is read is left out, and so are netdevs that cannot be read.
    pub fn sriov_nics(&self) -> Result<Vec<SriovNic>, SysfsError> {
        let mut devices: BTreeSet<Device> = BTreeSet::new();
        for address in self.pci_functions()? {
            if self.hexadecimal(&format!("{}/class", folder(address)))?.is_some_and(|class| class >> 16 == 2) {
                devices.insert(address.into());
            }
        }
        devices.extend(self.netdevs(|_, _| {})?.into_iter().filter_map(|netdev| netdev.device));
        let mut nics = Vec::new();
        for device in devices {
            let folder = device_folder(&device)?;
            let Some(num_vfs) = self.number(&format!("{folder}/sriov_numvfs"))? else { continue };
            nics.push(SriovNic {
                driver: self.link(&format!("{folder}/driver"))?,
                total_vfs: self.number(&format!("{folder}/sriov_totalvfs"))?,
                num_vfs,
                netdevs: self.netdevs_of(&device)?,
                device,
            });
        }
        Ok(nics)
    }
}
