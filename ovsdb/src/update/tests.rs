//! Updates as they come over the wire, those that cannot be, and the laws of differences.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::annotated;
use crate::pairs::Pairs;
use crate::schema::{ColumnType, DatabaseSchema};
use crate::table::{ColumnValue, TableDecl, read_column};
use crate::value::{Datum, Map, Set};
use crate::vswitch::{Interface, Port};

const TABLES: &[TableDecl] = &[Port::DECL, Interface::DECL];
const A: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const B: &str = "bbbbbbbb-0000-4000-8000-00000000000b";
const I: &str = "11111111-0000-4000-8000-000000000001";
const J: &str = "22222222-0000-4000-8000-000000000002";

/// The columns of Port as Open vSwitch has them; Interface is left out, so nothing of it is checked.
fn layout() -> Layout {
    let optional = |ty: &str| json!({"type": {"key": ty, "min": 0}});
    let pairs = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
    let schema = json!({"name": "Open_vSwitch", "version": "8.3.1", "tables": {"Port": {"columns": {
        "name": {"type": "string"},
        "interfaces": {"type": {"key": {"type": "uuid", "refTable": "Interface"}, "min": 1, "max": "unlimited"}},
        "tag": optional("integer"),
        "trunks": {"type": {"key": "integer", "min": 0, "max": 4096}},
        "vlan_mode": optional("string"),
        "qos": optional("uuid"),
        "external_ids": pairs,
        "other_config": pairs,
    }}}});
    Layout::check(&DatabaseSchema::decode(&schema).unwrap(), &TABLES[..1]).unwrap()
}

fn uuid(text: &str) -> Uuid {
    parse_uuid(text).unwrap()
}

/// A replica of nothing but ports.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ports(Rows<Port>);

impl Replica for Ports {
    const DATABASE: &'static str = "Open_vSwitch";
    const TABLES: &'static [TableDecl] = TABLES;
    fn reset(&mut self, _: &Arc<Layout>) {
        *self = Self::default();
    }
    fn set<'de, D: Deserializer<'de>>(&mut self, _: usize, row: RowUpdate<'_, D>) -> Result<(), D::Error> {
        row.apply(&mut self.0).map(drop)
    }
    fn remove(&mut self, _: usize, uuid: Uuid) -> bool {
        self.0.take(uuid).is_some()
    }
}

impl Ports {
    fn port(&self, id: &str) -> &Port {
        self.0.get(&uuid(id)).unwrap()
    }

    fn apply(&mut self, layout: &Layout, form: Form, room: usize, text: &str) -> Result<Applied, UpdateError> {
        apply(self, layout, &mut Words::default(), form, room, text)
    }
}

fn apply_all(form: Form, updates: &[Value]) -> Result<Ports, UpdateError> {
    let layout = layout();
    let mut ports = Ports::default();
    for update in updates {
        ports.apply(&layout, form, 10, &update.to_string())?;
    }
    Ok(ports)
}

#[test]
fn differences_as_ovsdb_server_sends_them() {
    let initial = annotated::json(&format!(
        r#"{{
        "Port": {{
            "{A}": {{
                "initial": {{                            // rows there when the monitor begins
                    "name": "tap0",                      // a scalar
                    "interfaces": ["uuid", "{I}"],       // a set of one is its bare member
                    "tag": 5,                            // an optional scalar
                    "trunks": ["set", [1, 2, 3]],        // a set
                    "external_ids": ["map", [["a", "1"], ["b", "2"]]]
                }}                                       // vlan_mode, qos, …: left out, so their defaults
            }},
            "{B}": {{ "initial": {{ "name": "tap1", "interfaces": ["uuid", "{J}"] }} }}
        }}
    }}"#
    ));
    let modify = annotated::json(&format!(
        r#"{{
        "Port": {{
            "{A}": {{
                "modify": {{                             // columns that changed only
                    "interfaces": ["uuid", "{J}"],       // was not in the set: joins it
                    "tag": ["set", []],                  // at most one member: the new value, none
                    "trunks": ["set", [2, 4]],           // 2 was in the set: leaves; 4 was not: joins
                    "vlan_mode": "trunk",                // at most one member: the new value
                    "external_ids": ["map", [
                        ["a", "1"],                      // the very pair was there: leaves
                        ["b", "3"],                      // the key was there: has a new value
                        ["c", "4"]                       // was not there: joins
                    ]]
                }}
            }},
            "{B}": {{ "delete": null }}                  // a deleted row shows nothing of itself
        }}
    }}"#
    ));
    let ports = apply_all(Form::Differences, &[initial, modify]).unwrap();
    let a = ports.port(A);
    assert_eq!(&*a.name, "tap0");
    assert_eq!(a.interfaces, [uuid(I), uuid(J)].into());
    assert_eq!(a.tag, None);
    assert_eq!(a.trunks, [1, 3, 4].into());
    assert_eq!(a.vlan_mode.as_deref(), Some("trunk"));
    assert_eq!(a.external_ids, Pairs::from([("b", "3"), ("c", "4")]));
    assert_eq!(ports.0.keys().copied().collect::<Vec<_>>(), [uuid(A)]);
}

