//! What a bridge does whose flows are vifd's: guests on real ovs-vswitchd that reach each other by these flows and by
//! nothing else, whatever restarts and whoever lays hands on it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vifd_integration::lab::{Config, Guest, Ovs, Switch, Vifd, guest_record, native_record};

const MANAGED: &str = "[[bridge]]\nname = \"br-int\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n";

/// Two guests on one network and one on another, all ready.
struct Scene {
    ovs: Ovs,
    vifd: Vifd,
    a: Guest,
    b: Guest,
    stranger: Guest,
}

fn scene() -> Result<Scene> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config = Config { more: MANAGED.into(), ..Config::default() };
    vifd.start()?;
    let a = Guest::plug(&ovs, &mut vifd, guest_record(11, 1)?)?;
    let b = Guest::plug(&ovs, &mut vifd, guest_record(12, 1)?)?;
    let stranger = Guest::plug(&ovs, &mut vifd, guest_record(13, 2)?)?;
    Ok(Scene { ovs, vifd, a, b, stranger })
}

impl Scene {
    /// The flows of the bridge without what is counted, sorted.
    fn flows(&self) -> Result<Vec<String>> {
        flows(&self.ovs)
    }

    fn writes(&self) -> Result<f64> {
        self.vifd.metric("vifd_writes_total", "backend=\"openflow\"")
    }

    /// Waits until the flows are these again.
    fn until_flows_are(&mut self, what: &str, wanted: &[String]) -> Result<Duration> {
        let start = Instant::now();
        let ovs = &self.ovs;
        self.vifd.until(what, |_| Ok((flows(ovs).unwrap_or_default() == wanted).then_some(())))?;
        Ok(start.elapsed())
    }
}

fn flows(ovs: &Ovs) -> Result<Vec<String>> {
    let socket = format!("unix:{}", ovs.run_directory().join("br-int.mgmt").display());
    let text = ovs.ofctl(["-O", "OpenFlow14", "--no-stats", "dump-flows", &socket])?;
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.retain(|line| line.contains("actions="));
    lines.sort();
    Ok(lines)
}

fn ofctl(ovs: &Ovs, command: &str, what: &str) -> Result<()> {
    let socket = format!("unix:{}", ovs.run_directory().join("br-int.mgmt").display());
    ovs.ofctl(["-O", "OpenFlow14", command, &socket, what]).map(drop)
}

#[test]
fn guests_of_one_network_reach_each_other_and_restarts_cost_nothing() -> Result<()> {
    let mut scene = scene()?;
    let row = scene.ovs.row("Bridge", "br-int")?.context("no bridge")?;
    assert_eq!(row["fail_mode"], "secure");
    assert_eq!(row["other_config"]["disable-in-band"], "true");
    assert!(scene.a.reaches(&scene.b)? && scene.b.reaches(&scene.a)?);
    assert!(!scene.a.reaches(&scene.stranger)?, "networks are apart");
    let before = scene.flows()?;

    // vifd restarts under a running ping.
    let ping = scene.a.keep_pinging(&scene.b)?;
    std::thread::sleep(Duration::from_millis(200));
    scene.vifd.stop()?;
    scene.vifd.start()?;
    scene.vifd.wait_for(&scene.a.record.id(), "ready")?;
    scene.vifd.wait_for(&scene.b.record.id(), "ready")?;
    std::thread::sleep(Duration::from_millis(200));
    let ping = ping.stop()?;
    assert!(ping.sent > 10 && ping.sent - ping.received <= 1, "{ping:?}");
    assert_eq!(scene.writes()?, 0.0, "modifying messages at an unchanged restart");
    assert_eq!(scene.flows()?, before);

    // ovs-vswitchd restarts, and has nothing.
    scene.ovs.stop_vswitchd(Signal::SIGTERM)?;
    scene.ovs.start_vswitchd()?;
    let took = scene.until_flows_are("the flows are back", &before)?;
    println!("after ovs-vswitchd answered, the flows were back within {took:?}");
    assert_eq!(scene.vifd.metric("vifd_batches_total", "backend=\"openflow\"")?, 1.0);
    scene.vifd.wait_for(&scene.a.record.id(), "ready")?;
    assert!(scene.a.reaches(&scene.b)?);
    Ok(())
}

