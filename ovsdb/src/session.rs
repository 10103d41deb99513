//! A session with a server: the task that keeps a connection and a replica, and the handle by which the
//! rest of a program uses them. What happens on one connection is in `session/connection.rs`; what is
//! counted and what can go wrong in `session/condition.rs`.
//!
//! ```text
//!              ┌───────────── any error; after a delay, or when the server comes back ─────────────┐
//!              ▼                                                                              │
//!  Connecting ──► connected ──get_schema──► schema fits ──monitor──► initial contents ──► Ready
//!                     │                      (Syncing)                    │
//!                     └── a call of anyone else, a lock, echo: any time ──┘
//! ```

mod condition;
mod connection;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

pub use self::condition::{SessionError, SessionState, Statistics};
use self::connection::{Connection, Ended, Retained};
use crate::endpoint::{Comeback, Connect, Dial, Endpoint};
use crate::framing::Limits;
use crate::message::{self, ServerError};
use crate::outcome::{Applied, Outcome};
use crate::replica::{Replica, View};
use crate::tls::Tls;
use crate::transact::{Condition, Transaction};

/// Calls on their way from handles to the task. A caller waits for its answer anyway.
const COMMAND_QUEUE: usize = 64;

/// A connection that was of use for so long was no mistake, and the next one is tried at once.
const PROVEN: Duration = Duration::from_secs(1);

/// How to reach a server and how patient to be.
#[derive(Clone)]
pub struct Config {
    servers: Vec<Arc<dyn Connect>>,
    conditions: BTreeMap<&'static str, Vec<Value>>,
    /// Time for connecting, the TLS handshake included.
    pub connect_timeout: Duration,
    /// Delay after the first failure; it doubles with every further one and is shortened by up to half at
    /// random, so that the clients of a server that comes back do not all arrive at once. [`Connect::comeback`] cuts
    /// it short.
    pub min_backoff: Duration,
    /// The delay does not grow beyond this.
    pub max_backoff: Duration,
    /// After so long without a byte from the server it is asked for a sign of life;
    /// [`Duration::MAX`] means never.
    pub probe_interval: Duration,
    /// After so long without a byte from the server since then the connection counts as dead.
    pub probe_timeout: Duration,
    /// After so long without the answer to a call, or the end of a message, the connection is given up, whatever
    /// else the server sends. Messages of many bytes have longer, by 64 KiB a second. A transaction that makes the
    /// server wait for longer than this has no use.
    pub answer_timeout: Duration,
    /// What the server may send.
    pub limits: Limits,
}

impl Config {
    /// A server, and usual patience: 5 s to connect, 0.1 s to 8 s between attempts, an echo request after
    /// 5 s of silence, an end after 15 s more, and 60 s for the answer to a call.
    pub fn new(server: impl Connect + 'static) -> Self {
        Self {
            servers: vec![Arc::new(server)],
            conditions: BTreeMap::new(),
            connect_timeout: Duration::from_secs(5),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(8),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(60),
            limits: Limits::default(),
        }
    }

    /// A server by its endpoint.
    #[must_use]
    pub fn endpoint(endpoint: Endpoint, tls: Option<Tls>) -> Self {
        Self::new(Dial::new(endpoint, tls))
    }

    /// A further server of the same database, tried when those before it cannot be had.
    #[must_use]
    pub fn or(mut self, server: impl Connect + 'static) -> Self {
        self.servers.push(Arc::new(server));
        self
    }

    /// Monitors only the rows of `T` that meet this condition or another one given for `T`. A server
    /// that knows nothing but RFC 7047's `monitor` sends all rows all the same.
    #[must_use]
    pub fn only<T: crate::table::Table>(mut self, condition: &Condition<T>) -> Self {
        self.conditions.entry(T::DECL.name).or_default().push(condition.to_json());
        self
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call was not sent.
    #[error("the session with the OVSDB server is not ready")]
    NotSent,
    /// The call was sent (at least in part) and the connection ended before the answer.
    #[error("the connection ended before the OVSDB server answered")]
    Disconnected,
    /// The server answered with an error.
    #[error("the OVSDB server answered: {0}")]
    Server(#[from] ServerError),
}

/// How to ask for a lock (RFC 7047, 4.1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Wait for one's turn.
    Queue,
    /// Take it from whoever has it. Only now: after a reconnection the session waits for its turn.
    Steal,
}

/// What is known of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Others have it, or there is no connection.
    Waiting,
    /// This session has it.
    Held,
    /// This session had it until somebody stole it; it waits for its turn again.
    Stolen,
    /// The server will not hear of it, e.g. of a name that is no `<id>`.
    Refused(ServerError),
}

