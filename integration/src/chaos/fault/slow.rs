//! The connection to ovsdb-server trickles or stands still, in one direction.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::Fault;
use crate::chaos::{Dice, Direction, Flow, Scene};

struct Slow {
    direction: Direction,
    flow: Flow,
}

pub(super) fn draw(dice: &mut Dice) -> Box<dyn Fault> {
    let direction = dice.pick(&[Direction::ToServer, Direction::ToClient]);
    let flow = if dice.percent(40) {
        Flow::Stalled
    } else {
        let bytes = usize::try_from(dice.from_to(1, 200)).unwrap_or(1);
        Flow::Trickle { bytes, pause: Duration::from_millis(dice.from_to(1, 10)) }
    };
    Box::new(Slow { direction, flow })
}

impl Fault for Slow {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        scene.proxy.set(self.direction, self.flow);
        Ok(())
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        scene.proxy.set(self.direction, Flow::Free);
        Ok(())
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flow {
            Flow::Trickle { bytes, pause } => {
                write!(f, "connection trickles {}, {bytes} bytes in {pause:?}", self.direction)
            }
            _ => write!(f, "connection stalls {}", self.direction),
        }
    }
}
