//! Declarations of the tables and columns that a program uses, typed access to their rows, and the
//! comparison of a declaration with the server's schema.
//!
//! Nothing here knows a particular database; Open vSwitch's tables are declared in [`crate::vswitch`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error};

use crate::pairs::Pairs;
use crate::read::{self, Token};
use crate::schema::{ColumnType, DatabaseSchema};
use crate::text::Text;
use crate::value::{Atom, AtomType, Datum, DecodeError, Real, Uuid};
use crate::words::Words;

/// Whether a program can do without a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it nothing works: the session fails and says so.
    Required,
    /// Without it a feature is off: the field reads as absent.
    Optional,
}

/// How many members a declared Rust type can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one, e.g. `String`.
    One,
    /// None or one, e.g. `Option<String>`.
    Optional,
    /// Any number, e.g. `BTreeSet<String>`.
    Many,
}

/// The type that a declaration expects of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredType {
    /// Type of a scalar, of members, or of keys.
    pub key: AtomType,
    /// Type of a map's values.
    pub value: Option<AtomType>,
    /// How many members fit.
    pub arity: Arity,
}

impl DeclaredType {
    /// Whether every value that the server's column may hold fits the declared type.
    #[must_use]
    pub fn holds(&self, server: &ColumnType) -> bool {
        self.key == server.key
            && self.value == server.value
            && match self.arity {
                Arity::One => server.min == 1 && server.max == Some(1),
                Arity::Optional => server.max == Some(1),
                Arity::Many => true,
            }
    }
}

impl fmt::Display for DeclaredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.arity, self.value) {
            (_, Some(value)) => write!(f, "map of {} to {value}", self.key),
            (Arity::One, None) => write!(f, "{}", self.key),
            (Arity::Optional, None) => write!(f, "optional {}", self.key),
            (Arity::Many, None) => write!(f, "set of {}", self.key),
        }
    }
}

/// One declared column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnDecl {
    /// Name on the wire.
    pub name: &'static str,
    /// Expected type.
    pub ty: DeclaredType,
    /// Whether it can be missing.
    pub need: Need,
}

/// One declared table.
#[derive(Clone, Copy, Debug)]
pub struct TableDecl {
    /// Name on the wire.
    pub name: &'static str,
    /// The columns that are monitored.
    pub columns: &'static [ColumnDecl],
}

/// A table with typed rows; implemented by [`crate::table!`].
pub trait Table: Clone + Send + Sync + 'static {
    /// The declaration.
    const DECL: TableDecl;

    /// A row in which no column holds anything.
    fn empty(uuid: Uuid) -> Self;

    /// The value of the column at this declared position.
    fn cell(&self, column: usize) -> Option<Datum>;

    /// Sets the column at this declared position.
    ///
    /// # Errors
    /// When there is no such column or the value does not fit it.
    fn set_cell(&mut self, column: usize, datum: &Datum) -> Result<(), DecodeError>;

    /// Reads the column at this declared position off JSON text, of which the server says that it is of type `ty`:
    /// the value, or the difference from the one that is there.
    ///
    /// # Errors
    /// When the JSON is no such value; the row is then worthless.
    fn read<'de, D: Deserializer<'de>>(
        &mut self,
        column: usize,
        ty: &ColumnType,
        form: ColumnForm,
        json: D,
        words: &mut Words,
    ) -> Result<(), D::Error>;
}

/// How the value of a column is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnForm {
    /// As it is.
    Whole,
    /// As what differs, where the type is one that has differences (ovsdb-server(7), 4.1.14).
    Difference,
}

/// Reads one column; used by [`crate::table!`].
///
/// # Errors
/// When the JSON is no value of the column, or has more or fewer members than the schema allows.
pub fn read_column<'de, V: ColumnValue, D: Deserializer<'de>>(
    field: &mut V,
    ty: &ColumnType,
    form: ColumnForm,
    json: D,
    words: &mut Words,
) -> Result<(), D::Error> {
    let value = V::read(json, words)?;
    if form == ColumnForm::Difference && ty.has_differences() {
        field.change(value);
    } else {
        *field = value;
    }
    ty.check_len(field.count()).map_err(D::Error::custom)
}

