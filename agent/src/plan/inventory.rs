//! What on the host is ours, by VIF: read off the marks, and kept in step with what is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::adoption::layout_there;
use super::blueprint::Layout;
use super::memo::Seen;
use super::{Facts, Inputs, Owner, Settings, sub_ports};
use crate::model::table::{pack, worth_packing};
use crate::model::{
    Bridge, Interface, Link, LinkKind, NicState, OvsState, Port, Qos, Undo, Vif, VifId, VifKind, cut_name,
};

/// Everything that carries our mark for one VIF, each kind in order of names.
#[derive(Debug, Default)]
pub(super) struct Owned {
    pub(super) ports: Vec<(Arc<Port>, Option<Arc<Interface>>)>,
    /// Ports of trunks that it is marked on as a sub-port, with its VLAN there.
    pub(super) sub_ports: Vec<(Arc<Port>, Arc<Interface>, Option<u16>)>,
    pub(super) links: Vec<Arc<Link>>,
    pub(super) bridges: Vec<Arc<Bridge>>,
    /// What was noted down of the function that it has.
    pub(super) undo: Option<Arc<Undo>>,
    /// Whether any of it is to stay when the VIF goes.
    pub(super) preserve: bool,
}

/// What is ours.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) by_vif: BTreeMap<VifId, Owned>,
    /// Bridges that several VIFs share.
    pub(super) shared_bridges: BTreeMap<String, Arc<Bridge>>,
    /// Links that several VIFs share.
    pub(super) shared_links: BTreeMap<String, Arc<Link>>,
    /// Links that a crash has left before they had their mark.
    pub(super) half_made: BTreeMap<String, Arc<Link>>,
    /// Our QoS rows.
    qos: BTreeSet<Uuid>,
    /// How many ports refer to a QoS row, whosever they are.
    qos_users: BTreeMap<Uuid, usize>,
    /// Our QoS rows that no port refers to.
    pub(super) loose_qos: BTreeSet<Uuid>,
    /// Objects in a later format.
    pub(super) newer: usize,
}

/// What two views differ in, as far as it is about what has a name.
#[derive(Debug, Default)]
pub(super) struct Differences<'a> {
    /// Names of links, ports and interfaces.
    pub(super) names: BTreeSet<&'a str>,
    /// Bridges that came or went.
    pub(super) bridges: BTreeSet<&'a str>,
    /// VIFs of which something of ours is another.
    pub(super) vifs: BTreeSet<VifId>,
}

impl Inventory {
    /// Goes from what `before` shows to what `now` shows, and tells what that is.
    pub(super) fn follow<'a>(&mut self, before: Seen<'a>, now: Seen<'a>, settings: &Settings) -> Differences<'a> {
        let mut differences = Differences::default();
        let Differences { names, bridges, vifs } = &mut differences;
        before.links.links.differing(&now.links.links, |name, was, is| {
            names.insert(name);
            self.link(name, (was, is), settings, vifs);
        });
        // A port and its interface tell together whose they are.
        let mut rows = BTreeSet::new();
        before.ovs.ports.differing(&now.ovs.ports, |name, was, is| {
            rows.insert(name.as_str());
            let (was, is) = (was.and_then(|port| port.qos), is.and_then(|port| port.qos));
            self.refer(was, is);
        });
        before.ovs.interfaces.differing(&now.ovs.interfaces, |name, _, _| {
            rows.insert(name.as_str());
        });
        for name in &rows {
            let of = |ovs: &'a OvsState| Some((ovs.ports.get(*name)?, ovs.interfaces.get(*name)));
            self.port(name, (of(before.ovs), of(now.ovs)), settings, vifs);
        }
        names.extend(rows);
        before.ovs.bridges.differing(&now.ovs.bridges, |name, was, is| {
            if was.is_none() || is.is_none() {
                bridges.insert(name);
            }
            self.bridge(name, (was, is), settings, vifs);
        });
        before.ovs.qos.differing(&now.ovs.qos, |uuid, _, is| self.qos(*uuid, is.map(AsRef::as_ref), settings));
        self.notes(before.nics, now.nics, settings, vifs);
        if worth_packing(vifs.len(), self.by_vif.len()) {
            pack(&mut self.by_vif);
        }
        differences
    }

