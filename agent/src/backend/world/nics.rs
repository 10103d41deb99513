//! The NICs of a world in memory.

use std::sync::Arc;

use devlink::port_profile::Response;
use devlink::{Device, EswitchMode, FunctionNumber, FunctionPart, PciAddress};

use super::{Refusal, World};
use crate::backend::Outcome;
use crate::backend::nics::{EswitchSetting, NicOp};
use crate::model::{
    Association, AssociationState, LinkKind, MacAddr, Nic, NicFunction, NicPort, NicState, Representor, StationProfile,
    VfCount, VfSettings, VifId,
};

impl World {
    /// Somebody puts in a NIC on the PCI bus with an eswitch in legacy mode and an uplink, which can have so many virtual
    /// functions.
    pub fn add_nic(&mut self, address: PciAddress, driver: &str, most: u32) -> Device {
        let device = Device { bus: "pci".to_owned(), dev: address.to_string() };
        let name = format!("p{}", self.nics.nics.len());
        self.add_link(&name, LinkKind::Other(String::new()), None);
        let index = self.kernel.links.get(&name).map_or(0, |link| link.index);
        let eswitch = devlink::Eswitch { mode: Some(EswitchMode::Legacy), ..devlink::Eswitch::default() };
        let nic = Nic {
            device: device.clone(),
            driver: Some(driver.to_owned()),
            uplinks: vec![NicPort { index, name, tc_offload: Some(false) }],
            eswitch: Some(eswitch),
            vfs: Some(VfCount { made: 0, most }),
            functions: std::collections::BTreeMap::new(),
        };
        self.state().nics.insert(device.clone(), Arc::new(nic));
        self.state()
            .pci
            .insert(address, crate::model::PciFunction { driver: Some(driver.to_owned()), ..Default::default() });
        device
    }

    /// The PCI address of a virtual function of a NIC that [`World::add_nic`] put in.
    #[must_use]
    pub fn function_address(nic: &Device, vf: u16) -> Option<PciAddress> {
        let physical: PciAddress = nic.dev.parse().ok()?;
        let routing = u16::from(physical.device << 3 | physical.function) + 8 + vf;
        let (device, function) = (u8::try_from(routing >> 3).ok()? & 31, u8::try_from(routing & 7).ok()?);
        Some(PciAddress { device, function, ..physical })
    }

    /// Does one operation on a NIC.
    pub fn apply_nic(&mut self, op: &NicOp) -> Outcome {
        let outcome = self.try_nic(op).err().unwrap_or(Outcome::Done);
        if outcome == Outcome::Done {
            self.writes += 1;
        }
        self.show_stations();
        outcome
    }

