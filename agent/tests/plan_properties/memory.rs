//! What a planner remembers changes no plan, whatever becomes another: any single fact of what is seen, wanted or said.
//!
//! Every field is taken apart by name here, so that a new one does not compile until it is among them. The comparison of
//! the plan that remembers with the one that does not is in [`Host::plan_from`].

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devlink::vf::Vlan;
use flows::{Action, Bucket, Flow, FlowFlags, FlowId, Group, GroupKind, Instructions, Meter, MeterFlags, PortNo};
use ovsdb::pairs::Pairs;
use ovsdb::text::Text;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;
use vifd::backend::ovs::StringMap;
use vifd::model::{
    AgentId, AssociationState, Bridge, BridgeConfig, Desired, DeviceAccess, DeviceOwner, DirectMode, FileOwner,
    FlowSet, FlowState, Interface, Limits, Link, LinkKind, LinkState, MacAddr, Mark, NicState, Observed, OvsState,
    Port, Qos, Representor, SocketState, SwitchStates, Table, VfSettings, View, Vif, VifId,
};
use vifd::plan::pipeline::{Cookie, OwnerTag};
use vifd::plan::{Clash, IdRange, ManagedBridge, MaxRemovals, Orders, Settings, Uplink};

use super::host::{Event, Host, MANAGED, SOCKETS, any_event, cases, event, managed, settings, up_to, vifs};

/// One fact becomes another: which of them, of which row, and what.
#[derive(Clone, Debug)]
struct Nudge {
    fact: Index,
    row: Index,
    value: Index,
    /// And it becomes again what it was.
    passing: bool,
}

fn nudge() -> impl Strategy<Value = Nudge> {
    (any::<Index>(), any::<Index>(), any::<Index>(), any::<bool>()).prop_map(|(fact, row, value, passing)| Nudge {
        fact,
        row,
        value,
        passing,
    })
}

/// Sets a fact to one of several values.
fn set<T>(fact: &mut T, value: Index, values: impl IntoIterator<Item = T>) {
    let mut values: Vec<T> = values.into_iter().collect();
    *fact = values.swap_remove(value.index(values.len()));
}

/// Takes an entry out, or puts one in.
fn toggle<T: Ord>(set: &mut BTreeSet<T>, entry: T) {
    if !set.remove(&entry) {
        set.insert(entry);
    }
}

/// A row becomes another one, goes, or comes under a name that is wanted.
fn nudge_row<K: Clone + Ord + Borrow<str> + for<'a> From<&'a str>, T: Clone>(
    table: &mut Table<K, T>,
    names: &[String],
    nudge: &Nudge,
    of_name: impl Fn(&str) -> T,
    change: impl Fn(&mut T, usize),
) {
    let name = &names[nudge.row.index(names.len())];
    // So often the row itself, so often what it says.
    match (nudge.fact.index(15), table.get_mut(name.as_str())) {
        (0, Some(_)) => drop(table.remove(name.as_str())),
        (which, Some(row)) => change(Arc::make_mut(row), which),
        (_, None) => drop(table.insert(name.as_str().into(), Arc::new(of_name(name)))),
    }
}

fn uuid(value: Index) -> Uuid {
    Uuid::from_u128(0xffff_0000 + value.index(3) as u128)
}

/// What `external_ids` say of whose a row is and of what VIF.
fn nudge_ids(ids: &mut Pairs, host: &Host, value: Index) {
    let other = host.all[value.index(host.all.len())].id.to_string();
    let entries = [
        ("vifd-owner", "vifd"),
        ("vifd-owner", "other"),
        ("vifd-format", "1"),
        ("vifd-format", "2"),
        ("vifd-vif", other.as_str()),
        ("vifd-preserve", "true"),
        ("iface-id", other.as_str()),
        ("attached-mac", "00:00:00:00:00:01"),
        ("somebody", "else"),
    ];
    let (key, text) = entries[value.index(entries.len())];
    if ids.get(key).is_some_and(|is| is == text) {
        ids.retain(|known, _| known != key);
    } else {
        ids.insert(key, text);
    }
}

