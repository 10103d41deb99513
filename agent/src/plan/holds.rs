//! Holds: a VIF whose operation was refused is left alone for a while, alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{BackendName, LINKS, NICS, OPENFLOW, OVSDB};
use crate::backend::Party;
use crate::model::VifId;

/// First pause after a refusal; it doubles with every further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// So many failed guards in a row are bad luck: plan again at once. More are a quarrel with somebody who
/// changes the same rows, and get pauses too.
const QUICK_CONFLICTS: u32 = 3;

/// The pause after a refusal that so many came before.
fn pause(before: u32) -> Duration {
    FIRST.saturating_mul(1 << before.min(16)).min(LONGEST)
}

/// Why somebody is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer refused an operation.
    Refused,
    /// The peer does what it is told, and somebody else undoes it again and again.
    Quarrel,
}

/// One hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Why.
    pub cause: Cause,
    /// What the peer said, or what was undone.
    pub error: String,
    /// When to try again.
    pub until: Instant,
    /// Refusals in a row.
    pub refusals: u32,
}

/// The holds in force, by backend and who is held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holds {
    entries: BTreeMap<(Party, BackendName), Hold>,
    /// Backends whose peer refuses everything: a full disk, a lock that is somebody else's.
    peers: BTreeMap<BackendName, Hold>,
}

impl Holds {
    /// The hold that keeps `backend` from working for `party` at `now`.
    #[must_use]
    pub fn in_force(&self, party: impl Into<Party>, backend: BackendName, now: Instant) -> Option<&Hold> {
        self.entries.get(&(party.into(), backend)).filter(|hold| hold.until > now)
    }

    /// Whether `party` was refused the last time, held for it at the moment or being tried again.
    #[must_use]
    pub fn is_refused(&self, party: impl Into<Party>, backend: BackendName) -> bool {
        self.entries.contains_key(&(party.into(), backend))
    }

    /// The peer refused: hold, longer each time.
    pub fn refused(&mut self, party: impl Into<Party>, backend: BackendName, error: String, now: Instant) {
        self.hold(party.into(), backend, Cause::Refused, error, now, |refusals| pause(refusals - 1));
    }

    /// Somebody undoes what is done: hold, longer each time. `what` was done once more.
    pub fn quarrelled(&mut self, party: impl Into<Party>, backend: BackendName, what: String, now: Instant) {
        self.hold(party.into(), backend, Cause::Quarrel, what, now, |refusals| pause(refusals - 1));
    }

    /// What was said of a party at its last refusal, whether it is tried again by now or not.
    #[must_use]
    pub fn last_word(&self, party: impl Into<Party>, backend: BackendName) -> Option<&str> {
        self.entries.get(&(party.into(), backend)).map(|hold| hold.error.as_str())
    }

    /// A guard did not hold: at first that means only to plan again.
    pub fn conflicted(&mut self, party: impl Into<Party>, backend: BackendName, error: String, now: Instant) {
        self.hold(party.into(), backend, Cause::Refused, error, now, |refusals| {
            match refusals.checked_sub(QUICK_CONFLICTS + 1) {
                None => Duration::ZERO,
                Some(more) => pause(more),
            }
        });
    }

    fn hold(
        &mut self,
        party: Party,
        backend: BackendName,
        cause: Cause,
        error: String,
        now: Instant,
        pause: impl Fn(u32) -> Duration,
    ) {
        // A network that is not there any more is not tried again, and nobody says so.
        let lasts = |party: &Party| party.vif().is_some() || matches!(party, Party::NicMode(_));
        self.entries.retain(|(party, _), hold| lasts(party) || hold.until + LONGEST > now);
        let refusals = self.entries.get(&(party.clone(), backend)).map_or(0, |hold| hold.refusals).saturating_add(1);
        self.entries.insert((party, backend), Hold { cause, error, until: now + pause(refusals), refusals });
    }

    /// The operation went through.
    pub fn succeeded(&mut self, party: impl Into<Party>, backend: BackendName) {
        self.entries.remove(&(party.into(), backend));
    }

    /// The peer refuses whatever is asked of it, for a reason that is no VIF's.
    pub fn peer_refused(&mut self, backend: BackendName, error: String, now: Instant) {
        let refusals = self.peers.get(backend).map_or(0, |hold| hold.refusals).saturating_add(1);
        let pause = pause(refusals - 1);
        self.peers.insert(backend, Hold { cause: Cause::Refused, error, until: now + pause, refusals });
    }

    /// The peer does what it is asked again.
    pub fn peer_answered(&mut self, backend: BackendName) {
        self.peers.remove(backend);
    }

    /// The hold that keeps everything from `backend` at `now`.
    #[must_use]
    pub fn of_peer(&self, backend: BackendName, now: Instant) -> Option<&Hold> {
        self.peers.get(backend).filter(|hold| hold.until > now)
    }

