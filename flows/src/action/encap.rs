//! `encap(…)` and `decap(…)`: headers put on and taken off whole (`NXAST_ENCAP`, `NXAST_DECAP`).

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::encode::{end, nicira};
use crate::field::text::{digits, show_hex};
use crate::text::{self, Alt, KeyValues, wrong};
use crate::wire::Reader;
use crate::{DecodeError, Fault, TextError};

/// What a packet begins with: a namespace in the upper 16 bits (0 ONF's, 1 Ethernet types), a type in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketType(pub u32);

impl PacketType {
    /// An Ethernet header.
    pub const ETHERNET: PacketType = PacketType(0);
    /// A network service header.
    pub const NSH: PacketType = PacketType(0x0001_894f);
    /// An MPLS label.
    pub const MPLS: PacketType = PacketType(0x0001_8847);
    /// An MPLS label, multicast.
    pub const MPLS_MULTICAST: PacketType = PacketType(0x0001_8848);
    /// For `decap`: what the header says that it is followed by.
    pub const NEXT: PacketType = PacketType(0x0000_fffe);

    const NAMES: &[(&str, PacketType)] = &[
        ("ethernet", PacketType::ETHERNET),
        ("nsh", PacketType::NSH),
        ("mpls", PacketType::MPLS),
        ("mpls_mc", PacketType::MPLS_MULTICAST),
    ];
}

/// A header to put on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Encap {
    /// Which.
    pub kind: PacketType,
    /// Its size, as the action has it; OVS looks for none.
    pub header_size: u16,
    /// What is in it.
    pub properties: Box<[EncapProperty]>,
}

/// What is in a network service header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EncapProperty {
    /// `md_type=N`.
    MdType(u8),
    /// `tlv(CLASS,TYPE,VALUE)`.
    Tlv {
        /// The class.
        class: u16,
        /// The type.
        kind: u8,
        /// The value, up to 240 octets.
        value: Box<[u8]>,
    },
}

/// `OFPPPC_NSH`.
const NSH: u16 = 4;

impl Encap {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let start = nicira(46, out);
        out.put_u16(self.header_size);
        out.put_u32(self.kind.0);
        for property in &self.properties {
            out.put_u16(NSH);
            match property {
                EncapProperty::MdType(kind) => {
                    out.put_u8(1);
                    out.put_u8(5);
                    out.put_u8(*kind);
                    out.put_bytes(0, 3);
                }
                EncapProperty::Tlv { class, kind, value } => {
                    let padded = value.len().next_multiple_of(8);
                    out.put_u8(2);
                    out.put_u8((8 + padded).min(255) as u8);
                    out.put_u16(*class);
                    out.put_u8(*kind);
                    out.put_u8(value.len().min(255) as u8);
                    out.put_slice(value);
                    out.put_bytes(0, padded - value.len());
                }
            }
        }
        end(start, out);
    }

    /// Nothing, if it has a property that is not known.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let header_size = reader.u16()?;
        let kind = PacketType(reader.u32()?);
        let mut properties = Vec::new();
        while !reader.is_empty() {
            let (class, kind) = (reader.u16()?, reader.u8()?);
            let length = usize::from(reader.u8()?);
            if length < 4 {
                return Err(reader.bad(1, "the length of a property", length as u64));
            }
            let mut property = reader.part(length.next_multiple_of(8) - 4)?;
            properties.push(match (class, kind) {
                (NSH, 1) => EncapProperty::MdType(property.u8()?),
                (NSH, 2) => {
                    let (class, kind) = (property.u16()?, property.u8()?);
                    let width = usize::from(property.u8()?);
                    let value = property.take(width)?.into();
                    if property.len() >= 8 {
                        return Err(property.error(Fault::Length(length)));
                    }
                    EncapProperty::Tlv { class, kind, value }
                }
                _ => return Ok(None),
            });
        }
        Ok(Some(Encap { kind, header_size, properties: properties.into() }))
    }

    pub(super) fn show(&self, out: &mut dyn Write) -> fmt::Result {
        let known = PacketType::NAMES.iter().find(|(_, kind)| *kind == self.kind);
        match known {
            Some((name, _)) => write!(out, "encap({name}")?,
            None => write!(out, "encap({:#x}", self.kind.0)?,
        }
        if !self.properties.is_empty() {
            out.write_char('(')?;
            let mut list = text::Commas::new(out);
            for property in &self.properties {
                match property {
                    EncapProperty::MdType(kind) => list.put(format_args!("md_type={kind}"))?,
                    EncapProperty::Tlv { class, kind, value } => {
                        let out = list.next()?;
                        write!(out, "tlv({class:#06x},{kind},")?;
                        show_hex(out, value)?;
                        out.write_char(')')?;
                    }
                }
            }
            out.write_char(')')?;
        }
        out.write_char(')')
    }

    pub(super) fn parse(value: &str) -> Result<Self, TextError> {
        let Some((name, inner)) = KeyValues::new(value).next() else {
            return Err(wrong(value, "encap(…) says which header"));
        };
        let known = PacketType::NAMES.iter().find(|(known, _)| *known == name);
        let kind = known.map_or_else(|| text::u32(name, "a header").map(PacketType), |(_, kind)| Ok(*kind))?;
        let mut properties = Vec::new();
        for (key, value) in KeyValues::new(inner) {
            properties.push(match key {
                "md_type" => EncapProperty::MdType(text::u8(value, key)?),
                "tlv" => {
                    let mut parts = value.splitn(3, ',').map(str::trim);
                    let (Some(class), Some(kind), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
                        return Err(wrong(value, "a TLV has a class, a type and a value"));
                    };
                    let octets = match value.strip_prefix("0x") {
                        // Leading zeros count here.
                        Some(hex) if hex.len() % 2 == 0 => text::octets(hex)?,
                        _ => digits(value, 240)?,
                    };
                    if octets.len() > 240 {
                        return Err(wrong(value, "a TLV has at most 240 octets"));
                    }
                    EncapProperty::Tlv {
                        class: text::u16(class, "a class")?,
                        kind: text::u8(kind, "a type")?,
                        value: octets.into(),
                    }
                }
                _ => return Err(wrong(key, "unknown in encap(…)")),
            });
        }
        Ok(Encap { kind, header_size: 0, properties: properties.into() })
    }
}

impl PacketType {
    pub(super) fn show_decap(self, out: &mut dyn Write) -> fmt::Result {
        if self == PacketType::NEXT {
            return out.write_str("decap()");
        }
        write!(out, "decap(packet_type(ns={},type={}))", self.0 >> 16, Alt(u64::from(self.0 & 0xffff)))
    }

    pub(super) fn parse_decap(value: &str) -> Result<Self, TextError> {
        let Some((key, inner)) = KeyValues::new(value).next() else { return Ok(PacketType::NEXT) };
        let mut parts = KeyValues::new(inner);
        match (key, parts.next(), parts.next()) {
            ("packet_type", Some(("ns", space)), Some(("type", kind))) => {
                let (space, kind) = (text::u16(space, "a namespace")?, text::u16(kind, "a type")?);
                Ok(PacketType(u32::from(space) << 16 | u32::from(kind)))
            }
            _ => Err(wrong(value, "decap(…) is empty or packet_type(ns=…,type=…)")),
        }
    }
}
