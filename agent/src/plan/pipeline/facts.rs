//! What the pipeline is made from: facts of one VIF's port and of one network on one bridge. Where they come from is the
//! planner's business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flows::Bucket;
use ipnet::{IpNet, Ipv4Net};

use super::cookie::{NetworkKey, OwnerTag};
use crate::model::{AddressPair, MacAddr, Rule, Vif, VifId};

/// Where a VIF is on a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// OpenFlow port, 1 to 65279 (`OFPP_MAX` of OpenFlow 1.0, which ovs-vswitchd keeps to). A sub-port's is its parent's.
    pub port: u16,
    /// A sub-port's VLAN on that port, 1 to 4094.
    pub vlan: Option<u16>,
}

impl Attachment {
    /// What stands for it in registers: 16 bits of VLAN, 0 for none, before 16 bits of port.
    #[must_use]
    pub fn id(self) -> u32 {
        u32::from(self.vlan.unwrap_or(0)) << 16 | u32::from(self.port)
    }
}

/// The meters of a VIF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MeterIds {
    /// For what the guest sends.
    pub from_vif: Option<u32>,
    /// For what is sent to the guest.
    pub to_vif: Option<u32>,
}

/// Stateful rules, with what the host adds to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFacts {
    /// The VIF's zone of connection tracking, 1 to 65535; no other VIF's.
    pub zone: u16,
    /// As the record has them.
    pub rules: Vec<Rule>,
    /// `conj_id` of every group that the rules name, as [`super::conjunctions`] gives them. A rule for a group that is
    /// not here lets nothing pass.
    pub conjunctions: BTreeMap<String, u32>,
}

/// Who has to do with a guest's DHCP clients, as far as its record says. Only guests with rules need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhcpServers {
    /// Servers and gateways of its subnets, whom a client with an address asks directly. A gateway may be a relay.
    pub asked: BTreeSet<IpAddr>,
    /// From where answers come: of these; where the record names no server for IPv4, from anywhere on its subnets, and from
    /// anywhere at all where it does not say what these are.
    pub answering: BTreeSet<IpNet>,
}

impl DhcpServers {
    fn of(vif: &Vif) -> Self {
        let subnets = || vif.network.iter().flat_map(|network| &network.subnets);
        let asked: BTreeSet<IpAddr> =
            subnets().flat_map(|subnet| [subnet.dhcp_server, subnet.gateway]).flatten().collect();
        let mut answering: BTreeSet<IpNet> = asked.iter().copied().map(IpNet::from).collect();
        // Servers of DHCPv6 answer from their link's address.
        if !subnets().filter_map(|subnet| subnet.dhcp_server).any(|server| server.is_ipv4()) {
            let links: Vec<IpNet> =
                subnets().filter_map(|subnet| subnet.cidr).filter(|cidr| cidr.addr().is_ipv4()).collect();
            let anywhere = IpNet::V4(Ipv4Net::default());
            answering.extend(if links.is_empty() { vec![anywhere] } else { links });
        }
        DhcpServers { asked, answering: answering.iter().map(IpNet::trunc).collect() }
    }
}

/// A VIF's port, as far as its flows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// Whose flows.
    pub owner: OwnerTag,
    /// The VIF.
    pub id: VifId,
    /// Where it is.
    pub at: Attachment,
    /// Whether other VIFs are on the same port: sub-ports, or the trunk that it is a sub-port of.
    pub trunk: bool,
    /// Its network.
    pub network: NetworkKey,
    /// The guest's address.
    pub mac: MacAddr,
    /// The guest's IP addresses.
    pub fixed: Vec<IpAddr>,
    /// Further addresses that it may use.
    pub pairs: Vec<AddressPair>,
    /// Whether it may use these alone.
    pub port_security: bool,
    /// Meters, where the record limits the rate.
    pub meters: MeterIds,
    /// Servers of its DHCP clients.
    pub dhcp: DhcpServers,
    /// Rules, where the record has some.
    pub rules: Option<RuleFacts>,
    /// An inactive VIF sends and gets nothing.
    pub active: bool,
}

