//! What is not a guest's own to send is dropped, and counted where docs/flows.md says. What it was given beside its own
//! passes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use vifd_integration::lab::frame::{
    BROADCAST, Mac, advertisement, arp, first_fragment, mac, router_advertisement, tagged, udp, untagged,
};
use vifd_integration::lab::{Guest, PacketSocket, native_guest};

use crate::scene::{Host, places};

const ANOTHERS_MAC: Mac = [0x22, 0x52, 0x26, 0, 0, 99];
const ANOTHERS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
const ANOTHERS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x99);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Who sends, and to whom.
struct Ends {
    own: Mac,
    ip: Ipv4Addr,
    ip6: Ipv6Addr,
    to: Mac,
    to_ip: Ipv4Addr,
    to_ip6: Ipv6Addr,
}

impl Ends {
    fn of(from: &Guest, to: &Guest) -> Result<Ends> {
        let six = |guest: &Guest| guest.ipv6().unwrap_or_default().parse();
        Ok(Ends {
            own: mac(&from.record.mac()),
            ip: from.record.ip().parse()?,
            ip6: six(from)?,
            to: mac(&to.record.mac()),
            to_ip: to.record.ip().parse()?,
            to_ip6: six(to)?,
        })
    }

    fn own_arp(&self) -> Vec<u8> {
        arp(self.own, 1, self.own, self.ip, self.to_ip)
    }

    /// Its own, and like none of the others.
    fn last(&self) -> Vec<u8> {
        arp(self.own, 1, self.own, self.ip, Ipv4Addr::new(10, 0, 0, 254))
    }

    fn datagram(&self, source: impl Into<IpAddr>) -> Vec<u8> {
        let source = source.into();
        let to: IpAddr = if source.is_ipv4() { self.to_ip.into() } else { self.to_ip6.into() };
        udp((self.own, self.to), (source, 4000), (to, 4000), b"whose?")
    }

    /// What is not its own, and where it is counted.
    fn spoofs(&self) -> Vec<(Vec<u8>, (u8, u16))> {
        let server: IpAddr = self.ip.into();
        let macs = (self.own, self.to);
        let whole = vec![
            (tagged(&self.own_arp(), 100), places::VLAN_TAG),
            (arp(ANOTHERS_MAC, 1, ANOTHERS_MAC, self.ip, self.to_ip), places::MAC_SPOOF),
            (arp(self.own, 2, self.own, ANOTHERS, self.to_ip), places::ARP_SPOOF),
            (arp(self.own, 1, ANOTHERS_MAC, self.ip, self.to_ip), places::ARP_SPOOF),
            (advertisement(macs, self.ip6, self.to_ip6, ANOTHERS6, self.own), places::ND_SPOOF),
            (advertisement(macs, self.ip6, self.to_ip6, self.ip6, ANOTHERS_MAC), places::ND_SPOOF),
            (self.datagram(ANOTHERS), places::IP_SPOOF),
            (self.datagram(ANOTHERS6), places::IP_SPOOF),
            (
                udp((self.own, BROADCAST), (server, 67), (Ipv4Addr::BROADCAST.into(), 68), &[2; 240]),
                places::DHCP_SERVER,
            ),
            (udp(macs, (self.ip6.into(), 547), (self.to_ip6.into(), 546), &[2; 8]), places::DHCP_SERVER),
            (
                router_advertisement((self.own, [0x33, 0x33, 0, 0, 0, 1]), self.ip6, ALL_NODES),
                places::ROUTER_ADVERTISEMENT,
            ),
        ];
        // A fragment is no way around.
        let upper = [places::ND_SPOOF, places::DHCP_SERVER, places::ROUTER_ADVERTISEMENT];
        let carries = |(_, place): &&(Vec<u8>, (u8, u16))| upper.contains(place);
        let fragments: Vec<_> =
            whole.iter().filter(carries).map(|(frame, place)| (first_fragment(frame), *place)).collect();
        [whole, fragments].concat()
    }
}

/// Sends frames, then one that passes, and gives which of them were heard. Open vSwitch takes them in batches, in which
/// they may change places; so the end is a pause after the one that passes.
fn passed(sender: &PacketSocket, receiver: &PacketSocket, frames: &[Vec<u8>], last: &[u8]) -> Result<BTreeSet<usize>> {
    receiver.heard()?;
    for frame in frames {
        sender.send(frame)?;
    }
    sender.send(last)?;
    let mut heard = Vec::new();
    receiver.hear("what passes", |frame| {
        heard.push(frame.to_vec());
        frame == last
    })?;
    std::thread::sleep(Duration::from_millis(200));
    heard.extend(receiver.heard()?);
    let which = |frame: &Vec<u8>| frames.iter().position(|sent| untagged(sent) == *frame);
    Ok(heard.iter().filter_map(which).collect())
}

#[test]
fn are_dropped_and_counted() -> Result<()> {
    let mut host = Host::start()?;
    let [guest, witness] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let ends = Ends::of(&guest, &witness)?;
    let (sender, receiver) = (guest.frames()?, witness.frames()?);
    let (frames, counters): (Vec<_>, Vec<_>) = ends.spoofs().into_iter().unzip();
    let mut expected = BTreeMap::new();
    for place in counters {
        let before = host.counted(&guest, place)?;
        *expected.entry(place).or_insert(before) += 1;
    }
    assert_eq!(passed(&sender, &receiver, &frames, &ends.last())?, [].into());
    for (place, packets) in expected {
        host.until_counted(&guest, place, packets)?;
    }
    assert!(guest.reaches(&witness)?, "its own passes");
    Ok(())
}

#[test]
fn pass_where_the_record_allows_them() -> Result<()> {
    let mut host = Host::start()?;
    let pairs = json!({"allowed_address_pairs": [
        {"ip": format!("{ANOTHERS}/32")},
        {"mac": "22:52:26:00:00:63", "ip": format!("{ANOTHERS6}")},
    ]});
    let open = json!({"port_security": false});
    let records =
        [native_guest(11, 1).beside("policy", open), native_guest(12, 1), native_guest(13, 1).beside("policy", pairs)];
    let [trusted, witness, guest] = host.plug(records)?;
    let receiver = witness.frames()?;

    // Without port security everything but a tag.
    let ends = Ends::of(&trusted, &witness)?;
    let frames: Vec<_> = ends.spoofs().into_iter().map(|(frame, _)| frame).collect();
    let all: BTreeSet<usize> = (1..frames.len()).collect();
    assert_eq!(passed(&trusted.frames()?, &receiver, &frames, &ends.last())?, all);
    host.until_counted(&trusted, places::VLAN_TAG, 1)?;

    // Of address pairs what they say, each Ethernet address with its own prefixes.
    let ends = Ends::of(&guest, &witness)?;
    let other = Ends { own: ANOTHERS_MAC, ..Ends::of(&guest, &witness)? };
    let frames = [
        arp(ends.own, 1, ends.own, ANOTHERS, ends.to_ip),
        ends.datagram(ANOTHERS),
        other.datagram(ANOTHERS6),
        advertisement((ANOTHERS_MAC, ends.to), ANOTHERS6, ends.to_ip6, ANOTHERS6, ANOTHERS_MAC),
        // Not these:
        ends.datagram(ANOTHERS6),
        other.datagram(ANOTHERS),
        other.datagram(other.ip),
    ];
    assert_eq!(passed(&guest.frames()?, &receiver, &frames, &ends.last())?, [0, 1, 2, 3].into());
    host.until_counted(&guest, places::IP_SPOOF, 3)?;
    Ok(())
}
