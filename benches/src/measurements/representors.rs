//! Representors from their appearance until flows are in hardware, in the VM: on Open vSwitch's kernel datapath and a netdevsim.

use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devlink::{Device, Devlink, EswitchChange, EswitchMode, Ethtool, HW_TC_OFFLOAD, LinkRef};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use vifd_integration::lab::{Ovs, PacketSocket, Record, Switch, Vifd, frame};

use super::stage::Stage;
use crate::finding::times;
use crate::hand::heard::{Ears, Told};
use crate::hand::tap::Kernel;
use crate::hand::{BRIDGE, Hand};
use crate::host::{self, Watch};
use crate::timing::quantile;
use crate::{Chart, Finding, Role, Scale, Unit, elsewhere, rounds};

const FLOOR: &str = "floor";
const VIFD: &str = "vifd";

/// Nothing that is waited for takes longer; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between frames, until the flow that they ask for is in hardware.
const PAUSE: Duration = Duration::from_millis(2);

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    elsewhere::in_vm("representors", stage.scale, Duration::from_secs(900))
}

/// The part in the VM.
pub(super) fn part(scale: Scale) -> Result<Finding> {
    let mut finding = Finding::new(
        "representors",
        "Representors: from their appearance into hardware",
        "In the VM, which is ten times slower than the machine: ratios count. A netdevsim that takes filters, under Open vSwitch's
         kernel datapath with `hw-offload`. One: a NIC with one function is set into switchdev mode, and the clock starts when
         the kernel tells of the representor's link; it is read when the port has its `ofport`, and when the kernel tells that the
         first filter of a flow to it is in hardware, for which a frame is sent every two milliseconds from the `ofport`
         on. vifd has been given the VIF before, which waits for its representor. The floor waits for the same message, sets the
         link up with its MTU and `hw-tc-offload` on, and sends one transaction that is made already. After each the NIC goes
         back to legacy mode. All: a NIC with 64 functions, from the order to have switchdev mode (vifd: its configuration, read
         anew by a signal; the floor: by devlink) until every VIF is ready and has its port; then a flow for each is written, which is
         left out, and from the first frame on it is measured until 64 filters are in hardware: that is Open vSwitch's and the
         kernel's time alone. The floor does what it does for one with each, and sends one transaction for all.",
    );
    script("modprobe psample\ninsmod \"$VIFD_VM/netdevsim/flower/netdevsim.ko\"")?;
    let (one, notes) = singly(scale).context("one after another")?;
    let all = together(scale).context("all at once")?;
    for chart in [&one, &all] {
        for x in chart.sizes() {
            let above = chart.above(VIFD, FLOOR, x);
            finding.notes.push(format!(
                "{}, {x}: vifd has {} more than the floor.",
                chart.title,
                Unit::Seconds.show(above)
            ));
        }
    }
    finding.notes.extend(notes);
    let ratio = all.ratio(VIFD, FLOOR, 1.0);
    finding.at_most("64 functions, all ports: at most 2 × the floor", ratio, 2.0, times);
    finding.charts = vec![one, all];
    Ok(finding)
}

/// Runs a script of bash in the network namespace of the calling thread.
pub(super) fn script(text: &str) -> Result<String> {
    let output = Command::new("bash").args(["-euc", text]).output().context("bash")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

/// A NIC in legacy mode, its uplink a port of the bridge, and a device from which frames get to it.
struct Scene<'a> {
    ovs: &'a Ovs,
    hand: Hand<'a>,
    device: Device,
    runtime: Runtime,
    devlink: Devlink,
    ethtool: Ethtool,
    kernel: Kernel,
    ears: Ears,
    source: PacketSocket,
    /// Index of the uplink.
    uplink: u32,
}

/// What is measured, in seconds.
struct Sample {
    ports: f64,
    flows: f64,
}

