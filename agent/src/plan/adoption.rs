//! Taking over what nobody's mark is on: what may become a VIF's, on what proof, and the marks that make it so. Adopting
//! adds marks and changes nothing else; what else is to be put right waits until they are seen, when the thing is like
//! any other of ours. It is all of a VIF or nothing: where one thing is not as the record says, nothing is marked.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::Owner;
use super::blueprint::{Blueprint, Layout, Maker, WantedPort, is_trunk_bridge};
use super::compare::{Findings, Work};
use super::rows::{entries, marks_alone};
use super::settings::qos_id;
use super::sight::Sight;
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::ovs::{MarkedTable, OvsOp, StringMap};
use crate::model::{Interface, Link, OvsState, Port, Qos, Vif, VifId, VifKind, cut_name};

/// The marks that would make a VIF's what is there for it.
#[derive(Default)]
pub(super) struct Adoption {
    pub(super) links: Vec<LinkOp>,
    pub(super) ovs: Vec<OvsOp>,
}

impl Adoption {
    fn is_empty(&self) -> bool {
        self.links.is_empty() && self.ovs.is_empty()
    }
}

impl Work<'_> {
    /// Whether a port without marks may become ours: a hypervisor's port with the wanted name and `iface-id` on
    /// the wanted bridge always, a port that os-vif made when adoption is on. Answers what has to stay true for
    /// that, or why not.
    pub(super) fn claim(&self, wanted: &WantedPort, port: &Port, interface: &Interface) -> Result<StringMap, String> {
        let (name, bridge) = (&wanted.name, &wanted.bridge);
        if port.bridge != *bridge {
            return Err(format!("port {name} is on bridge {}, not on {bridge}, and vifd did not make it", port.bridge));
        }
        let keys: &[&str] = match wanted.maker {
            Maker::Hypervisor => &["iface-id"],
            Maker::Vifd if self.inputs.settings.adopt => &["iface-id", "attached-mac"],
            Maker::Vifd => {
                return Err(format!(
                    "port {name} of bridge {bridge} is there and vifd did not make it (adoption is off: [agent] adopt)"
                ));
            }
        };
        let differs = |what: &str, is: Option<&str>, should: Option<&str>| {
            let (is, should) = (is.unwrap_or("none"), should.unwrap_or("none"));
            Err(format!("port {name} of bridge {bridge} has {what} {is}, the record says {should}"))
        };
        let mut guard = StringMap::new();
        for key in keys {
            let (is, should) = (interface.external_ids.get(key), wanted.ids.get(*key).map(String::as_str));
            if is != should {
                return differs(key, is, should);
            }
            guard.extend(is.map(|value| ((*key).to_owned(), value.to_owned())));
        }
        if wanted.maker == Maker::Vifd {
            // Either would have to be changed under the guest's hands.
            if interface.kind != wanted.kind {
                let should = if wanted.kind.is_empty() { "system" } else { &wanted.kind };
                return differs("type", Some(interface.type_name()), Some(should));
            }
            for (key, should) in &wanted.options {
                let is = interface.options.get(key);
                if is != Some(should) {
                    return differs(key, is, Some(should));
                }
            }
        }
        Ok(guard)
    }

    /// A port that os-vif made, and its QoS row, which no port would lead to any more when that is gone.
    pub(super) fn adopt_port(
        &self,
        wanted: &WantedPort,
        (port, interface): (&Port, &Interface),
        guard: StringMap,
        found: &mut Findings,
    ) {
        found.adopts.ovs.extend(marks_alone(wanted, (port, interface), guard));
        let row = |ovs: &OvsState| -> Option<Arc<Qos>> { ovs.qos.get(&port.qos?).cloned() };
        let Some(qos) = self.inputs.observed.ovs.ready().and_then(row) else { return };
        let made_for_it = StringMap::from([("id".to_owned(), qos_id(&port.name))]);
        let guard = entries(&qos.external_ids, &made_for_it);
        if guard.is_empty() || self.inputs.settings.owner(&qos.external_ids) != Owner::Nobody {
            return;
        }
        found.adopts.ovs.push(OvsOp::Mark {
            table: MarkedTable::Qos,
            uuid: qos.uuid,
            name: port.name.to_string(),
            guard,
            external_ids: wanted.marks.clone(),
        });
    }

    /// Bridges that go with their last port, and on which a port of the VIF is, or is to become ours.
    pub(super) fn adopt_bridges(&self, id: VifId, blueprint: &Blueprint, sight: &mut Sight<'_>, found: &mut Findings) {
        let settings = self.inputs.settings;
        if !settings.adopt {
            return;
        }
        for wanted in blueprint.bridges.iter().filter(|bridge| bridge.disposable) {
            let Some(bridge) = sight.bridge(&wanted.name) else { continue };
            if settings.owner(&bridge.external_ids) != Owner::Nobody {
                continue;
            }
            if !blueprint.ports.iter().any(|port| port.bridge == wanted.name && bridge.has_port(&port.name)) {
                sight.glimpse();
                continue;
            }
            let own = (!is_trunk_bridge(&wanted.name)).then_some(id);
            found.adopts.ovs.push(OvsOp::Mark {
                table: MarkedTable::Bridge,
                uuid: bridge.uuid,
                name: wanted.name.clone(),
                guard: StringMap::new(),
                external_ids: settings.marks(own, false),
            });
        }
    }

    /// The QoS row that os-vif made for a port, where no port refers to it any more.
    pub(super) fn unused_qos(&self, port: &str) -> Option<Uuid> {
        let ovs = self.inputs.observed.ovs.ready().filter(|ovs| !ovs.qos.is_empty())?;
        let unused = self.unused_qos.get_or_init(|| {
            let used: BTreeSet<Uuid> = ovs.ports.values().filter_map(|port| port.qos).collect();
            let id = |qos: &Qos| Some((qos.external_ids.get("id")?.to_owned(), qos.uuid));
            let free = |qos: &&Arc<Qos>| {
                // One with our mark is swept.
                !used.contains(&qos.uuid) && self.inputs.settings.owner(&qos.external_ids) == Owner::Nobody
            };
            ovs.qos.values().filter(free).filter_map(|qos| id(qos)).collect()
        });
        unused.get(&qos_id(port)).copied()
    }

    /// Decides on what there is to adopt, when all of the VIF was looked at. Rows come first, since the database alone
    /// can tell in the moment of writing whether they are still what was seen; then links; then whatever else is to be
    /// done.
    pub(super) fn adopt(found: &mut Findings) {
        if found.adopts.is_empty() {
            return;
        }
        let Adoption { links, ovs } = std::mem::take(&mut found.adopts);
        if found.conflict.is_some() {
            return;
        }
        found.links.clear();
        found.nics.clear();
        found.ovs.clear();
        found.flows.clear();
        if ovs.is_empty() {
            found.links = links;
        } else {
            found.ovs = ovs;
        }
    }
}

/// Our mark for a link that somebody else made.
pub(super) fn mark_link(link: &Link, alias: String) -> LinkOp {
    let change = LinkChange { alias: Some(alias), ..LinkChange::default() };
    LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change: Box::new(change) }
}

/// How os-vif laid out an `openvswitch` VIF of which nothing is ours, where its port tells.
pub(super) fn layout_there(vif: &Vif, ovs: &OvsState) -> Option<Layout> {
    let VifKind::OpenVSwitch { vif_name, .. } = &vif.kind else { return None };
    let port = ovs.ports.get(vif_name.as_str())?;
    let network = vif.network.as_ref().and_then(|network| network.bridge.as_deref());
    if port.bridge == cut_name("pb", vif.id) {
        Some(Layout::PerPortBridge)
    } else {
        (Some(port.bridge.as_str()) == network).then_some(Layout::Plain)
    }
}
