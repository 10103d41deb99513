//! Ways to a switch, and what happens when they break.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flows::endpoint::{Dial, Endpoint};
use flows::message::{AsyncMask, FragmentHandling, Kind, Message, PortReason, Role, SwitchConfig};
use flows::session::{CallError, Config, Outcome, Session, SessionError, SessionState};
use flows::tls::{Tls, Verification};
use flows::{GroupCommand, GroupMod, MeterCommand, MeterMod};

use crate::ovs::{PATIENCE, Switch, add, failure, group, many, output, path, ready, wait_ready, wait_until};

#[tokio::test]
async fn what_a_switch_is() {
    let switch = Switch::start();
    switch.vsctl(&["set", "bridge", "br0", "other_config:datapath-id=00000000000000ab", "other_config:dp-desc=mine"]);
    let handle = switch.session().await;
    let SessionState::Ready(features) = *handle.state().borrow() else { panic!() };
    assert_eq!((features.datapath_id, features.tables), (0xab, 254));
    assert_eq!(handle.features().await.unwrap(), features);
    let description = handle.description().await.unwrap();
    assert_eq!((description.manufacturer.as_str(), description.datapath.as_str()), ("Nicira, Inc.", "mine"));
    let mut ports: Vec<String> = handle.port_desc().await.unwrap().into_iter().map(|port| port.name).collect();
    ports.sort();
    assert_eq!(ports, ["br0", "p1", "p2", "p3"]);
    handle.barrier().await.unwrap();
    let table = handle.tlv_table().await.unwrap();
    assert_eq!((table.max_space, table.max_fields, table.maps.len()), (256, 64, 0));
    assert_eq!(handle.switch_config().await.unwrap().miss_send_len, 0);
}

#[tokio::test]
async fn fragments_are_treated_as_asked_and_nothing_else_changes() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let before = handle.switch_config().await.unwrap();
    assert_eq!(before.fragments(), FragmentHandling::Normal);
    for _ in ["set", "there already"] {
        assert_eq!(handle.treat_fragments(FragmentHandling::Match).await.unwrap(), FragmentHandling::Match);
    }
    assert_eq!(handle.switch_config().await.unwrap(), SwitchConfig { flags: 3, ..before });
    assert_eq!(switch.session().await.switch_config().await.unwrap().fragments(), FragmentHandling::Match, "for all");
}

#[tokio::test]
async fn roles() {
    let switch = Switch::start();
    let handle = switch.session().await;
    assert_eq!(handle.role(Role::NoChange, 0).await.unwrap().role, Role::Equal);
    assert_eq!(handle.role(Role::Secondary, 5).await.unwrap().role, Role::Secondary);
    let Outcome::Refused(refusals) = handle.bundle(many(3, 7).iter().map(add).collect()).await else { panic!() };
    assert!(refusals[0].error.to_string().contains("OFPBRC_IS_SECONDARY"), "{refusals:?}");
    assert_eq!(refusals[0].index, None);
    let Err(CallError::Refused(error)) = handle.role(Role::Primary, 3).await else { panic!() };
    assert_eq!(error.name(), Some("OFPRRFC_STALE"));
    assert_eq!(handle.role(Role::Equal, 0).await.unwrap().role, Role::Equal);
    assert_eq!(handle.bundle(many(3, 7).iter().map(add).collect()).await, Outcome::Committed);
}

#[tokio::test]
async fn changes_of_ports_are_told_to_those_who_ask() {
    let switch = Switch::start();
    let quiet = switch.session().await;
    let mut nothing = quiet.events();
    let mut config = Config::new(switch.endpoint());
    config.events = vec![AsyncMask::PORTS, AsyncMask::REMOVALS];
    let handle = ready(config).await;
    let mut events = handle.events();
    switch.vsctl(&["add-port", "br0", "p9", "--", "set", "interface", "p9", "type=dummy", "ofport_request=9"]);
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    let Message::PortStatus(status) = event else { panic!("{event:?}") };
    assert_eq!((status.reason, status.port.number.0, status.port.name.as_str()), (PortReason::Add, 9, "p9"));
    switch.vsctl(&["del-port", "p9"]);
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        let Message::PortStatus(status) = event else { panic!("{event:?}") };
        if status.reason == PortReason::Delete {
            assert_eq!(status.port.number.0, 9);
            break;
        }
    }
    quiet.barrier().await.unwrap();
    assert!(nothing.try_recv().is_err());
}

