//! One VIF more on a host that has some: the record written → ready.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vifd_integration::lab::{OsVif, OsVifConfig, Ovs, Record, Vifd};

use super::stage::{Host, Stage};
use crate::hand::Hand;
use crate::host::{self, Asked};
use crate::show::table::grouped;
use crate::{Chart, Finding, Role, Unit, peer, rounds};

/// Who takes turns.
const SIDES: [(&str, Role); 5] = [
    ("floor", Role::Floor),
    ("vifd", Role::Ours),
    ("vifd, by API", Role::Ours),
    ("os-vif", Role::Peer),
    ("ovs-vsctl", Role::Peer),
];

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let mut finding = Finding::new(
        "plug",
        "One VIF more: record written → ready",
        "vifd: from just before the record's file is renamed into the directory, or the request is sent to the API,
         until a client that waits for `ready` has its answer. The floor: from just before the transaction is
         sent, and the tap made by hand, until the update with its `ofport` is read off a raw socket. os-vif, in a process that stays: from the
         request until it has returned and the `ofport` is there. ovs-vsctl: the same, the tap made by hand before
         it. Each is unplugged again before the next one's turn. vifd is stopped (SIGSTOP) while it is the turn of
         others.",
    );
    let mut chart = Chart::new("plug", "One VIF more", "VIFs present", Unit::Seconds);
    let scale = stage.scale;
    for present in scale.pick(&[0, 1000, 4000][..], &[0, 250]) {
        let turns = scale.pick(if *present < 2000 { 15 } else { 7 }, 3);
        let samples = at(stage.with_vifs(*present)?, *present, turns);
        let samples = samples.with_context(|| format!("with {present} present"))?;
        for ((who, role), samples) in SIDES.into_iter().zip(samples) {
            chart.add(who, role, f64::from(*present), samples);
        }
    }
    for x in chart.sizes() {
        let present = grouped(x);
        for who in ["vifd", "vifd, by API"] {
            let above = chart.above(who, "floor", x);
            finding.at_most(&format!("{who}, {present} present: at most 5 ms above the floor"), above, 0.005, |v| {
                format!("{} above", Unit::Seconds.show(v))
            });
            let theirs = chart.above("os-vif", "floor", x);
            finding.aim(
                &format!("{who}, {present} present: at least 5 × as fast as os-vif above the floor"),
                format!("{} above, os-vif {}", Unit::Seconds.show(above), Unit::Seconds.show(theirs)),
                above <= 0.0 || theirs >= 5.0 * above,
            );
        }
    }
    finding.charts.push(chart);
    Ok(finding)
}

fn at(host: &mut Host, present: u32, turns: usize) -> Result<[Vec<f64>; 5]> {
    let Host { vifd, ovs } = host;
    let mut hand = Hand::on(ovs)?;
    let mut os_vif = OsVif::beside(ovs, OsVifConfig::default())?;
    let mut next = present;
    // The first of everything warms up.
    let mut samples: [Vec<f64>; 5] = rounds(turns + 1, |side, _| {
        next += 1;
        let record = host::records(next..next + 1)?.remove(0);
        match side {
            0 => beside(vifd, || by_hand(&mut hand, &record)),
            1 => by_file(&mut hand, vifd, &record),
            2 => by_api(&mut hand, vifd, &record),
            3 => beside(vifd, || by_os_vif(&mut hand, &mut os_vif, &record)),
            _ => beside(vifd, || by_vsctl(&mut hand, ovs, &record)),
        }
    })?;
    for samples in &mut samples {
        samples.remove(0);
    }
    Ok(samples)
}

/// Has somebody else work while vifd stands still.
fn beside(vifd: &Vifd, work: impl FnOnce() -> Result<f64>) -> Result<f64> {
    vifd.signal(Signal::SIGSTOP)?;
    let result = work();
    vifd.signal(Signal::SIGCONT)?;
    // Until it has taken in what happened meanwhile.
    vifd.api("GET", "/v1/status", None)?;
    std::thread::sleep(Duration::from_millis(100));
    result
}

fn by_hand(hand: &mut Hand<'_>, record: &Record) -> Result<f64> {
    let (plugged, took) = hand.plug(std::slice::from_ref(record))?;
    hand.catch_up()?;
    hand.unplug(&plugged)?;
    hand.catch_up()?;
    Ok(took.as_secs_f64())
}

fn by_file(hand: &mut Hand<'_>, vifd: &Vifd, record: &Record) -> Result<f64> {
    let waiting = Asked::send(vifd, "GET", &format!("/v1/vifs/{}?wait=ready&timeout=600", record.id()), None)?;
    let start = Instant::now();
    vifd.put(record)?;
    waiting.answered()?;
    let took = start.elapsed();
    unplug(hand, vifd, record)?;
    Ok(took.as_secs_f64())
}

fn by_api(hand: &mut Hand<'_>, vifd: &Vifd, record: &Record) -> Result<f64> {
    let body = record.0.to_string();
    let target = format!("/v1/vifs/{}?wait=ready&timeout=600", record.id());
    let start = Instant::now();
    Asked::send(vifd, "PUT", &target, Some(&body))?.answered()?;
    let took = start.elapsed();
    unplug(hand, vifd, record)?;
    Ok(took.as_secs_f64())
}

fn by_os_vif(hand: &mut Hand<'_>, os_vif: &mut OsVif, record: &Record) -> Result<f64> {
    hand.drain()?;
    let start = Instant::now();
    os_vif.plug(record)?;
    hand.until_usable(std::slice::from_ref(record))?;
    let took = start.elapsed();
    hand.catch_up()?;
    os_vif.unplug(record)?;
    hand.catch_up()?;
    Ok(took.as_secs_f64())
}

fn by_vsctl(hand: &mut Hand<'_>, ovs: &Ovs, record: &Record) -> Result<f64> {
    let record = std::slice::from_ref(record);
    let arguments = peer::vsctl_add(record);
    hand.drain()?;
    let start = Instant::now();
    hand.make_taps(record)?;
    ovs.vsctl(arguments)?;
    hand.until_usable(record)?;
    let took = start.elapsed();
    hand.catch_up()?;
    ovs.vsctl(["del-port", &record[0].vif_name()])?;
    hand.delete_taps(record)?;
    hand.catch_up()?;
    Ok(took.as_secs_f64())
}

fn unplug(hand: &mut Hand<'_>, vifd: &Vifd, record: &Record) -> Result<()> {
    hand.catch_up()?;
    Asked::send(vifd, "DELETE", &format!("/v1/vifs/{}?wait=gone&timeout=600", record.id()), None)?.answered()?;
    hand.catch_up()?;
    Ok(())
}
