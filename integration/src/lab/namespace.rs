//! Network namespaces, the links in them, and pings between them. Every namespace is made by the
//! lab and removed by it; the host's own network is not touched.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::machine::{control_groups, remove_control_groups};
use super::process::{Daemon, Lifetime, output};
use super::tools::find_tool;
use super::vm::Vm;

const PREFIX: &str = "vifd-lab-";
const MOUNTS: &str = "/run/netns";
/// What the VM's own namespace is called.
const OF_VM: &str = "of-vm";

static COUNTER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace of the lab. Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    lifetime: Lifetime,
}

/// A link as `ip link` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel interface index.
    pub index: u64,
    /// `tun`, `veth`, `bridge`, …; empty for the loopback.
    pub kind: String,
    /// Hardware address, lower case with colons.
    pub mac: String,
    /// Bytes.
    pub mtu: u64,
    /// Administratively up.
    pub up: bool,
    /// Set to promiscuous mode.
    pub promiscuous: bool,
    /// The link it is enslaved to.
    pub master: Option<String>,
    /// `ifalias`, or empty.
    pub alias: String,
    /// For a tap: made with several queues.
    pub multi_queue: bool,
}

/// What a ping gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Echo requests sent.
    pub sent: u32,
    /// Replies that came.
    pub received: u32,
}

/// A ping that goes on. Dropping it ends it.
#[derive(Debug)]
pub struct Pinging {
    daemon: Daemon,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Pinging {
    /// Ends it and counts. A reply that was on its way when it ended may be missing.
    ///
    /// # Errors
    /// When it ended by itself or printed no counts.
    pub fn stop(mut self) -> Result<Ping> {
        self.daemon.check_running()?;
        self.daemon.signal(Signal::SIGINT)?;
        self.daemon.wait(std::time::Duration::from_secs(10))?;
        let text = fs::read_to_string(&self.log)?;
        ping_counts(&text).with_context(|| format!("ping gave no counts: {text}"))
    }
}

impl Namespace {
    /// Makes a namespace with a name of its own and its loopback up.
    ///
    /// # Errors
    /// When this is not root, or `ip` is missing.
    pub fn new() -> Result<Namespace> {
        SWEEP.call_once(sweep);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        Namespace::named(&name, Lifetime::Test)
    }

    /// Makes a namespace of a given name.
    ///
    /// # Errors
    /// As [`Namespace::new`], and when the name is taken.
    pub fn named(name: &str, lifetime: Lifetime) -> Result<Namespace> {
        output(ip(["netns", "add", name])?).context("making a network namespace (this needs root)")?;
        let namespace = Namespace { name: name.to_owned(), lifetime };
        namespace.run("ip", ["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A handle on a namespace that somebody else holds, and removes.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn existing(name: &str) -> Result<Namespace> {
        let mount = Path::new(MOUNTS).join(name);
        mount
            .try_exists()?
            .then(|| Namespace { name: name.to_owned(), lifetime: Lifetime::Kept })
            .with_context(|| format!("there is no network namespace {name}"))
    }

    /// A handle on the namespace that this process is in, for what the kernel puts nowhere else: the netdevs of PCI
    /// functions. In the VM alone, whose own it then is.
    ///
    /// # Errors
    /// When this is not the VM.
    pub fn of_vm() -> Result<Namespace> {
        anyhow::ensure!(Vm::inside(), "the namespace of this machine is nobody's to test in");
        if !Path::new(MOUNTS).join(OF_VM).exists() {
            output(ip(["netns", "attach", OF_VM, &std::process::id().to_string()])?)?;
        }
        Namespace::existing(OF_VM)
    }

    /// Names of every network namespace of this machine, whoever made it.
    #[must_use]
    pub fn names() -> Vec<String> {
        entries(Path::new(MOUNTS))
    }

    /// Ends the processes in a namespace that was kept, and removes it.
    pub fn end(name: &str) {
        remove(name);
    }

    /// Its name, as `ip netns` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in this namespace.
    ///
    /// # Errors
    /// When `ip` or the program is missing.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = ip(["netns", "exec", &self.name])?;
        command.arg(find_tool(program)?);
        Ok(command)
    }

    /// Runs a program in this namespace to its end and gives what it printed.
    ///
    /// # Errors
    /// When it is missing or fails.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.command(program)?;
        command.args(args);
        output(command)
    }

