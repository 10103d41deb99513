//! What the tests against real daemons are made of. The tests themselves are in `tests/`, one file
//! for each promise of the project; nothing in here asserts anything.

pub mod lab;
