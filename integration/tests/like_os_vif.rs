//! Promise 1: the same serialized objects plugged by os-vif 5.3.0 and by vifd give the same OVS rows
//! and links, and unplugged leave the same. vifd may add keys to a row, never a row or a link.

use anyhow::Result;
use vifd_integration::lab::{Host, OsVif, OsVifConfig, Ovs, Record, Switch, Vifd, differences};

/// Collections in which nothing may be that os-vif did not make.
const EXACT: &[&str] = &["/bridges", "/ports", "/interfaces", "/links", "/qos"];

#[test]
fn ports_and_taps() -> Result<()> {
    let records = [
        Record::fixture("openvswitch-create-port")?,
        Record::fixture("openvswitch-create-tap")?,
        Record::fixture("openvswitch-multiqueue")?,
        Record::fixture("openvswitch-datapath-null")?,
        Record::fixture("openvswitch-no-mtu")?,
        Record::fixture("openvswitch-inactive")?,
        // A netdev bridge of its own: os-vif turns an existing bridge over, vifd never does.
        Record::fixture("openvswitch-netdev")?.with_network("bridge", "br-netdev"),
        // Both leave the port to the hypervisor.
        Record::fixture("openvswitch")?,
    ];
    compare(&records, OsVifConfig::default(), "")
}

#[test]
fn objects_of_every_age() -> Result<()> {
    let records: Result<Vec<Record>> = ["1.0", "1.1", "1.2", "1.3", "1.4"]
        .iter()
        .zip(1..)
        .map(|(version, number)| {
            let name = format!("openvswitch-multiqueue@{version}");
            Ok(Record::fixture(&name)?.numbered(number))
        })
        .collect();
    compare(&records?, OsVifConfig::default(), "")
}

#[test]
fn a_trunk_bridge_goes_with_its_port() -> Result<()> {
    let records = [Record::fixture("openvswitch-trunk")?];
    compare(&records, OsVifConfig::default(), "")
}

#[test]
fn isolated_ports() -> Result<()> {
    let records = [
        Record::fixture("openvswitch-create-port")?,
        Record::fixture("openvswitch-create-tap")?,
        Record::fixture("openvswitch-trunk")?,
    ];
    let config = OsVifConfig { isolate: true, ..OsVifConfig::default() };
    compare(&records, config, "isolate = true")
}

#[test]
fn a_bridge_for_each_port() -> Result<()> {
    let records = [Record::fixture("openvswitch-create-tap")?, Record::fixture("openvswitch-multiqueue")?];
    let config = OsVifConfig { per_port_bridge: true, ..OsVifConfig::default() };
    compare(&records, config, "per_port_bridge = true")
}

#[test]
fn vhost_user_ports() -> Result<()> {
    // The daemons here have no DPDK: the rows are what is compared, and traffic in vhost_user.rs.
    let records = [Record::fixture("vhostuser-client")?, Record::fixture("vhostuser-server")?];
    compare(&records, OsVifConfig::default(), "")
}

fn compare(records: &[Record], config: OsVifConfig, defaults: &str) -> Result<()> {
    let (theirs, ours) = (Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?);
    let mut osvif = OsVif::beside(&theirs, config)?;
    let mut vifd = Vifd::beside(&ours)?;
    vifd.config.defaults = defaults.into();
    vifd.start()?;
    let sockets = ours.run_directory();
    let records: Vec<Record> = records
        .iter()
        .map(|record| match record.field("path") {
            // Where vifd is allowed to have sockets.
            Some(_) => record.clone().with("path", sockets.join(record.vif_name()).to_string_lossy().as_ref()),
            None => record.clone(),
        })
        .collect();

    for record in &records {
        osvif.plug(record)?;
        vifd.put(record)?;
    }
    same(&mut vifd, &theirs, &ours)?;
    // As nova-compute does whenever it starts.
    for record in &records {
        osvif.plug(record)?;
        vifd.put(record)?;
    }
    same(&mut vifd, &theirs, &ours)?;
    for record in &records {
        osvif.unplug(record)?;
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
        same(&mut vifd, &theirs, &ours)?;
    }
    Ok(())
}

/// Waits until vifd's host has what os-vif's has. It may take several steps; os-vif has returned.
fn same(vifd: &mut Vifd, theirs: &Ovs, ours: &Ovs) -> Result<()> {
    let model = Host::observe(theirs)?;
    let mut last = Vec::new();
    let result = vifd.until("both hosts are the same", |_| {
        last = differences(&model.0, &Host::observe(ours)?.0, EXACT);
        Ok(last.is_empty().then_some(()))
    });
    assert!(
        result.is_ok(),
        "vifd's host differs from os-vif's:\n{}\n{:#}",
        last.join("\n"),
        result.err().map_or_else(String::new, |error| format!("{error:#}")),
    );
    Ok(())
}
