//! The terms that operations are made of: references to rows, values, conditions, mutations. All of them
//! are typed by table and column, so that what does not fit does not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use serde_json::{Value, json};

use crate::pairs::Pairs;
use crate::table::{AtomValue, Column, ColumnValue};
use crate::text::Text;
use crate::value::{Atom, Datum, DecodeError, Real, Uuid};

/// A row that an earlier operation of the same transaction inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewRow {
    /// The operation.
    pub(crate) op: usize,
}

impl NewRow {
    pub(super) fn name(self) -> String {
        format!("row{}", self.op)
    }
}

/// A `select` of a transaction, to find its rows in the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    pub(crate) op: usize,
}

/// A row that is there or one that the same transaction inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowRef {
    /// By identity.
    Known(Uuid),
    /// By operation.
    New(NewRow),
}

impl RowRef {
    fn atom(self) -> Atom {
        match self {
            Self::Known(uuid) => Atom::Uuid(uuid),
            Self::New(row) => Atom::NamedUuid(row.name()),
        }
    }
}

impl From<Uuid> for RowRef {
    fn from(uuid: Uuid) -> Self {
        Self::Known(uuid)
    }
}
impl From<NewRow> for RowRef {
    fn from(row: NewRow) -> Self {
        Self::New(row)
    }
}

/// What may be written to a column of type `V`: a `V`, or something that reads better where one is written
/// out, or references to new rows where `V` holds UUIDs.
pub trait Assign<V> {
    /// The value to write.
    fn into_datum(self) -> Datum;
}

impl<V: ColumnValue> Assign<V> for V {
    fn into_datum(self) -> Datum {
        self.to_datum()
    }
}
impl<V: ColumnValue> Assign<V> for &V {
    fn into_datum(self) -> Datum {
        self.to_datum()
    }
}

macro_rules! assign {
    ($([$($generics:tt)*] $from:ty => $to:ty, |$x:ident| $datum:expr;)*) => { $(
        impl<$($generics)*> Assign<$to> for $from { fn into_datum(self) -> Datum { let $x = self; $datum } }
    )* };
}
assign! {
    [] &str => String, |s| Datum::from(s);
    [] &str => Option<String>, |s| Datum::from(s);
    [] String => Option<String>, |s| Datum::from(s);
    [] i64 => Option<i64>, |n| Datum::from(n);
    [] bool => Option<bool>, |b| Datum::from(b);
    [] Real => Option<Real>, |x| Datum::from(x);
    [const N: usize] [&str; N] => BTreeSet<String>, |members| Datum::set(members);
    [const N: usize] [i64; N] => BTreeSet<i64>, |members| Datum::set(members);
    [K: Into<String>, V: Into<String>, const N: usize] [(K, V); N] => BTreeMap<String, String>,
        |pairs| Datum::map(pairs.map(|(k, v)| (k.into(), v.into())));
    [] &str => Text, |s| Datum::from(s);
    [] String => Text, |s| Datum::from(s);
    [] &String => Text, |s| Datum::from(s.as_str());
    [] &str => Option<Text>, |s| Datum::from(s);
    [] String => Option<Text>, |s| Datum::from(s);
    [const N: usize] [&str; N] => BTreeSet<Text>, |members| Datum::set(members);
    [] BTreeSet<String> => BTreeSet<Text>, |members| Datum::set(members);
    [K: Into<String>, V: Into<String>, const N: usize] [(K, V); N] => Pairs,
        |pairs| Datum::map(pairs.map(|(k, v)| (k.into(), v.into())));
    [] BTreeMap<String, String> => Pairs, |pairs| Datum::map(pairs);
    [] &BTreeMap<String, String> => Pairs, |pairs| pairs.to_datum();
    [] NewRow => Uuid, |row| Datum::from(RowRef::from(row).atom());
    [] NewRow => Option<Uuid>, |row| Datum::from(RowRef::from(row).atom());
    [] Uuid => Option<Uuid>, |row| Datum::from(row);
    [] RowRef => Option<Uuid>, |row| Datum::from(row.atom());
    [] NewRow => BTreeSet<Uuid>, |row| Datum::from(RowRef::from(row).atom());
    [] Uuid => BTreeSet<Uuid>, |row| Datum::from(row);
    [] RowRef => BTreeSet<Uuid>, |row| Datum::from(row.atom());
    [R: Into<RowRef>, const N: usize] [R; N] => BTreeSet<Uuid>, |rows| Datum::set(rows.map(|row| row.into().atom()));
    [R: Into<RowRef>] Vec<R> => BTreeSet<Uuid>, |rows| Datum::set(rows.into_iter().map(|row| row.into().atom()));
    [R: Into<RowRef>] Vec<(i64, R)> => BTreeMap<i64, Uuid>,
        |rows| Datum::map(rows.into_iter().map(|(key, row)| (key, row.into().atom())));
}

