//! Octets to actions. An action that is not known, or names a field that is not known, survives as octets; one that
//! is known and broken is an error.

use super::{
    Action, Bundle, Conntrack, Controller, Encap, Learn, MAX_DEPTH, Multipath, NICIRA, Nat, PacketType, Sample,
};
use crate::field::header::Header;
use crate::field::{Field, Oxm, Subfield};
use crate::port::PortNo;
use crate::wire::Reader;
use crate::{DecodeError, Fault};

/// Reads actions up to the end of the reader, `depth` other actions around them.
pub(crate) fn read_actions(mut reader: Reader<'_>, depth: usize) -> Result<Box<[Action]>, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(reader.error(Fault::Depth(MAX_DEPTH)));
    }
    let mut actions = Vec::with_capacity(reader.structures(2));
    while !reader.is_empty() {
        let action = reader.structure(2, 8)?;
        actions.push(match read_action(action, depth)? {
            Some(known) => known,
            None => Action::Unknown(action.bytes().into()),
        });
    }
    Ok(actions.into())
}

/// Reads the field whose header comes next, without a value. Nothing, for one that is not known.
pub(super) fn read_field(reader: &mut Reader<'_>) -> Result<Option<Field>, DecodeError> {
    let Some(header) = Header::read(reader.bytes()) else {
        return Err(reader.error(Fault::Truncated { need: 8, have: reader.len() }));
    };
    reader.skip(header.octets)?;
    let known = header.field.filter(|field| field.is_tun_metadata() || field.octets() == header.payload);
    Ok(known.filter(|_| !header.masked))
}

/// Reads the 32 bits of the header of a field.
pub(super) fn read_short(reader: &mut Reader<'_>) -> Result<Option<Field>, DecodeError> {
    let mut header = reader.part(4)?;
    if header.bytes().starts_with(&[0xff, 0xff]) {
        return Ok(None);
    }
    read_field(&mut header)
}

/// The subfield, or an error if the field has not so many bits.
pub(super) fn checked(reader: &Reader<'_>, subfield: Subfield) -> Result<Subfield, DecodeError> {
    if subfield.is_valid() {
        Ok(subfield)
    } else {
        Err(reader.error(Fault::Value {
            name: "the end of the bits of a field",
            value: u64::from(subfield.offset) + u64::from(subfield.bits),
        }))
    }
}

/// Reads one action, which ends with the reader.
fn read_action(mut reader: Reader<'_>, depth: usize) -> Result<Option<Action>, DecodeError> {
    let kind = reader.u16()?;
    reader.skip(2)?;
    Ok(Some(match kind {
        0 => {
            let (port, max_len) = (PortNo(reader.u32()?), reader.u16()?);
            // For ports other than the controller it means nothing.
            Action::Output { port, max_len: if port == PortNo::CONTROLLER { max_len } else { 0 } }
        }
        15 => Action::SetMplsTtl(reader.u8()?),
        16 => Action::DecMplsTtl,
        17 => Action::PushVlan(reader.u16()?),
        18 => Action::PopVlan,
        19 => Action::PushMpls(reader.u16()?),
        20 => Action::PopMpls(reader.u16()?),
        21 => Action::SetQueue(reader.u32()?),
        22 => Action::Group(reader.u32()?),
        23 => Action::SetTtl(reader.u8()?),
        24 => Action::DecTtl,
        25 => return read_oxm(&mut reader).map(|oxm| oxm.map(Action::SetField)),
        0xffff if reader.u32()? == NICIRA => {
            let subtype = reader.u16()?;
            return read_nicira(subtype, reader, depth);
        }
        _ => return Ok(None),
    }))
}

/// Reads an OXM entry that is followed by padding alone.
fn read_oxm(reader: &mut Reader<'_>) -> Result<Option<Oxm>, DecodeError> {
    let mut entries = crate::matching::Entries::new(reader.bytes());
    let Some(entry) = entries.next() else {
        return Err(reader.error(Fault::Length(reader.len())));
    };
    Ok(entry.field.map(|field| Oxm::from_entry(field, &entry)))
}

