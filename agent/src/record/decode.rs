//! From the objects of a record to a [`Vif`]. What a value may be by itself is settled here and in `node`;
//! what the values mean together in `validate`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;

use super::node::{Fault, Node, Warnings};
use super::shape::Family;
use crate::model::{
    AddressPair, DatapathOffload, DevType, DirectMode, Direction, Ethertype, FixedIp, Instance, Network,
    OpenVSwitchProfile, Parent, Policy, PortProfile, ProfileKind, Rate, Route, Rule, Subnet, VhostUserMode, Vif, VifId,
    VifKind,
};

/// Words of `VIFDirect.mode`.
pub(super) const DIRECT_MODES: &[(&str, DirectMode)] =
    &[("vepa", DirectMode::Vepa), ("passthrough", DirectMode::Passthrough), ("bridge", DirectMode::Bridge)];
/// Words of `VIFVHostUser.mode`.
pub(super) const VHOST_USER_MODES: &[(&str, VhostUserMode)] =
    &[("client", VhostUserMode::Client), ("server", VhostUserMode::Server)];
/// Words of `VIFHostDevice.dev_type`.
pub(super) const DEV_TYPES: &[(&str, DevType)] = &[("ethernet", DevType::Ethernet), ("generic", DevType::Generic)];

/// Words of a rule's `direction`.
pub(super) const DIRECTIONS: &[(&str, Direction)] = &[("ingress", Direction::Ingress), ("egress", Direction::Egress)];
/// Words of a rule's `ethertype`.
pub(super) const ETHERTYPES: &[(&str, Ethertype)] = &[("IPv4", Ethertype::IPv4), ("IPv6", Ethertype::IPv6)];

/// The whole record.
pub(super) fn record(value: &Value, warnings: &Warnings) -> Result<Vif, Fault> {
    let record = Node::open(value, Family::Record, String::new(), warnings)?;
    let vif = record.child("vif")?;
    let vif = record.required("vif", vif)?;
    Ok(Vif {
        id: id(&vif, "id")?,
        generation: record.number("generation")?.unwrap_or(0),
        address: vif.parsed("address")?,
        // os-vif's plugin reads neither, and what Nova puts in them means something else.
        active: vif.flag("active", true)? || vif.is_os_vif(),
        preserve_on_delete: vif.flag("preserve_on_delete", false)? && !vif.is_os_vif(),
        has_traffic_filtering: vif.flag("has_traffic_filtering", false)?,
        plugin: vif.text("plugin")?,
        kind: kind(&vif)?,
        profile: vif.child("port_profile")?.map(|node| profile(&node)).transpose()?,
        network: vif.child("network")?.map(|node| network(&node)).transpose()?,
        instance: record.child("instance")?.map(|node| instance(&node)).transpose()?,
        policy: record.child("policy")?.map(|node| policy(&node)).transpose()?.unwrap_or_default(),
        parent: record.child("parent")?.map(|node| parent(&node)).transpose()?,
    })
}

/// A field that nothing can do without.
fn need<T: FromStr>(node: &Node<'_>, name: &str) -> Result<T, Fault> {
    node.required(name, node.parsed(name)?)
}

fn need_text(node: &Node<'_>, name: &str) -> Result<String, Fault> {
    node.required(name, node.text(name)?)
}

fn id(node: &Node<'_>, name: &str) -> Result<VifId, Fault> {
    need(node, name)
}

