//! Decisions from a seed, the same on every machine and in every release. Nothing here is for secrets.

use std::time::Duration;

/// A sequence of decisions. `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a place: a seed, and numbers that say what is decided. Places do not influence each other.
    #[must_use]
    pub fn of(seed: u64, place: &[u64]) -> Dice {
        let mut dice = Dice(seed);
        for number in place {
            dice = Dice(dice.roll() ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        }
        dice
    }

    /// 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn from_to(&mut self, low: u64, high: u64) -> u64 {
        // The bias of the remainder is far below anything that matters here.
        low + self.roll() % (high - low + 1)
    }

    /// A time from `low` to `high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.from_to(low, high))
    }

    /// Yes, in so many cases of a hundred.
    pub fn percent(&mut self, cases: u64) -> bool {
        self.roll() % 100 < cases
    }

    /// One of several; there has to be one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll() % from.len() as u64).unwrap_or_default()]
    }

    /// In an order of its own.
    #[must_use]
    pub fn shuffled<T>(&mut self, from: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut keyed: Vec<(u64, T)> = from.into_iter().map(|item| (self.roll(), item)).collect();
        keyed.sort_by_key(|(key, _)| *key);
        keyed.into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        // The first outputs of the published generator for state 0.
        let mut dice = Dice::of(0, &[]);
        assert_eq!([dice.roll(), dice.roll()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_ne!(Dice::of(1, &[2]).roll(), Dice::of(1, &[3]).roll());
        assert_ne!(Dice::of(1, &[2, 3]).roll(), Dice::of(1, &[3, 2]).roll());
    }

    #[test]
    fn nothing_is_lost_in_shuffling() {
        let mut shuffled = Dice::of(7, &[]).shuffled(0..100);
        assert_ne!(shuffled, (0..100).collect::<Vec<_>>());
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..100).collect::<Vec<_>>());
    }
}
