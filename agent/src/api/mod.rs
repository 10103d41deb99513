//! The local HTTP API: the routes and what their handlers share. It decides nothing: it reads the published
//! status, hands records to the source and orders to the reconciler. Reference: `docs/api.md`.
//!
//! * `vifs`: single VIFs and their list; `wait`: answering when a VIF is so; `host`: everything else
//! * `flows`: what is on switches
//! * `parameters`: the query of a request
//! * `body`: the JSON of answers, also for the client; `error`: the JSON of refusals
//! * `listen`: sockets; `serve`: connections, within bounds; `seats`: whose they are
//! * `client`: the other end, for the command line

pub mod body;
pub mod client;
mod error;
mod flows;
mod host;
mod host_info;
mod listen;
mod parameters;
mod seats;
mod serve;
#[cfg(test)]
mod tests;
mod vifs;
mod wait;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::{mpsc, watch};

pub use listen::BindError;
pub use serve::Server;

use self::error::Error;
pub(crate) use self::wait::parse_time;
use crate::inspect::Inspector;
use crate::metrics::Exporter;
use crate::reconciler::Command;
use crate::source::dir::DirSource;
use crate::status::HostStatus;

/// What the API answers from and hands things to.
#[derive(Clone)]
pub struct Api {
    /// What is; a new one after every plan.
    pub status: watch::Receiver<Arc<HostStatus>>,
    /// Where records go.
    pub source: DirSource,
    /// Where orders go.
    pub commands: mpsc::Sender<Command>,
    /// The metrics.
    pub exporter: Exporter,
    /// What looks into switches.
    pub inspector: Inspector,
    /// `agent.id` of the configuration.
    pub agent: String,
    /// Name of this host.
    pub host: String,
}

impl Api {
    fn status(&self) -> Arc<HostStatus> {
        self.status.borrow().clone()
    }

    /// Everything, as the unix socket has it.
    pub fn local(self) -> Router {
        Router::new()
            .route("/v1/vifs", get(vifs::list))
            .route("/v1/vifs/{id}", get(vifs::get).put(vifs::put).delete(vifs::delete))
            .route("/v1/vifs/{id}/record", get(vifs::record))
            .route("/v1/vifs/{id}/flows", get(flows::of_vif))
            .route("/v1/vifs/{id}/traffic", get(flows::traffic))
            .route("/v1/vifs/{id}/trace", get(flows::trace))
            .route("/v1/networks/{network}/flows", get(flows::of_network))
            .route("/v1/bridges", get(flows::bridges))
            .route("/v1/bridges/{bridge}/flows", get(flows::of_bridge))
            .route("/v1/nics", get(host::nics))
            .route("/v1/plan", get(host::plan))
            .route("/v1/candidates", get(host::candidates))
            .route("/v1/status", get(host::summary))
            .route("/v1/host-info", get(host::host_info))
            .route("/v1/pause", post(host::pause))
            .route("/v1/resume", post(host::resume))
            .route("/v1/confirm-removals", post(host::confirm_removals))
            .route("/v1/release", post(host::release))
            .merge(probes())
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::no_such_method)
            .with_state(self)
    }

    /// What anybody may ask, for the TCP listener.
    fn remote(self) -> Router {
        probes().fallback(error::no_such_path).method_not_allowed_fallback(error::no_such_method).with_state(self)
    }
}

fn probes() -> Router<Api> {
    Router::new()
        .route("/healthz", get(host::healthz))
        .route("/readyz", get(host::readyz))
        .route("/metrics", get(host::metrics))
}
