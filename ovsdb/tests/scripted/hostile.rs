//! Servers that mean harm, or are broken in ways that look like it: a session bears none of it for ever, uses no memory
//! beyond its limits, and says what it was that it did not bear.

use std::time::Duration;

use ovsdb::outcome::Outcome;
use ovsdb::session::{CallError, SessionError};
use ovsdb::transact::{Transaction, Values};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::stage::{A, Server, Stage, T1, Thing, ZERO, schema};

/// Sends something harmless every second until the session hangs up.
async fn chatter(mut server: Server, message: &Value) -> Duration {
    let begun = Instant::now();
    let text = message.to_string();
    while server.stream.write_all(text.as_bytes()).await.is_ok() {
        sleep(Duration::from_secs(1)).await;
        assert!(begun.elapsed() < Duration::from_secs(600), "borne for ever");
    }
    begun.elapsed()
}

fn touch(tag: i64) -> Transaction<()> {
    let mut txn = Transaction::new(());
    txn.insert(&Values::new().with(Thing::NAME, "b").with(Thing::TAGS, [tag]));
    txn
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_ends_the_connection_although_the_server_talks() {
    let mut stage = Stage::new(|_| {});
    let server = stage.accept().await;
    let talk = json!({"id": null, "method": "locked", "params": ["x"]});
    let borne = chatter(server, &talk).await;
    assert!((60..63).contains(&borne.as_secs()), "{borne:?}");
    let error = stage.failure().await;
    assert_eq!(error.to_string(), "the OVSDB server has not answered get_schema for 60s");
    assert_eq!(error.reason(), "inactive");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_never_answered_is_unknown_and_the_contents_come_anew() {
    let (mut stage, server) = Stage::ready().await;
    let handle = stage.handle.clone();
    let transaction = tokio::spawn(async move { handle.transact(&touch(1)).await });
    let update = json!({"id": null, "method": "update3", "params": ["replica", T1, {}]});
    let borne = chatter(server, &update).await;
    assert!((60..63).contains(&borne.as_secs()), "{borne:?}");
    assert_eq!(transaction.await.unwrap(), Outcome::Unknown);
    let mut server = stage.accept().await;
    server.begin(&json!({})).await;
    stage.until_ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_byte_by_byte_is_not_waited_for() {
    let (stage, mut server) = Stage::ready().await;
    let begun = Instant::now();
    let text = format!("{{\"a\":\"{}", "x".repeat(1000));
    for byte in text.as_bytes() {
        if server.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!((60..65).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let error = stage.failure().await;
    assert!(matches!(*error, SessionError::Trickle { bytes: 60.., .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_long_message_on_a_slow_line_has_its_time() {
    let mut stage = Stage::new(|config| config.answer_timeout = Duration::from_secs(10));
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    server.answer(&call, &schema()).await;
    let call = server.expect("monitor_cond_since").await;
    let name = "x".repeat(4 << 20);
    let row = json!({"Thing": {A: {"initial": {"name": name}}}});
    let answer = json!({"id": call["id"], "result": [false, ZERO, row], "error": null}).to_string();
    // 100 KiB a second: 40 s, four times what an answer may take by itself.
    for piece in answer.as_bytes().chunks(100 << 10) {
        server.raw(piece).await;
        sleep(Duration::from_secs(1)).await;
    }
    stage.until_ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_serves_and_breaks_at_once_is_not_asked_ten_times_a_second() {
    let mut stage = Stage::new(|_| {});
    let begun = Instant::now();
    for _ in 0..12 {
        let mut server = stage.accept().await;
        server.begin(&json!({A: {"initial": {"name": "a"}}})).await;
        stage.until_ready().await;
    }
    // 0.1 s, doubled up to 8 s, and shortened by half at most.
    assert!(begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_very_many_values_is_refused_unread() {
    let mut stage = Stage::new(|config| config.limits.max_values = 1000);
    let mut server = stage.accept().await;
    server.raw(format!("{{\"method\":\"x\",\"params\":[0{}]}}", ",0".repeat(1001)).as_bytes()).await;
    let error = stage.failure().await;
    assert_eq!(std::error::Error::source(&*error).unwrap().to_string(), "a message has more than 1000 values");
}

#[tokio::test(start_paused = true)]
async fn rows_without_end_are_refused() {
    let mut stage = Stage::new(|config| config.limits.max_rows = 3);
    let mut server = stage.accept().await;
    server.begin(&json!({})).await;
    stage.until_ready().await;
    for row in 0..4 {
        let id = format!("aaaaaaaa-0000-4000-8000-00000000000{row}");
        server.update3(T1, &json!({id: {"insert": {"name": "n"}}})).await;
    }
    assert!(matches!(*stage.failure().await, SessionError::TooManyRows(3)));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_of_its_errors_is_cut() {
    let long = "é".repeat(1 << 20);
    let short = |text: &str| assert!(text.len() < 8000, "{} bytes", text.len());
    let (stage, mut server) = Stage::ready().await;
    let handle = stage.handle.clone();
    let call = tokio::spawn(async move { handle.call("x", &json!([])).await });
    let asked = server.expect("x").await;
    server.send(&json!({"id": asked["id"], "error": {"error": long, "details": long, "syntax": long}})).await;
    let Err(CallError::Server(error)) = call.await.unwrap() else { panic!("an error") };
    short(&error.to_string());
    server.send(&json!({"id": null, "method": "update3", "params": ["replica", T1, {&long: {}}]})).await;
    let error = stage.failure().await;
    short(&format!("{error}{:?}", std::error::Error::source(&*error).map(ToString::to_string)));

    let mut stage = Stage::new(|_| {});
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    server.refuse(&call, &long).await;
    short(&stage.failure().await.to_string());
}