fn nudge_link(link: &mut Link, which: usize, host: &Host, value: Index) {
    let Link { index, name: _, kind, mac, mtu, up, promiscuous, alias, master, lower, group, addresses, device } = link;
    let other = host.all[value.index(host.all.len())].id;
    match which % 12 {
        0 => *index += 1,
        1 => set(
            kind,
            value,
            [
                LinkKind::Tap { multi_queue: true, persistent: true },
                LinkKind::Tap { multi_queue: false, persistent: false },
                LinkKind::Bridge(BridgeConfig {
                    ageing_time: 0,
                    forward_delay: 0,
                    stp: false,
                    multicast_snooping: false,
                }),
                LinkKind::Veth,
                LinkKind::Vlan { id: 5 },
                LinkKind::Macvtap { mode: Some(DirectMode::Bridge) },
                LinkKind::Other("dummy".into()),
            ],
        ),
        2 => set(mac, value, [None, Some(MacAddr([2, 0, 0, 0, 0, 1]))]),
        3 => set(mtu, value, [1280, 1500, 9000]),
        4 => *up = !*up,
        5 => set(
            alias,
            value,
            [
                None,
                Some("words".to_owned()),
                Some(Mark::text(&host.settings.agent, other, false)),
                Some(Mark::text(&host.settings.agent, other, true)),
                Some(Mark::text(&AgentId("other".into()), other, false)),
            ],
        ),
        6 => set(master, value, [None, Some(7)]),
        7 => set(lower, value, [None, Some(7)]),
        8 => set(group, value, [0, host.settings.nursery()]),
        10 => set(
            device,
            value,
            [
                None,
                Some(DeviceOwner { uid: 0, gid: 0, mode: 0o600 }),
                Some(DeviceOwner { uid: 107, gid: 107, mode: 0o660 }),
            ],
        ),
        9 => set(addresses, value, [Vec::new(), vec!["192.0.2.1/24".parse().unwrap()]]),
        _ => *promiscuous = !*promiscuous,
    }
}

fn nudge_links(links: &mut LinkState, host: &Host, names: &[String], nudge: &Nudge) {
    let LinkState { links, sockets: SocketState { directories, sockets } } = links;
    let value = nudge.value;
    let path = PathBuf::from(SOCKETS).join(nudge.row.index(12).to_string());
    match nudge.fact.index(4) {
        0 => {
            let owner = FileOwner { uid: 107, gid: 107, mode: 0o770, label: None };
            let path = if value.index(9) == 0 { PathBuf::from(SOCKETS) } else { path };
            let is = directories.entry(path.clone()).or_insert_with(|| owner.clone());
            let FileOwner { uid, gid, mode, label } = is;
            match value.index(5) {
                0 => *uid += 1,
                1 => *gid += 1,
                2 => set(mode, value, [0o700, 0o770]),
                3 => set(label, value, [None, Some("system_u:object_r:var_run_t:s0".to_owned())]),
                _ => drop(directories.remove(&path)),
            }
        }
        1 => toggle(sockets, PathBuf::from(SOCKETS).join(&names[nudge.row.index(names.len())])),
        _ => {
            let made = |name: &str| Link { up: true, ..Link::new(9000, name, LinkKind::Other("dummy".into())) };
            nudge_row(links, names, nudge, made, |link, which| nudge_link(link, which, host, value));
        }
    }
}

fn nudge_port(port: &mut Port, which: usize, host: &Host, names: &[String], value: Index) {
    let Port { uuid: row, name: _, bridge, interfaces, tag, trunks, vlan_mode, qos, external_ids, other_config } = port;
    match which % 10 {
        0 => *row = uuid(value),
        1 => set(bridge, value, ["br-int", "tbr-1", "br-foreign", "br-dpdk", ""].map(Text::from)),
        2 => {
            let mut set: BTreeSet<Text> = interfaces.drain(..).collect();
            toggle(&mut set, Text::from(&names[value.index(names.len())]));
            interfaces.extend(set);
        }
        3 => set(tag, value, [None, Some(7)]),
        4 => toggle(trunks, 7),
        5 => set(vlan_mode, value, [None, Some("trunk".into())]),
        6 => {
            let rows: Vec<Uuid> = host.world.ovs.qos.keys().copied().collect();
            set(qos, value, rows.into_iter().map(Some).chain([None]));
        }
        7 => set(other_config, value, [Pairs::default(), Pairs::from([("transient", "true")])]),
        _ => nudge_ids(external_ids, host, value),
    }
}

