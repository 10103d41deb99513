//! What holds of all matches, actions and flows: what is written is read again as it was, as octets and as text; and
//! no octets and no text make a reader panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::collections::BTreeMap;

use bytes::BytesMut;
use flows::action::{Conntrack, Controller, MAX_DEPTH, Nat, NatFlags, NatRange, Sample, SampleDirection, Zone};
use flows::{
    Action, Fault, Field, Flow, FlowCommand, FlowFlags, FlowMod, FlowStats, Group, GroupMod, Instructions, Match,
    Meter, MeterMod, Oxm, PortNo, Subfield,
};
use proptest::prelude::*;

fn field() -> impl Strategy<Value = Field> {
    prop::sample::select(Field::all().collect::<Vec<_>>())
}

/// A value of a field and a mask, both within its bits.
fn part() -> impl Strategy<Value = (Field, u128, u128)> {
    (field(), any::<u128>(), prop_oneof![Just(u128::MAX), any::<u128>(), Just(0xff00)]).prop_map(
        |(field, value, mask)| {
            let all = if field.bits() >= 128 { u128::MAX } else { (1 << field.bits()) - 1 };
            (field, value & all, if field.is_maskable() { mask } else { u128::MAX })
        },
    )
}

fn matching() -> impl Strategy<Value = Match> {
    prop::collection::vec(part(), 0..12).prop_map(|parts| {
        let builder = Match::builder();
        parts.into_iter().fold(builder, |builder, (field, value, mask)| builder.masked(field, value, mask)).build()
    })
}

fn port() -> impl Strategy<Value = PortNo> {
    prop_oneof![0..0xff00u32, 0xffff_fff8..=0xffff_fffeu32].prop_map(PortNo)
}

/// Some bits of a field that has no more than 128 and a header that every action has room for.
fn subfield(most: u16) -> impl Strategy<Value = Subfield> {
    let fields = [Field::reg(0), Field::reg(15), Field::xreg(3), Field::xxreg(1), Field::METADATA, Field::ETH_SRC];
    (prop::sample::select(fields.to_vec()), any::<u16>(), any::<u16>()).prop_map(move |(field, offset, bits)| {
        let offset = offset % field.bits();
        Subfield { field, offset, bits: 1 + bits % (field.bits() - offset).min(most) }
    })
}

fn nat() -> impl Strategy<Value = Nat> {
    let v4 = (1..u32::MAX, any::<Option<u32>>()).prop_map(|(first, last)| {
        (first.to_be_bytes().into(), last.filter(|last| *last > first).map(|last| last.to_be_bytes().into()))
    });
    let v6 = (1..u128::MAX, any::<Option<u128>>()).prop_map(|(first, last)| {
        (first.to_be_bytes().into(), last.filter(|last| *last > first).map(|last| last.to_be_bytes().into()))
    });
    let range = (prop_oneof![v4, v6], prop::option::of((1..u16::MAX, any::<Option<u16>>())));
    let range = range.prop_map(|((first, last), ports)| NatRange {
        first,
        last,
        first_port: ports.map(|(first, _)| first),
        last_port: ports.and_then(|(first, last)| last.filter(|last| *last > first)),
    });
    (prop::sample::select(vec![1u16, 2, 5, 9, 18]), prop::option::of(range))
        .prop_map(|(flags, range)| Nat { flags: NatFlags(flags), range })
}

