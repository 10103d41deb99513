//! The server's database schema (RFC 7047 section 3.2), as much of it as a client needs: tables, columns
//! and their types. Constraints such as enumerations and ranges are the server's to enforce.
//!
//! What *we* want of the schema is declared in [`mod@crate::table`] and compared there.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::value::{AtomType, Datum, DecodeError, Map, clip};

/// The type of a column (RFC 7047 section 3.2, `<type>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Type of a scalar, of a set's members, or of a map's keys.
    pub key: AtomType,
    /// Type of a map's values; `None` when the column is no map.
    pub value: Option<AtomType>,
    /// Least number of members: 0 or 1.
    pub min: usize,
    /// Greatest number of members; `None` for "unlimited".
    pub max: Option<usize>,
}

impl ColumnType {
    /// Whether `update2` and `update3` give the difference of two values rather than the new value: so it
    /// is for whatever can hold more than one member. An *optional scalar* comes whole.
    #[must_use]
    pub fn has_differences(&self) -> bool {
        self.max != Some(1)
    }

    /// What a row holds when the server omits the column (ovsdb-server(7), 4.1.14 and RFC 7047, 5.2.1).
    #[must_use]
    pub fn default_datum(&self) -> Datum {
        match (self.min, self.value) {
            (0, None) => Datum::empty_set(),
            (0, Some(_)) => Datum::Map(Map::default()),
            (_, None) => Datum::from(self.key.default_atom()),
            (_, Some(value)) => Datum::map([(self.key.default_atom(), value.default_atom())]),
        }
    }

    /// Whether a column may hold this many members.
    ///
    /// # Errors
    /// With the limits, when it may not.
    pub fn check_len(&self, len: usize) -> Result<(), DecodeError> {
        if len >= self.min && self.max.is_none_or(|max| len <= max) {
            return Ok(());
        }
        let max = self.max.map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
        Err(DecodeError::new(format!("{len} members where the schema allows {} to {max}", self.min)))
    }

    /// Reads `<type>`.
    ///
    /// # Errors
    /// When the JSON is not a `<type>`.
    pub fn decode(json: &Value) -> Result<Self, DecodeError> {
        if json.is_string() {
            return Ok(Self { key: base_type(json)?, value: None, min: 1, max: Some(1) });
        }
        let object = json.as_object().ok_or_else(|| DecodeError::expected("a type", json))?;
        let key = object.get("key").ok_or_else(|| DecodeError::new("a type lacks its key"))?;
        let count = |member: &Value| {
            member
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| DecodeError::expected("a count", member))
        };
        let ty = Self {
            key: base_type(key).map_err(|e| e.within("key"))?,
            value: object.get("value").map(base_type).transpose().map_err(|e| e.within("value"))?,
            min: object.get("min").map_or(Ok(1), count).map_err(|e| e.within("min"))?,
            max: match object.get("max") {
                None => Some(1),
                Some(Value::String(word)) if word == "unlimited" => None,
                Some(number) => Some(count(number).map_err(|e| e.within("max"))?),
            },
        };
        // Both as the RFC has it; otherwise a column could be unable to hold its own default.
        if ty.min > 1 || ty.max == Some(0) {
            return Err(DecodeError::new("min is neither 0 nor 1, or max is 0"));
        }
        Ok(ty)
    }
}

/// `<base-type>`: a bare word or an object whose `type` is one.
fn base_type(json: &Value) -> Result<AtomType, DecodeError> {
    json.as_str()
        .or_else(|| json.get("type")?.as_str())
        .and_then(AtomType::from_name)
        .ok_or_else(|| DecodeError::expected("an atomic type", json))
}

/// The schema of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSchema {
    /// Name of the database, e.g. `Open_vSwitch`.
    pub name: String,
    /// `x.y.z`; empty when the server gives none (ovsdb-server(7), 3.2).
    pub version: String,
    /// Tables and their columns by name.
    pub tables: BTreeMap<String, BTreeMap<String, ColumnType>>,
}

