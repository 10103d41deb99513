//! Single VIFs and their list.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;

use super::body::{Accepted, Event};
use super::wait::{DEFAULT_TIMEOUT, Goal, parse_timeout, wait};
use super::{Api, Error};
use crate::model::VifId;
use crate::record::MAX_BYTES;
use crate::status::{HostStatus, Phase, VifStatus};

/// For a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The parameters of a query, or why they make no sense.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Error> {
    match query {
        Ok(Query(parameters)) => Ok(parameters),
        Err(rejection) => Err(Error::request(rejection.body_text())),
    }
}

fn vif_id(text: &str) -> Result<VifId, Error> {
    text.parse().map_err(|_| Error::parameter("id", format!("{text:?} is not a UUID")))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiting {
    wait: Option<String>,
    timeout: Option<String>,
}

impl Waiting {
    /// What to wait for and how long; `allowed` is what makes sense here.
    fn goal(self, allowed: &[Goal]) -> Result<Option<(Goal, Duration)>, Error> {
        let time = self.timeout.as_deref().map_or(Ok(DEFAULT_TIMEOUT), parse_timeout)?;
        let Some(word) = self.wait else { return Ok(None) };
        let goal: Goal = word.parse()?;
        if !allowed.contains(&goal) {
            return Err(Error::parameter("wait", format!("{word:?} makes no sense for this request")));
        }
        Ok(Some((goal, time)))
    }
}

async fn read(body: Body) -> Result<Vec<u8>, Error> {
    let bytes = tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BYTES).collect());
    match bytes.await {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::too_large(MAX_BYTES)),
        Ok(Err(error)) => Err(Error::request(format!("the body cannot be read: {error}"))),
        Err(_) => Err(Error::too_slow()),
    }
}

/// `PUT /v1/vifs/{id}`
pub(super) async fn put(
    State(api): State<Api>,
    Path(id): Path<String>,
    parameters: Result<Query<Waiting>, QueryRejection>,
    body: Body,
) -> Result<Response, Error> {
    let id = vif_id(&id)?;
    let goal = query(parameters)?.goal(&[Goal::Plugged, Goal::Ready])?;
    let revision = api.source.put(id, read(body).await?).await?;
    match goal {
        Some((goal, time)) => {
            let status = wait(api.status, id, goal, revision, time).await?;
            Ok(Json(status).into_response())
        }
        None => Ok((StatusCode::ACCEPTED, Json(Accepted { id, revision })).into_response()),
    }
}

/// `DELETE /v1/vifs/{id}`
pub(super) async fn delete(
    State(api): State<Api>,
    Path(id): Path<String>,
    parameters: Result<Query<Waiting>, QueryRejection>,
) -> Result<Response, Error> {
    let id = vif_id(&id)?;
    let goal = query(parameters)?.goal(&[Goal::Gone])?;
    // What is on the host without a record can be deleted, too.
    let known = api.status().vifs.contains_key(&id) || api.source.knows(id);
    if !known {
        return Err(unknown(id));
    }
    let revision = api.source.delete(id).await?;
    if let Some((goal, time)) = goal {
        wait(api.status, id, goal, revision, time).await?;
        return Ok(Json(Accepted { id, revision }).into_response());
    }
    Ok((StatusCode::ACCEPTED, Json(Accepted { id, revision })).into_response())
}

fn unknown(id: VifId) -> Error {
    Error::not_found(format!("VIF {id} is not known on this host"))
}

/// `GET /v1/vifs/{id}`
pub(super) async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
    parameters: Result<Query<Waiting>, QueryRejection>,
) -> Result<Json<Option<Arc<VifStatus>>>, Error> {
    let id = vif_id(&id)?;
    match query(parameters)?.goal(&[Goal::Plugged, Goal::Ready, Goal::Gone])? {
        Some((goal, time)) => Ok(Json(wait(api.status, id, goal, 0, time).await?)),
        None => match api.status().vifs.get(&id) {
            Some(vif) => Ok(Json(Some(Arc::clone(vif)))),
            None => Err(unknown(id)),
        },
    }
}

