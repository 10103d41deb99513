//! Applying what a monitor reports to a replica: pure, no I/O, and the only place that knows how `update` (RFC 7047,
//! 4.1.6), `update2` and `update3` (ovsdb-server(7), 4.1.14 and 4.1.16) differ.
//!
//! The text is read once, and each value straight into the field that it is for: a whole database never is there in
//! another form beside the replica's. Differences are not idempotent. So an update that cannot be true of the rows we
//! hold is an error, after which the replica is worthless: the session drops it and the connection and starts over.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde::Deserialize as _;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::replica::{Replica, Rows};
use crate::table::{ColumnForm, Layout, Table, TableLayout};
use crate::value::{DecodeError, Uuid, clip, parse_uuid};
use crate::words::Words;

/// The form of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<table-updates>`: old and new values in full (`monitor`).
    Values,
    /// `<table-updates2>`: differences (`monitor_cond`, `monitor_cond_since`).
    Differences,
}

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that came.
    pub inserted: usize,
    /// Rows that are others.
    pub modified: usize,
    /// Rows that went.
    pub deleted: usize,
}

impl Applied {
    /// Whether it did anything.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
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
    /// More rows than there may be.
    #[error("more than {0} rows")]
    TooManyRows(usize),
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

/// Applies the JSON text of `<table-updates>` or `<table-updates2>`, which may leave at most `room` rows more than there
/// are.
///
/// # Errors
/// See [`UpdateError`]. The replica is then half changed and must be thrown away.
pub fn apply<R: Replica>(
    replica: &mut R,
    layout: &Layout,
    words: &mut Words,
    form: Form,
    room: usize,
    updates: &str,
) -> Result<Applied, UpdateError> {
    let progress = Progress { place: Place::default(), applied: Applied::default(), room, error: None };
    let mut applying = Applying { replica, layout, words, form, progress };
    let mut json = serde_json::Deserializer::from_str(updates);
    let result = Tables(&mut applying).deserialize(&mut json).and_then(|()| json.end());
    let Progress { place, applied, error, .. } = applying.progress;
    match (result, error) {
        (Ok(()), None) => Ok(applied),
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(place.locate(DecodeError::new(error.to_string())).into()),
    }
}

/// Where in an update we are.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    table: Option<&'static str>,
    row: Option<Uuid>,
    column: Option<&'static str>,
}

impl Place {
    fn locate(self, error: DecodeError) -> DecodeError {
        let error = self.column.into_iter().fold(error, DecodeError::within);
        let error = self.row.into_iter().fold(error, |error, row| error.within(&row.to_string()));
        self.table.into_iter().fold(error, DecodeError::within)
    }
}

/// How far an update has come.
struct Progress {
    place: Place,
    applied: Applied,
    room: usize,
    /// What was wrong, since errors of serde's carry text only.
    error: Option<UpdateError>,
}

impl Progress {
    fn failed<E: de::Error>(&mut self, error: UpdateError) -> E {
        self.error = Some(error);
        E::custom("see Progress::error")
    }

    fn undecodable<E: de::Error>(&mut self, error: DecodeError) -> E {
        let error = self.place.locate(error);
        self.failed(error.into())
    }
}

/// An update being applied.
struct Applying<'a, R> {
    replica: &'a mut R,
    layout: &'a Layout,
    words: &'a mut Words,
    form: Form,
    progress: Progress,
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Insert,
    Modify(ColumnForm),
    Delete,
}

/// A row that comes or changes, with its columns still to be read. Only [`apply`] makes one.
pub struct RowUpdate<'u, D> {
    progress: &'u mut Progress,
    words: &'u mut Words,
    layout: &'u TableLayout,
    uuid: Uuid,
    kind: Kind,
    columns: D,
}

