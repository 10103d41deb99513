//! What VIFs have in common on a managed bridge: who decides where records disagree, and who waits while it changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flows::{Field, Flow, FlowId};
use serde_json::{Value, json};
use vifd::backend::Party;
use vifd::backend::ovs::StringMap;
use vifd::model::{LinkKind, Vif, VifId};
use vifd::plan::pipeline::{Cookie, NetworkKey, OwnerTag, tables};
use vifd::plan::{MaxRemovals, Memo, OPENFLOW, Plan, Settings, Uplink, Verdict};
use vifd::record;

use super::host::{Host, MANAGED, managed, settings};

const NETWORK: &str = "9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11";
/// Two networks with the same hash of 48 bits,
const NAMESAKES: [&str; 2] = ["6ecdd0b4-52d3-4f5e-8000-000000000000", "615c856d-5c4a-4f8e-8000-000000000000"];
/// and a VIF and a network.
const VIF_LIKE_NETWORK: [&str; 2] = ["082e4ee4-8f2b-47fb-8000-000000000000", "e6212192-a43d-4c22-8000-000000000000"];

pub(super) fn id(number: u8) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// A guest of vifd's own making; `network` and `policy` add to what all have.
pub(super) fn guest(id: &str, number: u8, network: &Value, policy: &Value) -> Arc<Vif> {
    let mut of = json!({
        "id": NETWORK, "bridge": MANAGED, "mtu": 1450,
        "subnets": [{"cidr": "10.0.0.0/24", "ips": [{"address": format!("10.0.0.{number}")}]}],
    });
    of.as_object_mut().unwrap().extend(network.as_object().unwrap().clone());
    let vif = json!({
        "type": "openvswitch", "id": id, "vif_name": format!("tap{number}"), "network": of,
        "address": format!("52:54:00:00:00:{number:02x}"),
        "port_profile": {"type": "openvswitch", "create_port": true, "create_tap": true, "interface_id": id},
    });
    Arc::new(record::decode(json!({"vif": vif, "policy": policy}).to_string().as_bytes()).unwrap().vif)
}

fn on_vlan(number: u8, vlan: u16) -> Arc<Vif> {
    guest(&id(number), number, &json!({"vlan": vlan}), &json!({}))
}

/// A managed bridge with an uplink for all networks.
fn host(vifs: &[Arc<Vif>]) -> Host {
    let vifs = vifs.iter().map(|vif| vif.as_ref().clone()).collect();
    let mut host = Host::new(vifs, Settings { bridges: managed(true, true), ..settings() });
    host.converge();
    add_uplink(&mut host, "tap11");
    host.converge();
    host
}

fn add_uplink(host: &mut Host, name: &str) {
    host.world.add_link(name, LinkKind::Veth, None);
    host.world.add_port(MANAGED, name, "", StringMap::new());
}

pub(super) fn want(host: &mut Host, vif: &Arc<Vif>) {
    host.desired.vifs.insert(vif.id, Arc::clone(vif));
}

/// Does what is planned until there is nothing, and looks at every plan on the way.
pub(super) fn converging(host: &mut Host, each: impl Fn(&Plan)) -> Plan {
    for _ in 0..12 {
        let plan = host.plan();
        each(&plan);
        if host.round(usize::MAX, true, true) == 0 {
            return plan;
        }
        host.world.switch();
    }
    panic!("not converged");
}

pub(super) fn ready(ids: &[VifId]) -> impl Fn(&Plan) {
    move |plan| {
        for id in ids {
            assert_eq!((id, &plan.judgements[id].verdict), (id, &Verdict::Ready));
        }
    }
}

fn conflict(plan: &Plan, id: VifId) -> &str {
    match &plan.judgements[&id].verdict {
        Verdict::Conflict { reason } => reason,
        other => panic!("{id}: {other:?}"),
    }
}

