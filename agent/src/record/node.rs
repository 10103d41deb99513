//! Reading one object of a record field by field, in os-vif's envelope or flat, with the path of whatever
//! is wrong. Which fields there are is `shape`'s table; what they make together is `decode`'s.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::Warning;
use super::shape::{self, Family, Field, Kind, Object};
use crate::model::Protocol;

/// Warnings beyond this number are counted, not kept: a record may be a megabyte of unknown keys.
const MAX_WARNINGS: usize = 32;
const ENVELOPE: &str = "versioned_object.";

/// What is wrong with a record and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, e.g. `vif.network.mtu`; empty when the record as a whole is meant.
    pub field: String,
    /// One sentence.
    pub reason: String,
}

impl Fault {
    pub(super) fn new(field: impl Into<String>, reason: impl fmt::Display) -> Fault {
        Fault { field: field.into(), reason: reason.to_string() }
    }
}

/// The warnings of one record, each said once however often it applies.
#[derive(Default)]
pub(super) struct Warnings {
    said: RefCell<BTreeSet<String>>,
    kept: RefCell<Vec<Warning>>,
}

impl Warnings {
    pub(super) fn add(&self, field: String, message: String) {
        let mut said = self.said.borrow_mut();
        if said.len() < 2 * MAX_WARNINGS && !said.insert(message.clone()) {
            return;
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MAX_WARNINGS {
            kept.push(Warning { field, message });
        } else if kept.len() == MAX_WARNINGS {
            kept.push(Warning { field: String::new(), message: "there are more warnings than are shown here".into() });
        }
    }

    pub(super) fn into_list(self) -> Vec<Warning> {
        self.kept.into_inner()
    }
}

/// One object of a record.
pub(super) struct Node<'r> {
    object: &'static Object,
    data: &'r Map<String, Value>,
    path: String,
    warnings: &'r Warnings,
    /// Whether it is an os-vif object.
    enveloped: bool,
}

impl<'r> Node<'r> {
    /// Whether it is an os-vif object, as opposed to a native one.
    pub(super) fn is_os_vif(&self) -> bool {
        self.enveloped
    }

