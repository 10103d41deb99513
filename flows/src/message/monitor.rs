//! Monitoring flows: being told of every flow that comes, changes or goes (OpenFlow 1.4.1, 7.3.5.17). Open vSwitch has it
//! since 2.16 for OpenFlow 1.4.

use bytes::{BufMut, BytesMut};

use super::set_length;
use crate::wire::{Reader, entries};
use crate::{DecodeError, Fault, Instructions, Match, PortNo};

/// `OFPFMF_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorFlags(pub u16);

impl MonitorFlags {
    /// Everything that happens to any flow, what is there at the beginning included, with instructions and never
    /// abbreviated.
    ///
    /// The specification has a flag against abbreviations (32), which Open vSwitch refuses, and a flag for nothing but
    /// one's own changes (64), which Open vSwitch takes to mean that one's own changes are to come in full. So this is
    /// for Open vSwitch.
    pub const EVERYTHING: MonitorFlags = MonitorFlags(1 | 2 | 4 | 8 | 16 | 64);
}

/// `OFPFMC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MonitorCommand {
    /// Begin.
    Add = 0,
    /// Begin anew.
    Modify = 1,
    /// End.
    Delete = 2,
}

/// The body of an `OFPMP_FLOW_MONITOR` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorRequest {
    /// The monitor, for ending it.
    pub id: u32,
    /// Flows that output here; [`PortNo::ANY`] for all.
    pub out_port: PortNo,
    /// Flows that use this group; `0xffff_ffff` for all.
    pub out_group: u32,
    /// What is told.
    pub flags: MonitorFlags,
    /// Flows of this table; 0xff for all.
    pub table: u8,
    /// Begin or end.
    pub command: MonitorCommand,
    /// Flows that match this or something narrower.
    pub matching: Match,
}

impl MonitorRequest {
    /// A monitor of all flows.
    #[must_use]
    pub fn everything(id: u32) -> Self {
        Self {
            id,
            out_port: PortNo::ANY,
            out_group: u32::MAX,
            flags: MonitorFlags::EVERYTHING,
            table: 0xff,
            command: MonitorCommand::Add,
            matching: Match::default(),
        }
    }

    /// The end of a monitor.
    #[must_use]
    pub fn delete(id: u32) -> Self {
        Self { command: MonitorCommand::Delete, ..Self::everything(id) }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (id, out_port, out_group) = (reader.u32()?, PortNo(reader.u32()?), reader.u32()?);
        let (flags, table) = (MonitorFlags(reader.u16()?), reader.u8()?);
        let command = match reader.u8()? {
            0 => MonitorCommand::Add,
            1 => MonitorCommand::Modify,
            2 => MonitorCommand::Delete,
            value => return Err(reader.error(Fault::Value { name: "command", value: value.into() })),
        };
        Ok(Self { id, out_port, out_group, flags, table, command, matching: Match::read(reader)? })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.id);
        out.put_u32(self.out_port.0);
        out.put_u32(self.out_group);
        out.put_u16(self.flags.0);
        out.put_u8(self.table);
        out.put_u8(self.command as u8);
        self.matching.encode(out);
    }
}

/// `OFPFME_*` that come with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum UpdateEvent {
    /// It was there when the monitor began.
    Initial = 0,
    /// It was added, or replaced the one with its identity.
    Added = 1,
    /// It was removed.
    Removed = 2,
    /// Its instructions or its cookie changed.
    Modified = 3,
}

/// `struct ofp_flow_update_full`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatedFlow {
    /// What happened.
    pub event: UpdateEvent,
    /// `OFPRR_*`: why it was removed.
    pub reason: u8,
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// What it matches.
    pub matching: Match,
    /// Its cookie.
    pub cookie: u64,
    /// Its idle timeout in seconds.
    pub idle_timeout: u16,
    /// Its hard timeout in seconds.
    pub hard_timeout: u16,
    /// What it does. Open vSwitch tells it of removed flows, too; the specification does not ask for that.
    pub instructions: Instructions,
}

/// One entry of an `OFPMP_FLOW_MONITOR` reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowUpdate {
    /// Something happened to a flow.
    Flow(UpdatedFlow),
    /// The message of ours with this transaction id changed flows. Not for [`MonitorFlags::EVERYTHING`].
    Abbreviated {
        /// The transaction id.
        xid: u32,
    },
    /// There is too much to tell: from now on only removals are told, of flows that were told of before.
    Paused,
    /// All that happened in the pause has been told.
    Resumed,
}

impl FlowUpdate {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (length, event) = (reader.u16()?, reader.u16()?);
        let mut entry = reader.rest_of(length.into(), 4)?;
        let event = match event {
            0 => UpdateEvent::Initial,
            1 => UpdateEvent::Added,
            2 => UpdateEvent::Removed,
            3 => UpdateEvent::Modified,
            4 => return Ok(Self::Abbreviated { xid: entry.u32()? }),
            5 => return Ok(Self::Paused),
            6 => return Ok(Self::Resumed),
            value => return Err(reader.error(Fault::Value { name: "event", value: value.into() })),
        };
        let (table, reason) = (entry.u8()?, entry.u8()?);
        let (idle_timeout, hard_timeout, priority) = (entry.u16()?, entry.u16()?, entry.u16()?);
        entry.skip(4)?;
        let cookie = entry.u64()?;
        let matching = Match::read(&mut entry)?;
        let instructions = Instructions::read(&mut entry)?;
        Ok(Self::Flow(UpdatedFlow {
            event,
            reason,
            table,
            priority,
            matching,
            cookie,
            idle_timeout,
            hard_timeout,
            instructions,
        }))
    }

    /// Reads the entries of an `OFPMP_FLOW_MONITOR` reply.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        entries(body, "flow update", Self::read)
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(8); // the length, of most
        match self {
            Self::Flow(update) => {
                out.put_u16(update.event as u16);
                out.put_u8(update.table);
                out.put_u8(update.reason);
                out.put_u16(update.idle_timeout);
                out.put_u16(update.hard_timeout);
                out.put_u16(update.priority);
                out.put_u32(0);
                out.put_u64(update.cookie);
                update.matching.encode(out);
                update.instructions.encode(out);
                set_length(out, start, 0);
            }
            Self::Abbreviated { xid } => {
                out.put_u16(4);
                out.put_u32(*xid);
            }
            Self::Paused => out.put_slice(&[0, 5, 0, 0, 0, 0]),
            Self::Resumed => out.put_slice(&[0, 6, 0, 0, 0, 0]),
        }
    }
}
