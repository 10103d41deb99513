//! A batch of operations as one OVSDB transaction, and what its outcome says of each operation. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::message::ErrorKind;
use ovsdb::outcome;
use ovsdb::text::Text;
use ovsdb::transact::{Condition, NewRow, RowRef, Transaction, Values, Where};
use ovsdb::vswitch::{Bridge, Interface, OpenVSwitch, Port, Qos};
use uuid::Uuid;

use super::{ACCESS, MarkedTable, NewPort, OvsOp, SECURE, no_in_band};
use crate::backend::{Attributed, Outcome};
use crate::model::OvsState;

/// Tag of the operations that belong to the batch as a whole.
const WHOLE: usize = usize::MAX;

/// A batch on its way.
pub(super) struct Batch {
    /// Every operation is tagged with its place in the batch.
    pub(super) transaction: Transaction<usize>,
    /// Outcomes known without asking, by place.
    known: BTreeMap<usize, Outcome>,
    length: usize,
    /// Interfaces that ovs-vswitchd has to make anew: what the database has of them is about the old one.
    pub(super) remade: Vec<Uuid>,
    /// Names of devices that ovs-vswitchd will let go of in its own time.
    pub(super) let_go: Vec<Text>,
}

/// Bridges' port sets change once per bridge and transaction: with N mutations of a set of N members the
/// server would copy N² of them.
#[derive(Default)]
struct PortSets {
    insert: BTreeMap<String, Vec<NewRow>>,
    delete: BTreeMap<String, BTreeSet<Uuid>>,
    new_bridges: BTreeMap<String, NewRow>,
}

impl Batch {
    /// Translates `ops` for a database in state `ovs` whose root row is `root`; `lock` has to be ours.
    pub(super) fn new(ops: &[Attributed<OvsOp>], ovs: &OvsState, root: Uuid, lock: &str) -> Self {
        let mut batch = Batch {
            transaction: Transaction::new(WHOLE),
            known: BTreeMap::new(),
            length: ops.len(),
            remade: Vec::new(),
            let_go: Vec::new(),
        };
        batch.transaction.assert(lock);
        let mut sets = PortSets::default();
        for (place, op) in ops.iter().enumerate() {
            batch.transaction.tag(place);
            if let Err(outcome) = batch.add(&op.op, ovs, root, &mut sets) {
                batch.known.insert(place, outcome);
            }
        }
        batch.transaction.tag(WHOLE);
        if !batch.let_go.is_empty() || !batch.remade.is_empty() {
            // `cur_cfg` follows when ovs-vswitchd has carried this out.
            batch.transaction.mutate(root, [OpenVSwitch::NEXT_CFG.increase_by(1)]);
        }
        batch.port_sets(sets, ovs);
        batch
    }

