//! The task that joins source, planner and backends: it wakes when something changed, plans, hands each idle
//! backend its batch, and tells what is. It decides nothing that `plan` could decide.
//!
//! ```text
//!        ┌──────────────────────── wake ◄───────────────────────┐
//!        ▼                                                      │
//!   plan(desired, observed, holds, orders) ─► batch ─► worker ──┤ views, reports,
//!        │                                    (one per backend) │ records, commands,
//!        └──► HostStatus ─► API, metrics, CLI                    │ the end of a hold
//!                                                               │
//!                     source, backends, operators ──────────────┘
//! ```

mod hindrances;
pub mod orders;
mod quarrels;
mod repairs;
mod telling;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use self::hindrances::Hindrances;
use self::orders::OrderBook;
use self::quarrels::{Quarrels, Temper};
use self::repairs::Repairs;
use self::telling::Teller;
use self::worker::{Report, Worker};
use crate::backend::links::LinkOp;
use crate::backend::nics::NicOp;
use crate::backend::openflow::FlowOp;
use crate::backend::ovs::OvsOp;
use crate::backend::{Attributed, Backend, Outcome, Party};
use crate::metrics;
use crate::model::{Desired, FlowState, LinkState, NicState, Observed, OvsState, SwitchStates, View, Vif, VifId};
use crate::offload::{Expectations, Proofs};
use crate::plan::pipeline::{NetworkKey, OwnerTag};
use crate::plan::{
    self, BackendName, Clash, FlowsOf, Holds, Inputs, Intended, LINKS, Memo, NICS, OPENFLOW, OVSDB, Plan, Settings,
    plan,
};
use crate::record;
use crate::source::{Intake, Source};
use crate::status::{HostStatus, SessionStatus};

/// What the API may ask of the reconciler. Records do not pass here: they go to the source.
#[derive(Debug)]
pub enum Command {
    /// Leaves one VIF, or the whole host, as it is until resumed. Survives a restart.
    Pause(Option<VifId>, oneshot::Sender<Result<(), String>>),
    /// Ends a pause.
    Resume(Option<VifId>, oneshot::Sender<Result<(), String>>),
    /// Lets the removals that `max_removals` stopped go ahead, answers which.
    ConfirmRemovals(oneshot::Sender<BTreeSet<VifId>>),
    /// Takes our marks off everything and leaves the traffic running; answers how many objects were released.
    /// The agent stays paused afterwards.
    Release(oneshot::Sender<Result<usize, String>>),
    /// Answers what the planner has in mind for these flows; nothing where it makes none.
    Intended(FlowsOf, oneshot::Sender<Option<Intended>>),
    /// Answers the managed bridges that a network has VIFs on.
    BridgesOf(NetworkKey, oneshot::Sender<Vec<String>>),
    /// Answers what plans are made from.
    Seen(oneshot::Sender<Seen>),
}

/// What plans are made from, for people who look: to have it costs nothing.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is wanted.
    pub desired: Arc<Desired>,
    /// Wanted records that clash with others.
    pub clashes: BTreeMap<VifId, Clash>,
    /// What is seen.
    pub observed: Observed,
    /// The configuration's.
    pub settings: Settings,
    /// Whether plans are carried out.
    pub enforce: bool,
}

/// What can be changed while the agent runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// The planner's settings.
    pub settings: Settings,
    /// Whether plans are carried out; otherwise they are only shown (`mode = "observe"`).
    pub enforce: bool,
    /// How often to read and compare everything anew without a cause.
    pub resync: Option<Duration>,
    /// How often the datapath is looked at for flows that are to be in hardware; never where it is `None`.
    pub look_every: Option<Duration>,
}

