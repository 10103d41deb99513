//! A managed bridge: whether its flows may be vifd's, what makes it a bridge of flows, and the flows that all VIFs on it
//! share.

use std::collections::BTreeSet;

use super::super::compare::Work;
use super::super::pipeline::{self, Cookie, tables};
use super::super::settings::Owner;
use super::super::{Inputs, OPENFLOW, OVSDB};
use super::memory::group_of;
use super::sharers;
use crate::backend::Party;
use crate::backend::openflow::FlowOp;
use crate::backend::ovs::{OvsOp, SECURE, no_in_band};
use crate::model::Bridge;

/// The version that is spoken, as `Bridge.protocols` has it.
const PROTOCOL: &str = "OpenFlow14";

/// How things are with the switch of a managed bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Condition {
    /// Flows can be made.
    Usable,
    /// It is not there yet, or cannot be seen.
    Unseen,
    /// It is about to become a bridge that forwards by flows alone, by which it loses them all.
    Unsecured,
    /// Somebody else has it; the sentence says who.
    Claimed(String),
}

impl Condition {
    /// How things are with a bridge.
    pub(in crate::plan) fn of(inputs: &Inputs<'_>, name: &str) -> Condition {
        let settings = inputs.settings;
        let (Some(managed), Some(ovs)) = (settings.bridges.get(name), inputs.observed.ovs.ready()) else {
            return Condition::Unseen;
        };
        let Some(bridge) = ovs.bridges.get(name) else { return Condition::Unseen };
        let claimed = |what: String| Condition::Claimed(format!("bridge {name} {what}"));
        let ours = match settings.owner(&bridge.external_ids) {
            Owner::Us { .. } => true,
            Owner::Nobody => false,
            Owner::Other(who) | Owner::Later(who) => return claimed(format!("belongs to {who}")),
        };
        if !bridge.protocols.is_empty() && !bridge.protocols.contains(PROTOCOL) {
            return claimed(format!("does not speak {PROTOCOL} (its column protocols)"));
        }
        if !managed.takeover {
            if !bridge.controllers.is_empty() {
                return claimed("has a controller (bridge.takeover)".to_owned());
            }
            if ovs.ovn_bridges.contains(name) {
                return claimed("is OVN's (external_ids:ovn-bridge; bridge.takeover)".to_owned());
            }
            if !ours && bridge.fail_mode.as_deref() != Some(SECURE) {
                let what = "is not of vifd's making and forwards without flows (fail_mode; bridge.takeover)";
                return claimed(what.to_owned());
            }
        }
        if (ours || managed.takeover) && !is_secure(bridge) {
            return Condition::Unsecured;
        }
        let Some(state) = inputs.observed.flows.get(name).and_then(|view| view.ready()) else {
            return Condition::Unseen;
        };
        let foreign: usize = state.foreign.values().map(|set| set.len()).sum();
        if !ours && !managed.takeover && foreign > 0 {
            return claimed(format!(
                "is not of vifd's making and has {foreign} flows of somebody else (bridge.takeover)"
            ));
        }
        Condition::Usable
    }
}

/// What is there of the flows that all on a bridge share.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Common {
    /// Those that every bridge has.
    pub(super) complete: bool,
    /// Those of the members of groups that rules name.
    pub(super) groups: bool,
}

/// Whether what stands at a place is a network's and no VIF's.
fn is_shared(place: tables::Place) -> bool {
    [tables::FLOOD, tables::SHARED_ADDRESS, tables::ELSEWHERE].contains(&place)
}

fn is_secure(bridge: &Bridge) -> bool {
    let in_band = no_in_band().iter().any(|(key, value)| bridge.other_config.get(key) != Some(value));
    bridge.fail_mode.as_deref() == Some(SECURE) && !in_band
}

