//! `ct(…)` with `nat(…)` and the actions in it (`NXAST_CT`, `NXAST_NAT`).

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use super::decode::{checked, read_actions, read_short};
use super::encode::{end, nicira, put_actions, put_short};
use super::show::show_actions;
use super::{Action, Context};
use crate::field::{Field, Subfield};
use crate::text::{self, KeyValues, PortNames, wrong};
use crate::wire::Reader;
use crate::{DecodeError, TextError};

/// Through the connection tracker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conntrack {
    /// `commit`: the connection is to be known from now on.
    pub commit: bool,
    /// `force`: anew, in this packet's direction.
    pub force: bool,
    /// The zone.
    pub zone: Zone,
    /// The table in which the packet goes on with its state known, 0 to 254.
    pub table: Option<u8>,
    /// The port of the protocol whose helper is wanted: 21 for FTP, 69 for TFTP; 0 for none.
    pub helper: u16,
    /// `nat(…)` first, if any; then `exec(…)`: what is set of `ct_mark` and `ct_label`.
    pub actions: Box<[Action]>,
}

/// Connections of one zone are no others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    /// This one.
    Number(u16),
    /// The one that 16 bits of a field say.
    Field(Subfield),
}

/// Address translation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Nat {
    /// Of which end, and how.
    pub flags: NatFlags,
    /// To which addresses; nothing for those of the connection, or any.
    pub range: Option<NatRange>,
}

/// `NX_NAT_F_*`, and nothing else of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct NatFlags(pub u16);

impl NatFlags {
    /// Translate the source.
    pub const SRC: NatFlags = NatFlags(1);
    /// Translate the destination.
    pub const DST: NatFlags = NatFlags(2);
    /// The same over restarts of the system.
    pub const PERSISTENT: NatFlags = NatFlags(4);
    /// Choose ports by hash.
    pub const HASH: NatFlags = NatFlags(8);
    /// Choose ports at random.
    pub const RANDOM: NatFlags = NatFlags(16);

    /// Whether it has all of these flags.
    #[must_use]
    pub fn has(self, flags: NatFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// Addresses and ports to translate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// The first address.
    pub first: IpAddr,
    /// The last address, of the same family and another; nothing where there is but one.
    pub last: Option<IpAddr>,
    /// The first port, not 0.
    pub first_port: Option<u16>,
    /// The last port, another; nothing where there is but one.
    pub last_port: Option<u16>,
}

impl NatRange {
    /// A last one that is the first goes without saying.
    fn canonical(mut self) -> Self {
        self.last = self.last.filter(|last| *last != self.first);
        self.last_port = self.last_port.filter(|last| Some(*last) != self.first_port);
        self
    }
}

/// `NX_CT_RECIRC_NONE`.
const NO_TABLE: u8 = 255;

impl Conntrack {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let start = nicira(35, out);
        out.put_u16(u16::from(self.commit) | u16::from(self.force) << 1);
        match self.zone {
            Zone::Number(zone) => {
                out.put_u32(0);
                out.put_u16(zone);
            }
            Zone::Field(subfield) => {
                put_short(subfield.field, out);
                out.put_u16(subfield.packed());
            }
        }
        out.put_u8(self.table.unwrap_or(NO_TABLE));
        out.put_bytes(0, 3);
        out.put_u16(self.helper);
        put_actions(&self.actions, out);
        end(start, out);
    }

    /// Nothing, if it has flags or a field that are not known.
    pub(super) fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Option<Self>, DecodeError> {
        let flags = reader.u16()?;
        let zone = if reader.bytes().starts_with(&[0; 4]) {
            reader.skip(4)?;
            Zone::Number(reader.u16()?)
        } else {
            let field = read_short(reader)?;
            let packed = reader.u16()?;
            let Some(field) = field else { return Ok(None) };
            Zone::Field(checked(reader, Subfield::unpacked(field, packed))?)
        };
        let table = reader.u8()?;
        reader.skip(3)?;
        let helper = reader.u16()?;
        let actions = read_actions(*reader, depth + 1)?;
        if flags & !3 != 0 {
            return Ok(None);
        }
        let table = (table != NO_TABLE).then_some(table);
        Ok(Some(Conntrack { commit: flags & 1 != 0, force: flags & 2 != 0, zone, table, helper, actions }))
    }