impl PortFacts {
    /// What the record says, without meters and rules, which take numbers of the host, nor sub-ports, which are other
    /// records. `None` for a VIF without an address.
    #[must_use]
    pub fn of(owner: OwnerTag, vif: &Vif, at: Attachment) -> Option<Self> {
        Some(PortFacts {
            owner,
            id: vif.id,
            at,
            trunk: at.vlan.is_some(),
            network: NetworkKey::of(vif),
            mac: vif.address?,
            fixed: fixed(vif).collect(),
            pairs: vif.policy.allowed_address_pairs.clone(),
            port_security: vif.policy.port_security,
            meters: MeterIds::default(),
            dhcp: DhcpServers::of(vif),
            rules: None,
            active: vif.active,
        })
    }

    /// What the guest may use: every Ethernet address with every prefix that goes with it. A pair without an Ethernet
    /// address goes with the VIF's own, one without a prefix with the VIF's addresses.
    pub(super) fn allowed(&self) -> BTreeSet<(MacAddr, IpNet)> {
        let fixed = || self.fixed.iter().map(|address| IpNet::from(*address));
        let own = fixed().map(|prefix| (self.mac, prefix));
        let pairs = self.pairs.iter().flat_map(|pair| {
            let mac = pair.mac.unwrap_or(self.mac);
            let prefixes: Vec<_> = pair.ip.map_or_else(|| fixed().collect(), |prefix| vec![prefix.trunc()]);
            prefixes.into_iter().map(move |prefix| (mac, prefix))
        });
        own.chain(pairs).collect()
    }

    /// The Ethernet addresses that the guest may use.
    pub(super) fn macs(&self) -> BTreeSet<MacAddr> {
        self.pairs.iter().filter_map(|pair| pair.mac).chain([self.mac]).collect()
    }
}

/// The fixed addresses of a VIF.
pub fn fixed(vif: &Vif) -> impl Iterator<Item = IpAddr> + '_ {
    let subnets = vif.network.iter().flat_map(|network| &network.subnets);
    subnets.flat_map(|subnet| subnet.ips.iter().map(|ip| ip.address))
}

/// What a VIF brings into the groups that it is in: its fixed addresses and those of its pairs.
pub fn member_addresses(vif: &Vif) -> impl Iterator<Item = IpNet> + '_ {
    let pairs = vif.policy.allowed_address_pairs.iter().filter_map(|pair| pair.ip.map(|prefix| prefix.trunc()));
    fixed(vif).map(IpNet::from).chain(pairs)
}

/// A VIF as its network sees it. Only active ones are members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Where it is.
    pub at: Attachment,
    /// Whether it has rules.
    pub rules: bool,
    /// Addresses it may use beside its own (of address pairs), on which several VIFs may stand by for each other.
    pub shared: Vec<MacAddr>,
}

impl Member {
    /// As a port's facts say; `None` for an inactive one.
    #[must_use]
    pub fn of(port: &PortFacts) -> Option<Self> {
        let shared = port.macs().into_iter().filter(|mac| *mac != port.mac).collect();
        port.active.then(|| Member { at: port.at, rules: port.rules.is_some(), shared })
    }
}

/// Where a network leaves the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uplink {
    /// OpenFlow port.
    pub port: u16,
    /// The network's VLAN there; `None` for a flat network, whose packets are untagged.
    pub vlan: Option<u16>,
}

/// A network on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Whose flows.
    pub owner: OwnerTag,
    /// Which network.
    pub key: NetworkKey,
    /// Its active VIFs, in any order that is always the same.
    pub members: Vec<Member>,
    /// Its uplink.
    pub uplink: Option<Uplink>,
    /// Buckets for ports that stay although nothing is planned for them, as they are on the switch.
    pub limbo: Vec<Bucket>,
    /// Ids of the groups that flood it, as many as [`super::groups_needed`] says.
    pub groups: Vec<u32>,
}
