//! vifd itself on a NIC with virtual functions, the igb that QEMU has: what VIFs get, what they leave, and what is not done
//! to them. Everything is told by events: no resync is on.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread::sleep;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::chaos::Dice;
use vifd_integration::lab::{Emulated, Namespace, Ovs, Record, Switch, Vifd, in_vm, open_as};

use crate::nics::script;

/// A user of no name, as a hypervisor may be.
const HYPERVISOR: u32 = 64055;

/// What the addresses of records begin with.
const OURS: &str = "22:52:25:62:00:";

/// The igb, without functions. It is as it was when it goes.
struct Igb {
    address: String,
    /// Its netdev.
    name: String,
}

/// One virtual function as the host has it.
#[derive(Clone, Debug, PartialEq)]
struct Function {
    /// Of `ip -json link show`.
    settings: Value,
    driver: Option<String>,
    driver_override: Option<String>,
}

impl Igb {
    fn load() -> Result<Igb> {
        let told = script(
            r#"
            modprobe igb
            modprobe igbvf
            modprobe vfio-pci
            for nic in /sys/bus/pci/devices/*; do
              [[ $(<$nic/vendor):$(<$nic/device) == 0x8086:0x10c9 ]] && break
            done
            for second in {1..100}; do [[ -d $nic/net ]] && break; sleep 0.1; done
            # Scenes before this one may have left it off.
            echo 1 >$nic/sriov_drivers_autoprobe
            ip link set $(ls $nic/net) up
            echo ${nic##*/} $(ls $nic/net)"#,
        )?;
        let (address, name) = told.trim().split_once(' ').context("no igb")?;
        Ok(Igb { address: address.to_owned(), name: name.to_owned() })
    }

    /// Its table in the configuration.
    fn table(&self, keys: &str) -> String {
        format!("[[nic]]\ndevice = \"pci/{}\"\n{keys}\n", self.address)
    }

    fn path(&self) -> PathBuf {
        device(&self.address)
    }

    /// The address of a function that there is.
    fn function(&self, number: usize) -> Result<String> {
        let link = fs::read_link(self.path().join(format!("virtfn{number}")))?;
        Ok(link.file_name().context("a link to a function")?.to_string_lossy().into_owned())
    }

    /// Where functions will be, before they are made: 82576 datasheet, 9.6.4 (offset and stride).
    fn address_of(&self, number: usize) -> String {
        let bus = self.address.rsplit_once(':').map_or("", |(bus, _)| bus);
        format!("{bus}:10.{}", 2 * number)
    }

    fn functions(&self) -> Result<Vec<Function>> {
        let links: Value = serde_json::from_str(&script(&format!("ip -json link show {}", self.name))?)?;
        let settings = links[0]["vfinfo_list"].as_array().cloned().unwrap_or_default();
        let functions: Result<Vec<Function>> = (0..settings.len())
            .map(|number| {
                let path = device(&self.function(number)?);
                let driver = fs::read_link(path.join("driver")).ok();
                let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
                let text = fs::read_to_string(path.join("driver_override"))?;
                let driver_override = Some(text.trim().to_owned()).filter(|text| text != "(null)");
                let mut settings = settings[number].clone();
                // A function's own driver chooses an address when it is bound, where it was given none.
                if !settings["address"].as_str().is_some_and(|address| address.starts_with(OURS)) {
                    settings["address"] = Value::Null;
                }
                Ok(Function { settings, driver, driver_override })
            })
            .collect();
        // One of them went while it was read.
        Ok(functions.unwrap_or_default())
    }
}

impl Drop for Igb {
    fn drop(&mut self) {
        let path = self.path();
        if let Err(error) = script(&format!("echo 0 >{}/sriov_numvfs; rmmod igbvf igb", path.display())) {
            eprintln!("the igb stays as it is: {error:#}");
        }
    }
}

fn device(address: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(address)
}

/// The igb with a vifd beside it, not started yet.
fn scene() -> Result<(Igb, Ovs, Vifd)> {
    let igb = Igb::load()?;
    let ovs = Ovs::start_in(Switch::Dummy, Namespace::of_vm()?)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config.more = igb.table("vfs = 2");
    Ok((igb, ovs, vifd))
}

