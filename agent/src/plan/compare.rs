//! One VIF's blueprint against what is there: the operations that are legal now, and the verdict.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use flows::FlowId;
use uuid::Uuid;

use super::adoption::Adoption;
use super::blueprint::{Blueprint, Maker, Unbuildable, WantedPort};
use super::flows::{Naming, Place, Switches, Zones};
use super::functions::Holders;
use super::inventory::{Inventory, Owned, port_owner};
use super::rows::{Guard, change_rows, entries, new_port, usable};
use super::sight::{Look, Sight};
use super::{Facts, Inputs, Judgement, LINKS, Missing, NICS, OPENFLOW, OVSDB, Owner, Plan, Verdict};
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::nics::NicOp;
use crate::backend::openflow::FlowOp;
use crate::backend::ovs::OvsOp;
use crate::backend::{Attributed, Party};
use crate::model::{Interface, Link, Port, Table, Vif, VifId, VifKind};
use crate::offload::Expectation;

/// A plan in the making.
pub(super) struct Work<'a> {
    pub(super) inputs: Inputs<'a>,
    pub(super) now: Instant,
    pub(super) plan: Plan,
    pub(super) inventory: &'a Inventory,
    /// What is known of flows.
    pub(super) switches: Switches,
    /// Flows of others by bridge, as far as they were looked for in this plan.
    pub(super) foreign: BTreeMap<String, HashMap<FlowId, u64>>,
    /// Zones that are taken, as far as they were looked for in this plan.
    pub(super) zones: Option<Zones>,
    /// QoS rows that os-vif made and no port refers to, by the ids it gave them, once somebody asked.
    pub(super) unused_qos: OnceCell<BTreeMap<String, Uuid>>,
    /// Who has which function, once somebody asked.
    pub(super) holders: OnceCell<Holders>,
    /// Bridges that this plan inserts.
    inserted_bridges: BTreeSet<String>,
    /// Disposable bridges and shared links that the VIFs planned here want, so that none of them is swept.
    pub(super) wanted_shares: BTreeSet<String>,
    /// Links for several VIFs about which this plan does something.
    pub(super) touched_links: BTreeSet<String>,
    /// Indices of shared links of ours that have another name than the one that is wanted.
    pub(super) astray: BTreeMap<u32, String>,
}

/// What has been found out about one VIF so far. The first of several reasons to wait is the one that counts.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) links: Vec<LinkOp>,
    pub(super) nics: Vec<NicOp>,
    pub(super) ovs: Vec<OvsOp>,
    pub(super) flows: Vec<FlowOp>,
    /// What is there for it and not ours yet.
    pub(super) adopts: Adoption,
    pub(super) conflict: Option<String>,
    pub(super) failed: Option<String>,
    /// Flows that it wants cannot be had.
    pub(super) flows_failed: Option<String>,
    /// Something that has to come before vifd can go on.
    pub(super) blocked: Option<Missing>,
    /// Something that the hypervisor or the guest brings, when vifd is done.
    pub(super) brought: Option<Missing>,
    /// ovs-vswitchd has not made the port usable yet.
    pub(super) unanswered: Option<Missing>,
    /// Another VIF has the operation on what both share.
    pub(super) awaits_share: bool,
    pub(super) link_ready: Option<bool>,
    pub(super) port_ready: Option<bool>,
    pub(super) flows_ready: Option<bool>,
    /// Where its flows are, once it is known which they are.
    pub(super) place: Option<Place>,
    pub(super) vhost_connected: Option<bool>,
    /// What proves that its flows are in hardware, where they are to be.
    pub(super) offload: Option<Expectation>,
    /// What has to be done for its flows to be in hardware. It is ready without.
    pub(super) offloads: Option<NicOp>,
    pub(super) facts: Facts,
}

impl Findings {
    /// Something that is wanted is not there.
    pub(super) fn unseen(&mut self, what: &'static str) {
        self.facts.unseen.push(what.into());
    }
}

