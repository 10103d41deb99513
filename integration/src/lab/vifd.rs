//! The agent under test: the `vifd` program as cargo built it, with files of its own, beside one
//! [`Ovs`]. Asked over its socket and its metrics port, told through its directory of records.

use std::env;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::http::{Response, request};
use super::namespace::{Namespace, private_directory};
use super::ovs::Ovs;
use super::process::{Daemon, Lifetime};
use super::record::Record;
use super::wait::until;

/// Keeps a failed test from hanging; see [`until`].
const LIMIT: Duration = Duration::from_secs(60);

/// What the tests vary in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `agent.id`.
    pub id: String,
    /// `agent.mode`.
    pub mode: String,
    /// `agent.resync`. Off here: everything that happens must come from an event.
    pub resync: String,
    /// `agent.adopt`.
    pub adopt: String,
    /// `agent.max_removals`.
    pub max_removals: String,
    /// `metrics.listen`.
    pub metrics: String,
    /// More keys of `[defaults]`, as lines.
    pub defaults: String,
    /// More tables, as lines.
    pub more: String,
    /// More variables of its environment.
    pub environment: Vec<(String, String)>,
    /// `ovsdb.endpoint`, where it is not the [`Ovs`]'s own. vifd looks for ovs-vswitchd's control socket in the
    /// directory of it.
    pub endpoint: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: "vifd".into(),
            mode: "enforce".into(),
            resync: "off".into(),
            adopt: "never".into(),
            max_removals: "10%".into(),
            metrics: METRICS.into(),
            defaults: String::new(),
            more: String::new(),
            environment: Vec::new(),
            endpoint: None,
        }
    }
}

/// A vifd with its files. Dropping it kills it.
#[derive(Debug)]
pub struct Vifd {
    /// Written to the configuration file at [`Vifd::start`].
    pub config: Config,
    /// What is started and asked, if it is not [`Vifd::program`].
    pub program: Option<PathBuf>,
    daemon: Option<Daemon>,
    lifetime: Lifetime,
    directory: PathBuf,
    namespace: String,
    endpoint: String,
    run_directory: PathBuf,
    /// The directory of the vifd whose records, state and socket this one takes too.
    shared: Option<PathBuf>,
    _removed_with: Option<tempfile::TempDir>,
}

impl Vifd {
    /// Prepares a vifd for an [`Ovs`], in its namespace; [`Vifd::start`] starts it.
    ///
    /// # Errors
    /// When the program was not built, or its directories cannot be made.
    pub fn beside(ovs: &Ovs) -> Result<Vifd> {
        let directory = private_directory()?;
        let path = directory.path().to_owned();
        Vifd::build(ovs, path, Lifetime::Test, Some(directory))
    }

    /// The same in an existing directory, to go on running when this is dropped.
    ///
    /// # Errors
    /// As [`Vifd::beside`].
    pub fn beside_kept(ovs: &Ovs, directory: &Path) -> Result<Vifd> {
        Vifd::build(ovs, directory.to_owned(), Lifetime::Kept, None)
    }

    fn build(
        ovs: &Ovs,
        directory: PathBuf,
        lifetime: Lifetime,
        removed_with: Option<tempfile::TempDir>,
    ) -> Result<Vifd> {
        fs::create_dir(directory.join("vifs"))?;
        fs::create_dir(directory.join("state"))?;
        Ok(Vifd {
            config: Config::default(),
            program: None,
            daemon: None,
            lifetime,
            directory,
            namespace: ovs.namespace().name().to_owned(),
            endpoint: ovs.endpoint(),
            run_directory: ovs.run_directory(),
            shared: None,
            _removed_with: removed_with,
        })
    }

    /// Prepares one more vifd with the files of another: the same records, state and socket.
    ///
    /// # Errors
    /// As [`Vifd::beside`].
    pub fn like(ovs: &Ovs, other: &Vifd) -> Result<Vifd> {
        let mut second = Vifd::beside(ovs)?;
        second.config = other.config.clone();
        second.shared = Some(other.directory.clone());
        Ok(second)
    }

