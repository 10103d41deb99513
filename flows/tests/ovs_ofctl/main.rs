//! Our octets and our text against those of `ovs-ofctl`, in both directions, and against a switch that is given every
//! flow, group and meter and asked for them again. The programs of Open vSwitch must be in `PATH`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod programs;
mod switch;

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use flows::{
    Field, Flow, FlowCommand, FlowMod, FlowStats, Group, GroupCommand, GroupMod, Match, Meter, MeterCommand, MeterMod,
    Unnamed,
};
use programs::{Message, messages, ofctl, ofctl_with, with_header};
use switch::Switch;

/// A line of the vectors.
struct Vector {
    /// As somebody wrote it.
    given: &'static str,
    /// As it is written.
    written: &'static str,
    /// Whether a switch takes it.
    accepted: bool,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("flows.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (line, accepted) = line.strip_prefix('!').map_or((line, true), |line| (line, false));
            let (given, written) = line.split_once(" => ").unwrap_or((line, line));
            Vector { given, written, accepted }
        })
        .collect()
}

/// What is wrong with some of many: all of it is told, not the first alone.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn add(&mut self, wrong: impl std::fmt::Display) {
        self.0.push(wrong.to_string());
    }

    fn unless_equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, wanted: &T) {
        if found != wanted {
            self.add(format_args!("{what}\n   found {found:?}\n  wanted {wanted:?}"));
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{} are wrong:\n{}", self.0.len(), self.0.join("\n"));
    }
}

fn add(flow: &Flow) -> Vec<u8> {
    let mut out = BytesMut::new();
    FlowMod::new(FlowCommand::Add, flow.clone()).encode(&mut out);
    out.to_vec()
}

/// What `ovs-ofctl` makes of flows as text: the messages it would send, and how it prints them.
fn as_ovs_has_them(flows: &[String]) -> Vec<Message> {
    let messages = messages(&ofctl_with(&["-mmmmm", "parse-flows", "-"], &(flows.join("\n") + "\n")));
    assert_eq!(messages.len(), flows.len(), "ovs-ofctl did not take all flows");
    messages
}

#[test]
fn every_text_is_read_and_written_as_it_should_be() {
    let mut wrong = Wrong::default();
    for Vector { given, written, .. } in vectors() {
        match given.parse::<Flow>() {
            Err(error) => wrong.add(format_args!("{given}: {error}")),
            Ok(flow) => {
                wrong.unless_equal(given, &flow.to_string().as_str(), &written);
                wrong.unless_equal(written, &written.parse(), &Ok(flow));
            }
        }
    }
    wrong.none();
}

#[test]
fn every_text_is_the_octets_that_ovs_ofctl_sends() {
    let vectors = vectors();
    let given: Vec<String> = vectors.iter().map(|vector| vector.given.to_owned()).collect();
    let mut compared = 0;
    let mut wrong = Wrong::default();
    for (vector, theirs) in vectors.iter().zip(as_ovs_has_them(&given)) {
        let flow: Flow = vector.given.parse().unwrap();
        let ours = add(&flow);
        wrong.unless_equal(vector.given, &hex(&ours), &hex(theirs.body()));
        let wanted = Ok(FlowMod::new(FlowCommand::Add, flow));
        wrong.unless_equal(vector.given, &FlowMod::decode(theirs.body()), &wanted);
        // It prints what is not match or action in other places here than in a dump.
        let elsewhere = ["cookie=", "table=", "_timeout=", "importance=", "send_flow_rem"];
        let instructions_apart = vector.written.split_once("actions=").map_or(vector.written, |(head, _)| head);
        if !elsewhere.iter().any(|key| instructions_apart.contains(key)) {
            let theirs = theirs.text.split_once("ADD ").map_or("", |(_, text)| text);
            wrong.unless_equal(vector.given, &vector.written, &theirs);
            compared += 1;
        }
    }
    wrong.none();
    assert!(compared > 400, "{compared} texts");
}

