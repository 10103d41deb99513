//! The character devices of macvtaps, by which hypervisors open them (`/dev/tap7` for the one with index 7): how their nodes
//! are, putting owner and mode right, and noticing changes (inotify). Making nodes is devtmpfs's business.
//!
//! The directory is `/dev`, or what a container has of it. A node counts only if it is the character device that sysfs says
//! of this macvtap: in the initial `/dev` there may be one of the same name that belongs to another network namespace, and
//! in a container anything. Symbolic links are not followed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno as NixErrno;
use nix::sys::inotify::{AddWatchFlags, InotifyEvent};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::model::{DeviceAccess, DeviceOwner, device_name};
use crate::registration::InotifyInstance;
use crate::way::inotify;

/// What can change a node, and what can change the directory under us.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(OTHER_DIRECTORY)
    .union(AddWatchFlags::IN_ONLYDIR);
/// The directory is not there any more.
const OTHER_DIRECTORY: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);

/// Why a device was not put right.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    /// sysfs does not have this macvtap: it is gone, or sysfs is another network namespace's.
    #[error("sysfs has no character device of {name:?} (index {index}): {source}")]
    NotInSysfs { name: String, index: u32, source: io::Error },
    /// There is no node.
    #[error("there is no {0:?}")]
    Absent(PathBuf),
    /// There is something else.
    #[error("{path:?} is not the character device of {name:?}")]
    Another { path: PathBuf, name: String },
    /// The kernel refused.
    #[error("cannot {what} {path:?}: {errno}")]
    Refused { what: &'static str, path: PathBuf, errno: Errno },
}

/// The directory that has the nodes.
#[derive(Clone, Debug)]
pub(super) struct DeviceDirectory {
    path: PathBuf,
}

impl DeviceDirectory {
    /// `path` is absolute.
    pub(super) fn new(path: PathBuf) -> Self {
        DeviceDirectory { path }
    }

    /// Owner and mode of the node of a macvtap, if there is one.
    pub(super) fn look(&self, index: u32, name: &str) -> Option<DeviceOwner> {
        match self.open(index, name) {
            Ok((_, stat)) => Some(owner(&stat)),
            Err(DeviceError::Absent(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "a macvtap has no character device here");
                None
            }
        }
    }

    /// Gives the node of a macvtap owner and mode, where they differ.
    pub(super) fn put_right(&self, index: u32, name: &str, access: &DeviceAccess) -> Result<(), DeviceError> {
        let (node, stat) = self.open(index, name)?;
        let refused = |what| move |errno| DeviceError::Refused { what, path: self.node(index), errno };
        let has = owner(&stat);
        let uid = access.uid.filter(|uid| *uid != has.uid).map(Uid::from_raw);
        let gid = access.gid.filter(|gid| *gid != has.gid).map(Gid::from_raw);
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(&node, "", uid, gid, AtFlags::EMPTY_PATH).map_err(refused("change the owner of"))?;
        }
        match access.mode.filter(|mode| *mode != has.mode) {
            None => Ok(()),
            // The mode of what was opened by its path alone (`O_PATH`) is changed by way of procfs; open(2) shows it.
            Some(mode) => rustix::fs::chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), Mode::from_raw_mode(mode))
                .map_err(refused("change the mode of")),
        }
    }

    fn node(&self, index: u32) -> PathBuf {
        self.path.join(device_name(index))
    }

    /// The node itself: opening the device would take a queue of the guest's.
    fn open(&self, index: u32, name: &str) -> Result<(OwnedFd, Stat), DeviceError> {
        let number =
            number(index, name).map_err(|source| DeviceError::NotInSysfs { name: name.to_owned(), index, source })?;
        let path = self.node(index);
        let node = match rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(node) => node,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(DeviceError::Absent(path)),
            Err(errno) => return Err(DeviceError::Refused { what: "open", path, errno }),
        };
        let stat = rustix::fs::fstat(&node).map_err(|errno| DeviceError::Refused {
            what: "look at",
            path: path.clone(),
            errno,
        })?;
        let is = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || is != number {
            return Err(DeviceError::Another { path, name: name.to_owned() });
        }
        Ok((node, stat))
    }
}

