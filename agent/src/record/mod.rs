//! The wire forms of a VIF and their validation: os-vif's serialized objects and the native form go in,
//! [`Vif`]s come out. Where the bytes come from is `source`'s business; whether the host can carry the VIF,
//! the planner's.
//!
//! ```text
//!  bytes ─► JSON ─► node (envelope or flat, by the table in shape) ─► decode ─► Vif ─► validate ─► Record
//! ```

mod clashes;
mod decode;
mod native;
mod node;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
pub mod validate;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

pub use clashes::clashes;
pub use native::to_native;
pub use node::Fault;
pub use schema::json_schema;
pub use validate::{Limits, doubts, empty_groups};

use crate::model::{Vif, VifId};

/// Largest record in bytes. A VIF with a thousand addresses takes about a fifth of it.
pub const MAX_BYTES: usize = 1 << 20;

/// A record that can be honoured as far as the record itself goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What it says.
    pub vif: Vif,
    /// What was passed over in it, or is hardly meant. At most a few dozen, each said once.
    pub warnings: Vec<Warning>,
}

/// Something in a record that was passed over, or that is allowed and hardly meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Path of the field, e.g. `vif.network.color`.
    pub field: String,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

/// A record that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", fault(.field, .reason))]
pub struct Refused {
    /// The VIF, where the record said so much.
    pub vif: Option<VifId>,
    /// Its generation, likewise.
    pub generation: Option<u64>,
    /// Path of the field, e.g. `vif.network.mtu`; empty when the record as a whole is meant. The same in
    /// both forms of a record, but for what stands in an os-vif envelope itself
    /// (`vif.versioned_object.version`).
    pub field: String,
    /// One sentence.
    pub reason: String,
}

fn fault(field: &str, reason: &str) -> String {
    match field {
        "" if reason.starts_with("expected ") => format!("the record: {reason}"),
        "" => format!("the record {reason}"),
        _ => format!("{field}: {reason}"),
    }
}

/// Reads and validates one record, in either form.
///
/// # Errors
/// The first thing in it that is wrong. `vif` and `generation` are filled in as far as they could be read,
/// so that the refusal can be shown with its VIF.
pub fn decode(bytes: &[u8]) -> Result<Record, Refused> {
    decode_with(bytes, |_| Ok(()))
}

/// The same, with what this host's configuration allows.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Record, Refused> {
    decode_with(bytes, |vif| validate::against_host(vif, limits))
}

fn decode_with(bytes: &[u8], further: impl Fn(&Vif) -> Result<(), Fault>) -> Result<Record, Refused> {
    let unreadable = |reason: String| Refused { vif: None, generation: None, field: String::new(), reason };
    if bytes.len() > MAX_BYTES {
        return Err(unreadable(format!("has {} bytes and may have {MAX_BYTES}", bytes.len())));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(unreadable("is empty".to_owned()));
    }
    // serde_json refuses more than 128 levels, so that nothing behind it needs a bound of its own.
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| unreadable(format!("is not valid JSON: {error}")))?;
    if value.get("versioned_object.name").is_some() && value.get("vif").is_none() {
        return Err(Refused {
            vif: read_id(&value),
            ..unreadable("is a bare os-vif object; it belongs under \"vif\", as {\"vif\": …}".into())
        });
    }
    let warnings = node::Warnings::default();
    let vif = decode::record(&value, &warnings);
    let checked = vif.and_then(|vif| {
        validate::check(&vif)?;
        further(&vif)?;
        validate::doubt(&vif, &warnings);
        Ok(vif)
    });
    match checked {
        Ok(vif) => Ok(Record { vif, warnings: warnings.into_list() }),
        Err(fault) => Err(Refused {
            vif: value.get("vif").and_then(read_id),
            generation: value.get("generation").and_then(Value::as_u64),
            field: fault.field,
            reason: fault.reason,
        }),
    }
}

/// The id of a VIF in either form, whatever else is wrong with it.
fn read_id(vif: &Value) -> Option<VifId> {
    vif.get("versioned_object.data").unwrap_or(vif).get("id")?.as_str()?.parse().ok()
}

/// The newest version of an os-vif object that is known, as (major, minor); every older one is too.
#[must_use]
pub fn newest_version(object: &str) -> Option<(u32, u32)> {
    shape::named(object)?.os_vif.map(|(_, minor)| (1, minor))
}
