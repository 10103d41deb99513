//! The two ioctls that make a persistent tap, which are unsafe code, and nothing else.
//! What happens to a tap between them is `perform.rs`'s business. `docs/adr/0002-tun-ioctl.md` says why they are here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, c_int};

use crate::model::IFNAMSIZ;

/// Where the kernel's tun driver is opened.
const CLONE_DEVICE: &str = "/dev/net/tun";

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunError {
    /// No driver, no device node, or no right to open it.
    #[error("cannot open {CLONE_DEVICE}: {0}")]
    Open(#[source] io::Error),
    /// A link of that name is there.
    #[error("a link named {0:?} exists")]
    Exists(String),
    /// The kernel did not make it.
    #[error("cannot make tap {name:?} (TUNSETIFF): {errno}")]
    Create {
        /// Its name.
        name: String,
        /// The kernel's word.
        errno: Errno,
    },
    /// The kernel did not make it persistent.
    #[error("cannot make tap {name:?} persistent (TUNSETPERSIST): {errno}")]
    Persist {
        /// Its name.
        name: String,
        /// The kernel's word.
        errno: Errno,
    },
}

/// A tap that exists as long as this value does, unless it is made persistent.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    name: String,
}

impl Tap {
    /// Makes a new tap in the network namespace of the calling thread.
    ///
    /// `IFF_TUN_EXCL` keeps us from taking a tap that is there already. The flags are those of
    /// `ip tuntap add mode tap`: whoever opens the tap later (QEMU, ovs-vswitchd) replaces `IFF_NO_PI` and
    /// `IFF_VNET_HDR` by its own choice; `IFF_MULTI_QUEUE` alone is for life.
    ///
    /// `name` must be a valid interface name without `%`, which the kernel would take as a template.
    pub(super) fn create(name: &str, multi_queue: bool) -> Result<Self, TunError> {
        let file = OpenOptions::new().read(true).write(true).open(CLONE_DEVICE).map_err(TunError::Open)?;
        let mut flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL;
        if multi_queue {
            flags |= IFF_MULTI_QUEUE;
        }
        let request = InterfaceRequest::new(name, flags)
            .ok_or_else(|| TunError::Create { name: name.to_owned(), errno: Errno::ENAMETOOLONG })?;
        match set_interface(&file, &request) {
            Ok(()) => Ok(Tap { file, name: name.to_owned() }),
            Err(Errno::EBUSY | Errno::EEXIST) => Err(TunError::Exists(name.to_owned())),
            Err(errno) => Err(TunError::Create { name: name.to_owned(), errno }),
        }
    }

    /// Lets the tap outlive this value and this process.
    pub(super) fn persist(&self) -> Result<(), TunError> {
        set_persistent(&self.file).map_err(|errno| TunError::Persist { name: self.name.clone(), errno })
    }
}

/// `struct ifreq` (`linux/if.h`) as `TUNSETIFF` reads it: a name, 16 bits of flags, and zeroes up to the size
/// that it has where pointers have 64 bits (it is smaller elsewhere, and the kernel reads less).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

impl InterfaceRequest {
    /// `None` when `name` with its closing NUL does not fit.
    fn new(name: &str, flags: c_int) -> Option<Self> {
        let mut request = InterfaceRequest { name: [0; IFNAMSIZ], flags: u16::try_from(flags).ok()?, rest: [0; 22] };
        request.name[..IFNAMSIZ - 1].get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(request)
    }
}

/// The generated functions alone are unsafe to call; the two wrappers below are their only callers.
#[allow(unsafe_code, missing_docs, clippy::missing_safety_doc)]
mod ioctl {
    use super::{InterfaceRequest, c_int};

    // `linux/if_tun.h` declares both as `_IOW('T', …, int)`, whatever they really take.
    nix::ioctl_write_ptr_bad!(tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<c_int>()), InterfaceRequest);
    nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, size_of::<c_int>()));
}

#[allow(unsafe_code)]
fn set_interface(file: &File, request: &InterfaceRequest) -> nix::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed. The kernel reads `sizeof(struct ifreq)`,
    // at most 40 bytes, from the pointer and writes as many back (the name and flags it settled on).
    // `request` is copied to a place of its own first, 40 initialised bytes, so nothing borrowed is written to.
    const { assert!(size_of::<InterfaceRequest>() == 40) };
    let mut own = InterfaceRequest { ..*request };
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw mut own) }.map(drop)
}

#[allow(unsafe_code)]
fn set_persistent(file: &File) -> nix::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the argument is a number.
    unsafe { ioctl::tun_set_persist(file.as_raw_fd(), 1) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_laid_out_as_the_kernel_reads_it() {
        let request = InterfaceRequest::new("tap0", IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL).unwrap();
        assert_eq!(&request.name, b"tap0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(request.flags, 0x9002);
        assert_eq!(std::mem::offset_of!(InterfaceRequest, flags), 16);
        assert!(request.rest.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_name_without_room_for_its_nul_is_refused() {
        assert!(InterfaceRequest::new("fifteen-letters", IFF_TAP).is_some());
        assert!(InterfaceRequest::new("sixteen-letters-", IFF_TAP).is_none());
    }
}