/// Everything the reconciler is joined to.
pub struct Joints<S, L, N, O, F> {
    /// Where records come from.
    pub source: S,
    /// The kernel.
    pub links: L,
    /// The NICs.
    pub nics: N,
    /// Open vSwitch.
    pub ovs: O,
    /// The switches of managed bridges.
    pub flows: F,
    /// The configuration as it stands.
    pub control: watch::Receiver<Control>,
    /// What is asked from outside.
    pub commands: mpsc::Receiver<Command>,
    /// Where the status goes.
    pub status: watch::Sender<Arc<HostStatus>>,
    /// Where those VIFs go that are ready and whose flows are to be in hardware.
    pub expected: watch::Sender<Arc<Expectations>>,
    /// What was seen of their flows.
    pub proofs: watch::Receiver<Arc<Proofs>>,
    /// Wakes the reconciler when what `sessions` tells has changed.
    pub sessions_changed: watch::Receiver<()>,
    /// How the sessions with the peers are.
    pub sessions: Box<dyn Fn() -> Vec<SessionStatus> + Send>,
    /// Whether anything may be written, as far as other agents are concerned; what `sessions_changed` tells.
    pub may_write: Box<dyn Fn() -> bool + Send>,
    /// Where pauses are kept.
    pub state_dir: PathBuf,
    /// How often the service manager wants a sign of life.
    pub watchdog: Option<Duration>,
}

/// The reconciler's own state.
struct Reconciler<S> {
    source: S,
    intake: watch::Receiver<Intake>,
    links_view: watch::Receiver<View<LinkState>>,
    /// The view from before the batch under way.
    links_seen: View<LinkState>,
    nics_view: watch::Receiver<View<NicState>>,
    ovs_view: watch::Receiver<View<OvsState>>,
    flows_view: watch::Receiver<View<BTreeMap<String, View<FlowState>>>>,
    links: Worker<LinkOp>,
    nics: Worker<NicOp>,
    ovs: Worker<OvsOp>,
    flows: Worker<FlowOp>,
    control: watch::Receiver<Control>,
    proofs: watch::Receiver<Arc<Proofs>>,
    sessions: Box<dyn Fn() -> Vec<SessionStatus> + Send>,
    teller: Teller,
    orders: OrderBook,
    holds: Holds,
    quarrels: Quarrels,
    repairs: Repairs,
    /// Bridges whose switch was there when last looked at.
    switches_up: BTreeSet<String>,
    may_write: Box<dyn Fn() -> bool + Send>,
    memo: Memo,
    clashes: Clashes,
    release: Option<Release>,
    /// VIFs that the last plan wanted to remove and was not allowed to.
    stopped: Vec<VifId>,
    wake_at: Option<Instant>,
    /// Whether a batch of links has come back since the last batch for the database: then ports wait no longer.
    waited_for_links: bool,
    /// Objects of a later release that have been told of.
    newer_marks: usize,
    /// Bridges of somebody else that have been told of.
    unmanaged: BTreeSet<String>,
    hindrances: Hindrances,
}

/// A release under way.
struct Release {
    /// Whether a batch of it was handed out.
    begun: bool,
    released: usize,
    reply: oneshot::Sender<Result<usize, String>>,
}

