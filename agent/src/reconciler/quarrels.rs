//! Quarrels: somebody who changes back whatever vifd sets. Operations succeed every time, so nothing holds them, and
//! both sides would write as fast as they can. Every batch that does for a VIF what was done for it before heats its
//! quarrel up, time cools it down; while it is hot the VIF is left alone, longer each time. What is done for the first
//! time is work and no quarrel, however much of it there is: a network's group of receivers is another with every VIF.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::backend::Party;
use crate::model::VifId;
use crate::plan::{BackendName, LINKS, NICS, OPENFLOW, OVSDB};

/// What one batch adds; a second takes a second off. What was done longer ago is not remembered.
const BATCH: Duration = Duration::from_secs(10);
/// From here on it is a quarrel.
const HOT: Duration = Duration::from_secs(100);
/// Below this it is over.
const COLD: Duration = Duration::from_secs(50);
/// Batches that are remembered: a fight has a few moves.
const REMEMBERED: usize = 8;

/// How things stand after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    /// Nothing unusual.
    Calm,
    /// What was refused before is not forgiven yet.
    Tense,
    /// To be left alone for a while.
    Quarrel,
}

/// One party's with one backend, as of a time.
#[derive(Debug)]
struct Quarrel {
    heat: Duration,
    since: Instant,
    /// What was done, the newest first.
    done: VecDeque<u64>,
}

/// Quarrels by party and backend.
#[derive(Debug, Default)]
pub(super) struct Quarrels {
    entries: BTreeMap<(Party, BackendName), Quarrel>,
}

impl Quarrels {
    /// A batch was carried out for this party; `print` tells what it did from what others did.
    pub(super) fn changed(
        &mut self,
        party: impl Into<Party>,
        backend: BackendName,
        print: u64,
        now: Instant,
    ) -> Temper {
        let fresh = || Quarrel { heat: Duration::ZERO, since: now, done: VecDeque::new() };
        let quarrel = self.entries.entry((party.into(), backend)).or_insert_with(fresh);
        quarrel.heat = quarrel.heat.saturating_sub(now.duration_since(quarrel.since));
        quarrel.since = now;
        if quarrel.done.contains(&print) {
            quarrel.heat = (quarrel.heat + BATCH).min(HOT + BATCH);
        } else {
            quarrel.done.truncate(REMEMBERED - 1);
            quarrel.done.push_front(print);
        }
        match quarrel.heat {
            heat if heat >= HOT => Temper::Quarrel,
            heat if heat >= COLD => Temper::Tense,
            _ => Temper::Calm,
        }
    }

    /// Drops what has cooled down; once per report, not per VIF.
    pub(super) fn cool(&mut self, now: Instant) {
        self.entries.retain(|_, quarrel| now.duration_since(quarrel.since) < quarrel.heat.max(BATCH));
    }

    /// The record changed, so there is reason for work.
    pub(super) fn forget(&mut self, vif: VifId) {
        for backend in [LINKS, NICS, OVSDB, OPENFLOW] {
            self.entries.remove(&(Party::Vif(vif), backend));
        }
    }

    /// The same of what VIFs share, by the cookies of the flows, on whatever bridge.
    pub(super) fn forget_sharers(&mut self, cookies: &BTreeSet<u64>) {
        self.entries.retain(|(party, _), _| !party.shares(cookies));
    }

    /// The peer is another one, which has nothing of what was set before.
    pub(super) fn new_peer(&mut self, backend: BackendName) {
        self.entries.retain(|(_, of), _| *of != backend);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SAME: u64 = 1;

    #[test]
    fn records_that_come_and_change_are_no_quarrel() {
        let start = Instant::now();
        let (one, network) = (VifId(Uuid::from_u128(1)), Party::Sharers("br-int".into(), 7));
        let mut quarrels = Quarrels::default();
        for change in 0..20 {
            quarrels.forget(one);
            assert_eq!(quarrels.changed(one, OPENFLOW, SAME, start), Temper::Calm);
            assert_eq!(
                quarrels.changed(network.clone(), OPENFLOW, change, start),
                Temper::Calm,
                "another member of it"
            );
        }
    }

    #[test]
    fn a_fight_is_a_quarrel_and_stays_one_while_slow_repairs_are_none() {
        let (vif, start) = (VifId(Uuid::from_u128(1)), Instant::now());
        let mut quarrels = Quarrels::default();
        let tempers: Vec<Temper> = (0..11).map(|_| quarrels.changed(vif, OVSDB, SAME, start)).collect();
        assert_eq!(tempers[..5], [Temper::Calm; 5]);
        assert_eq!(tempers[5..10], [Temper::Tense; 5]);
        assert_eq!(tempers[10], Temper::Quarrel);
        assert_eq!(quarrels.changed(vif, LINKS, SAME, start), Temper::Calm, "another backend's is another");
        // After the longest pause it is not forgiven, so that the next pause is not the shortest again.
        quarrels.cool(start + Duration::from_secs(60));
        assert_eq!(quarrels.changed(vif, OVSDB, SAME, start + Duration::from_secs(60)), Temper::Tense);
        let mut slow = Quarrels::default();
        for repair in 0..100 {
            assert_eq!(slow.changed(vif, OVSDB, SAME, start + Duration::from_secs(10 * repair)), Temper::Calm);
        }
        slow.cool(start + Duration::from_secs(2000));
        assert!(slow.entries.is_empty());
    }

    #[test]
    fn a_fight_with_several_moves_is_one_too_and_new_work_never_is() {
        let start = Instant::now();
        let mut fight = Quarrels::default();
        let tempers = (0..20).map(|batch| fight.changed(None, OPENFLOW, batch % 4, start));
        assert!(tempers.collect::<Vec<_>>().contains(&Temper::Quarrel));
        fight.new_peer(OPENFLOW);
        assert_eq!(fight.changed(None, OPENFLOW, 0, start), Temper::Calm, "another switch");
        let mut work = Quarrels::default();
        assert!((0..1000).all(|batch| work.changed(None, OPENFLOW, batch, start) == Temper::Calm));
    }
}
