//! A host in memory and everything that can happen to it: the stage of the properties. What has to hold is in `main` and
//! `memory`; that a memory changes no plan is asked of every plan made here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use devlink::port_profile::Response;
use devlink::{Device, FunctionAddress};
use flows::{Flow, FlowId, Group};
use ovsdb::pairs::Pairs;
use proptest::prelude::*;
use uuid::Uuid;
use vifd::backend::Outcome;
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::config::Config;
use vifd::model::{
    Desired, DevType, DeviceAccess, DirectMode, FileOwner, Instance, Link, LinkKind, MacAddr, Network, Observed,
    OpenVSwitchProfile, Parent, Policy, PortProfile, ProfileKind, Rate, StationProfile, VhostUserMode, View, Vif,
    VifId, VifKind, cut_name,
};
use vifd::plan::pipeline::OwnerTag;
use vifd::plan::{
    Clash, Holds, Inputs, ManagedBridge, MaxRemovals, Memo, NicSettings, Orders, Owner, Plan, Settings, Uplink, plan,
};

pub(super) const SOCKETS: &str = "/run/vhost";

/// What `eth0` has, until a bridge takes it over.
const ADDRESS: &str = "192.0.2.7/24";
const FLAT_BRIDGE: &str = "brq-flat";
const VLAN_BRIDGE: &str = "brq-vlan";

/// So many cases of a property, or as many as `PROPTEST_CASES` says. Of one that fails proptest prints the line that
/// replays it, and keeps it in `proptest-regressions`.
pub(super) fn cases(cases: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if asked { config.cases } else { cases }, ..config }
}

pub(super) fn settings() -> Settings {
    Settings {
        max_removals: MaxRemovals::Percent(100),
        socket_dir: PathBuf::from(SOCKETS),
        socket_owner: FileOwner { uid: 107, gid: 107, mode: 0o770, label: None },
        nics: BTreeMap::from([
            (nics()[0].clone(), NicSettings { switchdev: true, vfs: Some(12), ..NicSettings::default() }),
            (nics()[1].clone(), NicSettings { vfs: Some(12), ..NicSettings::default() }),
        ]),
        device_access: DeviceAccess { uid: Some(107), gid: None, mode: Some(0o660) },
        ..Config::default().settings().unwrap()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Shape {
    Generic,
    Port {
        tap: bool,
        trunk: bool,
        multiqueue: bool,
    },
    Tended,
    Vhost {
        server: bool,
    },
    Sub {
        of: u8,
    },
    /// A Linux bridge of its own and a veth pair.
    Hybrid,
    /// A place in the Linux bridge that all of these share, on an interface or a VLAN of it.
    Bridge {
        vlan: bool,
    },
    Fast(Fast),
    Direct {
        vlan: bool,
    },
    /// A macvtap whose guest the switch is asked for: a VSI each on one link.
    Station,
    /// A function of a NIC.
    Function(Function),
}

/// What VIFs do with functions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    Representor { named: bool },
    Dpdk,
    Settings { vfio: bool },
    Macvtap { station: bool },
}

/// The profiles of a fast path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fast {
    Hybrid,
    Bridge,
    Tap,
}

pub(super) fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Generic),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(tap, trunk, multiqueue)| Shape::Port {
            tap,
            trunk,
            multiqueue
        }),
        Just(Shape::Tended),
        any::<bool>().prop_map(|server| Shape::Vhost { server }),
        (0u8..12).prop_map(|of| Shape::Sub { of }),
        Just(Shape::Hybrid),
        any::<bool>().prop_map(|vlan| Shape::Bridge { vlan }),
        prop_oneof![Just(Fast::Hybrid), Just(Fast::Bridge), Just(Fast::Tap)].prop_map(Shape::Fast),
        any::<bool>().prop_map(|vlan| Shape::Direct { vlan }),
        Just(Shape::Station),
        any::<bool>().prop_map(|named| Shape::Function(Function::Representor { named })),
        Just(Shape::Function(Function::Dpdk)),
        any::<bool>().prop_map(|vfio| Shape::Function(Function::Settings { vfio })),
        any::<bool>().prop_map(|station| Shape::Function(Function::Macvtap { station })),
    ]
}

/// The NICs of the host: one that is to be in switchdev mode, one that stays as it is.
pub(super) fn nics() -> [Device; 2] {
    ["0000:03:00.0", "0000:04:00.0"].map(|dev| Device { bus: "pci".to_owned(), dev: dev.to_owned() })
}

fn id(number: u8) -> VifId {
    VifId(Uuid::from_u128(0xdc06_5497_3c8d_4f44_8fb4_e1d3_3c16_a500 + u128::from(number) * 7919 * (1 << 100)))
}

