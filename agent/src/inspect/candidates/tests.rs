//! What is recognised on a host in memory, and what is said of it.

use serde_json::json;

use super::*;
use crate::backend::nics::{EswitchSetting, NicOp};
use crate::backend::world::World;
use crate::config::Config;
use crate::model::{BridgeConfig, Link, LinkKind};

const ID: &str = "dc065497-3c8d-4f44-8fb4-e1d33c16a536";
const MAC: &str = "52:54:00:12:34:56";

fn ids<const N: usize>(more: [(&str, &str); N]) -> StringMap {
    let all = [("iface-id", ID), ("iface-status", "active"), ("attached-mac", MAC)].into_iter().chain(more);
    all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn world() -> World {
    let mut world = World::new(true);
    world.add_bridge("br-int", "", StringMap::new());
    world
}

fn seen(world: &World, vifs: &[Vif]) -> Seen {
    let vifs = vifs.iter().map(|vif| (vif.id, Arc::new(vif.clone()))).collect();
    Seen {
        desired: Arc::new(Desired { synced: true, vifs, ..Desired::default() }),
        clashes: BTreeMap::new(),
        observed: world.observed(),
        settings: Config::default().settings().unwrap(),
        enforce: true,
    }
}

fn listed(seen: &Seen) -> Candidates {
    candidates(seen, None, Instant::now()).unwrap()
}

/// The only candidate.
fn only(world: &World) -> Candidate {
    let mut all = listed(&seen(world, &[]));
    assert_eq!(all.candidates.len(), 1, "{:?}", all.candidates);
    all.candidates.remove(0)
}

fn persistent(multi_queue: bool) -> LinkKind {
    LinkKind::Tap { multi_queue, persistent: true }
}

fn change(world: &mut World, name: &str, change: impl FnOnce(&mut Link)) {
    change(Arc::make_mut(world.kernel.links.get_mut(name).unwrap()));
}

#[test]
fn a_port_with_its_tap_tells_nearly_everything() {
    let mut world = world();
    world.add_link("tapdc065497-3c", persistent(true), None);
    change(&mut world, "tapdc065497-3c", |link| link.mtu = 1450);
    world.add_port("br-int", "tapdc065497-3c", "", ids([("vm-uuid", "guest")]));
    let one = only(&world);
    assert_eq!((one.made_by, one.id, one.standing.state), (MadeBy::OsVif, ID.parse().ok(), State::NoRecord));
    let expected = json!({
        "vif": {
            "type": "openvswitch", "id": ID, "address": MAC, "vif_name": "tapdc065497-3c",
            "network": { "bridge": "br-int", "mtu": 1450 },
            "port_profile": {
                "type": "openvswitch", "interface_id": ID, "datapath_type": "system",
                "create_port": true, "create_tap": true, "multiqueue": true,
            },
        },
        "instance": { "uuid": "guest" },
    });
    assert_eq!(one.record, Some(expected));
    assert_eq!(one.unknown, ["vif.network.id", "vif.network.subnets", "policy", "instance.name"]);
    assert!(one.evidence.iter().any(|sentence| sentence.contains("persistent tap")), "{:?}", one.evidence);
}

#[test]
fn who_made_a_port_is_said_by_the_keys_that_it_has() {
    for (keys, made_by, create_port) in [
        (&["vm-uuid"][..], MadeBy::OsVif, Some(true)),
        (&["vm-id"], MadeBy::Libvirt, Some(false)),
        (&["vm-uuid", "vm-id"], MadeBy::Vifd, None),
        (&[], MadeBy::Unknown, None),
    ] {
        let mut world = world();
        let mut ids = ids([]);
        ids.extend(keys.iter().map(|key| ((*key).to_owned(), "guest".to_owned())));
        world.add_port("br-int", "tapdc065497-3c", "", ids);
        let one = only(&world);
        assert_eq!(one.made_by, made_by, "{keys:?}");
        let record = one.record.unwrap();
        assert_eq!(record["vif"]["port_profile"].get("create_port"), create_port.map(Value::from).as_ref(), "{keys:?}");
        let named = one.unknown.iter().any(|path| path == "vif.port_profile.create_port");
        assert_eq!(named, create_port.is_none(), "{keys:?}");
        assert!(one.unknown.iter().any(|path| path == "vif.network.mtu"), "no device, no MTU");
    }
}

#[test]
fn an_id_is_told_only_where_the_name_is_cut_from_it() {
    for (name, iface_id, known) in [
        ("tapdc065497-3c", ID, true),
        ("tap1", ID, false),
        ("tapdc065497-3c", "ns_pod", false),
        ("tapdc065497-3d", ID, false),
    ] {
        let mut world = world();
        let mut ids = ids([("vm-uuid", "guest")]);
        ids.insert("iface-id".into(), iface_id.into());
        world.add_port("br-int", name, "", ids);
        let one = only(&world);
        assert_eq!(one.id.is_some(), known, "{name} {iface_id}");
        let record = one.record.unwrap();
        assert_eq!(record["vif"].get("id").is_some(), known);
        assert_eq!(one.unknown.contains(&"vif.id".to_owned()), !known);
        assert_eq!(one.standing.message.contains("its id is not known"), !known, "{}", one.standing.message);
        assert_eq!(record["vif"]["port_profile"]["interface_id"], iface_id);
    }
}

#[test]
fn hybrid_vifs_are_read_through_their_veth_and_bridge() {
    let mut world = world();
    let bridge = BridgeConfig { ageing_time: 0, forward_delay: 0, stp: false, multicast_snooping: false };
    world.add_link("qbrdc065497-3c", LinkKind::Bridge(bridge), None);
    for name in ["qvbdc065497-3c", "qvodc065497-3c", "tapdc065497-3c"] {
        world.add_link(name, if name.starts_with("tap") { persistent(false) } else { LinkKind::Veth }, None);
    }
    let index = |world: &World, name: &str| Some(world.kernel.links[name].index);
    let (own, near, far) =
        (index(&world, "qbrdc065497-3c"), index(&world, "qvbdc065497-3c"), index(&world, "qvodc065497-3c"));
    change(&mut world, "qvbdc065497-3c", |link| (link.master, link.lower) = (own, far));
    change(&mut world, "qvodc065497-3c", |link| link.lower = near);
    change(&mut world, "tapdc065497-3c", |link| link.master = own);
    // Without its port it is half of something.
    let half = only(&world);
    assert_eq!((half.name.as_str(), half.id, half.standing.state), ("qvbdc065497-3c", None, State::NoRecord));
    assert_eq!(half.record.unwrap()["vif"]["bridge_name"], "qbrdc065497-3c");

    world.add_port("br-int", "qvodc065497-3c", "", ids([("vm-uuid", "guest")]));
    let one = only(&world);
    assert_eq!((one.kind.as_deref(), one.id), (Some("bridge"), ID.parse().ok()));
    let vif = &one.record.unwrap()["vif"];
    assert_eq!((&vif["bridge_name"], &vif["vif_name"]), (&json!("qbrdc065497-3c"), &json!("tapdc065497-3c")));
    for bridge in ["br-int", "qbrdc065497-3c"] {
        assert_eq!(candidates(&seen(&world, &[]), Some(bridge), Instant::now()).unwrap().candidates.len(), 1);
    }
    assert_eq!(candidates(&seen(&world, &[]), Some("br-x"), Instant::now()).unwrap().candidates, []);
}

#[test]
fn vhost_user_ports_tell_their_mode_and_the_socket_that_is_named() {
    for (kind, mode) in [("dpdkvhostuser", "client"), ("dpdkvhostuserclient", "server")] {
        let mut world = world();
        world.add_port("br-int", "vhudc065497-3c", kind, ids([("vm-uuid", "guest")]));
        let interface = Arc::make_mut(world.ovs.interfaces.get_mut("vhudc065497-3c").unwrap());
        interface.mtu_request = Some(1450);
        let without = only(&world);
        assert_eq!(without.record.as_ref().unwrap()["vif"]["mode"], mode);
        assert!(without.unknown.contains(&"vif.path".to_owned()), "nothing names a socket");
        assert!(without.standing.message.contains("does not tell: vif.path"), "{}", without.standing.message);
        let interface = Arc::make_mut(world.ovs.interfaces.get_mut("vhudc065497-3c").unwrap());
        match kind {
            "dpdkvhostuser" => interface.status.insert("socket", "/run/s"),
            _ => interface.options.insert("vhost-server-path", "/run/s"),
        }
        let vif = &only(&world).record.unwrap()["vif"];
        assert_eq!((&vif["path"], &vif["network"]["mtu"]), (&json!("/run/s"), &json!(1450)));
    }
}

#[test]
fn a_bridge_of_its_own_and_a_sub_ports_patch_are_one_vif_each() {
    let mut world = world();
    world.add_bridge("pbdc065497-3c8", "netdev", StringMap::new());
    world.add_port("pbdc065497-3c8", "tap1", "", StringMap::new());
    let (near, far) = (format!("pbp{ID}"), format!("ibp{ID}"));
    world.add_port("pbdc065497-3c8", &near, "patch", StringMap::new());
    world.add_port("br-int", &far, "patch", ids([("vm-uuid", "guest")]));
    Arc::make_mut(world.ovs.interfaces.get_mut(far.as_str()).unwrap()).options.insert("peer", near.as_str());
    let one = only(&world);
    assert_eq!((one.id, one.bridge.as_deref()), (ID.parse().ok(), Some("br-int")));
    assert_eq!(one.record.unwrap()["vif"]["vif_name"], "tap1");

    let mut world = self::world();
    world.add_bridge("tbr-1", "", StringMap::new());
    let parent = "aa065497-3c8d-4f44-8fb4-e1d33c16a536";
    let mut of_parent = ids([("vm-uuid", "guest")]);
    of_parent.insert("iface-id".into(), parent.into());
    world.add_port("tbr-1", "tapaa065497-3c", "", of_parent);
    world.add_port("tbr-1", "spt-dc065497-3c", "patch", ids([]));
    world.add_port("br-int", "spi-dc065497-3c", "patch", ids([]));
    let far = world.ovs.interfaces.get_mut("spi-dc065497-3c").unwrap();
    Arc::make_mut(far).options.insert("peer", "spt-dc065497-3c");
    Arc::make_mut(world.ovs.ports.get_mut("spt-dc065497-3c").unwrap()).tag = Some(101);
    let all = listed(&seen(&world, &[])).candidates;
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["spi-dc065497-3c", "tapaa065497-3c"]);
    let record = all[0].record.as_ref().unwrap();
    assert_eq!((&record["parent"]["vif"], &record["parent"]["vlan"]), (&json!(parent), &json!(101)));
}

