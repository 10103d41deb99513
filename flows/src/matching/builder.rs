//! Makes a canonical match of fields in any order and by any of their names: registers of several widths, the
//! several ways to say a VLAN, ports of 16 and of 32 bits.

use super::{Entry, Match};
use crate::field::header::MATCH_HEADERS;
use crate::field::table::Needs;
use crate::field::{Oxm, low_bits};
use crate::{Field, PortNo, Subfield};

/// The bit of `vlan_vid` that is set where there is a tag (`OFPVID_PRESENT`; in the tag itself it is the CFI).
const PRESENT: u128 = 0x1000;
/// The bits of `vlan_vid` that mean something.
const VID: u128 = 0x1fff;

/// A match in the making.
#[derive(Clone, Debug, Default)]
pub struct MatchBuilder {
    /// By field, each field once, none that is another's alias (but a `vlan_tci` that nothing else can say).
    known: Vec<Known>,
    /// Entries of unknown fields, with their headers.
    unknown: Vec<Box<[u8]>>,
}

#[derive(Clone, Debug)]
enum Known {
    Number {
        field: Field,
        value: u128,
        mask: u128,
    },
    /// A tunnel option.
    Octets(Oxm),
}

impl Known {
    fn field(&self) -> Field {
        match self {
            Known::Number { field, .. } => *field,
            Known::Octets(oxm) => oxm.field(),
        }
    }
}

/// The mask of a field that is complete but for bits that mean nothing becomes this. OVS clears those bits.
fn mask_of(field: Field, mask: u128) -> u128 {
    let all = low_bits(field.octets() * 8);
    let mask = mask & all;
    match field {
        Field::VLAN_VID if mask & VID == VID => all,
        Field::VLAN_VID => mask & VID,
        Field::IP_FRAG if mask & 3 == 3 => all,
        Field::IP_FRAG => mask & 3,
        Field::IPV6_LABEL if mask & 0xf_ffff == 0xf_ffff => all,
        Field::CT_STATE => mask & 0xff,
        Field::TUN_FLAGS => mask & 1,
        _ => mask,
    }
}

/// Whether an entry, by itself, is as a canonical match has it.
pub(super) fn is_canonical(field: Field, entry: &Entry<'_>) -> bool {
    let [class, class_low, number] = MATCH_HEADERS[usize::from(field.0)];
    if entry.octets[..3] != [class, class_low, number | u8::from(entry.mask.is_some())] {
        return false;
    }
    let Some(mask) = entry.mask else {
        return match field {
            Field::CT_STATE | Field::TUN_FLAGS => false,
            Field::VLAN_VID => entry.numbers().0 <= VID,
            _ => true,
        };
    };
    if field.is_tun_metadata() {
        return (mask.is_empty() || mask.iter().any(|octet| *octet != 0xff))
            && entry.value.iter().zip(mask).all(|(value, mask)| value & !mask == 0);
    }
    let (value, mask) = entry.numbers();
    let all = low_bits(entry.value.len() * 8);
    field.is_maskable() && mask_of(field, mask) == mask && mask != 0 && mask != all && value & !mask == 0
}

impl MatchBuilder {
    /// The field must have this value. What was said of the field before no longer holds.
    #[must_use]
    pub fn exact(self, field: Field, value: impl Into<u128>) -> Self {
        self.masked(field, value, u128::MAX)
    }

    /// The field must have this value in the bits of the mask. What was said of the field before no longer holds. A
    /// field that takes no mask is matched exactly, or not at all where the mask is 0.
    #[must_use]
    pub fn masked(mut self, field: Field, value: impl Into<u128>, mask: u128) -> Self {
        self.set(field, value.into(), mask);
        self
    }

    /// The same, for fields of any width.
    #[must_use]
    pub fn oxm(mut self, oxm: &Oxm) -> Self {
        self.set_oxm(oxm);
        self
    }

    /// The packets of a port.
    #[must_use]
    pub fn in_port(self, port: PortNo) -> Self {
        self.exact(Field::IN_PORT, port.0)
    }

