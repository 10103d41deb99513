//! What a flow matches, in canonical form, on the wire. How it is built from other forms is [`builder`], how it is
//! written for people [`text`].

mod builder;
pub(crate) mod needs;
mod text;

use bytes::BufMut;

pub use builder::MatchBuilder;
pub use needs::MissingPrerequisite;
pub(crate) use text::MatchText;

use crate::field::header::Header;
use crate::field::oxm_number;
use crate::wire::Reader;
use crate::{DecodeError, Fault, Field};

/// `OFPMT_OXM`.
const OXM: u16 = 1;

/// A match: fields and what they must be. It is canonical, so that matches that mean the same are equal: fields in
/// OVS's order, each once and by one header, values zero where the mask is, no mask that is complete or empty.
/// Ordering is that of the octets, which has no meaning beyond being total.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Match {
    /// The OXM entries, one behind the other.
    oxm: Box<[u8]>,
}

/// One field of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The field; nothing for one that this crate does not know.
    pub field: Option<Field>,
    /// Its value.
    pub value: &'a [u8],
    /// Which bits are meant, where not all are.
    pub mask: Option<&'a [u8]>,
    /// The whole entry with its header.
    pub octets: &'a [u8],
}

impl Entry<'_> {
    /// Value and mask as numbers.
    #[must_use]
    pub fn numbers(&self) -> (u128, u128) {
        let all = crate::field::low_bits(self.value.len() * 8);
        (oxm_number(self.value), self.mask.map_or(all, oxm_number))
    }
}

/// The entries of a sequence of OXM entries. It ends where they do, or where one is broken.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(crate) fn new(oxm: &'a [u8]) -> Self {
        Entries { rest: oxm }
    }

    /// What is yet to be read: not empty at the end of a broken sequence.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let header = Header::read(self.rest)?;
        let (octets, rest) = self.rest.split_at_checked(header.octets + header.payload)?;
        let payload = &octets[header.octets..];
        let (value, mask) = if header.masked {
            let half = payload.len() / 2;
            if payload.len() != half * 2 {
                return None;
            }
            (&payload[..half], Some(&payload[half..]))
        } else {
            (payload, None)
        };
        self.rest = rest;
        // A field of another width than ours is not the field that we know.
        let field = header.field.filter(|field| {
            if field.is_tun_metadata() { value.len() <= field.octets() } else { value.len() == field.octets() }
        });
        Some(Entry { field, value, mask, octets })
    }
}

impl Match {
    /// Reads a `struct ofp_match` (type, length, OXM entries) from the begin of `bytes`, which may go on behind it
    /// and its padding: [`Match::encoded_len`] says for how much.
    ///
    /// # Errors
    /// What is there is no match.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(bytes, "match"))
    }

    /// Reads a match and its padding.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u16()?;
        if kind != OXM {
            return Err(reader.bad(2, "the type of a match", kind));
        }
        let length = usize::from(reader.u16()?);
        let Some(entries) = length.checked_sub(4) else { return Err(reader.error(Fault::Length(length))) };
        let mut entries = reader.part(entries)?;
        reader.skip(length.next_multiple_of(8) - length)?;
        Self::from_oxm(&mut entries)
    }

    /// Reads OXM entries up to the end of the reader.
    fn from_oxm(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if is_canonical(reader.bytes()) {
            return Ok(Match { oxm: reader.bytes().into() });
        }
        let mut builder = MatchBuilder::default();
        let mut entries = Entries::new(reader.bytes());
        while let Some(entry) = entries.next() {
            if builder.has(&entry) {
                let fault =
                    entry.field.map_or(Fault::Value { name: "a repeated OXM field", value: 0 }, Fault::Duplicate);
                return Err(reader.error(fault));
            }
            if entry.mask.is_some_and(|mask| entry.value.iter().zip(mask).any(|(value, mask)| value & !mask != 0)) {
                return Err(reader.error(Fault::Value { name: "a value outside its mask", value: 0 }));
            }
            if entry.mask.is_some() && entry.field.is_some_and(|field| !field.is_maskable()) {
                return Err(reader.error(Fault::Value { name: "a mask of a field that takes none", value: 0 }));
            }
            builder.entry(&entry);
            reader.skip(entry.octets.len())?;
        }
        if entries.rest().is_empty() {
            Ok(builder.build())
        } else {
            Err(reader.error(Fault::Length(entries.rest().len())))
        }
    }

    /// The match with these canonical entries.
    fn from_canonical(oxm: Vec<u8>) -> Self {
        Match { oxm: oxm.into() }
    }

    /// Writes it as `struct ofp_match`, padded to eight octets. A match of more than 64 KiB, which can only be built
    /// of unknown fields, is written with a wrong length.
    pub fn encode(&self, out: &mut impl BufMut) {
        let length = 4 + self.oxm.len();
        out.put_u16(OXM);
        out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        out.put_slice(&self.oxm);
        out.put_bytes(0, self.encoded_len() - length);
    }

    /// Octets that [`Match::encode`] writes: a multiple of eight.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        (4 + self.oxm.len()).next_multiple_of(8)
    }

    /// Begins a match of fields.
    #[must_use]
    pub fn builder() -> MatchBuilder {
        MatchBuilder::default()
    }

    /// Whether it matches every packet.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.oxm.is_empty()
    }

    /// Its fields, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        Entries::new(&self.oxm)
    }

    /// Value and mask of a field. A canonical match has no field that is another name for others: `xreg`, `xxreg`,
    /// `vlan_tci`, `nw_tos` are found as `reg`, `vlan_vid`, `vlan_pcp` and `ip_dscp`.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<(u128, u128)> {
        self.entries().find(|entry| entry.field == Some(field)).map(|entry| entry.numbers())
    }

    /// The value of a field that is matched exactly.
    #[must_use]
    pub fn exact(&self, field: Field) -> Option<u128> {
        self.entries().find(|entry| entry.field == Some(field) && entry.mask.is_none()).map(|entry| entry.numbers().0)
    }
}

/// Whether OXM entries are as [`MatchBuilder::build`] writes them. OVS sends them so, and then nothing need be
/// taken apart.
fn is_canonical(oxm: &[u8]) -> bool {
    let mut last = None;
    let mut entries = Entries::new(oxm);
    let mut vlan_absent = false;
    let mut packet_type = false;
    let mut of_ethernet = false;
    for entry in entries.by_ref() {
        let Some(field) = entry.field else { return false };
        if field.is_alias() || last.is_some_and(|last| last >= field) || !builder::is_canonical(field, &entry) {
            return false;
        }
        match field {
            Field::PACKET_TYPE => packet_type = true,
            Field::VLAN_VID => vlan_absent = entry.value == [0, 0],
            Field::VLAN_PCP if vlan_absent || last != Some(Field::VLAN_VID) => return false,
            _ => {}
        }
        of_ethernet |= field.row().needs != crate::field::table::Needs::Nothing;
        last = Some(field);
    }
    // A packet type beside fields of Ethernet may be redundant: the builder knows.
    entries.rest().is_empty() && !(packet_type && of_ethernet)
}
