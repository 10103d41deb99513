//! The map of the pipeline: every table, every place in it that flows stand at, and why a flow that drops does. A place
//! is a table with a priority, and means one thing wherever it is found, so that counters and traces are read by it.
//! What stands at the places is written by the neighbours of this file; operators read `docs/flows.md`.

use std::fmt;

use flows::Flow;

/// What a packet is, by the port that it came from: its network, and the VIF that sent it.
pub const CLASSIFY: u8 = 0;
/// The Ethernet source of guests.
pub const PORT_SECURITY: u8 = 10;
/// Their ARP, RARP and neighbour discovery.
pub const PORT_SECURITY_NEIGHBOUR: u8 = 11;
/// Their addresses, and what only routers and DHCP servers send.
pub const PORT_SECURITY_IP: u8 = 12;
/// What a guest may send at all is counted here, and metered.
pub const FROM_VIF: u8 = 20;
/// Of VIFs with rules: into connection tracking, from the guest.
pub const EGRESS_TRACK: u8 = 30;
/// The rules for what comes from the guest.
pub const EGRESS_RULES: u8 = 31;
/// What a rule let pass becomes a connection.
pub const EGRESS_COMMIT: u8 = 32;
/// The destination's port, by network and address.
pub const LOOKUP: u8 = 40;
/// Of VIFs with rules: into connection tracking, towards the guest.
pub const INGRESS_TRACK: u8 = 50;
/// The rules for what goes to the guest.
pub const INGRESS_RULES: u8 = 51;
/// What a rule let pass becomes a connection.
pub const INGRESS_COMMIT: u8 = 52;
/// Out of a port: metered towards guests, tagged for uplinks and trunks.
pub const OUTPUT: u8 = 60;

/// Every table and what it is called.
pub const TABLES: [(u8, &str); 13] = [
    (CLASSIFY, "classify"),
    (PORT_SECURITY, "port-security"),
    (PORT_SECURITY_NEIGHBOUR, "port-security-neighbour"),
    (PORT_SECURITY_IP, "port-security-ip"),
    (FROM_VIF, "from-vif"),
    (EGRESS_TRACK, "egress-track"),
    (EGRESS_RULES, "egress-rules"),
    (EGRESS_COMMIT, "egress-commit"),
    (LOOKUP, "lookup"),
    (INGRESS_TRACK, "ingress-track"),
    (INGRESS_RULES, "ingress-rules"),
    (INGRESS_COMMIT, "ingress-commit"),
    (OUTPUT, "output"),
];

/// What a table of the pipeline is called.
#[must_use]
pub fn name(table: u8) -> Option<&'static str> {
    TABLES.iter().find(|(number, _)| *number == table).map(|(_, name)| *name)
}

/// A table and a priority in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The table.
    pub table: u8,
    /// The priority; higher wins.
    pub priority: u16,
}

const fn place(table: u8, priority: u16) -> Place {
    Place { table, priority }
}

impl Place {
    /// Where a flow stands.
    #[must_use]
    pub fn of(flow: &Flow) -> Place {
        Place { table: flow.table, priority: flow.priority }
    }

    /// Where what nothing else in a table matches ends.
    #[must_use]
    pub const fn miss(table: u8) -> Place {
        place(table, 0)
    }
}

/// An inactive VIF sends nothing.
pub const QUARANTINE: Place = place(CLASSIFY, 200);
/// A VIF's port, a sub-port's tag on it, a network's tag on an uplink.
pub const ADMIT: Place = place(CLASSIFY, 100);
/// Any other tag on a VIF's port.
pub const TAGGED: Place = place(CLASSIFY, 90);

/// Own Ethernet addresses.
pub const OWN_MAC: Place = place(PORT_SECURITY, 100);
/// Any other.
pub const FOREIGN_MAC: Place = place(PORT_SECURITY, 10);

/// Neighbour discovery that Open vSwitch could not read has no target.
pub const UNREADABLE_ND: Place = place(PORT_SECURITY_NEIGHBOUR, 200);
/// A guest makes sure that nobody has its address.
pub const PROBE: Place = place(PORT_SECURITY_NEIGHBOUR, 110);
/// A guest speaks of its own addresses.
pub const OWN_NEIGHBOUR: Place = place(PORT_SECURITY_NEIGHBOUR, 100);
/// It speaks of others', by ARP or RARP.
pub const FOREIGN_ARP: Place = place(PORT_SECURITY_NEIGHBOUR, 30);
/// It speaks of others', by neighbour discovery.
pub const FOREIGN_ND: Place = place(PORT_SECURITY_NEIGHBOUR, 20);
/// What is neither.
pub const NO_NEIGHBOUR: Place = place(PORT_SECURITY_NEIGHBOUR, 10);

