//! What is wanted and what is seen: plain data, no I/O, no parsing of wire forms (see `record`).

mod desired;
mod flows;
mod link;
mod names;
mod nic;
mod observed;
mod rule;
pub mod table;
mod vif;

pub use desired::Desired;
pub use flows::{FlowSet, FlowState, Limits, SwitchStates};
pub use link::{BridgeConfig, DeviceAccess, DeviceOwner, Link, LinkKind, device_name};
pub use names::{AgentId, IFNAMSIZ, InvalidMac, MacAddr, Mark, VifId, cut_name, nursery};
pub use nic::{
    Association, AssociationState, DriverBefore, FunctionPort, Nic, NicFunction, NicPort, NicState, PciFunction,
    Representor, StationProfile, Transition, Undo, VfChange, VfCount, VfSettings,
};
pub use observed::{Bridge, FileOwner, Interface, LinkState, Observed, OvsState, Port, Qos, SocketState, View};
pub use rule::{Direction, Ethertype, InvalidProtocol, Protocol, Rule};
pub use table::Table;
pub use vif::{
    AddressPair, DatapathOffload, DevType, DirectMode, FixedIp, Instance, Network, OpenVSwitchProfile, Parent, Policy,
    PortProfile, ProfileKind, Rate, Route, Subnet, VhostUserMode, Vif, VifKind,
};
