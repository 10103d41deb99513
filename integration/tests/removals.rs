//! Promise 5: a directory of records that is emptied, unreadable, unmounted or gone unplugs nothing
//! beyond `max_removals`; `confirm-removals` and explicit deletes do. `mode = "observe"` writes
//! nothing at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vifd_integration::lab::{Host, Ovs, Record, Switch, Vifd};

const COUNT: u32 = 20;
/// So few that `max_removals` alone would allow to remove them all.
const FEW: u32 = 3;
/// What `max_removals = "10%"` allows of [`COUNT`]: five, which is more than a tenth.
const ALLOWED: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);

fn records(count: u32) -> Result<Vec<Record>> {
    let one = Record::fixture("openvswitch-create-tap")?;
    Ok((1..=count).map(|number| one.clone().numbered(number)).collect())
}

fn plugged(count: u32) -> Result<(Ovs, Vifd, Vec<Record>)> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let records = records(count)?;
    for record in &records {
        vifd.put(record)?;
    }
    vifd.start()?;
    vifd.wait_for_all(records.len(), "ready", LIMIT)?;
    Ok((ovs, vifd, records))
}

/// The VIFs' ports by name, each with its row: a port that was unplugged and is back is another.
fn port_rows(ovs: &Ovs) -> Result<BTreeMap<String, String>> {
    let ports = ovs.rows("Port")?;
    let texts = ports.iter().map(|port| (port["name"].as_str().unwrap_or_default(), port["_uuid"].to_string()));
    Ok(texts.filter(|(name, _)| name.starts_with("tap")).map(|(name, uuid)| (name.to_owned(), uuid)).collect())
}

fn ports(ovs: &Ovs) -> Result<usize> {
    Ok(port_rows(ovs)?.len())
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

/// Waits until `/readyz` fails for this reason.
fn not_ready(vifd: &mut Vifd, because: &str) -> Result<()> {
    vifd.until(&format!("/readyz fails: {because}"), |vifd| {
        let answer = vifd.api("GET", "/readyz", None)?;
        Ok((answer.status == 503 && answer.body.contains(because)).then_some(()))
    })
}

fn well(vifd: &mut Vifd) -> Result<()> {
    vifd.until("/readyz is well", |vifd| Ok((vifd.api("GET", "/readyz", None)?.status == 200).then_some(())))
}

/// What `/readyz` says of removals that wait for somebody to confirm them.
const STOPPED: &str = "have no record and are left alone";

#[test]
fn a_directory_that_vanishes_and_comes_back_empty() -> Result<()> {
    let (ovs, mut vifd, records) = plugged(COUNT)?;
    let away = vifd.records().with_extension("away");
    fs::rename(vifd.records(), &away)?;
    not_ready(&mut vifd, "is not there")?;
    let name = records[0].vif_name();
    assert_eq!(after_a_round(&mut vifd, &ovs, &name)?, records.len());
    fs::create_dir(vifd.records())?;
    not_ready(&mut vifd, "is empty")?;
    assert_eq!(after_a_round(&mut vifd, &ovs, &name)?, records.len());
    // The restart finds it empty.
    vifd.stop()?;
    vifd.start()?;
    not_ready(&mut vifd, STOPPED)?;
    assert_eq!(ports(&ovs)?, records.len());
    // The records are back, and all is well.
    fs::remove_dir(vifd.records())?;
    fs::rename(&away, vifd.records())?;
    vifd.wait_for_all(records.len(), "ready", LIMIT)?;
    well(&mut vifd)
}

#[test]
fn an_unmounted_directory() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let mount = Mount::tmpfs(&vifd)?;
    let records = records(COUNT)?;
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
    not_ready(&mut vifd, STOPPED)?;
    assert_eq!(ports(&ovs)?, records.len());
    Ok(())
}

struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(vifd: &Vifd) -> Result<Mount> {
        let path = vifd.records();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755", "tmpfs"]).arg(&path).status()?;
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
    let (ovs, mut vifd, records) = plugged(COUNT)?;
    // root reads whatever its mode is, so: a link that leads nowhere.
    let away = vifd.records().with_extension("away");
    fs::rename(vifd.records(), &away)?;
    symlink("/nowhere", vifd.records())?;
    let named = vifd.records().display().to_string();
    not_ready(&mut vifd, &named)?;
    assert_eq!(after_a_round(&mut vifd, &ovs, &records[0].vif_name())?, records.len());
    vifd.stop()?;
    vifd.start()?;
    not_ready(&mut vifd, &named)?;
    assert_eq!(ports(&ovs)?, records.len());
    Ok(())
}

#[test]
fn files_missing_at_start_are_removed_within_bounds_until_somebody_confirms() -> Result<()> {
    let (ovs, mut vifd, records) = plugged(COUNT)?;
    vifd.stop()?;
    for record in &records[2..] {
        vifd.remove(record)?;
    }
    vifd.start()?;
    not_ready(&mut vifd, STOPPED)?;
    not_ready(&mut vifd, "vifd confirm-removals")?;
    let left = after_a_round(&mut vifd, &ovs, &records[0].vif_name())?;
    assert!(left >= records.len() - ALLOWED, "{left} ports are left of {}", records.len());

    let output = vifd.cli(&["confirm-removals"])?;
    assert!(output.status.success(), "{output:?}");
    vifd.until("the others are gone", |_| Ok((ports(&ovs)? == 2).then_some(())))?;
    well(&mut vifd)
}

