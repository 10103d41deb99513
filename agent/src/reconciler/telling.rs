//! From a plan to what the faces tell: statuses, made anew only for VIFs of which something changed, and the
//! times that only somebody who sees every plan can take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::backend::Attributed;
use crate::metrics;
use crate::model::table::{pack, worth_packing};
use crate::model::{Desired, Observed, Policy, Table, Vif, VifId};
use crate::offload::{Expectations, Proof, Proofs};
use crate::plan::pipeline::{Cookie, NetworkKey, OwnerTag};
use crate::plan::{BackendName, Facts, Holds, Judgement, LINKS, Missing, NICS, OPENFLOW, OVSDB, Orders, Plan, Verdict};
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
    pub(super) proofs: Arc<Proofs>,
    pub(super) sessions: Vec<SessionStatus>,
}

/// What was told of a VIF, and what that was made from.
struct Told {
    vif: Option<Arc<Vif>>,
    rejection: Option<Box<Rejection>>,
    judgement: Option<Arc<Judgement>>,
    enforce: bool,
    proof: Option<Arc<Proof>>,
    status: Arc<VifStatus>,
    /// Since when the record in force is known; taken away when its VIF first gets ready.
    wanted_since: Option<Instant>,
    /// Since when a VIF that was ready is not; nothing while the hypervisor has yet to bring something, as when its guest
    /// stopped: what is done for that is what is always done.
    drifted_since: Option<Instant>,
}

/// Keeps what was told.
pub(super) struct Teller {
    status: watch::Sender<Arc<HostStatus>>,
    told: BTreeMap<VifId, Told>,
    /// What was told of last: only VIFs of which something differs from it are looked at.
    intake: Intake,
    judgements: Table<VifId, Judgement>,
    enforce: bool,
    proofs: Arc<Proofs>,
    /// Where those are told whose flows are to be in hardware.
    expected: watch::Sender<Arc<Expectations>>,
    /// The statuses of `told`.
    statuses: Table<VifId, VifStatus>,
    conflicts: BTreeSet<VifId>,
    unseen: BTreeSet<VifId>,
}

/// What is another for other records.
#[derive(Default)]
pub(super) struct Changed {
    /// VIFs whose record came, changed or went.
    pub(super) vifs: Vec<VifId>,
    /// Cookies of flows that VIFs share and that are made from records which came, changed or went.
    pub(super) shared: BTreeSet<u64>,
}

impl Teller {
    pub(super) fn new(status: watch::Sender<Arc<HostStatus>>, expected: watch::Sender<Arc<Expectations>>) -> Self {
        Teller {
            status,
            told: BTreeMap::new(),
            intake: Intake::default(),
            judgements: Table::default(),
            enforce: false,
            proofs: Arc::default(),
            expected,
            statuses: Table::default(),
            conflicts: BTreeSet::new(),
            unseen: BTreeSet::new(),
        }
    }

    /// What records have changed since those that were last told of.
    pub(super) fn changed(&self, desired: &Desired, owner: OwnerTag) -> Changed {
        let mut changed = Changed::default();
        self.intake.desired.vifs.differing(&desired.vifs, |id, was, is| {
            changed.vifs.push(*id);
            for vif in was.into_iter().chain(is) {
                changed.shared.insert(Cookie::network(owner, NetworkKey::of(vif)).0);
                let Policy { groups, group_members, rules, .. } = &vif.policy;
                let names = rules.iter().flatten().any(|rule| rule.remote_group.is_some());
                if names || !groups.is_empty() || !group_members.is_empty() {
                    changed.shared.insert(Cookie::groups(owner).0);
                }
            }
        });
        changed
    }

    /// Whether a VIF was ready, as told, and by a new plan is not, with the very same record: what that does for it is a
    /// repair.
    pub(super) fn has_drifted(&self, id: VifId, record: Option<&Arc<Vif>>, judgement: Option<&Judgement>) -> bool {
        let Some((told, record)) = self.told.get(&id).zip(record) else { return false };
        (told.status.phase == Phase::Ready || told.drifted_since.is_some())
            && told.vif.as_ref().is_some_and(|known| Arc::ptr_eq(known, record))
            && judgement.is_some_and(|of| of.verdict != Verdict::Ready)
    }

