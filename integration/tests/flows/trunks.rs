//! Trunks: a guest that sends with tags on one port. The VLANs of the guest are access ports of a bridge of its own,
//! since a kernel need not have VLAN devices; so each tag is one that Open vSwitch itself puts on and takes off.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vifd_integration::lab::frame::{Mac, arp, mac};
use vifd_integration::lab::{Config, Guest, Ovs, Record, Switch, Vifd, native_guest};

use crate::scene::{BRIDGE, Host, places};

/// The guest's own bridge.
const INSIDE: &str = "br-guest";
/// The guest's end of its trunk.
const NIC: &str = "nic";
const ANOTHERS_MAC: Mac = [0x22, 0x52, 0x26, 0, 0, 99];

/// What the guest has inside: its trunk's port, and `vlans` beside what it sends without a tag.
struct Trunk {
    record: Record,
    untagged: Guest,
}

impl Trunk {
    fn new(ovs: &Ovs, record: Record) -> Result<Trunk> {
        ovs.vsctl(["add-br", INSIDE, "--", "set", "Bridge", INSIDE, "datapath_type=netdev"])?;
        ovs.namespace().veth(&record.vif_name(), ovs.namespace(), NIC, None, None)?;
        for end in [&record.vif_name(), NIC] {
            ovs.namespace().plain_device(end)?;
        }
        ovs.vsctl(["add-port", INSIDE, NIC])?;
        // The same address, behind a device of another name.
        let untagged = inside(ovs, record.clone().with("vif_name", "native"), 0)?;
        Ok(Trunk { record, untagged })
    }
}

/// A stack of the guest's on one of its VLANs, 0 for what has no tag.
fn inside(ovs: &Ovs, record: Record, vlan: u16) -> Result<Guest> {
    let guest = Guest::new(ovs, record)?;
    let device = guest.record.vif_name();
    ovs.vsctl(["add-port", INSIDE, &device, &format!("tag={vlan}")])?;
    Ok(guest)
}

fn sub_port(number: u32, network: u32, trunk: &Record, vlan: u16) -> Record {
    native_guest(number, network).beside("parent", json!({"vif": trunk.id(), "vlan": vlan}))
}

fn rules() -> Value {
    json!({"rules": [{"direction": "egress"}, {"direction": "ingress", "protocol": "icmp"}]})
}

fn external_id(ovs: &Ovs, interface: &str, key: &str) -> Result<Option<String>> {
    let row = ovs.row("Interface", interface)?.context("no interface")?;
    Ok(row["external_ids"][key].as_str().map(str::to_owned))
}

/// Packets that flows at a place have counted which say `of`.
fn counted(ovs: &Ovs, place: (u8, u16), of: &str) -> Result<u64> {
    let rows = ovs.flow_rows(BRIDGE)?;
    let there = rows.iter().filter(|row| (row.table, row.priority) == place && row.matching.contains(of));
    Ok(there.map(|row| row.packets).sum())
}

