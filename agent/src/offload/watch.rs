//! The task that looks at the datapath: now and then, while flows of some VIF are to be in hardware, and never otherwise.
//! Open vSwitch tells nobody of datapath flows that come and go, so this is asked for again and again; ADR 18 says what
//! that costs. What is seen is judged elsewhere.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::flow::LONGEST_LINE;
use super::ground::{Datapath, Expectation, Expectations, Ground};
use super::proof::{Proof, Proofs, Tally};
use crate::backend::unixctl::{ControlError, ask_for_lines};
use crate::model::{LinkState, OvsState, View, VifId};
use crate::reconciler::Control;

/// From a VIF's becoming ready to a look: its traffic has to begin first.
const SOON: Duration = Duration::from_secs(1);
/// ovs-vswitchd dumps flows in its main thread: so many times as long as it took it is left alone.
const CALM: u32 = 20;
/// For a dump. One of a hundred thousand flows takes ovs-vswitchd seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a dump that are read. Open vSwitch has 200,000 flows at most unless it is told otherwise (`flow-limit`).
const MOST_LINES: usize = 250_000;

/// Where it looks, and for whom.
#[derive(Debug)]
pub struct Watch {
    /// The VIFs whose flows are to be in hardware.
    pub expected: watch::Receiver<Arc<Expectations>>,
    /// The database.
    pub ovs: watch::Receiver<View<OvsState>>,
    /// The kernel's links.
    pub links: watch::Receiver<View<LinkState>>,
    /// The configuration, which says how often.
    pub control: watch::Receiver<Control>,
    /// Directory of ovs-vswitchd's sockets.
    pub rundir: PathBuf,
}

/// What decided for all flows of a VIF when they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grounds {
    expectation: Expectation,
    hw_offload: bool,
    skips_hardware: bool,
}

impl Watch {
    /// Looks for as long as its senders live.
    #[must_use]
    pub fn spawn(self) -> watch::Receiver<Arc<Proofs>> {
        let (sender, proofs) = watch::channel(Arc::default());
        tokio::spawn(self.run(sender));
        proofs
    }

    async fn run(mut self, proofs: watch::Sender<Arc<Proofs>>) {
        let mut grounds = BTreeMap::new();
        let (mut due, mut earliest) = (Instant::now(), Instant::now());
        loop {
            let expected = Arc::clone(&self.expected.borrow_and_update());
            let every = self.control.borrow_and_update().look_every.filter(|_| !expected.is_empty());
            if every.is_none() {
                publish(&proofs, Proofs::new());
                grounds.clear();
            }
            let time_to_look = async {
                match every {
                    Some(_) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.expected.changed() => {
                    if changed.is_err() { return }
                    due = due.min(earliest.max(Instant::now() + SOON));
                }
                changed = self.control.changed() => {
                    if changed.is_err() { return }
                    due = due.min(earliest.max(Instant::now() + SOON));
                }
                () = time_to_look => {
                    let begun = Instant::now();
                    self.look(&expected, &mut grounds, &proofs).await;
                    earliest = Instant::now() + begun.elapsed() * CALM;
                    due = earliest.max(begun + every.unwrap_or(SOON));
                }
            }
        }
    }

    /// Looks once at all datapaths that have flows of these VIFs. What cannot be seen says nothing.
    async fn look(
        &self,
        expected: &Expectations,
        grounds: &mut BTreeMap<VifId, Grounds>,
        proofs: &watch::Sender<Arc<Proofs>>,
    ) {
        let (ovs, links) = (self.ovs.borrow().clone(), self.links.borrow().clone());
        let Some(ovs) = ovs.ready() else { return };
        let ground = Ground::survey(ovs, links.ready(), expected);
        let mut datapaths: BTreeMap<Datapath, Vec<(&VifId, &str)>> = BTreeMap::new();
        for (id, wanted) in expected {
            let Some(bridge) = ovs.bridges.get(wanted.bridge.as_str()) else { continue };
            let datapath = if bridge.is_userspace() { Datapath::Userspace } else { Datapath::Kernel };
            datapaths.entry(datapath).or_default().push((id, &wanted.port));
        }
        let before = Arc::clone(&proofs.borrow());
        let mut seen = Proofs::new();
        for (datapath, vifs) in datapaths {
            let told: BTreeMap<VifId, Proof> = match self.dump(datapath, &ground, &vifs).await {
                Ok(told) => told,
                Err(error) => {
                    tracing::debug!(datapath = datapath.name(), %error, "the flows of the datapath cannot be read");
                    vifs.iter().map(|(id, _)| (**id, Proof::unread(&error.to_string()))).collect()
                }
            };
            for (id, proof) in told {
                let Some(expectation) = expected.get(&id).cloned() else { continue };
                let (hw_offload, skips_hardware) = (ground.hw_offload, ground.skips_hardware);
                let now = Grounds { expectation, hw_offload, skips_hardware };
                let same = grounds.insert(id, now.clone()).is_some_and(|then| then == now);
                let before = before.get(&id).filter(|_| same).map(AsRef::as_ref);
                seen.insert(id, Arc::new(proof.after(before)));
            }
        }
        grounds.retain(|id, _| expected.contains_key(id));
        publish(proofs, seen);
    }

    async fn dump(
        &self,
        datapath: Datapath,
        ground: &Ground,
        vifs: &[(&VifId, &str)],
    ) -> Result<BTreeMap<VifId, Proof>, ControlError> {
        let mut tally = Tally::new(ground, vifs.iter().copied());
        let mut lines = 0;
        let whole = ask_for_lines(
            &self.rundir,
            "dpctl/dump-flows",
            &["-m", "--names", datapath.name()],
            PATIENCE,
            LONGEST_LINE,
            &mut |line| {
                lines += 1;
                if let Some(line) = line {
                    tally.line(line);
                }
                if lines < MOST_LINES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        )
        .await?;
        Ok(tally.finish(!whole))
    }
}

/// Tells what is new.
fn publish(proofs: &watch::Sender<Arc<Proofs>>, seen: Proofs) {
    proofs.send_if_modified(|known| {
        let differs = **known != seen;
        if differs {
            *known = Arc::new(seen);
        }
        differs
    });
}
