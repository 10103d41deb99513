//! Meters, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.4 and 7.3.5.14).

use bytes::BytesMut;

use crate::DecodeError;

/// `OFPMF_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MeterFlags(pub u16);

impl MeterFlags {
    /// Rates are kb/s.
    pub const KBPS: MeterFlags = MeterFlags(1);
    /// Rates are packets a second.
    pub const PKTPS: MeterFlags = MeterFlags(2);
    /// Bursts are given.
    pub const BURST: MeterFlags = MeterFlags(4);
    /// Packets are counted.
    pub const STATS: MeterFlags = MeterFlags(8);
}

/// What happens above a rate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Band {
    /// The rate, in the unit of the meter's flags.
    pub rate: u32,
    /// The burst, in the same unit; meaningful with [`MeterFlags::BURST`].
    pub burst: u32,
    /// What happens.
    pub kind: BandKind,
}

/// `OFPMBT_*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BandKind {
    /// The packet is dropped.
    Drop,
    /// The drop precedence in its DSCP is raised by so much.
    DscpRemark(u8),
}

/// A meter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Meter {
    /// Its number, from 1 to `0xffff_0000`.
    pub id: u32,
    /// Units, and what is given.
    pub flags: MeterFlags,
    /// Its bands; OVS takes no more than one that drops.
    pub bands: Box<[Band]>,
}

impl Meter {
    /// Reads the entry of an `OFPMP_METER_CONFIG` reply at the begin of `body`, and cuts it off.
    ///
    /// # Errors
    /// There is no entry, or it is wrong.
    pub fn decode(_body: &mut &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Appends the entry to the body of an `OFPMP_METER_CONFIG` reply.
    pub fn encode(&self, _out: &mut BytesMut) {
        todo!()
    }
}

/// `OFPMC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum MeterCommand {
    /// Add it; an error where it is there.
    Add = 0,
    /// Replace it; an error where it is not there.
    Modify = 1,
    /// Delete it (or all, with `0xffff_ffff`), and the flows that use it.
    Delete = 2,
}

/// The body of `OFPT_METER_MOD`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeterMod {
    /// What is to be done.
    pub command: MeterCommand,
    /// With which meter. A deletion has no bands.
    pub meter: Meter,
}

impl MeterMod {
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