    /// The match.
    #[must_use]
    pub fn build(mut self) -> Match {
        self.settle_vlan();
        self.settle_packet_type();
        self.known.sort_by_key(Known::field);
        self.unknown.sort();
        let mut out = Vec::new();
        for known in &self.known {
            match known {
                Known::Number { field, value, mask } => {
                    out.extend_from_slice(Oxm::masked(*field, *value, *mask).as_bytes());
                }
                Known::Octets(oxm) => out.extend_from_slice(oxm.as_bytes()),
            }
        }
        for unknown in &self.unknown {
            out.extend_from_slice(unknown);
        }
        Match::from_canonical(out)
    }

    /// Whether an entry says something of bits that were already spoken of.
    pub(super) fn has(&self, entry: &Entry<'_>) -> bool {
        let Some(field) = entry.field else {
            return self.unknown.iter().any(|known| same_header(known, entry.octets));
        };
        let taken = |field: Field| self.known.iter().any(|known| known.field() == field);
        match field {
            Field::VLAN_PCP => taken(Field::VLAN_PCP) || taken(Field::VLAN_TCI),
            Field::VLAN_TCI => [Field::VLAN_TCI, Field::VLAN_VID, Field::VLAN_PCP].into_iter().any(taken),
            Field::IN_PORT_NXM => taken(Field::IN_PORT),
            Field::NW_TOS => taken(Field::IP_DSCP),
            _ => match registers(field) {
                Some((first, count)) => (first..first + count).any(|number| taken(Field::reg(number))),
                None => taken(field),
            },
        }
    }

    /// Adds an entry as it was read.
    pub(super) fn entry(&mut self, entry: &Entry<'_>) {
        match entry.field {
            Some(field) => self.set_oxm(&Oxm::from_entry(field, entry)),
            None => self.unknown.push(entry.octets.into()),
        }
    }

    /// Adds entries of unknown fields.
    pub(super) fn set_unknown(&mut self, octets: &[u8]) {
        self.unknown.push(octets.into());
    }

    pub(super) fn set_oxm(&mut self, oxm: &Oxm) {
        if oxm.field().is_tun_metadata() {
            self.known.retain(|known| known.field() != oxm.field());
            self.known.push(Known::Octets(oxm.clone()));
        } else {
            let (value, mask) = oxm.numbers();
            self.set(oxm.field(), value, mask);
        }
    }

    /// Value and mask of a field that is no alias; zeros where nothing is known.
    pub(super) fn get(&self, wanted: Field) -> (u128, u128) {
        let known = self.known.iter().find_map(|known| match known {
            Known::Number { field, value, mask } if *field == wanted => Some((*value, *mask)),
            _ => None,
        });
        known.unwrap_or_default()
    }

    pub(super) fn clear(&mut self, field: Field) {
        self.known.retain(|known| known.field() != field);
    }

    /// Puts a field that is no alias in place of what was known of it.
    pub(super) fn put(&mut self, field: Field, value: u128, mask: u128) {
        let mut mask = mask_of(field, mask);
        if !field.is_maskable() && mask != 0 {
            mask = low_bits(field.octets() * 8);
        }
        // Above the bit that says that there is a tag, a VLAN is nothing.
        let value = if field == Field::VLAN_VID { value & VID } else { value };
        self.clear(field);
        if mask != 0 {
            self.known.push(Known::Number { field, value: value & mask, mask });
        }
    }

