//! The kernel's sysfs as NICs show themselves in it: the tree itself, how it is read and written, and the errors.
//!
//! PCI functions are read in `sysfs/functions.rs`, netdevs in `sysfs/netdevs.rs`; `sysfs/writes.rs` makes virtual
//! functions and gives drivers to functions. Nothing here knows of representors.

mod functions;
mod netdevs;
mod writes;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use functions::{Iommu, PciFunction, Role, Sriov, SriovNic};
pub use netdevs::NetdevFacts;

use crate::function::shown;
use crate::{Device, PciAddress};

/// The most that is read of one attribute, in octets. The kernel shows a page at most, and pages have up to 64 KiB.
const MOST: usize = 64 << 10;

/// The most entries that are read of one directory: more than there are netdevs or PCI functions on a host.
const MOST_ENTRIES: usize = 1 << 17;

/// A sysfs tree: the kernel's at `/sys`, or one that a test has made elsewhere.
///
/// Links are followed inside the tree only, so that what is made in a temporary root stays there. It is read afresh at
/// each call, a few system calls for each attribute; they do not wait for hardware, but for the lock of the device or the
/// netdev that they are about. Writes wait for the driver, up to seconds.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
    dir: Arc<OwnedFd>,
}

/// What sysfs refused, or what in it is not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysfsError {
    /// Something could not be read.
    #[error("cannot read {}: {}", path.display(), told(source))]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it could not.
        #[source]
        source: io::Error,
    },
    /// Something was not taken.
    #[error("cannot write {value:?} to {}: {}", path.display(), told(source))]
    Write {
        /// Where it was written to.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why it was not taken.
        #[source]
        source: io::Error,
    },
    /// An attribute with an unexpected text.
    #[error("{} says {text:?}, which is not {wanted}", path.display())]
    Malformed {
        /// The attribute.
        path: PathBuf,
        /// What it says, or the first 80 characters of that.
        text: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// There is no such PCI function.
    #[error("there is no PCI function {0}")]
    NoFunction(PciAddress),
    /// There is no such device.
    #[error("there is no device {0}")]
    NoDevice(Device),
    /// A device that cannot have virtual functions.
    #[error("{0} cannot have virtual functions: its driver or its hardware has no SR-IOV")]
    NoSriov(Device),
    /// More virtual functions than there can be.
    #[error("{device} can have {total} virtual functions, and {wanted} are wanted")]
    TooManyVfs {
        /// The device.
        device: Device,
        /// How many it can have (`sriov_totalvfs`).
        total: u32,
        /// How many are wanted.
        wanted: u32,
    },
    /// The kernel changes a number of virtual functions only from none and to none.
    #[error(
        "{device} has {now} virtual functions and {wanted} are wanted: all of them have to go first, \
         and whoever uses one loses it"
    )]
    NotThroughZero {
        /// The device.
        device: Device,
        /// How many it has.
        now: u32,
        /// How many are wanted.
        wanted: u32,
    },
    /// The driver is not there: its module is not loaded.
    #[error("there is no PCI driver {0:?}: its module is not loaded")]
    NoDriver(String),
    /// What cannot be a name in sysfs.
    #[error("{0:?} cannot be the name of a netdev, a driver or a device")]
    BadName(String),
}

impl SysfsError {
    /// The kernel's error number (`errno.h`), if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            SysfsError::Read { source, .. } | SysfsError::Write { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// What an error of the kernel means here, and its name.
fn told(error: &io::Error) -> String {
    let meaning = match Errno::from_io_error(error) {
        Some(Errno::BUSY) => "EBUSY, it is in use: by a driver, a guest, or virtual functions that are there already",
        Some(Errno::NODEV) => "ENODEV, there is no such device, or the driver does not take it",
        Some(Errno::NOENT) => "ENOENT, there is no such function, driver or attribute",
        Some(Errno::PERM) => "EPERM, this process may not (CAP_SYS_ADMIN, or kernel lockdown)",
        Some(Errno::ACCESS) => "EACCES, this process may not (is it root?)",
        Some(Errno::ROFS) => "EROFS, sysfs is mounted read-only",
        Some(Errno::OPNOTSUPP) => "EOPNOTSUPP, the driver has no such thing",
        Some(Errno::XDEV) => "EXDEV, a link leads out of sysfs",
        _ => return error.to_string(),
    };
    meaning.to_owned()
}

impl Sysfs {
    /// The kernel's own tree, at `/sys`. It shows the netdevs of the network namespace that mounted it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn system() -> Result<Self, SysfsError> {
        Self::at("/sys")
    }