type Reply = oneshot::Sender<Result<Value, CallError>>;

enum Command {
    Call { id: u64, text: Vec<u8>, needs_ready: bool, reply: Reply },
    Lock { name: String, mode: LockMode, reply: oneshot::Sender<watch::Receiver<LockState>> },
    Unlock { name: String },
}

/// The way to a session. Clones share it; it ends when the last one is dropped.
#[derive(Debug)]
pub struct Handle<R> {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View<R>>,
    state: watch::Receiver<SessionState>,
    statistics: Arc<Mutex<Statistics>>,
    ids: Arc<AtomicU64>,
}

impl<R> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            view: self.view.clone(),
            state: self.state.clone(),
            statistics: Arc::clone(&self.statistics),
            ids: Arc::clone(&self.ids),
        }
    }
}

impl<R: Replica> Handle<R> {
    /// The contents of the database; changes once per message of the server at most. The first `changed`
    /// of the receiver returns at once: nothing of what it holds was seen through it yet.
    #[must_use]
    pub fn snapshot(&self) -> watch::Receiver<View<R>> {
        self.view.clone()
    }

    /// What the session is doing.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// What the session has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        lock(&self.statistics).clone()
    }

    /// Sends a transaction and waits for what becomes of it. When it took effect, the replica has its
    /// effects already. A session that is not [`SessionState::Ready`] sends nothing.
    pub async fn transact<G: Clone>(&self, transaction: &Transaction<G>) -> Outcome<G> {
        if transaction.is_empty() {
            return Outcome::Unchanged(Applied::default());
        }
        if let Some(rejection) = transaction.refusal() {
            return Outcome::Rejected(rejection);
        }
        let id = self.next_id();
        let text = message::request(id, "transact", &transaction.params(R::DATABASE));
        match self.send(id, text, true).await {
            Ok(result) => transaction.outcome(Ok(result)),
            Err(CallError::Server(error)) => transaction.outcome(Err(error)),
            Err(CallError::NotSent) => Outcome::NotSent,
            Err(CallError::Disconnected) => Outcome::Unknown,
        }
    }

    /// Calls any method, as soon as there is a connection.
    ///
    /// # Errors
    /// See [`CallError`]. Parameters with a NUL in a string are refused as the server's syntax error, since
    /// the server would drop the connection over them.
    pub async fn call(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        if message::has_nul(params) {
            return Err(ServerError::nul().into());
        }
        let id = self.next_id();
        self.send(id, message::request(id, method, params), false).await
    }

    /// The names of the server's databases (RFC 7047, 4.1.1).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list_dbs(&self) -> Result<Vec<String>, CallError> {
        let names = self.call("list_dbs", &json!([])).await?;
        let names = names.as_array().into_iter().flatten();
        Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Asks for a lock and tells what becomes of it, also through later connections, until
    /// [`Handle::unlock`]. Use [`Transaction::assert`] where it matters: what is known here is always late.
    pub async fn lock(&self, name: &str, mode: LockMode) -> watch::Receiver<LockState> {
        let (reply, state) = oneshot::channel();
        let command = Command::Lock { name: name.to_owned(), mode, reply };
        if self.commands.send(command).await.is_ok()
            && let Ok(state) = state.await
        {
            return state;
        }
        // The task is gone, which only a panic in it explains: nobody holds anything.
        watch::channel(LockState::Waiting).1
    }

    /// Gives a lock back, or the place in its queue.
    pub async fn unlock(&self, name: &str) {
        // Without the task there is no connection, and without that no lock.
        let _ = self.commands.send(Command::Unlock { name: name.to_owned() }).await;
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    async fn send(&self, id: u64, text: Vec<u8>, needs_ready: bool) -> Result<Value, CallError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Call { id, text, needs_ready, reply };
        if self.commands.send(command).await.is_err() {
            return Err(CallError::NotSent);
        }
        answer.await.unwrap_or(Err(CallError::Disconnected))
    }
}

