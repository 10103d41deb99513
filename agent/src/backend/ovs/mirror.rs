//! The replica of the database as the planner reads it: by name, with rows converted once per change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ovsdb::pairs::Pairs;
use ovsdb::replica::Rows;
use ovsdb::text::Text;
use ovsdb::vswitch::{self, Snapshot};
use uuid::Uuid;

use crate::model::table::{pack, worth_packing};
use crate::model::{Bridge, Interface, OvsState, Port, Qos, Table};

/// Converted rows by row uuid, each with the row that it was made from.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    bridges: Converted<vswitch::Bridge, Bridge>,
    ports: Converted<vswitch::Port, Port>,
    interfaces: Converted<vswitch::Interface, Interface>,
    qos: Converted<vswitch::Qos, Qos>,
    /// Interfaces of which `ofport`, `error` and `status` are still those from before a change of ours, with the
    /// `cur_cfg` from which on they are not.
    unanswered: BTreeMap<Uuid, i64>,
    /// Devices whose ports we deleted, with the `cur_cfg` from which on ovs-vswitchd has let go of them.
    let_go: BTreeMap<Text, i64>,
    /// Whether rows of `state` are shown otherwise than they were converted.
    doctored: bool,
    /// The last state. A table of which no row changed is handed out again as it is.
    state: OvsState,
}

type Converted<From, To> = BTreeMap<Uuid, (Arc<From>, Arc<To>)>;

impl Mirror {
    /// What ovs-vswitchd says of these interfaces is not to be believed until `cur_cfg` is there.
    pub(super) fn disbelieve(&mut self, interfaces: &[Uuid], until: i64) {
        self.unanswered.extend(interfaces.iter().map(|uuid| (*uuid, until)));
    }

    /// What is not believed, to be put back by [`Mirror::restore`].
    pub(super) fn disbelief(&self) -> BTreeMap<Uuid, i64> {
        self.unanswered.clone()
    }

    /// A change was not made after all: what was not believed before it is what is not believed.
    pub(super) fn restore(&mut self, before: BTreeMap<Uuid, i64>) {
        self.unanswered = before;
    }

    /// ovs-vswitchd has these devices until `cur_cfg` is there.
    pub(super) fn let_go(&mut self, devices: &[Text], until: i64) {
        self.let_go.extend(devices.iter().map(|name| (name.clone(), until)));
    }

    /// Their ports were not deleted after all.
    pub(super) fn keep(&mut self, devices: &[Text]) {
        self.let_go.retain(|name, _| !devices.contains(name));
    }

    /// The state that `snapshot` shows.
    pub(super) fn reflect(&mut self, snapshot: &Snapshot, vswitchd_alive: bool) -> OvsState {
        let root = snapshot.root();
        let interfaces_changed = refresh(&mut self.interfaces, &snapshot.interfaces, |_| true, interface);
        let qos_changed = refresh(
            &mut self.qos,
            &snapshot.qos,
            |_| true,
            |row| Qos { uuid: row.uuid, kind: row.type_.clone(), external_ids: row.external_ids.clone() },
        );
        // A port's bridge can change without its own row doing so. Names never change (RFC 7047's "mutable"
        // is false for them), so nothing else of a converted row can grow old.
        let bridge_of =
            |port: Uuid| snapshot.bridge_of_port(port).map(|bridge| bridge.name.clone()).unwrap_or_default();
        let ports_changed = refresh(
            &mut self.ports,
            &snapshot.ports,
            |made: &Port| made.bridge == bridge_of(made.uuid),
            |row| port(row, bridge_of(row.uuid), snapshot),
        );
        let bridges_changed = refresh(&mut self.bridges, &snapshot.bridges, |_| true, |row| bridge(row, snapshot));
        // A database that was restored meanwhile may be behind the number that was asked for.
        let (cur_cfg, next_cfg) = root.map_or((0, 0), |root| (root.cur_cfg, root.next_cfg));
        let open = |until: i64| until == i64::MAX || until.min(next_cfg) > cur_cfg;
        self.unanswered.retain(|uuid, until| open(*until) && snapshot.interfaces.contains_key(uuid));
        // One that has ended has let go of everything.
        self.let_go.retain(|_, until| vswitchd_alive && open(*until));
        let state = &mut self.state;
        state.letting_go = self.let_go.keys().cloned().collect();
        state.vswitchd_alive = vswitchd_alive;
        state.vswitchd_behind = vswitchd_alive && cur_cfg < next_cfg;
        state.restoring =
            root.is_some_and(|root| root.other_config.get("flow-restore-wait").is_some_and(|value| value == "true"));
        state.ovn_bridges = root.map(|root| ovn_bridges(&root.external_ids)).unwrap_or_default();
        if bridges_changed {
            state.bridges = by_name(&self.bridges, |row| &row.name);
        }
        if ports_changed {
            state.ports = by_name(&self.ports, |row| &row.name);
        }
        if interfaces_changed || self.doctored || !self.unanswered.is_empty() {
            state.interfaces = by_name(&self.interfaces, |row| &row.name);
        }
        if qos_changed {
            state.qos = self.qos.iter().map(|(uuid, (_, made))| (*uuid, Arc::clone(made))).collect();
        }
        self.doctored = !self.unanswered.is_empty();
        for uuid in self.unanswered.keys() {
            if let Some((_, made)) = self.interfaces.get(uuid) {
                let mut row = made.as_ref().clone();
                (row.ofport, row.error, row.link_up) = (None, None, false);
                row.status.clear();
                state.interfaces.insert(row.name.clone(), Arc::new(row));
            }
        }
        state.clone()
    }
}

