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
    pub(crate) fn read(kind: u16, flags: u16, body: &'a [u8]) -> Result<Self, Malformed> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(datagram: &[u8]) -> Result<Payload<'_>, Malformed> {
        let mut messages = Messages::new(datagram);
        let message = messages.next().unwrap();
        assert!(messages.next().is_none());
        message.map(|message| message.payload)
    }

    #[test]
    fn a_request_as_the_kernel_takes_it() {
        let mut attributes = Writer::default();
        attributes.u16(25, 1);
        let octets = request(21, ACK, 7, 30, 1, &attributes);
        #[rustfmt::skip]
        let expected = [
            28, 0, 0, 0, // length
            21, 0, // type: the family
            5, 0, // NLM_F_REQUEST | NLM_F_ACK
            7, 0, 0, 0, // sequence number
            0, 0, 0, 0, // port: the kernel knows whose the socket is
            30, // command: DEVLINK_CMD_ESWITCH_SET
            1, // version: DEVLINK_GENL_VERSION
            0, 0, // reserved
            6, 0, 25, 0, // length, DEVLINK_ATTR_ESWITCH_MODE
            1, 0, 0, 0, // DEVLINK_ESWITCH_MODE_SWITCHDEV; padding
        ];
        assert_eq!(octets, expected);
        let Ok(Payload::Generic { family: 21, command: 30, attributes }) = only(&octets) else { panic!("{octets:?}") };
        assert_eq!(attributes.need(25).unwrap().u16(), Ok(1));
        assert_eq!(attribute_at(&octets, 20), Some(25));
        // Not in the headers, not behind the end, and not where no attribute begins.
        assert_eq!([0, 16, 22, 28, u32::MAX].map(|offset| attribute_at(&octets, offset)), [None; 5]);
    }

    /// What Linux 6.1 says of capabilities, which it does not know.
    #[test]
    fn a_refusal_with_its_text() {
        #[rustfmt::skip]
        let octets = [
            &[100, 0, 0, 0][..], // length
            &[2, 0], // NLMSG_ERROR
            &[0, 3], // NLM_F_CAPPED | NLM_F_ACK_TLVS
            &[13, 0, 0, 0], // sequence number
            &[0x80, 0, 0, 0], // port
            &[0xea, 0xff, 0xff, 0xff], // -EINVAL
            &[76, 0, 0, 0, 21, 0, 5, 0, 13, 0, 0, 0, 0, 0, 0, 0], // the header of the request
            &[53, 0, 1, 0], // NLMSGERR_ATTR_MSG
            b"leftover: Fail to parse port function attributes\0", &[0; 3], // padding
            &[8, 0, 2, 0], // NLMSGERR_ATTR_OFFS
            &[64, 0, 0, 0],
        ]
        .concat();
        let expected = Outcome {
            errno: 22,
            text: Some("leftover: Fail to parse port function attributes".to_owned()),
            offset: Some(64),
            missing: None,
        };
        let Ok(Payload::Outcome(outcome)) = only(&octets) else { panic!("no outcome") };
        assert_eq!(outcome, expected);
        let message = Messages::new(&octets).next().unwrap().unwrap();
        assert_eq!((message.sequence, message.interrupted), (13, false));

        // The same with the request in it, as a kernel answers that was not asked to leave it out.
        let mut whole = octets;
        whole.splice(36..36, [0xaa; 60]);
        whole[0] += 60;
        whole[7] = 2; // NLM_F_ACK_TLVS
        let Ok(Payload::Outcome(outcome)) = only(&whole) else { panic!("no outcome") };
        assert_eq!(outcome, expected);
        // The request's length is what the kernel says it is: one that lies leads nowhere.
        whole[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(only(&whole).is_err());
    }

    #[test]
    fn dumps_end_with_an_outcome() {
        #[rustfmt::skip]
        let octets = [
            &[20, 0, 0, 0][..], // length
            &[3, 0], // NLMSG_DONE
            &[0x12, 0], // NLM_F_MULTI | NLM_F_DUMP_INTR
            &[5, 0, 0, 0], // sequence number
            &[0x80, 0, 0, 0], // port
            &[0, 0, 0, 0], // no error
        ]
        .concat();
        let message = Messages::new(&octets).next().unwrap().unwrap();
        assert!(message.interrupted);
        assert!(matches!(message.payload, Payload::Done(outcome) if outcome == Outcome::default()));
        let mut failed = octets.clone();
        failed[16..].copy_from_slice(&(-11i32).to_ne_bytes());
        assert!(matches!(only(&failed), Ok(Payload::Done(Outcome { errno: 11, .. }))));
        assert!(only(&octets[..18]).is_err(), "cut");
        let cut = [&[18, 0, 0, 0][..], &octets[4..18]].concat();
        assert!(only(&cut).is_err(), "half of an error number");
        // What cannot be an error is none.
        failed[16..].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(matches!(only(&failed), Ok(Payload::Done(Outcome { errno: i32::MAX, .. }))));
    }

    #[test]
    fn lengths_that_lie_end_it() {
        for said in [0u32, 15, 17, u32::MAX] {
            let mut octets = overrun();
            octets[..4].copy_from_slice(&said.to_ne_bytes());
            let said = usize::try_from(said).unwrap();
            assert_eq!(only(&octets).unwrap_err(), Malformed::Length { what: "a message", said, there: 16 });
        }
        let generic = message(21, 0, 0, &[1, 1]);
        assert!(only(&generic).is_err(), "half of struct genlmsghdr");
        assert!(only(&message(ERROR, 0, 0, &[0; 19])).is_err(), "a part of struct nlmsgerr");
        assert!(matches!(only(&message(15, 0, 0, &[])), Ok(Payload::Noop)));
    }

    proptest! {
        /// Octets that are messages as far as their headers go.
        #[test]
        fn any_octets_are_read_to_an_end(
            parts in prop::collection::vec((0u16..24, any::<u16>(), prop::collection::vec(any::<u8>(), 0..60)), 0..6),
            cut in 0usize..8,
        ) {
            let mut octets: Vec<u8> = Vec::new();
            for (kind, flags, body) in &parts {
                octets.extend(message(*kind, *flags, 1, body));
                octets.resize(octets.len().next_multiple_of(4), 0);
            }
            octets.truncate(octets.len().saturating_sub(cut));
            let mut seen = 0;
            for message in Messages::new(&octets) {
                seen += 1;
                if let Ok(Message { payload: Payload::Generic { attributes, .. }, .. }) = message {
                    prop_assert!(attributes.count() <= octets.len());
                }
            }
            prop_assert!(seen <= parts.len());
        }

        #[test]
        fn noise_is_read_to_an_end(octets: Vec<u8>) {
            prop_assert!(Messages::new(&octets).count() <= 1 + octets.len() / HEADER);
        }
    }
}
