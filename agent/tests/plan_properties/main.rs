//! Properties of the planner over a host in memory: from any state it converges in a bounded number of rounds,
//! a converged host gets no operation, a batch cut short anywhere changes neither, and nothing that is not ours
//! is ever touched. What is remembered from plan to plan is in `memory`.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod groups;
mod host;
mod memory;
mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flows::{Action, Flow, FlowId};
use proptest::prelude::*;
use vifd::backend::Outcome;
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::model::{Association, Desired, Mark, Vif, VifId, VifKind};
use vifd::plan::pipeline::{Cookie, NetworkKey, OwnerTag, served, tables};
use vifd::plan::{MaxRemovals, Memo, Missing, Owner, Plan, SUB_PORT, Settings, Verdict};

use self::host::{Event, Host, MANAGED, Shape, cases, event, managed, settings, vif, vifs};

/// Whether anything on the host carries our mark for one of `ids`.
fn ours_for(world: &World, settings: &Settings, ids: &BTreeSet<VifId>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, port) in &world.ovs.ports {
        if let Owner::Us { vif: Some(vif), .. } = settings.owner(&port.external_ids)
            && ids.contains(&vif)
        {
            found.push(format!("port {name}"));
        }
    }
    for (name, interface) in &world.ovs.interfaces {
        let marks = interface.external_ids.iter().filter_map(|(key, _)| key.strip_prefix(SUB_PORT)?.parse().ok());
        found.extend(marks.filter(|id| ids.contains(id)).map(|_| format!("sub-port of port {name}")));
    }
    for (name, link) in &world.kernel.links {
        // A tap of ours that a foreign port uses stays as long as that port does.
        if world.ovs.ports.contains_key(name.as_str()) {
            continue;
        }
        if let Some(Mark::Made { vif, .. }) = link.alias.as_deref().and_then(Mark::parse)
            && ids.contains(&vif)
        {
            found.push(format!("link {name}"));
        }
    }
    // It goes after all of the VIF's links.
    let has_link = |id: &VifId| {
        let marked = |alias: &str| matches!(Mark::parse(alias), Some(Mark::Made { vif, .. }) if vif == *id);
        world.kernel.links.values().any(|link| link.alias.as_deref().is_some_and(marked))
    };
    let noted = world.nics.undo.keys().filter(|id| ids.contains(id) && !has_link(id));
    found.extend(noted.map(|id| format!("the note on the function of VIF {id}")));
    found
}

