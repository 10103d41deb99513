//! Writes that came through the API: what is asked for, which files that concerns, and doing it so that an
//! answer is given only for what is durable. Blocks, and runs off the async threads.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use tokio::sync::oneshot;
use tracing::warn;

use super::disk::{Open, Tombstones};
use crate::model::{Vif, VifId};
use crate::source::WriteError;

pub(super) type Reply = oneshot::Sender<Result<u64, WriteError>>;

/// A write that was asked for: a record to put, or a VIF to delete.
pub(super) struct Write {
    pub(super) id: VifId,
    pub(super) put: Option<(Box<Vif>, Vec<u8>)>,
    pub(super) reply: Reply,
}

/// A write with the files that it concerns.
pub(super) struct Job {
    pub(super) id: VifId,
    pub(super) what: What,
    pub(super) reply: Reply,
}

pub(super) enum What {
    Replace(OsString, Box<Vif>, Vec<u8>),
    Remove(Vec<OsString>),
}

impl What {
    pub(super) fn into_names(self) -> Vec<OsString> {
        match self {
            What::Replace(name, ..) => vec![name],
            What::Remove(names) => names,
        }
    }
}

/// Writes to disk, durable where the answer is good.
pub(super) fn execute(
    open: &Open,
    path: &Path,
    tombstones: &Tombstones,
    jobs: Vec<Job>,
) -> Vec<(Job, Result<(), WriteError>)> {
    let deleted: Vec<VifId> = jobs.iter().filter(|job| matches!(job.what, What::Remove(_))).map(|job| job.id).collect();
    // First of all: from here on a crash leaves deletions, never absences.
    let entombed = if deleted.is_empty() { Ok(()) } else { tombstones.add(&deleted) };
    let mut done = Vec::new();
    for job in jobs {
        let result = match &job.what {
            What::Replace(name, _, bytes) => open
                .replace(name, bytes)
                .map_err(|source| WriteError::Io { attempt: format!("write {}", path.join(name).display()), source }),
            What::Remove(names) => match &entombed {
                Err(error) => Err(WriteError::Io {
                    attempt: format!("remember that VIF {} is deleted", job.id),
                    source: io::Error::new(error.kind(), error.to_string()),
                }),
                Ok(()) => names.iter().try_for_each(|name| {
                    let attempt = || format!("remove {}", path.join(name).display());
                    open.remove(name).map_err(|source| WriteError::Io { attempt: attempt(), source })
                }),
            },
        };
        done.push((job, result));
    }
    if let Err(error) = open.sync() {
        for (_, result) in done.iter_mut().filter(|(_, result)| result.is_ok()) {
            let source = io::Error::new(error.kind(), error.to_string());
            *result = Err(WriteError::Io { attempt: format!("make changes of {} durable", path.display()), source });
        }
    }
    let kept: Vec<VifId> = done
        .iter()
        .filter(|(job, result)| result.is_err() && matches!(job.what, What::Remove(_)))
        .map(|(job, _)| job.id)
        .collect();
    if let Err(error) = tombstones.remove(&kept) {
        warn!(%error, "cannot remove the tombstone of a VIF that could not be deleted");
    }
    done
}
