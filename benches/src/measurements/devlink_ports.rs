//! A dump of devlink's ports, beside the octets of it and devlink(8), in the VM on netdevsim.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devlink::{Devlink, EswitchChange, EswitchMode};
use tokio::runtime::Runtime;
use vifd::backend::Backend as _;
use vifd::backend::nics::{Nics, NicsConfig};
use vifd_integration::lab::find_tool;

use super::representors::script;
use super::stage::Stage;
use crate::hand::genetlink::Dump;
use crate::{Chart, Finding, Role, Scale, Unit, elsewhere, rounds};

const NIC: &str = "netdevsim/netdevsim10";

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    elsewhere::in_vm("devlink", stage.scale, Duration::from_secs(400))
}

/// The part in the VM.
pub(super) fn part(scale: Scale) -> Result<Finding> {
    let mut finding = Finding::new(
        "devlink",
        "A dump of devlink's ports",
        "In the VM, which is ten times slower than the machine: ratios count. A netdevsim in switchdev mode with so many functions
         has as many ports and one more. vifd: `Devlink::ports()`, every port decoded and in a list. The floor asks
         the same on a raw socket, and drops what comes. devlink(8) is `devlink -j port show` into nothing, its start as a
         program with it. The grey line is the whole look that the agent's backend takes at the NIC after an event: every port,
         the features of every representor's netdev and the settings of every function, with a state made of it; its samples were taken
         after the others, not in turns.",
    );
    let mut chart = Chart::new("devlink-ports", "A dump of devlink's ports", "ports", Unit::Seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    script(
        r#"modprobe psample
        insmod "$VIFD_VM/netdevsim/stock/netdevsim.ko"
        echo '10 1' >/sys/bus/netdevsim/new_device
        echo 1000 >/sys/kernel/debug/netdevsim/netdevsim10/max_vfs"#,
    )?;
    let mut octets = 0;
    for functions in scale.pick(&[100, 300, 999][..], &[30, 100]) {
        octets = at(&runtime, *functions, scale.pick(15, 3), &mut chart)
            .with_context(|| format!("{functions} functions"))?;
    }
    // Taking a thousand ports away takes longer than all else here, and they go with the VM.
    let slope = |who: &str| chart.series(who).map_or(f64::NAN, crate::Series::slope);
    let (ours, floor) = (slope("vifd"), slope("floor"));
    finding.at_most("growth no worse than the floor's", ours - floor, 0.1, |_| {
        format!("slope {ours:.2}, the floor's {floor:.2}")
    });
    finding.notes.push(format!("The largest dump has {octets} octets."));
    finding.charts = vec![chart];
    Ok(finding)
}

/// Measures with as many functions; octets of the dump.
fn at(runtime: &Runtime, functions: u32, turns: usize, chart: &mut Chart) -> Result<usize> {
    let device: devlink::Device = NIC.parse()?;
    let mode = |mode| EswitchChange { mode: Some(mode), ..EswitchChange::default() };
    let count = |count: u32| script(&format!("echo {count} >/sys/bus/netdevsim/devices/netdevsim10/sriov_numvfs"));
    runtime.block_on(async {
        let devlink = Devlink::open()?;
        devlink.set_eswitch(&device, mode(EswitchMode::Legacy)).await?;
        count(0)?;
        count(functions)?;
        devlink.set_eswitch(&device, mode(EswitchMode::Switchdev)).await?;
        anyhow::Ok(())
    })?;
    let ports = functions as usize + 1;
    let mut dump = Dump::of_ports()?;
    let devlink = runtime.block_on(async { Devlink::open() })?;
    let program = find_tool("devlink")?;
    let samples: [Vec<f64>; 3] = rounds(turns, |side, _| {
        let start = Instant::now();
        match side {
            0 => drop(dump.read()?),
            1 => ensure!(runtime.block_on(devlink.ports(|error| panic!("{error}")))?.len() == ports, "other ports"),
            _ => {
                let status = Command::new(&program).args(["-j", "port", "show"]).stdout(Stdio::null()).status()?;
                ensure!(status.success(), "devlink: {status}");
            }
        }
        Ok(start.elapsed().as_secs_f64())
    })?;
    let x = f64::from(functions + 1);
    for ((who, role), samples) in
        [("floor", Role::Floor), ("vifd", Role::Ours), ("devlink(8)", Role::Peer)].into_iter().zip(samples)
    {
        chart.add(who, role, x, samples);
    }
    let state = tempfile::tempdir()?;
    let looks = runtime.block_on(async {
        let mut nics = Nics::spawn(NicsConfig::new(state.path()))?;
        let mut looks = Vec::new();
        for _ in 0..=turns.min(5) {
            nics.resync().await;
            looks.push(Duration::from_micros(nics.statistics().last_read_us).as_secs_f64());
        }
        anyhow::Ok(looks.split_off(1))
    })?;
    chart.add("a whole look", Role::Part, x, looks);
    dump.read()
}
