//! Clashes between VIFs that are each fine alone: one name, one MAC address on a network or one socket for
//! two of them. Pure and linear: the planner asks before every plan (4,000 VIFs take under a millisecond).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use devlink::{FunctionAddress, PciAddress};
use uuid::Uuid;

use crate::model::{MacAddr, ProfileKind, Vif, VifId, VifKind, cut_name};
use crate::plan::Clash;

/// Something that only one VIF can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Claim<'v> {
    /// A kernel interface or a port of Open vSwitch; in the end both are one name space.
    Name(Cow<'v, str>),
    /// An address on a network.
    Mac(Uuid, MacAddr),
    /// A vhost-user socket.
    Socket(&'v str),
    /// A VLAN of a trunk.
    Vlan(VifId, u16),
    /// A function of a NIC, as the record writes it. Two ways to write one are seen to by the planner.
    Function(&'v FunctionAddress),
    /// The same on the PCI bus.
    Pci(PciAddress),
    /// A VSI of 802.1Qbg.
    Vsi(Uuid),
    /// The port profile of a link (802.1Qbh), which has one.
    Profile(&'v str),
}

/// The VIFs that cannot be in force together with one that is: of those that clash, one in the first of the sets `first` that
/// has one of them (those that had it before) stays in force, else the one with the lowest id, and the others learn its
/// id. A VIF that is out this way stands in nobody's way.
///
/// `per_port_bridge` is the configuration's: with it, VIFs of type `openvswitch` have bridges named after
/// their ids.
#[must_use]
pub fn clashes(
    vifs: &BTreeMap<VifId, Arc<Vif>>,
    first: &[BTreeSet<VifId>],
    per_port_bridge: bool,
) -> BTreeMap<VifId, Clash> {
    let mut out = BTreeMap::new();
    // Only looked up, never walked: the order of a hash map does not show.
    let mut bridges: HashMap<&str, VifId> = HashMap::new();
    for (id, vif) in vifs {
        if let Some(bridge) = vif.network.as_ref().and_then(|network| network.bridge.as_deref()) {
            bridges.entry(bridge).or_insert(*id);
        }
        // Linux bridges that others may be in as well.
        match (&vif.kind, vif.profile.as_ref().map(|profile| &profile.kind)) {
            (VifKind::Bridge { bridge_name: Some(bridge), .. }, None | Some(ProfileKind::Base))
            | (VifKind::VHostUser { .. }, Some(ProfileKind::FpBridge { bridge_name: bridge })) => {
                bridges.entry(bridge).or_insert(*id);
            }
            _ => {}
        }
    }
    let mut taken: HashMap<Claim<'_>, VifId> = HashMap::with_capacity(2 * vifs.len());
    let mut shared: HashMap<Cow<'_, str>, (VifId, Share<'_>)> = HashMap::new();
    // By interface: whose bridge it is the uplink of.
    let mut uplinks: HashMap<Cow<'_, str>, (VifId, Cow<'_, str>)> = HashMap::new();
    let mut claims = Vec::new();
    let mut in_order: Vec<_> = vifs.iter().collect();
    // Stable, so that ids decide within a set.
    in_order.sort_by_key(|(id, _)| first.iter().position(|set| set.contains(id)).unwrap_or(first.len()));
    for (id, vif) in in_order {
        claims.clear();
        claim(vif, per_port_bridge, &mut claims);
        let clash = claims.iter().find_map(|(field, claim)| {
            if let Some(other) = taken.get(claim) {
                return Some(Clash { field: (*field).into(), reason: claim.told(*other) });
            }
            let Claim::Name(name) = claim else { return None };
            let other = bridges.get(&**name)?;
            let reason = format!("{name} is the name of the bridge of VIF {other}");
            Some(Clash { field: (*field).into(), reason })
        });
        let shares = shares(vif);
        let clash = clash.or_else(|| {
            shares.iter().find_map(|(name, share)| {
                let (other, theirs) = shared.get(name).filter(|(_, theirs)| theirs != share)?;
                let reason = format!("VIF {other} wants {name} {theirs}, and this one wants it {share}");
                let field = if share.mtu == theirs.mtu { share.field } else { "vif.network.mtu" };
                Some(Clash { field: field.into(), reason })
            })
        });
        let leads = shares.iter().find(|(_, share)| share.vlan.is_none());
        let uplink = leads.and_then(|(bridge, share)| Some((share.on.clone()?, bridge.clone())));
        let clash = clash.or_else(|| {
            let (interface, bridge) = uplink.as_ref()?;
            let (other, theirs) = uplinks.get(interface).filter(|(_, theirs)| theirs != bridge)?;
            let reason =
                format!("VIF {other} has {interface} for the uplink of {theirs}, and it can be in one bridge alone");
            Some(Clash { field: "vif.network.bridge_interface".into(), reason })
        });
        match clash {
            Some(clash) => drop(out.insert(*id, clash)),
            None => {
                if let Some((interface, bridge)) = uplink {
                    uplinks.entry(interface).or_insert((*id, bridge));
                }
                taken.extend(claims.drain(..).map(|(_, claim)| (claim, *id)));
                for (name, share) in shares {
                    shared.entry(name).or_insert((*id, share));
                }
            }
        }
    }
    out
}

/// How a VIF wants a link of the kernel's that others may want, too: one has to have it as all do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share<'v> {
    /// The field to blame.
    field: &'static str,
    /// The device below a VLAN, or the uplink of a bridge.
    on: Option<Cow<'v, str>>,
    vlan: Option<u16>,
    mtu: Option<u32>,
}

