//! Values of fields as text, out and in, and the names of parts of fields: `NXM_NX_REG0[4..7]`.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::table::Form;
use super::{Field, Oxm, Subfield, low_bits, oxm_number as number};
use crate::text::{PortNames, octets, port, show_port, wrong};
use crate::{PortNo, TextError};

const CT_STATES: &[&str] = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
const TCP_FLAGS: &[&str] = &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
const TUN_FLAGS: &[&str] = &["oam"];

/// What fragments are called: name, value, mask, over the two bits of the field.
const FRAGMENTS: &[(&str, u128, u128)] = &[
    ("no", 0, 3),
    ("first", 1, 3),
    ("later", 3, 3),
    ("no", 0, 1),
    ("yes", 1, 1),
    ("not_later", 0, 2),
    ("later", 2, 2),
];

/// The names of a field's bits, from the lowest; none for a field that is no set of flags.
fn flag_names(form: Form) -> &'static [&'static str] {
    match form {
        Form::CtState => CT_STATES,
        Form::TcpFlags => TCP_FLAGS,
        Form::TunFlags => TUN_FLAGS,
        _ => &[],
    }
}

/// Writes octets as one hexadecimal number, 0 without a prefix.
pub(crate) fn show_hex(out: &mut dyn Write, octets: &[u8]) -> fmt::Result {
    let mut significant = octets.iter().skip_while(|octet| **octet == 0);
    let Some(first) = significant.next() else { return out.write_char('0') };
    write!(out, "{first:#x}")?;
    significant.try_for_each(|octet| write!(out, "{octet:02x}"))
}

/// Writes a value of a field, and the mask where there is one, as actions have it.
pub(crate) fn show_value(
    out: &mut dyn Write,
    field: Field,
    value: &[u8],
    mask: Option<&[u8]>,
    names: &dyn PortNames,
) -> fmt::Result {
    let wide = number(value);
    let all = low_bits(value.len() * 8);
    let wide_mask = mask.map_or(all, number);
    match field.row().form {
        Form::Port if mask.is_none() => {
            let number = wide as u32;
            let port = if value.len() == 2 { PortNo::from_u16(number as u16) } else { PortNo(number) };
            show_port(out, port, names)
        }
        Form::Dec | Form::Port => {
            write!(out, "{wide}")?;
            show_hex_mask(out, mask)
        }
        Form::Hex => {
            show_hex(out, value)?;
            show_hex_mask(out, mask)
        }
        Form::Mac => {
            show_mac(out, value)?;
            let Some(mask) = mask else { return Ok(()) };
            out.write_char('/')?;
            show_mac(out, mask)
        }
        Form::Ipv4 => {
            write!(out, "{}", Ipv4Addr::from(wide as u32))?;
            match prefix(wide_mask, 32) {
                Some(32) => Ok(()),
                Some(prefix) => write!(out, "/{prefix}"),
                None => write!(out, "/{}", Ipv4Addr::from(wide_mask as u32)),
            }
        }
        Form::Ipv6 => {
            show_ipv6(out, wide)?;
            match prefix(wide_mask, 128) {
                Some(128) => Ok(()),
                Some(prefix) => write!(out, "/{prefix}"),
                None => {
                    out.write_char('/')?;
                    show_ipv6(out, wide_mask)
                }
            }
        }
        Form::Frag => {
            let (value, mask) = (wide & wide_mask & 3, wide_mask & 3);
            let known = FRAGMENTS.iter().find(|(_, known, known_mask)| (*known, *known_mask) == (value, mask));
            out.write_str(known.map_or("<error>", |(name, _, _)| name))
        }
        Form::PacketType => write!(out, "({},{:#x})", wide >> 16, wide & 0xffff),
        Form::CtState => show_flags(out, CT_STATES, wide, wide_mask, 0xff),
        Form::TcpFlags => show_flags(out, TCP_FLAGS, wide, wide_mask & 0xfff, 0xfff),
        Form::TunFlags => show_flags(out, TUN_FLAGS, wide, wide_mask & 1, 1),
    }
}

