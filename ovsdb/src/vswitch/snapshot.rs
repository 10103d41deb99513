//! The replica of the `Open_vSwitch` database: typed rows and the indexes over them. Which columns the rows
//! have is declared in the parent module.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::de::Deserializer;

use super::{Bridge, DATABASE, Interface, OpenVSwitch, Port, Qos};
use crate::pairs::Pairs;
use crate::replica::{PairIndex, Replica, Rows, UniqueIndex};
use crate::table::{Layout, Table, TableDecl};
use crate::text::Text;
use crate::update::RowUpdate;
use crate::value::Uuid;

/// The database as of one message of the server. A clone costs a dozen reference counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Which columns the server has; `None` only before the first connection.
    pub layout: Option<Arc<Layout>>,
    /// The root row; none in a database that nobody has initialised.
    pub open_vswitch: Rows<OpenVSwitch>,
    /// Bridges.
    pub bridges: Rows<Bridge>,
    /// Ports.
    pub ports: Rows<Port>,
    /// Interfaces.
    pub interfaces: Rows<Interface>,
    /// Qualities of service.
    pub qos: Rows<Qos>,
    bridge_names: UniqueIndex<Text>,
    port_names: UniqueIndex<Text>,
    interface_names: UniqueIndex<Text>,
    bridge_of_port: UniqueIndex<Uuid>,
    port_of_interface: UniqueIndex<Uuid>,
    bridge_ids: PairIndex,
    port_ids: PairIndex,
    interface_ids: PairIndex,
}

impl Snapshot {
    /// No rows, and an index over these keys of `external_ids` of bridges, ports and interfaces.
    pub fn new<K: Into<String>>(external_ids: impl IntoIterator<Item = K>) -> Self {
        let index = PairIndex::new(external_ids);
        Self { bridge_ids: index.clone(), port_ids: index.clone(), interface_ids: index, ..Self::default() }
    }

