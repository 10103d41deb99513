//! What a flow matches, in canonical form.

use bytes::BufMut;

use crate::DecodeError;

/// A match: fields and what they must be, canonical, so that equal matches are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Match {
    oxm: Box<[u8]>,
}

impl Match {
    /// Reads a `struct ofp_match` (type, length, OXM fields) from the begin of `bytes`, which may go on behind it
    /// and its padding: see [`Match::encoded_len`].
    ///
    /// # Errors
    /// What is there is no match.
    pub fn decode(_bytes: &[u8]) -> Result<Self, DecodeError> {
        todo!()
    }

    /// Writes it as `struct ofp_match`, padded to eight octets.
    pub fn encode(&self, _out: &mut impl BufMut) {
        todo!()
    }

    /// Octets that [`Match::encode`] writes: a multiple of eight.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        (4 + self.oxm.len()).next_multiple_of(8)
    }
}