/// How flows have to be when nothing is planned any more.
fn assert_flows_are_right(host: &Host, plan: &Plan) {
    let (world, tag) = (&host.world, OwnerTag::of(&host.settings.agent));
    let flows = world.flows();
    for (bridge, view) in flows.iter() {
        let state = view.ready().expect("nothing is being synchronised");
        let numbers: BTreeSet<i64> = world
            .ovs
            .ports
            .values()
            .filter(|port| port.bridge == *bridge)
            .filter_map(|port| world.ovs.interfaces[&port.name].ofport)
            .collect();
        // Flows of a VIF without a record would not be made again: they stay for its port, also while that has no number.
        let without_number = world.ovs.ports.values().filter(|port| {
            port.bridge == *bridge && world.ovs.interfaces[&port.name].ofport.is_some_and(|number| number < 1)
        });
        let unasked: BTreeSet<u64> = without_number
            .filter_map(|port| match host.settings.owner(&port.external_ids) {
                Owner::Us { vif: Some(vif), .. } if !host.desired.vifs.contains_key(&vif) => {
                    Some(Cookie::vif(tag, vif).0)
                }
                _ => None,
            })
            .collect();
        // Without any record nothing is taken away, not even when somebody else takes the port.
        for flow in state.owned.values().flat_map(|set| set.values()).filter(|_| !host.desired.vifs.is_empty()) {
            if let Some(port) = flow.matching.exact(flows::Field::IN_PORT) {
                let port = i64::try_from(port).unwrap();
                let stays = numbers.contains(&port) || unasked.contains(&flow.cookie);
                assert!(stays, "a flow is for port {port}, which is not there: {flow}");
            }
        }
        // Nothing is left over. Somebody who puts his flow in place of one of ours may name what it named.
        let all = || state.owned.values().chain(state.foreign.values()).flat_map(|set| set.values());
        let group = |id: &&u32| all().any(|flow| flow.instructions.apply.contains(&Action::Group(**id)));
        let meter = |id: &&u32| all().any(|flow| flow.instructions.meter == Some(**id));
        if !host.desired.vifs.is_empty() {
            assert_eq!(state.groups.keys().find(|id| !group(id)), None, "a group is left over");
            assert_eq!(state.meters.keys().find(|id| !meter(id)), None, "a meter is left over");
        }
    }
    for (id, judgement) in &plan.judgements {
        if judgement.flows_ready != Some(true) {
            continue;
        }
        let vif = &host.desired.vifs[id];
        let state = flows[MANAGED].ready().unwrap();
        let own = &state.owned[&Cookie::vif(tag, *id).0];
        let quarantined = own.values().any(|flow| tables::Place::of(flow) == tables::QUARANTINE);
        let trunk = vif.parent.and_then(|parent| host.desired.vifs.get(&parent.vif));
        let is_used = vif.active && trunk.is_none_or(|trunk| trunk.active);
        assert_eq!(quarantined, !is_used, "{id}");
        let members = plan.judgements.iter().filter(|(other, judgement)| {
            let other = host.desired.vifs.get(*other);
            judgement.flows_ready == Some(true)
                && other.is_some_and(|other| {
                    other.active && other.parent.is_none() && NetworkKey::of(other) == NetworkKey::of(vif)
                })
        });
        if vif.active && members.count() > 1 {
            assert!(state.owned.contains_key(&Cookie::network(tag, NetworkKey::of(vif)).0), "nothing floods to {id}");
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn converges_from_anything_and_then_plans_nothing(
        vifs in vifs(),
        events in prop::collection::vec(event(), 0..40),
        per_port_bridge: bool,
        adopt: bool,
        flows: bool,
    ) {
        let bridges = managed(flows, false);
        let mut host = Host::new(vifs, Settings { per_port_bridge, adopt, bridges, ..settings() });
        for event in &events {
            host.happen(event);
        }
        (host.world.ovs.vswitchd_alive, host.world.ovs.restoring) = (true, false);
        let plan = host.converge();
        let planned = (&plan.links, &plan.ovs, &plan.flows);
        prop_assert!(plan.links.is_empty() && plan.ovs.is_empty() && plan.flows.is_empty(), "{planned:?}");
        prop_assert!(plan.nics.is_empty(), "{:?}", plan.nics);
        assert_flows_are_right(&host, &plan);
        let noted = |of: &Association| host.world.nics.undo.values().any(|undo| undo.association.as_ref() == Some(of));
        let left = host.world.stations.keys().find(|of| !noted(of));
        prop_assert!(left.is_none(), "a switch knows of nobody's {left:?}");
        // Every wanted VIF has a word, and none of them is that work is still under way.
        for id in host.desired.vifs.keys() {
            let verdict = &plan.judgements[id].verdict;
            // A sub-port may be one of a trunk that nobody wants.
            // And an uplink may be gone.
            let waits = matches!(verdict, Verdict::Waiting(missing) if !matches!(missing, Missing::Parent(_) | Missing::Uplink(_) | Missing::Function(_)));
            prop_assert!(
                !waits && !matches!(verdict, Verdict::Working | Verdict::Held { .. } | Verdict::Removing),
                "{id}: {verdict:?}"
            );
        }
        // Nothing of an unwanted VIF is left, unless no VIF at all is wanted, which removes nothing.
        if host.desired.vifs.is_empty() {
            return Ok(());
        }
        let goes = |vif: &&Arc<Vif>| !vif.preserve_on_delete && !host.desired.vifs.contains_key(&vif.id);
        // A function whose physical one has lost its netdev cannot be given back, and its VIF says that it waits.
        let waits = |vif: &&Arc<Vif>| {
            let judgement = plan.judgements.get(&vif.id);
            let by_word = judgement.is_some_and(|of| matches!(of.verdict, Verdict::Waiting(Missing::Function(_))));
            by_word && host.world.nics.nics.values().any(|nic| nic.uplinks.is_empty())
        };
        let unwanted = host.all.iter().filter(goes).filter(|vif| !waits(vif)).map(|vif| vif.id).collect();
        prop_assert_eq!(ours_for(&host.world, &host.settings, &unwanted), Vec::<String>::new());
    }

    #[test]
    fn a_clean_host_gets_every_vif_that_vifd_alone_can_bring(vifs in vifs(), flows: bool) {
        let mut host = Host::new(vifs, Settings { bridges: managed(flows, false), ..settings() });
        let plan = host.converge();
        for vif in host.desired.vifs.values() {
            let verdict = &plan.judgements[&vif.id].verdict;
            let expected = match &vif.kind {
                // Its trunk may be anything, or nothing.
                _ if vif.parent.is_some() => matches!(
                    verdict,
                    Verdict::Ready
                        | Verdict::Plugged(_)
                        | Verdict::Waiting(Missing::Parent(_))
                        | Verdict::Rejected { .. }
                ),
                // The hypervisor brings its device.
                VifKind::Bridge { .. } if vif.profile.is_none() && vif.active => matches!(verdict, Verdict::Plugged(_)),
                VifKind::OpenVSwitch { .. } => matches!(verdict, Verdict::Ready | Verdict::Plugged(_)),
                _ => matches!(verdict, Verdict::Ready),
            };
            prop_assert!(expected, "{}: {verdict:?}", vif.kind.object_name());
        }
        let writes = host.world.writes;
        host.memo = Memo::default();
        host.converge();
        prop_assert_eq!(host.world.writes, writes, "a restart on a converged host writes nothing");
    }

    #[test]
    fn absence_removes_no_more_than_it_may(vifs in vifs(), keep: u16, flows: bool) {
        let bridges = managed(flows, false);
        let mut host = Host::new(vifs, Settings { max_removals: MaxRemovals::Count(2), bridges, ..settings() });
        host.converge();
        let on_host: BTreeSet<VifId> =
            host.all.iter().filter(|vif| !vif.preserve_on_delete).map(|vif| vif.id).collect();
        let before = ours_for(&host.world, &host.settings, &on_host);
        host.happen(&Event::Want(keep));
        let unwanted: BTreeSet<VifId> = on_host.iter().filter(|id| !host.desired.vifs.contains_key(id)).copied().collect();
        let marked = unwanted.iter().filter(|id| !ours_for(&host.world, &host.settings, &BTreeSet::from([**id])).is_empty()).count();
        let plan = host.converge();
        if marked > 2 || (marked > 0 && host.desired.vifs.is_empty()) {
            prop_assert_eq!(plan.stopped_removals.len(), marked);
            prop_assert_eq!(ours_for(&host.world, &host.settings, &on_host), before);
            // Said by name, the same removals pass.
            host.desired.deleted = unwanted.clone();
            host.converge();
        }
        prop_assert_eq!(ours_for(&host.world, &host.settings, &unwanted), Vec::<String>::new());
    }

    #[test]
    fn a_set_that_is_not_synced_removes_nothing(vifs in vifs(), flows: bool) {
        let mut host = Host::new(vifs, Settings { bridges: managed(flows, false), ..settings() });
        host.converge();
        let before = host.world.clone();
        host.desired = Desired::default();
        host.converge();
        prop_assert_eq!(&host.world.ovs, &before.ovs);
        prop_assert_eq!(&host.world.kernel, &before.kernel);
        prop_assert_eq!(host.world.flows(), before.flows());
    }
}

/// Of the flows on the managed bridge the one that floods the network of this VIF.
fn flood_of(host: &Host, vif: &Vif) -> Flow {
    let flows = host.world.flows();
    let network = Cookie::network(OwnerTag::of(&host.settings.agent), NetworkKey::of(vif));
    let set = &flows[MANAGED].ready().unwrap().owned[&network.0];
    let flow = set.values().find(|flow| tables::Place::of(flow) == tables::FLOOD);
    flow.expect("a flow that floods").as_ref().clone()
}

/// The group that a VIF's network is flooded by.
fn group_of(host: &Host, vif: &Vif) -> u32 {
    match flood_of(host, vif).instructions.apply.last() {
        Some(Action::Group(group)) => *group,
        other => panic!("a flood is a group, not {other:?}"),
    }
}

/// The places that a group sends to.
fn flooded(host: &Host, group: u32) -> BTreeSet<u32> {
    let flows = host.world.flows();
    flows[MANAGED].ready().unwrap().groups[&group].buckets.iter().filter_map(served).collect()
}

fn ports<const N: usize>(host: &Host, names: [&str; N]) -> BTreeSet<u32> {
    names.map(|name| u32::try_from(host.world.ovs.interfaces[name].ofport.unwrap()).unwrap()).into()
}

/// Four VIFs with ports, in two networks; these stay when they have no record any more.
fn two_networks(preserved: &[u8]) -> Host {
    let shape = Shape::Port { tap: true, trunk: false, multiqueue: false };
    let vifs = (0..4).map(|number| vif(number, &shape, 1500, true, preserved.contains(&number))).collect();
    let mut host = Host::new(vifs, Settings { bridges: managed(true, false), ..settings() });
    host.converge();
    host
}

/// What it named is needed, by somebody else.
#[test]
fn a_group_that_only_a_strangers_flow_names_is_not_left_over() {
    let mut host = two_networks(&[]);
    let flow = flood_of(&host, &host.all[0]);
    host.world.add_flow(MANAGED, Flow { cookie: 7, ..flow });
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
    assert_eq!(host.world.flows()[MANAGED].ready().unwrap().groups.len(), 2);
}

/// The ports of two VIFs without records stay, and with them what floods to them; when that goes, so does its group.
#[test]
fn a_group_is_not_left_over_beside_ports_without_records() {
    let mut host = two_networks(&[0, 2]);
    host.happen(&Event::Want(0b1010));
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
    let flow = flood_of(&host, &host.all[0]);
    host.world.delete_flow(MANAGED, &FlowId::of(&flow));
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
    assert_eq!(host.world.flows()[MANAGED].ready().unwrap().groups.len(), 1);
}

/// A network stays for a port without a record, and with it its uplink; whoever left it is served where he is now.
#[test]
fn who_left_a_network_is_not_flooded_there_any_more() {
    let shape = Shape::Port { tap: true, trunk: false, multiqueue: false };
    let vifs = (0..4).map(|number| vif(number, &shape, 1500, true, number == 0)).collect();
    let mut host = Host::new(vifs, Settings { bridges: managed(true, true), ..settings() });
    host.converge();
    host.world.add_port(MANAGED, "tap11", "internal", StringMap::new());
    host.converge();
    let group = group_of(&host, &host.all[0]);
    assert_eq!(flooded(&host, group), ports(&host, ["tap0", "tap2", "tap11"]));
    let moved = Vif { network: host.all[1].network.clone(), ..Vif::clone(&host.all[2]) };
    host.happen(&Event::Want(0b1110));
    host.desired.vifs.insert(moved.id, Arc::new(moved));
    host.converge();
    assert_eq!(flooded(&host, group), ports(&host, ["tap0", "tap11"]));
}

/// A trunk and its sub-ports are deleted at once, whichever of them comes first: the marks of the sub-ports are on the
/// trunk's interface, and go with it.
#[test]
fn a_trunk_goes_together_with_its_sub_ports() {
    let trunk = Shape::Port { tap: false, trunk: false, multiqueue: false };
    let vifs = vec![
        vif(0, &Shape::Sub { of: 1 }, 1500, true, false),
        vif(1, &trunk, 1500, true, false),
        vif(2, &Shape::Sub { of: 1 }, 1500, true, false),
    ];
    let mut host = Host::new(vifs, Settings { bridges: managed(true, false), ..settings() });
    host.happen(&Event::Hypervisor(1));
    host.converge();
    let all: BTreeSet<VifId> = host.all.iter().map(|vif| vif.id).collect();
    assert_eq!(ours_for(&host.world, &host.settings, &all).len(), 3, "a port, and two marks on it");
    host.happen(&Event::Want(0));
    host.desired.deleted = all.clone();
    host.converge();
    assert_eq!(ours_for(&host.world, &host.settings, &all), Vec::<String>::new());
}

/// A QoS row of ours that no port refers to, with the id of one of a port that goes: it is swept, once.
#[test]
fn a_loose_qos_row_goes_beside_its_port() {
    let shape = Shape::Port { tap: true, trunk: false, multiqueue: false };
    let vifs = (0..2).map(|number| vif(number, &shape, 1500, true, false)).collect();
    let mut host = Host::new(vifs, Settings { qos_type: "linux-noop".into(), ..settings() });
    host.converge();
    assert_eq!(host.world.ovs.qos.len(), 2);
    Arc::make_mut(host.world.ovs.ports.get_mut("tap0").unwrap()).qos = None;
    host.happen(&Event::Want(0b10));
    host.converge();
    assert_eq!(host.world.ovs.qos.len(), 1);
}

/// Who is the only one of a network with a record still speaks with a port that stays without.
#[test]
fn the_last_of_a_network_with_a_record_is_heard_by_those_without() {
    let mut host = two_networks(&[0]);
    let group = group_of(&host, &host.all[0]);
    let both = ports(&host, ["tap0", "tap2"]);
    assert_eq!(flooded(&host, group), both);
    host.happen(&Event::Want(0b1110));
    for memo in [None, Some(Memo::default())] {
        host.memo = memo.unwrap_or(host.memo);
        let plan = host.converge();
        assert_flows_are_right(&host, &plan);
        assert_eq!((group_of(&host, &host.all[0]), flooded(&host, group)), (group, both.clone()));
    }
    host.world.delete_port("tap0");
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
    assert!(!host.world.flows()[MANAGED].ready().unwrap().groups.contains_key(&group));
}

/// A plan of which nothing comes has not been carried out: what it was to take from one group into another is still there.
#[test]
fn those_without_records_are_not_lost_with_a_plan_that_is_not_carried_out() {
    let mut host = two_networks(&[0]);
    let flood = flood_of(&host, &host.all[0]);
    let group = group_of(&host, &host.all[0]);
    let (alone, both) = (ports(&host, ["tap0"]), ports(&host, ["tap0", "tap2"]));
    // As if there had been more buckets than go into one group.
    let second = group + 50;
    let is_alone = |bucket: &&flows::Bucket| served(bucket).is_some_and(|to| alone.contains(&to));
    let whole = host.world.flows()[MANAGED].ready().unwrap().groups[&group].as_ref().clone();
    let [its, others] =
        [true, false].map(|its| whole.buckets.iter().filter(|of| is_alone(of) == its).cloned().collect());
    host.world.add_group(MANAGED, flows::Group { id: second, buckets: its, ..whole });
    host.world.add_group(MANAGED, flows::Group { buckets: others, ..whole });
    let mut instructions = flood.instructions.clone();
    instructions.apply = instructions.apply.iter().cloned().chain([Action::Group(second)]).collect();
    host.world.add_flow(MANAGED, Flow { instructions, ..flood });
    host.memo = Memo::default();
    host.happen(&Event::Want(0b1110));
    for _ in 0..2 {
        host.plan();
    }
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
    assert_eq!((group_of(&host, &host.all[0]), flooded(&host, group)), (group, both));
    assert!(!host.world.flows()[MANAGED].ready().unwrap().groups.contains_key(&second));
}

/// Without any record nothing is taken away: not the flows of a port either that somebody else took.
#[test]
fn flows_stay_while_there_is_no_record_at_all() {
    let mut host = two_networks(&[0, 1, 2, 3]);
    host.happen(&Event::Want(0));
    host.world.delete_port("tap0");
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
    host.happen(&Event::Want(0b1110));
    let plan = host.converge();
    assert_flows_are_right(&host, &plan);
}

#[test]
fn one_refused_vif_does_not_hold_the_others() {
    let shape = Shape::Port { tap: true, trunk: false, multiqueue: false };
    let mut host = Host::new((0..9).map(|number| vif(number, &shape, 1500, true, false)).collect(), settings());
    host.world.refused.insert("tap4".into(), "no such thing".into());
    let plan = host.plan();
    for op in &plan.links {
        if let Outcome::Failed(error) = host.world.apply_link(&op.op) {
            host.holds.refused(op.party.clone(), "links", error, host.now);
        }
    }
    let plan = host.converge();
    let held: Vec<_> =
        plan.judgements.values().filter(|judgement| matches!(judgement.verdict, Verdict::Held { .. })).collect();
    assert_eq!(held.len(), 1);
    assert!(matches!(&held[0].verdict, Verdict::Held { error, .. } if error == "no such thing"));
    let ready = plan.judgements.values().filter(|judgement| judgement.verdict == Verdict::Ready).count();
    assert_eq!(ready, 8);
    // And it comes right by itself once the refusal is over.
    host.world.refused.clear();
    host.now += Duration::from_secs(2);
    let plan = host.converge();
    assert!(plan.judgements.values().all(|judgement| judgement.verdict == Verdict::Ready));
}
