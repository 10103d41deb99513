//! By what is told who made something and for which kind of VIF: keys of `external_ids`, names as os-vif gives them, how
//! links hang together. What is in a record comes from the host or not at all.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::MadeBy;
use crate::model::{Interface, Link, LinkKind, LinkState, MacAddr, NicState, OvsState, Port, VifId, cut_name};
use crate::plan::blueprint::is_trunk_bridge;
use crate::plan::{Owner, Settings, port_owner, qos_id};

/// Everything that was recognised.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// What may become a VIF's, in order of names.
    pub(super) found: Vec<Sign>,
    /// What is somebody else's: its name, its bridge, and whose it is.
    pub(super) foreign: Vec<(String, String, String)>,
}

/// One thing that may become a VIF's.
#[derive(Debug)]
pub(super) struct Sign {
    pub(super) name: String,
    /// The guest's device as records name it; another than `name` where a veth or a patch pair is in between.
    pub(super) device: String,
    pub(super) bridge: Option<String>,
    /// Other bridges that it takes.
    pub(super) own_bridges: Vec<String>,
    pub(super) kind: Option<&'static str>,
    pub(super) profile: Option<&'static str>,
    pub(super) made_by: MadeBy,
    pub(super) evidence: Vec<String>,
    pub(super) interface_id: Option<String>,
    pub(super) id: Option<VifId>,
    pub(super) record: Option<Value>,
    pub(super) unknown: Vec<String>,
}

impl Sign {
    pub(super) fn is_on(&self, bridge: &str) -> bool {
        self.bridge.as_deref() == Some(bridge) || self.own_bridges.iter().any(|own| own == bridge)
    }
}

/// Looks at everything.
pub(super) fn read(links: &LinkState, nics: Option<&NicState>, ovs: &OvsState, settings: &Settings) -> Signs {
    let eye = Eye { links, nics, ovs, settings };
    let mut signs = Signs::default();
    for (name, port) in &ovs.ports {
        if *name == port.bridge {
            continue;
        }
        // A bond is nobody's VIF.
        let Some(interface) = ovs.interfaces.get(name).filter(|_| port.interfaces.len() == 1) else { continue };
        match port_owner(port, Some(interface), settings) {
            Owner::Us { .. } => {}
            Owner::Other(who) | Owner::Later(who) => {
                signs.foreign.push((name.to_string(), port.bridge.to_string(), format!("marked by {who}")));
            }
            Owner::Nobody => match eye.port(port, interface) {
                What::Vif(sign) => signs.found.push(*sign),
                What::Foreign(who) => signs.foreign.push((name.to_string(), port.bridge.to_string(), who.to_owned())),
                What::Else => {}
            },
        }
    }
    eye.links_alone(&mut signs.found);
    eye.trunk_bridges(&mut signs.found);
    signs.found.sort_by(|one, other| one.name.cmp(&other.name));
    signs
}

/// What a port is.
enum What {
    Vif(Box<Sign>),
    /// Somebody else's, and whose.
    Foreign(&'static str),
    /// An uplink, say, or a part of something that is told of already.
    Else,
}

struct Eye<'a> {
    links: &'a LinkState,
    /// Not before they are seen.
    nics: Option<&'a NicState>,
    ovs: &'a OvsState,
    settings: &'a Settings,
}

/// A record in the making.
#[derive(Default)]
struct Draft {
    vif: Map<String, Value>,
    profile: Map<String, Value>,
    network: Map<String, Value>,
    instance: Option<String>,
    parent: Map<String, Value>,
    unknown: Vec<String>,
}

impl Draft {
    /// Puts what the host tells into an object of the record, or names the field.
    fn tell(&mut self, path: &str, value: Option<impl Into<Value>>) {
        let Some(value) = value.map(Into::into) else {
            self.unknown.push(path.to_owned());
            return;
        };
        let (object, field) = path.rsplit_once('.').unwrap_or(("", path));
        let object = match object {
            "vif.network" => &mut self.network,
            "vif.port_profile" => &mut self.profile,
            "parent" => &mut self.parent,
            _ => &mut self.vif,
        };
        object.insert(field.to_owned(), value);
    }

