//! The decision: what is wanted against what is seen, and the operations that make the difference go away.
//!
//! Pure and synchronous: no I/O, no clock (`now` is an argument), no logging, ordered maps only. It is a
//! level-triggered frontier planner: every call plans the whole host again and emits only operations whose
//! prerequisites are already observed, so that each batch is legal the moment it is sent and a crash anywhere
//! resumes the way it started.
//!
//! ```text
//! record ──blueprint──► what one VIF wants ─┐
//!                                            ├─ compare ─► operations + a verdict
//! views  ──inventory──► what is ours ───────┘
//!                            └───────────────── removal ─► what nobody wants any more
//! ```

mod adoption;
mod associations;
pub mod blueprint;
mod compare;
mod flows;
mod functions;
mod holds;
mod inventory;
mod links;
mod memo;
mod nics;
pub mod pipeline;
mod release;
mod removal;
mod rows;
mod settings;
mod sight;
mod sub_ports;
mod verdict;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

pub use self::flows::{FlowsOf, Intended};
pub use holds::{Cause, Hold, Holds};
pub(crate) use inventory::port_owner;
pub use memo::Memo;
pub use release::release;
pub(crate) use settings::qos_id;
pub use settings::{
    FORMAT, IdRange, ManagedBridge, MaxRemovals, NicSettings, OWNER, Owner, PRESERVE, SUB_PORT, Settings, Uplink, VIF,
    ZONE,
};
pub use verdict::{BackendName, Facts, Judgement, Missing, Verdict};

use self::inventory::Inventory;
use self::sight::Look;
use self::sub_ports::Trunk;
use crate::backend::Attributed;
use crate::backend::links::LinkOp;
use crate::backend::nics::NicOp;
use crate::backend::openflow::FlowOp;
use crate::backend::ovs::OvsOp;
use crate::model::{Desired, Observed, Table, VifId};

/// Name of the OVSDB backend in holds and metrics.
pub const OVSDB: BackendName = "ovsdb";
/// Name of the kernel backend in holds and metrics.
pub const LINKS: BackendName = "links";

/// Name of the NIC backend in holds and metrics.
pub const NICS: BackendName = "nics";

/// Name of the OpenFlow backend in holds and metrics.
pub const OPENFLOW: BackendName = "openflow";

/// Most operations in one OVSDB transaction. ovs-vswitchd reconfigures once per transaction, so larger is
/// cheaper; the bound keeps the message and the server's work for one client finite.
const LARGEST_TRANSACTION: usize = 4000;

/// What the operator has said, beside the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Everything is left as it is.
    pub paused: bool,
    /// These VIFs are left as they are.
    pub paused_vifs: BTreeSet<VifId>,
    /// Removals that `max_removals` stopped and that somebody confirmed.
    pub confirmed: BTreeSet<VifId>,
    /// Removals that `max_removals` stopped and that nobody confirmed yet.
    pub stopped: BTreeSet<VifId>,
}

impl Orders {
    /// Whether nothing is done for this VIF.
    #[must_use]
    pub fn pauses(&self, vif: VifId) -> bool {
        self.paused || self.paused_vifs.contains(&vif)
    }
}

/// Why a record is not honoured although it is well formed: it clashes with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Path of the field.
    pub field: String,
    /// One sentence that names the other VIF.
    pub reason: String,
}

/// What to do, and what is.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For the kernel backend.
    pub links: Vec<Attributed<LinkOp>>,
    /// For the NIC backend.
    pub nics: Vec<Attributed<NicOp>>,
    /// For the OVSDB backend: one transaction.
    pub ovs: Vec<Attributed<OvsOp>>,
    /// For the OpenFlow backend: one bundle for each bridge.
    pub flows: Vec<Attributed<FlowOp>>,
    /// A word on every VIF that is wanted or still on the host; the very same one as in the plan before where nothing
    /// that it was made from is another.
    pub judgements: Table<VifId, Judgement>,
    /// Deleted VIFs of which nothing is left.
    pub gone: BTreeSet<VifId>,
    /// VIFs that are absent and stay because of `max_removals`.
    pub stopped_removals: Vec<VifId>,
    /// Objects that carry marks of a later format: left alone, reported.
    pub newer_marks: usize,
    /// Bridges that the configuration gives to vifd and somebody else has, with a sentence on who and what to do.
    pub unmanaged: BTreeMap<String, String>,
    /// NICs that are not as they are configured to be, with a sentence on what is in the way.
    pub hindered: BTreeMap<String, String>,
    /// When to plan again although nothing happened.
    pub wake_at: Option<Instant>,
}

/// Everything that a plan is made from. The clock is an argument of [`plan`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// Wanted records that clash with others.
    pub clashes: &'a BTreeMap<VifId, Clash>,
    /// What is seen.
    pub observed: &'a Observed,
    /// What was refused lately.
    pub holds: &'a Holds,
    /// The operator's word.
    pub orders: &'a Orders,
    /// VIFs for which a batch is under way: more of them may appear than is seen.
    pub in_flight: &'a BTreeSet<VifId>,
    /// The configuration's.
    pub settings: &'a Settings,
}

