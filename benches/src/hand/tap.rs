//! Taps by the shortest way: two ioctls, one netlink message for everything but up, one file, one more message.
//! What they have in the end is what vifd's have. Run it on a thread of the namespace that is meant.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::libc::{
    IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, IFF_UP, IFLA_ADDRESS, IFLA_GROUP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_MTU, NLM_F_ACK,
    NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, RTM_DELLINK, RTM_NEWLINK, c_int,
};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// The group of links that are deleted together; nobody else uses it in a private namespace.
const GROUP: u32 = 4711;

/// A tap.
#[derive(Clone, Debug)]
pub struct Tap {
    /// At most 15 octets.
    pub name: String,
    /// Link-layer address.
    pub mac: [u8; 6],
    /// Octets.
    pub mtu: u32,
    /// `ifalias`.
    pub alias: String,
}

/// An rtnetlink socket.
pub struct Kernel {
    socket: OwnedFd,
}

impl Kernel {
    /// Opens it in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel does not give one.
    pub fn open() -> Result<Kernel> {
        let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).context("a netlink socket")?;
        Ok(Kernel { socket })
    }

    /// Makes a tap that stays, with address, MTU, alias and no IPv6, and sets it up.
    ///
    /// # Errors
    /// When the kernel refuses any of it.
    pub fn make(&self, tap: &Tap) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("opening /dev/net/tun")?;
        ioctl::attach(&file, &tap.name).with_context(|| format!("making tap {}", tap.name))?;
        let mut dress = Message::new(RTM_NEWLINK, 0);
        dress.attribute(IFLA_IFNAME, &with_nul(&tap.name));
        dress.attribute(IFLA_ADDRESS, &tap.mac);
        dress.attribute(IFLA_MTU, &tap.mtu.to_ne_bytes());
        dress.attribute(IFLA_IFALIAS, tap.alias.as_bytes());
        self.ask(dress).with_context(|| format!("dressing tap {}", tap.name))?;
        fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name), "1")?;
        ioctl::persist(&file)?;
        drop(file);
        let mut up = Message::new(RTM_NEWLINK, IFF_UP);
        up.attribute(IFLA_IFNAME, &with_nul(&tap.name));
        self.ask(up).with_context(|| format!("setting tap {} up", tap.name))
    }

    /// Sets a link up, with an MTU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&self, index: u32, mtu: u32) -> Result<()> {
        let mut message = Message::new(RTM_NEWLINK, IFF_UP).about(index);
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        self.ask(message).with_context(|| format!("setting link {index} up"))
    }

    /// Deletes several links in one request, by putting them into a group first: the kernel then waits once for
    /// the processors to have let go of them, and not once for each.
    ///
    /// # Errors
    /// When there is none of one of these names.
    pub fn delete_together<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for name in names {
            let mut message = Message::new(RTM_NEWLINK, 0);
            message.attribute(IFLA_IFNAME, &with_nul(name));
            message.attribute(IFLA_GROUP, &GROUP.to_ne_bytes());
            self.ask(message).with_context(|| format!("putting {name} into a group"))?;
        }
        let mut message = Message::new(RTM_DELLINK, 0);
        message.attribute(IFLA_GROUP, &GROUP.to_ne_bytes());
        self.ask(message).context("deleting a group of links")
    }

    pub(super) fn ask(&self, message: Message) -> Result<()> {
        let octets = message.finish();
        sendto(self.socket.as_raw_fd(), &octets, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // An acknowledgement is `struct nlmsgerr` after the header: a negative errno first, 0 when all is well.
        let Some(error) = answer[..length].get(16..20).and_then(|four| four.try_into().ok()).map(i32::from_ne_bytes)
        else {
            bail!("an answer of {length} octets");
        };
        if error != 0 {
            return Err(std::io::Error::from_raw_os_error(-error).into());
        }
        Ok(())
    }
}

pub(super) fn with_nul(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// `struct nlmsghdr`, `struct ifinfomsg` and attributes (rtnetlink(7)).
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u16, flags: c_int) -> Message {
        let mut octets = vec![0; 32];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        let wanted = u16::try_from(NLM_F_REQUEST | NLM_F_ACK).unwrap_or_default();
        octets[6..8].copy_from_slice(&wanted.to_ne_bytes());
        octets[24..28].copy_from_slice(&flags.to_ne_bytes());
        let mut message = Message(octets);
        message.change_flags(flags);
        message
    }

    /// A new link of a kind, or one by its index: with an index of its own choice, so that nobody has to ask for it.
    pub(super) fn about(mut self, index: u32) -> Message {
        self.0[20..24].copy_from_slice(&index.to_ne_bytes());
        self
    }

    /// `NLM_F_CREATE | NLM_F_EXCL`.
    pub(super) fn creating(mut self) -> Message {
        let wanted = u16::try_from(NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).unwrap_or_default();
        self.0[6..8].copy_from_slice(&wanted.to_ne_bytes());
        self
    }

    /// Which flags are meant.
    fn change_flags(&mut self, mask: c_int) {
        self.0[28..32].copy_from_slice(&mask.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// `TUNSETIFF` and `TUNSETPERSIST` (`linux/if_tun.h`). vifd has its own, which are not measured with themselves.
mod ioctl {
    #![allow(unsafe_code, missing_docs, clippy::missing_safety_doc)]

    use super::{AsRawFd, File, IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, c_int};

    nix::ioctl_write_ptr_bad!(tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<c_int>()), [u8; 40]);
    nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, size_of::<c_int>()));

    /// Makes the tap `name`, which lives as long as `file` is open.
    pub(super) fn attach(file: &File, name: &str) -> nix::Result<()> {
        // `struct ifreq`: 16 octets of name, the flags, and 22 that do not matter.
        let mut request = [0; 40];
        request[..15].get_mut(..name.len()).ok_or(nix::errno::Errno::ENAMETOOLONG)?.copy_from_slice(name.as_bytes());
        let flags = u16::try_from(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL).unwrap_or_default();
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: the descriptor is open while `file` is borrowed. The kernel reads and writes `sizeof(struct
        // ifreq)`, at most 40 octets, which `request` has and which are our own.
        unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request) }.map(drop)
    }

    /// Lets it stay when `file` is closed.
    pub(super) fn persist(file: &File) -> nix::Result<()> {
        // SAFETY: the descriptor is open while `file` is borrowed, and the argument is a number.
        unsafe { tun_set_persist(file.as_raw_fd(), 1) }.map(drop)
    }
}
