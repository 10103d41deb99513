//! A process stands still for a while: it has its connections, and does nothing with them.

use std::fmt;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Fault;
use crate::chaos::{Daemons, Dice, Scene};

struct Stop(Daemons);

pub(super) fn draw(process: Daemons, _: &mut Dice) -> Box<dyn Fault> {
    Box::new(Stop(process))
}

impl Fault for Stop {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        scene.signal(self.0, Signal::SIGSTOP)
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        scene.signal(self.0, Signal::SIGCONT)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGSTOP to {}", self.0)
    }
}
