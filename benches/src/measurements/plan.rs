//! Planning a host on which all is as it should be, beside its floor: one walk over the same records and rows.
//! Once with the very view of the plan before, once with a view in which the row of one interface is another, so that
//! every table has to be compared. Both on a bridge whose flows are somebody else's, and on one whose flows are vifd's; there
//! also with a view in which one flow came again.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use flows::Flow;
use uuid::Uuid;
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::config::Config;
use vifd::model::{Desired, FlowState, Observed, OvsState, View, Vif, VifId};
use vifd::plan::pipeline::OwnerTag;
use vifd::plan::{Clash, Holds, Inputs, ManagedBridge, Memo, Orders, Settings, plan};
use vifd::record;

use super::stage::Stage;
use crate::timing::least;
use crate::{Chart, Finding, Role, Series, Unit};

/// VIFs of a network.
const NETWORK: u32 = 250;

/// Every fourth has rates, every fourth rules.
fn vif(number: u32) -> Arc<Vif> {
    let id = Uuid::from_u128(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let network = Uuid::from_u128(u128::from(1 + number / NETWORK) << 64);
    let [a, b, c, d] = number.to_be_bytes();
    let policy = match number % 4 {
        0 => r#"{"rate": {"egress_kbps": 100000, "ingress_kbps": 100000}}"#,
        1 => {
            r#"{"rules": [{"direction": "egress"}, {"direction": "ingress", "protocol": "tcp", "port_min": 22, "port_max": 22}]}"#
        }
        _ => "{}",
    };
    let text = format!(
        r#"{{"vif": {{"type": "openvswitch", "id": "{id}", "vif_name": "tap{number}",
            "address": "52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}",
            "network": {{"id": "{network}", "bridge": "br-int", "mtu": 1450,
                "subnets": [{{"cidr": "10.0.0.0/8", "ips": [{{"address": "10.{b}.{c}.{d}"}}]}}]}},
            "port_profile": {{"type": "openvswitch", "create_port": true, "create_tap": true}}}},
            "instance": {{"uuid": "{id}"}}, "policy": {policy}}}"#
    );
    match record::decode(text.as_bytes()) {
        Ok(record) => Arc::new(record.vif),
        Err(refused) => panic!("the record of this bench is no good: {refused}"),
    }
}

/// The agent's settings, with the bridge's flows made by it or not.
fn settings(managed: bool) -> Settings {
    let settings = match Config::default().settings() {
        Ok(settings) => settings,
        Err(error) => panic!("the default configuration is no good: {error}"),
    };
    let bridge = || ("br-int".to_owned(), ManagedBridge { datapath_type: "netdev".into(), ..ManagedBridge::default() });
    Settings { bridges: managed.then(bridge).into_iter().collect(), ..settings }
}

/// A host in memory that has converged on `count` VIFs.
fn host(count: u32, settings: &Settings) -> (Desired, Observed) {
    let mut world = World::new(false);
    // Enough for every rate.
    world.max_meters = 2 * count;
    world.managed = settings.bridges.keys().cloned().collect();
    world.owner = OwnerTag::of(&settings.agent).0;
    if settings.bridges.is_empty() {
        world.add_bridge("br-int", "system", StringMap::new());
    }
    let vifs = (0..count).map(vif).map(|vif| (vif.id, vif)).collect();
    let desired = Desired { synced: true, vifs, ..Desired::default() };
    for _ in 0..6 {
        let observed = world.observed();
        let plan = planned(&desired, &observed, &BTreeMap::new(), settings, &mut Memo::default());
        for op in &plan.links {
            world.apply_link(&op.op);
        }
        world.apply_ovs(&plan.ovs);
        world.apply_flows(&plan.flows);
        world.switch();
    }
    let observed = world.observed();
    let plan = planned(&desired, &observed, &BTreeMap::new(), settings, &mut Memo::default());
    assert!(plan.links.is_empty() && plan.ovs.is_empty() && plan.flows.is_empty(), "the host has not converged");
    (desired, observed)
}

fn planned(
    desired: &Desired,
    observed: &Observed,
    clashes: &BTreeMap<VifId, Clash>,
    settings: &Settings,
    memo: &mut Memo,
) -> vifd::plan::Plan {
    let (holds, orders) = (Holds::default(), Orders::default());
    let inputs =
        Inputs { desired, clashes, observed, holds: &holds, orders: &orders, in_flight: &BTreeSet::new(), settings };
    plan(inputs, memo, Instant::now())
}

/// The least that any plan has to do: look at every record, row and link once.
fn walk(desired: &Desired, observed: &Observed) -> usize {
    let (ovs, links) = (observed.ovs.ready(), observed.links.ready());
    let look = |name: &str| {
        let port = ovs.and_then(|ovs| ovs.ports.get(name));
        let interface = ovs.and_then(|ovs| ovs.interfaces.get(name));
        let link = links.and_then(|links| links.links.get(name));
        port.map_or(0, |port| port.external_ids.len())
            + interface.map_or(0, |row| row.external_ids.len())
            + link.map_or(0, |link| link.name.len())
    };
    desired
        .vifs
        .values()
        .map(|vif| match &vif.kind {
            vifd::model::VifKind::OpenVSwitch { vif_name, .. } => look(vif_name),
            _ => 0,
        })
        .sum()
}

