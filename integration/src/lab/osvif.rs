//! The real os-vif, for comparison: a process that plugs and unplugs on request.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::ovs::Ovs;
use super::record::Record;
use super::tools::tools_folder;

/// Settings of os-vif's ovs plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsVifConfig {
    /// `isolate_vif`.
    pub isolate: bool,
    /// `per_port_bridge`.
    pub per_port_bridge: bool,
}

/// An os-vif that works on one [`Ovs`]. Dropping it ends its process.
#[derive(Debug)]
pub struct OsVif {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl OsVif {
    /// Starts os-vif in the namespace of `ovs`.
    ///
    /// # Errors
    /// When it is not installed in the tools folder.
    pub fn beside(ovs: &Ovs, config: OsVifConfig) -> Result<OsVif> {
        let python = tools_folder().join("venv/bin/python");
        if !python.exists() {
            bail!("os-vif is not in {}: run `make deps`", python.display());
        }
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("osvif/driver.py");
        let mut command = ovs.namespace().command("setpriv")?;
        command.args(["--pdeathsig", "KILL"]).arg(python).args(["-B", "-W", "ignore"]).arg(driver).args([
            "serve",
            "--ovsdb",
            &ovs.endpoint(),
        ]);
        if config.isolate {
            command.arg("--isolate");
        }
        if config.per_port_bridge {
            command.arg("--per-port-bridge");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting os-vif")?;
        let requests = child.stdin.take().context("os-vif's standard input")?;
        let answers = child.stdout.take().context("os-vif's standard output")?;
        Ok(OsVif { child, requests, answers: BufReader::new(answers) })
    }

    /// Plugs.
    ///
    /// # Errors
    /// With what os-vif raised.
    pub fn plug(&mut self, record: &Record) -> Result<()> {
        self.ask("plug", record)
    }

    /// Unplugs.
    ///
    /// # Errors
    /// With what os-vif raised.
    pub fn unplug(&mut self, record: &Record) -> Result<()> {
        self.ask("unplug", record)
    }

    fn ask(&mut self, operation: &str, record: &Record) -> Result<()> {
        let request = json!({
            "op": operation, "vif": record.0["vif"], "instance": record.0["instance"],
        });
        writeln!(self.requests, "{request}").context("os-vif went away")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("os-vif ended while it had to {operation}"))?;
        if answer["ok"] != Value::Bool(true) {
            bail!("os-vif cannot {operation} {}: {}", record.id(), answer["error"]);
        }
        Ok(())
    }
}

impl Drop for OsVif {
    fn drop(&mut self) {
        // Both fail only when the process has ended and was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
