//! Which netdev represents a function on its NIC's switch, and which function a netdev represents.
//!
//! ```text
//!   FunctionAddress ──Sysfs::sought──► Sought ──representor(ports, netdevs)──► Representor
//!                     (who is meant)            devlink's ports of the device
//!                                               if it has any of functions; else
//!                                               phys_switch_id and phys_port_name
//! ```
//!
//! [`Sought`] is found out by reading sysfs, and holds as long as PCI functions do not come and go; the rest is a pure function of devlink's ports and of netdevs, so that a host
//! with many functions reads both once. Netdevs are never told by their own names: udev and people rename them.
//!
//! The number of a physical function is what is hard. devlink says it (`pfnum`), and so do most names of ports. A PCI
//! address does not: its last digit is that number on bare metal, mostly, and another one in a guest that was given the
//! function. Where two physical functions share one switch (a bond of two ports, cards with one switch for all), a wrong
//! number would be another guest's port. So what is not certain is [`Representor::Ambiguous`].

mod by_devlink;
mod by_sysfs;
mod name;
mod reverse;

use std::collections::{BTreeMap, BTreeSet};

pub use name::{PortName, UnknownPortName};
pub use reverse::{Represented, Uplink, uplink};

use crate::{Device, FunctionAddress, FunctionNumber, FunctionPart, NetdevFacts, PciAddress, Port, Sysfs, SysfsError};

/// Whose representor is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// A function that may have one.
    Function(SoughtFunction),
    /// This is a physical function of this host: the netdev of its port is its uplink, see [`uplink`].
    NotVirtual(PciAddress),
    /// The function is not on this host, now.
    Absent,
}

/// A function that may have a representor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoughtFunction {
    /// The device whose switch has its port: the physical function, or a devlink instance by name.
    pub device: Device,
    /// The external controller that has the function.
    pub controller: Option<u32>,
    /// The number of its physical function.
    pub pf: PfNumber,
    /// Which part of that.
    pub part: FunctionPart,
    /// The vendor's other physical functions on this host: who else may be on the same switch. Those of one card are on
    /// one bus on bare metal, and anywhere in a guest.
    pub neighbours: Vec<Neighbour>,
}

/// The number of a physical function, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PfNumber {
    /// It is said.
    Known(u16),
    /// It is the function's digit in a PCI address, and may be wrong.
    Digit(u16),
}

/// A physical function beside another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: PciAddress,
    /// How many virtual functions it has.
    pub num_vfs: u32,
}

/// Which netdev represents a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Representor {
    /// This one.
    Found(Found),
    /// None yet: the switch has no port for it, or the port no netdev in this network namespace.
    NotYet,
    /// One of these, perhaps; a guess could be the port of another's function.
    Ambiguous {
        /// The netdevs that may be it, by name.
        candidates: BTreeSet<String>,
        /// What is in doubt.
        doubt: Doubt,
    },
    /// There is no switch: the device is in legacy mode, or its netdevs are in another network namespace.
    NotSwitchdev(Device),
    /// This is a physical function of this host, which has an uplink and no representor here.
    NotVirtual(PciAddress),
    /// The function is not on this host, now.
    Absent,
}

/// A representor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The netdev's name at that moment.
    pub netdev: String,
    /// Its index.
    pub ifindex: u32,
    /// The function in devlink's terms.
    pub function: FunctionAddress,
    /// How it was found.
    pub how: How,
}

/// How a representor was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// devlink has a port for the function.
    Devlink {
        /// The port's index on its device.
        port: u32,
    },
    /// By `phys_switch_id` and `phys_port_name`.
    Sysfs {
        /// What `phys_port_name` says.
        port_name: String,
    },
}

/// Why a representor is not certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Several physical functions share the switch, and the names of ports do not say which is whose.
    #[error("several physical functions share the switch, and the names of its ports do not say whose they are")]
    SharedSwitch,
    /// The ports are numbered by other physical functions than the PCI address says.
    #[error("the ports are of physical functions with other numbers than the PCI address has")]
    OtherNumbers,
    /// Several ports say that they are it.
    #[error("several ports say that they are it")]
    Several,
}

