//! Tables 30 to 32 and 50 to 52: what rules let pass, from a guest and to it. Both directions are the same three tables
//! once more: into the VIF's zone, the rules, and the commitment of what they let pass.
//!
//! ```text
//!  track ──ARP, discovery, DHCP───────────────────────────────► on
//!    └─ct(zone)─► rules ──reply, related───────────────────────► on
//!                   ├─a rule─► commit ──new: ct(commit)────────► on
//!                   │             └──established───────────────► on
//!                   ├─established, no rule: ct_mark=1, drop
//!                   └─drop
//! ```
//!
//! A rule is looked at for every packet in the direction in which its connection began, not for the first alone. When
//! none lets such a packet pass any longer, the connection is marked in the tracker, and from then on its replies are dropped
//! too: nothing needs to be flushed. When a rule lets it pass again, the mark is taken off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use flows::action::Zone;
use flows::{Action, Field, Instructions, MatchBuilder, Subfield};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::cookie::{Cookie, OwnerTag};
use super::facts::PortFacts;
use super::pen::state::{ESTABLISHED, INVALID as BROKEN, NEW as BEGINS, RELATED, REPLY as ANSWERS, TRACKED};
use super::pen::{ARP, IPV4, IPV6, Narrow, Pen, RARP, any, conntrack, ethernet, family, from, goto, set, to, track};
use super::ranges;
use super::tables::{
    ALLOWED_AGAIN, DENY, EGRESS_AROUND, EGRESS_COMMIT, EGRESS_RULES, EGRESS_TRACK, EGRESS_ZONE, ESTABLISHED as GOES_ON,
    GROUP_RULE, INGRESS_AROUND, INGRESS_COMMIT, INGRESS_RULES, INGRESS_TO_MANY, INGRESS_TRACK, INGRESS_ZONE, INVALID,
    LOOKUP, NEW, OUTPUT, Place, REPLY, REVOKE, REVOKED, RULE, UNTRACKED,
};
use crate::model::{Direction, Ethertype, Protocol, Rule};

/// `ct_mark` of connections that rules no longer let pass.
const DENIED: u32 = 1;

/// `ff02::1:2`, relays and servers of DHCPv6 on a link (RFC 8415, 7.1).
const DHCPV6_SERVERS: u128 = 0xff02 << 112 | 0x1_0002;

/// The tables of a direction.
struct Way {
    direction: Direction,
    track: u8,
    rules: u8,
    commit: u8,
    /// Behind them.
    on: u8,
    around: Place,
    zone: Place,
    /// Types of ICMPv6 that are not tracked.
    discovery: &'static [u8],
    /// Ports of DHCP.
    dhcp: (u16, u16),
    /// Ports of DHCPv6.
    dhcpv6: (u16, u16),
}

/// Solicitations of routers and neighbours, advertisements of neighbours, reports of listeners.
const EGRESS: Way = Way {
    direction: Direction::Egress,
    track: EGRESS_TRACK,
    rules: EGRESS_RULES,
    commit: EGRESS_COMMIT,
    on: LOOKUP,
    around: EGRESS_AROUND,
    zone: EGRESS_ZONE,
    discovery: &[131, 132, 133, 135, 136, 143],
    dhcp: (68, 67),
    dhcpv6: (546, 547),
};

/// Queries for listeners, advertisements of routers, solicitations and advertisements of neighbours.
const INGRESS: Way = Way {
    direction: Direction::Ingress,
    track: INGRESS_TRACK,
    rules: INGRESS_RULES,
    commit: INGRESS_COMMIT,
    on: OUTPUT,
    around: INGRESS_AROUND,
    zone: INGRESS_ZONE,
    discovery: &[130, 134, 135, 136],
    dhcp: (67, 68),
    dhcpv6: (547, 546),
};

impl Way {
    /// Packets of this VIF.
    fn of(&self, id: u32) -> MatchBuilder {
        match self.direction {
            Direction::Egress => from(id),
            Direction::Ingress => to(id),
        }
    }

