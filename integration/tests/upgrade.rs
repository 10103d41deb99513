//! The release before this one and this one put in each other's place under a running host: no packet is lost, nothing on
//! the host or on disk is written anew, and each reads what the other left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::{Link, Namespace, Ovs, Record, Row, Switch, Vifd};

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Scene {
    /// Rows by table, without what ovs-vswitchd counts.
    rows: BTreeMap<&'static str, BTreeMap<String, Row>>,
    /// How many transactions the database's log has without a comment; `ovs-vsctl` leaves one, vifd does not.
    transactions: usize,
    links: Vec<(String, Link)>,
    /// Content and time of writing of records and state.
    files: BTreeMap<String, (Vec<u8>, SystemTime)>,
}

fn scene(ovs: &Ovs, vifd: &Vifd) -> Result<Scene> {
    let mut rows = BTreeMap::new();
    for table in ["Bridge", "Port", "Interface", "QoS"] {
        let mut by_id = BTreeMap::new();
        for mut row in ovs.rows(table)? {
            for counted in ["_version", "statistics", "status", "link_resets"] {
                row.remove(counted);
            }
            by_id.insert(row["_uuid"].to_string(), row);
        }
        rows.insert(table, by_id);
    }
    let state = vifd.records().with_file_name("state");
    let mut files = BTreeMap::new();
    for folder in [vifd.records(), state.clone(), state.join("deleted")] {
        read_files(&folder, &mut files)?;
    }
    let transactions = ovs.log()?.iter().filter(|record| record.comment().is_empty()).count();
    Ok(Scene { rows, transactions, links: ovs.namespace().links()?, files })
}

fn read_files(folder: &Path, files: &mut BTreeMap<String, (Vec<u8>, SystemTime)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.insert(path.display().to_string(), (fs::read(&path)?, path.metadata()?.modified()?));
        }
    }
    Ok(())
}

/// On the userspace datapath, which needs no module of the kernel's.
fn netdev(name: &str, number: u32) -> Result<Record> {
    Ok(Record::fixture(name)?.with_profile("datapath_type", "netdev").numbered(number))
}

/// Starts one of the two and waits until it has looked around and found nothing to do.
fn start(vifd: &mut Vifd, program: &Path, count: usize) -> Result<String> {
    vifd.program = Some(program.to_owned());
    vifd.start()?;
    vifd.until("it is ready", |vifd| Ok((vifd.api("GET", "/readyz", None)?.status == 200).then_some(())))?;
    vifd.wait_for_all(count, "ready", Duration::from_secs(60))?;
    let output = vifd.cli(&["--version"])?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn both_ways_under_a_running_ping() -> Result<()> {
    let (before, version) = Vifd::previous()?;
    let now = Vifd::program()?;
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;

    let guests = [netdev("openvswitch-create-port", 1)?, netdev("openvswitch-create-port", 2)?];
    let namespaces = [Namespace::new()?, Namespace::new()?];
    for (record, guest) in guests.iter().zip(&namespaces) {
        let address = format!("{}/8", record.ip());
        ovs.namespace().veth(&record.vif_name(), guest, "eth0", Some(&record.mac()), Some(&address))?;
    }
    let mut records = guests.to_vec();
    for number in 10..20 {
        records.push(netdev("openvswitch-create-tap", number)?);
    }
    for number in 20..24 {
        records.push(netdev("openvswitch-multiqueue", number)?);
        records.push(Record::fixture("generic")?.numbered(number + 10));
    }
    records.push(netdev("openvswitch-trunk", 40)?);
    // The hypervisor's own port.
    let tended = netdev("openvswitch", 50)?;
    records.push(tended.clone());
    let count = records.len();
    assert!(count > 20);
    for record in &records {
        vifd.put(record)?;
    }

    // All of it is made by the release before.
    vifd.program = Some(before.clone());
    vifd.start()?;
    vifd.wait_for(&guests[0].id(), "ready")?;
    ovs.vsctl([
        "add-port",
        &tended.bridge(),
        &tended.vif_name(),
        "--",
        "set",
        "Interface",
        &tended.vif_name(),
        "type=internal",
        &format!("external_ids:iface-id={}", tended.id()),
    ])?;
    vifd.wait_for_all(count, "ready", Duration::from_secs(60))?;
    // A pause is an operator's word: neither release may forget it.
    let paused = records[5].id();
    assert!(vifd.cli(&["pause", &paused])?.status.success());
    let is_paused = |vifd: &Vifd| -> Result<bool> {
        let status: Value = serde_json::from_str(&vifd.api("GET", "/v1/status", None)?.body)?;
        Ok(status["paused_vifs"] == json!([paused]))
    };
    assert!(is_paused(&vifd)?);
    let was = scene(&ovs, &vifd)?;
    assert!(was.transactions > 0);

    let pinging = namespaces[0].keep_pinging(&guests[1].ip())?;
    vifd.stop()?;
    let here = format!("vifd {}", env!("CARGO_PKG_VERSION"));
    let there = format!("vifd {version}");
    assert_ne!(here, there, "integration/previous-release is this release");
    for (program, name, end) in [
        (&now, &here, Signal::SIGTERM),
        (&before, &there, Signal::SIGKILL),
        (&now, &here, Signal::SIGKILL),
        (&before, &there, Signal::SIGTERM),
        (&now, &here, Signal::SIGTERM),
    ] {
        assert_eq!(&start(&mut vifd, program, count)?, name);
        assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0, "{name} wrote something");
        assert!(is_paused(&vifd)?, "{name} forgot the pause");
        assert_same(&scene(&ovs, &vifd)?, &was, &format!("while {name} runs"));
        match end {
            Signal::SIGKILL => vifd.kill()?,
            _ => vifd.stop()?,
        }
        assert_same(&scene(&ovs, &vifd)?, &was, &format!("after {name} got {end}"));
    }
    let ping = pinging.stop()?;
    assert!(ping.sent > 100, "{ping:?}");
    // The last reply may still have been on its way.
    assert!(ping.received + 1 >= ping.sent, "packets were lost: {ping:?}");

    // What the later release made, the one before takes as its own, and takes away.
    start(&mut vifd, &now, count)?;
    let late = netdev("openvswitch-create-tap", 60)?;
    vifd.put(&late)?;
    vifd.wait_for(&late.id(), "ready")?;
    vifd.stop()?;
    start(&mut vifd, &before, count + 1)?;
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0, "{there} wrote something");
    vifd.remove(&late)?;
    vifd.wait_gone(&late.id())?;
    assert!(ovs.row("Port", &late.vif_name())?.is_none() && ovs.namespace().link(&late.vif_name())?.is_none());
    Ok(())
}

fn assert_same(is: &Scene, was: &Scene, when: &str) {
    assert_eq!(is.files, was.files, "{when}");
    assert_eq!(is.links, was.links, "{when}");
    assert_eq!(is.transactions, was.transactions, "{when}");
    for (table, rows) in &was.rows {
        assert_eq!(&is.rows[table], rows, "{table} {when}");
    }
}
