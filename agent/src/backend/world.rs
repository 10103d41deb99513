//! A host in memory: the same operations on plain maps, with ovs-vswitchd's and the hypervisor's turns to be
//! taken by hand. It stands at the `Backend` seam for property tests and for simulated fleets, nowhere else.

mod kernel;
mod nics;
mod switches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use devlink::port_profile::Response;
use ovsdb::pairs::Pairs;
use ovsdb::text::Text;
use uuid::Uuid;

use super::openflow::Picture;
use super::ovs::{ACCESS, MarkedTable, NewPort, OvsOp, SECURE, StringMap, no_in_band};
use super::{Attributed, Outcome};
use crate::model::{
    Association, AssociationState, Bridge, Interface, LinkKind, LinkState, NicState, Observed, OvsState, Port, Qos,
    View,
};

/// The host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// The kernel's side.
    pub kernel: LinkState,
    /// The NICs.
    pub nics: Arc<NicState>,
    /// The database.
    pub ovs: OvsState,
    /// Whether ovs-vswitchd has DPDK.
    pub dpdk: bool,
    /// Bridges that ovs-vswitchd cannot make: it leaves their ports as they are.
    pub unmade: BTreeSet<String>,
    /// Names of ports and taps whose operations are refused, with the words of the refusal.
    pub refused: BTreeMap<String, String>,
    /// Modifying operations done so far.
    pub writes: usize,
    /// Bridges whose switches are seen.
    pub managed: BTreeSet<String>,
    /// The upper 16 bits of our cookies.
    pub owner: u16,
    /// Cookies whose flows are refused, with the words of the refusal.
    pub refused_cookies: BTreeMap<u64, String>,
    /// Greatest meter of a switch.
    pub max_meters: u32,
    /// Packets that were sent, by bridge.
    pub announced: Vec<(String, bytes::Bytes)>,
    /// Zones of which the connections were forgotten, in this order.
    pub flushed_zones: Vec<u16>,
    /// What the switches beyond the cables say to what they are asked for; `None` while lldpad does not run.
    pub switch_answers: Option<Response>,
    /// What they know.
    pub stations: BTreeMap<Association, AssociationState>,
    switches: BTreeMap<String, Arc<Picture>>,
    serial: u128,
}

type Refusal = Outcome;

impl World {
    /// An empty host on which ovs-vswitchd runs, with or without DPDK.
    #[must_use]
    pub fn new(dpdk: bool) -> Self {
        let ovs = OvsState { vswitchd_alive: true, ..OvsState::default() };
        World { ovs, dpdk, max_meters: 1000, switch_answers: Some(Response::VdpSuccess), ..World::default() }
    }

    /// What the planner sees: everything, at once.
    #[must_use]
    pub fn observed(&self) -> Observed {
        Observed {
            links: View::Ready(Arc::new(self.kernel.clone())),
            nics: View::Ready(Arc::clone(&self.nics)),
            ovs: View::Ready(Arc::new(self.ovs.clone())),
            flows: self.flows(),
        }
    }

    fn uuid(&mut self) -> Uuid {
        self.serial += 1;
        Uuid::from_u128(self.serial)
    }

    // ---- the database -----------------------------------------------------------------------------------

    /// Does one transaction: all of it or nothing.
    pub fn apply_ovs(&mut self, batch: &[Attributed<OvsOp>]) -> Vec<Outcome> {
        let mut next = self.clone();
        for (place, op) in batch.iter().enumerate() {
            if let Err(outcome) = next.try_ovs(&op.op) {
                let mut outcomes = vec![Outcome::Untried; batch.len()];
                outcomes[place] = outcome;
                return outcomes;
            }
        }
        next.writes += batch.len();
        *self = next;
        vec![Outcome::Done; batch.len()]
    }

