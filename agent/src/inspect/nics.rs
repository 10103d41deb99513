//! The NICs of this host, for people: their mode, their functions, who has these, and what is in the way.

use std::collections::{BTreeMap, BTreeSet};

use devlink::{Device, FunctionAddress, FunctionNumber};
use serde::{Deserialize, Serialize};

use super::{InspectError, Inspector};
use crate::model::{Nic, NicPort, NicState, Representor, VfCount, VifId};
use crate::plan::NicSettings;
use crate::reconciler::Command;
use crate::status::HostStatus;

/// One of `GET /v1/nics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicLine {
    /// As devlink has it: `pci/0000:03:00.0`.
    pub nic: String,
    /// Whether it is here; otherwise all that is known of it is that the configuration names it.
    pub there: bool,
    /// Its driver, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Mode of its embedded switch, `legacy` or `switchdev`; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its inline mode, where the driver tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline_mode: Option<String>,
    /// Whether its embedded switch encapsulates, where the driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encap: Option<bool>,
    /// Its virtual functions: how many there are; absent where it can have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<u32>,
    /// How many there can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_vfs: Option<u32>,
    /// Netdevs of its physical functions.
    pub uplinks: Vec<NetdevLine>,
    /// Its functions, by number.
    pub functions: Vec<FunctionLine>,
    /// Whether the configuration has a `[[nic]]` for it.
    pub configured: bool,
    /// Whether that wants switchdev mode.
    #[serde(default)]
    pub switchdev_wanted: bool,
    /// What is in the way of what is configured, a sentence; empty where nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hindered: String,
}

/// A netdev of a NIC's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdevLine {
    /// Its name.
    pub name: String,
    /// `hw-tc-offload`: whether it hands flows to the NIC; absent where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tc_offload: Option<bool>,
}

/// A function of a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionLine {
    /// Its number in devlink's words: `pf0vf3`, `c1pf0sf88`.
    pub function: String,
    /// Its PCI address, where it is on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The driver that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// The netdev that represents it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor: Option<NetdevLine>,
    /// Netdevs of which one represents it, where it cannot be told which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// The VIFs that have it, or want it: one, as a rule.
    pub vifs: Vec<VifId>,
}

impl Inspector {
    /// The NICs of this host that have an embedded switch or functions to give away, and those that are configured.
    ///
    /// # Errors
    /// NICs are not seen.
    pub async fn nics(&self) -> Result<Vec<NicLine>, InspectError> {
        let seen = self.ask(Command::Seen).await?;
        let state = seen.observed.nics.ready().ok_or(InspectError::Unseen("NICs are"))?;
        Ok(NicLine::all(state, &seen.settings.nics, &self.eyes.status.borrow()))
    }
}

impl NicLine {
    /// Those that are seen, and those that are configured, by their handles.
    pub(crate) fn all(state: &NicState, settings: &BTreeMap<Device, NicSettings>, status: &HostStatus) -> Vec<NicLine> {
        let vifs = vifs_by_function(state, status);
        let devices: BTreeSet<&Device> = state.nics.keys().chain(settings.keys()).collect();
        let line = |device: &Device| {
            let nic = device.to_string();
            NicLine {
                configured: settings.contains_key(device),
                switchdev_wanted: settings.get(device).is_some_and(|wanted| wanted.switchdev),
                hindered: status.hindered.get(&nic).cloned().unwrap_or_default(),
                nic,
                ..state.nics.get(device).map(|nic| seen(state, nic, &vifs)).unwrap_or_default()
            }
        };
        devices.into_iter().map(line).collect()
    }
}

/// Who has which function, by what was noted down, and who is told to get one.
fn vifs_by_function(state: &NicState, status: &HostStatus) -> BTreeMap<(Device, FunctionNumber), BTreeSet<VifId>> {
    let noted = state.undo.iter().filter_map(|(id, undo)| Some((*id, undo.function.clone()?)));
    let wanted = status.vifs.values().filter_map(|vif| {
        let address: FunctionAddress = vif.facts.function.as_ref()?.parse().ok()?;
        Some((vif.id, address))
    });
    let mut vifs: BTreeMap<_, BTreeSet<VifId>> = BTreeMap::new();
    for (id, address) in noted.chain(wanted) {
        if let Ok((nic, number, _)) = state.function(&address) {
            vifs.entry((nic.device.clone(), number)).or_default().insert(id);
        }
    }
    vifs
}

