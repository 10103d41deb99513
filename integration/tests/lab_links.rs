//! The lab itself, where it is about links: both os-vifs make what their sources say, and a [`Host`] shows it. vifd has
//! no part in this.

use anyhow::Result;
use serde_json::{Value, json};
use vifd_integration::lab::{
    Device, Domain, Emulated, Host, LinuxBridgeConfig, Namespace, OsVif, OsVifConfig, Ovs, Record, Switch, differences,
    shown_links,
};

/// Links by name, as a test asks for them: `links["brq-flat"]["mtu"]`.
fn links(namespace: &Namespace) -> Result<Value> {
    Ok(shown_links(namespace, |_| false)?.into())
}

/// A namespace with `eth1`, which has an address and the way to everywhere, as a host's only interface has.
fn host() -> Result<(Namespace, Namespace)> {
    let (host, outside) = (Namespace::new()?, Namespace::new()?);
    outside.veth("there", &host, "eth1", Some("02:00:00:00:00:01"), Some("192.0.2.5/24"))?;
    outside.run("ip", ["addr", "add", "192.0.2.1/24", "dev", "there"])?;
    for arguments in ["addr add 192.0.2.6/24 dev eth1", "route add default via 192.0.2.1 metric 50"] {
        host.run("ip", arguments.split(' '))?;
    }
    Ok((host, outside))
}

#[test]
fn a_flat_interface_gives_its_address_and_routes_to_its_bridge() -> Result<()> {
    let (host, outside) = host()?;
    let record = Record::fixture("bridge-flat")?.with_network("should_provide_bridge", true);
    let mut osvif = OsVif::with_linux_bridges(&host, &LinuxBridgeConfig::default())?;
    osvif.plug(&record)?;

    let seen = links(&host)?;
    let bridge = json!({
        "kind": "bridge", "up": true, "mtu": 1450, "mac": "02:00:00:00:00:01",
        // In hundredths of a second.
        "settings": {"ageing_time": 30_000, "stp_state": 0, "forward_delay": 0, "mcast_snooping": 0},
        "sysctls": {"disable_ipv6": "1", "arp_ignore": "1", "arp_announce": "2"},
        // Its second address is lost: the kernel takes it with the first one.
        "addresses": ["192.0.2.5/24 scope global"],
        "routes": [
            "192.0.2.0/24 protocol kernel scope link src 192.0.2.5",
            "default via 192.0.2.1 protocol boot scope global metric 50",
        ],
    });
    assert_eq!(differences(&bridge, &seen["brq-flat"], &["/addresses"]), Vec::<String>::new());
    let interface = json!({
        "kind": "veth", "up": true, "mtu": 1450, "master": "brq-flat", "below": "elsewhere",
        "mac": "02:00:00:00:00:01", "addresses": [], "routes": [],
    });
    assert_eq!(differences(&interface, &seen["eth1"], &[]), Vec::<String>::new());
    assert_eq!(outside.ping("192.0.2.5", 2)?.received, 2, "the host is still reached");

    // Again, as at every start; and unplugged, which changes nothing.
    osvif.plug(&record)?;
    assert_eq!(links(&host)?, seen);
    osvif.unplug(&record)?;
    assert_eq!(links(&host)?, seen);
    Ok(())
}

#[test]
fn a_configured_interface_comes_before_the_networks() -> Result<()> {
    let (host, _outside) = host()?;
    let record = Record::fixture("bridge-flat")?.with_network("should_provide_bridge", true);
    let record = record.with_network("bridge_interface", "eth7").with_network("mtu", Value::Null);
    let config = LinuxBridgeConfig {
        flat_interface: Some("eth1".into()),
        network_device_mtu: Some(1400),
        ..LinuxBridgeConfig::default()
    };
    OsVif::with_linux_bridges(&host, &config)?.plug(&record)?;
    let seen = links(&host)?;
    assert_eq!((&seen["eth1"]["master"], &seen["brq-flat"]["mtu"]), (&json!("brq-flat"), &json!(1400)));
    Ok(())
}

