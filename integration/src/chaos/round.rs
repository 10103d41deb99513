//! One round: drawn, carried out at its moments, judged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::dice::Dice;
use super::fault::{self, Fault, Kind, Marks};
use super::harm::{Damage, Harm};
use super::life::Life;
use super::look::Look;
use super::oracle::{self, Judged, Writes};
use super::scenario::{self, Scenario};
use super::scene::{Scene, sleep_until};
use super::wanted::{Guest, Wanted};
use crate::lab::Switch;

/// Acts and faults begin within so many milliseconds.
const SPAN: u64 = 500;
/// When vifd says that all is well so long after the last fault, it is held to it.
const BELIEVED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that a controller or a hand does.
#[derive(Clone, Debug)]
pub enum Act {
    /// A record is handed over: a new one, or another of a VIF that is there.
    Put {
        /// What is wanted.
        guest: Guest,
        /// Over the API; else as a file.
        over_api: bool,
    },
    /// A record is taken back.
    Remove {
        /// Whose.
        number: u32,
        /// Over the API; else as a file.
        over_api: bool,
    },
    /// A hand does harm.
    Harm {
        /// To whom.
        number: u32,
        /// Which.
        harm: &'static Harm,
    },
}

impl Act {
    /// The guest that it is about.
    #[must_use]
    pub fn number(&self) -> u32 {
        match self {
            Act::Put { guest, .. } => guest.number,
            Act::Remove { number, .. } | Act::Harm { number, .. } => *number,
        }
    }

    /// What becomes of the wishes.
    fn wish(&self, wanted: &mut Wanted) {
        match self {
            Act::Put { guest, .. } => {
                wanted.next = wanted.next.max(guest.number + 1);
                wanted.guests.insert(guest.number, guest.clone());
            }
            Act::Remove { number, .. } => drop(wanted.guests.remove(number)),
            Act::Harm { .. } => {}
        }
    }

    fn does(&self, scene: &mut Scene) -> Result<()> {
        match self {
            Act::Put { guest, over_api } => scene.put(guest.clone(), *over_api),
            Act::Remove { number, over_api } => scene.remove(*number, *over_api),
            Act::Harm { number, harm } => {
                let guest = scene.wanted.guests.get(number).with_context(|| format!("guest {number}"))?;
                let record = scene.record(guest)?;
                // The VIF may not be there at the moment, or the switch may be away.
                let _ = harm.does(&scene.ovs, &record);
                Ok(())
            }
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |over_api: &bool| if *over_api { "over the API" } else { "as a file" };
        match self {
            Act::Put { guest, over_api } => write!(f, "put {guest:?} {}", way(over_api)),
            Act::Remove { number, over_api } => write!(f, "remove {number} {}", way(over_api)),
            Act::Harm { number, harm } => write!(f, "harm {number}: {}", harm.name),
        }
    }
}

/// What a round did to a VIF that was there before it and is there after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    /// Nothing: everything is as it was.
    Nothing,
    /// Its contents were changed or harmed: the rows are the same rows.
    Contents,
    /// It had to be made again.
    Remade,
}

struct Blow {
    kind: &'static Kind,
    fault: Box<dyn Fault>,
    at: Duration,
    until: Duration,
}

/// A round as it was drawn.
pub struct Round {
    /// Of whose life.
    pub life: Life,
    /// Its number in that life.
    pub number: u32,
    /// What happens.
    pub scenario: &'static Scenario,
    acts: Vec<(Duration, Act)>,
    blows: Vec<Blow>,
    before: Wanted,
}

/// What a round was like.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the end of the last fault until everything was ready.
    pub settled: Duration,
    /// All of it.
    pub took: Duration,
}

impl Round {
    /// Draws a round. The first rounds of a life deal every fault once, in an order of their own, then again.
    #[must_use]
    pub fn draw(life: &Life, number: u32, wanted: &Wanted) -> Round {
        let mut dice = Dice::of(life.seed, &[1, u64::from(number)]);
        let scenario = deal(life.seed, 2, number, scenario::ALL);
        let acts = (scenario.acts)(life, wanted, &mut dice);
        let mut moments: Vec<Duration> = acts.iter().map(|_| dice.millis(0, SPAN)).collect();
        moments.sort();
        let fitting: Vec<&'static Kind> = fault::ALL.iter().filter(|kind| (kind.fits)(life)).collect();
        let mut kinds: Vec<&'static Kind> = vec![*deal(life.seed, 3, number, &fitting)];
        let more = dice.pick(&[0, 0, 1, 1, 2]);
        for kind in dice.shuffled(fitting) {
            if kinds.len() <= more && kinds.iter().all(|other| kind.target.agrees_with(other.target)) {
                kinds.push(kind);
            }
        }
        let mut blows: Vec<Blow> = Vec::new();
        for kind in kinds {
            let at = dice.millis(0, SPAN);
            let lasts = if dice.percent(15) { dice.millis(500, 1500) } else { dice.millis(10, 400) };
            blows.push(Blow { kind, fault: (kind.draw)(&mut dice), at, until: at + lasts });
        }
        let acts = moments.into_iter().zip(acts).collect();
        Round { life: life.clone(), number, scenario, acts, blows, before: wanted.clone() }
    }