fn nudge_interface(row: &mut Interface, which: usize, host: &Host, value: Index) {
    let Interface {
        uuid: id,
        name: _,
        kind,
        options,
        external_ids,
        mac,
        mtu_request,
        mtu,
        ofport,
        error,
        ifindex,
        link_up,
        status,
    } = row;
    match which % 14 {
        0 => *id = uuid(value),
        1 => set(kind, value, ["", "internal", "dpdkvhostuser", "patch"].map(Text::from)),
        2 => set(options, value, [Pairs::default(), Pairs::from([("peer", "tap0")])]),
        3 => set(mtu_request, value, [None, Some(1400)]),
        4 => set(mtu, value, [None, Some(1400)]),
        5 | 6 => set(ofport, value, [None, Some(-1), Some(0), Some(77)]),
        7 | 8 => set(error, value, [None, Some("".into()), Some("No such device".into()), Some("no".into())]),
        9 => *link_up = !*link_up,
        10 => set(status, value, [Pairs::default(), Pairs::from([("status", "connected")])]),
        11 => set(ifindex, value, [None, Some(0), Some(77)]),
        12 => set(mac, value, [None, Some(MacAddr([2, 0, 0, 0, 0, 1]))]),
        _ => nudge_ids(external_ids, host, value),
    }
}

fn nudge_bridge(bridge: &mut Bridge, which: usize, host: &Host, names: &[String], value: Index) {
    let Bridge {
        uuid: row,
        name: _,
        datapath_type,
        ports,
        external_ids,
        other_config,
        fail_mode,
        controllers,
        protocols,
        datapath_id,
    } = bridge;
    match which % 9 {
        0 => *row = uuid(value),
        1 => set(datapath_type, value, ["", "system", "netdev"].map(Text::from)),
        2 => toggle(ports, Text::from(&names[value.index(names.len())])),
        3 => set(other_config, value, [Pairs::default(), Pairs::from([("disable-in-band", "true")])]),
        4 => set(fail_mode, value, [None, Some("standalone".into()), Some("secure".into())]),
        5 => toggle(controllers, uuid(value)),
        6 => toggle(protocols, ["OpenFlow10", "OpenFlow14"][value.index(2)].into()),
        7 => set(datapath_id, value, [None, Some("0000000000000001".into())]),
        _ => nudge_ids(external_ids, host, value),
    }
}

fn nudge_ovs(ovs: &mut OvsState, host: &Host, names: &[String], nudge: &Nudge) {
    let OvsState {
        vswitchd_alive,
        vswitchd_behind,
        letting_go,
        restoring,
        other_config,
        ovn_bridges,
        bridges,
        ports,
        interfaces,
        qos,
    } = ovs;
    let value = nudge.value;
    match nudge.row.index(20) {
        19 => set(other_config, value, [Pairs::default(), Pairs::from([("hw-offload", "true")])]),
        18 => {
            let name = format!("tap{}", nudge.fact.index(9));
            if !letting_go.remove(name.as_str()) {
                letting_go.insert(name.as_str().into());
            }
        }
        0 => *vswitchd_alive = !*vswitchd_alive,
        1 => *vswitchd_behind = !*vswitchd_behind,
        2 => {
            if let Some(row) = qos.values_mut().nth(nudge.fact.index(9)) {
                let Qos { uuid: _, kind, external_ids } = Arc::make_mut(row);
                set(kind, value, ["linux-noop", "linux-htb"].map(Text::from));
                nudge_ids(external_ids, host, value);
            }
        }
        3 => drop(qos.pop_last()),
        4 | 5 => {
            let names: Vec<String> =
                bridges.keys().map(ToString::to_string).chain(["tbr-1".into(), "br-int".into()]).collect();
            let made = |name: &str| Bridge { uuid: uuid(value), name: name.into(), ..Bridge::default() };
            nudge_row(bridges, &names, nudge, made, |bridge, which| {
                nudge_bridge(bridge, which, host, &names, value);
            });
        }
        6..11 => {
            let made = |name: &str| Port {
                name: name.into(),
                bridge: "br-int".into(),
                interfaces: vec![name.into()],
                ..Port::default()
            };
            nudge_row(ports, names, nudge, made, |port, which| nudge_port(port, which, host, names, value));
        }
        11 => *restoring = !*restoring,
        12 => toggle(ovn_bridges, MANAGED.into()),
        _ => {
            let made = |name: &str| Interface { name: name.into(), ..Interface::default() };
            nudge_row(interfaces, names, nudge, made, |row, which| nudge_interface(row, which, host, value));
        }
    }
}

