//! Promise 3: what somebody else changes is repaired because the peer says so, without a poll, and
//! what is foreign survives. `resync` is off throughout: nothing here would ever be looked at again
//! without a notification. The times are printed, not judged: they are the machine's as much as
//! vifd's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::{Namespace, Ovs, Record, Switch, Vifd};

struct Scene {
    ovs: Ovs,
    vifd: Vifd,
    record: Record,
}

/// One VIF with tap and port, ready.
fn scene() -> Result<Scene> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let record = Record::fixture("openvswitch-netdev")?;
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "ready")?;
    Ok(Scene { ovs, vifd, record })
}

impl Scene {
    /// Does harm, sees that it took effect or was mended already, and waits until it is mended.
    fn mended(
        &mut self,
        harm: &str,
        damage: impl FnOnce(&Ovs, &str) -> Result<()>,
        good: impl Fn(&Ovs, &str) -> Result<bool>,
    ) -> Result<()> {
        let (ovs, name) = (&self.ovs, self.record.vif_name());
        assert!(good(ovs, &name)?, "before {harm}");
        let before = self.vifd.metric("vifd_writes_total", "")?;
        damage(ovs, &name)?;
        let start = Instant::now();
        self.vifd.until(&format!("{harm} is mended"), |_| Ok(good(ovs, &name)?.then_some(())))?;
        println!("{harm}: mended within {:?}", start.elapsed());
        self.vifd.wait_for(&self.record.id(), "ready")?;
        let after = self.vifd.metric("vifd_writes_total", "")?;
        assert!(after > before, "{harm} did no harm");
        Ok(())
    }
}

fn vsctl(ovs: &Ovs, args: &[&str]) -> Result<()> {
    ovs.vsctl(["--no-wait"].iter().chain(args)).map(drop)
}

fn interface(ovs: &Ovs, name: &str, column: &str) -> Result<Value> {
    let row = ovs.row("Interface", name)?;
    Ok(row.and_then(|mut row| row.remove(column)).unwrap_or_default())
}

fn usable(ovs: &Ovs, name: &str) -> Result<bool> {
    let number = interface(ovs, name, "ofport")?;
    Ok(number.as_i64().is_some_and(|number| number > 0))
}

#[test]
fn what_others_break_is_mended() -> Result<()> {
    let mut scene = scene()?;
    let id = scene.record.id();
    let mac = scene.record.mac();

    scene.mended("del-port", |ovs, name| vsctl(ovs, &["del-port", name]), usable)?;
    scene.mended(
        "a changed iface-id",
        |ovs, name| vsctl(ovs, &["set", "Interface", name, "external_ids:iface-id=other"]),
        |ovs, name| Ok(interface(ovs, name, "external_ids")?["iface-id"] == id),
    )?;
    scene.mended(
        "a removed attached-mac",
        |ovs, name| vsctl(ovs, &["remove", "Interface", name, "external_ids", "attached-mac"]),
        |ovs, name| Ok(interface(ovs, name, "external_ids")?["attached-mac"] == mac),
    )?;
    scene.mended(
        "a deleted tap",
        |ovs, name| ovs.namespace().run("ip", ["link", "del", name]).map(drop),
        |ovs, name| Ok(ovs.namespace().link(name)?.is_some() && usable(ovs, name)?),
    )?;
    scene.mended(
        "a changed MTU",
        |ovs, name| ovs.namespace().run("ip", ["link", "set", name, "mtu", "1400"]).map(drop),
        |ovs, name| Ok(ovs.namespace().link(name)?.is_some_and(|link| link.mtu == 1450)),
    )?;
    scene.mended(
        "a link set down",
        |ovs, name| ovs.namespace().run("ip", ["link", "set", name, "down"]).map(drop),
        |ovs, name| Ok(ovs.namespace().link(name)?.is_some_and(|link| link.up)),
    )?;
    scene.mended("a deleted bridge", |ovs, _| vsctl(ovs, &["del-br", "br-int"]), usable)?;

    // What was mended can be found again.
    let log = std::fs::read_to_string(scene.vifd.log_file())?;
    let name = scene.record.vif_name();
    for mended in [
        format!("repaired: port {name} was gone from bridge br-int: made again"),
        format!("repaired: change interface {name}: external_ids:iface-id={id}"),
        format!("tap {name} was gone: made again"),
        format!("change link {name}: mtu 1450"),
    ] {
        assert!(log.contains(&mended), "{mended:?} is not in\n{log}");
    }
    Ok(())
}

