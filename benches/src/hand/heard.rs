//! What the kernel tells of links and of filters, by a raw rtnetlink socket, as far as it takes to know that a representor is
//! there and that a flow is in hardware.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{IFLA_IFNAME, IFLA_PHYS_PORT_NAME, RTM_NEWLINK, RTM_NEWTFILTER};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};

// linux/rtnetlink.h: RTMGRP_LINK and RTMGRP_TC.
const GROUPS: u32 = 1 | 8;
// linux/rtnetlink.h and linux/pkt_cls.h.
const TCA_OPTIONS: u16 = 2;
const TCA_FLOWER_KEY_ETH_DST: u16 = 4;
const TCA_FLOWER_FLAGS: u16 = 22;
const TCA_CLS_FLAGS_IN_HW: u32 = 1 << 2;
/// More than the kernel puts into one datagram.
const MOST: usize = 1 << 16;

/// The socket.
pub struct Ears {
    socket: OwnedFd,
    buffer: Vec<u8>,
    waiting: std::collections::VecDeque<Told>,
}

/// What the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A link is there, or has changed.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// `phys_port_name`.
        port: Option<String>,
    },
    /// A flower filter is there.
    Filter {
        /// The index of the link that it is on.
        index: u32,
        /// The destination that it is for.
        to: Option<[u8; 6]>,
        /// Whether it is in hardware.
        in_hardware: bool,
    },
}

impl Ears {
    /// Opens it in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel does not give one.
    pub fn open() -> Result<Ears> {
        let (flags, protocol) = (SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkRoute);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).context("a netlink socket")?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Ears { socket, buffer: vec![0; MOST], waiting: std::collections::VecDeque::new() })
    }

    /// The next thing told; none if nothing is told for so long.
    ///
    /// # Errors
    /// When something was lost.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Told>> {
        loop {
            if let Some(told) = self.waiting.pop_front() {
                return Ok(Some(told));
            }
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => self.waiting.extend(messages(&self.buffer[..length]).into_iter().filter_map(told)),
                Err(Errno::EAGAIN) => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut fds, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX))? == 0 {
                        return Ok(None);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("what the kernel tells of links"),
            }
        }
    }

    /// Forgets what was told until now.
    ///
    /// # Errors
    /// As [`Ears::next`].
    pub fn forget(&mut self) -> Result<()> {
        while self.next(Duration::ZERO)?.is_some() {}
        Ok(())
    }
}

/// The messages of a datagram, each with its type and what follows its header.
pub(super) fn messages(datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(length) =
        number(rest, 0).map(|length| length as usize).filter(|length| (16..=rest.len()).contains(length))
    {
        found.push((u16::from_ne_bytes([rest[4], rest[5]]), &rest[16..length]));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Attributes by type, without the bits that say how they are to be read.
pub(super) fn attributes(octets: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut rest = octets;
    while let [a, b, c, d, ..] = rest {
        let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
        let Some(value) = rest.get(4..length) else { break };
        found.push((kind & 0x3fff, value));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn told((kind, body): (u16, &[u8])) -> Option<Told> {
    // `struct ifinfomsg` and `struct tcmsg` have the link's index in the same place.
    let index = number(body, 4)?;
    match kind {
        RTM_NEWLINK => {
            let attributes = attributes(body.get(16..)?);
            let text = |wanted: u16| {
                let (_, value) = attributes.iter().find(|(kind, _)| *kind == wanted)?;
                Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
            };
            Some(Told::Link { index, name: text(IFLA_IFNAME)?, port: text(IFLA_PHYS_PORT_NAME) })
        }
        RTM_NEWTFILTER => {
            let attributes = attributes(body.get(20..)?);
            let (_, options) = attributes.iter().find(|(kind, _)| *kind == TCA_OPTIONS)?;
            let options = self::attributes(options);
            let option = |wanted: u16| options.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
            let flags = option(TCA_FLOWER_FLAGS).and_then(|value| number(value, 0))?;
            let to = option(TCA_FLOWER_KEY_ETH_DST).and_then(|value| value.try_into().ok());
            Some(Told::Filter { index, to, in_hardware: flags & TCA_CLS_FLAGS_IN_HW != 0 })
        }
        _ => None,
    }
}
