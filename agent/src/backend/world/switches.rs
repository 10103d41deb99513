//! The switches of a host in memory: flows, groups and meters as Open vSwitch keeps them, as far as an agent can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flows::{
    Action, Flow, FlowCommand, FlowId, FlowMod, Group, GroupCommand, GroupKind, GroupMod, MeterCommand, MeterMod,
};
use ovsdb::text::Text;

use super::{Refusal, World};
use crate::backend::openflow::{FlowChange, FlowOp, Picture, Stage};
use crate::backend::{Attributed, Outcome};
use crate::model::{FlowState, Limits, SwitchStates, View};

impl World {
    /// What the switches say of the bridges that are seen.
    #[must_use]
    pub fn flows(&self) -> SwitchStates {
        let seen =
            self.managed.iter().filter(|name| self.ovs.vswitchd_alive && self.ovs.bridges.contains_key(name.as_str()));
        let view = |name: &String| match self.switches.get(name) {
            _ if self.ovs.restoring => View::Syncing,
            Some(switch) => View::Ready(Arc::new(self.with_limits(switch.state()))),
            None => View::Ready(Arc::new(self.with_limits(FlowState::default()))),
        };
        Arc::new(seen.map(|name| (name.clone(), view(name))).collect())
    }

    fn with_limits(&self, state: FlowState) -> FlowState {
        FlowState { limits: Limits { max_meters: self.max_meters }, ..state }
    }

    /// Somebody puts a flow on a bridge.
    pub fn add_flow(&mut self, bridge: &str, flow: Flow) {
        self.switch_of(bridge).put(FlowId::of(&flow), flow);
    }

    /// Somebody deletes a flow.
    pub fn delete_flow(&mut self, bridge: &str, id: &FlowId) {
        self.switch_of(bridge).remove(id);
    }

    /// Somebody makes a group, or changes it.
    pub fn add_group(&mut self, bridge: &str, group: Group) {
        let switch = self.switch_of(bridge);
        let state = switch.state();
        let mut groups: BTreeMap<u32, Group> =
            state.groups.iter().map(|(id, group)| (*id, (**group).clone())).collect();
        groups.insert(group.id, group);
        let meters = state.meters.values().map(|meter| (**meter).clone()).collect();
        switch.put_others(groups.into_values().collect(), meters, Limits::default());
    }

    /// Somebody deletes a group, and by it all flows that use it.
    pub fn delete_group(&mut self, bridge: &str, id: u32) {
        let group = Group { id, kind: GroupKind::All, buckets: Box::default() };
        // One that is not there is gone.
        let _ = self.group_mod(bridge, &GroupMod { command: GroupCommand::Delete, group });
    }

    /// Somebody changes a bridge's `fail_mode`: without a controller that drops all flows.
    pub fn set_fail_mode(&mut self, name: &str, mode: Option<&str>) {
        let Ok(bridge) = self.bridge(name) else { return };
        let mode = mode.map(Text::from);
        if bridge.fail_mode != mode {
            bridge.fail_mode = mode;
            let groups = self.switch_of(name).state();
            let others = groups.groups.values().map(|group| (**group).clone()).collect();
            let meters = groups.meters.values().map(|meter| (**meter).clone()).collect();
            let mut switch = Picture::new(self.owner);
            switch.put_others(others, meters, Limits::default());
            self.switches.insert(name.to_owned(), Arc::new(switch));
        }
    }

    /// ovs-vswitchd ends and starts again: flows, groups and meters are gone, ports get their numbers anew.
    pub fn restart_switches(&mut self) {
        self.switches.clear();
    }

    fn switch_of(&mut self, bridge: &str) -> &mut Picture {
        let owner = self.owner;
        Arc::make_mut(self.switches.entry(bridge.to_owned()).or_insert_with(|| Arc::new(Picture::new(owner))))
    }