    fn at(&self, priority: u16) -> Place {
        Place { table: self.rules, priority }
    }

    /// DHCP, in the direction of this way.
    fn dhcp(&self, matching: MatchBuilder, v4: bool) -> MatchBuilder {
        let (from, to) = if v4 { self.dhcp } else { self.dhcpv6 };
        matching.udp(Some(from), to)
    }

    /// DHCP between a client that asks everybody on its link and those who answer it there, which is not tracked: that an
    /// answer is one cannot be told from the addresses.
    fn dhcp_on_the_link(&self) -> [MatchBuilder; 2] {
        let v4 = self.dhcp(ethernet(IPV4), true).exact(Field::IP_DST, u32::MAX);
        let v6 = self.dhcp(ethernet(IPV6), false);
        let v6 = match self.direction {
            Direction::Egress => v6.exact(Field::IPV6_DST, DHCPV6_SERVERS),
            Direction::Ingress => v6.masked(Field::IPV6_SRC, 0xfe80_u128 << 112, 0xffc0_u128 << 112),
        };
        [v4, v6]
    }

    /// The addresses of the other end.
    fn remote(&self, matching: MatchBuilder, addresses: IpNet) -> MatchBuilder {
        let field = match (self.direction, addresses) {
            (Direction::Egress, IpNet::V4(_)) => Field::IP_DST,
            (Direction::Egress, IpNet::V6(_)) => Field::IPV6_DST,
            (Direction::Ingress, IpNet::V4(_)) => Field::IP_SRC,
            (Direction::Ingress, IpNet::V6(_)) => Field::IPV6_SRC,
        };
        matching.ethertype(family(addresses)).within(field, addresses)
    }
}

/// The zone that the packet was tracked in.
fn same_zone() -> Zone {
    Zone::Field(Subfield::whole(Field::CT_ZONE))
}

fn remember(mark: u32) -> Action {
    conntrack(same_zone(), true, None, &[set(Field::CT_MARK, mark)])
}

/// A VIF with rules. Without any it has none of these flows, and no packet of it is tracked.
pub(super) fn vif(pen: &mut Pen, port: &PortFacts) {
    let Some(facts) = &port.rules else { return };
    let id = port.at.id();
    for way in [&EGRESS, &INGRESS] {
        for kind in [IPV4, IPV6] {
            let tracked = Instructions::apply([track(facts.zone, way.rules)]);
            pen.write(way.zone, way.of(id).ethertype(kind), tracked);
        }
        self::dhcp(pen, way, id, port);
        for rule in facts.rules.iter().filter(|rule| rule.direction == way.direction) {
            self::rule(pen, way, id, rule, &facts.conjunctions);
        }
        pen.drop(way.at(DENY), way.of(id));
    }
}

/// DHCP between a client and the servers that it knows: it asks like anybody whom a rule lets ask, and gets answers that are
/// none to what it asked, since it asked everybody.
fn dhcp(pen: &mut Pen, way: &Way, id: u32, port: &PortFacts) {
    match way.direction {
        Direction::Egress => {
            for server in &port.dhcp.asked {
                pen.goto(
                    way.at(RULE),
                    way.dhcp(way.remote(way.of(id), (*server).into()), server.is_ipv4()),
                    way.commit,
                );
            }
        }
        Direction::Ingress => {
            for servers in &port.dhcp.answering {
                let answer = way.dhcp(way.remote(way.of(id), *servers), servers.addr().is_ipv4());
                pen.goto(way.around, answer, way.on);
            }
        }
    }
}

