//! One wanted VIF, in os-vif's vocabulary, flattened. Reading it from its wire forms is `record`'s work.

use std::collections::BTreeMap;
use std::net::IpAddr;

use devlink::{FunctionAddress, PciAddress};
use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::{MacAddr, Rule, VifId};

/// A VIF that should exist on this host: os-vif's `VIFBase` and what vifd adds to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vif {
    /// Identity, unique on the host.
    pub id: VifId,
    /// The controller's own counter, given back in the status; 0 when it has none.
    pub generation: u64,
    /// The guest's address; null in os-vif for VIFs that have none.
    pub address: Option<MacAddr>,
    /// `false`: plugged, but kept administratively down. Only a native record says so: os-vif's plugin never reads
    /// the field, and Nova sends false when it plugs and does not send it again, so an os-vif object is active.
    pub active: bool,
    /// `true`: the host side stays when the VIF is unplugged. Only a native record says so: Nova means the neutron
    /// port by it.
    pub preserve_on_delete: bool,
    /// Whether the controller says that somebody filters this VIF's traffic. Reported, not acted on.
    pub has_traffic_filtering: bool,
    /// Name of the os-vif plugin that the record was made for.
    pub plugin: Option<String>,
    /// The type, with the fields that only this type has.
    pub kind: VifKind,
    /// The port profile; remote-managed VIFs have none.
    pub profile: Option<PortProfile>,
    /// The network; null in os-vif for VIFs that have none.
    pub network: Option<Network>,
    /// The guest that owns the VIF.
    pub instance: Option<Instance>,
    /// Security and rate policy of the record.
    pub policy: Policy,
    /// Set for a trunk's sub-port.
    pub parent: Option<Parent>,
}

impl Vif {
    /// The function that it has, where it is to have one.
    #[must_use]
    pub fn function(&self) -> Option<FunctionAddress> {
        match &self.kind {
            VifKind::HostDevice { dev_address, .. } => Some(dev_address.clone()),
            VifKind::Direct { dev_address, vlan_name: None, .. } => dev_address.clone(),
            VifKind::NestedDpdk { pci_address, .. } => Some((*pci_address).into()),
            _ => None,
        }
    }

    /// Whether a representor of its function is to be a port of Open vSwitch.
    #[must_use]
    pub fn wants_representor(&self) -> bool {
        let by_profile =
            |profile: &PortProfile| profile.kind.openvswitch().is_some() || profile.datapath_offload.is_some();
        matches!(self.kind, VifKind::HostDevice { .. }) && self.profile.as_ref().is_some_and(by_profile)
    }
}

/// The VIF types of os-vif, by their object names without `VIF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum VifKind {
    /// `VIFGeneric`: a tap that is attached to nothing.
    Generic {
        /// Name of the tap.
        vif_name: String,
    },
    /// `VIFBridge`: a device on a Linux bridge.
    Bridge {
        /// Name of the guest's device.
        vif_name: Option<String>,
        /// Name of the Linux bridge.
        bridge_name: Option<String>,
    },
    /// `VIFOpenVSwitch`: a port of an Open vSwitch bridge.
    OpenVSwitch {
        /// Name of the port and of its netdev.
        vif_name: String,
        /// Kept for display alone: like os-vif's plugin, vifd goes by `network.bridge`.
        bridge_name: Option<String>,
    },
    /// `VIFDirect`: macvtap over a physical or virtual function.
    Direct {
        /// Name of the macvtap.
        vif_name: Option<String>,
        /// Address of the function.
        dev_address: Option<FunctionAddress>,
        /// macvtap mode.
        mode: Option<DirectMode>,
        /// VLAN link to use instead of the function's own netdev.
        vlan_name: Option<String>,
    },
    /// `VIFVHostUser`: a vhost-user socket.
    VHostUser {
        /// Name from object version 1.1 on; the port's own name is `vhu` + id, as with os-vif.
        vif_name: Option<String>,
        /// Path of the socket.
        path: String,
        /// Who listens on the socket, seen from the guest.
        mode: VhostUserMode,
    },
    /// `VIFHostDevice`: a PCI function given to the guest.
    HostDevice {
        /// What the guest gets.
        dev_type: Option<DevType>,
        /// Address of the function.
        dev_address: FunctionAddress,
    },
    /// `VIFNestedDPDK`: a PCI function given to a DPDK application in a container.
    #[serde(rename = "nested_dpdk")]
    NestedDpdk {
        /// PCI address of the function.
        pci_address: PciAddress,
        /// Driver to bind it to.
        dev_driver: Option<String>,
    },
}