#[tokio::test]
async fn what_others_do_to_groups_and_meters_is_told_and_what_we_do_is_not() {
    let switch = Switch::start();
    let mut config = Config::new(switch.endpoint());
    config.events = vec![AsyncMask::REQUESTS];
    let handle = ready(config).await;
    let mut events = handle.events();
    let change = |command, id, buckets| Message::GroupMod(GroupMod { command, group: group(id, buckets) });
    let meter = |command| MeterMod { command, meter: "meter=3 kbps band=type=drop rate=1000".parse().unwrap() };
    assert_eq!(handle.bundle(vec![change(GroupCommand::Add, 1, 2)]).await, Outcome::Committed);
    assert_eq!(handle.meters(vec![meter(MeterCommand::Add)]).await.unwrap(), []);

    let other = switch.session().await;
    assert_eq!(other.bundle(vec![change(GroupCommand::Modify, 1, 1)]).await, Outcome::Committed);
    assert_eq!(other.meters(vec![meter(MeterCommand::Delete)]).await.unwrap(), []);
    let bridge = switch.path("br0.mgmt").display().to_string();
    // Of these OpenFlow 1.4 has no word.
    output(
        "ovs-ofctl",
        &[
            "-O",
            "OpenFlow15",
            "insert-buckets",
            &bridge,
            "group_id=1,command_bucket_id=last,bucket=bucket_id=9,output:3",
        ],
    );
    output("ovs-ofctl", &["-O", "OpenFlow15", "remove-buckets", &bridge, "group_id=1,command_bucket_id=first"]);
    switch.ofctl("mod-group", &["--may-create", "group_id=2,type=all,bucket=output:1"]);
    switch.ofctl("del-groups", &[]);
    let mut told = Vec::new();
    while told.len() < 6 {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        let Message::RequestForward(forward) = event else { panic!("{event:?}") };
        let of = |id| match forward.request() {
            Ok(Message::GroupMod(change)) => (Kind::GROUP_MOD, Some(change.command), change.group.id),
            Ok(Message::MeterMod(change)) => (Kind::METER_MOD, None, change.meter.id),
            request => panic!("{id}: {request:?}"),
        };
        told.push(of(told.len()));
    }
    println!("{told:?}");
    assert_eq!(told[..2], [(Kind::GROUP_MOD, Some(GroupCommand::Modify), 1), (Kind::METER_MOD, None, 3)]);
    assert_eq!(told.iter().filter(|(kind, _, id)| (*kind, *id) == (Kind::GROUP_MOD, 1)).count(), 3);
    handle.barrier().await.unwrap();
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn a_bridge_that_does_not_speak_our_version() {
    let switch = Switch::start();
    switch.vsctl(&["set", "bridge", "br0", "protocols=OpenFlow10,OpenFlow13"]);
    let handle = Session::spawn(Config::new(switch.endpoint()));
    let error = failure(&handle).await;
    assert_eq!(error.to_string(), "the switch does not speak OpenFlow 1.4 (it offers 1.0, 1.3)");
    assert!(error.is_configuration());
    switch.vsctl(&["clear", "bridge", "br0", "protocols"]);
    wait_ready(&handle).await;
}

#[tokio::test]
async fn no_switch_and_then_one_and_then_another() {
    let mut switch = Switch::start();
    switch.down();
    let _ = std::fs::remove_file(switch.path("br0.mgmt"));
    let handle = Session::spawn(Config::new(switch.endpoint()));
    assert!(matches!(*failure(&handle).await, SessionError::Connect { .. }));
    switch.up();
    wait_ready(&handle).await;
    assert_eq!(handle.bundle(many(100, 7).iter().map(add).collect()).await, Outcome::Committed);
    switch.down();
    failure(&handle).await;
    assert_eq!(handle.bundle(many(1, 7).iter().map(add).collect()).await, Outcome::NotSent);
    switch.up();
    wait_ready(&handle).await;
    assert_eq!(handle.dump_flows().await.unwrap().len(), 0, "a new life begins without flows");
    let statistics = handle.statistics();
    assert_eq!(statistics.connections, 2);
    assert!(statistics.connect_failures > 0);
}

/// The port that the kernel chose for a listener on port 0.
fn listener(switch: &Switch) -> u16 {
    let port = || {
        let log = switch.log();
        let (_, rest) = log.rsplit_once("listening on port ")?;
        rest.split_once('\n')?.0.trim().parse().ok()
    };
    wait_until("listener", || port().is_some());
    port().unwrap()
}

#[tokio::test]
async fn tcp_and_a_switch_that_probes() {
    let switch = Switch::start();
    switch.vsctl(&["set-controller", "br0", "ptcp:0:127.0.0.1"]);
    switch.vsctl(&["set", "controller", "br0", "inactivity_probe=5000"]);
    let mut config = Config::new(format!("tcp:127.0.0.1:{}", listener(&switch)).parse::<Endpoint>().unwrap());
    // The switch's probes are to keep the connection up, not ours.
    config.probe_interval = Duration::MAX;
    let handle = ready(config).await;
    assert_eq!(handle.bundle(many(1000, 7).iter().map(add).collect()).await, Outcome::Committed);
    let sent = handle.statistics().messages_sent;
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let statistics = handle.statistics();
    assert_eq!((statistics.connections, statistics.connected), (1, true));
    assert!(statistics.messages_sent > sent, "an echo was answered");
}

/// Certificates as an administrator makes them with ovs-pki, in a directory that goes with this value.
struct Pki {
    directory: tempfile::TempDir,
}

impl Pki {
    fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = |arguments: &[&str]| {
            let output = std::process::Command::new("ovs-pki")
                .arg(format!("--dir={}", directory.path().join("pki").display()))
                .arg(format!("--log={}", directory.path().join("log").display()))
                .arg("--unique")
                .args(arguments)
                .current_dir(directory.path())
                .output()
                .expect("these tests need ovs-pki (openvswitch-pki)");
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        pki(&["init"]);
        for name in names {
            pki(&["req+sign", name, "controller"]);
        }
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn authority(&self) -> PathBuf {
        self.file("pki/controllerca/cacert.pem")
    }
}

#[tokio::test]
async fn ssl() {
    let pki = Pki::new(&["switch", "client"]);
    let option = |name: &str, file: &Path| format!("--{name}={}", path(file));
    let switch = Switch::with(vec![
        option("private-key", &pki.file("switch-privkey.pem")),
        option("certificate", &pki.file("switch-cert.pem")),
        option("ca-cert", &pki.authority()),
    ]);
    switch.vsctl(&["set-controller", "br0", "pssl:0:127.0.0.1"]);
    let tls = Tls {
        private_key: pki.file("client-privkey.pem"),
        certificate: pki.file("client-cert.pem"),
        ca_certificate: pki.authority(),
        verification: Verification::ByEndpoint,
    };
    let endpoint: Endpoint = format!("ssl:127.0.0.1:{}", listener(&switch)).parse().unwrap();
    let dial = |tls| Config::new(Dial::new(endpoint.clone(), tls));
    let handle = ready(dial(Some(tls.clone()))).await;
    assert_eq!(handle.bundle(many(5000, 7).iter().map(add).collect()).await, Outcome::Committed);
    assert_eq!(handle.dump_flows().await.unwrap().len(), 5000);
    drop(handle);

    let refused = async |tls| chain(&*failure(&Session::spawn(dial(tls))).await);
    let stranger = Tls { ca_certificate: pki.file("pki/switchca/cacert.pem"), ..tls.clone() };
    let words = refused(Some(stranger)).await;
    assert!(words.contains("certificate"), "{words}");
    let missing = Tls { private_key: pki.file("none.pem"), ..tls.clone() };
    let words = refused(Some(missing)).await;
    assert!(words.contains("none.pem"), "{words}");
    let words = refused(None).await;
    assert!(words.contains("an ssl: endpoint needs a key, certificate and CA"), "{words}");
    // By name all of the certificate counts, and ovs-pki's says nothing that could be checked.
    let strict = Tls { verification: Verification::Name, ..tls };
    let words = refused(Some(strict)).await;
    assert!(words.contains("certificate"), "{words}");
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
