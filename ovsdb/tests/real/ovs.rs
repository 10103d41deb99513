//! A real ovsdb-server in a private directory, for tests: its start, its restart, its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ovsdb::outcome::Outcome;
use ovsdb::session::{Config, Handle, Session, SessionState};
use ovsdb::transact::{NewRow, Transaction, Values};
use ovsdb::value::Uuid;
use ovsdb::vswitch::{Bridge, Interface, OpenVSwitch, Port, Snapshot};
use vifd_integration::lab::{PlainOvs, filter};

/// How long anything may take on a busy machine before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An ovsdb-server that ends with this value.
pub(crate) struct Server(PlainOvs);

impl Server {
    /// A server of an empty `Open_vSwitch` database on a unix socket.
    pub(crate) fn start() -> Self {
        Server(PlainOvs::database().unwrap())
    }

    /// The same with further arguments, given the directory.
    pub(crate) fn with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        Server(PlainOvs::database_with(arguments).unwrap())
    }

    /// The same with a database made otherwise.
    pub(crate) fn serving(create: impl FnOnce(&Path), arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let create = |database: &Path| {
            create(database);
            Ok(())
        };
        Server(PlainOvs::serving(create, arguments).unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    pub(crate) fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    /// Starts the server and waits for its socket.
    pub(crate) fn up(&mut self) {
        self.0.start_server().unwrap();
    }

    /// Kills the server without a warning.
    pub(crate) fn down(&mut self) {
        self.0.kill_server();
    }

    /// The port that the kernel chose for a remote on port 0. The server listens on its remotes one after
    /// another, so this one may come after the socket.
    pub(crate) fn port(&self) -> u16 {
        let begun = Instant::now();
        loop {
            let log = self.0.log("ovsdb-server");
            if let Some((_, rest)) = log.rsplit_once("listening on port ")
                && let Some((port, _)) = rest.split_once('\n')
            {
                return port.trim().parse().unwrap();
            }
            assert!(begun.elapsed() < PATIENCE, "no remote on port 0: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The control command, e.g. `ovsdb-server/reconnect`.
    pub(crate) fn control(&self, command: &str, arguments: &[&str]) -> String {
        self.0.control("ovsdb-server", command, arguments).unwrap()
    }

    /// An independent client's command.
    pub(crate) fn vsctl(&self, arguments: &[&str]) -> String {
        self.0.vsctl(&[&["--no-wait"], arguments].concat()).unwrap()
    }

    /// A session over the unix socket that is ready.
    pub(crate) async fn session(&self) -> Handle<Snapshot> {
        ready(Config::endpoint(self.endpoint().parse().unwrap(), None)).await
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

/// Runs a program of Open vSwitch.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    filter(program, arguments, "").unwrap();
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
