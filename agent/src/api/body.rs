//! The JSON of answers, as the server writes it and the client reads it. A VIF's own is
//! [`VifStatus`](crate::status::VifStatus).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::VifId;
use crate::source::Rejection;
use crate::status::{Phase, PlannedOp, SessionStatus, VifStatus};

/// `GET /v1/status`: the host in one object, without its VIFs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostSummary {
    /// `agent.id`.
    pub agent: String,
    /// Name of the host.
    pub host: String,
    /// Version of vifd.
    pub version: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Whether the whole agent is paused.
    pub paused: bool,
    /// VIFs that are paused by themselves.
    pub paused_vifs: Vec<VifId>,
    /// Revision of the records that the last plan was made from.
    pub revision: u64,
    /// What `/readyz` says.
    pub ready: bool,
    /// Why not, a sentence each.
    pub not_ready: Vec<String>,
    /// How many VIFs there are in each phase.
    pub phases: BTreeMap<Phase, usize>,
    /// VIFs whose removal waits for `vifd confirm-removals`.
    pub stopped_removals: Vec<VifId>,
    /// Records that were refused: the first hundred by name.
    pub rejections: Vec<Rejection>,
    /// How many there are in all.
    #[serde(default)]
    pub rejected: usize,
    /// The peers.
    pub sessions: Vec<SessionStatus>,
    /// Holds in force, by backend.
    pub holds: BTreeMap<String, usize>,
    /// Foreign objects in the way of a wanted VIF.
    pub foreign_conflicts: usize,
    /// NICs that are not as they are configured to be, with a sentence on what is in the way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hindered: BTreeMap<String, String>,
}

/// `GET /v1/plan`: what would be done next, and why nothing is done where nothing is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// Revision of the records that it was made from.
    pub revision: u64,
    /// `enforce` or `observe`; what is observed only is not done.
    pub mode: String,
    /// Why the agent cannot vouch for the host, and so plans less than it would; a sentence each.
    pub not_ready: Vec<String>,
    /// Whether the whole agent is paused: nothing is planned.
    pub paused: bool,
    /// VIFs that are paused by themselves.
    pub paused_vifs: Vec<VifId>,
    /// Operations, in their order.
    pub operations: Vec<PlannedOp>,
    /// VIFs whose removal waits for `vifd confirm-removals`.
    pub stopped_removals: Vec<VifId>,
    /// VIFs that are not ready, and why.
    pub unready: Vec<Unready>,
}

/// A VIF that is not ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unready {
    /// Which.
    pub vif: VifId,
    /// Its bridge, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Its port, or else its device, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// A write that was taken in and not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which VIF.
    pub id: VifId,
    /// The revision that holds the write.
    pub revision: u64,
}

/// `POST /v1/pause` and `/v1/resume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Whether it is paused now.
    pub paused: bool,
    /// Which VIF; the whole host when null.
    pub vif: Option<VifId>,
}

/// `POST /v1/confirm-removals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// VIFs whose removal goes ahead.
    pub confirmed: Vec<VifId>,
}

/// `POST /v1/release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Objects whose marks were taken off.
    pub released: usize,
}

/// One line of `GET /v1/vifs?watch=true`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The VIF is so now.
    Set {
        /// Its status.
        vif: Box<VifStatus>,
    },
    /// The VIF is gone, or does not match the filters any more.
    Unset {
        /// Which.
        id: VifId,
    },
    /// What there was at the beginning has been told; from here on, changes.
    Listed,
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
    /// The VIF that was waited for, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<VifStatus>>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// One word for programs; see `docs/api.md`.
    pub code: String,
    /// Path of the field of the record, or name of the parameter; empty when neither is to blame.
    pub field: String,
    /// One sentence.
    pub message: String,
}
