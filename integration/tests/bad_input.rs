//! Promise 8: broken records and bad requests give an error that names the field, and the last good
//! state stands.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vifd_integration::lab::{Host, Ovs, Record, Switch, Vifd};

fn ready() -> Result<(Ovs, Vifd, Record)> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let record = Record::fixture("openvswitch-create-tap")?;
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "ready")?;
    Ok((ovs, vifd, record))
}

fn accepted(status: &Value) -> Option<(&str, String)> {
    let conditions = status["conditions"].as_array()?;
    let one = conditions.iter().find(|one| one["type"] == "Accepted")?;
    Some((one["status"].as_str()?, one["message"].to_string()))
}

#[test]
fn the_last_good_record_stays_in_force() -> Result<()> {
    let (ovs, mut vifd, record) = ready()?;
    let id = record.id();
    let host = Host::observe(&ovs)?;
    let cases = [
        ("address", record.clone().with("address", "not a MAC")),
        ("vif_name", record.clone().with("vif_name", "a-name-of-more-than-15-bytes")),
        ("mtu", record.clone().with_network("mtu", "large")),
        ("interface_id", record.clone().with_profile("interface_id", 7)),
    ];
    for (field, bad) in cases {
        vifd.put(&bad)?;
        let status = vifd.wait_until(&id, "its error", |status| {
            accepted(status).is_some_and(|(accepted, message)| accepted == "False" && message.contains(field))
        })?;
        assert_eq!(status["phase"], "ready", "the last good record's: {status}");
        assert_eq!(Host::observe(&ovs)?, host, "after a bad {field}");
        vifd.put(&record)?;
        vifd.wait_until(&id, "accepted again", |status| {
            accepted(status).is_some_and(|(accepted, _)| accepted == "True")
        })?;
    }
    // A file that is not JSON any more.
    vifd.put_text(&id, &record.0.to_string()[..200])?;
    vifd.wait_until(&id, "its error", |status| accepted(status).is_some_and(|(accepted, _)| accepted == "False"))?;
    assert_eq!(Host::observe(&ovs)?, host);
    // The broken file is there at the next start too, and what it once said is on the host.
    vifd.stop()?;
    vifd.start()?;
    vifd.until("vifd has looked at everything", |vifd| {
        Ok((vifd.metric("vifd_plan_seconds_count", "")? > 0.0).then_some(()))
    })?;
    assert_eq!(Host::observe(&ovs)?, host, "a broken file is no absence");
    Ok(())
}

