//! Tests of the directory source: what its state machine concludes, and the source on a real directory.

mod on_disk;
mod on_shelf;

use std::sync::Arc;

use serde_json::Value;

use crate::model::{Policy, Vif, VifId, VifKind};
use crate::source::{Decode, Refusal};

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
        let refuse = |field: &str| Refusal { field: field.into(), reason: "missing".into() };
        let record: Value = serde_json::from_slice(bytes)
            .map_err(|error| Refusal { field: String::new(), reason: error.to_string() })?;
        let number = record["vif"]["number"].as_u64().ok_or_else(|| refuse("vif.number"))?;
        let generation = record["generation"].as_u64().ok_or_else(|| refuse("generation"))?;
        Ok(vif(u32::try_from(number).unwrap(), generation))
    })
}
