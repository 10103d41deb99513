//! `vifd run`: wiring. Configuration, locks, backends, source, API and signals are joined here and nowhere else.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ovsdb::endpoint::Endpoint;
use ovsdb::framing::Limits;
use ovsdb::tls::{Tls, Verification};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::api::{self, Api};
use crate::backend::Backend;
use crate::backend::links::{Links, LinksConfig};
use crate::backend::nics::{Nics, NicsConfig};
use crate::backend::openflow::OpenFlow;
use crate::backend::ovs::{Ovs, Server};
use crate::config::{Config, Mode, Ovsdb};
use crate::inspect::{Eyes, Inspector};
use crate::log::{self, Volume};
use crate::metrics;
use crate::model::{AgentId, nursery};
use crate::offload::Watch;
use crate::plan::pipeline::OwnerTag;
use crate::plan::{OWNER, Settings};
use crate::reconciler::{self, Control, Joints};
use crate::record;
use crate::sessions::Peers;
use crate::source::Decode;
use crate::source::dir::{DirSource, Options};
use crate::state_dir::StateDir;
use crate::status::HostStatus;

/// Requests of the API that may wait for the reconciler.
const COMMAND_QUEUE: usize = 64;

/// What ovsdb-server may send. What vifd reads of a host with 4,000 VIFs takes 15 MB in 1.2 million values and 12,000
/// rows; a server that sends four times as much is not Open vSwitch's.
const OVSDB_LIMITS: Limits = Limits { max_message: 64 << 20, max_depth: 100, max_values: 4 << 20, max_rows: 1 << 18 };

/// File of the state directory with the name that the agent had.
const AGENT_ID: &str = "agent-id";

/// Runs the agent until SIGTERM or SIGINT; what is on the host stays as it is then.
///
/// # Errors
/// The agent cannot start, or must not: another one is there.
pub async fn run(path: PathBuf, config: Config) -> anyhow::Result<ExitCode> {
    let volume = log::start(&config.log)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let state_dir = &config.agent.state_dir;
    let state = StateDir::open(state_dir).context("the state directory")?;
    let _only_one = only_instance(&state)?;
    let exporter = metrics::install();
    let agent = &config.agent.id;
    // What the configuration says and this host does not know is found before anything is begun.
    let (control, controls) = watch::channel(control(&config)?);
    let (enforce, enforced) = watch::channel(config.agent.mode == Mode::Enforce);
    let ovs = Ovs::spawn(session_config(&config.ovsdb)?, rundir(&config), agent, enforced).await;
    let links = Links::spawn(LinksConfig {
        socket_directory: Some(config.vhostuser.dir.clone()),
        device_directory: Some(config.macvtap.dir.clone()),
        nursery: nursery(&config.agent.id),
        ..LinksConfig::default()
    })?;
    let nics = Nics::spawn(NicsConfig {
        hints: config.nested_dpdk.dir.clone(),
        lldpad_pid_file: config.lldpad.pid_file.clone(),
        ask_every: config.lldpad.ask_every.0,
        ..NicsConfig::new(state_dir)
    })?;
    let (managed, bridges) = watch::channel(managed_bridges(&config.settings()?));
    let tag = OwnerTag::of(agent).0;
    let flows = OpenFlow::spawn(config.rundir(), tag, ovs.observe(), bridges);
    let peers = Peers {
        endpoint: config.ovsdb.endpoint.0.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", "),
        ovsdb: ovs.state(),
        ovsdb_statistics: Arc::new(ovs.statistics()),
        lock: ovs.lock(),
        vswitchd: ovs.vswitchd(),
        links: links.observe(),
        links_statistics: Arc::new(links.counters()),
        nics: nics.observe(),
        nics_statistics: Arc::new(nics.counters()),
        switches: flows.sessions(),
    };
    let source = DirSource::spawn(Options::new(config.source.path.clone(), state_dir.clone(), decoder(&config)))
        .with_context(|| format!("cannot read records from {}", config.source.path.display()))?;
    // What is told until the first plan.
    let begun = HostStatus { sessions: peers.status(), ..HostStatus::default() };
    let (status, statuses) = watch::channel(Arc::new(begun));
    let (orders, commands) = mpsc::channel(COMMAND_QUEUE);
    let inspector = Inspector::new(Eyes {
        handles: Box::new(flows.handles()),
        states: flows.observe(),
        sessions: flows.sessions(),
        control: controls.clone(),
        records: source.observe(),
        status: statuses.clone(),
        commands: orders.clone(),
        rundir: config.rundir(),
    });
    let warnings = inspector.clone().warn_of_others();
    let api = Api {
        status: statuses,
        source: source.clone(),
        commands: orders,
        exporter,
        inspector,
        agent: agent.to_string(),
        host: config.host(),
    };
    let server = api::Server::bind(&config.api, &config.metrics).await?;
    let (stop, stopped) = watch::channel(false);
    let sessions_changed = peers.follow();
    let other_instance = ovs.other_instance(agent);
    let same_name = same_name(state, agent.clone(), &ovs);
    let (expected, expectations) = watch::channel(Arc::default());
    let (ovs_view, links_view) = (ovs.observe(), links.observe());
    let looks = Watch {
        expected: expectations,
        ovs: ovs_view,
        links: links_view,
        control: controls.clone(),
        rundir: config.rundir(),
    };
    let joints = Joints {
        source,
        links,
        nics,
        ovs,
        flows,
        control: controls,
        commands,
        status,
        expected,
        proofs: looks.spawn(),
        sessions_changed,
        may_write: {
            let peers = peers.clone();
            Box::new(move || peers.may_write())
        },
        sessions: Box::new(move || peers.status()),
        state_dir: state_dir.clone(),
        watchdog: sd_notify::watchdog_enabled(),
    };
    let reconciler = async {
        same_name.await?;
        reconciler::run(joints, stopped.clone()).await.context("the reconciler ended")
    };
    tell_systemd(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("running")]);
    tracing::info!(
        agent = %agent,
        host = config.host(),
        ovsdb = %config.ovsdb.endpoint.0.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", "),
        source = %config.source.path.display(),
        api = %config.api.socket.display(),
        mode = if config.agent.mode == Mode::Enforce { "enforce" } else { "observe" },
        "vifd {} runs",
        env!("CARGO_PKG_VERSION"),
    );
    let reloads = async {
        while hangup.recv().await.is_some() {
            reload(&path, &config, &control, &volume);
            enforce.send_replace(control.borrow().enforce);
            managed.send_replace(managed_bridges(&control.borrow().settings));
        }
    };
    let ended = tokio::select! {
        ended = reconciler => ended,
        () = server.run(api, std::future::pending()) => Ok(()),
        error = other_instance => Err(error.into()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = reloads => Ok(()),
        // It ends only with the backend.
        () = async { warnings.await; std::future::pending().await } => Ok(()),
    };
    // Nobody listens any more if the reconciler ended by itself.
    stop.send_replace(true);
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    ended?;
    tracing::info!("vifd ends; ports, links and traffic stay as they are");
    Ok(ExitCode::SUCCESS)
}