#[test]
fn a_representors_port_tells_of_which_function_and_the_planner_would_take_it_over() {
    let mut world = world();
    let nic = world.add_nic("0000:03:00.0".parse().unwrap(), "ice", 4);
    let setting = EswitchSetting::Mode(devlink::EswitchMode::Switchdev);
    world.apply_nic(&NicOp::SetEswitch { nic: nic.clone(), setting });
    world.apply_nic(&NicOp::SetVfCount { nic: nic.clone(), count: 2 });
    let function = world.nics.nics[&nic].functions.values().nth(1).unwrap();
    let name = function.representor.netdev().unwrap().name.clone();
    world.rename_link(&name, "nicdc065497-3c");
    world.switch();
    world.add_port("br-int", "nicdc065497-3c", "", ids([("vm-uuid", "guest")]));
    let one = only(&world);
    assert_eq!((one.kind.as_deref(), one.made_by), (Some("hostdevice"), MadeBy::OsVif));
    let address = World::function_address(&nic, 1).unwrap().to_string();
    let vif = &one.record.as_ref().unwrap()["vif"];
    assert_eq!(vif["dev_address"], address.as_str());
    let offload = json!({"representor_name": "nicdc065497-3c", "representor_address": address});
    assert_eq!(vif["port_profile"]["datapath_offload"], offload);
    assert!(one.evidence.iter().any(|line| line.contains("representor of pf0vf1 on NIC")), "{:?}", one.evidence);
    // The record as it is given is a good one.
    let record = crate::record::decode(one.record.unwrap().to_string().as_bytes()).unwrap();
    assert!(one.standing.message == "there is no record for it", "{:?}", one.standing);
    let with = listed(&seen(&world, &[record.vif])).candidates.remove(0);
    assert_ne!(with.standing.state, State::Conflict, "{:?}", with.standing);

    // Of a netdev that represents nothing its address is not known.
    world.add_link("eth9", LinkKind::Other(String::new()), None);
    world.add_port("br-int", "eth9", "", ids([]));
    let all = listed(&seen(&world, &[]));
    let plain = all.candidates.iter().find(|one| one.name == "eth9").unwrap();
    assert!(plain.unknown.contains(&"vif.dev_address".to_owned()), "{plain:?}");
}

