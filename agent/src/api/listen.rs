//! The sockets: the unix one with its owner and mode from the first moment on, and the TCP one.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fs, process};

use nix::unistd::{Gid, Group, chown};
use tokio::net::{TcpListener, UnixListener};
use tracing::warn;

use crate::config;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers on the socket.
    #[error("another process listens on {0}: is vifd running already?")]
    InUse(PathBuf),
    /// The socket's path is taken by something that is no socket.
    #[error("{0} is there and is not a socket")]
    NoSocket(PathBuf),
    /// Anybody could put a socket of their own in the place of ours.
    #[error("{0}, in which the socket would be, can be written by everybody: run `chmod o-w {0}`")]
    Writable(PathBuf),
    /// Anything else.
    #[error("cannot listen on {address}")]
    Io {
        /// Path or address.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// A unix socket that is removed with this.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that nobody else's socket is removed.
    identity: (u64, u64),
}

impl Local {
    /// Listens at the configured path. Nobody can connect before owner and mode are as configured: the socket is
    /// made in a directory that only we can enter and moved to its place when it is ready.
    pub(super) fn bind(config: &config::Api) -> Result<Local, BindError> {
        let path = &config.socket;
        let fail = |source| BindError::Io { address: path.display().to_string(), source };
        vacant(path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        // On a host where nothing has made it yet; one that is there keeps its owner and mode.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(fail)?;
        private_enough(parent)?;
        let private = Private::create(parent).map_err(fail)?;
        let socket = private.0.join("s");
        let listener = UnixListener::bind(&socket).map_err(fail)?;
        if !config.group.is_empty() {
            match Group::from_name(&config.group).map_err(|error| fail(error.into()))? {
                // The shipped unit runs in this group, and may not change any.
                Some(group) if has_group(&socket, group.gid).map_err(fail)? => {}
                Some(group) => chown(&socket, None, Some(group.gid)).map_err(|error| fail(error.into()))?,
                None => warn!(
                    group = config.group,
                    "the group of [api] is not known on this host: the socket keeps the agent's own"
                ),
            }
        }
        fs::set_permissions(&socket, fs::Permissions::from_mode(config.mode.0)).map_err(fail)?;
        let metadata = fs::symlink_metadata(&socket).map_err(fail)?;
        fs::rename(&socket, path).map_err(fail)?;
        Ok(Local { listener, path: path.clone(), identity: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the socket of the API");
        }
    }
}

/// Whether the path can be taken: nothing is there, or a socket on which nobody listens any more.
fn vacant(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt as _;
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NoSocket(path.to_owned())),
        Ok(_) => {}
        Err(_) => return Ok(()), // Anything but its absence is told by binding.
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A full backlog, a missing permission: somebody is there.
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

/// Whether nobody unknown can take the socket's place: a directory that everybody may write to has to be sticky.
fn private_enough(directory: &Path) -> Result<(), BindError> {
    match fs::metadata(directory) {
        Ok(metadata) if metadata.mode() & 0o1002 == 0o0002 => Err(BindError::Writable(directory.to_owned())),
        _ => Ok(()),
    }
}

fn has_group(path: &Path, group: Gid) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path)?.gid() == group.as_raw())
}

/// A directory that only we can enter, removed with this.
struct Private(PathBuf);

impl Private {
    fn create(parent: &Path) -> io::Result<Private> {
        let path = parent.join(format!(".v{}", process::id()));
        // Left over by an earlier process with this number.
        let _ = fs::remove_file(path.join("s"));
        let _ = fs::remove_dir(&path);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Private(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.join("s"));
        if let Err(error) = fs::remove_dir(&self.0) {
            warn!(path = %self.0.display(), %error, "cannot remove a directory of our own");
        }
    }
}

/// Listens on TCP.
pub(super) async fn tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Io { address: address.to_string(), source })
}
