//! Tables: ratios first, then what was measured.

use std::fmt::Write as _;

use crate::finding::{Aim, Chart, Finding, Role, times};

/// How a table's lines are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For a terminal.
    Plain,
    /// A table of Markdown.
    Markdown,
}

/// A table of a chart: a row per size.
#[must_use]
pub fn chart(chart: &Chart, style: Style) -> String {
    let floor = chart.series.iter().find(|series| series.role == Role::Floor).map(|series| series.who.as_str());
    let ours = chart.series.iter().find(|series| series.role == Role::Ours).map(|series| series.who.as_str());
    let mut head = vec![chart.x.clone()];
    // Of whom to whom.
    let mut ratios = Vec::new();
    for series in &chart.series {
        let base = match series.role {
            Role::Ours => floor,
            Role::Peer => ours,
            Role::Floor | Role::Part => None,
        };
        if let Some(base) = base {
            ratios.push((series.who.as_str(), base));
            head.push(format!("{} ÷ {base}", series.who));
        }
    }
    head.extend(chart.series.iter().map(|series| series.who.clone()));
    let mut rows = Vec::new();
    for x in chart.sizes() {
        let mut row = vec![grouped(x)];
        row.extend(ratios.iter().map(|(of, to)| times(chart.ratio(of, to, x))));
        for series in &chart.series {
            let point = series.points.iter().find(|point| (point.x - x).abs() < f64::EPSILON);
            row.push(point.map_or_else(
                || "–".to_owned(),
                |point| {
                    let (least, most) = point.range();
                    let show = |value| chart.unit.show(value);
                    match point.samples.len() {
                        1 => show(point.median()),
                        _ => format!("{} ({} … {})", show(point.median()), show(least), show(most)),
                    }
                },
            ));
        }
        rows.push(row);
    }
    lines(&head, &rows, style)
}

/// A table of aims.
#[must_use]
pub fn aims(aims: &[Aim], style: Style) -> String {
    let head = ["aim", "found", ""].map(str::to_owned);
    let rows: Vec<Vec<String>> = aims
        .iter()
        .map(|aim| vec![aim.what.clone(), aim.found.clone(), if aim.met { "met" } else { "missed" }.to_owned()])
        .collect();
    lines(&head, &rows, style)
}

/// A finding for a terminal.
#[must_use]
pub fn finding(finding: &Finding) -> String {
    let mut text = format!("\n{}\n", finding.title);
    for one in &finding.charts {
        let _ = write!(text, "\n  {} (median, least … most)\n\n{}", one.title, chart(one, Style::Plain));
    }
    if !finding.aims.is_empty() {
        let _ = write!(text, "\n{}", aims(&finding.aims, Style::Plain));
    }
    text
}

fn lines(head: &[String], rows: &[Vec<String>], style: Style) -> String {
    let mut text = String::new();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).chain(head.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = match style {
            Style::Plain => writeln!(text, "  {}", padded.collect::<Vec<_>>().join("  ").trim_end()),
            Style::Markdown => writeln!(text, "| {} |", padded.collect::<Vec<_>>().join(" | ")),
        };
    };
    line(head);
    line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}

/// A size with its thousands apart.
#[must_use]
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Unit;

    #[test]
    fn ratios_come_first_and_what_was_not_measured_is_a_dash() {
        let mut one = Chart::new("c", "", "VIFs", Unit::Seconds);
        one.add("floor", Role::Floor, 1000.0, vec![1.0, 2.0, 3.0]);
        one.add("vifd", Role::Ours, 1000.0, vec![1.1, 2.2, 3.3]);
        one.add("peer", Role::Peer, 250.0, vec![9.0]);
        let text = chart(&one, Style::Markdown);
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[0][1..7], ["VIFs", "vifd ÷ floor", "peer ÷ vifd", "floor", "vifd", "peer"]);
        assert_eq!(rows[2][1..7], ["250", "–", "–", "–", "–", "9.00 s"]);
        assert_eq!(rows[3][1..4], ["1,000", "1.10 ×", "–"]);
        assert_eq!(rows[3][4], "2.00 s (1.00 s … 3.00 s)");
    }
}
