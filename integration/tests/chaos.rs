//! Promise: whatever is killed, stopped, cut, filled or lost at whatever moment, the host ends up as it is wanted, and
//! what was right stays untouched. Two short lives of the fault harness, which together have every fault and every
//! scenario; `make chaos` is the long run. See `docs/testing.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use vifd_integration::chaos::fault::Marks;
use vifd_integration::chaos::oracle::{Writes, silence};
use vifd_integration::chaos::{Campaign, Clock, Form, Guest, Life, Round, Scene, Wanted, fault, line, scenario};
use vifd_integration::lab::Switch;

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

/// The oracle's `silence` goes by vifd's own count. Here vifd has a reason to write, which the oracle is not told of.
#[test]
fn silence_hears_what_vifd_writes() -> Result<()> {
    let life = Life { clock: Clock::Kernel, switch: Switch::Dummy, ..Life::of(SEED) };
    let guest = Guest { number: 7, form: Form::Tap, bridge: "br-int", mtu: 1450, mac: 0, interface_id: None };
    let record = guest.record(life.switch)?;
    let mut scene = Scene::build(&life, Wanted { guests: BTreeMap::from([(7, guest)]), next: 8 })?;
    let marks = Marks::default();
    let before = scene.writes()?;
    let calm = Writes { before, ready: before, later: scene.writes_after_another_look()? };
    assert_eq!(silence(true, marks, calm), Vec::<String>::new());
    scene.ovs.vsctl(["remove", "Interface", &record.vif_name(), "external_ids", "attached-mac"])?;
    scene
        .vifd
        .until("vifd has mended it", |vifd| Ok((vifd.metric("vifd_writes_total", "")? > before).then_some(())))?;
    let later = scene.writes()?;
    assert_eq!(silence(true, marks, Writes { before, ready: later, later }).len(), 1, "in a calm round");
    assert_eq!(silence(false, marks, Writes { before, ready: before, later }).len(), 1, "with everything ready");
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
