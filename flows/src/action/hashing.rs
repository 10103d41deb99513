//! `multipath(…)`, `bundle(…)` and `bundle_load(…)`: one of several links, by a hash of the packet
//! (`NXAST_MULTIPATH`, `NXAST_BUNDLE`, `NXAST_BUNDLE_LOAD`).

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::decode::{checked, read_short};
use super::encode::{end, nicira, put_short};
use crate::field::Subfield;
use crate::text::{self, PortNames, wrong};
use crate::wire::Reader;
use crate::{DecodeError, PortNo, TextError};

/// Numbers from 0 with names.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $called:literal: $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            const ALL: &[($name, &str)] = &[$(($name::$variant, $text)),*];

            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let number = reader.u16()?;
                let known = Self::ALL.get(usize::from(number)).map(|(known, _)| *known);
                known.ok_or_else(|| reader.bad(2, $called, number))
            }

            fn name(self) -> &'static str {
                Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
            }

            fn parse(text: &str) -> Result<Self, TextError> {
                let known = Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
                known.map(|(known, _)| *known).ok_or_else(|| wrong(text, concat!("unknown ", $called)))
            }
        }
    };
}

named! {
    /// `NX_HASH_FIELDS_*`: what of a packet is hashed.
    HashFields, "hash fields":
    /// The Ethernet source.
    EthSrc = "eth_src",
    /// Both ends up to layer 4, the same in both directions.
    SymmetricL4 = "symmetric_l4",
    /// Both ends of IP and of TCP and SCTP, the same in both directions.
    SymmetricL3L4 = "symmetric_l3l4",
    /// That and UDP.
    SymmetricL3L4Udp = "symmetric_l3l4+udp",
    /// The IP source.
    NwSrc = "nw_src",
    /// The IP destination.
    NwDst = "nw_dst",
    /// Both ends of IP, the same in both directions.
    SymmetricL3 = "symmetric_l3",
}

named! {
    /// `NX_MP_ALG_*`.
    MultipathAlgorithm, "multipath algorithm":
    /// The hash modulo the number of links.
    ModuloN = "modulo_n",
    /// The part of the range that the hash falls into.
    HashThreshold = "hash_threshold",
    /// Highest random weight.
    HighestRandomWeight = "hrw",
    /// Hashes until one is a link.
    IterativeHash = "iter_hash",
}

named! {
    /// `NX_BD_ALG_*`.
    BundleAlgorithm, "bundle algorithm":
    /// The first that is up.
    ActiveBackup = "active_backup",
    /// Highest random weight of those that are up.
    HighestRandomWeight = "hrw",
}

/// `multipath(…)`: the number of a link into a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Multipath {
    /// What is hashed.
    pub fields: HashFields,
    /// What else is hashed.
    pub basis: u16,
    /// How the hash becomes a link.
    pub algorithm: MultipathAlgorithm,
    /// The greatest link: one less than there are.
    pub max_link: u16,
    /// The algorithm's own argument.
    pub argument: u32,
    /// Where the link's number goes.
    pub dest: Subfield,
}

impl Multipath {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let start = nicira(10, out);
        out.put_u16(self.fields as u16);
        out.put_u16(self.basis);
        out.put_u16(0);
        out.put_u16(self.algorithm as u16);
        out.put_u16(self.max_link);
        out.put_u32(self.argument);
        out.put_u16(0);
        out.put_u16(self.dest.packed());
        put_short(self.dest.field, out);
        end(start, out);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let fields = HashFields::read(reader)?;
        let basis = reader.u16()?;
        reader.skip(2)?;
        let algorithm = MultipathAlgorithm::read(reader)?;
        let max_link = reader.u16()?;
        let argument = reader.u32()?;
        reader.skip(2)?;
        let packed = reader.u16()?;
        let Some(field) = read_short(reader)? else { return Ok(None) };
        let dest = checked(reader, Subfield::unpacked(field, packed))?;
        Ok(Some(Multipath { fields, basis, algorithm, max_link, argument, dest }))
    }

    pub(super) fn show(&self, out: &mut dyn Write) -> fmt::Result {
        let (fields, algorithm) = (self.fields.name(), self.algorithm.name());
        let links = u32::from(self.max_link) + 1;
        write!(out, "multipath({fields},{},{algorithm},{links},{},", self.basis, self.argument)?;
        self.dest.show(out)?;
        out.write_char(')')
    }

    pub(super) fn parse(value: &str) -> Result<Self, TextError> {
        let parts: Vec<&str> = value.split([',', ' ']).filter(|part| !part.is_empty()).collect();
        let [fields, basis, algorithm, links, argument, dest] = parts[..] else {
            return Err(wrong(value, "multipath(fields,basis,algorithm,n_links,arg,dst) has six arguments"));
        };
        let count = text::u32(links, "n_links")?;
        let dest = short(dest)?;
        if count == 0 || count > 65536 || (dest.bits < 16 && count > 1 << dest.bits) {
            return Err(wrong(links, format!("links are at least one, and no more than {} bits can tell", dest.bits)));
        }
        Ok(Multipath {
            fields: HashFields::parse(fields)?,
            basis: text::u16(basis, "basis")?,
            algorithm: MultipathAlgorithm::parse(algorithm)?,
            max_link: (count - 1) as u16,
            argument: text::u32(argument, "arg")?,
            dest,
        })
    }
}

