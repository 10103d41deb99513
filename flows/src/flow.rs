//! Flows, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.2 and 7.3.5.2).

use std::fmt::{self, Write};
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::action::Context;
use crate::matching::MatchText;
use crate::text::{self, KeyValues, PortNames, Show, Unnamed, text_form, wrong};
use crate::wire::{Reader, finish};
use crate::{DecodeError, Instructions, Match, PortNo, TextError};

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Its table, 0 to 254.
    pub table: u8,
    /// Its priority; higher wins.
    pub priority: u16,
    /// The packets it is for.
    pub matching: Match,
    /// What it does with them.
    pub instructions: Instructions,
    /// What its owner wants it to be known by.
    pub cookie: u64,
    /// Seconds without a packet after which it goes; 0 for never.
    pub idle_timeout: u16,
    /// Seconds after which it goes; 0 for never.
    pub hard_timeout: u16,
    /// What it is worth to the switch when the table is full.
    pub importance: u16,
    /// What else is wanted of it.
    pub flags: FlowFlags,
}

/// `OFPFF_*`, and nothing else of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FlowFlags(pub u16);

impl FlowFlags {
    /// Tell when it is removed.
    pub const SEND_FLOW_REM: FlowFlags = FlowFlags(1);
    /// Refuse it where it overlaps another of its priority (of an add, never of a flow that is there).
    pub const CHECK_OVERLAP: FlowFlags = FlowFlags(2);
    /// Start its counters anew (of an add or modification).
    pub const RESET_COUNTS: FlowFlags = FlowFlags(4);
    /// Packets need not be counted.
    pub const NO_PKT_COUNTS: FlowFlags = FlowFlags(8);
    /// Octets need not be counted.
    pub const NO_BYT_COUNTS: FlowFlags = FlowFlags(16);
}

/// `OFPFC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowCommand {
    /// Add it, or replace the one with its identity.
    Add = 0,
    /// Change the instructions of every flow that the match covers.
    Modify = 1,
    /// Change the instructions of the flow with its identity.
    ModifyStrict = 2,
    /// Delete every flow that the match covers.
    Delete = 3,
    /// Delete the flow with its identity.
    DeleteStrict = 4,
}

/// The body of `OFPT_FLOW_MOD`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowMod {
    /// What is to be done.
    pub command: FlowCommand,
    /// The flow it is done with. A deletion has no instructions.
    pub flow: Flow,
    /// Bits of the cookie that a flow must share to be changed or deleted; 0 for any flow, and in an add.
    pub cookie_mask: u64,
    /// A packet the switch buffered that the flow is applied to.
    pub buffer: Option<u32>,
    /// A deletion is only of flows that output here; [`PortNo::ANY`] for any flow.
    pub out_port: PortNo,
    /// A deletion is only of flows that use this group; `0xffff_ffff` for any flow.
    pub out_group: u32,
}

impl FlowMod {
    /// A modification with nothing that restricts it.
    #[must_use]
    pub fn new(command: FlowCommand, flow: Flow) -> Self {
        FlowMod { command, flow, cookie_mask: 0, buffer: None, out_port: PortNo::ANY, out_group: u32::MAX }
    }

    /// Reads what is behind the header of an `OFPT_FLOW_MOD`.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(body, "flow mod");
        let cookie = reader.u64()?;
        let cookie_mask = reader.u64()?;
        let table = reader.u8()?;
        let command = match reader.u8()? {
            0 => FlowCommand::Add,
            1 => FlowCommand::Modify,
            2 => FlowCommand::ModifyStrict,
            3 => FlowCommand::Delete,
            4 => FlowCommand::DeleteStrict,
            other => return Err(reader.bad(1, "command", other)),
        };
        let (idle_timeout, hard_timeout, priority) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let buffer = Some(reader.u32()?).filter(|buffer| *buffer != u32::MAX);
        let (out_port, out_group) = (PortNo(reader.u32()?), reader.u32()?);
        let (flags, importance) = (FlowFlags(reader.u16()?), reader.u16()?);
        let matching = Match::read(reader)?;
        let instructions = Instructions::read(reader)?;
        let flow =
            Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags };
        Ok(FlowMod { command, flow, cookie_mask, buffer, out_port, out_group })
    }

    /// Writes what is behind the header of an `OFPT_FLOW_MOD`.
    pub fn encode(&self, out: &mut BytesMut) {
        let flow = &self.flow;
        out.reserve(FLOW_MOD + flow.matching.encoded_len());
        out.put_u64(flow.cookie);
        out.put_u64(self.cookie_mask);
        out.put_u8(flow.table);
        out.put_u8(self.command as u8);
        out.put_u16(flow.idle_timeout);
        out.put_u16(flow.hard_timeout);
        out.put_u16(flow.priority);
        out.put_u32(self.buffer.unwrap_or(u32::MAX));
        out.put_u32(self.out_port.0);
        out.put_u32(self.out_group);
        out.put_u16(flow.flags.0);
        out.put_u16(flow.importance);
        flow.matching.encode(out);
        flow.instructions.put(out);
    }

    /// Reads what `ovs-ofctl add-flow`, `mod-flows` and `del-flows` take. A deletion has no actions, and speaks of
    /// the flows of all tables unless it names one.
    ///
    /// # Errors
    /// A part of it is wrong.
    pub fn parse(command: FlowCommand, text: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        FlowText::parse(command, text, names)
    }
}