impl Scene<'_> {
    /// To be called on a thread of the switch's namespace.
    fn new(ovs: &Ovs, number: u32, functions: u32) -> Result<Scene<'_>> {
        let made = format!(
            "echo '{number} 1' >/sys/bus/netdevsim/new_device
            nic=netdevsim{number}
            echo {functions} >/sys/kernel/debug/netdevsim/$nic/max_vfs
            echo {functions} >/sys/bus/netdevsim/devices/$nic/sriov_numvfs
            uplink=$(devlink port show | sed -n \"s#^netdevsim/$nic/0: .* netdev \\([^ ]*\\) .*#\\1#p\")
            ethtool -K $uplink hw-tc-offload on
            ip link set $uplink up
            ip link add gen{number} type veth peer name in{number}
            ip link set gen{number} up
            ip link set in{number} up
            tc qdisc add dev in{number} ingress
            tc filter add dev in{number} ingress matchall action mirred ingress redirect dev $uplink
            echo $uplink"
        );
        let uplink = script(&made)?.trim().to_owned();
        ovs.vsctl(["add-port", BRIDGE, &uplink])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (devlink, ethtool) = runtime.block_on(async { anyhow::Ok((Devlink::open()?, Ethtool::open()?)) })?;
        Ok(Scene {
            ovs,
            hand: Hand::on(ovs)?,
            device: format!("netdevsim/netdevsim{number}").parse()?,
            runtime,
            devlink,
            ethtool,
            kernel: Kernel::open()?,
            ears: Ears::open()?,
            source: PacketSocket::open(ovs.namespace(), &format!("gen{number}"))?,
            uplink: nix::net::if_::if_nametoindex(uplink.as_str())?,
        })
    }

    fn set_mode(&self, mode: EswitchMode) -> Result<()> {
        let change = EswitchChange { mode: Some(mode), ..EswitchChange::default() };
        Ok(self.runtime.block_on(self.devlink.set_eswitch(&self.device, change))?)
    }

    /// Waits for the links of so many representors, and has `seen` done with each at once.
    fn appear(
        &mut self,
        count: usize,
        mut seen: impl FnMut(&mut Self, u32, &str) -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut there: Vec<(u32, String)> = Vec::new();
        while there.len() < count {
            let told = self.ears.next(PATIENCE)?.context("no representor appeared")?;
            if let Told::Link { index, name, port: Some(port) } = told
                && port.starts_with("pf0vf")
                && there.iter().all(|(known, _)| *known != index)
            {
                seen(self, index, &name)?;
                there.push((index, name));
            }
        }
        Ok(there.into_iter().map(|(_, name)| name).collect())
    }

    /// What the floor does with a representor.
    fn dress(&mut self, index: u32, _name: &str) -> Result<()> {
        self.kernel.set_up(index, 1450)?;
        self.runtime.block_on(self.ethtool.set_feature(&LinkRef::Index(index), HW_TC_OFFLOAD, true))?;
        Ok(())
    }

    /// Seconds from now until as many flows are in hardware, for each of which there is a frame.
    fn until_in_hardware(&mut self, frames: &[Vec<u8>]) -> Result<f64> {
        self.ears.forget()?;
        let start = Instant::now();
        let mut done = vec![false; frames.len()];
        loop {
            for (frame, _) in frames.iter().zip(&done).filter(|(_, done)| !**done) {
                self.source.send(frame)?;
            }
            while let Some(told) = self.ears.next(PAUSE)? {
                if let Told::Filter { index, to: Some(to), in_hardware: true } = told
                    && index == self.uplink
                    && let Some(at) = frames.iter().position(|frame| frame[..6] == to)
                {
                    done[at] = true;
                    if done.iter().all(|done| *done) {
                        return Ok(start.elapsed().as_secs_f64());
                    }
                }
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "no flow in hardware: {}\n{}",
                    self.ovs.appctl(["dpctl/dump-flows", "-m", "--names", "system@ovs-system"])?,
                    script("tc -s filter show dev $(ls /sys/class/net | head -1) ingress; ip -s link")?
                );
            }
        }
    }

    /// Back to legacy mode, with nothing left of the run before.
    fn reset(&mut self) -> Result<()> {
        self.set_mode(EswitchMode::Legacy)?;
        self.hand.catch_up()?;
        self.ovs.appctl(["revalidator/purge"])?;
        self.ears.forget()
    }
}