/// Whether packets can pass: the userspace datapath moves those of a netdev through a packet socket on it. It does not
/// notice that a netdev was deleted and made again, and shows the port as it was; then nothing passes.
fn passes(ovs: &Ovs, name: &str) -> Result<bool> {
    // proc(5), /proc/net/packet: the fifth column is the link's index.
    let sockets = ovs.namespace().enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/packet")?))?;
    let index = ovs.namespace().link(name)?.map(|link| link.index.to_string());
    Ok(sockets.lines().any(|line| line.split_whitespace().nth(4) == index.as_deref()))
}

#[test]
fn a_deleted_tap_is_back_in_the_datapath() -> Result<()> {
    let Scene { mut ovs, mut vifd, record } = scene()?;
    let (name, id) = (record.vif_name(), record.id());
    let index = |ovs: &Ovs| -> Result<_> { Ok(ovs.namespace().link(&name)?.map(|link| link.index)) };
    assert!(passes(&ovs, &name)?, "before any harm");
    let mut mended = |ovs: &mut Ovs, harm: &str, damage: &dyn Fn(&mut Vifd, &mut Ovs) -> Result<()>| -> Result<()> {
        let before = index(ovs)?.context("the tap")?;
        damage(&mut vifd, ovs)?;
        vifd.until(&format!("{harm}: there is a new tap"), |_| {
            Ok(index(ovs)?.is_some_and(|index| index != before).then_some(()))
        })?;
        vifd.wait_for(&id, "ready")?;
        assert!(passes(ovs, &name)?, "{harm}: ready, and ovs-vswitchd does not listen on the new tap");
        Ok(())
    };
    let delete = |ovs: &Ovs| ovs.namespace().run("ip", ["link", "del", &name]).map(drop);
    mended(&mut ovs, "deleted", &|_, ovs| delete(ovs))?;
    mended(&mut ovs, "deleted while vifd is away", &|vifd, ovs| {
        vifd.stop()?;
        delete(ovs)?;
        vifd.start()
    })?;
    mended(&mut ovs, "deleted while ovs-vswitchd stands still", &|vifd, ovs| {
        let switch = ovs.vswitchd().context("ovs-vswitchd")?;
        switch.signal(Signal::SIGSTOP)?;
        delete(ovs)?;
        vifd.until("vifd has taken the port away", |_| Ok(ovs.row("Interface", &name)?.is_none().then_some(())))?;
        // Now it would make tap and port within milliseconds.
        std::thread::sleep(Duration::from_millis(300));
        switch.signal(Signal::SIGCONT)
    })?;
    mended(&mut ovs, "deleted while ovs-vswitchd is away", &|_, ovs| {
        ovs.stop_vswitchd(Signal::SIGKILL)?;
        delete(ovs)?;
        ovs.start_vswitchd()
    })
}

/// The guest is stopped and started: its hypervisor deletes the tap and makes it again, under a port that vifd made.
#[test]
fn a_hypervisors_tap_is_back_in_the_datapath() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let record = Record::fixture("openvswitch-create-port")?.with_profile("datapath_type", "netdev");
    let (name, id) = (record.vif_name(), record.id());
    vifd.put(&record)?;
    let ip = |arguments: &[&str]| ovs.namespace().run("ip", arguments).map(drop);
    for round in ["first", "stopped and started", "stopped while vifd is away, and started", "for good measure"] {
        vifd.wait_until(&id, "waiting for its tap", |status| {
            status["phase"] == "plugged" && status["reason"] == "WaitingForNetdev"
        })?;
        ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        ip(&["link", "set", &name, "up"])?;
        vifd.wait_for(&id, "ready")?;
        assert!(passes(&ovs, &name)?, "{round}: ready, and ovs-vswitchd does not listen on the tap");
        let away = round == "stopped and started";
        if away {
            vifd.stop()?;
        }
        ip(&["link", "del", &name])?;
        if away {
            vifd.start()?;
        }
    }
    Ok(())
}

