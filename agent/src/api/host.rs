//! The host as a whole: its status, its plan, orders to the reconciler, probes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::oneshot;

use super::body::{Confirmed, HostSummary, Paused, PlanView, Released, Unready};
use super::parameters::Parameters;
use super::vifs::known;
use super::{Api, Error, host_info};
use crate::inspect::NicLine;
use crate::inspect::candidates::Candidates;
use crate::reconciler::Command;
use crate::status::{HostStatus, Phase};

/// Refused records that are told one by one. Somebody who moves another directory here has more.
const MOST_REJECTIONS: usize = 100;

/// `GET /v1/status`
pub(super) async fn summary(State(api): State<Api>) -> Json<HostSummary> {
    let status = api.status();
    let mut phases: BTreeMap<Phase, usize> = BTreeMap::new();
    for vif in status.vifs.values() {
        *phases.entry(vif.phase).or_default() += 1;
    }
    let not_ready = status.unreadiness();
    let HostStatus {
        revision,
        rejections,
        stopped_removals,
        paused,
        paused_vifs,
        mode,
        foreign_conflicts,
        hindered,
        ..
    } = &*status;
    Json(HostSummary {
        agent: api.agent,
        host: api.host,
        version: env!("CARGO_PKG_VERSION").into(),
        mode: mode.clone(),
        paused: *paused,
        paused_vifs: paused_vifs.clone(),
        revision: *revision,
        ready: not_ready.is_empty(),
        not_ready,
        phases,
        stopped_removals: stopped_removals.clone(),
        rejections: rejections.iter().take(MOST_REJECTIONS).cloned().collect(),
        rejected: rejections.len(),
        sessions: status.sessions.clone(),
        holds: status.holds.iter().map(|(backend, holds)| ((*backend).to_owned(), *holds)).collect(),
        foreign_conflicts: *foreign_conflicts,
        hindered: hindered.clone(),
    })
}

/// `GET /v1/plan`
pub(super) async fn plan(State(api): State<Api>) -> Json<PlanView> {
    let status = api.status();
    let unready = status.vifs.values().filter(|vif| vif.phase != Phase::Ready);
    Json(PlanView {
        revision: status.revision,
        mode: status.mode.clone(),
        not_ready: status.unreadiness(),
        paused: status.paused,
        paused_vifs: status.paused_vifs.clone(),
        operations: status.planned.clone(),
        stopped_removals: status.stopped_removals.clone(),
        unready: unready
            .map(|vif| Unready {
                vif: vif.id,
                bridge: vif.facts.bridge.clone(),
                port: vif.facts.name().map(Cow::into_owned),
                phase: vif.phase,
                reason: vif.reason.to_string(),
                message: vif.message.clone(),
            })
            .collect(),
    })
}

/// `GET /v1/host-info`
pub(super) async fn host_info() -> Json<Value> {
    Json(host_info::primitive())
}

/// `GET /v1/candidates`: what is there to be taken over, and the records that it would need.
pub(super) async fn candidates(State(api): State<Api>, parameters: Parameters) -> Result<Json<Candidates>, Error> {
    let bridge = parameters.only(&["bridge"])?.text("bridge");
    Ok(Json(api.inspector.candidates(bridge.as_deref()).await?))
}

/// `GET /v1/nics`: the NICs, their functions, and who has these.
pub(super) async fn nics(State(api): State<Api>, parameters: Parameters) -> Result<Json<Vec<NicLine>>, Error> {
    parameters.only(&[])?;
    Ok(Json(api.inspector.nics().await?))
}

/// Hands an order to the reconciler and waits for its answer.
async fn order<T>(api: &Api, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
    let stopping = || Error::unavailable("the agent is stopping");
    let (reply, answer) = oneshot::channel();
    api.commands.send(command(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

/// `POST /v1/pause`
pub(super) async fn pause(State(api): State<Api>, parameters: Parameters) -> Result<Json<Paused>, Error> {
    let vif = parameters.only(&["vif"])?.vif("vif")?;
    if let Some(id) = vif {
        known(&api, id)?;
    }
    order(&api, |reply| Command::Pause(vif, reply)).await?.map_err(Error::refused)?;
    Ok(Json(Paused { paused: true, vif }))
}

/// `POST /v1/resume`
pub(super) async fn resume(State(api): State<Api>, parameters: Parameters) -> Result<Json<Paused>, Error> {
    let vif = parameters.only(&["vif"])?.vif("vif")?;
    // What is paused can be resumed, also when nothing is left of it.
    if let Some(id) = vif.filter(|id| !api.status().paused_vifs.contains(id)) {
        known(&api, id)?;
    }
    order(&api, |reply| Command::Resume(vif, reply)).await?.map_err(Error::refused)?;
    Ok(Json(Paused { paused: false, vif }))
}

/// `POST /v1/confirm-removals`: what `max_removals` stopped goes ahead, and an emptied directory is meant.
pub(super) async fn confirm_removals(State(api): State<Api>) -> Result<Json<Confirmed>, Error> {
    let confirmed = order(&api, Command::ConfirmRemovals).await?;
    Ok(Json(Confirmed { confirmed: confirmed.into_iter().collect() }))
}

/// `POST /v1/release`
pub(super) async fn release(State(api): State<Api>) -> Result<Json<Released>, Error> {
    let released = order(&api, Command::Release).await?.map_err(Error::refused)?;
    Ok(Json(Released { released }))
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the agent can do its work; otherwise why not, a line each.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let not_ready = api.status().unreadiness();
    if not_ready.is_empty() {
        return "ready\n".into_response();
    }
    let mut lines = not_ready.join("\n");
    lines.push('\n');
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let flows = api.inspector.flow_metrics().await;
    let text = api.exporter.render(&api.status(), &flows, SystemTime::now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
