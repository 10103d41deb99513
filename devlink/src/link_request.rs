//! One request about a network link at a time, and its answer: to the kernel, or to a daemon that takes the kernel's messages.
//!
//! A socket of its own beside the `rtnetlink` crate's connection for three reasons. That connection speaks to the kernel alone,
//! and lldpad takes `RTM_SETLINK` on a netlink port of its own. It decodes a whole link or nothing, and loses what is asked for
//! here (see `vf/codec.rs`). And it passes on neither a refusal's extended text nor an answer that comes as `NLMSG_DONE`, which
//! is how lldpad answers. What the attributes mean lives in `vf` and `port_profile`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use nix::errno::Errno;
use rtnetlink::packet_core::{Emitable, NLM_F_REQUEST};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::task::spawn_blocking;

use crate::error::Extack;
use crate::wire::Attributes;
use crate::wire::messages::{Outcome, Payload};

/// `struct nlmsghdr` and `struct ifinfomsg`, octets (`linux/netlink.h`, `linux/rtnetlink.h`).
const NLMSGHDR: usize = 16;
const IFINFOMSG: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;

/// So long an answer is waited for. The kernel's is there when the request is sent; a daemon may be busy, or stopped.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The kernel.
    Kernel,
    /// lldpad, by its netlink port, which is its process id ([`crate::port_profile::lldpad`]).
    Lldpad {
        /// The netlink port.
        port: u32,
    },
}

impl Peer {
    fn port(self) -> u32 {
        match self {
            Peer::Kernel => 0,
            Peer::Lldpad { port } => port,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Kernel => f.write_str("the kernel"),
            Peer::Lldpad { port } => write!(f, "lldpad at netlink port {port}"),
        }
    }
}

/// Why a request about a link came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It was refused.
    #[error("{peer} refuses: {refusal}")]
    Refused {
        /// By whom.
        peer: Peer,
        /// How.
        refusal: Extack,
    },
    /// Nobody has this netlink port, in this network namespace.
    #[error("{0} is not there")]
    NobodyThere(Peer),
    /// No answer came in time.
    #[error("{0} does not answer")]
    NoAnswer(Peer),
    /// The answer is not what such an answer is.
    #[error("{0} answers with what is no answer to this: {1}")]
    Malformed(Peer, &'static str),
    /// The socket failed.
    #[error("a netlink socket failed")]
    Socket(#[from] io::Error),
}

/// A socket for requests about links, in the network namespace of the thread that opened it.
///
/// Futures of this socket may be dropped at any time. A request that was begun is carried out all the same, and its answer is
/// passed over later.
pub struct LinkSocket {
    socket: Arc<TokioSocket>,
    /// Our own netlink port, which lldpad takes from the header of a request.
    port: u32,
    sequence: u32,
    /// What came without having been asked for, its sender and the message behind the header.
    unasked: VecDeque<(u32, Message)>,
}

/// One netlink message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    /// Behind the header.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The attributes of a message about a link (behind `struct ifinfomsg`); nothing of one that is too short.
    pub(crate) fn attributes(&self) -> &[u8] {
        self.body.get(IFINFOMSG..).unwrap_or_default()
    }
}

