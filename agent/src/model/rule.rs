//! Stateful rules: what may pass a VIF. What they become in a switch is `plan::pipeline`'s business.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// One rule: packets of new connections that may pass. Those of connections that were let pass do so in both directions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rule {
    /// Towards the guest or from it.
    pub direction: Direction,
    /// The kind of packet.
    pub ethertype: Ethertype,
    /// Any when absent.
    pub protocol: Option<Protocol>,
    /// Of TCP, UDP and SCTP the lowest destination port, of ICMP the type; any when absent.
    pub port_min: Option<u16>,
    /// Of TCP, UDP and SCTP the highest destination port, `port_min` when absent; of ICMP the code, any when absent.
    pub port_max: Option<u16>,
    /// Addresses of the other end; any when absent.
    pub remote_ip_prefix: Option<IpNet>,
    /// The group that the address of the other end is in.
    pub remote_group: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// Where a packet goes, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// The kinds of packet that rules know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Ethertype {
    /// IPv4.
    #[default]
    IPv4,
    /// IPv6.
    IPv6,
}

/// An IP protocol, by IANA's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP. In a rule for IPv6 it stands for ICMPv6, as with neutron.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// ICMPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);

    /// Those that have names here.
    pub const NAMES: [(&'static str, Protocol); 5] = [
        ("tcp", Protocol::TCP),
        ("udp", Protocol::UDP),
        ("sctp", Protocol::SCTP),
        ("icmp", Protocol::ICMP),
        ("icmpv6", Protocol::ICMPV6),
    ];

    /// Whether it has ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
    }

    /// Whether it has types and codes.
    #[must_use]
    pub fn has_types(self) -> bool {
        matches!(self, Protocol::ICMP | Protocol::ICMPV6)
    }
}

/// Text that names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255")]
pub struct InvalidProtocol(pub String);

impl FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
        let numbered = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok().map(Protocol));
        named.or_else(|| numbered().flatten()).ok_or_else(|| InvalidProtocol(text.to_owned()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl Serialize for Protocol {
    /// Its name, or its number.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}
