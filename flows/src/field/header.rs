//! OXM headers: which field a header names, and how a field's header is written (OpenFlow 1.4.1, 7.2.2.2). Values
//! are not looked at here.

use bytes::BufMut;

use super::table::{LATER, ROWS_CONST};
use super::{COUNT, Field};

/// `OFPXMC_*`, the experimenter's classes apart by who they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// `NXM_OF_*`.
    NxmOf,
    /// `NXM_NX_*`.
    NxmNx,
    /// `OXM_OF_*`.
    OxmOf,
    /// `OXM_OF_PKT_REG*`.
    PktReg,
    /// `ERICOXM_OF_*`.
    Eric,
    /// `ONFOXM_ET_*`.
    OnfEt,
    /// `NXOXM_ET_*`.
    NxEt,
    /// `NXOXM_NSH_*`.
    NxNsh,
}

/// The class of headers that go on with an experimenter's number.
const EXPERIMENTER: u16 = 0xffff;

impl Class {
    const ALL: [Class; 8] =
        [Class::NxmOf, Class::NxmNx, Class::OxmOf, Class::PktReg, Class::Eric, Class::OnfEt, Class::NxEt, Class::NxNsh];

    /// The class's number, and that of its experimenter.
    pub(crate) const fn numbers(self) -> (u16, u32) {
        match self {
            Class::NxmOf => (0x0000, 0),
            Class::NxmNx => (0x0001, 0),
            Class::OxmOf => (0x8000, 0),
            Class::PktReg => (0x8001, 0),
            Class::Eric => (0x1000, 0),
            Class::OnfEt => (EXPERIMENTER, 0x4f4e_4600),
            Class::NxEt => (EXPERIMENTER, 0x0000_2320),
            Class::NxNsh => (EXPERIMENTER, 0x005a_d650),
        }
    }

    /// What the names of its fields begin with.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Class::NxmOf => "NXM_OF_",
            Class::NxmNx => "NXM_NX_",
            Class::OxmOf => "OXM_OF_",
            Class::PktReg => "OXM_OF_PKT_REG",
            Class::Eric => "ERICOXM_OF_",
            Class::OnfEt => "ONFOXM_ET_",
            Class::NxEt => "NXOXM_ET_",
            Class::NxNsh => "NXOXM_NSH_",
        }
    }

    fn of(class: u16, experimenter: u32) -> Option<Class> {
        match (class, experimenter) {
            (0x8000, 0) => Some(Class::OxmOf),
            (0x0001, 0) => Some(Class::NxmNx),
            _ => Class::ALL.into_iter().find(|known| known.numbers() == (class, experimenter)),
        }
    }
}

/// For every class and number the field, or 0xff.
const NUMBERS: usize = 128;
static FIELDS: [[u8; NUMBERS]; Class::ALL.len()] = by_header();

const fn by_header() -> [[u8; NUMBERS]; Class::ALL.len()] {
    let mut found = [[0xff; NUMBERS]; Class::ALL.len()];
    let mut row = 0;
    let mut field = 0;
    while row < ROWS_CONST.len() {
        let headers = ROWS_CONST[row].headers;
        let mut header = 0;
        while header < headers.len() {
            let mut member = 0;
            while member < ROWS_CONST[row].count() {
                found[headers[header].0 as usize][headers[header].1 as usize + member] = (field + member) as u8;
                member += 1;
            }
            header += 1;
        }
        field += ROWS_CONST[row].count();
        row += 1;
    }
    let mut later = 0;
    while later < LATER.len() {
        found[LATER[later].0 as usize][LATER[later].1 as usize] = LATER[later].2.0;
        later += 1;
    }
    found
}

/// For every field the first three octets of the header that matches have for it, unmasked. No field has two headers
/// that differ in the experimenter alone.
pub(crate) static MATCH_HEADERS: [[u8; 3]; COUNT] = match_headers();

const fn match_headers() -> [[u8; 3]; COUNT] {
    let mut found = [[0; 3]; COUNT];
    let mut row = 0;
    let mut field = 0;
    while row < ROWS_CONST.len() {
        let headers = ROWS_CONST[row].headers;
        let (class, number, _) = headers[headers.len() - 1];
        let class = class.numbers().0.to_be_bytes();
        let mut member = 0;
        while member < ROWS_CONST[row].count() {
            found[field] = [class[0], class[1], (number + member as u8) << 1];
            field += 1;
            member += 1;
        }
        row += 1;
    }
    found
}

/// A header as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The field, where it is known.
    pub field: Option<Field>,
    /// Whether a mask follows the value.
    pub masked: bool,
    /// Octets of the header itself: 4, or 8 with an experimenter's number.
    pub octets: usize,
    /// Octets behind the header: value and mask.
    pub payload: usize,
}

impl Header {
    /// Reads the header at the begin of `bytes`. Nothing, if they end before it does, or if its length cannot be.
    pub(crate) fn read(bytes: &[u8]) -> Option<Header> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let class = u16::from_be_bytes([head[0], head[1]]);
        let masked = head[2] & 1 != 0;
        let (class, octets) = if class == EXPERIMENTER {
            (Class::of(class, u32::from_be_bytes(*rest.first_chunk::<4>()?)), 8)
        } else {
            (Class::of(class, 0), 4)
        };
        let payload = usize::from(head[3]).checked_sub(octets - 4)?;
        let field = class.and_then(|class| match FIELDS[class as usize][usize::from(head[2] >> 1)] {
            0xff => None,
            field => Some(Field(field)),
        });
        Some(Header { field, masked, octets, payload })
    }
}

/// Which of a field's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// That of matches and of `set_field`: OpenFlow 1.4's own, where it has one.
    Match,
    /// That of OVS's own actions: Nicira's, where it has one.
    Action,
}

impl Field {
    /// Writes the field's header; `width` octets of value follow, and as many of mask if `masked`.
    pub(crate) fn put_header(self, usage: Use, masked: bool, width: usize, out: &mut impl BufMut) {
        let headers = self.row().headers;
        let header = if usage == Use::Match { headers.last() } else { headers.first() };
        // No row of the table is without a header.
        let Some(&(class, number, _)) = header else { return };
        let (class, experimenter) = class.numbers();
        let number = number + self.member();
        let extra = if class == EXPERIMENTER { 4 } else { 0 };
        let length = width * (1 + usize::from(masked)) + extra;
        out.put_u16(class);
        out.put_u8(number << 1 | u8::from(masked));
        // No field is wider than 124 octets, so this is at most 252.
        out.put_u8(length as u8);
        if class == EXPERIMENTER {
            out.put_u32(experimenter);
        }
    }

    /// The 32 bits of its header in actions that have no more place; 0 for the experimenters' fields, which such
    /// actions cannot name.
    pub(crate) fn short_header(self) -> u32 {
        let mut out = Vec::with_capacity(8);
        self.put_header(Use::Action, false, self.header_width(), &mut out);
        match <[u8; 4]>::try_from(out) {
            Ok(header) => u32::from_be_bytes(header),
            Err(_) => 0,
        }
    }

    /// The width that headers without a value say: that of the field; for tunnel options the greatest.
    pub(crate) fn header_width(self) -> usize {
        usize::from(self.row().octets)
    }
}
