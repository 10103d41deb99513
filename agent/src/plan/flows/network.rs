//! What the VIFs of one network share on a bridge: where its broadcasts go, and what is not here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flows::{Bucket, FlowId, Group, GroupCommand};

use super::super::compare::{Findings, Work};
use super::super::inventory::Inventory;
use super::super::pipeline::{self, Cookie, NetworkFacts, NetworkFlows, NetworkKey, tables};
use super::super::removal::without;
use super::super::{OPENFLOW, Verdict};
use super::bridge::{Common, Condition};
use super::memory::{Looked, Standing};
use super::usage::groups_of;
use super::{Place, group_op, served, sharers, uplink, uplink_port};
use crate::backend::openflow::FlowOp;
use crate::model::{Desired, FlowSet, View, VifId};

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
            let look = Looked {
                state: Arc::clone(state),
                common: self.common_flows(&bridge),
                rule_groups: self.switches.groups.version,
                limbo: self.limbo(&bridge, inventory),
                uplinks: self.uplinks(&bridge, &keys),
                colliding: colliding(&keys),
            };
            let keys = self.switches.to_look_at(&bridge, self.tag(), &look);
            // Numbers that the switch has are taken before new ones are given.
            for key in &keys {
                self.prepare(&bridge, *key, look.uplinks.get(key).and_then(|uplink| uplink.as_ref().ok()).copied());
            }
            for key in keys {
                let lacking = self.switches.lacking;
                let mut standing = match (&look.common, look.colliding.contains(&key)) {
                    (Err(trouble), _) => Standing { trouble: Some(trouble.clone()), ..Standing::default() },
                    (Ok(_), true) => {
                        let trouble = "another network has the same metadata on this bridge".to_owned();
                        Standing { trouble: Some(trouble), ..Standing::default() }
                    }
                    (Ok(common), false) => self.network(&bridge, key, *common, &look.limbo),
                };
                if let Some(Err(trouble)) = look.uplinks.get(&key) {
                    standing.trouble.get_or_insert_with(|| trouble.clone());
                }
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
        let unplaced = without(&inventory.by_vif, &self.switches.placed);
        let ports = unplaced.flat_map(|(_, owned)| &owned.ports).filter(|(port, _)| port.bridge == bridge);
        ports.filter_map(|(_, interface)| u32::try_from(interface.as_ref()?.ofport?).ok()).collect()
    }

    /// Cookies of VIFs that have a port on a bridge and are not placed there: their flows are not swept, whatever else
    /// becomes of them.
    pub(super) fn kept(&self, bridge: &str, inventory: &Inventory) -> BTreeSet<Cookie> {
        let placed = &self.switches.placed;
        let there = inventory.by_vif.iter().filter(|(id, owned)| {
            owned.ports.iter().any(|(port, _)| port.bridge == bridge)
                && placed.get(id).is_none_or(|placed| placed.bridge != bridge)
        });
        there.map(|(id, _)| Cookie::vif(self.tag(), *id)).collect()
    }

    /// Where the networks of a bridge leave the host, those that do. Of several that would by the same port and VLAN, the
    /// one that did before, or has the flow for what comes from there, does; the others learn which that is.
    fn uplinks(&mut self, bridge: &str, keys: &[NetworkKey]) -> BTreeMap<NetworkKey, Result<pipeline::Uplink, String>> {
        let mut wanting: BTreeMap<(u16, Option<u16>), Vec<NetworkKey>> = BTreeMap::new();
        let mut uplinks = BTreeMap::new();
        for key in keys {
            match self.uplink_wanted(bridge, *key) {
                Some(uplink) => wanting.entry((uplink.port, uplink.vlan)).or_default().push(*key),
                None => self.switches.held.set_uplink((bridge.to_owned(), *key), None),
            }
        }
        for ((port, vlan), keys) in wanting {
            let uplink = pipeline::Uplink { port, vlan };
            let had_it = |key: &&NetworkKey| self.switches.held.has_uplink(&(bridge.to_owned(), **key), uplink);
            let first = match &keys[..] {
                [] => continue,
                [only] => *only,
                [first, ..] => {
                    let has_flow = |key: &&NetworkKey| self.has_flow_of_uplink(bridge, **key, uplink);
                    *keys.iter().find(had_it).or_else(|| keys.iter().find(has_flow)).unwrap_or(first)
                }
            };
            for key in keys {
                let place = (bridge.to_owned(), key);
                if key == first {
                    self.switches.held.set_uplink(place, Some(uplink));
                    uplinks.insert(key, Ok(uplink));
                } else {
                    self.switches.held.set_uplink(place, None);
                    let what = vlan.map_or_else(|| "what has no VLAN".to_owned(), |vlan| format!("VLAN {vlan}"));
                    uplinks.insert(key, Err(format!("{what} on the uplink of bridge {bridge} is {first}'s")));
                }
            }
        }
        uplinks
    }

    /// The uplink of a network as configuration and records have it.
    fn uplink_wanted(&self, bridge: &str, key: NetworkKey) -> Option<pipeline::Uplink> {
        let face = self.switches.networks.get(&(bridge.to_owned(), key))?.face();
        let configured = uplink(self.inputs.settings.bridges.get(bridge)?, key, face.label.as_deref())?;
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
        let facts = NetworkFacts { owner, key, members: Vec::new(), uplink: Some(uplink), groups: Vec::new() };
        let flows = pipeline::network(&facts).unwrap_or_default().flows;
        let arriving = flows.iter().find(|flow| tables::Place::of(flow) == tables::ADMIT);
        arriving.is_some_and(|flow| observed.contains_key(&FlowId::of(flow)))
    }

    /// Makes the facts of a network anew where they are others.
    fn prepare(&mut self, bridge: &str, key: NetworkKey, uplink: Option<pipeline::Uplink>) {
        let owner = self.tag();
        let Some(state) = self.state(bridge) else { return };
        let place = (bridge.to_owned(), key);
        let Some(network) = self.switches.networks.get(&place) else { return };
        let same = network.facts.as_ref().is_some_and(|facts| {
            facts.uplink == uplink
                && facts.groups.len() >= pipeline::groups_needed(&facts.members, uplink)
                && facts.members.len() == network.members.len()
                && facts.members.iter().eq(network.members.values())
        });
        if same {
            return;
        }
        let range = self.inputs.settings.groups;
        let had = self.switches.held.groups(&place).cloned();
        let members: Vec<_> = network.members.values().cloned().collect();
        let needed = pipeline::groups_needed(&members, uplink);
        // What flows on the switch name counts before there is anything else to go by, and unless another network has
        // it: it may be somebody's hand that named it.
        let mut groups = had.unwrap_or_else(|| {
            let mut seen = BTreeSet::new();
            let mut named = state.owned.get(&Cookie::network(owner, key).0).map(groups_named).unwrap_or_default();
            let held = &self.switches.held;
            named.retain(|id| range.contains(*id) && !held.has_group(bridge, *id) && seen.insert(*id));
            named
        });
        groups.truncate(needed);
        while groups.len() < needed {
            match self.switches.free_group(bridge, range.first..=range.last) {
                Some(id) => groups.push(id),
                None => break,
            }
        }
        self.switches.held.set_groups(place.clone(), groups.clone());
        let facts = NetworkFacts { owner, key, members, uplink, groups };
        let wanted = pipeline::network(&facts).unwrap_or_default();
        if let Some(network) = self.switches.networks.get_mut(&place) {
            (network.facts, network.wanted) = (Some(facts), wanted);
        }
    }

    /// Plans a network's flows and groups; answers how they stand.
    fn network(&mut self, bridge: &str, key: NetworkKey, common: Common, limbo: &BTreeSet<u32>) -> Standing {
        let place = (bridge.to_owned(), key);
        let Some(network) = self.switches.networks.get_mut(&place) else { return Standing::default() };
        let Some(facts) = network.facts.take() else { return Standing::default() };
        let wanted = std::mem::take(&mut network.wanted);
        let standing = self.network_of(bridge, &facts, &wanted, common, limbo);
        if let Some(network) = self.switches.networks.get_mut(&place) {
            (network.facts, network.wanted) = (Some(facts), wanted);
        }
        standing
    }

    fn network_of(
        &mut self,
        bridge: &str,
        facts: &NetworkFacts,
        wanted: &NetworkFlows,
        common: Common,
        limbo: &BTreeSet<u32>,
    ) -> Standing {
        let Some(state) = self.state(bridge) else { return Standing::default() };
        let needed = pipeline::groups_needed(&facts.members, facts.uplink);
        if facts.groups.len() < needed {
            let trouble = format!("no group is free on bridge {bridge} (openflow.groups)");
            return Standing { trouble: Some(trouble), ..Standing::default() };
        }
        if let Some(trouble) = self.clash(bridge, state, &wanted.flows) {
            return Standing { trouble: Some(trouble), ..Standing::default() };
        }
        let mut ops: Vec<FlowOp> = Vec::new();
        for group in &wanted.groups {
            let there = state.groups.get(&group.id);
            let group = with_limbo(group, there.map(Arc::as_ref), limbo);
            match there {
                None => ops.push(group_op(bridge, GroupCommand::Add, group.into_owned())),
                Some(there) if same_group(there, &group) => {}
                Some(_) => ops.push(group_op(bridge, GroupCommand::Modify, group.into_owned())),
            }
        }
        let cookie = Cookie::network(facts.owner, facts.key);
        let flows = self.bring_to(bridge, &wanted.flows, state.owned.get(&cookie.0));
        let complete = flows.is_empty();
        ops.extend(flows);
        self.share(&sharers(bridge, cookie), ops);
        let there = wanted.groups.iter().filter_map(|group| state.groups.get(&group.id)).map(AsRef::as_ref);
        let reached = pipeline::flooded(&facts.members, facts.uplink);
        let members = self.switches.networks.get(&(bridge.to_owned(), facts.key)).map(|network| &network.members);
        Standing {
            complete: complete && common.complete,
            groups: common.groups,
            trouble: None,
            floods: needed > 0,
            served: served(there),
            beyond: members.into_iter().flat_map(BTreeMap::keys).skip(reached).copied().collect(),
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
        let all = (before.complete, before.groups, &before.trouble, before.floods)
            != (now.complete, now.groups, &now.trouble, now.floods);
        let other = |(id, member): &(&VifId, &pipeline::Member)| {
            all || before.served.contains(&member.at.id()) != now.served.contains(&member.at.id())
                || before.beyond.contains(*id) != now.beyond.contains(*id)
        };
        stirred.extend(network.members.iter().filter(other).map(|(id, _)| *id));
    }

    /// Whether what a VIF's network has to have for it is there; `found` says what is not.
    pub(in crate::plan) fn stands(&self, place: &Place, id: VifId, found: &mut Findings) -> bool {
        // An inactive VIF needs nothing of its network.
        let Some(at) = place.id else { return true };
        let network = self.switches.networks.get(&(place.bridge.clone(), place.network));
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
            && (standing.groups || !place.by_groups)
            && (!standing.floods || standing.served.contains(&at))
    }

    /// The verdict on a VIF whose own flows are there and whose network's are not, where it is that they were refused.
    pub(in crate::plan) fn held_network(&self, place: &Place) -> Option<Verdict> {
        let tag = self.tag();
        let shared = [Cookie::network(tag, place.network), Cookie::bridge(tag), Cookie::groups(tag)];
        let held = |cookie: &Cookie| self.inputs.holds.in_force(sharers(&place.bridge, *cookie), OPENFLOW, self.now);
        let hold = shared.iter().find_map(held)?;
        Some(Verdict::Held { error: hold.error.clone(), backend: OPENFLOW, until: hold.until })
    }
}

