//! Whether one VIF makes sense: values that the kernel or Open vSwitch would not take, fields that its type
//! and profile need together; and what is allowed and hardly meant, of one and of several. Pure. Clashes between VIFs are `clashes`'s business; what is on the host,
//! the planner's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use uuid::Uuid;

use super::node::Warnings;
use super::{Fault, Warning};
use crate::model::{
    Ethertype, FixedIp, IFNAMSIZ, MacAddr, OpenVSwitchProfile, Policy, ProfileKind, Protocol, Rule, Vif, VifId, VifKind,
};

/// Longest path of a unix socket: `sun_path` of `sockaddr_un` without its closing NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// Longest 802.1Qbh profile name: `PORT_PROFILE_MAX` of `linux/if_link.h` without its closing NUL.
const MAX_PORT_PROFILE: usize = 39;
/// Longest value that goes into `external_ids`: generous for people, small for a database.
const MAX_EXTERNAL_ID: usize = 255;

/// Most rules of one VIF: a rule may be 30 flows, and a switch has other VIFs.
const MAX_RULES: usize = 1000;

const OPENVSWITCH_PROFILES: [&str; 3] =
    ["VIFPortProfileOpenVSwitch", "VIFPortProfileFPOpenVSwitch", "VIFPortProfileOVSRepresentor"];

/// The port profiles that go with a VIF type, both by their os-vif names, and whether the type can be
/// without one. `VIFPortProfileBase`, which says nothing, counts as none.
#[must_use]
pub fn profiles_of(object: &str) -> (&'static [&'static str], bool) {
    match object {
        "VIFOpenVSwitch" => (&OPENVSWITCH_PROFILES, false),
        "VIFBridge" | "VIFHostDevice" | "VIFGeneric" => (&OPENVSWITCH_PROFILES, true),
        "VIFVHostUser" => (
            &[
                "VIFPortProfileOpenVSwitch",
                "VIFPortProfileFPOpenVSwitch",
                "VIFPortProfileOVSRepresentor",
                "VIFPortProfileFPBridge",
                "VIFPortProfileFPTap",
            ],
            false,
        ),
        "VIFDirect" => (&["VIFPortProfile8021Qbg", "VIFPortProfile8021Qbh"], true),
        "VIFNestedDPDK" => (&["VIFPortProfileK8sDPDK"], true),
        _ => (&[], true),
    }
}

/// What the host's configuration allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The directory below which vhost-user sockets are allowed: `vhostuser.dir`.
    pub socket_dir: PathBuf,
}

/// Whether `path` is somewhere below `directory`, as both are written and without a step back up.
#[must_use]
pub fn is_below(path: &Path, directory: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain && path.strip_prefix(directory).is_ok_and(|rest| rest.components().next().is_some())
}

/// Checks a VIF against the configuration.
///
/// Paths are compared as they are written: `/run` and `/var/run` are two, as they are to whoever else looks
/// for the socket by its path.
///
/// # Errors
/// The first field that is not allowed here.
pub fn against_host(vif: &Vif, limits: &Limits) -> Result<(), Fault> {
    let VifKind::VHostUser { path, .. } = &vif.kind else { return Ok(()) };
    if is_below(Path::new(path), &limits.socket_dir) {
        return Ok(());
    }
    let dir = limits.socket_dir.display();
    Err(Fault::new("vif.path", format_args!("is not below {dir}, where sockets are allowed (vhostuser.dir)")))
}

/// Checks a VIF by itself. [`super::decode`] has done this for every VIF that it returns.
///
/// # Errors
/// The first field that is wrong.
pub fn check(vif: &Vif) -> Result<(), Fault> {
    if let Some(address) = vif.address {
        mac("vif.address", address)?;
    }
    network(vif)?;
    profile(vif)?;
    kind(vif)?;
    if let Some(instance) = &vif.instance
        && instance.uuid.len() > MAX_EXTERNAL_ID
    {
        return Err(Fault::new("instance.uuid", format_args!("is longer than {MAX_EXTERNAL_ID} bytes")));
    }
    for (at, pair) in vif.policy.allowed_address_pairs.iter().enumerate() {
        let path = format!("policy.allowed_address_pairs[{at}]");
        match (pair.mac, pair.ip) {
            (None, None) => return Err(Fault::new(path, "needs a mac, an ip, or both")),
            (Some(address), _) => mac(&format!("{path}.mac"), address)?,
            (None, Some(_)) => {}
        }
    }
    rules(&vif.policy)?;
    if vif.parent.is_some_and(|parent| parent.vif == vif.id) {
        return Err(Fault::new("parent.vif", "is the VIF itself"));
    }
    Ok(())
}

