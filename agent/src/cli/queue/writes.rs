//! `queue put|delete|drain`: writing to the queue, and waiting until the host tells that it is done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::following::{Change, Following};
use super::{Delete, Drain, Put, RECORDS, STATUSES, is_unreachable};
use crate::cli::output::{Format, Output};
use crate::cli::picture::is_behind;
use crate::cli::vifs::{AT_ONCE, Done, Progress, records, report};
use crate::cli::{FAILED, Failure, NOT_IN_TIME, UNREACHABLE, Wait};
use crate::model::VifId;
use crate::queue::{Bucket, Entry, HostToken, Key, Operation, Queue, QueueError};
use crate::record;
use crate::status::{ConditionKind, Phase, Truth, VifStatus};

fn key(host: &HostToken, vif: VifId) -> String {
    Key { host: host.clone(), vif }.to_string()
}

/// The VIF of a key of the host.
fn vif_of(key: &str) -> Option<VifId> {
    key.parse::<Key>().ok().map(|key| key.vif)
}

fn failed(id: VifId, error: &QueueError) -> (Done, u8) {
    let (result, code) = match error {
        QueueError::WrongRevision { .. } => ("wrong revision", FAILED),
        error if is_unreachable(error) => ("not reachable", UNREACHABLE),
        _ => ("failed", FAILED),
    };
    (Done { id, result: result.into(), phase: None, message: error.to_string() }, code)
}

fn good(id: VifId, result: &str) -> (Done, u8) {
    (Done { id, result: result.into(), phase: None, message: String::new() }, 0)
}

/// A queue that does not answer is asked no more: each question would take its time.
#[derive(Debug, Default)]
struct Away(RefCell<Option<QueueError>>);

impl Away {
    fn check(&self) -> Result<(), QueueError> {
        self.0.borrow().clone().map_or(Ok(()), Err)
    }

    fn note(&self, error: QueueError) -> QueueError {
        if is_unreachable(&error) {
            *self.0.borrow_mut() = Some(error.clone());
        }
        error
    }
}

/// What is waited for of one VIF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// Of its record.
    generation: u64,
    /// Revision of the status that is of an earlier record, although that had the same generation.
    stale: Option<u64>,
}

impl Wanted {
    /// `before`: the record that this one takes the place of. `standing`: revision of the status that was there already.
    fn of(value: &[u8], generation: u64, before: Option<&Entry>, standing: Option<u64>) -> Wanted {
        let before = before.filter(|entry| entry.operation == Operation::Put);
        let same = before.is_some_and(|entry| entry.value == value);
        let told_apart = before
            .and_then(|entry| record::decode(&entry.value).ok())
            .is_some_and(|earlier| earlier.vif.generation != generation);
        Wanted { generation, stale: standing.filter(|_| !same && !told_apart) }
    }

    /// Whether the wait is over, and how: the result and the exit code. `revision` is the status' own.
    fn judge(self, goal: Wait, revision: u64, vif: &VifStatus) -> Option<(Done, u8)> {
        if vif.generation != self.generation || self.stale == Some(revision) {
            return None;
        }
        let done = |result: &str, message: &str, code| {
            Some((Done { id: vif.id, result: result.into(), phase: Some(vif.phase), message: message.into() }, code))
        };
        if is_behind(vif) {
            let why = vif.condition(ConditionKind::Accepted).map_or("", |accepted| &accepted.message);
            return done("failed", &format!("the host refuses this record: {why}"), FAILED);
        }
        match (vif.phase, goal) {
            (Phase::Failed, _) => done("failed", &vif.message, FAILED),
            (Phase::Conflict, _) => done("conflict", &vif.message, FAILED),
            (Phase::Removing, _) => None,
            (Phase::Ready, Wait::Ready) => done("ready", &vif.message, 0),
            (_, Wait::Ready) => None,
            (_, Wait::Plugged) => {
                let plugged = vif.condition(ConditionKind::Plugged);
                plugged
                    .is_some_and(|plugged| plugged.status == Truth::True)
                    .then(|| done("plugged", &vif.message, 0))
                    .flatten()
            }
        }
    }
}

fn status(entry: &Entry) -> Option<VifStatus> {
    serde_json::from_slice(&entry.value).ok()
}

