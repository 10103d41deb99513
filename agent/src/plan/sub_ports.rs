//! A trunk's sub-ports where they have no ports of their own: what they wait for, and their marks, which are entries of
//! the `external_ids` of the trunk's interface. Their flows are `flows`' business; where they are ports of their own,
//! everything is `compare`'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::blueprint::{self, Blueprint, Maker, Unbuildable, WantedSubPort};
use super::compare::{Findings, Work};
use super::flows::Naming;
use super::inventory::port_owner;
use super::rows::entries;
use super::settings::{Owner, SUB_PORT, ZONE};
use super::sight::Sight;
use super::{Facts, Inputs, Missing};
use crate::backend::ovs::{MarkedTable, OvsOp, StringMap};
use crate::model::{Interface, Parent, Port, Vif, VifId};

/// What becomes of a sub-port, by what is known of its trunk.
pub(super) enum Trunk {
    /// This is wanted.
    Known(Box<Result<Blueprint, Unbuildable>>),
    /// It is not known yet what becomes of the trunk: what is there stays as it is.
    Unsure(Missing),
}

/// The key of the entry that says of a trunk's interface that this VIF is a sub-port there; its value is the VLAN.
fn mark(vif: VifId) -> String {
    format!("{SUB_PORT}{vif}")
}

/// The key of the entry with the conntrack zone of a sub-port.
pub(super) fn zone_key(vif: VifId) -> String {
    format!("{ZONE}-{vif}")
}

/// The sub-ports that an interface has by its marks, with their VLANs where these can be read.
pub(super) fn marked(interface: &Interface) -> impl Iterator<Item = (VifId, Option<u16>)> + '_ {
    let ids = interface.external_ids.iter();
    ids.filter_map(|(key, vlan)| Some((key.strip_prefix(SUB_PORT)?.parse().ok()?, vlan.parse().ok())))
}

/// The keys of all marks of sub-ports on an interface.
pub(super) fn marks(interface: &Interface) -> BTreeSet<String> {
    marked(interface).map(|(vif, _)| mark(vif)).collect()
}

/// Takes the marks of a sub-port off its trunk's interface.
pub(super) fn unmark(vif: VifId, interface: &Interface) -> OvsOp {
    OvsOp::Unmark {
        table: MarkedTable::Interface,
        uuid: interface.uuid,
        name: interface.name.to_string(),
        keys: BTreeSet::from([mark(vif), zone_key(vif)]),
    }
}

