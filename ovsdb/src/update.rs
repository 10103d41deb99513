//! Applying what a monitor reports to the rows we hold: pure, no I/O, and the only place that knows how
//! `update` (RFC 7047, 4.1.6), `update2` and `update3` (ovsdb-server(7), 4.1.14 and 4.1.16) differ.
//!
//! Differences are not idempotent. So an update that cannot be true of the rows we hold is an error, after
//! which the rows are worthless: the session drops them and the connection and starts over.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map as Object, Value};

use crate::schema::ColumnType;
use crate::table::{Layout, Row, TableLayout};
use crate::value::{Atom, Datum, DecodeError, Map, Set, Uuid, parse_uuid};

/// The rows of every declared table, by declared position of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    tables: Vec<BTreeMap<Uuid, Row>>,
}

impl Contents {
    /// No rows in as many tables as the layout has.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { tables: vec![BTreeMap::new(); layout.tables().len()] }
    }

    /// A row, by position of its table.
    #[must_use]
    pub fn get(&self, table: usize, uuid: Uuid) -> Option<&Row> {
        self.tables.get(table)?.get(&uuid)
    }

    /// All rows of a table.
    pub fn rows(&self, table: usize) -> impl Iterator<Item = (Uuid, &Row)> {
        self.tables.get(table).into_iter().flatten().map(|(uuid, row)| (*uuid, row))
    }
}

/// A row that an update touched: inserted, modified or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    /// Declared position of the table.
    pub table: usize,
    /// The row.
    pub uuid: Uuid,
}

/// The form of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<table-updates>`: old and new values in full (`monitor`).
    Values,
    /// `<table-updates2>`: differences (`monitor_cond`, `monitor_cond_since`).
    Differences,
}

/// An update that cannot be true of the rows we hold, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A row that is already there was inserted.
    #[error("insert of {table} row {uuid}, which is already there")]
    InsertOfKnown {
        /// Table.
        table: &'static str,
        /// Row.
        uuid: Uuid,
    },
    /// A row that is not there was modified.
    #[error("modification of {table} row {uuid}, which is not there")]
    ModifyOfUnknown {
        /// Table.
        table: &'static str,
        /// Row.
        uuid: Uuid,
    },
    /// A row that is not there was deleted.
    #[error("deletion of {table} row {uuid}, which is not there")]
    DeleteOfUnknown {
        /// Table.
        table: &'static str,
        /// Row.
        uuid: Uuid,
    },
    /// Not what the protocol or the schema says.
    #[error("undecodable update at {0}")]
    Undecodable(#[from] DecodeError),
}

/// Applies the JSON text of `<table-updates>` or `<table-updates2>` and tells which rows it touched.
///
/// Row by row: the rows of a whole database are never all there as JSON values at once.
///
/// # Errors
/// See [`UpdateError`]. The contents are then half changed and must be thrown away.
pub fn apply(contents: &mut Contents, layout: &Layout, form: Form, updates: &str) -> Result<Vec<Touched>, UpdateError> {
    let mut applying = Applying { contents, layout, form, touched: Vec::new(), error: None };
    let mut json = serde_json::Deserializer::from_str(updates);
    let result = Tables(&mut applying).deserialize(&mut json).and_then(|()| json.end());
    match (result, applying.error) {
        (Ok(()), None) => Ok(applying.touched),
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(DecodeError::new(error.to_string()).into()),
    }
}

/// An update being applied.
struct Applying<'a> {
    contents: &'a mut Contents,
    layout: &'a Layout,
    form: Form,
    touched: Vec<Touched>,
    /// What was wrong, since errors of serde's carry text only.
    error: Option<UpdateError>,
}

impl Applying<'_> {
    fn table(&self, name: &str) -> Result<usize, UpdateError> {
        let table = self.layout.tables().iter().position(|table| table.name() == name);
        Ok(table.ok_or_else(|| DecodeError::new("a table that is not monitored").within(name))?)
    }

    fn row(&mut self, table: usize, id: &str, change: &Value) -> Result<(), UpdateError> {
        let layout = &self.layout.tables()[table];
        let uuid = parse_uuid(id).map_err(|e| e.within(layout.name()))?;
        let rows = &mut self.contents.tables[table];
        let applied = match self.form {
            Form::Values => apply_values(rows, layout, uuid, change),
            Form::Differences => apply_differences(rows, layout, uuid, change),
        };
        self.touched.push(Touched { table, uuid });
        applied.map_err(|error| match error {
            UpdateError::Undecodable(e) => e.within(id).within(layout.name()).into(),
            other => other,
        })
    }

    fn failed<E: de::Error>(&mut self, error: UpdateError) -> E {
        self.error = Some(error);
        E::custom("see Applying::error")
    }
}