pub(super) fn vif(number: u8, shape: &Shape, mtu: u32, active: bool, preserve: bool) -> Vif {
    let id = id(number);
    let vif_name = format!("tap{number}");
    let profile = OpenVSwitchProfile { interface_id: Some(id.to_string()), ..OpenVSwitchProfile::default() };
    let plain = |ovs| Some(ProfileKind::OpenVSwitch(ovs));
    let vhost = |vif_name, mode| VifKind::VHostUser { vif_name, path: format!("{SOCKETS}/{number}/sock"), mode };
    let (kind, profile, bridge) = match shape {
        Shape::Generic => (VifKind::Generic { vif_name }, None, "br-int"),
        Shape::Port { tap, trunk, multiqueue } => (
            VifKind::OpenVSwitch { vif_name, bridge_name: None },
            plain(OpenVSwitchProfile { create_port: true, create_tap: *tap, multiqueue: *multiqueue, ..profile }),
            if *trunk { "tbr-1" } else { "br-int" },
        ),
        Shape::Tended | Shape::Sub { .. } => {
            (VifKind::OpenVSwitch { vif_name, bridge_name: None }, plain(profile), "br-int")
        }
        Shape::Vhost { server } => {
            let mode = if *server { VhostUserMode::Server } else { VhostUserMode::Client };
            (vhost(None, mode), plain(profile), "br-dpdk")
        }
        Shape::Hybrid => {
            let bridge_name = Some(format!("qbr{number}"));
            (VifKind::Bridge { vif_name: Some(vif_name), bridge_name }, plain(profile), "br-int")
        }
        Shape::Bridge { vlan } => {
            let bridge_name = Some(if *vlan { VLAN_BRIDGE } else { FLAT_BRIDGE }.to_owned());
            (VifKind::Bridge { vif_name: Some(vif_name), bridge_name }, None, "br-int")
        }
        Shape::Fast(fast) => {
            let kind = vhost(Some(vif_name), VhostUserMode::Server);
            let profile = match fast {
                Fast::Hybrid => {
                    let bridge_name = Some(format!("qbr{number}"));
                    ProfileKind::FpOpenVSwitch { ovs: profile, bridge_name, hybrid_plug: true }
                }
                Fast::Bridge => ProfileKind::FpBridge { bridge_name: "brq-fp".into() },
                Fast::Tap => ProfileKind::FpTap { mac_address: Some(MacAddr([0xee; 6])) },
            };
            (kind, Some(profile), "br-int")
        }
        Shape::Direct { vlan } => {
            let vlan_name = vlan.then(|| "vlan9".to_owned());
            let mode = Some(DirectMode::Bridge);
            (VifKind::Direct { vif_name: Some(vif_name), dev_address: None, mode, vlan_name }, None, "br-int")
        }
        Shape::Station => {
            let mode = Some(DirectMode::Vepa);
            let profile = ProfileKind::Qbg { manager_id: 1, type_id: 2, type_id_version: 3, instance_id: None };
            (
                VifKind::Direct { vif_name: Some(vif_name), dev_address: None, mode, vlan_name: None },
                Some(profile),
                "br-int",
            )
        }
        Shape::Function(function) => {
            // Of the NIC in switchdev mode, or of the one in legacy mode.
            let nic = if matches!(function, Function::Representor { .. } | Function::Dpdk) { 0 } else { 1 };
            let address = FunctionAddress::Pci(World::function_address(&nics()[nic], u16::from(number % 12)).unwrap());
            let host = |dev_type| VifKind::HostDevice { dev_type, dev_address: address.clone() };
            match *function {
                Function::Representor { named } => {
                    let representor_name = named.then_some(vif_name);
                    let kind =
                        ProfileKind::OvsRepresentor { ovs: profile, representor_name, representor_address: None };
                    (host(None), Some(kind), "br-int")
                }
                Function::Dpdk => {
                    let datapath_type = Some("netdev".to_owned());
                    (host(None), plain(OpenVSwitchProfile { datapath_type, ..profile }), "br-int")
                }
                Function::Settings { vfio } => (host(vfio.then_some(DevType::Generic)), None, "br-int"),
                Function::Macvtap { station } => {
                    let mode = Some(DirectMode::Bridge);
                    let kind = VifKind::Direct {
                        vif_name: Some(vif_name),
                        dev_address: Some(address.clone()),
                        mode,
                        vlan_name: None,
                    };
                    (kind, station.then(|| ProfileKind::Qbh { profile_id: "gold".into() }), "br-int")
                }
            }
        }
    };
    // Whoever shares a bridge or a VLAN wants it as the others do, or has a clash.
    let shares = matches!(shape, Shape::Bridge { .. } | Shape::Direct { .. } | Shape::Station);
    let vlan = match shape {
        Shape::Bridge { .. } => 5,
        Shape::Direct { .. } | Shape::Station => 9,
        _ => 10 + u16::from(number % 2),
    };
    Vif {
        id,
        generation: 1,
        address: Some(MacAddr([0x52, 0x54, 0, 0, 0, number])),
        active,
        // Of a sub-port there is nothing on the host to preserve.
        preserve_on_delete: preserve && !matches!(shape, Shape::Sub { .. }),
        has_traffic_filtering: false,
        plugin: Some("ovs".into()),
        kind,
        profile: profile.map(|kind| PortProfile { kind, datapath_offload: None }),
        network: Some(Network {
            id: Some(Uuid::from_u128(1 + u128::from(number % 2))),
            bridge: Some(bridge.into()),
            label: None,
            mtu: Some(if shares { 1500 } else { mtu }),
            vlan: Some(vlan),
            bridge_interface: shares.then(|| if vlan == 5 { "eth0" } else { "eth1" }.to_owned()),
            multi_host: false,
            should_provide_bridge: shares,
            should_provide_vlan: matches!(shape, Shape::Bridge { vlan: true }),
            subnets: Vec::new(),
        }),
        instance: Some(Instance { uuid: "i".into(), name: None, project_id: None }),
        policy: Policy {
            rate: if number.is_multiple_of(3) {
                Rate { ingress_kbps: 1000, egress_kbps: 2000 }
            } else {
                Rate::default()
            },
            rules: (number % 4 == 1).then(Vec::new),
            ..Policy::default()
        },
        parent: match shape {
            Shape::Sub { of } if *of != number => Some(Parent { vif: self::id(*of), vlan: 100 + u16::from(number) }),
            _ => None,
        },
    }
}

