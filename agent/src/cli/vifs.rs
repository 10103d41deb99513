//! `plug`, `unplug`, `get`: single VIFs and their list. All about one of them is in `describe`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, stream};
use hyper::Method;
use serde::Serialize;
use serde_json::Value;

use super::output::{Cell, Format, Output, mark};
use super::picture::{is_behind, port, standing};
use super::{FAILED, Failure, Get, NOT_IN_TIME, Plug, Unplug, Wait};
use crate::api::body::{Event, HostSummary};
use crate::api::client::{Client, ClientError};
use crate::model::{VifId, cut_name};
use crate::record;
use crate::status::{Phase, VifStatus};

/// Requests at a time. The agent makes those that meet durable together.
pub(super) const AT_ONCE: usize = 32;

/// What became of one VIF of several.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) id: VifId,
    /// `accepted`, what was waited for, or the word of the error.
    pub(super) result: String,
    /// Where the VIF stands; a wait for `plugged` is over in other phases too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<Phase>,
    pub(super) message: String,
}

/// One line for each, and the worst as the exit code.
pub(super) fn report(mut done: Vec<(Done, u8)>, output: &Output) -> Result<(), Failure> {
    done.sort_by_key(|(done, _)| done.id);
    let worst = [super::UNREACHABLE, FAILED, NOT_IN_TIME].into_iter().find(|code| done.iter().any(|(_, c)| c == code));
    let done: Vec<(Done, bool)> = done.into_iter().map(|(done, code)| (done, code == 0)).collect();
    let table = || {
        let mut text = String::new();
        for (done, good) in &done {
            let result = if *good { output.paint.good(&done.result) } else { output.paint.bad(&done.result) };
            let further = done.phase.is_some_and(|phase| phase.name() != done.result);
            let colon = match done.message.is_empty() {
                true => "",
                false if further => "; ",
                false => ": ",
            };
            let _ = writeln!(text, "{} {result}{colon}{}", done.id, done.message);
        }
        text
    };
    let all: Vec<&Done> = done.iter().map(|(done, _)| done).collect();
    output.answer(&all, table)?;
    worst.map_or(Ok(()), |code| Err(Failure::Said(code)))
}

fn failed(id: VifId, error: ClientError) -> (Done, u8) {
    let message = error.to_string();
    // Somebody else's port in the way is no failure of vifd's, and its phase has another name.
    let conflicts = matches!(&error, ClientError::Refused { body, .. } if body.error.code == "conflict");
    let code = Failure::Client(error).exit_code();
    let result = match code {
        _ if conflicts => "conflict",
        NOT_IN_TIME => "not in time",
        super::UNREACHABLE => "not reachable",
        _ => "failed",
    };
    (Done { id, result: result.into(), phase: None, message }, code)
}

/// Counts on standard error while somebody watches and it takes a while.
pub(super) struct Progress {
    verb: &'static str,
    total: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    pub(super) fn new(verb: &'static str, total: usize) -> Progress {
        Progress { verb, total, done: 0, shown: total > 1 && io::stderr().is_terminal() }
    }

    pub(super) fn step(&mut self) {
        self.done += 1;
        if self.shown {
            let end = if self.done == self.total { "\r\u{1b}[K" } else { "" };
            // A progress line that cannot be shown is none.
            let _ = write!(io::stderr(), "\r{} {} of {}{end}", self.verb, self.done, self.total);
            let _ = io::stderr().flush();
        }
    }
}

/// The bytes of a record; `-` is standard input.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    read.map_err(|error| Failure::Other(format!("cannot read {}: {error}", file.display())))
}

/// What to say of a file that cannot be read and may be meant as the state to wait for.
fn mistaken(file: &Path, waits: bool, failure: Failure) -> Failure {
    match file.to_str() {
        Some(state @ ("ready" | "plugged")) if waits => {
            Failure::Other(format!("{failure} (the state to wait for is written --wait={state})"))
        }
        _ => failure,
    }
}

/// A record that is good by itself.
pub(super) struct Given {
    pub(super) id: VifId,
    pub(super) generation: u64,
    /// As it was given.
    pub(super) bytes: Vec<u8>,
}

