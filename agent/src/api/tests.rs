//! The API on a unix socket in a temporary directory, with a real directory source and a scripted reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::body::{Confirmed, Event, HostSummary, Paused, PlanView, Released};
use super::client::{Client, ClientError};
use super::{Api, BindError, Server};
use crate::backend::world::World;
use crate::config;
use crate::inspect::{Eyes, Inspector};
use crate::metrics;
use crate::model::{View, VifId};
use crate::plan::{Facts, Judgement, Missing, Verdict};
use crate::reconciler::{Command, Control, Seen};
use crate::record;
use crate::source::Intake;
use crate::source::dir::{DirSource, Options};
use crate::status::{HostStatus, Phase, PlannedOp, Subject, VifStatus};

/// A served API. The scripted reconciler judges by the VIF's name.
struct Scene {
    root: TempDir,
    client: Client,
    source: DirSource,
    remote: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

fn id(n: u32) -> VifId {
    format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
}

fn vif_record(n: u32, name: &str) -> Vec<u8> {
    let vif = json!({"type": "openvswitch", "id": id(n), "address": "52:54:00:00:00:01", "vif_name": name,
        "network": {"id": id(99), "bridge": "br-int"}, "port_profile": {"type": "openvswitch", "create_port": true}});
    json!({"vif": vif, "generation": 1}).to_string().into_bytes()
}

/// What the scripted planner says: the name of the VIF is the plot.
fn verdict(name: &str) -> Verdict {
    match name {
        "ready" => Verdict::Ready,
        "plugged" => Verdict::Plugged(Missing::Netdev(name.into())),
        "failed" => Verdict::Failed { reason: "no such device".into() },
        "conflict" => Verdict::Conflict { reason: "port conflict is somebody else's".into() },
        _ => Verdict::Working,
    }
}

/// A host with a port of os-vif's and a NIC, and these records.
fn with_a_port(intake: &Intake) -> Seen {
    let ids = [("iface-id", id(9).to_string()), ("attached-mac", "52:54:00:00:00:09".into()), ("vm-uuid", "i".into())];
    let mut world = World::new(true);
    world.add_bridge("br-int", "netdev", BTreeMap::new());
    world.add_nic("0000:03:00.0".parse().unwrap(), "ice", 8);
    world.add_port("br-int", "tap00000009-00", "", ids.map(|(key, value)| (key.to_owned(), value)).into());
    Seen {
        desired: Arc::clone(&intake.desired),
        clashes: BTreeMap::new(),
        observed: world.observed(),
        settings: config::Config::default().settings().unwrap(),
        enforce: true,
    }
}

/// Publishes a status for every intake, and answers orders.
async fn reconcile(source: DirSource, status: watch::Sender<Arc<HostStatus>>, mut commands: mpsc::Receiver<Command>) {
    let mut intake = source.observe();
    loop {
        let now = intake.borrow_and_update().clone();
        let mut host = HostStatus { revision: now.revision, mode: "enforce".into(), ..HostStatus::default() };
        host.not_ready.extend(now.problem.clone());
        host.rejections = now.rejections.clone();
        host.planned.push(PlannedOp { backend: "links".into(), vif: None, action: "make directory /x".into() });
        for (vif_id, vif) in &now.desired.vifs {
            let crate::model::VifKind::OpenVSwitch { vif_name, .. } = &vif.kind else { continue };
            let verdict = verdict(vif_name);
            let ready = verdict == Verdict::Ready;
            let judgement = Judgement {
                link_ready: None,
                port_ready: Some(ready),
                flows_ready: None,
                vhost_connected: None,
                plugged: ready || matches!(verdict, Verdict::Plugged(_)),
                offload: None,
                facts: Facts { bridge: Some("br-int".into()), port: Some(vif_name.clone()), ..Facts::default() }.into(),
                verdict,
            };
            let subject = Subject {
                id: *vif_id,
                vif: Some(vif),
                rejection: None,
                judgement: Some(&judgement),
                enforce: true,
                proof: None,
            };
            let told = VifStatus::render(subject, None, Instant::now(), SystemTime::UNIX_EPOCH);
            host.vifs.insert(*vif_id, Arc::new(told));
        }
        status.send_replace(Arc::new(host));
        for deleted in &now.desired.deleted {
            source.gone(*deleted, now.revision).await;
        }
        tokio::select! {
            changed = intake.changed() => if changed.is_err() { return },
            Some(command) = commands.recv() => match command {
                Command::Pause(Some(vif), reply) if vif != id(1) => { let _ = reply.send(Err(format!("no VIF {vif}"))); }
                Command::Pause(_, reply) | Command::Resume(_, reply) => { let _ = reply.send(Ok(())); }
                Command::ConfirmRemovals(reply) => { let _ = reply.send(BTreeSet::from([id(7)])); }
                Command::Release(reply) => { let _ = reply.send(Ok(3)); }
                Command::Intended(_, reply) => { let _ = reply.send(None); }
                Command::BridgesOf(_, reply) => { let _ = reply.send(Vec::new()); }
                Command::Seen(reply) => { let _ = reply.send(with_a_port(&now)); }
            }
        }
    }
}

/// An inspector on a host without switches.
fn blind(
    records: watch::Receiver<Intake>,
    status: watch::Receiver<Arc<HostStatus>>,
    commands: mpsc::Sender<Command>,
) -> Inspector {
    let settings = config::Config::default().settings().unwrap();
    let control = watch::channel(Control { settings, enforce: true, resync: None, look_every: None }).1;
    let (states, sessions) = (watch::channel(View::Syncing).1, watch::channel(BTreeMap::new()).1);
    Inspector::new(Eyes {
        handles: Box::new(|_| None),
        states,
        sessions,
        control,
        records,
        status,
        commands,
        rundir: "/nonexistent".into(),
    })
}

impl Scene {
    async fn start() -> Scene {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("vifs")).unwrap();
        let decode = Arc::new(|bytes: &[u8]| record::decode(bytes).map(|record| record.vif));
        let options = Options::new(root.path().join("vifs"), root.path().join("state"), decode);
        let source = DirSource::spawn(options).unwrap();
        source.observe().wait_for(|intake| intake.desired.synced).await.unwrap();
        let (publish, status) = watch::channel(Arc::new(HostStatus::default()));
        let (commands, inbox) = mpsc::channel(4);
        tokio::spawn(reconcile(source.clone(), publish, inbox));
        // In a directory that nobody has made yet.
        let socket = root.path().join("run/vifd/api.sock");
        let metrics = config::Metrics { listen: config::Listen(Some("127.0.0.1:0".parse().unwrap())) };
        let server = Server::bind(&settings(socket.clone()), &metrics).await.unwrap();
        let remote = server.remote_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let exporter = metrics::install();
        let inspector = blind(source.observe(), status.clone(), commands.clone());
        let api = Api {
            status,
            source: source.clone(),
            commands,
            exporter,
            inspector,
            agent: "vifd".into(),
            host: "h1".into(),
        };
        tokio::spawn(server.run(api, async { drop(stopped.await) }));
        Scene { client: Client::new(socket), root, source, remote, _stop: stop }
    }

