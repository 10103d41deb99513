//! Many rounds: lives one after another, what they did, and what is kept of one that failed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};

use super::dice::Dice;
use super::life::Life;
use super::round::{Report, Round};
use super::scene::Scene;
use super::wanted::Wanted;

/// Logs of a round that takes longer to settle are kept.
const SLOW: Duration = Duration::from_secs(5);

/// Which rounds are to be played.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first life's seed; the next ones count up from it.
    pub seed: u64,
    /// The first round of the first life. Those before it are not played: the lab is put in the state that they ask for.
    pub from: u32,
    /// How many in all.
    pub rounds: u32,
    /// How many in one life.
    pub per_life: u32,
    /// No life begins after so many failures.
    pub failures: usize,
    /// Where the logs of failed rounds are kept, in a folder each.
    pub keep: PathBuf,
}

/// A round that failed.
#[derive(Debug)]
pub struct Failure {
    /// Whose.
    pub seed: u64,
    /// Which; none when the lab did not come up.
    pub round: Option<u32>,
    /// Its acts and faults.
    pub schedule: String,
    /// What was wrong.
    pub error: Error,
    /// Where its logs are.
    pub kept: PathBuf,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, round, schedule, error, kept } = self;
        writeln!(f, "{schedule}{error:#}")?;
        // Of a lab that did not come up the error has the ends of the logs.
        if round.is_some() {
            writeln!(f, "logs: {}", kept.display())?;
        }
        match round {
            None => writeln!(f, "again: make chaos SEED={seed} N=1"),
            Some(round) => {
                writeln!(f, "this round alone: make chaos SEED={seed} ROUND={round}")?;
                writeln!(f, "with all before it: make chaos SEED={seed} N={}", round + 1)
            }
        }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rounds that were right.
    pub rounds: u32,
    /// Lives.
    pub lives: u32,
    /// How often there was each fault.
    pub faults: BTreeMap<&'static str, u32>,
    /// How often there was each scenario.
    pub scenarios: BTreeMap<&'static str, u32>,
    /// How long it took from the end of the last fault until everything was ready.
    pub settled: Vec<Duration>,
    /// Which round took longest to settle: its seed and number.
    pub slowest: Option<(Duration, u64, u32)>,
    /// Where the logs of rounds are that took long to settle.
    pub slow: Vec<PathBuf>,
    /// How often the wire was cut.
    pub cuts: u64,
    /// What failed.
    pub failed: Vec<Failure>,
}

impl Campaign {
    /// Plays. `progress` is told of every round that was right.
    pub fn run(&self, mut progress: impl FnMut(&Round, &Report) + Send) -> Tally {
        let mut tally = Tally::default();
        let mut left = self.rounds;
        let (mut seed, mut from) = (self.seed, self.from);
        while left > 0 && tally.failed.len() < self.failures {
            let rounds = left.min(self.per_life);
            // A thread of its own: its mount namespace ends with it.
            let lived = std::thread::scope(|scope| {
                let life = || self.live(seed, from..from + rounds, &mut tally, &mut progress);
                scope.spawn(life).join().unwrap_or_else(|panic| resume_unwind(panic))
            });
            if let Err(failure) = lived {
                tally.failed.push(failure);
            }
            tally.lives += 1;
            left -= rounds;
            (seed, from) = (seed.wrapping_add(1), 0);
        }
        tally
    }

    /// The rounds of the first life as they are drawn, without playing them.
    #[must_use]
    pub fn schedule(&self) -> Vec<Round> {
        let (life, mut wanted) = before(self.seed, self.from);
        let mut rounds = Vec::new();
        for number in self.from..self.from + self.rounds.min(self.per_life) {
            let round = Round::draw(&life, number, &wanted);
            wanted = round.wanted();
            rounds.push(round);
        }
        rounds
    }

