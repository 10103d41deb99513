//! Values as they travel (RFC 7047 section 5.1): atoms, sets and maps, and their JSON form both ways.
//!
//! What type a column *must* have lives in [`crate::schema`]; typed Rust fields over these values in
//! [`mod@crate::table`], which are read without a tree in between by [`crate::read`].

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;
pub use uuid::Uuid;

/// The five base types of a column's keys and values (RFC 7047 section 3.2, `<atomic-type>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AtomType {
    /// Signed 64-bit integer.
    Integer,
    /// IEEE 754 double, finite.
    Real,
    /// `true` or `false`.
    Boolean,
    /// Unicode without NUL.
    String,
    /// Row identifier.
    Uuid,
}

impl AtomType {
    /// The word of the schema, e.g. `"integer"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Uuid => "uuid",
        }
    }

    /// The inverse of [`AtomType::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "integer" => Self::Integer,
            "real" => Self::Real,
            "boolean" => Self::Boolean,
            "string" => Self::String,
            "uuid" => Self::Uuid,
            _ => return None,
        })
    }

    /// The default atom of this type (RFC 7047 section 5.2.1): 0, 0.0, false, "" or the zero UUID.
    #[must_use]
    pub fn default_atom(self) -> Atom {
        match self {
            Self::Integer => Atom::Integer(0),
            Self::Real => Atom::Real(Real(0.0)),
            Self::Boolean => Atom::Boolean(false),
            Self::String => Atom::String(String::new()),
            Self::Uuid => Atom::Uuid(Uuid::nil()),
        }
    }
}

impl fmt::Display for AtomType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A finite double with a total order, so that it can be a set member or a map key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real(f64);

impl Real {
    /// `None` for infinities and NaN, which JSON and OVSDB cannot express. Negative zero becomes zero.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        // Adding positive zero turns -0.0 into 0.0: the server holds them equal, so must our order.
        value.is_finite().then_some(Self(value + 0.0))
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Real {}
impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Real {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// One scalar (RFC 7047 section 5.1, `<atom>`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// Signed 64-bit integer.
    Integer(i64),
    /// Finite double.
    Real(Real),
    /// Boolean.
    Boolean(bool),
    /// Unicode string. The wire forbids NUL; see [`Atom::has_nul`].
    String(String),
    /// `["uuid", "…"]`.
    Uuid(Uuid),
    /// `["named-uuid", "…"]`: a row inserted by the same transaction. Only ever sent, never received.
    NamedUuid(String),
}

impl Atom {
    /// Reads an atom of type `ty`.
    ///
    /// # Errors
    /// When the JSON is of another type, an integer does not fit 64 bits, or a UUID is malformed.
    pub fn decode(json: &Value, ty: AtomType) -> Result<Self, DecodeError> {
        let wrong = || DecodeError::expected(ty.name(), json);
        Ok(match ty {
            AtomType::Integer => Self::Integer(json.as_i64().ok_or_else(wrong)?),
            AtomType::Real => Self::Real(json.as_f64().and_then(Real::new).ok_or_else(wrong)?),
            AtomType::Boolean => Self::Boolean(json.as_bool().ok_or_else(wrong)?),
            AtomType::String => Self::String(json.as_str().ok_or_else(wrong)?.to_owned()),
            AtomType::Uuid => Self::Uuid(decode_uuid(json)?),
        })
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(n) => Value::from(*n),
            Self::Real(x) => Value::from(x.get()),
            Self::Boolean(b) => Value::from(*b),
            Self::String(s) => Value::from(s.as_str()),
            Self::Uuid(u) => uuid_json(*u),
            Self::NamedUuid(name) => Value::from(vec!["named-uuid", name.as_str()]),
        }
    }

    /// Whether this is a string that contains NUL. ovsdb-server does not answer such a message with an
    /// error: its JSON parser gives up and the connection with it, so a transaction refuses it beforehand.
    #[must_use]
    pub fn has_nul(&self) -> bool {
        matches!(self, Self::String(s) if s.contains('\0'))
    }
}

/// `["uuid", "…"]`.
#[must_use]
pub fn uuid_json(uuid: Uuid) -> Value {
    Value::from(vec!["uuid".to_owned(), uuid.to_string()])
}

