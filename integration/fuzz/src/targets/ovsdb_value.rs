//! Atoms, sets and maps: decoded, encoded and decoded again they are the same, and differences have an inverse.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use ovsdb::pairs::Pairs;
use ovsdb::schema::ColumnType;
use ovsdb::table::{ColumnForm, ColumnValue, read_column};
use ovsdb::text::Text;
use ovsdb::value::{AtomType, Datum, Map, Real, Set, Uuid};
use ovsdb::words::Words;
use serde_json::Value;

use super::{choice, line, presentable};

const TYPES: [AtomType; 5] = [AtomType::Integer, AtomType::Real, AtomType::Boolean, AtomType::String, AtomType::Uuid];

/// What `update2` reports for a column that went from `old` to `new` (ovsdb-server(7), 4.1.14).
fn difference(old: &Datum, new: &Datum) -> Datum {
    match (old, new) {
        (Datum::Set(old), Datum::Set(new)) => {
            let gone = old.atoms().iter().filter(|atom| !new.atoms().contains(atom));
            let come = new.atoms().iter().filter(|atom| !old.atoms().contains(atom));
            Datum::Set(Set::new(gone.chain(come).cloned().collect()))
        }
        (Datum::Map(old), Datum::Map(new)) => {
            let gone = old.pairs().iter().filter(|(key, _)| new.get(key).is_none());
            let changed = new.pairs().iter().filter(|(key, value)| old.get(key) != Some(value));
            Datum::Map(Map::new(gone.chain(changed).cloned().collect()))
        }
        _ => unreachable!("both are of one type"),
    }
}

/// A column of type `V`, if that is the type of these values, goes from the one to the other by their difference.
fn follow<V: ColumnValue + Debug + PartialEq>(old: &Datum, new: &Datum, of: (AtomType, Option<AtomType>)) {
    if (V::TYPE.key, V::TYPE.value) != of {
        return;
    }
    let ty = ColumnType { key: of.0, value: of.1, min: 0, max: None };
    let mut column = V::empty();
    for (form, datum) in [(ColumnForm::Whole, old), (ColumnForm::Difference, &difference(old, new))] {
        let text = datum.to_json().to_string();
        let mut json = serde_json::Deserializer::from_str(&text);
        read_column(&mut column, &ty, form, &mut json, &mut Words::default()).expect("what we write can be read");
    }
    assert_eq!(Some(&column), V::from_datum(new).as_ref(), "from {old:?}");
    assert_eq!(&column.to_datum(), new);
}

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
    follow::<BTreeSet<i64>>(&old, &new, (key, value));
    follow::<BTreeSet<Real>>(&old, &new, (key, value));
    follow::<BTreeSet<bool>>(&old, &new, (key, value));
    follow::<BTreeSet<String>>(&old, &new, (key, value));
    follow::<BTreeSet<Text>>(&old, &new, (key, value));
    follow::<BTreeSet<Uuid>>(&old, &new, (key, value));
    follow::<BTreeMap<i64, Uuid>>(&old, &new, (key, value));
    follow::<BTreeMap<Text, Real>>(&old, &new, (key, value));
    follow::<BTreeMap<String, String>>(&old, &new, (key, value));
    follow::<Pairs>(&old, &new, (key, value));
    true
}
