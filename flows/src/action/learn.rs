//! `learn(…)`: flows made of packets (`NXAST_LEARN`, `NXAST_LEARN2`).

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::decode::{checked, read_field, read_short};
use super::encode::{end, nicira, put_short};
use crate::field::header::Use;
use crate::field::text::{digits, parse_value, show_hex, show_value};
use crate::field::{Subfield, low_bits, oxm_number};
use crate::text::{self, KeyValues, PortNames, wrong};
use crate::wire::Reader;
use crate::{DecodeError, TextError};

/// A flow to add for each packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learn {
    /// Its idle timeout, in seconds; 0 for none.
    pub idle_timeout: u16,
    /// Its hard timeout, in seconds; 0 for none.
    pub hard_timeout: u16,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// What else is wanted.
    pub flags: LearnFlags,
    /// Its table, 0 to 254.
    pub table: u8,
    /// Its idle timeout once a connection ends; 0 for no change.
    pub fin_idle_timeout: u16,
    /// Its hard timeout once a connection ends; 0 for no change.
    pub fin_hard_timeout: u16,
    /// How many flows there may be; 0 for any number.
    pub limit: u32,
    /// The bit that says whether the limit let it be learned.
    pub result: Option<Subfield>,
    /// What it matches and does.
    pub specs: Box<[LearnSpec]>,
}

/// `NX_LEARN_F_*` without `NX_LEARN_F_WRITE_RESULT`, which [`Learn::result`] says; nothing else of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LearnFlags(pub u16);

impl LearnFlags {
    /// Tell when a learned flow is removed.
    pub const SEND_FLOW_REM: LearnFlags = LearnFlags(1);
    /// Learned flows go when this one does.
    pub const DELETE_LEARNED: LearnFlags = LearnFlags(2);
}

/// `NX_LEARN_F_WRITE_RESULT`.
const WRITE_RESULT: u16 = 4;

/// One thing that a learned flow matches or does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LearnSpec {
    /// How many bits it is about, up to 1023.
    pub bits: u16,
    /// Where they come from.
    pub source: LearnSource,
    /// Where they go.
    pub target: LearnTarget,
}

/// Where bits of a learned flow come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LearnSource {
    /// The packet.
    Field(Subfield),
    /// Here: as many octets as the bits need.
    Value(Box<[u8]>),
}

/// Where bits of a learned flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnTarget {
    /// They are matched in this field.
    Match(Subfield),
    /// They are loaded into this field.
    Load(Subfield),
    /// They are the number of a port to output to. They come from a field.
    Output,
}

