//! What a seed decides once for all rounds of a lab.

use std::fmt;

use super::dice::Dice;
use crate::lab::Switch;

/// Whose clock vifd reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's.
    Kernel,
    /// libfaketime's: the wall clock can be made to jump for vifd alone. The monotonic one is left as it is, as
    /// the kernel leaves it when the wall clock is set.
    Faked,
}

/// A lab's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The seed that everything comes from.
    pub seed: u64,
    /// Which ovs-vswitchd.
    pub switch: Switch,
    /// Whose clock.
    pub clock: Clock,
    /// vifd is never ended, so that what it gathers over many rounds is seen.
    pub vifd_stays: bool,
    /// Guests at the beginning.
    pub guests: u32,
}

impl Life {
    /// The life of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Life {
        // By the last bits, so that four seeds in a row have every kind of life.
        let mut dice = Dice::of(seed, &[0]);
        Life {
            seed,
            switch: if seed.is_multiple_of(2) { Switch::Dummy } else { Switch::Userspace },
            clock: if seed % 4 < 2 { Clock::Faked } else { Clock::Kernel },
            vifd_stays: seed % 8 >= 6,
            guests: u32::try_from(dice.from_to(12, 24)).unwrap_or(12),
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Life { seed, switch, clock, vifd_stays, guests } = self;
        let stays = if *vifd_stays { ", vifd is never ended" } else { "" };
        write!(f, "seed {seed}: {switch:?} switch, {clock:?} clock, {guests} guests{stays}")
    }
}
