//! The table against os-vif's own word, and reading against the table: every object and field of it.
//! Records as os-vif writes them, and those that are refused, are in `tests/records.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::decode::{DEV_TYPES, DIRECT_MODES, DIRECTIONS, ETHERTYPES, VHOST_USER_MODES};
use super::node::Warnings;
use super::shape::{self, Family, Field, Kind, OBJECTS, Object};
use super::{Warning, decode, doubts, empty_groups, json_schema, to_native, validate};
use crate::model::{Protocol, Vif};

#[derive(Deserialize)]
struct Class {
    version: String,
    fields: BTreeMap<String, ClassField>,
}

#[derive(Deserialize)]
struct ClassField {
    #[serde(rename = "type")]
    kind: String,
    nullable: bool,
    since: u32,
}

/// What os-vif 5.3.0 says of its classes.
fn classes() -> BTreeMap<String, Class> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/fixtures/os-vif-objects.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What is hardly meant in a VIF.
fn doubts_of(vif: &Vif) -> Vec<Warning> {
    let warnings = Warnings::default();
    validate::doubt(vif, &warnings);
    warnings.into_list()
}

#[test]
fn a_policy_that_nobody_keeps_is_a_warning() {
    let told = |vif: Value| {
        let mut vif = vif;
        vif["id"] = json!("dc065497-3c8d-4f44-8fb4-e1d33c16a536");
        vif["address"] = json!("52:54:00:00:00:01");
        let record = json!({"vif": vif, "policy": {"rules": [], "rate": {"egress_kbps": 1000}}});
        let warnings = decode(record.to_string().as_bytes()).unwrap().warnings;
        warnings.into_iter().map(|warning| warning.field).collect::<Vec<_>>()
    };
    let bridge = json!({"type": "bridge", "bridge_name": "brq1", "network": {"bridge": "br-int"}});
    let mut hybrid = bridge.clone();
    hybrid["port_profile"] = json!({"type": "openvswitch"});
    assert_eq!(told(bridge), ["policy.rules", "policy.rate"]);
    assert_eq!(told(json!({"type": "direct", "vlan_name": "eth1"})), ["policy.rules", "policy.rate"]);
    assert!(told(hybrid).is_empty());
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let record = |id: u8, ip: &str| {
        let text = json!({
            "vif": {
                "type": "openvswitch", "id": format!("{id:08x}-0000-4000-8000-000000000000"),
                "address": format!("52:54:00:00:00:{id:02x}"), "vif_name": format!("tap{id}"),
                "network": {
                    "id": "b82c1929-051e-481d-8110-4669916c7915", "bridge": "br-int",
                    "subnets": [{"cidr": "10.0.0.5/24", "ips": [{"address": ip}, {"address": "10.9.0.1"}, {"address": ip}]}],
                },
                "port_profile": {"type": "openvswitch"},
            },
            "policy": {
                "allowed_address_pairs": [{"ip": "10.1.0.1/16"}, {"ip": "10.2.0.0/16"}],
                "rules": [
                    {"direction": "ingress", "remote_ip_prefix": "10.3.0.1/24"},
                    {"direction": "ingress", "remote_group": "web"},
                ],
            },
        });
        decode(text.to_string().as_bytes()).unwrap()
    };
    let one = record(1, "10.0.0.7");
    let told: Vec<String> = one.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "vif.network.subnets[0].cidr: 10.0.0.5/24 is an address; its subnet is 10.0.0.0/24",
            "vif.network.subnets[0].ips[1].address: 10.9.0.1 is not in 10.0.0.0/24, the subnet's cidr",
            "vif.network.subnets[0].ips[2].address: 10.0.0.7 is there twice",
            "policy.allowed_address_pairs[0].ip: 10.1.0.1/16 has bits behind its prefix; it is taken for 10.1.0.0/16",
            "policy.rules[0].remote_ip_prefix: 10.3.0.1/24 has bits behind its prefix; it is taken for 10.3.0.0/24",
        ]
    );
    let both = [one.vif, record(2, "10.0.0.8").vif].map(|vif| (vif.id, Arc::new(vif)));
    let told = doubts(&both.clone().into());
    let second: Vec<String> = told[&both[1].0].iter().map(ToString::to_string).collect();
    assert_eq!(
        second,
        [
            "vif.network.subnets[0].ips[1].address: VIF 00000001-0000-4000-8000-000000000000 has the address 10.9.0.1 on \
             this network, too",
        ]
    );
    let told: Vec<String> = empty_groups(&both.clone().into())[&both[1].0].iter().map(ToString::to_string).collect();
    assert_eq!(told, ["policy.rules[1].remote_group: none of these records has anybody in the group \"web\""]);
    let mut member = Vif::clone(&both[1].1);
    member.policy.groups.push("web".into());
    let told = empty_groups(&[both[0].clone(), (member.id, Arc::new(member))].into());
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn the_table_is_os_vifs() {
    let mut classes = classes();
    for object in OBJECTS {
        let Some((name, newest)) = object.os_vif else { continue };
        let class = classes.remove(name).unwrap_or_else(|| panic!("os-vif has no {name}"));
        assert_eq!(format!("1.{newest}"), class.version, "{name}");
        let ours: Vec<_> = {
            let mut names: Vec<_> = object.fields().map(|field| field.name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(ours, class.fields.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        for field in object.fields() {
            let theirs = &class.fields[field.name];
            assert_eq!(field.since, theirs.since, "{name}.{} since", field.name);
            assert_eq!(field.nullable, theirs.nullable, "{name}.{} nullable", field.name);
            let kinds: &[&str] = match field.kind {
                Kind::Text => &["StringField", "UUIDField"],
                Kind::Name | Kind::SocketPath => &["StringField"],
                Kind::Flag => &["BooleanField"],
                Kind::Uuid => &["UUIDField"],
                Kind::Mac => &["MACAddressField"],
                Kind::Pci | Kind::Function => &["PCIAddressField", "StringField"],
                Kind::Ip => &["IPAddressField"],
                Kind::Prefix => &["IPNetworkField"],
                Kind::Number(..) => &["IntegerField"],
                Kind::Word(_) => &["VIFDirectModeField", "VIFVHostUserModeField", "VIFHostDeviceDevTypeField"],
                Kind::Ips => &["ListOfIPAddressField"],
                Kind::Object(_) | Kind::List(..) => &["ObjectField"],
                Kind::AddressOrPrefix | Kind::Texts | Kind::Protocol | Kind::Members => &[],
            };
            assert!(kinds.contains(&theirs.kind.as_str()), "{name}.{} is a {}", field.name, theirs.kind);
        }
    }
    // Left over are the lists, the classes that are never instantiated, and what is not part of a record.
    let left: Vec<_> = classes.keys().map(String::as_str).collect();
    let hosts = ["HostInfo", "HostPluginInfo", "HostPortProfileInfo", "HostVIFInfo"];
    let mut known = vec!["DatapathOffloadBase", "FixedIPList", "RouteList", "SubnetList", "VIFBase"];
    known.extend(hosts);
    known.sort_unstable();
    assert_eq!(left, known);
}

#[test]
fn words_are_read_as_the_table_has_them() {
    fn words<T>(list: &[(&'static str, T)]) -> Vec<&'static str> {
        list.iter().map(|(word, _)| *word).collect()
    }
    for (object, field, read) in [
        ("VIFDirect", "mode", words(DIRECT_MODES)),
        ("VIFVHostUser", "mode", words(VHOST_USER_MODES)),
        ("VIFHostDevice", "dev_type", words(DEV_TYPES)),
    ] {
        let Kind::Word(table) = shape::named(object).unwrap().field(field).unwrap().kind else { panic!("{object}") };
        assert_eq!(read, table, "{object}");
    }
    let rule = shape::of(Family::Rule).next().unwrap();
    for (field, read) in [("direction", words(DIRECTIONS)), ("ethertype", words(ETHERTYPES))] {
        let Kind::Word(table) = rule.field(field).unwrap().kind else { panic!("{field}") };
        assert_eq!(read, table, "{field}");
    }
}

/// A value of every kind that is fine by itself, from a number that tells several apart.
fn sample(field: &Field, number: u64) -> Value {
    match field.kind {
        Kind::Text => json!(format!("text {number}")),
        Kind::Name => json!(format!("name{}", number % 1_000_000)),
        Kind::SocketPath => json!(format!("/run/vhost/{number}")),
        Kind::Flag => json!(number.is_multiple_of(2)),
        Kind::Uuid => json!(uuid::Uuid::from_u64_pair(number, number).to_string()),
        Kind::Mac => json!(format!("52-54-00-AB-{:02x}-{:02X}", number >> 8 & 255, number & 255)),
        Kind::Function if number.is_multiple_of(2) => {
            json!(format!("netdevsim/netdevsim{}:pf0vf{}", number & 255, number & 7))
        }
        Kind::Pci | Kind::Function => {
            json!(format!("{:05x}:{:02x}:{:02x}.{}", number & 0xf_ffff, number & 255, number & 31, number & 7))
        }
        Kind::Ip | Kind::AddressOrPrefix if number.is_multiple_of(2) => json!(format!("10.0.0.{}", number & 255)),
        Kind::Ip => json!(format!("fd00::{:x}", number & 0xffff)),
        Kind::Prefix | Kind::AddressOrPrefix => json!(format!("10.0.{}.0/24", number & 255)),
        Kind::Number(least, most) => json!(least + number % (most - least).saturating_add(1).max(1)),
        Kind::Word(words) => json!(words[usize::try_from(number).unwrap_or(0) % words.len()]),
        Kind::Ips => json!(["10.1.1.1", "fd00::1"]),
        Kind::Texts => json!([format!("text {number}"), "b"]),
        Kind::Protocol => [json!("tcp"), json!(17), json!("132")][usize::try_from(number % 3).unwrap()].clone(),
        Kind::Members => json!({ "group 1": ["10.0.0.1", "fd00::/64"], "group 2": [] }),
        Kind::Object(_) | Kind::List(..) => panic!("{} is made of objects", field.name),
    }
}

/// Chooses which optional fields there are, and their values.
struct Choice<'c> {
    choices: &'c [u64],
    at: usize,
}

impl Choice<'_> {
    fn next(&mut self) -> u64 {
        self.at += 1;
        self.choices[self.at % self.choices.len()].wrapping_mul(self.at as u64 | 1)
    }
}

/// The tag of an os-vif object in the native form.
fn tag(object: &str) -> &'static str {
    shape::named(object).unwrap().tag.unwrap()
}

/// Makes an object with all of its fields, or with some; in the native form or as os-vif writes it.
struct Maker<'c> {
    choice: Option<Choice<'c>>,
    made: u64,
    envelopes: bool,
    vif: &'static Object,
    profile: Option<&'static Object>,
}

impl Maker<'_> {
    fn object(&mut self, object: &'static Object) -> Value {
        let mut map = Map::new();
        for field in object.fields() {
            let needed = field.required || ["network", "address", "bridge_name"].contains(&field.name) || {
                ["bridge", "vlan", "bridge_interface", "dev_address", "mac", "port_profile"].contains(&field.name)
                    || ["protocol", "port_min"].contains(&field.name)
            };
            self.made += 1;
            let number = match &mut self.choice {
                None => self.made,
                Some(choice) => {
                    let number = choice.next();
                    if !needed && number.is_multiple_of(3) {
                        continue;
                    }
                    if !needed && number.is_multiple_of(5) {
                        map.insert(field.name.into(), Value::Null);
                        continue;
                    }
                    number
                }
            };
            let value = match field.kind {
                Kind::Object(family) => match self.pick(family) {
                    Some(object) => self.object(object),
                    None => continue,
                },
                Kind::List(family, name) => {
                    let list: Vec<_> = self.pick(family).into_iter().map(|object| self.object(object)).collect();
                    if self.envelopes && !name.is_empty() {
                        envelope(name, 0, &json!({ "objects": list }))
                    } else {
                        list.into()
                    }
                }
                // The one text field with a bound of its own.
                Kind::Flag if field.name == "create_tap" && tag("VIFOpenVSwitch") != self.vif.tag.unwrap() => {
                    false.into()
                }
                // What a rule's fields may be together.
                _ if object.family == Family::Rule => match field.name {
                    "ethertype" => json!("IPv4"),
                    "port_min" => json!(number % 1000),
                    "port_max" => json!(1000 + number % 1000),
                    "remote_ip_prefix" if number.is_multiple_of(2) => continue,
                    "remote_group" if map.get("remote_ip_prefix").is_some_and(Value::is_string) => continue,
                    _ => sample(field, number),
                },
                _ => sample(field, number),
            };
            map.insert(field.name.into(), value);
        }
        match object.os_vif {
            Some((name, newest)) if self.envelopes => envelope(name, newest, &map.into()),
            _ => {
                if let Some(tag) = object.tag {
                    map.insert("type".into(), tag.into());
                }
                map.into()
            }
        }
    }

    fn pick(&self, family: Family) -> Option<&'static Object> {
        match family {
            Family::Vif => Some(self.vif),
            Family::Profile => self.profile,
            _ => shape::of(family).next(),
        }
    }
}