    fn try_nic(&mut self, op: &NicOp) -> Result<(), Refusal> {
        if let Some(error) = self.refused.get(&op.to_string()) {
            return Err(Outcome::Failed(error.clone()));
        }
        match op {
            NicOp::Remember(undo) => drop(self.state().undo.insert(undo.vif, Arc::new((**undo).clone()))),
            NicOp::Forget(vif) => drop(self.state().undo.remove(vif)),
            NicOp::Hint { vif, function } => drop(self.state().hints.insert(*vif, *function)),
            NicOp::TakeHint(vif) => drop(self.state().hints.remove(vif)),
            NicOp::Associate { vif, association } => {
                self.is_noted(*vif, association)?;
                let answer = match association.profile {
                    StationProfile::Qbg { .. } => self.switch_answers,
                    StationProfile::Qbh { .. } => Some(self.switch_answers.unwrap_or(Response::ProfileSuccess)),
                };
                match &answer {
                    None => return Err(Outcome::Conflict("lldpad is not running".into())),
                    Some(answer) if answer.is_success() => {
                        self.stations.insert((**association).clone(), AssociationState::Pending)
                    }
                    Some(refusal) => self.stations.insert((**association).clone(), AssociationState::Refused(*refusal)),
                };
            }
            NicOp::Disassociate { vif, association } => {
                self.is_noted(*vif, association)?;
                let station = self.stations.get_mut(association);
                *station.ok_or_else(|| Outcome::Conflict("nobody knows of it".into()))? = AssociationState::Leaving;
            }
            NicOp::RememberTransition(of) => {
                let nic = of.nic.parse().map_err(|_| Outcome::Failed(format!("{} is no NIC", of.nic)))?;
                self.state().transitions.insert(nic, Arc::new((**of).clone()));
            }
            NicOp::ForgetTransition(nic) => drop(self.state().transitions.remove(nic)),
            NicOp::SetEswitch { nic, setting } => self.set_eswitch(nic, setting)?,
            NicOp::SetVfCount { nic, count } => self.set_vf_count(nic, *count)?,
            NicOp::SetFunction { nic, port, hw_addr, active } => {
                let nic = self.nic(nic)?;
                let mut ports = nic.functions.values_mut().filter_map(|function| function.port.as_mut());
                let port = ports.find(|of| of.index == *port).ok_or_else(|| Outcome::Failed("no such port".into()))?;
                port.hw_addr = hw_addr.or(port.hw_addr);
                port.active = active.or(port.active);
            }
            NicOp::SetVf { uplink, vf, change } => {
                self.is_link(uplink.0, &uplink.1)?;
                let has_it = |nic: &&mut Arc<Nic>| nic.uplinks.iter().any(|of| of.index == uplink.0);
                let nic = self.state().nics.values_mut().find(has_it);
                let nic = nic.ok_or_else(|| Outcome::Failed(format!("{} has no functions", uplink.1)))?;
                let part = FunctionPart::Vf(u16::try_from(*vf).unwrap_or(u16::MAX));
                let mut functions = Arc::make_mut(nic).functions.iter_mut();
                let function = functions.find(|(number, _)| number.part == part);
                let settings = function.and_then(|(_, function)| function.settings.as_mut());
                let settings = settings.ok_or_else(|| Outcome::Failed("Invalid argument".into()))?;
                if let Some(mac) = change.mac {
                    settings.mac = Some(mac).filter(|mac| *mac != MacAddr::default());
                }
                settings.vlan = change.vlan.unwrap_or(settings.vlan);
                settings.max_rate = change.max_rate.unwrap_or(settings.max_rate);
                settings.spoof_check = change.spoof_check.or(settings.spoof_check);
                settings.trust = change.trust.or(settings.trust);
            }
            NicOp::SetTcOffload { index, name, on } => {
                self.is_link(*index, name)?;
                for nic in self.state().nics.values_mut() {
                    let nic = Arc::make_mut(nic);
                    let representors = nic.functions.values_mut().filter_map(|of| match &mut of.representor {
                        Representor::Is(port) => Some(port),
                        Representor::None | Representor::Ambiguous(_) => None,
                    });
                    for port in nic.uplinks.iter_mut().chain(representors).filter(|port| port.index == *index) {
                        port.tc_offload = Some(*on);
                    }
                }
            }
            NicOp::Bind { function, driver, driver_override } => {
                self.bind(*function, driver.clone())?;
                if let Some(of) = self.state().pci.get_mut(function) {
                    of.driver_override.clone_from(driver_override);
                }
            }
            NicOp::ProbeAgain { function } => self.bind(*function, Some("vf".to_owned()))?,
        }
        Ok(())
    }

    fn is_noted(&self, vif: VifId, association: &Association) -> Result<(), Refusal> {
        let noted = self.nics.undo.get(&vif).and_then(|undo| undo.association.as_ref());
        if noted == Some(association) { Ok(()) } else { Err(Outcome::Conflict("it is not noted".into())) }
    }

