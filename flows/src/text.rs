//! The pieces that flows, actions, groups and meters have in common as text, in the manner of `ovs-ofctl(8)` and
//! `ovs-actions(7)`: `key=value` and `key(…)` lists, numbers, port names. What the keys mean is not known here.

use std::fmt;

use crate::{PortNo, TextError};

/// Names of ports, for texts that show or use them.
pub trait PortNames {
    /// A port's name, to write in place of its number.
    fn name(&self, port: PortNo) -> Option<&str>;
    /// The port of this name.
    fn number(&self, name: &str) -> Option<PortNo>;
}

/// No names: ports are numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unnamed;

impl PortNames for Unnamed {
    fn name(&self, _: PortNo) -> Option<&str> {
        None
    }

    fn number(&self, _: &str) -> Option<PortNo> {
        None
    }
}

/// Something of OpenFlow that has `ovs-ofctl`'s text form.
pub(crate) trait Show {
    /// Writes it, ports by their names.
    fn show(&self, out: &mut dyn fmt::Write, names: &dyn PortNames) -> fmt::Result;
}

/// Something with its ports shown by name.
pub struct Named<'a> {
    pub(crate) what: &'a dyn Show,
    pub(crate) names: &'a dyn PortNames,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.show(f, self.names)
    }
}

/// `Display` without names, `FromStr` without names, and the same with names.
macro_rules! text_form {
    ($name:ty) => {
        impl $name {
            /// The same text with ports by their names.
            pub fn named<'a>(&'a self, names: &'a dyn crate::text::PortNames) -> crate::text::Named<'a> {
                crate::text::Named { what: self, names }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::text::Show::show(self, f, &crate::text::Unnamed)
            }
        }
    };
}
pub(crate) use text_form;

/// A number as C's `%#x` writes it: hexadecimal, without a prefix before 0.
pub(crate) struct Alt(pub u64);

impl fmt::Display for Alt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}

/// Writes a list's elements with commas between them.
pub(crate) struct Commas<'a> {
    out: &'a mut dyn fmt::Write,
    first: bool,
}

impl<'a> Commas<'a> {
    pub(crate) fn new(out: &'a mut dyn fmt::Write) -> Self {
        Commas { out, first: true }
    }

    /// Where the next element goes.
    pub(crate) fn next(&mut self) -> Result<&mut dyn fmt::Write, fmt::Error> {
        if !std::mem::take(&mut self.first) {
            self.out.write_char(',')?;
        }
        Ok(self.out)
    }

    /// Writes an element.
    pub(crate) fn put(&mut self, element: fmt::Arguments<'_>) -> fmt::Result {
        self.next()?.write_fmt(element)
    }
}

/// An error about a part of a text.
pub(crate) fn wrong(what: &str, fault: impl Into<String>) -> TextError {
    // A text may be long, and what is shown of it is for people.
    let what =
        if what.chars().count() > 200 { what.chars().take(200).collect::<String>() + "…" } else { what.to_owned() };
    TextError { what, fault: fault.into() }
}

const DELIMITERS: &[char] = &[',', ' ', '\t', '\r', '\n'];

/// Splits a text into keys and values: `key`, `key=value`, `key:value`, `key(value)`. A value ends with a comma or
/// blank that is in no parentheses or brackets; one in parentheses with its own closing one, or, where `->` follows
/// that, as `key=value` does: `check_pkt_larger(100)->reg0[0]` has the value `100)->reg0[0]`.
pub(crate) struct KeyValues<'a> {
    rest: &'a str,
}

impl<'a> KeyValues<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        KeyValues { rest: text }
    }
}

impl<'a> Iterator for KeyValues<'a> {
    /// Key and value; an empty value where there is none.
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.trim_start_matches(DELIMITERS);
        if text.is_empty() {
            self.rest = text;
            return None;
        }
        let end = text.find(|c| ":=(".contains(c) || DELIMITERS.contains(&c)).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let mut rest_chars = rest.chars();
        let delimiter = rest_chars.next();
        let rest = rest_chars.as_str();
        let (value, rest) = match delimiter {
            Some(':' | '=') => split_value(rest, false),
            Some('(') => {
                let (inner, after) = split_value(rest, true);
                if after.starts_with(")->") {
                    let (tail, _) = split_value(after, false);
                    rest.split_at(inner.len() + tail.len())
                } else {
                    (inner, after)
                }
            }
            _ => ("", rest),
        };
        // A value ends with a delimiter of one octet, or with the text.
        self.rest = if matches!(delimiter, Some(':' | '=' | '(')) { rest.get(1..).unwrap_or_default() } else { rest };
        Some((key, value))
    }
}

