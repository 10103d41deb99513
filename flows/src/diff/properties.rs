//! What is sent makes of what is there what is wanted, on a model of a switch that refuses what Open vSwitch refuses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Action, Band, BandKind, Bucket, FlowId, FlowTable, GroupKind, MeterFlags, PortNo};

/// Cookies below this are ours, and ids of groups and meters.
const OURS: u32 = 100;

struct Us;

impl Owner for Us {
    fn owns_cookie(&self, cookie: u64) -> bool {
        cookie < u64::from(OURS)
    }
    fn owns_group(&self, id: u32) -> bool {
        id < OURS
    }
    fn owns_meter(&self, id: u32) -> bool {
        id < OURS
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    flows: FlowTable,
    groups: BTreeMap<u32, Group>,
    meters: BTreeMap<u32, Meter>,
}

fn groups_of(flow: &Flow) -> impl Iterator<Item = u32> {
    flow.instructions.apply.iter().filter_map(|action| match action {
        Action::Group(id) => Some(*id),
        _ => None,
    })
}

impl Model {
    fn new(flows: Vec<Flow>, groups: Vec<Group>, meters: Vec<Meter>) -> Self {
        let groups = groups.into_iter().map(|group| (group.id, group)).collect();
        let meters = meters.into_iter().map(|meter| (meter.id, meter)).collect();
        let mut model = Self { flows: FlowTable::new(), groups, meters };
        for mut flow in flows {
            // References to nothing are not to be had on a switch.
            flow.instructions.apply =
                groups_of(&flow).filter(|id| model.groups.contains_key(id)).map(Action::Group).collect();
            flow.instructions.meter = flow.instructions.meter.filter(|id| model.meters.contains_key(id));
            model.flows.insert(flow);
        }
        model
    }

    fn execute(&mut self, changes: &Changes) {
        changes.meters_first.iter().for_each(|change| self.meter(change));
        for message in &changes.bundle {
            match message {
                Message::FlowMod(change) => self.flow(change),
                Message::GroupMod(change) => self.group(change),
                other => panic!("{other:?} in a bundle"),
            }
        }
        changes.meters_last.iter().for_each(|change| self.meter(change));
    }

    fn meter(&mut self, change: &MeterMod) {
        let (id, meter) = (change.meter.id, change.meter.clone());
        match change.command {
            MeterCommand::Add => assert!(self.meters.insert(id, meter).is_none(), "OFPMMFC_METER_EXISTS"),
            MeterCommand::Modify => assert!(self.meters.insert(id, meter).is_some(), "OFPMMFC_UNKNOWN_METER"),
            MeterCommand::Delete => {
                assert!(change.meter.bands.is_empty() && self.meters.remove(&id).is_some());
                self.without(|flow| flow.instructions.meter == Some(id));
            }
        }
    }

    fn group(&mut self, change: &GroupMod) {
        let (id, group) = (change.group.id, change.group.clone());
        match change.command {
            GroupCommand::Add => assert!(self.groups.insert(id, group).is_none(), "OFPGMFC_GROUP_EXISTS"),
            GroupCommand::Modify => assert!(self.groups.insert(id, group).is_some(), "OFPGMFC_UNKNOWN_GROUP"),
            GroupCommand::Delete => {
                assert!(change.group.buckets.is_empty(), "OFPGMFC_INVALID_GROUP");
                assert!(self.groups.remove(&id).is_some());
                self.without(|flow| groups_of(flow).any(|group| group == id));
            }
            other => panic!("{other:?}"),
        }
    }

    fn without(&mut self, gone: impl Fn(&Flow) -> bool) {
        self.flows = self.flows.iter().filter(|flow| !gone(flow)).cloned().collect();
    }

    fn flow(&mut self, change: &FlowMod) {
        let FlowMod { command, flow, cookie_mask, .. } = change;
        let id = FlowId::of(flow);
        for group in groups_of(flow) {
            assert!(self.groups.contains_key(&group), "OFPBAC_BAD_OUT_GROUP");
        }
        assert!(flow.instructions.meter.is_none_or(|id| self.meters.contains_key(&id)), "OFPMMFC_INVALID_METER");
        let found =
            self.flows.get(&id).filter(|found| found.cookie & cookie_mask == flow.cookie & cookie_mask).cloned();
        match (command, found) {
            (FlowCommand::Add, _) => drop(self.flows.insert(flow.clone())),
            (FlowCommand::ModifyStrict, Some(found)) => {
                self.flows.insert(Flow { instructions: flow.instructions.clone(), ..found });
            }
            (FlowCommand::DeleteStrict, Some(_)) => drop(self.flows.remove(&id)),
            (command, found) => panic!("{command:?} of {found:?}"),
        }
    }

