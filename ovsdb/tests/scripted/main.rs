//! Sessions against a server that a test plays by hand over an in-memory pipe: what no real server can be
//! made to do at will. Time is paused, so waits cost nothing and are exact.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod hostile;
mod stage;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use ovsdb::endpoint::{Comeback, Connect, Connecting};
use ovsdb::message::ServerError;
use ovsdb::outcome::Outcome;
use ovsdb::replica::View;
use ovsdb::session::{CallError, Config, Handle, LockMode, LockState, Session, SessionError, SessionState};
use ovsdb::transact::{Transaction, Values};
use ovsdb::value::Uuid;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::stage::{A, LONG, Stage, T1, T2, Thing, Things, ZERO, schema};

/// A transaction that sets the tags of row A.
fn tagging(tag: i64) -> Transaction<i64> {
    let mut txn = Transaction::new(tag);
    txn.update(Uuid::try_parse(A).unwrap(), &Values::new().with(Thing::TAGS, [tag]));
    txn
}

/// Starts a transaction and gives its outcome later.
fn start(handle: &Handle<Things>, txn: Transaction<i64>) -> tokio::task::JoinHandle<Outcome<i64>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.transact(&txn).await })
}

#[tokio::test(start_paused = true)]
async fn the_monitor_asks_for_the_declared_columns() {
    let mut stage = Stage::new(|_| {});
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    assert!(matches!(*stage.handle.state().borrow(), SessionState::Connecting));
    server.answer(&call, &schema()).await;
    let call = server.expect("monitor_cond_since").await;
    assert!(matches!(*stage.handle.state().borrow(), SessionState::Syncing));
    assert_eq!(
        call["params"],
        json!([
            "Things",                                     // database
            "replica",                                    // our name for the monitor
            {"Thing": [{"columns": ["name", "tags"]}]},   // nothing that is not read
            ZERO                                          // nothing known yet
        ])
    );
    assert_eq!(*stage.handle.snapshot().borrow(), View::Syncing);
    server.answer(&call, &json!([false, ZERO, {}])).await;
    stage.until_ready().await;
    assert_eq!(stage.handle.snapshot().borrow().ready().unwrap().0.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn older_servers_are_asked_in_older_ways() {
    let mut stage = Stage::new(|_| {});
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    server.answer(&call, &schema()).await;
    for method in ["monitor_cond_since", "monitor_cond"] {
        let call = server.expect(method).await;
        server.refuse(&call, "unknown method").await;
    }
    let call = server.expect("monitor").await;
    assert_eq!(call["params"], json!(["Things", "replica", {"Thing": [{"columns": ["name", "tags"]}]}]));
    server.answer(&call, &json!({"Thing": {A: {"new": {"name": "a", "tags": 1}}}})).await;
    stage.until_ready().await;
    let update = json!({"Thing": {A: {"old": {"tags": 1}, "new": {"name": "a", "tags": ["set", [1, 2]]}}}});
    server.send(&json!({"id": null, "method": "update", "params": ["replica", update]})).await;
    let mut views = stage.handle.snapshot();
    let both = views.wait_for(|view| view.ready().unwrap().0.values().next().unwrap().tags.len() == 2);
    timeout(LONG, both).await.unwrap().unwrap();
    assert_eq!(stage.tags(), Some([1, 2].into()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_will_not_be_monitored_is_an_error() {
    let mut stage = Stage::new(|_| {});
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    server.answer(&call, &schema()).await;
    for method in ["monitor_cond_since", "monitor_cond", "monitor"] {
        let call = server.expect(method).await;
        server.refuse(&call, "permission error").await;
    }
    assert_eq!(stage.failure().await.to_string(), "the OVSDB server refused to be monitored: permission error");
}

#[tokio::test(start_paused = true)]
async fn echo_is_answered_as_it_came() {
    let (_stage, mut server) = Stage::ready().await;
    server.raw(br#"{"method":"echo","params":["x",1.50],"id":["odd",{}]}{"method":"dance","id":1}"#).await;
    assert_eq!(server.next().await, json!({"id": ["odd", {}], "result": ["x", 1.50], "error": null}));
    assert_eq!(server.next().await, json!({"id": 1, "result": null, "error": "unknown method"}));
}

#[tokio::test(start_paused = true)]
async fn silence_is_probed_and_then_ends_the_connection() {
    let (mut stage, mut server) = Stage::ready().await;
    let quiet_since = Instant::now();
    let echo = server.expect("echo").await;
    assert_eq!(quiet_since.elapsed(), Duration::from_secs(5));
    // Any byte is a sign of life, the beginning of a message too.
    sleep(Duration::from_secs(14)).await;
    server.raw(b" ").await;
    sleep(Duration::from_secs(4)).await;
    server.answer(&echo, &json!([])).await;
    let quiet_since = Instant::now();
    server.expect("echo").await;
    assert_eq!(quiet_since.elapsed(), Duration::from_secs(5));
    assert_eq!(server.try_next().await, None);
    assert_eq!(quiet_since.elapsed(), Duration::from_secs(20));
    assert!(matches!(*stage.failure().await, SessionError::Inactive(silence) if silence == Duration::from_secs(20)));
    assert_eq!(*stage.handle.snapshot().borrow(), View::Syncing);
    let mut server = stage.accept().await;
    server.begin(&json!({})).await;
    stage.until_ready().await;
    let statistics = stage.handle.statistics();
    assert_eq!(statistics.restarts, [("inactive", 1)].into());
    assert_eq!(statistics.resyncs, [("inactive", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_says_nothing_is_left() {
    let mut stage = Stage::new(|_| {});
    let mut server = stage.accept().await;
    server.expect("get_schema").await;
    server.expect("echo").await;
    assert_eq!(server.try_next().await, None);
    assert!(matches!(*stage.failure().await, SessionError::Inactive(_)));
    stage.accept().await;
}

#[tokio::test(start_paused = true)]
async fn many_calls_are_under_way_and_answered_in_any_order() {
    let (stage, mut server) = Stage::ready().await;
    let outcomes: Vec<_> = (0..100).map(|i| start(&stage.handle, tagging(i))).collect();
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(server.expect("transact").await);
    }
    for call in calls.iter().rev() {
        // Odd ones fail: an error is an answer like any other.
        let tag = call["params"][1]["row"]["tags"].as_i64().unwrap();
        if tag % 2 == 0 {
            server.answer(call, &json!([{"count": 1}])).await;
        } else {
            server.refuse(call, "permission error").await;
        }
    }
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let expected = if i % 2 == 0 { "committed" } else { "rejected" };
        assert_eq!(outcome.await.unwrap().name(), expected, "{i}");
    }
    // Answers to nothing, and notifications of nothing, are no reason to end.
    server.raw(br#"{"id":999999,"result":1}{"id":"x","error":"y"}{"method":"rain","params":[]}"#).await;
    server.raw(br#"{"method":"update2","params":["somebody else's",{"Nope":{}}]}"#).await;
    let outcome = start(&stage.handle, tagging(1));
    let call = server.expect("transact").await;
    server.answer(&call, &json!([{"count": 1}])).await;
    assert_eq!(outcome.await.unwrap().name(), "committed");
    assert_eq!(stage.handle.statistics().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_after_the_updates_before_it_however_they_arrive() {
    let (stage, mut server) = Stage::ready().await;
    for (tag, pieces) in [(1, 1), (2, 7), (3, 1000)] {
        let outcome = start(&stage.handle, tagging(tag));
        let call = server.expect("transact").await;
        let difference = if tag == 1 { json!(1) } else { json!(["set", [tag - 1, tag]]) };
        let update = json!({"id": null, "method": "update3",
            "params": ["replica", ZERO, {"Thing": {A: {"modify": {"tags": difference}}}}]});
        let answer = json!({"id": call["id"], "result": [{"count": 1}], "error": null});
        let bytes = format!("{update}{answer}").into_bytes();
        for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
            server.raw(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(outcome.await.unwrap().name(), "committed");
        assert_eq!(stage.tags(), Some([tag].into()));
    }
}

#[tokio::test(start_paused = true)]
async fn readers_are_woken_once_for_what_arrives_together() {
    let (stage, mut server) = Stage::ready().await;
    let mut views = stage.handle.snapshot();
    views.borrow_and_update();
    let update = |tag: i64| {
        json!({"id": null, "method": "update3",
            "params": ["replica", ZERO, {"Thing": {A: {"modify": {"tags": tag}}}}]})
    };
    let burst: String = (0..50).map(|tag| update(tag).to_string()).collect();
    server.raw(burst.as_bytes()).await;
    views.changed().await.unwrap();
    assert_eq!(views.borrow_and_update().ready().unwrap().0.values().next().unwrap().tags.len(), 50);
    // What changes nothing wakes nobody.
    server.update3(ZERO, &json!({})).await;
    assert!(timeout(Duration::from_secs(1), views.changed()).await.is_err());
    assert!(!views.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_cut_off_is_unknown_and_never_sent_again() {
    let (mut stage, mut server) = Stage::ready().await;
    let outcome = start(&stage.handle, tagging(1));
    server.expect("transact").await;
    drop(server);
    assert_eq!(outcome.await.unwrap(), Outcome::Unknown);
    assert_eq!(stage.handle.transact(&tagging(2)).await, Outcome::NotSent);
    let mut server = stage.accept().await;
    // While the contents are on their way nothing is sent either: what would be decided on?
    let call = server.expect("get_schema").await;
    assert_eq!(stage.handle.transact(&tagging(3)).await, Outcome::NotSent);
    server.answer(&call, &schema()).await;
    let call = server.expect("monitor_cond_since").await;
    server.answer(&call, &json!([false, ZERO, {}])).await;
    stage.until_ready().await;
    server.expect("echo").await;
}

#[tokio::test(start_paused = true)]
async fn what_never_left_is_told_from_what_did() {
    // A pipe so narrow that the first transaction fills it and the second waits behind.
    let mut stage = Stage::with_capacity(256, |_| {});
    let mut server = stage.accept().await;
    server.begin(&json!({A: {"initial": {"name": "a"}}})).await;
    stage.until_ready().await;
    let mut long = tagging(1);
    long.comment(&"x".repeat(1000));
    let partly = start(&stage.handle, long);
    tokio::task::yield_now().await;
    let behind = start(&stage.handle, tagging(2));
    sleep(Duration::from_millis(1)).await;
    drop(server);
    assert_eq!(partly.await.unwrap(), Outcome::Unknown);
    assert_eq!(behind.await.unwrap(), Outcome::NotSent);
}

#[tokio::test(start_paused = true)]
async fn what_begins_where_writing_stopped_never_left() {
    const CAPACITY: usize = 256;
    let mut stage = Stage::with_capacity(CAPACITY, |_| {});
    let mut server = stage.accept().await;
    server.begin(&json!({})).await;
    stage.until_ready().await;
    let call = |padding: usize| {
        let handle = stage.handle.clone();
        tokio::spawn(async move { handle.call("x", &json!(["-".repeat(padding)])).await })
    };
    // How long a call without padding is, and then one that fills the pipe to the last byte.
    let measured = call(0);
    let length = server.expect("x").await.to_string().len();
    let filling = call(CAPACITY - length);
    sleep(Duration::from_millis(1)).await;
    let behind = call(0);
    sleep(Duration::from_millis(1)).await;
    drop(server);
    assert_eq!(measured.await.unwrap(), Err(CallError::Disconnected));
    assert_eq!(filling.await.unwrap(), Err(CallError::Disconnected));
    assert_eq!(behind.await.unwrap(), Err(CallError::NotSent));
    assert_eq!(stage.handle.statistics().restarts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_cannot_be_ends_the_connection_and_everything_comes_anew() {
    let cases = [
        (json!({A: {"insert": {"name": "again"}}}), "impossible_update"),
        (json!({T1: {"modify": {"name": "unknown"}}}), "impossible_update"),
        (json!({T1: {"delete": null}}), "impossible_update"),
        (json!({A: {"modify": {"tags": "text"}}}), "impossible_update"),
        (json!([]), "impossible_update"),
    ];
    let (mut stage, mut server) = Stage::ready().await;
    for (round, (update, reason)) in cases.into_iter().enumerate() {
        // A good one first, in the same breath: it must not hide the bad one.
        server.update3(T1, &json!({A: {"modify": {"tags": 1}}})).await;
        server.update3(T2, &update).await;
        assert_eq!(server.try_next().await, None, "{update}");
        server = stage.accept().await;
        assert_eq!(*stage.handle.snapshot().borrow(), View::Syncing);
        let call = server.expect("get_schema").await;
        server.answer(&call, &schema()).await;
        let call = server.expect("monitor_cond_since").await;
        assert_eq!(call["params"][3], ZERO, "contents that went wrong are no base to go on from");
        server.answer(&call, &json!([false, T1, {"Thing": {A: {"initial": {"name": "a"}}}}])).await;
        stage.until_ready().await;
        assert_eq!(stage.tags(), Some(BTreeSet::new()));
        assert_eq!(stage.handle.statistics().resyncs[reason], round as u64 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_with_history_is_asked_for_the_rest_only() {
    let (mut stage, mut server) = Stage::ready().await;
    server.update3(T1, &json!({A: {"modify": {"tags": 1}}})).await;
    stage
        .handle
        .snapshot()
        .wait_for(|view| view.ready().is_some_and(|db| !db.0.values().next().unwrap().tags.is_empty()))
        .await
        .unwrap();
    drop(server);

    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    server.answer(&call, &schema()).await;
    let call = server.expect("monitor_cond_since").await;
    assert_eq!(call["params"][3], T1);
    server.answer(&call, &json!([true, T2, {"Thing": {A: {"modify": {"tags": 2}}}}])).await;
    stage.until_ready().await;
    assert_eq!(stage.tags(), Some([1, 2].into()));
    assert_eq!(stage.handle.statistics().resyncs, [].into());
    drop(server);

    // The next server does not know that transaction: it sends everything.
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    server.answer(&call, &schema()).await;
    let call = server.expect("monitor_cond_since").await;
    assert_eq!(call["params"][3], T2);
    server.answer(&call, &json!([false, T1, {"Thing": {A: {"initial": {"name": "a", "tags": 9}}}}])).await;
    stage.until_ready().await;
    assert_eq!(stage.tags(), Some([9].into()));
    assert_eq!(stage.handle.statistics().resyncs, [("closed", 1)].into());
    drop(server);

    // The one after has another schema: what we have does not fit it, so it is not even offered.
    let mut server = stage.accept().await;
    let call = server.expect("get_schema").await;
    let mut changed = schema();
    changed["tables"]["Thing"]["columns"]["tags"]["type"]["max"] = json!(8);
    server.answer(&call, &changed).await;
    assert_eq!(server.expect("monitor_cond_since").await["params"][3], ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_canceled_monitor_begins_anew() {
    let (mut stage, mut server) = Stage::ready().await;
    server.send(&json!({"id": null, "method": "monitor_canceled", "params": ["replica"]})).await;
    assert!(matches!(*stage.failure().await, SessionError::MonitorCanceled));
    let mut server = stage.accept().await;
    server.begin(&json!({})).await;
    stage.until_ready().await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_the_connection_with_a_reason() {
    let deep = format!("{}{}", r#"{"a":"#, "[".repeat(200));
    let begin: [(&[u8], &str); 9] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "begins with byte 0x48"),
        (b"\x16\x03\x01", "begins with byte 0x16"),
        (b"{\"id\":}", "not a JSON object"),
        (b"{\"method\":\"x\xff\"}", "not a JSON object"),
        (b"{}", "neither a call nor an answer"),
        (b"{\"method\":\"update3\",\"params\":5}", "update3: invalid type"),
        (b"{\"method\":\"update3\",\"params\":[\"replica\"]}", "update3: 1 parameters"),
        (b"{\"method\":\"update2\",\"params\":[\"replica\",{}]}", "update2: it comes before the contents"),
        (deep.as_bytes(), "nests deeper than 100"),
    ];
    for (bytes, expected) in begin {
        let mut stage = Stage::new(|_| {});
        let mut server = stage.accept().await;
        server.raw(bytes).await;
        let error = stage.failure().await;
        let text = format!("{error}: {:?}", std::error::Error::source(&*error).map(ToString::to_string));
        assert!(text.contains(expected), "{text}");
    }
    // Answers to the monitor call that are none.
    for answer in [json!(null), json!([]), json!([true]), json!([true, "x", {}]), json!([false, ZERO]), json!({})] {
        let mut stage = Stage::new(|_| {});
        let mut server = stage.accept().await;
        let call = server.expect("get_schema").await;
        server.answer(&call, &schema()).await;
        let call = server.expect("monitor_cond_since").await;
        server.answer(&call, &answer).await;
        assert!(matches!(*stage.failure().await, SessionError::Message(_)), "{answer}");
        assert_eq!(*stage.handle.snapshot().borrow(), View::Syncing);
    }
}

/// What it costs is measured in `benches`.
#[tokio::test]
async fn fifteen_megabytes_in_one_message_are_read() {
    const ROWS: u32 = 64_000;
    let mut stage = Stage::new(|_| {});
    let mut server = stage.accept().await;
    let contents: serde_json::Map<String, Value> = (0..ROWS)
        .map(|i| {
            let name = format!("{i:0100}");
            let tags: Vec<u32> = (i..i + 10).collect();
            (Uuid::from_u128(i.into()).to_string(), json!({"initial": {"name": name, "tags": ["set", tags]}}))
        })
        .collect();
    let call = server.expect("get_schema").await;
    server.answer(&call, &schema()).await;
    let call = server.expect("monitor_cond_since").await;
    let answer = json!({"id": call["id"], "result": [false, ZERO, {"Thing": contents}], "error": null}).to_string();
    assert!(answer.len() > 15_000_000);
    server.raw(answer.as_bytes()).await;
    stage.until_ready().await;
    assert_eq!(stage.handle.snapshot().borrow().ready().unwrap().0.len(), ROWS as usize);
}

#[tokio::test(start_paused = true)]
async fn a_message_beyond_the_limit_is_not_waited_for() {
    let mut stage = Stage::new(|config| config.limits.max_message = 1000);
    let mut server = stage.accept().await;
    server.raw(format!("{{\"a\":\"{}", "x".repeat(1000)).as_bytes()).await;
    assert!(matches!(*stage.failure().await, SessionError::Framing(_)));
    assert_eq!(stage.handle.statistics().restarts, [("protocol", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn callers_wait_while_much_is_unwritten() {
    let mut stage = Stage::with_capacity(10_000, |_| {});
    let mut server = stage.accept().await;
    server.begin(&json!({})).await;
    stage.until_ready().await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let handle = stage.handle.clone();
            tokio::spawn(async move { handle.call("x", &json!(["-".repeat(100_000)])).await })
        })
        .collect();
    sleep(Duration::from_millis(1)).await;
    // Of ten megabytes, one and what fits the pipe was taken.
    assert!(stage.handle.statistics().messages_sent < 20);
    for _ in 0..100 {
        let call = server.expect("x").await;
        server.answer(&call, &json!([])).await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(json!([])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_without_listening_is_left() {
    let mut stage = Stage::with_capacity(10_000, |_| {});
    let mut server = stage.accept().await;
    let echo = json!({"id": "x".repeat(900), "method": "echo", "params": []}).to_string();
    let mut sent = 0;
    while server.stream.write_all(echo.as_bytes()).await.is_ok() {
        sent += echo.len();
        assert!(sent < 2 << 20, "answers pile up without end");
    }
    assert!(matches!(*stage.failure().await, SessionError::Unread(_)));
}

/// Refuses every connection and notes when; or accepts and never answers.
struct Wall {
    attempts: mpsc::UnboundedSender<Instant>,
    silent: bool,
}

impl Connect for Wall {
    fn connect(&self) -> Connecting<'_> {
        self.attempts.send(Instant::now()).unwrap();
        Box::pin(async move {
            if self.silent {
                std::future::pending::<()>().await;
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
    fn target(&self) -> String {
        "a wall".to_owned()
    }
}

/// Refuses every connection, and says so when it may have come back.
struct Door {
    attempts: mpsc::UnboundedSender<()>,
    knocks: watch::Receiver<()>,
}

impl Connect for Door {
    fn connect(&self) -> Connecting<'_> {
        self.attempts.send(()).unwrap();
        Box::pin(std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())))
    }
    fn target(&self) -> String {
        "a door".to_owned()
    }
    fn comeback(&self) -> Comeback {
        let mut knocks = self.knocks.clone();
        knocks.mark_unchanged();
        Box::pin(async move { drop(knocks.changed().await) })
    }
}

/// The clock stands still as long as anybody has something to do, and a year of it would be seen.
#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_is_not_kept_waiting() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let (attempts, mut seen) = mpsc::unbounded_channel();
    let (others, _unseen) = mpsc::unbounded_channel();
    let (door, knocks) = watch::channel(());
    // The second server has no means to know.
    let wall = Wall { attempts: others, silent: false };
    let mut config = Config::new(Door { attempts, knocks }).or(wall);
    (config.min_backoff, config.max_backoff) = (YEAR, YEAR);
    let begun = Instant::now();
    let _handle = Session::spawn(config, Things::default());
    seen.recv().await.unwrap();
    for _ in 0..3 {
        door.send_replace(());
        seen.recv().await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // One attempt for one comeback; the next one is a matter of the delay.
    seen.recv().await.unwrap();
    assert!(begun.elapsed() >= YEAR / 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn attempts_come_further_and_further_apart_with_jitter() {
    let (attempts, mut seen) = mpsc::unbounded_channel();
    let wall = || Wall { attempts: attempts.clone(), silent: false };
    // Two servers make one round: no delay between them.
    let handle = Session::spawn(Config::new(wall()).or(wall()), Things::default());
    let mut last = Instant::now();
    let mut delays = Vec::new();
    for _ in 0..20 {
        let first = seen.recv().await.unwrap();
        delays.push(first - last);
        last = seen.recv().await.unwrap();
        assert_eq!(first, last);
    }
    assert_eq!(delays[0], Duration::ZERO);
    for (i, delay) in delays[1..].iter().enumerate() {
        let longest = Duration::from_millis(100 << i.min(10)).min(Duration::from_secs(8));
        // The clock of tokio counts milliseconds, rounding up.
        assert!(*delay <= longest + Duration::from_millis(1) && *delay >= longest / 2, "{i}: {delay:?}");
    }
    let full = delays[10..].iter().filter(|delay| **delay > Duration::from_millis(7900)).count();
    assert!(full < 9, "no jitter: {delays:?}");
    assert!(matches!(&*handle.state().borrow(), SessionState::Failed(error) if error.reason() == "connect"));
    assert_eq!(handle.statistics().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_short_again_after_success_but_not_after_wrong_contents() {
    let (mut stage, server) = Stage::ready().await;
    sleep(Duration::from_secs(1)).await;
    drop(server);
    for _ in 0..5 {
        let begun = Instant::now();
        let mut server = stage.accept().await;
        assert!(begun.elapsed() <= Duration::from_millis(101), "{:?}", begun.elapsed());
        server.begin(&json!({})).await;
        stage.until_ready().await;
        sleep(Duration::from_secs(1)).await;
    }
    let mut waited = Duration::ZERO;
    for _ in 0..8 {
        let begun = Instant::now();
        let mut server = stage.accept().await;
        waited = begun.elapsed();
        server.begin(&json!({})).await;
        stage.until_ready().await;
        server.update3(T1, &json!({A: {"delete": null}})).await;
        stage.failure().await;
    }
    assert!(waited > Duration::from_secs(2), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn connecting_takes_so_long_and_no_longer_and_callers_do_not_wait_for_it() {
    let (attempts, mut seen) = mpsc::unbounded_channel();
    let handle = Session::spawn(Config::new(Wall { attempts, silent: true }), Things::default());
    let first = seen.recv().await.unwrap();
    assert_eq!(handle.transact(&tagging(1)).await, Outcome::NotSent);
    assert_eq!(handle.call("list_dbs", &json!([])).await, Err(CallError::NotSent));
    assert_eq!(first.elapsed(), Duration::ZERO);
    let delay = seen.recv().await.unwrap() - first;
    assert!(delay >= Duration::from_millis(5050) && delay <= Duration::from_millis(5110), "{delay:?}");
    let state = handle.state().borrow().clone();
    let SessionState::Failed(error) = state else { panic!() };
    assert_eq!(error.to_string(), "a wall did not accept a connection within 5s");
}

#[tokio::test(start_paused = true)]
async fn the_session_ends_with_its_last_handle() {
    let (stage, mut server) = Stage::ready().await;
    let mut views = stage.handle.snapshot();
    views.borrow_and_update();
    let second = stage.handle.clone();
    drop(stage.handle);
    let outcome = start(&second, tagging(1));
    let call = server.expect("transact").await;
    server.answer(&call, &json!([{"count": 1}])).await;
    assert_eq!(outcome.await.unwrap().name(), "committed");
    drop(second);
    assert_eq!(server.try_next().await, None);
    assert!(views.changed().await.is_err());
    assert!(views.borrow().ready().is_some(), "the last view can still be read");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_disturbs_nobody() {
    let (stage, mut server) = Stage::ready().await;
    let outcome = start(&stage.handle, tagging(1));
    let call = server.expect("transact").await;
    outcome.abort();
    assert!(outcome.await.unwrap_err().is_cancelled());
    server.answer(&call, &json!([{"count": 1}])).await;
    let outcome = start(&stage.handle, tagging(2));
    let call = server.expect("transact").await;
    server.answer(&call, &json!([{"count": 1}])).await;
    assert_eq!(outcome.await.unwrap().name(), "committed");
}

async fn becomes(state: &mut watch::Receiver<LockState>, wanted: LockState) {
    timeout(Duration::from_secs(1), state.wait_for(|state| *state == wanted)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn locks_as_rfc_7047_has_them() {
    let (mut stage, mut server) = Stage::ready().await;
    let mut state = stage.handle.lock("l", LockMode::Queue).await;
    let call = server.expect("lock").await;
    assert_eq!(call["params"], json!(["l"]));
    server.answer(&call, &json!({"locked": false})).await;
    server.send(&json!({"id": null, "method": "locked", "params": ["l"]})).await;
    becomes(&mut state, LockState::Held).await;
    // Who has it need not ask again.
    stage.handle.lock("l", LockMode::Steal).await;
    server.send(&json!({"id": null, "method": "stolen", "params": ["l"]})).await;
    becomes(&mut state, LockState::Stolen).await;
    // A place in the queue is given up before stealing: the server wants it so.
    stage.handle.lock("l", LockMode::Steal).await;
    let unlock = server.expect("unlock").await;
    let steal = server.expect("steal").await;
    server.answer(&unlock, &json!({})).await;
    server.answer(&steal, &json!({"locked": true})).await;
    becomes(&mut state, LockState::Held).await;
    drop(server);
    becomes(&mut state, LockState::Waiting).await;

    // After a reconnection it is asked for politely, before anything else.
    let mut server = stage.accept().await;
    let call = server.expect("lock").await;
    server.answer(&call, &json!({"locked": true})).await;
    becomes(&mut state, LockState::Held).await;
    server.begin(&json!({})).await;
    stage.handle.unlock("l").await;
    let unlock = server.expect("unlock").await;
    server.answer(&unlock, &json!({})).await;
    assert!(state.changed().await.is_err(), "nobody tells of it any more");

    let mut state = stage.handle.lock("1", LockMode::Queue).await;
    let call = server.expect("lock").await;
    server.refuse(&call, "syntax error").await;
    becomes(&mut state, LockState::Refused(ServerError { error: "syntax error".into(), details: None })).await;
}
