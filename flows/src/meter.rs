//! Meters, and the messages that change and list them (OpenFlow 1.4.1, 7.3.4.4 and 7.3.5.14).

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use crate::text::{self, PortNames, Show, text_form, wrong};
use crate::wire::{Reader, finish};
use crate::{DecodeError, TextError};

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
    /// The burst, in the same unit; 0 without [`MeterFlags::BURST`].
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
    /// What this crate does not know: the type, and what is behind the burst.
    Unknown(u16, Box<[u8]>),
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

/// Meters that have names instead of numbers.
const NAMES: &[(&str, u32)] = &[("slowpath", 0xffff_fffd), ("controller", 0xffff_fffe), ("all", 0xffff_ffff)];
/// `OFPM_MAX`: the greatest number.
const MAX_METER: u32 = 0xffff_0000;

impl Band {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut band = reader.structure(2, 16)?;
        let kind = band.u16()?;
        band.skip(2)?;
        let (rate, burst) = (band.u32()?, band.u32()?);
        let kind = match kind {
            1 => BandKind::Drop,
            2 => BandKind::DscpRemark(band.u8()?),
            other => BandKind::Unknown(other, band.bytes().into()),
        };
        Ok(Band { rate, burst, kind })
    }

    fn put(&self, out: &mut BytesMut) {
        let start = out.len();
        let (kind, rest) = match &self.kind {
            BandKind::Drop => (1, &[0; 4][..]),
            BandKind::DscpRemark(level) => (2, &[*level, 0, 0, 0][..]),
            BandKind::Unknown(kind, rest) => (*kind, &**rest),
        };
        out.put_u16(kind);
        out.put_u16(0);
        out.put_u32(self.rate);
        out.put_u32(self.burst);
        out.put_slice(rest);
        finish(out, start, 2);
    }
}

impl Meter {
    /// Reads the entry of an `OFPMP_METER_CONFIG` reply at the begin of `body`, and cuts it off.
    ///
    /// # Errors
    /// There is no entry, or it is wrong.
    pub fn decode(body: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "meter");
        let mut entry = reader.structure(0, 8)?;
        entry.skip(2)?;
        let meter = Self::read(&mut entry)?;
        *body = reader.bytes();
        Ok(meter)
    }

    /// Appends the entry to the body of an `OFPMP_METER_CONFIG` reply.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(0);
        self.put(out);
        finish(out, start, 0);
    }

    /// What configurations and modifications have in common: all from the flags on.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (flags, id) = (MeterFlags(reader.u16()?), reader.u32()?);
        let mut bands = Vec::new();
        while !reader.is_empty() {
            let mut band = Band::read(reader)?;
            // OVS fills in a burst of its own where none was asked for.
            if flags.0 & MeterFlags::BURST.0 == 0 {
                band.burst = 0;
            }
            bands.push(band);
        }
        Ok(Meter { id, flags, bands: bands.into() })
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u16(self.flags.0);
        out.put_u32(self.id);
        for band in &self.bands {
            band.put(out);
        }
    }
}

impl std::str::FromStr for Meter {
    type Err = TextError;

    /// Reads a meter as `ovs-ofctl add-meter` takes it and `dump-meters` writes it.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let (head, bands) = match text.find("band").map(|at| text.split_at(at)) {
            Some((head, rest)) => (head, rest.split_once('=').map(|(_, bands)| bands)),
            None => (text, None),
        };
        let bands = bands.ok_or_else(|| wrong(text, "a meter has bands"))?;
        let mut meter = Meter { id: 0, flags: MeterFlags::default(), bands: Box::default() };
        let mut words = words(head);
        while let Some(word) = words.next() {
            match (FLAGS.iter().find(|(_, name)| *name == word), word) {
                (Some((flag, _)), _) => meter.flags.0 |= flag.0,
                (None, "meter") => {
                    let value = words.next().unwrap_or_default();
                    let named = NAMES.iter().find(|(name, _)| *name == value).map(|(_, id)| *id);
                    let number = || text::number(value, MAX_METER.into(), word).map(|id| id as u32);
                    meter.id = named.map_or_else(number, Ok)?;
                }
                (None, _) => return Err(wrong(word, "unknown of a meter")),
            }
        }
        if meter.id == 0 {
            return Err(wrong(text, "a meter has a number, from 1"));
        }
        if meter.flags == MeterFlags::default() {
            return Err(wrong(text, "a meter is in kbps or pktps"));
        }
        meter.bands = parse_bands(bands, meter.flags)?;
        Ok(meter)
    }
}

