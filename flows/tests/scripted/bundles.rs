//! Bundles and sequences: what is sent when, and what becomes of it.

use bytes::Bytes;
use flows::message::{BundleControl, BundleStep, Kind, Message};
use flows::session::{CallError, MAX_REFUSALS, Outcome, Refusal, RefusalError};

use crate::stage::{Stage, Switch, error};

/// A flow mod of so many octets: what is in it is not looked at here.
fn change(octets: usize) -> Message {
    Message::Other { kind: Kind::FLOW_MOD, body: Bytes::from(vec![1; octets]) }
}

fn control(id: u32, step: BundleStep) -> Message {
    let flags = if (step as u16).is_multiple_of(2) { 3 } else { 0 };
    Message::BundleControl(BundleControl { id, step, flags })
}

/// Reads a bundle of so many messages up to its close: its id, the transaction ids of its messages, that of the close.
async fn read(switch: &mut Switch, messages: usize) -> (u32, Vec<u32>, u32) {
    let (open, message) = switch.next().await;
    let Message::BundleControl(BundleControl { id, step: BundleStep::OpenRequest, flags: 3 }) = message else {
        panic!("{message:?}")
    };
    switch.send(open, &control(id, BundleStep::OpenReply)).await;
    let mut xids = Vec::new();
    for _ in 0..messages {
        let (xid, message) = switch.next().await;
        let Message::BundleAdd(add) = message else { panic!("{message:?}") };
        assert_eq!((add.id, add.flags), (id, 3));
        assert_eq!(add.message[1], Kind::FLOW_MOD.0);
        assert_eq!(add.message[4..8], xid.to_be_bytes());
        xids.push(xid);
    }
    let (close, message) = switch.next().await;
    assert_eq!(message, control(id, BundleStep::CloseRequest));
    (id, xids, close)
}

async fn read_commit(switch: &mut Switch, id: u32) -> u32 {
    let (xid, message) = switch.next().await;
    assert_eq!(message, control(id, BundleStep::CommitRequest));
    xid
}

fn refusal(index: Option<usize>, kind: u16, code: u16) -> Refusal {
    let mut error = error(kind, code);
    error.data.truncate(64);
    Refusal { index, error: RefusalError::Switch(error) }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_committed_when_its_close_is_answered() {
    let (stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 3]).await });
    let (id, _, close) = read(&mut switch, 3).await;
    // Nothing more comes until then, but a sign of life.
    switch.expect(Kind::ECHO_REQUEST).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let commit = read_commit(&mut switch, id).await;
    assert!(!bundle.is_finished());
    switch.send(commit, &control(id, BundleStep::CommitReply)).await;
    assert_eq!(bundle.await.unwrap(), Outcome::Committed);
    assert_eq!(stage.handle.statistics().modifications_sent, 3);
    assert_eq!(stage.handle.bundle(Vec::new()).await, Outcome::Committed, "nothing to be done is done");
}