    /// Path of the program: `$VIFD_BIN`, else the one cargo built beside this.
    ///
    /// # Errors
    /// When it is not there.
    pub fn program() -> Result<PathBuf> {
        if let Some(path) = env::var_os("VIFD_BIN") {
            return Ok(path.into());
        }
        // Tests are in `target/PROFILE/deps`, programs in `target/PROFILE`.
        let own = env::current_exe()?;
        own.ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join("vifd"))
            .find(|path| path.is_file())
            .context("the vifd program is not built: run `cargo build -p vifd`")
    }

    /// The program of the release before this one, and its version.
    ///
    /// # Errors
    /// When it was not built; with the reason.
    pub fn previous() -> Result<(PathBuf, String)> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let release = fs::read_to_string(here.join("previous-release"))?;
        let version = release.split_whitespace().next().context("integration/previous-release names no version")?;
        let built = here.join("../target/previous");
        if let Ok(missing) = fs::read_to_string(built.join("missing")) {
            bail!("{}", missing.trim());
        }
        let program = built.join("vifd");
        if !program.is_file() {
            bail!("vifd {version} is not built: run `integration/previous`");
        }
        Ok((program, version.to_owned()))
    }

    /// Writes the configuration and starts the agent; waits until its API answers.
    ///
    /// # Errors
    /// When it does not; with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.until("the API of vifd answers", |vifd| Ok(vifd.api("GET", "/healthz", None).ok()))?;
        Ok(())
    }

    /// Writes the configuration and starts the agent, without waiting.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        self.write_config()?;
        let config = self.config_file();
        let namespace = self.namespace()?;
        let environment = &self.config.environment;
        let configure = |command: &mut Command| {
            command.arg("run").arg("--config").arg(&config);
            command.env("NO_COLOR", "1");
            command.envs(environment.iter().map(|(name, value)| (name, value)));
        };
        self.daemon = Some(namespace.daemon(&self.chosen_program()?, configure, &self.log_file(), self.lifetime)?);
        Ok(())
    }

    /// Writes the configuration as it is now. [`Vifd::signal`] with SIGHUP makes vifd read it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self) -> Result<()> {
        let Config { id, mode, resync, adopt, max_removals, metrics, defaults, more, environment: _, endpoint } =
            &self.config;
        let directory = self.shared.as_ref().unwrap_or(&self.directory).display();
        let endpoint = endpoint.as_ref().unwrap_or(&self.endpoint);
        let sockets = self.run_directory.display();
        let text = format!(
            "[agent]\nid = \"{id}\"\nhost = \"lab\"\nmode = \"{mode}\"\nresync = \"{resync}\"\n\
             adopt = \"{adopt}\"\nmax_removals = \"{max_removals}\"\nstate_dir = \"{directory}/state\"\n\
             [ovsdb]\nendpoint = \"{endpoint}\"\n\
             [source]\nkind = \"dir\"\npath = \"{directory}/vifs\"\n\
             [api]\nsocket = \"{directory}/api.sock\"\ngroup = \"\"\n\
             [metrics]\nlisten = \"{metrics}\"\n\
             [defaults]\n{defaults}\n\
             [vhostuser]\ndir = \"{sockets}\"\n\
             {more}\n"
        );
        fs::write(self.config_file(), text)?;
        Ok(())
    }

    /// Ends the agent with SIGTERM.
    ///
    /// # Errors
    /// When it does not run, does not end, or does not end well.
    pub fn stop(&mut self) -> Result<()> {
        let daemon = self.daemon.take().context("vifd does not run")?;
        let log = daemon.log_tail(30);
        let status = daemon.terminate()?;
        if !status.success() {
            bail!("vifd ended with {status}:\n{log}");
        }
        Ok(())
    }

    /// Ends the agent with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("vifd does not run")?.kill();
        Ok(())
    }

    /// Sends a signal to the agent.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.as_ref().context("vifd does not run")?.signal(signal)
    }

    /// The process, if it runs.
    pub fn daemon(&mut self) -> Option<&mut Daemon> {
        self.daemon.as_mut()
    }

    /// The directory of records.
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.directory.join("vifs")
    }

    /// The directory of state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("api.sock")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("vifd.toml")
    }

    /// The log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("vifd.log")
    }

    /// Writes a record into the directory, by rename.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put(&self, record: &Record) -> Result<()> {
        self.put_text(&record.id(), &record.0.to_string())
    }

    /// Writes a file `NAME.json` of any content into the directory, by rename.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put_text(&self, name: &str, text: &str) -> Result<()> {
        // In the same file system, and hidden from readers of the directory.
        let new = self.records().join(format!(".{name}.incoming"));
        let written =
            fs::write(&new, text).and_then(|()| fs::rename(&new, self.records().join(format!("{name}.json"))));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.with_context(|| format!("writing the record {name}"))
    }

    /// Removes a record from the directory.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, record: &Record) -> Result<()> {
        fs::remove_file(self.records().join(format!("{}.json", record.id())))
            .with_context(|| format!("removing the record of {}", record.id()))
    }

    /// Sends a request to the API.
    ///
    /// # Errors
    /// When it does not answer. An answer with an error status is an answer.
    pub fn api(&self, method: &str, target: &str, body: Option<&str>) -> Result<Response> {
        self.api_within(LIMIT, method, target, body)
    }

    /// The same, giving up when there is silence for so long: what then becomes of the request is not known.
    ///
    /// # Errors
    /// As [`Vifd::api`].
    pub fn api_within(&self, limit: Duration, method: &str, target: &str, body: Option<&str>) -> Result<Response> {
        let socket = self.socket();
        let stream = UnixStream::connect(&socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        request(stream, method, target, body)
    }

    /// Status of a VIF, if vifd knows it.
    ///
    /// # Errors
    /// When the API does not answer so.
    pub fn status(&self, id: &str) -> Result<Option<Value>> {
        let response = self.api("GET", &format!("/v1/vifs/{id}"), None)?;
        match response.status {
            200 => Ok(Some(serde_json::from_str(&response.body)?)),
            404 => Ok(None),
            other => bail!("status of {id}: {other} {}", response.body),
        }
    }

    /// Status of every VIF.
    ///
    /// # Errors
    /// When the API does not answer so.
    pub fn statuses(&self) -> Result<Vec<Value>> {
        let response = self.api("GET", "/v1/vifs", None)?;
        serde_json::from_str(&response.body).with_context(|| format!("statuses: {} {}", response.status, response.body))
    }

    /// Waits until a VIF is in a phase and gives its status.
    ///
    /// # Errors
    /// When it does not get there; with its last status and the end of the log.
    pub fn wait_for(&mut self, id: &str, phase: &str) -> Result<Value> {
        self.wait_until(id, &format!("phase {phase}"), |status| status["phase"] == phase)
    }

    /// Waits until `good` likes the status of a VIF, and gives that.
    ///
    /// # Errors
    /// When it never does; with the last status and the end of the log.
    pub fn wait_until(&mut self, id: &str, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = None;
        self.until(&format!("{id} has {what}"), |vifd| {
            last = vifd.status(id)?;
            Ok(last.clone().filter(&good))
        })
        .with_context(|| format!("its status: {last:?}"))
    }

    /// Waits until every one of `count` VIFs is in a phase.
    ///
    /// # Errors
    /// As [`Vifd::wait_for`]; with the status of one VIF that is not.
    pub fn wait_for_all(&mut self, count: usize, phase: &str, limit: Duration) -> Result<()> {
        let mut odd = Value::Null;
        let what = format!("{count} VIFs have phase {phase}");
        self.until_within(limit, &what, |vifd| {
            let all = vifd.statuses()?;
            odd = all.iter().find(|s| s["phase"] != phase).cloned().unwrap_or_default();
            Ok((all.len() == count && odd.is_null()).then_some(()))
        })
        .with_context(|| format!("one that has not: {odd}"))
    }

    /// Waits until vifd no longer knows a VIF.
    ///
    /// # Errors
    /// As [`Vifd::wait_for`].
    pub fn wait_gone(&mut self, id: &str) -> Result<()> {
        self.until(&format!("{id} is gone"), |vifd| Ok(vifd.status(id)?.is_none().then_some(())))
    }

    /// Waits for something while the agent runs.
    ///
    /// # Errors
    /// When the agent ends, the check fails, or nothing comes in a minute; with the log's end.
    pub fn until<T>(&mut self, what: &str, check: impl FnMut(&Vifd) -> Result<Option<T>>) -> Result<T> {
        self.until_within(LIMIT, what, check)
    }

    /// Waits for something that may take longer.
    ///
    /// # Errors
    /// As [`Vifd::until`], after `limit`.
    pub fn until_within<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut check: impl FnMut(&Vifd) -> Result<Option<T>>,
    ) -> Result<T> {
        let result = until(what, limit, || {
            self.daemon.as_mut().context("vifd does not run")?.check_running()?;
            check(self)
        });
        result.map_err(|error| {
            let log = super::process::tail(&self.log_file(), 40);
            anyhow!("{error:#}\nend of vifd's log:\n{log}")
        })
    }

    /// The metrics, as a scraper gets them.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn metrics(&self) -> Result<String> {
        let response = self.api("GET", "/metrics", None)?;
        if response.status != 200 {
            bail!("metrics: {} {}", response.status, response.body);
        }
        Ok(response.body)
    }

    /// Where the metrics are served, in the namespace.
    #[must_use]
    pub fn metrics_listen(&self) -> &str {
        &self.config.metrics
    }

    /// The sum of a metric over all of its series whose labels contain `labels` (as the text
    /// `name="value"`; empty for all). 0 when there is none.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        Ok(sum(&self.metrics()?, name, labels))
    }

    /// A command of the command line client, for this agent, in its namespace.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn client(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(super::tools::find_tool("ip")?);
        command
            .args(["netns", "exec", &self.namespace])
            .arg(self.chosen_program()?)
            .args(args)
            .arg("--config")
            .arg(self.config_file());
        Ok(command)
    }

    /// Runs a command of the client and gives what it printed, without colours.
    ///
    /// # Errors
    /// When it cannot be started. Its exit code is the test's to judge.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.client(args)?;
        command.env("NO_COLOR", "1").output().with_context(|| format!("running vifd {args:?}"))
    }

    fn chosen_program(&self) -> Result<PathBuf> {
        self.program.clone().map_or_else(Vifd::program, Ok)
    }

    fn namespace(&self) -> Result<Namespace> {
        Namespace::existing(&self.namespace)
    }
}

const METRICS: &str = "127.0.0.1:9466";

fn sum(text: &str, name: &str, labels: &str) -> f64 {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            found.contains(labels).then(|| value.trim().parse::<f64>().ok())?
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_metric_are_summed() {
        let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"} 2\"} 3\na{x=\"2\"} 4\na_b 5\nc 1.5\n";
        assert_eq!(sum(text, "a", ""), 7.0);
        assert_eq!(sum(text, "a", "x=\"2\""), 4.0);
        assert_eq!(sum(text, "c", ""), 1.5);
        assert_eq!(sum(text, "d", ""), 0.0);
    }
}
