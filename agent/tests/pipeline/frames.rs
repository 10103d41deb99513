//! Frames with everything in them that connection tracking looks at: lengths and checksums too.

use std::net::IpAddr;

/// TCP's flags.
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) mac: [u8; 6],
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
}

impl End {
    /// VIF `number` as the scene has it, in IPv4 or IPv6.
    pub(crate) fn of(number: u8, port: u16, v6: bool) -> Self {
        let ip = if v6 { format!("fd00::{number:x}") } else { format!("10.0.0.{number}") };
        End { mac: [0x52, 0x54, 0, 0, 0, number], ip: ip.parse().unwrap(), port }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// The internet checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let octets: Vec<u8> = parts.concat();
    let words = octets.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An IP packet in a frame; `check` is where the payload's checksum goes.
fn packet(from: End, to: End, protocol: u8, mut payload: Vec<u8>, check: usize) -> Vec<u8> {
    let (source, destination) = (octets(from.ip), octets(to.ip));
    let length = (payload.len() as u16).to_be_bytes();
    let v4 = from.ip.is_ipv4();
    let pseudo = if v4 && protocol == 1 {
        Vec::new()
    } else {
        [&source[..], &destination, &[0, 0], &length, &[0, protocol]].concat()
    };
    let sum = checksum(&[&pseudo, &payload]);
    payload[check..check + 2].copy_from_slice(&sum);
    let mut frame = [to.mac, from.mac].concat();
    if v4 {
        let total = (20 + payload.len() as u16).to_be_bytes();
        let mut head = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
        head.extend([source, destination].concat());
        let sum = checksum(&[&head]);
        head[10..12].copy_from_slice(&sum);
        frame.extend([0x08, 0x00]);
        frame.extend(head);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
        frame.extend([source, destination].concat());
    }
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(crate) fn tcp(from: End, to: End, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut segment = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet(from, to, 6, segment, 16)
}

pub(crate) fn udp(from: End, to: End) -> Vec<u8> {
    let mut datagram = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    datagram.extend([0, 12, 0, 0]);
    datagram.extend(*b"vifd");
    packet(from, to, 17, datagram, 6)
}

/// An echo request, or its reply.
pub(crate) fn echo(from: End, to: End, reply: bool) -> Vec<u8> {
    let (protocol, kind) = match (from.ip.is_ipv4(), reply) {
        (true, false) => (1, 8),
        (true, true) => (1, 0),
        (false, false) => (58, 128),
        (false, true) => (58, 129),
    };
    packet(from, to, protocol, vec![kind, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0], 2)
}

/// A gratuitous ARP request, which goes to everybody. `mark` is in the octets behind it, which nobody looks at.
pub(crate) fn arp(of: End, mark: u32) -> Vec<u8> {
    let mut frame = [[0xff; 6], of.mac].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(of.mac);
    frame.extend(octets(of.ip));
    frame.extend([0; 6]);
    frame.extend(octets(of.ip));
    frame.extend(mark.to_be_bytes());
    frame.resize(60, 0);
    frame
}
