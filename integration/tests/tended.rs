//! Ports that the hypervisor makes (`create_port` false, Nova's default), with a libvirt that deletes and makes them again
//! as it likes: vifd looks after the port that is there, makes none itself, and touches no other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vifd_integration::lab::{
    Config, Domain, Host, OsVif, OsVifConfig, Ovs, Rack, Record, Row, Switch, Vifd, differences,
};

const MANAGED: &str = "[[bridge]]\nname = \"br-int\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n";

struct Scene {
    ovs: Ovs,
    vifd: Vifd,
    alice: Domain,
    bob: Domain,
}

fn record(number: u32) -> Result<Record> {
    Ok(Record::fixture("openvswitch")?.with_profile("datapath_type", "netdev").numbered(number))
}

/// Two guests that run and are ready, on a bridge whose flows are vifd's or Open vSwitch's own.
fn scene(more: &str) -> Result<Scene> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config = Config { more: more.into(), ..Config::default() };
    vifd.start()?;
    let mut domains = [Domain::define(record(11)?), Domain::define(record(12)?)];
    for domain in &mut domains {
        vifd.put(&domain.record)?;
        let waits = |status: &Value| status["phase"] == "plugged" && status["reason"] == "WaitingForHypervisorPort";
        vifd.wait_until(&domain.record.id(), "waiting for libvirt", waits)?;
        domain.start(&ovs)?;
    }
    let [alice, bob] = domains;
    let mut scene = Scene { ovs, vifd, alice, bob };
    scene.settled("started")?;
    assert_eq!(scene.pings()?, 3, "the guests reach each other");
    Ok(scene)
}

impl Scene {
    /// Waits until both ports are marked, as libvirt made them otherwise, and both VIFs are ready.
    fn settled(&mut self, after: &str) -> Result<()> {
        for record in [self.alice.record.clone(), self.bob.record.clone()] {
            let name = record.vif_name();
            let (ovs, mut odd) = (&self.ovs, Vec::new());
            self.vifd
                .until(&format!("{after}: the port of {name} is marked"), |_| {
                    odd = match port(ovs, &name)? {
                        Some(seen) => differences(&looked_after(&record), &seen, &[]),
                        None => vec!["no port".to_owned()],
                    };
                    Ok(odd.is_empty().then_some(()))
                })
                .with_context(|| odd.join("\n"))?;
            self.vifd.wait_for(&record.id(), "ready")?;
        }
        Ok(())
    }

    fn pings(&self) -> Result<u32> {
        Ok(self.alice.guest()?.namespace().ping(&self.bob.record.ip(), 3)?.received)
    }

    /// What must not change when somebody else's port does: bob's rows as they are, his flows with their cookies.
    fn bobs(&self) -> Result<(Value, Vec<String>)> {
        let row = port(&self.ovs, &self.bob.record.vif_name())?.context("bob's port")?;
        let id = self.bob.record.id();
        let flows = self.vifd.api("GET", &format!("/v1/vifs/{id}/flows"), None)?;
        let flows: Value = serde_json::from_str(&flows.body)?;
        let cookies: Vec<u64> = flows["cookies"].as_array().into_iter().flatten().filter_map(cookie).collect();
        let mut own: Vec<String> = Vec::new();
        for flow in self.ovs.flow_texts("br-int")? {
            if cookies.iter().any(|cookie| flow.contains(&format!("cookie={cookie:#x},"))) {
                own.push(flow);
            }
        }
        Ok((row, own))
    }

    /// Transactions that this vifd has sent.
    fn transactions(&self) -> Result<f64> {
        self.vifd.metric("vifd_batches_total", "backend=\"ovsdb\"")
    }
}

fn cookie(text: &Value) -> Option<u64> {
    u64::from_str_radix(text.as_str()?.trim_start_matches("0x"), 16).ok()
}

/// The rows of a port, with its interface under `interface`.
fn port(ovs: &Ovs, name: &str) -> Result<Option<Value>> {
    let mut tables = ovs.tables(["Port", "Interface"])?;
    let mut named = |table| {
        let rows: Vec<Row> = tables.remove(table).unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == name)
    };
    let (Some(port), Some(interface)) = (named("Port"), named("Interface")) else { return Ok(None) };
    let mut seen: BTreeMap<String, Value> = port;
    seen.insert("interface".into(), json!(only_told(interface)));
    Ok(Some(json!(seen)))
}

/// The number of a port in OpenFlow.
fn number(ovs: &Ovs, name: &str) -> Result<i64> {
    ovs.row("Interface", name)?.and_then(|row| row["ofport"].as_i64()).context("a port with a number")
}

/// Without what ovs-vswitchd counts.
fn only_told(mut interface: Row) -> Row {
    for counted in ["statistics", "status", "link_resets"] {
        interface.remove(counted);
    }
    interface
}