/// Guests are no routers.
pub const ROUTER_ADVERTISEMENT: Place = place(PORT_SECURITY_IP, 210);
/// Guests ask nobody what multicast they want: who asks is taken for the network's multicast router.
pub const QUERY: Place = place(PORT_SECURITY_IP, 205);
/// Guests are no DHCP servers.
pub const DHCP_SERVER: Place = place(PORT_SECURITY_IP, 200);
/// A guest without an address yet: DHCP, and membership of multicast groups.
pub const UNADDRESSED: Place = place(PORT_SECURITY_IP, 150);
/// Own IP addresses.
pub const OWN_IP: Place = place(PORT_SECURITY_IP, 100);
/// Any other.
pub const FOREIGN_IP: Place = place(PORT_SECURITY_IP, 20);
/// Neither IP nor ARP.
pub const NO_IP: Place = place(PORT_SECURITY_IP, 10);

/// A VIF's.
pub const SENT: Place = place(FROM_VIF, 100);

/// What is not tracked: ARP, neighbour discovery, DHCP.
pub const EGRESS_AROUND: Place = place(EGRESS_TRACK, 100);
/// A VIF's zone.
pub const EGRESS_ZONE: Place = place(EGRESS_TRACK, 50);
/// The same towards guests.
pub const INGRESS_AROUND: Place = place(INGRESS_TRACK, 100);
/// What goes to many at once, towards guests: to the rules, untracked.
pub const INGRESS_TO_MANY: Place = place(INGRESS_TRACK, 60);
/// The same towards guests.
pub const INGRESS_ZONE: Place = place(INGRESS_TRACK, 50);

/// Packets that are part of no connection and begin none.
pub const INVALID: u16 = 400;
/// Replies of a connection that rules no longer let pass.
pub const REVOKED: u16 = 390;
/// Replies, and what is related to a connection.
pub const REPLY: u16 = 380;
/// A rule for the members of a group.
pub const GROUP_RULE: u16 = 110;
/// A rule.
pub const RULE: u16 = 100;
/// A connection that rules no longer let pass.
pub const REVOKE: u16 = 20;
/// What no rule lets pass.
pub const DENY: u16 = 10;

/// A new connection.
pub const NEW: u16 = 100;
/// A connection that rules let pass again.
pub const ALLOWED_AGAIN: u16 = 90;
/// A connection that they still do.
pub const ESTABLISHED: u16 = 80;

/// What is not tracked.
pub const UNTRACKED: u16 = 70;

/// Multicast that no bridge forwards (IEEE 802.1Q, 8.6.3).
pub const RESERVED_MULTICAST: Place = place(LOOKUP, 200);
/// A VIF's address.
pub const ADDRESS: Place = place(LOOKUP, 100);
/// An address that several guests may use.
pub const SHARED_ADDRESS: Place = place(LOOKUP, 90);
/// Broadcast and multicast.
pub const FLOOD: Place = place(LOOKUP, 50);
/// Nobody here has the address, and the packet came from the uplink.
pub const NOT_HERE: Place = place(LOOKUP, 20);
/// Nobody here has the address: it lies behind the uplink.
pub const ELSEWHERE: Place = place(LOOKUP, 10);

