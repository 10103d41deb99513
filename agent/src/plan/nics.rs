//! NICs that the configuration says something about: their eswitch and their virtual functions, step by step, in the order
//! that their drivers want. Whatever a step takes away for a while is noted down before it (`Transition`), and the note is
//! struck out when it is back.
//!
//! ```text
//!   legacy ─► note what there is ─► take away what the driver does not want to see ─► switchdev ─► bring it back ─► strike out
//! ```
//!
//! Nothing of it is done under a VIF or a guest that lives on the NIC, and nothing puts a NIC back into legacy mode.

use std::collections::{BTreeMap, BTreeSet};

use devlink::{Device, Eswitch, EswitchMode, FunctionAddress, FunctionPart, PciAddress};

use super::NICS;
use super::compare::Work;
use super::settings::NicSettings;
use crate::backend::nics::{EswitchSetting, NicOp};
use crate::backend::{Attributed, Party};
use crate::model::{DriverBefore, Nic, NicState, PciFunction, Transition, Undo, VfCount, VifId};

/// What a driver wants done with virtual functions before the mode changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Nothing,
    /// They are not bound to a driver.
    Unbound,
    /// There are none.
    None,
    /// There are some.
    Some,
}

impl Before {
    /// As the drivers have it: `ice` refuses the change while there are functions (`ice_eswitch_mode_set`,
    /// `drivers/net/ethernet/intel/ice/ice_eswitch.c`); of `mlx5` NVIDIA's documentation says to unbind them first; `bnxt_en`
    /// refused it without functions before Linux 6.4 ("Enable VFs before setting switchdev mode"), and any release makes
    /// representors for those that are there.
    fn of(driver: Option<&str>) -> Self {
        match driver {
            Some("ice") => Before::None,
            Some("mlx5_core") => Before::Unbound,
            Some("bnxt_en") => Before::Some,
            _ => Before::Nothing,
        }
    }
}

