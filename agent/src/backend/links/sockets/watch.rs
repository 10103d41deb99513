//! Noticing changes below the vhost-user directory (inotify), and reading it again.
//!
//! An event only says that something may have changed: the directory is small, so it is read anew, which is
//! right whatever was lost or reordered. Every directory on the way to it and below it is watched *before* it
//! is looked into, so nothing slips through in between, and a directory that is missing, deleted or made again
//! is noticed from above.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

use crate::blocking::blocking;
use crate::model::SocketState;
use crate::registration::InotifyInstance;
use crate::way::{MOVES, Way, inotify};

use super::AllowedDirectory;

/// What can change a place, and owner and mode.
const CHANGES: AddWatchFlags = MOVES.union(AddWatchFlags::IN_ATTRIB);

/// The face of the task that looks after the directory. The task ends when this is dropped.
pub(in super::super) struct Sockets {
    rescans: mpsc::Sender<oneshot::Sender<SocketState>>,
    changes: watch::Receiver<SocketState>,
}

impl Sockets {
    /// Starts the task.
    pub(in super::super) fn spawn(allowed: AllowedDirectory) -> Self {
        let (rescans, requests) = mpsc::channel(1);
        let (state, changes) = watch::channel(SocketState::default());
        tokio::spawn(run(allowed, requests, state));
        Sockets { rescans, changes }
    }

    /// Reads the directory now. `None` when the task is gone.
    pub(in super::super) async fn rescan(&mut self) -> Option<SocketState> {
        let (reply, answer) = oneshot::channel();
        self.rescans.send(reply).await.ok()?;
        answer.await.ok()
    }

    /// The next state that was noticed. Never, once the task is gone. Cancel safe.
    pub(in super::super) async fn changed(&mut self) -> SocketState {
        match self.changes.changed().await {
            Ok(()) => self.changes.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    }
}

async fn run(
    allowed: AllowedDirectory,
    mut requests: mpsc::Receiver<oneshot::Sender<SocketState>>,
    state: watch::Sender<SocketState>,
) {
    let mut inotify = inotify()
        .map(Arc::new)
        .inspect_err(|error| {
            tracing::warn!(%error, "no inotify: the vhost-user directory is read only when vifd writes to it");
        })
        .ok();
    let mut watched = Watched::default();
    loop {
        let reply = tokio::select! {
            request = requests.recv() => match request {
                Some(reply) => Some(reply),
                None => return,
            },
            noticed = notice(inotify.as_deref(), &watched) => {
                if let Err(error) = noticed {
                    tracing::warn!(%error, "inotify ended: the vhost-user directory is read only when vifd writes to it");
                    inotify = None;
                }
                None
            }
        };
        let (allowed, instance) = (allowed.clone(), inotify.clone());
        let scanned = blocking(move || scan(&allowed, instance.as_deref())).await;
        let found;
        (watched, found) = match scanned {
            Ok(scanned) => scanned,
            Err(error) => {
                tracing::error!(%error, "reading the vhost-user directory broke off: its view stands still");
                return;
            }
        };
        state.send_if_modified(|known| {
            let news = *known != found;
            known.clone_from(&found);
            news
        });
        if let Some(reply) = reply {
            // The asker may have given up.
            let _ = reply.send(found);
        }
    }
}

type Instance = AsyncFd<InotifyInstance>;

/// Which watch is on what, since the last reading.
#[derive(Debug, Default)]
struct Watched {
    /// The directories above.
    way: Way,
    /// The directory, and those below it.
    inside: HashSet<WatchDescriptor>,
}

impl Watched {
    /// Whether the watch is on a directory that was looked into.
    fn knows(&self, watch: WatchDescriptor) -> bool {
        self.inside.contains(&watch) || self.way.has(watch)
    }

    /// Whether an event can mean a change of the view. What happens to other names beside the way cannot.
    fn is_news(&self, watch: WatchDescriptor, mask: AddWatchFlags, name: Option<&OsStr>) -> bool {
        mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            || self.inside.contains(&watch)
            || self.way.is_changed_by(watch, name)
    }
}

/// Watches the way to the directory, the directory and those below it, and reads it.
fn scan(allowed: &AllowedDirectory, inotify: Option<&Instance>) -> (Watched, SocketState) {
    let mut watched = Watched::default();
    let Some(inotify) = inotify.map(|inotify| &inotify.get_ref().0) else { return (watched, allowed.scan(|_| {})) };
    watched.way = Way::watch(inotify, &allowed.path, MOVES, |directory, error| {
        tracing::warn!(?directory, %error, "cannot be watched");
    });
    let state = allowed.scan(|directory| match inotify.add_watch(directory, CHANGES) {
        Ok(watch) => {
            watched.inside.insert(watch);
        }
        Err(Errno::ENOENT | Errno::ENOTDIR) => {}
        Err(error) => tracing::warn!(?directory, %error, "cannot be watched: changes in it go unnoticed"),
    });
    (watched, state)
}

/// Waits for an event that can mean a change of the view; for ever without inotify. Cancel safe.
async fn notice(inotify: Option<&Instance>, watched: &Watched) -> io::Result<()> {
    let Some(inotify) = inotify else { return std::future::pending().await };
    loop {
        let mut guard = inotify.readable().await?;
        let instance = &guard.get_inner().0;
        match instance.read_events() {
            Ok(events) => {
                events.iter().for_each(|event| forget_strangers(instance, watched, event));
                if events.iter().any(|event| watched.is_news(event.wd, event.mask, event.name.as_deref())) {
                    return Ok(());
                }
            }
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the watch off a directory that was not met at the last reading: it was moved away.
fn forget_strangers(inotify: &Inotify, watched: &Watched, event: &InotifyEvent) {
    let lasts = !event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_Q_OVERFLOW);
    if lasts && !watched.knows(event.wd) {
        // It may be gone by itself in the meantime.
        let _ = inotify.rm_watch(event.wd);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::inotify::InitFlags;

    use super::*;

    #[test]
    fn only_events_on_the_way_to_the_directory_or_below_it_are_news() {
        let scratch = tempfile::tempdir().unwrap();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let watch = |name: &str| {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
            inotify.add_watch(&scratch.path().join(name), MOVES).unwrap()
        };
        let (inside, stranger) = (watch("inside"), watch("stranger"));
        let way = Way::watch(&inotify, &scratch.path().join("inside"), MOVES, |_, _| {});
        let above = inotify.add_watch(scratch.path(), MOVES).unwrap();
        let watched = Watched { way, inside: [inside].into() };
        let is_news = |watch, mask, name: Option<&str>| watched.is_news(watch, mask, name.map(OsStr::new));
        let create = AddWatchFlags::IN_CREATE;
        assert!(is_news(above, create, Some("inside")));
        assert!(!is_news(above, create, Some("beside")));
        assert!(is_news(above, AddWatchFlags::IN_DELETE_SELF, None));
        assert!(is_news(inside, create, Some("anything")));
        assert!(!is_news(stranger, create, Some("inside")));
        assert!(is_news(stranger, AddWatchFlags::IN_Q_OVERFLOW, None), "events were lost");
        assert!(watched.knows(above) && watched.knows(inside) && !watched.knows(stranger));
    }
}
