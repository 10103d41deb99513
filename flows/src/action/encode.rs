//! Actions to octets.

use bytes::{BufMut, BytesMut};

use super::{Action, NICIRA};
use crate::field::header::Use;
use crate::field::{Field, Oxm, Subfield};
use crate::wire::finish;

/// Writes actions one behind the other.
pub(crate) fn put_actions(actions: &[Action], out: &mut BytesMut) {
    for action in actions {
        action.put(out);
    }
}

/// Begins an action of the standard; [`end`] ends it.
fn standard(kind: u16, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16(0);
    start
}

/// Begins an action of OVS's own; [`end`] ends it.
pub(super) fn nicira(subtype: u16, out: &mut BytesMut) -> usize {
    let start = standard(0xffff, out);
    out.put_u32(NICIRA);
    out.put_u16(subtype);
    start
}

/// Pads an action to eight octets and writes its length.
pub(super) fn end(start: usize, out: &mut BytesMut) {
    finish(out, start, 2);
}

/// Writes the 32 bits of a field's header.
pub(super) fn put_short(field: Field, out: &mut BytesMut) {
    out.put_u32(field.short_header());
}

/// Writes a field's header, and zeros behind it up to `width` octets.
fn put_field(field: Field, width: usize, out: &mut BytesMut) {
    let start = out.len();
    field.put_header(Use::Action, false, field.header_width(), out);
    out.put_bytes(0, width.saturating_sub(out.len() - start));
}

impl Action {
    pub(super) fn put(&self, out: &mut BytesMut) {
        match self {
            Action::Output { port, max_len } => {
                let start = standard(0, out);
                out.put_u32(port.0);
                out.put_u16(*max_len);
                out.put_bytes(0, 6);
                end(start, out);
            }
            Action::OutputField { source, max_len } => put_output_field(*source, *max_len, out),
            Action::OutputTruncated { port, max_len } => {
                let start = nicira(39, out);
                out.put_u16(port.short());
                out.put_u32(*max_len);
                end(start, out);
            }
            Action::Controller(controller) => controller.put(out),
            Action::Bundle(bundle) => bundle.put(out),
            Action::Group(id) => put_u32(22, *id, out),
            Action::SetQueue(id) => put_u32(21, *id, out),
            Action::PopQueue => put_bare(5, out),
            Action::SetField(oxm) => put_set_field(oxm, out),
            Action::Load { value, dest } => put_load(*value, *dest, out),
            Action::Move { source, dest } => {
                let start = nicira(6, out);
                out.put_u16(source.bits);
                out.put_u16(source.offset);
                out.put_u16(dest.offset);
                put_field(source.field, 4, out);
                put_field(dest.field, 4, out);
                end(start, out);
            }
            Action::PushVlan(kind) => put_u16(17, *kind, out),
            Action::PopVlan => put_standard(18, out),
            Action::PushMpls(kind) => put_u16(19, *kind, out),
            Action::PopMpls(kind) => put_u16(20, *kind, out),
            Action::SetMplsTtl(ttl) => put_u8(15, *ttl, out),
            Action::DecMplsTtl => put_standard(16, out),
            Action::SetTtl(ttl) => put_u8(23, *ttl, out),
            Action::DecTtl => put_standard(24, out),
            Action::DecTtlFor(ids) => {
                let start = nicira(21, out);
                out.put_u16(ids.len() as u16);
                out.put_u32(0);
                ids.iter().for_each(|id| out.put_u16(*id));
                end(start, out);
            }
            Action::StackPush(subfield) => put_stack(27, *subfield, out),
            Action::StackPop(subfield) => put_stack(28, *subfield, out),
            Action::Resubmit { port, table, ct } => {
                let start = nicira(if *ct { 44 } else { 14 }, out);
                out.put_u16(port.short());
                out.put_u8(*table);
                end(start, out);
            }
            Action::Learn(learn) => learn.put(out),
            Action::Conjunction { id, clause, clauses } => {
                let start = nicira(34, out);
                out.put_u8(*clause);
                out.put_u8(*clauses);
                out.put_u32(*id);
                end(start, out);
            }
            Action::Multipath(multipath) => multipath.put(out),
            Action::Note(octets) => {
                let start = nicira(8, out);
                out.put_slice(octets);
                // An empty one still has room for six octets.
                out.put_bytes(0, 6usize.saturating_sub(octets.len()));
                end(start, out);
            }
            Action::Exit => put_bare(17, out),
            Action::Sample(sample) => sample.put(out),
            Action::FinTimeout { idle, hard } => {
                let start = nicira(19, out);
                out.put_u16(*idle);
                out.put_u16(*hard);
                end(start, out);
            }
            Action::CheckPacketLarger { length, dest } => {
                let start = nicira(49, out);
                out.put_u16(*length);
                out.put_u16(dest.offset);
                put_field(dest.field, 10, out);
                end(start, out);
            }
            Action::Conntrack(conntrack) => conntrack.put(out),
            Action::Nat(nat) => nat.put(out),
            Action::CtClear => put_bare(43, out),
            Action::Clone(actions) => {
                let start = nicira(42, out);
                out.put_bytes(0, 6);
                put_actions(actions, out);
                end(start, out);
            }
            Action::Encap(encap) => encap.put(out),
            Action::Decap(kind) => {
                let start = nicira(47, out);
                out.put_u16(0);
                out.put_u32(kind.0);
                end(start, out);
            }
            Action::DecNshTtl => put_bare(48, out),
            Action::DeleteField(field) => {
                let start = nicira(50, out);
                put_field(*field, 14, out);
                end(start, out);
            }
            Action::Unknown(octets) => out.put_slice(octets),
        }
    }
}