    fn add(&mut self, op: &OvsOp, ovs: &OvsState, root: Uuid, sets: &mut PortSets) -> Result<(), Outcome> {
        let txn = &mut self.transaction;
        match op {
            OvsOp::InsertBridge { name, datapath_type, external_ids, secure } => {
                let interface =
                    txn.insert(&Values::new().with(Interface::NAME, name.clone()).with(Interface::TYPE, "internal"));
                let port = txn.insert(&Values::new().with(Port::NAME, name.clone()).with(Port::INTERFACES, interface));
                let mut row = Values::new()
                    .with(Bridge::NAME, name.clone())
                    .with(Bridge::DATAPATH_TYPE, datapath_type.clone())
                    .with(Bridge::EXTERNAL_IDS, external_ids)
                    .with(Bridge::PORTS, port);
                if *secure {
                    row.set(Bridge::FAIL_MODE, SECURE);
                    row.set(Bridge::OTHER_CONFIG, no_in_band());
                }
                let bridge = txn.insert(&row);
                txn.mutate(root, [OpenVSwitch::BRIDGES.insert(bridge)]);
                sets.new_bridges.insert(name.clone(), bridge);
            }
            OvsOp::SecureBridge { uuid, name, marks } => {
                txn.require(
                    Where::from(*uuid).and(Bridge::NAME.equals(name)).and(Bridge::EXTERNAL_IDS.includes(marks)),
                );
                txn.update(*uuid, &Values::new().with(Bridge::FAIL_MODE, SECURE));
                txn.mutate(*uuid, Bridge::OTHER_CONFIG.put(no_in_band()));
            }
            OvsOp::DeleteBridge { uuid, name, marks } => {
                let local = ovs.ports.get(name.as_str()).ok_or_else(|| gone("bridge", name))?.uuid;
                txn.require(
                    Where::from(*uuid).and(Bridge::EXTERNAL_IDS.includes(marks)).and(Bridge::PORTS.equals(local)),
                );
                txn.mutate(root, [OpenVSwitch::BRIDGES.remove(*uuid)]);
            }
            OvsOp::ConfigureSwitch { other_config } => txn.mutate(root, OpenVSwitch::OTHER_CONFIG.put(other_config)),
            OvsOp::InsertPort(port) => {
                if !ovs.bridges.contains_key(port.bridge.as_str()) && !sets.new_bridges.contains_key(&port.bridge) {
                    // Its bridge is still to come: planned again when it is there.
                    return Err(Outcome::Untried);
                }
                let row = insert_port(txn, port);
                sets.insert.entry(port.bridge.clone()).or_default().push(row);
            }
            OvsOp::DeletePort { uuid, name, bridge, interface, qos } => {
                let bridge_row = ovs.bridges.get(bridge.as_str()).ok_or_else(|| gone("bridge", bridge))?;
                txn.require(
                    Where::from(bridge_row.uuid).and(Bridge::PORTS.includes(*uuid)).and(Bridge::NAME.equals(bridge)),
                );
                if let Some((interface, marks)) = interface {
                    txn.require(Where::from(*interface).and(Interface::EXTERNAL_IDS.includes(marks)));
                }
                txn.require(Where::from(*uuid).and(Port::NAME.equals(name)));
                // A device of its name must not come before ovs-vswitchd has let go of this one.
                if bridge_row.is_userspace() {
                    self.let_go.push(name.as_str().into());
                }
                if let Some(qos) = qos {
                    // References are counted before the port, which nobody refers to any more, is collected.
                    txn.update(*uuid, &Values::new().with(Port::QOS, None::<Uuid>));
                    txn.delete(Where::<Qos>::from(*qos));
                }
                sets.delete.entry(bridge.clone()).or_default().insert(*uuid);
            }
            OvsOp::ChangePort { uuid, name, bridge, external_ids, other_config, access } => {
                let bridge_row = ovs.bridges.get(bridge.as_str()).ok_or_else(|| gone("bridge", bridge))?;
                txn.require(Where::from(bridge_row.uuid).and(Bridge::PORTS.includes(*uuid)));
                txn.require(Where::from(*uuid).and(Port::NAME.equals(name)));
                if let Some(vlan) = access {
                    let row = Values::new().with(Port::TAG, i64::from(*vlan)).with(Port::VLAN_MODE, ACCESS);
                    txn.update(*uuid, &row.with(Port::TRUNKS, [] as [i64; 0]));
                }
                if !external_ids.is_empty() || !other_config.is_empty() {
                    let mutations = Port::EXTERNAL_IDS.put(external_ids).into_iter();
                    txn.mutate(*uuid, mutations.chain(Port::OTHER_CONFIG.put(other_config)));
                }
            }
            OvsOp::ChangeInterface { uuid, name, guard, kind, options, external_ids, mac, mtu_request } => {
                txn.require(
                    Where::from(*uuid).and(Interface::NAME.equals(name)).and(Interface::EXTERNAL_IDS.includes(guard)),
                );
                let mut values = Values::new();
                if let Some(kind) = kind {
                    values.set(Interface::TYPE, kind);
                }
                if let Some(mac) = mac {
                    values.set(Interface::MAC, mac.to_string());
                }
                if let Some(mtu) = mtu_request {
                    values.set(Interface::MTU_REQUEST, i64::from(*mtu));
                }
                if kind.is_some() || !options.is_empty() {
                    self.remade.push(*uuid);
                }
                txn.update(*uuid, &values);
                if !options.is_empty() || !external_ids.is_empty() {
                    let mutations = Interface::OPTIONS.put(options).into_iter();
                    txn.mutate(*uuid, mutations.chain(Interface::EXTERNAL_IDS.put(external_ids)));
                }
            }
            OvsOp::DeleteQos { uuid, marks } => {
                txn.require(Where::from(*uuid).and(Qos::EXTERNAL_IDS.includes(marks)));
                txn.delete(Where::<Qos>::from(*uuid));
            }
            OvsOp::Mark { table, uuid, guard, external_ids, .. } => match table {
                MarkedTable::Bridge => {
                    txn.require(Where::from(*uuid).and(Bridge::EXTERNAL_IDS.includes(guard)));
                    txn.mutate(*uuid, Bridge::EXTERNAL_IDS.put(external_ids));
                }
                MarkedTable::Port => {
                    txn.require(Where::from(*uuid).and(Port::EXTERNAL_IDS.includes(guard)));
                    txn.mutate(*uuid, Port::EXTERNAL_IDS.put(external_ids));
                }
                MarkedTable::Interface => {
                    txn.require(Where::from(*uuid).and(Interface::EXTERNAL_IDS.includes(guard)));
                    txn.mutate(*uuid, Interface::EXTERNAL_IDS.put(external_ids));
                }
                MarkedTable::Qos => {
                    txn.require(Where::from(*uuid).and(Qos::EXTERNAL_IDS.includes(guard)));
                    txn.mutate(*uuid, Qos::EXTERNAL_IDS.put(external_ids));
                }
            },
            OvsOp::Unmark { table, uuid, keys, .. } => match table {
                MarkedTable::Bridge => {
                    txn.require(Condition::<Bridge>::row(*uuid));
                    txn.mutate(*uuid, [Bridge::EXTERNAL_IDS.remove_keys(keys.iter().cloned())]);
                }
                MarkedTable::Port => {
                    txn.require(Condition::<Port>::row(*uuid));
                    txn.mutate(*uuid, [Port::EXTERNAL_IDS.remove_keys(keys.iter().cloned())]);
                }
                MarkedTable::Interface => {
                    txn.require(Condition::<Interface>::row(*uuid));
                    txn.mutate(*uuid, [Interface::EXTERNAL_IDS.remove_keys(keys.iter().cloned())]);
                }
                MarkedTable::Qos => {
                    txn.require(Condition::<Qos>::row(*uuid));
                    txn.mutate(*uuid, [Qos::EXTERNAL_IDS.remove_keys(keys.iter().cloned())]);
                }
            },
        }
        Ok(())
    }

