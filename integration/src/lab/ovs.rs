//! A private Open vSwitch: its own ovsdb-server and ovs-vswitchd, in directories and a network
//! namespace of their own. The `ovs-*` programs are used here to verify and to do harm, as an
//! operator would, never to do the agent's work.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::namespace::{Namespace, private_directory};
use super::process::{Daemon, Lifetime, output};
use super::tools::{find_tool, tools_folder};
use super::wait::until;

const START: Duration = Duration::from_secs(30);

/// Which ovs-vswitchd runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// The userspace datapath on real links. Bridges need `datapath_type=netdev`.
    Userspace,
    /// The kernel's datapath, which the namespace has one of to itself. Bridges need `datapath_type=system`. Where the
    /// kernel has it is [`in_vm`](super::in_vm).
    Kernel,
    /// `--enable-dummy=system`: bridges of type `system` switch nothing, and take any port without
    /// looking at the kernel. For everything about rows, and for thousands of ports.
    Dummy,
    /// DPDK without hugepages and without NICs, for vhost-user. Its polling thread takes a
    /// processor for itself: one at a time, briefly.
    Dpdk,
}

/// A row by column name. Sets are arrays (with one element: the bare element, as RFC 7047 sends
/// it), maps are objects, references are their UUIDs as strings.
pub type Row = BTreeMap<String, Value>;

/// A private Open vSwitch. Dropping it ends both daemons and removes namespace and directories.
#[derive(Debug)]
pub struct Ovs {
    switch: Switch,
    lifetime: Lifetime,
    // The order of the fields is the order in which they go.
    vswitchd: Option<Daemon>,
    server: Option<Daemon>,
    namespace: Namespace,
    directory: PathBuf,
    _removed_with: Option<tempfile::TempDir>,
    /// More of what ovs-vswitchd writes down, as its option `-v` takes it.
    pub(super) verbosity: Vec<String>,
}

/// One transaction, as the database's own log has it.
#[derive(Clone, Debug)]
pub struct LogRecord(Value);

impl LogRecord {
    /// How many rows of a table, judged by `column`, which every row of it has from the start and
    /// never changes (`name`, for most), this transaction inserted.
    #[must_use]
    pub fn inserted(&self, table: &str, column: &str) -> usize {
        self.rows(table).filter(|row| row.get(column).is_some()).count()
    }

    /// How many rows of a table this transaction deleted.
    #[must_use]
    pub fn deleted(&self, table: &str) -> usize {
        self.rows(table).filter(|row| row.is_null()).count()
    }

    /// What the client that sent it said it was for.
    #[must_use]
    pub fn comment(&self) -> &str {
        self.0["_comment"].as_str().unwrap_or_default()
    }

    /// What it wrote to the row that it inserted with this `name`. Columns that have their defaults are not there.
    #[must_use]
    pub fn row(&self, table: &str, name: &str) -> Option<&Value> {
        self.rows(table).find(|row| row["name"] == name)
    }

    fn rows(&self, table: &str) -> impl Iterator<Item = &Value> {
        self.0[table].as_object().into_iter().flat_map(|rows| rows.values())
    }
}

impl Ovs {
    /// Starts both daemons, in a namespace of their own, and waits until they answer.
    ///
    /// # Errors
    /// When a program is missing or a daemon does not come up; with the end of its log.
    pub fn start(switch: Switch) -> Result<Ovs> {
        Ovs::start_in(switch, Namespace::new()?)
    }

    /// The same in a given namespace.
    ///
    /// # Errors
    /// As [`Ovs::start`].
    pub fn start_in(switch: Switch, namespace: Namespace) -> Result<Ovs> {
        let directory = private_directory()?;
        let path = directory.path().to_owned();
        Ovs::build(switch, Lifetime::Test, namespace, path, Some(directory))
    }

    /// The same in a given namespace and an existing directory that stay when this is dropped.
    ///
    /// # Errors
    /// As [`Ovs::start`].
    pub fn start_kept(switch: Switch, namespace: Namespace, directory: &Path) -> Result<Ovs> {
        Ovs::build(switch, Lifetime::Kept, namespace, directory.to_owned(), None)
    }

