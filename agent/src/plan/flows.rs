//! Flows: what a VIF's lack, where its bridge is managed. Which flows it wants is `pipeline`'s word; what they need of the
//! host (a port, meters, a zone) is found here. The flows that VIFs share are in `flows/network.rs` and
//! `flows/bridge.rs`, what is kept from one plan to the next in `flows/memory.rs`.
//!
//! ```text
//!   port usable ──facts──► pipeline ──► wanted ─┐
//!                                               ├─ diff ─► operations, FlowsReady
//!   switch ──► flows with the VIF's cookie ─────┘
//! ```

mod bearers;
mod bridge;
mod held;
mod intended;
mod memory;
mod network;
mod usage;
mod zones;

use std::sync::Arc;

use bytes::Bytes;
use flows::diff::diff_flows;
use flows::message::PacketOut;
use flows::{Action, Flow, FlowId, GroupMod, MeterCommand, MeterMod, PortNo};

use self::bearers::Bearer;
pub(super) use self::bridge::Condition;
use self::held::Way;
pub use self::intended::{FlowsOf, Intended};
use self::memory::Face;
pub(super) use self::memory::Switches;
pub(super) use self::zones::Zones;
use super::blueprint::Blueprint;
use super::compare::{Findings, Work};
use super::inventory::port_owner;
use super::pipeline::{self, Attachment, Cookie, Member, MeterIds, NetworkKey, OwnerTag, PortFacts, RuleFacts, tables};
use super::rows::entries;
use super::settings::{Owner, Settings, ZONE};
use super::sight::Sight;
use super::sub_ports::{marked, zone_key};
use super::{ManagedBridge, Missing, Uplink};
use crate::backend::Party;
use crate::backend::openflow::{FlowChange, FlowOp};
use crate::backend::ovs::{OvsOp, StringMap};
use crate::model::{FlowSet, FlowState, Interface, Port, Vif, VifId};

/// The greatest number that ovs-vswitchd gives a port (`OFPP_MAX` of OpenFlow 1.0, less one).
const GREATEST_PORT: i64 = 0xfeff;

/// Where a VIF's flows are, with what its verdict needs of its network.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bridge: String,
    pub(super) network: NetworkKey,
    /// What stands for its port; absent for an inactive VIF, which needs nothing of its network.
    pub(super) id: Option<u32>,
    /// The groups that its rules name, whose members are flows of their own. Those that it is in are in `bridge`.
    pub(super) groups: Vec<u32>,
}

/// What a VIF's flows are for: a port, or a VLAN of its trunk's.
struct Berth<'b> {
    bridge: &'b str,
    port: &'b str,
    /// Whose port.
    of: VifId,
    /// VLAN of a sub-port.
    vlan: Option<u16>,
    /// Whether the port is in use.
    active: bool,
}

impl<'b> Berth<'b> {
    fn of(id: VifId, blueprint: &'b Blueprint, settings: &Settings) -> Option<Self> {
        if let Some(of) = blueprint.sub_port.as_ref().filter(|of| !of.patched) {
            let (bridge, port) = (&of.bridge, &of.port);
            return Some(Berth { bridge, port, of: of.parent, vlan: Some(of.vlan), active: of.active });
        }
        let port = blueprint.managed_port(settings)?;
        // What a trunk that is not active sends by its trunk bridge arrives here all the same.
        let active = blueprint.sub_port.as_ref().is_none_or(|of| of.active);
        Some(Berth { bridge: &port.bridge, port: &port.name, of: id, vlan: None, active })
    }
}

impl<'a> Work<'a> {
    pub(super) fn tag(&self) -> OwnerTag {
        OwnerTag::of(&self.inputs.settings.agent)
    }