/// Joins everything until `shutdown` turns true. What is on the host stays as it is then.
///
/// # Errors
/// The state directory cannot be read, or a backend broke off.
pub async fn run<S, L, N, O, F>(
    joints: Joints<S, L, N, O, F>,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()>
where
    S: Source,
    L: Backend<State = LinkState, Op = LinkOp>,
    N: Backend<State = NicState, Op = NicOp>,
    O: Backend<State = OvsState, Op = OvsOp>,
    F: Backend<State = BTreeMap<String, View<FlowState>>, Op = FlowOp>,
{
    let Joints {
        source, links, nics, ovs, flows, control, mut commands, status, sessions, state_dir, watchdog, ..
    } = joints;
    let (mut sessions_changed, may_write) = (joints.sessions_changed, joints.may_write);
    let (expected, proofs) = (joints.expected, joints.proofs);
    let (reports, mut reported) = mpsc::channel(4);
    let mut reconciler = Reconciler {
        intake: source.observe(),
        source,
        links_view: links.observe(),
        links_seen: View::Syncing,
        nics_view: nics.observe(),
        ovs_view: ovs.observe(),
        flows_view: flows.observe(),
        links: Worker::spawn(links, reports.clone()),
        nics: Worker::spawn(nics, reports.clone()),
        ovs: Worker::spawn(ovs, reports.clone()),
        flows: Worker::spawn(flows, reports),
        control,
        proofs,
        sessions,
        teller: Teller::new(status, expected),
        orders: OrderBook::open(state_dir).await?,
        holds: Holds::default(),
        quarrels: Quarrels::default(),
        repairs: Repairs::default(),
        switches_up: BTreeSet::new(),
        may_write,
        memo: Memo::default(),
        clashes: Clashes::default(),
        release: None,
        stopped: Vec::new(),
        wake_at: None,
        waited_for_links: false,
        newer_marks: 0,
        unmanaged: BTreeSet::new(),
        hindrances: Hindrances::default(),
    };
    // Half the time that is allowed, so that one late beat is not a death.
    let mut heartbeat = interval(watchdog.map_or(Duration::from_secs(3600), |limit| limit / 2));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_resync = Instant::now();
    loop {
        reconciler.step().await;
        while let Ok(report) = reported.try_recv() {
            reconciler.learn(report);
            reconciler.step().await;
        }
        let resync_at = reconciler.control.borrow().resync.map(|every| last_resync + every);
        let wake_at = [reconciler.wake_at, resync_at].into_iter().flatten().min();
        tokio::select! {
            changed = reconciler.intake.changed() => if changed.is_err() { break },
            changed = reconciler.links_view.changed() => if changed.is_err() { break },
            changed = reconciler.nics_view.changed() => if changed.is_err() { break },
            changed = reconciler.ovs_view.changed() => if changed.is_err() { break },
            changed = reconciler.flows_view.changed() => if changed.is_err() { break },
            changed = reconciler.control.changed() => if changed.is_err() { break },
            changed = reconciler.proofs.changed() => if changed.is_err() { break },
            changed = sessions_changed.changed() => if changed.is_err() { break },
            Some(report) = reported.recv() => reconciler.learn(report),
            Some(command) = commands.recv() => reconciler.obey(command).await,
            () = sleep_until(wake_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)).into()) => {
                if resync_at.is_some_and(|at| at <= Instant::now()) {
                    last_resync = Instant::now();
                    reconciler.links.resync();
                    reconciler.nics.resync();
                    reconciler.ovs.resync();
                    reconciler.flows.resync();
                }
            }
            _ = heartbeat.tick() => {
                // Without a service manager there is nobody to tell, which is no error.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            () = reconciler.links.ended() => return Err(ended(LINKS)),
            () = reconciler.nics.ended() => return Err(ended(NICS)),
            () = reconciler.ovs.ended() => return Err(ended(OVSDB)),
            () = reconciler.flows.ended() => return Err(ended(OPENFLOW)),
            () = async { drop(shutdown.wait_for(|down| *down).await) } => break,
        }
    }
    Ok(())
}

