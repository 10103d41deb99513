//! A socket for whole frames on one device of a namespace: sends what no protocol stack would, and hears everything that
//! comes in, whoever it is for. The kernel takes VLAN tags off before it hands frames over.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};

use super::namespace::Namespace;

/// `PACKET_OUTGOING` of `linux/if_packet.h`: the host itself sent it.
const OUTGOING: u8 = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// Such a socket. What came before it was opened, it has not heard.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens it on a device.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<PacketSocket> {
        namespace.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            let named = getifaddrs()?.filter(|entry| entry.interface_name == device);
            let address = named.filter_map(|entry| entry.address?.as_link_addr().copied()).next();
            let address: LinkAddr = address.with_context(|| format!("there is no device {device}"))?;
            bind(socket.as_raw_fd(), &address)?;
            setsockopt(&socket, sockopt::RcvBuf, &(8 << 20))?;
            Ok(PacketSocket { socket })
        })
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When the device is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.socket, frame).context("sending a frame")?;
        Ok(())
    }

    /// The frames that have come in since the last time, those that the namespace itself sent left out.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn heard(&self) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive()? {
            frames.extend(frame);
        }
        Ok(frames)
    }

    /// Waits until a frame comes that `wanted` likes, and gives that; what comes before it is thrown away.
    ///
    /// # Errors
    /// When none comes within ten seconds.
    pub fn hear(&self, what: &str, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            match self.receive()? {
                Some(Some(frame)) if wanted(&frame) => return Ok(frame),
                Some(_) => {}
                None => std::thread::sleep(PAUSE),
            }
        }
        bail!("{what} was not heard")
    }

    /// The next frame: nothing when there is none, and an empty something for one that the namespace sent.
    fn receive(&self) -> Result<Option<Option<Vec<u8>>>> {
        let mut buffer = vec![0; 65_536];
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                buffer.truncate(length);
                let own = from.is_some_and(|from| from.pkttype() == OUTGOING);
                Ok(Some((!own).then_some(buffer)))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error).context("hearing frames"),
        }
    }
}
