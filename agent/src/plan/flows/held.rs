//! What VIFs and networks have on managed bridges: numbers that somebody had to choose. It is found on the switch when
//! it is looked at for the first time, and stays from then on: what a flow says later may be somebody's hand. So do
//! how a network leaves its bridge, where its records disagree or several would by the same uplink and VLAN, and who is
//! in it. This, and who of several came first to a number (`bearers`), is all that a planner remembers and that a plan
//! may be another for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Settings;
use super::super::pipeline::{MeterIds, NetworkKey};
use super::memory::Face;
use crate::model::VifId;

/// Who has what.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct Held {
    /// Groups of a network on a bridge, in their order.
    groups: BTreeMap<(String, NetworkKey), Vec<u32>>,
    /// The same the other way round.
    grouped: BTreeMap<String, BTreeMap<u32, NetworkKey>>,
    /// How a network leaves a bridge, since records may disagree; and whether it is the one that does so, since two
    /// networks may want to and one can.
    faces: BTreeMap<(String, NetworkKey), (Face, bool)>,
    /// Networks that VIFs were let into, each with its record's consent to how it leaves the bridge or with flows from
    /// then: what becomes of the record later does not shut them out.
    members: BTreeMap<VifId, (String, NetworkKey)>,
    /// Zones of VIFs, and whether flows with them were seen.
    zones: BTreeMap<VifId, (u16, bool)>,
    /// The same the other way round.
    zoned: BTreeMap<u16, VifId>,
    /// Zones that this agent gave since it runs.
    given_zones: BTreeSet<u16>,
    /// Where the search for a free zone begins: one that was given back rests as long as there are others.
    pub(super) next_zone: Option<u32>,
    /// The bridge that a VIF has meters on, and which.
    meters: BTreeMap<VifId, (String, MeterIds)>,
    /// The same the other way round.
    metered: BTreeMap<(String, u32), (VifId, Way)>,
}

/// Which of a VIF's two meters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// For what the guest sends.
    FromVif,
    /// For what it gets.
    ToVif,
}

impl Held {
    /// The groups of a network, once it has any to have.
    pub(super) fn groups(&self, place: &(String, NetworkKey)) -> Option<&Vec<u32>> {
        self.groups.get(place)
    }

    /// A network has these groups from now on, and no other.
    pub(super) fn set_groups(&mut self, place: (String, NetworkKey), groups: Vec<u32>) {
        self.drop_groups(&place);
        let grouped = self.grouped.entry(place.0.clone()).or_default();
        grouped.extend(groups.iter().map(|id| (*id, place.1)));
        self.groups.insert(place, groups);
    }

    fn drop_groups(&mut self, place: &(String, NetworkKey)) {
        let groups = self.groups.remove(place).unwrap_or_default();
        if let Some(grouped) = self.grouped.get_mut(&place.0) {
            for id in groups {
                grouped.remove(&id);
            }
        }
    }

    /// The network of a bridge that has this group.
    pub(super) fn group_of(&self, bridge: &str, group: u32) -> Option<NetworkKey> {
        self.grouped.get(bridge)?.get(&group).copied()
    }

    /// Whether a network of a bridge has this group.
    pub(super) fn has_group(&self, bridge: &str, group: u32) -> bool {
        self.group_of(bridge, group).is_some()
    }

    /// How a network leaves its bridge, once that was decided.
    pub(super) fn face(&self, place: &(String, NetworkKey)) -> Option<Face> {
        self.faces.get(place).map(|(face, _)| *face)
    }

    /// A network leaves its bridge this way from now on. By another way than before it may be in somebody's.
    pub(super) fn set_face(&mut self, place: (String, NetworkKey), face: Face) {
        let entry = self.faces.entry(place).or_insert((face, false));
        if entry.0 != face {
            *entry = (face, false);
        }
    }

    /// Whether uplink and VLAN of a network's face are this one's, also while the uplink is away.
    pub(super) fn has_uplink(&self, place: &(String, NetworkKey)) -> bool {
        self.faces.get(place).is_some_and(|(_, has)| *has)
    }

    /// They are from now on, or are another's.
    pub(super) fn set_uplink(&mut self, place: &(String, NetworkKey), is: bool) {
        if let Some((_, has)) = self.faces.get_mut(place) {
            *has = is;
        }
    }

    /// Whether a VIF was let into this network.
    pub(super) fn is_member(&self, vif: VifId, bridge: &str, network: NetworkKey) -> bool {
        self.members.get(&vif).is_some_and(|(on, of)| on == bridge && *of == network)
    }

    /// A VIF is let into this network, and into no other.
    pub(super) fn set_member(&mut self, vif: VifId, bridge: &str, network: NetworkKey) {
        if !self.is_member(vif, bridge, network) {
            self.members.insert(vif, (bridge.to_owned(), network));
        }
    }

