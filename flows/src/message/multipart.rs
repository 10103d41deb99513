//! Multipart requests, and the frame of the parts of their replies (OpenFlow 1.4.1, 7.3.5). What is in the replies is in
//! `stats.rs`, `port.rs` and `monitor.rs`, and beside flows, groups and meters.

use bytes::{BufMut, Bytes, BytesMut};

use super::monitor::MonitorRequest;
use crate::wire::Reader;
use crate::{DecodeError, Match, PortNo};

/// `OFPMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MultipartKind(pub u16);

#[allow(missing_docs, reason = "the names are those of the specification, without OFPMP_")]
impl MultipartKind {
    pub const DESC: MultipartKind = MultipartKind(0);
    pub const FLOW: MultipartKind = MultipartKind(1);
    pub const AGGREGATE: MultipartKind = MultipartKind(2);
    pub const TABLE: MultipartKind = MultipartKind(3);
    pub const PORT_STATS: MultipartKind = MultipartKind(4);
    pub const GROUP: MultipartKind = MultipartKind(6);
    pub const GROUP_DESC: MultipartKind = MultipartKind(7);
    pub const GROUP_FEATURES: MultipartKind = MultipartKind(8);
    pub const METER: MultipartKind = MultipartKind(9);
    pub const METER_CONFIG: MultipartKind = MultipartKind(10);
    pub const METER_FEATURES: MultipartKind = MultipartKind(11);
    pub const PORT_DESC: MultipartKind = MultipartKind(13);
    pub const FLOW_MONITOR: MultipartKind = MultipartKind(16);
}

/// Which flows are meant, of `OFPMP_FLOW` and `OFPMP_AGGREGATE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsRequest {
    /// Those of this table; 0xff for all.
    pub table: u8,
    /// Those that output here; [`PortNo::ANY`] for all.
    pub out_port: PortNo,
    /// Those that use this group; `0xffff_ffff` for all.
    pub out_group: u32,
    /// Those with this cookie, as far as the mask says.
    pub cookie: u64,
    /// See `cookie`; 0 for all.
    pub cookie_mask: u64,
    /// Those that match this or something narrower.
    pub matching: Match,
}

impl Default for FlowsRequest {
    /// All flows.
    fn default() -> Self {
        Self {
            table: 0xff,
            out_port: PortNo::ANY,
            out_group: u32::MAX,
            cookie: 0,
            cookie_mask: 0,
            matching: Match::default(),
        }
    }
}

impl FlowsRequest {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let table = reader.u8()?;
        reader.skip(3)?;
        let (out_port, out_group) = (PortNo(reader.u32()?), reader.u32()?);
        reader.skip(4)?;
        let (cookie, cookie_mask) = (reader.u64()?, reader.u64()?);
        let matching = Match::read(reader)?;
        Ok(Self { table, out_port, out_group, cookie, cookie_mask, matching })
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.table);
        out.put_bytes(0, 3);
        out.put_u32(self.out_port.0);
        out.put_u32(self.out_group);
        out.put_u32(0);
        out.put_u64(self.cookie);
        out.put_u64(self.cookie_mask);
        self.matching.encode(out);
    }
}

/// The body of `OFPT_MULTIPART_REQUEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MultipartRequest {
    /// `OFPMP_DESC`
    Description,
    /// `OFPMP_FLOW`
    Flows(FlowsRequest),
    /// `OFPMP_AGGREGATE`
    Aggregate(FlowsRequest),
    /// `OFPMP_TABLE`
    Tables,
    /// `OFPMP_PORT_STATS`, of one port or [`PortNo::ANY`].
    PortStats(PortNo),
    /// `OFPMP_GROUP`, of one group or `0xffff_fffc`.
    GroupStats(u32),
    /// `OFPMP_GROUP_DESC`, of all groups.
    Groups,
    /// `OFPMP_GROUP_FEATURES`
    GroupFeatures,
    /// `OFPMP_METER`, of one meter or `0xffff_ffff`.
    MeterStats(u32),
    /// `OFPMP_METER_CONFIG`, of one meter or `0xffff_ffff`.
    Meters(u32),
    /// `OFPMP_METER_FEATURES`
    MeterFeatures,
    /// `OFPMP_PORT_DESC`
    Ports,
    /// `OFPMP_FLOW_MONITOR`
    FlowMonitor(MonitorRequest),
    /// Of a kind that is not known here.
    Other {
        /// Which.
        kind: MultipartKind,
        /// What is behind `struct ofp_multipart_request`.
        body: Bytes,
    },
}

