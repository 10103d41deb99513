//! What is kept of flows from one plan to the next. Nothing of it is needed, `held` and `bearers` aside: it can all be
//! found again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use flows::Flow;
use ipnet::IpNet;
use ovsdb::text::Text;

use super::super::pipeline::{
    self, Cookie, Member, NetworkFacts, NetworkFlows, NetworkKey, OwnerTag, PortFacts, Uplink,
};
use super::super::{Inputs, Settings};
use super::bearers::Bearers;
use super::bridge::{Common, Condition, left_behind};
use super::held::Held;
use super::network::absence_counts;
use super::usage::Usage;
use crate::model::{Desired, FlowSet, FlowState, Interface, Port, Rule, Table, View, Vif, VifId};

/// No key comes before this one.
const FIRST_KEY: NetworkKey = NetworkKey::Network(uuid::Uuid::nil());

/// Flows of all managed bridges.
#[derive(Debug, Default)]
pub(in crate::plan) struct Switches {
    /// Of every managed bridge.
    pub(in crate::plan) conditions: BTreeMap<String, Condition>,
    pub(super) placed: BTreeMap<VifId, Placed>,
    /// Whose the numbers of flows are.
    pub(super) bearers: Bearers,
    /// VIFs by bridge and cookie.
    holders: BTreeMap<String, BTreeSet<(u64, VifId)>>,
    /// Networks that have VIFs on a bridge, active or not.
    pub(super) networks: BTreeMap<(String, NetworkKey), SharedNetwork>,
    common: Option<(OwnerTag, Arc<[Flow]>)>,
    /// Groups that rules name.
    pub(super) groups: RuleGroups,
    trunks: Trunks,
    /// VIFs that this plan placed, with the members that they were before.
    touched: BTreeMap<VifId, Option<Member>>,
    /// Counts what networks are made from, whenever it is another.
    version: u64,
    /// Bridges on which there was nothing to do, and what that was made from.
    quiet: BTreeMap<String, Scene>,
    /// Operations that VIFs share and that this plan found wanting, allowed or not.
    pub(super) lacking: usize,
    /// What VIFs and networks have.
    pub(super) held: Held,
    /// Whether nobody has anything there who is not placed any more.
    retained: bool,
    /// What is named on switches.
    pub(super) usage: BTreeMap<String, Usage>,
    /// Networks that something has to be done for, or of which something is another since they were looked at.
    restless: BTreeSet<(String, NetworkKey)>,
    /// What all networks of a bridge were looked at with.
    looked: BTreeMap<String, Looked>,
    /// How far numbers were given in this plan, by bridge.
    given: BTreeMap<String, Given>,
}

/// A VIF on a managed bridge.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) bridge: String,
    pub(super) network: NetworkKey,
    pub(super) cookie: Cookie,
    pub(super) facts: Option<PortFacts>,
    /// What follows from `facts`, until it is on the switch: thousands of VIFs have it there already.
    wanted: Option<Arc<[Flow]>>,
    /// The flows that were on the switch when they were those wanted.
    clean_on: Option<Arc<FlowSet>>,
    has_rules: bool,
}

/// A network on a bridge.
#[derive(Debug, Default)]
pub(super) struct SharedNetwork {
    /// As each record has it.
    pub(super) faces: BTreeMap<VifId, Face>,
    pub(super) members: BTreeMap<VifId, Member>,
    pub(super) facts: Option<NetworkFacts>,
    pub(super) wanted: NetworkFlows,
    pub(super) standing: Standing,
}

/// How a network leaves a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Face {
    /// Which of the uplinks in the bridge's configuration; absent where it does not leave.
    pub(super) uplink: Option<usize>,
    /// VLAN there.
    pub(super) vlan: Option<u16>,
}

