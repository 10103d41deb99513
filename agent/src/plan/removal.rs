//! What nobody wants any more: which of it may go, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uuid::Uuid;

use super::associations::{Leaving, leaving};
use super::compare::{Work, delete_link};
use super::flows::Naming;
use super::functions::give_back;
use super::inventory::{Inventory, Owned};
use super::links::move_uplink;
use super::sub_ports::unmark;
use super::{Facts, LINKS, Missing, NICS, OPENFLOW, OVSDB, Verdict};
use crate::backend::Party;
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::ovs::{MarkedTable, OvsOp};
use crate::model::{Interface, Link, LinkKind, Mark, Observed, VifId};

/// Plans the removal of every VIF that carries our marks and is not wanted, within `max_removals`, and sweeps
/// what is left over beside them. `wanted` tells of a disposable bridge whether a VIF wants it that was not planned in
/// this plan. Answers the VIFs on which there is a verdict although nobody wants them.
pub(super) fn remove(work: &mut Work<'_>, inventory: &Inventory, wanted: impl Fn(&str) -> bool) -> BTreeSet<VifId> {
    let mut judged = BTreeSet::new();
    let inputs = work.inputs;
    let desired = inputs.desired;
    let views_ready = missing_view(inputs.observed).is_none();
    // What is to be preserved keeps its marks, so that the VIF finds it again when it comes back.
    let unwanted: Vec<(VifId, &Owned)> = without(&inventory.by_vif, desired.vifs.keys())
        .filter(|(id, owned)| !owned.preserve && !desired.unreadable.contains(id))
        .map(|(id, owned)| (*id, owned))
        .collect();
    let absent: Vec<VifId> = unwanted
        .iter()
        .map(|(id, _)| *id)
        .filter(|id| !desired.deleted.contains(id) && !inputs.orders.confirmed.contains(id))
        .collect();
    // Once stopped, a removal stays stopped until it is confirmed or the record is back: the records that come back
    // one by one must not bring the others below the limit. And no record at all is no reason to remove anything.
    let limit = inputs.settings.max_removals.of(inventory.by_vif.len());
    let absence_counts = desired.synced && views_ready && !desired.vifs.is_empty() && absent.len() <= limit;
    let stays: BTreeSet<VifId> =
        absent.into_iter().filter(|id| !absence_counts || inputs.orders.stopped.contains(id)).collect();
    // Until all of it is known, an absence is no news, and nobody has anything to confirm.
    let unknown = if desired.synced { missing_view(inputs.observed) } else { Some(Missing::Records) };
    if unknown.is_none() {
        work.plan.stopped_removals = stays.iter().copied().collect();
    }
    for (id, owned) in unwanted {
        judged.insert(id);
        if stays.contains(&id) {
            let verdict = match unknown {
                Some(ref missing) if !inputs.orders.stopped.contains(&id) => Verdict::Waiting(missing.clone()),
                _ => Verdict::RemovalStopped,
            };
            work.judge(id, verdict, owned.facts());
        } else if inputs.in_flight.contains(&id) {
            // What is being made now is not seen yet, and has to go as well.
            work.judge(id, Verdict::Removing, owned.facts());
        } else {
            remove_vif(work, id, owned);
        }
    }
    let sweeps = views_ready && desired.synced && !inputs.orders.paused;
    let unshared = unshared(work, inventory, &wanted);
    // What is refused keeps no VIF from being gone.
    let awaited = !unshared.is_empty() && inputs.holds.in_force(Party::All, LINKS, work.now).is_none();
    for id in &desired.deleted {
        if let Some(missing) = missing_view(inputs.observed) {
            // What cannot be seen is not known to be gone.
            if !work.plan.judgements.contains_key(id) {
                judged.insert(*id);
                work.judge(*id, Verdict::Waiting(missing), Facts::default());
            }
        } else if inventory.by_vif.get(id).is_none_or(|owned| owned.preserve) {
            // A VIF that shared what nobody wants any more is gone when that is: nobody else would ask for it.
            if inputs.in_flight.contains(id) || awaited {
                judged.insert(*id);
                let verdict = match awaited {
                    true if inputs.orders.paused => Verdict::Paused { all: true },
                    true if !sweeps => Verdict::Waiting(Missing::Records),
                    _ => Verdict::Removing,
                };
                work.judge(*id, verdict, Facts::default());
            } else {
                work.plan.gone.insert(*id);
            }
        }
    }
    if sweeps {
        sweep(work, inventory, unshared, wanted);
    }
    leave_out_what_goes(work);
    judged
}

