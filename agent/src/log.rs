//! The log: to standard error, as lines or as JSON, its level changed by a reload.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Format, Log};

/// The way to change the level while the agent runs.
#[derive(Clone)]
pub struct Volume(reload::Handle<Targets, Registry>);

impl Volume {
    /// Sets the level, as `log.level` has it: a word, or levels of modules (`info,vifd::plan=debug`).
    pub fn set(&self, log: &Log) {
        if let Err(error) = self.0.reload(log.level.targets()) {
            tracing::warn!(%error, "the level of the log stays as it was");
        }
    }
}

/// Starts logging. Once per process; whoever comes second is heard nowhere, so it is an error.
///
/// # Errors
/// Something else in this process logs already.
pub fn start(log: &Log) -> anyhow::Result<Volume> {
    let (filter, handle) = reload::Layer::new(log.level.targets());
    // journald puts its own time on every line, and colours are for terminals.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(stderr);
    match (log.format, journal) {
        (Format::Json, _) => registry.with(lines.json().flatten_event(true)).try_init()?,
        (Format::Text, true) => registry.with(lines.with_ansi(false).without_time()).try_init()?,
        (Format::Text, false) => registry.with(lines.with_ansi(colour)).try_init()?,
    }
    Ok(Volume(handle))
}
