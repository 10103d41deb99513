//! A chart as an SVG: the floor dashed, what is aimed at dotted, a line for everybody else. Seconds have a
//! logarithmic axis, other units a linear one; sizes have a logarithmic axis unless 0 is among them.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::table::grouped;
use crate::finding::{Chart, Role, Series, Unit};

const SIZE: (u32, u32) = (760, 440);

/// Colours that people who see few colours can tell apart (Okabe and Ito).
const OURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(86, 180, 233), RGBColor(0, 158, 115)];
const PEERS: [RGBColor; 3] = [RGBColor(213, 94, 0), RGBColor(230, 159, 0), RGBColor(204, 121, 167)];
const PART: RGBColor = RGBColor(170, 170, 170);
const AIM: RGBColor = RGBColor(190, 30, 45);

/// The dashes of the floor, and the dots of what is aimed at: pixels drawn, pixels left out.
const DASHES: (i32, i32) = (7, 5);
const DOTS: (i32, i32) = (2, 4);

/// An axis: values, where they lie, and which are named.
struct Axis {
    logarithmic: bool,
    from: f64,
    to: f64,
    named: Vec<f64>,
}

impl Axis {
    fn sizes(chart: &Chart) -> Axis {
        let named = chart.sizes();
        let (first, last) = (named.first().copied().unwrap_or(0.0), named.last().copied().unwrap_or(1.0));
        if first > 0.0 {
            Axis { logarithmic: true, from: first / 1.15, to: last * 1.15, named }
        } else {
            Axis { logarithmic: false, from: -0.03 * last.max(1.0), to: 1.03 * last.max(1.0), named }
        }
    }

    fn values(chart: &Chart) -> Axis {
        let medians = chart.series.iter().flat_map(|series| &series.points).map(crate::finding::Point::median);
        let values: Vec<f64> = medians.chain(chart.limit).filter(|value| *value > 0.0).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if chart.unit != Unit::Seconds || !least.is_finite() {
            let to = 1.1 * most;
            return Axis { logarithmic: false, from: 0.0, to, named: steps(to) };
        }
        let (from, to) = (least / 1.6, most * 1.6);
        let decades = [1.0, 2.0, 5.0].map(|digit| (-9..7).map(move |power| digit * 10_f64.powi(power)));
        let mut named: Vec<f64> = decades.into_iter().flatten().filter(|value| (from..to).contains(value)).collect();
        if to / from > 1000.0 {
            named.retain(|value| (value.log10() - value.log10().round()).abs() < 1e-6);
        }
        Axis { logarithmic: true, from, to, named }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let scale = |value: f64| if self.logarithmic { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let share = (scale(*value) - scale(self.from)) / (scale(self.to) - scale(self.from));
        #[expect(clippy::cast_possible_truncation, reason = "pixels")]
        let place = (f64::from(first) + share * f64::from(last - first)).round() as i32;
        place
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.named.clone()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

/// Round values from 0 to `to`, some five.
fn steps(to: f64) -> Vec<f64> {
    let power = 10_f64.powf((to / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| to / step <= 6.0);
    let step = step.unwrap_or(to);
    (0..7_i32).map(|number| f64::from(number) * step).filter(|value| *value <= to).collect()
}

/// Draws a chart into a file.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(chart: &Chart, file: &Path) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    paint(chart, &root).map_err(|error| anyhow!("drawing {}: {error}", file.display()))
}

fn paint(chart: &Chart, root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<(), String> {
    let (x, y) = (Axis::sizes(chart), Axis::values(chart));
    let told = |error: DrawingAreaErrorKind<std::io::Error>| error.to_string();
    root.fill(&WHITE).map_err(told)?;
    let ends = [x.from, x.to];
    let mut canvas = ChartBuilder::on(root)
        .caption(&chart.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)
        .map_err(told)?;
    canvas
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc(&chart.x)
        .x_label_formatter(&|size| grouped(*size))
        .y_label_formatter(&|value| chart.unit.show(*value))
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(told)?;
    let at = |series: &Series| {
        let places = series.points.iter().map(|point| (point.x, point.median()));
        places.collect::<Vec<_>>()
    };
    let (mut ours, mut peers) = (OURS.iter().cycle(), PEERS.iter().cycle());
    // What explains is drawn beneath what counts.
    let mut series: Vec<&Series> = chart.series.iter().collect();
    series.sort_by_key(|series| series.role != Role::Part);
    for series in series {
        let colour = match series.role {
            Role::Floor => BLACK,
            Role::Ours => *ours.next().unwrap_or(&BLACK),
            Role::Peer => *peers.next().unwrap_or(&BLACK),
            Role::Part => PART,
        };
        let style = colour.stroke_width(2);
        if series.role == Role::Floor {
            let drawn = canvas.draw_series(DashedLineSeries::new(at(series), DASHES.0, DASHES.1, style));
            drawn.map_err(told)?.label(&series.who).legend(move |place| sample(place, DASHES, style));
        } else {
            let drawn = canvas.draw_series(LineSeries::new(at(series), style));
            drawn
                .map_err(told)?
                .label(&series.who)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        let dots = at(series).into_iter().map(|place| Circle::new(place, 3, colour.filled()));
        canvas.draw_series(dots).map_err(told)?;
    }
    if let Some(limit) = chart.limit {
        let line = ends.map(|size| (size, limit));
        let style = AIM.stroke_width(2);
        let drawn = canvas.draw_series(DashedLineSeries::new(line, DOTS.0, DOTS.1, style));
        drawn.map_err(told)?.label("aim").legend(move |place| sample(place, DOTS, style));
    }
    canvas
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 13))
        .draw()
        .map_err(told)?;
    root.present().map_err(told)
}

/// A piece of an interrupted line for the legend.
fn sample(
    (x, y): (i32, i32),
    (drawn, left_out): (i32, i32),
    style: ShapeStyle,
) -> DashedPathElement<std::array::IntoIter<(i32, i32), 2>, i32> {
    DashedPathElement::new([(x, y), (x + 18, y)], drawn, left_out, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_everybody_and_every_size() -> Result<()> {
        let mut chart = Chart::new("c", "Title", "VIFs", Unit::Seconds);
        for x in [250.0, 4000.0] {
            chart.add("floor", Role::Floor, x, vec![x / 1e3]);
            chart.add("vifd", Role::Ours, x, vec![x / 9e2]);
        }
        chart.limit = Some(3.0);
        let mut text = String::new();
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        paint(&chart, &root).map_err(|error| anyhow!(error))?;
        drop(root);
        for word in ["Title", "floor", "vifd", "aim", "250", "4,000"] {
            assert!(text.contains(&format!(">\n{word}\n<")), "{word}: {text}");
        }
        Ok(())
    }

    #[test]
    fn linear_axes_have_round_steps() {
        assert_eq!(steps(44.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(steps(0.55), [0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5]);
    }
}
