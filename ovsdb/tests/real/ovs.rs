//! A real ovsdb-server in a private directory, for tests: its start, its restart, its end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ovsdb::outcome::Outcome;
use ovsdb::session::{Config, Handle, Session, SessionState};
use ovsdb::transact::{NewRow, Transaction, Values};
use ovsdb::value::Uuid;
use ovsdb::vswitch::{Bridge, Interface, OpenVSwitch, Port, Snapshot};

/// Open vSwitch's schema, from where its `ovsdb-tool` is: in `PATH`, so that both are of one version.
pub(crate) fn schema() -> String {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&directories)
        .filter(|directory| directory.join("ovsdb-tool").exists())
        .map(|directory| directory.join("../share/openvswitch/vswitch.ovsschema"))
        .find(|schema| schema.exists());
    let schema = beside.expect("these tests need ovsdb-tool and its vswitch.ovsschema (openvswitch-common)");
    schema.display().to_string()
}

/// How long anything may take on a busy machine before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An ovsdb-server that ends with this value.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A server of an empty `Open_vSwitch` database on a unix socket.
    pub(crate) fn start() -> Self {
        Self::with(|_| Vec::new())
    }

    /// The same with further arguments, given the directory.
    pub(crate) fn with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        Self::serving(|database| run("ovsdb-tool", &["create", path(database), &schema()]), arguments)
    }

    /// The same with a database made otherwise.
    pub(crate) fn serving(create: impl FnOnce(&Path), arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        create(&directory.path().join("conf.db"));
        let arguments = arguments(directory.path());
        let mut server = Self { directory, arguments, child: None };
        server.up();
        server
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    /// Starts the server and waits for its socket.
    pub(crate) fn up(&mut self) {
        let file = |name: &str| self.path(name).display().to_string();
        let child = Command::new("ovsdb-server")
            .arg(file("conf.db"))
            .arg(format!("--remote=punix:{}", file("db.sock")))
            .arg(format!("--unixctl={}", file("server.ctl")))
            .arg(format!("--log-file={}", file("server.log")))
            .args(["-vconsole:off", "-vfile:info"])
            .args(&self.arguments)
            .env("OVS_RUNDIR", self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need ovsdb-server (Debian package openvswitch-switch)");
        self.child = Some(child);
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.path("db.sock")).is_err() {
            assert!(begun.elapsed() < PATIENCE, "ovsdb-server does not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the server without a warning.
    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            let _ = std::fs::remove_file(self.path("db.sock"));
        }
    }

    /// The port that the kernel chose for a remote on port 0. The server listens on its remotes one after
    /// another, so this one may come after the socket.
    pub(crate) fn port(&self) -> u16 {
        let begun = Instant::now();
        loop {
            if let Some((_, rest)) = self.log().rsplit_once("listening on port ")
                && let Some((port, _)) = rest.split_once('\n')
            {
                return port.trim().parse().unwrap();
            }
            assert!(begun.elapsed() < PATIENCE, "no remote on port 0: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// The control command, e.g. `ovsdb-server/reconnect`.
    pub(crate) fn appctl(&self, arguments: &[&str]) -> String {
        let control = self.path("server.ctl");
        let mut all = vec!["-t", path(&control)];
        all.extend(arguments);
        output("ovs-appctl", &all)
    }

    /// An independent client's command.
    pub(crate) fn vsctl(&self, arguments: &[&str]) -> String {
        let database = format!("--db={}", self.endpoint());
        let mut all = vec!["--no-wait", &database];
        all.extend(arguments);
        output("ovs-vsctl", &all)
    }

    /// A session over the unix socket that is ready.
    pub(crate) async fn session(&self) -> Handle<Snapshot> {
        ready(Config::endpoint(self.endpoint().parse().unwrap(), None)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A session that is ready.
pub(crate) async fn ready(config: Config) -> Handle<Snapshot> {
    let handle = Session::spawn(config, Snapshot::new(["iface-id"]));
    wait_ready(&handle).await;
    handle
}

pub(crate) async fn wait_ready(handle: &Handle<Snapshot>) {
    let mut state = handle.state();
    let ready = state.wait_for(|state| matches!(state, SessionState::Ready));
    if tokio::time::timeout(PATIENCE, ready).await.is_err() {
        panic!("not ready: {:?}", *handle.state().borrow());
    }
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    output(program, arguments);
}

pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn database(handle: &Handle<Snapshot>) -> std::sync::Arc<Snapshot> {
    handle.snapshot().borrow().ready().expect("ready").clone()
}

/// Puts a port with one interface on a bridge that the transaction knows by `bridge`.
pub(crate) fn add_port<G: Clone>(txn: &mut Transaction<G>, name: &str, id: &str) -> (NewRow, NewRow) {
    let interface = txn.insert(
        &Values::new()
            .with(Interface::NAME, name)
            .with(Interface::TYPE, "internal")
            .with(Interface::EXTERNAL_IDS, [("iface-id", id)]),
    );
    let port = txn.insert(&Values::new().with(Port::NAME, name).with(Port::INTERFACES, interface));
    (port, interface)
}

/// A bridge `br0` in a database that `ovs-vsctl init` has initialised.
pub(crate) async fn with_bridge(server: &Server) -> (Handle<Snapshot>, Uuid) {
    server.vsctl(&["init"]);
    let handle = server.session().await;
    let mut txn = Transaction::new(());
    let (port, _) = add_port(&mut txn, "br0", "");
    let bridge = txn.insert(&Values::new().with(Bridge::NAME, "br0").with(Bridge::PORTS, port));
    let root = database(&handle).root().cloned().unwrap();
    txn.mutate(root.uuid, [OpenVSwitch::BRIDGES.insert(bridge)]);
    let Outcome::Committed(applied) = handle.transact(&txn).await else { panic!() };
    (handle, applied.uuid(bridge).unwrap())
}
