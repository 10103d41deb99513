//! The vifd binary: wiring only.
fn main() {}
