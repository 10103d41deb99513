//! What the VIFs of one network share on a bridge: where its broadcasts go, and what is not here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flows::{Action, Bucket, Flow, FlowId, Group, GroupCommand, GroupKind};

use super::super::compare::{Findings, Work};
use super::super::inventory::Inventory;
use super::super::pipeline::{self, Attachment, Cookie, NetworkFacts, NetworkFlows, NetworkKey, tables};
use super::super::removal::without;
use super::super::{OPENFLOW, Verdict};
use super::bridge::{Common, Condition};
use super::memory::{Face, Looked, Standing, admitted_to};
use super::usage::groups_of;
use super::{Bearer, Place, group_op, sharers, uplink_port};
use crate::backend::openflow::{FlowChange, FlowOp};
use crate::model::{Desired, FlowSet, FlowState, Interface, View, VifId};

impl Work<'_> {
    /// Plans everything that VIFs share on managed bridges. Answers the VIFs on which verdicts may be others for it.
    pub(in crate::plan) fn shared_flows(&mut self, inventory: &Inventory) -> BTreeSet<VifId> {
        let mut stirred = BTreeSet::new();
        let observed = self.inputs.observed;
        if observed.links.ready().is_none() || observed.ovs.ready().is_none() {
            // It is not known which VIFs there are.
            return stirred;
        }
        self.switches.placed_all();
        let bridges: Vec<String> = self.inputs.settings.bridges.keys().cloned().collect();
        for bridge in bridges {
            let scene = self.switches.scene(&bridge, &self.inputs);
            if scene.as_ref().is_some_and(|scene| self.switches.is_quiet(&bridge, scene)) {
                continue;
            }
            self.switches.lacking = 0;
            let keys: Vec<NetworkKey> = self.switches.networks_of(&bridge).map(|(key, _)| key).collect();
            let usable = self.condition(&bridge) == Condition::Usable;
            let Some(View::Ready(state)) = observed.flows.get(&bridge).filter(|_| usable) else {
                for key in keys {
                    self.stand(&bridge, key, Standing::default(), &mut stirred);
                }
                self.switches.looked(&bridge, None);
                self.switches.quieten(&bridge, None);
                continue;
            };
            self.switches.usage.entry(bridge.clone()).or_default().follow(state);
            // The VIFs of one that has somebody else's number have no flows.
            let is_numberless = |key: &NetworkKey| self.switches.bearers.before(Bearer::Network(*key)).is_some();
            let numberless: BTreeSet<NetworkKey> = keys.iter().filter(|key| is_numberless(key)).copied().collect();
            let keys: Vec<NetworkKey> = keys.into_iter().filter(|key| !numberless.contains(key)).collect();
            for key in &keys {
                self.settle_face(&bridge, *key);
            }
            let look = Looked {
                state: Arc::clone(state),
                common: self.common_flows(&bridge),
                rule_groups: self.switches.groups.version,
                limbo: self.limbo(&bridge, inventory),
                uplinks: self.uplinks(&bridge, &keys),
                numberless,
            };
            let mut keys = self.switches.to_look_at(&bridge, self.tag(), &look);
            for key in &look.numberless {
                if keys.remove(key) {
                    self.switches.settle((bridge.clone(), *key), true);
                    self.stand(&bridge, *key, Standing::default(), &mut stirred);
                }
            }
            // Numbers that the switch has are taken before new ones are given.
            for key in &keys {
                let uplink = look.uplinks.get(key).and_then(|uplink| uplink.as_ref().ok()).copied();
                self.prepare(&bridge, *key, uplink, &look.limbo);
            }
            for key in keys {
                let lacking = self.switches.lacking;
                let mut standing = match &look.common {
                    Err(trouble) => Standing { trouble: Some(trouble.clone()), ..Standing::default() },
                    Ok(common) => self.network(&bridge, key, common),
                };
                if let Some(Err(trouble)) = look.uplinks.get(&key) {
                    standing.trouble.get_or_insert_with(|| trouble.clone());
                }
                standing.face = self.switches.held.face(&(bridge.clone(), key)).unwrap_or_default();
                let is_clean = self.switches.lacking == lacking && standing.trouble.is_none();
                self.switches.settle((bridge.clone(), key), is_clean);
                self.stand(&bridge, key, standing, &mut stirred);
            }
            if absence_counts(self.inputs.desired) {
                self.sweep_flows(&bridge, &look.limbo, inventory);
            }
            self.switches.looked(&bridge, Some(look));
            let quiet = self.switches.lacking == 0;
            self.switches.quieten(&bridge, scene.filter(|_| quiet));
        }
        stirred
    }

    /// Numbers of ports that stay although nothing is planned for them: their records are gone or cannot be honoured.
    fn limbo(&self, bridge: &str, inventory: &Inventory) -> BTreeSet<u32> {
        let unplaced = without(&inventory.by_vif, self.switches.placed.keys());
        let at =
            |interface: &Interface, vlan| Some(Attachment { port: u16::try_from(interface.ofport?).ok()?, vlan }.id());
        let numbers = unplaced.flat_map(|(_, owned)| {
            let ports = owned.ports.iter().filter(|(port, _)| port.bridge == bridge);
            let ports = ports.filter_map(move |(_, interface)| at(interface.as_ref()?, None));
            let sub_ports = owned.sub_ports.iter().filter(|(port, ..)| port.bridge == bridge);
            ports.chain(sub_ports.filter_map(move |(_, interface, vlan)| at(interface, Some((*vlan)?))))
        });
        numbers.collect()
    }

    /// Cookies of VIFs that have a port on a bridge and are not placed there: their flows are not swept, whatever else
    /// becomes of them.
    pub(super) fn kept(&self, bridge: &str, inventory: &Inventory) -> BTreeSet<Cookie> {
        let placed = &self.switches.placed;
        let there = inventory.by_vif.iter().filter(|(id, owned)| {
            let ports = owned.ports.iter().map(|(port, _)| port);
            ports.chain(owned.sub_ports.iter().map(|(port, ..)| port)).any(|port| port.bridge == bridge)
                && placed.get(id).is_none_or(|placed| placed.bridge != bridge)
        });
        there.map(|(id, _)| Cookie::vif(self.tag(), *id)).collect()
    }

    /// Where the networks of a bridge leave the host, those that do. Of several that would by the same port and VLAN, the
    /// one that did before, or has the flow for what comes from there, does; the others learn which that is.
    fn uplinks(&mut self, bridge: &str, keys: &[NetworkKey]) -> BTreeMap<NetworkKey, Result<pipeline::Uplink, String>> {
        let mut wanting: BTreeMap<Face, (pipeline::Uplink, Vec<NetworkKey>)> = BTreeMap::new();
        let mut uplinks = BTreeMap::new();
        for key in keys {
            // While the uplink is away it stays whose it is.
            let Some(face) = self.switches.held.face(&(bridge.to_owned(), *key)) else { continue };
            if let Some(uplink) = self.uplink_at(bridge, face) {
                wanting.entry(face).or_insert_with(|| (uplink, Vec::new())).1.push(*key);
            }
        }
        for (uplink, keys) in wanting.into_values() {
            let had_it = |key: &&NetworkKey| self.switches.held.has_uplink(&(bridge.to_owned(), **key));
            let first = match &keys[..] {
                [] => continue,
                [only] => *only,
                [first, ..] => {
                    let has_flow = |key: &&NetworkKey| self.has_flow_of_uplink(bridge, **key, uplink);
                    *keys.iter().find(had_it).or_else(|| keys.iter().find(has_flow)).unwrap_or(first)
                }
            };
            for key in keys {
                self.switches.held.set_uplink(&(bridge.to_owned(), key), key == first);
                if key == first {
                    uplinks.insert(key, Ok(uplink));
                } else {
                    let vlan = uplink.vlan;
                    let what = vlan.map_or_else(|| "what has no VLAN".to_owned(), |vlan| format!("VLAN {vlan}"));
                    uplinks.insert(key, Err(format!("{what} on the uplink of bridge {bridge} is {first}'s")));
                }
            }
        }
        uplinks
    }

    /// Notes how a network leaves a bridge. Where its records disagree, one that was added or changed does not move all
    /// others: as it does already, by what is known or by its flow for what comes from there; where neither tells, as
    /// most of them say, and of as many as the first.
    fn settle_face(&mut self, bridge: &str, key: NetworkKey) {
        let place = (bridge.to_owned(), key);
        let Some(network) = self.switches.networks.get(&place) else { return };
        let faces = || network.faces.values();
        let had = self.switches.held.face(&place).filter(|had| faces().any(|face| face == had));
        let Some(face) = had.or_else(|| {
            let mut records: BTreeMap<Face, usize> = BTreeMap::new();
            faces().for_each(|face| *records.entry(*face).or_default() += 1);
            let uplink = |face: &Face| self.uplink_at(bridge, *face);
            let has_flow = |face: &&Face| uplink(face).is_some_and(|to| self.has_flow_of_uplink(bridge, key, to));
            // Where they agree there is nothing to look for.
            let by_flow = records.keys().filter(|_| records.len() > 1).find(has_flow);
            let most = records.values().max();
            by_flow.or_else(|| faces().find(|face| records.get(face) == most)).copied()
        }) else {
            return;
        };
        self.switches.held.set_face(place, face);
    }

    fn uplink_at(&self, bridge: &str, face: Face) -> Option<pipeline::Uplink> {
        let configured = self.inputs.settings.bridges.get(bridge)?.uplinks.get(face.uplink?)?;
        let ovs = self.inputs.observed.ovs.ready()?;
        let port = ovs.ports.get(configured.port.as_str()).map(AsRef::as_ref);
        let port = uplink_port(bridge, port, ovs.interfaces.get(configured.port.as_str()).map(AsRef::as_ref))?;
        Some(pipeline::Uplink { port, vlan: face.vlan })
    }

    /// Whether a network has the flow for what comes from this uplink.
    fn has_flow_of_uplink(&self, bridge: &str, key: NetworkKey, uplink: pipeline::Uplink) -> bool {
        let owner = self.tag();
        let Some(observed) = self.state(bridge).and_then(|state| state.owned.get(&Cookie::network(owner, key).0))
        else {
            return false;
        };
        let uplink = Some(uplink);
        let facts = NetworkFacts { owner, key, members: Vec::new(), uplink, limbo: Vec::new(), groups: Vec::new() };
        let flows = pipeline::network(&facts).unwrap_or_default().flows;
        let arriving = flows.iter().find(|flow| tables::Place::of(flow) == tables::ADMIT);
        arriving.is_some_and(|flow| observed.contains_key(&FlowId::of(flow)))
    }

    /// Makes the facts of a network anew where they are others.
    fn prepare(&mut self, bridge: &str, key: NetworkKey, uplink: Option<pipeline::Uplink>, limbo: &BTreeSet<u32>) {
        let owner = self.tag();
        let Some(state) = self.state(bridge) else { return };
        let place = (bridge.to_owned(), key);
        let Some(network) = self.switches.networks.get(&place) else { return };
        let range = self.inputs.settings.groups;
        // What flows on the switch name, but for what another network has: it may be somebody's hand that named it.
        let named = || {
            let mut seen = BTreeSet::new();
            let mut named = state.owned.get(&Cookie::network(owner, key).0).map(groups_named).unwrap_or_default();
            let is_ours = |id| self.switches.held.group_of(bridge, id).is_none_or(|of| of == key);
            named.retain(|id| range.contains(*id) && is_ours(*id) && seen.insert(*id));
            named
        };
        // It counts before there is anything else to go by.
        let had = || self.switches.held.groups(&place).cloned().unwrap_or_else(named);
        let left = if limbo.is_empty() {
            Vec::new()
        } else {
            // Also in groups that it is to have no more, as long as its flows name them.
            let groups: BTreeSet<u32> = had().into_iter().chain(named()).collect();
            left_in(&groups, state, limbo)
        };
        let same = network.facts.as_ref().is_some_and(|facts| {
            facts.uplink == uplink
                && facts.limbo == left
                && facts.groups.len() >= pipeline::groups_needed(&facts.members, uplink, left.len())
                && facts.members.len() == network.members.len()
                && facts.members.iter().eq(network.members.values())
        });
        if same {
            return;
        }
        let members: Vec<_> = network.members.values().cloned().collect();
        let needed = pipeline::groups_needed(&members, uplink, left.len());
        let mut groups = had();
        groups.truncate(needed);
        while groups.len() < needed {
            match self.switches.free_group(bridge, range.first..=range.last) {
                Some(id) => groups.push(id),
                None => break,
            }
        }
        self.switches.held.set_groups(place.clone(), groups.clone());
        let facts = NetworkFacts { owner, key, members, uplink, limbo: left, groups };
        let wanted = pipeline::network(&facts).unwrap_or_default();
        if let Some(network) = self.switches.networks.get_mut(&place) {
            (network.facts, network.wanted) = (Some(facts), wanted);
        }
    }

    /// Plans a network's flows and groups; answers how they stand.
    fn network(&mut self, bridge: &str, key: NetworkKey, common: &Common) -> Standing {
        let place = (bridge.to_owned(), key);
        let Some(network) = self.switches.networks.get_mut(&place) else { return Standing::default() };
        let Some(facts) = network.facts.take() else { return Standing::default() };
        let wanted = std::mem::take(&mut network.wanted);
        let standing = self.network_of(bridge, &facts, &wanted, common);
        if let Some(network) = self.switches.networks.get_mut(&place) {
            (network.facts, network.wanted) = (Some(facts), wanted);
        }
        standing
    }

    fn network_of(&mut self, bridge: &str, facts: &NetworkFacts, wanted: &NetworkFlows, common: &Common) -> Standing {
        let Some(state) = self.state(bridge) else { return Standing::default() };
        let needed = pipeline::groups_needed(&facts.members, facts.uplink, facts.limbo.len());
        if facts.groups.len() < needed {
            let trouble = format!("no group is free on bridge {bridge} (openflow.groups)");
            return Standing { trouble: Some(trouble), ..Standing::default() };
        }
        if let Some(trouble) = self.clash(bridge, state, &wanted.flows) {
            return Standing { trouble: Some(trouble), ..Standing::default() };
        }
        let mut ops: Vec<FlowOp> = Vec::new();
        for group in &wanted.groups {
            match state.groups.get(&group.id) {
                None => ops.push(group_op(bridge, GroupCommand::Add, group.clone())),
                Some(there) if same_group(there, group) => {}
                Some(_) => ops.push(group_op(bridge, GroupCommand::Modify, group.clone())),
            }
        }
        let cookie = Cookie::network(facts.owner, facts.key);
        let observed = state.owned.get(&cookie.0);
        let flows = self.bring_to(bridge, &wanted.flows, observed);
        // Who joins or leaves changes where copies go, and nothing for those who get them already.
        let names_members = |op: &FlowOp| match &op.change {
            FlowChange::Flow(change) => {
                [tables::FLOOD, tables::SHARED_ADDRESS].contains(&tables::Place::of(&change.flow))
            }
            _ => true,
        };
        let complete = flows.iter().all(names_members);
        ops.extend(flows);
        let party = sharers(bridge, cookie);
        let refused = !ops.is_empty() && self.inputs.holds.is_refused(party.clone(), OPENFLOW);
        self.share(&party, ops);
        let reached = pipeline::flooded(&facts.members, facts.uplink);
        let network = self.switches.networks.get(&(bridge.to_owned(), facts.key));
        let members = || network.into_iter().flat_map(|network| network.members.keys());
        Standing {
            complete: complete && common.complete,
            refused,
            groups: common.groups.clone(),
            unlisted: members().filter(|id| common.unlisted.contains(id)).copied().collect(),
            trouble: None,
            floods: needed > 0 && is_used(facts, members(), state),
            served: served(wanted, observed, state),
            uncopied: uncopied(&wanted.flows, observed),
            beyond: members().skip(reached).copied().collect(),
            face: Face::default(),
        }
    }

    /// Notes how a network stands, and whose verdicts that may change.
    fn stand(&mut self, bridge: &str, key: NetworkKey, standing: Standing, stirred: &mut BTreeSet<VifId>) {
        let Some(network) = self.switches.networks.get_mut(&(bridge.to_owned(), key)) else { return };
        let before = std::mem::replace(&mut network.standing, standing);
        let now = &network.standing;
        if before == *now {
            return;
        }
        let all = (before.complete, before.refused, &before.groups, &before.trouble, before.floods)
            != (now.complete, now.refused, &now.groups, &now.trouble, now.floods);
        let other = |(id, member): &(&VifId, &pipeline::Member)| {
            all || before.served.contains(&member.at.id()) != now.served.contains(&member.at.id())
                || before.uncopied.contains(&member.at.id()) != now.uncopied.contains(&member.at.id())
                || before.beyond.contains(*id) != now.beyond.contains(*id)
                || before.unlisted.contains(*id) != now.unlisted.contains(*id)
        };
        stirred.extend(network.members.iter().filter(other).map(|(id, _)| *id));
        let other = |face: &Face| (*face == before.face) != (*face == now.face);
        stirred.extend(network.faces.iter().filter(|(_, face)| other(face)).map(|(id, _)| *id));
    }

    /// Whether what a VIF's network has to have for it is there; `found` says what is not.
    pub(in crate::plan) fn stands(&mut self, place: &Place, id: VifId, found: &mut Findings) -> bool {
        let disagreement = self.disagreement(place, id);
        if place.id.is_some() && (disagreement.is_none() || self.was_let_in(place, id)) {
            self.switches.held.set_member(id, &place.bridge, place.network);
        }
        if let Some(words) = disagreement {
            found.conflict.get_or_insert(words);
            self.let_in_no_further(place, id, found);
            return false;
        }
        let network = self.switches.networks.get(&(place.bridge.clone(), place.network));
        // An inactive VIF needs nothing of its network.
        let Some(at) = place.id else { return true };
        let Some(standing) = network.map(|network| &network.standing) else { return false };
        if let Some(trouble) = &standing.trouble {
            found.conflict.get_or_insert_with(|| trouble.clone());
            return false;
        }
        if standing.beyond.contains(&id) {
            let reached = network.map_or(0, |network| network.members.len() - standing.beyond.len());
            found.flows_failed.get_or_insert_with(|| {
                format!(
                    "its network has too many VIFs on bridge {}: broadcasts reach {reached} of them, and not this one",
                    place.bridge
                )
            });
            return true;
        }
        standing.complete
            && !standing.refused
            && place.groups.iter().all(|group| !standing.groups.contains(group))
            && !standing.unlisted.contains(&id)
            && !standing.uncopied.contains(&at)
            && (!standing.floods || standing.served.contains(&at))
    }

    /// Whether a VIF is in its network already, as far as memory and its flows tell.
    fn was_let_in(&self, place: &Place, id: VifId) -> bool {
        let flows = || self.state(&place.bridge)?.owned.get(&Cookie::vif(self.tag(), id).0);
        self.switches.held.is_member(id, &place.bridge, place.network)
            || admitted_to(flows()) == Some(place.network.metadata())
    }

    /// Keeps of the operations for a VIF whose record says that its network leaves the bridge in another way those that
    /// it is to have all the same. Its own flows have nothing of that way, so who is in the network gets them, port
    /// security and rules as the record has them now. Who is not gets none, and keeps none from elsewhere. An inactive
    /// one is kept from sending.
    fn let_in_no_further(&self, place: &Place, id: VifId, found: &mut Findings) {
        if place.id.is_some() && !self.switches.held.is_member(id, &place.bridge, place.network) {
            let observed = self.state(&place.bridge).and_then(|state| state.owned.get(&Cookie::vif(self.tag(), id).0));
            found.flows.retain(|op| op.bridge != place.bridge);
            found.flows.extend(self.bring_to(&place.bridge, &[], observed));
        }
        // It would be by the record's VLAN.
        found.flows.retain(|op| !matches!(op.change, FlowChange::Announce(_)));
    }

    /// What a VIF's record says of how its network leaves the bridge, where that is not so.
    fn disagreement(&self, place: &Place, id: VifId) -> Option<String> {
        let network = self.switches.networks.get(&(place.bridge.clone(), place.network))?;
        let (is, says) = (self.switches.held.face(&(place.bridge.clone(), place.network))?, *network.faces.get(&id)?);
        if is == says {
            return None;
        }
        let managed = self.inputs.settings.bridges.get(&place.bridge)?;
        if is.uplink == says.uplink {
            let vlan = |vlan: Option<u16>| vlan.map_or_else(|| "none".to_owned(), |vlan| vlan.to_string());
            let has = is.vlan.map_or_else(|| "no VLAN".to_owned(), |vlan| format!("VLAN {vlan}"));
            return Some(format!("the network has {has} here, the record says {}", vlan(says.vlan)));
        }
        let port = |uplink: Option<usize>| {
            let uplink = uplink.and_then(|place| managed.uplinks.get(place));
            uplink.map_or_else(|| "no uplink".to_owned(), |uplink| format!("uplink {}", uplink.port))
        };
        let (has, would) = (port(is.uplink), port(says.uplink));
        Some(format!("the network has {has} here, by the label in the record it would have {would}"))
    }

    /// The verdict on a VIF whose own flows are there and whose network's are not, where it is that they were refused.
    pub(in crate::plan) fn held_network(&self, place: &Place) -> Option<Verdict> {
        let tag = self.tag();
        let shared = [Cookie::network(tag, place.network), Cookie::bridge(tag), Cookie::groups(tag)];
        let held = |cookie: &Cookie| self.inputs.holds.in_force(sharers(&place.bridge, *cookie), OPENFLOW, self.now);
        let hold = shared.iter().find_map(held)?;
        Some(Verdict::of_hold(hold, OPENFLOW))
    }
}

