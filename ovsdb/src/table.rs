//! Declarations of the tables and columns that a program uses, and typed access to their rows. Which Rust types a column
//! can be declared as is in `cell`; the comparison of a declaration with the server's schema in `layout`.
//!
//! Nothing here knows a particular database; Open vSwitch's tables are declared in [`crate::vswitch`].

mod cell;
mod layout;

use std::fmt;
use std::marker::PhantomData;

use serde::de::Deserializer;

pub use self::cell::{AtomValue, ColumnForm, ColumnValue, read_column, set_column};
pub use self::layout::{Layout, SchemaError, TableLayout};
use crate::schema::ColumnType;
use crate::value::{AtomType, Datum, DecodeError, Uuid};
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;

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