    /// The bridge of this name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&Arc<Bridge>> {
        self.bridges.get(&self.bridge_names.get(name)?)
    }

    /// The port of this name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&Arc<Port>> {
        self.ports.get(&self.port_names.get(name)?)
    }

    /// The interface of this name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Arc<Interface>> {
        self.interfaces.get(&self.interface_names.get(name)?)
    }

    /// The bridge that has this port.
    #[must_use]
    pub fn bridge_of_port(&self, port: Uuid) -> Option<&Arc<Bridge>> {
        self.bridges.get(&self.bridge_of_port.get(&port)?)
    }

    /// The port that has this interface.
    #[must_use]
    pub fn port_of_interface(&self, interface: Uuid) -> Option<&Arc<Port>> {
        self.ports.get(&self.port_of_interface.get(&interface)?)
    }

    /// Bridges with this pair in `external_ids`; none when the key is not indexed.
    pub fn bridges_with<'a>(&'a self, key: &str, value: &str) -> impl Iterator<Item = &'a Arc<Bridge>> {
        self.bridge_ids.get(key, value).filter_map(|uuid| self.bridges.get(&uuid))
    }

    /// Ports with this pair in `external_ids`; none when the key is not indexed.
    pub fn ports_with<'a>(&'a self, key: &str, value: &str) -> impl Iterator<Item = &'a Arc<Port>> {
        self.port_ids.get(key, value).filter_map(|uuid| self.ports.get(&uuid))
    }

    /// Interfaces with this pair in `external_ids`; none when the key is not indexed.
    pub fn interfaces_with<'a>(&'a self, key: &str, value: &str) -> impl Iterator<Item = &'a Arc<Interface>> {
        self.interface_ids.get(key, value).filter_map(|uuid| self.interfaces.get(&uuid))
    }

    /// The root row; none in a database that nobody has initialised. The schema allows one.
    #[must_use]
    pub fn root(&self) -> Option<&Arc<OpenVSwitch>> {
        self.open_vswitch.values().next()
    }

    /// Puts a bridge in place of the one of the same identity, or takes that one out. Sessions do the like; it
    /// is public so that tests of other crates can build a snapshot without a server. So are its siblings.
    pub fn place_bridge(&mut self, uuid: Uuid, row: Option<Bridge>) {
        let old = self.bridges.place(uuid, row.map(Arc::new));
        self.index_bridge(uuid, old.as_deref());
    }

    /// See [`Snapshot::place_bridge`].
    pub fn place_port(&mut self, uuid: Uuid, row: Option<Port>) {
        let old = self.ports.place(uuid, row.map(Arc::new));
        self.index_port(uuid, old.as_deref());
    }

    /// See [`Snapshot::place_bridge`].
    pub fn place_interface(&mut self, uuid: Uuid, row: Option<Interface>) {
        let old = self.interfaces.place(uuid, row.map(Arc::new));
        self.index_interface(uuid, old.as_deref());
    }

    /// See [`Snapshot::place_bridge`].
    pub fn place_qos(&mut self, uuid: Uuid, row: Option<Qos>) {
        self.qos.place(uuid, row.map(Arc::new));
    }

    /// Keeps the indexes in step with a bridge that was `old` before.
    fn index_bridge(&mut self, uuid: Uuid, old: Option<&Bridge>) {
        let new = self.bridges.get(&uuid).map(AsRef::as_ref);
        rename(&mut self.bridge_names, uuid, old.map(|r| &r.name), new.map(|r: &Bridge| &r.name));
        adopt(&mut self.bridge_of_port, uuid, old.map(|r| &r.ports), new.map(|r| &r.ports));
        repair(&mut self.bridge_ids, uuid, old.map(|r| &r.external_ids), new.map(|r| &r.external_ids));
    }

    fn index_port(&mut self, uuid: Uuid, old: Option<&Port>) {
        let new = self.ports.get(&uuid).map(AsRef::as_ref);
        rename(&mut self.port_names, uuid, old.map(|r| &r.name), new.map(|r: &Port| &r.name));
        adopt(&mut self.port_of_interface, uuid, old.map(|r| &r.interfaces), new.map(|r| &r.interfaces));
        repair(&mut self.port_ids, uuid, old.map(|r| &r.external_ids), new.map(|r| &r.external_ids));
    }

    fn index_interface(&mut self, uuid: Uuid, old: Option<&Interface>) {
        let new = self.interfaces.get(&uuid).map(AsRef::as_ref);
        rename(&mut self.interface_names, uuid, old.map(|r| &r.name), new.map(|r: &Interface| &r.name));
        repair(&mut self.interface_ids, uuid, old.map(|r| &r.external_ids), new.map(|r| &r.external_ids));
    }
}

/// Keeps an index by name in step with one row.
fn rename(index: &mut UniqueIndex<Text>, uuid: Uuid, old: Option<&Text>, new: Option<&Text>) {
    if old != new
        && let Some(old) = old
    {
        index.release(old, uuid);
    }
    if let Some(new) = new {
        index.put(new.clone(), uuid);
    }
}

/// Keeps an index from children to their parent in step with one parent.
fn adopt(index: &mut UniqueIndex<Uuid>, parent: Uuid, old: Option<&BTreeSet<Uuid>>, new: Option<&BTreeSet<Uuid>>) {
    let none = BTreeSet::new();
    let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
    for child in old.difference(new) {
        index.release(child, parent);
    }
    for child in new.difference(old) {
        index.put(*child, parent);
    }
}

/// Keeps an index by `external_ids` in step with one row.
fn repair(index: &mut PairIndex, uuid: Uuid, old: Option<&Pairs>, new: Option<&Pairs>) {
    let none = Pairs::default();
    index.change(uuid, old.unwrap_or(&none), new.unwrap_or(&none));
}