/// Plans the whole host.
#[must_use]
pub fn plan(inputs: Inputs<'_>, memo: &mut Memo, now: Instant) -> Plan {
    let restless = memo.refresh(&inputs);
    let inventory = std::mem::take(&mut memo.inventory);
    let mut work = compare::Work::new(inputs, &inventory, std::mem::take(&mut memo.judgements), now);
    work.switches = std::mem::take(&mut memo.switches);
    // What a VIF waits for may be a NIC, and what is in that one's way.
    work.configured_nics();
    let planned = restless.len();
    let mut halves: Vec<compare::Half> = Vec::new();
    for id in restless {
        halves.extend(begin(&mut work, memo, id));
    }
    // What they share is known only now, and some on whom there was a verdict may see it changed.
    let shared = work.shared_flows(&inventory);
    for id in shared {
        if memo.unsettle(id) {
            halves.extend(begin(&mut work, memo, id));
        }
    }
    for half in halves {
        conclude(&mut work, memo, half);
    }
    work.configured_switch();
    work.managed_bridges();
    work.plan.unmanaged = work.switches.unmanaged();
    memo.leaving = removal::remove(&mut work, &inventory, |share| memo.is_wanted(share));
    memo.switches = std::mem::take(&mut work.switches);
    let mut plan = work.finish();
    memo.judgements = std::mem::take(&mut plan.judgements);
    memo.inventory = inventory;
    memo.pack(planned);
    plan.judgements = memo.judgements.clone();
    plan
}

fn conclude(work: &mut compare::Work<'_>, memo: &mut Memo, half: compare::Half) {
    let id = half.id;
    if let Some(looks) = work.conclude(half) {
        memo.settle(id, looks);
    }
}

/// Plans one wanted VIF; what is left of it is one whose flows are those of others too.
fn begin(work: &mut compare::Work<'_>, memo: &mut Memo, id: VifId) -> Option<compare::Half> {
    let inputs = work.inputs;
    let vif = inputs.desired.vifs.get(&id)?;
    let blueprint = match vif.parent.map(|parent| work.trunk(vif, parent)) {
        None => memo.blueprint(vif, work.inventory.layout(vif, inputs), inputs.settings),
        Some(Trunk::Unsure(missing)) if !inputs.clashes.contains_key(&id) => {
            work.leave(id, missing);
            return None;
        }
        Some(Trunk::Unsure(_)) => Arc::new(Ok(blueprint::Blueprint::default())),
        Some(Trunk::Known(blueprint)) => Arc::new(*blueprint),
    };
    let wanted = work.want_shares(blueprint.as_ref().as_ref().ok());
    let mut half = work.vif(id, vif, blueprint.as_ref().as_ref())?;
    if let Some(looks) = &mut half.looks {
        looks.extend(wanted.into_iter().map(|share| Look::Wants(share.into())));
        looks.extend(vif.parent.map(|parent| Look::Vif(parent.vif)));
    }
    if !half.shares() {
        conclude(work, memo, half);
        return None;
    }
    Some(half)
}

/// The VIFs of which something is on the host, by our marks.
#[must_use]
pub fn on_host(observed: &Observed, settings: &Settings) -> BTreeSet<VifId> {
    let nothing = Observed::default();
    let mut inventory = Inventory::default();
    inventory.follow(memo::seen(&nothing), memo::seen(observed), settings);
    inventory.by_vif.into_keys().collect()
}

impl Plan {
    /// The batches as they are sent, in their order. A `patient` caller gets one batch of several: ports wait for every
    /// link that is still to come, so that a thousand VIFs are one transaction. Whoever has waited for one batch of
    /// links is not to be patient again, or ports would starve under a stream of new VIFs.
    #[must_use]
    pub fn batches(&self, patient: bool) -> (Vec<Attributed<LinkOp>>, Vec<Attributed<OvsOp>>) {
        let to_come = |op: &LinkOp| matches!(op, LinkOp::CreateLink { .. } | LinkOp::MakeSocketDirectory { .. });
        let links_to_come = patient && self.links.iter().any(|op| to_come(&op.op));
        let waits = |op: &OvsOp| links_to_come && matches!(op, OvsOp::InsertBridge { .. } | OvsOp::InsertPort(_));
        let mut ovs: Vec<_> = self.ovs.iter().filter(|op| !waits(&op.op)).cloned().collect();
        ovs.sort_by_key(|op| match op.op {
            OvsOp::InsertBridge { .. } | OvsOp::SecureBridge { .. } | OvsOp::ConfigureSwitch { .. } => 0,
            // A sub-port's mark may come off a port that goes as well.
            OvsOp::Unmark { .. } => 1,
            OvsOp::DeletePort { .. } => 2,
            OvsOp::ChangePort { .. } | OvsOp::ChangeInterface { .. } | OvsOp::Mark { .. } => 3,
            OvsOp::InsertPort(_) => 4,
            OvsOp::DeleteBridge { .. } | OvsOp::DeleteQos { .. } => 5,
        });
        ovs.truncate(LARGEST_TRANSACTION);
        (self.links.clone(), ovs)
    }
}