fn put_standard(kind: u16, out: &mut BytesMut) {
    let start = standard(kind, out);
    out.put_u32(0);
    end(start, out);
}

fn put_u8(kind: u16, argument: u8, out: &mut BytesMut) {
    let start = standard(kind, out);
    out.put_u8(argument);
    end(start, out);
}

fn put_u16(kind: u16, argument: u16, out: &mut BytesMut) {
    let start = standard(kind, out);
    out.put_u16(argument);
    end(start, out);
}

fn put_u32(kind: u16, argument: u32, out: &mut BytesMut) {
    let start = standard(kind, out);
    out.put_u32(argument);
    end(start, out);
}

/// An action of OVS's own that has nothing but its header.
fn put_bare(subtype: u16, out: &mut BytesMut) {
    let start = nicira(subtype, out);
    end(start, out);
}

/// `OFPAT_SET_FIELD` takes no mask before OpenFlow 1.5: with one it is `NXAST_REG_LOAD2`.
fn put_set_field(oxm: &Oxm, out: &mut BytesMut) {
    if oxm.mask().is_none() {
        let start = standard(25, out);
        out.put_slice(oxm.as_bytes());
        end(start, out);
    } else {
        let start = nicira(33, out);
        oxm.put_for_action(out);
        end(start, out);
    }
}

fn put_load(value: u64, dest: Subfield, out: &mut BytesMut) {
    let start = nicira(7, out);
    out.put_u16(dest.packed());
    put_short(dest.field, out);
    out.put_u64(value);
    end(start, out);
}

/// `NXAST_OUTPUT_REG`; `NXAST_OUTPUT_REG2` where the field's header is a long one.
fn put_output_field(source: Subfield, max_len: u16, out: &mut BytesMut) {
    if source.field.short_header() != 0 {
        let start = nicira(15, out);
        out.put_u16(source.packed());
        put_short(source.field, out);
        out.put_u16(max_len);
        out.put_bytes(0, 6);
        end(start, out);
    } else {
        let start = nicira(32, out);
        out.put_u16(source.packed());
        out.put_u16(max_len);
        put_field(source.field, 10, out);
        end(start, out);
    }
}

fn put_stack(subtype: u16, subfield: Subfield, out: &mut BytesMut) {
    let start = nicira(subtype, out);
    out.put_u16(subfield.offset);
    put_field(subfield.field, 4, out);
    out.put_u16(subfield.bits);
    // 24 octets in all, whichever header the field has.
    out.put_bytes(0, 24usize.saturating_sub(out.len() - start));
    end(start, out);
}