#[tokio::test(start_paused = true)]
async fn messages_that_make_no_sense_keep_it_from_being_committed() {
    let (stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 1000]).await });
    let (id, xids, close) = read(&mut switch, 1000).await;
    switch.refuse(xids[17], 2, 4).await;
    switch.refuse(xids[500], 4, 9).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let (_, message) = switch.next().await;
    assert_eq!(message, control(id, BundleStep::DiscardRequest));
    let outcome = bundle.await.unwrap();
    assert_eq!(outcome, Outcome::Refused(vec![refusal(Some(17), 2, 4), refusal(Some(500), 4, 9)]));
    let Outcome::Refused(refusals) = outcome else { panic!() };
    assert_eq!(refusals[0].error.to_string(), "an output port is invalid (OFPBAC_BAD_OUT_PORT)");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_in_the_commit() {
    let (stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 5]).await });
    let (id, xids, close) = read(&mut switch, 5).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let commit = read_commit(&mut switch, id).await;
    switch.refuse(xids[4], 5, 1).await;
    switch.refuse(commit, 17, 13).await;
    assert_eq!(bundle.await.unwrap(), Outcome::Refused(vec![refusal(Some(4), 5, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_refused_as_a_whole() {
    let (stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 2]).await });
    let (_, _, close) = read(&mut switch, 2).await;
    switch.refuse(close, 17, 2).await;
    assert_eq!(bundle.await.unwrap(), Outcome::Refused(vec![refusal(None, 17, 2)]));
    switch.expect(Kind::BUNDLE_CONTROL).await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 2]).await });
    let (id, _, close) = read(&mut switch, 2).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let commit = read_commit(&mut switch, id).await;
    switch.refuse(commit, 17, 14).await;
    assert_eq!(bundle.await.unwrap(), Outcome::Refused(vec![refusal(None, 17, 14)]));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_refusals_some_are_kept() {
    let (stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 1000]).await });
    let (id, xids, close) = read(&mut switch, 1000).await;
    for xid in xids {
        switch.refuse(xid, 1, 10).await;
    }
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let Outcome::Refused(refusals) = bundle.await.unwrap() else { panic!() };
    assert_eq!((refusals.len(), refusals[63].index), (MAX_REFUSALS, Some(63)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_is_refused_here() {
    let (stage, mut switch) = Stage::ready().await;
    let messages = vec![change(48), change(65_520), change(48)];
    let bundle = stage.start(|handle| async move { handle.bundle(messages).await });
    let (id, _, close) = read(&mut switch, 2).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let Outcome::Refused(refusals) = bundle.await.unwrap() else { panic!() };
    assert!(matches!(refusals[..], [Refusal { index: Some(1), error: RefusalError::TooLong(_) }]), "{refusals:?}");
}

#[tokio::test(start_paused = true)]
async fn the_connection_ends_before_and_after_the_commit() {
    let (mut stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 2]).await });
    read(&mut switch, 2).await;
    drop(switch);
    assert_eq!(bundle.await.unwrap(), Outcome::NotSent);
    let mut switch = stage.accept().await;
    switch.begin().await;
    stage.until_ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 2]).await });
    let (id, _, close) = read(&mut switch, 2).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    read_commit(&mut switch, id).await;
    drop(switch);
    assert_eq!(bundle.await.unwrap(), Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_a_switch_does_not_read_is_not_written_out() {
    let mut stage = Stage::with_capacity(4 << 10, |_| {});
    let mut switch = stage.accept().await;
    switch.begin().await;
    stage.until_ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(1000); 20_000]).await });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let sent = stage.handle.statistics().messages_sent;
    assert!((100..400).contains(&sent), "{sent} of 20,000 messages are written out to a switch that reads nothing");
    let (id, _, close) = read(&mut switch, 20_000).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let commit = read_commit(&mut switch, id).await;
    switch.send(commit, &control(id, BundleStep::CommitReply)).await;
    assert_eq!(bundle.await.unwrap(), Outcome::Committed);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_claims_what_it_was_not_asked() {
    let (stage, mut switch) = Stage::ready().await;
    let bundle = stage.start(|handle| async move { handle.bundle(vec![change(48); 1]).await });
    let (id, xids, close) = read(&mut switch, 1).await;
    switch.send(close + 1, &control(id, BundleStep::CommitReply)).await;
    switch.send(xids[0], &control(id, BundleStep::CommitReply)).await;
    switch.send(close, &Message::BarrierReply).await;
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    let commit = read_commit(&mut switch, id).await;
    assert!(!bundle.is_finished());
    // A second answer to the close is none to the commit.
    switch.send(close, &control(id, BundleStep::CloseReply)).await;
    switch.send(commit, &control(id, BundleStep::CommitReply)).await;
    assert_eq!(bundle.await.unwrap(), Outcome::Committed);
}

#[tokio::test(start_paused = true)]
async fn a_sequence_ends_with_its_barrier() {
    let (mut stage, mut switch) = Stage::ready().await;
    let sequence =
        stage.start(|handle| async move { handle.sequence(vec![change(8), change(70_000), change(8)]).await });
    switch.expect(Kind::FLOW_MOD).await;
    let last = switch.expect(Kind::FLOW_MOD).await;
    let barrier = switch.expect(Kind::BARRIER_REQUEST).await;
    switch.refuse(last, 12, 10).await;
    switch.send(barrier, &Message::BarrierReply).await;
    let refusals = sequence.await.unwrap().unwrap();
    assert!(matches!(refusals[0], Refusal { index: Some(1), error: RefusalError::TooLong(_) }));
    assert_eq!(refusals[1..], [refusal(Some(2), 12, 10)]);

    let sequence = stage.start(|handle| async move { handle.sequence(vec![change(8)]).await });
    switch.expect(Kind::FLOW_MOD).await;
    drop(switch);
    assert_eq!(sequence.await.unwrap(), Err(CallError::Disconnected));
    let sequence = stage.start(|handle| async move { handle.sequence(vec![change(8)]).await });
    drop(stage.accept().await);
    assert_eq!(sequence.await.unwrap(), Err(CallError::NotSent));
}
