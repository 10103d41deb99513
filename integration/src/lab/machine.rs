//! A small Debian with its own systemd as process 1, in namespaces of its own: for what a service manager does to the
//! agent and to Open vSwitch. `make deps` makes the Debian, `integration/machine/boot` boots it. Its files are in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::namespace::private_directory;
use super::process::{Daemon, Lifetime, tail};
use super::record::Record;
use super::tools::{find_tool, tools_folder};
use super::vifd::Vifd;
use super::wait::until;

/// Keeps a failed test from hanging; see [`until`].
const LIMIT: Duration = Duration::from_secs(60);
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the repository is in it, as far as an installation takes files from there.
const REPOSITORY: &str = "root/vifd";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A running machine with Debian's Open vSwitch. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Machine {
    process_one: u32,
    control_group: PathBuf,
    console: PathBuf,
    /// The last to be taken, and explicitly: its end ends all processes, and only then the control groups can go.
    namespaces: Option<Daemon>,
    _directory: tempfile::TempDir,
}

impl Machine {
    /// Boots one and waits until systemd has started Open vSwitch in it.
    ///
    /// # Errors
    /// When this host cannot run it (the message says what it lacks), or systemd does not come up.
    pub fn boot() -> Result<Machine> {
        let debian = tools_folder().join("machine");
        if !debian.join("lib/systemd/systemd").exists() {
            bail!("there is no Debian in {}: run `make deps`", debian.display());
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let control_group = control_groups()?.join(format!("vifd-lab-{}-{number}", std::process::id()));
        fs::create_dir(&control_group).with_context(|| {
            format!(
                "making {}: systemd needs a control group of its own (root, cgroup2 writable)",
                control_group.display()
            )
        })?;
        let directory = private_directory()?;
        let console = directory.path().join("console.log");
        let here = directory.path().join("root");
        fs::create_dir(&here)?;
        let mut command = Command::new(find_tool("setpriv")?);
        command.args(["--pdeathsig", "KILL", "bash", "-c"]);
        // The control group first: it is the root of the namespace that is made then.
        command.arg(r#"echo $$ >"$1/cgroup.procs"; shift; exec unshare "$@""#).arg("bash").arg(&control_group);
        command.args(["--cgroup", "--pid", "--mount", "--uts", "--ipc", "--net", "--fork", "--kill-child"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("machine/boot")).arg(debian.canonicalize()?).arg(&here);
        let daemon = Daemon::start("machine", command, &console, Lifetime::Test)?;
        let mut machine =
            Machine { process_one: 0, control_group, console, namespaces: Some(daemon), _directory: directory };
        machine.until("systemd has started Open vSwitch", |machine| {
            let Some(daemon) = machine.namespaces.as_mut() else { return Ok(None) };
            daemon.check_running()?;
            let pid = daemon.pid();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let Ok(process_one) = children.trim().parse() else { return Ok(None) };
            machine.process_one = process_one;
            let up = machine.output("systemctl is-active openvswitch-switch ovs-vswitchd")?;
            Ok(up.status.success().then_some(()))
        })?;
        Ok(machine)
    }

    /// Boots one in which vifd is installed and runs, by the commands of the README.
    ///
    /// # Errors
    /// As [`Machine::boot`]; when a command fails.
    pub fn with_vifd() -> Result<Machine> {
        let machine = Machine::boot()?;
        machine.bring_repository()?;
        machine.run(&commands(&repository().join("README.md"), "## Install it")?)?;
        Ok(machine)
    }

    /// Copies what an installation takes from the repository, as a release build would lie there.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn bring_repository(&self) -> Result<()> {
        let there = self.path(REPOSITORY);
        fs::create_dir_all(there.join("target/release"))?;
        fs::copy(Vifd::program()?, there.join("target/release/vifd"))?;
        copy(&repository().join("deploy"), &there.join("deploy"))
    }

    /// Runs the commands under a heading of `docs/deployment.md`, as an operator would.
    ///
    /// # Errors
    /// When one fails.
    pub fn follow(&self, heading: &str) -> Result<String> {
        self.run(&commands(&repository().join("docs/deployment.md"), heading)?)
    }

    /// A path in it, for this process. No part of it may be a symbolic link.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.process_one)).join(path.trim_start_matches('/'))
    }

    /// Runs a script of bash in it, as root in its copy of the repository, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, script: &str) -> Result<Output> {
        let mut command = Command::new(find_tool("nsenter")?);
        command.arg(format!("--target={}", self.process_one));
        command.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd"]);
        command.env_clear().env("PATH", PATH).env("NO_COLOR", "1");
        let script = format!("cd /{REPOSITORY} 2>/dev/null; set -e\n{script}");
        command.args(["bash", "-c", &script]).output().with_context(|| format!("running {script} in the machine"))
    }