    async fn ask(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Value, (StatusCode, Value)> {
        match self.client.bytes(method, target, body, Duration::from_secs(10)).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap()),
            Err(ClientError::Refused { status, body }) => Err((status, serde_json::to_value(body).unwrap())),
            Err(other) => panic!("{target}: {other}"),
        }
    }

    async fn put(&self, n: u32, name: &str, parameters: &str) -> Result<Value, (StatusCode, Value)> {
        self.ask(Method::PUT, &format!("/v1/vifs/{}{parameters}", id(n)), vif_record(n, name)).await
    }
}

fn settings(socket: PathBuf) -> config::Api {
    config::Api { socket, mode: config::FileMode(0o640), group: String::new() }
}

#[tokio::test]
async fn nics_are_listed() {
    let scene = Scene::start().await;
    let nics = scene.ask(Method::GET, "/v1/nics", vec![]).await.unwrap();
    let nic = json!({"nic": "pci/0000:03:00.0", "there": true, "driver": "ice", "mode": "legacy", "vfs": 0, "most_vfs": 8,
        "uplinks": [{"name": "p0", "tc_offload": false}], "functions": [], "configured": false,
        "switchdev_wanted": false});
    assert_eq!(nics, json!([nic]));
    let (status, body) = scene.ask(Method::GET, "/v1/nics?nic=x", vec![]).await.unwrap_err();
    assert_eq!((status, &body["error"]["field"]), (StatusCode::BAD_REQUEST, &json!("nic")));
}

