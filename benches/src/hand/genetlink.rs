//! A dump over generic netlink by the shortest way: one request, and what comes is counted and dropped.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::libc::{
    CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL, NLM_F_DUMP, NLM_F_REQUEST,
};
use nix::libc::{NLMSG_DONE, NLMSG_ERROR};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use super::tap::with_nul;

// linux/devlink.h.
const DEVLINK_CMD_PORT_GET: u8 = 5;
/// What netlink messages have before what generic netlink's have, and those.
const HEADERS: usize = 20;
/// More than the kernel puts into one datagram.
const MOST: usize = 1 << 16;

/// A dump that can be taken again and again.
pub struct Dump {
    socket: OwnedFd,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Dump {
    /// Of devlink's ports.
    ///
    /// # Errors
    /// When the kernel has no devlink.
    pub fn of_ports() -> Result<Dump> {
        let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).context("a netlink socket")?;
        let mut dump = Dump { socket, request: Vec::new(), buffer: vec![0; MOST] };
        let name = attribute(CTRL_ATTR_FAMILY_NAME, &with_nul("devlink"));
        let asked = message(GENL_ID_CTRL, NLM_F_REQUEST, u8::try_from(CTRL_CMD_GETFAMILY)?, &name);
        dump.ask(&asked)?;
        let length = dump.receive()?;
        let family = id(&dump.buffer[..length]).context("the kernel has no devlink")?;
        dump.request = message(family.into(), NLM_F_REQUEST | NLM_F_DUMP, DEVLINK_CMD_PORT_GET, &[]);
        Ok(dump)
    }

    /// Takes it: how many octets it has.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(&mut self) -> Result<usize> {
        self.ask(&self.request)?;
        let mut octets = 0;
        loop {
            let length = self.receive()?;
            octets += length;
            // The end comes in a datagram of its own, or last in one.
            match i32::from(kind_of_last(&self.buffer[..length])) {
                NLMSG_DONE => return Ok(octets),
                NLMSG_ERROR => bail!("the dump was refused"),
                _ => {}
            }
        }
    }

    fn ask(&self, message: &[u8]) -> Result<()> {
        sendto(self.socket.as_raw_fd(), message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?)
    }
}

/// `struct nlmsghdr`, `struct genlmsghdr` (version 1) and attributes.
fn message(kind: i32, flags: i32, command: u8, attributes: &[u8]) -> Vec<u8> {
    let short = |number: i32| u16::try_from(number).unwrap_or_default().to_ne_bytes();
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or_default();
    [&length.to_ne_bytes()[..], &short(kind), &short(flags), &[0; 8], &[command, 1, 0, 0], attributes].concat()
}

fn attribute(kind: i32, value: &[u8]) -> Vec<u8> {
    let short = |number: usize| u16::try_from(number).unwrap_or_default().to_ne_bytes();
    let mut octets = [&short(value.len() + 4), &short(usize::try_from(kind).unwrap_or_default()), value].concat();
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// The number of a family, from what the kernel tells of it.
fn id(answer: &[u8]) -> Option<u16> {
    let attributes = super::heard::attributes(answer.get(HEADERS..)?);
    let (_, value) = attributes.into_iter().find(|(kind, _)| i32::from(*kind) == CTRL_ATTR_FAMILY_ID)?;
    Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?))
}

fn kind_of_last(datagram: &[u8]) -> u16 {
    super::heard::messages(datagram).last().map_or(0, |(kind, _)| *kind)
}
