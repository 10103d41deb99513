//! What vifd costs while nothing has to be done and every interface's statistics change.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde_json::json;
use vifd_integration::lab::Vifd;

use super::stage::{Host, Stage};
use crate::hand::Hand;
use crate::host;
use crate::{Chart, Finding, Role, Unit};

/// How often ovs-vswitchd writes statistics by default.
const EVERY: Duration = Duration::from_secs(5);

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "idle",
        "Idle while statistics churn",
        "Processor time (of all threads, by the clock of the process, which counts nanoseconds) over half a minute, in which the statistics of every interface
         are changed every five seconds, as ovs-vswitchd does where traffic flows. Memory is what is resident at the
         end of it, and the most that was resident at any time since the start.",
    );
    let mut processor = Chart::new("idle-processor", "Processor while idle", "VIFs", Unit::Percent);
    let mut memory = Chart::new("idle-memory", "Memory while idle", "VIFs", Unit::Octets);
    (processor.limit, memory.limit) = (Some(0.5), Some(40e6));
    let watched = Duration::from_secs(scale.pick(30, 6));
    for count in scale.pick(&[0, 1000, 4000][..], &[0, 250]) {
        let Host { vifd, ovs } = stage.with_vifs(*count)?;
        // As after a restart: what plugging the VIFs took is not what keeping them takes.
        vifd.stop()?;
        vifd.start()?;
        host::Watch::on(vifd)?.until_ready(*count as usize)?;
        std::thread::sleep(Duration::from_secs(2));
        let pid = pid(vifd)?;
        let mut hand = Hand::on(ovs)?;
        let (before, start) = (processor_time(pid)?, Instant::now());
        let mut number = 0;
        while start.elapsed() < watched {
            number += 1;
            let statistics =
                json!(["map", [["rx_packets", number], ["tx_packets", number], ["rx_bytes", 64 * number]]]);
            hand.transact(&[json!({"op": "update", "table": "Interface", "where": [],
                "row": {"statistics": statistics}})])?;
            std::thread::sleep(EVERY.min(watched.saturating_sub(start.elapsed())));
        }
        let spent = processor_time(pid)? - before;
        let x = f64::from(*count);
        processor.add("vifd", Role::Ours, x, vec![100.0 * spent / start.elapsed().as_secs_f64()]);
        memory.add("vifd", Role::Ours, x, vec![resident(pid, "VmRSS:")?]);
        memory.add("vifd, at most", Role::Part, x, vec![resident(pid, "VmHWM:")?]);
    }
    for x in processor.sizes() {
        let spent = processor.median("vifd", x);
        finding.at_most(&format!("{x} VIFs: less than 0.5 % of a core"), spent, 0.5, |v| Unit::Percent.show(v));
        let resident = memory.median("vifd", x);
        finding.at_most(&format!("{x} VIFs: at most 40 MB resident"), resident, 40e6, |v| Unit::Octets.show(v));
    }
    finding.charts = vec![processor, memory];
    Ok(finding)
}

fn pid(vifd: &mut Vifd) -> Result<u32> {
    Ok(vifd.daemon().context("vifd does not run")?.pid())
}

/// Seconds that the process has spent on a processor, threads that have ended included (clock_getcpuclockid(3)). It is
/// what the scheduler counts, in nanoseconds: the ticks of `/proc/PID/stat` would be 0.03 % of half a minute each.
fn processor_time(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    Ok(Duration::from(clock.now()?).as_secs_f64())
}

/// Octets (proc_pid_status(5)).
fn resident(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(1024.0 * kibibytes)
}
