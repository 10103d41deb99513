//! Watching the way to a path with inotify(7): every directory above it, each for the name in it that leads on, so that
//! it is noticed when what is at the path is made, replaced or moved. What is below the path is for others.
//!
//! A directory is watched *before* the next one is looked at, so that nothing appears in between unseen. (Un)mounting
//! is no event of any directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::registration::{InotifyInstance, register};

/// What can change a directory's place, or take it away.
pub(crate) const MOVES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// An inotify instance that tokio can wait for.
///
/// # Errors
/// The kernel grants none.
pub(crate) fn inotify() -> io::Result<AsyncFd<InotifyInstance>> {
    register(InotifyInstance(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?), Interest::READABLE)
}

/// The watched directories above a path, as far as they exist, each with the name in it that leads on.
#[derive(Debug, Default)]
pub(crate) struct Way(Vec<(WatchDescriptor, OsString)>);

impl Way {
    /// Watches the way to an absolute path for `events`. A directory that cannot be watched is left out, and told to
    /// `refused`; where one is missing the way ends.
    pub(crate) fn watch(
        inotify: &Inotify,
        path: &Path,
        events: AddWatchFlags,
        mut refused: impl FnMut(&Path, Errno),
    ) -> Way {
        let (mut way, mut parent) = (Way::default(), PathBuf::new());
        for component in path.components() {
            if let Component::Normal(name) = component {
                match inotify.add_watch(&parent, events) {
                    Ok(watch) => way.0.push((watch, name.to_owned())),
                    Err(Errno::ENOENT | Errno::ENOTDIR) => break,
                    Err(error) => refused(&parent, error),
                }
            }
            parent.push(component);
        }
        way
    }

    /// Whether this is one of its watches.
    pub(crate) fn has(&self, watch: WatchDescriptor) -> bool {
        self.0.iter().any(|(above, _)| *above == watch)
    }

    /// Whether an event can mean that the path leads elsewhere now. What happens to other names beside it cannot; an
    /// event without a name is about the watched directory itself.
    pub(crate) fn is_changed_by(&self, watch: WatchDescriptor, name: Option<&OsStr>) -> bool {
        self.0.iter().any(|(above, next)| *above == watch && name.is_none_or(|name| name == next))
    }
}

/// Ends when something is made at the path, or moved there, after this was called; for ever where that cannot be
/// watched. Said of anything on the way to the path, too: what was at the path may be another then.
pub(crate) fn made_anew(path: &Path) -> impl Future<Output = ()> + Send + 'static {
    // A directory that goes is no comeback: its return is seen from above.
    let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
    let watched = std::path::absolute(path).and_then(|path| {
        let inotify = inotify()?;
        let unwatched = |directory: &Path, error| tracing::debug!(?directory, %error, "cannot be watched");
        let way = Way::watch(&inotify.get_ref().0, &path, events, unwatched);
        Ok((inotify, way))
    });
    async move {
        let noticed = async {
            let (inotify, way) = watched?;
            loop {
                let mut guard = inotify.readable().await?;
                match guard.get_inner().0.read_events() {
                    Ok(events) => {
                        let news = |event: &nix::sys::inotify::InotifyEvent| {
                            event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
                                || event.name.is_some() && way.is_changed_by(event.wd, event.name.as_deref())
                        };
                        if events.iter().any(news) {
                            return Ok(());
                        }
                    }
                    Err(Errno::EAGAIN) => guard.clear_ready(),
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(io::Error::from(error)),
                }
            }
        };
        if let Err(error) = noticed.await {
            tracing::debug!(%error, "no inotify: the return of a socket is not noticed");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_made_at_the_path_or_on_the_way_to_it_is_noticed_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("run");
        let path = directory.join("db.sock");
        let notices = async |change: &dyn Fn()| {
            let anew = made_anew(&path);
            change();
            tokio::time::timeout(Duration::from_millis(200), anew).await.is_ok()
        };
        let certainly = async |change: &dyn Fn()| {
            let anew = made_anew(&path);
            change();
            tokio::time::timeout(PATIENCE, anew).await.unwrap();
        };
        let create = |path: &Path| drop(std::fs::File::create(path).unwrap());
        certainly(&|| std::fs::create_dir(&directory).unwrap()).await;
        certainly(&|| create(&path)).await;
        assert!(!notices(&|| create(&directory.join("other"))).await);
        assert!(!notices(&|| std::fs::remove_file(&path).unwrap()).await);
        certainly(&|| std::fs::rename(directory.join("other"), &path).unwrap()).await;
        assert!(!notices(&|| std::fs::remove_dir_all(&directory).unwrap()).await);
        certainly(&|| std::fs::create_dir(&directory).unwrap()).await;
    }

    #[test]
    fn only_events_that_lead_to_the_path_change_the_way() {
        let scratch = tempfile::tempdir().unwrap();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = inotify.add_watch(elsewhere.path(), MOVES).unwrap();
        let way = Way::watch(&inotify, &scratch.path().join("missing/path"), MOVES, |_, _| {});
        let (last, leads) = way.0.last().unwrap();
        assert_eq!(leads, "missing");
        assert!(way.is_changed_by(*last, Some(leads)) && way.is_changed_by(*last, None));
        assert!(!way.is_changed_by(*last, Some(OsStr::new("beside"))));
        assert!(!way.is_changed_by(stranger, Some(leads)) && !way.has(stranger) && way.has(*last));
    }
}
