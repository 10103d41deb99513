//! What a planner remembers changes no plan, whatever becomes another: any single fact of what is seen, wanted or said.
//!
//! Every field is taken apart by name here, so that a new one does not compile until it is among them. The comparison of
//! the plan that remembers with the one that does not is in [`Host::plan_from`].

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ovsdb::pairs::Pairs;
use ovsdb::text::Text;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;
use vifd::model::{
    AgentId, Bridge, Desired, FileOwner, Interface, Link, LinkKind, LinkState, MacAddr, Mark, Observed, OvsState, Port,
    Qos, SocketState, Table, View, Vif,
};
use vifd::plan::{Clash, MaxRemovals, Orders, Settings};

use super::host::{Event, Host, SOCKETS, any_event, cases, event, settings, up_to, vifs};

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
    match (nudge.fact.index(14), table.get_mut(name.as_str())) {
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
    let Link { index, name: _, kind, mac, mtu, up, alias, master } = link;
    let other = host.all[value.index(host.all.len())].id;
    match which % 7 {
        0 => *index += 1,
        1 => set(
            kind,
            value,
            [
                LinkKind::Tap { multi_queue: true, persistent: true },
                LinkKind::Tap { multi_queue: false, persistent: false },
                LinkKind::Other("veth".into()),
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
        _ => set(master, value, [None, Some(7)]),
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
            let made = |name: &str| Link {
                index: 9000,
                name: name.to_owned(),
                kind: LinkKind::Other("dummy".into()),
                mac: None,
                mtu: 1500,
                up: true,
                alias: None,
                master: None,
            };
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
        mtu_request,
        mtu,
        ofport,
        error,
        ifindex,
        link_up,
        status,
    } = row;
    match which % 13 {
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
        _ => nudge_ids(external_ids, host, value),
    }
}

fn nudge_ovs(ovs: &mut OvsState, host: &Host, names: &[String], nudge: &Nudge) {
    let OvsState { vswitchd_alive, vswitchd_behind, bridges, ports, interfaces, qos } = ovs;
    let value = nudge.value;
    match nudge.row.index(16) {
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
                let Bridge { uuid: row, name: _, datapath_type, ports, external_ids } = bridge;
                match which % 4 {
                    0 => *row = uuid(value),
                    1 => set(datapath_type, value, ["", "system", "netdev"].map(Text::from)),
                    2 => toggle(ports, Text::from(&names[value.index(names.len())])),
                    _ => nudge_ids(external_ids, host, value),
                }
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
        _ => {
            let made = |name: &str| Interface { name: name.into(), ..Interface::default() };
            nudge_row(interfaces, names, nudge, made, |row, which| nudge_interface(row, which, host, value));
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
    let Settings { agent, adopt, max_removals, mtu, qos_type, isolate, per_port_bridge, socket_dir, socket_owner } =
        &mut host.settings;
    match nudge.fact.index(24) {
        0 => *synced = !*synced,
        1 => drop(vifs.remove(&id)),
        2 => drop(vifs.insert(id, vif)),
        3 => {
            let other = Vif { active: !vif.active, preserve_on_delete: value.index(2) == 0, ..Vif::clone(&vif) };
            vifs.insert(id, Arc::new(other));
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
        12 => host.holds.refused(Some(id), ["ovsdb", "links"][value.index(2)], "no".into(), host.now),
        13 => host.holds.refused(None, "ovsdb", "no".into(), host.now),
        14 => host.now += Duration::from_millis(700),
        15 => set(agent, value, [AgentId("vifd".into()), AgentId("other".into())]),
        16 => *adopt = !*adopt,
        17 => set(max_removals, value, [MaxRemovals::Percent(10), MaxRemovals::Percent(100), MaxRemovals::Count(0)]),
        18 => set(mtu, value, [1500, 1400]),
        19 => set(qos_type, value, ["", "linux-noop"].map(str::to_owned)),
        20 => *isolate = !*isolate,
        21 => *per_port_bridge = !*per_port_bridge,
        22 => set(socket_dir, value, [PathBuf::from(SOCKETS), PathBuf::from("/run/elsewhere")]),
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
fn views(links: &LinkState, ovs: &OvsState, syncing: usize) -> Observed {
    Observed {
        links: if syncing == 0 { View::Syncing } else { View::Ready(Arc::new(links.clone())) },
        ovs: if syncing == 1 { View::Syncing } else { View::Ready(Arc::new(ovs.clone())) },
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn of_events_changes_no_plan(
        vifs in vifs(),
        events in prop::collection::vec(any_event(), 0..60),
        per_port_bridge: bool,
        adopt: bool,
    ) {
        let mut host = Host::new(vifs, Settings { per_port_bridge, adopt, ..settings() });
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
        nudges in prop::collection::vec((0usize..5, nudge()), 1..40),
        per_port_bridge: bool,
        adopt: bool,
    ) {
        let mut host = Host::new(vifs, Settings { per_port_bridge, adopt, ..settings() });
        host.converge();
        for event in &events {
            host.happen(event);
        }
        host.happen(&Event::Vswitchd(true));
        host.converge();
        let names = names(&host);
        let (mut links, mut ovs) = (host.world.kernel.clone(), host.world.ovs.clone());
        for (of, nudge) in &nudges {
            let was = (links.clone(), ovs.clone());
            match of {
                0 => nudge_word(&mut host, nudge),
                1 => nudge_links(&mut links, &host, &names, nudge),
                _ => nudge_ovs(&mut ovs, &host, &names, nudge),
            }
            host.plan_from(&views(&links, &ovs, nudge.value.index(24)));
            if nudge.passing {
                (links, ovs) = was;
                host.plan_from(&views(&links, &ovs, 2));
            }
        }
    }
}