    fn build(
        switch: Switch,
        lifetime: Lifetime,
        namespace: Namespace,
        directory: PathBuf,
        removed_with: Option<tempfile::TempDir>,
    ) -> Result<Ovs> {
        if switch == Switch::Kernel {
            await_datapath()?;
        }
        for folder in ["run", "db", "log", "etc"] {
            std::fs::create_dir(directory.join(folder))?;
        }
        let mut ovs = Ovs {
            switch,
            lifetime,
            vswitchd: None,
            server: None,
            namespace,
            directory,
            _removed_with: removed_with,
            verbosity: Vec::new(),
        };
        let mut create = Command::new(find_tool("ovsdb-tool")?);
        create.arg("create").arg(ovs.database_file()).arg(schema()?);
        output(create)?;
        ovs.start_server()?;
        ovs.vsctl(["--no-wait", "init"])?;
        if switch == Switch::Dpdk {
            let prefix = ovs.namespace.name();
            let extra = format!("--no-pci --no-huge --legacy-mem -m 512 --no-telemetry --file-prefix={prefix}");
            ovs.vsctl([
                "--no-wait",
                "set",
                "Open_vSwitch",
                ".",
                "other_config:dpdk-init=true",
                "other_config:pmd-cpu-mask=0x2",
                "other_config:per-port-memory=true",
                &format!("other_config:dpdk-extra=\"{extra}\""),
            ])?;
        }
        ovs.start_vswitchd()?;
        Ok(ovs)
    }

