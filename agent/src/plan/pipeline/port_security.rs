//! Tables 10 to 12: a guest sends nothing but what is its own. Its Ethernet addresses, then what it says of addresses by
//! ARP and neighbour discovery, then its IP addresses; and it is neither router nor DHCP server.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use flows::{Field, MatchBuilder};
use ipnet::{IpNet, Ipv6Net};

use super::facts::PortFacts;
use super::pen::{ARP, IGMP, IPV4, IPV6, Narrow, Pen, RARP, any, family, from, mac};
use super::tables::{
    DHCP_SERVER, FOREIGN_ARP, FOREIGN_IP, FOREIGN_MAC, FOREIGN_ND, FROM_VIF, NO_IP, NO_NEIGHBOUR, OWN_IP, OWN_MAC,
    OWN_NEIGHBOUR, PORT_SECURITY, PORT_SECURITY_IP, PORT_SECURITY_NEIGHBOUR, PROBE, Place, QUERY, ROUTER_ADVERTISEMENT,
    UNADDRESSED, UNREADABLE_ND,
};
use crate::model::MacAddr;

/// ICMPv6 types (RFC 4861, 2710 and 3810).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 134;
const LISTENER_QUERY: u8 = 130;
const LISTENER_REPORTS: [u8; 2] = [131, 143];
/// Where IGMP asks all systems (RFC 3376, 4.1.12). Its types are nothing that Open vSwitch matches.
const ALL_SYSTEMS: u32 = 0xe000_0001;

/// The address that a host makes of its Ethernet address for its link (RFC 4291, appendix A). Others, such as those of
/// RFC 7217, take an address pair.
fn link_local(address: MacAddr) -> IpNet {
    let [a, b, c, d, e, f] = address.0;
    let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let address = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(host));
    Ipv6Net::from(address).into()
}

/// One flow set of a VIF with port security.
pub(super) fn vif(pen: &mut Pen, port: &PortFacts) {
    let id = port.at.id();
    let macs = port.macs();
    let mut allowed = port.allowed();
    allowed.extend(macs.iter().map(|mac| (*mac, link_local(*mac))));

    for address in &macs {
        pen.goto(OWN_MAC, from(id).exact(Field::ETH_SRC, mac(*address)), PORT_SECURITY_NEIGHBOUR);
    }
    pen.drop(FOREIGN_MAC, from(id));

    for address in &macs {
        rarp(pen, id, *address);
    }
    for (address, prefix) in &allowed {
        match prefix {
            IpNet::V4(_) => arp(pen, id, *address, *prefix),
            IpNet::V6(_) => advertisements(pen, id, *address, *prefix),
        }
    }
    solicitations(pen, id, &macs, &allowed);
    // Open vSwitch takes discovery with options it cannot read, or with one of them twice, for such without any. What the
    // guest may say is not there without what it may not: one flow set, all of it or nothing.
    for kind in [SOLICITATION, ADVERTISEMENT] {
        pen.drop(UNREADABLE_ND, discovery(id, kind).exact(Field::ND_TARGET, 0_u128));
    }
    pen.drop(FOREIGN_ARP, from(id).ethertype(ARP));
    pen.drop(FOREIGN_ARP, from(id).ethertype(RARP));
    for kind in [SOLICITATION, ADVERTISEMENT] {
        pen.drop(FOREIGN_ND, from(id).icmpv6(kind));
    }

    ip(pen, id, &allowed);
}

/// ARP of a guest: its own pair of addresses as the sender, in requests and replies; and a probe for its own address
/// (RFC 5227), which has no sender yet. A probe for another's address would make its owner give it up.
fn arp(pen: &mut Pen, id: u32, address: MacAddr, prefix: IpNet) {
    let own = from(id).ethertype(ARP).exact(Field::ARP_SHA, mac(address));
    pen.goto(OWN_NEIGHBOUR, own.clone().within(Field::ARP_SPA, prefix), FROM_VIF);
    let probe = own.exact(Field::ARP_OP, 1_u16).exact(Field::ARP_SPA, 0_u32).within(Field::ARP_TPA, prefix);
    pen.goto(PROBE, probe, FROM_VIF);
}

/// What hypervisors and guests send after a migration: reverse ARP requests for their own Ethernet address (RFC 903),
/// which say of no IP address whose it is.
fn rarp(pen: &mut Pen, id: u32, address: MacAddr) {
    let own = from(id).ethertype(RARP).exact(Field::ARP_OP, 3_u16).exact(Field::ARP_SHA, mac(address));
    pen.goto(OWN_NEIGHBOUR, own.exact(Field::ARP_SPA, 0_u32).exact(Field::ARP_THA, mac(address)), FROM_VIF);
}

