//! Changing flows, groups and meters, and finding again what was changed.

use flows::diff::{Clash, Owner, Tables, diff, diff_flows};
use flows::message::{FlowsRequest, Message, SwitchError};
use flows::session::{CallError, Handle, Outcome, Refusal, RefusalError};
use flows::{
    Action, Band, BandKind, Flow, FlowCommand, FlowMod, Group, GroupCommand, GroupMod, Instructions, Meter,
    MeterCommand, MeterFlags, MeterMod, PortNo,
};

use crate::ovs::{Switch, add, flow, group, many, output_to, packet_to};

fn name(refusal: &Refusal) -> &'static str {
    match &refusal.error {
        RefusalError::Switch(error) => error.name().unwrap_or("?"),
        RefusalError::TooLong(_) => "too long",
    }
}

fn meter(id: u32, rate: u32) -> Meter {
    let bands = [Band { rate, burst: rate, kind: BandKind::Drop }].into();
    Meter { id, flags: MeterFlags(MeterFlags::KBPS.0 | MeterFlags::BURST.0), bands }
}

async fn dump(handle: &Handle) -> Vec<Flow> {
    handle.dump_flows().await.unwrap().into_iter().map(|stats| stats.flow).collect()
}

#[tokio::test]
async fn ten_thousand_flows_at_once() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let wanted = many(10_000, 7);
    assert_eq!(handle.bundle(wanted.iter().map(add).collect()).await, Outcome::Committed);
    let aggregate = handle.aggregate(FlowsRequest::default()).await.unwrap();
    assert_eq!(aggregate.flow_count, 10_000);
    assert_eq!(switch.flows().len(), 10_000);

    let there = dump(&handle).await;
    let changes = diff_flows(&wanted, &there, |_| true);
    assert!(changes.changes.is_empty() && changes.clashes.is_empty(), "{:?}", changes.changes.first());

    let of_cookie = FlowsRequest { cookie: 7, cookie_mask: u64::MAX, ..FlowsRequest::default() };
    assert_eq!(handle.flows(of_cookie.clone()).await.unwrap().len(), 10_000);
    let of_other = FlowsRequest { cookie: 8, ..of_cookie };
    assert_eq!(handle.flows(of_other).await.unwrap().len(), 0);
    let tables = handle.table_stats().await.unwrap();
    assert_eq!(tables.iter().map(|table| table.active_count).sum::<u32>(), 10_000);
}

#[tokio::test]
async fn one_bad_flow_of_a_thousand_and_nothing_happens() {
    let switch = Switch::start();
    let handle = switch.session().await;
    // One that makes no sense at once, one that fails only when all before it is executed.
    let backwards = Instructions { goto_table: Some(0), ..Instructions::default() };
    let senseless = Flow { instructions: backwards, ..flow(5, 1, 7, "", &[]) };
    let fails = flow(0, 1, 7, "", &[Action::Group(4711)]);
    for (bad, expected) in [(senseless, "OFPBIC_BAD_TABLE_ID"), (fails, "OFPBAC_BAD_OUT_GROUP")] {
        let mut messages: Vec<Message> = many(1000, 7).iter().map(add).collect();
        messages[617] = add(&bad);
        let Outcome::Refused(refusals) = handle.bundle(messages).await else { panic!() };
        assert_eq!((refusals.len(), refusals[0].index, name(&refusals[0])), (1, Some(617), expected));
        assert_eq!(switch.flows(), [""; 0]);
    }
    // Messages that make no sense are all told at once.
    let mut messages: Vec<Message> = many(100, 7).iter().map(add).collect();
    for index in [3, 50, 99] {
        let Message::FlowMod(change) = &mut messages[index] else { panic!() };
        change.flow.table = 255;
    }
    let Outcome::Refused(refusals) = handle.bundle(messages).await else { panic!() };
    assert_eq!(refusals.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [Some(3), Some(50), Some(99)]);
    assert_eq!(handle.bundle(many(10, 7).iter().map(add).collect()).await, Outcome::Committed);
    assert_eq!(switch.flows().len(), 10);
}

