//! What to send to a switch so that what is ours there becomes what is wanted, and nothing else changes. Pure: nothing is
//! sent here, and nothing is read.
//!
//! Order matters, because a deleted group or meter takes the flows with it that use it, and because Open vSwitch takes no
//! meters in a bundle:
//!
//! ```text
//!   meters new or different            │ Changes::meters_first, Handle::meters
//!   groups new or different            ┐
//!   flows that are not wanted          │ Changes::bundle, Handle::bundle
//!   flows new or different             │
//!   groups that are not wanted         ┘
//!   meters that are not wanted         │ Changes::meters_last, Handle::meters
//! ```

#[cfg(test)]
mod properties;

use std::collections::{BTreeMap, HashMap};

use crate::message::Message;
use crate::{
    Flow, FlowCommand, FlowFlags, FlowMod, Group, GroupCommand, GroupMod, Instructions, Match, Meter, MeterCommand,
    MeterMod,
};

/// Flags that a flow keeps; the others are about the message that adds it.
const KEPT_FLAGS: u16 = FlowFlags::SEND_FLOW_REM.0 | FlowFlags::NO_PKT_COUNTS.0 | FlowFlags::NO_BYT_COUNTS.0;

/// What on a switch is ours. Nothing else is changed or deleted.
pub trait Owner {
    /// Whether flows of this cookie are ours.
    fn owns_cookie(&self, cookie: u64) -> bool;
    /// Whether the group of this id is ours, whoever made it.
    fn owns_group(&self, id: u32) -> bool;
    /// Whether the meter of this id is ours, whoever made it.
    fn owns_meter(&self, id: u32) -> bool;
}

/// Flows, groups and meters: what is wanted on a switch, or what is there.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a, F> {
    /// Flows; no two of those wanted have the same identity.
    pub flows: F,
    /// Groups; no two have the same id.
    pub groups: &'a [Group],
    /// Meters; no two have the same id.
    pub meters: &'a [Meter],
}

/// Something that is wanted and that somebody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// A flow of somebody else has the identity of a wanted one, which would replace it.
    Flow {
        /// What is wanted.
        wanted: Box<Flow>,
        /// What is there.
        there: Box<Flow>,
    },
    /// The id of a wanted group is not ours.
    Group(u32),
    /// The id of a wanted meter is not ours.
    Meter(u32),
}

/// What to send. Without clashes the switch then has what is wanted; a wanted flow that clashes is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// To be sent first, and executed before the rest is sent.
    pub meters_first: Vec<MeterMod>,
    /// To be sent as one bundle.
    pub bundle: Vec<Message>,
    /// To be sent after the bundle is committed.
    pub meters_last: Vec<MeterMod>,
    /// What cannot be had.
    pub clashes: Vec<Clash>,
}

impl Changes {
    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meters_first.is_empty() && self.bundle.is_empty() && self.meters_last.is_empty()
    }
}

/// Compares what is wanted with what is there.
pub fn diff<'a, W, T>(wanted: &Tables<'a, W>, there: &Tables<'a, T>, owner: &impl Owner) -> Changes
where
    W: IntoIterator<Item = &'a Flow> + Copy,
    T: IntoIterator<Item = &'a Flow> + Copy,
{
    let mut changes = Changes::default();
    let meters = by_id(wanted.meters, there.meters, |meter| meter.id, |id| owner.owns_meter(id));
    let change = |command, meter: &Meter| MeterMod { command, meter: meter.clone() };
    changes.meters_first.extend(meters.modified.into_iter().map(|meter| change(MeterCommand::Modify, meter)));
    changes.meters_first.extend(meters.added.into_iter().map(|meter| change(MeterCommand::Add, meter)));
    changes.meters_last.extend(meters.removed.into_iter().map(|meter| MeterMod {
        command: MeterCommand::Delete,
        meter: Meter { bands: Box::default(), ..meter.clone() },
    }));
    changes.clashes.extend(meters.foreign.into_iter().map(|meter| Clash::Meter(meter.id)));

    let groups = by_id(wanted.groups, there.groups, |group| group.id, |id| owner.owns_group(id));
    let change = |command, group: &Group| Message::GroupMod(GroupMod { command, group: group.clone() });
    changes.bundle.extend(groups.modified.into_iter().map(|group| change(GroupCommand::Modify, group)));
    changes.bundle.extend(groups.added.into_iter().map(|group| change(GroupCommand::Add, group)));
    let FlowChanges { changes: flows, clashes } =
        diff_flows(wanted.flows, there.flows, |cookie| owner.owns_cookie(cookie));
    changes.bundle.extend(flows.into_iter().map(Message::FlowMod));
    changes.clashes.extend(clashes);
    changes.bundle.extend(groups.removed.into_iter().map(|group| {
        Message::GroupMod(GroupMod {
            command: GroupCommand::Delete,
            group: Group { buckets: Box::default(), ..group.clone() },
        })
    }));
    changes.clashes.extend(groups.foreign.into_iter().map(|group| Clash::Group(group.id)));
    changes
}