#[test]
fn every_flow_comes_back_from_a_switch() {
    let switch = Switch::start();
    let accepted: Vec<Vector> = vectors().into_iter().filter(|vector| vector.accepted).collect();
    let file: String = accepted.iter().map(|vector| format!("{}\n", vector.given)).collect();
    switch.ofctl_with(&["add-flows"], &["-"], &file);
    // A flow of the same table, priority and match takes the place of one before it.
    let wanted: BTreeMap<(u8, u16, Match), Flow> = accepted
        .iter()
        .map(|vector| vector.given.parse::<Flow>().unwrap())
        .map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow))
        .collect();

    let text = switch.ofctl_with(&["--no-stats", "--no-names", "dump-flows"], &[], "");
    let listed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix(' ')).collect();
    let written: Vec<String> = wanted.values().map(ToString::to_string).collect();
    same_lines(&listed, &written);

    let dump = switch.ofctl_with(&["-mmmmm", "--no-names", "dump-flows"], &[], "");
    let mut found = BTreeMap::new();
    for message in messages(&dump) {
        let body = message.multipart_body();
        let entries = FlowStats::decode_all(body).unwrap();
        let mut again = BytesMut::new();
        entries.iter().for_each(|entry| entry.encode(&mut again));
        assert_eq!(hex(&again), hex(body), "what was read is written as it was");
        let flows = entries.into_iter().map(|entry| entry.flow);
        found.extend(flows.map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow)));
    }
    let mut wrong = Wrong::default();
    for (identity, flow) in &wanted {
        wrong.unless_equal(&flow.to_string(), &found.get(identity), &Some(flow));
    }
    wrong.none();
    assert_eq!(found.len(), wanted.len());
    assert!(found.len() > 400, "{} flows", found.len());
}

#[test]
fn what_we_send_a_switch_takes() {
    let switch = Switch::start();
    let accepted = vectors().into_iter().filter(|vector| vector.accepted);
    let flows: Vec<Flow> = accepted.map(|vector| vector.given.parse().unwrap()).collect();
    switch.send(flows.iter().map(|flow| (14, add(flow))));
    let wanted: BTreeMap<(u8, u16, Match), Flow> =
        flows.into_iter().map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow)).collect();
    let text = switch.ofctl_with(&["--no-stats", "--no-names", "dump-flows"], &[], "");
    let listed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix(' ')).collect();
    let written: Vec<String> = wanted.values().map(ToString::to_string).collect();
    same_lines(&listed, &written);
}

fn same_lines(listed: &BTreeSet<&str>, written: &[String]) {
    let written: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    let lost = written.difference(listed).map(|line| format!("the switch has not {line}"));
    let gained = listed.difference(&written).map(|line| format!("the switch has    {line}"));
    Wrong(lost.chain(gained).collect()).none();
}

/// Matches that have what some field needs.
const KINDS: &[&str] = &[
    "",
    "dl_vlan=5",
    "mpls",
    "ip",
    "ipv6",
    "arp",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "icmp6,icmp_type=135",
    "icmp6,icmp_type=136",
    "dl_type=0x894f,nsh_mdtype=1",
    "ct_state=+new+trk,ip",
    "ct_state=+new+trk,ct_nw_proto=6,ip",
];

/// Every field with several values and masks, beside what it needs.
fn matches_of_every_field() -> Vec<Match> {
    let mut matches = Vec::new();
    for field in Field::all() {
        let all = if field.bits() >= 128 { u128::MAX } else { (1 << field.bits()) - 1 };
        let pattern = 0xf234_5678_9abc_def0_1357_9bdf_0246_8ace;
        let masks = [u128::MAX, 0xf0, all & !1, pattern & all];
        for value in [0, 1, 0x55 & all, all, pattern & all] {
            for mask in masks.into_iter().take(if field.is_maskable() { masks.len() } else { 1 }) {
                let kind = KINDS.iter().find_map(|kind| {
                    let kind: Match = kind.parse().unwrap();
                    let mut builder = Match::builder();
                    for entry in kind.entries() {
                        let (value, mask) = entry.numbers();
                        builder = builder.masked(entry.field.unwrap(), value, mask);
                    }
                    let built = builder.masked(field, value, mask).build();
                    built.check().is_ok().then_some(built)
                });
                matches.extend(kind);
            }
        }
    }
    matches
}