/// Whether no VIF of this type and profile has a port on a bridge whose flows vifd may make.
fn has_no_flows(vif: &Vif) -> bool {
    match (&vif.kind, vif.profile.as_ref().map(|profile| &profile.kind)) {
        (VifKind::Generic { .. } | VifKind::Direct { .. }, _) => true,
        (VifKind::Bridge { .. }, profile) => matches!(profile, None | Some(ProfileKind::Base)),
        (_, profile) => matches!(profile, Some(ProfileKind::FpBridge { .. } | ProfileKind::FpTap { .. })),
    }
}

/// What is allowed in a VIF and hardly meant.
pub(super) fn doubt(vif: &Vif, warnings: &Warnings) {
    let host_bits = |field: String, prefix: IpNet| {
        if prefix.trunc() != prefix {
            warnings.add(field, format!("{prefix} has bits behind its prefix; it is taken for {}", prefix.trunc()));
        }
    };
    let mut seen = BTreeSet::new();
    let subnets = vif.network.iter().flat_map(|network| &network.subnets);
    for (at, subnet) in subnets.enumerate() {
        let path = format!("vif.network.subnets[{at}]");
        if let Some(cidr) = subnet.cidr
            && cidr.trunc() != cidr
        {
            warnings.add(format!("{path}.cidr"), format!("{cidr} is an address; its subnet is {}", cidr.trunc()));
        }
        for (at, ip) in subnet.ips.iter().enumerate() {
            let field = format!("{path}.ips[{at}].address");
            if let Some(cidr) = subnet.cidr.filter(|cidr| !cidr.contains(&ip.address)) {
                warnings.add(field.clone(), format!("{} is not in {}, the subnet's cidr", ip.address, cidr.trunc()));
            }
            if !seen.insert(ip.address) {
                warnings.add(field, format!("{} is there twice", ip.address));
            }
        }
    }
    if has_no_flows(vif) {
        let (rate, name) = (&vif.policy.rate, vif.kind.type_name());
        let wishes = [("rules", vif.policy.rules.is_some()), ("rate", rate.ingress_kbps > 0 || rate.egress_kbps > 0)];
        for (field, _) in wishes.into_iter().filter(|(_, wished)| *wished) {
            warnings.add(
                format!("policy.{field}"),
                format!("a {name} VIF has no flows of vifd's: policy.{field} is of no effect"),
            );
        }
    }
    for (at, pair) in vif.policy.allowed_address_pairs.iter().enumerate() {
        pair.ip.into_iter().for_each(|ip| host_bits(format!("policy.allowed_address_pairs[{at}].ip"), ip));
    }
    for (at, rule) in vif.policy.rules.iter().flatten().enumerate() {
        let prefix = rule.remote_ip_prefix.into_iter();
        prefix.for_each(|prefix| host_bits(format!("policy.rules[{at}].remote_ip_prefix"), prefix));
    }
}

/// What is allowed in several VIFs and hardly meant: one address for two of a network.
#[must_use]
pub fn doubts(vifs: &BTreeMap<VifId, Arc<Vif>>) -> BTreeMap<VifId, Vec<Warning>> {
    let mut found: BTreeMap<VifId, Vec<Warning>> = BTreeMap::new();
    let mut holders: HashMap<(Uuid, IpAddr), VifId> = HashMap::new();
    for (id, vif) in vifs {
        let mut doubt = |field: String, message: String| found.entry(*id).or_default().push(Warning { field, message });
        if let Some((key, network)) = vif.network.as_ref().and_then(|network| Some((network.id?, network))) {
            for (at, subnet) in network.subnets.iter().enumerate() {
                for (ip, FixedIp { address, .. }) in subnet.ips.iter().enumerate() {
                    let other = *holders.entry((key, *address)).or_insert(*id);
                    if other != *id {
                        let field = format!("vif.network.subnets[{at}].ips[{ip}].address");
                        doubt(field, format!("VIF {other} has the address {address} on this network, too"));
                    }
                }
            }
        }
    }
    found
}