/// A flood has come back to its sender, which has rules: before a connection with itself begins.
pub const HAIRPIN_WITH_RULES: Place = place(INGRESS_TRACK, 200);
/// The same where the sender has none.
pub const HAIRPIN: Place = place(OUTPUT, 200);
/// A VIF with a meter, on the port that the packet came in by, of one for several.
pub const BACK_COPIED: Place = place(OUTPUT, 130);
/// A VIF on the port that the packet came in by: one guest's sub-ports on one network, or one of them and the trunk.
pub const BACK: Place = place(OUTPUT, 120);
/// A VIF with a meter, of a packet for several.
pub const OUT_COPIED: Place = place(OUTPUT, 110);
/// A VIF, or a network's uplink.
pub const OUT: Place = place(OUTPUT, 100);

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The VIF is not active.
    Inactive,
    /// A tag that is no sub-port's.
    Tagged,
    /// Another's Ethernet source.
    Mac,
    /// Another's address in ARP or RARP.
    Arp,
    /// Another's address in neighbour discovery.
    Nd,
    /// A router advertisement.
    RouterAdvertisement,
    /// A query for members of multicast groups.
    MulticastQuery,
    /// A DHCP server's answer.
    DhcpServer,
    /// Another's IP source.
    Ip,
    /// Neither IP nor ARP.
    Ethertype,
    /// No rule lets it pass from the guest.
    EgressRules,
    /// No rule lets it pass to the guest.
    IngressRules,
    /// Part of no connection.
    Invalid,
    /// Multicast that no bridge forwards.
    ReservedMulticast,
    /// Nobody has the address.
    UnknownDestination,
    /// A flood that came back to its sender.
    Hairpin,
    /// It is from no port of ours, or flows are missing.
    Unclassified,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 17] = [
        Reason::Inactive,
        Reason::Tagged,
        Reason::Mac,
        Reason::Arp,
        Reason::Nd,
        Reason::RouterAdvertisement,
        Reason::MulticastQuery,
        Reason::DhcpServer,
        Reason::Ip,
        Reason::Ethertype,
        Reason::EgressRules,
        Reason::IngressRules,
        Reason::Invalid,
        Reason::ReservedMulticast,
        Reason::UnknownDestination,
        Reason::Hairpin,
        Reason::Unclassified,
    ];

    /// The value of the label `reason` in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Inactive => "inactive",
            Reason::Tagged => "vlan_tag",
            Reason::Mac => "mac_spoof",
            Reason::Arp => "arp_spoof",
            Reason::Nd => "nd_spoof",
            Reason::RouterAdvertisement => "router_advertisement",
            Reason::MulticastQuery => "multicast_query",
            Reason::DhcpServer => "dhcp_server",
            Reason::Ip => "ip_spoof",
            Reason::Ethertype => "ethertype",
            Reason::EgressRules => "egress_rules",
            Reason::IngressRules => "ingress_rules",
            Reason::Invalid => "invalid",
            Reason::ReservedMulticast => "reserved_multicast",
            Reason::UnknownDestination => "unknown_destination",
            Reason::Hairpin => "hairpin",
            Reason::Unclassified => "unclassified",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where packets are dropped, and why.
const DROPS: &[(Place, Reason)] = &[
    (QUARANTINE, Reason::Inactive),
    (TAGGED, Reason::Tagged),
    (FOREIGN_MAC, Reason::Mac),
    (UNREADABLE_ND, Reason::Nd),
    (FOREIGN_ARP, Reason::Arp),
    (FOREIGN_ND, Reason::Nd),
    (ROUTER_ADVERTISEMENT, Reason::RouterAdvertisement),
    (QUERY, Reason::MulticastQuery),
    (DHCP_SERVER, Reason::DhcpServer),
    (FOREIGN_IP, Reason::Ip),
    (NO_IP, Reason::Ethertype),
    (place(EGRESS_RULES, INVALID), Reason::Invalid),
    (place(EGRESS_RULES, REVOKED), Reason::EgressRules),
    (place(EGRESS_RULES, REVOKE), Reason::EgressRules),
    (place(EGRESS_RULES, DENY), Reason::EgressRules),
    (place(INGRESS_RULES, INVALID), Reason::Invalid),
    (place(INGRESS_RULES, REVOKED), Reason::IngressRules),
    (place(INGRESS_RULES, REVOKE), Reason::IngressRules),
    (place(INGRESS_RULES, DENY), Reason::IngressRules),
    (Place::miss(EGRESS_TRACK), Reason::EgressRules),
    (Place::miss(INGRESS_TRACK), Reason::IngressRules),
    (RESERVED_MULTICAST, Reason::ReservedMulticast),
    (NOT_HERE, Reason::UnknownDestination),
    (Place::miss(LOOKUP), Reason::UnknownDestination),
    (HAIRPIN_WITH_RULES, Reason::Hairpin),
    (HAIRPIN, Reason::Hairpin),
];

/// Why packets are dropped at a place; `None` where they are not.
#[must_use]
pub fn dropped_at(place: Place) -> Option<Reason> {
    match DROPS.iter().find(|(drops, _)| *drops == place) {
        Some((_, reason)) => Some(*reason),
        None => (place.priority == 0 && name(place.table).is_some()).then_some(Reason::Unclassified),
    }
}

/// What the counters of a flow tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counts {
    /// What port security let pass from a guest, before its meter and its rules.
    FromVif,
    /// What was sent to a guest, before its meter if it has to pass that.
    ToVif,
    /// What was dropped.
    Dropped(Reason),
}

/// What the counters of a flow of a VIF tell, by where it stands; `None` for what is counted elsewhere, and for what is
/// part of every flood: that it does not reach its sender. A place counts each packet once: the sum over a VIF's flows is
/// the VIF's.
#[must_use]
pub fn counts(place: Place) -> Option<Counts> {
    match place {
        SENT => Some(Counts::FromVif),
        OUT | OUT_COPIED | BACK | BACK_COPIED => Some(Counts::ToVif),
        HAIRPIN | HAIRPIN_WITH_RULES => None,
        _ => dropped_at(place).map(Counts::Dropped),
    }
}
