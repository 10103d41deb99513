//! Open vSwitch's extensions that are messages of their own: the format of packet-ins, connections that are forgotten,
//! and which tunnel options the `tun_metadata` fields stand for (OVS's nicira-ext.h). Those of flows are with matches and
//! actions.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Message, NX_VENDOR_ID};
use crate::wire::{Reader, entries};
use crate::{DecodeError, Fault};

/// `NXT_SET_PACKET_IN_FORMAT`
const SET_PACKET_IN_FORMAT: u32 = 16;
/// `NXT_TLV_TABLE_MOD`
const TLV_TABLE_MOD: u32 = 24;
/// `NXT_CT_FLUSH_ZONE`
const CT_FLUSH_ZONE: u32 = 29;
/// `NXT_TLV_TABLE_REQUEST`
const TLV_TABLE_REQUEST: u32 = 25;

fn nicira(subtype: u32, body: BytesMut) -> Message {
    Message::Experimenter { vendor: NX_VENDOR_ID, subtype, body: body.freeze() }
}

/// `NXT_CT_FLUSH_ZONE`: the datapath forgets the connections of this zone. A zone is the datapath's, whichever bridge it is
/// said to.
#[must_use]
pub fn flush_zone(zone: u16) -> Message {
    let mut body = BytesMut::new();
    body.put_bytes(0, 6);
    body.put_u16(zone);
    nicira(CT_FLUSH_ZONE, body)
}

/// In what form packets come: `enum ofputil_packet_in_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PacketInFormat {
    /// `OFPT_PACKET_IN`
    Standard = 0,
    /// `NXT_PACKET_IN`
    Nxt = 1,
    /// `NXT_PACKET_IN2`
    Nxt2 = 2,
}

impl PacketInFormat {
    /// `NXT_SET_PACKET_IN_FORMAT`
    #[must_use]
    pub fn message(self) -> Message {
        let mut body = BytesMut::new();
        body.put_u32(self as u32);
        nicira(SET_PACKET_IN_FORMAT, body)
    }
}

/// `enum nx_tlv_table_mod_command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum TlvCommand {
    /// Adds maps.
    Add = 0,
    /// Deletes maps, by their fields.
    Delete = 1,
    /// Deletes all maps.
    Clear = 2,
}

/// `struct nx_tlv_map`: a tunnel option and the field that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvMap {
    /// The option's class (RFC 8926, 3.5).
    pub class: u16,
    /// The option's type.
    pub kind: u8,
    /// Octets of the option: a multiple of four, up to 124.
    pub length: u8,
    /// The number in `tun_metadata<n>`.
    pub field: u16,
}

/// `struct nx_tlv_table_reply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvTable {
    /// Octets of all options together that there is room for.
    pub max_space: u32,
    /// Fields there are.
    pub max_fields: u16,
    /// What they stand for.
    pub maps: Vec<TlvMap>,
}

impl TlvTable {
    /// `NXT_TLV_TABLE_REPLY`
    pub(crate) const REPLY: u32 = 26;

    /// `NXT_TLV_TABLE_REQUEST`
    #[must_use]
    pub fn request() -> Message {
        nicira(TLV_TABLE_REQUEST, BytesMut::new())
    }

    /// `NXT_TLV_TABLE_MOD`
    #[must_use]
    pub fn change(command: TlvCommand, maps: &[TlvMap]) -> Message {
        let mut body = BytesMut::new();
        body.put_u16(command as u16);
        body.put_bytes(0, 6);
        for map in maps {
            body.put_u16(map.class);
            body.put_u8(map.kind);
            body.put_u8(map.length);
            body.put_u16(map.field);
            body.put_u16(0);
        }
        nicira(TLV_TABLE_MOD, body)
    }

    /// Reads the body of an experimenter message.
    ///
    /// # Errors
    /// It is no TLV table.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "TLV table");
        let (max_space, max_fields) = (reader.u32()?, reader.u16()?);
        reader.skip(10)?;
        let maps = entries(reader.bytes(), "TLV table's maps", |reader| {
            let (class, kind, length, field) = (reader.u16()?, reader.u8()?, reader.u8()?, reader.u16()?);
            reader.skip(2)?;
            if length % 4 == 0 {
                Ok(TlvMap { class, kind, length, field })
            } else {
                Err(reader.error(Fault::Value { name: "option_len", value: length.into() }))
            }
        })?;
        Ok(Self { max_space, max_fields, maps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_flushed_by_its_number() {
        let Message::Experimenter { vendor, subtype, body } = flush_zone(0x8001) else { panic!("an extension") };
        assert_eq!((vendor, subtype), (0x2320, 29));
        assert_eq!(body[..], [0, 0, 0, 0, 0, 0, 0x80, 0x01]);
    }
}
