//! The kernel links of one VIF's blueprint against what is there. Whatever the type of the VIF: a blueprint says which
//! links it wants, and this file compares.

use std::sync::Arc;

use super::adoption::mark_link;
use super::blueprint::{Blueprint, LinkMaker, Make, WantedLink};
use super::compare::{Findings, Work, delete_link};
use super::inventory::port_owner;
use super::sight::Sight;
use super::{LINKS, Missing, OVSDB, Owner};
use crate::backend::links::{LinkChange, LinkOp, NewKind, NewLink};
use crate::model::{Link, LinkKind, Mark, VifId, device_name};

/// Whose port stands where a link is to be made.
enum InTheWay {
    /// Another VIF's of ours, on its way out.
    Vif(VifId),
    /// Somebody else's; the sentence says whose.
    Foreign(String),
}

/// Why an interface cannot be had.
enum Taken {
    /// Somebody has it: who, in words.
    By(String),
    /// Open vSwitch may have it, and is not seen.
    Unknown,
}

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

    /// Whether a Linux bridge of nobody's is more than os-vif's for one guest: that has no address, and nothing in it but
    /// the guest's device and the end of a pair.
    fn is_anothers_bridge(&self, link: &Link, blueprint: &Blueprint, sight: &mut Sight<'_>) -> bool {
        if !matches!(link.kind, LinkKind::Bridge(_)) {
            return false;
        }
        sight.glimpse();
        let links = self.inputs.observed.links.ready().map(|state| &state.links);
        let is_in_it = |other: &Link| other.master == Some(link.index);
        let is_wanted = |other: &Link| blueprint.links.iter().any(|wanted| wanted.name == other.name);
        !link.addresses.is_empty()
            || links.is_some_and(|links| links.values().any(|other| is_in_it(other) && !is_wanted(other)))
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

    /// A link of ours is not there.
    fn missing_link(
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
        if let Make::Vlan { on, .. } | Make::Macvtap { on, .. } = make
            && let Some(lower) = sight.link(on)
            && let Owner::Us { vif: Some(other), .. } = self.inputs.settings.link_owner(lower.alias.as_deref())
        {
            let reason = format!("{} is to stand on {on}, which is a link of VIF {other}", wanted.name);
            found.conflict.get_or_insert(reason);
            return;
        }
        if let Make::Vlan { on, .. } | Make::Macvtap { on, .. } = make
            && sight.link(on).is_none()
        {
            if self.comes(on, found) {
                // In this batch, before it.
            } else if blueprint.makes(on) {
                // What keeps it from coming is said there.
                return;
            } else {
                let reason = format!("link {} stands on {on}, and this host has no such link", wanted.name);
                found.blocked.get_or_insert(Missing::Uplink(reason));
                return;
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
            let made = |op: &LinkOp| matches!(op, LinkOp::CreateLink { link, .. } if link.name == *peer);
            if found.links.iter().any(made) {
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
    fn has_place(
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

    /// The interface that a bridge is to have for its uplink; answers whether nothing has to be done.
    #[allow(clippy::too_many_arguments)]
    fn uplink(
        &mut self,
        id: VifId,
        wanted: &WantedLink,
        make: &Make,
        bridge: &Link,
        ours: bool,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> bool {
        let Make::Bridge { uplink: Some(uplink), .. } = make else { return true };
        let Some(interface) = sight.link(uplink) else {
            let reason =
                format!("bridge {} wants {uplink} for its uplink, and this host has no such link", wanted.name);
            found.blocked.get_or_insert(Missing::Uplink(reason));
            return false;
        };
        let member = interface.master == Some(bridge.index);
        if member && interface.addresses.is_empty() {
            let Some(mtu) = wanted.mtu.filter(|mtu| ours && interface.mtu < *mtu) else { return true };
            // Other networks may be on the interface: what it carries may grow, and never shrinks.
            if !self.is_seen_to(id, wanted, found) {
                let change = Box::new(LinkChange { mtu: Some(mtu), ..LinkChange::default() });
                found.links.push(LinkOp::ChangeLink { index: interface.index, name: interface.name.clone(), change });
            }
            return false;
        }
        if !ours && !member {
            found.conflict.get_or_insert(format!(
                "bridge {} is there, vifd did not make it, and {uplink} is not in it",
                wanted.name
            ));
            return false;
        }
        if !ours {
            return true;
        }
        if !member && let Err(verdict) = self.is_free(uplink, interface, sight) {
            let told = |what: String| format!("{uplink} is to be the uplink of bridge {} and {what}", wanted.name);
            match verdict {
                Taken::By(what) => drop(found.conflict.get_or_insert(told(what))),
                Taken::Unknown => drop(found.blocked.get_or_insert(Missing::View(OVSDB))),
            }
            return false;
        }
        if !self.is_seen_to(id, wanted, found) {
            found.links.push(move_uplink(interface, bridge, wanted.mtu, true));
        }
        false
    }

    /// Whether an interface is nobody's, so that a bridge may take it in.
    fn is_free(&self, name: &str, interface: &Link, sight: &mut Sight<'_>) -> Result<(), Taken> {
        if !sight.sees_ovs() {
            return Err(Taken::Unknown);
        }
        if interface.master.is_some() {
            return Err(Taken::By("is in another bridge or bond".to_owned()));
        }
        // The userspace datapath does not enslave its ports.
        if sight.interface(name).is_some() {
            return Err(Taken::By("is a port of Open vSwitch".to_owned()));
        }
        match self.inputs.settings.link_owner(interface.alias.as_deref()) {
            Owner::Nobody | Owner::Us { vif: None, .. } => Ok(()),
            Owner::Us { vif: Some(vif), .. } => Err(Taken::By(format!("is a link of VIF {vif}"))),
            Owner::Other(who) | Owner::Later(who) => Err(Taken::By(format!("belongs to {who}"))),
        }
    }

    /// The netdev of a port of ours of which Open vSwitch makes the netdev; answers whether it is right.
    fn switchs_link(
        &mut self,
        id: VifId,
        wanted: &WantedLink,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> bool {
        let Some(link) = sight.link(&wanted.name) else {
            // Before it is made, the port says what is missing.
            if sight.interface(&wanted.name).is_some_and(|row| row.ofport.is_some_and(|number| number > 0)) {
                let reason = format!("port {} works, and its netdev is not in this network namespace", wanted.name);
                found.unanswered.get_or_insert(Missing::Busy(reason));
            }
            return false;
        };
        // Somebody else's netdev of this name is a conflict of the port's.
        let ours = match (sight.port(&wanted.name), sight.interface(&wanted.name)) {
            (Some(port), interface) => {
                matches!(port_owner(port, interface, self.inputs.settings), Owner::Us { vif: Some(_), .. })
            }
            _ => false,
        };
        ours && self.change_link(id, wanted, link, blueprint, sight, found)
    }

    /// The hypervisor's own device: it goes into its bridge when the hypervisor has set it up and put it nowhere. One that
    /// is down is being made still, and an ioctl that puts it where it is already would fail.
    fn hypervisors_link(
        &self,
        wanted: &WantedLink,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) {
        let Some(master) = &wanted.master else { return };
        let bridge = match sight.link(master) {
            Some(bridge) if matches!(bridge.kind, LinkKind::Bridge(_)) => bridge,
            // One that vifd makes is its own business.
            _ if blueprint.makes(master) => return,
            Some(link) => {
                let reason = format!("link {master} is a {} and not a bridge", link.kind.name());
                found.conflict.get_or_insert(reason);
                return;
            }
            None => {
                let reason = format!("{} goes into bridge {master}, and this host has no such link", wanted.name);
                found.blocked.get_or_insert(Missing::Uplink(reason));
                return;
            }
        };
        let Some(link) = sight.link(&wanted.name) else {
            self.awaits(wanted, blueprint, found);
            return;
        };
        match link.master {
            Some(index) if index == bridge.index => {
                if !bridge.up {
                    let reason = format!("bridge {master}, which {} is in, is down", wanted.name);
                    found.unanswered.get_or_insert(Missing::Uplink(reason));
                }
            }
            Some(_) => {
                found.conflict.get_or_insert(format!(
                    "{} is in another bridge than {master}, and it is the hypervisor's to move",
                    wanted.name
                ));
            }
            None if link.up => {
                match self.is_free(&wanted.name, link, sight) {
                    Ok(()) => {}
                    Err(Taken::By(what)) => {
                        let reason = format!("{} is to be in bridge {master} and {what}", wanted.name);
                        found.conflict.get_or_insert(reason);
                        return;
                    }
                    Err(Taken::Unknown) => {
                        found.blocked.get_or_insert(Missing::View(OVSDB));
                        return;
                    }
                }
                found.links.push(LinkOp::ChangeLink {
                    index: link.index,
                    name: link.name.clone(),
                    change: Box::new(LinkChange {
                        master: Some(master.clone()),
                        unattached: true,
                        ..LinkChange::default()
                    }),
                });
            }
            None => self.awaits(wanted, blueprint, found),
        }
    }

    /// A VIF with a port is ready by that, whether its guest runs or not.
    fn awaits(&self, wanted: &WantedLink, blueprint: &Blueprint, found: &mut Findings) {
        if blueprint.ports.is_empty() {
            found.brought.get_or_insert(Missing::Netdev(wanted.name.clone()));
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

/// Takes an interface into a bridge or lets it out.
pub(super) fn move_uplink(interface: &Link, bridge: &Link, mtu: Option<u32>, join: bool) -> LinkOp {
    LinkOp::MoveUplink {
        interface: (interface.index, interface.name.clone()),
        bridge: (bridge.index, bridge.name.clone()),
        mtu,
        join,
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
