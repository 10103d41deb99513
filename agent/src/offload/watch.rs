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
                    due = sooner(due, every, earliest);
                }
                changed = self.control.changed() => {
                    if changed.is_err() { return }
                    due = sooner(due, every, earliest);
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

/// When to look after something changed: soon, and in its turn at the latest.
fn sooner(due: Instant, every: Option<Duration>, earliest: Instant) -> Instant {
    let soon = earliest.max(Instant::now() + SOON);
    if every.is_some() { due.min(soon) } else { soon }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::Config;
    use crate::model::Bridge;

    fn id() -> VifId {
        "00000001-0000-4000-8000-000000000000".parse().unwrap()
    }

    /// Answers one question, and tells what it was.
    async fn answer(listener: &UnixListener, answer: &serde_json::Value) -> serde_json::Value {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = vec![0; 1000];
        let length = stream.read(&mut question).await.unwrap();
        stream.write_all(answer.to_string().as_bytes()).await.unwrap();
        serde_json::from_slice(&question[..length]).unwrap()
    }

    #[tokio::test]
    async fn nobody_is_asked_while_nothing_is_expected() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("ovs-vswitchd.7.ctl")).unwrap();
        let mut state =
            OvsState { other_config: [("hw-offload", "true")].into_iter().collect(), ..OvsState::default() };
        state.bridges.insert("br0".into(), Bridge { name: "br0".into(), ..Bridge::default() }.into());
        let (expect, expected) = watch::channel(Arc::new(Expectations::new()));
        let (_state, ovs) = watch::channel(View::Ready(Arc::new(state)));
        let (_links, links) = watch::channel(View::Syncing);
        let look_every = Some(Duration::from_secs(1));
        let settings = Config::default().settings().unwrap();
        let (_control, control) = watch::channel(Control { settings, enforce: true, resync: None, look_every });
        let watch = Watch { expected, ovs, links, control, rundir: directory.path().to_owned() };
        let mut proofs = watch.spawn();
        let quiet = tokio::time::timeout(SOON + SOON / 5, listener.accept()).await;
        assert!(quiet.is_err(), "somebody asked");

        let expectation = Expectation { port: "eth1".into(), bridge: "br0".into(), ..Expectation::default() };
        expect.send_replace(Arc::new([(id(), expectation)].into()));
        let dump = "recirc_id(0),in_port(eth1),eth_type(0x0800), packets:1, bytes:98, used:0.1s, offloaded:yes, dp:tc, \
                    actions:eth2\n";
        let question = answer(&listener, &serde_json::json!({"id": 0, "error": null, "result": dump})).await;
        assert_eq!(question["method"], "dpctl/dump-flows");
        assert_eq!(question["params"], serde_json::json!(["-m", "--names", "system@ovs-system"]));
        let told = proofs.wait_for(|proofs| proofs.contains_key(&id())).await.unwrap()[&id()].clone();
        assert_eq!((told.truth, told.reason), (crate::status::Truth::True, "InHardware"));

        // The next one comes in its turn, and a refusal is told.
        answer(&listener, &serde_json::json!({"id": 0, "result": null, "error": "no such datapath"})).await;
        proofs.changed().await.unwrap();
        let told = proofs.borrow_and_update()[&id()].clone();
        assert!(told.reason == "CannotBeRead" && told.message.ends_with("no such datapath"), "{}", told.message);

        expect.send_replace(Arc::default());
        proofs.wait_for(|proofs| proofs.is_empty()).await.unwrap();
    }
}
