//! Golden plans: for a record and a host, what is planned round by round until nothing is, and the last word on
//! each VIF. `INSTA_UPDATE=always cargo test -p vifd --test plan_golden` writes them anew.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use vifd::backend::openflow::{FlowChange, FlowOp};
use vifd::backend::ovs::{OvsOp, StringMap};
use vifd::backend::world::World;
use vifd::backend::{Attributed, Outcome};
use vifd::config::Config;
use vifd::model::{Bridge, Desired, FileOwner, LinkKind, MacAddr, Observed, Table, View, Vif, VifId};
use vifd::plan::pipeline::{Cookie, OwnerTag};
use vifd::plan::{
    Clash, Facts, Holds, Inputs, Judgement, ManagedBridge, Memo, Missing, Orders, Settings, Uplink, Verdict, plan,
    release,
};
use vifd::record;

const A: &str = "dc065497-3c8d-4f44-8fb4-e1d33c16a536";
const B: &str = "0e5d7a5b-4d0a-4a1c-9a39-6f6c0b1f2f11";
const MAC: MacAddr = MacAddr([0x22, 0x52, 0x25, 0x62, 0xe2, 0xaa]);

fn settings() -> Settings {
    Settings {
        socket_dir: PathBuf::from("/run/vhost"),
        socket_owner: FileOwner { uid: 107, gid: 107, mode: 0o770, label: None },
        ..Config::default().settings().unwrap()
    }
}

/// A native record with what every VIF of these cases shares; `vif` adds and replaces.
fn record(id: &str, vif: &Value) -> Arc<Vif> {
    let mut whole = json!({
        "id": id, "address": MAC.to_string(),
        "network": {"id": "9e6a25a2-2ba0-4f5e-8a14-6d0c2b2b0a11", "bridge": "br-int", "mtu": 1450},
    });
    for (key, value) in vif.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let record = json!({"vif": whole, "instance": {"uuid": "c1c0a3f1-8f2a-4c8e-9b0a-0b5a4f8d7e66"}, "generation": 1});
    Arc::new(record::decode(record.to_string().as_bytes()).expect("a good record").vif)
}

fn ovs(extra: &Value) -> Value {
    let mut profile = json!({"type": "openvswitch", "interface_id": "6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77"});
    for (key, value) in extra.as_object().unwrap() {
        profile[key] = value.clone();
    }
    profile
}

fn port(extra: &Value) -> Value {
    json!({"type": "openvswitch", "vif_name": "tapdc065497-3c", "port_profile": ovs(extra)})
}

struct Case {
    world: World,
    settings: Settings,
    desired: Desired,
    orders: Orders,
    /// Empty for every plan where none is given: as after a restart.
    memo: Option<Memo>,
    text: String,
}

impl Case {
    fn new(vifs: impl IntoIterator<Item = Arc<Vif>>) -> Self {
        let mut world = World::new(true);
        world.add_bridge("br-int", "netdev", StringMap::new());
        world.add_socket_dir(&PathBuf::from("/run/vhost"));
        let vifs = vifs.into_iter().map(|vif| (vif.id, vif)).collect();
        Case {
            world,
            settings: settings(),
            desired: Desired { synced: true, vifs, ..Desired::default() },
            orders: Orders::default(),
            memo: None,
            text: String::new(),
        }
    }

    fn say(&mut self, line: &str) {
        let _ = writeln!(self.text, "# {line}");
    }

    /// Plans and applies until nothing is planned.
    fn converge(&mut self) -> &mut Self {
        let now = Instant::now();
        for round in 1.. {
            assert!(round < 9, "it does not converge:\n{}", self.text);
            let observed = self.world.observed();
            let clashes: BTreeMap<VifId, Clash> =
                record::clashes(&self.desired.vifs, &[], self.settings.per_port_bridge);
            let inputs = Inputs {
                desired: &self.desired,
                clashes: &clashes,
                observed: &observed,
                holds: &Holds::default(),
                orders: &self.orders,
                in_flight: &BTreeSet::new(),
                settings: &self.settings,
            };
            let plan = plan(inputs, self.memo.as_mut().unwrap_or(&mut Memo::default()), now);
            // As the reconciler does.
            if self.desired.synced {
                self.orders.stopped = plan.stopped_removals.iter().copied().collect();
            }
            if plan.links.is_empty() && plan.ovs.is_empty() && plan.flows.is_empty() {
                for (id, judgement) in &plan.judgements {
                    let plugged = if judgement.plugged { "plugged, " } else { "" };
                    let _ = writeln!(self.text, "  {id}: {plugged}{:?}", judgement.verdict);
                }
                for id in &plan.gone {
                    let _ = writeln!(self.text, "  {id}: gone");
                }
                if !plan.stopped_removals.is_empty() {
                    let _ = writeln!(self.text, "  removals stopped: {}", plan.stopped_removals.len());
                }
                return self;
            }
            let _ = writeln!(self.text, "  round {round}");
            let (links, ovs) = plan.batches(true);
            for op in &links {
                assert_eq!(self.world.apply_link(&op.op), Outcome::Done);
                let _ = writeln!(self.text, "    links: {}", op.op);
            }
            for (op, outcome) in ovs.iter().zip(self.world.apply_ovs(&ovs)) {
                assert_eq!(outcome, Outcome::Done, "{}", op.op);
                let _ = writeln!(self.text, "    ovsdb: {}", op.op);
            }
            for ((op, outcome), words) in
                plan.flows.iter().zip(self.world.apply_flows(&plan.flows)).zip(flow_words(&plan.flows))
            {
                assert_eq!(outcome, Outcome::Done, "{}", op.op);
                if !words.is_empty() {
                    let _ = writeln!(self.text, "    openflow: {words}");
                }
            }
            self.world.switch();
        }
        self
    }

