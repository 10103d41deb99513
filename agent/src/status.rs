//! What vifd tells of the host: a snapshot that the API, the metrics and the command line read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::VifId;
use crate::plan::Facts;

/// The phases of a VIF, as in the API and in `vifd_vifs{phase}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Known, not planned yet.
    Pending,
    /// Operations are on their way.
    Working,
    /// All that vifd can do is done; the hypervisor or the guest brings the rest.
    Plugged,
    /// Something that vifd does not make has to come first.
    Waiting,
    /// Traffic can pass.
    Ready,
    /// The record cannot be honoured, or a peer refused.
    Failed,
    /// Somebody else has what the record wants.
    Conflict,
    /// On its way out.
    Removing,
}

/// The whole host. A new one is published after every plan.
#[derive(Clone, Debug, Default)]
pub struct HostStatus {
    /// Revision of the source that this plan was made from; waits compare with it.
    pub revision: u64,
    /// Every VIF that is wanted, rejected or still on the host.
    pub vifs: BTreeMap<VifId, Arc<VifStatus>>,
    /// Records that were refused.
    pub rejections: Arc<Vec<crate::source::Rejection>>,
    /// Why the agent is not ready (`/readyz`), a sentence each; empty when it is.
    pub not_ready: Vec<String>,
    /// VIFs whose removal waits for `vifd confirm-removals`.
    pub stopped_removals: Vec<VifId>,
    /// Whether the whole agent is paused.
    pub paused: bool,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Operations that the last plan holds, for `vifd plan`: what would be done and why, a line each.
    pub planned: Vec<PlannedOp>,
    /// Foreign objects in the way of a wanted VIF.
    pub foreign_conflicts: usize,
    /// Holds in force, by backend.
    pub holds: BTreeMap<&'static str, usize>,
}

/// One planned operation, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedOp {
    /// `ovsdb` or `links`.
    pub backend: String,
    /// On whose behalf.
    pub vif: Option<VifId>,
    /// E.g. `insert port tap1 into bridge br-int`.
    pub action: String,
}

/// One VIF.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VifStatus {
    /// Identity.
    pub id: VifId,
    /// Native type name, e.g. `openvswitch`; empty when no record was ever good.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands.
    pub phase: Phase,
    /// One word in CamelCase for programs, e.g. `WaitingForNetdev`.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Generation of the newest record, good or not, where it is known.
    pub generation: u64,
    /// Generation of the record in force.
    pub observed_generation: u64,
    /// The conditions, in fixed order.
    pub conditions: Vec<Condition>,
    /// What was seen on the host.
    pub facts: Facts,
    /// Since when it is in this phase.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
}

/// One condition of a VIF.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// `Accepted Plugged LinkReady PortReady VhostConnected` (and later `FlowsReady Offloaded`).
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word in CamelCase.
    pub reason: String,
    /// One sentence, may be empty.
    pub message: String,
    /// Since when it has this status.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
}

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
