//! Actions as text, as `ovs-ofctl dump-flows` writes them.

use std::fmt::{self, Write};

use super::Action;
use crate::field::text::show_oxm;
use crate::port::PortNo;
use crate::text::{Alt, Commas, PortNames, Show, show_octets, show_port, text_form};

/// Writes actions with commas between them; `drop` for none.
pub(crate) fn show_actions(actions: &[Action], out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
    if actions.is_empty() {
        return out.write_str("drop");
    }
    let mut list = Commas::new(out);
    actions.iter().try_for_each(|action| action.show(list.next()?, names))
}

text_form!(Action);

impl Show for Action {
    fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        match self {
            Action::Output { port, max_len } => {
                if *port < PortNo::MAX {
                    out.write_str("output:")?;
                }
                show_port(out, *port, names)?;
                if *port == PortNo::CONTROLLER { write!(out, ":{max_len}") } else { Ok(()) }
            }
            Action::OutputField { source, .. } => {
                out.write_str("output:")?;
                source.show(out)
            }
            Action::OutputTruncated { port, max_len } => {
                out.write_str("output(port=")?;
                show_port(out, *port, names)?;
                write!(out, ",max_len={max_len})")
            }
            Action::Controller(controller) => controller.show(out),
            Action::Bundle(bundle) => bundle.show(out, names),
            Action::Group(id) => write!(out, "group:{id}"),
            Action::SetQueue(id) => write!(out, "set_queue:{id}"),
            Action::PopQueue => out.write_str("pop_queue"),
            Action::SetField(oxm) => {
                out.write_str("set_field:")?;
                show_oxm(out, oxm, names)?;
                write!(out, "->{}", oxm.field())
            }
            Action::Load { value, dest } => {
                write!(out, "load:{}->", Alt(*value))?;
                dest.show(out)
            }
            Action::Move { source, dest } => {
                out.write_str("move:")?;
                source.show(out)?;
                out.write_str("->")?;
                dest.show(out)
            }
            Action::PushVlan(kind) => write!(out, "push_vlan:{kind:#x}"),
            Action::PopVlan => out.write_str("pop_vlan"),
            Action::PushMpls(kind) => write!(out, "push_mpls:{kind:#06x}"),
            Action::PopMpls(kind) => write!(out, "pop_mpls:{kind:#06x}"),
            Action::SetMplsTtl(ttl) => write!(out, "set_mpls_ttl({ttl})"),
            Action::DecMplsTtl => out.write_str("dec_mpls_ttl"),
            Action::SetTtl(ttl) => write!(out, "mod_nw_ttl:{ttl}"),
            Action::DecTtl => out.write_str("dec_ttl"),
            Action::DecTtlFor(ids) => {
                out.write_str("dec_ttl(")?;
                let mut list = Commas::new(out);
                ids.iter().try_for_each(|id| list.put(format_args!("{id}")))?;
                out.write_char(')')
            }
            Action::StackPush(subfield) => {
                out.write_str("push:")?;
                subfield.show(out)
            }
            Action::StackPop(subfield) => {
                out.write_str("pop:")?;
                subfield.show(out)
            }
            Action::Resubmit { port, table, ct } => show_resubmit(*port, *table, *ct, out, names),
            Action::Learn(learn) => learn.show(out, names),
            Action::Conjunction { id, clause, clauses } => {
                write!(out, "conjunction({id},{}/{clauses})", u16::from(*clause) + 1)
            }
            Action::Multipath(multipath) => multipath.show(out),
            Action::Note(octets) => {
                out.write_str("note:")?;
                show_octets(out, octets, ".")
            }
            Action::Exit => out.write_str("exit"),
            Action::Sample(sample) => sample.show(out, names),
            Action::FinTimeout { idle, hard } => {
                out.write_str("fin_timeout(")?;
                let mut list = Commas::new(out);
                if *idle != 0 {
                    list.put(format_args!("idle_timeout={idle}"))?;
                }
                if *hard != 0 {
                    list.put(format_args!("hard_timeout={hard}"))?;
                }
                out.write_char(')')
            }
            Action::CheckPacketLarger { length, dest } => {
                write!(out, "check_pkt_larger({length})->")?;
                dest.show(out)
            }
            Action::Conntrack(conntrack) => conntrack.show(out, names),
            Action::Nat(nat) => nat.show(out),
            Action::CtClear => out.write_str("ct_clear"),
            Action::Clone(actions) => {
                out.write_str("clone(")?;
                show_actions(actions, out, names)?;
                out.write_char(')')
            }
            Action::Encap(encap) => encap.show(out),
            Action::Decap(kind) => kind.show_decap(out),
            Action::DecNshTtl => out.write_str("dec_nsh_ttl"),
            Action::DeleteField(field) => write!(out, "delete_field:{field}"),
            Action::Unknown(octets) => {
                out.write_str("action(")?;
                show_octets(out, octets, "")?;
                out.write_char(')')
            }
        }
    }
}

fn show_resubmit(port: PortNo, table: u8, ct: bool, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
    if port != PortNo::IN_PORT && table == 255 {
        out.write_str("resubmit:")?;
        return show_port(out, port, names);
    }
    out.write_str("resubmit(")?;
    if port != PortNo::IN_PORT {
        show_port(out, port, names)?;
    }
    out.write_char(',')?;
    if table != 255 {
        write!(out, "{table}")?;
    }
    out.write_str(if ct { ",ct)" } else { ")" })
}