/// Reads records to hand on: all of them, or, when one is no good, none.
pub(super) fn records(files: &[PathBuf], waits: bool, output: &Output) -> Result<Vec<Given>, Failure> {
    let mut records = Vec::new();
    let mut ids = BTreeSet::new();
    let mut good = true;
    for file in files {
        let bytes = read(file).map_err(|failure| mistaken(file, waits, failure))?;
        match record::decode(&bytes) {
            Ok(record) => {
                for warning in &record.warnings {
                    output.warning(&warning.field, &format!("{}: {warning}", file.display()));
                }
                if !ids.insert(record.vif.id) {
                    good = false;
                    output.error(
                        "invalid_record",
                        "vif.id",
                        &format!("{}: vif.id: is the id of an earlier file", file.display()),
                    );
                }
                records.push(Given { id: record.vif.id, generation: record.vif.generation, bytes });
            }
            Err(refused) => {
                good = false;
                output.error("invalid_record", &refused.field, &format!("{}: {refused}", file.display()));
            }
        }
    }
    if good {
        return Ok(records);
    }
    // Programs have an object for each record that is no good, and need no last word.
    if output.format == Format::Table {
        output.error("invalid_record", "", "nothing was handed in");
    }
    Err(Failure::Said(FAILED))
}

pub(super) async fn plug(client: &Client, plug: Plug, output: &Output) -> Result<(), Failure> {
    let records = records(&plug.files, plug.wait.is_some(), output)?;
    let goal = plug.wait.map(|wait| match wait {
        Wait::Plugged => "plugged",
        Wait::Ready => "ready",
    });
    let waiting = if goal.is_some() { plug.timeout } else { Duration::ZERO };
    let parameters = goal.map_or(String::new(), |goal| format!("?wait={goal}&timeout={}ms", waiting.as_millis()));
    let mut progress = Progress::new("plugged", records.len());
    let mut done = Vec::new();
    let mut answers = stream::iter(records.into_iter().map(|Given { id, bytes, .. }| {
        let target = format!("/v1/vifs/{id}{parameters}");
        async move { (id, client.bytes(Method::PUT, &target, bytes, waiting).await) }
    }))
    .buffer_unordered(AT_ONCE);
    while let Some((id, answer)) = answers.next().await {
        progress.step();
        done.push(match answer {
            Err(error) => failed(id, error),
            Ok(body) => match (goal, serde_json::from_slice::<VifStatus>(&body)) {
                (Some(goal), Ok(vif)) => {
                    (Done { id, result: goal.into(), phase: Some(vif.phase), message: vif.message }, 0)
                }
                _ => (Done { id, result: "accepted".into(), phase: None, message: String::new() }, 0),
            },
        });
    }
    report(done, output)
}

pub(super) async fn unplug(client: &Client, unplug: Unplug, output: &Output) -> Result<(), Failure> {
    let (waiting, parameters) = match unplug.wait {
        true => (unplug.timeout, format!("?wait=gone&timeout={}ms", unplug.timeout.as_millis())),
        false => (Duration::ZERO, String::new()),
    };
    let mut progress = Progress::new("unplugged", unplug.vifs.len());
    let mut done = Vec::new();
    let mut answers = stream::iter(unplug.vifs.into_iter().map(|id| {
        let target = format!("/v1/vifs/{id}{parameters}");
        async move { (id, client.bytes(Method::DELETE, &target, Vec::new(), waiting).await) }
    }))
    .buffer_unordered(AT_ONCE);
    while let Some((id, answer)) = answers.next().await {
        progress.step();
        let result = if unplug.wait { "gone" } else { "accepted" };
        done.push(match answer {
            Err(error) => failed(id, error),
            Ok(_) => (Done { id, result: result.into(), phase: None, message: String::new() }, 0),
        });
    }
    report(done, output)
}