impl VifKind {
    /// Every native `type`.
    pub const TYPE_NAMES: [&'static str; 7] =
        ["generic", "bridge", "openvswitch", "direct", "vhostuser", "hostdevice", "nested_dpdk"];

    /// The os-vif object name, e.g. `VIFOpenVSwitch`.
    #[must_use]
    pub fn object_name(&self) -> &'static str {
        match self {
            VifKind::Generic { .. } => "VIFGeneric",
            VifKind::Bridge { .. } => "VIFBridge",
            VifKind::OpenVSwitch { .. } => "VIFOpenVSwitch",
            VifKind::Direct { .. } => "VIFDirect",
            VifKind::VHostUser { .. } => "VIFVHostUser",
            VifKind::HostDevice { .. } => "VIFHostDevice",
            VifKind::NestedDpdk { .. } => "VIFNestedDPDK",
        }
    }

    /// The native `type`, e.g. `openvswitch`; one of [`VifKind::TYPE_NAMES`].
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            VifKind::Generic { .. } => "generic",
            VifKind::Bridge { .. } => "bridge",
            VifKind::OpenVSwitch { .. } => "openvswitch",
            VifKind::Direct { .. } => "direct",
            VifKind::VHostUser { .. } => "vhostuser",
            VifKind::HostDevice { .. } => "hostdevice",
            VifKind::NestedDpdk { .. } => "nested_dpdk",
        }
    }
}

/// Modes of `VIFDirect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectMode {
    /// Through the adjacent switch.
    Vepa,
    /// The whole function for one guest.
    Passthrough,
    /// Guests of one function reach each other locally.
    Bridge,
}

impl DirectMode {
    /// The mode as os-vif calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DirectMode::Vepa => "vepa",
            DirectMode::Passthrough => "passthrough",
            DirectMode::Bridge => "bridge",
        }
    }
}

/// Modes of `VIFVHostUser`, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VhostUserMode {
    /// The guest connects; Open vSwitch listens (`dpdkvhostuser`).
    Client,
    /// The guest listens; Open vSwitch connects (`dpdkvhostuserclient`).
    Server,
}

/// Kinds of `VIFHostDevice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DevType {
    /// The host's network driver keeps the function until the guest takes it.
    Ethernet,
    /// Bound to `vfio-pci`.
    Generic,
}

/// A port profile: what kind, and the offload that every kind may carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortProfile {
    /// The kind with its own fields.
    #[serde(flatten)]
    pub kind: ProfileKind,
    /// `datapath_offload` of the base profile.
    pub datapath_offload: Option<DatapathOffload>,
}