    /// What is wanted after it.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut wanted = self.before.clone();
        self.acts.iter().for_each(|(_, act)| act.wish(&mut wanted));
        wanted
    }

    /// The names of its faults.
    pub fn faults(&self) -> impl Iterator<Item = &'static str> {
        self.blows.iter().map(|blow| blow.kind.name)
    }

    /// What its faults have a right to leave.
    fn marks(&self) -> Marks {
        self.blows.iter().fold(Marks::default(), |all, blow| Marks {
            new_switch: all.new_switch || blow.kind.marks.new_switch,
            new_vifd: all.new_vifd || blow.kind.marks.new_vifd,
        })
    }

    /// What it does to those that are there before it and after it.
    fn touched(&self) -> BTreeMap<u32, Touch> {
        let after = self.wanted();
        let mut touched: BTreeMap<u32, Touch> = BTreeMap::new();
        for number in after.guests.keys().filter(|number| self.before.guests.contains_key(number)) {
            touched.insert(*number, Touch::Nothing);
        }
        for (_, act) in &self.acts {
            let Some(touch) = touched.get_mut(&act.number()) else { continue };
            let this = match act {
                Act::Put { guest, .. } => match self.before.guests.get(&guest.number) {
                    Some(before) if before == guest => Touch::Nothing,
                    Some(before) if before.bridge == guest.bridge && before.form == guest.form => Touch::Contents,
                    _ => Touch::Remade,
                },
                Act::Remove { .. } => Touch::Remade,
                Act::Harm { harm, .. } => match harm.damage {
                    // Of the userspace datapath the port has to be made again with its link.
                    Damage::Link if self.life.switch == Switch::Userspace => Touch::Remade,
                    Damage::Contents | Damage::Link => Touch::Contents,
                    Damage::Port => Touch::Remade,
                },
            };
            *touch = (*touch).max(this);
        }
        touched
    }

    /// Guests whose link was deleted under them.
    fn links_lost(&self) -> Vec<u32> {
        let lost = |act: &Act| match act {
            Act::Harm { number, harm } if harm.damage == Damage::Link => Some(*number),
            _ => None,
        };
        self.acts.iter().filter_map(|(_, act)| lost(act)).collect()
    }

    /// Carries it out, and lets the oracle judge.
    ///
    /// # Errors
    /// When it cannot be carried out, does not settle, or leaves what is not right: everything that is not, a line
    /// each.
    pub fn run(mut self, scene: &mut Scene) -> Result<Report> {
        let start = Instant::now();
        let before = scene.look()?;
        let written = scene.writes()?;
        self.play(scene)?;
        let over = Instant::now();
        let (wrong, settled) = loop {
            scene.settle()?;
            // vifd may not have seen yet what was done last. What it says has to become true by itself.
            let settled = Instant::now();
            let wrong = self.verdict(scene, &before, written)?;
            if wrong.is_empty() || over.elapsed() > BELIEVED {
                break (wrong, settled - over);
            }
            sleep_until(Instant::now() + PAUSE)?;
        };
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n"));
        }
        scene.stamp()?;
        Ok(Report { settled, took: start.elapsed() })
    }

    /// What is wrong at the moment. Before the round, vifd had written so much.
    fn verdict(&self, scene: &mut Scene, before: &Look, written: f64) -> Result<Vec<String>> {
        let after = scene.look()?;
        let judged = Judged {
            switch: self.life.switch,
            wanted: &scene.wanted,
            touched: self.touched(),
            links_lost: self.links_lost(),
            marks: self.marks(),
            before,
            after: &after,
        };
        let mut wrong = oracle::judge(&judged)?;
        let ready = scene.writes()?;
        let writes = Writes { before: written, ready, later: scene.writes_after_another_look()? };
        wrong.extend(oracle::silence(self.acts.is_empty(), self.marks(), writes));
        let (first, now) = scene.process()?;
        wrong.extend(oracle::grown(first, now));
        Ok(wrong)
    }

    /// Every act and fault at its moment. What was begun is ended also when something fails in between.
    fn play(&mut self, scene: &mut Scene) -> Result<()> {
        enum Moment {
            Act(usize),
            Strike(usize),
            Lift(usize),
        }
        let mut moments: Vec<(Duration, Moment)> = Vec::new();
        moments.extend(self.acts.iter().enumerate().map(|(n, (at, _))| (*at, Moment::Act(n))));
        moments.extend(self.blows.iter().enumerate().map(|(n, blow)| (blow.at, Moment::Strike(n))));
        moments.extend(self.blows.iter().enumerate().map(|(n, blow)| (blow.until, Moment::Lift(n))));
        moments.sort_by_key(|(at, _)| *at);
        let start = Instant::now();
        for (at, moment) in moments {
            sleep_until(start + at)?;
            match moment {
                Moment::Act(n) => self.acts[n].1.does(scene).with_context(|| self.acts[n].1.to_string())?,
                Moment::Strike(n) => {
                    let fault = &mut self.blows[n].fault;
                    fault.strike(scene).with_context(|| format!("{fault}"))?;
                }
                Moment::Lift(n) => {
                    let fault = &mut self.blows[n].fault;
                    fault.lift(scene).with_context(|| format!("the end of {fault}"))?;
                }
            }
        }
        Ok(())
    }
}

/// One of `from`, so that all of them come once before one comes twice.
fn deal<T>(seed: u64, purpose: u64, number: u32, from: &[T]) -> &T {
    let size = u32::try_from(from.len()).unwrap_or(1);
    let order = Dice::of(seed, &[purpose, u64::from(number / size)]).shuffled(from.iter());
    order[(number % size) as usize]
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "round {} of {}: {}", self.number, self.life, self.scenario.name)?;
        let mut lines: Vec<(Duration, String)> = Vec::new();
        lines.extend(self.acts.iter().map(|(at, act)| (*at, act.to_string())));
        for Blow { fault, at, until, .. } in &self.blows {
            lines.push((*at, format!("{fault}, for {:?}", *until - *at)));
        }
        lines.sort();
        lines.iter().try_for_each(|(at, line)| writeln!(f, "  {:>4} ms  {line}", at.as_millis()))
    }
}