/// The VIF that a word means: its id, the name of its port, of a device or bridge of its own or of its guest, or the
/// beginning of its id.
pub(super) async fn resolve(client: &Client, word: &str) -> Result<VifId, Failure> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let vifs: Vec<VifStatus> = client.get("/v1/vifs").await?;
    let named = |vif: &&VifStatus| is_named(vif, word);
    let guest = |vif: &&VifStatus| vif.instance.as_deref() == Some(word);
    let begins = |vif: &&VifStatus| word.len() >= 4 && vif.id.to_string().starts_with(word);
    let mut found: Vec<&VifStatus> = vifs.iter().filter(named).collect();
    if found.is_empty() {
        found = vifs.iter().filter(guest).collect();
    }
    if found.is_empty() {
        found = vifs.iter().filter(begins).collect();
    }
    if found.is_empty() {
        found = vifs.iter().filter(|vif| vif.facts.linux_bridge.as_deref() == Some(word)).collect();
    }
    match found[..] {
        [vif] => Ok(vif.id),
        [] => Err(Failure::Unknown(format!("no VIF has the id, port, device or guest {word:?}"))),
        _ => {
            let some: String = found.iter().take(4).map(|vif| format!("\n  {}  {}", vif.id, port(vif))).collect();
            let more = if found.len() > 4 { "\n  …" } else { "" };
            Err(Failure::Other(format!("{word:?} may be any of {} VIFs:{some}{more}", found.len())))
        }
    }
}

/// Prefixes of the names that are made of a VIF's id: what the log of the kernel or of Open vSwitch may show of it.
const OWN: [&str; 6] = ["qbr", "qvb", "qvo", "fpb", "fpi", "pb"];

/// Whether something that is the VIF's alone has this name.
fn is_named(vif: &VifStatus, word: &str) -> bool {
    let facts = &vif.facts;
    facts.name().is_some_and(|name| name == word)
        || [&facts.netdev, &facts.guest_device].into_iter().any(|device| device.as_deref() == Some(word))
        || OWN.into_iter().any(|prefix| word.starts_with(prefix) && word == cut_name(prefix, vif.id))
}

/// A query of parameters that are there.
pub(super) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        let _ = write!(text, "{}{name}={}", if text.is_empty() { '?' } else { '&' }, encoded(value));
    }
    text
}

/// A value as it stands in a target.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        // What RFC 3986 (2.3) leaves as it is, and the comma between phases.
        if byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

const HEADER: [&str; 7] = ["", "PORT", "PHASE", "GUEST", "FOR", "ID", "MESSAGE"];

/// The list for people; below it what its marks mean.
fn table(vifs: &[VifStatus], host: &HostSummary, output: &Output) -> String {
    let paused: BTreeSet<VifId> = host.paused_vifs.iter().copied().collect();
    let mut text = output.table(&HEADER, vifs.iter().map(|vif| row(vif, paused.contains(&vif.id))));
    if vifs.iter().any(is_behind) {
        text.push_str("\n* the newest record is refused, the one before it is in force: `vifd describe` says why\n");
    }
    if host.paused {
        text.push_str("\nThe agent is paused: everything is left as it is until `vifd resume`.\n");
    }
    text
}

fn row(vif: &VifStatus, paused: bool) -> Vec<Cell> {
    let age = Duration::from_secs(vif.age(SystemTime::now()).as_secs());
    let age = humantime::format_duration(age).to_string();
    vec![
        Cell::phase(vif.phase, mark(vif.phase)),
        port(vif).into(),
        Cell::phase(vif.phase, &if paused { format!("{} (paused)", standing(vif)) } else { standing(vif) }),
        vif.instance.clone().unwrap_or_default().into(),
        // The two largest units say enough.
        age.split(' ').take(2).collect::<Vec<_>>().join(" ").into(),
        vif.id.to_string().into(),
        vif.message.clone().into(),
    ]
}

