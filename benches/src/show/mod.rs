//! How a run is shown: tables in a terminal and in Markdown, plots. Nothing here measures anything.

pub mod page;
pub mod plot;
pub mod table;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::machine::Machine;

/// A run: everything that is shown of it, and what its JSON holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Whether it was a quick one.
    pub quick: bool,
    /// On what.
    pub machine: Machine,
    /// What was found, in the order of measuring.
    pub findings: Vec<Finding>,
}
