//! What tells a network's switches where a guest is now: the frame that hypervisors send after a migration.

use crate::model::MacAddr;

use super::pen::{IPV4, RARP, VLAN};

/// Shortest Ethernet frame, without its checksum.
const SHORTEST: usize = 60;

/// A reverse ARP request from a guest for itself (RFC 903), broadcast, tagged with the network's VLAN if it has one; of
/// 60 octets, 64 with a tag, without checksum.
#[must_use]
pub fn announcement(guest: MacAddr, vlan: Option<u16>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(SHORTEST + 4);
    frame.extend([0xff; 6]);
    frame.extend(guest.0);
    if let Some(vlan) = vlan {
        frame.extend(VLAN.to_be_bytes());
        frame.extend((vlan & 0xfff).to_be_bytes());
    }
    frame.extend(RARP.to_be_bytes());
    // Ethernet, IPv4, six octets and four, "request reverse".
    frame.extend([0, 1]);
    frame.extend(IPV4.to_be_bytes());
    frame.extend([6, 4, 0, 3]);
    for _ in ["sender", "target"] {
        frame.extend(guest.0);
        frame.extend([0; 4]);
    }
    frame.resize(SHORTEST + if vlan.is_some() { 4 } else { 0 }, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    #[test]
    fn octets() {
        let frame = announcement(GUEST, None);
        assert_eq!(frame[..6], [0xff; 6], "to everybody");
        assert_eq!(frame[6..12], GUEST.0, "from the guest");
        assert_eq!(frame[12..14], [0x80, 0x35], "RARP");
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 3], "Ethernet, IPv4, 6, 4, request reverse");
        assert_eq!(frame[22..28], GUEST.0, "sender");
        assert_eq!(frame[28..32], [0; 4], "without an IP address");
        assert_eq!(frame[32..38], GUEST.0, "target");
        assert_eq!(frame[38..], [0; 22], "without an IP address, and filled up");
    }

    #[test]
    fn a_tag_comes_before_the_type() {
        let frame = announcement(GUEST, Some(100));
        assert_eq!(frame.len(), 64);
        assert_eq!(frame[12..18], [0x81, 0, 0, 100, 0x80, 0x35]);
        assert_eq!(frame[18..], announcement(GUEST, None)[14..]);
    }
}
