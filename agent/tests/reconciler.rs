//! The reconciler over a host in memory: what the loop itself has to get right, without a daemon.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flows::FlowId;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use vifd::backend::ovs::StringMap;
use vifd::backend::stage::Stage;
use vifd::backend::world::World;
use vifd::config::Config;
use vifd::model::{Desired, LinkKind, ProfileKind, Vif, VifId};
use vifd::plan::pipeline::{Cookie, NetworkKey, OwnerTag};
use vifd::plan::{ManagedBridge, MaxRemovals, Settings};
use vifd::reconciler::{self, Command, Control, Joints};
use vifd::record;
use vifd::source::{Intake, Source};
use vifd::status::{ConditionKind, HostStatus, Phase, Truth};

fn settings() -> Settings {
    Settings { max_removals: MaxRemovals::Count(5), ..Config::default().settings().unwrap() }
}

fn id(number: u32) -> VifId {
    format!("{number:08x}-0000-4000-8000-000000000000").parse().unwrap()
}

fn vif(number: u32) -> Arc<Vif> {
    vif_with(number, &json!({"bridge": "br-int", "mtu": 1450}), &json!({}))
}

fn vif_with(number: u32, network: &Value, policy: &Value) -> Arc<Vif> {
    let vif = json!({
        "type": "openvswitch", "id": id(number), "vif_name": format!("tap{number}"),
        "address": format!("52:54:00:00:{:02x}:{:02x}", number >> 8, number & 255),
        "network": network,
        "port_profile": {"type": "openvswitch", "create_port": true, "create_tap": true},
    });
    Arc::new(record::decode(json!({"vif": vif, "policy": policy}).to_string().as_bytes()).unwrap().vif)
}

/// One of the VIFs that share a network.
fn vif_among(number: u32, policy: &Value) -> Arc<Vif> {
    let network = json!({
        "id": NETWORK, "bridge": "br-int", "subnets": [{"ips": [{"address": format!("10.0.0.{number}")}]}],
    });
    vif_with(number, &network, policy)
}

const NETWORK: &str = "9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11";

fn network_cookie() -> Cookie {
    Cookie::network(OwnerTag::of(&settings().agent), NetworkKey::Network(NETWORK.parse().unwrap()))
}

/// A source that has what the test gives it, and notes what it is told.
#[derive(Clone)]
struct Hand {
    intake: watch::Receiver<Intake>,
    gone: Arc<Mutex<Vec<VifId>>>,
}

impl Source for Hand {
    fn observe(&self) -> watch::Receiver<Intake> {
        self.intake.clone()
    }

    async fn gone(&self, vif: VifId, _revision: u64) {
        self.gone.lock().unwrap().push(vif);
    }

    fn confirm_empty(&self) -> impl Future<Output = BTreeSet<VifId>> + Send {
        std::future::ready(BTreeSet::new())
    }
}

/// A running reconciler with everything a test may move.
struct Scene {
    stage: Stage,
    intake: watch::Sender<Intake>,
    control: watch::Sender<Control>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<HostStatus>>,
    stop: watch::Sender<bool>,
    gone: Arc<Mutex<Vec<VifId>>>,
    state: tempfile::TempDir,
}

impl Scene {
    fn start(vifs: impl IntoIterator<Item = u32>, mute: &[&str], enforce: bool) -> Scene {
        let mut world = World::new(false);
        world.add_bridge("br-int", "system", StringMap::new());
        Scene::on(Stage::new(world), vifs, mute, enforce, tempfile::tempdir().unwrap())
    }