    fn port_sets(&mut self, sets: PortSets, ovs: &OvsState) {
        let PortSets { mut insert, mut delete, new_bridges } = sets;
        let bridges: BTreeSet<String> = insert.keys().chain(delete.keys()).cloned().collect();
        for name in bridges {
            let row = match (new_bridges.get(&name), ovs.bridges.get(name.as_str())) {
                (Some(new), _) => RowRef::New(*new),
                (None, Some(bridge)) => RowRef::Known(bridge.uuid),
                // `add` let no such operation in.
                (None, None) => continue,
            };
            let mut mutations = Vec::new();
            if let Some(ports) = delete.remove(&name) {
                mutations.push(Bridge::PORTS.remove(ports));
            }
            if let Some(ports) = insert.remove(&name) {
                mutations.push(Bridge::PORTS.insert(ports));
            }
            self.transaction.mutate(row, mutations);
        }
    }

    /// Whether there is anything to send.
    pub(super) fn is_empty(&self) -> bool {
        self.known.len() == self.length
    }

    /// One outcome per operation.
    pub(super) fn outcomes(self, outcome: &outcome::Outcome<usize>) -> Vec<Outcome> {
        let length = self.length;
        let every = |outcome: Outcome| vec![outcome; length];
        let blame = |culprits: &[usize], blamed: Outcome| {
            let mut outcomes = every(Outcome::Untried);
            for place in culprits {
                if let Some(outcome) = outcomes.get_mut(*place) {
                    *outcome = blamed.clone();
                }
            }
            outcomes
        };
        let mut outcomes = match outcome {
            outcome::Outcome::Committed(_) | outcome::Outcome::Unchanged(_) => every(Outcome::Done),
            outcome::Outcome::Conflict { tag, .. } => {
                blame(&[*tag], Outcome::Conflict("the row is not as it was any more".to_owned()))
            }
            outcome::Outcome::Rejected(rejection) => {
                let words = rejection.error.to_string();
                let suspects: Vec<usize> =
                    rejection.suspects.iter().map(|(_, tag)| *tag).filter(|tag| *tag != WHOLE).collect();
                let somebodys_fault = matches!(
                    rejection.error.kind(),
                    ErrorKind::ReferentialIntegrity | ErrorKind::ConstraintViolation | ErrorKind::Other
                );
                match rejection.tag {
                    Some(place) if place != WHOLE => blame(&[place], Outcome::Failed(words)),
                    None if !suspects.is_empty() => blame(&suspects, Outcome::Failed(words)),
                    None if somebodys_fault => every(Outcome::BatchFailed(words)),
                    _ => every(Outcome::PeerFailed(words)),
                }
            }
            outcome::Outcome::NotSent => every(Outcome::Untried),
            outcome::Outcome::Unknown => every(Outcome::Unknown),
        };
        for (place, known) in self.known {
            outcomes[place] = known;
        }
        outcomes
    }
}