/// Rules for groups that nobody of these VIFs is in. On a host that is as it should be when the others are elsewhere; in
/// records that are looked at together because they belong together it may be a name misspelt.
#[must_use]
pub fn empty_groups(vifs: &BTreeMap<VifId, Arc<Vif>>) -> BTreeMap<VifId, Vec<Warning>> {
    let policies = || vifs.values().map(|vif| &vif.policy);
    let mut groups: BTreeSet<&str> = policies().flat_map(|policy| &policy.groups).map(String::as_str).collect();
    groups.extend(policies().flat_map(|policy| policy.group_members.keys()).map(String::as_str));
    let mut found: BTreeMap<VifId, Vec<Warning>> = BTreeMap::new();
    for (id, vif) in vifs {
        for (at, rule) in vif.policy.rules.iter().flatten().enumerate() {
            if let Some(group) = rule.remote_group.as_deref().filter(|group| !groups.contains(group)) {
                let field = format!("policy.rules[{at}].remote_group");
                let message = format!("none of these records has anybody in the group {group:?}");
                found.entry(*id).or_default().push(Warning { field, message });
            }
        }
    }
    found
}

fn rules(policy: &Policy) -> Result<(), Fault> {
    let listed = policy.rules.as_deref().unwrap_or_default();
    if listed.len() > MAX_RULES {
        return Err(Fault::new("policy.rules", format_args!("are {} and may be {MAX_RULES}", listed.len())));
    }
    for (at, listed) in listed.iter().enumerate() {
        rule(&format!("policy.rules[{at}]"), listed)?;
    }
    for (at, name) in policy.groups.iter().enumerate() {
        group(&format!("policy.groups[{at}]"), name)?;
    }
    policy.group_members.keys().try_for_each(|name| group("policy.group_members", name))
}

fn group(path: &str, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        Err(Fault::new(path, "has a group without a name"))
    } else if name.len() > MAX_EXTERNAL_ID {
        Err(Fault::new(path, format_args!("has a name of more than {MAX_EXTERNAL_ID} bytes")))
    } else if name.contains(char::is_control) {
        Err(Fault::new(path, "has a name with a control character in it"))
    } else {
        Ok(())
    }
}

fn rule(path: &str, rule: &Rule) -> Result<(), Fault> {
    let fault = |field: &str, reason: &str| Err(Fault::new(format!("{path}.{field}"), reason));
    let ports = rule.protocol.is_some_and(Protocol::has_ports);
    let types = rule.protocol.is_some_and(Protocol::has_types);
    if rule.protocol == Some(Protocol::ICMPV6) && rule.ethertype == Ethertype::IPv4 {
        return fault("protocol", "icmpv6 needs the ethertype IPv6");
    }
    match (rule.port_min, rule.port_max) {
        (None, None) => {}
        _ if !ports && !types => {
            let field = if rule.port_min.is_some() { "port_min" } else { "port_max" };
            return fault(field, "needs the protocol tcp, udp, sctp, icmp or icmpv6");
        }
        (None, Some(_)) => return fault("port_max", "needs a port_min"),
        (Some(least), Some(most)) if ports && most < least => return fault("port_max", "is less than port_min"),
        (Some(kind), _) if types && kind > 255 => return fault("port_min", "is the type of icmp, from 0 to 255"),
        (_, Some(code)) if types && code > 255 => return fault("port_max", "is the code of icmp, from 0 to 255"),
        _ => {}
    }
    if let Some(name) = &rule.remote_group {
        group(&format!("{path}.remote_group"), name)?;
        if rule.remote_ip_prefix.is_some() {
            return fault("remote_group", "cannot be together with remote_ip_prefix; two rules say it");
        }
    }
    match rule.remote_ip_prefix {
        Some(prefix) if prefix.addr().is_ipv4() != (rule.ethertype == Ethertype::IPv4) => {
            let what = format!("{prefix} is not of the rule's ethertype, {:?} (IPv4 when absent)", rule.ethertype);
            fault("remote_ip_prefix", &what)
        }
        _ => Ok(()),
    }
}

fn network(vif: &Vif) -> Result<(), Fault> {
    let Some(network) = &vif.network else { return Ok(()) };
    optional_name("vif.network.bridge", network.bridge.as_deref())?;
    optional_name("vif.network.bridge_interface", network.bridge_interface.as_deref())
}