fn id(number: usize) -> String {
    format!("dc06001c-3c8d-4f44-8fb4-e1d33c16000{number}")
}

fn mac(number: usize) -> String {
    format!("{OURS}1{number}")
}

fn record(number: usize, kind: &str, more: &Value) -> Record {
    let mut vif = json!({"type": kind, "id": id(number), "address": mac(number)});
    for (key, value) in more.as_object().into_iter().flatten() {
        vif[key] = value.clone();
    }
    Record::native(&vif)
}

fn host_device(igb: &Igb, number: usize, dev_type: &str) -> Record {
    let dev_address = igb.address_of(number);
    record(number, "hostdevice", &json!({"dev_type": dev_type, "dev_address": dev_address}))
}

/// Whether nothing is noted down of any function or NIC any more.
fn no_notes(vifd: &Vifd) -> Result<bool> {
    Ok(fs::read_dir(vifd.state().join("nics"))?.next().is_none())
}

/// Waits until the functions are so.
fn becomes(vifd: &mut Vifd, igb: &Igb, what: &str, is: impl Fn(&[Function]) -> bool) -> Result<Vec<Function>> {
    let mut last = Vec::new();
    let done = vifd.until(what, |_| {
        last = igb.functions()?;
        Ok(is(&last).then(|| last.clone()))
    });
    done.with_context(|| format!("{last:#?}"))
}

fn has(function: &Function, settings: &Value) -> bool {
    settings.as_object().into_iter().flatten().all(|(key, value)| function.settings[key] == *value)
}

/// Takes a VIF away, and waits until its function is as it was.
fn unplug(vifd: &mut Vifd, igb: &Igb, record: &Record, before: &[Function]) -> Result<()> {
    vifd.remove(record)?;
    vifd.wait_gone(&record.id())?;
    becomes(vifd, igb, "the functions are as they were", |all| all == before)?;
    vifd.until("nothing is noted down", |vifd| Ok(no_notes(vifd)?.then_some(())))
}

/// The functions when they are made and their drivers have begun.
fn made(vifd: &mut Vifd, igb: &Igb, count: usize) -> Result<Vec<Function>> {
    becomes(vifd, igb, &format!("there are {count} functions"), |all| {
        all.len() == count && all.iter().all(|function| function.driver.as_deref() == Some("igbvf"))
    })
}

#[test]
fn a_function_is_set_by_its_record_kept_so_and_given_back_as_it_was() -> Result<()> {
    in_vm(|| {
        let (igb, _ovs, mut vifd) = scene()?;
        vifd.start()?;
        let before = made(&mut vifd, &igb, 2)?;
        let one = host_device(&igb, 1, "ethernet").with("network", json!({"vlan": 100}));
        vifd.put(&one)?;
        let status = vifd.wait_for(&id(1), "ready")?;
        assert_eq!(status["facts"]["function"], igb.function(1)?);
        let all = igb.functions()?;
        let wanted = json!({"address": mac(1), "vlan_list": [{"vlan": 100}], "spoofchk": true, "trust": false});
        assert!(has(&all[1], &wanted) && all[0] == before[0], "{all:#?}");

        let two = one
            .with("network", json!({"vlan": 200}))
            .with("address", mac(7))
            .beside("policy", json!({"trust": true, "spoof_check": false, "rate": {"egress_kbps": 100_000}}));
        vifd.put(&two)?;
        let wanted = json!({
            "address": mac(7), "vlan_list": [{"vlan": 200}], "spoofchk": false, "trust": true, "rate": {"max_tx": 100, "min_tx": 0},
        });
        let all = becomes(&mut vifd, &igb, "the changed record", |all| has(&all[1], &wanted))?;
        script(&format!("ip link set {} vf 1 vlan 7 spoofchk on", igb.name))?;
        becomes(&mut vifd, &igb, "what a hand changed is put right", |now| now == all)?;
        unplug(&mut vifd, &igb, &two, &before)
    })
}

