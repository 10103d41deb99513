//! Actions from text, as `ovs-ofctl add-flow` takes them: also the older names (`mod_vlan_vid`, `enqueue`, …), which
//! become what OpenFlow 1.4 has for them.

use super::{Action, Bundle, Conntrack, Controller, Encap, Learn, MAX_DEPTH, Multipath, PacketType, Sample};
use crate::field::text::{digits, parse_value};
use crate::field::{Field, Oxm, Subfield, low_bits, oxm_number};
use crate::matching::needs::{Kind, SCTP, TCP, UDP};
use crate::text::{self, KeyValues, PortNames, octets, wrong};
use crate::{Match, PortNo, TextError};

/// What the meaning of an action depends on: the flow's match, and the actions before it.
pub(crate) struct Context<'a> {
    /// Names of ports.
    pub names: &'a dyn PortNames,
    kind: Kind,
    /// VLAN tags that the packet is known to have.
    vlans: u32,
    depth: usize,
}

/// Reads the actions of a bucket, of which no match is known.
pub(crate) fn parse_bare(text: &str, names: &dyn PortNames) -> Result<Vec<Action>, TextError> {
    Context::new(&Match::default(), names).actions(text)
}

/// What holds of a list of actions: `drop` is alone, conjunctions are among themselves, `nat` is in `ct`.
pub(crate) fn check_list(text: &str, actions: &[Action], dropped: bool) -> Result<(), TextError> {
    if dropped && !actions.is_empty() {
        return Err(wrong(text, "drop is alone"));
    }
    let conjunction = |action: &Action| matches!(action, Action::Conjunction { .. });
    let beside = |action: &Action| conjunction(action) || matches!(action, Action::Note(_));
    if actions.iter().any(conjunction) && !actions.iter().all(beside) {
        return Err(wrong(text, "conjunction goes with nothing but note"));
    }
    Ok(())
}

impl<'a> Context<'a> {
    /// Of a flow with this match.
    pub(crate) fn new(matching: &Match, names: &'a dyn PortNames) -> Self {
        Context { names, kind: matching.kind(), vlans: matching.has_vlan().into(), depth: 0 }
    }

    /// Reads a list of actions.
    pub(crate) fn actions(&mut self, text: &str) -> Result<Vec<Action>, TextError> {
        let mut actions = Vec::new();
        let mut dropped = false;
        for (key, value) in KeyValues::new(text) {
            if key.eq_ignore_ascii_case("drop") {
                dropped = true;
            } else {
                self.action(key, value, &mut actions)?;
            }
        }
        check_list(text, &actions, dropped)?;
        Ok(actions)
    }

