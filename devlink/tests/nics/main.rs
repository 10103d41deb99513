//! NICs in sysfs trees and lists of devlink ports that are made for the tests, after the kernel's documentation and drivers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod representors;
mod shared_switch;
mod sysfs;
mod tree;
