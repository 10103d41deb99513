//! Every type that is plugged and unplugged.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::model::Vif;
use vifd::plan::{Facts, Missing, Verdict};

use crate::case::{A, B, Case, guest, judged, ovs, port, record, whole_life};

#[test]
fn openvswitch_port_on_a_device_of_the_hypervisor() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true})))]);
    case.say("plug");
    case.converge().show().device("tapdc065497-3c").converge().show().unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn openvswitch_port_with_its_tap() {
    let profile = json!({"create_port": true, "create_tap": true, "multiqueue": true});
    insta::assert_snapshot!(whole_life(&mut Case::new([record(A, &port(&profile))])));
}

#[test]
fn openvswitch_bridge_is_made_where_it_is_missing_and_stays() {
    let profile = json!({"create_port": true, "create_tap": true, "datapath_type": "netdev"});
    let mut case = Case::new([record(A, &port(&profile))]);
    case.world = World::new(false);
    insta::assert_snapshot!(whole_life(&mut case));
}

#[test]
fn a_port_that_libvirt_makes_deletes_and_makes_again_is_tended() {
    let mut case = Case::new([record(A, &port(&json!({})))]);
    let ids = |id: &str| StringMap::from([("iface-id".into(), id.into()), ("vm-name".into(), "guest".into())]);
    case.say("plug");
    case.converge();
    case.device("tapdc065497-3c");
    case.world.add_port("br-int", "tapdc065497-3c", "", ids("6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77"));
    case.world.switch();
    case.converge().show();
    case.say("libvirt deletes it and makes it again");
    case.world.delete_port("tapdc065497-3c");
    case.world.add_port("br-int", "tapdc065497-3c", "", ids("6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77"));
    case.world.switch();
    case.converge();
    case.say("somebody makes it with another iface-id");
    case.world.delete_port("tapdc065497-3c");
    case.world.add_port("br-int", "tapdc065497-3c", "", ids("5f0f9f0a-0000-4000-8000-000000000000"));
    case.world.switch();
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn openvswitch_trunk_bridge_comes_and_goes_with_its_port() {
    let mut vif = port(&json!({"create_port": true, "create_tap": true}));
    vif["network"] = json!({"bridge": "tbr-1234", "mtu": 1450});
    insta::assert_snapshot!(whole_life(&mut Case::new([record(A, &vif)])));
}

#[test]
fn openvswitch_per_port_bridge() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.settings.per_port_bridge = true;
    case.settings.isolate = true;
    insta::assert_snapshot!(whole_life(&mut case));
}

