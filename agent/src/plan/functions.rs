//! The function of a NIC that a VIF has: finding it, noting down how it was, setting it as wanted, giving it back.
//!
//! A function bears no mark. What was noted down of it (`Undo`) is the mark: it is seen before anything of the function is
//! changed, and it is struck out when the function is seen to be as it was.

use std::collections::BTreeMap;

use devlink::{Device, FunctionAddress, FunctionNumber, PciAddress};

use super::associations::{Leaving, leaving};
use super::blueprint::{Blueprint, FunctionSettings, FunctionWay, LinkMaker, Make, WantedFunction, WantedPort};
use super::compare::{Findings, Work};
use super::inventory::port_owner;
use super::settings::qos_id;
use super::sight::Sight;
use super::{Missing, NICS, OVSDB, Owner};
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::nics::NicOp;
use crate::model::{
    DriverBefore, LinkState, MacAddr, Nic, NicFunction, NicState, PciFunction, Representor, Undo, VfChange, VfSettings,
    VifId,
};
use crate::offload::Expectation;

/// Drivers whose functions read their address when they are probed, and not again.
const PROBED_ONCE: [&str; 1] = ["mlx5_core"];

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
        let owned = self.inventory.by_vif.get(&id);
        let undo = owned.and_then(|owned| owned.undo.as_deref());
        if let Some(before) = undo.filter(|undo| undo.function.as_ref() != Some(&wanted.address)) {
            return Err(self.return_function(id, before, nics, found));
        }
        let agent = &self.inputs.settings.agent;
        let new = || Undo::new(agent.clone(), id, Some(&wanted.address), wanted.preserve);
        let mut note = undo.cloned().unwrap_or_else(new);
        note.preserve = wanted.preserve;
        // One that it was given stays known until it is given another.
        note.given = wanted.mac.or(note.given);
        let before = undo.and_then(|undo| undo.driver.as_ref());
        let is_plain = |address: &FunctionAddress| match address {
            FunctionAddress::Pci(pci) => nics.pci.get(pci).filter(|function| function.of.is_none()),
            FunctionAddress::Port { .. } => None,
        };
        match (&wanted.way, is_plain(&wanted.address)) {
            // A function that is nobody's virtual one, such as a physical one or all that a guest sees.
            (FunctionWay::Driver, Some(function)) => {
                if let Some((other, _)) = nics
                    .undo
                    .iter()
                    .find(|(other, undo)| **other != id && undo.function.as_ref() == Some(&wanted.address))
                {
                    return Err(Hitch::Missing(format!(
                        "function {}, which still belongs to VIF {other}",
                        wanted.address
                    )));
                }
                if function.driver != wanted.driver {
                    self.is_idle(&wanted.address, function, nics, sight)?;
                }
                self.remember(undo, note.bound(wanted, Some(function)), found)?;
                self.driver(wanted, Some(function), before, found)?;
                hint(id, wanted, nics, found);
                return Ok(());
            }
            (FunctionWay::Macvtap(_), Some(function)) => return stand_on(function, &wanted.address, built, false),
            _ => {}
        }
        let (nic, number, function) = nics.function(&wanted.address).map_err(Hitch::Missing)?;
        let seen = Seen { nics, nic, function, number };
        found.facts.nic = Some(nic.device.to_string());
        if let Some((other, before)) = self.holder(&seen, id) {
            // What is left of a VIF that is to be preserved, of which no record is, makes room for one that has a record.
            let left = before.preserve && !self.inputs.desired.vifs.contains_key(&other);
            let bare =
                self.inventory.by_vif.get(&other).is_none_or(|owned| owned.ports.is_empty() && owned.links.is_empty());
            if let (true, true, Some(links)) = (left, bare, self.inputs.observed.links.ready()) {
                let (link_ops, nic_ops) =
                    give_back(before, nics, links, |name| self.named_by_a_port(name)).map_err(Hitch::Missing)?;
                found.links.extend(link_ops);
                found.nics.extend(nic_ops);
                return Err(Hitch::Working);
            }
            return Err(Hitch::Missing(format!("function {}, which still belongs to VIF {other}", wanted.address)));
        }
        if nics.transitions.contains_key(&nic.device) {
            let what = format!("NIC {}, whose functions are away while its mode changes", nic.device);
            return Err(Hitch::Missing(what));
        }
        let note = note.bound(wanted, seen.pci());
        match &wanted.way {
            FunctionWay::Representor { name } => {
                self.in_switchdev(&seen, sight)?;
                let representor = match &function.representor {
                    Representor::Is(port) => port,
                    Representor::None => {
                        let what = format!("the representor of {number} on NIC {}, which has not appeared", nic.device);
                        return Err(Hitch::Missing(what));
                    }
                    Representor::Ambiguous(names) => {
                        return Err(Hitch::Conflict(format!(
                            "which netdev represents {number} on NIC {} cannot be told: it may be any of {}",
                            nic.device,
                            names.join(", ")
                        )));
                    }
                };
                found.facts.representor = Some(representor.name.clone());
                let has_port = self.is_free_to_use(id, &representor.name, &built.ports, sight)?;
                // Under a port its name is what the port goes by.
                let name = name.as_ref().filter(|_| !has_port);
                let mut note = note;
                note.represented = true;
                if name.is_some_and(|name| *name != representor.name) {
                    note.representor.get_or_insert_with(|| representor.name.clone());
                }
                self.remember(undo, note.addressed(wanted.mac, function), found)?;
                self.address(wanted, &seen, sight, found);
                if representor.tc_offload == Some(false) {
                    let (index, name) = (representor.index, representor.name.clone());
                    found.offloads = Some(NicOp::SetTcOffload { index, name, on: true });
                }
                self.driver(wanted, seen.pci(), before, found)?;
                let port = owned.and_then(|owned| owned.ports.first()).map(|(port, _)| port.name.to_string());
                let mut is_it = |name: &str| sight.link(name).is_some_and(|link| link.index == representor.index);
                let others = [name, port.as_ref()].into_iter().flatten().filter(|name| **name != representor.name);
                if others.into_iter().any(|name| is_it(name)) {
                    // It has been renamed, and the view of the NICs is the older one.
                    let what = format!("the NIC to tell of the new name of its representor {}", representor.name);
                    return Err(Hitch::Missing(what));
                }
                let Some(link) = sight.link(&representor.name).filter(|link| link.index == representor.index) else {
                    return Err(Hitch::Missing(format!(
                        "link {}, which the NIC has by that name and this network namespace has not",
                        representor.name
                    )));
                };
                // Open vSwitch does not follow a port that gets another name, and while it has it by the old one it does not
                // take it by the new one either ("File exists", 3.1).
                let kept = port.filter(|port| link.master.is_some() && sight.link(port).is_none());
                if let Some(name) = kept.as_ref().or(name).filter(|name| **name != representor.name) {
                    if sight.link(name).is_some() {
                        return Err(Hitch::Conflict(format!(
                            "representor {} cannot be named {name}: another link has that name",
                            representor.name
                        )));
                    }
                    found.links.push(LinkOp::ChangeLink {
                        index: representor.index,
                        name: representor.name.clone(),
                        change: Box::new(LinkChange { rename: Some(name.clone()), ..LinkChange::default() }),
                    });
                    return Err(Hitch::Working);
                }
                if let Some(link) = built.links.first_mut() {
                    link.name.clone_from(&representor.name);
                }
                if let Some(port) = built.ports.first_mut() {
                    name_port(port, &representor.name);
                    found.offload = Some(Expectation {
                        port: port.name.clone(),
                        bridge: port.bridge.clone(),
                        tc_offload: representor.tc_offload,
                        switchdev: Some(true),
                    });
                }
            }
            FunctionWay::DpdkRepresentor => {
                if nic.eswitch.is_some() {
                    self.in_switchdev(&seen, sight)?;
                }
                let devlink::FunctionPart::Vf(vf) = number.part else {
                    return Err(Hitch::Missing(format!("{number} of NIC {} is not a virtual function", nic.device)));
                };
                if nic.device.bus != "pci" {
                    return Err(Hitch::Missing(format!(
                        "NIC {} is not on the PCI bus: DPDK cannot have it",
                        nic.device
                    )));
                }
                self.remember(undo, note.addressed(wanted.mac, function), found)?;
                self.address(wanted, &seen, sight, found);
                self.driver(wanted, seen.pci(), before, found)?;
                if let Some(port) = built.ports.first_mut() {
                    port.representor_of(&nic.device.dev, vf);
                }
            }
            FunctionWay::Settings(settings) | FunctionWay::Macvtap(settings) => {
                let Some(has) = function.settings else {
                    return Err(Hitch::Missing(format!(
                        "driver {} to tell of function {number} of NIC {}: it tells nothing of it",
                        seen.driver(),
                        nic.device
                    )));
                };
                if nic.is_switchdev() && matches!(wanted.way, FunctionWay::Settings(_)) {
                    return Err(Hitch::Missing(format!(
                        "NIC {} to leave switchdev mode, in which a function without a port on a bridge gets no traffic",
                        nic.device
                    )));
                }
                let mut note = note;
                note.settings.get_or_insert(has);
                let on = |pci: &PciFunction| pci.netdevs.first().and_then(|name| sight.link(name)).map(|link| link.mac);
                let netdev_mac = seen.pci().and_then(on);
                let stands = owned.is_some_and(|owned| !owned.links.is_empty());
                // The driver has the address that its function was given when it began, and may be denied any other.
                let stale = matches!(wanted.way, FunctionWay::Macvtap(_))
                    && !stands
                    && wanted.mac.is_some_and(|mac| netdev_mac.is_some_and(|has| has != Some(mac)));
                if let (true, Some(pci)) = (stale, seen.pci()) {
                    // It is away for a moment, and may stay so where that is our last.
                    note.driver.get_or_insert_with(|| DriverBefore::of(pci));
                }
                self.remember(undo, note.clone(), found)?;
                // One that it was given goes where it is to have its own.
                let own = || note.settings.and_then(|before| before.mac).unwrap_or_default();
                let mac = wanted.mac.or_else(|| note.given.filter(|given| has.mac == Some(*given)).map(|_| own()));
                let (change, lacks) = difference(mac, settings, has);
                if let Some(lacks) = lacks {
                    let reason = format!("driver {} cannot set {lacks} of function {number}", seen.driver());
                    found.failed.get_or_insert(reason);
                }
                if change != VfChange::default() {
                    found.nics.push(set_vf(&seen, change).map_err(Hitch::Missing)?);
                }
                if matches!(wanted.way, FunctionWay::Macvtap(_)) {
                    let pci = seen.pci().ok_or_else(|| Hitch::Missing(format!("{number} is not on this host")))?;
                    let so_far = found.nics.len();
                    self.driver(wanted, Some(pci), before, found)?;
                    if found.nics.len() > so_far {
                        return Err(Hitch::Working);
                    }
                    let netdev = netdev(pci, &wanted.address)?;
                    let Some(link) = sight.link(netdev) else {
                        return Err(Hitch::Missing(format!("netdev {netdev}, which has not been seen yet")));
                    };
                    if stale {
                        if let (None, Some(function)) = (change.mac, seen.function.pci) {
                            found.nics.push(NicOp::ProbeAgain { function });
                        }
                        return Err(Hitch::Working);
                    }
                    self.remember(undo, Undo { netdev: Some(link.index), ..note }, found)?;
                    stand_on(pci, &wanted.address, built, true)?;
                } else if found.nics.is_empty() {
                    // A guest that gets it by then reads what was set.
                    self.driver(wanted, seen.pci(), before, found)?;
                }
            }
            FunctionWay::Driver => {
                self.remember(undo, note, found)?;
                self.driver(wanted, seen.pci(), before, found)?;
                hint(id, wanted, nics, found);
            }
        }
        Ok(())
    }

    /// Whether a port of this VIF's has the representor, which is nobody else's then; or none.
    fn is_free_to_use(
        &self,
        id: VifId,
        name: &str,
        wanted: &[WantedPort],
        sight: &mut Sight<'_>,
    ) -> Result<bool, Hitch> {
        if !sight.sees_ovs() {
            return Err(Hitch::Unseen(OVSDB));
        }
        let Some(interface) = sight.interface(name) else { return Ok(false) };
        let port = sight.port(name).filter(|port| port.has_interface(name));
        let settings = self.inputs.settings;
        let owner = port.map_or_else(
            || settings.owner(&interface.external_ids),
            |port| port_owner(port, Some(interface), settings),
        );
        let bridge = port.map_or("a bond", |port| port.bridge.as_str());
        match owner {
            Owner::Us { vif: Some(vif), .. } if vif == id => Ok(true),
            Owner::Us { vif: Some(other), .. } => {
                Err(Hitch::Missing(format!("representor {name}, whose port still belongs to VIF {other}")))
            }
            Owner::Us { vif: None, .. } => Err(Hitch::Conflict(format!("port {name} is there for another purpose"))),
            Owner::Other(who) | Owner::Later(who) => {
                Err(Hitch::Conflict(format!("representor {name} is a port of bridge {bridge} that belongs to {who}")))
            }
            Owner::Nobody => {
                // What says that it is this VIF's is what says so of any port.
                let same = |port: &WantedPort| {
                    port.ids.get("iface-id").is_some_and(|id| interface.external_ids.get("iface-id") == Some(id))
                };
                match wanted.first() {
                    Some(port) if settings.adopt && same(port) => Ok(true),
                    _ if settings.adopt => Err(Hitch::Conflict(format!(
                        "representor {name} is a port of bridge {bridge} that is somebody else's by its iface-id"
                    ))),
                    _ => Err(Hitch::Conflict(format!(
                        "representor {name} is a port of bridge {bridge} that vifd did not make (adoption is off: \
                         [agent] adopt)"
                    ))),
                }
            }
        }
    }

    /// Refuses to take a function from the host that lives by it.
    fn is_idle(
        &self,
        address: &FunctionAddress,
        function: &PciFunction,
        nics: &NicState,
        sight: &mut Sight<'_>,
    ) -> Result<(), Hitch> {
        if let Some(netdev) = function.netdevs.iter().find(|name| sight.link(name).is_some_and(|link| link.up)) {
            return Err(Hitch::Conflict(format!(
                "PCI function {address} is not taken from the host: its netdev {netdev} is up"
            )));
        }
        let nic = if let FunctionAddress::Pci(pci) = address { nics.nics.get(&(*pci).into()) } else { None };
        match nic {
            Some(nic) if nic.vfs.is_some_and(|vfs| vfs.made > 0) => Err(Hitch::Conflict(format!(
                "PCI function {address} is not taken from the host: it has virtual functions"
            ))),
            _ => Ok(()),
        }
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

    fn in_switchdev(&self, seen: &Seen<'_>, sight: &mut Sight<'_>) -> Result<(), Hitch> {
        let nic = seen.nic;
        // Where nobody can ask devlink, a representor says it.
        if nic.is_switchdev() || (nic.eswitch.is_none() && seen.function.representor != Representor::None) {
            return Ok(());
        }
        // What is in the way may be a record or a refusal.
        sight.glimpse();
        let device = &nic.device;
        let configured = self.inputs.settings.nics.get(device).is_some_and(|nic| nic.switchdev);
        Err(Hitch::Missing(match (&nic.eswitch, self.plan.hindered.get(&device.to_string())) {
            (None, _) => {
                format!("NIC {device} to have an eswitch in switchdev mode: driver {} offers none", seen.driver())
            }
            (Some(_), Some(hindered)) => format!("NIC {device} to be in switchdev mode: {hindered}"),
            (Some(_), None) if configured => format!("NIC {device}, which is on its way to switchdev mode"),
            (Some(_), None) => format!(
                "NIC {device} to be in switchdev mode; vifd sees to it where [[nic]] device = \"{device}\" has eswitch = \
                 \"switchdev\""
            ),
        }))
    }

    /// The guest's address, by whatever way the driver has.
    fn address(&self, wanted: &WantedFunction, seen: &Seen<'_>, sight: &mut Sight<'_>, found: &mut Findings) {
        let Some(mac) = wanted.mac else { return };
        let mut set = false;
        if let Some(port) = &seen.function.port {
            let hw_addr = port.hw_addr.filter(|has| *has != mac).map(|_| mac);
            let active = port.active.filter(|active| !active).map(|_| true);
            if hw_addr.is_some() || active.is_some() {
                let (nic, port) = (seen.nic.device.clone(), port.index);
                found.nics.push(NicOp::SetFunction { nic, port, hw_addr, active });
                set = hw_addr.is_some();
            }
        }
        if seen.function.port.is_none_or(|port| port.hw_addr.is_none())
            && let Some(has) = seen.function.settings
            && has.mac != Some(mac)
            && let Ok(op) = set_vf(seen, VfChange { mac: Some(mac), ..VfChange::default() })
        {
            found.nics.push(op);
            set = true;
        }
        let Some(pci) = seen.pci() else { return };
        let once = pci.driver.as_deref().is_some_and(|driver| PROBED_ONCE.contains(&driver));
        let stale =
            pci.netdevs.iter().any(|name| sight.link(name).is_some_and(|link| link.mac != Some(mac) && !link.up));
        if let (true, true, false, Some(function)) = (once, stale, set, seen.function.pci) {
            found.nics.push(NicOp::ProbeAgain { function });
        }
    }

    /// The driver that the function is bound to.
    fn driver(
        &self,
        wanted: &WantedFunction,
        function: Option<&PciFunction>,
        before: Option<&DriverBefore>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        found.facts.driver = function.and_then(|function| function.driver.clone());
        let Some(driver) = &wanted.driver else {
            // One that is wanted no more goes back to what it was.
            if let (Some(before), Some(has), FunctionAddress::Pci(address)) = (before, function, &wanted.address)
                && !before.is(has)
            {
                let DriverBefore { driver, driver_override } = before.clone();
                found.nics.push(NicOp::Bind { function: *address, driver, driver_override });
            }
            return Ok(());
        };
        let (Some(function), FunctionAddress::Pci(address)) = (function, &wanted.address) else {
            let reason =
                format!("{} is not on the PCI bus of this host and cannot be bound to {driver}", wanted.address);
            return Err(Hitch::Missing(reason));
        };
        if function.driver.as_deref() == Some(driver) {
            return Ok(());
        }
        if driver == "vfio-pci" && function.iommu_group.is_none() {
            return Err(Hitch::Missing(format!(
                "{address} to be in an IOMMU group, without which it cannot be given to a guest: is the IOMMU on \
                 (intel_iommu=on, amd_iommu=on)?"
            )));
        }
        let (driver, function) = (Some(driver.clone()), *address);
        found.nics.push(NicOp::Bind { function, driver_override: driver.clone(), driver });
        Ok(())
    }
}