/// The object of tables.
struct Tables<'a, 'b>(&'a mut Applying<'b>);
/// The object of rows of the table at a position.
struct RowsOf<'a, 'b>(&'a mut Applying<'b>, usize);

impl<'de> DeserializeSeed<'de> for Tables<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}
impl<'de> DeserializeSeed<'de> for RowsOf<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tables<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tables")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut tables: A) -> Result<(), A::Error> {
        while let Some(name) = tables.next_key::<String>()? {
            let table = self.0.table(&name).map_err(|e| self.0.failed(e))?;
            tables.next_value_seed(RowsOf(self.0, table))?;
        }
        Ok(())
    }
}
impl<'de> Visitor<'de> for RowsOf<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of rows")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let Self(applying, table) = self;
        while let Some((id, change)) = rows.next_entry::<String, Value>()? {
            applying.row(table, &id, &change).map_err(|e| applying.failed(e))?;
        }
        Ok(())
    }
}

/// `<row-update>`: `old` and `new`; which of them is there tells insert, modify and delete apart.
fn apply_values(
    rows: &mut BTreeMap<Uuid, Row>,
    layout: &TableLayout,
    uuid: Uuid,
    change: &Value,
) -> Result<(), UpdateError> {
    let change = object(change, "a row update")?;
    match (change.contains_key("old"), change.get("new")) {
        (false, Some(new)) => insert(rows, layout, uuid, new),
        (true, Some(new)) => {
            let row = rows.get_mut(&uuid).ok_or(UpdateError::ModifyOfUnknown { table: layout.name(), uuid })?;
            for_each_column(layout, object(new, "a row")?, |at, ty, json| {
                row.cells_mut()[at] = decode_whole(json, ty)?;
                Ok(())
            })
        }
        (true, None) => delete(rows, layout, uuid),
        (false, None) => Err(DecodeError::new("expected a row update with old or new").into()),
    }
}

/// `<row-update2>`: exactly one of `initial`, `insert`, `delete`, `modify`.
fn apply_differences(
    rows: &mut BTreeMap<Uuid, Row>,
    layout: &TableLayout,
    uuid: Uuid,
    change: &Value,
) -> Result<(), UpdateError> {
    let members = object(change, "a row update")?;
    let mut members = members.iter();
    let (Some((kind, row)), None) = (members.next(), members.next()) else {
        return Err(DecodeError::expected("exactly one of initial, insert, delete and modify", change).into());
    };
    match kind.as_str() {
        "initial" | "insert" => insert(rows, layout, uuid, row),
        "delete" => delete(rows, layout, uuid),
        "modify" => {
            let known = rows.get_mut(&uuid).ok_or(UpdateError::ModifyOfUnknown { table: layout.name(), uuid })?;
            for_each_column(layout, object(row, "a row")?, |at, ty, json| {
                let difference = Datum::decode(json, ty.key, ty.value)?;
                let cell = &mut known.cells_mut()[at];
                *cell = apply_difference(cell, difference, ty);
                ty.check_len(cell.len())
            })
        }
        _ => Err(DecodeError::new(format!("an unknown kind of row update, \"{kind}\"")).into()),
    }
}

fn insert(rows: &mut BTreeMap<Uuid, Row>, layout: &TableLayout, uuid: Uuid, json: &Value) -> Result<(), UpdateError> {
    let mut row = layout.default_row();
    for_each_column(layout, object(json, "a row")?, |at, ty, json| {
        row.cells_mut()[at] = decode_whole(json, ty)?;
        Ok(())
    })?;
    match rows.insert(uuid, row) {
        None => Ok(()),
        Some(_) => Err(UpdateError::InsertOfKnown { table: layout.name(), uuid }),
    }
}