    /// The tree at `root`.
    ///
    /// # Errors
    /// If it cannot be opened as a directory.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self, SysfsError> {
        let root = root.into();
        match rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => Ok(Sysfs { root, dir: Arc::new(dir) }),
            Err(errno) => Err(SysfsError::Read { path: root, source: errno.into() }),
        }
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // Beneath a root, a `..` is refused whenever anything on the host was just renamed or mounted: it is asked again.
        for _ in 0..128 {
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&*self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), beneath) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    fn unread(&self, path: &str, errno: Errno) -> SysfsError {
        SysfsError::Read { path: self.root.join(path), source: errno.into() }
    }

    fn malformed(&self, path: &str, text: &str, wanted: &'static str) -> SysfsError {
        SysfsError::Malformed { path: self.root.join(path), text: shown(text), wanted }
    }

    /// The text of an attribute without the line's end; none where there is no such attribute, or nothing in it.
    fn text(&self, path: &str) -> Result<Option<String>, SysfsError> {
        let octets = match self.open(path, OFlags::RDONLY).and_then(|file| read_all(&file)) {
            Ok(octets) => octets,
            Err(errno) if is_absence(errno) => return Ok(None),
            Err(errno) => return Err(self.unread(path, errno)),
        };
        let text = String::from_utf8_lossy(&octets);
        let text = text.trim_end_matches(['\n', '\0']);
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// A decimal number that an attribute shows.
    fn number(&self, path: &str) -> Result<Option<u32>, SysfsError> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.malformed(path, &text, "a number"))
    }

    /// A hexadecimal number that an attribute shows with `0x` before it.
    fn hexadecimal(&self, path: &str) -> Result<Option<u32>, SysfsError> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        let value = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        value.map(Some).ok_or_else(|| self.malformed(path, &text, "a hexadecimal number"))
    }

    /// The last name in a link: of the driver, the device, the group that it leads to. None where there is no link.
    fn link(&self, path: &str) -> Result<Option<String>, SysfsError> {
        let link = self
            .open(path, OFlags::PATH | OFlags::NOFOLLOW)
            .and_then(|link| rustix::fs::readlinkat(link, "", Vec::with_capacity(256)));
        match link {
            Ok(target) => {
                let target = target.to_string_lossy();
                Ok(target.rsplit('/').next().filter(|name| crate::function::is_sysfs_name(name)).map(str::to_owned))
            }
            Err(errno) if is_absence(errno) => Ok(None),
            Err(errno) => Err(self.unread(path, errno)),
        }
    }

    /// A folder as a tree of its own, for whoever reads much of it; none where there is no such folder. Links out of it are not
    /// followed in it.
    fn folder(&self, path: &str) -> Result<Option<Sysfs>, SysfsError> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(dir) => Ok(Some(Sysfs { root: self.root.join(path), dir: Arc::new(dir) })),
            Err(errno) if is_absence(errno) => Ok(None),
            Err(errno) => Err(self.unread(path, errno)),
        }
    }

    /// A link to a PCI function.
    fn link_to_pci(&self, path: &str) -> Result<Option<PciAddress>, SysfsError> {
        let Some(name) = self.link(path)? else { return Ok(None) };
        name.parse().map(Some).map_err(|_| self.malformed(path, &name, "the address of a PCI function"))
    }

    /// The names in a directory, in no order; none where there is no such directory.
    fn list(&self, path: &str) -> Result<Vec<String>, SysfsError> {
        let read = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            for entry in Dir::new(self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy();
                if name != "." && name != ".." {
                    names.push(name.into_owned());
                }
                if names.len() > MOST_ENTRIES {
                    return Err(Errno::TOOBIG);
                }
            }
            Ok(names)
        };
        match read() {
            Err(errno) if is_absence(errno) => Ok(Vec::new()),
            read => read.map_err(|errno| self.unread(path, errno)),
        }
    }

    /// Whether there is anything at this path.
    fn exists(&self, path: &str) -> Result<bool, SysfsError> {
        match self.open(path, OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(errno) if is_absence(errno) => Ok(false),
            Err(errno) => Err(self.unread(path, errno)),
        }
    }

    /// Writes an attribute, in one call as sysfs takes it.
    fn write(&self, path: &str, value: &str) -> Result<(), SysfsError> {
        let write = || match rustix::io::write(self.open(path, OFlags::WRONLY)?, value.as_bytes()) {
            Ok(taken) if taken < value.len() => Err(Errno::IO),
            taken => taken.map(drop),
        };
        write().map_err(|errno| SysfsError::Write {
            path: self.root.join(path),
            value: value.trim_end().to_owned(),
            source: errno.into(),
        })
    }
}

/// Whether an error says that something is not there: no such file, a device or a netdev on its way out (`net-sysfs.c`
/// says EINVAL then), or a driver without the attribute's callback.
fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO | Errno::OPNOTSUPP | Errno::INVAL)
}

fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut octets = vec![0; 4096];
    let mut filled = 0;
    loop {
        match rustix::io::read(file, &mut octets[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        // An attribute is shown whole to whoever has room for it (Documentation/filesystems/sysfs.rst).
        if filled < octets.len() {
            break;
        }
        if filled >= MOST {
            return Err(Errno::TOOBIG);
        }
        octets.resize(filled * 2, 0);
    }
    octets.truncate(filled);
    Ok(octets)
}
