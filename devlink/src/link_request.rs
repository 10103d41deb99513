//! One request about a network link at a time, and its answer: to the kernel, or to a daemon that takes the kernel's messages.
//!
//! A socket of its own beside the `rtnetlink` crate's connection for three reasons. That connection speaks to the kernel alone,
//! and lldpad takes `RTM_SETLINK` on a netlink port of its own. It decodes a whole link or nothing, and loses what is asked for
//! here (see `vf/codec.rs`). And it passes on neither a refusal's extended text nor an answer that comes as `NLMSG_DONE`, which
//! is how lldpad answers. What the attributes mean lives in `vf` and `port_profile`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;
use std::{fmt, io};

use rtnetlink::packet_core::{Emitable, NLA_TYPE_MASK, NLM_F_REQUEST};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

/// `struct nlmsghdr` and `struct ifinfomsg`, octets (`linux/netlink.h`, `linux/rtnetlink.h`).
const NLMSGHDR: usize = 16;
const IFINFOMSG: usize = 16;

const NLMSG_ERROR: u16 = 2;
/// The original request is not quoted behind its header; attributes follow (`linux/netlink.h`).
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const ECONNREFUSED: i32 = 111;

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

/// A request that was refused (`NLMSG_ERROR`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive (`errno.h`).
    pub errno: i32,
    /// What the kernel or the driver says about it (`NLMSGERR_ATTR_MSG`). Most refusals of VF settings come without.
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
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
        refusal: Refusal,
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
/// The kernel does what it is asked while the request is being sent, which for a VF's setting may take as long as the NIC's
/// firmware takes, and holds its lock on all links meanwhile. Futures of this socket may be dropped at any time: an answer that
/// nobody waited for is passed over later.
pub struct LinkSocket {
    socket: TokioSocket,
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

    /// The index of the link that it is about.
    pub(crate) fn index(&self) -> Option<u32> {
        self.body.get(4..8)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
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
        Ok(LinkSocket { socket, port: address.port_number(), sequence: 0, unasked: VecDeque::new() })
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
        let request = request(kind, flags, self.sequence, self.port, message);
        let to = SocketAddr::new(peer.port(), 0);
        match poll_fn(|context| self.socket.poll_send_to(context, &request, &to)).await {
            Err(error) if error.raw_os_error() == Some(ECONNREFUSED) => return Err(LinkError::NobodyThere(peer)),
            sent => sent?,
        };
        let answer = async {
            loop {
                let (from, messages) = self.receive().await?;
                for message in messages {
                    if from == peer.port() && message.sequence == self.sequence && answers(peer, kind, message.kind) {
                        return answer(peer, message);
                    }
                    self.keep(from, message);
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answer).await.unwrap_or(Err(LinkError::NoAnswer(peer)))
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

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;
const NLMSG_DONE: u16 = 3;

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

fn answer(peer: Peer, message: Message) -> Result<Option<Message>, LinkError> {
    if message.kind != NLMSG_ERROR {
        return Ok(Some(message));
    }
    match refusal(&message) {
        Some(None) => Ok(None),
        Some(Some(refusal)) => Err(LinkError::Refused { peer, refusal }),
        None => Err(LinkError::Malformed(peer, "an error without a number")),
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

/// What an `NLMSG_ERROR` says: `None` of one that is too short, `Some(None)` of an acknowledgement.
fn refusal(message: &Message) -> Option<Option<Refusal>> {
    let (code, rest) = message.body.split_first_chunk()?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Some(None);
    }
    let text = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| {
            // The request's header is quoted, and the whole request where it is not capped.
            let quoted = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize)?;
            let quoted = if message.flags & NLM_F_CAPPED != 0 { NLMSGHDR } else { quoted.next_multiple_of(4) };
            let (_, said) = each(rest.get(quoted..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
            let said = String::from_utf8_lossy(said).trim_end_matches('\0').to_owned();
            Some(said).filter(|said| !said.is_empty())
        })
        .flatten();
    Some(Some(Refusal { errno: code.saturating_neg(), text }))
}

/// Attributes by type and value, as far as they are whole.
pub(crate) fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = attributes;
    std::iter::from_fn(move || {
        let ([l0, l1, k0, k1], _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([*k0, *k1]) & NLA_TYPE_MASK, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An `NLMSG_ERROR` of the kernel with these flags.
    fn error(flags: u16, body: &[&[u8]]) -> Message {
        Message { kind: NLMSG_ERROR, flags, sequence: 1, body: body.concat() }
    }

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
        assert_eq!((message.kind, message.sequence, message.index()), (RTM_GETLINK, 5, Some(7)));
        assert!(message.attributes().is_empty());
    }

    #[test]
    fn a_refusal_has_a_number_and_the_words_that_came_with_it() {
        assert_eq!(refusal(&error(0, &[&0i32.to_ne_bytes(), &[0; 16]])), Some(None));
        let bare = Refusal { errno: 95, text: None };
        assert_eq!(refusal(&error(0, &[&(-95i32).to_ne_bytes(), &[0; 16]])), Some(Some(bare)));
        // The attribute NLMSGERR_ATTR_MSG: its length, its type, its text with the final zero, padded to four octets.
        let words: &[&[u8]] = &[&9u16.to_ne_bytes(), &1u16.to_ne_bytes(), b"busy\0\0\0\0"];
        let words = words.concat();
        let busy = Refusal { errno: 16, text: Some("busy".into()) };
        let header: &[&[u8]] = &[&20u32.to_ne_bytes(), &[0; 12]];
        let header = header.concat();
        let number = (-16i32).to_ne_bytes();
        let capped = error(NLM_F_CAPPED | NLM_F_ACK_TLVS, &[&number, &header, &words]);
        assert_eq!(refusal(&capped), Some(Some(busy.clone())));
        // The request that is quoted whole has four octets behind its header.
        let quoted = error(NLM_F_ACK_TLVS, &[&number, &header, &[0xff; 4], &words]);
        assert_eq!(refusal(&quoted), Some(Some(busy.clone())));
        assert_eq!(busy.to_string(), "Device or resource busy (os error 16): busy");
        assert_eq!(refusal(&error(0, &[&[1, 2]])), None);
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_much(datagram in prop::collection::vec(any::<u8>(), 0..200), length in 0u32..200) {
            for mut datagram in [datagram.clone(), [&length.to_ne_bytes()[..], &datagram].concat()] {
                for message in messages(&datagram) {
                    let _ = (refusal(&message), message.attributes(), message.index());
                }
                // As an error with attributes.
                if let Some(header) = datagram.get_mut(4..8) {
                    header.copy_from_slice(&[2, 0, 0, 2]);
                }
                for message in messages(&datagram) {
                    let _ = refusal(&message);
                }
            }
        }
    }
}
