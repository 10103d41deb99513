//! Devices as a hypervisor holds them: the descriptor of a tap or of a macvtap's character device. The guest behind it is
//! in `emulated.rs`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, O_NONBLOCK};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::namespace::{Namespace, private_directory};

/// A device that a hypervisor opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device<'a> {
    /// A tap by its name. One that is not there is made, and goes when it is closed.
    Tap(&'a str),
    /// A tap that was made with several queues, of which one is opened.
    Queue(&'a str),
    /// The character device of a macvtap.
    Macvtap(&'a str),
}

impl Device<'_> {
    /// Opens it, for whole frames without a header. Reading and writing never wait.
    ///
    /// # Errors
    /// When there is no such device, or somebody else has it open.
    pub fn open(self, namespace: &Namespace) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_NONBLOCK);
        let several = if matches!(self, Device::Queue(_)) { IFF_MULTI_QUEUE } else { 0 };
        let (Device::Tap(name) | Device::Queue(name) | Device::Macvtap(name)) = self;
        let node = if matches!(self, Device::Macvtap(_)) { Some(Node::make(namespace, name)?) } else { None };
        let path = node.as_ref().map_or_else(|| PathBuf::from("/dev/net/tun"), Node::path);
        // The tun driver makes taps in the namespace in which it was opened.
        namespace.enter(|| {
            let file = options.open(&path).with_context(|| format!("opening {} for {name}", path.display()))?;
            // The frames of a macvtap come with a header of virtio's unless it is told otherwise.
            ioctl::set_interface(&file, name, IFF_TAP | IFF_NO_PI | several)
                .with_context(|| format!("taking {name} (TUNSETIFF)"))?;
            Ok(file)
        })
    }
}

/// Opens the node of a macvtap's character device as a hypervisor that is not root's does: as the user and the group with the
/// number `id`, whole frames without a header. Reading and writing never wait.
///
/// # Errors
/// When the node is not for that user, or somebody else has it open.
pub fn open_as(namespace: &Namespace, node: &Path, name: &str, id: u32) -> Result<File> {
    namespace.enter(|| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_NONBLOCK);
        // Of this thread alone, which ends with this: the C library would change those of the process.
        rustix::thread::set_thread_groups(&[]).context("giving up groups")?;
        let (user, group) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
        rustix::thread::set_thread_res_gid(group, group, group).context("another group")?;
        rustix::thread::set_thread_res_uid(user, user, user).context("another user")?;
        let file = options.open(node).with_context(|| format!("opening {} as {id}", node.display()))?;
        ioctl::set_interface(&file, name, IFF_TAP | IFF_NO_PI).with_context(|| format!("taking {name} (TUNSETIFF)"))?;
        Ok(file)
    })
}

/// A node of our own for the character device of a macvtap: whether there is one in `/dev` is udev's business.
struct Node(tempfile::TempDir);

impl Node {
    fn make(namespace: &Namespace, name: &str) -> Result<Node> {
        let (_, number) = character_device(namespace, name)?;
        let node = Node(private_directory()?);
        mknod(&node.path(), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number).context("making a device node")?;
        Ok(node)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("node")
    }
}

/// Name (`tap7`, for `/dev/tap7`) and number of the character device of a macvtap.
///
/// # Errors
/// When there is no such link, or it is no macvtap.
pub fn character_device(namespace: &Namespace, name: &str) -> Result<(String, u64)> {
    // sysfs is that of the namespace under `ip netns exec` alone.
    let script = "grep -H . /sys/class/net/\"$0\"/tap*/dev";
    let line = namespace.run("sh", ["-c", script, name]).with_context(|| format!("{name} has no character device"))?;
    let (path, number) = line.trim().split_once(':').context("grep")?;
    let (major, minor) = number.split_once(':').with_context(|| format!("{number} is no device"))?;
    let node = Path::new(path).parent().and_then(Path::file_name).context("a path in sysfs")?;
    Ok((node.to_string_lossy().into_owned(), makedev(major.parse()?, minor.parse()?)))
}

/// `TUNSETIFF` (`linux/if_tun.h`), which macvtaps have too. vifd has its own, which is not tested with itself.
mod ioctl {
    #![allow(unsafe_code, missing_docs, clippy::missing_safety_doc)]

    use nix::errno::Errno;
    use nix::libc::c_int;

    use super::{AsRawFd, File};

    nix::ioctl_write_ptr_bad!(tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<c_int>()), [u8; 40]);

    pub(super) fn set_interface(file: &File, name: &str, flags: c_int) -> nix::Result<()> {
        // `struct ifreq`: 16 octets of name, the flags, and 22 that do not matter.
        let mut request = [0; 40];
        request[..15].get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&u16::try_from(flags).map_err(|_| Errno::EINVAL)?.to_ne_bytes());
        // SAFETY: the descriptor is open while `file` is borrowed. The kernel reads and writes `sizeof(struct ifreq)`,
        // at most 40 octets, which `request` has and which are our own.
        unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request) }.map(drop)
    }
}