impl Work<'_> {
    /// Plans the NICs of the configuration.
    pub(super) fn configured_nics(&mut self) {
        let Some(nics) = self.inputs.observed.nics.ready() else { return };
        let settings = &self.inputs.settings.nics;
        // What was taken away comes back, even where nothing is said of the NIC any more.
        let devices: BTreeSet<&Device> = settings.keys().chain(nics.transitions.keys()).collect();
        for device in devices {
            let (name, wanted) = (device.to_string(), settings.get(device).copied().unwrap_or_default());
            let Some(nic) = nics.nics.get(device) else {
                if wanted != NicSettings::default() {
                    self.plan.hindered.insert(name, format!("this host has no NIC {device}"));
                }
                continue;
            };
            let said = |party| self.inputs.holds.last_word(party, NICS).map(str::to_owned);
            let held =
                self.inputs.holds.in_force(Party::Nic(name.clone()), NICS, self.now).map(|hold| hold.error.clone());
            let refused = Refused {
                mode: said(Party::NicMode(name.clone())),
                now: self.inputs.holds.in_force(Party::NicMode(name.clone()), NICS, self.now).is_some(),
            };
            let step = self.step(nics, nic, wanted, &refused);
            let (ops, hindered) = match (step, held) {
                (_, Some(error)) => (Vec::new(), Some(format!("it was refused: {error}"))),
                (Ok(ops), None) => (ops, refused.mode.map(|error| format!("its mode was refused: {error}"))),
                // What was taken away does not wait for whoever is in the way.
                (Err(reason), None) => {
                    let back = nics.transitions.get(device).map(|transition| bring_back(nics, nic, transition, None));
                    (back.unwrap_or_default(), Some(reason))
                }
            };
            if let Some(hindered) = hindered {
                self.plan.hindered.insert(name.clone(), hindered);
            }
            if !self.inputs.orders.paused {
                let party = |op: &NicOp| match op {
                    NicOp::SetEswitch { setting: EswitchSetting::Mode(_), .. } => Party::NicMode(name.clone()),
                    _ => Party::Nic(name.clone()),
                };
                self.plan.nics.extend(ops.into_iter().map(|op| Attributed { party: party(&op), op }));
            }
        }
    }

    /// The operations that are legal now; or what is in the way.
    fn step(&self, nics: &NicState, nic: &Nic, wanted: NicSettings, refused: &Refused) -> Result<Vec<NicOp>, String> {
        let device = &nic.device;
        let transition = nics.transitions.get(device);
        let made = nic.vfs.map_or(0, |vfs| vfs.made);
        let before = Before::of(nic.driver.as_deref());
        let functions_first = before == Before::Some && made == 0 && wanted.vfs.is_some_and(|count| count > 0);
        let bound = bound(nics, nic);
        let in_the_way = match before {
            Before::Nothing | Before::Some => false,
            Before::Unbound => !bound.is_empty(),
            Before::None => made > 0,
        };
        // A mode that was refused is tried again after a while, but functions are not taken away for it again and again.
        let tries = match &refused.mode {
            None => true,
            Some(_) => !refused.now && !in_the_way && transition.is_none(),
        };
        if wanted.switchdev && !nic.is_switchdev() && tries && !functions_first {
            let Some(Eswitch { mode: Some(_), .. }) = nic.eswitch else {
                let driver = nic.driver.as_deref().unwrap_or("of the NIC");
                return Err(format!("driver {driver} offers no eswitch mode"));
            };
            self.nobody_lives_on(nics, nic, "its eswitch")?;
            if in_the_way && transition.is_none() {
                let (agent, nic) = (self.inputs.settings.agent.clone(), device.to_string());
                return Ok(vec![NicOp::RememberTransition(Box::new(Transition {
                    agent,
                    nic,
                    vfs: made,
                    unbound: bound,
                }))]);
            }
            return Ok(match before {
                Before::None if in_the_way => vec![NicOp::SetVfCount { nic: device.clone(), count: 0 }],
                Before::Unbound if in_the_way => bound.into_iter().map(unbind).collect(),
                _ => {
                    let setting = EswitchSetting::Mode(EswitchMode::Switchdev);
                    vec![NicOp::SetEswitch { nic: device.clone(), setting }]
                }
            });
        }
        let count = wanted.vfs.or(transition.map(|of| of.vfs));
        if let (Some(count), Some(VfCount { made, most })) = (count, nic.vfs)
            && count != made
        {
            if count > most {
                return Err(format!("{count} virtual functions are wanted (vfs), and it can have {most}"));
            }
            if made > 0 {
                self.nobody_lives_on(nics, nic, "the number of its functions")?;
            }
            // The kernel goes from none to some alone.
            let next = if made == 0 { count } else { 0 };
            return Ok(vec![NicOp::SetVfCount { nic: device.clone(), count: next }]);
        }
        if let (Some(_), None) = (wanted.vfs.filter(|count| *count > 0), nic.vfs) {
            return Err("it can have no virtual functions (vfs)".to_owned());
        }
        if let Some(transition) = transition {
            return Ok(bring_back(nics, nic, transition, count));
        }
        let mut ops = Vec::new();
        if let Some(eswitch) = nic.eswitch {
            let set = |setting| NicOp::SetEswitch { nic: device.clone(), setting };
            let inline = wanted.inline_mode.filter(|mode| eswitch.inline_mode != Some(*mode));
            ops.extend(inline.map(|mode| set(EswitchSetting::InlineMode(mode))));
            let encap = wanted.encap.filter(|on| eswitch.encap != Some(*on));
            ops.extend(encap.map(|on| set(EswitchSetting::Encap(on))));
        }
        if wanted.switchdev {
            let off = nic.uplinks.iter().filter(|uplink| uplink.tc_offload == Some(false));
            ops.extend(off.map(|uplink| NicOp::SetTcOffload {
                index: uplink.index,
                name: uplink.name.clone(),
                on: true,
            }));
        }
        Ok(ops)
    }

    /// Refuses what would take a function from under somebody.
    pub(super) fn nobody_lives_on(&self, nics: &NicState, nic: &Nic, what: &str) -> Result<(), String> {
        let on_it = |address: &FunctionAddress| nics.function(address).is_ok_and(|(of, ..)| of.device == nic.device);
        let desired = &self.inputs.desired.vifs;
        // What is left of a VIF that is to be preserved and that nobody wants is in nobody's way; nor is one that waits for
        // the mode.
        let lives = |id: &VifId, undo: &Undo| match desired.get(id) {
            Some(vif) => nic.is_switchdev() || !vif.wants_representor(),
            None => !undo.preserve,
        };
        let is_noted = |undo: &Undo| undo.function.as_ref().is_some_and(on_it);
        let noted = nics.undo.iter().filter(|(id, undo)| lives(id, undo) && is_noted(undo)).map(|(id, _)| id);
        // And those that are to get theirs now.
        let wanted = desired.iter().filter(|(id, vif)| {
            !vif.wants_representor()
                && !self.inputs.clashes.contains_key(id)
                && vif.function().is_some_and(|of| on_it(&of))
        });
        let vifs: BTreeSet<String> = noted.chain(wanted.map(|(id, _)| id)).map(ToString::to_string).collect();
        if !vifs.is_empty() {
            return Err(format!(
                "{what} is not changed under the VIFs that live on it: {}",
                vifs.into_iter().collect::<Vec<_>>().join(", ")
            ));
        }
        let links = self.inputs.observed.links.ready().map(|state| &state.links);
        let taken: Vec<String> = functions_of(nic)
            .filter_map(|address| {
                let function = nics.pci.get(&address)?;
                let driver = function.driver.as_ref()?;
                let link = |name: &String| links.and_then(|links| links.get(name));
                // Whoever has it whole, or has its netdev somewhere else, leaves none here.
                if function.netdevs.is_empty() {
                    return Some(format!(
                        "{address} (driver {driver}, and its netdev is not in this network namespace)"
                    ));
                }
                let used = function.netdevs.iter().find(|name| link(name).is_none_or(|link| link.up))?;
                Some(format!("{address} (its netdev {used} is up)"))
            })
            .collect();
        if !taken.is_empty() {
            return Err(format!("{what} is not changed while somebody may use its functions: {}", taken.join(", ")));
        }
        Ok(())
    }
}

