//! The task that joins source, planner and backends. What may be asked of it from outside is [`Command`].

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use crate::model::VifId;

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
}
