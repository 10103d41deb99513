//! Measurements, as ratios to a floor and to peers in the same run.
//!
//! A measurement is one file under `measurements/` and a line in [`measurements::ALL`]. It gives a [`Finding`]:
//! series of samples by size, and how they compare with what is aimed at. How findings are shown is not its
//! business: `show/` makes tables, plots and `docs/benchmarks.md` of them.
//!
//! What measurements share is here: [`host`] has a switch and a vifd, [`hand`] does by hand, with as little as
//! possible, what vifd does (the floor), [`peer`] has the programs of others, [`timing`] takes turns, [`elsewhere`] is for what
//! this machine as it is cannot show.

pub mod elsewhere;
pub mod finding;
pub mod hand;
pub mod host;
pub mod machine;
pub mod measurements;
pub mod peer;
pub mod show;
pub mod timing;

pub use finding::{Aim, Chart, Finding, Role, Series, Unit};
pub use timing::{median, rounds};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Small sizes and few rounds: whether everything works, not how well.
    pub quick: bool,
}

impl Scale {
    /// One of two, by the scale.
    pub fn pick<T>(self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}
