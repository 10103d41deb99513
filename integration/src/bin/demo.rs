//! `make demo`: vifd on a private Open vSwitch, from nothing to guests that ping each other, and back.
//!
//! Everything is in network namespaces and a directory of its own. The demo plays the other parts:
//! the controller that writes records, the hypervisor that brings devices, and an operator who makes
//! a mistake.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use vifd_integration::lab::{Lifetime, Namespace, Ovs, Record, Switch, Vifd, find_tool, interrupt, until};

const NAME: &str = "vifd-demo";
const LIMIT: Duration = Duration::from_secs(30);
/// The bridge of the examples, with flows that vifd makes.
const MANAGED: &str = "[[bridge]]\nname = \"br-int\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n";
/// An address that is nobody's.
const STOLEN: &str = "10.0.0.66";

const USAGE: &str = "usage: demo [--keep | --down]
  --keep   leave everything running
  --down   end what --keep left running";

fn main() -> ExitCode {
    let mode = match std::env::args().nth(1).as_deref() {
        None => Mode::Once,
        Some("--keep") => Mode::Keep,
        Some("--down") => {
            let gone = if kept().next().is_some() { "The demo is gone." } else { "No demo is running." };
            down();
            println!("{gone}");
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Before anything is made: what fails later is taken down, and this demo is not ours to take down.
    if mode == Mode::Keep && kept().next().is_some() {
        eprintln!("A demo is running already and goes on: `make demo-down` ends it.");
        return ExitCode::FAILURE;
    }
    match interruptible().and_then(|()| run(mode)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", Style::detect().bad("The demo failed:"));
            if mode == Mode::Keep {
                down();
            }
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Once,
    Keep,
}

/// Lets Ctrl-C end the next wait with an error, so that everything is taken down on the way out.
/// The signals are handled and not blocked: what is blocked here would be blocked in every daemon.
fn interruptible() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupted, mut terminated, mut hung_up) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
                _ = hung_up.recv() => {}
            }
        });
        interrupt();
    });
    Ok(())
}