impl<S: Source> Reconciler<S> {
    /// Plans once, hands out what can be handed out, tells what is.
    async fn step(&mut self) {
        let now = Instant::now();
        let control = self.control.borrow_and_update().clone();
        let intake = self.intake.borrow_and_update().clone();
        // Links are made in several steps, the mark being one of them: what is half done is not looked at.
        let links = self.links_view.borrow_and_update().clone();
        if !self.links.is_busy() {
            self.links_seen = links;
        }
        let flows = match &*self.flows_view.borrow_and_update() {
            View::Ready(flows) => Arc::clone(flows),
            View::Syncing => Arc::default(),
        };
        self.meet(&flows);
        let observed = Observed {
            links: self.links_seen.clone(),
            nics: self.nics_view.borrow_and_update().clone(),
            ovs: self.ovs_view.borrow_and_update().clone(),
            flows,
        };
        if self.clashes.refresh(&intake, &observed, &control.settings) {
            let changed = self.teller.changed(&intake.desired, OwnerTag::of(&control.settings.agent));
            for vif in changed.vifs {
                self.holds.forget(vif);
                self.quarrels.forget(vif);
                self.repairs.forget(vif);
            }
            if !changed.shared.is_empty() {
                self.holds.forget_sharers(&changed.shared, now);
                self.quarrels.forget_sharers(&changed.shared);
            }
        }
        let in_flight = [self.links.in_flight(), self.nics.in_flight(), self.ovs.in_flight(), self.flows.in_flight()];
        let in_flight = in_flight.into_iter().flatten().copied().collect();
        let inputs = Inputs {
            desired: &intake.desired,
            clashes: &self.clashes.found,
            observed: &observed,
            holds: &self.holds,
            orders: self.orders.orders(),
            in_flight: &in_flight,
            settings: &control.settings,
        };
        let mut plan = plan(inputs, &mut self.memo, now);
        metrics::record_plan(now.elapsed());
        if let Some(released) = self.releasing(&observed, &control.settings) {
            (plan.links, plan.nics) = (released.links, released.nics);
            (plan.ovs, plan.flows) = (released.ovs, released.flows);
        }
        if observed.is_complete() {
            let leaving = |id: &VifId| plan.judgements.contains_key(id) && !intake.desired.vifs.contains_key(id);
            // While the set is not known to be whole, what is absent from it has not come back.
            let stopped = if intake.desired.synced {
                plan.stopped_removals.clone()
            } else {
                self.orders.orders().stopped.iter().filter(|id| leaving(id)).copied().collect()
            };
            self.orders.removals(&stopped, leaving).await;
            self.holds.retain(|id| plan.judgements.contains_key(id));
            // While the agent is paused nothing is planned for anybody.
            if !self.orders.orders().paused {
                let busy = plan.flows.iter().map(|op| &op.party).collect();
                self.holds.retain_sharers(OPENFLOW, &busy, now);
            }
        }
        for id in &plan.gone {
            self.source.gone(*id, intake.revision).await;
        }
        self.wake_at = plan.wake_at;
        if plan.newer_marks > self.newer_marks {
            tracing::warn!(objects = plan.newer_marks, "made by a later release of vifd and left alone");
        }
        self.newer_marks = plan.newer_marks;
        // What is not seen says nothing: a session that comes back is no news.
        if observed.ovs.ready().is_some() {
            for (bridge, reason) in plan.unmanaged.iter().filter(|(bridge, _)| !self.unmanaged.contains(*bridge)) {
                tracing::warn!(bridge, "vifd does not manage it, although it is configured to: {reason}");
            }
            self.unmanaged = plan.unmanaged.keys().cloned().collect();
        }
        if observed.nics.ready().is_some() {
            self.hindrances.tell(&plan);
        }
        self.stopped.clone_from(&plan.stopped_removals);
        let verdict = |id: VifId| plan.judgements.get(&id).map(|of| &of.verdict);
        for (vif, sentence) in self.repairs.finished(verdict) {
            tracing::info!(%vif, "repaired: {sentence}");
        }
        if control.enforce && (self.may_write)() {
            let (links, ovs) = plan.batches(!self.waited_for_links);
            let drifted = |id| {
                self.teller.has_drifted(id, intake.desired.vifs.get(&id), plan.judgements.get(&id).map(AsRef::as_ref))
            };
            if self.holds.of_peer(LINKS, now).is_none() && self.links.takes(&links) {
                self.repairs.links(&links, drifted);
                self.links.hand(links);
            }
            if self.holds.of_peer(NICS, now).is_none() && self.nics.takes(&plan.nics) {
                self.repairs.nics(&plan.nics, drifted);
                self.nics.hand(plan.nics.clone());
            }
            if self.holds.of_peer(OVSDB, now).is_none() && self.ovs.takes(&ovs) {
                self.repairs.ovs(&ovs, drifted);
                tell_takeovers(&ovs, &observed);
                tell_configuration(&ovs);
                self.ovs.hand(ovs);
                self.waited_for_links = false;
            }
            if self.holds.of_peer(OPENFLOW, now).is_none() && self.flows.takes(&plan.flows) {
                self.repairs.flows(&plan.flows, drifted);
                self.flows.hand(plan.flows.clone());
            }
        } else if let Some(release) = self.release.take() {
            let _ = release.reply.send(Err("the agent may not write at the moment".to_owned()));
        }
        // Last of all: to tell of a host of thousands takes longer than to plan it, and nobody's port waits for it.
        let scene = telling::Scene {
            intake: &intake,
            observed: &observed,
            plan: &plan,
            holds: &self.holds,
            orders: self.orders.orders(),
            enforce: control.enforce,
            proofs: Arc::clone(&self.proofs.borrow_and_update()),
            sessions: (self.sessions)(),
        };
        self.teller.tell(&scene, now, SystemTime::now());
    }

