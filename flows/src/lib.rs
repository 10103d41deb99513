//! OpenFlow as Open vSwitch speaks it. It knows nothing of VIFs.
//!
//! So far: the frame of every message ([`Header`], [`Frames`]). Matches, actions, the flow table and sessions
//! join it later.

pub mod action;
pub mod diff;
pub mod endpoint;
mod error;
pub mod field;
mod flow;
mod frame;
mod group;
mod instruction;
mod matching;
pub mod message;
mod meter;
mod port;
pub mod session;
mod table;
mod text;
mod wire;

pub use action::Action;
pub use error::{DecodeError, Fault, TextError};
pub use field::{Field, Oxm, Subfield};
pub use flow::{Flow, FlowCommand, FlowFlags, FlowMod, FlowStats};
pub use frame::{Frames, Header, InvalidFrame, VERSION};
pub use group::{Bucket, Group, GroupCommand, GroupKind, GroupMod};
pub use instruction::Instructions;
pub use matching::{Entry, Match, MatchBuilder, MissingPrerequisite};
pub use meter::{Band, BandKind, Meter, MeterCommand, MeterFlags, MeterMod};
pub use port::PortNo;
pub use table::{FlowId, FlowTable};
pub use text::{Named, PortNames, Unnamed};
