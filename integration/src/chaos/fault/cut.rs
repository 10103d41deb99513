//! The connection to ovsdb-server is cut after so many bytes, which is in the middle of a message as a rule.

use std::fmt;

use anyhow::Result;

use super::Fault;
use crate::chaos::{Daemons, Dice, Direction, Flow, Scene};

struct Cut {
    direction: Direction,
    after: u64,
}

pub(super) fn draw(dice: &mut Dice) -> Box<dyn Fault> {
    let direction = dice.pick(&[Direction::ToServer, Direction::ToClient]);
    // The update that is provoked has some 180 bytes, a transaction hundreds for each VIF.
    let after = dice.from_to(1, if direction == Direction::ToClient { 150 } else { 400 });
    Box::new(Cut { direction, after })
}

impl Fault for Cut {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        scene.proxy.set(self.direction, Flow::CutAfter(self.after));
        // Something to be cut, in one direction at least. A server that is away has nothing to say.
        if scene.answers(Daemons::Server) {
            let _ = scene.provoke();
        }
        Ok(())
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        scene.proxy.set(self.direction, Flow::Free);
        Ok(())
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection cut {} bytes {}", self.after, self.direction)
    }
}
