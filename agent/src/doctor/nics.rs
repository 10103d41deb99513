//! NICs: those that are configured, and those whose functions records want. What the running agent sees of them counts; where
//! none runs, they are looked at from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use devlink::{Device, FunctionAddress, PciAddress};

use super::Finding;
use super::files::Wanted;
use crate::api::client::Client;
use crate::backend::nics;
use crate::config::Config;
use crate::inspect::{FunctionLine, NetdevLine, NicLine};
use crate::plan::NicSettings;
use crate::plan::blueprint::{FunctionWay, WantedFunction};
use crate::status::HostStatus;

const SWITCHDEV: &str = "switchdev";
const VFIO: &str = "vfio-pci";

/// What is looked at.
struct Scene<'a> {
    settings: &'a BTreeMap<Device, NicSettings>,
    wanted: &'a [WantedFunction],
    nics: &'a [NicLine],
    sysfs: &'a Path,
}

pub(super) async fn examine(config: &Config, socket: &Path, wanted: &Wanted) -> Vec<Finding> {
    // That it is wrong is told already.
    let Ok(settings) = config.settings() else { return Vec::new() };
    if settings.nics.is_empty() && wanted.functions.is_empty() {
        return Vec::new();
    }
    let sysfs = Path::new("/sys");
    let nics: Vec<NicLine> = match Client::new(socket.to_owned()).get("/v1/nics").await {
        Ok(nics) => nics,
        Err(_) => match nics::look(sysfs).await {
            Ok(state) => NicLine::all(&state, &settings.nics, &HostStatus::default()),
            Err(error) => {
                let remedy = "run this as root; in a container, show it the host's sysfs";
                return vec![Finding::fail("nic", format!("NICs cannot be looked at: {error}"), remedy)];
            }
        },
    };
    Scene { settings: &settings.nics, wanted: &wanted.functions, nics: &nics, sysfs }.findings()
}

