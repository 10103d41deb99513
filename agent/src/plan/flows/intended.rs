//! What the planner has in mind for the flows of one owner, for people who look: nothing is decided here.

use flows::{Flow, Group};

use super::super::Memo;
use super::super::pipeline::{self, Cookie, NetworkKey, OwnerTag, Uplink};
use crate::model::VifId;

/// Whose flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowsOf {
    /// A VIF's own.
    Vif(VifId),
    /// Those that the VIFs of a network share on this bridge.
    Network(String, NetworkKey),
    /// Those that all VIFs of this bridge share.
    Bridge(String),
}

/// What is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intended {
    /// The bridge.
    pub bridge: String,
    /// The cookies of these flows.
    pub cookies: Vec<Cookie>,
    /// The flows, as they were last planned; `None` while it is not known what they need, such as a port's number.
    pub flows: Option<Vec<Flow>>,
    /// The groups that go with them.
    pub groups: Vec<Group>,
    /// The network, of a VIF or of itself.
    pub network: Option<NetworkKey>,
    /// Where that leaves the host.
    pub uplink: Option<Uplink>,
    /// OpenFlow port that a VIF's flows are for.
    pub port: Option<u16>,
    /// VLAN of a sub-port there.
    pub vlan: Option<u16>,
}

impl Memo {
    /// What was planned last for the flows of `of`; `None` where it has none, because it is on no managed bridge.
    #[must_use]
    pub fn intended(&self, owner: OwnerTag, of: &FlowsOf) -> Option<Intended> {
        let switches = &self.switches;
        let uplink = |bridge: &str, key| {
            let network = switches.networks.get(&(bridge.to_owned(), key))?;
            network.facts.as_ref()?.uplink
        };
        match of {
            FlowsOf::Vif(id) => {
                let placed = switches.placed.get(id)?;
                Some(Intended {
                    bridge: placed.bridge.clone(),
                    cookies: vec![placed.cookie],
                    flows: placed.flows(),
                    groups: Vec::new(),
                    network: Some(placed.network),
                    uplink: uplink(&placed.bridge, placed.network),
                    port: placed.facts.as_ref().map(|facts| facts.at.port),
                    vlan: placed.facts.as_ref().and_then(|facts| facts.at.vlan),
                })
            }
            FlowsOf::Network(bridge, key) => {
                let network = switches.networks.get(&(bridge.clone(), *key))?;
                Some(Intended {
                    bridge: bridge.clone(),
                    cookies: vec![Cookie::network(owner, *key)],
                    flows: network.facts.as_ref().map(|_| network.wanted.flows.clone()),
                    groups: network.wanted.groups.clone(),
                    network: Some(*key),
                    uplink: uplink(bridge, *key),
                    port: None,
                    vlan: None,
                })
            }
            FlowsOf::Bridge(bridge) => {
                switches.conditions.get(bridge)?;
                let mut flows = pipeline::bridge(owner);
                flows.extend(pipeline::groups(owner, &switches.groups.members));
                Some(Intended {
                    bridge: bridge.clone(),
                    cookies: vec![Cookie::bridge(owner), Cookie::groups(owner)],
                    flows: Some(flows),
                    ..Intended::default()
                })
            }
        }
    }

    /// The bridges that a network has VIFs on.
    #[must_use]
    pub fn bridges_of(&self, key: NetworkKey) -> Vec<String> {
        let all = self.switches.networks.keys();
        all.filter(|(_, network)| *network == key).map(|(bridge, _)| bridge.clone()).collect()
    }
}