#[test]
fn a_bridge_that_nobody_asked_for_is_not_made() -> Result<()> {
    let host = Namespace::new()?;
    let mut osvif = OsVif::with_linux_bridges(&host, &LinuxBridgeConfig::default())?;
    let record = Record::fixture("bridge-flat")?;
    osvif.plug(&record)?;
    osvif.plug(&record.clone().with_network("should_provide_bridge", true).with_network("multi_host", true))?;
    assert_eq!(links(&host)?, json!({}));

    let alone = record.with_network("should_provide_bridge", true).with_network("bridge_interface", Value::Null);
    osvif.plug(&alone)?;
    let seen = links(&host)?;
    let bridge = json!({"kind": "bridge", "up": true, "mtu": 1500, "mac": "random", "addresses": [], "routes": []});
    assert_eq!(differences(&bridge, &seen["brq-flat"], &[]), Vec::<String>::new());
    Ok(())
}

#[test]
fn rules_go_through_the_real_iptables() -> Result<()> {
    let host = Namespace::new()?;
    let mut osvif = OsVif::with_linux_bridges(&host, &LinuxBridgeConfig::default())?;
    let record = Record::fixture("bridge-flat")?
        .with_network("should_provide_bridge", true)
        .with_network("bridge_interface", Value::Null);
    let rules = || host.run("iptables-legacy-save", ["-t", "filter"]);
    osvif.plug(&record)?;
    assert!(!rules()?.contains("brq-flat"), "neutron filters");
    osvif.plug(&record.with("has_traffic_filtering", false))?;
    let rules = rules()?;
    assert!(rules.contains("-A driver.py-FORWARD -i brq-flat -j ACCEPT"), "{rules}");
    Ok(())
}

/// Why vifd's VLAN links cannot be held against those of 4.3.1 beyond the link itself.
#[test]
fn a_vlan_is_not_plugged_to_its_end() -> Result<()> {
    let host = Namespace::new()?;
    // In place of the VLAN link, which not every kernel can make: os-vif takes what has its name.
    host.run("ip", ["link", "add", "vlan99", "type", "veth", "peer", "name", "other"])?;
    let mut osvif = OsVif::with_linux_bridges(&host, &LinuxBridgeConfig::default())?;
    let record = Record::fixture("bridge-vlan")?
        .with_network("should_provide_bridge", true)
        .with_network("should_provide_vlan", true);
    let error = osvif.plug(&record).unwrap_err().to_string();
    assert!(error.contains("missing 1 required positional argument: 'gateway'"), "{error}");
    assert_eq!(links(&host)?.get("brq-vlan"), None);
    Ok(())
}

#[test]
fn a_hybrid_vif_is_a_bridge_a_pair_and_a_port() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let record = Record::fixture("bridge-hybrid")?;
    let name = |prefix: &str| format!("{prefix}{}", record.id())[..14].to_owned();
    let (bridge, inner, outer) = (name("qbr"), name("qvb"), name("qvo"));
    osvif.plug(&record)?;
    let host = Host::observe(&ovs)?.0;
    let pair = |peer: &str, master: Value| {
        json!({
            "kind": "veth", "mac": "random", "mtu": 1450, "up": true, "promiscuous": true, "below": peer,
            "master": master,
        })
    };
    let wanted = json!({
        "links": {
            &bridge: {
                "kind": "bridge", "mac": "random", "mtu": 1450, "up": true, "promiscuous": false,
                "settings": {"ageing_time": 0, "stp_state": 0, "forward_delay": 0, "mcast_snooping": 0},
                "sysctls": {"disable_ipv6": "1", "arp_ignore": "1", "arp_announce": "2"},
            },
            &inner: pair(&outer, json!(bridge)),
            &outer: pair(&inner, Value::Null),
        },
        "bridges": {"br-int": {"ports": {"br-int": {}, &outer: {"interfaces": {&outer: {"external_ids": {
            "iface-id": record.id(), "iface-status": "active", "attached-mac": record.mac(),
        }}}}}}},
    });
    assert_eq!(differences(&wanted, &host, &["/links", "/bridges", "/ports"]), Vec::<String>::new());
    // Plugged again with another MTU, the pair has it and the bridge follows.
    osvif.plug(&record.clone().with_network("mtu", 1400))?;
    let host = Host::observe(&ovs)?.0;
    let mtus = [&bridge, &inner, &outer].map(|name| host["links"][name]["mtu"].clone());
    assert_eq!(mtus, [json!(1400), json!(1400), json!(1400)]);
    osvif.unplug(&record)?;
    assert_eq!(Host::observe(&ovs)?.0["links"], json!({}));
    Ok(())
}