#[test]
fn what_is_somebody_elses_is_counted_with_the_reason() {
    let mut world = world();
    let entry = |key: &str, value: &str| StringMap::from([(key.to_owned(), value.to_owned())]);
    world.add_port("br-int", "ovn-1", "geneve", entry("ovn-chassis-id", "x"));
    world.add_port("br-int", "dhcp", "internal", ids([]));
    world.add_port("br-int", "pod", "", entry("iface-id", "ns_pod"));
    world.add_port("br-int", "other", "", entry("vifd-owner", "other"));
    // An uplink looks like nothing of the kind.
    world.add_port("br-int", "eth1", "", StringMap::new());
    let all = listed(&seen(&world, &[]));
    assert_eq!(all.candidates, []);
    let told: Vec<_> = all.foreign.iter().map(|of| (of.names.join(" "), of.count)).collect();
    for name in ["ovn-1", "dhcp", "pod", "other"] {
        assert!(told.contains(&(name.to_owned(), 1)), "{told:?}");
    }
    assert_eq!(told.len(), 4);
}

#[test]
fn links_without_a_port_are_told_of_by_their_names() {
    let mut world = world();
    let bridge = BridgeConfig { ageing_time: 0, forward_delay: 0, stp: false, multicast_snooping: false };
    world.add_link("brq-flat", LinkKind::Bridge(bridge), None);
    world.add_link("tapdc065497-3c", persistent(false), None);
    world.add_link("tap1", persistent(false), None);
    let one = only(&world);
    assert_eq!((one.name.as_str(), one.kind.as_deref(), one.id), ("tapdc065497-3c", None, None));
    assert!(one.unknown.contains(&"vif.type".to_owned()), "{:?}", one.unknown);
    let master = Some(world.kernel.links["brq-flat"].index);
    change(&mut world, "tapdc065497-3c", |link| link.master = master);
    let one = only(&world);
    assert_eq!((one.kind.as_deref(), one.bridge.as_deref()), (Some("bridge"), Some("brq-flat")));
    world.add_bridge("tbr-1", "", StringMap::new());
    let all = listed(&seen(&world, &[])).candidates;
    let trunk = all.iter().find(|one| one.name == "tbr-1").unwrap();
    assert_eq!((trunk.record.as_ref(), trunk.standing.state), (None, State::NoRecord));
}

