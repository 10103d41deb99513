//! What vifd tells of the host: a snapshot that the API, the metrics and the command line read.
//! How a VIF's words are chosen is in `render`.

mod render;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::{Table, VifId};
use crate::plan::Facts;

pub use render::Subject;

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

impl Phase {
    /// Every phase, in the order of a VIF's life.
    pub const ALL: [Phase; 8] = [
        Phase::Pending,
        Phase::Working,
        Phase::Waiting,
        Phase::Plugged,
        Phase::Ready,
        Phase::Failed,
        Phase::Conflict,
        Phase::Removing,
    ];

    /// The word of the API and the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Working => "working",
            Phase::Plugged => "plugged",
            Phase::Waiting => "waiting",
            Phase::Ready => "ready",
            Phase::Failed => "failed",
            Phase::Conflict => "conflict",
            Phase::Removing => "removing",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The whole host. A new one is published after every plan.
#[derive(Clone, Debug, Default)]
pub struct HostStatus {
    /// Revision of the source that this plan was made from; waits compare with it.
    pub revision: u64,
    /// Every VIF that is wanted, rejected or still on the host.
    pub vifs: Table<VifId, VifStatus>,
    /// Records that were refused.
    pub rejections: Arc<Vec<crate::source::Rejection>>,
    /// Why the agent is not ready (`/readyz`), a sentence each; empty when it is.
    pub not_ready: Vec<String>,
    /// VIFs whose removal waits for `vifd confirm-removals`.
    pub stopped_removals: Vec<VifId>,
    /// Whether the whole agent is paused.
    pub paused: bool,
    /// VIFs that are paused by themselves.
    pub paused_vifs: Vec<VifId>,
    /// `enforce` or `observe`; empty before the first plan.
    pub mode: String,
    /// Operations that the last plan holds, for `vifd plan`: what would be done and why, a line each.
    pub planned: Vec<PlannedOp>,
    /// Foreign objects in the way of a wanted VIF.
    pub foreign_conflicts: usize,
    /// Holds in force, by backend.
    pub holds: BTreeMap<&'static str, usize>,
    /// The peers and whether they can be spoken to, in fixed order.
    pub sessions: Vec<SessionStatus>,
    /// VIFs that cannot be seen at the moment, because a peer is away: what is told of them is what was seen last, and
    /// nobody's wait ends on it.
    pub unseen: BTreeSet<VifId>,
    /// Bridges that the configuration gives to vifd and somebody else has, with a sentence on who and what to do.
    pub unmanaged: BTreeMap<String, String>,
    /// NICs that are not as they are configured to be, with a sentence on what is in the way.
    pub hindered: BTreeMap<String, String>,
}

impl HostStatus {
    /// Why the agent is not ready (`/readyz`), a sentence each; empty when it is.
    #[must_use]
    pub fn unreadiness(&self) -> Vec<String> {
        // Nothing was published yet.
        if self.mode.is_empty() { vec!["the agent is starting".into()] } else { self.not_ready.clone() }
    }
}

/// The session with one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// `ovsdb`, `vswitchd`, `kernel`, `openflow:BRIDGE`.
    pub peer: String,
    /// Whether its view is complete.
    pub up: bool,
    /// Where it is and how it is, e.g. `unix:/run/openvswitch/db.sock, reconnecting: connection refused`.
    pub detail: String,
}

/// One planned operation, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedOp {
    /// `ovsdb`, `links` or `openflow`.
    pub backend: String,
    /// On whose behalf.
    pub vif: Option<VifId>,
    /// E.g. `insert port tap1 into bridge br-int`.
    pub action: String,
}

/// A word for programs: one of ours, or one that was received.
pub type Word = Cow<'static, str>;

/// One VIF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VifStatus {
    /// Identity.
    pub id: VifId,
    /// Native type name, e.g. `openvswitch`; empty when no record was ever good.
    #[serde(rename = "type")]
    pub kind: Word,
    /// Where it stands.
    pub phase: Phase,
    /// One word in CamelCase for programs, e.g. `WaitingForNetdev`.
    pub reason: Word,
    /// One sentence for people.
    pub message: String,
    /// Generation of the newest record, good or not, where it is known.
    pub generation: u64,
    /// Generation of the record in force.
    pub observed_generation: u64,
    /// Name of the guest, where the record says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The fixed addresses of the record in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The conditions, in fixed order; those that do not apply to the VIF are left out.
    pub conditions: Vec<Condition>,
    /// What was seen on the host.
    pub facts: Arc<Facts>,
    /// Since when it is in this phase.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
}

impl VifStatus {
    /// One of its conditions.
    #[must_use]
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Time since it entered its phase; zero when the clock was set back.
    #[must_use]
    pub fn age(&self, today: SystemTime) -> Duration {
        today.duration_since(self.since).unwrap_or_default()
    }
}

/// One condition of a VIF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it is so.
    pub status: Truth,
    /// One word in CamelCase.
    pub reason: Word,
    /// One sentence, may be empty.
    pub message: String,
    /// Since when it has this status.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionKind {
    /// The newest record is good and in force.
    Accepted,
    /// All that vifd itself can do is done.
    Plugged,
    /// The kernel link is as wanted.
    LinkReady,
    /// Open vSwitch can use the port.
    PortReady,
    /// The switch has all flows that the VIF needs.
    FlowsReady,
    /// The guest is connected to the vhost-user port.
    VhostConnected,
    /// The flows by which its traffic passes are in hardware.
    Offloaded,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth {
    /// It does.
    True,
    /// It does not.
    False,
    /// It cannot be seen at the moment.
    Unknown,
}

/// RFC 3339 in UTC, to the millisecond.
mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