    fn on(
        stage: Stage,
        vifs: impl IntoIterator<Item = u32>,
        mute: &[&str],
        enforce: bool,
        state: tempfile::TempDir,
    ) -> Scene {
        let (links, nics, ovs, flows) = stage.backends(mute);
        let (intake, intakes) = watch::channel(Intake::default());
        let (control, controls) =
            watch::channel(Control { settings: settings(), enforce, resync: None, look_every: None });
        let (commands, orders) = mpsc::channel(4);
        let (publish, status) = watch::channel(Arc::new(HostStatus::default()));
        let (stop, stopped) = watch::channel(false);
        let (sessions_changed, changes) = watch::channel(());
        let (nobody_looks, proofs) = watch::channel(Arc::default());
        let gone = Arc::default();
        let joints = Joints {
            source: Hand { intake: intakes, gone: Arc::clone(&gone) },
            links,
            nics,
            ovs,
            flows,
            control: controls,
            commands: orders,
            status: publish,
            expected: watch::channel(Arc::default()).0,
            proofs,
            sessions_changed: changes,
            sessions: Box::new(Vec::new),
            may_write: Box::new(|| true),
            state_dir: state.path().to_path_buf(),
            watchdog: None,
        };
        tokio::spawn(async move {
            // Senders have to live as long as the reconciler does.
            let _kept = (sessions_changed, nobody_looks);
            reconciler::run(joints, stopped).await.unwrap();
        });
        let scene = Scene { stage, intake, control, commands, status, stop, gone, state };
        scene.want(vifs);
        scene
    }

    fn want(&self, numbers: impl IntoIterator<Item = u32>) {
        self.want_these(numbers.into_iter().map(vif));
    }

    fn want_these(&self, vifs: impl IntoIterator<Item = Arc<Vif>>) {
        let vifs: BTreeMap<VifId, Arc<Vif>> = vifs.into_iter().map(|vif| (vif.id, vif)).collect();
        self.intake.send_modify(|intake| {
            intake.desired = Arc::new(Desired { synced: true, vifs: vifs.into(), ..Desired::default() });
            intake.revision += 1;
        });
    }

    fn delete(&self, numbers: impl IntoIterator<Item = u32>) {
        let deleted: BTreeSet<VifId> = numbers.into_iter().map(id).collect();
        self.intake.send_modify(|intake| {
            let mut desired = intake.desired.as_ref().clone();
            desired.vifs.retain(|id, _| !deleted.contains(id));
            desired.deleted = deleted;
            intake.desired = Arc::new(desired);
            intake.revision += 1;
        });
    }

    async fn until(&mut self, what: &str, so: impl Fn(&HostStatus) -> bool) -> Arc<HostStatus> {
        let revision = self.intake.borrow().revision;
        let wait = self.status.wait_for(|status| status.revision >= revision && so(status));
        let seen = tokio::time::timeout(Duration::from_secs(20), wait).await;
        Arc::clone(&seen.unwrap_or_else(|_| panic!("waited in vain until {what}")).unwrap())
    }

    fn ports(&self) -> usize {
        self.stage.look(|world| world.ovs.ports.len() - 1)
    }
}

fn all_ready(count: usize) -> impl Fn(&HostStatus) -> bool {
    move |status| status.vifs.len() == count && status.vifs.values().all(|vif| vif.phase == Phase::Ready)
}

#[tokio::test]
async fn records_become_ports_and_deletions_are_reported_when_nothing_is_left() {
    let mut scene = Scene::start(0..300, &[], true);
    scene.until("all are ready", all_ready(300)).await;
    scene.delete(0..300);
    scene.until("all are gone", |status| status.vifs.is_empty()).await;
    assert_eq!(scene.ports(), 0);
    assert!(scene.stage.look(|world| world.kernel.links.is_empty() && world.ovs.qos.is_empty()));
    let gone: BTreeSet<VifId> = scene.gone.lock().unwrap().iter().copied().collect();
    assert_eq!(gone.len(), 300);
}

#[tokio::test]
async fn a_refusal_that_names_nobody_holds_up_its_vif_alone() {
    let mut scene = Scene::start(0..200, &["tap77"], true);
    let status = scene
        .until("199 are ready", |status| {
            status.vifs.values().filter(|vif| vif.phase == Phase::Ready).count() == 199
                && status.vifs.get(&id(77)).is_some_and(|vif| vif.phase == Phase::Failed)
        })
        .await;
    let held = &status.vifs[&id(77)];
    assert!(held.message.contains("constraint violation"), "{}", held.message);
    assert_eq!(status.holds.get("ovsdb"), Some(&1));
}

