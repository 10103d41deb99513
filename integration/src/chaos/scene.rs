//! The lab of a life: Open vSwitch, vifd, the wire between them, what is wanted, and what is somebody else's.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::harm;
use super::life::{Clock, Life};
use super::look::{Look, Process};
use super::proxy::Proxy;
use super::wanted::{FLOWS, Form, Guest, SHARED, Wanted};
use crate::lab::{Daemon, Ovs, Record, Switch, Vifd, find_tool, tools_folder, until};

/// Keeps a failed round from hanging. Longer than the longest pause that vifd makes (60 s).
const LIMIT: Duration = Duration::from_secs(150);
/// How long a controller waits for an answer before it goes on and asks again later.
const PATIENCE: Duration = Duration::from_millis(400);
/// A link whose changes mean nothing to anybody.
const POKED: &str = "poked0";

/// The processes that things are done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemons {
    /// vifd.
    Vifd,
    /// ovsdb-server.
    Server,
    /// ovs-vswitchd.
    Switch,
}

impl fmt::Display for Daemons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Daemons::Vifd => "vifd",
            Daemons::Server => "ovsdb-server",
            Daemons::Switch => "ovs-vswitchd",
        })
    }
}

/// A lab and what it is to be like.
#[derive(Debug)]
pub struct Scene {
    // The order of the fields is the order in which they go.
    /// The agent.
    pub vifd: Vifd,
    /// The wire between vifd and ovsdb-server.
    pub proxy: Proxy,
    /// Open vSwitch.
    pub ovs: Ovs,
    /// Whose life it is.
    pub life: Life,
    /// What the controller wants.
    pub wanted: Wanted,
    /// Guests whose record could not be handed over or taken back for certain.
    owed: BTreeSet<u32>,
    /// Processes that are stopped or have ended.
    away: BTreeSet<Daemons>,
    /// Where libfaketime reads the offset.
    clock: Option<PathBuf>,
    /// What this process of vifd used when it was first looked at.
    first: Process,
}

impl Scene {
    /// Starts the lab of a life, with everything that is `wanted` handed over and ready.
    ///
    /// The calling thread gets a mount namespace of its own, in which the lab's small file systems are mounted. The
    /// scene belongs to that thread.
    ///
    /// # Errors
    /// When something cannot be started, or does not become ready.
    pub fn build(life: &Life, wanted: Wanted) -> Result<Scene> {
        let ovs = Ovs::start(life.switch)?;
        let mut vifd = Vifd::beside(&ovs)?;
        // In here the mounts end with the thread and its children, however those end.
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for small file systems")?;
        run("mount", &["--make-rslave", "/"])?;
        for folder in [vifd.records(), vifd.state()] {
            run("mount", &["-t", "tmpfs", "-o", "size=2m,mode=0755", "tmpfs", &folder.display().to_string()])?;
        }
        // Beside the server's own socket, so that vifd finds ovs-vswitchd's where it looks for it.
        let socket = ovs.run_directory().join("wire.sock");
        let proxy = Proxy::start(&socket, &ovs.run_directory().join("db.sock"))?;
        vifd.config.endpoint = Some(format!("unix:{}", socket.display()));
        let kind = if life.switch == Switch::Userspace { "datapath_type = \"netdev\"\n" } else { "" };
        vifd.config.more = format!("[[bridge]]\nname = \"{FLOWS}\"\nflows = \"managed\"\n{kind}");
        let clock = match life.clock {
            Clock::Kernel => None,
            Clock::Faked => Some(ovs.run_directory().join("clock")),
        };
        if let Some(file) = &clock {
            vifd.config.environment = faked(file)?;
        }
        let scene = Scene {
            vifd,
            proxy,
            ovs,
            life: life.clone(),
            wanted,
            owed: BTreeSet::new(),
            away: BTreeSet::new(),
            clock,
            first: Process::default(),
        };
        scene.populated()
    }

