//! One connection of a session, from its stream to its end: the conversation of RFC 7047 section 4 and
//! ovsdb-server(7). What of it fills the replica is in `contents`; how updates change the replica, in
//! [`crate::update`]; what outlives a connection, in the parent module.

mod contents;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(super) use self::contents::Retained;
use self::contents::{MONITOR, Method, Monitored, transaction_id};
use super::{CallError, Command, Config, LockMode, LockState, Reply, Session, SessionError, SessionState, lock};
use crate::endpoint::Stream;
use crate::framing::Splitter;
use crate::message::{self, Message, ServerError};
use crate::replica::{Replica, View};
use crate::value::{DecodeError, clip};

/// Room made before each read. Big messages make the buffer grow beyond it by doubling.
const READ_SIZE: usize = 64 << 10;

/// With so many bytes waiting to be written no further commands are taken: callers wait instead.
const WRITE_BACKLOG: usize = 1 << 20;

/// The same for our answers to a server's own requests, beyond which it is not worth listening to.
const ANSWER_BACKLOG: usize = 1 << 20;

/// Bytes a second at which a long message has to come.
const SLOWEST: u64 = 64 << 10;

/// How a connection ended.
pub(super) enum Ended {
    /// Nobody wants it any more.
    HandlesGone,
    Failed {
        error: SessionError,
        /// Whether it had got as far as [`SessionState::Ready`].
        was_ready: bool,
    },
}

/// A call of ours that is not answered yet.
enum Pending {
    /// A handle's, and the position in the stream of its first byte.
    Call {
        reply: Reply,
        first_byte: u64,
    },
    Schema,
    Monitor(Method),
    Lock(String),
    /// An echo or unlock: the answer says nothing.
    Ignored,
}

impl Pending {
    /// What was called, for people.
    const fn method(&self) -> &'static str {
        match self {
            Self::Call { .. } => "a call",
            Self::Schema => "get_schema",
            Self::Monitor(method) => method.name(),
            Self::Lock(_) => "lock",
            Self::Ignored => "echo",
        }
    }
}

/// The half that writes. Nothing is awaited while there is something to read.
#[derive(Default)]
struct Outbox {
    buffer: BytesMut,
    /// Bytes that left the buffer.
    written: u64,
    unflushed: bool,
}

impl Outbox {
    fn push(&mut self, text: &[u8]) {
        self.buffer.extend_from_slice(text);
        self.unflushed = true;
    }

    /// Position in the stream of the next byte to be pushed.
    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes everything. May be dropped at any await: what is written has left the buffer and is counted.
    async fn drain(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while !self.buffer.is_empty() {
            let written = stream.write_buf(&mut self.buffer).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written += written as u64;
        }
        // A TLS stream keeps records that the socket had no room for.
        stream.flush().await?;
        self.unflushed = false;
        Ok(())
    }
}

/// A connection being served.
pub(super) struct Connection<'a, R> {
    session: &'a mut Session<R>,
    outbox: Outbox,
    /// By id, and so about in the order in which they were sent.
    pending: BTreeMap<u64, (Instant, Pending)>,
    /// What the monitor feeds, once the schema is known to fit.
    monitored: Option<Monitored>,
    ready: bool,
    /// The replica is newer than the published view.
    changed: bool,
    /// Answers that wait for the view to be published.
    answers: Vec<(Reply, Result<Value, CallError>)>,
    /// When the last byte came in.
    heard_at: Instant,
    /// When an echo request was sent into the silence since then.
    probed_at: Option<Instant>,
    /// When the message began of which we have a part, and the bytes of that part.
    partial: Option<(Instant, usize)>,
    /// Bytes in the outbox, at most, that answer requests of the server.
    owed: usize,
}

