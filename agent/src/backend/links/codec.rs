//! rtnetlink messages off the wire, of those about links no more than what is read here. The kernel tells some forty
//! attributes of a link, the settings of IPv4 and IPv6 among them, most of which nothing here reads; and a list of
//! thousands of links is parsed to its end before anybody can look at the first.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use ipnet::IpNet;
use rtnetlink::packet_core::{
    DecodeError, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::proto::{NetlinkCodec, NetlinkMessageCodec};

use super::table;
use crate::model::Link;

/// A message that says nothing (`linux/netlink.h`).
const NLMSG_NOOP: u16 = 1;
/// Types of messages about links (`linux/rtnetlink.h`).
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// `struct nlmsghdr` and `struct ifinfomsg`, octets each.
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
/// `struct nlattr`: length and type.
const ATTRIBUTE: usize = 4;
/// The attributes that are read here (`linux/if_link.h`): `IFLA_ADDRESS`, `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_LINK`,
/// `IFLA_MASTER`, `IFLA_LINKINFO`, `IFLA_IFALIAS`, `IFLA_GROUP` and `IFLA_LINK_NETNSID`.
const READ: [u16; 9] = [1, 3, 4, 5, 10, 18, 20, 27, 37];
/// Flags beside the type of an attribute: `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
const FLAGS: u16 = 0xc000;

/// What a connection about links asks and hears.
#[derive(Debug)]
pub(super) enum Talk {
    /// `RTM_GETLINK`, ours.
    Get(RouteNetlinkMessage),
    /// `RTM_NEWLINK`: what a link is.
    Is(Arc<Link>),
    /// `RTM_DELLINK`: the index of one that is no more.
    Gone(u32),
    /// `RTM_NEWADDR` or `RTM_DELADDR`, of an address that the view has.
    Address {
        /// Of the link.
        index: u32,
        address: IpNet,
        /// Whether it is there or is no more.
        there: bool,
    },
    /// About nothing that is followed here.
    Other,
}

impl Talk {
    /// The question for what `message` names.
    pub(super) fn get(message: LinkMessage) -> NetlinkMessage<Talk> {
        Talk::ask(RouteNetlinkMessage::GetLink(message))
    }

    /// The question for the addresses of all links.
    pub(super) fn addresses() -> NetlinkMessage<Talk> {
        Talk::ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
    }

    fn ask(question: RouteNetlinkMessage) -> NetlinkMessage<Talk> {
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(Talk::Get(question)))
    }

    fn address(message: &AddressMessage, there: bool) -> Talk {
        let index = message.header.index;
        table::read_address(message).map_or(Talk::Other, |address| Talk::Address { index, address, there })
    }
}

impl NetlinkDeserializable for Talk {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(match RouteNetlinkMessage::deserialize(header, payload)? {
            RouteNetlinkMessage::NewLink(message) if table::speaks_of_a_link(&message) => {
                table::read(&message).map_or(Talk::Other, |link| Talk::Is(Arc::new(link)))
            }
            RouteNetlinkMessage::DelLink(message) if table::speaks_of_a_link(&message) => {
                Talk::Gone(message.header.index)
            }
            RouteNetlinkMessage::NewAddress(message) => Talk::address(&message, true),
            RouteNetlinkMessage::DelAddress(message) => Talk::address(&message, false),
            _ => Talk::Other,
        })
    }
}

impl NetlinkSerializable for Talk {
    fn message_type(&self) -> u16 {
        self.question().map_or(NLMSG_NOOP, NetlinkSerializable::message_type)
    }
    fn buffer_len(&self) -> usize {
        self.question().map_or(0, NetlinkSerializable::buffer_len)
    }
    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(question) = self.question() {
            question.serialize(buffer);
        }
    }
}

impl Talk {
    /// What is sent: nothing else ever is.
    fn question(&self) -> Option<&RouteNetlinkMessage> {
        match self {
            Talk::Get(question) => Some(question),
            Talk::Is(_) | Talk::Gone(_) | Talk::Address { .. } | Talk::Other => None,
        }
    }
}

/// The codec of a connection that is about links.
pub(super) struct LinkCodec;

impl NetlinkMessageCodec for LinkCodec {
    fn decode<T: NetlinkDeserializable + Debug>(datagram: &mut BytesMut) -> io::Result<Option<NetlinkMessage<T>>> {
        let length = NetlinkBuffer::new_checked(datagram.as_ref()).map(|message| message.length() as usize);
        let Ok(length) = length else { return NetlinkCodec::decode(datagram) };
        let message = datagram.split_to(length.min(datagram.len()));
        let mut message = BytesMut::from(shortened(&message).as_slice());
        match NetlinkCodec::decode(&mut message)? {
            Some(message) => Ok(Some(message)),
            // It could not be parsed, which is logged; others may be behind it.
            None if datagram.is_empty() => Ok(None),
            None => Self::decode(datagram),
        }
    }

