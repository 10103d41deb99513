//! From a plan to what the faces tell: statuses, made anew only for VIFs of which something changed, and the
//! times that only somebody who sees every plan can take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::backend::Attributed;
use crate::metrics;
use crate::model::{Desired, Observed, Vif, VifId};
use crate::plan::{BackendName, Holds, Judgement, LINKS, Missing, OVSDB, Orders, Plan, Verdict};
use crate::source::{Intake, Rejection};
use crate::status::{HostStatus, Phase, PlannedOp, SessionStatus, Subject, VifStatus};

/// What was planned, and from what.
pub(super) struct Scene<'a> {
    pub(super) intake: &'a Intake,
    pub(super) observed: &'a Observed,
    pub(super) plan: &'a Plan,
    pub(super) holds: &'a Holds,
    pub(super) orders: &'a Orders,
    pub(super) enforce: bool,
    pub(super) sessions: Vec<SessionStatus>,
}

/// What was told of a VIF, and what that was made from.
struct Told {
    vif: Option<Arc<Vif>>,
    rejection: Option<Rejection>,
    judgement: Option<Judgement>,
    enforce: bool,
    status: Arc<VifStatus>,
    /// Since when the record in force is known; taken away when its VIF first gets ready.
    wanted_since: Option<Instant>,
    /// Since when a VIF that was ready is not.
    drifted_since: Option<Instant>,
}

/// Keeps what was told.
pub(super) struct Teller {
    status: watch::Sender<Arc<HostStatus>>,
    told: BTreeMap<VifId, Told>,
}

impl Teller {
    pub(super) fn new(status: watch::Sender<Arc<HostStatus>>) -> Self {
        Teller { status, told: BTreeMap::new() }
    }

    /// VIFs whose record is another than the one last told of.
    pub(super) fn changed(&self, desired: &Desired) -> Vec<VifId> {
        let known = |vif: &Arc<Vif>| {
            let told = self.told.get(&vif.id).and_then(|told| told.vif.as_ref());
            told.is_some_and(|told| Arc::ptr_eq(told, vif))
        };
        desired.vifs.values().filter(|vif| !known(vif)).map(|vif| vif.id).collect()
    }

    pub(super) fn tell(&mut self, scene: &Scene<'_>, now: Instant, today: SystemTime) {
        let Scene { intake, plan, .. } = scene;
        let rejections: BTreeMap<VifId, &Rejection> =
            intake.rejections.iter().filter_map(|rejection| Some((rejection.vif?, rejection))).collect();
        let ids: BTreeSet<VifId> =
            intake.desired.vifs.keys().chain(rejections.keys()).chain(plan.judgements.keys()).copied().collect();
        self.told.retain(|id, _| ids.contains(id));
        for id in ids {
            let vif = intake.desired.vifs.get(&id);
            let (rejection, judgement) = (rejections.get(&id).copied(), plan.judgements.get(&id).map(AsRef::as_ref));
            let subject = Subject { id, vif: vif.map(AsRef::as_ref), rejection, judgement, enforce: scene.enforce };
            self.tell_vif(subject, vif, (now, today));
        }
        let status = HostStatus {
            revision: intake.revision,
            vifs: self.told.iter().map(|(id, told)| (*id, Arc::clone(&told.status))).collect(),
            rejections: Arc::clone(&intake.rejections),
            not_ready: not_ready(scene, now),
            stopped_removals: plan.stopped_removals.clone(),
            paused: scene.orders.paused,
            paused_vifs: scene.orders.paused_vifs.iter().copied().collect(),
            mode: if scene.enforce { "enforce" } else { "observe" }.to_owned(),
            planned: words(LINKS, &plan.links).chain(words(OVSDB, &plan.ovs)).collect(),
            foreign_conflicts: plan
                .judgements
                .values()
                .filter(|judgement| matches!(judgement.verdict, Verdict::Conflict { .. }))
                .count(),
            holds: scene.holds.count(now),
            sessions: scene.sessions.clone(),
            unseen: plan.judgements.iter().filter(|(_, judgement)| is_unseen(judgement)).map(|(id, _)| *id).collect(),
        };
        self.status.send_replace(Arc::new(status));
    }

