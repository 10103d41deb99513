//! What people ask of the switches of managed bridges: flows, traces, counters; of the NICs; and what is on the host that may
//! be taken over. It reads what backends and planner know and asks switches for what is in no view; it changes nothing and decides
//! nothing.
//!
//! * `owners`: whose a cookie is, and whose a port
//! * `listing`: the flows of one owner, beside what is wanted; what there is on each bridge
//! * `counters`: what flows have counted
//! * `nics`: the NICs, their functions, and who has these
//! * `candidates`: what os-vif and others left, and the records that it would need
//! * `packet`: the packet that a trace is of; `trace`: the trace, explained

pub mod candidates;
mod counters;
mod listing;
mod nics;
mod owners;
mod packet;
mod trace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flows::session::{CallError, Handle};
use tokio::sync::{mpsc, oneshot, watch};

use self::candidates::{Candidates, candidates};
use self::counters::Counters;
pub use self::counters::{BridgeCounts, Count, FlowMetrics, Traffic};
pub use self::listing::{BridgeFlows, FlowLine, FlowListing, Standing, TableListing};
pub use self::nics::{FunctionLine, NetdevLine, NicLine};
pub use self::owners::{Belongs, Owners};
pub use self::packet::{Kind, Question, To};
pub use self::trace::{Dropped, Sense, Sent, Step, Trace, explain};
use crate::backend::openflow::SwitchSession;
use crate::backend::unixctl::ControlError;
use crate::model::{FlowState, View, VifId};
use crate::plan::pipeline::{NetworkKey, OwnerTag};
use crate::plan::{FlowsOf, Intended};
use crate::reconciler::{Command, Control};
use crate::source::Intake;
use crate::status::HostStatus;

/// For a switch to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for flows of somebody else.
const CALM: Duration = Duration::from_secs(1);

/// The session with the switch of a bridge, where there is one.
pub type Handles = Box<dyn Fn(&str) -> Option<Handle> + Send + Sync>;

/// Where an inspector looks.
pub struct Eyes {
    /// The sessions with switches.
    pub handles: Handles,
    /// What the switches say.
    pub states: watch::Receiver<View<BTreeMap<String, View<FlowState>>>>,
    /// How the sessions with them are.
    pub sessions: watch::Receiver<BTreeMap<String, SwitchSession>>,
    /// The configuration as it stands.
    pub control: watch::Receiver<Control>,
    /// The records.
    pub records: watch::Receiver<Intake>,
    /// What is.
    pub status: watch::Receiver<Arc<HostStatus>>,
    /// Where the planner is asked.
    pub commands: mpsc::Sender<Command>,
    /// Directory of ovs-vswitchd's sockets.
    pub rundir: PathBuf,
}

/// Looks into switches. Clones share everything.
#[derive(Clone)]
pub struct Inspector {
    eyes: Arc<Eyes>,
    counters: Arc<Counters>,
}

/// Whose flows are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A VIF's own.
    Vif(VifId),
    /// A network's, by its id or label; on this bridge, where it has VIFs on several.
    Network(String, Option<String>),
    /// Those that all VIFs of a bridge share.
    Bridge(String),
    /// Those on a bridge that are not vifd's.
    Others(String),
}

