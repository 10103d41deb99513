//! devlink, representors and the addresses of PCI functions: the kernel's interface to NICs with a switch in them, in the way of
//! rust-netlink's crates. It knows nothing of what the ports are used for.
//!
//! [`Devlink`] makes requests, [`Monitor`] hears what is told without a request, [`Ethtool`] has the features of links. What is said
//! is plain data: [`Device`], [`Port`], [`Eswitch`], [`Rate`], [`Reporter`]. A [`FunctionAddress`] names a function of a NIC, and
//! [`Sysfs`] has what the kernel shows there of PCI functions and netdevs. With both, a [`Sought`] finds the netdev that represents
//! a function.
//!
//! Over rtnetlink, by a [`LinkSocket`]: what a physical function is told about its VFs ([`vf`]), and what a switch is asked for a
//! port ([`port_profile`]).

mod conversation;
mod device;
mod error;
mod eswitch;
mod event;
mod features;
mod function;
mod health;
mod link_request;
mod monitor;
mod pci;
mod port;
pub mod port_profile;
mod rate;
mod representor;
mod session;
mod sysfs;
pub mod vf;
mod wire;

pub use device::{Device, DeviceInfo, DeviceStatus, InvalidDevice, ReloadAction, Version};
pub use error::{Error, Extack, RefusedAttribute};
pub use eswitch::{Eswitch, EswitchChange, EswitchMode, InlineMode, InvalidMode};
pub use event::Event;
pub use features::{Ethtool, Features, HW_TC_OFFLOAD, LinkRef};
pub use function::{FunctionAddress, FunctionNumber, FunctionPart, InvalidFunctionAddress, WrongPart};
pub use health::{Reporter, ReporterState};
pub use link_request::{LinkError, LinkSocket, Peer};
pub use monitor::{Monitor, MonitorConfig};
pub use pci::{InvalidPciAddress, PciAddress};
pub use port::{
    Capabilities, Capability, Flavour, FunctionChange, FunctionOpState, FunctionState, Netdev, NewSubFunction, Port,
    PortFunction, PortHandle, PortType, Split,
};
pub use rate::{NewParent, Rate, RateChange, RateHandle};
pub use representor::{
    Doubt, Found, How, Neighbour, PfNumber, PortName, Represented, Representor, Sought, SoughtFunction,
    UnknownPortName, Uplink, uplink,
};
pub use session::Devlink;
pub use sysfs::{Iommu, NetdevFacts, PciFunction, Role, Sriov, SriovNic, Sysfs, SysfsError};
pub use wire::Malformed;