/// A port that libvirt made and vifd looks after.
fn looked_after(record: &Record) -> Value {
    json!({
        "other_config": {"transient": "true"},
        "external_ids": {"vifd-owner": "vifd", "vifd-vif": record.id()},
        "interface": {"external_ids": {
            "attached-mac": record.mac(), "iface-id": record.id(), "iface-status": "active",
            "vm-id": record.instance_id(), "vm-uuid": record.instance_id(),
            "vifd-owner": "vifd", "vifd-vif": record.id(),
        }},
    })
}

#[test]
fn whatever_libvirt_does_the_port_is_looked_after() -> Result<()> {
    for flows in ["", MANAGED] {
        let mut scene = scene(flows)?;
        let bobs = scene.bobs()?;
        assert_eq!(bobs.1.is_empty(), flows.is_empty(), "{:?}", bobs.1);
        type Step = fn(&mut Scene) -> Result<()>;
        let steps: [(&str, Step); 4] = [
            ("the port was made anew under the guest", |scene| scene.alice.renew_port(&scene.ovs)),
            ("the guest was started anew", |scene| {
                scene.alice.stop(&scene.ovs)?;
                scene.alice.start(&scene.ovs)
            }),
            ("the guest was started anew, and its number went to somebody else", |scene| {
                let name = scene.alice.record.vif_name();
                let before = number(&scene.ovs, &name)?;
                scene.alice.stop(&scene.ovs)?;
                let takes = format!("ofport_request={before}");
                scene.ovs.vsctl([
                    "add-port",
                    "br-int",
                    "other",
                    "--",
                    "set",
                    "Interface",
                    "other",
                    "type=internal",
                    &takes,
                ])?;
                scene.alice.start(&scene.ovs)?;
                assert_eq!(number(&scene.ovs, "other")?, before);
                assert_ne!(number(&scene.ovs, &name)?, before);
                Ok(())
            }),
            ("the port was made anew three times at once", |scene| {
                (0..3).try_for_each(|_| scene.alice.renew_port(&scene.ovs))
            }),
        ];
        for (what, step) in steps {
            let before = scene.transactions()?;
            step(&mut scene)?;
            scene.settled(what)?;
            assert_eq!(scene.pings()?, 3, "{what}: nothing passes");
            // Marked once each time it was made, and nothing else was done; the word of a port that was gone again by then
            // is refused.
            let wrote = scene.transactions()? - before;
            let most = if what.contains("three times") { 6.0 } else { 1.0 };
            assert!((1.0..=most).contains(&wrote), "{what}: {wrote} transactions");
            assert_eq!(scene.bobs()?, bobs, "{what}: the other one's is as it was");
        }
    }
    Ok(())
}

#[test]
fn a_port_is_libvirts_to_make_and_to_delete() -> Result<()> {
    let mut scene = scene(MANAGED)?;
    let (name, id) = (scene.alice.record.vif_name(), scene.alice.record.id());
    let row = port(&scene.ovs, &name)?;
    // The guest has crashed; libvirt has yet to notice.
    let before = scene.transactions()?;
    scene.alice.kill();
    scene.vifd.wait_until(&id, "its device gone", |status| {
        status["phase"] == "plugged" && status["reason"] == "WaitingForNetdev"
    })?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(port(&scene.ovs, &name)?.map(|row| row["_uuid"].clone()), row.map(|row| row["_uuid"].clone()));
    assert_eq!(scene.transactions()?, before, "nothing is written to a port without its device");
    scene.alice.remove_port(&scene.ovs)?;
    scene.vifd.wait_until(&id, "its port gone", |status| status["reason"] == "WaitingForHypervisorPort")?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((port(&scene.ovs, &name)?, scene.transactions()?), (None, before), "vifd makes none");
    scene.alice.start(&scene.ovs)?;
    scene.settled("started again")?;
    assert_eq!(scene.pings()?, 3);
    Ok(())
}

#[test]
fn what_libvirt_did_while_vifd_was_away_is_caught_up_with() -> Result<()> {
    let mut scene = scene(MANAGED)?;
    let bobs = scene.bobs()?;
    for abruptly in [false, true] {
        if abruptly { scene.vifd.kill() } else { scene.vifd.stop() }?;
        scene.alice.stop(&scene.ovs)?;
        scene.alice.start(&scene.ovs)?;
        scene.vifd.start()?;
        scene.settled("vifd is back")?;
        assert_eq!(scene.pings()?, 3);
        assert_eq!(scene.bobs()?, bobs);
    }
    // Nothing to catch up with, nothing written.
    scene.vifd.stop()?;
    scene.vifd.start()?;
    scene.settled("nothing happened")?;
    assert_eq!(scene.vifd.metric("vifd_writes_total", "")?, 0.0);
    Ok(())
}

/// The name is libvirt's to give. A port that has it and another `iface-id` is another VIF's.
#[test]
fn a_port_with_another_identity_is_not_touched() -> Result<()> {
    let mut scene = scene("")?;
    let (name, id) = (scene.alice.record.vif_name(), scene.alice.record.id());
    let stranger = Domain::define(record(99)?.with("vif_name", name.as_str()));
    stranger.renew_port(&scene.ovs)?;
    scene.vifd.wait_for(&id, "conflict")?;
    let seen = port(&scene.ovs, &name)?.context("the port")?;
    assert_eq!(seen["interface"]["external_ids"]["iface-id"], stranger.record.id());
    assert_eq!(seen["interface"]["external_ids"].get("vifd-owner"), None);
    // Not even when its own record goes.
    scene.vifd.remove(&scene.alice.record)?;
    scene.vifd.wait_gone(&id)?;
    assert_eq!(port(&scene.ovs, &name)?.map(|row| row["_uuid"].clone()), Some(seen["_uuid"].clone()));
    Ok(())
}