    /// How an `openvswitch` VIF is laid out: as it stands, and where nothing of it stands, as is configured. A
    /// changed `per_port_bridge` is for ports that are made from then on.
    pub(super) fn layout(&self, vif: &Vif, inputs: Inputs<'_>) -> Layout {
        let Inputs { settings, observed, .. } = inputs;
        let configured = if settings.per_port_bridge { Layout::PerPortBridge } else { Layout::Plain };
        let VifKind::OpenVSwitch { vif_name, .. } = &vif.kind else { return configured };
        let ports = self.by_vif.get(&vif.id).map_or(&[][..], |owned| &owned.ports[..]);
        match ports.iter().find(|(port, _)| port.name == *vif_name) {
            None if settings.adopt => observed.ovs.ready().and_then(|ovs| layout_there(vif, ovs)).unwrap_or(configured),
            None => configured,
            Some((port, _)) if port.bridge == cut_name("pb", vif.id) => Layout::PerPortBridge,
            Some(_) => Layout::Plain,
        }
    }

    fn link(
        &mut self,
        name: &str,
        (was, is): (Option<&Arc<Link>>, Option<&Arc<Link>>),
        settings: &Settings,
        vifs: &mut BTreeSet<VifId>,
    ) {
        let owner = |link: &Arc<Link>| settings.link_owner(link.alias.as_deref());
        if let Some(vif) = self.disown(was.map(owner), settings, |owned| owned.links.retain(|link| link.name != *name))
        {
            vifs.insert(vif);
        }
        self.shared_links.remove(name);
        self.half_made.remove(name);
        let Some(link) = is else { return };
        let owner = owner(link);
        match owner {
            Owner::Us { vif: None, .. } => drop(self.shared_links.insert(name.to_owned(), Arc::clone(link))),
            Owner::Nobody if link.group == settings.nursery() => {
                self.half_made.insert(name.to_owned(), Arc::clone(link));
            }
            _ => {}
        }
        vifs.extend(self.own(&owner, |owned| put(&mut owned.links, Arc::clone(link), |link| &link.name)));
    }

    fn port(
        &mut self,
        name: &str,
        (was, is): (Option<PortRows<'_>>, Option<PortRows<'_>>),
        settings: &Settings,
        vifs: &mut BTreeSet<VifId>,
    ) {
        let owner = |(port, interface): PortRows<'_>| port_owner(port, interface.map(Arc::as_ref), settings);
        let gone = |owned: &mut Owned| owned.ports.retain(|(port, _)| port.name != *name);
        if let Some(vif) = self.disown(was.map(owner), settings, gone) {
            vifs.insert(vif);
        }
        for ((vif, _), ..) in was.into_iter().flat_map(|rows| sub_ports_of(rows, settings)) {
            let us = Owner::Us { vif: Some(vif), preserve: false };
            let gone = |owned: &mut Owned| owned.sub_ports.retain(|(port, ..)| port.name != *name);
            vifs.extend(self.disown(Some(us), settings, gone));
        }
        for ((vif, vlan), port, interface) in is.into_iter().flat_map(|rows| sub_ports_of(rows, settings)) {
            let us = Owner::Us { vif: Some(vif), preserve: false };
            let rows = (Arc::clone(port), Arc::clone(interface), vlan);
            vifs.extend(self.own(&us, |owned| put(&mut owned.sub_ports, rows, |(port, ..)| &port.name)));
        }
        let Some((port, interface)) = is else { return };
        let rows = (Arc::clone(port), interface.cloned());
        vifs.extend(self.own(&owner((port, interface)), |owned| put(&mut owned.ports, rows, |(port, _)| &port.name)));
    }

