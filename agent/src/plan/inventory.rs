//! What on the host is ours, by VIF: read off the marks, once per plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::blueprint::Layout;
use super::{Owner, Settings};
use crate::model::{Bridge, Interface, Link, Observed, OvsState, Port, Vif, VifId, VifKind, cut_name};

/// Everything that carries our mark for one VIF.
#[derive(Debug, Default)]
pub(super) struct Owned<'a> {
    pub(super) ports: Vec<(&'a Arc<Port>, Option<&'a Arc<Interface>>)>,
    pub(super) taps: Vec<&'a Arc<Link>>,
    pub(super) bridges: Vec<&'a Arc<Bridge>>,
    /// Whether any of it is to stay when the VIF goes.
    pub(super) preserve: bool,
}

/// What is ours.
#[derive(Debug, Default)]
pub(super) struct Inventory<'a> {
    pub(super) by_vif: BTreeMap<VifId, Owned<'a>>,
    /// Bridges that several VIFs share.
    pub(super) shared_bridges: Vec<&'a Arc<Bridge>>,
    /// Our QoS rows that no port refers to.
    pub(super) loose_qos: Vec<Uuid>,
    /// Objects in a later format.
    pub(super) newer: usize,
}

impl<'a> Inventory<'a> {
    pub(super) fn take(observed: &'a Observed, settings: &Settings) -> Self {
        let mut inventory = Inventory::default();
        if let Some(ovs) = observed.ovs.ready() {
            inventory.rows(ovs, settings);
        }
        if let Some(links) = observed.links.ready() {
            for link in links.links.values() {
                match settings.link_owner(link.alias.as_deref()) {
                    Owner::Us { vif: Some(vif), preserve } => {
                        let owned = inventory.by_vif.entry(vif).or_default();
                        owned.taps.push(link);
                        owned.preserve |= preserve;
                    }
                    Owner::Later(_) => inventory.newer += 1,
                    _ => {}
                }
            }
        }
        inventory
    }

    /// How an `openvswitch` VIF is laid out: as it stands, and where nothing of it stands, as is configured. A
    /// changed `per_port_bridge` is for ports that are made from then on.
    pub(super) fn layout(&self, vif: &Vif, settings: &Settings) -> Layout {
        let configured = if settings.per_port_bridge { Layout::PerPortBridge } else { Layout::Plain };
        let VifKind::OpenVSwitch { vif_name, .. } = &vif.kind else { return configured };
        let ports = self.by_vif.get(&vif.id).map_or(&[][..], |owned| &owned.ports);
        match ports.iter().find(|(port, _)| port.name == *vif_name) {
            None => configured,
            Some((port, _)) if port.bridge == cut_name("pb", vif.id) => Layout::PerPortBridge,
            Some(_) => Layout::Plain,
        }
    }

    fn rows(&mut self, ovs: &'a OvsState, settings: &Settings) {
        for port in ovs.ports.values() {
            let interface = ovs.interfaces.get(&port.name);
            match port_owner(port, interface.map(Arc::as_ref), settings) {
                Owner::Us { vif: Some(vif), preserve } => {
                    let owned = self.by_vif.entry(vif).or_default();
                    owned.ports.push((port, interface));
                    owned.preserve |= preserve;
                }
                Owner::Later(_) => self.newer += 1,
                _ => {}
            }
        }
        for bridge in ovs.bridges.values() {
            match settings.owner(&bridge.external_ids) {
                Owner::Us { vif: Some(vif), .. } => self.by_vif.entry(vif).or_default().bridges.push(bridge),
                Owner::Us { vif: None, .. } => self.shared_bridges.push(bridge),
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
