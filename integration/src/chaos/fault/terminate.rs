//! A process is asked to end, ends, and is started again a while later.

use std::fmt;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Fault;
use crate::chaos::{Daemons, Dice, Scene};

struct Terminate(Daemons);

pub(super) fn draw(process: Daemons, _: &mut Dice) -> Box<dyn Fault> {
    Box::new(Terminate(process))
}

impl Fault for Terminate {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        scene.end(self.0, Signal::SIGTERM)
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        scene.launch(self.0)
    }
}

impl fmt::Display for Terminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGTERM to {}", self.0)
    }
}
