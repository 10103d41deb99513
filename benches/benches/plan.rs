//! Planning a host on which all is as it should be, from 250 to 4,000 VIFs, beside its floor: one walk over the same
//! records and rows. Once with the very view of the plan before, once with a view in which the row of one interface is
//! another, so that every table has to be compared. `cargo bench -p vifd-benches --bench plan`

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;
use vifd::backend::ovs::StringMap;
use vifd::backend::world::World;
use vifd::config::Config;
use vifd::model::{Desired, Observed, OvsState, View, Vif};
use vifd::plan::{Holds, Inputs, Memo, Orders, plan};
use vifd::record;
use vifd_benches::least;

fn vif(number: u32) -> Arc<Vif> {
    let id = Uuid::from_u128(u128::from(number) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let [a, b, c, d] = number.to_be_bytes();
    let text = format!(
        r#"{{"vif": {{"type": "openvswitch", "id": "{id}", "vif_name": "tap{number}",
            "address": "52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}",
            "network": {{"id": "{id}", "bridge": "br-int", "mtu": 1450}},
            "port_profile": {{"type": "openvswitch", "create_port": true, "create_tap": true}}}},
            "instance": {{"uuid": "{id}"}}}}"#
    );
    match record::decode(text.as_bytes()) {
        Ok(record) => Arc::new(record.vif),
        Err(refused) => panic!("the record of this bench is no good: {refused}"),
    }
}

/// A host in memory that has converged on `count` VIFs.
fn host(count: u32) -> (Desired, Observed) {
    let mut world = World::new(false);
    world.add_bridge("br-int", "system", StringMap::new());
    let vifs = (0..count).map(vif).map(|vif| (vif.id, vif)).collect();
    let desired = Desired { synced: true, vifs, ..Desired::default() };
    for _ in 0..3 {
        let observed = world.observed();
        let plan = planned(&desired, &observed, &mut Memo::default());
        for op in &plan.links {
            world.apply_link(&op.op);
        }
        world.apply_ovs(&plan.ovs);
        world.switch();
    }
    let observed = world.observed();
    let plan = planned(&desired, &observed, &mut Memo::default());
    assert!(plan.links.is_empty() && plan.ovs.is_empty(), "the host has not converged");
    (desired, observed)
}

fn planned(desired: &Desired, observed: &Observed, memo: &mut Memo) -> vifd::plan::Plan {
    let (clashes, holds, orders) = (record::clashes(&desired.vifs, &[], false), Holds::default(), Orders::default());
    let settings = match Config::default().settings() {
        Ok(settings) => settings,
        Err(error) => panic!("the default configuration is no good: {error}"),
    };
    let inputs = Inputs {
        desired,
        clashes: &clashes,
        observed,
        holds: &holds,
        orders: &orders,
        in_flight: &BTreeSet::new(),
        settings: &settings,
    };
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
    Observed { ovs: View::Ready(Arc::new(ovs)), links: observed.links.clone() }
}

fn slope(points: &[(f64, f64)]) -> f64 {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => (last.1 - first.1) / (last.0 - first.0),
        _ => f64::NAN,
    }
}

fn main() {
    println!("{:>6} {:>12} {:>12} {:>12} {:>8} {:>8}", "VIFs", "same view", "one row", "floor", "ratio", "one row");
    let (mut same_view, mut one_row) = (Vec::new(), Vec::new());
    for count in [250u32, 500, 1000, 2000, 4000] {
        let (desired, observed) = host(count);
        let mut memo = Memo::default();
        let _ = planned(&desired, &observed, &mut memo);
        let same = least(20, || black_box(planned(&desired, &observed, &mut memo)));
        let mut views = (0..20).map(|round| touched(&observed, round)).collect::<Vec<_>>().into_iter().cycle();
        let one = least(20, || views.next().map(|view| black_box(planned(&desired, &view, &mut memo))));
        let floor = least(20, || black_box(walk(&desired, &observed)));
        let ratio = |took: Duration| took.as_secs_f64() / floor.as_secs_f64();
        println!("{count:>6} {same:>12.1?} {one:>12.1?} {floor:>12.1?} {:>8.1} {:>8.1}", ratio(same), ratio(one));
        same_view.push((f64::from(count).ln(), same.as_secs_f64().ln()));
        one_row.push((f64::from(count).ln(), one.as_secs_f64().ln()));
    }
    println!("slope of the log-log line: {:.2}, one row {:.2}", slope(&same_view), slope(&one_row));
}
