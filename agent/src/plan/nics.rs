//! NICs that the configuration says something about: their eswitch and their virtual functions, step by step, in the order
//! that their drivers want. Whatever a step takes away for a while is noted down before it (`Transition`), and the note is
//! struck out when it is back.
//!
//! ```text
//!   legacy ─► note what there is ─► take away what the driver does not want to see ─► switchdev ─► bring it back ─► strike out
//! ```
//!
//! Nothing of it is done under a VIF or a guest that lives on the NIC, and nothing puts a NIC back into legacy mode.

use std::collections::BTreeSet;

use devlink::{Device, Eswitch, EswitchMode, FunctionAddress, FunctionPart, PciAddress};

use super::NICS;
use super::blueprint::{FunctionWay, blueprint};
use super::compare::Work;
use super::settings::NicSettings;
use crate::backend::nics::{EswitchSetting, NicOp};
use crate::backend::{Attributed, Party};
use crate::model::{Nic, NicState, Transition, Undo, VfCount, VifId};

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

/// Drivers that leave a function to the host. Under any other somebody has it.
fn is_taken(driver: Option<&str>) -> bool {
    matches!(driver, Some("vfio-pci" | "uio_pci_generic" | "igb_uio" | "pci-stub"))
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
            let party = Party::Nic(name.clone());
            let refused = self.inputs.holds.in_force(party.clone(), NICS, self.now).map(|hold| hold.error.clone());
            let step = self.step(nics, nic, wanted, refused.is_some());
            let hindered = match (refused, &step) {
                (Some(error), _) => Some(format!("it was refused: {error}")),
                (None, Err(reason)) => Some(reason.clone()),
                (None, Ok(_)) => None,
            };
            if let Some(hindered) = hindered {
                self.plan.hindered.insert(name, hindered);
            }
            let ops = step.unwrap_or_default();
            if !self.inputs.orders.paused {
                self.plan.nics.extend(ops.into_iter().map(|op| Attributed { party: party.clone(), op }));
            }
        }
    }

    /// The operations that are legal now; or what is in the way.
    fn step(&self, nics: &NicState, nic: &Nic, wanted: NicSettings, refused: bool) -> Result<Vec<NicOp>, String> {
        let device = &nic.device;
        let transition = nics.transitions.get(device);
        let made = nic.vfs.map_or(0, |vfs| vfs.made);
        let before = Before::of(nic.driver.as_deref());
        let functions_first = before == Before::Some && made == 0 && wanted.vfs.is_some_and(|count| count > 0);
        if wanted.switchdev && !nic.is_switchdev() && !refused && !functions_first {
            let Some(Eswitch { mode: Some(_), .. }) = nic.eswitch else {
                let driver = nic.driver.as_deref().unwrap_or("of the NIC");
                return Err(format!("driver {driver} offers no eswitch mode"));
            };
            self.nobody_lives_on(nics, nic, "its eswitch", |id| self.is_for_switchdev(id))?;
            let bound: BTreeSet<PciAddress> = bound(nics, nic).collect();
            let in_the_way = match before {
                Before::Nothing | Before::Some => false,
                Before::Unbound => !bound.is_empty(),
                Before::None => made > 0,
            };
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
            // While its mode is refused the functions are brought back all the same.
            && (!refused || transition.is_some())
        {
            if count > most {
                return Err(format!("{count} virtual functions are wanted (vfs), and it can have {most}"));
            }
            // The kernel goes from none to some alone.
            let next = if made == 0 { count } else { 0 };
            if made > 0 {
                self.nobody_lives_on(nics, nic, "the number of its functions", |_| false)?;
            }
            return Ok(vec![NicOp::SetVfCount { nic: device.clone(), count: next }]);
        }
        if let (Some(_), None) = (wanted.vfs.filter(|count| *count > 0), nic.vfs) {
            return Err("it can have no virtual functions (vfs)".to_owned());
        }
        if let Some(transition) = transition {
            return Ok(bring_back(nics, nic, transition));
        }
        if refused {
            return Ok(Vec::new());
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

    /// Whether a VIF's traffic goes through a representor: on a NIC that has come out of switchdev mode (a reload, new
    /// firmware) it loses nothing when the mode comes back, and without it has nothing.
    fn is_for_switchdev(&self, id: VifId) -> bool {
        let Some(vif) = self.inputs.desired.vifs.get(&id) else { return false };
        let layout = self.inventory.layout(vif, self.inputs);
        let function = blueprint(vif, layout, self.inputs.settings).ok().and_then(|blueprint| blueprint.function);
        function.is_some_and(|of| matches!(of.way, FunctionWay::Representor { .. } | FunctionWay::DpdkRepresentor))
    }

    /// Refuses what would take a function from under somebody who is not spared by it.
    fn nobody_lives_on(
        &self,
        nics: &NicState,
        nic: &Nic,
        what: &str,
        spared: impl Fn(VifId) -> bool,
    ) -> Result<(), String> {
        let on_it = |address: &FunctionAddress| nics.function(address).is_ok_and(|(of, ..)| of.device == nic.device);
        let lives = |undo: &Undo| undo.function.as_ref().is_some_and(on_it);
        let vifs = nics.undo.iter().filter(|(id, undo)| lives(undo) && !spared(**id));
        let vifs: Vec<String> = vifs.map(|(id, _)| id.to_string()).collect();
        if !vifs.is_empty() {
            return Err(format!("{what} is not changed under the VIFs that live on it: {}", vifs.join(", ")));
        }
        let taken = nic.functions.values().filter_map(|function| {
            let address = function.pci?;
            let driver = nics.pci.get(&address)?.driver.clone().filter(|driver| is_taken(Some(driver)))?;
            Some(format!("{address} ({driver})"))
        });
        let taken: Vec<String> = taken.collect();
        if !taken.is_empty() {
            return Err(format!("{what} is not changed while guests may have its functions: {}", taken.join(", ")));
        }
        Ok(())
    }
}

/// Virtual functions that a driver of the host's has.
fn bound<'a>(nics: &'a NicState, nic: &'a Nic) -> impl Iterator<Item = PciAddress> + 'a {
    nic.functions
        .iter()
        .filter(|(number, _)| matches!(number.part, FunctionPart::Vf(_)))
        .filter_map(|(_, function)| function.pci)
        .filter(|address| nics.pci.get(address).is_some_and(|function| function.driver.is_some()))
}

fn unbind(function: PciAddress) -> NicOp {
    NicOp::Bind { function, driver: None, driver_override: None }
}

/// What brings functions back to their drivers; the last of it strikes out the note.
fn bring_back(nics: &NicState, nic: &Nic, transition: &Transition) -> Vec<NicOp> {
    let off = |address: &&PciAddress| nics.pci.get(address).is_some_and(|function| function.driver.is_none());
    let back: Vec<NicOp> =
        transition.unbound.iter().filter(off).map(|function| NicOp::ProbeAgain { function: *function }).collect();
    if back.is_empty() { vec![NicOp::ForgetTransition(nic.device.clone())] } else { back }
}