pub(super) async fn put(queue: &Queue, put: Put, output: &Output) -> Result<(), Failure> {
    let records = records(&put.files, put.wait.is_some(), output)?;
    // Before anything is written: what is told while it is written must not be missed.
    let mut waiting = match put.wait {
        Some(goal) => {
            let mut statuses = Following::begin(queue.bucket(STATUSES), &put.host.keys()).await?;
            let standing = statuses.list().await?;
            Some((goal, statuses, standing))
        }
        None => None,
    };
    let bucket = queue.bucket(RECORDS);
    let away = Away::default();
    let mut progress = Progress::new("written", records.len());
    let (mut done, mut wanted) = (Vec::new(), BTreeMap::new());
    let mut answers = stream::iter(records.into_iter().map(|record| {
        let key = key(&put.host, record.id);
        let (bucket, away, waits) = (&bucket, &away, put.wait.is_some());
        async move {
            let value = Bytes::from(record.bytes);
            let written = async {
                away.check()?;
                let before = if waits { bucket.get(&key).await? } else { None };
                match put.revision {
                    Some(revision) => bucket.update(&key, value.clone(), revision).await?,
                    None => bucket.put(&key, value.clone()).await?,
                };
                Ok(before)
            };
            let written = written.await.map_err(|error| away.note(error));
            (key, record.id, record.generation, value, written)
        }
    }))
    .buffer_unordered(AT_ONCE);
    while let Some((key, id, generation, value, written)) = answers.next().await {
        progress.step();
        match (written, &waiting) {
            (Err(error), _) => done.push(failed(id, &error)),
            (Ok(_), None) => done.push(good(id, "written")),
            (Ok(before), Some((_, _, standing))) => {
                let standing = standing.get(&key).map(|entry| entry.revision);
                wanted.insert(id, Wanted::of(&value, generation, before.as_ref(), standing));
            }
        }
    }
    drop(answers);
    if let Some((goal, statuses, standing)) = &mut waiting {
        done.extend(wait_for(*goal, wanted, statuses, standing, put.timeout).await?);
    }
    report(done, output)
}

/// Waits until the host has told of each VIF that it is so, or cannot be.
async fn wait_for(
    goal: Wait,
    mut wanted: BTreeMap<VifId, Wanted>,
    statuses: &mut Following,
    told: &mut BTreeMap<String, Entry>,
    time: Duration,
) -> Result<Vec<(Done, u8)>, Failure> {
    let deadline = Instant::now() + time;
    let mut last: BTreeMap<VifId, VifStatus> = BTreeMap::new();
    let mut done = Vec::new();
    let mut progress = Progress::new(
        match goal {
            Wait::Plugged => "plugged",
            Wait::Ready => "ready",
        },
        wanted.len(),
    );
    let mut consider = |entry: &Entry, wanted: &mut BTreeMap<VifId, Wanted>| {
        let Some((id, vif)) = vif_of(&entry.key).zip(status(entry)) else { return };
        if let Some(end) = wanted.get(&id).and_then(|wanted| wanted.judge(goal, entry.revision, &vif)) {
            wanted.remove(&id);
            done.push(end);
            progress.step();
        }
        last.insert(id, vif);
    };
    std::mem::take(told).values().for_each(|entry| consider(entry, &mut wanted));
    while !wanted.is_empty() {
        match timeout_at(deadline, statuses.next()).await {
            Ok(Ok(Change::Set(entry))) => consider(&entry, &mut wanted),
            Ok(Ok(Change::Gone(_) | Change::Listed)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => break,
        }
    }
    for (id, wanted) in wanted {
        let (phase, message) = match last.get(&id) {
            Some(vif) if vif.generation == wanted.generation && wanted.stale.is_none() => {
                (Some(vif.phase), format!("it is {}: {}", vif.phase, vif.message))
            }
            Some(vif) => {
                (Some(vif.phase), "the host has told nothing of this record yet, only of an earlier one".into())
            }
            None => (None, "the host has told nothing of it; `vifd queue status` shows when it was heard of".into()),
        };
        done.push((Done { id, result: "not in time".into(), phase, message }, NOT_IN_TIME));
    }
    Ok(done)
}

pub(super) async fn delete(queue: &Queue, delete: Delete, output: &Output) -> Result<(), Failure> {
    let time = delete.wait.then_some(delete.timeout);
    remove(queue, &delete.host, delete.vifs, time, output).await
}

pub(super) async fn drain(queue: &Queue, drain: Drain, output: &Output) -> Result<(), Failure> {
    let entries = Following::begin(queue.bucket(RECORDS), &drain.host.keys()).await?.list().await?;
    let mut vifs = Vec::new();
    for key in entries.keys() {
        match vif_of(key) {
            Some(id) => vifs.push(id),
            None => output.warning("", &format!("{key} is no key of a VIF and stays")),
        }
    }
    let host = drain.host.host();
    if vifs.is_empty() {
        return output.answer(&Vec::<Done>::new(), || format!("{host} has no records in the queue.\n"));
    }
    if !drain.yes {
        confirm(&format!("all {} VIFs of {host}", vifs.len()))?;
    } else if output.format == Format::Table {
        eprintln!("deleting all {} VIFs of {host}", vifs.len());
    }
    remove(queue, &drain.host, vifs, Some(drain.timeout), output).await
}

/// Asks whoever sits there.
fn confirm(what: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Other(format!(
            "this deletes {what}, and the host unplugs them. Say --yes if that is meant"
        )));
    }
    eprint!("Delete {what}? The host unplugs them. [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::Other("nothing was deleted".into())),
    }
}

