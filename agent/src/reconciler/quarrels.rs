//! Quarrels: somebody who changes back whatever vifd sets. Operations succeed every time, so nothing holds them, and
//! both sides would write as fast as they can. Every batch for a VIF heats its quarrel up, time cools it down; while it
//! is hot the VIF is left alone, longer each time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backend::Party;
use crate::model::VifId;
use crate::plan::{BackendName, LINKS, OPENFLOW, OVSDB};

/// What one batch adds; a second takes a second off. A plug takes two or three batches.
const BATCH: Duration = Duration::from_secs(10);
/// From here on it is a quarrel.
const HOT: Duration = Duration::from_secs(100);
/// Below this it is over.
const COLD: Duration = Duration::from_secs(50);

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

/// Heat by party and backend, as of a time.
#[derive(Debug, Default)]
pub(super) struct Quarrels {
    heat: BTreeMap<(Party, BackendName), (Duration, Instant)>,
}

impl Quarrels {
    /// A batch was carried out for this party.
    pub(super) fn changed(&mut self, party: impl Into<Party>, backend: BackendName, now: Instant) -> Temper {
        let (heat, since) = self.heat.entry((party.into(), backend)).or_insert((Duration::ZERO, now));
        *heat = (heat.saturating_sub(now.duration_since(*since)) + BATCH).min(HOT + BATCH);
        *since = now;
        match *heat {
            heat if heat >= HOT => Temper::Quarrel,
            heat if heat >= COLD => Temper::Tense,
            _ => Temper::Calm,
        }
    }

    /// Drops what has cooled down; once per report, not per VIF.
    pub(super) fn cool(&mut self, now: Instant) {
        self.heat.retain(|_, (heat, since)| now.duration_since(*since) < *heat);
    }

    /// The record changed, so there is reason for work: on the VIF, and on what it shares.
    pub(super) fn forget(&mut self, vif: VifId) {
        for backend in [LINKS, OVSDB, OPENFLOW] {
            self.heat.remove(&(Party::Vif(vif), backend));
        }
        self.heat.retain(|(party, _), _| party.vif().is_some());
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn records_that_come_and_change_are_no_quarrel() {
        let start = Instant::now();
        let (one, network) = (VifId(Uuid::from_u128(1)), Party::Sharers("br-int".into(), 7));
        let mut quarrels = Quarrels::default();
        for _ in 0..20 {
            quarrels.forget(one);
            assert_eq!(quarrels.changed(one, OPENFLOW, start), Temper::Calm);
            assert_eq!(quarrels.changed(network.clone(), OPENFLOW, start), Temper::Calm, "another member of it");
        }
    }

    #[test]
    fn a_fight_is_a_quarrel_and_stays_one_while_slow_repairs_are_none() {
        let (vif, start) = (Some(VifId(Uuid::from_u128(1))), Instant::now());
        let mut quarrels = Quarrels::default();
        let tempers: Vec<Temper> = (0..10).map(|_| quarrels.changed(vif, OVSDB, start)).collect();
        assert_eq!(tempers[..4], [Temper::Calm; 4]);
        assert_eq!(tempers[4..9], [Temper::Tense; 5]);
        assert_eq!(tempers[9], Temper::Quarrel);
        assert_eq!(quarrels.changed(vif, LINKS, start), Temper::Calm, "another backend's is another");
        // After the longest pause it is not forgiven, so that the next pause is not the shortest again.
        assert_eq!(quarrels.changed(vif, OVSDB, start + Duration::from_secs(60)), Temper::Tense);
        let mut slow = Quarrels::default();
        for repair in 0..100 {
            assert_eq!(slow.changed(vif, OVSDB, start + Duration::from_secs(10 * repair)), Temper::Calm);
        }
        slow.cool(start + Duration::from_secs(2000));
        assert!(slow.heat.is_empty());
    }
}
