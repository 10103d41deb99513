//! Declarations of the tables and columns that a program uses, typed access to their rows, and the
//! comparison of a declaration with the server's schema.
//!
//! Nothing here knows a particular database; Open vSwitch's tables are declared in [`crate::vswitch`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use crate::schema::{ColumnType, DatabaseSchema};
use crate::value::{Atom, AtomType, Datum, DecodeError, Real, Uuid};

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
    /// The columns that are monitored, in the order of a [`Row`]'s cells.
    pub columns: &'static [ColumnDecl],
}

/// A table with typed rows; implemented by [`crate::table!`].
pub trait Table: Sized + Send + Sync + 'static {
    /// The declaration.
    const DECL: TableDecl;

    /// Reads a row whose cells are in the declared order.
    ///
    /// # Errors
    /// When a cell does not fit its field; the schema check makes that the server's mistake.
    fn decode(uuid: Uuid, row: &Row) -> Result<Self, DecodeError>;
}

/// The cells of one row of the replica, in the order of its [`TableDecl`]. A column that the server does
/// not have holds an empty set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    cells: Box<[Datum]>,
}

impl Row {
    pub(crate) fn new(cells: Vec<Datum>) -> Self {
        Self { cells: cells.into_boxed_slice() }
    }

    /// Cells in declared order.
    #[must_use]
    pub fn cells(&self) -> &[Datum] {
        &self.cells
    }

    pub(crate) fn cells_mut(&mut self) -> &mut [Datum] {
        &mut self.cells
    }

    /// The typed value of the cell at `index`.
    ///
    /// # Errors
    /// When there is no such cell or it is of another type; `name` tells which.
    pub fn get<V: ColumnValue>(&self, index: usize, name: &str) -> Result<V, DecodeError> {
        let cell = self.cells.get(index).ok_or_else(|| DecodeError::new("no such cell").within(name))?;
        V::from_datum(cell)
            .ok_or_else(|| DecodeError::new(format!("{} members do not make a {}", cell.len(), V::TYPE)).within(name))
    }
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
pub trait AtomValue: Ord + Sized {
    /// Its type on the wire.
    const ATOM: AtomType;
    /// `None` when the atom is of another type.
    fn from_atom(atom: &Atom) -> Option<Self>;
    /// The atom.
    fn to_atom(&self) -> Atom;
}

macro_rules! atom_values {
    ($($rust:ty, $variant:ident, |$x:ident| $read:expr, |$y:ident| $write:expr;)*) => { $(
        impl AtomValue for $rust {
            const ATOM: AtomType = AtomType::$variant;
            fn from_atom(atom: &Atom) -> Option<Self> {
                match atom { Atom::$variant($x) => Some($read), _ => None }
            }
            fn to_atom(&self) -> Atom { let $y = self; Atom::$variant($write) }
        }
    )* };
}
atom_values! {
    i64, Integer, |n| *n, |n| *n;
    bool, Boolean, |b| *b, |b| *b;
    Real, Real, |x| *x, |x| *x;
    String, String, |s| s.clone(), |s| s.clone();
    Uuid, Uuid, |u| *u, |u| *u;
}

/// A Rust type that stands for a column's value.
pub trait ColumnValue: Sized {
    /// What it can hold.
    const TYPE: DeclaredType;
    /// `None` when the datum is of another type or has too many or too few members.
    fn from_datum(datum: &Datum) -> Option<Self>;
    /// The datum.
    fn to_datum(&self) -> Datum;
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
}

impl<A: AtomValue> ColumnValue for BTreeSet<A> {
    const TYPE: DeclaredType = DeclaredType { key: A::ATOM, value: None, arity: Arity::Many };
    fn from_datum(datum: &Datum) -> Option<Self> {
        members(datum)?.iter().map(A::from_atom).collect()
    }
    fn to_datum(&self) -> Datum {
        Datum::set(self.iter().map(A::to_atom))
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
}

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

            fn decode(
                uuid: $crate::value::Uuid,
                row: &$crate::table::Row,
            ) -> ::std::result::Result<Self, $crate::value::DecodeError> {
                // Fields are initialised in the order written, which is the declared order of the cells.
                let mut index = 0..;
                let mut next = || index.next().unwrap_or(usize::MAX);
                ::std::result::Result::Ok(Self { uuid, $( $field: row.get(next(), $column)?, )* })
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
    /// What a column that is missing here holds: an empty set or an empty map.
    absent: Vec<Datum>,
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
                let absent = decl.columns.iter().map(|column| match column.ty.value {
                    Some(_) => Datum::Map(crate::value::Map::default()),
                    None => Datum::empty_set(),
                });
                TableLayout { name: decl.name, absent: absent.collect(), columns }
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

    /// Position and type of a column that the server has.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<(usize, &ColumnType)> {
        // Declarations are a dozen columns at most: a scan is as fast as any index.
        let at = self.columns.iter().position(|(column, _)| *column == name)?;
        Some((at, self.columns[at].1.as_ref()?))
    }

    /// A row of default values.
    #[must_use]
    pub fn default_row(&self) -> Row {
        let cells = self.columns.iter().zip(&self.absent);
        let cells = cells.map(|((_, ty), absent)| ty.map_or_else(|| absent.clone(), |ty| ty.default_datum()));
        Row::new(cells.collect())
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
        let row = layout.tables()[0].default_row();
        let thing = Thing::decode(Uuid::nil(), &row).unwrap();
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
