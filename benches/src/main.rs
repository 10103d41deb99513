//! `make bench`: runs measurements, prints their tables, and keeps the run as JSON.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use vifd_benches::Scale;
use vifd_benches::machine::Machine;
use vifd_benches::measurements::ALL;
use vifd_benches::show::{Run, table};

/// Measurements of vifd beside the floor and its peers, on this machine, now.
#[derive(Parser)]
struct Arguments {
    /// Only these measurements, by name, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Small sizes and few rounds
    #[arg(long)]
    quick: bool,
    /// Where the run is kept as JSON
    #[arg(long, default_value = "target/benchmarks/run.json")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.only.iter().find(|name| ALL.iter().all(|known| known.name != *name)) {
        let known: Vec<String> = ALL.iter().map(|one| format!("  {:10} {}", one.name, one.about)).collect();
        bail!("there is no measurement {unknown:?}, but\n{}", known.join("\n"));
    }
    let mut run = Run { quick: arguments.quick, machine: Machine::look(), findings: Vec::new() };
    for one in ALL {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == one.name) {
            continue;
        }
        let finding = (one.run)(Scale { quick: arguments.quick }).with_context(|| format!("measuring {}", one.name))?;
        run.machine.note_load();
        print!("{}", table::finding(&finding));
        run.findings.push(finding);
    }
    if let Some(folder) = arguments.out.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&arguments.out, serde_json::to_string_pretty(&run)? + "\n")?;
    Ok(())
}
