//! A process is killed, without a chance to say goodbye, and started again a while later.

use std::fmt;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Fault;
use crate::chaos::{Daemons, Dice, Scene};

struct Kill(Daemons);

pub(super) fn draw(process: Daemons, _: &mut Dice) -> Box<dyn Fault> {
    Box::new(Kill(process))
}

impl Fault for Kill {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        scene.end(self.0, Signal::SIGKILL)
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        scene.launch(self.0)
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGKILL to {}", self.0)
    }
}
