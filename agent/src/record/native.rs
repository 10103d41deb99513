//! Writing a [`Vif`] as a record in the native form, which `decode` reads back as the same VIF.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Policy, Vif};

/// The record in the native form. What is not set is left out; what is off by default and off, too.
#[must_use]
pub fn to_native(vif: &Vif) -> Value {
    // The model serializes by the names of the native form, in the model's own grouping.
    let mut out = fields(&vif.kind);
    out.insert("id".into(), value(&vif.id));
    out.insert("address".into(), value(&vif.address));
    out.insert("active".into(), vif.active.into());
    out.insert("preserve_on_delete".into(), vif.preserve_on_delete.into());
    out.insert("has_traffic_filtering".into(), vif.has_traffic_filtering.into());
    out.insert("plugin".into(), value(&vif.plugin));
    out.insert("port_profile".into(), value(&vif.profile));
    out.insert("network".into(), value(&vif.network));

    let mut record = Map::new();
    record.insert("vif".into(), without_nulls(Value::Object(out)));
    if let Some(instance) = &vif.instance {
        record.insert("instance".into(), without_nulls(value(instance)));
    }
    if vif.policy != Policy::default() {
        record.insert("policy".into(), without_nulls(value(&vif.policy)));
    }
    if let Some(parent) = &vif.parent {
        record.insert("parent".into(), value(parent));
    }
    if vif.generation != 0 {
        record.insert("generation".into(), vif.generation.into());
    }
    Value::Object(record)
}

fn value(part: &impl Serialize) -> Value {
    // The model has neither maps with keys other than text nor serializers that fail.
    serde_json::to_value(part).unwrap_or_default()
}

fn fields(part: &impl Serialize) -> Map<String, Value> {
    match value(part) {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.into_iter().filter(|(_, value)| !value.is_null());
            set.map(|(key, value)| (key, without_nulls(value))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