    fn live(
        &self,
        seed: u64,
        rounds: std::ops::Range<u32>,
        tally: &mut Tally,
        progress: &mut impl FnMut(&Round, &Report),
    ) -> Result<(), Failure> {
        let (life, wanted) = before(seed, rounds.start);
        let failure = |round: Option<u32>, schedule: String, error: Error| {
            let name = round.map_or_else(|| format!("{seed}"), |round| format!("{seed}-{round}"));
            Failure { seed, round, schedule, error, kept: self.keep.join(name) }
        };
        let mut scene =
            Scene::build(&life, wanted).map_err(|error| failure(None, format!("the lab of {life}\n"), error))?;
        for number in rounds {
            let round = Round::draw(&life, number, &scene.wanted);
            let schedule = round.to_string();
            let drawn = Round::draw(&life, number, &scene.wanted);
            let faults: Vec<&str> = round.faults().collect();
            match round.run(&mut scene) {
                Ok(report) => {
                    tally.rounds += 1;
                    faults.into_iter().for_each(|name| *tally.faults.entry(name).or_default() += 1);
                    *tally.scenarios.entry(drawn.scenario.name).or_default() += 1;
                    tally.settled.push(report.settled);
                    if tally.slowest.is_none_or(|(slowest, ..)| slowest < report.settled) {
                        tally.slowest = Some((report.settled, seed, number));
                    }
                    if report.settled > SLOW {
                        // No failure, no promise has a time; but somebody will want to know why.
                        let folder = self.keep.join(format!("slow-{seed}-{number}"));
                        if scene.keep(&folder).is_ok() {
                            tally.slow.push(folder);
                        }
                    }
                    progress(&drawn, &report);
                }
                Err(error) => {
                    let mut failure = failure(Some(number), schedule, error);
                    if let Err(error) = keep(&scene, &failure) {
                        failure.error = failure.error.context(format!("its logs are not kept: {error:#}"));
                    }
                    return Err(failure);
                }
            }
        }
        tally.cuts += scene.proxy.cuts();
        Ok(())
    }
}

/// A life, and what is wanted before one of its rounds.
fn before(seed: u64, round: u32) -> (Life, Wanted) {
    let life = Life::of(seed);
    let mut wanted = Wanted { next: 1, ..Wanted::default() };
    wanted.welcome(life.guests, life.switch, &mut Dice::of(seed, &[4]));
    for number in 0..round {
        wanted = Round::draw(&life, number, &wanted).wanted();
    }
    (life, wanted)
}

fn keep(scene: &Scene, failure: &Failure) -> Result<()> {
    let folder = &failure.kept;
    let _ = fs::remove_dir_all(folder);
    scene.keep(folder)?;
    fs::write(folder.join("failure.txt"), failure.to_string()).with_context(|| folder.display().to_string())
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&str, u32>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "{} rounds right in {} labs, {} failed", self.rounds, self.lives, self.failed.len())?;
        writeln!(f, "scenarios: {}", list(&self.scenarios))?;
        writeln!(f, "faults: {} (the connection was cut {} times)", list(&self.faults), self.cuts)?;
        let mut settled = self.settled.clone();
        settled.sort();
        let share = |percent: usize| settled.get((settled.len() * percent / 100).min(settled.len().saturating_sub(1)));
        if let (Some(half), Some(most), Some((longest, seed, round))) = (share(50), share(95), self.slowest) {
            write!(f, "ready after the last fault: {half:.1?} in half of them, {most:.1?} in 95 of 100, ")?;
            writeln!(f, "{longest:.1?} at most (seed {seed}, round {round})")?;
        }
        self.slow.iter().try_for_each(|folder| writeln!(f, "slow, its logs: {}", folder.display()))?;
        Ok(())
    }
}

/// For the progress of a program that a person watches.
#[must_use]
pub fn line(round: &Round, report: &Report, start: Instant) -> String {
    let faults: Vec<&str> = round.faults().collect();
    format!(
        "{:>6.0?} s  seed {} round {}: {} × {}: {:.1?}, settled in {:.1?}",
        start.elapsed().as_secs(),
        round.life.seed,
        round.number,
        round.scenario.name,
        faults.join(", "),
        report.took,
        report.settled
    )
}
