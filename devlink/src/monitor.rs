//! Notifications of devlink: a socket of its own that listens. What they say is `event.rs`'s business.

use std::collections::VecDeque;
use std::io;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{AsyncSocket, TokioSocket};
use std::future::poll_fn;

use crate::conversation::{DATAGRAM, Line, receive};
use crate::error::Error;
use crate::event::Event;

/// The group that everything is told to (`DEVLINK_GENL_MCGRP_CONFIG_NAME`).
const GROUP: &str = "config";
const WORDS: &str = "listen to devlink";

/// How a [`Monitor`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct MonitorConfig {
    /// Octets of kernel memory in which notifications may wait (`SO_RCVBUF`, which the kernel doubles). One takes some 1.3 KiB; a
    /// port that appears sends two or three. What does not fit is told as [`Event::Overrun`].
    pub receive_buffer: usize,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        MonitorConfig { receive_buffer: 4 << 20 }
    }
}

/// What the kernel tells of devlink in one network namespace, in order. What is to be known from the beginning is listed *after*
/// this was opened, and listed anew after each [`Event::Overrun`].
pub struct Monitor {
    socket: TokioSocket,
    family: u16,
    buffer: Vec<u8>,
    ready: VecDeque<Result<Event, Error>>,
}

impl Monitor {
    /// Listens from now on, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no socket to be had, or the kernel has no devlink ([`Error::NoFamily`]).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn open(config: MonitorConfig) -> Result<Self, Error> {
        let socket_error = |source| Error::Socket { request: WORDS.to_owned(), source };
        let family = Line::open().map_err(socket_error)?.family("devlink")?;
        let group = family.groups.iter().find(|(name, _)| name == GROUP).map(|(_, number)| *number);
        let join = |group| {
            let mut tokio_socket = TokioSocket::new(NETLINK_GENERIC)?;
            tokio_socket.socket_mut().bind_auto()?;
            let socket = tokio_socket.socket_ref();
            // Beyond net.core.rmem_max takes CAP_NET_ADMIN; without it, as much as may be had.
            if setsockopt(socket, sockopt::RcvBufForce, &config.receive_buffer).is_err() {
                setsockopt(socket, sockopt::RcvBuf, &config.receive_buffer)?;
            }
            socket.add_membership(group)?;
            Ok(tokio_socket)
        };
        let absent = || io::Error::new(io::ErrorKind::NotFound, format!("devlink has no multicast group {GROUP}"));
        let socket = group.ok_or_else(absent).and_then(join).map_err(socket_error)?;
        Ok(Monitor { socket, family: family.id, buffer: Vec::new(), ready: VecDeque::new() })
    }

    /// The next notification, once there is one. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Malformed`] when one cannot be read: then what it told is not known, as after [`Event::Overrun`], and the next ones
    /// follow. [`Error::Socket`] when the socket is of no use any more.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let socket_error = |source| Error::Socket { request: WORDS.to_owned(), source };
            self.buffer.clear();
            self.buffer.reserve_exact(DATAGRAM);
            match poll_fn(|context| self.socket.poll_recv_from(context, &mut self.buffer)).await {
                // Other programs can send to it, as root.
                Ok(sender) if sender.port_number() != 0 => {}
                Ok(_) => {
                    let malformed = |source| Error::Malformed { request: WORDS.to_owned(), source };
                    self.ready.extend(Event::decode(self.family, &self.buffer).map(|event| event.map_err(malformed)));
                }
                Err(error) if lost(&error) => {
                    self.drain().map_err(socket_error)?;
                    return Ok(Event::Overrun);
                }
                Err(error) => return Err(socket_error(error)),
            }
        }
    }

    /// Reads and drops everything that waits. The kernel tells of a loss once and then goes on losing *without a word* until the
    /// socket is empty; who lists everything has to begin after that.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            match receive(self.socket.socket_ref(), &mut self.buffer) {
                Ok(()) => {}
                Err(error) if lost(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether an error of reading says that something was lost: no room for it in the socket, or in the buffer.
fn lost(error: &io::Error) -> bool {
    [Errno::ENOBUFS, Errno::EMSGSIZE].map(|errno| errno as i32).contains(&error.raw_os_error().unwrap_or(0))
}
