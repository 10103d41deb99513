//! Promise 5: a directory of records that is emptied, unreadable, unmounted or gone unplugs nothing
//! beyond `max_removals`; `confirm-removals` and explicit deletes do. `mode = "observe"` writes
//! nothing at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vifd_integration::lab::{Host, Ovs, Record, Switch, Vifd};

const COUNT: u32 = 20;
/// What `max_removals = "10%"` allows of [`COUNT`]: five, which is more than a tenth.
const ALLOWED: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);

fn records() -> Result<Vec<Record>> {
    let one = Record::fixture("openvswitch-create-tap")?;
    Ok((1..=COUNT).map(|number| one.clone().numbered(number)).collect())
}

fn plugged() -> Result<(Ovs, Vifd, Vec<Record>)> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let records = records()?;
    for record in &records {
        vifd.put(record)?;
    }
    vifd.start()?;
    vifd.wait_for_all(records.len(), "ready", LIMIT)?;
    Ok((ovs, vifd, records))
}

fn ports(ovs: &Ovs) -> Result<usize> {
    let ports = ovs.rows("Port")?;
    Ok(ports.iter().filter(|port| port["name"].as_str().is_some_and(|name| name.starts_with("tap"))).count())
}

/// Gives vifd something to do, so that it has looked at everything since; then counts.
fn after_a_round(vifd: &mut Vifd, ovs: &Ovs, name: &str) -> Result<usize> {
    ovs.vsctl(["--no-wait", "set", "Interface", name, "external_ids:iface-id=other"])?;
    vifd.until("vifd has been round", |_| {
        let row = ovs.row("Interface", name)?.context("a port was unplugged")?;
        Ok((row["external_ids"]["iface-id"] != "other").then_some(()))
    })?;
    ports(ovs)
}

fn not_ready(vifd: &mut Vifd) -> Result<String> {
    vifd.until("/readyz fails", |vifd| {
        let answer = vifd.api("GET", "/readyz", None)?;
        Ok((answer.status == 503).then_some(answer.body))
    })
}

#[test]
fn a_directory_that_vanishes_and_comes_back_empty() -> Result<()> {
    let (ovs, mut vifd, records) = plugged()?;
    let away = vifd.records().with_extension("away");
    fs::rename(vifd.records(), &away)?;
    not_ready(&mut vifd)?;
    let name = records[0].vif_name();
    assert_eq!(after_a_round(&mut vifd, &ovs, &name)?, records.len());
    fs::create_dir(vifd.records())?;
    assert_eq!(after_a_round(&mut vifd, &ovs, &name)?, records.len());
    // The restart finds it empty.
    vifd.stop()?;
    vifd.start()?;
    not_ready(&mut vifd)?;
    assert_eq!(ports(&ovs)?, records.len());
    // The records are back, and all is well.
    fs::remove_dir(vifd.records())?;
    fs::rename(&away, vifd.records())?;
    vifd.wait_for_all(records.len(), "ready", LIMIT)?;
    vifd.until("/readyz is well", |vifd| Ok((vifd.api("GET", "/readyz", None)?.status == 200).then_some(())))
}

#[test]
fn an_unmounted_directory() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let mount = Mount::tmpfs(&vifd)?;
    let records = records()?;
    for record in &records {
        let text = record.0.to_string();
        fs::write(vifd.records().join(format!("{}.json", record.id())), text)?;
    }
    vifd.start()?;
    vifd.wait_for_all(records.len(), "ready", LIMIT)?;
    drop(mount);
    ensure!(fs::read_dir(vifd.records())?.next().is_none(), "still mounted");
    assert_eq!(after_a_round(&mut vifd, &ovs, &records[0].vif_name())?, records.len());
    vifd.stop()?;
    vifd.start()?;
    not_ready(&mut vifd)?;
    assert_eq!(ports(&ovs)?, records.len());
    Ok(())
}

struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(vifd: &Vifd) -> Result<Mount> {
        let path = vifd.records();
        let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status()?;
        ensure!(mount.success(), "mounting a tmpfs: {mount}");
        Ok(Mount(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn an_unreadable_directory() -> Result<()> {
    let (ovs, mut vifd, records) = plugged()?;
    // root reads whatever its mode is, so: a link that leads nowhere.
    let away = vifd.records().with_extension("away");
    fs::rename(vifd.records(), &away)?;
    symlink("/nowhere", vifd.records())?;
    let said = not_ready(&mut vifd)?;
    assert!(said.contains("vifs"), "it names the directory: {said}");
    assert_eq!(after_a_round(&mut vifd, &ovs, &records[0].vif_name())?, records.len());
    vifd.stop()?;
    vifd.start()?;
    not_ready(&mut vifd)?;
    assert_eq!(ports(&ovs)?, records.len());
    Ok(())
}

#[test]
fn files_missing_at_start_are_removed_within_bounds_until_somebody_confirms() -> Result<()> {
    let (ovs, mut vifd, records) = plugged()?;
    vifd.stop()?;
    for record in &records[2..] {
        vifd.remove(record)?;
    }
    vifd.start()?;
    let said = not_ready(&mut vifd)?;
    assert!(said.contains("confirm-removals"), "it says what to do: {said}");
    let left = after_a_round(&mut vifd, &ovs, &records[0].vif_name())?;
    assert!(left >= records.len() - ALLOWED, "{left} ports are left of {}", records.len());

    let output = vifd.cli(&["confirm-removals"])?;
    assert!(output.status.success(), "{output:?}");
    vifd.until("the others are gone", |_| Ok((ports(&ovs)? == 2).then_some(())))?;
    vifd.until("/readyz is well", |vifd| Ok((vifd.api("GET", "/readyz", None)?.status == 200).then_some(())))
}

#[test]
fn explicit_deletes_pass() -> Result<()> {
    let (ovs, mut vifd, records) = plugged()?;
    // More than max_removals allows, one by one, as a controller does it.
    for record in &records[..ALLOWED + 3] {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    assert_eq!(ports(&ovs)?, records.len() - ALLOWED - 3);
    for record in &records[ALLOWED + 3..ALLOWED + 5] {
        let target = format!("/v1/vifs/{}?wait=gone&timeout=30s", record.id());
        let answer = vifd.api("DELETE", &target, None)?;
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }
    assert_eq!(ports(&ovs)?, records.len() - ALLOWED - 5);
    assert_eq!(vifd.api("GET", "/readyz", None)?.status, 200);
    Ok(())
}

#[test]
fn observe_writes_nothing() -> Result<()> {
    let (ovs, mut vifd, records) = plugged()?;
    vifd.stop()?;
    ovs.vsctl(["del-port", &records[0].vif_name()])?;
    ovs.vsctl(["set", "Interface", &records[1].vif_name(), "external_ids:iface-id=other"])?;
    ovs.namespace().run("ip", ["link", "del", &records[2].vif_name()])?;
    vifd.remove(&records[3])?;
    let (host, log) = (Host::observe(&ovs)?, ovs.log()?.len());
    vifd.config.mode = "observe".into();
    vifd.start()?;
    // It says what it would do.
    let plan = vifd.until("the plan is made", |vifd| {
        let answer = vifd.api("GET", "/v1/plan", None)?;
        let made = answer.body.contains(&records[0].vif_name()) && answer.body.contains(&records[2].vif_name());
        Ok((answer.status == 200 && made).then_some(answer.body))
    })?;
    // A new record and an explicit delete change nothing either.
    let new = Record::fixture("openvswitch-create-tap")?;
    vifd.put(&new)?;
    vifd.remove(&records[4])?;
    vifd.until("the new VIF is planned", |vifd| {
        let plan = vifd.api("GET", "/v1/plan", None)?;
        Ok(plan.body.contains(&new.vif_name()).then_some(()))
    })?;
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0);
    assert_eq!(ovs.log()?.len(), log, "{plan}");
    assert_eq!(Host::observe(&ovs)?, host);
    vifd.stop()?;
    assert_eq!(ovs.log()?.len(), log);
    Ok(())
}
