//! The function of a NIC that a VIF has: finding it, noting down how it was, and who else has it. What is done with it by the
//! way in which it is joined to a network is in a file for each: by its representor (`representor.rs`), by the settings that its
//! physical function has for it (`legacy.rs`), whole (`whole.rs`). `back.rs` gives it back.
//!
//! ```text
//!   found ─► nobody else's ─► noted down, and seen to be ─► set, bound, renamed ─► as wanted
//!                                                                                     │
//!   struck out ◄─ seen to be as noted ◄─ settings, then the driver ◄─ ports and links gone
//! ```
//!
//! A function bears no mark. What was noted down of it (`Undo`) is the mark: it is seen before anything of the function is
//! changed, and it is struck out when the function is seen to be as it was.

use std::collections::BTreeMap;

use devlink::{Device, FunctionAddress, FunctionNumber};

use super::blueprint::{Blueprint, FunctionWay, LinkMaker, WantedFunction};
use super::compare::{Findings, Work};
use super::settings::qos_id;
use super::sight::Sight;
use super::{Missing, NICS};
use crate::backend::nics::NicOp;
use crate::model::{Nic, NicFunction, NicState, PciFunction, Undo, VfChange, VifId};

mod back;
mod legacy;
mod representor;
mod whole;

pub(super) use back::give_back;

/// Who has which function, by the notes.
pub(super) type Holders = BTreeMap<(Device, FunctionNumber), Vec<VifId>>;

/// Why nothing can be built on a function now.
enum Hitch {
    /// This view.
    Unseen(super::BackendName),
    /// An operation comes first.
    Working,
    /// Something has to come first that this plan does nothing about.
    Missing(String),
    /// What is there says two things.
    Conflict(String),
}

/// A function as it is, and what belongs to it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    nics: &'a NicState,
    nic: &'a Nic,
    function: &'a NicFunction,
    number: FunctionNumber,
}

impl Seen<'_> {
    fn pci(&self) -> Option<&PciFunction> {
        self.nics.pci.get(&self.function.pci?)
    }

    fn driver(&self) -> &str {
        self.nic.driver.as_deref().unwrap_or("of the NIC")
    }
}

/// A VIF, the function that it wants, and what was noted down for it.
struct Claim<'a> {
    id: VifId,
    wanted: &'a WantedFunction,
    /// What is seen to be noted.
    undo: Option<&'a Undo>,
    /// What is to be noted, whatever the way; each adds to it what it changes.
    note: Undo,
}

