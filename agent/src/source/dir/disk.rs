//! The files themselves: reading records, replacing them atomically, and the tombstones of deleted VIFs.
//! What they mean is `shelf`'s business. Everything here blocks and runs off the async threads.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::shelf::Reading;
use crate::model::VifId;
use crate::record::Refused;
use crate::source::Decode;
use crate::state_dir::StateDir;

/// Which directory it is, whatever its name: device and inode.
pub(super) type Identity = (u64, u64);

/// An open directory. It is held open only while it is read or written, so that it can be unmounted.
#[derive(Debug)]
pub(super) struct Open {
    fd: OwnedFd,
    /// Which directory it is.
    pub(super) identity: Identity,
}

/// How records are read.
#[derive(Clone)]
pub(super) struct Reader {
    /// Judge of the content.
    pub(super) decode: Decode,
    /// Files that are longer, in bytes, are refused unread.
    pub(super) max_record: usize,
}

impl Open {
    /// Opens a directory.
    pub(super) fn directory(path: &Path) -> io::Result<Open> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        if stat.st_mode & 0o002 != 0 {
            return Err(io::Error::other("it can be written by everybody, who could then plug and unplug (chmod o-w)"));
        }
        Ok(Open { fd, identity: (stat.st_dev, stat.st_ino) })
    }

    /// A path that leads to this very directory as long as it is open, even when its name now leads elsewhere.
    pub(super) fn proc_path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The names of the records in it, in no order.
    pub(super) fn list(&self) -> io::Result<Vec<OsString>> {
        // A description of its own: reading a directory moves the offset that duplicates share.
        let own = openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut directory = Dir::from_fd(own)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_record(name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Reads the named records.
    pub(super) fn read_all(&self, names: Vec<OsString>, reader: &Reader) -> Vec<(OsString, Reading)> {
        names
            .into_iter()
            .map(|name| {
                let reading = self.read(&name, reader);
                (name, reading)
            })
            .collect()
    }

    fn read(&self, name: &OsStr, reader: &Reader) -> Reading {
        match self.bytes(name, reader.max_record) {
            Ok(bytes) => judge(name, &bytes, reader),
            Err(Unread::Absent) => Reading::Absent,
            Err(Unread::Refused(reason)) => Reading::Bad(Refused { vif: id_of_name(name), ..whole(reason) }),
        }
    }

    /// The bytes of one record.
    pub(super) fn bytes(&self, name: &OsStr, max: usize) -> Result<Vec<u8>, Unread> {
        // Looked at before it is opened: opening a device can do anything. What is put in its place in between is
        // looked at again.
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => regular(stat.st_mode)?,
            Err(nix::Error::ENOENT) => return Err(Unread::Absent),
            Err(error) => return Err(Unread::Refused(format!("cannot be looked at: {}", error.desc()))),
        }
        // O_NONBLOCK: opening a FIFO must not wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(nix::Error::ENOENT) => return Err(Unread::Absent),
            Err(error) => return Err(Unread::Refused(format!("cannot be opened: {}", error.desc()))),
        };
        let cannot_read = |error: io::Error| Unread::Refused(format!("cannot be read: {error}"));
        let stat = fstat(&fd).map_err(|error| cannot_read(error.into()))?;
        regular(stat.st_mode)?;
        // Who may write to the directory could lend a file of another user's a name here, to have it read for them.
        if stat.st_nlink > 1 && stat.st_uid != nix::unistd::geteuid().as_raw() {
            let reason = format!("is one of {} names of a file of user {} (hard links)", stat.st_nlink, stat.st_uid);
            return Err(Unread::Refused(format!("{reason}: records are written by rename")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(max) + 1);
        File::from(fd).take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
        if bytes.len() > max {
            return Err(Unread::Refused(format!("is larger than {max} bytes")));
        }
        Ok(bytes)
    }

    /// Puts `bytes` in the place of a record: all of them or none, also after a crash once [`Open::sync`] is done.
    pub(super) fn replace(&self, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
        // The leading dot hides it from readers of the directory; one writer task, so one name suffices.
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(".new");
        // Whatever bears that name is not written to: it may be a link, or one more name of another file.
        self.remove(&temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, temporary.as_os_str(), flags, Mode::from_bits_truncate(0o640))?;
        let mut file = File::from(fd);
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.fd, temporary.as_os_str(), &self.fd, name)?));
        if written.is_err() {
            // Best effort: a left-over is removed by the next attempt.
            let _ = unlinkat(&self.fd, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// Removes a record; one that is not there is no error.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes names that were made, changed or removed durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(self.fd.as_fd())?)
    }
}

/// Refuses what is not a file of bytes.
fn regular(mode: nix::libc::mode_t) -> Result<(), Unread> {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Ok(()),
        SFlag::S_IFLNK => Err(Unread::Refused("is a symbolic link, and those are not followed".into())),
        _ => Err(Unread::Refused("is not a regular file".into())),
    }
}

/// Why a file has no bytes for us.
#[derive(Debug)]
pub(super) enum Unread {
    /// There is no such file.
    Absent,
    /// One sentence.
    Refused(String),
}

/// Whether a name is one of a record: `*.json`, and not hidden.
pub(super) fn is_record(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".json") && !name.as_bytes().starts_with(b".")
}

fn judge(name: &OsStr, bytes: &[u8], reader: &Reader) -> Reading {
    match (reader.decode)(bytes) {
        Ok(vif) => Reading::Good(Arc::new(vif)),
        Err(refused) => Reading::Bad(Refused { vif: refused.vif.or_else(|| id_of_name(name)), ..refused }),
    }
}

/// A record that is refused as a whole.
pub(super) fn whole(reason: String) -> Refused {
    Refused { vif: None, generation: None, field: String::new(), reason }
}

fn id_of_name(name: &OsStr) -> Option<VifId> {
    name.to_str()?.strip_suffix(".json")?.parse().ok()
}

/// The VIFs that were deleted by name and of which something may be left on the host: an empty file each, so
/// that a crash between the deletion and its execution loses nothing.
#[derive(Clone, Debug)]
pub(super) struct Tombstones {
    directory: Arc<StateDir>,
}

impl Tombstones {
    /// Below `state`, made when it is missing. Answers those that are there.
    pub(super) fn open(state: &Path) -> io::Result<(Tombstones, Vec<VifId>)> {
        let directory = StateDir::open(state)?.below("deleted")?;
        let id = |name: OsString| name.to_str().and_then(|name| name.parse::<VifId>().ok());
        let ids = directory.names()?.into_iter().filter_map(id).collect();
        Ok((Tombstones { directory: Arc::new(directory) }, ids))
    }

    /// Makes tombstones, durable when it returns.
    pub(super) fn add(&self, ids: &[VifId]) -> io::Result<()> {
        for id in ids {
            self.directory.touch(&id.to_string())?;
        }
        // The files are empty: their names are all there is to keep.
        self.directory.sync()
    }

    /// Takes tombstones away. One that comes back after a crash is taken away again.
    pub(super) fn remove(&self, ids: &[VifId]) -> io::Result<()> {
        ids.iter().try_for_each(|id| self.directory.remove(&id.to_string()))
    }
}
