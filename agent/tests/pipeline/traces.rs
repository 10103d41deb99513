//! A bridge with VIFs of every kind, and where `ofproto/trace` says that packets go on it.

use serde_json::json;
use vifd::plan::pipeline::{self, Attachment, Cookie, Reason, Uplink};

use vifd::model::Vif;

use crate::scene::{Bridge, network, owner, vif};
use crate::switch::{Fate, Switch};

/// ```text
///  network 1, VLAN 100: p1 p2 plain, p3 p4 with address pairs, p5 without port security, p6 with rules,
///                       VLAN 30 of p7, p13 inactive
///  network 2, VLAN 200: p7 a trunk, p9
///  network 3, untagged: p12, uplink p11
///  p10: the uplink of the VLANs
/// ```
pub(crate) fn bridge() -> Bridge {
    let mut bridge = Bridge::default();
    let pairs = json!({"allowed_address_pairs": [
        {"mac": "00:00:5e:00:01:01", "ip": "10.0.0.100"}, {"ip": "10.9.0.0/24"}, {"ip": "fd09::/64"},
    ]});
    let rules = json!({"rules": [
        {"direction": "ingress", "protocol": "tcp", "port_min": 22},
        {"direction": "egress", "protocol": "udp", "port_min": 53},
    ]});
    let plain = json!({});
    bridge
        .plain(&vif(1, 1, &plain))
        .plain(&vif(2, 1, &plain))
        .plain(&vif(3, 1, &pairs))
        .plain(&vif(4, 1, &pairs))
        .plain(&vif(5, 1, &json!({"port_security": false})))
        .plain(&vif(6, 1, &rules))
        .plain(&vif(7, 2, &plain))
        .add(&vif(8, 1, &plain), Attachment { port: 7, vlan: Some(30) })
        .plain(&vif(9, 2, &plain))
        .plain(&vif(12, 3, &plain))
        .plain(&vif(13, 1, &plain));
    bridge.ports.last_mut().unwrap().active = false;
    bridge.uplinks.insert(network(1), Uplink { port: 10, vlan: Some(100) });
    bridge.uplinks.insert(network(2), Uplink { port: 10, vlan: Some(200) });
    bridge.uplinks.insert(network(3), Uplink { port: 11, vlan: None });
    bridge
}

fn mac(number: u8) -> String {
    format!("52:54:00:00:00:{number:02x}")
}

/// From VIF `from` to the Ethernet address of VIF `to`.
fn frame(from: u8, to: u8) -> String {
    format!("in_port={from},dl_src={},dl_dst={}", mac(from), mac(to))
}

fn ip(from: u8, to: u8) -> String {
    format!("{},ip,nw_src=10.0.0.{from},nw_dst=10.0.0.{to},nw_ttl=64", frame(from, to))
}

fn tcp(from: u8, to: u8, port: u16) -> String {
    format!("{},tcp,nw_src=10.0.0.{from},nw_dst=10.0.0.{to},tcp_src=1024,tcp_dst={port}", frame(from, to))
}

fn ipv6(from: u8, to: u8, source: &str) -> String {
    format!("{},ipv6,ipv6_src={source},ipv6_dst=fd00::{to:x}", frame(from, to))
}

const EVERYBODY: &str = "ff:ff:ff:ff:ff:ff";

/// An ARP request, broadcast by VIF `from`, of a sender with these addresses.
fn arp(from: u8, sender: &str, address: &str) -> String {
    let source = mac(from);
    format!(
        "in_port={from},dl_src={source},dl_dst={EVERYBODY},arp,arp_op=1,arp_sha={sender},arp_spa={address},arp_tpa=10.0.0.2"
    )
}

fn nd(from: u8, kind: u8, source: &str, more: &str) -> String {
    format!(
        "in_port={from},dl_src={},dl_dst=33:33:ff:00:00:02,icmp6,ipv6_src={source},ipv6_dst=ff02::1:ff00:2,nw_ttl=255,\
         icmpv6_type={kind},icmpv6_code=0,{more}",
        mac(from)
    )
}

fn udp(from: u8, source: &str, ports: (u16, u16)) -> String {
    format!(
        "in_port={from},dl_src={},dl_dst={EVERYBODY},udp,nw_src={source},nw_dst=255.255.255.255,udp_src={},udp_dst={}",
        mac(from),
        ports.0,
        ports.1
    )
}