fn run(mode: Mode) -> Result<()> {
    let style = Style::detect();
    let records = Record::examples()?;

    style.step("A private Open vSwitch, userspace datapath, in a network namespace of its own");
    let ovs = switch(mode)?;
    println!("  {} ovsdb-server and ovs-vswitchd run, and know of no bridge", ovs.endpoint());

    style.step("vifd beside it");
    let mut vifd = match mode {
        Mode::Once => Vifd::beside(&ovs)?,
        Mode::Keep => Vifd::beside_kept(&ovs, &kept_directory("vifd")?)?,
    };
    vifd.config.more = MANAGED.to_owned();
    vifd.start()?;
    println!("  {} lists what vifd keeps: nothing yet", vifd.socket().display());
    println!("  bridge br-int is vifd's to make, and its flows too: nothing passes that no flow lets pass");

    style.step("A controller writes records, as os-vif serializes them, into vifd's directory");
    let mut watch = Watch::new(style);
    for (path, record) in &records {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        watch.expect(record);
        println!("  {:<6} {name}", record.instance_name());
        vifd.put(record)?;
    }
    watch.follow(&mut vifd, |_, phase| matches!(phase, "ready" | "plugged"))?;

    style.step("A hypervisor brings the devices of alice and bob, and the guests start");
    let mut guests = Vec::new();
    for (_, record) in records.iter().take(2) {
        guests.push(Guest::start(mode, &ovs, record)?);
    }
    watch.follow(&mut vifd, |_, phase| phase == "ready")?;
    let [alice, bob] = &guests[..] else {
        bail!("the demo needs two guests");
    };

    style.step(&format!("{} pings {}", alice.name, bob.name));
    ping(style, alice, bob)?;

    style.step(&format!("Where such a packet goes, as `vifd trace {} --to {}` tells it", alice.name, bob.name));
    show(&vifd, &["trace", &alice.name, "--to", &bob.name])?;

    style.step(&format!("{} sends from {STOLEN}, which is not hers", alice.name));
    alice.namespace.run("ip", ["address", "add", &format!("{STOLEN}/32"), "dev", "eth0"])?;
    let counts = alice.namespace.ping_from(STOLEN, &bob.address, 3)?;
    if counts.received > 0 {
        bail!("{} replies to an address that is not hers", counts.received);
    }
    alice.namespace.run("ip", ["address", "del", &format!("{STOLEN}/32"), "dev", "eth0"])?;
    println!("  {}", style.good(&format!("none of {} left her port", counts.sent)));
    let reason = format!("vif=\"{}\",reason=\"ip_spoof\"", alice.id);
    let dropped = until("vifd has counted them", LIMIT, || {
        Ok(Some(vifd.metric("vifd_vif_dropped_packets_total", &reason)?).filter(|dropped| *dropped > 0.0))
    })?;
    println!("  vifd_vif_dropped_packets_total{{{reason}}} {dropped} so far: a switch lags behind with its counters");

    style.step(&format!("An operator's mistake: ovs-vsctl del-port {}", alice.port));
    let since = |status: &Value| status["since"].clone();
    let had = vifd.status(&alice.id)?.as_ref().map(since);
    let before = Instant::now();
    ovs.vsctl(["--no-wait", "del-port", &alice.port])?;
    let is_back = |status: &Value| status["phase"] == "ready" && Some(since(status)) != had;
    vifd.wait_until(&alice.id, "been made ready anew", is_back)?;
    println!("  the port is back and usable {} ms later", before.elapsed().as_millis());
    ping(style, alice, bob)?;

    style.step("This host now, as `vifd status` draws it");
    show(&vifd, &["status"])?;

    if mode == Mode::Keep {
        keep(style, &ovs, &vifd, alice, bob)?;
        return Ok(());
    }
    style.step("The controller takes the records away, and vifd what it had made");
    for (_, record) in &records {
        vifd.remove(record)?;
    }
    for (_, record) in &records {
        vifd.wait_gone(&record.id())?;
    }
    let left = ovs.vsctl(["list-ports", "br-int"])?;
    if !left.is_empty() {
        bail!("ports are left on br-int: {left}");
    }
    println!("  no port is left on br-int");
    vifd.stop()?;
    println!("\n{} Everything is taken down.", style.good("It worked."));
    Ok(())
}

/// Runs vifd as a client, which prints by itself.
fn show(vifd: &Vifd, arguments: &[&str]) -> Result<()> {
    let shown = vifd.client(arguments)?.status()?;
    if !shown.success() {
        bail!("vifd {}: {shown}", arguments.join(" "));
    }
    Ok(())
}

fn switch(mode: Mode) -> Result<Ovs> {
    match mode {
        Mode::Once => Ovs::start(Switch::Userspace),
        Mode::Keep => {
            let namespace = Namespace::named(NAME, Lifetime::Kept)?;
            Ovs::start_kept(Switch::Userspace, namespace, &kept_directory("ovs")?)
        }
    }
}

struct Guest {
    id: String,
    name: String,
    port: String,
    address: String,
    namespace: Namespace,
}

impl Guest {
    /// A namespace that stands for a guest, with the device that the record's VIF is to attach.
    fn start(mode: Mode, ovs: &Ovs, record: &Record) -> Result<Guest> {
        let name = record.instance_name();
        let namespace = match mode {
            Mode::Once => Namespace::new()?,
            Mode::Keep => Namespace::named(&format!("{NAME}-{name}"), Lifetime::Kept)?,
        };
        let port = record.vif_name();
        let address = format!("{}/24", record.ip());
        let host = ovs.namespace();
        host.veth(&port, &namespace, "eth0", Some(&record.mac()), Some(&address))?;
        Ok(Guest { id: record.id(), name, port, address: record.ip(), namespace })
    }
}

/// Prints how VIFs go from phase to phase.
struct Watch {
    style: Style,
    started: Instant,
    names: BTreeMap<String, String>,
    seen: BTreeMap<String, String>,
}

impl Watch {
    fn new(style: Style) -> Watch {
        Watch { style, started: Instant::now(), names: BTreeMap::new(), seen: BTreeMap::new() }
    }

    fn expect(&mut self, record: &Record) {
        self.names.insert(record.id(), record.instance_name());
    }