fn rule(pen: &mut Pen, way: &Way, id: u32, rule: &Rule, conjunctions: &BTreeMap<String, u32>) {
    let matching = way.of(id).ethertype(match rule.ethertype {
        Ethertype::IPv4 => IPV4,
        Ethertype::IPv6 => IPV6,
    });
    let matching = match rule.remote_ip_prefix {
        Some(addresses) => way.remote(matching, addresses),
        None => matching,
    };
    for matching in of_protocol(matching, rule) {
        match &rule.remote_group {
            None => pen.goto(way.at(RULE), matching, way.commit),
            Some(group) => {
                if let Some(conjunction) = conjunctions.get(group) {
                    let clause = Action::Conjunction { id: *conjunction, clause: 1, clauses: 2 };
                    // Rules of several groups may be for the same packets: one flow is part of all their conjunctions.
                    pen.join(way.at(GROUP_RULE), matching, clause);
                }
            }
        }
    }
}

/// The matches that a rule's protocol and ports take.
fn of_protocol(matching: MatchBuilder, rule: &Rule) -> Vec<MatchBuilder> {
    let Some(protocol) = rule.protocol else { return vec![matching] };
    let protocol = match (protocol, rule.ethertype) {
        (Protocol::ICMP, Ethertype::IPv6) => Protocol::ICMPV6,
        _ => protocol,
    };
    let matching = matching.proto(protocol.0);
    let ports = match protocol {
        Protocol::TCP => Field::TCP_DST,
        Protocol::UDP => Field::UDP_DST,
        Protocol::SCTP => Field::SCTP_DST,
        Protocol::ICMP => return vec![of_type(matching, rule, Field::ICMP_TYPE, Field::ICMP_CODE)],
        Protocol::ICMPV6 => return vec![of_type(matching, rule, Field::ICMPV6_TYPE, Field::ICMPV6_CODE)],
        _ => return vec![matching],
    };
    let Some(first) = rule.port_min else { return vec![matching] };
    let last = rule.port_max.unwrap_or(first);
    let each = ranges::masked(first, last).into_iter();
    each.map(
        |(value, mask)| if mask == 0 { matching.clone() } else { matching.clone().masked(ports, value, mask.into()) },
    )
    .collect()
}

fn of_type(matching: MatchBuilder, rule: &Rule, kind: Field, code: Field) -> MatchBuilder {
    let Some(number) = rule.port_min else { return matching };
    let matching = matching.exact(kind, number);
    rule.port_max.map_or(matching.clone(), |number| matching.exact(code, number))
}

/// The members of the groups that rules name, and what it means that a packet is between a member and a VIF with such a
/// rule: the first clause of a conjunction (`ovs-fields(7)`), whose second are the rules. They are of no VIF: a member
/// more is two flows more, however many VIFs have rules for its group.
///
/// `groups` has the members of each group by its conjunction.
#[must_use]
pub fn groups(owner: OwnerTag, groups: &BTreeMap<u32, Vec<IpNet>>) -> Vec<flows::Flow> {
    let mut pen = Pen::new(Cookie::groups(owner));
    for way in [&EGRESS, &INGRESS] {
        for (id, members) in groups {
            for member in members {
                let clause = Action::Conjunction { id: *id, clause: 0, clauses: 2 };
                pen.join(way.at(GROUP_RULE), way.remote(any(), member.trunc()), clause);
            }
            pen.goto(way.at(GROUP_RULE), any().exact(Field::CONJ_ID, *id), way.commit);
        }
    }
    pen.finish()
}

/// The address that a flow of [`groups`] makes a member, and of which groups; `None` for what the flows of a group lead to.
pub fn membership(flow: &flows::Flow) -> Option<(IpNet, BTreeSet<u32>)> {
    let group = |action: &Action| match action {
        Action::Conjunction { id, .. } => Some(*id),
        _ => None,
    };
    let groups: BTreeSet<u32> = flow.instructions.apply.iter().filter_map(group).collect();
    let of = |fields: [Field; 2]| fields.into_iter().find_map(|field| flow.matching.get(field));
    // Where every address is a member, none is matched.
    let every = (0, 0);
    let address = match flow.matching.exact(Field::ETH_TYPE)? {
        kind if kind == u128::from(IPV4) => {
            let (address, mask) = of([Field::IP_SRC, Field::IP_DST]).unwrap_or(every);
            let [address, mask] = [address, mask].map(|bits| u32::try_from(bits).map(Ipv4Addr::from));
            Ipv4Net::with_netmask(address.ok()?, mask.ok()?).ok()?.into()
        }
        kind if kind == u128::from(IPV6) => {
            let (address, mask) = of([Field::IPV6_SRC, Field::IPV6_DST]).unwrap_or(every);
            Ipv6Net::with_netmask(address.into(), mask.into()).ok()?.into()
        }
        _ => return None,
    };
    (!groups.is_empty()).then_some((address, groups))
}