/// Deletes records; with a time, waits until the host tells nothing of them any more.
async fn remove(
    queue: &Queue,
    host: &HostToken,
    vifs: Vec<VifId>,
    time: Option<Duration>,
    output: &Output,
) -> Result<(), Failure> {
    let mut statuses = match time {
        Some(_) => Some(Following::begin(queue.bucket(STATUSES), &host.keys()).await?),
        None => None,
    };
    let bucket = queue.bucket(RECORDS);
    let away = Away::default();
    let mut progress = Progress::new("deleted", vifs.len());
    let (mut done, mut leaving) = (Vec::new(), Vec::new());
    let mut answers = stream::iter(vifs.into_iter().map(|id| {
        let (bucket, away) = (&bucket, &away);
        async move {
            let deleted = async {
                away.check()?;
                delete_one(bucket, &key(host, id)).await
            };
            (id, deleted.await.map_err(|error| away.note(error)))
        }
    }))
    .buffer_unordered(AT_ONCE);
    while let Some((id, deleted)) = answers.next().await {
        progress.step();
        match deleted {
            Err(error) => done.push(failed(id, &error)),
            Ok(false) => {
                let message = format!("{} has no such record in the queue", host.host());
                done.push((Done { id, result: "failed".into(), phase: None, message }, FAILED));
            }
            Ok(true) if time.is_some() => leaving.push(id),
            Ok(true) => done.push(good(id, "deleted")),
        }
    }
    drop(answers);
    if let (Some(time), Some(statuses)) = (time, &mut statuses) {
        done.extend(wait_until_gone(leaving, statuses, time).await?);
    }
    report(done, output)
}

/// Answers whether there was something to delete.
async fn delete_one(bucket: &Bucket, key: &str) -> Result<bool, QueueError> {
    let there = bucket.get(key).await?.is_some_and(|entry| entry.operation == Operation::Put);
    if there {
        bucket.delete(key).await?;
    }
    Ok(there)
}

