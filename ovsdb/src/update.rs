//! Applying what a monitor reports to the rows we hold: pure, no I/O, and the only place that knows how
//! `update` (RFC 7047, 4.1.6), `update2` and `update3` (ovsdb-server(7), 4.1.14 and 4.1.16) differ.
//!
//! Differences are not idempotent. So an update that cannot be true of the rows we hold is an error, after
//! which the rows are worthless: the session drops them and the connection and starts over.

#[cfg(test)]
mod tests;

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

    /// How many rows there are in all tables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    Undecodable(DecodeError),
}

/// Not as its source: what is wrong is said already.
impl From<DecodeError> for UpdateError {
    fn from(error: DecodeError) -> Self {
        Self::Undecodable(error)
    }
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