#[test]
fn of_a_guest_are_several_vifs() -> Result<()> {
    let mut host = Host::start()?;
    // The trunk and one of its sub-ports are on one network, where only the other's tag tells them apart.
    let trunk = native_guest(11, 1);
    let (one, other) = (sub_port(12, 2, &trunk, 101).beside("policy", rules()), sub_port(13, 1, &trunk, 102));
    let inside_of_it = Trunk::new(&host.ovs, trunk.clone())?;
    let on_one = inside(&host.ovs, one.clone(), 101)?;
    let on_other = inside(&host.ovs, other.clone(), 102)?;
    let nobodys = inside(&host.ovs, native_guest(14, 1), 103)?;
    // Sub-ports before their trunk.
    for record in [&one, &other] {
        host.vifd.put(record)?;
        let status = host.vifd.wait_for(&record.id(), "waiting")?;
        assert_eq!(status["reason"], "WaitingForParent");
        assert!(status["message"].as_str().unwrap_or_default().contains(&trunk.id()), "{status}");
    }
    host.vifd.put(&inside_of_it.record)?;
    let [peer, peer_of_one] = host.plug([native_guest(21, 1), native_guest(22, 2)])?;
    for record in [&trunk, &one, &other] {
        host.vifd.wait_for(&record.id(), "ready")?;
    }
    let status = host.vifd.status(&one.id())?.context("no status")?;
    let facts = &status["facts"];
    assert_eq!((&facts["bridge"], &facts["port"]), (&json!(BRIDGE), &json!(trunk.vif_name())));
    assert_eq!(facts["vlan"], 101);

    // To others of their networks, both ways, and to nobody of another.
    assert!(on_one.reaches(&peer_of_one)? && peer_of_one.reaches(&on_one)?);
    assert!(on_other.reaches(&peer)? && peer.reaches(&on_other)?);
    assert!(inside_of_it.untagged.reaches(&peer)? && peer.reaches(&inside_of_it.untagged)?);
    assert!(on_one.hears_nothing_of(&peer.record.ip())?);
    assert!(on_one.hears_nothing_of(&on_other.record.ip())?);
    // Out of the port that it came in by: broadcasts first, by which they find each other.
    assert!(inside_of_it.untagged.reaches(&on_other)? && on_other.reaches(&inside_of_it.untagged)?);

    // A tag that is nobody's, and an address that is another's.
    let port = host.ovs.row("Interface", &trunk.vif_name())?.context("no interface")?["ofport"].as_u64().unwrap_or(0);
    let by_port = format!("in_port={port}");
    let tagged_before = counted(&host.ovs, places::VLAN_TAG, "in_port")?;
    let asks =
        |who: Mac, ip: &str| -> Result<Vec<u8>> { Ok(arp(who, 1, who, ip.parse()?, Ipv4Addr::new(10, 0, 0, 21))) };
    let witness = peer.frames()?;
    nobodys.frames()?.send(&asks(mac(&nobodys.record.mac()), &nobodys.record.ip())?)?;
    on_other.frames()?.send(&asks(ANOTHERS_MAC, &other.ip())?)?;
    let (ovs, vifd) = (&host.ovs, &mut host.vifd);
    let of_other = format!("reg5=0x{:x}", 102 << 16 | port);
    vifd.until("both are counted", |_| {
        let tagged = counted(ovs, places::VLAN_TAG, "in_port")? > tagged_before;
        Ok((tagged && counted(ovs, places::MAC_SPOOF, &of_other)? == 1).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(200));
    let leaked = witness.heard()?.into_iter().find(|frame| {
        let source = &frame[6..12];
        source == ANOTHERS_MAC || source == mac(&nobodys.record.mac())
    });
    assert_eq!(leaked, None, "in by {by_port}");

    // What vifd says of it.
    let text = host.vifd.cli(&["describe", &one.id()])?;
    let text = String::from_utf8(text.stdout)?;
    assert!(text.contains(&format!("{}, VLAN 101", trunk.id())), "{text}");
    let name = format!("{}.101", trunk.vif_name());
    let traced = host.vifd.cli(&["trace", &name, "--to", &peer_of_one.record.id()])?;
    let traced = String::from_utf8(traced.stdout)? + &String::from_utf8(traced.stderr)?;
    assert!(traced.contains("delivered to VIF") && traced.contains("dl_vlan=101"), "{traced}");
    let flows = String::from_utf8(host.vifd.cli(&["flows", &name])?.stdout)?;
    assert!(flows.contains("pop_vlan") && flows.contains("push_vlan"), "{flows}");

    // A restart of vifd writes nothing, and one of the switch changes no zone.
    let key = format!("vifd-zone-{}", one.id());
    let zone = external_id(&host.ovs, &trunk.vif_name(), &key)?;
    assert!(zone.is_some());
    let before = host.texts()?;
    host.vifd.stop()?;
    host.vifd.start()?;
    for record in [&trunk, &one, &other] {
        host.vifd.wait_for(&record.id(), "ready")?;
    }
    assert_eq!(host.vifd.metric("vifd_writes_total", "backend=\"openflow\"")?, 0.0);
    assert_eq!(host.vifd.metric("vifd_writes_total", "backend=\"ovsdb\"")?, 0.0);
    assert_eq!(host.texts()?, before);
    host.ovs.stop_vswitchd(nix::sys::signal::Signal::SIGTERM)?;
    host.ovs.start_vswitchd()?;
    host.until_flows_are("flows are back", &before)?;
    assert_eq!(external_id(&host.ovs, &trunk.vif_name(), &key)?, zone);
    assert!(on_one.reaches(&peer_of_one)?);

    // One goes, with all that it had; nobody else notices.
    host.vifd.remove(&one)?;
    host.vifd.wait_gone(&one.id())?;
    assert!(peer_of_one.hears_nothing_of(&one.ip())?);
    assert!(on_other.reaches(&peer)?);
    assert_eq!(external_id(&host.ovs, &trunk.vif_name(), &key)?, None);

    // The trunk goes, and the other waits until it is back.
    host.vifd.remove(&trunk)?;
    host.vifd.wait_gone(&trunk.id())?;
    let status = host.vifd.wait_for(&other.id(), "waiting")?;
    assert_eq!(status["reason"], "WaitingForParent");
    assert!(!host.texts()?.iter().any(|flow| flow.contains("pop_vlan")), "flows go with the port");
    host.vifd.put(&trunk)?;
    host.vifd.wait_for(&other.id(), "ready")?;
    assert!(on_other.reaches(&peer)? && peer.reaches(&on_other)?);
    Ok(())
}

/// On one of neutron's trunk bridges, where vifd makes no flows, they are patch pairs.
#[test]
fn on_a_trunk_bridge_are_patch_pairs() -> Result<()> {
    const TRUNK_BRIDGE: &str = "tbr-0123456789";
    let mut ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config = Config { max_removals: "100%".into(), ..Config::default() };
    vifd.start()?;
    let trunk = native_guest(11, 1).with_network("bridge", TRUNK_BRIDGE);
    let sub = sub_port(12, 2, &trunk, 101);
    let inside_of_it = Trunk::new(&ovs, trunk.clone())?;
    let on_sub = inside(&ovs, sub.clone(), 101)?;
    vifd.put(&sub)?;
    vifd.put(&inside_of_it.record)?;
    let peer = Guest::plug(&ovs, &mut vifd, native_guest(22, 2))?;
    for record in [&trunk, &sub] {
        vifd.wait_for(&record.id(), "ready")?;
    }
    let [near, far] = ["spt-", "spi-"].map(|prefix| format!("{prefix}{}", sub.id())[..15].to_owned());
    let port = ovs.row("Port", &near)?.context("no port on the trunk bridge")?;
    assert_eq!((&port["tag"], &port["vlan_mode"]), (&json!(101), &json!("access")));
    for (name, peer, bridge) in [(&near, &far, TRUNK_BRIDGE), (&far, &near, BRIDGE)] {
        let interface = ovs.row("Interface", name)?.context("no interface")?;
        assert_eq!((&interface["type"], &interface["options"]["peer"]), (&json!("patch"), &json!(peer)));
        assert_eq!(interface["external_ids"]["iface-id"], json!(sub.id()));
        assert_eq!(interface["external_ids"]["attached-mac"], json!(sub.mac()));
        assert_eq!(ovs.vsctl(["iface-to-br", name])?.trim(), bridge);
    }
    assert!(on_sub.reaches(&peer)? && peer.reaches(&on_sub)?);

    vifd.stop()?;
    vifd.start()?;
    vifd.wait_for(&sub.id(), "ready")?;
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0);

    // It goes alone; then the trunk, and with it the bridge that nobody needs any more.
    vifd.remove(&sub)?;
    vifd.wait_gone(&sub.id())?;
    assert!(ovs.row("Port", &near)?.is_none() && ovs.row("Port", &far)?.is_none());
    assert!(ovs.row("Bridge", TRUNK_BRIDGE)?.is_some());
    vifd.remove(&trunk)?;
    vifd.wait_gone(&trunk.id())?;
    vifd.until("the trunk bridge is gone", |_| Ok(ovs.row("Bridge", TRUNK_BRIDGE)?.is_none().then_some(())))?;
    ovs.stop_server(nix::sys::signal::Signal::SIGTERM)?;
    Ok(())
}