/// The same host after one interface's row came again.
fn touched(observed: &Observed, round: u32) -> Observed {
    let View::Ready(ovs) = &observed.ovs else { return observed.clone() };
    let mut ovs = OvsState::clone(ovs);
    if let Some(row) = ovs.interfaces.get_mut("tap0") {
        Arc::make_mut(row).status.insert("round".to_owned(), round.to_string());
    }
    Observed {
        ovs: View::Ready(Arc::new(ovs)),
        links: observed.links.clone(),
        nics: observed.nics.clone(),
        flows: Arc::clone(&observed.flows),
    }
}

const FLOOR: &str = "floor";
const SAME: &str = "vifd, same view";
const ONE_ROW: &str = "vifd, one row changed";
const ONE_FLOW: &str = "vifd, one flow changed";

/// The same host after the flows of one VIF came again.
fn told(observed: &Observed) -> Observed {
    let mut flows = BTreeMap::clone(&observed.flows);
    for view in flows.values_mut() {
        let View::Ready(state) = view else { continue };
        let mut state = FlowState::clone(state);
        if let Some(set) = state.owned.values_mut().next() {
            for flow in Arc::make_mut(set).values_mut().take(1) {
                *flow = Arc::new(Flow::clone(flow));
            }
        }
        *view = View::Ready(Arc::new(state));
    }
    Observed { flows: Arc::new(flows), ..observed.clone() }
}

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "plan",
        "Planning a host on which all is as it should be",
        "One plan of the whole host in memory, after a first one: with the very view of the plan before, and with a
         view in which one interface's row came again, or one VIF's flows. The least of twenty. Networks of 250 VIFs;
         every fourth VIF has rates and every fourth rules. The floor looks at every record, row and
         link once. Within this process, without daemons.",
    );
    let sizes = scale.pick(&[250u32, 500, 1000, 2000, 4000][..], &[250, 1000]);
    let mut chart = Chart::new("plan", "Planning a host on which all is well", "VIFs", Unit::Seconds);
    chart.limit = Some(0.020);
    series(&mut chart, sizes, &settings(false));
    aims(&mut finding, &chart, "");
    finding.charts.push(chart);
    let mut chart = Chart::new("plan-flows", "The same where the flows are vifd's", "VIFs", Unit::Seconds);
    chart.limit = Some(0.020);
    let flows = series(&mut chart, sizes, &settings(true));
    aims(&mut finding, &chart, "with flows, ");
    finding.charts.push(chart);
    let counts: Vec<String> =
        sizes.iter().zip(flows).map(|(vifs, flows)| format!("{vifs} VIFs have {flows}")).collect();
    finding.notes.push(format!("Flows on the bridge: {}.", counts.join(", ")));
    Ok(finding)
}

/// Measures each size, and gives how many flows the switch has.
fn series(chart: &mut Chart, sizes: &[u32], settings: &Settings) -> Vec<usize> {
    let mut counts = Vec::new();
    for count in sizes {
        let (desired, observed) = host(*count, settings);
        let states = observed.flows.values().filter_map(View::ready);
        counts.push(states.flat_map(|state| state.owned.values()).map(|flows| flows.len()).sum());
        let clashes = record::clashes(&desired.vifs, &[], false);
        let mut memo = Memo::default();
        let mut again = |view: &Observed| black_box(planned(&desired, view, &clashes, settings, &mut memo));
        let _ = again(&observed);
        let same = least(20, || again(&observed));
        let mut views = (0..20).map(|round| touched(&observed, round)).collect::<Vec<_>>().into_iter().cycle();
        let one = least(20, || views.next().map(|view| again(&view)));
        if !observed.flows.is_empty() {
            let mut views = (0..20).map(|_| told(&observed)).collect::<Vec<_>>().into_iter().cycle();
            let flow = least(20, || views.next().map(|view| again(&view)));
            chart.add(ONE_FLOW, Role::Ours, f64::from(*count), vec![flow.as_secs_f64()]);
        }
        let floor = least(20, || black_box(walk(&desired, &observed)));
        for (who, role, took) in [(FLOOR, Role::Floor, floor), (SAME, Role::Ours, same), (ONE_ROW, Role::Ours, one)] {
            chart.add(who, role, f64::from(*count), vec![took.as_secs_f64()]);
        }
    }
    counts
}

fn aims(finding: &mut Finding, chart: &Chart, what: &str) {
    let most = chart.sizes().last().copied().unwrap_or_default();
    for who in [SAME, ONE_ROW, ONE_FLOW].into_iter().filter(|who| chart.series(who).is_some()) {
        finding.at_most(&format!("{what}{who}, {most} VIFs: at most 20 ms"), chart.median(who, most), 0.020, |value| {
            Unit::Seconds.show(value)
        });
        let slope = chart.series(who).map_or(f64::NAN, Series::slope);
        finding
            .at_most(&format!("{what}{who}: slope of the log-log line at most 1.1"), slope, 1.1, |v| format!("{v:.2}"));
    }
}
