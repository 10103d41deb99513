//! Which answer belongs to which request.

use bytes::{Bytes, BytesMut};
use flows::PortNo;
use flows::message::{
    Description, Kind, Message, MultipartKind, MultipartRequest, Port, Role, RoleRequest, TableStats,
};
use flows::session::CallError;

use crate::stage::{Stage, Switch, error};

fn part(kind: MultipartKind, more: bool, body: impl Into<Bytes>) -> Message {
    Message::MultipartReply { kind, more, body: body.into() }
}

fn port(number: u32) -> Port {
    Port {
        number: PortNo(number),
        hw_addr: [0; 6],
        name: format!("p{number}"),
        config: 0,
        state: 0,
        ethernet: None,
        unknown: [].into(),
    }
}

fn ports(numbers: std::ops::Range<u32>) -> Bytes {
    let mut out = BytesMut::new();
    numbers.for_each(|number| port(number).encode(&mut out));
    out.freeze()
}

async fn expect(switch: &mut Switch, wanted: &MultipartRequest) -> u32 {
    let (xid, message) = switch.next().await;
    assert_eq!(message, Message::MultipartRequest(wanted.clone()));
    xid
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_any_order_and_in_parts() {
    let (stage, mut switch) = Stage::ready().await;
    let ports_wanted = stage.start(|handle| async move { handle.port_desc().await });
    let ports_xid = expect(&mut switch, &MultipartRequest::Ports).await;
    let role_wanted = stage.start(|handle| async move { handle.role(Role::NoChange, 0).await });
    let role_xid = switch.expect(Kind::ROLE_REQUEST).await;
    let tables_wanted = stage.start(|handle| async move { handle.table_stats().await });
    let tables_xid = expect(&mut switch, &MultipartRequest::Tables).await;
    // What nobody asked for.
    switch.send(4711, &part(MultipartKind::PORT_DESC, false, ports(90..99))).await;
    switch.send(4711, &Message::BarrierReply).await;
    switch.send(4711, &Message::Error(error(1, 1))).await;

    switch.send(ports_xid, &part(MultipartKind::PORT_DESC, true, ports(1..3))).await;
    let role = RoleRequest { role: Role::Equal, generation: 5 };
    switch.send(role_xid, &Message::RoleReply(role)).await;
    switch.send(ports_xid, &part(MultipartKind::PORT_DESC, true, ports(0..0))).await;
    switch.send(tables_xid, &part(MultipartKind::TABLE, false, Bytes::new())).await;
    switch.send(ports_xid, &part(MultipartKind::PORT_DESC, false, ports(3..4))).await;
    assert_eq!(ports_wanted.await.unwrap().unwrap(), [port(1), port(2), port(3)]);
    assert_eq!(role_wanted.await.unwrap().unwrap(), role);
    assert_eq!(tables_wanted.await.unwrap().unwrap(), Vec::<TableStats>::new());
}

#[tokio::test(start_paused = true)]
async fn refusals_and_nonsense_fail_the_request_alone() {
    let (stage, mut switch) = Stage::ready().await;
    let call = stage.start(|handle| async move { handle.port_desc().await });
    let xid = switch.expect(Kind::MULTIPART_REQUEST).await;
    switch.refuse(xid, 1, 2).await;
    let Err(CallError::Refused(refusal)) = call.await.unwrap() else { panic!() };
    assert_eq!(refusal.name(), Some("OFPBRC_BAD_STAT"));

    let call = stage.start(|handle| async move { handle.port_desc().await });
    let xid = switch.expect(Kind::MULTIPART_REQUEST).await;
    switch.send(xid, &part(MultipartKind::TABLE, true, Bytes::new())).await;
    assert_eq!(call.await.unwrap(), Err(CallError::Unexpected(Kind::MULTIPART_REPLY)));
    switch.send(xid, &part(MultipartKind::TABLE, false, Bytes::new())).await;

    let call = stage.start(|handle| async move { handle.port_desc().await });
    let xid = switch.expect(Kind::MULTIPART_REQUEST).await;
    switch.send(xid, &part(MultipartKind::PORT_DESC, false, vec![1; 30])).await;
    assert!(matches!(call.await.unwrap(), Err(CallError::Decode(_))));

    let call = stage.start(|handle| async move { handle.barrier().await });
    let xid = switch.expect(Kind::BARRIER_REQUEST).await;
    switch.send(xid, &Message::FeaturesRequest).await;
    assert_eq!(call.await.unwrap(), Err(CallError::Unexpected(Kind::FEATURES_REQUEST)));

    let call = stage.start(|handle| async move { handle.description().await });
    let xid = switch.expect(Kind::MULTIPART_REQUEST).await;
    let mut body = BytesMut::new();
    let description = Description { software: "3.1.0".into(), ..Description::default() };
    description.encode(&mut body);
    switch.send(xid, &part(MultipartKind::DESC, false, body)).await;
    assert_eq!(call.await.unwrap(), Ok(description));
    assert_eq!(stage.handle.statistics().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn an_endless_reply_is_not_kept() {
    let (stage, mut switch) = Stage::ready_with(|config| config.max_reply = 1 << 20).await;
    let call = stage.start(|handle| async move { handle.port_desc().await });
    let xid = switch.expect(Kind::MULTIPART_REQUEST).await;
    for _ in 0..100 {
        switch.send(xid, &part(MultipartKind::PORT_DESC, true, ports(0..1000))).await;
    }
    assert_eq!(call.await.unwrap(), Err(CallError::ReplyTooLong(1 << 20)));
    // The rest of it disturbs nobody.
    let call = stage.start(|handle| async move { handle.barrier().await });
    let barrier = switch.expect(Kind::BARRIER_REQUEST).await;
    switch.send(xid, &part(MultipartKind::PORT_DESC, true, ports(0..1000))).await;
    switch.send(barrier, &Message::BarrierReply).await;
    assert_eq!(call.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_and_what_was_not_answered() {
    let mut stage = Stage::new(|_| {});
    let offline = stage.start(|handle| async move { handle.barrier().await });
    // While there is no session to be had the answer is immediate; during the setup it waits for what becomes of it.
    drop(stage.accept().await);
    assert_eq!(offline.await.unwrap(), Err(CallError::NotSent));
    let mut switch = stage.accept().await;
    switch.begin().await;
    stage.until_ready().await;
    let call = stage.start(|handle| async move { handle.barrier().await });
    switch.expect(Kind::BARRIER_REQUEST).await;
    drop(switch);
    assert_eq!(call.await.unwrap(), Err(CallError::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_long() {
    let (stage, mut switch) = Stage::ready().await;
    let request = Message::EchoRequest(Bytes::from(vec![0; 70_000]));
    let error = stage.handle.call(request, Kind::ECHO_REPLY).await.unwrap_err();
    assert_eq!(error.to_string(), "70008 octets do not fit a message, which has room for 65535");
    let call = stage.start(|handle| async move { handle.barrier().await });
    let xid = switch.expect(Kind::BARRIER_REQUEST).await;
    switch.send(xid, &Message::BarrierReply).await;
    assert_eq!(call.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn callers_wait_while_too_much_is_unanswered() {
    let (stage, mut switch) = Stage::ready().await;
    let calls: Vec<_> = (0..2000).map(|_| stage.start(|handle| async move { handle.barrier().await })).collect();
    let mut asked = Vec::new();
    let first = switch.expect(Kind::BARRIER_REQUEST).await;
    for _ in 1..1024 {
        asked.push(switch.expect(Kind::BARRIER_REQUEST).await);
    }
    // Nothing but a sign of life comes until there are answers.
    let echo = switch.expect(Kind::ECHO_REQUEST).await;
    switch.send(echo, &Message::EchoReply(Bytes::new())).await;
    switch.send(first, &Message::BarrierReply).await;
    asked.push(switch.expect(Kind::BARRIER_REQUEST).await);
    let answers = tokio::spawn(async move {
        for xid in asked {
            switch.send(xid, &Message::BarrierReply).await;
        }
        while let Some((header, _)) = switch.frame().await {
            switch.send(header.xid, &Message::BarrierReply).await;
        }
    });
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    drop(stage);
    answers.await.unwrap();
}
