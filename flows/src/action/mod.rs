//! What is done with a packet.

use crate::field::Subfield;
use crate::port::PortNo;

/// An action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// `output:PORT`.
    Output {
        /// Where to.
        port: PortNo,
        /// Octets of it for the controller; 0 for other ports.
        max_len: u16,
    },
    /// `output:FIELD[..]`.
    OutputField {
        /// What holds the port number.
        source: Subfield,
        /// Octets of it for the controller.
        max_len: u16,
    },
    /// `group:ID`.
    Group(u32),
    /// What this crate does not know, header and all.
    Unknown(Box<[u8]>),
}

impl Action {
    /// Reads a list of actions, all of `bytes`.
    pub(crate) fn decode_all(_bytes: &[u8]) -> Result<Box<[Action]>, crate::DecodeError> {
        todo!()
    }

    /// Writes a list of actions.
    pub(crate) fn encode_all(_actions: &[Action], _out: &mut bytes::BytesMut) {
        todo!()
    }
}
