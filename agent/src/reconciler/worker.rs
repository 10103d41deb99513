//! A backend in a task of its own: one batch at a time, and a batch that was refused as a whole is split until
//! the operation at fault is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backend::{Attributed, Backend, Outcome, Party};
use crate::metrics;
use crate::model::VifId;
use crate::plan::BackendName;

/// Characters of an operation that are told.
const MOST_WORDS: usize = 300;

/// What became of a batch.
pub(super) struct Report {
    pub(super) backend: BackendName,
    /// On whose behalf, by operation.
    pub(super) parties: Vec<Party>,
    /// What became of it, by operation.
    pub(super) outcomes: Vec<Outcome>,
    /// What was done, by on whose behalf: the same number for the same operations.
    pub(super) prints: BTreeMap<Party, u64>,
    /// What was done on behalf of somebody, in words.
    pub(super) words: Box<dyn Fn(&Party) -> String + Send>,
    /// From handing it over to having its effects in the view.
    pub(super) took: Duration,
    /// Whether any of it was refused.
    pub(super) failed: bool,
}

/// What a worker may be told.
enum Task<Op> {
    Batch(Vec<Attributed<Op>>),
    Resync,
}

/// The reconciler's end of a worker.
pub(super) struct Worker<Op> {
    tasks: mpsc::UnboundedSender<Task<Op>>,
    task: JoinHandle<()>,
    name: BackendName,
    busy: bool,
    /// VIFs of the batch under way.
    in_flight: BTreeSet<VifId>,
}

impl<Op: Clone + Display + Send + Sync + 'static> Worker<Op> {
    /// Starts the worker; it ends when it is dropped.
    pub(super) fn spawn<B: Backend<Op = Op>>(mut backend: B, reports: mpsc::Sender<Report>) -> Self {
        // At most one batch and a few resyncs are ever in it.
        let (tasks, mut inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Some(task) = inbox.recv().await {
                match task {
                    Task::Resync => backend.resync().await,
                    Task::Batch(batch) => {
                        let report = work(&mut backend, batch).await;
                        if reports.send(report).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Worker { tasks, task, name: B::NAME, busy: false, in_flight: BTreeSet::new() }
    }

    /// Whether a batch can be handed over: there is one, and none is still under way. Otherwise the report of that leads
    /// to a new plan.
    pub(super) fn takes(&self, batch: &[Attributed<Op>]) -> bool {
        !self.busy && !batch.is_empty()
    }

    /// Hands over a batch, if it is taken.
    pub(super) fn hand(&mut self, batch: Vec<Attributed<Op>>) {
        if !self.takes(&batch) {
            return;
        }
        metrics::batch(self.name);
        metrics::writes(self.name, batch.len());
        self.in_flight = batch.iter().filter_map(|op| op.party.vif()).collect();
        // The task ends only with us, or by a panic, after which nothing is handed out any more.
        self.busy = self.tasks.send(Task::Batch(batch)).is_ok();
    }

    /// VIFs of the batch under way.
    pub(super) fn in_flight(&self) -> &BTreeSet<VifId> {
        &self.in_flight
    }

    /// Has the view read anew.
    pub(super) fn resync(&self) {
        let _ = self.tasks.send(Task::Resync);
    }

    /// Ends when the worker does, which only a panic in it makes it do.
    pub(super) async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Its report is in.
    pub(super) fn idle(&mut self) {
        self.busy = false;
        self.in_flight.clear();
    }
}

async fn work<B: Backend<Op: Display + Sync + 'static>>(backend: &mut B, batch: Vec<Attributed<B::Op>>) -> Report {
    let start = Instant::now();
    let parties: Vec<Party> = batch.iter().map(|op| op.party.clone()).collect();
    let mut prints: BTreeMap<Party, DefaultHasher> = BTreeMap::new();
    for op in &batch {
        op.op.hash(prints.entry(op.party.clone()).or_default());
    }
    let prints = prints.into_iter().map(|(party, hasher)| (party, hasher.finish())).collect();
    let outcomes = isolate(backend, &batch).await;
    let failed = outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::BatchFailed(_) | Outcome::PeerFailed(_)));
    let words = Box::new(move |party: &Party| words(&batch, party));
    Report { backend: B::NAME, parties, outcomes, prints, words, took: start.elapsed(), failed }
}