impl MultipartRequest {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> MultipartKind {
        match self {
            Self::Description => MultipartKind::DESC,
            Self::Flows(_) => MultipartKind::FLOW,
            Self::Aggregate(_) => MultipartKind::AGGREGATE,
            Self::Tables => MultipartKind::TABLE,
            Self::PortStats(_) => MultipartKind::PORT_STATS,
            Self::GroupStats(_) => MultipartKind::GROUP,
            Self::Groups => MultipartKind::GROUP_DESC,
            Self::GroupFeatures => MultipartKind::GROUP_FEATURES,
            Self::MeterStats(_) => MultipartKind::METER,
            Self::Meters(_) => MultipartKind::METER_CONFIG,
            Self::MeterFeatures => MultipartKind::METER_FEATURES,
            Self::Ports => MultipartKind::PORT_DESC,
            Self::FlowMonitor(_) => MultipartKind::FLOW_MONITOR,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no multipart request.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "multipart request");
        let kind = MultipartKind(reader.u16()?);
        reader.skip(6)?;
        Ok(match kind {
            MultipartKind::DESC => Self::Description,
            MultipartKind::FLOW => Self::Flows(FlowsRequest::decode(&mut reader)?),
            MultipartKind::AGGREGATE => Self::Aggregate(FlowsRequest::decode(&mut reader)?),
            MultipartKind::TABLE => Self::Tables,
            MultipartKind::PORT_STATS => Self::PortStats(PortNo(reader.u32()?)),
            MultipartKind::GROUP => Self::GroupStats(reader.u32()?),
            MultipartKind::GROUP_DESC => Self::Groups,
            MultipartKind::GROUP_FEATURES => Self::GroupFeatures,
            MultipartKind::METER => Self::MeterStats(reader.u32()?),
            MultipartKind::METER_CONFIG => Self::Meters(reader.u32()?),
            MultipartKind::METER_FEATURES => Self::MeterFeatures,
            MultipartKind::PORT_DESC => Self::Ports,
            MultipartKind::FLOW_MONITOR => Self::FlowMonitor(MonitorRequest::decode(&mut reader)?),
            kind => Self::Other { kind, body: body.slice_ref(reader.bytes()) },
        })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.kind().0);
        out.put_bytes(0, 6);
        match self {
            Self::Flows(request) | Self::Aggregate(request) => request.encode(out),
            Self::PortStats(PortNo(id)) | Self::GroupStats(id) | Self::MeterStats(id) | Self::Meters(id) => {
                out.put_u32(*id);
                out.put_u32(0);
            }
            Self::FlowMonitor(request) => request.encode(out),
            Self::Other { body, .. } => out.put_slice(body),
            Self::Description
            | Self::Tables
            | Self::Groups
            | Self::GroupFeatures
            | Self::MeterFeatures
            | Self::Ports => {}
        }
    }
}

/// Reads `struct ofp_multipart_reply`: the kind, whether further parts follow, and the entries.
pub(crate) fn decode_reply(body: &Bytes) -> Result<(MultipartKind, bool, Bytes), DecodeError> {
    let mut reader = Reader::new(body, "multipart reply");
    let kind = MultipartKind(reader.u16()?);
    let flags = reader.u16()?;
    reader.skip(4)?;
    Ok((kind, flags & 1 != 0, body.slice_ref(reader.bytes())))
}