/// A VIF whose verdict waits for what it shares with others.
pub(super) struct Half {
    pub(super) id: VifId,
    found: Findings,
    /// On what the verdict rests, where that is known.
    pub(super) looks: Option<Vec<Look>>,
}

impl Half {
    /// Whether its verdict depends on what is found out later in the same plan.
    pub(super) fn shares(&self) -> bool {
        self.found.place.is_some()
    }
}

impl<'a> Work<'a> {
    /// Begins with the verdicts that stand.
    pub(super) fn new(
        inputs: Inputs<'a>,
        inventory: &'a Inventory,
        judgements: Table<VifId, Judgement>,
        now: Instant,
    ) -> Self {
        Work {
            inputs,
            now,
            plan: Plan { judgements, ..Plan::default() },
            inventory,
            switches: Switches::default(),
            foreign: BTreeMap::new(),
            zones: None,
            unused_qos: OnceCell::new(),
            holders: OnceCell::new(),
            inserted_bridges: BTreeSet::new(),
            wanted_shares: BTreeSet::new(),
            touched_links: BTreeSet::new(),
            astray: BTreeMap::new(),
        }
    }

    /// Notes the disposable bridges and shared links that a VIF wants, whatever becomes of it; answers them.
    pub(super) fn want_shares(&mut self, blueprint: Option<&Blueprint>) -> Vec<String> {
        let Some(blueprint) = blueprint else { return Vec::new() };
        let bridges = blueprint.bridges.iter().filter(|bridge| bridge.disposable).map(|bridge| &bridge.name);
        let links = blueprint.links.iter().filter(|link| link.shared).map(|link| &link.name);
        let shares: Vec<String> = bridges.chain(links).cloned().collect();
        self.wanted_shares.extend(shares.iter().cloned());
        shares
    }

    /// Plans one wanted VIF, as far as that goes without the others. Nothing is left to be said of one that is not
    /// looked at.
    pub(super) fn vif(&mut self, id: VifId, vif: &Vif, blueprint: Result<&Blueprint, &Unbuildable>) -> Option<Half> {
        let rejected =
            |field: &str, reason: &str| Verdict::Rejected { field: field.to_owned(), reason: reason.to_owned() };
        if let Some(clash) = self.inputs.clashes.get(&id) {
            self.switches.unplace(id);
            self.judge(id, rejected(&clash.field, &clash.reason), self.left(id));
            return None;
        }
        let blueprint = match blueprint {
            Ok(blueprint) => blueprint,
            Err(wrong) => {
                self.switches.unplace(id);
                self.judge(id, rejected(&wrong.field, &wrong.reason), self.left(id));
                return None;
            }
        };
        let observed = self.inputs.observed;
        let missing_view = if observed.links.ready().is_none() {
            Some(LINKS)
        } else if observed.ovs.ready().is_none() && (!blueprint.ports.is_empty() || vif.parent.is_some()) {
            Some(OVSDB)
        } else {
            None
        };
        let (Some(links), None) = (observed.links.ready(), missing_view) else {
            let facts = wanted_facts(vif, blueprint);
            self.judge(id, Verdict::Waiting(Missing::View(missing_view.unwrap_or(LINKS))), facts);
            return None;
        };
        let mut sight = Sight::new(links, observed);
        let mut found = Findings::default();
        let built = self.with_function(id, blueprint, &mut sight, &mut found);
        let blueprint = &built;
        found.facts = of_function(std::mem::take(&mut found.facts), wanted_facts(vif, blueprint));
        self.stale(id, blueprint, &mut sight, &mut found);
        if let Some(missing) = &blueprint.waits {
            sight.glimpse();
            found.port_ready = Some(false);
            found.blocked = Some(missing.clone());
        }
        self.links(id, blueprint, &mut sight, &mut found);
        self.association(id, blueprint, &mut sight, &mut found);
        see_kernel_side(&mut sight, &mut found);
        for dir in &blueprint.socket_dirs {
            self.socket_dir(dir, &mut sight, &mut found);
        }
        if sight.sees_ovs() {
            self.bridges(id, blueprint, &mut sight, &mut found);
            for (place, port) in blueprint.ports.iter().enumerate() {
                self.port(id, port, place == 0, &mut sight, &mut found);
            }
            self.adopt_bridges(id, blueprint, &mut sight, &mut found);
        }
        if let Some(sub_port) = &blueprint.sub_port {
            self.sub_port(id, sub_port, &mut sight, &mut found);
        }
        if sight.sees_ovs() {
            self.flows(id, vif, blueprint, &mut sight, &mut found);
        }
        Self::adopt(&mut found);
        Some(Half { id, found, looks: sight.into_looks() })
    }