    fn finish(mut self) -> (Value, Vec<String>) {
        if !self.profile.is_empty() {
            self.vif.insert("port_profile".into(), self.profile.into());
        }
        if !self.network.is_empty() {
            self.vif.insert("network".into(), self.network.into());
        }
        // No place on a host has these.
        for path in ["vif.network.id", "vif.network.subnets", "policy"] {
            self.unknown.push(path.to_owned());
        }
        let mut record = json!({ "vif": self.vif });
        match self.instance {
            Some(uuid) => {
                record["instance"] = json!({ "uuid": uuid });
                self.unknown.push("instance.name".into());
            }
            None => self.unknown.push("instance".into()),
        }
        if !self.parent.is_empty() {
            record["parent"] = self.parent.into();
        }
        (record, self.unknown)
    }
}

/// Whose an internal port with an `iface-id` is.
const NETWORK_AGENT: &str = "an internal port of a network agent's (DHCP, router), which is no guest's";

impl Eye<'_> {
    fn link(&self, name: &str) -> Option<&Link> {
        self.links.links.get(name).map(AsRef::as_ref)
    }

    fn indexed(&self, index: Option<u32>) -> Option<&Link> {
        self.links.links.values().find(|link| Some(link.index) == index).map(AsRef::as_ref)
    }

    fn is_ours(&self, link: &Link) -> bool {
        !matches!(self.settings.link_owner(link.alias.as_deref()), Owner::Nobody)
    }

    fn port(&self, port: &Port, interface: &Interface) -> What {
        let has = |key: &str| port.external_ids.contains_key(key) || interface.external_ids.contains_key(key);
        let ovn = ["ovn-chassis-id", "ovn-localnet-port", "ovn-l3gateway-port", "ovn-l2gateway-port"];
        if ovn.iter().any(|key| has(key)) {
            return What::Foreign("made by OVN");
        }
        if has("ovn-plugged") {
            return What::Foreign("plugged by OVN (ovn-plugged)");
        }
        let iface_id = interface.external_ids.get("iface-id");
        let name = port.name.as_str();
        if name.starts_with("spt-") && interface.kind == "patch" {
            // The other end is told of.
            return What::Else;
        }
        let (Some(iface_id), Some(mac)) = (iface_id, interface.external_ids.get("attached-mac")) else {
            return match iface_id {
                Some(_) => What::Foreign("an iface-id without an attached-mac: another agent's"),
                None => What::Else,
            };
        };
        match interface.kind.as_str() {
            "internal" => return What::Foreign(NETWORK_AGENT),
            "patch" if !name.starts_with("ibp") && !name.starts_with("spi-") => {
                return What::Foreign("a patch port of a network agent's");
            }
            _ => {}
        }
        What::Vif(Box::new(self.vif_port(port, interface, iface_id, mac)))
    }

    fn vif_port(&self, port: &Port, interface: &Interface, iface_id: &str, mac: &str) -> Sign {
        let (name, bridge) = (port.name.as_str(), port.bridge.as_str());
        let mut draft = Draft::default();
        let mut evidence =
            vec![format!("port {name} of bridge {bridge} has iface-id {iface_id} and attached-mac {mac}")];
        let made_by = self.made_by(port, interface, &mut evidence);
        let id = id_of(name, iface_id);
        draft.tell("vif.id", id.map(|id| id.to_string()));
        draft.tell("vif.address", mac.parse::<MacAddr>().ok().map(|mac| mac.to_string()));
        draft.tell("vif.network.bridge", Some(bridge));
        draft.instance = ["vm-uuid", "vm-id"].iter().find_map(|key| interface.external_ids.get(key)).map(str::to_owned);
        let mut sign = Sign {
            name: name.to_owned(),
            device: name.to_owned(),
            bridge: Some(bridge.to_owned()),
            own_bridges: Vec::new(),
            kind: None,
            profile: Some("openvswitch"),
            made_by,
            evidence,
            interface_id: Some(iface_id.to_owned()),
            id,
            record: None,
            unknown: Vec::new(),
        };
        draft.profile.insert("type".into(), "openvswitch".into());
        if interface.kind != "patch" {
            draft.tell("vif.port_profile.interface_id", Some(iface_id));
            let userspace = self.ovs.bridges.get(bridge).is_some_and(|bridge| bridge.is_userspace());
            draft.tell("vif.port_profile.datapath_type", Some(if userspace { "netdev" } else { "system" }));
        }
        match interface.kind.as_str() {
            "dpdkvhostuser" | "dpdkvhostuserclient" => self.vhost(interface, &mut sign, &mut draft),
            "patch" if name.starts_with("spi-") => self.sub_port(interface, &mut sign, &mut draft),
            "patch" => self.per_port_bridge(interface, &mut sign, &mut draft),
            _ if name.starts_with("qvo") => self.hybrid(name, &mut sign, &mut draft),
            _ if is_device(interface, self.link(name)) => self.host_device(name, &mut sign, &mut draft),
            _ => self.device(name, port, &mut sign, &mut draft),
        }
        sign.finish(draft)
    }

    /// By the keys that each writes: os-vif `vm-uuid`, libvirt `vm-id`, vifd both.
    fn made_by(&self, port: &Port, interface: &Interface, evidence: &mut Vec<String>) -> MadeBy {
        let has = |key: &str| interface.external_ids.contains_key(key);
        let made_by = match (has("vm-uuid"), has("vm-id")) {
            (true, false) => MadeBy::OsVif,
            (false, true) => MadeBy::Libvirt,
            (true, true) => MadeBy::Vifd,
            (false, false) if self.has_qos(port) => MadeBy::OsVif,
            (false, false) if interface.kind == "patch" => MadeBy::OsVif,
            (false, false) => MadeBy::Unknown,
        };
        evidence.extend(match made_by {
            MadeBy::OsVif if has("vm-uuid") => Some("it has vm-uuid and no vm-id, as os-vif writes it".to_owned()),
            MadeBy::Libvirt => Some("it has vm-id and no vm-uuid, as libvirt writes it".to_owned()),
            MadeBy::Vifd => Some("it has vm-uuid and vm-id, as vifd writes it".to_owned()),
            _ => None,
        });
        if self.has_qos(port) {
            evidence.push("its QoS row has the id that os-vif derives from its name".to_owned());
        }
        made_by
    }

    fn has_qos(&self, port: &Port) -> bool {
        let row = port.qos.and_then(|qos| self.ovs.qos.get(&qos));
        row.is_some_and(|qos| qos.external_ids.get("id") == Some(&qos_id(&port.name)))
    }

    /// A tap, or a port whose device the hypervisor brings.
    fn device(&self, name: &str, port: &Port, sign: &mut Sign, draft: &mut Draft) {
        sign.kind = Some("openvswitch");
        draft.tell("vif.vif_name", Some(name));
        let link = self.link(name);
        draft.tell("vif.network.mtu", link.map(|link| link.mtu));
        if is_trunk_bridge(&port.bridge) {
            sign.evidence.push(format!("bridge {} is a trunk bridge of neutron's", port.bridge));
        }
        let tap = link.and_then(|link| match link.kind {
            LinkKind::Tap { multi_queue, persistent: true } => Some(multi_queue),
            _ => None,
        });
        if let Some(multi_queue) = tap {
            // The hypervisor's own go with its process.
            sign.evidence.push(format!("{name} is a persistent tap, as os-vif makes it"));
            draft.tell("vif.port_profile.create_port", Some(true));
            draft.tell("vif.port_profile.create_tap", Some(true));
            draft.tell("vif.port_profile.multiqueue", Some(multi_queue));
            return;
        }
        let created = match sign.made_by {
            MadeBy::OsVif => Some(true),
            MadeBy::Libvirt => Some(false),
            MadeBy::Vifd | MadeBy::Unknown => self.has_qos(port).then_some(true),
        };
        draft.tell("vif.port_profile.create_port", created);
        if link.is_some() || created == Some(false) {
            draft.tell("vif.port_profile.create_tap", Some(false));
        } else {
            draft.tell("vif.port_profile.create_tap", None::<bool>);
        }
    }

    fn vhost(&self, interface: &Interface, sign: &mut Sign, draft: &mut Draft) {
        let name = interface.name.as_str();
        sign.kind = Some("vhostuser");
        sign.evidence.push(format!("its type is {}", interface.kind));
        let (mode, path) = if interface.kind == "dpdkvhostuser" {
            let named = |path: &&std::path::PathBuf| path.file_name().is_some_and(|file| file == name);
            let there = self.links.sockets.sockets.iter().find(named).map(|path| path.display().to_string());
            ("client", interface.status.get("socket").map(str::to_owned).or(there))
        } else {
            ("server", interface.options.get("vhost-server-path").map(str::to_owned))
        };
        draft.tell("vif.mode", Some(mode));
        draft.tell("vif.path", path);
        draft.tell("vif.network.mtu", interface.mtu_request.or(interface.mtu));
    }

    /// A netdev of hardware: a function's representor, where the NIC says of which.
    fn host_device(&self, name: &str, sign: &mut Sign, draft: &mut Draft) {
        sign.kind = Some("hostdevice");
        draft.tell("vif.dev_type", Some("ethernet"));
        let functions = self
            .nics
            .into_iter()
            .flat_map(|nics| nics.nics.values())
            .flat_map(|nic| nic.functions.iter().map(move |(number, function)| (&nic.device, number, function)));
        let mut represented =
            functions.filter(|(.., function)| function.representor.netdev().is_some_and(|netdev| netdev.name == name));
        let Some((device, number, function)) = represented.next() else {
            sign.evidence.push(format!("{name} is a device of hardware, or stands for one"));
            draft.tell("vif.dev_address", None::<String>);
            return;
        };
        sign.evidence.push(format!("{name} is the representor of {number} on NIC {device}"));
        let address = function.pci.map_or_else(|| format!("{device}:{number}"), |pci| pci.to_string());
        // With its name, so that it keeps it when it comes back.
        let offload = json!({ "representor_name": name, "representor_address": address });
        draft.tell("vif.dev_address", Some(address));
        draft.tell("vif.port_profile.datapath_offload", Some(offload));
        draft.tell("vif.network.mtu", self.link(name).map(|link| link.mtu));
    }

    /// The guest's port is on a bridge of its own, and this one leads there.
    fn per_port_bridge(&self, interface: &Interface, sign: &mut Sign, draft: &mut Draft) {
        sign.kind = Some("openvswitch");
        let near = interface.options.get("peer").and_then(|peer| self.ovs.ports.get(peer));
        let own = near.and_then(|near| self.ovs.bridges.get(&near.bridge));
        let guests = own.and_then(|own| own.ports.iter().find(|name| **name != own.name && **name != near_name(near)));
        if let (Some(near), Some(own)) = (near, own) {
            sign.evidence.push(format!(
                "patch port {} leads to it from bridge {}, which the port has alone",
                near.name, own.name
            ));
            sign.own_bridges.push(own.name.to_string());
        }
        if let Some(name) = guests {
            sign.device = name.to_string();
        }
        draft.tell("vif.vif_name", guests.map(ToString::to_string));
        let userspace = own.is_some_and(|own| own.is_userspace());
        draft.tell("vif.port_profile.datapath_type", Some(if userspace { "netdev" } else { "system" }));
        let link = guests.and_then(|name| self.link(name));
        draft.tell("vif.network.mtu", link.map(|link| link.mtu));
        // Whose port is on it makes no difference: with a bridge of its own os-vif makes it.
        draft.tell("vif.port_profile.create_port", Some(true));
        let tap = link.map(|link| matches!(link.kind, LinkKind::Tap { persistent: true, .. }));
        draft.tell("vif.port_profile.create_tap", tap);
        if let Some(LinkKind::Tap { multi_queue: true, persistent: true }) = link.map(|link| &link.kind) {
            draft.tell("vif.port_profile.multiqueue", Some(true));
        }
    }

    /// A sub-port on one of neutron's trunk bridges.
    fn sub_port(&self, interface: &Interface, sign: &mut Sign, draft: &mut Draft) {
        sign.kind = Some("openvswitch");
        let near = interface.options.get("peer").and_then(|peer| self.ovs.ports.get(peer));
        let trunk = near.and_then(|near| self.ovs.bridges.get(&near.bridge));
        if let (Some(near), Some(trunk)) = (near, trunk) {
            sign.evidence.push(format!("patch port {} leads to it from trunk bridge {}", near.name, trunk.name));
            sign.own_bridges.push(trunk.name.to_string());
        }
        draft.tell("vif.port_profile.interface_id", sign.interface_id.clone());
        draft.tell("vif.vif_name", None::<String>);
        let of_trunk = |name: &&ovsdb::text::Text| {
            !["tpt-", "spt-"].iter().any(|prefix| name.starts_with(prefix)) && trunk.is_some_and(|of| **name != of.name)
        };
        let parent = trunk.and_then(|trunk| trunk.ports.iter().find(of_trunk));
        let parent = parent.and_then(|name| {
            let iface_id = self.ovs.interfaces.get(name)?.external_ids.get("iface-id")?;
            id_of(name, iface_id)
        });
        draft.tell("parent.vif", parent.map(|id| id.to_string()));
        draft.tell("parent.vlan", near.and_then(|near| near.tag));
    }

    /// A Linux bridge of its own, and the veth that leads from there to the port.
    fn hybrid(&self, far: &str, sign: &mut Sign, draft: &mut Draft) {
        sign.kind = Some("bridge");
        let link = self.link(far);
        let near = link.filter(|link| link.kind == LinkKind::Veth).and_then(|link| self.indexed(link.lower));
        let own = near.and_then(|near| self.indexed(near.master));
        if let Some(near) = near {
            sign.evidence.push(format!("{far} and {} are the ends of a veth", near.name));
        }
        if let Some(own) = own {
            sign.evidence.push(format!("{} is in Linux bridge {}", near.map_or("", |near| &near.name), own.name));
            sign.own_bridges.push(own.name.clone());
        }
        draft.tell("vif.bridge_name", own.map(|own| own.name.clone()));
        let member = |link: &&Link| {
            own.is_some_and(|own| link.master == Some(own.index) && near.is_none_or(|near| near.index != link.index))
        };
        let guests = self.links.links.values().map(AsRef::as_ref).find(member);
        if let Some(guests) = guests {
            sign.evidence.push(format!("{} is in it, too", guests.name));
            sign.device.clone_from(&guests.name);
        }
        draft.tell("vif.vif_name", guests.map(|link| link.name.clone()));
        draft.tell("vif.network.mtu", link.map(|link| link.mtu));
    }

    /// Taps, Linux bridges and veths of os-vif's naming without a port.
    fn links_alone(&self, found: &mut Vec<Sign>) {
        for (name, link) in &self.links.links {
            if self.is_ours(link) || self.ovs.interfaces.contains_key(name.as_str()) || !is_cut(name) {
                continue;
            }
            let master = self.indexed(link.master);
            match &link.kind {
                LinkKind::Veth if name.starts_with("qvb") => {
                    let far = self.indexed(link.lower).map_or("", |far| &far.name);
                    // With a port it was told of by that.
                    if !self.ovs.interfaces.contains_key(far) {
                        let why = "is an end of a veth as os-vif names it, and no port of Open vSwitch is at the other";
                        found.push(self.half_hybrid(name, master, link, why));
                    }
                }
                LinkKind::Bridge(_) if name.starts_with("qbr") => {
                    let veth = |other: &Link| other.master == Some(link.index) && other.name.starts_with("qvb");
                    if !self.links.links.values().any(|other| veth(other)) {
                        let why = "is a Linux bridge as os-vif names it, and no veth leads out of it";
                        found.push(self.half_hybrid(name, Some(link), link, why));
                    }
                }
                // In one of os-vif's own bridges it was told of with that.
                LinkKind::Tap { .. }
                    if name.starts_with("tap") && !master.is_some_and(|master| master.name.starts_with("qbr")) =>
                {
                    found.push(self.lonely_tap(name, link, master));
                }
                _ => {}
            }
        }
    }

    fn half_hybrid(&self, name: &str, own: Option<&Link>, link: &Link, why: &str) -> Sign {
        let mut draft = Draft::default();
        draft.tell("vif.id", None::<String>);
        draft.tell("vif.address", None::<String>);
        draft.tell("vif.bridge_name", own.map(|own| own.name.clone()));
        draft.tell("vif.vif_name", None::<String>);
        draft.tell("vif.network.bridge", None::<String>);
        draft.tell("vif.network.mtu", Some(link).map(|link| link.mtu));
        draft.profile.insert("type".into(), "openvswitch".into());
        draft.tell("vif.port_profile.interface_id", None::<String>);
        Sign::of_link(name, "bridge", Some("openvswitch"), own, format!("{name} {why}")).finish(draft)
    }

    fn lonely_tap(&self, name: &str, link: &Link, master: Option<&Link>) -> Sign {
        let mut draft = Draft::default();
        draft.tell("vif.id", None::<String>);
        draft.tell("vif.vif_name", Some(name));
        draft.tell("vif.network.mtu", Some(link).map(|link| link.mtu));
        let why = format!("{name} is a tap as os-vif names it, and no port of Open vSwitch has it");
        let mut sign = Sign::of_link(name, "bridge", None, master, why);
        match master {
            Some(master) => {
                sign.evidence.push(format!("it is in Linux bridge {}", master.name));
                draft.tell("vif.bridge_name", Some(master.name.clone()));
                // The guest's own address; the tap has another.
                draft.tell("vif.address", None::<String>);
            }
            None => {
                sign.kind = None;
                draft.tell("vif.type", None::<String>);
                draft.tell("vif.address", link.mac.map(|mac| mac.to_string()));
                draft.tell("vif.network.bridge", None::<String>);
            }
        }
        sign.finish(draft)
    }

    /// Trunk bridges on which no VIF's port is.
    fn trunk_bridges(&self, found: &mut Vec<Sign>) {
        for (name, bridge) in &self.ovs.bridges {
            let free = self.settings.owner(&bridge.external_ids) == Owner::Nobody;
            let used = found.iter().any(|sign| sign.is_on(name))
                || bridge.ports.iter().any(|port| {
                    let rows = self.ovs.ports.get(port).map(|row| (row, self.ovs.interfaces.get(port)));
                    rows.is_some_and(|(row, interface)| {
                        *port != bridge.name
                            && port_owner(row, interface.map(AsRef::as_ref), self.settings) != Owner::Nobody
                    })
                });
            if !is_trunk_bridge(name) || !free || used {
                continue;
            }
            let why = format!("{name} is a trunk bridge as neutron names it, and no VIF's port is on it");
            let mut sign = Sign::of_link(name, "", None, None, why);
            (sign.kind, sign.bridge) = (None, Some(name.to_string()));
            found.push(sign);
        }
    }
}

