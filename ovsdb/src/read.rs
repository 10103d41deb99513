//! Columns read off JSON text straight into the Rust types of [`mod@crate::table`]: atoms, sets and maps in the forms
//! of RFC 7047 section 5.1, without a tree in between. The same forms as trees are in [`crate::value`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

use crate::table::AtomValue;
use crate::value::{Uuid, clip, parse_uuid};
use crate::words::Words;

/// An atom as it stands in the text.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// A number without a fraction that fits 64 bits.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A string.
    Text(&'a str),
    /// `["uuid", "…"]`.
    Uuid(Uuid),
}

/// Reads a set and hands its members to `each`, which answers whether it was not there already. A bare atom is a
/// set of one.
///
/// # Errors
/// When the JSON is no set of `A`, or names a member twice.
pub fn members<'de, A: AtomValue, D: Deserializer<'de>>(
    json: D,
    words: &mut Words,
    each: impl FnMut(A) -> bool,
) -> Result<(), D::Error> {
    json.deserialize_any(Set { words, each, atom: PhantomData })
}

/// Reads a map and hands its pairs to `each`, which answers whether the key was not there already.
///
/// # Errors
/// When the JSON is no map of `K` to `V`, or names a key twice.
pub fn pairs<'de, K: AtomValue, V: AtomValue, D: Deserializer<'de>>(
    json: D,
    words: &mut Words,
    each: impl FnMut(K, V) -> bool,
) -> Result<(), D::Error> {
    json.deserialize_seq(Map { words, each, pair: PhantomData })
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(n) => n.fmt(f),
            Self::Real(x) => x.fmt(f),
            Self::Boolean(b) => b.fmt(f),
            Self::Text(text) => write!(f, "\"{}\"", clip(text, 40)),
            Self::Uuid(uuid) => write!(f, "[\"uuid\", \"{uuid}\"]"),
        }
    }
}

fn atom<A: AtomValue, E: Error>(token: Token<'_>, words: &mut Words) -> Result<A, E> {
    A::from_token(token, words).ok_or_else(|| E::custom(format_args!("expected {}, found {token}", A::ATOM.name())))
}

fn end<'de, S: SeqAccess<'de>>(mut rest: S) -> Result<(), S::Error> {
    match rest.next_element::<IgnoredAny>()? {
        None => Ok(()),
        Some(_) => Err(S::Error::custom("an array with more than it should have")),
    }
}

/// The first of two members of an array, which tells what the second is.
struct Tag;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Set,
    Map,
    Uuid,
}

impl<'de> DeserializeSeed<'de> for Tag {
    type Value = Class;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Class, D::Error> {
        json.deserialize_str(self)
    }
}
impl Visitor<'_> for Tag {
    type Value = Class;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"set\", \"map\" or \"uuid\"")
    }
    fn visit_str<E: Error>(self, tag: &str) -> Result<Class, E> {
        match tag {
            "set" => Ok(Class::Set),
            "map" => Ok(Class::Map),
            "uuid" => Ok(Class::Uuid),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(tag), &self)),
        }
    }
}

fn class<'de, S: SeqAccess<'de>>(array: &mut S, wanted: impl Fn(Class) -> bool, what: &str) -> Result<Class, S::Error> {
    match array.next_element_seed(Tag)? {
        Some(class) if wanted(class) => Ok(class),
        _ => Err(S::Error::custom(format_args!("expected {what}"))),
    }
}

struct UuidText;

impl<'de> DeserializeSeed<'de> for UuidText {
    type Value = Uuid;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Uuid, D::Error> {
        json.deserialize_str(self)
    }
}
impl Visitor<'_> for UuidText {
    type Value = Uuid;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Uuid, E> {
        parse_uuid(text).map_err(E::custom)
    }
}

fn second<'de, S: SeqAccess<'de>, T: DeserializeSeed<'de>>(array: &mut S, seed: T) -> Result<T::Value, S::Error> {
    array.next_element_seed(seed)?.ok_or_else(|| S::Error::custom("an array of one where there should be two"))
}

/// One atom.
struct Atom<'w, A> {
    words: &'w mut Words,
    atom: PhantomData<A>,
}

impl<'de, A: AtomValue> DeserializeSeed<'de> for Atom<'_, A> {
    type Value = A;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<A, D::Error> {
        json.deserialize_any(self)
    }
}

impl<A: AtomValue> Atom<'_, A> {
    fn take<E: Error>(self, token: Token<'_>) -> Result<A, E> {
        atom(token, self.words)
    }
}

/// A number beyond 64 bits is a real.
fn unsigned<'a>(n: u64) -> Token<'a> {
    #[expect(clippy::cast_precision_loss, reason = "a real has that precision")]
    i64::try_from(n).map_or(Token::Real(n as f64), Token::Integer)
}