fn link_local(number: u8) -> String {
    format!("fe80::5054:ff:fe00:{number:x}")
}

/// How a broadcast of network 1 leaves by each of its places.
const TRUNK: &str = "push_vlan(vid=30,pcp=0),p7";
const UPLINK: &str = "push_vlan(vid=100,pcp=0),p10";

/// Everybody of network 1 but some; with what is not tracked also the VIF that has rules.
fn others(but: &[&str]) -> Fate {
    let all = ["p1", "p2", "p3", "p4", "p5", "p6", TRUNK, UPLINK];
    sent(&all.into_iter().filter(|port| !but.contains(port)).collect::<Vec<_>>())
}

fn sent(ports: &[&str]) -> Fate {
    let mut ports: Vec<_> = ports.iter().map(|port| (*port).to_owned()).collect();
    ports.sort();
    Fate::Sent(ports)
}

fn dropped(reason: Reason) -> Fate {
    Fate::Dropped(reason)
}

/// For each packet what connection tracking tells, and what becomes of it.
fn packets() -> Vec<(&'static str, String, &'static [&'static str], Fate)> {
    let none: &[&str] = &[];
    let from_uplink = |vlan: u16, rest: &str| format!("in_port=10,dl_vlan={vlan},dl_src=02:00:00:00:00:99,{rest}");
    let igmp = |source: &str, to: &str| {
        format!("in_port=1,dl_src={},dl_dst=01:00:5e:00:00:16,ip,nw_proto=2,nw_src={source},nw_dst={to}", mac(1))
    };
    let answer = |from: u8, target: &str, own: &str| {
        nd(from, 136, &format!("fd00::{from}"), &format!("nd_target={target},nd_tll={own}"))
    };
    vec![
        // Where packets go.
        ("unicast", ip(1, 2), none, sent(&["p2"])),
        ("unicast IPv6", ipv6(1, 2, "fd00::1"), none, sent(&["p2"])),
        ("to a sub-port", ip(1, 8), none, sent(&[TRUNK])),
        (
            "from a sub-port",
            format!("in_port=7,dl_vlan=30,dl_src={},dl_dst={},ip,nw_src=10.0.0.8,nw_dst=10.0.0.1", mac(8), mac(1)),
            none,
            sent(&["pop_vlan,p1"]),
        ),
        ("a trunk's own", ip(7, 9), none, sent(&["p9"])),
        ("another network's guest is elsewhere", ip(1, 9), none, sent(&[UPLINK])),
        ("an inactive guest is elsewhere", ip(1, 13), none, sent(&[UPLINK])),
        ("nobody's address", ip(12, 1), none, sent(&["p11"])),
        ("to itself", ip(1, 1), none, dropped(Reason::Hairpin)),
        ("broadcast", arp(1, &mac(1), "10.0.0.1"), none, others(&["p1"])),
        (
            "broadcast of another network",
            arp(9, &mac(9), "10.0.0.9"),
            none,
            sent(&["p7", "push_vlan(vid=200,pcp=0),p10"]),
        ),
        ("multicast", nd(2, 135, "fd00::2", &format!("nd_target=fd00::77,nd_sll={}", mac(2))), none, others(&["p2"])),
        (
            "to an address of several",
            format!("in_port=1,dl_src={},dl_dst=00:00:5e:00:01:01,ip,nw_src=10.0.0.1,nw_dst=10.0.0.100", mac(1)),
            none,
            sent(&["p3", "p4", UPLINK]),
        ),
        (
            "one of these to the other",
            format!("in_port=3,dl_src={},dl_dst=00:00:5e:00:01:01,ip,nw_src=10.0.0.3,nw_dst=10.0.0.100", mac(3)),
            none,
            sent(&["p4", UPLINK]),
        ),
        ("from the uplink", from_uplink(100, &format!("dl_dst={},ip", mac(1))), none, sent(&["pop_vlan,p1"])),
        (
            "from the uplink to a sub-port",
            from_uplink(100, &format!("dl_dst={},ip", mac(8))),
            none,
            sent(&["pop_vlan,push_vlan(vid=30,pcp=0),p7"]),
        ),
        (
            "from the uplink on another VLAN",
            from_uplink(200, &format!("dl_dst={},ip", mac(1))),
            none,
            dropped(Reason::UnknownDestination),
        ),
        (
            "from the uplink on nobody's VLAN",
            from_uplink(300, &format!("dl_dst={},ip", mac(1))),
            none,
            dropped(Reason::Unclassified),
        ),
        (
            "from the uplink without a tag",
            format!("in_port=10,dl_dst={},ip", mac(1)),
            none,
            dropped(Reason::Unclassified),
        ),
        (
            "from the uplink to nobody here",
            from_uplink(100, "dl_dst=02:00:00:00:00:01,ip"),
            none,
            dropped(Reason::UnknownDestination),
        ),
        (
            "from a flat uplink",
            format!("in_port=11,dl_src=02:00:00:00:00:99,dl_dst={},ip", mac(12)),
            none,
            sent(&["p12"]),
        ),
        (
            "from a flat uplink with a tag",
            format!("in_port=11,dl_vlan=100,dl_dst={},ip", mac(12)),
            none,
            dropped(Reason::Unclassified),
        ),
        ("of the bridge itself", format!("in_port=LOCAL,dl_dst={},ip", mac(1)), none, dropped(Reason::Unclassified)),
        (
            "what no bridge forwards",
            format!("in_port=5,dl_src={},dl_dst=01:80:c2:00:00:0e,dl_type=0x88cc", mac(5)),
            none,
            dropped(Reason::ReservedMulticast),
        ),
        // Tags.
        ("a tag of a plain guest", format!("{},dl_vlan=100", ip(1, 2)), none, dropped(Reason::Tagged)),
        ("a priority tag", format!("{},vlan_tci=0xf000", ip(1, 2)), none, dropped(Reason::Tagged)),
        ("a tag of a guest without port security", format!("{},dl_vlan=200", ip(5, 9)), none, dropped(Reason::Tagged)),
        ("a tag that is no sub-port's", format!("{},dl_vlan=31", ip(7, 9)), none, dropped(Reason::Tagged)),
        // Ethernet.
        (
            "another's MAC",
            format!("in_port=1,dl_src={},dl_dst={},ip,nw_src=10.0.0.1", mac(2), mac(2)),
            none,
            dropped(Reason::Mac),
        ),
        (
            "any MAC without port security",
            format!("in_port=5,dl_src=02:00:00:00:00:01,dl_dst={},ip,nw_src=192.0.2.1", mac(1)),
            none,
            sent(&["p1"]),
        ),
        (
            "a sub-port with its trunk's MAC",
            format!("in_port=7,dl_vlan=30,dl_src={},dl_dst={},ip,nw_src=10.0.0.8", mac(7), mac(1)),
            none,
            dropped(Reason::Mac),
        ),
        ("an inactive guest", ip(13, 1), none, dropped(Reason::Inactive)),
        ("neither IP nor ARP", format!("{},dl_type=0x88cc", frame(1, 2)), none, dropped(Reason::Ethertype)),
        // ARP and RARP.
        ("ARP for another", arp(1, &mac(1), "10.0.0.2"), none, dropped(Reason::Arp)),
        ("ARP with another's MAC", arp(1, &mac(2), "10.0.0.1"), none, dropped(Reason::Arp)),
        (
            "an ARP reply for another",
            arp(1, &mac(1), "10.0.0.254").replace("arp_op=1", "arp_op=2"),
            none,
            dropped(Reason::Arp),
        ),
        ("ARP of an address pair", arp(3, &mac(3), "10.9.0.77"), none, others(&["p3"])),
        ("ARP of an address pair with another MAC", arp(3, "00:00:5e:00:01:01", "10.0.0.100"), none, others(&["p3"])),
        ("ARP of that pair with the wrong one", arp(3, &mac(3), "10.0.0.100"), none, dropped(Reason::Arp)),
        ("a probe for the own address", arp(2, &mac(2), "0.0.0.0"), none, others(&["p2"])),
        ("a probe for another's", arp(1, &mac(1), "0.0.0.0"), none, dropped(Reason::Arp)),
        (
            "RARP",
            format!("in_port=1,dl_src={0},dl_dst={EVERYBODY},rarp,arp_op=3,arp_sha={0},arp_tha={0}", mac(1)),
            none,
            others(&["p1"]),
        ),
        (
            "RARP for another",
            format!("in_port=1,dl_src={0},dl_dst={EVERYBODY},rarp,arp_op=3,arp_sha={1},arp_tha={1}", mac(1), mac(2)),
            none,
            dropped(Reason::Arp),
        ),
        // Neighbour discovery.
        (
            "a solicitation with another's MAC",
            nd(1, 135, "fd00::1", &format!("nd_target=fd00::2,nd_sll={}", mac(2))),
            none,
            dropped(Reason::Nd),
        ),
        (
            "a solicitation from another",
            nd(1, 135, "fd00::2", &format!("nd_target=fd00::3,nd_sll={}", mac(1))),
            none,
            dropped(Reason::Ip),
        ),
        (
            "a solicitation from the link's address",
            nd(1, 135, &link_local(1), &format!("nd_target=fd00::3,nd_sll={}", mac(1))),
            none,
            others(&["p1"]),
        ),
        ("duplicate address detection", nd(1, 135, "::", "nd_target=fd00::1"), none, others(&["p1"])),
        ("the same for another's address", nd(1, 135, "::", "nd_target=fd00::2"), none, dropped(Reason::Ip)),
        ("an advertisement", answer(1, "fd00::1", &mac(1)), none, others(&["p1"])),
        ("an advertisement of another's address", answer(1, "fd00::2", &mac(1)), none, dropped(Reason::Nd)),
        ("an advertisement of another's MAC", answer(1, "fd00::1", &mac(2)), none, dropped(Reason::Nd)),
        ("an advertisement of a pair", answer(3, "fd09::7", &mac(3)), none, others(&["p3"])),
        (
            "a router advertisement",
            nd(1, 134, &link_local(1), "").trim_end_matches(',').to_owned(),
            none,
            dropped(Reason::RouterAdvertisement),
        ),
        (
            "the same without port security",
            nd(5, 134, &link_local(5), "").trim_end_matches(',').to_owned(),
            none,
            others(&["p5"]),
        ),
        (
            "a router solicitation",
            nd(1, 133, &link_local(1), "").trim_end_matches(',').to_owned(),
            &["trk,new"],
            others(&["p1", "p6"]),
        ),
        (
            "a report of a listener without address",
            nd(1, 143, "::", "").trim_end_matches(',').to_owned(),
            &["trk,new"],
            others(&["p1", "p6"]),
        ),
        (
            "a query for listeners",
            nd(1, 130, &link_local(1), "").trim_end_matches(',').to_owned(),
            none,
            dropped(Reason::MulticastQuery),
        ),
        ("a query of IGMP without address", igmp("0.0.0.0", "224.0.0.1"), none, dropped(Reason::MulticastQuery)),
        ("a query of IGMP", igmp("10.0.0.1", "224.0.0.1"), none, dropped(Reason::MulticastQuery)),
        ("a report of IGMP", igmp("0.0.0.0", "224.0.0.22"), &["trk,new"], others(&["p1", "p6"])),
        ("discovery that cannot be read", nd(1, 135, "fd00::1", "nd_target=::"), none, dropped(Reason::Nd)),
        // IP.
        ("another's address", ip(1, 2).replace("nw_src=10.0.0.1", "nw_src=10.0.0.2"), none, dropped(Reason::Ip)),
        ("another's IPv6 address", ipv6(1, 2, "fd00::2"), none, dropped(Reason::Ip)),
        ("an address pair", ip(3, 2).replace("nw_src=10.0.0.3", "nw_src=10.9.0.1"), none, sent(&["p2"])),
        (
            "an address pair with the wrong MAC",
            ip(3, 2).replace("nw_src=10.0.0.3", "nw_src=10.0.0.100"),
            none,
            dropped(Reason::Ip),
        ),
        ("DHCP of a client", udp(1, "0.0.0.0", (68, 67)), &["trk,new"], others(&["p1", "p6"])),
        ("DHCP of a server", udp(1, "10.0.0.1", (67, 68)), none, dropped(Reason::DhcpServer)),
        ("DHCP of a server from another port", udp(1, "10.0.0.1", (6767, 68)), none, dropped(Reason::DhcpServer)),
        (
            "DHCPv6 of a server",
            format!("{},udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,udp_src=547,udp_dst=546", frame(1, 2)),
            none,
            dropped(Reason::DhcpServer),
        ),
        // Fragments: what a first one carries is looked at, and later ones are nothing without it.
        (
            "a first fragment of a DHCP server",
            format!("{},ip_frag=first", udp(1, "10.0.0.1", (67, 68))),
            none,
            dropped(Reason::DhcpServer),
        ),
        (
            "a first fragment of a router advertisement",
            nd(1, 134, &link_local(1), "ip_frag=first"),
            none,
            dropped(Reason::RouterAdvertisement),
        ),
        (
            "a first fragment of another's advertisement",
            nd(1, 136, "fd00::1", &format!("nd_target=fd00::2,nd_tll={},ip_frag=first", mac(1))),
            none,
            dropped(Reason::Nd),
        ),
        (
            "a first fragment of another's solicitation",
            nd(1, 135, "fd00::1", &format!("nd_target=fd00::2,nd_sll={},ip_frag=first", mac(2))),
            none,
            dropped(Reason::Nd),
        ),
        ("a later fragment", format!("{},ip_frag=later", ip(1, 2)), none, sent(&["p2"])),
        (
            "a later fragment of another",
            format!("{},ip_frag=later", ip(1, 2).replace("nw_src=10.0.0.1", "nw_src=10.0.0.2")),
            none,
            dropped(Reason::Ip),
        ),
        // Rules.
        ("what a rule lets in", tcp(1, 6, 22), &["trk,new"], sent(&["p6"])),
        ("what none lets in", tcp(1, 6, 23), &["trk,new"], dropped(Reason::IngressRules)),
        ("a connection that one lets in", tcp(1, 6, 22), &["trk,est"], sent(&["p6"])),
        ("a connection that none lets in any more", tcp(1, 6, 23), &["trk,est"], dropped(Reason::IngressRules)),
        ("a reply", tcp(1, 6, 4000), &["trk,est,rpl"], sent(&["p6"])),
        ("what is related", ip(1, 6), &["trk,rel"], sent(&["p6"])),
        ("part of nothing", tcp(1, 6, 22), &["trk,inv"], dropped(Reason::Invalid)),
        (
            "DHCP of a server to a guest with rules",
            format!(
                "in_port=5,dl_src={},dl_dst={},udp,nw_src=10.0.0.5,nw_dst=10.0.0.6,udp_src=67,udp_dst=68",
                mac(5),
                mac(6)
            ),
            none,
            sent(&["p6"]),
        ),
        ("what a rule lets out", tcp(6, 1, 53).replace("tcp", "udp"), &["trk,new"], sent(&["p1"])),
        ("what none lets out", tcp(6, 1, 53), &["trk,new"], dropped(Reason::EgressRules)),
        ("a reply out", tcp(6, 1, 4000), &["trk,est,rpl"], sent(&["p1"])),
        (
            "neither IP nor ARP to a guest with rules",
            format!("{},dl_type=0x88cc", frame(5, 6)),
            none,
            dropped(Reason::IngressRules),
        ),
    ]
}

#[test]
fn packets_go_where_they_may() {
    let switch = Switch::start(13);
    switch.load(&bridge());
    let wrong: Vec<_> = packets()
        .into_iter()
        .filter_map(|(what, packet, states, expected)| {
            let fate = switch.trace(&packet, states);
            (fate != expected).then(|| format!("{what}:\n  {packet}\n  expected {expected:?}\n  was      {fate:?}\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn dhcp_passes_where_there_are_rules_and_nothing_else_does_with_it() {
    let rules = json!({"rules": []});
    let subnet = |vif: &mut Vif, cidr: &str, server: Option<&str>, gateway: Option<&str>| {
        let subnet = &mut vif.network.as_mut().unwrap().subnets[0];
        subnet.cidr = Some(cidr.parse().unwrap());
        subnet.dhcp_server = server.map(|server| server.parse().unwrap());
        subnet.gateway = gateway.map(|gateway| gateway.parse().unwrap());
    };
    let mut named = vif(1, 1, &rules);
    subnet(&mut named, "10.0.0.0/24", Some("10.0.0.2"), Some("10.0.0.1"));
    let mut on_link = vif(2, 1, &rules);
    subnet(&mut on_link, "10.0.0.0/24", None, None);
    let mut six = vif(4, 1, &rules);
    subnet(&mut six, "fd00::/64", Some("fd00::2"), None);
    let mut bridge = Bridge::default();
    bridge.plain(&named).plain(&on_link).plain(&vif(3, 1, &json!({"port_security": false}))).plain(&six);
    let switch = Switch::start(4);
    switch.load(&bridge);
    let asks = |source: &str, server: &str| {
        format!("{},udp,nw_src={source},nw_dst={server},udp_src=68,udp_dst=67", frame(1, 3))
    };
    let answers =
        |to: u8, server: &str| format!("{},udp,nw_src={server},nw_dst=10.0.0.{to},udp_src=67,udp_dst=68", frame(3, to));
    let asks6 = |server: &str| {
        format!("{},udp6,ipv6_src={},ipv6_dst={server},udp_src=546,udp_dst=547", frame(4, 3), link_local(4))
    };
    let answers6 =
        |server: &str| format!("{},udp6,ipv6_src={server},ipv6_dst=fd00::4,udp_src=547,udp_dst=546", frame(3, 4));
    let (out, ingress) = (sent(&["p3"]), dropped(Reason::IngressRules));
    for (what, packet, expected) in [
        ("a client without address", asks("0.0.0.0", "255.255.255.255"), out.clone()),
        ("one that nobody renewed", asks("10.0.0.1", "255.255.255.255"), out.clone()),
        ("one that renews", asks("10.0.0.1", "10.0.0.2"), out.clone()),
        ("one that asks a relay", asks("10.0.0.1", "10.0.0.1"), out.clone()),
        ("no server", asks("10.0.0.1", "10.0.0.77"), dropped(Reason::EgressRules)),
        ("far away", asks("10.0.0.1", "192.0.2.1"), dropped(Reason::EgressRules)),
        ("the server", answers(1, "10.0.0.2"), sent(&["p1"])),
        ("a relay", answers(1, "10.0.0.1"), sent(&["p1"])),
        ("to everybody", answers(1, "10.0.0.9").replace("nw_dst=10.0.0.1", "nw_dst=255.255.255.255"), sent(&["p1"])),
        ("not the server", answers(1, "10.0.0.9"), ingress.clone()),
        ("far from it", answers(1, "192.0.2.1"), ingress.clone()),
        ("whoever is on the link of one without known server", answers(2, "10.0.0.9"), sent(&["p2"])),
        ("nobody else", answers(2, "192.0.2.1"), ingress.clone()),
        ("a client of DHCPv6", asks6("ff02::1:2"), out.clone()),
        ("one that renews", asks6("fd00::2"), out),
        ("no server of DHCPv6", asks6("fd00::77"), dropped(Reason::EgressRules)),
        ("a server on the link", answers6("fe80::1"), sent(&["p4"])),
        ("the server of DHCPv6", answers6("fd00::2"), sent(&["p4"])),
        ("another", answers6("2001:db8::1"), ingress),
    ] {
        assert_eq!(switch.trace(&packet, &["trk,new"]), expected, "{what}: {packet}");
    }
}

/// Of each packet to many the rules are asked, without connections.
#[test]
fn rules_are_for_multicast_too() {
    let rules = json!({"rules": [
        {"direction": "ingress", "protocol": "udp", "port_min": 5353},
        {"direction": "ingress", "ethertype": "IPv6", "protocol": "udp", "port_min": 5353},
        {"direction": "egress"},
    ]});
    let mut bridge = Bridge::default();
    bridge.plain(&vif(1, 1, &rules)).plain(&vif(2, 1, &rules)).plain(&vif(3, 1, &json!({"rules": []})));
    let switch = Switch::start(3);
    switch.load(&bridge);
    let v4 = |to: &str, port: u16| {
        let from = mac(1);
        format!("in_port=1,dl_src={from},dl_dst={EVERYBODY},udp,nw_src=10.0.0.1,nw_dst={to},udp_src=9,udp_dst={port}")
    };
    for to in ["224.0.0.251", "239.255.255.250", "255.255.255.255"] {
        // As a reply in the sender's own zone, too: it is none in the receivers'.
        for state in ["trk,new", "trk,est", "trk,est,rpl"] {
            assert_eq!(switch.trace(&v4(to, 5353), &[state]), sent(&["p2"]), "{to} {state}");
            assert_eq!(switch.trace(&v4(to, 5354), &[state]), dropped(Reason::IngressRules), "{to} {state}");
        }
    }
    let v6 = ipv6(1, 2, "fd00::1").replace("ipv6_dst=fd00::2", "ipv6_dst=ff02::fb").replace("ipv6,", "udp6,");
    let v6 = v6.replace(&mac(2), "33:33:00:00:00:fb");
    let v6 = |port: u16| format!("{v6},udp_src=9,udp_dst={port}");
    // No rule lets the sender begin in IPv6, but who replies may.
    assert_eq!(switch.trace(&v6(5353), &["trk,est,rpl"]), sent(&["p2"]));
    assert_eq!(switch.trace(&v6(5354), &["trk,est,rpl"]), dropped(Reason::IngressRules));
}

/// A bucket that is left of a VIF that was on another network once, or whose port another VIF has now.
#[test]
fn a_flood_stays_in_its_network_whatever_is_left_in_its_group() {
    let switch = Switch::start(13);
    switch.load(&bridge());
    let mut before = bridge();
    before.ports.iter_mut().find(|port| port.at.port == 9).unwrap().network = network(1);
    let left = before.networks().iter().find(|facts| facts.key == network(1)).map(pipeline::network).unwrap().unwrap();
    let known =
        bridge().networks().iter().find(|facts| facts.key == network(1)).map(pipeline::network).unwrap().unwrap();
    assert_eq!(left.groups[0].buckets.len(), known.groups[0].buckets.len() + 1);
    assert_eq!(left.groups[0].id, known.groups[0].id);
    switch.ofctl("mod-group", &["-"], &left.groups[0].to_string());
    assert_eq!(switch.trace(&arp(1, &mac(1), "10.0.0.1"), &[]), others(&["p1"]));
}

/// The flows of the bridge are another party's: refused or held, they may be missing while a guest's are there.
#[test]
fn what_is_dropped_for_a_guest_is_dropped_without_the_bridges_flows() {
    let switch = Switch::start(13);
    switch.load(&bridge());
    switch.ofctl("del-flows", &[&format!("cookie={}/-1", Cookie::bridge(owner()))], "");
    let refused = nd(1, 135, "fd00::1", "nd_target=::");
    assert_eq!(switch.trace(&refused, &[]), dropped(Reason::Nd));
}

/// A switch gives flows, groups and meters back as they were sent: otherwise every look at it would find a difference.
#[test]
fn a_switch_has_what_it_was_given() {
    let mut bridge = bridge();
    bridge.plain(&vif(
        14,
        2,
        &json!({
            "rate": {"egress_kbps": 1000, "ingress_kbps": 2000}, "groups": ["web"],
            "rules": [
                {"direction": "ingress", "protocol": "tcp", "port_min": 1, "port_max": 1000, "remote_group": "web"},
                {"direction": "egress", "ethertype": "IPv6", "protocol": "icmpv6", "port_min": 128},
            ],
        }),
    ));
    let switch = Switch::start(1);
    switch.load(&bridge);
    let all = bridge.everything();
    let lines = |text: String, head: &str| {
        let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.retain(|line| line.contains(head));
        lines
    };
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    let there = lines(switch.ofctl("dump-flows", &["--no-stats"], ""), "actions=");
    let flows: Vec<_> = there.iter().map(|line| line.parse::<flows::Flow>().unwrap().to_string()).collect();
    assert_eq!(sorted(flows), sorted(all.flows.iter().map(ToString::to_string).collect()));
    assert_eq!(sorted(there), sorted(all.flows.iter().map(ToString::to_string).collect()));
    let groups = lines(switch.ofctl("dump-groups", &[], ""), "group_id=");
    assert_eq!(sorted(groups), sorted(all.groups.iter().map(ToString::to_string).collect()));
    let meters = switch.ofctl("dump-meters", &[], "");
    for meter in &all.meters {
        let words: Vec<_> = meters.split_whitespace().collect();
        let (id, rate) = (format!("meter={}", meter.id), format!("rate={}", meter.bands[0].rate));
        assert!(words.contains(&id.as_str()) && words.contains(&rate.as_str()), "{meter}: {meters}");
    }
}