/// What else goes on on the host.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A port of nobody's, maybe with a wanted name.
    ForeignPort(u8, u8),
    /// A link of nobody's, maybe with a wanted name.
    ForeignLink(u8),
    /// The hypervisor brings its device and, where it is its job, the port.
    Hypervisor(u8),
    /// Somebody deletes a port of any kind.
    DeletePort(u8),
    /// Somebody deletes a link.
    DeleteLink(u8),
    /// Somebody gives a link another name.
    RenameLink(u8),
    /// Somebody takes a link out of its bridge.
    FreeLink(u8),
    /// A crash left a link before it had its mark, maybe with a wanted name.
    HalfMade(u8),
    /// Somebody changes a value of ours.
    Drift(u8),
    /// Somebody takes the mark off the interface.
    Unmark(u8),
    /// Another agent's port.
    OtherAgent(u8),
    /// ovs-vswitchd has its turn.
    Switch,
    /// ovs-vswitchd goes or comes.
    Vswitchd(bool),
    /// Somebody deletes a flow, ours or not.
    DeleteFlow(u8),
    /// The switches beyond the cables forget whom they let pass; or lldpad goes, or comes.
    Forget(Option<bool>),
    /// Somebody puts a flow of his own where one of ours is, or where none is.
    ForeignFlow(u8, bool),
    /// Somebody deletes a group and all flows that use it, or changes what it does.
    Group(u8),
    /// Somebody changes the `fail_mode` of our bridge.
    FailMode,
    /// Saved flows are being put back, or have been.
    Restoring(bool),
    /// One plan, of whose operations so many are done before we die: links, and then rows, flows or both.
    Round(u8, u8),
    /// A plan made while a view is being synchronised: the kernel's, or the database's.
    Syncing(bool),
    /// A plan made from the world as it is now, carried out after what comes next.
    Stale(Box<Event>),
    /// The set of wanted VIFs changes: these stay.
    Want(u16),
    /// Somebody has a word on a VIF.
    Word(u8, Word),
}

/// What is said beside the records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// Its record clashes with another, or does so no more.
    Clash,
    /// It was deleted by name, or that is forgotten.
    Deleted,
    /// It is paused, or resumed.
    Paused,
    /// Its database operations are refused, or done.
    Refused(bool),
    /// A batch for it is under way, or back.
    InFlight,
    /// Its record came again, another one.
    Record,
    /// Its port is marked by a later release.
    Later,
    /// Ports get a bridge of their own from now on, or no more.
    PerPortBridge,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<bool>().prop_map(Event::Syncing),
        simple_event().prop_map(|event| Event::Stale(Box::new(event))),
        simple_event(),
    ]
}

/// Everything that can happen, also what keeps a host from converging.
pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let word = prop_oneof![
        Just(Word::Clash),
        Just(Word::Deleted),
        Just(Word::Paused),
        any::<bool>().prop_map(Word::Refused),
        Just(Word::InFlight),
        Just(Word::Record),
        Just(Word::Later),
        Just(Word::PerPortBridge),
    ];
    prop_oneof![2 => event(), 1 => (0u8..12, word).prop_map(|(number, word)| Event::Word(number, word))]
}