pub(super) fn owned(host: &Host, cookie: Cookie) -> Vec<Flow> {
    let flows = host.world.flows();
    let set = flows[MANAGED].ready().unwrap().owned.get(&cookie.0).cloned();
    set.iter().flat_map(|set| set.values()).map(|flow| flow.as_ref().clone()).collect()
}

fn of_vif(host: &Host, id: VifId) -> Vec<Flow> {
    owned(host, Cookie::vif(OwnerTag::of(&host.settings.agent), id))
}

/// The ports that something is let in by.
fn admitted(host: &Host) -> BTreeSet<u128> {
    let flows = host.world.flows();
    let all = flows[MANAGED].ready().unwrap().owned.values().flat_map(|set| set.values());
    let admitted = all.filter(|flow| tables::Place::of(flow) == tables::ADMIT);
    admitted.filter_map(|flow| flow.matching.exact(Field::IN_PORT)).collect()
}

/// The VLANs, with the bit that says there is one, that are let in by an uplink.
fn vlans(host: &Host) -> Vec<u128> {
    let flows = host.world.flows();
    let all = flows[MANAGED].ready().unwrap().owned.values().flat_map(|set| set.values());
    let admitted = all.filter(|flow| tables::Place::of(flow) == tables::ADMIT);
    admitted.filter_map(|flow| flow.matching.exact(Field::VLAN_VID)).filter(|vlan| *vlan != 0).collect()
}

/// One record that says another VLAN does not move a network, whatever its id is and whatever vifd remembers.
#[test]
fn the_vlan_of_a_network_is_what_it_was() {
    let [first, second, third] = [on_vlan(2, 10), on_vlan(3, 10), on_vlan(1, 20)];
    let mut host = host(&[Arc::clone(&first), Arc::clone(&second)]);
    want(&mut host, &third);
    for memo in [None, Some(Memo::default())] {
        host.memo = memo.unwrap_or(host.memo);
        let plan = converging(&mut host, ready(&[first.id, second.id]));
        assert_eq!(conflict(&plan, third.id), "the network has VLAN 10 here, the record says 20");
        assert_eq!(vlans(&host), [0x100a]);
        assert_eq!(of_vif(&host, third.id), []);
    }
    // They change one after the other: until the last does, those that did keep what they have.
    let had = of_vif(&host, first.id);
    want(&mut host, &on_vlan(2, 20));
    let plan = converging(&mut host, ready(&[second.id]));
    assert_eq!(conflict(&plan, first.id), "the network has VLAN 10 here, the record says 20");
    assert_eq!((vlans(&host), of_vif(&host, first.id)), (vec![0x100a], had));
    want(&mut host, &on_vlan(3, 20));
    ready(&[first.id, second.id, third.id])(&converging(&mut host, |_| ()));
    assert_eq!(vlans(&host), [0x1014]);
}

/// Nor does it when neither memory nor flows tell any more, or the settings are others.
#[test]
fn the_vlan_of_a_network_is_what_most_records_say() {
    let [first, second, third] = [on_vlan(2, 10), on_vlan(3, 10), on_vlan(1, 20)];
    let start = || {
        let mut host = host(&[Arc::clone(&first), Arc::clone(&second)]);
        want(&mut host, &third);
        converging(&mut host, ready(&[first.id, second.id]));
        host
    };
    let is_as_before = |host: &mut Host| {
        let plan = converging(host, |_| ());
        ready(&[first.id, second.id])(&plan);
        assert_eq!(conflict(&plan, third.id), "the network has VLAN 10 here, the record says 20");
        assert_eq!(vlans(host), [0x100a]);
    };
    // The uplink is away when vifd restarts or reads its configuration, and with it the flow.
    let restart: fn(&mut Host) = |host| host.memo = Memo::default();
    let reload: fn(&mut Host) = |host| host.settings.max_removals = MaxRemovals::Percent(50);
    for change in [restart, reload] {
        let mut host = start();
        host.world.delete_port("tap11");
        host.world.switch();
        converging(&mut host, |_| ());
        assert_eq!(vlans(&host), []);
        change(&mut host);
        converging(&mut host, |_| ());
        host.world.add_port(MANAGED, "tap11", "", StringMap::new());
        host.world.switch();
        is_as_before(&mut host);
    }
    // The host restarts.
    let mut host = start();
    host.memo = Memo::default();
    host.world.restart_switches();
    host.world.switch();
    is_as_before(&mut host);
}

