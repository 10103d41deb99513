//! Promise 7: when ovsdb-server and ovs-vswitchd are restarted, vifd reconnects, resyncs and
//! converges, and what was right does not flap.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vifd_integration::lab::{Namespace, Ovs, Record, Switch, Vifd};

/// What a flap would change.
#[derive(Debug, PartialEq, Eq)]
struct Identities {
    /// UUID of each interface row by its name.
    rows: BTreeMap<String, String>,
    /// Index of each tap in the kernel by its name.
    taps: BTreeMap<String, u64>,
}

fn identities(ovs: &Ovs) -> Result<Identities> {
    let rows = ovs.rows("Interface")?.iter().map(|row| (row["name"].to_string(), row["_uuid"].to_string())).collect();
    let links = ovs.namespace().links()?;
    let taps =
        links.into_iter().filter(|(name, _)| name.starts_with("tap")).map(|(name, link)| (name, link.index)).collect();
    Ok(Identities { rows, taps })
}

#[test]
fn both_daemons_in_turn() -> Result<()> {
    let mut ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let tap = Record::fixture("openvswitch-netdev")?;
    let port = |number| -> Result<Record> {
        Ok(Record::fixture("openvswitch-create-port")?.with_profile("datapath_type", "netdev").numbered(number))
    };
    let (alice, bob) = (port(1)?, port(2)?);
    let guests = (Namespace::new()?, Namespace::new()?);
    for (record, guest) in [(&alice, &guests.0), (&bob, &guests.1)] {
        let address = format!("{}/8", record.ip());
        ovs.namespace().veth(&record.vif_name(), guest, "eth0", Some(&record.mac()), Some(&address))?;
    }
    let all = [tap, alice, bob];
    for record in &all {
        vifd.put(record)?;
    }
    for record in &all {
        vifd.wait_for(&record.id(), "ready")?;
    }
    let ping = || guests.0.ping(&all[2].ip(), 3);
    assert_eq!(ping()?.received, 3);
    let before = identities(&ovs)?;

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let sessions = vifd.metric("vifd_session_restarts_total", "peer=\"ovsdb\"")?;
        let writes = vifd.metric("vifd_writes_total", "")?;
        ovs.stop_server(signal)?;
        vifd.until("vifd has noticed", |vifd| {
            Ok((vifd.metric("vifd_session_up", "peer=\"ovsdb\"")? == 0.0).then_some(()))
        })?;
        // No ping here: without its database, ovs-vswitchd's main thread, which moves the packets of
        // veths in the userspace datapath, stands still. vifd has no part in that.
        ovs.start_server()?;
        vifd.until("vifd is connected again", |vifd| {
            let restarts = vifd.metric("vifd_session_restarts_total", "peer=\"ovsdb\"")?;
            let up = vifd.metric("vifd_session_up", "peer=\"ovsdb\"")?;
            Ok((up == 1.0 && restarts > sessions).then_some(()))
        })?;
        for record in &all {
            vifd.wait_for(&record.id(), "ready")?;
        }
        assert_eq!(identities(&ovs)?, before, "after {signal}");
        vifd.until("pings cross again", |_| Ok((ping()?.received == 3).then_some(())))?;
        assert_eq!(vifd.metric("vifd_writes_total", "")?, writes, "nothing was wrong");
    }

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        ovs.stop_vswitchd(signal)?;
        for record in &all {
            vifd.wait_for(&record.id(), "waiting")?;
        }
        ovs.start_vswitchd()?;
        for record in &all {
            vifd.wait_for(&record.id(), "ready")?;
        }
        // Ready is said of this run of ovs-vswitchd, not of what the last one left in the database.
        assert!(ping()?.received > 0, "ready after {signal}, and no ping crosses");
        let after = identities(&ovs)?;
        assert_eq!(after, before, "rows and taps stay");
    }
    Ok(())
}

#[test]
fn what_is_asked_for_while_a_daemon_is_away_comes_when_it_is_back() -> Result<()> {
    let mut ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    // vifd starts before its database does.
    ovs.stop_server(Signal::SIGTERM)?;
    vifd.start()?;
    let first = Record::fixture("openvswitch-create-tap")?.numbered(1);
    vifd.put(&first)?;
    ovs.start_server()?;
    vifd.wait_for(&first.id(), "ready")?;

    ovs.stop_server(Signal::SIGKILL)?;
    let second = Record::fixture("openvswitch-create-tap")?.numbered(2);
    vifd.put(&second)?;
    vifd.remove(&first)?;
    ovs.start_server()?;
    vifd.wait_for(&second.id(), "ready")?;
    vifd.wait_gone(&first.id())?;

    // Without ovs-vswitchd the rows are written, and the VIF waits for it.
    ovs.stop_vswitchd(Signal::SIGKILL)?;
    let third = Record::fixture("openvswitch-create-tap")?.numbered(3);
    vifd.put(&third)?;
    vifd.until("its row is written", |_| ovs.row("Interface", &third.vif_name()))?;
    let status = vifd.status(&third.id())?.context("its status")?;
    assert_ne!(status["phase"], "ready", "{status}");
    ovs.start_vswitchd()?;
    vifd.wait_for(&third.id(), "ready")?;
    Ok(())
}

#[test]
fn a_killed_vifd_goes_on_where_it_was() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let one = Record::fixture("openvswitch-create-tap")?;
    for number in 1..=50 {
        vifd.put(&one.clone().numbered(number))?;
    }
    // Killed as soon as it has made something, wherever it is then.
    vifd.start()?;
    vifd.until("it has begun", |_| Ok((!ovs.namespace().links()?.is_empty()).then_some(())))?;
    vifd.kill()?;
    vifd.start()?;
    vifd.wait_for_all(50, "ready", std::time::Duration::from_secs(60))?;
    let taps = ovs.rows("Port")?;
    let taps = taps.iter().filter(|row| row["name"].to_string().contains("tap")).count();
    assert_eq!(taps, 50);
    assert_eq!(ovs.rows("QoS")?.len(), 50);
    Ok(())
}
