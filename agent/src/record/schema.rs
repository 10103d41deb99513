//! The JSON Schema of records, made from the table in [`super::shape`]. It is for editors and for those who
//! write records; `decode` is the judge, and knows more.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::model::Protocol;

use super::shape::{self, Family, Field, Kind, OBJECTS, Object};

/// The schema of a record in both forms (JSON Schema 2020-12).
#[must_use]
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let mut lists = BTreeSet::new();
    for object in OBJECTS {
        definitions.insert(native_name(object), native(object));
        if let Some((name, newest)) = object.os_vif {
            definitions.insert(name.to_owned(), envelope(name, newest, &object_data(object), object.doc));
        }
        for field in object.fields() {
            if let Kind::List(family, name) = field.kind
                && !name.is_empty()
                && lists.insert(name)
            {
                let objects = json!({ "type": "array", "items": any_of(family) });
                let data = json!({ "type": "object", "properties": { "objects": objects } });
                definitions.insert(name.to_owned(), envelope(name, 0, &data, "A list of objects."));
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A record of vifd",
        "$ref": "#/$defs/record",
        "$defs": definitions,
    })
}

/// The name of a native definition. os-vif's objects begin with capital letters, so that none is taken twice.
fn native_name(object: &Object) -> String {
    match (object.family, object.tag) {
        (Family::Vif, Some(tag)) => format!("vif_{tag}"),
        (Family::Profile, Some(tag)) => format!("port_profile_{tag}"),
        (Family::Offload, _) => "datapath_offload".into(),
        (Family::Network, _) => "network".into(),
        (Family::Subnet, _) => "subnet".into(),
        (Family::FixedIp, _) => "fixed_ip".into(),
        (Family::Route, _) => "route".into(),
        (Family::Instance, _) => "instance".into(),
        _ => object.name().replace(' ', "_"),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// Every form of every object that may stand where `family` is wanted.
fn any_of(family: Family) -> Value {
    let forms: Vec<_> = shape::of(family)
        .flat_map(|object| {
            let in_envelope = object.os_vif.map(|(name, _)| reference(name));
            std::iter::once(reference(&native_name(object))).chain(in_envelope)
        })
        .collect();
    match <[Value; 1]>::try_from(forms) {
        Ok([only]) => only,
        // The forms exclude each other: by `type`, by `versioned_object.name`, and envelopes have keys that
        // no native object has.
        Err(forms) => json!({ "oneOf": forms }),
    }
}

fn native(object: &Object) -> Value {
    let mut properties = properties(object, true);
    let mut required = required(object);
    if let Some(tag) = object.tag {
        properties.insert("type".into(), json!({ "const": tag }));
        required.insert(0, "type");
    }
    let mut schema = json!({
        "type": "object",
        "description": object.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn object_data(object: &Object) -> Value {
    let mut data = json!({ "type": "object", "properties": properties(object, false) });
    let required = required(object);
    if !required.is_empty() {
        data["required"] = json!(required);
    }
    data
}

/// An os-vif object around `data`. Unknown fields are allowed in it, as they are passed over with a warning.
fn envelope(name: &str, newest: u32, data: &Value, doc: &str) -> Value {
    let versions: Vec<_> = (0..=newest).map(|minor| format!("1.{minor}")).collect();
    json!({
        "type": "object",
        "description": format!("{doc} As os-vif serializes it."),
        "properties": {
            "versioned_object.name": { "const": name },
            "versioned_object.namespace": { "const": "os_vif" },
            "versioned_object.version": { "enum": versions },
            "versioned_object.data": data,
            "versioned_object.changes": { "type": "array", "items": { "type": "string" } },
        },
        "required": [
            "versioned_object.name",
            "versioned_object.namespace",
            "versioned_object.version",
            "versioned_object.data",
        ],
    })
}

fn required(object: &Object) -> Vec<&'static str> {
    object.fields().filter(|field| field.required).map(|field| field.name).collect()
}

fn properties(object: &Object, native: bool) -> Map<String, Value> {
    object.fields().map(|field| (field.name.to_owned(), property(field, native))).collect()
}

fn property(field: &Field, native: bool) -> Value {
    let kind = kind(field);
    // Null and absent are one, but for what is required.
    let mut schema = if field.required { kind } else { json!({ "anyOf": [kind, { "type": "null" }] }) };
    let since = if native || field.since == 0 { String::new() } else { format!(" Since 1.{}.", field.since) };
    schema["description"] = format!("{}{since}", field.doc).into();
    schema
}

fn kind(field: &Field) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let list = |items: Value| json!({ "type": "array", "items": items });
    match field.kind {
        Kind::Text | Kind::Prefix | Kind::Ip | Kind::AddressOrPrefix => json!({ "type": "string" }),
        Kind::Name => json!({ "type": "string", "maxLength": 15, "pattern": "^[^/:%\\s]*$" }),
        Kind::SocketPath => json!({ "type": "string", "maxLength": 107, "pattern": "^/" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Uuid => json!({ "type": "string", "format": "uuid" }),
        Kind::Mac => text("^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$"),
        Kind::Function => text(
            "^([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\\.[0-7]|[!-.0-9;-~]+/[!-.0-~]+:(c[0-9]+)?pf[0-9]+([vs]f[0-9]+)?)$",
        ),
        Kind::Pci => text("^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\\.[0-7]$"),
        // The MTU may be 0 for none; see `decode`.
        Kind::Number(least, most) if field.name == "mtu" => {
            json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, { "const": 0 }] })
        }
        Kind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Ips | Kind::Texts => list(json!({ "type": "string" })),
        Kind::Protocol => {
            let names = Protocol::NAMES.map(|(name, _)| name);
            let number = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
            json!({ "anyOf": [{ "enum": names }, number, { "type": "string", "pattern": "^[0-9]{1,3}$" }] })
        }
        Kind::Members => {
            let members = json!({ "anyOf": [list(json!({ "type": "string" })), { "type": "null" }] });
            json!({ "type": "object", "additionalProperties": members })
        }
        Kind::Object(family) => any_of(family),
        Kind::List(family, "") => list(any_of(family)),
        Kind::List(family, name) => json!({ "oneOf": [list(any_of(family)), reference(name)] }),
    }
}