pub(super) async fn get(client: &Client, get: Get, output: &Output) -> Result<(), Failure> {
    let id = match &get.vif {
        Some(word) => Some(resolve(client, word).await?.to_string()),
        None => None,
    };
    let phases = get.phase.join(",");
    let filter = [
        ("id", id.as_deref()),
        ("phase", Some(phases.as_str()).filter(|phases| !phases.is_empty())),
        ("bridge", get.bridge.as_deref()),
        ("type", get.kind.as_deref()),
    ];
    if get.watch {
        let target = format!("/v1/vifs{}", query(&[&filter[..], &[("watch", Some("true"))]].concat()));
        return follow(client, &target, output).await;
    }
    // Whoever asks for one VIF gets an object, or is told that there is none.
    let target = id.as_ref().map_or_else(|| format!("/v1/vifs{}", query(&filter)), |id| format!("/v1/vifs/{id}"));
    let answer: Value = client.get(&target).await?;
    let vifs: Vec<VifStatus> = if id.is_some() { vec![typed(&answer)?] } else { typed(&answer)? };
    let host: HostSummary = client.get("/v1/status").await?;
    let filtered = filter.iter().any(|(_, value)| value.is_some());
    output.answer(&answer, || match vifs.is_empty() {
        true if filtered => "No VIF matches.\n".into(),
        true => "No VIFs. `vifd plug FILE` hands one in.\n".into(),
        false => table(&vifs, &host, output),
    })
}

pub(super) fn typed<T: serde::de::DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|error| ClientError::Garbled(error.to_string()).into())
}

/// A line for every change.
async fn follow(client: &Client, target: &str, output: &Output) -> Result<(), Failure> {
    let mut events = client.watch(target).await?;
    while let Some(event) = events.next().await? {
        if output.format != Format::Table {
            let line = match output.format {
                Format::Yaml => serde_yaml_ng::to_string(&event).map(|text| format!("---\n{text}")).ok(),
                _ => serde_json::to_string(&event).map(|text| text + "\n").ok(),
            };
            output.text(&line.unwrap_or_default());
            continue;
        }
        match event {
            Event::Set { vif } => {
                let phase = output.paint.phase(vif.phase, &format!("{} {:8}", mark(vif.phase), standing(&vif)));
                output.text(&format!("{phase} {}  {}  {}\n", vif.id, port(&vif), vif.message));
            }
            Event::Unset { id } => output.text(&format!("- {:8} {id}\n", "gone")),
            Event::Listed => {}
        }
    }
    Err(Failure::Other("the agent ended the list".into()))
}

/// All VIFs, for the picture.
pub(super) async fn all(client: &Client) -> Result<Vec<Arc<VifStatus>>, Failure> {
    let vifs: Vec<VifStatus> = client.get("/v1/vifs").await?;
    Ok(vifs.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_vif_is_known_by_what_is_its_alone() {
        let vif: VifStatus = serde_json::from_value(json!({
            "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "type": "bridge", "phase": "ready", "reason": "Ready",
            "message": "", "generation": 0, "observed_generation": 0, "instance": "alice", "addresses": [],
            "conditions": [], "since": "2026-01-01T00:00:00Z",
            "facts": {
                "bridge": "br-int", "port": "qvodc065497-3c", "netdev": "qvodc065497-3c",
                "guest_device": "tapdc065497-3c", "linux_bridge": "qbrdc065497-3c",
            },
        }))
        .unwrap();
        for name in ["qvodc065497-3c", "qvbdc065497-3c", "qbrdc065497-3c", "tapdc065497-3c"] {
            assert!(is_named(&vif, name), "{name}");
        }
        for name in ["br-int", "alice", "qvbdc065497-3", "qvbdc065497-4c", "dc06"] {
            assert!(!is_named(&vif, name), "{name}");
        }
    }

    #[test]
    fn a_conflict_is_called_one() {
        let told = |code: &str| {
            let error = json!({"error": {"code": code, "field": "", "message": "no"}});
            let body = Box::new(serde_json::from_value(error).unwrap());
            let (done, exit) =
                failed(VifId(uuid::Uuid::nil()), ClientError::Refused { status: StatusCode::CONFLICT, body });
            (done.result, exit)
        };
        assert_eq!(told("conflict"), ("conflict".to_owned(), FAILED));
        assert_eq!(told("failed"), ("failed".to_owned(), FAILED));
    }

    #[test]
    fn queries_have_what_is_there_and_escape_it() {
        assert_eq!(query(&[("phase", None)]), "");
        assert_eq!(query(&[("a", Some("x,y")), ("b", None), ("c", Some("br int&é"))]), "?a=x,y&c=br%20int%26%C3%A9");
    }
}
