//! What the backend counts. How it is shown is `metrics`' business.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why the kernel's links were listed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResyncReason {
    /// The first time.
    Start,
    /// The kernel had to drop notifications (`ENOBUFS`).
    Overrun,
    /// The netlink socket ended.
    ConnectionLost,
    /// The kernel did not answer, or did not make sense.
    NoAnswer,
    /// Links came or went while they were listed (`NLM_F_DUMP_INTR`).
    Interrupted,
    /// The guard of an operation did not hold: the view may be wrong.
    Conflict,
}

impl ResyncReason {
    /// Every reason.
    pub const ALL: [ResyncReason; 6] = [
        ResyncReason::Start,
        ResyncReason::Overrun,
        ResyncReason::ConnectionLost,
        ResyncReason::NoAnswer,
        ResyncReason::Interrupted,
        ResyncReason::Conflict,
    ];
}

impl ResyncReason {
    /// The word for metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ResyncReason::Start => "start",
            ResyncReason::Overrun => "overrun",
            ResyncReason::ConnectionLost => "connection_lost",
            ResyncReason::NoAnswer => "no_answer",
            ResyncReason::Interrupted => "interrupted",
            ResyncReason::Conflict => "conflict",
        }
    }
}

impl fmt::Display for ResyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// How often the kernel's links were listed, by reason, in the order of [`ResyncReason::ALL`].
    pub resyncs: [u64; ResyncReason::ALL.len()],
    /// Operations whose guard held, so that the kernel or the file system was asked to change something.
    pub writes: u64,
    /// Notifications about links.
    pub events: u64,
}

impl LinkStatistics {
    /// How often the kernel's links were listed for this reason.
    #[must_use]
    pub fn resyncs_for(&self, reason: ResyncReason) -> u64 {
        self.resyncs[reason as usize]
    }
}

/// The counters behind [`LinkStatistics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    resyncs: [AtomicU64; ResyncReason::ALL.len()],
    writes: AtomicU64,
    events: AtomicU64,
}

impl Counters {
    pub(super) fn resync(&self, reason: ResyncReason) {
        self.resyncs[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, operations: u64) {
        self.writes.fetch_add(operations, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> LinkStatistics {
        LinkStatistics {
            resyncs: std::array::from_fn(|reason| self.resyncs[reason].load(Ordering::Relaxed)),
            writes: self.writes.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let counters = Counters::default();
        for (times, reason) in ResyncReason::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.resync(reason));
        }
        let read = counters.read();
        for (times, reason) in ResyncReason::ALL.into_iter().enumerate() {
            assert_eq!(read.resyncs_for(reason), times as u64 + 1, "{reason}");
        }
        let names: std::collections::BTreeSet<_> = ResyncReason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), ResyncReason::ALL.len());
    }
}