/// A flow of somebody, or how it is with one that is there. What identifies it makes it another flow.
fn nudge_flow(flow: &Flow, value: Index) -> Flow {
    let Flow {
        mut table,
        mut priority,
        mut matching,
        mut instructions,
        cookie,
        mut idle_timeout,
        mut hard_timeout,
        mut importance,
        mut flags,
    } = flow.clone();
    match value.index(9) {
        0 => table = table.wrapping_add(1),
        1 => priority ^= 1,
        2 => matching = "tcp,tp_src=7".parse().unwrap(),
        3 => idle_timeout ^= 1,
        4 => hard_timeout ^= 1,
        5 => importance ^= 1,
        6 => flags = FlowFlags(flags.0 ^ FlowFlags::SEND_FLOW_REM.0),
        _ => {
            let Instructions { meter, apply, clear, write, metadata, goto_table, unknown: _ } = &mut instructions;
            match value.index(7) {
                0 => set(meter, value, [None, Some(1), Some(2), Some(900_000)]),
                1 => {
                    let group = || Action::Group(value.index(3) as u32 + 1);
                    set(apply, value, [Box::default(), [group()].into(), [Action::Clone([group()].into())].into()]);
                }
                2 => *clear = !*clear,
                3 => {
                    let output = Action::Output { port: PortNo(7), max_len: 0 };
                    set(write, value, [Box::default(), [output].into(), [Action::Group(2)].into()]);
                }
                4 => set(metadata, value, [None, Some(Box::new((7, u64::MAX)))]),
                _ => set(goto_table, value, [None, Some(table.saturating_add(1))]),
            }
        }
    }
    Flow { table, priority, matching, instructions, cookie, idle_timeout, hard_timeout, importance, flags }
}

/// Flows of one cookie: one of them goes, becomes another one or comes.
fn nudge_flows(sets: &mut Table<u64, FlowSet>, strangers: &mut Table<u64, FlowSet>, cookie: u64, nudge: &Nudge) {
    let mut set = sets.get(&cookie).map(|set| FlowSet::clone(set)).unwrap_or_default();
    let there = set.keys().nth(nudge.fact.index(64) % set.len().max(1)).cloned();
    let gone = there.and_then(|id| set.remove(&id));
    let other = match &gone {
        Some(_) if nudge.value.index(4) == 0 => None,
        Some(flow) => Some(nudge_flow(flow, nudge.value)),
        None => {
            Some(Flow { cookie, ..format!("table=40,priority={} actions=drop", nudge.row.index(9)).parse().unwrap() })
        }
    };
    // There are no two of one identity on a switch.
    let taken = |sets: &Table<u64, FlowSet>, id: &FlowId| sets.values().any(|set| set.contains_key(id));
    if let Some(other) = other.filter(|flow| !taken(sets, &FlowId::of(flow)) && !taken(strangers, &FlowId::of(flow))) {
        set.insert(FlowId::of(&other), Arc::new(other));
    }
    if set.is_empty() {
        sets.remove(&cookie);
    } else {
        sets.insert(cookie, Arc::new(set));
    }
    // Every now and then somebody else puts his in place of one.
    if let Some(gone) = gone.filter(|flow| nudge.value.index(5) == 0 && !taken(sets, &FlowId::of(flow))) {
        let mut others = strangers.get(&7).map(|set| FlowSet::clone(set)).unwrap_or_default();
        others.insert(FlowId::of(&gone), Arc::new(Flow { cookie: 7, ..Flow::clone(&gone) }));
        strangers.insert(7, Arc::new(others));
    }
}

