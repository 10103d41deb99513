//! The backend of NICs against a real kernel: what others do is seen by events, what is asked for is done and seen, and notes
//! outlive the agent. netdevsim has the eswitch and the representors, QEMU's igb functions on the PCI bus.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devlink::vf::Vlan;
use devlink::{Device, EswitchMode, FunctionNumber, PciAddress};
use vifd::backend::nics::{EswitchSetting, NicOp, Nics, NicsConfig};
use vifd::backend::{Attributed, Backend as _, Outcome, Party};
use vifd::model::{AgentId, Nic, NicState, PciFunction, Undo, VfChange, VfSettings};
use vifd_integration::lab::in_vm;

use crate::nics::script;

/// How long the kernel may take to tell something: the VM is slow.
const SOON: Duration = Duration::from_secs(20);
const SIMULATED: &str = "netdevsim/netdevsim10";

fn played(scene: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(scene(&directory.path().join("state")))
}

/// The state once it is so, without anything being asked for.
async fn until(nics: &Nics, what: &str, mut is: impl FnMut(&NicState) -> bool) -> Result<Arc<NicState>> {
    let mut view = nics.observe();
    let seen = view.wait_for(|view| view.ready().is_some_and(&mut is));
    let view = tokio::time::timeout(SOON, seen).await.with_context(|| format!("never seen: {what}"))??.clone();
    let vifd::model::View::Ready(state) = view else { anyhow::bail!("{what}") };
    Ok(state)
}

/// What the view shows now.
fn now(nics: &Nics) -> Result<Arc<NicState>> {
    let vifd::model::View::Ready(state) = nics.observe().borrow().clone() else { anyhow::bail!("not read yet") };
    Ok(state)
}

async fn outcome(nics: &mut Nics, op: NicOp) -> Result<Outcome> {
    let outcomes = nics.apply(vec![Attributed { party: Party::All, op }]).await;
    outcomes.into_iter().next().context("no outcome")
}

/// Does it, and answers what the view shows as soon as it is said to be done.
async fn done(nics: &mut Nics, op: NicOp) -> Result<Arc<NicState>> {
    let words = op.to_string();
    let outcome = outcome(nics, op).await?;
    ensure!(outcome == Outcome::Done, "{words}: {outcome:?}");
    now(nics)
}

async fn refused(nics: &mut Nics, op: NicOp, says: &str) -> Result<()> {
    let words = op.to_string();
    match outcome(nics, op).await? {
        Outcome::Failed(said) => ensure!(said.contains(says), "{words}: {said}"),
        other => anyhow::bail!("{words}: {other:?}"),
    }
    Ok(())
}

async fn is_conflict(nics: &mut Nics, op: NicOp) -> Result<()> {
    let words = op.to_string();
    let outcome = outcome(nics, op).await?;
    ensure!(matches!(outcome, Outcome::Conflict(_)), "{words}: {outcome:?}");
    Ok(())
}

fn nic<'a>(state: &'a NicState, device: &str) -> Option<&'a Nic> {
    state.nics.get(&device.parse::<Device>().ok()?).map(|nic| &**nic)
}

fn settings(state: &NicState, device: &str, function: &str) -> Option<VfSettings> {
    nic(state, device)?.functions.get(&function.parse::<FunctionNumber>().ok()?)?.settings
}

fn representors(state: &NicState) -> Vec<String> {
    let functions = nic(state, SIMULATED).into_iter().flat_map(|nic| nic.functions.values());
    functions.filter_map(|function| Some(function.representor.netdev()?.name.clone())).collect()
}

/// Has a function open as a hypervisor does, until its input ends (`linux/vfio.h`).
const GUEST: &str = r#"
import fcntl, os, struct, sys
group, function = sys.argv[1:]
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open("/dev/vfio/" + group, os.O_RDWR)
fcntl.ioctl(group, 0x3b68, struct.pack("i", container))  # VFIO_GROUP_SET_CONTAINER
fcntl.ioctl(container, 0x3b66, 1)  # VFIO_SET_IOMMU, to VFIO_TYPE1_IOMMU
device = fcntl.ioctl(group, 0x3b6a, function.encode() + b"\0")  # VFIO_GROUP_GET_DEVICE_FD
print("has it", end="", flush=True)
sys.stdin.read()
"#;

fn undo(function: &str) -> Result<Undo> {
    Ok(Undo {
        given: None,
        represented: false,
        agent: AgentId("vifd".into()),
        vif: "6d9bf3a1-0000-4000-8000-000000000001".parse()?,
        function: Some(function.parse()?),
        preserve: false,
        representor: Some("eth7".into()),
        hw_addr: None,
        active: None,
        settings: VfChange::to(VfSettings::default()),
        driver: None,
        association: None,
        netdev: None,
    })
}