/// Whether what no record is for may be taken away. No record at all is no reason to take anything away.
pub(super) fn absence_counts(desired: &Desired) -> bool {
    desired.synced && (!desired.vifs.is_empty() || !desired.deleted.is_empty())
}

/// Networks whose numbers are the same.
fn colliding(keys: &[NetworkKey]) -> BTreeSet<NetworkKey> {
    let mut by_number: BTreeMap<u64, Vec<NetworkKey>> = BTreeMap::new();
    for key in keys {
        by_number.entry(key.metadata()).or_default().push(*key);
    }
    by_number.into_values().filter(|keys| keys.len() > 1).flatten().collect()
}

/// The groups that a network's flows name, in their order.
fn groups_named(set: &Arc<FlowSet>) -> Vec<u32> {
    set.values().flat_map(|flow| groups_of(flow)).collect()
}

/// A wanted group with what the one there has for ports that are nobody's at the moment.
fn with_limbo<'a>(wanted: &'a Group, there: Option<&Group>, limbo: &BTreeSet<u32>) -> Cow<'a, Group> {
    let there = there.filter(|_| !limbo.is_empty()).into_iter().flat_map(|group| &group.buckets);
    let kept: Vec<_> = there.filter(|bucket| pipeline::served(bucket).is_some_and(|to| limbo.contains(&to))).collect();
    if kept.is_empty() {
        return Cow::Borrowed(wanted);
    }
    let buckets = wanted.buckets.iter().chain(kept).cloned().collect();
    Cow::Owned(Group { id: wanted.id, kind: wanted.kind, buckets })
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