#[test]
fn values_as_rfc_7047_has_them() {
    let begin = annotated::json(&format!(
        r#"{{ "Port": {{ "{A}": {{
            "new": {{ "name": "tap0", "interfaces": ["uuid", "{I}"], "tag": 5 }} // no old: insert
        }} }} }}"#
    ));
    let modify = annotated::json(&format!(
        r#"{{ "Port": {{ "{A}": {{
            "old": {{ "tag": 5 }},                                             // what changed, before
            "new": {{ "name": "tap0", "interfaces": ["uuid", "{I}"], "tag": 6 }} // all of it, after
        }} }} }}"#
    ));
    let delete = annotated::json(&format!(
        r#"{{ "Port": {{ "{A}": {{ "old": {{ "name": "tap0" }} }} }} }}"# // no new: delete
    ));
    let ports = apply_all(Form::Values, std::slice::from_ref(&begin)).unwrap();
    assert_eq!(ports.port(A).tag, Some(5));
    let ports = apply_all(Form::Values, &[begin.clone(), modify.clone()]).unwrap();
    assert_eq!(ports.port(A).tag, Some(6));
    let ports = apply_all(Form::Values, &[begin, modify, delete]).unwrap();
    assert!(ports.0.is_empty());
}

#[test]
fn what_cannot_be_is_an_error() {
    let row = json!({"name": "x", "interfaces": ["uuid", I]});
    let change = |change: Value| json!({"Port": {A: change}});
    let insert = change(json!({"insert": row}));
    let values = |old: &Value, new: &Value| change(json!({"old": old, "new": new}));
    let cases = [
        (Form::Differences, vec![insert.clone(), insert.clone()], "insert of Port row A, which is already there"),
        (Form::Differences, vec![change(json!({"modify": {}}))], "modification of Port row A, which is not there"),
        (Form::Differences, vec![change(json!({"delete": null}))], "deletion of Port row A, which is not there"),
        (Form::Values, vec![values(&json!({}), &json!({}))], "modification of Port row A, which is not there"),
        (Form::Values, vec![change(json!({"old": {}}))], "deletion of Port row A, which is not there"),
        (Form::Values, vec![change(json!({}))], "undecodable update at Port/A: expected a row update with old or new"),
        (
            Form::Differences,
            vec![change(json!({}))],
            "undecodable update at Port/A: expected exactly one of initial, insert, delete and modify",
        ),
        (
            Form::Differences,
            vec![change(json!({"upsert": {}}))],
            "undecodable update at Port/A: an unknown kind of row update, \"upsert\"",
        ),
        (
            Form::Differences,
            vec![change(json!({"insert": {"name": 5}}))],
            "undecodable update at Port/A/name: expected string, found 5",
        ),
        (
            Form::Differences,
            vec![change(json!({"insert": {"nom": "x"}}))],
            "undecodable update at Port/A/nom: a column that is not monitored",
        ),
        (
            Form::Differences,
            vec![insert.clone(), change(json!({"modify": {"interfaces": ["uuid", I]}}))],
            "undecodable update at Port/A/interfaces: 0 members where the schema allows 1 to unlimited",
        ),
        (
            Form::Differences,
            vec![insert, change(json!({"modify": {"tag": ["set", [1, 2]]}}))],
            "undecodable update at Port/A/tag: 2 members where there is room for one",
        ),
        (Form::Differences, vec![json!({"Portal": {}})], "undecodable update at Portal: a table that is not monitored"),
        (
            Form::Differences,
            vec![json!({"Port": {"x": {}}})],
            "undecodable update at Port: expected a UUID, found \"x\"",
        ),
        (
            Form::Differences,
            vec![json!({"Port": []})],
            "undecodable update at Port: invalid type: sequence, expected an object of rows",
        ),
    ];
    for (form, updates, expected) in cases {
        let error = apply_all(form, &updates).unwrap_err().to_string().replace(A, "A");
        // The parser also says where in the text.
        assert_eq!(error.split(" at line ").next(), Some(expected), "{updates:?}");
    }
}