impl Work<'_> {
    pub(super) fn condition(&self, bridge: &str) -> Condition {
        self.switches.conditions.get(bridge).cloned().unwrap_or(Condition::Unseen)
    }

    /// Makes the managed bridges that are missing, and bridges of flows of those that are not.
    pub(in crate::plan) fn managed_bridges(&mut self) {
        let Inputs { observed, settings, orders, holds, .. } = self.inputs;
        let Some(ovs) = observed.ovs.ready() else { return };
        if orders.paused || holds.in_force(Party::All, OVSDB, self.now).is_some() {
            return;
        }
        let mut ops = Vec::new();
        for (name, managed) in &settings.bridges {
            match ovs.bridges.get(name.as_str()) {
                None if self.inserts(name) || ovs.ports.contains_key(name.as_str()) => {}
                None => ops.push(OvsOp::InsertBridge {
                    name: name.clone(),
                    datapath_type: managed.datapath_type.clone(),
                    external_ids: settings.marks(None, false),
                    secure: true,
                }),
                Some(bridge) if self.condition(name) == Condition::Unsecured => {
                    let ours = matches!(settings.owner(&bridge.external_ids), Owner::Us { .. });
                    let marks = if ours { settings.guard() } else { Default::default() };
                    ops.push(OvsOp::SecureBridge { uuid: bridge.uuid, name: name.clone(), marks });
                }
                Some(_) => {}
            }
        }
        self.emit(None, Vec::new(), ops);
    }

    /// The flows that a bridge has whatever is on it, and those of the members of groups; answers what of it is there.
    pub(super) fn common_flows(&mut self, bridge: &str) -> Result<Common, String> {
        let tag = self.tag();
        let Some(state) = self.state(bridge) else { return Ok(Common::default()) };
        let common = self.switches.common(tag);
        if let Some(clash) = self.clash(bridge, state, &common) {
            return Err(clash);
        }
        let ops = self.bring_to(bridge, &common, state.owned.get(&Cookie::bridge(tag).0));
        let complete = ops.is_empty();
        self.share(&sharers(bridge, Cookie::bridge(tag)), ops);
        let groups = pipeline::groups(tag, &self.switches.groups.members);
        if let Some(clash) = self.clash(bridge, state, &groups) {
            return Err(clash);
        }
        let ops = self.bring_to(bridge, &groups, state.owned.get(&Cookie::groups(tag).0));
        let groups = ops.is_empty();
        self.share(&sharers(bridge, Cookie::groups(tag)), ops);
        Ok(Common { complete, groups })
    }

    /// Adds operations that are for several VIFs, unless such were refused these lately.
    pub(super) fn share(&mut self, party: &Party, ops: Vec<FlowOp>) {
        self.switches.lacking += ops.len();
        let held = self.inputs.holds.in_force(party.clone(), OPENFLOW, self.now).is_some();
        if !self.inputs.orders.paused && !held {
            self.emit_flows(party, ops);
        }
    }

    /// Takes away what nobody wants any more on a bridge, of all that carries our tag or has a number of ours.
    pub(super) fn sweep_flows(&mut self, bridge: &str, limbo: &BTreeSet<u32>, kept: &BTreeSet<Cookie>) {
        let settings = self.inputs.settings;
        let tag = self.tag();
        let Some(state) = self.state(bridge) else { return };
        let mut ops = Vec::new();
        for (cookie, set) in &state.owned {
            let of_all = *cookie == Cookie::bridge(tag).0 || *cookie == Cookie::groups(tag).0;
            let somebodys = kept.contains(&Cookie(*cookie)) || self.switches.holds(bridge, Cookie(*cookie));
            // Of a port that stays without a record it is not known what its network is.
            let may_be_needed = !limbo.is_empty() && set.values().any(|flow| is_shared(tables::Place::of(flow)));
            if !of_all && !somebodys && !may_be_needed {
                ops.extend(self.bring_to(bridge, &[], Some(set)));
            }
        }
        // With a group or a meter go the flows that name it, whoever's they are.
        let foreign = || state.foreign.values().flat_map(|set| set.values());
        let owned = || state.owned.values().flat_map(|set| set.values());
        let mut used: BTreeSet<u32> = self.switches.held.groups_on(bridge).collect();
        // Our own that name one nobody wants go in the same bundle, unless they are kept for a port without a record.
        let naming = foreign().chain(owned().filter(|_| !limbo.is_empty()));
        let actions = naming.flat_map(|flow| flow.instructions.apply.iter().chain(&flow.instructions.write));
        used.extend(actions.filter_map(group_of));
        let unused = state.groups.iter().filter(|(id, _)| settings.groups.contains(**id) && !used.contains(*id));
        ops.extend(unused.map(|(id, group)| {
            let group = flows::Group { id: *id, kind: group.kind, buckets: Box::default() };
            super::group_op(bridge, flows::GroupCommand::Delete, group)
        }));
        let used: BTreeSet<u32> = owned().chain(foreign()).filter_map(|flow| flow.instructions.meter).collect();
        let is_used = |id: &u32| used.contains(id) || self.switches.held.has_meter(bridge, *id);
        let unused = state.meters.iter().filter(|(id, _)| settings.meters.contains(**id) && !is_used(id));
        ops.extend(unused.map(|(id, meter)| {
            let meter = flows::Meter { id: *id, flags: meter.flags, bands: Box::default() };
            let command = flows::MeterCommand::Delete;
            super::on(bridge, crate::backend::openflow::FlowChange::Meter(flows::MeterMod { command, meter }))
        }));
        self.share(&Party::All, ops);
    }
}