/// The task of a session.
pub struct Session<R> {
    config: Config,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<View<R>>,
    state: watch::Sender<SessionState>,
    statistics: Arc<Mutex<Statistics>>,
    ids: Arc<AtomicU64>,
    replica: R,
    /// What of the last connection the next one may go on from.
    retained: Option<Retained>,
    locks: BTreeMap<String, watch::Sender<LockState>>,
    /// Why the last connection that had contents ended, until they came again.
    resync_reason: Option<&'static str>,
}

impl<R: Replica> Session<R> {
    /// Starts a session that fills `replica`. Must be called within a tokio runtime; ends when the last
    /// handle is dropped.
    pub fn spawn(config: Config, replica: R) -> Handle<R> {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (view_sender, view) = watch::channel(View::Syncing);
        let (state_sender, state) = watch::channel(SessionState::Connecting);
        let statistics = Arc::new(Mutex::new(Statistics::default()));
        let ids = Arc::new(AtomicU64::new(1));
        let session = Self {
            config,
            commands: receiver,
            view: view_sender,
            state: state_sender,
            statistics: Arc::clone(&statistics),
            ids: Arc::clone(&ids),
            replica,
            retained: None,
            locks: BTreeMap::new(),
            resync_reason: None,
        };
        tokio::spawn(session.run());
        Handle { commands, view, state, statistics, ids }
    }

    /// Connects again and again, until all handles are gone.
    async fn run(mut self) {
        let mut server = 0;
        // Servers tried since the last delay, and delays since the last success.
        let (mut tried, mut delays) = (0, 0);
        // Of every server tried since the last delay.
        let mut comebacks = Vec::new();
        loop {
            let connect = Arc::clone(&self.config.servers[server]);
            let comeback = connect.comeback();
            let attempt = timeout(self.config.connect_timeout, connect.connect());
            let Some(attempt) = self.offline(attempt).await else {
                return;
            };
            let connected_at = Instant::now();
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
            let delay_now = was_ready || {
                tried += 1;
                server = (server + 1) % self.config.servers.len();
                tried >= self.config.servers.len()
            };
            // A connection that served is a success. One that broke at once, or by wrong contents, is not, lest a
            // server that does so always be asked for all of them ten times a second.
            if was_ready && connected_at.elapsed() >= PROVEN && !error.is_about_contents() {
                delays = 0;
            }
            self.fail(&connect.target(), error);
            comebacks.push(comeback);
            if delay_now {
                tried = 0;
                let delay = self.backoff(delays);
                delays += 1;
                let waited = async {
                    tokio::select! {
                        () = sleep(delay) => false,
                        () = any(std::mem::take(&mut comebacks)) => true,
                    }
                };
                match self.offline(waited).await {
                    None => return,
                    // A server that comes back is as good as a new one.
                    Some(true) => delays = 0,
                    Some(false) => {}
                }
            }
        }
    }

    /// The delay before the next round of attempts.
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
                command = self.commands.recv() => match command? {
                    Command::Call { reply, .. } => {
                        // A caller that went away does not mind.
                        let _ = reply.send(Err(CallError::NotSent));
                    }
                    Command::Lock { name, reply, .. } => {
                        let state = self.locks.entry(name).or_insert_with(|| watch::Sender::new(LockState::Waiting));
                        let _ = reply.send(state.subscribe());
                    }
                    Command::Unlock { name } => {
                        self.locks.remove(&name);
                    }
                },
            }
        }
    }

    /// The connection is gone or could not be had.
    fn fail(&mut self, server: &str, error: SessionError) {
        let again = match &*self.state.borrow() {
            SessionState::Failed(last) => last.reason() == error.reason(),
            _ => false,
        };
        if again {
            tracing::debug!(server, error = &error as &dyn std::error::Error, "still no session with the OVSDB server");
        } else {
            tracing::warn!(server, error = &error as &dyn std::error::Error, "no session with the OVSDB server");
        }
        let had_contents = self.view.send_if_modified(|view| {
            let was_ready = view.ready().is_some();
            *view = View::Syncing;
            was_ready
        });
        if had_contents {
            self.resync_reason = Some(error.reason());
        }
        for state in self.locks.values() {
            state.send_if_modified(|state| std::mem::replace(state, LockState::Waiting) != LockState::Waiting);
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

/// Ends with the first of them.
async fn any(mut futures: Vec<Comeback>) {
    poll_fn(|context| {
        let ended = futures.iter_mut().any(|future| future.as_mut().poll(context).is_ready());
        if ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Counters stay right when a thread panics between two of them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
