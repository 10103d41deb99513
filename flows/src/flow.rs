//! Flows, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.2 and 7.3.5.2).

use std::fmt::{self, Write};
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::action::Context;
use crate::matching::MatchText;
use crate::message::duration;
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
        let mut found = Vec::with_capacity(reader.structures(0));
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
        let duration = duration(reader)?;
        let (priority, idle_timeout, hard_timeout) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let (flags, importance) = (FlowFlags(reader.u16()?), reader.u16()?);
        reader.skip(2)?;
        let (cookie, packet_count, byte_count) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let matching = Match::read(reader)?;
        let instructions = Instructions::read(reader)?;
        let flow =
            Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Field};

    /// A web server's packets out of port 2, as the body of an `OFPT_FLOW_MOD`.
    #[rustfmt::skip]
    const FLOW: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 9, // cookie
        0, 0, 0, 0, 0, 0, 0, 0, // cookie_mask
        3,                      // table_id
        0,                      // command: OFPFC_ADD
        0, 60,                  // idle_timeout
        0, 0,                   // hard_timeout
        0, 100,                 // priority
        0xff, 0xff, 0xff, 0xff, // buffer_id: OFP_NO_BUFFER
        0xff, 0xff, 0xff, 0xff, // out_port: OFPP_ANY
        0xff, 0xff, 0xff, 0xff, // out_group: OFPG_ANY
        0, 1,                   // flags: OFPFF_SEND_FLOW_REM
        0, 7,                   // importance
        0, 1, 0, 21,            // match: OFPMT_OXM, length without padding
        0x80, 0, 0x0a, 2,       //   OXM_OF_ETH_TYPE
        8, 0,                   //     IPv4
        0x80, 0, 0x14, 1,       //   OXM_OF_IP_PROTO
        6,                      //     TCP
        0x80, 0, 0x1c, 2,       //   OXM_OF_TCP_DST
        0, 80,
        0, 0, 0,                //   padding
        0, 4, 0, 24,            // instruction: OFPIT_APPLY_ACTIONS, length
        0, 0, 0, 0,
        0, 0, 0, 16,            //   OFPAT_OUTPUT, length
        0, 0, 0, 2,             //     port
        0, 0, 0, 0, 0, 0, 0, 0, //     max_len, padding
        0, 1, 0, 8,             // instruction: OFPIT_GOTO_TABLE, length
        4, 0, 0, 0,             //   table_id, padding
    ];

    #[test]
    fn a_flow_both_ways() {
        let matching = Match::builder();
        let matching =
            matching.exact(Field::TCP_DST, 80u16).exact(Field::IP_PROTO, 6u8).exact(Field::ETH_TYPE, 0x800u16);
        let flow = Flow {
            table: 3,
            priority: 100,
            matching: matching.build(),
            instructions: Instructions { goto_table: Some(4), ..Instructions::apply([Action::output(PortNo(2))]) },
            cookie: 9,
            idle_timeout: 60,
            hard_timeout: 0,
            importance: 7,
            flags: FlowFlags::SEND_FLOW_REM,
        };
        let text = "cookie=0x9, table=3, idle_timeout=60, send_flow_rem importance=7, \
                    priority=100,tcp,tp_dst=80 actions=output:2,goto_table:4";
        assert_eq!(flow.to_string(), text);
        assert_eq!(text.parse(), Ok(flow.clone()));
        let modification = FlowMod::new(FlowCommand::Add, flow);
        assert_eq!(FlowMod::decode(FLOW), Ok(modification.clone()));
        let mut out = BytesMut::new();
        modification.encode(&mut out);
        assert_eq!(out[..], *FLOW);
    }

    #[test]
    fn an_error_says_which_octet() {
        let fault = |at: usize, octet: u8| {
            let mut bytes = FLOW.to_vec();
            bytes[at] = octet;
            FlowMod::decode(&bytes).unwrap_err().to_string()
        };
        assert_eq!(fault(17, 5), "command is 0x5 at octet 17 of the flow mod");
        assert_eq!(fault(41, 0), "the type of a match is 0x0 at octet 40 of the flow mod");
        assert_eq!(fault(43, 200), "52 octets where 196 are needed at octet 44 of the flow mod");
        // The second field's header says that it is masked, and one octet has no half.
        assert_eq!(fault(52, 0x15), "a length of 11 at octet 50 of the flow mod");
        // An action of 15 octets.
        assert_eq!(fault(75, 15), "a length of 15 at octet 74 of the flow mod");
        assert_eq!(FlowMod::decode(&FLOW[..20]).unwrap_err().offset, 20);
    }

    struct Names;

    impl PortNames for Names {
        fn name(&self, port: PortNo) -> Option<&str> {
            match port {
                PortNo(1) => Some("tap0"),
                PortNo(2) => Some("2nd port"),
                _ => None,
            }
        }

        fn number(&self, name: &str) -> Option<PortNo> {
            [PortNo(1), PortNo(2)].into_iter().find(|port| self.name(*port) == Some(name))
        }
    }

    #[test]
    fn ports_may_have_names() {
        let text = "in_port=tap0 actions=output:\"2nd port\",output:3,LOCAL";
        let flow: Flow = "in_port=1,actions=output:2,output:3,LOCAL".parse().unwrap();
        assert_eq!(flow.named(&Names).to_string(), text);
        assert_eq!(
            Flow::parse("in_port=tap0,actions=output:tap0", &Names).unwrap().matching.exact(Field::IN_PORT),
            Some(1)
        );
    }
}
