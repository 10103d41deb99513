//! Harm by hand, to VIFs that were right.

use super::Scenario;
use crate::chaos::{Act, HARMS, Harm};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "drift",
    acts: |_, wanted, dice| {
        let count = usize::try_from(dice.from_to(1, 4)).unwrap_or(1);
        let chosen = wanted.some(count, dice);
        chosen
            .into_iter()
            .map(|guest| {
                let fitting: Vec<&'static Harm> = HARMS.iter().filter(|harm| (harm.fits)(guest)).collect();
                Act::Harm { number: guest.number, harm: dice.pick(&fitting) }
            })
            .collect()
    },
};
