//! Flows of VIFs, networks and bridges, as the switches have them, and where packets go by them.

use axum::Json;
use axum::extract::{Path, State};

use super::parameters::{Named, Parameters};
use super::{Api, Error};
use crate::backend::unixctl::ControlError;
use crate::inspect::{BridgeFlows, FlowListing, InspectError, Kind, Question, To, Trace, Traffic, Whose};

impl From<InspectError> for Error {
    fn from(error: InspectError) -> Error {
        match error {
            InspectError::Unknown(message) => Error::not_found(message),
            InspectError::NotOurs(message) => Error::refused(message),
            InspectError::Unclear { parameter, message } => Error::parameter(parameter, message),
            InspectError::Control(ControlError::Refused(_)) => Error::refused(error.to_string()),
            InspectError::Away { .. } | InspectError::Control(_) | InspectError::Unseen(_) | InspectError::Stopping => {
                Error::unavailable(error.to_string())
            }
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

/// `GET /v1/vifs/{id}/traffic`
pub(super) async fn traffic(
    State(api): State<Api>,
    Named(id): Named,
    parameters: Parameters,
) -> Result<Json<Traffic>, Error> {
    parameters.only(&[])?;
    Ok(Json(api.inspector.traffic(id).await?))
}

/// `GET /v1/vifs/{id}/trace`
pub(super) async fn trace(
    State(api): State<Api>,
    Named(id): Named,
    parameters: Parameters,
) -> Result<Json<Trace>, Error> {
    let known = ["to", "arp", "icmp", "tcp_dst", "udp_dst", "flow", "from_uplink", "ct_next"];
    let mut parameters = parameters.only(&known)?;
    let port = |name: &'static str, text: Option<String>| {
        let wrong = |text: &str| Error::parameter(name, format!("{text:?} is no port"));
        text.map(|text| text.parse::<u16>().map_err(|_| wrong(&text))).transpose()
    };
    let (tcp, udp) = (port("tcp_dst", parameters.text("tcp_dst"))?, port("udp_dst", parameters.text("udp_dst"))?);
    let (arp, icmp) = (parameters.flag("arp")?, parameters.flag("icmp")?);
    let kinds = [arp.then_some(Kind::Arp), icmp.then_some(Kind::Icmp), tcp.map(Kind::Tcp), udp.map(Kind::Udp)];
    let mut kinds = kinds.into_iter().flatten();
    let kind = kinds.next();
    if kinds.next().is_some() {
        return Err(Error::request("a packet is one of arp, icmp, tcp_dst and udp_dst"));
    }
    let question = Question {
        to: parameters.text("to").map(|text| to(&text)).transpose()?,
        kind,
        flow: parameters.text("flow"),
        from_uplink: parameters.flag("from_uplink")?,
        conntrack: parameters.text("ct_next").iter().flat_map(|all| all.split(';')).map(str::to_owned).collect(),
    };
    Ok(Json(api.inspector.trace(id, &question).await?))
}

fn to(text: &str) -> Result<To, Error> {
    if let Ok(id) = text.parse() {
        return Ok(To::Vif(id));
    }
    if let Ok(mac) = text.parse() {
        return Ok(To::Mac(mac));
    }
    let wrong = || Error::parameter("to", format!("{text:?} is no id of a VIF, no MAC and no IP address"));
    text.parse().map(To::Ip).map_err(|_| wrong())
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
