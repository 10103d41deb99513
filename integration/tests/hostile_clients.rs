//! Clients of the API that mean harm, on the socket and on the metrics port: memory and descriptors stay bounded,
//! everybody else is served, and who is refused is told why.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vifd_integration::lab::{Ovs, Record, Response, Switch, Usage, Vifd, request};

/// What vifd may use in MiB, whatever its clients do.
const MEMORY: u64 = 128;
/// Descriptors: 512 connections, 32 over TCP, its own.
const DESCRIPTORS: usize = 600;
/// Within so long everybody else is served, on a busy machine too. Without a seat nobody would be for a minute.
const SERVED: Duration = Duration::from_secs(20);
/// VIFs whose statuses make a list that no socket's buffer takes.
const VIFS: u32 = 400;

struct Stage {
    vifd: Vifd,
    /// Goes last.
    ovs: Ovs,
}

impl Stage {
    /// A vifd with many VIFs that are known and wait for a bridge: nothing but their statuses is needed.
    fn new(vifs: u32) -> Result<Stage> {
        let ovs = Ovs::start(Switch::Dummy)?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.config.mode = "observe".into();
        for number in 1..=vifs {
            vifd.put(&Record::fixture("openvswitch-create-tap")?.numbered(number))?;
        }
        vifd.start()?;
        vifd.until("all are known", |vifd| Ok((vifd.statuses()?.len() == vifs as usize).then_some(())))?;
        Ok(Stage { vifd, ovs })
    }

    fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.vifd.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// Sends bytes and reads the whole answer.
    fn raw(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.connect()?;
        // Who is refused early is not listened to any further.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What anybody else sees, and what the process uses.
    fn check(&mut self, what: &str) -> Result<()> {
        for target in ["/healthz", "/v1/status", "/v1/host-info"] {
            let begun = Instant::now();
            let answer = self.vifd.api("GET", target, None).with_context(|| format!("{what}: {target}"))?;
            ensure!(answer.status == 200, "{what}: {target} is answered with {} {}", answer.status, answer.body);
            ensure!(begun.elapsed() < SERVED, "{what}: {target} took {:?}", begun.elapsed());
        }
        let usage = Usage::of(self.vifd.daemon().context("vifd")?.pid())?;
        println!("{what}: {} MiB at most, {} descriptors", usage.peak >> 10, usage.descriptors);
        ensure!(usage.peak <= MEMORY << 10, "{what}: {} MiB", usage.peak >> 10);
        ensure!(usage.descriptors <= DESCRIPTORS, "{what}: {} descriptors", usage.descriptors);
        Ok(())
    }
}

/// The word of an error.
fn code(answer: &str) -> Option<String> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    Some(body["error"]["code"].as_str()?.to_owned())
}

/// Reads until a word has come.
fn read_until(stream: &mut UnixStream, word: &str) -> Result<()> {
    let mut seen = String::new();
    let mut buffer = [0; 65536];
    while !seen.contains(word) {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the stream ended before {word}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    Ok(())
}

#[test]
fn connections_without_end() -> Result<()> {
    let mut stage = Stage::new(1)?;
    // Connections that say nothing, half a head, a head whose body does not come.
    for (what, says) in [("silent connections", &b""[..]), ("half heads", b"GET /v1/vifs HTTP/1.1\r\nx: ")] {
        let mut held = Vec::new();
        for _ in 0..1500 {
            let mut stream = stage.connect()?;
            // One that was closed for the next one's sake cannot be written to.
            let _ = stream.write_all(says);
            held.push(stream);
        }
        stage.check(what)?;
    }
    let head = b"PUT /v1/vifs/dc065497-3c8d-4f44-8fb4-e1d33c16a536 HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{";
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = stage.connect()?;
        stream.write_all(head)?;
        held.push(stream);
    }
    stage.check("bodies that do not come")?;
    let mut answers = Vec::new();
    for stream in &mut held {
        let mut buffer = [0; 1000];
        let read = stream.read(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..read]);
        answers.push(code(&answer).with_context(|| format!("{answer:?}"))?);
    }
    let count = |word: &str| answers.iter().filter(|code| *code == word).count();
    ensure!(count("too_slow") == 256 && count("unavailable") == 44, "{answers:?}");
    Ok(())
}

