//! Properties of the whole, on a switch: packets made at random, and what must hold of each. What a guest may send is said
//! here once more, in other words than the flows are.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::switch::{Fate, Switch};
use crate::traces::bridge;

/// The places of the scene that send: port, tag, and the number of the VIF there.
const SENDERS: [(u8, Option<u16>, u8); 9] = [
    (1, None, 1),
    (2, None, 2),
    (3, None, 3),
    (4, None, 4),
    (7, None, 7),
    (7, Some(30), 8),
    (9, None, 9),
    (12, None, 12),
    (13, None, 13),
];

/// Networks of the VIFs.
fn network(number: u8) -> u8 {
    match number {
        7 | 9 => 2,
        12 => 3,
        _ => 1,
    }
}

/// How a VIF or a network's uplink is told of where a packet leaves.
fn place(name: &str) -> u8 {
    match name.rsplit(',').next().unwrap() {
        "p7" if name.contains("vid=30") => 1,
        "p10" if name.contains("vid=100") => 1,
        "p10" => 2,
        "p11" => 3,
        port => network(port[1..].parse().unwrap()),
    }
}

#[derive(Clone, Debug)]
enum Said {
    Ip(Ipv4Addr),
    Ipv6(Ipv6Addr),
    Arp { sha: u8, spa: Ipv4Addr, op: u16 },
    Advertisement { source: Ipv6Addr, target: Ipv6Addr, tll: u8 },
    Solicitation { source: Ipv6Addr, sll: u8 },
}

#[derive(Clone, Debug)]
struct Packet {
    sender: (u8, Option<u16>, u8),
    tag: Option<u16>,
    source: u8,
    destination: u8,
    said: Said,
}

/// Numbers of VIFs; 14 is nobody's, 100 the address of a pair in IPv4.
const NUMBERS: [u8; 12] = [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 14, 100];

fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

fn v6(number: u8) -> Ipv6Addr {
    format!("fd00::{number:x}").parse().unwrap()
}

fn link_local(number: u8) -> Ipv6Addr {
    format!("fe80::5054:ff:fe00:{number:x}").parse().unwrap()
}

fn mac(number: u8) -> String {
    if number == 100 { "00:00:5e:00:01:01".into() } else { format!("52:54:00:00:00:{number:02x}") }
}

fn number() -> impl Strategy<Value = u8> {
    select(NUMBERS.as_slice())
}

/// A sender's own number three times in four.
fn mostly(own: u8) -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(own), 1 => number()]
}

fn address4(own: u8) -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        4 => mostly(own).prop_map(v4),
        1 => Just(Ipv4Addr::new(10, 9, 0, 77)),
        1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
    ]
}

fn address6(own: u8) -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        3 => mostly(own).prop_map(v6),
        2 => mostly(own).prop_map(link_local),
        1 => Just("fd09::77".parse().unwrap()),
        1 => any::<u128>().prop_map(Ipv6Addr::from_bits),
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    let tag = prop_oneof![8 => Just(None), 1 => select(vec![0, 30, 31, 100, 200]).prop_map(Some)];
    (select(SENDERS.as_slice()), tag, number()).prop_flat_map(|(sender, tag, destination)| {
        let own = sender.2;
        let said = prop_oneof![
            address4(own).prop_map(Said::Ip),
            address6(own).prop_map(Said::Ipv6),
            (mostly(own), address4(own), 1_u16..=2).prop_map(|(sha, spa, op)| Said::Arp { sha, spa, op }),
            (address6(own), address6(own), mostly(own)).prop_map(|(source, target, tll)| Said::Advertisement {
                source,
                target,
                tll
            }),
            (address6(own), mostly(own)).prop_map(|(source, sll)| Said::Solicitation { source, sll }),
        ];
        (mostly(own), said).prop_map(move |(source, said)| Packet { sender, tag, source, destination, said })
    })
}

