//! What holds for all values.

use proptest::prelude::*;

use super::*;

fn atoms(ty: AtomType) -> BoxedStrategy<Atom> {
    match ty {
        AtomType::Integer => any::<i64>().prop_map(Atom::Integer).boxed(),
        AtomType::Real => any::<f64>().prop_filter_map("finite", |x| Real::new(x).map(Atom::Real)).boxed(),
        AtomType::Boolean => any::<bool>().prop_map(Atom::Boolean).boxed(),
        AtomType::String => any::<String>().prop_map(Atom::String).boxed(),
        AtomType::Uuid => any::<u128>().prop_map(|n| Atom::Uuid(Uuid::from_u128(n))).boxed(),
    }
}

fn types() -> impl Strategy<Value = AtomType> {
    prop::sample::select(vec![AtomType::Integer, AtomType::Real, AtomType::Boolean, AtomType::String, AtomType::Uuid])
}

/// Base types and a value of them.
fn data() -> impl Strategy<Value = (AtomType, Option<AtomType>, Datum)> {
    (types(), prop::option::of(types())).prop_flat_map(|(key, value)| {
        let datum = match value {
            None => prop::collection::vec(atoms(key), 0..5).prop_map(|a| Datum::Set(Set::new(a))).boxed(),
            Some(value) => prop::collection::vec((atoms(key), atoms(value)), 0..5)
                .prop_map(|pairs| Datum::Map(Map::new(pairs)))
                .boxed(),
        };
        (Just(key), Just(value), datum)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((key, value, datum) in data()) {
        // Through text, as on the wire, not through the tree only.
        let text = datum.to_json().to_string();
        let json: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(Datum::decode(&json, key, value).unwrap(), datum);
    }

    #[test]
    fn any_json_is_read_or_refused(
        (key, value, _) in data(), text in r#"[\[\]{}":,a-z0-9.\-]{0,40}"#
    ) {
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            let _ = Datum::decode(&json, key, value);
        }
    }
}