#[test]
fn a_guest_moves_from_one_host_to_another() -> Result<()> {
    let rack = Rack::start()?;
    let peer = rack.machine(7, "22:52:26:00:00:63", "10.0.0.99/24")?;
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let ovs = Ovs::start(Switch::Userspace)?;
        ovs.vsctl(["add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"])?;
        rack.join(&ovs, "uplink", Some(7))?;
        ovs.vsctl(["add-port", "br-int", "uplink"])?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.start()?;
        hosts.push((ovs, vifd));
    }
    let (mut target, mut source) = (hosts.pop().context("a host")?, hosts.pop().context("a host")?);
    let record = record(11)?;
    let id = record.id();
    let (mut old, mut new) = (Domain::define(record.clone()), Domain::define(record.clone()));
    source.1.put(&record)?;
    source.1.wait_for(&id, "plugged")?;
    old.start(&source.0)?;
    source.1.wait_for(&id, "ready")?;
    assert_eq!(peer.ping(&record.ip(), 3)?.received, 3);

    // Nova has the target plug before libvirt prepares; both hosts have the VIF for as long as the memory is copied.
    target.1.put(&record)?;
    target.1.wait_for(&id, "plugged")?;
    new.prepare(&target.0)?;
    target.1.wait_for(&id, "ready")?;
    source.1.wait_for(&id, "ready")?;
    assert_eq!(peer.ping(&record.ip(), 3)?.received, 3, "the guest still runs where it was");
    old.stop(&source.0)?;
    new.resume()?;
    // The first of these tells the switches where the guest is now, as QEMU does.
    assert_eq!(new.guest()?.namespace().ping("10.0.0.99", 3)?.received, 3);
    assert_eq!(peer.ping(&record.ip(), 3)?.received, 3);
    source.1.remove(&record)?;
    source.1.wait_gone(&id)?;
    assert!(port(&source.0, &record.vif_name())?.is_none());
    target.1.wait_for(&id, "ready")?;
    assert_eq!(peer.ping(&record.ip(), 3)?.received, 3, "what the old host forgets the new one keeps");
    Ok(())
}

/// The same life on a host of os-vif's: nothing is there that would not be there, and what is left is the same.
#[test]
fn a_life_is_as_with_os_vif() -> Result<()> {
    for guest_first in [true, false] {
        let (theirs, ours) = (Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?);
        let mut osvif = OsVif::beside(&theirs, OsVifConfig::default())?;
        let mut vifd = Vifd::beside(&ours)?;
        vifd.start()?;
        let record = Record::fixture("openvswitch")?;
        let mut domains = (Domain::define(record.clone()), Domain::define(record.clone()));
        osvif.plug(&record)?;
        vifd.put(&record)?;
        vifd.wait_for(&record.id(), "plugged")?;
        same(&mut vifd, &theirs, &ours, "plugged")?;
        for _ in 0..2 {
            domains.0.kill();
            domains.1.kill();
            domains.0.start(&theirs)?;
            domains.1.start(&ours)?;
            same(&mut vifd, &theirs, &ours, "started")?;
            osvif.plug(&record)?;
            same(&mut vifd, &theirs, &ours, "plugged again")?;
        }
        let mut stop = || -> Result<()> {
            domains.0.stop(&theirs)?;
            domains.1.stop(&ours)
        };
        if guest_first {
            stop()?;
            same(&mut vifd, &theirs, &ours, "stopped")?;
        }
        osvif.unplug(&record)?;
        vifd.remove(&record)?;
        vifd.wait_gone(&record.id())?;
        if !guest_first {
            // os-vif takes the device from the guest that still has it; for vifd it is the hypervisor's.
            assert!(theirs.namespace().links()?.is_empty(), "{:?}", theirs.namespace().links()?);
            assert!(ours.namespace().link(&record.vif_name())?.is_some());
            stop()?;
        }
        same(&mut vifd, &theirs, &ours, "unplugged")?;
    }
    Ok(())
}

/// Waits until vifd's host has what os-vif's has; vifd may add keys to rows.
fn same(vifd: &mut Vifd, theirs: &Ovs, ours: &Ovs, when: &str) -> Result<()> {
    let model = Host::observe(theirs)?;
    let mut last = Vec::new();
    vifd.until(&format!("{when}: both hosts are the same"), |_| {
        last = differences(&model.0, &Host::observe(ours)?.0, &["/bridges", "/ports", "/interfaces", "/links", "/qos"]);
        Ok(last.is_empty().then_some(()))
    })
    .with_context(|| last.join("\n"))
}