fn simple_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u8..12, 0u8..3).prop_map(|(name, bridge)| Event::ForeignPort(name, bridge)),
        (0u8..12).prop_map(Event::ForeignLink),
        (0u8..12).prop_map(Event::Hypervisor),
        (0u8..12).prop_map(Event::DeletePort),
        (0u8..24).prop_map(Event::DeleteLink),
        (0u8..24).prop_map(Event::RenameLink),
        (0u8..24).prop_map(Event::FreeLink),
        (0u8..12).prop_map(Event::HalfMade),
        (0u8..12).prop_map(Event::Drift),
        (0u8..12).prop_map(Event::Unmark),
        (0u8..12).prop_map(Event::OtherAgent),
        Just(Event::Switch),
        any::<bool>().prop_map(Event::Vswitchd),
        any::<u8>().prop_map(Event::DeleteFlow),
        (any::<u8>(), any::<bool>()).prop_map(|(number, ours)| Event::ForeignFlow(number, ours)),
        (0u8..4).prop_map(Event::Group),
        Just(Event::FailMode),
        any::<Option<bool>>().prop_map(Event::Forget),
        any::<bool>().prop_map(Event::Restoring),
        (0u8..20, 0u8..4).prop_map(|(links, rest)| Event::Round(links, rest)),
        any::<u16>().prop_map(Event::Want),
    ]
}

pub(super) struct Host {
    pub(super) world: World,
    pub(super) settings: Settings,
    pub(super) all: Vec<Arc<Vif>>,
    pub(super) desired: Desired,
    pub(super) memo: Memo,
    pub(super) holds: Holds,
    pub(super) clashes: BTreeMap<VifId, Clash>,
    pub(super) orders: Orders,
    pub(super) in_flight: BTreeSet<VifId>,
    pub(super) now: Instant,
}

impl Host {
    pub(super) fn new(vifs: Vec<Vif>, settings: Settings) -> Self {
        let mut world = World::new(true);
        world.add_bridge("br-foreign", "netdev", StringMap::new());
        world.add_socket_dir(&PathBuf::from(SOCKETS));
        for name in ["eth0", "eth1"] {
            world.add_link(name, LinkKind::Other(String::new()), None);
            Arc::make_mut(world.kernel.links.get_mut(name).unwrap()).up = true;
        }
        if let Some(link) = world.kernel.links.get_mut("eth0") {
            Arc::make_mut(link).addresses = vec![ADDRESS.parse().unwrap()];
        }
        for nic in nics() {
            world.add_nic(nic.dev.parse().unwrap(), "ice", 16);
        }
        world.managed = settings.bridges.keys().cloned().collect();
        world.owner = OwnerTag::of(&settings.agent).0;
        let all: Vec<Arc<Vif>> = vifs.into_iter().map(Arc::new).collect();
        let vifs = all.iter().map(|vif| (vif.id, Arc::clone(vif))).collect();
        let desired = Desired { synced: true, vifs, ..Desired::default() };
        Host {
            world,
            settings,
            all,
            desired,
            memo: Memo::default(),
            holds: Holds::default(),
            clashes: BTreeMap::new(),
            orders: Orders::default(),
            in_flight: BTreeSet::new(),
            now: Instant::now(),
        }
    }

    pub(super) fn plan(&mut self) -> Plan {
        let observed = self.world.observed();
        self.plan_from(&observed)
    }

    pub(super) fn plan_from(&mut self, observed: &Observed) -> Plan {
        let inputs = Inputs {
            desired: &self.desired,
            clashes: &self.clashes,
            observed,
            holds: &self.holds,
            orders: &self.orders,
            in_flight: &self.in_flight,
            settings: &self.settings,
        };
        let mut forgetful = self.memo.forgetful();
        let memoised = plan(inputs, &mut self.memo, self.now);
        let fresh = plan(inputs, &mut forgetful, self.now);
        // All of it, by name: what a plan has more one day is compared as well.
        let Plan {
            links,
            ovs,
            flows,
            judgements,
            gone,
            stopped_removals,
            newer_marks,
            wake_at,
            unmanaged,
            nics,
            hindered,
        } = &memoised;
        assert_eq!(*links, fresh.links, "a memory must not change the plan");
        assert_eq!(*ovs, fresh.ovs, "a memory must not change the plan");
        if *flows != fresh.flows {
            let words = |plan: &Plan| plan.flows.iter().map(|op| op.op.to_string()).collect::<Vec<_>>();
            panic!("a memory must not change the plan: {:#?} instead of {:#?}", words(&memoised), words(&fresh));
        }
        assert_eq!(*judgements, fresh.judgements, "a memory must not change the verdicts");
        assert_eq!(*gone, fresh.gone);
        assert_eq!(*stopped_removals, fresh.stopped_removals);
        assert_eq!(*newer_marks, fresh.newer_marks);
        assert_eq!(*wake_at, fresh.wake_at);
        assert_eq!(*unmanaged, fresh.unmanaged);
        assert_eq!(*nics, fresh.nics, "a memory must not change the plan");
        assert_eq!(*hindered, fresh.hindered);
        memoised
    }

