//! devlink, representors and the addresses of PCI functions: the kernel's interface to NICs with a switch in them, in the way of
//! rust-netlink's crates. It knows nothing of what the ports are used for.
//!
//! What is said by the kernel is plain data: [`Device`], [`Port`], [`Eswitch`]; [`PciAddress`] names functions.

#![allow(dead_code, reason = "the requests that use the codec come next")]

mod device;
mod eswitch;
mod pci;
mod port;
mod wire;

pub use device::{Device, InvalidDevice};
pub use eswitch::{Eswitch, EswitchChange, EswitchMode, InlineMode, InvalidMode};
pub use pci::{InvalidPciAddress, PciAddress};
pub use port::{
    Capabilities, Capability, Flavour, FunctionChange, FunctionOpState, FunctionState, Netdev, NewSubFunction, Port,
    PortFunction, PortHandle, PortType, Split,
};
pub use wire::Malformed;
