//! Measurements, as ratios against a peer or a floor in the same run; each is one file under `benches/`.
//!
//! Here: what they share, which is how a time is taken.

use std::time::{Duration, Instant};

/// The least time of `runs` runs of `work`: what the work costs when nothing else got in its way.
pub fn least<T>(runs: u32, mut work: impl FnMut() -> T) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        let kept = work();
        let took = start.elapsed();
        drop(kept);
        took
    };
    (0..runs).map(timed).min().unwrap_or_default()
}
