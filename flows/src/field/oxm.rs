//! One OXM field with a value and perhaps a mask (OpenFlow 1.4.1, 7.2.2.2). What a match makes of several is not
//! here.

use super::Field;
use super::header::{Header, MATCH_HEADERS, Use};
use crate::Entry;

/// A field and its value, with a mask where not all bits are meant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oxm {
    /// The whole entry, with the header that matches have.
    bytes: Box<[u8]>,
}

/// A number with the `count` lowest bits set.
pub(crate) const fn low_bits(count: usize) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

impl Oxm {
    /// A field with a value. Bits beyond the field's octets are left out; so are those of a tunnel option wider than
    /// 16 octets, for which there is [`Oxm::from_octets`].
    #[must_use]
    pub fn new(field: Field, value: u128) -> Self {
        Self::masked(field, value, u128::MAX)
    }

    /// A field with a value under a mask. Bits of the value outside the mask are cleared, and a mask of all of the
    /// field's octets is left out.
    #[must_use]
    pub fn masked(field: Field, value: u128, mask: u128) -> Self {
        let width = if field.is_tun_metadata() { tun_metadata_width(value, mask) } else { field.octets() };
        let all = low_bits(width * 8);
        let first = 16 - width.min(16);
        let value = (value & mask & all).to_be_bytes();
        let mask = (mask & all != all).then_some((mask & all).to_be_bytes());
        Self::from_octets(field, &value[first..], mask.as_ref().map(|mask| &mask[first..]))
    }

    /// A field with a value and a mask given as octets, which must be as many as the field has; a tunnel option may
    /// have up to 124.
    ///
    /// # Panics
    /// The mask is not as long as the value, or they are longer than a field can be.
    #[must_use]
    pub fn from_octets(field: Field, value: &[u8], mask: Option<&[u8]>) -> Self {
        assert!(
            value.len() <= field.octets() && mask.is_none_or(|mask| mask.len() == value.len()),
            "{field} is not that wide"
        );
        // A tunnel option may be matched without any of its octets: an empty mask is one.
        let mask = mask.filter(|mask| mask.is_empty() || mask.iter().any(|octet| *octet != 0xff));
        let mut bytes = Vec::with_capacity(8 + value.len() * 2);
        field.put_header(Use::Match, mask.is_some(), value.len(), &mut bytes);
        match mask {
            Some(mask) => {
                bytes.extend(value.iter().zip(mask).map(|(value, mask)| value & mask));
                bytes.extend_from_slice(mask);
            }
            None => bytes.extend_from_slice(value),
        }
        Oxm { bytes: bytes.into() }
    }

    /// The same of an entry that was read, if it is no wider than the field.
    pub(crate) fn from_entry(field: Field, entry: &Entry<'_>) -> Self {
        // Most are already as they should be.
        if entry.mask.is_none() && entry.octets.starts_with(&MATCH_HEADERS[usize::from(field.0)]) {
            return Oxm { bytes: entry.octets.into() };
        }
        Self::from_octets(field, entry.value, entry.mask)
    }

    fn header(&self) -> Header {
        // Only this file makes the bytes, always with the header of a field that has one.
        Header::read(&self.bytes).unwrap_or(Header { field: None, masked: false, octets: 0, payload: 0 })
    }

    /// The field.
    #[must_use]
    pub fn field(&self) -> Field {
        self.header().field.unwrap_or(Field::PACKET_TYPE)
    }

    fn halves(&self) -> (&[u8], Option<&[u8]>) {
        let header = self.header();
        let payload = self.bytes.get(header.octets..).unwrap_or_default();
        if header.masked {
            let (value, mask) = payload.split_at(payload.len() / 2);
            (value, Some(mask))
        } else {
            (payload, None)
        }
    }

    /// The value's octets.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.halves().0
    }

    /// The mask's octets, as many as the value has; nothing, if all bits are meant.
    #[must_use]
    pub fn mask(&self) -> Option<&[u8]> {
        self.halves().1
    }

    /// Value and mask as numbers; of a tunnel option wider than 16 octets the last 16.
    #[must_use]
    pub fn numbers(&self) -> (u128, u128) {
        let (value, mask) = self.halves();
        (oxm_number(value), mask.map_or(low_bits(value.len() * 8), oxm_number))
    }

    /// The entry, with the header that matches have.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes the entry with the header that OVS's own actions have.
    pub(crate) fn put_for_action(&self, out: &mut bytes::BytesMut) {
        let (value, mask) = self.halves();
        self.field().put_header(Use::Action, mask.is_some(), value.len(), out);
        out.extend_from_slice(value);
        out.extend_from_slice(mask.unwrap_or_default());
    }
}

/// The octets that a tunnel option's value and mask need: OVS leaves out leading zeros.
fn tun_metadata_width(value: u128, mask: u128) -> usize {
    let significant = if mask == u128::MAX { value } else { value | mask };
    (128 - significant.leading_zeros() as usize).div_ceil(8)
}

/// Octets as a number; of more than 16 the last.
pub(crate) fn oxm_number(octets: &[u8]) -> u128 {
    let last = &octets[octets.len().saturating_sub(16)..];
    let mut number = [0; 16];
    number[16 - last.len()..].copy_from_slice(last);
    u128::from_be_bytes(number)
}

impl std::fmt::Debug for Oxm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (value, mask) = self.numbers();
        write!(f, "{}={value:#x}", self.field())?;
        if self.mask().is_some() { write!(f, "/{mask:#x}") } else { Ok(()) }
    }
}
