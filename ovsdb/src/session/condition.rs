//! The condition of a session as others see it: its state, why a connection ended, what it has counted.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::framing::FramingError;
use crate::message::ServerError;
use crate::table::SchemaError;
use crate::update::UpdateError;
use crate::value::DecodeError;

/// What a session is doing.
#[derive(Clone, Debug)]
pub enum SessionState {
    /// For the first time on its way to a server.
    Connecting,
    /// The schema fits; the contents are on their way.
    Syncing,
    /// The view is complete and transactions are sent.
    Ready,
    /// The last attempt failed, and why. The next one is under way or will be after a delay; the state
    /// stays until that one got as far as [`SessionState::Syncing`].
    Failed(Arc<SessionError>),
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No stream to the server.
    #[error("cannot connect to {target}")]
    Connect {
        /// The server.
        target: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// No stream to the server in time.
    #[error("{target} did not accept a connection within {after:?}")]
    ConnectTimeout {
        /// The server.
        target: String,
        /// Time allowed.
        after: Duration,
    },
    /// The server closed the connection.
    #[error("the OVSDB server closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection to the OVSDB server broke")]
    Io(#[source] io::Error),
    /// The server said nothing for too long, an echo request notwithstanding.
    #[error("the OVSDB server is silent for {0:?}")]
    Inactive(Duration),
    /// The server answers, but not this.
    #[error("the OVSDB server has not answered {method} for {after:?}")]
    Unanswered {
        /// The method called.
        method: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// A message began and does not come to its end.
    #[error("the OVSDB server sent {bytes} bytes of a message in {after:?}, and not its end")]
    Trickle {
        /// What came of it.
        bytes: usize,
        /// Since its first byte.
        after: Duration,
    },
    /// The server sends requests without end and does not read the answers.
    #[error("the OVSDB server has not read {0} bytes of answers to its own requests")]
    Unread(usize),
    /// The database has more rows than [`crate::framing::Limits::max_rows`].
    #[error("the OVSDB server sent more than {0} rows")]
    TooManyRows(usize),
    /// Bytes that are no messages.
    #[error("the OVSDB server does not speak JSON-RPC")]
    Framing(#[from] FramingError),
    /// A message that makes no sense.
    #[error("the OVSDB server sent a message that makes no sense: {0}")]
    Message(DecodeError),
    /// The server does not give the schema, e.g. because it does not have the database.
    #[error("the OVSDB server refused its schema of {database}: {error}")]
    SchemaRefused {
        /// The database asked for.
        database: &'static str,
        /// What it said.
        error: ServerError,
    },
    /// The schema cannot be read.
    #[error("the OVSDB server sent a schema that makes no sense: {0}")]
    SchemaUndecodable(DecodeError),
    /// The schema lacks what we need.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// No way of monitoring works.
    #[error("the OVSDB server refused to be monitored: {0}")]
    MonitorRefused(ServerError),
    /// The server ended the monitoring, because the database changes its schema or goes.
    #[error("the OVSDB server canceled the monitoring")]
    MonitorCanceled,
    /// An update that cannot be true, or cannot be read.
    #[error("the replica lost step with the OVSDB server")]
    Update(#[from] UpdateError),
}

impl SessionError {
    /// A short word for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } => "connect",
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::Inactive(_) | Self::Unanswered { .. } | Self::Trickle { .. } => "inactive",
            Self::Framing(_) | Self::Message(_) | Self::Unread(_) | Self::TooManyRows(_) => "protocol",
            Self::SchemaRefused { .. } | Self::SchemaUndecodable(_) | Self::Schema(_) => "schema",
            Self::MonitorRefused(_) => "monitor_refused",
            Self::MonitorCanceled => "monitor_canceled",
            Self::Update(_) => "impossible_update",
        }
    }

    /// Whether only a person can mend it: the server is there and is not what was expected.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::SchemaRefused { .. } | Self::SchemaUndecodable(_) | Self::Schema(_))
    }

    /// Whether the contents we hold are worthless after it.
    pub(crate) const fn is_about_contents(&self) -> bool {
        matches!(
            self,
            Self::Framing(_) | Self::Message(_) | Self::MonitorCanceled | Self::Update(_) | Self::TooManyRows(_)
        )
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
    /// Times that the whole contents came again, by the reason for which the connection before it ended.
    pub resyncs: BTreeMap<&'static str, u64>,
    /// Bytes from the server.
    pub bytes_received: u64,
    /// Bytes to the server.
    pub bytes_sent: u64,
    /// Messages from the server.
    pub messages_received: u64,
    /// Messages to the server.
    pub messages_sent: u64,
    /// When the last message from the server was complete.
    pub last_message_at: Option<Instant>,
}