    /// Does the first `links` link operations, and the transaction if `ovs`, each checked for what it touches.
    pub(super) fn round(&mut self, links: usize, ovs: bool, flows: bool) -> usize {
        let plan = self.plan();
        let before = self.world.clone();
        let (link_batch, ovs_batch) = plan.batches(true);
        for op in link_batch.iter().take(links) {
            let outcome = self.world.apply_link(&op.op);
            assert!(matches!(outcome, Outcome::Done), "illegal when sent: {} → {outcome:?}", op.op);
        }
        for op in plan.nics.iter().take(links) {
            let outcome = self.world.apply_nic(&op.op);
            // A representor may have got its name by the batch before.
            let legal = matches!(outcome, Outcome::Done | Outcome::Conflict(_));
            assert!(legal, "illegal when sent: {} → {outcome:?}", op.op);
        }
        if ovs && !ovs_batch.is_empty() {
            // What the first batch did may have made the second's guards fail; it must not make it illegal.
            let outcomes = self.world.apply_ovs(&ovs_batch);
            let told: Vec<_> =
                ovs_batch.iter().zip(&outcomes).map(|(op, outcome)| format!("{} → {outcome:?}", op.op)).collect();
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "illegal when sent: {told:#?}");
        }
        if flows {
            for (op, outcome) in plan.flows.iter().zip(self.world.apply_flows(&plan.flows)) {
                // A bridge of the same plan that has gone meanwhile is none; everything else is legal.
                let there = self.world.ovs.bridges.contains_key(op.op.bridge.as_str()) && self.world.ovs.vswitchd_alive;
                assert!(!there || outcome == Outcome::Done, "illegal when sent: {} → {outcome:?}", op.op);
            }
        }
        self.assert_foreign_untouched(&before);
        plan.links.len() + plan.nics.len() + plan.ovs.len() + plan.flows.len()
    }

    /// Carries out a plan that may be out of date: its guards may fail, and nothing foreign may suffer.
    fn carry_out(&mut self, plan: &Plan) {
        let before = self.world.clone();
        let (links, ovs) = plan.batches(true);
        for op in &links {
            self.world.apply_link(&op.op);
        }
        for op in &plan.nics {
            self.world.apply_nic(&op.op);
        }
        self.world.apply_ovs(&ovs);
        self.world.apply_flows(&plan.flows);
        self.assert_foreign_untouched(&before);
    }

    /// Rounds until nothing is planned. The bound is on the longest chain of prerequisites, not on the number
    /// of VIFs: flows gone, port gone, tap gone, tap made, port made, its flows, those that VIFs share, bridge gone.
    pub(super) fn converge(&mut self) -> Plan {
        // Flows wait for what ovs-vswitchd makes of ports.
        self.world.switch();
        for _ in 0..16 {
            let planned = self.round(usize::MAX, true, true);
            self.world.switch();
            if planned == 0 {
                return self.plan();
            }
        }
        let plan = self.plan();
        panic!("not converged: {:#?} {:#?} {:#?} {:#?}", plan.links, plan.nics, plan.ovs, plan.flows);
    }

    fn assert_foreign_untouched(&self, before: &World) {
        self.assert_addressed();
        for (bridge, view) in before.flows().iter() {
            let now = self.world.flows();
            let Some((was, is)) = view.ready().zip(now.get(bridge).and_then(|view| view.ready())) else { continue };
            // All of them go when fail_mode is set.
            let secured =
                before.ovs.bridges[bridge.as_str()].fail_mode != self.world.ovs.bridges[bridge.as_str()].fail_mode;
            assert!(secured || was.foreign == is.foreign, "a flow of somebody else changed");
        }
        let (was, is) = (&before.ovs, &self.world.ovs);
        for (name, bridge) in &was.bridges {
            if matches!(self.settings.owner(&bridge.external_ids), Owner::Nobody | Owner::Other(_) | Owner::Later(_)) {
                let after = is.bridges.get(name).expect("a foreign bridge is gone");
                let adopted = self.settings.adopt
                    && matches!(self.settings.owner(&bridge.external_ids), Owner::Nobody)
                    && (name.starts_with("tbr-") || name.starts_with("pb"));
                let kept = bridge.external_ids.iter().all(|(key, value)| after.external_ids.get(key) == Some(value));
                assert!(bridge.external_ids == after.external_ids || (adopted && kept), "bridge {name} changed");
                assert_eq!(bridge.datapath_type, after.datapath_type);
            }
        }
        for (name, port) in &was.ports {
            let interface = &was.interfaces[name];
            let marked = |ids: &Pairs| matches!(self.settings.owner(ids), Owner::Us { .. });
            let local = *name == port.bridge && marked(&was.bridges[name].external_ids);
            if local || marked(&port.external_ids) || marked(&interface.external_ids) {
                continue;
            }
            let after = is.ports.get(name).expect("a foreign port is gone");
            let after_interface = &is.interfaces[name];
            assert_eq!(port.bridge, after.bridge);
            // By any record: the plan may be older than the set that is wanted now.
            let tended = self.all.iter().any(|vif| {
                matches!(&vif.kind, VifKind::OpenVSwitch { vif_name, .. } if vif_name == name)
                    && interface.external_ids.get("iface-id") == Some(&vif.id.to_string())
            });
            let adopted = self.settings.adopt && marked(&after_interface.external_ids);
            if tended || adopted {
                let lost = |was: &Pairs, is: &Pairs| was.iter().any(|(key, _)| !is.contains_key(key));
                assert!(!lost(&interface.external_ids, &after_interface.external_ids), "keys of {name} are gone");
                let (kind, options) = (&interface.kind, &interface.options);
                assert_eq!((kind, options), (&after_interface.kind, &after_interface.options));
            } else {
                assert_eq!((port, interface), (after, after_interface), "foreign port {name} changed");
            }
        }
        for (name, link) in &before.kernel.links {
            let half_made = link.group == self.settings.nursery() && link.alias.is_none();
            // Of an internal port it is the row that is ours.
            // What NICs make, for VIFs that have functions.
            let is_wired = ["eth0", "eth1", "p0", "p1"].contains(&name.as_str());
            let of_a_nic = link.kind == LinkKind::Other(String::new()) && !is_wired;
            let of_a_row = was.interfaces.get(name.as_str()).is_some_and(|interface| interface.kind == "internal");
            if !half_made
                && !of_a_row
                && !of_a_nic
                && !matches!(self.settings.link_owner(link.alias.as_deref()), Owner::Us { .. })
            {
                let after = self.world.kernel.links.get(name).expect("a foreign link is gone");
                let mut expected = link.as_ref().clone();
                // What vifd sets on the hypervisor's devices is the MTU, and the bridge that they are in.
                expected.mtu = after.mtu;
                if link.master.is_none() || name == "eth0" {
                    expected.master = after.master;
                }
                // A bridge of ours that goes lets go of the guest's device in it.
                let is_there = |index: u32| self.world.kernel.links.values().any(|other| other.index == index);
                if link.master.is_some_and(|master| !is_there(master)) {
                    expected.master = None;
                }
                // An interface that a bridge takes in goes up, and the bridge has its addresses.
                if name == "eth0" || link.kind == (LinkKind::Other("openvswitch".to_owned())) {
                    (expected.addresses, expected.up) = (after.addresses.clone(), after.up);
                }
                if self.settings.adopt && matches!(link.kind, LinkKind::Tap { .. }) {
                    (expected.alias, expected.up) = (after.alias.clone(), after.up);
                }
                assert_eq!(&expected, after.as_ref(), "foreign link {name} changed");
            }
        }
    }

    pub(super) fn happen(&mut self, event: &Event) {
        let world = &mut self.world;
        match event {
            Event::ForeignPort(number, bridge) => {
                let bridge = ["br-foreign", "br-int", "tbr-1"][usize::from(*bridge)];
                if world.ovs.bridges.contains_key(bridge) {
                    world.add_port(bridge, &format!("tap{number}"), "", StringMap::from([("who".into(), "me".into())]));
                }
            }
            Event::ForeignLink(number) => {
                let name = format!("tap{number}");
                if !world.kernel.links.contains_key(&name) {
                    world.add_link(&name, LinkKind::Other("dummy".into()), None);
                }
            }
            Event::Hypervisor(number) => {
                let Some(vif) = self.all.get(usize::from(*number)) else { return };
                if let VifKind::Bridge { vif_name: Some(vif_name), .. } = &vif.kind
                    && !world.kernel.links.contains_key(vif_name)
                {
                    world.add_link(vif_name, LinkKind::Tap { multi_queue: false, persistent: false }, None);
                    Arc::make_mut(world.kernel.links.get_mut(vif_name).unwrap()).up = number % 2 == 0;
                }
                let VifKind::OpenVSwitch { vif_name, .. } = &vif.kind else { return };
                if !world.kernel.links.contains_key(vif_name) {
                    world.add_link(vif_name, LinkKind::Veth, None);
                }
                if world.ovs.bridges.contains_key("br-int") {
                    let ids =
                        StringMap::from([("iface-id".into(), vif.id.to_string()), ("vm-name".into(), "x".into())]);
                    world.add_port("br-int", vif_name, "", ids);
                }
            }
            Event::DeletePort(number) => {
                if let Some(name) = world.ovs.ports.keys().nth(usize::from(*number)).cloned()
                    && !world.ovs.bridges.contains_key(&name)
                {
                    world.delete_port(&name);
                }
            }
            Event::DeleteLink(number) => {
                if let Some(name) = self.link(*number) {
                    self.world.remove_link(&name);
                }
            }
            Event::RenameLink(number) => {
                let to = format!("mine{number}");
                if let Some(name) = self.link(*number).filter(|_| !self.world.kernel.links.contains_key(&to)) {
                    self.world.rename_link(&name, &to);
                }
            }
            Event::FreeLink(number) => {
                if let Some(name) = self.link(*number)
                    && let Some(link) = self.world.kernel.links.get_mut(&name)
                {
                    Arc::make_mut(link).master = None;
                }
            }
            Event::HalfMade(number) => {
                let name = match number % 3 {
                    0 => format!("tap{number}"),
                    1 => format!("qbr{number}"),
                    _ => cut_name("qvb", id(*number)),
                };
                if !world.kernel.links.contains_key(&name) {
                    world.add_link(&name, LinkKind::Veth, None);
                    let nursery = self.settings.nursery();
                    Arc::make_mut(world.kernel.links.get_mut(&name).unwrap()).group = nursery;
                }
            }
            Event::Drift(number) => {
                if let Some(interface) = world.ovs.interfaces.values_mut().nth(usize::from(*number)) {
                    let interface = Arc::make_mut(interface);
                    if interface.external_ids.contains_key("vifd-owner") {
                        interface.external_ids.insert("attached-mac", "00:00:00:00:00:01");
                        interface.options.insert("vhost-server-path", "/nowhere");
                    }
                }
                if let Some(link) = world.kernel.links.values_mut().nth(usize::from(*number)) {
                    let link = Arc::make_mut(link);
                    (link.mtu, link.up) = (1280, !link.up);
                    if let Some(device) = &mut link.device {
                        device.uid = 0;
                    }
                }
            }
            Event::Unmark(number) => {
                if let Some(interface) = world.ovs.interfaces.values_mut().nth(usize::from(*number)) {
                    Arc::make_mut(interface).external_ids.retain(|key, _| !key.starts_with("vifd-"));
                }
            }
            Event::OtherAgent(number) => {
                if world.ovs.bridges.contains_key("br-int") {
                    let ids = StringMap::from([("vifd-owner".into(), "other".into())]);
                    world.add_port("br-int", &format!("tap{number}"), "", ids);
                }
            }
            Event::Switch => world.switch(),
            Event::Vswitchd(alive) => {
                world.ovs.vswitchd_alive = *alive;
                if !alive {
                    world.restart_switches();
                }
            }
            Event::Round(links, rest) => {
                self.round(usize::from(*links), rest & 1 != 0, rest & 2 != 0);
            }
            Event::DeleteFlow(number) => {
                if let Some(flow) = flow_on_managed(world, *number) {
                    world.delete_flow(MANAGED, &FlowId::of(&flow));
                }
            }
            Event::ForeignFlow(number, ours) => {
                let other = format!("table=40,priority=3,tcp,tp_src={number} actions=drop").parse().unwrap();
                let there = flow_on_managed(world, *number).filter(|_| *ours);
                if world.ovs.bridges.contains_key(MANAGED) {
                    world.add_flow(MANAGED, Flow { cookie: 7, ..there.unwrap_or(other) });
                }
            }
            Event::Group(number) => {
                let state = world.flows().get(MANAGED).and_then(|view| view.ready().cloned());
                let group = state.and_then(|state| state.groups.keys().nth(usize::from(number / 2)).copied());
                if let Some(id) = group {
                    let nothing: Group = format!("group_id={id},type=all").parse().unwrap();
                    if number % 2 == 0 { world.add_group(MANAGED, nothing) } else { world.delete_group(MANAGED, id) }
                }
            }
            Event::FailMode => world.set_fail_mode(MANAGED, None),
            Event::Forget(None) => world.stations.clear(),
            Event::Forget(Some(runs)) => {
                world.switch_answers = runs.then_some(Response::VdpSuccess);
                if !runs {
                    // lldpad takes with it what it knows, however soon it is there again.
                    world.stations.retain(|of, _| matches!(of.profile, StationProfile::Qbh { .. }));
                }
            }
            Event::Restoring(restoring) => world.ovs.restoring = *restoring,
            Event::Syncing(kernel) => {
                let mut observed = self.world.observed();
                if *kernel {
                    observed.links = View::Syncing;
                } else {
                    observed.ovs = View::Syncing;
                }
                let plan = self.plan_from(&observed);
                self.carry_out(&plan);
            }
            Event::Stale(event) => {
                let plan = self.plan();
                self.happen(event);
                self.carry_out(&plan);
            }
            Event::Want(bits) => {
                let wanted = self.all.iter().enumerate().filter(|(place, _)| bits & (1 << place) != 0);
                self.desired.vifs = wanted.map(|(_, vif)| (vif.id, Arc::clone(vif))).collect();
            }
            Event::Word(number, word) => self.say(*number, *word),
        }
    }

    /// A link that somebody does something to. What becomes of an address whose interface goes is not vifd's to mend.
    fn link(&self, number: u8) -> Option<String> {
        let (name, link) = self.world.kernel.links.iter().nth(usize::from(number))?;
        (name != "eth0" && link.addresses.is_empty()).then(|| name.clone())
    }

    /// The address that was there from the start is on its interface or on the bridge that took it over.
    fn assert_addressed(&self) {
        let has = |link: &Link| link.addresses.contains(&ADDRESS.parse().unwrap());
        assert!(self.world.kernel.links.values().any(|link| has(link)), "an address was lost");
    }

    fn say(&mut self, number: u8, word: Word) {
        fn toggle(set: &mut BTreeSet<VifId>, id: VifId) {
            if !set.remove(&id) {
                set.insert(id);
            }
        }
        if matches!(word, Word::PerPortBridge) {
            self.settings.per_port_bridge = !self.settings.per_port_bridge;
            return;
        }
        let Some(vif) = self.all.get(usize::from(number)) else { return };
        let id = vif.id;
        match word {
            Word::Clash => {
                let clash = Clash { field: "vif.address".into(), reason: "somebody has it".into() };
                if self.clashes.remove(&id).is_none() {
                    self.clashes.insert(id, clash);
                }
            }
            Word::Deleted => toggle(&mut self.desired.deleted, id),
            Word::Paused => toggle(&mut self.orders.paused_vifs, id),
            Word::InFlight => toggle(&mut self.in_flight, id),
            Word::Refused(true) => self.holds.refused(Some(id), "ovsdb", "no".into(), self.now),
            Word::Refused(false) => self.holds.succeeded(Some(id), "ovsdb"),
            Word::Record => {
                let vif = Arc::new(Vif { generation: vif.generation + 1, active: !vif.active, ..Vif::clone(vif) });
                self.all[usize::from(number)] = Arc::clone(&vif);
                if self.desired.vifs.contains_key(&id) {
                    self.desired.vifs.insert(id, vif);
                }
            }
            Word::Later => {
                if let Some(interface) = self.world.ovs.interfaces.get_mut(format!("tap{number}").as_str()) {
                    Arc::make_mut(interface).external_ids.insert("vifd-format", "2");
                }
            }
            Word::PerPortBridge => {}
        }
    }
}