    /// What the last plan was made from, or newer.
    fn seen(&self) -> Seen {
        let control = self.control.borrow().clone();
        let flows = match &*self.flows_view.borrow() {
            View::Ready(flows) => Arc::clone(flows),
            View::Syncing => Arc::default(),
        };
        let (links, nics) = (self.links_seen.clone(), self.nics_view.borrow().clone());
        let ovs = self.ovs_view.borrow().clone();
        Seen {
            desired: Arc::clone(&self.intake.borrow().desired),
            clashes: self.clashes.found.clone(),
            observed: Observed { links, nics, ovs, flows },
            settings: control.settings,
            enforce: control.enforce,
        }
    }

    /// A switch that comes up has no flows, whoever takes them back, and has refused none.
    fn meet(&mut self, flows: &SwitchStates) {
        let up = flows.iter().filter(|(_, view)| view.ready().is_some());
        let up: BTreeSet<String> = up.map(|(bridge, _)| bridge.clone()).collect();
        if !up.is_subset(&self.switches_up) {
            self.quarrels.new_peer(OPENFLOW);
            self.holds.new_peer(OPENFLOW);
        }
        self.switches_up = up;
    }

    /// The plan of a release under way; the release ends when it is empty. Batches that were handed out before it
    /// are waited for: what they make is to be released as well.
    fn releasing(&mut self, observed: &Observed, settings: &Settings) -> Option<Plan> {
        let busy = self.links.is_busy() || self.nics.is_busy() || self.ovs.is_busy() || self.flows.is_busy();
        let release = self.release.as_mut()?;
        if busy || !observed.is_complete() {
            return Some(Plan::default());
        }
        let plan = plan::release(observed, settings);
        let objects = plan.links.len() + plan.nics.len() + plan.ovs.len();
        if objects > 0 {
            release.begun = true;
            release.released += objects;
        } else if let Some(done) = self.release.take() {
            tracing::info!(objects = done.released, "released");
            // Nobody waits for the answer any more: the marks are off all the same.
            let _ = done.reply.send(Ok(done.released));
        }
        Some(plan)
    }

