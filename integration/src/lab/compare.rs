//! What a host has, in a form in which two hosts can be compared: references are replaced by what
//! they refer to, and what differs from host to host by nature (ifindex, random MACs) is left out.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::links::shown_links;
use super::ovs::{Ovs, Row};

/// Columns that say what was asked for. The rest is what ovs-vswitchd found.
const BRIDGE: &[&str] = &["datapath_type", "fail_mode", "external_ids", "other_config"];
const PORT: &[&str] = &["tag", "vlan_mode", "trunks", "external_ids", "other_config"];
const INTERFACE: &[&str] = &["type", "options", "external_ids", "other_config", "mtu_request", "mac"];
const QOS: &[&str] = &["type", "external_ids", "other_config"];

/// Bridges with their ports, QoS rows, and links of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host(pub Value);

impl Host {
    /// Reads the host that an [`Ovs`] lives on. `links` says of each link what [`shown_links`] tells of it.
    ///
    /// # Errors
    /// When the database or `ip` do not answer.
    pub fn observe(ovs: &Ovs) -> Result<Host> {
        let interfaces = by_uuid(ovs.rows("Interface")?)?;
        let ports = by_uuid(ovs.rows("Port")?)?;
        let qos = by_uuid(ovs.rows("QoS")?)?;
        let mut bridges = Map::new();
        for bridge in ovs.rows("Bridge")? {
            let name = text(&bridge, "name");
            let mut shown = columns(&bridge, BRIDGE);
            let mut shown_ports = Map::new();
            for port in references(&bridge, "ports").filter_map(|uuid| ports.get(uuid)) {
                let mut shown = columns(port, PORT);
                let row = references(port, "qos").find_map(|uuid| qos.get(uuid));
                shown.insert("qos".into(), row.map_or(json!([]), |row| columns(row, QOS).into()));
                let interfaces = references(port, "interfaces")
                    .filter_map(|uuid| interfaces.get(uuid))
                    .map(|row| (text(row, "name"), Value::from(columns(row, INTERFACE))));
                shown.insert("interfaces".into(), interfaces.collect());
                shown_ports.insert(text(port, "name"), shown.into());
            }
            shown.insert("ports".into(), shown_ports.into());
            bridges.insert(name, shown.into());
        }
        // By os-vif's id of it; those that no port uses are here too: garbage that somebody left.
        let rows: Map<String, Value> = qos
            .values()
            .map(|row| {
                let id = &row["external_ids"]["id"];
                let key = id.as_str().unwrap_or_default().to_owned();
                (key, columns(row, QOS).into())
            })
            .collect();
        // ovs-vswitchd's own devices, those of bridges and of the userspace datapath, are left out.
        let links = shown_links(ovs.namespace(), |name| bridges.contains_key(name) || name.starts_with("ovs-"))?;
        Ok(Host(json!({"bridges": bridges, "qos": rows, "links": links})))
    }
}

/// Where `other` does not have what `model` has: one line for each place. Keys that `other` has
/// beyond those of `model` are no difference, except under `exact`, where nothing may be added.
#[must_use]
pub fn differences(model: &Value, other: &Value, exact: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    compare("", model, other, exact, &mut found);
    found
}

fn compare(path: &str, model: &Value, other: &Value, exact: &[&str], found: &mut Vec<String>) {
    if let (Value::Object(model), Value::Object(other)) = (model, other) {
        for (key, value) in model {
            let path = format!("{path}/{key}");
            match other.get(key) {
                Some(other) => compare(&path, value, other, exact, found),
                None => found.push(format!("{path}: {value} is missing")),
            }
        }
        if exact.iter().any(|suffix| path.ends_with(suffix)) {
            for (key, value) in other.iter().filter(|(key, _)| !model.contains_key(*key)) {
                found.push(format!("{path}/{key}: {value} should not be there"));
            }
        }
    } else if model != other {
        found.push(format!("{path}: {other} instead of {model}"));
    }
}

fn by_uuid(rows: Vec<Row>) -> Result<BTreeMap<String, Row>> {
    rows.into_iter()
        .map(|row| {
            let uuid = row.get("_uuid").and_then(Value::as_str);
            Ok((uuid.context("a row without its UUID")?.to_owned(), row))
        })
        .collect()
}

fn columns(row: &Row, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), row.get(*name)?.clone()))).collect()
}

fn text(row: &Row, column: &str) -> String {
    row.get(column).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The UUIDs in a column that holds one or a set of them.
fn references<'a>(row: &'a Row, column: &str) -> impl Iterator<Item = &'a str> {
    let value = row.get(column).unwrap_or(&Value::Null);
    let set = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    set.iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_keys_are_no_difference_unless_exact() {
        let model = json!({"ports": {"p": {"tag": []}}});
        let other = json!({"ports": {"p": {"tag": [], "more": 1}, "q": {}}});
        assert_eq!(differences(&model, &other, &[]), Vec::<String>::new());
        assert_eq!(differences(&model, &other, &["/ports"]), ["/ports/q: {} should not be there"]);
    }

    #[test]
    fn what_is_missing_or_other_is_named() {
        let model = json!({"a": {"b": 1, "c": [1]}});
        let other = json!({"a": {"c": [2]}});
        assert_eq!(differences(&model, &other, &[]), ["/a/b: 1 is missing", "/a/c: [2] instead of [1]"]);
    }
}
