//! Hello, the setup, signs of life, reconnecting.

use std::time::Duration;

use bytes::Bytes;
use flows::message::{AsyncMask, Hello, Kind, Message, PortReason, PortStatus, SwitchConfig};
use flows::session::{SessionError, SessionState};
use flows::{Header, PortNo};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::stage::{FEATURES, LONG, Stage, error};

#[tokio::test(start_paused = true)]
async fn hello_and_features() {
    let mut stage = Stage::new(|_| {});
    let mut switch = stage.accept().await;
    let (header, body) = switch.frame().await.unwrap();
    assert_eq!((header.version, header.kind), (5, 0));
    assert_eq!(
        body[..],
        [
            0x00, 0x01, // OFPHET_VERSIONBITMAP
            0x00, 0x08, // length
            0x00, 0x00, 0x00, 0x20, // OpenFlow 1.4 only
        ]
    );
    // Newer than ours, with a bitmap that has ours.
    switch.raw(&[6, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x7e]).await;
    let xid = switch.expect(Kind::FEATURES_REQUEST).await;
    assert!(matches!(*stage.handle.state().borrow(), SessionState::Connecting));
    switch.send(xid, &Message::FeaturesReply(FEATURES)).await;
    stage.until_ready().await;
    let SessionState::Ready(features) = *stage.handle.state().borrow() else { panic!() };
    assert_eq!(features, FEATURES);
    let statistics = stage.handle.statistics();
    assert_eq!((statistics.connections, statistics.messages_received, statistics.modifications_sent), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_switch_of_other_versions_is_a_matter_of_configuration() {
    let mut stage = Stage::new(|_| {});
    let mut switch = stage.accept().await;
    switch.send(0, &Message::Hello(Hello { versions: Some(1 << 1 | 1 << 4) })).await;
    let failure = stage.failure().await;
    assert_eq!(failure.to_string(), "the switch does not speak OpenFlow 1.4 (it offers 1.0, 1.3)");
    assert!(failure.is_configuration());
    let mut switch = stage.accept().await;
    switch.send(0, &Message::Error(error(0, 0))).await;
    let refused =
        |state: &SessionState| matches!(state, SessionState::Failed(e) if matches!(**e, SessionError::HelloRefused(_)));
    timeout(LONG, stage.handle.state().wait_for(refused)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_is_no_switch_is_left() {
    for (bytes, reason) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "protocol"), // 21,584 octets of a type that is no hello
        (&[5, 0, 0, 3, 0, 0, 0, 0], "protocol"),                // shorter than a header
        (&[5, 20, 0, 8, 0, 0, 0, 0], "protocol"),               // a barrier request
    ] {
        let mut stage = Stage::new(|_| {});
        let mut switch = stage.accept().await;
        switch.raw(bytes).await;
        switch.raw(&[0; 30_000]).await;
        assert_eq!(stage.failure().await.reason(), reason, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_version_ends_it() {
    let (stage, mut switch) = Stage::ready().await;
    switch.raw(&[4, 2, 0, 8, 0, 0, 0, 0]).await;
    assert!(matches!(*stage.failure().await, SessionError::Unexpected { version: 4, kind: 2, .. }));
    switch.hung_up().await;
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_features_ends_it() {
    let mut stage = Stage::new(|_| {});
    let begun = Instant::now();
    let mut switch = stage.accept().await;
    switch.send(0, &Message::Hello(Hello::OURS)).await;
    assert!(matches!(*stage.failure().await, SessionError::ConnectTimeout { .. }));
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn features_refused_end_it() {
    let mut stage = Stage::new(|_| {});
    let mut switch = stage.accept().await;
    switch.send(0, &Message::Hello(Hello::OURS)).await;
    switch.expect(Kind::HELLO).await;
    let xid = switch.expect(Kind::FEATURES_REQUEST).await;
    switch.refuse(xid, 1, 5).await;
    let failure = stage.failure().await;
    assert_eq!(
        failure.to_string(),
        "the switch refused to say what it is: the switch does not permit the request (OFPBRC_EPERM)"
    );
}

#[tokio::test(start_paused = true)]
async fn echoes_are_answered_and_asked_for() {
    let (stage, mut switch) = Stage::ready().await;
    switch.send(77, &Message::EchoRequest(Bytes::from_static(b"hello?"))).await;
    assert_eq!(switch.next().await, (77, Message::EchoReply(Bytes::from_static(b"hello?"))));
    let begun = Instant::now();
    for _ in 0..3 {
        let xid = switch.expect(Kind::ECHO_REQUEST).await;
        switch.send(xid, &Message::EchoReply(Bytes::new())).await;
    }
    assert_eq!(begun.elapsed().as_secs(), 15);
    switch.expect(Kind::ECHO_REQUEST).await;
    let asked = Instant::now();
    assert!(matches!(*stage.failure().await, SessionError::Inactive(_)));
    assert_eq!(asked.elapsed().as_secs(), 60);
    switch.hung_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_is_alive_and_does_not_answer() {
    let (stage, mut switch) = Stage::ready().await;
    let begun = Instant::now();
    let call = stage.start(|handle| async move { handle.barrier().await });
    switch.expect(Kind::BARRIER_REQUEST).await;
    let echoes = tokio::spawn(async move {
        while let Some((xid, message)) = switch.try_next().await {
            assert_eq!(message.kind(), Kind::ECHO_REQUEST);
            switch.send(xid, &Message::EchoReply(Bytes::new())).await;
        }
    });
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "the connection ended before the switch answered");
    assert_eq!(begun.elapsed().as_secs(), 120);
    assert!(matches!(*stage.failure().await, SessionError::Unanswered(_)));
    echoes.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_asks_and_does_not_listen() {
    let mut stage = Stage::with_capacity(64 << 10, |_| {});
    let mut switch = stage.accept().await;
    switch.begin().await;
    stage.until_ready().await;
    let mut request = vec![5, 2, 0xff, 0xff, 0, 0, 0, 1];
    request.resize(0xffff, 0);
    let mut sent = 0;
    while switch.stream.write_all(&request).await.is_ok() {
        sent += request.len();
        assert!(sent < 64 << 20, "the session keeps all of it");
    }
    assert!(matches!(*stage.failure().await, SessionError::Unread));
}

#[tokio::test(start_paused = true)]
async fn it_connects_again_and_again_with_longer_and_longer_delays() {
    let mut stage = Stage::new(|_| {});
    let mut last = Instant::now();
    let mut delays = Vec::new();
    for _ in 0..10 {
        drop(stage.accept().await);
        delays.push(last.elapsed());
        last = Instant::now();
    }
    assert!(delays[1] <= Duration::from_millis(101) && delays[1] >= Duration::from_millis(50), "{delays:?}");
    assert!(delays[9] <= Duration::from_secs(9) && delays[9] >= Duration::from_secs(4), "{delays:?}");
    let mut switch = stage.accept().await;
    switch.begin().await;
    stage.until_ready().await;
    drop(switch);
    let begun = Instant::now();
    let mut switch = stage.accept().await;
    switch.begin().await;
    assert!(begun.elapsed() <= Duration::from_millis(101), "a session that was ready begins anew");
    stage.until_ready().await;
    let statistics = stage.handle.statistics();
    assert_eq!((statistics.connections, statistics.restarts["closed"]), (12, 11));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_last_handle() {
    let (stage, mut switch) = Stage::ready().await;
    let clone = stage.handle.clone();
    drop(stage);
    switch.send(5, &Message::EchoRequest(Bytes::new())).await;
    switch.expect(Kind::ECHO_REPLY).await;
    drop(clone);
    assert!(switch.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn events_are_asked_for_without_touching_fragments() {
    let mut stage = Stage::new(|config| config.events = vec![AsyncMask::PORTS]);
    let mut events = stage.handle.events();
    let mut switch = stage.accept().await;
    switch.send(0, &Message::Hello(Hello::OURS)).await;
    switch.expect(Kind::HELLO).await;
    let xid = switch.expect(Kind::GET_CONFIG_REQUEST).await;
    switch.send(xid, &Message::GetConfigReply(SwitchConfig { flags: 3, miss_send_len: 0 })).await;
    let (_, message) = switch.next().await;
    assert_eq!(message, Message::SetConfig(SwitchConfig { flags: 3, miss_send_len: 128 }));
    let (_, message) = switch.next().await;
    let Message::SetAsync(masks) = message else { panic!("{message:?}") };
    let silent = [AsyncMask::PACKET_IN, AsyncMask::FLOW_REMOVED, AsyncMask::REQUESTFORWARD];
    assert!(silent.iter().all(|kind| masks.contains(&AsyncMask { kind: *kind, reasons: 0 })), "{masks:?}");
    assert!(masks.contains(&AsyncMask::PORTS));
    let xid = switch.expect(Kind::FEATURES_REQUEST).await;
    switch.send(xid, &Message::FeaturesReply(FEATURES)).await;
    stage.until_ready().await;
    let port = flows::message::Port {
        number: PortNo(7),
        hw_addr: [2, 0, 0, 0, 0, 7],
        name: "tap7".into(),
        config: 0,
        state: 1,
        ethernet: None,
        unknown: [].into(),
    };
    let status = Message::PortStatus(PortStatus { reason: PortReason::Add, port });
    switch.send(0, &status).await;
    assert_eq!(timeout(LONG, events.recv()).await.unwrap().unwrap(), status);
    // One that makes no sense is told as it came, and ends nothing.
    switch.raw(&[5, 12, 0, 12, 0, 0, 0, 0, 9, 9, 9, 9]).await;
    let event = timeout(LONG, events.recv()).await.unwrap().unwrap();
    assert_eq!(event, Message::Other { kind: Kind::PORT_STATUS, body: Bytes::from_static(&[9; 4]) });
}

#[tokio::test(start_paused = true)]
async fn noise_after_the_beginning_never_panics() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..200 {
        let (stage, mut switch) = Stage::ready().await;
        let call = stage.start(|handle| async move { handle.port_desc().await });
        let (header, _) = switch.frame().await.unwrap();
        for _ in 0..20 {
            let length = random() % 64;
            let mut message = bytes::BytesMut::new();
            let xid = if random() % 2 == 0 { header.xid } else { u32::try_from(random() % 4).unwrap() };
            let kind = u8::try_from(random() % 36).unwrap();
            Header { version: 5, kind, length: 8 + u16::try_from(length).unwrap(), xid }.put(&mut message);
            message.extend((0..length).map(|_| u8::try_from(random() % 20).unwrap()));
            if switch.stream.write_all(&message).await.is_err() {
                break;
            }
        }
        drop(switch);
        // Whatever it was, whoever waits is told.
        let _ = timeout(LONG, call).await.expect("an answer").unwrap();
        stage.failure().await;
    }
}
