//! VIFs on a fast path, which is OVS-DPDK here: a guest on a vhost-user port is reached through whatever its small bridge
//! leads into, and the netdev that ovs-vswitchd makes there is kept right, also when it is another one after a restart.
//!
//! One test with several scenes on one switch, because DPDK takes a processor for itself while it runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::{Namespace, Ovs, Record, Row, Switch, Testpmd, VhostPeer, Vifd, until};

/// A VIF of the fast path, and from where its guest is looked for.
struct Way {
    record: Record,
    /// Namespace of who looks for it; none for the host itself.
    from: Option<Namespace>,
    address: &'static str,
    /// The internal port's netdev, where there is one.
    netdev: Option<Netdev>,
}

struct Netdev {
    name: String,
    master: Option<String>,
    mac: Option<String>,
}

impl Way {
    fn port(&self) -> String {
        format!("vhu{}", &self.record.id()[..11])
    }

    fn ping(&self, ovs: &Ovs) -> Result<u32> {
        let from = self.from.as_ref().unwrap_or(ovs.namespace());
        Ok(from.ping(self.address, 2)?.received)
    }
}

struct Scene {
    ovs: Ovs,
    vifd: Vifd,
}

impl Scene {
    /// A fixture whose guest makes the socket itself, which outlives ovs-vswitchd.
    fn record(&self, fixture: &str) -> Result<Record> {
        let record = Record::fixture(fixture)?;
        let socket = self.socket(&record);
        Ok(record.with("mode", "server").with("path", socket.to_string_lossy().as_ref()))
    }

    fn socket(&self, record: &Record) -> PathBuf {
        self.ovs.run_directory().join("guests").join(format!("{}.sock", &record.id()[..8]))
    }

    /// Somebody at the end of a veth `name` of the host's.
    fn somebody(&self, name: &str, address: &str) -> Result<Namespace> {
        let there = Namespace::new()?;
        self.ovs.namespace().veth(name, &there, "eth0", None, Some(address))?;
        there.plain_device("eth0")?;
        Ok(there)
    }

    fn ip(&self, words: &str) -> Result<()> {
        self.ovs.namespace().run("ip", words.split(' ')).map(drop)
    }

    fn interface(&self, name: &str) -> Result<Row> {
        self.ovs.row("Interface", name)?.with_context(|| format!("no interface {name}"))
    }

    /// Waits until the netdev is as it should be, and gives its ifindex.
    fn settled(&mut self, way: &Way, after: &str) -> Result<Option<u64>> {
        let Some(netdev) = &way.netdev else { return Ok(None) };
        let (ovs, mut last) = (&self.ovs, None);
        let index = self
            .vifd
            .until(&format!("{after}: {} is right", netdev.name), |_| {
                last = ovs.namespace().link(&netdev.name)?;
                Ok(last.as_ref().and_then(|link| {
                    let mac = netdev.mac.as_ref().is_none_or(|mac| link.mac == *mac);
                    (link.up && link.mtu == 1450 && link.master == netdev.master && mac).then_some(link.index)
                }))
            })
            .with_context(|| format!("{last:?}"))?;
        self.vifd.wait_for(&way.record.id(), "ready")?;
        Ok(Some(index))
    }

    /// A guest with a port of every VIF, which answers on each: it makes its sockets and expects none to be there.
    fn guest(&mut self, ways: &[Way], when: &str) -> Result<Testpmd> {
        let sockets: Vec<_> = ways.iter().map(|way| self.socket(&way.record)).collect();
        for socket in sockets.iter().filter(|socket| socket.exists()) {
            std::fs::remove_file(socket)?;
        }
        let peers: Vec<_> = sockets.into_iter().map(VhostPeer::Server).collect();
        let guest = Testpmd::start(self.ovs.namespace(), &peers, "icmpecho")?;
        for way in ways {
            self.vifd.wait_until(&way.record.id(), "its guest", connected)?;
            self.reached(way, when)?;
        }
        Ok(guest)
    }