/// Why there is nothing to be seen.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such thing here.
    #[error("{0}")]
    Unknown(String),
    /// There are no flows of vifd's, and why.
    #[error("{0}")]
    NotOurs(String),
    /// What is asked for is not clear.
    #[error("{message}")]
    Unclear {
        /// Name of the parameter.
        parameter: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The switch cannot be asked at the moment.
    #[error("the switch of bridge {bridge} cannot be asked: {reason}")]
    Away {
        /// Which.
        bridge: String,
        /// How its session is.
        reason: String,
    },
    /// ovs-vswitchd cannot be asked, or says no.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The host is not seen.
    #[error("the {0} not synchronised: what is on the host is not known")]
    Unseen(&'static str),
    /// The agent ends.
    #[error("the agent is stopping")]
    Stopping,
}

impl Inspector {
    /// An inspector that looks there.
    #[must_use]
    pub fn new(eyes: Eyes) -> Self {
        Inspector { eyes: Arc::new(eyes), counters: Arc::default() }
    }

    fn tag(&self) -> OwnerTag {
        OwnerTag::of(&self.eyes.control.borrow().settings.agent)
    }

    fn owners(&self) -> Owners {
        Owners::new(self.tag(), &self.eyes.records.borrow().desired, &self.eyes.status.borrow())
    }

    /// Refuses a bridge whose flows are not vifd's to make.
    fn managed(&self, bridge: &str) -> Result<(), InspectError> {
        if let Some(reason) = self.eyes.status.borrow().unmanaged.get(bridge) {
            return Err(InspectError::NotOurs(reason.clone()));
        }
        if self.eyes.control.borrow().settings.bridges.contains_key(bridge) {
            return Ok(());
        }
        Err(InspectError::NotOurs(format!(
            "the flows of bridge {bridge} are not vifd's: there is no [[bridge]] with flows = \"managed\" for it"
        )))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, InspectError> {
        let (reply, answer) = oneshot::channel();
        self.eyes.commands.send(command(reply)).await.map_err(|_| InspectError::Stopping)?;
        answer.await.map_err(|_| InspectError::Stopping)
    }

    async fn intended(&self, of: FlowsOf) -> Result<Option<Intended>, InspectError> {
        self.ask(|reply| Command::Intended(of, reply)).await
    }

    /// The network that a word means: its id, or its label in the records.
    fn network(&self, word: &str) -> Result<NetworkKey, InspectError> {
        if let Ok(id) = word.parse() {
            return Ok(NetworkKey::Network(id));
        }
        let intake = self.eyes.records.borrow();
        let networks = intake.desired.vifs.values().filter_map(|vif| vif.network.as_ref());
        let mut ids: Vec<_> = networks
            .filter(|network| network.label.as_deref() == Some(word))
            .filter_map(|network| network.id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        match ids[..] {
            [id] => Ok(NetworkKey::Network(id)),
            [] => Err(InspectError::Unknown(format!("no record has a network with the id or label {word:?}"))),
            _ => Err(InspectError::Unclear {
                parameter: "network",
                message: format!("{} networks have the label {word:?}: say which by its id", ids.len()),
            }),
        }
    }

    /// What is on the host, on this bridge where one is named, that may be taken over.
    ///
    /// # Errors
    /// The database or the kernel's links are not seen.
    pub async fn candidates(&self, bridge: Option<&str>) -> Result<Candidates, InspectError> {
        let seen = self.ask(Command::Seen).await?;
        let missing = match seen.observed.ovs.ready() {
            None => "Open vSwitch database is",
            Some(_) => "kernel's links are",
        };
        candidates(&seen, bridge, Instant::now()).ok_or(InspectError::Unseen(missing))
    }

    /// Says in the log when flows of somebody else come to stand above ours, and when they are gone; for ever.
    pub async fn warn_of_others(self) {
        let mut states = self.eyes.states.clone();
        let mut before: BTreeMap<String, usize> = BTreeMap::new();
        while states.changed().await.is_ok() {
            states.mark_unchanged();
            let now = self.bridges().into_iter().filter(|bridge| bridge.up);
            for BridgeFlows { bridge, foreign_above, above, .. } in now {
                let known = before.insert(bridge.clone(), foreign_above).unwrap_or(0);
                let first = above.first().map_or("", String::as_str);
                match (known, foreign_above) {
                    (0, 1..) => tracing::warn!(
                        bridge,
                        flows = foreign_above,
                        first,
                        "flows of somebody else stand above ours: packets may go by them instead"
                    ),
                    (1.., 0) => tracing::info!(bridge, "no flow of somebody else stands above ours any more"),
                    _ => {}
                }
            }
            // What changes all the time is looked at once in a while.
            tokio::time::sleep(CALM).await;
        }
    }

    /// Asks a switch, within [`PATIENCE`].
    async fn call<T>(
        &self,
        bridge: &str,
        question: impl AsyncFnOnce(Handle) -> Result<T, CallError>,
    ) -> Result<T, InspectError> {
        let away = |reason: String| InspectError::Away { bridge: bridge.to_owned(), reason };
        let handle = (self.eyes.handles)(bridge).ok_or_else(|| away(self.session(bridge).detail))?;
        match tokio::time::timeout(PATIENCE, question(handle)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(CallError::NotSent)) => Err(away(self.session(bridge).detail)),
            Ok(Err(error)) => Err(away(error.to_string())),
            Err(_) => Err(away(format!("no answer within {PATIENCE:?}"))),
        }
    }

    fn session(&self, bridge: &str) -> SwitchSession {
        let known = self.eyes.sessions.borrow().get(bridge).cloned();
        known.unwrap_or_else(|| SwitchSession { detail: "it is not there yet".to_owned(), ..SwitchSession::default() })
    }
}