/// Each line is one change to a host, which then differs where the line says.
#[test]
fn whatever_differs_is_seen() -> Result<()> {
    let host = Namespace::new()?;
    let ip = |arguments: &str| host.run("ip", arguments.split(' ')).map(drop);
    for made in [
        "link add br0 type bridge",
        "link add v0 type veth peer name v1",
        "link add link v0 name mac0 type macvtap mode vepa",
        "tuntap add dev t0 mode tap",
        "link set v0 up",
        "link set v1 up",
        "addr add 192.0.2.9/24 dev v1",
        "route add 198.51.100.0/24 via 192.0.2.1",
    ] {
        ip(made)?;
    }
    for (change, place) in [
        ("link set br0 type bridge ageing_time 0", "/br0/settings/ageing_time: 0 instead of 30000"),
        ("link set br0 type bridge stp_state 1", "/br0/settings/stp_state: 1 instead of 0"),
        ("link set br0 type bridge forward_delay 200", "/br0/settings/forward_delay: 200 instead of 1500"),
        ("link set br0 type bridge mcast_snooping 0", "/br0/settings/mcast_snooping: 0 instead of 1"),
        ("link set mac0 type macvtap mode bridge", "/mac0/settings/mode: \"bridge\" instead of \"vepa\""),
        ("link set v0 mtu 1400", "/v0/mtu: 1400 instead of 1500"),
        ("link set v1 master br0", "/v1/master: \"br0\" instead of null"),
        ("link set t0 address 02:00:00:00:00:07", "/t0/mac: \"02:00:00:00:00:07\" instead of \"random\""),
        ("link set t0 promisc on", "/t0/promiscuous: true instead of false"),
        ("link set t0 up", "/t0/up: true instead of false"),
        ("link set v1 name v2", "/v0/below: \"v2\" instead of \"v1\""),
        ("route add default via 192.0.2.2", "/v2/routes: "),
        ("addr add 192.0.2.10/24 dev v2", "/v2/addresses: "),
        ("addr add 2001:db8::1/64 dev v2", "/v2/addresses: "),
        ("link del v0", "/v2: "),
    ] {
        let before = links(&host)?;
        ip(change)?;
        let found = differences(&before, &links(&host)?, &[""]);
        assert!(found.iter().any(|line| line.starts_with(place)), "{change}: {place} is not in {found:#?}");
    }
    for (family, name) in [("ipv6", "disable_ipv6"), ("ipv4", "arp_ignore"), ("ipv4", "arp_announce")] {
        let before = links(&host)?;
        let path = format!("/proc/sys/net/{family}/conf/br0/{name}");
        host.enter(|| Ok(std::fs::write(&path, "1")?))?;
        let found = differences(&before, &links(&host)?, &[""]);
        assert!(found.contains(&format!("/br0/sysctls/{name}: \"1\" instead of \"0\"")), "{found:#?}");
    }
    Ok(())
}