impl LinkSocket {
    /// Opens it. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let address = socket.socket_mut().bind_auto()?;
        // Refusals come with words, and without the request.
        socket.socket_ref().set_ext_ack(true)?;
        socket.socket_ref().set_cap_ack(true)?;
        Ok(LinkSocket { socket: Arc::new(socket), port: address.port_number(), sequence: 0, unasked: VecDeque::new() })
    }

    /// Its netlink port.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request, an `RTM_…` of this kind, and takes its answer: a message, or `None` for a bare acknowledgement.
    ///
    /// An answer is read into a buffer of its own length, whatever that is: a link with its VFs may have 64 KiB and more.
    pub(crate) async fn ask(
        &mut self,
        peer: Peer,
        kind: u16,
        flags: u16,
        message: &LinkMessage,
    ) -> Result<Option<Message>, LinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let request: Arc<[u8]> = request(kind, flags, self.sequence, self.port, message).into();
        self.send(peer, Arc::clone(&request)).await?;
        let answer = async {
            loop {
                let (from, messages) = self.receive().await?;
                for message in messages {
                    if from == peer.port() && message.sequence == self.sequence && answers(peer, kind, message.kind) {
                        return answer(peer, &request, message);
                    }
                    self.keep(from, message);
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answer).await.unwrap_or(Err(LinkError::NoAnswer(peer)))
    }

    /// Sends on a thread that may block: the kernel does what it is asked within the system call, which for a VF's setting takes as
    /// long as the NIC's firmware does, and waits for whoever changes links at that time.
    async fn send(&self, peer: Peer, request: Arc<[u8]>) -> Result<(), LinkError> {
        let (socket, to) = (Arc::clone(&self.socket), SocketAddr::new(peer.port(), 0));
        let sent = spawn_blocking(move || {
            loop {
                match socket.socket_ref().send_to(&request, &to, 0) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    sent => return sent,
                }
            }
        });
        // It does not panic, and ends otherwise with the runtime.
        match sent.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(_) => Ok(()),
            Err(error) => Err(match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::ECONNREFUSED => LinkError::NobodyThere(peer),
                // What lldpad has not taken yet is as much as it is given.
                Errno::EAGAIN => LinkError::NoAnswer(peer),
                _ => LinkError::Socket(error),
            }),
        }
    }

    /// The next message that lldpad sends by itself.
    pub(crate) async fn unasked(&mut self, peer: Peer) -> Result<Message, LinkError> {
        loop {
            while let Some((from, message)) = self.unasked.pop_front() {
                if from == peer.port() {
                    return Ok(message);
                }
            }
            let (from, messages) = self.receive().await?;
            for message in messages {
                self.keep(from, message);
            }
        }
    }

    /// Keeps a request; an answer that came too late is nothing to keep.
    fn keep(&mut self, from: u32, message: Message) {
        /// Of a daemon that sends more than anybody takes, the newest.
        const KEPT: usize = 256;
        if message.kind == RTM_SETLINK {
            if self.unasked.len() == KEPT {
                self.unasked.pop_front();
            }
            self.unasked.push_back((from, message));
        }
    }

    async fn receive(&mut self) -> io::Result<(u32, Vec<Message>)> {
        let (datagram, from) = poll_fn(|context| self.socket.poll_recv_from_full(context)).await?;
        Ok((from.port_number(), messages(&datagram)))
    }
}

/// Whether a message of this kind can be the answer.
fn answers(peer: Peer, request: u16, kind: u16) -> bool {
    match (request, peer) {
        (_, _) if kind == NLMSG_ERROR => true,
        (RTM_GETLINK, Peer::Kernel) => kind == RTM_NEWLINK,
        // lldpad writes the link behind the header of the end of a list.
        (RTM_GETLINK, Peer::Lldpad { .. }) => kind == NLMSG_DONE,
        _ => false,
    }
}

/// What became of a request.
fn answer(peer: Peer, request: &[u8], message: Message) -> Result<Option<Message>, LinkError> {
    if message.kind != NLMSG_ERROR {
        return Ok(Some(message));
    }
    match Payload::read(message.kind, message.flags, &message.body) {
        Ok(Payload::Outcome(Outcome { errno: 0, .. })) => Ok(None),
        Ok(Payload::Outcome(outcome)) => Err(LinkError::Refused { peer, refusal: outcome.refusal(request) }),
        Ok(_) | Err(_) => Err(LinkError::Malformed(peer, "an error that cannot be read")),
    }
}