fn profile(vif: &Vif) -> Result<(), Fault> {
    let (allowed, may_be_without) = profiles_of(vif.kind.object_name());
    let Some(profile) = &vif.profile else {
        return if may_be_without { Ok(()) } else { Err(no_profile(vif, allowed)) };
    };
    if matches!(profile.kind, ProfileKind::Base) {
        if !may_be_without {
            return Err(no_profile(vif, allowed));
        }
    } else if !allowed.contains(&profile.kind.object_name()) {
        let reason = format!(
            "{} does not go with {}, which takes {}",
            profile.kind.object_name(),
            vif.kind.object_name(),
            allowed.join(", ")
        );
        return Err(Fault::new("vif.port_profile", reason));
    }
    if let Some(offload) = &profile.datapath_offload {
        let at = "vif.port_profile.datapath_offload.representor_name";
        optional_name(at, offload.representor_name.as_deref())?;
    }
    if let Some(ovs) = profile.kind.openvswitch() {
        openvswitch_profile(vif, ovs)?;
    }
    match &profile.kind {
        ProfileKind::FpOpenVSwitch { bridge_name, .. } => {
            optional_name("vif.port_profile.bridge_name", bridge_name.as_deref())
        }
        ProfileKind::FpBridge { bridge_name } => name("vif.port_profile.bridge_name", bridge_name),
        ProfileKind::OvsRepresentor { representor_name, .. } => {
            optional_name("vif.port_profile.representor_name", representor_name.as_deref())
        }
        ProfileKind::FpTap { mac_address: Some(address) } => mac("vif.port_profile.mac_address", *address),
        ProfileKind::Qbh { profile_id } if profile_id.len() > MAX_PORT_PROFILE => {
            Err(Fault::new("vif.port_profile.profile_id", format_args!("is longer than {MAX_PORT_PROFILE} bytes")))
        }
        _ => Ok(()),
    }
}

fn no_profile(vif: &Vif, allowed: &[&str]) -> Fault {
    let reason = format!("is missing; {} needs one of {}", vif.kind.object_name(), allowed.join(", "));
    Fault::new("vif.port_profile", reason)
}

fn openvswitch_profile(vif: &Vif, profile: &OpenVSwitchProfile) -> Result<(), Fault> {
    if profile.interface_id.as_ref().is_some_and(|id| id.len() > MAX_EXTERNAL_ID) {
        let reason = format!("is longer than {MAX_EXTERNAL_ID} bytes");
        return Err(Fault::new("vif.port_profile.interface_id", reason));
    }
    if profile.create_tap && !matches!(vif.kind, VifKind::OpenVSwitch { .. } | VifKind::Generic { .. }) {
        let reason = format!("a {} has no tap to create", vif.kind.object_name());
        return Err(Fault::new("vif.port_profile.create_tap", reason));
    }
    Ok(())
}

fn kind(vif: &Vif) -> Result<(), Fault> {
    match &vif.kind {
        VifKind::Generic { vif_name } => name("vif.vif_name", vif_name),
        VifKind::Bridge { vif_name, bridge_name } => {
            optional_name("vif.vif_name", vif_name.as_deref())?;
            optional_name("vif.bridge_name", bridge_name.as_deref())?;
            if bridge_name.is_none() {
                return Err(missing(vif, "vif.bridge_name"));
            }
            if vif_name == bridge_name {
                return Err(Fault::new("vif.bridge_name", "is the name of the guest's device as well"));
            }
            let network_bridge = vif.network.as_ref().and_then(|network| network.bridge.as_ref());
            if openvswitch(vif) && network_bridge.is_some() && network_bridge == bridge_name.as_ref() {
                let reason = "is the bridge of the VIF's network; the VIF's own Linux bridge needs another name";
                return Err(Fault::new("vif.bridge_name", reason));
            }
            if openvswitch(vif) { on_openvswitch(vif) } else { on_linux_bridge(vif) }
        }
        VifKind::OpenVSwitch { vif_name, bridge_name } => {
            name("vif.vif_name", vif_name)?;
            optional_name("vif.bridge_name", bridge_name.as_deref())?;
            on_openvswitch(vif)?;
            if vif.network.as_ref().and_then(|network| network.bridge.as_ref()) == Some(vif_name) {
                return Err(Fault::new("vif.vif_name", "is the name of the bridge that the VIF is plugged into"));
            }
            Ok(())
        }
        VifKind::Direct { vif_name, dev_address, vlan_name, .. } => {
            optional_name("vif.vif_name", vif_name.as_deref())?;
            optional_name("vif.vlan_name", vlan_name.as_deref())?;
            let interface = vif.network.as_ref().and_then(|network| network.bridge_interface.as_ref());
            if vif_name.is_some() && (vif_name == vlan_name || vif_name.as_ref() == interface) {
                return Err(Fault::new("vif.vif_name", "is the name of the link that the macvtap is to stand on"));
            }
            if vlan_name.is_some() && vlan_name.as_ref() == interface {
                return Err(Fault::new("vif.vlan_name", "is the name of the interface that the VLAN is to be of"));
            }
            if dev_address.is_none() && vlan_name.is_none() && interface.is_none() {
                let reason = "is missing; VIFDirect needs it, a vlan_name, or the network's bridge_interface";
                return Err(Fault::new("vif.dev_address", reason));
            }
            Ok(())
        }
        VifKind::VHostUser { vif_name, path, .. } => {
            optional_name("vif.vif_name", vif_name.as_deref())?;
            socket_path("vif.path", path)?;
            if openvswitch(vif) { on_openvswitch(vif) } else { Ok(()) }
        }
        VifKind::HostDevice { .. } => {
            if openvswitch(vif) {
                on_openvswitch(vif)
            } else if vif.plugin.as_deref() == Some("ovs") {
                Err(no_profile(vif, &OPENVSWITCH_PROFILES))
            } else {
                Ok(())
            }
        }
        VifKind::NestedDpdk { dev_driver, .. } => driver("vif.dev_driver", dev_driver.as_deref()),
    }
}