    fn changes(&self, wanted: &Model) -> Changes {
        let lists = |model: &Model| -> (Vec<Group>, Vec<Meter>) {
            (model.groups.values().cloned().collect(), model.meters.values().cloned().collect())
        };
        let ((want_groups, want_meters), (groups, meters)) = (lists(wanted), lists(self));
        let want = Tables { flows: &wanted.flows, groups: &want_groups, meters: &want_meters };
        diff(&want, &Tables { flows: &self.flows, groups: &groups, meters: &meters }, &Us)
    }
}

/// Few values for everything, so that flows meet.
fn flow(cookies: std::ops::Range<u64>, references: bool) -> impl Strategy<Value = Flow> {
    let groups = prop::collection::vec(0..4u32, 0..2);
    (0..2u8, 0..6u16, cookies, (groups, any::<bool>()), prop::option::of(1..4u32), (0..2u16, 0..2u16)).prop_map(
        move |(table, priority, cookie, (groups, write), meter, (idle_timeout, flags))| Flow {
            table,
            priority,
            matching: Match::default(),
            instructions: Instructions {
                apply: groups.into_iter().filter(|_| references).map(Action::Group).collect(),
                meter: meter.filter(|_| references),
                clear: write,
                ..Instructions::default()
            },
            cookie,
            idle_timeout,
            hard_timeout: 0,
            importance: 0,
            flags: FlowFlags(flags),
        },
    )
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    prop::collection::btree_map(0..4u32, 0..3u32, 0..4).prop_map(|groups| {
        let bucket = |port| Bucket {
            weight: 0,
            watch_port: PortNo::ANY,
            watch_group: u32::MAX,
            actions: [Action::Output { port: PortNo(port), max_len: 0 }].into(),
        };
        let group = |(id, ports)| Group { id, kind: GroupKind::All, buckets: (0..ports).map(bucket).collect() };
        groups.into_iter().map(group).collect()
    })
}

fn meters() -> impl Strategy<Value = Vec<Meter>> {
    prop::collection::btree_map(1..4u32, 1..3u32, 0..3).prop_map(|meters| {
        let bands = |rate| [Band { rate, burst: 0, kind: BandKind::Drop }].into();
        meters.into_iter().map(|(id, rate)| Meter { id, flags: MeterFlags::KBPS, bands: bands(rate) }).collect()
    })
}

fn wanted() -> impl Strategy<Value = Model> {
    (prop::collection::vec(flow(0..3, true), 0..12), groups(), meters())
        .prop_map(|(flows, groups, meters)| Model::new(flows, groups, meters))
}

fn there() -> impl Strategy<Value = Model> {
    let foreign = prop::collection::vec(flow(200..202, false), 0..4);
    (prop::collection::vec(flow(0..3, true), 0..12), foreign, groups(), meters()).prop_map(
        |(flows, foreign, groups, mut meters)| {
            meters.push(Meter { id: 300, flags: MeterFlags::PKTPS, bands: Box::default() });
            Model::new(flows.into_iter().chain(foreign).collect(), groups, meters)
        },
    )
}

proptest! {
    #[test]
    fn what_is_sent_makes_what_is_wanted(wanted in wanted(), there in there()) {
        let changes = there.changes(&wanted);
        let mut switch = there.clone();
        switch.execute(&changes);

        let mut expected = wanted.clone();
        let mut clashes = Vec::new();
        for foreign in there.flows.iter().filter(|flow| !Us.owns_cookie(flow.cookie)) {
            clashes.extend(expected.flows.insert(foreign.clone()).map(|wanted| (FlowId::of(&wanted), foreign.clone())));
        }
        expected.meters.insert(300, there.meters[&300].clone());
        // Flags that are about the message are not the flow's.
        prop_assert_eq!(&switch, &expected);
        prop_assert_eq!(changes.clashes.len(), clashes.len());
        for (id, foreign) in clashes {
            let named = changes.clashes.iter().any(|clash| {
                matches!(clash, Clash::Flow { wanted, there } if FlowId::of(wanted) == id && **there == foreign)
            });
            prop_assert!(named);
        }
        prop_assert!(switch.changes(&wanted).is_empty(), "a second time there is nothing to be sent");
    }

    #[test]
    fn deletions_come_first_and_each_kind_in_order(wanted in wanted(), there in there()) {
        let FlowChanges { changes, .. } = diff_flows(&wanted.flows, &there.flows, |cookie| Us.owns_cookie(cookie));
        let keys: Vec<_> = changes
            .iter()
            .map(|change| (change.command != FlowCommand::DeleteStrict, FlowId::of(&change.flow)))
            .collect();
        prop_assert!(keys.is_sorted(), "{:?}", keys);
    }
}

#[test]
fn ids_that_are_not_ours_are_clashes() {
    let group = Group { id: OURS, kind: GroupKind::All, buckets: Box::default() };
    let meter = Meter { id: OURS, flags: MeterFlags::KBPS, bands: Box::default() };
    let none: [Flow; 0] = [];
    let want = Tables { flows: &none, groups: &[group], meters: &[meter] };
    let changes = diff(&want, &Tables { flows: &none, groups: &[], meters: &[] }, &Us);
    assert!(changes.is_empty());
    assert_eq!(changes.clashes, [Clash::Meter(OURS), Clash::Group(OURS)]);
}

#[test]
fn what_a_modification_cannot_change_is_added_anew() {
    let there = Flow {
        table: 0,
        priority: 1,
        matching: Match::default(),
        instructions: Instructions::default(),
        cookie: 1,
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        flags: FlowFlags::default(),
    };
    let command = |want: &Flow| {
        let FlowChanges { changes, .. } = diff_flows([want], [&there], |_| true);
        changes.first().map(|change| (change.command, change.cookie_mask))
    };
    assert_eq!(command(&there), None);
    let checked = Flow { flags: FlowFlags(FlowFlags::CHECK_OVERLAP.0 | FlowFlags::RESET_COUNTS.0), ..there.clone() };
    assert_eq!(command(&checked), None, "flags about the message are not the flow's");
    let otherwise = Instructions { goto_table: Some(1), ..Instructions::default() };
    let modified = Flow { instructions: otherwise.clone(), ..there.clone() };
    assert_eq!(command(&modified), Some((FlowCommand::ModifyStrict, u64::MAX)));
    for replaced in [
        Flow { cookie: 2, ..there.clone() },
        Flow { hard_timeout: 1, instructions: otherwise, ..there.clone() },
        Flow { importance: 1, ..there.clone() },
        Flow { flags: FlowFlags::SEND_FLOW_REM, ..there.clone() },
    ] {
        assert_eq!(command(&replaced), Some((FlowCommand::Add, 0)), "{replaced:?}");
    }
}
