//! What the backend counts. How it is shown is `metrics`' business.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::links::ResyncReason;

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicStatistics {
    /// How often the NICs were read anew without an event that said so, by reason, in the order of [`ResyncReason::ALL`].
    pub resyncs: [u64; ResyncReason::ALL.len()],
    /// Operations for which the kernel or the disk was asked to change something.
    pub writes: u64,
    /// Events after which everything was read, those that came together as one.
    pub events: u64,
    /// How often everything was read.
    pub reads: u64,
    /// What the last reading took, in microseconds.
    pub last_read_us: u64,
}

impl NicStatistics {
    /// How often the NICs were read anew for this reason.
    #[must_use]
    pub fn resyncs_for(&self, reason: ResyncReason) -> u64 {
        self.resyncs[reason as usize]
    }
}

/// The counters behind [`NicStatistics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    resyncs: [AtomicU64; ResyncReason::ALL.len()],
    writes: AtomicU64,
    events: AtomicU64,
    reads: AtomicU64,
    last_read_us: AtomicU64,
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

    pub(super) fn looked(&self, took: std::time::Duration) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.last_read_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> NicStatistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NicStatistics {
            resyncs: std::array::from_fn(|reason| of(&self.resyncs[reason])),
            writes: of(&self.writes),
            events: of(&self.events),
            reads: of(&self.reads),
            last_read_us: of(&self.last_read_us),
        }
    }
}