#[test]
fn a_simulated_nic_is_followed_and_set() -> Result<()> {
    in_vm(|| {
        let scene = played(async |state| {
            let mut nics = Nics::spawn(NicsConfig::new(state))?;
            until(&nics, "a first state", |_| true).await?;
            script(
                r#"modprobe psample
                insmod "$VIFD_VM/netdevsim/stock/netdevsim.ko"
                echo '10 1' >/sys/bus/netdevsim/new_device
                echo 64 >/sys/kernel/debug/netdevsim/netdevsim10/max_vfs"#,
            )?;
            let seen = until(&nics, "the NIC and its netdev", |state| {
                nic(state, SIMULATED).is_some_and(|nic| nic.uplinks.len() == 1)
            });
            let seen = seen.await?;
            let device: Device = SIMULATED.parse()?;
            let uplink = seen.nics[&device].uplinks[0].clone();
            ensure!(seen.nics[&device].driver.as_deref() == Some("netdevsim") && !seen.nics[&device].is_switchdev());

            let count = |count| NicOp::SetVfCount { nic: SIMULATED.parse().unwrap(), count };
            let seen = done(&mut nics, count(1)).await?;
            ensure!(settings(&seen, SIMULATED, "pf0vf0").is_some() && seen.nics[&device].functions.len() == 1);
            nics.resync().await;
            println!("one function is read in {} us", nics.statistics().last_read_us);
            is_conflict(&mut nics, count(64)).await?;
            done(&mut nics, count(0)).await?;
            let seen = done(&mut nics, count(64)).await?;
            ensure!(seen.nics[&device].functions.len() == 64);
            nics.resync().await;
            println!("64 functions in legacy mode are read in {} us", nics.statistics().last_read_us);

            // What others set is seen by the kernel's word alone.
            let before = nics.statistics();
            let name = &uplink.name;
            script(&format!("ip link set {name} up; ip link set {name} vf 3 mac 02:11:22:33:44:55 vlan 7 qos 2"))?;
            let set = |state: &NicState| {
                settings(state, SIMULATED, "pf0vf3")
                    .is_some_and(|vf| vf.mac.is_some() && (vf.vlan.id, vf.vlan.qos) == (7, 2))
            };
            until(&nics, "settings that somebody changed", set).await?;
            ensure!(nics.statistics().resyncs == before.resyncs, "it took a resync");

            // Our own, with a guard.
            let vf = |index, name: &str| NicOp::SetVf {
                uplink: (index, name.to_owned()),
                vf: 3,
                change: VfChange {
                    mac: Some(Default::default()),
                    vlan: Some(Vlan { id: 0, ..Vlan::default() }),
                    ..VfChange::default()
                },
            };
            is_conflict(&mut nics, vf(uplink.index, "other")).await?;
            let seen = done(&mut nics, vf(uplink.index, name)).await?;
            let has = settings(&seen, SIMULATED, "pf0vf3").context("settings")?;
            ensure!((has.mac, has.vlan.id) == (None, 0), "{has:?}");

            // Somebody makes it switchdev: representors appear one by one.
            let before = nics.statistics();
            script(&format!("devlink dev eswitch set {SIMULATED} mode switchdev"))?;
            let seen = until(&nics, "64 representors", |state| representors(state).len() == 64).await?;
            ensure!(seen.nics[&device].is_switchdev());
            let after = nics.statistics();
            ensure!(after.resyncs == before.resyncs, "it took a resync");
            nics.resync().await;
            println!("64 representors took {} looks", after.reads - before.reads);
            println!("they are read in {} us", nics.statistics().last_read_us);

            // Nothing happens, and nothing is done.
            let quiet = nics.statistics();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let reads = nics.statistics().reads;
            ensure!(reads <= quiet.reads + 1, "{} looks without a cause", reads - quiet.reads);

            // A representor is renamed, and handed flows.
            let representor = seen.nics[&device].functions[&"pf0vf5".parse::<FunctionNumber>().unwrap()].clone();
            let port = representor.representor.netdev().context("the representor")?.clone();
            ensure!(port.tc_offload.is_some(), "{port:?}");
            script(&format!("ip link set {} name vf5rep", port.name))?;
            until(&nics, "the new name", |state| representors(state).contains(&"vf5rep".to_owned())).await?;
            let on = !port.tc_offload.unwrap_or(false);
            is_conflict(&mut nics, NicOp::SetTcOffload { index: port.index, name: port.name.clone(), on }).await?;
            let seen = done(&mut nics, NicOp::SetTcOffload { index: port.index, name: "vf5rep".into(), on }).await?;
            let function = &seen.nics[&device].functions[&"pf0vf5".parse::<FunctionNumber>().unwrap()];
            ensure!(function.representor.netdev().and_then(|port| port.tc_offload) == Some(on));

            let eswitch = |nic: &str, setting| NicOp::SetEswitch { nic: nic.parse().unwrap(), setting };
            is_conflict(&mut nics, eswitch("netdevsim/netdevsim99", EswitchSetting::Mode(EswitchMode::Legacy))).await?;
            refused(&mut nics, eswitch(SIMULATED, EswitchSetting::Encap(true)), "Operation not supported").await?;
            let seen = done(&mut nics, eswitch(SIMULATED, EswitchSetting::Mode(EswitchMode::Legacy))).await?;
            ensure!(!seen.nics[&device].is_switchdev() && representors(&seen).is_empty());
            let seen = done(&mut nics, eswitch(SIMULATED, EswitchSetting::Mode(EswitchMode::Switchdev))).await?;
            ensure!(representors(&seen).len() == 64, "as soon as it is done: {}", representors(&seen).len());

            // Notes outlive the agent.
            let note = undo("netdevsim/netdevsim10:pf0vf5")?;
            let seen = done(&mut nics, NicOp::Remember(Box::new(note.clone()))).await?;
            ensure!(*seen.undo[&note.vif] == note);
            drop(nics);
            let mut nics = Nics::spawn(NicsConfig::new(state))?;
            let seen = until(&nics, "a first state", |_| true).await?;
            ensure!(*seen.undo[&note.vif] == note && representors(&seen).len() == 64);
            let seen = done(&mut nics, NicOp::Forget(note.vif)).await?;
            ensure!(seen.undo.is_empty() && fs::read_dir(state.join("nics"))?.count() == 0);

            script("echo 10 >/sys/bus/netdevsim/del_device")?;
            until(&nics, "that it is gone", |state| nic(state, SIMULATED).is_none()).await?;
            Ok(())
        });
        let gone = script("echo 10 >/sys/bus/netdevsim/del_device 2>/dev/null || true; rmmod netdevsim");
        scene.and(gone.map(drop))
    })
}