#[tokio::test]
async fn observe_mode_plans_and_writes_nothing_until_told_otherwise() {
    let mut scene = Scene::start(0..3, &[], false);
    let status = scene.until("it is planned", |status| !status.planned.is_empty()).await;
    assert_eq!(status.mode, "observe");
    assert_eq!(scene.stage.look(|world| world.writes), 0);
    scene.control.send_modify(|control| control.enforce = true);
    scene.until("it is done", all_ready(3)).await;
}

#[tokio::test]
async fn a_pause_survives_a_restart_and_ends_when_told() {
    let mut scene = Scene::start(0..2, &[], true);
    scene.until("both are ready", all_ready(2)).await;
    let (reply, answer) = oneshot::channel();
    scene.commands.send(Command::Pause(None, reply)).await.unwrap();
    answer.await.unwrap().unwrap();
    scene.stop.send_replace(true);
    let (stage, state) = (scene.stage.clone(), scene.state);
    let mut again = Scene::on(stage, 0..3, &[], true, state);
    again.until("the pause is known", |status| status.paused && status.vifs.len() == 3).await;
    assert_eq!(again.ports(), 2);
    let (reply, answer) = oneshot::channel();
    again.commands.send(Command::Resume(None, reply)).await.unwrap();
    answer.await.unwrap().unwrap();
    again.until("the third is ready", all_ready(3)).await;
}

#[tokio::test]
async fn stopped_removals_go_ahead_when_confirmed_and_only_those() {
    let mut scene = Scene::start(0..10, &[], true);
    scene.until("all are ready", all_ready(10)).await;
    scene.want(0..2);
    let status = scene.until("removals are stopped", |status| status.stopped_removals.len() == 8).await;
    assert!(!status.not_ready.is_empty(), "the agent is not ready then");
    assert_eq!(scene.ports(), 10);
    let (reply, answer) = oneshot::channel();
    scene.commands.send(Command::ConfirmRemovals(reply)).await.unwrap();
    assert_eq!(answer.await.unwrap().len(), 8);
    scene.until("eight are gone", all_ready(2)).await;
    assert_eq!(scene.ports(), 2);
}

#[tokio::test]
async fn a_release_lets_go_of_everything_and_pauses() {
    let mut scene = Scene::start(0..4, &[], true);
    scene.until("all are ready", all_ready(4)).await;
    let (reply, answer) = oneshot::channel();
    scene.commands.send(Command::Release(reply)).await.unwrap();
    // A port, its interface, its QoS row and its tap.
    assert_eq!(answer.await.unwrap(), Ok(16));
    assert_eq!(scene.ports(), 4);
    let marks = scene.stage.look(|world| {
        let rows = world.ovs.interfaces.values().filter(|row| row.external_ids.contains_key("vifd-owner")).count();
        rows + world.kernel.links.values().filter(|link| link.alias.is_some()).count()
    });
    assert_eq!(marks, 0);
    assert!(scene.status.borrow().paused);
}

#[tokio::test]
async fn drift_is_repaired_on_its_notification() {
    let mut scene = Scene::start(0..3, &[], true);
    scene.until("all are ready", all_ready(3)).await;
    let writes = scene.stage.look(|world| world.writes);
    scene.stage.change(|world| world.delete_port("tap1"));
    let mended = async {
        // The status may not tell of a repair this quick: the world does.
        while scene.stage.look(|world| world.writes == writes || !world.ovs.ports.contains_key("tap1")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), mended).await.expect("the port comes back");
}

fn slow() -> Stage {
    let mut world = World::new(false);
    world.add_bridge("br-int", "system", StringMap::new());
    let mut stage = Stage::new(world);
    stage.latency = Duration::from_millis(50);
    stage
}