fn owner(stat: &Stat) -> DeviceOwner {
    DeviceOwner { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
}

/// Major and minor number of a macvtap's character device. sysfs shows the network namespace in which it was mounted, and
/// other namespaces count their links from one, too: it has to know this link by name and index.
fn number(index: u32, name: &str) -> io::Result<(u32, u32)> {
    let known = fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex"))?;
    if known.trim().parse() != Ok(index) {
        return Err(io::Error::other(format!("it has another link of this name, with index {}", known.trim())));
    }
    let number = fs::read_to_string(Path::new("/sys/class/macvtap").join(device_name(index)).join("dev"))?;
    read_number(&number).ok_or_else(|| io::Error::other(format!("{number:?} is no device number")))
}

/// Reads `246:1`.
fn read_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What may have changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The nodes of macvtaps that have these indices, if they are macvtaps.
    Nodes(BTreeSet<u32>),
    /// Any.
    All,
}

/// The directory, and its watch for as long as there are macvtaps.
pub(super) struct Devices {
    pub(super) directory: DeviceDirectory,
    watch: Option<AsyncFd<InotifyInstance>>,
    /// It was said that it cannot be watched.
    complained: bool,
}

impl Devices {
    pub(super) fn new(directory: DeviceDirectory) -> Self {
        Devices { directory, watch: None, complained: false }
    }

    /// Begins to watch the directory, or stops. Must be called before nodes are looked at, so that nothing slips through in
    /// between.
    pub(super) fn watch(&mut self, wanted: bool) {
        if !wanted {
            self.watch = None;
        } else if self.watch.is_none() {
            match self.begin() {
                Ok(watch) => self.watch = Some(watch),
                Err(error) if self.complained => {
                    tracing::debug!(directory = ?self.directory.path, %error, "cannot be watched");
                }
                Err(error) => {
                    self.complained = true;
                    tracing::warn!(
                        directory = ?self.directory.path, %error,
                        "the directory of macvtaps' devices cannot be watched: changes in it go unnoticed until the next \
                         resync"
                    );
                }
            }
        }
    }

    fn begin(&self) -> io::Result<AsyncFd<InotifyInstance>> {
        let watch = inotify()?;
        watch.get_ref().0.add_watch(&self.directory.path, CHANGES)?;
        Ok(watch)
    }

    /// Waits for changes; for ever while nothing is watched. Cancel safe.
    pub(super) async fn changed(&mut self) -> Changed {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        match wait(watch).await {
            Ok(changed) => {
                if changed == Changed::All {
                    // Of events that were lost one may have been that the directory went.
                    self.watch = None;
                }
                changed
            }
            Err(error) => {
                tracing::warn!(%error, "inotify ended for the directory of macvtaps' devices");
                self.watch = None;
                Changed::All
            }
        }
    }
}

async fn wait(watch: &AsyncFd<InotifyInstance>) -> io::Result<Changed> {
    loop {
        let mut guard = watch.readable().await?;
        match guard.get_inner().0.read_events() {
            Ok(events) => match read_events(&events) {
                Changed::Nodes(nodes) if nodes.is_empty() => {}
                changed => return Ok(changed),
            },
            Err(NixErrno::EAGAIN) => guard.clear_ready(),
            Err(NixErrno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_events(events: &[InotifyEvent]) -> Changed {
    let lost = OTHER_DIRECTORY | AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_UNMOUNT;
    if events.iter().any(|event| event.mask.intersects(lost)) {
        return Changed::All;
    }
    let names = events.iter().filter_map(|event| event.name.as_deref()?.to_str()?.strip_prefix("tap")?.parse().ok());
    Changed::Nodes(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_number_is_read_as_sysfs_writes_it() {
        assert_eq!(read_number("246:1\n"), Some((246, 1)));
        for wrong in ["", "246", "246:", ":1", "a:b", "-1:2"] {
            assert_eq!(read_number(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_what_happens_to_nodes_of_macvtaps_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("dev");
        fs::create_dir(&directory).unwrap();
        let mut devices = Devices::new(DeviceDirectory::new(directory.clone()));
        devices.watch(true);
        for name in ["null", "tap", "tap7", "tapestry", "tap12"] {
            fs::write(directory.join(name), "").unwrap();
        }
        assert_eq!(devices.changed().await, Changed::Nodes([7, 12].into()));
        fs::set_permissions(directory.join("tap7"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(devices.changed().await, Changed::Nodes([7].into()));
        // Another directory of its name is watched when it is asked for.
        fs::rename(&directory, scratch.path().join("away")).unwrap();
        assert_eq!(devices.changed().await, Changed::All);
        fs::create_dir(&directory).unwrap();
        devices.watch(true);
        fs::write(directory.join("tap3"), "").unwrap();
        assert_eq!(devices.changed().await, Changed::Nodes([3].into()));
        devices.watch(false);
        assert!(devices.watch.is_none(), "nothing is watched where there is no macvtap");
    }
}