    /// The rows and links that are not the bridge that was there from the start.
    fn show(&mut self) -> &mut Self {
        for port in self.world.ovs.ports.values().filter(|port| port.name != "br-int") {
            let interface = &self.world.ovs.interfaces[&port.name];
            let _ = writeln!(self.text, "  port {} on {}", port.name, port.bridge);
            if port.tag.is_some() {
                let _ = writeln!(self.text, "    tag {:?} trunks {:?} {:?}", port.tag, port.trunks, port.vlan_mode);
            }
            let _ =
                writeln!(self.text, "    external_ids {:?} other_config {:?}", port.external_ids, port.other_config);
            if let Some(qos) = port.qos.and_then(|uuid| self.world.ovs.qos.get(&uuid)) {
                let _ = writeln!(self.text, "    qos {} {:?}", qos.kind, qos.external_ids);
            }
            let _ = writeln!(
                self.text,
                "    interface type {:?} options {:?} mtu_request {:?}\n    interface external_ids {:?}",
                interface.kind, interface.options, interface.mtu_request, interface.external_ids
            );
        }
        for link in self.world.kernel.links.values() {
            let _ = writeln!(
                self.text,
                "  link {} {:?} {:?} mtu {} {} alias {:?}",
                link.name,
                link.kind,
                link.mac,
                link.mtu,
                if link.up { "up" } else { "down" },
                link.alias
            );
        }
        self
    }

    fn unplug(&mut self) -> &mut Self {
        self.say("unplug");
        self.desired.deleted = std::mem::take(&mut self.desired.vifs).keys().copied().collect();
        self.converge();
        self.show()
    }

    fn device(&mut self, name: &str) -> &mut Self {
        self.say(&format!("the hypervisor brings {name}"));
        self.world.add_link(name, LinkKind::Other("veth".into()), None);
        self.world.switch();
        self
    }
}

/// Operations on switches: what is done in which table, how often, since what flows say is `pipeline`'s golden cases.
fn flow_words(ops: &[Attributed<FlowOp>]) -> Vec<String> {
    let word = |op: &Attributed<FlowOp>| match &op.op.change {
        FlowChange::Flow(change) => {
            format!("{:?} flow {:#x} table {}", change.command, change.flow.cookie, change.flow.table)
        }
        _ => op.op.to_string(),
    };
    let mut words: Vec<(String, usize)> = Vec::new();
    for op in ops {
        let word = word(op);
        match words.last_mut() {
            Some((last, times)) if *last == word => *times += 1,
            _ => words.push((word, 1)),
        }
    }
    let mut told: Vec<String> =
        words.into_iter().map(|(word, times)| if times > 1 { format!("{word} ×{times}") } else { word }).collect();
    told.resize(ops.len(), String::new());
    told
}

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

fn guest(id: &str, number: u8, active: bool) -> Arc<Vif> {
    record(
        id,
        &json!({
            "type": "openvswitch", "vif_name": format!("tap{number}"), "active": active,
            "address": format!("52:54:00:00:00:{number:02x}"),
            "port_profile": ovs(&json!({"create_port": true, "create_tap": true, "interface_id": id})),
        }),
    )
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
    case.world.add_link("eth1", LinkKind::Other("veth".into()), None);
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
    case.world.add_link("eth1", LinkKind::Other("veth".into()), None);
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

/// Plug, then unplug.
fn whole_life(case: &mut Case) -> String {
    case.say("plug");
    case.converge().show().unplug();
    case.text.clone()
}

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

/// The judgement on a VIF in a single plan.
fn judged(case: &Case, id: &str) -> Judgement {
    let clashes = record::clashes(&case.desired.vifs, &[], case.settings.per_port_bridge);
    let inputs = Inputs {
        desired: &case.desired,
        clashes: &clashes,
        observed: &case.world.observed(),
        holds: &Holds::default(),
        orders: &case.orders,
        in_flight: &BTreeSet::new(),
        settings: &case.settings,
    };
    Judgement::clone(&plan(inputs, &mut Memo::default(), Instant::now()).judgements[&id.parse().unwrap()])
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
        json!({"type": "bridge", "vif_name": "tap1", "bridge_name": "qbr1", "port_profile": ovs(&json!({}))}),
        json!({"type": "direct", "vif_name": "tap1", "dev_address": "0000:03:00.2", "mode": "bridge", "vlan_name": "",
               "port_profile": {"type": "8021qbh", "profile_id": "p"}}),
        json!({"type": "hostdevice", "dev_type": "ethernet", "dev_address": "0000:03:00.2",
               "port_profile": ovs(&json!({}))}),
        json!({"type": "nested_dpdk", "pci_address": "0000:03:00.2", "dev_driver": "vfio-pci",
               "port_profile": {"type": "k8s_dpdk", "l3_setup": false, "selflink": "", "resourceversion": ""}}),
        json!({"type": "vhostuser", "path": "/run/vhost/vhu.sock", "mode": "server",
               "port_profile": {"type": "fp_tap"}}),
    ];
    let mut text = String::new();
    for vif in &vifs {
        text.push_str(&whole_life(&mut Case::new([record(A, vif)])));
    }
    insta::assert_snapshot!(text);
}

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
