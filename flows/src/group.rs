//! Groups, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.3 and 7.3.5.11). OVS takes a bucket
//! alone (insert, remove) only in OpenFlow 1.0 by `NXT_GROUP_MOD` and in 1.5: not in 1.4.

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use crate::action::{parse_bare, put_actions, read_actions, show_actions};
use crate::text::{self, Commas, KeyValues, PortNames, Show, Unnamed, text_form, wrong};
use crate::wire::{Reader, finish};
use crate::{Action, DecodeError, PortNo, TextError};

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

/// `OFPG_ANY`: no group.
const NO_GROUP: u32 = 0xffff_ffff;
/// `OFPG_ALL`: all groups.
const ALL_GROUPS: u32 = 0xffff_fffc;
/// `OFPG_MAX`: the greatest number.
const MAX_GROUP: u32 = 0xffff_ff00;

impl GroupKind {
    const NAMES: [(GroupKind, &str); 4] = [
        (GroupKind::All, "all"),
        (GroupKind::Select, "select"),
        (GroupKind::Indirect, "indirect"),
        (GroupKind::FastFailover, "ff"),
    ];

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = reader.u8()?;
        let known = Self::NAMES.get(usize::from(number)).map(|(kind, _)| *kind);
        known.ok_or_else(|| reader.bad(1, "the type of a group", number))
    }
}

impl Bucket {
    /// Actions, without a weight or anything watched.
    #[must_use]
    pub fn new(actions: impl Into<Box<[Action]>>) -> Self {
        Bucket { weight: 0, watch_port: PortNo::ANY, watch_group: NO_GROUP, actions: actions.into() }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut bucket = reader.structure(0, 16)?;
        bucket.skip(2)?;
        let (weight, watch_port, watch_group) = (bucket.u16()?, PortNo(bucket.u32()?), bucket.u32()?);
        bucket.skip(4)?;
        Ok(Bucket { weight, watch_port, watch_group, actions: read_actions(bucket, 0)? })
    }

    fn put(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(0);
        out.put_u16(self.weight);
        out.put_u32(self.watch_port.0);
        out.put_u32(self.watch_group);
        out.put_u32(0);
        put_actions(&self.actions, out);
        finish(out, start, 0);
    }

    fn parse(text: &str, kind: GroupKind, names: &dyn PortNames) -> Result<Self, TextError> {
        let weight = u16::from(kind == GroupKind::Select);
        let mut bucket = Bucket { weight, ..Bucket::new([]) };
        // Keys that are none of a bucket's are actions.
        let mut actions = String::new();
        for (key, value) in KeyValues::new(text) {
            match key {
                "weight" => bucket.weight = text::u16(value, key)?,
                "watch_port" => bucket.watch_port = text::port(value, names)?,
                "watch_group" => bucket.watch_group = text::u32(value, key)?,
                "bucket_id" => return Err(wrong(key, "buckets have no numbers in OpenFlow 1.4")),
                "action" | "actions" => actions.extend([value, ","]),
                _ => actions.extend([key, "(", value, "),"]),
            }
        }
        if actions.is_empty() {
            return Err(wrong(text, "a bucket says its actions"));
        }
        if bucket.weight != 0 && kind != GroupKind::Select {
            return Err(wrong(text, "only buckets of select groups have weights"));
        }
        if kind == GroupKind::FastFailover && bucket.watch_port == PortNo::ANY && bucket.watch_group == NO_GROUP {
            return Err(wrong(text, "a bucket to fail over to watches a port or a group"));
        }
        bucket.actions = parse_bare(&actions, names)?.into();
        Ok(bucket)
    }
}

impl Group {
    /// Reads the entry of an `OFPMP_GROUP_DESC` reply at the begin of `body`, and cuts it off.
    ///
    /// # Errors
    /// There is no entry, or it is wrong.
    pub fn decode(body: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "group description");
        let mut entry = reader.structure(0, 8)?;
        entry.skip(2)?;
        let group = Self::read(&mut entry)?;
        *body = reader.bytes();
        Ok(group)
    }

    /// Appends the entry to the body of an `OFPMP_GROUP_DESC` reply.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(0);
        self.put(out);
        finish(out, start, 0);
    }

    /// What descriptions and modifications have in common: all from the type on.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = GroupKind::read(reader)?;
        reader.skip(1)?;
        let id = reader.u32()?;
        let mut buckets = Vec::new();
        while !reader.is_empty() {
            buckets.push(Bucket::read(reader)?);
        }
        Ok(Group { id, kind, buckets: buckets.into() })
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.kind as u8);
        out.put_u8(0);
        out.put_u32(self.id);
        for bucket in &self.buckets {
            bucket.put(out);
        }
    }

    /// Reads a group as `ovs-ofctl add-group` takes it and `dump-groups` writes it.
    ///
    /// # Errors
    /// A part of it is wrong.
    pub fn parse(text: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        let (head, buckets) = text.split_at(text.find("bucket=").unwrap_or(text.len()));
        let (mut id, mut kind) = (None, None);
        for (key, value) in KeyValues::new(head) {
            match key {
                "group_id" if value == "all" => id = Some(ALL_GROUPS),
                "group_id" => id = Some(text::number(value, MAX_GROUP.into(), key)? as u32),
                "type" => {
                    let name = if value == "fast_failover" { "ff" } else { value };
                    let known = GroupKind::NAMES.iter().find(|(_, known)| *known == name);
                    kind = Some(known.ok_or_else(|| wrong(value, "all, select, indirect or ff"))?.0);
                }
                _ => return Err(wrong(key, "unknown of a group")),
            }
        }
        let id = id.ok_or_else(|| wrong(text, "a group has a group_id"))?;
        let kind = kind.ok_or_else(|| wrong(text, "a group has a type"))?;
        let buckets = buckets.split("bucket=").skip(1).map(|bucket| Bucket::parse(bucket, kind, names));
        let buckets: Box<[Bucket]> = buckets.collect::<Result<_, _>>()?;
        if kind == GroupKind::Indirect && buckets.len() > 1 {
            return Err(wrong(text, "an indirect group has one bucket"));
        }
        Ok(Group { id, kind, buckets })
    }
}

impl std::str::FromStr for Group {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text, &Unnamed)
    }
}

text_form!(Group);

impl Show for Group {
    fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        let mut list = Commas::new(out);
        let kind = GroupKind::NAMES[self.kind as usize].1;
        list.put(format_args!("group_id={},type={kind}", self.id))?;
        for bucket in &self.buckets {
            let out = list.next()?;
            out.write_str("bucket=")?;
            if bucket.weight != u16::from(self.kind == GroupKind::Select) {
                write!(out, "weight:{},", bucket.weight)?;
            }
            if bucket.watch_port != PortNo::ANY {
                out.write_str("watch_port:")?;
                text::show_port(out, bucket.watch_port, names)?;
                out.write_char(',')?;
            }
            if bucket.watch_group != NO_GROUP {
                write!(out, "watch_group:{},", bucket.watch_group)?;
            }
            out.write_str("actions=")?;
            show_actions(&bucket.actions, out, names)?;
        }
        Ok(())
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
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(body, "group mod");
        let command = match reader.u16()? {
            0 => GroupCommand::Add,
            1 => GroupCommand::Modify,
            2 => GroupCommand::Delete,
            0x8000 => GroupCommand::AddOrModify,
            other => return Err(reader.bad(2, "command", other)),
        };
        Ok(GroupMod { command, group: Group::read(reader)? })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.command as u16);
        self.group.put(out);
    }
}
