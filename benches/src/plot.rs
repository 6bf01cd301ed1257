//! Pictures as SVG text: lines, points and bars on linear or logarithmic axes.

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::record::{Axis, Mark, Plot, digits};

const SIZE: (u32, u32) = (760, 420);
/// The column at the right that holds the names of the series.
const LEGEND: u32 = 190;
/// Colours that differ in lightness too (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// Draws `plot`. A plot without points gives an empty frame.
pub(crate) fn svg(plot: &Plot) -> Result<String> {
    let x = if plot.x.names.is_empty() {
        span(plot, &plot.x, |point| point.0)
    } else {
        (-0.5, plot.x.names.len() as f64 - 0.5)
    };
    let y = span(plot, &plot.y, |point| point.1);
    match (plot.x.log, plot.y.log) {
        (false, false) => draw(plot, x.0..x.1, y.0..y.1),
        (true, false) => draw(plot, (x.0..x.1).log_scale(), y.0..y.1),
        (false, true) => draw(plot, x.0..x.1, (y.0..y.1).log_scale()),
        (true, true) => draw(plot, (x.0..x.1).log_scale(), (y.0..y.1).log_scale()),
    }
}

/// The range of an axis with some air; bars stand on zero (or, on a logarithmic axis, on the lower end).
fn span(plot: &Plot, axis: &Axis, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let values = plot.series.iter().flat_map(|s| &s.points).map(of);
    let values = values.filter(|v| v.is_finite() && (!axis.log || *v > 0.0));
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return if axis.log { (0.1, 10.0) } else { (0.0, 1.0) };
    }
    if axis.log {
        return (low / 1.5, high * 1.5);
    }
    let on_zero = plot.series.iter().any(|s| s.mark == Mark::Bars) || (low > 0.0 && low < 0.5 * high);
    if on_zero {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    let air = if high > low { 0.06 * (high - low) } else { high.abs().max(1.0) * 0.1 };
    (if on_zero && low == 0.0 { 0.0 } else { low - air }, high + air)
}

fn draw<X, Y>(plot: &Plot, x: X, y: Y) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", plot.title);
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        // One series needs no name beside its picture, but room for the last label of the axis.
        let legend_width = if plot.series.len() > 1 { LEGEND } else { 24 };
        let upright = plot.x.names.iter().map(String::len).sum::<usize>() > 60;
        let (area, legend_area) = root.split_horizontally(SIZE.0 - legend_width);
        let mut chart = ChartBuilder::on(&area)
            .caption(&plot.title, ("sans-serif", 18))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(if upright { 150 } else { 48 })
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .map_err(|e| failed(&e))?;
        let floor = chart.plotting_area().get_y_range().start;
        let floor = if plot.y.log { floor } else { floor.max(0.0) };
        let name = |x: &f64| {
            let whole = (x - x.round()).abs() < 1e-6;
            let name = whole.then(|| plot.x.names.get(x.round() as usize)).flatten();
            name.cloned().unwrap_or_default()
        };
        let tick = |x: &f64| digits(*x);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(&plot.x.label)
            .y_desc(&plot.y.label)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .bold_line_style(RGBColor(220, 220, 220))
            .light_line_style(TRANSPARENT)
            .x_labels(6)
            .y_label_formatter(&tick);
        if plot.x.names.is_empty() {
            mesh.x_label_formatter(&tick);
        } else {
            let count = if upright { 0 } else { plot.x.names.len() * 2 + 1 };
            mesh.x_labels(count).disable_x_mesh().x_label_formatter(&name);
        }
        mesh.draw().map_err(|e| failed(&e))?;
        if upright {
            let font = ("sans-serif", 13).into_font().transform(FontTransform::Rotate90);
            let style = font.into_text_style(&root).pos(Pos::new(HPos::Left, VPos::Center));
            for (i, name) in plot.x.names.iter().enumerate() {
                let (x, y) = chart.backend_coord(&(i as f64, floor));
                root.draw(&Text::new(name.clone(), (x, y + 6), style.clone())).map_err(|e| failed(&e))?;
            }
        }

        let bars = plot.series.iter().filter(|s| s.mark == Mark::Bars).count().max(1) as f64;
        let mut bar = 0.0;
        for (series, colour) in plot.series.iter().zip(COLOURS.iter().cycle()) {
            let colour = *colour;
            let shown = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
            let drawn = match series.mark {
                Mark::Line => {
                    chart
                        .draw_series(shown.clone().map(|p| Circle::new(p, 3, colour.filled())))
                        .map_err(|e| failed(&e))?;
                    chart.draw_series(LineSeries::new(shown, colour.stroke_width(2)))
                }
                Mark::Points => chart.draw_series(shown.map(|p| Circle::new(p, 4, colour.filled()))),
                Mark::Bars => {
                    let (left, width) = (-0.4 + 0.8 * bar / bars, 0.8 / bars);
                    bar += 1.0;
                    let corner = |(x, y): (f64, f64)| [(x + left, floor), (x + left + width * 0.92, y)];
                    chart.draw_series(shown.map(|p| Rectangle::new(corner(p), colour.filled())))
                }
            };
            drawn.map_err(|e| failed(&e))?;
        }
        if plot.series.len() > 1 {
            for (i, (series, colour)) in plot.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
                let y = 48 + 22 * i as i32;
                let mark = Rectangle::new([(0, y), (14, y + 10)], colour.filled());
                legend_area.draw(&mark).map_err(|e| failed(&e))?;
                let name = Text::new(series.name.clone(), (20, y), ("sans-serif", 13));
                legend_area.draw(&name).map_err(|e| failed(&e))?;
            }
        }
        root.present().map_err(|e| failed(&e))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Series;

    #[test]
    fn every_kind_is_drawn_with_its_labels() {
        let line = Plot {
            title: "time".into(),
            x: Axis::log("n"),
            y: Axis::log("time in seconds"),
            series: vec![
                Series::line("ours", vec![(1.0, 1e-6), (100.0, 1e-4)]),
                Series::points("other", vec![(1.0, 2e-6), (100.0, f64::NAN)]),
            ],
        };
        let bars = Plot {
            title: "share".into(),
            x: Axis::names("method", ["first", "second"]),
            y: Axis::linear("percent"),
            series: vec![Series::bars("A", [1.0, 3.0]), Series::bars("B", [2.0, 0.5])],
        };
        for (plot, words) in [(line, ["time in seconds", "other"]), (bars, ["first", "percent"])] {
            let text = svg(&plot).unwrap();
            assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
            for word in words {
                assert!(text.contains(word), "{word} in {text}");
            }
        }
    }

    #[test]
    fn a_plot_without_points_is_a_frame() {
        let plot = Plot {
            title: "none".into(),
            x: Axis::linear("x"),
            y: Axis::log("y"),
            series: vec![Series::line("empty", Vec::new())],
        };
        assert!(svg(&plot).unwrap().contains("none"));
    }
}
