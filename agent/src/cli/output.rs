//! How answers are written: tables for people, JSON and YAML for programs; colours only where somebody sees them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::{env, process};

use clap::ValueEnum;
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

use super::Failure;
use crate::api::body::{ErrorBody, ErrorDetail};
use crate::record::Warning;
use crate::status::{Phase, Truth};

/// Width where there is no terminal to ask.
const WIDTH: usize = 100;
/// Narrower ones are written to as if they were this wide.
const NARROWEST: usize = 40;

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
        // A terminal that nobody gave a size says 0.
        let asked = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        let width = asked.filter(|width| *width > 0).unwrap_or(WIDTH).max(NARROWEST);
        Output { format, paint: Paint(terminal && !unwanted && !dumb), terminal, width }
    }

    /// Without colours, lines as long as they are.
    #[cfg(test)]
    pub(super) fn plain() -> Output {
        Output { format: Format::Table, paint: Paint(false), terminal: false, width: WIDTH }
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

    /// Writes what went wrong to standard error: a line for people, an object as the API has it for programs.
    pub(super) fn error(&self, code: &str, field: &str, message: &str) {
        let error = ErrorDetail { code: code.to_owned(), field: field.to_owned(), message: message.to_owned() };
        self.beside(&ErrorBody { error, status: None }, message);
    }

    /// Writes what is odd and keeps nobody from anything to standard error, likewise.
    pub(super) fn warning(&self, field: &str, message: &str) {
        let warning = Warning { field: field.to_owned(), message: message.to_owned() };
        self.beside(&BTreeMap::from([("warning", warning)]), message);
    }

    /// For people a line on standard error, for programs an object: on a line of its own, or a document of YAML.
    fn beside<T: Serialize>(&self, object: &T, message: &str) {
        let text = match self.format {
            Format::Table => None,
            Format::Json => serde_json::to_string(object).ok().map(|text| text + "\n"),
            Format::Yaml => serde_yaml_ng::to_string(object).ok().map(|text| format!("---\n{text}")),
        };
        eprint!("{}", text.unwrap_or_else(|| format!("vifd: {message}\n")));
    }

    /// The same with lines as long as they are.
    pub(super) fn uncut(self) -> Output {
        Output { width: usize::MAX, ..self }
    }

    /// A table without lines. On a terminal the last column is cut, so that a row is a line.
    pub(super) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
        let header: Vec<Cell> = header.iter().map(|title| Cell::from((*title).to_owned())).collect();
        let rows: Vec<Vec<Cell>> = std::iter::once(header).chain(rows).collect();
        let mut widths: Vec<usize> = Vec::new();
        for (at, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
            widths.resize(widths.len().max(at + 1), 0);
            widths[at] = widths[at].max(cell.text.chars().count());
        }
        let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
        if let Some(last) = widths.last_mut().filter(|_| self.terminal) {
            *last = (*last).min(self.width.saturating_sub(before).max(NARROWEST / 2));
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let content = pad(&cut(&cell.text, *width), *width);
                line.push_str(&cell.colour.map_or_else(|| content.clone(), |style| self.paint.with(style, &content)));
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<Style>,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, colour: None }
    }
}

impl Cell {
    pub(super) fn phase(phase: Phase, text: &str) -> Cell {
        Cell { text: text.to_owned(), colour: Some(phase_style(phase)) }
    }

    pub(super) fn truth(truth: Truth) -> Cell {
        let colour = match truth {
            Truth::True => Style::new().green(),
            Truth::False => Style::new().red(),
            Truth::Unknown => Style::new().yellow(),
        };
        Cell { text: format!("{truth:?}"), colour: Some(colour) }
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
        self.with(phase_style(phase), text)
    }
}

fn phase_style(phase: Phase) -> Style {
    match phase {
        Phase::Ready | Phase::Plugged => Style::new().green(),
        Phase::Failed | Phase::Conflict => Style::new().red(),
        Phase::Pending | Phase::Working | Phase::Waiting | Phase::Removing => Style::new().yellow(),
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

/// Breaks a text between words into lines of at most `width` characters; there is always one. A word that is longer is
/// broken too: nothing is lost.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if room < width && rest.len() < room {
            lines.last_mut().unwrap_or(&mut String::new()).push(' ');
            room -= 1;
        } else if room < width {
            lines.push(String::new());
            room = width;
        }
        while rest.len() > room {
            let more = rest.split_off(room);
            lines.last_mut().unwrap_or(&mut String::new()).extend(rest);
            lines.push(String::new());
            (rest, room) = (more, width);
        }
        room -= rest.len();
        lines.last_mut().unwrap_or(&mut String::new()).extend(rest);
    }
    lines
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
    fn texts_are_broken_between_words_and_nothing_is_lost() {
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("ein Wort", 20), ["ein Wort"]);
        assert_eq!(wrap("ein größeres Wort", 8), ["ein", "größeres", "Wort"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
    }

    #[test]
    fn a_row_is_a_line_however_narrow_the_terminal_and_colours_take_no_room() {
        let rows = || {
            let row = |name: &str| vec![Cell::phase(Phase::Ready, name), "a long sentence ".repeat(9).into()];
            [row("a"), row("tap1")]
        };
        let mut output = Output { format: Format::Table, paint: Paint(false), terminal: true, width: 60 };
        let plain = output.table(&["PORT", "MESSAGE"], rows());
        assert_eq!(plain.lines().count(), 3);
        assert!(plain.lines().all(|line| line.chars().count() <= 60), "{plain}");
        assert!(plain.lines().nth(1).is_some_and(|line| line.starts_with("a     a long")), "{plain}");
        output.paint = Paint(true);
        let coloured = output.table(&["PORT", "MESSAGE"], rows());
        assert_eq!(coloured.replace("\u{1b}[32m", "").replace("\u{1b}[0m", ""), plain);
        output.terminal = false;
        assert!(output.table(&["PORT", "MESSAGE"], rows()).lines().any(|line| line.len() > 100));
    }

    #[test]
    fn colours_are_there_only_when_wanted() {
        assert_eq!(Paint(false).good("x"), "x");
        assert!(Paint(true).good("x").contains("\u{1b}["));
    }
}