const FLAGS: &[(MeterFlags, &str)] = &[
    (MeterFlags::KBPS, "kbps"),
    (MeterFlags::PKTPS, "pktps"),
    (MeterFlags::BURST, "burst"),
    (MeterFlags::STATS, "stats"),
];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(['=', ',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty())
}

fn parse_bands(text: &str, flags: MeterFlags) -> Result<Box<[Band]>, TextError> {
    let mut bands: Vec<Band> = Vec::new();
    let mut words = words(text);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| wrong(word, "has a value"))?;
        match (word, bands.last_mut()) {
            ("type", _) => {
                let kind = match value {
                    "drop" => BandKind::Drop,
                    "dscp_remark" => BandKind::DscpRemark(0),
                    _ => return Err(wrong(value, "drop or dscp_remark")),
                };
                bands.push(Band { rate: 0, burst: 0, kind });
            }
            ("rate", Some(band)) => band.rate = text::u32(value, word)?,
            ("burst_size", Some(band)) => band.burst = text::u32(value, word)?,
            ("prec_level", Some(Band { kind: BandKind::DscpRemark(level), .. })) => *level = text::u8(value, word)?,
            _ => return Err(wrong(word, "bands are type=… rate=… burst_size=… prec_level=…")),
        }
    }
    let burst = flags.0 & MeterFlags::BURST.0 != 0;
    for band in &bands {
        if band.rate == 0 || (band.burst != 0) != burst || band.kind == BandKind::DscpRemark(0) {
            return Err(wrong(
                text,
                "a band has a rate, a burst_size if the meter says burst, and of dscp_remark a prec_level",
            ));
        }
    }
    if bands.is_empty() { Err(wrong(text, "a meter has bands")) } else { Ok(bands.into()) }
}

text_form!(Meter);

impl Show for Meter {
    fn show(&self, out: &mut dyn Write, _: &dyn PortNames) -> fmt::Result {
        match NAMES.iter().find(|(_, id)| *id == self.id) {
            Some((name, _)) => write!(out, "meter={name} ")?,
            None => write!(out, "meter={} ", self.id)?,
        }
        for (flag, name) in FLAGS {
            if self.flags.0 & flag.0 != 0 {
                write!(out, "{name} ")?;
            }
        }
        if self.flags.0 & !0xf != 0 {
            write!(out, "flags:{:#x} ", self.flags.0 & !0xf)?;
        }
        out.write_str("bands=")?;
        for band in &self.bands {
            match &band.kind {
                BandKind::Drop => out.write_str("\ntype=drop")?,
                BandKind::DscpRemark(_) => out.write_str("\ntype=dscp_remark")?,
                BandKind::Unknown(kind, _) => write!(out, "\ntype={kind}")?,
            }
            write!(out, " rate={}", band.rate)?;
            if self.flags.0 & MeterFlags::BURST.0 != 0 {
                write!(out, " burst_size={}", band.burst)?;
            }
            if let BandKind::DscpRemark(level) = band.kind {
                write!(out, " prec_level={level}")?;
            }
        }
        Ok(())
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
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(body, "meter mod");
        let command = match reader.u16()? {
            0 => MeterCommand::Add,
            1 => MeterCommand::Modify,
            2 => MeterCommand::Delete,
            other => return Err(reader.bad(2, "command", other)),
        };
        Ok(MeterMod { command, meter: Meter::read(reader)? })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.command as u16);
        self.meter.put(out);
    }
}
