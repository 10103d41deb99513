//! Messages about the session itself: hello, features, configuration, role, asynchronous messages, requests of others
//! (OpenFlow 1.4.1, 7.3.1, 7.3.2, 7.3.9, 7.3.10, 7.4.6 and 7.5.1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::Reader;
use crate::{DecodeError, Fault, Header, VERSION};

/// `OFPHET_VERSIONBITMAP`.
const VERSION_BITMAP: u16 = 1;

/// `OFPT_HELLO`: the versions that a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// A bit for each version, OpenFlow 1.0 being bit 1; `None` of a peer that does not say.
    pub versions: Option<u32>,
}

impl Hello {
    /// Ours: OpenFlow 1.4 and nothing else.
    pub const OURS: Hello = Hello { versions: Some(1 << VERSION) };

    /// Whether a peer with this hello, in a message of this version, speaks OpenFlow 1.4 with us: by the bitmaps, or
    /// without one by the lower of both versions.
    #[must_use]
    pub const fn agrees(self, version: u8) -> bool {
        match self.versions {
            Some(versions) => versions & (1 << VERSION) != 0,
            None => version >= VERSION,
        }
    }

    /// Reads what is behind the header. Elements of a hello that are unknown or malformed are ignored, as the
    /// specification wants.
    #[must_use]
    pub fn decode(body: &[u8]) -> Self {
        let mut reader = Reader::new(body, "hello");
        let mut versions = None;
        while let (Ok(kind), Ok(length)) = (reader.u16(), reader.u16()) {
            let length = usize::from(length);
            let Ok(mut element) = reader.rest_of(length, 4) else { break };
            if kind == VERSION_BITMAP {
                // Only the first word can be about versions that exist.
                versions = element.u32().ok();
            }
            if reader.skip(length.next_multiple_of(8) - length).is_err() {
                break;
            }
        }
        Self { versions }
    }

    /// Writes what is behind the header.
    pub fn encode(self, out: &mut BytesMut) {
        if let Some(versions) = self.versions {
            out.put_u16(VERSION_BITMAP);
            out.put_u16(8);
            out.put_u32(versions);
        }
    }
}

/// `struct ofp_switch_features`: what a switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Which switch it is; in Open vSwitch the bridge's `datapath_id`.
    pub datapath_id: u64,
    /// Packets that it can buffer.
    pub buffers: u32,
    /// Tables that it has.
    pub tables: u8,
    /// 0 on the main connection.
    pub auxiliary_id: u8,
    /// `OFPC_*`.
    pub capabilities: u32,
}

impl Features {
    /// `OFPC_BUNDLES`. Open vSwitch 3.1 has bundles without saying so.
    pub const BUNDLES: u32 = 1 << 9;
    /// `OFPC_FLOW_MONITORING`. Open vSwitch 3.1 monitors without saying so.
    pub const FLOW_MONITORING: u32 = 1 << 10;

    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no features reply.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "features reply");
        let datapath_id = reader.u64()?;
        let buffers = reader.u32()?;
        let (tables, auxiliary_id) = (reader.u8()?, reader.u8()?);
        reader.skip(2)?;
        let capabilities = reader.u32()?;
        reader.skip(4)?;
        Ok(Self { datapath_id, buffers, tables, auxiliary_id, capabilities })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.datapath_id);
        out.put_u32(self.buffers);
        out.put_u8(self.tables);
        out.put_u8(self.auxiliary_id);
        out.put_u16(0);
        out.put_u32(self.capabilities);
        out.put_u32(0);
    }
}

/// What a switch does with IP fragments (`OFPC_FRAG_*`, and `OFPC_FRAG_NX_MATCH` of OVS's `openflow/nicira-ext.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FragmentHandling {
    /// They pass like other packets, but ports and ICMP types of all of them are 0, of the first fragment too.
    Normal = 0,
    /// They are dropped.
    Drop = 1,
    /// They are put together. Open vSwitch does not.
    Reassemble = 2,
    /// Flows match ports and ICMP types of a first fragment; those of later ones are 0.
    Match = 3,
}

/// `struct ofp_switch_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchConfig {
    /// `OFPC_FRAG_*`: what happens to IP fragments, on the whole switch.
    pub flags: u16,
    /// Octets of a packet that a packet-in carries. On Open vSwitch's management socket a session with 0 gets no
    /// asynchronous message at all, and 0 is what it begins with.
    pub miss_send_len: u16,
}

