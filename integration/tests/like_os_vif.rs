//! Promise 1: the same serialized objects plugged by os-vif (5.3.0; 4.3.1 where it was the last to have a plugin) and by
//! vifd give the same OVS rows and links, and unplugged leave the same, or less where os-vif leaves what it made. vifd may
//! add keys to a row, never a row or a link.

use anyhow::Result;
use vifd_integration::lab::{Hosts, OsVif, OsVifConfig, Ovs, Record, Switch};

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

#[test]
fn hybrid_plugs() -> Result<()> {
    let hybrid = Record::fixture("bridge-hybrid")?;
    compare(&[hybrid.clone(), hybrid.numbered(2)], OsVifConfig::default(), "")
}

#[test]
fn hybrid_plugs_of_every_age() -> Result<()> {
    let records: Result<Vec<Record>> = ["1.0", "1.1", "1.2", "1.3", "1.4"]
        .iter()
        .zip(1..)
        .map(|(version, number)| Ok(Record::fixture(&format!("bridge-hybrid@{version}"))?.numbered(number)))
        .collect();
    compare(&records?, OsVifConfig::default(), "")
}

#[test]
fn hybrid_plugs_isolated_and_on_a_trunk_bridge() -> Result<()> {
    let records = [
        Record::fixture("bridge-hybrid")?,
        Record::fixture("bridge-hybrid")?.numbered(2).with_network("bridge", "tbr-5c0f9d2f-2"),
    ];
    compare(&records[1..], OsVifConfig::default(), "")?;
    compare(&records, OsVifConfig { isolate: true, ..OsVifConfig::default() }, "isolate = true")
}

#[test]
fn a_hybrid_plug_follows_the_mtu_of_its_network() -> Result<()> {
    let (theirs, ours) = (Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?);
    let osvif = OsVif::beside(&theirs, OsVifConfig::default())?;
    let mut hosts = Hosts::start(theirs, osvif, ours, "")?;
    let record = Record::fixture("bridge-hybrid")?;
    for mtu in [1450, 1400, 9000] {
        hosts.plug(&[record.clone().with_network("mtu", mtu)])?;
    }
    hosts.unplug(&record)?;
    hosts.same()
}

fn compare(records: &[Record], config: OsVifConfig, defaults: &str) -> Result<()> {
    let (theirs, ours) = (Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?);
    let osvif = OsVif::beside(&theirs, config)?;
    let mut hosts = Hosts::start(theirs, osvif, ours, defaults)?;
    let sockets = hosts.ours.run_directory();
    let records: Vec<Record> = records
        .iter()
        .map(|record| match record.field("path") {
            // Where vifd is allowed to have sockets.
            Some(_) => record.clone().with("path", sockets.join(record.vif_name()).to_string_lossy().as_ref()),
            None => record.clone(),
        })
        .collect();

    hosts.plug(&records)?;
    // As nova-compute does whenever it starts.
    hosts.plug(&records)?;
    for record in &records {
        hosts.unplug(record)?;
        hosts.same()?;
    }
    Ok(())
}
