//! Trunks: sub-ports by flows on a managed bridge, and by patch pairs on one of neutron's trunk bridges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use vifd::backend::ovs::StringMap;
use vifd::model::{LinkKind, Vif, VifId};
use vifd::plan::pipeline::{Cookie, OwnerTag};
use vifd::plan::{ManagedBridge, Memo, Missing, Verdict};
use vifd::record;

use crate::case::{A, B, Case, guest, judged, ovs};

const C: &str = "3f0c7a52-8f0e-4c46-9d53-1f3d0f6a7b21";

/// A sub-port on VLAN `vlan` of `trunk`; `more` adds to the record.
fn sub_port(id: &str, trunk: &str, vlan: u16, more: &Value) -> Arc<Vif> {
    let mut record = json!({
        "vif": {
            "type": "openvswitch", "id": id, "vif_name": "unused", "address": format!("52:54:00:00:01:{vlan:02x}"),
            "network": {"id": "5a1c9c53-5e5f-4a61-8c0c-3a3ab32d9d01", "bridge": "br-int"},
            "port_profile": ovs(&json!({"interface_id": id})),
        },
        "parent": {"vif": trunk, "vlan": vlan},
    });
    for (key, value) in more.as_object().unwrap() {
        record[key] = value.clone();
    }
    Arc::new(record::decode(record.to_string().as_bytes()).expect("a good record").vif)
}

fn managed(vifs: impl IntoIterator<Item = Arc<Vif>>) -> Case {
    let mut case = Case::new(vifs);
    let bridge = ManagedBridge { datapath_type: "netdev".into(), uplinks: Vec::new(), takeover: false };
    case.settings.bridges = BTreeMap::from([("br-int".to_owned(), bridge)]);
    case.world.managed = BTreeSet::from(["br-int".to_owned()]);
    case.world.owner = OwnerTag::of(&case.settings.agent).0;
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case
}

fn add(case: &mut Case, vif: Arc<Vif>) {
    case.desired.deleted.remove(&vif.id);
    case.desired.vifs.insert(vif.id, vif);
}

fn delete(case: &mut Case, id: &str) {
    let id: VifId = id.parse().unwrap();
    case.desired.vifs.remove(&id);
    case.desired.deleted.insert(id);
}

/// Flows of a VIF, as they are on the switch.
fn flows_of(case: &Case, id: &str) -> Vec<String> {
    let cookie = Cookie::vif(OwnerTag(case.world.owner), id.parse().unwrap()).0;
    let flows = case.world.flows();
    let set = flows["br-int"].ready().unwrap().owned.get(&cookie).cloned();
    set.into_iter().flat_map(|set| set.values().map(ToString::to_string).collect::<Vec<_>>()).collect()
}

