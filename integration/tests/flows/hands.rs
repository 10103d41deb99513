//! Whoever else lays hands on a bridge: what was vifd's is put back, what is somebody else's is left alone.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use vifd_integration::lab::{Asked, FlowRow, Guest, Ovs, Vifd, native_guest};

use crate::scene::{BRIDGE, Host};

#[test]
fn what_they_do_to_flows_is_mended() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let wanted = host.texts()?;
    host.by_hand("del-flows", "table=40")?;
    host.until_flows_are("deleted flows are back", &wanted)?;
    host.by_hand("mod-flows", "table=60,actions=drop")?;
    host.until_flows_are("changed flows are as they were", &wanted)?;
    host.by_hand("del-groups", "")?;
    host.until_flows_are("flows that went with a group are back", &wanted)?;
    assert!(a.reaches(&b)?);

    // Without a controller a change of fail_mode drops every flow, under an open connection.
    host.ovs.vsctl(["set-fail-mode", BRIDGE, "standalone"])?;
    host.until_flows_are("the bridge is ours again", &wanted)?;
    assert_eq!(host.ovs.vsctl(["get-fail-mode", BRIDGE])?.trim(), "secure");
    host.vifd.wait_for(&a.record.id(), "ready")?;
    assert!(a.reaches(&b)?);
    Ok(())
}

/// All groups and meters, without the lines that number the answers.
fn groups_and_meters(ovs: &Ovs) -> Result<String> {
    let text = [ovs.of14("dump-groups", BRIDGE, &[])?, ovs.of14("dump-meters", BRIDGE, &[])?].concat();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.contains("xid=")).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// No flow changes by it, so the flow monitor tells nothing.
#[test]
fn what_they_do_to_groups_and_meters_is_mended() -> Result<()> {
    let mut host = Host::start()?;
    let rate = json!({"rate": {"egress_kbps": 8000, "ingress_kbps": 4000}});
    let [a, b] = host.plug([native_guest(11, 1).beside("policy", rate), native_guest(12, 1)])?;
    let wanted = groups_and_meters(&host.ovs)?;
    assert!(wanted.contains("bucket=") && wanted.contains("rate=8000"), "{wanted}");
    let group = wanted.split_once("group_id=").and_then(|(_, rest)| rest.split_once(','));
    let group = group.context("no group")?.0.to_owned();
    for (command, what) in [
        ("mod-group", format!("group_id={group},type=all")),
        ("mod-group", format!("group_id={group},type=select,bucket=drop")),
        ("mod-meter", "meter=1,kbps,band=type=drop,rate=1".to_owned()),
        ("add-group", "group_id=9,type=all".to_owned()),
        ("add-meter", "meter=9,kbps,band=type=drop,rate=1".to_owned()),
    ] {
        host.by_hand(command, &what)?;
        let ovs = &host.ovs;
        let as_it_was = |_: &Vifd| Ok((groups_and_meters(ovs)? == wanted).then_some(()));
        host.vifd.until(&format!("{command} {what} is undone"), as_it_was)?;
    }
    assert!(a.reaches(&b)?);
    Ok(())
}

/// Without it guests' fragments go past port security, and nobody tells.
#[test]
fn how_fragments_are_treated_is_put_back() -> Result<()> {
    let mut host = Host::prepared("")?;
    host.vifd.config.resync = "1s".into();
    let mut host = host.started()?;
    let frags = |ovs: &Ovs| ovs.of14("get-frags", BRIDGE, &[]);
    let [_guest] = host.plug([native_guest(11, 1)])?;
    let ours = frags(&host.ovs)?;
    assert!(ours.contains("nx-match"), "{ours}");
    host.by_hand("set-frags", "normal")?;
    assert_ne!(frags(&host.ovs)?, ours);
    let ovs = &host.ovs;
    host.vifd.until("they are matched again", |_| Ok((frags(ovs)? == ours).then_some(())))
}