/// `bundle(…)`: out of one of several ports; `bundle_load(…)`: its number into a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// What is hashed.
    pub fields: HashFields,
    /// What else is hashed.
    pub basis: u16,
    /// How a port is chosen.
    pub algorithm: BundleAlgorithm,
    /// The ports, at most 2048.
    pub members: Box<[PortNo]>,
    /// Where the port's number goes; nothing to output there.
    pub dest: Option<Subfield>,
}

/// The type of a bundle's members: the header of `NXM_OF_IN_PORT`.
const MEMBERS_ARE_PORTS: u32 = 0x0000_0002;

/// `BUNDLE_MAX_MEMBERS`.
const MAX_MEMBERS: usize = 2048;

impl Bundle {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let start = nicira(if self.dest.is_some() { 13 } else { 12 }, out);
        out.put_u16(self.algorithm as u16);
        out.put_u16(self.fields as u16);
        out.put_u16(self.basis);
        out.put_u32(MEMBERS_ARE_PORTS);
        out.put_u16(self.members.len() as u16);
        match self.dest {
            Some(dest) => {
                out.put_u16(dest.packed());
                put_short(dest.field, out);
            }
            None => out.put_bytes(0, 6),
        }
        out.put_u32(0);
        self.members.iter().for_each(|port| out.put_u16(port.short()));
        end(start, out);
    }

    pub(super) fn read(reader: &mut Reader<'_>, load: bool) -> Result<Option<Self>, DecodeError> {
        let algorithm = BundleAlgorithm::read(reader)?;
        let fields = HashFields::read(reader)?;
        let basis = reader.u16()?;
        let kind = reader.u32()?;
        if kind != MEMBERS_ARE_PORTS {
            return Err(reader.bad(4, "the type of a bundle's members", kind));
        }
        let count = reader.u16()?;
        let packed = reader.u16()?;
        let dest = if load {
            let Some(field) = read_short(reader)? else { return Ok(None) };
            Some(checked(reader, Subfield::unpacked(field, packed))?)
        } else {
            reader.skip(4)?;
            None
        };
        reader.skip(4)?;
        let mut members = reader.part(usize::from(count) * 2)?;
        let members: Result<Vec<_>, _> = (0..count).map(|_| members.u16().map(PortNo::from_u16)).collect();
        Ok(Some(Bundle { fields, basis, algorithm, members: members?.into(), dest }))
    }

    pub(super) fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        let name = if self.dest.is_some() { "bundle_load" } else { "bundle" };
        write!(out, "{name}({},{},{},ofport,", self.fields.name(), self.basis, self.algorithm.name())?;
        if let Some(dest) = self.dest {
            dest.show(out)?;
            out.write_char(',')?;
        }
        out.write_str("members:")?;
        let mut list = text::Commas::new(out);
        for member in &self.members {
            text::show_port(list.next()?, *member, names)?;
        }
        out.write_char(')')
    }

    pub(super) fn parse(value: &str, load: bool, names: &dyn PortNames) -> Result<Self, TextError> {
        let syntax =
            || wrong(value, "bundle(fields,basis,algorithm,ofport,members:…), bundle_load with a field before members");
        let (head, members) = value.split_once("members").or_else(|| value.split_once("slaves")).ok_or_else(syntax)?;
        let parts: Vec<&str> = head.split([',', ' ']).filter(|part| !part.is_empty()).collect();
        let (fields, basis, algorithm, kind, dest) = match (parts.as_slice(), load) {
            ([fields, basis, algorithm, kind], false) => (fields, basis, algorithm, kind, None),
            ([fields, basis, algorithm, kind, dest], true) => (fields, basis, algorithm, kind, Some(short(dest)?)),
            _ => return Err(syntax()),
        };
        if !kind.eq_ignore_ascii_case("ofport") {
            return Err(wrong(kind, "members are of the type ofport"));
        }
        if dest.is_some_and(|dest| dest.bits < 16) {
            return Err(wrong(value, "a port's number needs 16 bits"));
        }
        let members = members.split([':', ',', ' ', '[', ']']).filter(|member| !member.is_empty());
        let members: Vec<PortNo> = members.map(|member| text::port(member, names)).collect::<Result<_, _>>()?;
        if members.len() > MAX_MEMBERS {
            return Err(wrong(value, format!("a bundle has at most {MAX_MEMBERS} members")));
        }
        Ok(Bundle {
            fields: HashFields::parse(fields)?,
            basis: text::u16(basis, "basis")?,
            algorithm: BundleAlgorithm::parse(algorithm)?,
            members: members.into(),
            dest,
        })
    }
}

/// A subfield whose header these actions have room for.
fn short(text: &str) -> Result<Subfield, TextError> {
    let subfield = Subfield::parse(text)?;
    if subfield.field.short_header() == 0 || subfield.bits > 64 {
        return Err(wrong(text, "this action has no room for this field"));
    }
    Ok(subfield)
}