impl Learn {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let second = self.limit != 0 || self.result.is_some();
        let start = nicira(if second { 45 } else { 16 }, out);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u16(self.priority);
        out.put_u64(self.cookie);
        out.put_u16(self.flags.0 | if self.result.is_some() { WRITE_RESULT } else { 0 });
        out.put_u8(self.table);
        out.put_u8(0);
        out.put_u16(self.fin_idle_timeout);
        out.put_u16(self.fin_hard_timeout);
        if second {
            out.put_u32(self.limit);
            out.put_u16(self.result.map_or(0, |result| result.offset));
            out.put_u16(0);
            if let Some(result) = self.result {
                result.field.put_header(Use::Action, false, result.field.header_width(), out);
            }
        }
        for spec in &self.specs {
            spec.put(out);
        }
        end(start, out);
    }

    /// Nothing, if it has flags, a field or a kind of specification that are not known.
    pub(super) fn read(reader: &mut Reader<'_>, second: bool) -> Result<Option<Self>, DecodeError> {
        let (idle_timeout, hard_timeout, priority) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let cookie = reader.u64()?;
        let flags = reader.u16()?;
        let table = reader.u8()?;
        reader.skip(1)?;
        let (fin_idle_timeout, fin_hard_timeout) = (reader.u16()?, reader.u16()?);
        let (mut limit, mut result) = (0, None);
        if second {
            limit = reader.u32()?;
            let offset = reader.u16()?;
            reader.skip(2)?;
            if flags & WRITE_RESULT != 0 {
                let Some(field) = read_field(reader)? else { return Ok(None) };
                result = Some(checked(reader, Subfield { field, offset, bits: 1 })?);
            }
        }
        let known = if second { 7 } else { 3 };
        if flags & !known != 0 {
            return Ok(None);
        }
        let mut specs = Vec::new();
        while reader.len() >= 2 {
            let header = reader.u16()?;
            if header == 0 {
                break;
            }
            match LearnSpec::read(header, reader)? {
                Some(spec) => specs.push(spec),
                None => return Ok(None),
            }
        }
        let flags = LearnFlags(flags & !WRITE_RESULT);
        let specs = specs.into();
        Ok(Some(Learn {
            idle_timeout,
            hard_timeout,
            priority,
            cookie,
            flags,
            table,
            fin_idle_timeout,
            fin_hard_timeout,
            limit,
            result,
            specs,
        }))
    }

    pub(super) fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        write!(out, "learn(table={}", self.table)?;
        let numbers = [
            ("idle_timeout", self.idle_timeout, 0),
            ("hard_timeout", self.hard_timeout, 0),
            ("fin_idle_timeout", self.fin_idle_timeout, 0),
            ("fin_hard_timeout", self.fin_hard_timeout, 0),
            ("priority", self.priority, DEFAULT_PRIORITY),
        ];
        for (name, number, default) in numbers {
            if number != default {
                write!(out, ",{name}={number}")?;
            }
        }
        if self.flags.0 & 1 != 0 {
            out.write_str(",send_flow_rem")?;
        }
        if self.flags.0 & 2 != 0 {
            out.write_str(",delete_learned")?;
        }
        if self.cookie != 0 {
            write!(out, ",cookie={:#x}", self.cookie)?;
        }
        if self.limit != 0 {
            write!(out, ",limit={}", self.limit)?;
        }
        if let Some(result) = self.result {
            out.write_str(",result_dst=")?;
            result.show(out)?;
        }
        for spec in &self.specs {
            out.write_char(',')?;
            spec.show(out, names)?;
        }
        out.write_char(')')
    }

    pub(super) fn parse(value: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        let mut found = Learn {
            idle_timeout: 0,
            hard_timeout: 0,
            priority: DEFAULT_PRIORITY,
            cookie: 0,
            flags: LearnFlags::default(),
            table: 1,
            fin_idle_timeout: 0,
            fin_hard_timeout: 0,
            limit: 0,
            result: None,
            specs: Box::default(),
        };
        let mut specs = Vec::new();
        for (key, value) in KeyValues::new(value) {
            match key {
                "table" => {
                    found.table = text::u8(value, key)?;
                    if found.table == 255 {
                        return Err(wrong(value, "no table to learn in"));
                    }
                }
                "priority" => found.priority = text::u16(value, key)?,
                "idle_timeout" => found.idle_timeout = text::u16(value, key)?,
                "hard_timeout" => found.hard_timeout = text::u16(value, key)?,
                "fin_idle_timeout" => found.fin_idle_timeout = text::u16(value, key)?,
                "fin_hard_timeout" => found.fin_hard_timeout = text::u16(value, key)?,
                "cookie" => found.cookie = text::u64(value, key)?,
                "send_flow_rem" => found.flags.0 |= LearnFlags::SEND_FLOW_REM.0,
                "delete_learned" => found.flags.0 |= LearnFlags::DELETE_LEARNED.0,
                "limit" => found.limit = text::u32(value, key)?,
                "result_dst" => {
                    let result = Subfield::parse(value)?;
                    if result.bits != 1 || !result.field.is_writable() {
                        return Err(wrong(value, "the result is one bit that can be written"));
                    }
                    found.result = Some(result);
                }
                _ => specs.push(LearnSpec::parse(key, value, names)?),
            }
        }
        found.specs = specs.into();
        Ok(found)
    }
}

/// `OFP_DEFAULT_PRIORITY`.
const DEFAULT_PRIORITY: u16 = 0x8000;

/// `NX_LEARN_*`: bits of a specification's header.
const IMMEDIATE: u16 = 1 << 13;
const LOAD: u16 = 1 << 11;
const OUTPUT: u16 = 2 << 11;
const TARGET: u16 = 3 << 11;
const BITS: u16 = 0x3ff;

impl LearnSpec {
    fn put(&self, out: &mut BytesMut) {
        let source = if matches!(self.source, LearnSource::Value(_)) { IMMEDIATE } else { 0 };
        let target = match self.target {
            LearnTarget::Match(_) => 0,
            LearnTarget::Load(_) => LOAD,
            LearnTarget::Output => OUTPUT,
        };
        out.put_u16(self.bits & BITS | source | target);
        match &self.source {
            LearnSource::Field(subfield) => put_part(*subfield, out),
            LearnSource::Value(value) => {
                let (width, padded) = (usize::from(self.bits.div_ceil(8)), usize::from(self.bits.div_ceil(16)) * 2);
                out.put_bytes(0, padded.saturating_sub(value.len().min(width)));
                out.put_slice(&value[..value.len().min(width)]);
            }
        }
        match self.target {
            LearnTarget::Match(subfield) | LearnTarget::Load(subfield) => put_part(subfield, out),
            LearnTarget::Output => {}
        }
    }

