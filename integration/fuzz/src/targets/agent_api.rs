//! Requests to the API as clients may send them: a line `METHOD TARGET` and a body. Every answer is one that
//! `docs/api.md` knows, and says what is wrong in its form.
//!
//! There is no directory of records, so a record that is accepted is answered with 503 and nothing is written.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use vifd::api::Api;
use vifd::inspect::{Eyes, Inspector};
use vifd::model::{Observed, View};
use vifd::reconciler::{Command, Control, Seen};
use vifd::record;
use vifd::source::dir::{DirSource, Options};
use vifd::status::HostStatus;

use super::line;

/// An API with nobody behind it but a reconciler that says yes.
struct Stage {
    runtime: Runtime,
    api: Api,
    _status: watch::Sender<Arc<HostStatus>>,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        // Waits cost nothing: time stands still, and flies when there is nothing else to do.
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let (status, statuses) = watch::channel(Arc::new(HostStatus::default()));
        let (commands, mut inbox) = mpsc::channel(1);
        let _entered = runtime.enter();
        let decode = Arc::new(|bytes: &[u8]| record::decode(bytes).map(|record| record.vif));
        let records = Path::new("/nonexistent/vifs").to_owned();
        let source = DirSource::spawn(Options::new(records, directory.path().to_owned(), decode)).expect("a source");
        let settings = vifd::config::Config::default().settings().expect("settings");
        let seen = Seen {
            desired: Arc::default(),
            clashes: BTreeMap::new(),
            observed: Observed {
                links: View::Ready(Arc::default()),
                ovs: View::Ready(Arc::default()),
                nics: View::Syncing,
                flows: Arc::default(),
            },
            settings: settings.clone(),
            enforce: true,
        };
        runtime.spawn(async move {
            while let Some(command) = inbox.recv().await {
                // A caller that went away does not mind.
                match command {
                    Command::Pause(_, reply) | Command::Resume(_, reply) => drop(reply.send(Ok(()))),
                    Command::ConfirmRemovals(reply) => drop(reply.send(BTreeSet::new())),
                    Command::Release(reply) => drop(reply.send(Ok(0))),
                    Command::Intended(_, reply) => drop(reply.send(None)),
                    Command::BridgesOf(_, reply) => drop(reply.send(Vec::new())),
                    Command::Seen(reply) => drop(reply.send(seen.clone())),
                }
            }
        });
        let exporter = vifd::metrics::install();
        // A host without switches.
        let inspector = Inspector::new(Eyes {
            handles: Box::new(|_| None),
            states: watch::channel(View::Syncing).1,
            sessions: watch::channel(BTreeMap::new()).1,
            control: watch::channel(Control { settings, enforce: true, resync: None, look_every: None }).1,
            records: source.observe(),
            status: statuses.clone(),
            commands: commands.clone(),
            rundir: directory.path().to_owned(),
        });
        let (agent, host) = ("vifd".into(), "fuzz".into());
        let api = Api { status: statuses, source, commands, exporter, inspector, agent, host };
        Stage { runtime, api, _status: status, _directory: directory }
    }
}

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (head, body) = line(data);
    let mut words = head.splitn(2, |byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return false };
    let Ok(request) = Request::builder().method(method).uri(target).body(Body::from(body.to_vec())) else {
        return false;
    };
    let watches = target.windows(5).any(|word| word == b"watch");
    STAGE.with(|stage| {
        let stage = stage.get_or_init(Stage::new);
        let service = TowerToHyperService::new(stage.api.clone().local());
        stage.runtime.block_on(async {
            let answer = service.call(request).await.expect("the API has no errors of its own");
            let (head, mut body) = answer.into_parts();
            let mut text = Vec::new();
            // A watch has no end: what it has at once is enough.
            while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_millis(1), body.frame()).await {
                text.extend_from_slice(&frame.expect("bodies do not fail").into_data().unwrap_or_default());
                if watches {
                    break;
                }
            }
            let status = head.status.as_u16();
            let known = [200, 202, 400, 404, 405, 409, 413, 422, 503, 504];
            assert!(known.contains(&status), "{status}: {}", String::from_utf8_lossy(&text));
            let is_json = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
            if is_json && !text.is_empty() {
                let answer: Value = serde_json::from_slice(&text).expect("JSON where it says so");
                if status >= 400 {
                    for member in ["code", "message"] {
                        let said = answer["error"][member].as_str().expect("an error has its form");
                        assert!(!said.is_empty(), "{answer}");
                        // At most a few bytes for each byte of what it repeats.
                        assert!(said.len() <= 1024 + 12 * head_len(data), "{answer}");
                    }
                }
            } else {
                assert!(status < 400 || status == 503, "{status} without a word");
            }
            ![400, 404, 405].contains(&status)
        })
    })
}

fn head_len(data: &[u8]) -> usize {
    line(data).0.len()
}
