//! Traces of Open vSwitch 3.1 for the packets of `agent/tests/pipeline/traces.rs`, and what they mean.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::model::{AgentId, Desired};
use crate::plan::pipeline::OwnerTag;
use crate::plan::{Facts, Judgement, Verdict};
use crate::record;
use crate::status::{HostStatus, Subject, VifStatus};

/// The VIFs 1 to 13 on bridge `br0`, of network `blue`, each at port `pN`; but 8 is sub-port 30 of 7.
fn owners() -> Owners {
    let (mut desired, mut status) = (Desired::default(), HostStatus::default());
    for number in 1..=13_u128 {
        let id = Uuid::from_u128(0xdc06_5497_3c8d_4f44_8fb4_e1d3_3c16_0000 + number);
        let network = Uuid::from_u128(1 << 64 | 0xb82c_0000_0000);
        let text = json!({"vif": {
            "type": "openvswitch", "id": id, "address": "52:54:00:00:00:01", "vif_name": format!("p{number}"),
            "network": {"id": network, "bridge": "br0", "label": "blue"},
            "port_profile": {"type": "openvswitch", "create_port": true},
        }});
        let vif = record::decode(text.to_string().as_bytes()).unwrap().vif;
        let (port, vlan) = if number == 8 { (7, Some(30)) } else { (number, None) };
        let facts = Facts { bridge: Some("br0".into()), port: Some(format!("p{port}")), vlan, ..Facts::default() };
        let judgement = Judgement {
            link_ready: None,
            port_ready: Some(true),
            flows_ready: Some(true),
            vhost_connected: None,
            plugged: true,
            offload: None,
            facts: facts.into(),
            verdict: Verdict::Ready,
        };
        let subject = Subject {
            id: vif.id,
            vif: Some(&vif),
            rejection: None,
            judgement: Some(&judgement),
            enforce: true,
            proof: None,
        };
        let told = VifStatus::render(subject, None, Instant::now(), SystemTime::UNIX_EPOCH);
        if number != 10 {
            status.vifs.insert(vif.id, Arc::new(told));
        }
        desired.vifs.insert(vif.id, Arc::new(vif));
    }
    Owners::new(OwnerTag::of(&AgentId("vifd".into())), &desired, &status)
}

fn explained(text: &str) -> Trace {
    let (owners, uplinks) = (owners(), ["p10".to_owned()]);
    explain(text, Sense { bridge: "br0", owners: &owners, uplinks: &uplinks })
}

#[test]
fn a_receiver_out_of_reach_is_told_of() {
    let to = |facts: Facts| {
        let judgement = Judgement {
            link_ready: None,
            port_ready: Some(false),
            flows_ready: None,
            vhost_connected: None,
            plugged: false,
            offload: None,
            facts: facts.into(),
            verdict: Verdict::Working,
        };
        let id = VifId(Uuid::from_u128(7));
        let subject =
            Subject { id, vif: None, rejection: None, judgement: Some(&judgement), enforce: true, proof: None };
        out_of_reach(&VifStatus::render(subject, None, Instant::now(), SystemTime::UNIX_EPOCH), "br0")
    };
    let on = |bridge: &str, ofport| Facts {
        bridge: Some(bridge.into()),
        port: Some("p7".into()),
        ofport,
        ..Facts::default()
    };
    assert_eq!(to(on("br0", Some(7))), None);
    assert_eq!(to(on("br1", Some(7))).as_deref(), Some("VIF p7 is on bridge br1"));
    assert!(to(on("br0", None)).unwrap().starts_with("VIF p7 has no usable port yet: port p7"));
    assert!(to(on("br0", Some(-1))).unwrap().contains("no usable port yet"));
    assert!(to(Facts::default()).unwrap().ends_with("is on no bridge"));
}

#[test]
fn what_became_of_a_packet_is_one_sentence() {
    let sentence = |text| explained(text).sentence;
    assert_eq!(sentence(include_str!("texts/unicast.txt")), "delivered to VIF p2");
    assert_eq!(sentence(include_str!("texts/uplink.txt")), "leaves by the uplink p10 on VLAN 100");
    assert_eq!(
        sentence(include_str!("texts/spoofed.txt")),
        "dropped, arp_spoof (table 11 port-security-neighbour): Another's address in ARP or RARP."
    );
    assert_eq!(
        sentence(include_str!("texts/nobody_here.txt")),
        "dropped, unknown_destination (table 40 lookup): It came from an uplink, and nobody here has the address."
    );
    assert_eq!(
        sentence(include_str!("texts/denied.txt")),
        "dropped, ingress_rules (table 51 ingress-rules): No rule lets it pass to the guest."
    );
    assert_eq!(sentence(include_str!("texts/allowed.txt")), "delivered to VIF p6");
    assert_eq!(
        sentence(include_str!("texts/flood.txt")),
        "delivered to 5 VIFs: VIF p2, VIF p3, VIF p4, VIF p5, VIF p7.30, and leaves by the uplink p10 on VLAN \
         100; not to VIF p6, ingress_rules (table 51 ingress-rules): No rule lets it pass to the guest."
    );
}

