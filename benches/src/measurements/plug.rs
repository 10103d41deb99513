//! One VIF more on a host that has some: the record written → ready.

use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vifd_integration::lab::{Ovs, Record, Vifd};

use crate::hand::Hand;
use crate::host::{self, Asked};
use crate::{Chart, Finding, Role, Scale, Unit, rounds};

const FLOOR: &str = "floor";
const VIFD: &str = "vifd";
const BY_API: &str = "vifd, by API";

/// Measures.
pub(super) fn measure(scale: Scale) -> Result<Finding> {
    let mut finding = Finding::new(
        "plug",
        "One VIF more: record written → ready",
        "vifd: from just before the record's file is renamed into the directory, or the request is sent to the API,
         until a client that waits for `ready` has its answer. The floor: from just before the tap is made by hand
         until the update with its `ofport` is read off a raw socket. Each is unplugged again before the next one's
         turn. vifd is stopped (SIGSTOP) while it is the turn of others.",
    );
    let mut chart = Chart::new("plug", "One VIF more", "VIFs present", Unit::Seconds);
    for present in scale.pick(&[0, 1000, 4000][..], &[0, 250]) {
        at(*present, scale, &mut chart).with_context(|| format!("with {present} present"))?;
    }
    for x in chart.sizes() {
        for who in [VIFD, BY_API] {
            let above = chart.above(who, FLOOR, x);
            finding.at_most(&format!("{who}, {x} present: at most 5 ms above the floor"), above, 0.005, |v| {
                format!("{} above", Unit::Seconds.show(v))
            });
        }
    }
    finding.charts.push(chart);
    Ok(finding)
}

fn at(present: u32, scale: Scale, chart: &mut Chart) -> Result<()> {
    let (ovs, vifd) = host::with_vifs(present)?;
    let mut hand = Hand::on(&ovs)?;
    let mut next = present;
    let turns = scale.pick(if present < 2000 { 15 } else { 7 }, 3);
    // The first of everything warms up.
    let samples: [Vec<f64>; 3] = rounds(turns + 1, |side, _| {
        next += 1;
        let record = host::records(next..next + 1)?.remove(0);
        match side {
            0 => beside(&vifd, || by_hand(&mut hand, &record)),
            1 => by_file(&ovs, &vifd, &record),
            _ => by_api(&ovs, &vifd, &record),
        }
    })?;
    let sides = [(FLOOR, Role::Floor), (VIFD, Role::Ours), (BY_API, Role::Ours)];
    for ((who, role), samples) in sides.into_iter().zip(samples) {
        chart.add(who, role, f64::from(present), samples[1..].to_vec());
    }
    Ok(())
}

/// Has somebody else work while vifd stands still.
fn beside(vifd: &Vifd, work: impl FnOnce() -> Result<f64>) -> Result<f64> {
    vifd.signal(Signal::SIGSTOP)?;
    let result = work();
    vifd.signal(Signal::SIGCONT)?;
    // Until it has taken in what happened meanwhile.
    vifd.api("GET", "/v1/status", None)?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    result
}

fn by_hand(hand: &mut Hand<'_>, record: &Record) -> Result<f64> {
    let (plugged, took) = hand.plug(std::slice::from_ref(record))?;
    hand.catch_up()?;
    hand.unplug(&plugged)?;
    hand.catch_up()?;
    Ok(took.whole.as_secs_f64())
}

fn by_file(ovs: &Ovs, vifd: &Vifd, record: &Record) -> Result<f64> {
    let waiting = Asked::send(vifd, "GET", &format!("/v1/vifs/{}?wait=ready&timeout=600", record.id()), None)?;
    let start = Instant::now();
    vifd.put(record)?;
    waiting.answered()?;
    let took = start.elapsed();
    unplug(ovs, vifd, record)?;
    Ok(took.as_secs_f64())
}

fn by_api(ovs: &Ovs, vifd: &Vifd, record: &Record) -> Result<f64> {
    let body = record.0.to_string();
    let start = Instant::now();
    let target = format!("/v1/vifs/{}?wait=ready&timeout=600", record.id());
    Asked::send(vifd, "PUT", &target, Some(&body))?.answered()?;
    let took = start.elapsed();
    unplug(ovs, vifd, record)?;
    Ok(took.as_secs_f64())
}

fn unplug(ovs: &Ovs, vifd: &Vifd, record: &Record) -> Result<()> {
    let mut hand = Hand::on(ovs)?;
    hand.catch_up()?;
    Asked::send(vifd, "DELETE", &format!("/v1/vifs/{}?wait=gone&timeout=600", record.id()), None)?.answered()?;
    hand.catch_up()?;
    Ok(())
}