    /// What there is of a VIF whose record cannot be honoured: it stays as it was.
    pub(super) fn left(&self, id: VifId) -> Facts {
        self.inventory.by_vif.get(&id).map(Owned::facts).unwrap_or_default()
    }

    /// A verdict on a VIF for which nothing is done.
    pub(super) fn judge(&mut self, id: VifId, verdict: Verdict, facts: Facts) {
        let judgement = Judgement {
            verdict,
            link_ready: None,
            port_ready: None,
            flows_ready: None,
            vhost_connected: None,
            plugged: false,
            offload: None,
            facts: Arc::new(facts),
        };
        self.plan.judgements.insert(id, Arc::new(judgement));
    }

    /// What carries this VIF's mark and is not in its blueprint (any more).
    fn stale(&self, id: VifId, blueprint: &Blueprint, sight: &mut Sight<'_>, found: &mut Findings) {
        self.stale_marks(id, blueprint, sight, found);
        let Some(owned) = self.inventory.by_vif.get(&id) else { return };
        for (port, interface) in &owned.ports {
            if !blueprint.ports.iter().any(|wanted| wanted.name == port.name) {
                self.give_up(id, port, interface.as_deref(), sight, found);
            }
        }
        for link in &owned.links {
            if !blueprint.makes(&link.name)
                && !blueprint.kept.contains(&link.name)
                && !sight.is_named_by_a_port(&link.name)
                && !self.is_misnamed(id, link, blueprint, sight)
            {
                found.links.push(delete_link(link));
            }
        }
        for bridge in &owned.bridges {
            let wanted = blueprint.bridges.iter().any(|wanted| wanted.name == bridge.name);
            if !wanted && bridge.ports.iter().all(|port| *port == bridge.name) {
                found.ovs.push(OvsOp::DeleteBridge {
                    uuid: bridge.uuid,
                    name: bridge.name.to_string(),
                    marks: self.inputs.settings.guard(),
                });
            }
        }
    }

    /// Whether a netdev has to stay because a port row names it, or might.
    pub(super) fn named_by_a_port(&self, name: &str) -> bool {
        self.inputs.observed.ovs.ready().is_none_or(|ovs| ovs.interfaces.contains_key(name))
    }

    /// Whether ovs-vswitchd has yet to let go of a netdev whose port is gone.
    pub(super) fn is_held_by_vswitchd(&self, name: &str) -> bool {
        self.inputs.observed.ovs.ready().is_some_and(|ovs| ovs.letting_go.contains(name))
    }

    /// Whether the userspace datapath still has, under this port, a netdev that was deleted. It keeps that open for ever
    /// and takes a new one of the same name for the old: the port looks usable, and no packet passes. So the port goes
    /// while the netdev is away, and comes back when ovs-vswitchd has seen that; see ADR 10. Whether the netdev is away
    /// is for the kernel to say where vifd makes it, and for both where it is another's, whose coming Open vSwitch may
    /// hear of before us.
    pub(super) fn outlived_its_netdev(
        port: &Port,
        interface: &Interface,
        made_by_us: bool,
        sight: &mut Sight<'_>,
    ) -> bool {
        sight.sees_vswitchd()
            && interface.kind.is_empty()
            && interface.ofport.is_some_and(|ofport| ofport > 0)
            && (made_by_us || interface.ifindex == Some(0))
            && sight.link(&interface.name).is_none()
            // Last, because no verdict stands on it: one port in a thousand gets here.
            && sight.is_userspace(&port.bridge)
    }

