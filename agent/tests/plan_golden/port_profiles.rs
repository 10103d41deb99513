//! Macvtaps for whose guests the switch beyond the cable is asked: 802.1Qbg by way of lldpad, 802.1Qbh by way of the adapter.

use std::sync::Arc;

use devlink::Device;
use devlink::port_profile::Response;
use serde_json::{Value, json};
use vifd::backend::world::World;
use vifd::model::{LinkKind, Vif};
use vifd::plan::NicSettings;

use crate::case::{A, B, Case, record, whole_life};

fn qbg(version: u8) -> Value {
    json!({"type": "8021qbg", "manager_id": 1, "type_id": 10, "type_id_version": version,
           "instance_id": "a1a1a1a1-0000-4000-8000-000000000001"})
}

fn over_eth1(profile: &Value, extra: &Value) -> Arc<Vif> {
    let mut vif = json!({
        "type": "direct", "vif_name": "tap1", "mode": "vepa",
        "network": {"mtu": 1450, "bridge_interface": "eth1"}, "port_profile": profile,
    });
    for (key, value) in extra.as_object().unwrap() {
        vif[key] = value.clone();
    }
    record(A, &vif)
}

fn case(vifs: impl IntoIterator<Item = Arc<Vif>>) -> Case {
    let mut case = Case::new(vifs);
    case.world.add_link("eth1", LinkKind::Other(String::new()), None);
    Arc::make_mut(case.world.kernel.links.get_mut("eth1").unwrap()).up = true;
    case
}

/// What the switches know.
fn stations(case: &mut Case) {
    let known: Vec<String> =
        case.world.stations.iter().map(|(of, state)| format!("{of} vlan {:?}: {state:?}", of.vlan)).collect();
    case.say(&format!("the switches know {known:?}"));
}

fn replace(case: &mut Case, vif: Arc<Vif>) {
    case.desired.vifs.insert(vif.id, vif);
}

#[test]
fn a_vsi_is_associated_when_its_macvtap_is_there_and_let_go_before_that_goes() {
    let mut case = case([over_eth1(&qbg(1), &json!({}))]);
    case.converge();
    stations(&mut case);
    case.unplug();
    stations(&mut case);
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_vsi_on_a_vlan_is_asked_for_at_the_link_below() {
    let vlan = json!({"vlan_name": "eth1.100", "network": {"bridge_interface": "eth1", "vlan": 100},
                      "port_profile": {"type": "8021qbg", "manager_id": 0, "type_id": 1, "type_id_version": 0}});
    let mut case = case([over_eth1(&Value::Null, &vlan)]);
    case.converge();
    stations(&mut case);
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_vsi_that_the_bridge_gave_up_is_asked_for_again_and_what_is_missing_is_told() {
    let mut case = case([over_eth1(&qbg(1), &json!({}))]);
    case.converge();
    case.say("the bridge gives it up");
    case.world.stations.clear();
    case.world.switch();
    case.converge();
    case.say("lldpad ends");
    case.world.switch_answers = None;
    case.world.switch();
    case.converge();
    case.say("another begins, whose bridge refuses");
    case.world.switch_answers = Some(Response::VdpVtidVersionViolation);
    case.world.switch();
    case.converge();
    case.say("it goes while it is refused");
    case.unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn another_type_is_asked_for_when_the_one_before_is_gone_and_none_when_none_is_wanted() {
    let mut case = case([over_eth1(&qbg(1), &json!({}))]);
    case.converge();
    case.say("another version");
    replace(&mut case, over_eth1(&qbg(2), &json!({})));
    case.converge();
    stations(&mut case);
    case.say("no profile");
    replace(&mut case, over_eth1(&Value::Null, &json!({})));
    case.converge();
    stations(&mut case);
    insta::assert_snapshot!(case.text);
}

#[test]
fn without_lldpad_a_vif_goes_all_the_same() {
    let mut case = case([over_eth1(&qbg(1), &json!({}))]);
    case.world.switch_answers = None;
    insta::assert_snapshot!(whole_life(&mut case));
}

#[test]
fn a_port_profile_is_asked_for_at_the_link_itself() {
    let mut case = case([over_eth1(&json!({"type": "8021qbh", "profile_id": "gold"}), &json!({}))]);
    case.converge();
    stations(&mut case);
    case.unplug();
    insta::assert_snapshot!(case.text);
}

fn nic(case: &mut Case) -> Device {
    let device = case.world.add_nic("0000:03:00.0".parse().unwrap(), "enic", 8);
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    device
}

fn over_vf(id: &str, number: u16, profile: &Value) -> Arc<Vif> {
    let device = Device { bus: "pci".to_owned(), dev: "0000:03:00.0".to_owned() };
    let address = World::function_address(&device, number).unwrap().to_string();
    record(
        id,
        &json!({"type": "direct", "vif_name": format!("tap{number}"), "dev_address": address, "mode": "passthrough",
                "address": format!("52:54:00:00:00:{number:02x}"), "network": {"vlan": 100}, "port_profile": profile}),
    )
}

/// The adapter is asked for a function, lldpad for the cable: both by the physical one.
#[test]
fn of_a_virtual_function_it_is_asked_for_at_its_physical_one() {
    let mut case =
        Case::new([over_vf(A, 0, &json!({"type": "8021qbh", "profile_id": "gold"})), over_vf(B, 1, &qbg(1))]);
    nic(&mut case);
    case.converge();
    stations(&mut case);
    case.unplug();
    stations(&mut case);
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_record_that_moves_between_functions_and_links_leaves_nothing_behind() {
    let mut case = case([over_vf(A, 0, &qbg(1))]);
    nic(&mut case);
    case.converge();
    case.say("to a link, with another VSI");
    let mut other = qbg(1);
    other["instance_id"] = json!("a1a1a1a1-0000-4000-8000-000000000002");
    replace(&mut case, over_eth1(&other, &json!({})));
    case.converge();
    stations(&mut case);
    case.say("and to another function");
    replace(&mut case, over_vf(A, 1, &qbg(1)));
    case.converge();
    stations(&mut case);
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_profile_needs_an_address() {
    let mut case = case([over_eth1(&qbg(1), &json!({"address": null}))]);
    case.converge();
    insta::assert_snapshot!(case.text);
}