/// The bridge that is managed where one is.
pub(super) const MANAGED: &str = "br-int";

fn flow_on_managed(world: &World, number: u8) -> Option<Flow> {
    let flows = world.flows();
    let state = flows.get(MANAGED)?.ready()?;
    let all: Vec<_> = state.owned.values().chain(state.foreign.values()).flat_map(|set| set.values()).collect();
    Some(all.get(usize::from(number) % all.len().max(1))?.as_ref().clone())
}

pub(super) fn managed(is: bool, uplink: bool) -> BTreeMap<String, ManagedBridge> {
    let uplinks = if uplink { vec![Uplink { port: "tap11".into(), networks: vec!["*".into()] }] } else { Vec::new() };
    let bridge = ManagedBridge { datapath_type: "netdev".into(), uplinks, takeover: false };
    is.then(|| (MANAGED.to_owned(), bridge)).into_iter().collect()
}

pub(super) fn vifs() -> impl Strategy<Value = Vec<Vif>> {
    up_to(9)
}

/// At least one VIF.
pub(super) fn up_to(most: usize) -> impl Strategy<Value = Vec<Vif>> {
    let one = (shape(), prop_oneof![Just(1500u32), Just(9000)], any::<bool>(), prop::bool::weighted(0.1));
    prop::collection::vec(one, 1..=most).prop_map(|vifs| {
        let number = |place: usize| u8::try_from(place).unwrap();
        vifs.iter()
            .enumerate()
            .map(|(place, (shape, mtu, active, preserve))| vif(number(place), shape, *mtu, *active, *preserve))
            .collect()
    })
}
