//! Atoms, sets and maps: decoded, encoded and decoded again they are the same, and differences have an inverse.

use ovsdb::schema::ColumnType;
use ovsdb::update::{apply_difference, difference};
use ovsdb::value::{AtomType, Datum};
use serde_json::Value;

use super::{choice, line, presentable};

const TYPES: [AtomType; 5] = [AtomType::Integer, AtomType::Real, AtomType::Boolean, AtomType::String, AtomType::Uuid];

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, data) = choice(data);
    let key = TYPES[usize::from(choice % 5)];
    let value = TYPES.get(usize::from(choice / 5 % 6)).copied();
    let (old, new) = line(data);
    let decode = |bytes| {
        let json: Value = serde_json::from_slice(bytes).ok()?;
        match Datum::decode(&json, key, value) {
            Ok(datum) => Some(datum),
            Err(error) => {
                presentable(&error);
                None
            }
        }
    };
    let old = decode(old);
    for datum in [&old, &decode(new)].into_iter().flatten() {
        let json = datum.to_json();
        assert_eq!(Datum::decode(&json, key, value).as_ref(), Ok(datum));
        // Also as text: numbers and escapes go through the writer and the parser.
        let text: Value = serde_json::from_str(&json.to_string()).expect("what we write is JSON");
        assert_eq!(Datum::decode(&text, key, value).as_ref(), Ok(datum));
    }
    let (Some(old), Some(new)) = (old.clone(), decode(new)) else { return old.is_some() };
    for max in [Some(1), None] {
        let ty = ColumnType { key, value, min: 0, max };
        if max.is_some() && (old.len() > 1 || new.len() > 1) {
            continue;
        }
        let changed = difference(&old, &new, &ty);
        assert_eq!(apply_difference(&old, changed, &ty), new, "from {old:?}");
    }
    true
}
