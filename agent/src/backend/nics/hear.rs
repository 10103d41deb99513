//! Hearing that something of a NIC may have changed: devlink's notifications, the kernel's uevents, and messages about the links
//! of NICs. What it was is not of interest: everything is read again (`look.rs`).

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;

use devlink::{Event, Monitor, MonitorConfig};
use futures::FutureExt as _;
use nix::errno::Errno;
use nix::libc::{AF_UNSPEC, MSG_DONTWAIT, RTM_DELLINK, RTM_NEWLINK};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::sys::protocols::{NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

/// Uevents as the kernel itself sends them; 2 is udev's (`lib/kobject_uevent.c`). The first group's bit.
const KERNEL: u32 = 0x1;
/// `RTMGRP_LINK` (`linux/rtnetlink.h`).
const LINKS: u32 = 0x1;
/// Octets of one message: the kernel's uevents have 2 KiB at most, and a message about a link without VFs far less than this.
const MESSAGE: usize = 32 << 10;
/// How many messages that wait are passed over before they are left for later.
const MOST_WAITING: usize = 1 << 16;

/// Which links are of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Indices of netdevs of NICs.
    pub(super) indices: BTreeSet<u32>,
    /// Any new netdev may be the representor of a function: there are NICs whose devlink does not say which is.
    pub(super) any: bool,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something of a NIC may have changed.
    Change,
    /// Messages were lost.
    Overrun,
    /// A socket is of no use any more.
    Lost,
}

/// All ears, in the network namespace of the thread that opened them.
pub(super) struct Ears {
    /// `None` where the kernel has no devlink, or does not let us hear it.
    devlink: Option<Monitor>,
    uevents: Ear,
    links: Ear,
}

impl Ears {
    /// Opens them. What is to be seen from the beginning has to be read after that.
    pub(super) fn open(receive_buffer: usize) -> io::Result<Self> {
        let devlink = match Monitor::open(MonitorConfig { receive_buffer }) {
            Ok(monitor) => Some(monitor),
            Err(devlink::Error::NoFamily { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, "devlink's notifications are not to be had");
                None
            }
        };
        Ok(Ears {
            devlink,
            uevents: Ear::open(NETLINK_KOBJECT_UEVENT, KERNEL, receive_buffer)?,
            links: Ear::open(NETLINK_ROUTE, LINKS, receive_buffer)?,
        })
    }

    /// Waits for something of interest. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, interest: &Interest) -> Heard {
        loop {
            let heard = tokio::select! {
                event = devlink_event(&mut self.devlink) => of_devlink(&event),
                message = self.uevents.next() => message.map(|octets| is_uevent_of_nic(octets, interest)).into(),
                message = self.links.next() => message.map(|octets| is_of_link(octets, &interest.indices)).into(),
            };
            if let Some(heard) = heard.0 {
                return heard;
            }
        }
    }

    /// Passes over what waits: it is older than what is read from now on. Whether something was lost, or a socket is of no use.
    ///
    /// After a loss the kernel goes on losing without a word until the socket is empty.
    pub(super) fn drain(&mut self) -> Option<Heard> {
        let mut worst = None;
        for _ in 0..MOST_WAITING {
            match devlink_event(&mut self.devlink).now_or_never().map(|event| of_devlink(&event).0) {
                Some(Some(heard @ (Heard::Overrun | Heard::Lost))) => worst = Some(heard),
                Some(_) => {}
                None => break,
            }
            if worst == Some(Heard::Lost) {
                break;
            }
        }
        for ear in [&mut self.uevents, &mut self.links] {
            worst = ear.drain().or(worst);
        }
        worst
    }
}

/// Whether a message is of interest; and what became of the socket.
struct Judged(Option<Heard>);

impl From<io::Result<bool>> for Judged {
    fn from(message: io::Result<bool>) -> Self {
        Judged(match message {
            Ok(of_interest) => of_interest.then_some(Heard::Change),
            Err(error) if is_loss(&error) => Some(Heard::Overrun),
            Err(_) => Some(Heard::Lost),
        })
    }
}