/// Somebody makes one flow of a table do what another does.
fn made_to_do_what_another_does(host: &mut Host, table: u8, word: &str) -> Result<()> {
    let wanted = host.texts()?;
    let rows = host.rows()?;
    let those = rows.iter().filter(|row| row.table == table && row.actions.contains(word));
    let [one, other] = those.collect::<Vec<_>>()[..] else { anyhow::bail!("not two with {word}: {rows:#?}") };
    assert_ne!(one.actions, other.actions);
    host.by_hand("mod-flows", &format!("table={table},{},actions={}", other.matching, one.actions))?;
    host.until_flows_are("each has its own again", &wanted)
}

#[test]
fn groups_and_meters_are_nobody_elses() -> Result<()> {
    let mut host = Host::start()?;
    let with_rate =
        |number, network| native_guest(number, network).beside("policy", json!({"rate": {"egress_kbps": 9000}}));
    let [a, b, _c, _d] = host.plug([with_rate(11, 1), native_guest(12, 1), with_rate(13, 2), native_guest(14, 2)])?;
    made_to_do_what_another_does(&mut host, 40, "group:")?;
    made_to_do_what_another_does(&mut host, 20, "meter:")?;
    assert!(a.reaches(&b)?);
    Ok(())
}

const FOREIGN: u64 = 0x77;

/// Flows of somebody else, without the time that they have been there: that of a flow that is replaced begins anew.
fn foreign(host: &Host) -> Result<Vec<FlowRow>> {
    let mut rows = host.rows()?;
    rows.retain(|row| row.cookie == FOREIGN);
    Ok(rows)
}

#[test]
fn their_flows_are_never_touched() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let wanted = host.texts()?;
    for flow in ["table=40,priority=1,dl_dst=02:00:00:00:00:99,actions=drop", "table=99,actions=NORMAL"] {
        host.by_hand("add-flow", &format!("cookie={FOREIGN:#x},{flow}"))?;
    }
    let before = foreign(&host)?;
    assert_eq!(before.len(), 2);
    let same = |host: &Host| -> Result<()> {
        let now = foreign(host)?;
        assert_eq!(now.len(), 2);
        for (before, now) in before.iter().zip(&now) {
            assert_eq!((before.identity(), &before.actions), (now.identity(), &now.actions));
            assert!(now.duration >= before.duration, "it was replaced: {now:?}");
        }
        Ok(())
    };

    host.by_hand("del-flows", &format!("cookie={:#x}/0xffff000000000000", host.cookie(&a)?))?;
    let ours = |ovs: &Ovs| -> Result<Vec<String>> {
        let mut texts = ovs.flow_texts(BRIDGE)?;
        texts.retain(|text| !text.starts_with(&format!("cookie={FOREIGN:#x},")));
        Ok(texts)
    };
    let ovs = &host.ovs;
    host.vifd.until("all of ours are back beside them", |_| Ok((ours(ovs)? == wanted).then_some(())))?;
    same(&host)?;
    host.vifd.stop()?;
    host.vifd.start()?;
    host.vifd.wait_for(&a.record.id(), "ready")?;
    same(&host)?;
    let more: [_; 20] = std::array::from_fn(|n| native_guest(20 + n as u32, 1 + n as u32 % 3));
    let guests: Vec<Guest> = host.plug(more)?.into();
    same(&host)?;
    for guest in &guests {
        host.vifd.remove(&guest.record)?;
    }
    for guest in &guests {
        host.vifd.wait_gone(&guest.record.id())?;
    }
    same(&host)?;
    assert_eq!(ours(&host.ovs)?, wanted);

    // One at a place that is needed: an add would replace it.
    let late = Guest::new(&host.ovs, native_guest(50, 1))?;
    host.by_hand(
        "add-flow",
        &format!(
            "cookie={FOREIGN:#x},table=40,priority=100,metadata={},dl_dst={},actions=drop",
            metadata(&wanted),
            late.record.mac()
        ),
    )?;
    host.vifd.put(&late.record)?;
    let status = host.vifd.wait_for(&late.record.id(), "conflict")?;
    assert!(status["message"].as_str().is_some_and(|text| text.contains("cookie 0x77")), "{status}");
    assert_eq!(foreign(&host)?.len(), 3);
    assert!(a.reaches(&b)?, "the others are as they were");
    host.by_hand("del-flows", &format!("cookie={FOREIGN:#x}/-1"))?;
    host.vifd.wait_for(&late.record.id(), "ready")?;
    assert!(a.reaches(&late)?);
    Ok(())
}