#[test]
fn others_carry_on_beside_bad_records() -> Result<()> {
    let (_ovs, mut vifd, record) = ready()?;
    vifd.put_text("broken", "{")?;
    vifd.put_text("unknown", r#"{"vif": {"type": "quantum", "id": "7"}}"#)?;
    let twice = Record::fixture("openvswitch-create-tap")?.numbered(7).with("vif_name", record.vif_name());
    vifd.put(&twice)?;
    let good = Record::fixture("openvswitch-create-tap")?.numbered(8);
    vifd.put(&good)?;
    vifd.wait_for(&good.id(), "ready")?;
    let status = vifd.wait_until(&twice.id(), "a verdict", |status| {
        ["failed", "conflict"].iter().any(|phase| status["phase"] == *phase)
    })?;
    assert!(status["message"].to_string().contains(&record.vif_name()), "{status}");
    vifd.wait_for(&record.id(), "ready")?;
    for name in ["broken", "unknown"] {
        vifd.until("the file is reported by name", |vifd| {
            let answer = vifd.api("GET", "/v1/vifs", None)?;
            let status = vifd.cli(&["status"])?;
            let shown = String::from_utf8_lossy(&status.stdout).contains(name);
            Ok((shown || answer.body.contains(name)).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn functions_that_are_not_there_are_waited_for_by_name() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    for name in ["nested-dpdk", "direct-8021qbg", "hostdevice-nova"] {
        let record = Record::fixture(name)?;
        vifd.put(&record)?;
        let status = vifd.wait_for(&record.id(), "waiting")?;
        let message = status["message"].to_string();
        let told = message.contains("PCI function 0000:") && message.contains("which this host does not have");
        assert!(told, "{name}: {message}");
        // The next names the same function.
        vifd.remove(&record)?;
        vifd.wait_gone(&record.id())?;
    }
    Ok(())
}

#[test]
fn bad_requests_are_answered_with_the_field() -> Result<()> {
    let (ovs, mut vifd, record) = ready()?;
    let host = Host::observe(&ovs)?;
    let id = record.id();
    let target = format!("/v1/vifs/{id}");
    let bad = record.clone().with("address", "not a MAC").0.to_string();
    let answer = vifd.api("PUT", &target, Some(&bad))?;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(answer.body.contains("address"), "{answer:?}");
    let answer = vifd.api("PUT", &target, Some("{"))?;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let other = Record::fixture("openvswitch-create-tap")?.numbered(9);
    let answer = vifd.api("PUT", &target, Some(&other.0.to_string()))?;
    assert!((400..500).contains(&answer.status), "the id differs: {answer:?}");
    assert_eq!(vifd.api("GET", "/v1/vifs/nobody", None)?.status / 100, 4);
    assert_eq!(vifd.api("GET", "/v1/nothing", None)?.status, 404);
    let waited = format!("{target}?wait=never");
    assert_eq!(vifd.api("PUT", &waited, Some(&record.0.to_string()))?.status / 100, 4);
    assert_eq!(Host::observe(&ovs)?, host);
    assert_eq!(fs::read_dir(vifd.records())?.count(), 1, "nothing was written");

    // And a good one is written, done, and told.
    let target = format!("/v1/vifs/{}?wait=ready&timeout=30s", other.id());
    let answer = vifd.api("PUT", &target, Some(&other.0.to_string()))?;
    assert_eq!(answer.status / 100, 2, "{answer:?}");
    let status: Value = serde_json::from_str(&answer.body).context("a status")?;
    assert_eq!(status["phase"], "ready", "{status}");
    assert!(vifd.records().join(format!("{}.json", other.id())).exists());
    vifd.wait_for_all(2, "ready", Duration::from_secs(30))
}

#[test]
fn unknown_keys_of_the_configuration_are_refused_by_name() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config.defaults = "mtuu = 1500".into();
    vifd.launch()?;
    let daemon = vifd.daemon().context("vifd")?;
    let status = daemon.wait(Duration::from_secs(10))?;
    assert!(!status.success());
    let said = daemon.log_tail(50);
    assert!(said.contains("mtuu"), "{said}");
    Ok(())
}

#[test]
fn a_second_vifd_is_told_that_there_is_one() -> Result<()> {
    let (ovs, mut vifd, record) = ready()?;
    let mut second = Vifd::like(&ovs, &vifd)?;
    second.launch()?;
    let daemon = second.daemon().context("the second vifd")?;
    let status = daemon.wait(Duration::from_secs(10))?;
    assert!(!status.success());
    let said = daemon.log_tail(50).to_lowercase();
    assert!(said.contains("already") || said.contains("another"), "{said}");
    vifd.wait_for(&record.id(), "ready")?;
    let log = ovs.log()?.len();
    drop(second);
    assert_eq!((ovs.log()?.len(), json!(vifd.api("GET", "/healthz", None)?.status)), (log, json!(200)));
    Ok(())
}

/// With directories of its own it is not in the first one's way there, only in the database.
#[test]
fn a_second_vifd_of_the_same_name_writes_nothing_and_ends() -> Result<()> {
    let (ovs, mut vifd, record) = ready()?;
    let links = ovs.namespace().links()?;
    let log = ovs.log()?.len();
    // It has no records, so everything of the first one's is absent to it, and it may remove that.
    let mut second = Vifd::beside(&ovs)?;
    second.config.max_removals = "100%".into();
    second.config.metrics = String::new();
    second.put(&record.clone().numbered(77))?;
    second.launch()?;
    let daemon = second.daemon().context("the second vifd")?;
    let status = daemon.wait(Duration::from_secs(30))?;
    assert!(!status.success());
    let said = daemon.log_tail(50);
    assert!(said.contains("another vifd with agent.id"), "{said}");
    assert_eq!(ovs.namespace().links()?, links, "not even a link");
    assert_eq!(ovs.log()?.len(), log, "and nothing in the database");
    vifd.wait_for(&record.id(), "ready")?;
    Ok(())
}
