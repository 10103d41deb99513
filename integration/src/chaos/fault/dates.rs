//! Records carry dates of another time: a clock was wrong when they were written, or a backup kept their dates.

use std::fmt;
use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::Fault;
use crate::chaos::{Dice, Scene};

struct Dates {
    future: bool,
}

pub(super) fn draw(dice: &mut Dice) -> Box<dyn Fault> {
    Box::new(Dates { future: dice.percent(50) })
}

impl Dates {
    fn set(scene: &Scene, time: SystemTime) -> Result<()> {
        for entry in fs::read_dir(scene.vifd.records())? {
            let Ok(file) = File::options().write(true).open(entry?.path()) else {
                // A temporary file of vifd's that was there when the directory was listed.
                continue;
            };
            file.set_times(FileTimes::new().set_modified(time))?;
        }
        Ok(())
    }
}

impl Fault for Dates {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        let decades = Duration::from_secs(20 * 365 * 86_400);
        let time = if self.future { SystemTime::now() + decades } else { SystemTime::UNIX_EPOCH };
        Dates::set(scene, time)
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        Dates::set(scene, SystemTime::now())
    }
}

impl fmt::Display for Dates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "records dated {}", if self.future { "in 20 years" } else { "1970" })
    }
}
