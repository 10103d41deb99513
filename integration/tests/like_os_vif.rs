//! Promise 1: the same serialized objects plugged by os-vif (5.3.0; 4.3.1 where it was the last to have a plugin) and by
//! vifd give the same OVS rows and links, and unplugged leave the same, or less where os-vif leaves what it made. vifd may
//! add keys to a row, never a row or a link.

use anyhow::Result;
use serde_json::Value;
use vifd_integration::lab::{Host, Hosts, LinuxBridgeConfig, OsVif, OsVifConfig, Ovs, Record, Switch, Vifd, uplinked};

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

/// A network that the VIF's host has to make, on the fixtures' `eth1`.
fn provided(fixture: &str) -> Result<Record> {
    Ok(Record::fixture(fixture)?.with_network("should_provide_bridge", true))
}

#[test]
fn a_linux_bridge_on_an_interface_with_addresses_and_routes() -> Result<()> {
    let ([theirs, ours], outside) = uplinked()?;
    let before = Host::observe(&ours)?;
    let osvif = OsVif::with_linux_bridges(theirs.namespace(), &LinuxBridgeConfig::default())?;
    let mut hosts = Hosts::start(theirs, osvif, ours, "")?;
    // Of an interface that is somebody else's vifd lowers no MTU, as os-vif does: the network has that of eth1.
    let record = provided("bridge-flat")?.with_network("mtu", 1500);
    let (one, two) = (record.clone(), record.numbered(2));
    let reached = || outside[1].ping("192.0.2.5", 2).map(|ping| ping.received);
    for _ in 0..2 {
        hosts.plug(&[one.clone(), two.clone()])?;
        assert_eq!(reached()?, 2);
    }
    // os-vif leaves everything; vifd what somebody still wants.
    hosts.unplug(&one)?;
    hosts.same()?;
    hosts.unplug(&two)?;
    hosts.becomes(&before)?;
    assert_eq!(reached()?, 2);
    Ok(())
}

/// os-vif gives the interface the network's MTU. There may be other networks on it: vifd raises it where it has to.
#[test]
fn the_mtu_of_an_uplink_grows_and_never_shrinks() -> Result<()> {
    let ([_, ours], _outside) = uplinked()?;
    let mut vifd = Vifd::beside(&ours)?;
    vifd.start()?;
    let record = provided("bridge-flat")?;
    for (mtu, bridge, uplink) in [(1450, 1450, 1500), (1600, 1600, 1600), (1400, 1400, 1600)] {
        vifd.put(&record.clone().with_network("mtu", mtu))?;
        vifd.until("the MTU is as it should", |_| {
            let links = ours.namespace().links()?;
            let has = |name: &str| links.iter().find(|(of, _)| of == name).map(|(_, link)| link.mtu);
            Ok((has("brq-flat") == Some(bridge) && has("eth1") == Some(uplink)).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_linux_bridge_without_an_interface() -> Result<()> {
    let (theirs, ours) = (Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?);
    let before = Host::observe(&ours)?;
    let osvif = OsVif::with_linux_bridges(theirs.namespace(), &LinuxBridgeConfig::default())?;
    let mut hosts = Hosts::start(theirs, osvif, ours, "")?;
    let record = provided("bridge-flat")?.with_network("bridge_interface", Value::Null);
    hosts.plug(std::slice::from_ref(&record))?;
    hosts.unplug(&record)?;
    hosts.becomes(&before)
}

#[test]
fn a_linux_bridge_that_is_somebody_elses_to_make() -> Result<()> {
    let ([theirs, ours], _outside) = uplinked()?;
    let osvif = OsVif::with_linux_bridges(theirs.namespace(), &LinuxBridgeConfig::default())?;
    let mut hosts = Hosts::start(theirs, osvif, ours, "")?;
    let record = Record::fixture("bridge-flat")?;
    hosts.plug(std::slice::from_ref(&record))?;
    for host in [&hosts.theirs, &hosts.ours] {
        host.namespace().run("ip", ["link", "add", "brq-flat", "type", "bridge"])?;
    }
    hosts.same()?;
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
