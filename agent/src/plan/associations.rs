//! What the switch beyond a physical link is asked for on behalf of a guest on a macvtap: a VSI by way of lldpad (802.1Qbg), a
//! port profile by way of the adapter (802.1Qbh). How far that is, is asked for by the backend and seen here.
//!
//! ```text
//!   macvtap ─► noted down ─► associate ─► pending ─► associated
//!                               ▲            └─► refused, and a while later absent
//!                               └── absent: the switch gave it up, lldpad was started again
//!   unplug ─► disassociate ─► leaving ─► absent ─► macvtap gone ─► struck out
//! ```

use devlink::FunctionPart;
use devlink::port_profile::Response;

use super::blueprint::{Blueprint, LinkMaker, Make, WantedAssociation};
use super::compare::{Findings, Work};
use super::sight::Sight;
use super::{Missing, NICS};
use crate::backend::nics::NicOp;
use crate::model::{Association, AssociationState, LinkKind, NicState, StationProfile, Undo, VifId};

/// What it takes for an association that was noted down to be no more.
pub(super) enum Leaving {
    /// Nothing: nobody knows of it.
    Gone,
    /// To ask for it.
    Ask(NicOp),
    /// To wait; the sentence says for what.
    Wait(String),
}

/// What becomes of the association of a note.
pub(super) fn leaving(undo: &Undo, nics: &NicState) -> Leaving {
    let Some(association) = &undo.association else { return Leaving::Gone };
    match nics.associations.get(&undo.vif) {
        Some(AssociationState::Absent | AssociationState::Refused(_) | AssociationState::Nobody(_)) => Leaving::Gone,
        Some(AssociationState::Pending | AssociationState::Associated) => {
            Leaving::Ask(NicOp::Disassociate { vif: undo.vif, association: Box::new(association.clone()) })
        }
        Some(AssociationState::Leaving) => Leaving::Wait(format!("{association} to be disassociated")),
        Some(AssociationState::Unknown(what)) => Leaving::Wait(what.clone()),
        None => Leaving::Wait(format!("word of how far {association} is")),
    }
}

impl Work<'_> {
    /// The association of a VIF, once its macvtap is there.
    pub(super) fn association(&self, id: VifId, blueprint: &Blueprint, sight: &mut Sight<'_>, found: &mut Findings) {
        let undo = self.inventory.by_vif.get(&id).and_then(|owned| owned.undo.as_deref());
        let noted = undo.filter(|undo| undo.association.is_some());
        if blueprint.association.is_none() && noted.is_none() {
            return;
        }
        let function = blueprint.function.as_ref().map(|function| &function.address);
        if undo.is_some_and(|undo| undo.function.as_ref() != function) {
            // It goes with the function that is given back.
            return;
        }
        let Some(nics) = sight.nics() else {
            found.blocked.get_or_insert(Missing::View(NICS));
            return;
        };
        let Some(wanted) = &blueprint.association else {
            if let Some(noted) = noted {
                let note = Undo { association: None, ..noted.clone() };
                let bare = note == Undo::new(note.agent.clone(), id, None, note.preserve);
                let struck_out = if bare { NicOp::Forget(id) } else { NicOp::Remember(Box::new(note)) };
                leave(noted, nics, struck_out, found);
            }
            return;
        };
        let association = match station(wanted, blueprint, nics, sight) {
            Ok(Some(association)) if found.conflict.is_none() => association,
            // What is missing says so itself.
            Ok(_) => return,
            Err(what) => {
                found.blocked.get_or_insert(Missing::Function(what));
                return;
            }
        };
        found.facts.association = Some(association.to_string());
        let agent = &self.inputs.settings.agent;
        let note = Undo {
            preserve: wanted.preserve,
            association: Some(association.clone()),
            ..undo.cloned().unwrap_or_else(|| Undo::new(agent.clone(), id, None, wanted.preserve))
        };
        match noted {
            Some(noted) if noted.association.as_ref() != Some(&association) => {
                leave(noted, nics, NicOp::Remember(Box::new(note)), found);
            }
            None if let Some(other) = holder(id, &association, nics) => {
                let busy = format!("{association} still belongs to VIF {other}");
                found.blocked.get_or_insert(Missing::Busy(busy));
            }
            noted if noted != Some(&note) => found.nics.push(NicOp::Remember(Box::new(note))),
            _ => self.ask(id, association, nics, found),
        }
    }

    /// Brings an association that is noted down to where it is to be.
    fn ask(&self, id: VifId, association: Association, nics: &NicState, found: &mut Findings) {
        match nics.associations.get(&id) {
            Some(AssociationState::Associated) => {}
            // A function has its address and its VLAN first.
            Some(AssociationState::Absent) if found.nics.is_empty() => {
                found.nics.push(NicOp::Associate { vif: id, association: Box::new(association) });
            }
            Some(AssociationState::Absent) => {}
            Some(AssociationState::Pending) => {
                let what = format!("the answer of the switch to {association}");
                found.unanswered.get_or_insert(Missing::Function(what));
            }
            Some(AssociationState::Refused(response)) => {
                found.failed.get_or_insert_with(|| refusal(&association, *response));
            }
            Some(AssociationState::Leaving) => {
                let busy = format!("{association} is on its way out");
                found.blocked.get_or_insert(Missing::Busy(busy));
            }
            Some(AssociationState::Nobody(what) | AssociationState::Unknown(what)) => {
                found.blocked.get_or_insert(Missing::Function(what.clone()));
            }
            None => drop(found.blocked.get_or_insert(Missing::View(NICS))),
        }
    }
}

