//! The report as tables for people, in a terminal or in Markdown: the same cells, two styles.

use std::fmt::Write as _;

use super::published::{NOTE, of};
use super::{COLOUR_ERROR, Estimate, Metric, Report, Subset, foretell, further};
use crate::statistics::{Interval, Rate};

/// How tables look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Columns aligned with spaces.
    Text,
    /// GitHub's Markdown.
    Markdown,
}

/// Problems that are told one by one.
const PROBLEMS_SHOWN: usize = 20;
pub(super) const ABSENT: &str = "-";

/// Cells under a header.
pub(super) struct Grid {
    /// Columns of words, aligned left; those of numbers follow.
    pub(super) words: usize,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

pub(super) fn tables(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for subset in &report.subsets {
        heading(
            &mut out,
            style,
            2,
            &format!("{}: {}", subset.name, counted(subset.prompts, "prompt")),
        );
        measured(subset).write(&mut out, style);
        if subset.prompts_skipped > 0 {
            let prompts = counted(subset.prompts_skipped, "prompt");
            note(
                &mut out,
                &format!(
                    "The minimum object leaves out {prompts} without \" and \" and \" with \"."
                ),
            );
        }
        let title = format!("against {} on the same prompts and seeds", report.baseline);
        section(&mut out, style, &title, &differences(subset));
        let title =
            format!("mended of what fails with {0}, lost of what does not", report.baseline);
        section(&mut out, style, &title, &mendings(subset));
        section(&mut out, style, "published", &published(subset));
        for agreement in &subset.agreement {
            note(&mut out, &order(agreement));
        }
    }
    if report.subsets.iter().any(|subset| !subset.agreement.is_empty()) {
        note(&mut out, NOTE);
    }
    section(&mut out, style, foretell::TITLE, &foretell::grid(&report.foretold));
    section(&mut out, style, further::TITLE, &further::grid(&report.further, &report.baseline));
    let of = |subset: &Subset| {
        subset.methods.iter().any(|m| m.metrics.contains_key(&Metric::ColourRight))
    };
    if report.subsets.iter().any(of) {
        let most = 100. * COLOUR_ERROR;
        let text = format!(
            "Own colour: of the subjects that are there and clear; up to {most:.0} % of these verdicts are \
             wrong, and smaller differences are not shown."
        );
        note(&mut out, &text);
    }
    note(
        &mut out,
        &format!("In brackets: 95 % of {} bootstrap resamples of the prompts.", report.resamples),
    );
    if report.measures.len() > 1 {
        note(
            &mut out,
            &format!(
                "These rows were measured in {} ways and are not comparable: {}.",
                report.measures.len(),
                report.measures.join(", ")
            ),
        );
    }
    problems(report, &mut out, style);
    out
}

fn section(out: &mut String, style: Style, title: &str, grid: &Grid) {
    if !grid.rows.is_empty() {
        heading(out, style, 3, title);
        grid.write(out, style);
    }
}

fn measured(subset: &Subset) -> Grid {
    let used = |metric: &Metric| subset.methods.iter().any(|m| m.metrics.contains_key(metric));
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(used).collect();
    let titles = metrics.iter().map(|metric| metric.title().to_owned());
    let header = ["method", "images"].map(str::to_owned).into_iter().chain(titles).collect();
    let rows = subset.methods.iter().map(|method| {
        let cells = metrics.iter().map(|metric| match method.metrics.get(metric) {
            Some(Estimate { n, interval, .. }) if *n < method.images => {
                format!("{} (n {n})", cell(*metric, *interval))
            }
            Some(estimate) => cell(*metric, estimate.interval),
            None => ABSENT.to_owned(),
        });
        [method.name.clone(), method.images.to_string()].into_iter().chain(cells).collect()
    });
    Grid { words: 1, header, rows: rows.collect() }
}

fn differences(subset: &Subset) -> Grid {
    let used = |metric: &Metric| subset.methods.iter().any(|m| m.differences.contains_key(metric));
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(used).collect();
    let titles = metrics.iter().map(|metric| metric.title().to_owned());
    let ends = ["method", "pairs", "without partner"].map(str::to_owned);
    let header = ends.into_iter().chain(titles).collect();
    let compared = subset.methods.iter().filter(|method| !method.differences.is_empty());
    let rows = compared.map(|method| {
        // Those of the metric that most images have.
        let most = method.differences.values().max_by_key(|paired| paired.pairs);
        let (pairs, dropped) =
            most.map_or((0, [0, 0]), |p| (p.pairs, [p.dropped, p.dropped_other]));
        let cells = metrics.iter().map(|metric| match method.differences.get(metric) {
            Some(paired) => signed(*metric, paired.difference),
            None => ABSENT.to_owned(),
        });
        let alone = format!("{} / {}", dropped[0], dropped[1]);
        [method.name.clone(), pairs.to_string(), alone].into_iter().chain(cells).collect()
    });
    Grid { words: 1, header, rows: rows.collect() }
}

fn mendings(subset: &Subset) -> Grid {
    let mut rows = Vec::new();
    for method in &subset.methods {
        let Some(mending) = &method.mending else { continue };
        let mut add = |what: &str, rate: &Rate| {
            let cells = [format!("{} of {}", rate.count, rate.of), percent(rate.share, false)];
            rows.push([method.name.clone(), what.to_owned()].into_iter().chain(cells).collect());
        };
        mending.mended.iter().for_each(|rate| add("mended", rate));
        mending.by_kind.iter().for_each(|(kind, rate)| add(&format!("mended, {kind}"), rate));
        mending.lost.iter().for_each(|rate| add("lost", rate));
    }
    let header = ["method", "what", "images", "share"].map(str::to_owned).to_vec();
    Grid { words: 2, header, rows }
}

/// The published values of the methods that are here, if their order can be compared.
fn published(subset: &Subset) -> Grid {
    let header = ["method", "full prompt", "minimum object", "text-text"].map(str::to_owned);
    let known = subset.methods.iter().filter(|_| !subset.agreement.is_empty());
    let rows = known.filter_map(|method| {
        let values = of(&subset.name, &method.name)?;
        let numbers = [values.full, values.min_object, values.text_text];
        let cells = numbers.map(|number| format!("{number:.3}"));
        let name = format!("{} ({})", method.name, values.title);
        Some([name].into_iter().chain(cells).collect())
    });
    Grid { words: 1, header: header.to_vec(), rows: rows.collect() }
}

fn order(agreement: &super::Agreement) -> String {
    let super::Agreement { metric, pairs, swapped, tau } = agreement;
    let metric = metric.title();
    if swapped.is_empty() && *tau == 1. {
        return format!("Order by {metric}: as published ({}).", counted(*pairs, "pair"));
    }
    let told: Vec<_> = swapped.iter().map(|[a, b]| format!("{b} is above {a}")).collect();
    let told =
        if told.is_empty() { "the others are equal here".to_owned() } else { told.join("; ") };
    let count = format!("{} of {} as published", pairs - swapped.len(), counted(*pairs, "pair"));
    format!("Order by {metric}: {count} (Kendall's tau {tau:.2}): {told}.")
}

fn problems(report: &Report, out: &mut String, style: Style) {
    if report.problems.is_empty() {
        return;
    }
    heading(out, style, 2, &counted(report.problems.len(), "problem"));
    use crate::images::Problem;
    // Those of a whole method say more than those of single images.
    let (whole, single): (Vec<_>, Vec<_>) = report
        .problems
        .iter()
        .partition(|p| matches!(p, Problem::UnequalCounts { .. } | Problem::SharedSeconds { .. }));
    for problem in whole.iter().chain(&single).take(PROBLEMS_SHOWN) {
        let _ = writeln!(out, "- {problem}");
    }
    if report.problems.len() > PROBLEMS_SHOWN {
        let _ = writeln!(out, "- and {} more", report.problems.len() - PROBLEMS_SHOWN);
    }
}

fn heading(out: &mut String, style: Style, level: usize, text: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = match style {
        Style::Text => writeln!(out, "{text}"),
        Style::Markdown => writeln!(out, "{} {text}\n", "#".repeat(level)),
    };
}

fn note(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{text}");
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn cell(metric: Metric, interval: Interval) -> String {
    let Interval { value, low, high } = interval;
    match metric {
        Metric::Full | Metric::MinObject | Metric::TextText => {
            format!("{value:.3} [{low:.3} {high:.3}]")
        }
        Metric::AllPresent | Metric::ColourRight => percent(interval, false),
        Metric::Seconds => format!("{value:.2} [{low:.2} {high:.2}]"),
        Metric::GoodPerHour => format!("{value:.0} [{low:.0} {high:.0}]"),
    }
}

fn signed(metric: Metric, interval: Interval) -> String {
    let Interval { value, low, high } = interval;
    match metric {
        Metric::AllPresent | Metric::ColourRight => percent(interval, true),
        _ => format!("{value:+.3} [{low:+.3} {high:+.3}]"),
    }
}

pub(super) fn percent(Interval { value, low, high }: Interval, signed: bool) -> String {
    let [value, low, high] = [value, low, high].map(|share| 100. * share);
    if signed {
        format!("{value:+.1} points [{low:+.1} {high:+.1}]")
    } else {
        format!("{value:.1} % [{low:.1} {high:.1}]")
    }
}

impl Grid {
    fn write(&self, out: &mut String, style: Style) {
        let count = self.header.len();
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let shown = |text: &str| match style {
            Style::Text => text.to_owned(),
            // A name from a folder may hold what Markdown takes for an end of a cell.
            Style::Markdown => text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', " "),
        };
        let width = |column: usize| {
            lines().map(|line| shown(&line[column]).chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..count).map(width).collect();
        for (i, line) in lines().enumerate() {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (text, width))| match column {
                    at if at < self.words => format!("{:<width$}", shown(text)),
                    _ => format!("{:>width$}", shown(text)),
                })
                .collect();
            let _ = match style {
                Style::Text => writeln!(out, "{}", cells.join("  ").trim_end()),
                Style::Markdown => writeln!(out, "| {} |", cells.join(" | ")),
            };
            if i == 0 && style == Style::Markdown {
                let rules = widths.iter().enumerate().map(|(column, width)| match column {
                    at if at < self.words => format!(":{}", "-".repeat(*width + 1)),
                    _ => format!("{}:", "-".repeat(*width + 1)),
                });
                let _ = writeln!(out, "|{}|", rules.collect::<Vec<_>>().join("|"));
            }
        }
    }
}