    pub(super) fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        out.write_str("ct(")?;
        let mut list = text::Commas::new(out);
        if self.commit {
            list.put(format_args!("commit"))?;
        }
        if self.force {
            list.put(format_args!("force"))?;
        }
        if let Some(table) = self.table {
            list.put(format_args!("table={table}"))?;
        }
        match self.zone {
            Zone::Number(0) => {}
            Zone::Number(zone) => list.put(format_args!("zone={zone}"))?,
            Zone::Field(subfield) => {
                let out = list.next()?;
                out.write_str("zone=")?;
                subfield.show(out)?;
            }
        }
        let executed = match self.actions.split_first() {
            Some((Action::Nat(nat), rest)) => {
                nat.show(list.next()?)?;
                rest
            }
            _ => &self.actions,
        };
        if !executed.is_empty() {
            let out = list.next()?;
            out.write_str("exec(")?;
            show_actions(executed, out, names)?;
            out.write_char(')')?;
        }
        match self.helper {
            0 => {}
            21 => list.put(format_args!("alg=ftp"))?,
            69 => list.put(format_args!("alg=tftp"))?,
            port => list.put(format_args!("alg={port}"))?,
        }
        out.write_char(')')
    }

    pub(super) fn parse(value: &str, context: &mut Context<'_>) -> Result<Self, TextError> {
        let mut found = Conntrack {
            commit: false,
            force: false,
            zone: Zone::Number(0),
            table: None,
            helper: 0,
            actions: Box::default(),
        };
        let mut actions = Vec::new();
        for (key, value) in KeyValues::new(value) {
            match key {
                "commit" => found.commit = true,
                "force" => found.force = true,
                "table" => {
                    let table = text::u8(value, key)?;
                    if table == NO_TABLE {
                        return Err(wrong(value, "no table to go on in"));
                    }
                    found.table = Some(table);
                }
                "zone" => {
                    found.zone = if value.starts_with(|c: char| c.is_ascii_digit()) {
                        Zone::Number(text::u16(value, key)?)
                    } else {
                        let subfield = Subfield::parse(value)?;
                        if subfield.bits != 16 || subfield.field.short_header() == 0 {
                            return Err(wrong(value, "a zone has 16 bits"));
                        }
                        Zone::Field(subfield)
                    }
                }
                "alg" => {
                    found.helper = match value {
                        "ftp" => 21,
                        "tftp" => 69,
                        port => text::u16(port, key)?,
                    }
                }
                // Where OVS writes it, wherever it stands.
                "nat" => actions.insert(0, Action::Nat(Box::new(Nat::parse(value)?))),
                "exec" => {
                    let executed = context.nested(value)?;
                    let settable = [Some(Field::CT_MARK), Some(Field::CT_LABEL)];
                    if executed.iter().any(|action| !settable.contains(&action.target())) {
                        return Err(wrong(value, "only ct_mark and ct_label can be set within ct(…)"));
                    }
                    actions.extend(executed);
                }
                _ => return Err(wrong(key, "unknown in ct(…)")),
            }
        }
        if found.force && !found.commit {
            return Err(wrong(value, "force goes with commit"));
        }
        found.actions = actions.into();
        Ok(found)
    }
}

impl Nat {
    pub(super) fn put(&self, out: &mut BytesMut) {
        let start = nicira(36, out);
        out.put_u16(0);
        out.put_u16(self.flags.0);
        let (mut present, first, last) = match self.range {
            None => (0, None, None),
            Some(NatRange { first, last, .. }) => (if first.is_ipv4() { 1 } else { 4 }, Some(first), last),
        };
        if last.is_some() {
            present |= present << 1;
        }
        let ports = self.range.map(|range| (range.first_port, range.last_port)).unwrap_or_default();
        present |= u16::from(ports.0.is_some()) << 4 | u16::from(ports.1.is_some()) << 5;
        out.put_u16(present);
        for address in [first, last].into_iter().flatten() {
            match address {
                IpAddr::V4(address) => out.put_slice(&address.octets()),
                IpAddr::V6(address) => out.put_slice(&address.octets()),
            }
        }
        [ports.0, ports.1].into_iter().flatten().for_each(|port| out.put_u16(port));
        end(start, out);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.skip(2)?;
        let flags = NatFlags(reader.u16()?);
        let present = reader.u16()?;
        // One family, no last without a first, no port without an address.
        let addresses = present & 0xf;
        let ports = present >> 4 & 3;
        if !matches!(addresses, 0 | 1 | 3 | 4 | 12) || ports == 2 || (ports != 0 && addresses == 0) {
            return Err(reader.bad(2, "the range of nat", present));
        }
        let mut address = || -> Result<IpAddr, DecodeError> {
            if addresses < 4 {
                Ok(IpAddr::V4(Ipv4Addr::from(reader.u32()?)))
            } else {
                Ok(IpAddr::V6(Ipv6Addr::from(reader.u128()?)))
            }
        };
        let first = if addresses != 0 { Some(address()?) } else { None };
        let last = if matches!(addresses, 3 | 12) { Some(address()?) } else { None };
        let first_port = if ports & 1 != 0 { Some(reader.u16()?) } else { None };
        let last_port = if ports & 2 != 0 { Some(reader.u16()?) } else { None };
        let range = first.map(|first| NatRange { first, last, first_port, last_port }.canonical());
        Ok(Nat { flags, range })
    }

