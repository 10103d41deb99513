//! The library against a real ovs-vswitchd with its dummy datapath, in a private directory and without privileges. Needs
//! Debian's openvswitch-switch and openvswitch-pki; a test that does not find a program fails and names it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod bundles;
mod connections;
mod ovs;
mod watching;