impl Replica for Snapshot {
    const DATABASE: &'static str = DATABASE;
    const TABLES: &'static [TableDecl] = &[OpenVSwitch::DECL, Bridge::DECL, Port::DECL, Interface::DECL, Qos::DECL];

    fn reset(&mut self, layout: &Arc<Layout>) {
        let mut ids = [self.bridge_ids.clone(), self.port_ids.clone(), self.interface_ids.clone()];
        ids.iter_mut().for_each(PairIndex::clear);
        let [bridge_ids, port_ids, interface_ids] = ids;
        *self = Self { layout: Some(Arc::clone(layout)), bridge_ids, port_ids, interface_ids, ..Self::default() };
    }

    fn set<'de, D: Deserializer<'de>>(&mut self, table: usize, row: RowUpdate<'_, D>) -> Result<(), D::Error> {
        let uuid = row.uuid();
        match table {
            0 => drop(row.apply(&mut self.open_vswitch)?),
            1 => {
                let old = row.apply(&mut self.bridges)?;
                self.index_bridge(uuid, old.as_deref());
            }
            2 => {
                let old = row.apply(&mut self.ports)?;
                self.index_port(uuid, old.as_deref());
            }
            3 => {
                let old = row.apply(&mut self.interfaces)?;
                self.index_interface(uuid, old.as_deref());
            }
            4 => drop(row.apply(&mut self.qos)?),
            _ => return Err(row.unknown_table()),
        }
        Ok(())
    }

    fn remove(&mut self, table: usize, uuid: Uuid) -> bool {
        match table {
            0 => self.open_vswitch.take(uuid).is_some(),
            1 => {
                let old = self.bridges.take(uuid);
                self.index_bridge(uuid, old.as_deref());
                old.is_some()
            }
            2 => {
                let old = self.ports.take(uuid);
                self.index_port(uuid, old.as_deref());
                old.is_some()
            }
            3 => {
                let old = self.interfaces.take(uuid);
                self.index_interface(uuid, old.as_deref());
                old.is_some()
            }
            4 => self.qos.take(uuid).is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(uuid: u128, name: &str, interfaces: &[u128], id: &str) -> Port {
        Port {
            uuid: Uuid::from_u128(uuid),
            name: name.into(),
            interfaces: interfaces.iter().copied().map(Uuid::from_u128).collect(),
            tag: None,
            trunks: BTreeSet::new(),
            vlan_mode: None,
            qos: None,
            external_ids: Pairs::from([("id", id)]),
            other_config: Pairs::default(),
        }
    }

    #[test]
    fn indexes_follow_rows_whatever_the_order_within_a_message() {
        let mut snapshot = Snapshot::new(["id"]);
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        snapshot.place_port(a, Some(port(1, "p", &[10, 11], "x")));
        let before = snapshot.clone();
        // A port deleted and made again under the same name, the new one reported first.
        snapshot.place_port(b, Some(port(2, "p", &[11], "x")));
        snapshot.place_port(a, None);
        assert_eq!(snapshot.port("p").unwrap().uuid, b);
        assert_eq!(snapshot.port_of_interface(Uuid::from_u128(11)).unwrap().uuid, b);
        assert!(snapshot.port_of_interface(Uuid::from_u128(10)).is_none());
        assert_eq!(snapshot.ports_with("id", "x").map(|p| p.uuid).collect::<Vec<_>>(), [b]);
        assert_eq!(before.port("p").unwrap().uuid, a, "an older snapshot stays as it was");

        snapshot.place_port(b, Some(port(2, "p", &[12], "y")));
        assert!(snapshot.port_of_interface(Uuid::from_u128(11)).is_none());
        assert_eq!(snapshot.ports_with("id", "x").count(), 0);
        assert_eq!(snapshot.ports_with("id", "y").count(), 1);
        snapshot.place_port(b, None);
        let layout = snapshot.layout.clone();
        assert_eq!(snapshot.ports.len(), 0);
        assert_eq!(snapshot.port("p"), None);
        assert_eq!(layout, None);
    }
}
