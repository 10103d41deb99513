//! Replies to multipart requests, but for those of flows, groups, meters and ports, which are beside what they are about
//! (OpenFlow 1.4.1, 7.3.5).

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::{duration, put_duration, put_string, set_length};
use crate::DecodeError;
use crate::wire::{Reader, entries};

/// `struct ofp_desc`: what a switch says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Description {
    /// Who made it.
    pub manufacturer: String,
    /// Its hardware.
    pub hardware: String,
    /// Its software, e.g. `3.1.0`.
    pub software: String,
    /// Its serial number.
    pub serial: String,
    /// Its name for people; in Open vSwitch the bridge's `other_config:dp-desc`.
    pub datapath: String,
}

impl Description {
    /// Reads the body of an `OFPMP_DESC` reply.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "description");
        Ok(Self {
            manufacturer: reader.string::<256>()?,
            hardware: reader.string::<256>()?,
            software: reader.string::<256>()?,
            serial: reader.string::<32>()?,
            datapath: reader.string::<256>()?,
        })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_string::<256>(out, &self.manufacturer);
        put_string::<256>(out, &self.hardware);
        put_string::<256>(out, &self.software);
        put_string::<32>(out, &self.serial);
        put_string::<256>(out, &self.datapath);
    }
}

/// `struct ofp_aggregate_stats_reply`: sums over flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Packets that the flows matched; `u64::MAX` where the switch does not know.
    pub packet_count: u64,
    /// Octets of these packets; likewise.
    pub byte_count: u64,
    /// Flows.
    pub flow_count: u32,
}

impl Aggregate {
    /// Reads the body of an `OFPMP_AGGREGATE` reply.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "aggregate");
        Ok(Self { packet_count: reader.u64()?, byte_count: reader.u64()?, flow_count: reader.u32()? })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.packet_count);
        out.put_u64(self.byte_count);
        out.put_u32(self.flow_count);
        out.put_u32(0);
    }
}

/// `struct ofp_table_stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStats {
    /// The table.
    pub table: u8,
    /// Its flows.
    pub active_count: u32,
    /// Packets that were looked up in it.
    pub lookup_count: u64,
    /// Packets that matched one of its flows.
    pub matched_count: u64,
}

impl TableStats {
    /// Reads the entries of an `OFPMP_TABLE` reply.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        entries(body, "table statistics", |reader| {
            let table = reader.u8()?;
            reader.skip(3)?;
            let (active_count, lookup_count, matched_count) = (reader.u32()?, reader.u64()?, reader.u64()?);
            Ok(Self { table, active_count, lookup_count, matched_count })
        })
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.table);
        out.put_bytes(0, 3);
        out.put_u32(self.active_count);
        out.put_u64(self.lookup_count);
        out.put_u64(self.matched_count);
    }
}

/// Packets and octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Packets; `u64::MAX` where the switch does not know.
    pub packets: u64,
    /// Octets; likewise.
    pub bytes: u64,
}

impl Counter {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { packets: reader.u64()?, bytes: reader.u64()? })
    }

    fn put(self, out: &mut BytesMut) {
        out.put_u64(self.packets);
        out.put_u64(self.bytes);
    }
}

/// `struct ofp_group_stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStats {
    /// The group.
    pub id: u32,
    /// Flows that use it.
    pub ref_count: u32,
    /// What went through it.
    pub total: Counter,
    /// How long it has been there.
    pub duration: Duration,
    /// What went through each of its buckets, in their order.
    pub buckets: Vec<Counter>,
}

impl GroupStats {
    /// Reads the entries of an `OFPMP_GROUP` reply.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        entries(body, "group statistics", |reader| {
            let length = reader.u16()?;
            let mut reader = reader.rest_of(length.into(), 2)?;
            reader.skip(2)?;
            let (id, ref_count) = (reader.u32()?, reader.u32()?);
            reader.skip(4)?;
            let total = Counter::read(&mut reader)?;
            let duration = duration(&mut reader)?;
            let mut buckets = Vec::new();
            while !reader.is_empty() {
                buckets.push(Counter::read(&mut reader)?);
            }
            Ok(Self { id, ref_count, total, duration, buckets })
        })
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(0); // the length, later, and padding
        out.put_u32(self.id);
        out.put_u32(self.ref_count);
        out.put_u32(0);
        self.total.put(out);
        put_duration(out, self.duration);
        self.buckets.iter().for_each(|bucket| bucket.put(out));
        set_length(out, start, 0);
    }
}

/// `struct ofp_group_features`; arrays are by the number of a group's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFeatures {
    /// A bit for each kind of group.
    pub kinds: u32,
    /// `OFPGFC_*`.
    pub capabilities: u32,
    /// Groups there may be.
    pub max_groups: [u32; 4],
    /// A bit for each `OFPAT_*` that buckets may have.
    pub actions: [u32; 4],
}

impl GroupFeatures {
    /// Reads the body of an `OFPMP_GROUP_FEATURES` reply.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "group features");
        let (kinds, capabilities) = (reader.u32()?, reader.u32()?);
        let mut four =
            || -> Result<[u32; 4], DecodeError> { Ok([reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?]) };
        Ok(Self { kinds, capabilities, max_groups: four()?, actions: four()? })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.kinds);
        out.put_u32(self.capabilities);
        self.max_groups.into_iter().chain(self.actions).for_each(|word| out.put_u32(word));
    }
}

/// `struct ofp_meter_stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterStats {
    /// The meter.
    pub id: u32,
    /// Flows that use it.
    pub flow_count: u32,
    /// What went into it.
    pub input: Counter,
    /// How long it has been there.
    pub duration: Duration,
    /// What each of its bands acted upon, in their order.
    pub bands: Vec<Counter>,
}

impl MeterStats {
    /// Reads the entries of an `OFPMP_METER` reply.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        entries(body, "meter statistics", |reader| {
            let id = reader.u32()?;
            let length = reader.u16()?;
            let mut reader = reader.rest_of(length.into(), 6)?;
            reader.skip(6)?;
            let flow_count = reader.u32()?;
            let input = Counter::read(&mut reader)?;
            let duration = duration(&mut reader)?;
            let mut bands = Vec::new();
            while !reader.is_empty() {
                bands.push(Counter::read(&mut reader)?);
            }
            Ok(Self { id, flow_count, input, duration, bands })
        })
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(self.id);
        out.put_u64(0); // the length, later, and padding
        out.put_u32(self.flow_count);
        self.input.put(out);
        put_duration(out, self.duration);
        self.bands.iter().for_each(|band| band.put(out));
        set_length(out, start, 4);
    }
}

/// `struct ofp_meter_features`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterFeatures {
    /// Meters there may be; 0 means that the datapath has none.
    pub max_meters: u32,
    /// A bit for each `OFPMBT_*`.
    pub band_types: u32,
    /// `OFPMF_*` that meters may have.
    pub capabilities: u32,
    /// Bands that a meter may have.
    pub max_bands: u8,
    /// Highest value of a colour.
    pub max_color: u8,
}

impl MeterFeatures {
    /// Reads the body of an `OFPMP_METER_FEATURES` reply.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "meter features");
        let (max_meters, band_types, capabilities) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Ok(Self { max_meters, band_types, capabilities, max_bands: reader.u8()?, max_color: reader.u8()? })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.max_meters);
        out.put_u32(self.band_types);
        out.put_u32(self.capabilities);
        out.put_u8(self.max_bands);
        out.put_u8(self.max_color);
        out.put_u16(0);
    }
}