fn envelope(name: &str, newest: u32, data: &Value) -> Value {
    json!({
        "versioned_object.name": name,
        "versioned_object.namespace": "os_vif",
        "versioned_object.version": format!("1.{newest}"),
        "versioned_object.changes": ["id"],
        "versioned_object.data": data,
    })
}

/// Every type with every profile that goes with it.
fn pairs() -> Vec<(&'static Object, Option<&'static Object>)> {
    let mut pairs = Vec::new();
    for vif in shape::of(Family::Vif) {
        let (profiles, may_be_without) = validate::profiles_of(vif.os_vif.unwrap().0);
        pairs.extend(profiles.iter().map(|profile| (vif, shape::named(profile))));
        if may_be_without {
            pairs.push((vif, None));
            pairs.push((vif, shape::named("VIFPortProfileBase")));
        }
    }
    pairs
}

fn record(vif: &'static Object, profile: Option<&'static Object>, choices: &[u64], envelopes: bool) -> Value {
    let choice = (!choices.is_empty()).then_some(Choice { choices, at: 0 });
    Maker { choice, made: 0, envelopes, vif, profile }.object(&OBJECTS[0])
}

fn read(record: &Value) -> Result<super::Record, super::Refused> {
    decode(record.to_string().as_bytes())
}

#[test]
fn every_field_of_every_pair_is_read_in_both_forms() {
    for (vif, profile) in pairs() {
        let native = record(vif, profile, &[], false);
        let from_native = read(&native).unwrap_or_else(|refused| panic!("{refused}\n{native:#}"));
        let from_os_vif = read(&record(vif, profile, &[], true)).unwrap();
        // The two fields that are not acted on in an os-vif object.
        assert!(!from_native.vif.active && from_native.vif.preserve_on_delete);
        let the_rest = Vif { active: true, preserve_on_delete: false, ..from_native.vif.clone() };
        assert_eq!(the_rest, from_os_vif.vif);
        // Nothing was passed over.
        assert_eq!(from_native.warnings, doubts_of(&from_native.vif));
        assert_eq!(from_os_vif.warnings, doubts_of(&from_os_vif.vif));
        // What was read is written again, so nothing was dropped.
        let written = to_native(&from_native.vif);
        let mut read = Vec::new();
        leaves(&native, "", &mut read);
        let mut back = Vec::new();
        leaves(&written, "", &mut back);
        let paths = |list: &[(String, Value)]| list.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&read), paths(&back));
    }
}