fn nudge_switches(flows: &mut SwitchStates, host: &Host, nudge: &Nudge) {
    let value = nudge.value;
    let states = Arc::make_mut(flows);
    match (nudge.fact.index(16), states.get_mut(MANAGED)) {
        (0, Some(_)) => drop(states.remove(MANAGED)),
        (1, Some(view)) => *view = View::Syncing,
        (_, None | Some(View::Syncing)) => {
            let state = host.world.flows().get(MANAGED).cloned().unwrap_or_else(|| View::Ready(Arc::default()));
            states.insert(MANAGED.to_owned(), state);
        }
        (which, Some(View::Ready(state))) => {
            let FlowState { owned, foreign, groups, meters, limits: Limits { max_meters } } = Arc::make_mut(state);
            let cookies: Vec<u64> = owned
                .keys()
                .copied()
                .chain(host.all.iter().map(|vif| Cookie::vif(OwnerTag::of(&host.settings.agent), vif.id).0))
                .collect();
            let number = value.index(3) as u32 + 1;
            match which {
                2 => set(max_meters, value, [0, 1, 1000]),
                3 | 4 => {
                    let rows: Vec<u32> = meters.keys().copied().chain([number]).collect();
                    let id = rows[nudge.row.index(rows.len())];
                    match meters.get_mut(&id) {
                        Some(_) if value.index(2) == 0 => drop(meters.remove(&id)),
                        Some(meter) => {
                            let Meter { id: _, flags, bands } = Arc::make_mut(meter);
                            *flags = MeterFlags(flags.0 ^ MeterFlags::PKTPS.0);
                            bands.iter_mut().for_each(|band| band.rate += 1);
                        }
                        None => {
                            let meter = Meter { id, flags: MeterFlags::KBPS, bands: Box::default() };
                            meters.insert(id, Arc::new(meter));
                        }
                    }
                }
                5..8 => {
                    let rows: Vec<u32> = groups.keys().copied().chain([number]).collect();
                    let id = rows[nudge.row.index(rows.len())];
                    match groups.get_mut(&id) {
                        Some(_) if value.index(2) == 0 => drop(groups.remove(&id)),
                        Some(group) => {
                            let Group { id: _, kind, buckets } = Arc::make_mut(group);
                            set(kind, value, [GroupKind::All, GroupKind::Select]);
                            let chained = [Bucket::new([Action::Group(number)])].into();
                            set(buckets, value, [Box::default(), buckets.iter().skip(1).cloned().collect(), chained]);
                        }
                        None => {
                            let group = Group { id, kind: GroupKind::All, buckets: Box::default() };
                            groups.insert(id, Arc::new(group));
                        }
                    }
                }
                8..10 => nudge_flows(foreign, owned, 7, nudge),
                _ => nudge_flows(owned, foreign, cookies[nudge.row.index(cookies.len())], nudge),
            }
        }
    }
}

/// What NICs tell.
fn nudge_nics(nics: &mut NicState, host: &Host, nudge: &Nudge) {
    let value = nudge.value;
    let ids: Vec<VifId> = host.all.iter().map(|vif| vif.id).collect();
    match nudge.fact.index(5) {
        4 => {
            let states = [
                AssociationState::Absent,
                AssociationState::Pending,
                AssociationState::Associated,
                AssociationState::Leaving,
                AssociationState::Unknown("no word".into()),
            ];
            nics.associations.insert(ids[nudge.row.index(ids.len())], states[value.index(states.len())].clone());
        }
        0 => drop(nics.undo.remove(&ids[nudge.row.index(ids.len())])),
        1 => {
            let Some(undo) = nics.undo.get_mut(&ids[nudge.row.index(ids.len())]) else { return };
            let undo = Arc::make_mut(undo);
            undo.preserve = !undo.preserve;
            set(&mut undo.representor, value, [None, Some("was".to_owned())]);
        }
        fact => {
            let count = nics.nics.len();
            let Some(nic) = nics.nics.values_mut().nth(nudge.row.index(count)) else { return };
            let nic = Arc::make_mut(nic);
            if fact == 2 {
                let modes = [devlink::EswitchMode::Legacy, devlink::EswitchMode::Switchdev].map(Some);
                let eswitch = nic.eswitch.get_or_insert_default();
                set(&mut eswitch.mode, value, modes);
                return;
            }
            let count = nic.functions.len();
            if count == 0 {
                return;
            }
            let Some(function) = nic.functions.values_mut().nth(value.index(count)) else { return };
            match value.index(3) {
                0 => function.representor = Representor::None,
                1 => function.settings = None,
                _ => {
                    function.settings =
                        Some(VfSettings { vlan: Vlan { id: 7, ..Vlan::default() }, ..VfSettings::default() });
                }
            }
        }
    }
}

