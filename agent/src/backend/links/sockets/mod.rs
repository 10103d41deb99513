//! The directory in which vhost-user sockets are allowed: reading it, making directories in it, removing
//! sockets from it. Blocking file-system calls; noticing changes is `watch.rs`'s.
//!
//! Guests' processes may write below it, so below it no symbolic link is ever followed: every step down is
//! `openat` with `O_NOFOLLOW`. The way *to* it is the administrator's (`/var/run` is a link) and is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::model::{FileOwner, SocketState};

mod watch;

pub(super) use watch::Sockets;

/// How many levels of directories below the allowed one are seen and made.
pub(super) const DEPTH: usize = 3;

const LABEL: &str = "security.selinux";
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const OPEN_BELOW: OFlags = OPEN.union(OFlags::NOFOLLOW);

/// Why a directory was not made or a socket not removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// It would be somewhere else.
    #[error("{path:?} is not within {DEPTH} levels below {allowed:?}")]
    NotAllowed {
        /// What was asked for.
        path: PathBuf,
        /// Where it would have to be.
        allowed: PathBuf,
    },
    /// Something stands in the way: `openat` did not find a directory there.
    #[error("{0:?} is a symbolic link or not a directory: not followed")]
    NotADirectory(PathBuf),
    /// It is there and is something else.
    #[error("{0:?} is not a socket: not removed")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot {what} {path:?}: {errno}")]
    Refused {
        /// The attempt.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's word.
        errno: Errno,
    },
}

/// The directory in which vhost-user sockets are allowed.
#[derive(Clone, Debug)]
pub(super) struct AllowedDirectory {
    path: PathBuf,
}

impl AllowedDirectory {
    /// `path` is absolute. It need not exist.
    pub(super) fn new(path: PathBuf) -> Self {
        AllowedDirectory { path }
    }

    /// Makes the directory `path`, and those between it and the allowed one, the allowed one included, as
    /// `owner` says. One that exists is put right, if it is `path` itself.
    pub(super) fn make_directory(&self, path: &Path, owner: &FileOwner) -> Result<(), SocketError> {
        let names = self.below(path, DEPTH)?;
        let mut here = self.path.clone();
        let (mut directory, mut fresh) = match rustix::fs::open(&here, OPEN, Mode::empty()) {
            Ok(open) => (File::from(open), false),
            Err(Errno::NOENT) => {
                unless_exists(rustix::fs::mkdir(&here, mode(owner))).map_err(refused("make directory", &here))?;
                (File::from(rustix::fs::open(&here, OPEN, Mode::empty()).map_err(refused("open", &here))?), true)
            }
            Err(errno) => return Err(step_error(&here, errno)),
        };
        for name in names {
            if fresh {
                dress(&directory, &here, owner)?;
            }
            here.push(name);
            (directory, fresh) = match rustix::fs::openat(&directory, name, OPEN_BELOW, Mode::empty()) {
                Ok(open) => (File::from(open), false),
                Err(Errno::NOENT) => {
                    unless_exists(rustix::fs::mkdirat(&directory, name, mode(owner)))
                        .map_err(refused("make directory", &here))?;
                    let open = rustix::fs::openat(&directory, name, OPEN_BELOW, Mode::empty());
                    (File::from(open.map_err(|errno| step_error(&here, errno))?), true)
                }
                Err(errno) => return Err(step_error(&here, errno)),
            };
        }
        // The allowed directory itself may be Open vSwitch's own: it is dressed only by who made it.
        if fresh || here != self.path { dress(&directory, &here, owner) } else { Ok(()) }
    }

    /// Removes the socket `path`; that there is none is as good. The last look and the removal are two system
    /// calls: a file that takes the socket's place in between goes (a directory never does).
    pub(super) fn remove_socket(&self, path: &Path) -> Result<(), SocketError> {
        let names = self.below(path, DEPTH + 1)?;
        let Some((socket, directories)) = names.split_last() else {
            return Err(SocketError::NotASocket(path.to_owned()));
        };
        let mut here = self.path.clone();
        let mut directory = match rustix::fs::open(&here, OPEN, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(step_error(&here, errno)),
        };
        for name in directories {
            here.push(name);
            directory = match rustix::fs::openat(&directory, *name, OPEN_BELOW, Mode::empty()) {
                Ok(open) => open,
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(step_error(&here, errno)),
            };
        }
        match rustix::fs::statat(&directory, *socket, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if file_type(&stat) == FileType::Socket => {}
            Ok(_) => return Err(SocketError::NotASocket(path.to_owned())),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(refused("look at", path)(errno)),
        }
        match rustix::fs::unlinkat(&directory, *socket, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(refused("remove", path)(errno)),
        }
    }

