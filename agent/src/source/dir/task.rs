//! The task that owns the directory: woken by what happens to it, by its handles and by the clock, it reads, has the
//! [`shelf`](super::shelf) say what that means, writes, and publishes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use tracing::{info, warn};

use super::disk::{Identity, Open, Reader, Tombstones, Unread};
use super::shelf::{Effects, Reading, Shelf};
use super::watch::{Event, Mounts, Watch};
use super::write::{Job, Reply, What, Write, execute};
use super::{BATCH, Options, Request};
use crate::model::VifId;
use crate::source::{Intake, WriteError};

/// How long to wait where nothing will tell when a directory can be watched again.
const RETRY: Duration = Duration::from_secs(1);
/// What events asked for since the last reading.
#[derive(Debug, Default)]
struct Pending {
    records: BTreeSet<OsString>,
    /// Everything has to be read again.
    all: bool,
    /// See whether the path still leads to the directory that is watched.
    check: bool,
    /// Watch anew.
    rearm: bool,
    /// All that happened is that one record came, whole.
    alone: bool,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Pending {
    fn note(&mut self, event: Event) {
        self.alone = self.first.is_none() && matches!(event, Event::Arrived(_));
        match event {
            Event::Arrived(name) | Event::Record(name) => {
                self.records.insert(name);
            }
            Event::Overflow => self.all = true,
            Event::Mode => self.check = true,
            Event::Path => self.rearm = true,
        }
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

pub(super) struct Task {
    path: PathBuf,
    quiet: Duration,
    at_most: Duration,
    reader: Reader,
    tombstones: Tombstones,
    shelf: Shelf,
    publish: channel::Sender<Intake>,
    watch: Option<Watch>,
    /// The directory that is watched.
    armed: Option<Identity>,
    retry: Option<Instant>,
    pending: Pending,
}

impl Task {
    /// The task as it begins: it has read nothing yet.
    pub(super) fn new(
        path: PathBuf,
        options: &Options,
        tombstones: Tombstones,
        shelf: Shelf,
        publish: channel::Sender<Intake>,
    ) -> Task {
        Task {
            path,
            quiet: options.quiet,
            at_most: options.at_most,
            reader: Reader { decode: options.decode.clone(), max_record: options.max_record },
            tombstones,
            shelf,
            publish,
            watch: None,
            armed: None,
            retry: None,
            pending: Pending::default(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>, mounts: Mounts) {
        self.arm().await;
        let mut requests = Vec::new();
        loop {
            let wake = self.deadline();
            tokio::select! {
                events = next(self.watch.as_ref()) => match events {
                    Ok(events) => events.into_iter().for_each(|event| self.pending.note(event)),
                    Err(error) => self.unwatched(&error),
                },
                changed = mounts.changed() => {
                    if let Err(error) = changed {
                        // Without the mount table inotify still tells most of it; a busy loop helps nobody.
                        warn!(%error, "cannot watch the mount table");
                        tokio::time::sleep(RETRY).await;
                    }
                    self.pending.note(Event::Mode);
                }
                count = inbox.recv_many(&mut requests, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(&mut requests).await;
                }
                () = sleep_until(wake) => self.awake().await,
            }
        }
    }

    /// When there is something to do without being told.
    fn deadline(&self) -> Option<Instant> {
        let read = match (self.pending.first, self.pending.last) {
            (Some(first), Some(_)) if self.pending.alone => Some(first + self.quiet / 10),
            (Some(first), Some(last)) => Some((last + self.quiet).min(first + self.at_most)),
            _ => None,
        };
        let settle = self.shelf.deadline().map(Instant::from_std);
        [read, settle, self.retry].into_iter().flatten().min()
    }

    async fn awake(&mut self) {
        let due = self.shelf.deadline().is_some_and(|at| at <= Instant::now().into_std());
        if due {
            self.note_all();
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.rearm || self.retry.is_some_and(|at| at <= Instant::now()) {
            self.arm().await;
        } else if due || pending.first.is_some() {
            self.read(pending, due).await;
        }
        if due {
            // Whatever has happened since the reading speaks against concluding anything from it.
            self.note_all();
            let now = Instant::now().into_std();
            self.shelf.stirred(&self.pending.records, now);
            if !self.pending.all && !self.pending.rearm {
                let effects = self.shelf.settled(now);
                self.carry_out(effects).await;
            }
        }
    }

    /// Notes what has happened, without waiting.
    fn note_all(&mut self) {
        match self.watch.as_ref().map_or(Ok(Vec::new()), Watch::so_far) {
            Ok(events) => events.into_iter().for_each(|event| self.pending.note(event)),
            Err(error) => self.unwatched(&error),
        }
    }

    fn unwatched(&mut self, error: &io::Error) {
        warn!(path = %self.path.display(), %error, "cannot watch the directory of records");
        self.watch = None;
        self.pending.note(Event::Path);
    }

    /// Watches the path anew and reads everything.
    async fn arm(&mut self) {
        self.retry = None;
        let armed = match Watch::arm(&self.path) {
            Ok((watch, open)) => {
                self.watch = Some(watch);
                open
            }
            Err(error) => Err(error),
        };
        let read = match armed {
            Ok(open) => self.read_all(open).await,
            Err(error) => Err(error),
        };
        let effects = match read {
            Ok((identity, readings)) => {
                info!(path = %self.path.display(), records = readings.len(), "directory of records read");
                self.armed = Some(identity);
                self.shelf.arrived(readings, Instant::now().into_std())
            }
            Err(error) => {
                self.armed = None;
                // The directories on the path are watched, those behind a symbolic link on it are not.
                let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
                let told = missing && !self.path.ancestors().any(Path::is_symlink);
                if !told {
                    self.retry = Some(Instant::now() + RETRY);
                }
                let why = why_unreadable(&self.path, &error);
                let effects = self.shelf.vanished(why.clone());
                if effects.changed {
                    warn!("{why}");
                }
                effects
            }
        };
        self.carry_out(effects).await;
    }

    async fn read_all(&self, open: Open) -> io::Result<(Identity, Vec<(OsString, Reading)>)> {
        let reader = self.reader.clone();
        blocking(move || {
            let names = open.list()?;
            Ok((open.identity, open.read_all(names, &reader)))
        })
        .await
    }

    /// Reads what changed in the directory that is watched; `again` also what is missing from it.
    async fn read(&mut self, pending: Pending, again: bool) {
        let Some(open) = self.open() else {
            // Not what is watched any more, or perhaps there now that something was mounted.
            if self.armed.is_some() || pending.check {
                self.arm().await;
            }
            return;
        };
        let mut names = pending.records;
        if pending.all {
            names.extend(self.shelf.names().cloned());
        }
        let missed: Vec<OsString> = if again {
            self.shelf.missed().filter(|name| !names.contains(*name)).cloned().collect()
        } else {
            Vec::new()
        };
        let reader = self.reader.clone();
        let readings = blocking(move || {
            if pending.all {
                names.extend(open.list()?);
            }
            let mut readings = open.read_all(names.into_iter().collect(), &reader);
            // That what is missing is still not there is no event.
            let back = open.read_all(missed, &reader).into_iter();
            readings.extend(back.filter(|(_, reading)| !matches!(reading, Reading::Absent)));
            Ok(readings)
        })
        .await;
        let effects = match readings {
            Ok(readings) => self.shelf.take(readings, Instant::now().into_std()),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "cannot list the directory of records");
                self.pending.note(Event::Path);
                return;
            }
        };
        self.carry_out(effects).await;
    }

    /// Opens the directory, provided that it is the one that is watched.
    fn open(&self) -> Option<Open> {
        let open = Open::directory(&self.path).ok()?;
        (Some(open.identity) == self.armed).then_some(open)
    }

    /// Does on disk what a change asks for, and publishes it.
    async fn carry_out(&mut self, effects: Effects) {
        if !effects.entomb.is_empty() {
            let tombstones = self.tombstones.clone();
            if let Err(error) = blocking(move || tombstones.add(&effects.entomb)).await {
                warn!(%error, "cannot keep a tombstone: after a crash now, the deletion counts as an absence");
            }
        }
        if effects.changed {
            self.publish.send_replace(self.shelf.intake());
        }
        if !effects.exhume.is_empty() {
            let tombstones = self.tombstones.clone();
            if let Err(error) = blocking(move || tombstones.remove(&effects.exhume)).await {
                warn!(%error, "cannot remove a tombstone");
            }
        }
    }

    /// Answers requests: runs of writes with one another, so that they are made durable together.
    async fn serve(&mut self, requests: &mut Vec<Request>) {
        let mut writes = Vec::new();
        let mut ids = BTreeSet::new();
        for request in requests.drain(..) {
            let (id, write) = match request {
                Request::Put { vif, bytes, reply } => (vif.id, Write { id: vif.id, put: Some((vif, bytes)), reply }),
                Request::Delete { id, reply } => (id, Write { id, put: None, reply }),
                other => {
                    self.write(std::mem::take(&mut writes)).await;
                    ids.clear();
                    self.answer(other).await;
                    continue;
                }
            };
            // Writes of one VIF in their order.
            if !ids.insert(id) {
                self.write(std::mem::take(&mut writes)).await;
                ids = BTreeSet::from([id]);
            }
            writes.push(write);
        }
        self.write(writes).await;
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Get { id, reply } => {
                let _ = reply.send(self.get(id).await);
            }
            Request::Gone { id, revision } => {
                let effects = self.shelf.gone(id, revision);
                self.carry_out(effects).await;
            }
            Request::ConfirmEmpty { reply } => {
                let (ids, effects) = self.shelf.confirm_empty();
                self.carry_out(effects).await;
                let _ = reply.send(ids);
            }
            Request::Put { .. } | Request::Delete { .. } => unreachable!("writes are served in runs"),
        }
    }

    async fn get(&self, id: VifId) -> Result<Option<Vec<u8>>, WriteError> {
        let Some(name) = self.shelf.file_of(id) else { return Ok(None) };
        let open = self.open().ok_or_else(|| self.unavailable())?;
        let attempt = format!("read {}", self.path.join(&name).display());
        let max = self.reader.max_record;
        let read = blocking(move || match open.bytes(&name, max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Unread::Absent) => Ok(None),
            Err(Unread::Refused(reason)) => Err(io::Error::other(reason)),
        });
        read.await.map_err(|source| WriteError::Io { attempt, source })
    }

    fn unavailable(&self) -> WriteError {
        WriteError::Unavailable(format!("the directory of records {} is not there", self.path.display()))
    }

    /// Writes that concern different VIFs.
    async fn write(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let Some(open) = self.open() else {
            for write in writes {
                let _ = write.reply.send(Err(self.unavailable()));
            }
            return;
        };
        let mut jobs = Vec::new();
        for write in writes {
            match self.job(write) {
                Ok(job) => jobs.push(job),
                Err((reply, error)) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        let tombstones = self.tombstones.clone();
        let path = self.path.clone();
        let done = blocking(move || Ok(execute(&open, &path, &tombstones, jobs))).await;
        let Ok(done) = done else {
            // The thread died with the replies: those who wait are told that the source has ended.
            return;
        };
        let mut effects = Effects::default();
        let mut replies = Vec::new();
        for (job, result) in done {
            match (result, job.what) {
                (Ok(()), What::Replace(name, vif, _)) => {
                    let reading = Reading::Good(std::sync::Arc::from(vif));
                    effects.merge(self.shelf.take(vec![(name, reading)], Instant::now().into_std()));
                }
                (Ok(()), What::Remove(_)) => {
                    let deleted = self.shelf.delete(job.id, Instant::now().into_std());
                    // Its tombstone is there already.
                    effects.merge(Effects { entomb: Vec::new(), ..deleted });
                }
                (Err(error), what) => {
                    // Whatever became of the files: they are read again.
                    for name in what.into_names() {
                        self.pending.note(Event::Record(name));
                    }
                    let _ = job.reply.send(Err(error));
                    continue;
                }
            }
            replies.push(job.reply);
        }
        self.carry_out(effects).await;
        for reply in replies {
            let _ = reply.send(Ok(self.shelf.revision()));
        }
    }

    /// Which files a write concerns.
    fn job(&self, write: Write) -> Result<Job, (Reply, WriteError)> {
        let Write { id, put, reply } = write;
        let what = match put {
            None => What::Remove(self.shelf.files_of(id)),
            Some((vif, bytes)) => {
                // The file that counts is the one to replace, or else the old record would go on counting.
                let name = self.shelf.file_of(id).unwrap_or_else(|| format!("{id}.json").into());
                if let Some(other) = self.shelf.occupant(&name).filter(|occupant| *occupant != id) {
                    let name = self.path.join(name);
                    let conflict = format!("{} holds the record of VIF {other}: rename that file", name.display());
                    return Err((reply, WriteError::Conflict(conflict)));
                }
                What::Replace(name, vif, bytes)
            }
        };
        Ok(Job { id, what, reply })
    }
}

async fn next(watch: Option<&Watch>) -> io::Result<Vec<Event>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    crate::blocking::blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn why_unreadable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.raw_os_error() {
        Some(code) if code == nix::Error::ENOENT as i32 => format!("the directory of records {path} is not there"),
        Some(code) if code == nix::Error::ENOTDIR as i32 => format!("{path} is not a directory"),
        Some(code) if code == nix::Error::ENOSPC as i32 || code == nix::Error::EMFILE as i32 => format!(
            "the directory of records {path} cannot be watched: the kernel's inotify limits are reached \
             (raise the sysctls fs.inotify.max_user_watches and fs.inotify.max_user_instances)"
        ),
        _ => format!("the directory of records {path} cannot be read: {error}"),
    }
}