fn openvswitch(vif: &Vif) -> bool {
    vif.profile.as_ref().is_some_and(|profile| profile.kind.openvswitch().is_some())
}

/// What every port of an Open vSwitch bridge needs; os-vif's plugin refuses to plug without them too.
fn on_openvswitch(vif: &Vif) -> Result<(), Fault> {
    match &vif.network {
        None => Err(missing(vif, "vif.network")),
        Some(network) if network.bridge.is_none() => Err(missing(vif, "vif.network.bridge")),
        Some(_) if vif.address.is_none() => Err(missing(vif, "vif.address")),
        Some(_) => Ok(()),
    }
}

fn on_linux_bridge(vif: &Vif) -> Result<(), Fault> {
    if vif.plugin.as_deref() == Some("ovs") {
        return Err(no_profile(vif, &OPENVSWITCH_PROFILES));
    }
    match &vif.network {
        Some(network) if network.should_provide_vlan => {
            if network.vlan.is_none() {
                Err(Fault::new("vif.network.vlan", "is missing; should_provide_vlan needs it"))
            } else if network.bridge_interface.is_none() {
                Err(Fault::new("vif.network.bridge_interface", "is missing; should_provide_vlan needs it"))
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

fn missing(vif: &Vif, field: &str) -> Fault {
    let profile = vif.profile.as_ref().map_or("no profile", |profile| profile.kind.object_name());
    Fault::new(field, format_args!("is missing; {} with {profile} needs it", vif.kind.object_name()))
}

fn optional_name(field: &str, text: Option<&str>) -> Result<(), Fault> {
    text.map_or(Ok(()), |text| name(field, text))
}

fn name(field: &str, text: &str) -> Result<(), Fault> {
    interface_name(text).map_err(|reason| Fault::new(field, reason))
}

/// Whether the kernel takes `text` for the name of an interface (`dev_valid_name` of `net/core/dev.c`, and
/// `sysctl_dev_name_is_allowed` for the two names that sysctl has for itself).
///
/// # Errors
/// One sentence without the name.
pub fn interface_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() >= IFNAMSIZ {
        return Err(format!("has {} bytes and an interface name at most {}", text.len(), IFNAMSIZ - 1));
    }
    if matches!(text, "." | ".." | "all" | "default") {
        return Err(format!("{text:?} cannot be the name of an interface"));
    }
    // A percent sign makes the kernel number the name, in the calls that make a link and rename it.
    match text.chars().find(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
        Some(wrong) => Err(format!("has {wrong:?} in it, which an interface name cannot have")),
        None => Ok(()),
    }
}

fn socket_path(field: &str, text: &str) -> Result<(), Fault> {
    let refuse = |reason: String| Err(Fault::new(field, reason));
    let path = Path::new(text);
    if text.len() > MAX_SOCKET_PATH {
        refuse(format!("has {} bytes and the path of a socket at most {MAX_SOCKET_PATH}", text.len()))
    } else if !path.is_absolute() {
        refuse("is not an absolute path".into())
    } else if path.components().any(|component| component == Component::ParentDir) {
        refuse("has \"..\" in it".into())
    } else if path.file_name().is_none() || text.ends_with('/') {
        refuse("is a directory and not a socket".into())
    } else {
        Ok(())
    }
}

fn mac(field: &str, address: MacAddr) -> Result<(), Fault> {
    if address.0[0] & 1 == 1 {
        Err(Fault::new(field, format_args!("{address} is a group address and not an interface's")))
    } else if address.0 == [0; 6] {
        Err(Fault::new(field, "is all zero"))
    } else {
        Ok(())
    }
}

/// A kernel driver's name, which becomes a file name below `/sys/bus/pci/drivers`.
fn driver(field: &str, text: Option<&str>) -> Result<(), Fault> {
    match text {
        Some(text) if text.contains('/') || matches!(text, "." | "..") || text.len() > 64 => {
            Err(Fault::new(field, "is not the name of a driver"))
        }
        _ => Ok(()),
    }
}