/// Every value that is neither object nor list of objects, with its path.
fn leaves(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
            }
        }
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_object) => {
            for (at, value) in list.iter().enumerate() {
                leaves(value, &format!("{path}[{at}]"), found);
            }
        }
        leaf => found.push((path.to_owned(), leaf.clone())),
    }
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('[', ".").replace(']', "").replace('.', "/"))
}

#[test]
fn a_value_of_the_wrong_type_is_refused_where_it_stands() {
    let mut tried = 0;
    for (vif, profile) in pairs() {
        let native = record(vif, profile, &[], false);
        let mut fields = Vec::new();
        leaves(&native, "", &mut fields);
        for (path, value) in fields {
            for wrong in [json!(true), json!(1.5), json!(-1), json!("\u{7}"), json!([[]]), json!({})] {
                if wrong.is_boolean() && value.is_boolean() {
                    continue;
                }
                let mut broken = native.clone();
                *broken.pointer_mut(&pointer(&path)).unwrap() = wrong.clone();
                let refused = read(&broken).expect_err(&path);
                assert!(refused.field.starts_with(&path), "{path}: {wrong} gave {refused}");
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn the_schema_has_every_object_and_refers_to_nothing_else() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                    found.push(name.strip_prefix("#/$defs/").unwrap().to_owned());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let schema = json_schema();
    let mut found = Vec::new();
    references(&schema, &mut found);
    found.sort_unstable();
    found.dedup();
    let defined: Vec<_> = schema["$defs"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(found, defined);
    let objects = OBJECTS.len() + OBJECTS.iter().filter(|object| object.os_vif.is_some()).count();
    assert_eq!(defined.len(), objects + ["SubnetList", "FixedIPList", "RouteList"].len());
}

/// As much of JSON Schema as ours uses, but for patterns and formats.
fn fits(schema: &Value, value: &Value, root: &Value) -> bool {
    let Value::Object(schema) = schema else { panic!("{schema} is no schema") };
    schema.iter().all(|(key, rule)| match key.as_str() {
        "$ref" => fits(root.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap(), value, root),
        "oneOf" => rule.as_array().unwrap().iter().filter(|schema| fits(schema, value, root)).count() == 1,
        "anyOf" => rule.as_array().unwrap().iter().any(|schema| fits(schema, value, root)),
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "null" => value.is_null(),
            other => panic!("{other}"),
        },
        "minimum" => value.as_u64() >= rule.as_u64(),
        "maximum" => value.as_u64() <= rule.as_u64(),
        "maxLength" => value.as_str().is_none_or(|text| text.len() as u64 <= rule.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|list| list.iter().all(|value| fits(rule, value, root))),
        "required" => {
            let names = rule.as_array().unwrap();
            value.as_object().is_none_or(|map| names.iter().all(|name| map.contains_key(name.as_str().unwrap())))
        }
        "properties" => value.as_object().is_none_or(|map| {
            map.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| fits(schema, value, root)))
        }),
        "additionalProperties" => {
            let known = schema.get("properties").unwrap_or(&Value::Null);
            let further = |value| rule.is_object() && fits(rule, value, root);
            value
                .as_object()
                .is_none_or(|map| map.iter().all(|(key, value)| known.get(key).is_some() || further(value)))
        }
        "$schema" | "$defs" | "title" | "description" | "pattern" | "format" => true,
        other => panic!("{other} is not checked here"),
    })
}

static SCHEMA: LazyLock<Value> = LazyLock::new(json_schema);

#[test]
fn the_schema_refuses_what_decoding_refuses() {
    let schema = &*SCHEMA;
    let (vif, profile) = pairs()[0];
    for envelopes in [false, true] {
        let good = record(vif, profile, &[], envelopes);
        assert!(fits(schema, &good, schema));
        let data = if envelopes { "/vif/versioned_object.data" } else { "/vif" };
        for (field, wrong) in
            [("id", Value::Null), ("vif_name", json!("a name that is too long")), ("active", json!(1))]
        {
            let mut bad = good.clone();
            bad.pointer_mut(data).unwrap()[field] = wrong;
            assert!(!fits(schema, &bad, schema), "{field}");
            assert!(read(&bad).is_err(), "{field}");
        }
        let mut unknown = good.clone();
        unknown.pointer_mut(data).unwrap()["color"] = json!("red");
        // os-vif's objects may carry what we do not know, our own may not.
        assert_eq!(fits(schema, &unknown, schema), envelopes);
        assert_eq!(read(&unknown).is_ok(), envelopes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any choice of fields in either form is read, fits the schema, and is the same after being written.
    #[test]
    fn what_is_written_is_read_back(
        pair in select(pairs()), choices in prop::collection::vec(any::<u64>(), 97), envelopes: bool,
    ) {
        let (vif, profile) = pair;
        let record = record(vif, profile, &choices, envelopes);
        let schema = &*SCHEMA;
        prop_assert!(fits(schema, &record, schema), "{record:#}");
        let first = read(&record).map_err(|refused| TestCaseError::fail(format!("{refused}\n{record:#}")))?;
        let written = to_native(&first.vif);
        prop_assert!(fits(schema, &written, schema), "{written:#}");
        let second = read(&written).map_err(|refused| TestCaseError::fail(format!("{refused}\n{written:#}")))?;
        prop_assert_eq!(second.warnings, doubts_of(&second.vif));
        prop_assert_eq!(second.vif, first.vif);
    }

    /// Whatever is done to a record, reading it ends in a VIF or in a refusal that says something.
    #[test]
    fn broken_records_are_refused_and_never_panic(
        pair in select(pairs()), envelopes: bool, cut: Option<Index>,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
    ) {
        let mut bytes = record(pair.0, pair.1, &[], envelopes).to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(refused) = decode(&bytes) {
            prop_assert!(!refused.reason.is_empty() && refused.to_string().len() < 1000, "{refused}");
        }
    }

    #[test]
    fn any_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(decode(&bytes).is_err());
    }

    /// Whole values put in place of others reach further in than single bytes do.
    #[test]
    fn misplaced_values_never_panic(
        pair in select(pairs()), envelopes: bool, from: Index, to: Index,
    ) {
        let mut record = record(pair.0, pair.1, &[], envelopes);
        let mut paths = Vec::new();
        pointers(&record, String::new(), &mut paths);
        let value = record.pointer(&paths[from.index(paths.len())]).unwrap().clone();
        *record.pointer_mut(&paths[to.index(paths.len())]).unwrap() = value;
        if let Err(refused) = read(&record) {
            prop_assert!(!refused.reason.is_empty(), "{refused}");
        }
    }
}

fn pointers(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, format!("{path}/{key}"), found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| pointers(value, format!("{path}/{at}"), found));
        }
        _ => {}
    }
    found.push(path);
}