    /// Starts a program in this namespace that stays. Its process id is that of the program.
    ///
    /// # Errors
    /// When it is missing or cannot be started.
    pub fn daemon(
        &self,
        program: &Path,
        configure: impl FnOnce(&mut Command),
        log: &Path,
        lifetime: Lifetime,
    ) -> Result<Daemon> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let mut command = match lifetime {
            // A test that is itself killed must not leave a busy-polling daemon behind.
            Lifetime::Test => {
                let mut command = Command::new(find_tool("setpriv")?);
                command.args(["--pdeathsig", "KILL"]);
                command
            }
            // Out of reach of the terminal's Ctrl-C.
            Lifetime::Kept => Command::new(find_tool("setsid")?),
        };
        command.arg(find_tool("ip")?);
        command.args(["netns", "exec", &self.name]).arg(program);
        configure(&mut command);
        Daemon::start(&name, command, log, lifetime)
    }

    /// Runs `work` on a thread that is in this namespace, for sockets of the test's own.
    ///
    /// # Errors
    /// When the namespace cannot be entered; what `work` failed with.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let mount = Path::new(MOUNTS).join(&self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let handle = fs::File::open(&mount).with_context(|| format!("opening {}", mount.display()))?;
                setns(handle, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", mount.display()))?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects this namespace with another by a veth pair, both ends up: `here` in this one and
    /// `there`, with `address` (CIDR) if there is one, in the other.
    ///
    /// # Errors
    /// When a name is taken or the address is wrong.
    pub fn veth(
        &self,
        here: &str,
        other: &Namespace,
        there: &str,
        mac: Option<&str>,
        address: Option<&str>,
    ) -> Result<()> {
        let (own, peer) = (self.name.as_str(), other.name.as_str());
        output(ip(["-n", own, "link", "add", here, "type", "veth", "peer", "name", there, "netns", peer])?)?;
        if let Some(mac) = mac {
            output(ip(["-n", peer, "link", "set", there, "address", mac])?)?;
        }
        if let Some(address) = address {
            output(ip(["-n", peer, "addr", "add", address, "dev", there])?)?;
        }
        output(ip(["-n", own, "link", "set", here, "up"])?)?;
        output(ip(["-n", peer, "link", "set", there, "up"])?)?;
        Ok(())
    }

    /// Takes from a device all that a kernel leaves to hardware: Open vSwitch's userspace datapath has none, and takes
    /// packets as they are.
    ///
    /// # Errors
    /// When ethtool is missing.
    pub fn plain_device(&self, name: &str) -> Result<()> {
        self.run("ethtool", ["-K", name, "tx", "off", "gso", "off", "tso", "off"]).map(drop)
    }

    /// Sends `count` echo requests to `address`, a fifth of a second apart, waits at most a second
    /// for the last reply, and counts.
    ///
    /// # Errors
    /// When ping is missing or prints no count. Lost packets are not an error.
    pub fn ping(&self, address: &str, count: u32) -> Result<Ping> {
        self.ping_with(&[], address, count)
    }

    /// The same from one of several addresses.
    ///
    /// # Errors
    /// As [`Namespace::ping`].
    pub fn ping_from(&self, from: &str, address: &str, count: u32) -> Result<Ping> {
        self.ping_with(&["-I", from], address, count)
    }

    fn ping_with(&self, options: &[&str], address: &str, count: u32) -> Result<Ping> {
        let mut command = self.command("ping")?;
        command.args(options);
        let limit = (count / 5 + 5).to_string();
        command.args(["-n", "-q", "-i", "0.2", "-W", "1", "-w", &limit, "-c"]);
        let printed = command.arg(count.to_string()).arg(address).output()?;
        let text = String::from_utf8_lossy(&printed.stdout);
        ping_counts(&text).with_context(|| {
            let errors = String::from_utf8_lossy(&printed.stderr);
            format!("ping {address} gave no counts: {text}{errors}")
        })
    }

    /// Goes on sending an echo request to `address` every 20 ms until [`Pinging::stop`].
    ///
    /// # Errors
    /// When ping is missing.
    pub fn keep_pinging(&self, address: &str) -> Result<Pinging> {
        let directory = private_directory()?;
        let log = directory.path().join("ping.log");
        let configure = |command: &mut Command| {
            command.args(["-n", "-q", "-i", "0.02", address]);
        };
        let daemon = self.daemon(&find_tool("ping")?, configure, &log, Lifetime::Test)?;
        Ok(Pinging { daemon, log, _directory: directory })
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// When `ip` prints what is not understood.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|(n, _)| n == name).map(|(_, link)| link))
    }

    /// Every link of the namespace by name, the loopback left out.
    ///
    /// # Errors
    /// When `ip` prints what is not understood.
    pub fn links(&self) -> Result<Vec<(String, Link)>> {
        let text = self.run("ip", ["-json", "-details", "link", "show"])?;
        let links: Vec<Value> = serde_json::from_str(&text).context("ip -json link")?;
        Ok(links
            .iter()
            .filter(|link| link["ifname"] != "lo")
            .map(|link| {
                let name = link["ifname"].as_str().unwrap_or_default().to_owned();
                (name, Link::read(link))
            })
            .collect())
    }

    /// A kernel setting of a link, as text: `setting("ipv6", "tap0", "disable_ipv6")`.
    ///
    /// # Errors
    /// When there is no such link or setting.
    pub fn setting(&self, family: &str, link: &str, name: &str) -> Result<String> {
        let path = PathBuf::from("/proc/sys/net").join(family).join("conf").join(link).join(name);
        let text =
            self.enter(move || fs::read_to_string(&path).with_context(|| format!("reading {}", path.display())))?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Test {
            remove(&self.name);
        }
    }
}

impl Link {
    fn read(link: &Value) -> Link {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let flag = |name: &str| link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == name));
        Link {
            index: link["ifindex"].as_u64().unwrap_or_default(),
            kind: text(&link["linkinfo"]["info_kind"]),
            mac: text(&link["address"]),
            mtu: link["mtu"].as_u64().unwrap_or_default(),
            up: flag("UP"),
            promiscuous: flag("PROMISC"),
            master: link["master"].as_str().map(str::to_owned),
            alias: text(&link["ifalias"]),
            multi_queue: link["linkinfo"]["info_data"]["multi_queue"] == Value::Bool(true),
        }
    }
}