/// How a network's shared flows are, as far as verdicts on its VIFs depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether those of the network's and the bridge's flows are there that do not name members.
    pub(super) complete: bool,
    /// Whether some of what is not there was refused.
    pub(super) refused: bool,
    /// Groups of rules of which the flows are not there.
    pub(super) groups: BTreeSet<u32>,
    /// Members that rules for their groups do not know.
    pub(super) unlisted: BTreeSet<VifId>,
    /// Why they cannot be.
    pub(super) trouble: Option<String>,
    /// Whether there is somebody to flood the network for.
    pub(super) floods: bool,
    /// Places that floods go to as they are to.
    pub(super) served: BTreeSet<u32>,
    /// Places that do not get what is for an address which others use too.
    pub(super) uncopied: BTreeSet<u32>,
    /// Members that floods do not reach, since there are too many.
    pub(super) beyond: BTreeSet<VifId>,
    /// How it leaves the bridge, whatever one of its records says.
    pub(super) face: Face,
}

/// What the shared flows of a bridge are made from.
#[derive(Debug)]
pub(super) struct Scene {
    state: Arc<FlowState>,
    ports: Table<Text, Port>,
    interfaces: Table<Text, Interface>,
    records: Table<VifId, Vif>,
    /// Whether what no record is for may go.
    sweeps: bool,
    version: u64,
}

impl Scene {
    fn is(&self, other: &Scene) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
            && self.ports.is(&other.ports)
            && self.interfaces.is(&other.interfaces)
            && self.records.is(&other.records)
            && (self.sweeps, self.version) == (other.sweeps, other.version)
    }
}

/// What the networks of a bridge are compared with: as long as all of it is the same for one, so is what follows.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) state: Arc<FlowState>,
    pub(super) common: Result<Common, String>,
    /// Which members the groups had that rules name.
    pub(super) rule_groups: u64,
    pub(super) limbo: BTreeSet<u32>,
    pub(super) uplinks: BTreeMap<NetworkKey, Result<Uplink, String>>,
    /// Networks whose number is somebody else's.
    pub(super) numberless: BTreeSet<NetworkKey>,
}

/// Who has sub-ports, by the records.
#[derive(Debug, Default)]
struct Trunks {
    made_from: Table<VifId, Vif>,
    sub_ports: BTreeMap<VifId, usize>,
}

impl Trunks {
    /// These are the records now. Answers who has sub-ports and had none, or the other way round.
    fn follow(&mut self, vifs: &Table<VifId, Vif>) -> BTreeSet<VifId> {
        let before = std::mem::replace(&mut self.made_from, vifs.clone());
        let mut had = BTreeMap::new();
        before.differing(vifs, |_, was, is| {
            let parent = |vif: Option<&Arc<Vif>>| vif.and_then(|vif| vif.parent).map(|parent| parent.vif);
            for (trunk, comes) in [(parent(is), true), (parent(was), false)] {
                let Some(trunk) = trunk else { continue };
                let count = self.sub_ports.entry(trunk).or_default();
                had.entry(trunk).or_insert(*count > 0);
                *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            }
        });
        self.sub_ports.retain(|_, count| *count > 0);
        had.into_iter().filter(|(id, had)| self.sub_ports.contains_key(id) != *had).map(|(id, _)| id).collect()
    }
}

/// Members of the groups that rules name.
#[derive(Debug, Default)]
pub(super) struct RuleGroups {
    made_from: Table<VifId, Vif>,
    conjunctions: BTreeMap<String, u32>,
    pub(super) members: BTreeMap<u32, Vec<IpNet>>,
    /// Counts the members, whenever they are others.
    pub(super) version: u64,
}

#[derive(Debug, Default)]
struct Given {
    /// Below these none is free.
    next_group: u32,
    next_meter: u32,
}

impl RuleGroups {
    /// The VIFs that are in one of these groups with the address beside it.
    pub(super) fn who_brings(&self, members: &BTreeSet<(u32, IpNet)>) -> BTreeSet<VifId> {
        if members.is_empty() {
            return BTreeSet::new();
        }
        let brings = |vif: &&Arc<Vif>| {
            let mut groups = vif.policy.groups.iter().filter_map(|name| self.conjunctions.get(name));
            groups.any(|group| pipeline::member_addresses(vif).any(|address| members.contains(&(*group, address))))
        };
        self.made_from.values().filter(brings).map(|vif| vif.id).collect()
    }
}

