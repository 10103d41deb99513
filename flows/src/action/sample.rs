//! `sample(…)`: packets to IPFIX collectors (`NXAST_SAMPLE`, `NXAST_SAMPLE2`, `NXAST_SAMPLE3`).

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::encode::{end, nicira};
use crate::text::{self, KeyValues, PortNames, wrong};
use crate::wire::Reader;
use crate::{DecodeError, PortNo, TextError};

/// A share of the packets to a set of collectors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// The share, of 65,535.
    pub probability: u16,
    /// The collectors.
    pub collector_set: u32,
    /// What the collectors are told of where it is.
    pub domain: u32,
    /// What the collectors are told of which flow it is.
    pub point: u32,
    /// The port that they are told; [`PortNo::ANY`] for none.
    pub port: PortNo,
    /// The direction that they are told.
    pub direction: SampleDirection,
}

/// `NX_ACTION_SAMPLE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SampleDirection {
    /// What follows from the port.
    #[default]
    Default = 0,
    /// Into the switch.
    Ingress = 1,
    /// Out of the switch.
    Egress = 2,
}

impl Sample {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let subtype = match (self.direction, self.port) {
            (SampleDirection::Default, PortNo::ANY) => 29,
            (SampleDirection::Default, _) => 38,
            _ => 41,
        };
        let start = nicira(subtype, out);
        out.put_u16(self.probability);
        out.put_u32(self.collector_set);
        out.put_u32(self.domain);
        out.put_u32(self.point);
        if subtype != 29 {
            out.put_u16(self.port.short());
            out.put_u8(self.direction as u8);
        }
        end(start, out);
    }

    pub(super) fn read(reader: &mut Reader<'_>, subtype: u16) -> Result<Self, DecodeError> {
        let mut found = Sample {
            probability: reader.u16()?,
            collector_set: reader.u32()?,
            domain: reader.u32()?,
            point: reader.u32()?,
            port: PortNo::ANY,
            direction: SampleDirection::Default,
        };
        if subtype != 29 {
            found.port = PortNo::from_u16(reader.u16()?);
        }
        if subtype == 41 {
            found.direction = match reader.u8()? {
                0 => SampleDirection::Default,
                1 => SampleDirection::Ingress,
                2 => SampleDirection::Egress,
                other => return Err(reader.bad(1, "the direction of a sample", other)),
            };
        }
        Ok(found)
    }

    pub(super) fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        let Sample { probability, collector_set, domain, point, port, direction } = self;
        write!(out, "sample(probability={probability},collector_set_id={collector_set}")?;
        write!(out, ",obs_domain_id={domain},obs_point_id={point}")?;
        if *port != PortNo::ANY {
            out.write_str(",sampling_port=")?;
            text::show_port(out, *port, names)?;
        }
        out.write_str(match direction {
            SampleDirection::Default => ")",
            SampleDirection::Ingress => ",ingress)",
            SampleDirection::Egress => ",egress)",
        })
    }

    pub(super) fn parse(value: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        let mut found = Sample {
            probability: 0,
            collector_set: 0,
            domain: 0,
            point: 0,
            port: PortNo::ANY,
            direction: SampleDirection::Default,
        };
        for (key, value) in KeyValues::new(value) {
            match key {
                "probability" => found.probability = text::u16(value, key)?,
                "collector_set_id" => found.collector_set = text::u32(value, key)?,
                "obs_domain_id" => found.domain = text::u32(value, key)?,
                "obs_point_id" => found.point = text::u32(value, key)?,
                "sampling_port" => found.port = text::port(value, names)?,
                "ingress" => found.direction = SampleDirection::Ingress,
                "egress" => found.direction = SampleDirection::Egress,
                _ => return Err(wrong(key, "unknown in sample(…)")),
            }
        }
        if found.probability == 0 {
            return Err(wrong(value, "a sample has a probability, which is not 0"));
        }
        Ok(found)
    }
}