/// What a guest has is held as QEMU does: its group is open.
fn guest(function: &str) -> Result<File> {
    let group = fs::read_link(device(function).join("iommu_group"))?;
    let group = Path::new("/dev/vfio").join(group.file_name().context("an IOMMU group")?);
    OpenOptions::new().read(true).write(true).open(&group).with_context(|| group.display().to_string())
}

#[test]
fn a_guest_has_a_function_whole_until_it_lets_go() -> Result<()> {
    in_vm(|| {
        let (igb, _ovs, mut vifd) = scene()?;
        vifd.start()?;
        let before = made(&mut vifd, &igb, 2)?;
        let whole = host_device(&igb, 0, "generic").with("network", json!({"vlan": 100}));
        let nested = record(
            1,
            "nested_dpdk",
            &json!({
                "pci_address": igb.function(1)?, "dev_driver": "vfio-pci", "port_profile": {"type": "k8s_dpdk", "l3_setup": true},
            }),
        );
        for record in [&whole, &nested] {
            vifd.put(record)?;
            vifd.wait_for(&record.id(), "ready")?;
        }
        let all = igb.functions()?;
        assert!(has(&all[0], &json!({"address": mac(0), "vlan_list": [{"vlan": 100}]})), "{all:#?}");
        assert_eq!(all[1].settings, before[1].settings, "it is the application's to set it");
        for function in &all {
            assert_eq!(function.driver.as_deref(), Some("vfio-pci"));
            assert_eq!(function.driver_override.as_deref(), Some("vfio-pci"));
        }

        let held = guest(&igb.function(0)?)?;
        vifd.remove(&whole)?;
        vifd.wait_until(&whole.id(), "the reason why it stays", |status| {
            status["message"].as_str().is_some_and(|message| message.contains("a guest still has it"))
        })?;
        // Nobody else waits.
        vifd.remove(&nested)?;
        vifd.wait_gone(&nested.id())?;
        becomes(&mut vifd, &igb, "the other function is given back", |all| all[1] == before[1])?;
        assert_eq!(igb.functions()?[0].driver.as_deref(), Some("vfio-pci"), "it was taken from a guest");
        drop(held);
        vifd.wait_gone(&whole.id())?;
        becomes(&mut vifd, &igb, "the functions are as they were", |all| all == before)?;
        assert!(no_notes(&vifd)?);
        Ok(())
    })
}

#[test]
fn a_macvtap_stands_on_a_function_and_passes_packets() -> Result<()> {
    in_vm(|| {
        let (igb, ovs, mut vifd) = scene()?;
        vifd.config.more += &format!("[macvtap]\nowner = \"{HYPERVISOR}\"\nmode = \"0660\"\n");
        vifd.start()?;
        let before = made(&mut vifd, &igb, 2)?;
        // The other function is somebody else's. The NIC switches between the two.
        let outside = Namespace::new()?;
        let other = netdev(&igb.function(1)?)?;
        ovs.namespace().run("ip", ["link", "set", &other, "netns", outside.name()])?;
        outside.run("ip", ["addr", "add", "10.0.0.99/24", "dev", &other])?;
        outside.run("ip", ["link", "set", &other, "up"])?;

        for mode in ["passthrough", "bridge"] {
            let direct = record(
                0,
                "direct",
                &json!({
                    "vif_name": "macvtap0", "dev_address": igb.function(0)?, "mode": mode, "network": {"mtu": 1450},
                }),
            );
            vifd.put(&direct)?;
            let status = vifd.wait_for(&id(0), "ready")?;
            let node = status["facts"]["device"].as_str().with_context(|| format!("its device: {status:#}"))?;
            let node = PathBuf::from(node);
            let opened = open_as(ovs.namespace(), &node, "macvtap0", HYPERVISOR)?;
            let guest = Emulated::on(opened, &mac(0), "10.0.0.1/24")?;
            vifd.until("packets pass", |_| Ok((guest.namespace().ping("10.0.0.99", 3)?.received == 3).then_some(())))?;
            let given = igb.functions()?[0].settings["address"] == mac(0);
            assert_eq!(given, mode == "passthrough", "else the function has an address of its own");
            let lower = netdev(&igb.function(0)?)?;
            assert_eq!(ovs.namespace().link(&lower)?.context("its netdev")?.mtu, 1450);
            drop(guest);

            unplug(&mut vifd, &igb, &direct, &before)?;
            assert!(ovs.namespace().link("macvtap0")?.is_none() && !node.exists());
            // Its driver has begun again, so that nothing of it is the guest's.
            let lower = vifd.until("its driver has made it a netdev", |_| Ok(netdev(&igb.function(0)?).ok()))?;
            let link = ovs.namespace().link(&lower)?.context("its netdev")?;
            assert!(link.mtu == 1500 && !link.up && !link.mac.starts_with(OURS), "{link:?}");
        }
        Ok(())
    })
}

