//! VIFs that go. Never so many at once that removals would be stopped (`max_removals`): that is another test's.

use super::Scenario;
use crate::chaos::Act;

/// Fewer guests than that, and none goes.
const FEW: usize = 8;
/// What is always allowed (`agent.max_removals`), whether vifd sees the files go or finds them absent.
const ALLOWED: u64 = 5;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "unplug",
    acts: |_, wanted, dice| {
        let spare = wanted.guests.len().saturating_sub(FEW);
        let count = usize::try_from(dice.from_to(1, ALLOWED)).unwrap_or(1).min(spare);
        let leaving = wanted.some(count, dice);
        leaving.iter().map(|guest| Act::Remove { number: guest.number, over_api: dice.percent(40) }).collect()
    },
};
