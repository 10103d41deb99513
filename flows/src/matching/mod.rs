//! What a flow matches, in canonical form, on the wire. How it is built from other forms is `builder`, how it is
//! written for people `text`.

mod builder;
pub(crate) mod needs;
mod text;

use std::sync::Arc;

use bytes::BufMut;

pub use builder::MatchBuilder;
pub use needs::MissingPrerequisite;
pub(crate) use text::MatchText;

use crate::field::header::Header;
use crate::field::oxm_number;
use crate::field::table::Needs;
use crate::wire::Reader;
use crate::{DecodeError, Fault, Field};

/// `OFPMT_OXM`.
const OXM: u16 = 1;

/// A match: fields and what they must be. It is canonical, so that matches that mean the same are equal: fields in
/// OVS's order, each once and by one header, values zero where the mask is, no mask that is complete or empty.
/// Ordering is that of the octets, which has no meaning beyond being total.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Match {
    /// The OXM entries, one behind the other. Shared, as a flow's match is also in its identity, wherever that is kept.
    oxm: Arc<[u8]>,
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
        for entry in entries.by_ref() {
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
    for entry in entries.by_ref() {
        let Some(field) = entry.field else { return false };
        if field.is_alias() || last.is_some_and(|last| last >= field) || !builder::is_canonical(field, &entry) {
            return false;
        }
        match field {
            Field::PACKET_TYPE => packet_type = true,
            // A packet type beside fields of Ethernet may be redundant: the builder knows.
            _ if packet_type && field.row().needs != Needs::Nothing => return false,
            Field::VLAN_VID => vlan_absent = entry.value == [0, 0],
            Field::VLAN_PCP if vlan_absent || last != Some(Field::VLAN_VID) => return false,
            _ => {}
        }
        last = Some(field);
    }
    entries.rest().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PortNo;

    /// `struct ofp_match` around OXM entries.
    fn with_header(oxm: &[u8]) -> Vec<u8> {
        let length = 4 + oxm.len();
        let mut octets = [&[0, 1, 0, length as u8][..], oxm].concat();
        octets.resize(length.next_multiple_of(8), 0);
        octets
    }

    fn decoded(oxm: &[u8]) -> Match {
        Match::decode(&with_header(oxm)).unwrap()
    }

    #[test]
    fn one_match_said_in_several_ways() {
        let canonical = Match::builder().in_port(PortNo::LOCAL).exact(Field::reg(1), 5u8).build();
        #[rustfmt::skip]
        let ways: [&[u8]; 4] = [
            // OXM_OF_IN_PORT, NXM_NX_REG1
            &[0x80, 0, 0, 4, 0xff, 0xff, 0xff, 0xfe, 0, 1, 2, 4, 0, 0, 0, 5],
            // NXM_NX_REG1, OXM_OF_IN_PORT
            &[0, 1, 2, 4, 0, 0, 0, 5, 0x80, 0, 0, 4, 0xff, 0xff, 0xff, 0xfe],
            // NXM_OF_IN_PORT, OXM_OF_PKT_REG0 under a mask of its lower half
            &[0, 0, 0, 2, 0xff, 0xfe, 0x80, 1, 1, 16, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            // OXM_OF_IN_PORT, NXM_NX_REG1 under a complete mask, NXM_NX_REG2 under an empty one
            &[0x80, 0, 0, 4, 0xff, 0xff, 0xff, 0xfe, 0, 1, 3, 8, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff,
              0, 1, 5, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for oxm in ways {
            assert_eq!(decoded(oxm), canonical, "{oxm:02x?}");
        }
        assert_eq!(canonical.to_string(), "reg1=0x5,in_port=LOCAL");
        assert_eq!(canonical.exact(Field::IN_PORT), Some(0xffff_fffe));
        assert_eq!(canonical.get(Field::reg(2)), None);
    }

    #[test]
    fn unknown_fields_survive() {
        // Class 0x8000, field 127 under a mask; behind it NXM_NX_REG0; before both an experimenter's field.
        let oxm = [
            &[0xff, 0xff, 2, 6, 0, 0, 0, 9, 1, 2][..],
            &[0x80, 0, 0xff, 4, 1, 0, 0xff, 0xf0],
            &[0, 1, 0, 4, 0, 0, 0, 5],
        ];
        let matching = decoded(&oxm.concat());
        let mut out = bytes::BytesMut::new();
        matching.encode(&mut out);
        assert_eq!(out[4..], [oxm[2], oxm[1], oxm[0], &[0, 0]].concat());
        let text = "reg0=0x5,oxm(8000ff040100fff0),oxm(ffff0206000000090102)";
        assert_eq!(matching.to_string(), text);
        assert_eq!(text.parse(), Ok(matching));
        // A known field of another width is not the field that is known.
        let odd = decoded(&[0, 1, 0, 2, 0, 5]);
        assert_eq!(odd.entries().next().unwrap().field, None);
        assert!("oxm(00010004000000050)".parse::<Match>().is_err());
        assert!("oxm(0001000400000005)".parse::<Match>().is_err(), "this one is known");
    }

    #[test]
    fn what_is_no_match() {
        let fault = |oxm: &[u8]| Match::decode(&with_header(oxm)).unwrap_err().fault;
        let reg0 = [0, 1, 0, 4, 0, 0, 0, 5];
        assert_eq!(fault(&[reg0, reg0].concat()), Fault::Duplicate(Field::reg(0)));
        // OXM_OF_PKT_REG0 speaks of reg0 too.
        assert_eq!(
            fault(&[&reg0[..], &[0x80, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]].concat()),
            Fault::Duplicate(Field::xreg(0))
        );
        // A value outside its mask; a mask of a field that takes none; an entry that ends too early.
        assert!(matches!(fault(&[0, 1, 1, 8, 0, 0, 0, 5, 0, 0, 0, 4]), Fault::Value { .. }));
        assert!(matches!(fault(&[0x80, 0, 0x15, 2, 6, 0xff]), Fault::Value { .. }));
        assert!(matches!(fault(&[0, 1, 0, 4, 0, 0, 0]), Fault::Length(7)));
        assert!(Match::decode(&[0, 1, 0, 3]).is_err());
        assert!(Match::decode(&[0, 1, 0, 12, 0, 1]).is_err());
    }

    #[test]
    fn what_a_field_needs() {
        let ports = Match::builder().exact(Field::TCP_DST, 80u8);
        let lacks = MissingPrerequisite { field: Field::TCP_DST, needs: "TCP" };
        assert_eq!(ports.clone().build().check(), Err(lacks));
        let ports = ports.exact(Field::ETH_TYPE, 0x800u16).exact(Field::IP_PROTO, 17u8);
        assert_eq!(ports.clone().build().check(), Err(lacks));
        assert_eq!(ports.exact(Field::IP_PROTO, 6u8).build().check(), Ok(()));
    }
}