fn seen(state: &NicState, nic: &Nic, vifs: &BTreeMap<(Device, FunctionNumber), BTreeSet<VifId>>) -> NicLine {
    let netdev = |port: &NicPort| NetdevLine { name: port.name.clone(), tc_offload: port.tc_offload };
    let functions = nic.functions.iter().map(|(number, function)| {
        let pci = function.pci.and_then(|address| state.pci.get(&address));
        FunctionLine {
            function: number.to_string(),
            address: function.pci.map(|address| address.to_string()),
            driver: pci.and_then(|pci| pci.driver.clone()),
            iommu_group: pci.and_then(|pci| pci.iommu_group),
            representor: function.representor.netdev().map(netdev),
            candidates: match &function.representor {
                Representor::Ambiguous(names) => names.clone(),
                Representor::None | Representor::Is(_) => Vec::new(),
            },
            vifs: vifs.get(&(nic.device.clone(), *number)).into_iter().flatten().copied().collect(),
        }
    });
    let eswitch = nic.eswitch.unwrap_or_default();
    let VfCount { made, most } = nic.vfs.unwrap_or(VfCount { made: 0, most: 0 });
    NicLine {
        there: true,
        driver: nic.driver.clone(),
        mode: eswitch.mode.map(|mode| mode.to_string()),
        inline_mode: eswitch.inline_mode.map(|mode| mode.to_string()),
        encap: eswitch.encap,
        vfs: nic.vfs.map(|_| made),
        most_vfs: nic.vfs.map(|_| most),
        uplinks: nic.uplinks.iter().map(netdev).collect(),
        functions: functions.collect(),
        ..NicLine::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::nics::NicOp;
    use crate::backend::world::World;
    use crate::model::{AgentId, Undo};

    #[test]
    fn functions_are_told_with_who_has_them_and_nics_with_what_is_in_the_way() {
        let mut world = World::new(true);
        let device = world.add_nic("0000:03:00.0".parse().unwrap(), "mlx5_core", 4);
        let absent: Device = "pci/0000:09:00.0".parse().unwrap();
        let switchdev = NicSettings { switchdev: true, ..NicSettings::default() };
        let settings = BTreeMap::from([(absent.clone(), switchdev)]);
        let hindered = format!("this host has no NIC {absent}");
        let status = HostStatus { hindered: [(absent.to_string(), hindered.clone())].into(), ..HostStatus::default() };
        let [nic, missing] = &NicLine::all(&world.nics, &settings, &status)[..] else { panic!("two are told of") };
        assert_eq!((nic.nic.as_str(), nic.there, nic.configured), ("pci/0000:03:00.0", true, false));
        assert_eq!((nic.driver.as_deref(), nic.mode.as_deref()), (Some("mlx5_core"), Some("legacy")));
        assert_eq!((nic.vfs, nic.most_vfs, nic.functions.len()), (Some(0), Some(4), 0));
        assert_eq!((missing.there, missing.switchdev_wanted, &missing.hindered), (false, true, &hindered));

        world.apply_nic(&NicOp::SetVfCount { nic: device.clone(), count: 2 });
        let address = World::function_address(&device, 1).unwrap();
        let id: VifId = "dc065497-3c8d-4f44-8fb4-e1d33c16a536".parse().unwrap();
        let undo = json!({"agent": AgentId("vifd".into()), "vif": id, "function": address.to_string()});
        let undo: Undo = serde_json::from_value(undo).unwrap();
        world.apply_nic(&NicOp::Remember(Box::new(undo)));
        let nic = &NicLine::all(&world.nics, &BTreeMap::new(), &HostStatus::default())[0];
        let [first, second] = &nic.functions[..] else { panic!("two functions") };
        assert_eq!((first.function.as_str(), &first.vifs), ("pf0vf0", &vec![]));
        assert_eq!((second.address.as_deref(), &second.vifs), (Some(address.to_string().as_str()), &vec![id]));
        assert_eq!(second.driver.as_deref(), Some("vf"));
    }
}
