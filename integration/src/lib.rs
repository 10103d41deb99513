//! What the tests against real daemons are made of. The tests themselves are in `tests/`, one file
//! for each promise of the project; nothing in `lab` asserts anything. `chaos` does: it is the
//! harness that does harm at random moments, with the oracle that looks at what is left.

pub mod chaos;
pub mod lab;