/// What was said of a NIC's mode.
struct Refused {
    /// In the words of the kernel, where it was refused.
    mode: Option<String>,
    /// Whether it is not tried again yet.
    now: bool,
}

/// Virtual functions on the PCI bus.
fn functions_of(nic: &Nic) -> impl Iterator<Item = PciAddress> + '_ {
    let virtual_ones = nic.functions.iter().filter(|(number, _)| matches!(number.part, FunctionPart::Vf(_)));
    virtual_ones.filter_map(|(_, function)| function.pci)
}

/// Virtual functions that a driver has, and how.
fn bound(nics: &NicState, nic: &Nic) -> BTreeMap<PciAddress, DriverBefore> {
    let how = |address| {
        let PciFunction { driver, driver_override, .. } = nics.pci.get(&address)?.clone();
        driver.is_some().then_some((address, DriverBefore { driver, driver_override }))
    };
    functions_of(nic).filter_map(how).collect()
}

fn unbind((function, before): (PciAddress, DriverBefore)) -> NicOp {
    NicOp::Bind { function, driver: None, driver_override: before.driver_override }
}

/// What brings functions back, and back to their drivers; the last of it strikes out the note. `count` is how many there are
/// to be, where the configuration says so.
pub(super) fn bring_back(nics: &NicState, nic: &Nic, transition: &Transition, count: Option<u32>) -> Vec<NicOp> {
    let count = count.unwrap_or(transition.vfs);
    if count > 0 && nic.vfs.is_some_and(|vfs| vfs.made == 0) {
        return vec![NicOp::SetVfCount { nic: nic.device.clone(), count }];
    }
    let off = |address: &PciAddress| nics.pci.get(address).is_some_and(|function| function.driver.is_none());
    let bind = |(function, before): (&PciAddress, &DriverBefore)| {
        let DriverBefore { driver, driver_override } = before.clone();
        NicOp::Bind { function: *function, driver, driver_override }
    };
    let back: Vec<NicOp> = transition.unbound.iter().filter(|(address, _)| off(address)).map(bind).collect();
    if back.is_empty() { vec![NicOp::ForgetTransition(nic.device.clone())] } else { back }
}
