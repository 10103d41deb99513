//! Taking times so that the machine's noise hits everybody alike.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The least time of `runs` runs of `work`: what the work costs when nothing else got in its way. For work
/// within this process that waits for nobody.
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

/// The middle of some samples; of an even number, between the two in the middle. 0 of none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The value below which the share `q` (0 to 1) of the samples lies, between neighbours by distance. 0 of none.
#[must_use]
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples at most")]
    let place = q.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `last`")]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// Has every side measured once per round, in turns, and the order turned around from round to round, so that a
/// machine that gets slower meanwhile favours nobody. Gives the samples by side.
///
/// # Errors
/// The first that a side gives; it says which side and round.
pub fn rounds<T, const SIDES: usize>(
    rounds: usize,
    mut measure: impl FnMut(usize, usize) -> Result<T>,
) -> Result<[Vec<T>; SIDES]> {
    let mut samples: [Vec<T>; SIDES] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..rounds {
        for turn in 0..SIDES {
            let side = if round % 2 == 0 { turn } else { SIDES - 1 - turn };
            let sample = measure(side, round).map_err(|e| e.context(format!("round {round} of side {side}")))?;
            samples[side].push(sample);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 1.0), 5.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
    }

    #[test]
    fn sides_take_turns_and_the_order_turns_around() -> Result<()> {
        let mut order = Vec::new();
        let samples: [Vec<f64>; 2] = rounds(2, |side, round| {
            order.push((round, side));
            Ok(f64::from(u8::try_from(side)?))
        })?;
        assert_eq!(order, [(0, 0), (0, 1), (1, 1), (1, 0)]);
        assert_eq!(samples, [vec![0.0, 0.0], vec![1.0, 1.0]]);
        Ok(())
    }
}
