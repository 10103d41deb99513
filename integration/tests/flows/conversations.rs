//! Guests talk: ping, TCP, IPv6 with neighbour discovery, DHCP and broadcast, on one host and across two.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use vifd_integration::lab::frame::{BROADCAST, arp, ethernet, kind, mac};
use vifd_integration::lab::{
    DhcpServer, GUEST_DEVICE, Guest, Namespace, PacketSocket, Rack, Stream, dhcp_lease, native_guest, network_id,
};

use crate::scene::{BRIDGE, Host, places};

/// An Ethernet type for experiments (IEEE 802), which no protocol stack answers.
const EXPERIMENT: u16 = 0x88b5;

fn ping6(from: &Namespace, to: &str) -> Result<bool> {
    Ok(from.ping(to, 3)?.received > 0)
}

/// Everything that two guests of one network may say to each other.
fn converse(a: &Guest, b: &Guest) -> Result<()> {
    assert!(a.reaches(b)? && b.reaches(a)?, "ping");
    // Neighbour discovery comes before the answers.
    let (six_a, six_b) = (a.ipv6().context("no address")?, b.ipv6().context("no address")?);
    assert!(ping6(a.namespace(), &six_b)? && ping6(b.namespace(), &six_a)?, "ping by IPv6");
    for address in [b.record.ip(), six_b] {
        let stream = Stream::begin(a.namespace(), b.namespace(), (address.parse::<std::net::IpAddr>()?, 5001).into())?;
        assert!(stream.goes_on(1 << 20, Duration::from_secs(10)), "1 MiB by TCP to {address}");
        let streamed = stream.end()?;
        assert_eq!(streamed.sent, streamed.received, "{streamed:?}");
    }
    Ok(())
}

/// Floods once from `sender` and gives which of the guests heard it, each at most once.
fn hearers(sender: &Guest, guests: &[&Guest]) -> Result<BTreeSet<usize>> {
    let sockets = guests.iter().map(|guest| guest.frames()).collect::<Result<Vec<_>>>()?;
    let from = mac(&sender.record.mac());
    // Nothing but IP and ARP leaves a guest with port security: an ARP request for an address that nobody has.
    let own: std::net::Ipv4Addr = sender.record.ip().parse()?;
    let frame = arp(from, 1, from, own, "10.0.0.240".parse()?);
    sender.frames()?.send(&frame)?;
    std::thread::sleep(Duration::from_millis(300));
    let mut heard = BTreeSet::new();
    for (number, socket) in sockets.iter().enumerate() {
        let copies = socket.heard()?.into_iter().filter(|other| other[..42] == frame[..42]).count();
        assert!(copies <= 1, "guest {number} heard {copies} copies");
        heard.extend((copies == 1).then_some(number));
    }
    Ok(heard)
}

#[test]
fn on_one_host() -> Result<()> {
    let mut host = Host::start()?;
    let open = json!({"port_security": false});
    let records =
        [native_guest(11, 1), native_guest(12, 1), native_guest(13, 1).beside("policy", open), native_guest(14, 2)];
    let [a, b, server, stranger] = host.plug(records)?;
    converse(&a, &b)?;
    for address in [stranger.record.ip(), stranger.ipv6().context("no address")?] {
        assert!(a.hears_nothing_of(&address)?, "networks are apart");
    }
    let everybody = [&a, &b, &server, &stranger];
    assert_eq!(hearers(&a, &everybody)?, [1, 2].into(), "members but the sender");
    assert_eq!(hearers(&stranger, &everybody)?, [].into(), "alone on its network");

    // A lease, first from one that may not give any.
    b.namespace().run("ip", ["addr", "flush", "dev", GUEST_DEVICE, "scope", "global"])?;
    let leases = [(b.record.mac(), b.record.ip())];
    let rogue = DhcpServer::start(a.namespace(), &leases)?;
    assert_eq!(dhcp_lease(b.namespace(), 2)?, None, "a guest is no DHCP server");
    assert!(host.counted(&a, places::DHCP_SERVER)? > 0);
    drop(rogue);
    let _server = DhcpServer::start(server.namespace(), &leases)?;
    assert_eq!(dhcp_lease(b.namespace(), 5)?, Some(b.record.ip().parse()?));
    Ok(())
}

#[test]
fn across_two_hosts() -> Result<()> {
    let rack = Rack::start()?;
    let flat = network_id(3);
    let uplinks = format!(
        "uplinks = [{{ port = \"trunk\", networks = [\"*\"] }}, {{ port = \"flat\", networks = [\"{flat}\"] }}]"
    );
    let mut hosts = [Host::with(&uplinks)?, Host::with(&uplinks)?];
    for host in &hosts {
        rack.join(&host.ovs, "trunk", None)?;
        rack.join(&host.ovs, "flat", Some(300))?;
        host.ovs.vsctl(["add-port", BRIDGE, "trunk", "--", "add-port", BRIDGE, "flat"])?;
    }
    let on_vlan = |number, network: u16| native_guest(number, network.into()).with_network("vlan", 100 * network);
    let [a, c, e] = hosts[0].plug([on_vlan(11, 1), on_vlan(13, 2), native_guest(15, 3)])?;
    let [b, d, f] = hosts[1].plug([on_vlan(12, 1), on_vlan(14, 2), native_guest(16, 3)])?;
    let outside = rack.machine(100, "22:52:26:00:01:01", "10.0.0.200/24")?;
    converse(&a, &b)?;
    converse(&e, &f)?;
    assert!(c.reaches(&d)?);
    assert!(outside.ping(&a.record.ip(), 2)?.received > 0, "with the network's tag on the wire");
    let everybody = [&a, &b, &c, &d, &e, &f];
    assert_eq!(hearers(&a, &everybody)?, [1].into());
    assert_eq!(hearers(&d, &everybody)?, [2].into());
    assert_eq!(hearers(&f, &everybody)?, [4].into());
    for (from, to) in [(&a, &c), (&a, &d), (&a, &e), (&a, &f), (&c, &f)] {
        assert!(from.hears_nothing_of(&to.record.ip())?, "networks are apart");
    }

    // What is for nobody here ends here, and does not go back to where it came from.
    let wire = PacketSocket::open(&outside, GUEST_DEVICE)?;
    let nobody = mac("22:52:26:00:02:02");
    wire.send(&ethernet(mac("22:52:26:00:01:01"), nobody, EXPERIMENT, b"to nobody"))?;
    wire.send(&ethernet(mac("22:52:26:00:01:01"), BROADCAST, EXPERIMENT, b"to all"))?;
    std::thread::sleep(Duration::from_millis(200));
    let echoes = wire.heard()?;
    assert!(echoes.iter().all(|frame| kind(frame) != EXPERIMENT), "{echoes:?}");
    Ok(())
}
