//! Packets to and from the controller, and flows that went (OpenFlow 1.4.1, 7.3.7, 7.4.1 and 7.4.2).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{duration, put_duration};
use crate::action::read_actions;
use crate::wire::Reader;
use crate::{Action, DecodeError, Match, PortNo};

/// `OFP_NO_BUFFER`
const NO_BUFFER: u32 = u32::MAX;

/// `OFPT_PACKET_IN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketIn {
    /// Where the switch keeps it.
    pub buffer: Option<u32>,
    /// Octets of the packet, of which `data` may have fewer.
    pub total_len: u16,
    /// `OFPR_*`.
    pub reason: u8,
    /// The table whose flow sent it.
    pub table: u8,
    /// The cookie of that flow.
    pub cookie: u64,
    /// Where it came from and what came with it.
    pub matching: Match,
    /// The packet, from its Ethernet header on.
    pub data: Bytes,
}

impl PacketIn {
    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no packet-in.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "packet-in");
        let buffer = Some(reader.u32()?).filter(|buffer| *buffer != NO_BUFFER);
        let (total_len, reason, table, cookie) = (reader.u16()?, reader.u8()?, reader.u8()?, reader.u64()?);
        let matching = Match::read(&mut reader)?;
        reader.skip(2)?;
        Ok(Self { buffer, total_len, reason, table, cookie, matching, data: body.slice_ref(reader.bytes()) })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.buffer.unwrap_or(NO_BUFFER));
        out.put_u16(self.total_len);
        out.put_u8(self.reason);
        out.put_u8(self.table);
        out.put_u64(self.cookie);
        self.matching.encode(out);
        out.put_u16(0);
        out.put_slice(&self.data);
    }
}

/// `OFPT_PACKET_OUT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PacketOut {
    /// The packet that the switch keeps, instead of `data`.
    pub buffer: Option<u32>,
    /// Where it is to seem to come from: a port, or [`PortNo::CONTROLLER`].
    pub in_port: PortNo,
    /// What is done with it.
    pub actions: Box<[Action]>,
    /// The packet, from its Ethernet header on.
    pub data: Bytes,
}

impl PacketOut {
    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no packet-out.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "packet-out");
        let buffer = Some(reader.u32()?).filter(|buffer| *buffer != NO_BUFFER);
        let in_port = PortNo(reader.u32()?);
        let length = reader.u16()?;
        reader.skip(6)?;
        let actions = read_actions(reader.part(length.into())?, 0)?;
        Ok(Self { buffer, in_port, actions, data: body.slice_ref(reader.bytes()) })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut actions = BytesMut::new();
        Action::encode_all(&self.actions, &mut actions);
        out.put_u32(self.buffer.unwrap_or(NO_BUFFER));
        out.put_u32(self.in_port.0);
        // Actions that are longer than this can say make the message too long, and are not sent.
        out.put_u16(u16::try_from(actions.len()).unwrap_or(u16::MAX));
        out.put_bytes(0, 6);
        out.put_slice(&actions);
        out.put_slice(&self.data);
    }
}

/// `OFPT_FLOW_REMOVED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRemoved {
    /// The flow's cookie.
    pub cookie: u64,
    /// Its priority.
    pub priority: u16,
    /// `OFPRR_*`: why it went.
    pub reason: u8,
    /// Its table.
    pub table: u8,
    /// How long it was there.
    pub duration: Duration,
    /// Its idle timeout in seconds.
    pub idle_timeout: u16,
    /// Its hard timeout in seconds.
    pub hard_timeout: u16,
    /// Packets that it matched; `u64::MAX` where the switch does not know.
    pub packet_count: u64,
    /// Octets of these packets; likewise.
    pub byte_count: u64,
    /// What it matched.
    pub matching: Match,
}

impl FlowRemoved {
    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no flow-removed.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "flow-removed");
        Ok(Self {
            cookie: reader.u64()?,
            priority: reader.u16()?,
            reason: reader.u8()?,
            table: reader.u8()?,
            duration: duration(&mut reader)?,
            idle_timeout: reader.u16()?,
            hard_timeout: reader.u16()?,
            packet_count: reader.u64()?,
            byte_count: reader.u64()?,
            matching: Match::read(&mut reader)?,
        })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.cookie);
        out.put_u16(self.priority);
        out.put_u8(self.reason);
        out.put_u8(self.table);
        put_duration(out, self.duration);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u64(self.packet_count);
        out.put_u64(self.byte_count);
        self.matching.encode(out);
    }
}
