//! Where records come from. A source keeps the last good record of each VIF and says what it refused.

pub mod dir;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::{Desired, Vif, VifId};
use crate::record::Refused;

/// What a source has: the wanted set and what it could not read. Published whole through a `watch`.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// The wanted set.
    pub desired: Arc<Desired>,
    /// Records that were refused, in order of their names.
    pub rejections: Arc<Vec<Rejection>>,
    /// Why the set is not synced, for people; `None` when it is.
    pub problem: Option<String>,
    /// Grows with every change that the source takes in; an accepted write is answered with the revision
    /// that holds it.
    pub revision: u64,
}

/// A place where records come from.
pub trait Source: Send + 'static {
    /// What it has, as it changes.
    fn observe(&self) -> watch::Receiver<Intake>;

    /// Nothing of this deleted VIF is left on the host, as planned from the intake of `revision`: the deletion
    /// need not be remembered any more.
    fn gone(&self, vif: VifId, revision: u64) -> impl Future<Output = ()> + Send;

    /// Takes an emptying that looks like an accident for what is wanted; answers which VIFs that deletes: those
    /// that have not come back since.
    fn confirm_empty(&self) -> impl Future<Output = BTreeSet<VifId>> + Send;
}

/// A record that was refused. The last good record of its VIF stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Which record: a file name or a key.
    pub record: String,
    /// The VIF, where the record said so much.
    pub vif: Option<VifId>,
    /// Its generation, likewise.
    pub generation: Option<u64>,
    /// Path of the field, e.g. `vif.network.mtu`; empty when the record as a whole is meant.
    pub field: String,
    /// One sentence.
    pub reason: String,
}

/// Reads and validates one record. A source is given it, because what a host allows is configured.
pub type Decode = Arc<dyn Fn(&[u8]) -> Result<Vif, Refused> + Send + Sync>;

/// Why a write was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The record is no good.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The write would overwrite something that it does not mean.
    #[error("{0}")]
    Conflict(String),
    /// There is nowhere to write to at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// The file system refused.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: std::io::Error,
    },
}