/// Writes a field's value and mask as actions have them.
pub(crate) fn show_oxm(out: &mut dyn Write, oxm: &Oxm, names: &dyn PortNames) -> fmt::Result {
    let value = oxm.value();
    if oxm.mask().is_some_and(|mask| mask.iter().all(|octet| *octet == 0)) {
        return out.write_str("ANY");
    }
    show_value(out, oxm.field(), value, oxm.mask(), names)
}

fn show_hex_mask(out: &mut dyn Write, mask: Option<&[u8]>) -> fmt::Result {
    let Some(mask) = mask else { return Ok(()) };
    out.write_char('/')?;
    show_hex(out, mask)
}

fn show_mac(out: &mut dyn Write, octets: &[u8]) -> fmt::Result {
    crate::text::show_octets(out, octets, ":")
}

/// As the C library writes it, which shows the last 32 bits of an address that is otherwise 0 as IPv4.
fn show_ipv6(out: &mut dyn Write, address: u128) -> fmt::Result {
    if (0x1_0000..=0xffff_ffff).contains(&address) {
        write!(out, "::{}", Ipv4Addr::from(address as u32))
    } else {
        write!(out, "{}", Ipv6Addr::from(address))
    }
}

/// The length of a prefix that is this mask of so many bits.
fn prefix(mask: u128, bits: u32) -> Option<u32> {
    let ones = mask.count_ones();
    let host = low_bits((bits - ones) as usize);
    (mask & host == 0).then_some(ones)
}

/// `a|b` where the mask is complete, else `+a-b`.
fn show_flags(out: &mut dyn Write, names: &[&str], value: u128, mask: u128, complete: u128) -> fmt::Result {
    let bits = (0..32).map(|bit| (bit, 1u128 << bit));
    if mask & complete == complete {
        if value == 0 {
            return out.write_char('0');
        }
        let mut first = true;
        for (bit, flag) in bits.filter(|(_, flag)| value & flag != 0) {
            out.write_str(if std::mem::take(&mut first) { "" } else { "|" })?;
            match names.get(bit) {
                Some(name) => out.write_str(name)?,
                None => write!(out, "{flag:#x}")?,
            }
        }
        return Ok(());
    }
    if mask == 0 {
        return out.write_str("0/0");
    }
    for (bit, flag) in bits.filter(|(_, flag)| mask & flag != 0) {
        out.write_char(if value & flag != 0 { '+' } else { '-' })?;
        out.write_str(names.get(bit).unwrap_or(&"[Unknown]"))?;
    }
    Ok(())
}

/// Reads a value with an optional mask. Of the mask nothing is left where all bits are meant.
///
/// # Errors
/// It is no value of the field.
pub(crate) fn parse_value(field: Field, text: &str, names: &dyn PortNames) -> Result<Oxm, TextError> {
    if text == "*" {
        return Ok(Oxm::masked(field, 0, 0));
    }
    let form = field.row().form;
    let oxm = match form {
        Form::Dec | Form::Hex => parse_numbers(field, text)?,
        Form::Mac => {
            let (value, mask) = parts(text);
            Oxm::masked(field, mac(value)?, mask.map_or(Ok(u128::MAX), mac)?)
        }
        Form::Ipv4 => {
            let address = |text: &str| {
                text.parse::<Ipv4Addr>().map(|ip| u128::from(ip.to_bits())).map_err(|_| wrong(text, "no IPv4 address"))
            };
            let (value, mask) = parts(text);
            Oxm::masked(field, address(value)?, netmask(mask, 32, address)?)
        }
        Form::Ipv6 => {
            let address = |text: &str| {
                text.parse::<Ipv6Addr>().map(Ipv6Addr::to_bits).map_err(|_| wrong(text, "no IPv6 address"))
            };
            let (value, mask) = parts(text);
            Oxm::masked(field, address(value)?, netmask(mask, 128, address)?)
        }
        Form::Port => {
            let port = port(text, names)?;
            let number = if field.octets() == 2 { u32::from(port.short()) } else { port.0 };
            Oxm::new(field, number.into())
        }
        Form::Frag => {
            let known = FRAGMENTS.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(text));
            let (_, value, mask) =
                known.ok_or_else(|| wrong(text, "fragments are no, yes, first, later or not_later"))?;
            Oxm::masked(field, *value, *mask | !3)
        }
        Form::PacketType => {
            let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
            let (space, kind) =
                inner.split_once(',').ok_or_else(|| wrong(text, "a packet type is (namespace,type)"))?;
            let (space, kind) = (crate::text::u16(space, "a namespace")?, crate::text::u16(kind.trim(), "a type")?);
            Oxm::new(field, u128::from(space) << 16 | u128::from(kind))
        }
        Form::CtState | Form::TcpFlags | Form::TunFlags => {
            let (value, mask) = flags(text, flag_names(form))?;
            Oxm::masked(field, value, mask)
        }
    };
    if !field.is_maskable() && oxm.mask().is_some_and(|mask| mask.iter().any(|octet| *octet != 0)) {
        return Err(wrong(text, format!("{field} takes no mask")));
    }
    Ok(oxm)
}

fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)))
}

fn parse_numbers(field: Field, text: &str) -> Result<Oxm, TextError> {
    let (value, mask) = parts(text);
    if field.is_tun_metadata() {
        let mask = mask.map(|mask| digits(mask, field.octets())).transpose()?;
        let mut value = digits(value, field.octets())?;
        let Some(mut mask) = mask else { return Ok(Oxm::from_octets(field, &value, None)) };
        // Both get the width of the wider.
        let width = value.len().max(mask.len());
        for octets in [&mut value, &mut mask] {
            octets.splice(0..0, std::iter::repeat_n(0, width - octets.len()));
        }
        return Ok(Oxm::from_octets(field, &value, Some(&mask)));
    }
    let value = number(&digits(value, field.octets())?);
    let mask = mask.map(|mask| digits(mask, field.octets())).transpose()?;
    let mask = mask.map_or(u128::MAX, |mask| number(&mask));
    Ok(Oxm::masked(field, value, mask))
}

/// A number of at most `most` octets, without leading zeros: hexadecimal of any width, decimal or octal of up to 64
/// bits.
pub(crate) fn digits(text: &str, most: usize) -> Result<Vec<u8>, TextError> {
    let octets = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some("") => return Err(wrong(text, "no digits")),
        Some(hex) if hex.len() % 2 == 1 => octets(&format!("0{hex}"))?,
        Some(hex) => octets(hex)?,
        None => crate::text::u64(text, "this")?.to_be_bytes().to_vec(),
    };
    let significant: Vec<u8> = octets.into_iter().skip_while(|octet| *octet == 0).collect();
    if significant.len() > most {
        return Err(wrong(text, format!("there is room for {most} octets")));
    }
    Ok(significant)
}

fn mac(text: &str) -> Result<u128, TextError> {
    let mut value = 0;
    let mut count = 0;
    for part in text.split(':') {
        let octet = u8::from_str_radix(part, 16).map_err(|_| wrong(text, "no Ethernet address"))?;
        value = value << 8 | u128::from(octet);
        count += 1;
    }
    if count == 6 { Ok(value) } else { Err(wrong(text, "no Ethernet address")) }
}

/// A mask: none, the length of a prefix, or an address.
fn netmask(
    text: Option<&str>,
    bits: u32,
    address: impl Fn(&str) -> Result<u128, TextError>,
) -> Result<u128, TextError> {
    let Some(text) = text else { return Ok(u128::MAX) };
    match text.parse::<u32>() {
        Ok(length) if length <= bits => Ok(low_bits(bits as usize) & !low_bits((bits - length) as usize)),
        Ok(_) => Err(wrong(text, format!("a prefix has at most {bits} bits"))),
        Err(_) => address(text),
    }
}

