//! A machine with Debian's kernel, emulated: for what the kernel of the machine that runs the tests need not have (the Open
//! vSwitch datapath, VLAN links, netdevsim, a NIC with functions). `integration/vm/build` makes it, `integration/vm/run`
//! boots it, in about ten seconds. It sees this machine's files, writes to memory, and everything in it is ten times slower.
//! How many tests share one boot is `scenes.rs`'s business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::namespace::private_directory;
use super::process::{Daemon, Lifetime, tail};
use super::tools::{find_tool, tools_folder};

/// Set for every command in the VM: the folder of the kit.
const KIT: &str = "VIFD_VM";
/// Where [`Vm::shared`] is in the VM.
pub(super) const SHARED: &str = "/vm";

/// A VM that is not booted yet; each command is a boot.
#[derive(Debug)]
pub struct Vm {
    limit: Duration,
    directory: tempfile::TempDir,
}

/// What a command in the VM came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status, as a shell has it: 128 and the signal for one that was killed.
    pub status: i32,
    /// What it printed, both streams in the order in which they were written.
    pub output: String,
    /// How long the kernel had been up when it began.
    pub booted: Duration,
    /// From the boot to the end, by this machine's clock.
    pub took: Duration,
}

impl Vm {
    /// A VM that may take five minutes.
    ///
    /// # Errors
    /// When this machine cannot run it; the message says what it lacks.
    pub fn new() -> Result<Vm> {
        let kit = tools_folder().join("vm");
        if !nix::unistd::Uid::effective().is_root() {
            bail!("the VM sees this machine's files as root does, which this is not");
        }
        if !cfg!(target_arch = "x86_64") {
            bail!("the VM is of x86-64 and runs this machine's programs, which are not");
        }
        if !kit.join("made-by").exists() {
            bail!("there is no VM in {}: run `make deps`", kit.display());
        }
        let directory = private_directory()?;
        fs::create_dir(directory.path().join("vm"))?;
        Ok(Vm { limit: Duration::from_secs(300), directory })
    }

    /// Whether this process runs in the VM.
    #[must_use]
    pub fn inside() -> bool {
        std::env::var_os(KIT).is_some()
    }

    /// Ends with an error what takes longer than this, the boot included.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Vm {
        self.limit = limit;
        self
    }

    /// A folder that the VM has too, as `/vm`, and both can write to. It goes with this value.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.directory.path().join("vm")
    }

    /// Boots and runs a command as it would run here: its arguments, variables and folder are taken over.
    ///
    /// # Errors
    /// When the VM ends before the command, or takes longer than it may; with the ends of console and output. An exit
    /// status is the caller's to judge.
    pub fn run(&self, command: &Command) -> Result<Ran> {
        let begun = Instant::now();
        let mut script = Command::new(find_tool("setpriv")?);
        // Killed with the test, whatever ends that; and the emulator with the script.
        script.args(["--pdeathsig", "KILL"]);
        script.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run"));
        script.arg("--share").arg(self.shared());
        script.arg(command.get_program()).args(command.get_args());
        script.env("VIFD_LAB", std::path::absolute(tools_folder())?);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            script.current_dir(folder);
        }
        let printed = self.directory.path().join("output");
        let shown = || {
            let console = tail(&self.shared().join("console"), 20);
            format!("console:\n{console}\noutput:\n{}", tail(&printed, 40))
        };
        let mut daemon = Daemon::start("the VM", script, &printed, Lifetime::Test)?;
        daemon.wait(self.limit).with_context(shown)?;
        let told = |name: &str| fs::read_to_string(self.shared().join(name)).ok();
        let number = |name: &str| told(name)?.trim().parse::<f64>().ok();
        let status = told("status").and_then(|status| status.trim().parse().ok());
        Ok(Ran {
            status: status.with_context(|| format!("the VM ended before its command did\n{}", shown()))?,
            output: String::from_utf8_lossy(&fs::read(&printed)?).into_owned(),
            booted: Duration::from_secs_f64(number("booted").unwrap_or_default()),
            took: begun.elapsed(),
        })
    }
}
