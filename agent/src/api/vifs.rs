//! Single VIFs and their list.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::body::{Accepted, Event};
use super::parameters::{Named, Parameters};
use super::wait::{DEFAULT_TIMEOUT, Goal, parse_timeout, wait};
use super::{Api, Error};
use crate::model::{VifId, VifKind};
use crate::record::MAX_BYTES;
use crate::status::{HostStatus, Phase, VifStatus};

/// For a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A list is written in pieces of about so many bytes, each when the last one was taken: what a client does not read
/// is not made.
const PIECE: usize = 32 << 10;

/// What to wait for and how long; `allowed` is what makes sense for the request.
fn goal(parameters: Parameters, allowed: &[Goal]) -> Result<Option<(Goal, Duration)>, Error> {
    let mut parameters = parameters.only(&["wait", "timeout"])?;
    let time = parameters.text("timeout").as_deref().map_or(Ok(DEFAULT_TIMEOUT), parse_timeout)?;
    let Some(word) = parameters.text("wait") else { return Ok(None) };
    let goal: Goal = word.parse()?;
    if !allowed.contains(&goal) {
        return Err(Error::parameter("wait", format!("{word:?} makes no sense for this request")));
    }
    Ok(Some((goal, time)))
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
    Named(id): Named,
    parameters: Parameters,
    body: Body,
) -> Result<Response, Error> {
    let goal = goal(parameters, &[Goal::Plugged, Goal::Ready])?;
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
    Named(id): Named,
    parameters: Parameters,
) -> Result<Response, Error> {
    let goal = goal(parameters, &[Goal::Gone])?;
    // What is on the host without a record can be deleted, too.
    known(&api, id)?;
    let revision = api.source.delete(id).await?;
    if let Some((goal, time)) = goal {
        wait(api.status, id, goal, revision, time).await?;
        return Ok(Json(Accepted { id, revision }).into_response());
    }
    Ok((StatusCode::ACCEPTED, Json(Accepted { id, revision })).into_response())
}

/// Refuses a VIF that neither has a record nor is on the host.
pub(super) fn known(api: &Api, id: VifId) -> Result<(), Error> {
    if api.status().vifs.contains_key(&id) || api.source.knows(id) { Ok(()) } else { Err(unknown(id)) }
}

fn unknown(id: VifId) -> Error {
    Error::not_found(format!("VIF {id} is not known on this host"))
}

/// `GET /v1/vifs/{id}`
pub(super) async fn get(
    State(api): State<Api>,
    Named(id): Named,
    parameters: Parameters,
) -> Result<Json<Option<Arc<VifStatus>>>, Error> {
    match goal(parameters, &[Goal::Plugged, Goal::Ready, Goal::Gone])? {
        Some((goal, time)) => Ok(Json(wait(api.status, id, goal, 0, time).await?)),
        None => match api.status().vifs.get(&id) {
            Some(vif) => Ok(Json(Some(Arc::clone(vif)))),
            None => Err(unknown(id)),
        },
    }
}

/// `GET /v1/vifs/{id}/record`
pub(super) async fn record(State(api): State<Api>, Named(id): Named) -> Result<Response, Error> {
    match api.source.get(id).await? {
        Some(bytes) => Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response()),
        None => Err(Error::not_found(format!("there is no record of VIF {id}"))),
    }
}

/// Which VIFs are meant.
#[derive(Debug)]
struct Filter {
    id: Option<VifId>,
    phases: Vec<Phase>,
    bridge: Option<String>,
    kind: Option<String>,
}

impl Filter {
    fn new(parameters: &mut Parameters) -> Result<Filter, Error> {
        let phase = |word: &str| {
            let known = Phase::ALL.into_iter().find(|phase| phase.name() == word);
            known.ok_or_else(|| {
                let all = Phase::ALL.map(Phase::name).join(", ");
                Error::parameter("phase", format!("{word:?} is none of {all}"))
            })
        };
        let words = parameters.text("phase");
        let phases = words.iter().flat_map(|words| words.split(',')).map(phase).collect::<Result<_, _>>()?;
        let kind = parameters.text("type");
        if let Some(kind) = kind.as_deref().filter(|kind| !VifKind::TYPE_NAMES.contains(kind)) {
            let message = format!("{kind:?} is none of {}", VifKind::TYPE_NAMES.join(", "));
            return Err(Error::parameter("type", message));
        }
        Ok(Filter { id: parameters.vif("id")?, phases, bridge: parameters.text("bridge"), kind })
    }

