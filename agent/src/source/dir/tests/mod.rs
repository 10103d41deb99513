//! Tests of the directory source: what its state machine concludes, and the source on a real directory.

mod on_disk;
mod on_shelf;

use std::sync::Arc;

use serde_json::Value;

use crate::model::{Policy, Vif, VifId, VifKind};
use crate::record::Refused;
use crate::source::Decode;

/// The `n`th VIF id.
pub(super) fn id(n: u32) -> VifId {
    format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
}

/// A VIF of which nothing but the identity and the generation matters.
pub(super) fn vif(n: u32, generation: u64) -> Vif {
    Vif {
        id: id(n),
        generation,
        address: None,
        active: true,
        preserve_on_delete: false,
        has_traffic_filtering: false,
        plugin: None,
        kind: VifKind::Generic { vif_name: format!("tap{n}") },
        profile: None,
        network: None,
        instance: None,
        policy: Policy::default(),
        parent: None,
    }
}

/// The record of that VIF, for [`decode`].
pub(super) fn record(n: u32, generation: u64) -> String {
    serde_json::json!({"vif": {"id": id(n), "number": n}, "generation": generation}).to_string()
}

/// Reads what [`record`] writes. What records really are is tested where they are read.
pub(super) fn decode() -> Decode {
    Arc::new(|bytes| {
        let refused = |field: &str, reason: &str| Refused {
            vif: None,
            generation: None,
            field: field.into(),
            reason: reason.into(),
        };
        let record: Value = serde_json::from_slice(bytes).map_err(|_| refused("", "is not JSON"))?;
        let number = record["vif"]["number"].as_u64().ok_or_else(|| refused("vif.number", "missing"))?;
        let generation = record["generation"].as_u64().ok_or_else(|| refused("generation", "missing"))?;
        Ok(vif(u32::try_from(number).unwrap(), generation))
    })
}