/// A mark goes with the row that it is on: of a port that is deleted none is taken off besides, whoever was first in the
/// plan.
fn leave_out_what_goes(work: &mut Work<'_>) {
    let unmarked = |op: &OvsOp| match op {
        OvsOp::Unmark { table: MarkedTable::Interface, uuid, .. } => Some(*uuid),
        _ => None,
    };
    if !work.plan.ovs.iter().any(|op| unmarked(&op.op).is_some()) {
        return;
    }
    let deleted = |op: &OvsOp| match op {
        OvsOp::DeletePort { interface, .. } => interface.as_ref().map(|(uuid, _)| *uuid),
        _ => None,
    };
    let going: BTreeSet<Uuid> = work.plan.ovs.iter().filter_map(|op| deleted(&op.op)).collect();
    work.plan.ovs.retain(|op| unmarked(&op.op).is_none_or(|uuid| !going.contains(&uuid)));
}

/// The view that is not complete, the database's first.
fn missing_view(observed: &Observed) -> Option<Missing> {
    match (observed.ovs.ready(), observed.links.ready(), observed.nics.ready()) {
        (None, ..) => Some(Missing::View(OVSDB)),
        (_, None, _) => Some(Missing::View(LINKS)),
        (.., None) => Some(Missing::View(NICS)),
        _ => None,
    }
}

/// The entries of `all` whose keys are not among `others`, which are in order: by one walk over both.
pub(super) fn without<'a, 'b, K: Ord + 'b, A>(
    all: &'a BTreeMap<K, A>,
    others: impl Iterator<Item = &'b K>,
) -> impl Iterator<Item = (&'a K, &'a A)> {
    let mut others = others.peekable();
    all.iter().filter(move |(key, _)| {
        while others.next_if(|other| other < key).is_some() {}
        others.peek() != Some(key)
    })
}

