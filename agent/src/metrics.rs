//! The metrics: every name, its help text, and the functions by which the agent counts. What is told of each
//! VIF is not counted but rendered from the status at scrape time (`metrics/exposition.rs`, of its flows `metrics/switches.rs`), so that series of
//! VIFs that are gone are gone; the process's own are read from `/proc` (`metrics/process.rs`).
//!
//! A change here is a change of `docs/metrics.md` and, where it is shown, of `deploy/grafana-dashboard.json`.

mod exposition;
mod process;
mod switches;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::backend::Outcome;
use crate::inspect::FlowMetrics;
use crate::plan::{BackendName, LINKS, NICS, OPENFLOW, OVSDB};
use crate::status::HostStatus;

const WRITES: &str = "vifd_writes_total";
const OPERATIONS: &str = "vifd_operations_total";
const BATCHES: &str = "vifd_batches_total";
const PLAN: &str = "vifd_plan_seconds";
const APPLY: &str = "vifd_apply_seconds";
const READY: &str = "vifd_ready_seconds";
const DRIFT_REPAIR: &str = "vifd_drift_repair_seconds";
const SESSION_UP: &str = "vifd_session_up";
const SESSION_RESTARTS: &str = "vifd_session_restarts_total";
const RESYNCS: &str = "vifd_resyncs_total";

/// Upper bounds in seconds of the time that a plan takes.
const PLAN_BUCKETS: [f64; 10] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Upper bounds in seconds of what waits for peers: from one transaction to thousands of ports.
const PEER_BUCKETS: [f64; 13] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0];

/// The peers that sessions are held with.
pub mod peer {
    /// ovsdb-server.
    pub const OVSDB: &str = "ovsdb";
    /// The kernel, over rtnetlink.
    pub const KERNEL: &str = "kernel";
    /// The NICs, over devlink, sysfs, ethtool and rtnetlink.
    pub const DEVLINK: &str = "devlink";

    /// The switch of a bridge, over OpenFlow.
    #[must_use]
    pub fn switch(bridge: &str) -> String {
        format!("openflow:{bridge}")
    }
}

/// What a scrape is answered from.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

/// Starts counting; once per process, later calls answer the same exporter.
#[must_use]
pub fn install() -> Exporter {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let builder =
            [PLAN, APPLY, READY, DRIFT_REPAIR].into_iter().try_fold(PrometheusBuilder::new(), |builder, name| {
                let buckets: &[f64] = if name == PLAN { &PLAN_BUCKETS } else { &PEER_BUCKETS };
                builder.set_buckets_for_metric(Matcher::Full(name.into()), buckets)
            });
        // Only an empty list of bounds is refused; without bounds they would be summaries.
        let builder = builder.unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("something else in this process records metrics: vifd's stay at zero");
        }
        describe();
        handle
    });
    Exporter(handle.clone())
}

/// Help texts, and zeros for the series that are known beforehand: a rate needs a first value.
fn describe() {
    describe_counter!(WRITES, "Modifying operations sent to a backend; 0 after an unchanged restart.");
    describe_counter!(OPERATIONS, "Operations by backend and what became of them.");
    describe_counter!(BATCHES, "Batches sent to a backend; one batch of ovsdb is one transaction.");
    describe_histogram!(PLAN, Unit::Seconds, "Time to plan the whole host.");
    describe_histogram!(APPLY, Unit::Seconds, "Time from sending a batch until its effects are seen.");
    describe_histogram!(READY, Unit::Seconds, "Time from a record being seen until its VIF is ready.");
    describe_histogram!(DRIFT_REPAIR, Unit::Seconds, "Time from the notification of a drift until it is repaired.");
    describe_gauge!(SESSION_UP, "Whether the session with a peer is up and its view complete.");
    describe_counter!(SESSION_RESTARTS, "Sessions with a peer that ended and were started again.");
    describe_counter!(RESYNCS, "Times that a peer's whole state was read again, by reason.");
    for backend in [OVSDB, LINKS, NICS, OPENFLOW] {
        counter!(WRITES, "backend" => backend).increment(0);
        counter!(BATCHES, "backend" => backend).increment(0);
        for outcome in OUTCOMES {
            counter!(OPERATIONS, "backend" => backend, "outcome" => outcome).increment(0);
        }
    }
    for (peer, reason) in
        [(peer::OVSDB, "closed"), (peer::OVSDB, "inactive"), (peer::KERNEL, "overrun"), (peer::DEVLINK, "overrun")]
    {
        counter!(RESYNCS, "peer" => peer, "reason" => reason).increment(0);
    }
    for peer in [peer::OVSDB, peer::KERNEL, peer::DEVLINK] {
        gauge!(SESSION_UP, "peer" => peer).set(0);
        counter!(SESSION_RESTARTS, "peer" => peer).increment(0);
    }
}

const OUTCOMES: [&str; 7] = ["done", "conflict", "failed", "untried", "batch_failed", "peer_failed", "unknown"];

fn outcome_name(outcome: &Outcome) -> &'static str {
    let [done, conflict, failed, untried, batch_failed, peer_failed, unknown] = OUTCOMES;
    match outcome {
        Outcome::Done => done,
        Outcome::Conflict(_) => conflict,
        Outcome::Failed(_) => failed,
        Outcome::Untried => untried,
        Outcome::BatchFailed(_) => batch_failed,
        Outcome::PeerFailed(_) => peer_failed,
        Outcome::Unknown => unknown,
    }
}

/// A plan was made.
pub fn record_plan(duration: Duration) {
    histogram!(PLAN).record(duration);
}

/// A batch was applied: one outcome for each operation.
pub fn record_apply(backend: BackendName, duration: Duration, outcomes: &[Outcome]) {
    histogram!(APPLY, "backend" => backend).record(duration);
    for outcome in outcomes {
        counter!(OPERATIONS, "backend" => backend, "outcome" => outcome_name(outcome)).increment(1);
    }
}

/// So many modifying operations are sent.
pub fn writes(backend: BackendName, operations: usize) {
    counter!(WRITES, "backend" => backend).increment(operations as u64);
}

/// A batch is sent.
pub fn batch(backend: BackendName) {
    counter!(BATCHES, "backend" => backend).increment(1);
}

/// The session with a [`peer`] is up, or down.
pub fn session_up(peer: impl Into<String>, up: bool) {
    gauge!(SESSION_UP, "peer" => peer.into()).set(f64::from(u8::from(up)));
}

/// The session with a [`peer`] ended and starts again.
pub fn session_restart(peer: impl Into<String>) {
    counter!(SESSION_RESTARTS, "peer" => peer.into()).increment(1);
}

/// The whole state of a [`peer`] is read again; `reason` is a short word.
pub fn resync(peer: &'static str, reason: &'static str) {
    counter!(RESYNCS, "peer" => peer, "reason" => reason).increment(1);
}

/// A VIF is ready, so long after its record was seen.
pub fn ready(duration: Duration) {
    histogram!(READY).record(duration);
}

/// A drift was repaired, so long after the notification of it.
pub fn drift_repair(duration: Duration) {
    histogram!(DRIFT_REPAIR).record(duration);
}

impl Exporter {
    /// Everything, in Prometheus' text format (version 0.0.4).
    #[must_use]
    pub fn render(&self, status: &HostStatus, flows: &FlowMetrics, today: SystemTime) -> String {
        let mut text = self.0.render();
        exposition::host(&mut text, status, today);
        switches::flows(&mut text, flows);
        exposition::build(&mut text);
        process::render(&mut text);
        text
    }

    /// Takes in what was recorded, so that it does not pile up where nobody scrapes. To be called every few
    /// seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}
