//! Promise 4: one VIF that OVS refuses does not delay the others by more than one batch, and its
//! status says what OVS said.

use std::time::Duration;

use anyhow::{Context, Result};
use vifd_integration::lab::{Ovs, Record, Switch, Vifd};

const COUNT: u32 = 999;
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn a_port_that_needs_dpdk_among_a_thousand() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let one = Record::fixture("openvswitch-netdev")?;
    for number in 1..=COUNT {
        vifd.put(&one.clone().numbered(number))?;
    }
    let bad = Record::fixture("vhostuser-server")?;
    let socket = ovs.run_directory().join(bad.vif_name());
    let bad = bad.with("path", socket.to_string_lossy().as_ref());
    vifd.put(&bad)?;
    let empty = ovs.log()?.len();
    vifd.start()?;
    vifd.until_within(LIMIT, "the 999 are ready", |vifd| {
        let ready = vifd.statuses()?.iter().filter(|one| one["phase"] == "ready").count();
        Ok((ready == COUNT as usize).then_some(()))
    })?;
    let batches = ovs.log()?[empty..].iter().filter(|record| record.inserted("Port", "name") > 0).count();
    assert!(batches <= 2, "the ports took {batches} transactions");

    let said = ovs.row("Interface", &record_port(&bad))?.context("its row")?;
    let said = said["error"].as_str().context("OVS said nothing")?.to_owned();
    let status = vifd.wait_until(&bad.id(), "what OVS said", |status| {
        status["message"].as_str().is_some_and(|message| message.contains(&said))
    })?;
    assert_eq!(status["phase"], "failed", "{status}");
    println!("OVS said {said:?}; the status: {status}");
    Ok(())
}

/// The name os-vif gives to the port of a vhost-user VIF.
fn record_port(record: &Record) -> String {
    format!("vhu{}", record.id())[..14].to_owned()
}
