//! vifd's wall clock jumps, forwards or backwards, and back at the end. The host's clock is not touched: libfaketime
//! stands between vifd and the C library, and reads the offset from a file. The monotonic clock goes on, as it does
//! in the kernel when somebody sets the time.

use std::fmt;

use anyhow::Result;

use super::Fault;
use crate::chaos::{Dice, Scene};

struct Jump {
    seconds: i64,
}

pub(super) fn draw(dice: &mut Dice) -> Box<dyn Fault> {
    const DAY: i64 = 86_400;
    let far = [1, 10, 3_600, DAY, 400 * DAY];
    let seconds = dice.pick(&far) * if dice.percent(50) { 1 } else { -1 };
    Box::new(Jump { seconds })
}

impl Fault for Jump {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        scene.set_clock(self.seconds)
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        scene.set_clock(0)
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wall clock jumps by {:+} s", self.seconds)
    }
}
