//! The fields that matches and actions name, by the one table of them: `table` says what they are, `header` how
//! a header names them, `oxm` is a field with a value, `text` how values are written for people.

use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) mod header;
mod oxm;
pub(crate) mod table;
pub(crate) mod text;

pub use oxm::Oxm;
pub(crate) use oxm::{low_bits, oxm_number};
use table::{M, ROWS, ROWS_CONST, Row, W};

/// A field of a packet or of its metadata: an index into the table of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(pub(crate) u8);

/// How many fields there are.
pub(crate) const COUNT: usize = count(ROWS_CONST.len());

const fn count(rows: usize) -> usize {
    let mut fields = 0;
    let mut row = 0;
    while row < rows {
        fields += ROWS_CONST[row].count();
        row += 1;
    }
    fields
}

/// For every field its row, and which member of it.
static PLACES: [(u8, u8); COUNT] = places();

const fn places() -> [(u8, u8); COUNT] {
    let mut places = [(0, 0); COUNT];
    let mut row = 0;
    let mut field = 0;
    while row < ROWS_CONST.len() {
        let mut member = 0;
        while member < ROWS_CONST[row].count() {
            places[field] = (row as u8, member as u8);
            field += 1;
            member += 1;
        }
        row += 1;
    }
    places
}

impl Field {
    /// The first field of a row.
    const fn first_of(row: usize) -> Field {
        Field(count(row) as u8)
    }

    /// `reg0` to `reg15`; a greater number is taken modulo 16.
    #[must_use]
    pub const fn reg(number: u8) -> Field {
        Field(Field::REG.0 + number % 16)
    }

    /// `xreg0` to `xreg7`, two registers each; a greater number is taken modulo 8.
    #[must_use]
    pub const fn xreg(number: u8) -> Field {
        Field(Field::XREG.0 + number % 8)
    }

    /// `xxreg0` to `xxreg3`, four registers each; a greater number is taken modulo 4.
    #[must_use]
    pub const fn xxreg(number: u8) -> Field {
        Field(Field::XXREG.0 + number % 4)
    }

    /// `tun_metadata0` to `tun_metadata63`; a greater number is taken modulo 64.
    #[must_use]
    pub const fn tun_metadata(number: u8) -> Field {
        Field(Field::TUN_METADATA.0 + number % 64)
    }

    /// Every field.
    pub fn all() -> impl Iterator<Item = Field> {
        (0..COUNT).map(|field| Field(field as u8))
    }

