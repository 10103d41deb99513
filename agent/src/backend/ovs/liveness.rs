//! Whether ovs-vswitchd is running. The database does not tell: it keeps the last `ofport` and `status` of a
//! switch that died. A connection to its control socket does: it ends with the process.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::registration::InotifyInstance;
use crate::way::inotify;

/// Look again after so long even if the directory said nothing: a directory that is not there cannot be watched.
const PATIENCE: Duration = Duration::from_secs(5);
/// A socket appears when it is bound and answers only when it is listened on, a moment later.
const SETTLING: Duration = Duration::from_millis(20);
/// How often a socket that refuses is tried again before the next event is waited for.
const ATTEMPTS: u32 = 50;

/// Follows the ovs-vswitchd whose control socket is in `rundir` (`ovs-vswitchd*.ctl`). The answer is `None`
/// until the first look.
pub(super) fn follow(rundir: PathBuf) -> watch::Receiver<Option<bool>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        tokio::select! {
            () = run(&rundir, &sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn run(rundir: &Path, alive: &watch::Sender<Option<bool>>) {
    loop {
        // Watched before it is listed, so that nothing appears in between unseen.
        let watched = watch_directory(rundir);
        if let Some(mut stream) = connect(rundir).await {
            alive.send_replace(Some(true));
            // The server speaks only when asked, so this read ends when the process does.
            let mut byte = [0];
            let _ = stream.read(&mut byte).await;
            alive.send_replace(Some(false));
            // Whoever accepts and hangs up at once, or speaks unasked, is not asked without a pause.
            tokio::time::sleep(SETTLING).await;
            continue;
        }
        alive.send_if_modified(|alive| alive.replace(false) != Some(false));
        match watched {
            // Which entry it was does not matter: the directory is listed anew, and watched anew.
            Ok(watched) => drop(tokio::time::timeout(PATIENCE, watched.readable()).await),
            Err(_) => tokio::time::sleep(PATIENCE).await,
        }
    }
}

/// Becomes readable when an entry appears in the directory.
fn watch_directory(path: &Path) -> io::Result<AsyncFd<InotifyInstance>> {
    let inotify = inotify()?;
    let entries = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
    inotify.get_ref().0.add_watch(path, entries)?;
    Ok(inotify)
}

/// A connection to the control socket, when somebody answers on it.
async fn connect(rundir: &Path) -> Option<UnixStream> {
    for _ in 0..ATTEMPTS {
        let mut refused = false;
        for path in control_sockets(rundir) {
            match UnixStream::connect(&path).await {
                Ok(stream) => return Some(stream),
                Err(error) => refused |= error.kind() == std::io::ErrorKind::ConnectionRefused && is_new(&path),
            }
        }
        if !refused {
            return None;
        }
        tokio::time::sleep(SETTLING).await;
    }
    None
}

/// Whether the socket was made just now, so that its maker may be about to listen on it. The socket of a
/// process that was killed stays behind and is older.
fn is_new(path: &Path) -> bool {
    let made = path.metadata().and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < PATIENCE))
}

/// The control sockets of ovs-vswitchd in `rundir`, of dead ones too.
pub(crate) fn control_sockets(rundir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(rundir).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("ovs-vswitchd") && name.ends_with(".ctl")
    });
    named.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn death_and_return_are_seen_as_they_happen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ovs-vswitchd.7.ctl");
        let mut alive = follow(dir.path().to_path_buf());
        alive.wait_for(|alive| *alive == Some(false)).await.unwrap();
        for _ in 0..2 {
            let listener = UnixListener::bind(&path).unwrap();
            let accepted = tokio::spawn(async move { listener.accept().await.map(|(stream, _)| (stream, listener)) });
            alive.wait_for(|alive| *alive == Some(true)).await.unwrap();
            let kept = accepted.await.unwrap().unwrap();
            drop(kept);
            alive.wait_for(|alive| *alive == Some(false)).await.unwrap();
            // Killed, so the socket is still there and refuses.
            assert!(path.exists());
            std::fs::remove_file(&path).unwrap();
        }
    }
}