    fn bridge(
        &mut self,
        name: &str,
        (was, is): (Option<&Arc<Bridge>>, Option<&Arc<Bridge>>),
        settings: &Settings,
        vifs: &mut BTreeSet<VifId>,
    ) {
        self.shared_bridges.remove(name);
        // Bridges of a later format are not counted: their ports are.
        let owner = |bridge: &Arc<Bridge>| match settings.owner(&bridge.external_ids) {
            // Whether a VIF is preserved is said by its port.
            Owner::Us { vif, .. } => Owner::Us { vif, preserve: false },
            _ => Owner::Nobody,
        };
        let gone = |owned: &mut Owned| owned.bridges.retain(|bridge| bridge.name != *name);
        if let Some(vif) = self.disown(was.map(owner), settings, gone) {
            vifs.insert(vif);
        }
        let Some(bridge) = is else { return };
        let owner = owner(bridge);
        if matches!(owner, Owner::Us { vif: None, .. }) {
            self.shared_bridges.insert(name.to_owned(), Arc::clone(bridge));
        }
        vifs.extend(self.own(&owner, |owned| put(&mut owned.bridges, Arc::clone(bridge), |bridge| &bridge.name)));
    }

    /// What is noted down of a VIF's function is a mark of its.
    fn notes(&mut self, before: &NicState, now: &NicState, settings: &Settings, vifs: &mut BTreeSet<VifId>) {
        let (was, is) = (before.undo.iter(), now.undo.iter());
        let ids: BTreeSet<VifId> = was.chain(is).map(|(id, _)| *id).collect();
        for id in ids {
            let (was, is) = (before.undo.get(&id), now.undo.get(&id));
            if was.zip(is).is_some_and(|(was, is)| Arc::ptr_eq(was, is)) {
                continue;
            }
            let us = |undo: &Arc<Undo>| undo.agent == settings.agent;
            let owner = |undo: &Arc<Undo>| Owner::Us { vif: Some(id), preserve: undo.preserve };
            vifs.extend(self.disown(was.filter(|undo| us(undo)).map(owner), settings, |owned| owned.undo = None));
            if let Some(undo) = is.filter(|undo| us(undo)) {
                vifs.extend(self.own(&owner(undo), |owned| owned.undo = Some(Arc::clone(undo))));
            }
        }
        self.newer = self.newer + now.newer - before.newer;
    }

    fn qos(&mut self, uuid: Uuid, is: Option<&Qos>, settings: &Settings) {
        if is.is_some_and(|qos| matches!(settings.owner(&qos.external_ids), Owner::Us { .. })) {
            self.qos.insert(uuid);
        } else {
            self.qos.remove(&uuid);
        }
        self.weigh(uuid);
    }

    /// A port refers to another QoS row than before.
    fn refer(&mut self, was: Option<Uuid>, is: Option<Uuid>) {
        if let Some(uuid) = is {
            *self.qos_users.entry(uuid).or_default() += 1;
        }
        if let Some(uuid) = was
            && let Some(users) = self.qos_users.get_mut(&uuid)
        {
            *users -= 1;
            if *users == 0 {
                self.qos_users.remove(&uuid);
            }
        }
        was.into_iter().chain(is).for_each(|uuid| self.weigh(uuid));
    }

    fn weigh(&mut self, uuid: Uuid) {
        if self.qos.contains(&uuid) && !self.qos_users.contains_key(&uuid) {
            self.loose_qos.insert(uuid);
        } else {
            self.loose_qos.remove(&uuid);
        }
    }

    /// Something of a VIF's is there; answers which VIF's.
    fn own(&mut self, owner: &Owner, add: impl FnOnce(&mut Owned)) -> Option<VifId> {
        match owner {
            Owner::Us { vif: Some(vif), preserve } => {
                let owned = self.by_vif.entry(*vif).or_default();
                add(owned);
                owned.preserve |= preserve;
                Some(*vif)
            }
            Owner::Later(_) => {
                self.newer += 1;
                None
            }
            _ => None,
        }
    }

    /// Something of a VIF's went; answers which VIF's.
    fn disown(&mut self, owner: Option<Owner>, settings: &Settings, take: impl FnOnce(&mut Owned)) -> Option<VifId> {
        match owner? {
            Owner::Us { vif: Some(vif), .. } => {
                let owned = self.by_vif.get_mut(&vif)?;
                take(owned);
                owned.preserve = owned.is_preserved(settings);
                if owned.ports.is_empty()
                    && owned.sub_ports.is_empty()
                    && owned.links.is_empty()
                    && owned.bridges.is_empty()
                    && owned.undo.is_none()
                {
                    self.by_vif.remove(&vif);
                }
                Some(vif)
            }
            Owner::Later(_) => {
                self.newer -= 1;
                None
            }
            _ => None,
        }
    }
}

