//! One socket to a family of generic netlink, on which requests are made one after the other. Notifications are not here
//! (`monitor.rs`), nor what a request means.
//!
//! It has a thread of its own, since the kernel does what a request asks *within the system call* that sends it: a NIC that is
//! made switchdev takes seconds, and a dump waits for whoever has the device. A task must not stand still for that.

use std::io;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::sync::oneshot;

use crate::error::{Error, Extack, RefusedAttribute};
use crate::wire::messages::{self, Messages, Outcome, Payload, attribute_at};
use crate::wire::numbers::ctrl;
use crate::wire::{Attributes, Malformed, Writer};

/// What one datagram may have. The kernel makes the parts of a dump as large as what is offered, 32 KiB at most, and other answers a
/// page or two.
pub(crate) const DATAGRAM: usize = 64 << 10;
/// How often a list is asked for again that changed while it was made.
const DUMPS: usize = 8;

/// A family, as the kernel knows it (`CTRL_CMD_GETFAMILY`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The type of its messages.
    pub(crate) id: u16,
    /// Its multicast groups with their numbers.
    pub(crate) groups: Vec<(String, u32)>,
}

/// A request to the family.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) command: u8,
    /// A list is asked for.
    pub(crate) dump: bool,
    pub(crate) attributes: Writer,
}

/// A message of the family in answer to a request.
#[derive(Debug)]
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    /// Its attributes.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// Why a request came to nothing; the words for it are the asker's.
#[derive(Debug)]
enum Failure {
    Socket(io::Error),
    Refused(Extack),
    Lost,
    Interrupted,
    Malformed(Malformed),
}

impl Failure {
    fn on(self, request: String) -> Error {
        match self {
            Failure::Socket(source) => Error::Socket { request, source },
            Failure::Refused(refusal) => Error::Refused { request, refusal },
            Failure::Lost => Error::Lost { request },
            Failure::Interrupted => Error::Interrupted { request },
            Failure::Malformed(source) => Error::Malformed { request, source },
        }
    }
}

struct Ask {
    request: Request,
    answer: oneshot::Sender<Result<Vec<Reply>, Failure>>,
}

/// The asker's end.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    asks: mpsc::Sender<Ask>,
}

impl Conversation {
    /// Opens it in the network namespace of the calling thread. The thread ends with the last clone.
    pub(crate) fn open(family: &'static str) -> Result<Self, Error> {
        let words = || format!("open a socket for {family}");
        let socket_error = |source| Error::Socket { request: words(), source };
        let mut line = Line::open().map_err(socket_error)?;
        let id = line.family(family)?.id;
        let (asks, asked) = mpsc::channel::<Ask>();
        let answer_all = move || {
            for Ask { request, answer } in asked {
                // Nobody waits for it any more, and it was not begun.
                if answer.is_closed() {
                    continue;
                }
                // It may be gone by now: the request was carried out all the same.
                let _ = answer.send(line.ask(id, &request));
            }
        };
        thread::Builder::new().name(family.to_owned()).spawn(answer_all).map_err(socket_error)?;
        Ok(Conversation { asks })
    }

    /// Makes a request; `words` are what it does, as a sentence goes on after "cannot". When the future is dropped, a request that
    /// has begun is carried out to its end, one that has not is not made.
    pub(crate) async fn ask(&self, words: String, request: Request) -> Result<Vec<Reply>, Error> {
        let (answer, answered) = oneshot::channel();
        // The thread ends with its last asker. Should it end before, nobody knows what it has done.
        let answer = match self.asks.send(Ask { request, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(Failure::Lost)),
            Err(_) => Err(Failure::Lost),
        };
        answer.map_err(|failure| failure.on(words))
    }
}

fn open_request_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.set_non_blocking(true)?;
    // By a name that the kernel chooses.
    socket.bind_auto()?;
    socket.set_ext_ack(true)?;
    // Refusals need not bring the request back.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Reads one datagram of the kernel's into an empty buffer of [`DATAGRAM`] octets. What other programs send (they can, as
