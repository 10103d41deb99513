//! A case: records and a host in memory, what is planned for it round by round, and how that is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use vifd::backend::openflow::{FlowChange, FlowOp};
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::backend::{Attributed, Outcome};
use vifd::config::Config;
use vifd::model::{Desired, DeviceOwner, FileOwner, LinkKind, MacAddr, Vif, VifId};
use vifd::plan::{Clash, Holds, Inputs, Judgement, Memo, Orders, Settings, plan};
use vifd::record;

pub(crate) const A: &str = "dc065497-3c8d-4f44-8fb4-e1d33c16a536";
pub(crate) const B: &str = "0e5d7a5b-4d0a-4a1c-9a39-6f6c0b1f2f11";
pub(crate) const MAC: MacAddr = MacAddr([0x22, 0x52, 0x25, 0x62, 0xe2, 0xaa]);

pub(crate) fn settings() -> Settings {
    Settings {
        socket_dir: PathBuf::from("/run/vhost"),
        socket_owner: FileOwner { uid: 107, gid: 107, mode: 0o770, label: None },
        ..Config::default().settings().unwrap()
    }
}

/// A native record with what every VIF of these cases shares; `vif` adds and replaces.
pub(crate) fn record(id: &str, vif: &Value) -> Arc<Vif> {
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

pub(crate) fn ovs(extra: &Value) -> Value {
    let mut profile = json!({"type": "openvswitch", "interface_id": "6d2b1b5c-3b5e-4f7e-a0a5-8f1f2b0e9d77"});
    for (key, value) in extra.as_object().unwrap() {
        profile[key] = value.clone();
    }
    profile
}

pub(crate) fn port(extra: &Value) -> Value {
    json!({"type": "openvswitch", "vif_name": "tapdc065497-3c", "port_profile": ovs(extra)})
}

pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) settings: Settings,
    pub(crate) desired: Desired,
    pub(crate) orders: Orders,
    /// Empty for every plan where none is given: as after a restart.
    pub(crate) memo: Option<Memo>,
    pub(crate) text: String,
}

impl Case {
    pub(crate) fn new(vifs: impl IntoIterator<Item = Arc<Vif>>) -> Self {
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

    pub(crate) fn say(&mut self, line: &str) {
        let _ = writeln!(self.text, "# {line}");
    }

    /// Plans and applies until nothing is planned.
    pub(crate) fn converge(&mut self) -> &mut Self {
        assert!(self.rounds(15), "it does not converge:\n{}", self.text);
        self
    }

    /// The same for so many rounds; answers whether nothing is planned any more.
    pub(crate) fn rounds(&mut self, most: usize) -> bool {
        let now = Instant::now();
        let mut gone = BTreeSet::new();
        for round in 1..=most {
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
            // As the source does when it is told.
            self.desired.deleted.retain(|id| !plan.gone.contains(id));
            gone.extend(plan.gone.iter().copied());
            // As the reconciler does.
            if self.desired.synced {
                self.orders.stopped = plan.stopped_removals.iter().copied().collect();
            }
            if plan.links.is_empty() && plan.nics.is_empty() && plan.ovs.is_empty() && plan.flows.is_empty() {
                for (id, judgement) in &plan.judgements {
                    let plugged = if judgement.plugged { "plugged, " } else { "" };
                    let _ = writeln!(self.text, "  {id}: {plugged}{:?}", judgement.verdict);
                }
                for (nic, reason) in &plan.hindered {
                    let _ = writeln!(self.text, "  NIC {nic}: {reason}");
                }
                for id in &gone {
                    let _ = writeln!(self.text, "  {id}: gone");
                }
                if !plan.stopped_removals.is_empty() {
                    let _ = writeln!(self.text, "  removals stopped: {}", plan.stopped_removals.len());
                }
                return true;
            }
            let _ = writeln!(self.text, "  round {round}");
            let (links, ovs) = plan.batches(true);
            for op in &plan.nics {
                assert_eq!(self.world.apply_nic(&op.op), Outcome::Done, "{}", op.op);
                let _ = writeln!(self.text, "    nics: {}", op.op);
            }
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
        false
    }

    /// The rows and links that are not the bridge that was there from the start.
    pub(crate) fn show(&mut self) -> &mut Self {
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
            let _ = write!(
                self.text,
                "  link {} {:?} {:?} mtu {} {} alias {:?}",
                link.name,
                link.kind,
                link.mac,
                link.mtu,
                if link.up { "up" } else { "down" },
                link.alias
            );
            let named = |index: u32| self.world.kernel.links.values().find(move |link| link.index == index);
            let name = |index: u32| named(index).map_or("?", |link| &link.name);
            for (word, index) in [("in", link.master), ("on", link.lower)] {
                let _ = index.map(|index| write!(self.text, " {word} {}", name(index)));
            }
            if let Some(DeviceOwner { uid, gid, mode }) = link.device {
                let _ = write!(self.text, " device {uid}:{gid} {mode:04o}");
            }
            let _ = writeln!(self.text, "{}", if link.promiscuous { " promisc" } else { "" });
        }
        self
    }

    pub(crate) fn unplug(&mut self) -> &mut Self {
        self.say("unplug");
        self.desired.deleted = std::mem::take(&mut self.desired.vifs).keys().copied().collect();
        self.converge();
        self.show()
    }

    pub(crate) fn device(&mut self, name: &str) -> &mut Self {
        self.say(&format!("the hypervisor brings {name}"));
        self.world.add_link(name, LinkKind::Veth, None);
        self.world.switch();
        self
    }
}

/// Operations on switches: what is done in which table, how often, since what flows say is `pipeline`'s golden cases.
pub(crate) fn flow_words(ops: &[Attributed<FlowOp>]) -> Vec<String> {
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

/// Plug, then unplug.
pub(crate) fn whole_life(case: &mut Case) -> String {
    case.say("plug");
    case.converge().show().unplug();
    case.text.clone()
}

/// The judgement on a VIF in a single plan.
pub(crate) fn judged(case: &Case, id: &str) -> Judgement {
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

pub(crate) fn guest(id: &str, number: u8, active: bool) -> Arc<Vif> {
    record(
        id,
        &json!({
            "type": "openvswitch", "vif_name": format!("tap{number}"), "active": active,
            "address": format!("52:54:00:00:00:{number:02x}"),
            "port_profile": ovs(&json!({"create_port": true, "create_tap": true, "interface_id": id})),
        }),
    )
}
