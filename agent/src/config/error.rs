//! What is wrong with a configuration file, told with the key, the line and the line's text.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}{}{}: {reason}{}", path.display(), At(line.as_ref()), Key(key), Excerpt(line.as_ref()))]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Path of the key, e.g. `agent.mode`; empty when the text is not TOML.
        key: String,
        /// One sentence.
        reason: String,
        /// The line, where one is to blame.
        line: Option<Line>,
    },
    /// A key names something that this host does not have.
    #[error("{key}: {reason}")]
    Unresolved {
        /// Path of the key.
        key: &'static str,
        /// One sentence.
        reason: String,
    },
}

/// The line that is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1 on.
    pub number: usize,
    /// The line without its end.
    pub text: String,
    /// The characters of it that are meant, from 0 on.
    pub columns: Range<usize>,
}

impl ConfigError {
    pub(super) fn wrong(path: &Path, text: &str, key: &str, reason: &str, span: Option<Range<usize>>) -> ConfigError {
        ConfigError::Wrong {
            path: path.to_owned(),
            // serde_path_to_error's word for "here".
            key: if key == "." { String::new() } else { key.to_owned() },
            reason: reason.trim_end().replace('\n', "; "),
            line: span.and_then(|span| Line::of(text, span)),
        }
    }
}

impl Line {
    fn of(text: &str, span: Range<usize>) -> Option<Line> {
        let before = text.get(..span.start)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        let first = text[start..span.start].chars().count();
        let marked = text.get(span)?.lines().next().unwrap_or_default().chars().count();
        Some(Line {
            number: before.matches('\n').count() + 1,
            text: line.to_owned(),
            columns: first..first + marked.max(1),
        })
    }
}

struct At<'l>(Option<&'l Line>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{}", line.number))
    }
}

struct Key<'k>(&'k str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

struct Excerpt<'l>(Option<&'l Line>);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Line { number, text, columns }) = self.0 else { return Ok(()) };
        let margin = " ".repeat(number.to_string().len());
        // Tabs stay tabs, so that the carets stand below what they mean.
        let indent: String =
            text.chars().take(columns.start).map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(columns.len());
        write!(f, "\n{margin} |\n{number} | {text}\n{margin} | {indent}{carets}")
    }
}
