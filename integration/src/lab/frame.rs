//! Ethernet frames as guests send them, good and bad, octet by octet. Only what the tests send: no fragments, no options
//! but those of neighbour discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// Ethernet types.
pub const ARP: u16 = 0x0806;
/// IPv4.
pub const IPV4: u16 = 0x0800;
/// Reverse ARP.
pub const RARP: u16 = 0x8035;

const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Reads `22:52:26:00:00:01`.
///
/// # Panics
/// When it is not six octets: it is written in a test.
#[must_use]
pub fn mac(text: &str) -> Mac {
    let octets: Vec<u8> = text.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets.try_into().unwrap_or_else(|_| panic!("{text} is no Ethernet address"))
}

/// A frame, filled up to the shortest one there is.
#[must_use]
pub fn ethernet(source: Mac, destination: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&destination[..], &source, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The same frame with a VLAN tag.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &VLAN.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// A frame without its VLAN tag, as a [`PacketSocket`](super::PacketSocket) hears it.
#[must_use]
pub fn untagged(frame: &[u8]) -> Vec<u8> {
    if kind(frame) == VLAN { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

/// The Ethernet type of a frame.
#[must_use]
pub fn kind(frame: &[u8]) -> u16 {
    frame.get(12..14).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]))
}

/// An ARP request or reply, broadcast, in which `who` says that `sender` and `ip` belong together.
#[must_use]
pub fn arp(who: Mac, operation: u16, sender: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    let payload = [&head[..], &operation.to_be_bytes(), &sender, &ip.octets(), &[0; 6], &target.octets()].concat();
    ethernet(who, BROADCAST, ARP, &payload)
}

/// A UDP datagram, of IPv4 or IPv6 as its addresses are.
///
/// # Panics
/// When one address is of IPv4 and the other of IPv6.
#[must_use]
pub fn udp(macs: (Mac, Mac), source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
    let datagram = [&ports[..], &length.to_be_bytes(), &[0, 0], payload].concat();
    match (source.0, destination.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ipv4(macs, from, to, UDP, &checked(datagram, 6, &pseudo4(from, to, length)))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ipv6(macs, from, to, UDP, &checked(datagram, 6, &pseudo6(from, to, length, UDP)))
        }
        (from, to) => panic!("from {from} to {to}"),
    }
}

/// An ICMPv6 message: type, code 0, and what follows the checksum. Its hop limit is 255.
#[must_use]
pub fn icmpv6(macs: (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0][..], body].concat();
    let length = message.len() as u16;
    ipv6(macs, from, to, ICMPV6, &checked(message, 2, &pseudo6(from, to, length, ICMPV6)))
}

/// A neighbour advertisement: `target` has the Ethernet address `owner`.
#[must_use]
pub fn advertisement(macs: (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, owner: Mac) -> Vec<u8> {
    // Solicited and override; option 2 is the target's link-layer address.
    let body = [&[0x60, 0, 0, 0][..], &target.octets(), &[2, 1], &owner].concat();
    icmpv6(macs, from, to, 136, &body)
}

/// A router advertisement without options.
#[must_use]
pub fn router_advertisement(macs: (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    icmpv6(macs, from, to, 134, &[64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// The first fragment of an IP packet, in one piece with all that it has: as if more came.
///
/// # Panics
/// When the frame is no IP packet, or what it carries is no multiple of eight octets.
#[must_use]
pub fn first_fragment(frame: &[u8]) -> Vec<u8> {
    let (ethernet, packet) = frame.split_at(14);
    let (head, payload) = packet.split_at(if kind(frame) == IPV4 { 20 } else { 40 });
    assert_eq!(payload.len() % 8, 0, "a fragment that is not the last");
    let mut head = head.to_vec();
    match kind(frame) {
        IPV4 => {
            // "More fragments", and the sum anew.
            head[6] |= 0x20;
            head[10..12].fill(0);
            head = checked(head, 10, &[]);
        }
        IPV6 => {
            let length = (8 + payload.len()) as u16;
            let protocol = std::mem::replace(&mut head[6], 44);
            head[4..6].copy_from_slice(&length.to_be_bytes());
            head.extend([protocol, 0, 0, 1, 0, 0, 0, 7]);
        }
        other => panic!("{other:#06x} has no fragments"),
    }
    [ethernet, &head, payload].concat()
}

fn ipv4((source, destination): (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let head = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, protocol, 0, 0], &from.octets(), &to.octets()];
    let head = checked(head.concat(), 10, &[]);
    ethernet(source, destination, IPV4, &[head, payload.to_vec()].concat())
}

fn ipv6((source, destination): (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 255], &from.octets(), &to.octets()].concat();
    ethernet(source, destination, IPV6, &[&head, payload].concat())
}

fn pseudo4(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Vec<u8> {
    [&from.octets()[..], &to.octets(), &[0, UDP], &length.to_be_bytes()].concat()
}

fn pseudo6(from: Ipv6Addr, to: Ipv6Addr, length: u16, next: u8) -> Vec<u8> {
    [&from.octets()[..], &to.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, next]].concat()
}

/// Puts the checksum of the Internet (RFC 1071) over `before` and `octets` into `octets` at `place`.
fn checked(mut octets: Vec<u8>, place: usize, before: &[u8]) -> Vec<u8> {
    let words = |octets: &[u8]| {
        let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        octets.chunks(2).map(word).sum::<u32>()
    };
    let mut sum = words(before) + words(&octets);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    octets[place..place + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_internet() {
        // The header of the example in RFC 1071's successor texts: 45 00 00 73 … has the checksum b861.
        let head = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checked(head.to_vec(), 10, &[])[10..12], [0xb8, 0x61]);
    }

    #[test]
    fn a_tag_stands_before_the_type() {
        let plain = ethernet([2; 6], BROADCAST, ARP, &[]);
        assert_eq!((plain.len(), kind(&plain)), (60, ARP));
        let tagged = tagged(&plain, 100);
        assert_eq!(tagged[12..18], [0x81, 0, 0, 100, 8, 6]);
        assert_eq!((untagged(&tagged), untagged(&plain)), (plain.clone(), plain));
    }
}