impl Placed {
    /// The flows that are wanted, as they were last planned; `None` while it is not known what they need.
    pub(super) fn flows(&self) -> Option<Vec<Flow>> {
        let facts = self.facts.as_ref()?;
        Some(self.wanted.as_ref().map_or_else(|| pipeline::vif(facts), |flows| flows.to_vec()))
    }
}

impl Switches {
    /// Nothing but what VIFs and networks have.
    pub(in crate::plan) fn forgetful(&self) -> Self {
        Switches { held: self.held.clone(), bearers: self.bearers.clone(), ..Switches::default() }
    }

    /// The same under other settings, as far as it is in them.
    pub(in crate::plan) fn under(&self, before: &Settings, now: &Settings) -> Self {
        let mut switches = self.forgetful();
        switches.held.follow_settings(before, now);
        switches
    }

    /// Begins a plan. Answers bridges of which the condition is another, and VIFs that others' records make other flows for.
    pub(in crate::plan) fn refresh(&mut self, inputs: &Inputs<'_>) -> (BTreeSet<String>, BTreeSet<VifId>) {
        self.given.clear();
        self.bearers.follow(&inputs.desired.vifs);
        let bridges = inputs.settings.bridges.keys().map(String::as_str).chain(left_behind(inputs));
        let now: BTreeMap<String, Condition> =
            bridges.map(|name| (name.to_owned(), Condition::of(inputs, name))).collect();
        let before = std::mem::replace(&mut self.conditions, now);
        let changed = |name: &&String| before.get(*name) != self.conditions.get(*name);
        let bridges = before.keys().chain(self.conditions.keys()).filter(changed).cloned().collect();
        let mut others = self.refresh_groups(inputs.desired);
        others.extend(self.trunks.follow(&inputs.desired.vifs));
        (bridges, others)
    }

    /// Whether a VIF has sub-ports.
    pub(super) fn is_trunk(&self, id: VifId) -> bool {
        self.trunks.sub_ports.contains_key(&id)
    }

    /// Bridges that somebody else has, and who.
    pub(in crate::plan) fn unmanaged(&self) -> BTreeMap<String, String> {
        let claimed = |condition: &Condition| match condition {
            Condition::Claimed(reason) => Some(reason.clone()),
            _ => None,
        };
        self.conditions.iter().filter_map(|(name, condition)| Some((name.clone(), claimed(condition)?))).collect()
    }

    /// Finds the members of all groups that rules name. Answers the VIFs whose rules mean something else by it.
    fn refresh_groups(&mut self, desired: &Desired) -> BTreeSet<VifId> {
        if self.groups.made_from.is(&desired.vifs) {
            return BTreeSet::new();
        }
        let policies = || desired.vifs.values().map(|vif| &vif.policy);
        let rules = policies().flat_map(|policy| policy.rules.iter().flatten());
        let conjunctions = pipeline::conjunctions(rules.filter_map(|rule| rule.remote_group.as_deref()));
        let mut members: BTreeMap<u32, BTreeSet<IpNet>> =
            conjunctions.values().map(|id| (*id, BTreeSet::new())).collect();
        let mut join = |name: &str, addresses: &mut dyn Iterator<Item = IpNet>| {
            if let Some(group) = conjunctions.get(name).and_then(|id| members.get_mut(id)) {
                group.extend(addresses);
            }
        };
        for vif in desired.vifs.values() {
            for name in &vif.policy.groups {
                join(name, &mut pipeline::member_addresses(vif));
            }
            for (name, addresses) in &vif.policy.group_members {
                join(name, &mut addresses.iter().copied());
            }
        }
        let renumbered =
            self.groups.conjunctions.iter().any(|(name, id)| conjunctions.get(name).is_some_and(|is| is != id));
        let members = members.into_iter().map(|(id, addresses)| (id, addresses.into_iter().collect())).collect();
        let version = self.groups.version + u64::from(self.groups.members != members);
        self.groups = RuleGroups { made_from: desired.vifs.clone(), conjunctions, members, version };
        if renumbered {
            self.placed.iter().filter(|(_, placed)| placed.has_rules).map(|(id, _)| *id).collect()
        } else {
            BTreeSet::new()
        }
    }