impl Work<'_> {
    /// What a sub-port wants.
    pub(super) fn trunk(&self, vif: &Vif, parent: Parent) -> Trunk {
        let Inputs { desired, settings, .. } = self.inputs;
        let waits = |why: &str| Missing::Parent(format!("waiting for VIF {} (parent.vif): {why}", parent.vif));
        let there = self.inventory.by_vif.contains_key(&parent.vif);
        match desired.vifs.get(&parent.vif) {
            // Its removal takes the flows of sub-ports with it; or it stays, and they with it.
            None if there || !desired.synced || desired.unreadable.contains(&parent.vif) => {
                Trunk::Unsure(waits("there is no record of it"))
            }
            None => Trunk::Known(Box::new(Ok(Blueprint {
                waits: Some(waits("there is no record of it")),
                ..Blueprint::default()
            }))),
            Some(trunk) => {
                if let Some(clash) = self.inputs.clashes.get(&parent.vif) {
                    return Trunk::Unsure(waits(&format!("{}: {}", clash.field, clash.reason)));
                }
                match blueprint::blueprint(trunk, self.inventory.layout(trunk, self.inputs), settings) {
                    Ok(of) => Trunk::Known(Box::new(blueprint::sub_port(vif, parent, trunk, &of, settings))),
                    Err(wrong) => Trunk::Unsure(waits(&format!("{}: {}", wrong.field, wrong.reason))),
                }
            }
        }
    }

    /// Leaves a sub-port as it is.
    pub(super) fn leave(&mut self, id: VifId, missing: Missing) {
        self.switches.unplace(id);
        let facts = Facts { mac: self.inputs.desired.vifs.get(&id).and_then(|vif| vif.address), ..self.left(id) };
        self.judge(id, super::Verdict::Waiting(missing), facts);
    }

    /// Whether the port that a sub-port is on can be used, and the sub-port's marks there, where it is that by flows.
    pub(super) fn sub_port(&self, id: VifId, wanted: &WantedSubPort, sight: &mut Sight<'_>, found: &mut Findings) {
        if !wanted.patched {
            found.port_ready = Some(false);
        }
        let settings = self.inputs.settings;
        let (bridge, name) = (&wanted.bridge, &wanted.port);
        let lacks = |what: &str| {
            Missing::Parent(format!("waiting for VIF {}, the trunk that this is a sub-port of: {what}", wanted.parent))
        };
        let port = sight.port(name).filter(|port| port.bridge == *bridge);
        let Some((port, interface)) = port.zip(sight.interface(name)) else {
            if !wanted.patched {
                found.facts.unseen.push("port".into());
            }
            let missing = lacks(&format!("bridge {bridge} has no port {name} yet"));
            match (wanted.maker, wanted.patched) {
                (Maker::Vifd, false) => found.blocked.get_or_insert(missing),
                // All that is to be made for it can be made without.
                _ => found.brought.get_or_insert(missing),
            };
            return;
        };
        if !matches!(port_owner(port, Some(interface), settings), Owner::Us { vif: Some(vif), .. } if vif == wanted.parent)
        {
            found.blocked.get_or_insert(lacks(&format!("port {name} of bridge {bridge} is not its own yet")));
            return;
        }
        if wanted.patched {
            return;
        }
        let (mark, vlan) = (mark(id), wanted.vlan.to_string());
        if interface.external_ids.get(&mark) != Some(vlan.as_str()) {
            found.ovs.push(OvsOp::ChangeInterface {
                uuid: interface.uuid,
                name: interface.name.to_string(),
                guard: entries(&interface.external_ids, &settings.guard()),
                kind: None,
                options: StringMap::new(),
                external_ids: StringMap::from([(mark, vlan)]),
                mac: None,
                mtu_request: None,
            });
        }
        if !sight.sees_vswitchd() {
            found.unanswered.get_or_insert(Missing::Vswitchd);
            return;
        }
        found.facts.ofport = interface.ofport;
        found.facts.interface_type = Some(interface.type_name().to_owned());
        found.facts.mtu = sight.link(name).map(|link| link.mtu).or(interface.mtu);
        let usable = interface.fault().is_none() && interface.ofport.is_some_and(|ofport| ofport > 0);
        found.port_ready = Some(usable);
        if let Some(fault) = interface.fault() {
            found.brought.get_or_insert(lacks(&format!("Open vSwitch says of port {name}: {fault}")));
        } else if !usable {
            found.unanswered.get_or_insert(lacks(&format!("ovs-vswitchd has not taken in port {name}")));
        } else if !wanted.active {
            found.brought.get_or_insert(lacks("it is not active"));
        }
    }

    /// Marks of a sub-port on other interfaces than that of the trunk that it has now.
    pub(super) fn stale_marks(&self, id: VifId, blueprint: &Blueprint, sight: &mut Sight<'_>, found: &mut Findings) {
        let Some(owned) = self.inventory.by_vif.get(&id) else { return };
        let wanted = blueprint.sub_port.as_ref().filter(|wanted| !wanted.patched);
        for (port, interface, _) in &owned.sub_ports {
            if wanted.is_some_and(|wanted| port.name == wanted.port && port.bridge == wanted.bridge) {
                continue;
            }
            // On the same bridge its flows become those for where it is now.
            let keeps_flows = blueprint.managed_bridge(self.inputs.settings) == Some(port.bridge.as_str());
            self.give_up_sub_port(id, (port, interface), keeps_flows, sight, found);
        }
    }

    fn give_up_sub_port(
        &self,
        id: VifId,
        (port, interface): (&Arc<Port>, &Arc<Interface>),
        keeps_flows: bool,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) {
        match if keeps_flows { Ok(()) } else { self.unnamed_by([id], &port.bridge) } {
            Ok(()) => found.ovs.push(unmark(id, interface)),
            Err(Naming::By(flows)) => found.flows.extend(flows),
            Err(Naming::Unseen) => {
                sight.glimpse();
                found.blocked.get_or_insert(Missing::Switch(port.bridge.to_string()));
            }
        }
    }
}
