//! What a field needs beside it to mean anything: a TCP port means something only of TCP packets. A switch refuses a
//! match without it, and `ovs-ofctl` silently leaves the field out, which makes the match a wider one.

use super::Match;
use crate::Field;
use crate::field::table::Needs;

/// A field in a match that does not say what the field needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} needs a match on {needs}")]
pub struct MissingPrerequisite {
    /// The field.
    pub field: Field,
    /// What it needs.
    pub needs: &'static str,
}

/// What a match says of the kind of packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    /// The Ethernet type, also of a packet without an Ethernet header.
    pub eth_type: Option<u16>,
    /// The IP protocol.
    pub ip_proto: Option<u8>,
    /// Whether packets have an Ethernet header.
    pub ethernet: bool,
    vlan: bool,
    later_fragment: bool,
    icmp_type: Option<u8>,
    ct_valid: bool,
    ct_proto: bool,
}

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const RARP: u16 = 0x8035;
const NSH: u16 = 0x894f;
pub(crate) const MPLS: u16 = 0x8847;
pub(crate) const MPLS_MULTICAST: u16 = 0x8848;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
const SOLICIT: u8 = 135;
const ADVERT: u8 = 136;

impl Kind {
    /// Of fields, given value and mask of any.
    pub(crate) fn of(get: impl Fn(Field) -> Option<(u128, u128)>) -> Self {
        let exact = |field: Field| {
            get(field).filter(|(_, mask)| *mask == crate::field::low_bits(field.octets() * 8)).map(|(value, _)| value)
        };
        let packet_type = exact(Field::PACKET_TYPE);
        // Namespace 1 is that of Ethernet types.
        let bare = packet_type.filter(|kind| kind >> 16 == 1).map(|kind| kind as u16);
        let (ct_value, ct_mask) = get(Field::CT_STATE).unwrap_or_default();
        let (frag, _) = get(Field::IP_FRAG).unwrap_or_default();
        Kind {
            eth_type: bare.or_else(|| exact(Field::ETH_TYPE).map(|kind| kind as u16)),
            ip_proto: exact(Field::IP_PROTO).map(|proto| proto as u8),
            ethernet: packet_type.is_none_or(|kind| kind == 0),
            vlan: get(Field::VLAN_VID).is_some_and(|(value, _)| value & 0x1000 != 0),
            later_fragment: frag & 2 != 0,
            icmp_type: exact(Field::ICMPV6_TYPE).map(|kind| kind as u8),
            // New, established, related, reply, translated; or tracked and not invalid.
            ct_valid: ct_value & 0b1100_1111 != 0
                || ct_value & 0x20 != 0 && ct_mask & 0x10 != 0 && ct_value & 0x10 == 0,
            ct_proto: exact(Field::CT_NW_PROTO).is_some_and(|proto| proto != 0),
        }
    }

    fn is_ip(self, proto: u8) -> bool {
        matches!(self.eth_type, Some(IPV4 | IPV6)) && self.ip_proto == Some(proto)
    }

    fn is_nd(self, kinds: &[u8]) -> bool {
        self.eth_type == Some(IPV6)
            && self.ip_proto == Some(ICMPV6)
            && self.icmp_type.is_some_and(|kind| kinds.contains(&kind))
    }

    /// What is missing for fields with this need.
    pub(crate) fn lacks(self, needs: Needs) -> Option<&'static str> {
        let (there, name) = match needs {
            Needs::Nothing => return None,
            Needs::Ethernet => (self.ethernet, "Ethernet packets"),
            Needs::Vlan => (self.vlan, "a VLAN tag"),
            Needs::Mpls => (matches!(self.eth_type, Some(MPLS | MPLS_MULTICAST)), "MPLS"),
            Needs::Ipv4 => (self.eth_type == Some(IPV4), "IPv4"),
            Needs::Ipv6 => (self.eth_type == Some(IPV6), "IPv6"),
            Needs::Ip => (matches!(self.eth_type, Some(IPV4 | IPV6)), "IPv4 or IPv6"),
            Needs::Arp => (matches!(self.eth_type, Some(ARP | RARP)), "ARP"),
            Needs::Tcp => (self.is_ip(TCP) && !self.later_fragment, "TCP"),
            Needs::Udp => (self.is_ip(UDP) && !self.later_fragment, "UDP"),
            Needs::Sctp => (self.is_ip(SCTP) && !self.later_fragment, "SCTP"),
            Needs::Icmpv4 => (self.eth_type == Some(IPV4) && self.ip_proto == Some(ICMP), "ICMP"),
            Needs::Icmpv6 => (self.eth_type == Some(IPV6) && self.ip_proto == Some(ICMPV6), "ICMPv6"),
            Needs::Nd => (self.is_nd(&[SOLICIT, ADVERT]), "neighbour discovery"),
            Needs::NdSolicit => (self.is_nd(&[SOLICIT]), "neighbour solicitations"),
            Needs::NdAdvert => (self.is_nd(&[ADVERT]), "neighbour advertisements"),
            Needs::Nsh => (self.eth_type == Some(NSH), "NSH"),
            Needs::Ct => (self.ct_valid, "a valid ct_state"),
            Needs::CtPorts => (self.ct_valid && self.ct_proto, "a valid ct_state and ct_nw_proto"),
        };
        (!there).then_some(name)
    }
}

impl Match {
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(|field| self.get(field))
    }

    /// Whether the VLAN tag that it matches, if any, is there.
    pub(crate) fn has_vlan(&self) -> bool {
        let tci = self.get(Field::VLAN_VID).or_else(|| self.get(Field::VLAN_TCI));
        tci.is_some_and(|(value, _)| value & 0x1000 != 0)
    }

    /// Whether every field has beside it what it needs.
    ///
    /// # Errors
    /// The first that has not.
    pub fn check(&self) -> Result<(), MissingPrerequisite> {
        let kind = self.kind();
        for field in self.entries().filter_map(|entry| entry.field) {
            if let Some(needs) = kind.lacks(field.row().needs) {
                return Err(MissingPrerequisite { field, needs });
            }
        }
        Ok(())
    }
}