    /// What the flows of a VIF lack.
    pub(super) fn flows(
        &mut self,
        id: VifId,
        vif: &Vif,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) {
        let settings = self.inputs.settings;
        let Some(berth) = Berth::of(id, blueprint, settings) else {
            self.switches.unplace(id);
            let Some(last) = blueprint.ports.last() else { return };
            sight.switch(&last.bridge);
            if let Condition::Claimed(reason) = self.condition(&last.bridge) {
                found.conflict.get_or_insert(reason);
            }
            return;
        };
        let bridge = berth.bridge;
        let network = NetworkKey::of(vif);
        found.flows_ready = Some(false);
        sight.switch(bridge);
        let cookie = Cookie::vif(self.tag(), id);
        let face = settings.bridges.get(bridge).map_or_else(Face::default, |managed| face(managed, vif));
        self.switches.place(id, (bridge, network), cookie, face);
        let state = match self.condition(bridge) {
            Condition::Usable => self.state(bridge),
            Condition::Unseen => {
                // While ovs-vswitchd is away, or has yet to make the bridge, that is what is missing.
                if sight.sees_vswitchd() {
                    found.unanswered.get_or_insert(Missing::Switch(bridge.to_owned()));
                }
                return;
            }
            Condition::Unsecured => {
                found.unanswered.get_or_insert(Missing::Switch(bridge.to_owned()));
                return;
            }
            Condition::Claimed(reason) => {
                found.conflict.get_or_insert(reason);
                return;
            }
        };
        sight.cookie(bridge, cookie);
        let Some(state) = state else { return };
        let of_network = Cookie::network(self.tag(), network);
        for (bearer, of) in [(Bearer::Vif(id), cookie), (Bearer::Network(network), of_network)] {
            let Some(other) = self.switches.bearers.before(bearer) else { continue };
            sight.glimpse();
            found.conflict.get_or_insert(format!(
                "{bearer} would have cookie {of}, which is that of {other}: one of the two needs another id"
            ));
            // What has its own cookie on the switch is the other one's. By its network's, packets of two would be one's.
            if of == of_network {
                found.flows.extend(self.bring_to(bridge, &[], state.owned.get(&cookie.0)));
            }
            return;
        }
        if found.flows.iter().any(|op| op.bridge == bridge) {
            // With a port that is given up all of them go first: one that came meanwhile would keep it.
            return;
        }
        let observed = state.owned.get(&cookie.0);
        let leaves = |op: &OvsOp| matches!(op, OvsOp::DeletePort { name, .. } if name == berth.port);
        let port = sight.port(berth.port).filter(|port| port.bridge == bridge && !found.ovs.iter().any(leaves));
        let Some((port, interface)) = port.zip(sight.interface(berth.port)) else {
            // Another port may get its number.
            return self.take_flows(id, bridge, observed, found);
        };
        let ours = matches!(port_owner(port, Some(interface), settings), Owner::Us { vif: Some(owner), .. } if owner == berth.of);
        if !ours {
            return;
        }
        let at = match interface.ofport {
            None => return,
            Some(number @ 1..=GREATEST_PORT) if interface.fault().is_none() => {
                Attachment { port: u16::try_from(number).unwrap_or(u16::MAX), vlan: berth.vlan }
            }
            Some(_) => return self.take_flows(id, bridge, observed, found),
        };
        let Some(facts) = self.facts(vif, (port, interface), (at, berth.active), (bridge, state), sight, found) else {
            return;
        };
        self.uplink_of(bridge, vif, sight, found);
        // Of flows that are known to be the wanted ones, beside nobody else's, there is nothing to find out.
        let is_clean = self.switches.is_clean(id, &facts, observed);
        let flows = if is_clean && state.foreign.is_empty() { [].into() } else { self.switches.wanted(id, &facts) };
        if let Some(clash) = self.clash(bridge, state, &flows) {
            found.conflict.get_or_insert(clash);
            return;
        }
        let groups = facts.rules.iter().flat_map(|rules| rules.conjunctions.values().copied()).collect();
        let at = facts.active.then(|| facts.at.id());
        found.place = Some(Place { bridge: bridge.to_owned(), network, id: at, groups });
        self.switches.join(id, Member::of(&facts));
        for meter in pipeline::meters(&vif.policy.rate, facts.meters) {
            sight.meter(bridge, meter.id);
            let command = match state.meters.get(&meter.id) {
                Some(there) if **there == meter => continue,
                Some(_) => MeterCommand::Modify,
                None => MeterCommand::Add,
            };
            found.flows.push(on(bridge, FlowChange::Meter(MeterMod { command, meter })));
        }
        let changes = if is_clean { Vec::new() } else { self.bring_to(bridge, &flows, observed) };
        if changes.is_empty() {
            self.switches.clean(id, observed);
            self.switches.held.open_zone(id);
        } else {
            found.flows.extend(self.new_zone(id, &facts, observed, state).map(|change| on(bridge, change)));
            found.flows.extend(changes);
            found.flows.extend(self.announcement(vif, &facts, observed, bridge));
        }
    }

