//! The Rust types that stand for values of columns: what each can hold, and how it is read, changed and written.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{Deserializer, Error};

use super::{Arity, DeclaredType};
use crate::pairs::Pairs;
use crate::read::{self, Token};
use crate::schema::ColumnType;
use crate::text::Text;
use crate::value::{Atom, AtomType, Datum, DecodeError, Real, Uuid};
use crate::words::Words;

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
