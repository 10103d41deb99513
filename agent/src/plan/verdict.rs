//! What the planner says of one VIF.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::holds::{Cause, Hold};
use crate::model::MacAddr;
use crate::offload::{Expectation, OffloadCounts};

/// Name of a backend, as in metrics: `ovsdb`, `links`, `nics`, `openflow`.
pub type BackendName = &'static str;

/// The planner's word on one VIF.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The port is usable: traffic can pass.
    Ready,
    /// All that vifd itself can do is done; the hypervisor or the guest has to bring the rest.
    Plugged(Missing),
    /// Operations are on their way.
    Working,
    /// Something that vifd does not make has to come first, and vifd has work left after it.
    Waiting(Missing),
    /// The record cannot be honoured: `field` says which part of it, `reason` why.
    Rejected {
        /// Path of the field in the record.
        field: String,
        /// One sentence.
        reason: String,
    },
    /// What the record wants is taken by somebody else. Shown, never overwritten.
    Conflict {
        /// One sentence: what, where, whose.
        reason: String,
    },
    /// The switch or the kernel has the port and cannot make it work, in its own words.
    Failed {
        /// One sentence.
        reason: String,
    },
    /// The port works, and some of the flows that the VIF wants cannot be had: something that they take is used up or
    /// not there.
    FlowsFailed {
        /// One sentence.
        reason: String,
    },
    /// An operation was refused, or is undone by somebody again and again; it is tried again at `until`.
    Held {
        /// Which of the two.
        cause: Cause,
        /// The peer's words, or what was undone.
        error: String,
        /// Which backend it is for.
        backend: BackendName,
        /// When it is tried again.
        until: Instant,
    },
    /// Nobody wants it any more and it is being removed.
    Removing,
    /// Nobody wants it any more, but removals are stopped: see `max_removals`.
    RemovalStopped,
    /// Left alone on request (`vifd pause`).
    Paused {
        /// Whether everything is; otherwise this VIF by itself.
        all: bool,
    },
}

impl Verdict {
    /// Whether all that is missing is the hypervisor's to bring, as while a guest is stopped.
    #[must_use]
    pub fn is_hypervisors_turn(&self) -> bool {
        let brings = |missing: &Missing| matches!(missing, Missing::HypervisorPort { .. } | Missing::Netdev(_));
        matches!(self, Verdict::Plugged(_)) || matches!(self, Verdict::Waiting(missing) if brings(missing))
    }

    pub(super) fn of_hold(hold: &Hold, backend: BackendName) -> Self {
        Verdict::Held { cause: hold.cause, error: hold.error.clone(), backend, until: hold.until }
    }
}

/// What a VIF waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A view that is being synchronised.
    View(BackendName),
    /// The whole set of records: what is on the host without one may still have one.
    Records,
    /// ovs-vswitchd, which is not running.
    Vswitchd,
    /// The port that the hypervisor makes, with the bridge that it belongs to.
    HypervisorPort {
        /// Name of the port.
        port: String,
        /// Name of the bridge.
        bridge: String,
    },
    /// The netdev that the hypervisor makes.
    Netdev(String),
    /// The character device of a macvtap, by its path.
    Device(String),
    /// ovs-vswitchd has not answered for this port yet.
    Ofport(String),
    /// ovs-vswitchd has not made the bridge of the port.
    Bridge {
        /// Name of the bridge.
        bridge: String,
        /// Its `datapath_type`, `system` when that is empty.
        datapath_type: String,
    },
    /// An object that another VIF of ours still has; the sentence says which.
    Busy(String),
    /// The switch of this bridge cannot be seen: its session is being made, or saved flows are being put back.
    Switch(String),
    /// The port, or the device of the kernel's, by which the VIF's network leaves the host; the sentence says what is
    /// missing.
    Uplink(String),
    /// The function that the VIF is to have, or what of its NIC it takes; the sentence says what is missing.
    Function(String),
    /// The trunk of a sub-port; the sentence says which and what it lacks.
    Parent(String),
    /// The guest is connected to this vhost-user port and the port is down all the same: ovs-vswitchd could not
    /// get it a memory pool, which only its log tells.
    VhostLink(String),
}

/// What is known of one VIF beside the verdict: the raw material of its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The word.
    pub verdict: Verdict,
    /// Whether the kernel links are as wanted; `None` when the VIF has none.
    pub link_ready: Option<bool>,
    /// Whether the port is usable; `None` when the VIF has none.
    pub port_ready: Option<bool>,
    /// Whether all flows that it needs are in the switch; `None` when vifd makes none for it.
    pub flows_ready: Option<bool>,
    /// Whether the guest is connected; `None` when the VIF is not a vhost-user one.
    pub vhost_connected: Option<bool>,
    /// Whether all that vifd itself can do is done.
    pub plugged: bool,
    /// Where its flows are to be in hardware: by which port, and what is known of that; `None` when they need not be.
    pub offload: Option<Box<Expectation>>,
    /// What was seen.
    pub facts: Arc<Facts>,
}

impl Facts {
    /// What people know the VIF by on this host: its port, with the VLAN of a sub-port behind a dot, or its netdev, or
    /// the guest's device.
    #[must_use]
    pub fn name(&self) -> Option<Cow<'_, str>> {
        match (&self.port, self.vlan) {
            (Some(port), Some(vlan)) => Some(format!("{port}.{vlan}").into()),
            (port, _) => port.as_deref().or(self.netdev.as_deref()).or(self.guest_device.as_deref()).map(Cow::Borrowed),
        }
    }

    /// Whether `bridge` is the one that the VIF is on, of Open vSwitch or of the kernel.
    #[must_use]
    pub fn is_on(&self, bridge: &str) -> bool {
        [&self.bridge, &self.linux_bridge].into_iter().any(|on| on.as_deref() == Some(bridge))
    }
}

/// What was seen of a VIF on the host, and where what is wanted of it is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Open vSwitch bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Port on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// VLAN of a sub-port on `port`, which is its trunk's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// OpenFlow port number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ofport: Option<i64>,
    /// `Interface.type`, `system` when that is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_type: Option<String>,
    /// Kernel netdev.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// Device of the guest's that the hypervisor makes and vifd puts into `linux_bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_device: Option<String>,
    /// Linux bridge that the VIF is in: its network's, or the one of its own in front of `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux_bridge: Option<String>,
    /// Link by which `linux_bridge` leads out of the host, or that a macvtap stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// vhost-user socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Path of the character device by which the hypervisor opens a macvtap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The function of a NIC that the guest has, by its PCI address or in devlink's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// devlink handle of that NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// Netdev that represents the function on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor: Option<String>,
    /// Driver that the function is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// What the switch is asked for on the guest's behalf (802.1Qbg, 802.1Qbh), and at which link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub association: Option<String>,
    /// The guest's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// MTU in force, octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Connection tracking zone of its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// How many of its flows are in hardware; known after the datapath was looked at, and not to the planner.
    #[serde(flatten)]
    pub offload: Option<Box<OffloadCounts>>,
    /// Which of `bridge`, `port`, `netdev`, `guest_device`, `linux_bridge` and `uplink` are wanted and were not seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Cow<'static, str>>,
}
