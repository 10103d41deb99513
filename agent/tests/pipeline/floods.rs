//! Networks with many members: how many a broadcast reaches, and what is said of the others.

use flows::message::Message;
use flows::{GroupCommand, GroupMod};
use serde_json::json;
use vifd::plan::pipeline::{self, Attachment, Member, NetworkFacts, TooFewGroups, Uplink, tables};

use crate::frames::{End, arp, udp};
use crate::scene::{Bridge, network, owner, vif};
use crate::switch::{PATIENCE, Switch};

fn members(count: u16, rules: bool) -> Vec<Member> {
    (0..count)
        .map(|number| Member { at: Attachment { port: 10 + number, vlan: None }, rules, shared: Vec::new() })
        .collect()
}

const UPLINK: Option<Uplink> = Some(Uplink { port: 1, vlan: Some(100) });

fn facts(members: Vec<Member>) -> NetworkFacts {
    NetworkFacts {
        owner: owner(),
        key: network(1),
        members,
        uplink: UPLINK,
        limbo: Vec::new(),
        groups: (1..=8).collect(),
    }
}

#[test]
fn every_group_is_one_message_and_every_member_is_in_one() {
    for (count, groups) in [(1, 1), (1000, 1), (1500, 2), (3999, 4)] {
        let facts = facts(members(count, false));
        assert_eq!(pipeline::groups_needed(&facts.members, UPLINK, 0), groups, "{count} members");
        let network = pipeline::network(&facts).unwrap();
        assert_eq!(network.groups.len(), groups);
        assert_eq!(network.groups.iter().map(|group| group.buckets.len()).sum::<usize>(), usize::from(count) + 1);
        for group in network.groups {
            let message = Message::GroupMod(GroupMod { command: GroupCommand::Add, group });
            message.encode_in_bundle(1, 0, 1, &mut bytes::BytesMut::new()).expect("one message");
        }
    }
}

#[test]
fn those_that_a_packet_cannot_reach_are_told() {
    for (count, rules, reached) in
        [(500, true, 500), (999, true, 999), (1000, true, 999), (3999, false, 3999), (4000, false, 3999)]
    {
        assert_eq!(pipeline::flooded(&members(count, rules), UPLINK), reached, "{count} members");
    }
    // Tags are pushed and popped again: 20 octets for each sub-port, and 32 KiB for all.
    let mut tagged = members(1700, false);
    tagged.iter_mut().zip(1..).for_each(|(member, vlan)| member.at = Attachment { port: 2, vlan: Some(vlan) });
    assert_eq!(pipeline::flooded(&tagged, UPLINK), 1611);
    let facts = NetworkFacts { groups: vec![1], ..facts(members(1500, false)) };
    assert_eq!(pipeline::network(&facts), Err(TooFewGroups { needed: 2, given: 1 }));
}

/// A switch drops a packet whole that goes through too many tables, or takes too many actions.
#[test]
fn a_switch_floods_as_many() {
    let switch = Switch::start(1);
    for (rules, count) in [(false, 3999), (true, 999)] {
        let facts = facts(members(count, rules));
        let network = pipeline::network(&facts).unwrap();
        switch.ofctl("del-groups", &[], "");
        let groups: String = network.groups.iter().map(|group| format!("{group}\n")).collect();
        switch.ofctl("add-groups", &["-"], &groups);
        let outputs = facts.members.iter().map(|member| {
            let id = member.at.id();
            // The ports are not there: what would be sent is to be counted all the same.
            format!(
                "table=60,reg6={id:#x} actions=output:1\ntable=50,reg6={id:#x},ip actions=ct(table=51,zone={id})\n\
                 table=51,reg6={id:#x} actions=goto_table:52\n"
            )
        });
        let mut flows: String = outputs.collect();
        flows.extend(network.flows.iter().map(|flow| format!("{flow}\n")));
        let tracks = |flow: &&flows::Flow| [tables::INGRESS_TRACK, tables::INGRESS_COMMIT].contains(&flow.table);
        flows.extend(pipeline::bridge(owner()).iter().filter(tracks).map(|flow| format!("{flow}\n")));
        // From the lookup on: a table 0 that goes there at once.
        let metadata = facts.key.metadata();
        flows += &format!("in_port=9 actions=set_field:{metadata:#x}->metadata,goto_table:40\n");
        switch.ofctl("replace-flows", &["-"], &flows);
        // What is tracked ends there for now; what is not goes through more tables, and never to the tracker.
        for kind in ["ip", "arp", "ip,nw_dst=255.255.255.255", "udp6,ipv6_dst=ff02::fb"] {
            let packet = format!("in_port=9,dl_dst=ff:ff:ff:ff:ff:ff,{kind}");
            let told = switch.control("ofproto/trace", &["br0", &packet]);
            let actions = told.lines().find_map(|line| line.strip_prefix("Datapath actions: ")).expect("actions");
            let copies = actions.split(',').filter(|action| *action == "1" || action.starts_with("recirc")).count();
            assert_eq!(copies, usize::from(count) + 1, "{kind}: {}", told.lines().last().unwrap_or_default());
        }
    }
}

/// More frames than the burst of the smallest meter, 131 kB.
const FRAMES: usize = 150;

/// How many of these frames leave by a port, when one behind them has.
fn copies(switch: &Switch, port: u16, mut frame: Vec<u8>) -> usize {
    frame.resize(1400, 0);
    let before = switch.sent(port).len();
    for _ in 0..FRAMES {
        switch.receive(1, &frame);
    }
    let last = arp(End::of(1, 0, false), before as u32);
    switch.receive(1, &last);
    let begin = std::time::Instant::now();
    loop {
        let sent = switch.sent(port).split_off(before);
        if let Some(at) = sent.iter().position(|sent| *sent == last) {
            return at;
        }
        assert!(begin.elapsed() < PATIENCE, "what nothing keeps away does not arrive");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A datapath has one list of outputs for all copies of a packet, and a meter that drops ends it.
#[test]
fn the_meter_of_one_takes_nothing_from_the_others() {
    let switch = Switch::start(3);
    let pair = json!({"mac": "00:00:5e:00:01:01", "ip": "10.0.0.100"});
    let mut bridge = Bridge::default();
    bridge
        .plain(&vif(1, 1, &json!({})))
        .plain(&vif(2, 1, &json!({"rate": {"ingress_kbps": 1}, "allowed_address_pairs": [pair]})))
        .plain(&vif(3, 1, &json!({"allowed_address_pairs": [pair]})));
    switch.load(&bridge);
    let from = End::of(1, 4000, false);
    assert_eq!(copies(&switch, 3, arp(from, u32::MAX)), FRAMES, "of a flood");
    let shared = End { mac: [0, 0, 0x5e, 0, 1, 1], ip: "10.0.0.100".parse().unwrap(), port: 4000 };
    assert_eq!(copies(&switch, 3, udp(from, shared)), FRAMES, "to an address of several");
    let metered = copies(&switch, 2, udp(from, End::of(2, 4000, false)));
    assert!((1..FRAMES).contains(&metered), "{metered} of {FRAMES}: what is for it alone is metered");
}