impl<'de, D: Deserializer<'de>> RowUpdate<'_, D> {
    /// The row's identity.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Reads the row and puts it among the `rows` of its table. Gives the one that was there.
    ///
    /// # Errors
    /// When it cannot be true of these rows, or cannot be read.
    pub fn apply<T: Table>(self, rows: &mut Rows<T>) -> Result<Option<Arc<T>>, D::Error> {
        let Self { progress, words, layout, uuid, kind, columns } = self;
        let old = rows.get(&uuid);
        let (mut row, form) = match (kind, old) {
            (Kind::Modify(form), Some(old)) => (T::clone(old), form),
            (Kind::Insert, None) => {
                let row = layout.default_row(uuid).map_err(|error| progress.undecodable::<D::Error>(error))?;
                (row, ColumnForm::Whole)
            }
            (Kind::Modify(_), None) => {
                return Err(progress.failed(UpdateError::ModifyOfUnknown { table: layout.name(), uuid }));
            }
            (Kind::Insert | Kind::Delete, _) => {
                return Err(progress.failed(UpdateError::InsertOfKnown { table: layout.name(), uuid }));
            }
        };
        columns.deserialize_map(Columns { row: &mut row, progress, words, layout, form })?;
        match kind {
            Kind::Insert if progress.applied.inserted >= progress.room + progress.applied.deleted => {
                return Err(progress.failed(UpdateError::TooManyRows(progress.room)));
            }
            Kind::Insert => progress.applied.inserted += 1,
            Kind::Modify(_) | Kind::Delete => progress.applied.modified += 1,
        }
        Ok(rows.put(uuid, Arc::new(row)))
    }

    /// The replica has no table at this position.
    pub fn unknown_table(self) -> D::Error {
        self.progress.undecodable(DecodeError::new("a table that is not declared"))
    }
}

/// The columns of one row.
struct Columns<'u, T> {
    row: &'u mut T,
    progress: &'u mut Progress,
    words: &'u mut Words,
    layout: &'u TableLayout,
    form: ColumnForm,
}

impl<'de, T: Table> Visitor<'de> for Columns<'_, T> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut columns: A) -> Result<(), A::Error> {
        let Self { row, progress, words, layout, form } = self;
        while let Some(found) = columns.next_key_seed(Name(|name: &str| {
            layout.column(name).ok_or_else(|| DecodeError::new("a column that is not monitored").within(name))
        }))? {
            let (place, name, ty) = found.map_err(|error| progress.undecodable::<A::Error>(error))?;
            progress.place.column = Some(name);
            columns.next_value_seed(Cell { row: &mut *row, place, ty, form, words: &mut *words })?;
            progress.place.column = None;
        }
        Ok(())
    }
}

/// The value of one column.
struct Cell<'u, T> {
    row: &'u mut T,
    place: usize,
    ty: &'u crate::schema::ColumnType,
    form: ColumnForm,
    words: &'u mut Words,
}

impl<'de, T: Table> DeserializeSeed<'de> for Cell<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        self.row.read(self.place, self.ty, self.form, json, self.words)
    }
}

/// The name of a member, looked up where it stands.
struct Name<F>(F);

impl<'de, V, F: FnOnce(&str) -> V> DeserializeSeed<'de> for Name<F> {
    type Value = V;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<V, D::Error> {
        json.deserialize_str(self)
    }
}
impl<V, F: FnOnce(&str) -> V> Visitor<'_> for Name<F> {
    type Value = V;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<V, E> {
        Ok((self.0)(name))
    }
}

/// The object of tables.
struct Tables<'a, 'b, R>(&'a mut Applying<'b, R>);
/// The object of rows of the table at a position.
struct RowsOf<'a, 'b, R>(&'a mut Applying<'b, R>, usize);
/// What an update says of one row of the table at a position.
struct RowOf<'a, 'b, R>(&'a mut Applying<'b, R>, usize, Uuid);
/// The same, when it is known what happens to the row: its columns.
struct ColumnsOf<'a, 'b, R>(&'a mut Applying<'b, R>, usize, Uuid, Kind);

impl<'de, R: Replica> DeserializeSeed<'de> for Tables<'_, '_, R> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}
impl<'de, R: Replica> DeserializeSeed<'de> for RowsOf<'_, '_, R> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}
impl<'de, R: Replica> DeserializeSeed<'de> for RowOf<'_, '_, R> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}
impl<'de, R: Replica> DeserializeSeed<'de> for ColumnsOf<'_, '_, R> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, columns: D) -> Result<(), D::Error> {
        let Self(applying, table, uuid, kind) = self;
        let Applying { replica, layout, words, progress, .. } = applying;
        let layout = &layout.tables()[table];
        if kind == Kind::Delete {
            IgnoredAny::deserialize(columns)?;
            if !replica.remove(table, uuid) {
                return Err(progress.failed(UpdateError::DeleteOfUnknown { table: layout.name(), uuid }));
            }
            progress.applied.deleted += 1;
            return Ok(());
        }
        replica.set(table, RowUpdate { progress, words, layout, uuid, kind, columns })
    }
}

