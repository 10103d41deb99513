//! Which groups and meters a switch's flows name, whosever they are, and which groups its groups send to: kept in step with
//! what is seen, flow set by flow set. What somebody names is not given to somebody else, and does not go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flows::{Action, Flow};

use crate::model::{FlowSet, FlowState};

/// What is named on one switch.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Of which switch, as it was last seen.
    of: Option<Arc<FlowState>>,
    /// How many flows name a group.
    groups: BTreeMap<u32, usize>,
    /// How many flows name a meter.
    meters: BTreeMap<u32, usize>,
    /// The groups that a group's buckets send to, of those that do.
    chains: BTreeMap<u32, BTreeSet<u32>>,
}

impl Usage {
    /// Goes on to what is seen now.
    pub(super) fn follow(&mut self, now: &Arc<FlowState>) {
        let before = self.of.replace(Arc::clone(now)).unwrap_or_default();
        let Usage { groups, meters, chains, .. } = self;
        before.owned.differing(&now.owned, |_, was, is| recount(groups, meters, was, is));
        before.foreign.differing(&now.foreign, |_, was, is| recount(groups, meters, was, is));
        before.groups.differing(&now.groups, |id, _, is| {
            let mut sends_to = BTreeSet::new();
            for bucket in is.into_iter().flat_map(|group| &group.buckets) {
                walk(&bucket.actions, &mut |group| sends_to.extend([group]));
            }
            if sends_to.is_empty() {
                chains.remove(id)
            } else {
                chains.insert(*id, sends_to)
            };
        });
    }

    /// Whether anything names a group.
    pub(super) fn names_group(&self, id: u32) -> bool {
        self.groups.contains_key(&id) || self.chains.values().any(|to| to.contains(&id))
    }

    /// The groups that flows name, in order.
    pub(super) fn groups(&self) -> impl Iterator<Item = &u32> {
        self.groups.keys()
    }

    /// Keeps of groups that are to go those that no group sends to which stays.
    pub(super) fn keep_unchained(&self, going: &mut BTreeSet<u32>) {
        loop {
            let before = going.len();
            for (from, to) in &self.chains {
                if !going.contains(from) {
                    going.retain(|id| !to.contains(id));
                }
            }
            if going.len() == before {
                return;
            }
        }
    }

    /// The meters that flows name, in order.
    pub(super) fn meters(&self) -> impl Iterator<Item = &u32> {
        self.meters.keys()
    }
}

/// The groups that a flow names, in their order.
pub(super) fn groups_of(flow: &Flow) -> Vec<u32> {
    let mut groups = Vec::new();
    walk(&flow.instructions.apply, &mut |group| groups.push(group));
    walk(&flow.instructions.write, &mut |group| groups.push(group));
    groups
}

/// Every group that actions name, and those within them.
fn walk(actions: &[Action], each: &mut impl FnMut(u32)) {
    for action in actions {
        match action {
            Action::Group(id) => each(*id),
            Action::Clone(within) => walk(within, each),
            Action::Conntrack(ct) => walk(&ct.actions, each),
            _ => {}
        }
    }
}

fn recount(
    groups: &mut BTreeMap<u32, usize>,
    meters: &mut BTreeMap<u32, usize>,
    was: Option<&Arc<FlowSet>>,
    is: Option<&Arc<FlowSet>>,
) {
    let flows = |set: Option<&Arc<FlowSet>>| set.map(Arc::clone).unwrap_or_default();
    for flow in flows(is).values() {
        groups_of(flow).into_iter().for_each(|id| *groups.entry(id).or_default() += 1);
        flow.instructions.meter.into_iter().for_each(|id| *meters.entry(id).or_default() += 1);
    }
    for flow in flows(was).values() {
        groups_of(flow).into_iter().for_each(|id| forget_one(groups, id));
        flow.instructions.meter.into_iter().for_each(|id| forget_one(meters, id));
    }
}

fn forget_one(counts: &mut BTreeMap<u32, usize>, id: u32) {
    if let Some(count) = counts.get_mut(&id) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::{FlowId, Group};

    fn state(owned: &[&str], foreign: &[&str], groups: &[&str]) -> Arc<FlowState> {
        let set = |flows: &[&str]| -> FlowSet {
            let flows = flows.iter().map(|text| text.parse::<Flow>().unwrap());
            flows.map(|flow| (FlowId::of(&flow), Arc::new(flow))).collect()
        };
        let groups = groups.iter().map(|text| text.parse::<Group>().unwrap());
        Arc::new(FlowState {
            owned: [(1, Arc::new(set(owned)))].into_iter().collect(),
            foreign: [(2, Arc::new(set(foreign)))].into_iter().collect(),
            groups: groups.map(|group| (group.id, Arc::new(group))).collect(),
            ..FlowState::default()
        })
    }

    #[test]
    fn a_group_is_found_wherever_it_is_named() {
        let mut usage = Usage::default();
        usage.follow(&state(
            &["table=1 actions=group:1", "table=2 actions=clone(clone(group:2))"],
            &["table=3 actions=write_actions(group:3)"],
            &["group_id=9,type=all,bucket=actions=group:4"],
        ));
        let named: Vec<u32> = (0..10).filter(|id| usage.names_group(*id)).collect();
        assert_eq!(named, [1, 2, 3, 4]);
        assert!(usage.groups().eq(&[1, 2, 3]));
    }

    #[test]
    fn what_nobody_names_any_more_is_free() {
        let mut usage = Usage::default();
        let both = ["table=1 actions=meter:7,group:1", "table=2 actions=meter:7,group:1"];
        usage.follow(&state(&both, &[], &[]));
        usage.follow(&state(&both[..1], &[], &[]));
        assert!(usage.names_group(1) && usage.meters().eq(&[7]));
        usage.follow(&state(&[], &[], &[]));
        assert!(!usage.names_group(1) && usage.meters().count() == 0);
    }

    #[test]
    fn a_group_goes_with_the_last_that_sends_to_it() {
        let mut usage = Usage::default();
        let to = |from, to| format!("group_id={from},type=all,bucket=actions=group:{to}");
        usage.follow(&state(&[], &[], &[&to(1, 2), &to(2, 3), &to(5, 6)]));
        let mut going = BTreeSet::from([2, 3, 5, 6]);
        usage.keep_unchained(&mut going);
        assert_eq!(going, BTreeSet::from([5, 6]));
    }
}
