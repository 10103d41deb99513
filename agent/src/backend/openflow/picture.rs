//! What a switch told of its flows, sorted by owners: kept in step event by event, so that what did not change is the
//! very same object in the next view.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flows::message::{UpdateEvent, UpdatedFlow};
use flows::{Flow, FlowFlags, FlowId, Group, Meter};

use crate::model::{FlowSet, FlowState, Limits, Table};

/// The flows of one switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::backend) struct Picture {
    /// The upper 16 bits of our cookies.
    owner: u16,
    state: FlowState,
    /// The cookie of every flow: what replaces a flow does not tell the cookie of the old one.
    cookies: HashMap<FlowId, u64>,
    /// How many flows of ours went since groups and meters were looked at. Those may have gone too, of which nothing is
    /// told when a switch drops everything, as when its `fail_mode` changes.
    pub(in crate::backend) removed: usize,
}

impl Picture {
    pub(in crate::backend) fn new(owner: u16) -> Self {
        Picture { owner, ..Picture::default() }
    }

    /// What the planner is shown.
    pub(in crate::backend) fn state(&self) -> FlowState {
        self.state.clone()
    }

    /// The flow of this identity.
    pub(in crate::backend) fn flow(&self, id: &FlowId) -> Option<&Arc<Flow>> {
        let cookie = self.cookies.get(id)?;
        self.table(*cookie).get(cookie)?.get(id)
    }

    /// Takes in what happened to a flow.
    pub(in crate::backend) fn take(&mut self, update: UpdatedFlow) {
        let UpdatedFlow { event, table, priority, matching, cookie, idle_timeout, hard_timeout, instructions, .. } =
            update;
        let id = FlowId { table, priority, matching };
        if event == UpdateEvent::Removed {
            self.removed += usize::from(self.is_ours(cookie));
            self.remove(&id);
            return;
        }
        let matching = id.matching.clone();
        // A monitor tells neither importance nor flags, and ours have none.
        let (importance, flags) = (0, FlowFlags::default());
        let flow =
            Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags };
        self.put(id, flow);
    }

    /// Whether there are the same flows in both, and ours do the same. What those of others do does not matter, and may be told
    /// in other words than it is dumped.
    pub(in crate::backend) fn agrees_with(&self, other: &Picture) -> bool {
        let same = |id: &FlowId| match (self.flow(id), other.flow(id)) {
            (Some(a), Some(b)) => {
                (a.idle_timeout, a.hard_timeout, &a.instructions) == (b.idle_timeout, b.hard_timeout, &b.instructions)
            }
            _ => false,
        };
        self.cookies == other.cookies && self.state.owned.values().flat_map(|set| set.keys()).all(same)
    }

    /// A flow is there.
    pub(in crate::backend) fn put(&mut self, id: FlowId, flow: Flow) {
        let cookie = flow.cookie;
        if let Some(before) = self.cookies.insert(id.clone(), cookie)
            && before != cookie
        {
            self.drop_from(before, &id);
        }
        Arc::make_mut(self.table_mut(cookie).entry(cookie).or_default()).insert(id, Arc::new(flow));
    }

    /// A flow is not there any more.
    pub(in crate::backend) fn remove(&mut self, id: &FlowId) {
        if let Some(cookie) = self.cookies.remove(id) {
            self.drop_from(cookie, id);
        }
    }

    /// Nor are all of which this is true.
    pub(in crate::backend) fn remove_where(&mut self, gone: impl Fn(&Flow) -> bool) {
        let sets = self.state.owned.values().chain(self.state.foreign.values());
        let ids: Vec<FlowId> =
            sets.flat_map(|set| set.iter()).filter(|(_, flow)| gone(flow)).map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.remove(id));
    }

    fn drop_from(&mut self, cookie: u64, id: &FlowId) {
        let table = self.table_mut(cookie);
        let Some(set) = table.get_mut(&cookie) else { return };
        let flows = Arc::make_mut(set);
        flows.remove(id);
        if flows.is_empty() {
            table.remove(&cookie);
        }
    }

    /// The groups and meters that there are now.
    pub(in crate::backend) fn put_others(&mut self, groups: Vec<Group>, meters: Vec<Meter>, limits: Limits) {
        keep_same(&mut self.state.groups, groups.into_iter().map(|group| (group.id, group)));
        keep_same(&mut self.state.meters, meters.into_iter().map(|meter| (meter.id, meter)));
        self.state.limits = limits;
        self.removed = 0;
    }

    /// Takes from the picture before what is the same in both, so that it is seen to be.
    pub(in crate::backend) fn recognise(&mut self, before: &Picture) {
        for (now, before) in
            [(&mut self.state.owned, &before.state.owned), (&mut self.state.foreign, &before.state.foreign)]
        {
            let same = |set: &Arc<FlowSet>, cookie: &u64| before.get(cookie).filter(|known| known == &set).cloned();
            let recognised: BTreeMap<u64, Arc<FlowSet>> = now
                .iter()
                .map(|(cookie, set)| (*cookie, same(set, cookie).unwrap_or_else(|| Arc::clone(set))))
                .collect();
            let all = recognised.len() == before.len()
                && recognised
                    .iter()
                    .all(|(cookie, set)| before.get(cookie).is_some_and(|known| Arc::ptr_eq(known, set)));
            *now = if all { before.clone() } else { recognised.into() };
        }
        keep_shared(&mut self.state.groups, &before.state.groups);
        keep_shared(&mut self.state.meters, &before.state.meters);
    }

    fn table(&self, cookie: u64) -> &Table<u64, FlowSet> {
        if self.is_ours(cookie) { &self.state.owned } else { &self.state.foreign }
    }

    fn table_mut(&mut self, cookie: u64) -> &mut Table<u64, FlowSet> {
        if self.is_ours(cookie) { &mut self.state.owned } else { &mut self.state.foreign }
    }

    fn is_ours(&self, cookie: u64) -> bool {
        cookie >> 48 == u64::from(self.owner)
    }
}