impl<'de, A: AtomValue> Visitor<'de> for Atom<'_, A> {
    type Value = A;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A::ATOM.name())
    }
    fn visit_bool<E: Error>(self, b: bool) -> Result<A, E> {
        self.take(Token::Boolean(b))
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<A, E> {
        self.take(Token::Integer(n))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<A, E> {
        self.take(unsigned(n))
    }
    fn visit_f64<E: Error>(self, x: f64) -> Result<A, E> {
        self.take(Token::Real(x))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<A, E> {
        self.take(Token::Text(text))
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut array: S) -> Result<A, S::Error> {
        class(&mut array, |class| class == Class::Uuid, A::ATOM.name())?;
        let uuid = second(&mut array, UuidText)?;
        end(array)?;
        self.take(Token::Uuid(uuid))
    }
}

/// `<set>`, or the bare atom that is a set of one.
struct Set<'w, A, F> {
    words: &'w mut Words,
    each: F,
    atom: PhantomData<A>,
}

impl<A: AtomValue, F: FnMut(A) -> bool> Set<'_, A, F> {
    fn take<E: Error>(mut self, token: Token<'_>) -> Result<(), E> {
        (self.each)(atom(token, self.words)?);
        Ok(())
    }
}

impl<'de, A: AtomValue, F: FnMut(A) -> bool> Visitor<'de> for Set<'_, A, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A::ATOM.name())
    }
    fn visit_bool<E: Error>(self, b: bool) -> Result<(), E> {
        self.take(Token::Boolean(b))
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<(), E> {
        self.take(Token::Integer(n))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        self.take(unsigned(n))
    }
    fn visit_f64<E: Error>(self, x: f64) -> Result<(), E> {
        self.take(Token::Real(x))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(Token::Text(text))
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut array: S) -> Result<(), S::Error> {
        match class(&mut array, |class| class != Class::Map, A::ATOM.name())? {
            Class::Set => {
                second(&mut array, Members { words: self.words, each: self.each, atom: PhantomData })?;
                end(array)
            }
            Class::Uuid | Class::Map => {
                let uuid = second(&mut array, UuidText)?;
                end(array)?;
                self.take(Token::Uuid(uuid))
            }
        }
    }
}

/// The members of a `<set>`.
struct Members<'w, A, F> {
    words: &'w mut Words,
    each: F,
    atom: PhantomData<A>,
}

impl<'de, A: AtomValue, F: FnMut(A) -> bool> DeserializeSeed<'de> for Members<'_, A, F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}
impl<'de, A: AtomValue, F: FnMut(A) -> bool> Visitor<'de> for Members<'_, A, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", A::ATOM.name())
    }
    fn visit_seq<S: SeqAccess<'de>>(mut self, mut members: S) -> Result<(), S::Error> {
        while let Some(atom) = members.next_element_seed(Atom { words: self.words, atom: PhantomData })? {
            if !(self.each)(atom) {
                return Err(S::Error::custom("a set names a member twice"));
            }
        }
        Ok(())
    }
}

/// `<map>`.
struct Map<'w, K, V, F> {
    words: &'w mut Words,
    each: F,
    pair: PhantomData<(K, V)>,
}

impl<'de, K: AtomValue, V: AtomValue, F: FnMut(K, V) -> bool> Visitor<'de> for Map<'_, K, V, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[\"map\", …]")
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut array: S) -> Result<(), S::Error> {
        class(&mut array, |class| class == Class::Map, "[\"map\", …]")?;
        second(&mut array, Entries { words: self.words, each: self.each, pair: PhantomData })?;
        end(array)
    }
}

/// The pairs of a `<map>`.
struct Entries<'w, K, V, F> {
    words: &'w mut Words,
    each: F,
    pair: PhantomData<(K, V)>,
}

impl<'de, K: AtomValue, V: AtomValue, F: FnMut(K, V) -> bool> DeserializeSeed<'de> for Entries<'_, K, V, F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}
impl<'de, K: AtomValue, V: AtomValue, F: FnMut(K, V) -> bool> Visitor<'de> for Entries<'_, K, V, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of [key, value]")
    }
    fn visit_seq<S: SeqAccess<'de>>(mut self, mut entries: S) -> Result<(), S::Error> {
        while let Some((key, value)) = entries.next_element_seed(Entry { words: self.words, pair: PhantomData })? {
            if !(self.each)(key, value) {
                return Err(S::Error::custom("a map names a key twice"));
            }
        }
        Ok(())
    }
}