#[tokio::test]
async fn groups_as_big_as_they_can_be() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let add_group = |group: &Group| Message::GroupMod(GroupMod { command: GroupCommand::Add, group: group.clone() });
    let big = group(1, 1500);
    let user = flow(0, 1, 7, "", &[Action::Group(1)]);
    assert_eq!(handle.bundle(vec![add_group(&big), add(&user)]).await, Outcome::Committed);
    assert_eq!(handle.dump_groups().await.unwrap(), std::slice::from_ref(&big));
    let features = handle.group_features().await.unwrap();
    assert!(features.max_groups[0] > 1000, "{features:?}");
    let stats = handle.group_stats().await.unwrap();
    assert_eq!((stats[0].id, stats[0].ref_count, stats[0].buckets.len()), (1, 1, 1500));

    let Outcome::Refused(refusals) = handle.bundle(vec![add_group(&group(2, 3000))]).await else { panic!() };
    assert_eq!((refusals[0].index, name(&refusals[0])), (Some(0), "too long"));
    let Outcome::Refused(refusals) = handle.bundle(vec![add_group(&big)]).await else { panic!() };
    assert_eq!((refusals[0].index, name(&refusals[0])), (Some(0), "OFPGMFC_GROUP_EXISTS"));

    // The flow goes with its group.
    let delete = GroupMod { command: GroupCommand::Delete, group: group(1, 0) };
    assert_eq!(handle.bundle(vec![Message::GroupMod(delete)]).await, Outcome::Committed);
    assert_eq!((switch.flows().len(), handle.dump_groups().await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn meters_one_by_one() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let change = |command, meter: &Meter| MeterMod { command, meter: meter.clone() };
    let features = handle.meter_features().await.unwrap();
    assert!(features.max_meters > 100 && features.max_bands >= 1, "{features:?}");
    let changes = vec![
        change(MeterCommand::Add, &meter(1, 1000)),
        change(MeterCommand::Add, &meter(0, 100)),
        change(MeterCommand::Add, &meter(2, 2000)),
        change(MeterCommand::Modify, &meter(3, 3000)),
        change(MeterCommand::Modify, &meter(1, 1500)),
    ];
    let refusals = handle.meters(changes).await.unwrap();
    let refused: Vec<_> = refusals.iter().map(|refusal| (refusal.index, name(refusal))).collect();
    assert_eq!(refused, [(Some(1), "OFPMMFC_INVALID_METER"), (Some(3), "OFPMMFC_UNKNOWN_METER")]);
    let mut meters = handle.dump_meters().await.unwrap();
    meters.sort_by_key(|meter| meter.id);
    assert_eq!(meters, [meter(1, 1500), meter(2, 2000)]);
    assert_eq!(handle.meter_stats().await.unwrap().len(), 2);
    let bundle = vec![Message::MeterMod(change(MeterCommand::Add, &meter(9, 9)))];
    let Outcome::Refused(refusals) = handle.bundle(bundle).await else { panic!() };
    assert_eq!(name(&refusals[0]), "OFPBFC_MSG_UNSUP");
    assert_eq!(handle.statistics().modifications_sent, 6);
}

struct Cookie7;

impl Owner for Cookie7 {
    fn owns_cookie(&self, cookie: u64) -> bool {
        cookie >> 48 == 7
    }
    fn owns_group(&self, id: u32) -> bool {
        (100..200).contains(&id)
    }
    fn owns_meter(&self, id: u32) -> bool {
        (100..200).contains(&id)
    }
}

struct There {
    flows: Vec<Flow>,
    groups: Vec<Group>,
    meters: Vec<Meter>,
}

impl There {
    async fn dump(handle: &Handle) -> Self {
        let (groups, meters) = (handle.dump_groups().await.unwrap(), handle.dump_meters().await.unwrap());
        Self { flows: dump(handle).await, groups, meters }
    }

    fn tables(&self) -> Tables<'_, &[Flow]> {
        Tables { flows: &self.flows, groups: &self.groups, meters: &self.meters }
    }
}

/// Makes the switch have what is wanted, and checks that there is nothing left to be sent.
async fn reconcile(handle: &Handle, wanted: &There) -> Vec<Clash> {
    let there = There::dump(handle).await;
    let changes = diff(&wanted.tables(), &there.tables(), &Cookie7);
    assert_eq!(handle.meters(changes.meters_first).await.unwrap(), []);
    assert_eq!(handle.bundle(changes.bundle).await, Outcome::Committed);
    assert_eq!(handle.meters(changes.meters_last).await.unwrap(), []);
    let there = There::dump(handle).await;
    let again = diff(&wanted.tables(), &there.tables(), &Cookie7);
    assert!(again.is_empty(), "{again:?}");
    changes.clashes
}

