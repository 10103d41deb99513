//! Hundreds and thousands of VIFs at once, onto a host without any, and off it again.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use vifd_integration::lab::{OsVif, OsVifConfig, Record, Vifd};

use super::stage::Stage;
use crate::finding::times;
use crate::hand::Hand;
use crate::host::{self, Watch};
use crate::show::table::grouped;
use crate::{Chart, Finding, Role, Unit, peer, rounds};

pub(super) const FLOOR: &str = "floor";
pub(super) const VIFD: &str = "vifd";
pub(super) const OS_VIF: &str = "os-vif";
const VSCTL: &str = "ovs-vsctl";

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "bulk",
        "VIFs with taps in bulk: plug and unplug",
        "Each run on a fresh switch. Plug, vifd: from a directory with all of the records being renamed into place
         until the last VIF is ready. The floor: one transaction, and the taps by hand, until every `ofport`
         is read.
         Unplug, all but one: from a directory with one record being renamed into place (which vifd watches for half
         a second before it believes absence) until every row and tap is gone and ovs-vswitchd has acted on it; the
         floor: one transaction, until ovs-vswitchd has acted on it, and then the taps, a hundred per request. os-vif
         is asked for one after another, in a process that stays. ovs-vsctl gets everything in one call, and its taps
         by hand.",
    );
    let mut plug = Chart::new("bulk-plug", "Plugging VIFs with taps in bulk", "VIFs", Unit::Seconds);
    let mut unplug = Chart::new("bulk-unplug", "Unplugging VIFs with taps in bulk", "VIFs", Unit::Seconds);
    for count in scale.pick(&[250, 500, 1000, 2000, 4000][..], &[100, 250, 500]) {
        let turns = if *count < 1000 { scale.pick(3, 1) } else { 1 };
        let samples: [Vec<Sample>; 2] = rounds(turns, |side, _| match side {
            0 => by_hand(&host::records(0..*count)?),
            _ => by_vifd(&host::records(0..*count)?),
        })
        .with_context(|| format!("{count} VIFs"))?;
        for ((who, role), samples) in [(FLOOR, Role::Floor), (VIFD, Role::Ours)].into_iter().zip(samples) {
            let (x, part) = (f64::from(*count), |part: fn(&Sample) -> f64| samples.iter().map(part).collect());
            plug.add(who, role, x, part(|sample| sample.plug));
            unplug.add(who, role, x, part(|sample| sample.unplug));
        }
        // os-vif does one after another, each of which makes ovs-vswitchd look at all: beyond these sizes it takes
        // longer than the rest of the run.
        for (who, work, most) in [(OS_VIF, by_os_vif as fn(&[Record]) -> Result<Sample>, 500), (VSCTL, by_vsctl, 1000)]
        {
            if *count <= scale.pick(most, 100) {
                let sample = work(&host::records(0..*count)?).with_context(|| format!("{count} VIFs by {who}"))?;
                plug.add(who, Role::Peer, f64::from(*count), vec![sample.plug]);
                unplug.add(who, Role::Peer, f64::from(*count), vec![sample.unplug]);
            }
        }
    }
    aims(&mut finding, &plug, &unplug);
    finding.charts = vec![plug, unplug];
    Ok(finding)
}

/// What is aimed at: nearly the floor, and far from os-vif.
pub(super) fn aims(finding: &mut Finding, plug: &Chart, unplug: &Chart) {
    for (what, chart) in [("plug", plug), ("unplug", unplug)] {
        for x in chart.sizes() {
            let grouped = grouped(x);
            let what = format!("{what} of {grouped}");
            finding.at_most(&format!("{what}: at most 1.10 × the floor"), chart.ratio(VIFD, FLOOR, x), 1.1, times);
            let faster = chart.ratio(OS_VIF, VIFD, x);
            if !faster.is_nan() {
                finding.at_least(&format!("{what}: at least 10 × as fast as os-vif"), faster, 10.0, times);
            }
        }
        if let (Some(ours), Some(floor)) = (chart.series(VIFD), chart.series(FLOOR)) {
            let more = ours.slope() - floor.slope();
            finding.at_most(&format!("{what}: growth no worse than the floor's"), more, 0.05, |_| {
                format!("slope {:.2}, the floor's {:.2}", ours.slope(), floor.slope())
            });
        }
    }
}

