//! Flows into a switch in one bundle, and a switch's flows compared with what is wanted, beside `ovs-ofctl` doing the
//! same with the same file.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use flows::diff::diff_flows;
use flows::endpoint::Endpoint;
use flows::message::Message;
use flows::session::{Config, Handle, Outcome, Session, SessionState};
use flows::{Flow, FlowCommand, FlowMod};
use tokio::runtime::Runtime;
use vifd_integration::lab::{Ovs, Switch};

use super::stage::Stage;
use crate::finding::times;
use crate::hand::BRIDGE;
use crate::timing::least;
use crate::{Chart, Finding, Role, Unit, rounds};

const VIFD: &str = "vifd";
const OFCTL: &str = "ovs-ofctl";
const PARSE: &str = "of vifd's: reading the text";

/// A switch without flows, and a file of flows.
struct Scene {
    ovs: Ovs,
    file: PathBuf,
    count: usize,
}

impl Scene {
    fn new(count: usize) -> Result<Scene> {
        let ovs = Ovs::start(Switch::Dummy)?;
        ovs.vsctl(["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=dummy", "fail_mode=secure"])?;
        let file = ovs.run_directory().join("flows.txt");
        fs::write(&file, text(count))?;
        Ok(Scene { ovs, file, count })
    }

    fn socket(&self) -> PathBuf {
        self.ovs.run_directory().join(format!("{BRIDGE}.mgmt"))
    }

    fn ofctl(&self, command: &[&str]) -> Result<String> {
        let switch = format!("unix:{}", self.socket().display());
        let (options, command) = command.split_at(command.len() - 1);
        let file = self.file.display().to_string();
        let mut arguments = vec!["-O", "OpenFlow14"];
        arguments.extend(options);
        arguments.extend([command[0], &switch]);
        if command[0] != "del-flows" {
            arguments.push(&file);
        }
        self.ovs.ofctl(arguments)
    }

