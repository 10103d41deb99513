//! Flows of VIFs, networks and bridges, as the switches have them.

use axum::Json;
use axum::extract::{Path, State};

use super::parameters::{Named, Parameters};
use super::{Api, Error};
use crate::inspect::{BridgeFlows, FlowListing, InspectError, Whose};

impl From<InspectError> for Error {
    fn from(error: InspectError) -> Error {
        match error {
            InspectError::Unknown(message) => Error::not_found(message),
            InspectError::NotOurs(message) => Error::refused(message),
            InspectError::Unclear { parameter, message } => Error::parameter(parameter, message),
            InspectError::Away { .. } | InspectError::Stopping => Error::unavailable(error.to_string()),
        }
    }
}

/// `GET /v1/vifs/{id}/flows`
pub(super) async fn of_vif(
    State(api): State<Api>,
    Named(id): Named,
    parameters: Parameters,
) -> Result<Json<FlowListing>, Error> {
    parameters.only(&[])?;
    Ok(Json(api.inspector.listing(Whose::Vif(id)).await?))
}

/// `GET /v1/networks/{id or label}/flows`
pub(super) async fn of_network(
    State(api): State<Api>,
    Path(network): Path<String>,
    parameters: Parameters,
) -> Result<Json<FlowListing>, Error> {
    let bridge = parameters.only(&["bridge"])?.text("bridge");
    Ok(Json(api.inspector.listing(Whose::Network(network, bridge)).await?))
}

/// `GET /v1/bridges/{name}/flows`
pub(super) async fn of_bridge(
    State(api): State<Api>,
    Path(bridge): Path<String>,
    parameters: Parameters,
) -> Result<Json<FlowListing>, Error> {
    let foreign = parameters.only(&["foreign"])?.flag("foreign")?;
    let whose = if foreign { Whose::Others(bridge) } else { Whose::Bridge(bridge) };
    Ok(Json(api.inspector.listing(whose).await?))
}

/// `GET /v1/bridges`
pub(super) async fn bridges(State(api): State<Api>) -> Json<Vec<BridgeFlows>> {
    Json(api.inspector.bridges())
}
