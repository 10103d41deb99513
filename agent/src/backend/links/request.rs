//! One question to rtnetlink at a time, on a socket of its own, from a thread that may block.
//!
//! The kernel does what an rtnetlink request asks inside of `sendmsg`, so its answer is there when `sendmsg`
//! returns: nothing is gained by an asynchronous socket, and nothing can be waited for in vain.

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::model::Link;

use super::{codec, table};

/// `struct nlmsghdr`, octets, and two types of messages (`linux/netlink.h`).
const NLMSGHDR: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// So often a list is asked for until nothing changes meanwhile.
const INTERRUPTED_LISTS: u32 = 10;

/// A blocking rtnetlink socket in the network namespace of the thread that opened it.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Names a link in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// By kernel index.
    Index(u32),
    /// By name.
    Name(String),
}

impl Requests {
    /// Opens the socket.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // An answer that is not there at once never comes (see above): let that be an error, not a hang.
        socket.set_non_blocking(true)?;
        // Errors need not quote the request.
        socket.set_cap_ack(true)?;
        Ok(Requests { socket, sequence: 0, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// What a link is now; `None` when there is none.
    pub(super) fn get(&mut self, which: &Which) -> io::Result<Option<Link>> {
        match self.ask(RouteNetlinkMessage::GetLink(get_message(which)), 0) {
            Ok(Some(RouteNetlinkMessage::NewLink(message))) => Ok(table::read(&message)),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "RTM_GETLINK was not answered by RTM_NEWLINK")),
            Err(error) if no_such_device(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a link (`RTM_NEWLINK`).
    pub(super) fn create(&mut self, message: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::NewLink(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Changes what is particular to the kind of the link with this index (`RTM_NEWLINK` of one that is there).
    pub(super) fn change(&mut self, message: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::NewLink(message), NLM_F_ACK).map(drop)
    }

    /// Sets what `message` says of the link with its index (`RTM_SETLINK`).
    pub(super) fn set(&mut self, message: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Deletes the link with this index (`RTM_DELLINK`).
    pub(super) fn delete(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask(RouteNetlinkMessage::DelLink(message), NLM_F_ACK).map(drop)
    }

    /// Deletes every link that is in this group (`RTM_DELLINK` with `IFLA_GROUP` and no index).
    pub(super) fn delete_group(&mut self, group: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        self.ask(RouteNetlinkMessage::DelLink(message), NLM_F_ACK).map(drop)
    }

    /// Every link. Links that changed meanwhile may make it an error.
    pub(super) fn list(&mut self) -> io::Result<Vec<Link>> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.send(RouteNetlinkMessage::GetLink(question), NLM_F_DUMP)?;
        let mut links = Vec::new();
        loop {
            self.buffer.clear();
            // A list is written as it is read: the next part is there, too.
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let length = rest.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
                let (message, behind) = rest
                    .split_at_checked(length)
                    .filter(|_| length > 0)
                    .ok_or_else(|| wrong("half a message".into()))?;
                rest = behind.get(length.next_multiple_of(4) - length..).unwrap_or_default();
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&codec::shortened(message))
                    .map_err(|error| wrong(error.to_string()))?;
                if message.header.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "links changed while they were listed"));
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                        links.extend(table::read(&message));
                    }
                    NetlinkPayload::Done(_) => return Ok(links),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    other => return Err(wrong(format!("an unexpected answer: {other:?}"))),
                }
            }
        }
    }

    /// Does what a message says that is given as octets behind its header, as [`Requests::list_of`] gives them.
    pub(super) fn tell(&mut self, kind: u16, flags: u16, message: &[u8]) -> io::Result<()> {
        self.send_octets(kind, flags, message)?;
        self.receive().map(drop)
    }

    /// Everything of one sort, as the octets behind the header of each message: `question` asks by `RTM_GET…` for `answer`,
    /// `RTM_NEW…`. Asked again when it changed meanwhile.
    pub(super) fn list_of(&mut self, kind: u16, answer: u16, question: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..INTERRUPTED_LISTS {
            if let Some(list) = self.list_once(kind, answer, question)? {
                return Ok(list);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "it changed whenever it was listed"))
    }

    /// `None` when it changed meanwhile.
    fn list_once(&mut self, kind: u16, answer: u16, question: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        self.send_octets(kind, NLM_F_DUMP, question)?;
        let mut list = Vec::new();
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while let Some((header, _)) = rest.split_first_chunk::<NLMSGHDR>() {
                let [length @ .., _, _, _, _, _, _, _, _, _, _, _, _] = *header;
                let length = u32::from_ne_bytes(length) as usize;
                let message = rest.get(NLMSGHDR..length).ok_or_else(|| wrong("half a message"))?;
                let flags = u16::from_ne_bytes([header[6], header[7]]);
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match u16::from_ne_bytes([header[4], header[5]]) {
                    is if is == answer => list.push(message.to_vec()),
                    NLMSG_DONE => return Ok((!interrupted).then_some(list)),
                    NLMSG_ERROR => {
                        let code = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    _ => return Err(wrong("an unexpected answer to a question for a list")),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn send_octets(&mut self, kind: u16, flags: u16, message: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(NLMSGHDR + message.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message that is too long"))?;
        self.buffer.clear();
        self.buffer.extend(length.to_ne_bytes());
        self.buffer.extend(kind.to_ne_bytes());
        self.buffer.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.buffer.extend(self.sequence.to_ne_bytes());
        self.buffer.extend([0; 4]);
        self.buffer.extend_from_slice(message);
        self.socket.send(&self.buffer, 0).map(drop)
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        self.buffer.clear();
        self.buffer.resize(request.buffer_len(), 0);
        request.serialize(&mut self.buffer);
        self.socket.send(&self.buffer, 0).map(drop)
    }

    /// Sends one request and takes its answer: a message, or `None` for a bare acknowledgement.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(request, flags)?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<Option<RouteNetlinkMessage>> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if answer.header.sequence_number != self.sequence {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another request"));
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::Error(_) => Ok(None),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("an unexpected answer: {other:?}"))),
        }
    }
}

/// `RTM_GETLINK` for one link, without its counters.
pub(super) fn get_message(which: &Which) -> LinkMessage {
    let mut message = LinkMessage::default();
    match which {
        Which::Index(index) => message.header.index = *index,
        Which::Name(name) => message.attributes.push(LinkAttribute::IfName(name.clone())),
    }
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// Whether the kernel says that there is no such link.
pub(super) fn no_such_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENODEV)
}
