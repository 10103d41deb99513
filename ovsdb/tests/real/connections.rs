//! Ways to a server, and what happens when they break.

use std::path::PathBuf;
use std::time::Duration;

use ovsdb::endpoint::Dial;
use ovsdb::outcome::Outcome;
use ovsdb::replica::NoReplica;
use ovsdb::session::{CallError, Config, Handle, LockMode, LockState, Session, SessionError, SessionState};
use ovsdb::tls::{Tls, Verification};
use ovsdb::transact::{Transaction, Where};
use ovsdb::vswitch::{Bridge, OpenVSwitch, Snapshot};
use vifd_integration::lab::schema;

use crate::ovs::{PATIENCE, Server, add_port, database, path, ready, run, wait_ready, with_bridge};

/// Waits until a session has failed, and tells why.
async fn failure(handle: &Handle<Snapshot>) -> std::sync::Arc<SessionError> {
    let mut state = handle.state();
    let failed = state.wait_for(|state| matches!(state, SessionState::Failed(_)));
    match &*tokio::time::timeout(PATIENCE, failed).await.expect("a failure").unwrap() {
        SessionState::Failed(error) => error.clone(),
        _ => unreachable!(),
    }
}

/// An error with its causes.
fn chain(error: &SessionError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn tcp() {
    let server = Server::with(|_| vec!["--remote=ptcp:0:127.0.0.1".to_owned()]);
    server.vsctl(&["init"]);
    let endpoint = format!("tcp:127.0.0.1:{}", server.port());
    let handle = ready(Config::endpoint(endpoint.parse().unwrap(), None)).await;
    assert!(database(&handle).root().is_some());
    let by_name = format!("tcp:localhost:{}", server.port());
    ready(Config::endpoint(by_name.parse().unwrap(), None)).await;
    assert_eq!(handle.list_dbs().await.unwrap(), ["Open_vSwitch", "_Server"]);
}

#[tokio::test]
async fn a_real_server_that_probes_gets_its_answers() {
    let server = Server::with(|_| vec!["--remote=db:Open_vSwitch,Open_vSwitch,manager_options".to_owned()]);
    let manager = ["--id=@m", "create", "manager", "target=\"ptcp:0:127.0.0.1\"", "inactivity_probe=1000"];
    server.vsctl(&["init"]);
    server.vsctl(&[&["--"], &manager[..], &["--", "set", "open_vswitch", ".", "manager_options=@m"]].concat());
    let endpoint = format!("tcp:127.0.0.1:{}", server.port());
    let mut config = Config::endpoint(endpoint.parse().unwrap(), None);
    // The server's probes are to keep the connection up, not ours.
    config.probe_interval = Duration::MAX;
    let handle = ready(config).await;
    let before = handle.statistics();
    // Unanswered, the second second of silence would be the last.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let after = handle.statistics();
    assert!(after.messages_sent >= before.messages_sent + 2, "{after:?}");
    assert_eq!((after.connections, after.connected), (1, true));
}

#[tokio::test]
async fn servers_are_tried_in_turn() {
    let server = Server::start();
    let dial = |text: &str| Dial::new(text.parse().unwrap(), None);
    let config =
        Config::new(dial("unix:/nonexistent/db.sock")).or(dial("tcp:127.0.0.1:1")).or(dial(&server.endpoint()));
    let begun = std::time::Instant::now();
    let handle = ready(config).await;
    assert_eq!(handle.statistics().connect_failures, 2);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Certificates as an administrator makes them with ovs-pki, in a directory that goes with this value.
struct Pki(tempfile::TempDir);

impl Pki {
    fn new() -> Self {
        let pki = Self(tempfile::tempdir().unwrap());
        pki.ovs_pki(&["init"]);
        // The CA "controller" signs the server, the CA "switch" its clients.
        pki.ovs_pki(&["req+sign", "server", "controller"]);
        pki.ovs_pki(&["req+sign", "client", "switch"]);
        pki
    }

    fn ovs_pki(&self, arguments: &[&str]) {
        let directory = self.0.path();
        let output = std::process::Command::new("ovs-pki")
            .arg(format!("--dir={}", directory.join("pki").display()))
            .arg(format!("--log={}", directory.join("log").display()))
            .arg("--unique")
            .args(arguments)
            .current_dir(directory)
            .output()
            .expect("these tests need ovs-pki (Debian package openvswitch-pki)");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ca(&self, of: &str) -> PathBuf {
        self.file(&format!("pki/{of}ca/cacert.pem"))
    }

    /// What ovs-pki cannot: a certificate with a subject alternative name.
    fn certify(&self, name: &str, alternative: &str) {
        let (key, request) = (self.file(&format!("{name}-privkey.pem")), self.file(&format!("{name}-req.pem")));
        let subject = format!("/CN={name}");
        let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", path(&key)];
        run("openssl", &[&new[..], &["-out", path(&request)]].concat());
        let extensions = self.file("extensions");
        std::fs::write(&extensions, format!("subjectAltName={alternative}\n")).unwrap();
        let (ca, ca_key) = (self.ca("controller"), self.file("pki/controllerca/private/cakey.pem"));
        let sign = ["x509", "-req", "-in", path(&request), "-CA", path(&ca), "-CAkey", path(&ca_key)];
        let certificate = self.file(&format!("{name}-cert.pem"));
        let rest = ["-set_serial", "77", "-extfile", path(&extensions), "-out", path(&certificate)];
        run("openssl", &[&sign[..], &rest].concat());
    }

    fn serve(&self, name: &str) -> Server {
        let (name, ca) = (name.to_owned(), self.ca("switch"));
        Server::with(|_| {
            vec![
                "--remote=pssl:0:127.0.0.1".to_owned(),
                format!("--private-key={}", self.file(&format!("{name}-privkey.pem")).display()),
                format!("--certificate={}", self.file(&format!("{name}-cert.pem")).display()),
                format!("--ca-cert={}", ca.display()),
            ]
        })
    }

    fn client(&self) -> Tls {
        Tls {
            private_key: self.file("client-privkey.pem"),
            certificate: self.file("client-cert.pem"),
            ca_certificate: self.ca("controller"),
            verification: Verification::ByEndpoint,
        }
    }
}

fn ssl(host: &str, server: &Server, tls: &Tls) -> Config {
    Config::endpoint(format!("ssl:{host}:{}", server.port()).parse().unwrap(), Some(tls.clone()))
}

#[tokio::test]
async fn mutual_tls() {
    let pki = Pki::new();
    let server = pki.serve("server");
    server.vsctl(&["init"]);
    let tls = pki.client();
    let spawn = |config| Session::spawn(config, Snapshot::default());

    // An address is dialled: the chain is what can be verified of ovs-pki's certificates.
    let handle = ready(ssl("127.0.0.1", &server, &tls)).await;
    let mut txn = Transaction::new(());
    txn.mutate(Where::all(), [OpenVSwitch::NEXT_CFG.increase_by(1)]);
    assert_eq!(handle.transact(&txn).await.name(), "committed");
    assert_eq!(database(&handle).root().unwrap().next_cfg, 1);

    // A name is dialled: it has to be in the certificate, unless one asks for less.
    let error = chain(&*failure(&spawn(ssl("localhost", &server, &tls))).await);
    assert!(error.contains("certificate"), "{error}");
    ready(ssl("localhost", &server, &Tls { verification: Verification::Chain, ..tls.clone() })).await;
    let strict = Tls { verification: Verification::Name, ..tls.clone() };
    failure(&spawn(ssl("127.0.0.1", &server, &strict))).await;

    // A server that our CA did not sign, a client that the server's CA did not sign.
    let stranger = Tls { ca_certificate: pki.ca("switch"), ..tls.clone() };
    let error = chain(&*failure(&spawn(ssl("127.0.0.1", &server, &stranger))).await);
    assert!(error.contains("invalid peer certificate"), "{error}");
    let impostor =
        Tls { private_key: pki.file("server-privkey.pem"), certificate: pki.file("server-cert.pem"), ..tls.clone() };
    let impostor = spawn(ssl("127.0.0.1", &server, &impostor));
    let error = chain(&*failure(&impostor).await);
    assert!(impostor.snapshot().borrow().ready().is_none(), "{error}");

    // Files that are not what they should be are named.
    let missing = Tls { private_key: pki.file("none.pem"), ..tls.clone() };
    let error = chain(&*failure(&spawn(ssl("127.0.0.1", &server, &missing))).await);
    assert!(error.contains("none.pem"), "{error}");
    let swapped = Tls { ca_certificate: pki.file("client-privkey.pem"), ..tls };
    let error = chain(&*failure(&spawn(ssl("127.0.0.1", &server, &swapped))).await);
    assert!(error.contains("client-privkey.pem: no certificate in it"), "{error}");

    // A certificate for the name.
    pki.certify("named", "DNS:localhost,IP:127.0.0.1");
    let server = pki.serve("named");
    ready(ssl("localhost", &server, &pki.client())).await;
    ready(ssl("127.0.0.1", &server, &strict)).await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_read_anew() {
    let mut server = Server::start();
    let (handle, _) = with_bridge(&server).await;
    let mut views = handle.snapshot();
    server.down();
    views.wait_for(|view| view.ready().is_none()).await.unwrap();
    let mut txn = Transaction::new(());
    txn.mutate(Where::all(), [OpenVSwitch::NEXT_CFG.increase_by(1)]);
    assert_eq!(handle.transact(&txn).await, Outcome::NotSent);
    assert_eq!(handle.call("list_dbs", &serde_json::json!([])).await, Err(CallError::NotSent));
    failure(&handle).await;
    server.up();
    // Changed before the session is back: it must come with the contents.
    server.vsctl(&["set", "bridge", "br0", "fail_mode=secure"]);
    wait_ready(&handle).await;
    let secure = |db: &Snapshot| db.bridge("br0").unwrap().fail_mode.as_deref() == Some("secure");
    views.wait_for(|view| view.ready().is_some_and(|db| secure(db))).await.unwrap();
    assert_eq!(*database(&handle), *database(&server.session().await));
    assert_eq!(handle.transact(&txn).await.name(), "committed");
    let statistics = handle.statistics();
    assert_eq!(statistics.connections, 2);
    assert_eq!(statistics.restarts.values().sum::<u64>(), 1, "{statistics:?}");
    assert_eq!(statistics.resyncs.values().sum::<u64>(), 1, "{statistics:?}");
}

/// Only a clustered database keeps a history from which a session can go on.
#[tokio::test]
async fn a_server_with_a_history_sends_what_happened_meanwhile() {
    let server = Server::serving(
        |file| {
            let address = format!("unix:{}", file.with_extension("raft").display());
            run("ovsdb-tool", &["create-cluster", path(file), path(&schema().unwrap()), &address]);
        },
        |_| Vec::new(),
    );
    let (handle, bridge) = with_bridge(&server).await;
    // The server keeps no more history than contents: so there must be contents.
    for i in 0..20 {
        let mut txn = Transaction::new(());
        let (port, _) = add_port(&mut txn, &format!("p{i}"), "x");
        txn.mutate(bridge, [Bridge::PORTS.insert(port)]);
        assert_eq!(handle.transact(&txn).await.name(), "committed");
    }
    let mut views = handle.snapshot();
    views.borrow_and_update();
    let before = handle.statistics();
    server.control("ovsdb-server/reconnect", &[]);
    views.wait_for(|view| view.ready().is_none()).await.unwrap();
    server.vsctl(&["add-port", "br0", "meanwhile"]);
    views.wait_for(|view| view.ready().is_some_and(|db| db.port("meanwhile").is_some())).await.unwrap();
    let after = handle.statistics();
    assert_eq!(after.connections, before.connections + 1);
    assert!(after.resyncs.is_empty(), "{:?}", after.resyncs);
    assert_eq!(*database(&handle), *database(&server.session().await));
}

/// Open vSwitch's schema with something changed.
fn serve_schema(change: impl FnOnce(&mut serde_json::Value)) -> Server {
    let text = std::fs::read_to_string(schema().unwrap()).unwrap();
    let mut schema = serde_json::from_str(&text).unwrap();
    change(&mut schema);
    Server::serving(
        |database| {
            let file = database.with_extension("ovsschema");
            std::fs::write(&file, schema.to_string()).unwrap();
            run("ovsdb-tool", &["create", path(database), path(&file)]);
        },
        |_| Vec::new(),
    )
}

#[tokio::test]
async fn an_older_schema_turns_features_off() {
    let server = serve_schema(|schema| {
        let columns = schema["tables"]["Interface"]["columns"].as_object_mut().unwrap();
        columns.remove("mtu_request");
        columns.remove("error");
        schema["tables"]["Open_vSwitch"]["columns"].as_object_mut().unwrap().remove("dpdk_initialized");
    });
    let (handle, _) = with_bridge(&server).await;
    let database = database(&handle);
    let layout = database.layout.as_ref().unwrap();
    assert_eq!(layout.missing(), ["Open_vSwitch.dpdk_initialized", "Interface.error", "Interface.mtu_request"]);
    assert!(!layout.has(ovsdb::vswitch::Interface::MTU_REQUEST));
    assert!(layout.has(ovsdb::vswitch::Interface::MTU));
    assert_eq!(database.interface("br0").unwrap().mtu_request, None);
}

#[tokio::test]
async fn a_schema_that_lacks_what_is_required_is_a_clear_error() {
    let server = serve_schema(|schema| {
        schema["version"] = "7.0.0".into();
        schema["tables"]["Port"]["columns"].as_object_mut().unwrap().remove("tag");
        schema["tables"]["Interface"]["columns"]["ofport"]["type"] = "string".into();
    });
    let handle = Session::spawn(Config::endpoint(server.endpoint().parse().unwrap(), None), Snapshot::default());
    let error = failure(&handle).await;
    assert!(error.is_configuration());
    assert_eq!(
        error.to_string(),
        "schema Open_vSwitch 7.0.0 of the server lacks Port.tag, Interface.ofport as optional integer"
    );
    // It is tried again, and the reason stays to be read meanwhile.
    let begun = std::time::Instant::now();
    while handle.statistics().connections < 3 {
        assert!(begun.elapsed() < PATIENCE);
        assert!(matches!(&*handle.state().borrow(), SessionState::Failed(error) if error.is_configuration()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_without_the_database_is_a_clear_error() {
    let server = serve_schema(|schema| schema["name"] = "Other".into());
    let handle = Session::spawn(Config::endpoint(server.endpoint().parse().unwrap(), None), Snapshot::default());
    let error = failure(&handle).await.to_string();
    assert!(error.starts_with("the OVSDB server refused its schema of Open_vSwitch: unknown database"), "{error}");
}

#[tokio::test]
async fn locks_pass_from_session_to_session() {
    let mut server = Server::start();
    server.vsctl(&["init"]);
    let (a, b) = (server.session().await, server.session().await);
    let assertion = |lock: &str| {
        let mut txn = Transaction::new(());
        txn.assert(lock);
        txn.mutate(Where::all(), [OpenVSwitch::NEXT_CFG.increase_by(1)]);
        txn
    };
    let mut at_a = a.lock("vifd", LockMode::Queue).await;
    at_a.wait_for(|state| *state == LockState::Held).await.unwrap();
    let mut at_b = b.lock("vifd", LockMode::Queue).await;
    assert_eq!(a.transact(&assertion("vifd")).await.name(), "committed");
    let Outcome::Rejected(rejection) = b.transact(&assertion("vifd")).await else { panic!() };
    assert_eq!((rejection.op, rejection.error.error.as_str()), (Some(0), "not owner"));
    assert_eq!(*at_b.borrow(), LockState::Waiting);

    b.lock("vifd", LockMode::Steal).await;
    at_b.wait_for(|state| *state == LockState::Held).await.unwrap();
    at_a.wait_for(|state| *state == LockState::Stolen).await.unwrap();
    assert_eq!(b.transact(&assertion("vifd")).await.name(), "committed");
    b.unlock("vifd").await;
    at_a.wait_for(|state| *state == LockState::Held).await.unwrap();

    // It does not outlive the connection, and is asked for again.
    server.down();
    at_a.wait_for(|state| *state == LockState::Waiting).await.unwrap();
    server.up();
    at_a.wait_for(|state| *state == LockState::Held).await.unwrap();

    let mut bad = a.lock("1 is no id", LockMode::Queue).await;
    bad.wait_for(|state| matches!(state, LockState::Refused(_))).await.unwrap();
}

#[tokio::test]
async fn a_session_without_tables_carries_calls() {
    let server = Server::start();
    let handle = Session::spawn(Config::endpoint(server.endpoint().parse().unwrap(), None), NoReplica);
    handle.state().wait_for(|state| matches!(state, SessionState::Ready)).await.unwrap();
    let schema = handle.call("get_schema", &serde_json::json!(["Open_vSwitch"])).await.unwrap();
    assert_eq!(schema["name"], "Open_vSwitch");
    let Err(CallError::Server(error)) = handle.call("nonsense", &serde_json::json!([])).await else { panic!() };
    assert_eq!(error.kind(), ovsdb::message::ErrorKind::UnknownMethod);
    // An error is an answer: the connection lives on.
    let echo = serde_json::json!(["x", {"y": [1.5, null]}]);
    assert_eq!(handle.call("echo", &echo).await.unwrap(), echo);
    assert_eq!(handle.statistics().connections, 1);
}