/// Sets one column; used by [`crate::table!`].
///
/// # Errors
/// When the value does not fit it; `name` tells which.
pub fn set_column<V: ColumnValue>(field: &mut V, datum: &Datum, name: &str) -> Result<(), DecodeError> {
    *field = V::from_datum(datum)
        .ok_or_else(|| DecodeError::new(format!("{} members do not make a {}", datum.len(), V::TYPE)).within(name))?;
    Ok(())
}

/// A typed name of a column: `V` is the Rust type of its values, `T` the table it belongs to, so that a
/// transaction cannot put a value of one column into another.
pub struct Column<T, V> {
    name: &'static str,
    owner: PhantomData<fn() -> (T, V)>,
}

impl<T, V> Column<T, V> {
    /// Used by [`crate::table!`].
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, owner: PhantomData }
    }

    /// Name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T, V> Clone for Column<T, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, V> Copy for Column<T, V> {}
impl<T, V> fmt::Debug for Column<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A Rust type that stands for an atom.
pub trait AtomValue: Ord + Default {
    /// Its type on the wire.
    const ATOM: AtomType;
    /// `None` when the atom is of another type.
    fn from_atom(atom: &Atom) -> Option<Self>;
    /// The atom.
    fn to_atom(&self) -> Atom;
    /// `None` when what stands in the text is of another type.
    fn from_token(token: Token<'_>, words: &mut Words) -> Option<Self>;
}

macro_rules! atom_values {
    ($($rust:ty, $variant:ident, |$x:ident| $read:expr, |$y:ident| $write:expr,
        |$words:ident| $($token:pat => $value:expr),*;)*) => { $(
        impl AtomValue for $rust {
            const ATOM: AtomType = AtomType::$variant;
            fn from_atom(atom: &Atom) -> Option<Self> {
                match atom { Atom::$variant($x) => Some($read), _ => None }
            }
            fn to_atom(&self) -> Atom { let $y = self; Atom::$variant($write) }
            fn from_token(token: Token<'_>, $words: &mut Words) -> Option<Self> {
                match token { $($token => $value,)* _ => None }
            }
        }
    )* };
}
#[expect(clippy::cast_precision_loss, reason = "a real that is written without a fraction is one all the same")]
const fn real(n: i64) -> f64 {
    n as f64
}
atom_values! {
    i64, Integer, |n| *n, |n| *n, |_words| Token::Integer(n) => Some(n);
    bool, Boolean, |b| *b, |b| *b, |_words| Token::Boolean(b) => Some(b);
    Real, Real, |x| *x, |x| *x, |_words| Token::Real(x) => Real::new(x), Token::Integer(n) => Real::new(real(n));
    String, String, |s| s.clone(), |s| s.clone(), |_words| Token::Text(text) => Some(text.to_owned());
    Text, String, |s| s.as_str().into(), |s| s.to_string(), |words| Token::Text(text) => Some(words.text(text));
    Uuid, Uuid, |u| *u, |u| *u, |_words| Token::Uuid(uuid) => Some(uuid);
}

/// A Rust type that stands for a column's value.
pub trait ColumnValue: Sized {
    /// What it can hold.
    const TYPE: DeclaredType;
    /// `None` when the datum is of another type or has too many or too few members.
    fn from_datum(datum: &Datum) -> Option<Self>;
    /// The datum.
    fn to_datum(&self) -> Datum;

