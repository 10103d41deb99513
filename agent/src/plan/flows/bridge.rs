//! A managed bridge: whether its flows may be vifd's, what makes it a bridge of flows, and the flows that all VIFs on it
//! share.

use std::collections::BTreeSet;
use std::sync::Arc;

use flows::{Action, Bucket, FlowCommand, FlowId, Group, GroupCommand, Meter, MeterCommand, MeterMod};
use ipnet::IpNet;

use super::super::compare::Work;
use super::super::inventory::Inventory;
use super::super::pipeline::{self, Cookie, tables};
use super::super::removal::without;
use super::super::rows::differences;
use super::super::settings::Owner;
use super::super::{Inputs, OPENFLOW, OVSDB};
use super::usage::{Usage, groups_of};
use super::{group_op, on, sharers};
use crate::backend::Party;
use crate::backend::openflow::{FlowChange, FlowOp};
use crate::backend::ovs::{OvsOp, SECURE, no_in_band};
use crate::model::{Bridge, FlowSet, FlowState, OvsState, VifId};

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
        let Some(ovs) = inputs.observed.ovs.ready() else { return Condition::Unseen };
        let Some(managed) = settings.bridges.get(name) else { return Condition::Claimed(left(name)) };
        let Some(bridge) = ovs.bridges.get(name) else { return Condition::Unseen };
        let claimed = |what: String| Condition::Claimed(format!("bridge {name} {what}"));
        let or_takeover = |remedy: &str| format!("{remedy}, or set takeover = true under [[bridge]] {name}");
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
                return claimed(format!("has a controller: {}", or_takeover("take it off")));
            }
            if ovs.ovn_bridges.contains(name) {
                return claimed(format!("is OVN's (external_ids:ovn-bridge): {}", or_takeover("leave it to OVN")));
            }
            if !ours && bridge.fail_mode.as_deref() != Some(SECURE) {
                let what = "was not made by vifd and forwards without flows";
                return claimed(format!("{what}: {}", or_takeover("set fail_mode=secure on it")));
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
            let flows = if foreign == 1 { "1 flow" } else { &format!("{foreign} flows") };
            let what = format!("was not made by vifd and has {flows} of somebody else");
            return claimed(format!("{what}: {}", or_takeover("see who needs them")));
        }
        Condition::Usable
    }
}

/// Bridges that vifd made and kept by flows, before its configuration said otherwise. Their flows are left as they are,
/// and traffic goes by them: to take them away is for somebody who knows what is to be in their place.
pub(super) fn left_behind<'a>(inputs: &'a Inputs<'_>) -> impl Iterator<Item = &'a str> {
    let bridges =
        inputs.observed.ovs.ready().into_iter().flat_map(|ovs| ovs.bridges.values().map(move |row| (ovs, row)));
    let is_left = |(ovs, bridge): &(&OvsState, &Arc<Bridge>)| {
        let settings = inputs.settings;
        is_secure(bridge)
            && bridge.controllers.is_empty()
            && !settings.bridges.contains_key(bridge.name.as_str())
            && !ovs.ovn_bridges.contains(&bridge.name)
            && matches!(settings.owner(&bridge.external_ids), Owner::Us { .. })
    };
    bridges.filter(is_left).map(|(_, bridge)| bridge.name.as_str())
}

fn left(bridge: &str) -> String {
    format!(
        "bridge {bridge} is not managed any more and still goes by the flows of then: 'ovs-vsctl del-fail-mode {bridge}' \
         drops them, or set flows = \"managed\" under [[bridge]] {bridge} again"
    )
}

/// What is there of the flows that all on a bridge share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Common {
    /// Whether everything is.
    pub(super) all: bool,
    /// Whether those that every bridge has are.
    pub(super) complete: bool,
    /// Groups that rules name and of which they are not.
    pub(super) groups: BTreeSet<u32>,
    /// VIFs that rules for such groups do not know as members, although they are.
    pub(super) unlisted: BTreeSet<VifId>,
}

/// Whether what stands at a place is a network's and no VIF's.
fn is_shared(place: tables::Place) -> bool {
    [tables::FLOOD, tables::SHARED_ADDRESS, tables::ELSEWHERE].contains(&place)
}

