//! What an experiment writes down: one schema for the terminal, the page and the JSON beside it.

use std::fmt;

use serde::{Serialize, Serializer};

/// A run of the whole program.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Name and version of this schema.
    pub(crate) format: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) quick: bool,
    pub(crate) seed: u64,
    pub(crate) machine: crate::machine::Machine,
    pub(crate) sections: Vec<Section>,
}

/// What one experiment found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Section {
    pub(crate) system: String,
    pub(crate) title: String,
    pub(crate) claims: Vec<Claim>,
    pub(crate) tables: Vec<Table>,
    pub(crate) plots: Vec<Plot>,
    pub(crate) peers: Vec<PeerRow>,
    /// How long the experiment took.
    pub(crate) seconds: f64,
    /// Why it stopped early, if it did.
    pub(crate) error: Option<String>,
}

/// A published statement beside what this machine gives.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    /// What the paper says, in one sentence.
    pub(crate) statement: String,
    /// The published figure.
    pub(crate) paper: Figure,
    /// The figure found here.
    pub(crate) here: Figure,
    /// The unit of both; empty for plain numbers.
    pub(crate) unit: &'static str,
    /// Computed by the functions of [`Verdict`], never chosen by hand.
    pub(crate) verdict: Verdict,
    /// Sizes, data and settings of the figure found here, and how they differ from the paper's.
    pub(crate) setup: String,
}

/// A number, or words where the paper or the run gives none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Figure {
    Number(f64),
    Text(String),
}

impl From<f64> for Figure {
    fn from(x: f64) -> Self {
        Figure::Number(x)
    }
}

impl From<&str> for Figure {
    fn from(text: &str) -> Self {
        Figure::Text(text.to_owned())
    }
}

impl From<String> for Figure {
    fn from(text: String) -> Self {
        Figure::Text(text)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Number(x) => f.pad(&digits(*x)),
            Figure::Text(text) => f.pad(text),
        }
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Figure::Number(x) => serializer.serialize_f64(*x),
            Figure::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// Three significant digits, plain where that is short.
pub(crate) fn digits(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || !x.is_finite() {
        format!("{x}")
    } else if !(1e-3..1e6).contains(&size) {
        format!("{x:.2e}")
    } else {
        let places = (2 - size.log10().floor() as i32).max(0);
        format!("{x:.*}", places as usize)
    }
}

/// How a claim fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Reproduced,
    Partly,
    NotReproduced,
    /// What would be needed to run it.
    NotRun(String),
}

impl Verdict {
    /// For "at least": reproduced from `target` on, partly from `floor` on.
    pub(crate) fn at_least(here: f64, target: f64, floor: f64) -> Self {
        Self::graded(here >= target, here >= floor)
    }

    /// For "at most": reproduced up to `target`, partly up to `ceiling`.
    pub(crate) fn at_most(here: f64, target: f64, ceiling: f64) -> Self {
        Self::graded(here <= target, here <= ceiling)
    }

    /// For a figure to be met: reproduced within `tight` of it (relative), partly within `loose`.
    pub(crate) fn within(here: f64, paper: f64, tight: f64, loose: f64) -> Self {
        let off = ((here - paper) / paper).abs();
        Self::graded(off <= tight, off <= loose)
    }

    /// For a statement over several cases: all of them, some, or none.
    pub(crate) fn of_cases(held: usize, cases: usize) -> Self {
        Self::graded(held == cases && cases > 0, held > 0)
    }

    /// For what cannot be run here; `needs` completes "needs ...".
    pub(crate) fn not_run(needs: impl Into<String>) -> Self {
        Verdict::NotRun(needs.into())
    }

    fn graded(full: bool, part: bool) -> Self {
        match (full, part) {
            (true, _) => Verdict::Reproduced,
            (false, true) => Verdict::Partly,
            (false, false) => Verdict::NotReproduced,
        }
    }

    /// A short name for style sheets.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Verdict::Reproduced => "yes",
            Verdict::Partly => "partly",
            Verdict::NotReproduced => "no",
            Verdict::NotRun(_) => "idle",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Reproduced => f.pad("reproduced"),
            Verdict::Partly => f.pad("partly"),
            Verdict::NotReproduced => f.pad("not reproduced"),
            Verdict::NotRun(needs) => f.pad(&format!("not run (needs {needs})")),
        }
    }
}

/// Seconds per call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Timing {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Samples taken; a sample of a short call is the mean over a batch.
    pub(crate) samples: usize,
}

impl Timing {
    /// Of samples in seconds, of which there must be one at least.
    pub(crate) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (min, max) = (*samples.first()?, *samples.last()?);
        let half = samples.len() / 2;
        let median =
            if samples.len() % 2 == 1 { samples[half] } else { 0.5 * (samples[half - 1] + samples[half]) };
        Some(Timing { median, min, max, samples: samples.len() })
    }
}