    /// The directory above the socket that a guest makes. The configured directory itself is made where it is
    /// missing and never altered where it is there: it may be Open vSwitch's own.
    fn socket_dir(&self, dir: &Path, sight: &mut Sight<'_>, found: &mut Findings) {
        let settings = self.inputs.settings;
        let owner = &settings.socket_owner;
        let right = match sight.directory(dir) {
            None => false,
            Some(_) if dir == settings.socket_dir => true,
            Some(is) => {
                (owner.uid == u32::MAX || is.uid == owner.uid)
                    && (owner.gid == u32::MAX || is.gid == owner.gid)
                    && is.mode == owner.mode
                    && (owner.label.is_none() || is.label == owner.label)
            }
        };
        if !right {
            found.links.push(LinkOp::MakeSocketDirectory { path: dir.to_path_buf(), owner: owner.clone() });
        }
    }

    fn bridges(&mut self, id: VifId, blueprint: &Blueprint, sight: &mut Sight<'_>, found: &mut Findings) {
        let settings = self.inputs.settings;
        for wanted in &blueprint.bridges {
            if sight.has_bridge(&wanted.name) {
                continue;
            }
            if found.facts.bridge.as_ref() == Some(&wanted.name) {
                found.unseen("bridge");
            }
            if self.inserted_bridges.contains(&wanted.name) {
                continue;
            }
            if let Some(port) = sight.port(&wanted.name) {
                found.conflict.get_or_insert(format!(
                    "bridge {} cannot be made: bridge {} has a port of this name",
                    wanted.name, port.bridge
                ));
                continue;
            }
            let own = (wanted.disposable && !super::blueprint::is_trunk_bridge(&wanted.name)).then_some(id);
            found.ovs.push(OvsOp::InsertBridge {
                name: wanted.name.clone(),
                datapath_type: wanted.datapath_type.clone(),
                external_ids: settings.marks(own, false),
                secure: settings.bridges.contains_key(&wanted.name),
            });
        }
    }

