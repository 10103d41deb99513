//! The pipe, and the switch at its other end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flows::endpoint::{Connect, Connecting};
use flows::message::{Features, Hello, Kind, Message, SwitchError, Vendor};
use flows::session::{Config, Handle, Session, SessionError, SessionState};
use flows::{Frames, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// More than anything here takes. Paused time flies as long as nobody waits for anything else, so without it a mistake in
/// a test would be a session that tries for ever.
pub(crate) const LONG: Duration = Duration::from_secs(1000);

pub(crate) const FEATURES: Features =
    Features { datapath_id: 0x42, buffers: 0, tables: 254, auxiliary_id: 0, capabilities: 0x4f };

/// Hands the other end of every connection to the test.
struct Pipe {
    ends: mpsc::UnboundedSender<DuplexStream>,
    capacity: usize,
}

impl Connect for Pipe {
    fn connect(&self) -> Connecting<'_> {
        let (ours, theirs) = tokio::io::duplex(self.capacity);
        let accepted = self.ends.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused.into());
        Box::pin(async move { accepted.map(|()| Box::new(ours) as Box<_>) })
    }
    fn target(&self) -> String {
        "a pipe".to_owned()
    }
}

/// One connection, seen from the switch.
pub(crate) struct Switch {
    pub(crate) stream: DuplexStream,
    frames: Frames,
}

impl Switch {
    /// The next message of the client; fails the test when it hangs up.
    pub(crate) async fn next(&mut self) -> (u32, Message) {
        self.try_next().await.expect("a message")
    }

    pub(crate) async fn try_next(&mut self) -> Option<(u32, Message)> {
        let (header, body) = self.frame().await?;
        Some((header.xid, Message::decode(header, &body).unwrap()))
    }

    /// The next message, not decoded.
    pub(crate) async fn frame(&mut self) -> Option<(Header, Bytes)> {
        loop {
            if let Some(frame) = self.frames.next_message().unwrap() {
                return Some(frame);
            }
            if timeout(LONG, self.stream.read_buf(self.frames.buffer())).await.expect("bytes in time").ok()? == 0 {
                return None;
            }
        }
    }

    /// The next message, which must be of this type; its transaction id.
    pub(crate) async fn expect(&mut self, kind: Kind) -> u32 {
        let (header, _) = self.frame().await.expect("a message");
        assert_eq!(header.kind, kind.0);
        header.xid
    }

    pub(crate) async fn send(&mut self, xid: u32, message: &Message) {
        let mut bytes = BytesMut::new();
        message.encode(xid, &mut bytes).unwrap();
        self.raw(&bytes).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn refuse(&mut self, xid: u32, kind: u16, code: u16) {
        self.send(xid, &Message::Error(error(kind, code))).await;
    }

    /// Plays the beginning.
    pub(crate) async fn begin(&mut self) {
        self.expect(Kind::HELLO).await;
        self.send(0, &Message::Hello(Hello { versions: Some(0x7e) })).await;
        let xid = self.expect(Kind::FEATURES_REQUEST).await;
        self.send(xid, &Message::FeaturesReply(FEATURES)).await;
    }

    /// That the client has hung up, after whatever it still says.
    pub(crate) async fn hung_up(&mut self) {
        while self.frame().await.is_some() {}
    }
}

pub(crate) fn error(kind: u16, code: u16) -> SwitchError {
    SwitchError { vendor: Vendor::Standard, kind, code, data: Bytes::from_static(&[7; 100]) }
}

pub(crate) struct Stage {
    ends: mpsc::UnboundedReceiver<DuplexStream>,
    pub(crate) handle: Handle,
}

impl Stage {
    pub(crate) fn new(patience: impl FnOnce(&mut Config)) -> Self {
        Self::with_capacity(1 << 20, patience)
    }

    pub(crate) fn with_capacity(capacity: usize, patience: impl FnOnce(&mut Config)) -> Self {
        let (sender, ends) = mpsc::unbounded_channel();
        let mut config = Config::new(Pipe { ends: sender, capacity });
        patience(&mut config);
        Self { ends, handle: Session::spawn(config) }
    }

    pub(crate) async fn accept(&mut self) -> Switch {
        let stream = timeout(LONG, self.ends.recv()).await.expect("a connection").unwrap();
        Switch { stream, frames: Frames::default() }
    }

    /// A session that is ready, and its switch.
    pub(crate) async fn ready() -> (Self, Switch) {
        Self::ready_with(|_| {}).await
    }

    pub(crate) async fn ready_with(patience: impl FnOnce(&mut Config)) -> (Self, Switch) {
        let mut stage = Self::new(patience);
        let mut switch = stage.accept().await;
        switch.begin().await;
        stage.until_ready().await;
        (stage, switch)
    }

    pub(crate) async fn until_ready(&self) {
        let mut state = self.handle.state();
        let ready = state.wait_for(|state| matches!(state, SessionState::Ready(_)));
        timeout(LONG, ready).await.expect("ready in the end").unwrap();
    }

    pub(crate) async fn failure(&self) -> Arc<SessionError> {
        let mut state = self.handle.state();
        let failed = state.wait_for(|state| matches!(state, SessionState::Failed(_)));
        match &*timeout(LONG, failed).await.expect("a failure in the end").unwrap() {
            SessionState::Failed(error) => error.clone(),
            _ => unreachable!(),
        }
    }

    /// Starts something with the handle and gives its result later.
    pub(crate) fn start<T, F>(&self, call: impl FnOnce(Handle) -> F) -> tokio::task::JoinHandle<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        tokio::spawn(call(self.handle.clone()))
    }
}