    /// Numbers of the groups that these rules name.
    pub(super) fn conjunctions_of(&self, rules: &[Rule]) -> BTreeMap<String, u32> {
        let names = rules.iter().filter_map(|rule| rule.remote_group.as_ref());
        names.filter_map(|name| Some((name.clone(), *self.groups.conjunctions.get(name)?))).collect()
    }

    /// A VIF is to be on a bridge. It is a member of its network only when it has joined again.
    pub(super) fn place(&mut self, id: VifId, (bridge, network): (&str, NetworkKey), cookie: Cookie, face: Face) {
        if self.placed.get(&id).is_some_and(|placed| placed.bridge != bridge || placed.network != network) {
            self.unplace(id);
        }
        self.placed.entry(id).or_insert_with(|| Placed {
            bridge: bridge.to_owned(),
            network,
            cookie,
            facts: None,
            wanted: None,
            clean_on: None,
            has_rules: false,
        });
        self.holders.entry(bridge.to_owned()).or_default().insert((cookie.0, id));
        let place = (bridge.to_owned(), network);
        let shared = self.networks.entry(place.clone()).or_default();
        let same = shared.faces.get(&id) == Some(&face);
        if !same {
            shared.faces.insert(id, face);
        }
        // Until it is known to be one, which `join` says.
        let before = shared.members.remove(&id);
        self.touched.entry(id).or_insert(before);
        if !same {
            self.stir(place);
        }
    }

    /// Something of a network is another.
    fn stir(&mut self, place: (String, NetworkKey)) {
        self.version += 1;
        self.restless.insert(place);
    }

    /// A VIF is on no managed bridge.
    pub(in crate::plan) fn unplace(&mut self, id: VifId) {
        let Some(placed) = self.placed.remove(&id) else { return };
        self.retained = false;
        if let Some(holders) = self.holders.get_mut(&placed.bridge) {
            holders.remove(&(placed.cookie.0, id));
        }
        let place = (placed.bridge, placed.network);
        let Some(shared) = self.networks.get_mut(&place) else { return };
        shared.faces.remove(&id);
        shared.members.remove(&id);
        if shared.faces.is_empty() {
            self.networks.remove(&place);
            self.restless.remove(&place);
            self.version += 1;
        } else {
            self.stir(place);
        }
    }

    /// A VIF's member of its network; none for an inactive one.
    pub(super) fn join(&mut self, id: VifId, member: Option<Member>) {
        let Some(placed) = self.placed.get(&id) else { return };
        let place = (placed.bridge.clone(), placed.network);
        if let (Some(shared), Some(member)) = (self.networks.get_mut(&place), member) {
            shared.members.insert(id, member);
        }
    }

    /// The flows that follow from these facts.
    pub(super) fn wanted(&mut self, id: VifId, facts: &PortFacts) -> Arc<[Flow]> {
        let Some(placed) = self.placed.get_mut(&id) else { return pipeline::vif(facts).into() };
        if placed.facts.as_ref() != Some(facts) {
            placed.wanted = None;
            placed.has_rules = facts.rules.is_some();
            placed.facts = Some(facts.clone());
            placed.clean_on = None;
        }
        Arc::clone(placed.wanted.get_or_insert_with(|| pipeline::vif(facts).into()))
    }

    /// Whether these very flows were found to be those that follow from these facts.
    pub(super) fn is_clean(&self, id: VifId, facts: &PortFacts, observed: Option<&Arc<FlowSet>>) -> bool {
        let placed = self.placed.get(&id).filter(|placed| placed.facts.as_ref() == Some(facts));
        let clean = placed.and_then(|placed| placed.clean_on.as_ref());
        clean.zip(observed).is_some_and(|(clean, observed)| Arc::ptr_eq(clean, observed))
    }

    pub(super) fn clean(&mut self, id: VifId, observed: Option<&Arc<FlowSet>>) {
        if let Some(placed) = self.placed.get_mut(&id) {
            placed.clean_on = observed.cloned();
            placed.wanted = None;
        }
    }

