//! Types that live on links of the kernel's.

use std::sync::Arc;

use serde_json::{Value, json};
use vifd::model::{BridgeConfig, DeviceAccess, DeviceOwner, Link, LinkKind, Vif};
use vifd::plan::{Missing, Verdict};

use crate::case::{A, B, Case, judged, ovs, record, whole_life};

const FPTAP: &str = "tapdc065497-3c";

fn hybrid(id: &str) -> Arc<Vif> {
    let short = &id[..11];
    let names = json!({
        "type": "bridge", "vif_name": format!("tap{short}"), "bridge_name": format!("qbr{short}"),
        "port_profile": ovs(&json!({})),
    });
    record(id, &names)
}

pub(crate) fn plain(id: &str, number: u8, network: &Value) -> Arc<Vif> {
    let mut whole = json!({"id": "9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11", "bridge": "brq1", "mtu": 1450});
    for (key, value) in network.as_object().unwrap() {
        whole[key] = value.clone();
    }
    record(
        id,
        &json!({
            "type": "bridge", "vif_name": format!("tap{number}"), "bridge_name": "brq1", "network": whole,
            "address": format!("52:54:00:00:00:{number:02x}"),
        }),
    )
}

fn vhost(vif: &Value) -> Arc<Vif> {
    let mut whole = json!({"type": "vhostuser", "path": "/run/vhost/vhu.sock", "mode": "server"});
    for (key, value) in vif.as_object().unwrap() {
        whole[key] = value.clone();
    }
    record(A, &whole)
}

pub(crate) fn flat() -> Value {
    json!({"should_provide_bridge": true, "bridge_interface": "eth1"})
}

pub(crate) fn link<'a>(case: &'a mut Case, name: &str) -> &'a mut Link {
    Arc::make_mut(case.world.kernel.links.get_mut(name).unwrap())
}

/// A host with an interface that has an address.
pub(crate) fn with_uplink(vifs: impl IntoIterator<Item = Arc<Vif>>) -> Case {
    let mut case = Case::new(vifs);
    case.world.add_link("eth1", LinkKind::Other(String::new()), None);
    let uplink = link(&mut case, "eth1");
    (uplink.up, uplink.addresses) = (true, vec!["192.0.2.7/24".parse().unwrap()]);
    case
}

/// The hypervisor sets its device up and puts it nowhere.
pub(crate) fn tap_is_up(case: &mut Case, name: &str) {
    case.device(name);
    link(case, name).up = true;
}

#[test]
fn hybrid_plug() {
    insta::assert_snapshot!(whole_life(&mut Case::new([hybrid(A)])));
}