    /// The record changed: whatever was wrong with the old one says nothing of the new.
    pub fn forget(&mut self, vif: VifId) {
        for backend in [LINKS, NICS, OVSDB, OPENFLOW] {
            self.entries.remove(&(Party::Vif(vif), backend));
        }
    }

    /// The same of what VIFs share, by the cookies of the flows, on whatever bridge: it is tried again at once. That it was
    /// refused is true until then, and nobody is told ready in between.
    pub fn forget_sharers(&mut self, cookies: &BTreeSet<u64>, now: Instant) {
        for ((party, _), hold) in &mut self.entries {
            if party.shares(cookies) {
                (hold.until, hold.refusals) = (hold.until.min(now), 0);
            }
        }
    }

    /// Drops the refusals of sharers for whom there is nothing to do any more; those in `busy` have something. Who is held
    /// at `now` has, and is not planned for. Quarrels stay: they are with somebody who undoes it later.
    pub fn retain_sharers(&mut self, backend: BackendName, busy: &BTreeSet<&Party>, now: Instant) {
        self.entries.retain(|(party, of), hold| {
            let is_over = hold.cause == Cause::Refused && hold.until <= now && !busy.contains(party);
            !(*of == backend && matches!(party, Party::Sharers(..)) && is_over)
        });
    }

    /// The peer is another one, which has refused nothing yet.
    pub fn new_peer(&mut self, backend: BackendName) {
        self.entries.retain(|(_, of), _| *of != backend);
        self.peer_answered(backend);
    }

    /// Drops what is held for VIFs that are not there any more.
    pub fn retain(&mut self, there: impl Fn(&VifId) -> bool) {
        self.entries.retain(|(party, _), _| party.vif().as_ref().is_none_or(&there));
    }

    /// When the next hold in force at `now` ends.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.entries.values().chain(self.peers.values()).map(|hold| hold.until).filter(|until| *until > now).min()
    }

    /// Holds in force at `now`, by backend.
    #[must_use]
    pub fn count(&self, now: Instant) -> BTreeMap<BackendName, usize> {
        let mut counts = BTreeMap::new();
        for ((_, backend), hold) in &self.entries {
            if hold.until > now {
                *counts.entry(*backend).or_default() += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_success() {
        let start = Instant::now();
        let mut holds = Holds::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            holds.refused(None, "ovsdb", "no".into(), start);
            pauses.push(holds.next(start).unwrap().duration_since(start).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(holds.in_force(None, "ovsdb", start + LONGEST).is_none());
        holds.succeeded(None, "ovsdb");
        assert_eq!(holds, Holds::default());
    }

    #[test]
    fn three_conflicts_are_bad_luck_the_fourth_pauses() {
        let start = Instant::now();
        let mut holds = Holds::default();
        for _ in 0..3 {
            holds.conflicted(None, "ovsdb", "moved".into(), start);
            assert!(holds.in_force(None, "ovsdb", start).is_none());
        }
        holds.conflicted(None, "ovsdb", "moved".into(), start);
        assert!(holds.in_force(None, "ovsdb", start).is_some());
    }

    #[test]
    fn what_others_share_is_tried_again_at_once_and_was_refused_until_it_is_done_or_nothing_is_to_be() {
        let (mut holds, start) = (Holds::default(), Instant::now());
        let party = Party::Sharers("br-int".into(), 1);
        for _ in 0..3 {
            holds.refused(party.clone(), OPENFLOW, "full".into(), start);
        }
        holds.forget_sharers(&[1].into(), start);
        assert!(holds.in_force(party.clone(), OPENFLOW, start).is_none());
        assert!(holds.is_refused(party.clone(), OPENFLOW));
        holds.retain_sharers(OPENFLOW, &[&party].into(), start);
        assert!(holds.is_refused(party.clone(), OPENFLOW));
        holds.refused(party.clone(), OPENFLOW, "full".into(), start);
        assert_eq!(holds.next(start), Some(start + FIRST), "the pauses begin anew");
        holds.retain_sharers(OPENFLOW, &BTreeSet::new(), start);
        assert!(holds.is_refused(party.clone(), OPENFLOW), "nothing is planned for who is held");
        holds.retain_sharers(OPENFLOW, &BTreeSet::new(), start + FIRST);
        assert_eq!(holds, Holds::default());
    }

    #[test]
    fn one_network_is_held_and_no_other_nor_for_ever() {
        let (mut holds, start) = (Holds::default(), Instant::now());
        let network = |bridge: &str, cookie| Party::Sharers(bridge.into(), cookie);
        holds.refused(network("br-int", 1), OPENFLOW, "full".into(), start);
        assert!(holds.in_force(network("br-int", 1), OPENFLOW, start).is_some());
        for other in [network("br-int", 2), network("br-ex", 1), Party::All] {
            assert!(holds.in_force(other, OPENFLOW, start).is_none());
        }
        // It is gone meanwhile, and was never tried again.
        holds.refused(network("br-int", 2), OPENFLOW, "full".into(), start + 2 * LONGEST);
        assert_eq!(holds.entries.len(), 1);
    }
}