    fn encode<T: NetlinkSerializable + Debug>(message: NetlinkMessage<T>, buffer: &mut BytesMut) -> io::Result<()> {
        NetlinkCodec::encode(message, buffer)
    }
}

/// The message without attributes that nothing reads; as it is when it is about something else or malformed.
pub(super) fn shortened(message: &[u8]) -> Vec<u8> {
    let about_a_link = matches!(field(message, 4), Some(RTM_NEWLINK | RTM_DELLINK));
    let Some((head, mut rest)) = message.split_at_checked(HEADER + IFINFOMSG).filter(|_| about_a_link) else {
        return message.to_vec();
    };
    let mut short = head.to_vec();
    while !rest.is_empty() {
        let (Some(length), Some(kind)) = (field(rest, 0).map(usize::from), field(rest, 2)) else {
            return message.to_vec();
        };
        if length < ATTRIBUTE || length > rest.len() {
            return message.to_vec();
        }
        // Attributes begin at multiples of four.
        let (attribute, behind) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        if READ.contains(&(kind & !FLAGS)) {
            short.extend_from_slice(attribute);
        }
        rest = behind;
    }
    let Ok(length) = u32::try_from(short.len()) else { return message.to_vec() };
    short[..4].copy_from_slice(&length.to_ne_bytes());
    short
}

/// Two octets in the order of the host.
fn field(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask};

    use super::*;

    fn message() -> (Vec<u8>, LinkMessage) {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = vec![
            LinkAttribute::IfName("tap0".into()),
            LinkAttribute::TxQueueLen(1000),
            LinkAttribute::Qdisc("noqueue".into()),
            LinkAttribute::Mtu(1450),
            LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
            LinkAttribute::IfAlias("vifd/1 odd length".into()),
        ];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link.clone()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        (bytes, link)
    }

    #[test]
    fn what_is_read_of_a_link_is_what_is_kept_of_it() {
        let (bytes, link) = message();
        // Two messages in one datagram.
        let mut datagram = BytesMut::from([bytes.clone(), bytes].concat().as_slice());
        for _ in 0..2 {
            let decoded = LinkCodec::decode::<RouteNetlinkMessage>(&mut datagram).unwrap().unwrap();
            let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(short)) = decoded.payload else {
                panic!("{decoded:?}")
            };
            assert_eq!(table::read(&short), table::read(&link));
            assert_eq!(short.attributes.len(), 3, "{short:?}");
        }
        assert!(LinkCodec::decode::<RouteNetlinkMessage>(&mut datagram).unwrap().is_none());
    }

    #[test]
    fn what_waits_in_a_queue_is_the_link_alone() {
        let (bytes, link) = message();
        let hear = |bytes: &[u8]| {
            let message = LinkCodec::decode::<Talk>(&mut BytesMut::from(bytes)).unwrap().unwrap();
            let NetlinkPayload::InnerMessage(talk) = message.payload else { panic!("{message:?}") };
            talk
        };
        assert!(matches!(hear(&bytes), Talk::Is(is) if Some(&*is) == table::read(&link).as_ref()));
        let mut gone = bytes.clone();
        gone[4] = 17; // RTM_DELLINK
        assert!(matches!(hear(&gone), Talk::Gone(7)));
        for told in [&bytes, &gone] {
            let mut of_a_bridge = told.clone();
            of_a_bridge[HEADER] = 7; // AF_BRIDGE
            assert!(matches!(hear(&of_a_bridge), Talk::Other));
        }
        // A question is the same on the wire as without us.
        let mut question = Talk::get(link.clone());
        let mut plain = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
        let wire = |message: &mut [u8], put: &dyn Fn(&mut [u8])| {
            put(message);
            message.to_vec()
        };
        question.finalize();
        plain.finalize();
        let ours = wire(&mut vec![0; question.buffer_len()], &|out| question.serialize(out));
        assert_eq!(ours, wire(&mut vec![0; plain.buffer_len()], &|out| plain.serialize(out)));
    }

    #[test]
    fn what_is_malformed_or_about_something_else_stays_as_it_is() {
        let (bytes, _) = message();
        let mut other = bytes.clone();
        other[4] = 24; // RTM_NEWROUTE
        assert_eq!(shortened(&other), other);
        let mut malformed = bytes;
        malformed[HEADER + IFINFOMSG] = 2; // an attribute shorter than its own header
        assert_eq!(shortened(&malformed), malformed);
        for end in 0..malformed.len() {
            shortened(&malformed[..end]);
        }
    }
}
