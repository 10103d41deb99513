//! A session with a switch: the task that keeps a connection, and the handle by which the rest of a program uses it. What
//! happens on one connection is in `session/connection.rs`, how changes are sent in `session/batch.rs`, what can go wrong
//! in `session/condition.rs`, and the requests that a handle has by name in `session/requests.rs`.
//!
//! ```text
//!              ┌──────────────────── any error; after a delay ────────────────────┐
//!              ▼                                                                  │
//!  Connecting ──► stream ──hello──► version 1.4 ──features──► Ready ──requests──► …
//! ```

mod batch;
mod condition;
mod connection;
mod requests;
mod watch;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch as channel};
use tokio::time::{sleep, timeout};

pub use self::batch::MAX_REFUSALS;
pub use self::condition::{CallError, Outcome, Refusal, RefusalError, SessionError, SessionState, Statistics};
use self::connection::{Connection, Ended};
use self::watch::Sink;
pub use self::watch::{FlowWatch, WatchEnd, WatchEvent};
use crate::endpoint::Connect;
use crate::message::{AsyncMask, Kind, Message, MultipartRequest};

/// Calls on their way from handles to the task. A caller waits for its answer anyway.
const COMMAND_QUEUE: usize = 64;

/// Attempts that find no socket, a good second of them, until that is worth a warning.
const ABSENT: u32 = 4;

/// Messages that the switch sends by itself, kept for those who listen. Who is slower loses the oldest and is told so.
const EVENT_QUEUE: usize = 256;

/// How to reach a switch and how patient to be.
#[derive(Clone)]
pub struct Config {
    switch: Arc<dyn Connect>,
    /// Time for connecting, up to and including the features reply.
    pub connect_timeout: Duration,
    /// Delay after the first failure; it doubles with every further one and is shortened by up to half at random.
    /// [`Connect::comeback`] cuts it short.
    pub min_backoff: Duration,
    /// The delay does not grow beyond this.
    pub max_backoff: Duration,
    /// After so long without a byte from the switch it is asked for a sign of life.
    pub probe_interval: Duration,
    /// After so long without a byte from the switch since then the connection counts as dead.
    pub probe_timeout: Duration,
    /// After so long without progress of a request the connection counts as dead, too.
    pub request_timeout: Duration,
    /// Octets of a multipart reply.
    pub max_reply: usize,
    /// Octets of flow updates that wait to be read from a [`FlowWatch`].
    pub max_watched: usize,
    /// What to be told of by [`Handle::events`], e.g. [`AsyncMask::PORTS`]; of nothing else.
    pub events: Vec<AsyncMask>,
}

impl Config {
    /// A switch, and usual patience: 5 s to connect, 0.1 s to 8 s between attempts, an echo request after 5 s of silence.
    /// An end comes only after 60 s more, and 120 s for a request, because ovs-vswitchd answers nothing while it
    /// reconfigures thousands of ports. 256 MiB for a reply: about two million flows. No events.
    pub fn new(switch: impl Connect + 'static) -> Self {
        Self {
            switch: Arc::new(switch),
            connect_timeout: Duration::from_secs(5),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(8),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(120),
            max_reply: 256 << 20,
            max_watched: 64 << 20,
            events: Vec::new(),
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, CallError>>;

enum Command {
    /// A request with one answer: of the kind that is expected, or an error.
    Call {
        message: Message,
        answer: Kind,
        reply: Reply<Message>,
    },
    /// A request with an answer of many parts.
    Multipart {
        request: MultipartRequest,
        reply: Reply<Vec<Bytes>>,
    },
    Bundle {
        messages: Vec<Message>,
        reply: oneshot::Sender<Outcome>,
    },
    /// Messages without answers, and a barrier.
    Sequence {
        messages: Vec<Message>,
        reply: Reply<Vec<Refusal>>,
    },
    Watch {
        sink: Sink,
        reply: Reply<()>,
    },
}

impl Command {
    /// The answer to a command that was not sent. A caller that went away does not mind.
    fn not_sent(self) {
        match self {
            Self::Call { reply, .. } => drop(reply.send(Err(CallError::NotSent))),
            Self::Multipart { reply, .. } => drop(reply.send(Err(CallError::NotSent))),
            Self::Bundle { reply, .. } => drop(reply.send(Outcome::NotSent)),
            Self::Sequence { reply, .. } => drop(reply.send(Err(CallError::NotSent))),
            Self::Watch { reply, .. } => drop(reply.send(Err(CallError::NotSent))),
        }
    }
}

/// The way to a session. Clones share it; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    state: channel::Receiver<SessionState>,
    events: broadcast::Sender<Message>,
    statistics: Arc<Mutex<Statistics>>,
    max_watched: usize,
}

impl Handle {
    /// What the session is doing.
    #[must_use]
    pub fn state(&self) -> channel::Receiver<SessionState> {
        self.state.clone()
    }

    /// What the session has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        lock(&self.statistics).clone()
    }

    /// Messages that the switch sends by itself, from now on: [`Message::PortStatus`], [`Message::FlowRemoved`],
    /// [`Message::RequestForward`] and others. Without [`Config::events`] Open vSwitch's management socket sends none.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Message> {
        self.events.subscribe()
    }

