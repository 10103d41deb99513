//! How answers are written: tables for people, JSON and YAML for programs; colours only where somebody sees them.

use std::io::{self, IsTerminal as _, Write as _};
use std::{env, process};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

use super::Failure;
use crate::status::Phase;

/// Width where there is no terminal to ask.
const WIDTH: usize = 100;

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) format: Format,
    pub(super) paint: Paint,
    /// Whether somebody watches standard output.
    pub(super) terminal: bool,
    /// Columns.
    pub(super) width: usize,
}

/// Colours, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub(super) bool);

impl Output {
    pub(super) fn of_process(format: Format) -> Output {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: present and not empty.
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        let width = if terminal { Table::new().width().map_or(WIDTH, usize::from) } else { WIDTH };
        Output { format, paint: Paint(terminal && !unwanted && !dumb), terminal, width }
    }

    /// Writes to standard output. A reader that has seen enough (`| head`) ends the program.
    pub(super) fn text(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(0),
            Err(error) => {
                eprintln!("vifd: cannot write: {error}");
                process::exit(1);
            }
            Ok(()) => {}
        }
    }

    /// Writes an answer: `table` makes the form for people.
    pub(super) fn answer<T: Serialize>(&self, answer: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
        let fail = |error: &dyn std::fmt::Display| Failure::Other(format!("the answer cannot be written: {error}"));
        let text = match self.format {
            Format::Table => table(),
            Format::Json => serde_json::to_string_pretty(answer).map_err(|error| fail(&error))? + "\n",
            Format::Yaml => serde_yaml_ng::to_string(answer).map_err(|error| fail(&error))?,
        };
        self.text(&text);
        Ok(())
    }

    /// A table without lines.
    pub(super) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
        if self.terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

impl Paint {
    fn with(self, style: Style, text: &str) -> String {
        if self.0 { text.style(style).to_string() } else { text.to_owned() }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with(Style::new().green(), text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with(Style::new().red(), text)
    }

    pub(super) fn pending(self, text: &str) -> String {
        self.with(Style::new().yellow(), text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    /// In the colour of a phase.
    pub(super) fn phase(self, phase: Phase, text: &str) -> String {
        match phase {
            Phase::Ready | Phase::Plugged => self.good(text),
            Phase::Failed | Phase::Conflict => self.bad(text),
            Phase::Pending | Phase::Working | Phase::Waiting | Phase::Removing => self.pending(text),
        }
    }
}

/// The sign of a phase.
pub(super) fn mark(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "✓",
        Phase::Plugged => "○",
        Phase::Pending | Phase::Working | Phase::Waiting => "…",
        Phase::Failed | Phase::Conflict => "✗",
        Phase::Removing => "−",
    }
}

/// Cuts a text to a number of characters; what is cut off shows as `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Fills a text with blanks to a number of characters.
pub(super) fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_characters_not_by_bytes() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(pad("ä", 3), "ä  ");
    }

    #[test]
    fn colours_are_there_only_when_wanted() {
        assert_eq!(Paint(false).good("x"), "x");
        assert!(Paint(true).good("x").contains("\u{1b}["));
    }
}