impl DatabaseSchema {
    /// Reads the answer to `get_schema`.
    ///
    /// # Errors
    /// When the JSON is not a `<database-schema>`; the error says in which table and column.
    pub fn decode(json: &Value) -> Result<Self, DecodeError> {
        let name = json.get("name").and_then(Value::as_str);
        let tables = json.get("tables").and_then(Value::as_object);
        let (Some(name), Some(tables)) = (name, tables) else {
            return Err(DecodeError::expected("a database schema with a name and tables", json));
        };
        let mut schema = Self {
            name: name.to_owned(),
            version: clip(json.get("version").and_then(Value::as_str).unwrap_or_default(), 40),
            tables: BTreeMap::new(),
        };
        for (table, json) in tables {
            let columns = json
                .get("columns")
                .and_then(Value::as_object)
                .ok_or_else(|| DecodeError::expected("a table with columns", json).within(table))?;
            let mut types = BTreeMap::new();
            for (column, json) in columns {
                let ty = json.get("type").ok_or_else(|| DecodeError::new("a column lacks its type"));
                let ty = ty.and_then(ColumnType::decode).map_err(|e| e.within(column).within(table))?;
                types.insert(column.clone(), ty);
            }
            schema.tables.insert(table.clone(), types);
        }
        Ok(schema)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_every_form_of_a_type() {
        let ty = |json| ColumnType::decode(&json).unwrap();
        let scalar = ColumnType { key: AtomType::Integer, value: None, min: 1, max: Some(1) };
        assert_eq!(ty(json!("integer")), scalar);
        assert_eq!(ty(json!({"key": "integer"})), scalar);
        assert_eq!(ty(json!({"key": {"type": "integer", "minInteger": 0}})), scalar);
        assert_eq!(ty(json!({"key": "integer", "min": 0})), ColumnType { min: 0, ..scalar });
        assert_eq!(ty(json!({"key": "integer", "max": "unlimited"})), ColumnType { max: None, ..scalar });
        assert_eq!(
            ty(json!({"key": "integer", "value": {"type": "uuid", "refTable": "Queue"}, "min": 0, "max": 8})),
            ColumnType { key: AtomType::Integer, value: Some(AtomType::Uuid), min: 0, max: Some(8) }
        );
    }

    #[test]
    fn errors_name_table_and_column() {
        let decode = |json| DatabaseSchema::decode(&json).unwrap_err().to_string();
        assert_eq!(
            decode(json!({"name": "d", "tables": {"T": {"columns": {"c": {"type": "float"}}}}})),
            "T/c: expected an atomic type, found \"float\""
        );
        assert_eq!(
            decode(json!({"name": "d", "tables": {"T": {"columns": {"c": {"type": {"key": "uuid", "max": -1}}}}}})),
            "T/c/max: expected a count, found -1"
        );
        assert_eq!(
            decode(json!({"name": "d", "tables": {"T": {}}})),
            "T: expected a table with columns, found an object of 0"
        );
        assert_eq!(decode(json!([])), "expected a database schema with a name and tables, found an array of 0");
    }

    #[test]
    fn defaults_follow_the_least_number_of_members() {
        for wrong in [json!({"key": "string", "min": 2, "max": 3}), json!({"key": "string", "min": 0, "max": 0})] {
            assert!(ColumnType::decode(&wrong).is_err(), "{wrong}");
        }
        let ty = |json| ColumnType::decode(&json).unwrap().default_datum();
        assert_eq!(ty(json!("string")), Datum::from(""));
        assert_eq!(ty(json!({"key": "string", "min": 0})), Datum::empty_set());
        assert_eq!(
            ty(json!({"key": "string", "value": "string", "min": 0, "max": "unlimited"})),
            Datum::Map(Map::default())
        );
    }
}