    /// Reads the outside of an object: which one it is, and whether all of its keys are known.
    pub(super) fn open(
        value: &'r Value,
        family: Family,
        path: String,
        warnings: &'r Warnings,
    ) -> Result<Node<'r>, Fault> {
        let Value::Object(map) = value else {
            return Err(Fault::new(path, format_args!("expected an object, got {}", Shown(value))));
        };
        if map.keys().any(|key| key.starts_with(ENVELOPE)) {
            let envelope = Envelope::open(map, &path)?;
            return Self::in_envelope(&envelope, family, path, warnings);
        }
        let mut objects = shape::of(family);
        let object = match map.get("type") {
            None => match (objects.next(), objects.next()) {
                (Some(only), None) => only,
                _ => {
                    return Err(Fault::new(
                        join(&path, "type"),
                        format_args!("is missing; it is one of {}", tags(family)),
                    ));
                }
            },
            Some(tag) => {
                let known = tag.as_str().and_then(|tag| objects.find(|object| object.tag == Some(tag)));
                known.ok_or_else(|| {
                    let tags = tags(family);
                    if tags.is_empty() {
                        Fault::new(join(&path, "type"), "is not a field here")
                    } else {
                        Fault::new(join(&path, "type"), format_args!("{} is not one of {tags}", Shown(tag)))
                    }
                })?
            }
        };
        for key in map.keys() {
            if !(key == "type" && object.tag.is_some()) && object.field(key).is_none() {
                let fields: Vec<_> = object.fields().map(|field| field.name).collect();
                let kind = object.tag.unwrap_or_else(|| object.name());
                return Err(Fault::new(
                    join(&path, key),
                    format_args!("is not a field of {kind}, which has {}", fields.join(", ")),
                ));
            }
        }
        Ok(Node { object, data: map, path, warnings, enveloped: false })
    }

    fn in_envelope(
        envelope: &Envelope<'r>,
        family: Family,
        path: String,
        warnings: &'r Warnings,
    ) -> Result<Node<'r>, Fault> {
        let name = envelope.name;
        let expected = || {
            let names: Vec<_> = shape::of(family).filter_map(|object| Some(object.os_vif?.0)).collect();
            if names.is_empty() { "no os-vif object".to_owned() } else { names.join(", ") }
        };
        let Some(object) = shape::named(name) else {
            return Err(Fault::new(
                join(&path, "versioned_object.name"),
                format_args!("os-vif object {} is not known; expected {}", Quoted(name), expected()),
            ));
        };
        if object.family != family {
            return Err(Fault::new(
                join(&path, "versioned_object.name"),
                format_args!("a {name} cannot stand here; expected {}", expected()),
            ));
        }
        let newest = object.os_vif.map_or(0, |(_, newest)| newest);
        let minor = envelope.minor(newest, &path)?;
        for key in envelope.data.keys() {
            match object.field(key) {
                None => warnings.add(join(&path, key), format!("{name} has no field {}; it is ignored", Quoted(key))),
                Some(field) if field.since > minor => warnings.add(
                    join(&path, key),
                    format!("{name} has {key} since version 1.{} and this one says 1.{minor}; it is used", field.since),
                ),
                Some(field) if !field.nullable && envelope.data[key].is_null() => warnings
                    .add(join(&path, key), format!("{name} cannot have null as its {key}; it is taken for absent")),
                Some(_) => {}
            }
        }
        Ok(Node { object, data: envelope.data, path, warnings, enveloped: true })
    }

    pub(super) fn object(&self) -> &'static Object {
        self.object
    }

    /// The path of a field of this object.
    pub(super) fn at(&self, field: &str) -> String {
        join(&self.path, field)
    }

    /// A field's description and its value; absent and null are one.
    fn find(&self, name: &str) -> (&'static Field, Option<&'r Value>) {
        let field = self.object.field(name);
        // Every name comes from `decode`, next to the object's own, and a test reads every object.
        #[expect(clippy::expect_used, reason = "a wrong name is a mistake in this crate that the tests find")]
        let field = field.expect("a field of this object");
        (field, self.data.get(name).filter(|value| !value.is_null()))
    }

    fn missing(&self, name: &str) -> Fault {
        Fault::new(self.at(name), format_args!("is missing; {} cannot do without it", self.object.name()))
    }

    /// Turns an optional field into one that cannot be left out.
    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| self.missing(name))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Fault> {
        Ok(self.optional_flag(name)?.unwrap_or(default))
    }

    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.find(name).1 {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(Fault::new(self.at(name), format_args!("expected true or false, got {}", Shown(other)))),
        }
    }

    fn str(&self, name: &str) -> Result<Option<&'r str>, Fault> {
        match self.find(name).1 {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Fault::new(self.at(name), format_args!("expected text, got {}", Shown(other)))),
        }
    }

    /// Text; the empty one is os-vif's way of saying none.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        let text = self.str(name)?.filter(|text| !text.is_empty());
        if text.is_some_and(|text| text.contains(char::is_control)) {
            return Err(Fault::new(self.at(name), "has a control character in it"));
        }
        Ok(text.map(str::to_owned))
    }

    /// A value that is written as text.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        let Some(text) = self.str(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.unreadable(self.at(name), name, text))
    }

    /// The fault of text that does not say what the field holds. The parsers' own errors repeat the text
    /// whole or not at all.
    fn unreadable(&self, at: String, name: &str, text: &str) -> Fault {
        let wanted = match self.find(name).0.kind {
            Kind::Uuid => "a UUID",
            Kind::Mac => "a MAC address (six hexadecimal octets such as 52:54:00:12:34:56)",
            Kind::Function => {
                "a PCI address (such as 0000:03:00.2) or BUS/DEV:FUNCTION (such as pci/0000:03:00.0:pf0vf1)"
            }
            Kind::Pci => "a PCI address (such as 0000:03:00.2)",
            Kind::Ip | Kind::Ips => "an IP address",
            Kind::Prefix => "an IP address with a prefix length (such as 10.0.0.0/24)",
            Kind::AddressOrPrefix | Kind::Members => "an IP address or prefix",
            _ => "readable",
        };
        Fault::new(at, format_args!("{} is not {wanted}", Quoted(text)))
    }

    /// A whole number within the bounds of the table.
    pub(super) fn number<T: TryFrom<u64>>(&self, name: &str) -> Result<Option<T>, Fault> {
        let (field, value) = self.find(name);
        let Some(value) = value else { return Ok(None) };
        let (least, most) = if let Kind::Number(least, most) = field.kind { (least, most) } else { (0, u64::MAX) };
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => {
                let unit = if name.ends_with("_kbps") { ", in kbit/s" } else { "" };
                let reason = format_args!("{} is not a whole number from {least} to {most}{unit}", Shown(value));
                Err(Fault::new(self.at(name), reason))
            }
        }
    }

    /// Whether the field is the number 0.
    pub(super) fn is_zero(&self, name: &str) -> bool {
        self.find(name).1.and_then(Value::as_u64) == Some(0)
    }

    /// One of the words of the table.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.str(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text);
        match found {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(Fault::new(self.at(name), format_args!("{} is not one of {}", Quoted(text), words.join(", "))))
            }
        }
    }

    /// Whether the field is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).1.is_some()
    }

    /// An IP protocol.
    pub(super) fn protocol(&self, name: &str) -> Result<Option<Protocol>, Fault> {
        let Some(value) = self.find(name).1 else { return Ok(None) };
        let protocol = match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()).map(Protocol),
            _ => None,
        };
        protocol.map(Some).ok_or_else(|| {
            let names = Protocol::NAMES.map(|(name, _)| name).join(", ");
            Fault::new(self.at(name), format_args!("{} is not a number from 0 to 255 nor one of {names}", Shown(value)))
        })
    }

    /// A list of text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Fault> {
        let texts: Vec<String> = self.parsed_list(name)?;
        match texts.iter().position(|text| text.contains(char::is_control)) {
            Some(at) => Err(Fault::new(format!("{}[{at}]", self.at(name)), "has a control character in it")),
            None => Ok(texts),
        }
    }

    /// An object of lists of values that are written as text; null in place of a list is none.
    pub(super) fn lists<T: FromStr>(&self, name: &str) -> Result<impl Iterator<Item = (String, Vec<T>)>, Fault> {
        let empty = Map::new();
        let map = match self.find(name).1 {
            None => &empty,
            Some(Value::Object(map)) => map,
            Some(other) => {
                return Err(Fault::new(self.at(name), format_args!("expected an object, got {}", Shown(other))));
            }
        };
        let mut lists = Vec::with_capacity(map.len());
        for (key, value) in map {
            let path = join(&self.at(name), key);
            let list = match value {
                Value::Null => Vec::new(),
                Value::Array(list) => self.parsed_elements(name, &path, list)?,
                other => return Err(Fault::new(path, format_args!("expected a list, got {}", Shown(other)))),
            };
            lists.push((key.clone(), list));
        }
        Ok(lists.into_iter())
    }

    /// A list of values that are written as text.
    pub(super) fn parsed_list<T: FromStr>(&self, name: &str) -> Result<Vec<T>, Fault> {
        self.parsed_elements(name, &self.at(name), self.list(name)?)
    }

    fn parsed_elements<T: FromStr>(&self, name: &str, path: &str, list: &[Value]) -> Result<Vec<T>, Fault> {
        let one = |(at, value): (usize, &Value)| {
            let at = || format!("{path}[{at}]");
            let Value::String(text) = value else {
                return Err(Fault::new(at(), format_args!("expected text, got {}", Shown(value))));
            };
            text.parse().map_err(|_| self.unreadable(at(), name, text))
        };
        // Thousands of VIFs keep theirs: by way of a slice, as there is no room in one.
        list.iter().enumerate().map(one).collect::<Result<Box<[T]>, Fault>>().map(<[T]>::into_vec)
    }

    /// The elements of a field that is a plain list.
    fn list(&self, name: &str) -> Result<&'r [Value], Fault> {
        match self.find(name).1 {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(Fault::new(self.at(name), format_args!("expected a list, got {}", Shown(other)))),
        }
    }

    /// A field that is an object.
    pub(super) fn child(&self, name: &str) -> Result<Option<Node<'r>>, Fault> {
        let (field, Some(value)) = self.find(name) else { return Ok(None) };
        let Kind::Object(family) = field.kind else { return Ok(None) };
        Node::open(value, family, self.at(name), self.warnings).map(Some)
    }

    /// A field that is a list of objects: an array, or os-vif's list object.
    pub(super) fn children(&self, name: &str) -> Result<Vec<Node<'r>>, Fault> {
        let (field, Some(value)) = self.find(name) else { return Ok(Vec::new()) };
        let Kind::List(family, list_name) = field.kind else { return Ok(Vec::new()) };
        let path = self.at(name);
        let list = match value {
            Value::Array(list) => list,
            Value::Object(map) if !list_name.is_empty() => {
                let envelope = Envelope::open(map, &path)?;
                if envelope.name != list_name {
                    return Err(Fault::new(
                        join(&path, "versioned_object.name"),
                        format_args!("{} cannot stand here; expected {list_name}", Quoted(envelope.name)),
                    ));
                }
                envelope.minor(0, &path)?;
                match envelope.data.get("objects") {
                    None | Some(Value::Null) => return Ok(Vec::new()),
                    Some(Value::Array(list)) => list,
                    Some(other) => {
                        let message = format_args!("expected a list of objects, got {}", Shown(other));
                        return Err(Fault::new(join(&path, "objects"), message));
                    }
                }
            }
            other => return Err(Fault::new(path, format_args!("expected a list, got {}", Shown(other)))),
        };
        let open = |(at, value)| Node::open(value, family, format!("{path}[{at}]"), self.warnings);
        list.iter().enumerate().map(open).collect()
    }
}

