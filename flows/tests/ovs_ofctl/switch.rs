//! A switch: ovs-vswitchd in a private directory, with a bridge on the dummy datapath. It needs no privilege, and ends
//! with the value.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::programs::{ofctl_with, output, with_header};

/// How long anything may take on a busy machine before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Switch {
    directory: tempfile::TempDir,
    daemons: Vec<Child>,
}

/// The schema beside the `ovsdb-tool` in `PATH`.
fn schema() -> PathBuf {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&directories)
        .filter(|directory| directory.join("ovsdb-tool").exists())
        .map(|directory| directory.join("../share/openvswitch/vswitch.ovsschema"))
        .find(|schema| schema.exists());
    beside.expect("these tests need ovsdb-tool and its vswitch.ovsschema in PATH (openvswitch-common)")
}

impl Switch {
    /// A switch whose bridge `br0` has the ports 1 to 3.
    pub(crate) fn start() -> Self {
        let mut switch = Switch { directory: tempfile::tempdir().unwrap(), daemons: Vec::new() };
        let database = switch.path("conf.db");
        output("ovsdb-tool", &["create", &database, &schema().display().to_string()], "");
        let socket = format!("--remote=punix:{}", switch.path("db.sock"));
        let control = format!("--unixctl={}", switch.path("server.ctl"));
        switch.daemon("ovsdb-server", &[&database, &socket, &control, "-vconsole:off"]);
        switch.wait_for("db.sock");
        switch.vsctl(&["--no-wait", "init"]);
        let database = format!("unix:{}", switch.path("db.sock"));
        let control = format!("--unixctl={}", switch.path("vswitchd.ctl"));
        let log = format!("--log-file={}", switch.path("vswitchd.log"));
        switch.daemon(
            "ovs-vswitchd",
            &[&database, &control, &log, "--enable-dummy", "--disable-system", "-vconsole:off"],
        );
        let mut bridge = vec!["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure"];
        for (port, request) in [("p1", "ofport_request=1"), ("p2", "ofport_request=2"), ("p3", "ofport_request=3")] {
            bridge.extend(["--", "add-port", "br0", port, "--", "set", "interface", port, "type=dummy", request]);
        }
        switch.vsctl(&bridge);
        switch
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn daemon(&mut self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.directory.path());
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("these tests need {program} in PATH: {error}"));
        self.daemons.push(child);
    }

    fn wait_for(&self, socket: &str) {
        let begin = Instant::now();
        while UnixStream::connect(self.path(socket)).is_err() {
            assert!(begin.elapsed() < PATIENCE, "{socket} does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn vsctl(&self, arguments: &[&str]) {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        output("ovs-vsctl", &[&[database.as_str(), "--timeout=60"], arguments].concat(), "");
    }

    /// A command of `ovs-ofctl` on the bridge: what stands before the bridge, what behind it, what it reads.
    pub(crate) fn ofctl_with(&self, before: &[&str], behind: &[&str], input: &str) -> String {
        let bridge = format!("unix:{}", self.path("br0.mgmt"));
        ofctl_with(&[before, &[bridge.as_str()], behind].concat(), input)
    }

    /// Sends messages, given by their types and bodies, and fails if the switch refuses one of them.
    pub(crate) fn send(&self, messages: impl IntoIterator<Item = (u8, Vec<u8>)>) {
        let mut connection = UnixStream::connect(self.path("br0.mgmt")).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut out = with_header(0, &[]);
        messages.into_iter().for_each(|(kind, body)| out.extend(with_header(kind, &body)));
        // A barrier's reply is the last.
        out.extend(with_header(20, &[]));
        connection.write_all(&out).unwrap();
        loop {
            let mut header = [0; 8];
            connection.read_exact(&mut header).unwrap();
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
            connection.read_exact(&mut body).unwrap();
            match header[1] {
                1 => panic!(
                    "refused: {}",
                    crate::programs::ofctl(&["ofp-print", &crate::hex(&[&header[..], &body].concat())])
                ),
                21 => break,
                _ => {}
            }
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