    fn reached(&self, way: &Way, after: &str) -> Result<()> {
        until(&format!("{after}: the guest of {} answers", way.port()), Duration::from_secs(30), || {
            Ok((way.ping(&self.ovs)? == 2).then_some(()))
        })
    }
}

fn connected(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().any(|one| one["type"] == "VhostConnected" && one["status"] == "True")
}

#[test]
fn guests_are_reached_through_what_their_fast_path_leads_into() -> Result<()> {
    let ovs = Ovs::start(Switch::Dpdk)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let mut scene = Scene { ovs, vifd };
    let ways = plugged(&mut scene)?;
    rows(&scene, &ways)?;

    let mut guest = scene.guest(&ways, "plugged")?;
    for way in &ways {
        // DPDK has none before there is a guest.
        assert_eq!(scene.interface(&way.port())?["mtu"], 1450);
    }
    repaired(&mut scene, &ways)?;
    for (when, cleaning) in [("a restart", false), ("a restart with new netdevs", true)] {
        restarted(&mut scene, &ways, when, cleaning)?;
        drop(guest);
        guest = scene.guest(&ways, when)?;
    }
    drop(guest); // as a crash would end it; its sockets stay
    unplugged(&mut scene, &ways)
}

/// Plugs one VIF of each type, each with somebody of its own to talk to.
fn plugged(scene: &mut Scene) -> Result<Vec<Way>> {
    scene.ovs.vsctl(["add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"])?;
    let of = |record: &Record, master: Option<&str>, mac: Option<String>| {
        Some(Netdev { name: record.vif_name(), master: master.map(str::to_owned), mac })
    };
    let mut ways = Vec::new();

    let record = scene.record("vhostuser-fp-openvswitch")?.with_profile("bridge_name", "br-fp");
    let from = scene.somebody("on-br-fp", "10.0.1.1/24")?;
    ways.push(Way { record, from: Some(from), address: "10.0.1.5", netdev: None });

    let record = scene.record("vhostuser-fp-openvswitch-hybrid")?;
    let from = scene.somebody("on-br-int", "10.0.2.1/24")?;
    let netdev = of(&record, Some("qbrdc060016-3c"), None);
    ways.push(Way { record, from: Some(from), address: "10.0.2.5", netdev });

    let record = scene.record("vhostuser-fp-bridge")?;
    let from = scene.somebody("on-brq-fp", "10.0.3.1/24")?;
    let netdev = of(&record, Some("brq-fp"), None);
    ways.push(Way { record, from: Some(from), address: "10.0.3.5", netdev });

    let record = scene.record("vhostuser-fp-tap")?;
    let netdev = of(&record, None, Some(record.mac()));
    ways.push(Way { record, from: None, address: "10.0.4.5", netdev });

    for way in &ways {
        scene.vifd.put(&way.record)?;
    }
    for way in &ways {
        let status = scene.vifd.wait_for(&way.record.id(), "ready")?;
        assert!(!connected(&status), "nobody is there yet: {status}");
        scene.settled(way, "plugged")?;
    }
    for bridge in ["br-fp", "br-int"] {
        scene.ovs.vsctl(["add-port", bridge, &format!("on-{bridge}")])?;
    }
    scene.ip("link set on-brq-fp master brq-fp")?;
    routed(scene)?;
    Ok(ways)
}

/// What the host's own routing does about a guest that it routes to. It is not vifd's, and goes with the netdev.
fn routed(scene: &Scene) -> Result<()> {
    scene.ip("addr add 10.0.4.1/32 dev tapdc060018-3c")?;
    scene.ip("route add 10.0.4.5/32 dev tapdc060018-3c")
}

