//! The directory source: every `*.json` of one directory is a record, and writes through the API land there.
//!
//! One [`task`] owns the directory. It is woken by inotify and by the mount table, reads what changed, lets the
//! [`shelf`] say what that means, and publishes. It never polls. Here is what others have of it: its options, and the
//! handle.

mod disk;
mod shelf;
mod task;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch as channel};

use self::disk::Tombstones;
use self::shelf::Shelf;
use self::task::Task;
use self::watch::Mounts;
use super::{Decode, Intake, WriteError};
use crate::model::{Desired, Vif, VifId};
use crate::record::Refused;

/// What a directory source needs to know.
#[derive(Clone)]
pub struct Options {
    /// The directory of records.
    pub path: PathBuf,
    /// Where tombstones of deleted VIFs are kept; made when missing.
    pub state_dir: PathBuf,
    /// The judge of records.
    pub decode: Decode,
    /// Longer records, in bytes, are refused.
    pub max_record: usize,
    /// A change is read once the directory has been quiet for this long, a record that alone was moved into it once
    /// it has been quiet for a tenth of that…
    pub quiet: Duration,
    /// …and in any case after this long.
    pub at_most: Duration,
    /// A file that went is believed to be gone once nothing has happened to it for this long…
    pub grace: Duration,
    /// …and removals in bulk, and a directory that came, once it has been quiet for this long.
    pub settle: Duration,
}

impl Options {
    /// The usual limits: records of 1 MiB, changes read after 10 to 50 ms, removals believed after 50 ms, those
    /// in bulk after 500 ms.
    #[must_use]
    pub fn new(path: PathBuf, state_dir: PathBuf, decode: Decode) -> Options {
        Options {
            path,
            state_dir,
            decode,
            max_record: 1 << 20,
            quiet: Duration::from_millis(10),
            at_most: Duration::from_millis(50),
            grace: Duration::from_millis(50),
            settle: Duration::from_millis(500),
        }
    }
}

/// Handle of a running directory source; the source ends when the last handle goes.
#[derive(Clone)]
pub struct DirSource {
    intake: channel::Receiver<Intake>,
    requests: mpsc::Sender<Request>,
    decode: Decode,
    max_record: usize,
}

enum Request {
    Put { vif: Box<Vif>, bytes: Vec<u8>, reply: oneshot::Sender<Result<u64, WriteError>> },
    Delete { id: VifId, reply: oneshot::Sender<Result<u64, WriteError>> },
    Get { id: VifId, reply: oneshot::Sender<Result<Option<Vec<u8>>, WriteError>> },
    Gone { id: VifId, revision: u64 },
    ConfirmEmpty { reply: oneshot::Sender<BTreeSet<VifId>> },
}

impl DirSource {
    /// Starts the source. Until the directory has been read for the first time its intake is not synced.
    ///
    /// # Errors
    /// When the state directory cannot be made or read, or the mount table cannot be watched. A directory of
    /// records that is missing is no error: the intake says so, and it is read when it appears.
    pub fn spawn(options: Options) -> io::Result<DirSource> {
        let path = std::path::absolute(&options.path)?;
        let (tombstones, deleted) = Tombstones::open(&options.state_dir)?;
        let mounts = Mounts::open()?;
        let shelf = Shelf::new(options.settle, options.grace, deleted);
        let (publish, intake) = channel::channel(shelf.intake());
        let (requests, inbox) = mpsc::channel(BATCH);
        let task = Task::new(path, &options, tombstones, shelf, publish);
        tokio::spawn(task.run(inbox, mounts));
        Ok(DirSource { intake, requests, decode: options.decode, max_record: options.max_record })
    }

    /// What the source has, as it changes.
    #[must_use]
    pub fn observe(&self) -> channel::Receiver<Intake> {
        self.intake.clone()
    }

    /// Validates the record of VIF `id` and keeps it as a file, durable when this returns. Answers the revision
    /// that holds it.
    ///
    /// # Errors
    /// When the record is no good or another VIF's, or the directory cannot take it.
    pub async fn put(&self, id: VifId, bytes: Vec<u8>) -> Result<u64, WriteError> {
        if bytes.len() > self.max_record {
            return Err(disk::whole(format!("is larger than {} bytes", self.max_record)).into());
        }
        let vif = Box::new((self.decode)(&bytes)?);
        if vif.id != id {
            let reason = format!("it is {}, but the record was handed in as that of VIF {id}", vif.id);
            let (vif, generation) = (Some(vif.id), Some(vif.generation));
            return Err(Refused { vif, generation, field: "vif.id".into(), reason }.into());
        }
        self.ask(|reply| Request::Put { vif, bytes, reply }).await?
    }

    /// Deletes a VIF by name: its files go, and that it was deleted is kept until [`DirSource::gone`], also over
    /// a crash. A VIF without a file may be deleted, too. Answers the revision that holds the deletion.
    ///
    /// # Errors
    /// When the directory is not there or refuses.
    pub async fn delete(&self, id: VifId) -> Result<u64, WriteError> {
        self.ask(|reply| Request::Delete { id, reply }).await?
    }

    /// The record of a VIF as it stands in the directory, good or not; `None` without a file.
    ///
    /// # Errors
    /// When the directory is not there or the file cannot be read.
    pub async fn get(&self, id: VifId) -> Result<Option<Vec<u8>>, WriteError> {
        self.ask(|reply| Request::Get { id, reply }).await?
    }

    /// Whether there is a record of the VIF, good or not, or one was deleted and is not forgotten yet.
    #[must_use]
    pub fn knows(&self, id: VifId) -> bool {
        let intake = self.intake.borrow();
        let Desired { vifs, deleted, unreadable, .. } = &*intake.desired;
        vifs.contains_key(&id) || deleted.contains(&id) || unreadable.contains(&id)
    }

    /// Tells that nothing of a deleted VIF is left on the host, as planned from the intake of `revision`: it need
    /// not be remembered any more.
    pub async fn gone(&self, id: VifId, revision: u64) {
        // An error says that the source has ended, and the deletion is remembered for its next start.
        let _ = self.requests.send(Request::Gone { id, revision }).await;
    }

    /// Says that emptying the directory, found without files although VIFs were known, was meant: those that are
    /// still missing are deleted. Answers which; none when the directory is in any other state.
    ///
    /// # Errors
    /// When the source has ended.
    pub async fn confirm_empty(&self) -> Result<BTreeSet<VifId>, WriteError> {
        self.ask(|reply| Request::ConfirmEmpty { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, WriteError> {
        let ended = || WriteError::Unavailable("the agent is stopping".into());
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

impl super::Source for DirSource {
    fn observe(&self) -> channel::Receiver<Intake> {
        self.intake.clone()
    }

    async fn gone(&self, vif: VifId, revision: u64) {
        DirSource::gone(self, vif, revision).await;
    }

    async fn confirm_empty(&self) -> BTreeSet<VifId> {
        // A source that has ended has nothing to confirm.
        DirSource::confirm_empty(self).await.unwrap_or_default()
    }
}

/// Writes that are made durable together.
const BATCH: usize = 256;