    fn try_ovs(&mut self, op: &OvsOp) -> Result<(), Refusal> {
        match op {
            OvsOp::InsertBridge { name, datapath_type, external_ids, secure } => {
                if self.ovs.bridges.contains_key(name.as_str()) || self.ovs.ports.contains_key(name.as_str()) {
                    return Err(Outcome::Conflict(format!("{name} exists")));
                }
                self.add_bridge(name, datapath_type, external_ids.clone());
                if *secure {
                    self.secure(name)?;
                }
            }
            OvsOp::ConfigureSwitch { other_config } => self.ovs.other_config.extend(other_config.clone()),
            OvsOp::SecureBridge { uuid, name, marks } => {
                let bridge = self.bridge(name)?;
                if bridge.uuid != *uuid || !has(&bridge.external_ids, marks) {
                    return Err(Outcome::Conflict(format!("bridge {name} changed")));
                }
                self.secure(name)?;
            }
            OvsOp::DeleteBridge { uuid, name, marks } => {
                let bridge = self.bridge(name)?.clone();
                if bridge.uuid != *uuid || !has(&bridge.external_ids, marks) || bridge.ports.len() > 1 {
                    return Err(Outcome::Conflict(format!("bridge {name} changed")));
                }
                self.switches.remove(name.as_str());
                self.ovs.bridges.remove(name.as_str());
                self.ovs.ports.remove(name.as_str());
                self.ovs.interfaces.remove(name.as_str());
            }
            OvsOp::InsertPort(port) => self.insert_port(port)?,
            OvsOp::DeletePort { uuid, name, bridge, interface, qos } => {
                let row = self.port(name)?.clone();
                if row.uuid != *uuid || row.bridge != *bridge {
                    return Err(Outcome::Conflict(format!("port {name} changed")));
                }
                if let Some((uuid, marks)) = interface {
                    let interface = self.interface(name)?;
                    if interface.uuid != *uuid || !has(&interface.external_ids, marks) {
                        return Err(Outcome::Conflict(format!("interface {name} changed")));
                    }
                }
                self.delete_port(name);
                if let Some(qos) = qos {
                    self.ovs.qos.remove(qos);
                }
            }
            OvsOp::ChangePort { uuid, name, bridge, external_ids, other_config, access } => {
                let port = self.port(name)?;
                if port.uuid != *uuid || port.bridge != *bridge {
                    return Err(Outcome::Conflict(format!("port {name} changed")));
                }
                port.external_ids.extend(external_ids.clone());
                port.other_config.extend(other_config.clone());
                if access.is_some() {
                    (port.tag, port.vlan_mode, port.trunks) = (*access, Some(ACCESS.into()), BTreeSet::new());
                }
            }
            OvsOp::ChangeInterface { uuid, name, guard, kind, options, external_ids, mac, mtu_request } => {
                let interface = self.interface(name)?;
                if interface.uuid != *uuid || !has(&interface.external_ids, guard) {
                    return Err(Outcome::Conflict(format!("interface {name} changed")));
                }
                if let Some(kind) = kind {
                    interface.kind = kind.into();
                }
                interface.options.extend(options.clone());
                interface.external_ids.extend(external_ids.clone());
                interface.mac = mac.or(interface.mac);
                let mac = interface.mac.filter(|_| interface.kind == "internal");
                if let (Some(mac), Some(link)) = (mac, self.kernel.links.get_mut(name)) {
                    Arc::make_mut(link).mac = Some(mac);
                }
                let interface = self.interface(name)?;
                interface.mtu_request = mtu_request.or(interface.mtu_request);
            }
            OvsOp::DeleteQos { uuid, marks } => {
                let used = self.ovs.ports.values().any(|port| port.qos == Some(*uuid));
                let held = self.ovs.qos.get(uuid).is_some_and(|qos| has(&qos.external_ids, marks));
                if used || !held {
                    return Err(Outcome::Conflict("QoS row changed".to_owned()));
                }
                self.ovs.qos.remove(uuid);
            }
            OvsOp::Mark { table, uuid, name, guard, external_ids } => {
                let ids = self.marked(*table, *uuid, name)?;
                if !has(ids, guard) {
                    return Err(Outcome::Conflict(format!("{name} changed")));
                }
                ids.extend(external_ids.clone());
            }
            OvsOp::Unmark { table, uuid, name, keys } => {
                self.marked(*table, *uuid, name)?.retain(|key, _| !keys.contains(key));
            }
        }
        Ok(())
    }