    /// The namespace both daemons run in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The database, as a client dials it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.run_directory().join("db.sock").display())
    }

    /// `OVS_RUNDIR`: where sockets are, those of `dpdkvhostuser` ports too.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The directory of both daemons' logs.
    #[must_use]
    pub fn log_directory(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Log of ovs-vswitchd.
    #[must_use]
    pub fn vswitchd_log(&self) -> PathBuf {
        self.directory.join("log/ovs-vswitchd.log")
    }

    /// The ovsdb-server process, if it runs.
    #[must_use]
    pub fn server(&self) -> Option<&Daemon> {
        self.server.as_ref()
    }

    /// The ovs-vswitchd process, if it runs.
    #[must_use]
    pub fn vswitchd(&self) -> Option<&Daemon> {
        self.vswitchd.as_ref()
    }

    /// Starts ovsdb-server on the database as it is, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_server(&mut self) -> Result<()> {
        self.launch_server()?;
        self.server_answers()
    }

    /// Starts ovsdb-server on the database as it is, without waiting.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_server(&mut self) -> Result<()> {
        let socket = self.run_directory().join("db.sock");
        let database = self.database_file();
        let daemon = self.daemon("ovsdb-server", |command| {
            command.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
        })?;
        self.server = Some(daemon);
        Ok(())
    }

    /// Waits until ovsdb-server answers.
    ///
    /// # Errors
    /// When it does not run, ends or does not answer.
    pub fn server_answers(&mut self) -> Result<()> {
        let endpoint = self.endpoint();
        let daemon = self.server.as_mut().context("ovsdb-server does not run")?;
        until("ovsdb-server answers", START, || {
            daemon.check_running()?;
            let mut list = Command::new(find_tool("ovsdb-client")?);
            list.args(["--timeout=5", "list-dbs", &endpoint]);
            Ok(output(list).ok().filter(|names| names.contains("Open_vSwitch")))
        })?;
        Ok(())
    }

    /// Ends ovsdb-server: with SIGTERM, or SIGKILL if it shall have no time to say goodbye.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn stop_server(&mut self, signal: Signal) -> Result<()> {
        stop(self.server.take(), "ovsdb-server", signal)
    }

    /// Starts ovs-vswitchd and waits until it has read its configuration.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_vswitchd(&mut self) -> Result<()> {
        self.launch_vswitchd()?;
        self.vswitchd_answers()
    }

    /// Starts ovs-vswitchd, without waiting.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_vswitchd(&mut self) -> Result<()> {
        let endpoint = self.endpoint();
        let program = match self.switch {
            Switch::Userspace | Switch::Kernel | Switch::Dummy => "ovs-vswitchd",
            Switch::Dpdk => "ovs-vswitchd-dpdk",
        };
        let dummy = self.switch == Switch::Dummy;
        let verbosity = &self.verbosity;
        let daemon = self.daemon(program, |command| {
            command.arg(&endpoint);
            command.args(verbosity.iter().map(|module| format!("-v{module}")));
            if dummy {
                command.args(["--enable-dummy=system", "--disable-system"]);
            }
        })?;
        self.vswitchd = Some(daemon);
        Ok(())
    }

    /// Waits until ovs-vswitchd has read its configuration.
    ///
    /// # Errors
    /// When it does not run, ends or does not answer.
    pub fn vswitchd_answers(&mut self) -> Result<()> {
        let mut daemon = self.vswitchd.take().context("ovs-vswitchd does not run")?;
        until("ovs-vswitchd answers", START, || {
            daemon.check_running()?;
            Ok(self.appctl(["version"]).ok())
        })?;
        self.vswitchd = Some(daemon);
        // Without --no-wait it returns when ovs-vswitchd has read the database.
        self.vsctl(["init"])?;
        Ok(())
    }

    /// Ends ovs-vswitchd: with SIGTERM, or SIGKILL if it shall have no time to say goodbye.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn stop_vswitchd(&mut self, signal: Signal) -> Result<()> {
        stop(self.vswitchd.take(), "ovs-vswitchd", signal)
    }

    /// Runs ovs-vsctl, which waits until ovs-vswitchd has done what was asked unless told
    /// otherwise.
    ///
    /// # Errors
    /// When it fails.
    pub fn vsctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.tool("ovs-vsctl")?;
        command.arg("--timeout=60");
        command.arg(format!("--db={}", self.endpoint())).args(args);
        output(command)
    }

    /// Runs ovs-ofctl.
    ///
    /// # Errors
    /// When it fails.
    pub fn ofctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.tool("ovs-ofctl")?;
        command.args(args);
        output(command)
    }

    /// Runs ovs-appctl on ovs-vswitchd.
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.control("ovs-vswitchd.ctl", args)
    }

    /// Runs ovs-appctl on ovsdb-server.
    ///
    /// # Errors
    /// When it fails.
    pub fn server_appctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.control("ovsdb-server.ctl", args)
    }

    fn control<S: AsRef<OsStr>>(&self, socket: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.tool("ovs-appctl")?;
        let socket = self.run_directory().join(socket);
        command.args(["--timeout=10", "-t"]).arg(socket).args(args);
        output(command)
    }

    /// Every row of a table.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn rows(&self, table: &str) -> Result<Vec<Row>> {
        Ok(self.tables([table])?.remove(table).unwrap_or_default())
    }

    /// Every row of several tables, as they are at one moment.
    ///
    /// # Errors
    /// As [`Ovs::rows`].
    pub fn tables<'a>(&self, tables: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<&'a str, Vec<Row>>> {
        let names: Vec<&str> = tables.into_iter().collect();
        let mut transaction = vec![json!("Open_vSwitch")];
        transaction.extend(names.iter().map(|table| json!({"op": "select", "table": table, "where": []})));
        let mut command = self.tool("ovsdb-client")?;
        command.args(["--timeout=60", "transact", &self.endpoint()]);
        command.arg(Value::Array(transaction).to_string());
        let answer: Value = serde_json::from_str(&output(command)?)?;
        let row = |row: &Value| -> Option<Row> {
            Some(row.as_object()?.iter().map(|(column, value)| (column.clone(), plain(value))).collect())
        };
        names
            .into_iter()
            .enumerate()
            .map(|(n, table)| {
                let rows = answer[n]["rows"].as_array().with_context(|| format!("selecting {table}: {answer}"))?;
                Ok((table, rows.iter().filter_map(row).collect()))
            })
            .collect()
    }

    /// The row of a table with that `name`.
    ///
    /// # Errors
    /// As [`Ovs::rows`].
    pub fn row(&self, table: &str, name: &str) -> Result<Option<Row>> {
        Ok(self.rows(table)?.into_iter().find(|row| row.get("name").is_some_and(|value| value == name)))
    }

    /// Every transaction of the database's log, oldest first, the schema left out.
    ///
    /// # Errors
    /// When the file cannot be read or is not such a log.
    pub fn log(&self) -> Result<Vec<LogRecord>> {
        let text = std::fs::read_to_string(self.database_file())?;
        let mut rest = text.as_str();
        let mut records = Vec::new();
        // Each record is `OVSDB JSON <length> <sha1>`, a newline, and that many bytes of JSON.
        while let Some((head, tail)) = rest.trim_start().split_once('\n') {
            let length: usize = head
                .strip_prefix("OVSDB JSON ")
                .and_then(|head| head.split(' ').next()?.parse().ok())
                .with_context(|| format!("head of a log record: {head}"))?;
            let body = tail.get(..length).context("a cut log record")?;
            records.push(LogRecord(serde_json::from_str(body)?));
            rest = &tail[length..];
        }
        if records.is_empty() {
            bail!("the database has no log");
        }
        Ok(records.split_off(1))
    }

    /// The database's file.
    #[must_use]
    pub fn database_file(&self) -> PathBuf {
        self.directory.join("db/conf.db")
    }

    fn tool(&self, program: &str) -> Result<Command> {
        let mut command = self.namespace.command(program)?;
        self.environment(&mut command);
        Ok(command)
    }

    fn environment(&self, command: &mut Command) {
        for (variable, folder) in [
            ("OVS_RUNDIR", "run"),
            ("OVS_DBDIR", "db"),
            ("OVS_LOGDIR", "log"),
            ("OVS_SYSCONFDIR", "etc"),
            // Where DPDK keeps its own files, which it would put under /var/run.
            ("RUNTIME_DIRECTORY", "run"),
        ] {
            command.env(variable, self.directory.join(folder));
        }
    }

    fn daemon(&self, program: &str, arguments: impl FnOnce(&mut Command)) -> Result<Daemon> {
        let name = program.trim_end_matches("-dpdk");
        let run = self.run_directory();
        let log = self.directory.join("log").join(format!("{name}.log"));
        let configure = |command: &mut Command| {
            self.environment(command);
            command
                .arg(format!("--unixctl={}", run.join(format!("{name}.ctl")).display()))
                .arg(format!("--pidfile={}", run.join(format!("{name}.pid")).display()))
                .args(["-vconsole:off", "-vsyslog:off", "-vfile:info"])
                .arg(format!("--log-file={}", log.display()));
            arguments(command);
        };
        let printed = log.with_extension("out");
        self.namespace.daemon(&find_tool(program)?, configure, &printed, self.lifetime)
    }
}

