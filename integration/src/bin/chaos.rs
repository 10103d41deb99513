//! `make chaos`: rounds of faults for as long as one likes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use vifd_integration::chaos::{Campaign, Life, Round, line};

const USAGE: &str = "chaos [--seed NUMBER] [--rounds NUMBER] [--round NUMBER] [--per-life NUMBER]

  --seed      the first lab's seed, the next ones count up; a new one every time without it
  --rounds    how many rounds, over as many labs as it takes (100)
  --round     only this round of the first lab
  --per-life  rounds in one lab (60)
  --dry       show the rounds and play none";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut campaign = Campaign {
        seed: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs() % 1_000_000_000),
        from: 0,
        rounds: 100,
        per_life: 60,
        failures: 10,
        keep: folder()?,
    };
    let mut arguments = env::args().skip(1);
    let mut dry = false;
    while let Some(name) = arguments.next() {
        if name == "--dry" {
            dry = true;
            continue;
        }
        let Some(value) = arguments.next() else { bail!("{USAGE}") };
        let number: u64 = value.parse().with_context(|| format!("{name} {value}: not a number\n{USAGE}"))?;
        let small = || u32::try_from(number).with_context(|| format!("{name} {value}: too large"));
        match &*name {
            "--seed" => campaign.seed = number,
            "--rounds" => campaign.rounds = small()?,
            "--per-life" => campaign.per_life = small()?.max(1),
            "--round" => (campaign.from, campaign.rounds) = (small()?, 1),
            _ => bail!("{USAGE}"),
        }
    }
    if dry {
        for round in campaign.schedule() {
            print!("{round}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "seed {}: {} rounds, {} in each lab; {}",
        campaign.seed,
        campaign.rounds,
        campaign.per_life,
        Life::of(campaign.seed)
    );
    let start = Instant::now();
    let tally = campaign.run(|round: &Round, report| println!("{}", line(round, report, start)));
    for failure in &tally.failed {
        println!("\nFAILED\n{failure}");
    }
    print!("\n{tally}");
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `target/chaos`, beside the folder of this program.
fn folder() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.ancestors().nth(2).map(Path::to_owned).context("where this program is")?;
    Ok(target.join("chaos"))
}
