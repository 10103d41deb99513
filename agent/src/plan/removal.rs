//! What nobody wants any more: which of it may go, and how.

use std::collections::BTreeSet;

use super::compare::{Work, delete_link};
use super::inventory::{Inventory, Owned};
use super::{LINKS, OVSDB, Owner, Verdict};
use crate::backend::links::LinkOp;
use crate::backend::ovs::OvsOp;
use crate::model::{VifId, cut_name};

/// Plans the removal of every VIF that carries our marks and is not wanted, within `max_removals`, and sweeps
/// what is left over beside them.
pub(super) fn remove(work: &mut Work<'_>, inventory: &Inventory<'_>) {
    let inputs = work.inputs;
    let desired = inputs.desired;
    let views_ready = inputs.observed.links.ready().is_some() && inputs.observed.ovs.ready().is_some();
    // What is to be preserved keeps its marks, so that the VIF finds it again when it comes back.
    let unwanted: Vec<(VifId, &Owned<'_>)> = inventory
        .by_vif
        .iter()
        .filter(|(id, owned)| !owned.preserve && !desired.vifs.contains_key(id) && !desired.unreadable.contains(id))
        .map(|(id, owned)| (*id, owned))
        .collect();
    let absent: Vec<VifId> = unwanted
        .iter()
        .map(|(id, _)| *id)
        .filter(|id| !desired.deleted.contains(id) && !inputs.orders.confirmed.contains(id))
        .collect();
    let absence_counts = desired.synced && absent.len() <= inputs.settings.max_removals.of(inventory.by_vif.len());
    if desired.synced && !absence_counts {
        work.plan.stopped_removals.clone_from(&absent);
    }
    let stays: BTreeSet<VifId> = if absence_counts { BTreeSet::new() } else { absent.into_iter().collect() };
    for (id, owned) in unwanted {
        if inputs.orders.paused || inputs.orders.paused_vifs.contains(&id) {
            work.judge_alone(id, Verdict::Paused);
        } else if stays.contains(&id) {
            work.judge_alone(id, Verdict::RemovalStopped);
        } else {
            remove_vif(work, id, owned);
        }
    }
    if !inputs.orders.paused && views_ready {
        for id in &desired.deleted {
            let nothing_left = inventory.by_vif.get(id).is_none_or(|owned| owned.preserve);
            if nothing_left && !remove_socket(work, *id) {
                work.plan.gone.insert(*id);
            }
        }
        if desired.synced {
            sweep(work, inventory);
        }
    }
}

/// Ports first; then, when no row names them, taps and the VIF's own bridge.
fn remove_vif(work: &mut Work<'_>, id: VifId, owned: &Owned<'_>) {
    let (mut links, mut ovs) = (Vec::new(), Vec::new());
    let mut verdict = Verdict::Removing;
    for (port, interface) in &owned.ports {
        ovs.push(work.delete_port(port, interface.map(AsRef::as_ref)));
    }
    for tap in &owned.taps {
        if !work.named_by_a_port(&tap.name) {
            links.push(delete_link(tap));
        } else if owned.ports.iter().all(|(port, _)| port.name != tap.name)
            && work.inputs.observed.ovs.ready().is_some()
        {
            let reason = format!("tap {} stays: a port of this name that vifd did not make uses it", tap.name);
            verdict = Verdict::Conflict { reason };
        }
    }
    for bridge in &owned.bridges {
        if bridge.ports.iter().all(|port| *port == bridge.name) {
            let marks = work.inputs.settings.guard();
            ovs.push(OvsOp::DeleteBridge { uuid: bridge.uuid, name: bridge.name.clone(), marks });
        }
    }
    for (backend, clear) in [(LINKS, !links.is_empty()), (OVSDB, !ovs.is_empty())] {
        if let Some(hold) = work.inputs.holds.in_force(Some(id), backend, work.now).filter(|_| clear) {
            verdict = Verdict::Held { error: hold.error.clone(), backend, until: hold.until };
            if backend == LINKS { links.clear() } else { ovs.clear() }
        }
    }
    work.emit(Some(id), links, ovs);
    work.judge_alone(id, verdict);
}

/// The socket that Open vSwitch made for a deleted VIF and left behind, because it was down when its port went.
/// Answers whether there is one.
fn remove_socket(work: &mut Work<'_>, id: VifId) -> bool {
    let name = cut_name("vhu", id);
    let Some(links) = work.inputs.observed.links.ready() else { return true };
    if work.named_by_a_port(&name) {
        return false;
    }
    let path = work.inputs.settings.socket_dir.join(name);
    if !links.sockets.sockets.contains(&path) || work.inputs.desired.vifs.contains_key(&id) {
        return false;
    }
    let held = work.inputs.holds.in_force(Some(id), LINKS, work.now).is_some();
    if !held {
        work.emit(Some(id), vec![LinkOp::RemoveSocket { path }], Vec::new());
    }
    !held
}

/// Trunk bridges of ours without ports, QoS rows of ours without a port.
fn sweep(work: &mut Work<'_>, inventory: &Inventory<'_>) {
    let settings = work.inputs.settings;
    let mut ops = Vec::new();
    if work.inputs.holds.in_force(None, OVSDB, work.now).is_some() {
        return;
    }
    for bridge in &inventory.shared_bridges {
        let empty = bridge.ports.iter().all(|port| *port == bridge.name);
        let ours = matches!(settings.owner(&bridge.external_ids), Owner::Us { vif: None, .. });
        if ours
            && empty
            && super::blueprint::is_trunk_bridge(&bridge.name)
            && !work.wanted_bridges.contains(&bridge.name)
        {
            let marks = settings.guard();
            ops.push(OvsOp::DeleteBridge { uuid: bridge.uuid, name: bridge.name.clone(), marks });
        }
    }
    for uuid in &inventory.loose_qos {
        ops.push(OvsOp::DeleteQos { uuid: *uuid, marks: settings.guard() });
    }
    work.emit(None, Vec::new(), ops);
}