/// A switch that hands flows to hardware, with a bridge from which nothing goes to the host.
fn switch() -> Result<Ovs> {
    let mut ovs = Ovs::start(Switch::Kernel)?;
    // It has to know before it looks at the first port.
    ovs.stop_vswitchd(Signal::SIGTERM)?;
    let settings = ["other_config:hw-offload=true", "other_config:tc-policy=none", "other_config:max-idle=100000"];
    ovs.vsctl(["--no-wait", "set", "Open_vSwitch", "."].into_iter().chain(settings))?;
    ovs.start_vswitchd()?;
    ovs.vsctl(["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "fail-mode=secure"])?;
    Ok(ovs)
}

/// The VIF of a function of a NIC.
fn record(number: u32, function: u32, vf: u32) -> Result<Record> {
    let address = format!("netdevsim/netdevsim{number}:pf0vf{vf}");
    let mut record = Record::fixture("hostdevice-offload")?.numbered(function).with("dev_address", address.clone());
    // Its name stays: the floor gives it none either.
    let path = "/vif/versioned_object.data/port_profile/versioned_object.data/datapath_offload/versioned_object.data";
    let offload = record.0.pointer_mut(path).context("what is offloaded")?;
    offload["representor_name"] = json!("");
    offload["representor_address"] = json!(address);
    Ok(record)
}

/// A frame to the guest of a function.
fn to_guest(number: u32) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let macs = ([2, 0, 0, 0, 0, 1], [2, 0, 1, a, b, c]);
    let ip = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
    frame::udp(macs, (ip(1), 7), (ip(2), 7), b"measured")
}

fn singly(scale: Scale) -> Result<(Chart, Vec<String>)> {
    let ovs = switch()?;
    let mut vifd = host::vifd(&ovs)?;
    vifd.start()?;
    let turns = scale.pick(64, 5);
    let samples: [Vec<Sample>; 2] = ovs.namespace().enter(|| {
        let mut scene = Scene::new(&ovs, 10, 1)?;
        ovs.ofctl(["mod-port", BRIDGE, BRIDGE, "no-forward"])?;
        ovs.ofctl(["add-flow", BRIDGE, "priority=1,dl_dst=02:00:01:00:00:00,actions=all"])?;
        rounds(turns, |side, round| {
            if side == 0 {
                one_by_hand(&mut scene, &vifd)
            } else {
                one_by_vifd(&mut scene, &mut vifd, u32::try_from(round)?)
            }
        })
    })?;
    // 1 and 2 stand for the two moments.
    let mut chart = Chart::new("representors-one", "A representor: port (1), in hardware (2)", "until", Unit::Seconds);
    let mut words = Vec::new();
    for ((who, role), samples) in [(FLOOR, Role::Floor), (VIFD, Role::Ours)].into_iter().zip(samples) {
        let moments = [("port", 1.0), ("in hardware", 2.0)];
        for (what, x) in moments {
            let taken: Vec<f64> =
                samples.iter().map(|sample| if x < 2.0 { sample.ports } else { sample.ports + sample.flows }).collect();
            let [half, most] = [0.5, 0.99].map(|q| Unit::Seconds.show(quantile(&taken, q)));
            words.push(format!("{who}, {what}: p50 {half}, p99 {most}"));
            chart.add(who, role, x, taken);
        }
    }
    Ok((chart, vec![format!("Of {turns}: {}.", words.join("; "))]))
}

fn one_by_hand(scene: &mut Scene<'_>, vifd: &Vifd) -> Result<Sample> {
    vifd.signal(Signal::SIGSTOP)?;
    let sample = switched(scene, |scene, _| {
        let mut start = None;
        let mut names = scene.appear(1, |scene, index, name| {
            start = Some(Instant::now());
            scene.dress(index, name)
        })?;
        let name = names.pop().context("its name")?;
        let record = Record::fixture("openvswitch")?.numbered(9999).with("vif_name", name.clone());
        scene.hand.put_back(std::slice::from_ref(&record))?;
        let ports = start.context("the start")?.elapsed().as_secs_f64();
        let flows = scene.until_in_hardware(&[to_guest(0)])?;
        let rows = scene.hand.look("Port", "name", &name, &["_uuid"])?;
        scene.hand.remove(&rows.first().context("its port")?["_uuid"])?;
        Ok(Sample { ports, flows })
    });
    scene.reset()?;
    vifd.signal(Signal::SIGCONT)?;
    settled(vifd)?;
    sample
}

/// Until vifd has taken in what happened meanwhile.
fn settled(vifd: &Vifd) -> Result<()> {
    vifd.api("GET", "/v1/status", None)?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

fn one_by_vifd(scene: &mut Scene<'_>, vifd: &mut Vifd, round: u32) -> Result<Sample> {
    let record = record(10, round, 0)?;
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "waiting")?;
    settled(vifd)?;
    scene.hand.drain()?;
    let sample = switched(scene, |scene, _| {
        let mut start = None;
        let names = scene.appear(1, |_, _, _| {
            start = Some(Instant::now());
            Ok(())
        })?;
        let named: Vec<Record> = names.iter().map(|name| record.clone().with("vif_name", name.clone())).collect();
        scene.hand.until_usable(&named)?;
        let ports = start.context("the start")?.elapsed().as_secs_f64();
        let flows = scene.until_in_hardware(&[to_guest(0)])?;
        Ok(Sample { ports, flows })
    })
    .with_context(|| format!("vifd says {:?}", vifd.status(&record.id())))?;
    vifd.wait_for(&record.id(), "ready")?;
    vifd.remove(&record)?;
    vifd.wait_gone(&record.id())?;
    scene.reset()?;
    settled(vifd)?;
    Ok(sample)
}

/// Sets the NIC into switchdev mode from another thread, for `work` to hear what comes of it while it goes on.
fn switched<T>(scene: &mut Scene<'_>, work: impl FnOnce(&mut Scene<'_>, Instant) -> Result<T>) -> Result<T> {
    scene.ears.forget()?;
    let device = scene.device.clone();
    let (ready, go) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    std::thread::scope(|scope| {
        // A thread is in the network namespace of the one that starts it.
        let setter = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let devlink = Devlink::open()?;
                ready.0.send(())?;
                go.1.recv()?;
                let mode = EswitchChange { mode: Some(EswitchMode::Switchdev), ..EswitchChange::default() };
                anyhow::Ok(devlink.set_eswitch(&device, mode).await?)
            })
        });
        ready.1.recv()?;
        let start = Instant::now();
        go.0.send(())?;
        let done = work(scene, start);
        setter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        done
    })
}

