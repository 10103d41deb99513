//! What takes a kernel that a machine for tests need not have: each test is a scene that is played in the VM
//! (`docs/testing.md`), all of them in one boot. `cargo test -p vifd-integration --test in_vm NAME` plays one.

mod devlink;
mod links;
mod macvtaps;
mod nic_backend;
mod nics;
mod offload;
mod openvswitch;
mod sriov;
mod sysfs;
mod vf_settings;
