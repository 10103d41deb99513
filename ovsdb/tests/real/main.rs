//! The library against a real ovsdb-server in a private directory. Needs Debian's openvswitch-switch and
//! openvswitch-pki; a test that does not find a program fails and names it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod connections;
mod following;
mod ovs;
mod transactions;