impl Packet {
    fn text(&self) -> String {
        let (port, vlan, _) = self.sender;
        let to = if self.destination == 14 { "ff:ff:ff:ff:ff:ff".into() } else { mac(self.destination) };
        let tag = match (self.tag, vlan) {
            // A tag of another's choice takes the place of the sub-port's.
            (Some(tag), _) | (None, Some(tag)) => format!("vlan_tci={:#06x},", 0x1000 | tag),
            (None, None) => String::new(),
        };
        let said = match &self.said {
            Said::Ip(source) => format!("ip,nw_src={source},nw_dst=10.0.0.200"),
            Said::Ipv6(source) => format!("ipv6,ipv6_src={source},ipv6_dst=fd00::200"),
            Said::Arp { sha, spa, op } => {
                format!("arp,arp_op={op},arp_sha={},arp_spa={spa},arp_tpa=10.0.0.200", mac(*sha))
            }
            Said::Advertisement { source, target, tll } => format!(
                "icmp6,ipv6_src={source},ipv6_dst=ff02::1,nw_ttl=255,icmpv6_type=136,icmpv6_code=0,nd_target={target},nd_tll={}",
                mac(*tll)
            ),
            Said::Solicitation { source, sll } => format!(
                "icmp6,ipv6_src={source},ipv6_dst=ff02::1,nw_ttl=255,icmpv6_type=135,icmpv6_code=0,nd_target=fd00::200,nd_sll={}",
                mac(*sll)
            ),
        };
        format!("in_port={port},{tag}dl_src={},dl_dst={to},{said}", mac(self.source))
    }

    /// Whether its sender may send it.
    fn is_own(&self) -> bool {
        let (_, vlan, own) = self.sender;
        let tag_is_own = self.tag.is_none() || self.tag == vlan;
        // A tag on a trunk is another VIF's, and what that one may send the packet is not.
        let pairs = own == 3 || own == 4;
        let is_mac = |number: u8| number == own || pairs && number == 100;
        let owns4 = |mac: u8, address: Ipv4Addr| match mac {
            100 => pairs && address == v4(100),
            mac => mac == own && (address == v4(own) || pairs && address.octets()[..3] == [10, 9, 0]),
        };
        let shared: Ipv6Addr = "fe80::200:5eff:fe00:101".parse().unwrap();
        let owns6 = |mac: u8, address: Ipv6Addr| match mac {
            100 => pairs && address == shared,
            mac => {
                let pair = pairs && address.segments()[..4] == [0xfd09, 0, 0, 0];
                mac == own && (address == v6(own) || address == link_local(own) || pair)
            }
        };
        let said = match self.said {
            Said::Ip(source) => owns4(self.source, source),
            Said::Ipv6(source) => owns6(self.source, source),
            Said::Arp { sha, spa, .. } => owns4(sha, spa),
            Said::Advertisement { source, target, tll } => owns6(self.source, source) && owns6(tll, target),
            Said::Solicitation { source, sll } => owns6(self.source, source) && is_mac(sll),
        };
        own != 13 && tag_is_own && is_mac(self.source) && said
    }
}

#[test]
fn no_guest_sends_what_is_not_its_own_and_nothing_leaves_its_network() {
    let switch = Switch::start(13);
    switch.load(&bridge());
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut passed, mut dropped) = (0, 0);
    for _ in 0..1500 {
        let packet = packet().new_tree(&mut runner).unwrap().current();
        let text = packet.text();
        // What is in the way of the guest with rules and of the one that gets everything is not in question.
        match switch.trace(&text, &["trk,new"]) {
            Fate::Sent(places) => {
                passed += 1;
                assert!(packet.is_own(), "{text} reached {places:?}");
                let own = network(packet.sender.2);
                assert!(places.iter().all(|name| place(name) == own), "{text} reached {places:?}");
            }
            Fate::Dropped(reason) => {
                dropped += 1;
                // Towards itself, and to nobody where the network's only other place is its own port.
                let to_itself = packet.destination == packet.sender.2;
                assert!(!packet.is_own() || to_itself, "{text} was dropped: {reason}");
            }
        }
    }
    assert!(passed > 200 && dropped > 200, "{passed} passed, {dropped} were dropped: this proves little");
}