    pub(super) fn tell(&mut self, scene: &Scene<'_>, now: Instant, today: SystemTime) {
        let Scene { intake, plan, .. } = scene;
        let ids = self.differing(scene);
        let news = ids.len();
        let rejections: BTreeMap<VifId, &Rejection> =
            intake.rejections.iter().filter_map(|rejection| Some((rejection.vif?, rejection))).collect();
        for id in ids {
            let (vif, judgement) = (intake.desired.vifs.get(&id), plan.judgements.get(&id));
            self.expect(id, judgement.map(AsRef::as_ref));
            note(&mut self.conflicts, id, judgement.is_some_and(|of| matches!(of.verdict, Verdict::Conflict { .. })));
            note(&mut self.unseen, id, judgement.is_some_and(|of| is_unseen(of)));
            let rejection = rejections.get(&id).copied();
            if vif.is_none() && judgement.is_none() && rejection.is_none() {
                self.told.remove(&id);
                self.statuses.remove(&id);
                continue;
            }
            let proof = scene.proofs.get(&id);
            self.tell_vif(id, (vif, rejection, judgement), proof, scene.enforce, (now, today));
        }
        if worth_packing(news, self.told.len()) {
            pack(&mut self.told);
            self.statuses.pack();
        }
        let status = HostStatus {
            revision: intake.revision,
            vifs: self.statuses.clone(),
            rejections: Arc::clone(&intake.rejections),
            not_ready: not_ready(scene, now),
            stopped_removals: plan.stopped_removals.clone(),
            paused: scene.orders.paused,
            paused_vifs: scene.orders.paused_vifs.iter().copied().collect(),
            mode: if scene.enforce { "enforce" } else { "observe" }.to_owned(),
            planned: words(LINKS, &plan.links)
                .chain(words(NICS, &plan.nics))
                .chain(words(OVSDB, &plan.ovs))
                .chain(words(OPENFLOW, &plan.flows))
                .collect(),
            foreign_conflicts: self.conflicts.len(),
            holds: scene.holds.count(now),
            sessions: scene.sessions.clone(),
            unseen: self.unseen.clone(),
            unmanaged: plan.unmanaged.clone(),
            hindered: plan.hindered.clone(),
        };
        self.status.send_replace(Arc::new(status));
    }

    /// VIFs of which there may be something new to tell.
    fn differing(&mut self, scene: &Scene<'_>) -> BTreeSet<VifId> {
        let Scene { intake, plan, enforce, .. } = scene;
        let mut ids = BTreeSet::new();
        self.judgements.differing(&plan.judgements, |id, _, _| ids.extend([*id]));
        self.intake.desired.vifs.differing(&intake.desired.vifs, |id, _, _| ids.extend([*id]));
        if !Arc::ptr_eq(&self.intake.rejections, &intake.rejections) {
            log_refusals(&self.intake.rejections, &intake.rejections);
            ids.extend(self.intake.rejections.iter().chain(&*intake.rejections).filter_map(|rejection| rejection.vif));
        }
        if self.enforce != *enforce {
            ids.extend(self.told.keys());
        }
        if !Arc::ptr_eq(&self.proofs, &scene.proofs) {
            // Those that are expected and no others, so few of a host's.
            ids.extend(
                self.proofs.keys().chain(scene.proofs.keys()).filter(|id| self.proofs.get(id) != scene.proofs.get(id)),
            );
            self.proofs = Arc::clone(&scene.proofs);
        }
        self.judgements = plan.judgements.clone();
        self.intake = (*intake).clone();
        self.enforce = *enforce;
        ids
    }

    /// Has the flows of a VIF looked at that is ready, where they are to be in hardware.
    fn expect(&mut self, id: VifId, judgement: Option<&Judgement>) {
        let judgement = judgement.filter(|of| of.verdict == Verdict::Ready);
        let expectation = judgement.and_then(|of| of.offload.as_deref());
        self.expected.send_if_modified(|known| {
            if known.get(&id) == expectation {
                return false;
            }
            let known = Arc::make_mut(known);
            match expectation {
                Some(expectation) => known.insert(id, expectation.clone()),
                None => known.remove(&id),
            };
            true
        });
    }

