//! Table 60: out of a port, with the tag that is wanted there. A packet never leaves by the port that it came in by:
//! Open vSwitch leaves out such an output, and no flow here says `IN_PORT`.

use flows::{Action, Field, Instructions, PortNo};

use super::facts::{NetworkFacts, PortFacts};
use super::pen::{COPIED, Pen, TO, VLAN, VLAN_PRESENT, any, from, set, to};
use super::tables::{HAIRPIN, HAIRPIN_WITH_RULES, OUT, OUT_COPIED, OUTPUT, Place};

fn send(port: u16, vlan: Option<u16>, meter: Option<u32>) -> Instructions {
    let mut apply = Vec::new();
    if let Some(vlan) = vlan {
        apply.push(Action::PushVlan(VLAN));
        apply.push(set(Field::VLAN_VID, VLAN_PRESENT | vlan));
    }
    apply.push(Action::output(PortNo(port.into())));
    Instructions { meter, ..Instructions::apply(apply) }
}

/// To a guest, but what it sent itself: Open vSwitch would leave that out, and count it. Nothing of another network,
/// whatever is left of the guest there.
///
/// Copies of a packet for several pass its meter by: to a datapath they are one list of outputs, and a meter that drops ends
/// it, for all who come later in the list.
pub(super) fn vif(pen: &mut Pen, port: &PortFacts) {
    let id = port.at.id();
    let hairpin = if port.rules.is_some() { HAIRPIN_WITH_RULES } else { HAIRPIN };
    pen.drop(hairpin, from(id).exact(TO, id));
    let here = to(id).exact(Field::METADATA, port.network.metadata());
    if port.meters.to_vif.is_some() {
        pen.write(OUT_COPIED, here.clone().exact(COPIED, 1_u32), send(port.at.port, port.at.vlan, None));
    }
    pen.write(OUT, here, send(port.at.port, port.at.vlan, port.meters.to_vif));
}

/// To the rest of a network, on the uplink.
pub(super) fn network(pen: &mut Pen, facts: &NetworkFacts) {
    let Some(uplink) = facts.uplink else { return };
    let matching = to(uplink.port.into()).exact(Field::METADATA, facts.key.metadata());
    pen.write(OUT, matching, send(uplink.port, uplink.vlan, None));
}

pub(super) fn bridge(pen: &mut Pen) {
    pen.drop(Place::miss(OUTPUT), any());
}
