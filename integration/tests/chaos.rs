//! Promise: whatever is killed, stopped, cut, filled or lost at whatever moment, the host ends up as it is wanted, and
//! what was right stays untouched. Two short lives of the fault harness, which together have every fault and every
//! scenario; `make chaos` is the long run. See `docs/testing.md`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use vifd_integration::chaos::{Campaign, Round, fault, line, scenario};

/// Always the same: a failure of `make test` is a failure of this change. New seeds are for the long run.
/// The first has the dummy switch and a clock that jumps, the second the userspace switch.
const SEED: u64 = 4;
/// Rounds in each life: the dealt faults alone are all of them.
const ROUNDS: u32 = 16;

#[test]
fn whatever_goes_wrong_comes_right() -> Result<()> {
    let campaign = Campaign {
        seed: SEED,
        from: 0,
        rounds: 2 * ROUNDS,
        per_life: ROUNDS,
        failures: 2,
        keep: Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos"),
    };
    let start = Instant::now();
    let tally = campaign.run(|round: &Round, report| println!("{}", line(round, report, start)));
    println!("{tally}");
    if !tally.failed.is_empty() {
        let failed: Vec<String> = tally.failed.iter().map(ToString::to_string).collect();
        bail!("{}", failed.join("\n"));
    }
    assert_eq!(tally.rounds, 2 * ROUNDS);
    for kind in fault::ALL {
        assert!(
            tally.faults.contains_key(kind.name),
            "no {} in these rounds: more of them, or another seed",
            kind.name
        );
    }
    for scenario in scenario::ALL {
        assert!(tally.scenarios.contains_key(scenario.name), "no {} in these rounds", scenario.name);
    }
    assert!(tally.cuts > 0, "the connection was never cut");
    Ok(())
}

#[test]
fn a_round_is_drawn_alike_alone_and_in_its_life() {
    let campaign = |from, rounds| Campaign {
        seed: 11,
        from,
        rounds,
        per_life: 100,
        failures: 1,
        keep: Path::new("/nowhere").to_owned(),
    };
    let all = campaign(0, 30).schedule();
    for (number, round) in all.iter().enumerate() {
        let number = u32::try_from(number).unwrap_or_default();
        assert_eq!(campaign(number, 1).schedule()[0].to_string(), round.to_string());
    }
    let other = Campaign { seed: 12, ..campaign(0, 1) }.schedule();
    assert_ne!(other[0].to_string(), all[0].to_string());
}