    /// Everything foreign, and then everything wanted.
    fn populated(mut self) -> Result<Scene> {
        self.set_clock(0)?;
        self.foreign()?;
        for guest in self.wanted.guests.values() {
            self.vifd.put(&guest.record(self.life.switch)?)?;
        }
        self.launch(Daemons::Vifd)?;
        self.settle()?;
        self.stamp()?;
        Ok(self)
    }

    /// What others have on this host: links, a bridge, ports on the bridge that is shared, keys, files.
    fn foreign(&self) -> Result<()> {
        let (ovs, space) = (&self.ovs, self.ovs.namespace());
        for link in [POKED, "foreign0", "foreign1"] {
            space.run("ip", ["tuntap", "add", "dev", link, "mode", "tap"])?;
        }
        // Long notifications, so that few of them fill a socket.
        let names = (0..100).map(|n| format!("link property add dev {POKED} altname {POKED}-{n:-<112}\n"));
        self.ip_batch(&names.collect::<String>())?;
        space.run("ip", ["link", "set", "foreign1", "alias", "somebody else's", "up"])?;
        let datapath = if self.life.switch == Switch::Userspace { "netdev" } else { "system" };
        for bridge in [SHARED, "br-foreign"] {
            let kind = format!("datapath_type={datapath}");
            ovs.vsctl(["add-br", bridge, "--", "set", "Bridge", bridge, &kind, "external_ids:somebody=else"])?;
        }
        ovs.vsctl(["set", "Open_vSwitch", ".", "external_ids:system-id=lab", "other_config:somebody=else"])?;
        let port = "add-port br-int foreign0 tag=7 -- set Interface foreign0 external_ids:iface-id=someone -- \
                    --id=@q create QoS type=linux-noop external_ids:id=someone -- set Port foreign0 qos=@q -- \
                    add-port br-foreign internal0 -- set Interface internal0 type=internal -- \
                    create QoS type=linux-noop external_ids:id=nobody";
        ovs.vsctl(port.split_whitespace())?;
        for (name, text) in [("README", "Records of this host."), (".hidden.json", "{"), ("notes.txt", "")] {
            fs::write(self.vifd.records().join(name), text)?;
        }
        Ok(())
    }

    /// Puts keys of others on every port of ours, and a flow of others beside ours: nothing may take them off as long as
    /// the port stands and the switch runs.
    pub(super) fn stamp(&self) -> Result<()> {
        let switch = harm::switch_of_flows(&self.ovs);
        self.ovs.ofctl(["-O", "OpenFlow14", "add-flow", &switch, "cookie=0x50b,table=99,actions=drop"])?;
        let mut command: Vec<String> = vec!["--no-wait".into()];
        for guest in self.wanted.guests.values().filter(|guest| guest.form.has_port()) {
            let name = self.record(guest)?.port_name();
            command.extend(["--".into(), "set".into(), "Interface".into(), name.clone()]);
            command.push(format!("external_ids:somebody=stamp-{}", guest.number));
            command.push(format!("other_config:somebody=stamp-{}", guest.number));
            command.extend(["--".into(), "set".into(), "Port".into(), name]);
            command.push(format!("other_config:somebody=stamp-{}", guest.number));
            command.push(format!("tag={}", guest.number % 4000 + 1));
        }
        self.ovs.vsctl(command).map(drop)
    }

    pub(super) fn record(&self, guest: &Guest) -> Result<Record> {
        guest.record(self.life.switch)
    }

    /// Hands a record over, as a controller: what fails is owed.
    pub(super) fn put(&mut self, guest: Guest, over_api: bool) -> Result<()> {
        let record = self.record(&guest)?;
        let number = guest.number;
        self.wanted.next = self.wanted.next.max(number + 1);
        self.wanted.guests.insert(number, guest);
        let handed_over = if over_api { self.put_over_api(&record) } else { self.vifd.put(&record) };
        if handed_over.is_ok() && self.wanted.guests[&number].form == Form::Tended {
            // What cannot be done now is done when everything is to be ready.
            let _ = harm::start_guest(&self.ovs, &record);
        }
        self.note(number, handed_over.is_ok());
        Ok(())
    }