#[test]
fn sub_ports_come_and_go_with_their_trunk() {
    let with_rules = json!({"policy": {"rules": [{"direction": "egress"}], "rate": {"egress_kbps": 1000}}});
    let mut case = managed([sub_port(B, A, 101, &with_rules)]);
    case.memo = Some(Memo::default());
    case.say("a sub-port is here before its trunk");
    case.converge();
    case.say("the trunk comes");
    add(&mut case, guest(A, 1, true));
    case.converge().show();
    case.say("another sub-port comes");
    add(&mut case, sub_port(C, A, 102, &json!({})));
    case.converge();
    case.say("the first goes");
    delete(&mut case, B);
    case.converge().show();
    case.say("the trunk goes");
    delete(&mut case, A);
    case.converge().show();
    assert!(flows_of(&case, C).is_empty());
    case.say("and comes back");
    add(&mut case, guest(A, 1, true));
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// What was planned in another order, or with another memory, is the same.
#[test]
fn the_order_of_arrival_does_not_matter() {
    let all = [guest(A, 1, true), sub_port(B, A, 101, &json!({})), sub_port(C, A, 102, &json!({}))];
    let mut seen = BTreeSet::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut case = managed([]);
        case.memo = Some(Memo::default());
        for place in order {
            add(&mut case, Arc::clone(&all[place]));
            case.converge();
        }
        seen.insert([A, B, C].map(|id| flows_of(&case, id)));
        case.memo = None;
        case.text.clear();
        case.converge();
        assert!(!case.text.contains("round"), "a restart writes nothing:\n{}", case.text);
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_port_with_another_number_takes_its_sub_ports_along_in_one_plan() {
    let mut case = managed([guest(A, 1, true), sub_port(B, A, 101, &json!({}))]);
    case.memo = Some(Memo::default());
    case.converge();
    case.text.clear();
    let interface = case.world.ovs.interfaces.get_mut("tap1").unwrap();
    Arc::make_mut(interface).ofport = Some(77);
    case.converge();
    assert_eq!(case.text.matches("round").count(), 1, "{}", case.text);
    for id in [A, B] {
        let flows = flows_of(&case, id);
        assert!(flows.iter().any(|flow| flow.contains("in_port=77")), "{flows:?}");
    }
}

#[test]
fn a_zone_of_a_sub_port_survives_a_restart_and_goes_with_it() {
    let rules = json!({"policy": {"rules": []}});
    let mut case = managed([guest(A, 1, true), sub_port(B, A, 101, &rules), sub_port(C, A, 102, &rules)]);
    case.converge();
    let zones = |case: &Case| {
        let ids = case.world.ovs.interfaces["tap1"].external_ids.clone();
        [B, C].map(|id| ids.get(&format!("vifd-zone-{id}")).map(str::to_owned))
    };
    let before = zones(&case);
    assert!(before.iter().all(Option::is_some) && before[0] != before[1], "{before:?}");
    // The switch forgets all flows, and the agent everything.
    case.world.managed.clear();
    case.world.managed.insert("br-int".to_owned());
    case.converge();
    assert_eq!(zones(&case), before);
    delete(&mut case, B);
    case.converge();
    assert_eq!(zones(&case), [None, before[1].clone()]);
}

#[test]
fn what_cannot_be_a_sub_port_is_told_by_its_field() {
    let said = |vifs: Vec<Arc<Vif>>, id: &str| {
        let mut case = managed(vifs);
        case.converge();
        match judged(&case, id).verdict {
            Verdict::Rejected { field, reason } => format!("{field}: {reason}"),
            other => panic!("{other:?}"),
        }
    };
    let told = [
        said(vec![guest(A, 1, true), sub_port(B, A, 101, &json!({})), sub_port(C, B, 102, &json!({}))], C),
        said(
            vec![
                guest(A, 1, true),
                sub_port(B, A, 101, &json!({})),
                sub_port(
                    C,
                    A,
                    101,
                    &json!({"vif": {
                        "type": "openvswitch", "id": C, "vif_name": "unused", "address": "52:54:00:00:01:02",
                        "network": {"bridge": "br-int"}, "port_profile": ovs(&json!({})),
                    }}),
                ),
            ],
            C,
        ),
        said(
            vec![
                guest(A, 1, true),
                sub_port(
                    B,
                    A,
                    101,
                    &json!({"vif": {
                        "type": "openvswitch", "id": B, "vif_name": "unused", "address": "52:54:00:00:01:02",
                        "network": {"bridge": "br-ex"}, "port_profile": ovs(&json!({})),
                    }}),
                ),
            ],
            B,
        ),
        said(
            vec![
                guest(A, 1, true),
                sub_port(
                    B,
                    A,
                    101,
                    &json!({"vif": {
                        "type": "generic", "id": B, "vif_name": "tap9", "address": "52:54:00:00:01:02",
                    }}),
                ),
            ],
            B,
        ),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

/// Absence of all records removes nothing, and takes no flows away.
#[test]
fn flows_of_sub_ports_stay_when_removals_are_stopped() {
    let mut case = managed([guest(A, 1, true), sub_port(B, A, 101, &json!({}))]);
    case.memo = Some(Memo::default());
    case.converge();
    let before = [A, B].map(|id| flows_of(&case, id));
    case.desired.vifs.clear();
    case.converge();
    assert_eq!([A, B].map(|id| flows_of(&case, id)), before, "{}", case.text);
    assert!(case.text.contains("removals stopped: 2"), "{}", case.text);
}

/// Of a trunk whose record is not read yet nothing is known, so nothing is changed.
#[test]
fn a_trunk_without_a_record_that_is_still_here_keeps_its_sub_ports() {
    let mut case = managed([guest(A, 1, true), sub_port(B, A, 101, &json!({}))]);
    case.converge();
    let before = flows_of(&case, B);
    case.desired.vifs.remove(&A.parse().unwrap());
    case.desired.synced = false;
    case.converge();
    assert_eq!(flows_of(&case, B), before, "{}", case.text);
    assert!(matches!(judged(&case, B).verdict, Verdict::Waiting(Missing::Parent(why)) if why.contains(A)));
}

#[test]
fn an_inactive_trunk_quarantines_its_sub_ports() {
    let mut case = managed([guest(A, 1, false), sub_port(B, A, 101, &json!({}))]);
    case.converge();
    assert_eq!(flows_of(&case, B).len(), 1, "{:?}", flows_of(&case, B));
    let verdict = judged(&case, B).verdict;
    assert!(matches!(&verdict, Verdict::Plugged(Missing::Parent(why)) if why.contains("not active")), "{verdict:?}");
}

#[test]
fn a_trunk_bridge_of_neutrons_gets_patch_pairs() {
    let trunk = crate::case::record(
        A,
        &json!({
            "type": "openvswitch", "vif_name": "tap1", "network": {"bridge": "tbr-0123456789"},
            "port_profile": ovs(&json!({"interface_id": A})),
        }),
    );
    let mut case = Case::new([Arc::clone(&trunk), sub_port(B, A, 101, &json!({}))]);
    case.memo = Some(Memo::default());
    case.say("plug");
    case.converge();
    case.say("the hypervisor brings the trunk's port");
    case.world.add_link("tap1", LinkKind::Other("veth".into()), None);
    let ids = StringMap::from([("iface-id".to_owned(), A.to_owned())]);
    case.world.add_port("tbr-0123456789", "tap1", "", ids);
    case.world.switch();
    case.converge().show();
    case.say("the sub-port moves to another VLAN");
    add(&mut case, sub_port(B, A, 102, &json!({})));
    case.converge();
    case.say("the trunk goes first");
    delete(&mut case, A);
    case.converge().show();
    case.unplug();
    insta::assert_snapshot!(case.text);
}