impl Sysfs {
    /// Whose representor `address` asks for.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn sought(&self, address: &FunctionAddress) -> Result<Sought, SysfsError> {
        // Functions that are known to be virtual ones.
        let mut siblings = BTreeMap::new();
        let (device, controller, pf, part) = match address {
            FunctionAddress::Pci(address) => {
                let Some((pf, vfs)) = self.siblings(*address)? else {
                    let here = self.has_device(&(*address).into())?;
                    return Ok(if here { Sought::NotVirtual(*address) } else { Sought::Absent });
                };
                siblings = vfs;
                // Without a number it is on its way, in or out.
                let Some((vf, _)) = siblings.iter().find(|(_, vf)| *vf == address) else { return Ok(Sought::Absent) };
                (Device::from(pf), None, PfNumber::Digit(pf.function.into()), FunctionPart::Vf(*vf))
            }
            FunctionAddress::Port { device, function: FunctionNumber { controller, pf, part } } => {
                if !self.has_device(device)? {
                    return Ok(Sought::Absent);
                }
                (device.clone(), *controller, PfNumber::Known(*pf), *part)
            }
        };
        let neighbours = self.neighbours(&device, &siblings.into_values().collect())?;
        Ok(Sought::Function(SoughtFunction { device, controller, pf, part, neighbours }))
    }

    /// The netdev that represents a function; `ports` are devlink's and `netdevs` are [`Sysfs::netdevs`], both of the same
    /// network namespace.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn representor(
        &self,
        address: &FunctionAddress,
        ports: &[Port],
        netdevs: &[NetdevFacts],
    ) -> Result<Representor, SysfsError> {
        Ok(self.sought(address)?.representor(ports, netdevs))
    }

    /// The other physical functions on this host that can have virtual ones and are of the vendor of a device; `virtual_ones`
    /// are known to be none.
    fn neighbours(&self, device: &Device, virtual_ones: &BTreeSet<PciAddress>) -> Result<Vec<Neighbour>, SysfsError> {
        let Some(own) = pci(device) else { return Ok(Vec::new()) };
        let vendor = self.vendor(own)?;
        let mut neighbours = Vec::new();
        for address in self.pci_functions()? {
            // Most functions of a host are virtual ones, which cannot have any.
            if address != own
                && !virtual_ones.contains(&address)
                && let Some(num_vfs) = self.num_vfs(&address.into())?
                && self.vendor(address)? == vendor
            {
                neighbours.push(Neighbour { address, num_vfs });
            }
        }
        Ok(neighbours)
    }
}

impl Sought {
    /// The netdev that represents it. Pure: `ports` are devlink's, of all devices, and `netdevs` are
    /// [`Sysfs::netdevs`], both of the same network namespace.
    #[must_use]
    pub fn representor(&self, ports: &[Port], netdevs: &[NetdevFacts]) -> Representor {
        match self {
            // devlink does not know the representors of every driver that has devlink.
            Sought::Function(function) => function.by_devlink(ports).unwrap_or_else(|| function.by_sysfs(netdevs)),
            Sought::NotVirtual(address) => Representor::NotVirtual(*address),
            Sought::Absent => Representor::Absent,
        }
    }
}

impl SoughtFunction {
    /// The number of the physical function, where the ports that are surely the device's own are of the physical functions
    /// `seen`. None if that is not certain. `have_ports` are the devices that have ports for functions themselves.
    fn pf_number(&self, seen: &BTreeSet<u16>, have_ports: &BTreeSet<Device>) -> Option<u16> {
        let digit = match self.pf {
            PfNumber::Known(pf) => return Some(pf),
            PfNumber::Digit(digit) => digit,
        };
        let mut seen = seen.iter().copied();
        match (seen.len(), seen.next()) {
            (0, _) => Some(digit),
            // All ports are of one physical function with another number: that is the device, which has another number
            // than digit, unless a neighbour can be it, whose ports this device has because one switch is for both.
            (1, Some(only)) if only != digit => {
                let can_be = |neighbour: &Neighbour| u16::from(neighbour.address.function) == only;
                let ours = self
                    .neighbours
                    .iter()
                    .filter(|neighbour| can_be(neighbour))
                    .all(|neighbour| have_ports.contains(&neighbour.address.into()));
                ours.then_some(only)
            }
            (_, first) => (first == Some(digit) || seen.any(|pf| pf == digit)).then_some(digit),
        }
    }

    fn found(&self, pf: u16, netdev: &str, ifindex: u32, how: How) -> Representor {
        let function = FunctionNumber { controller: self.controller, pf, part: self.part };
        Representor::Found(Found {
            netdev: netdev.to_owned(),
            ifindex,
            function: FunctionAddress::Port { device: self.device.clone(), function },
            how,
        })
    }
}

/// The PCI address of a device that is a PCI function.
fn pci(device: &Device) -> Option<PciAddress> {
    if device.bus == "pci" { device.dev.parse().ok() } else { None }
}

fn ambiguous<'a>(candidates: impl IntoIterator<Item = &'a str>, doubt: Doubt) -> Representor {
    Representor::Ambiguous { candidates: candidates.into_iter().map(str::to_owned).collect(), doubt }
}
