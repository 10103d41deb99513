//! `queue get|watch|status`: what is wanted of hosts, and what they tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use humantime::{format_duration, format_rfc3339_millis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::following::{Change, Following};
use super::{HOSTS, RECORDS, STATUSES};
use crate::cli::output::{Cell, Format, Output, mark};
use crate::cli::picture::{port, standing};
use crate::cli::{FAILED, Failure};
use crate::model::VifId;
use crate::queue::{Entry, HostToken, Key, Queue};
use crate::status::{Phase, VifStatus};

/// A host that has missed this many heartbeats is silent.
const MISSED: u32 = 3;
/// How often a host is heard of that does not say.
const HEARTBEAT: u64 = 30;

/// What the queue has of one VIF.
#[derive(Clone, Debug, Serialize)]
struct Held {
    host: String,
    id: VifId,
    /// Of the record, for `put --revision`; none when only a status is left.
    revision: Option<u64>,
    /// When the record was written, by the server's clock.
    written_at: Option<String>,
    record: Option<Value>,
    status: Option<Value>,
}

impl Held {
    fn of(key: &Key, record: Option<&Entry>, status: Option<&Entry>) -> Held {
        Held {
            host: key.host.host(),
            id: key.vif,
            revision: record.map(|entry| entry.revision),
            written_at: record.map(|entry| format_rfc3339_millis(entry.written_at).to_string()),
            record: record.map(value),
            status: status.map(value),
        }
    }

    fn row(&self) -> Vec<Cell> {
        let told = self.status.as_ref().and_then(|status| VifStatus::deserialize(status).ok());
        let revision = self.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string());
        let id = self.id.to_string();
        let Some(vif) = told else {
            let word = if self.status.is_some() {
                "the host tells what is no status"
            } else {
                "the host has told nothing of it"
            };
            return ["?".into(), String::new(), "unknown".into(), String::new(), revision, id, word.into()]
                .map(Cell::from)
                .into();
        };
        let left = if self.revision.is_some() { "" } else { "its record is deleted; " };
        vec![
            Cell::phase(vif.phase, mark(vif.phase)),
            port(&vif).into(),
            Cell::phase(vif.phase, &standing(&vif)),
            vif.instance.clone().unwrap_or_default().into(),
            revision.into(),
            id.into(),
            format!("{left}{}", vif.message).into(),
        ]
    }
}

/// A value as it is, or its text where it is no JSON.
fn value(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.value).unwrap_or_else(|_| String::from_utf8_lossy(&entry.value).into())
}

const HELD: [&str; 7] = ["", "PORT", "PHASE", "GUEST", "REVISION", "ID", "MESSAGE"];

pub(super) async fn get(queue: &Queue, host: &HostToken, vif: Option<VifId>, output: &Output) -> Result<(), Failure> {
    let filter = vif.map_or_else(|| host.keys(), |vif| Key { host: host.clone(), vif }.to_string());
    let records = Following::begin(queue.bucket(RECORDS), &filter).await?.list().await?;
    let statuses = Following::begin(queue.bucket(STATUSES), &filter).await?.list().await?;
    let keys: BTreeSet<&String> = records.keys().chain(statuses.keys()).collect();
    let held: Vec<Held> = keys
        .into_iter()
        .filter_map(|key| Some(Held::of(&key.parse().ok()?, records.get(key), statuses.get(key))))
        .collect();
    let name = host.host();
    let Some(vif) = vif else {
        return output.answer(&held, || match held.is_empty() {
            true => format!("{name} has no VIFs. `vifd queue put {name} FILE` writes a record.\n"),
            false => output.table(&HELD, held.iter().map(Held::row)),
        });
    };
    let Some(one) = held.first() else {
        return Err(Failure::Unknown(format!("{name} has no VIF {vif} in the queue")));
    };
    output.answer(one, || {
        let record = one.record.as_ref().map(|record| format!("\n{record:#}\n")).unwrap_or_default();
        output.table(&HELD, [one.row()]) + &record
    })
}

/// A line of `watch`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    /// A record was written.
    Record { host: String, id: VifId, revision: u64, record: Value },
    /// A record was deleted.
    RecordDeleted { host: String, id: VifId },
    /// A host tells how a VIF is.
    Status { host: String, id: VifId, revision: u64, status: Value },
    /// A host tells nothing of a VIF any more.
    StatusDeleted { host: String, id: VifId },
    /// What there is was told; changes follow.
    Listed,
}