/// The network of all flows of table 40 that lead to a guest: there is one.
fn metadata(flows: &[String]) -> String {
    let part = flows.iter().flat_map(|flow| flow.split(',')).find_map(|part| part.trim().strip_prefix("metadata="));
    part.unwrap_or_default().to_owned()
}

/// Bridges that are somebody else's by one of the ways there are.
fn left_alone(claim: &[&str], release: &[&str]) -> Result<()> {
    let mut host = Host::prepared("")?;
    host.ovs.vsctl(["add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"])?;
    host.ovs.vsctl(claim)?;
    host.by_hand("add-flow", &format!("cookie={FOREIGN:#x},table=0,priority=7,actions=NORMAL"))?;
    let before = host.texts()?;
    host.ovs.keep_account()?;
    let asked = host.ovs.account()?.len();
    let mut host = host.started()?;
    let guest = Guest::new(&host.ovs, native_guest(11, 1))?;
    host.vifd.put(&guest.record)?;
    let status = host.vifd.wait_for(&guest.record.id(), "conflict")?;
    println!("{claim:?}: {}", status["message"]);
    assert!(host.ovs.row("Port", &guest.record.vif_name())?.is_none(), "nor is a guest given to their flows");
    std::thread::sleep(Duration::from_millis(300));
    let changes: Vec<Asked> = host.ovs.account()?.split_off(asked).into_iter().filter(Asked::modifies).collect();
    assert_eq!(changes, []);
    assert_eq!(host.texts()?, before);

    // When they have given it up, it is managed.
    host.by_hand("del-flows", "cookie=0x77/-1")?;
    host.ovs.vsctl(release)?;
    host.vifd.wait_for(&guest.record.id(), "ready")?;
    // And when they take it, left again, with what vifd had there.
    host.ovs.vsctl(claim)?;
    host.vifd.wait_for(&guest.record.id(), "conflict")?;
    let asked = host.ovs.account()?.len();
    host.ovs.stop_vswitchd(Signal::SIGTERM)?;
    host.ovs.start_vswitchd()?;
    host.vifd.wait_for(&guest.record.id(), "conflict")?;
    std::thread::sleep(Duration::from_millis(300));
    let changes: Vec<Asked> = host.ovs.account()?.split_off(asked).into_iter().filter(Asked::modifies).collect();
    assert_eq!(changes, []);
    Ok(())
}

#[test]
fn a_bridge_with_a_controller_is_left_alone() -> Result<()> {
    left_alone(&["set-controller", BRIDGE, "tcp:127.0.0.1:9"], &["del-controller", BRIDGE])
}

/// ovn-controller sets no controller: it works through the management socket too.
#[test]
fn a_bridge_of_ovn_is_left_alone() -> Result<()> {
    let ovn = format!("external_ids:ovn-bridge={BRIDGE}");
    left_alone(
        &["set", "Open_vSwitch", ".", &ovn, "external_ids:ovn-remote=tcp:127.0.0.1:9"],
        &[
            "remove",
            "Open_vSwitch",
            ".",
            "external_ids",
            "ovn-bridge",
            "--",
            "remove",
            "Open_vSwitch",
            ".",
            "external_ids",
            "ovn-remote",
        ],
    )
}