/// The port profiles of os-vif, by their object names without `VIFPortProfile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum ProfileKind {
    /// `VIFPortProfileBase`, which alone says nothing.
    #[serde(rename = "base")]
    Base,
    /// `VIFPortProfileOpenVSwitch`.
    #[serde(rename = "openvswitch")]
    OpenVSwitch(OpenVSwitchProfile),
    /// `VIFPortProfileFPOpenVSwitch`.
    #[serde(rename = "fp_openvswitch")]
    FpOpenVSwitch {
        /// The part it shares with `OpenVSwitch`.
        #[serde(flatten)]
        ovs: OpenVSwitchProfile,
        /// Bridge of the fast path.
        bridge_name: Option<String>,
        /// Whether a bridge of its own stands in between.
        hybrid_plug: bool,
    },
    /// `VIFPortProfileOVSRepresentor`.
    #[serde(rename = "ovs_representor")]
    OvsRepresentor {
        /// The part it shares with `OpenVSwitch`.
        #[serde(flatten)]
        ovs: OpenVSwitchProfile,
        /// Name to give the representor.
        representor_name: Option<String>,
        /// Address of the function whose representor is meant.
        representor_address: Option<PciAddress>,
    },
    /// `VIFPortProfileFPBridge`.
    #[serde(rename = "fp_bridge")]
    FpBridge {
        /// Linux bridge.
        bridge_name: String,
    },
    /// `VIFPortProfileFPTap`.
    #[serde(rename = "fp_tap")]
    FpTap {
        /// Address of the routed tap.
        mac_address: Option<MacAddr>,
    },
    /// `VIFPortProfile8021Qbg`.
    #[serde(rename = "8021qbg")]
    Qbg {
        /// VSI manager.
        manager_id: u8,
        /// VSI type, 24 bits.
        type_id: u32,
        /// VSI type version.
        type_id_version: u8,
        /// VSI instance; the VIF's id when absent.
        instance_id: Option<Uuid>,
    },
    /// `VIFPortProfile8021Qbh`.
    #[serde(rename = "8021qbh")]
    Qbh {
        /// Name of the port profile, at most 39 bytes.
        profile_id: String,
    },
    /// `VIFPortProfileK8sDPDK`.
    #[serde(rename = "k8s_dpdk")]
    K8sDpdk {
        /// Whether the pod wants layer 3 set up.
        l3_setup: Option<bool>,
        /// The pod's self link.
        selflink: Option<String>,
        /// The pod's resource version.
        resourceversion: Option<String>,
    },
}

impl ProfileKind {
    /// The Open vSwitch part, for the profiles that have one.
    #[must_use]
    pub fn openvswitch(&self) -> Option<&OpenVSwitchProfile> {
        match self {
            ProfileKind::OpenVSwitch(ovs)
            | ProfileKind::FpOpenVSwitch { ovs, .. }
            | ProfileKind::OvsRepresentor { ovs, .. } => Some(ovs),
            _ => None,
        }
    }

    /// The os-vif object name, e.g. `VIFPortProfileOpenVSwitch`.
    #[must_use]
    pub fn object_name(&self) -> &'static str {
        match self {
            ProfileKind::Base => "VIFPortProfileBase",
            ProfileKind::OpenVSwitch(_) => "VIFPortProfileOpenVSwitch",
            ProfileKind::FpOpenVSwitch { .. } => "VIFPortProfileFPOpenVSwitch",
            ProfileKind::OvsRepresentor { .. } => "VIFPortProfileOVSRepresentor",
            ProfileKind::FpBridge { .. } => "VIFPortProfileFPBridge",
            ProfileKind::FpTap { .. } => "VIFPortProfileFPTap",
            ProfileKind::Qbg { .. } => "VIFPortProfile8021Qbg",
            ProfileKind::Qbh { .. } => "VIFPortProfile8021Qbh",
            ProfileKind::K8sDpdk { .. } => "VIFPortProfileK8sDPDK",
        }
    }
}

/// Fields of `VIFPortProfileOpenVSwitch`. A field that was absent has os-vif's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpenVSwitchProfile {
    /// Written as `external_ids:iface-id`, letter by letter, since others look for it; the VIF's id when
    /// absent. os-vif calls it a UUID and takes any text.
    pub interface_id: Option<String>,
    /// Opaque to Open vSwitch.
    pub profile_id: Option<String>,
    /// `datapath_type` of a bridge that has to be made.
    pub datapath_type: Option<String>,
    /// Whether vifd makes the port (otherwise the hypervisor does).
    pub create_port: bool,
    /// Whether vifd makes the tap as well.
    pub create_tap: bool,
    /// Whether that tap has several queues (`IFF_MULTI_QUEUE`).
    pub multiqueue: bool,
}