    fn meets(&self, vif: &VifStatus) -> bool {
        self.id.is_none_or(|id| vif.id == id)
            && (self.phases.is_empty() || self.phases.contains(&vif.phase))
            && self.bridge.as_ref().is_none_or(|bridge| vif.facts.is_on(bridge))
            && self.kind.as_ref().is_none_or(|kind| vif.kind == *kind)
    }

    fn of(&self, host: &HostStatus) -> BTreeMap<VifId, Arc<VifStatus>> {
        let met = host.vifs.iter().filter(|(_, vif)| self.meets(vif));
        met.map(|(id, vif)| (*id, Arc::clone(vif))).collect()
    }
}

/// `GET /v1/vifs`
pub(super) async fn list(State(api): State<Api>, parameters: Parameters) -> Result<Response, Error> {
    let mut parameters = parameters.only(&["id", "phase", "bridge", "type", "watch"])?;
    let watched = parameters.flag("watch")?;
    let filter = Filter::new(&mut parameters)?;
    if !watched {
        let vifs: VecDeque<Arc<VifStatus>> = filter.of(&api.status()).into_values().collect();
        return Ok(([(header::CONTENT_TYPE, "application/json")], array(vifs)).into_response());
    }
    let told: Option<BTreeMap<VifId, Arc<VifStatus>>> = None;
    let state = (api.status, filter, told, VecDeque::new());
    let lines = stream::unfold(state, |(mut status, filter, mut told, mut changed)| async {
        while changed.is_empty() {
            if told.is_some() && status.changed().await.is_err() {
                return None;
            }
            let now = filter.of(&status.borrow_and_update());
            changed = changes(told.as_ref(), &now);
            told = Some(now);
        }
        let mut text = Vec::new();
        while text.len() < PIECE
            && let Some(change) = changed.pop_front()
        {
            write(&mut text, &change.event());
            text.push(b'\n');
        }
        Some((Ok::<_, Infallible>(Bytes::from(text)), (status, filter, told, changed)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// A list, written as it is read.
fn array(vifs: VecDeque<Arc<VifStatus>>) -> Body {
    let pieces = stream::unfold(Some((vifs, b'[')), |state| async {
        let (mut vifs, mut before) = state?;
        let mut text = Vec::new();
        if vifs.is_empty() && before == b'[' {
            text.push(before);
        }
        while text.len() < PIECE
            && let Some(vif) = vifs.pop_front()
        {
            text.push(before);
            write(&mut text, &vif);
            before = b',';
        }
        let rest = if vifs.is_empty() {
            text.push(b']');
            None
        } else {
            Some((vifs, before))
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), rest))
    });
    Body::from_stream(pieces)
}

fn write(text: &mut Vec<u8>, value: &impl serde::Serialize) {
    if let Err(error) = serde_json::to_writer(text, value) {
        // Plain data with string keys always has a JSON form.
        tracing::error!(%error, "a status cannot be written as JSON");
    }
}

/// A line of a stream, before it is one: clients that do not read cost a reference for each VIF.
enum Change {
    Set(Arc<VifStatus>),
    Unset(VifId),
    Listed,
}

impl Change {
    fn event(&self) -> Event {
        match self {
            Change::Set(vif) => Event::Set { vif: Box::new(VifStatus::clone(vif)) },
            Change::Unset(id) => Event::Unset { id: *id },
            Change::Listed => Event::Listed,
        }
    }
}

/// What leads from what was told to what is; with nothing told yet, all of it and the mark behind it.
fn changes(told: Option<&BTreeMap<VifId, Arc<VifStatus>>>, now: &BTreeMap<VifId, Arc<VifStatus>>) -> VecDeque<Change> {
    let before = |id: &VifId| told.and_then(|told| told.get(id));
    let mut changes = VecDeque::new();
    for (id, vif) in now {
        if before(id).is_none_or(|old| !Arc::ptr_eq(old, vif) && old != vif) {
            changes.push_back(Change::Set(Arc::clone(vif)));
        }
    }
    for id in told.into_iter().flat_map(BTreeMap::keys).filter(|id| !now.contains_key(id)) {
        changes.push_back(Change::Unset(*id));
    }
    if told.is_none() {
        changes.push_back(Change::Listed);
    }
    changes
}
