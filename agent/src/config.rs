//! The configuration file: every key with its type, its default and what changing it takes. Reading the
//! values of single keys is in `config/value.rs`, what goes wrong in `config/error.rs`, and what the keys mean
//! on this host (users, host name, directories) in `config/resolve.rs`.
//!
//! `docs/configuration.md` explains every key and `deploy/vifd.toml` shows the defaults; tests hold both to
//! the types here.

mod error;
mod resolve;
mod value;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devlink::port_profile::LLDPAD_PID_FILE;
use devlink::{Device, InlineMode};
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use value::{DeviceMode, Endpoints, FileMode, Level, Listen, LookEvery, MaxIdle, QosType, Resync};

use crate::model::AgentId;
use crate::plan::{IdRange, MaxRemovals};

/// Where the file is when nobody says otherwise; the only one that may be missing.
pub const DEFAULT_PATH: &str = "/etc/vifd/vifd.toml";

/// The whole file. Every table and key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this agent is and how it behaves.
    pub agent: Agent,
    /// The Open vSwitch database.
    pub ovsdb: Ovsdb,
    /// Where records come from.
    pub source: Source,
    /// The local HTTP API.
    pub api: Api,
    /// The Prometheus endpoint.
    pub metrics: Metrics,
    /// What holds for VIFs that do not say.
    pub defaults: Defaults,
    /// vhost-user sockets.
    pub vhostuser: VhostUser,
    /// Character devices of macvtaps.
    pub macvtap: Macvtap,
    /// Applications in containers that have functions.
    pub nested_dpdk: NestedDpdk,
    /// lldpad, which speaks 802.1Qbg with the switches beyond the cables.
    pub lldpad: Lldpad,
    /// What of OpenFlow's and conntrack's numbers is vifd's on managed bridges.
    pub openflow: OpenFlow,
    /// Flows in hardware.
    pub offload: Offload,
    /// Bridges about which there is something to say.
    pub bridge: Vec<Bridge>,
    /// NICs about which there is something to say.
    pub nic: Vec<Nic>,
    /// The log.
    pub log: Log,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// Stands in every mark that vifd leaves: 1 to 63 letters, digits, dots, underscores and hyphens. Two
    /// agents on one host need two. Changing it while owned objects exist is refused.
    #[serde(deserialize_with = "value::agent_id")]
    pub id: AgentId,
    /// Name of this host in status and logs; the host's own when empty.
    pub host: String,
    /// The user that the agent becomes where root starts it; it stays root when empty.
    pub user: String,
    /// Whether the host is changed at all.
    pub mode: Mode,
    /// How often everything is read and compared anew without a cause.
    pub resync: Resync,
    /// Whether ports and taps that os-vif made are taken over.
    pub adopt: Adopt,
    /// How many VIFs may be removed because their records are absent, as opposed to deleted.
    #[serde(with = "value::max_removals")]
    pub max_removals: MaxRemovals,
    /// Where vifd keeps what it has to remember: pauses, undo entries, the lock.
    #[serde(deserialize_with = "value::absolute")]
    pub state_dir: PathBuf,
}

impl Default for Agent {
    fn default() -> Self {
        Agent {
            id: AgentId("vifd".into()),
            host: String::new(),
            user: String::new(),
            mode: Mode::Enforce,
            resync: Resync::default(),
            adopt: Adopt::Never,
            max_removals: MaxRemovals::Percent(10),
            state_dir: "/var/lib/vifd/state".into(),
        }
    }
}

/// `agent.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is written; plan and status say what would be.
    Observe,
    /// The host is kept as the records want it.
    Enforce,
}

/// `agent.adopt`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adopt {
    /// What vifd did not make is foreign.
    Never,
    /// What os-vif made for a VIF that has a record becomes vifd's.
    OsVif,
}

/// `[ovsdb]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ovsdb {
    /// Where ovsdb-server listens; of several, one after the other is tried.
    pub endpoint: Endpoints,
    /// Private key, PEM, for `ssl:` endpoints.
    #[serde(deserialize_with = "value::absolute_or_empty")]
    pub key: PathBuf,
    /// Our certificate, PEM.
    #[serde(deserialize_with = "value::absolute_or_empty")]
    pub cert: PathBuf,
    /// Certificate of the authority that signed the server's, PEM.
    #[serde(deserialize_with = "value::absolute_or_empty")]
    pub ca: PathBuf,
    /// Directory of ovs-vswitchd's sockets (`NAME.mgmt`); see [`Config::rundir`] for the default.
    #[serde(deserialize_with = "value::absolute_or_empty")]
    pub rundir: PathBuf,
}

