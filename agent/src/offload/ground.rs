//! What is known, beside the flows themselves, of whether they can be in hardware: Open vSwitch's settings, and what each
//! port of a datapath is.

use std::collections::{BTreeMap, HashMap};

use crate::model::{LinkKind, LinkState, OvsState, VifId};

/// What the planner says of a VIF whose flows are to be in hardware. It says so of those that are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Its port, by the name that it has in the datapath: that of the representor.
    pub port: String,
    /// The bridge that has the port; its `datapath_type` says in which datapath the flows are.
    pub bridge: String,
    /// `hw-tc-offload` of the representor; `None` while that is not known.
    pub tc_offload: Option<bool>,
    /// Whether the embedded switch of the NIC is in the mode `switchdev`; `None` while that is not known.
    pub switchdev: Option<bool>,
}

/// The VIFs whose flows are to be in hardware.
pub type Expectations = BTreeMap<VifId, Expectation>;

/// A datapath of ovs-vswitchd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datapath {
    /// The kernel's.
    Kernel,
    /// ovs-vswitchd's own.
    Userspace,
}

impl Datapath {
    /// What `dpctl` commands call it: there is one of each type at most.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Datapath::Kernel => "system@ovs-system",
            Datapath::Userspace => "netdev@ovs-netdev",
        }
    }
}

/// What of a port has to do with hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// What it is, where that can be in no NIC: `veth`, `tap`, `internal`.
    pub software: Option<String>,
    /// `hw-tc-offload`, where it is known.
    pub tc_offload: Option<bool>,
    /// Whether its NIC's embedded switch is in the mode `switchdev`, where it is known.
    pub switchdev: Option<bool>,
}

/// What decides for all flows of a datapath, and what is known of its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// `other_config:hw-offload` is true. It says so of the database: a running ovs-vswitchd goes on as it began.
    pub hw_offload: bool,
    /// `other_config:tc-policy` is `skip_hw`.
    pub skips_hardware: bool,
    /// The ports, by name.
    pub ports: HashMap<String, Port>,
}

/// Kinds of links that no NIC is behind, as `IFLA_INFO_KIND` has them.
const SOFTWARE_LINKS: [&str; 9] =
    ["bridge", "dummy", "ifb", "ipvlan", "macvlan", "macvtap", "nlmon", "openvswitch", "veth"];

/// Interface types of Open vSwitch's (ovs-vswitchd.conf.db(5)) that no NIC is behind.
const SOFTWARE_TYPES: [&str; 5] = ["internal", "tap", "patch", "dpdkvhostuser", "dpdkvhostuserclient"];

impl Ground {
    /// What the database and the kernel say. Of a port that neither knows, such as that of a tunnel, nothing is held
    /// against it.
    #[must_use]
    pub fn survey(ovs: &OvsState, links: Option<&LinkState>, expected: &Expectations) -> Ground {
        let setting = |key| ovs.other_config.get(key);
        let mut ports: HashMap<String, Port> = HashMap::new();
        for interface in ovs.interfaces.values() {
            let kind = interface.type_name();
            let software = if SOFTWARE_TYPES.contains(&kind) {
                Some(kind.to_owned())
            } else {
                let link =
                    links.filter(|_| kind == "system").and_then(|state| state.links.get(interface.name.as_str()));
                link.and_then(|link| software(&link.kind))
            };
            ports.insert(interface.name.to_string(), Port { software, ..Port::default() });
        }
        for wanted in expected.values() {
            let port = ports.entry(wanted.port.clone()).or_default();
            (port.tc_offload, port.switchdev) = (wanted.tc_offload, wanted.switchdev);
        }
        Ground {
            hw_offload: setting("hw-offload").is_some_and(|value| value == "true"),
            skips_hardware: setting("tc-policy").is_some_and(|value| value == "skip_hw"),
            ports,
        }
    }

    /// The ports that have an expectation of their own say more of themselves than any other.
    pub(super) fn port(&self, name: &str) -> Option<&Port> {
        self.ports.get(name)
    }
}

fn software(kind: &LinkKind) -> Option<String> {
    let name = match kind {
        LinkKind::Tap { .. } => "tap",
        // A VLAN may be on a NIC.
        LinkKind::Vlan { .. } => return None,
        kind => kind.name(),
    };
    (name == "tap" || SOFTWARE_LINKS.contains(&name)).then(|| name.to_owned())
}