/// Makes sure that ovs-vswitchd will find the kernel's datapath, and processors. 3.1.0 looks for processors at most every
/// ten seconds and takes the first ten after the boot for the time since it looked: it finds none, makes the datapath
/// without a thread to hand packets to, and keeps it so.
fn await_datapath() -> Result<()> {
    if !Path::new("/sys/module/openvswitch").exists() {
        bail!("this kernel has no Open vSwitch datapath (module openvswitch): what needs it is played in the VM");
    }
    until("the kernel has been up for ten seconds", START, || {
        let text = std::fs::read_to_string("/proc/uptime")?;
        let up: f64 = text.split(' ').next().unwrap_or_default().parse()?;
        Ok((up > 10.5).then_some(()))
    })
}

fn stop(daemon: Option<Daemon>, name: &str, signal: Signal) -> Result<()> {
    let mut daemon = daemon.with_context(|| format!("{name} does not run"))?;
    daemon.signal(signal)?;
    daemon.wait(START)?;
    Ok(())
}

/// The schema of the database that ovs-vswitchd works from.
///
/// # Errors
/// When it is nowhere.
pub fn schema() -> Result<PathBuf> {
    let name = "usr/share/openvswitch/vswitch.ovsschema";
    [tools_folder().join("root").join(name), Path::new("/").join(name)]
        .into_iter()
        .find(|path| path.exists())
        .context("vswitch.ovsschema is not on this machine: run `make deps`")
}

/// An OVSDB value (RFC 7047, section 5.1) in plain JSON.
fn plain(value: &Value) -> Value {
    let Some([Value::String(tag), content]) = value.as_array().map(Vec::as_slice) else {
        return value.clone();
    };
    match (tag.as_str(), content) {
        ("set", Value::Array(items)) => items.iter().map(plain).collect(),
        ("map", Value::Array(pairs)) => pairs
            .iter()
            .map(|pair| {
                let key = plain(&pair[0]);
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                (key, plain(&pair[1]))
            })
            .collect(),
        _ => content.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_plain() {
        let map = json!(["map", [["iface-id", "x"], [7, ["uuid", "u"]]]]);
        assert_eq!(plain(&map), json!({"iface-id": "x", "7": "u"}));
        assert_eq!(plain(&json!(["set", [1, 2]])), json!([1, 2]));
        assert_eq!(plain(&json!(["set", []])), json!([]));
        assert_eq!(plain(&json!("br-int")), json!("br-int"));
    }

    #[test]
    fn a_log_record_counts_rows() {
        let record = LogRecord(json!({
            "_comment": "vifd", "_date": 1,
            "Port": {"a": {"name": "p1", "interfaces": ["uuid", "i"]}, "b": null},
            "Interface": {"i": {"name": "p1"}, "j": {"ofport": 2}}
        }));
        assert_eq!(record.inserted("Interface", "name"), 1);
        assert_eq!(record.deleted("Port"), 1);
        assert_eq!(record.deleted("Bridge"), 0);
        assert_eq!(record.comment(), "vifd");
    }
}