    fn tell_vif(
        &mut self,
        id: VifId,
        (vif, rejection, judgement): (Option<&Arc<Vif>>, Option<&Rejection>, Option<&Arc<Judgement>>),
        proof: Option<&Arc<Proof>>,
        enforce: bool,
        (now, today): (Instant, SystemTime),
    ) {
        let before = self.told.get(&id);
        let same_record = match (before.and_then(|told| told.vif.as_ref()), vif) {
            (Some(told), Some(vif)) => Arc::ptr_eq(told, vif),
            (None, None) => true,
            _ => false,
        };
        // While the database cannot be seen, nothing says that what was right is not any more.
        let blind = judgement.is_some_and(|of| is_unseen(of)) && before.is_some_and(|told| told.judgement.is_some());
        if blind && same_record && before.is_some_and(|told| told.rejection.as_deref() == rejection) {
            return;
        }
        let unchanged = before.is_some_and(|told| {
            same_record
                && told.rejection.as_deref() == rejection
                && told.judgement.as_ref() == judgement
                && told.proof.as_ref() == proof
                && told.enforce == enforce
        });
        if unchanged {
            return;
        }
        let (record, word) = (vif.map(AsRef::as_ref), judgement.map(AsRef::as_ref));
        let proof_told = proof.map(AsRef::as_ref);
        let subject = Subject { id, vif: record, rejection, judgement: word, enforce, proof: proof_told };
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
        if judgement.is_some_and(|of| of.verdict.is_hypervisors_turn()) {
            drifted_since = None;
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
            rejection: rejection.cloned().map(Box::new),
            judgement: judgement.cloned(),
            enforce,
            proof: proof.cloned(),
            status: Arc::new(status),
            wanted_since,
            drifted_since,
        };
        self.statuses.insert(id, Arc::clone(&told.status));
        self.told.insert(id, told);
    }
}

/// How many records that are refused at once are logged by name.
const REFUSALS: usize = 20;

/// Logs records that are refused now and were not before, or for another reason: not more than a few by name.
fn log_refusals(before: &[Rejection], now: &[Rejection]) {
    let known: BTreeMap<_, _> = before.iter().map(|rejection| (&rejection.record, rejection)).collect();
    let mut fresh = now.iter().filter(|rejection| known.get(&rejection.record) != Some(rejection));
    for Rejection { record, field, reason, .. } in fresh.by_ref().take(REFUSALS) {
        tracing::warn!(record, field, "record refused: {reason}");
    }
    match fresh.count() {
        0 => {}
        more => tracing::warn!("and {more} more records are refused"),
    }
}

fn note(set: &mut BTreeSet<VifId>, id: VifId, is_in: bool) {
    if is_in {
        set.insert(id);
    } else {
        set.remove(&id);
    }
}

/// Whether a VIF was not looked at, because a view that it needs is not complete.
fn is_unseen(judgement: &Judgement) -> bool {
    matches!(judgement.verdict, Verdict::Waiting(Missing::View(_)))
}

/// Reasons to wait that hold for many VIFs at once, or were somebody's order.
const OF_MANY: [&str; 6] =
    ["WaitingForOvsdb", "WaitingForKernel", "VswitchdNotRunning", "WaitingForSwitch", "Paused", "Observing"];

/// One line for each change that somebody may want to find again, and none for the steps in between.
fn log(id: VifId, before: Option<&VifStatus>, status: &VifStatus) {
    if before.is_some_and(|before| before.phase == status.phase && before.message == status.message) {
        return;
    }
    match status.phase {
        Phase::Ready => {
            let Facts { port, guest_device, netdev, .. } = &*status.facts;
            let device = guest_device.as_ref().or(netdev.as_ref()).filter(|device| port.as_ref() != Some(device));
            tracing::info!(vif = %id, port, device, "ready");
        }
        Phase::Failed | Phase::Conflict => {
            tracing::warn!(vif = %id, reason = &*status.reason, "{}", status.message);
        }
        Phase::Removing => tracing::info!(vif = %id, reason = &*status.reason, "{}", status.message),
        // Of what all VIFs of a host or a bridge wait for, the log has a line of its own.
        Phase::Plugged | Phase::Waiting
            if before.is_some_and(|before| before.phase == Phase::Ready) && !OF_MANY.contains(&&*status.reason) =>
        {
            tracing::info!(vif = %id, reason = &*status.reason, "ready no longer: {}", status.message);
        }
        Phase::Pending | Phase::Working | Phase::Plugged | Phase::Waiting => {
            tracing::debug!(vif = %id, phase = status.phase.name(), "{}", status.message);
        }
    }
}

fn words<Op: Display>(backend: BackendName, ops: &[Attributed<Op>]) -> impl Iterator<Item = PlannedOp> {
    ops.iter().map(move |op| PlannedOp { backend: backend.to_owned(), vif: op.party.vif(), action: op.op.to_string() })
}