/// A VIF's own flows have nothing of the VLAN: its record is in force but for that.
#[test]
fn who_was_in_a_network_is_kept_right_whatever_vlan_its_record_says() {
    let second = on_vlan(3, 10);
    let start = || {
        let mut host = host(&[on_vlan(2, 10), Arc::clone(&second)]);
        let had = of_vif(&host, second.id).len();
        want(&mut host, &on_vlan(2, 20));
        converging(&mut host, ready(&[second.id]));
        assert_eq!(of_vif(&host, on_vlan(2, 20).id).len(), had);
        (host, on_vlan(2, 20).id, had)
    };
    let words = "the network has VLAN 10 here, the record says 20";
    // Flows that somebody deleted come back, also when vifd was restarted meanwhile.
    for memo in [None, Some(Memo::default())] {
        let (mut host, id, had) = start();
        host.memo = memo.unwrap_or(host.memo);
        let security = |flow: &&Flow| [11, 12].contains(&flow.table);
        of_vif(&host, id).iter().filter(security).for_each(|flow| host.world.delete_flow(MANAGED, &FlowId::of(flow)));
        assert!(of_vif(&host, id).len() < had);
        let plan = converging(&mut host, ready(&[second.id]));
        assert_eq!((conflict(&plan, id), of_vif(&host, id).len()), (words, had));
    }
    // All of them do after a restart of the switch.
    let (mut host, id, had) = start();
    host.world.restart_switches();
    host.world.switch();
    let plan = converging(&mut host, |_| ());
    ready(&[second.id])(&plan);
    assert_eq!((conflict(&plan, id), of_vif(&host, id).len(), vlans(&host)), (words, had, vec![0x100a]));
    // Nobody gets in by rules any more.
    let policy = json!({"rules": [{"direction": "egress"}]});
    want(&mut host, &guest(&id.to_string(), 2, &json!({"vlan": 20}), &policy));
    let plan = converging(&mut host, ready(&[second.id]));
    let tables: BTreeSet<u8> = of_vif(&host, id).iter().map(|flow| flow.table).collect();
    assert_eq!((conflict(&plan, id), tables.contains(&51)), (words, true));
    // Flows follow the port to another number, and go before a port.
    let renumbered = Arc::make_mut(host.world.ovs.interfaces.get_mut("tap2").unwrap());
    renumbered.ofport = renumbered.ofport.map(|number| number + 100);
    let number = renumbered.ofport.unwrap() as u128;
    converging(&mut host, ready(&[second.id]));
    let from: BTreeSet<u128> =
        of_vif(&host, id).iter().filter_map(|flow| flow.matching.exact(Field::IN_PORT)).collect();
    assert_eq!(from, [number].into());
}

/// Where nothing tells who was in a network, who disagrees with most of its records was not.
#[test]
fn who_disagrees_with_most_is_new_when_nobody_knows_and_has_no_flows() {
    let vifs = [2, 3].map(|number| on_vlan(number, 10));
    let mut host = host(&vifs);
    let changed = on_vlan(1, 10);
    want(&mut host, &changed);
    converging(&mut host, |_| ());
    want(&mut host, &on_vlan(1, 20));
    converging(&mut host, ready(&vifs.each_ref().map(|vif| vif.id)));
    host.memo = Memo::default();
    host.world.restart_switches();
    host.world.switch();
    let plan = converging(&mut host, |_| ());
    ready(&vifs.each_ref().map(|vif| vif.id))(&plan);
    assert_eq!(conflict(&plan, changed.id), "the network has VLAN 10 here, the record says 20");
    assert_eq!((of_vif(&host, changed.id), vlans(&host)), (vec![], vec![0x100a]));
    want(&mut host, &changed);
    ready(&[changed.id])(&converging(&mut host, |_| ()));
    // Who comes from another network is new as well, and has left that.
    let other = json!({"id": "00000000-2ba0-4f5e-8a14-6d0c2b2b0a11", "vlan": 30});
    want(&mut host, &guest(&id(1), 1, &other, &json!({})));
    ready(&[changed.id])(&converging(&mut host, |_| ()));
    want(&mut host, &on_vlan(1, 20));
    let plan = converging(&mut host, |_| ());
    conflict(&plan, changed.id);
    assert_eq!(of_vif(&host, changed.id), []);
}

