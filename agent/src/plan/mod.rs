//! The decision: what is wanted against what is seen, and the operations that make the difference go away.
//!
//! Pure and synchronous: no I/O, no clock (`now` is an argument), no logging, ordered maps only.

mod verdict;

pub use verdict::{BackendName, Facts, Judgement, Missing, Verdict};
