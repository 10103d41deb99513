//! Drift: somebody changes what vifd keeps, and vifd puts it right.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::Record;

use super::stage::{Host, Stage};
use crate::hand::Hand;
use crate::timing::quantile;
use crate::{Chart, Finding, Role, Unit, host, rounds};

const FLOOR: &str = "floor";
const VIFD: &str = "vifd";

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let mut finding = Finding::new(
        "drift",
        "Drift and its repair",
        "A row: somebody changes `iface-id` of an interface; from the moment that ovsdb-server has answered him, which
         is when it tells everybody else, until it tells that the row is right again (so with its own time for the
         repair). A port: somebody deletes it; likewise, until the new port has its `ofport`. The floor is a program
         that knows and sends one transaction that is made already; vifd is stopped meanwhile. A VIF is used once.",
    );
    let mut rows = Chart::new("drift-row", "A changed row until it is right again", "VIFs present", Unit::Seconds);
    let mut ports = Chart::new("drift-port", "A deleted port until its ofport is back", "VIFs present", Unit::Seconds);
    let scale = stage.scale;
    for count in scale.pick(&[1000, 4000][..], &[250]) {
        let host = stage.with_vifs(*count)?;
        let records = host::records(0..*count)?;
        let turns = scale.pick(150, 20);
        let samples: [Vec<f64>; 2] = rounds(turns, |side, round| match side {
            0 => row_by_hand(host, &records[2 * round]),
            _ => row(host, &records[2 * round + 1]),
        })?;
        for ((who, role), samples) in [(FLOOR, Role::Floor), (VIFD, Role::Ours)].into_iter().zip(samples) {
            rows.add(who, role, f64::from(*count), samples);
        }
        let unused = &records[2 * turns..];
        let samples: [Vec<f64>; 2] = rounds(scale.pick(7, 3), |side, round| match side {
            0 => port_by_hand(host, &unused[2 * round]),
            _ => port(host, &unused[2 * round + 1]),
        })?;
        for ((who, role), samples) in [(FLOOR, Role::Floor), (VIFD, Role::Ours)].into_iter().zip(samples) {
            ports.add(who, role, f64::from(*count), samples);
        }
    }
    for x in rows.sizes() {
        let samples = rows.series(VIFD).and_then(|series| series.points.iter().find(|point| point.x == x));
        let p99 = samples.map_or(f64::NAN, |point| quantile(&point.samples, 0.99));
        finding.at_most(&format!("{x} VIFs, a row: p99 at most 5 ms"), p99, 0.005, |value| Unit::Seconds.show(value));
        let above = ports.above(VIFD, FLOOR, x);
        finding.at_most(&format!("{x} VIFs, a port: at most 5 ms above the floor"), above, 0.005, |value| {
            format!("{} above", Unit::Seconds.show(value))
        });
    }
    finding.charts = vec![rows, ports];
    Ok(finding)
}

/// A connection that is told of every `iface-id`. Whoever changes a row over it is told of it before the answer; over
/// another one, what was changed and changed back may be told as nothing.
fn watcher(host: &Host) -> Result<Hand<'_>> {
    let mut hand = Hand::on(&host.ovs)?;
    let monitor = json!(["Open_vSwitch", "drift", {
        "Interface": {"columns": ["name", "external_ids"], "select": {"initial": false}}}]);
    hand.database().call("monitor", &monitor)?;
    hand.drain()?;
    Ok(hand)
}

/// Waits for the news that an interface has the `iface-id` of its record.
fn until_right(hand: &mut Hand<'_>, record: &Record) -> Result<()> {
    loop {
        let update = hand.database().update()?;
        let mut rows = update["params"][1]["Interface"].as_object().into_iter().flat_map(|rows| rows.values());
        let right = json!(["iface-id", record.id()]);
        if rows.any(|row| {
            let pairs = row["new"]["external_ids"][1].as_array();
            row["new"]["name"] == record.vif_name() && pairs.is_some_and(|pairs| pairs.contains(&right))
        }) {
            return Ok(());
        }
    }
}

fn set_id(record: &Record, id: &str) -> [Value; 1] {
    [json!({"op": "mutate", "table": "Interface", "where": [["name", "==", record.vif_name()]],
        "mutations": [["external_ids", "delete", ["set", ["iface-id"]]],
                      ["external_ids", "insert", ["map", [["iface-id", id]]]]]})]
}

fn row(host: &Host, record: &Record) -> Result<f64> {
    let mut hand = watcher(host)?;
    hand.transact(&set_id(record, "drifted"))?;
    let start = Instant::now();
    until_right(&mut hand, record)?;
    let took = start.elapsed();
    rest();
    Ok(took.as_secs_f64())
}

fn row_by_hand(host: &Host, record: &Record) -> Result<f64> {
    let mut hand = watcher(host)?;
    host.vifd.signal(Signal::SIGSTOP)?;
    hand.transact(&set_id(record, "drifted"))?;
    let start = Instant::now();
    hand.transact(&set_id(record, &record.id()))?;
    until_right(&mut hand, record)?;
    let took = start.elapsed();
    host.vifd.signal(Signal::SIGCONT)?;
    rest();
    Ok(took.as_secs_f64())
}

fn port(host: &Host, record: &Record) -> Result<f64> {
    let mut hand = Hand::on(&host.ovs)?;
    let port = find_port(&mut hand, record)?;
    hand.drain()?;
    hand.remove(&port)?;
    let start = Instant::now();
    hand.until_usable(std::slice::from_ref(record))?;
    let took = start.elapsed();
    hand.catch_up()?;
    rest();
    Ok(took.as_secs_f64())
}

fn port_by_hand(host: &Host, record: &Record) -> Result<f64> {
    let mut hand = Hand::on(&host.ovs)?;
    host.vifd.signal(Signal::SIGSTOP)?;
    let port = find_port(&mut hand, record)?;
    hand.remove(&port)?;
    let start = Instant::now();
    hand.put_back(std::slice::from_ref(record))?;
    let took = start.elapsed();
    // The port is nobody's now: vifd shall make its own again.
    let port = find_port(&mut hand, record)?;
    hand.remove(&port)?;
    hand.catch_up()?;
    host.vifd.signal(Signal::SIGCONT)?;
    hand.until_usable(std::slice::from_ref(record))?;
    hand.catch_up()?;
    rest();
    Ok(took.as_secs_f64())
}

fn find_port(hand: &mut Hand<'_>, record: &Record) -> Result<Value> {
    let rows = hand.look("Port", "name", &record.vif_name(), &["_uuid"])?;
    rows.first().map(|row| row["_uuid"].clone()).context("the port to delete")
}

/// Lets everybody take in what happened.
fn rest() {
    std::thread::sleep(Duration::from_millis(20));
}
