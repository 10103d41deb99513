//! OpenFlow as Open vSwitch speaks it. It knows nothing of VIFs.
//!
//! So far: the frame of every message ([`Header`], [`Frames`]). Matches, actions, the flow table and sessions
//! join it later.

mod frame;

pub use frame::{Frames, Header, InvalidFrame, VERSION};