/// Neighbour discovery that Open vSwitch reads: with another code it reads neither target nor options.
fn discovery(id: u32, kind: u8) -> MatchBuilder {
    from(id).icmpv6(kind).exact(Field::ICMPV6_CODE, 0_u8)
}

/// Advertisements of own addresses, with the own link-layer address or with none. The source is looked at afterwards.
fn advertisements(pen: &mut Pen, id: u32, address: MacAddr, prefix: IpNet) {
    let own = discovery(id, ADVERTISEMENT).within(Field::ND_TARGET, prefix);
    for option in [0, mac(address)] {
        pen.goto(OWN_NEIGHBOUR, own.clone().exact(Field::ND_TLL, option), PORT_SECURITY_IP);
    }
}

/// Solicitations for any address with the own link-layer address or with none, whose source is looked at afterwards; and
/// those without a source, which make sure that nobody has an own address (RFC 4862, 5.4.2).
fn solicitations(pen: &mut Pen, id: u32, macs: &BTreeSet<MacAddr>, allowed: &BTreeSet<(MacAddr, IpNet)>) {
    for option in macs.iter().map(|address| mac(*address)).chain([0]) {
        let own = discovery(id, SOLICITATION).exact(Field::ND_SLL, option);
        pen.goto(OWN_NEIGHBOUR, own, PORT_SECURITY_IP);
    }
    for (_, prefix) in allowed.iter().filter(|(_, prefix)| matches!(prefix, IpNet::V6(_))) {
        let probe = discovery(id, SOLICITATION).exact(Field::ND_SLL, 0_u64).exact(Field::IPV6_SRC, 0_u128);
        pen.goto(PROBE, probe.within(Field::ND_TARGET, *prefix), FROM_VIF);
    }
}

fn ip(pen: &mut Pen, id: u32, allowed: &BTreeSet<(MacAddr, IpNet)>) {
    pen.drop(ROUTER_ADVERTISEMENT, from(id).icmpv6(ROUTER));
    pen.drop(QUERY, from(id).icmpv6(LISTENER_QUERY));
    pen.drop(QUERY, from(id).ethertype(IPV4).proto(IGMP).exact(Field::IP_DST, ALL_SYSTEMS));
    // Clients look at the port that an answer is for, not at the one it is from.
    for (kind, client) in [(IPV4, 68), (IPV6, 546)] {
        pen.drop(DHCP_SERVER, from(id).ethertype(kind).udp(None, client));
    }

    // Without an address: a DHCP client's broadcast (RFC 2131, 4.1; DHCPv6 has the link's address), and reports of
    // membership (RFC 3376, 4.2.13; RFC 3590).
    let unset = from(id).ethertype(IPV4).exact(Field::IP_SRC, 0_u32);
    let broadcast = unset.clone().exact(Field::IP_DST, u32::MAX).udp(Some(68), 67);
    pen.goto(UNADDRESSED, broadcast, FROM_VIF);
    pen.goto(UNADDRESSED, unset.proto(IGMP).masked(Field::IP_DST, 0xe000_0000_u32, 0xf000_0000), FROM_VIF);
    for kind in LISTENER_REPORTS {
        pen.goto(UNADDRESSED, from(id).icmpv6(kind).exact(Field::IPV6_SRC, 0_u128), FROM_VIF);
    }

    for (address, prefix) in allowed {
        let source = if matches!(prefix, IpNet::V4(_)) { Field::IP_SRC } else { Field::IPV6_SRC };
        let own = from(id).ethertype(family(*prefix)).exact(Field::ETH_SRC, mac(*address));
        pen.goto(OWN_IP, own.within(source, *prefix), FROM_VIF);
    }
    for kind in [IPV4, IPV6] {
        pen.drop(FOREIGN_IP, from(id).ethertype(kind));
    }
    pen.drop(NO_IP, from(id));
}

pub(super) fn bridge(pen: &mut Pen) {
    pen.goto(NO_NEIGHBOUR, any(), PORT_SECURITY_IP);
    // Each guest has flows that count what is not its own; these are for packets that no guest's flows have classified.
    for table in [PORT_SECURITY, PORT_SECURITY_IP] {
        pen.drop(Place::miss(table), any());
    }
}
