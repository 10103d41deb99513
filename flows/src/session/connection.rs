//! One connection of a session, from its stream to its end: echoes, and which answer belongs to which request (OpenFlow
//! 1.4.1, 6.3 and 7.3). Its beginning is in `connection/setup.rs`; what outlives a connection, in the parent module.

mod pending;
mod setup;

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use self::pending::{Part, Pending, Requests};
use super::batch::{Batch, Step, Waiter};
use super::watch::Sink;
use super::{CallError, Command, Session, SessionError, lock};
use crate::endpoint::Stream;
use crate::message::{
    Hello, Kind, Message, MonitorRequest, MultipartKind, MultipartRequest, SwitchError, Vendor, multipart,
};
use crate::{Frames, Header, VERSION};

/// Room made before each read.
const READ_SIZE: usize = 64 << 10;

/// With so many octets waiting to be written no further commands are taken, and no more of a bundle is written out:
/// callers wait instead.
const WRITE_BACKLOG: usize = 256 << 10;

/// With so many octets of answers waiting to be written to a switch that asks and asks the connection ends.
const ECHO_BACKLOG: usize = 16 << 20;

/// With so many requests unanswered no further commands are taken.
const MAX_UNANSWERED: usize = 1024;

/// How a connection ended.
pub(super) enum Ended {
    /// Nobody wants it any more.
    HandlesGone,
    Failed {
        error: SessionError,
        /// Whether it had got as far as [`super::SessionState::Ready`].
        was_ready: bool,
    },
}

/// The half that writes. Nothing is awaited while there is something to read.
#[derive(Default)]
struct Outbox {
    buffer: BytesMut,
    /// Octets that left the buffer.
    written: u64,
    unflushed: bool,
}

impl Outbox {
    /// Position in the stream of the next octet.
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

/// The flow monitor, and who is told what it tells.
struct Watching {
    id: u32,
    sink: Sink,
}

/// A connection being served.
pub(super) struct Connection<'a> {
    session: &'a mut Session,
    outbox: Outbox,
    requests: Requests,
    batches: Vec<Batch>,
    watching: Option<Watching>,
    greeted: bool,
    ready: bool,
    began_at: Instant,
    /// When the last byte came in.
    heard_at: Instant,
    /// When an echo request was sent into the silence since then.
    probed_at: Option<Instant>,
    /// When the oldest request was last seen to get on.
    progress_at: Instant,
}