/// Columns and values of a row of `T`, for inserts, updates and waits.
#[derive(Debug)]
pub struct Values<T> {
    cells: BTreeMap<&'static str, Datum>,
    table: PhantomData<fn() -> T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { cells: BTreeMap::new(), table: PhantomData }
    }
}
impl<T> Clone for Values<T> {
    fn clone(&self) -> Self {
        Self { cells: self.cells.clone(), table: PhantomData }
    }
}

impl<T> Values<T> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a column.
    #[must_use]
    pub fn with<V>(mut self, column: Column<T, V>, value: impl Assign<V>) -> Self {
        self.set(column, value);
        self
    }

    /// Sets a column, where the values are not known in one expression.
    pub fn set<V>(&mut self, column: Column<T, V>, value: impl Assign<V>) {
        self.cells.insert(column.name(), value.into_datum());
    }

    /// Whether no column was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.cells.keys().copied()
    }

    pub(super) fn to_json(&self) -> Value {
        let cells = self.cells.iter().map(|(name, datum)| ((*name).to_owned(), datum.to_json()));
        Value::Object(cells.collect())
    }

    pub(super) fn has_nul(&self) -> bool {
        self.cells.values().any(Datum::has_nul)
    }
}

/// `<condition>` on a row of `T`.
#[derive(Debug)]
pub struct Condition<T> {
    column: &'static str,
    function: &'static str,
    datum: Datum,
    table: PhantomData<fn() -> T>,
}

impl<T> Clone for Condition<T> {
    fn clone(&self) -> Self {
        Self { datum: self.datum.clone(), table: PhantomData, ..*self }
    }
}

impl<T> Condition<T> {
    fn new(column: &'static str, function: &'static str, datum: Datum) -> Self {
        Self { column, function, datum, table: PhantomData }
    }

    /// It is this very row.
    #[must_use]
    pub fn row(row: impl Into<RowRef>) -> Self {
        Self::new("_uuid", "==", Datum::from(row.into().atom()))
    }

    /// The JSON form, `[column, function, value]`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!([self.column, self.function, self.datum.to_json()])
    }
}

impl<T, V> Column<T, V> {
    /// The column holds exactly this.
    #[must_use]
    pub fn equals(self, value: impl Assign<V>) -> Condition<T> {
        Condition::new(self.name(), "==", value.into_datum())
    }

    /// The column holds anything but this.
    #[must_use]
    pub fn differs(self, value: impl Assign<V>) -> Condition<T> {
        Condition::new(self.name(), "!=", value.into_datum())
    }

    /// The column holds all of these members or pairs.
    #[must_use]
    pub fn includes(self, value: impl Assign<V>) -> Condition<T> {
        Condition::new(self.name(), "includes", value.into_datum())
    }

    /// The column holds none of these members or pairs.
    #[must_use]
    pub fn excludes(self, value: impl Assign<V>) -> Condition<T> {
        Condition::new(self.name(), "excludes", value.into_datum())
    }

    /// Reads the column from a row that a `select` gave.
    ///
    /// # Errors
    /// When the row lacks the column or holds something else there.
    pub fn read(self, row: &Value) -> Result<V, DecodeError>
    where
        V: ColumnValue,
    {
        let name = self.name();
        let json = row.get(name).ok_or_else(|| DecodeError::new("not in the row").within(name))?;
        let datum = Datum::decode(json, V::TYPE.key, V::TYPE.value).map_err(|e| e.within(name))?;
        V::from_datum(&datum).ok_or_else(|| DecodeError::expected(&V::TYPE.to_string(), json).within(name))
    }
}

/// Which rows of `T` an operation is about: one row, or all that meet every condition.
#[derive(Debug)]
pub struct Where<T>(Vec<Condition<T>>);

impl<T> Where<T> {
    /// Every row of the table. Never to be had by accident.
    #[must_use]
    pub fn all() -> Self {
        Self(Vec::new())
    }

    /// The rows that meet both.
    #[must_use]
    pub fn and(mut self, condition: Condition<T>) -> Self {
        self.0.push(condition);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        Value::Array(self.0.iter().map(Condition::to_json).collect())
    }