    pub(super) fn set(&mut self, field: Field, value: u128, mask: u128) {
        let mask = mask & low_bits(field.octets() * 8);
        match field {
            Field::IN_PORT_NXM if mask != 0 => {
                self.put(Field::IN_PORT, PortNo::from_u16(value as u16).0.into(), u128::MAX);
            }
            Field::NW_TOS => self.put(Field::IP_DSCP, value >> 2 & 0x3f, mask),
            Field::VLAN_VID => {
                self.split_tci();
                self.put(Field::VLAN_VID, value, mask & VID);
            }
            Field::VLAN_PCP => {
                self.split_tci();
                self.put(Field::VLAN_PCP, value & 7, mask);
            }
            Field::VLAN_TCI => {
                self.clear(Field::VLAN_VID);
                self.clear(Field::VLAN_PCP);
                self.clear(Field::VLAN_TCI);
                let value = value & mask;
                let pcp_mask = mask >> 13;
                if pcp_mask == 0 || (pcp_mask == 7 && (value & VID != 0 || mask & VID == VID)) {
                    self.put(Field::VLAN_VID, value, mask & VID);
                    self.put(Field::VLAN_PCP, value >> 13, pcp_mask);
                } else {
                    self.put(Field::VLAN_TCI, value, mask);
                }
            }
            _ => match registers(field) {
                Some((first, count)) => {
                    for number in 0..count {
                        let shift = u32::from(count - 1 - number) * 32;
                        self.put(
                            Field::reg(first + number),
                            value >> shift & low_bits(32),
                            mask >> shift & low_bits(32),
                        );
                    }
                }
                None => self.put(field, value, mask),
            },
        }
    }

    /// Adds to what is known of a field that some of its bits have this value; of the bits that are no field of their
    /// own in a canonical match only those of registers can be given so.
    pub(super) fn set_bits(&mut self, subfield: Subfield, value: u128) -> bool {
        let (offset, bits) = (u32::from(subfield.offset), usize::from(subfield.bits));
        let (value, mask) = (value << offset, low_bits(bits) << offset);
        let mut merge = |field: Field, value: u128, mask: u128| {
            let (old, old_mask) = self.get(field);
            if mask != 0 {
                self.put(field, old & !mask | value, old_mask | mask);
            }
        };
        match registers(subfield.field) {
            Some((first, count)) => {
                for number in 0..count {
                    let shift = u32::from(count - 1 - number) * 32;
                    merge(Field::reg(first + number), value >> shift & low_bits(32), mask >> shift & low_bits(32));
                }
                true
            }
            None if subfield.field.is_alias() || subfield.field.is_tun_metadata() => false,
            None => {
                merge(subfield.field, value, mask);
                true
            }
        }
    }

    /// A `vlan_tci` that stood alone gives way to what is now said of its parts.
    fn split_tci(&mut self) {
        self.clear(Field::VLAN_TCI);
    }

    /// A priority says that there is a tag; of a tag that is said not to be there it means nothing, and OVS leaves it
    /// out.
    fn settle_vlan(&mut self) {
        let (vid, mask) = self.get(Field::VLAN_VID);
        let prioritized = self.get(Field::VLAN_PCP).1 != 0;
        if prioritized && mask & PRESENT == 0 {
            self.put(Field::VLAN_VID, vid | PRESENT, mask | PRESENT);
        } else if prioritized && vid == 0 {
            self.clear(Field::VLAN_PCP);
        }
    }

    /// Ethernet is what every other field says already.
    fn settle_packet_type(&mut self) {
        let ethernet = self.get(Field::PACKET_TYPE) == (0, low_bits(32));
        if ethernet && self.known.iter().any(|known| known.field().row().needs != Needs::Nothing) {
            self.clear(Field::PACKET_TYPE);
        }
    }
}

/// Whether two entries have the same class, number and experimenter.
fn same_header(one: &[u8], other: &[u8]) -> bool {
    let key = |entry: &[u8]| {
        let (class, number) = (entry.get(..2)?, entry.get(2)? >> 1);
        let experimenter = if class == [0xff, 0xff] { entry.get(4..8)? } else { &[] };
        Some((class.to_vec(), number, experimenter.to_vec()))
    };
    key(one) == key(other)
}

/// The registers that a wide register is made of: the first, and how many.
fn registers(field: Field) -> Option<(u8, u8)> {
    if (Field::XXREG..=Field::xxreg(3)).contains(&field) {
        Some((field.member() * 4, 4))
    } else if (Field::XREG..=Field::xreg(7)).contains(&field) {
        Some((field.member() * 2, 2))
    } else {
        None
    }
}