const TOGETHER: u32 = 64;

fn together(scale: Scale) -> Result<Chart> {
    let functions = scale.pick(TOGETHER, 8);
    let ovs = switch()?;
    let mut vifd = host::vifd(&ovs)?;
    vifd.start()?;
    // A directory from which everything has gone would not be believed.
    vifd.put(&Record::fixture("openvswitch")?.numbered(99_999))?;
    let records: Vec<Record> = (0..functions).map(|vf| record(11, vf, vf)).collect::<Result<_>>()?;
    let samples: [Vec<Sample>; 2] = ovs.namespace().enter(|| {
        let mut scene = Scene::new(&ovs, 11, functions)?;
        rounds(scale.pick(3, 1), |side, _| {
            if side == 0 {
                all_by_hand(&mut scene, &vifd, functions)
            } else {
                all_by_vifd(&mut scene, &mut vifd, &records)
            }
        })
    })?;
    let mut chart = Chart::new(
        "representors-all",
        &format!("{functions} functions from legacy mode: ports (1), in hardware (2)"),
        "until",
        Unit::Seconds,
    );
    for ((who, role), samples) in [(FLOOR, Role::Floor), (VIFD, Role::Ours)].into_iter().zip(samples) {
        chart.add(who, role, 1.0, samples.iter().map(|sample| sample.ports).collect());
        chart.add(who, role, 2.0, samples.iter().map(|sample| sample.ports + sample.flows).collect());
    }
    Ok(chart)
}