impl Sign {
    fn of_link(
        name: &str,
        kind: &'static str,
        profile: Option<&'static str>,
        bridge: Option<&Link>,
        why: String,
    ) -> Sign {
        Sign {
            name: name.to_owned(),
            device: name.to_owned(),
            bridge: bridge.map(|bridge| bridge.name.clone()),
            own_bridges: Vec::new(),
            kind: Some(kind),
            profile,
            made_by: MadeBy::Unknown,
            evidence: vec![why],
            interface_id: None,
            id: None,
            record: None,
            unknown: Vec::new(),
        }
    }

    fn finish(mut self, mut draft: Draft) -> Sign {
        if let Some(kind) = self.kind {
            draft.vif.insert("type".into(), kind.into());
        }
        let (record, unknown) = draft.finish();
        (self.record, self.unknown) = (Some(record), unknown);
        self
    }
}

fn near_name(near: Option<&std::sync::Arc<Port>>) -> &str {
    near.map_or("", |near| near.name.as_str())
}

/// A netdev of hardware's, or a representor.
fn is_device(interface: &Interface, link: Option<&Link>) -> bool {
    let hardware = link.is_some_and(|link| matches!(&link.kind, LinkKind::Other(kind) if kind.is_empty()));
    interface.kind == "dpdk" || (interface.kind.is_empty() && hardware)
}

/// The VIF's id, where the name of its port is cut from the UUID in `iface-id`: of another name that may be the id of
/// something else, which a controller chose.
fn id_of(name: &str, iface_id: &str) -> Option<VifId> {
    let id = VifId(iface_id.parse::<Uuid>().ok()?);
    // As os-vif and Nova cut names, neutron those of sub-ports, and what is long enough for all of it.
    let fourteen = ["tap", "qvo", "vhu", "vfr", "nic"].iter().any(|prefix| cut_name(prefix, id) == name);
    let of_fifteen = format!("spi-{id}").starts_with(name) && name.len() == 15;
    (fourteen || of_fifteen || name == format!("ibp{id}")).then_some(id)
}

/// Whether a name is a prefix of three letters and the beginning of a UUID, 14 characters in all.
fn is_cut(name: &str) -> bool {
    let Some(rest) = name.get(3..).filter(|_| name.len() == 14) else { return false };
    rest.char_indices().all(|(at, letter)| if at == 8 { letter == '-' } else { letter.is_ascii_hexdigit() })
}
