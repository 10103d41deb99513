//! How the declared tables lie in the schema of the server at hand: which columns are there, of what type, and what
//! is missing.

use super::{Arity, Column, Need, Table, TableDecl};
use crate::schema::{ColumnType, DatabaseSchema};
use crate::value::{Datum, DecodeError, Uuid};

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
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;
    use crate::table;

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
}