impl<'a> Connection<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        let now = Instant::now();
        Self {
            session,
            outbox: Outbox::default(),
            requests: Requests::default(),
            batches: Vec::new(),
            watching: None,
            greeted: false,
            ready: false,
            began_at: now,
            heard_at: now,
            probed_at: None,
            progress_at: now,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn serve(mut self, stream: Box<dyn Stream>) -> Ended {
        {
            let mut statistics = lock(&self.session.statistics);
            statistics.connected = true;
            statistics.connected_at = Some(self.began_at);
            statistics.connections += 1;
        }
        let result = self.converse(stream).await;
        let written = self.outbox.written;
        self.requests.abandon(written);
        for batch in self.batches {
            batch.abandon(written);
        }
        match result {
            Ok(()) => Ended::HandlesGone,
            Err(error) => Ended::Failed { error, was_ready: self.ready },
        }
    }

    async fn converse(&mut self, stream: Box<dyn Stream>) -> Result<(), SessionError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut frames = Frames::default();
        self.push(0, &Message::Hello(Hello::OURS));
        loop {
            self.fill();
            let written = self.outbox.written;
            let deadline = self.deadline();
            let takes_commands = self.takes_commands();
            frames.buffer().reserve(READ_SIZE);
            // In this order: what is written makes room, commands are few or wait for room, and silence is declared only
            // when there is truly nothing to read.
            tokio::select! {
                biased;
                result = self.outbox.drain(&mut writer), if self.outbox.unflushed => {
                    result.map_err(SessionError::Io)?;
                }
                command = self.session.commands.recv(), if takes_commands => {
                    let Some(command) = command else { return Ok(()) };
                    self.command(command);
                }
                read = reader.read_buf(frames.buffer()) => {
                    let read = read.map_err(SessionError::Io)?;
                    if read == 0 {
                        return Err(SessionError::Closed);
                    }
                    self.heard_at = Instant::now();
                    self.probed_at = None;
                    let messages = self.receive(&mut frames);
                    self.count_received(read as u64, messages?);
                }
                () = sleep_until(deadline) => self.overdue()?,
            }
            lock(&self.session.statistics).bytes_sent += self.outbox.written - written;
        }
    }

    /// Commands are taken one after the other, and only when all of those before them is written out.
    fn takes_commands(&self) -> bool {
        self.ready
            && self.outbox.buffer.len() < WRITE_BACKLOG
            && self.requests.len() + self.batches.len() < MAX_UNANSWERED
            && self.batches.last().is_none_or(Batch::is_written)
    }

    /// Writes out more of the bundle on its way, if there is room.
    fn fill(&mut self) {
        if let Some(batch) = self.batches.last_mut()
            && !batch.is_written()
            && self.outbox.buffer.len() < WRITE_BACKLOG
        {
            let (messages, changes) = batch.fill(&mut self.outbox.buffer, WRITE_BACKLOG);
            self.outbox.unflushed = true;
            self.progress_at = Instant::now();
            let mut statistics = lock(&self.session.statistics);
            statistics.messages_sent += messages;
            statistics.modifications_sent += changes;
        }
    }

    fn count_received(&self, bytes: u64, messages: u64) {
        let mut statistics = lock(&self.session.statistics);
        statistics.bytes_received += bytes;
        statistics.messages_received += messages;
        if messages > 0 {
            statistics.last_message_at = Some(self.heard_at);
        }
    }

    fn is_idle(&self) -> bool {
        self.requests.is_idle() && self.batches.is_empty()
    }

    /// When something is to be done about what does not come.
    fn deadline(&self) -> Instant {
        let config = &self.session.config;
        if !self.ready {
            return later(self.began_at, config.connect_timeout);
        }
        let silence = match self.probed_at {
            None => later(self.heard_at, config.probe_interval),
            Some(probed_at) => later(probed_at, config.probe_timeout),
        };
        if self.is_idle() { silence } else { silence.min(later(self.progress_at, config.request_timeout)) }
    }

    fn overdue(&mut self) -> Result<(), SessionError> {
        let config = &self.session.config;
        if !self.ready {
            let (target, after) = (config.switch.target(), config.connect_timeout);
            return Err(SessionError::ConnectTimeout { target, after });
        }
        if !self.is_idle() && self.progress_at.elapsed() >= config.request_timeout {
            return Err(SessionError::Unanswered(self.progress_at.elapsed()));
        }
        match self.probed_at {
            Some(probed_at) if probed_at.elapsed() >= config.probe_timeout => {
                return Err(SessionError::Inactive(self.heard_at.elapsed()));
            }
            None if self.heard_at.elapsed() >= config.probe_interval => {
                self.request(&Message::EchoRequest(Bytes::new()), Pending::Echo);
                self.probed_at = Some(Instant::now());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a message that is never too long.
    fn push(&mut self, xid: u32, message: &Message) {
        if message.encode(xid, &mut self.outbox.buffer).is_ok() {
            self.outbox.unflushed = true;
            lock(&self.session.statistics).messages_sent += 1;
        }
    }

    /// Sends a request.
    fn request(&mut self, message: &Message, pending: Pending) {
        let first_byte = self.outbox.position();
        let xid = self.requests.next_id();
        if let Err(error) = message.encode(xid, &mut self.outbox.buffer) {
            return pending.fail(CallError::TooLong(error));
        }
        self.outbox.unflushed = true;
        if self.is_idle() {
            self.progress_at = Instant::now();
        }
        self.requests.insert(xid, pending, first_byte);
        let mut statistics = lock(&self.session.statistics);
        statistics.messages_sent += 1;
        if matches!(message.kind(), Kind::FLOW_MOD | Kind::GROUP_MOD | Kind::METER_MOD) {
            statistics.modifications_sent += 1;
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Call { message, answer, reply } => self.request(&message, Pending::Call { answer, reply }),
            Command::Multipart { request, reply } => {
                let pending = Pending::Multipart { kind: request.kind(), parts: Vec::new(), size: 0, reply };
                self.request(&Message::MultipartRequest(request), pending);
            }
            Command::Bundle { messages, reply } => self.batch(Waiter::Bundle(reply), messages),
            Command::Sequence { messages, reply } => self.batch(Waiter::Sequence(reply), messages),
            Command::Watch { sink, reply } => {
                if self.watching.as_ref().is_some_and(|watching| !watching.sink.is_closed()) {
                    let _ = reply.send(Err(CallError::Watched));
                    return;
                }
                self.stop_watching();
                let id = self.requests.next_id();
                self.watching = Some(Watching { id, sink });
                self.monitor(MonitorRequest::everything(id), Pending::Watch { reply: Some(reply) });
            }
        }
    }

    fn batch(&mut self, waiter: Waiter, messages: Vec<Message>) {
        if self.is_idle() {
            self.progress_at = Instant::now();
        }
        let first = self.requests.next_ids(Batch::ids(messages.len()));
        self.batches.push(Batch::new(waiter, messages, first, self.outbox.position()));
    }

    fn monitor(&mut self, request: MonitorRequest, pending: Pending) {
        self.request(&Message::MultipartRequest(MultipartRequest::FlowMonitor(request)), pending);
    }

    fn stop_watching(&mut self) {
        if let Some(watching) = self.watching.take() {
            self.monitor(MonitorRequest::delete(watching.id), Pending::Ignored);
        }
    }

    /// Acts upon every message that is complete.
    fn receive(&mut self, frames: &mut Frames) -> Result<u64, SessionError> {
        let mut messages = 0;
        while let Some((header, body)) = frames.next_message()? {
            messages += 1;
            if !self.greeted {
                self.greet(header, &body)?;
                continue;
            }
            if header.version != VERSION {
                return Err(unexpected(header, "OpenFlow 1.4"));
            }
            self.message(header, body)?;
        }
        Ok(messages)
    }

    fn message(&mut self, header: Header, body: Bytes) -> Result<(), SessionError> {
        let Header { xid, .. } = header;
        match Kind(header.kind) {
            Kind::HELLO => {}
            Kind::ECHO_REQUEST => {
                // A switch that asks and asks and does not read our answers would have us keep all of them.
                if self.outbox.buffer.len() > ECHO_BACKLOG {
                    return Err(SessionError::Unread);
                }
                self.push(xid, &Message::EchoReply(body));
            }
            Kind::ERROR => {
                lock(&self.session.statistics).errors_received += 1;
                self.error(xid, SwitchError::decode(&body)?)?;
            }
            Kind::MULTIPART_REPLY => self.part(xid, &body)?,
            Kind::PACKET_IN | Kind::FLOW_REMOVED | Kind::PORT_STATUS | Kind::REQUESTFORWARD => {
                self.event(header, &body);
            }
            _ => self.answer(header, &body)?,
        }
        Ok(())
    }

    /// Tells those who listen.
    fn event(&self, header: Header, body: &Bytes) {
        let message = Message::decode(header, body).unwrap_or_else(|error| {
            tracing::debug!(%error, kind = header.kind, "a message of the switch that makes no sense");
            Message::Other { kind: Kind(header.kind), body: body.clone() }
        });
        // That nobody listens is no error.
        let _ = self.session.events.send(message);
    }

    fn error(&mut self, xid: u32, error: SwitchError) -> Result<(), SessionError> {
        if let Some((at, offset)) = self.batch_of(xid) {
            let step = self.batches[at].refused(offset, error);
            self.step(at, step);
            return Ok(());
        }
        match self.requests.remove(xid) {
            Some(Pending::Features) => Err(SessionError::SetupRefused { request: "to say what it is", error }),
            Some(Pending::Config) => Err(SessionError::SetupRefused { request: "to tell its configuration", error }),
            Some(Pending::Setup(request)) => Err(SessionError::SetupRefused { request, error }),
            Some(Pending::Watch { reply }) => {
                self.watching = None;
                self.progress_at = Instant::now();
                Pending::Watch { reply }.fail(CallError::Refused(error));
                Ok(())
            }
            Some(pending) => {
                self.progress_at = Instant::now();
                pending.fail(CallError::Refused(error));
                Ok(())
            }
            None if error.vendor == Vendor::Standard && error.kind == 0 => Err(SessionError::HelloRefused(error)),
            None => {
                tracing::debug!(xid, %error, "an error about nothing we asked");
                Ok(())
            }
        }
    }

    fn batch_of(&self, xid: u32) -> Option<(usize, u32)> {
        let mut batches = self.batches.iter().enumerate();
        batches.find_map(|(at, batch)| batch.offset(xid).map(|offset| (at, offset)))
    }

    fn step(&mut self, at: usize, step: Step) {
        self.progress_at = Instant::now();
        match step {
            Step::Wait => return,
            Step::Commit => {
                let position = self.outbox.position();
                self.batches[at].commit(&mut self.outbox.buffer, position);
            }
            Step::Finish => self.batches.remove(at).finish(&mut self.outbox.buffer),
        }
        self.outbox.unflushed = true;
        lock(&self.session.statistics).messages_sent += 1;
    }

    fn part(&mut self, xid: u32, body: &Bytes) -> Result<(), SessionError> {
        let (kind, more, entries) = multipart::decode_reply(body)?;
        if xid == 0 && kind == MultipartKind::FLOW_MONITOR {
            self.watched(entries);
            return Ok(());
        }
        match self.requests.part(xid, kind, more, entries, self.session.config.max_reply) {
            Part::Unknown => {
                tracing::debug!(xid, kind = kind.0, "a multipart reply to nothing we asked");
                return Ok(());
            }
            Part::Taken => {}
            Part::OfMonitor(entries) => {
                self.watched(entries);
                if let Some(watching) = self.watching.as_ref().filter(|_| !more) {
                    watching.sink.complete();
                }
            }
        }
        self.progress_at = Instant::now();
        Ok(())
    }

    fn watched(&mut self, entries: Bytes) {
        if let Some(watching) = &self.watching
            && watching.sink.updates(entries).is_err()
        {
            self.stop_watching();
        }
    }

    fn answer(&mut self, header: Header, body: &Bytes) -> Result<(), SessionError> {
        let Header { xid, .. } = header;
        let kind = Kind(header.kind);
        if let Some((at, offset)) = self.batch_of(xid) {
            let step = self.batches[at].answered(offset, kind);
            self.step(at, step);
            return Ok(());
        }
        let Some(pending) = self.requests.remove(xid) else {
            self.event(header, body);
            return Ok(());
        };
        if !matches!(pending, Pending::Echo) {
            self.progress_at = Instant::now();
        }
        match pending {
            Pending::Features | Pending::Config | Pending::Setup(_) => self.set_up(&pending, header, body)?,
            Pending::Call { answer, reply } if answer == kind => {
                let _ = reply.send(Message::decode(header, body).map_err(CallError::Decode));
            }
            pending => pending.fail(CallError::Unexpected(kind)),
        }
        Ok(())
    }
}

fn unexpected(header: Header, expected: &'static str) -> SessionError {
    SessionError::Unexpected { kind: header.kind, version: header.version, expected }
}

/// A time so far away that it never comes is a year from now.
fn later(from: Instant, by: std::time::Duration) -> Instant {
    const YEAR: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);
    from.checked_add(by.min(YEAR)).unwrap_or(from)
}
