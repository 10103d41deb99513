//! What is said of VIFs by dumps that Open vSwitch 3.1.0 wrote over Linux 6.1: `eth1` and `eth2` are representors of a NIC
//! (netdevsim), `p2` and `p3` are veths, and `br0` is their bridge.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Bridge, Interface, Link, LinkKind, LinkState, OvsState, VifId};
use crate::status::Truth;

fn id(number: u32) -> VifId {
    format!("{number:08x}-0000-4000-8000-000000000000").parse().unwrap()
}

/// VIF 1 is eth1, VIF 2 eth2, VIF 3 is p3.
fn expected(tc_offload: bool) -> Expectations {
    let wanted = |port: &str| Expectation {
        port: port.to_owned(),
        bridge: "br0".to_owned(),
        tc_offload: Some(tc_offload || port != "eth1"),
        switchdev: Some(true),
    };
    BTreeMap::from([(id(1), wanted("eth1")), (id(2), wanted("eth2")), (id(3), wanted("p3"))])
}

fn ground(settings: &[(&'static str, &'static str)], expected: &Expectations) -> Ground {
    let mut ovs = OvsState { other_config: settings.iter().copied().collect(), ..OvsState::default() };
    ovs.bridges.insert("br0".into(), Bridge { name: "br0".into(), ..Bridge::default() }.into());
    let mut links = LinkState::default();
    let kinds = [("br0", "internal"), ("eth1", ""), ("eth2", ""), ("p2", ""), ("p3", "")];
    for (index, (name, kind)) in (1..).zip(kinds) {
        let interface = Interface { name: name.into(), kind: kind.into(), ..Interface::default() };
        ovs.interfaces.insert(name.into(), interface.into());
        let kind = if name.starts_with('p') { LinkKind::Veth } else { LinkKind::Other("netdevsim".to_owned()) };
        links.links.insert(name.to_owned(), Link::new(index, name, kind).into());
    }
    Ground::survey(&ovs, Some(&links), expected)
}

const ON: &[(&str, &str)] = &[("hw-offload", "true")];

/// What it is, the dump, `other_config`, and whether `hw-tc-offload` of eth1 is on.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], bool);

#[test]
fn what_is_told_of_real_dumps() {
    let in_hardware = include_str!("dumps/in-hardware.txt");
    let cases: [Case; 10] = [
        ("in hardware", in_hardware, ON, true),
        ("in hardware, with tc-policy skip_sw", include_str!("dumps/skip-sw.txt"), ON, true),
        ("a NIC that takes nothing", include_str!("dumps/in-tc.txt"), ON, true),
        ("hw-offload is not set", include_str!("dumps/hw-offload-late.txt"), &[], true),
        ("hw-offload was set while ovs-vswitchd ran", include_str!("dumps/hw-offload-late.txt"), ON, true),
        (
            "tc-policy skip_hw",
            include_str!("dumps/in-tc.txt"),
            &[("hw-offload", "true"), ("tc-policy", "skip_hw")],
            true,
        ),
        ("hw-tc-offload of eth1 is off", include_str!("dumps/hw-tc-offload-off.txt"), ON, false),
        ("to a controller, and sFlow", include_str!("dumps/actions.txt"), ON, true),
        ("connection tracking", include_str!("dumps/connection-tracking.txt"), ON, true),
        ("no traffic", "", ON, true),
    ];
    let told: Vec<_> = cases
        .into_iter()
        .map(|(name, dump, settings, tc_offload)| {
            let expected = expected(tc_offload);
            let proofs = prove(dump, &ground(settings, &expected), &expected);
            let lines = proofs.values().zip(["eth1", "eth2", "p3"]).map(|(proof, port)| {
                let counts = proof.counts.clone().unwrap_or_default();
                let OffloadCounts { offloaded_flows, software_flows, .. } = counts;
                let Proof { truth, reason, message, .. } = proof;
                format!("{port}: {offloaded_flows}/{software_flows} {truth:?} {reason}: {message}")
            });
            format!("{name}\n  {}\n", lines.collect::<Vec<_>>().join("\n  "))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// What the tool itself counts in the dump that it wrote, by `grep`.
#[test]
fn counts_are_those_of_the_dump() {
    let (dump, expected) = (include_str!("dumps/in-hardware.txt"), expected(true));
    let proofs = prove(dump, &ground(ON, &expected), &expected);
    for (id, port) in [(id(1), "eth1"), (id(2), "eth2")] {
        let word = |line: &str| line.split([',', ':', '(', ')', ' ']).any(|word| word == port);
        let of = |line: &&str| word(line);
        let hardware = dump.lines().filter(of).filter(|line| line.contains("offloaded:yes")).count();
        let software = dump.lines().filter(of).filter(|line| !line.contains("offloaded:yes")).count();
        let counts = proofs[&id].counts.clone().unwrap();
        assert_eq!((counts.offloaded_flows, counts.software_flows), (hardware as u64, software as u64));
    }
}

#[test]
fn what_was_proved_stands_until_there_is_traffic_again() {
    let expected = expected(true);
    let ground = ground(ON, &expected);
    let proof = |dump: &str| prove(dump, &ground, &expected).remove(&id(1)).unwrap();
    let busy = proof(include_str!("dumps/in-hardware.txt"));
    let idle = proof("").after(Some(&busy));
    assert_eq!((idle.truth, idle.reason, idle.is_earlier), (Truth::True, "InHardware", true));
    assert_eq!(idle.counts.as_ref().map(|counts| counts.offloaded_flows), Some(0), "counts are of now");
    assert!(idle.message.starts_with("when there was traffic last, "), "{}", idle.message);
    assert_eq!(proof("").after(Some(&idle)).message, idle.message);
    assert_eq!(proof(include_str!("dumps/in-tc.txt")).after(Some(&idle)).truth, Truth::False);
    assert_eq!(proof("").after(None).truth, Truth::Unknown);
    let unread = Proof::unread("it does not answer").after(Some(&busy));
    assert_eq!((unread.truth, unread.counts), (Truth::Unknown, None));
}

#[test]
fn a_dump_that_was_cut_is_called_so() {
    let expected = expected(true);
    let ground = ground(ON, &expected);
    let mut tally = Tally::new(&ground, expected.iter().map(|(id, wanted)| (id, wanted.port.as_str())));
    include_str!("dumps/in-hardware.txt").lines().take(3).for_each(|line| tally.line(line));
    assert_eq!(tally.flows(), 3);
    let proofs = tally.finish(true);
    assert!(proofs[&id(1)].message.ends_with("only the first 3 flows of the datapath were looked at"));
}