/// The tables of `docs/records.md`.
fn tables() -> String {
    let mut text = String::new();
    let mut base_told = false;
    for object in OBJECTS {
        let title = match (object.tag, object.os_vif) {
            (Some(tag), Some((name, newest))) => format!("`{tag}`: {name} 1.{newest}"),
            (None, Some((name, newest))) => format!("{name} 1.{newest}"),
            _ => object.name().to_owned(),
        };
        let mut groups = object.groups;
        if object.family == Family::Vif {
            // All types begin with the fields of VIFBase, which are told once.
            let (base, own) = groups.split_first().unwrap();
            if !base_told {
                text += &table("Every VIF", "What all types have.", &[base]);
                base_told = true;
            }
            groups = own;
        }
        text += &table(&title, object.doc, groups);
    }
    text
}

fn table(title: &str, doc: &str, groups: &[&[Field]]) -> String {
    let mut text = format!("\n### {title}\n\n{doc}\n\n| Field | Value | os-vif | Meaning |\n|---|---|---|---|\n");
    for field in groups.iter().copied().flatten() {
        let value = match field.kind {
            Kind::Text => "text".into(),
            Kind::Name => "name".into(),
            Kind::SocketPath => "path".into(),
            Kind::Flag => "`true`, `false`".into(),
            Kind::Uuid => "UUID".into(),
            Kind::Mac => "MAC address".into(),
            Kind::Pci => "PCI address".into(),
            Kind::Function => "PCI address, or `BUS/DEV:FUNCTION`".into(),
            Kind::Ip => "IP address".into(),
            Kind::Prefix => "prefix".into(),
            Kind::AddressOrPrefix => "IP address or prefix".into(),
            Kind::Number(least, u64::MAX) => format!("number from {least}"),
            Kind::Number(least, most) => format!("{least} to {most}"),
            Kind::Word(words) => format!("`{}`", words.join("`, `")),
            Kind::Ips => "list of IP addresses".into(),
            Kind::Texts => "list of text".into(),
            Kind::Protocol => {
                let names = Protocol::NAMES.map(|(name, _)| format!("`{name}`"));
                format!("{}, 0 to 255", names.join(", "))
            }
            Kind::Members => "lists of IP addresses and prefixes, by name".into(),
            Kind::Object(family) => describe(family),
            Kind::List(family, _) => format!("list of {}", describe(family)),
        };
        let required = if field.required { ", needed" } else { "" };
        let since = if field.since > 0 { format!("1.{}", field.since) } else { String::new() };
        text += &format!("| `{}` | {value}{required} | {since} | {} |\n", field.name, field.doc);
    }
    text
}

