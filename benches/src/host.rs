//! A host to measure on: a private Open vSwitch with one bridge on real links, and a vifd beside it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use vifd_integration::lab::{Ovs, Record, Switch, Vifd};

use crate::hand::{BRIDGE, Hand};

/// Nothing that is waited for takes longer; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A private Open vSwitch on real links, with the bridge that records name and no port in it.
///
/// # Errors
/// When it does not come up.
pub fn switch() -> Result<Ovs> {
    let ovs = Ovs::start(Switch::Userspace)?;
    ovs.vsctl(["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
    Ok(ovs)
}

/// A vifd as it is shipped, beside `ovs`: not started yet, with nothing to do yet.
///
/// # Errors
/// When it was not built.
pub fn vifd(ovs: &Ovs) -> Result<Vifd> {
    let mut vifd = Vifd::beside(ovs)?;
    vifd.config.resync = "10m".into();
    vifd.config.max_removals = "100%".into();
    Ok(vifd)
}

/// A host on which vifd has plugged as many VIFs, and which has come to rest.
///
/// # Errors
/// When that does not come about.
pub fn with_vifs(count: u32) -> Result<(Ovs, Vifd)> {
    let ovs = switch()?;
    let mut vifd = vifd(&ovs)?;
    for record in records(0..count)? {
        vifd.put(&record)?;
    }
    vifd.start()?;
    Watch::on(&vifd)?.until_ready(count as usize)?;
    // ovs-vswitchd goes on for a while with what it found out of new ports.
    Hand::on(&ovs)?.catch_up()?;
    std::thread::sleep(Duration::from_secs(1));
    Hand::on(&ovs)?.catch_up()?;
    Ok((ovs, vifd))
}

/// VIFs with a tap and a port each, as os-vif serializes them.
///
/// # Errors
/// When the sample they are made of is missing.
pub fn records(numbers: std::ops::Range<u32>) -> Result<Vec<Record>> {
    let one = Record::fixture("openvswitch-netdev")?;
    Ok(numbers.map(|number| one.clone().numbered(number)).collect())
}

/// Hybrid VIFs, as os-vif serializes them.
///
/// # Errors
/// When the sample they are made of is missing.
pub fn hybrid_records(numbers: std::ops::Range<u32>) -> Result<Vec<Record>> {
    let one = Record::fixture("bridge-hybrid")?.with_profile("datapath_type", "netdev");
    Ok(numbers.map(|number| one.clone().numbered(number)).collect())
}

/// The API's stream of VIFs: what there is, and every change.
pub struct Watch {
    lines: BufReader<UnixStream>,
    phases: std::collections::BTreeMap<String, bool>,
}

impl Watch {
    /// Opens the stream.
    ///
    /// # Errors
    /// When vifd does not answer.
    pub fn on(vifd: &Vifd) -> Result<Watch> {
        let mut lines = ask(&vifd.socket(), "GET", "/v1/vifs?watch=true", None)?;
        status(&mut lines)?;
        Ok(Watch { lines, phases: std::collections::BTreeMap::new() })
    }

    /// Waits until `count` VIFs are ready.
    ///
    /// # Errors
    /// When the stream ends.
    pub fn until_ready(&mut self, count: usize) -> Result<()> {
        self.until(|phases| phases.values().filter(|ready| **ready).count() >= count)
    }

    /// Waits until no more than `count` VIFs are known.
    ///
    /// # Errors
    /// When the stream ends.
    pub fn until_left(&mut self, count: usize) -> Result<()> {
        self.until(|phases| phases.len() <= count)
    }

    /// Reads what there is, until it is listed.
    ///
    /// # Errors
    /// When the stream ends.
    pub fn listed(&mut self) -> Result<()> {
        while self.event()? != "listed" {}
        Ok(())
    }

    fn until(&mut self, good: impl Fn(&std::collections::BTreeMap<String, bool>) -> bool) -> Result<()> {
        loop {
            self.event()?;
            // Counting after each of thousands of events in one piece would take longer than they do. What is left
            // after the last one is the end of its chunk.
            if !self.lines.buffer().contains(&b'{') && good(&self.phases) {
                return Ok(());
            }
        }
    }

    fn event(&mut self) -> Result<String> {
        let line = loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                bail!("vifd ended the stream of VIFs");
            }
            // Between the chunks of HTTP there are their sizes.
            if line.starts_with('{') {
                break line;
            }
        };
        let event: Value = serde_json::from_str(&line).with_context(|| format!("an event: {line}"))?;
        let kind = event["event"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "set" => {
                let id = event["vif"]["id"].as_str().unwrap_or_default().to_owned();
                self.phases.insert(id, event["vif"]["phase"] == "ready");
            }
            "unset" => {
                self.phases.remove(event["id"].as_str().unwrap_or_default());
            }
            _ => {}
        }
        Ok(kind)
    }
}

/// A request that is on its way, to be answered when vifd has something to say.
pub struct Asked(BufReader<UnixStream>);

impl Asked {
    /// Sends a request to the API.
    ///
    /// # Errors
    /// When vifd is not there.
    pub fn send(vifd: &Vifd, method: &str, target: &str, body: Option<&str>) -> Result<Asked> {
        ask(&vifd.socket(), method, target, body).map(Asked)
    }

    /// Waits for its answer.
    ///
    /// # Errors
    /// When it is not 200.
    pub fn answered(mut self) -> Result<()> {
        status(&mut self.0)
    }
}

fn ask(socket: &Path, method: &str, target: &str, body: Option<&str>) -> Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.unwrap_or_default();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: vifd\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes())?;
    Ok(BufReader::with_capacity(1 << 16, stream))
}

/// Reads the head of an answer.
fn status(answer: &mut impl BufRead) -> Result<()> {
    let mut first = String::new();
    answer.read_line(&mut first)?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if answer.read_line(&mut line)? == 0 {
            bail!("an answer without an end of its head: {first}");
        }
    }
    if !first.starts_with("HTTP/1.1 200") {
        line.clear();
        answer.read_line(&mut line)?;
        bail!("vifd answered {first}{line}");
    }
    Ok(())
}