/// `GET /v1/vifs/{id}/record`
pub(super) async fn record(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Error> {
    let id = vif_id(&id)?;
    match api.source.get(id).await? {
        Some(bytes) => Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response()),
        None => Err(Error::not_found(format!("there is no record of VIF {id}"))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    phase: Option<String>,
    bridge: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    watch: bool,
}

/// Which VIFs are meant.
#[derive(Debug)]
struct Filter {
    phases: Vec<Phase>,
    bridge: Option<String>,
    kind: Option<String>,
}

impl Filter {
    fn new(listing: Listing) -> Result<Filter, Error> {
        let phase = |word: &str| {
            let known = Phase::ALL.into_iter().find(|phase| phase.name() == word);
            known.ok_or_else(|| {
                let all = Phase::ALL.map(Phase::name).join(", ");
                Error::parameter("phase", format!("{word:?} is none of {all}"))
            })
        };
        let phases = listing.phase.iter().flat_map(|words| words.split(',')).map(phase);
        Ok(Filter { phases: phases.collect::<Result<_, _>>()?, bridge: listing.bridge, kind: listing.kind })
    }

    fn meets(&self, vif: &VifStatus) -> bool {
        (self.phases.is_empty() || self.phases.contains(&vif.phase))
            && self.bridge.as_ref().is_none_or(|bridge| vif.facts.bridge.as_ref() == Some(bridge))
            && self.kind.as_ref().is_none_or(|kind| vif.kind == *kind)
    }

    fn of(&self, host: &HostStatus) -> BTreeMap<VifId, Arc<VifStatus>> {
        let met = host.vifs.iter().filter(|(_, vif)| self.meets(vif));
        met.map(|(id, vif)| (*id, Arc::clone(vif))).collect()
    }
}

/// `GET /v1/vifs`
pub(super) async fn list(
    State(api): State<Api>,
    parameters: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Error> {
    let parameters = query(parameters)?;
    let watched = parameters.watch;
    let filter = Filter::new(parameters)?;
    if !watched {
        let vifs: Vec<Arc<VifStatus>> = filter.of(&api.status()).into_values().collect();
        return Ok(Json(vifs).into_response());
    }
    let told: Option<BTreeMap<VifId, Arc<VifStatus>>> = None;
    let lines = stream::unfold((api.status, filter, told), |(mut status, filter, mut told)| async {
        loop {
            if told.is_some() && status.changed().await.is_err() {
                return None;
            }
            let now = filter.of(&status.borrow_and_update());
            let text = changes(told.as_ref(), &now);
            told = Some(now);
            if !text.is_empty() {
                return Some((Ok::<_, Infallible>(Bytes::from(text)), (status, filter, told)));
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// The lines that lead from what was told to what is; with nothing told yet, all of it and the mark behind it.
fn changes(told: Option<&BTreeMap<VifId, Arc<VifStatus>>>, now: &BTreeMap<VifId, Arc<VifStatus>>) -> String {
    let before = |id: &VifId| told.and_then(|told| told.get(id));
    let mut events = Vec::new();
    for (id, vif) in now {
        if before(id).is_none_or(|old| !Arc::ptr_eq(old, vif) && old != vif) {
            events.push(Event::Set { vif: Box::new(VifStatus::clone(vif)) });
        }
    }
    for id in told.into_iter().flat_map(BTreeMap::keys).filter(|id| !now.contains_key(id)) {
        events.push(Event::Unset { id: *id });
    }
    if told.is_none() {
        events.push(Event::Listed);
    }
    let mut text = String::new();
    for event in &events {
        match serde_json::to_string(event) {
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            // Plain data with string keys always has a JSON form.
            Err(error) => tracing::error!(%error, "a status cannot be written as JSON"),
        }
    }
    text
}