/// Cuts a value off: up to a closing parenthesis of its own (`closed`), or to a comma or blank.
fn split_value(text: &str, closed: bool) -> (&str, &str) {
    let mut depth = 0u32;
    for (at, c) in text.char_indices() {
        if depth == 0 && if closed { c == ')' } else { DELIMITERS.contains(&c) } {
            return text.split_at(at);
        }
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (text, "")
}

/// A whole number in decimal, hexadecimal (`0x`) or octal (`0`), as `strtoull` has it.
pub(crate) fn number(text: &str, most: u64, name: &str) -> Result<u64, TextError> {
    let digits = text.trim_start();
    let parsed = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        parse_digits(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        parse_digits(&digits[1..], 8)
    } else {
        parse_digits(digits, 10)
    };
    match parsed {
        Some(value) if value <= most => Ok(value),
        Some(_) => Err(wrong(text, format!("{name} is at most {most}"))),
        None => Err(wrong(text, format!("{name} is a number"))),
    }
}

fn parse_digits(digits: &str, radix: u32) -> Option<u64> {
    // The standard library takes a sign, which is none here.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// A number of 8 bits.
pub(crate) fn u8(text: &str, name: &str) -> Result<u8, TextError> {
    number(text, u8::MAX.into(), name).map(|value| value as u8)
}

/// A number of 16 bits.
pub(crate) fn u16(text: &str, name: &str) -> Result<u16, TextError> {
    number(text, u16::MAX.into(), name).map(|value| value as u16)
}

/// A number of 32 bits.
pub(crate) fn u32(text: &str, name: &str) -> Result<u32, TextError> {
    number(text, u32::MAX.into(), name).map(|value| value as u32)
}

/// A number of 64 bits.
pub(crate) fn u64(text: &str, name: &str) -> Result<u64, TextError> {
    number(text, u64::MAX, name)
}

/// Octets as pairs of hexadecimal digits, dots and blanks between them.
pub(crate) fn octets(text: &str) -> Result<Vec<u8>, TextError> {
    let mut digits = text.chars().filter(|c| *c != '.' && !c.is_whitespace()).map(|c| c.to_digit(16));
    let mut octets = Vec::with_capacity(text.len() / 2);
    while let Some(high) = digits.next() {
        let (Some(high), Some(Some(low))) = (high, digits.next()) else {
            return Err(wrong(text, "octets are pairs of hexadecimal digits"));
        };
        octets.push((high << 4 | low) as u8);
    }
    Ok(octets)
}

/// Writes octets as pairs of hexadecimal digits with `between` between them.
pub(crate) fn show_octets(out: &mut dyn fmt::Write, octets: &[u8], between: &str) -> fmt::Result {
    for (at, octet) in octets.iter().enumerate() {
        if at > 0 {
            out.write_str(between)?;
        }
        write!(out, "{octet:02x}")?;
    }
    Ok(())
}

const RESERVED: &[(&str, PortNo)] = &[
    ("IN_PORT", PortNo::IN_PORT),
    ("TABLE", PortNo::TABLE),
    ("NORMAL", PortNo::NORMAL),
    ("FLOOD", PortNo::FLOOD),
    ("ALL", PortNo::ALL),
    ("CONTROLLER", PortNo::CONTROLLER),
    ("LOCAL", PortNo::LOCAL),
    ("ANY", PortNo::ANY),
    ("UNSET", PortNo::UNSET),
    ("NONE", PortNo::ANY),
];

/// A port: a number as OpenFlow 1.0 (16 bits) or 1.1 (32 bits) has it, a reserved name, or a name.
pub(crate) fn port(text: &str, names: &dyn PortNames) -> Result<PortNo, TextError> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let number = number(text, u32::MAX.into(), "a port number")? as u32;
        return match u16::try_from(number) {
            Ok(number) => Ok(PortNo::from_u16(number)),
            Err(_) if PortNo(number) >= PortNo::MAX => Ok(PortNo(number)),
            Err(_) => Err(wrong(text, "OVS has no port of this number")),
        };
    }
    if let Some((_, port)) = RESERVED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*port);
    }
    let name = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    names.number(name).ok_or_else(|| wrong(text, "no such port"))
}

/// Writes a port: a reserved one's name, its own name, or its number.
pub(crate) fn show_port(out: &mut dyn fmt::Write, port: PortNo, names: &dyn PortNames) -> fmt::Result {
    if let Some((name, _)) = RESERVED.iter().find(|(_, reserved)| *reserved == port) {
        return out.write_str(name);
    }
    match names.name(port) {
        Some(name) if name.starts_with(|c: char| c.is_alphabetic()) && name.chars().all(is_plain) => {
            out.write_str(name)
        }
        Some(name) => write!(out, "\"{name}\""),
        // Reserved numbers without a name are known by those they had in OpenFlow 1.0.
        None => write!(out, "{}", port.to_u16().map_or(port.0, u32::from)),
    }
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}
