//! Zones of connection tracking. They are the datapath's, and so the host's: whoever else tracks connections has some of
//! them. Which one a VIF has is written on its interface, since connections outlive flows and daemons.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flows::Action;
use flows::action::Zone;
use ovsdb::text::Text;

use super::super::compare::Work;
use super::super::pipeline::{Cookie, PortFacts};
use super::super::settings::{Owner, ZONE};
use crate::backend::openflow::FlowChange;
use crate::model::{FlowSet, FlowState, Interface, OvsState, VifId};

/// What OVN and others that do as it does call a zone of theirs in a bridge's `external_ids`.
const OF_OTHERS: &str = "ct-zone-";

/// Whose zones are.
#[derive(Debug, Default)]
pub(in crate::plan) struct Zones {
    /// Those that others have, by the rows of bridges.
    others: BTreeSet<u32>,
    /// Interfaces by their zones, with the keys that these are under: a trunk's interface has those of its sub-ports too.
    interfaces: BTreeMap<u32, BTreeSet<(Text, String)>>,
    /// Those that this plan gives.
    given: BTreeSet<u32>,
}

impl Zones {
    fn of(ovs: Option<&OvsState>) -> Self {
        let bridges = ovs.into_iter().flat_map(|ovs| ovs.bridges.values());
        let ids = bridges.flat_map(|bridge| bridge.external_ids.iter());
        let others =
            ids.filter(|(key, _)| key.starts_with(OF_OTHERS)).filter_map(|(_, zone)| zone.parse().ok()).collect();
        let mut zones = Zones { others, ..Zones::default() };
        for interface in ovs.into_iter().flat_map(|ovs| ovs.interfaces.values()) {
            let ids = interface.external_ids.iter();
            let of_vifs =
                ids.filter(|(key, _)| key.strip_prefix(ZONE).is_some_and(|id| id.is_empty() || id.starts_with('-')));
            for (key, zone) in of_vifs.filter_map(|(key, zone)| Some((key, zone.parse().ok()?))) {
                zones.interfaces.entry(zone).or_default().insert((interface.name.clone(), key.to_string()));
            }
        }
        zones
    }

    fn is_free(&self, zone: u32) -> bool {
        !self.others.contains(&zone) && !self.interfaces.contains_key(&zone) && !self.given.contains(&zone)
    }
}

impl Work<'_> {
    fn zones(&mut self) -> &mut Zones {
        let ovs = self.inputs.observed.ovs.ready();
        self.zones.get_or_insert_with(|| Zones::of(ovs))
    }

    /// The zone that a VIF's interface has for it under this key, where it may have it. Of several with the same one has it: who had it before,
    /// else an interface that is not ours to change, else the first.
    pub(super) fn zone_of(&mut self, vif: VifId, key: &str, interface: &Interface) -> Option<u16> {
        let settings = self.inputs.settings;
        let zone: u16 = interface.external_ids.get(key)?.parse().ok()?;
        if !settings.zones.contains(zone.into()) {
            return None;
        }
        if self.switches.held.zone(vif) == Some(zone) {
            return Some(zone);
        }
        let ovs = self.inputs.observed.ovs.ready();
        let had = self.switches.held.has_zone(zone);
        let zones = self.zones();
        let own = (interface.name.clone(), key.to_owned());
        let mut first = own.clone();
        for other in zones.interfaces.get(&u32::from(zone)).into_iter().flatten() {
            let row = ovs.and_then(|ovs| ovs.interfaces.get(&other.0));
            let is_ours = row.is_some_and(|row| matches!(settings.owner(&row.external_ids), Owner::Us { .. }));
            if !is_ours || *other < first {
                first = other.clone();
                if !is_ours {
                    break;
                }
            }
        }
        if had || zones.others.contains(&zone.into()) || first != own {
            return None;
        }
        self.switches.held.set_zone(vif, Some(zone));
        let next = &mut self.switches.held.next_zone;
        *next = (*next).max(Some(u32::from(zone) + 1));
        Some(zone)
    }

    /// The next zone that nobody has.
    pub(super) fn free_zone(&mut self) -> Option<u16> {
        let range = self.inputs.settings.zones;
        let last = self.switches.held.next_zone;
        let zones = self.zones();
        // At first, behind all that are in use.
        let behind = || zones.interfaces.range(range.first..=range.last).next_back().map(|(zone, _)| zone + 1);
        let from = last.or_else(behind).filter(|zone| range.contains(*zone)).unwrap_or(range.first);
        let zone = (from..=range.last).chain(range.first..from).find(|zone| zones.is_free(*zone))?;
        zones.given.insert(zone);
        let zone = u16::try_from(zone).ok()?;
        self.switches.held.give_zone(zone);
        Some(zone)
    }

    /// What comes before the first flow with a zone that a VIF has not had: the end of connections that somebody else
    /// had in it. Flows of a switch that was restarted return to connections that are theirs.
    pub(super) fn new_zone(
        &mut self,
        vif: VifId,
        facts: &PortFacts,
        observed: Option<&Arc<FlowSet>>,
        state: &FlowState,
    ) -> Option<FlowChange> {
        let zone = facts.rules.as_ref()?.zone;
        let names = |action: &Action| matches!(action, Action::Conntrack(ct) if ct.zone == Zone::Number(zone));
        let mut flows = observed.into_iter().flat_map(|set| set.values());
        let is_there = flows.any(|flow| flow.instructions.apply.iter().any(names));
        if is_there {
            self.switches.held.open_zone(vif);
        }
        let held = &self.switches.held;
        let has_lost_all = !state.owned.contains_key(&Cookie::bridge(self.tag()).0) && !held.gave_zone(zone);
        (!held.has_opened_zone(vif) && !has_lost_all).then_some(FlowChange::FlushZone(zone))
    }
}
