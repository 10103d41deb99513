//! What is in hardware and what is not: Open vSwitch's kernel datapath over a netdevsim whose ports are representors, its
//! flows as the agent reads them beside what tc and Open vSwitch themselves say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use vifd::config::Config;
use vifd::model::{Bridge, Interface, Link, LinkKind, LinkState, OvsState, View, VifId};
use vifd::offload::{Expectation, Expectations, Proof, Watch};
use vifd::reconciler::Control;
use vifd::status::Truth;
use vifd_integration::lab::{Namespace, Ovs, Switch, in_vm};

use crate::nics::script;

/// Ports of the bridge: two representors, and two veths, which are in no NIC.
const PORTS: [&str; 4] = ["rep0", "rep1", "p2", "p3"];

/// The NIC, in the namespace of Open vSwitch.
const NIC: &str = r#"
    modprobe psample
    insmod "$VIFD_VM/netdevsim/$FORM/netdevsim.ko"
    echo '10 1' >/sys/bus/netdevsim/new_device
    nic=/sys/bus/netdevsim/devices/netdevsim10
    echo 2 >$nic/sriov_numvfs
    devlink dev eswitch set netdevsim/netdevsim10 mode switchdev
    for link in $nic/net/*; do
      case $(<$link/phys_port_name) in
      pf0vf*) number=$(<$link/phys_port_name); ip link set ${link##*/} name rep${number#pf0vf} ;;
      esac
    done
    for port in rep0 rep1; do
      ethtool -K $port hw-tc-offload on
      ip link set $port up
    done
"#;

/// The NIC of a scene, which goes with it: the next one may want it in another form. It outlives the namespace that it is
/// in, which hands it back.
pub(crate) struct Nic;

impl Drop for Nic {
    fn drop(&mut self) {
        if let Err(error) = script("echo 10 >/sys/bus/netdevsim/del_device; rmmod netdevsim") {
            eprintln!("the NIC stays: {error:#}");
        }
    }
}

/// The far side of the ports, one namespace each: 10.0.0.1 to 4 with 02:00:00:00:00:01 to 04, who know each other. What
/// those behind the representors send is what representors receive.
fn stations(ovs: &Ovs) -> Result<Vec<Namespace>> {
    let host = ovs.namespace();
    let mut stations = Vec::new();
    for (number, port) in (1..).zip(PORTS) {
        let station = Namespace::new()?;
        let here = if port.starts_with("rep") { format!("w{number}") } else { port.to_owned() };
        let mac = format!("02:00:00:00:00:{number:02x}");
        host.veth(&here, &station, "eth0", Some(&mac), Some(&format!("10.0.0.{number}/24")))?;
        if here != port {
            let queue = format!("qdisc add dev {here} ingress");
            host.run("tc", queue.split(' '))?;
            let filter = format!("filter add dev {here} ingress matchall action mirred ingress redirect dev {port}");
            host.run("tc", filter.split(' '))?;
        }
        for other in 1..=PORTS.len() {
            let neighbour = format!("neigh replace 10.0.0.{other} lladdr 02:00:00:00:00:{other:02x} dev eth0");
            station.run("ip", neighbour.split(' '))?;
        }
        stations.push(station);
    }
    Ok(stations)
}

/// An Open vSwitch that offloads, and whose flows stay for a while.
pub(crate) fn offloading() -> Result<Ovs> {
    let mut ovs = Ovs::start(Switch::Kernel)?;
    // It has to know before it looks at the first port.
    ovs.stop_vswitchd(nix::sys::signal::Signal::SIGTERM)?;
    let settings = ["hw-offload=true", "tc-policy=none", "max-idle=100000"];
    let settings = settings.map(|setting| format!("other_config:{setting}"));
    ovs.vsctl(["--no-wait", "set", "Open_vSwitch", "."].into_iter().chain(settings.iter().map(String::as_str)))?;
    ovs.start_vswitchd()?;
    Ok(ovs)
}

/// A bridge on which everybody is known.
fn switch(form: &str) -> Result<(Nic, Ovs, Vec<Namespace>)> {
    let ovs = offloading()?;
    let nic = Nic;
    ovs.namespace().run("bash", ["-euc", &format!("FORM={form}\n{NIC}")])?;
    let stations = stations(&ovs)?;
    ovs.vsctl(["add-br", "br0", "--", "set", "bridge", "br0", "fail-mode=secure"])?;
    for (number, port) in (1..).zip(PORTS) {
        ovs.vsctl(["add-port", "br0", port])?;
        ovs.ofctl([
            "add-flow",
            "br0",
            &format!("priority=1,dl_dst=02:00:00:00:00:{number:02x},actions=output:{number}"),
        ])?;
    }
    ovs.ofctl(["add-flow", "br0", "priority=9,in_port=1,dl_dst=ff:ff:ff:ff:ff:ff,actions=output:2,output:3"])?;
    Ok((nic, ovs, stations))
}

/// Packets from station to station; nobody has to answer.
fn send(stations: &[Namespace]) {
    for (from, to) in [(0, "10.0.0.2"), (0, "10.0.0.3"), (1, "10.0.0.1"), (2, "10.0.0.1"), (2, "10.0.0.4")] {
        // It fails where nobody answers.
        let _ = stations[from].run("ping", ["-q", "-c", "1", "-W", "0.1", to]);
    }
    let _ = stations[0].run("ping", ["-q", "-b", "-c", "1", "-W", "0.1", "10.0.0.255"]);
}

fn id(number: u32) -> VifId {
    format!("{number:08x}-0000-4000-8000-000000000000").parse().unwrap_or_else(|_| unreachable!("a UUID"))
}

/// What the agent sees of VIFs 0 and 1, behind the representors, when it looks by itself.
fn proofs(ovs: &Ovs, tc_offload: bool) -> Result<BTreeMap<VifId, Arc<Proof>>> {
    let expectation = |number: usize| Expectation {
        port: PORTS[number].to_owned(),
        bridge: "br0".to_owned(),
        tc_offload: Some(tc_offload),
        switchdev: Some(true),
    };
    let expected: Expectations = [(id(0), expectation(0)), (id(1), expectation(1))].into();
    let other_config = [("hw-offload", "true")].into_iter().collect();
    let mut state = OvsState { vswitchd_alive: true, other_config, ..OvsState::default() };
    state.bridges.insert("br0".into(), Bridge { name: "br0".into(), ..Bridge::default() }.into());
    let mut links = LinkState::default();
    for port in PORTS {
        let interface = Interface { name: port.into(), ..Interface::default() };
        state.interfaces.insert(port.into(), interface.into());
        let kind = if port.starts_with('p') { LinkKind::Veth } else { LinkKind::Other("netdevsim".into()) };
        links.links.insert(port.to_owned(), Link::new(1, port, kind).into());
    }
    let control = Control {
        settings: Config::default().settings()?,
        enforce: true,
        resync: None,
        look_every: Some(Duration::from_secs(60)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (_expected, expected) = watch::channel(Arc::new(expected));
        let (_state, state) = watch::channel(View::Ready(Arc::new(state)));
        let (_links, links) = watch::channel(View::Ready(Arc::new(links)));
        let (_control, control) = watch::channel(control);
        let rundir = ovs.run_directory();
        let mut seen = Watch { expected, ovs: state, links, control, rundir }.spawn();
        let found = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|seen| seen.len() == 2)).await;
        let found = found.context("it never looked")??;
        Ok(found.as_ref().clone())
    })
}