impl Work<'_> {
    /// The blueprint with what the NIC alone tells. Until that is known and the function is as wanted, it is what stands on
    /// the host, and `found` says what is awaited.
    pub(super) fn with_function(
        &self,
        id: VifId,
        blueprint: &Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Blueprint {
        let mut built = blueprint.clone();
        let Some(wanted) = &blueprint.function else {
            let undo = self.inventory.by_vif.get(&id).and_then(|owned| owned.undo.as_deref());
            if let Some(before) = undo.filter(|undo| undo.function.is_some())
                && let Some(nics) = sight.nics()
            {
                // The record had one before.
                let hitch = self.return_function(id, before, nics, found);
                self.hinder(hitch, found);
                return Blueprint { links: Vec::new(), ports: Vec::new(), association: None, ..built };
            }
            return built;
        };
        found.facts.function = Some(wanted.address.to_string());
        let Err(hitch) = self.function(id, wanted, &mut built, sight, found) else { return built };
        self.hinder(hitch, found);
        self.as_it_stands(id, blueprint, wanted, found)
    }

    fn hinder(&self, hitch: Hitch, found: &mut Findings) {
        match hitch {
            Hitch::Working => {}
            Hitch::Unseen(view) => drop(found.blocked.get_or_insert(Missing::View(view))),
            Hitch::Missing(what) => drop(found.blocked.get_or_insert(Missing::Function(what))),
            Hitch::Conflict(reason) => drop(found.conflict.get_or_insert(reason)),
        }
    }

    /// Gives back a function that the record does not name any more, when nothing of the VIF stands on it.
    fn return_function(&self, id: VifId, before: &Undo, nics: &NicState, found: &mut Findings) -> Hitch {
        let owned = self.inventory.by_vif.get(&id);
        let stands = owned.is_some_and(|owned| !owned.ports.is_empty() || !owned.links.is_empty());
        if let (false, Some(links)) = (stands, self.inputs.observed.links.ready()) {
            match give_back(before, nics, links, |name| self.named_by_a_port(name)) {
                Ok((link_ops, nic_ops)) => {
                    found.links.extend(link_ops);
                    found.nics.extend(nic_ops);
                }
                Err(what) => return Hitch::Missing(what),
            }
        }
        Hitch::Working
    }

    /// What is there of a VIF whose function is not to be had now: it stays, and nothing is built.
    fn as_it_stands(
        &self,
        id: VifId,
        blueprint: &Blueprint,
        wanted: &WantedFunction,
        found: &mut Findings,
    ) -> Blueprint {
        let mut stands = Blueprint { links: Vec::new(), ..blueprint.clone() };
        let owned = self.inventory.by_vif.get(&id);
        // Those of another function go.
        let same = owned
            .and_then(|owned| owned.undo.as_ref())
            .is_none_or(|undo| undo.function.as_ref() == Some(&wanted.address));
        let named = owned.and_then(|owned| owned.ports.first()).map(|(port, _)| port.name.to_string());
        match (named.filter(|_| same), stands.ports.first_mut()) {
            (Some(name), Some(port)) => name_port(port, &name),
            (None, Some(_)) => {
                stands.ports.clear();
                found.port_ready = Some(false);
            }
            (_, None) => {}
        }
        if same {
            // A macvtap stays where it stands.
            let made = |link: &&super::blueprint::WantedLink| matches!(link.maker, LinkMaker::Vifd(_));
            stands.kept = blueprint.links.iter().filter(made).map(|link| link.name.clone()).collect();
        }
        stands
    }

    /// What comes before any way: it is there, it is nobody else's, and what was noted of another is given back.
    fn function(
        &self,
        id: VifId,
        wanted: &WantedFunction,
        built: &mut Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let Some(nics) = sight.nics() else {
            found.blocked.get_or_insert(Missing::View(NICS));
            return Err(Hitch::Working);
        };
        let undo = self.inventory.by_vif.get(&id).and_then(|owned| owned.undo.as_deref());
        if let Some(before) = undo.filter(|undo| undo.function.as_ref() != Some(&wanted.address)) {
            return Err(self.return_function(id, before, nics, found));
        }
        let agent = &self.inputs.settings.agent;
        let new = || Undo::new(agent.clone(), id, Some(&wanted.address), wanted.preserve);
        let mut note = undo.cloned().unwrap_or_else(new);
        note.preserve = wanted.preserve;
        // One that it was given stays known until it is given another.
        note.given = wanted.mac.or(note.given);
        let mut claim = Claim { id, wanted, undo, note };
        let is_plain = |address: &FunctionAddress| match address {
            FunctionAddress::Pci(pci) => nics.pci.get(pci).filter(|function| function.of.is_none()),
            FunctionAddress::Port { .. } => None,
        };
        match (&wanted.way, is_plain(&wanted.address)) {
            // A function that is nobody's virtual one, such as a physical one or all that a guest sees.
            (FunctionWay::Driver, Some(function)) => {
                return self.plain(&claim, function, nics, sight, found);
            }
            (FunctionWay::Macvtap(_), Some(function)) => {
                return legacy::stand_on(function, &wanted.address, built, false);
            }
            _ => {}
        }
        let (nic, number, function) = nics.function(&wanted.address).map_err(Hitch::Missing)?;
        let seen = Seen { nics, nic, function, number };
        found.facts.nic = Some(nic.device.to_string());
        self.is_nobody_elses(&claim, &seen, found)?;
        if nics.transitions.contains_key(&nic.device) {
            let what = format!("NIC {}, whose functions are away while its mode changes", nic.device);
            return Err(Hitch::Missing(what));
        }
        claim.note = claim.note.bound(wanted, seen.pci());
        if !matches!(wanted.way, FunctionWay::Settings(_) | FunctionWay::Macvtap(_))
            && let Some(has) = function.settings
        {
            // What the record kept before and keeps no more goes back, and is nobody's business from then on.
            let back = VfChange { mac: None, ..claim.note.settings }.from(has);
            claim.note.settings = VfChange { mac: claim.note.settings.mac, ..back };
            if !back.is_empty() {
                found.nics.push(set_vf(&seen, back).map_err(Hitch::Missing)?);
            }
        }
        match &wanted.way {
            FunctionWay::Representor { name } => self.representor(&claim, name.as_ref(), &seen, built, sight, found),
            FunctionWay::DpdkRepresentor => self.dpdk_representor(&claim, &seen, built, sight, found),
            FunctionWay::Settings(settings) => self.by_settings(&claim, settings, &seen, found),
            FunctionWay::Macvtap(settings) => self.under_a_macvtap(&claim, settings, &seen, built, sight, found),
            FunctionWay::Driver => {
                self.remember(undo, claim.note.clone(), found)?;
                self.driver(&claim, seen.pci(), found)?;
                whole::hint(id, wanted, nics, found);
                Ok(())
            }
        }
    }

    /// Another VIF's function is waited for; one that was left for good is given back first.
    fn is_nobody_elses(&self, claim: &Claim<'_>, seen: &Seen<'_>, found: &mut Findings) -> Result<(), Hitch> {
        let Some((other, before)) = self.holder(seen, claim.id) else { return Ok(()) };
        // What is left of a VIF that is to be preserved, of which no record is, makes room for one that has a record.
        let left = before.preserve && !self.inputs.desired.vifs.contains_key(&other);
        let bare =
            self.inventory.by_vif.get(&other).is_none_or(|owned| owned.ports.is_empty() && owned.links.is_empty());
        if let (true, true, Some(links)) = (left, bare, self.inputs.observed.links.ready()) {
            let (link_ops, nic_ops) =
                give_back(before, seen.nics, links, |name| self.named_by_a_port(name)).map_err(Hitch::Missing)?;
            found.links.extend(link_ops);
            found.nics.extend(nic_ops);
            return Err(Hitch::Working);
        }
        Err(Hitch::Missing(format!("function {}, which still belongs to VIF {other}", claim.wanted.address)))
    }

    /// Another VIF that has the function by its note.
    fn holder<'a>(&self, seen: &Seen<'a>, id: VifId) -> Option<(VifId, &'a Undo)> {
        let holders = self.holders.get_or_init(|| {
            let mut holders: Holders = BTreeMap::new();
            for (vif, undo) in &seen.nics.undo {
                if let Ok((nic, number, _)) =
                    undo.function.as_ref().map_or(Err(String::new()), |of| seen.nics.function(of))
                {
                    holders.entry((nic.device.clone(), number)).or_default().push(*vif);
                }
            }
            holders
        });
        let of = holders.get(&(seen.nic.device.clone(), seen.number))?;
        let other = of.iter().find(|other| **other != id)?;
        Some((*other, seen.nics.undo.get(other)?))
    }

    /// Has a note written where it is another than the one that is seen; nothing is done before it is.
    fn remember(&self, seen: Option<&Undo>, note: Undo, found: &mut Findings) -> Result<(), Hitch> {
        if seen == Some(&note) {
            return Ok(());
        }
        found.nics.push(NicOp::Remember(Box::new(note)));
        Err(Hitch::Working)
    }
}

fn name_port(port: &mut super::blueprint::WantedPort, name: &str) {
    name.clone_into(&mut port.name);
    if let Some(qos) = &mut port.qos {
        qos.external_ids.insert("id".to_owned(), qos_id(name));
    }
}

/// Tells the physical function what to change of a virtual one.
fn set_vf(seen: &Seen<'_>, change: VfChange) -> Result<NicOp, String> {
    let devlink::FunctionPart::Vf(vf) = seen.number.part else {
        return Err(format!("{} of NIC {} is not a virtual function", seen.number, seen.nic.device));
    };
    let uplink = seen.nic.uplinks.first().ok_or_else(|| {
        format!("a netdev of NIC {} in this network namespace, by which its functions are set", seen.nic.device)
    })?;
    Ok(NicOp::SetVf { uplink: (uplink.index, uplink.name.clone()), vf: vf.into(), change })
}