    /// Takes in what became of a batch.
    fn learn(&mut self, report: Report) {
        let now = Instant::now();
        match report.backend {
            LINKS => {
                self.links.idle();
                self.waited_for_links = true;
            }
            NICS => self.nics.idle(),
            OPENFLOW => self.flows.idle(),
            _ => self.ovs.idle(),
        }
        metrics::record_apply(report.backend, report.took, &report.outcomes);
        let refused = report.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::PeerFailed(error) => Some(error.clone()),
            _ => None,
        });
        match refused {
            None => self.holds.peer_answered(report.backend),
            Some(error) => {
                tracing::warn!(backend = report.backend, error, "everything is refused, tried again later");
                self.holds.peer_refused(report.backend, error, now);
            }
        }
        self.repairs.learn(report.backend, &report.outcomes);
        let outcomes = report.parties.into_iter().zip(report.outcomes);
        self.note_outcomes(report.backend, outcomes, &report.prints, &report.words, now);
        if let Some(release) = self.release.take_if(|release| release.begun && report.failed) {
            let _ = release.reply.send(Err("an object could not be released: see the log".to_owned()));
        }
    }

    /// A party of which one operation was refused is held, whatever became of its others.
    fn note_outcomes(
        &mut self,
        backend: BackendName,
        outcomes: impl Iterator<Item = (Party, Outcome)>,
        prints: &BTreeMap<Party, u64>,
        words: &dyn Fn(&Party) -> String,
        now: Instant,
    ) {
        self.quarrels.cool(now);
        let mut worst: BTreeMap<Party, Outcome> = BTreeMap::new();
        let badness = |outcome: &Outcome| match outcome {
            Outcome::Untried | Outcome::Unknown | Outcome::PeerFailed(_) => 0,
            Outcome::Done => 1,
            Outcome::Conflict(_) => 2,
            Outcome::Failed(_) | Outcome::BatchFailed(_) => 3,
        };
        for (party, outcome) in outcomes {
            let worse = worst.get(&party).is_none_or(|known| badness(known) < badness(&outcome));
            if worse {
                worst.insert(party, outcome);
            }
        }
        for (party, outcome) in worst {
            let vif = party.vif().map(tracing::field::display);
            match outcome {
                Outcome::Done => {
                    let print = prints.get(&party).copied().unwrap_or_default();
                    match self.quarrels.changed(party.clone(), backend, print, now) {
                        Temper::Calm => self.holds.succeeded(party, backend),
                        Temper::Tense => {}
                        Temper::Quarrel => {
                            let what = words(&party);
                            tracing::warn!(vif, backend, what, "somebody else undoes it: left alone for a while");
                            self.holds.quarrelled(party, backend, what, now);
                        }
                    }
                }
                Outcome::Untried | Outcome::Unknown | Outcome::PeerFailed(_) => {}
                Outcome::Conflict(error) => self.holds.conflicted(party, backend, error, now),
                Outcome::Failed(error) | Outcome::BatchFailed(error) => {
                    tracing::warn!(vif, backend, error, "refused, tried again later");
                    self.holds.refused(party, backend, error, now);
                }
            }
        }
    }

    /// Does what was asked from outside. An answer that nobody waits for any more is no error.
    async fn obey(&mut self, command: Command) {
        match command {
            Command::Pause(vif, reply) => drop(reply.send(self.orders.pause(vif).await)),
            Command::Resume(vif, reply) => drop(reply.send(self.orders.resume(vif).await)),
            Command::ConfirmRemovals(reply) => {
                let mut confirmed: BTreeSet<VifId> = self.stopped.iter().copied().collect();
                confirmed.extend(self.source.confirm_empty().await);
                self.orders.confirm(&confirmed);
                let _ = reply.send(confirmed);
            }
            Command::Release(reply) => {
                let enforce = self.control.borrow().enforce;
                if !enforce {
                    let _ = reply.send(Err("the agent is in observe mode and writes nothing".to_owned()));
                } else if let Err(error) = self.orders.pause(None).await {
                    let _ = reply.send(Err(error));
                } else {
                    self.release = Some(Release { begun: false, released: 0, reply });
                }
            }
            Command::Intended(of, reply) => {
                let owner = OwnerTag::of(&self.control.borrow().settings.agent);
                let _ = reply.send(self.memo.intended(owner, &of));
            }
            Command::BridgesOf(network, reply) => drop(reply.send(self.memo.bridges_of(network))),
            Command::Seen(reply) => drop(reply.send(self.seen())),
        }
    }
}

