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

/// The last snapshot, and what was made of it. A new one costs what is another in it.
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
    /// Rows that `state` shows otherwise than they were converted.
    doctored: Vec<Uuid>,
    /// The last state. A table of which no row changed is handed out again as it is.
    state: OvsState,
}

/// The rows of a table, and each as it was converted.
#[derive(Debug)]
struct Converted<From, To> {
    rows: Rows<From>,
    made: BTreeMap<Uuid, Arc<To>>,
}

impl<From, To> Default for Converted<From, To> {
    fn default() -> Self {
        Converted { rows: Rows::default(), made: BTreeMap::new() }
    }
}

/// Converted rows as they were and as they are.
type Changes<To> = Vec<(Option<Arc<To>>, Option<Arc<To>>)>;

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
        // Its bridge can be another without a port's own row changing. Names never change (RFC 7047's "mutable" is
        // false for them), so nothing else of a converted row can grow old.
        let (mut moved, none) = (BTreeSet::new(), BTreeSet::new());
        self.bridges.rows.differing(&snapshot.bridges, |_, was, is| {
            let (was, is) = (was.map_or(&none, |row| &row.ports), is.map_or(&none, |row| &row.ports));
            moved.extend(was.symmetric_difference(is).copied());
        });
        let known = self.ports.rows.clone();
        let interfaces = self.interfaces.follow(&snapshot.interfaces, [], |row, _| interface(row));
        let qos = self.qos.follow(&snapshot.qos, [], |row, _| Qos {
            uuid: row.uuid,
            kind: row.type_.clone(),
            external_ids: row.external_ids.clone(),
        });
        let bridge_of =
            |port: Uuid| snapshot.bridge_of_port(port).map(|bridge| bridge.name.clone()).unwrap_or_default();
        let ports = self.ports.follow(&snapshot.ports, moved, |row, _| port(row, bridge_of(row.uuid), snapshot));
        let bridges =
            self.bridges.follow(&snapshot.bridges, [], |row, was| bridge(row, was, (&known, &snapshot.ports)));
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
        state.other_config = root.map(|root| root.other_config.clone()).unwrap_or_default();
        state.ovn_bridges = root.map(|root| ovn_bridges(&root.external_ids)).unwrap_or_default();
        show(&mut state.bridges, &bridges, |row| row.name.clone());
        show(&mut state.ports, &ports, |row| row.name.clone());
        show(&mut state.interfaces, &interfaces, |row| row.name.clone());
        show(&mut state.qos, &qos, |row| row.uuid);
        for uuid in self.doctored.drain(..) {
            if let Some(made) = self.interfaces.made.get(&uuid) {
                state.interfaces.insert(made.name.clone(), Arc::clone(made));
            }
        }
        for uuid in self.unanswered.keys() {
            if let Some(made) = self.interfaces.made.get(uuid) {
                let mut row = made.as_ref().clone();
                (row.ofport, row.error, row.link_up) = (None, None, false);
                row.status.clear();
                state.interfaces.insert(row.name.clone(), Arc::new(row));
                self.doctored.push(*uuid);
            }
        }
        state.clone()
    }
}

impl<From, To> Converted<From, To> {
    /// Goes on to `now`: converts what is new in it or another, and the rows `besides`, and drops what is gone. Answers
    /// what that changed. `convert` is given a row, and the row that it was with what was made of that.
    fn follow(
        &mut self,
        now: &Rows<From>,
        besides: impl IntoIterator<Item = Uuid>,
        convert: impl Fn(&From, Option<(&From, &To)>) -> To,
    ) -> Changes<To> {
        let before = std::mem::replace(&mut self.rows, now.clone());
        let mut others: BTreeSet<Uuid> = besides.into_iter().collect();
        before.differing(now, |uuid, _, _| {
            others.insert(uuid);
        });
        let mut changes = Changes::with_capacity(others.len());
        for uuid in others {
            let was = self.made.remove(&uuid);
            let old = before.get(&uuid).map(AsRef::as_ref).zip(was.as_deref());
            let is = now.get(&uuid).map(|row| Arc::new(convert(row, old)));
            if let Some(made) = &is {
                self.made.insert(uuid, Arc::clone(made));
            }
            changes.push((was, is));
        }
        if worth_packing(changes.len(), self.made.len()) {
            pack(&mut self.made);
        }
        changes
    }
}

