//! What changes and drifts under records that stay, what is somebody else's, and what is never taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::model::{Bridge, LinkKind, Observed, Table, View, Vif, VifId};
use vifd::plan::{Holds, Inputs, Memo, Orders, plan, release};

use crate::case::{A, B, Case, MAC, port, record, whole_life};

#[test]
fn what_is_not_ours_is_a_conflict() {
    let vif = || record(A, &port(&json!({"create_port": true, "create_tap": true})));
    let mut text = String::new();
    let mut story = |line: &str, prepare: &dyn Fn(&mut World)| {
        let mut case = Case::new([vif()]);
        case.say(line);
        prepare(&mut case.world);
        case.converge().show();
        text.push_str(&case.text);
    };
    story("a foreign link of that name", &|world| {
        world.add_link("tapdc065497-3c", LinkKind::Other("dummy".into()), None);
    });
    story("a foreign tap of that name", &|world| {
        world.add_link("tapdc065497-3c", LinkKind::Tap { multi_queue: false, persistent: true }, Some(MAC));
    });
    story("a foreign port of that name", &|world| world.add_port("br-int", "tapdc065497-3c", "", StringMap::new()));
    story("another agent's port", &|world| {
        world.add_port("br-int", "tapdc065497-3c", "", StringMap::from([("vifd-owner".into(), "other".into())]));
    });
    story("a port of a later release of vifd", &|world| {
        let marks = [("vifd-owner", "vifd"), ("vifd-format", "2"), ("vifd-vif", A)];
        let marks = marks.map(|(key, value)| (key.to_owned(), value.to_owned()));
        world.add_port("br-int", "tapdc065497-3c", "", StringMap::from(marks));
    });
    insta::assert_snapshot!(text);
}

#[test]
fn two_records_for_one_name() {
    let vif = |id| record(id, &port(&json!({"create_port": true, "create_tap": true})));
    insta::assert_snapshot!(whole_life(&mut Case::new([vif(A), vif(B)])));
}