/// The first operation on behalf of a party, and how many more there are.
fn words<Op: Display>(batch: &[Attributed<Op>], party: &Party) -> String {
    let mut of = batch.iter().filter(|op| op.party == *party);
    let Some(first) = of.next() else { return String::new() };
    let mut words = first.op.to_string();
    // A group has more members than anybody reads.
    if let Some((end, _)) = words.char_indices().nth(MOST_WORDS) {
        words.truncate(end);
        words.push('…');
    }
    match of.count() {
        0 => words,
        more => format!("{words} (and {more} more)"),
    }
}

/// Applies `batch`; what is refused without a culprit is halved, party by party, until there is one.
async fn isolate<B: Backend<Op: Sync>>(backend: &mut B, batch: &[Attributed<B::Op>]) -> Vec<Outcome> {
    let mut outcomes = backend.apply(batch.to_vec()).await;
    // Ranges of `batch` that were refused as a whole.
    let mut refused = Vec::new();
    if is_refused_whole(&outcomes) {
        refused.push(0..batch.len());
    }
    while let Some(range) = refused.pop() {
        let Some(middle) = split(batch, range.clone()) else { continue };
        for half in [range.start..middle, middle..range.end] {
            let answers = backend.apply(batch[half.clone()].to_vec()).await;
            if is_refused_whole(&answers) {
                refused.push(half.clone());
            }
            outcomes[half].clone_from_slice(&answers);
        }
    }
    outcomes
}

fn is_refused_whole(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| matches!(outcome, Outcome::BatchFailed(_)))
}

/// Where to halve `range` so that no party's operations are torn apart; `None` when it is one's alone.
fn split<Op>(batch: &[Attributed<Op>], range: std::ops::Range<usize>) -> Option<usize> {
    let middle = range.start + range.len() / 2;
    let starts = |at: &usize| batch[*at].party != batch[*at - 1].party;
    let after = (middle.max(range.start + 1)..range.end).find(starts);
    after.or_else(|| (range.start + 1..middle).rev().find(starts))
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use uuid::Uuid;

    use super::*;
    use crate::model::View;

    /// Refuses any batch with a bad operation in it and does not say which.
    struct Mute {
        bad: BTreeSet<u128>,
        batches: usize,
    }

    impl Backend for Mute {
        type State = ();
        type Op = u128;
        const NAME: &'static str = "mute";

        fn observe(&self) -> watch::Receiver<View<()>> {
            watch::channel(View::Syncing).1
        }

        async fn apply(&mut self, batch: Vec<Attributed<u128>>) -> Vec<Outcome> {
            self.batches += 1;
            let bad = batch.iter().any(|op| self.bad.contains(&op.op));
            let outcome = if bad { Outcome::BatchFailed("no".into()) } else { Outcome::Done };
            vec![outcome; batch.len()]
        }

        async fn resync(&mut self) {}
    }

    #[tokio::test]
    async fn the_culprits_are_found_and_everybody_else_is_served() {
        let bad = BTreeSet::from([17, 512]);
        let mut backend = Mute { bad: bad.clone(), batches: 0 };
        let batch: Vec<_> =
            (0..1000).map(|op| Attributed { party: VifId(Uuid::from_u128(op / 2)).into(), op }).collect();
        let outcomes = isolate(&mut backend, &batch).await;
        for (op, outcome) in (0u128..).zip(&outcomes) {
            // A VIF's two operations stand and fall together.
            let held = bad.contains(&op) || bad.contains(&(op ^ 1));
            assert_eq!(*outcome == Outcome::Done, !held, "{op}: {outcome:?}");
        }
        assert!(backend.batches < 50, "{} batches", backend.batches);
    }
}