    /// A VIF without a port to be for has no flows, and no meters that nothing names.
    fn take_flows(&mut self, id: VifId, bridge: &str, observed: Option<&Arc<FlowSet>>, found: &mut Findings) {
        self.switches.held.set_meters(bridge, id, MeterIds::default());
        found.flows.extend(self.bring_to(bridge, &[], observed));
    }

    /// The facts that a VIF's flows are made from; nothing while some are missing, which `found` then says.
    fn facts(
        &mut self,
        vif: &Vif,
        (port, interface): (&Port, &Interface),
        (at, active): (Attachment, bool),
        (bridge, state): (&str, &FlowState),
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Option<PortFacts> {
        let Some(mut facts) = PortFacts::of(self.tag(), vif, at) else {
            let reason = "the record has no address, and flows are for a guest's address";
            found.flows_failed.get_or_insert(reason.to_owned());
            return None;
        };
        facts.active &= active;
        facts.trunk |= self.switches.is_trunk(vif.id);
        // An inactive VIF has one flow, which needs none of these.
        if !facts.active {
            self.switches.held.set_meters(bridge, vif.id, MeterIds::default());
            self.switches.held.set_zone(vif.id, None);
            return Some(facts);
        }
        let observed = state.owned.get(&Cookie::vif(facts.owner, vif.id).0);
        match self.meters(bridge, state, observed, vif) {
            Ok(meters) => facts.meters = meters,
            Err(reason) => {
                sight.glimpse();
                found.flows_failed.get_or_insert(reason);
                return None;
            }
        }
        if let Some(rules) = &vif.policy.rules {
            let key = if at.vlan.is_some() { zone_key(vif.id) } else { ZONE.to_owned() };
            let Some(zone) = self.zone_of(vif.id, &key, interface) else {
                sight.glimpse();
                match self.free_zone() {
                    Some(zone) => found.ovs.push(OvsOp::ChangeInterface {
                        uuid: interface.uuid,
                        name: port.name.to_string(),
                        guard: entries(&interface.external_ids, &self.inputs.settings.guard()),
                        kind: None,
                        options: StringMap::new(),
                        external_ids: StringMap::from([(key, zone.to_string())]),
                        mac: None,
                        mtu_request: None,
                    }),
                    None => {
                        found.flows_failed.get_or_insert("no conntrack zone is free (openflow.zones)".to_owned());
                    }
                }
                return None;
            };
            found.facts.zone = Some(zone);
            let conjunctions = self.switches.conjunctions_of(rules);
            facts.rules = Some(RuleFacts { zone, rules: rules.clone(), conjunctions });
        } else {
            self.switches.held.set_zone(vif.id, None);
        }
        Some(facts)
    }

    /// The meters of a VIF: those that it has, at the first look those that its flows name, and new ones where there are
    /// none.
    fn meters(
        &mut self,
        bridge: &str,
        state: &FlowState,
        observed: Option<&Arc<FlowSet>>,
        vif: &Vif,
    ) -> Result<MeterIds, String> {
        let range = self.inputs.settings.meters;
        let named = |place: tables::Place| {
            let mut flows = observed.into_iter().flat_map(|set| set.values());
            let flow = flows.find(|flow| tables::Place::of(flow) == place && flow.instructions.meter.is_some())?;
            flow.instructions.meter.filter(|meter| range.contains(*meter))
        };
        let mut one = |wanted: bool, way, place| {
            if !wanted {
                return Ok(None);
            }
            if let Some(meter) = self.switches.held.meter(bridge, vif.id, way, || named(place)) {
                return Ok(Some(meter));
            }
            let last = range.last.min(state.limits.max_meters);
            match self.switches.free_meter(bridge, state, range.first..=last) {
                Some(meter) => Ok(Some(meter)),
                None if state.limits.max_meters == 0 => {
                    Err(format!("the record wants a rate, and the datapath of bridge {bridge} has no meters"))
                }
                None => Err(format!(
                    "no meter is free on bridge {bridge} (openflow.meters; the datapath has {})",
                    state.limits.max_meters
                )),
            }
        };
        let rate = &vif.policy.rate;
        let meters = MeterIds {
            from_vif: one(rate.egress_kbps > 0, Way::FromVif, tables::SENT)?,
            to_vif: one(rate.ingress_kbps > 0, Way::ToVif, tables::OUT)?,
        };
        self.switches.held.set_meters(bridge, vif.id, meters);
        Ok(meters)
    }

    /// Notes what is missing of the uplink of a VIF's network.
    fn uplink_of(&self, bridge: &str, vif: &Vif, sight: &mut Sight<'_>, found: &mut Findings) {
        let label = vif.network.as_ref().and_then(|network| network.label.as_deref());
        let Some(managed) = self.inputs.settings.bridges.get(bridge) else { return };
        let Some(uplink) = uplink(managed, NetworkKey::of(vif), label) else { return };
        let port = sight.port(&uplink.port);
        let interface = sight.interface(&uplink.port);
        if uplink_port(bridge, port, interface).is_none() {
            found.unanswered.get_or_insert(Missing::Uplink(format!(
                "waiting for port {} on bridge {bridge}, the uplink of its network",
                uplink.port
            )));
        }
    }

    /// A flow of somebody else that a wanted one would replace.
    fn clash(&mut self, bridge: &str, state: &FlowState, wanted: &[Flow]) -> Option<String> {
        if state.foreign.is_empty() {
            return None;
        }
        let index = self.foreign.entry(bridge.to_owned()).or_insert_with(|| {
            let sets = state.foreign.iter();
            sets.flat_map(|(cookie, set)| set.keys().map(|id| (id.clone(), *cookie))).collect()
        });
        let (flow, cookie) = wanted.iter().find_map(|flow| Some((flow, *index.get(&FlowId::of(flow))?)))?;
        Some(format!(
            "bridge {bridge} has a flow of somebody else (cookie {cookie:#x}) for table={}, priority={} {}, which is \
             needed",
            flow.table, flow.priority, flow.matching
        ))
    }

    /// What tells the network's switches that an inactive guest is here now.
    fn announcement(
        &self,
        vif: &Vif,
        facts: &PortFacts,
        observed: Option<&Arc<FlowSet>>,
        bridge: &str,
    ) -> Option<FlowOp> {
        let quarantined = |set: &Arc<FlowSet>| set.values().any(|flow| tables::Place::of(flow) == tables::QUARANTINE);
        if !facts.active || !observed.is_some_and(quarantined) {
            return None;
        }
        let label = vif.network.as_ref().and_then(|network| network.label.as_deref());
        let managed = self.inputs.settings.bridges.get(bridge)?;
        let uplink = uplink(managed, facts.network, label)?;
        let ovs = self.inputs.observed.ovs.ready()?;
        let port = ovs.ports.get(uplink.port.as_str()).map(AsRef::as_ref);
        let port = uplink_port(bridge, port, ovs.interfaces.get(uplink.port.as_str()).map(AsRef::as_ref))?;
        let vlan = vif.network.as_ref().and_then(|network| network.vlan);
        let packet = PacketOut {
            buffer: None,
            in_port: PortNo::CONTROLLER,
            actions: [Action::Output { port: PortNo(port.into()), max_len: 0 }].into(),
            data: Bytes::from(pipeline::announcement(facts.mac, vlan)),
        };
        Some(on(bridge, FlowChange::Announce(packet)))
    }

    /// The operations that make of the flows of one owner what is wanted.
    pub(super) fn bring_to(&self, bridge: &str, wanted: &[Flow], observed: Option<&Arc<FlowSet>>) -> Vec<FlowOp> {
        let there = observed.into_iter().flat_map(|set| set.values()).map(AsRef::as_ref);
        // All of them are of one owner of ours.
        let changes = diff_flows(wanted, there, |_| true).changes;
        changes.into_iter().map(|change| on(bridge, FlowChange::Flow(change))).collect()
    }

    /// Whether no flow of ours names the port of a VIF any more, so that it may go; otherwise the flows go first, those of
    /// sub-ports on it last.
    pub(super) fn is_unnamed(&self, id: VifId, port: &Port, interface: Option<&Interface>) -> Result<(), Naming> {
        self.unnamed_by([id], &port.bridge)?;
        let vifs = &self.inputs.desired.vifs;
        let is_here = |of: &VifId| vifs.get(of).is_none_or(|vif| vif.parent.is_some_and(|parent| parent.vif == id));
        let sub_ports = interface.into_iter().flat_map(marked).map(|(of, _)| of).filter(is_here);
        self.unnamed_by(sub_ports, &port.bridge)
    }

    /// Whether these VIFs have no flows on a bridge.
    pub(super) fn unnamed_by(&self, ids: impl IntoIterator<Item = VifId>, bridge: &str) -> Result<(), Naming> {
        let settings = self.inputs.settings;
        let alive =
            self.inputs.observed.ovs.ready().is_some_and(|ovs| ovs.vswitchd_alive && ovs.bridges.contains_key(bridge));
        // Without ovs-vswitchd there are no flows.
        if !settings.bridges.contains_key(bridge) || !alive {
            return Ok(());
        }
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_none() {
            return Ok(());
        }
        let Some(state) = self.state(bridge) else { return Err(Naming::Unseen) };
        // Otherwise they are another owner's with the same cookie.
        let own = ids.filter(|id| self.switches.bearers.before(Bearer::Vif(*id)).is_none());
        let sets = own.filter_map(|id| state.owned.get(&Cookie::vif(self.tag(), id).0));
        let ops: Vec<FlowOp> = sets.flat_map(|set| self.bring_to(bridge, &[], Some(set))).collect();
        if ops.is_empty() { Ok(()) } else { Err(Naming::By(ops)) }
    }

    /// What is on the switch of a bridge, where it can be seen.
    pub(super) fn state(&self, bridge: &str) -> Option<&'a FlowState> {
        self.inputs.observed.flows.get(bridge)?.ready()
    }
}

