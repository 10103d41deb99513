//! Groups, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.3 and 7.3.5.11). OVS takes a bucket
//! alone (insert, remove) only in OpenFlow 1.0 by `NXT_GROUP_MOD` and in 1.5: not in 1.4.

use bytes::BytesMut;

use crate::{Action, DecodeError, PortNo};

/// `OFPGT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GroupKind {
    /// Every bucket.
    All = 0,
    /// One bucket, by hash.
    Select = 1,
    /// Its only bucket.
    Indirect = 2,
    /// The first live bucket.
    FastFailover = 3,
}

/// One bucket of a group: an action set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Its share in a select group.
    pub weight: u16,
    /// The port that makes it live; [`PortNo::ANY`] for none.
    pub watch_port: PortNo,
    /// The group that makes it live; `0xffff_ffff` for none.
    pub watch_group: u32,
    /// What is done.
    pub actions: Box<[Action]>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Its number, up to `0xffff_ff00`.
    pub id: u32,
    /// Which buckets a packet goes through.
    pub kind: GroupKind,
    /// Its buckets, in order.
    pub buckets: Box<[Bucket]>,
}

impl Group {
    /// Reads the entry of an `OFPMP_GROUP_DESC` reply at the begin of `body`, and cuts it off.
    ///
    /// # Errors
    /// There is no entry, or it is wrong.
    pub fn decode(_body: &mut &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Appends the entry to the body of an `OFPMP_GROUP_DESC` reply.
    pub fn encode(&self, _out: &mut BytesMut) {
        todo!()
    }
}

/// `OFPGC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum GroupCommand {
    /// Add it; an error where it is there.
    Add = 0,
    /// Replace it; an error where it is not there.
    Modify = 1,
    /// Delete it (or all, with `0xffff_fffc`), and the flows that use it.
    Delete = 2,
    /// OVS: add or replace it.
    AddOrModify = 0x8000,
}

/// The body of `OFPT_GROUP_MOD`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupMod {
    /// What is to be done.
    pub command: GroupCommand,
    /// With which group.
    pub group: Group,
}

impl GroupMod {
    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(_body: &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Writes what is behind the header.
    pub fn encode(&self, _out: &mut BytesMut) {
        todo!()
    }
}
