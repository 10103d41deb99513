//! A server of the database that means harm: memory stays bounded, the API goes on, the status and the log name the
//! server and what is wrong, attempts are few, and with a good server everything is as it should be.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vifd_integration::lab::{Hostile, Mischief, Ovs, Record, Switch, Usage, Vifd, Wire};

/// How long it goes on. Whatever is tried anew without a pause is tried thousands of times by then.
const LONG: Duration = Duration::from_secs(4);
/// How long until it is noticed, at most: silence is borne for 20 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// Attempts in that time, when they come after 0.1, 0.2, 0.4, 0.8, 1.6 s, each shortened by half at most.
const ATTEMPTS: usize = 8;
/// What vifd may use, in MiB, where messages are small.
const SMALL: u64 = 96;
/// The same, with a message as long as is allowed, and what was read ahead of it.
const LARGE: u64 = 320;
/// Bytes of log. A server's own words are among them.
const LOG: u64 = 64 << 10;

struct Case {
    name: &'static str,
    mischief: Mischief,
    /// What the status says of it; nothing where the session bears it for now.
    says: &'static str,
    /// MiB.
    memory: u64,
}

const fn case(name: &'static str, mischief: Mischief, says: &'static str) -> Case {
    Case { name, mischief, says, memory: SMALL }
}

const CASES: &[Case] = &[
    case("nonsense", |mut wire| wire.say("HTTP/1.1 200 OK\r\n\r\n"), "a message begins with byte 0x48"),
    case("hangs-up", hang_up, "closed the connection"),
    case("deep", |wire| repeat(wire, "{\"a\":", "[", 1 << 20), "nests deeper than 100"),
    case("no-end", |wire| repeat(wire, "{\"a\":\"", "x", 100 << 20), "a message exceeds 67108864 bytes").with(LARGE),
    case("values", |wire| repeat(wire, "{\"a\":[0", ",0", 5 << 20), "a message has more than 4194304 values")
        .with(LARGE),
    case("long-error", long_error, "refused its schema of Open_vSwitch: xxx").with(LARGE),
    case("wrong-ids", |wire| chatter(wire, "", "{\"id\":77,\"result\":{},\"error\":null}"), ""),
    case("trickle", |wire| chatter(wire, "{\"a\":\"", "x"), ""),
    case("silence", be_silent, "is silent for"),
    case("poor-schema", without_interfaces, "lacks Interface.name"),
    case("unknown-row", |wire| update(wire, json!({"Port": {ROW: {"delete": null}}})), "which is not there"),
    case(
        "unknown-table",
        |wire| update(wire, json!({"Nonsense": {ROW: {"insert": {}}}})),
        "a table that is not monitored",
    ),
    case(
        "unknown-column",
        |wire| update(wire, json!({"Port": {ROW: {"insert": {"x": 1}}}})),
        "a column that is not monitored",
    ),
    case("rows", rows, "sent more than 262144 rows").with(LARGE),
    case("updates", |wire| flood(wire, &update_text(&json!({}))), ""),
    case("echoes", |wire| flood(wire, ECHO), "has not read"),
    case("no-transactions", without_transactions, ""),
];

impl Case {
    const fn with(self, memory: u64) -> Case {
        Case { memory, ..self }
    }
}

const ROW: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const ECHO: &str = "{\"id\":\"echo\",\"method\":\"echo\",\"params\":[\"0123456789abcdef0123456789abcdef\"]}";

fn update_text(tables: &Value) -> String {
    let transaction = "00000000-0000-0000-0000-000000000000";
    json!({"id": null, "method": "update3", "params": ["replica", transaction, tables]}).to_string()
}

/// Listens until the client hangs up.
fn listen(mut wire: Wire) -> io::Result<()> {
    loop {
        wire.hear()?;
    }
}

fn hang_up(mut wire: Wire) -> io::Result<()> {
    wire.hear()?;
    wire.client.shutdown(Shutdown::Write)?;
    listen(wire)
}

/// Says something, something else so many times, and what may be the end of it.
fn repeat(mut wire: Wire, first: &str, then: &str, times: usize) -> io::Result<()> {
    wire.hear()?;
    wire.say(first)?;
    let piece = then.repeat(4096);
    for _ in 0..times / 4096 {
        wire.say(&piece)?;
    }
    wire.say("]}")?;
    listen(wire)
}

fn long_error(mut wire: Wire) -> io::Result<()> {
    let text = "x".repeat(10 << 20);
    wire.hear()?;
    // The session's calls are numbered from 1, and the first few are the schema and the lock.
    for id in 1..5 {
        wire.say(&json!({"id": id, "error": {"error": text, "details": text}}).to_string())?;
    }
    listen(wire)
}

/// Says something, and something else again and again, with pauses.
fn chatter(mut wire: Wire, first: &str, then: &str) -> io::Result<()> {
    wire.say(first)?;
    loop {
        wire.say(then)?;
        thread::sleep(Duration::from_millis(50));
    }
}

