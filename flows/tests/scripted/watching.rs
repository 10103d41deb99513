//! Flow monitors.

use bytes::{Bytes, BytesMut};
use flows::message::{
    FlowUpdate, Kind, Message, MonitorCommand, MonitorFlags, MonitorRequest, MultipartKind, MultipartRequest,
};
use flows::session::{CallError, FlowWatch, WatchEnd, WatchEvent};
use tokio::time::timeout;

use crate::stage::{LONG, Stage, Switch};

async fn expect_monitor(switch: &mut Switch) -> (u32, MonitorRequest) {
    let (xid, message) = switch.next().await;
    let Message::MultipartRequest(MultipartRequest::FlowMonitor(request)) = message else { panic!("{message:?}") };
    (xid, request)
}

/// Updates that carry no flow: it is of no importance here.
fn updates(xids: std::ops::Range<u32>) -> Vec<FlowUpdate> {
    xids.map(|xid| FlowUpdate::Abbreviated { xid }).collect()
}

fn reply(more: bool, updates: &[FlowUpdate]) -> Message {
    let mut body = BytesMut::new();
    updates.iter().for_each(|update| update.encode(&mut body));
    Message::MultipartReply { kind: MultipartKind::FLOW_MONITOR, more, body: body.freeze() }
}

async fn next(watch: &mut FlowWatch) -> Result<WatchEvent, WatchEnd> {
    timeout(LONG, watch.next()).await.expect("an event")
}

#[tokio::test(start_paused = true)]
async fn first_what_is_there_then_what_happens() {
    let (stage, mut switch) = Stage::ready().await;
    let started = stage.start(|handle| async move { handle.watch_flows().await });
    let (xid, request) = expect_monitor(&mut switch).await;
    assert_eq!((request.command, request.flags, request.table), (MonitorCommand::Add, MonitorFlags::EVERYTHING, 0xff));
    switch.send(xid, &reply(true, &updates(0..2))).await;
    switch.send(xid, &reply(true, &[])).await;
    switch.send(xid, &reply(false, &updates(2..3))).await;
    switch.send(0, &reply(false, &updates(3..4))).await;
    let mut watch = started.await.unwrap().unwrap();
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(updates(0..2))));
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(updates(2..3))));
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Complete));
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(updates(3..4))));
    switch.send(0, &reply(false, &[FlowUpdate::Paused])).await;
    switch.send(0, &reply(false, &[FlowUpdate::Resumed])).await;
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(vec![FlowUpdate::Paused])));
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(vec![FlowUpdate::Resumed])));

    assert!(matches!(stage.handle.watch_flows().await, Err(CallError::Watched)));
    drop(switch);
    assert_eq!(next(&mut watch).await, Err(WatchEnd::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_cannot_monitor() {
    let (stage, mut switch) = Stage::ready().await;
    for _ in 0..2 {
        let started = stage.start(|handle| async move { handle.watch_flows().await });
        let (xid, _) = expect_monitor(&mut switch).await;
        switch.refuse(xid, 1, 2).await;
        assert!(matches!(started.await.unwrap(), Err(CallError::Refused(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_away_too_long_is_told_so() {
    let (stage, mut switch) = Stage::ready_with(|config| config.max_watched = 1000).await;
    let started = stage.start(|handle| async move { handle.watch_flows().await });
    let (xid, request) = expect_monitor(&mut switch).await;
    switch.send(xid, &reply(false, &[])).await;
    let mut watch = started.await.unwrap().unwrap();
    switch.send(0, &reply(false, &updates(0..100))).await;
    switch.send(0, &reply(false, &updates(100..200))).await;
    let (_, end) = expect_monitor(&mut switch).await;
    assert_eq!((end.id, end.command), (request.id, MonitorCommand::Delete));
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Complete));
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(updates(0..100))));
    assert_eq!(next(&mut watch).await, Err(WatchEnd::Overflow));
    // Another one can begin.
    let started = stage.start(|handle| async move { handle.watch_flows().await });
    let (xid, _) = expect_monitor(&mut switch).await;
    switch.send(xid, &reply(false, &updates(0..1))).await;
    let mut watch = started.await.unwrap().unwrap();
    assert_eq!(next(&mut watch).await, Ok(WatchEvent::Updates(updates(0..1))));
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_ends_the_monitor() {
    let (stage, mut switch) = Stage::ready().await;
    let started = stage.start(|handle| async move { handle.watch_flows().await });
    let (xid, request) = expect_monitor(&mut switch).await;
    switch.send(xid, &reply(false, &[])).await;
    drop(started.await.unwrap().unwrap());
    switch.send(0, &reply(false, &updates(0..1))).await;
    let (_, end) = expect_monitor(&mut switch).await;
    assert_eq!((end.id, end.command), (request.id, MonitorCommand::Delete));
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_the_watching_and_not_the_session() {
    let (stage, mut switch) = Stage::ready().await;
    let started = stage.start(|handle| async move { handle.watch_flows().await });
    let (xid, _) = expect_monitor(&mut switch).await;
    let kind = MultipartKind::FLOW_MONITOR;
    let nonsense = Message::MultipartReply { kind, more: false, body: Bytes::from_static(&[0, 8, 0, 99, 0, 0, 0, 0]) };
    switch.send(xid, &nonsense).await;
    let mut watch = started.await.unwrap().unwrap();
    assert!(matches!(next(&mut watch).await, Err(WatchEnd::Decode(_))));
    let call = stage.start(|handle| async move { handle.barrier().await });
    let barrier = switch.expect(Kind::BARRIER_REQUEST).await;
    switch.send(barrier, &Message::BarrierReply).await;
    assert_eq!(call.await.unwrap(), Ok(()));
}