/// root) is left out.
///
/// # Errors
/// `WouldBlock` when there is none; `ENOBUFS` when some were lost; `EMSGSIZE` when it does not fit.
pub(crate) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve_exact(DATAGRAM);
        match socket.recv_from(buffer, MsgFlags::MSG_TRUNC.bits()) {
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok((length, _)) if length > buffer.len() => return Err(Errno::EMSGSIZE.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The thread's end: the socket.
#[derive(Debug)]
pub(crate) struct Line {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Line {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Line { socket: open_request_socket()?, sequence: 0, buffer: Vec::new() })
    }

    /// Asks for a family.
    pub(crate) fn family(&mut self, name: &'static str) -> Result<Family, Error> {
        let words = || format!("ask for the family {name}");
        let mut request = Request { command: ctrl::GETFAMILY, ..Request::default() };
        request.attributes.text(ctrl::ATTR_FAMILY_NAME, name);
        let replies = self.ask(ctrl::FAMILY, &request).map_err(|failure| match failure {
            Failure::Refused(refusal) if refusal.is_absent() => Error::NoFamily { family: name },
            failure => failure.on(words()),
        })?;
        let missing = Malformed::Missing { kind: ctrl::ATTR_FAMILY_ID };
        let read = replies.first().map_or(Err(missing), |reply| Family::decode(Attributes::new(reply.octets())));
        read.map_err(|source| Error::Malformed { request: words(), source })
    }

    fn ask(&mut self, family: u16, request: &Request) -> Result<Vec<Reply>, Failure> {
        for _ in 0..DUMPS {
            match self.exchange(family, request) {
                Err(Failure::Interrupted) => {}
                // A list may be there that was not read to its end, and the kernel begins no other on the same socket.
                Err(failure @ (Failure::Lost | Failure::Malformed(_) | Failure::Socket(_))) => {
                    if let Ok(socket) = open_request_socket() {
                        self.socket = socket;
                    }
                    return Err(failure);
                }
                other => return other,
            }
        }
        Err(Failure::Interrupted)
    }

    /// Sends a request and reads to the end of its answer.
    fn exchange(&mut self, family: u16, request: &Request) -> Result<Vec<Reply>, Failure> {
        // 0 is what notifications have.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        let flags = if request.dump { messages::DUMP } else { messages::ACK };
        let version = if family == ctrl::FAMILY { ctrl::VERSION } else { 1 };
        let sent = messages::request(family, flags, self.sequence, request.command, version, &request.attributes);
        loop {
            match self.socket.send_to(&sent, &SocketAddr::new(0, 0), 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Socket(error)),
            }
        }
        let (mut replies, mut interrupted) = (Vec::new(), false);
        loop {
            // Whatever the kernel has to say is there when it has taken the request, and each part of a dump when the one before
            // was read. So nothing is waited for: if there is nothing, it could not be put there.
            receive(&self.socket, &mut self.buffer).map_err(|error| {
                match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                    Errno::ENOBUFS | Errno::EAGAIN => Failure::Lost,
                    _ => Failure::Socket(error),
                }
            })?;
            for message in Messages::new(&self.buffer) {
                let message = message.map_err(Failure::Malformed)?;
                // Left from a request whose answer could not be read to its end.
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.interrupted;
                match message.payload {
                    Payload::Generic { family: of, attributes, .. } if of == family => {
                        replies.push(Reply(attributes.octets().to_vec()));
                    }
                    Payload::Outcome(outcome) | Payload::Done(outcome) => {
                        return match outcome {
                            Outcome { errno: 0, .. } if interrupted => Err(Failure::Interrupted),
                            Outcome { errno: 0, .. } => Ok(replies),
                            outcome => Err(Failure::Refused(outcome.refusal(&sent))),
                        };
                    }
                    Payload::Overrun => return Err(Failure::Lost),
                    Payload::Generic { .. } | Payload::Noop => {}
                }
            }
        }
    }
}

impl Outcome {
    pub(crate) fn refusal(self, request: &[u8]) -> Extack {
        let Outcome { errno, text, offset, missing } = self;
        let attribute = offset.map(|offset| RefusedAttribute { offset, kind: attribute_at(request, offset) });
        Extack { errno, text, attribute, missing }
    }
}