/// Why the agent cannot vouch for the host, a sentence each.
fn not_ready(scene: &Scene<'_>, now: Instant) -> Vec<String> {
    let mut reasons = Vec::new();
    for backend in [OVSDB, LINKS, NICS, OPENFLOW] {
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
    if scene.observed.nics.ready().is_none() {
        reasons.push("what devlink and sysfs say of the NICs is not synchronised".to_owned());
    }
    for bridge in scene.observed.flows.iter().filter(|(_, view)| view.ready().is_none()).map(|(bridge, _)| bridge) {
        reasons.push(format!("the flows of bridge {bridge} are not synchronised"));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::offload::{Expectation, OffloadCounts};
    use crate::record::decode;
    use crate::status::{ConditionKind, Truth};

    /// A VIF is looked at while it is ready, and what is seen of it is told although nothing was planned anew.
    #[test]
    fn what_the_datapath_shows_is_told_of_those_that_are_ready() {
        let record = json!({
            "vif": {"type": "generic", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "vif_name": "rep0"},
        });
        let vif = Arc::new(decode(record.to_string().as_bytes()).unwrap().vif);
        let id = vif.id;
        let (status, told) = watch::channel(Arc::default());
        let (expect, expected) = watch::channel(Arc::new(Expectations::new()));
        let mut teller = Teller::new(status, expect);
        let vifs = [(id, vif)].into_iter().collect();
        let intake = Intake { desired: Arc::new(Desired { vifs, ..Desired::default() }), ..Intake::default() };
        let mut tell = |verdict: Verdict, proofs: &Arc<Proofs>| {
            let expectation = Expectation { port: "rep0".into(), bridge: "br-int".into(), ..Expectation::default() };
            let judgement = Judgement {
                verdict,
                link_ready: None,
                port_ready: Some(true),
                flows_ready: None,
                vhost_connected: None,
                plugged: true,
                offload: Some(Box::new(expectation)),
                facts: Arc::default(),
            };
            let mut plan = Plan::default();
            plan.judgements.insert(id, Arc::new(judgement));
            let scene = Scene {
                intake: &intake,
                observed: &Observed::default(),
                plan: &plan,
                holds: &Holds::default(),
                orders: &Orders::default(),
                enforce: true,
                proofs: Arc::clone(proofs),
                sessions: Vec::new(),
            };
            teller.tell(&scene, Instant::now(), SystemTime::now());
            let status = told.borrow().vifs.get(&id).cloned().unwrap();
            let condition = status.condition(ConditionKind::Offloaded).cloned().unwrap();
            let (condition, flows) = ((condition.status, condition.reason), status.facts.offload.clone());
            (condition.0, condition.1.into_owned(), flows, expected.borrow().len())
        };
        let nothing = Arc::default();
        assert_eq!(tell(Verdict::Working, &nothing), (Truth::Unknown, "Applying".into(), None, 0));
        assert_eq!(tell(Verdict::Ready, &nothing), (Truth::Unknown, "NotLookedAt".into(), None, 1));
        let counts = OffloadCounts { offloaded_flows: 3, software_flows: 0, offload_reason: None };
        let proof = Proof {
            counts: Some(counts.clone()),
            truth: Truth::True,
            reason: "InHardware",
            message: "3 flows are in hardware".into(),
            is_earlier: false,
        };
        let proofs = Arc::new(Proofs::from([(id, Arc::new(proof))]));
        let flows = Some(Box::new(counts));
        assert_eq!(tell(Verdict::Ready, &proofs), (Truth::True, "InHardware".into(), flows, 1));
        assert_eq!(tell(Verdict::Working, &proofs), (Truth::Unknown, "Applying".into(), None, 0));
    }

    /// What was refused for a record says nothing of what is to be done without it.
    #[test]
    fn a_record_that_went_is_a_change_as_well() {
        let record =
            json!({"vif": {"type": "generic", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "vif_name": "tap1"}});
        let vif = Arc::new(decode(record.to_string().as_bytes()).unwrap().vif);
        let id = vif.id;
        let mut teller = Teller::new(watch::channel(Arc::default()).0, watch::channel(Arc::default()).0);
        let vifs = [(id, vif)].into_iter().collect();
        teller.intake.desired = Arc::new(Desired { vifs, ..Desired::default() });
        assert_eq!(teller.changed(&Desired::default(), OwnerTag(7)).vifs, [id]);
    }
}
