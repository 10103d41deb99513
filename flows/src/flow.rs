//! Flows, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.2 and 7.3.5.2).

use bytes::BytesMut;

use crate::{Action, DecodeError, Match, PortNo};

/// What a flow does with the packets it matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Instructions {
    /// `meter:ID`, before all else.
    pub meter: Option<u32>,
    /// Actions done at once.
    pub apply: Box<[Action]>,
    /// `clear_actions`: the action set is emptied.
    pub clear: bool,
    /// `write_actions(…)`: into the action set.
    pub write: Option<Box<[Action]>>,
    /// `write_metadata:VALUE/MASK`.
    pub metadata: Option<Box<(u64, u64)>>,
    /// `goto_table:TABLE`.
    pub goto_table: Option<u8>,
    /// Instructions this crate does not know, each with its header.
    pub unknown: Box<[Box<[u8]>]>,
}

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
    pub fn decode(_body: &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Writes what is behind the header of an `OFPT_FLOW_MOD`.
    pub fn encode(&self, _out: &mut BytesMut) {
        todo!()
    }
}

/// A flow as the switch lists it: one entry of an `OFPMP_FLOW` reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// The flow.
    pub flow: Flow,
    /// How long it has been there.
    pub duration: std::time::Duration,
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
    pub fn decode(_body: &mut &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Reads all entries of a reply's body (what is behind `struct ofp_multipart_reply`).
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(_body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        todo!()
    }

    /// Appends the entry to a reply's body.
    pub fn encode(&self, _out: &mut BytesMut) {
        todo!()
    }
}

impl Instructions {
    /// Reads instructions, all of `bytes`.
    pub(crate) fn decode(_bytes: &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Writes them.
    pub(crate) fn encode(&self, _out: &mut BytesMut) {
        todo!()
    }
}
