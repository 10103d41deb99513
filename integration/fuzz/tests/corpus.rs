//! Every seed of every target, replayed on an ordinary Rust. Inputs that once broke a property are among them.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use vifd_fuzz::TARGETS;

/// For all seeds together, in bytes: they are cloned by everybody.
const LARGEST_CORPUS: u64 = 1 << 20;

fn files(folder: &PathBuf) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[test]
fn properties_hold_for_every_seed() -> Result<()> {
    for target in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for seed in files(&target.seeds())? {
            let bytes = fs::read(&seed)?;
            let held = catch_unwind(|| (target.check)(&bytes));
            match held {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(_) => anyhow::bail!("a property does not hold for {}", seed.display()),
            }
        }
        println!("{}: {accepted} accepted, {refused} refused", target.name);
        ensure!(accepted > 0 && refused > 0, "{}: {accepted} seeds accepted, {refused} refused", target.name);
    }
    Ok(())
}

#[test]
fn every_folder_of_seeds_is_a_target_s_and_all_are_small() -> Result<()> {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders: BTreeSet<PathBuf> = files(&corpus)?.into_iter().collect();
    assert_eq!(folders, TARGETS.iter().map(vifd_fuzz::Target::seeds).collect());
    let mut size = 0;
    for folder in &folders {
        for seed in files(folder)? {
            size += seed.metadata()?.len();
        }
    }
    ensure!(size <= LARGEST_CORPUS, "the seeds have {size} bytes");
    Ok(())
}