/// Ours beside one peer on one case.
#[derive(Debug, Serialize)]
pub(crate) struct PeerRow {
    /// Sizes and data, for instance `4096 x 4096, 16 rows`.
    pub(crate) case: String,
    pub(crate) threads: usize,
    pub(crate) peer: String,
    pub(crate) version: String,
    pub(crate) ours: Timing,
    /// None if the peer could not run; then `note` says why.
    pub(crate) theirs: Option<Timing>,
    /// Median of theirs over median of ours: above 1, ours is faster.
    pub(crate) ratio: Option<f64>,
    /// The share of this machine's limit that ours reaches, with the name of the limit.
    pub(crate) roofline: Option<Roofline>,
    /// Error of our answer, and of theirs, against the same trusted one.
    pub(crate) our_error: Option<f64>,
    pub(crate) their_error: Option<f64>,
    /// What the error measures, or why there is no figure.
    pub(crate) note: String,
}

/// A share of a limit of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Roofline {
    pub(crate) fraction: f64,
    /// The limit that binds, for instance `memory`.
    pub(crate) limit: &'static str,
}

/// Figures in rows.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// Titles of the columns, with units.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Figure>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Table {
            title: title.into(),
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, which has as many figures as there are columns.
    pub(crate) fn row(&mut self, figures: impl IntoIterator<Item = Figure>) {
        let row: Vec<Figure> = figures.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a row of {}", self.title);
        self.rows.push(row);
    }
}

/// A picture.
#[derive(Debug, Serialize)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// An axis of a plot.
#[derive(Debug, Serialize)]
pub(crate) struct Axis {
    /// What is drawn, with its unit.
    pub(crate) label: String,
    pub(crate) log: bool,
    /// Names of the groups of a bar chart, at x = 0, 1, ...
    pub(crate) names: Vec<String>,
}

impl Axis {
    /// A linear axis.
    pub(crate) fn linear(label: &str) -> Self {
        Axis { label: label.to_owned(), log: false, names: Vec::new() }
    }

    /// A logarithmic axis, for positive values.
    pub(crate) fn log(label: &str) -> Self {
        Axis { label: label.to_owned(), log: true, names: Vec::new() }
    }

    /// The horizontal axis of a bar chart.
    pub(crate) fn names<S: Into<String>>(label: &str, names: impl IntoIterator<Item = S>) -> Self {
        Axis { label: label.to_owned(), log: false, names: names.into_iter().map(Into::into).collect() }
    }
}

/// A line, a cloud of points or a set of bars.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) mark: Mark,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    Line,
    Points,
    Bars,
}

impl Series {
    /// A line with a dot at each point.
    pub(crate) fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Series { name: name.into(), mark: Mark::Line, points }
    }

    /// Points alone.
    pub(crate) fn points(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Series { name: name.into(), mark: Mark::Points, points }
    }

    /// One bar per group of [`Axis::names`], in order.
    pub(crate) fn bars(name: impl Into<String>, heights: impl IntoIterator<Item = f64>) -> Self {
        let points = heights.into_iter().enumerate().map(|(i, y)| (i as f64, y)).collect();
        Series { name: name.into(), mark: Mark::Bars, points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_from_figures() {
        assert_eq!(Verdict::at_least(9.4, 9.0, 4.0), Verdict::Reproduced);
        assert_eq!(Verdict::at_least(5.0, 9.0, 4.0), Verdict::Partly);
        assert_eq!(Verdict::at_least(f64::NAN, 9.0, 4.0), Verdict::NotReproduced);
        assert_eq!(Verdict::at_most(0.03, 0.02, 0.05), Verdict::Partly);
        assert_eq!(Verdict::within(1.1, 1.0, 0.05, 0.2), Verdict::Partly);
        assert_eq!(Verdict::within(1.3, 1.0, 0.05, 0.2), Verdict::NotReproduced);
        assert_eq!(Verdict::of_cases(3, 3), Verdict::Reproduced);
        assert_eq!(Verdict::of_cases(0, 0), Verdict::NotReproduced);
        assert_eq!(Verdict::not_run("a GPU").to_string(), "not run (needs a GPU)");
    }

    #[test]
    fn a_timing_has_the_middle() {
        let t = Timing::of(vec![3.0, 1.0, 2.0, 10.0]);
        assert_eq!(t, Some(Timing { median: 2.5, min: 1.0, max: 10.0, samples: 4 }));
        assert_eq!(Timing::of(vec![]), None);
    }

    #[test]
    fn three_digits_are_shown() {
        let shown = [0.0, 1234.5, 12.345, 0.012345, 1.5e-5, 2.5e7].map(digits);
        assert_eq!(shown, ["0", "1234", "12.3", "0.0123", "1.50e-5", "2.50e7"]);
    }
}
