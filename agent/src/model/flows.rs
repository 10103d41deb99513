//! What a switch says: its flows by their owners, its groups and meters. Written by the OpenFlow backend alone, read by
//! the planner alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use flows::{Flow, FlowId, Group, Meter};

use super::{Table, View};

/// Every managed bridge that is in the database, by name. A clone costs a reference count.
pub type SwitchStates = Arc<BTreeMap<String, View<FlowState>>>;

/// Flows of one cookie by what makes them the same flow.
pub type FlowSet = BTreeMap<FlowId, Arc<Flow>>;

/// What is on one switch. A flow says whose it is by its cookie: 16 bits for the agent, 48 bits for the VIF or network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowState {
    /// Flows with our tag, by cookie. A set is another one only when a flow in it is.
    pub owned: Table<u64, FlowSet>,
    /// Everybody else's, by cookie.
    pub foreign: Table<u64, FlowSet>,
    /// Groups by number, whosever they are.
    pub groups: Table<u32, Group>,
    /// Meters by number, whosever they are.
    pub meters: Table<u32, Meter>,
    /// What the switch can do.
    pub limits: Limits,
}

/// What a switch can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The greatest number that a meter may have; 0 where the datapath has no meters.
    pub max_meters: u32,
}

impl FlowState {
    /// The flow of this identity, whosever it is.
    #[must_use]
    pub fn flow(&self, id: &FlowId) -> Option<&Arc<Flow>> {
        self.owned.values().chain(self.foreign.values()).find_map(|set| set.get(id))
    }
}
