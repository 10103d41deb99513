//! Waiting with tokio for descriptors that it has no type for. This is the one place that registers them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};

use nix::sys::inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What may be registered: types of which each value owns one descriptor and keeps it until it is dropped.
pub(crate) trait OwnsDescriptor: AsRawFd {}
impl OwnsDescriptor for InotifyInstance {}
impl OwnsDescriptor for File {}

/// inotify for tokio, which asks for a raw descriptor.
#[derive(Debug)]
pub(crate) struct InotifyInstance(pub(crate) Inotify);

impl AsRawFd for InotifyInstance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers a descriptor with the runtime of the caller.
///
/// # Errors
/// When the descriptor cannot be waited for.
pub(crate) fn register<T: OwnsDescriptor>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor is open and stays the same one as long as `owner` lives, which is as long as the
    // `AsyncFd` does: see `OwnsDescriptor`, and nobody takes it out.
    #[expect(unsafe_code, reason = "tokio offers no safe way to register a descriptor")]
    let registered = unsafe { AsyncFd::register_with_interest(owner, interest) };
    Ok(registered?)
}