fn action() -> impl Strategy<Value = Action> {
    let simple = prop_oneof![
        port().prop_map(Action::output),
        any::<u16>().prop_map(|max_len| Action::Output { port: PortNo::CONTROLLER, max_len }),
        subfield(64).prop_map(|source| Action::OutputField { source, max_len: u16::MAX }),
        (port(), 14..u32::MAX).prop_map(|(port, max_len)| Action::OutputTruncated { port, max_len }),
        any::<u32>().prop_map(Action::Group),
        any::<u32>().prop_map(Action::SetQueue),
        Just(Action::PopQueue),
        Just(Action::PopVlan),
        Just(Action::DecTtl),
        Just(Action::CtClear),
        Just(Action::Exit),
        any::<u8>().prop_map(Action::SetTtl),
        prop::collection::vec(any::<u16>(), 1..20).prop_map(|ids| Action::DecTtlFor(ids.into())),
        (any::<u64>(), subfield(64)).prop_map(|(value, dest)| {
            let value = if dest.bits < 64 { value & ((1 << dest.bits) - 1) } else { value };
            Action::Load { value, dest }
        }),
        subfield(128).prop_map(|dest| Action::Move { source: dest, dest }),
        subfield(128).prop_map(Action::StackPush),
        subfield(128).prop_map(Action::StackPop),
        any::<u32>().prop_map(|value| Action::set_field(Field::reg(3), value)),
        any::<u128>().prop_map(|value| Action::set_field(Field::IPV6_SRC, value)),
        (port(), 0..255u8, any::<bool>()).prop_map(|(port, table, ct)| Action::Resubmit { port, table, ct }),
        (any::<u32>(), 0..2u8, 2..=64u8).prop_map(|(id, clause, clauses)| Action::Conjunction { id, clause, clauses }),
        (any::<u16>(), subfield(1)).prop_map(|(length, dest)| Action::CheckPacketLarger { length, dest }),
        (any::<u16>(), any::<u16>()).prop_map(|(idle, hard)| Action::FinTimeout { idle, hard }),
        (any::<u16>(), any::<u8>(), prop::collection::vec(any::<u8>(), 1..40), any::<Option<u16>>()).prop_map(
            |(id, reason, userdata, meter)| {
                let meter = meter.map(u32::from);
                Action::Controller(Box::new(Controller {
                    id,
                    reason,
                    userdata: userdata.into(),
                    meter,
                    ..Controller::default()
                }))
            }
        ),
        (1..u16::MAX, any::<u32>(), port()).prop_map(|(probability, point, port)| {
            let (collector_set, domain, direction) = (7, 8, SampleDirection::Ingress);
            Action::Sample(Box::new(Sample { probability, collector_set, domain, point, port, direction }))
        }),
        prop::collection::vec(any::<u8>(), 14..=14).prop_map(|octets| Action::Note(octets.into())),
        prop::collection::vec(any::<u8>(), 8..=8).prop_map(|mut octets| {
            octets[..4].copy_from_slice(&[0x7f, 0xff, 0, 8]);
            Action::Unknown(octets.into())
        }),
    ];
    simple.prop_recursive(4, 24, 4, |inner| {
        let conntrack =
            (any::<[bool; 2]>(), any::<u16>(), prop::option::of(0..255u8), prop::option::of(nat()), any::<u32>());
        prop_oneof![
            prop::collection::vec(inner, 0..4)
                .prop_filter("a conjunction is alone", |actions| {
                    !actions.iter().any(|action| matches!(action, Action::Conjunction { .. }))
                })
                .prop_map(|actions| Action::Clone(actions.into())),
            conntrack.prop_map(|([commit, force], zone, table, nat, mark)| {
                let nat = nat.map(|nat| Action::Nat(Box::new(nat)));
                let mark = Action::set_field(Field::CT_MARK, mark);
                let actions = nat.into_iter().chain([mark]).collect();
                let zone = Zone::Number(zone);
                Action::Conntrack(Box::new(Conntrack {
                    commit,
                    force: force && commit,
                    zone,
                    table,
                    helper: 0,
                    actions,
                }))
            }),
        ]
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let actions = || {
        prop::collection::vec(action(), 0..6).prop_filter("a conjunction is alone", |actions| {
            actions.len() == 1 || !actions.iter().any(|action| matches!(action, Action::Conjunction { .. }))
        })
    };
    let instructions = (
        any::<Option<u32>>(),
        actions(),
        any::<bool>(),
        actions(),
        any::<Option<(u64, u64)>>(),
        prop::option::of(0..255u8),
    );
    let instructions = instructions.prop_map(|(meter, apply, clear, write, metadata, goto_table)| Instructions {
        meter,
        apply: apply.into(),
        clear,
        write: write.into(),
        metadata: metadata.map(Box::new),
        goto_table,
        unknown: Box::default(),
    });
    let rest = (any::<(u8, u16, u64, u16, u16, u16)>(), 0..32u16);
    (matching(), instructions, rest).prop_map(|(matching, instructions, rest)| {
        let ((table, priority, cookie, idle_timeout, hard_timeout, importance), flags) = rest;
        let flags = FlowFlags(flags);
        Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags }
    })
}

fn octets(flow: &Flow) -> BytesMut {
    let mut out = BytesMut::new();
    FlowMod::new(FlowCommand::Add, flow.clone()).encode(&mut out);
    out
}

/// The flows that the tests against `ovs-ofctl` have.
fn vectors() -> &'static [Flow] {
    static VECTORS: std::sync::OnceLock<Vec<Flow>> = std::sync::OnceLock::new();
    VECTORS.get_or_init(read_vectors)
}