impl Undo {
    /// With how the function is bound, where that is to be changed. What was given back before is nobody's business.
    fn bound(mut self, wanted: &WantedFunction, function: Option<&PciFunction>) -> Self {
        let is_back = |before: &DriverBefore| function.is_some_and(|has| before.is(has));
        if wanted.driver.is_none() && self.driver.as_ref().is_some_and(is_back) {
            self.driver = None;
        }
        if let (Some(driver), Some(function)) = (&wanted.driver, function)
            && function.driver.as_ref() != Some(driver)
        {
            self.driver.get_or_insert_with(|| DriverBefore::of(function));
        }
        self
    }

    /// With its address, where that is to be changed.
    fn addressed(mut self, mac: Option<MacAddr>, function: &NicFunction) -> Self {
        let Some(mac) = mac else { return self };
        match (function.port.and_then(|port| port.hw_addr), function.settings) {
            (Some(has), _) if has != mac => drop(self.hw_addr.get_or_insert(has)),
            (None, Some(has)) if has.mac != Some(mac) => drop(self.settings.get_or_insert(has)),
            _ => {}
        }
        self
    }
}

/// Tells the application which function it has, once it is bound.
fn hint(vif: VifId, wanted: &WantedFunction, nics: &NicState, found: &mut Findings) {
    if let FunctionAddress::Pci(function) = wanted.address
        && found.nics.is_empty()
        && nics.hints.get(&vif) != Some(&function)
    {
        found.nics.push(NicOp::Hint { vif, function });
    }
}

