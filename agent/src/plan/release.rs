//! Letting go: our marks come off, everything else stays as it is and traffic runs on. Flows, groups and meters stay
//! too, cookies and all, since a flow without its cookie would be another flow; nobody keeps them right any more.

use std::collections::BTreeSet;

use ovsdb::pairs::Pairs;

use super::nics::bring_back;
use super::settings::{FORMAT, OWNER, PRESERVE, VIF};
use super::{Owner, Plan, Settings, sub_ports};
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::nics::NicOp;
use crate::backend::ovs::{MarkedTable, OvsOp};
use crate::backend::{Attributed, Party};
use crate::model::{Bridge, Interface, Link, NicState, Observed, Port, Qos};

/// The plan that takes our marks off the whole host; empty when none is left.
#[must_use]
pub fn release(observed: &Observed, settings: &Settings) -> Plan {
    let mut ovs = Vec::new();
    let mut links = Vec::new();
    if let Some(rows) = observed.ovs.ready() {
        for port in rows.ports.values() {
            unmark_port(port, rows.interfaces.get(&port.name).map(AsRef::as_ref), settings, &mut ovs);
        }
        for bridge in rows.bridges.values() {
            unmark_bridge(bridge, settings, &mut ovs);
        }
        for qos in rows.qos.values() {
            unmark_qos(qos, settings, &mut ovs);
        }
    }
    if let Some(state) = observed.links.ready() {
        for link in state.links.values() {
            if matches!(settings.link_owner(link.alias.as_deref()), Owner::Us { .. }) {
                links.push(unmark_link(link));
            }
        }
    }
    let nics = observed.nics.ready().map(|nics| release_nics(nics, settings)).unwrap_or_default();
    Plan {
        nics: nics.into_iter().map(|op| Attributed { party: Party::All, op }).collect(),
        links: links.into_iter().map(|op| Attributed { party: Party::All, op }).collect(),
        ovs: ovs.into_iter().map(|op| Attributed { party: Party::All, op }).collect(),
        ..Plan::default()
    }
}

/// Functions stay as they are, hints too, since whoever has a function finds it by them. What is away while a NIC changes its mode
/// comes back first: nobody would bring it back any more.
fn release_nics(nics: &NicState, settings: &Settings) -> Vec<NicOp> {
    let notes = nics.undo.iter().filter(|(_, undo)| undo.agent == settings.agent);
    let mut ops: Vec<NicOp> = notes.map(|(id, _)| NicOp::Forget(*id)).collect();
    for (device, transition) in nics.transitions.iter().filter(|(_, of)| of.agent == settings.agent) {
        match nics.nics.get(device) {
            Some(nic) => ops.extend(bring_back(nics, nic, transition, None)),
            None => ops.push(NicOp::ForgetTransition(device.clone())),
        }
    }
    ops
}

fn unmark(
    table: MarkedTable,
    (uuid, name): (uuid::Uuid, &str),
    external_ids: &Pairs,
    others: BTreeSet<String>,
    settings: &Settings,
    ops: &mut Vec<OvsOp>,
) {
    if matches!(settings.owner(external_ids), Owner::Us { .. }) {
        ops.push(OvsOp::Unmark {
            table,
            uuid,
            name: name.to_owned(),
            keys: others.into_iter().chain([OWNER, VIF, FORMAT, PRESERVE].map(str::to_owned)).collect(),
        });
    }
}

fn unmark_port(port: &Port, interface: Option<&Interface>, settings: &Settings, ops: &mut Vec<OvsOp>) {
    unmark(MarkedTable::Port, (port.uuid, &port.name), &port.external_ids, BTreeSet::new(), settings, ops);
    if let Some(interface) = interface {
        let row = (interface.uuid, interface.name.as_str());
        unmark(MarkedTable::Interface, row, &interface.external_ids, sub_ports::marks(interface), settings, ops);
    }
}

fn unmark_bridge(bridge: &Bridge, settings: &Settings, ops: &mut Vec<OvsOp>) {
    unmark(MarkedTable::Bridge, (bridge.uuid, &bridge.name), &bridge.external_ids, BTreeSet::new(), settings, ops);
}

fn unmark_qos(qos: &Qos, settings: &Settings, ops: &mut Vec<OvsOp>) {
    unmark(MarkedTable::Qos, (qos.uuid, &qos.uuid.to_string()), &qos.external_ids, BTreeSet::new(), settings, ops);
}

fn unmark_link(link: &Link) -> LinkOp {
    LinkOp::ChangeLink {
        index: link.index,
        name: link.name.clone(),
        change: Box::new(LinkChange { alias: Some(String::new()), ..LinkChange::default() }),
    }
}
