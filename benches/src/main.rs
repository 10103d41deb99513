//! `make bench`: runs measurements, prints their tables, and writes the page, the plots and the run.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use vifd_benches::Scale;
use vifd_benches::elsewhere;
use vifd_benches::machine::Machine;
use vifd_benches::measurements::stage::Stage;
use vifd_benches::measurements::{ALL, PARTS};
use vifd_benches::show::{Run, page, table};

/// Measurements of vifd beside the floor and its peers, on this machine, now.
#[derive(Parser)]
struct Arguments {
    /// Only these measurements, by name, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Small sizes and few rounds
    #[arg(long)]
    quick: bool,
    /// Where `benchmarks.md` and the folder `benchmarks` go; `docs` for a whole run, else `target/benchmarks`
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measures nothing, and writes the page and the plots anew from a run that was kept
    #[arg(long, value_name = "RUN.JSON", conflicts_with_all = ["only", "quick"])]
    show: Option<PathBuf>,
    /// What a measurement runs of itself in the VM or in namespaces of its own
    #[arg(long, hide = true, requires = "leave")]
    part: Option<String>,
    /// Where a part leaves what it found
    #[arg(long, hide = true)]
    leave: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(name), Some(file)) = (&arguments.part, &arguments.leave) {
        let part =
            PARTS.iter().find(|(known, _)| known == name).with_context(|| format!("there is no part {name:?}"))?;
        return elsewhere::leave(&part.1(Scale { quick: arguments.quick })?, file);
    }
    let whole = arguments.only.is_empty() && !arguments.quick;
    let out = arguments.out.unwrap_or_else(|| if whole { "docs" } else { "target/benchmarks" }.into());
    if let Some(kept) = arguments.show {
        let text = fs::read_to_string(&kept).with_context(|| kept.display().to_string())?;
        return page::write(&serde_json::from_str(&text)?, &out);
    }
    if let Some(unknown) = arguments.only.iter().find(|name| ALL.iter().all(|known| known.name != *name)) {
        let known: Vec<String> = ALL.iter().map(|one| format!("  {:10} {}", one.name, one.about)).collect();
        bail!("there is no measurement {unknown:?}, but\n{}", known.join("\n"));
    }
    let mut stage = Stage::new(Scale { quick: arguments.quick });
    let mut run = Run { quick: arguments.quick, machine: Machine::look(), findings: Vec::new() };
    for one in ALL {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == one.name) {
            continue;
        }
        let finding = (one.run)(&mut stage).with_context(|| format!("measuring {}", one.name))?;
        run.machine.note_load();
        print!("{}", table::finding(&finding));
        run.findings.push(finding);
    }
    drop(stage);
    page::write(&run, &out)?;
    println!("\n{}", out.join("benchmarks.md").display());
    Ok(())
}
