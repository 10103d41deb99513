//! Being told of changes: inotify on the directory and on every directory above it, and the kernel's mount
//! table, because (un)mounting something over a path is no event of any directory (inotify(7), proc(5)).
//!
//! inotify is used as it is: of the events of a directory this needs few, and above all not those that its
//! own reading of ten thousand files would cause.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::registration::{InotifyInstance, register};
use crate::way::{MOVES, Way, inotify};

use super::disk::{Open, is_record};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A record was moved into the directory: it is whole.
    Arrived(OsString),
    /// Something else happened to a record of the directory.
    Record(OsString),
    /// The directory may have become unreadable, or readable.
    Mode,
    /// The path may lead somewhere else now, and the watches with it.
    Path,
    /// Events were lost.
    Overflow,
}

/// The watches for one path, as far as it exists.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: AsyncFd<InotifyInstance>,
    way: Way,
    target: Option<WatchDescriptor>,
}

impl Watch {
    /// Watches a path. The directory itself is answered where it is there; otherwise why it is not.
    ///
    /// # Errors
    /// When the kernel grants no inotify instance.
    pub(super) fn arm(path: &Path) -> io::Result<(Watch, io::Result<Open>)> {
        let mut watch = Watch { inotify: inotify()?, way: Way::default(), target: None };
        let opened = watch.add(path);
        Ok((watch, opened))
    }

    fn add(&mut self, path: &Path) -> io::Result<Open> {
        let inotify = &self.inotify.get_ref().0;
        let mut refused = None;
        self.way = Way::watch(inotify, path, MOVES, |_, error| refused = refused.or(Some(error)));
        if let Some(error) = refused {
            return Err(error.into());
        }
        let inside = MOVES | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
        let open = Open::directory(path)?;
        self.target = Some(inotify.add_watch(&open.proc_path(), inside)?);
        Ok(open)
    }

    /// What has happened since, in order; waits until there is something of interest. Cancel safe.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub(super) async fn next(&self) -> io::Result<Vec<Event>> {
        loop {
            let mut guard = self.inotify.readable().await?;
            match guard.get_inner().0.read_events() {
                Ok(events) => {
                    let events: Vec<Event> = self.meanings(events).collect();
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                Err(nix::Error::EAGAIN) => guard.clear_ready(),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What has happened since, in order, without waiting.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub(super) fn so_far(&self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            match self.inotify.get_ref().0.read_events() {
                Ok(read) => events.extend(self.meanings(read)),
                Err(nix::Error::EAGAIN) => return Ok(events),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn meanings(&self, events: Vec<InotifyEvent>) -> impl Iterator<Item = Event> {
        events.into_iter().filter_map(|event| self.meaning(event.wd, event.mask, event.name.as_deref()))
    }

    fn meaning(&self, wd: WatchDescriptor, mask: AddWatchFlags, name: Option<&OsStr>) -> Option<Event> {
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(Event::Overflow);
        }
        match name {
            Some(name) if Some(wd) == self.target && !is_record(name) => None,
            Some(name) if Some(wd) == self.target && mask.contains(AddWatchFlags::IN_MOVED_TO) => {
                Some(Event::Arrived(name.to_owned()))
            }
            Some(name) if Some(wd) == self.target => Some(Event::Record(name.to_owned())),
            Some(_) => self.way.is_changed_by(wd, name).then_some(Event::Path),
            None if mask.contains(AddWatchFlags::IN_ATTRIB) => Some(Event::Mode),
            // A watched directory itself: deleted, moved, unmounted.
            None => Some(Event::Path),
        }
    }
}

/// The mount table of this process, which the kernel makes readable with priority whenever it changes.
#[derive(Debug)]
pub(super) struct Mounts(AsyncFd<File>);

impl Mounts {
    /// # Errors
    /// When `/proc` is not what it should be.
    pub(super) fn open() -> io::Result<Mounts> {
        register(File::open("/proc/thread-self/mountinfo")?, Interest::PRIORITY).map(Mounts)
    }

    /// Waits until something was mounted or unmounted. Cancel safe.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub(super) async fn changed(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}