    /// Takes a record back, as a controller: what fails is owed.
    pub(super) fn remove(&mut self, number: u32, over_api: bool) -> Result<()> {
        let guest = self.wanted.guests.remove(&number).with_context(|| format!("guest {number} is not there"))?;
        let record = self.record(&guest)?;
        let taken_back = if over_api { self.remove_over_api(&record) } else { self.vifd.remove(&record) };
        self.note(number, taken_back.is_ok());
        Ok(())
    }

    fn note(&mut self, number: u32, certain: bool) {
        // Once in doubt it stays so: a request that nobody waited for may still be carried out.
        if !certain {
            self.owed.insert(number);
        }
    }

    fn put_over_api(&self, record: &Record) -> Result<()> {
        let target = format!("/v1/vifs/{}", record.id());
        self.expect_accepted("PUT", &target, Some(&record.0.to_string()))
    }

    fn remove_over_api(&self, record: &Record) -> Result<()> {
        self.expect_accepted("DELETE", &format!("/v1/vifs/{}", record.id()), None)
    }

    fn expect_accepted(&self, method: &str, target: &str, body: Option<&str>) -> Result<()> {
        let response = self.vifd.api_within(PATIENCE, method, target, body)?;
        match response.status {
            202 => Ok(()),
            other => bail!("{method} {target}: {other} {}", response.body),
        }
    }

    /// Does what was in doubt once more, with nothing in the way any more.
    fn pay_debts(&mut self) -> Result<()> {
        for number in std::mem::take(&mut self.owed) {
            // The last word is the controller's; a request from before may have been the last so far.
            let guest = self.wanted.guests.get(&number);
            let id = guest.map_or_else(|| id(number), |guest| self.record(guest).map(|record| record.id()))?;
            let body = guest.map(|guest| self.record(guest)).transpose()?.map(|record| record.0.to_string());
            let method = if body.is_some() { "PUT" } else { "DELETE" };
            let target = format!("/v1/vifs/{id}");
            let response = self.vifd.api(method, &target, body.as_deref())?;
            // A deletion that nobody waited for may have been carried out to its end.
            let done = response.status == 202 || (body.is_none() && response.status == 404);
            if !done {
                bail!("{method} {target}, with nothing in the way: {} {}", response.status, response.body);
            }
        }
        Ok(())
    }

    /// Sends a signal to a process that is not away.
    pub(super) fn signal(&mut self, process: Daemons, signal: Signal) -> Result<()> {
        match signal {
            Signal::SIGSTOP => drop(self.away.insert(process)),
            Signal::SIGCONT => drop(self.away.remove(&process)),
            _ => {}
        }
        self.daemon(process)?.signal(signal)
    }

    fn daemon(&mut self, process: Daemons) -> Result<&Daemon> {
        match process {
            Daemons::Vifd => self.vifd.daemon().map(|daemon| &*daemon),
            Daemons::Server => self.ovs.server(),
            Daemons::Switch => self.ovs.vswitchd(),
        }
        .with_context(|| format!("{process} does not run"))
    }

    /// Ends a process, with SIGTERM or SIGKILL.
    pub(super) fn end(&mut self, process: Daemons, signal: Signal) -> Result<()> {
        self.away.insert(process);
        match (process, signal) {
            (Daemons::Vifd, Signal::SIGKILL) => self.vifd.kill(),
            (Daemons::Vifd, _) => self.vifd.stop(),
            (Daemons::Server, _) => self.ovs.stop_server(signal),
            (Daemons::Switch, _) => self.ovs.stop_vswitchd(signal),
        }
    }

    /// Starts a process again, without waiting.
    pub(super) fn launch(&mut self, process: Daemons) -> Result<()> {
        self.away.remove(&process);
        match process {
            Daemons::Vifd => self.vifd.launch(),
            Daemons::Server => self.ovs.launch_server(),
            Daemons::Switch => self.ovs.launch_vswitchd(),
        }
    }