/// The VLAN of an uplink is the network's that has it, also when the uplink was away or has another number.
#[test]
fn an_uplink_that_comes_back_has_the_networks_that_it_had() {
    let on = |number: u8, network: &str| guest(&id(number), number, &json!({"id": network, "vlan": 10}), &json!({}));
    let had = on(2, "ffffffff-2ba0-4f5e-8a14-6d0c2b2b0a11");
    let late = on(1, "00000000-2ba0-4f5e-8a14-6d0c2b2b0a11");
    let mut host = host(&[Arc::clone(&had)]);
    want(&mut host, &late);
    let words = "VLAN 10 on the uplink of bridge br-int is network ffffffff-2ba0-4f5e-8a14-6d0c2b2b0a11's";
    let is_as_before = |host: &mut Host| {
        let plan = converging(host, |_| ());
        ready(&[had.id])(&plan);
        assert_eq!((conflict(&plan, late.id), vlans(host)), (words, vec![0x100a]));
    };
    is_as_before(&mut host);
    host.world.delete_port("tap11");
    host.world.switch();
    converging(&mut host, |_| ());
    assert_eq!(vlans(&host), []);
    host.world.add_port(MANAGED, "tap11", "", StringMap::new());
    host.world.switch();
    is_as_before(&mut host);
    let renumbered = Arc::make_mut(host.world.ovs.interfaces.get_mut("tap11").unwrap());
    renumbered.ofport = renumbered.ofport.map(|number| number + 100);
    is_as_before(&mut host);
    // It goes with the network, and with its VLAN.
    want(&mut host, &guest(&id(2), 2, &json!({"id": "ffffffff-2ba0-4f5e-8a14-6d0c2b2b0a11", "vlan": 11}), &json!({})));
    ready(&[had.id, late.id])(&converging(&mut host, |_| ()));
    want(&mut host, &had);
    let plan = converging(&mut host, ready(&[late.id]));
    assert_eq!(conflict(&plan, had.id), words.replace("ffffffff", "00000000"));
}

/// What is in them no more is replaced, as when vifd starts with them; what is, is as it was.
#[test]
fn other_settings_take_what_they_forbid_and_nothing_else() {
    let policy = json!({"rate": {"ingress_kbps": 1000}});
    let vifs = [2, 3].map(|number| guest(&id(number), number, &json!({"vlan": 10}), &policy));
    let mut host = host(&vifs);
    let numbers = |host: &Host| {
        let flows = host.world.flows();
        let state = flows[MANAGED].ready().unwrap();
        (state.groups.keys().copied().collect::<Vec<_>>(), state.meters.keys().copied().collect::<Vec<_>>())
    };
    let (groups, meters) = numbers(&host);
    assert_eq!((groups.len(), meters.len()), (1, 2));
    host.settings.groups.first = groups[0] + 7;
    host.settings.meters.first = meters[0] + 1;
    // The same uplink is the second now.
    let other = Uplink { port: "tap10".into(), networks: vec!["physnet".into()] };
    host.settings.bridges.get_mut(MANAGED).unwrap().uplinks.insert(0, other);
    // A record that says another VLAN comes with it.
    want(&mut host, &on_vlan(1, 20));
    let plan = converging(&mut host, |_| ());
    assert_eq!(conflict(&plan, on_vlan(1, 20).id), "the network has VLAN 10 here, the record says 20");
    ready(&vifs.each_ref().map(|vif| vif.id))(&plan);
    assert_eq!(vlans(&host), [0x100a]);
    let (has, metered) = numbers(&host);
    assert_eq!((has, metered.contains(&meters[1])), (vec![groups[0], groups[0] + 7], true));
    assert_eq!(metered.len(), 3);
}