    /// The settings are others: what is not in them any more is dropped, as if it had never been seen.
    pub(super) fn follow_settings(&mut self, before: &Settings, now: &Settings) {
        let strange = |groups: &[u32]| groups.iter().any(|id| !now.groups.contains(*id));
        let gone: Vec<_> = self.groups.iter().filter(|(_, ids)| strange(ids)).map(|(place, _)| place.clone()).collect();
        gone.iter().for_each(|place| self.drop_groups(place));
        let strange =
            |ids: &MeterIds| [ids.from_vif, ids.to_vif].into_iter().flatten().any(|id| !now.meters.contains(id));
        let gone: Vec<VifId> = self.meters.iter().filter(|(_, (_, ids))| strange(ids)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.drop_meters(id));
        // The same port may be another of the uplinks.
        self.faces.retain(|(bridge, _), (face, _)| {
            let Some(nth) = face.uplink else { return true };
            let uplinks = |settings: &'_ Settings| settings.bridges.get(bridge).map(|managed| managed.uplinks.clone());
            let port = uplinks(before).and_then(|uplinks| Some(uplinks.get(nth)?.port.clone()));
            face.uplink =
                uplinks(now).and_then(|uplinks| uplinks.iter().position(|is| Some(&is.port) == port.as_ref()));
            face.uplink.is_some()
        });
    }

    /// The zone that a VIF has.
    pub(super) fn zone(&self, vif: VifId) -> Option<u16> {
        self.zones.get(&vif).map(|(zone, _)| *zone)
    }

    /// Whether some VIF has this zone.
    pub(super) fn has_zone(&self, zone: u16) -> bool {
        self.zoned.contains_key(&zone)
    }

    /// A VIF has this zone from now on, or none.
    pub(super) fn set_zone(&mut self, vif: VifId, zone: Option<u16>) {
        if let Some((was, _)) = self.zones.remove(&vif) {
            self.zoned.remove(&was);
        }
        if let Some(zone) = zone {
            self.zones.insert(vif, (zone, false));
            self.zoned.insert(zone, vif);
        }
    }

    /// This agent gave a zone.
    pub(super) fn give_zone(&mut self, zone: u16) {
        self.given_zones.insert(zone);
        self.next_zone = Some(u32::from(zone) + 1);
    }

    /// Whether it did.
    pub(super) fn gave_zone(&self, zone: u16) -> bool {
        self.given_zones.contains(&zone)
    }

    /// A VIF's flows with its zone are there: what it has in it from now on is its own.
    pub(super) fn open_zone(&mut self, vif: VifId) {
        if let Some((_, opened)) = self.zones.get_mut(&vif) {
            *opened = true;
        }
    }

    /// Whether they were there.
    pub(super) fn has_opened_zone(&self, vif: VifId) -> bool {
        self.zones.get(&vif).is_some_and(|(_, opened)| *opened)
    }

    /// The meter that a VIF has on a bridge. Where it has none yet, the one that its flow on the switch names counts,
    /// unless that is somebody else's.
    pub(super) fn meter(&self, bridge: &str, vif: VifId, way: Way, named: impl FnOnce() -> Option<u32>) -> Option<u32> {
        let meters = self.meters.get(&vif).filter(|(on, _)| on == bridge).map(|(_, meters)| meters);
        let had = meters.and_then(|meters| match way {
            Way::FromVif => meters.from_vif,
            Way::ToVif => meters.to_vif,
        });
        let free = |meter: &u32| self.metered.get(&(bridge.to_owned(), *meter)).is_none_or(|who| *who == (vif, way));
        had.or_else(|| named().filter(free))
    }

    /// Whether a VIF has this meter.
    pub(super) fn has_meter(&self, bridge: &str, meter: u32) -> bool {
        self.metered.contains_key(&(bridge.to_owned(), meter))
    }

    /// A VIF has these meters on this bridge from now on, and no other.
    pub(super) fn set_meters(&mut self, bridge: &str, vif: VifId, is: MeterIds) {
        if self.meters.get(&vif).is_some_and(|(on, was)| on == bridge && *was == is) {
            return;
        }
        self.drop_meters(vif);
        if is == MeterIds::default() {
            return;
        }
        let ways = [(is.from_vif, Way::FromVif), (is.to_vif, Way::ToVif)];
        let ways = ways.into_iter().filter_map(|(meter, way)| Some(((bridge.to_owned(), meter?), (vif, way))));
        self.metered.extend(ways);
        self.meters.insert(vif, (bridge.to_owned(), is));
    }

    fn drop_meters(&mut self, vif: VifId) {
        let Some((bridge, meters)) = self.meters.remove(&vif) else { return };
        for meter in [meters.from_vif, meters.to_vif].into_iter().flatten() {
            self.metered.remove(&(bridge.clone(), meter));
        }
    }

    /// Takes back what those have who are not there any more.
    pub(super) fn retain(
        &mut self,
        is_there: impl Fn(VifId) -> bool,
        vif: impl Fn(VifId, &str, Option<NetworkKey>) -> bool,
        network: impl Fn(&(String, NetworkKey)) -> bool,
    ) {
        let gone: Vec<_> = self.groups.keys().filter(|place| !network(place)).cloned().collect();
        gone.iter().for_each(|place| self.drop_groups(place));
        self.faces.retain(|place, _| network(place));
        self.members.retain(|id, (bridge, key)| vif(*id, bridge, Some(*key)));
        let gone: Vec<VifId> = self.zones.keys().filter(|id| !is_there(**id)).copied().collect();
        for id in gone {
            self.set_zone(id, None);
        }
        let gone: Vec<VifId> =
            self.meters.iter().filter(|(id, (bridge, _))| !vif(**id, bridge, None)).map(|(id, _)| *id).collect();
        for id in gone {
            self.drop_meters(id);
        }
    }
}
