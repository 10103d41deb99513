//! Ports of a NIC's switch: which there are, and what they are the port of. The function behind one is `behind.rs`'s, octets are
//! `codec.rs`'s.

use std::fmt;

use crate::device::Device;

mod behind;
mod codec;
#[cfg(test)]
mod tests;

pub use behind::{Capabilities, Capability, FunctionChange, FunctionOpState, FunctionState, PortFunction};

/// A devlink port (`DEVLINK_CMD_PORT_GET`, `devlink port show`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Bus of the device that has it.
    pub bus: String,
    /// Name of that device on the bus.
    pub dev: String,
    /// Its number among the device's ports: any number, and another one when it was made anew.
    pub index: u32,
    /// What it is set to (`enum devlink_port_type`).
    pub kind: PortType,
    /// What it leads to.
    pub flavour: Flavour,
    /// The link that is its representor or its uplink. A port that is just being made has none yet, one that is of another network
    /// namespace shows none.
    pub netdev: Option<Netdev>,
    /// The InfiniBand device in its place.
    pub ibdev: Option<String>,
    /// How many lanes a physical port has.
    pub lanes: Option<u32>,
    /// Whether it can be split.
    pub splittable: Option<bool>,
    /// The function behind it, which is not on this host if the flavour says `external`. None for ports without one.
    pub function: Option<PortFunction>,
}

/// A link, as a port names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Netdev {
    /// Its index (`ifindex`).
    pub index: u32,
    /// Its name at that moment.
    pub name: String,
}

/// `enum devlink_port_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortType {
    /// Not decided yet: neither a link nor an InfiniBand device is there.
    #[default]
    NotSet,
    /// To be found out by the NIC.
    Auto,
    /// Ethernet.
    Ethernet,
    /// InfiniBand.
    Infiniband,
    /// One that this library does not know.
    Other(u16),
}

/// What a port leads to (`enum devlink_port_flavour`) with what identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// A port that faces the network.
    Physical {
        /// Its number as it is written on the NIC, in a manner of speaking.
        number: Option<u32>,
        /// Of what it is a part.
        split: Option<Split>,
    },
    /// The CPU port of a switch.
    Cpu {
        /// Its number.
        number: Option<u32>,
    },
    /// Between two switches (Distributed Switch Architecture).
    Dsa {
        /// Its number.
        number: Option<u32>,
    },
    /// A physical function.
    PciPf {
        /// Controller: 0 for the NIC's own host, others on SmartNICs.
        controller: u32,
        /// The function is not of the host that has the switch.
        external: bool,
        /// Number of the physical function.
        pf: u16,
    },
    /// A virtual function.
    PciVf {
        /// As in [`Flavour::PciPf`].
        controller: u32,
        /// As in [`Flavour::PciPf`].
        external: bool,
        /// Its physical function.
        pf: u16,
        /// Its number within that: as of `virtfnN` in sysfs.
        vf: u16,
    },
    /// A sub-function.
    PciSf {
        /// As in [`Flavour::PciPf`].
        controller: u32,
        /// As in [`Flavour::PciPf`].
        external: bool,
        /// Its physical function.
        pf: u16,
        /// Its number, as the one who made it chose.
        sf: u32,
    },
    /// A virtual port that faces its user: what a function's own driver shows.
    Virtual,
    /// In the switch, but not connected.
    Unused,
    /// The driver says nothing.
    Unset,
    /// One that this library does not know (`DEVLINK_ATTR_PORT_FLAVOUR`).
    Other(u16),
}

/// Which part of a physical port (`DEVLINK_ATTR_PORT_SPLIT_GROUP`, `…_SPLIT_SUBPORT_NUMBER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Split {
    /// The same for all parts of one port.
    pub group: u32,
    /// Its number among them.
    pub subport: Option<u32>,
}

/// The device and the index of a port: printed `pci/0000:03:00.0/65535`, as devlink(8) does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortHandle {
    /// The device that has it.
    pub device: Device,
    /// See [`Port::index`].
    pub index: u32,
}

/// A sub-function that is to be made (`DEVLINK_CMD_PORT_NEW`, since Linux 5.12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSubFunction {
    /// The device whose switch gets the port.
    pub device: Device,
    /// Physical function to which it is to belong.
    pub pf: u16,
    /// Its number; the NIC chooses one where it can, if there is none.
    pub sf: Option<u32>,
    /// Its controller, if it is not the NIC's own host.
    pub controller: Option<u32>,
}

impl Port {
    /// What requests about it name it by.
    #[must_use]
    pub fn handle(&self) -> PortHandle {
        PortHandle { device: self.device(), index: self.index }
    }

    /// The device that has it.
    #[must_use]
    pub fn device(&self) -> Device {
        Device { bus: self.bus.clone(), dev: self.dev.clone() }
    }
}

impl fmt::Display for PortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.index)
    }
}

/// As devlink(8) has it: `eth`.
impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortType::NotSet => f.write_str("notset"),
            PortType::Auto => f.write_str("auto"),
            PortType::Ethernet => f.write_str("eth"),
            PortType::Infiniband => f.write_str("ib"),
            PortType::Other(number) => write!(f, "type {number}"),
        }
    }
}

/// The name that devlink(8) has for it: `pcivf`.
impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Physical { .. } => "physical",
            Flavour::Cpu { .. } => "cpu",
            Flavour::Dsa { .. } => "dsa",
            Flavour::PciPf { .. } => "pcipf",
            Flavour::PciVf { .. } => "pcivf",
            Flavour::PciSf { .. } => "pcisf",
            Flavour::Virtual => "virtual",
            Flavour::Unused => "unused",
            Flavour::Unset => "unset",
            Flavour::Other(number) => return write!(f, "flavour {number}"),
        })
    }
}

/// As a sentence has it: `sub-function 88 of pf 0 on pci/0000:03:00.0`.
impl fmt::Display for NewSubFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sf {
            Some(sf) => write!(f, "sub-function {sf}")?,
            None => f.write_str("a sub-function")?,
        }
        if let Some(controller) = self.controller {
            write!(f, " of controller {controller}")?;
        }
        write!(f, " of pf {} on {}", self.pf, self.device)
    }
}