/// How wanted things with ids differ from those that are there.
struct ById<'a, T> {
    added: Vec<&'a T>,
    modified: Vec<&'a T>,
    removed: Vec<&'a T>,
    /// Wanted with an id that is not ours.
    foreign: Vec<&'a T>,
}

fn by_id<'a, T: PartialEq>(
    wanted: &'a [T],
    there: &'a [T],
    id: impl Fn(&T) -> u32,
    owned: impl Fn(u32) -> bool,
) -> ById<'a, T> {
    let mut left: BTreeMap<u32, &T> = there.iter().filter(|t| owned(id(t))).map(|t| (id(t), t)).collect();
    let mut changes = ById { added: Vec::new(), modified: Vec::new(), removed: Vec::new(), foreign: Vec::new() };
    for want in wanted {
        let id = id(want);
        match left.remove(&id) {
            _ if !owned(id) => changes.foreign.push(want),
            None => changes.added.push(want),
            Some(found) if found != want => changes.modified.push(want),
            Some(_) => {}
        }
    }
    changes.removed.extend(left.into_values());
    changes
}

/// How flows differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowChanges {
    /// What to send, in this order: deletions first, and each kind by table, priority and match.
    pub changes: Vec<FlowMod>,
    /// [`Clash::Flow`]s.
    pub clashes: Vec<Clash>,
}

/// Compares wanted flows with those that are there. The work grows with their number alone; what is unchanged costs no
/// allocation.
///
/// - A flow that is there, ours and not wanted: delete-strict, restricted to its cookie, so that a flow of somebody else
///   that came in its place stays.
/// - A wanted one that does something else than the one there: modify-strict, restricted likewise. Its counters go on.
/// - A wanted one that is not there, or differs from the one there in its cookie, timeouts, importance or flags, which
///   modify-strict leaves as they are: add. It replaces the one there at once; no packet misses both.
pub fn diff_flows<'a>(
    wanted: impl IntoIterator<Item = &'a Flow>,
    there: impl IntoIterator<Item = &'a Flow>,
    owned: impl Fn(u64) -> bool,
) -> FlowChanges {
    type Identity<'a> = (u8, u16, &'a Match);
    let identity = |flow: &'a Flow| -> Identity<'a> { (flow.table, flow.priority, &flow.matching) };
    let mut missing: HashMap<Identity<'a>, &'a Flow> = wanted.into_iter().map(|flow| (identity(flow), flow)).collect();
    let (mut deleted, mut changed, mut clashes) = (Vec::new(), Vec::new(), Vec::new());
    for flow in there {
        let ours = owned(flow.cookie);
        match missing.remove(&identity(flow)) {
            None if ours => deleted.push(flow),
            None => {}
            Some(want) if !ours => clashes.push((want, flow)),
            Some(want) => match difference(want, flow) {
                None => {}
                Some(command) => changed.push((command, want)),
            },
        }
    }
    changed.extend(missing.into_values().map(|want| (FlowCommand::Add, want)));
    deleted.sort_unstable_by_key(|flow| identity(flow));
    changed.sort_unstable_by_key(|(_, flow)| identity(flow));
    clashes.sort_unstable_by_key(|(want, _)| identity(want));
    let deletions = deleted.into_iter().map(|flow| FlowMod {
        cookie_mask: u64::MAX,
        ..FlowMod::new(
            FlowCommand::DeleteStrict,
            Flow {
                table: flow.table,
                priority: flow.priority,
                matching: flow.matching.clone(),
                cookie: flow.cookie,
                instructions: Instructions::default(),
                idle_timeout: 0,
                hard_timeout: 0,
                importance: 0,
                flags: FlowFlags::default(),
            },
        )
    });
    let changes = changed.into_iter().map(|(command, flow)| FlowMod {
        cookie_mask: if command == FlowCommand::Add { 0 } else { u64::MAX },
        ..FlowMod::new(command, flow.clone())
    });
    let clash = |(wanted, there): (&Flow, &Flow)| Clash::Flow {
        wanted: Box::new(wanted.clone()),
        there: Box::new(there.clone()),
    };
    FlowChanges { changes: deletions.chain(changes).collect(), clashes: clashes.into_iter().map(clash).collect() }
}

/// What makes of the flow that is there the one that is wanted.
fn difference(want: &Flow, there: &Flow) -> Option<FlowCommand> {
    let kept = |flow: &Flow| {
        let Flow { cookie, idle_timeout, hard_timeout, importance, flags, .. } = flow;
        (*cookie, *idle_timeout, *hard_timeout, *importance, flags.0 & KEPT_FLAGS)
    };
    if kept(want) != kept(there) {
        Some(FlowCommand::Add)
    } else if want.instructions != there.instructions {
        Some(FlowCommand::ModifyStrict)
    } else {
        None
    }
}