/// What goes to many at once, towards a guest: nothing answers it, so that there is no connection to know, and rules look at
/// each packet by itself. Tracking would be an entry for every guest, and in a datapath's list of actions for all copies
/// some 170 octets for each, of which there is room for not even two hundred. Fragments take that way all the same: rules see no
/// ports in the later ones.
fn to_many(pen: &mut Pen) {
    // Both bits: what ovs-ofctl saves as `nw_frag=no` and puts back has them.
    let whole = |kind: u16| ethernet(kind).exact(Field::IP_FRAG, 0_u8);
    let many = [
        whole(IPV4).masked(Field::IP_DST, 0xe000_0000_u32, 0xf000_0000),
        whole(IPV4).exact(Field::IP_DST, u32::MAX),
        whole(IPV6).masked(Field::IPV6_DST, 0xff_u128 << 120, 0xff_u128 << 120),
    ];
    for matching in many {
        // As before copies (see `lookup`), for what is for this guest alone by its Ethernet address.
        let untracked = Instructions { apply: [Action::CtClear].into(), ..goto(INGRESS.rules) };
        pen.write(INGRESS_TO_MANY, matching, untracked);
    }
    pen.goto(Place { table: INGRESS.commit, priority: UNTRACKED }, any().state(0, TRACKED), INGRESS.on);
}

/// What is the same for every VIF with rules.
pub(super) fn bridge(pen: &mut Pen) {
    to_many(pen);
    for way in [&EGRESS, &INGRESS] {
        let on = way.on;
        for kind in [ARP, RARP] {
            pen.goto(way.around, ethernet(kind), on);
        }
        for kind in way.discovery {
            pen.goto(way.around, any().icmpv6(*kind), on);
        }
        for dhcp in way.dhcp_on_the_link() {
            pen.goto(way.around, dhcp, on);
        }
        pen.drop(Place::miss(way.track), any());

        pen.drop(way.at(INVALID), any().state(TRACKED | BROKEN, 0));
        for kind in [ANSWERS, RELATED] {
            let part = any().state(TRACKED | kind, 0);
            pen.drop(way.at(REVOKED), part.clone().exact(Field::CT_MARK, DENIED));
            // A related connection that begins has to be known like any other.
            pen.goto(way.at(REPLY), part, if kind == RELATED { way.commit } else { on });
        }
        pen.drop(Place::miss(way.rules), any());

        let commit = |priority| Place { table: way.commit, priority };
        // Open vSwitch tracks nothing that a flow does not know to be IP.
        for kind in [IPV4, IPV6] {
            let tracked = |set, clear| ethernet(kind).state(TRACKED | set, clear);
            let denied = tracked(ESTABLISHED, 0).exact(Field::CT_MARK, 0_u32);
            pen.write(way.at(REVOKE), denied, Instructions::apply([remember(DENIED)]));
            let known = Instructions { apply: [remember(0)].into(), ..goto(on) };
            pen.write(commit(NEW), tracked(BEGINS, ESTABLISHED), known.clone());
            pen.write(commit(ALLOWED_AGAIN), tracked(0, 0).exact(Field::CT_MARK, DENIED), known);
        }
        pen.goto(commit(GOES_ON), any().state(TRACKED, 0), on);
        pen.drop(Place::miss(way.commit), any());
    }
}
