//! The switches of managed bridges over OpenFlow: what can be asked of them, and the backend that asks. What a flow is,
//! and how it is said to a switch, is the library `flows`; which ones there should be is the planner's business.
//!
//! ```text
//!   backend (fleet)   a task for each managed bridge that is in the database, and one view of all
//!   dial              the way to a switch, which may come back
//!   switch            one bridge: its session, what is told of its flows, batches
//!   picture           what was told, sorted by owners
//!   batch             the order in which the operations of a batch are sent, and what became of each
//! ```

mod batch;
mod dial;
mod fleet;
mod picture;
mod switch;

use std::fmt;

use flows::message::PacketOut;
use flows::{FlowCommand, FlowMod, GroupCommand, GroupMod, MeterCommand, MeterMod};

pub use self::batch::Stage;
pub use self::fleet::{OpenFlow, SwitchSession};
pub(in crate::backend) use self::picture::Picture;

/// What can be asked of a switch. The operations of a batch for one bridge are one atomic bundle; zones, meters
/// and announcements aside: see [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowOp {
    /// Name of the bridge.
    pub bridge: String,
    /// What to do there.
    pub change: FlowChange,
}

/// What is done on a switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FlowChange {
    /// A flow is added, changed or deleted, the one of this very identity.
    Flow(FlowMod),
    /// A group is.
    Group(GroupMod),
    /// A meter is.
    Meter(MeterMod),
    /// The datapath forgets the connections of a zone that a VIF is about to get.
    FlushZone(u16),
    /// A packet is sent when all else is done, such as a guest's announcement of where it is now.
    Announce(PacketOut),
}

impl fmt::Display for FlowOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}: {}", self.bridge, self.change)
    }
}

impl fmt::Display for FlowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowChange::Flow(change) => match change.command {
                FlowCommand::Add => write!(f, "add flow {}", change.flow),
                FlowCommand::Modify | FlowCommand::ModifyStrict => write!(f, "change flow {}", change.flow),
                FlowCommand::Delete | FlowCommand::DeleteStrict => {
                    let flow = &change.flow;
                    write!(f, "delete flow table={}, priority={} {}", flow.table, flow.priority, flow.matching)
                }
            },
            FlowChange::Group(change) => match change.command {
                GroupCommand::Add => write!(f, "add group {}", change.group),
                GroupCommand::Modify | GroupCommand::AddOrModify => write!(f, "change group {}", change.group),
                GroupCommand::Delete => write!(f, "delete group {}", change.group.id),
            },
            FlowChange::Meter(change) => match change.command {
                MeterCommand::Add => write!(f, "add meter {}", change.meter),
                MeterCommand::Modify => write!(f, "change meter {}", change.meter),
                MeterCommand::Delete => write!(f, "delete meter {}", change.meter.id),
            },
            FlowChange::FlushZone(zone) => write!(f, "forget the connections of zone {zone}"),
            FlowChange::Announce(_) => write!(f, "announce the guest"),
        }
    }
}