/// Octets of a `struct ofp_flow_mod` before its match, without the header.
const FLOW_MOD: usize = 40;

/// A flow as the switch lists it: one entry of an `OFPMP_FLOW` reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// The flow.
    pub flow: Flow,
    /// How long it has been there.
    pub duration: Duration,
    /// Packets it matched; `u64::MAX` where the switch does not know.
    pub packet_count: u64,
    /// Octets of these packets; `u64::MAX` where the switch does not know.
    pub byte_count: u64,
}

impl FlowStats {
    /// Reads the entry at the begin of `body`, and cuts it off.
    ///
    /// # Errors
    /// There is no entry, or it is wrong; the offset is that in `body`.
    pub fn decode(body: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "flow stats");
        let found = Self::read(&mut reader)?;
        *body = reader.bytes();
        Ok(found)
    }

    /// Reads all entries of a reply's body (what is behind `struct ofp_multipart_reply`).
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut reader = Reader::new(body, "flow stats");
        let mut found = Vec::new();
        while !reader.is_empty() {
            found.push(Self::read(&mut reader)?);
        }
        Ok(found)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let reader = &mut reader.structure(0, FLOW_STATS)?;
        reader.skip(2)?;
        let table = reader.u8()?;
        reader.skip(1)?;
        let (seconds, nanoseconds) = (reader.u32()?, reader.u32()?);
        let (priority, idle_timeout, hard_timeout) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let (flags, importance) = (FlowFlags(reader.u16()?), reader.u16()?);
        reader.skip(2)?;
        let (cookie, packet_count, byte_count) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let matching = Match::read(reader)?;
        let instructions = Instructions::read(reader)?;
        let flow =
            Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags };
        // Nanoseconds of a second or more are no duration; they are cut, so that nothing overflows.
        let duration = Duration::new(seconds.into(), nanoseconds.min(999_999_999));
        Ok(FlowStats { flow, duration, packet_count, byte_count })
    }

    /// Appends the entry to a reply's body.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        let flow = &self.flow;
        out.put_u16(0);
        out.put_u8(flow.table);
        out.put_u8(0);
        out.put_u32(u32::try_from(self.duration.as_secs()).unwrap_or(u32::MAX));
        out.put_u32(self.duration.subsec_nanos());
        out.put_u16(flow.priority);
        out.put_u16(flow.idle_timeout);
        out.put_u16(flow.hard_timeout);
        out.put_u16(flow.flags.0);
        out.put_u16(flow.importance);
        out.put_u16(0);
        out.put_u64(flow.cookie);
        out.put_u64(self.packet_count);
        out.put_u64(self.byte_count);
        flow.matching.encode(out);
        flow.instructions.put(out);
        finish(out, start, 0);
    }
}

/// Octets of a `struct ofp_flow_stats` before its match, and of the smallest match.
const FLOW_STATS: usize = 48 + 8;

impl Flow {
    /// Reads a flow as `ovs-ofctl add-flow` takes it and `dump-flows` writes it; what is counted of it is left out.
    ///
    /// # Errors
    /// A part of it is wrong.
    pub fn parse(text: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        FlowText::parse(FlowCommand::Add, text, names).map(|read| read.flow)
    }
}

impl std::str::FromStr for Flow {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text, &Unnamed)
    }
}

text_form!(Flow);