    /// The same, and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.output(script)?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{script}\n{}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(printed)
    }

    /// The same as another user of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output_as(&self, user: &str, script: &str) -> Result<Output> {
        let script = script.replace('\'', r"'\''");
        self.output(&format!("exec setpriv --reuid={user} --regid={user} --init-groups bash -c '{script}'"))
    }

    /// Waits for something in it.
    ///
    /// # Errors
    /// When the check fails or nothing comes in a minute; with the ends of console and journal.
    pub fn until<T>(&mut self, what: &str, mut check: impl FnMut(&mut Machine) -> Result<Option<T>>) -> Result<T> {
        until(what, LIMIT, || check(self)).with_context(|| {
            let journal =
                self.output("journalctl --no-pager --lines=40").map(|output| output.stdout).unwrap_or_default();
            format!("console:\n{}\njournal:\n{}", tail(&self.console, 20), String::from_utf8_lossy(&journal))
        })
    }

    /// Lays a record into vifd's directory, by rename, as a controller that is root would.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, record: &Record) -> Result<()> {
        let new = self.path("var/lib/vifd").join(format!("{}.new", record.id()));
        fs::write(&new, record.0.to_string())?;
        Ok(fs::rename(&new, self.record_file(record))?)
    }

    /// Deletes a VIF by name and waits until nothing of it is left.
    ///
    /// # Errors
    /// When that fails.
    pub fn unplug(&self, record: &Record) -> Result<()> {
        self.run(&format!("vifd unplug {} --wait", record.id())).map(drop)
    }

    fn record_file(&self, record: &Record) -> PathBuf {
        self.path("var/lib/vifd/vifs").join(format!("{}.json", record.id()))
    }

    /// Waits until a VIF is in a phase; vifd may be starting meanwhile.
    ///
    /// # Errors
    /// When it does not get there; with its last status.
    pub fn wait_for(&mut self, record: &Record, phase: &str) -> Result<Value> {
        let ask = format!("vifd get {} -o json", record.id());
        let mut last = String::new();
        let got = self.until(&format!("VIF {} is {phase}", record.id()), |machine| {
            let output = machine.output(&ask)?;
            last = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let status: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            Ok(status.map(first).filter(|status| status["phase"] == phase))
        });
        got.with_context(|| format!("its status: {last}"))
    }

    /// The main process of a unit, by its number in the machine.
    ///
    /// # Errors
    /// When it does not run.
    pub fn main_pid(&self, unit: &str) -> Result<u32> {
        let pid = self.run(&format!("systemctl show --property=MainPID --value {unit}"))?;
        pid.trim().parse().ok().filter(|pid| *pid != 0).with_context(|| format!("{unit} does not run"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(daemon) = self.namespaces.take() {
            daemon.kill();
        }
        // Its processes are ended by the kernel, which may take a moment.
        for _ in 0..200 {
            remove_control_groups(&self.control_group);
            if !self.control_group.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// An object, or the only one of a list.
fn first(status: Value) -> Value {
    match status {
        Value::Array(mut all) if all.len() == 1 => all.remove(0),
        other => other,
    }
}

/// Where control groups (version 2) are mounted.
pub(super) fn control_groups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let place = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    place.context("this host has no cgroup2 file system mounted, so no systemd can run in a namespace of it")
}

/// Removes empty control groups from the innermost out.
pub(super) fn remove_control_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_control_groups(&entry.path());
        }
    }
    // What is not empty yet stays; whoever calls looks.
    let _ = fs::remove_dir(group);
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of the first block of code under a heading, without those that build.
fn commands(document: &Path, heading: &str) -> Result<String> {
    let text = fs::read_to_string(document)?;
    let block = text
        .split_once(&format!("\n{heading}\n"))
        .and_then(|(_, rest)| rest.split_once("```"))
        .and_then(|(_, rest)| rest.split_once('\n')?.1.split_once("```"))
        .with_context(|| format!("{} has no commands under {heading:?}", document.display()))?
        .0;
    Ok(block.lines().filter(|line| !line.starts_with("cargo build")).collect::<Vec<_>>().join("\n"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_from_under_their_heading() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let document = directory.path().join("a.md");
        fs::write(&document, "# A\n```\nno\n```\n## B\ntext\n```\ncargo build -p x\none\ntwo\n```\n```\nno\n```\n")?;
        assert_eq!(commands(&document, "## B")?, "one\ntwo");
        assert!(commands(&document, "## C").is_err());
        Ok(())
    }
}