impl SwitchConfig {
    /// What happens to fragments.
    #[must_use]
    pub fn fragments(&self) -> FragmentHandling {
        match self.flags & 3 {
            0 => FragmentHandling::Normal,
            1 => FragmentHandling::Drop,
            2 => FragmentHandling::Reassemble,
            _ => FragmentHandling::Match,
        }
    }

    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "switch configuration");
        Ok(Self { flags: reader.u16()?, miss_send_len: reader.u16()? })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.flags);
        out.put_u16(self.miss_send_len);
    }
}

/// `OFPCR_ROLE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// As it is: asks for the role.
    NoChange = 0,
    /// Full access, as all others of this role.
    Equal = 1,
    /// Full access, and whoever had it before becomes secondary.
    Primary = 2,
    /// Reading only.
    Secondary = 3,
}

/// `struct ofp_role_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleRequest {
    /// The role.
    pub role: Role,
    /// Counts elections of a primary: a smaller one than before is refused.
    pub generation: u64,
}

impl RoleRequest {
    /// Reads what is behind the header.
    ///
    /// # Errors
    /// It is no role request or reply.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "role");
        let role = match reader.u32()? {
            0 => Role::NoChange,
            1 => Role::Equal,
            2 => Role::Primary,
            3 => Role::Secondary,
            value => return Err(reader.error(Fault::Value { name: "role", value: value.into() })),
        };
        reader.skip(4)?;
        Ok(Self { role, generation: reader.u64()? })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.role as u32);
        out.put_u32(0);
        out.put_u64(self.generation);
    }
}

/// One property of `OFPT_SET_ASYNC`: which messages of one kind a controller of one role gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncMask {
    /// `OFPACPT_*`, e.g. [`AsyncMask::PACKET_IN`].
    pub kind: u16,
    /// A bit for each reason for such a message.
    pub reasons: u32,
}

impl AsyncMask {
    /// `OFPACPT_PACKET_IN_MASTER`: packet-ins, for equal and primary controllers.
    pub const PACKET_IN: u16 = 1;
    /// `OFPACPT_PORT_STATUS_MASTER`: changes of ports, likewise.
    pub const PORT_STATUS: u16 = 3;
    /// `OFPACPT_FLOW_REMOVED_MASTER`: removals of flows that ask to be told of, likewise.
    pub const FLOW_REMOVED: u16 = 5;
    /// `OFPACPT_REQUESTFORWARD_MASTER`: changes of groups and meters by other controllers, likewise.
    pub const REQUESTFORWARD: u16 = 11;

    /// All changes of ports.
    pub const PORTS: AsyncMask = AsyncMask { kind: Self::PORT_STATUS, reasons: 0x7 };
    /// All removals of flows that ask to be told of.
    pub const REMOVALS: AsyncMask = AsyncMask { kind: Self::FLOW_REMOVED, reasons: 0x3f };
    /// All changes of groups and meters by others.
    pub const REQUESTS: AsyncMask = AsyncMask { kind: Self::REQUESTFORWARD, reasons: 0x3 };

    /// Reads what is behind the header of an `OFPT_SET_ASYNC`.
    ///
    /// # Errors
    /// There is something else than masks.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        crate::wire::entries(body, "asynchronous configuration", |reader| {
            let kind = reader.u16()?;
            match reader.u16()? {
                8 => Ok(Self { kind, reasons: reader.u32()? }),
                length => Err(reader.error(Fault::Length(length.into()))),
            }
        })
    }

    /// Appends the property.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.kind);
        out.put_u16(8);
        out.put_u32(self.reasons);
    }
}

/// `OFPT_REQUESTFORWARD`: what another controller changed, as it was sent: [`super::Kind::GROUP_MOD`] or
/// [`super::Kind::METER_MOD`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestForward {
    /// The transaction id that the other controller gave it.
    pub xid: u32,
    /// The type of the request.
    pub kind: super::Kind,
    /// What is behind its header.
    pub body: Bytes,
}