impl<'de, R: Replica> Visitor<'de> for Tables<'_, '_, R> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tables")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut tables: A) -> Result<(), A::Error> {
        let Self(applying) = self;
        let layout = applying.layout;
        while let Some(found) = tables.next_key_seed(Name(|name: &str| {
            let table = layout.tables().iter().position(|table| table.name() == name);
            table.ok_or_else(|| DecodeError::new("a table that is not monitored").within(name))
        }))? {
            let table = found.map_err(|error| applying.progress.undecodable::<A::Error>(error))?;
            applying.progress.place.table = Some(layout.tables()[table].name());
            tables.next_value_seed(RowsOf(&mut *applying, table))?;
            applying.progress.place.table = None;
        }
        Ok(())
    }
}

impl<'de, R: Replica> Visitor<'de> for RowsOf<'_, '_, R> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of rows")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let Self(applying, table) = self;
        while let Some(uuid) = rows.next_key_seed(Name(parse_uuid))? {
            let uuid = uuid.map_err(|error| applying.progress.undecodable::<A::Error>(error))?;
            applying.progress.place.row = Some(uuid);
            rows.next_value_seed(RowOf(&mut *applying, table, uuid))?;
            applying.progress.place.row = None;
        }
        Ok(())
    }
}

impl<'de, R: Replica> Visitor<'de> for RowOf<'_, '_, R> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row update")
    }
    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        match self.0.form {
            Form::Values => self.values(members),
            Form::Differences => self.differences(members),
        }
    }
}

impl<R: Replica> RowOf<'_, '_, R> {
    /// `<row-update2>`: exactly one of `initial`, `insert`, `delete`, `modify`.
    fn differences<'de, A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self(applying, table, uuid) = self;
        let kind = members.next_key_seed(Name(|name: &str| match name {
            "initial" | "insert" => Ok(Kind::Insert),
            "modify" => Ok(Kind::Modify(ColumnForm::Difference)),
            "delete" => Ok(Kind::Delete),
            _ => Err(DecodeError::new(format!("an unknown kind of row update, \"{}\"", clip(name, 100)))),
        }))?;
        let one_of = || DecodeError::new("expected exactly one of initial, insert, delete and modify");
        let kind = kind.unwrap_or_else(|| Err(one_of()));
        let kind = kind.map_err(|error| applying.progress.undecodable::<A::Error>(error))?;
        members.next_value_seed(ColumnsOf(&mut *applying, table, uuid, kind))?;
        match members.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(applying.progress.undecodable(one_of())),
        }
    }

    /// `<row-update>`: `old` and `new`; which of them is there tells insert, modify and delete apart. Either may
    /// come first, so `new` is kept as text until that is known.
    fn values<'de, A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self(applying, table, uuid) = self;
        let (mut old, mut new) = (false, None);
        while let Some(is_new) = members.next_key_seed(Name(|name: &str| match name {
            "old" => Some(false),
            "new" => Some(true),
            _ => None,
        }))? {
            match is_new {
                Some(true) => new = Some(members.next_value::<&'de RawValue>()?),
                Some(false) => {
                    members.next_value::<IgnoredAny>()?;
                    old = true;
                }
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        let (kind, columns) = match (old, new) {
            (false, Some(new)) => (Kind::Insert, new.get()),
            (true, Some(new)) => (Kind::Modify(ColumnForm::Whole), new.get()),
            (true, None) => (Kind::Delete, "null"),
            (false, None) => {
                let error = DecodeError::new("expected a row update with old or new");
                return Err(applying.progress.undecodable(error));
            }
        };
        let mut json = serde_json::Deserializer::from_str(columns);
        ColumnsOf(applying, table, uuid, kind).deserialize(&mut json).map_err(de::Error::custom)
    }
}