/// `value/mask`, `+set-clear`, or names and numbers with `|` between them, which mean all bits.
fn flags(text: &str, names: &[&str]) -> Result<(u128, u128), TextError> {
    let allowed = low_bits(names.len());
    let unknown = || wrong(text, format!("the flags are {}", names.join(", ")));
    let named = |name: &str| {
        let bit = names.iter().position(|known| *known == name);
        bit.map(|bit| 1u128 << bit).or_else(|| crate::text::u32(name, "a flag").ok().map(u128::from))
    };
    let checked = |value: u128| if value & !allowed == 0 { Ok(value) } else { Err(unknown()) };
    if let Some((value, mask)) = text.split_once('/') {
        let number = |text| crate::text::u32(text, "flags").map(u128::from);
        return Ok((checked(number(value)?)?, checked(number(mask)?)?));
    }
    if text.starts_with(['+', '-']) {
        let (mut value, mut mask) = (0, 0);
        let mut rest = text;
        while !rest.is_empty() {
            let (sign, tail) = rest.split_at(1);
            let end = tail.find(['+', '-']).unwrap_or(tail.len());
            let (name, tail) = tail.split_at(end);
            let bit = names.iter().position(|known| *known == name).map(|bit| 1u128 << bit).ok_or_else(unknown)?;
            if mask & bit != 0 {
                return Err(wrong(text, format!("{name} twice")));
            }
            mask |= bit;
            value |= if sign == "+" { bit } else { 0 };
            rest = tail;
        }
        return Ok((value, mask));
    }
    let mut value = 0;
    for name in text.split('|') {
        value |= checked(named(name).ok_or_else(unknown)?)?;
    }
    Ok((value, u128::MAX))
}

impl Subfield {
    /// Writes `NXM_NX_REG0[]`, `NXM_NX_REG0[3]` or `NXM_NX_REG0[4..7]`.
    pub(crate) fn show(self, out: &mut dyn Write) -> fmt::Result {
        let mut name = String::new();
        self.field.write_header_name(&mut name)?;
        out.write_str(&name)?;
        let (first, last) = (self.offset, u32::from(self.offset) + u32::from(self.bits) - 1);
        if self == Subfield::whole(self.field) {
            out.write_str("[]")
        } else if self.bits == 1 {
            write!(out, "[{first}]")
        } else {
            write!(out, "[{first}..{last}]")
        }
    }

    /// Reads a subfield at the begin of a text, and what follows it.
    pub(crate) fn parse_prefix(text: &str) -> Result<(Self, &str), TextError> {
        let (name, rest) = text.split_at(text.find(['[', '-']).unwrap_or(text.len()));
        let field =
            Field::by_header_name(name).or_else(|| Field::by_name(name)).ok_or_else(|| wrong(name, "no such field"))?;
        let syntax = || wrong(text, "bits are written [], [3] or [4..7]");
        let Some(inner) = rest.strip_prefix('[') else { return Ok((Subfield::whole(field), rest)) };
        let (inner, rest) = inner.split_once(']').ok_or_else(syntax)?;
        if inner.is_empty() {
            return Ok((Subfield::whole(field), rest));
        }
        let (first, last) = inner.split_once("..").unwrap_or((inner, inner));
        let first: u16 = first.trim().parse().map_err(|_| syntax())?;
        let last: u16 = last.trim().parse().map_err(|_| syntax())?;
        if first > last || last >= field.bits() {
            return Err(wrong(text, format!("{field} has {} bits", field.bits())));
        }
        Ok((Subfield { field, offset: first, bits: last - first + 1 }, rest))
    }

    /// Reads a subfield that is all of a text.
    pub(crate) fn parse(text: &str) -> Result<Self, TextError> {
        match Self::parse_prefix(text)? {
            (subfield, "") => Ok(subfield),
            (_, rest) => Err(wrong(rest, "nothing follows a field")),
        }
    }
}