/// The members, by group and address, that these operations are to make some, of groups that count.
fn missing_members(
    ops: &[FlowOp],
    observed: Option<&Arc<FlowSet>>,
    counts: impl Fn(u32) -> bool,
) -> BTreeSet<(u32, IpNet)> {
    let mut missing = BTreeSet::new();
    for op in ops {
        let FlowChange::Flow(change) = &op.change else { continue };
        if matches!(change.command, FlowCommand::Delete | FlowCommand::DeleteStrict) {
            continue;
        }
        let Some((address, groups)) = pipeline::membership(&change.flow) else { continue };
        let there = observed.and_then(|set| set.get(&FlowId::of(&change.flow)));
        let had = there.and_then(|flow| pipeline::membership(flow)).map(|(_, groups)| groups).unwrap_or_default();
        missing.extend(groups.difference(&had).filter(|id| counts(**id)).map(|id| (*id, address)));
    }
    missing
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
                    // What goes by it is told, and has to be seen for that.
                    if !ours && observed.flows.get(name).is_none_or(|view| view.ready().is_none()) {
                        continue;
                    }
                    let marks = if ours { settings.guard() } else { Default::default() };
                    ops.push(OvsOp::SecureBridge { uuid: bridge.uuid, name: name.clone(), marks });
                }
                Some(_) => {}
            }
        }
        self.emit(None, Vec::new(), ops);
    }

    /// What the configuration says of the whole switch.
    pub(in crate::plan) fn configured_switch(&mut self) {
        let Inputs { observed, settings, orders, holds, .. } = self.inputs;
        let Some(ovs) = observed.ovs.ready() else { return };
        if orders.paused || holds.in_force(Party::All, OVSDB, self.now).is_some() {
            return;
        }
        let other_config = differences(&ovs.other_config, &settings.switch_config);
        if !other_config.is_empty() {
            self.emit(None, Vec::new(), vec![OvsOp::ConfigureSwitch { other_config }]);
        }
    }

    /// The flows that a bridge has whatever is on it, and those of the members of groups; answers what of it is there.
    pub(super) fn common_flows(&mut self, bridge: &str) -> Result<Common, String> {
        let tag = self.tag();
        let Some(state) = self.state(bridge) else { return Ok(Common::default()) };
        if let Some(common) = self.switches.known_common(bridge, tag, state) {
            return Ok(common);
        }
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
        let observed = state.owned.get(&Cookie::groups(tag).0);
        let ops = self.bring_to(bridge, &groups, observed);
        let party = sharers(bridge, Cookie::groups(tag));
        let refused = self.inputs.holds.is_refused(party.clone(), OPENFLOW) || self.inputs.orders.paused;
        // Members come and go, which makes the rules of others no less in force: it is the member itself whom nobody lets in.
        // What all of a group's flows lead to does not, and came with those that the group had then.
        let of = |op: &FlowOp| match &op.change {
            FlowChange::Flow(change) => change.flow.matching.exact(flows::Field::CONJ_ID),
            _ => None,
        };
        let begun: BTreeSet<u32> = ops.iter().filter_map(of).filter_map(|id| u32::try_from(id).ok()).collect();
        // A group that no rule named before is nobody's lack, as long as what makes it one is on its way.
        let counts = |id: u32| refused || !begun.contains(&id);
        let unlisted = self.switches.groups.who_brings(&missing_members(&ops, observed, counts));
        let lacking = match ops.is_empty() {
            false if refused => self.switches.groups.members.keys().copied().collect(),
            _ => begun,
        };
        let all = complete && ops.is_empty();
        self.share(&party, ops);
        Ok(Common { all, complete, groups: lacking, unlisted })
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
    pub(super) fn sweep_flows(&mut self, bridge: &str, limbo: &BTreeSet<u32>, inventory: &Inventory) {
        let settings = self.inputs.settings;
        let Some(state) = self.state(bridge) else { return };
        let mut ops = Vec::new();
        for (cookie, set) in self.strays(bridge, state, inventory) {
            // Of a port that stays without a record it is not known what its network is.
            if !limbo.is_empty() && set.values().any(|flow| is_shared(tables::Place::of(flow))) {
                ops.extend(self.floods_of_limbo(bridge, state, set, limbo));
            } else {
                ops.extend(self.bring_to(bridge, &[], state.owned.get(&cookie)));
            }
        }
        let nothing = Usage::default();
        let usage = self.switches.usage.get(bridge).unwrap_or(&nothing);
        let held = &self.switches.held;
        // With a group or a meter go the flows that name it, whoever's they are. So it goes when none does any more: those
        // of a network may have to stay for now, since others of its changes were refused.
        let nobodys = |id: u32| settings.groups.contains(id) && !held.has_group(bridge, id);
        let unused = without(&state.groups, usage.groups()).map(|(id, _)| *id);
        let mut unused: BTreeSet<u32> = unused.filter(|id| nobodys(*id)).collect();
        usage.keep_unchained(&mut unused);
        ops.extend(unused.iter().filter_map(|id| state.groups.get(id)).map(|group| {
            let group = Group { id: group.id, kind: group.kind, buckets: Box::default() };
            group_op(bridge, GroupCommand::Delete, group)
        }));
        let nobodys = |id: u32| settings.meters.contains(id) && !held.has_meter(bridge, id);
        let unused = without(&state.meters, usage.meters()).filter(|(id, _)| nobodys(**id));
        ops.extend(unused.map(|(id, meter)| {
            let meter = Meter { id: *id, flags: meter.flags, bands: Box::default() };
            on(bridge, FlowChange::Meter(MeterMod { command: MeterCommand::Delete, meter }))
        }));
        self.share(&Party::All, ops);
    }

    /// Takes those out of the floods of a network without VIFs who are no more on it: all but ports without records, and
    /// what its own flows have for its uplink.
    fn floods_of_limbo(&self, bridge: &str, state: &FlowState, set: &FlowSet, limbo: &BTreeSet<u32>) -> Vec<FlowOp> {
        let nobodys =
            |id: &u32| self.inputs.settings.groups.contains(*id) && !self.switches.held.has_group(bridge, *id);
        let groups: BTreeSet<u32> = set.values().flat_map(|flow| groups_of(flow)).filter(nobodys).collect();
        let outputs = set.values().flat_map(|flow| &flow.instructions.apply).filter_map(|action| match action {
            Action::Output { port, .. } => Some(port.0),
            _ => None,
        });
        let stay: BTreeSet<u32> = limbo.iter().copied().chain(outputs).collect();
        let stays = |bucket: &&Bucket| pipeline::served(bucket).is_some_and(|to| stay.contains(&to));
        let fewer = |group: &Arc<Group>| {
            let buckets: Box<[Bucket]> = group.buckets.iter().filter(stays).cloned().collect();
            let group = Group { id: group.id, kind: group.kind, buckets };
            group_op(bridge, GroupCommand::Modify, group)
        };
        let groups = groups.iter().filter_map(|id| state.groups.get(id));
        groups.filter(|group| !group.buckets.iter().all(|bucket| stays(&bucket))).map(fewer).collect()
    }

    /// Flows with our tag that are of nobody who is on the bridge, by cookie.
    fn strays<'s>(&self, bridge: &str, state: &'s FlowState, inventory: &Inventory) -> Vec<(u64, &'s Arc<FlowSet>)> {
        let tag = self.tag();
        let networks = self.switches.networks_of(bridge).map(|(key, _)| Cookie::network(tag, key).0);
        let of_several: BTreeSet<u64> = networks.chain([Cookie::bridge(tag).0, Cookie::groups(tag).0]).collect();
        let no_vifs = without(&state.owned, self.switches.cookies_of(bridge));
        let mut strays: Vec<(u64, &Arc<FlowSet>)> =
            no_vifs.filter(|(cookie, _)| !of_several.contains(*cookie)).map(|(cookie, set)| (*cookie, set)).collect();
        if !strays.is_empty() {
            let kept = self.kept(bridge, inventory);
            strays.retain(|(cookie, _)| !kept.contains(&Cookie(*cookie)));
        }
        strays
    }
}