async fn devlink_event(monitor: &mut Option<Monitor>) -> Result<Event, devlink::Error> {
    match monitor {
        Some(monitor) => monitor.next().await,
        None => std::future::pending().await,
    }
}

fn of_devlink(event: &Result<Event, devlink::Error>) -> Judged {
    Judged(match event {
        Ok(Event::DeviceNew(_) | Event::DeviceDel(_) | Event::PortNew(_) | Event::PortDel(_)) => Some(Heard::Change),
        // Nothing of these is read.
        Ok(Event::HealthReporter(_) | Event::RateNew(_) | Event::RateDel(_) | Event::Other { .. }) => None,
        // One that cannot be read may have been any.
        Ok(Event::Overrun) | Err(devlink::Error::Malformed { .. }) => Some(Heard::Overrun),
        Err(_) => Some(Heard::Lost),
    })
}

/// A socket that listens to groups of the kernel's.
struct Ear {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Ear {
    fn open(protocol: isize, groups: u32, receive_buffer: usize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        let of = socket.socket_ref();
        // Beyond net.core.rmem_max takes CAP_NET_ADMIN; without it, as much as may be had.
        if setsockopt(of, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(of, sockopt::RcvBuf, &receive_buffer)?;
        }
        Ok(Ear { socket, buffer: Vec::new() })
    }

    /// The next message of the kernel's; what other programs send (they can, as root) is left out.
    async fn next(&mut self) -> io::Result<&[u8]> {
        loop {
            self.buffer.clear();
            self.buffer.reserve_exact(MESSAGE);
            let sender = poll_fn(|context| self.socket.poll_recv_from(context, &mut self.buffer)).await?;
            if sender.port_number() == 0 {
                return Ok(&self.buffer);
            }
        }
    }

    fn drain(&mut self) -> Option<Heard> {
        let mut worst = None;
        for _ in 0..MOST_WAITING {
            self.buffer.clear();
            self.buffer.reserve_exact(MESSAGE);
            match self.socket.socket_ref().recv_from(&mut self.buffer, MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_loss(&error) => worst = Some(Heard::Overrun),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Heard::Lost),
            }
        }
        worst
    }
}

