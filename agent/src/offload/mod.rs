//! Proof that the flows of offloaded VIFs are in hardware: how many of each VIF's flows in the datapath are, and why the
//! others are not. What reads is apart from what decides, which is pure:
//!
//! * `flow`: a line of `dpctl/dump-flows`
//! * `ground`: what is expected of which VIF, and what is known of settings and ports
//! * `reason`: why a flow is in software
//! * `proof`: whose a flow is; what all of a VIF's flows say of it
//! * `watch`: the task that looks, every few seconds and only while something is expected (ADR 18)

mod flow;
mod ground;
mod proof;
mod reason;
#[cfg(test)]
mod tests;
mod watch;

pub use self::flow::{Action, DatapathFlow, Key, LONGEST_LINE, Offloaded};
pub use self::ground::{Datapath, Expectation, Expectations, Ground, Port};
pub use self::proof::{OffloadCounts, Proof, Proofs, Tally, prove};
pub use self::reason::Reason;
pub use self::watch::Watch;