    /// Seconds until the flows of the file are in the switch.
    fn add_by_ofctl(&self) -> Result<f64> {
        self.ofctl(&["del-flows"])?;
        let start = Instant::now();
        self.ofctl(&["--bundle", "add-flows"])?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds until it is clear that nothing has to be done.
    fn compare_by_ofctl(&self) -> Result<f64> {
        let start = Instant::now();
        // It fails, with what differs, where anything does.
        self.ofctl(&["diff-flows"])?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn add_by_vifd(&self) -> Result<f64> {
        self.ofctl(&["del-flows"])?;
        let runtime = runtime()?;
        let start = Instant::now();
        let add = |flow| Message::FlowMod(FlowMod::new(FlowCommand::Add, flow));
        let messages: Vec<Message> = self.wanted()?.into_iter().map(add).collect();
        let outcome = runtime.block_on(async { anyhow::Ok(session(self.socket()).await?.bundle(messages).await) })?;
        let took = start.elapsed();
        ensure!(outcome == Outcome::Committed, "the bundle: {outcome:?}");
        Ok(took.as_secs_f64())
    }

    fn compare_by_vifd(&self) -> Result<f64> {
        let runtime = runtime()?;
        let start = Instant::now();
        let wanted = self.wanted()?;
        let there = runtime.block_on(async { anyhow::Ok(session(self.socket()).await?.dump_flows().await?) })?;
        ensure!(there.len() == self.count, "the switch has {} flows", there.len());
        let changes = diff_flows(&wanted, there.iter().map(|stats| &stats.flow), |_| true);
        let took = start.elapsed();
        ensure!(changes.changes.is_empty() && changes.clashes.is_empty(), "something has changed");
        Ok(took.as_secs_f64())
    }

    fn wanted(&self) -> Result<Vec<Flow>> {
        let text = fs::read_to_string(&self.file)?;
        text.lines().map(|line| line.parse::<Flow>().with_context(|| line.to_owned())).collect()
    }
}

/// A session that is ready.
async fn session(socket: PathBuf) -> Result<Handle> {
    let session = Session::spawn(Config::new(Endpoint::Unix(socket)));
    session.state().wait_for(|state| matches!(state, SessionState::Ready(_))).await?;
    Ok(session)
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Flows such as a VIF's: of its port, its addresses, and the way to it.
fn text(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let vif = number / 4;
        let [_, a, b, c] = u32::try_from(vif).unwrap_or_default().to_be_bytes();
        let cookie = 0x5eed_0000_0000_0000_u64 | vif as u64;
        let mac = format!("52:54:00:{a:02x}:{b:02x}:{c:02x}");
        let network = 0x0051_0000 + vif % 50;
        let port = 1 + vif % 60_000;
        let rest = match number % 4 {
            0 => format!(
                "table=0, priority=100,in_port={port},vlan_tci={:#06x}/0x1fff actions=set_field:{network:#x}->metadata,\
                 set_field:{port:#x}->reg5,goto_table:10",
                vif / 60_000
            ),
            1 => format!("table=10, priority=100,reg5={vif:#x},dl_src={mac} actions=goto_table:11"),
            2 => format!(
                "table=12, priority=100,ip,reg5={vif:#x},dl_src={mac},nw_src=10.{a}.{b}.{c} actions=goto_table:20"
            ),
            _ => format!(
                "table=40, priority=100,metadata={network:#x},dl_dst={mac} actions=set_field:{vif:#x}->reg6,goto_table:60"
            ),
        };
        let _ = writeln!(text, "cookie={cookie:#x}, {rest}");
    }
    text
}

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "flows",
        "Flows into a switch, and compared with what is there",
        "The same file of flows, the same switch, one after the other: `ovs-ofctl --bundle add-flows` and `diff-flows`
         as programs, their start of a few milliseconds with them; vifd's library in this process. Both read the text,
         connect, and have the switch's word in the end. vifd itself reads no text: what that takes of its time is
         shown.",
    );
    let mut added = Chart::new("flows-bundle", "Flows into an empty switch, in one bundle", "flows", Unit::Seconds);
    let mut compared = Chart::new("flows-diff", "A switch's flows compared with those wanted", "flows", Unit::Seconds);
    for count in scale.pick(&[10_000u32, 100_000][..], &[10_000]) {
        let scene = Scene::new(*count as usize)?;
        let x = f64::from(*count);
        let turns = scale.pick(5, 2);
        let [ours, theirs] =
            rounds(turns, |side, _| if side == 0 { scene.add_by_vifd() } else { scene.add_by_ofctl() })?;
        added.add(VIFD, Role::Ours, x, ours);
        added.add(OFCTL, Role::Peer, x, theirs);
        let [ours, theirs] =
            rounds(turns, |side, _| if side == 0 { scene.compare_by_vifd() } else { scene.compare_by_ofctl() })?;
        compared.add(VIFD, Role::Ours, x, ours);
        compared.add(OFCTL, Role::Peer, x, theirs);
        scene.wanted()?;
        let parsing = least(3, || scene.wanted()).as_secs_f64();
        added.add(PARSE, Role::Part, x, vec![parsing]);
        compared.add(PARSE, Role::Part, x, vec![parsing]);
    }
    for x in added.sizes() {
        let what = format!("{x} flows by bundle: at most 1.05 × ovs-ofctl");
        finding.at_most(&what, added.ratio(VIFD, OFCTL, x), 1.05, times);
    }
    let most = compared.sizes().last().copied().unwrap_or_default();
    let what = format!("dump and diff of {most} unchanged flows: at most 0.7 × ovs-ofctl diff-flows");
    finding.at_most(&what, compared.ratio(VIFD, OFCTL, most), 0.7, times);
    finding.charts.extend([added, compared]);
    Ok(finding)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flows::FlowId;

    use super::*;

    #[test]
    fn every_flow_is_another() -> Result<()> {
        let text = text(1000);
        let ids = text.lines().map(|line| Ok(FlowId::of(&line.parse::<Flow>()?))).collect::<Result<BTreeSet<_>>>()?;
        assert_eq!(ids.len(), 1000);
        Ok(())
    }
}
