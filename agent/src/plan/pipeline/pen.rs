//! Writing flows down: the words that the tables share. What is written is theirs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flows::action::{Conntrack, Zone};
use flows::{Action, Field, Flow, FlowFlags, Instructions, Match, MatchBuilder};
use ipnet::IpNet;

use super::cookie::Cookie;
use super::tables::Place;
use crate::model::MacAddr;

/// Where a packet came from: [`super::Attachment::id`] of a VIF, the port of an uplink.
pub(super) const FROM: Field = Field::reg(5);
/// Where it goes, likewise.
pub(super) const TO: Field = Field::reg(6);
/// [`FROM_UPLINK`], or 0.
pub(super) const MARKS: Field = Field::reg(7);
/// 1 in copies of a packet for several, or 0.
pub(super) const COPIED: Field = Field::reg(8);
/// The packet came from an uplink.
pub(super) const FROM_UPLINK: u32 = 1;

/// Ethernet types.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const RARP: u16 = 0x8035;
pub(super) const IPV6: u16 = 0x86dd;
/// The Ethernet type of a tag.
pub(super) const VLAN: u16 = 0x8100;
/// The bit of `vlan_vid` that says that there is a tag (`OFPVID_PRESENT`).
pub(super) const VLAN_PRESENT: u16 = 0x1000;

/// IP protocols.
pub(super) const IGMP: u8 = 2;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// The flows of one owner, each identity once.
pub(super) struct Pen {
    cookie: Cookie,
    flows: BTreeMap<(Place, Match), Flow>,
}

impl Pen {
    pub(super) fn new(cookie: Cookie) -> Self {
        Pen { cookie, flows: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, at: Place, matching: MatchBuilder, instructions: Instructions) {
        self.write_built(at, matching.build(), instructions);
    }

    fn write_built(&mut self, at: Place, matching: Match, instructions: Instructions) {
        let flow = Flow {
            table: at.table,
            priority: at.priority,
            matching: matching.clone(),
            instructions,
            cookie: self.cookie.0,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            flags: FlowFlags::default(),
        };
        self.flows.insert((at, matching), flow);
    }

    pub(super) fn drop(&mut self, at: Place, matching: MatchBuilder) {
        self.write(at, matching, Instructions::default());
    }

    pub(super) fn goto(&mut self, at: Place, matching: MatchBuilder, table: u8) {
        self.write(at, matching, goto(table));
    }

    /// An action more for a flow that several reasons may be for.
    pub(super) fn join(&mut self, at: Place, matching: MatchBuilder, action: Action) {
        let matching = matching.build();
        let there = self.flows.get(&(at, matching.clone())).map(|flow| flow.instructions.apply.to_vec());
        let mut actions = there.unwrap_or_default();
        if !actions.contains(&action) {
            actions.push(action);
            actions.sort_by_key(|action| match action {
                Action::Conjunction { id, .. } => *id,
                _ => 0,
            });
        }
        self.write_built(at, matching, Instructions::apply(actions));
    }

    /// What was written: by table, and in it by priority, the highest first.
    pub(super) fn finish(self) -> Vec<Flow> {
        let mut flows: Vec<_> = self.flows.into_values().collect();
        flows.sort_by_key(|flow| (flow.table, u16::MAX - flow.priority));
        flows
    }
}

pub(super) fn goto(table: u8) -> Instructions {
    Instructions { goto_table: Some(table), ..Instructions::default() }
}

/// The field is set to the number.
pub(super) fn set(field: Field, value: impl Into<u128>) -> Action {
    Action::set_field(field, value)
}

pub(super) fn any() -> MatchBuilder {
    Match::builder()
}

/// Packets of an Ethernet type.
pub(super) fn ethernet(kind: u16) -> MatchBuilder {
    any().exact(Field::ETH_TYPE, kind)
}

/// Packets from a guest.
pub(super) fn from(id: u32) -> MatchBuilder {
    any().exact(FROM, id)
}

/// Packets to a guest.
pub(super) fn to(id: u32) -> MatchBuilder {
    any().exact(TO, id)
}

pub(super) fn mac(address: MacAddr) -> u128 {
    let [a, b, c, d, e, f] = address.0;
    u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

/// Value and mask of a prefix.
pub(super) fn prefix(prefix: IpNet) -> (u128, u128) {
    (number(prefix.network()), number(prefix.netmask()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The Ethernet type of what has such addresses.
pub(super) fn family(prefix: IpNet) -> u16 {
    if matches!(prefix, IpNet::V4(_)) { IPV4 } else { IPV6 }
}

/// What more to say of a match.
pub(super) trait Narrow {
    fn ethertype(self, kind: u16) -> Self;
    fn proto(self, protocol: u8) -> Self;
    fn icmpv6(self, kind: u8) -> Self;
    /// UDP of these ports, in the family that the match is of.
    fn udp(self, from: Option<u16>, to: u16) -> Self;
    fn within(self, field: Field, addresses: IpNet) -> Self;
    /// Bits of `ct_state` that must be set, and that must not.
    fn state(self, set: u32, clear: u32) -> Self;
}

impl Narrow for MatchBuilder {
    fn ethertype(self, kind: u16) -> Self {
        self.exact(Field::ETH_TYPE, kind)
    }

    fn proto(self, protocol: u8) -> Self {
        self.exact(Field::IP_PROTO, protocol)
    }

    fn icmpv6(self, kind: u8) -> Self {
        self.ethertype(IPV6).proto(ICMPV6).exact(Field::ICMPV6_TYPE, kind)
    }

    fn udp(self, from: Option<u16>, to: u16) -> Self {
        let udp = self.proto(UDP).exact(Field::UDP_DST, to);
        from.map_or(udp.clone(), |from| udp.exact(Field::UDP_SRC, from))
    }

    fn within(self, field: Field, addresses: IpNet) -> Self {
        let (value, mask) = prefix(addresses);
        // A mask of nothing is no match on the field.
        if mask == 0 { self } else { self.masked(field, value, mask) }
    }

    fn state(self, set: u32, clear: u32) -> Self {
        self.masked(Field::CT_STATE, set, u128::from(set | clear))
    }
}

/// Bits of `ct_state` (`CS_*` of OVS's `lib/conntrack` and `ovs-fields(7)`).
pub(super) mod state {
    pub(in super::super) const NEW: u32 = 0x01;
    pub(in super::super) const ESTABLISHED: u32 = 0x02;
    pub(in super::super) const RELATED: u32 = 0x04;
    pub(in super::super) const REPLY: u32 = 0x08;
    pub(in super::super) const INVALID: u32 = 0x10;
    pub(in super::super) const TRACKED: u32 = 0x20;
}

/// Through the connection tracker, and on in a table with what it knows.
pub(super) fn track(zone: u16, table: u8) -> Action {
    conntrack(Zone::Number(zone), false, Some(table), &[])
}

pub(super) fn conntrack(zone: Zone, commit: bool, table: Option<u8>, actions: &[Action]) -> Action {
    Action::Conntrack(Box::new(Conntrack { commit, force: false, zone, table, helper: 0, actions: actions.into() }))
}