fn control(config: &Config) -> anyhow::Result<Control> {
    Ok(Control {
        settings: config.settings()?,
        enforce: config.agent.mode == Mode::Enforce,
        resync: config.agent.resync.0,
        look_every: config.offload.look_every.0,
    })
}

/// Bridges on which vifd makes the flows.
fn managed_bridges(settings: &Settings) -> BTreeSet<String> {
    settings.bridges.keys().cloned().collect()
}

/// Reads records within what this host allows; what is odd about one and does no harm is logged.
fn decoder(config: &Config) -> Decode {
    let limits = config.limits();
    Arc::new(move |bytes: &[u8]| {
        let record = record::decode_within(bytes, &limits)?;
        for warning in &record.warnings {
            tracing::warn!(vif = %record.vif.id, "{warning}");
        }
        Ok(record.vif)
    })
}

/// Reads the configuration again and takes what can be taken. What is wrong changes nothing; what differs from
/// the configuration that the agent was started with and takes a restart is named.
fn reload(path: &Path, started_with: &Config, control_sender: &watch::Sender<Control>, volume: &Volume) {
    let read = Config::load(path).map_err(anyhow::Error::from).and_then(|new| {
        let control = control(&new)?;
        Ok((new, control))
    });
    match read {
        Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
        Ok((new, mut control)) => {
            let later = Config::diff_needs_restart(started_with, &new);
            if !later.is_empty() {
                tracing::warn!("these keys take effect at the next start: {}", later.join(", "));
            }
            volume.set(&new.log);
            control_sender.send_modify(|current| {
                // Whose marks are ours, where sockets may be and where devices are is not for a running agent to change.
                control.settings.agent.clone_from(&current.settings.agent);
                control.settings.socket_dir.clone_from(&current.settings.socket_dir);
                control.settings.device_dir.clone_from(&current.settings.device_dir);
                *current = control;
            });
            tracing::info!("the configuration was read again");
        }
    }
}

/// Holds the state directory against a second agent, as long as the answer lives.
fn only_instance(state: &StateDir) -> anyhow::Result<File> {
    let path = state.path().join("lock");
    let file = state.open_file("lock")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another vifd runs with the state directory {} (it holds {})", state.path().display(), path.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Refuses a new `agent.id` while objects of the old one are on the host: they would be nobody's.
fn same_name(state: StateDir, agent: AgentId, ovs: &Ovs) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let mut view = ovs.observe();
    async move {
        let before = state.read(AGENT_ID)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        if before.as_deref() == Some(&agent.0) {
            return Ok(());
        }
        if let Some(before) = before {
            let seen = view.wait_for(|view| view.ready().is_some()).await.context("the OVSDB session ended")?.clone();
            let owned = seen.ready().map_or(0, |ovs| {
                ovs.interfaces.values().filter(|row| row.external_ids.get(OWNER) == Some(&before)).count()
            });
            if owned > 0 {
                bail!(
                    "agent.id was {before:?} and is {:?} now, and {owned} interfaces still belong to {before:?}: put \
                     the old id back, or run `vifd release` under it first",
                    agent.0
                );
            }
        }
        Ok(state.replace(AGENT_ID, format!("{agent}\n").as_bytes())?)
    }
}

/// Where ovs-vswitchd's control socket is, as far as that can be known.
fn rundir(config: &Config) -> Option<PathBuf> {
    let told = !config.ovsdb.rundir.as_os_str().is_empty() || config.ovsdb.endpoint.directory().is_some();
    told.then(|| config.rundir())
}

/// The session that the configuration asks for; also for `vifd doctor`.
pub(crate) fn session_config(ovsdb: &Ovsdb) -> anyhow::Result<ovsdb::session::Config> {
    let tls = ovsdb.endpoint.needs_tls().then(|| Tls {
        private_key: ovsdb.key.clone(),
        certificate: ovsdb.cert.clone(),
        ca_certificate: ovsdb.ca.clone(),
        verification: Verification::ByEndpoint,
    });
    let mut servers = ovsdb.endpoint.0.iter().map(|endpoint| Server::new(endpoint.clone(), tls.clone()));
    let first = servers.next().context("ovsdb.endpoint names no endpoint")?;
    let mut session = servers.fold(ovsdb::session::Config::new(first), ovsdb::session::Config::or);
    session.limits = OVSDB_LIMITS;
    Ok(session)
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