/// Lines of a dump in which a port is where packets come from or go to.
pub(crate) fn of(dump: &str, port: &str) -> u64 {
    let named = |line: &&str| line.split(['(', ')', ',', ':', ' ']).any(|word| word == port);
    dump.lines().filter(named).count() as u64
}

/// What the agent sees, and the dumps of all flows and of those in hardware from the same time: flows come and go, and a look
/// between two dumps that have the same flows has seen just those.
fn looked(ovs: &Ovs, tc_offload: bool) -> Result<(BTreeMap<VifId, Arc<Proof>>, String, String)> {
    let dump = |kind: &str| ovs.appctl(["dpctl/dump-flows", "-m", "--names", "system@ovs-system", kind]);
    let named = |dump: &str| -> BTreeSet<String> {
        dump.lines().filter_map(|line| line.split(',').next().map(str::to_owned)).collect()
    };
    for _ in 0..8 {
        let (all, hardware) = (dump("type=all")?, dump("type=offloaded")?);
        let found = proofs(ovs, tc_offload)?;
        if named(&all) == named(&dump("type=all")?) && named(&hardware) == named(&dump("type=offloaded")?) {
            return Ok((found, all, hardware));
        }
    }
    anyhow::bail!("the flows of the datapath never stood still")
}

/// How many filters a port has in tc, and how many of them are in hardware.
pub(crate) fn filters(ovs: &Ovs, port: &str) -> Result<(usize, usize)> {
    let text = ovs.namespace().run("tc", ["filter", "show", "dev", port, "ingress"])?;
    let words = |word: &str| text.split_whitespace().filter(|found| *found == word).count();
    Ok((words("in_hw") + words("not_in_hw"), words("in_hw")))
}

