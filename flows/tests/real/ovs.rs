//! A real ovs-vswitchd with a bridge `br0` in a private directory, for tests: its start, its restart, its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flows::endpoint::Endpoint;
use flows::message::{Message, PacketOut};
use flows::session::{Config, Handle, Session, SessionError, SessionState};
use flows::{Action, Flow, FlowCommand, FlowFlags, FlowMod, Group, GroupKind, Instructions, Match, PortNo};
use vifd_integration::lab::{PlainOvs, filter};

/// How long anything may take on a busy machine before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Open vSwitch with a bridge `br0`.
pub(crate) struct Switch(PlainOvs);

impl Switch {
    /// A switch whose bridge `br0` has the ports 1 to 3, `p1` to `p3`.
    pub(crate) fn start() -> Self {
        Self::with(Vec::new())
    }

    /// The same with further arguments for ovs-vswitchd.
    pub(crate) fn with(arguments: Vec<String>) -> Self {
        let switch = Switch(PlainOvs::switch(arguments).unwrap());
        switch.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure"]);
        for port in ["1", "2", "3"] {
            let name = format!("p{port}");
            let request = format!("ofport_request={port}");
            switch.vsctl(&["add-port", "br0", &name, "--", "set", "interface", &name, "type=dummy", &request]);
        }
        switch
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Starts ovs-vswitchd and waits until it has made the bridges that the database has.
    pub(crate) fn up(&mut self) {
        self.0.start_vswitchd().unwrap();
    }

    /// Kills ovs-vswitchd without a warning.
    pub(crate) fn down(&mut self) {
        self.0.kill_vswitchd();
    }

    pub(crate) fn log(&self) -> String {
        self.0.log("ovs-vswitchd")
    }

    pub(crate) fn vsctl(&self, arguments: &[&str]) -> String {
        self.0.vsctl(arguments).unwrap()
    }

    /// An independent client's command on `br0`, in OpenFlow 1.4.
    pub(crate) fn ofctl(&self, command: &str, arguments: &[&str]) -> String {
        self.0.ofctl("br0", &[command], arguments, "").unwrap()
    }

    /// The flows of `br0`, one a line, without counters, sorted.
    pub(crate) fn flows(&self) -> Vec<String> {
        let text = self.ofctl("dump-flows", &["--no-stats"]);
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path("br0.mgmt"))
    }

    /// A session that is ready.
    pub(crate) async fn session(&self) -> Handle {
        ready(Config::new(self.endpoint())).await
    }
}

pub(crate) async fn ready(config: Config) -> Handle {
    let handle = Session::spawn(config);
    wait_ready(&handle).await;
    handle
}

pub(crate) async fn wait_ready(handle: &Handle) {
    let mut state = handle.state();
    let ready = state.wait_for(|state| matches!(state, SessionState::Ready(_)));
    if tokio::time::timeout(PATIENCE, ready).await.is_err() {
        panic!("not ready: {:?}", *handle.state().borrow());
    }
}

/// Waits until a session has failed, and tells why.
pub(crate) async fn failure(handle: &Handle) -> std::sync::Arc<SessionError> {
    let mut state = handle.state();
    let failed = state.wait_for(|state| matches!(state, SessionState::Failed(_)));
    match &*tokio::time::timeout(PATIENCE, failed).await.expect("a failure").unwrap() {
        SessionState::Failed(error) => error.clone(),
        _ => unreachable!(),
    }
}

pub(crate) fn wait_until(what: &str, met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < PATIENCE, "no {what} in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a program of Open vSwitch, and gives what it printed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    filter(program, arguments, "").unwrap()
}

/// A flow of `table` with this match in `ovs-ofctl`'s words.
pub(crate) fn flow(table: u8, priority: u16, cookie: u64, matching: &str, actions: &[Action]) -> Flow {
    Flow {
        table,
        priority,
        matching: matching.parse::<Match>().unwrap(),
        instructions: Instructions { apply: actions.into(), ..Instructions::default() },
        cookie,
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        flags: FlowFlags::default(),
    }
}

pub(crate) fn output_to(port: u32) -> Action {
    Action::Output { port: PortNo(port), max_len: 0 }
}

/// So many flows that differ.
pub(crate) fn many(count: u32, cookie: u64) -> Vec<Flow> {
    (0..count)
        .map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            let matching = format!("in_port=1,dl_src=02:00:00:{a:02x}:{b:02x}:{c:02x}");
            flow(0, 100, cookie, &matching, &[output_to(2)])
        })
        .collect()
}

pub(crate) fn add(flow: &Flow) -> Message {
    Message::FlowMod(FlowMod::new(FlowCommand::Add, flow.clone()))
}

/// A group that sends to ports 1 to 3 in turn, so many times.
pub(crate) fn group(id: u32, buckets: u32) -> Group {
    let bucket = |number| flows::Bucket {
        weight: 0,
        watch_port: PortNo::ANY,
        watch_group: u32::MAX,
        actions: [output_to(1 + number % 3)].into(),
    };
    Group { id, kind: GroupKind::All, buckets: (0..buckets).map(bucket).collect() }
}

pub(crate) fn packet_to(port: u32) -> PacketOut {
    let mut packet = vec![0xff; 6];
    packet.extend([2, 0, 0, 0, 0, 9, 0x12, 0x34]);
    packet.resize(60, 0);
    let actions = [output_to(port)].into();
    PacketOut { buffer: None, in_port: PortNo::CONTROLLER, actions, data: Bytes::from(packet) }
}