#[tokio::test]
async fn what_is_wanted_comes_about_and_what_is_foreign_stays() {
    const OURS: u64 = 7 << 48;
    let switch = Switch::start();
    let handle = switch.session().await;
    switch.ofctl("add-flow", &["cookie=0x99,table=3,priority=5,actions=drop"]);
    switch.ofctl("add-group", &["group_id=1,type=all,bucket=output:1"]);
    switch.ofctl("add-meter", &["meter=1,kbps,band=type=drop,rate=1"]);

    let metered = Instructions { meter: Some(100), goto_table: Some(10), ..Instructions::default() };
    let mut wanted = There {
        flows: vec![
            Flow { instructions: metered, ..flow(0, 100, OURS | 1, "in_port=1", &[]) },
            flow(10, 0, OURS | 1, "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00", &[Action::Group(100)]),
            flow(10, 1, OURS | 2, "tcp,nw_src=10.0.0.0/24,tp_dst=22", &[output_to(2)]),
        ],
        groups: vec![group(100, 3), group(101, 1)],
        meters: vec![meter(100, 1000)],
    };
    assert_eq!(reconcile(&handle, &wanted).await, []);
    let before = handle.statistics().modifications_sent;
    assert_eq!(reconcile(&handle, &wanted).await, []);
    assert_eq!(handle.statistics().modifications_sent, before, "an unchanged switch is not changed");

    // Everything differs: other actions, another cookie, other meters and groups, and some are gone.
    wanted.flows[1].instructions.apply = [Action::Group(102)].into();
    wanted.flows[2].cookie = OURS | 3;
    wanted.flows.remove(0);
    wanted.groups = vec![group(101, 2), group(102, 1)];
    wanted.meters = vec![meter(101, 5)];
    assert_eq!(reconcile(&handle, &wanted).await, []);
    assert_eq!(
        switch.flows(),
        [
            "cookie=0x7000000000001, table=10, priority=0,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=group:102",
            "cookie=0x7000000000003, table=10, priority=1,tcp,nw_src=10.0.0.0/24,tp_dst=22 actions=output:2",
            "cookie=0x99, table=3, priority=5 actions=drop",
        ]
    );

    // What somebody else has there already is told and stays.
    wanted.flows.push(flow(3, 5, OURS | 4, "", &[]));
    let clashes = reconcile(&handle, &wanted).await;
    let [Clash::Flow { wanted: ours, there }] = &clashes[..] else { panic!("{clashes:?}") };
    assert_eq!((ours.cookie, there.cookie), (OURS | 4, 0x99));

    let nothing = There { flows: vec![], groups: vec![], meters: vec![] };
    reconcile(&handle, &nothing).await;
    assert_eq!(switch.flows(), ["cookie=0x99, table=3, priority=5 actions=drop"]);
    assert_eq!(handle.dump_groups().await.unwrap().len(), 1);
    assert_eq!(handle.dump_meters().await.unwrap().len(), 1);
}

#[tokio::test]
async fn counters_go_on_when_a_flow_changes() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let before = flow(0, 1, 7, "in_port=CONTROLLER", &[output_to(1)]);
    assert_eq!(handle.bundle(vec![add(&before)]).await, Outcome::Committed);
    let through_tables = flows::message::PacketOut {
        actions: [Action::Output { port: PortNo::TABLE, max_len: 0 }].into(),
        ..packet_to(1)
    };
    handle.packet_out(through_tables).await.unwrap();
    let other_actions = Flow { instructions: flow(0, 1, 7, "", &[output_to(2)]).instructions, ..before.clone() };
    let other_cookie = Flow { cookie: 8, ..other_actions.clone() };
    for changed in [other_actions, other_cookie] {
        let there = dump(&handle).await;
        let changes = diff_flows([&changed], &there, |_| true).changes;
        assert_eq!(changes.len(), 1);
        assert_eq!(handle.bundle(changes.into_iter().map(Message::FlowMod).collect()).await, Outcome::Committed);
        let flows = handle.dump_flows().await.unwrap();
        assert_eq!((flows.len(), flows[0].flow.cookie, flows[0].packet_count), (1, changed.cookie, 1));
    }
}

#[tokio::test]
async fn a_packet_is_sent() {
    let switch = Switch::start();
    let handle = switch.session().await;
    handle.packet_out(packet_to(2)).await.unwrap();
    let stats = handle.port_stats(PortNo(2)).await.unwrap();
    assert_eq!((stats.len(), stats[0].tx_packets, stats[0].tx_bytes), (1, 1, 60));
    let Err(CallError::Refused(error)) = handle.packet_out(packet_to(0x1234_5678)).await else { panic!() };
    assert_eq!(error.name(), Some("OFPBAC_BAD_OUT_PORT"));
    assert_eq!(handle.port_stats(PortNo::ANY).await.unwrap().len(), 4);
}

#[tokio::test]
async fn each_for_itself_without_a_bundle() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let mut messages: Vec<Message> = many(100, 7).iter().map(add).collect();
    messages[42] = add(&flow(0, 1, 7, "", &[Action::Group(1)]));
    let refusals = handle.sequence(messages).await.unwrap();
    let refused: Vec<_> = refusals.iter().map(|refusal| (refusal.index, name(refusal))).collect();
    assert_eq!(refused, [(Some(42), "OFPBAC_BAD_OUT_GROUP")]);
    let RefusalError::Switch(SwitchError { data, .. }) = &refusals[0].error else { panic!() };
    assert_eq!(data.len(), 64);
    assert_eq!(switch.flows().len(), 99);
    let delete = FlowMod { cookie_mask: 0, ..FlowMod::new(FlowCommand::Delete, flow(255, 0, 0, "", &[])) };
    assert_eq!(handle.sequence(vec![Message::FlowMod(delete)]).await, Ok(vec![]));
    assert_eq!(switch.flows().len(), 0);
}