impl Scene<'_> {
    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.nics.iter().flat_map(|nic| self.nic(nic)).collect();
        findings.extend(self.absent());
        findings.extend(self.drivers());
        findings.extend(self.iommu());
        findings
    }

    /// One that is configured, or has functions that somebody wants; with what is right about it where nothing is wrong.
    fn nic(&self, nic: &NicLine) -> Vec<Finding> {
        let used = || nic.functions.iter().flat_map(|function| self.uses(nic, function).map(move |of| (function, of)));
        let has_vifs = nic.functions.iter().any(|function| !function.vifs.is_empty());
        if !nic.configured && !has_vifs && used().next().is_none() {
            return Vec::new();
        }
        let name = &nic.nic;
        let warn = |message: String, remedy: String| Finding::warn("nic", format!("{name}: {message}"), remedy);
        let fail = |message: String, remedy: String| Finding::fail("nic", format!("{name}: {message}"), remedy);
        if !nic.there {
            let remedy =
                "correct nic.device: `vifd nics` and `devlink dev` list those that are here; or load its driver";
            return vec![fail("it is configured ([[nic]]), and this host has no such NIC".into(), remedy.into())];
        }
        let mut findings = Vec::new();
        let driver = nic.driver.as_deref().unwrap_or("of the NIC");
        if nic.driver.is_none() {
            findings
                .push(fail("no driver has it".into(), "load its driver: `lspci -k` names those that know it".into()));
        }
        if !nic.hindered.is_empty() {
            let remedy = "clear that away, and vifd goes on by itself; docs/offload.md has what each driver needs";
            findings.push(fail(nic.hindered.clone(), remedy.into()));
        }
        let is_switchdev = nic.mode.as_deref() == Some(SWITCHDEV);
        let by_representor = |way: &FunctionWay| match way {
            FunctionWay::Representor { .. } => true,
            FunctionWay::DpdkRepresentor => nic.mode.is_some(),
            FunctionWay::Settings(_) | FunctionWay::Macvtap(_) | FunctionWay::Driver => false,
        };
        let represented: Vec<&FunctionLine> =
            used().filter(|(_, of)| by_representor(&of.way)).map(|(function, _)| function).collect();
        if !is_switchdev && nic.hindered.is_empty() {
            match &nic.mode {
                Some(mode) if nic.switchdev_wanted => {
                    let remedy = "vifd does it; where no vifd runs, start it: `systemctl start vifd`";
                    findings.push(warn(format!("it is to be in switchdev mode, and is in {mode} mode"), remedy.into()));
                }
                Some(mode) if !represented.is_empty() => {
                    let remedy = format!(
                        "add a [[nic]] with device = \"{name}\" and eswitch = \"switchdev\" to the configuration, then \
                         `systemctl reload vifd`"
                    );
                    let message = format!(
                        "records want ports for its functions, and it is in {mode} mode, in which they \
                                           have none"
                    );
                    findings.push(fail(message, remedy));
                }
                None if !represented.is_empty() || nic.switchdev_wanted => {
                    let message = format!("driver {driver} offers no eswitch, so its functions have no representors");
                    let remedy = "use a NIC and a driver with switchdev mode, or records of functions without a port";
                    findings.push(fail(message, remedy.into()));
                }
                _ => {}
            }
        }
        if let Some(vfs) =
            self.settings.iter().find(|(device, _)| device.to_string() == *name).and_then(|(_, of)| of.vfs)
            && nic.hindered.is_empty()
            && nic.vfs.is_some_and(|made| made != vfs)
        {
            let made = nic.vfs.unwrap_or(0);
            let remedy = "vifd does it; where no vifd runs, start it: `systemctl start vifd`";
            findings.push(warn(format!("it is to have {vfs} virtual functions, and has {made}"), remedy.into()));
        }
        if is_switchdev {
            findings.extend(nic.uplinks.iter().filter_map(|uplink| tc_offload(nic, "uplink", uplink)));
        }
        for function in represented.iter().filter(|_| is_switchdev) {
            match (&function.representor, &function.candidates[..]) {
                (Some(representor), _) => findings.extend(tc_offload(nic, "representor", representor)),
                (None, []) => {
                    let remedy = "see `devlink port` and the kernel's log: the driver makes it";
                    findings
                        .push(warn(format!("the representor of {} is not there", function.function), remedy.into()));
                }
                (None, several) => {
                    let message =
                        format!("which of {} represents {} cannot be told", several.join(", "), function.function);
                    let remedy = "use a kernel and a driver whose devlink ports name their netdevs (`devlink port`)";
                    findings.push(fail(message, remedy.into()));
                }
            }
        }
        if findings.is_empty() {
            let mode = nic.mode.as_ref().map_or_else(String::new, |mode| format!(", {mode} mode"));
            let vfs = nic.vfs.map_or_else(String::new, |vfs| format!(", {vfs} virtual functions"));
            findings.push(Finding::ok("nic", format!("{name}: driver {driver}{mode}{vfs}")));
        }
        findings
    }

    /// What records want of a function.
    fn uses<'b>(&'b self, nic: &'b NicLine, function: &'b FunctionLine) -> impl Iterator<Item = &'b WantedFunction> {
        self.wanted.iter().filter(move |of| match &of.address {
            FunctionAddress::Pci(address) => function.address.as_deref() == Some(&address.to_string()),
            FunctionAddress::Port { device, function: number } => {
                nic.nic == device.to_string() && function.function == number.to_string()
            }
        })
    }

    fn is_here(&self, address: &FunctionAddress) -> bool {
        match address {
            FunctionAddress::Pci(address) => self.folder(*address).exists(),
            FunctionAddress::Port { device, function } => {
                let nic = self.nics.iter().find(|nic| nic.nic == device.to_string());
                nic.is_some_and(|nic| nic.functions.iter().any(|of| of.function == function.to_string()))
            }
        }
    }

    fn folder(&self, address: PciAddress) -> std::path::PathBuf {
        self.sysfs.join(format!("bus/pci/devices/{address}"))
    }

    /// Functions that records name and this host does not have.
    fn absent(&self) -> Option<Finding> {
        let absent = self.wanted.iter().map(|of| &of.address).filter(|address| !self.is_here(address));
        let absent: BTreeSet<String> = absent.map(ToString::to_string).collect();
        let first = absent.first()?;
        let message = match absent.len() {
            1 => format!("a record wants function {first}, which this host does not have"),
            several => format!("records want {several} functions that this host does not have, such as {first}"),
        };
        let remedy =
            "have virtual functions made ([[nic]] vfs), or correct vif.dev_address: `vifd nics -o json` lists them";
        Some(Finding::fail("functions", message, remedy))
    }

    /// Drivers that records want functions to have.
    fn drivers(&self) -> Vec<Finding> {
        let wanted: BTreeSet<&str> = self.wanted.iter().filter_map(|of| of.driver.as_deref()).collect();
        let is_loaded = |driver: &&str| self.sysfs.join("bus/pci/drivers").join(driver).exists();
        let (loaded, absent): (Vec<&str>, Vec<&str>) = wanted.into_iter().partition(is_loaded);
        let mut findings: Vec<Finding> = absent
            .into_iter()
            .map(|driver| {
                let message = format!("records want functions bound to {driver}, and no such driver is loaded");
                let remedy = format!("run `modprobe {driver}`, and name it in /etc/modules-load.d for the next start");
                Finding::fail("drivers", message, remedy)
            })
            .collect();
        if findings.is_empty() && !loaded.is_empty() {
            findings.push(Finding::ok("drivers", format!("{} is loaded", loaded.join(", "))));
        }
        findings
    }

    /// What vfio-pci needs to keep guests to their own memory.
    fn iommu(&self) -> Option<Finding> {
        let for_guests = || self.wanted.iter().filter(|of| of.driver.as_deref() == Some(VFIO));
        for_guests().next()?;
        // Whoever asked for that knows what it means.
        let unsafe_mode = self.sysfs.join("module/vfio/parameters/enable_unsafe_noiommu_mode");
        if fs::read_to_string(unsafe_mode).is_ok_and(|text| text.trim() == "Y") {
            let remedy = "switch the IOMMU on, and the module's enable_unsafe_noiommu_mode off";
            return Some(Finding::warn("iommu", "vfio works without an IOMMU: guests can write to all memory", remedy));
        }
        let groups = fs::read_dir(self.sysfs.join("kernel/iommu_groups")).map_or(0, Iterator::count);
        if groups == 0 {
            let message = "records give functions to guests (vfio-pci), and this host has no IOMMU groups";
            let remedy =
                "switch VT-d or AMD-Vi on in the firmware; with Intel also intel_iommu=on on the kernel's command line";
            return Some(Finding::fail("iommu", message, remedy));
        }
        let without = for_guests().find_map(|of| match &of.address {
            FunctionAddress::Pci(address) => {
                let folder = self.folder(*address);
                (folder.exists() && !folder.join("iommu_group").exists()).then_some(*address)
            }
            FunctionAddress::Port { .. } => None,
        });
        Some(match without {
            Some(address) => {
                let remedy = "put the card into a slot behind the IOMMU; see the kernel's log for DMAR or AMD-Vi";
                Finding::fail("iommu", format!("function {address} is in no IOMMU group"), remedy)
            }
            None => Finding::ok("iommu", format!("there are {groups} groups")),
        })
    }
}

