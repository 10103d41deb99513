//! The forms of RFC 7047 section 5.1, one by one.

use serde_json::json;

use super::*;

const U: &str = "01234567-89ab-cdef-0123-456789abcdef";

#[test]
fn every_form_of_the_rfc_both_ways() {
    let uuid = Uuid::try_parse(U).unwrap();
    // (JSON, key type, value type, datum)
    let cases = [
        (json!(5), AtomType::Integer, None, Datum::from(5)),
        (json!(-9_223_372_036_854_775_808_i64), AtomType::Integer, None, Datum::from(i64::MIN)),
        (json!(1.5), AtomType::Real, None, Datum::from(Real::new(1.5).unwrap())),
        (json!(true), AtomType::Boolean, None, Datum::from(true)),
        (json!("é\n"), AtomType::String, None, Datum::from("é\n")),
        (json!(["uuid", U]), AtomType::Uuid, None, Datum::from(uuid)),
        (json!(["set", []]), AtomType::String, None, Datum::empty_set()),
        (json!(["set", ["a", "b"]]), AtomType::String, None, Datum::set(["a", "b"])),
        (json!(["map", []]), AtomType::String, Some(AtomType::String), Datum::Map(Map::default())),
        (json!(["map", [[0, ["uuid", U]]]]), AtomType::Integer, Some(AtomType::Uuid), Datum::map([(0, uuid)])),
    ];
    for (wire, key, value, datum) in cases {
        assert_eq!(Datum::decode(&wire, key, value).unwrap(), datum, "{wire}");
        assert_eq!(datum.to_json(), wire);
    }
    // Taken, though not what we write: a set of one, and an integer for a real.
    let one = Datum::decode(&json!(["set", [5]]), AtomType::Integer, None).unwrap();
    assert_eq!(one, Datum::from(5));
    let real = Datum::decode(&json!(5), AtomType::Real, None).unwrap();
    assert_eq!(real, Datum::from(Real::new(5.0).unwrap()));
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        (json!("x"), AtomType::Integer, None, "expected integer, found \"x\""),
        (json!(1.5), AtomType::Integer, None, "expected integer, found 1.5"),
        (json!(u64::MAX), AtomType::Integer, None, "expected integer, found 18446744073709551615"),
        (json!(["set", [1, "x"]]), AtomType::Integer, None, "[1]: expected integer, found \"x\""),
        (json!(["set", [1, 1]]), AtomType::Integer, None, "a set names a member twice"),
        (json!(["map", []]), AtomType::String, None, "expected string, found an array [\"map\", …] of 2"),
        (json!(["map", [["k", 1]]]), AtomType::String, Some(AtomType::String), "[0]/value: expected string, found 1"),
        (json!(["map", [["k", "a"], ["k", "b"]]]), AtomType::String, Some(AtomType::String), "a map names a key twice"),
        (
            json!(["map", [["k"]]]),
            AtomType::String,
            Some(AtomType::String),
            "[0]: expected [key, value], found an array [\"k\", …] of 1",
        ),
        (
            json!(["set", []]),
            AtomType::String,
            Some(AtomType::String),
            "expected [\"map\", …], found an array [\"set\", …] of 2",
        ),
        (
            json!(["uuid", "0123456789abcdef0123456789abcdef"]),
            AtomType::Uuid,
            None,
            "expected a UUID, found \"0123456789abcdef0123456789abcdef\"",
        ),
        (
            json!(["named-uuid", "a"]),
            AtomType::Uuid,
            None,
            "expected [\"uuid\", …], found an array [\"named-uuid\", …] of 2",
        ),
    ];
    for (wire, key, value, message) in cases {
        let error = Datum::decode(&wire, key, value).unwrap_err();
        assert_eq!(error.to_string(), message, "{wire}");
    }
}

#[test]
fn reals_are_finite_and_zero_has_one_sign() {
    assert_eq!(Real::new(-0.0), Real::new(0.0));
    assert_eq!(Real::new(f64::NAN), None);
    assert_eq!(Real::new(f64::INFINITY), None);
}

#[test]
fn of_equal_keys_the_last_stays() {
    let map = Datum::map([("k", "1"), ("a", "x"), ("k", "2"), ("k", "3")]);
    assert_eq!(map, Datum::map([("a", "x"), ("k", "3")]));
}
