//! The kernel links of one VIF's blueprint against what is there. Whatever the type of the VIF: a blueprint says which
//! links it wants, and this file compares.

mod missing;
mod others;

pub(super) use others::move_uplink;

use std::sync::Arc;

use super::adoption::mark_link;
use super::blueprint::{Blueprint, LinkMaker, Make, WantedLink};
use super::compare::{Findings, Work, delete_link};
use super::inventory::port_owner;
use super::sight::Sight;
use super::{LINKS, Missing, Owner};
use crate::backend::links::{LinkChange, LinkOp};
use crate::model::{Link, LinkKind, Mark, VifId, device_name};

/// How a link that has a wanted name compares with what was wanted to be built.
enum Build {
    /// As wanted.
    Right,
    /// It is something else altogether: a sentence.
    Another(String),
    /// It is of the right kind and was built in a way that cannot be changed while it lives: a sentence.
    Otherwise(String),
    /// What it was to stand on is not there, and what it stands on may be just that by another name: a sentence.
    Adrift(String),
}

impl Work<'_> {
    /// All links of a blueprint.
    pub(super) fn links(&mut self, id: VifId, blueprint: &Blueprint, sight: &mut Sight<'_>, found: &mut Findings) {
        if blueprint.links.iter().any(|wanted| wanted.maker != LinkMaker::Hypervisor) {
            found.link_ready = Some(true);
        }
        for wanted in &blueprint.links {
            let right = match &wanted.maker {
                LinkMaker::Vifd(make) => self.made_link(id, wanted, make, blueprint, sight, found),
                LinkMaker::Switch => self.switchs_link(id, wanted, blueprint, sight, found),
                LinkMaker::Nic => self.nics_link(id, wanted, blueprint, sight, found),
                LinkMaker::Hypervisor => {
                    self.hypervisors_link(wanted, blueprint, sight, found);
                    true
                }
            };
            if !right {
                found.link_ready = Some(false);
            }
        }
    }

    /// A link that vifd makes; answers whether it is right.
    fn made_link(
        &mut self,
        id: VifId,
        wanted: &WantedLink,
        make: &Make,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> bool {
        let Some(link) = sight.link(&wanted.name) else {
            self.missing_link(id, wanted, make, blueprint, sight, found);
            return false;
        };
        let is_named = blueprint.netdev().is_some_and(|named| named.name == wanted.name);
        if is_named {
            found.facts.mtu = Some(link.mtu);
            if matches!(link.kind, LinkKind::Macvtap { .. }) {
                found.facts.device = Some(self.device_path(link));
            }
        }
        let settings = self.inputs.settings;
        let build = self.build(id, wanted, make, link, blueprint, sight);
        match settings.link_owner(link.alias.as_deref()) {
            Owner::Us { vif, .. } if wanted.shared == vif.is_none() && vif.is_none_or(|vif| vif == id) => {}
            Owner::Us { vif: Some(other), .. } if other != id => {
                found
                    .blocked
                    .get_or_insert(Missing::Busy(format!("link {} still belongs to VIF {other}", wanted.name)));
                return false;
            }
            // The two ends of a pair are made as one: whose the other end is, this one is, wherever its mark went.
            Owner::Nobody if link.group != settings.nursery() && self.peer_is_ours(id, make, &build, sight) => {}
            Owner::Us { .. } => {
                let reason = format!("link {} is there for another purpose of vifd's", wanted.name);
                found.conflict.get_or_insert(reason);
                return false;
            }
            Owner::Other(who) | Owner::Later(who) => {
                found.conflict.get_or_insert(format!("link {} belongs to {who}", wanted.name));
                return false;
            }
            Owner::Nobody if link.group == settings.nursery() => {
                // It is swept with all that a crash left before it had its mark.
                let busy = format!("link {} was left half made by a crash and is on its way out", wanted.name);
                found.blocked.get_or_insert(Missing::Busy(busy));
                return false;
            }
            // What several VIFs may use is used as it is.
            Owner::Nobody if wanted.shared => {
                return match build {
                    Build::Right => self.uplink(id, wanted, make, link, false, sight, found),
                    Build::Another(reason) | Build::Otherwise(reason) => {
                        found.conflict.get_or_insert(reason);
                        false
                    }
                    Build::Adrift(reason) => {
                        found.blocked.get_or_insert(Missing::Uplink(reason));
                        false
                    }
                };
            }
            Owner::Nobody => {
                let build = if self.is_anothers_bridge(link, blueprint, sight) {
                    Build::Otherwise(format!("bridge {} has an address, or links that are not this VIF's", wanted.name))
                } else {
                    build
                };
                match adoptable(wanted, build, link, settings.adopt) {
                    Ok(mark) => found.adopts.links.push(mark),
                    Err(reason) => drop(found.conflict.get_or_insert(reason)),
                }
                return false;
            }
        }
        match build {
            Build::Right => {}
            Build::Another(reason) => {
                found.conflict.get_or_insert(reason);
                return false;
            }
            Build::Adrift(reason) => {
                found.blocked.get_or_insert(Missing::Uplink(reason));
                return false;
            }
            Build::Otherwise(reason) if !matches!(make, Make::Veth { .. }) => {
                // A guest may have it open, or stand on it.
                found.failed.get_or_insert(format!("{reason}: unplug what uses it first"));
            }
            Build::Otherwise(_) => {
                self.remake(id, link, sight, found);
                return false;
            }
        }
        if let Some(Mark::Shared { uplink: Some(before), .. }) = link.alias.as_deref().and_then(Mark::parse)
            && !matches!(make, Make::Bridge { uplink: Some(uplink), .. } if *uplink == before)
            && let Some(interface) = sight.link(&before).filter(|interface| interface.master == Some(link.index))
        {
            // It gets its addresses back before the bridge forgets whose they were.
            if !self.is_seen_to(id, wanted, found) {
                found.links.push(move_uplink(interface, link, None, false));
            }
            return false;
        }
        let mut right = self.change_link(id, wanted, link, blueprint, sight, found);
        if right {
            right = self.uplink(id, wanted, make, link, true, sight, found);
        }
        self.is_carried(wanted, make, sight, found);
        right && self.device(wanted, link, found)
    }

    /// Nothing passes over a device that is down. It is not ours to set up.
    fn is_carried(&self, wanted: &WantedLink, make: &Make, sight: &mut Sight<'_>, found: &mut Findings) {
        if let Make::Vlan { on, .. } | Make::Macvtap { on, .. } = make
            && sight.link(on).is_some_and(|lower| !lower.up)
        {
            let reason = format!("{} {} stands on {on}, which is down", make.name(), wanted.name);
            found.unanswered.get_or_insert(Missing::Uplink(reason));
        }
    }

    /// The character device of a link of ours; answers whether nothing has to be done.
    fn device(&self, wanted: &WantedLink, link: &Link, found: &mut Findings) -> bool {
        let access = wanted.device;
        if access.wants_nothing() {
            return true;
        }
        match link.device {
            // vifd has done what it can: the link is there.
            None => {
                found.brought.get_or_insert(Missing::Device(self.device_path(link)));
                true
            }
            Some(has) if access.is_met_by(has) => true,
            Some(_) => {
                found.links.push(LinkOp::OwnDevice { index: link.index, name: link.name.clone(), access });
                false
            }
        }
    }

    fn device_path(&self, link: &Link) -> String {
        self.inputs.settings.device_dir.join(device_name(link.index)).display().to_string()
    }

    /// Whether a link is an end of the pair that was wanted, and the other end bears this VIF's mark.
    fn peer_is_ours(&self, id: VifId, make: &Make, build: &Build, sight: &mut Sight<'_>) -> bool {
        let (Make::Veth { peer }, Build::Right) = (make, build) else { return false };
        let mark = sight.link(peer).and_then(|end| end.alias.as_deref());
        matches!(self.inputs.settings.link_owner(mark), Owner::Us { vif: Some(vif), .. } if vif == id)
    }

    /// How a link compares with what was wanted to be built.
    fn build(
        &self,
        id: VifId,
        wanted: &WantedLink,
        make: &Make,
        link: &Link,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
    ) -> Build {
        let another =
            || Build::Another(format!("link {} is a {} and not a {}", wanted.name, link.kind.name(), make.name()));
        let mut stands_on = |on: &str| match sight.link(on) {
            Some(lower) if link.lower == Some(lower.index) => Build::Right,
            Some(_) => Build::Otherwise(format!("{} {} does not stand on {on}", make.name(), wanted.name)),
            None => {
                Build::Adrift(format!("{} {} stands on {on}, and this host has no such link", make.name(), wanted.name))
            }
        };
        match (make, &link.kind) {
            (Make::Tap { multi_queue }, LinkKind::Tap { multi_queue: has, .. }) if has != multi_queue => {
                let (is, should) = if *has { ("several queues", "one") } else { ("one queue", "several") };
                Build::Otherwise(format!(
                    "tap {} has {is} and the record wants {should}, which a tap cannot change while it lives",
                    wanted.name
                ))
            }
            (Make::Tap { .. }, LinkKind::Tap { .. }) | (Make::Bridge { .. }, LinkKind::Bridge(_)) => Build::Right,
            (Make::Veth { peer }, LinkKind::Veth) => {
                let is_peer = sight.link(peer).is_some_and(|peer| link.lower == Some(peer.index));
                if is_peer || self.is_below_another_name(id, peer, link, blueprint, sight) {
                    Build::Right
                } else {
                    Build::Otherwise(format!("veth {} has another peer than {peer}", wanted.name))
                }
            }
            (Make::Vlan { on, id }, LinkKind::Vlan { id: has }) => {
                if has != id {
                    Build::Otherwise(format!("link {} is VLAN {has} and not {id}", wanted.name))
                } else {
                    stands_on(on)
                }
            }
            (Make::Macvtap { on, mode }, LinkKind::Macvtap { mode: has }) => {
                if *has != Some(*mode) {
                    Build::Otherwise(format!("macvtap {} is in another mode than {}", wanted.name, mode.name()))
                } else {
                    stands_on(on)
                }
            }
            _ => another(),
        }
    }

    /// A link of ours that has to be made anew goes first, after the port that names it.
    fn remake(&self, id: VifId, link: &Link, sight: &mut Sight<'_>, found: &mut Findings) {
        match (sight.port(&link.name), sight.interface(&link.name)) {
            (Some(port), interface) if matches!(port_owner(port, interface, self.inputs.settings), Owner::Us { vif: Some(vif), .. } if vif == id) =>
            {
                self.give_up(id, port, interface, sight, found);
            }
            (None, None) => found.links.push(delete_link(link)),
            _ => {
                let reason = format!("link {} has to be made anew, and a port that is not ours uses it", link.name);
                found.conflict.get_or_insert(reason);
            }
        }
    }

    /// Whether the same plan does something about a shared link already, for another VIF; from now on it does.
    fn is_seen_to(&mut self, id: VifId, wanted: &WantedLink, found: &mut Findings) -> bool {
        // Nothing comes of what is planned for a VIF that is paused or held.
        if self.inputs.orders.pauses(id) || self.inputs.holds.in_force(Some(id), LINKS, self.now).is_some() {
            return false;
        }
        let seen_to = wanted.shared && !self.touched_links.insert(wanted.name.clone());
        found.awaits_share |= seen_to;
        seen_to
    }

    /// The link of this VIF's that somebody gave another name than this wanted one: the only one of its kind that has a
    /// name which nobody wants.
    fn misnamed(
        &self,
        id: VifId,
        wanted: &WantedLink,
        make: &Make,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
    ) -> Option<Arc<Link>> {
        let owned = &self.inventory.by_vif.get(&id).filter(|_| !wanted.shared)?.links;
        let mut astray = owned.iter().filter(|link| make.is(&link.kind) && !blueprint.makes(&link.name));
        let link = astray.next().filter(|_| astray.next().is_none())?;
        let lacking = |other: &&WantedLink| {
            matches!(&other.maker, LinkMaker::Vifd(of) if of.is(&link.kind)) && sight.link(&other.name).is_none()
        };
        let mut lacking = blueprint.links.iter().filter(lacking);
        let only = lacking.next()?.name == wanted.name && lacking.next().is_none();
        // A port that names it by that name is somebody's business.
        (only && sight.interface(&link.name).is_none()).then(|| Arc::clone(link))
    }

    /// Whether the other end of a veth is there and somebody gave it another name.
    fn is_below_another_name(
        &self,
        id: VifId,
        peer: &str,
        link: &Link,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
    ) -> bool {
        let wanted = blueprint.links.iter().find(|wanted| wanted.name == peer);
        wanted.is_some_and(|wanted| {
            let LinkMaker::Vifd(make) = &wanted.maker else { return false };
            sight.link(peer).is_none()
                && self
                    .misnamed(id, wanted, make, blueprint, sight)
                    .is_some_and(|misnamed| link.lower == Some(misnamed.index))
        })
    }

    /// Whether a link of this VIF's is to get another name.
    pub(super) fn is_misnamed(&self, id: VifId, link: &Link, blueprint: &Blueprint, sight: &mut Sight<'_>) -> bool {
        blueprint.links.iter().any(|wanted| {
            let LinkMaker::Vifd(make) = &wanted.maker else { return false };
            sight.link(&wanted.name).is_none()
                && self
                    .misnamed(id, wanted, make, blueprint, sight)
                    .is_some_and(|misnamed| misnamed.index == link.index)
        })
    }

    /// Brings what can be changed of a link of ours to what is wanted; answers whether nothing has to be.
    fn change_link(
        &mut self,
        id: VifId,
        wanted: &WantedLink,
        link: &Link,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> bool {
        let mut change = LinkChange {
            rename: None,
            mac: wanted.mac.filter(|mac| link.mac != Some(*mac)),
            mtu: wanted.mtu.filter(|mtu| link.mtu != *mtu),
            up: wanted.up.filter(|up| link.up != *up),
            promiscuous: (wanted.promiscuous && !link.promiscuous).then_some(true),
            master: None,
            unattached: false,
            bridge: None,
            alias: wanted.alias.clone().filter(|alias| link.alias.as_ref() != Some(alias)),
        };
        if let LinkMaker::Vifd(Make::Bridge { config, .. }) = &wanted.maker
            && link.kind != LinkKind::Bridge(*config)
        {
            change.bridge = Some(*config);
        }
        // A bridge that is still to come says so itself.
        let mut in_place = true;
        if let Some(master) = &wanted.master {
            let bridge = sight.link(master);
            in_place = bridge.is_some_and(|bridge| link.master == Some(bridge.index));
            if !in_place && bridge.is_some() && self.has_place(id, wanted, blueprint, sight, found) {
                change.master = Some(master.clone());
            }
        }
        if change == LinkChange::default() {
            return in_place;
        }
        if self.is_seen_to(id, wanted, found) {
            return false;
        }
        found.links.push(LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change: Box::new(change) });
        false
    }
}

/// Our mark for a link that somebody else made; or why it cannot have it.
fn adoptable(wanted: &WantedLink, build: Build, link: &Link, adopt: bool) -> Result<LinkOp, String> {
    let name = &wanted.name;
    match (build, wanted.mac) {
        (Build::Another(reason), _) => Err(reason),
        _ if !adopt => {
            Err(format!("a link named {name} is there and vifd did not make it (adoption is off: [agent] adopt)"))
        }
        (Build::Otherwise(reason) | Build::Adrift(reason), _) => Err(format!("{reason}, and vifd did not make it")),
        (Build::Right, Some(mac)) if link.mac != Some(mac) => {
            let is = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
            Err(format!("link {name} has address {is}, the record says {mac}, and vifd did not make it"))
        }
        (Build::Right, _) => Ok(mark_link(link, wanted.alias.clone().unwrap_or_default())),
    }
}