/// `[source]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Which source.
    #[serde(deserialize_with = "value::source_kind")]
    pub kind: SourceKind,
    /// The directory of records.
    #[serde(deserialize_with = "value::absolute")]
    pub path: PathBuf,
}

impl Default for Source {
    fn default() -> Self {
        Source { kind: SourceKind::Dir, path: "/var/lib/vifd/vifs".into() }
    }
}

/// `source.kind`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A directory of files.
    Dir,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Path of the unix socket.
    #[serde(deserialize_with = "value::socket")]
    pub socket: PathBuf,
    /// Permissions of the socket.
    pub mode: FileMode,
    /// Group of the socket; the process's own when empty.
    pub group: String,
}

impl Default for Api {
    fn default() -> Self {
        Api { socket: "/run/vifd/api.sock".into(), mode: FileMode(0o660), group: "vifd".into() }
    }
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where Prometheus scrapes.
    pub listen: Listen,
}

/// `[defaults]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// MTU of VIFs whose network has none, octets.
    #[serde(deserialize_with = "value::mtu")]
    pub mtu: u32,
    /// QoS type of new ports on the kernel's datapath; none when empty.
    pub qos_type: QosType,
    /// Whether new ports start on the dead VLAN 4095 until a network agent moves them.
    pub isolate: bool,
    /// Whether each VIF of type `openvswitch` gets a bridge of its own.
    pub per_port_bridge: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { mtu: 1500, qos_type: QosType::default(), isolate: false, per_port_bridge: false }
    }
}

/// `[vhostuser]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VhostUser {
    /// The directory below which sockets may be.
    #[serde(deserialize_with = "value::absolute")]
    pub dir: PathBuf,
    /// Owner of directories made for sockets, name or number; left as it is when empty.
    pub owner: String,
    /// Group of them, likewise.
    pub group: String,
    /// Permissions of them.
    pub mode: FileMode,
    /// SELinux label of them; the policy's when empty.
    pub selinux_label: String,
}

impl Default for VhostUser {
    fn default() -> Self {
        VhostUser {
            dir: "/var/run/openvswitch".into(),
            owner: String::new(),
            group: String::new(),
            mode: FileMode(0o770),
            selinux_label: String::new(),
        }
    }
}

/// `[macvtap]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Macvtap {
    /// The directory in which the kernel's character devices of macvtaps are.
    #[serde(deserialize_with = "value::absolute")]
    pub dir: PathBuf,
    /// Owner of those that belong to VIFs, name or number; left as it is when empty.
    pub owner: String,
    /// Group of them, likewise.
    pub group: String,
    /// Permissions of them, likewise.
    pub mode: DeviceMode,
}

impl Default for Macvtap {
    fn default() -> Self {
        Macvtap { dir: "/dev".into(), owner: String::new(), group: String::new(), mode: DeviceMode::default() }
    }
}

impl Macvtap {
    /// Whether devices are changed at all.
    #[must_use]
    pub fn changes_devices(&self) -> bool {
        !self.owner.is_empty() || !self.group.is_empty() || self.mode.0.is_some()
    }
}

/// `[nested_dpdk]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NestedDpdk {
    /// The directory in which a file for each VIF of that type, named by its id, holds the PCI address of its function.
    #[serde(deserialize_with = "value::absolute")]
    pub dir: PathBuf,
}

impl Default for NestedDpdk {
    fn default() -> Self {
        NestedDpdk { dir: "/run/vifd/pci-address".into() }
    }
}

/// `[lldpad]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lldpad {
    /// The file in which it writes its process id.
    #[serde(deserialize_with = "value::absolute")]
    pub pid_file: PathBuf,
    /// How often it and the adapters are asked how far associations are, while there are any and nothing happens.
    pub ask_every: LookEvery,
}

impl Default for Lldpad {
    fn default() -> Self {
        Lldpad { pid_file: LLDPAD_PID_FILE.into(), ask_every: LookEvery(Some(Duration::from_secs(10))) }
    }
}