#[test]
fn a_changed_record_changes_only_what_changed() {
    let first = port(&json!({"create_port": true, "create_tap": true}));
    let mut case = Case::new([record(A, &first)]);
    case.say("plug");
    case.converge();
    case.say("another MTU and another guest address");
    let mut second = first.clone();
    second["address"] = json!("22:52:25:62:e2:bb");
    second["network"] = json!({"bridge": "br-int", "mtu": 9000});
    let vif = record(A, &second);
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    case.say("another bridge");
    second["network"] = json!({"bridge": "br-other", "mtu": 9000});
    let vif = record(A, &second);
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    case.say("another name");
    second["vif_name"] = json!("tap-renamed");
    let vif = record(A, &second);
    case.desired.vifs.insert(vif.id, vif);
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn drift_is_repaired_entry_by_entry() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.say("plug");
    case.converge();
    case.say("somebody changes an id, adds one of their own, sets the tap down with another MTU");
    let row = Arc::make_mut(case.world.ovs.interfaces.get_mut("tapdc065497-3c").unwrap());
    row.external_ids.insert("attached-mac", "00:00:00:00:00:01");
    row.external_ids.insert("theirs", "stays");
    let link = Arc::make_mut(case.world.kernel.links.get_mut("tapdc065497-3c").unwrap());
    (link.up, link.mtu) = (false, 1280);
    case.converge().show();
    case.say("somebody deletes the port");
    case.world.delete_port("tapdc065497-3c");
    case.converge();
    case.say("somebody deletes the tap");
    case.world.kernel.links.clear();
    case.world.switch();
    case.converge();
    case.say("somebody takes our mark off the interface");
    let row = Arc::make_mut(case.world.ovs.interfaces.get_mut("tapdc065497-3c").unwrap());
    row.external_ids.clear();
    case.converge().show();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_tap_that_the_userspace_datapath_still_holds_comes_after_its_port_has_gone() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.say("plug");
    case.converge();
    case.say("somebody deletes the tap, and ovs-vswitchd shows the port as it was");
    case.world.kernel.links.clear();
    case.converge();
    case.say("the same, and ovs-vswitchd has not carried out the deletion of the port yet");
    case.world.kernel.links.clear();
    case.world.delete_port("tapdc065497-3c");
    case.world.ovs.vswitchd_behind = true;
    case.converge();
    case.say("now it has");
    case.world.ovs.vswitchd_behind = false;
    case.converge();
    case.say("the same, and ovs-vswitchd does not run");
    case.world.kernel.links.clear();
    case.world.ovs.vswitchd_alive = false;
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_tap_goes_after_ovs_vswitchd_has_let_go_of_its_port() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.say("plug");
    case.converge();
    case.say("ovs-vswitchd closes devices in its own time");
    case.world.ovs.letting_go.insert("tapdc065497-3c".into());
    case.unplug();
    case.say("now it has");
    case.world.ovs.letting_go.clear();
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_port_of_the_userspace_datapath_does_not_outlive_the_netdev_of_a_hypervisor() {
    const NAME: &str = "tapdc065497-3c";
    let mut case = Case::new([record(A, &port(&json!({"create_port": true})))]);
    let tap = LinkKind::Tap { multi_queue: false, persistent: true };
    // What ovs-vswitchd goes on showing when the netdev has gone.
    let outlives = |case: &mut Case, ifindex| {
        case.world.kernel.links.clear();
        let mut row = case.world.ovs.interfaces[NAME].as_ref().clone();
        row.ifindex = Some(ifindex);
        case.world.ovs.interfaces.insert(NAME.into(), Arc::new(row));
    };
    case.say("plug");
    case.world.add_link(NAME, tap.clone(), None);
    case.converge();
    case.say("Open vSwitch has seen a new netdev before we have");
    outlives(&mut case, 77);
    case.converge();
    case.say("the netdev has gone");
    outlives(&mut case, 0);
    case.converge();
    case.say("and it is back, and ovs-vswitchd has taken it in");
    case.world.add_link(NAME, tap.clone(), None);
    case.world.switch();
    case.converge();
    case.say("gone from the kernel's datapath, which has let go of it");
    outlives(&mut case, 0);
    let bridge = case.world.ovs.bridges["br-int"].as_ref().clone();
    case.world.ovs.bridges.insert("br-int".into(), Arc::new(Bridge { datapath_type: "system".into(), ..bridge }));
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_port_of_the_hypervisor_that_outlives_its_netdev_is_left_alone() {
    const NAME: &str = "tapdc065497-3c";
    let mut case = Case::new([record(A, &port(&json!({})))]);
    case.world.add_link(NAME, LinkKind::Tap { multi_queue: false, persistent: true }, None);
    case.world.add_port(
        "br-int",
        NAME,
        "",
        StringMap::from([("iface-id".to_owned(), "6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77".to_owned())]),
    );
    case.world.switch();
    case.converge();
    case.world.kernel.links.clear();
    let mut row = case.world.ovs.interfaces[NAME].as_ref().clone();
    row.ifindex = Some(0);
    case.world.ovs.interfaces.insert(NAME.into(), Arc::new(row));
    case.text.clear();
    case.converge();
    assert_eq!(case.text, format!("  {A}: plugged, Plugged(Netdev(\"{NAME}\"))\n"));
}

#[test]
fn absence_beyond_max_removals_removes_nothing() {
    let vif = |number: u32| {
        let id = format!("dc065497-3c8d-4f44-8fb4-{number:012x}");
        let mac = format!("22:52:25:62:e2:{number:02x}");
        record(&id, &json!({"type": "generic", "vif_name": format!("tap{number}"), "address": mac}))
    };
    let mut case = Case::new((0..8).map(vif));
    case.converge();
    case.text.clear();
    case.say("all eight are absent");
    let all = std::mem::take(&mut case.desired.vifs);
    case.converge();
    case.say("five are absent");
    case.desired.vifs = some(&all, 3);
    case.converge();
    case.say("the set is not complete, but one VIF is deleted by name");
    case.desired.synced = false;
    case.desired.deleted = case.desired.vifs.keys().take(1).copied().collect();
    case.desired.vifs.clear();
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_stopped_removal_stays_stopped_while_records_come_back_one_by_one() {
    let vif = |number: u32| {
        let id = format!("dc065497-3c8d-4f44-8fb4-{number:012x}");
        let mac = format!("22:52:25:62:e2:{number:02x}");
        record(&id, &json!({"type": "generic", "vif_name": format!("tap{number}"), "address": mac}))
    };
    let mut case = Case::new((0..12).map(vif));
    case.converge();
    let all = std::mem::take(&mut case.desired.vifs);
    for count in 0..=12 {
        case.desired.vifs = some(&all, count);
        case.converge();
        assert_eq!(case.world.kernel.links.len(), 12, "{count} records are back");
    }
    case.desired.vifs.pop_last();
    case.converge();
    assert_eq!(case.world.kernel.links.len(), 11, "a new absence within bounds");
}

#[test]
fn a_changed_layout_is_for_new_ports() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.converge();
    let writes = case.world.writes;
    case.settings.per_port_bridge = true;
    case.converge();
    assert_eq!(case.world.writes, writes, "{}", case.text);
    case.world.delete_port("tapdc065497-3c");
    case.converge();
    assert_eq!(case.world.ovs.ports["tapdc065497-3c"].bridge, "pbdc065497-3c8");
    let writes = case.world.writes;
    case.settings.per_port_bridge = false;
    case.converge();
    assert_eq!(case.world.writes, writes, "{}", case.text);
}

#[test]
fn a_hypervisors_port_is_not_deleted_to_be_moved() {
    let mut vif = port(&json!({}));
    let mut case = Case::new([record(A, &vif)]);
    let ids = StringMap::from([("iface-id".into(), "6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77".into())]);
    case.device("tapdc065497-3c");
    case.world.add_port("br-int", "tapdc065497-3c", "", ids);
    case.world.switch();
    case.converge();
    vif["network"] = json!({"bridge": "br-other", "mtu": 1450});
    let vif = record(A, &vif);
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    assert!(case.world.ovs.ports.contains_key("tapdc065497-3c"), "{}", case.text);
    assert!(case.text.contains("the hypervisor's to move"), "{}", case.text);
}

#[test]
fn what_cannot_be_seen_is_not_gone() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true})))]);
    case.converge();
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    let observed = Observed { ovs: View::Syncing, ..case.world.observed() };
    let inputs = Inputs {
        desired: &case.desired,
        clashes: &BTreeMap::new(),
        observed: &observed,
        holds: &Holds::default(),
        orders: &Orders::default(),
        in_flight: &BTreeSet::new(),
        settings: &case.settings,
    };
    let plan = plan(inputs, &mut Memo::default(), Instant::now());
    assert!(plan.gone.is_empty());
    assert_eq!(plan.judgements.len(), 1, "it is told of as long as it may be there");
}

