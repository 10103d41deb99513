//! Some of everything, and VIFs that are changed, harmed, removed and plugged again within the round.

use super::{Scenario, change, drift, plug, unplug};
use crate::chaos::Act;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "mixture",
    acts: |life, wanted, dice| {
        let removals = (unplug::SCENARIO.acts)(life, wanted, dice);
        let leaving = |number: u32| removals.iter().any(|act| act.number() == number);
        let mut acts = Vec::new();
        for scenario in [&change::SCENARIO, &drift::SCENARIO, &plug::SCENARIO] {
            acts.extend((scenario.acts)(life, wanted, dice));
        }
        let mut acts = dice.shuffled(acts);
        acts.truncate(6);
        // Nothing is asked of a guest after it has gone, unless it is to come back as it was.
        acts.retain(|act| !leaving(act.number()));
        for removal in removals {
            let back = wanted.guests.get(&removal.number()).filter(|_| dice.percent(50)).cloned();
            acts.push(removal);
            acts.extend(back.map(|guest| Act::Put { guest, over_api: dice.percent(40) }));
        }
        acts
    },
};