    /// Until every VIF is in a phase that `done` likes.
    fn follow(&mut self, vifd: &mut Vifd, done: impl Fn(&str, &str) -> bool) -> Result<()> {
        vifd.until("every VIF is where it shall be", |vifd| {
            let statuses = vifd.statuses()?;
            for status in &statuses {
                self.show(status)?;
            }
            let all = statuses.len() == self.names.len()
                && statuses.iter().all(|status| done(&text(status, "id"), &text(status, "phase")));
            Ok(all.then_some(()))
        })
    }

    fn show(&mut self, status: &Value) -> Result<()> {
        let (id, phase) = (text(status, "id"), text(status, "phase"));
        let name = self.names.get(&id).with_context(|| format!("whose VIF is {id}?"))?;
        if self.seen.get(&id) == Some(&phase) {
            return Ok(());
        }
        let shown = match phase.as_str() {
            "ready" => self.style.good(&format!("{phase:<8}")),
            "failed" | "conflict" => self.style.bad(&format!("{phase:<8}")),
            _ => format!("{phase:<8}"),
        };
        let after = self.started.elapsed().as_secs_f64();
        println!("  {after:5.2} s  {name:<6} {shown} {}", text(status, "message"));
        self.seen.insert(id, phase);
        Ok(())
    }
}

fn ping(style: Style, from: &Guest, to: &Guest) -> Result<()> {
    let counts = from.namespace.ping(&to.address, 5)?;
    let line = format!("{} of {} replies from {}", counts.received, counts.sent, to.address);
    if counts.received < counts.sent {
        bail!("{line}");
    }
    println!("  {}", style.good(&line));
    Ok(())
}

fn keep(style: Style, ovs: &Ovs, vifd: &Vifd, alice: &Guest, bob: &Guest) -> Result<()> {
    let program = Vifd::program()?;
    let program = program.display();
    let vsctl = find_tool("ovs-vsctl")?;
    let vsctl = match (vsctl.parent().map(fs::canonicalize), vsctl.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => vsctl,
    };
    let network = ovs.namespace().name();
    style.step("It stays. Try, as root:");
    // The socket is in the configuration; where both are set, a socket of another agent would be asked.
    println!("  unset VIFD_SOCKET; export VIFD_CONFIG={}", vifd.config_file().display());
    println!("  {program} status");
    println!("  {program} get --watch");
    println!("  {program} get -o json");
    println!("  {program} describe {}", alice.name);
    println!("  {program} flows {}", alice.name);
    println!("  {program} trace {} --to {} --tcp-dst 22", alice.name, bob.name);
    println!("  {program} plan");
    println!("  {program} doctor");
    println!("  {program} plug FILE --wait    # a record of your own: these, with another id, name and addresses");
    println!("  ls {}", vifd.records().display());
    println!("  ip netns exec {} ping {}", alice.namespace.name(), bob.address);
    println!("  {} --db={} show", vsctl.display(), ovs.endpoint());
    println!("  less {}", vifd.log_file().display());
    println!("  make demo-down");
    println!("Metrics are served in its network namespace; where curl is installed:");
    println!("  ip netns exec {network} curl -s http://{}/metrics", vifd.metrics_listen());
    Ok(())
}

/// A directory that outlives the demo.
fn kept_directory(name: &str) -> Result<PathBuf> {
    let path = Path::new("/run").join(NAME).join(name);
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// The namespaces of a demo that was left running.
fn kept() -> impl Iterator<Item = String> {
    Namespace::names().into_iter().filter(|name| name == NAME || name.starts_with(&format!("{NAME}-")))
}

fn down() {
    for name in kept() {
        Namespace::end(&name);
    }
    // It may never have been made.
    let _ = fs::remove_dir_all(Path::new("/run").join(NAME));
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// Colours, unless the output is no terminal or `NO_COLOR` is set (<https://no-color.org>).
#[derive(Clone, Copy)]
struct Style {
    colours: bool,
}

impl Style {
    fn detect() -> Style {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style { colours: !unwanted && std::io::stdout().is_terminal() }
    }

    fn step(self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