fn kind(vif: &Node<'_>) -> Result<VifKind, Fault> {
    Ok(match vif.object().tag.unwrap_or_default() {
        "generic" => VifKind::Generic { vif_name: need_text(vif, "vif_name")? },
        "bridge" => VifKind::Bridge { vif_name: vif.text("vif_name")?, bridge_name: vif.text("bridge_name")? },
        "openvswitch" => {
            VifKind::OpenVSwitch { vif_name: need_text(vif, "vif_name")?, bridge_name: vif.text("bridge_name")? }
        }
        "direct" => VifKind::Direct {
            vif_name: vif.text("vif_name")?,
            dev_address: vif.parsed("dev_address")?,
            mode: vif.word("mode", DIRECT_MODES)?,
            vlan_name: vif.text("vlan_name")?,
        },
        "vhostuser" => VifKind::VHostUser {
            vif_name: vif.text("vif_name")?,
            path: need_text(vif, "path")?,
            mode: vif.required("mode", vif.word("mode", VHOST_USER_MODES)?)?,
        },
        "hostdevice" => {
            VifKind::HostDevice { dev_type: vif.word("dev_type", DEV_TYPES)?, dev_address: need(vif, "dev_address")? }
        }
        "nested_dpdk" => {
            VifKind::NestedDpdk { pci_address: need(vif, "pci_address")?, dev_driver: vif.text("dev_driver")? }
        }
        other => return Err(Fault::new(vif.at("type"), format_args!("VIFs of type {other} cannot be read"))),
    })
}

fn profile(node: &Node<'_>) -> Result<PortProfile, Fault> {
    let kind = match node.object().tag.unwrap_or_default() {
        "base" => ProfileKind::Base,
        "openvswitch" => ProfileKind::OpenVSwitch(openvswitch_profile(node)?),
        "fp_openvswitch" => ProfileKind::FpOpenVSwitch {
            ovs: openvswitch_profile(node)?,
            bridge_name: node.text("bridge_name")?,
            hybrid_plug: node.flag("hybrid_plug", false)?,
        },
        "ovs_representor" => ProfileKind::OvsRepresentor {
            ovs: openvswitch_profile(node)?,
            representor_name: node.text("representor_name")?,
            representor_address: node.parsed("representor_address")?,
        },
        "fp_bridge" => ProfileKind::FpBridge { bridge_name: need_text(node, "bridge_name")? },
        "fp_tap" => ProfileKind::FpTap { mac_address: node.parsed("mac_address")? },
        "8021qbg" => ProfileKind::Qbg {
            manager_id: node.required("manager_id", node.number("manager_id")?)?,
            type_id: node.required("type_id", node.number("type_id")?)?,
            type_id_version: node.required("type_id_version", node.number("type_id_version")?)?,
            instance_id: node.parsed("instance_id")?,
        },
        "8021qbh" => ProfileKind::Qbh { profile_id: need_text(node, "profile_id")? },
        "k8s_dpdk" => ProfileKind::K8sDpdk {
            l3_setup: node.optional_flag("l3_setup")?,
            selflink: node.text("selflink")?,
            resourceversion: node.text("resourceversion")?,
        },
        other => return Err(Fault::new(node.at("type"), format_args!("port profile {other} cannot be read"))),
    };
    let datapath_offload = match node.child("datapath_offload")? {
        None => None,
        Some(offload) => Some(DatapathOffload {
            representor_name: offload.text("representor_name")?,
            representor_address: offload.text("representor_address")?,
        }),
    };
    Ok(PortProfile { kind, datapath_offload })
}

fn openvswitch_profile(node: &Node<'_>) -> Result<OpenVSwitchProfile, Fault> {
    Ok(OpenVSwitchProfile {
        interface_id: node.text("interface_id")?,
        profile_id: node.text("profile_id")?,
        datapath_type: node.text("datapath_type")?,
        create_port: node.flag("create_port", false)?,
        create_tap: node.flag("create_tap", false)?,
        multiqueue: node.flag("multiqueue", false)?,
    })
}

fn network(node: &Node<'_>) -> Result<Network, Fault> {
    Ok(Network {
        id: node.parsed("id")?,
        bridge: node.text("bridge")?,
        label: node.text("label")?,
        // os-vif falls back to its configured MTU for 0 as it does for null.
        mtu: if node.is_zero("mtu") { None } else { node.number("mtu")? },
        vlan: node.number("vlan")?,
        bridge_interface: node.text("bridge_interface")?,
        multi_host: node.flag("multi_host", false)?,
        should_provide_bridge: node.flag("should_provide_bridge", false)?,
        should_provide_vlan: node.flag("should_provide_vlan", false)?,
        subnets: each(&node.children("subnets")?, subnet)?,
    })
}