    /// The switches beyond the cables have their turn: they answer what they were asked.
    pub(super) fn answer_stations(&mut self) {
        let there = |index| self.kernel.links.values().any(|link| link.index == index);
        self.stations.retain(|of, state| *state != AssociationState::Leaving && there(of.index));
        for state in self.stations.values_mut().filter(|state| **state == AssociationState::Pending) {
            *state = AssociationState::Associated;
        }
        if self.switch_answers.is_none() {
            self.stations.retain(|of, _| matches!(of.profile, StationProfile::Qbh { .. }));
        }
        self.show_stations();
    }

    /// Of everything that is noted it is seen how far it is.
    fn show_stations(&mut self) {
        let state = |association: &Association| match (&association.profile, self.stations.get(association)) {
            (StationProfile::Qbg { .. }, _) if self.switch_answers.is_none() => {
                AssociationState::Nobody("lldpad, which is not running".into())
            }
            (_, state) => state.cloned().unwrap_or(AssociationState::Absent),
        };
        let noted = self.nics.undo.iter();
        let seen = noted.filter_map(|(vif, undo)| Some((*vif, state(undo.association.as_ref()?)))).collect();
        if self.nics.associations != seen {
            self.state().associations = seen;
        }
    }

    fn state(&mut self) -> &mut NicState {
        Arc::make_mut(&mut self.nics)
    }

    fn nic(&mut self, device: &Device) -> Result<&mut Nic, Refusal> {
        let gone = || Outcome::Conflict(format!("no NIC {device}"));
        Ok(Arc::make_mut(self.state().nics.get_mut(device).ok_or_else(gone)?))
    }

    fn is_link(&self, index: u32, name: &str) -> Result<(), Refusal> {
        let is = self.kernel.links.get(name).is_some_and(|link| link.index == index);
        if is { Ok(()) } else { Err(Outcome::Conflict(format!("{name} is gone"))) }
    }

    /// The driver of the virtual functions is `vf`, and gives each a netdev.
    fn bind(&mut self, address: PciAddress, driver: Option<String>) -> Result<(), Refusal> {
        let gone = || Outcome::Conflict(format!("no function {address}"));
        let function = self.state().pci.get_mut(&address).ok_or_else(gone)?;
        for name in std::mem::take(&mut function.netdevs) {
            self.remove_link(&name);
        }
        let netdev =
            (driver.as_deref() == Some("vf")).then(|| format!("v{:02x}{:x}", address.device, address.function));
        if let Some(name) = &netdev {
            let mac = self.nics.function(&address.into()).ok().and_then(|(_, _, function)| function.settings?.mac);
            self.add_link(name, LinkKind::Other(String::new()), None);
            if let Some(link) = self.kernel.links.get_mut(name) {
                Arc::make_mut(link).mac = mac;
            }
        }
        if let Some(function) = self.state().pci.get_mut(&address) {
            function.driver = driver;
            function.netdevs.extend(netdev);
        }
        Ok(())
    }

    fn set_eswitch(&mut self, device: &Device, setting: &EswitchSetting) -> Result<(), Refusal> {
        let nic = self.nic(device)?;
        let eswitch = nic.eswitch.as_mut().ok_or_else(|| Outcome::Failed("Operation not supported".into()))?;
        let mode = match setting {
            EswitchSetting::Mode(mode) => *mode,
            EswitchSetting::InlineMode(mode) => {
                eswitch.inline_mode = Some(*mode);
                return Ok(());
            }
            EswitchSetting::Encap(on) => {
                eswitch.encap = Some(*on);
                return Ok(());
            }
        };
        eswitch.mode = Some(mode);
        let functions: Vec<FunctionNumber> = nic.functions.keys().copied().collect();
        for number in functions {
            self.represent(device, number);
        }
        Ok(())
    }