const FIRST: (&str, &str) = ("02:00:00:00:01:01", "10.0.0.1/24");
const SECOND: (&str, &str) = ("02:00:00:00:01:02", "10.0.0.2/24");

fn guest(host: &Namespace, device: Device<'_>, (mac, address): (&str, &str)) -> Result<Emulated> {
    Emulated::start(host, device, mac, address)
}

#[test]
fn guests_on_taps_of_a_bridge_reach_each_other() -> Result<()> {
    let host = Namespace::new()?;
    let ip = |arguments: &str| host.run("ip", arguments.split(' ')).map(drop);
    ip("link add br0 up type bridge")?;
    // One tap that somebody made for the hypervisor, and one that it makes itself.
    ip("tuntap add dev tap1 mode tap multi_queue")?;
    let one = guest(&host, Device::Queue("tap1"), FIRST)?;
    let two = guest(&host, Device::Tap("tap2"), SECOND)?;
    assert!(guest(&host, Device::Tap("tap2"), SECOND).is_err(), "it is taken");
    assert_eq!(one.namespace().ping("10.0.0.2", 1)?.received, 0, "nothing connects them");
    for name in ["tap1", "tap2"] {
        ip(&format!("link set {name} master br0 up"))?;
    }
    assert_eq!(one.namespace().ping("10.0.0.2", 3)?.received, 3);
    drop((one, two));
    let left: Vec<String> = host.links()?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["br0", "tap1"], "the hypervisor's own went with it");
    Ok(())
}

#[test]
fn guests_on_macvtaps_reach_whom_the_mode_lets_them() -> Result<()> {
    let (host, outside) = (Namespace::new()?, Namespace::new()?);
    host.veth("lower", &outside, "upper", None, Some("10.0.0.9/24"))?;
    let ip = |arguments: &str| host.run("ip", arguments.split(' ')).map(drop);
    for (name, (mac, _)) in [("mv1", FIRST), ("mv2", SECOND)] {
        ip(&format!("link add link lower name {name} address {mac} type macvtap mode bridge"))?;
        ip(&format!("link set {name} up"))?;
    }
    let one = guest(&host, Device::Macvtap("mv1"), FIRST)?;
    let two = guest(&host, Device::Macvtap("mv2"), SECOND)?;
    assert_eq!(one.namespace().ping("10.0.0.2", 3)?.received, 3, "among each other");
    assert_eq!(two.namespace().ping("10.0.0.9", 3)?.received, 3, "to the outside");
    for name in ["mv1", "mv2"] {
        ip(&format!("link set {name} type macvtap mode vepa"))?;
    }
    assert_eq!(one.namespace().ping("10.0.0.2", 2)?.received, 0, "the switch outside would have to send it back");
    assert_eq!(one.namespace().ping("10.0.0.9", 3)?.received, 3);
    drop((one, two));
    ip("link del mv1")?;
    ip("link del mv2")?;
    ip(&format!("link add link lower name mv1 address {} type macvtap mode passthru", FIRST.0))?;
    ip("link set mv1 up")?;
    let one = guest(&host, Device::Macvtap("mv1"), FIRST)?;
    assert_eq!(one.namespace().ping("10.0.0.9", 3)?.received, 3);
    Ok(())
}

#[test]
fn guests_of_libvirt_reach_each_other_over_what_os_vif_made() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let mut guests = Vec::new();
    for (fixture, number) in [("bridge-hybrid", 1), ("bridge-hybrid", 2), ("openvswitch", 3)] {
        let record = Record::fixture(fixture)?.with_profile("datapath_type", "netdev").numbered(number);
        osvif.plug(&record)?;
        let mut guest = Domain::define(record);
        guest.start(&ovs)?;
        guests.push(guest);
    }
    let first = guests[0].guest()?.namespace();
    for other in &guests[1..] {
        assert_eq!(first.ping(&other.record.ip(), 3)?.received, 3, "{}", other.record.ip());
    }
    Ok(())
}