#[test]
fn with_a_record_it_is_said_what_vifd_does_in_the_planners_words() {
    let mut world = world();
    world.add_link("tapdc065497-3c", persistent(false), None);
    let mac = MAC.parse().ok();
    change(&mut world, "tapdc065497-3c", |link| link.mac = mac);
    world.add_port("br-int", "tapdc065497-3c", "", ids([("vm-uuid", "guest")]));
    let proposed = only(&world);
    assert_eq!(proposed.standing.message, "there is no record for it");
    let vif = record::decode(proposed.record.unwrap().to_string().as_bytes()).unwrap().vif;

    let mut scene = seen(&world, std::slice::from_ref(&vif));
    let state = |scene: &Seen| {
        let all = listed(scene);
        let one = &all.candidates[0];
        assert_eq!((one.vif, one.record.as_ref(), one.unknown.len()), (Some(vif.id), None, 0));
        one.standing.clone()
    };
    assert_eq!(state(&scene).state, State::Adoptable);
    scene.settings.adopt = true;
    assert_eq!(state(&scene).state, State::Adopted);
    scene.settings.adopt = false;
    let other = Vif { address: "52:54:00:00:00:99".parse().ok(), ..vif.clone() };
    let told = state(&seen(&world, &[other]));
    assert_eq!(told.state, State::Conflict);
    assert!(told.message.contains("address 52:54:00:12:34:56, the record says 52:54:00:00:00:99"), "{}", told.message);
    scene.clashes.insert(vif.id, crate::plan::Clash { field: "vif.address".into(), reason: "is another's".into() });
    assert_eq!(state(&scene), Standing { state: State::Rejected, message: "vif.address: is another's".into() });
}

#[test]
fn while_a_view_is_not_complete_nothing_is_told() {
    let mut scene = seen(&world(), &[]);
    scene.observed.links = crate::model::View::Syncing;
    assert_eq!(candidates(&scene, None, Instant::now()), None);
}
