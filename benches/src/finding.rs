//! What a measurement found, as data: the one form between measurements and whatever shows them, and what the
//! JSON of a run holds.

use serde::{Deserialize, Serialize};

use crate::timing::{median, quantile};

/// What one measurement found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Its name, as `ONLY=` takes it.
    pub name: String,
    /// What was measured, a line.
    pub title: String,
    /// From which moment to which, and what the floor is: a paragraph of Markdown.
    pub method: String,
    /// Samples.
    pub charts: Vec<Chart>,
    /// What is aimed at, and what came out.
    pub aims: Vec<Aim>,
    /// What a reader should know beside the numbers, a paragraph each.
    pub notes: Vec<String>,
}

/// Series over the same sizes, in one unit: a table and a plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chart {
    /// Name of its plot's file, unique in a run.
    pub name: String,
    /// A line.
    pub title: String,
    /// What the sizes are.
    pub x: String,
    /// What the samples are.
    pub unit: Unit,
    /// What is aimed at in this unit, where that is one value for every size.
    pub limit: Option<f64>,
    /// The floor first, then vifd, then peers.
    pub series: Vec<Series>,
}

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The least that any program needs.
    Floor,
    /// vifd.
    Ours,
    /// Another program that does the same.
    Peer,
    /// A part of vifd's or the floor's time, shown for explanation: it has no ratio of its own.
    Part,
}

/// One program's samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Its name.
    pub who: String,
    /// What it is here.
    pub role: Role,
    /// In ascending order of size.
    pub points: Vec<Point>,
}

/// Samples at one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The size.
    pub x: f64,
    /// In the chart's unit. Where several series have the same number of samples, those in one place were taken
    /// one after another.
    pub samples: Vec<f64>,
}

/// What samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Octets.
    Octets,
    /// Percent of one processor core.
    Percent,
    /// A mere number.
    Count,
}

/// What is aimed at. Missing an aim fails nothing: it is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Aim {
    /// The aim, in words.
    pub what: String,
    /// What came out, in words.
    pub found: String,
    /// Whether the aim is met.
    pub met: bool,
}

impl Finding {
    /// A finding without content yet.
    #[must_use]
    pub fn new(name: &str, title: &str, method: &str) -> Finding {
        Finding {
            name: name.to_owned(),
            title: title.to_owned(),
            method: method.split_whitespace().collect::<Vec<_>>().join(" "),
            charts: Vec::new(),
            aims: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds an aim.
    pub fn aim(&mut self, what: &str, found: String, met: bool) {
        self.aims.push(Aim { what: what.to_owned(), found, met });
    }

    /// Adds an aim that `value` must not exceed.
    pub fn at_most(&mut self, what: &str, value: f64, limit: f64, shown: impl Fn(f64) -> String) {
        self.aim(what, shown(value), value <= limit);
    }

    /// Adds an aim that `value` must reach.
    pub fn at_least(&mut self, what: &str, value: f64, limit: f64, shown: impl Fn(f64) -> String) {
        self.aim(what, shown(value), value >= limit);
    }
}

impl Chart {
    /// A chart without series yet.
    #[must_use]
    pub fn new(name: &str, title: &str, x: &str, unit: Unit) -> Chart {
        Chart { name: name.to_owned(), title: title.to_owned(), x: x.to_owned(), unit, limit: None, series: Vec::new() }
    }

    /// Adds samples of `who` at size `x`. A series comes to be with its first samples.
    pub fn add(&mut self, who: &str, role: Role, x: f64, samples: Vec<f64>) {
        let point = Point { x, samples };
        match self.series.iter_mut().find(|series| series.who == who) {
            Some(series) => series.points.push(point),
            None => self.series.push(Series { who: who.to_owned(), role, points: vec![point] }),
        }
    }

    /// The series of that name.
    #[must_use]
    pub fn series(&self, who: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.who == who)
    }

    /// Every size, ascending.
    #[must_use]
    pub fn sizes(&self) -> Vec<f64> {
        let mut sizes: Vec<f64> = self.series.iter().flat_map(|s| s.points.iter().map(|point| point.x)).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        sizes
    }

    /// The median of `who` at size `x`; not a number when it was not measured.
    #[must_use]
    pub fn median(&self, who: &str, x: f64) -> f64 {
        self.point(who, x).map_or(f64::NAN, Point::median)
    }

    /// How many times `of` the `to` is at size `x`: the median over pairs that were taken one after another, where
    /// there are pairs. Not a number when either was not measured.
    #[must_use]
    pub fn ratio(&self, of: &str, to: &str, x: f64) -> f64 {
        self.compare(of, to, x, |of, to| of / to)
    }

    /// What `of` has more than `to` at size `x`, likewise.
    #[must_use]
    pub fn above(&self, of: &str, to: &str, x: f64) -> f64 {
        self.compare(of, to, x, |of, to| of - to)
    }

    fn compare(&self, of: &str, to: &str, x: f64, by: impl Fn(f64, f64) -> f64) -> f64 {
        let (Some(of), Some(to)) = (self.point(of, x), self.point(to, x)) else { return f64::NAN };
        if of.samples.len() == to.samples.len() {
            let pairs: Vec<f64> = of.samples.iter().zip(&to.samples).map(|(of, to)| by(*of, *to)).collect();
            median(&pairs)
        } else {
            by(of.median(), to.median())
        }
    }

    fn point(&self, who: &str, x: f64) -> Option<&Point> {
        self.series(who)?.points.iter().find(|point| (point.x - x).abs() < f64::EPSILON)
    }
}

impl Series {
    /// Slope of the line through the medians of the first and the last size, both axes logarithmic: 1 is linear.
    #[must_use]
    pub fn slope(&self) -> f64 {
        match (self.points.first(), self.points.last()) {
            (Some(first), Some(last)) => (last.median() / first.median()).ln() / (last.x / first.x).ln(),
            _ => f64::NAN,
        }
    }
}

impl Point {
    /// The middle of the samples.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// The least and the largest sample.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        (quantile(&self.samples, 0.0), quantile(&self.samples, 1.0))
    }
}