#[test]
fn there_are_no_more_rows_than_there_is_room_for() {
    let layout = layout();
    let row = |name: &str| json!({"insert": {"name": name, "interfaces": ["uuid", I]}});
    let two = json!({"Port": {A: row("a"), B: row("b")}}).to_string();
    let exchange = json!({"Port": {A: {"delete": null}, B: row("b")}}).to_string();
    let one = json!({"Port": {A: row("a")}}).to_string();
    let mut ports = Ports::default();
    assert_eq!(ports.clone().apply(&layout, Form::Differences, 1, &two), Err(UpdateError::TooManyRows(1)));
    let applied = ports.apply(&layout, Form::Differences, 1, &one).unwrap();
    assert_eq!(applied, Applied { inserted: 1, ..Applied::default() });
    let applied = ports.apply(&layout, Form::Differences, 0, &exchange).unwrap();
    assert_eq!(applied, Applied { inserted: 1, deleted: 1, modified: 0 });
}

/// What `update2` reports for a column that went from `old` to `new` (ovsdb-server(7), 4.1.14): of a set the members
/// in one but not in both; of a map the pairs whose key is in one but not in both, and the new pair of keys whose value
/// changed.
fn difference(old: &Datum, new: &Datum) -> Datum {
    match (old, new) {
        (Datum::Set(old), Datum::Set(new)) => {
            let (old, new) = (old.atoms(), new.atoms());
            let gone = old.iter().filter(|atom| !new.contains(atom));
            let come = new.iter().filter(|atom| !old.contains(atom));
            Datum::Set(Set::new(gone.chain(come).cloned().collect()))
        }
        (Datum::Map(old), Datum::Map(new)) => {
            let gone = old.pairs().iter().filter(|(key, _)| new.get(key).is_none());
            let new = new.pairs().iter().filter(|(key, value)| old.get(key) != Some(value));
            Datum::Map(Map::new(gone.chain(new).cloned().collect()))
        }
        _ => panic!("a column is a set or a map for good"),
    }
}

fn read<V: ColumnValue>(field: &mut V, form: ColumnForm, max: Option<usize>, datum: &Datum) {
    let ty = ColumnType { key: V::TYPE.key, value: V::TYPE.value, min: 0, max };
    let text = datum.to_json().to_string();
    let mut json = serde_json::Deserializer::from_str(&text);
    read_column(field, &ty, form, &mut json, &mut Words::default()).unwrap();
}

/// A column that went from `old` to `new` is `new` when the difference was read into what read as `old`.
fn follows<V: ColumnValue + std::fmt::Debug + PartialEq>(old: &V, new: &V) {
    let (from, to) = (old.to_datum(), new.to_datum());
    let mut field = V::empty();
    read(&mut field, ColumnForm::Whole, None, &from);
    assert_eq!(&field, old);
    read(&mut field, ColumnForm::Difference, None, &difference(&from, &to));
    assert_eq!(&field, new);
    // Where nothing changed the difference is empty, and changes nothing.
    read(&mut field, ColumnForm::Difference, None, &difference(&to, &to));
    assert_eq!(&field, new);
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[ab]{0,2}", "[xy]{0,2}", 0..6)
}

proptest! {
    #[test]
    fn a_difference_leads_to_the_new_value(
        sets in any::<[BTreeSet<i8>; 2]>(),
        maps in any::<[BTreeMap<i8, bool>; 2]>(),
        pairs in (texts(), texts()),
        optional in any::<[Option<i64>; 2]>(),
    ) {
        let [old, new] = sets.map(|set| set.into_iter().map(i64::from).collect::<BTreeSet<i64>>());
        follows(&old, &new);
        let [old, new] = maps.map(|map| map.into_iter().map(|(k, v)| (i64::from(k), v)).collect::<BTreeMap<_, _>>());
        follows(&old, &new);
        follows(&Pairs::from(pairs.0), &Pairs::from(pairs.1));
        // Of a column that holds one at most the new value comes whole, whatever was there.
        let [mut old, new] = optional;
        read(&mut old, ColumnForm::Difference, Some(1), &new.to_datum());
        prop_assert_eq!(old, new);
    }

    #[test]
    fn hostile_updates_never_panic(text in r#"[\[\]{}":,a-z0-9 ]{0,60}"#, known in any::<bool>()) {
        let layout = layout();
        let text = if known { format!("{{\"Port\":{{\"{A}\":{{\"insert\":{{\"name\":{text}}}}}}}}}") } else { text };
        let _ = Ports::default().apply(&layout, Form::Differences, 5, &text);
        let _ = Ports::default().apply(&layout, Form::Values, 5, &text);
    }
}