impl RequestForward {
    /// Reads what is behind the header of the message.
    ///
    /// # Errors
    /// What is in it is no message of OpenFlow 1.4.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "forwarded request");
        let (version, kind, length, xid) = (reader.u8()?, reader.u8()?, reader.u16()?, reader.u32()?);
        if version != VERSION {
            return Err(reader.error(Fault::Value { name: "version", value: version.into() }));
        }
        if usize::from(length) != body.len() {
            return Err(reader.error(Fault::Length(length.into())));
        }
        Ok(Self { xid, kind: super::Kind(kind), body: body.slice_ref(reader.bytes()) })
    }

    /// Writes what is behind the header of the message.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        Header { version: VERSION, kind: self.kind.0, length: 0, xid: self.xid }.put(out);
        out.put_slice(&self.body);
        super::set_length(out, start, 2);
    }

    /// The request itself.
    ///
    /// # Errors
    /// What is behind its header is not what its type says.
    pub fn request(&self) -> Result<super::Message, DecodeError> {
        let length = u16::try_from(self.body.len() + 8).unwrap_or(u16::MAX);
        super::Message::decode(Header { version: VERSION, kind: self.kind.0, length, xid: self.xid }, &self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_open_vswitch_says_first() {
        let bytes = [
            0x00, 0x01, // OFPHET_VERSIONBITMAP
            0x00, 0x08, // length
            0x00, 0x00, 0x00, 0x7e, // OpenFlow 1.0 to 1.5
        ];
        let hello = Hello::decode(&bytes);
        assert_eq!(hello.versions, Some(0x7e));
        assert!(hello.agrees(6));
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        assert_eq!(out[..], bytes);
    }

    #[test]
    fn versions_agree_or_not() {
        let without = Hello { versions: None };
        assert!(without.agrees(5) && without.agrees(6) && !without.agrees(4) && !without.agrees(1));
        let only_1_3 = Hello { versions: Some(1 << 4) };
        assert!(!only_1_3.agrees(4) && !only_1_3.agrees(6));
        let skips_1_4 = Hello { versions: Some(1 << 4 | 1 << 6) };
        assert!(!skips_1_4.agrees(6));
    }

    #[test]
    fn odd_hellos_are_read_as_far_as_they_can_be() {
        let unknown_element_first = [0, 9, 0, 6, 1, 2, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0x20];
        assert_eq!(Hello::decode(&unknown_element_first).versions, Some(0x20));
        for odd in [&[0, 1, 0, 3][..], &[0, 1, 0, 8, 0], &[0, 1], &[0, 1, 0, 4, 0, 0, 0, 0]] {
            assert_eq!(Hello::decode(odd).versions, None, "{odd:?}");
        }
    }

    #[test]
    fn a_meter_that_somebody_deleted_both_ways() {
        let bytes = [
            5, 29, 0, 16, 0, 0, 0, 9, // OFPT_METER_MOD, 16 octets, of xid 9
            0, 2, // OFPMC_DELETE
            0, 0, // flags
            0, 0, 0, 7, // meter
        ];
        let forward = RequestForward::decode(&Bytes::copy_from_slice(&bytes)).unwrap();
        assert_eq!(forward.xid, 9);
        let super::super::Message::MeterMod(change) = forward.request().unwrap() else { panic!("{forward:?}") };
        assert_eq!((change.command, change.meter.id), (crate::MeterCommand::Delete, 7));
        let mut out = BytesMut::new();
        forward.encode(&mut out);
        assert_eq!(out[..], bytes);
        for odd in [&bytes[..7], &bytes[..15], &[4, 29, 0, 8, 0, 0, 0, 9], &[]] {
            RequestForward::decode(&Bytes::copy_from_slice(odd)).unwrap_err();
        }
    }

    #[test]
    fn a_features_reply_both_ways() {
        let bytes = [
            0, 0, 0x5e, 0x82, 0x1c, 0x11, 0x4a, 0x4b, // datapath_id
            0, 0, 0, 0,   // n_buffers
            254, // n_tables
            0,   // auxiliary_id
            0, 0, // pad
            0, 0, 0, 0x4f, // capabilities
            0, 0, 0, 0, // reserved
        ];
        let features = Features::decode(&bytes).unwrap();
        assert_eq!((features.datapath_id, features.tables, features.capabilities), (0x5e82_1c11_4a4b, 254, 0x4f));
        let mut out = BytesMut::new();
        features.encode(&mut out);
        assert_eq!(out[..], bytes);
        Features::decode(&bytes[..23]).unwrap_err();
    }
}
