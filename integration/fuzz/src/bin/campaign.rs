//! `make fuzz`: every target for a while, one after another, and what came of it. The fuzzed program is built by
//! cargo-fuzz beforehand; what it learns is kept below the working folder, seeds are only read.
//!
//! ```text
//! campaign PROGRAM FOLDER SECONDS [TARGET]
//! ```

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use vifd_fuzz::{TARGETS, Target};

/// Resident memory in MiB beyond which an input counts as a crash, and the most for one allocation.
const MEMORY: [&str; 2] = ["-rss_limit_mb=1024", "-malloc_limit_mb=256"];
/// Seconds that one input may take.
const PATIENCE: &str = "-timeout=20";
/// Lines of the fuzzer's that are shown when it ends in a crash.
const SHOWN: usize = 30;

/// What libFuzzer says of itself.
#[derive(Debug, Default)]
struct Run {
    executions: u64,
    per_second: u64,
    coverage: u64,
    memory: u64,
    /// Files with inputs that broke a property.
    crashes: Vec<PathBuf>,
    failed: bool,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (program, folder, seconds, chosen) = match arguments.as_slice() {
        [program, folder, seconds] => (program, folder, seconds, None),
        [program, folder, seconds, target] => (program, folder, seconds, Some(target)),
        _ => bail!("usage: campaign PROGRAM FOLDER SECONDS [TARGET]"),
    };
    let seconds: u64 = seconds.parse().with_context(|| format!("{seconds:?} is no number of seconds"))?;
    let targets = match chosen {
        None => TARGETS.to_vec(),
        Some(name) => vec![Target::named(name).with_context(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            format!("there is no target {name:?}, only {}", names.join(", "))
        })?],
    };
    let mut runs = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        println!("{}/{} {} for {seconds} s", at + 1, targets.len(), target.name);
        runs.push((target, fuzz(Path::new(program), Path::new(folder), target, seconds)?));
    }
    println!();
    println!("{:<16} {:>12} {:>9} {:>9} {:>8} {:>8}", "target", "executions", "per s", "coverage", "MiB", "crashes");
    for (target, run) in &runs {
        let Run { executions, per_second, coverage, memory, crashes, .. } = run;
        let crashes = crashes.len();
        println!("{:<16} {executions:>12} {per_second:>9} {coverage:>9} {memory:>8} {crashes:>8}", target.name);
    }
    for crash in runs.iter().flat_map(|(_, run)| &run.crashes) {
        println!("crash: {}", crash.display());
    }
    let failed = runs.iter().any(|(_, run)| run.failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn fuzz(program: &Path, folder: &Path, target: &Target, seconds: u64) -> Result<Run> {
    let corpus = folder.join("corpus").join(target.name);
    let crashes = folder.join("crashes").join(target.name);
    for folder in [&corpus, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let before = list(&crashes)?;
    let mut child = Command::new(program)
        .env("VIFD_FUZZ_TARGET", target.name)
        .env("RUST_BACKTRACE", "0")
        .args(MEMORY)
        .args([PATIENCE, "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", target.max_len))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        // What is found goes to the first folder.
        .args([&corpus, &target.seeds()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut run = Run::default();
    let mut said = Vec::new();
    let progress = std::io::stdout().is_terminal();
    let stderr = child.stderr.take().context("its standard error")?;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        run.read(&line);
        if progress && line.starts_with('#') {
            print!("\r\x1b[K  {line:.100}\r");
            std::io::Write::flush(&mut std::io::stdout())?;
        }
        if !line.starts_with('#') {
            said.push(line);
        }
    }
    run.failed = !child.wait()?.success();
    run.crashes = list(&crashes)?.into_iter().filter(|file| !before.contains(file)).collect();
    if run.failed {
        println!("{}", said[said.len().saturating_sub(SHOWN)..].join("\n"));
    }
    Ok(run)
}

impl Run {
    /// Takes in a line: `#123 NEW cov: 45 …`, or `stat::name: 67` in the end.
    fn read(&mut self, line: &str) {
        let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
        for (word, field) in [
            (" cov: ", &mut self.coverage),
            ("stat::number_of_executed_units:", &mut self.executions),
            ("stat::average_exec_per_sec:", &mut self.per_second),
            ("stat::peak_rss_mb:", &mut self.memory),
        ] {
            if let Some(value) = line.split_once(word).and_then(|(_, rest)| number(rest)) {
                *field = value;
            }
        }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