/// Whether what no record is for may be taken away. No record at all is no reason to take anything away.
pub(super) fn absence_counts(desired: &Desired) -> bool {
    desired.synced && (!desired.vifs.is_empty() || !desired.deleted.is_empty())
}

/// The groups that a network's flows name, in their order.
fn groups_named(set: &Arc<FlowSet>) -> Vec<u32> {
    set.values().flat_map(|flow| groups_of(flow)).collect()
}

/// Whether two of a network's places are in use, so that there is something to flood: a VIF when its flows are there.
fn is_used<'a>(facts: &NetworkFacts, members: impl Iterator<Item = &'a VifId>, state: &FlowState) -> bool {
    let flows = |id: &VifId| state.owned.get(&Cookie::vif(facts.owner, *id).0);
    let vifs = members.filter(|id| admitted_to(flows(id)) == Some(facts.key.metadata()));
    vifs.take(2).count() + usize::from(facts.uplink.is_some()) + facts.limbo.len() >= 2
}

/// The places that a network is flooded to as they are to be: by the groups that its flow on the switch names.
fn served(wanted: &NetworkFlows, observed: Option<&Arc<FlowSet>>, state: &FlowState) -> BTreeSet<u32> {
    let Some(flood) = wanted.flows.iter().find(|flow| tables::Place::of(flow) == tables::FLOOD) else {
        return BTreeSet::new();
    };
    let there = observed.and_then(|set| set.get(&FlowId::of(flood))).map(AsRef::as_ref);
    let group_of = |action: &Action| match action {
        Action::Group(id) => Some(*id),
        _ => None,
    };
    let but_groups = |flow: &Flow| -> Vec<Action> {
        flow.instructions.apply.iter().filter(|action| group_of(action).is_none()).cloned().collect()
    };
    let Some(there) = there.filter(|there| but_groups(there) == but_groups(flood)) else { return BTreeSet::new() };
    let named = there.instructions.apply.iter().filter_map(group_of).filter_map(|id| state.groups.get(&id));
    let named = named.filter(|group| group.kind == GroupKind::All).flat_map(|group| &group.buckets);
    let named: BTreeMap<u32, &Bucket> = named.filter_map(|bucket| Some((pipeline::served(bucket)?, bucket))).collect();
    let buckets = wanted.groups.iter().flat_map(|group| &group.buckets);
    let served = buckets.filter_map(|bucket| Some((pipeline::served(bucket)?, bucket)));
    served.filter(|(to, bucket)| named.get(to) == Some(bucket)).map(|(to, _)| to).collect()
}