fn name_port(port: &mut super::blueprint::WantedPort, name: &str) {
    name.clone_into(&mut port.name);
    if let Some(qos) = &mut port.qos {
        qos.external_ids.insert("id".to_owned(), qos_id(name));
    }
}

fn netdev<'a>(function: &'a PciFunction, address: &FunctionAddress) -> Result<&'a str, Hitch> {
    let netdev = function.netdevs.first().map(String::as_str);
    netdev.ok_or_else(|| Hitch::Missing(format!("a netdev of {address} in this network namespace: it has none")))
}

/// The macvtap of a blueprint stands on the netdev of a function.
fn stand_on(function: &PciFunction, address: &FunctionAddress, built: &mut Blueprint, ours: bool) -> Result<(), Hitch> {
    let netdev = netdev(function, address)?;
    for link in &mut built.links {
        match &mut link.maker {
            LinkMaker::Nic => netdev.clone_into(&mut link.name),
            LinkMaker::Vifd(Make::Macvtap { on, .. }) => netdev.clone_into(on),
            _ => {}
        }
    }
    if !ours {
        // A physical function is the host's, and set up by whoever has it.
        built.links.retain(|link| link.maker != LinkMaker::Nic);
    }
    Ok(())
}

/// What to change of a virtual function by its physical one; and what is wanted that its driver does not know.
fn difference(mac: Option<MacAddr>, wanted: &FunctionSettings, has: VfSettings) -> (VfChange, Option<&'static str>) {
    let FunctionSettings { vlan, max_rate, spoof_check, trust } = *wanted;
    let change = VfChange {
        mac: mac.filter(|mac| has.mac != Some(*mac)),
        vlan: (has.vlan != vlan).then_some((vlan, 0)),
        max_rate: (has.max_rate != max_rate).then_some(max_rate),
        spoof_check: has.spoof_check.filter(|has| *has != spoof_check).map(|_| spoof_check),
        trust: has.trust.filter(|has| *has != trust).map(|_| trust),
    };
    let lacks = match (has.spoof_check, has.trust) {
        (_, None) if trust => Some("the trust"),
        (None, _) if !spoof_check => Some("the spoof check"),
        _ => None,
    };
    (change, lacks)
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

/// What has the switch forget a VIF and brings its function back to what was noted down of it; the last of it strikes out the
/// note. Its ports and links are gone; links that others have for ports (`has_port`) are left alone.
///
/// # Errors
/// What has to come first, that this plan does nothing about.
pub(super) fn give_back(
    undo: &Undo,
    nics: &NicState,
    links: &LinkState,
    has_port: impl Fn(&str) -> bool,
) -> Result<(Vec<LinkOp>, Vec<NicOp>), String> {
    let (mut link_ops, mut nic_ops, mut lacks) = (Vec::new(), Vec::new(), None);
    match leaving(undo, nics) {
        Leaving::Gone => {}
        Leaving::Ask(op) => return Ok((link_ops, vec![op])),
        Leaving::Wait(what) => return Err(what),
    }
    let address = match &undo.function {
        Some(FunctionAddress::Pci(pci)) => Some(*pci),
        Some(FunctionAddress::Port { .. }) | None => None,
    };
    if let Some(Ok((nic, number, function))) = undo.function.as_ref().map(|function| nics.function(function)) {
        let seen = Seen { nics, nic, function, number };
        if undo.represented
            && let Some(representor) = function.representor.netdev()
            && let Some(link) = links.links.get(&representor.name)
            && !has_port(&representor.name)
        {
            let free = |name: &&String| !links.links.contains_key(*name);
            let rename = undo.representor.as_ref().filter(|name| **name != representor.name).filter(free).cloned();
            if link.up || rename.is_some() {
                let change = Box::new(LinkChange { rename, up: Some(false), ..LinkChange::default() });
                link_ops.push(LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change });
            }
        }
        if let (Some(before), Some(port)) = (undo.hw_addr, function.port)
            && port.hw_addr.is_some_and(|has| has != before)
        {
            let (nic, port) = (nic.device.clone(), port.index);
            nic_ops.push(NicOp::SetFunction { nic, port, hw_addr: Some(before), active: None });
        }
        if let (Some(before), Some(has)) = (undo.settings, function.settings)
            && let change = back(before, has, undo)
            && change != VfChange::default()
        {
            match set_vf(&seen, change) {
                Ok(op) => nic_ops.push(op),
                Err(what) => lacks = Some(what),
            }
        }
    }
    if undo.settings.is_some()
        && let Some(Ok((nic, number, function))) = undo.function.as_ref().map(|function| nics.function(function))
        && function.settings.is_none()
    {
        lacks = Some(format!("what the physical function of NIC {} says of {number}: it says nothing", nic.device));
    }
    if nics.hints.contains_key(&undo.vif) {
        nic_ops.push(NicOp::TakeHint(undo.vif));
    }
    if !nic_ops.is_empty() {
        return Ok((link_ops, nic_ops));
    }
    if let Some(what) = lacks {
        return if link_ops.is_empty() { Err(what) } else { Ok((link_ops, nic_ops)) };
    }
    // A driver that begins takes what its function was given by then, so it begins last.
    nic_ops.extend(address.and_then(|address| begin_again(undo, address, nics, links)));
    if link_ops.is_empty() && nic_ops.is_empty() {
        nic_ops.push(NicOp::Forget(undo.vif));
    }
    Ok((link_ops, nic_ops))
}