/// A directory of the lab with a name of its own, for daemons' files. Removed when dropped.
///
/// # Errors
/// When the temporary folder cannot be written.
pub(super) fn private_directory() -> Result<tempfile::TempDir> {
    SWEEP.call_once(sweep);
    // Not the default random name alone: the process id tells a later run whose it was.
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .context("making a directory for the lab")
}

fn ip<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let mut command = Command::new(find_tool("ip")?);
    command.args(args);
    Ok(command)
}

/// Ends the processes of a namespace of the lab and removes it. Failures mean that somebody else
/// removed it first.
fn remove(name: &str) {
    let pids = ip(["netns", "pids", name]).and_then(output).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = ip(["netns", "del", name]).and_then(output);
}

/// Removes what test runs that were killed left behind: namespaces, directories and control groups that carry the
/// id of a process that no longer exists.
fn sweep() {
    for name in abandoned(Path::new(MOUNTS)) {
        remove(&name);
    }
    let folder = std::env::temp_dir();
    for name in abandoned(&folder) {
        let _ = fs::remove_dir_all(folder.join(name));
    }
    if let Ok(groups) = control_groups() {
        for name in abandoned(&groups) {
            remove_control_groups(&groups.join(name));
        }
    }
}

fn abandoned(folder: &Path) -> Vec<String> {
    let gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
    let mut names = entries(folder);
    names.retain(|name| owner(name).is_some_and(gone));
    names
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Reads `5 packets transmitted, 4 received, …`.
fn ping_counts(text: &str) -> Option<Ping> {
    let line = text.lines().find(|line| line.contains(" transmitted"))?;
    let mut numbers = line.split(", ").map(|part| part.split(' ').next()?.parse().ok());
    Some(Ping { sent: numbers.next()??, received: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_lab_have_an_owner() {
        assert_eq!(owner("vifd-lab-4711-2"), Some(4711));
        assert_eq!(owner("vifd-lab-4711-xYz"), Some(4711));
        assert_eq!(owner("vifd-demo"), None);
        assert_eq!(owner("vifd-lab-x-2"), None);
        assert_eq!(owner("qrouter-1"), None);
    }

    #[test]
    fn ping_counts_are_read_with_and_without_errors() {
        let text = "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n\n\
                    --- 10.0.0.2 ping statistics ---\n\
                    5 packets transmitted, 4 received, 20% packet loss, time 803ms\n";
        assert_eq!(ping_counts(text), Some(Ping { sent: 5, received: 4 }));
        let text = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2ms\n";
        assert_eq!(ping_counts(text), Some(Ping { sent: 3, received: 0 }));
        assert_eq!(ping_counts("ping: unknown host\n"), None);
    }
}