#[test]
fn a_host_with_few_vifs_whose_directory_is_empty_at_start() -> Result<()> {
    let (ovs, mut vifd, records) = plugged(FEW)?;
    let before = port_rows(&ovs)?;
    vifd.stop()?;
    for record in &records {
        vifd.remove(record)?;
    }
    vifd.start()?;
    not_ready(&mut vifd, STOPPED)?;
    // A new record is none of those that are missing.
    let new = Record::fixture("openvswitch-create-tap")?.numbered(FEW + 1);
    vifd.put(&new)?;
    vifd.wait_for(&new.id(), "ready")?;
    assert_eq!(after_a_round(&mut vifd, &ovs, &new.vif_name())?, records.len() + 1);
    let mut left = port_rows(&ovs)?;
    left.retain(|name, _| *name != new.vif_name());
    assert_eq!(left, before);
    // Who is deleted by name goes, through the API and as a file that was back.
    let answer = vifd.api("DELETE", &format!("/v1/vifs/{}?wait=gone&timeout=30s", records[0].id()), None)?;
    assert!((200..300).contains(&answer.status), "{answer:?}");
    vifd.put(&records[1])?;
    vifd.wait_for(&records[1].id(), "ready")?;
    vifd.remove(&records[1])?;
    vifd.wait_gone(&records[1].id())?;
    let names: BTreeSet<String> = port_rows(&ovs)?.into_keys().collect();
    assert_eq!(names, BTreeSet::from([records[2].vif_name(), new.vif_name()]));
    not_ready(&mut vifd, STOPPED)?;
    vifd.put(&records[2])?;
    well(&mut vifd)?;
    assert_eq!(port_rows(&ovs)?[&records[2].vif_name()], before[&records[2].vif_name()]);
    Ok(())
}

#[test]
fn restoring_files_one_by_one_after_a_stopped_removal() -> Result<()> {
    for (count, left) in [(COUNT, 2), (COUNT, 0), (FEW, 0)] {
        let (ovs, mut vifd, records) = plugged(count)?;
        let before = port_rows(&ovs)?;
        vifd.stop()?;
        for record in &records[left..] {
            vifd.remove(record)?;
        }
        vifd.start()?;
        not_ready(&mut vifd, STOPPED)?;
        for record in &records[left..] {
            vifd.put(record)?;
            vifd.wait_for(&record.id(), "ready")?;
            after_a_round(&mut vifd, &ovs, &record.vif_name())?;
            assert_eq!(port_rows(&ovs)?, before, "{count} VIFs, of which {left} were left");
        }
        well(&mut vifd)?;
        assert_eq!(port_rows(&ovs)?, before);
    }
    Ok(())
}

#[test]
fn a_directory_that_is_still_being_filled_at_start() -> Result<()> {
    // What is missing at first is less than max_removals allows to remove.
    let missing = ALLOWED - 1;
    let (ovs, mut vifd, records) = plugged(COUNT)?;
    let before = port_rows(&ovs)?;
    vifd.stop()?;
    for record in &records[..missing] {
        vifd.remove(record)?;
    }
    vifd.start()?;
    for record in &records[..missing] {
        vifd.put(record)?;
        // The directory is never quiet for the half second after which it counts as filled.
        std::thread::sleep(Duration::from_millis(100));
    }
    vifd.wait_for_all(records.len(), "ready", LIMIT)?;
    well(&mut vifd)?;
    assert_eq!(port_rows(&ovs)?, before);
    Ok(())
}

#[test]
fn one_file_does_not_make_an_emptied_directory_whole() -> Result<()> {
    let (ovs, mut vifd, records) = plugged(COUNT)?;
    let before = port_rows(&ovs)?;
    for record in &records {
        vifd.remove(record)?;
    }
    not_ready(&mut vifd, "is empty")?;
    for (back, record) in records[..2].iter().enumerate() {
        vifd.put(record)?;
        not_ready(&mut vifd, &format!("{} VIFs that were known are still missing", records.len() - back - 1))?;
        // Quiet for longer than it takes to believe a directory that is there again.
        std::thread::sleep(Duration::from_secs(1));
        after_a_round(&mut vifd, &ovs, &record.vif_name())?;
        assert_eq!(port_rows(&ovs)?, before);
    }
    let output = vifd.cli(&["confirm-removals"])?;
    assert!(output.status.success(), "{output:?}");
    vifd.until("the others are gone", |_| Ok((ports(&ovs)? == 2).then_some(())))?;
    well(&mut vifd)
}

#[test]
fn explicit_deletes_pass() -> Result<()> {
    let (ovs, mut vifd, records) = plugged(COUNT)?;
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
    // A directory in which so much happens may have been quiet only now for long enough to be believed.
    well(&mut vifd)
}

#[test]
fn observe_writes_nothing() -> Result<()> {
    let (ovs, mut vifd, records) = plugged(COUNT)?;
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