fn netdev(function: &str) -> Result<String> {
    let folder = device(function).join("net");
    let entry = fs::read_dir(&folder)?.next().with_context(|| format!("nothing in {}", folder.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

#[test]
fn nothing_is_changed_under_a_vif_and_what_is_not_there_is_told() -> Result<()> {
    in_vm(|| {
        let (igb, _ovs, mut vifd) = scene()?;
        vifd.start()?;
        let before = made(&mut vifd, &igb, 2)?;
        let lives = host_device(&igb, 0, "ethernet");
        vifd.put(&lives)?;
        vifd.wait_for(&id(0), "ready")?;
        let all = igb.functions()?;

        let wrong = [
            (1, igb.address.clone(), "what is there is none"),
            (2, igb.address_of(2), "which this host does not have"),
            (3, "0000:00:00.0".to_owned(), "which this host does not have"),
        ];
        for (number, address, says) in wrong {
            let record = host_device(&igb, number, "ethernet").with("dev_address", address.clone());
            vifd.put(&record)?;
            let status = vifd.wait_until(&id(number), "a verdict", |status| status["phase"] != "accepted")?;
            let message = status["message"].as_str().unwrap_or_default();
            assert!(message.contains(&address) && message.contains(says), "{address}: {message}");
            vifd.remove(&record)?;
        }

        let refused = format!("the number of its functions is not changed under the VIFs that live on it: {}", id(0));
        vifd.config.more = igb.table("vfs = 3");
        vifd.write_config()?;
        vifd.signal(Signal::SIGHUP)?;
        vifd.until("the log tells who lives on the NIC", |vifd| {
            Ok(fs::read_to_string(vifd.log_file())?.contains(&refused).then_some(()))
        })?;
        let told = String::from_utf8(vifd.cli(&["status", "-o", "json"])?.stdout)?;
        assert!(told.contains(&refused), "{told}");
        assert_eq!(igb.functions()?, all);
        vifd.remove(&lives)?;
        made(&mut vifd, &igb, 3)?;
        vifd.until("nothing is in the way", |vifd| {
            let told = String::from_utf8(vifd.cli(&["status", "-o", "json"])?.stdout)?;
            Ok((!told.contains("is not changed")).then_some(()))
        })?;
        // The functions there were had the settings that they began with.
        let all = igb.functions()?;
        assert!(all[..2] == before && no_notes(&vifd)?, "{all:#?}");
        Ok(())
    })
}

/// How often vifd is killed in each scene.
const KILLS: u32 = 10;

/// A VIF has a function in one way or another, or the number of functions changes, and vifd is killed in the middle.
#[test]
fn killed_at_any_moment_it_leaves_no_function_half_way() -> Result<()> {
    in_vm(|| {
        let (igb, ovs, mut vifd) = scene()?;
        vifd.start()?;
        let before = made(&mut vifd, &igb, 2)?;
        let mut dice = Dice::of(6, &[]);
        let macvtap = json!({"vif_name": "macvtap0", "dev_address": igb.address_of(0), "mode": "passthrough"});
        let forms = [
            host_device(&igb, 0, "ethernet").with("network", json!({"vlan": 100})),
            host_device(&igb, 0, "generic").with("network", json!({"vlan": 7})),
            record(0, "direct", &macvtap),
        ];
        let mut wanted = None;
        for _ in 0..KILLS {
            let form = forms.get(usize::try_from(dice.from_to(0, 3))?);
            match form {
                Some(record) => vifd.put(record)?,
                None if wanted.is_some() => vifd.remove(&forms[0])?,
                None => {}
            }
            wanted = form;
            // Refused while somebody has a function.
            vifd.config.more = igb.table(&format!("vfs = {}", dice.from_to(2, 3)));
            vifd.launch()?;
            // Some end before they have begun, some when all is done.
            sleep(dice.millis(100, 2500));
            vifd.kill()?;
        }
        vifd.config.more = igb.table("vfs = 2");
        vifd.start()?;
        if let Some(record) = wanted {
            vifd.wait_for(&record.id(), "ready")?;
            vifd.remove(record)?;
            vifd.wait_gone(&record.id())?;
        }
        becomes(&mut vifd, &igb, "the functions are as they were", |all| all == before)?;
        vifd.until("nothing is noted down", |vifd| Ok(no_notes(vifd)?.then_some(())))?;
        assert!(ovs.namespace().link("macvtap0")?.is_none());
        Ok(())
    })
}

/// The same while a NIC goes from legacy to switchdev mode, and its representor to a bridge.
#[test]
fn killed_at_any_moment_it_leaves_no_eswitch_half_way() -> Result<()> {
    in_vm(|| {
        let ovs = Ovs::start_in(Switch::Dummy, Namespace::of_vm()?)?;
        let _nic = Simulated::load()?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.config.more = "[[nic]]\ndevice = \"netdevsim/netdevsim10\"\neswitch = \"switchdev\"\nvfs = 2\n".into();
        let profile = json!({"type": "openvswitch", "datapath_offload": {"representor_name": "nic0"}});
        let offloaded = record(
            0,
            "hostdevice",
            &json!({
                "dev_type": "ethernet", "dev_address": "netdevsim/netdevsim10:pf0vf0", "network": {"bridge": "br-int"},
                "port_profile": profile,
            }),
        );
        let mut dice = Dice::of(6, &[1]);
        for round in 0..KILLS {
            if round % 2 == 0 {
                vifd.put(&offloaded)?;
            } else {
                vifd.remove(&offloaded)?;
                Simulated::reset()?;
            }
            vifd.launch()?;
            sleep(dice.millis(100, 2500));
            vifd.kill()?;
        }
        vifd.put(&offloaded)?;
        vifd.start()?;
        let status = vifd.wait_for(&id(0), "ready")?;
        assert_eq!(status["facts"]["representor"], "nic0", "{status:#}");
        assert!(ovs.vsctl(["list-ports", "br-int"])?.contains("nic0"));
        vifd.remove(&offloaded)?;
        vifd.wait_gone(&id(0))?;
        assert!(no_notes(&vifd)? && ovs.namespace().link("nic0")?.is_none());
        let shown =
            script("devlink dev eswitch show netdevsim/netdevsim10; devlink port show | grep -c 'flavour pcivf'")?;
        assert!(shown.contains("mode switchdev") && shown.ends_with("\n2\n"), "{shown}");
        let settings = script("ip -json link show $(ls /sys/bus/netdevsim/devices/netdevsim10/net | head -1)")?;
        assert!(!settings.contains(OURS), "{settings}");
        Ok(())
    })
}

/// A netdevsim with an eswitch.
struct Simulated;

impl Simulated {
    fn load() -> Result<Simulated> {
        script(
            r#"
            modprobe psample
            insmod "$VIFD_VM/netdevsim/stock/netdevsim.ko"
            echo '10 1' >/sys/bus/netdevsim/new_device"#,
        )?;
        Ok(Simulated)
    }

    /// As somebody may, while vifd is away.
    fn reset() -> Result<()> {
        script(
            r#"
            devlink dev eswitch set netdevsim/netdevsim10 mode legacy
            echo 0 >/sys/bus/netdevsim/devices/netdevsim10/sriov_numvfs"#,
        )
        .map(drop)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        if let Err(error) = script("echo 10 >/sys/bus/netdevsim/del_device; rmmod netdevsim") {
            eprintln!("netdevsim stays: {error:#}");
        }
    }
}