impl Family {
    fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let id = attributes.need(ctrl::ATTR_FAMILY_ID)?.u16()?;
        let mut groups = Vec::new();
        if let Some(nest) = attributes.find_kind(ctrl::ATTR_MCAST_GROUPS)? {
            for group in nest.nested() {
                let inside = group?.nested();
                let name = inside.find_kind(ctrl::MCAST_GRP_NAME)?;
                if let (Some(name), Some(number)) = (name, inside.find_kind(ctrl::MCAST_GRP_ID)?) {
                    groups.push((name.text(), number.u32()?));
                }
            }
        }
        Ok(Family { id, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_family_with_its_groups() {
        #[rustfmt::skip]
        let octets = [
            &[12, 0, 2, 0][..], b"devlink\0", // CTRL_ATTR_FAMILY_NAME
            &[6, 0, 1, 0, 21, 0, 0, 0], // CTRL_ATTR_FAMILY_ID; padding
            &[8, 0, 3, 0, 1, 0, 0, 0], // CTRL_ATTR_VERSION
            &[28, 0, 7, 0], // CTRL_ATTR_MCAST_GROUPS
            &[24, 0, 1, 0], // the first
            &[8, 0, 2, 0, 5, 0, 0, 0], // CTRL_ATTR_MCAST_GRP_ID
            &[11, 0, 1, 0], b"config\0", &[0], // CTRL_ATTR_MCAST_GRP_NAME; padding
        ]
        .concat();
        let family = Family { id: 21, groups: vec![("config".to_owned(), 5)] };
        assert_eq!(Family::decode(Attributes::new(&octets)), Ok(family));
        let nameless = Attributes::new(&octets[..12]);
        assert_eq!(Family::decode(nameless), Err(Malformed::Missing { kind: ctrl::ATTR_FAMILY_ID }));
    }

    /// Every kernel has generic netlink, and none has this family.
    #[test]
    fn a_family_that_is_not_there() {
        let error = Conversation::open("no such family").unwrap_err();
        assert!(matches!(error, Error::NoFamily { family: "no such family" }), "{error:?}");
        assert_eq!(error.to_string(), "this kernel has no generic netlink family \"no such family\"");
        assert!(Line::open().unwrap().family("nlctrl").is_ok_and(|family| family.id == ctrl::FAMILY));
    }

    /// The family of families answers a dump: lists of several datagrams, and the next request after one.
    #[tokio::test]
    async fn lists_and_single_answers() {
        let conversation = Conversation::open("nlctrl").unwrap();
        let list = Request { command: ctrl::GETFAMILY, dump: true, ..Request::default() };
        let families = conversation.ask("list".to_owned(), list).await.unwrap();
        let ids: Vec<u16> =
            families.iter().map(|reply| Family::decode(Attributes::new(reply.octets())).unwrap().id).collect();
        assert!(ids.contains(&ctrl::FAMILY), "{ids:?}");
        let mut one = Request { command: ctrl::GETFAMILY, ..Request::default() };
        one.attributes.text(ctrl::ATTR_FAMILY_NAME, "nlctrl");
        assert_eq!(conversation.ask("ask".to_owned(), one).await.unwrap().len(), 1);
        let unknown = Request { command: 200, ..Request::default() };
        let error = conversation.ask("try".to_owned(), unknown).await.unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        assert!(error.to_string().starts_with("cannot try: "), "{error}");
    }

    /// A message that looks like the kernel's answer to the next request, and is not from the kernel.
    #[test]
    fn others_are_not_heard() {
        let mut line = Line::open().unwrap();
        let mut address = SocketAddr::new(0, 0);
        line.socket.get_address(&mut address).unwrap();
        let refused =
            [&36u32.to_ne_bytes()[..], &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &(-1i32).to_ne_bytes(), &[0; 16]];
        let mut other = Socket::new(NETLINK_GENERIC).unwrap();
        other.bind_auto().unwrap();
        // Who may not administer the network cannot even send it.
        if let Err(error) = other.send_to(&refused.concat(), &address, 0) {
            assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32));
        }
        assert!(line.family("nlctrl").is_ok());
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets: Vec<u8>) {
            let _ = Family::decode(Attributes::new(&octets));
        }
    }
}
