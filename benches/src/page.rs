//! The report as one HTML page: no script, no link, the pictures inside.

use std::fmt::Write as _;

use anyhow::Result;

use crate::plot;
use crate::record::{Claim, PeerRow, Report, Section, Table, digits};
use crate::terminal::{seconds, with_unit};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn render(report: &Report) -> Result<String> {
    let mut body = String::new();
    body.push_str("<h1>kc: paper and here</h1>\n");
    let size = if report.quick { "quick sizes" } else { "full sizes" };
    let when = date(report.created);
    let _ = writeln!(body, "<p class=\"sub\">{when}, {size}, seed {}</p>", report.seed);
    claims(&mut body, &report.sections);
    machine(&mut body, report);
    for section in &report.sections {
        system(&mut body, section)?;
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>kc: paper and here</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    ))
}

fn claims(body: &mut String, sections: &[Section]) {
    let row = |section: &Section, claim: &Claim| {
        format!(
            "<tr><td><a href=\"#{0}\">{0}</a></td><td>{1}<div class=\"note\">{2}</div></td><td>{3}</td>\
             <td>{4}</td><td class=\"{5}\">{6}</td></tr>\n",
            escape(&section.system),
            escape(&claim.statement),
            escape(&claim.setup),
            escape(&with_unit(&claim.paper.to_string(), claim.unit)),
            escape(&with_unit(&claim.here.to_string(), claim.unit)),
            claim.verdict.class(),
            escape(&claim.verdict.to_string()),
        )
    };
    let titles = ["system", "claim", "paper", "here", "verdict"];
    let rows = sections.iter().flat_map(|s| s.claims.iter().map(move |c| row(s, c)));
    table(body, "", &titles.map(str::to_owned), rows);
}

fn machine(body: &mut String, report: &Report) {
    let machine = &report.machine;
    let unknown = || "unknown".to_owned();
    let giga = |x: f64, unit: &str| format!("{} {unit}", digits(x / 1e9));
    let ceilings = &machine.ceilings;
    let lines = [
        ("processor", machine.processor.clone().unwrap_or_else(unknown)),
        ("cores", machine.cores.to_string()),
        ("levels", format!("{} (in use: {})", machine.levels.join(", "), machine.level)),
        ("caches", machine.caches.join(", ")),
        ("memory", machine.memory_bytes.map_or_else(unknown, |b| giga(b as f64, "GB"))),
        ("copy, one thread", giga(ceilings.copy_bytes, "GB/s (read and written)")),
        ("read, one thread", giga(ceilings.read_bytes, "GB/s")),
        ("write around the caches, one thread", giga(ceilings.store_bytes, "GB/s")),
        ("f32 multiply-add, one thread", giga(ceilings.f32_flops, "GFLOP/s")),
        ("u8 x i8 multiply-add, one thread", giga(ceilings.byte_ops, "GOP/s")),
        ("system", machine.os.clone()),
        ("compiler", machine.rustc.clone().unwrap_or_else(unknown)),
        ("revision", machine.revision.clone().unwrap_or_else(unknown)),
    ];
    body.push_str("<h2>Machine</h2>\n");
    let row =
        |(name, value): (&str, String)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escape(&value));
    table(body, "", &[], lines.into_iter().map(row));
}

fn system(body: &mut String, section: &Section) -> Result<()> {
    let _ = writeln!(body, "<h2 id=\"{0}\">{1}</h2>", escape(&section.system), escape(&section.title));
    let _ = writeln!(body, "<p class=\"sub\">took {}</p>", seconds(section.seconds));
    if let Some(error) = &section.error {
        let _ = writeln!(body, "<p class=\"no\">stopped: {}</p>", escape(error));
    }
    for figures in &section.tables {
        figure_table(body, figures);
    }
    for picture in &section.plots {
        let _ = writeln!(body, "<figure>{}</figure>", plot::svg(picture)?);
    }
    if !section.peers.is_empty() {
        peers(body, &section.peers);
    }
    Ok(())
}

fn figure_table(body: &mut String, figures: &Table) {
    let row = |row: &Vec<_>| {
        let cells: String = row.iter().map(|f: &crate::record::Figure| cell(&f.to_string())).collect();
        format!("<tr>{cells}</tr>\n")
    };
    table(body, &figures.title, &figures.columns, figures.rows.iter().map(row));
}

fn peers(body: &mut String, rows: &[PeerRow]) {
    let titles = [
        "case",
        "threads",
        "peer",
        "ours: median (min - max)",
        "theirs: median (min - max)",
        "theirs / ours",
        "ours of the limit",
        "error: ours / theirs",
        "note",
    ];
    let timing = |t: &crate::record::Timing| {
        format!("{} ({} - {})", seconds(t.median), seconds(t.min), seconds(t.max))
    };
    let error = |e: Option<f64>| e.map_or_else(|| "-".to_owned(), |e| format!("{e:.1e}"));
    let row = |row: &PeerRow| {
        let roofline = row.roofline.map(|r| format!("{:.0} % of {}", r.fraction * 100.0, r.limit));
        let cells = [
            row.case.clone(),
            row.threads.to_string(),
            format!("{} {}", row.peer, row.version),
            timing(&row.ours),
            row.theirs.as_ref().map_or_else(|| "-".to_owned(), timing),
            row.ratio.map_or_else(|| "-".to_owned(), digits),
            roofline.unwrap_or_else(|| "-".to_owned()),
            format!("{} / {}", error(row.our_error), error(row.their_error)),
            row.note.clone(),
        ];
        format!("<tr>{}</tr>\n", cells.iter().map(|c| cell(c)).collect::<String>())
    };
    table(body, "Peers: above 1, ours is faster", &titles.map(str::to_owned), rows.iter().map(row));
}

fn table(body: &mut String, caption: &str, titles: &[String], rows: impl Iterator<Item = String>) {
    body.push_str("<div class=\"wide\"><table>\n");
    if !caption.is_empty() {
        let _ = writeln!(body, "<caption>{}</caption>", escape(caption));
    }
    if !titles.is_empty() {
        let heads: String = titles.iter().map(|t| format!("<th>{}</th>", escape(t))).collect();
        let _ = writeln!(body, "<thead><tr>{heads}</tr></thead>");
    }
    body.push_str("<tbody>\n");
    body.extend(rows);
    body.push_str("</tbody></table></div>\n");
}

fn cell(text: &str) -> String {
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-') && text != "-";
    let class = if number { " class=\"number\"" } else { "" };
    format!("<td{class}>{}</td>", escape(text))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The day of a time in seconds since 1970, in UTC (Howard Hinnant's civil calendar).
fn date(seconds: u64) -> String {
    let days = (seconds / 86_400) as i64 + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a < b & \"c\""), "a &lt; b &amp; &quot;c&quot;");
    }
}
