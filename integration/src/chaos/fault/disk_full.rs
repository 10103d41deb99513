//! The file system of the records, of the state, or of both has no room left.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Fault;
use crate::chaos::{Dice, Scene};

/// Hidden, so that it is no record.
const BALLAST: &str = ".ballast";

struct DiskFull {
    records: bool,
    state: bool,
}

pub(super) fn draw(dice: &mut Dice) -> Box<dyn Fault> {
    let (records, state) = dice.pick(&[(true, false), (false, true), (true, true)]);
    Box::new(DiskFull { records, state })
}

impl DiskFull {
    fn files(&self, scene: &Scene) -> Vec<PathBuf> {
        let folders = [(self.records, scene.vifd.records()), (self.state, scene.vifd.state())];
        folders.into_iter().filter(|(full, _)| *full).map(|(_, folder)| folder.join(BALLAST)).collect()
    }
}

impl Fault for DiskFull {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        for path in self.files(scene) {
            let mut ballast = fs::File::create(&path).with_context(|| path.display().to_string())?;
            // The lab's file systems are small; the bound is for one that is not the lab's.
            let full = (0..64).find_map(|_| ballast.write_all(&[0; 64 << 10]).err());
            match full {
                Some(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
                Some(error) => return Err(error).with_context(|| path.display().to_string()),
                None => bail!("{} is not on a small file system", path.display()),
            }
        }
        Ok(())
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        for path in self.files(scene) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for DiskFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = match (self.records, self.state) {
            (true, true) => "records and state",
            (true, false) => "records",
            _ => "state",
        };
        write!(f, "disk full: {which}")
    }
}
