//! The report as text.

use std::fmt::Write as _;

use crate::record::{PeerRow, Report, digits};

/// The claims of all systems, then the peers.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut claims = Vec::new();
    for section in &report.sections {
        for claim in &section.claims {
            claims.push([
                section.system.clone(),
                claim.statement.clone(),
                with_unit(&claim.paper.to_string(), claim.unit),
                with_unit(&claim.here.to_string(), claim.unit),
                claim.verdict.to_string(),
            ]);
        }
    }
    columns(&mut text, ["system", "claim", "paper", "here", "verdict"], &claims);
    let rows: Vec<[String; 7]> =
        report.sections.iter().flat_map(|s| s.peers.iter().map(|row| peer(&s.system, row))).collect();
    if !rows.is_empty() {
        text.push('\n');
        let titles = ["system", "case", "threads", "peer", "ours", "theirs", "theirs / ours"];
        columns(&mut text, titles, &rows);
    }
    for section in &report.sections {
        if let Some(error) = &section.error {
            let _ = writeln!(text, "\n{} stopped: {error}", section.system);
        }
    }
    text
}

fn peer(system: &str, row: &PeerRow) -> [String; 7] {
    [
        system.to_owned(),
        row.case.clone(),
        row.threads.to_string(),
        format!("{} {}", row.peer, row.version).trim().to_owned(),
        seconds(row.ours.median),
        row.theirs.map_or_else(|| row.note.clone(), |t| seconds(t.median)),
        row.ratio.map(digits).unwrap_or_default(),
    ]
}

/// A duration with a unit that fits.
pub(crate) fn seconds(s: f64) -> String {
    let (scale, unit) = match s {
        s if s < 1e-6 => (1e9, "ns"),
        s if s < 1e-3 => (1e6, "us"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", digits(s * scale))
}

/// A figure and its unit.
pub(crate) fn with_unit(figure: &str, unit: &str) -> String {
    format!("{figure} {unit}").trim_end().to_owned()
}

fn columns<const N: usize>(text: &mut String, titles: [&str; N], rows: &[[String; N]]) {
    const WIDEST: usize = 60;
    let cut = |cell: &str| {
        if cell.chars().count() <= WIDEST {
            return cell.to_owned();
        }
        let mut short: String = cell.chars().take(WIDEST - 3).collect();
        short.push_str("...");
        short
    };
    let titles = titles.map(str::to_owned);
    let rows: Vec<[String; N]> =
        std::iter::once(titles).chain(rows.iter().cloned()).map(|row| row.map(|c| cut(&c))).collect();
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:w$}")).collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
}