fn describe(family: Family) -> String {
    match family {
        Family::Vif => "one of the types below".into(),
        Family::Profile => "one of the profiles below".into(),
        _ => shape::of(family).next().unwrap().name().to_owned(),
    }
}

/// `INSTA_UPDATE=always`, which renews the golden files, renews the tables too.
#[test]
fn the_documentation_has_every_field() {
    const MARK: &str = "<!-- from here on made by the test `the_documentation_has_every_field` -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/records.md");
    let text = fs::read_to_string(&path).unwrap();
    let (written, made) = text.split_once(MARK).unwrap();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|how| how == "always") {
        fs::write(path, format!("{written}{MARK}{}", tables())).unwrap();
    } else {
        assert!(made == tables(), "docs/records.md is not up to date: run the test with INSTA_UPDATE=always");
    }
    // The example of the native form is a record.
    let example = written.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(decode(example.as_bytes()).unwrap().warnings, []);
    // The table of pairs is `profiles_of`.
    for vif in shape::of(Family::Vif) {
        let row = written.lines().find(|line| line.starts_with(&format!("| `{}` |", vif.tag.unwrap()))).unwrap();
        let (profiles, may_be_without) = validate::profiles_of(vif.os_vif.unwrap().0);
        for profile in profiles {
            let named = row.contains(&format!("`{}`", tag(profile)));
            let in_the_group = profile.contains("OpenVSwitch") || profile.contains("OVSRepresentor");
            assert!(named || in_the_group && row.contains("any of the Open vSwitch ones"), "{row}: {profile}");
        }
        assert_eq!(row.contains("`base`"), may_be_without, "{row}");
    }
}
