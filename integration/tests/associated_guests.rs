//! Guests on macvtaps for whom the switch beyond the cable is asked (`VIFDirect` with a port profile): 802.1Qbg by way of a
//! real lldpad, whose peer is another one in the role of the bridge; 802.1Qbh on a kernel whose drivers have none of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use devlink::port_profile::{PortProfile, Response, State, StationPort, state};
use devlink::{LinkSocket, Peer};
use serde_json::{Value, json};
use vifd_integration::lab::{Edge, Lldpad, Namespace, Ovs, Qbg, Record, Switch, Vifd, until};

const MAC: [u8; 6] = [0x22, 0x52, 0x25, 0x62, 0xe2, 0x04];
const INSTANCE: [u8; 16] = [0xa1; 16];
/// For two ends to agree on VDP, and for vifd to ask again after it was refused until then.
const AGREED_WITHIN: Duration = Duration::from_secs(90);

/// A host with a cable that nobody speaks 802.1Qbg on yet, and vifd beside it.
struct Scene {
    ovs: Ovs,
    outside: Namespace,
    vifd: Vifd,
    pid_file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Scene> {
        let (ovs, outside) = (Ovs::start(Switch::Dummy)?, Namespace::new()?);
        ovs.namespace().veth("uplink", &outside, "port", None, None)?;
        let directory = tempfile::tempdir()?;
        let pid_file = directory.path().join("lldpad.pid");
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.config.more = format!("[lldpad]\npid_file = \"{}\"\nask_every = \"1s\"\n", pid_file.display());
        vifd.start()?;
        Ok(Scene { ovs, outside, vifd, pid_file, _directory: directory })
    }

    /// Starts lldpad for the host, where vifd looks for it.
    fn station(&self) -> Result<Lldpad> {
        let station = Lldpad::start(self.ovs.namespace(), "uplink", Edge::Station, Qbg::Standard)?;
        let new = self.pid_file.with_extension("new");
        fs::copy(station.pid_file()?, &new)?;
        fs::rename(&new, &self.pid_file)?;
        Ok(station)
    }

    /// What an lldpad of one of the two ends says of the VSI.
    fn told(&self, namespace: &Namespace, link: &str, lldpad: &Lldpad) -> Result<State> {
        let index = u32::try_from(namespace.link(link)?.context("the cable")?.index)?;
        let (port, vf, vlan) = (lldpad.port(), None, None);
        namespace.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut socket = LinkSocket::open()?;
                let profile = PortProfile::Qbg { manager: 1, type_id: 10, type_version: 2, instance: INSTANCE };
                let of = StationPort { index, vf, mac: MAC, vlan };
                Ok(state(&mut socket, Peer::Lldpad { port }, &of, &profile).await?)
            })
        })
    }

    fn wait_for(&mut self, record: &Record, phase: &str, what: &[&Lldpad]) -> Result<Value> {
        let id = record.id();
        let mut last = None;
        let waited = self.vifd.until_within(AGREED_WITHIN, &format!("{id} is {phase}"), |vifd| {
            last = vifd.status(&id)?;
            Ok(last.clone().filter(|status| status["phase"] == phase))
        });
        let logs = || what.iter().map(|lldpad| lldpad.log()).collect::<Vec<_>>().join("\n---\n");
        waited.with_context(|| format!("its status: {last:?}\nlldpad:\n{}", logs()))
    }
}

fn record(profile: &Value) -> Record {
    Record::native(&json!({
        "type": "direct", "id": "1d2a5c04-0b1f-4e0e-9d57-1c6a3d0e0004", "address": "22:52:25:62:e2:04",
        "vif_name": "macvtap4", "mode": "vepa", "network": {"bridge_interface": "uplink"}, "port_profile": profile,
    }))
}

fn qbg() -> Record {
    record(&json!({"type": "8021qbg", "manager_id": 1, "type_id": 10, "type_id_version": 2,
                   "instance_id": "a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1"}))
}

const SUCCESS: State = State::Answered(Response::VdpSuccess);

#[test]
fn a_guest_is_associated_whoever_is_started_again_and_let_go() -> Result<()> {
    let (mut scene, record) = (Scene::new()?, qbg());
    scene.vifd.put(&record)?;
    let status = scene.vifd.wait_until(&record.id(), "no lldpad", |status| {
        status["message"].as_str().is_some_and(|message| message.contains("lldpad, which is not running"))
    })?;
    assert_eq!(status["reason"], "WaitingForFunction");
    let host = scene.ovs.namespace().name().to_owned();
    let host = Namespace::existing(&host)?;
    assert!(host.link("macvtap4")?.is_some(), "the macvtap comes first");

    let bridge = Lldpad::start(&scene.outside, "port", Edge::Bridge, Qbg::Standard)?;
    let station = scene.station()?;
    // vifd ends in the middle, again and again.
    for pause in [200, 900, 2300] {
        std::thread::sleep(Duration::from_millis(pause));
        scene.vifd.kill()?;
        scene.vifd.start()?;
    }
    let status = scene.wait_for(&record, "ready", &[&station, &bridge])?;
    let association = "VSI a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1 (manager 1, type 10 version 2) at uplink";
    assert_eq!(status["facts"]["association"], association);
    assert_eq!(scene.told(&host, "uplink", &station)?, SUCCESS);
    assert!(matches!(scene.told(&scene.outside, "port", &bridge)?, State::Answered(_)), "the bridge has it");

    // Another lldpad knows of nothing.
    drop(station);
    scene.vifd.wait_until(&record.id(), "no lldpad", |status| status["phase"] != "ready")?;
    let station = scene.station()?;
    scene.wait_for(&record, "ready", &[&station, &bridge])?;
    assert_eq!(scene.told(&host, "uplink", &station)?, SUCCESS);

    // What is noted outlives vifd, and so does what has to be undone.
    scene.vifd.kill()?;
    scene.vifd.remove(&record)?;
    scene.vifd.put(&record)?;
    scene.vifd.start()?;
    scene.wait_for(&record, "ready", &[&station, &bridge])?;
    scene.vifd.remove(&record)?;
    scene.vifd.wait_gone(&record.id()).with_context(|| format!("{}\n---\n{}", station.log(), bridge.log()))?;
    assert_eq!(scene.told(&host, "uplink", &station)?, State::Absent);
    until("the bridge forgets it", AGREED_WITHIN, || {
        let told = scene.told(&scene.outside, "port", &bridge)?;
        Ok((told == State::Absent).then_some(()))
    })
    .with_context(|| bridge.log())?;
    assert_eq!(host.link("macvtap4")?, None);
    assert_eq!(fs::read_dir(scene.vifd.state().join("nics"))?.count(), 0, "nothing is noted any more");
    Ok(())
}

#[test]
fn a_kernel_without_port_profiles_is_told_of() -> Result<()> {
    let (mut scene, record) = (Scene::new()?, record(&json!({"type": "8021qbh", "profile_id": "gold"})));
    scene.vifd.put(&record)?;
    let status = scene.vifd.wait_until(&record.id(), "the kernel's answer", |status| {
        status["message"].as_str().is_some_and(|message| message.contains("has no port profiles (802.1Qbh)"))
    })?;
    println!("{status}");
    assert_ne!(status["phase"], "ready");
    assert_eq!(status["facts"]["association"], "port profile gold at uplink");
    scene.vifd.remove(&record)?;
    scene.vifd.wait_gone(&record.id())?;
    assert_eq!(scene.ovs.namespace().link("macvtap4")?, None);
    Ok(())
}