    /// A representor comes or goes with the mode.
    fn represent(&mut self, device: &Device, number: FunctionNumber) {
        let Ok(nic) = self.nic(device) else { return };
        let wanted = nic.is_switchdev();
        let Some(function) = nic.functions.get_mut(&number) else { return };
        match (wanted, std::mem::take(&mut function.representor)) {
            (false, Representor::Is(port)) => self.remove_link(&port.name),
            (true, Representor::None) => {
                let name = format!("r{}{number}", device.dev.replace([':', '.'], "").trim_start_matches('0'));
                self.add_link(&name, LinkKind::Other(String::new()), None);
                self.see_representor(device, number, &name);
            }
            (_, same) => {
                if let Ok(nic) = self.nic(device)
                    && let Some(function) = nic.functions.get_mut(&number)
                {
                    function.representor = same;
                }
            }
        }
    }

    fn see_representor(&mut self, device: &Device, number: FunctionNumber, name: &str) {
        let index = self.kernel.links.get(name).map_or(0, |link| link.index);
        if let Ok(nic) = self.nic(device)
            && let Some(function) = nic.functions.get_mut(&number)
        {
            function.representor = Representor::Is(NicPort { index, name: name.to_owned(), tc_offload: Some(false) });
        }
    }

    /// Every uplink and representor is known by the name that it has by now.
    pub(super) fn follow_names(&mut self) {
        let links = &self.kernel.links;
        let name_of = |index: u32| links.values().find(|link| link.index == index).map(|link| link.name.clone());
        let mut news = Vec::new();
        for (device, nic) in &self.nics.nics {
            for (number, function) in &nic.functions {
                let Representor::Is(port) = &function.representor else { continue };
                match name_of(port.index) {
                    Some(name) if name == port.name => {}
                    Some(name) => {
                        news.push((device.clone(), *number, Representor::Is(NicPort { name, ..port.clone() })));
                    }
                    None => news.push((device.clone(), *number, Representor::None)),
                }
            }
        }
        let mut uplinks = Vec::new();
        for (device, nic) in &self.nics.nics {
            let named = |port: &NicPort| Some(NicPort { name: name_of(port.index)?, ..port.clone() });
            let now: Vec<NicPort> = nic.uplinks.iter().filter_map(named).collect();
            if now != nic.uplinks {
                uplinks.push((device.clone(), now));
            }
        }
        for (device, now) in uplinks {
            if let Ok(nic) = self.nic(&device) {
                nic.uplinks = now;
            }
        }
        for (device, number, representor) in news {
            if let Ok(nic) = self.nic(&device)
                && let Some(function) = nic.functions.get_mut(&number)
            {
                function.representor = representor;
            }
        }
    }

    fn set_vf_count(&mut self, device: &Device, count: u32) -> Result<(), Refusal> {
        let nic = self.nic(device)?;
        let VfCount { made, most } = nic.vfs.ok_or_else(|| Outcome::Failed("no virtual functions".into()))?;
        if count > most || (made > 0 && count > 0) {
            return Err(Outcome::Failed("Device or resource busy".into()));
        }
        nic.vfs = Some(VfCount { made: count, most });
        let gone = std::mem::take(&mut nic.functions);
        for (_, function) in gone {
            if let Representor::Is(port) = function.representor {
                self.remove_link(&port.name);
            }
            if let Some(address) = function.pci {
                let _ = self.bind(address, None);
                self.state().pci.remove(&address);
            }
        }
        for vf in 0..u16::try_from(count).unwrap_or(u16::MAX) {
            let number = FunctionNumber { controller: None, pf: 0, part: FunctionPart::Vf(vf) };
            let pci = World::function_address(device, vf);
            let settings = VfSettings { spoof_check: Some(true), trust: Some(false), ..VfSettings::default() };
            let function = NicFunction { pci, settings: Some(settings), ..NicFunction::default() };
            self.nic(device)?.functions.insert(number, function);
            if let Some(pci) = pci {
                let function = crate::model::PciFunction {
                    of: Some((device.clone(), number)),
                    iommu_group: Some(vf.into()),
                    ..Default::default()
                };
                self.state().pci.insert(pci, function);
                self.bind(pci, Some("vf".to_owned()))?;
            }
            self.represent(device, number);
        }
        Ok(())
    }
}