/// Says what goes with the bridges of others that are taken over.
fn tell_takeovers(batch: &[Attributed<OvsOp>], observed: &Observed) {
    for op in batch {
        let OvsOp::SecureBridge { name, marks, .. } = &op.op else { continue };
        // With our mark on it, it was ours before.
        if !marks.is_empty() {
            continue;
        }
        let state = observed.flows.get(name).and_then(|view| view.ready());
        let foreign = state.into_iter().flat_map(|state| state.foreign.values()).flat_map(|set| set.values());
        // The one that Open vSwitch makes on a bridge that switches by itself is nobody's.
        let flows = foreign.filter(|flow| flow.priority > 0 || flow.cookie != 0).count();
        tracing::warn!(
            bridge = name,
            flows,
            "takes over a bridge of somebody else (takeover = true): its fail_mode is set to secure, by which Open \
             vSwitch drops all flows on it"
        );
    }
}

/// Says what is set of the whole switch, and when it takes effect.
fn tell_configuration(batch: &[Attributed<OvsOp>]) {
    for op in batch {
        let OvsOp::ConfigureSwitch { other_config } = &op.op else { continue };
        let entries: Vec<String> = other_config.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let entries = entries.join(" ");
        if other_config.contains_key("hw-offload") || other_config.contains_key("tc-policy") {
            tracing::warn!(
                "sets other_config of Open vSwitch: {entries}; all of it is in force when ovs-vswitchd has been started \
                 again, which vifd leaves to you"
            );
        } else {
            tracing::info!("sets other_config of Open vSwitch: {entries}");
        }
    }
}

/// A worker that is gone has panicked: better to start over than to look alive.
fn ended(backend: BackendName) -> std::io::Error {
    std::io::Error::other(format!("the {backend} backend broke off"))
}

/// The clashes between records, looked for anew only when the set of records is another.
#[derive(Default)]
struct Clashes {
    made_from: Option<MadeFrom>,
    found: BTreeMap<VifId, Clash>,
}

struct MadeFrom {
    desired: Arc<Desired>,
    per_port_bridge: bool,
    /// Whether it was known what is on the host, and so who was there first.
    views_ready: bool,
}

impl Clashes {
    /// Answers whether the records are others than before. Of two VIFs that want the same thing the one that had it
    /// keeps it: by the records before, and at the start by what is on the host.
    fn refresh(&mut self, intake: &Intake, observed: &Observed, settings: &Settings) -> bool {
        let views_ready = observed.is_complete();
        let per_port_bridge = settings.per_port_bridge;
        let desired = &intake.desired;
        let same_records = self
            .made_from
            .as_ref()
            .is_some_and(|from| Arc::ptr_eq(&from.desired, desired) && from.per_port_bridge == per_port_bridge);
        if same_records && self.made_from.as_ref().is_some_and(|from| from.views_ready || !views_ready) {
            return false;
        }
        // Those that had it by the records before; then those that have something on the host and were not known.
        let before = self.made_from.as_ref().filter(|from| from.views_ready);
        let known = |id: &VifId| before.and_then(|from| from.desired.vifs.get(id));
        let unchanged = |(id, vif): &(&VifId, &Arc<Vif>)| {
            known(id).is_some_and(|was| Arc::ptr_eq(was, vif)) && !self.found.contains_key(id)
        };
        let had_it = desired.vifs.iter().filter(unchanged).map(|(id, _)| *id).collect();
        let news = desired.vifs.keys().any(|id| known(id).is_none());
        let there = if news { plan::on_host(observed, settings) } else { BTreeSet::new() };
        let there = there.into_iter().filter(|id| known(id).is_none()).collect();
        self.found = record::clashes(&desired.vifs, &[had_it, there], per_port_bridge);
        self.made_from = Some(MadeFrom { desired: Arc::clone(desired), per_port_bridge, views_ready });
        !same_records
    }
}