/// Seconds.
pub(super) struct Sample {
    pub(super) plug: f64,
    pub(super) unplug: f64,
}

pub(super) fn by_hand(records: &[Record]) -> Result<Sample> {
    let ovs = host::switch()?;
    let mut hand = Hand::on(&ovs)?;
    let (plugged, plug) = hand.plug(records)?;
    hand.catch_up()?;
    let unplug = hand.unplug(&plugged[1..])?;
    Ok(Sample { plug: plug.as_secs_f64(), unplug: unplug.as_secs_f64() })
}

pub(super) fn by_vifd(records: &[Record]) -> Result<Sample> {
    let ovs = host::switch()?;
    let mut vifd = host::vifd(&ovs)?;
    vifd.start()?;
    let prepared = prepare(&vifd, records)?;
    let mut watch = Watch::on(&vifd)?;
    watch.listed()?;
    let start = Instant::now();
    swap(&vifd, &prepared)?;
    watch.until_ready(records.len())?;
    let plug = start.elapsed();

    let mut hand = Hand::on(&ovs)?;
    hand.catch_up()?;
    let prepared = prepare(&vifd, &records[..1])?;
    let start = Instant::now();
    swap(&vifd, &prepared)?;
    watch.until_left(1)?;
    hand.catch_up()?;
    Ok(Sample { plug: plug.as_secs_f64(), unplug: start.elapsed().as_secs_f64() })
}

/// A VIF of no account comes first and stays: it has os-vif import and connect.
pub(super) fn by_os_vif(records: &[Record]) -> Result<Sample> {
    let ovs = host::switch()?;
    let mut os_vif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let count = u32::try_from(records.len())?;
    os_vif.plug(&records[0].clone().numbered(count + 1))?;
    let mut hand = Hand::on(&ovs)?;
    let start = Instant::now();
    records.iter().try_for_each(|record| os_vif.plug(record))?;
    hand.until_usable(records)?;
    let plug = start.elapsed();
    hand.catch_up()?;
    let start = Instant::now();
    records.iter().try_for_each(|record| os_vif.unplug(record))?;
    hand.catch_up()?;
    Ok(Sample { plug: plug.as_secs_f64(), unplug: start.elapsed().as_secs_f64() })
}

fn by_vsctl(records: &[Record]) -> Result<Sample> {
    let ovs = host::switch()?;
    let mut hand = Hand::on(&ovs)?;
    let arguments = peer::vsctl_add(records);
    let start = Instant::now();
    hand.make_taps(records)?;
    ovs.vsctl(arguments)?;
    hand.until_usable(records)?;
    let plug = start.elapsed();
    hand.catch_up()?;
    let arguments: Vec<String> =
        records[1..].iter().flat_map(|record| ["--".into(), "del-port".into(), record.vif_name()]).collect();
    let start = Instant::now();
    ovs.vsctl(arguments)?;
    hand.delete_taps(&records[1..])?;
    hand.catch_up()?;
    Ok(Sample { plug: plug.as_secs_f64(), unplug: start.elapsed().as_secs_f64() })
}

/// Writes a directory of records beside the one that vifd reads.
fn prepare(vifd: &Vifd, records: &[Record]) -> Result<std::path::PathBuf> {
    let folder = vifd.records().with_extension("next");
    fs::create_dir(&folder)?;
    for record in records {
        fs::write(folder.join(format!("{}.json", record.id())), record.0.to_string())?;
    }
    Ok(folder)
}

/// Puts it into place.
fn swap(vifd: &Vifd, prepared: &Path) -> Result<()> {
    let old = vifd.records().with_extension("old");
    fs::rename(vifd.records(), &old)?;
    fs::rename(prepared, vifd.records())?;
    fs::remove_dir_all(old).context("removing the old records")
}
