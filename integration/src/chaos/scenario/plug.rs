//! New VIFs.

use super::Scenario;
use crate::chaos::{Act, Guest};

/// Beyond so many guests fewer come.
const MANY: usize = 40;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "plug",
    acts: |life, wanted, dice| {
        let most = if wanted.guests.len() < MANY { 8 } else { 1 };
        let count = u32::try_from(dice.from_to(1, most)).unwrap_or(1);
        (0..count)
            .map(|n| Act::Put { guest: Guest::draw(wanted.next + n, life.switch, dice), over_api: dice.percent(40) })
            .collect()
    },
};