/// Ports first; then, when no row names them, taps and the VIF's own bridge.
fn remove_vif(work: &mut Work<'_>, id: VifId, owned: &Owned) {
    let (mut links, mut ovs, mut flows, mut nics) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut verdict = Verdict::Removing;
    // The switch forgets the guest before its macvtap goes.
    let is_forgotten = match forgotten(work, owned) {
        Leaving::Gone => true,
        Leaving::Ask(op) => {
            nics.push(op);
            false
        }
        Leaving::Wait(what) => {
            verdict = Verdict::Waiting(Missing::Function(what));
            false
        }
    };
    for (port, interface) in &owned.ports {
        match interface.as_ref().and_then(|interface| orphaned_socket(work, interface)) {
            // The port's row is what says that the socket is Open vSwitch's: it goes after it.
            Some(path) => links.push(LinkOp::RemoveSocket { path }),
            None => match work.is_unnamed(id, port, interface.as_deref()) {
                Ok(()) => ovs.push(work.delete_port(port, interface.as_deref())),
                Err(Naming::By(ops)) => flows.extend(ops),
                Err(Naming::Unseen) => verdict = Verdict::Waiting(Missing::Switch(port.bridge.to_string())),
            },
        }
    }
    for (port, interface, _) in &owned.sub_ports {
        match work.unnamed_by([id], &port.bridge) {
            Ok(()) => ovs.push(unmark(id, interface)),
            Err(Naming::By(ops)) => flows.extend(ops),
            Err(Naming::Unseen) => verdict = Verdict::Waiting(Missing::Switch(port.bridge.to_string())),
        }
    }
    let in_use = |link: &Link| work.is_held_by_vswitchd(&link.name) || work.named_by_a_port(&link.name);
    let any_in_use = owned.links.iter().any(|link| in_use(link));
    for link in owned.links.iter().filter(|_| is_forgotten) {
        // A bridge goes with the pair that leads out of it.
        let waits = any_in_use && matches!(link.kind, LinkKind::Bridge(_));
        if waits || work.is_held_by_vswitchd(&link.name) {
            // Both would wait for the same grace periods of the kernel, and each take longer (ADR 9).
        } else if !work.named_by_a_port(&link.name) {
            links.extend(delete_with_peer(work, owned, link));
        } else if owned.ports.iter().all(|(port, _)| port.name != link.name)
            && work.inputs.observed.ovs.ready().is_some()
        {
            let kind = link.kind.name();
            let reason = format!("{kind} {} stays: a port of this name that vifd did not make uses it", link.name);
            verdict = Verdict::Conflict { reason };
        }
    }
    for bridge in &owned.bridges {
        if bridge.ports.iter().all(|port| *port == bridge.name) {
            let marks = work.inputs.settings.guard();
            ovs.push(OvsOp::DeleteBridge { uuid: bridge.uuid, name: bridge.name.to_string(), marks });
        }
    }
    let bare = is_forgotten && owned.ports.is_empty() && owned.links.is_empty();
    if let (Some(undo), true) = (&owned.undo, bare)
        && let (Some(seen), Some(state)) = (work.inputs.observed.nics.ready(), work.inputs.observed.links.ready())
    {
        match give_back(undo, seen, state, |name| work.named_by_a_port(name)) {
            Ok((link_ops, nic_ops)) => {
                links.extend(link_ops);
                nics.extend(nic_ops);
            }
            Err(what) => verdict = Verdict::Waiting(Missing::Function(what)),
        }
    }
    let any =
        [(NICS, !nics.is_empty()), (LINKS, !links.is_empty()), (OVSDB, !ovs.is_empty()), (OPENFLOW, !flows.is_empty())];
    for (backend, any) in any {
        if let Some(hold) = work.inputs.holds.in_force(Some(id), backend, work.now).filter(|_| any) {
            verdict = Verdict::of_hold(hold, backend);
            match backend {
                NICS => nics.clear(),
                LINKS => links.clear(),
                OVSDB => ovs.clear(),
                _ => flows.clear(),
            }
        }
    }
    if work.inputs.orders.pauses(id) {
        verdict = Verdict::Paused { all: work.inputs.orders.paused };
    } else {
        work.emit_nics(id, nics);
        work.emit(Some(id), links, ovs);
        work.emit_flows(&id.into(), flows);
    }
    work.judge(id, verdict, owned.facts());
}

/// What it takes for the switch to know nothing of a VIF.
fn forgotten(work: &Work<'_>, owned: &Owned) -> Leaving {
    match (work.inputs.observed.nics.ready(), &owned.undo) {
        (Some(nics), Some(undo)) => leaving(undo, nics),
        // Whether there is a note is seen with the NICs.
        (None, _) if owned.links.iter().any(|link| matches!(link.kind, LinkKind::Macvtap { .. })) => {
            Leaving::Wait("the notes on NICs to be read".to_owned())
        }
        _ => Leaving::Gone,
    }
}

/// Deletes a link. The other end of a veth goes with it, so that may be no port's either, and it is told of one of the two.
fn delete_with_peer(work: &Work<'_>, owned: &Owned, link: &Link) -> Option<LinkOp> {
    let peer = owned.links.iter().find(|other| link.kind == LinkKind::Veth && link.lower == Some(other.index));
    let Some(peer) = peer else { return Some(delete_link(link)) };
    let stays = work.is_held_by_vswitchd(&peer.name) || work.named_by_a_port(&peer.name);
    (!stays && link.index < peer.index).then(|| delete_link(link))
}

/// The socket of a port that Open vSwitch listens on and cannot remove, because it is not running.
fn orphaned_socket(work: &Work<'_>, interface: &Interface) -> Option<PathBuf> {
    let ovs = work.inputs.observed.ovs.ready()?;
    let path = work.inputs.settings.socket_dir.join(interface.name.as_str());
    let there = work.inputs.observed.links.ready()?.sockets.sockets.contains(&path);
    (interface.kind == "dpdkvhostuser" && !ovs.vswitchd_alive && there).then_some(path)
}