fn told(proofs: &BTreeMap<VifId, Arc<Proof>>, number: u32) -> Result<(&Proof, u64, u64)> {
    let proof = proofs.get(&id(number)).context("no proof")?;
    let counts = proof.counts.as_ref().with_context(|| proof.message.clone())?;
    Ok((proof, counts.offloaded_flows, counts.software_flows))
}

#[test]
fn what_is_in_hardware_is_counted_as_tc_and_open_vswitch_count_it() -> Result<()> {
    in_vm(|| {
        let (_nic, ovs, stations) = switch("flower")?;
        send(&stations);
        let (found, all, hardware) = looked(&ovs, true)?;
        for (number, port) in [(0, "rep0"), (1, "rep1")] {
            let (proof, offloaded, software) = told(&found, number)?;
            assert_eq!(offloaded, of(&hardware, port), "{port}: {proof:?}\n{all}");
            assert_eq!(offloaded + software, of(&all, port), "{port}: {proof:?}\n{all}");
            assert_eq!((proof.truth, proof.reason), (Truth::True, "InHardware"), "{}\n{all}", proof.message);
            ensure!(offloaded > 0, "nothing in hardware:\n{all}");
        }
        // Packets of p2 to rep0 cannot be.
        let (proof, _, software) = told(&found, 0)?;
        assert!(software > 0 && proof.message.contains("p2 is in no NIC (veth)"), "{}\n{all}", proof.message);
        let in_hardware: usize = PORTS.iter().map(|port| Ok(filters(&ovs, port)?.1)).sum::<Result<usize>>()?;
        assert_eq!(in_hardware, hardware.lines().count(), "{hardware}");

        // What its netdev may not offload is in tc and not in hardware.
        ovs.namespace().run("ethtool", ["-K", "rep0", "hw-tc-offload", "off"])?;
        ovs.namespace().run("ethtool", ["-K", "rep1", "hw-tc-offload", "off"])?;
        ovs.appctl(["revalidator/purge"])?;
        send(&stations);
        let found = proofs(&ovs, false)?;
        let (proof, offloaded, _) = told(&found, 0)?;
        assert_eq!((proof.truth, proof.reason, offloaded), (Truth::False, "HwTcOffloadOff", 0), "{}", proof.message);
        let (all, hardware) = filters(&ovs, "rep0")?;
        assert!(all > 0 && hardware == 0, "{hardware} of {all} filters of rep0 are in hardware");
        Ok(())
    })
}

#[test]
fn a_nic_that_takes_no_flows_is_said_to_take_none() -> Result<()> {
    in_vm(|| {
        let (_nic, ovs, stations) = switch("stock")?;
        send(&stations);
        let (found, all, _) = looked(&ovs, true)?;
        for (number, port) in [(0, "rep0"), (1, "rep1")] {
            let (proof, offloaded, software) = told(&found, number)?;
            assert_eq!((offloaded, software), (0, of(&all, port)), "{port}\n{all}");
            assert_eq!((proof.truth, proof.reason), (Truth::False, "RefusedByNic"), "{}\n{all}", proof.message);
            let (all, hardware) = filters(&ovs, port)?;
            assert!(all > 0 && hardware == 0, "{hardware} of {all} filters of {port} are in hardware");
        }
        Ok(())
    })
}