impl Unit {
    /// A value as people read it.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        if value.is_nan() {
            return "–".to_owned();
        }
        let size = value.abs();
        match self {
            Unit::Seconds if size >= 10.0 => format!("{value:.1} s"),
            Unit::Seconds if size >= 1.0 => format!("{value:.2} s"),
            Unit::Seconds if size >= 0.1 => format!("{:.0} ms", value * 1e3),
            Unit::Seconds if size >= 1e-3 => format!("{:.1} ms", value * 1e3),
            Unit::Seconds if size >= 1e-5 => format!("{:.0} µs", value * 1e6),
            Unit::Seconds => format!("{:.0} ns", value * 1e9),
            Unit::Octets if size >= 1e6 => format!("{:.1} MB", value / 1e6),
            Unit::Octets => format!("{:.0} kB", value / 1e3),
            Unit::Percent => format!("{value:.2} %"),
            Unit::Count => format!("{value}"),
        }
    }
}

/// A ratio as people read it.
#[must_use]
pub fn times(ratio: f64) -> String {
    match ratio {
        _ if ratio.is_nan() => "–".to_owned(),
        _ if ratio.abs() >= 100.0 => format!("{ratio:.0} ×"),
        _ if ratio.abs() >= 10.0 => format!("{ratio:.1} ×"),
        _ => format!("{ratio:.2} ×"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let mut chart = Chart::new("c", "", "VIFs", Unit::Seconds);
        chart.add("floor", Role::Floor, 1.0, vec![1.0, 10.0, 2.0]);
        chart.add("vifd", Role::Ours, 1.0, vec![1.1, 11.0, 2.2]);
        chart.add("peer", Role::Peer, 1.0, vec![4.0]);
        assert!((chart.ratio("vifd", "floor", 1.0) - 1.1).abs() < 1e-9);
        assert!((chart.ratio("peer", "floor", 1.0) - 2.0).abs() < 1e-9);
        assert!(chart.ratio("peer", "floor", 2.0).is_nan());
    }

    #[test]
    fn a_slope_of_one_is_linear() {
        let mut chart = Chart::new("c", "", "VIFs", Unit::Seconds);
        chart.add("vifd", Role::Ours, 250.0, vec![0.5]);
        chart.add("vifd", Role::Ours, 4000.0, vec![8.0]);
        assert!(chart.series("vifd").is_some_and(|series| (series.slope() - 1.0).abs() < 1e-9));
    }

    #[test]
    fn values_are_shown_with_three_figures_or_so() {
        assert_eq!(Unit::Seconds.show(0.0123), "12.3 ms");
        assert_eq!(Unit::Seconds.show(-0.0123), "-12.3 ms");
        assert_eq!(Unit::Seconds.show(1.234e-6), "1234 ns");
        assert_eq!(Unit::Octets.show(39.6e6), "39.6 MB");
        assert_eq!(times(12.345), "12.3 ×");
    }
}