#[test]
fn openvswitch_isolation_is_for_new_ports_only() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.settings.isolate = true;
    case.say("plug");
    case.converge().show();
    case.say("neutron gives it a VLAN");
    let row = Arc::make_mut(case.world.ovs.ports.get_mut("tapdc065497-3c").unwrap());
    (row.tag, row.trunks, row.vlan_mode) = (Some(7), BTreeSet::new(), None);
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn vhostuser_where_open_vswitch_listens() {
    let vif = json!({
        "type": "vhostuser", "path": "/run/vhost/vhudc065497-3c", "mode": "client",
        "port_profile": ovs(&json!({"datapath_type": "netdev"})),
    });
    let mut case = Case::new([record(A, &vif)]);
    case.say("plug");
    case.converge().show();
    case.say("ovs-vswitchd is killed and leaves its socket behind");
    case.world.kernel.sockets.sockets.insert("/run/vhost/vhudc065497-3c".into());
    case.world.ovs.vswitchd_alive = false;
    case.unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn vhostuser_where_the_guest_listens() {
    let vif = json!({
        "type": "vhostuser", "path": "/run/vhost/a/vhudc065497-3c", "mode": "server",
        "port_profile": ovs(&json!({})),
    });
    let mut case = Case::new([record(A, &vif)]);
    case.say("plug");
    case.converge().show();
    case.say("somebody changes the directory's mode");
    for owner in case.world.kernel.sockets.directories.values_mut() {
        owner.mode = 0o700;
    }
    case.converge();
    case.world.kernel.sockets.sockets.insert("/run/vhost/a/vhudc065497-3c".into());
    case.world.kernel.sockets.sockets.insert("/run/vhost/vhudc065497-3c".into());
    case.world.ovs.vswitchd_alive = false;
    case.unplug();
    let left = format!("  left: {:?}\n", case.world.kernel.sockets.sockets);
    case.text.push_str(&left);
    insta::assert_snapshot!(case.text);
}

#[test]
fn vhostuser_outside_of_the_allowed_directory() {
    let vif = json!({
        "type": "vhostuser", "path": "/tmp/vhu.sock", "mode": "server", "port_profile": ovs(&json!({})),
    });
    insta::assert_snapshot!(whole_life(&mut Case::new([record(A, &vif)])));
}

#[test]
fn vhostuser_without_dpdk_is_what_open_vswitch_says() {
    let vif = json!({
        "type": "vhostuser", "path": "/run/vhost/vhu.sock", "mode": "server", "port_profile": ovs(&json!({})),
    });
    let mut case = Case::new([record(A, &vif)]);
    case.world.dpdk = false;
    case.say("plug");
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_bridge_that_ovs_vswitchd_does_not_make_is_what_its_ports_wait_for() {
    let mut case = Case::new([guest(A, 1, true)]);
    case.world.unmade.insert("br-int".into());
    case.converge();
    let missing = Missing::Bridge { bridge: "br-int".into(), datapath_type: "netdev".into() };
    assert_eq!(judged(&case, A).verdict, Verdict::Waiting(missing));
    case.world.unmade.clear();
    case.world.switch();
    assert_eq!(judged(&case, A).verdict, Verdict::Ready);
}

#[test]
fn what_a_record_that_cannot_be_honoured_leaves_as_it_was_is_told() {
    let mut case = Case::new([guest(A, 1, true), guest(B, 2, true)]);
    case.converge();
    let good = judged(&case, A);
    let mut clashing = Vif::clone(&guest(A, 1, true));
    clashing.address = guest(B, 2, true).address;
    let later = json!({"type": "direct", "dev_address": "0000:03:00.1", "network": null, "port_profile": null});
    for update in [Arc::new(clashing), record(A, &later)] {
        case.desired.vifs.insert(update.id, update);
        let wrong = judged(&case, A);
        assert!(matches!(wrong.verdict, Verdict::Rejected { .. }), "{wrong:?}");
        assert!(wrong.facts.ofport.is_some());
        assert_eq!(wrong.facts, good.facts);
    }
    // And nothing where there is nothing.
    let mut case = Case::new([record(A, &later)]);
    case.converge();
    assert_eq!(*judged(&case, A).facts, Facts::default());
}

#[test]
fn generic_tap() {
    let vif = json!({"type": "generic", "vif_name": "tapdc065497-3c", "network": null});
    insta::assert_snapshot!(whole_life(&mut Case::new([record(A, &vif)])));
}

#[test]
fn inactive_is_down() {
    let vif = json!({"type": "generic", "vif_name": "tapdc065497-3c", "active": false});
    insta::assert_snapshot!(whole_life(&mut Case::new([record(A, &vif)])));
}

#[test]
fn types_that_come_later_are_told_by_name() {
    let vifs = [
        json!({"type": "direct", "vif_name": "tap1", "dev_address": "0000:03:00.2", "mode": "bridge", "vlan_name": "",
               "port_profile": {"type": "8021qbh", "profile_id": "p"}}),
        json!({"type": "hostdevice", "dev_type": "ethernet", "dev_address": "0000:03:00.2",
               "port_profile": ovs(&json!({}))}),
        json!({"type": "nested_dpdk", "pci_address": "0000:03:00.2", "dev_driver": "vfio-pci",
               "port_profile": {"type": "k8s_dpdk", "l3_setup": false, "selflink": "", "resourceversion": ""}}),
    ];
    let mut text = String::new();
    for vif in &vifs {
        text.push_str(&whole_life(&mut Case::new([record(A, vif)])));
    }
    insta::assert_snapshot!(text);
}
