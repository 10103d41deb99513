//! OpenFlow messages whole: which type has which body. The bodies are in `message/`, and beside what they are about:
//! [`FlowMod`], [`GroupMod`], [`MeterMod`]. What is said when is for [`crate::session`].
//!
//! What is not known here survives as bytes: [`Message::Other`], [`Message::Experimenter`],
//! [`MultipartRequest::Other`].

mod error;
mod monitor;
pub(crate) mod multipart;
mod nicira;
mod packet;
mod port;
#[cfg(test)]
mod properties;
mod session;
mod stats;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::error::{NX_VENDOR_ID, ONF_VENDOR_ID, SwitchError, Vendor};
pub use self::monitor::{FlowUpdate, MonitorCommand, MonitorFlags, MonitorRequest, UpdateEvent, UpdatedFlow};
pub use self::multipart::{FlowsRequest, MultipartKind, MultipartRequest};
pub use self::nicira::{PacketInFormat, TlvCommand, TlvMap, TlvTable, flush_zone};
pub use self::packet::{FlowRemoved, PacketIn, PacketOut};
pub use self::port::{Port, PortEthernet, PortReason, PortStats, PortStatus};
pub use self::session::{
    AsyncMask, Features, FragmentHandling, Hello, RequestForward, Role, RoleRequest, SwitchConfig,
};
pub use self::stats::{
    Aggregate, Counter, Description, GroupFeatures, GroupStats, MeterFeatures, MeterStats, TableStats,
};
use crate::wire::Reader;
use crate::{DecodeError, Fault, FlowMod, GroupMod, Header, MeterMod, VERSION};

/// `OFPT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

#[allow(missing_docs, reason = "the names are those of the specification, without OFPT_")]
impl Kind {
    pub const HELLO: Kind = Kind(0);
    pub const ERROR: Kind = Kind(1);
    pub const ECHO_REQUEST: Kind = Kind(2);
    pub const ECHO_REPLY: Kind = Kind(3);
    pub const EXPERIMENTER: Kind = Kind(4);
    pub const FEATURES_REQUEST: Kind = Kind(5);
    pub const FEATURES_REPLY: Kind = Kind(6);
    pub const GET_CONFIG_REQUEST: Kind = Kind(7);
    pub const GET_CONFIG_REPLY: Kind = Kind(8);
    pub const SET_CONFIG: Kind = Kind(9);
    pub const PACKET_IN: Kind = Kind(10);
    pub const FLOW_REMOVED: Kind = Kind(11);
    pub const PORT_STATUS: Kind = Kind(12);
    pub const PACKET_OUT: Kind = Kind(13);
    pub const FLOW_MOD: Kind = Kind(14);
    pub const GROUP_MOD: Kind = Kind(15);
    pub const MULTIPART_REQUEST: Kind = Kind(18);
    pub const MULTIPART_REPLY: Kind = Kind(19);
    pub const BARRIER_REQUEST: Kind = Kind(20);
    pub const BARRIER_REPLY: Kind = Kind(21);
    pub const ROLE_REQUEST: Kind = Kind(24);
    pub const ROLE_REPLY: Kind = Kind(25);
    pub const SET_ASYNC: Kind = Kind(28);
    pub const METER_MOD: Kind = Kind(29);
    pub const REQUESTFORWARD: Kind = Kind(32);
    pub const BUNDLE_CONTROL: Kind = Kind(33);
    pub const BUNDLE_ADD_MESSAGE: Kind = Kind(34);
}

