//! Records, native and os-vif's: what is accepted can be written and read again, and planned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use vifd::backend::world::World;
use vifd::config::Config;
use vifd::model::{Desired, Vif};
use vifd::plan::{Holds, Inputs, Memo, Orders, Settings, plan};
use vifd::record::{self, Limits};

use super::presentable;

static HOST: LazyLock<(Limits, Settings)> = LazyLock::new(|| {
    let config = Config::default();
    (config.limits(), config.settings().expect("the defaults hold everywhere"))
});

pub(crate) fn check(data: &[u8]) -> bool {
    let (limits, settings) = &*HOST;
    let record = match record::decode_within(data, limits) {
        Ok(record) => record,
        Err(error) => {
            presentable(&error);
            return false;
        }
    };
    for warning in &record.warnings {
        presentable(warning);
    }
    let again = record::to_native(&record.vif).to_string();
    match record::decode_within(again.as_bytes(), limits) {
        Ok(read) => assert_eq!(read.vif, record.vif, "{again}"),
        Err(error) => panic!("what we write is refused: {error}: {again}"),
    }
    planned(record.vif, settings);
    true
}

/// Plans the VIF on a host in memory until nothing is left to do; a round that changes nothing is the last.
fn planned(vif: Vif, settings: &Settings) {
    let mut world = World::new(false);
    world.add_bridge("br-int", "", BTreeMap::new());
    world.add_socket_dir(&settings.socket_dir);
    let id = vif.id;
    let desired = Desired { synced: true, vifs: BTreeMap::from([(id, Arc::new(vif))]).into(), ..Desired::default() };
    let mut memo = Memo::default();
    for round in 0.. {
        let observed = world.observed();
        let inputs = Inputs {
            desired: &desired,
            clashes: &BTreeMap::new(),
            observed: &observed,
            holds: &Holds::default(),
            orders: &Orders::default(),
            in_flight: &BTreeSet::new(),
            settings,
        };
        let plan = plan(inputs, &mut memo, Instant::now());
        let judgement = plan.judgements.get(&id).expect("a word on every VIF that is wanted");
        if plan.links.is_empty() && plan.ovs.is_empty() {
            return;
        }
        assert!(round < 10, "no end to it: {:?}, {:?}, {:?}", judgement.verdict, plan.links, plan.ovs);
        for op in &plan.links {
            world.apply_link(&op.op);
        }
        world.apply_ovs(&plan.ovs);
        world.switch();
    }
}
