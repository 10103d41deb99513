//! Ports: what they are, that they changed, what they counted (OpenFlow 1.4.1, 7.2.1, 7.3.5.7, 7.3.5.8 and 7.4.3).

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::{put_duration, put_string, set_length};
use crate::wire::{Reader, entries};
use crate::{DecodeError, Fault, PortNo};

/// `struct ofp_port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: PortNo,
    /// Its MAC address.
    pub hw_addr: [u8; 6],
    /// Its name, of at most 15 octets.
    pub name: String,
    /// `OFPPC_*`: how it is configured.
    pub config: u32,
    /// `OFPPS_*`: how it is.
    pub state: u32,
    /// Ethernet's property.
    pub ethernet: Option<PortEthernet>,
    /// Other properties, as they came.
    pub unknown: Box<[u8]>,
}

/// `struct ofp_port_desc_prop_ethernet`: bitmaps of `OFPPF_*`, and speeds in kb/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEthernet {
    /// What it does now.
    pub current: u32,
    /// What it offers its peer.
    pub advertised: u32,
    /// What it could do.
    pub supported: u32,
    /// What its peer offers.
    pub peer: u32,
    /// Its speed now.
    pub current_speed: u32,
    /// Its highest speed.
    pub max_speed: u32,
}

impl Port {
    /// `OFPPC_PORT_DOWN` of `config`: put down by an administrator.
    pub const PORT_DOWN: u32 = 1;
    /// `OFPPS_LINK_DOWN` of `state`.
    pub const LINK_DOWN: u32 = 1;

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = PortNo(reader.u32()?);
        let length = reader.u16()?;
        let mut reader = reader.rest_of(length.into(), 6)?;
        reader.skip(2)?;
        let hw_addr = reader.array()?;
        reader.skip(2)?;
        let name = reader.string::<16>()?;
        let (config, state) = (reader.u32()?, reader.u32()?);
        let mut port = Self { number, hw_addr, name, config, state, ethernet: None, unknown: Box::default() };
        port.unknown = properties(&mut reader, |property| {
            property.skip(4)?;
            port.ethernet = Some(PortEthernet {
                current: property.u32()?,
                advertised: property.u32()?,
                supported: property.u32()?,
                peer: property.u32()?,
                current_speed: property.u32()?,
                max_speed: property.u32()?,
            });
            Ok(())
        })?;
        Ok(port)
    }

    /// Reads the entries of an `OFPMP_PORT_DESC` reply.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        entries(body, "port", Self::read)
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(self.number.0);
        out.put_u32(0); // the length, later, and padding
        out.put_slice(&self.hw_addr);
        out.put_u16(0);
        put_string::<16>(out, &self.name);
        out.put_u32(self.config);
        out.put_u32(self.state);
        if let Some(ethernet) = self.ethernet {
            out.put_u64(0x0000_0020_0000_0000); // type 0, 32 octets, padding
            out.put_u32(ethernet.current);
            out.put_u32(ethernet.advertised);
            out.put_u32(ethernet.supported);
            out.put_u32(ethernet.peer);
            out.put_u32(ethernet.current_speed);
            out.put_u32(ethernet.max_speed);
        }
        out.put_slice(&self.unknown);
        set_length(out, start, 4);
    }
}

/// Reads properties to the end: Ethernet's (type 0) by `ethernet`, which is given what is behind type and length; others
/// are given back, as they came.
fn properties(
    reader: &mut Reader<'_>,
    mut ethernet: impl FnMut(&mut Reader<'_>) -> Result<(), DecodeError>,
) -> Result<Box<[u8]>, DecodeError> {
    let mut unknown = Vec::new();
    while !reader.is_empty() {
        let all = reader.bytes();
        let (kind, length) = (reader.u16()?, usize::from(reader.u16()?));
        let mut property = reader.rest_of(length, 4)?;
        if kind == 0 {
            ethernet(&mut property)?;
        }
        reader.skip(length.next_multiple_of(8) - length)?;
        if kind != 0 {
            unknown.extend_from_slice(&all[..all.len() - reader.bytes().len()]);
        }
    }
    Ok(unknown.into())
}

/// `OFPPR_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortReason {
    /// It is new.
    Add = 0,
    /// It is gone.
    Delete = 1,
    /// Something about it is different.
    Modify = 2,
}

/// `OFPT_PORT_STATUS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// What happened.
    pub reason: PortReason,
    /// The port as it is now, or was.
    pub port: Port,
}

impl PortStatus {
    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no port status.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "port status");
        let reason = match reader.u8()? {
            0 => PortReason::Add,
            1 => PortReason::Delete,
            2 => PortReason::Modify,
            value => return Err(reader.error(Fault::Value { name: "reason", value: value.into() })),
        };
        reader.skip(7)?;
        let port = Port::read(&mut reader)?;
        Ok(Self { reason, port })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.reason as u8);
        out.put_bytes(0, 7);
        self.port.encode(out);
    }
}

/// `struct ofp_port_stats`; counters are `u64::MAX` where the switch does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStats {
    /// The port.
    pub number: PortNo,
    /// How long it has been there.
    pub duration: Duration,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Packets dropped instead of sent.
    pub tx_dropped: u64,
    /// Errors in receiving.
    pub rx_errors: u64,
    /// Errors in sending.
    pub tx_errors: u64,
    /// Ethernet's property: frame errors, overruns, CRC errors, collisions.
    pub ethernet: Option<[u64; 4]>,
    /// Other properties, as they came.
    pub unknown: Box<[u8]>,
}

impl PortStats {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.u16()?;
        let mut reader = reader.rest_of(length.into(), 2)?;
        reader.skip(2)?;
        let mut stats = Self {
            number: PortNo(reader.u32()?),
            duration: super::duration(&mut reader)?,
            rx_packets: reader.u64()?,
            tx_packets: reader.u64()?,
            rx_bytes: reader.u64()?,
            tx_bytes: reader.u64()?,
            rx_dropped: reader.u64()?,
            tx_dropped: reader.u64()?,
            rx_errors: reader.u64()?,
            tx_errors: reader.u64()?,
            ethernet: None,
            unknown: Box::default(),
        };
        stats.unknown = properties(&mut reader, |property| {
            property.skip(4)?;
            stats.ethernet = Some([property.u64()?, property.u64()?, property.u64()?, property.u64()?]);
            Ok(())
        })?;
        Ok(stats)
    }

    /// Reads the entries of an `OFPMP_PORT_STATS` reply.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        entries(body, "port statistics", Self::read)
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(0); // the length, later, and padding
        out.put_u32(self.number.0);
        put_duration(out, self.duration);
        let counters = [self.rx_packets, self.tx_packets, self.rx_bytes, self.tx_bytes];
        let failures = [self.rx_dropped, self.tx_dropped, self.rx_errors, self.tx_errors];
        counters.into_iter().chain(failures).for_each(|counter| out.put_u64(counter));
        if let Some(ethernet) = self.ethernet {
            out.put_u64(0x0000_0028_0000_0000); // type 0, 40 octets, padding
            ethernet.into_iter().for_each(|counter| out.put_u64(counter));
        }
        out.put_slice(&self.unknown);
        set_length(out, start, 0);
    }
}
