//! Promise 3 where a VIF has links beside its port: what hands do to the Linux bridge, the veth pair and the guest's tap of
//! a hybrid VIF. `resync` is off: each repair is made because the kernel or the database told of the harm. What is not
//! vifd's stays as it is, and one sentence says so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use vifd_integration::lab::{Domain, Ovs, Record, Switch, Vifd, differences, shown_links};

fn record(number: u32) -> Result<Record> {
    Ok(Record::fixture("bridge-hybrid")?.numbered(number).with_profile("datapath_type", "netdev"))
}

struct Scene {
    ovs: Ovs,
    vifd: Vifd,
    /// The first is harmed, the second asks it for a reply.
    guests: [Domain; 2],
    /// As the links are when all is well.
    well: Value,
}

/// Two hybrid VIFs, ready, and a guest of libvirt's on the bridge of each.
fn scene() -> Result<Scene> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let mut guests = [Domain::define(record(1)?), Domain::define(record(2)?)];
    for guest in &mut guests {
        vifd.put(&guest.record)?;
        vifd.wait_for(&guest.record.id(), "ready")?;
        guest.start(&ovs)?;
    }
    let mut scene = Scene { ovs, vifd, guests, well: Value::Null };
    assert!(scene.answers()?, "before any harm");
    // The switch makes its links promiscuous a moment after it has numbered them.
    scene.well = seen(&scene.ovs)?;
    Ok(scene)
}

/// Everything about the links of the host but their numbers.
fn seen(ovs: &Ovs) -> Result<Value> {
    let mut shown = shown_links(ovs.namespace(), |name| name == "other")?;
    for (name, link) in ovs.namespace().links()? {
        if let Some(shown) = shown.get_mut(&name) {
            shown["mark"] = link.alias.into();
            // A bridge that was given no address has the lowest of its ports', which are anew by chance.
            if shown["kind"] == "bridge" {
                shown["mac"] = Value::Null;
            }
        }
    }
    Ok(shown.into())
}

fn ip(ovs: &Ovs, arguments: &str) -> Result<()> {
    ovs.namespace().run("ip", arguments.split(' ')).map(drop)
}

impl Scene {
    fn record(&self) -> &Record {
        &self.guests[0].record
    }

    /// The Linux bridge, the end in it, and the end in Open vSwitch.
    fn names(&self) -> [String; 3] {
        self.record().hybrid_links().unwrap_or_default()
    }