/// The five keys around every serialized os-vif object. `versioned_object.changes` says which fields the
/// sender touched, which is nothing to us.
struct Envelope<'r> {
    name: &'r str,
    version: &'r str,
    data: &'r Map<String, Value>,
}

impl<'r> Envelope<'r> {
    fn open(map: &'r Map<String, Value>, path: &str) -> Result<Self, Fault> {
        let text = |key: &str| {
            let at = || join(path, key);
            let value = map.get(key).ok_or_else(|| Fault::new(at(), "is missing from the os-vif object"))?;
            value.as_str().ok_or_else(|| Fault::new(at(), format_args!("expected text, got {}", Shown(value))))
        };
        let namespace = text("versioned_object.namespace")?;
        if namespace != "os_vif" {
            return Err(Fault::new(
                join(path, "versioned_object.namespace"),
                format_args!("{} is not os_vif", Quoted(namespace)),
            ));
        }
        let at = join(path, "versioned_object.data");
        let data = match map.get("versioned_object.data") {
            Some(Value::Object(data)) => data,
            Some(other) => return Err(Fault::new(at, format_args!("expected an object, got {}", Shown(other)))),
            None => return Err(Fault::new(at, "is missing from the os-vif object")),
        };
        Ok(Envelope { name: text("versioned_object.name")?, version: text("versioned_object.version")?, data })
    }