/// Why a port has to stay for now.
pub(super) enum Naming {
    /// It cannot be seen what names it.
    Unseen,
    /// Flows do, which go by these operations.
    By(Vec<FlowOp>),
}

/// Those whose flows have this cookie on a bridge.
fn sharers(bridge: &str, cookie: Cookie) -> Party {
    Party::Sharers(bridge.to_owned(), cookie.0)
}

pub(super) fn on(bridge: &str, change: FlowChange) -> FlowOp {
    FlowOp { bridge: bridge.to_owned(), change }
}

/// The uplink of a network: the one that names it, else the one of all others.
fn uplink<'a>(managed: &'a ManagedBridge, network: NetworkKey, label: Option<&str>) -> Option<&'a Uplink> {
    let id = match network {
        NetworkKey::Network(id) => id.to_string(),
        NetworkKey::Alone(_) => String::new(),
    };
    let names = |name: &String| (!id.is_empty() && *name == id) || Some(name.as_str()) == label;
    let named = managed.uplinks.iter().find(|uplink| uplink.networks.iter().any(names));
    named.or_else(|| managed.uplinks.iter().find(|uplink| uplink.networks.iter().any(|name| name == "*")))
}

/// How a VIF's network leaves a bridge, by the VIF's record.
fn face(managed: &ManagedBridge, vif: &Vif) -> Face {
    let network = vif.network.as_ref();
    let label = network.and_then(|network| network.label.as_deref());
    let Some(uplink) = uplink(managed, NetworkKey::of(vif), label) else { return Face::default() };
    let place = managed.uplinks.iter().position(|other| std::ptr::eq(other, uplink));
    // Where it does not leave, no VLAN is anything.
    Face { uplink: place, vlan: network.and_then(|network| network.vlan) }
}

/// The number of an uplink's port, when it is on the bridge and can be used.
fn uplink_port(bridge: &str, port: Option<&Port>, interface: Option<&Interface>) -> Option<u16> {
    let (port, interface) = port.zip(interface)?;
    let usable = port.bridge == bridge && interface.fault().is_none();
    interface
        .ofport
        .filter(|number| usable && (1..=GREATEST_PORT).contains(number))
        .and_then(|number| u16::try_from(number).ok())
}

fn group_op(bridge: &str, command: flows::GroupCommand, group: flows::Group) -> FlowOp {
    on(bridge, FlowChange::Group(GroupMod { command, group }))
}
