//! vifd started on a host that has its VIFs: until it is silent, and that it writes nothing.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vifd_integration::lab::{Ovs, Vifd};

use super::stage::{Host, Stage};
use crate::hand::ovsdb::Connection;
use crate::{Chart, Finding, Role, Unit, rounds};

const FLOOR: &str = "floor";
const VIFD: &str = "vifd";

/// How long nothing may happen for vifd to count as silent. Not part of what is measured.
const SILENCE: Duration = Duration::from_secs(2);

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "start",
        "Start on a host that has its VIFs",
        "From just before the process is started until every VIF is ready, `/readyz` says 200 and so absence would be
         believed (which takes half a second of a quiet directory). Then two seconds are watched: nothing may be
         written. The floor reads every record's file and asks the database for the same columns on a raw socket.",
    );
    let mut chart = Chart::new("start", "Start on a host that has its VIFs", "VIFs present", Unit::Seconds);
    chart.limit = Some(1.0);
    let mut writes = 0.0;
    for count in scale.pick(&[1000, 4000][..], &[250]) {
        let Host { vifd, ovs } = stage.with_vifs(*count)?;
        vifd.stop()?;
        let samples: [Vec<f64>; 2] = rounds(scale.pick(5, 2), |side, _| match side {
            0 => by_hand(ovs, vifd),
            _ => start(vifd, *count as usize, &mut writes),
        })?;
        for ((who, role), samples) in [(FLOOR, Role::Floor), (VIFD, Role::Ours)].into_iter().zip(samples) {
            chart.add(who, role, f64::from(*count), samples);
        }
        vifd.start()?;
    }
    for x in chart.sizes() {
        let took = chart.median(VIFD, x);
        finding.at_most(&format!("{x} VIFs: silent within 1 s"), took, 1.0, |value| Unit::Seconds.show(value));
    }
    finding.at_most("writes of all starts together: none", writes, 0.0, |value| format!("{value} writes"));
    finding.charts.push(chart);
    Ok(finding)
}

fn start(vifd: &mut Vifd, count: usize, writes: &mut f64) -> Result<f64> {
    let start = Instant::now();
    vifd.launch()?;
    loop {
        let answer = vifd.api("GET", "/readyz", None).ok().filter(|answer| answer.status == 200);
        if answer.is_some() {
            let status: Value = serde_json::from_str(&vifd.api("GET", "/v1/status", None)?.body)?;
            if status["phases"]["ready"] == count {
                break;
            }
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "vifd is not ready a minute after its start");
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = start.elapsed();
    std::thread::sleep(SILENCE);
    *writes += vifd.metric("vifd_writes_total", "")?;
    vifd.stop()?;
    Ok(took.as_secs_f64())
}

fn by_hand(ovs: &Ovs, vifd: &Vifd) -> Result<f64> {
    let start = Instant::now();
    let mut octets = 0;
    for entry in fs::read_dir(vifd.records())? {
        octets += fs::read(entry?.path())?.len();
    }
    let mut database = Connection::open(&ovs.endpoint())?;
    let columns = json!(["name", "type", "options", "external_ids", "ofport", "error", "mtu", "status"]);
    let monitor = json!(["Open_vSwitch", "floor", {
        "Bridge": {"columns": ["name", "ports", "external_ids", "other_config", "datapath_type"]},
        "Port": {"columns": ["name", "interfaces", "external_ids", "other_config", "tag", "trunks", "qos"]},
        "Interface": {"columns": columns}}]);
    let contents = database.call("monitor", &monitor)?;
    let took = start.elapsed();
    ensure!(octets > 0 && contents["Interface"].is_object(), "nothing was read");
    Ok(took.as_secs_f64())
}
