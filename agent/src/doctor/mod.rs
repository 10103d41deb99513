//! `vifd doctor`: checks of this host, each with what to do about it. A check looks and changes nothing; it
//! works with the agent running and without.

mod access;
mod agent;
mod files;
mod kernel;
mod nics;
mod openvswitch;
#[cfg(test)]
mod tests;
mod user;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub verdict: Level,
    /// One sentence.
    pub message: String,
    /// What to do about it; empty when nothing has to be done.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something may not work.
    Warn,
    /// vifd cannot do its work.
    Fail,
}

impl Finding {
    fn ok(name: &str, message: impl Into<String>) -> Finding {
        Finding { name: name.into(), verdict: Level::Ok, message: message.into(), remedy: String::new() }
    }

    fn warn(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name: name.into(), verdict: Level::Warn, message: message.into(), remedy: remedy.into() }
    }

    fn fail(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name: name.into(), verdict: Level::Fail, message: message.into(), remedy: remedy.into() }
    }
}

/// What happened, and why, and why that.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Looks at everything, in the order in which things depend on each other. `socket` is where to look for the agent
/// instead of where the configuration says.
pub async fn examine(config_file: &Path, socket: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match Config::load(config_file) {
        Ok(config) => {
            // The default one need not be there.
            let how = if config_file.exists() { "is in order" } else { "is not there: the defaults hold" };
            findings.push(match config.settings() {
                Ok(_) => Finding::ok("configuration", format!("{} {how}", config_file.display())),
                Err(error) => Finding::fail("configuration", chain(&error), "make it known, or correct the key"),
            });
            config
        }
        Err(error) => {
            let remedy = "mend it; everything below is looked at with the defaults";
            findings.push(Finding::fail("configuration", chain(&error), remedy));
            Config::default()
        }
    };
    let records = files::records(&config);
    findings.extend(openvswitch::examine(&config, &records.wanted).await);
    findings.push(kernel::tun());
    if records.wanted.offload {
        findings.push(kernel::tc_modules());
    }
    findings.push(records.finding);
    findings.push(files::state(&config));
    findings.extend(files::sockets(&config, &records.wanted));
    let socket = socket.unwrap_or(&config.api.socket);
    let user = user::examine(&config, socket, &records.wanted).await;
    // Those of the agent where it runs; else this process may be run as the agent would be.
    if user.iter().all(|finding| finding.name != kernel::CAPABILITIES) {
        findings.push(kernel::capabilities());
    }
    findings.extend(user);
    findings.extend(nics::examine(&config, socket, &records.wanted).await);
    findings.extend(agent::examine(&config, socket).await);
    findings
}