#[test]
fn every_field_is_the_octets_that_ovs_ofctl_sends() {
    let odd = |text: &str| {
        // OVS 3.1 takes values of these as their masks, and leaves leading zeros out of those.
        ["erspan", "gtpu", "tun_metadata"]
            .into_iter()
            // OpenFlow 1.4 cannot say every VLAN under every mask.
            .chain(["vlan_tci=0x0000/0xfffe", "/0x8ace", "/0x00f0", "vlan_tci=0x0000/0xffff"])
            // Two matches have this name.
            .chain(["nw_frag=later", "ct_nw_proto=0", "arp_op=65535", "arp_op=35534"])
            // Not every number is a port, an MD type, a TTL, a kind of fragment, a packet type.
            .chain(["actset_output", "in_port", "nsh_mdtype=0", "nsh_ttl", "<error>", "packet_type"])
            .any(|name| text.contains(name))
    };
    let matches = matches_of_every_field().into_iter();
    let (texts, matches): (Vec<String>, Vec<Match>) =
        matches.map(|matching| (format!("{matching},actions=drop"), matching)).filter(|(text, _)| !odd(text)).unzip();
    let mut fields = BTreeSet::new();
    let mut wrong = Wrong::default();
    for ((text, matching), theirs) in texts.iter().zip(&matches).zip(as_ovs_has_them(&texts)) {
        let flow: Flow = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        wrong.unless_equal(text, &flow.matching, matching);
        wrong.unless_equal(text, &hex(&add(&flow)), &hex(theirs.body()));
        fields.extend(matching.entries().filter_map(|entry| entry.field));
    }
    wrong.none();
    assert!(fields.len() > 85 && texts.len() > 1000, "{} fields, {} matches", fields.len(), texts.len());
}

const GROUPS: &[&str] = &[
    "group_id=1,type=all",
    "group_id=2,type=all,bucket=actions=output:1,bucket=actions=output:2,output:3",
    "group_id=3,type=select,bucket=actions=output:1,bucket=weight:5,actions=output:2,bucket=weight:0,actions=drop",
    "group_id=4,type=indirect,bucket=actions=set_field:0x5->reg6,resubmit(,50)",
    "group_id=5,type=ff,bucket=watch_port:1,actions=output:1,bucket=watch_port:2,actions=output:2",
    "group_id=6,type=ff,bucket=watch_group:1,actions=group:1",
    "group_id=4294967040,type=select,bucket=watch_port:1,actions=output:1",
    "group_id=7,type=all,bucket=actions=push_vlan:0x8100,set_field:4101->vlan_vid,output:1",
    "group_id=8,type=select,bucket=weight:65535,watch_port:LOCAL,actions=LOCAL",
];

#[test]
fn groups_are_those_of_ovs() {
    let switch = Switch::start();
    let groups: Vec<Group> = GROUPS.iter().map(|text| text.parse().unwrap()).collect();
    for (group, text) in groups.iter().zip(GROUPS) {
        assert_eq!(group.to_string(), *text);
        let modification = GroupMod { command: GroupCommand::Add, group: group.clone() };
        let mut octets = BytesMut::new();
        modification.encode(&mut octets);
        assert_eq!(GroupMod::decode(&octets).as_ref(), Ok(&modification));
        let printed = ofctl(&["ofp-print", &hex(&with_header(15, &octets))]);
        assert!(printed.contains(&format!("ADD {text}")), "{printed} is not {text}");
        // By turns ours and that of ovs-ofctl.
        if group.id % 2 == 0 {
            switch.send([(15, octets.to_vec())]);
        } else {
            switch.ofctl_with(&["add-group"], &[text], "");
        }
    }
    let text = switch.ofctl_with(&["--no-names", "dump-groups"], &[], "");
    let listed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix(' ')).collect();
    assert_eq!(listed, GROUPS.iter().copied().collect());

    let dump = switch.ofctl_with(&["-mmmmm", "--no-names", "dump-groups"], &[], "");
    let mut found = Vec::new();
    for message in messages(&dump) {
        let mut body = message.multipart_body();
        let mut again = BytesMut::new();
        while !body.is_empty() {
            let group = Group::decode(&mut body).unwrap();
            group.encode(&mut again);
            found.push(group);
        }
        assert_eq!(hex(&again), hex(message.multipart_body()));
    }
    found.sort_by_key(|group| group.id);
    let mut wanted = groups;
    wanted.sort_by_key(|group| group.id);
    assert_eq!(found, wanted);
}

