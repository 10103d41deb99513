//! A link that vifd makes and that is not there: whether it can be made now, and how.

use std::sync::Arc;

use super::super::blueprint::{Blueprint, Make, WantedLink};
use super::super::compare::{Findings, Work};
use super::super::inventory::port_owner;
use super::super::sight::Sight;
use super::super::{Missing, Owner};
use crate::backend::links::{LinkChange, LinkOp, NewKind, NewLink};
use crate::model::{Link, LinkKind, VifId};

/// Whose port stands where a link is to be made.
enum InTheWay {
    /// Another VIF's of ours, on its way out.
    Vif(VifId),
    /// Somebody else's; the sentence says whose.
    Foreign(String),
}

impl Work<'_> {
    /// A link of ours is not there.
    pub(super) fn missing_link(
        &mut self,
        id: VifId,
        wanted: &WantedLink,
        make: &Make,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) {
        found.unseen("netdev");
        if let Some(misnamed) = self.misnamed(id, wanted, make, blueprint, sight) {
            found.links.push(LinkOp::ChangeLink {
                index: misnamed.index,
                name: misnamed.name.clone(),
                change: Box::new(LinkChange {
                    rename: Some(wanted.name.clone()),
                    up: wanted.up,
                    ..LinkChange::default()
                }),
            });
            return;
        }
        match self.port_in_the_way(id, &wanted.name, sight) {
            None => {}
            Some(InTheWay::Vif(other)) => {
                let busy = format!("port {} still belongs to VIF {other}", wanted.name);
                found.blocked.get_or_insert(Missing::Busy(busy));
                return;
            }
            Some(InTheWay::Foreign(reason)) => {
                found.conflict.get_or_insert(reason);
                return;
            }
        }
        if let (Some(port), Some(interface)) = (sight.port(&wanted.name), sight.interface(&wanted.name))
            && matches!(port_owner(port, Some(interface), self.inputs.settings), Owner::Us { .. })
            && Self::outlived_its_netdev(port, interface, true, sight)
        {
            self.give_up(id, port, Some(interface), sight, found);
            return;
        }
        if wanted.shared && self.is_elsewhere(wanted, make, sight, found) {
            return;
        }
        if let Make::Vlan { on, .. } | Make::Macvtap { on, .. } = make {
            match sight.link(on) {
                Some(lower) => {
                    let owner = self.inputs.settings.link_owner(lower.alias.as_deref());
                    if let Owner::Us { vif: Some(other), .. } = owner {
                        let reason = format!("{} is to stand on {on}, which is a link of VIF {other}", wanted.name);
                        found.conflict.get_or_insert(reason);
                        return;
                    }
                }
                // In this batch, before it.
                None if self.comes(on, found) => {}
                // What keeps it from coming is said there.
                None if blueprint.makes(on) => return,
                None => {
                    let reason = format!("link {} stands on {on}, and this host has no such link", wanted.name);
                    found.blocked.get_or_insert(Missing::Uplink(reason));
                    return;
                }
            }
        }
        if let Make::Veth { peer } = make {
            if let Some(end) = sight.link(peer) {
                // It is the end of another pair: `build` says so when it is its turn, if it is ours.
                if !matches!(self.inputs.settings.link_owner(end.alias.as_deref()), Owner::Us { .. }) {
                    let reason = format!("veth {} cannot be made: a link named {peer} is there", wanted.name);
                    found.conflict.get_or_insert(reason);
                }
                return;
            }
            // One of the two makes both.
            if self.comes(peer, found) {
                return;
            }
        }
        // Of a veth both ends have to have theirs.
        let peer = |link: &&WantedLink| matches!(make, Make::Veth { peer } if link.name == *peer);
        let mut made = std::iter::once(wanted).chain(blueprint.links.iter().find(peer));
        if !made.all(|link| self.has_place(id, link, blueprint, sight, found)) {
            return;
        }
        if self.is_seen_to(id, wanted, found) {
            return;
        }
        if let Some(kind) = new_kind(make, blueprint) {
            found.links.push(LinkOp::CreateLink { link: Box::new(new_link(wanted)), kind });
        }
    }

    /// Whether a link that is not there is made by this plan, for this VIF or for another that shares it.
    fn comes(&self, name: &str, found: &Findings) -> bool {
        let makes = |op: &LinkOp| matches!(op, LinkOp::CreateLink { link, .. } if link.name == name);
        self.touched_links.contains(name) || found.links.iter().any(makes)
    }

    /// Whether a shared link is there under another name; then it says so. What is ours gets its name back when nobody
    /// wants it by the one that it has.
    fn is_elsewhere(&mut self, wanted: &WantedLink, make: &Make, sight: &mut Sight<'_>, found: &mut Findings) -> bool {
        let links = self.inputs.observed.links.ready().map(|state| &state.links);
        let mut links = links.into_iter().flat_map(|links| links.values());
        let there = match make {
            Make::Bridge { uplink: Some(uplink), .. } => {
                let master = sight.link(uplink).and_then(|uplink| uplink.master);
                master.and_then(|master| links.find(|link| link.index == master))
            }
            Make::Vlan { on, id } => {
                let lower = sight.link(on).map(|lower| lower.index);
                let is = |link: &&Arc<Link>| link.kind == LinkKind::Vlan { id: *id } && link.lower == lower;
                lower.and_then(|_| links.find(is))
            }
            _ => None,
        };
        let Some(link) = there else { return false };
        sight.glimpse();
        let what = match make {
            Make::Bridge { uplink: Some(uplink), .. } => format!("{uplink}, the uplink of bridge {},", wanted.name),
            Make::Vlan { on, id } => format!("VLAN {id} of {on}, wanted as {},", wanted.name),
            _ => wanted.name.clone(),
        };
        if matches!(self.inputs.settings.link_owner(link.alias.as_deref()), Owner::Us { vif: None, .. }) {
            self.astray.insert(link.index, wanted.name.clone());
            let busy = format!("{what} is there with {}, which vifd made and somebody gave that name", link.name);
            found.blocked.get_or_insert(Missing::Busy(busy));
        } else {
            found.conflict.get_or_insert(format!("{what} is there with {}, which vifd did not make", link.name));
        }
        true
    }

    /// Whether a link can be put where it is wanted. If it cannot, whatever is said of the bridge is said there.
    pub(super) fn has_place(
        &self,
        id: VifId,
        wanted: &WantedLink,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &Findings,
    ) -> bool {
        let Some(master) = &wanted.master else { return true };
        let Some(link) = sight.link(master) else { return self.comes(master, found) };
        let shared = blueprint.links.iter().any(|link| link.name == *master && link.shared);
        matches!(link.kind, LinkKind::Bridge(_))
            && match self.inputs.settings.link_owner(link.alias.as_deref()) {
                Owner::Us { vif, .. } => vif.is_none_or(|vif| vif == id),
                Owner::Nobody => shared,
                Owner::Other(_) | Owner::Later(_) => false,
            }
    }

    /// A port that is not ours and names a netdev that is not there: a link of this name would fall to it.
    fn port_in_the_way(&self, id: VifId, name: &str, sight: &mut Sight<'_>) -> Option<InTheWay> {
        let interface = sight.interface(name)?;
        let port = sight.port(name).filter(|port| port.has_interface(name));
        let owner = port.map_or_else(
            || self.inputs.settings.owner(&interface.external_ids),
            |port| port_owner(port, Some(interface), self.inputs.settings),
        );
        match owner {
            Owner::Us { vif: Some(other), .. } if other != id => Some(InTheWay::Vif(other)),
            Owner::Us { .. } => None,
            Owner::Other(who) | Owner::Later(who) => {
                Some(InTheWay::Foreign(format!("port {name} belongs to {who}, and the tap would fall to it")))
            }
            Owner::Nobody if self.inputs.settings.adopt => None,
            Owner::Nobody => {
                let bridge = port.map_or("", |port| port.bridge.as_str());
                Some(InTheWay::Foreign(format!(
                    "bridge {bridge} has a port {name} that vifd did not make, and the tap would fall to it (adoption \
                     is off: [agent] adopt)"
                )))
            }
        }
    }
}

/// What is asked of the kernel for a wanted link.
fn new_link(wanted: &WantedLink) -> NewLink {
    NewLink {
        name: wanted.name.clone(),
        mac: wanted.mac,
        mtu: wanted.mtu,
        up: wanted.up.unwrap_or(false),
        promiscuous: wanted.promiscuous,
        master: wanted.master.clone(),
        alias: wanted.alias.clone().unwrap_or_default(),
    }
}

/// Its kind; `None` for a veth whose other end is not wanted, which no blueprint asks for.
fn new_kind(make: &Make, blueprint: &Blueprint) -> Option<NewKind> {
    Some(match make {
        Make::Tap { multi_queue } => NewKind::Tap { multi_queue: *multi_queue },
        Make::Bridge { config, .. } => NewKind::Bridge(*config),
        Make::Veth { peer } => {
            NewKind::Veth(Box::new(new_link(blueprint.links.iter().find(|link| link.name == *peer)?)))
        }
        Make::Vlan { on, id } => NewKind::Vlan { on: on.clone(), id: *id },
        Make::Macvtap { on, mode } => NewKind::Macvtap { on: on.clone(), mode: *mode },
    })
}