#[test]
fn a_device_that_the_hypervisor_leaves_alone_goes_into_its_bridge_when_it_is_up() {
    let mut case = Case::new([hybrid(A)]);
    case.converge();
    case.device("tapdc065497-3c").converge();
    case.say("it is up");
    link(&mut case, "tapdc065497-3c").up = true;
    case.converge();
    case.say("somebody puts it into another bridge");
    link(&mut case, "tapdc065497-3c").master = Some(999);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn hybrid_links_that_somebody_changed_are_as_they_were() {
    let mut case = Case::new([hybrid(A)]);
    case.converge();
    case.say("settings");
    link(&mut case, "qbrdc065497-3c").kind = LinkKind::Bridge(BridgeConfig {
        ageing_time: 30_000,
        forward_delay: 1_500,
        stp: true,
        multicast_snooping: true,
    });
    let near = link(&mut case, "qvbdc065497-3c");
    (near.up, near.promiscuous, near.master) = (false, false, None);
    link(&mut case, "qvodc065497-3c").mtu = 9000;
    case.converge();
    case.say("the bridge is gone");
    case.world.remove_link("qbrdc065497-3c");
    case.converge();
    case.say("a veth is gone, and so is the other");
    case.world.remove_link("qvbdc065497-3c");
    case.world.switch();
    case.converge();
    case.say("names");
    case.world.rename_link("qbrdc065497-3c", "br-mine");
    case.world.rename_link("qvbdc065497-3c", "veth-mine");
    case.converge();
    case.say("a veth went to another network namespace");
    case.world.kernel.links.remove("qvodc065497-3c");
    link(&mut case, "qvbdc065497-3c").lower = None;
    case.world.switch();
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_wiped_mark_comes_back_where_the_other_end_of_the_pair_has_its_own() {
    let mut case = Case::new([hybrid(A)]);
    case.converge();
    for name in ["qvbdc065497-3c", "qvodc065497-3c", "qbrdc065497-3c"] {
        case.say(name);
        link(&mut case, name).alias = None;
        case.converge();
    }
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_tap_that_somebody_renamed_gets_its_name_back_and_its_guest_stays() {
    let mut case = Case::new([record(A, &json!({"type": "generic", "vif_name": FPTAP}))]);
    case.converge();
    case.world.rename_link(FPTAP, "mine");
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn what_a_crash_left_half_made_goes() {
    let mut case = Case::new([hybrid(A)]);
    for (name, kind) in [("qvbdc065497-3c", LinkKind::Veth), ("qbr0e5d7a5b-4d", LinkKind::Veth)] {
        case.world.add_link(name, kind, None);
        link(&mut case, name).group = case.settings.nursery();
    }
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn links_that_are_not_ours_are_conflicts() {
    let mut text = String::new();
    for (name, kind) in
        [("qbrdc065497-3c", LinkKind::Veth), ("qvodc065497-3c", LinkKind::Veth), ("qvbdc065497-3c", LinkKind::Veth)]
    {
        let mut case = Case::new([hybrid(A)]);
        case.say(&format!("a {} named {name} is there", kind.name()));
        case.world.add_link(name, kind, None);
        case.converge();
        text.push_str(&case.text);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_linux_bridge_takes_over_the_addresses_of_its_interface_and_gives_them_back() {
    let mut case = with_uplink([plain(A, 1, &flat()), plain(B, 2, &flat())]);
    case.converge();
    tap_is_up(&mut case, "tap1");
    case.converge().show();
    assert_eq!(link(&mut case, "eth1").addresses.len(), 0);
    case.say("the first goes, its guest stays");
    let first = case.desired.vifs.remove(&A.parse().unwrap()).unwrap();
    case.desired.deleted.insert(first.id);
    case.converge();
    case.unplug();
    case.say("the guest goes");
    case.world.remove_link("tap1");
    case.converge();
    assert_eq!(link(&mut case, "eth1").addresses.len(), 1);
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_linux_bridge_on_a_vlan() {
    let vlan =
        json!({"should_provide_bridge": true, "should_provide_vlan": true, "vlan": 5, "bridge_interface": "eth1"});
    insta::assert_snapshot!(whole_life(&mut with_uplink([plain(A, 1, &vlan)])));
}

#[test]
fn another_uplink() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.world.add_link("eth2", LinkKind::Other(String::new()), None);
    case.converge();
    case.say("the network is on eth2 now");
    let network = json!({"should_provide_bridge": true, "bridge_interface": "eth2"});
    case.desired.vifs = [plain(A, 1, &network)].into_iter().map(|vif| (vif.id, vif)).collect();
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn what_is_wrong_about_a_linux_bridge_is_said() {
    let mut text = String::new();
    let mut told = |what: &str, case: &mut Case| {
        case.say(what);
        case.converge();
        text.push_str(&std::mem::take(&mut case.text));
    };
    told("no such interface", &mut Case::new([plain(A, 1, &flat())]));
    let vlan =
        json!({"should_provide_bridge": true, "should_provide_vlan": true, "vlan": 5, "bridge_interface": "eth1"});
    told("no such interface for a VLAN", &mut Case::new([plain(A, 1, &vlan)]));
    told("no bridge and none to be made", &mut Case::new([plain(A, 1, &json!({}))]));
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.world.add_link("brq1", LinkKind::Veth, None);
    told("a bridge that is none", &mut case);
    let mut case = Case::new([plain(A, 1, &json!({}))]);
    case.world.add_link("brq1", LinkKind::Veth, None);
    told("a bridge that is none and is not to be made", &mut case);
    let mut case = with_uplink([plain(A, 1, &flat())]);
    link(&mut case, "eth1").master = Some(77);
    told("an interface in another bridge", &mut case);
    case.converge();
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.converge();
    case.world.remove_link("eth1");
    told("an interface that went", &mut case);
    let other = json!({"should_provide_bridge": true, "bridge_interface": "eth2"});
    told("two VIFs that want two uplinks", &mut with_uplink([plain(A, 1, &flat()), plain(B, 2, &other)]));
    insta::assert_snapshot!(text);
}

#[test]
fn a_bridge_that_somebody_made_is_used_as_it_is() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    let config = BridgeConfig { ageing_time: 1, forward_delay: 1, stp: true, multicast_snooping: true };
    case.world.add_link("brq1", LinkKind::Bridge(config), None);
    case.say("eth1 is not in it");
    case.converge();
    case.say("eth1 is in it");
    let index = link(&mut case, "brq1").index;
    link(&mut case, "eth1").master = Some(index);
    tap_is_up(&mut case, "tap1");
    case.converge();
    case.unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn vhostuser_on_a_named_bridge_of_the_fast_path() {
    let profile = json!({"type": "fp_openvswitch", "bridge_name": "br-fp", "hybrid_plug": false,
                         "interface_id": "6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77"});
    insta::assert_snapshot!(whole_life(&mut Case::new([vhost(&json!({"port_profile": profile}))])));
}

#[test]
fn vhostuser_on_the_fast_path_with_a_linux_bridge_in_between() {
    let profile = json!({"type": "fp_openvswitch", "bridge_name": "qbrdc065497-3c", "hybrid_plug": true,
                         "interface_id": "6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77"});
    insta::assert_snapshot!(whole_life(&mut Case::new([vhost(&json!({"port_profile": profile}))])));
}

#[test]
fn vhostuser_on_the_fast_path_into_a_linux_bridge() {
    let profile = json!({"type": "fp_bridge", "bridge_name": "brq1"});
    let mut case = Case::new([vhost(&json!({"port_profile": profile, "mode": "client"}))]);
    case.converge();
    case.say("ovs-vswitchd began anew: its netdev is another");
    case.world.remove_link("fpidc065497-3c");
    case.world.switch();
    insta::assert_snapshot!(whole_life(&mut case));
}

/// ovs-vswitchd takes its time to remove the netdev. When it has, the VIF is gone, and with it the news of the last one.
#[test]
fn the_linux_bridge_of_the_last_vif_does_not_wait_for_its_netdev() {
    let profile = json!({"type": "fp_bridge", "bridge_name": "brq1"});
    let mut case = Case::new([vhost(&json!({"vif_name": FPTAP, "port_profile": profile}))]);
    case.converge();
    let netdev = Link::clone(&case.world.kernel.links[FPTAP]);
    case.say("unplug; the ports are gone, the netdev is there");
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    for port in [FPTAP, "vhudc065497-3c"] {
        case.world.delete_port(port);
    }
    case.world.kernel.links.insert(FPTAP.to_owned(), Arc::new(netdev));
    case.world.ovs.letting_go.insert(FPTAP.into());
    case.converge();
    assert!(!case.world.kernel.links.contains_key("brq1"));
    insta::assert_snapshot!(case.text);
}

#[test]
fn vhostuser_on_the_fast_path_keeps_its_netdev_right() {
    let profile = json!({"type": "fp_tap", "mac_address": "ee:ee:ee:ee:ee:ee"});
    let mut case = Case::new([vhost(&json!({"vif_name": FPTAP, "port_profile": profile}))]);
    case.converge();
    let netdev = link(&mut case, FPTAP);
    (netdev.mac, netdev.mtu, netdev.up) = (None, 9000, false);
    case.say("somebody changed its netdev");
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

/// As a plain place in that bridge does, so that both can be in it.
#[test]
fn a_fast_path_into_the_linux_bridge_of_a_network_with_an_uplink() {
    let profile = json!({"type": "fp_bridge", "bridge_name": "brq1"});
    let mut network = flat();
    (network["id"], network["mtu"]) = (json!("9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11"), json!(1450));
    let fast = vhost(&json!({"vif_name": FPTAP, "port_profile": profile, "network": network}));
    let mut case = with_uplink([fast, plain(B, 2, &flat())]);
    insta::assert_snapshot!(whole_life(&mut case));
}

#[test]
fn vhostuser_on_the_fast_path_to_a_routed_tap() {
    let profile = json!({"type": "fp_tap", "mac_address": "ee:ee:ee:ee:ee:ee"});
    insta::assert_snapshot!(whole_life(&mut Case::new([vhost(&json!({"vif_name": FPTAP, "port_profile": profile}))])));
}

#[test]
fn macvtaps_in_each_mode() {
    let mut text = String::new();
    for (mode, vlan_name, network) in [
        ("vepa", None, json!({"bridge_interface": "eth1"})),
        ("bridge", None, json!({"bridge_interface": "eth1"})),
        ("passthrough", Some("vlan7"), json!({"bridge_interface": "eth1", "vlan": 7})),
        ("bridge", Some("eth1.9"), json!({})),
        ("bridge", None, json!({"bridge_interface": "eth9"})),
    ] {
        let vif = json!({"type": "direct", "vif_name": "macvtap0", "mode": mode, "vlan_name": vlan_name,
                         "network": network});
        let mut case = with_uplink([record(A, &vif)]);
        case.say(&vif.to_string());
        text.push_str(&whole_life(&mut case));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn facts_tell_of_device_bridge_and_uplink_and_which_are_not_there() {
    let told = |case: &Case| {
        let facts = Arc::clone(&judged(case, A).facts);
        let unseen: Vec<String> = facts.unseen.iter().map(ToString::to_string).collect();
        let names = [&facts.port, &facts.guest_device, &facts.linux_bridge, &facts.uplink];
        (names.map(|name| name.clone().unwrap_or_default()).join(" "), unseen.join(" "))
    };
    let mut case = with_uplink([plain(A, 1, &flat())]);
    assert_eq!(told(&case), (" tap1 brq1 eth1".into(), "netdev guest_device linux_bridge".into()));
    case.converge();
    assert_eq!(told(&case), (" tap1 brq1 eth1".into(), "guest_device".into()));
    tap_is_up(&mut case, "tap1");
    case.converge();
    assert_eq!(told(&case), (" tap1 brq1 eth1".into(), String::new()));
    // A bridge that is not vifd's to make is told of as well.
    let case = Case::new([plain(A, 1, &json!({}))]);
    assert_eq!(told(&case), (" tap1 brq1 ".into(), "guest_device linux_bridge".into()));
    let mut case = Case::new([hybrid(A)]);
    case.converge();
    let names = "qvodc065497-3c tapdc065497-3c qbrdc065497-3c ";
    assert_eq!(told(&case), (names.into(), "guest_device".into()));
    let vif = json!({"type": "direct", "vif_name": "macvtap0",
                     "network": {"bridge_interface": "eth9"}});
    let mut case = Case::new([record(A, &vif)]);
    case.converge();
    assert_eq!(told(&case), ("   eth9".into(), "netdev uplink".into()));
}

#[test]
fn the_device_of_a_macvtap_gets_its_owner() {
    let vif = json!({"type": "direct", "vif_name": "macvtap0",
                     "network": {"bridge_interface": "eth1"}});
    let mut case = with_uplink([record(A, &vif)]);
    case.settings.device_access = DeviceAccess { uid: Some(64055), gid: None, mode: Some(0o660) };
    case.say("plug");
    case.converge().show();
    case.say("somebody gives it to another");
    case.world.set_device("macvtap0", Some(DeviceOwner { uid: 1000, gid: 7, mode: 0o660 }));
    case.converge().show();
    case.say("the group is left as it is");
    case.world.set_device("macvtap0", Some(DeviceOwner { uid: 64055, gid: 1000, mode: 0o660 }));
    case.converge().show();
    case.say("there is no node");
    case.world.set_device("macvtap0", None);
    case.converge().show();
    let index = case.world.kernel.links["macvtap0"].index;
    let judgement = judged(&case, A);
    let path = format!("/dev/tap{index}");
    assert_eq!(judgement.verdict, Verdict::Plugged(Missing::Device(path.clone())));
    assert_eq!((judgement.plugged, judgement.link_ready), (true, Some(true)));
    assert_eq!(judgement.facts.device, Some(path));
    // Nobody asked for an owner: it is nothing that vifd looks at.
    case.settings.device_access = DeviceAccess::default();
    assert_eq!(judged(&case, A).verdict, Verdict::Ready);
    case.unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn an_interface_is_the_uplink_of_one_bridge() {
    let other = json!({
        "type": "bridge", "vif_name": "tap2", "bridge_name": "brq2", "address": "52:54:00:00:00:02",
        "network": {"bridge": "brq2", "should_provide_bridge": true, "bridge_interface": "eth1"},
    });
    let mut case = with_uplink([plain(A, 1, &flat()), record(B, &other)]);
    case.converge();
    let is = judged(&case, A).verdict;
    let says = |why: &str| why.contains(&format!("VIF {B} has eth1 for the uplink of brq2"));
    assert!(matches!(&is, Verdict::Rejected { reason, .. } if says(reason)), "{is:?}");
    assert!(!case.world.kernel.links.contains_key("brq1"));
}
