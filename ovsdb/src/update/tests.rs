//! Updates as they come over the wire, those that cannot be, and the laws of differences.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::annotated;
use crate::schema::DatabaseSchema;
use crate::table::{Table, TableDecl};
use crate::value::AtomType;
use crate::vswitch::{Interface, Port};

const TABLES: &[TableDecl] = &[Port::DECL, Interface::DECL];
const PORT: usize = 0;
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

fn port(contents: &Contents, id: &str) -> Port {
    Port::decode(uuid(id), contents.get(PORT, uuid(id)).unwrap()).unwrap()
}

fn apply_all(form: Form, updates: &[Value]) -> Result<Contents, UpdateError> {
    let layout = layout();
    let mut contents = Contents::new(&layout);
    for update in updates {
        apply(&mut contents, &layout, form, &update.to_string())?;
    }
    Ok(contents)
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
    let contents = apply_all(Form::Differences, &[initial, modify]).unwrap();
    let a = port(&contents, A);
    assert_eq!(a.name, "tap0");
    assert_eq!(a.interfaces, [uuid(I), uuid(J)].into());
    assert_eq!(a.tag, None);
    assert_eq!(a.trunks, [1, 3, 4].into());
    assert_eq!(a.vlan_mode.as_deref(), Some("trunk"));
    assert_eq!(a.external_ids, BTreeMap::from([("b".into(), "3".into()), ("c".into(), "4".into())]));
    assert_eq!(contents.get(PORT, uuid(B)), None);
    assert_eq!(contents.rows(PORT).count(), 1);
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
    let contents = apply_all(Form::Values, std::slice::from_ref(&begin)).unwrap();
    assert_eq!(port(&contents, A).tag, Some(5));
    let contents = apply_all(Form::Values, &[begin.clone(), modify.clone()]).unwrap();
    assert_eq!(port(&contents, A).tag, Some(6));
    let contents = apply_all(Form::Values, &[begin, modify, delete]).unwrap();
    assert_eq!(contents.rows(PORT).count(), 0);
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
            "undecodable update at Port/A: expected exactly one of initial, insert, delete and modify, found an object of 0",
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
            "undecodable update at Port/A/tag: 2 members where the schema allows 0 to 1",
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
            "undecodable update at invalid type: sequence, expected an object of rows at line 1 column 8",
        ),
    ];
    for (form, updates, expected) in cases {
        let error = apply_all(form, &updates).unwrap_err().to_string();
        assert_eq!(error.replace(A, "A"), expected, "{updates:?}");
    }
}

/// A column type and values that fit it.
fn columns() -> impl Strategy<Value = (ColumnType, Datum, Datum)> {
    let atom = || (-4_i64..4).prop_map(Atom::Integer);
    let value = || (0_i64..3).prop_map(Atom::Integer);
    let set = |max: usize| prop::collection::vec(atom(), 0..=max).prop_map(|a| Datum::Set(Set::new(a)));
    let map = || prop::collection::vec((atom(), value()), 0..6).prop_map(|p| Datum::Map(Map::new(p)));
    let ty = |value, max| ColumnType { key: AtomType::Integer, value, min: 0, max };
    prop_oneof![
        (set(6), set(6)).prop_map(move |(a, b)| (ty(None, None), a, b)),
        (set(1), set(1)).prop_map(move |(a, b)| (ty(None, Some(1)), a, b)),
        (map(), map()).prop_map(move |(a, b)| (ty(Some(AtomType::Integer), None), a, b)),
    ]
}

proptest! {
    #[test]
    fn a_difference_applied_gives_the_new_value((ty, old, new) in columns()) {
        prop_assert_eq!(apply_difference(&old, difference(&old, &new, &ty), &ty), new);
    }

    #[test]
    fn a_difference_is_empty_where_nothing_changed((ty, old, _) in columns()) {
        prop_assert!(!ty.has_differences() || difference(&old, &old, &ty).is_empty());
    }

    #[test]
    fn differences_of_sets_are_their_own_inverse((ty, old, new) in columns()) {
        if ty.value.is_none() && ty.has_differences() {
            prop_assert_eq!(difference(&old, &new, &ty), difference(&new, &old, &ty));
        }
    }

    #[test]
    fn hostile_updates_never_panic(text in r#"[\[\]{}":,a-z0-9 ]{0,60}"#, known in any::<bool>()) {
        let layout = layout();
        let mut contents = Contents::new(&layout);
        let text = if known { format!("{{\"Port\":{{\"{A}\":{{\"insert\":{{\"name\":{text}}}}}}}}}") } else { text };
        let _ = apply(&mut contents, &layout, Form::Differences, &text);
        let _ = apply(&mut contents, &layout, Form::Values, &text);
    }
}