fn read_vectors() -> Vec<Flow> {
    let lines = include_str!("ovs_ofctl/flows.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let given = lines.map(|line| line.trim_start_matches('!').split(" => ").next().unwrap_or_default());
    given.map(|line| line.parse().unwrap()).collect()
}

fn read_modification(bytes: &[u8]) {
    if let Ok(modification) = FlowMod::decode(bytes) {
        let mut out = BytesMut::new();
        modification.encode(&mut out);
        assert_eq!(FlowMod::decode(&out), Ok(modification.clone()), "{bytes:02x?}");
        let _ = modification.flow.to_string().parse::<Flow>();
    }
}

/// All readers of octets: what one of them reads is written so that it is read the same.
fn read_all(bytes: &[u8]) {
    if let Ok(matching) = Match::decode(bytes) {
        let mut out = BytesMut::new();
        matching.encode(&mut out);
        assert_eq!(Match::decode(&out), Ok(matching.clone()), "{bytes:02x?}");
        assert_eq!(out.len(), matching.encoded_len());
        let _ = matching.to_string();
        let _ = matching.check();
    }
    read_modification(bytes);
    let mut rest = bytes;
    if let Ok(stats) = FlowStats::decode(&mut rest) {
        let mut out = BytesMut::new();
        stats.encode(&mut out);
        assert_eq!(FlowStats::decode(&mut &out[..]), Ok(stats), "{bytes:02x?}");
    }
    if let Ok(modification) = GroupMod::decode(bytes) {
        let mut out = BytesMut::new();
        modification.encode(&mut out);
        assert_eq!(GroupMod::decode(&out), Ok(modification.clone()), "{bytes:02x?}");
        let _ = modification.group.to_string().parse::<Group>();
    }
    if let Ok(modification) = MeterMod::decode(bytes) {
        let mut out = BytesMut::new();
        modification.encode(&mut out);
        assert_eq!(MeterMod::decode(&out), Ok(modification.clone()), "{bytes:02x?}");
        let _ = modification.meter.to_string().parse::<Meter>();
    }
    let _ = Group::decode(&mut &*bytes);
    let _ = Meter::decode(&mut &*bytes);
    let _ = Action::decode_all(bytes);
    let _ = Instructions::decode(bytes);
}

proptest! {
    #[test]
    fn a_flow_is_read_as_it_was_written(flow in flow()) {
        let expected = FlowMod::new(FlowCommand::Add, flow.clone());
        prop_assert_eq!(FlowMod::decode(&octets(&flow)), Ok(expected));
        let stats = FlowStats { flow, duration: std::time::Duration::new(5, 6), packet_count: 7, byte_count: 8 };
        let mut out = BytesMut::new();
        stats.encode(&mut out);
        prop_assert_eq!(FlowStats::decode_all(&out), Ok(vec![stats]));
    }

    #[test]
    fn a_match_is_what_its_fields_are_in_any_order(parts in prop::collection::vec(part(), 0..8), seed: u64) {
        // What is said of the same bits twice counts by order: only what is left in the end is shuffled.
        let builder = Match::builder();
        let matching = parts.into_iter().fold(builder, |builder, (field, value, mask)| builder.masked(field, value, mask)).build();
        let mut entries: Vec<_> = matching.entries().collect();
        entries.sort_by_key(|entry| entry.octets.iter().fold(seed, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3)));
        let again = entries.iter().fold(Match::builder(), |builder, entry| {
            builder.oxm(&Oxm::from_octets(entry.field.unwrap(), entry.value, entry.mask))
        });
        prop_assert_eq!(again.build(), matching.clone());
        // As octets in the other order too.
        let shuffled: Vec<u8> = entries.iter().flat_map(|entry| entry.octets).copied().collect();
        let length = u16::try_from(4 + shuffled.len()).unwrap();
        let mut octets = [&[0, 1][..], &length.to_be_bytes(), &shuffled].concat();
        octets.resize(octets.len().next_multiple_of(8), 0);
        prop_assert_eq!(Match::decode(&octets), Ok(matching));
    }

    #[test]
    fn a_text_is_the_flow_that_it_was_written_of(flow in flow()) {
        let port = |field| flow.matching.exact(field).is_none_or(|port| PortNo(port as u32).to_u16().is_some());
        prop_assume!(port(Field::IN_PORT) && port(Field::ACTSET_OUTPUT));
        prop_assume!(flow.matching.check().is_ok() && flow.matching.get(Field::VLAN_TCI).is_none());
        let text = flow.to_string();
        // Two matches have this name, and a kind of fragment has none.
        prop_assume!(!text.contains("nw_frag=later") && !text.contains("<error>") && !text.contains("arp_op"));
        let read = text.parse::<Flow>();
        prop_assert_eq!(read, Ok(flow), "{}", text);
    }

    #[test]
    fn no_octets_make_a_reader_panic(bytes: Vec<u8>) {
        read_all(&bytes);
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[a-z0-9_=:/,()\\[\\]>.+| -]{0,60}|\\PC{0,40}") {
        let _ = text.parse::<Flow>();
        let _ = format!("actions={text}").parse::<Flow>();
        let _ = text.parse::<Match>();
        let _ = text.parse::<Group>();
        let _ = text.parse::<Meter>();
    }

    #[test]
    fn no_change_of_a_text_makes_a_reader_panic(which: prop::sample::Index, at: prop::sample::Index, with in "\\PC{0,3}") {
        let vectors = vectors();
        let mut text: Vec<char> = which.get(vectors).to_string().chars().collect();
        let at = at.index(text.len());
        text.splice(at..(at + 2).min(text.len()), with.chars());
        let _ = text.into_iter().collect::<String>().parse::<Flow>();
    }
}