fn delete(rows: &mut BTreeMap<Uuid, Row>, layout: &TableLayout, uuid: Uuid) -> Result<(), UpdateError> {
    match rows.remove(&uuid) {
        Some(_) => Ok(()),
        None => Err(UpdateError::DeleteOfUnknown { table: layout.name(), uuid }),
    }
}

fn for_each_column(
    layout: &TableLayout,
    row: &Object<String, Value>,
    mut each: impl FnMut(usize, &ColumnType, &Value) -> Result<(), DecodeError>,
) -> Result<(), UpdateError> {
    for (name, json) in row {
        let Some((at, ty)) = layout.column(name) else {
            return Err(DecodeError::new("a column that is not monitored").within(name).into());
        };
        each(at, ty, json).map_err(|e| e.within(name))?;
    }
    Ok(())
}

fn decode_whole(json: &Value, ty: &ColumnType) -> Result<Datum, DecodeError> {
    let datum = Datum::decode(json, ty.key, ty.value)?;
    ty.check_len(datum.len())?;
    Ok(datum)
}

fn object<'a>(json: &'a Value, what: &str) -> Result<&'a Object<String, Value>, DecodeError> {
    json.as_object().ok_or_else(|| DecodeError::expected(what, json))
}

/// What `update2` reports for a column that went from `old` to `new` (ovsdb-server(7), 4.1.14):
/// the new value of a column that holds at most one member; of a set the members in one but not in both;
/// of a map the pairs whose key is in one but not in both, and the new pair of keys whose value changed.
#[must_use]
pub fn difference(old: &Datum, new: &Datum, ty: &ColumnType) -> Datum {
    match (old, new) {
        _ if !ty.has_differences() => new.clone(),
        (Datum::Set(old), Datum::Set(new)) => Datum::Set(symmetric_difference(old.atoms(), new.atoms().to_vec())),
        (Datum::Map(old), Datum::Map(new)) => {
            let gone = old.pairs().iter().filter(|(key, _)| new.get(key).is_none());
            let new = new.pairs().iter().filter(|(key, value)| old.get(key) != Some(value));
            Datum::Map(Map::new(gone.chain(new).cloned().collect()))
        }
        // A column is a set or a map for good, so old and new are never of two kinds.
        (_, new) => new.clone(),
    }
}

/// The inverse of [`difference`]: the new value from the old one and the difference.
#[must_use]
pub fn apply_difference(old: &Datum, difference: Datum, ty: &ColumnType) -> Datum {
    match (old, difference) {
        (_, difference) if !ty.has_differences() => difference,
        (Datum::Set(old), Datum::Set(difference)) => {
            Datum::Set(symmetric_difference(old.atoms(), difference.into_atoms()))
        }
        (Datum::Map(old), Datum::Map(difference)) => {
            let kept = old.pairs().iter().filter(|(key, _)| difference.get(key).is_none()).cloned();
            // A pair that was there as it is has gone; any other is new or has a new value.
            let new = difference.pairs().iter().filter(|(key, value)| old.get(key) != Some(value)).cloned();
            Datum::Map(Map::new(kept.chain(new).collect()))
        }
        (_, difference) => difference,
    }
}

/// Members of one of two sorted sets but not of both, by one pass over each.
fn symmetric_difference(a: &[Atom], b: Vec<Atom>) -> Set {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let mut out = Vec::with_capacity(a.len() + b.len());
    let mut left = a.iter().peekable();
    let mut right = b.into_iter().peekable();
    while let (Some(x), Some(y)) = (left.peek(), right.peek()) {
        match (*x).cmp(y) {
            Less => out.extend(left.next().cloned()),
            Greater => out.extend(right.next()),
            Equal => {
                left.next();
                right.next();
            }
        }
    }
    out.extend(left.cloned());
    out.extend(right);
    Set::from_sorted(out)
}

#[cfg(test)]
mod tests {
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
            (
                Form::Values,
                vec![change(json!({}))],
                "undecodable update at Port/A: expected a row update with old or new",
            ),
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
            (
                Form::Differences,
                vec![json!({"Portal": {}})],
                "undecodable update at Portal: a table that is not monitored",
            ),
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
}
