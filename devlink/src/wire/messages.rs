//! Netlink messages (`struct nlmsghdr`) with what generic netlink puts into them (`struct genlmsghdr`), and the kernel's answers
//! with their extended text (extack).

use super::{Attributes, Malformed, Writer};

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct genlmsghdr`: command, version, two octets reserved.
const GENERIC_HEADER: usize = 4;

/// `NLMSG_NOOP`, `NLMSG_ERROR`, `NLMSG_DONE`, `NLMSG_OVERRUN`; what follows below `NLMSG_MIN_TYPE` is reserved.
const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;
const FIRST_FAMILY: u16 = 16;

/// Flags of requests: `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`.
pub(crate) const REQUEST: u16 = 0x01;
pub(crate) const ACK: u16 = 0x04;
pub(crate) const DUMP: u16 = 0x300;
/// What a dump lists changed while it was listed (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
/// Flags of `NLMSG_ERROR`: without the request's payload, and with attributes behind it.
const CAPPED: u16 = 0x100;
const WITH_ATTRIBUTES: u16 = 0x200;

/// `enum nlmsgerr_attrs`.
const EXTACK_MESSAGE: u16 = 1;
const EXTACK_OFFSET: u16 = 2;
const EXTACK_MISSING: u16 = 5;

/// One message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// Of the request that it answers; 0 for notifications.
    pub(crate) sequence: u32,
    pub(crate) interrupted: bool,
    pub(crate) payload: Payload<'a>,
}

#[derive(Debug)]
pub(crate) enum Payload<'a> {
    /// Of a family: a reply, a part of a dump, a notification.
    Generic { family: u16, command: u8, attributes: Attributes<'a> },
    /// A request was done (code 0) or refused.
    Outcome(Outcome),
    /// A dump has come to its end, by itself or for an error.
    Done(Outcome),
    /// Messages were lost.
    Overrun,
    /// Nothing.
    Noop,
}

/// What became of a request (`struct nlmsgerr`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// 0, or an error number that is greater.
    pub(crate) errno: i32,
    /// `NLMSGERR_ATTR_MSG`.
    pub(crate) text: Option<String>,
    /// `NLMSGERR_ATTR_OFFS`: where in the request the attribute is that is meant.
    pub(crate) offset: Option<u32>,
    /// `NLMSGERR_ATTR_MISS_TYPE`.
    pub(crate) missing: Option<u32>,
}

/// The messages of a datagram, in order. After the first that is malformed there is nothing more.
pub(crate) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Messages(datagram)
    }
}

fn u16_at(octets: &[u8; HEADER], at: usize) -> u16 {
    u16::from_ne_bytes([octets[at], octets[at + 1]])
}

fn u32_at(octets: &[u8; HEADER], at: usize) -> u32 {
    u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let octets = std::mem::take(&mut self.0);
        if octets.is_empty() {
            return None;
        }
        let malformed = |said| Err(Malformed::Length { what: "a message", said, there: octets.len() });
        let Some((header, _)) = octets.split_first_chunk::<HEADER>() else { return Some(malformed(HEADER)) };
        let length = u32_at(header, 0);
        // What does not fit into the machine's own size fits into no datagram either.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = octets.get(HEADER..length) else { return Some(malformed(length)) };
        let padded = length.checked_next_multiple_of(4).unwrap_or(length);
        self.0 = octets.get(padded..).unwrap_or_default();
        let flags = u16_at(header, 6);
        let payload = match Payload::read(u16_at(header, 4), flags, body) {
            Ok(payload) => payload,
            Err(error) => {
                self.0 = &[];
                return Some(Err(error));
            }
        };
        Some(Ok(Message { sequence: u32_at(header, 8), interrupted: flags & DUMP_INTERRUPTED != 0, payload }))
    }
}

impl<'a> Payload<'a> {
    fn read(kind: u16, flags: u16, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            NOOP => Payload::Noop,
            OVERRUN => Payload::Overrun,
            ERROR => {
                // The error number, then the header of the request and, if it was refused and the kernel was not asked to leave
                // that out, its payload.
                let short = Malformed::Length { what: "an answer", said: 4 + HEADER, there: body.len() };
                let (request, _) = body.get(4..).and_then(<[u8]>::split_first_chunk::<HEADER>).ok_or(short)?;
                let request_length = usize::try_from(u32_at(request, 0)).unwrap_or(usize::MAX);
                let echoed = if flags & CAPPED != 0 { HEADER } else { request_length.max(HEADER) };
                let behind = echoed.checked_next_multiple_of(4).and_then(|echoed| echoed.checked_add(4));
                Payload::Outcome(Outcome::read(flags, body, behind.unwrap_or(usize::MAX))?)
            }
            DONE => Payload::Done(Outcome::read(flags, body, 4)?),
            // Reserved for kinds of control messages that are to come.
            ..FIRST_FAMILY => Payload::Noop,
            family => {
                let Some((header, attributes)) = body.split_first_chunk::<GENERIC_HEADER>() else {
                    return Err(Malformed::Length { what: "a payload", said: GENERIC_HEADER, there: body.len() });
                };
                Payload::Generic { family, command: header[0], attributes: Attributes::new(attributes) }
            }
        })
    }
}

impl Outcome {
    /// Reads the error number that a body begins with and the attributes from an octet on.
    fn read(flags: u16, body: &[u8], attributes: usize) -> Result<Self, Malformed> {
        let Some((code, _)) = body.split_first_chunk() else {
            return Err(Malformed::Length { what: "an answer", said: 4, there: body.len() });
        };
        let mut outcome = Outcome { errno: i32::from_ne_bytes(*code).saturating_neg().max(0), ..Outcome::default() };
        if flags & WITH_ATTRIBUTES == 0 {
            return Ok(outcome);
        }
        let said = attributes.saturating_add(HEADER);
        let there = body.len() + HEADER;
        let attributes = body.get(attributes..).ok_or(Malformed::Length { what: "an answer", said, there })?;
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                EXTACK_MESSAGE => outcome.text = Some(attribute.text()),
                EXTACK_OFFSET => outcome.offset = Some(attribute.u32()?),
                EXTACK_MISSING => outcome.missing = Some(attribute.u32()?),
                _ => {}
            }
        }
        Ok(outcome)
    }
}

/// A whole message to a family. The sequence number tells its answers from others'; the kernel fills in the port.
pub(crate) fn request(
    family: u16,
    flags: u16,
    sequence: u32,
    command: u8,
    version: u8,
    attributes: &Writer,
) -> Vec<u8> {
    message(family, REQUEST | flags, sequence, &[&[command, version, 0, 0], attributes.octets()].concat())
}

/// A message of a family's as the kernel sends it to a multicast group.
pub(crate) fn notification(family: u16, command: u8, attributes: &Writer) -> Vec<u8> {
    message(family, 0, 0, &[&[command, 1, 0, 0], attributes.octets()].concat())
}

/// `NLMSG_OVERRUN`.
pub(crate) fn overrun() -> Vec<u8> {
    message(OVERRUN, 0, 0, &[])
}

/// A message with its header. What is behind it is a multiple of four octets, and far less than a length can say.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let port = [0; 4];
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &sequence.to_ne_bytes(), &port, body]
        .concat()
}

/// The type of the attribute at an offset of a message that was sent, if one begins there.
pub(crate) fn attribute_at(request: &[u8], offset: u32) -> Option<u16> {
    let at = usize::try_from(offset).ok().filter(|at| *at >= HEADER + GENERIC_HEADER)?;
    let attribute = Attributes::new(request.get(at..)?).next()?.ok()?;
    Some(attribute.kind)
}