    /// The flows that every bridge has.
    pub(super) fn common(&mut self, owner: OwnerTag) -> Arc<[Flow]> {
        if self.common.as_ref().is_none_or(|(of, _)| *of != owner) {
            self.common = Some((owner, pipeline::bridge(owner).into()));
        }
        self.common.as_ref().map(|(_, flows)| Arc::clone(flows)).unwrap_or_default()
    }

    /// The lowest meter of this range that is free, which it is not any more in this plan.
    pub(super) fn free_meter(&mut self, bridge: &str, state: &FlowState, range: RangeInclusive<u32>) -> Option<u32> {
        let given = self.given.entry(bridge.to_owned()).or_default();
        let free = |id: &u32| !state.meters.contains_key(id) && !self.held.has_meter(bridge, *id);
        let id = (given.next_meter.max(*range.start())..=*range.end()).find(free);
        given.next_meter = id.unwrap_or(*range.end()).saturating_add(1);
        id
    }

    /// The lowest group of this range that no flow names and no network has, which it is not any more in this plan. One
    /// that is there and named by none is what is left of flows that somebody deleted.
    pub(super) fn free_group(&mut self, bridge: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let given = self.given.entry(bridge.to_owned()).or_default();
        let usage = self.usage.get(bridge);
        let taken = |id| usage.is_some_and(|usage| usage.names_group(id)) || self.held.has_group(bridge, id);
        let id = (given.next_group.max(*range.start())..=*range.end()).find(|id| !taken(*id));
        given.next_group = id.unwrap_or(*range.end()).saturating_add(1);
        id
    }