    /// Whether a process runs.
    pub(super) fn answers(&self, process: Daemons) -> bool {
        !self.away.contains(&process)
    }

    /// Moves vifd's wall clock to so many seconds beside the host's.
    pub(super) fn set_clock(&self, seconds: i64) -> Result<()> {
        let Some(file) = &self.clock else { return Ok(()) };
        // By rename: half an offset is another offset.
        let new = file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, file).context("setting the faked clock")
    }

    /// Makes ovsdb-server tell everybody of something that means nothing, and of its end.
    pub(super) fn provoke(&self) -> Result<()> {
        let quick = ["--timeout=1", "--no-wait"];
        self.ovs.vsctl(quick.iter().chain(&["set", "Interface", "internal0", "external_ids:provoked=yes"]))?;
        self.ovs.vsctl(quick.iter().chain(&["remove", "Interface", "internal0", "external_ids", "provoked"])).map(drop)
    }

    /// So many notifications about a link that nobody cares for.
    pub(super) fn flood(&self, count: usize) -> Result<()> {
        let lines = (0..count).map(|n| format!("link set dev {POKED} mtu {}\n", 1400 + n % 2));
        self.ip_batch(&lines.collect::<String>())
    }

    fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut command = self.ovs.namespace().command("ip")?;
        let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("its input")?.write_all(lines.as_bytes())?;
        let status = child.wait()?;
        if !status.success() {
            bail!("ip -batch: {status}");
        }
        Ok(())
    }

    /// Notifications that the kernel could not put into vifd's sockets (proc_net_netlink, column `Drops`).
    pub(super) fn lost_notifications(&mut self) -> Result<u64> {
        let pid = self.daemon(Daemons::Vifd)?.pid();
        let mut own = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            own.extend::<Option<u64>>(inode);
        }
        let table = fs::read_to_string(format!("/proc/{pid}/net/netlink"))?;
        let drops = table.lines().skip(1).filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let inode: u64 = columns.get(9)?.parse().ok()?;
            own.contains(&inode).then(|| columns[8].parse::<u64>().ok())?
        });
        Ok(drops.sum())
    }

    /// Waits until everything is as it is wanted by vifd's own account and it has nothing more to do; answers how
    /// long that took.
    ///
    /// # Errors
    /// When it does not come to that, with what is missing.
    pub(super) fn settle(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.ovs.server_answers()?;
        self.ovs.vswitchd_answers()?;
        self.vifd.until("the API of vifd answers", |vifd| Ok(vifd.api("GET", "/healthz", None).ok()))?;
        self.pay_debts()?;
        let wanted = self.ids()?;
        let tended: Vec<&Guest> = self.wanted.guests.values().filter(|guest| guest.form == Form::Tended).collect();
        let tended = tended.into_iter().map(|guest| self.record(guest)).collect::<Result<Vec<Record>>>()?;
        let ovs = &self.ovs;
        let mut odd = String::new();
        let settled = self.vifd.until_within(LIMIT, "everything is ready and nothing is left to do", |vifd| {
            let statuses = vifd.statuses()?;
            let other = statuses.iter().find(|status| {
                status["phase"] != "ready" || !wanted.contains(status["id"].as_str().unwrap_or_default())
            });
            odd = other.map(ToString::to_string).unwrap_or_default();
            // What is plugged waits for its hypervisor. The bridge may not be there yet: then once more.
            if let Some(record) = other.and_then(|other| tended.iter().find(|record| other["id"] == record.id()))
                && other.is_some_and(|other| other["phase"] == "plugged")
            {
                let _ = harm::start_guest(ovs, record);
            }
            if !odd.is_empty() || statuses.len() != wanted.len() {
                return Ok(None);
            }
            let ready = vifd.api("GET", "/readyz", None)?;
            let plan = vifd.api("GET", "/v1/plan", None)?;
            odd = format!("/readyz: {} {}, /v1/plan: {}", ready.status, ready.body, plan.body);
            let plan: serde_json::Value = serde_json::from_str(&plan.body)?;
            let idle = plan["operations"].as_array().is_some_and(Vec::is_empty);
            Ok((ready.status == 200 && idle).then_some(()))
        });
        settled.with_context(|| format!("{} are wanted; what is not so: {odd}", wanted.len()))?;
        Ok(start.elapsed())
    }

    /// The ids of the VIFs that are wanted.
    pub(super) fn ids(&self) -> Result<BTreeSet<String>> {
        self.wanted.guests.values().map(|guest| Ok(self.record(guest)?.id())).collect()
    }

    /// Makes vifd look at everything once more without a cause, and answers how many writes it has sent by then.
    ///
    /// # Errors
    /// When vifd does not answer, or does not look.
    pub fn writes_after_another_look(&mut self) -> Result<f64> {
        let plans = self.vifd.metric("vifd_plan_seconds_count", "")?;
        let mtu = if self.ovs.namespace().link(POKED)?.is_some_and(|link| link.mtu == 1500) { "1499" } else { "1500" };
        self.ovs.namespace().run("ip", ["link", "set", POKED, "mtu", mtu])?;
        self.vifd.until("vifd has looked again", |vifd| {
            Ok((vifd.metric("vifd_plan_seconds_count", "")? > plans).then_some(()))
        })?;
        // What that plan might have led to is sent by now: it is counted before it is.
        std::thread::sleep(Duration::from_millis(20));
        self.writes()
    }

    /// Writes that this process of vifd has sent.
    ///
    /// # Errors
    /// When vifd does not answer.
    pub fn writes(&self) -> Result<f64> {
        self.vifd.metric("vifd_writes_total", "")
    }

    /// Looks at the host.
    pub(super) fn look(&self) -> Result<Look> {
        Look::take(&self.ovs, &self.vifd, POKED)
    }

    /// What vifd's process used when it was first looked at, and what it uses now.
    pub(super) fn process(&mut self) -> Result<(Process, Process)> {
        let now = Process::read(self.daemon(Daemons::Vifd)?.pid())?;
        if self.first.pid != now.pid {
            self.first = now;
        }
        Ok((self.first, now))
    }

    /// Copies logs, database, configuration and records into a folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn keep(&self, folder: &std::path::Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut files = vec![self.vifd.log_file(), self.vifd.config_file(), self.ovs.database_file()];
        for entry in fs::read_dir(self.ovs.log_directory())? {
            files.push(entry?.path());
        }
        for file in files {
            if let Some(name) = file.file_name() {
                fs::copy(&file, folder.join(name)).with_context(|| file.display().to_string())?;
            }
        }
        for (name, from) in [("records", self.vifd.records()), ("state", self.vifd.state())] {
            fs::create_dir_all(folder.join(name))?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    fs::copy(entry.path(), folder.join(name).join(entry.file_name()))?;
                }
            }
        }
        let links = self.ovs.namespace().run("ip", ["-details", "link", "show"])?;
        fs::write(folder.join("links.txt"), links)?;
        Ok(())
    }
}

/// The id of a guest that has no record any more.
fn id(number: u32) -> Result<String> {
    Ok(Record::fixture("generic")?.numbered(number).id())
}

/// The variables that put libfaketime between vifd and its wall clock.
fn faked(clock: &std::path::Path) -> Result<Vec<(String, String)>> {
    let library = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"]
        .into_iter()
        .map(|folder| tools_folder().join("root").join(folder).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .context("libfaketime is not on this machine: run `make deps`")?;
    let library = library.canonicalize()?.display().to_string();
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        // What files say is what the file system says.
        ("NO_FAKE_STAT", "1"),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = std::process::Command::new(find_tool(program)?).args(args).output()?;
    if !output.status.success() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Waits, as [`until`] does, for the end of an interruption's signal: used by rounds between their moments.
pub(super) fn sleep_until(moment: Instant) -> Result<()> {
    until("the next moment of the round has come", Duration::MAX, || Ok((Instant::now() >= moment).then_some(())))
}
