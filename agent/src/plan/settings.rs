//! What the configuration means to the planner: plain values, resolved (no user names, no defaults left).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use devlink::{Device, InlineMode};
use ovsdb::pairs::Pairs;
use uuid::Uuid;

use crate::model::{AgentId, DeviceAccess, FileOwner, Mark, VifId, nursery};

/// Key of `external_ids` that names the owning agent.
pub const OWNER: &str = "vifd-owner";
/// Key of `external_ids` that names the VIF.
pub const VIF: &str = "vifd-vif";
/// Key of `external_ids` that tells the format of the marks.
pub const FORMAT: &str = "vifd-format";
/// Key of `external_ids` on what stays when its VIF goes.
pub const PRESERVE: &str = "vifd-preserve";
/// Key of `external_ids` with the conntrack zone of an interface, which has to outlive ovs-vswitchd.
pub const ZONE: &str = "vifd-zone";
/// What the key of `external_ids` begins with that names a sub-port on the interface of its trunk; its id follows.
pub const SUB_PORT: &str = "vifd-sub-port-";
/// The format of the marks that this version writes.
const FORMAT_VERSION: &str = "1";

/// os-vif's name space of QoS ids (`ovsdb_lib.QOS_UUID_NAMESPACE`).
const QOS_NAMESPACE: Uuid = Uuid::from_u128(0x68da_264a_847f_42a8_8ab0_5e77_4aee_3d95);

/// Settings of the planner.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whose marks are ours.
    pub agent: AgentId,
    /// Whether ports and taps that os-vif left are taken over.
    pub adopt: bool,
    /// How many VIFs may be removed for mere absence.
    pub max_removals: MaxRemovals,
    /// MTU where the network has none, octets.
    pub mtu: u32,
    /// `QoS.type` of new system ports; none when empty.
    pub qos_type: String,
    /// Whether new ports start on the dead VLAN.
    pub isolate: bool,
    /// Whether each port of type `openvswitch` gets a bridge of its own.
    pub per_port_bridge: bool,
    /// Where vhost-user sockets may be.
    pub socket_dir: PathBuf,
    /// How directories made for them shall be; `u32::MAX` as `uid` or `gid` leaves it, as with chown(2).
    pub socket_owner: FileOwner,
    /// Where the character devices of macvtaps are.
    pub device_dir: PathBuf,
    /// Who is to get at them.
    pub device_access: DeviceAccess,
    /// Entries of `other_config` of table Open_vSwitch that are kept as they are here.
    pub switch_config: BTreeMap<String, String>,
    /// NICs of the configuration, by devlink handle.
    pub nics: BTreeMap<Device, NicSettings>,
    /// Bridges on which vifd makes the flows, by name. On no other is there ever one of ours.
    pub bridges: BTreeMap<String, ManagedBridge>,
    /// Groups that are ours on these bridges.
    pub groups: IdRange,
    /// Meters that are ours on these bridges.
    pub meters: IdRange,
    /// Conntrack zones that are ours.
    pub zones: IdRange,
}

/// What is wanted of a NIC. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicSettings {
    /// Whether its eswitch is to be in switchdev mode.
    pub switchdev: bool,
    /// How many virtual functions it has.
    pub vfs: Option<u32>,
    /// How much of a packet's headers its functions have to tell its eswitch.
    pub inline_mode: Option<InlineMode>,
    /// Whether its eswitch can encapsulate.
    pub encap: Option<bool>,
}

/// A bridge on which vifd makes the flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedBridge {
    /// `datapath_type` if it has to be made.
    pub datapath_type: String,
    /// Ports that lead out of the host.
    pub uplinks: Vec<Uplink>,
    /// Whether it is managed although vifd did not make it, or somebody else has a claim on it.
    pub takeover: bool,
}

/// A port that leads out of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Name of the port.
    pub port: String,
    /// Networks behind it, by id or label; `*` is every one that no other uplink names.
    pub networks: Vec<String>,
}