#[test]
fn functions_on_the_pci_bus_are_made_set_and_bound() -> Result<()> {
    in_vm(|| {
        let scene = played(async |state| {
            let mut nics = Nics::spawn(NicsConfig::new(state))?;
            script("modprobe igb; modprobe vfio-pci; modprobe vfio_iommu_type1")?;
            let is_igb = |nic: &&Arc<Nic>| nic.driver.as_deref() == Some("igb") && !nic.uplinks.is_empty();
            let seen = until(&nics, "the igb", |state| state.nics.values().any(|nic| is_igb(&nic))).await?;
            let igb = seen.nics.values().find(is_igb).context("igb")?.clone();
            let (device, uplink) = (igb.device.clone(), igb.uplinks[0].clone());
            ensure!(igb.eswitch.is_none() && igb.vfs.is_some_and(|vfs| vfs.made == 0 && vfs.most == 7), "{igb:?}");
            // As on a host whose functions are for guests: no driver of the host's takes them.
            script(&format!("echo 0 >/sys/bus/pci/devices/{}/sriov_drivers_autoprobe", device.dev))?;

            // Somebody makes functions: seen by uevents.
            let before = nics.statistics();
            script(&format!("echo 3 >/sys/bus/pci/devices/{}/sriov_numvfs", device.dev))?;
            let all = |count: usize| {
                let device = device.clone();
                move |state: &NicState| {
                    let nic = &state.nics[&device];
                    nic.vfs.is_some_and(|vfs| vfs.made as usize == count)
                        && nic.functions.values().filter(|function| function.pci.is_some()).count() == count
                }
            };
            until(&nics, "three functions", all(3)).await?;
            ensure!(nics.statistics().resyncs == before.resyncs, "it took a resync");
            nics.resync().await;
            println!("three functions of igb are read in {} us", nics.statistics().last_read_us);

            let count = |count| NicOp::SetVfCount { nic: device.clone(), count };
            let seen = done(&mut nics, count(0)).await?;
            ensure!(all(0)(&seen) && seen.pci.values().all(|function| function.of.is_none()));
            let seen = done(&mut nics, count(2)).await?;
            ensure!(all(2)(&seen));
            refused(&mut nics, count(200), "and 200 are wanted").await?;

            let numbers: Vec<FunctionNumber> = seen.nics[&device].functions.keys().copied().collect();
            let second: PciAddress = seen.nics[&device].functions[&numbers[1]].pci.context("an address")?;
            ensure!(seen.pci[&second].of == Some((device.clone(), numbers[1])));
            let change = VfChange {
                mac: Some("02:11:22:33:44:51".parse()?),
                vlan: Some(Vlan { id: 100, ..Vlan::default() }),
                spoof_check: Some(false),
                ..VfChange::default()
            };
            let set = NicOp::SetVf { uplink: (uplink.index, uplink.name.clone()), vf: 1, change };
            let seen = done(&mut nics, set).await?;
            let has = seen.nics[&device].functions[&numbers[1]].settings.context("settings")?;
            ensure!(has.mac == change.mac && has.vlan.id == 100 && has.spoof_check == Some(false), "{has:?}");

            // To a guest and back.
            let bind = |driver: Option<&str>, driver_override: Option<&str>| NicOp::Bind {
                function: second,
                driver: driver.map(str::to_owned),
                driver_override: driver_override.map(str::to_owned),
            };
            let bound = |function: &PciFunction| (function.driver.clone(), function.driver_override.clone());
            let vfio = || Some("vfio-pci".to_owned());
            refused(&mut nics, bind(Some("nowhere"), Some("nowhere")), "its module is not loaded").await?;
            let seen = done(&mut nics, bind(Some("vfio-pci"), Some("vfio-pci"))).await?;
            ensure!(bound(&seen.pci[&second]) == (vfio(), vfio()), "{:?}", seen.pci[&second]);
            let group = seen.pci[&second].iommu_group.context("an IOMMU group")?;
            let guest = OpenOptions::new().read(true).write(true).open(format!("/dev/vfio/{group}"))?;
            refused(&mut nics, bind(None, None), "a guest still has it").await?;
            refused(&mut nics, count(0), "a guest still has it").await?;
            ensure!(now(&nics)?.pci[&second].driver == vfio(), "it was taken from a guest");
            drop(guest);
            let seen = done(&mut nics, bind(None, None)).await?;
            ensure!(bound(&seen.pci[&second]) == (None, None), "{:?}", seen.pci[&second]);
            refused(&mut nics, NicOp::ProbeAgain { function: second }, "no driver takes").await?;
            script("modprobe igbvf")?;
            for op in [bind(Some("igbvf"), None), NicOp::ProbeAgain { function: second }] {
                let seen = done(&mut nics, op).await?;
                ensure!(bound(&seen.pci[&second]) == (Some("igbvf".to_owned()), None), "{:?}", seen.pci[&second]);
            }
            let netdev = |state: &NicState| !state.pci[&second].netdevs.is_empty();
            until(&nics, "the function's netdev", netdev).await?;

            // A guest that cannot be seen to have it: the kernel waits for the guest, and nobody else waits for the kernel.
            done(&mut nics, bind(Some("vfio-pci"), Some("vfio-pci"))).await?;
            drop(nics);
            let mut nics = Nics::spawn(NicsConfig { vfio: "/nowhere".into(), ..NicsConfig::new(state) })?;
            until(&nics, "vfio-pci", |state| state.pci[&second].driver == vfio()).await?;
            let mut hypervisor = Command::new("python3");
            hypervisor.args(["-c", GUEST, &group.to_string(), &second.to_string()]);
            let mut guest = hypervisor.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut said = [0; 6];
            guest.stdout.take().context("stdout")?.read_exact(&mut said)?;
            let begun = Instant::now();
            refused(&mut nics, bind(None, None), "a guest still has a function").await?;
            let waited = begun.elapsed();
            refused(&mut nics, bind(None, None), "was begun before and is not done yet").await?;
            let change = VfChange { vlan: Some(Vlan { id: 101, ..Vlan::default() }), ..VfChange::default() };
            let seen =
                done(&mut nics, NicOp::SetVf { uplink: (uplink.index, uplink.name.clone()), vf: 0, change }).await?;
            let has = seen.nics[&device].functions[&numbers[0]].settings.context("settings")?;
            ensure!(has.vlan.id == 101 && seen.pci[&second].driver == vfio(), "{has:?}");
            println!("a guest was waited for {waited:?}, and after that {:?} for the rest", begun.elapsed() - waited);
            drop(guest.stdin.take());
            guest.wait()?;
            let free = until(&nics, "that the guest let go", |state| state.pci[&second].driver.is_none()).await?;
            ensure!(free.nics[&device].functions.len() == 2);

            let seen = done(&mut nics, count(0)).await?;
            ensure!(all(0)(&seen));
            is_conflict(&mut nics, bind(None, None)).await?;
            Ok(())
        });
        let gone =
            script("for nic in /sys/bus/pci/drivers/igb/0*; do echo 0 >$nic/sriov_numvfs; done; rmmod igbvf igb");
        scene.and(gone.map(drop))
    })
}
