//! Functions whose representor is a port: the netdev in switchdev mode, which is found, set and named, or DPDK's of the same
//! virtual function.

use super::super::blueprint::{Blueprint, WantedFunction, WantedPort};
use super::super::compare::{Findings, Work};
use super::super::inventory::port_owner;
use super::super::sight::Sight;
use super::super::{OVSDB, Owner};
use super::{Claim, Hitch, Seen, name_port, set_vf};
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::nics::NicOp;
use crate::model::{MacAddr, NicFunction, NicPort, Representor, Undo, VfChange, VifId};
use crate::offload::Expectation;

/// Drivers whose functions read their address when they are probed, and not again.
const PROBED_ONCE: [&str; 1] = ["mlx5_core"];

impl<'a> Seen<'a> {
    fn representor(&self) -> Result<&'a NicPort, Hitch> {
        let Seen { nic, number, .. } = self;
        match &self.function.representor {
            Representor::Is(port) => Ok(port),
            Representor::None => {
                let what = format!("the representor of {number} on NIC {}, which has not appeared", nic.device);
                Err(Hitch::Missing(what))
            }
            Representor::Ambiguous(names) => Err(Hitch::Conflict(format!(
                "which netdev represents {number} on NIC {} cannot be told: it may be any of {}",
                nic.device,
                names.join(", ")
            ))),
        }
    }
}

impl Work<'_> {
    /// The representor gets its name and becomes the first port of the blueprint.
    pub(super) fn representor(
        &self,
        claim: &Claim<'_>,
        name: Option<&String>,
        seen: &Seen<'_>,
        built: &mut Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        self.in_switchdev(seen, sight)?;
        let representor = seen.representor()?;
        found.facts.representor = Some(representor.name.clone());
        let has_port = self.is_free_to_use(claim.id, &representor.name, &built.ports, sight)?;
        // Under a port its name is what the port goes by.
        let name = name.filter(|_| !has_port);
        let mut note = claim.note.clone();
        note.represented = true;
        if name.is_some_and(|name| *name != representor.name) {
            note.representor.get_or_insert_with(|| representor.name.clone());
        }
        self.remember(claim.undo, note.addressed(claim.wanted.mac, seen.function), found)?;
        self.address(claim.wanted, seen, sight, found);
        if representor.tc_offload == Some(false) {
            let (index, name) = (representor.index, representor.name.clone());
            found.offloads = Some(NicOp::SetTcOffload { index, name, on: true });
        }
        self.driver(claim, seen.pci(), found)?;
        self.is_named(claim.id, representor, name, sight, found)?;
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
        Ok(())
    }

    /// Sees to it that a representor has the name that it is to have: what its port goes by, where it has one.
    fn is_named(
        &self,
        id: VifId,
        representor: &NicPort,
        name: Option<&String>,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let owned = self.inventory.by_vif.get(&id);
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
        Ok(())
    }

    /// DPDK gets the number of the virtual function and finds its representor by itself.
    pub(super) fn dpdk_representor(
        &self,
        claim: &Claim<'_>,
        seen: &Seen<'_>,
        built: &mut Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let Seen { nic, function, number, .. } = *seen;
        if nic.eswitch.is_some() {
            self.in_switchdev(seen, sight)?;
        }
        let devlink::FunctionPart::Vf(vf) = number.part else {
            return Err(Hitch::Missing(format!("{number} of NIC {} is not a virtual function", nic.device)));
        };
        if nic.device.bus != "pci" {
            return Err(Hitch::Missing(format!("NIC {} is not on the PCI bus: DPDK cannot have it", nic.device)));
        }
        let note = claim.note.clone().addressed(claim.wanted.mac, function);
        self.remember(claim.undo, note, found)?;
        self.address(claim.wanted, seen, sight, found);
        self.driver(claim, seen.pci(), found)?;
        if let Some(port) = built.ports.first_mut() {
            port.representor_of(&nic.device.dev, vf);
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
}

impl Undo {
    /// With its address, where that is to be changed.
    fn addressed(mut self, mac: Option<MacAddr>, function: &NicFunction) -> Self {
        let Some(mac) = mac else { return self };
        if function.port.is_some_and(|port| port.active == Some(false)) {
            self.active.get_or_insert(false);
        }
        match (function.port.and_then(|port| port.hw_addr), function.settings) {
            (Some(has), _) if has != mac => drop(self.hw_addr.get_or_insert(has)),
            (None, Some(has)) if has.mac != Some(mac) => {
                self.settings.mac.get_or_insert(has.mac.unwrap_or_default());
            }
            _ => {}
        }
        self
    }
}