#[test]
fn preserved_vifs_stay_and_are_found_again() {
    let mut vif = port(&json!({"create_port": true, "create_tap": true}));
    vif["preserve_on_delete"] = json!(true);
    let mut case = Case::new([record(A, &vif)]);
    whole_life(&mut case);
    case.say("it comes back, and is not to be preserved any more");
    vif["preserve_on_delete"] = json!(false);
    let vif = record(A, &vif);
    case.desired.deleted.clear();
    case.desired.vifs.insert(vif.id, vif);
    case.converge().unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_release_takes_the_marks_off_and_nothing_else() {
    let mut case = Case::new([record(A, &port(&json!({"create_port": true, "create_tap": true})))]);
    case.converge();
    case.text.clear();
    let plan = release(&case.world.observed(), &case.settings);
    for op in &plan.links {
        let _ = writeln!(case.text, "  links: {}", op.op);
        case.world.apply_link(&op.op);
    }
    for op in &plan.ovs {
        let _ = writeln!(case.text, "  ovsdb: {}", op.op);
    }
    case.world.apply_ovs(&plan.ovs);
    case.show();
    let again = release(&case.world.observed(), &case.settings);
    assert!(again.links.is_empty() && again.ovs.is_empty());
    case.say("and with adoption on they are taken over again");
    case.settings.adopt = true;
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// The first so many.
fn some(vifs: &Table<VifId, Vif>, count: usize) -> Table<VifId, Vif> {
    vifs.iter().take(count).map(|(id, vif)| (*id, Arc::clone(vif))).collect()
}