/// What is left over beside the VIFs: trunk bridges of ours without ports, QoS rows of ours without a port, shared links
/// that nobody wants, links that a crash has left half made.
fn sweep(work: &mut Work<'_>, inventory: &Inventory, unshared: Vec<LinkOp>, wanted: impl Fn(&str) -> bool) {
    let settings = work.inputs.settings;
    let mut ovs = Vec::new();
    if work.inputs.holds.in_force(Party::All, OVSDB, work.now).is_none() {
        for bridge in inventory.shared_bridges.values() {
            let empty = bridge.ports.iter().all(|port| *port == bridge.name);
            let wanted = work.wanted_shares.contains(bridge.name.as_str()) || wanted(&bridge.name);
            if empty && super::blueprint::is_trunk_bridge(&bridge.name) && !wanted {
                let marks = settings.guard();
                ovs.push(OvsOp::DeleteBridge { uuid: bridge.uuid, name: bridge.name.to_string(), marks });
            }
        }
        for uuid in &inventory.loose_qos {
            ovs.push(OvsOp::DeleteQos { uuid: *uuid, marks: settings.guard() });
        }
    }
    let mut links = Vec::new();
    if work.inputs.holds.in_force(Party::All, LINKS, work.now).is_none() {
        // One that is being made just now has its mark when the operation gets there, and is left alone.
        links.extend(inventory.half_made.values().map(|link| delete_link(link)));
        links.extend(unshared);
    }
    work.emit(None, links, ovs);
}

/// What is to be done about shared links of ours that no VIF wants any more.
fn unshared(work: &Work<'_>, inventory: &Inventory, wanted: impl Fn(&str) -> bool) -> Vec<LinkOp> {
    let inputs = work.inputs;
    // VIFs that are nothing but a place in such a bridge have nothing that says so: no record is no news of them.
    let told = (!inputs.desired.vifs.is_empty() || !inputs.desired.deleted.is_empty())
        && inputs.desired.unreadable.is_empty()
        && work.plan.stopped_removals.is_empty();
    let Some(state) = inputs.observed.links.ready() else { return Vec::new() };
    let is_wanted = |link: &Link| work.wanted_shares.contains(&link.name) || wanted(&link.name);
    let mut ops = Vec::new();
    for link in inventory.shared_links.values().filter(|link| !is_wanted(link)) {
        let Some(Mark::Shared { unwanted, uplink: named, .. }) = link.alias.as_deref().and_then(Mark::parse) else {
            continue;
        };
        if let Some(name) = work.astray.get(&link.index) {
            let change = Box::new(LinkChange { rename: Some(name.clone()), up: Some(true), ..LinkChange::default() });
            ops.push(LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change });
            continue;
        }
        if !told && !unwanted {
            continue;
        }
        let uplink = named.as_ref().and_then(|uplink| state.links.get(uplink));
        let is_uplink = |other: &Link| uplink.is_some_and(|uplink| uplink.index == other.index);
        // A guest that is still there, or one that vifd never heard of; the netdev of a port that is gone is none.
        let uses = |other: &Link| {
            (other.master == Some(link.index) || other.lower == Some(link.index))
                && !is_uplink(other)
                && !work.is_held_by_vswitchd(&other.name)
        };
        let is_used = state.links.values().any(|other| uses(other));
        let joined = uplink.filter(|uplink| uplink.master == Some(link.index));
        if (is_used || joined.is_some()) && !unwanted {
            let alias = Some(Mark::shared_text(&inputs.settings.agent, true, named.as_deref()));
            let change = Box::new(LinkChange { alias, ..LinkChange::default() });
            ops.push(LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change });
        }
        match joined {
            _ if is_used => {}
            Some(uplink) => ops.push(move_uplink(uplink, link, None, false)),
            // An address without an interface to go back to stays where it is.
            None if link.addresses.iter().any(|address| !uplink.is_some_and(|it| it.addresses.contains(address))) => {}
            // A VLAN link in a bridge is that bridge's until it has let it go.
            None if link.master.is_some() => {}
            None => ops.push(delete_link(link)),
        }
    }
    ops
}