    fn port(&self, id: VifId, wanted: &WantedPort, first: bool, sight: &mut Sight<'_>, found: &mut Findings) {
        if first {
            found.port_ready = Some(false);
            if wanted.kind.starts_with("dpdkvhostuser") {
                found.vhost_connected = Some(false);
            }
        }
        if found.ovs.iter().any(|op| matches!(op, OvsOp::DeletePort { name, .. } if *name == wanted.name)) {
            return;
        }
        let settings = self.inputs.settings;
        let interface = sight.interface(&wanted.name);
        let Some(port) = sight.port(&wanted.name) else {
            if first {
                found.unseen("port");
            }
            match (wanted.maker, interface) {
                (_, Some(_)) => {
                    let of = sight.port_with(&wanted.name);
                    let of = of.map_or("another port", |port| port.name.as_str());
                    found.conflict.get_or_insert(format!("interface {} is part of port {of}", wanted.name));
                }
                (Maker::Hypervisor, None) => {
                    found.brought.get_or_insert(Missing::HypervisorPort {
                        port: wanted.name.clone(),
                        bridge: wanted.bridge.clone(),
                    });
                }
                (Maker::Vifd, None) if sight.is_userspace(&wanted.bridge) && sight.vswitchd_is_behind() => {
                    // A port that goes and comes between two of its looks stays as it was.
                    let busy = format!("ovs-vswitchd has yet to let go of what port {} was before", wanted.name);
                    found.blocked.get_or_insert(Missing::Busy(busy));
                }
                (Maker::Vifd, None) => found.ovs.push(OvsOp::InsertPort(Box::new(new_port(wanted)))),
            }
            return;
        };
        let Some(interface) = interface else {
            found
                .conflict
                .get_or_insert(format!("port {} of bridge {} is a bond of other interfaces", wanted.name, port.bridge));
            return;
        };
        let guard = match port_owner(port, Some(interface), settings) {
            Owner::Us { vif: Some(other), .. } if other != id => {
                found
                    .blocked
                    .get_or_insert(Missing::Busy(format!("port {} still belongs to VIF {other}", wanted.name)));
                return;
            }
            Owner::Us { .. } if port.bridge != wanted.bridge && wanted.maker == Maker::Hypervisor => {
                // Only the hypervisor could make it again.
                found.conflict.get_or_insert(format!(
                    "port {} is on bridge {} and the record wants it on {}: it is the hypervisor's to move",
                    wanted.name, port.bridge, wanted.bridge
                ));
                return;
            }
            Owner::Us { .. } if port.bridge != wanted.bridge => {
                self.give_up(id, port, Some(interface), sight, found);
                return;
            }
            Owner::Us { .. } => Guard::Mark,
            Owner::Other(who) | Owner::Later(who) => {
                found
                    .conflict
                    .get_or_insert(format!("port {} of bridge {} belongs to {who}", wanted.name, port.bridge));
                return;
            }
            Owner::Nobody => match self.claim(wanted, port, interface) {
                Ok(guard) if wanted.maker == Maker::Vifd => {
                    self.adopt_port(wanted, (port, interface), guard, found);
                    return;
                }
                Ok(guard) => Guard::Ids(guard),
                Err(reason) => {
                    // A link of its name would fall to it.
                    let falls = |op: &LinkOp| matches!(op, LinkOp::CreateLink { link, .. } if link.name == wanted.name);
                    found.links.retain(|op| !falls(op));
                    found.conflict.get_or_insert(reason);
                    return;
                }
            },
        };
        // A tap of ours has been seen to.
        let outlived = found.link_ready.is_none() && Self::outlived_its_netdev(port, interface, false, sight);
        if outlived && wanted.maker == Maker::Vifd && matches!(guard, Guard::Mark) {
            self.give_up(id, port, Some(interface), sight, found);
            return;
        }
        change_rows(wanted, (port, interface), settings, guard, found);
        if outlived {
            // Whoever made the port makes it again with the device.
            found.brought.get_or_insert(Missing::Netdev(wanted.name.clone()));
            return;
        }
        if let (Some(mtu), Some(link)) = (wanted.netdev_mtu, sight.link(&wanted.name))
            && link.mtu != mtu
        {
            let change = Box::new(LinkChange { mtu: Some(mtu), ..LinkChange::default() });
            found.links.push(LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change });
        }
        usable(wanted, first, interface, sight, found);
    }

    /// Deletes a port of a VIF, after the flows that name it.
    pub(super) fn give_up(
        &self,
        id: VifId,
        port: &Port,
        interface: Option<&Interface>,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) {
        match self.is_unnamed(id, port, interface) {
            Ok(()) => found.ovs.push(self.delete_port(port, interface)),
            Err(Naming::By(flows)) => found.flows.extend(flows),
            Err(Naming::Unseen) => {
                // Its bridge may be another than that of its flows, of which is noted how things are.
                sight.glimpse();
                found.blocked.get_or_insert(Missing::Switch(port.bridge.to_string()));
            }
        }
    }

    /// Deletes a port of ours, its QoS row with it where that is ours or as os-vif made it; also where somebody gave the
    /// port another one since.
    pub(super) fn delete_port(&self, port: &Port, interface: Option<&Interface>) -> OvsOp {
        let ours = |qos: &uuid::Uuid| {
            self.inputs.observed.ovs.ready().and_then(|ovs| ovs.qos.get(qos)).is_some_and(|qos| {
                matches!(self.inputs.settings.owner(&qos.external_ids), Owner::Us { .. })
                    || qos.external_ids.get("id") == Some(&super::settings::qos_id(&port.name))
            })
        };
        OvsOp::DeletePort {
            uuid: port.uuid,
            name: port.name.to_string(),
            bridge: port.bridge.to_string(),
            interface: interface
                .map(|interface| (interface.uuid, entries(&interface.external_ids, &self.inputs.settings.guard()))),
            qos: port.qos.filter(ours).or_else(|| self.unused_qos(&port.name)),
        }
    }

    /// Keeps the operations that are allowed now and gives the verdict. Answers on what that rests, where there is
    /// nothing to do and that is known.
    pub(super) fn conclude(&mut self, half: Half) -> Option<Vec<Look>> {
        let Half { id, mut found, looks } = half;
        let mut shared_missing = None;
        if let Some(place) = found.place.take() {
            let stands = self.stands(&place, id, &mut found);
            found.flows_ready = Some(stands && found.flows.is_empty());
            shared_missing = (!stands && found.conflict.is_none()).then_some(place);
        }
        let idle = !found.awaits_share
            && found.offloads.is_none()
            && found.links.is_empty()
            && found.nics.is_empty()
            && found.ovs.is_empty()
            && found.flows.is_empty()
            && shared_missing.is_none();
        let paused = self.inputs.orders.pauses(id);
        // A port waits for what it is built on, and so for a hold on that, but not for anything else of its links.
        let is_base = |op: &LinkOp| matches!(op, LinkOp::CreateLink { .. } | LinkOp::MakeSocketDirectory { .. });
        let waits_for_links = found.links.iter().any(is_base);
        let mut held = None;
        let any = [
            (NICS, !found.nics.is_empty()),
            (LINKS, !found.links.is_empty()),
            (OVSDB, !found.ovs.is_empty()),
            (OPENFLOW, !found.flows.is_empty()),
        ];
        for (backend, any) in any {
            if let Some(hold) = self.inputs.holds.in_force(Some(id), backend, self.now).filter(|_| any) {
                held.get_or_insert(Verdict::of_hold(hold, backend));
                match backend {
                    NICS => found.nics.clear(),
                    LINKS => found.links.clear(),
                    OVSDB => found.ovs.clear(),
                    _ => found.flows.clear(),
                }
            }
        }
        if let Some(place) = &shared_missing
            && held.is_none()
        {
            held = self.held_network(place);
        }
        if found.conflict.is_some() {
            // A function may be just what is somebody else's.
            found.nics.clear();
        }
        if found.conflict.is_some() || found.blocked.is_some() || waits_for_links {
            // What is there already is kept right; nothing new is built on what is missing.
            found.ovs.retain(|op| !matches!(op, OvsOp::InsertPort(_)));
        }
        let working = !found.links.is_empty()
            || !found.nics.is_empty()
            || !found.ovs.is_empty()
            || !found.flows.is_empty()
            || waits_for_links
            || found.awaits_share
            || (shared_missing.is_some() && held.is_none());
        let plugged = !working && held.is_none() && found.conflict.is_none() && found.blocked.is_none();
        let verdict = if paused && working {
            Verdict::Paused { all: self.inputs.orders.paused }
        } else if let Some(reason) = found.conflict {
            Verdict::Conflict { reason }
        } else if let Some(held) = held {
            held
        } else if let Some(missing) = found.blocked {
            Verdict::Waiting(missing)
        } else if working {
            Verdict::Working
        } else if let Some(reason) = found.failed {
            Verdict::Failed { reason }
        } else if let Some(reason) = found.flows_failed {
            Verdict::FlowsFailed { reason }
        } else if let Some(missing) = found.brought {
            Verdict::Plugged(missing)
        } else if let Some(missing) = found.unanswered {
            Verdict::Waiting(missing)
        } else {
            Verdict::Ready
        };
        if !paused {
            self.emit_nics(id, found.nics);
            self.emit_offload(found.offloads);
            self.emit(Some(id), found.links, found.ovs);
            self.emit_flows(&id.into(), found.flows);
        }
        let judgement = Judgement {
            verdict,
            link_ready: found.link_ready,
            port_ready: found.port_ready,
            flows_ready: found.flows_ready,
            vhost_connected: found.vhost_connected,
            plugged,
            offload: found.offload.map(Box::new),
            facts: Arc::new(found.facts),
        };
        self.plan.judgements.insert(id, Arc::new(judgement));
        looks.filter(|_| idle)
    }

    /// Whether this plan inserts a bridge.
    pub(super) fn inserts(&self, bridge: &str) -> bool {
        self.inserted_bridges.contains(bridge)
    }

    /// Adds operations on flows to the plan.
    pub(super) fn emit_flows(&mut self, party: &Party, flows: Vec<FlowOp>) {
        self.plan.flows.extend(flows.into_iter().map(|op| Attributed { party: party.clone(), op }));
    }

    /// Has a link hand its flows to its NIC, unless that was refused.
    fn emit_offload(&mut self, op: Option<NicOp>) {
        let Some(op) = op else { return };
        let party = Party::Nic(op.to_string());
        if self.inputs.holds.in_force(party.clone(), NICS, self.now).is_none() {
            self.plan.nics.push(Attributed { party, op });
        }
    }

    /// Adds operations on a VIF's function to the plan.
    pub(super) fn emit_nics(&mut self, vif: VifId, nics: Vec<NicOp>) {
        self.plan.nics.extend(nics.into_iter().map(|op| Attributed { party: vif.into(), op }));
    }

    /// Adds operations to the plan.
    pub(super) fn emit(&mut self, vif: Option<VifId>, links: Vec<LinkOp>, ovs: Vec<OvsOp>) {
        for op in &ovs {
            if let OvsOp::InsertBridge { name, .. } = op {
                self.inserted_bridges.insert(name.clone());
            }
        }
        self.plan.links.extend(links.into_iter().map(|op| Attributed { party: vif.into(), op }));
        self.plan.ovs.extend(ovs.into_iter().map(|op| Attributed { party: vif.into(), op }));
    }

    pub(super) fn finish(mut self) -> Plan {
        self.plan.newer_marks = self.inventory.newer;
        self.plan.wake_at = self.inputs.holds.next(self.now);
        self.plan
    }
}