    pub(super) fn has_nul(&self) -> bool {
        self.0.iter().any(|condition| condition.datum.has_nul())
    }

    /// The row, where it is said by identity.
    pub(super) fn row(&self) -> Option<Uuid> {
        self.0.iter().find_map(|condition| match &condition.datum {
            Datum::Set(set) if condition.column == "_uuid" && condition.function == "==" => match set.atoms() {
                [Atom::Uuid(uuid)] => Some(*uuid),
                _ => None,
            },
            _ => None,
        })
    }
}

impl<T> From<Condition<T>> for Where<T> {
    fn from(condition: Condition<T>) -> Self {
        Self(vec![condition])
    }
}
impl<T> From<Uuid> for Where<T> {
    fn from(row: Uuid) -> Self {
        Condition::row(row).into()
    }
}
impl<T> From<NewRow> for Where<T> {
    fn from(row: NewRow) -> Self {
        Condition::row(row).into()
    }
}
impl<T> From<RowRef> for Where<T> {
    fn from(row: RowRef) -> Self {
        Condition::row(row).into()
    }
}

/// `<mutation>` of a column of `T`: changes part of a value and leaves the rest, also what others write
/// meanwhile.
#[derive(Debug)]
pub struct Mutation<T> {
    column: &'static str,
    mutator: &'static str,
    datum: Datum,
    table: PhantomData<fn() -> T>,
}

impl<T> Mutation<T> {
    fn new(column: &'static str, mutator: &'static str, datum: Datum) -> Self {
        Self { column, mutator, datum, table: PhantomData }
    }

    pub(super) fn to_json(&self) -> Value {
        json!([self.column, self.mutator, self.datum.to_json()])
    }

    pub(super) fn has_nul(&self) -> bool {
        self.datum.has_nul()
    }
}

impl<T> Column<T, i64> {
    /// Adds; a `range error` when the result does not fit.
    #[must_use]
    pub fn increase_by(self, n: i64) -> Mutation<T> {
        Mutation::new(self.name(), "+=", Datum::from(n))
    }
}

impl<T, A: AtomValue> Column<T, BTreeSet<A>> {
    /// Adds these members; those that are there already stay.
    #[must_use]
    pub fn insert(self, members: impl Assign<BTreeSet<A>>) -> Mutation<T> {
        Mutation::new(self.name(), "insert", members.into_datum())
    }

    /// Removes these members, as far as they are there.
    #[must_use]
    pub fn remove(self, members: impl Assign<BTreeSet<A>>) -> Mutation<T> {
        Mutation::new(self.name(), "delete", members.into_datum())
    }
}

/// A type of map columns.
pub trait MapValue: ColumnValue {
    /// Its keys.
    type Key: AtomValue;
}

impl<K: AtomValue, V: AtomValue> MapValue for BTreeMap<K, V> {
    type Key = K;
}
impl MapValue for Pairs {
    type Key = String;
}

impl<T, M: MapValue> Column<T, M> {
    /// Adds the pairs whose key is not there; a key that is there keeps its value (RFC 7047, 5.1). See
    /// [`Column::put`].
    #[must_use]
    pub fn insert(self, pairs: impl Assign<M>) -> Mutation<T> {
        Mutation::new(self.name(), "insert", pairs.into_datum())
    }

    /// Removes these pairs; a key with another value stays.
    #[must_use]
    pub fn remove(self, pairs: impl Assign<M>) -> Mutation<T> {
        Mutation::new(self.name(), "delete", pairs.into_datum())
    }

    /// Removes these keys, whatever their values.
    #[must_use]
    pub fn remove_keys<Q: Into<M::Key>>(self, keys: impl IntoIterator<Item = Q>) -> Mutation<T> {
        let keys = keys.into_iter().map(|key| key.into().to_atom());
        Mutation::new(self.name(), "delete", Datum::set(keys))
    }

    /// Gives these keys these values, whether they were there or not, and leaves all others: a removal of
    /// the keys and an insertion of the pairs, to be applied in this order within one operation.
    #[must_use]
    pub fn put(self, pairs: impl Assign<M>) -> [Mutation<T>; 2] {
        let datum = pairs.into_datum();
        let keys = match &datum {
            Datum::Map(map) => Datum::set(map.pairs().iter().map(|(key, _)| key.clone())),
            // What is assigned to a map column is a map; a set has no keys.
            Datum::Set(_) => Datum::empty_set(),
        };
        [Mutation::new(self.name(), "delete", keys), Mutation::new(self.name(), "insert", datum)]
    }
}