impl<'a, R: Replica> Connection<'a, R> {
    pub(super) fn new(session: &'a mut Session<R>) -> Self {
        Self {
            session,
            outbox: Outbox::default(),
            pending: BTreeMap::new(),
            monitored: None,
            ready: false,
            changed: false,
            answers: Vec::new(),
            heard_at: Instant::now(),
            probed_at: None,
            partial: None,
            owed: 0,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn serve(mut self, stream: Box<dyn Stream>) -> Ended {
        {
            let mut statistics = lock(&self.session.statistics);
            statistics.connected = true;
            statistics.connected_at = Some(Instant::now());
            statistics.connections += 1;
        }
        let result = self.converse(stream).await;
        self.answer_all();
        for (_, pending) in self.pending.into_values() {
            if let Pending::Call { reply, first_byte } = pending {
                let sent = first_byte < self.outbox.written;
                let error = if sent { CallError::Disconnected } else { CallError::NotSent };
                // A caller that went away does not mind.
                let _ = reply.send(Err(error));
            }
        }
        let Err(error) = result else {
            return Ended::HandlesGone;
        };
        if let Some(Monitored { layout, rows, last_transaction, .. }) = self.monitored {
            if self.ready && !last_transaction.is_nil() && !error.is_about_contents() {
                self.session.retained = Some(Retained { layout, rows, last_transaction });
            } else {
                self.session.replica.reset(&layout);
            }
        }
        Ended::Failed { error, was_ready: self.ready }
    }

    async fn converse(&mut self, stream: Box<dyn Stream>) -> Result<(), SessionError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut splitter = Splitter::new(self.session.config.limits);
        let names: Vec<String> = self.session.locks.keys().cloned().collect();
        for name in names {
            self.call("lock", &json!([&name]), Pending::Lock(name.clone()));
        }
        if R::TABLES.is_empty() {
            self.set_ready();
        } else {
            self.call("get_schema", &json!([R::DATABASE]), Pending::Schema);
        }
        loop {
            let written = self.outbox.written;
            let deadline = self.deadline();
            splitter.buffer().reserve(READ_SIZE);
            // In this order: what is written makes room, commands are few or wait for room, and silence is
            // declared only when there is truly nothing to read.
            tokio::select! {
                biased;
                result = self.outbox.drain(&mut writer), if self.outbox.unflushed => {
                    result.map_err(SessionError::Io)?;
                    self.owed = 0;
                }
                command = self.session.commands.recv(), if self.outbox.buffer.len() < WRITE_BACKLOG => {
                    let Some(command) = command else { return Ok(()) };
                    self.command(command);
                }
                read = reader.read_buf(splitter.buffer()) => {
                    let read = read.map_err(SessionError::Io)?;
                    if read == 0 {
                        return Err(SessionError::Closed);
                    }
                    self.heard_at = Instant::now();
                    self.probed_at = None;
                    let messages = self.receive(&mut splitter);
                    self.publish();
                    self.answer_all();
                    let messages = messages?;
                    self.count_received(read as u64, messages);
                    self.note_partial(messages > 0, splitter.buffer().len());
                    // A server that never stops sending leaves no silence in which to notice.
                    self.check_patience()?;
                }
                () = silence_until(deadline) => {
                    self.check_patience()?;
                    self.probe()?;
                }
            }
            lock(&self.session.statistics).bytes_sent += self.outbox.written - written;
        }
    }

    /// Acts upon every message that is complete. The view is published once for all of them.
    fn receive(&mut self, splitter: &mut Splitter) -> Result<u64, SessionError> {
        let mut messages = 0;
        while let Some(bytes) = splitter.next_message()? {
            messages += 1;
            match Message::decode(&bytes).map_err(SessionError::Message)? {
                Message::Request { method, params, id } => self.requested(&method, params, id)?,
                Message::Notification { method, params } => {
                    self.notified(&method, params).map_err(|error| within(error, &method))?;
                }
                Message::Response { id, answer } => self.answered(id, answer)?,
            }
        }
        Ok(messages)
    }

    fn count_received(&self, bytes: u64, messages: u64) {
        let mut statistics = lock(&self.session.statistics);
        statistics.bytes_received += bytes;
        statistics.messages_received += messages;
        if messages > 0 {
            statistics.last_message_at = Some(self.heard_at);
        }
    }

    /// Readers see the replica before callers see answers: so whoever has an answer finds its effects.
    fn publish(&mut self) {
        if std::mem::take(&mut self.changed) && self.ready {
            let snapshot = Arc::new(self.session.replica.clone());
            self.session.view.send_replace(View::Ready(snapshot));
            if !matches!(*self.session.state.borrow(), SessionState::Ready) {
                tracing::info!(database = R::DATABASE, "the OVSDB session is ready");
                self.session.state.send_replace(SessionState::Ready);
            }
        }
    }

    fn answer_all(&mut self) {
        for (reply, answer) in self.answers.drain(..) {
            // A caller that went away does not mind.
            let _ = reply.send(answer);
        }
    }

    fn set_ready(&mut self) {
        self.ready = true;
        self.changed = true;
        self.publish();
    }

    /// Until when silence is borne; `None` when that is beyond what the clock can tell.
    fn silence_ends(&self) -> Option<Instant> {
        let Config { probe_interval, probe_timeout, .. } = &self.session.config;
        match self.probed_at {
            None => self.heard_at.checked_add(*probe_interval),
            Some(probed_at) => probed_at.checked_add(*probe_timeout),
        }
    }

    /// When there is something to do although nothing comes.
    fn deadline(&self) -> Option<Instant> {
        let patience = self.overdue_at().map(|(at, _)| at);
        [self.silence_ends(), patience].into_iter().flatten().min()
    }

    /// What of the server's is due first, and when.
    fn overdue_at(&self) -> Option<(Instant, SessionError)> {
        let (began, bytes) = self.partial.unwrap_or((self.heard_at, 0));
        // What comes may be the answer, or what has to come before it.
        let allowance = self.session.config.answer_timeout.checked_add(Duration::from_secs(bytes as u64 / SLOWEST))?;
        let answer = self.pending.first_key_value().and_then(|(_, (asked_at, pending))| {
            let error = SessionError::Unanswered { method: pending.method(), after: allowance };
            Some((asked_at.checked_add(allowance)?, error))
        });
        let message = self.partial.and_then(|_| {
            let error = SessionError::Trickle { bytes, after: allowance };
            Some((began.checked_add(allowance)?, error))
        });
        [answer, message].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Gives up on a server that keeps us waiting although it sends.
    fn check_patience(&self) -> Result<(), SessionError> {
        match self.overdue_at() {
            Some((at, error)) if at <= Instant::now() => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes in that so many bytes are the beginning of a message, a new one if others were completed just now.
    fn note_partial(&mut self, completed: bool, bytes: usize) {
        let began = self.partial.map(|(began, _)| began).filter(|_| !completed);
        self.partial = (bytes > 0).then(|| (began.unwrap_or(self.heard_at), bytes));
    }

    fn probe(&mut self) -> Result<(), SessionError> {
        if self.silence_ends().is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        if self.probed_at.is_some() {
            return Err(SessionError::Inactive(self.heard_at.elapsed()));
        }
        self.call("echo", &json!([]), Pending::Ignored);
        self.probed_at = Some(Instant::now());
        Ok(())
    }

    fn push(&mut self, text: &[u8]) {
        self.outbox.push(text);
        lock(&self.session.statistics).messages_sent += 1;
    }

    fn call(&mut self, method: &str, params: &Value, pending: Pending) {
        let id = self.session.ids.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.pending.insert(id, (Instant::now(), pending));
        self.push(&message::request(id, method, params));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Call { needs_ready: true, reply, .. } if !self.ready => {
                let _ = reply.send(Err(CallError::NotSent));
            }
            Command::Call { id, text, reply, .. } => {
                let first_byte = self.outbox.position();
                self.pending.insert(id, (Instant::now(), Pending::Call { reply, first_byte }));
                self.push(&text);
            }
            Command::Lock { name, mode, reply } => self.lock(name, mode, reply),
            Command::Unlock { name } => {
                if self.session.locks.remove(&name).is_some() {
                    self.call("unlock", &json!([name]), Pending::Ignored);
                }
            }
        }
    }

    fn lock(&mut self, name: String, mode: LockMode, reply: tokio::sync::oneshot::Sender<watch::Receiver<LockState>>) {
        let known = self.session.locks.get(&name);
        let ask = match known.map(|state| state.borrow().clone()) {
            None | Some(LockState::Refused(_)) => true,
            Some(LockState::Held) => false,
            Some(LockState::Waiting | LockState::Stolen) => {
                // The server wants one's place in the queue back before one may steal.
                if mode == LockMode::Steal {
                    self.call("unlock", &json!([&name]), Pending::Ignored);
                }
                mode == LockMode::Steal
            }
        };
        let state = self.session.locks.entry(name.clone());
        let state = state.or_insert_with(|| watch::Sender::new(LockState::Waiting));
        let _ = reply.send(state.subscribe());
        if ask {
            let method = if mode == LockMode::Steal { "steal" } else { "lock" };
            self.call(method, &json!([&name]), Pending::Lock(name));
        }
    }

    fn set_lock(&self, name: &str, to: LockState) {
        if let Some(state) = self.session.locks.get(name) {
            state.send_replace(to);
        }
    }

    fn requested(&mut self, method: &str, params: &RawValue, id: &RawValue) -> Result<(), SessionError> {
        let answer = if method == "echo" { Ok(params) } else { Err("unknown method") };
        let answer = message::response(id, answer);
        self.owed += answer.len();
        // A server that asks and asks and does not read our answers would have us keep all of them.
        if self.owed > ANSWER_BACKLOG {
            return Err(SessionError::Unread(self.owed));
        }
        self.push(&answer);
        Ok(())
    }

    fn notified(&mut self, method: &str, params: &RawValue) -> Result<(), SessionError> {
        if !matches!(method, "update" | "update2" | "update3" | "monitor_canceled" | "locked" | "stolen") {
            tracing::debug!(method = clip(method, 100), "a notification that means nothing to us");
            return Ok(());
        }
        let params: Vec<&RawValue> = message::read(params).map_err(SessionError::Message)?;
        // Names of monitors and locks are strings, ours at least.
        let name: Option<String> = params.first().and_then(|name| message::read(name).ok());
        let name = name.unwrap_or_default();
        match (method, params.as_slice()) {
            ("locked", _) => self.set_lock(&name, LockState::Held),
            ("stolen", _) => self.set_lock(&name, LockState::Stolen),
            // Monitors of other names are those that a handle's user called for.
            _ if name != MONITOR => {}
            ("monitor_canceled", _) => return Err(SessionError::MonitorCanceled),
            ("update" | "update2", [_, updates]) => self.update(updates)?,
            ("update3", [_, transaction, updates]) => {
                let transaction = transaction_id(transaction)?;
                self.update(updates)?;
                if let Some(monitored) = &mut self.monitored {
                    monitored.last_transaction = transaction;
                }
            }
            _ => {
                let problem = format!("{} parameters", params.len());
                return Err(SessionError::Message(DecodeError::new(problem)));
            }
        }
        Ok(())
    }

    fn answered(&mut self, id: Option<u64>, answer: Result<&RawValue, ServerError>) -> Result<(), SessionError> {
        let Some((_, pending)) = id.and_then(|id| self.pending.remove(&id)) else {
            tracing::debug!(id, "an answer to nothing we asked");
            return Ok(());
        };
        match (pending, answer) {
            (Pending::Call { reply, .. }, answer) => {
                let result = match answer {
                    Ok(result) => Ok(message::read(result).map_err(SessionError::Message)?),
                    Err(error) => Err(CallError::Server(error)),
                };
                self.answers.push((reply, result));
            }
            (Pending::Schema, Ok(schema)) => self.begin_monitoring(schema)?,
            (Pending::Schema, Err(error)) => {
                return Err(SessionError::SchemaRefused { database: R::DATABASE, error });
            }
            (Pending::Monitor(method), Ok(contents)) => self.begin_contents(method, contents)?,
            (Pending::Monitor(method), Err(error)) => match method.fallback() {
                Some(fallback) => {
                    tracing::debug!(%error, "{} is refused, trying {}", method.name(), fallback.name());
                    self.monitor(fallback);
                }
                None => return Err(SessionError::MonitorRefused(error)),
            },
            (Pending::Lock(name), Ok(answer)) => {
                let answer: Value = message::read(answer).map_err(SessionError::Message)?;
                // Not having it is no news: `locked` tells when that changes.
                if answer.get("locked") == Some(&Value::Bool(true)) {
                    self.set_lock(&name, LockState::Held);
                }
            }
            (Pending::Lock(name), Err(error)) => self.set_lock(&name, LockState::Refused(error)),
            (Pending::Ignored, _) => {}
        }
        Ok(())
    }
}

async fn silence_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Says in which notification a message made no sense.
fn within(error: SessionError, method: &str) -> SessionError {
    match error {
        SessionError::Message(error) => SessionError::Message(error.within(method)),
        other => other,
    }
}
