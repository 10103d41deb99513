//! The condition of a session as others see it: its state, why a connection ended, what it has counted; and what becomes
//! of calls.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::{Features, Kind, SwitchError, TooLong};
use crate::{DecodeError, InvalidFrame};

/// What a session is doing.
#[derive(Clone, Debug)]
pub enum SessionState {
    /// For the first time on its way to a switch.
    Connecting,
    /// The switch speaks our version and said what it is; requests are sent.
    Ready(Features),
    /// The last attempt failed, and why. The next one is under way or will be after a delay; the state stays until that
    /// one got as far as [`SessionState::Ready`].
    Failed(Arc<SessionError>),
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No stream to the switch.
    #[error("cannot connect to {target}")]
    Connect {
        /// The switch.
        target: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// No stream to the switch in time, or no answers to hello and features request.
    #[error("no OpenFlow session with {target} within {after:?}")]
    ConnectTimeout {
        /// The switch.
        target: String,
        /// Time allowed.
        after: Duration,
    },
    /// The switch closed the connection.
    #[error("the switch closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection to the switch broke")]
    Io(#[source] io::Error),
    /// The switch said nothing for too long, an echo request notwithstanding.
    #[error("the switch is silent for {0:?}")]
    Inactive(Duration),
    /// The switch is alive and does not answer a request.
    #[error("the switch does not answer a request for {0:?}")]
    Unanswered(Duration),
    /// The switch speaks other versions of OpenFlow only.
    #[error("the switch does not speak OpenFlow 1.4 (it offers {offered})")]
    Version {
        /// Its versions in words, e.g. `1.0, 1.3`.
        offered: String,
    },
    /// The switch refused our hello.
    #[error("the switch refused the session: {0}")]
    HelloRefused(#[source] SwitchError),
    /// The switch refused what every switch must grant.
    #[error("the switch refused {request}: {error}")]
    SetupRefused {
        /// What.
        request: &'static str,
        /// What it said.
        error: SwitchError,
    },
    /// Bytes that are no messages.
    #[error("the switch does not speak OpenFlow: {0}")]
    Frame(#[from] InvalidFrame),
    /// The first message is no hello, or one that follows is of another version.
    #[error("the switch sent a message of type {kind} and version {version} where {expected} was due")]
    Unexpected {
        /// Its type.
        kind: u8,
        /// Its version.
        version: u8,
        /// What was due.
        expected: &'static str,
    },
    /// A message about the session that makes no sense.
    #[error("the switch sent a message that makes no sense: {0}")]
    Message(#[from] DecodeError),
    /// The switch asks for echoes and does not read them.
    #[error("the switch does not read our answers")]
    Unread,
}

impl SessionError {
    /// A short word for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } => "connect",
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::Inactive(_) | Self::Unanswered(_) => "inactive",
            Self::Version { .. } | Self::HelloRefused(_) => "version",
            Self::SetupRefused { .. } => "refused",
            Self::Frame(_) | Self::Unexpected { .. } | Self::Message(_) | Self::Unread => "protocol",
        }
    }

    /// Whether only a person can mend it: the switch is there and is not what was expected.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Version { .. } | Self::HelloRefused(_) | Self::SetupRefused { .. })
    }
}

/// What a session has counted since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Whether there is a connection.
    pub connected: bool,
    /// When the last connection was made.
    pub connected_at: Option<Instant>,
    /// Connections made.
    pub connections: u64,
    /// Attempts that gave no connection.
    pub connect_failures: u64,
    /// Connections that ended, by [`SessionError::reason`].
    pub restarts: BTreeMap<&'static str, u64>,
    /// Bytes from the switch.
    pub bytes_received: u64,
    /// Bytes to the switch.
    pub bytes_sent: u64,
    /// Messages from the switch.
    pub messages_received: u64,
    /// Messages to the switch.
    pub messages_sent: u64,
    /// Of these, changes of flows, groups and meters, in bundles or not.
    pub modifications_sent: u64,
    /// Errors that the switch answered with.
    pub errors_received: u64,
    /// When the last message from the switch was complete.
    pub last_message_at: Option<Instant>,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request was not sent.
    #[error("the session with the switch is not ready")]
    NotSent,
    /// The request was sent (at least in part) and the connection ended before the answer.
    #[error("the connection ended before the switch answered")]
    Disconnected,
    /// The request is longer than a message can be.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The switch answered with an error.
    #[error("the switch answered: {0}")]
    Refused(#[from] SwitchError),
    /// The switch answered with something that is no answer to the request.
    #[error("the switch answered with a message of type {}", .0.0)]
    Unexpected(Kind),
    /// The answer cannot be read.
    #[error("the switch answered what makes no sense: {0}")]
    Decode(#[from] DecodeError),
    /// The answer is longer than [`super::Config::max_reply`].
    #[error("the switch's answer is longer than {0} octets")]
    ReplyTooLong(usize),
    /// Flows of this session are watched already.
    #[error("the session's flows are watched already")]
    Watched,
}

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one, counted from 0 in what was given; `None` when it is the whole that was refused.
    pub index: Option<usize>,
    /// Why.
    pub error: RefusalError,
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusalError {
    /// The switch says so. Of the request its error has 64 octets at most.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// It cannot be sent.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// What became of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it took effect.
    Committed,
    /// Nothing of it took effect, because of these messages: at least one, and of those that the switch named the first
    /// [`super::MAX_REFUSALS`]. Open vSwitch names every message that makes no sense to it, but of those that only fail
    /// in the execution the first.
    Refused(Vec<Refusal>),
    /// It was not sent, or not to its end: the session is not ready, or ended before the commit. Nothing of it took effect;
    /// it may be tried again.
    NotSent,
    /// The connection ended after the commit was sent: all of it or nothing took effect. Look at the switch again; never
    /// send it again blindly.
    Unknown,
}

impl Outcome {
    /// A short word for metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Refused(_) => "refused",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}