/// `<pair>`.
struct Entry<'w, K, V> {
    words: &'w mut Words,
    pair: PhantomData<(K, V)>,
}

impl<'de, K: AtomValue, V: AtomValue> DeserializeSeed<'de> for Entry<'_, K, V> {
    type Value = (K, V);
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(K, V), D::Error> {
        json.deserialize_seq(self)
    }
}
impl<'de, K: AtomValue, V: AtomValue> Visitor<'de> for Entry<'_, K, V> {
    type Value = (K, V);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key, value]")
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut pair: S) -> Result<(K, V), S::Error> {
        let key = pair.next_element_seed(Atom { words: self.words, atom: PhantomData })?;
        let key = key.ok_or_else(|| S::Error::custom("expected [key, value]"))?;
        let value = second(&mut pair, Atom { words: self.words, atom: PhantomData })?;
        end(pair)?;
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::pairs::Pairs;
    use crate::table::ColumnValue;
    use crate::text::Text;
    use crate::value::{Datum, Real};

    /// Read off the text it is what it is read off a tree, or both refuse it.
    fn agrees<V: ColumnValue + Debug + PartialEq>(text: &str) -> Option<V> {
        let Ok(tree) = serde_json::from_str::<Value>(text) else { return None };
        let by_tree = Datum::decode(&tree, V::TYPE.key, V::TYPE.value).ok().and_then(|datum| V::from_datum(&datum));
        let mut json = serde_json::Deserializer::from_str(text);
        let by_text = V::read(&mut json, &mut Words::default()).ok();
        assert_eq!(by_text, by_tree, "{text}");
        by_text
    }

    fn agrees_for_all(text: &str) -> usize {
        [
            agrees::<i64>(text).is_some(),
            agrees::<Real>(text).is_some(),
            agrees::<bool>(text).is_some(),
            agrees::<String>(text).is_some(),
            agrees::<Text>(text).is_some(),
            agrees::<Uuid>(text).is_some(),
            agrees::<Option<i64>>(text).is_some(),
            agrees::<Option<Uuid>>(text).is_some(),
            agrees::<BTreeSet<i64>>(text).is_some(),
            agrees::<BTreeSet<Real>>(text).is_some(),
            agrees::<BTreeSet<Text>>(text).is_some(),
            agrees::<BTreeSet<Uuid>>(text).is_some(),
            agrees::<BTreeMap<i64, Uuid>>(text).is_some(),
            agrees::<BTreeMap<String, i64>>(text).is_some(),
            agrees::<Pairs>(text).is_some(),
        ]
        .into_iter()
        .filter(|taken| *taken)
        .count()
    }

    #[test]
    fn every_form_is_read_as_from_a_tree() {
        const U: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
        // Text, and as how many of the types above it is a value.
        let cases = [
            ("5".to_owned(), 5),
            ("-0.0".to_owned(), 2),
            ("9223372036854775808".to_owned(), 2),
            ("1e999".to_owned(), 0),
            ("true".to_owned(), 1),
            (r#""a\u00e9\n""#.to_owned(), 3),
            (format!(r#"["uuid","{U}"]"#), 3),
            (format!(r#"["uuid","{U}",1]"#), 0),
            (format!(r#"["set",[["uuid","{U}"]]]"#), 3),
            (r#"["set",[]]"#.to_owned(), 6),
            (r#"["set",[2,1]]"#.to_owned(), 2),
            (r#"["set",[1,1]]"#.to_owned(), 0),
            (r#"["set",["b","a"]]"#.to_owned(), 1),
            (r#"["set",[1],2]"#.to_owned(), 0),
            (r#"["set"]"#.to_owned(), 0),
            (r#"["map",[]]"#.to_owned(), 3),
            (r#"["map",[["a","b"]]]"#.to_owned(), 1),
            (r#"["map",[["a",1]]]"#.to_owned(), 1),
            (r#"["map",[["a","b"],["a","c"]]]"#.to_owned(), 0),
            (r#"["map",[["a"]]]"#.to_owned(), 0),
            (r#"["map",[["a","b","c"]]]"#.to_owned(), 0),
            (format!(r#"["map",[[1,["uuid","{U}"]]]]"#), 1),
            ("null".to_owned(), 0),
            ("{}".to_owned(), 0),
            ("[]".to_owned(), 0),
        ];
        for (text, taken) in cases {
            assert_eq!(agrees_for_all(&text), taken, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_from_a_tree(
            text in r#"(\["(set|map|uuid)",)?[\[\]{}":,a-c0-3.\-]{0,30}"#, whole in any::<bool>()
        ) {
            let text = if whole { format!("[\"set\",[{text}]]") } else { text };
            agrees_for_all(&text);
        }
    }
}
