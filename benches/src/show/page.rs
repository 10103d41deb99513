//! `docs/benchmarks.md`, from one run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::table::{self, Style};
use super::{Run, plot};

/// Writes the page and a plot per chart beside it, and the run itself, into `folder/benchmarks`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(run: &Run, folder: &Path) -> Result<()> {
    let beside = folder.join("benchmarks");
    fs::create_dir_all(&beside).with_context(|| beside.display().to_string())?;
    for chart in run.findings.iter().flat_map(|finding| &finding.charts) {
        plot::draw(chart, &beside.join(format!("{}.svg", chart.name)))?;
    }
    fs::write(beside.join("run.json"), serde_json::to_string_pretty(run)? + "\n")?;
    let page = folder.join("benchmarks.md");
    fs::write(&page, text(run)).with_context(|| page.display().to_string())
}

fn text(run: &Run) -> String {
    let machine = &run.machine;
    let load = machine.load.iter().map(|[minute, _]| *minute);
    let (least, most) = load.fold((f64::INFINITY, 0.0_f64), |(least, most), load| (least.min(load), most.max(load)));
    let mut text = format!(
        "# Benchmarks\n\n\
         Written by `make bench` from one run on one machine (`benchmarks/run.json` has every sample). Ratios are what \
         counts: everybody was measured in turns, so that what else the machine did hit all alike. A cell is the \
         median and, where there are several samples, (least … most).\n\n\
         {} processors ({}), Linux {}, {}. The load average of a minute was {least:.1} to {most:.1} meanwhile.\n\n",
        machine.processors, machine.processor, machine.kernel, machine.ovs,
    );
    text.push_str(
        "## Aims\n\n\
         Where one is missed, the time was looked for and ways were tried: [ADR 9](adr/0009-bulk-removal.md) (unplug), \
         [ADR 12](adr/0012-the-tap-first.md) (plug), [ADR 13](adr/0013-what-a-change-costs.md) (drift, snapshot).\n\n",
    );
    for finding in run.findings.iter().filter(|finding| !finding.aims.is_empty()) {
        let _ = write!(text, "{}\n\n{}\n", finding.title, table::aims(&finding.aims, Style::Markdown));
    }
    for finding in &run.findings {
        let _ = write!(text, "## {}\n\n{}\n\n", finding.title, finding.method);
        for chart in &finding.charts {
            let _ = write!(
                text,
                "![{}](benchmarks/{}.svg)\n\n{}\n",
                chart.title,
                chart.name,
                table::chart(chart, Style::Markdown)
            );
        }
        for note in &finding.notes {
            let _ = write!(text, "{note}\n\n");
        }
    }
    text.trim_end().to_owned() + "\n"
}