/// Whether a netdev hands flows to its NIC.
fn tc_offload(nic: &NicLine, what: &str, netdev: &NetdevLine) -> Option<Finding> {
    let (nic, NetdevLine { name, tc_offload }) = (&nic.nic, netdev);
    match tc_offload {
        Some(true) => None,
        Some(false) => {
            let remedy = format!(
                "run `ethtool -K {name} hw-tc-offload on`; vifd does where [[nic]] has eswitch = \"switchdev\""
            );
            Some(Finding::warn("nic", format!("{nic}: hw-tc-offload of {what} {name} is off"), remedy))
        }
        None => {
            let message = format!("{nic}: {what} {name} cannot hand flows to the NIC (no hw-tc-offload)");
            let remedy = "its flows stay in software: see whether a later driver or firmware has it";
            Some(Finding::warn("nic", message, remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::doctor::Level;

    const NIC: &str = "pci/0000:03:00.0";
    const VF: &str = "0000:03:00.2";

    fn wanted(address: &str, way: FunctionWay, driver: Option<&str>) -> WantedFunction {
        let driver = driver.map(str::to_owned);
        WantedFunction { address: address.parse().unwrap(), way, mac: None, driver, preserve: false }
    }

    fn representor() -> FunctionWay {
        FunctionWay::Representor { name: None }
    }

    /// As it is when all is well.
    fn good() -> NicLine {
        let netdev = |name: &str| NetdevLine { name: name.into(), tc_offload: Some(true) };
        NicLine {
            nic: NIC.into(),
            there: true,
            driver: Some("mlx5_core".into()),
            mode: Some("switchdev".into()),
            vfs: Some(1),
            most_vfs: Some(8),
            uplinks: vec![netdev("p0")],
            functions: vec![FunctionLine {
                function: "pf0vf0".into(),
                address: Some(VF.into()),
                representor: Some(netdev("rep0")),
                ..FunctionLine::default()
            }],
            configured: true,
            switchdev_wanted: true,
            ..NicLine::default()
        }
    }

    fn look(nic: &NicLine, wanted: &[WantedFunction], sysfs: &Path) -> Vec<(Level, String)> {
        let configured = NicSettings { switchdev: true, vfs: Some(1), ..NicSettings::default() };
        let settings = [(NIC.parse().unwrap(), configured)].into();
        let settings = if nic.configured { settings } else { BTreeMap::new() };
        let nics = std::slice::from_ref(nic);
        let findings = Scene { settings: &settings, wanted, nics, sysfs }.findings();
        assert!(findings.iter().all(|one| (one.verdict == Level::Ok) == one.remedy.is_empty()), "{findings:?}");
        findings.into_iter().map(|one| (one.verdict, format!("{} → {}", one.message, one.remedy))).collect()
    }

    /// The one finding, which is to contain all of these.
    fn one(nic: &NicLine, wanted: &[WantedFunction], sysfs: &Path, level: Level, words: &[&str]) {
        let found = look(nic, wanted, sysfs);
        let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
        assert!(
            *verdict == level && words.iter().all(|word| text.contains(word)),
            "{verdict:?} {text} lacks {words:?}"
        );
    }

    fn sysfs_with_function() -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        fs::create_dir_all(sysfs.path().join("bus/pci/devices").join(VF)).unwrap();
        sysfs
    }

    #[test]
    fn what_is_wrong_with_a_nic_is_told_with_what_to_do() {
        let sysfs = sysfs_with_function();
        let sysfs = sysfs.path();
        let port = [wanted(VF, representor(), None)];
        one(&good(), &port, sysfs, Level::Ok, &["mlx5_core", "switchdev", "1 virtual"]);
        one(&NicLine { there: false, ..good() }, &[], sysfs, Level::Fail, &["no such NIC", "devlink dev"]);
        let hindered = NicLine { hindered: "it was refused: EBUSY".into(), mode: Some("legacy".into()), ..good() };
        one(&hindered, &port, sysfs, Level::Fail, &["EBUSY", "offload.md"]);
        let legacy = NicLine { mode: Some("legacy".into()), ..good() };
        one(&legacy, &port, sysfs, Level::Warn, &["is in legacy mode", "start vifd"]);
        let alone = NicLine { configured: false, switchdev_wanted: false, ..legacy };
        one(&alone, &port, sysfs, Level::Fail, &["legacy mode", "device = \"pci/0000:03:00.0\""]);
        one(&NicLine { mode: None, ..alone.clone() }, &port, sysfs, Level::Fail, &["offers no eswitch"]);
        one(&NicLine { vfs: Some(0), ..good() }, &[], sysfs, Level::Warn, &["1 virtual functions, and has 0"]);
        // Of a NIC that nobody wants anything of nothing is told.
        assert_eq!(look(&alone, &[], sysfs), []);
        // One in legacy mode is right for a function without a port.
        let plain = [wanted(VF, FunctionWay::Driver, None)];
        one(&alone, &plain, sysfs, Level::Ok, &["legacy mode"]);
    }

    #[test]
    fn what_is_wrong_with_netdevs_is_told_with_what_to_do() {
        let sysfs = sysfs_with_function();
        let sysfs = sysfs.path();
        let port = [wanted(&format!("{NIC}:pf0vf0"), representor(), None)];
        let change = |edit: fn(&mut NicLine)| {
            let mut nic = good();
            edit(&mut nic);
            nic
        };
        let off = change(|nic| nic.uplinks[0].tc_offload = Some(false));
        one(&off, &port, sysfs, Level::Warn, &["uplink p0 is off", "ethtool -K p0 hw-tc-offload on"]);
        let never = change(|nic| nic.functions[0].representor.as_mut().unwrap().tc_offload = None);
        one(&never, &port, sysfs, Level::Warn, &["representor rep0 cannot"]);
        let late = change(|nic| nic.functions[0].representor = None);
        one(&late, &port, sysfs, Level::Warn, &["representor of pf0vf0 is not there", "devlink port"]);
        let doubtful = change(|nic| {
            nic.functions[0].representor = None;
            nic.functions[0].candidates = vec!["eth1".into(), "eth2".into()];
        });
        one(&doubtful, &port, sysfs, Level::Fail, &["which of eth1, eth2"]);
        // The other function's are nobody's business.
        assert_eq!(look(&late, &[], sysfs).len(), 1);
        assert_eq!(look(&late, &[], sysfs)[0].0, Level::Ok);
    }

    #[test]
    fn what_guests_need_is_looked_for_in_sysfs() {
        let sysfs = sysfs_with_function();
        let root = sysfs.path();
        let guests = [wanted(VF, FunctionWay::Driver, Some("vfio-pci"))];
        let bad = |wanted: &[WantedFunction]| {
            let found = look(&good(), wanted, root).into_iter().filter(|(level, _)| *level != Level::Ok);
            found.map(|(_, text)| text).collect::<Vec<_>>().join("\n")
        };
        let found = bad(&guests);
        assert!(found.contains("modprobe vfio-pci") && found.contains("no IOMMU groups"), "{found}");
        fs::create_dir_all(root.join("bus/pci/drivers/vfio-pci")).unwrap();
        fs::create_dir_all(root.join("kernel/iommu_groups/7")).unwrap();
        assert!(bad(&guests).contains("0000:03:00.2 is in no IOMMU group"), "{}", bad(&guests));
        symlink("../../../../kernel/iommu_groups/7", root.join(format!("bus/pci/devices/{VF}/iommu_group"))).unwrap();
        assert_eq!(bad(&guests), "");
        fs::create_dir_all(root.join("module/vfio/parameters")).unwrap();
        fs::write(root.join("module/vfio/parameters/enable_unsafe_noiommu_mode"), "Y\n").unwrap();
        assert!(bad(&guests).contains("without an IOMMU"), "{}", bad(&guests));
        let absent = ["0000:03:00.7", &format!("{NIC}:pf0vf9")].map(|address| wanted(address, representor(), None));
        let found = bad(&absent);
        assert!(found.contains("want 2 functions that") && found.contains("[[nic]] vfs"), "{found}");
    }
}
