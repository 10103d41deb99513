//! A managed bridge: when its flows come and go, and what is whose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use vifd::backend::ovs::{OvsOp, StringMap};
use vifd::backend::world::World;
use vifd::model::{Bridge, LinkKind, Vif};
use vifd::plan::pipeline::{Cookie, OwnerTag};
use vifd::plan::{Holds, Inputs, ManagedBridge, Memo, Uplink, Verdict, plan};

use crate::case::{A, B, Case, guest, judged, ovs, record};

/// A host whose bridge `br-int` is managed, with an uplink.
fn managed(vifs: impl IntoIterator<Item = Arc<Vif>>) -> Case {
    let mut case = Case::new(vifs);
    let uplinks = vec![Uplink { port: "eth1".into(), networks: vec!["*".into()] }];
    let bridge = ManagedBridge { datapath_type: "netdev".into(), uplinks, takeover: false };
    case.settings.bridges = BTreeMap::from([("br-int".to_owned(), bridge)]);
    case.world.managed = BTreeSet::from(["br-int".to_owned()]);
    case.world.owner = OwnerTag::of(&case.settings.agent).0;
    case
}

#[test]
fn flows_come_after_the_port_and_go_before_it() {
    let mut case = managed([guest(A, 1, true), guest(B, 2, false)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.say("a bridge is made, one guest is here and one is on its way");
    case.converge();
    case.say("the uplink comes");
    case.world.add_link("eth1", LinkKind::Veth, None);
    case.world.add_port("br-int", "eth1", "", StringMap::new());
    case.world.switch();
    case.converge();
    case.say("the other guest arrives");
    let arrived = guest(B, 2, true);
    case.desired.vifs.insert(arrived.id, arrived);
    case.converge();
    case.say("the first leaves");
    let left = guest(A, 1, true).id;
    case.desired.vifs.remove(&left);
    case.desired.deleted.insert(left);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_group_that_somebody_elses_flow_names_stays() {
    let mut case = managed([guest(A, 1, true), guest(B, 2, true)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.converge();
    // In place of the one that floods, so that another group is wanted.
    let flows = case.world.flows();
    let state = flows["br-int"].ready().unwrap();
    let floods = |flow: &&Arc<flows::Flow>| flow.instructions.apply.contains(&flows::Action::Group(1));
    let flood = state.owned.values().flat_map(|set| set.values()).find(floods).unwrap();
    case.world.add_flow("br-int", flows::Flow { cookie: 7, ..flows::Flow::clone(flood) });
    case.converge();
    let after = case.world.flows();
    let state = after["br-int"].ready().unwrap();
    assert_eq!(state.foreign.values().map(|set| set.len()).sum::<usize>(), 1, "{}", case.text);
    assert!(state.groups.contains_key(&1));
}

/// Within a `clone`, and in a group's own bucket.
#[test]
fn a_group_that_others_come_to_by_a_detour_is_theirs() {
    let mut case = managed([guest(A, 1, true)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.converge();
    for group in ["group_id=2,type=all,bucket=actions=drop", "group_id=1,type=all,bucket=actions=group:2"] {
        case.world.add_group("br-int", group.parse().unwrap());
    }
    let detour: flows::Flow = "cookie=7,table=200,priority=1 actions=clone(group:1)".parse().unwrap();
    case.world.add_flow("br-int", detour);
    let other = guest(B, 2, true);
    case.desired.vifs.insert(other.id, other);
    case.converge();
    let flows = case.world.flows();
    let groups = &flows["br-int"].ready().unwrap().groups;
    assert_eq!(groups.keys().copied().collect::<Vec<_>>(), [1, 2, 3], "{}", case.text);
    assert_eq!(groups[&1].buckets.len(), 1, "{}", case.text);
}

fn at<'a>(flows: &'a vifd::model::SwitchStates, table: u8, says: &str) -> Vec<&'a flows::Flow> {
    let owned = flows["br-int"].ready().unwrap().owned.values().flat_map(|set| set.values());
    owned.map(AsRef::as_ref).filter(|flow| flow.table == table && flow.to_string().contains(says)).collect()
}

/// Somebody makes one flow do what another does; whether vifd sees it happen or comes up later.
fn is_made_to_do_what_another_does(vifs: &[Arc<Vif>], table: u8, says: &str) {
    for running in [true, false] {
        let mut case = managed(vifs.to_vec());
        case.world.ovs.bridges.clear();
        case.world.ovs.ports.clear();
        case.world.ovs.interfaces.clear();
        case.memo = Some(Memo::default());
        case.converge();
        let before = case.world.flows();
        let [one, other] = at(&before, table, says)[..] else { panic!("two flows") };
        if !running {
            case.memo = Some(Memo::default());
        }
        case.world.add_flow("br-int", flows::Flow { instructions: one.instructions.clone(), ..other.clone() });
        case.converge();
        let after = case.world.flows();
        let [first, second] = at(&after, table, says)[..] else { panic!("two flows") };
        assert_ne!(first.instructions, second.instructions, "running: {running}\n{}", case.text);
        let numbers = |flows: &vifd::model::SwitchStates| {
            let state = flows["br-int"].ready().unwrap();
            (state.groups.len(), state.meters.len())
        };
        assert_eq!(numbers(&before), numbers(&after));
        if running {
            assert_eq!(before, after, "what it was is known");
        }
    }
}

fn on_network(vif: &Arc<Vif>, network: u8, more: &Value) -> Arc<Vif> {
    let mut vif = vif.as_ref().clone();
    let mut of = json!({
        "id": format!("9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a{network:02x}"), "bridge": "br-int", "mtu": 1450,
    });
    of.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let other = json!({"type": "openvswitch", "vif_name": "tap9", "network": of, "port_profile": ovs(&json!({}))});
    vif.network = record(A, &other).network.clone();
    Arc::new(vif)
}

#[test]
fn a_network_takes_no_group_of_another() {
    let vif = |number: u8, network| {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        on_network(&guest(&id, number, true), network, &json!({}))
    };
    is_made_to_do_what_another_does(&[vif(1, 1), vif(2, 1), vif(3, 2), vif(4, 2)], 40, "group:");
}

#[test]
fn a_vif_takes_no_meter_of_another() {
    let with_rate = |vif: Arc<Vif>| {
        let mut vif = vif.as_ref().clone();
        vif.policy.rate.egress_kbps = 1000;
        Arc::new(vif)
    };
    let vifs = [guest(A, 1, true), guest(B, 2, true)].map(with_rate);
    is_made_to_do_what_another_does(&vifs, 20, "meter");
}

/// The network that has it keeps it, whichever comes first by its id, and whatever vifd remembers.
#[test]
fn a_vlan_of_an_uplink_is_one_networks() {
    let vif = |number: u8, network, vlan| {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        on_network(&guest(&id, number, true), network, &json!({"vlan": vlan}))
    };
    let mut case = managed([vif(2, 2, 10)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.converge();
    case.world.add_link("eth1", LinkKind::Veth, None);
    case.world.add_port("br-int", "eth1", "", StringMap::new());
    case.world.switch();
    case.converge();
    let arriving = |case: &Case| {
        let flows = case.world.flows();
        at(&flows, 0, "dl_vlan=10").iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let before = arriving(&case);
    assert_eq!(before.len(), 1, "{:?}", case.world.flows());
    for memo in [None, Some(Memo::default())] {
        case.memo = memo;
        for late in [vif(1, 1, 10), vif(3, 3, 20)] {
            case.desired.vifs.insert(late.id, late);
        }
        case.text.clear();
        case.converge();
        assert_eq!(arriving(&case), before);
        let clash = "Conflict { reason: \"VLAN 10 on the uplink of bridge br-int is network \
                     9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a02's\" }";
        assert_eq!(case.text.matches(clash).count(), 1, "{}", case.text);
        assert_eq!(case.text.matches("plugged, Ready").count(), 2, "{}", case.text);
    }
    // It is moved away, and the other one gets it.
    let moved = vif(2, 2, 30);
    case.desired.vifs.insert(moved.id, moved);
    case.text.clear();
    case.converge();
    assert_eq!(arriving(&case).len(), 1);
    assert_ne!(arriving(&case), before);
    assert_eq!(case.text.matches("plugged, Ready").count(), 3, "{}", case.text);
}

fn with_rules(id: &str, number: u8) -> Arc<Vif> {
    let mut vif = guest(id, number, true).as_ref().clone();
    vif.policy.rules = Some(Vec::new());
    Arc::new(vif)
}

fn zone(case: &Case, port: &str) -> u32 {
    case.world.ovs.interfaces[port].external_ids.get("vifd-zone").unwrap().parse().unwrap()
}

/// Zones that the flows of a bridge name.
fn tracked(case: &Case) -> BTreeSet<u32> {
    let flows = case.world.flows();
    let texts: Vec<String> = at(&flows, 30, "ct(").iter().map(ToString::to_string).collect();
    let numbers = texts.iter().filter_map(|text| text.split_once("zone=")?.1.split([',', ')']).next()?.parse().ok());
    numbers.collect()
}

#[test]
fn a_zone_is_empty_when_it_is_given_and_rests_when_it_was_given_back() {
    let mut case = managed([with_rules(A, 1)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.memo = Some(Memo::default());
    case.converge();
    assert_eq!((zone(&case, "tap1"), &case.world.flushed_zones[..]), (32768, &[32768][..]));

    // vifd and the switches come and go: connections stay.
    case.memo = Some(Memo::default());
    case.converge();
    for memo in [case.memo.take(), Some(Memo::default())] {
        case.memo = memo;
        case.world.restart_switches();
        case.converge();
        assert_eq!(tracked(&case), BTreeSet::from([32768]));
    }
    assert_eq!(case.world.flushed_zones, [32768]);

    // One goes, another one comes.
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    case.converge();
    let next = with_rules(B, 2);
    case.desired.vifs.insert(next.id, next);
    case.converge();
    assert_eq!((zone(&case, "tap2"), &case.world.flushed_zones[..]), (32769, &[32768, 32769][..]), "{}", case.text);
}

#[test]
fn a_zone_that_cannot_be_a_vifs_is_replaced() {
    let set = |case: &mut Case, port: &str, zone: &str| {
        let interface = case.world.ovs.interfaces.get_mut(port).unwrap();
        Arc::make_mut(interface).external_ids.insert("vifd-zone", zone);
    };
    for memo in [None, Some(Memo::default())] {
        let mut case = managed([with_rules(A, 1), with_rules(B, 2)]);
        case.world.ovs.bridges.clear();
        case.world.ovs.ports.clear();
        case.world.ovs.interfaces.clear();
        case.memo = memo;
        case.converge();
        let before = [zone(&case, "tap1"), zone(&case, "tap2")];
        // As an earlier release gave them, and the one of another.
        for wrong in ["7".to_owned(), before[0].to_string()] {
            set(&mut case, "tap2", &wrong);
            case.converge();
            assert_eq!(zone(&case, "tap1"), before[0]);
            assert!(zone(&case, "tap2") > 32768 && zone(&case, "tap2") != before[0], "{}", case.text);
            assert_eq!(tracked(&case), [zone(&case, "tap1"), zone(&case, "tap2")].into());
        }
        // Those of OVN on this host.
        case.memo = case.memo.take().map(|_| Memo::default());
        let taken = zone(&case, "tap1");
        let bridge = Arc::make_mut(case.world.ovs.bridges.get_mut("br-int").unwrap());
        bridge.external_ids.insert("ct-zone-lrp1", taken.to_string().as_str());
        bridge.external_ids.insert("ct-zone-lrp2", "40000");
        case.converge();
        assert_ne!(zone(&case, "tap1"), taken);
        assert_eq!(tracked(&case), [zone(&case, "tap1"), zone(&case, "tap2")].into());
    }
}

/// Flows that are partly others already when the port has to go keep it no longer than those that are right.
#[test]
fn flows_of_a_port_that_is_given_up_go_and_none_come() {
    let mut case = managed([guest(A, 1, true)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.converge();
    let flows = case.world.flows();
    let cookie = Cookie::vif(OwnerTag::of(&case.settings.agent), guest(A, 1, true).id);
    let one = flows["br-int"].ready().unwrap().owned[&cookie.0].keys().min_by_key(|id| id.priority).unwrap().clone();
    case.world.delete_flow("br-int", &one);
    let bridge = case.world.ovs.bridges["br-int"].as_ref().clone();
    case.world.ovs.bridges.insert("br-int".into(), Arc::new(Bridge { datapath_type: "netdev".into(), ..bridge }));
    case.world.kernel.links.clear();
    case.text.clear();
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_bridge_is_taken_over_when_it_is_seen_what_goes_with_it() {
    let mut case = managed([]);
    case.settings.bridges.get_mut("br-int").unwrap().takeover = true;
    let secured = |case: &Case| {
        let mut once = Memo::default();
        let inputs = Inputs {
            desired: &case.desired,
            clashes: &BTreeMap::new(),
            observed: &case.world.observed(),
            holds: &Holds::default(),
            orders: &case.orders,
            in_flight: &BTreeSet::new(),
            settings: &case.settings,
        };
        let plan = plan(inputs, &mut once, Instant::now());
        assert_eq!(plan.unmanaged, BTreeMap::new());
        plan.ovs.iter().any(|op| matches!(op.op, OvsOp::SecureBridge { .. }))
    };
    case.world.managed.clear();
    assert!(!secured(&case), "its switch is not seen yet");
    case.world.managed.insert("br-int".into());
    assert!(secured(&case));
}

/// Nothing is taken away by a line that is missing from the configuration, and nobody is told that all is well.
#[test]
fn a_bridge_that_is_managed_no_more_is_told_with_what_drops_its_flows() {
    let mut case = managed([guest(A, 1, true)]);
    case.world.ovs.bridges.clear();
    case.world.ovs.ports.clear();
    case.world.ovs.interfaces.clear();
    case.settings.bridges.get_mut("br-int").unwrap().uplinks.clear();
    case.converge();
    assert_eq!(judged(&case, A).verdict, Verdict::Ready, "{}", case.text);
    let (bridges, flows) = (std::mem::take(&mut case.settings.bridges), case.world.flows());
    case.world.managed.clear();
    case.converge();
    let Verdict::Conflict { reason } = judged(&case, A).verdict else { panic!("{}", case.text) };
    assert!(reason.contains("not managed any more") && reason.contains("ovs-vsctl del-fail-mode br-int"), "{reason}");
    // Again, or never more.
    (case.settings.bridges, case.world.managed) = (bridges, BTreeSet::from(["br-int".to_owned()]));
    assert_eq!((judged(&case, A).verdict, case.world.flows()), (Verdict::Ready, flows));
    case.settings.bridges.clear();
    case.world.set_fail_mode("br-int", None);
    assert_eq!(judged(&case, A).verdict, Verdict::Ready);
}

#[test]
fn a_bridge_that_is_somebody_elses_is_not_managed() {
    let mut text = String::new();
    let mut claim = |what: &str, change: &dyn Fn(&mut World)| {
        let mut case = managed([guest(A, 1, true)]);
        case.settings.bridges.get_mut("br-int").unwrap().uplinks.clear();
        case.world.set_fail_mode("br-int", Some("secure"));
        change(&mut case.world);
        let before = case.world.flows();
        case.say(what);
        case.converge();
        assert_eq!(before, case.world.flows(), "{what}");
        text.push_str(&case.text);
    };
    fn bridge(world: &mut World) -> &mut Bridge {
        Arc::make_mut(world.ovs.bridges.get_mut("br-int").unwrap())
    }
    claim("it forwards without flows", &|world| world.set_fail_mode("br-int", None));
    claim("it has a controller", &|world| bridge(world).controllers.extend([uuid::Uuid::nil()]));
    claim("it is OVN's", &|world| world.ovs.ovn_bridges.extend(["br-int".into()]));
    claim("it speaks nothing that we do", &|world| bridge(world).protocols.extend(["OpenFlow13".into()]));
    claim("it has flows", &|world| world.add_flow("br-int", "table=0,priority=0 actions=NORMAL".parse().unwrap()));
    claim("it is another agent's", &|world| {
        bridge(world).external_ids.insert("vifd-owner", "other");
    });
    insta::assert_snapshot!(text);
}
