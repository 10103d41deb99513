//! A session, and the server at the other end of an in-memory pipe that a test plays by hand.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ovsdb::endpoint::{Connect, Connecting};
use ovsdb::framing::{Limits, Splitter};
use ovsdb::replica::{Replica, Rows};
use ovsdb::session::{Config, Handle, Session, SessionError, SessionState};
use ovsdb::table::{Layout, Table, TableDecl};
use ovsdb::update::RowUpdate;
use ovsdb::value::Uuid;
use serde::de::Deserializer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

ovsdb::table! {
    /// The only table of the only database here.
    pub(crate) struct Thing = "Thing" {
        /// Name.
        required NAME name: String = "name",
        /// Tags.
        required TAGS tags: BTreeSet<i64> = "tags",
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Things(pub(crate) Rows<Thing>);

impl Replica for Things {
    const DATABASE: &'static str = "Things";
    const TABLES: &'static [TableDecl] = &[Thing::DECL];
    fn reset(&mut self, _: &Arc<Layout>) {
        *self = Self::default();
    }
    fn set<'de, D: Deserializer<'de>>(&mut self, _: usize, row: RowUpdate<'_, D>) -> Result<(), D::Error> {
        row.apply(&mut self.0).map(drop)
    }
    fn remove(&mut self, _: usize, uuid: Uuid) -> bool {
        self.0.take(uuid).is_some()
    }
}

/// More than anything here takes. Paused time flies as long as nobody waits for anything else, so without
/// it a mistake in a test would be a session that tries for ever.
pub(crate) const LONG: Duration = Duration::from_secs(1000);

pub(crate) const A: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
pub(crate) const T1: &str = "11111111-0000-4000-8000-000000000001";
pub(crate) const T2: &str = "22222222-0000-4000-8000-000000000002";
pub(crate) const ZERO: &str = "00000000-0000-0000-0000-000000000000";

pub(crate) fn schema() -> Value {
    json!({"name": "Things", "version": "1.0.0", "tables": {"Thing": {"columns": {
        "name": {"type": "string"},
        "tags": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
    }}}})
}

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

/// One connection, seen from the server.
pub(crate) struct Server {
    pub(crate) stream: DuplexStream,
    splitter: Splitter,
}

impl Server {
    /// The next message of the client; fails the test when it hangs up.
    pub(crate) async fn next(&mut self) -> Value {
        self.try_next().await.expect("a message")
    }

    pub(crate) async fn try_next(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.splitter.next_message().unwrap() {
                return Some(serde_json::from_slice(&message).unwrap());
            }
            if self.stream.read_buf(self.splitter.buffer()).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The next message, which must be a call of this method.
    pub(crate) async fn expect(&mut self, method: &str) -> Value {
        let call = self.next().await;
        assert_eq!(call["method"], method, "{call}");
        call
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.raw(message.to_string().as_bytes()).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn answer(&mut self, call: &Value, result: &Value) {
        self.send(&json!({"id": call["id"], "result": result, "error": null})).await;
    }

    pub(crate) async fn refuse(&mut self, call: &Value, error: &str) {
        self.send(&json!({"id": call["id"], "error": error})).await;
    }

    /// Plays the beginning: schema and contents without history.
    pub(crate) async fn begin(&mut self, rows: &Value) {
        let call = self.expect("get_schema").await;
        assert_eq!(call["params"], json!(["Things"]));
        self.answer(&call, &schema()).await;
        let call = self.expect("monitor_cond_since").await;
        self.answer(&call, &json!([false, ZERO, {"Thing": rows}])).await;
    }

    pub(crate) async fn update3(&mut self, transaction: &str, rows: &Value) {
        let params = json!(["replica", transaction, {"Thing": rows}]);
        self.send(&json!({"id": null, "method": "update3", "params": params})).await;
    }
}

pub(crate) struct Stage {
    pub(crate) ends: mpsc::UnboundedReceiver<DuplexStream>,
    pub(crate) handle: Handle<Things>,
}

impl Stage {
    pub(crate) fn new(patience: impl FnOnce(&mut Config)) -> Self {
        Self::with_capacity(1 << 20, patience)
    }

    pub(crate) fn with_capacity(capacity: usize, patience: impl FnOnce(&mut Config)) -> Self {
        let (sender, ends) = mpsc::unbounded_channel();
        let mut config = Config::new(Pipe { ends: sender, capacity });
        patience(&mut config);
        Self { ends, handle: Session::spawn(config, Things::default()) }
    }

    pub(crate) async fn accept(&mut self) -> Server {
        Server { stream: self.ends.recv().await.unwrap(), splitter: Splitter::new(Limits::default()) }
    }

    /// A session that is ready with one row, and its server.
    pub(crate) async fn ready() -> (Self, Server) {
        let mut stage = Self::new(|_| {});
        let mut server = stage.accept().await;
        server.begin(&json!({A: {"initial": {"name": "a"}}})).await;
        stage.until_ready().await;
        (stage, server)
    }

    pub(crate) async fn until_ready(&self) {
        let mut state = self.handle.state();
        let ready = state.wait_for(|state| matches!(state, SessionState::Ready));
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

    pub(crate) fn tags(&self) -> Option<BTreeSet<i64>> {
        let view = self.handle.snapshot().borrow().clone();
        Some(view.ready()?.0.values().next()?.tags.clone())
    }
}