/// Has what is noted undone, and the note changed when it is.
fn leave(noted: &Undo, nics: &NicState, then: NicOp, found: &mut Findings) {
    match leaving(noted, nics) {
        Leaving::Gone => found.nics.push(then),
        Leaving::Ask(op) => found.nics.push(op),
        Leaving::Wait(what) => drop(found.blocked.get_or_insert(Missing::Function(what))),
    }
}

/// What is asked for and where: at the link with the cable, which is below VLANs, and of a virtual function its physical one's.
/// Nothing while the macvtap is not there; or what is missing.
fn station(
    wanted: &WantedAssociation,
    blueprint: &Blueprint,
    nics: &NicState,
    sight: &mut Sight<'_>,
) -> Result<Option<Association>, String> {
    let macvtap = blueprint.links.iter().find_map(|link| match &link.maker {
        LinkMaker::Vifd(Make::Macvtap { on, .. }) => Some((&link.name, on)),
        _ => None,
    });
    let Some((name, on)) = macvtap else { return Ok(None) };
    let (Some(macvtap), Some(lower)) = (sight.link(name), sight.link(on)) else { return Ok(None) };
    if macvtap.lower != Some(lower.index) {
        return Ok(None);
    }
    let (link, vlan) = match (&lower.kind, lower.lower) {
        (LinkKind::Vlan { id }, Some(below)) => {
            let below = sight.link_below(below);
            (below.ok_or_else(|| format!("the link below {on}, which is not in this network namespace"))?, Some(*id))
        }
        _ => (lower, wanted.vlan),
    };
    let (mac, profile) = (wanted.mac, wanted.profile.clone());
    let own = Association { index: link.index, link: link.name.clone(), vf: None, mac, vlan, profile };
    let function = nics.pci.values().find(|function| function.netdevs.contains(&link.name));
    let Some((device, number)) = function.and_then(|function| function.of.as_ref()) else { return Ok(Some(own)) };
    let FunctionPart::Vf(vf) = number.part else { return Ok(Some(own)) };
    let uplink = nics.nics.get(device).and_then(|nic| nic.uplinks.first());
    let uplink = uplink.ok_or_else(|| {
        format!("a netdev of NIC {device} in this network namespace, by which {} gets to the switch", link.name)
    })?;
    // lldpad knows links and no functions.
    let vf = matches!(own.profile, StationProfile::Qbh { .. }).then_some(vf.into());
    Ok(Some(Association { index: uplink.index, link: uplink.name.clone(), vf, ..own }))
}

/// Another VIF that has the same by its note.
fn holder(id: VifId, association: &Association, nics: &NicState) -> Option<VifId> {
    let same = |other: &Association| match (&association.profile, &other.profile) {
        (StationProfile::Qbg { instance, .. }, StationProfile::Qbg { instance: theirs, .. }) => instance == theirs,
        (StationProfile::Qbh { .. }, StationProfile::Qbh { .. }) => {
            (association.index, association.vf) == (other.index, other.vf)
        }
        _ => false,
    };
    let has_it = |undo: &Undo| undo.association.as_ref().is_some_and(same);
    nics.undo.iter().find(|(other, undo)| **other != id && has_it(undo)).map(|(other, _)| *other)
}

/// What the switch said, and the field that it may have said it of.
fn refusal(association: &Association, response: Response) -> String {
    let field = match response {
        Response::VdpUnusedVtid | Response::VdpVtidViolation => Some("type_id"),
        Response::VdpVtidVersionViolation => Some("type_id_version"),
        Response::ProfileInvalid => Some("profile_id"),
        _ => None,
    };
    let field = field.map_or_else(String::new, |field| format!(" (vif.port_profile.{field})"));
    format!("the switch refuses {association}: {response}{field}")
}