impl Show for Flow {
    fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        if self.cookie != 0 {
            write!(out, "cookie={:#x}, ", self.cookie)?;
        }
        if self.table != 0 {
            write!(out, "table={}, ", self.table)?;
        }
        if self.idle_timeout != 0 {
            write!(out, "idle_timeout={}, ", self.idle_timeout)?;
        }
        if self.hard_timeout != 0 {
            write!(out, "hard_timeout={}, ", self.hard_timeout)?;
        }
        for (flag, name) in FLAGS {
            if self.flags.0 & flag.0 != 0 {
                write!(out, "{name} ")?;
            }
        }
        if self.importance != 0 {
            write!(out, "importance={}, ", self.importance)?;
        }
        let priority = (self.priority != DEFAULT_PRIORITY).then_some(self.priority);
        if self.matching.show_with(out, names, priority)? {
            out.write_char(' ')?;
        }
        out.write_str("actions=")?;
        self.instructions.show(out, names)
    }
}

/// `OFP_DEFAULT_PRIORITY`, which goes without saying.
const DEFAULT_PRIORITY: u16 = 0x8000;

const FLAGS: &[(FlowFlags, &str)] = &[
    (FlowFlags::SEND_FLOW_REM, "send_flow_rem"),
    (FlowFlags::CHECK_OVERLAP, "check_overlap"),
    (FlowFlags::RESET_COUNTS, "reset_counts"),
    (FlowFlags::NO_PKT_COUNTS, "no_packet_counts"),
    (FlowFlags::NO_BYT_COUNTS, "no_byte_counts"),
];

/// A flow that is being read.
struct FlowText;

impl FlowText {
    fn parse(command: FlowCommand, text: &str, names: &dyn PortNames) -> Result<FlowMod, TextError> {
        let deletes = matches!(command, FlowCommand::Delete | FlowCommand::DeleteStrict);
        let strict = matches!(command, FlowCommand::ModifyStrict | FlowCommand::DeleteStrict);
        let (head, actions) = match text.find("action").map(|at| text.split_at(at)) {
            Some((head, rest)) if !deletes => (head, rest.split_once('=').map(|(_, actions)| actions)),
            _ => (text, None),
        };
        let mut matching = MatchText::default();
        let flow = Flow {
            table: if deletes { 255 } else { 0 },
            priority: DEFAULT_PRIORITY,
            matching: Match::default(),
            instructions: Instructions::default(),
            cookie: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            flags: FlowFlags::default(),
        };
        let mut found = FlowMod::new(command, flow);
        for (key, value) in KeyValues::new(head) {
            if let Some((flag, _)) = FLAGS.iter().find(|(_, name)| *name == key && !deletes) {
                found.flow.flags.0 |= flag.0;
                continue;
            }
            if matching.take(key, value, names)? {
                continue;
            }
            let flow = &mut found.flow;
            match key {
                "table" => flow.table = text::u8(value, key)?,
                "priority" if !deletes || strict => flow.priority = text::u16(value, key)?,
                "idle_timeout" if !deletes => flow.idle_timeout = text::u16(value, key)?,
                "hard_timeout" if !deletes => flow.hard_timeout = text::u16(value, key)?,
                "importance" if command == FlowCommand::Add => flow.importance = text::u16(value, key)?,
                "out_port" if deletes => found.out_port = text::port(value, names)?,
                "out_group" if deletes => found.out_group = text::u32(value, key)?,
                "cookie" => match value.split_once('/') {
                    Some(_) if command == FlowCommand::Add => {
                        return Err(wrong(value, "a new flow's cookie has no mask"));
                    }
                    Some((cookie, mask)) => {
                        flow.cookie = text::u64(cookie, key)?;
                        found.cookie_mask = if mask == "-1" { u64::MAX } else { text::u64(mask, key)? };
                    }
                    None if deletes => return Err(wrong(value, "to choose flows by cookie takes a mask: cookie=1/-1")),
                    None => flow.cookie = text::u64(value, key)?,
                },
                "no_readonly_table" | "allow_hidden_fields" => {}
                "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => {}
                _ => return Err(wrong(key, "unknown of a flow")),
            }
        }
        found.flow.matching = matching.finish()?;
        if !deletes {
            let actions = actions.ok_or_else(|| wrong(text, "a flow says its actions"))?;
            let mut context = Context::new(&found.flow.matching, names);
            found.flow.instructions = Instructions::parse(actions, &mut context)?;
        }
        Ok(found)
    }
}