/// Writes a flow to each port, and has a frame go there.
fn all_flows(scene: &mut Scene<'_>, functions: u32) -> Result<f64> {
    let rows = scene.ovs.rows("Interface")?;
    let mut ports: Vec<i64> = rows.iter().filter_map(|row| row["ofport"].as_i64()).filter(|port| *port > 0).collect();
    ports.sort_unstable();
    // The uplink was first, and the bridge's own is beyond all of these.
    let ports: Vec<i64> = ports.into_iter().filter(|port| *port < 60_000).skip(1).collect();
    ensure!(ports.len() == functions as usize, "{} ports", ports.len());
    let mut flows = String::new();
    for (number, port) in (0..functions).zip(ports) {
        let to: Vec<String> = to_guest(number)[..6].iter().map(|octet| format!("{octet:02x}")).collect();
        flows += &format!("priority=2,dl_dst={},actions=output:{port}\n", to.join(":"));
    }
    let file = scene.ovs.run_directory().join("flows");
    std::fs::write(&file, flows)?;
    scene.ovs.ofctl(["--bundle", "add-flows", BRIDGE, &file.to_string_lossy()])?;
    let frames: Vec<Vec<u8>> = (0..functions).map(to_guest).collect();
    let took = scene.until_in_hardware(&frames)?;
    scene.ovs.ofctl(["del-flows", BRIDGE])?;
    Ok(took)
}

fn all_by_hand(scene: &mut Scene<'_>, vifd: &Vifd, functions: u32) -> Result<Sample> {
    vifd.signal(Signal::SIGSTOP)?;
    let sample = switched(scene, |scene, start| {
        let names = scene.appear(functions as usize, Scene::dress)?;
        let one = Record::fixture("openvswitch")?;
        let records: Vec<Record> = (9000..)
            .zip(&names)
            .map(|(number, name)| one.clone().numbered(number).with("vif_name", name.clone()))
            .collect();
        scene.hand.put_back(&records)?;
        let ports = start.elapsed().as_secs_f64();
        let flows = all_flows(scene, functions)?;
        for name in &names {
            let rows = scene.hand.look("Port", "name", name, &["_uuid"])?;
            scene.hand.remove(&rows.first().context("its port")?["_uuid"])?;
        }
        Ok(Sample { ports, flows })
    });
    scene.reset()?;
    vifd.signal(Signal::SIGCONT)?;
    settled(vifd)?;
    sample
}

fn all_by_vifd(scene: &mut Scene<'_>, vifd: &mut Vifd, records: &[Record]) -> Result<Sample> {
    for record in records {
        vifd.put(record)?;
    }
    for record in records {
        vifd.wait_for(&record.id(), "waiting")?;
    }
    settled(vifd)?;
    let mut watch = Watch::on(vifd)?;
    watch.listed()?;
    vifd.config.more = format!("[[nic]]\ndevice = \"{}\"\neswitch = \"switchdev\"\n", scene.device);
    vifd.write_config()?;
    let start = Instant::now();
    vifd.signal(Signal::SIGHUP)?;
    watch.until_ready(records.len())?;
    let ports = start.elapsed().as_secs_f64();
    let flows = all_flows(scene, u32::try_from(records.len())?)?;
    vifd.config.more = String::new();
    vifd.write_config()?;
    vifd.signal(Signal::SIGHUP)?;
    for record in records {
        vifd.remove(record)?;
    }
    watch.until_left(1)?;
    scene.reset()?;
    settled(vifd)?;
    Ok(Sample { ports, flows })
}