    pub(crate) fn row(self) -> &'static Row {
        &ROWS[usize::from(PLACES[usize::from(self.0)].0)]
    }

    /// Which member of its family it is, from 0.
    pub(crate) fn member(self) -> u8 {
        PLACES[usize::from(self.0)].1
    }

    /// Bits of it that mean something.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.row().bits
    }

    /// Octets of it on the wire; of a tunnel option (`tun_metadata`) the most there can be.
    #[must_use]
    pub fn octets(self) -> usize {
        usize::from(self.row().octets)
    }

    /// Whether it may be matched under a mask.
    #[must_use]
    pub fn is_maskable(self) -> bool {
        self.row().access & M != 0
    }

    /// Whether actions may set it.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.row().access & W != 0
    }

    /// Whether it is a tunnel option, whose width the switch's TLV table says.
    pub(crate) fn is_tun_metadata(self) -> bool {
        (Field::TUN_METADATA..=Field::tun_metadata(63)).contains(&self)
    }

    /// Whether it is another name for bits of other fields, and not itself in a canonical match.
    pub(crate) fn is_alias(self) -> bool {
        self >= Field::IN_PORT_NXM
    }

    /// The number behind the names of a family's members.
    fn number(self) -> Option<u8> {
        let row = self.row();
        (row.family > 0).then(|| row.first + self.member())
    }

    /// The field with a name as `ovs-ofctl` knows them: `eth_src`, `dl_src`, `reg7`. A name that several fields
    /// are matched by (`tp_src`) is the first one's: what the packet is decides which is meant.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Field> {
        static NAMES: LazyLock<HashMap<String, Field>> = LazyLock::new(|| {
            let mut names = HashMap::new();
            for field in Field::all() {
                names.insert(field.to_string(), field);
            }
            for field in Field::all() {
                let row = field.row();
                for stem in [row.match_name].iter().chain(row.aliases) {
                    names.entry(field.called(stem)).or_insert(field);
                }
            }
            names
        });
        NAMES.get(name).copied()
    }

    /// The field with a name that headers have: `NXM_OF_ETH_SRC`, `OXM_OF_ETH_SRC`.
    #[must_use]
    pub fn by_header_name(name: &str) -> Option<Field> {
        static NAMES: LazyLock<HashMap<String, Field>> = LazyLock::new(|| {
            let named = |field: Field| {
                let headers = field.row().headers.iter();
                headers.map(move |(class, _, suffix)| (class.prefix().to_owned() + &field.called(suffix), field))
            };
            Field::all().flat_map(named).collect()
        });
        NAMES.get(name).copied()
    }

    /// A name with the field's number behind it, where it has one.
    fn called(self, stem: &str) -> String {
        self.number().map_or_else(|| stem.to_owned(), |number| format!("{stem}{number}"))
    }

    fn write(self, stem: &str, out: &mut impl std::fmt::Write) -> std::fmt::Result {
        out.write_str(stem)?;
        match self.number() {
            Some(number) => write!(out, "{number}"),
            None => Ok(()),
        }
    }

    /// Its name in matches.
    pub(crate) fn write_match_name(self, out: &mut impl std::fmt::Write) -> std::fmt::Result {
        self.write(self.row().match_name, out)
    }

    /// The name of its header in actions, `NXM_NX_REG0`.
    pub(crate) fn write_header_name(self, out: &mut impl std::fmt::Write) -> std::fmt::Result {
        match self.row().headers.first() {
            Some((class, _, suffix)) => {
                out.write_str(class.prefix())?;
                self.write(suffix, out)
            }
            None => self.write(self.row().name, out),
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.write(self.row().name, f)
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Some consecutive bits of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subfield {
    /// The field.
    pub field: Field,
    /// The lowest bit, 0 being the least significant.
    pub offset: u16,
    /// How many bits, at least one.
    pub bits: u16,
}

impl Subfield {
    /// The whole of a field.
    #[must_use]
    pub fn whole(field: Field) -> Self {
        Subfield { field, offset: 0, bits: field.bits() }
    }

    /// Whether it is within the field.
    pub(crate) fn is_valid(self) -> bool {
        self.bits > 0 && u32::from(self.offset) + u32::from(self.bits) <= u32::from(self.field.bits())
    }

    /// Offset in the upper ten bits, width less one in the lower six, as some actions have them.
    pub(crate) fn packed(self) -> u16 {
        self.offset << 6 | (self.bits.wrapping_sub(1) & 0x3f)
    }

    /// From such 16 bits.
    pub(crate) fn unpacked(field: Field, packed: u16) -> Self {
        Subfield { field, offset: packed >> 6, bits: (packed & 0x3f) + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::header::{Header, Use};
    use super::*;

    #[test]
    fn every_header_names_its_field() {
        for field in Field::all() {
            for usage in [Use::Match, Use::Action] {
                for masked in [false, true] {
                    let mut octets = Vec::new();
                    field.put_header(usage, masked, field.octets(), &mut octets);
                    let payload = field.octets() * if masked { 2 } else { 1 };
                    let expected = Header { field: Some(field), masked, octets: octets.len(), payload };
                    assert_eq!(Header::read(&octets), Some(expected), "{field}");
                }
            }
        }
    }

    #[test]
    fn headers_that_others_write() {
        let read = |octets: &[u8]| Header::read(octets).and_then(|header| header.field);
        // ONFOXM_ET_TCP_FLAGS, which OpenFlow 1.3 and 1.4 have, and OXM_OF_TCP_FLAGS of 1.5.
        assert_eq!(read(&[0xff, 0xff, 42 << 1, 6, 0x4f, 0x4e, 0x46, 0]), Some(Field::TCP_FLAGS));
        assert_eq!(read(&[0x80, 0, 42 << 1, 2]), Some(Field::TCP_FLAGS));
        // The same class and number of other experimenters.
        assert_eq!(read(&[0xff, 0xff, 42 << 1, 6, 0, 0, 0x23, 0x20]), None);
        // A class that nobody has.
        assert_eq!(read(&[0x12, 0x34, 0, 4]), None);
        // An experimenter's number does not fit into a length of three.
        assert_eq!(Header::read(&[0xff, 0xff, 0, 3, 0, 0, 0x23, 0x20]), None);
    }

    #[test]
    fn every_name_is_that_of_one_field() {
        let mut seen = HashMap::new();
        for field in Field::all() {
            assert_eq!(seen.insert(field.to_string(), field), None, "{field} twice");
            assert_eq!(Field::by_name(&field.to_string()), Some(field));
            let mut name = String::new();
            field.write_header_name(&mut name).unwrap();
            assert_eq!(Field::by_header_name(&name), Some(field), "{name}");
        }
        assert_eq!(Field::by_name("dl_src"), Some(Field::ETH_SRC));
        assert_eq!(Field::by_name("reg15"), Some(Field::reg(15)));
        assert_eq!(Field::by_name("nsh_c4"), Some(Field(Field::NSH_C.0 + 3)));
        for unknown in ["reg", "reg16", "reg01", "reg+1", "nsh_c0", "xxreg4", "tun_metadata64", ""] {
            assert_eq!(Field::by_name(unknown), None, "{unknown}");
        }
        assert_eq!(Field::by_header_name("OXM_OF_IPV4_SRC"), Some(Field::IP_SRC));
        assert_eq!(Field::by_header_name("OXM_OF_PKT_REG7"), Some(Field::xreg(7)));
    }

    #[test]
    fn members_of_families() {
        assert_eq!(Field::reg(3).to_string(), "reg3");
        assert_eq!(Field::xxreg(3).to_string(), "xxreg3");
        assert_eq!(Field::tun_metadata(63).to_string(), "tun_metadata63");
        assert!(Field::reg(0).is_writable() && Field::reg(0).is_maskable() && !Field::IP_PROTO.is_writable());
    }
}