    /// Sends a request that has one answer, and waits for it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, message: Message, answer: Kind) -> Result<Message, CallError> {
        self.command(|reply| Command::Call { message, answer, reply }).await
    }

    /// Sends a multipart request and waits for all parts of its answer: what is behind `struct ofp_multipart_reply`. No
    /// entry is in two parts.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn multipart(&self, request: MultipartRequest) -> Result<Vec<Bytes>, CallError> {
        self.command(|reply| Command::Multipart { request, reply }).await
    }

    /// Sends changes of flows and groups, and packets, as one bundle: in this order, all of it or nothing, and no packet
    /// sees a part of it. Open vSwitch takes no meters in bundles.
    ///
    /// Dropping the future does not take back what was sent.
    pub async fn bundle(&self, messages: Vec<Message>) -> Outcome {
        if messages.is_empty() {
            return Outcome::Committed;
        }
        let (reply, outcome) = oneshot::channel();
        if self.commands.send(Command::Bundle { messages, reply }).await.is_err() {
            return Outcome::NotSent;
        }
        // Without the task, which only a panic in it explains, nobody knows.
        outcome.await.unwrap_or(Outcome::Unknown)
    }

    /// Sends messages that have no answer but errors, one after the other and each for itself, and waits for the barrier
    /// behind them: what is not among the refusals took effect.
    ///
    /// # Errors
    /// See [`CallError`]. After [`CallError::Disconnected`] any of them may have taken effect.
    pub async fn sequence(&self, messages: Vec<Message>) -> Result<Vec<Refusal>, CallError> {
        self.command(|reply| Command::Sequence { messages, reply }).await
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(CallError::NotSent);
        }
        answer.await.unwrap_or(Err(CallError::Disconnected))
    }
}

/// The task of a session.
pub struct Session {
    config: Config,
    commands: mpsc::Receiver<Command>,
    state: channel::Sender<SessionState>,
    events: broadcast::Sender<Message>,
    statistics: Arc<Mutex<Statistics>>,
}

impl Session {
    /// Starts a session. Must be called within a tokio runtime; ends when the last handle is dropped.
    #[must_use]
    pub fn spawn(config: Config) -> Handle {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (state_sender, state) = channel::channel(SessionState::Connecting);
        let events = broadcast::Sender::new(EVENT_QUEUE);
        let statistics = Arc::new(Mutex::new(Statistics::default()));
        let max_watched = config.max_watched;
        let session = Self {
            config,
            commands: receiver,
            state: state_sender,
            events: events.clone(),
            statistics: Arc::clone(&statistics),
        };
        tokio::spawn(session.run());
        Handle { commands, state, events, statistics, max_watched }
    }

    /// Connects again and again, until all handles are gone.
    async fn run(mut self) {
        // Delays since the last success.
        let mut delays = 0;
        loop {
            let connect = Arc::clone(&self.config.switch);
            let comeback = connect.comeback();
            let attempt = timeout(self.config.connect_timeout, connect.connect());
            let Some(attempt) = self.offline(attempt).await else {
                return;
            };
            let (error, was_ready) = match attempt {
                Err(_) => {
                    let after = self.config.connect_timeout;
                    (SessionError::ConnectTimeout { target: connect.target(), after }, false)
                }
                Ok(Err(source)) => (SessionError::Connect { target: connect.target(), source }, false),
                Ok(Ok(stream)) => match Connection::new(&mut self).serve(stream).await {
                    Ended::HandlesGone => return,
                    Ended::Failed { error, was_ready } => (error, was_ready),
                },
            };
            if was_ready {
                delays = 0;
            }
            self.fail(error, delays);
            let delay = self.backoff(delays);
            delays += 1;
            let waited = async {
                tokio::select! {
                    () = sleep(delay) => false,
                    () = comeback => true,
                }
            };
            match self.offline(waited).await {
                None => return,
                // A switch that comes back is as good as a new one.
                Some(true) => delays = 0,
                Some(false) => {}
            }
        }
    }

    /// The delay before the next attempt.
    fn backoff(&self, delays: u32) -> Duration {
        let factor = 2_u32.saturating_pow(delays.min(30));
        let longest = self.config.min_backoff.saturating_mul(factor).min(self.config.max_backoff);
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Waits for something while there is no connection; `None` when all handles are gone.
    async fn offline<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Some(output),
                command = self.commands.recv() => command?.not_sent(),
            }
        }
    }

    /// The connection is gone or could not be had, after as many failures since the last success.
    fn fail(&mut self, error: SessionError, failures: u32) {
        let again = match &*self.state.borrow() {
            SessionState::Failed(last) => last.reason() == error.reason(),
            _ => false,
        };
        let target = self.config.switch.target();
        // A bridge that is being made has its socket in a moment: that is told once it lasts.
        let absent = matches!(&error, SessionError::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound);
        let quiet = if absent { failures != ABSENT } else { again };
        if quiet {
            tracing::debug!(target, error = &error as &dyn std::error::Error, "still no session with the switch");
        } else {
            tracing::warn!(target, error = &error as &dyn std::error::Error, "no session with the switch");
        }
        let mut statistics = lock(&self.statistics);
        if statistics.connected {
            statistics.connected = false;
            *statistics.restarts.entry(error.reason()).or_default() += 1;
        } else {
            statistics.connect_failures += 1;
        }
        drop(statistics);
        self.state.send_replace(SessionState::Failed(Arc::new(error)));
    }
}

/// Counters stay right when a thread panics between two of them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