/// `[openflow]`: numbers outside these ranges are somebody else's and are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenFlow {
    /// Groups, one for each network on a bridge.
    #[serde(with = "value::groups")]
    pub groups: IdRange,
    /// Meters, one for each direction in which a VIF has a rate.
    #[serde(with = "value::meters")]
    pub meters: IdRange,
    /// Conntrack zones, one for each VIF with rules.
    #[serde(with = "value::zones")]
    pub zones: IdRange,
}

impl Default for OpenFlow {
    fn default() -> Self {
        OpenFlow {
            groups: IdRange { first: 1, last: 32767 },
            meters: IdRange { first: 1, last: 32767 },
            zones: IdRange { first: 32768, last: 65535 },
        }
    }
}

/// `[offload]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Offload {
    /// How often the datapath is looked at for flows that are to be in hardware, while there are VIFs of which they are.
    pub look_every: LookEvery,
    /// `other_config:hw-offload` of Open vSwitch.
    pub hw_offload: HwOffload,
    /// `other_config:tc-policy` of Open vSwitch.
    pub tc_policy: TcPolicy,
    /// `other_config:max-idle` of Open vSwitch.
    pub max_idle: MaxIdle,
}

/// `offload.hw_offload`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HwOffload {
    /// It stays as it is.
    #[default]
    Keep,
    /// Open vSwitch gives flows to NICs.
    On,
    /// It gives none.
    Off,
}

/// `offload.tc_policy` (ovs-vswitchd.conf.db(5), `tc-policy`)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcPolicy {
    /// It stays as it is.
    #[default]
    Keep,
    /// A flow is in software and, where the NIC takes it, in hardware.
    None,
    /// In hardware alone.
    SkipSw,
    /// In software alone.
    SkipHw,
}

/// `[[bridge]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Name of the bridge.
    #[serde(deserialize_with = "value::interface_name")]
    pub name: String,
    /// Who makes the bridge's flows.
    #[serde(default)]
    pub flows: Flows,
    /// `datapath_type` of a managed bridge that has to be made: `system` or `netdev`.
    #[serde(default = "value::system", deserialize_with = "value::datapath_type")]
    pub datapath_type: String,
    /// Ports that lead out of the host. Used where vifd makes the flows.
    #[serde(default)]
    pub uplinks: Vec<Uplink>,
    /// Whether a bridge is managed that vifd did not make, or that carries what somebody else put there.
    #[serde(default)]
    pub takeover: bool,
}

/// `bridge.flows`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flows {
    /// Not vifd: the bridge switches by itself, or somebody else programs it.
    #[default]
    None,
    /// vifd: the bridge does what its flows say and nothing else.
    Managed,
}

/// An element of `bridge.uplinks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Name of the port.
    #[serde(deserialize_with = "value::interface_name")]
    pub port: String,
    /// Networks behind it, by id or label; `*` is every one.
    #[serde(default = "value::every_network")]
    pub networks: Vec<String>,
}

/// `[[nic]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// The devlink handle, e.g. `pci/0000:03:00.0`.
    #[serde(deserialize_with = "value::nic", serialize_with = "value::as_text")]
    pub device: Device,
    /// What becomes of its embedded switch.
    #[serde(default, deserialize_with = "value::eswitch")]
    pub eswitch: Eswitch,
    /// How many virtual functions it has; absent, they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<u32>,
    /// How much of a packet's headers its functions tell its embedded switch (`none`, `link`, `network`, `transport`);
    /// absent, that stays as it is.
    #[serde(
        default,
        deserialize_with = "value::inline_mode",
        serialize_with = "value::as_text_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub inline_mode: Option<InlineMode>,
    /// Whether its embedded switch can encapsulate; absent, that stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encap: Option<bool>,
}

/// `nic.eswitch`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Eswitch {
    /// It stays in the mode it is in.
    #[default]
    Keep,
    /// It is set to switchdev mode, and never back.
    Switchdev,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged.
    pub level: Level,
    /// How it is written.
    pub format: Format,
}