#[tokio::test]
async fn a_write_is_taken_in_and_waited_for() {
    let scene = Scene::start().await;
    let accepted = scene.put(1, "ready", "").await.unwrap();
    assert_eq!(accepted["id"], json!(id(1)));
    assert!(accepted["revision"].as_u64().unwrap() > 0);
    let status = scene.put(1, "ready", "?wait=ready&timeout=5s").await.unwrap();
    assert_eq!((&status["phase"], &status["generation"]), (&json!("ready"), &json!(1)));
    let status = scene.put(2, "plugged", "?wait=plugged").await.unwrap();
    assert_eq!(status["phase"], "plugged");
    let listed = scene.ask(Method::GET, "/v1/vifs", vec![]).await.unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let one = scene.ask(Method::GET, &format!("/v1/vifs/{}?wait=ready", id(1)), vec![]).await.unwrap();
    assert_eq!(one["reason"], "Ready");
    let record = scene.ask(Method::GET, &format!("/v1/vifs/{}/record", id(1)), vec![]).await.unwrap();
    assert_eq!(record["vif"]["vif_name"], "ready");
}

#[tokio::test]
async fn a_wait_that_cannot_end_well_ends_at_once_with_the_reason() {
    let scene = Scene::start().await;
    let began = Instant::now();
    let (status, body) = scene.put(1, "failed", "?wait=ready&timeout=60s").await.unwrap_err();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("failed")));
    assert!(body["error"]["message"].as_str().unwrap().contains("no such device"), "{body}");
    assert_eq!(body["status"]["phase"], "failed");
    let (status, body) = scene.put(2, "conflict", "?wait=plugged&timeout=60s").await.unwrap_err();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert!(began.elapsed() < Duration::from_secs(30));

    let (status, body) = scene.put(3, "working", "?wait=ready&timeout=50ms").await.unwrap_err();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::GATEWAY_TIMEOUT, &json!("timeout")));
    assert_eq!(body["status"]["phase"], "working");
    let (status, body) =
        scene.ask(Method::GET, &format!("/v1/vifs/{}?wait=ready&timeout=0", id(8)), vec![]).await.unwrap_err();
    assert_eq!((status, body.get("status")), (StatusCode::GATEWAY_TIMEOUT, None));
}

#[tokio::test]
async fn a_wait_answers_for_the_write_before_it_not_for_an_older_state() {
    let scene = Scene::start().await;
    for _ in 0..20 {
        assert_eq!(scene.put(1, "ready", "?wait=ready").await.unwrap()["phase"], "ready");
        assert_eq!(scene.put(1, "failed", "?wait=ready").await.unwrap_err().1["status"]["phase"], "failed");
    }
}