/// A message without its transaction id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// `OFPT_HELLO`
    Hello(Hello),
    /// `OFPT_ERROR`
    Error(SwitchError),
    /// `OFPT_ECHO_REQUEST`
    EchoRequest(Bytes),
    /// `OFPT_ECHO_REPLY`, with what the request had.
    EchoReply(Bytes),
    /// `OFPT_EXPERIMENTER`: an extension, e.g. [`NX_VENDOR_ID`]'s.
    Experimenter {
        /// Whose.
        vendor: u32,
        /// Which.
        subtype: u32,
        /// What is behind these numbers.
        body: Bytes,
    },
    /// `OFPT_FEATURES_REQUEST`
    FeaturesRequest,
    /// `OFPT_FEATURES_REPLY`
    FeaturesReply(Features),
    /// `OFPT_GET_CONFIG_REQUEST`
    GetConfigRequest,
    /// `OFPT_GET_CONFIG_REPLY`
    GetConfigReply(SwitchConfig),
    /// `OFPT_SET_CONFIG`
    SetConfig(SwitchConfig),
    /// `OFPT_PACKET_IN`
    PacketIn(PacketIn),
    /// `OFPT_FLOW_REMOVED`
    FlowRemoved(FlowRemoved),
    /// `OFPT_PORT_STATUS`
    PortStatus(PortStatus),
    /// `OFPT_PACKET_OUT`
    PacketOut(PacketOut),
    /// `OFPT_FLOW_MOD`
    FlowMod(FlowMod),
    /// `OFPT_GROUP_MOD`
    GroupMod(GroupMod),
    /// `OFPT_METER_MOD`
    MeterMod(MeterMod),
    /// `OFPT_MULTIPART_REQUEST`, in one part.
    MultipartRequest(MultipartRequest),
    /// `OFPT_MULTIPART_REPLY`, a part of one. An entry is never in two parts.
    MultipartReply {
        /// To what kind of request.
        kind: MultipartKind,
        /// Whether further parts follow.
        more: bool,
        /// Entries.
        body: Bytes,
    },
    /// `OFPT_BARRIER_REQUEST`
    BarrierRequest,
    /// `OFPT_BARRIER_REPLY`
    BarrierReply,
    /// `OFPT_ROLE_REQUEST`
    RoleRequest(RoleRequest),
    /// `OFPT_ROLE_REPLY`
    RoleReply(RoleRequest),
    /// `OFPT_SET_ASYNC`
    SetAsync(Vec<AsyncMask>),
    /// `OFPT_REQUESTFORWARD`
    RequestForward(RequestForward),
    /// `OFPT_BUNDLE_CONTROL`
    BundleControl(BundleControl),
    /// `OFPT_BUNDLE_ADD_MESSAGE`
    BundleAdd(BundleAdd),
    /// Of a type that is not known here.
    Other {
        /// `OFPT_*`
        kind: Kind,
        /// What is behind the header.
        body: Bytes,
    },
}

/// `OFPBCT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are those of the specification, without OFPBCT_")]
pub enum BundleStep {
    OpenRequest = 0,
    OpenReply = 1,
    CloseRequest = 2,
    CloseReply = 3,
    CommitRequest = 4,
    CommitReply = 5,
    DiscardRequest = 6,
    DiscardReply = 7,
}

/// `struct ofp_bundle_ctrl_msg`, without properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleControl {
    /// Which bundle.
    pub id: u32,
    /// What is done with it.
    pub step: BundleStep,
    /// [`BundleControl::ATOMIC`], [`BundleControl::ORDERED`]. Replies have none.
    pub flags: u16,
}

impl BundleControl {
    /// `OFPBF_ATOMIC`: all of it or nothing, and no packet sees a part of it.
    pub const ATOMIC: u16 = 1;
    /// `OFPBF_ORDERED`: one message after the other.
    pub const ORDERED: u16 = 2;
}

/// `struct ofp_bundle_add_msg`, without properties. The message in it has the transaction id of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleAdd {
    /// Which bundle.
    pub id: u32,
    /// The bundle's flags.
    pub flags: u16,
    /// The message in it, from its header on.
    pub message: Bytes,
}

/// A message that is longer than OpenFlow can say: 65,535 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} octets do not fit a message, which has room for 65535")]
pub struct TooLong(pub usize);

