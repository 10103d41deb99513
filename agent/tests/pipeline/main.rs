//! The pipeline: its flows as text, and what a real switch does with packets by them. The switch is ovs-vswitchd with the
//! dummy datapath in a private directory; it needs no privilege, but `ovs-vswitchd`, `ovsdb-server` and `ovs-ofctl` in
//! `PATH`: without them the tests fail and say so. `INSTA_UPDATE=always cargo test -p vifd --test pipeline` writes the
//! text anew.

// The functions that the tests share are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod counts;
mod floods;
mod frames;
mod golden;
mod scene;
mod sessions;
mod spoofs;
mod switch;
mod traces;
