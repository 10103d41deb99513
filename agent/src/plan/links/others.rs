//! Links that vifd does not make: uplinks of its bridges, netdevs of Open vSwitch, devices of the hypervisor's, and bridges
//! of somebody else's.

use super::super::blueprint::{Blueprint, Make, WantedLink};
use super::super::compare::{Findings, Work};
use super::super::inventory::port_owner;
use super::super::sight::Sight;
use super::super::{Missing, OVSDB, Owner};
use crate::backend::links::{LinkChange, LinkOp};
use crate::model::{Link, LinkKind, VifId};

impl Work<'_> {
    /// Whether a Linux bridge of nobody's is more than os-vif's for one guest: that has no address, and nothing in it but
    /// the guest's device and the end of a pair.
    pub(super) fn is_anothers_bridge(&self, link: &Link, blueprint: &Blueprint, sight: &mut Sight<'_>) -> bool {
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

    /// The interface that a bridge is to have for its uplink; answers whether nothing has to be done.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn uplink(
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
        if !member && !self.is_free(interface, &format!("the uplink of bridge {}", wanted.name), sight, found) {
            return false;
        }
        if !self.is_seen_to(id, wanted, found) {
            found.links.push(move_uplink(interface, bridge, wanted.mtu, true));
        }
        false
    }

    /// Whether a link is nobody's, so that it may go into a bridge, to be what `role` says; tells whose it is otherwise.
    fn is_free(&self, link: &Link, role: &str, sight: &mut Sight<'_>, found: &mut Findings) -> bool {
        if !sight.sees_ovs() {
            // Open vSwitch may have it.
            found.blocked.get_or_insert(Missing::View(OVSDB));
            return false;
        }
        let whose = match self.inputs.settings.link_owner(link.alias.as_deref()) {
            _ if link.master.is_some() => "is in another bridge or bond".to_owned(),
            // The userspace datapath does not enslave its ports.
            _ if sight.interface(&link.name).is_some() => "is a port of Open vSwitch".to_owned(),
            Owner::Nobody | Owner::Us { vif: None, .. } => return true,
            Owner::Us { vif: Some(vif), .. } => format!("is a link of VIF {vif}"),
            Owner::Other(who) | Owner::Later(who) => format!("belongs to {who}"),
        };
        found.conflict.get_or_insert(format!("{} is to be {role} and {whose}", link.name));
        false
    }

    /// The netdev of a port of ours of which Open vSwitch makes the netdev; answers whether it is right.
    pub(super) fn switchs_link(
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

    /// A netdev that a NIC has made, for a function that is the VIF's by then.
    pub(super) fn nics_link(
        &mut self,
        id: VifId,
        wanted: &WantedLink,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> bool {
        let Some(link) = sight.link(&wanted.name) else {
            let what =
                format!("link {}, which the NIC has by that name and this network namespace has not", wanted.name);
            found.blocked.get_or_insert(Missing::Function(what));
            return false;
        };
        self.change_link(id, wanted, link, blueprint, sight, found)
    }

    /// The hypervisor's own device: it goes into its bridge when the hypervisor has set it up and put it nowhere. One that
    /// is down is being made still, and an ioctl that puts it where it is already would fail.
    pub(super) fn hypervisors_link(
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
                if !self.is_free(link, &format!("in bridge {master}"), sight, found) {
                    return;
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
}

/// Takes an interface into a bridge or lets it out.
pub(in crate::plan) fn move_uplink(interface: &Link, bridge: &Link, mtu: Option<u32>, join: bool) -> LinkOp {
    LinkOp::MoveUplink {
        interface: (interface.index, interface.name.clone()),
        bridge: (bridge.index, bridge.name.clone()),
        mtu,
        join,
    }
}