#[tokio::test]
async fn a_vif_that_is_deleted_while_it_is_made_goes_before_it_is_called_gone() {
    let mut scene = Scene::on(slow(), 0..1, &[], true, tempfile::tempdir().unwrap());
    // Whatever is under way when it is deleted: the tap, the port, or nothing any more.
    for pause in [10, 60, 90, 150] {
        scene.want(0..1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        scene.gone.lock().unwrap().clear();
        scene.delete(0..1);
        let gone = async {
            while scene.gone.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is gone");
        assert_eq!(scene.ports(), 0, "deleted after {pause} ms");
        assert!(scene.stage.look(|world| world.kernel.links.is_empty()), "deleted after {pause} ms");
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert!(scene.stage.look(|world| world.kernel.links.is_empty()), "it came back after {pause} ms");
    }
    scene.want(1..2);
    scene.until("the next is ready", all_ready(1)).await;
}

#[tokio::test]
async fn ports_do_not_starve_while_new_vifs_keep_coming() {
    let mut scene = Scene::on(slow(), 0..1, &[], true, tempfile::tempdir().unwrap());
    for count in 2..60 {
        scene.want(0..count);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert!(scene.ports() > 10, "{} ports while 60 VIFs came", scene.ports());
    scene.until("all are ready", all_ready(59)).await;
}

#[tokio::test]
async fn who_is_on_the_host_keeps_its_address_also_when_records_come_late() {
    let mut scene = Scene::start([9], &[], true);
    scene.until("it is ready", all_ready(1)).await;
    scene.stop.send_replace(true);
    let stage = scene.stage.clone();
    let again = Scene::on(stage, [], &[], true, tempfile::tempdir().unwrap());
    let mut again = again;
    again.until("the empty set is planned", |status| !status.stopped_removals.is_empty()).await;
    let same_address = |number: u32| {
        let mut vif = vif(number).as_ref().clone();
        vif.address = Some("52:54:00:00:00:01".parse().unwrap());
        vif.network.as_mut().unwrap().id = Some("9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11".parse().unwrap());
        (vif.id, Arc::new(vif))
    };
    again.intake.send_modify(|intake| {
        let vifs = BTreeMap::from([same_address(3), same_address(9)]);
        intake.desired = Arc::new(Desired { synced: true, vifs: vifs.into(), ..Desired::default() });
        intake.revision += 1;
    });
    let status = again
        .until("both are judged", |status| status.vifs.len() == 2 && status.vifs[&id(9)].phase == Phase::Ready)
        .await;
    assert_eq!(status.vifs[&id(3)].phase, Phase::Failed, "{}", status.vifs[&id(3)].message);
}

/// A host whose bridge is managed.
fn managed(change: impl FnOnce(&mut World)) -> Scene {
    let mut world = World::new(false);
    world.managed = BTreeSet::from(["br-int".to_owned()]);
    world.owner = OwnerTag::of(&settings().agent).0;
    change(&mut world);
    let scene = Scene::on(Stage::new(world), [], &[], true, tempfile::tempdir().unwrap());
    scene.control.send_modify(|control| {
        control
            .settings
            .bridges
            .insert("br-int".to_owned(), ManagedBridge { datapath_type: "system".into(), ..ManagedBridge::default() });
    });
    scene
}

/// What VIFs share, such as the group of a network's receivers, changes with each of them.
#[tokio::test]
async fn vifs_that_come_one_by_one_are_no_quarrel() {
    let mut scene = managed(|_| {});
    for count in 1..=30 {
        scene.want(0..count);
        let status = scene.until("one more is ready", all_ready(count as usize)).await;
        assert!(status.holds.is_empty(), "{:?}", status.holds);
    }
}

#[tokio::test]
async fn switches_that_restart_get_their_flows_each_time() {
    let mut scene = managed(|_| {});
    scene.want(0..3);
    scene.until("all are ready", all_ready(3)).await;
    for _ in 0..15 {
        scene.stage.change(|world| world.managed.clear());
        scene.until("the switch is missed", |status| !all_ready(3)(status)).await;
        scene.stage.change(|world| {
            world.restart_switches();
            world.managed = BTreeSet::from(["br-int".to_owned()]);
        });
        let status = scene.until("all are ready again", all_ready(3)).await;
        assert!(status.holds.is_empty(), "{:?}", status.holds);
    }
}

#[tokio::test]
async fn a_flow_that_the_switch_refuses_holds_its_vif_alone() {
    let owner = OwnerTag::of(&settings().agent);
    let refusal = (Cookie::vif(owner, id(7)).0, "OFPBAC_BAD_OUT_PORT".to_owned());
    let mut scene = managed(|world| world.refused_cookies.extend([refusal]));
    scene.want(0..20);
    let status = scene
        .until("nineteen are ready", |status| {
            status.vifs.values().filter(|vif| vif.phase == Phase::Ready).count() == 19
                && status.vifs.get(&id(7)).is_some_and(|vif| vif.phase == Phase::Failed)
        })
        .await;
    let held = &status.vifs[&id(7)];
    assert!(held.message.contains("the switch refused: OFPBAC_BAD_OUT_PORT"), "{}", held.message);
    let truth =
        |number| status.vifs[&id(number)].condition(ConditionKind::FlowsReady).map(|condition| condition.status);
    assert_eq!((truth(7), truth(8)), (Some(Truth::False), Some(Truth::True)));
    // And it comes right by itself once the refusal is over.
    scene.stage.change(|world| world.refused_cookies.clear());
    scene.until("all are ready", all_ready(20)).await;
}

fn flows_ready(status: &HostStatus, number: u32) -> Option<Truth> {
    status.vifs.get(&id(number))?.condition(ConditionKind::FlowsReady).map(|condition| condition.status)
}

#[tokio::test]
async fn flows_of_groups_that_are_refused_are_missed_by_those_whose_rules_name_them() {
    let refusal = (Cookie::groups(OwnerTag::of(&settings().agent)).0, "OFPFMFC_TABLE_FULL".to_owned());
    let member = json!({"groups": ["web"]});
    let naming = json!({"rules": [{"direction": "ingress", "remote_group": "web"}]});
    let mut scene = managed(|world| world.refused_cookies.extend([refusal.clone()]));
    let vifs = || [vif_among(1, &naming), vif_among(2, &member)];
    scene.want_these(vifs());
    // Who names the group, and who is in it, and those alone: `others` are ready.
    let refused = |which: &'static [u32], others: &'static [u32]| {
        move |status: &HostStatus| {
            let is_refused = |number: &u32| status.vifs.get(&id(*number)).is_some_and(|vif| vif.reason == "Refused");
            let is_ready = |number: &u32| status.vifs.get(&id(*number)).is_some_and(|vif| vif.phase == Phase::Ready);
            which.iter().all(is_refused) && others.iter().all(is_ready)
        }
    };
    let status = scene.until("the groups are refused", refused(&[1, 2], &[])).await;
    assert_eq!((flows_ready(&status, 1), flows_ready(&status, 2)), (Some(Truth::False), Some(Truth::False)));
    assert!(status.vifs[&id(1)].message.contains("OFPFMFC_TABLE_FULL"), "{}", status.vifs[&id(1)].message);
    scene.stage.change(|world| world.refused_cookies.clear());
    let status = scene.until("both are ready", all_ready(2)).await;
    assert_eq!(flows_ready(&status, 1), Some(Truth::True));
    // And when it is somebody who joins a group whose address is refused.
    scene.stage.change(|world| world.refused_cookies.extend([refusal.clone()]));
    scene.want_these(vifs().into_iter().chain([vif_among(3, &member)]));
    let status = scene.until("the groups are refused again", refused(&[1, 3], &[2])).await;
    assert_eq!((flows_ready(&status, 1), flows_ready(&status, 2)), (Some(Truth::False), Some(Truth::True)));
}

#[tokio::test]
async fn what_a_network_was_refused_says_nothing_of_other_records() {
    let mut scene = managed(|world| {
        world.refused_cookies.extend([(network_cookie().0, "OFPFMFC_TABLE_FULL".to_owned())]);
    });
    scene.want_these([1, 2].map(|number| vif_among(number, &json!({}))));
    let held = |status: &HostStatus| status.vifs.values().filter(|vif| vif.reason == "Refused").count() == 2;
    scene.until("the network is held", held).await;
    // For one second, for two, and now for four.
    tokio::time::sleep(Duration::from_millis(3300)).await;
    scene.stage.change(|world| world.refused_cookies.clear());
    scene.until("it is held still", held).await;
    let start = std::time::Instant::now();
    scene.want_these([1, 2].map(|number| vif_among(number, &json!({"groups": ["web"]}))));
    scene.until("both are ready", all_ready(2)).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// The switch refuses nothing, and it is not said that it did.
#[tokio::test]
async fn who_undoes_what_vifd_does_is_let_be_and_what_he_undid_is_told() {
    let mut scene = managed(|_| {});
    scene.want_these([1, 2].map(|number| vif_among(number, &json!({}))));
    scene.until("both are ready", all_ready(2)).await;
    let flood = |world: &World| {
        let flows = world.flows();
        let network = flows["br-int"].ready().unwrap().owned.get(&network_cookie().0).cloned();
        network.and_then(|set| set.keys().find(|id| id.table == 40).cloned())
    };
    let quarrel = |status: &HostStatus| status.vifs.values().all(|vif| vif.reason == "Quarrel");
    let fight = async {
        while !quarrel(&scene.status.borrow_and_update()) {
            let id: Option<FlowId> = scene.stage.look(flood);
            if let Some(id) = id {
                scene.stage.change(|world| world.delete_flow("br-int", &id));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), fight).await.expect("a quarrel");
    let status = scene.status.borrow().clone();
    let message = &status.vifs[&id(1)].message;
    assert!(message.contains("somebody else undoes what vifd does again and again: on br-int: add flow"), "{message}");
    assert!(message.contains("table=40") && !message.contains("refused"), "{message}");
}

#[tokio::test]
async fn until_the_records_are_read_nobody_is_told_to_confirm_anything() {
    let mut first = Scene::start(0..20, &[], true);
    first.until("all are ready", all_ready(20)).await;
    first.stop.send_replace(true);
    let mut again = Scene::on(first.stage.clone(), 0..20, &[], true, tempfile::tempdir().unwrap());
    // The views are there before the source has read its first record.
    let read = again.intake.send_replace(Intake::default());
    let status = again.until("there is a word on all", |status| status.vifs.len() == 20).await;
    for vif in status.vifs.values() {
        assert_eq!((vif.phase, &*vif.reason), (Phase::Waiting, "WaitingForRecords"), "{}", vif.message);
    }
    assert_eq!(status.stopped_removals, []);
    assert_eq!(status.not_ready, ["the set of records is not complete: records are still being read"]);
    again.intake.send_replace(read);
    let status = again.until("all are ready", all_ready(20)).await;
    assert_eq!(status.not_ready, Vec::<String>::new());
}

/// What is logged by whoever runs on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn repairs(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let what = |line: &str| line.split_once("repaired: ")?.1.split_once(" vif=").map(|(what, _)| what.to_owned());
        text.lines().filter_map(what).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_guest_that_stops_and_starts_is_no_repair_and_a_flow_put_back_is_one() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut scene = managed(|_| {});
    // The hypervisor makes the device.
    let mut record = Vif::clone(&vif_among(1, &json!({})));
    let profile = record.profile.as_mut().unwrap();
    let ProfileKind::OpenVSwitch(profile) = &mut profile.kind else { panic!("{profile:?}") };
    profile.create_tap = false;
    scene.want_these([Arc::new(record)]);
    let tap = LinkKind::Tap { multi_queue: false, persistent: true };
    let waits = |status: &HostStatus| status.vifs.values().all(|vif| vif.phase == Phase::Plugged);
    for guest in 0..3 {
        scene.until("it waits for its guest", |status| status.vifs.len() == 1 && waits(status)).await;
        scene.stage.change(|world| world.add_link("tap1", tap.clone(), None));
        scene.until("the guest is there", all_ready(1)).await;
        assert_eq!(log.repairs(), [""; 0], "guest {guest}");
        scene.stage.change(|world| world.kernel.links.remove("tap1"));
    }
    scene.until("it waits for its guest", waits).await;
    scene.stage.change(|world| world.add_link("tap1", tap.clone(), None));
    scene.until("the guest is there", all_ready(1)).await;

    let its = Cookie::vif(OwnerTag::of(&settings().agent), id(1));
    let flow = |world: &World| {
        let flows = world.flows();
        let set = flows["br-int"].ready().unwrap().owned[&its.0].clone();
        set.keys().next().cloned().unwrap()
    };
    let flow = scene.stage.look(flow);
    scene.stage.change(|world| world.delete_flow("br-int", &flow));
    let told = async {
        while log.repairs().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("the repair is told");
    assert_eq!(log.repairs(), ["1 flow put back"]);
}