    /// Does a batch as the OpenFlow backend does: for each bridge zones and meters first, one bundle without those who are
    /// refused, meters last.
    pub fn apply_flows(&mut self, batch: &[Attributed<FlowOp>]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Untried; batch.len()];
        let bridges: BTreeSet<&str> = batch.iter().map(|op| op.op.bridge.as_str()).collect();
        for bridge in bridges {
            if !self.ovs.bridges.contains_key(bridge) || !self.ovs.vswitchd_alive {
                continue;
            }
            let mut places: Vec<usize> = (0..batch.len()).filter(|place| batch[*place].op.bridge == bridge).collect();
            places.sort_by_key(|place| Stage::of(&batch[*place].op.change));
            let stage = |place: &usize| Stage::of(&batch[*place].op.change);
            let mut refused = BTreeSet::new();
            let (first, rest): (Vec<_>, Vec<_>) =
                places.into_iter().partition(|place| stage(place) <= Stage::MetersFirst);
            let (bundle, last): (Vec<_>, Vec<_>) = rest.into_iter().partition(|place| stage(place) < Stage::MetersLast);
            for place in first {
                outcomes[place] = self.one(bridge, &batch[place]);
                if outcomes[place] != Outcome::Done {
                    refused.insert(&batch[place].party);
                }
            }
            loop {
                let bundle = || bundle.iter().filter(|place| !refused.contains(&batch[**place].party));
                let mut next = self.clone();
                let failure = bundle().find_map(|place| match next.one(bridge, &batch[*place]) {
                    Outcome::Done => None,
                    outcome => Some((*place, outcome)),
                });
                let Some((place, outcome)) = failure else {
                    *self = next;
                    bundle().for_each(|place| outcomes[*place] = Outcome::Done);
                    break;
                };
                outcomes[place] = outcome;
                refused.insert(&batch[place].party);
            }
            for place in last {
                if !refused.contains(&batch[place].party) {
                    outcomes[place] = self.one(bridge, &batch[place]);
                }
            }
        }
        outcomes
    }

    fn one(&mut self, bridge: &str, op: &Attributed<FlowOp>) -> Outcome {
        let done = match &op.op.change {
            FlowChange::Flow(change) => self.flow_mod(bridge, change),
            FlowChange::Group(change) => self.group_mod(bridge, change),
            FlowChange::Meter(change) => self.meter_mod(bridge, change),
            FlowChange::FlushZone(zone) => {
                self.flushed_zones.push(*zone);
                Ok(())
            }
            FlowChange::Announce(packet) => {
                self.announced.push((bridge.to_owned(), packet.data.clone()));
                return Outcome::Done;
            }
        };
        match done {
            Ok(()) => {
                self.writes += 1;
                Outcome::Done
            }
            Err(refusal) => refusal,
        }
    }

    fn flow_mod(&mut self, bridge: &str, change: &FlowMod) -> Result<(), Refusal> {
        let fail = |words: &str| Err(Outcome::Failed(words.to_owned()));
        let id = FlowId::of(&change.flow);
        let restricted = |flow: &Flow| (flow.cookie ^ change.flow.cookie) & change.cookie_mask == 0;
        if let Some(words) =
            self.refused_cookies.get(&change.flow.cookie).filter(|_| change.command == FlowCommand::Add)
        {
            return fail(words);
        }
        let switch = self.switch_of(bridge);
        let state = switch.state();
        let uses = &change.flow.instructions;
        if uses.meter.is_some_and(|meter| !state.meters.contains_key(&meter)) {
            return fail("OFPMMFC_UNKNOWN_METER");
        }
        if uses.apply.iter().any(|action| matches!(action, Action::Group(id) if !state.groups.contains_key(id))) {
            return fail("OFPBAC_BAD_OUT_GROUP");
        }
        match change.command {
            FlowCommand::Add => switch.put(id, change.flow.clone()),
            FlowCommand::ModifyStrict => {
                if let Some(flow) = switch.flow(&id).filter(|flow| restricted(flow)).cloned() {
                    let instructions = change.flow.instructions.clone();
                    switch.put(id, Flow { instructions, ..flow.as_ref().clone() });
                }
            }
            FlowCommand::DeleteStrict => {
                if switch.flow(&id).is_some_and(|flow| restricted(flow)) {
                    switch.remove(&id);
                }
            }
            FlowCommand::Modify | FlowCommand::Delete => return fail("an agent names what it changes"),
        }
        Ok(())
    }

    fn group_mod(&mut self, bridge: &str, change: &GroupMod) -> Result<(), Refusal> {
        let switch = self.switch_of(bridge);
        let state = switch.state();
        let id = change.group.id;
        let there = state.groups.contains_key(&id);
        match change.command {
            GroupCommand::Add if there => return Err(Outcome::Failed("OFPGMFC_GROUP_EXISTS".to_owned())),
            GroupCommand::Modify if !there => return Err(Outcome::Failed("OFPGMFC_UNKNOWN_GROUP".to_owned())),
            _ => {}
        }
        let mut groups: BTreeMap<u32, Group> =
            state.groups.iter().map(|(id, group)| (*id, (**group).clone())).collect();
        if change.command == GroupCommand::Delete {
            groups.remove(&id);
            switch.remove_where(|flow| flow.instructions.apply.contains(&Action::Group(id)));
        } else {
            groups.insert(id, change.group.clone());
        }
        let meters = state.meters.values().map(|meter| (**meter).clone()).collect();
        switch.put_others(groups.into_values().collect(), meters, Limits::default());
        Ok(())
    }

    fn meter_mod(&mut self, bridge: &str, change: &MeterMod) -> Result<(), Refusal> {
        let id = change.meter.id;
        if id == 0 || id > self.max_meters {
            return Err(Outcome::Failed("OFPMMFC_INVALID_METER".to_owned()));
        }
        let switch = self.switch_of(bridge);
        let state = switch.state();
        let there = state.meters.contains_key(&id);
        match change.command {
            MeterCommand::Add if there => return Err(Outcome::Failed("OFPMMFC_METER_EXISTS".to_owned())),
            MeterCommand::Modify if !there => return Err(Outcome::Failed("OFPMMFC_UNKNOWN_METER".to_owned())),
            _ => {}
        }
        let mut meters: BTreeMap<u32, _> = state.meters.iter().map(|(id, meter)| (*id, (**meter).clone())).collect();
        if change.command == MeterCommand::Delete {
            meters.remove(&id);
            switch.remove_where(|flow| flow.instructions.meter == Some(id));
        } else {
            meters.insert(id, change.meter.clone());
        }
        let groups = state.groups.values().map(|group| (**group).clone()).collect();
        switch.put_others(groups, meters.into_values().collect(), Limits::default());
        Ok(())
    }
}