    /// Reads actions within an action.
    pub(super) fn nested(&mut self, text: &str) -> Result<Vec<Action>, TextError> {
        if self.depth >= MAX_DEPTH {
            return Err(wrong(text, format!("actions nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let actions = self.actions(text);
        self.depth -= 1;
        actions
    }

    /// Reads one action. Older ones become several of today's.
    pub(crate) fn action(&mut self, key: &str, value: &str, out: &mut Vec<Action>) -> Result<(), TextError> {
        let name = key.to_ascii_lowercase();
        let action = match name.as_str() {
            "output" => self.output(value)?,
            "controller" => {
                let controller = Controller::parse(value)?;
                if controller.is_plain() {
                    Action::Output { port: PortNo::CONTROLLER, max_len: controller.max_len }
                } else {
                    Action::Controller(Box::new(controller))
                }
            }
            "enqueue" => {
                let mut parts = value.split([':', 'q', ',']).filter(|part| !part.is_empty());
                let (Some(port), Some(queue), None) = (parts.next(), parts.next(), parts.next()) else {
                    return Err(wrong(value, "enqueue:PORT:QUEUE"));
                };
                out.push(Action::SetQueue(text::u32(queue, "a queue")?));
                out.push(Action::output(text::port(port, self.names)?));
                Action::PopQueue
            }
            "bundle" => Action::Bundle(Box::new(Bundle::parse(value, false, self.names)?)),
            "bundle_load" => Action::Bundle(Box::new(Bundle::parse(value, true, self.names)?)),
            "group" => Action::Group(text::u32(value, "a group")?),
            "set_queue" => Action::SetQueue(text::u32(value, "a queue")?),
            "pop_queue" => Action::PopQueue,
            "set_field" => return self.set_field(value, out),
            "load" => return load(value, out),
            "move" => {
                let (source, rest) = Subfield::parse_prefix(value)?;
                let dest = rest.strip_prefix("->").ok_or_else(|| wrong(value, "move:FIELD->FIELD"))?;
                let dest = writable(Subfield::parse(dest)?)?;
                if source.bits != dest.bits {
                    return Err(wrong(value, format!("{} bits do not go into {}", source.bits, dest.bits)));
                }
                Action::Move { source, dest }
            }
            "push_vlan" => {
                self.vlans += 1;
                Action::PushVlan(one_of(text::u16(value, "an Ethernet type")?, &[0x8100, 0x88a8], value)?)
            }
            "pop_vlan" | "strip_vlan" => {
                self.vlans = self.vlans.saturating_sub(1);
                Action::PopVlan
            }
            "mod_vlan_vid" | "set_vlan_vid" => {
                self.need_vlan(&name, value, out)?;
                let vid = at_most(text::u16(value, "a VLAN")?, 0xfff, value)?;
                Action::set_field(Field::VLAN_VID, vid | 0x1000)
            }
            "mod_vlan_pcp" | "set_vlan_pcp" => {
                self.need_vlan(&name, value, out)?;
                Action::set_field(Field::VLAN_PCP, at_most(text::u16(value, "a priority")?, 7, value)?)
            }
            "push_mpls" => Action::PushMpls(one_of(text::u16(value, "an Ethernet type")?, &[0x8847, 0x8848], value)?),
            "pop_mpls" => Action::PopMpls(text::u16(value, "an Ethernet type")?),
            "mod_dl_src" => self.legacy(Field::ETH_SRC, value)?,
            "mod_dl_dst" => self.legacy(Field::ETH_DST, value)?,
            "mod_nw_src" => self.legacy(Field::IP_SRC, value)?,
            "mod_nw_dst" => self.legacy(Field::IP_DST, value)?,
            "mod_nw_tos" => {
                let tos = text::u8(value, "TOS")?;
                if tos & 3 != 0 {
                    return Err(wrong(value, "the lower two bits are not of the DSCP"));
                }
                Action::set_field(Field::IP_DSCP, tos >> 2)
            }
            "mod_nw_ecn" => Action::set_field(Field::IP_ECN, at_most(text::u16(value, "ECN")?, 3, value)?),
            "mod_nw_ttl" | "set_nw_ttl" => Action::SetTtl(text::u8(value, "TTL")?),
            "mod_tp_src" => self.layer4([Field::TCP_SRC, Field::UDP_SRC, Field::SCTP_SRC], value)?,
            "mod_tp_dst" => self.layer4([Field::TCP_DST, Field::UDP_DST, Field::SCTP_DST], value)?,
            "set_mpls_label" => {
                let label = text::number(value, 0xf_ffff, "a label")?;
                Action::set_field(Field::MPLS_LABEL, label)
            }
            "set_mpls_tc" => {
                Action::set_field(Field::MPLS_TC, at_most(text::u16(value, "a traffic class")?, 7, value)?)
            }
            "set_mpls_ttl" => Action::SetMplsTtl(text::u8(value, "TTL")?),
            "dec_mpls_ttl" => Action::DecMplsTtl,
            "dec_ttl" if value.is_empty() => Action::DecTtl,
            "dec_ttl" => {
                let ids = value.split([',', ' ']).filter(|id| !id.is_empty());
                let ids: Vec<u16> = ids.map(|id| text::u16(id, "a controller")).collect::<Result<_, _>>()?;
                Action::DecTtlFor(ids.into())
            }
            "set_tunnel" | "set_tunnel64" => Action::set_field(Field::TUN_ID, text::u64(value, "a tunnel")?),
            "push" => Action::StackPush(Subfield::parse(value)?),
            "pop" => Action::StackPop(writable(Subfield::parse(value)?)?),
            "resubmit" => self.resubmit(value)?,
            "learn" => Action::Learn(Box::new(Learn::parse(value, self.names)?)),
            "conjunction" => conjunction(value)?,
            "multipath" => Action::Multipath(Box::new(Multipath::parse(value)?)),
            "note" => {
                let mut octets = octets(value)?;
                // On the wire there are 6, 14, 22, … of them.
                octets.resize((octets.len().max(1) + 2).next_multiple_of(8) - 2, 0);
                Action::Note(octets.into())
            }
            "exit" => Action::Exit,
            "sample" => Action::Sample(Box::new(Sample::parse(value, self.names)?)),
            "fin_timeout" => {
                let (mut idle, mut hard) = (0, 0);
                for (key, value) in KeyValues::new(value) {
                    match key {
                        "idle_timeout" => idle = text::u16(value, key)?,
                        "hard_timeout" => hard = text::u16(value, key)?,
                        _ => return Err(wrong(key, "unknown in fin_timeout(…)")),
                    }
                }
                Action::FinTimeout { idle, hard }
            }
            "check_pkt_larger" => {
                let syntax = || wrong(value, "check_pkt_larger(LENGTH)->FIELD[BIT]");
                let (length, dest) = value.split_once("->").ok_or_else(syntax)?;
                let length = text::u16(length.trim_end_matches(')'), "a length")?;
                let dest = writable(Subfield::parse(dest)?)?;
                if dest.bits != 1 {
                    return Err(syntax());
                }
                Action::CheckPacketLarger { length, dest }
            }
            "ct" => Action::Conntrack(Box::new(Conntrack::parse(value, self)?)),
            "ct_clear" => Action::CtClear,
            "clone" => Action::Clone(self.nested(value)?.into()),
            "encap" => {
                let encap = Encap::parse(value)?;
                Action::Encap(Box::new(encap))
            }
            "decap" => Action::Decap(PacketType::parse_decap(value)?),
            "dec_nsh_ttl" => Action::DecNshTtl,
            "delete_field" => {
                let field = Field::by_header_name(value).or_else(|| Field::by_name(value));
                let field = field.filter(|field| field.is_tun_metadata());
                Action::DeleteField(field.ok_or_else(|| wrong(value, "only tunnel options can be deleted"))?)
            }
            "action" => unknown(value)?,
            _ => match text::port(key, self.names) {
                Ok(port) if value.is_empty() => Action::output(port),
                _ => return Err(wrong(key, "no such action")),
            },
        };
        out.push(action);
        Ok(())
    }

    fn output(&self, value: &str) -> Result<Action, TextError> {
        if value.contains("port") && value.contains("max_len") {
            let (mut port, mut max_len) = (PortNo::ANY, 0);
            for (key, value) in KeyValues::new(value) {
                match key {
                    "port" => port = text::port(value, self.names)?,
                    "max_len" => max_len = text::u32(value, key)?,
                    _ => return Err(wrong(key, "unknown in output(…)")),
                }
            }
            if max_len < 14 {
                return Err(wrong(value, "an Ethernet header has 14 octets"));
            }
            return Ok(Action::OutputTruncated { port, max_len });
        }
        match text::port(value, self.names) {
            Ok(port) => Ok(Action::output(port)),
            Err(no_port) => match Subfield::parse(value) {
                Ok(source) => Ok(Action::OutputField { source, max_len: u16::MAX }),
                Err(_) => Err(no_port),
            },
        }
    }

    /// `set_field`; under a mask, which OpenFlow 1.4 has not, what `ovs-ofctl` makes of it: loads of the runs of its
    /// bits, where the field's header is a short one.
    fn set_field(&mut self, value: &str, out: &mut Vec<Action>) -> Result<(), TextError> {
        let (value, name) = value.rsplit_once("->").ok_or_else(|| wrong(value, "set_field:VALUE->FIELD"))?;
        let field = Field::by_name(name).ok_or_else(|| wrong(name, "no such field"))?;
        if !field.is_writable() || field.row().headers.is_empty() {
            return Err(wrong(name, "this field cannot be set"));
        }
        let oxm = parse_value(field, value, self.names)?;
        if field == Field::VLAN_TCI {
            self.vlans = u32::from(oxm.numbers().0 & 0x1000 != 0);
        }
        if oxm.mask().is_none() || field.is_tun_metadata() || field.short_header() == 0 {
            out.push(Action::SetField(oxm));
            return Ok(());
        }
        let (value, mask) = oxm.numbers();
        loads(field, value, mask & low_bits(field.bits().into()), out);
        Ok(())
    }

    fn legacy(&self, field: Field, value: &str) -> Result<Action, TextError> {
        let oxm = parse_value(field, value, self.names)?;
        match oxm.mask() {
            None => Ok(Action::SetField(oxm)),
            Some(_) => Err(wrong(value, "no mask here")),
        }
    }

    fn layer4(&self, [tcp, udp, sctp]: [Field; 3], value: &str) -> Result<Action, TextError> {
        let field = match self.kind.ip_proto {
            Some(TCP) => tcp,
            Some(UDP) => udp,
            Some(SCTP) => sctp,
            _ => return Err(wrong(value, "needs a match on TCP, UDP or SCTP")),
        };
        Ok(Action::set_field(field, text::u16(value, "a port")?))
    }

    /// Puts a tag on a packet that is not known to have one, or says that there must be one.
    fn need_vlan(&mut self, name: &str, value: &str, out: &mut Vec<Action>) -> Result<(), TextError> {
        if self.vlans == 0 {
            if name.starts_with("set") {
                return Err(wrong(value, format!("{name} needs a match on a VLAN, or push_vlan before it")));
            }
            out.push(Action::PushVlan(0x8100));
            self.vlans = 1;
        }
        Ok(())
    }

    fn resubmit(&self, value: &str) -> Result<Action, TextError> {
        let mut parts = value.split(',').map(str::trim);
        let port = match parts.next() {
            None | Some("") => PortNo::IN_PORT,
            Some(port) => text::port(port, self.names)?,
        };
        let table = match parts.next() {
            None | Some("") => 255,
            Some(table) => text::u8(table, "a table")?,
        };
        let ct = match parts.next() {
            None | Some("") => false,
            Some("ct") => true,
            Some(other) => return Err(wrong(other, "unknown in resubmit(…)")),
        };
        if port == PortNo::IN_PORT && table == 255 {
            return Err(wrong(value, "resubmit to another port or table"));
        }
        Ok(Action::Resubmit { port, table, ct })
    }
}

fn at_most(value: u16, most: u16, text: &str) -> Result<u16, TextError> {
    if value <= most { Ok(value) } else { Err(wrong(text, format!("at most {most}"))) }
}

fn one_of(value: u16, known: &[u16], text: &str) -> Result<u16, TextError> {
    if known.contains(&value) { Ok(value) } else { Err(wrong(text, "not an Ethernet type for this")) }
}

fn writable(subfield: Subfield) -> Result<Subfield, TextError> {
    if subfield.field.is_writable() {
        Ok(subfield)
    } else {
        Err(wrong(&subfield.field.to_string(), "this field cannot be set"))
    }
}

/// `load:VALUE->FIELD[..]`.
fn load(value: &str, out: &mut Vec<Action>) -> Result<(), TextError> {
    let (number, dest) = value.split_once("->").ok_or_else(|| wrong(value, "load:VALUE->FIELD"))?;
    let dest = writable(Subfield::parse(dest)?)?;
    let number = oxm_number(&digits(number, dest.field.octets().min(16))?);
    if number & !low_bits(dest.bits.into()) != 0 {
        return Err(wrong(value, format!("does not fit into {} bits", dest.bits)));
    }
    let mask = low_bits(dest.bits.into());
    if dest == Subfield::whole(dest.field) && !dest.field.is_maskable() && dest.field.short_header() == 0 {
        out.push(Action::set_field(dest.field, number));
    } else if dest.field.short_header() == 0 || dest.field.is_tun_metadata() {
        // The action has no room for such a header: OVS writes another one.
        out.push(Action::SetField(Oxm::masked(dest.field, number << dest.offset, mask << dest.offset)));
    } else {
        loads(dest.field, number << dest.offset, mask << dest.offset, out);
    }
    Ok(())
}

/// Loads of the runs of a mask's bits, from the lowest, none wider than 64 bits.
fn loads(field: Field, value: u128, mask: u128, out: &mut Vec<Action>) {
    let mut rest = mask;
    while rest != 0 {
        let offset = rest.trailing_zeros();
        let bits = (rest >> offset).trailing_ones().min(64);
        let run = low_bits(bits as usize);
        rest &= !(run << offset);
        let dest = Subfield { field, offset: offset as u16, bits: bits as u16 };
        out.push(Action::Load { value: (value >> offset & run) as u64, dest });
    }
}

/// `conjunction(ID,CLAUSE/CLAUSES)`.
fn conjunction(value: &str) -> Result<Action, TextError> {
    let syntax = || wrong(value, "conjunction(ID,CLAUSE/CLAUSES)");
    let (id, clause) = value.split_once(',').ok_or_else(syntax)?;
    let (clause, clauses) = clause.split_once('/').ok_or_else(syntax)?;
    let id = text::u32(id.trim(), "an ID")?;
    let (clause, clauses) = (text::u8(clause.trim(), "a clause")?, text::u8(clauses.trim(), "clauses")?);
    if !(2..=64).contains(&clauses) || clause < 1 || clause > clauses {
        return Err(wrong(value, "there are 2 to 64 clauses, counted from 1"));
    }
    Ok(Action::Conjunction { id, clause: clause - 1, clauses })
}

/// `action(OCTETS)`: one that this crate does not know.
fn unknown(value: &str) -> Result<Action, TextError> {
    let octets = octets(value)?;
    let length = octets.get(2..4).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    if length != Some(octets.len()) || octets.len() < 8 || octets.len() % 8 != 0 {
        return Err(wrong(value, "not the octets of an action"));
    }
    Ok(Action::Unknown(octets.into()))
}

impl Action {
    /// Reads a list of actions as `ovs-ofctl` does, of a flow that matches any packet; none for `drop`.
    ///
    /// # Errors
    /// A part of it is no action.
    pub fn parse_list(text: &str, names: &dyn PortNames) -> Result<Vec<Action>, TextError> {
        parse_bare(text, names)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Flow, Match, Unnamed};

    fn written(text: &str) -> String {
        let flow: Flow = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        flow.instructions.to_string()
    }

    #[test]
    fn what_is_read_and_never_written() {
        let pairs = [
            ("actions=enqueue:1:5", "set_queue:5,output:1,pop_queue"),
            ("actions=enqueue(2,7)", "set_queue:7,output:2,pop_queue"),
            // OVS writes the translation first, and takes the rest to be within exec.
            (
                "ip,actions=ct(exec(set_field:1->ct_mark),commit,nat(src=1.2.3.4))",
                "ct(commit,nat(src=1.2.3.4),exec(set_field:0x1->ct_mark))",
            ),
            // All of a field that takes no mask.
            ("dl_type=0x894f,actions=load:5->nsh_spi", "set_field:0x5->nsh_spi"),
            ("actions=output:0xfffffffe", "LOCAL"),
            ("actions=drop,drop", "drop"),
            ("actions=", "drop"),
            ("actions=output:1,", "output:1"),
            ("actions=OUTPUT:1,Normal", "output:1,NORMAL"),
            ("actions=action(7fff0008000000ff)", "action(7fff0008000000ff)"),
            ("actions=output:1,instruction(7fff0008000000ff)", "output:1,instruction(7fff0008000000ff)"),
        ];
        for (given, expected) in pairs {
            assert_eq!(written(given), expected, "of {given}");
        }
    }

    #[test]
    fn what_is_refused() {
        let refused = [
            ("ip", "a flow says its actions"),
            ("actions=fly", "no such action"),
            ("actions=output:p1", "no such port"),
            ("actions=output:70000", "OVS has no port of this number"),
            ("actions=drop,output:1", "drop is alone"),
            ("actions=conjunction(1,1/2),output:1", "conjunction goes with nothing but note"),
            ("actions=conjunction(1,3/2)", "2 to 64 clauses"),
            ("actions=goto_table:1,output:1", "the order is"),
            ("actions=goto_table:1,goto_table:2", "the order is"),
            ("actions=set_field:1->ip_proto", "cannot be set"),
            ("actions=set_field:1->nothing", "no such field"),
            ("actions=set_field:1/1->vlan_pcp", "takes no mask"),
            ("actions=load:0x10->NXM_NX_REG0[0..3]", "does not fit into 4 bits"),
            ("actions=load:1->NXM_NX_REG0[32]", "reg0 has 32 bits"),
            ("actions=move:NXM_NX_REG0[]->NXM_NX_REG1[0..3]", "32 bits do not go into 4"),
            ("actions=mod_tp_src:5", "needs a match on TCP, UDP or SCTP"),
            ("actions=set_vlan_vid:5", "needs a match on a VLAN"),
            ("actions=mod_vlan_vid:4096", "at most 4095"),
            ("actions=push_vlan:0x800", "not an Ethernet type for this"),
            ("actions=ct(force)", "force goes with commit"),
            ("actions=ct(commit,exec(output:1))", "only ct_mark and ct_label"),
            ("actions=ct(commit,nat(src,dst))", "either src or dst"),
            ("actions=ct(commit,nat(src=10.0.0.2-10.0.0.1))", "the last address is before the first"),
            ("actions=ct(zone=NXM_NX_REG0[])", "a zone has 16 bits"),
            ("actions=learn(table=255)", "no table to learn in"),
            ("actions=learn(nsh_spi=5)", "learn(…) has no room for this field"),
            ("actions=resubmit(,)", "resubmit to another port or table"),
            ("actions=note:1", "pairs of hexadecimal digits"),
            ("actions=output(port=1,max_len=13)", "an Ethernet header has 14 octets"),
            ("actions=multipath(eth_src,50,modulo_n,17,0,NXM_NX_REG0[0..3])", "no more than 4 bits can tell"),
            ("actions=bundle_load(eth_src,0,hrw,ofport,NXM_NX_REG0[0..7],members:1)", "needs 16 bits"),
            ("actions=sample(probability=0)", "a sample has a probability"),
            ("actions=delete_field:reg0", "only tunnel options can be deleted"),
            ("actions=nat(src)", "no such action"),
            ("tp_src=5,actions=drop", "tcp_src needs a match on TCP"),
            ("ip,ct_state=+trk+new,ct_tp_dst=5,actions=drop", "needs a match on a valid ct_state and ct_nw_proto"),
            ("mpls,mpls_label=1048576,actions=drop", "mpls_label has 20 bits"),
            ("vlan_tci=0x2000/0x2000,actions=drop", "all bits of a VLAN's priority or none"),
            ("reg0[0..3]=16,actions=drop", "reg0[0..3] has 4 bits"),
            ("cookie=1/1,actions=drop", "a new flow's cookie has no mask"),
            ("priority=65536,actions=drop", "priority is at most 65535"),
            ("colour=red,actions=drop", "unknown of a flow"),
        ];
        for (text, fault) in refused {
            let error = text.parse::<Flow>().expect_err(text).to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn what_an_action_means_depends_on_the_match() {
        let tagged: Match = "dl_vlan=5".parse().unwrap();
        let mut context = super::Context::new(&tagged, &Unnamed);
        let text = |actions: Vec<crate::Action>| actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(text(context.actions("mod_vlan_vid:6").unwrap()), "set_field:4102->vlan_vid");
        let mut context = super::Context::new(&tagged, &Unnamed);
        assert_eq!(
            text(context.actions("pop_vlan,mod_vlan_vid:6").unwrap()),
            "pop_vlan,push_vlan:0x8100,set_field:4102->vlan_vid"
        );
    }
}
