//! The real Prometheus, and its checker of metrics.

use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::http::request;
use super::namespace::{Namespace, private_directory};
use super::process::{Daemon, Lifetime};
use super::tools::find_tool;
use super::wait::until;

const LISTEN: &str = "127.0.0.1:9090";
const START: Duration = Duration::from_secs(60);

/// A running Prometheus that scrapes one target. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Prometheus<'a> {
    daemon: Daemon,
    namespace: &'a Namespace,
    _directory: tempfile::TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts it in a namespace, on a target there (`127.0.0.1:PORT`).
    ///
    /// # Errors
    /// When prometheus is missing or ends at once.
    pub fn scraping(namespace: &'a Namespace, target: &str) -> Result<Prometheus<'a>> {
        let directory = private_directory()?;
        let config = directory.path().join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\n\
                 scrape_configs: [{{job_name: vifd, static_configs: [{{targets: ['{target}']}}]}}]\n"
            ),
        )?;
        let configure = |command: &mut std::process::Command| {
            command
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
                .arg(format!("--web.listen-address={LISTEN}"));
        };
        let log = directory.path().join("prometheus.log");
        let program = find_tool("prometheus")?;
        let daemon = namespace.daemon(&program, configure, &log, Lifetime::Test)?;
        Ok(Prometheus { daemon, namespace, _directory: directory })
    }

    /// Waits for a successful scrape.
    ///
    /// # Errors
    /// When Prometheus ends, or says why it cannot scrape and does not get over it.
    pub fn wait_for_scrape(&mut self) -> Result<()> {
        let namespace = self.namespace;
        let daemon = &mut self.daemon;
        let mut said = Value::Null;
        until("Prometheus has scraped vifd", START, || {
            daemon.check_running()?;
            let Ok(answer) = get(namespace, "/api/v1/targets?state=active") else {
                return Ok(None); // still starting
            };
            said = answer["data"]["activeTargets"][0].clone();
            Ok((said["health"] == "up").then_some(()))
        })
        .with_context(|| format!("the target as Prometheus sees it: {said}"))
    }

    /// The values of an instant query: one (labels, value) for each series.
    ///
    /// # Errors
    /// When Prometheus refuses the query. `query` must need no escapes in a URL.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let answer = get(self.namespace, &format!("/api/v1/query?query={query}"))?;
        let series = answer["data"]["result"].as_array().with_context(|| format!("querying {query}: {answer}"))?;
        series
            .iter()
            .map(|one| {
                let value = one["value"][1].as_str().and_then(|text| text.parse().ok());
                Ok((one["metric"].clone(), value.context("a value that is no number")?))
            })
            .collect()
    }
}

/// Checks exposed metrics with `promtool check metrics`.
///
/// # Errors
/// With everything promtool said, when it said anything.
pub fn check_metrics(text: &str) -> Result<()> {
    let mut child = std::process::Command::new(find_tool("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting promtool")?;
    let mut input = child.stdin.take().context("promtool's standard input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    if !output.status.success() || !said.is_empty() {
        bail!("promtool: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(())
}

fn get(namespace: &Namespace, target: &str) -> Result<Value> {
    let response = namespace.enter(|| {
        let stream = TcpStream::connect(LISTEN)?;
        stream.set_read_timeout(Some(START))?;
        request(stream, "GET", target, None)
    })?;
    Ok(serde_json::from_str(&response.body)?)
}