type PortRows<'a> = (&'a Arc<Port>, Option<&'a Arc<Interface>>);

/// The sub-ports that are marked on a port of ours.
fn sub_ports_of<'a>(
    (port, interface): PortRows<'a>,
    settings: &Settings,
) -> impl Iterator<Item = ((VifId, Option<u16>), &'a Arc<Port>, &'a Arc<Interface>)> {
    let ours = |of: &&'a Arc<Interface>| {
        sub_ports::marked(of).next().is_some() && matches!(port_owner(port, Some(of), settings), Owner::Us { .. })
    };
    let interface = interface.filter(ours);
    interface.into_iter().flat_map(move |of| sub_ports::marked(of).map(move |marked| (marked, port, of)))
}

impl Owned {
    /// What it shows of a VIF of which no record tells, or none that can be honoured.
    pub(super) fn facts(&self) -> Facts {
        // Of a VIF with a bridge of its own, the guest's port and not those that join the bridges.
        let is_patch = |interface: &Option<Arc<Interface>>| interface.as_ref().is_some_and(|of| of.kind == "patch");
        let ports = || self.ports.iter();
        let port = ports().find(|(_, interface)| !is_patch(interface)).or_else(|| ports().next());
        let named = |link: &&Arc<Link>| port.is_some_and(|(port, _)| port.name == link.name);
        let link = self.links.iter().find(named).or_else(|| self.links.first());
        let bridge = self.links.iter().find(|link| matches!(link.kind, LinkKind::Bridge(_)));
        let on_trunk = self.sub_ports.first().filter(|_| port.is_none());
        let interface = port.and_then(|(_, interface)| interface.as_deref()).or(on_trunk.map(|(_, of, _)| &**of));
        let port = port.map(|(port, _)| port).or(on_trunk.map(|(port, ..)| port));
        let mac = interface.and_then(|interface| interface.external_ids.get("attached-mac")?.parse().ok());
        Facts {
            bridge: port.map(|port| port.bridge.to_string()),
            port: port.map(|port| port.name.to_string()),
            vlan: on_trunk.and_then(|(.., vlan)| *vlan),
            ofport: interface.and_then(|interface| interface.ofport),
            interface_type: interface.map(Interface::type_name).map(str::to_owned),
            netdev: link.map(|link| link.name.clone()),
            linux_bridge: bridge.map(|link| link.name.clone()),
            function: self.undo.as_ref().and_then(|undo| undo.function.as_ref()).map(ToString::to_string),
            association: self.undo.as_ref().and_then(|undo| undo.association.as_ref()).map(ToString::to_string),
            mac: mac.or_else(|| link.filter(|link| matches!(link.kind, LinkKind::Tap { .. }))?.mac),
            mtu: link.map(|link| link.mtu).or_else(|| interface.and_then(|interface| interface.mtu)),
            ..Facts::default()
        }
    }

    fn is_preserved(&self, settings: &Settings) -> bool {
        let preserved = |owner| matches!(owner, Owner::Us { preserve: true, .. });
        let port = |(port, interface): &(Arc<Port>, Option<Arc<Interface>>)| {
            preserved(port_owner(port, interface.as_deref(), settings))
        };
        self.ports.iter().any(port)
            || self.undo.as_ref().is_some_and(|undo| undo.preserve)
            || self.links.iter().any(|link| preserved(settings.link_owner(link.alias.as_deref())))
    }
}

/// Puts something in its place in the order of names.
fn put<T>(all: &mut Vec<T>, new: T, name: impl Fn(&T) -> &str) {
    let at = all.partition_point(|known| name(known) < name(&new));
    // Nearly always it is the only one.
    all.reserve_exact(1);
    all.insert(at, new);
}

/// Whose a port is. The mark stands on the port and on its interface; either counts, so that a hand that
/// clears one of them does not make an orphan.
pub(crate) fn port_owner(port: &Port, interface: Option<&Interface>, settings: &Settings) -> Owner {
    match interface.map_or(Owner::Nobody, |interface| settings.owner(&interface.external_ids)) {
        Owner::Nobody | Owner::Us { vif: None, .. } => settings.owner(&port.external_ids),
        by_interface => by_interface,
    }
}