    /// Nothing, or the default where there has to be one.
    fn empty() -> Self;
    /// How many members it has.
    fn count(&self) -> usize;
    /// Reads a value off JSON text.
    ///
    /// # Errors
    /// When it is of another type, or there are too many or too few members.
    fn read<'de, D: Deserializer<'de>>(json: D, words: &mut Words) -> Result<Self, D::Error>;
    /// Goes by a difference: a member that is there goes and one that is not comes; of a map the very pair goes, and
    /// any other is the new value at its key (ovsdb-server(7), 4.1.14).
    fn change(&mut self, difference: Self);
}

fn members(datum: &Datum) -> Option<&[Atom]> {
    match datum {
        Datum::Set(set) => Some(set.atoms()),
        Datum::Map(_) => None,
    }
}

impl<A: AtomValue> ColumnValue for A {
    const TYPE: DeclaredType = DeclaredType { key: A::ATOM, value: None, arity: Arity::One };
    fn from_datum(datum: &Datum) -> Option<Self> {
        match members(datum)? {
            [one] => A::from_atom(one),
            _ => None,
        }
    }
    fn to_datum(&self) -> Datum {
        Datum::from(self.to_atom())
    }
    fn empty() -> Self {
        Self::default()
    }
    fn count(&self) -> usize {
        1
    }
    fn read<'de, D: Deserializer<'de>>(json: D, words: &mut Words) -> Result<Self, D::Error> {
        let (mut one, mut count) = (None, 0_usize);
        read::members(json, words, |atom: A| {
            one = Some(atom);
            count += 1;
            true
        })?;
        match one {
            Some(one) if count == 1 => Ok(one),
            _ => Err(D::Error::custom(format_args!("{count} members where there has to be one"))),
        }
    }
    fn change(&mut self, difference: Self) {
        *self = difference;
    }
}

impl<A: AtomValue> ColumnValue for Option<A> {
    const TYPE: DeclaredType = DeclaredType { key: A::ATOM, value: None, arity: Arity::Optional };
    fn from_datum(datum: &Datum) -> Option<Self> {
        match members(datum)? {
            [] => Some(None),
            [one] => A::from_atom(one).map(Some),
            _ => None,
        }
    }
    fn to_datum(&self) -> Datum {
        Datum::set(self.iter().map(A::to_atom))
    }
    fn empty() -> Self {
        None
    }
    fn count(&self) -> usize {
        usize::from(self.is_some())
    }
    fn read<'de, D: Deserializer<'de>>(json: D, words: &mut Words) -> Result<Self, D::Error> {
        let (mut one, mut count) = (None, 0_usize);
        read::members(json, words, |atom: A| {
            one = Some(atom);
            count += 1;
            true
        })?;
        if count <= 1 {
            Ok(one)
        } else {
            Err(D::Error::custom(format_args!("{count} members where there is room for one")))
        }
    }
    fn change(&mut self, difference: Self) {
        *self = difference;
    }
}

impl<A: AtomValue> ColumnValue for BTreeSet<A> {
    const TYPE: DeclaredType = DeclaredType { key: A::ATOM, value: None, arity: Arity::Many };
    fn from_datum(datum: &Datum) -> Option<Self> {
        members(datum)?.iter().map(A::from_atom).collect()
    }
    fn to_datum(&self) -> Datum {
        Datum::set(self.iter().map(A::to_atom))
    }
    fn empty() -> Self {
        Self::new()
    }
    fn count(&self) -> usize {
        self.len()
    }
    fn read<'de, D: Deserializer<'de>>(json: D, words: &mut Words) -> Result<Self, D::Error> {
        let mut set = Self::new();
        read::members(json, words, |atom| set.insert(atom))?;
        Ok(set)
    }
    fn change(&mut self, difference: Self) {
        for atom in difference {
            if !self.remove(&atom) {
                self.insert(atom);
            }
        }
    }
}

impl<K: AtomValue, V: AtomValue> ColumnValue for BTreeMap<K, V> {
    const TYPE: DeclaredType = DeclaredType { key: K::ATOM, value: Some(V::ATOM), arity: Arity::Many };
    fn from_datum(datum: &Datum) -> Option<Self> {
        match datum {
            Datum::Map(map) => map.pairs().iter().map(|(k, v)| Some((K::from_atom(k)?, V::from_atom(v)?))).collect(),
            Datum::Set(_) => None,
        }
    }
    fn to_datum(&self) -> Datum {
        Datum::map(self.iter().map(|(k, v)| (k.to_atom(), v.to_atom())))
    }
    fn empty() -> Self {
        Self::new()
    }
    fn count(&self) -> usize {
        self.len()
    }
    fn read<'de, D: Deserializer<'de>>(json: D, words: &mut Words) -> Result<Self, D::Error> {
        let mut map = Self::new();
        read::pairs(json, words, |key, value| map.insert(key, value).is_none())?;
        Ok(map)
    }
    fn change(&mut self, difference: Self) {
        for (key, value) in difference {
            if self.get(&key) == Some(&value) {
                self.remove(&key);
            } else {
                self.insert(key, value);
            }
        }
    }
}

impl ColumnValue for Pairs {
    const TYPE: DeclaredType = <BTreeMap<String, String> as ColumnValue>::TYPE;
    fn from_datum(datum: &Datum) -> Option<Self> {
        <BTreeMap<Text, Text>>::from_datum(datum).map(|pairs| pairs.into_iter().collect())
    }
    fn to_datum(&self) -> Datum {
        Datum::map(self)
    }
    fn empty() -> Self {
        Self::default()
    }
    fn count(&self) -> usize {
        self.len()
    }
    fn read<'de, D: Deserializer<'de>>(json: D, words: &mut Words) -> Result<Self, D::Error> {
        let mut room = words.room();
        read::pairs(json, words, |key, value| {
            room.push((key, value));
            true
        })?;
        words.map(room).ok_or_else(|| D::Error::custom("a map names a key twice"))
    }
    fn change(&mut self, difference: Self) {
        Self::change(self, &difference);
    }
}

// The macro names its traits.
#[doc(hidden)]
pub use serde;

/// Declares a table: a struct with `uuid` and one typed field per column, a typed [`Column`] constant per
/// column, and the [`Table`] implementation. `required` or `optional` tells what a missing column means;
/// an optional column needs a type that can be empty.
///
/// ```
/// use std::collections::BTreeSet;
/// ovsdb::table! {
///     /// One row per logical switch.
///     pub struct LogicalSwitch = "Logical_Switch" {
///         /// Its name.
///         required NAME name: String = "name",
///         /// Its replication mode, since schema 1.6.
///         optional REPLICATION_MODE replication_mode: Option<String> = "replication_mode",
///     }
/// }
/// assert_eq!(LogicalSwitch::NAME.name(), "name");
/// ```
#[macro_export]
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Name:ident = $table:literal {
            $( $(#[$column_meta:meta])* $need:ident $CONST:ident $field:ident : $ty:ty = $column:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $Name {
            /// The row's identity, `_uuid`.
            pub uuid: $crate::value::Uuid,
            $( $(#[$column_meta])* pub $field: $ty, )*
        }

        // A table that is private to a test or a program has columns that are read but never named.
        #[allow(dead_code, unreachable_pub)]
        impl $Name {
            $(
                #[doc = concat!("Column `", $column, "` of `", $table, "`.")]
                pub const $CONST: $crate::table::Column<Self, $ty> = $crate::table::Column::new($column);
            )*
        }

        impl $crate::table::Table for $Name {
            const DECL: $crate::table::TableDecl = $crate::table::TableDecl {
                name: $table,
                columns: &[ $( $crate::table::ColumnDecl {
                    name: $column,
                    ty: <$ty as $crate::table::ColumnValue>::TYPE,
                    need: $crate::table!(@need $need),
                } ),* ],
            };

            fn empty(uuid: $crate::value::Uuid) -> Self {
                Self { uuid, $( $field: <$ty as $crate::table::ColumnValue>::empty(), )* }
            }

            fn cell(&self, column: usize) -> ::std::option::Option<$crate::value::Datum> {
                let mut places = 0..;
                $( if places.next() == Some(column) {
                    return Some($crate::table::ColumnValue::to_datum(&self.$field));
                } )*
                None
            }

            fn set_cell(
                &mut self,
                column: usize,
                datum: &$crate::value::Datum,
            ) -> ::std::result::Result<(), $crate::value::DecodeError> {
                let mut places = 0..;
                $( if places.next() == Some(column) {
                    return $crate::table::set_column(&mut self.$field, datum, $column);
                } )*
                Err($crate::value::DecodeError::new("no such column"))
            }

            fn read<'de, D: $crate::table::serde::Deserializer<'de>>(
                &mut self,
                column: usize,
                ty: &$crate::schema::ColumnType,
                form: $crate::table::ColumnForm,
                json: D,
                words: &mut $crate::words::Words,
            ) -> ::std::result::Result<(), D::Error> {
                let mut places = 0..;
                $( if places.next() == Some(column) {
                    return $crate::table::read_column(&mut self.$field, ty, form, json, words);
                } )*
                Err($crate::table::serde::de::Error::custom("no such column"))
            }
        }
    };
    (@need required) => { $crate::table::Need::Required };
    (@need optional) => { $crate::table::Need::Optional };
}

/// How the declared tables lie in the server's schema: which columns are there and of what type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    version: String,
    tables: Vec<TableLayout>,
}

/// One declared table in the server's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLayout {
    name: &'static str,
    /// By declared position: the name, and the server's type unless the column is missing.
    columns: Vec<(&'static str, Option<ColumnType>)>,
    /// What columns hold where the server says nothing of them, unless that is what [`Table::empty`] has there.
    defaults: Vec<(usize, Datum)>,
}

/// The server's schema lacks what the declaration requires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema {database} {version} of the server lacks {}", self.missing.join(", "))]
pub struct SchemaError {
    /// Database.
    pub database: String,
    /// Version of the server's schema.
    pub version: String,
    /// `Table.column` each, with the expected type where another one is there.
    pub missing: Vec<String>,
}

impl Layout {
    /// Compares declarations with the server's schema.
    ///
    /// # Errors
    /// When a required column is missing or of a type that does not fit; the error names all of them.
    pub fn check(schema: &DatabaseSchema, tables: &[TableDecl]) -> Result<Self, SchemaError> {
        let mut missing = Vec::new();
        let layouts = tables
            .iter()
            .map(|decl| {
                let server = schema.tables.get(decl.name);
                let mut columns = Vec::with_capacity(decl.columns.len());
                for column in decl.columns {
                    let there = server.and_then(|table| table.get(column.name)).copied();
                    let fits = there.filter(|ty| column.ty.holds(ty));
                    if fits.is_none() && column.need == Need::Required {
                        missing.push(match there {
                            None => format!("{}.{}", decl.name, column.name),
                            Some(_) => format!("{}.{} as {}", decl.name, column.name, column.ty),
                        });
                    }
                    columns.push((column.name, fits));
                }
                let declared = decl.columns.iter().zip(&columns).enumerate();
                // An optional field of a column that always holds one.
                let defaults = declared.filter_map(|(place, (column, (_, ty)))| {
                    let differs = column.ty.arity != Arity::One;
                    ty.filter(|_| differs).map(|ty| (place, ty.default_datum())).filter(|(_, datum)| !datum.is_empty())
                });
                TableLayout { name: decl.name, defaults: defaults.collect(), columns }
            })
            .collect();
        if missing.is_empty() {
            Ok(Self { version: schema.version.clone(), tables: layouts })
        } else {
            Err(SchemaError { database: schema.name.clone(), version: schema.version.clone(), missing })
        }
    }

    /// Version of the server's schema.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Tables in declared order.
    #[must_use]
    pub fn tables(&self) -> &[TableLayout] {
        &self.tables
    }

    /// Whether the server has this declared column with a type that fits.
    #[must_use]
    pub fn has<T: Table, V>(&self, column: Column<T, V>) -> bool {
        let mut columns = self.tables.iter().filter(|t| t.name == T::DECL.name).flat_map(|t| &t.columns);
        columns.any(|(name, ty)| *name == column.name && ty.is_some())
    }

    /// The optional columns that the server does not have, as `Table.column`.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let of = |table: &TableLayout| {
            let absent = table.columns.iter().filter(|(_, ty)| ty.is_none());
            absent.map(|(name, _)| format!("{}.{name}", table.name)).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of).collect()
    }
}