const METERS: &[&str] = &[
    "meter=1 kbps bands=\ntype=drop rate=1000",
    "meter=2 pktps burst bands=\ntype=drop rate=5 burst_size=10",
    "meter=3 kbps burst stats bands=\ntype=drop rate=4294967295 burst_size=1",
];

#[test]
fn meters_are_those_of_ovs() {
    let switch = Switch::start();
    let meters: Vec<Meter> = METERS.iter().map(|text| text.parse().unwrap()).collect();
    for (meter, text) in meters.iter().zip(METERS) {
        assert_eq!(meter.to_string(), *text);
        let modification = MeterMod { command: MeterCommand::Add, meter: meter.clone() };
        let mut octets = BytesMut::new();
        modification.encode(&mut octets);
        assert_eq!(MeterMod::decode(&octets).as_ref(), Ok(&modification));
        let printed = ofctl(&["ofp-print", &hex(&with_header(29, &octets))]);
        assert!(printed.contains(&format!("ADD {text}")), "{printed} is not {text}");
        if meter.id % 2 == 0 {
            switch.send([(29, octets.to_vec())]);
        } else {
            switch.ofctl_with(&["add-meter"], &[&text.replace('\n', "")], "");
        }
    }
    // A remark is what the dummy datapath has not, and the codec has.
    let remark: Meter = "meter=slowpath,pktps,bands=type=dscp_remark,rate=7,prec_level=2".parse().unwrap();
    let mut octets = BytesMut::new();
    MeterMod { command: MeterCommand::Modify, meter: remark.clone() }.encode(&mut octets);
    let printed = ofctl(&["ofp-print", &hex(&with_header(29, &octets))]);
    assert!(printed.contains(&format!("MOD {remark}")), "{printed} is not {remark}");

    let text = switch.ofctl_with(&["dump-meters"], &[], "");
    METERS.iter().for_each(|meter| assert!(text.contains(meter), "{meter} is not in {text}"));
    let dump = switch.ofctl_with(&["-mmmmm", "dump-meters"], &[], "");
    let mut found = Vec::new();
    for message in messages(&dump) {
        let mut body = message.multipart_body();
        while !body.is_empty() {
            found.push(Meter::decode(&mut body).unwrap());
        }
    }
    found.sort_by_key(|meter| meter.id);
    assert_eq!(found, meters);
}

#[test]
fn modifications_are_those_of_ovs_ofctl() {
    let switch = Switch::start();
    switch.ofctl_with(&["add-flow"], &["cookie=0x7,table=3,priority=5,tcp,actions=output:1"], "");
    switch.ofctl_with(&["add-flow"], &["cookie=0x8,table=4,priority=5,udp,actions=output:2"], "");
    let send = |command, text: &str| {
        let modification = FlowMod::parse(command, text, &Unnamed).unwrap();
        let mut octets = BytesMut::new();
        modification.encode(&mut octets);
        assert_eq!(FlowMod::decode(&octets), Ok(modification));
        switch.send([(14, octets.to_vec())]);
        let text = switch.ofctl_with(&["--no-stats", "--no-names", "dump-flows"], &[], "");
        text.lines().filter_map(|line| line.strip_prefix(' ')).map(str::to_owned).collect::<Vec<_>>()
    };
    let udp = "cookie=0x8, table=4, priority=5,udp actions=output:2";
    let three = "cookie=0x7, table=3, priority=5,tcp actions=output:3";
    assert_eq!(send(FlowCommand::Modify, "table=3,ip,actions=output:3"), [three, udp]);
    let drop = "cookie=0x7, table=3, priority=5,tcp actions=drop";
    assert_eq!(send(FlowCommand::ModifyStrict, "table=3,priority=5,tcp,actions=drop"), [drop, udp]);
    assert_eq!(send(FlowCommand::Delete, "cookie=0x9/-1"), [drop, udp]);
    assert_eq!(send(FlowCommand::Delete, "out_port=2"), [drop]);
    assert_eq!(send(FlowCommand::DeleteStrict, "table=3,priority=4,tcp"), [drop]);
    assert_eq!(send(FlowCommand::DeleteStrict, "table=3,priority=5,tcp"), Vec::<String>::new());
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