/// Brings a table to these rows; a row that did not change stays the very one that it was.
fn keep_same<T: PartialEq>(table: &mut Table<u32, T>, rows: impl Iterator<Item = (u32, T)>) {
    let now: Table<u32, T> = rows.map(|(id, row)| (id, Arc::new(row))).collect();
    let before = std::mem::replace(table, now);
    keep_shared(table, &before);
}

fn keep_shared<T: PartialEq>(now: &mut Table<u32, T>, before: &Table<u32, T>) {
    if now == before {
        *now = before.clone();
        return;
    }
    for (id, row) in now.iter_mut() {
        if let Some(known) = before.get(id).filter(|known| known == &row) {
            *row = Arc::clone(known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(event: UpdateEvent, cookie: u64, text: &str) -> UpdatedFlow {
        let Flow { table, priority, matching, instructions, idle_timeout, hard_timeout, .. } = text.parse().unwrap();
        UpdatedFlow { event, reason: 0, table, priority, matching, cookie, idle_timeout, hard_timeout, instructions }
    }

    const OURS: u64 = 0x7654 << 48;

    #[test]
    fn a_change_makes_another_set_of_its_owner_alone() {
        let mut picture = Picture::new(0x7654);
        picture.take(update(UpdateEvent::Initial, OURS | 1, "table=1,priority=5,in_port=1 actions=drop"));
        picture.take(update(UpdateEvent::Initial, OURS | 2, "table=1,priority=5,in_port=2 actions=drop"));
        picture.take(update(UpdateEvent::Initial, 3, "table=1,priority=5,in_port=3 actions=drop"));
        let before = picture.state();
        assert_eq!((before.owned.len(), before.foreign.len()), (2, 1));
        picture.take(update(UpdateEvent::Modified, OURS | 1, "table=1,priority=5,in_port=1 actions=output:7"));
        let after = picture.state();
        let same = |cookie| Arc::ptr_eq(&before.owned[&(OURS | cookie)], &after.owned[&(OURS | cookie)]);
        assert!(!same(1) && same(2));
        assert!(before.foreign.is(&after.foreign));
        picture.take(update(UpdateEvent::Removed, OURS | 2, "table=1,priority=5,in_port=2 actions=drop"));
        assert_eq!(picture.state().owned.len(), 1);
    }

    #[test]
    fn what_of_ours_goes_casts_doubt_on_groups_and_meters_until_they_are_looked_at() {
        let mut picture = Picture::new(0x7654);
        for cookie in [3, OURS | 1] {
            let text = format!("table=1,in_port={} actions=drop", cookie & 3);
            picture.take(update(UpdateEvent::Added, cookie, &text));
            assert_eq!(picture.removed, 0);
            picture.take(update(UpdateEvent::Removed, cookie, &text));
        }
        assert_eq!(picture.removed, 1);
        picture.put_others(Vec::new(), Vec::new(), Limits::default());
        assert_eq!(picture.removed, 0);
    }

    #[test]
    fn a_flow_that_was_not_told_of_is_missed() {
        let told = |events: &[(UpdateEvent, u64, &str)]| {
            let mut picture = Picture::new(0x7654);
            events.iter().for_each(|(event, cookie, text)| picture.take(update(*event, *cookie, text)));
            picture
        };
        let is = (UpdateEvent::Initial, OURS | 1, "table=1,in_port=1 actions=drop");
        let foreign = (UpdateEvent::Initial, 3, "table=1,in_port=3 actions=drop");
        let all = told(&[is, foreign]);
        assert!(all.agrees_with(&told(&[foreign, is])));
        for other in [
            told(&[is]),
            told(&[foreign]),
            told(&[is, foreign, (UpdateEvent::Added, OURS | 1, "table=1,in_port=2 actions=drop")]),
            told(&[is, foreign, (UpdateEvent::Modified, OURS | 1, "table=1,in_port=1 actions=output:7")]),
            told(&[is, foreign, (UpdateEvent::Added, 9, "table=1,in_port=1 actions=drop")]),
        ] {
            assert!(!all.agrees_with(&other) && !other.agrees_with(&all));
        }
        // In whatever words what somebody else's does is told.
        let words = (UpdateEvent::Modified, 3, "table=1,in_port=3 actions=output:7");
        assert!(all.agrees_with(&told(&[is, foreign, words])));
    }

    #[test]
    fn who_replaces_a_flow_has_it() {
        let mut picture = Picture::new(0x7654);
        picture.take(update(UpdateEvent::Initial, OURS | 1, "table=1,in_port=1 actions=drop"));
        picture.take(update(UpdateEvent::Added, 9, "table=1,in_port=1 actions=drop"));
        let state = picture.state();
        assert!(state.owned.is_empty());
        assert_eq!(state.foreign[&9].len(), 1);
    }

    #[test]
    fn what_is_the_same_after_looking_again_is_the_very_same() {
        let see = |second: &str| {
            let mut picture = Picture::new(0x7654);
            picture.take(update(UpdateEvent::Initial, OURS | 1, "table=1,in_port=1 actions=drop"));
            picture.take(update(UpdateEvent::Initial, OURS | 2, second));
            picture.put_others(vec!["group_id=1,type=all".parse().unwrap()], Vec::new(), Limits::default());
            picture
        };
        let before = see("table=1,in_port=2 actions=drop");
        let mut again = see("table=1,in_port=2 actions=drop");
        again.recognise(&before);
        assert!(again.state().owned.is(&before.state().owned) && again.state().groups.is(&before.state().groups));
        let mut other = see("table=1,in_port=2 actions=output:1");
        other.recognise(&before);
        let (was, is) = (before.state(), other.state());
        assert!(Arc::ptr_eq(&was.owned[&(OURS | 1)], &is.owned[&(OURS | 1)]));
        assert!(!Arc::ptr_eq(&was.owned[&(OURS | 2)], &is.owned[&(OURS | 2)]));
    }
}
