//! devlink, representors and the addresses of PCI functions: the kernel's interface to NICs with a switch in them, in the way of
//! rust-netlink's crates. It knows nothing of what the ports are used for.
//!
//! What is said by the kernel is plain data: [`Device`], [`Port`], [`Eswitch`]. A [`FunctionAddress`] names a function of a NIC, and
//! [`Sysfs`] has what the kernel shows there of PCI functions and netdevs. With both, a [`Sought`] finds the netdev that represents
//! a function.

#![allow(dead_code, reason = "the requests that use the codec come next")]

mod device;
mod eswitch;
mod function;
mod link_request;
mod pci;
mod port;
pub mod port_profile;
mod representor;
mod sysfs;
pub mod vf;
mod wire;

pub use device::{Device, InvalidDevice};
pub use eswitch::{Eswitch, EswitchChange, EswitchMode, InlineMode, InvalidMode};
pub use function::{FunctionAddress, FunctionNumber, FunctionPart, InvalidFunctionAddress, WrongPart};
pub use link_request::{LinkError, LinkSocket, Peer, Refusal};
pub use pci::{InvalidPciAddress, PciAddress};
pub use port::{
    Capabilities, Capability, Flavour, FunctionChange, FunctionOpState, FunctionState, Netdev, NewSubFunction, Port,
    PortFunction, PortHandle, PortType, Split,
};
pub use representor::{
    Doubt, Found, How, Neighbour, PfNumber, PortName, Represented, Representor, Sought, SoughtFunction,
    UnknownPortName, Uplink, uplink,
};
pub use sysfs::{Iommu, NetdevFacts, PciFunction, Role, Sriov, SriovNic, Sysfs, SysfsError};
pub use wire::Malformed;