/// What is known of a VIF's function beside what its record makes of it.
fn of_function(Facts { function, nic, representor, driver, .. }: Facts, facts: Facts) -> Facts {
    Facts { function, nic, representor, driver, ..facts }
}

/// What is known of a VIF before anything is seen: what its record makes of it.
fn wanted_facts(vif: &Vif, blueprint: &Blueprint) -> Facts {
    let port = blueprint.ports.first().map(|port| (&port.bridge, &port.name));
    let port = port.or_else(|| blueprint.sub_port.as_ref().map(|of| (&of.bridge, &of.port)));
    Facts {
        bridge: port.map(|(bridge, _)| bridge.clone()),
        port: port.map(|(_, port)| port.clone()),
        vlan: blueprint.sub_port.as_ref().filter(|of| !of.patched).map(|of| of.vlan),
        netdev: blueprint.netdev().map(|link| link.name.clone()),
        guest_device: blueprint.guest_device().map(|link| link.name.clone()),
        linux_bridge: linux_bridge(vif, blueprint),
        uplink: blueprint.uplink().map(str::to_owned),
        socket: blueprint.socket.as_ref().map(|socket| socket.display().to_string()),
        mac: vif.address,
        ..Facts::default()
    }
}

/// The Linux bridge that a VIF is in, whoever makes it.
fn linux_bridge(vif: &Vif, blueprint: &Blueprint) -> Option<String> {
    let master = blueprint.links.iter().find_map(|link| link.master.as_ref());
    let named = || if let VifKind::Bridge { bridge_name, .. } = &vif.kind { bridge_name.as_ref() } else { None };
    master.or_else(named).cloned()
}

/// Notes which links are not there of those that the VIF has beside its netdev.
fn see_kernel_side(sight: &mut Sight<'_>, found: &mut Findings) {
    let Facts { guest_device, linux_bridge, uplink, .. } = &found.facts;
    let wanted = [("guest_device", guest_device), ("linux_bridge", linux_bridge), ("uplink", uplink)];
    let absent = wanted.map(|(what, name)| (what, name.as_deref().is_some_and(|name| sight.link(name).is_none())));
    for (what, _) in absent.into_iter().filter(|(_, absent)| *absent) {
        found.unseen(what);
    }
}

/// Deletes a link of ours.
pub(super) fn delete_link(link: &Link) -> LinkOp {
    LinkOp::DeleteLink { index: link.index, name: link.name.clone(), alias: link.alias.clone().unwrap_or_default() }
}
