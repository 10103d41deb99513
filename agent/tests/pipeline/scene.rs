//! VIFs and networks for the tests, made of records as controllers write them.

use std::collections::{BTreeMap, BTreeSet};

use flows::{Flow, Group, Meter};
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;
use vifd::model::{AgentId, Vif};
use vifd::plan::pipeline::{
    self, Attachment, Member, MeterIds, NetworkFacts, NetworkKey, OwnerTag, PortFacts, RuleFacts, Uplink,
};
use vifd::record;

/// The tag of the agent `vifd`.
pub(crate) fn owner() -> OwnerTag {
    OwnerTag::of(&AgentId("vifd".into()))
}

/// Network number so-and-so.
pub(crate) fn network(number: u128) -> NetworkKey {
    NetworkKey::Network(Uuid::from_u128(number << 64 | 0xb82c_0000_0000))
}

/// VIF number so-and-so of a network: its address is 52:54:00:00:00:NN, its fixed ones 10.0.0.NN and fd00::NN.
pub(crate) fn vif(number: u8, network: u128, policy: &Value) -> Vif {
    with_addresses(number, network, policy, &[&format!("10.0.0.{number}"), &format!("fd00::{number:x}")])
}

pub(crate) fn with_addresses(number: u8, network: u128, policy: &Value, addresses: &[&str]) -> Vif {
    let NetworkKey::Network(key) = self::network(network) else { unreachable!() };
    let ips: Vec<_> = addresses.iter().map(|address| json!({ "address": address })).collect();
    let record = json!({
        "vif": {
            "type": "openvswitch",
            "id": Uuid::from_u128(0xdc06_5497_3c8d_4f44_8fb4_e1d3_3c16_0000 + u128::from(number)),
            "address": format!("52:54:00:00:00:{number:02x}"),
            "vif_name": format!("tap{number}"),
            "network": { "id": key, "bridge": "br0", "subnets": [{ "ips": ips }] },
            "port_profile": { "type": "openvswitch" },
        },
        "policy": policy,
    });
    record::decode(record.to_string().as_bytes()).expect("a good record").vif
}

/// A bridge with VIFs, each on the port of its number unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bridge {
    pub(crate) ports: Vec<PortFacts>,
    pub(crate) uplinks: BTreeMap<NetworkKey, Uplink>,
    members: BTreeMap<String, BTreeSet<IpNet>>,
    meters: Vec<Meter>,
}

/// Everything that a switch is given.
pub(crate) struct Everything {
    pub(crate) flows: Vec<Flow>,
    pub(crate) groups: Vec<Group>,
    pub(crate) meters: Vec<Meter>,
}

impl Bridge {
    /// Adds a VIF as the planner would: zones are the ports' numbers, meters theirs and 100 more.
    pub(crate) fn add(&mut self, vif: &Vif, at: Attachment) -> &mut Self {
        let mut port = PortFacts::of(owner(), vif, at).unwrap();
        let number = u32::from(at.port) + u32::from(at.vlan.unwrap_or(0));
        let rate = vif.policy.rate;
        port.meters = MeterIds {
            from_vif: (rate.egress_kbps > 0).then_some(number),
            to_vif: (rate.ingress_kbps > 0).then_some(100 + number),
        };
        self.meters.extend(pipeline::meters(&rate, port.meters));
        port.rules = vif.policy.rules.clone().map(|rules| RuleFacts {
            zone: number as u16,
            conjunctions: pipeline::conjunctions(rules.iter().filter_map(|rule| rule.remote_group.as_deref())),
            rules,
        });
        for group in &vif.policy.groups {
            self.members.entry(group.clone()).or_default().extend(pipeline::member_addresses(vif));
        }
        for (group, members) in &vif.policy.group_members {
            self.members.entry(group.clone()).or_default().extend(members);
        }
        self.ports.push(port);
        self
    }

    pub(crate) fn plain(&mut self, vif: &Vif) -> &mut Self {
        let Some(number) = vif.address.map(|mac| u16::from(mac.0[5])) else { unreachable!() };
        self.add(vif, Attachment { port: number, vlan: None })
    }

    /// The networks as the planner would have them, groups numbered from 1.
    pub(crate) fn networks(&self) -> Vec<NetworkFacts> {
        let keys: BTreeSet<_> =
            self.ports.iter().map(|port| port.network).chain(self.uplinks.keys().copied()).collect();
        let mut next = 1..;
        let facts = |key: NetworkKey| {
            let members: Vec<_> = self.ports.iter().filter(|port| port.network == key).filter_map(Member::of).collect();
            let uplink = self.uplinks.get(&key).copied();
            let groups = next.by_ref().take(pipeline::groups_needed(&members, uplink, 0)).collect();
            NetworkFacts { owner: owner(), key, members, uplink, limbo: Vec::new(), groups }
        };
        keys.into_iter().map(facts).collect()
    }

    /// The groups that rules name, as far as VIFs here are in them.
    pub(crate) fn members(&self) -> BTreeMap<u32, Vec<IpNet>> {
        let numbers = pipeline::conjunctions(self.members.keys().map(String::as_str));
        self.members.iter().map(|(name, members)| (numbers[name], members.iter().copied().collect())).collect()
    }

    pub(crate) fn everything(&self) -> Everything {
        let mut all = Everything { flows: pipeline::bridge(owner()), groups: Vec::new(), meters: self.meters.clone() };
        self.ports.iter().for_each(|port| all.flows.extend(pipeline::vif(port)));
        all.flows.extend(pipeline::groups(owner(), &self.members()));
        for facts in self.networks() {
            let network = pipeline::network(&facts).unwrap();
            all.flows.extend(network.flows);
            all.groups.extend(network.groups);
        }
        all
    }
}