    fn answers(&self) -> Result<bool> {
        let asking = self.guests[1].guest()?.namespace();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if asking.ping(&self.record().ip(), 1)?.received == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Does harm, and waits until every link is as it was, the VIF ready and its guest heard again.
    fn mended(&mut self, harm: &str, damage: impl FnOnce(&Ovs) -> Result<()>) -> Result<()> {
        let id = self.record().id();
        let before = self.vifd.metric("vifd_writes_total", "")?;
        damage(&self.ovs)?;
        let start = Instant::now();
        let (ovs, well) = (&self.ovs, &self.well);
        let mut odd = Vec::new();
        let mended = self.vifd.until(&format!("{harm}: mended"), |vifd| {
            odd = differences(well, &seen(ovs)?, &[""]);
            Ok((odd.is_empty() && vifd.metric("vifd_writes_total", "")? > before).then_some(()))
        });
        mended.with_context(|| format!("{odd:#?}"))?;
        println!("{harm}: mended within {:?}", start.elapsed());
        self.vifd.wait_for(&id, "ready")?;
        assert!(self.answers()?, "{harm}: mended, and the guest does not answer");
        Ok(())
    }

    /// Does what vifd must not touch: it says so, and all is well when it is undone.
    fn refused(&mut self, what: &str, does: &str, sentence: &str, undone: &str) -> Result<()> {
        let id = self.record().id();
        ip(&self.ovs, does)?;
        let status = self.vifd.wait_for(&id, "conflict")?;
        assert!(status["message"].as_str().is_some_and(|message| message.starts_with(sentence)), "{what}: {status}");
        let there = seen(&self.ovs)?;
        assert_ne!(there, self.well, "{what} did nothing");
        ip(&self.ovs, undone)?;
        self.vifd.wait_for(&id, "ready")?;
        assert_eq!(seen(&self.ovs)?, self.well, "{what}");
        assert!(self.answers()?, "{what}: undone, and the guest does not answer");
        Ok(())
    }
}

#[test]
fn what_hands_do_to_the_links_of_a_hybrid_vif_is_mended() -> Result<()> {
    let mut scene = scene()?;
    let tap = scene.record().vif_name();
    let [bridge, inner, outer] = scene.names();
    ip(&scene.ovs, "link add other up type bridge")?;
    for harm in [
        format!("link del {bridge}"),
        format!("link del {inner}"),
        format!("link del {outer}"),
        format!("link set {bridge} name astray"),
        format!("link set {inner} name astray"),
        format!("link set {outer} name astray"),
        format!("link set {bridge} down"),
        format!("link set {inner} down"),
        format!("link set {outer} down"),
        format!("link set {inner} promisc off"),
        format!("link set {inner} mtu 1400"),
        format!("link set {outer} mtu 1400"),
        format!("link set {inner} master other"),
        format!("link set {inner} nomaster"),
        format!("link set {tap} nomaster"),
        format!("link set {bridge} type bridge ageing_time 30000"),
        format!("link set {bridge} type bridge stp_state 1"),
        format!("link set {bridge} type bridge forward_delay 1500"),
        format!("link set {bridge} type bridge mcast_snooping 1"),
    ] {
        scene.mended(&harm, |ovs| ip(ovs, &harm))?;
    }
    scene.mended("del-port", |ovs| ovs.vsctl(["--no-wait", "del-port", &outer]).map(drop))?;
    // What was mended can be found again.
    let log = std::fs::read_to_string(scene.vifd.log_file())?;
    for mended in [
        format!("bridge {bridge} was gone: made again"),
        format!("change link {inner}: mtu 1450"),
        format!("repaired: port {outer} was gone from bridge br-int: made again"),
    ] {
        assert!(log.contains(&mended), "{mended:?} is not in\n{log}");
    }
    Ok(())
}

/// A mark that was wiped. The two ends of a pair are born together, so an end is known by the other's mark. Nothing says
/// so of a bridge: anybody can make one and put our link into it.
#[test]
fn a_mark_that_was_wiped() -> Result<()> {
    let mut scene = scene()?;
    let [bridge, inner, outer] = scene.names();
    for end in [&inner, &outer] {
        scene.mended("a wiped mark", |ovs| ovs.namespace().run("ip", ["link", "set", end, "alias", ""]).map(drop))?;
    }
    let mark = scene.ovs.namespace().link(&bridge)?.context("the bridge")?.alias;
    scene.ovs.namespace().run("ip", ["link", "set", &bridge, "alias", ""])?;
    let id = scene.record().id();
    let status = scene.vifd.wait_for(&id, "conflict")?;
    let sentence = format!("a link named {bridge} is there and vifd did not make it (adoption is off: [agent] adopt)");
    assert!(status["message"].as_str().is_some_and(|message| message.starts_with(&sentence)), "{status}");
    assert!(scene.answers()?, "the guest is not disturbed");
    scene.ovs.namespace().run("ip", ["link", "set", &bridge, "alias", &mark])?;
    scene.vifd.wait_for(&id, "ready")?;
    Ok(())
}

#[test]
fn what_is_the_hypervisors_or_somebody_elses_is_a_conflict() -> Result<()> {
    let mut scene = scene()?;
    let tap = scene.record().vif_name();
    let [bridge, ..] = scene.names();
    ip(&scene.ovs, "link add other up type bridge")?;
    scene.refused(
        "a guest's tap moved",
        &format!("link set {tap} master other"),
        &format!("{tap} is in another bridge than {bridge}, and it is the hypervisor's to move"),
        &format!("link set {tap} master {bridge}"),
    )?;

    let not_made = "a link named {} is there and vifd did not make it (adoption is off: [agent] adopt)";
    for (place, kind, sentence) in [
        (0, "bridge", not_made),
        (0, "veth peer name elsewhere", "link {} is a veth and not a bridge"),
        (1, "bridge", "link {} is a bridge and not a veth"),
        (2, "veth peer name elsewhere", "veth qvb00000003-4c cannot be made: a link named {} is there"),
    ] {
        let third = record(3)?;
        let name = &third.hybrid_links().context("a hybrid VIF")?[place];
        ip(&scene.ovs, &format!("link add {name} type {kind}"))?;
        let theirs = scene.ovs.namespace().link(name)?;
        scene.vifd.put(&third)?;
        let status = scene.vifd.wait_for(&third.id(), "conflict")?;
        let sentence = sentence.replace("{}", name);
        assert!(status["message"].as_str().is_some_and(|message| message.starts_with(&sentence)), "{kind}: {status}");
        assert_eq!(scene.ovs.namespace().link(name)?, theirs, "{kind}: it was touched");
        ip(&scene.ovs, &format!("link del {name}"))?;
        scene.vifd.wait_for(&third.id(), "ready")?;
        scene.vifd.remove(&third)?;
        scene.vifd.wait_gone(&third.id())?;
    }
    Ok(())
}
