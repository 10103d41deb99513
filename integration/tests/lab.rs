//! The lab itself: each daemon and peer comes up, does what it is there for, and goes.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use vifd_integration::lab::{Host, Namespace, OsVif, OsVifConfig, Ovs, Record, Switch, differences};

#[test]
fn guests_on_a_userspace_bridge_reach_each_other() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let (alice, bob) = (Namespace::new()?, Namespace::new()?);
    let host = ovs.namespace();
    host.veth("p-alice", &alice, "eth0", Some("22:52:00:00:00:01"), Some("10.9.0.1/24"))?;
    host.veth("p-bob", &bob, "eth0", None, Some("10.9.0.2/24"))?;
    ovs.vsctl(["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"])?;
    ovs.vsctl(["add-port", "br0", "p-alice"])?;
    let before = alice.ping("10.9.0.2", 2)?;
    assert_eq!(before.received, 0, "there is no port for bob yet");
    ovs.vsctl(["add-port", "br0", "p-bob"])?;
    let after = alice.ping("10.9.0.2", 3)?;
    assert_eq!((after.sent, after.received), (3, 3));
    let link = alice.link("eth0")?.context("eth0")?;
    assert_eq!((link.kind.as_str(), link.up), ("veth", true));
    assert_eq!(link.mac, "22:52:00:00:00:01");
    Ok(())
}

#[test]
fn daemons_can_be_killed_and_started_again() -> Result<()> {
    let mut ovs = Ovs::start(Switch::Dummy)?;
    ovs.vsctl(["add-br", "br0", "--", "add-port", "br0", "p1"])?;
    ovs.stop_vswitchd(Signal::SIGKILL)?;
    ovs.stop_server(Signal::SIGKILL)?;
    assert!(ovs.rows("Port").is_err(), "nobody is there to answer");
    ovs.start_server()?;
    ovs.start_vswitchd()?;
    let row = ovs.row("Interface", "p1")?.context("p1")?;
    assert_eq!(row["ofport"], json!(1));
    Ok(())
}

#[test]
fn everything_goes_when_it_is_dropped() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let namespace = ovs.namespace().name().to_owned();
    let directory = ovs.run_directory();
    let pid = ovs.vswitchd().context("ovs-vswitchd")?.pid();
    assert!(Namespace::existing(&namespace).is_ok() && directory.exists());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _held = ovs;
        panic!("as a failed assertion would");
    }));
    assert!(panicked.is_err());
    assert!(Namespace::existing(&namespace).is_err());
    assert!(!directory.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

#[test]
fn the_log_of_the_database_is_read() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let before = ovs.log()?.len();
    ovs.vsctl(["add-br", "br0", "--", "add-port", "br0", "p1", "--", "add-port", "br0", "p2"])?;
    let inserted: Vec<usize> = ovs.log()?[before..]
        .iter()
        .map(|record| record.inserted("Interface", "name"))
        .filter(|count| *count > 0)
        .collect();
    assert_eq!(inserted, [3], "br0, p1, p2 in one transaction");
    ovs.vsctl(["del-port", "p1"])?;
    assert_eq!(ovs.log()?.iter().map(|record| record.deleted("Port")).sum::<usize>(), 1);
    Ok(())
}

#[test]
fn os_vif_plugs_and_unplugs() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let empty = Host::observe(&ovs)?;
    let record = Record::fixture("openvswitch-create-tap")?;
    osvif.plug(&record)?;
    let plugged = Host::observe(&ovs)?;
    let port = &plugged.0["bridges"]["br-int"]["ports"][record.vif_name()];
    let interface = &port["interfaces"][record.vif_name()];
    assert_eq!(interface["external_ids"]["iface-id"], record.id());
    assert_eq!(port["qos"]["type"], "linux-noop");
    let link = &plugged.0["links"][record.vif_name()];
    assert_eq!((&link["mac"], &link["mtu"]), (&json!(record.mac()), &json!(1450)));
    assert_eq!((&link["kind"], &link["up"]), (&json!("tun"), &json!(true)));
    assert!(!differences(&plugged.0, &empty.0, &[]).is_empty());

    let wrong = Record::fixture("openvswitch-no-profile")?;
    let error = osvif.plug(&wrong).err().context("plugged without a profile")?;
    assert!(format!("{error:#}").contains("port profile is mandatory"), "{error:#}");

    osvif.unplug(&record)?;
    let unplugged = Host::observe(&ovs)?;
    assert_eq!(unplugged.0["links"], json!({}));
    assert_eq!(unplugged.0["qos"], json!({}));
    assert_eq!(unplugged.0["bridges"]["br-int"]["ports"].as_object().map(serde_json::Map::len), Some(1));
    Ok(())
}