    fn tell_vif(&mut self, subject: Subject<'_>, vif: Option<&Arc<Vif>>, (now, today): (Instant, SystemTime)) {
        let Subject { id, rejection, judgement, enforce, .. } = subject;
        let before = self.told.get(&id);
        let same_record = match (before.and_then(|told| told.vif.as_ref()), vif) {
            (Some(told), Some(vif)) => Arc::ptr_eq(told, vif),
            (None, None) => true,
            _ => false,
        };
        // While the database cannot be seen, nothing says that what was right is not any more.
        let blind = judgement.is_some_and(is_unseen) && before.is_some_and(|told| told.judgement.is_some());
        if blind && same_record && before.is_some_and(|told| told.rejection.as_ref() == rejection) {
            return;
        }
        let unchanged = before.is_some_and(|told| {
            same_record
                && told.rejection.as_ref() == rejection
                && told.judgement.as_ref() == judgement
                && told.enforce == enforce
        });
        if unchanged {
            return;
        }
        let status = VifStatus::render(subject, before.map(|told| told.status.as_ref()), now, today);
        let was_ready = before.is_some_and(|told| told.status.phase == Phase::Ready);
        let is_ready = status.phase == Phase::Ready;
        let mut wanted_since = match before {
            Some(told) if same_record => told.wanted_since,
            _ => vif.map(|_| now),
        };
        let mut drifted_since = before.filter(|_| same_record).and_then(|told| told.drifted_since);
        if was_ready && !is_ready && same_record {
            drifted_since.get_or_insert(now);
        }
        if is_ready {
            if let Some(since) = wanted_since.take() {
                metrics::ready(now.duration_since(since));
            }
            if let Some(since) = drifted_since.take() {
                metrics::drift_repair(now.duration_since(since));
            }
        }
        log(id, before.map(|told| told.status.as_ref()), &status);
        let told = Told {
            vif: vif.cloned(),
            rejection: rejection.cloned(),
            judgement: judgement.cloned(),
            enforce,
            status: Arc::new(status),
            wanted_since,
            drifted_since,
        };
        self.told.insert(id, told);
    }
}

/// Whether a VIF was not looked at, because a view that it needs is not complete.
fn is_unseen(judgement: &Judgement) -> bool {
    matches!(judgement.verdict, Verdict::Waiting(Missing::View(_)))
}

/// One line for each change that somebody may want to find again, and none for the steps in between.
fn log(id: VifId, before: Option<&VifStatus>, status: &VifStatus) {
    if before.is_some_and(|before| before.phase == status.phase && before.message == status.message) {
        return;
    }
    match status.phase {
        Phase::Ready => tracing::info!(vif = %id, port = status.facts.port, "ready"),
        Phase::Failed | Phase::Conflict => {
            tracing::warn!(vif = %id, reason = status.reason, "{}", status.message);
        }
        Phase::Removing => tracing::info!(vif = %id, reason = status.reason, "{}", status.message),
        Phase::Pending | Phase::Working | Phase::Plugged | Phase::Waiting => {
            tracing::debug!(vif = %id, phase = status.phase.name(), "{}", status.message);
        }
    }
}

fn words<Op: Display>(backend: BackendName, ops: &[Attributed<Op>]) -> impl Iterator<Item = PlannedOp> {
    ops.iter().map(move |op| PlannedOp { backend: backend.to_owned(), vif: op.vif, action: op.op.to_string() })
}

/// Why the agent cannot vouch for the host, a sentence each.
fn not_ready(scene: &Scene<'_>, now: Instant) -> Vec<String> {
    let mut reasons = Vec::new();
    for backend in [OVSDB, LINKS] {
        if let Some(hold) = scene.holds.of_peer(backend, now) {
            reasons.push(format!("{backend} refuses everything: {}", hold.error));
        }
    }
    if !scene.intake.desired.synced {
        let problem = scene.intake.problem.as_deref().unwrap_or("records are still being read");
        reasons.push(format!("the set of records is not complete: {problem}"));
    }
    if scene.observed.ovs.ready().is_none() {
        reasons.push("the Open vSwitch database is not synchronised".to_owned());
    } else if scene.observed.ovs.ready().is_some_and(|ovs| !ovs.vswitchd_alive) {
        reasons.push("ovs-vswitchd is not running, or still starting".to_owned());
    }
    if scene.observed.links.ready().is_none() {
        reasons.push("the kernel's links are not synchronised".to_owned());
    }
    if !scene.plan.stopped_removals.is_empty() {
        let why = if scene.intake.desired.vifs.is_empty() { "there is no record at all" } else { "max_removals" };
        reasons.push(format!(
            "{} VIFs on this host have no record and are left alone ({why}) until `vifd confirm-removals`",
            scene.plan.stopped_removals.len()
        ));
    }
    reasons
}