#[tokio::test]
async fn a_deletion_is_waited_for() {
    let scene = Scene::start().await;
    scene.put(1, "ready", "?wait=ready").await.unwrap();
    let target = format!("/v1/vifs/{}", id(1));
    scene.ask(Method::DELETE, &format!("{target}?wait=gone"), vec![]).await.unwrap();
    assert_eq!(fs::read_dir(scene.root.path().join("vifs")).unwrap().count(), 0);
    // Forgotten by the source, too, once the reconciler has said that nothing is left.
    let mut intake = scene.source.observe();
    intake.wait_for(|intake| intake.desired.deleted.is_empty()).await.unwrap();
    for method in [Method::GET, Method::DELETE] {
        let (status, body) = scene.ask(method, &target, vec![]).await.unwrap_err();
        assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let scene = Scene::start().await;
    let target = format!("/v1/vifs/{}", id(1));
    let put = |target: String, body: Vec<u8>| scene.ask(Method::PUT, target.leak(), body);
    let cases = [
        (put(target.clone(), b"{".to_vec()).await, 422, "invalid_record", ""),
        (put(target.clone(), b"{\"vif\": {\"type\": \"openvswitch\"}}".to_vec()).await, 422, "invalid_record", "vif."),
        (put(target.clone(), vif_record(2, "ready")).await, 422, "invalid_record", "vif.id"),
        (put(target.clone(), vec![b' '; (1 << 20) + 1]).await, 413, "too_large", ""),
        (put("/v1/vifs/nobody".into(), vif_record(1, "ready")).await, 400, "bad_request", "id"),
        (put(format!("{target}?wait=never"), vif_record(1, "ready")).await, 400, "bad_request", "wait"),
        (put(format!("{target}?wait=gone"), vif_record(1, "ready")).await, 400, "bad_request", "wait"),
        (put(format!("{target}?wait=ready&timeout=x"), vif_record(1, "ready")).await, 400, "bad_request", "timeout"),
        (put(format!("{target}?wait=ready&timeout=1h"), vif_record(1, "ready")).await, 400, "bad_request", "timeout"),
        (put(format!("{target}?what=1"), vif_record(1, "ready")).await, 400, "bad_request", "what"),
        (put(format!("{target}?wait=ready&wait=gone"), vif_record(1, "ready")).await, 400, "bad_request", "wait"),
        (scene.ask(Method::GET, "/v1/vifs?phase=happy", vec![]).await, 400, "bad_request", "phase"),
        (scene.ask(Method::GET, "/v1/vifs?type=happy", vec![]).await, 400, "bad_request", "type"),
        (scene.ask(Method::GET, "/v1/vifs?watch=maybe", vec![]).await, 400, "bad_request", "watch"),
        (scene.ask(Method::GET, "/v1/vifs?id=tap1", vec![]).await, 400, "bad_request", "id"),
        (scene.ask(Method::GET, "/v1/nothing", vec![]).await, 404, "not_found", ""),
        (scene.ask(Method::POST, "/v1/vifs", vec![]).await, 405, "method_not_allowed", ""),
        (scene.ask(Method::POST, "/v1/pause?vif=x", vec![]).await, 400, "bad_request", "vif"),
        (scene.ask(Method::POST, "/v1/pause?all=yes", vec![]).await, 400, "bad_request", "all"),
        (scene.ask(Method::POST, &format!("/v1/pause?vif={}", id(8)), vec![]).await, 404, "not_found", ""),
        (scene.ask(Method::POST, &format!("/v1/resume?vif={}", id(8)), vec![]).await, 404, "not_found", ""),
    ];
    for (at, (answer, status, code, field)) in cases.into_iter().enumerate() {
        let (found, body) = answer.unwrap_err();
        assert_eq!((found.as_u16(), body["error"]["code"].as_str()), (status, Some(code)), "case {at}: {body}");
        let found = body["error"]["field"].as_str().unwrap();
        assert!(found.starts_with(field) && found.is_empty() == field.is_empty(), "case {at}: {body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(fs::read_dir(scene.root.path().join("vifs")).unwrap().count(), 0, "nothing was written");
    // Without its directory the source takes nothing.
    fs::remove_dir(scene.root.path().join("vifs")).unwrap();
    let (status, body) = scene.put(1, "ready", "").await.unwrap_err();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
}

#[tokio::test]
async fn the_list_is_filtered_and_watched() {
    let scene = Scene::start().await;
    scene.put(1, "ready", "?wait=ready").await.unwrap();
    scene.put(2, "plugged", "?wait=plugged").await.unwrap();
    for (filter, count) in [
        ("phase=ready", 1),
        ("phase=ready,plugged", 2),
        ("bridge=br-int&type=openvswitch", 2),
        ("bridge=br-ex", 0),
        ("type=generic", 0),
        (&format!("id={}", id(2)), 1),
        (&format!("id={}", id(3)), 0),
    ] {
        let listed = scene.ask(Method::GET, &format!("/v1/vifs?{filter}"), vec![]).await.unwrap();
        assert_eq!(listed.as_array().unwrap().len(), count, "{filter}");
    }
    let mut events = scene.client.watch("/v1/vifs?watch=true&phase=ready").await.unwrap();
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(next().await, Event::Set { vif } if vif.id == id(1)));
    assert_eq!(next().await, Event::Listed);
    scene.put(3, "ready", "").await.unwrap();
    assert!(matches!(next().await, Event::Set { vif } if vif.id == id(3) && vif.phase == Phase::Ready));
    scene.put(1, "failed", "").await.unwrap();
    assert_eq!(next().await, Event::Unset { id: id(1) });
    scene.ask(Method::DELETE, &format!("/v1/vifs/{}", id(3)), vec![]).await.unwrap();
    assert_eq!(next().await, Event::Unset { id: id(3) });
}

#[tokio::test]
async fn the_host_and_orders() {
    let scene = Scene::start().await;
    scene.put(1, "ready", "?wait=ready").await.unwrap();
    scene.put(2, "failed", "?wait=ready").await.unwrap_err();
    let summary: HostSummary = scene.client.get("/v1/status").await.unwrap();
    assert_eq!((summary.host.as_str(), summary.ready, summary.phases[&Phase::Ready]), ("h1", true, 1));
    let plan: PlanView = scene.client.get("/v1/plan").await.unwrap();
    assert_eq!((plan.operations.len(), plan.unready.len()), (1, 1));
    assert!(plan.unready[0].message.contains("no such device"));
    let paused: Paused = scene.client.post(&format!("/v1/pause?vif={}", id(1))).await.unwrap();
    assert_eq!(paused, Paused { paused: true, vif: Some(id(1)) });
    let refused = scene.ask(Method::POST, &format!("/v1/pause?vif={}", id(2)), vec![]).await.unwrap_err();
    assert_eq!((refused.0, &refused.1["error"]["code"]), (StatusCode::CONFLICT, &json!("refused")));
    let resumed: Paused = scene.client.post("/v1/resume").await.unwrap();
    assert_eq!(resumed, Paused { paused: false, vif: None });
    let confirmed: Confirmed = scene.client.post("/v1/confirm-removals").await.unwrap();
    assert_eq!(confirmed.confirmed, [id(7)]);
    let released: Released = scene.client.post("/v1/release").await.unwrap();
    assert_eq!(released.released, 3);
    let info = scene.ask(Method::GET, "/v1/host-info", vec![]).await.unwrap();
    assert_eq!(info["versioned_object.name"], "HostInfo");
}

#[tokio::test]
async fn what_can_be_taken_over_is_told_by_bridge() {
    let scene = Scene::start().await;
    for (filter, count) in [("", 1), ("?bridge=br-int", 1), ("?bridge=br-other", 0)] {
        let all = scene.ask(Method::GET, &format!("/v1/candidates{filter}"), vec![]).await.unwrap();
        assert_eq!(all["candidates"].as_array().unwrap().len(), count, "{filter}: {all}");
    }
    let all = scene.ask(Method::GET, "/v1/candidates", vec![]).await.unwrap();
    let one = &all["candidates"][0];
    assert_eq!((&one["id"], &one["standing"]["state"]), (&json!(id(9)), &json!("no_record")));
    assert_eq!(one["record"]["vif"]["vif_name"], "tap00000009-00");
    let (status, body) = scene.ask(Method::GET, "/v1/candidates?port=x", vec![]).await.unwrap_err();
    assert_eq!((status, &body["error"]["field"]), (StatusCode::BAD_REQUEST, &json!("port")));
}

#[tokio::test]
async fn probes_and_metrics_are_on_both_sockets_and_nothing_else_on_tcp() {
    let scene = Scene::start().await;
    scene.put(1, "ready", "?wait=ready").await.unwrap();
    let tcp = async |target: &str| {
        let mut stream = tokio::net::TcpStream::connect(scene.remote).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let local = scene.client.bytes(Method::GET, "/metrics", vec![], Duration::ZERO).await.unwrap();
    for text in [tcp("/metrics").await, String::from_utf8(local).unwrap()] {
        assert!(text.contains("vifd_vifs{phase=\"ready\"} 1"), "{text}");
    }
    assert!(tcp("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(tcp("/readyz").await.starts_with("HTTP/1.1 200"));
    for target in ["/v1/vifs", "/v1/status", "/v1/pause"] {
        assert!(tcp(target).await.starts_with("HTTP/1.1 404"), "{target}");
    }
    fs::remove_dir_all(scene.root.path().join("vifs")).unwrap();
    let mut answer = String::new();
    while !answer.starts_with("HTTP/1.1 503") {
        tokio::time::sleep(Duration::from_millis(5)).await;
        answer = tcp("/readyz").await;
    }
    assert!(answer.contains("is not there"), "{answer}");
}

#[tokio::test]
async fn the_socket_has_its_mode_and_goes_with_the_server() {
    let scene = Scene::start().await;
    let socket = scene.root.path().join("run/vifd/api.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o640);
    let none = config::Metrics { listen: config::Listen(None) };
    let second = Server::bind(&settings(socket.clone()), &none).await.unwrap_err();
    assert!(matches!(second, BindError::InUse(_)), "{second}");
    let left: Vec<_> =
        fs::read_dir(socket.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".v")), "{left:?}");
    drop(scene._stop);
    while socket.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stale_socket_is_taken_over_and_a_file_is_not() {
    let root = tempfile::tempdir().unwrap();
    let none = config::Metrics { listen: config::Listen(None) };
    let socket = root.path().join("api.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let server = Server::bind(&settings(socket.clone()), &none).await.unwrap();
    drop(server);
    fs::write(&socket, "precious").unwrap();
    let refused = Server::bind(&settings(socket.clone()), &none).await.unwrap_err();
    assert!(matches!(refused, BindError::NoSocket(_)), "{refused}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn connections_that_ask_for_nothing_keep_nobody_out_and_watchers_leave_room() {
    let scene = Scene::start().await;
    let socket = scene.root.path().join("run/vifd/api.sock");
    let mut held = Vec::new();
    for _ in 0..600 {
        held.push(tokio::net::UnixStream::connect(&socket).await.unwrap());
    }
    scene.ask(Method::GET, "/v1/status", vec![]).await.unwrap();
    // The first came first and gave its seat up; the last still has it.
    assert_eq!(held[0].read(&mut [0]).await.unwrap(), 0);
    drop(held);

    let mut watchers = Vec::new();
    for _ in 0..256 {
        let mut watcher = tokio::net::UnixStream::connect(&socket).await.unwrap();
        watcher.write_all(b"GET /v1/vifs?watch=true HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_ne!(watcher.read(&mut [0; 100]).await.unwrap(), 0);
        watchers.push(watcher);
    }
    let refused = scene.ask(Method::GET, "/v1/vifs", vec![]).await.unwrap_err();
    assert_eq!((refused.0, &refused.1["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
    scene.ask(Method::GET, "/v1/status", vec![]).await.unwrap();
    drop(watchers);
    while scene.ask(Method::GET, "/v1/vifs", vec![]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_said_to_be_so() {
    let root = tempfile::tempdir().unwrap();
    let client = Client::new(root.path().join("api.sock"));
    let error = client.get::<HostSummary>("/v1/status").await.unwrap_err();
    assert!(matches!(error, ClientError::Absent { .. }) && error.is_unreachable());
    assert!(error.to_string().contains("nothing listens at"), "{error}");
}
