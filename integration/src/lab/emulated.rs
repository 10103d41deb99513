//! Guests on any device: what a hypervisor does is carry frames between the device that it holds open on the host and the
//! one that its guest sees. [`Guest`](super::Guest) is the cheaper one, for ports that take a veth.

use std::fs::File;
use std::io::{self, Read, Write};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::device::Device;
use super::guest::GUEST_DEVICE;
use super::namespace::Namespace;

/// A guest with one device, that of a tap or macvtap of the host. Dropping it closes the device first.
#[derive(Debug)]
pub struct Emulated {
    stop: Option<oneshot::Sender<()>>,
    carrier: Option<JoinHandle<()>>,
    namespace: Namespace,
}

impl Emulated {
    /// Opens the device of `host` and starts a guest with a MAC and an address (CIDR) on it. Nothing is done to the device
    /// beyond that: who makes it sets it up, and connects it.
    ///
    /// # Errors
    /// When the device cannot be opened or the guest's own not be made.
    pub fn start(host: &Namespace, device: Device<'_>, mac: &str, address: &str) -> Result<Emulated> {
        Emulated::on(device.open(host)?, mac, address)
    }

    /// The same on a device that is open already.
    ///
    /// # Errors
    /// As [`Emulated::start`].
    pub fn on(outer: File, mac: &str, address: &str) -> Result<Emulated> {
        let namespace = Namespace::new()?;
        // A guest of IPv4 alone, which says nothing of itself before it is asked to.
        let quiet = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        namespace.enter(|| std::fs::write(quiet, "1").context(quiet))?;
        let inner = Device::Tap(GUEST_DEVICE).open(&namespace)?;
        for arguments in [
            &["link", "set", GUEST_DEVICE, "address", mac][..],
            &["addr", "add", address, "dev", GUEST_DEVICE],
            &["link", "set", GUEST_DEVICE, "up"],
        ] {
            namespace.run("ip", arguments)?;
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let carry = move || {
            runtime.block_on(async {
                // An error is that the device is gone from under its holder: the guest is then on its own, as any is.
                tokio::select! { _ = stopped => {} _ = carry_both_ways(outer, inner) => {} }
            });
        };
        let carrier = std::thread::Builder::new().name("hypervisor".into()).spawn(carry).context("a thread")?;
        Ok(Emulated { stop: Some(stop), carrier: Some(carrier), namespace })
    }

    /// Where the guest is: its device there is [`GUEST_DEVICE`].
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

async fn carry_both_ways(outer: File, inner: File) -> io::Result<()> {
    let (outer, inner) = (registered(outer)?, registered(inner)?);
    tokio::try_join!(carry(&outer, &inner), carry(&inner, &outer)).map(drop)
}

#[expect(unsafe_code, reason = "tokio offers no safe way to register a descriptor")]
fn registered(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a file has one descriptor for as long as it lives, and it lives as long as the registration.
    Ok(unsafe { AsyncFd::register(file) }?)
}

async fn carry(from: &AsyncFd<File>, to: &AsyncFd<File>) -> io::Result<()> {
    let mut frame = vec![0; 65_536];
    loop {
        let mut ready = from.readable().await?;
        match ready.try_io(|file| file.get_ref().read(&mut frame)) {
            // What the other side does not take (it is down, or full) is lost, as on any wire.
            Ok(length) => drop(to.get_ref().write(&frame[..length?])),
            Err(_would_block) => {}
        }
    }
}
