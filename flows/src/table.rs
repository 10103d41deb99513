//! A set of flows by their identity. How two sets differ is in [`crate::diff`].

use std::collections::HashMap;
use std::collections::hash_map::Values;

use crate::message::{UpdateEvent, UpdatedFlow};
use crate::{Flow, FlowFlags, Match};

/// What makes a flow the same flow, whatever it does and whosever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// What it matches.
    pub matching: Match,
}

impl FlowId {
    /// The identity of a flow.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        Self { table: flow.table, priority: flow.priority, matching: flow.matching.clone() }
    }
}

/// Flows, of which no two have the same identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTable {
    flows: HashMap<FlowId, Flow>,
}

impl FlowTable {
    /// No flows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a flow, and gives the one of its identity that it replaces.
    pub fn insert(&mut self, flow: Flow) -> Option<Flow> {
        self.flows.insert(FlowId::of(&flow), flow)
    }

    /// Removes a flow.
    pub fn remove(&mut self, id: &FlowId) -> Option<Flow> {
        self.flows.remove(id)
    }

    /// The flow of this identity.
    #[must_use]
    pub fn get(&self, id: &FlowId) -> Option<&Flow> {
        self.flows.get(id)
    }

    /// Flows in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// All flows, in no order.
    pub fn iter(&self) -> Values<'_, FlowId, Flow> {
        self.flows.values()
    }

    /// Takes what a flow monitor tells, and gives the flow that was there before. A flow monitor tells neither the
    /// importance nor the flags of a flow, so these are of the flow that was there, or none.
    pub fn update(&mut self, update: UpdatedFlow) -> Option<Flow> {
        let UpdatedFlow { event, table, priority, matching, cookie, idle_timeout, hard_timeout, instructions, .. } =
            update;
        let id = FlowId { table, priority, matching };
        if event == UpdateEvent::Removed {
            return self.remove(&id);
        }
        let known = self.flows.get(&id).filter(|_| event == UpdateEvent::Modified);
        let (importance, flags) = known.map_or((0, FlowFlags::default()), |flow| (flow.importance, flow.flags));
        let matching = id.matching.clone();
        let flow =
            Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags };
        self.flows.insert(id, flow)
    }
}

impl FromIterator<Flow> for FlowTable {
    /// Of flows with the same identity the last one stays.
    fn from_iter<I: IntoIterator<Item = Flow>>(flows: I) -> Self {
        Self { flows: flows.into_iter().map(|flow| (FlowId::of(&flow), flow)).collect() }
    }
}

impl<'a> IntoIterator for &'a FlowTable {
    type Item = &'a Flow;
    type IntoIter = Values<'a, FlowId, Flow>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
