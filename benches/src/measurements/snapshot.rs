//! A snapshot of 15 MB from the database into the replica.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use ovsdb::replica::Replica;
use ovsdb::session::{Config, Session};
use ovsdb::vswitch::Snapshot;
use serde_json::{Map, Value, json};
use vifd_integration::lab::{Ovs, Switch};

use super::stage::Stage;
use crate::finding::times;
use crate::hand::Hand;
use crate::hand::ovsdb::Connection;
use crate::{Chart, Finding, Role, Unit, host, peer, rounds};

const FLOOR: &str = "raw socket";
const VIFD: &str = "vifd";
const CLIENT: &str = "ovsdb-client dump";
const PYTHON: &str = "python-ovs Idl";

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "snapshot",
        "A snapshot parsed into the replica",
        "From connecting until every row is in memory, typed and indexed. The floor asks for the same columns on a raw
         socket and reads as many octets as come, looking at none of them: most of it is ovsdb-server's own time.
         `ovsdb-client dump` has every column and formats them, and its start is part of it; python-ovs has the same
         columns, and its interpreter's start is no part of it. ovs-vswitchd does not run.",
    );
    let mut chart = Chart::new("snapshot", "A snapshot into the replica", "ports", Unit::Seconds);
    let mut sizes = Vec::new();
    for ports in scale.pick(&[1_000u32, 20_000][..], &[1_000]) {
        let ovs = database(*ports)?;
        let request = json!({"method": "monitor_cond_since", "id": 1, "params": ["Open_vSwitch", "floor",
            columns(|columns| json!([{"columns": columns}])), "00000000-0000-0000-0000-000000000000"]})
        .to_string();
        let octets = length(&ovs, &request)?;
        sizes.push(format!("{} ports are {}", ports, Unit::Octets.show(octets as f64)));
        let samples: [Vec<f64>; 4] =
            rounds(scale.pick(if *ports < 10_000 { 7 } else { 3 }, 2), |side, _| match side {
                0 => raw(&ovs, &request, octets),
                1 => replica(&ovs, *ports as usize),
                2 => peer::dump(&ovs),
                _ => peer::python_idl(&ovs, &columns(|columns| columns)),
            })?;
        let sides = [(FLOOR, Role::Floor), (VIFD, Role::Ours), (CLIENT, Role::Peer), (PYTHON, Role::Peer)];
        for ((who, role), samples) in sides.into_iter().zip(samples) {
            chart.add(who, role, f64::from(*ports), samples);
        }
    }
    let most = chart.sizes().last().copied().unwrap_or_default();
    finding.at_most("at most 1.1 × the raw read", chart.ratio(VIFD, FLOOR, most), 1.1, times);
    for who in [CLIENT, PYTHON] {
        finding.at_least(&format!("faster than {who}"), chart.ratio(who, VIFD, most), 1.0, |ratio| {
            format!("{} as fast", times(ratio))
        });
    }
    finding.notes.push(format!("On the wire {}.", sizes.join(", ")));
    finding.charts.push(chart);
    Ok(finding)
}

/// What vifd monitors, by table.
fn columns(shown: impl Fn(Value) -> Value) -> Value {
    let tables = Snapshot::TABLES.iter().map(|table| {
        let columns = table.columns.iter().map(|column| column.name.into()).collect();
        (table.name.to_owned(), shown(Value::Array(columns)))
    });
    Value::Object(tables.collect::<Map<_, _>>())
}

/// A database with ports that nobody switches.
fn database(ports: u32) -> Result<Ovs> {
    let mut ovs = Ovs::start(Switch::Dummy)?;
    ovs.vsctl(["add-br", crate::hand::BRIDGE])?;
    ovs.stop_vswitchd(Signal::SIGTERM)?;
    let mut hand = Hand::on(&ovs)?;
    for begin in (0..ports).step_by(1000) {
        hand.insert(&host::records(begin..(begin + 1000).min(ports))?)?;
    }
    // What ovs-vswitchd would have written.
    let found = json!({"op": "update", "table": "Interface", "where": [], "row": {
        "ofport": 1, "mtu": 1450, "admin_state": "up", "link_state": "down", "ifindex": 4711,
        "mac_in_use": "22:52:26:00:00:01",
        "status": ["map", [["driver_name", "tun"], ["driver_version", "1.6"], ["firmware_version", ""]]],
        "statistics": ["map", [["rx_packets", 1], ["tx_packets", 1], ["rx_bytes", 1], ["tx_bytes", 1]]]}});
    hand.transact(&[found])?;
    drop(hand);
    Ok(ovs)
}

/// Octets of the answer: those that come until it is a whole JSON value.
fn length(ovs: &Ovs, request: &str) -> Result<usize> {
    let request: Value = serde_json::from_str(request)?;
    let answer = Connection::open(&ovs.endpoint())?.call("monitor_cond_since", &request["params"])?;
    ensure!(answer[2]["Interface"].is_object(), "the snapshot has no interfaces");
    // The server writes JSON as serde_json does, without spaces, but may escape other characters: count its own.
    let mut stream = dial(ovs)?;
    stream.write_all(request.to_string().as_bytes())?;
    let (mut octets, mut depth, mut quoted, mut escaped) = (0, 0_u32, false, false);
    let mut piece = vec![0; 1 << 16];
    loop {
        let some = stream.read(&mut piece)?;
        ensure!(some > 0, "the server hung up");
        octets += some;
        for octet in &piece[..some] {
            match octet {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' if !quoted => depth += 1,
                b'}' if !quoted => depth -= 1,
                _ => {}
            }
        }
        if depth == 0 {
            return Ok(octets);
        }
    }
}

fn raw(ovs: &Ovs, request: &str, octets: usize) -> Result<f64> {
    let mut piece = vec![0; 1 << 16];
    let start = Instant::now();
    let mut stream = dial(ovs)?;
    stream.write_all(request.as_bytes())?;
    let mut left = octets;
    while left > 0 {
        let some = stream.read(&mut piece)?;
        ensure!(some > 0, "the server hung up");
        left = left.saturating_sub(some);
    }
    Ok(start.elapsed().as_secs_f64())
}

fn dial(ovs: &Ovs) -> Result<UnixStream> {
    let endpoint = ovs.endpoint();
    let path = endpoint.strip_prefix("unix:").context("a unix: endpoint")?;
    Ok(UnixStream::connect(path)?)
}

fn replica(ovs: &Ovs, ports: usize) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let endpoint = ovs.endpoint().parse()?;
    let took = runtime.block_on(async {
        let start = Instant::now();
        let session = Session::spawn(Config::endpoint(endpoint, None), Snapshot::new::<String>([]));
        let mut view = session.snapshot();
        let view = view.wait_for(|view| view.ready().is_some()).await?;
        let took = start.elapsed();
        let found = view.ready().map_or(0, |snapshot| snapshot.interfaces.len());
        ensure!(found > ports, "the replica has {found} interfaces");
        Ok(took)
    });
    runtime.shutdown_background();
    took.map(|took| took.as_secs_f64())
}