impl Line {
    fn of(change: Change, of_status: bool) -> Option<Line> {
        match change {
            Change::Set(entry) => {
                let (Key { host, vif: id }, revision) = (entry.key.parse().ok()?, entry.revision);
                let (host, value) = (host.host(), value(&entry));
                Some(match of_status {
                    true => Line::Status { host, id, revision, status: value },
                    false => Line::Record { host, id, revision, record: value },
                })
            }
            Change::Gone(key) => {
                let Key { host, vif: id } = key.parse().ok()?;
                let host = host.host();
                Some(if of_status { Line::StatusDeleted { host, id } } else { Line::RecordDeleted { host, id } })
            }
            Change::Listed => None,
        }
    }

    fn text(&self, output: &Output) -> String {
        match self {
            Line::Record { host, id, revision, .. } => format!("+ {:8} {host}  {id}  revision {revision}\n", "record"),
            Line::RecordDeleted { host, id } => format!("- {:8} {host}  {id}  its record is deleted\n", "record"),
            Line::StatusDeleted { host, id } => format!("- {:8} {host}  {id}\n", "gone"),
            Line::Status { host, id, status, .. } => match VifStatus::deserialize(status) {
                Ok(vif) => {
                    let phase = output.paint.phase(vif.phase, &format!("{} {:8}", mark(vif.phase), standing(&vif)));
                    format!("{phase} {host}  {id}  {}  {}\n", port(&vif), vif.message)
                }
                Err(error) => format!("? {:8} {host}  {id}  no status: {error}\n", "unknown"),
            },
            Line::Listed => String::new(),
        }
    }
}

pub(super) async fn watch(queue: &Queue, host: Option<&HostToken>, output: &Output) -> Result<(), Failure> {
    let filter = host.map_or_else(|| ">".to_owned(), HostToken::keys);
    let mut records = Following::begin(queue.bucket(RECORDS), &filter).await?;
    let mut statuses = Following::begin(queue.bucket(STATUSES), &filter).await?;
    let mut lists = 2;
    loop {
        let (change, of_status) = tokio::select! {
            change = records.next() => (change?, false),
            change = statuses.next() => (change?, true),
        };
        let line = if change == Change::Listed {
            lists -= 1;
            (lists == 0).then_some(Line::Listed)
        } else {
            Line::of(change, of_status)
        };
        let Some(line) = line else { continue };
        output.text(&match output.format {
            Format::Table => line.text(output),
            Format::Yaml => serde_yaml_ng::to_string(&line).map(|text| format!("---\n{text}")).unwrap_or_default(),
            Format::Json => serde_json::to_string(&line).map(|text| text + "\n").unwrap_or_default(),
        });
    }
}

/// What a host tells of itself.
#[derive(Clone, Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    version: String,
    /// How often it writes this, at the latest.
    #[serde(default)]
    heartbeat_seconds: u64,
    /// Whether it has read all its records.
    #[serde(default)]
    synced: bool,
    /// A sentence on what is wrong with the host; empty when nothing is.
    #[serde(default)]
    problem: String,
    /// VIFs by phase.
    #[serde(default)]
    counts: BTreeMap<String, u64>,
}

/// One host of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct HostLine {
    host: String,
    version: String,
    /// VIFs that are ready.
    ready: u64,
    /// Records that it has.
    total: u64,
    /// VIFs that failed or are in conflict.
    failed: u64,
    /// Since it was heard of; none when it never was.
    heartbeat_age_seconds: Option<u64>,
    silent: bool,
    /// A sentence; empty when nothing is wrong.
    problem: String,
}

impl HostLine {
    /// `age`: since its summary was written.
    fn of(host: String, total: u64, summary: Option<(Result<Summary, String>, Duration)>) -> HostLine {
        let mut line = HostLine {
            host,
            version: String::new(),
            ready: 0,
            total,
            failed: 0,
            heartbeat_age_seconds: None,
            silent: true,
            problem: "never heard of".into(),
        };
        let Some((summary, age)) = summary else { return line };
        line.heartbeat_age_seconds = Some(age.as_secs());
        let summary = match summary {
            Ok(summary) => summary,
            Err(error) => {
                line.silent = false;
                line.problem = format!("tells what is no summary: {error}");
                return line;
            }
        };
        let count = |phases: &[Phase]| phases.iter().filter_map(|phase| summary.counts.get(phase.name())).sum();
        line.ready = count(&[Phase::Ready]);
        line.failed = count(&[Phase::Failed, Phase::Conflict]);
        let heartbeat = if summary.heartbeat_seconds == 0 { HEARTBEAT } else { summary.heartbeat_seconds };
        line.silent = age > Duration::from_secs(heartbeat).saturating_mul(MISSED);
        line.problem = match (line.silent, summary.problem.is_empty(), summary.synced) {
            (true, _, _) => format!("silent for {}", words(age)),
            (false, false, _) => summary.problem,
            (false, true, false) => "has not read all its records yet".into(),
            (false, true, true) => String::new(),
        };
        line.version = summary.version;
        line
    }

