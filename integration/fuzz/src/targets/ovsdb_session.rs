//! A whole session against a server that sends these bytes: whatever they are, the session ends them with an error
//! that can be shown, no view outlives the connection, and with the next server, a good one, it is ready.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ovsdb::endpoint::{Connect, Connecting};
use ovsdb::framing::{Limits, Splitter};
use ovsdb::replica::{Replica, Rows, View};
use ovsdb::session::{Config, Session, SessionState};
use ovsdb::table::{Layout, Table, TableDecl};
use ovsdb::update::RowUpdate;
use ovsdb::value::Uuid;
use serde::Deserializer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Builder;

use super::{choice, presentable};

ovsdb::table! {
    /// The only table of the only database here.
    struct Thing = "Thing" {
        /// Name.
        required NAME name: String = "name",
        /// Tags.
        required TAGS tags: BTreeSet<i64> = "tags",
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Things(Rows<Thing>);

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

const ROW: &str = "aaaaaaaa-0000-4000-8000-00000000000a";

/// Connections by number: the hostile one first, then good ones.
struct Servers {
    script: Arc<[u8]>,
    piece: usize,
    count: Arc<AtomicUsize>,
}

impl Connect for Servers {
    fn connect(&self) -> Connecting<'_> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            tokio::spawn(hostile(theirs, Arc::clone(&self.script), self.piece));
        } else {
            tokio::spawn(good(theirs));
        }
        Box::pin(async move { Ok(Box::new(ours) as Box<_>) })
    }
    fn target(&self) -> String {
        "a pipe".to_owned()
    }
}

/// Sends the script and hangs up. Like a real server it lets its client speak first.
async fn hostile(stream: DuplexStream, script: Arc<[u8]>, piece: usize) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut unread = [0; 1024];
    let _ = reader.read(&mut unread).await;
    for bytes in script.chunks(piece) {
        if writer.write_all(bytes).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = writer.shutdown().await;
    while reader.read(&mut unread).await.is_ok_and(|read| read > 0) {}
}

async fn good(mut stream: DuplexStream) -> io::Result<()> {
    let mut splitter = Splitter::new(Limits::default());
    loop {
        while let Some(message) = splitter.next_message().expect("we speak JSON-RPC") {
            let call: Value = serde_json::from_slice(&message).expect("we speak JSON");
            let result = match call["method"].as_str() {
                Some("get_schema") => json!({"name": "Things", "version": "1.0.0", "tables": {"Thing": {"columns": {
                    "name": {"type": "string"},
                    "tags": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
                }}}}),
                Some("monitor_cond_since") => {
                    json!([false, Uuid::nil(), {"Thing": {ROW: {"initial": {"name": "good"}}}}])
                }
                _ => json!([]),
            };
            let answer = json!({"id": call["id"], "result": result, "error": null});
            stream.write_all(answer.to_string().as_bytes()).await?;
        }
        if stream.read_buf(splitter.buffer()).await? == 0 {
            return Ok(());
        }
    }
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, script) = choice(data);
    let servers =
        Servers { script: script.into(), piece: 1 + 16 * usize::from(choice), count: Arc::new(AtomicUsize::new(0)) };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut config = Config::new(servers);
        config.limits = Limits { max_message: 4096, max_depth: 20, max_values: 500, max_rows: 20 };
        let handle = Session::spawn(config, Things::default());
        let mut state = handle.state();
        let failed = state.wait_for(|state| matches!(state, SessionState::Failed(_)));
        let failed = tokio::time::timeout(Duration::from_secs(3600), failed).await.expect("a failure in the end");
        if let SessionState::Failed(error) = &*failed.expect("the session runs") {
            presentable(error);
        }
        assert_eq!(*handle.snapshot().borrow(), View::Syncing, "a view without a connection");
        let mut state = handle.state();
        let ready = state.wait_for(|state| matches!(state, SessionState::Ready));
        let ready = tokio::time::timeout(Duration::from_secs(3600), ready).await.expect("ready in the end");
        drop(ready.expect("the session runs"));
        let view = handle.snapshot().borrow().clone();
        let rows = &view.ready().expect("a session that is ready has a view").0;
        assert_eq!(rows.values().map(|thing| thing.name.as_str()).collect::<Vec<_>>(), ["good"]);
        // Whether the hostile server got so far as to be believed.
        handle.statistics().resyncs.values().sum::<u64>() > 0
    })
}
