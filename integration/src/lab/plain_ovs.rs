//! Open vSwitch for the tests of one library: an ovsdb-server and, for those who want it, an ovs-vswitchd on the dummy
//! datapath, in a private directory. It needs neither privilege nor namespace; [`Ovs`](super::Ovs) is the one that has
//! real ports.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::ovs::schema;
use super::process::{Daemon, Lifetime, output};
use super::tools::find_tool;
use super::wait::until;

/// How long anything may take on a busy machine before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Open vSwitch in a directory that goes with this value.
#[derive(Debug)]
pub struct PlainOvs {
    // The order of the fields is the order in which they go.
    vswitchd: Option<Daemon>,
    server: Option<Daemon>,
    directory: tempfile::TempDir,
    server_arguments: Vec<String>,
    vswitchd_arguments: Vec<String>,
}

impl PlainOvs {
    /// An ovsdb-server with an empty `Open_vSwitch` database on the unix socket `db.sock`.
    ///
    /// # Errors
    /// When a program is missing or does not come up.
    pub fn database() -> Result<PlainOvs> {
        PlainOvs::serving(create, |_| Vec::new())
    }

    /// The same with further arguments for ovsdb-server, given the directory.
    ///
    /// # Errors
    /// As [`PlainOvs::database`].
    pub fn database_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Result<PlainOvs> {
        PlainOvs::serving(create, arguments)
    }

    /// An ovsdb-server with a database that the caller makes at this path.
    ///
    /// # Errors
    /// As [`PlainOvs::database`].
    pub fn serving(
        create: impl FnOnce(&Path) -> Result<()>,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<PlainOvs> {
        let directory = tempfile::tempdir()?;
        create(&directory.path().join("conf.db"))?;
        let server_arguments = arguments(directory.path());
        let mut ovs =
            PlainOvs { vswitchd: None, server: None, directory, server_arguments, vswitchd_arguments: Vec::new() };
        ovs.start_server()?;
        Ok(ovs)
    }

    /// Both daemons, ovs-vswitchd with further arguments.
    ///
    /// # Errors
    /// As [`PlainOvs::database`].
    pub fn switch(arguments: Vec<String>) -> Result<PlainOvs> {
        let mut ovs = PlainOvs::database()?;
        ovs.vswitchd_arguments = arguments;
        ovs.vsctl(&["--no-wait", "init"])?;
        ovs.start_vswitchd()?;
        Ok(ovs)
    }

    /// A file of the directory: `conf.db`, `db.sock`, `BRIDGE.mgmt`, `ovsdb-server.ctl`, `ovs-vswitchd.log`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The database, as a client dials it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    /// Starts ovsdb-server and waits for its socket.
    ///
    /// # Errors
    /// When it does not come up; with the end of what it printed.
    pub fn start_server(&mut self) -> Result<()> {
        let mut arguments = vec![self.path("conf.db").display().to_string(), format!("--remote=p{}", self.endpoint())];
        arguments.extend_from_slice(&self.server_arguments);
        let mut daemon = self.daemon("ovsdb-server", &arguments)?;
        let socket = self.path("db.sock");
        until("ovsdb-server answers", PATIENCE, || {
            daemon.check_running()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        self.server = Some(daemon);
        Ok(())
    }

    /// Kills ovsdb-server without a warning.
    pub fn kill_server(&mut self) {
        drop(self.server.take());
        // Whether it is there tells whether the next one is up.
        let _ = std::fs::remove_file(self.path("db.sock"));
    }

    /// Starts ovs-vswitchd and waits until it has made what the database has.
    ///
    /// # Errors
    /// When it does not come up; with the end of what it printed.
    pub fn start_vswitchd(&mut self) -> Result<()> {
        let mut arguments = vec![self.endpoint(), "--enable-dummy".to_owned(), "--disable-system".to_owned()];
        arguments.extend_from_slice(&self.vswitchd_arguments);
        let mut daemon = self.daemon("ovs-vswitchd", &arguments)?;
        let socket = self.path("ovs-vswitchd.ctl");
        until("ovs-vswitchd answers", PATIENCE, || {
            daemon.check_running()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        self.vswitchd = Some(daemon);
        // Without --no-wait it returns when ovs-vswitchd has read the database.
        self.vsctl(&["init"]).map(drop)
    }

    /// Kills ovs-vswitchd without a warning.
    pub fn kill_vswitchd(&mut self) {
        drop(self.vswitchd.take());
        let _ = std::fs::remove_file(self.path("ovs-vswitchd.ctl"));
    }

    /// The log of `ovsdb-server` or `ovs-vswitchd`; empty while there is none.
    #[must_use]
    pub fn log(&self, daemon: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{daemon}.log"))).unwrap_or_default()
    }

    /// Runs ovs-vsctl, which waits for ovs-vswitchd unless told otherwise.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(find_tool("ovs-vsctl")?);
        command.arg(format!("--db={}", self.endpoint())).arg("--timeout=60").args(arguments);
        output(command)
    }

    /// Runs a command of `ovs-ofctl -O OpenFlow14` on a bridge: what stands before the bridge, what behind it, and what
    /// it reads.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn ofctl(&self, bridge: &str, before: &[&str], behind: &[&str], input: &str) -> Result<String> {
        let socket = format!("unix:{}", self.path(&format!("{bridge}.mgmt")).display());
        filter("ovs-ofctl", &[&["-O", "OpenFlow14"], before, &[&socket], behind].concat(), input)
    }

    /// Has `ovsdb-server` or `ovs-vswitchd` do a command by its control socket (`unixctl`, JSON-RPC).
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub fn control(&self, daemon: &str, method: &str, arguments: &[&str]) -> Result<String> {
        let mut socket = UnixStream::connect(self.path(&format!("{daemon}.ctl")))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let request = json!({ "id": 0, "method": method, "params": arguments });
        socket.write_all(request.to_string().as_bytes())?;
        let mut answers = serde_json::Deserializer::from_reader(std::io::BufReader::new(&socket)).into_iter::<Value>();
        let answer = answers.next().context("no answer")??;
        match &answer["result"] {
            Value::String(text) => Ok(text.clone()),
            _ => bail!("{method} {arguments:?}: {answer}"),
        }
    }

    fn daemon(&self, name: &str, arguments: &[String]) -> Result<Daemon> {
        let mut command = Command::new(find_tool(name)?);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.directory.path());
        }
        command
            .arg(format!("--unixctl={}", self.path(&format!("{name}.ctl")).display()))
            .arg(format!("--log-file={}", self.path(&format!("{name}.log")).display()))
            .args(["-vconsole:off", "-vsyslog:off", "-vfile:info"])
            .args(arguments);
        Daemon::start(name, command, &self.path(&format!("{name}.out")), Lifetime::Test)
    }
}

fn create(database: &Path) -> Result<()> {
    let mut command = Command::new(find_tool("ovsdb-tool")?);
    command.arg("create").arg(database).arg(schema()?);
    output(command).map(drop)
}

/// Runs a program of Open vSwitch with a text to read, and gives what it wrote.
///
/// # Errors
/// When it is missing or fails; with what it said.
pub fn filter(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(find_tool(program)?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("its input")?;
    // What it writes may be more than a pipe holds before it has read everything. One that ends early says why itself.
    let done = std::thread::scope(|threads| {
        threads.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    })?;
    if !done.status.success() {
        bail!("{program} {arguments:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    String::from_utf8(done.stdout).with_context(|| format!("{program} printed other than UTF-8"))
}
