//! The parameters of a request, those of its query and the VIF in its path, each refused by name when it makes no
//! sense.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;

use super::Error;
use crate::model::VifId;

/// What the query says and nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = query.map_err(|rejection| Error::request(rejection.body_text()))?;
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            match parameters.entry(name) {
                Entry::Occupied(taken) => return Err(Error::parameter(taken.key(), "is there twice")),
                Entry::Vacant(free) => drop(free.insert(value)),
            }
        }
        Ok(Parameters(parameters))
    }
}

impl Parameters {
    /// Refuses what is not among `known`.
    pub(super) fn only(self, known: &[&str]) -> Result<Parameters, Error> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                Err(Error::parameter(name, format!("there is no such parameter here, only {}", known.join(", "))))
            }
            None => Ok(self),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A VIF's id.
    pub(super) fn vif(&mut self, name: &str) -> Result<Option<VifId>, Error> {
        self.text(name).map(|text| vif_id(name, &text)).transpose()
    }

    /// `true` or `false`; `false` when it is not there.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Error> {
        match self.text(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Error::parameter(name, format!("{other:?} is neither true nor false"))),
        }
    }
}

/// The VIF that the path names.
#[derive(Debug)]
pub(super) struct Named(pub(super) VifId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|rejection| Error::parameter("id", rejection.body_text()))?;
        vif_id("id", &text).map(Named)
    }
}

/// The id of a VIF, as `field` of the request says it.
fn vif_id(field: &str, text: &str) -> Result<VifId, Error> {
    text.parse().map_err(|_| Error::parameter(field, format!("{text:?} is not a UUID")))
}
