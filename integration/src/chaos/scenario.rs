//! What the controller and the hands on the host do in a round. A scenario is a file here and a line in [`ALL`].
//! It says *what*, in order; the round spreads it over time.

mod calm;
mod change;
mod drift;
mod mixture;
mod plug;
mod unplug;

use super::dice::Dice;
use super::life::Life;
use super::round::Act;
use super::wanted::Wanted;

/// One way for a round to go.
#[derive(Debug)]
pub struct Scenario {
    /// Its name, as in its file's.
    pub name: &'static str,
    /// What happens, from what is wanted and the dice alone.
    pub acts: fn(&Life, &Wanted, &mut Dice) -> Vec<Act>,
}

/// Every scenario.
pub const ALL: &[Scenario] =
    &[plug::SCENARIO, unplug::SCENARIO, change::SCENARIO, drift::SCENARIO, mixture::SCENARIO, calm::SCENARIO];
