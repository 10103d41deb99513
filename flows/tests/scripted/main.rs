//! Sessions against a switch that a test plays by hand over an in-memory pipe: what no real switch can be made to do at
//! will. Time is paused, so waits cost nothing and are exact.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod bundles;
mod greeting;
mod requests;
mod stage;
mod watching;
