//! vifd as a service manager sees it: readiness and signs of life told, a reload by SIGHUP that takes what is good
//! and keeps what was, an end by SIGTERM that leaves the host as it is.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vifd_integration::lab::{Ovs, Record, Switch, Vifd};

#[test]
fn readiness_and_signs_of_life_are_told() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let path = ovs.run_directory().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    vifd.config.environment =
        vec![("NOTIFY_SOCKET".into(), path.display().to_string()), ("WATCHDOG_USEC".into(), "400000".into())];
    vifd.start()?;
    let hear = |word: &str| -> Result<()> {
        let mut text = [0; 512];
        for _ in 0..100 {
            let length = manager.recv(&mut text).with_context(|| format!("waited in vain for {word}"))?;
            if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == word) {
                return Ok(());
            }
        }
        anyhow::bail!("a hundred messages without {word}")
    };
    hear("READY=1")?;
    for _ in 0..3 {
        hear("WATCHDOG=1")?;
    }
    vifd.signal(Signal::SIGTERM)?;
    hear("STOPPING=1")?;
    vifd.daemon().context("the agent")?.wait(Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn a_reload_takes_what_is_good_and_keeps_what_was() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let without_mtu = Record::fixture("openvswitch-no-mtu")?;
    let first = without_mtu.clone().numbered(1);
    vifd.put(&first)?;
    assert_eq!(vifd.wait_for(&first.id(), "ready")?["facts"]["mtu"], 1500);

    // A key that nobody knows: everything stays as it was, and the log says which key.
    vifd.config.defaults = "mtu = 1400\nmtuu = 1300".into();
    vifd.write_config()?;
    vifd.signal(Signal::SIGHUP)?;
    vifd.until("the bad key is named", |vifd| {
        Ok(std::fs::read_to_string(vifd.log_file())?.contains("mtuu").then_some(()))
    })?;
    let second = without_mtu.clone().numbered(2);
    vifd.put(&second)?;
    assert_eq!(vifd.wait_for(&second.id(), "ready")?["facts"]["mtu"], 1500);

    // A good one is in force without a restart, for what is there as well.
    vifd.config.defaults = "mtu = 1400".into();
    vifd.write_config()?;
    vifd.signal(Signal::SIGHUP)?;
    for record in [&first, &second] {
        vifd.wait_until(&record.id(), "the new MTU", |status| {
            status["phase"] == "ready" && status["facts"]["mtu"] == 1400
        })?;
    }
    Ok(())
}

#[test]
fn sigterm_leaves_the_host_as_it_is() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let record = Record::fixture("openvswitch-netdev")?;
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "ready")?;
    let (links, rows) = (ovs.namespace().links()?, ovs.rows("Interface")?);
    vifd.stop()?;
    assert_eq!(ovs.namespace().links()?, links);
    assert_eq!(ovs.rows("Interface")?, rows);
    Ok(())
}
