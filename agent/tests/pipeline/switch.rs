//! A switch: ovs-vswitchd with a bridge `br0` on the dummy datapath, in a private directory that goes with the value.
//! Kept in step with `flows/tests/ovs_ofctl/switch.rs`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vifd::plan::pipeline::{Place, Reason, tables};

use crate::scene::Bridge;

/// How long anything may take on a busy machine before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Switch {
    directory: tempfile::TempDir,
    daemons: Vec<Child>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It left by these ports, in order of text, each as `ofproto/trace` tells of it: `p2`, `push_vlan(vid=100,pcp=0),p9`.
    Sent(Vec<String>),
    /// It was dropped at a place that is for this.
    Dropped(Reason),
}

fn schema() -> PathBuf {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&directories)
        .filter(|directory| directory.join("ovsdb-tool").exists())
        .map(|directory| directory.join("../share/openvswitch/vswitch.ovsschema"))
        .find(|schema| schema.exists());
    beside.expect("these tests need ovsdb-tool and its vswitch.ovsschema in PATH (openvswitch-common)")
}

/// Runs a program with a text to read.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need {program} in PATH (openvswitch): {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl Switch {
    /// A switch whose bridge has the ports 1 to `ports`, named `p1` and so on, and writes what it sends into files.
    pub(crate) fn start(ports: u16) -> Self {
        let mut switch = Switch { directory: tempfile::tempdir().unwrap(), daemons: Vec::new() };
        let database = switch.path("conf.db");
        output("ovsdb-tool", &["create", &database, &schema().display().to_string()], "");
        let socket = format!("--remote=punix:{}", switch.path("db.sock"));
        let control = format!("--unixctl={}", switch.path("server.ctl"));
        switch.daemon("ovsdb-server", &[&database, &socket, &control, "-vconsole:off"]);
        switch.wait_for("db.sock");
        switch.vsctl(&["--no-wait".to_owned(), "init".to_owned()]);
        let database = format!("unix:{}", switch.path("db.sock"));
        let control = format!("--unixctl={}", switch.path("vswitchd.ctl"));
        let log = format!("--log-file={}", switch.path("vswitchd.log"));
        switch.daemon(
            "ovs-vswitchd",
            &[&database, &control, &log, "--enable-dummy", "--disable-system", "-vconsole:off"],
        );
        let mut bridge: Vec<String> =
            ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure"]
                .map(str::to_owned)
                .into();
        for port in 1..=ports {
            let sent = switch.path(&format!("p{port}.pcap"));
            bridge.extend(["--", "add-port", "br0"].map(str::to_owned));
            bridge.push(format!("p{port}"));
            bridge.extend(["--", "set", "interface"].map(str::to_owned));
            bridge.push(format!("p{port}"));
            bridge.push("type=dummy".to_owned());
            bridge.push(format!("ofport_request={port}"));
            bridge.push(format!("options:tx_pcap={sent}"));
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

    fn vsctl(&self, arguments: &[String]) {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        output("ovs-vsctl", &[&[database.as_str(), "--timeout=60"], &arguments[..]].concat(), "");
    }

    /// `ovs-ofctl` in OpenFlow 1.4 on the bridge.
    pub(crate) fn ofctl(&self, command: &str, behind: &[&str], input: &str) -> String {
        let bridge = format!("unix:{}", self.path("br0.mgmt"));
        output("ovs-ofctl", &[&["-O", "OpenFlow14", command, &bridge], behind].concat(), input)
    }

    /// Gives the switch everything of a bridge, and takes from it every flow that is not.
    pub(crate) fn load(&self, bridge: &Bridge) {
        let all = bridge.everything();
        self.ofctl("set-frags", &["nx-match"], "");
        let lines = |lines: Vec<String>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        for meter in &all.meters {
            self.ofctl("add-meter", &[&meter.to_string()], "");
        }
        let groups = all.groups.iter().map(|group| {
            let there = self.ofctl("dump-groups", &[&group.id.to_string()], "").contains("group_id");
            (if there { "mod-group" } else { "add-group" }, group)
        });
        for (command, group) in groups.collect::<Vec<_>>() {
            self.ofctl(command, &["-"], &group.to_string());
        }
        self.ofctl("replace-flows", &["-"], &lines(all.flows.iter().map(ToString::to_string).collect()));
        // Until then the datapath does as the flows of before said.
        self.control("revalidator/wait", &[]);
    }

    /// A command of ovs-vswitchd, by its control socket (JSON-RPC, `unixctl`).
    pub(crate) fn control(&self, method: &str, arguments: &[&str]) -> String {
        let mut socket = UnixStream::connect(self.path("vswitchd.ctl")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = json!({ "id": 0, "method": method, "params": arguments });
        socket.write_all(request.to_string().as_bytes()).unwrap();
        let mut answers = serde_json::Deserializer::from_reader(std::io::BufReader::new(&socket)).into_iter::<Value>();
        let answer = answers.next().expect("an answer").unwrap();
        match &answer["result"] {
            Value::String(text) => text.clone(),
            _ => panic!("{method} {arguments:?}: {answer}"),
        }
    }

    /// What becomes of a packet, in `ovs-ofctl`'s words, with the states that connection tracking is to tell in turn.
    pub(crate) fn trace(&self, packet: &str, states: &[&str]) -> Fate {
        let states: Vec<_> = states.iter().flat_map(|state| ["--ct-next", state]).collect();
        let arguments = [&["--names"], &states[..], &["br0", packet]].concat();
        let told = self.control("ofproto/trace", &arguments);
        // After connection tracking the rest is told of as another packet.
        let actions: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("Datapath actions: ")).collect();
        assert!(!actions.is_empty(), "{told}");
        let mut sent: Vec<_> = actions.iter().flat_map(|actions| sends(actions)).collect();
        if sent.is_empty() {
            let place = told.lines().filter_map(place).next_back().unwrap_or_else(|| panic!("{told}"));
            let reason = tables::dropped_at(place).unwrap_or_else(|| panic!("{place:?} drops nothing:\n{told}"));
            return Fate::Dropped(reason);
        }
        sent.sort();
        Fate::Sent(sent)
    }

    /// Puts a frame in by a port.
    pub(crate) fn receive(&self, port: u16, frame: &[u8]) {
        let hex: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
        self.control("netdev-dummy/receive", &[&format!("p{port}"), &hex]);
    }

    /// The frames that have left by a port since the switch began.
    pub(crate) fn sent(&self, port: u16) -> Vec<Vec<u8>> {
        let mut octets = Vec::new();
        if let Ok(mut file) = std::fs::File::open(self.path(&format!("p{port}.pcap"))) {
            file.read_to_end(&mut octets).unwrap();
        }
        // pcap-savefile(5): 24 octets, then for each frame two of time, the length kept and the whole.
        let mut rest = octets.get(24..).unwrap_or_default();
        let mut frames = Vec::new();
        while let Some(head) = rest.get(..16) {
            let length = u32::from_ne_bytes(head[8..12].try_into().unwrap()) as usize;
            let Some(frame) = rest.get(16..16 + length) else { break };
            frames.push(frame.to_vec());
            rest = &rest[16 + length..];
        }
        frames
    }
}

/// The place of a flow that a packet came by, from a line of a trace: `12. ip,reg5=0x1, priority 20, cookie 0x50…`. Within
/// groups and clones it has no number and is not told.
fn place(line: &str) -> Option<Place> {
    let (table, rest) = line.trim().split_once(". ")?;
    let priority = rest.split_once("priority ").map_or("0", |(_, rest)| rest.split(',').next().unwrap_or_default());
    Some(Place { table: table.parse().ok()?, priority: priority.parse().ok()? })
}

/// The outputs in a list of datapath actions, each with what was done to the packet for it.
fn sends(actions: &str) -> Vec<String> {
    let mut sends = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    let mut depth = 0;
    let pieces = actions.split(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    });
    for action in pieces {
        if action.starts_with('p') && action[1..].bytes().all(|byte| byte.is_ascii_digit()) {
            sends.push([&done[..], &[action]].concat().join(","));
        } else if action == "pop_vlan" && done.last().is_some_and(|last| last.starts_with("push_vlan")) {
            done.pop();
        } else if !["ct(", "ct_clear", "recirc(", "meter("].iter().any(|kind| action.starts_with(kind)) {
            done.push(action);
        }
    }
    sends
}

impl Drop for Switch {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
