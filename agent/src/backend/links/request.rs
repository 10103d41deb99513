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