    /// The minor version, if it is one that we know.
    fn minor(&self, newest: u32, path: &str) -> Result<u32, Fault> {
        let refuse = |reason: fmt::Arguments<'_>| Err(Fault::new(join(path, "versioned_object.version"), reason));
        let numbers = self.version.split_once('.').and_then(|(major, minor)| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok());
            Some((digits(major)??, digits(minor)??))
        });
        match numbers {
            None => refuse(format_args!("{} is not a version such as 1.0", Quoted(self.version))),
            Some((1, minor)) if minor <= newest => Ok(minor),
            Some((1, _)) => refuse(format_args!(
                "{} {} is newer than 1.{newest}, the newest that is known",
                self.name, self.version
            )),
            Some(_) => {
                refuse(format_args!("{} {} is of another major version than 1", self.name, Quoted(self.version)))
            }
        }
    }
}

fn join(path: &str, field: &str) -> String {
    // A key is whatever the sender wrote; a path is for people and logs.
    let field = Clipped(field);
    if path.is_empty() { field.to_string() } else { format!("{path}.{field}") }
}

fn tags(family: Family) -> String {
    let tags: Vec<_> = shape::of(family).filter_map(|object| object.tag).collect();
    tags.join(", ")
}

/// At most 64 characters of what the sender wrote, and none that would break a line.
struct Clipped<'t>(&'t str);

impl fmt::Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(64) {
            if character.is_control() { f.write_str("?")? } else { write!(f, "{character}")? }
        }
        if characters.next().is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// The same in quotation marks.
pub(super) struct Quoted<'t>(pub(super) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Clipped(self.0))
    }
}

/// A JSON value as an error tells of it.
struct Shown<'v>(&'v Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::String(text) => write!(f, "{}", Quoted(text)),
            Value::Array(_) => f.write_str("a list"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}