/// A request as octets: `struct nlmsghdr`, and the link behind it.
fn request(kind: u16, flags: u16, sequence: u32, port: u32, message: &LinkMessage) -> Vec<u8> {
    let length = NLMSGHDR + message.buffer_len();
    let mut octets = Vec::with_capacity(length);
    // Requests are some hundred octets long.
    octets.extend((length as u32).to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    octets.extend(sequence.to_ne_bytes());
    octets.extend(port.to_ne_bytes());
    octets.resize(length, 0);
    message.emit(&mut octets[NLMSGHDR..]);
    octets
}

/// The messages of a datagram, as far as they are whole.
fn messages(datagram: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Some((header, _)) = rest.split_first_chunk::<NLMSGHDR>() {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = rest.get(NLMSGHDR..length) else { break };
        messages.push(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            body: body.to_vec(),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// Attributes by type and value, as far as they are whole: what is told of VFs may be cut off (`vf/codec.rs`).
pub(crate) fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    Attributes::new(attributes).map_while(Result::ok).map(|attribute| (attribute.kind, attribute.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_the_header_and_the_link() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        let octets = request(RTM_GETLINK, 0, 5, 4321, &link);
        let expected: &[&[u8]] = &[
            &32u32.to_ne_bytes(),   // nlmsg_len
            &18u16.to_ne_bytes(),   // nlmsg_type: RTM_GETLINK
            &1u16.to_ne_bytes(),    // nlmsg_flags: NLM_F_REQUEST
            &5u32.to_ne_bytes(),    // nlmsg_seq
            &4321u32.to_ne_bytes(), // nlmsg_pid
            &[0, 0],                // ifi_family, pad
            &0u16.to_ne_bytes(),    // ifi_type
            &7u32.to_ne_bytes(),    // ifi_index
            &[0; 8],                // ifi_flags, ifi_change
        ];
        assert_eq!(octets, expected.concat());
        let [message] = &messages(&octets)[..] else { panic!("{octets:?}") };
        assert_eq!((message.kind, message.sequence), (RTM_GETLINK, 5));
        assert!(message.attributes().is_empty());
    }

    #[test]
    fn an_answer_is_a_message_an_acknowledgement_or_a_refusal_with_words() {
        let error = |flags, body: &[&[u8]]| {
            answer(Peer::Kernel, &[], Message { kind: NLMSG_ERROR, flags, sequence: 1, body: body.concat() })
        };
        // The header of the request, of which only this much is quoted.
        let header: &[&[u8]] = &[&20u32.to_ne_bytes(), &[0; 12]];
        let header = header.concat();
        assert!(matches!(error(0, &[&0i32.to_ne_bytes(), &header]), Ok(None)));
        let words: &[&[u8]] = &[
            &9u16.to_ne_bytes(), // nla_len
            &1u16.to_ne_bytes(), // nla_type: NLMSGERR_ATTR_MSG
            b"busy\0\0\0\0",     // with the final zero, padded to four octets
        ];
        // NLM_F_CAPPED | NLM_F_ACK_TLVS
        match error(0x300, &[&(-16i32).to_ne_bytes(), &header, &words.concat()]) {
            Err(LinkError::Refused { peer: Peer::Kernel, refusal }) => {
                assert_eq!((refusal.errno, refusal.text.as_deref()), (16, Some("busy")));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(error(0, &[&[1, 2]]), Err(LinkError::Malformed(..))));
        let link = Message { kind: RTM_NEWLINK, flags: 0, sequence: 1, body: Vec::new() };
        assert_eq!(answer(Peer::Kernel, &[], link.clone()).unwrap(), Some(link));
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_much(datagram in prop::collection::vec(any::<u8>(), 0..200), length in 0u32..200) {
            for mut datagram in [datagram.clone(), [&length.to_ne_bytes()[..], &datagram].concat()] {
                for message in messages(&datagram) {
                    let _ = (message.attributes(), answer(Peer::Kernel, &datagram, message.clone()));
                }
                // As an error with attributes.
                if let Some(header) = datagram.get_mut(4..8) {
                    header.copy_from_slice(&[2, 0, 0, 2]);
                }
                for message in messages(&datagram) {
                    let _ = answer(Peer::Kernel, &datagram, message);
                }
            }
        }
    }
}
