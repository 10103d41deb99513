//! A directory of records with everything in it that a directory can have: nothing is waited for, little memory is
//! used, what is wrong is told by name, and the record beside it is honoured.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;
use serde_json::Value;
use vifd_integration::lab::{Ovs, Record, Switch, Usage, Vifd};

/// MiB.
const MEMORY: u64 = 160;
/// Files that are no records.
const JUNK: usize = 100_000;
/// Bytes of log, however many files are wrong.
const LOG: u64 = 1 << 20;

fn rejections(vifd: &Vifd) -> Result<Vec<Value>> {
    let status: Value = serde_json::from_str(&vifd.api("GET", "/v1/status", None)?.body)?;
    Ok(status["rejections"].as_array().context("rejections")?.clone())
}

#[test]
fn what_is_no_record_is_told_by_name_and_holds_nobody_up() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let folder = vifd.records();
    let at = |name: &str| folder.join(format!("{name}.json"));
    let record = Record::fixture("openvswitch-create-tap")?;
    let put = |vifd: &Vifd| vifd.put(&record);

    // Half of it is there at the start, half of it comes while vifd runs: the two are read in different ways.
    let file = File::create(at("gigabyte"))?;
    file.set_len(1 << 30)?;
    mkfifo(&at("fifo"), Mode::from_bits_truncate(0o600))?;
    symlink(at("loop"), at("loop"))?;
    symlink("/dev/zero", at("link"))?;
    mknod(&at("device"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), nix::libc::makedev(1, 5))?;
    put(&vifd)?;
    vifd.start()?;
    vifd.wait_for(&record.id(), "ready")?;
    let _socket = UnixListener::bind(at("socket"))?;
    fs::create_dir(at("directory"))?;
    fs::write(at("deep"), "[".repeat(1 << 20))?;
    fs::write(at("binary"), [0xff; 100])?;
    fs::write(at("empty"), "")?;
    let expected = [
        ("binary", "is not valid JSON"),
        ("deep", "is not valid JSON: recursion limit exceeded"),
        ("device", "is not a regular file"),
        ("directory", "is not a regular file"),
        ("empty", "is empty"),
        ("fifo", "is not a regular file"),
        ("gigabyte", "is larger than 1048576 bytes"),
        ("link", "is a symbolic link"),
        ("loop", "is a symbolic link"),
        ("socket", "is not a regular file"),
    ];
    let told = vifd.until("all of it is refused", |vifd| {
        let told = rejections(vifd)?;
        Ok((told.len() == expected.len()).then_some(told))
    })?;
    for ((name, reason), told) in expected.iter().zip(&told) {
        ensure!(told["record"] == format!("{name}.json"), "{told}");
        ensure!(told["reason"].as_str().is_some_and(|said| said.contains(reason)), "{told}");
    }
    let changed = record.clone().with_network("mtu", 1400);
    vifd.put(&changed)?;
    vifd.wait_until(&record.id(), "the new MTU", |status| status["facts"]["mtu"] == 1400)?;
    let pid = vifd.daemon().context("vifd")?.pid();
    let usage = Usage::of(pid)?;
    ensure!(usage.peak <= 64 << 10, "{} MiB", usage.peak >> 10);
    Ok(())
}

#[test]
fn a_hundred_thousand_files_that_are_no_records() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let record = Record::fixture("openvswitch-create-tap")?;
    for number in 0..JUNK {
        fs::write(vifd.records().join(format!("{number:06}.json")), "junk")?;
    }
    vifd.put(&record)?;
    vifd.start()?;
    vifd.wait_for(&record.id(), "ready")?;
    let changed = record.clone().with_network("mtu", 1400);
    vifd.put(&changed)?;
    vifd.wait_until(&record.id(), "the new MTU", |status| status["facts"]["mtu"] == 1400)?;
    let answer = vifd.api("GET", "/v1/status", None)?;
    let told = rejections(&vifd)?;
    let usage = Usage::of(vifd.daemon().context("vifd")?.pid())?;
    let log = fs::metadata(vifd.log_file())?.len();
    println!("{} MiB, {} rejections in {} bytes, {log} bytes of log", usage.peak >> 10, told.len(), answer.body.len());
    ensure!(usage.peak <= MEMORY << 10, "{} MiB", usage.peak >> 10);
    ensure!(log <= LOG, "{log} bytes of log");
    ensure!(answer.body.len() <= 64 << 10, "{} bytes of status", answer.body.len());
    let status: Value = serde_json::from_str(&answer.body)?;
    ensure!(status["rejected"] == JUNK, "{}", status["rejected"]);
    // And all of it goes again.
    for number in 0..JUNK {
        fs::remove_file(vifd.records().join(format!("{number:06}.json")))?;
    }
    vifd.until_within(Duration::from_secs(60), "nothing is refused", |vifd| {
        Ok(rejections(vifd)?.is_empty().then_some(()))
    })?;
    vifd.wait_for(&record.id(), "ready")?;
    Ok(())
}