/// A label is a VIF's own affair unless it names an uplink.
#[test]
fn another_label_is_no_disagreement_unless_it_names_another_uplink() {
    let labelled = |number: u8, label| guest(&id(number), number, &json!({"label": label, "vlan": 10}), &json!({}));
    let mut host = host(&[labelled(2, "net")]);
    let other = Uplink { port: "tap10".into(), networks: vec!["physnet".into()] };
    host.settings.bridges.get_mut(MANAGED).unwrap().uplinks.push(other);
    add_uplink(&mut host, "tap10");
    let [renamed, elsewhere] = [labelled(3, "renamed"), labelled(1, "physnet")];
    want(&mut host, &renamed);
    want(&mut host, &elsewhere);
    let plan = converging(&mut host, |_| ());
    ready(&[labelled(2, "net").id, renamed.id])(&plan);
    let words = "the network has uplink tap11 here, by the label in the record it would have uplink tap10";
    assert_eq!(conflict(&plan, elsewhere.id), words);
    // Without others it is as it says.
    host.desired.vifs.retain(|id, _| *id == elsewhere.id);
    ready(&[elsewhere.id])(&converging(&mut host, |_| ()));
}

/// Packets of networks with the same metadata could not be told apart, nor flows with the same cookie.
#[test]
fn who_comes_later_and_has_the_same_number_has_no_flows() {
    let on = |vif: &str, number, network: &str| {
        guest(vif, number, &json!({"id": network, "vlan": u16::from(number)}), &json!({}))
    };
    let [network, other] = NAMESAKES;
    let [vif, like_vif] = VIF_LIKE_NETWORK;
    for (first, second, words) in [
        (
            on(&id(2), 2, network),
            on(&id(1), 1, other),
            format!("network {other} would have cookie 0x5011bdfb85da717d, which is that of network {network}"),
        ),
        (
            on(vif, 2, NETWORK),
            on(&id(1), 1, like_vif),
            format!("network {like_vif} would have cookie 0x50112ee8edbbd826, which is that of VIF {vif}"),
        ),
        (
            on(&id(1), 1, like_vif),
            on(vif, 2, NETWORK),
            format!("VIF {vif} would have cookie 0x50112ee8edbbd826, which is that of network {like_vif}"),
        ),
    ] {
        let mut host = host(&[Arc::clone(&first)]);
        let had = (admitted(&host), of_vif(&host, first.id));
        want(&mut host, &second);
        let plan = converging(&mut host, ready(&[first.id]));
        assert_eq!(conflict(&plan, second.id), format!("{words}: one of the two needs another id"));
        assert_eq!(had, (admitted(&host), of_vif(&host, first.id)), "nothing of it is let in");
        host.desired.vifs.remove(&first.id);
        ready(&[second.id])(&converging(&mut host, |_| ()));
        assert!(!of_vif(&host, second.id).is_empty());
    }
}