fn be_silent(mut wire: Wire) -> io::Result<()> {
    wire.hear()?;
    thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn without_interfaces(mut wire: Wire) -> io::Result<()> {
    wire.pass_until_contents(
        |_| true,
        |message| {
            if let Some(tables) = message["result"]["tables"].as_object_mut() {
                tables.remove("Interface");
            }
        },
    )
}

fn without_transactions(mut wire: Wire) -> io::Result<()> {
    wire.pass_until_contents(|call| call["method"] != "transact", |_| {})?;
    listen(wire)
}

/// One update, behind the true contents.
#[expect(clippy::needless_pass_by_value, reason = "what a case says is made where it is said")]
fn update(mut wire: Wire, tables: Value) -> io::Result<()> {
    wire.pass_until_contents(|_| true, |_| {})?;
    wire.say(&update_text(&tables))?;
    listen(wire)
}

/// Rows without end, behind the true contents.
fn rows(mut wire: Wire) -> io::Result<()> {
    wire.pass_until_contents(|_| true, |_| {})?;
    for part in 0..30 {
        let row = |row: u32| (format!("{row:08x}-0000-4000-8000-{part:012x}"), json!({"insert": {}}));
        let rows: serde_json::Map<String, Value> = (0..10_000).map(row).collect();
        wire.say(&update_text(&json!({"QoS": rows})))?;
    }
    listen(wire)
}

/// The same again and again behind the true contents, without a pause and without listening.
fn flood(mut wire: Wire, text: &str) -> io::Result<()> {
    wire.pass_until_contents(|_| true, |_| {})?;
    let many = text.repeat(1000);
    loop {
        wire.say(&many)?;
    }
}

#[test]
fn whatever_the_server_does_vifd_bears_it_and_recovers() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let only = std::env::var("ONLY").ok();
    let cases = CASES.iter().enumerate().filter(|(_, case)| only.as_ref().is_none_or(|only| only == case.name));
    let failures: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = cases
            .map(|(number, case)| {
                let ovs = &ovs;
                (case.name, scope.spawn(move || suffer(ovs, number, case)))
            })
            .collect();
        let results = running.into_iter().map(|(name, thread)| (name, thread.join()));
        results
            .filter_map(|(name, result)| match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{name}: {error:#}")),
                Err(_) => Some(format!("{name}: a panic")),
            })
            .collect()
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

fn suffer(ovs: &Ovs, number: usize, case: &Case) -> Result<()> {
    let run = ovs.run_directory();
    let server = Hostile::listen(&run.join(format!("{}.sock", case.name)), &run.join("db.sock"), case.mischief)?;
    let mut vifd = Vifd::beside(ovs)?;
    vifd.config.id = case.name.into();
    vifd.config.metrics = String::new();
    vifd.config.endpoint = Some(server.endpoint());
    let record = Record::fixture("openvswitch-create-tap")?.numbered(1000 + u32::try_from(number)?);
    vifd.put(&record)?;
    let begun = Instant::now();
    vifd.start()?;
    let pid = vifd.daemon().context("vifd")?.pid();
    let mut slowest = Duration::ZERO;
    let mut said = String::new();
    while begun.elapsed() < LONG || (!said.contains(case.says) && begun.elapsed() < PATIENCE) {
        let asked = Instant::now();
        ensure!(vifd.api("GET", "/healthz", None)?.status == 200);
        slowest = slowest.max(asked.elapsed());
        let status: Value = serde_json::from_str(&vifd.api("GET", "/v1/status", None)?.body)?;
        let detail = session(&status)?;
        // What was said once is in the log; the next attempt may be under way.
        if said.is_empty() || detail.contains(case.says) {
            said = detail;
        }
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(said.contains(case.says), "the status says {said:?}");
    ensure!(said.contains(&server.endpoint()), "the status says {said:?}, and not which server");
    let log = fs::read_to_string(vifd.log_file())?;
    if !case.says.is_empty() {
        let line =
            log.lines().find(|line| line.contains(case.says)).with_context(|| format!("the log:\n{log:.2000}"))?;
        ensure!(line.contains(&server.endpoint()), "the log says {line:?}, and not of which server");
    }
    ensure!(log.len() as u64 <= LOG, "{} bytes of log", log.len());
    let attempts = server.connections();
    ensure!(
        attempts <= ATTEMPTS + (begun.elapsed().as_secs() / 4) as usize,
        "{attempts} attempts in {:?}",
        begun.elapsed()
    );
    let usage = Usage::of(pid)?;
    ensure!(usage.peak <= case.memory << 10, "{} MiB at most, {} MiB now", usage.peak >> 10, usage.resident >> 10);
    // A host that is busy with fifteen of these is slow; one that waits for the server does not answer at all.
    ensure!(slowest < Duration::from_secs(5), "an answer took {slowest:?}");
    println!("{}: {attempts} attempts, {} MiB, slowest answer {slowest:?}: {said:.200}", case.name, usage.peak >> 10);

    server.be_good();
    vifd.wait_for(&record.id(), "ready")?;
    Ok(())
}

/// What the status says of the session with the database.
fn session(status: &Value) -> Result<String> {
    let sessions = status["sessions"].as_array().context("sessions")?;
    let ovsdb = sessions.iter().find(|session| session["peer"] == "ovsdb").context("the session")?;
    Ok(ovsdb["detail"].as_str().context("its detail")?.to_owned())
}