impl fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.on, self.vlan) {
            (Some(on), Some(vlan)) => write!(f, "as VLAN {vlan} of {on}")?,
            (Some(on), None) => write!(f, "with the uplink {on}")?,
            (None, _) => f.write_str("without an uplink")?,
        }
        match self.mtu {
            Some(mtu) => write!(f, " and MTU {mtu}"),
            None => f.write_str(" and the default MTU"),
        }
    }
}

/// The links that `vif` wants and others may, by their names.
fn shares(vif: &Vif) -> Vec<(Cow<'_, str>, Share<'_>)> {
    let Some(network) = &vif.network else { return Vec::new() };
    let interface = network.bridge_interface.as_deref().map(Cow::Borrowed);
    let mtu = network.mtu;
    let vlan = |name, on, vlan| (name, Share { field: "vif.network.vlan", on: Some(on), vlan: Some(vlan), mtu });
    let provided = network.should_provide_bridge && !network.multi_host;
    match (&vif.kind, vif.profile.as_ref().map(|profile| &profile.kind)) {
        (VifKind::Bridge { bridge_name: Some(bridge), .. }, _)
        | (VifKind::VHostUser { .. }, Some(ProfileKind::FpBridge { bridge_name: bridge }))
            if !on_openvswitch(vif) && provided =>
        {
            let field = "vif.network.bridge_interface";
            match (network.vlan.filter(|_| network.should_provide_vlan), interface) {
                (Some(id), Some(on)) => {
                    let name: Cow<'_, str> = Cow::Owned(format!("vlan{id}"));
                    let uplink = Share { field, on: Some(name.clone()), vlan: None, mtu };
                    vec![vlan(name, on, id), (Cow::Borrowed(bridge.as_str()), uplink)]
                }
                (_, on) => {
                    let mtu = mtu.filter(|_| on.is_some());
                    vec![(Cow::Borrowed(bridge.as_str()), Share { field, on, vlan: None, mtu })]
                }
            }
        }
        (VifKind::VHostUser { .. }, Some(ProfileKind::FpBridge { bridge_name })) => {
            let share = Share { field: "vif.port_profile.bridge_name", on: None, vlan: None, mtu: None };
            vec![(Cow::Borrowed(bridge_name.as_str()), share)]
        }
        (VifKind::Direct { vlan_name: Some(name), .. }, _) => match (interface, network.vlan) {
            (Some(on), Some(id)) => vec![vlan(Cow::Borrowed(name.as_str()), on, id)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn on_openvswitch(vif: &Vif) -> bool {
    vif.profile.as_ref().is_some_and(|profile| profile.kind.openvswitch().is_some())
}

fn has_internal_port(vif: &Vif) -> bool {
    vif.profile.as_ref().is_some_and(|profile| match &profile.kind {
        ProfileKind::FpBridge { .. } | ProfileKind::FpTap { .. } => true,
        ProfileKind::FpOpenVSwitch { hybrid_plug, .. } => *hybrid_plug,
        _ => false,
    })
}

impl Claim<'_> {
    fn told(&self, other: VifId) -> String {
        match self {
            Claim::Name(name) => format!("VIF {other} has the name {name} already"),
            Claim::Mac(_, mac) => format!("VIF {other} has the address {mac} on this network already"),
            Claim::Socket(path) => format!("VIF {other} has the socket {path} already"),
            Claim::Vlan(trunk, vlan) => format!("VIF {other} has VLAN {vlan} of VIF {trunk} already"),
            Claim::Function(address) => format!("VIF {other} has function {address} already"),
            Claim::Pci(address) => format!("VIF {other} has function {address} already"),
            Claim::Vsi(instance) => format!("VIF {other} has VSI {instance} already"),
            Claim::Profile(link) => format!("VIF {other} has the port profile of {link} already"),
        }
    }
}

/// The Linux bridge that a VIF has for itself alone, and the field that names it.
fn own_bridge(vif: &Vif) -> Option<(&'static str, &str)> {
    match (&vif.kind, vif.profile.as_ref().map(|profile| &profile.kind)) {
        (VifKind::Bridge { bridge_name, .. }, Some(profile)) if profile.openvswitch().is_some() => {
            Some(("vif.bridge_name", bridge_name.as_deref()?))
        }
        (VifKind::VHostUser { .. }, Some(ProfileKind::FpOpenVSwitch { bridge_name, hybrid_plug: true, .. })) => {
            Some(("vif.port_profile.bridge_name", bridge_name.as_deref()?))
        }
        _ => None,
    }
}

/// The function of a NIC that a VIF has.
fn function(vif: &Vif) -> Option<(&'static str, Claim<'_>)> {
    let claim = |address| match address {
        &FunctionAddress::Pci(address) => Claim::Pci(address),
        port @ FunctionAddress::Port { .. } => Claim::Function(port),
    };
    match &vif.kind {
        VifKind::HostDevice { dev_address, .. }
        | VifKind::Direct { dev_address: Some(dev_address), vlan_name: None, .. } => {
            Some(("vif.dev_address", claim(dev_address)))
        }
        VifKind::NestedDpdk { pci_address, .. } => Some(("vif.pci_address", Claim::Pci(*pci_address))),
        _ => None,
    }
}

/// The name that the representor of a VIF's function gets.
fn representor_name(vif: &Vif) -> Option<(&'static str, Claim<'_>)> {
    let (VifKind::HostDevice { .. }, Some(profile)) = (&vif.kind, &vif.profile) else { return None };
    if profile.kind.openvswitch().is_some_and(|ovs| ovs.datapath_type.as_deref() == Some("netdev")) {
        // DPDK's has no netdev.
        return None;
    }
    let offloaded = profile.datapath_offload.as_ref().and_then(|offload| offload.representor_name.as_ref());
    let of_profile = match &profile.kind {
        ProfileKind::OvsRepresentor { representor_name, .. } => representor_name.as_ref(),
        _ => None,
    };
    let offloaded = offloaded.map(|name| ("vif.port_profile.datapath_offload.representor_name", name));
    let (field, name) = offloaded.or_else(|| Some(("vif.port_profile.representor_name", of_profile?)))?;
    (!name.is_empty()).then_some((field, Claim::Name(Cow::Borrowed(name.as_str()))))
}

/// What the switch beyond the cable knows one of.
fn station(vif: &Vif) -> Option<(&'static str, Claim<'_>)> {
    let (VifKind::Direct { dev_address, vlan_name, .. }, Some(profile)) = (&vif.kind, &vif.profile) else {
        return None;
    };
    match &profile.kind {
        ProfileKind::Qbg { instance_id, .. } => {
            Some(("vif.port_profile.instance_id", Claim::Vsi(instance_id.unwrap_or(vif.id.0))))
        }
        // Each function has its own.
        ProfileKind::Qbh { .. } if dev_address.is_none() || vlan_name.is_some() => {
            let network = vif.network.as_ref();
            let interface = network.and_then(|network| network.bridge_interface.as_deref());
            let link = match (vlan_name.as_deref(), interface) {
                (Some(_), Some(interface)) if network.is_some_and(|network| network.vlan.is_some()) => interface,
                (vlan_name, interface) => vlan_name.or(interface)?,
            };
            Some(("vif.port_profile", Claim::Profile(link)))
        }
        _ => None,
    }
}

/// What `vif` claims, and the field to blame.
fn claim<'v>(vif: &'v Vif, per_port_bridge: bool, claims: &mut Vec<(&'static str, Claim<'v>)>) {
    let mut name = |field, name: &'v str| claims.push((field, Claim::Name(Cow::Borrowed(name))));
    match &vif.kind {
        // A sub-port has its trunk's device, or ports that are named after its id.
        _ if vif.parent.is_some() => {}
        VifKind::Generic { vif_name } | VifKind::OpenVSwitch { vif_name, .. } => name("vif.vif_name", vif_name),
        VifKind::Bridge { vif_name: Some(vif_name), .. } | VifKind::Direct { vif_name: Some(vif_name), .. } => {
            name("vif.vif_name", vif_name);
        }
        // It has a netdev beside its port.
        VifKind::VHostUser { vif_name: Some(vif_name), .. } if has_internal_port(vif) => name("vif.vif_name", vif_name),
        // What any other vhost-user VIF calls its vif_name is a name of nothing.
        _ => {}
    }
    if let Some((field, bridge)) = own_bridge(vif) {
        claims.push((field, Claim::Name(Cow::Borrowed(bridge))));
    }
    if let Some(parent) = vif.parent {
        claims.push(("parent.vlan", Claim::Vlan(parent.vif, parent.vlan)));
    }
    // Names made of the first letters of the id. They meet only where two ids begin alike, as ids that were
    // made by counting do.
    let derived = |prefix| ("vif.id", Claim::Name(Cow::Owned(cut_name(prefix, vif.id))));
    match &vif.kind {
        _ if vif.parent.is_some() => {}
        VifKind::VHostUser { path, .. } => {
            claims.push(derived("vhu"));
            claims.push(("vif.path", Claim::Socket(path)));
        }
        // `qvo` is cut where `qvb` is.
        VifKind::Bridge { .. } if on_openvswitch(vif) => claims.push(derived("qvo")),
        VifKind::OpenVSwitch { .. } if per_port_bridge => claims.push(derived("pb")),
        _ => {}
    }
    claims.extend(function(vif));
    claims.extend(representor_name(vif));
    claims.extend(station(vif));
    if let (Some(address), Some(network)) = (vif.address, vif.network.as_ref().and_then(|network| network.id)) {
        claims.push(("vif.address", Claim::Mac(network, address)));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::record::decode;

    const NETWORK: &str = "b82c1929-051e-481d-8110-4669916c7915";

    fn tap(id: u32, name: &str, mac: &str) -> Value {
        json!({
            "type": "openvswitch", "id": id_of(id), "vif_name": name, "address": mac,
            "network": { "id": NETWORK, "bridge": "br-int" }, "port_profile": { "type": "openvswitch" },
        })
    }

    fn vhost(id: &str, path: &str, mac: &str) -> Value {
        json!({
            "type": "vhostuser", "id": id, "path": path, "mode": "server", "address": mac,
            "network": { "id": NETWORK, "bridge": "br-dpdk" }, "port_profile": { "type": "openvswitch" },
        })
    }

    fn on_function(id: u32, kind: &str, more: &Value) -> Value {
        let mac = format!("52:54:00:00:01:{id:02x}");
        let network = json!({ "id": NETWORK, "bridge": "br-int" });
        let mut vif = json!({ "type": kind, "id": id_of(id), "address": mac, "network": network });
        vif.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vif
    }

    fn station_on(id: u32, link: &str, profile: &Value) -> Value {
        json!({
            "type": "direct", "id": id_of(id), "vif_name": format!("tap{id}"), "vlan_name": link,
            "network": { "id": NETWORK }, "port_profile": profile,
        })
    }

    fn id_of(number: u32) -> String {
        format!("{number:08x}-0000-4000-8000-000000000000")
    }

    fn vifs(records: &[Value]) -> BTreeMap<VifId, Arc<Vif>> {
        let read = |vif: &Value| Arc::new(decode(json!({ "vif": vif }).to_string().as_bytes()).unwrap().vif);
        records.iter().map(read).map(|vif| (vif.id, vif)).collect()
    }

    fn told(records: &[Value], per_port_bridge: bool) -> Vec<(String, String, String)> {
        let clashes = clashes(&vifs(records), &[], per_port_bridge);
        clashes.into_iter().map(|(id, clash)| (id.to_string(), clash.field, clash.reason)).collect()
    }

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";
    const C: &str = "52:54:00:00:00:0c";

    #[test]
    fn different_vifs_do_not_clash() {
        let mut elsewhere = tap(3, "tap3", A);
        elsewhere["network"]["id"] = json!("00000000-0000-4000-8000-000000000001");
        assert_eq!(told(&[tap(1, "tap1", A), tap(2, "tap2", B), elsewhere], true), []);
    }

    #[test]
    fn who_had_it_keeps_it() {
        let (first, newcomer) = (tap(2, "tap1", A), tap(1, "tap1", B));
        let had_it = BTreeSet::from([id_of(2).parse().unwrap()]);
        let clashes = clashes(&vifs(&[first, newcomer]), &[had_it], false);
        let out: Vec<String> = clashes.keys().map(ToString::to_string).collect();
        assert_eq!(out, [id_of(1)]);
    }

    #[test]
    fn an_address_without_a_network_id_is_nobodys_business() {
        let mut nowhere = tap(2, "tap2", A);
        nowhere["network"].as_object_mut().unwrap().remove("id");
        assert_eq!(told(&[tap(1, "tap1", A), nowhere], false), []);
    }

    #[rstest]
    #[case::name(tap(1, "tap1", A), tap(2, "tap1", B), "vif.vif_name", "has the name tap1 already")]
    #[case::mac(
        tap(1, "tap1", A),
        tap(2, "tap2", A),
        "vif.address",
        "has the address 52:54:00:00:00:0a on this network"
    )]
    #[case::socket(vhost(&id_of(1), "/run/a", A), vhost(&id_of(2), "/run/a", B), "vif.path", "has the socket /run/a already")]
    #[case::derived(
        vhost("00000002-0000-4000-8000-000000000000", "/run/a", A),
        vhost("00000002-0001-4000-8000-000000000000", "/run/b", B),
        "vif.id",
        "has the name vhu00000002-00 already"
    )]
    #[case::function(
        on_function(1, "hostdevice", &json!({"dev_address": "0000:03:00.2"})),
        on_function(2, "direct", &json!({"dev_address": "0000:03:00.2", "vif_name": "tap2", "port_profile": null})),
        "vif.dev_address",
        "has function 0000:03:00.2 already"
    )]
    #[case::nested(
        on_function(1, "hostdevice", &json!({"dev_address": "0000:03:00.2"})),
        on_function(2, "nested_dpdk", &json!({"pci_address": "0000:03:00.2", "port_profile": null})),
        "vif.pci_address",
        "has function 0000:03:00.2 already"
    )]
    #[case::port(
        on_function(1, "hostdevice", &json!({"dev_address": "pci/0000:03:00.0:pf0sf88"})),
        on_function(2, "hostdevice", &json!({"dev_address": "pci/0000:03:00.0:pf0sf88"})),
        "vif.dev_address",
        "has function pci/0000:03:00.0:pf0sf88 already"
    )]
    #[case::representor(
        on_function(1, "hostdevice", &json!({"dev_address": "0000:03:00.2",
            "port_profile": {"type": "ovs_representor", "representor_name": "rep1"}})),
        on_function(2, "hostdevice", &json!({"dev_address": "0000:03:00.3", "port_profile": {"type": "openvswitch",
            "datapath_offload": {"representor_name": "rep1", "representor_address": "0000:03:00.3"}}})),
        "vif.port_profile.datapath_offload.representor_name",
        "has the name rep1 already"
    )]
    #[case::vsi(
        station_on(1, "eth1", &json!({"type": "8021qbg", "manager_id": 0, "type_id": 1, "type_id_version": 0})),
        station_on(2, "eth2", &json!({"type": "8021qbg", "manager_id": 1, "type_id": 2, "type_id_version": 0,
            "instance_id": id_of(1)})),
        "vif.port_profile.instance_id",
        "has VSI 00000001-0000-4000-8000-000000000000 already"
    )]
    #[case::profile(
        station_on(1, "eth1", &json!({"type": "8021qbh", "profile_id": "gold"})),
        station_on(2, "eth1", &json!({"type": "8021qbh", "profile_id": "silver"})),
        "vif.port_profile",
        "has the port profile of eth1 already"
    )]
    fn of_two_the_later_is_told_of_the_earlier(
        #[case] first: Value,
        #[case] second: Value,
        #[case] field: &str,
        #[case] reason: &str,
    ) {
        for records in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
            let told = told(&records, false);
            let [(id, at, why)] = told.as_slice() else { panic!("{told:?}") };
            assert_eq!((id.as_str(), at.as_str()), (second["id"].as_str().unwrap(), field));
            assert!(why.contains(reason) && why.contains(first["id"].as_str().unwrap()), "{why}");
        }
    }

    #[test]
    fn functions_and_stations_of_different_vifs_do_not_clash() {
        let function = |id, address: &str, profile: Value| {
            on_function(id, "hostdevice", &json!({ "dev_address": address, "port_profile": profile }))
        };
        let dpdk = json!({"type": "ovs_representor", "datapath_type": "netdev", "representor_name": "rep1"});
        let qbg = json!({"type": "8021qbg", "manager_id": 0, "type_id": 1, "type_id_version": 0});
        let qbh = json!({"type": "8021qbh", "profile_id": "gold"});
        let mut on_vf = station_on(7, "eth1", &qbh);
        on_vf["vlan_name"].take();
        on_vf["dev_address"] = json!("0000:03:00.4");
        let records = [
            function(1, "0000:03:00.2", dpdk.clone()),
            function(2, "0000:03:00.3", dpdk),
            // A VLAN of it is no function.
            on_function(3, "direct", &json!({"dev_address": "0000:03:00.2", "vlan_name": "eth1", "vif_name": "t3"})),
            station_on(4, "eth1", &qbg),
            station_on(5, "eth1", &qbg),
            station_on(6, "eth1", &qbh),
            on_vf,
        ];
        assert_eq!(told(&records, false), []);
    }

    #[test]
    fn one_that_is_out_stands_in_nobodys_way() {
        // 2 is out for its name, so that its address is free for 3.
        let told = told(&[tap(1, "tap1", A), tap(2, "tap1", B), tap(3, "tap3", B)], false);
        assert_eq!(told.iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>(), [id_of(2)]);
    }

    #[test]
    fn a_device_cannot_have_the_name_of_a_bridge_in_use() {
        let mut other = tap(1, "br-int", A);
        other["network"]["bridge"] = json!("br-other");
        let told = told(&[other, tap(2, "tap2", B)], false);
        let why = format!("br-int is the name of the bridge of VIF {}", id_of(2));
        assert_eq!(told, [(id_of(1), "vif.vif_name".to_owned(), why)]);
    }

    #[test]
    fn bridges_of_ports_clash_only_where_there_are_any() {
        let mut twin = tap(1, "tap2", B);
        twin["id"] = json!("00000001-0000-4000-8000-00000000ffff");
        let records = [tap(1, "tap1", A), twin, tap(3, "tap3", C)];
        assert_eq!(told(&records, false), []);
        let told = told(&records, true);
        assert_eq!(told.len(), 1);
        assert!(told[0].2.contains("has the name pb00000001-0"), "{told:?}");
    }
}