    /// Reads the directory and those below it. `entering` is called with every directory before it is read.
    /// What cannot be read, or goes while it is read, is left out.
    pub(super) fn scan(&self, mut entering: impl FnMut(&Path)) -> SocketState {
        let mut state = SocketState::default();
        entering(&self.path);
        match rustix::fs::open(&self.path, OPEN, Mode::empty()) {
            Ok(open) => scan_into(&mut state, &self.path, &File::from(open), 0, &mut entering),
            Err(Errno::NOENT) => {}
            Err(errno) => tracing::warn!(directory = ?self.path, error = %errno, "vhost-user directory not readable"),
        }
        state
    }

    /// The names that lead from the allowed directory to `path`, at most `levels` of them.
    fn below<'a>(&self, path: &'a Path, levels: usize) -> Result<Vec<&'a OsStr>, SocketError> {
        let not_allowed = || SocketError::NotAllowed { path: path.to_owned(), allowed: self.path.clone() };
        let names = path
            .strip_prefix(&self.path)
            .map_err(|_| not_allowed())?
            .components()
            .map(|component| match component {
                Component::Normal(name) => Ok(name),
                _ => Err(not_allowed()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if names.len() <= levels { Ok(names) } else { Err(not_allowed()) }
    }
}

fn scan_into(state: &mut SocketState, path: &Path, open: &File, depth: usize, entering: &mut impl FnMut(&Path)) {
    let Some(owner) = owner(open) else { return };
    state.directories.insert(path.to_owned(), owner);
    let Ok(entries) = Dir::read_from(open) else { return };
    for entry in entries.flatten() {
        let name = OsString::from(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match rustix::fs::statat(open, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => file_type(&stat),
                Err(_) => continue,
            },
            kind => kind,
        };
        let below = path.join(&name);
        match kind {
            FileType::Socket => {
                state.sockets.insert(below);
            }
            FileType::Directory if depth < DEPTH => {
                entering(&below);
                if let Ok(open) = rustix::fs::openat(open, &name, OPEN_BELOW, Mode::empty()) {
                    scan_into(state, &below, &File::from(open), depth + 1, entering);
                }
            }
            _ => {}
        }
    }
}

fn owner(open: &File) -> Option<FileOwner> {
    let stat = rustix::fs::fstat(open).ok()?;
    let mut value = [0; 256];
    let label = rustix::fs::fgetxattr(open, LABEL, &mut value).ok().map(|length| {
        let text = value[..length].strip_suffix(b"\0").unwrap_or(&value[..length]);
        String::from_utf8_lossy(text).into_owned()
    });
    Some(FileOwner { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, label })
}

/// Gives a directory its owner, mode and label, where they differ.
fn dress(open: &File, path: &Path, wanted: &FileOwner) -> Result<(), SocketError> {
    let has = owner(open);
    let has = has.as_ref();
    // The owner first: the kernel may take mode bits away when it changes.
    if has.is_none_or(|has| (has.uid, has.gid) != (wanted.uid, wanted.gid)) {
        // As with chown(2), the highest number leaves it as it is.
        let uid = (wanted.uid != u32::MAX).then(|| Uid::from_raw(wanted.uid));
        let gid = (wanted.gid != u32::MAX).then(|| Gid::from_raw(wanted.gid));
        rustix::fs::fchown(open, uid, gid).map_err(refused("change the owner of", path))?;
    }
    if owner(open).is_none_or(|has| has.mode != wanted.mode & 0o7777) {
        rustix::fs::fchmod(open, mode(wanted)).map_err(refused("change the mode of", path))?;
    }
    match &wanted.label {
        Some(label) if has.is_none_or(|has| has.label.as_ref() != Some(label)) => {
            let value = [label.as_bytes(), b"\0"].concat();
            rustix::fs::fsetxattr(open, LABEL, &value, XattrFlags::empty())
                .map_err(refused("change the SELinux label of", path))
        }
        _ => Ok(()),
    }
}

fn mode(owner: &FileOwner) -> Mode {
    Mode::from_raw_mode(owner.mode & 0o7777)
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Somebody else may have made it first: the open that follows tells what it is.
fn unless_exists(made: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

fn refused(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> SocketError {
    move |errno| SocketError::Refused { what, path: path.to_owned(), errno }
}

/// What `openat` with `O_DIRECTORY | O_NOFOLLOW` says of a link or a file is the caller's `NotADirectory`.
fn step_error(path: &Path, errno: Errno) -> SocketError {
    match errno {
        Errno::NOTDIR | Errno::LOOP => SocketError::NotADirectory(path.to_owned()),
        errno => refused("open", path)(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_below_the_allowed_directory_are_taken() {
        let allowed = AllowedDirectory::new("/run/vhost".into());
        let below = |path: &str| allowed.below(Path::new(path), DEPTH).map(|names| names.len()).ok();
        assert_eq!(below("/run/vhost"), Some(0));
        assert_eq!(below("/run/vhost/"), Some(0));
        assert_eq!(below("/run/vhost/a/b/c"), Some(3));
        for wrong in ["/run/vhost/a/b/c/d", "/run/vhosts", "/run", "/run/vhost/../x", "/run/vhost/a/..", "vhost/a", ""]
        {
            assert_eq!(below(wrong), None, "{wrong}");
        }
    }
}
