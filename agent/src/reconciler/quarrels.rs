//! Quarrels: somebody who changes back whatever vifd sets. Operations succeed every time, so nothing holds them, and
//! both sides would write as fast as they can. After a few rounds the VIF is left alone for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::VifId;
use crate::plan::BackendName;

/// A plug takes two or three batches. So many within `WINDOW` are not a plug.
const ROUNDS: u32 = 10;
/// What counts as "in a row".
const WINDOW: Duration = Duration::from_secs(10);

/// Batches carried out, by VIF and backend, with the time of the first that counts.
#[derive(Debug, Default)]
pub(super) struct Quarrels {
    rounds: BTreeMap<(VifId, BackendName), (u32, Instant)>,
}

impl Quarrels {
    /// A batch was carried out for this VIF. Answers how many there were in a row when they are too many.
    pub(super) fn changed(&mut self, vif: Option<VifId>, backend: BackendName, now: Instant) -> Option<u32> {
        let vif = vif?;
        self.rounds.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        let (rounds, _) = self.rounds.entry((vif, backend)).or_insert((0, now));
        *rounds += 1;
        (*rounds >= ROUNDS).then_some(*rounds)
    }

    /// The record changed, so there is reason for work.
    pub(super) fn forget(&mut self, vif: VifId) {
        self.rounds.retain(|(of, _), _| *of != vif);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn ten_rounds_in_ten_seconds_are_a_quarrel_and_slow_repairs_are_none() {
        let (vif, start) = (VifId(Uuid::from_u128(1)), Instant::now());
        let mut quarrels = Quarrels::default();
        for round in 1..ROUNDS {
            assert_eq!(quarrels.changed(Some(vif), "ovsdb", start + Duration::from_millis(u64::from(round))), None);
        }
        assert_eq!(quarrels.changed(Some(vif), "links", start), None);
        assert_eq!(quarrels.changed(Some(vif), "ovsdb", start + Duration::from_secs(1)), Some(ROUNDS));
        let mut slow = Quarrels::default();
        for round in 0..100 {
            assert_eq!(slow.changed(Some(vif), "ovsdb", start + Duration::from_secs(2 * round)), None);
        }
    }
}
