//! Table 40: to whom a packet goes, by its network and its Ethernet destination. Nothing is learned: the addresses of
//! guests here are known, and all others lie behind the uplink.

use std::collections::BTreeMap;

use flows::{Action, Field, Instructions, MatchBuilder};

use super::cookie::NetworkKey;
use super::facts::{NetworkFacts, PortFacts};
use super::pen::{COPIED, FROM_UPLINK, MARKS, Pen, TO, any, mac, set};
use super::tables::{
    ADDRESS, ELSEWHERE, FLOOD, INGRESS_TRACK, LOOKUP, NOT_HERE, OUTPUT, Place, RESERVED_MULTICAST, SHARED_ADDRESS,
};
use crate::model::MacAddr;

/// The bit that broadcast and multicast addresses have.
const GROUP_BIT: u128 = 1 << 40;

/// The table after this one towards a VIF.
pub(super) fn next(rules: bool) -> u8 {
    if rules { INGRESS_TRACK } else { OUTPUT }
}

fn on(network: NetworkKey) -> MatchBuilder {
    any().exact(Field::METADATA, network.metadata())
}

fn send(to: u32, table: u8) -> Instructions {
    Instructions { apply: [set(TO, to)].into(), goto_table: Some(table), ..Instructions::default() }
}

/// A VIF's own address.
pub(super) fn vif(pen: &mut Pen, port: &PortFacts) {
    let matching = on(port.network).exact(Field::ETH_DST, mac(port.mac));
    pen.write(ADDRESS, matching, send(port.at.id(), next(port.rules.is_some())));
}

/// Floods, addresses that guests share, and everything that is not here.
pub(super) fn network(pen: &mut Pen, facts: &NetworkFacts, groups: &[u32]) {
    if !groups.is_empty() {
        let floods: Vec<_> = copied().chain(groups.iter().map(|id| Action::Group(*id))).collect();
        let matching = on(facts.key).masked(Field::ETH_DST, GROUP_BIT, GROUP_BIT);
        pen.write(FLOOD, matching, Instructions::apply(floods));
    }
    for (address, holders) in shared(facts) {
        // Whoever of them answers for the address now may as well be on another host.
        let copy = |(to, table)| Action::Clone([set(TO, to), Action::resubmit(table)].into());
        let uplink = facts.uplink.map(|uplink| (uplink.port.into(), OUTPUT));
        let copies: Vec<_> = holders.into_iter().chain(uplink).map(copy).collect();
        let several = copied().filter(|_| copies.len() > 1);
        let matching = on(facts.key).exact(Field::ETH_DST, mac(address));
        pen.write(
            SHARED_ADDRESS,
            matching,
            Instructions::apply(several.chain(copies.iter().cloned()).collect::<Vec<_>>()),
        );
    }
    if let Some(uplink) = facts.uplink {
        pen.write(ELSEWHERE, on(facts.key), send(uplink.port.into(), OUTPUT));
    }
}

/// What happens to a packet before it is copied. What it is to its sender's connections is nothing to the receivers; it is
/// forgotten here, because Open vSwitch does so in the first copy alone.
fn copied() -> impl Iterator<Item = Action> {
    [Action::CtClear, set(COPIED, 1_u32)].into_iter()
}

/// Who may use an address that is nobody's own. Where it is somebody's, the owner's flow is above.
fn shared(facts: &NetworkFacts) -> BTreeMap<MacAddr, Vec<(u32, u8)>> {
    let mut shared: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for member in &facts.members {
        for address in &member.shared {
            shared.entry(*address).or_default().push((member.at.id(), next(member.rules)));
        }
    }
    shared
}

pub(super) fn bridge(pen: &mut Pen) {
    let reserved = any().masked(Field::ETH_DST, 0x0180_c200_0000_u64, 0xffff_ffff_fff0);
    pen.drop(RESERVED_MULTICAST, reserved);
    pen.drop(NOT_HERE, any().masked(MARKS, FROM_UPLINK, FROM_UPLINK.into()));
    pen.drop(Place::miss(LOOKUP), any());
}