/// Numbers from the first to the last, both among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first; at least 1.
    pub first: u32,
    /// The last; not below the first.
    pub last: u32,
}

impl IdRange {
    /// Whether a number is one of these.
    #[must_use]
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// `max_removals`: the larger of five and a share of what is on the host, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRemovals {
    /// Percent of the VIFs on the host, and never less than five VIFs.
    Percent(u8),
    /// That many VIFs.
    Count(usize),
}

impl MaxRemovals {
    /// How many of `present` VIFs may go.
    #[must_use]
    pub fn of(self, present: usize) -> usize {
        match self {
            MaxRemovals::Percent(percent) => (present * usize::from(percent) / 100).max(5),
            MaxRemovals::Count(count) => count,
        }
    }
}

/// Whose an object is, by its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ours, for this VIF where it is for one.
    Us {
        /// The VIF; bridges that several VIFs share name none.
        vif: Option<VifId>,
        /// Whether it stays when the VIF goes.
        preserve: bool,
    },
    /// Another agent's: the words say whose.
    Other(String),
    /// Made by a later release, in a format that this one does not know: left alone and reported.
    Later(String),
    /// Nobody's mark is on it.
    Nobody,
}

impl Settings {
    /// The marks for what is made for `vif`.
    #[must_use]
    pub fn marks(&self, vif: Option<VifId>, preserve: bool) -> BTreeMap<String, String> {
        let mut marks = BTreeMap::from([
            (OWNER.to_owned(), self.agent.to_string()),
            (FORMAT.to_owned(), FORMAT_VERSION.to_owned()),
        ]);
        if let Some(vif) = vif {
            marks.insert(VIF.to_owned(), vif.to_string());
        }
        if preserve {
            marks.insert(PRESERVE.to_owned(), "true".to_owned());
        }
        marks
    }

    /// The entry that guards what only we may change.
    #[must_use]
    pub fn guard(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(OWNER.to_owned(), self.agent.to_string())])
    }

    /// The link group of links that are being made.
    #[must_use]
    pub fn nursery(&self) -> u32 {
        nursery(&self.agent)
    }

    /// Reads the marks of a row.
    #[must_use]
    pub fn owner(&self, external_ids: &Pairs) -> Owner {
        let Some(owner) = external_ids.get(OWNER) else { return Owner::Nobody };
        if owner != self.agent.0 {
            return Owner::Other(format!("agent {owner:?}"));
        }
        match external_ids.get(FORMAT) {
            Some(format) if format != FORMAT_VERSION => {
                return Owner::Later(format!("a later release of vifd (marks in format {format:?})"));
            }
            _ => {}
        }
        let vif = external_ids.get(VIF).and_then(|text| text.parse().ok());
        Owner::Us { vif, preserve: external_ids.get(PRESERVE).is_some_and(|value| value == "true") }
    }

    /// Reads the mark of a link.
    #[must_use]
    pub fn link_owner(&self, alias: Option<&str>) -> Owner {
        match alias.and_then(Mark::parse) {
            None => Owner::Nobody,
            Some(Mark::Made { agent, vif, preserve }) if agent == self.agent => Owner::Us { vif: Some(vif), preserve },
            Some(Mark::Shared { agent, .. }) if agent == self.agent => Owner::Us { vif: None, preserve: false },
            Some(Mark::Made { agent, .. } | Mark::Shared { agent, .. }) => Owner::Other(format!("agent {:?}", agent.0)),
            Some(Mark::Newer(text)) => Owner::Later(format!("a later release of vifd (mark {text:?})")),
        }
    }
}

/// The `id` that os-vif gives the QoS row of the port `name`.
#[must_use]
pub(crate) fn qos_id(name: &str) -> String {
    Uuid::new_v5(&QOS_NAMESPACE, name.as_bytes()).to_string()
}