#[test]
fn what_others_do_to_flows_is_mended_and_theirs_are_left_alone() -> Result<()> {
    let mut scene = scene()?;
    let wanted = scene.flows()?;

    ofctl(&scene.ovs, "del-flows", "table=40")?;
    scene.until_flows_are("deleted flows are back", &wanted)?;
    ofctl(&scene.ovs, "mod-flows", "table=60,actions=drop")?;
    scene.until_flows_are("changed flows are as they were", &wanted)?;
    ofctl(&scene.ovs, "del-groups", "")?;
    scene.until_flows_are("flows that went with a group are back", &wanted)?;
    assert!(scene.a.reaches(&scene.b)?);

    // Neither in the way of ours nor before them.
    let foreign = "cookie=0x77,table=40,priority=1,dl_dst=02:00:00:00:00:99,actions=drop";
    ofctl(&scene.ovs, "add-flow", foreign)?;
    ofctl(&scene.ovs, "del-flows", "table=40,cookie=0/0x77")?;
    scene.vifd.until("ours are back beside it", |_| {
        let now = flows(&scene.ovs)?;
        let theirs = now.iter().filter(|flow| flow.starts_with("cookie=0x77")).count();
        Ok((theirs == 1 && now.len() == wanted.len() + 1).then_some(()))
    })?;
    ofctl(&scene.ovs, "del-flows", "cookie=0x77/-1")?;
    scene.until_flows_are("only ours are there", &wanted)?;

    // Without a controller a change of fail_mode drops every flow, under an open connection.
    scene.ovs.vsctl(["set-fail-mode", "br-int", "standalone"])?;
    scene.until_flows_are("the bridge is ours again", &wanted)?;
    assert_eq!(scene.ovs.vsctl(["get-fail-mode", "br-int"])?.trim(), "secure");
    scene.vifd.wait_for(&scene.a.record.id(), "ready")?;
    assert!(scene.a.reaches(&scene.b)?);
    Ok(())
}

#[test]
fn a_vif_that_leaves_takes_its_flows_along_before_its_port_goes() -> Result<()> {
    let mut scene = scene()?;
    let before = scene.flows()?;
    let late = Guest::plug(&scene.ovs, &mut scene.vifd, guest_record(14, 1)?)?;
    assert!(late.reaches(&scene.a)?);
    assert!(scene.flows()?.len() > before.len());
    scene.vifd.remove(&late.record)?;
    scene.vifd.wait_gone(&late.record.id())?;
    scene.until_flows_are("its flows are gone and the others as they were", &before)?;
    assert!(scene.ovs.row("Port", &late.record.vif_name())?.is_none());
    assert!(scene.a.reaches(&scene.b)?);
    Ok(())
}

#[test]
fn saved_flows_are_waited_for_and_an_inactive_guest_attracts_nothing() -> Result<()> {
    let mut scene = scene()?;
    let before = scene.flows()?;

    // As ovs-ctl restarts ovs-vswitchd.
    scene.ovs.stop_vswitchd(Signal::SIGTERM)?;
    scene.ovs.vsctl(["--no-wait", "set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true"])?;
    scene.ovs.launch_vswitchd()?;
    scene
        .vifd
        .wait_until(&scene.a.record.id(), "it waits for the switch", |status| status["reason"] == "WaitingForSwitch")?;
    let saved: Vec<String> = before.clone();
    assert!(flows(&scene.ovs)?.is_empty(), "nothing is written before the saved flows are there");
    scene.ovs.vsctl(["--no-wait", "remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait"])?;
    scene.until_flows_are("the flows are back", &saved)?;

    // The destination of a migration: plugged, and not there yet.
    let sleeper = Guest::new(&scene.ovs, guest_record(14, 1)?)?;
    let put = |vifd: &Vifd, active| {
        let name = sleeper.record.id();
        vifd.put_text(&name, &native_record(&sleeper.record, active).to_string())
    };
    put(&scene.vifd, false)?;
    scene.vifd.wait_for(&sleeper.record.id(), "ready")?;
    assert_eq!(scene.flows()?.len(), before.len() + 1, "one flow that drops");
    assert!(!sleeper.reaches(&scene.a)? && !scene.a.reaches(&sleeper)?);
    let batches = scene.vifd.metric("vifd_batches_total", "backend=\"openflow\"")?;
    put(&scene.vifd, true)?;
    scene.vifd.until("it is awake", |vifd| {
        Ok((vifd.metric("vifd_batches_total", "backend=\"openflow\"")? > batches).then_some(()))
    })?;
    scene.vifd.wait_for(&sleeper.record.id(), "ready")?;
    assert_eq!(scene.vifd.metric("vifd_batches_total", "backend=\"openflow\"")?, batches + 1.0);
    assert!(sleeper.reaches(&scene.a)?);
    Ok(())
}
