//! Answering when a VIF has become what the client waits for, or as soon as it is clear that it will not.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Error;
use crate::model::VifId;
use crate::status::{ConditionKind, HostStatus, Phase, Truth, VifStatus};

/// How long is waited when the client does not say.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long at most: a connection is kept for it.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// All that vifd itself can do is done.
    Plugged,
    /// Traffic can pass.
    Ready,
    /// Nothing is left of it.
    Gone,
}

impl FromStr for Goal {
    type Err = Error;
    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "plugged" => Ok(Goal::Plugged),
            "ready" => Ok(Goal::Ready),
            "gone" => Ok(Goal::Gone),
            other => Err(Error::parameter("wait", format!("{other:?} is none of plugged, ready, gone"))),
        }
    }
}

impl Goal {
    fn name(self) -> &'static str {
        match self {
            Goal::Plugged => "plugged",
            Goal::Ready => "ready",
            Goal::Gone => "gone",
        }
    }

    /// Whether it is reached; an error when it cannot be.
    fn judge(self, vif: Option<&VifStatus>) -> Result<bool, Error> {
        let Some(vif) = vif else { return Ok(self == Goal::Gone) };
        match vif.phase {
            Phase::Failed => Err(Error::failed(vif)),
            Phase::Conflict => Err(Error::conflict(vif)),
            Phase::Removing => Ok(false),
            phase => Ok(match self {
                Goal::Plugged => {
                    vif.condition(ConditionKind::Plugged).is_some_and(|plugged| plugged.status == Truth::True)
                }
                Goal::Ready => phase == Phase::Ready,
                Goal::Gone => false,
            }),
        }
    }
}

/// The parameter `timeout`.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, Error> {
    parse_time(text).map_err(|reason| Error::parameter("timeout", reason))
}

/// `30s`, `2m`, `500ms`, or seconds as a bare number; an error says why it is not a time to wait.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match parsed {
        Some(time) if time <= MAX_TIMEOUT => Ok(time),
        Some(_) => Err(format!("{text} is more than {} s, the longest wait", MAX_TIMEOUT.as_secs())),
        None => Err(format!("{text:?} is not a time such as 30s")),
    }
}

/// Waits until a plan of `revision` or later finds the VIF as wanted. Answers its status, none when it is gone.
pub(super) async fn wait(
    mut status: watch::Receiver<Arc<HostStatus>>,
    id: VifId,
    goal: Goal,
    revision: u64,
    time: Duration,
) -> Result<Option<Arc<VifStatus>>, Error> {
    let deadline = Instant::now() + time;
    loop {
        let host = status.borrow_and_update().clone();
        let vif = host.vifs.get(&id);
        let seen = host.revision >= revision && !host.unseen.contains(&id);
        if seen && goal.judge(vif.map(AsRef::as_ref))? {
            return Ok(vif.cloned());
        }
        match timeout_at(deadline, status.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::unavailable("the agent is stopping")),
            Err(_) => {
                let as_it_is = match vif {
                    Some(vif) => format!("it is {}: {}", vif.phase, vif.message),
                    None => "it is not known".into(),
                };
                let message = format!("VIF {id} is not {} after {time:?}: {as_it_is}", goal.name());
                return Err(Error::timeout(message, vif.map(AsRef::as_ref)));
            }
        }
    }
}
