//! What on the host is ours, by VIF: read off the marks, once per change of what is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::blueprint::Layout;
use super::{Owner, Settings};
use crate::model::{Bridge, Interface, Link, Observed, OvsState, Port, Vif, VifId, VifKind, cut_name};

/// Everything that carries our mark for one VIF.
#[derive(Debug, Default)]
pub(super) struct Owned {
    pub(super) ports: Vec<(Arc<Port>, Option<Arc<Interface>>)>,
    pub(super) taps: Vec<Arc<Link>>,
    pub(super) bridges: Vec<Arc<Bridge>>,
    /// Whether any of it is to stay when the VIF goes.
    pub(super) preserve: bool,
}

impl Owned {
    /// Whether the two hold the very same objects.
    fn is(&self, other: &Owned) -> bool {
        fn same<T>(a: &[T], b: &[T], is: impl Fn(&T, &T) -> bool) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is(a, b))
        }
        // Whether any of it is preserved is read off these objects.
        same(&self.ports, &other.ports, |a, b| {
            Arc::ptr_eq(&a.0, &b.0) && a.1.as_ref().map(Arc::as_ptr) == b.1.as_ref().map(Arc::as_ptr)
        }) && same(&self.taps, &other.taps, Arc::ptr_eq)
            && same(&self.bridges, &other.bridges, Arc::ptr_eq)
    }
}

/// What is ours.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// An entry that is the very one of the inventory before says that nothing of that VIF is another.
    pub(super) by_vif: BTreeMap<VifId, Arc<Owned>>,
    /// Bridges that several VIFs share.
    pub(super) shared_bridges: Vec<Arc<Bridge>>,
    /// Our QoS rows that no port refers to.
    pub(super) loose_qos: Vec<Uuid>,
    /// Objects in a later format.
    pub(super) newer: usize,
}

impl Inventory {
    /// Takes it anew, with the entries of the one `before` for VIFs of which nothing is another.
    pub(super) fn take(observed: &Observed, settings: &Settings, before: &Inventory) -> Self {
        let mut inventory = Inventory::default();
        let mut by_vif = BTreeMap::new();
        if let Some(ovs) = observed.ovs.ready() {
            inventory.rows(ovs, settings, &mut by_vif);
        }
        if let Some(links) = observed.links.ready() {
            for link in links.links.values() {
                match settings.link_owner(link.alias.as_deref()) {
                    Owner::Us { vif: Some(vif), preserve } => {
                        let owned: &mut Owned = by_vif.entry(vif).or_default();
                        owned.taps.push(Arc::clone(link));
                        owned.preserve |= preserve;
                    }
                    Owner::Later(_) => inventory.newer += 1,
                    _ => {}
                }
            }
        }
        let kept = |(id, owned): (VifId, Owned)| match before.by_vif.get(&id).filter(|known| known.is(&owned)) {
            Some(known) => (id, Arc::clone(known)),
            None => (id, Arc::new(owned)),
        };
        inventory.by_vif = by_vif.into_iter().map(kept).collect();
        inventory
    }

    /// How an `openvswitch` VIF is laid out: as it stands, and where nothing of it stands, as is configured. A
    /// changed `per_port_bridge` is for ports that are made from then on.
    pub(super) fn layout(&self, vif: &Vif, settings: &Settings) -> Layout {
        let configured = if settings.per_port_bridge { Layout::PerPortBridge } else { Layout::Plain };
        let VifKind::OpenVSwitch { vif_name, .. } = &vif.kind else { return configured };
        let ports = self.by_vif.get(&vif.id).map_or(&[][..], |owned| &owned.ports[..]);
        match ports.iter().find(|(port, _)| port.name == *vif_name) {
            None => configured,
            Some((port, _)) if port.bridge == cut_name("pb", vif.id) => Layout::PerPortBridge,
            Some(_) => Layout::Plain,
        }
    }

    fn rows(&mut self, ovs: &OvsState, settings: &Settings, by_vif: &mut BTreeMap<VifId, Owned>) {
        for port in ovs.ports.values() {
            let interface = ovs.interfaces.get(&port.name);
            match port_owner(port, interface.map(Arc::as_ref), settings) {
                Owner::Us { vif: Some(vif), preserve } => {
                    let owned = by_vif.entry(vif).or_default();
                    owned.ports.push((Arc::clone(port), interface.cloned()));
                    owned.preserve |= preserve;
                }
                Owner::Later(_) => self.newer += 1,
                _ => {}
            }
        }
        for bridge in ovs.bridges.values() {
            match settings.owner(&bridge.external_ids) {
                Owner::Us { vif: Some(vif), .. } => by_vif.entry(vif).or_default().bridges.push(Arc::clone(bridge)),
                Owner::Us { vif: None, .. } => self.shared_bridges.push(Arc::clone(bridge)),
                _ => {}
            }
        }
        let referred: BTreeSet<Uuid> = ovs.ports.values().filter_map(|port| port.qos).collect();
        for qos in ovs.qos.values() {
            if !referred.contains(&qos.uuid) && matches!(settings.owner(&qos.external_ids), Owner::Us { .. }) {
                self.loose_qos.push(qos.uuid);
            }
        }
    }
}

/// Whose a port is. The mark stands on the port and on its interface; either counts, so that a hand that
/// clears one of them does not make an orphan.
pub(super) fn port_owner(port: &Port, interface: Option<&Interface>, settings: &Settings) -> Owner {
    match interface.map_or(Owner::Nobody, |interface| settings.owner(&interface.external_ids)) {
        Owner::Nobody | Owner::Us { vif: None, .. } => settings.owner(&port.external_ids),
        by_interface => by_interface,
    }
}