#[test]
fn every_step_has_its_table_and_its_owner() {
    let trace = explained(include_str!("texts/allowed.txt"));
    let steps = trace.steps.iter().map(|step| {
        let of = step.of.as_ref().map(ToString::to_string).unwrap_or_default();
        let name = step.name.as_deref().unwrap_or_default();
        format!("{} {} {name} [{of}] {}: {}", step.round, step.table, step.flow, step.actions.join("; "))
    });
    insta::assert_snapshot!(steps.collect::<Vec<_>>().join("\n"));
}

#[test]
fn buckets_are_actions_of_their_group() {
    let trace = explained(include_str!("texts/flood.txt"));
    let mut deep = 0;
    for (at, step) in trace.steps.iter().enumerate() {
        let bucket = step.actions.iter().any(|action| action.starts_with("bucket "));
        assert!(!bucket || step.table == 40, "{step:?}");
        assert_eq!(step.continued, step.table == 40 && at != 5 && step.depth == 0, "{at}: {step:?}");
        deep += usize::from(step.continued);
    }
    assert_eq!(deep, include_str!("texts/flood.txt").matches("    bucket ").count() - 1);
    // What connection tracking gives back is not dropped before.
    let forked = |action: &String| action.starts_with("-> A clone");
    for text in [include_str!("texts/allowed.txt"), include_str!("texts/flood.txt")] {
        let trace = explained(text);
        let forks = trace.steps.iter().filter(|step| step.actions.iter().any(forked));
        assert!(forks.clone().count() > 0 && forks.clone().all(|step| !step.actions.contains(&"drop".to_owned())));
    }
}

#[test]
fn what_is_for_its_sender_is_no_flood() {
    let text = "Flow: icmp,in_port=p1,dl_src=52:54:00:00:00:01,dl_dst=DST,nw_src=10.0.0.1\n\nbridge(\"br0\")\n---\n\
                60. reg5=0x1,reg6=0x1, priority 200, cookie 0x50113637e7ce9f4c\n    drop\n\nDatapath actions: drop\n";
    let told = |dst: &str| explained(&text.replace("DST", dst)).sentence;
    assert!(
        told("52:54:00:00:00:01").ends_with("hairpin (table 60 output): It is for its own sender."),
        "{}",
        told("52:54:00:00:00:01")
    );
    assert!(told("ff:ff:ff:ff:ff:ff").ends_with("A flood does not go back to its sender."));
}

#[test]
fn somebody_elses_flow_is_said_to_be_one() {
    let text = include_str!("texts/spoofed.txt").replace("cookie 0x5011", "cookie 0x7777");
    let trace = explained(&text);
    assert_eq!(trace.sentence, "dropped, table 11 port-security-neighbour: A flow that is not vifd's drops it.");
    let text = " 0. priority 0\n    resubmit(,7)\n 7. No match.\n    drop\nDatapath actions: drop\n";
    assert!(explained(text).sentence.starts_with("dropped, unclassified (table 7)"), "{:?}", explained(text).sentence);
    let text = "Translation failed (Recursion too deep), packet is dropped.\n";
    assert!(explained(text).sentence.contains("Recursion too deep"));
}

/// Whatever is answered, it is read as far as it goes.
#[test]
fn texts_that_are_no_traces_do_no_harm() {
    let whole = include_str!("texts/flood.txt");
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let _ = explained_cheaply(&whole[..end]);
    }
    for text in
        ["", "Datapath actions: ", "Datapath actions: )))((,,clone(", "999. x, priority 1", "1. priority 99999999"]
    {
        assert_eq!(explained(text).steps, []);
    }
    let many = " 1. priority 5, cookie 0x1\n".repeat(MOST_STEPS + 5);
    assert_eq!(explained(&many).steps.len(), MOST_STEPS);
}

fn explained_cheaply(text: &str) -> Trace {
    let owners = Owners::new(OwnerTag(7), &Desired::default(), &HostStatus::default());
    explain(text, Sense { bridge: "br0", owners: &owners, uplinks: &[] })
}

#[test]
fn the_documentation_has_the_same_words() {
    let document = include_str!("../../../../docs/flows.md");
    for reason in Reason::ALL {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{}` |", reason.name())));
        let row = row.unwrap_or_else(|| panic!("{reason}"));
        assert!(row.contains(meaning(reason)), "{row}");
    }
}
