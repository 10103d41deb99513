//! Daemons that start anew under running conversations. What vifd then asks of the switch is read from the switch's own
//! log.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vifd_integration::lab::{Asked, Guest, Ovs, Stream, native_guest};

use crate::scene::{BRIDGE, Host};

fn stream(from: &Guest, to: &Guest) -> Result<Stream> {
    Stream::begin(from.namespace(), to.namespace(), (to.record.ip().parse::<std::net::IpAddr>()?, 5001).into())
}

/// What the switch was asked to change since it had been asked `before` times.
fn changes(ovs: &Ovs, before: usize) -> Result<Vec<Asked>> {
    Ok(ovs.account()?.split_off(before).into_iter().filter(Asked::modifies).collect())
}

#[test]
fn of_vifd_cost_no_packet_and_no_message() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let row = host.ovs.row("Bridge", BRIDGE)?.context("no bridge")?;
    assert_eq!(row["fail_mode"], "secure");
    assert_eq!(row["other_config"]["disable-in-band"], "true");
    host.ovs.keep_account()?;
    let before = host.texts()?;
    let asked = host.ovs.account()?.len();

    let ping = a.keep_pinging(&b)?;
    let stream = stream(&a, &b)?;
    assert!(stream.goes_on(1 << 20, Duration::from_secs(10)));
    host.vifd.stop()?;
    assert!(stream.goes_on(1 << 20, Duration::from_secs(10)), "while it is away");
    host.vifd.start()?;
    for guest in [&a, &b] {
        host.vifd.wait_for(&guest.record.id(), "ready")?;
    }
    assert!(stream.goes_on(1 << 20, Duration::from_secs(10)));
    let (ping, streamed) = (ping.stop()?, stream.end()?);
    // The reply to the last request may not have come when ping was ended.
    assert!(ping.sent > 20 && ping.sent - ping.received <= 1, "{ping:?}");
    assert!(streamed.sent > 3 << 20 && streamed.sent == streamed.received && streamed.lost == 0, "{streamed:?}");

    assert!(host.ovs.account()?.len() > asked, "the switch writes down what it is asked");
    assert_eq!(changes(&host.ovs, asked)?, []);
    assert_eq!(host.vifd.metric("vifd_writes_total", "backend=\"openflow\"")?, 0.0);
    assert_eq!(host.texts()?, before);
    Ok(())
}

#[test]
fn of_ovs_vswitchd_are_over_with_one_bundle() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    host.ovs.keep_account()?;
    let before = host.texts()?;
    let asked = host.ovs.account()?.len();
    let batches = host.vifd.metric("vifd_batches_total", "backend=\"openflow\"")?;

    host.ovs.stop_vswitchd(Signal::SIGTERM)?;
    host.ovs.start_vswitchd()?;
    host.until_flows_are("the flows are back", &before)?;
    let account = host.ovs.account()?.split_off(asked);
    let commits: Vec<&Asked> = account.iter().filter(|asked| asked.commits()).collect();
    let [commit] = commits[..] else { panic!("one bundle, and not {commits:?}: {account:?}") };
    let alone = account.iter().filter(|asked| asked.modifies()).all(|asked| asked.message.starts_with("BUNDLE_"));
    assert!(alone, "{account:?}");
    let hello = account.iter().find(|asked| asked.connection == commit.connection).context("no first message")?;
    assert_eq!(hello.message, "HELLO");
    println!("all flows were back {} ms after the first octet on the switch's socket", commit.at - hello.at);
    assert_eq!(host.vifd.metric("vifd_batches_total", "backend=\"openflow\"")?, batches + 1.0);
    host.vifd.wait_for(&a.record.id(), "ready")?;
    assert!(a.reaches(&b)?);
    Ok(())
}

/// As `ovs-ctl restart` does it: flows and groups are saved before and put back before others may change them.
#[test]
fn with_saved_flows_wait_until_these_are_back() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let before = host.texts()?;
    let saved = tempfile::tempdir()?;
    let [groups, flows] = ["groups", "flows"].map(|name| saved.path().join(name).display().to_string());
    let lines = |text: String, part: &str| {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(part)).collect();
        lines.join("\n")
    };
    std::fs::write(&groups, lines(host.ovs.of14("dump-groups", BRIDGE, &[])?, "group_id="))?;
    std::fs::write(&flows, lines(host.ovs.of14("dump-flows", BRIDGE, &["--no-names", "--no-stats"])?, "actions="))?;
    let restoring =
        |ovs: &Ovs| ovs.vsctl(["--no-wait", "set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true"]);
    let restored =
        |ovs: &Ovs| ovs.vsctl(["--no-wait", "remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait"]);

    host.ovs.keep_account()?;
    let asked = host.ovs.account()?.len();
    host.ovs.stop_vswitchd(Signal::SIGTERM)?;
    restoring(&host.ovs)?;
    host.ovs.launch_vswitchd()?;
    let waits = |status: &serde_json::Value| status["reason"] == "WaitingForSwitch";
    host.vifd.wait_until(&a.record.id(), "it waits for the switch", waits)?;
    host.vifd.until("the socket answers", |_| Ok(host.ovs.flow_texts(BRIDGE).ok()))?;
    assert_eq!(changes(&host.ovs, asked)?, [], "nothing before the saved flows are there");
    host.ovs.of14("add-groups", BRIDGE, &[&groups])?;
    host.ovs.of14("add-flows", BRIDGE, &[&flows])?;
    // The switch writes its log when it has time.
    let put_back = std::fs::read_to_string(&groups)?.lines().count() + std::fs::read_to_string(&flows)?.lines().count();
    let ovs = &host.ovs;
    host.vifd.until("the account has all of it", |_| Ok((changes(ovs, asked)?.len() >= put_back).then_some(())))?;
    let asked = host.ovs.account()?.len();
    restored(&host.ovs)?;
    host.vifd.wait_for(&a.record.id(), "ready")?;
    assert_eq!(changes(&host.ovs, asked)?, [], "what was put back is what is wanted");
    assert_eq!(host.texts()?, before);
    assert!(a.reaches(&b)?);

    // Afterwards too: what is lost in the meantime waits as well.
    restoring(&host.ovs)?;
    host.vifd.wait_until(&a.record.id(), "it waits for the switch", waits)?;
    let asked = host.ovs.account()?.len();
    host.by_hand("del-flows", "table=60")?;
    let lacking = host.texts()?;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(host.texts()?, lacking);
    assert_eq!(changes(&host.ovs, asked)?.len(), 1, "what was done by hand");
    restored(&host.ovs)?;
    host.until_flows_are("the flows are back", &before)?;
    Ok(())
}
