//! ovs-vswitchd started anew under a managed bridge: until the flows of every VIF are back.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flows::endpoint::Endpoint;
use flows::message::FlowsRequest;
use flows::session::{Config, Handle, Session, SessionState};
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use vifd_integration::lab::{Ovs, Switch, Vifd, native_guest};

use super::stage::Stage;
use crate::hand::BRIDGE;
use crate::host::Watch;
use crate::{Chart, Finding, Role, Unit, rounds};

const OFCTL: &str = "ovs-ofctl";
const VIFD: &str = "vifd";

/// VIFs of one network.
const MEMBERS: u32 = 50;
/// Nothing that is waited for takes longer; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A host with a managed bridge, what was on its switch, and how many flows that were.
struct Scene {
    vifd: Vifd,
    ovs: Ovs,
    groups: PathBuf,
    flows: PathBuf,
    count: u64,
}

impl Scene {
    fn new(vifs: u32) -> Result<Scene> {
        let ovs = Ovs::start(Switch::Userspace)?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.config.resync = "10m".into();
        vifd.config.max_removals = "100%".into();
        vifd.config.more =
            format!("[[bridge]]\nname = \"{BRIDGE}\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n");
        for number in 0..vifs {
            let mut record = native_guest(number + 1, number / MEMBERS);
            record.0["vif"]["port_profile"]["create_tap"] = true.into();
            vifd.put(&record)?;
        }
        vifd.start()?;
        Watch::on(&vifd)?.until_ready(vifs as usize)?;
        let file = |name: &str| ovs.run_directory().join(name);
        let (groups, flows) = (file("groups.txt"), file("flows.txt"));
        let mut scene = Scene { vifd, ovs, groups, flows, count: 0 };
        let of_each = |text: String, part: &str| -> Vec<String> {
            text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
        };
        let there = of_each(scene.ovs.of14("dump-flows", BRIDGE, &["--no-names", "--no-stats"])?, "actions=");
        scene.count = there.len() as u64;
        fs::write(&scene.flows, there.join("\n"))?;
        fs::write(&scene.groups, of_each(scene.ovs.of14("dump-groups", BRIDGE, &[])?, "group_id=").join("\n"))?;
        Ok(scene)
    }

    fn socket(&self) -> PathBuf {
        self.ovs.run_directory().join(format!("{BRIDGE}.mgmt"))
    }

    /// Starts ovs-vswitchd anew and returns when the switch answers.
    fn restart(&mut self) -> Result<Instant> {
        self.ovs.stop_vswitchd(Signal::SIGTERM)?;
        self.ovs.launch_vswitchd()?;
        let begin = Instant::now();
        loop {
            if let Some(answered) = hello(&self.socket()) {
                return Ok(answered);
            }
            ensure!(begin.elapsed() < PATIENCE, "the switch does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn by_vifd(&mut self, runtime: &Runtime) -> Result<f64> {
        let answered = self.restart()?;
        let socket = self.socket();
        let wanted = self.count;
        runtime.block_on(async {
            let switch = session(socket).await?;
            while u64::from(switch.aggregate(FlowsRequest::default()).await?.flow_count) < wanted {
                ensure!(answered.elapsed() < PATIENCE, "the flows do not come back");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        })?;
        let took = answered.elapsed();
        self.rest()?;
        Ok(took.as_secs_f64())
    }

    /// With what was saved before, as `ovs-ctl restart` does.
    fn by_ofctl(&mut self) -> Result<f64> {
        self.vifd.stop()?;
        let answered = self.restart()?;
        for (command, file) in [("add-groups", &self.groups), ("add-flows", &self.flows)] {
            let file = file.to_str().context("a path")?;
            self.ovs.of14(command, BRIDGE, &["--bundle", file])?;
        }
        let took = answered.elapsed();
        self.vifd.start()?;
        self.rest()?;
        Ok(took.as_secs_f64())
    }

    /// Until all is as it was.
    fn rest(&mut self) -> Result<()> {
        self.ovs.vswitchd_answers()?;
        Watch::on(&self.vifd)?.until_ready(self.count_of_vifs()?)?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    fn count_of_vifs(&self) -> Result<usize> {
        Ok(fs::read_dir(self.vifd.records())?.count())
    }
}

/// When the switch has said hello, if it does.
fn hello(socket: &Path) -> Option<Instant> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    // OpenFlow 1.4, OFPT_HELLO, eight octets.
    stream.write_all(&[5, 0, 0, 8, 0, 0, 0, 1]).ok()?;
    stream.read_exact(&mut [0; 8]).ok()?;
    Some(Instant::now())
}

async fn session(socket: PathBuf) -> Result<Handle> {
    let session = Session::spawn(Config::new(Endpoint::Unix(socket)));
    session.state().wait_for(|state| matches!(state, SessionState::Ready(_))).await?;
    Ok(session)
}

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "restart",
        "ovs-vswitchd starts anew",
        "From the switch's first word on its management socket until it has all flows again; where ports are concerned
         flows wait for their numbers, which ovs-vswitchd writes into the database. Beside it `ovs-ofctl --bundle`
         puts back what was saved before, which has no number to wait for and may be wrong.",
    );
    let mut chart = Chart::new("restart", "Flows back after ovs-vswitchd started anew", "VIFs", Unit::Seconds);
    chart.limit = Some(0.2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for count in scale.pick(&[50u32, 250, 1000][..], &[50]) {
        let mut scene = Scene::new(*count)?;
        let samples: [Vec<f64>; 2] = rounds(scale.pick(5, 2), |side, _| match side {
            0 => scene.by_vifd(&runtime),
            _ => scene.by_ofctl(),
        })?;
        for ((who, role), samples) in [(VIFD, Role::Ours), (OFCTL, Role::Peer)].into_iter().zip(samples) {
            chart.add(who, role, f64::from(*count), samples);
        }
    }
    for x in chart.sizes() {
        let took = chart.median(VIFD, x);
        finding.at_most(&format!("{x} VIFs: within 200 ms"), took, 0.2, |value| Unit::Seconds.show(value));
    }
    finding.charts.push(chart);
    Ok(finding)
}