/// Reads `["uuid", "…"]`.
///
/// # Errors
/// When the JSON is anything else or the text is not a UUID in its 36-character form.
pub fn decode_uuid(json: &Value) -> Result<Uuid, DecodeError> {
    match json.as_array().map(Vec::as_slice) {
        Some([Value::String(class), Value::String(text)]) if class == "uuid" => parse_uuid(text),
        _ => Err(DecodeError::expected("[\"uuid\", …]", json)),
    }
}

/// Reads the bare 36-character form that names rows in updates.
///
/// # Errors
/// When the text is anything else (also the other spellings that the `uuid` crate takes).
pub fn parse_uuid(text: &str) -> Result<Uuid, DecodeError> {
    if text.len() == 36
        && let Ok(uuid) = Uuid::try_parse(text)
    {
        return Ok(uuid);
    }
    Err(DecodeError::new(format!("expected a UUID, found \"{}\"", clip(text, 40))))
}

macro_rules! atom_from {
    ($($from:ty => |$x:ident| $atom:expr;)*) => { $(
        impl From<$from> for Atom { fn from($x: $from) -> Self { $atom } }
    )* };
}
atom_from! {
    i64 => |n| Atom::Integer(n);
    bool => |b| Atom::Boolean(b);
    Real => |x| Atom::Real(x);
    String => |s| Atom::String(s);
    &str => |s| Atom::String(s.to_owned());
    Uuid => |u| Atom::Uuid(u);
}

/// A sorted set of distinct atoms. A scalar column is a set of one, an absent optional one a set of none
/// (RFC 7047 section 5.1). Kept as a sorted vector: most sets hold zero or one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set(Vec<Atom>);

impl Set {
    /// Sorts and removes duplicates.
    #[must_use]
    pub fn new(mut atoms: Vec<Atom>) -> Self {
        atoms.sort_unstable();
        atoms.dedup();
        Self(atoms)
    }

    /// Members in order.
    #[must_use]
    pub fn atoms(&self) -> &[Atom] {
        &self.0
    }

    /// Members in order.
    #[must_use]
    pub fn into_atoms(self) -> Vec<Atom> {
        self.0
    }
}

/// A sorted map from atoms to atoms, keys distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Map(Vec<(Atom, Atom)>);

impl Map {
    /// Sorts by key; of pairs with equal keys the last one stays.
    #[must_use]
    pub fn new(mut pairs: Vec<(Atom, Atom)>) -> Self {
        // The sort is stable, so equal keys keep their order and the later one overwrites the earlier.
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self(pairs)
    }

    /// Pairs in key order.
    #[must_use]
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        &self.0
    }

    /// The value at `key`.
    #[must_use]
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        let at = self.0.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        Some(&self.0[at].1)
    }
}

/// The value of one column of one row (RFC 7047 section 5.1, `<value>`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datum {
    /// A scalar, an optional scalar or a set.
    Set(Set),
    /// A map.
    Map(Map),
}

impl Datum {
    /// A set of none.
    #[must_use]
    pub fn empty_set() -> Self {
        Self::Set(Set::default())
    }

    /// A set of these, sorted, duplicates removed.
    pub fn set<A: Into<Atom>>(atoms: impl IntoIterator<Item = A>) -> Self {
        Self::Set(Set::new(atoms.into_iter().map(Into::into).collect()))
    }