fn is_loss(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Whether a uevent is about a network function on the PCI bus, or a netdev that may be one of a NIC's.
///
/// It is a line `ACTION@DEVPATH` and more of `KEY=VALUE`, each ended by a zero (`lib/kobject_uevent.c`).
fn is_uevent_of_nic(uevent: &[u8], interest: &Interest) -> bool {
    let value = |key: &[u8]| uevent.split(|octet| *octet == 0).find_map(|line| line.strip_prefix(key));
    match value(b"SUBSYSTEM=") {
        // In hexadecimal without leading zeros (`pci_uevent`, `drivers/pci/pci-driver.c`).
        Some(b"pci") => value(b"PCI_CLASS=").is_none_or(|class| class.len() == 5 && class.starts_with(b"2")),
        Some(b"net") => {
            interest.any || !value(b"DEVPATH=").is_some_and(|path| path.starts_with(b"/devices/virtual/net/"))
        }
        _ => false,
    }
}

/// Whether a datagram of rtnetlink's has a message about one of these links.
fn is_of_link(datagram: &[u8], indices: &BTreeSet<u32>) -> bool {
    let mut rest = datagram;
    // struct nlmsghdr: length, type, flags, sequence, port; struct ifinfomsg: family, padding, type, index.
    while let Some(length) = number(rest, 0) {
        let Some((message, _)) = usize::try_from(length)
            .ok()
            .filter(|length| *length >= 16)
            .and_then(|length| rest.split_at_checked(length))
        else {
            break;
        };
        let kind = message.get(4..6).map(|octets| u16::from_ne_bytes([octets[0], octets[1]]));
        let of_link = kind.is_some_and(|kind| [RTM_NEWLINK, RTM_DELLINK].contains(&kind));
        // Bridges tell of their ports with the same message, in a family of their own.
        if of_link
            && message.get(16) == Some(&(AF_UNSPEC as u8))
            && number(message, 20).is_some_and(|index| indices.contains(&index))
        {
            return true;
        }
        rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..at + 4)?;
    Some(u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uevent(lines: &[&str]) -> Vec<u8> {
        lines.iter().flat_map(|line| [line.as_bytes(), b"\0"].concat()).collect()
    }

    #[test]
    fn uevents_of_network_functions_and_their_netdevs_are_of_interest() {
        let few = Interest::default();
        let any = Interest { any: true, ..Interest::default() };
        let tap = uevent(&["add@/devices/virtual/net/tap1", "DEVPATH=/devices/virtual/net/tap1", "SUBSYSTEM=net"]);
        let port = "/devices/pci0000:00/0000:00:04.0/net/eth0";
        let port = uevent(&[&format!("move@{port}"), &format!("DEVPATH={port}"), "SUBSYSTEM=net", "INTERFACE=eth0"]);
        let queue = uevent(&["add@/devices/x/net/eth0/queues/rx-0", "SUBSYSTEM=queues"]);
        let pci = |class: &str| uevent(&["bind@/devices/pci0000:00/0000:00:04.0", "SUBSYSTEM=pci", class]);
        assert!(!is_uevent_of_nic(&tap, &few) && is_uevent_of_nic(&tap, &any));
        assert!(is_uevent_of_nic(&port, &few) && !is_uevent_of_nic(&queue, &any));
        assert!(is_uevent_of_nic(&pci("PCI_CLASS=20000"), &few) && !is_uevent_of_nic(&pci("PCI_CLASS=10802"), &any));
        // Displays are 03, and 0200 has two more digits.
        assert!(!is_uevent_of_nic(&pci("PCI_CLASS=200"), &few) && !is_uevent_of_nic(&pci("PCI_CLASS=30000"), &few));
        assert!(!is_uevent_of_nic(b"", &any) && !is_uevent_of_nic(b"\xff\0SUBSYSTEM", &any));
    }

    /// One message about a link, as rtnetlink has it.
    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let attributes = [5, 0, 3, 0, b'a', 0, 0, 0];
        let mut octets = u32::to_ne_bytes(16 + 16 + 5).to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend([0; 10]);
        octets.extend([family, 0, 1, 0]);
        octets.extend(index.to_ne_bytes());
        octets.extend([0; 8]);
        octets.extend(attributes);
        octets
    }

    #[test]
    fn messages_about_links_of_nics_are_of_interest() {
        let ours = BTreeSet::from([7, 9]);
        let about = |messages: &[Vec<u8>]| is_of_link(&messages.concat(), &ours);
        assert!(about(&[message(RTM_NEWLINK, 0, 7)]) && about(&[message(RTM_DELLINK, 0, 9)]));
        assert!(about(&[message(RTM_NEWLINK, 0, 8), message(RTM_NEWLINK, 0, 7)]), "every message is looked at");
        assert!(!about(&[message(RTM_NEWLINK, 0, 8), message(RTM_NEWLINK, 7, 9), message(20, 0, 7)]));
        let whole = message(RTM_NEWLINK, 0, 7);
        for end in 0..24 {
            assert!(!is_of_link(&whole[..end], &ours));
        }
        assert!(!is_of_link(&[0; 64], &ours), "a message without a length is the last");
        assert!(!is_of_link(&[0xff; 64], &ours));
    }

    #[tokio::test]
    async fn what_waits_is_passed_over_and_what_comes_after_is_heard() {
        let mut ears = Ears::open(1 << 16).unwrap();
        let nothing = Interest::default();
        assert!(ears.next(&nothing).now_or_never().is_none());
        assert_ne!(ears.drain(), Some(Heard::Lost));
        // The socket has been read behind the reactor's back and tells of what comes all the same.
        assert!(ears.next(&nothing).now_or_never().is_none());
    }
}