    /// The networks of a bridge.
    pub(super) fn networks_of<'a>(&'a self, bridge: &str) -> impl Iterator<Item = (NetworkKey, &'a SharedNetwork)> {
        let of = bridge.to_owned();
        let first = (of.clone(), FIRST_KEY);
        self.networks
            .range(first..)
            .take_while(move |((name, _), _)| *name == of)
            .map(|((_, key), network)| (*key, network))
    }

    /// Ends the placing of VIFs.
    pub(super) fn placed_all(&mut self) {
        if !std::mem::replace(&mut self.retained, true) {
            let (placed, networks) = (&self.placed, &self.networks);
            let is_on = |id, bridge: &str, network: Option<NetworkKey>| {
                let of = |placed: &Placed| network.is_none_or(|network| placed.network == network);
                placed.get(&id).is_some_and(|placed| placed.bridge == bridge && of(placed))
            };
            self.held.retain(|id| placed.contains_key(&id), is_on, |place| networks.contains_key(place));
        }
        for (id, was) in std::mem::take(&mut self.touched) {
            let Some(placed) = self.placed.get(&id) else { continue };
            let place = (placed.bridge.clone(), placed.network);
            let is = self.networks.get(&place).and_then(|network| network.members.get(&id));
            if was.as_ref() != is {
                self.stir(place);
            }
        }
    }

    /// The networks of a bridge that have to be looked at, beside `look` of which the others were looked at before.
    pub(super) fn to_look_at(&self, bridge: &str, owner: OwnerTag, look: &Looked) -> BTreeSet<NetworkKey> {
        let all = || self.networks_of(bridge).map(|(key, _)| key);
        let Some(before) = self.looked.get(bridge) else { return all().collect() };
        let (was, is) = (&before.state, &look.state);
        if before.common != look.common || before.limbo != look.limbo || !was.foreign.is(&is.foreign) {
            return all().collect();
        }
        let first = (bridge.to_owned(), FIRST_KEY);
        let restless = self.restless.range(first..).take_while(|(of, _)| of == bridge);
        let mut keys: BTreeSet<NetworkKey> = restless.map(|(_, key)| *key).collect();
        is_another(&before.uplinks, &look.uplinks, &mut keys);
        keys.extend(before.numberless.symmetric_difference(&look.numberless));
        was.groups.differing(&is.groups, |id, _, _| keys.extend(self.held.group_of(bridge, *id)));
        let mut cookies = BTreeSet::new();
        was.owned.differing(&is.owned, |cookie, was, is| {
            cookies.extend([*cookie]);
            // Who comes into use has a say in whether there is something to flood.
            if admitted_to(was) != admitted_to(is)
                && let Some(holders) = self.holders.get(bridge)
            {
                let first = (*cookie, VifId(uuid::Uuid::nil()));
                let vifs = holders.range(first..).take_while(|(of, _)| of == cookie);
                keys.extend(vifs.filter_map(|(_, id)| self.placed.get(id)).map(|placed| placed.network));
            }
        });
        if !cookies.is_empty() {
            keys.extend(all().filter(|key| cookies.contains(&Cookie::network(owner, *key).0)));
        }
        keys.retain(|key| self.networks.contains_key(&(bridge.to_owned(), *key)));
        keys
    }

    /// A network was looked at: there was nothing to do for it, or there was.
    pub(super) fn settle(&mut self, place: (String, NetworkKey), is_clean: bool) {
        if is_clean {
            self.restless.remove(&place)
        } else {
            self.restless.insert(place)
        };
    }

    /// What the networks of a bridge were looked at with; nothing where they were not.
    pub(super) fn looked(&mut self, bridge: &str, look: Option<Looked>) {
        match look {
            Some(look) => drop(self.looked.insert(bridge.to_owned(), look)),
            None => {
                self.looked.remove(bridge);
                self.usage.remove(bridge);
            }
        }
    }

    /// How the flows that all on a bridge share were found, where they were all there and nothing of it is another.
    pub(super) fn known_common(&self, bridge: &str, owner: OwnerTag, state: &FlowState) -> Option<Common> {
        let before = self.looked.get(bridge)?;
        let common = before.common.as_ref().ok().filter(|common| common.all)?;
        let same = |cookie: Cookie| {
            let (was, is) = (before.state.owned.get(&cookie.0), state.owned.get(&cookie.0));
            was.zip(is).is_some_and(|(was, is)| Arc::ptr_eq(was, is)) || (was.is_none() && is.is_none())
        };
        let same = same(Cookie::bridge(owner))
            && same(Cookie::groups(owner))
            && before.state.foreign.is(&state.foreign)
            && before.rule_groups == self.groups.version;
        same.then(|| common.clone())
    }

    /// What everything that VIFs share on a bridge is made from.
    pub(super) fn scene(&self, bridge: &str, inputs: &Inputs<'_>) -> Option<Scene> {
        let View::Ready(state) = inputs.observed.flows.get(bridge)? else { return None };
        let ovs = inputs.observed.ovs.ready()?;
        Some(Scene {
            state: Arc::clone(state),
            ports: ovs.ports.clone(),
            interfaces: ovs.interfaces.clone(),
            records: inputs.desired.vifs.clone(),
            sweeps: absence_counts(inputs.desired),
            version: self.version,
        })
    }

    /// Whether there was nothing to do on a bridge as it is.
    pub(super) fn is_quiet(&self, bridge: &str, scene: &Scene) -> bool {
        self.quiet.get(bridge).is_some_and(|known| known.is(scene))
    }

    /// There is nothing to do on a bridge as it is, or that is not known.
    pub(super) fn quieten(&mut self, bridge: &str, scene: Option<Scene>) {
        match scene {
            Some(scene) => drop(self.quiet.insert(bridge.to_owned(), scene)),
            None => drop(self.quiet.remove(bridge)),
        }
    }

    /// Cookies of the VIFs on a bridge, in their order.
    pub(super) fn cookies_of(&self, bridge: &str) -> impl Iterator<Item = &u64> {
        self.holders.get(bridge).into_iter().flatten().map(|(cookie, _)| cookie)
    }
}

/// The keys at which two maps differ.
fn is_another<K: Copy + Ord, V: PartialEq>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>, keys: &mut BTreeSet<K>) {
    keys.extend(before.keys().filter(|key| !now.contains_key(key)));
    keys.extend(now.iter().filter(|(key, is)| before.get(key) != Some(is)).map(|(key, _)| *key));
}

/// The network, by its metadata, that a VIF with these flows is let into.
pub(super) fn admitted_to(set: Option<&Arc<FlowSet>>) -> Option<u64> {
    let mut metadata = set.into_iter().flat_map(|set| set.values()).map(|flow| flow.instructions.metadata.as_deref());
    metadata.find_map(|metadata| metadata.map(|(number, _)| *number))
}