    /// A map of these; of equal keys the last one stays.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Map(Map::new(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect()))
    }

    /// Members of a set or pairs of a map.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Set(set) => set.0.len(),
            Self::Map(map) => map.0.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a set (`value` is `None`) or a map of the given base types. How many members there may be is
    /// not judged here, since differences obey no limit; see [`crate::schema::ColumnType::check_len`].
    ///
    /// # Errors
    /// When the JSON is of another shape, an atom of another type, or a member or key is there twice.
    /// The error says at which member.
    pub fn decode(json: &Value, key: AtomType, value: Option<AtomType>) -> Result<Self, DecodeError> {
        let tagged = match json.as_array().map(Vec::as_slice) {
            Some([Value::String(class), Value::Array(members)]) => Some((class.as_str(), members)),
            _ => None,
        };
        match (value, tagged) {
            (None, Some(("set", members))) => {
                let mut atoms = Vec::with_capacity(members.len());
                for (i, member) in members.iter().enumerate() {
                    atoms.push(Atom::decode(member, key).map_err(|e| e.at_index(i))?);
                }
                let set = Set::new(atoms);
                if set.0.len() != members.len() {
                    return Err(DecodeError::new("a set names a member twice"));
                }
                Ok(Self::Set(set))
            }
            (None, _) => Ok(Self::Set(Set(vec![Atom::decode(json, key)?]))),
            (Some(value), Some(("map", members))) => {
                let mut pairs = Vec::with_capacity(members.len());
                for (i, member) in members.iter().enumerate() {
                    let Some([k, v]) = member.as_array().map(Vec::as_slice) else {
                        return Err(DecodeError::expected("[key, value]", member).at_index(i));
                    };
                    let k = Atom::decode(k, key).map_err(|e| e.within("key").at_index(i))?;
                    let v = Atom::decode(v, value).map_err(|e| e.within("value").at_index(i))?;
                    pairs.push((k, v));
                }
                let map = Map::new(pairs);
                if map.0.len() != members.len() {
                    return Err(DecodeError::new("a map names a key twice"));
                }
                Ok(Self::Map(map))
            }
            (Some(_), _) => Err(DecodeError::expected("[\"map\", …]", json)),
        }
    }

    /// The JSON form: a set of one is its bare atom, as ovsdb-server writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Set(Set(atoms)) => match atoms.as_slice() {
                [one] => one.to_json(),
                many => Value::from(vec![Value::from("set"), Value::Array(many.iter().map(Atom::to_json).collect())]),
            },
            Self::Map(Map(pairs)) => {
                let pairs = pairs.iter().map(|(k, v)| Value::from(vec![k.to_json(), v.to_json()]));
                Value::from(vec![Value::from("map"), Value::Array(pairs.collect())])
            }
        }
    }

    /// Whether a string anywhere in it contains NUL; see [`Atom::has_nul`].
    #[must_use]
    pub fn has_nul(&self) -> bool {
        match self {
            Self::Set(set) => set.0.iter().any(Atom::has_nul),
            Self::Map(map) => map.0.iter().any(|(k, v)| k.has_nul() || v.has_nul()),
        }
    }
}

impl<A: Into<Atom>> From<A> for Datum {
    fn from(atom: A) -> Self {
        Self::Set(Set(vec![atom.into()]))
    }
}

/// JSON that is not what the schema or the protocol says, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{problem}", self.at, if self.at.is_empty() { "" } else { ": " })]
pub struct DecodeError {
    /// Where, from the outside in, e.g. `Port/1bd7…/external_ids[3]/value`; empty at the top.
    at: String,
    /// What was expected and what was found.
    problem: String,
}

impl DecodeError {
    /// A problem right here.
    pub fn new(problem: impl Into<String>) -> Self {
        // A parser repeats what it found, and what it found may be a megabyte of a peer's.
        Self { at: String::new(), problem: clip(&problem.into(), 1000) }
    }

    /// `expected X, found Y`, with Y shortened.
    #[must_use]
    pub fn expected(what: &str, found: &Value) -> Self {
        Self::new(format!("expected {what}, found {}", describe(found)))
    }

    /// The same problem, seen from the object that holds it under `name`.
    #[must_use]
    pub fn within(mut self, name: &str) -> Self {
        let separator = if self.at.is_empty() || self.at.starts_with('[') { "" } else { "/" };
        self.at = format!("{}{separator}{}", clip(name, 100), self.at);
        self
    }

    /// The same problem, seen from the array that holds it at `index`.
    #[must_use]
    pub fn at_index(mut self, index: usize) -> Self {
        let separator = if self.at.is_empty() || self.at.starts_with('[') { "" } else { "/" };
        self.at = format!("[{index}]{separator}{}", self.at);
        self
    }

    /// Where, from the outside in; empty at the top.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.at
    }
}

/// A short account of a JSON value for error messages: its cost does not grow with the value.
fn describe(json: &Value) -> String {
    match json {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => format!("\"{}\"", clip(s, 40)),
        Value::Array(items) => match items.first() {
            Some(Value::String(class)) => {
                format!("an array [\"{}\", …] of {}", clip(class, 40), items.len())
            }
            _ => format!("an array of {}", items.len()),
        },
        Value::Object(members) => format!("an object of {}", members.len()),
    }
}

/// At most so many characters of what a peer sent, for messages.
pub(crate) fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