    /// The column that carries the marks of a row.
    fn marked(&mut self, table: MarkedTable, uuid: Uuid, name: &str) -> Result<&mut Pairs, Refusal> {
        let gone = || Outcome::Conflict(format!("{name} is gone"));
        Ok(match table {
            MarkedTable::Bridge => &mut self.bridge(name)?.external_ids,
            MarkedTable::Port => &mut self.port(name)?.external_ids,
            MarkedTable::Interface => &mut self.interface(name)?.external_ids,
            MarkedTable::Qos => &mut Arc::make_mut(self.ovs.qos.get_mut(&uuid).ok_or_else(gone)?).external_ids,
        })
    }

    /// Makes a bridge forward by its flows alone; that changes, they go.
    fn secure(&mut self, name: &str) -> Result<(), Refusal> {
        let bridge = self.bridge(name)?;
        bridge.other_config.extend(no_in_band());
        self.set_fail_mode(name, Some(SECURE));
        Ok(())
    }

    fn bridge(&mut self, name: &str) -> Result<&mut Bridge, Refusal> {
        let gone = || Outcome::Conflict(format!("no bridge {name}"));
        Ok(Arc::make_mut(self.ovs.bridges.get_mut(name).ok_or_else(gone)?))
    }

    fn port(&mut self, name: &str) -> Result<&mut Port, Refusal> {
        let gone = || Outcome::Conflict(format!("no port {name}"));
        Ok(Arc::make_mut(self.ovs.ports.get_mut(name).ok_or_else(gone)?))
    }

    fn interface(&mut self, name: &str) -> Result<&mut Interface, Refusal> {
        let gone = || Outcome::Conflict(format!("no interface {name}"));
        Ok(Arc::make_mut(self.ovs.interfaces.get_mut(name).ok_or_else(gone)?))
    }

    /// Somebody makes a bridge.
    pub fn add_bridge(&mut self, name: &str, datapath_type: &str, external_ids: StringMap) {
        let bridge = Bridge {
            uuid: self.uuid(),
            name: name.into(),
            datapath_type: datapath_type.into(),
            ports: BTreeSet::new(),
            external_ids: external_ids.into(),
            ..Bridge::default()
        };
        self.ovs.bridges.insert(name.into(), Arc::new(bridge));
        self.add_port(name, name, "internal", StringMap::new());
    }

    /// Somebody makes a port.
    pub fn add_port(&mut self, bridge: &str, name: &str, kind: &str, external_ids: StringMap) {
        let port = NewPort {
            bridge: bridge.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            interface_ids: external_ids,
            ..NewPort::default()
        };
        // A name that is taken is no news to whoever tries: the port that is there stays.
        let _ = self.insert_port(&port);
    }

    fn insert_port(&mut self, new: &NewPort) -> Result<(), Refusal> {
        if let Some(error) = self.refused.get(&new.name) {
            return Err(Outcome::Failed(error.clone()));
        }
        if self.ovs.ports.contains_key(new.name.as_str()) || self.ovs.interfaces.contains_key(new.name.as_str()) {
            return Err(Outcome::Conflict(format!("port {} exists", new.name)));
        }
        if !self.ovs.bridges.contains_key(new.bridge.as_str()) {
            return Err(Outcome::Untried);
        }
        let qos = new.qos.as_ref().map(|qos| {
            let row = Qos {
                uuid: self.uuid(),
                kind: qos.kind.as_str().into(),
                external_ids: qos.external_ids.clone().into(),
            };
            let uuid = row.uuid;
            self.ovs.qos.insert(uuid, Arc::new(row));
            uuid
        });
        let name = Text::from(&new.name);
        let port = Port {
            uuid: self.uuid(),
            name: name.clone(),
            bridge: new.bridge.as_str().into(),
            interfaces: vec![name.clone()],
            tag: new.tag,
            trunks: new.trunks.clone(),
            vlan_mode: new.vlan_mode.as_deref().map(Text::from),
            qos,
            external_ids: new.external_ids.clone().into(),
            other_config: new.other_config.clone().into(),
        };
        let interface = Interface {
            uuid: self.uuid(),
            name: name.clone(),
            kind: new.kind.as_str().into(),
            options: new.options.clone().into(),
            external_ids: new.interface_ids.clone().into(),
            mac: new.mac,
            mtu_request: new.mtu_request,
            ..Interface::default()
        };
        self.bridge(&new.bridge)?.ports.insert(name.clone());
        self.ovs.ports.insert(name.clone(), Arc::new(port));
        self.ovs.interfaces.insert(name, Arc::new(interface));
        Ok(())
    }