/// Has `table` show what changed.
fn show<K: Ord + Clone, To>(table: &mut Table<K, To>, changes: &Changes<To>, key: impl Fn(&To) -> K) {
    // To touch a table is to copy it, where somebody still reads it as it was.
    if changes.is_empty() {
        return;
    }
    for was in changes.iter().filter_map(|(was, _)| was.as_deref()) {
        table.remove(&key(was));
    }
    // The key of what went may be that of something new.
    for is in changes.iter().filter_map(|(_, is)| is.as_ref()) {
        table.insert(key(is), Arc::clone(is));
    }
    if worth_packing(changes.len(), table.len()) {
        table.pack();
    }
}

/// Converts a bridge; of one that was there before, only ports that came or went are looked up. Ports are those from
/// before and those of now.
fn bridge(
    row: &vswitch::Bridge,
    was: Option<(&vswitch::Bridge, &Bridge)>,
    ports: (&Rows<vswitch::Port>, &Rows<vswitch::Port>),
) -> Bridge {
    let name = |uuid: &Uuid| ports.1.get(uuid).map(|port| &port.name);
    let ports = match was {
        None => names(&row.ports, name),
        Some((was, made)) => {
            let mut names = made.ports.clone();
            for uuid in was.ports.difference(&row.ports) {
                ports.0.get(uuid).map(|port| names.remove(&port.name));
            }
            // The name of one that went may be that of one that came.
            names.extend(row.ports.difference(&was.ports).filter_map(name).cloned());
            names
        }
    };
    Bridge {
        uuid: row.uuid,
        name: row.name.clone(),
        datapath_type: row.datapath_type.clone(),
        ports,
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
        mac: row.mac.as_deref().and_then(|mac| mac.parse().ok()),
        mtu_request: number(row.mtu_request),
        mtu: number(row.mtu).filter(|mtu| *mtu > 0),
        ofport: row.ofport,
        error: row.error.clone(),
        ifindex: number(row.ifindex),
        link_up: row.link_state.as_deref() == Some("up"),
        status: row.status.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row_of_bridge(uuid: Uuid, ports: impl IntoIterator<Item = Uuid>) -> vswitch::Bridge {
        vswitch::Bridge {
            uuid,
            name: format!("br{}", uuid.as_u128()).into(),
            ports: ports.into_iter().collect(),
            datapath_type: Text::default(),
            datapath_id: None,
            fail_mode: None,
            controller: BTreeSet::new(),
            protocols: BTreeSet::new(),
            external_ids: Pairs::default(),
            other_config: Pairs::default(),
        }
    }

    fn row_of_port(uuid: Uuid, name: &str, interface: Uuid) -> vswitch::Port {
        vswitch::Port {
            uuid,
            name: name.into(),
            interfaces: BTreeSet::from([interface]),
            tag: None,
            trunks: BTreeSet::new(),
            vlan_mode: None,
            qos: None,
            external_ids: Pairs::default(),
            other_config: Pairs::default(),
        }
    }

    fn row_of_interface(uuid: Uuid, name: &str, ofport: i64) -> vswitch::Interface {
        vswitch::Interface {
            uuid,
            name: name.into(),
            type_: Text::default(),
            options: Pairs::default(),
            external_ids: Pairs::default(),
            ofport: Some(ofport),
            error: None,
            mac: None,
            mtu: None,
            mtu_request: None,
            link_state: None,
            status: Pairs::default(),
            ifindex: None,
        }
    }

    const PORTS: u128 = 1_000;
    const INTERFACES: u128 = 2_000;
    const BRIDGES: std::ops::Range<u128> = 1..3;

    /// What somebody does in one transaction.
    #[derive(Clone, Debug)]
    enum Doing {
        /// Puts a port of that number into a bridge and out of every other one, in place of the port that had its name.
        /// A name never changes, but two numbers may have the same.
        Put { number: u128, bridge: u128 },
        /// Takes a port away.
        Take(u128),
        /// Numbers an interface.
        Number(u128, i64),
        /// What it says is not believed.
        Disbelieve(u128),
        /// Everything is read anew.
        Resync,
    }

    fn doing() -> impl Strategy<Value = Doing> {
        let number = || 0..20_u128;
        prop_oneof![
            6 => (number(), BRIDGES).prop_map(|(number, bridge)| Doing::Put { number, bridge }),
            3 => number().prop_map(Doing::Take),
            4 => (number(), -1..5_i64).prop_map(|(number, ofport)| Doing::Number(number, ofport)),
            1 => number().prop_map(Doing::Disbelieve),
            1 => Just(Doing::Resync),
        ]
    }

    fn take(snapshot: &mut Snapshot, port: Uuid) {
        for bridge in BRIDGES.map(Uuid::from_u128) {
            let mut ports = snapshot.bridges.get(&bridge).map(|row| row.ports.clone()).unwrap_or_default();
            if ports.remove(&port) {
                snapshot.place_bridge(bridge, Some(row_of_bridge(bridge, ports)));
            }
        }
        let interfaces = snapshot.ports.get(&port).map(|row| row.interfaces.clone()).unwrap_or_default();
        interfaces.into_iter().for_each(|uuid| snapshot.place_interface(uuid, None));
        snapshot.place_port(port, None);
    }

    fn carry_out(snapshot: &mut Snapshot, doing: &Doing) {
        let uuid = Uuid::from_u128;
        match *doing {
            Doing::Put { number, bridge } => {
                let (port, interface, name) =
                    (uuid(PORTS + number), uuid(INTERFACES + number), format!("p{}", number % 12));
                let in_the_way = snapshot.port(&name).map(|row| row.uuid).filter(|uuid| *uuid != port);
                in_the_way.into_iter().chain([port]).for_each(|uuid| take(snapshot, uuid));
                snapshot.place_interface(interface, Some(row_of_interface(interface, &name, 1)));
                snapshot.place_port(port, Some(row_of_port(port, &name, interface)));
                let row = snapshot.bridges.get(&uuid(bridge)).map(|row| row.ports.clone()).unwrap_or_default();
                let ports = row.into_iter().chain([port]);
                snapshot.place_bridge(uuid(bridge), Some(row_of_bridge(uuid(bridge), ports)));
            }
            Doing::Take(number) => take(snapshot, uuid(PORTS + number)),
            Doing::Number(number, ofport) => {
                let interface = uuid(INTERFACES + number);
                if let Some(name) = snapshot.interfaces.get(&interface).map(|row| row.name.clone()) {
                    snapshot.place_interface(interface, Some(row_of_interface(interface, &name, ofport)));
                }
            }
            Doing::Disbelieve(_) => {}
            Doing::Resync => {
                let mut anew = Snapshot::default();
                snapshot
                    .interfaces
                    .iter()
                    .for_each(|(uuid, row)| anew.place_interface(*uuid, Some(row.as_ref().clone())));
                snapshot.ports.iter().for_each(|(uuid, row)| anew.place_port(*uuid, Some(row.as_ref().clone())));
                snapshot.bridges.iter().for_each(|(uuid, row)| anew.place_bridge(*uuid, Some(row.as_ref().clone())));
                *snapshot = anew;
            }
        }
    }

    proptest! {
        #[test]
        fn following_shows_what_looking_at_everything_would(
            history in prop::collection::vec(prop::collection::vec(doing(), 0..4), 1..40),
        ) {
            let (mut snapshot, mut mirror) = (Snapshot::default(), Mirror::default());
            for transaction in history {
                for doing in &transaction {
                    carry_out(&mut snapshot, doing);
                    if let Doing::Disbelieve(number) = doing {
                        mirror.restore(BTreeMap::new());
                        mirror.disbelieve(&[Uuid::from_u128(INTERFACES + number)], i64::MAX);
                    }
                }
                let mut anew = Mirror { unanswered: mirror.unanswered.clone(), ..Mirror::default() };
                prop_assert_eq!(mirror.reflect(&snapshot, true), anew.reflect(&snapshot, true));
            }
        }
    }

    #[test]
    fn a_row_that_did_not_change_is_handed_out_as_it_was() {
        let (mut snapshot, mut mirror) = (Snapshot::default(), Mirror::default());
        for number in 0..10 {
            carry_out(&mut snapshot, &Doing::Put { number, bridge: 1 });
        }
        let before = mirror.reflect(&snapshot, true);
        carry_out(&mut snapshot, &Doing::Number(3, 7));
        let after = mirror.reflect(&snapshot, true);
        assert!(before.ports.is(&after.ports) && before.bridges.is(&after.bridges));
        let mut told = Vec::new();
        before.interfaces.differing(&after.interfaces, |name, _, _| told.push(name.to_string()));
        assert_eq!(told, ["p3"]);
    }
}