/// Reads what is behind the subtype of an action of OVS's own.
fn read_nicira(subtype: u16, mut reader: Reader<'_>, depth: usize) -> Result<Option<Action>, DecodeError> {
    let reader = &mut reader;
    Ok(Some(match subtype {
        1 => Action::Resubmit { port: PortNo::from_u16(reader.u16()?), table: 255, ct: false },
        2 => {
            reader.skip(2)?;
            Action::set_field(Field::TUN_ID, reader.u32()?)
        }
        5 => Action::PopQueue,
        6 => return read_move(reader),
        7 => return read_load(reader),
        8 => Action::Note(reader.bytes().into()),
        9 => {
            reader.skip(6)?;
            Action::set_field(Field::TUN_ID, reader.u64()?)
        }
        10 => return Multipath::read(reader).map(|found| found.map(|found| Action::Multipath(Box::new(found)))),
        12 | 13 => {
            return Bundle::read(reader, subtype == 13).map(|found| found.map(|found| Action::Bundle(Box::new(found))));
        }
        14 | 44 => Action::Resubmit { port: PortNo::from_u16(reader.u16()?), table: reader.u8()?, ct: subtype == 44 },
        15 => {
            let packed = reader.u16()?;
            let Some(field) = read_short(reader)? else { return Ok(None) };
            let source = checked(reader, Subfield::unpacked(field, packed))?;
            Action::OutputField { source, max_len: reader.u16()? }
        }
        16 | 45 => {
            return Learn::read(reader, subtype == 45).map(|found| found.map(|found| Action::Learn(Box::new(found))));
        }
        17 => Action::Exit,
        19 => Action::FinTimeout { idle: reader.u16()?, hard: reader.u16()? },
        20 => Action::Controller(Box::new(Controller::read_fixed(reader)?)),
        21 => {
            let count = reader.u16()?;
            reader.skip(4)?;
            let mut ids = reader.part(usize::from(count) * 2)?;
            let ids: Result<Vec<u16>, _> = (0..count).map(|_| ids.u16()).collect();
            Action::DecTtlFor(ids?.into())
        }
        27 | 28 => return read_stack(subtype, reader),
        29 | 38 | 41 => Action::Sample(Box::new(Sample::read(reader, subtype)?)),
        32 => {
            let packed = reader.u16()?;
            let max_len = reader.u16()?;
            let Some(field) = read_field(reader)? else { return Ok(None) };
            Action::OutputField { source: checked(reader, Subfield::unpacked(field, packed))?, max_len }
        }
        33 => return read_oxm(reader).map(|oxm| oxm.map(Action::SetField)),
        34 => {
            let (clause, clauses) = (reader.u8()?, reader.u8()?);
            if !(2..=64).contains(&clauses) || clause >= clauses {
                return Err(reader.bad(2, "the clause of a conjunction", clause));
            }
            Action::Conjunction { id: reader.u32()?, clause, clauses }
        }
        35 => return Conntrack::read(reader, depth).map(|found| found.map(|found| Action::Conntrack(Box::new(found)))),
        36 => Action::Nat(Box::new(Nat::read(reader)?)),
        37 => match Controller::read_properties(reader)? {
            Some(controller) => Action::Controller(Box::new(controller)),
            None => return Ok(None),
        },
        39 => Action::OutputTruncated { port: PortNo::from_u16(reader.u16()?), max_len: reader.u32()? },
        42 => {
            reader.skip(6)?;
            Action::Clone(read_actions(*reader, depth + 1)?)
        }
        43 => Action::CtClear,
        46 => match Encap::read(reader)? {
            Some(encap) => Action::Encap(Box::new(encap)),
            None => return Ok(None),
        },
        47 => {
            reader.skip(2)?;
            Action::Decap(PacketType(reader.u32()?))
        }
        48 => Action::DecNshTtl,
        49 => {
            let (length, offset) = (reader.u16()?, reader.u16()?);
            let Some(field) = read_field(reader)? else { return Ok(None) };
            Action::CheckPacketLarger { length, dest: checked(reader, Subfield { field, offset, bits: 1 })? }
        }
        50 => match read_field(reader)? {
            Some(field) => Action::DeleteField(field),
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn read_move(reader: &mut Reader<'_>) -> Result<Option<Action>, DecodeError> {
    let (bits, from, to) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let (Some(source), Some(dest)) = (read_field(reader)?, read_field(reader)?) else { return Ok(None) };
    let source = checked(reader, Subfield { field: source, offset: from, bits })?;
    let dest = checked(reader, Subfield { field: dest, offset: to, bits })?;
    Ok(Some(Action::Move { source, dest }))
}

fn read_load(reader: &mut Reader<'_>) -> Result<Option<Action>, DecodeError> {
    let packed = reader.u16()?;
    let Some(field) = read_short(reader)? else { return Ok(None) };
    let dest = checked(reader, Subfield::unpacked(field, packed))?;
    let value = reader.u64()?;
    if dest.bits < 64 && value >> dest.bits != 0 {
        return Err(reader.bad(8, "the value to load", value));
    }
    Ok(Some(Action::Load { value, dest }))
}

fn read_stack(subtype: u16, reader: &mut Reader<'_>) -> Result<Option<Action>, DecodeError> {
    let offset = reader.u16()?;
    let Some(field) = read_field(reader)? else { return Ok(None) };
    let bits = reader.u16()?;
    let subfield = checked(reader, Subfield { field, offset, bits })?;
    Ok(Some(if subtype == 27 { Action::StackPush(subfield) } else { Action::StackPop(subfield) }))
}