#[test]
fn requests_that_are_too_much() -> Result<()> {
    let mut stage = Stage::new(1)?;
    let put = "PUT /v1/vifs/dc065497-3c8d-4f44-8fb4-e1d33c16a536 HTTP/1.1\r\nhost: x\r\n";
    let chunks = format!(
        "{put}transfer-encoding: chunked\r\n\r\n{}",
        format!("10000\r\n{}\r\n", "x".repeat(65536)).repeat(1000)
    );
    let answer = stage.raw(chunks.as_bytes())?;
    ensure!(answer.starts_with("HTTP/1.1 413 ") && code(&answer).as_deref() == Some("too_large"), "{answer}");
    let long = format!("{put}content-length: 99999999999\r\n\r\n{}", "x".repeat(4 << 20));
    let answer = stage.raw(long.as_bytes())?;
    ensure!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    stage.check("bodies without end")?;

    let mut fields = String::new();
    for number in 0..200 {
        write!(fields, "x-{number}: y\r\n")?;
    }
    for (what, head) in [
        ("many fields", format!("GET /healthz HTTP/1.1\r\n{fields}\r\n")),
        ("a long field", format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20))),
        ("a long target", format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(1 << 20))),
    ] {
        let answer = stage.raw(head.as_bytes())?;
        let refused = ["HTTP/1.1 431 ", "HTTP/1.1 414 "].iter().any(|status| answer.starts_with(status));
        // A client that goes on talking may not get to hear it.
        ensure!(refused || answer.is_empty(), "{what}: {answer}");
    }
    let query = format!("GET /v1/vifs?bridge={} HTTP/1.1\r\nconnection: close\r\n\r\n", "y".repeat(60_000));
    ensure!(stage.raw(query.as_bytes())?.starts_with("HTTP/1.1 200 "));
    for junk in [&b"\x16\x03\x01\0\0"[..], b"\0\0\0\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n"] {
        let answer = stage.raw(junk)?;
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    stage.check("heads and junk")
}

#[test]
fn clients_that_do_not_read() -> Result<()> {
    let mut stage = Stage::new(VIFS)?;
    let mut before = stage.connect()?;
    before.write_all(b"GET /v1/vifs?watch=true HTTP/1.1\r\nhost: x\r\n\r\n")?;
    read_until(&mut before, "\"listed\"")?;
    let mut held = Vec::new();
    let mut refused = 0;
    for number in 0..2000 {
        let mut stream = stage.connect()?;
        let target = ["/v1/vifs?watch=true", "/v1/vifs", "/metrics", "/v1/plan"][number % 4];
        stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
        if number % 4 < 2 && number > 1200 {
            let mut start = [0; 12];
            stream.read_exact(&mut start)?;
            refused += usize::from(&start == b"HTTP/1.1 503");
        }
        held.push(stream);
    }
    ensure!(refused > 300, "{refused} were refused");
    stage.check("watchers that do not read")?;
    // Who watched before goes on watching.
    let late = Record::fixture("openvswitch-create-tap")?.numbered(VIFS + 1);
    stage.vifd.put(&late)?;
    read_until(&mut before, &late.id())?;
    drop(held);

    // Requests one behind the other, whose answers nobody reads.
    let mut pipes = Vec::new();
    for _ in 0..20 {
        let mut stream = stage.connect()?;
        stream.set_write_timeout(Some(Duration::from_millis(100)))?;
        let many = "GET /v1/host-info HTTP/1.1\r\nhost: x\r\n\r\n".repeat(10_000);
        // It is not taken any more at some point: that is the point.
        let _ = stream.write_all(many.as_bytes());
        pipes.push(stream);
    }
    stage.check("pipelines")
}

#[test]
fn the_metrics_port() -> Result<()> {
    let mut stage = Stage::new(VIFS)?;
    let address = stage.vifd.metrics_listen().to_owned();
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    };
    let scrape = || -> Result<Response> { request(connect()?, "GET", "/metrics", None) };
    stage.ovs.namespace().enter(|| {
        let mut held = Vec::new();
        for number in 0..600 {
            let mut stream = connect()?;
            if number % 2 == 0 {
                // One that had to go cannot be written to.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ");
            }
            held.push(stream);
        }
        let answer = scrape()?;
        ensure!(answer.status == 200, "{}", answer.status);
        ensure!(answer.body.contains("vifd_build_info"), "{:.500}", answer.body);
        Ok(())
    })?;
    stage.check("a flood of the metrics port")?;
    stage.ovs.namespace().enter(|| {
        let mut held = Vec::new();
        for _ in 0..32 {
            let mut stream = connect()?;
            stream.write_all("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100).as_bytes())?;
            held.push(stream);
        }
        thread::sleep(Duration::from_millis(100));
        let answer = scrape()?;
        ensure!(answer.status == 200, "{}", answer.status);
        // What is not a metric or a probe is not there.
        ensure!(request(connect()?, "GET", "/v1/vifs", None)?.status == 404);
        Ok(())
    })?;
    stage.check("unread answers of the metrics port")
}