    /// Somebody deletes a port; its QoS row stays, as it does in the real database.
    pub fn delete_port(&mut self, name: &str) {
        if let Some(port) = self.ovs.ports.remove(name) {
            if self.ovs.interfaces.remove(name).is_some_and(|interface| interface.kind == "internal") {
                self.remove_link(name);
            }
            if let Ok(bridge) = self.bridge(&port.bridge) {
                bridge.ports.remove(name);
            }
        }
    }

    /// ovs-vswitchd's turn: every interface gets its `ofport` or its `error`.
    pub fn switch(&mut self) {
        self.answer_stations();
        if !self.ovs.vswitchd_alive {
            return;
        }
        let names: BTreeSet<Text> = self.ovs.interfaces.keys().cloned().collect();
        let numbers = self.ovs.interfaces.values().filter_map(|interface| interface.ofport);
        let mut last = numbers.max().unwrap_or(0).max(0);
        let unmade =
            |name: &Text| self.ovs.ports.get(name).is_some_and(|port| self.unmade.contains(port.bridge.as_str()));
        let made: Vec<Text> = names.iter().filter(|name| !unmade(name)).cloned().collect();
        for name in &made {
            let Some(interface) = self.ovs.interfaces.get(name) else { continue };
            // The netdev of a bridge's local port is nobody's business here.
            if interface.kind == "internal"
                && !self.ovs.bridges.contains_key(name)
                && !self.kernel.links.contains_key(name.as_str())
            {
                let (mac, mtu) = (interface.mac, interface.mtu_request);
                self.add_link(name, LinkKind::Other("openvswitch".to_owned()), mac);
                if let (Some(mtu), Some(link)) = (mtu, self.kernel.links.get_mut(name.as_str())) {
                    Arc::make_mut(link).mtu = mtu;
                }
            }
            let Some(interface) = self.ovs.interfaces.get(name) else { continue };
            let fault = match interface.kind.as_str() {
                "" if !self.kernel.links.contains_key(name.as_str()) => {
                    Some(format!("could not open network device {name} (No such device)"))
                }
                "patch" if !interface.options.get("peer").is_some_and(|peer| names.contains(peer)) => {
                    Some("No usable peer".to_owned())
                }
                kind if kind.starts_with("dpdk") && !self.dpdk => {
                    Some(format!("could not add network device {name} to ofproto (Unknown error)"))
                }
                _ => None,
            };
            let ofport = if fault.is_some() { -1 } else { interface.ofport.filter(|port| *port > 0).unwrap_or(0) };
            let ofport = if ofport == 0 { last + 1 } else { ofport };
            last = last.max(ofport);
            let ifindex = Some(self.kernel.links.get(name.as_str()).map_or(0, |link| link.index));
            if let Ok(interface) = self.interface(name) {
                (interface.ofport, interface.error, interface.ifindex) = (Some(ofport), fault.map(Text::from), ifindex);
            }
        }
    }
}

fn has(map: &Pairs, entries: &StringMap) -> bool {
    entries.iter().all(|(key, value)| map.get(key) == Some(value))
}