impl Message {
    /// Reads a message that [`crate::Frames`] has cut.
    ///
    /// # Errors
    /// What is behind the header is not what its type says.
    pub fn decode(header: Header, body: &Bytes) -> Result<Self, DecodeError> {
        let kind = Kind(header.kind);
        Ok(match kind {
            Kind::HELLO => Self::Hello(Hello::decode(body)),
            Kind::ERROR => Self::Error(SwitchError::decode(body)?),
            Kind::ECHO_REQUEST => Self::EchoRequest(body.clone()),
            Kind::ECHO_REPLY => Self::EchoReply(body.clone()),
            Kind::EXPERIMENTER => {
                let mut reader = Reader::new(body, "experimenter message");
                Self::Experimenter {
                    vendor: reader.u32()?,
                    subtype: reader.u32()?,
                    body: body.slice_ref(reader.bytes()),
                }
            }
            Kind::FEATURES_REQUEST => Self::FeaturesRequest,
            Kind::FEATURES_REPLY => Self::FeaturesReply(Features::decode(body)?),
            Kind::GET_CONFIG_REQUEST => Self::GetConfigRequest,
            Kind::GET_CONFIG_REPLY => Self::GetConfigReply(SwitchConfig::decode(body)?),
            Kind::SET_CONFIG => Self::SetConfig(SwitchConfig::decode(body)?),
            Kind::PACKET_IN => Self::PacketIn(PacketIn::decode(body)?),
            Kind::FLOW_REMOVED => Self::FlowRemoved(FlowRemoved::decode(body)?),
            Kind::PORT_STATUS => Self::PortStatus(PortStatus::decode(body)?),
            Kind::PACKET_OUT => Self::PacketOut(PacketOut::decode(body)?),
            Kind::FLOW_MOD => Self::FlowMod(FlowMod::decode(body)?),
            Kind::GROUP_MOD => Self::GroupMod(GroupMod::decode(body)?),
            Kind::METER_MOD => Self::MeterMod(MeterMod::decode(body)?),
            Kind::MULTIPART_REQUEST => Self::MultipartRequest(MultipartRequest::decode(body)?),
            Kind::MULTIPART_REPLY => {
                let (kind, more, body) = multipart::decode_reply(body)?;
                Self::MultipartReply { kind, more, body }
            }
            Kind::BARRIER_REQUEST => Self::BarrierRequest,
            Kind::BARRIER_REPLY => Self::BarrierReply,
            Kind::ROLE_REQUEST => Self::RoleRequest(RoleRequest::decode(body)?),
            Kind::ROLE_REPLY => Self::RoleReply(RoleRequest::decode(body)?),
            Kind::SET_ASYNC => Self::SetAsync(AsyncMask::decode_all(body)?),
            Kind::REQUESTFORWARD => Self::RequestForward(RequestForward::decode(body)?),
            Kind::BUNDLE_CONTROL => Self::BundleControl(BundleControl::decode(body)?),
            Kind::BUNDLE_ADD_MESSAGE => Self::BundleAdd(BundleAdd::decode(body)?),
            kind => Self::Other { kind, body: body.clone() },
        })
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::HELLO,
            Self::Error(_) => Kind::ERROR,
            Self::EchoRequest(_) => Kind::ECHO_REQUEST,
            Self::EchoReply(_) => Kind::ECHO_REPLY,
            Self::Experimenter { .. } => Kind::EXPERIMENTER,
            Self::FeaturesRequest => Kind::FEATURES_REQUEST,
            Self::FeaturesReply(_) => Kind::FEATURES_REPLY,
            Self::GetConfigRequest => Kind::GET_CONFIG_REQUEST,
            Self::GetConfigReply(_) => Kind::GET_CONFIG_REPLY,
            Self::SetConfig(_) => Kind::SET_CONFIG,
            Self::PacketIn(_) => Kind::PACKET_IN,
            Self::FlowRemoved(_) => Kind::FLOW_REMOVED,
            Self::PortStatus(_) => Kind::PORT_STATUS,
            Self::PacketOut(_) => Kind::PACKET_OUT,
            Self::FlowMod(_) => Kind::FLOW_MOD,
            Self::GroupMod(_) => Kind::GROUP_MOD,
            Self::MeterMod(_) => Kind::METER_MOD,
            Self::MultipartRequest(_) => Kind::MULTIPART_REQUEST,
            Self::MultipartReply { .. } => Kind::MULTIPART_REPLY,
            Self::BarrierRequest => Kind::BARRIER_REQUEST,
            Self::BarrierReply => Kind::BARRIER_REPLY,
            Self::RoleRequest(_) => Kind::ROLE_REQUEST,
            Self::RoleReply(_) => Kind::ROLE_REPLY,
            Self::SetAsync(_) => Kind::SET_ASYNC,
            Self::RequestForward(_) => Kind::REQUESTFORWARD,
            Self::BundleControl(_) => Kind::BUNDLE_CONTROL,
            Self::BundleAdd(_) => Kind::BUNDLE_ADD_MESSAGE,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Appends the message, header and all.
    ///
    /// # Errors
    /// It is too long; nothing was appended.
    pub fn encode(&self, xid: u32, out: &mut BytesMut) -> Result<(), TooLong> {
        frame(out, self.kind(), xid, |out| self.encode_body(out))
    }

    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Error(error) => error.encode(out),
            Self::EchoRequest(body) | Self::EchoReply(body) | Self::Other { body, .. } => out.put_slice(body),
            Self::Experimenter { vendor, subtype, body } => {
                out.put_u32(*vendor);
                out.put_u32(*subtype);
                out.put_slice(body);
            }
            Self::FeaturesReply(features) => features.encode(out),
            Self::GetConfigReply(config) | Self::SetConfig(config) => config.encode(out),
            Self::PacketIn(packet) => packet.encode(out),
            Self::FlowRemoved(removed) => removed.encode(out),
            Self::PortStatus(status) => status.encode(out),
            Self::PacketOut(packet) => packet.encode(out),
            Self::FlowMod(change) => change.encode(out),
            Self::GroupMod(change) => change.encode(out),
            Self::MeterMod(change) => change.encode(out),
            Self::MultipartRequest(request) => request.encode(out),
            Self::MultipartReply { kind, more, body } => {
                out.put_u16(kind.0);
                out.put_u16(u16::from(*more));
                out.put_u32(0);
                out.put_slice(body);
            }
            Self::RoleRequest(role) | Self::RoleReply(role) => role.encode(out),
            Self::SetAsync(masks) => masks.iter().for_each(|mask| mask.encode(out)),
            Self::RequestForward(forward) => forward.encode(out),
            Self::BundleControl(control) => control.encode(out),
            Self::BundleAdd(add) => {
                put_bundle(out, add.id, 0, add.flags);
                out.put_slice(&add.message);
            }
            Self::FeaturesRequest | Self::GetConfigRequest | Self::BarrierRequest | Self::BarrierReply => {}
        }
    }

    /// Appends an `OFPT_BUNDLE_ADD_MESSAGE` with this message in it.
    ///
    /// # Errors
    /// It is too long; nothing was appended.
    pub fn encode_in_bundle(&self, bundle: u32, flags: u16, xid: u32, out: &mut BytesMut) -> Result<(), TooLong> {
        frame(out, Kind::BUNDLE_ADD_MESSAGE, xid, |out| {
            put_bundle(out, bundle, 0, flags);
            let start = out.len();
            Header { version: VERSION, kind: self.kind().0, length: 0, xid }.put(out);
            self.encode_body(out);
            // Where the message in it is too long, the whole is, too.
            set_length(out, start, 2);
        })
    }
}

