//! What the keys mean on this host: users and groups by number, the host's name, derived directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use devlink::Device;
use nix::unistd::{Group, User};

use super::{Adopt, Bridge, Config, ConfigError, Eswitch, Flows, HwOffload, Nic, Offload, TcPolicy};
use crate::model::{DeviceAccess, FileOwner};
use crate::plan::{ManagedBridge, NicSettings, Settings, Uplink};
use crate::record::Limits;

/// Open vSwitch's own default.
const OPENVSWITCH_RUNDIR: &str = "/run/openvswitch";

impl Config {
    /// Name of this host: `agent.host`, else the kernel's word.
    #[must_use]
    pub fn host(&self) -> String {
        if self.agent.host.is_empty() {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        } else {
            self.agent.host.clone()
        }
    }

    /// Directory of ovs-vswitchd's sockets: `ovsdb.rundir`, else the directory of a `unix:` endpoint, else
    /// Open vSwitch's own default.
    #[must_use]
    pub fn rundir(&self) -> PathBuf {
        if self.ovsdb.rundir.as_os_str().is_empty() {
            self.ovsdb.endpoint.directory().unwrap_or(Path::new(OPENVSWITCH_RUNDIR)).to_owned()
        } else {
            self.ovsdb.rundir.clone()
        }
    }

    /// What records are held to on this host.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { socket_dir: self.vhostuser.dir.clone() }
    }

    /// What the planner goes by.
    ///
    /// # Errors
    /// An owner or a group in `vhostuser` or `macvtap` is not known on this host.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let label = &self.vhostuser.selinux_label;
        Ok(Settings {
            agent: self.agent.id.clone(),
            adopt: self.agent.adopt == Adopt::OsVif,
            max_removals: self.agent.max_removals,
            mtu: self.defaults.mtu,
            qos_type: self.defaults.qos_type.to_string(),
            isolate: self.defaults.isolate,
            per_port_bridge: self.defaults.per_port_bridge,
            socket_dir: self.vhostuser.dir.clone(),
            socket_owner: FileOwner {
                uid: user("vhostuser.owner", &self.vhostuser.owner)?.unwrap_or(u32::MAX),
                gid: group("vhostuser.group", &self.vhostuser.group)?.unwrap_or(u32::MAX),
                mode: self.vhostuser.mode.0,
                label: (!label.is_empty()).then(|| label.clone()),
            },
            device_dir: self.macvtap.dir.clone(),
            device_access: DeviceAccess {
                uid: user("macvtap.owner", &self.macvtap.owner)?,
                gid: group("macvtap.group", &self.macvtap.group)?,
                mode: self.macvtap.mode.0,
            },
            switch_config: switch_config(&self.offload),
            nics: self.nic.iter().map(nic).collect(),
            bridges: self.bridge.iter().filter(|bridge| bridge.flows == Flows::Managed).map(managed).collect(),
            groups: self.openflow.groups,
            meters: self.openflow.meters,
            zones: self.openflow.zones,
        })
    }
}

/// What of `other_config` of table Open_vSwitch is vifd's to keep.
fn switch_config(offload: &Offload) -> BTreeMap<String, String> {
    let Offload { look_every: _, hw_offload, tc_policy, max_idle } = offload;
    let hw_offload = match hw_offload {
        HwOffload::Keep => None,
        HwOffload::On => Some("true"),
        HwOffload::Off => Some("false"),
    };
    let tc_policy = match tc_policy {
        TcPolicy::Keep => None,
        TcPolicy::None => Some("none"),
        TcPolicy::SkipSw => Some("skip_sw"),
        TcPolicy::SkipHw => Some("skip_hw"),
    };
    let entries = [
        ("hw-offload", hw_offload.map(str::to_owned)),
        ("tc-policy", tc_policy.map(str::to_owned)),
        ("max-idle", max_idle.0.map(|time| time.as_millis().to_string())),
    ];
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn nic(nic: &Nic) -> (Device, NicSettings) {
    let Nic { device, eswitch, vfs, inline_mode, encap } = nic.clone();
    (device, NicSettings { switchdev: eswitch == Eswitch::Switchdev, vfs, inline_mode, encap })
}

fn managed(bridge: &Bridge) -> (String, ManagedBridge) {
    let uplink = |uplink: &super::Uplink| Uplink { port: uplink.port.clone(), networks: uplink.networks.clone() };
    let uplinks = bridge.uplinks.iter().map(uplink).collect();
    let managed = ManagedBridge { datapath_type: bridge.datapath_type.clone(), uplinks, takeover: bridge.takeover };
    (bridge.name.clone(), managed)
}

fn user(key: &'static str, name: &str) -> Result<Option<u32>, ConfigError> {
    number(key, name, |name| Ok(User::from_name(name)?.map(|user| user.uid.as_raw())))
}

fn group(key: &'static str, name: &str) -> Result<Option<u32>, ConfigError> {
    number(key, name, |name| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())))
}

/// The number of a user or group that is given by name or number; `None` when none is given. The highest number is what
/// chown(2) takes for "as it is", and nobody's.
fn number(
    key: &'static str,
    name: &str,
    look_up: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<Option<u32>, ConfigError> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(number).filter(|number| *number != u32::MAX));
    }
    match look_up(name) {
        Ok(Some(number)) => Ok(Some(number)),
        Ok(None) => Err(ConfigError::Unresolved { key, reason: format!("\"{name}\" is not known on this host") }),
        Err(error) => Err(ConfigError::Unresolved { key, reason: format!("\"{name}\" cannot be looked up: {error}") }),
    }
}