    pub(super) fn show(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_str("nat")?;
        if self.flags.0 & 3 == 0 {
            return Ok(());
        }
        out.write_str(if self.flags.has(NatFlags::SRC) { "(src" } else { "(dst" })?;
        if let Some(NatRange { first, last, first_port, last_port }) = self.range {
            let bracket = first_port.is_some();
            out.write_char('=')?;
            show_address(out, first, bracket)?;
            if let Some(last) = last {
                out.write_char('-')?;
                show_address(out, last, bracket)?;
            }
            if let Some(port) = first_port {
                write!(out, ":{port}")?;
                if let Some(last) = last_port {
                    write!(out, "-{last}")?;
                }
            }
        }
        for (flag, name) in
            [(NatFlags::PERSISTENT, ",persistent"), (NatFlags::HASH, ",hash"), (NatFlags::RANDOM, ",random")]
        {
            if self.flags.has(flag) {
                out.write_str(name)?;
            }
        }
        out.write_char(')')
    }

    pub(super) fn parse(value: &str) -> Result<Self, TextError> {
        let mut found = Nat::default();
        for (key, value) in KeyValues::new(value) {
            let flag = match key {
                "src" | "dst" => {
                    if !value.is_empty() {
                        found.range = Some(parse_range(value)?);
                    }
                    if key == "src" { NatFlags::SRC } else { NatFlags::DST }
                }
                "persistent" => NatFlags::PERSISTENT,
                "hash" => NatFlags::HASH,
                "random" => NatFlags::RANDOM,
                _ => return Err(wrong(key, "unknown in nat(…)")),
            };
            found.flags.0 |= flag.0;
        }
        match found.flags.0 & 3 {
            3 => Err(wrong(value, "either src or dst")),
            0 if found.flags.0 != 0 => Err(wrong(value, "flags go with src or dst")),
            _ if found.flags.0 & 24 == 24 => Err(wrong(value, "either hash or random")),
            _ => Ok(found),
        }
    }
}

fn show_address(out: &mut dyn Write, address: IpAddr, bracket: bool) -> fmt::Result {
    match address {
        IpAddr::V6(_) if bracket => write!(out, "[{address}]"),
        _ => write!(out, "{address}"),
    }
}

/// `FIRST[-LAST][:PORT[-PORT]]`, an IPv6 address before a port in brackets.
fn parse_range(text: &str) -> Result<NatRange, TextError> {
    let bad = |fault: &str| wrong(text, fault);
    let (addresses, ports) = if text.starts_with('[') {
        match text.rfind("]:") {
            Some(at) => (&text[..=at], Some(&text[at + 2..])),
            None => (text, None),
        }
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(addresses, ports)| (addresses, Some(ports)))
    };
    let address = |text: &str| {
        let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        plain.parse::<IpAddr>().map_err(|_| bad("no address"))
    };
    let (first, last) = addresses.split_once('-').map_or((addresses, None), |(first, last)| (first, Some(last)));
    let first = address(first)?;
    let last = last.map(address).transpose()?;
    if last.is_some_and(|last| last < first || last.is_ipv4() != first.is_ipv4()) {
        return Err(bad("the last address is before the first"));
    }
    let (mut first_port, mut last_port) = (None, None);
    if let Some(ports) = ports {
        let (low, high) = ports.split_once('-').map_or((ports, None), |(low, high)| (low, Some(high)));
        let low = text::u16(low, "a port")?;
        let high = high.map(|high| text::u16(high, "a port")).transpose()?;
        if low == 0 || high.is_some_and(|high| high < low) {
            return Err(bad("ports are not 0, and the last is not before the first"));
        }
        (first_port, last_port) = (Some(low), high);
    }
    Ok(NatRange { first, last, first_port, last_port }.canonical())
}