/// What is wanted and what is said. `all` stands for the records as they are on the host.
fn nudge_word(host: &mut Host, nudge: &Nudge) {
    let count = host.all.len();
    // Every other time the one that `names` favours, too.
    let vif = Arc::clone(&host.all[nudge.row.index(2 * count).saturating_sub(count)]);
    let (id, value) = (vif.id, nudge.value);
    let Desired { synced, vifs, deleted, unreadable } = &mut host.desired;
    let Orders { paused, paused_vifs, confirmed, stopped } = &mut host.orders;
    let Settings {
        agent,
        adopt,
        max_removals,
        mtu,
        qos_type,
        isolate,
        per_port_bridge,
        socket_dir,
        socket_owner,
        device_dir,
        device_access,
        switch_config,
        nics,
        bridges,
        groups,
        meters,
        zones,
    } = &mut host.settings;
    let few = [IdRange { first: 1, last: 2 }, IdRange { first: 2, last: 900 }];
    match nudge.fact.index(34) {
        0 => *synced = !*synced,
        1 => drop(vifs.remove(&id)),
        2 => drop(vifs.insert(id, vif)),
        3 => {
            let other = Vif { active: !vif.active, preserve_on_delete: value.index(2) == 0, ..Vif::clone(&vif) };
            vifs.insert(id, Arc::new(other));
        }
        29 => {
            let Some(was) = vif.network.clone() else { return };
            let mut network = vifs.get(&id).and_then(|vif| vif.network.clone()).unwrap_or(was);
            match value.index(2) {
                0 => set(&mut network.id, nudge.row, [None, Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2))]),
                _ => set(&mut network.vlan, nudge.row, [None, Some(10), Some(11)]),
            }
            vifs.insert(id, Arc::new(Vif { network: Some(network), ..Vif::clone(&vif) }));
        }
        4 => toggle(deleted, id),
        5 => toggle(unreadable, id),
        6 => *paused = !*paused,
        7 => toggle(paused_vifs, id),
        8 => toggle(confirmed, id),
        9 => toggle(stopped, id),
        10 => toggle(&mut host.in_flight, id),
        11 if host.clashes.remove(&id).is_none() => {
            let clash = Clash { field: "vif.address".into(), reason: "somebody has it".into() };
            host.clashes.insert(id, clash);
        }
        12 => {
            host.holds.refused(Some(id), ["ovsdb", "links", "openflow", "nics"][value.index(4)], "no".into(), host.now);
        }
        13 => host.holds.refused(None, ["ovsdb", "openflow"][value.index(2)], "no".into(), host.now),
        14 => host.now += Duration::from_millis(700),
        15 => set(agent, value, [AgentId("vifd".into()), AgentId("other".into())]),
        16 => *adopt = !*adopt,
        17 => set(max_removals, value, [MaxRemovals::Percent(10), MaxRemovals::Percent(100), MaxRemovals::Count(0)]),
        18 => set(mtu, value, [1500, 1400]),
        19 => set(qos_type, value, ["", "linux-noop"].map(str::to_owned)),
        20 => *isolate = !*isolate,
        21 => *per_port_bridge = !*per_port_bridge,
        30 => set(device_dir, value, ["/dev", "/host/dev"].map(PathBuf::from)),
        31 => {
            let owned = DeviceAccess { uid: Some(107), gid: Some(107), mode: Some(0o660) };
            set(device_access, value, [DeviceAccess::default(), owned, DeviceAccess { uid: None, ..owned }]);
        }
        33 => {
            let on = StringMap::from([("hw-offload".to_owned(), "true".to_owned())]);
            set(switch_config, value, [StringMap::new(), on]);
        }
        32 => {
            for nic in nics.values_mut() {
                set(&mut nic.switchdev, value, [true, false]);
                set(&mut nic.vfs, nudge.row, [None, Some(12), Some(3)]);
            }
        }
        22 => set(socket_dir, value, [PathBuf::from(SOCKETS), PathBuf::from("/run/elsewhere")]),
        23 => set(groups, value, few),
        24 => set(meters, value, few),
        25 => set(zones, value, few),
        26 => set(bridges, value, [managed(false, false), managed(true, false), managed(true, true)]),
        27 => {
            if let Some(ManagedBridge { datapath_type, uplinks, takeover }) = bridges.get_mut(MANAGED) {
                match value.index(3) {
                    0 => set(datapath_type, value, ["system", "netdev"].map(str::to_owned)),
                    1 => *takeover = !*takeover,
                    _ => {
                        let networks = vec![Uuid::from_u128(1).to_string()];
                        set(uplinks, value, [vec![], vec![Uplink { port: "tap0".into(), networks }]]);
                    }
                }
            }
        }
        _ => set(&mut socket_owner.mode, value, [0o700, 0o770]),
    }
}