    fn is_well(&self) -> bool {
        !self.silent && self.failed == 0 && self.problem.is_empty()
    }

    fn row(&self) -> Vec<Cell> {
        let sign = if self.is_well() { Phase::Ready } else { Phase::Failed };
        let heard =
            self.heartbeat_age_seconds.map_or_else(|| "never".to_owned(), |age| words(Duration::from_secs(age)));
        vec![
            Cell::phase(sign, mark(sign)),
            self.host.clone().into(),
            format!("{}/{}", self.ready, self.total).into(),
            self.failed.to_string().into(),
            heard.into(),
            self.problem.clone().into(),
        ]
    }
}

/// A time in its two largest units.
fn words(time: Duration) -> String {
    let text = format_duration(Duration::from_secs(time.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The hosts that have records or were heard of, those that need somebody first.
fn lines<'e>(
    records: impl Iterator<Item = &'e String>,
    summaries: &BTreeMap<String, Entry>,
    now: SystemTime,
) -> Vec<HostLine> {
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for host in records.filter_map(|key| key.parse::<Key>().ok()).map(|key| key.host.host()) {
        *totals.entry(host).or_default() += 1;
    }
    let mut told = BTreeMap::new();
    for (key, entry) in summaries {
        let Ok(token) = key.parse::<HostToken>() else { continue };
        let age = now.duration_since(entry.written_at).unwrap_or_default();
        let summary = serde_json::from_slice(&entry.value).map_err(|error| error.to_string());
        totals.entry(token.host()).or_default();
        told.insert(token.host(), (summary, age));
    }
    let mut lines: Vec<HostLine> = totals
        .into_iter()
        .map(|(host, total)| {
            let summary = told.remove(&host);
            HostLine::of(host, total, summary)
        })
        .collect();
    // In the order of names otherwise: sorting is stable.
    lines.sort_by_key(HostLine::is_well);
    lines
}

const FLEET: [&str; 6] = ["", "HOST", "READY", "FAILED", "HEARD", "PROBLEM"];

fn fleet(lines: &[HostLine], output: &Output) -> String {
    if lines.is_empty() {
        return "No host has records, and none was heard of.\n".into();
    }
    let mut text = output.table(&FLEET, lines.iter().map(HostLine::row));
    let sum = |number: fn(&HostLine) -> u64| lines.iter().map(number).sum::<u64>();
    let well = lines.iter().filter(|line| line.is_well()).count();
    let silent = lines.iter().filter(|line| line.silent).count();
    let (ready, total, failed) = (sum(|line| line.ready), sum(|line| line.total), sum(|line| line.failed));
    let _ = writeln!(
        text,
        "\n{well} of {} hosts are well, {silent} silent; of {total} VIFs {ready} are ready, {failed} failed or in conflict",
        lines.len()
    );
    text
}

pub(super) async fn status(queue: &Queue, output: &Output) -> Result<(), Failure> {
    let summaries = Following::begin(queue.bucket(HOSTS), ">").await?.list().await?;
    let records = Following::begin(queue.bucket(RECORDS), ">").await?.list().await?;
    let lines = lines(records.keys(), &summaries, SystemTime::now());
    output.answer(&lines, || fleet(&lines, output))?;
    if lines.iter().all(HostLine::is_well) { Ok(()) } else { Err(Failure::Said(FAILED)) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::queue::Operation;

    const ID: &str = "dc065497-3c8d-4f44-8fb4-e1d33c16a536";

    fn entry(key: &str, age: u64, value: &Value) -> (String, Entry) {
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
        let value = Bytes::from(value.to_string());
        (key.into(), Entry { key: key.into(), revision: 5, operation: Operation::Put, value, written_at })
    }

    #[test]
    fn the_fleet_shows_those_first_that_need_somebody() {
        let summary = |ready: u64, failed: u64, problem: &str| {
            json!({"host": "h", "agent": "vifd", "version": "0.2.0", "at": "2026-01-01T00:00:00Z",
                   "heartbeat_seconds": 10, "synced": true, "problem": problem,
                   "counts": {"ready": ready, "failed": failed, "waiting": 1}})
        };
        let summaries = BTreeMap::from([
            entry("compute-1", 7, &summary(2, 0, "")),
            entry("compute-2", 7, &summary(1, 1, "")),
            entry("compute-3", 31, &summary(2, 0, "")),
            entry("compute-4_dc2", 30, &summary(0, 0, "ovsdb is away")),
            entry("compute-5", 1, &json!({"heartbeat_seconds": "soon"})),
            entry("compute-7", 1, &json!({"heartbeat_seconds": 10, "counts": {}})),
        ]);
        let key = |host: &str, last: u32| format!("{host}.{}{last}", &ID[..35]);
        let records =
            [key("compute-1", 1), key("compute-1", 2), key("compute-2", 1), key("compute-6", 1), "odd".to_owned()];
        let lines = lines(records.iter(), &summaries, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let text = fleet(&lines, &Output::plain());
        let want = "   HOST           READY  FAILED  HEARD  PROBLEM
✗  compute-2      1/1    1       7s
✗  compute-3      2/0    0       31s    silent for 31s
✗  compute-4.dc2  0/0    0       30s    ovsdb is away
✗  compute-5      0/0    0       1s     tells what is no summary: invalid type: string \"soon\", expected u64 at line 1 column 27
✗  compute-6      0/1    0       never  never heard of
✗  compute-7      0/0    0       1s     has not read all its records yet
✓  compute-1      2/2    0       7s

1 of 7 hosts are well, 2 silent; of 4 VIFs 5 are ready, 1 failed or in conflict
";
        assert_eq!(text, want, "{text}");
        assert_eq!(fleet(&[], &Output::plain()), "No host has records, and none was heard of.\n");
    }

    #[test]
    fn a_vif_shows_what_is_known_of_it() {
        let key = format!("compute-1.{ID}");
        let status = json!({
            "id": ID, "type": "openvswitch", "phase": "ready", "reason": "Ready", "message": "traffic can pass",
            "generation": 1, "observed_generation": 1, "instance": "alice", "conditions": [],
            "since": "2026-01-01T00:00:00Z", "facts": {},
        });
        let (_, record) = entry(&key, 0, &json!({"vif": 1}));
        let (_, status) = entry(&key, 0, &status);
        let row = |record: Option<&Entry>, status: Option<&Entry>| {
            let held = Held::of(&key.parse().unwrap(), record, status);
            Output::plain().table(&HELD, [held.row()]).lines().nth(1).unwrap_or_default().to_owned()
        };
        let id = ID;
        assert_eq!(
            row(Some(&record), None),
            format!("?        unknown         5         {id}  the host has told nothing of it")
        );
        assert!(row(Some(&record), Some(&status)).ends_with(&format!("alice  5         {id}  traffic can pass")));
        assert!(row(None, Some(&status)).contains("its record is deleted; traffic can pass"));
        assert!(row(Some(&record), Some(&record)).ends_with("the host tells what is no status"));
    }

    #[test]
    fn a_change_is_an_object_of_a_line() {
        let (_, written) = entry(&format!("a_b.{ID}"), 0, &json!({"vif": 1}));
        let told = |change, of_status| Line::of(change, of_status).map(|line| serde_json::to_value(&line).unwrap());
        assert_eq!(
            told(Change::Set(written.clone()), false).unwrap(),
            json!({"event": "record", "host": "a.b", "id": ID, "revision": 5, "record": {"vif": 1}})
        );
        assert_eq!(told(Change::Set(written.clone()), true).unwrap()["event"], "status");
        let gone = Change::Gone(written.key.clone());
        assert_eq!(told(gone, false).unwrap(), json!({"event": "record_deleted", "host": "a.b", "id": ID}));
        assert!(told(Change::Gone("odd".into()), true).is_none());
        let line = Line::of(Change::Set(written), true).unwrap().text(&Output::plain());
        assert!(line.starts_with(&format!("? unknown  a.b  {ID}  no status: ")), "{line}");
    }
}
