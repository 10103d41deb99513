//! A switch with a bridge `br0` on the dummy datapath: what is put into it, what comes out, and what it says of both.

use std::io::Read;
use std::time::Duration;

use vifd::plan::pipeline::{Place, Reason, tables};
use vifd_integration::lab::PlainOvs;

use crate::scene::Bridge;

/// How long anything may take on a busy machine before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Switch(PlainOvs);

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It left by these ports, in order of text, each as `ofproto/trace` tells of it: `p2`, `push_vlan(vid=100,pcp=0),p9`.
    Sent(Vec<String>),
    /// It was dropped at a place that is for this.
    Dropped(Reason),
}

impl Switch {
    /// A switch whose bridge has the ports 1 to `ports`, named `p1` and so on, and writes what it sends into files.
    pub(crate) fn start(ports: u16) -> Self {
        let ovs = PlainOvs::switch(Vec::new()).unwrap();
        let mut bridge: Vec<String> =
            ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure"]
                .map(str::to_owned)
                .into();
        for port in 1..=ports {
            let sent = ovs.path(&format!("p{port}.pcap"));
            bridge.extend(["--", "add-port", "br0"].map(str::to_owned));
            bridge.push(format!("p{port}"));
            bridge.extend(["--", "set", "interface"].map(str::to_owned));
            bridge.push(format!("p{port}"));
            bridge.push("type=dummy".to_owned());
            bridge.push(format!("ofport_request={port}"));
            bridge.push(format!("options:tx_pcap={}", sent.display()));
        }
        ovs.vsctl(&bridge.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        Switch(ovs)
    }

    /// `ovs-ofctl` in OpenFlow 1.4 on the bridge.
    pub(crate) fn ofctl(&self, command: &str, behind: &[&str], input: &str) -> String {
        self.0.ofctl("br0", &[command], behind, input).unwrap()
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

    /// A command of ovs-vswitchd.
    pub(crate) fn control(&self, method: &str, arguments: &[&str]) -> String {
        self.0.control("ovs-vswitchd", method, arguments).unwrap()
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
        if let Ok(mut file) = std::fs::File::open(self.0.path(&format!("p{port}.pcap"))) {
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