/// Its flood, the members of its groups and the address that it shares with others become others for those who are
/// there; nothing that they rely on does.
#[test]
fn who_is_ready_stays_ready_while_others_join_and_leave() {
    let policy = json!({
        "groups": ["web"], "allowed_address_pairs": [{"ip": "10.0.0.200", "mac": "00:00:5e:00:01:07"}],
        "rules": [{"direction": "ingress", "remote_group": "web"}, {"direction": "egress"}],
    });
    let vif = |number: u8| guest(&id(number), number, &json!({}), &policy);
    for uplink in [true, false] {
        let first = vif(4);
        let mut host =
            Host::new(vec![first.as_ref().clone()], Settings { bridges: managed(true, uplink), ..settings() });
        host.converge();
        add_uplink(&mut host, "tap11");
        host.converge();
        for (number, there) in [(1, &[4][..]), (7, &[4, 1]), (5, &[4, 1, 7])] {
            let there: Vec<VifId> = there.iter().map(|number| vif(*number).id).collect();
            want(&mut host, &vif(number));
            let plan = converging(&mut host, ready(&there));
            ready(&[vif(number).id])(&plan);
        }
        host.desired.vifs.remove(&vif(1).id);
        converging(&mut host, ready(&[4, 7, 5].map(|number| vif(number).id)));
    }
}

/// With a group go the flows that name it: not as long as the change of one of these is refused.
#[test]
fn what_a_refused_network_names_stays() {
    let vifs = [2, 3].map(|number| guest(&id(number), number, &json!({}), &json!({})));
    let of = |vif: &Arc<Vif>| vif.as_ref().clone();
    let mut host = Host::new(vifs.iter().map(of).collect(), Settings { bridges: managed(true, false), ..settings() });
    host.converge();
    let network = Cookie::network(OwnerTag::of(&host.settings.agent), NetworkKey::of(&vifs[0]));
    let there = |host: &Host| {
        let groups = host.world.flows()[MANAGED].ready().unwrap().groups.len();
        (owned(host, network).iter().any(|flow| tables::Place::of(flow) == tables::FLOOD), groups)
    };
    assert_eq!(there(&host), (true, 1));
    host.holds.refused(Party::Sharers(MANAGED.into(), network.0), OPENFLOW, "table full".into(), host.now);
    host.desired.vifs.remove(&vifs[1].id);
    converging(&mut host, |_| ());
    assert_eq!(there(&host), (true, 1));
    host.now += Duration::from_secs(2);
    converging(&mut host, |_| ());
    assert_eq!(there(&host), (false, 0));
}

/// Until its flows are gone, which nothing but its `fail_mode` tells.
#[test]
fn a_bridge_that_is_managed_no_more_is_told() {
    let vif = on_vlan(2, 10);
    let mut host = host(&[Arc::clone(&vif)]);
    host.settings.bridges.clear();
    let plan = converging(&mut host, |_| ());
    assert!(conflict(&plan, vif.id).starts_with("bridge br-int is not managed any more"));
    host.world.set_fail_mode(MANAGED, None);
    ready(&[vif.id])(&host.plan());
}

/// What they rely on is missed all the same.
#[test]
fn who_is_ready_is_not_when_somebody_takes_the_flood_or_a_bucket_away() {
    let vifs = [2, 3, 4].map(|number| guest(&id(number), number, &json!({}), &json!({})));
    let mut host = host(&vifs);
    ready(&vifs.each_ref().map(|vif| vif.id))(&host.plan());
    let flows = host.world.flows();
    let state = flows[MANAGED].ready().unwrap();
    let all = || state.owned.values().flat_map(|set| set.values());
    let flood = all().find(|flow| tables::Place::of(flow) == tables::FLOOD).unwrap();
    let phases = |host: &mut Host| {
        let plan = host.plan();
        vifs.each_ref().map(|vif| plan.judgements[&vif.id].flows_ready)
    };
    host.world.delete_flow(MANAGED, &FlowId::of(flood));
    assert_eq!(phases(&mut host), [Some(false); 3]);
    host.converge();
    let group = state.groups.values().next().unwrap().as_ref().clone();
    // The first is the uplink's.
    assert_eq!(group.buckets.len(), 4);
    let fewer = group.buckets.iter().take(3).cloned().collect();
    host.world.add_group(MANAGED, flows::Group { buckets: fewer, ..group });
    assert_eq!(phases(&mut host), [Some(true), Some(true), Some(false)]);
    ready(&vifs.each_ref().map(|vif| vif.id))(&host.converge());
}