#[test]
fn no_change_of_good_octets_makes_a_reader_panic() {
    // Every octet of every vector, with several others in its place.
    for flow in vectors() {
        let good = octets(flow);
        // What is before the match is the same of all.
        for at in 40..good.len() {
            for other in [0, 0xff, good[at] ^ 1] {
                let mut changed = good.clone();
                changed[at] = other;
                read_modification(&changed);
            }
            read_modification(&good[..at]);
        }
    }
}

/// `count` clones around nothing.
fn nested(count: usize) -> Action {
    (0..count).fold(Action::CtClear, |inner, _| Action::Clone([inner].into()))
}

#[test]
fn actions_lie_within_actions_only_so_deep() {
    let good = nested(MAX_DEPTH);
    let mut out = BytesMut::new();
    Action::encode_all(std::slice::from_ref(&good), &mut out);
    assert_eq!(Action::decode_all(&out).unwrap()[0], good);
    let text = good.to_string();
    assert_eq!(Action::parse_list(&text, &flows::Unnamed).unwrap()[0], good);

    let mut out = BytesMut::new();
    Action::encode_all(&[nested(MAX_DEPTH + 1)], &mut out);
    assert_eq!(Action::decode_all(&out).unwrap_err().fault, Fault::Depth(MAX_DEPTH));
    assert!(Action::parse_list(&format!("clone({text})"), &flows::Unnamed).is_err());
    let endless = "clone(".repeat(10_000);
    assert!(Action::parse_list(&endless, &flows::Unnamed).is_err());
}

#[test]
fn flows_of_different_identity_have_different_octets() {
    let flows = vectors();
    let by_identity: BTreeMap<_, _> =
        flows.iter().map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow)).collect();
    let by_text: BTreeMap<_, _> =
        flows.iter().map(|flow| ((flow.table, flow.priority, flow.matching.to_string()), flow)).collect();
    assert_eq!(by_identity.len(), by_text.len());
}
