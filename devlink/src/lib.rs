//! devlink, representors and the addresses of PCI functions.
//!
//! So far: [`PciAddress`]. The generic netlink family, eswitch modes and representors join it later.

mod pci;

pub use pci::{InvalidPciAddress, PciAddress};