/// `log.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Reads the file. [`DEFAULT_PATH`] may be missing, which means the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong: which key, on which line, and why.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Config::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                Ok(Config::default())
            }
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let fail =
            |key: String, error: &toml::de::Error| ConfigError::wrong(path, text, &key, error.message(), error.span());
        let document = toml::Deserializer::parse(text).map_err(|error| fail(String::new(), &error))?;
        let config: Config = serde_path_to_error::deserialize(document)
            .map_err(|error| fail(error.path().to_string(), error.inner()))?;
        config.check().map_err(|(key, reason)| ConfigError::wrong(path, text, &key, &reason, None))?;
        Ok(config)
    }

    /// What no key can be judged for by itself.
    fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: String, reason: &str| Err((key, reason.to_owned()));
        let files = [("ovsdb.key", &self.ovsdb.key), ("ovsdb.cert", &self.ovsdb.cert), ("ovsdb.ca", &self.ovsdb.ca)];
        for (key, file) in files {
            if self.ovsdb.endpoint.needs_tls() && file.as_os_str().is_empty() {
                return fail(key.into(), "is missing; an ssl: endpoint needs key, cert and ca");
            }
        }
        for (at, bridge) in self.bridge.iter().enumerate() {
            if self.bridge[..at].iter().any(|earlier| earlier.name == bridge.name) {
                return fail(format!("bridge[{at}].name"), "is the name of an earlier bridge");
            }
            for (nth, uplink) in bridge.uplinks.iter().enumerate() {
                let earlier = &bridge.uplinks[..nth];
                if earlier.iter().any(|other| other.port == uplink.port) {
                    return fail(format!("bridge[{at}].uplinks[{nth}].port"), "is the port of an earlier uplink");
                }
                // A network has one way out: with two its packets would come back by the other.
                let taken = |network| earlier.iter().any(|other| other.networks.contains(network));
                if uplink.networks.iter().any(taken) {
                    let reason = "has a network of an earlier uplink; a network has one uplink";
                    return fail(format!("bridge[{at}].uplinks[{nth}].networks"), reason);
                }
            }
        }
        for (at, nic) in self.nic.iter().enumerate() {
            if self.nic[..at].iter().any(|earlier| earlier.device == nic.device) {
                return fail(format!("nic[{at}].device"), "is the device of an earlier nic");
            }
        }
        Ok(())
    }

    /// The keys that differ and that a reload (SIGHUP) cannot bring into force; all others take effect with
    /// the next plan. A reload that meets such keys takes the others and names these.
    #[must_use]
    pub fn diff_needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
        // Everything is taken apart by name, so that a new key cannot be forgotten here.
        let Config {
            agent,
            ovsdb,
            source,
            api,
            metrics,
            defaults: _,
            vhostuser,
            macvtap,
            nested_dpdk,
            lldpad,
            openflow: _,
            offload: _,
            bridge: _,
            nic: _,
            log,
        } = old;
        let Agent { id, host, user, mode: _, resync: _, adopt: _, max_removals: _, state_dir } = agent;
        let Ovsdb { endpoint, key, cert, ca, rundir } = ovsdb;
        let Source { kind, path } = source;
        let Api { socket, mode, group } = api;
        let Metrics { listen } = metrics;
        let VhostUser { dir, owner: _, group: _, mode: _, selinux_label: _ } = vhostuser;
        let Macvtap { dir: devices, owner: _, group: _, mode: _ } = macvtap;
        let NestedDpdk { dir: hints } = nested_dpdk;
        let Lldpad { pid_file, ask_every } = lldpad;
        let Log { level: _, format } = log;
        [
            ("agent.id", *id != new.agent.id),
            ("agent.host", *host != new.agent.host),
            ("agent.user", *user != new.agent.user),
            ("agent.state_dir", *state_dir != new.agent.state_dir),
            ("ovsdb.endpoint", *endpoint != new.ovsdb.endpoint),
            ("ovsdb.key", *key != new.ovsdb.key),
            ("ovsdb.cert", *cert != new.ovsdb.cert),
            ("ovsdb.ca", *ca != new.ovsdb.ca),
            ("ovsdb.rundir", *rundir != new.ovsdb.rundir),
            ("source.kind", *kind != new.source.kind),
            ("source.path", *path != new.source.path),
            ("api.socket", *socket != new.api.socket),
            ("api.mode", *mode != new.api.mode),
            ("api.group", *group != new.api.group),
            ("metrics.listen", *listen != new.metrics.listen),
            ("vhostuser.dir", *dir != new.vhostuser.dir),
            ("macvtap.dir", *devices != new.macvtap.dir),
            ("nested_dpdk.dir", *hints != new.nested_dpdk.dir),
            ("lldpad.pid_file", *pid_file != new.lldpad.pid_file),
            ("lldpad.ask_every", *ask_every != new.lldpad.ask_every),
            ("log.format", *format != new.log.format),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}