/// The places that one of these flows copies to, and the one on the switch does not.
fn uncopied(wanted: &[Flow], observed: Option<&Arc<FlowSet>>) -> BTreeSet<u32> {
    let shared = wanted.iter().filter(|flow| tables::Place::of(flow) == tables::SHARED_ADDRESS);
    let mut uncopied = BTreeSet::new();
    for flow in shared {
        let there = observed.and_then(|set| set.get(&FlowId::of(flow))).map(|flow| &flow.instructions);
        if there == Some(&flow.instructions) {
            continue;
        }
        let copies = |action: &&Action| there.is_some_and(|there| there.apply.contains(action));
        let missing = flow.instructions.apply.iter().filter(|action| !copies(action));
        uncopied.extend(missing.filter_map(pipeline::copied_to));
    }
    uncopied
}

/// The buckets of these groups for ports that are nobody's at the moment: who floods to nobody else floods to them.
fn left_in(groups: &BTreeSet<u32>, state: &FlowState, limbo: &BTreeSet<u32>) -> Vec<Bucket> {
    let buckets = groups.iter().filter_map(|id| state.groups.get(id)).flat_map(|group| &group.buckets);
    let to = |bucket: &Bucket| pipeline::served(bucket).filter(|to| limbo.contains(to));
    let left: BTreeMap<u32, Bucket> = buckets.filter_map(|bucket| Some((to(bucket)?, bucket.clone()))).collect();
    left.into_values().collect()
}

/// Whether two groups do the same. All buckets of theirs are gone through, in whatever order.
fn same_group(a: &Group, b: &Group) -> bool {
    let sorted = |group: &Group| {
        let mut keys: Vec<(Option<u32>, &Bucket)> =
            group.buckets.iter().map(|bucket| (pipeline::served(bucket), bucket)).collect();
        keys.sort_by_key(|(to, _)| *to);
        keys.into_iter().map(|(_, bucket)| bucket.clone()).collect::<Vec<_>>()
    };
    a.kind == b.kind && a.buckets.len() == b.buckets.len() && (a.buckets == b.buckets || sorted(a) == sorted(b))
}