impl BundleControl {
    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "bundle control");
        let id = reader.u32()?;
        let step = match reader.u16()? {
            0 => BundleStep::OpenRequest,
            1 => BundleStep::OpenReply,
            2 => BundleStep::CloseRequest,
            3 => BundleStep::CloseReply,
            4 => BundleStep::CommitRequest,
            5 => BundleStep::CommitReply,
            6 => BundleStep::DiscardRequest,
            7 => BundleStep::DiscardReply,
            value => return Err(reader.error(Fault::Value { name: "type", value: value.into() })),
        };
        Ok(Self { id, step, flags: reader.u16()? })
    }

    fn encode(&self, out: &mut BytesMut) {
        put_bundle(out, self.id, self.step as u16, self.flags);
    }
}

impl BundleAdd {
    fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "bundle add");
        let id = reader.u32()?;
        reader.skip(2)?;
        let flags = reader.u16()?;
        Ok(Self { id, flags, message: body.slice_ref(reader.bytes()) })
    }
}

fn put_bundle(out: &mut BytesMut, id: u32, step: u16, flags: u16) {
    out.put_u32(id);
    out.put_u16(step);
    out.put_u16(flags);
}

/// Appends a header and what `body` appends behind it.
fn frame(out: &mut BytesMut, kind: Kind, xid: u32, body: impl FnOnce(&mut BytesMut)) -> Result<(), TooLong> {
    let start = out.len();
    Header { version: VERSION, kind: kind.0, length: 0, xid }.put(out);
    body(out);
    let length = out.len() - start;
    if u16::try_from(length).is_err() {
        out.truncate(start);
        return Err(TooLong(length));
    }
    set_length(out, start, 2);
    Ok(())
}

/// Writes how long it is since `start` in the two octets that are `at` octets behind it. What is longer than they can say
/// is longer than a message can be, which [`frame`] notices.
fn set_length(out: &mut BytesMut, start: usize, at: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + at..start + at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes a string to a field of `N` octets, of which the last is NUL.
fn put_string<const N: usize>(out: &mut BytesMut, text: &str) {
    let octets = text.as_bytes();
    let octets = &octets[..octets.len().min(N - 1)];
    out.put_slice(octets);
    out.put_bytes(0, N - octets.len());
}

/// Reads seconds and nanoseconds, 32 bits each. Nanoseconds of a second or more are no duration; they are cut, so that
/// nothing overflows.
pub(crate) fn duration(reader: &mut Reader<'_>) -> Result<Duration, DecodeError> {
    let (seconds, nanoseconds) = (reader.u32()?, reader.u32()?);
    Ok(Duration::new(seconds.into(), nanoseconds.min(999_999_999)))
}

fn put_duration(out: &mut BytesMut, duration: Duration) {
    out.put_u32(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX));
    out.put_u32(duration.subsec_nanos());
}
