//! `support-bundle`: what is needed to look into a problem, as files of a new directory. Records are left out
//! (they say whose guests these are); the configuration is written with its defaults and names key files
//! without their content.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::Output;
use super::{Common, Failure};
use crate::api::client::Client;
use crate::config::Config;
use crate::doctor;
use crate::inspect::BridgeFlows;
use crate::status::{ConditionKind, Phase, VifStatus};

/// VIFs that are not ready and whose flows are written.
const MOST_VIFS: usize = 20;

#[derive(Serialize)]
struct Bundle {
    directory: PathBuf,
    files: Vec<String>,
    /// What could not be had, and why.
    missing: Vec<String>,
}

impl Bundle {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(content));
        written.map_err(|error| Failure::Other(format!("cannot write {}: {error}", path.display())))?;
        self.files.push(name.to_owned());
        Ok(())
    }

    fn add_json(&mut self, name: &str, content: &Value) -> Result<(), Failure> {
        self.add(name, format!("{content:#}\n").as_bytes())
    }
}

pub(super) async fn write(common: &Common, directory: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let config = Config::load(&common.config);
    let now = SystemTime::now();
    let directory = directory.unwrap_or_else(|| {
        let host = config.as_ref().map_or_else(|_| Config::default().host(), Config::host);
        // Without the colons, which file names on other systems cannot have.
        let time = humantime::format_rfc3339_seconds(now).to_string().replace([':', '-'], "");
        PathBuf::from(format!("vifd-support-{host}-{time}"))
    });
    let made = fs::DirBuilder::new().mode(0o700).create(&directory);
    made.map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AlreadyExists => ": name another directory, or remove this one first",
            std::io::ErrorKind::NotFound => ": the directory above it is made by nobody but you",
            _ => "",
        };
        Failure::Other(format!("cannot make {}: {error}{remedy}", directory.display()))
    })?;
    let mut bundle = Bundle { directory, files: Vec::new(), missing: Vec::new() };

    match &config {
        Ok(config) => match toml::to_string_pretty(config) {
            Ok(text) => bundle.add("config.toml", text.as_bytes())?,
            Err(error) => bundle.missing.push(format!("config.toml: {error}")),
        },
        Err(error) => bundle.missing.push(format!("config.toml: {error}")),
    }
    bundle.add_json("versions.json", &versions(now))?;
    let findings = doctor::examine(&common.config, common.socket.as_deref()).await;
    bundle.add_json("doctor.json", &json!(findings))?;
    match common.client() {
        Ok(client) => from_agent(&client, &mut bundle).await?,
        Err(failure) => bundle.missing.push(format!("everything of the agent: {failure}")),
    }
    if !bundle.missing.is_empty() {
        bundle.add("missing.txt", format!("{}\n", bundle.missing.join("\n")).as_bytes())?;
    }
    output.answer(&bundle, || {
        let missing: String = bundle.missing.iter().map(|what| format!("  missing: {what}\n")).collect();
        let (directory, files) = (bundle.directory.display(), bundle.files.join(" "));
        format!(
            "{directory}: {files}\n{missing}Records are not in it; names of guests, addresses and host names are. Nor is the \
             log: `journalctl -u vifd > {directory}/log.txt` adds it. To send it: tar czf {directory}.tar.gz \
             {directory}\n"
        )
    })
}

async fn from_agent(client: &Client, bundle: &mut Bundle) -> Result<(), Failure> {
    let wanted = [
        ("status.json", "/v1/status"),
        ("vifs.json", "/v1/vifs"),
        ("plan.json", "/v1/plan"),
        ("host-info.json", "/v1/host-info"),
        ("bridges.json", "/v1/bridges"),
        ("nics.json", "/v1/nics"),
        ("metrics.txt", "/metrics"),
    ];
    for (name, target) in wanted {
        match client.bytes(Method::GET, target, Vec::new(), Duration::ZERO).await {
            Ok(bytes) => bundle.add(name, &bytes)?,
            Err(error) => bundle.missing.push(format!("{name}: {error}")),
        }
    }
    let bridges: Vec<BridgeFlows> = client.get("/v1/bridges").await.unwrap_or_default();
    for BridgeFlows { bridge, .. } in &bridges {
        // A bridge has the name of a port, which is that of a file, too.
        flows(client, bundle, &format!("flows-{bridge}.json"), &format!("/v1/bridges/{bridge}/flows")).await?;
        flows(client, bundle, &format!("others-{bridge}.json"), &format!("/v1/bridges/{bridge}/flows?foreign=true"))
            .await?;
    }
    let vifs: Vec<VifStatus> = client.get("/v1/vifs").await.unwrap_or_default();
    let unwell = |vif: &&VifStatus| vif.phase != Phase::Ready && vif.condition(ConditionKind::FlowsReady).is_some();
    for VifStatus { id, .. } in vifs.iter().filter(unwell).take(MOST_VIFS) {
        flows(client, bundle, &format!("flows-{id}.json"), &format!("/v1/vifs/{id}/flows")).await?;
    }
    Ok(())
}

/// Flows as the agent lists them, or why it does not.
async fn flows(client: &Client, bundle: &mut Bundle, name: &str, target: &str) -> Result<(), Failure> {
    match client.bytes(Method::GET, target, Vec::new(), Duration::ZERO).await {
        Ok(bytes) => bundle.add(name, &bytes),
        Err(error) => {
            bundle.missing.push(format!("{name}: {error}"));
            Ok(())
        }
    }
}

fn versions(now: SystemTime) -> Value {
    let read = |path: &str| fs::read_to_string(Path::new(path)).map(|text| text.trim().to_owned()).ok();
    json!({
        "vifd": env!("CARGO_PKG_VERSION"),
        "kernel": read("/proc/version"),
        "os_release": read("/etc/os-release"),
        "made": humantime::format_rfc3339_seconds(now).to_string(),
    })
}
