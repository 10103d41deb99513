//! The fault harness: scenarios × faults at random moments, and an oracle that looks at the host after each round.
//!
//! ```text
//!  seed ─► Life: which switch, whose clock, whether vifd is ever ended     (a lab; its rounds share what is on it)
//!            └─ Round 0, 1, 2 …:  acts of a scenario ──┐ at moments within a second
//!                                 faults, with an end ─┴─► all over ─► settled ─► Look ─► oracle
//! ```
//!
//! Everything that is decided comes from the seed: the lives, the scenarios, the faults, their parameters and their
//! moments. What a scenario does depends on the seed and on what is wanted by then, never on what the host did, so a
//! round can be played again alone. How the processes are scheduled cannot be played again.
//!
//! | You are adding | It goes |
//! |---|---|
//! | a fault | a file in `fault/`, a line in [`fault::ALL`] |
//! | a scenario | a file in `scenario/`, a line in [`scenario::ALL`] |
//! | harm done by hand | a line in the table of `harm.rs` |
//! | a kind of guest | a variant of [`Form`] |
//! | a check of the oracle | a function in `oracle.rs`, a line in [`oracle::CHECKS`], a case in its tests |
//!
//! `docs/testing.md` has it at length.

mod campaign;
mod dice;
pub mod fault;
mod harm;
mod life;
mod look;
pub mod oracle;
mod proxy;
mod round;
pub mod scenario;
mod scene;
mod wanted;

pub use campaign::{Campaign, Failure, Tally, line};
pub use dice::Dice;
pub use harm::{Damage, HARMS, Harm};
pub use life::{Clock, Life};
pub use look::{Look, Process};
pub use proxy::{Direction, Flow, Proxy};
pub use round::{Act, Report, Round, Touch};
pub use scene::{Daemons, Scene};
pub use wanted::{Form, Guest, Wanted};
