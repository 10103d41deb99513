//! Table 60: out of a port, with the tag that is wanted there. A packet leaves by the port that it came in by only where
//! that is a trunk and the tag another: Open vSwitch leaves out such an output, unless it is to `IN_PORT`.

use flows::{Action, Field, Instructions, PortNo};

use super::facts::{NetworkFacts, PortFacts};
use super::pen::{COPIED, Pen, TO, VLAN, VLAN_PRESENT, any, from, set, to};
use super::tables::{BACK, BACK_COPIED, HAIRPIN, HAIRPIN_WITH_RULES, OUT, OUT_COPIED, OUTPUT, Place};

fn send(port: PortNo, vlan: Option<u16>, meter: Option<u32>) -> Instructions {
    let mut apply = Vec::new();
    if let Some(vlan) = vlan {
        apply.push(Action::PushVlan(VLAN));
        apply.push(set(Field::VLAN_VID, VLAN_PRESENT | vlan));
    }
    apply.push(Action::output(port));
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
    let (number, vlan, meter) = (PortNo(port.at.port.into()), port.at.vlan, port.meters.to_vif);
    let mut write = |copied, single, matching: flows::MatchBuilder, number| {
        if meter.is_some() {
            pen.write(copied, matching.clone().exact(COPIED, 1_u32), send(number, vlan, None));
        }
        pen.write(single, matching, send(number, vlan, meter));
    };
    if port.trunk {
        write(BACK_COPIED, BACK, here.clone().in_port(number), PortNo::IN_PORT);
    }
    write(OUT_COPIED, OUT, here, number);
}

/// To the rest of a network, on the uplink.
pub(super) fn network(pen: &mut Pen, facts: &NetworkFacts) {
    let Some(uplink) = facts.uplink else { return };
    let matching = to(uplink.port.into()).exact(Field::METADATA, facts.key.metadata());
    pen.write(OUT, matching, send(PortNo(uplink.port.into()), uplink.vlan, None));
}

pub(super) fn bridge(pen: &mut Pen) {
    pen.drop(Place::miss(OUTPUT), any());
}