async fn wait_until_gone(
    vifs: Vec<VifId>,
    statuses: &mut Following,
    time: Duration,
) -> Result<Vec<(Done, u8)>, Failure> {
    let deadline = Instant::now() + time;
    let mut progress = Progress::new("gone", vifs.len());
    let mut told: BTreeMap<VifId, Entry> = BTreeMap::new();
    let (mut left, mut done) = (vifs, Vec::new());
    let mut listed = false;
    while !(listed && left.is_empty()) {
        match timeout_at(deadline, statuses.next()).await {
            Ok(Ok(Change::Set(entry))) => {
                vif_of(&entry.key).map(|id| told.insert(id, entry));
            }
            Ok(Ok(Change::Gone(key))) => {
                vif_of(&key).map(|id| told.remove(&id));
            }
            Ok(Ok(Change::Listed)) => listed = true,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => break,
        }
        if listed {
            left.retain(|id| {
                let stays = told.contains_key(id);
                if !stays {
                    progress.step();
                    done.push(good(*id, "gone"));
                }
                stays
            });
        }
    }
    for id in left {
        let vif = told.get(&id).and_then(status);
        let phase = vif.as_ref().map(|vif| vif.phase);
        let so = vif.map(|vif| format!("it is {}: {}; ", vif.phase, vif.message)).unwrap_or_default();
        let message = format!("{so}where max_removals holds it back, `vifd confirm-removals` on the host lets it go");
        done.push((Done { id, result: "not in time".into(), phase, message }, NOT_IN_TIME));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;

    const ID: &str = "dc065497-3c8d-4f44-8fb4-e1d33c16a536";

    fn vif(phase: &str, generation: u64, accepted: &str, plugged: &str) -> VifStatus {
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": "R", "message": format!("{kind} is {status}"),
                   "since": "2026-01-01T00:00:00Z"})
        };
        serde_json::from_value(json!({
            "id": ID, "type": "openvswitch", "phase": phase, "reason": "R", "message": "so it is",
            "generation": generation, "observed_generation": generation,
            "conditions": [condition("Accepted", accepted), condition("Plugged", plugged)],
            "since": "2026-01-01T00:00:00Z", "facts": {},
        }))
        .unwrap()
    }

    fn judged(wanted: Wanted, goal: Wait, vif: &VifStatus) -> Option<(String, u8)> {
        wanted.judge(goal, 7, vif).map(|(done, code)| (done.result, code))
    }

    #[test]
    fn a_wait_ends_with_what_is_told_of_this_record() {
        let wanted = Wanted { generation: 3, stale: None };
        let cases = [
            (vif("ready", 3, "True", "True"), Some(("ready", 0)), Some(("plugged", 0))),
            (vif("waiting", 3, "True", "True"), None, Some(("plugged", 0))),
            (vif("working", 3, "True", "False"), None, None),
            (vif("removing", 3, "True", "True"), None, None),
            (vif("failed", 3, "False", "False"), Some(("failed", 1)), Some(("failed", 1))),
            (vif("conflict", 3, "True", "False"), Some(("conflict", 1)), Some(("conflict", 1))),
            // The record before it is in force and ready; this one is refused.
            (vif("ready", 3, "False", "True"), Some(("failed", 1)), Some(("failed", 1))),
            (vif("ready", 2, "True", "True"), None, None),
            (vif("failed", 2, "True", "True"), None, None),
        ];
        for (vif, ready, plugged) in cases {
            let owned = |end: Option<(&str, u8)>| end.map(|(result, code)| (result.to_owned(), code));
            assert_eq!(judged(wanted, Wait::Ready, &vif), owned(ready), "{} {}", vif.phase, vif.generation);
            assert_eq!(judged(wanted, Wait::Plugged, &vif), owned(plugged), "{} {}", vif.phase, vif.generation);
        }
        let stale = Wanted { stale: Some(7), ..wanted };
        assert_eq!(judged(stale, Wait::Ready, &vif("ready", 3, "True", "True")), None);
        let newer = Wanted { stale: Some(6), ..wanted };
        assert_eq!(judged(newer, Wait::Ready, &vif("ready", 3, "True", "True")), Some(("ready".into(), 0)));
    }

    #[test]
    fn a_status_is_stale_where_nothing_tells_the_records_apart() {
        let text = |generation: u64| {
            json!({
                "vif": {"type": "openvswitch", "id": ID, "address": "22:52:25:62:e2:aa", "vif_name": "tap1",
                        "network": {"id": "b82c1929-051e-481d-8110-4669916c7915", "bridge": "br-int"},
                        "port_profile": {"type": "openvswitch", "create_port": true}},
                "generation": generation,
            })
            .to_string()
        };
        let entry = |value: &str, operation| Entry {
            key: String::new(),
            revision: 1,
            operation,
            value: Bytes::from(value.to_owned()),
            written_at: SystemTime::UNIX_EPOCH,
        };
        let (three, four) = (text(3), text(4));
        assert_eq!(record::decode(four.as_bytes()).unwrap().vif.generation, 4, "{four}");
        let stale = |before: Option<Entry>| Wanted::of(four.as_bytes(), 4, before.as_ref(), Some(9)).stale;
        assert_eq!(stale(Some(entry(&three, Operation::Put))), None, "another generation");
        assert_eq!(stale(Some(entry(&four, Operation::Put))), None, "the very same record");
        assert_eq!(stale(Some(entry(&format!("{four} "), Operation::Put))), Some(9), "the same generation");
        assert_eq!(stale(Some(entry("", Operation::Delete))), Some(9), "of an earlier life");
        assert_eq!(stale(None), Some(9));
    }

    #[test]
    fn an_error_of_the_queue_has_its_word_and_its_exit_code() {
        let id: VifId = ID.parse().unwrap();
        let told = |error: &QueueError| failed(id, error).1;
        assert_eq!(told(&QueueError::NoAnswer { attempt: "x".into(), hint: None }), UNREACHABLE);
        let wrong = QueueError::WrongRevision { key: "k".into(), expected: 4 };
        let (done, code) = failed(id, &wrong);
        assert_eq!((done.result.as_str(), code), ("wrong revision", FAILED));
        let away = Away::default();
        away.note(wrong);
        assert_eq!(away.check(), Ok(()));
        away.note(QueueError::NoAnswer { attempt: "x".into(), hint: None });
        away.check().unwrap_err();
    }
}