/// Each type has the ports it should, and they were made in one go with all that they need.
fn rows(scene: &Scene, ways: &[Way]) -> Result<()> {
    let ports = |bridge: &str| scene.ovs.vsctl(["list-ports", bridge]);
    assert_eq!(ports("br-fp")?, "on-br-fp\nvhudc060015-3c\n");
    assert_eq!(ports("fpbdc060016-3c")?, "tapdc060016-3c\nvhudc060016-3c\n");
    assert_eq!(ports("br-int")?, "on-br-int\nqvodc060016-3c\n");
    assert_eq!(ports("fpbdc060017-3c")?, "tapdc060017-3c\nvhudc060017-3c\n");
    assert_eq!(ports("fpbdc060018-3c")?, "tapdc060018-3c\nvhudc060018-3c\n");
    let log = scene.ovs.log()?;
    for way in ways {
        let guests = scene.interface(&way.port())?;
        assert_eq!((&guests["type"], &guests["mtu_request"]), (&json!("dpdkvhostuserclient"), &json!(1450)));
        assert_eq!(guests["options"], json!({"vhost-server-path": scene.socket(&way.record)}));
        // Of the ports on a small bridge nobody asks whose they are.
        let named = if way.netdev.is_none() { Some(way.record.id()) } else { None };
        assert_eq!(guests["external_ids"].get("iface-id").and_then(Value::as_str), named.as_deref());
        let Some(netdev) = &way.netdev else { continue };
        let internal = scene.interface(&netdev.name)?;
        assert_eq!((&internal["type"], &internal["mtu_request"]), (&json!("internal"), &json!(1450)));
        let made = log.iter().find_map(|record| record.row("Interface", &netdev.name)).context("who made it")?;
        assert_eq!(made["type"], "internal", "{made}");
        assert_eq!(made["mtu_request"], 1450, "{made}");
        assert_eq!(made["mac"].as_str(), netdev.mac.as_deref(), "{made}");
    }
    let veth = scene.interface("qvodc060016-3c")?;
    assert_eq!(veth["external_ids"]["iface-id"], ways[1].record.id());
    for name in ["qvbdc060016-3c", "qvodc060016-3c"] {
        let link = scene.ovs.namespace().link(name)?.with_context(|| format!("no {name}"))?;
        assert_eq!((link.mtu, link.up), (1450, true), "{link:?}");
    }
    Ok(())
}

/// ovs-vswitchd that is killed leaves its netdevs behind and takes them up again; one that cleans up makes them anew, and
/// they have to be put where the old ones were.
fn restarted(scene: &mut Scene, ways: &[Way], when: &str, cleaning: bool) -> Result<()> {
    let mut before = Vec::new();
    for way in ways {
        before.push(scene.settled(way, "before it")?);
    }
    if cleaning {
        scene.ovs.appctl(["exit", "--cleanup"])?;
        until("ovs-vswitchd has removed its netdevs", Duration::from_secs(30), || {
            let links = scene.ovs.namespace().links()?;
            let there =
                |way: &Way| way.netdev.as_ref().is_some_and(|of| links.iter().any(|(name, _)| *name == of.name));
            Ok((!ways.iter().any(there)).then_some(()))
        })?;
    }
    scene.ovs.stop_vswitchd(Signal::SIGKILL)?;
    for way in ways {
        scene.vifd.wait_until(&way.record.id(), "no switch", |status| status["phase"] != "ready")?;
    }
    scene.ovs.start_vswitchd()?;
    for (way, before) in ways.iter().zip(before) {
        let after = scene.settled(way, when)?;
        assert_eq!(after != before, cleaning && before.is_some(), "{when}: netdev {before:?}, then {after:?}");
    }
    if cleaning { routed(scene) } else { Ok(()) }
}

/// What somebody does to a netdev is undone.
fn repaired(scene: &mut Scene, ways: &[Way]) -> Result<()> {
    for way in ways {
        let Some(netdev) = &way.netdev else { continue };
        let name = &netdev.name;
        let mut harm = vec![format!("link set {name} down"), format!("link set {name} mtu 900")];
        harm.extend(netdev.master.as_ref().map(|_| format!("link set {name} nomaster")));
        harm.extend(netdev.mac.as_ref().map(|_| format!("link set {name} address 02:00:00:00:00:01")));
        for harm in harm {
            scene.ip(&harm)?;
            scene.settled(way, &harm)?;
        }
    }
    // A device that was down has lost its routes.
    scene.ip("route replace 10.0.4.5/32 dev tapdc060018-3c")?;
    for way in ways {
        scene.reached(way, "after the repairs")?;
    }
    Ok(())
}