fn by_name<From, To>(rows: &Converted<From, To>, name: impl Fn(&To) -> &Text) -> Table<Text, To> {
    rows.values().map(|(_, made)| (name(made).clone(), Arc::clone(made))).collect()
}

/// Converts what is new or changed and drops what is gone; answers whether there was any.
fn refresh<From, To>(
    converted: &mut Converted<From, To>,
    rows: &Rows<From>,
    fresh: impl Fn(&To) -> bool,
    convert: impl Fn(&From) -> To,
) -> bool {
    let before = converted.len();
    converted.retain(|uuid, _| rows.contains_key(uuid));
    let changed = converted.len() != before;
    let mut made_anew = 0;
    for (uuid, row) in rows.iter() {
        match converted.get(uuid) {
            Some((from, made)) if Arc::ptr_eq(from, row) && fresh(made) => {}
            _ => {
                converted.insert(*uuid, (Arc::clone(row), Arc::new(convert(row))));
                made_anew += 1;
            }
        }
    }
    if worth_packing(made_anew, converted.len()) {
        pack(converted);
    }
    changed || made_anew > 0
}

fn bridge(row: &vswitch::Bridge, snapshot: &Snapshot) -> Bridge {
    Bridge {
        uuid: row.uuid,
        name: row.name.clone(),
        datapath_type: row.datapath_type.clone(),
        ports: names(&row.ports, |uuid| snapshot.ports.get(uuid).map(|port| &port.name)),
        external_ids: row.external_ids.clone(),
        other_config: row.other_config.clone(),
        fail_mode: row.fail_mode.clone(),
        controllers: row.controller.clone(),
        protocols: row.protocols.clone(),
        datapath_id: row.datapath_id.clone(),
    }
}

/// Keys of `external_ids` that begin like the name of a bridge of OVN's and are something else (ovn-controller(8)).
const NO_OVN_BRIDGES: [&str; 3] = ["ovn-bridge-mappings", "ovn-bridge-datapath-type", "ovn-bridge-remote"];

/// Bridges that OVN says are its own: `ovn-bridge`, for one of several on this host `ovn-bridge-NAME`, and where only
/// its database is named, the default.
fn ovn_bridges(ids: &Pairs) -> BTreeSet<Text> {
    let named = ids.iter().filter(|(key, _)| key.starts_with("ovn-bridge") && !NO_OVN_BRIDGES.contains(key));
    let bridges: BTreeSet<Text> = named.map(|(_, bridge)| bridge.into()).collect();
    if bridges.is_empty() && ids.iter().any(|(key, _)| key == "ovn-remote" || key.starts_with("ovn-remote-")) {
        return BTreeSet::from(["br-int".into()]);
    }
    bridges
}

fn port(row: &vswitch::Port, bridge: Text, snapshot: &Snapshot) -> Port {
    let interfaces = names(&row.interfaces, |uuid| snapshot.interfaces.get(uuid).map(|interface| &interface.name));
    Port {
        uuid: row.uuid,
        name: row.name.clone(),
        bridge,
        // By way of a slice, as there is no room in one.
        interfaces: interfaces.into_iter().collect::<Box<[Text]>>().into_vec(),
        tag: row.tag.and_then(|tag| u16::try_from(tag).ok()),
        trunks: row.trunks.iter().filter_map(|vlan| u16::try_from(*vlan).ok()).collect(),
        vlan_mode: row.vlan_mode.clone(),
        qos: row.qos,
        external_ids: row.external_ids.clone(),
        other_config: row.other_config.clone(),
    }
}

fn names<'a>(rows: &BTreeSet<Uuid>, name: impl Fn(&Uuid) -> Option<&'a Text>) -> BTreeSet<Text> {
    rows.iter().filter_map(name).cloned().collect()
}

fn interface(row: &vswitch::Interface) -> Interface {
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    Interface {
        uuid: row.uuid,
        name: row.name.clone(),
        // "system" is the default spelt out (ovs-vswitchd.conf.db(5)).
        kind: if row.type_ == "system" { Text::default() } else { row.type_.clone() },
        options: row.options.clone(),
        external_ids: row.external_ids.clone(),
        mtu_request: number(row.mtu_request),
        mtu: number(row.mtu).filter(|mtu| *mtu > 0),
        ofport: row.ofport,
        error: row.error.clone(),
        ifindex: number(row.ifindex),
        link_up: row.link_state.as_deref() == Some("up"),
        status: row.status.clone(),
    }
}