#[test]
fn a_hypervisors_port_is_looked_after_when_it_is_made_again() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    // As Nova sends it by default: libvirt makes the port.
    let record = Record::fixture("openvswitch")?.with_profile("datapath_type", "netdev");
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "plugged")?;
    let (name, id) = (record.vif_name(), record.id());
    let guest = Namespace::new()?;
    ovs.namespace().veth(&name, &guest, "eth0", Some(&record.mac()), None)?;
    let add = |ovs: &Ovs| {
        vsctl(
            ovs,
            &[
                "--if-exists",
                "del-port",
                &name,
                "--",
                "add-port",
                "br-int",
                &name,
                "--",
                "set",
                "Interface",
                &name,
                &format!("external_ids:iface-id={id}"),
                "external_ids:libvirt=yes",
            ],
        )
    };
    add(&ovs)?;
    vifd.wait_for(&id, "ready")?;
    for _ in 0..3 {
        // libvirt does both in one transaction, so vifd's keys vanish and the port does not.
        add(&ovs)?;
        vifd.until("vifd's keys are on the new port", |_| {
            let keys = interface(&ovs, &name, "external_ids")?;
            let stamped = keys["attached-mac"] == record.mac() && keys["vifd-vif"] == id;
            Ok((stamped && keys["libvirt"] == "yes").then_some(()))
        })?;
        vifd.wait_for(&id, "ready")?;
    }
    vifd.remove(&record)?;
    vifd.wait_gone(&id)?;
    assert!(ovs.row("Interface", &name)?.is_none(), "os-vif removes the port at unplug");
    Ok(())
}

#[test]
fn what_is_foreign_survives() -> Result<()> {
    let Scene { ovs, mut vifd, record } = scene()?;
    let (name, id) = (record.vif_name(), record.id());
    let guest = Namespace::new()?;
    ovs.namespace().veth("foreign0", &guest, "eth0", None, None)?;
    ovs.namespace().run("ip", ["tuntap", "add", "dev", "foreign1", "mode", "tap"])?;
    ovs.vsctl([
        "add-port",
        "br-int",
        "foreign0",
        "--",
        "set",
        "Interface",
        "foreign0",
        "external_ids:iface-id=someone",
        "--",
        "set",
        "Port",
        "foreign0",
        "tag=7",
    ])?;
    ovs.vsctl(["add-br", "br-foreign", "--", "set", "Bridge", "br-foreign", "datapath_type=netdev"])?;
    ovs.vsctl(["set", "Interface", &name, "external_ids:foreign=key", "other_config:foreign=key"])?;
    ovs.vsctl(["set", "Port", &name, "tag=9", "other_config:foreign=key"])?;
    ovs.vsctl(["set", "Bridge", "br-int", "other_config:foreign=key", "external_ids:foreign=key"])?;
    let survives = |with_port: bool| -> Result<()> {
        let port = ovs.row("Port", "foreign0")?.context("foreign0 is gone")?;
        assert_eq!(port["tag"], json!(7));
        assert_eq!(interface(&ovs, "foreign0", "external_ids")?, json!({"iface-id": "someone"}));
        assert!(ovs.row("Bridge", "br-foreign")?.is_some());
        let bridge = ovs.row("Bridge", "br-int")?.context("br-int is gone")?;
        assert_eq!(bridge["other_config"]["foreign"], "key");
        assert_eq!(bridge["external_ids"]["foreign"], "key");
        for link in ["foreign0", "foreign1"] {
            assert!(ovs.namespace().link(link)?.is_some(), "{link} is gone");
        }
        if with_port {
            let port = ovs.row("Port", &name)?.context("the port is gone")?;
            assert_eq!(port["other_config"]["foreign"], "key");
            assert_eq!(port["tag"], json!(9), "neutron's tag on the VIF's port");
            assert_eq!(interface(&ovs, &name, "external_ids")?["foreign"], "key");
            assert_eq!(interface(&ovs, &name, "other_config")?["foreign"], "key");
        }
        Ok(())
    };
    // Something to repair right beside the foreign keys.
    vsctl(&ovs, &["set", "Interface", &name, "external_ids:iface-id=other"])?;
    vifd.until("the key is mended", |_| Ok((interface(&ovs, &name, "external_ids")?["iface-id"] == id).then_some(())))?;
    survives(true)?;
    vifd.stop()?;
    vifd.start()?;
    vifd.wait_for(&id, "ready")?;
    survives(true)?;
    vifd.remove(&record)?;
    vifd.wait_gone(&id)?;
    survives(false)?;

    // A wanted name that somebody else has is a conflict, shown and not overwritten.
    let clash = Record::fixture("openvswitch-netdev")?.numbered(5).with("vif_name", "foreign0");
    vifd.put(&clash)?;
    let status = vifd.wait_for(&clash.id(), "conflict")?;
    assert!(status["message"].to_string().contains("foreign0"), "{status}");
    survives(false)?;
    let link = Record::fixture("generic")?.numbered(6).with("vif_name", "foreign1");
    vifd.put(&link)?;
    vifd.wait_for(&link.id(), "conflict")?;
    survives(false)
}