/// Names that somebody has or wants, and one that nobody does. Every other one is that of the first VIF: what is missed
/// shows when one and the same is hit twice.
fn names(host: &Host) -> Vec<String> {
    let made = host.world.ovs.ports.keys().map(ToString::to_string).chain(host.world.kernel.links.keys().cloned());
    let wanted = (0..host.all.len()).map(|number| format!("tap{number}"));
    let names: BTreeSet<String> = made.chain(wanted).chain(["nobodys".to_owned()]).collect();
    let id = host.all[0].id.to_string();
    let marked = |name: &&String| {
        host.world.ovs.interfaces.get(name.as_str()).is_some_and(|row| row.external_ids.get("vifd-vif") == Some(&id))
    };
    let first = names.iter().find(marked).cloned().unwrap_or_else(|| "tap0".to_owned());
    let count = names.len();
    names.into_iter().chain(std::iter::repeat_n(first, count)).collect()
}

/// Which view is not complete, if any.
fn views(links: &LinkState, nics: &Arc<NicState>, ovs: &OvsState, flows: &SwitchStates, syncing: usize) -> Observed {
    Observed {
        links: if syncing == 0 { View::Syncing } else { View::Ready(Arc::new(links.clone())) },
        nics: if syncing == 3 { View::Syncing } else { View::Ready(Arc::clone(nics)) },
        ovs: if syncing == 1 { View::Syncing } else { View::Ready(Arc::new(ovs.clone())) },
        flows: if syncing == 2 { SwitchStates::default() } else { Arc::clone(flows) },
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn of_events_changes_no_plan(
        vifs in vifs(),
        events in prop::collection::vec(any_event(), 0..60),
        per_port_bridge: bool,
        adopt: bool,
        flows: bool,
        uplink: bool,
    ) {
        let bridges = managed(flows, uplink);
        let mut host = Host::new(vifs, Settings { per_port_bridge, adopt, bridges, ..settings() });
        for event in &events {
            host.happen(event);
            host.plan();
        }
    }

    /// From a host on which verdicts stand, on ready VIFs and on others. Few of them, so that one is hit twice.
    #[test]
    fn of_any_fact_changes_no_plan(
        vifs in up_to(3),
        events in prop::collection::vec(event(), 0..8),
        nudges in prop::collection::vec((0usize..7, nudge()), 1..40),
        per_port_bridge: bool,
        adopt: bool,
        flows: bool,
        uplink: bool,
    ) {
        let bridges = managed(flows, uplink);
        let mut host = Host::new(vifs, Settings { per_port_bridge, adopt, bridges, ..settings() });
        host.converge();
        for event in &events {
            host.happen(event);
        }
        host.happen(&Event::Vswitchd(true));
        host.converge();
        let names = names(&host);
        let (mut links, mut ovs, mut states) = (host.world.kernel.clone(), host.world.ovs.clone(), host.world.flows());
        let mut nics = Arc::clone(&host.world.nics);
        for (of, nudge) in &nudges {
            let was = (links.clone(), Arc::clone(&nics), ovs.clone(), Arc::clone(&states));
            match of {
                0 => nudge_word(&mut host, nudge),
                1 => nudge_links(&mut links, &host, &names, nudge),
                // Seen anew, and the next plan is made from it: whatever a NIC tells is one fact.
                5 => nudge_nics(Arc::make_mut(&mut nics), &host, nudge),
                2 | 3 => nudge_switches(&mut states, &host, nudge),
                _ => nudge_ovs(&mut ovs, &host, &names, nudge),
            }
            host.plan_from(&views(&links, &nics, &ovs, &states, nudge.value.index(24)));
            if nudge.passing {
                (links, nics, ovs, states) = was;
                host.plan_from(&views(&links, &nics, &ovs, &states, 4));
            }
        }
    }
}
