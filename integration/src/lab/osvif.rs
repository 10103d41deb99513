//! The real os-vif, for comparison: a process that plugs and unplugs on request.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fs, iter};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::namespace::{Namespace, private_directory};
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

/// Settings of os-vif's linux_bridge plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxBridgeConfig {
    /// `flat_interface`: instead of the network's own interface, where it has no VLAN.
    pub flat_interface: Option<String>,
    /// `vlan_interface`: the same where it has one.
    pub vlan_interface: Option<String>,
    /// `network_device_mtu`, in bytes: of networks that name none. 1500 if not set.
    pub network_device_mtu: Option<u32>,
}

/// An os-vif that works on one host. Dropping it ends its process.
#[derive(Debug)]
pub struct OsVif {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    _locks: Option<tempfile::TempDir>,
}

impl OsVif {
    /// Starts os-vif 5 with its ovs plugin in the namespace of `ovs`.
    ///
    /// # Errors
    /// When it is not installed in the tools folder.
    pub fn beside(ovs: &Ovs, config: OsVifConfig) -> Result<OsVif> {
        let mut command = driver(ovs.namespace())?;
        command.args(["serve", "--ovsdb", &ovs.endpoint()]);
        if config.isolate {
            command.arg("--isolate");
        }
        if config.per_port_bridge {
            command.arg("--per-port-bridge");
        }
        OsVif::start(command, None)
    }

    /// Starts os-vif 4.3.1, the last with the linux_bridge plugin, in a namespace. Nothing of it is replaced: its rules
    /// go through the real iptables (the older kind, which every kernel has) into the namespace's own tables.
    ///
    /// The plugin does nothing unless the network says `should_provide_bridge`, and nothing at all at unplug. Of a network
    /// that says `should_provide_vlan` it makes the VLAN link and then fails with a `TypeError`: 4.3.1 calls a function of
    /// its own with one argument too few.
    ///
    /// # Errors
    /// When it is not installed in the tools folder.
    pub fn with_linux_bridges(namespace: &Namespace, config: &LinuxBridgeConfig) -> Result<OsVif> {
        let release = tools_folder().join("os-vif-4");
        if !release.join("vif_plug_linux_bridge").exists() {
            bail!("os-vif 4 is not in {}: run `make deps`", release.display());
        }
        let root = tools_folder().join("root/usr");
        let locks = private_directory()?;
        let mut command = driver(namespace)?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = iter::once(root.join("sbin")).chain(env::split_paths(&path));
        command.env("PATH", env::join_paths(path)?).env("PYTHONPATH", release);
        // Debian's folder of what iptables can match is named after the architecture.
        for library in fs::read_dir(root.join("lib"))?.filter_map(Result::ok) {
            let extensions = library.path().join("xtables");
            if extensions.is_dir() {
                command.env("XTABLES_LIBDIR", extensions);
            }
        }
        command.args(["serve-linux-bridge", "--locks"]).arg(locks.path());
        let mtu = config.network_device_mtu.map(|mtu| mtu.to_string());
        for (option, value) in [
            ("--flat-interface", &config.flat_interface),
            ("--vlan-interface", &config.vlan_interface),
            ("--mtu", &mtu),
        ] {
            command.args(value.iter().flat_map(|value| [option, value]));
        }
        OsVif::start(command, Some(locks))
    }

    fn start(mut command: Command, locks: Option<tempfile::TempDir>) -> Result<OsVif> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting os-vif")?;
        let requests = child.stdin.take().context("os-vif's standard input")?;
        let answers = child.stdout.take().context("os-vif's standard output")?;
        Ok(OsVif { child, requests, answers: BufReader::new(answers), _locks: locks })
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

/// The driver in a namespace, without its arguments.
fn driver(namespace: &Namespace) -> Result<Command> {
    let python = tools_folder().join("venv/bin/python");
    if !python.exists() {
        bail!("os-vif is not in {}: run `make deps`", python.display());
    }
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("osvif/driver.py");
    let mut command = namespace.command("setpriv")?;
    command.args(["--pdeathsig", "KILL"]).arg(python).args(["-B", "-W", "ignore"]).arg(driver);
    Ok(command)
}

impl Drop for OsVif {
    fn drop(&mut self) {
        // Both fail only when the process has ended and was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