/// What `read` makes of each. Room is made for so many and no more: records are kept for long.
fn each<'a, T>(nodes: &[Node<'a>], read: impl Fn(&Node<'a>) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let mut all = Vec::with_capacity(nodes.len());
    for node in nodes {
        all.push(read(node)?);
    }
    Ok(all)
}

fn subnet(node: &Node<'_>) -> Result<Subnet, Fault> {
    Ok(Subnet {
        cidr: node.parsed("cidr")?,
        dns: node.parsed_list("dns")?,
        gateway: node.parsed("gateway")?,
        ips: each(&node.children("ips")?, fixed_ip)?,
        routes: each(&node.children("routes")?, route)?,
        dhcp_server: node.parsed("dhcp_server")?,
    })
}

fn fixed_ip(node: &Node<'_>) -> Result<FixedIp, Fault> {
    Ok(FixedIp { address: need(node, "address")?, floating_ips: node.parsed_list("floating_ips")? })
}

fn route(node: &Node<'_>) -> Result<Route, Fault> {
    Ok(Route { cidr: need(node, "cidr")?, gateway: node.parsed("gateway")?, interface: node.text("interface")? })
}

fn instance(node: &Node<'_>) -> Result<Instance, Fault> {
    Ok(Instance { uuid: need_text(node, "uuid")?, name: node.text("name")?, project_id: node.text("project_id")? })
}

fn policy(node: &Node<'_>) -> Result<Policy, Fault> {
    let defaults = Policy::default();
    Ok(Policy {
        port_security: node.flag("port_security", defaults.port_security)?,
        rules: match node.has("rules") {
            true => Some(node.children("rules")?.iter().map(rule).collect::<Result<_, _>>()?),
            false => None,
        },
        groups: node.texts("groups")?,
        group_members: node
            .lists::<AddressOrPrefix>("group_members")?
            .map(|(name, members)| (name, members.into_iter().map(|member| member.0).collect()))
            .collect(),
        allowed_address_pairs: each(&node.children("allowed_address_pairs")?, address_pair)?,
        rate: node.child("rate")?.map(|node| rate(&node)).transpose()?.unwrap_or_default(),
        trust: node.flag("trust", defaults.trust)?,
        spoof_check: node.flag("spoof_check", defaults.spoof_check)?,
    })
}

fn rule(node: &Node<'_>) -> Result<Rule, Fault> {
    Ok(Rule {
        direction: node.required("direction", node.word("direction", DIRECTIONS)?)?,
        ethertype: node.word("ethertype", ETHERTYPES)?.unwrap_or_default(),
        protocol: node.protocol("protocol")?,
        port_min: node.number("port_min")?,
        port_max: node.number("port_max")?,
        remote_ip_prefix: node.parsed::<AddressOrPrefix>("remote_ip_prefix")?.map(|ip| ip.0),
        remote_group: node.text("remote_group")?,
        description: node.text("description")?,
    })
}

fn address_pair(node: &Node<'_>) -> Result<AddressPair, Fault> {
    Ok(AddressPair { mac: node.parsed("mac")?, ip: node.parsed::<AddressOrPrefix>("ip")?.map(|ip| ip.0) })
}

fn rate(node: &Node<'_>) -> Result<Rate, Fault> {
    Ok(Rate {
        ingress_kbps: node.number("ingress_kbps")?.unwrap_or(0),
        egress_kbps: node.number("egress_kbps")?.unwrap_or(0),
    })
}

fn parent(node: &Node<'_>) -> Result<Parent, Fault> {
    Ok(Parent { vif: id(node, "vif")?, vlan: node.required("vlan", node.number("vlan")?)? })
}

/// A prefix, or an address as the prefix that holds it alone.
struct AddressOrPrefix(IpNet);

impl FromStr for AddressOrPrefix {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(AddressOrPrefix(address.into())),
            Err(_) => text.parse().map(AddressOrPrefix),
        }
    }
}