/// `DatapathOffloadRepresentor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatapathOffload {
    /// Name to give the representor.
    pub representor_name: Option<String>,
    /// Address of the function whose representor is meant. A PCI address in most records, any text in os-vif.
    pub representor_address: Option<String>,
}

/// `Network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Identity. os-vif plugs without it, and so do we: such a VIF shares its network with no other.
    pub id: Option<Uuid>,
    /// Name of the bridge that VIFs of this network are plugged into.
    pub bridge: Option<String>,
    /// For people.
    pub label: Option<String>,
    /// Octets; from object version 1.1 on.
    pub mtu: Option<u32>,
    /// 1 to 4094.
    pub vlan: Option<u16>,
    /// Device that a bridge made here gets as its uplink.
    pub bridge_interface: Option<String>,
    /// nova-network's multi-host mode.
    pub multi_host: bool,
    /// Whether the bridge has to be made here.
    pub should_provide_bridge: bool,
    /// Whether the VLAN link has to be made here.
    pub should_provide_vlan: bool,
    /// The subnets with this VIF's fixed addresses.
    pub subnets: Vec<Subnet>,
}

/// `Subnet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subnet {
    /// Prefix.
    pub cidr: Option<IpNet>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
    /// Addresses of this VIF.
    pub ips: Vec<FixedIp>,
    /// Routes handed to the guest.
    pub routes: Vec<Route>,
    /// DHCP server.
    pub dhcp_server: Option<IpAddr>,
}

/// `FixedIP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FixedIp {
    /// The address on the network.
    pub address: IpAddr,
    /// Addresses that are translated to it elsewhere.
    pub floating_ips: Vec<IpAddr>,
}

/// `Route`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Destination.
    pub cidr: IpNet,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Device; Nova never sets it.
    pub interface: Option<String>,
}

/// `InstanceInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Identity; written as `external_ids:vm-uuid` and `vm-id`. Not always a UUID outside OpenStack.
    pub uuid: String,
    /// For people.
    pub name: Option<String>,
    /// Tenant.
    pub project_id: Option<String>,
}

/// The `policy` of a record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// Absent means true.
    pub port_security: bool,
    /// Stateful rules, which let pass what they name; whatever none of them names is dropped, in both directions.
    /// `None` for a VIF whose traffic is not filtered, which an empty list does not mean.
    pub rules: Option<Vec<Rule>>,
    /// Names of the groups that the VIF's addresses are in.
    pub groups: Vec<String>,
    /// Members of groups that are not VIFs of this host, by the names of the groups.
    pub group_members: BTreeMap<String, Vec<IpNet>>,
    /// Further addresses that the guest may use.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Rate limits.
    pub rate: Rate,
    /// Trust of an SR-IOV function.
    pub trust: bool,
    /// Spoof check of an SR-IOV function.
    pub spoof_check: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            port_security: true,
            rules: None,
            groups: Vec::new(),
            group_members: BTreeMap::new(),
            allowed_address_pairs: Vec::new(),
            rate: Rate::default(),
            trust: false,
            spoof_check: true,
        }
    }
}

/// A further address that a guest may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressPair {
    /// The VIF's own when absent.
    pub mac: Option<MacAddr>,
    /// Address or prefix.
    pub ip: Option<IpNet>,
}

/// Rate limits in kbit/s, 0 for none. Ingress is towards the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// Towards the guest.
    pub ingress_kbps: u64,
    /// From the guest.
    pub egress_kbps: u64,
}

/// The trunk that a sub-port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Parent {
    /// The trunk's VIF.
    pub vif: VifId,
    /// VLAN of the sub-port on the trunk, 1 to 4094.
    pub vlan: u16,
}
