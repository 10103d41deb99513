//! The library against a real ovsdb-server in a private directory. Needs Debian's openvswitch-switch and
//! openvswitch-pki; a test that does not find a program fails and names it.

mod connections;
mod following;
mod ovs;
mod transactions;
