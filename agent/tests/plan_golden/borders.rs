//! Where links of the kernel's meet what is somebody else's, and what changes under them.

use std::sync::Arc;

use serde_json::json;
use vifd::backend::ovs::StringMap;
use vifd::model::{BridgeConfig, LinkKind, Vif};

use crate::case::{A, B, Case, ovs, record};
use crate::links::{flat, link, plain, tap_is_up, with_uplink};

/// A bridge as `ip link add` makes it, with the spanning tree.
const STRANGERS: BridgeConfig =
    BridgeConfig { ageing_time: 30_000, forward_delay: 1_500, stp: true, multicast_snooping: true };

fn address(id: &str) -> &'static str {
    if id == A { "52:54:00:00:00:01" } else { "52:54:00:00:00:02" }
}

fn hybrid(id: &str, bridge: &str) -> Arc<Vif> {
    record(
        id,
        &json!({
            "type": "bridge", "vif_name": format!("tap{}", &id[..11]), "bridge_name": bridge,
            "port_profile": ovs(&json!({})), "address": address(id),
        }),
    )
}

fn macvtap(id: &str) -> Arc<Vif> {
    record(
        id,
        &json!({
            "type": "direct", "vif_name": "mv0", "mode": "bridge", "address": address(id),
            "network": {"bridge_interface": "eth1", "mtu": 1450},
        }),
    )
}

fn deleted(case: &mut Case, id: &str) {
    let vif = case.desired.vifs.remove(&id.parse().unwrap()).unwrap();
    case.desired.deleted.insert(vif.id);
}

#[test]
fn a_macvtap_whose_interface_was_renamed_stays() {
    let mut case = with_uplink([macvtap(A)]);
    case.converge();
    case.say("eth1 -> eth9");
    case.world.rename_link("eth1", "eth9");
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn what_was_shared_goes_when_nothing_is_paused_any_more() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.converge();
    case.say("pause, delete");
    case.orders.paused = true;
    deleted(&mut case, A);
    case.converge();
    case.say("resume");
    case.orders.paused = false;
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn one_that_is_paused_keeps_nobody_from_what_both_share() {
    let mut case = with_uplink([plain(A, 1, &flat()), plain(B, 2, &flat())]);
    case.orders.paused_vifs.insert(B.parse().unwrap());
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn another_agents_tap_goes_into_no_bridge() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.converge();
    case.world.add_link("tap1", LinkKind::Tap { multi_queue: false, persistent: true }, None);
    link(&mut case, "tap1").alias = Some("vifd/1 other 0e5d7a5b-4d0a-4a1c-9a39-6f6c0b1f2f11".into());
    link(&mut case, "tap1").up = true;
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_port_of_open_vswitch_is_no_uplink() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.world.add_port("br-int", "eth1", "", StringMap::new());
    case.world.switch();
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_bridge_with_more_in_it_than_os_vif_puts_there_is_not_adopted() {
    let mut case = with_uplink([hybrid(A, "br0")]);
    case.settings.adopt = true;
    case.world.add_link("br0", LinkKind::Bridge(STRANGERS), None);
    link(&mut case, "br0").addresses = vec!["198.51.100.1/24".parse().unwrap()];
    let index = link(&mut case, "br0").index;
    link(&mut case, "eth1").master = Some(index);
    case.converge();
    case.unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_shared_bridge_that_somebody_renamed_gets_its_name_back() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.converge();
    tap_is_up(&mut case, "tap1");
    case.converge();
    case.say("rename");
    case.world.rename_link("brq1", "mybr");
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_netdev_of_open_vswitch_that_went_away_is_missed() {
    let profile = json!({"type": "fp_tap", "mac_address": "ee:ee:ee:ee:ee:ee"});
    let vif = record(
        A,
        &json!({"type": "vhostuser", "path": "/run/vhost/vhu.sock", "mode": "server", "vif_name": "fptap0", "port_profile": profile}),
    );
    let mut case = Case::new([vif]);
    case.converge();
    case.say("netdev goes");
    case.world.kernel.links.remove("fptap0");
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn two_vifs_with_one_bridge_of_their_own_clash() {
    let mut case = Case::new([hybrid(A, "qbr1"), hybrid(B, "qbr1")]);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_bridge_of_somebody_elses() {
    let mut case = Case::new([plain(A, 1, &json!({}))]);
    case.world.add_link("brq1", LinkKind::Bridge(STRANGERS), None);
    tap_is_up(&mut case, "tap1");
    case.converge();
    case.say("tap down");
    link(&mut case, "tap1").up = false;
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_record_that_cannot_be_read_may_want_what_is_shared() {
    let mut case = with_uplink([plain(A, 1, &flat()), hybrid(B, "qbr1")]);
    case.converge();
    case.say("unreadable");
    let v = case.desired.vifs.remove(&A.parse().unwrap()).unwrap();
    case.desired.unreadable.insert(v.id);
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn an_address_that_the_uplink_has_keeps_no_bridge() {
    let mut case = with_uplink([plain(A, 1, &flat())]);
    case.converge();
    case.say("joining failed after the addresses came");
    link(&mut case, "eth1").addresses = vec!["192.0.2.7/24".parse().unwrap()];
    link(&mut case, "eth1").master = None;
    deleted(&mut case, A);
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn another_type() {
    let mut case = with_uplink([record(A, &json!({"type": "generic", "vif_name": "tap1"}))]);
    case.converge();
    case.say("now in a bridge");
    let v = plain(A, 1, &flat());
    case.desired.vifs.insert(v.id, v);
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn the_device_of_an_inactive_vif_is_left_where_it_is() {
    let v = record(
        A,
        &json!({"type": "bridge", "vif_name": "tap1", "bridge_name": "brq1", "active": false,
       "network": {"bridge":"brq1","should_provide_bridge": true, "bridge_interface": "eth1"}}),
    );
    let mut case = with_uplink([v]);
    tap_is_up(&mut case, "tap1");
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_vlan_link_that_somebody_renamed_gets_its_name_back() {
    let vlan =
        json!({"should_provide_bridge": true, "should_provide_vlan": true, "vlan": 5, "bridge_interface": "eth1"});
    let mut case = with_uplink([plain(A, 1, &vlan)]);
    case.converge();
    case.say("rename");
    case.world.rename_link("vlan5", "eth1.5");
    case.converge().show();
    insta::assert_snapshot!(case.text);
}
