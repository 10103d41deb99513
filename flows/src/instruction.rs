//! Instructions: when the actions of a flow are done, and where the packet goes on (OpenFlow 1.4.1, 7.2.4). Octets
//! and text.

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use crate::action::{Context, check_list, put_actions, read_actions, show_actions};
use crate::text::{self, Alt, Commas, KeyValues, PortNames, Show, octets, show_octets, text_form, wrong};
use crate::wire::{Reader, finish};
use crate::{Action, DecodeError, TextError};

/// What a flow does with the packets it matches, in the order of these fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Instructions {
    /// `meter:ID`, before all else.
    pub meter: Option<u32>,
    /// Actions done at once.
    pub apply: Box<[Action]>,
    /// `clear_actions`: the action set is emptied.
    pub clear: bool,
    /// `write_actions(…)`: into the action set. None of them is as good as no instruction.
    pub write: Box<[Action]>,
    /// `write_metadata:VALUE/MASK`.
    pub metadata: Option<Box<(u64, u64)>>,
    /// `goto_table:TABLE`.
    pub goto_table: Option<u8>,
    /// Instructions this crate does not know, each with its header.
    pub unknown: Box<[Box<[u8]>]>,
}

impl Instructions {
    /// These actions, at once; none to drop the packet.
    #[must_use]
    pub fn apply(actions: impl Into<Box<[Action]>>) -> Self {
        Instructions { apply: actions.into(), ..Instructions::default() }
    }

    /// Whether there are none: the packet is dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Instructions::default()
    }

    /// Reads instructions, all of `bytes`.
    ///
    /// # Errors
    /// They are no instructions.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(bytes, "list of instructions"))
    }

    /// Writes the instructions one behind the other.
    pub fn encode(&self, out: &mut BytesMut) {
        self.put(out);
    }

    /// Reads instructions up to the end of the reader.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut found = Instructions::default();
        let mut unknown: Vec<Box<[u8]>> = Vec::new();
        let mut seen = 0u8;
        while !reader.is_empty() {
            let mut one = reader.structure(2, 8)?;
            let octets = one.bytes();
            let kind = one.u16()?;
            one.skip(2)?;
            if (1..=6).contains(&kind) {
                if seen & 1 << kind != 0 {
                    return Err(one.bad(4, "the type of a repeated instruction", kind));
                }
                seen |= 1 << kind;
            }
            match kind {
                1 => found.goto_table = Some(one.u8()?),
                2 => {
                    one.skip(4)?;
                    found.metadata = Some(Box::new((one.u64()?, one.u64()?)));
                }
                3 => {
                    one.skip(4)?;
                    found.write = read_actions(one, 0)?;
                }
                4 => {
                    one.skip(4)?;
                    found.apply = read_actions(one, 0)?;
                }
                5 => found.clear = true,
                6 => found.meter = Some(one.u32()?),
                _ => unknown.push(octets.into()),
            }
        }
        found.unknown = unknown.into();
        Ok(found)
    }

    /// Writes the instructions one behind the other.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        if let Some(meter) = self.meter {
            let start = begin(6, out);
            out.put_u32(meter);
            finish(out, start, 2);
        }
        put_list(4, &self.apply, out);
        if self.clear {
            let start = begin(5, out);
            out.put_u32(0);
            finish(out, start, 2);
        }
        put_list(3, &self.write, out);
        if let Some(metadata) = &self.metadata {
            let start = begin(2, out);
            out.put_u32(0);
            out.put_u64(metadata.0);
            out.put_u64(metadata.1);
            finish(out, start, 2);
        }
        if let Some(table) = self.goto_table {
            let start = begin(1, out);
            out.put_u8(table);
            finish(out, start, 2);
        }
        for unknown in &self.unknown {
            out.put_slice(unknown);
        }
    }

    /// Reads instructions as text, of a flow whose match the context has.
    pub(crate) fn parse(text: &str, context: &mut Context<'_>) -> Result<Self, TextError> {
        let mut found = Instructions::default();
        let mut apply = Vec::new();
        let mut unknown: Vec<Box<[u8]>> = Vec::new();
        let mut dropped = false;
        let mut last = 0;
        let names =
            ["meter", "actions", "clear_actions", "write_actions", "write_metadata", "goto_table", "instruction"];
        for (key, value) in KeyValues::new(text) {
            if key.eq_ignore_ascii_case("drop") {
                dropped = true;
                continue;
            }
            let place = names.iter().position(|name| name.eq_ignore_ascii_case(key)).filter(|place| *place != 1);
            let place = place.unwrap_or(1);
            if place < last || (place == last && place > 1 && place < 6) {
                return Err(wrong(key, format!("the order is {}", names.join(", "))));
            }
            last = place;
            match place {
                0 => found.meter = Some(text::u32(value, "a meter")?),
                1 => context.action(key, value, &mut apply)?,
                2 => found.clear = true,
                3 => found.write = context.actions(value)?.into(),
                4 => {
                    let (value, mask) =
                        value.split_once('/').map_or((value, None), |(value, mask)| (value, Some(mask)));
                    let mask = mask.map_or(Ok(u64::MAX), |mask| text::u64(mask, "a mask"))?;
                    found.metadata = Some(Box::new((text::u64(value, "metadata")?, mask)));
                }
                5 => found.goto_table = Some(text::u8(value, "a table")?),
                _ => {
                    let octets = octets(value)?;
                    let length = octets.get(2..4).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
                    if length != Some(octets.len()) || octets.len() < 8 || octets.len() % 8 != 0 {
                        return Err(wrong(value, "not the octets of an instruction"));
                    }
                    unknown.push(octets.into());
                }
            }
        }
        check_list(text, &apply, dropped)?;
        found.apply = apply.into();
        found.unknown = unknown.into();
        if dropped && !found.is_empty() {
            return Err(wrong(text, "drop is alone"));
        }
        Ok(found)
    }
}

fn begin(kind: u16, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16(0);
    start
}

fn put_list(kind: u16, actions: &[Action], out: &mut BytesMut) {
    if !actions.is_empty() {
        let start = begin(kind, out);
        out.put_u32(0);
        put_actions(actions, out);
        finish(out, start, 2);
    }
}

text_form!(Instructions);

impl Show for Instructions {
    fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        if self.is_empty() {
            return out.write_str("drop");
        }
        let mut list = Commas::new(out);
        if let Some(meter) = self.meter {
            list.put(format_args!("meter:{meter}"))?;
        }
        for action in &self.apply {
            action.show(list.next()?, names)?;
        }
        if self.clear {
            list.put(format_args!("clear_actions"))?;
        }
        if !self.write.is_empty() {
            let out = list.next()?;
            out.write_str("write_actions(")?;
            show_actions(&self.write, out, names)?;
            out.write_char(')')?;
        }
        if let Some(metadata) = &self.metadata {
            let (value, mask) = **metadata;
            match mask {
                u64::MAX => list.put(format_args!("write_metadata:{}", Alt(value)))?,
                mask => list.put(format_args!("write_metadata:{}/{}", Alt(value), Alt(mask)))?,
            }
        }
        if let Some(table) = self.goto_table {
            list.put(format_args!("goto_table:{table}"))?;
        }
        for unknown in &self.unknown {
            let out = list.next()?;
            out.write_str("instruction(")?;
            show_octets(out, unknown, "")?;
            out.write_char(')')?;
        }
        Ok(())
    }
}
