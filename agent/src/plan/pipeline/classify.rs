//! Table 0: whose a packet is and on which network, by the port and the tag that it came with.

use flows::{Action, Field, Instructions, PortNo};

use super::facts::{Attachment, NetworkFacts, PortFacts};
use super::pen::{FROM, FROM_UPLINK, MARKS, Pen, VLAN_PRESENT, any, set};
use super::tables::{ADMIT, CLASSIFY, FROM_VIF, LOOKUP, PORT_SECURITY, Place, QUARANTINE, TAGGED};

/// What comes in by a port: with a tag, or without any.
fn arriving(port: u16, vlan: Option<u16>) -> flows::MatchBuilder {
    let vid = vlan.map_or(0, |vlan| VLAN_PRESENT | vlan);
    any().in_port(PortNo(port.into())).exact(Field::VLAN_VID, vid)
}

fn admit(metadata: u64, registers: &[(Field, u32)], vlan: Option<u16>, table: u8) -> Instructions {
    let untagged = vlan.map(|_| Action::PopVlan);
    let apply = untagged.into_iter().chain(registers.iter().map(|(field, value)| set(*field, *value)));
    Instructions {
        apply: apply.collect(),
        metadata: Some(Box::new((metadata, u64::MAX))),
        goto_table: Some(table),
        ..Instructions::default()
    }
}

/// A VIF.
pub(super) fn vif(pen: &mut Pen, port: &PortFacts) {
    let Attachment { port: number, vlan } = port.at;
    // Without port security nothing is checked: the packet goes past it all, in this one flow.
    let next = if port.port_security { PORT_SECURITY } else { FROM_VIF };
    pen.write(ADMIT, arriving(number, vlan), admit(port.network.metadata(), &[(FROM, port.at.id())], vlan, next));
    if vlan.is_none() {
        // Above nothing but the miss: it is there to be counted as this VIF's.
        pen.drop(TAGGED, any().in_port(PortNo(number.into())));
    }
}

/// A VIF that is not to send: a port with whatever comes in by it, or a tag of a port that others use too.
pub(super) fn quarantine(pen: &mut Pen, at: Attachment) {
    let matching = match at.vlan {
        Some(_) => arriving(at.port, at.vlan),
        None => any().in_port(PortNo(at.port.into())),
    };
    pen.drop(QUARANTINE, matching);
}

/// What comes from a network's uplink.
pub(super) fn network(pen: &mut Pen, facts: &NetworkFacts) {
    let Some(uplink) = facts.uplink else { return };
    let registers = [(FROM, uplink.port.into()), (MARKS, FROM_UPLINK)];
    let admitted = admit(facts.key.metadata(), &registers, uplink.vlan, LOOKUP);
    pen.write(ADMIT, arriving(uplink.port, uplink.vlan), admitted);
}

pub(super) fn bridge(pen: &mut Pen) {
    pen.drop(Place::miss(CLASSIFY), any());
}
