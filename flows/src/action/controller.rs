//! `controller(…)`: packets to the controller with more to say than `output:CONTROLLER` has (`NXAST_CONTROLLER`,
//! `NXAST_CONTROLLER2`).

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::encode::{end, nicira};
use crate::text::{self, KeyValues, octets, show_octets, wrong};
use crate::wire::{Reader, pad};
use crate::{DecodeError, TextError};

/// To the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Controller {
    /// Octets of the packet; 65535 for all.
    pub max_len: u16,
    /// Which controller; 0 for those that did not say who they are.
    pub id: u16,
    /// `OFPR_*`; 1, for an action, unless said otherwise.
    pub reason: u8,
    /// What the controller is told besides.
    pub userdata: Box<[u8]>,
    /// Whether the controller lets the packet go on.
    pub pause: bool,
    /// The meter that limits these packets.
    pub meter: Option<u32>,
}

/// `OFPR_ACTION`.
const ACTION: u8 = 1;

/// `OFPR_*` by their numbers.
const REASONS: &[&str] = &["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"];

impl Default for Controller {
    fn default() -> Self {
        Controller { max_len: u16::MAX, id: 0, reason: ACTION, userdata: Box::default(), pause: false, meter: None }
    }
}

impl Controller {
    /// Whether it says no more than `output:CONTROLLER` can.
    pub(super) fn is_plain(&self) -> bool {
        Controller { max_len: self.max_len, ..Controller::default() } == *self
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        if self.userdata.is_empty() && !self.pause && self.meter.is_none() {
            let start = nicira(20, out);
            out.put_u16(self.max_len);
            out.put_u16(self.id);
            out.put_u8(self.reason);
            end(start, out);
            return;
        }
        let start = nicira(37, out);
        out.put_bytes(0, 6);
        if self.max_len != u16::MAX {
            put_property(0, &padded(self.max_len), out);
        }
        if self.id != 0 {
            put_property(1, &padded(self.id), out);
        }
        if self.reason != ACTION {
            put_property(2, &[self.reason], out);
        }
        if !self.userdata.is_empty() {
            put_property(3, &self.userdata, out);
        }
        if self.pause {
            put_property(4, &[], out);
        }
        if let Some(meter) = self.meter {
            put_property(5, &meter.to_be_bytes(), out);
        }
        end(start, out);
    }

    /// `NXAST_CONTROLLER`.
    pub(super) fn read_fixed(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Controller { max_len: reader.u16()?, id: reader.u16()?, reason: reader.u8()?, ..Controller::default() })
    }

    /// `NXAST_CONTROLLER2`. Nothing, if it has a property that is not known.
    pub(super) fn read_properties(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        reader.skip(6)?;
        let mut found = Controller::default();
        while !reader.is_empty() {
            let kind = reader.u16()?;
            let length = usize::from(reader.u16()?);
            let Some(width) = length.checked_sub(4) else {
                return Err(reader.bad(2, "the length of a property", length as u64));
            };
            let mut value = reader.part(width)?;
            // The last one's padding may be missing.
            reader.skip((length.next_multiple_of(8) - length).min(reader.len()))?;
            match kind {
                0 => found.max_len = value.u16()?,
                1 => found.id = value.u16()?,
                2 => found.reason = value.u8()?,
                3 => found.userdata = value.bytes().into(),
                4 => found.pause = true,
                5 => found.meter = Some(value.u32()?).filter(|meter| *meter != u32::MAX),
                _ => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    pub(super) fn show(&self, out: &mut dyn Write) -> fmt::Result {
        if self.is_plain() {
            return write!(out, "CONTROLLER:{}", self.max_len);
        }
        out.write_str("controller(")?;
        let mut list = text::Commas::new(out);
        if self.reason != ACTION {
            match REASONS.get(usize::from(self.reason)) {
                Some(name) => list.put(format_args!("reason={name}"))?,
                None => list.put(format_args!("reason={}", self.reason))?,
            }
        }
        if self.max_len != u16::MAX {
            list.put(format_args!("max_len={}", self.max_len))?;
        }
        if self.id != 0 {
            list.put(format_args!("id={}", self.id))?;
        }
        if !self.userdata.is_empty() {
            let out = list.next()?;
            out.write_str("userdata=")?;
            show_octets(out, &self.userdata, ".")?;
        }
        if self.pause {
            list.put(format_args!("pause"))?;
        }
        if let Some(meter) = self.meter {
            list.put(format_args!("meter_id={meter}"))?;
        }
        out.write_char(')')
    }

    /// What is behind `controller:` or in `controller(…)`.
    pub(super) fn parse(value: &str) -> Result<Self, TextError> {
        let mut found = Controller::default();
        if value.is_empty() {
            return Ok(found);
        }
        if value.bytes().all(|digit| digit.is_ascii_digit()) {
            found.max_len = text::u16(value, "max_len")?;
            return Ok(found);
        }
        for (key, value) in KeyValues::new(value) {
            match key {
                "reason" => {
                    let known =
                        REASONS.iter().position(|name| name.eq_ignore_ascii_case(value)).map(|reason| reason as u8);
                    found.reason = known.map_or_else(|| text::u8(value, "a reason"), Ok)?;
                }
                "max_len" => found.max_len = text::u16(value, "max_len")?,
                "id" => found.id = text::u16(value, "id")?,
                "userdata" => found.userdata = octets(value)?.into(),
                "pause" => found.pause = true,
                "meter_id" => found.meter = Some(text::u32(value, "meter_id")?).filter(|meter| *meter != u32::MAX),
                _ => return Err(wrong(key, "unknown in controller(…)")),
            }
        }
        Ok(found)
    }
}

/// The 16 bits of a property: its length counts their padding too.
fn padded(value: u16) -> [u8; 4] {
    let [high, low] = value.to_be_bytes();
    [high, low, 0, 0]
}

/// Writes a property: type, length, value, padding that the length does not count.
fn put_property(kind: u16, value: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16((4 + value.len()).min(usize::from(u16::MAX)) as u16);
    out.put_slice(value);
    pad(out, start);
}