impl TableLayout {
    /// Name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The columns that the server has, in declared order: position, name, type.
    pub fn present(&self) -> impl Iterator<Item = (usize, &'static str, &ColumnType)> {
        let numbered = self.columns.iter().enumerate();
        numbered.filter_map(|(i, (name, ty))| Some((i, *name, ty.as_ref()?)))
    }

    /// Position, name and type of a column that the server has.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<(usize, &'static str, &ColumnType)> {
        // Declarations are a dozen columns at most: a scan is as fast as any index.
        let at = self.columns.iter().position(|(column, _)| *column == name)?;
        Some((at, self.columns[at].0, self.columns[at].1.as_ref()?))
    }

    /// A row of default values.
    ///
    /// # Errors
    /// When this is the layout of another table.
    pub fn default_row<T: Table>(&self, uuid: Uuid) -> Result<T, DecodeError> {
        let mut row = T::empty(uuid);
        for (column, datum) in &self.defaults {
            row.set_cell(*column, datum)?;
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    table! {
        /// A table for tests.
        struct Thing = "Thing" {
            /// Name.
            required NAME name: String = "name",
            /// Tags.
            required TAGS tags: BTreeSet<i64> = "tags",
            /// Later addition.
            optional COLOUR colour: Option<String> = "colour",
            /// Later addition.
            optional NOTES notes: BTreeMap<String, String> = "notes",
        }
    }

    fn schema(columns: &serde_json::Value) -> DatabaseSchema {
        DatabaseSchema::decode(&json!({"name": "db", "version": "1.2.3", "tables": {"Thing": {"columns": columns}}}))
            .unwrap()
    }

    #[test]
    fn a_missing_optional_column_is_off_and_reads_as_absent() {
        let schema = schema(&json!({
            "name": {"type": "string"},
            "tags": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
            // A type that does not fit is as good as missing.
            "colour": {"type": "integer"},
        }));
        let layout = Layout::check(&schema, &[Thing::DECL]).unwrap();
        assert!(layout.has(Thing::NAME) && layout.has(Thing::TAGS));
        assert!(!layout.has(Thing::COLOUR) && !layout.has(Thing::NOTES));
        assert_eq!(layout.missing(), ["Thing.colour", "Thing.notes"]);
        let thing: Thing = layout.tables()[0].default_row(Uuid::nil()).unwrap();
        let empty = Thing {
            uuid: Uuid::nil(),
            name: String::new(),
            tags: BTreeSet::new(),
            colour: None,
            notes: BTreeMap::new(),
        };
        assert_eq!(thing, empty);
    }

    #[test]
    fn every_missing_required_column_is_named_with_the_version() {
        let error = Layout::check(&schema(&json!({"tags": {"type": "string"}})), &[Thing::DECL]).unwrap_err();
        assert_eq!(error.to_string(), "schema db 1.2.3 of the server lacks Thing.name, Thing.tags as set of integer");
    }

    #[test]
    fn declared_types_hold_what_the_server_may_send() {
        let server = |json| ColumnType::decode(&json).unwrap();
        let one = server(json!("string"));
        let optional = server(json!({"key": "string", "min": 0}));
        let many = server(json!({"key": "string", "min": 0, "max": "unlimited"}));
        let map = server(json!({"key": "string", "value": "string", "min": 0, "max": "unlimited"}));
        // rows: declared; columns: one, optional, many, map
        let table = [
            (String::TYPE, [true, false, false, false]),
            (<Option<String>>::TYPE, [true, true, false, false]),
            (<BTreeSet<String>>::TYPE, [true, true, true, false]),
            (<BTreeMap<String, String>>::TYPE, [false, false, false, true]),
        ];
        for (declared, expected) in table {
            assert_eq!([one, optional, many, map].map(|ty| declared.holds(&ty)), expected, "{declared}");
        }
    }
}