/// Gives a function back to its driver: where it had another, or where a macvtap stood on its netdev, which then has the
/// guest's address and MTU until its driver has made another.
fn begin_again(undo: &Undo, address: PciAddress, nics: &NicState, links: &LinkState) -> Option<NicOp> {
    let has = nics.pci.get(&address)?;
    if let Some(before) = undo.driver.as_ref().filter(|before| !before.is(has)) {
        let DriverBefore { driver, driver_override } = before.clone();
        return Some(NicOp::Bind { function: address, driver, driver_override });
    }
    let stood = |name: &String| links.links.get(name).is_some_and(|link| Some(link.index) == undo.netdev);
    has.netdevs.iter().any(stood).then(|| match undo.driver {
        Some(_) => NicOp::ProbeAgain { function: address },
        None => NicOp::Remember(Box::new(Undo { driver: Some(DriverBefore::of(has)), ..undo.clone() })),
    })
}

fn back(before: VfSettings, has: VfSettings, undo: &Undo) -> VfChange {
    // One that had none of its own may have chosen another by now: the one that it was given is what goes.
    let mac = match before.mac {
        // It was given none, and chose this one.
        Some(_) if undo.given.is_none() => None,
        Some(before) => (has.mac != Some(before)).then_some(before),
        None => (has.mac.is_some() && has.mac == undo.given).then(MacAddr::default),
    };
    if undo.represented {
        // Nothing else of it was set.
        return VfChange { mac, ..VfChange::default() };
    }
    VfChange {
        mac,
        vlan: ((has.vlan, has.qos) != (before.vlan, before.qos)).then_some((before.vlan, before.qos)),
        max_rate: (has.max_rate != before.max_rate).then_some(before.max_rate),
        spoof_check: before.spoof_check.filter(|_| has.spoof_check != before.spoof_check),
        trust: before.trust.filter(|_| has.trust != before.trust),
    }
}