    fn read(header: u16, reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let bits = header & BITS;
        let source = if header & IMMEDIATE != 0 {
            let (width, padded) = (usize::from(bits.div_ceil(8)), usize::from(bits.div_ceil(16)) * 2);
            reader.skip(padded - width)?;
            LearnSource::Value(reader.take(width)?.into())
        } else {
            match read_part(bits, reader)? {
                Some(subfield) => LearnSource::Field(subfield),
                None => return Ok(None),
            }
        };
        let target = match header & TARGET {
            OUTPUT if header & IMMEDIATE == 0 => LearnTarget::Output,
            kind @ (0 | LOAD) => match read_part(bits, reader)? {
                Some(subfield) if kind == LOAD => LearnTarget::Load(subfield),
                Some(subfield) => LearnTarget::Match(subfield),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        if header & !(BITS | IMMEDIATE | TARGET) != 0 {
            return Ok(None);
        }
        Ok(Some(LearnSpec { bits, source, target }))
    }

    fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        match (&self.source, self.target) {
            (LearnSource::Value(value), LearnTarget::Match(dest)) if dest == Subfield::whole(dest.field) => {
                write!(out, "{}=", dest.field)?;
                let width = dest.field.octets();
                let mut padded = vec![0; width.saturating_sub(value.len())];
                padded.extend_from_slice(value);
                show_value(out, dest.field, &padded, None, names)
            }
            (LearnSource::Value(value), LearnTarget::Match(dest)) => {
                dest.show(out)?;
                out.write_char('=')?;
                show_hex(out, value)
            }
            (LearnSource::Field(source), LearnTarget::Match(dest)) => {
                dest.show(out)?;
                if *source != dest {
                    out.write_char('=')?;
                    source.show(out)?;
                }
                Ok(())
            }
            (LearnSource::Value(value), LearnTarget::Load(dest)) => {
                out.write_str("load:")?;
                show_hex(out, value)?;
                out.write_str("->")?;
                dest.show(out)
            }
            (LearnSource::Field(source), LearnTarget::Load(dest)) => {
                out.write_str("load:")?;
                source.show(out)?;
                out.write_str("->")?;
                dest.show(out)
            }
            (LearnSource::Field(source), LearnTarget::Output) => {
                out.write_str("output:")?;
                source.show(out)
            }
            // No wire and no text has it.
            (LearnSource::Value(value), LearnTarget::Output) => {
                out.write_str("output:")?;
                show_hex(out, value)
            }
        }
    }

    fn parse(key: &str, value: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        match key {
            "load" => {
                let Some((source, dest)) = value.split_once("->") else {
                    return Err(wrong(value, "load:SOURCE->FIELD"));
                };
                let dest = part(dest)?;
                let source = if source.starts_with(|c: char| c.is_ascii_digit()) {
                    immediate(source, dest)?
                } else {
                    LearnSource::Field(same_width(part(source)?, dest)?)
                };
                Ok(LearnSpec { bits: dest.bits, source, target: LearnTarget::Load(dest) })
            }
            "output" => {
                let source = part(value)?;
                Ok(LearnSpec { bits: source.bits, source: LearnSource::Field(source), target: LearnTarget::Output })
            }
            _ => {
                let dest = part(key)?;
                let source = if value.is_empty() {
                    LearnSource::Field(dest)
                } else if let Ok(source) = part(value) {
                    LearnSource::Field(same_width(source, dest)?)
                } else if dest == Subfield::whole(dest.field) {
                    let oxm = parse_value(dest.field, value, names)?;
                    if oxm.mask().is_some() {
                        return Err(wrong(value, "no mask is learned"));
                    }
                    let width = usize::from(dest.bits.div_ceil(8));
                    let octets = oxm.value();
                    LearnSource::Value(octets[octets.len().saturating_sub(width)..].into())
                } else {
                    immediate(value, dest)?
                };
                Ok(LearnSpec { bits: dest.bits, source, target: LearnTarget::Match(dest) })
            }
        }
    }
}

fn put_part(subfield: Subfield, out: &mut BytesMut) {
    put_short(subfield.field, out);
    out.put_u16(subfield.offset);
}

fn read_part(bits: u16, reader: &mut Reader<'_>) -> Result<Option<Subfield>, DecodeError> {
    let field = read_short(reader)?;
    let offset = reader.u16()?;
    match field {
        Some(field) => checked(reader, Subfield { field, offset, bits }).map(Some),
        None => Ok(None),
    }
}

/// A subfield whose header this action has room for.
fn part(text: &str) -> Result<Subfield, TextError> {
    let subfield = Subfield::parse(text)?;
    if subfield.field.short_header() == 0 {
        return Err(wrong(text, "learn(…) has no room for this field"));
    }
    Ok(subfield)
}

fn same_width(source: Subfield, dest: Subfield) -> Result<Subfield, TextError> {
    if source.bits == dest.bits {
        Ok(source)
    } else {
        Err(wrong(&source.field.to_string(), format!("{} bits do not go into {}", source.bits, dest.bits)))
    }
}

/// A number that fits into a subfield, as octets.
fn immediate(text: &str, dest: Subfield) -> Result<LearnSource, TextError> {
    let width = usize::from(dest.bits.div_ceil(8));
    let octets = digits(text, width)?;
    if dest.bits < 128 && oxm_number(&octets) & !low_bits(dest.bits.into()) != 0 {
        return Err(wrong(text, format!("does not fit into {} bits", dest.bits)));
    }
    let mut padded = vec![0; width - octets.len()];
    padded.extend_from_slice(&octets);
    Ok(LearnSource::Value(padded.into()))
}