fn gone(what: &str, name: &str) -> Outcome {
    Outcome::Conflict(format!("{what} {name} is gone"))
}

fn insert_port(txn: &mut Transaction<usize>, new: &NewPort) -> NewRow {
    let mut interface =
        Values::new().with(Interface::NAME, new.name.clone()).with(Interface::EXTERNAL_IDS, &new.interface_ids);
    if !new.kind.is_empty() {
        interface.set(Interface::TYPE, new.kind.clone());
    }
    if !new.options.is_empty() {
        interface.set(Interface::OPTIONS, &new.options);
    }
    if let Some(mac) = new.mac {
        interface.set(Interface::MAC, mac.to_string());
    }
    if let Some(mtu) = new.mtu_request {
        interface.set(Interface::MTU_REQUEST, i64::from(mtu));
    }
    let interface = txn.insert(&interface);
    let mut port = Values::new()
        .with(Port::NAME, new.name.clone())
        .with(Port::INTERFACES, interface)
        .with(Port::EXTERNAL_IDS, &new.external_ids)
        .with(Port::OTHER_CONFIG, &new.other_config);
    if let Some(tag) = new.tag {
        port.set(Port::TAG, i64::from(tag));
    }
    if !new.trunks.is_empty() {
        port.set(Port::TRUNKS, new.trunks.iter().map(|vlan| i64::from(*vlan)).collect::<BTreeSet<_>>());
    }
    if let Some(mode) = &new.vlan_mode {
        port.set(Port::VLAN_MODE, mode.as_str());
    }
    if let Some(qos) = &new.qos {
        let row =
            txn.insert(&Values::new().with(Qos::TYPE, qos.kind.clone()).with(Qos::EXTERNAL_IDS, &qos.external_ids));
        port.set(Port::QOS, row);
    }
    txn.insert(&port)
}