/// A Linux bridge goes with the last VIF that wants it when vifd made it, and stays when somebody else did.
fn unplugged(scene: &mut Scene, ways: &[Way]) -> Result<()> {
    scene.ip("link add brq-mine type bridge")?;
    let other = |number: u32, bridge: &str| {
        let id = format!("{number:08x}-4c1d-4d7e-9a52-0d4a8c3e5f60");
        let socket = scene.ovs.run_directory().join(format!("vhu{}", &id[..11]));
        Record::native(&json!({
            "type": "vhostuser", "id": id, "address": format!("22:52:26:00:00:{number:02x}"),
            "path": socket, "mode": "client",
            "network": {"id": "9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11", "mtu": 1400},
            "port_profile": {"type": "fp_bridge", "bridge_name": bridge},
        }))
    };
    let others = [other(2, "brq-mine"), other(1, "brq-fp")];
    for (record, bridge) in others.iter().zip(["brq-mine", "brq-fp"]) {
        scene.vifd.put(record)?;
        scene.vifd.wait_for(&record.id(), "ready")?;
        // Without a name in the record it has one of its own.
        let name = format!("fpi{}", &record.id()[..11]);
        let link = scene.ovs.namespace().link(&name)?.with_context(|| format!("no {name}"))?;
        assert_eq!((link.master.as_deref(), link.mtu, link.up), (Some(bridge), 1400, true), "{link:?}");
        let socket = scene.ovs.run_directory().join(format!("vhu{}", &record.id()[..11]));
        assert!(socket.exists(), "the socket of Open vSwitch");
    }
    for way in ways {
        scene.vifd.remove(&way.record)?;
        scene.vifd.wait_gone(&way.record.id())?;
        assert!(scene.socket(&way.record).exists(), "what is the guest's stays");
    }
    let link = |name: &str| scene.ovs.namespace().link(name);
    assert!(link("brq-fp")?.is_some(), "another VIF wants it");
    // With somebody else's device in it, it would stay.
    scene.ip("link set on-brq-fp nomaster")?;
    for record in &others {
        // By its name: a directory that is emptied within a moment is not believed.
        let unplugged = scene.vifd.cli(&["unplug", &record.id(), "--wait"])?;
        assert!(unplugged.status.success(), "{}", String::from_utf8_lossy(&unplugged.stderr));
        scene.vifd.wait_gone(&record.id())?;
        let socket = scene.ovs.run_directory().join(format!("vhu{}", &record.id()[..11]));
        until("Open vSwitch has removed its socket", Duration::from_secs(10), || Ok((!socket.exists()).then_some(())))?;
    }
    until("the bridge that vifd made is gone", Duration::from_secs(10), || {
        Ok(link("brq-fp")?.is_none().then_some(()))
    })?;
    assert!(link("brq-mine")?.is_some(), "vifd did not make it");
    assert_eq!(scene.ovs.vsctl(["list-br"])?, "br-fp\nbr-int\n");
    assert_eq!(scene.ovs.vsctl(["list-ports", "br-int"])?, "on-br-int\n");
    assert_eq!(scene.ovs.vsctl(["list-ports", "br-fp"])?, "on-br-fp\n");
    let mut left: Vec<String> = scene.ovs.namespace().links()?.into_iter().map(|(name, _)| name).collect();
    left.retain(|name| !name.starts_with("ovs-"));
    left.sort();
    assert_eq!(left, ["br-fp", "br-int", "brq-mine", "on-br-fp", "on-br-int", "on-brq-fp"]);
    Ok(())
}
