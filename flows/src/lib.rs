//! OpenFlow as Open vSwitch speaks it. It knows nothing of VIFs.
//!
//! - What a switch does: [`Flow`] of a [`Match`] and [`Instructions`] of [`Action`]s, [`Group`], [`Meter`]; as octets
//!   of OpenFlow 1.4 with the extensions of OVS 3.1, and as the text of `ovs-ofctl`. All readers are pure functions of
//!   their input, whatever it is; what they do not know survives as octets.
//! - What is said to it: [`message`], framed by [`Frames`].
//! - Saying it: [`session::Session`] keeps a connection to an [`endpoint`], and a [`session::Handle`] asks and changes.
//! - What there is to be said: [`diff`] compares what is wanted with what is there; [`FlowTable`] follows a switch.

pub mod action;
mod count;
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

pub use ::tls;
pub use action::Action;
pub use count::FlowCount;
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
