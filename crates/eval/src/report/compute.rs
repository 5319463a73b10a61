//! From rows to the numbers of the report.

use std::collections::{BTreeMap, BTreeSet};

use excite_prompt::PaperSubset;

use super::foretell::foretold;
use super::further::further;
use super::published::agreement;
use super::{ALL, COLOUR_ERROR, Estimate, Input, Method, Metric, OTHER, Report, Subset, VERSION};
use crate::scores::Score;
use crate::statistics::{
    Mending, Paired, Sample, Verdict, clustered_mean, deviation, mending, paired, ratio,
};
use crate::templates::split;

/// Metrics of which pairs can be compared image by image.
const COMPARED: [Metric; 5] =
    [Metric::Full, Metric::MinObject, Metric::TextText, Metric::AllPresent, Metric::ColourRight];
const SECONDS_AN_HOUR: f64 = 3600.;

pub(super) fn report(input: Input<'_>) -> Report {
    let papers = [PaperSubset::Animals, PaperSubset::AnimalsObjects, PaperSubset::Objects];
    let names = papers.map(PaperSubset::as_str).into_iter().chain([OTHER]);
    let of = |row: &Score| row.subset.as_deref().unwrap_or(OTHER).to_owned();
    let mut subsets: Vec<Subset> =
        names.filter_map(|name| subset(input, name, |row| of(row) == name)).collect();
    if subsets.len() > 1 {
        subsets.extend(subset(input, ALL, |_| true));
    }
    let measures: BTreeSet<_> = input.rows.iter().map(|row| row.measure.clone()).collect();
    Report {
        v: VERSION,
        baseline: input.baseline.to_owned(),
        resamples: input.resamples,
        measures: measures.into_iter().collect(),
        subsets,
        foretold: foretold(input.rows, input.resamples),
        further: further(input.rows, input.baseline, input.resamples),
        problems: input.problems.to_vec(),
    }
}

/// `None` if it has no image.
fn subset(input: Input<'_>, name: &str, belongs: impl Fn(&Score) -> bool) -> Option<Subset> {
    let rows: Vec<&Score> = input.rows.iter().copied().filter(|row| belongs(row)).collect();
    let prompts: BTreeSet<&str> = rows.iter().map(|row| row.prompt.as_str()).collect();
    if prompts.is_empty() {
        return None;
    }
    let mut methods: BTreeMap<&str, Vec<&Score>> = BTreeMap::new();
    for row in rows {
        methods.entry(&row.method).or_default().push(row);
    }
    let baseline = methods.get(input.baseline).cloned();
    let mut methods: Vec<Method> = methods
        .into_iter()
        .map(|(name, rows)| {
            let baseline = baseline.as_deref().filter(|_| name != input.baseline);
            method(input, name, &rows, baseline)
        })
        .collect();
    // A stable sort: the others stay by name.
    methods.sort_by_key(|method| method.name != input.baseline);
    let skipped = prompts.iter().filter(|prompt| split(prompt).is_none());
    Some(Subset {
        name: name.to_owned(),
        prompts: prompts.len(),
        prompts_skipped: skipped.count(),
        agreement: agreement(name, &methods),
        methods,
    })
}

fn method(input: Input<'_>, name: &str, rows: &[&Score], baseline: Option<&[&Score]>) -> Method {
    let prompts: BTreeSet<&str> = rows.iter().map(|row| row.prompt.as_str()).collect();
    let metrics = Metric::ALL
        .into_iter()
        .filter_map(|metric| Some((metric, estimate(metric, rows, input.resamples)?)));
    let compared = baseline.map(|baseline| {
        COMPARED.into_iter().filter_map(move |metric| {
            Some((metric, difference(metric, rows, baseline, input.resamples)?))
        })
    });
    // A difference that the verdicts' own error can make is none.
    let compared = compared.map(|differences| {
        differences.filter(|(metric, paired): &(Metric, Paired)| {
            *metric != Metric::ColourRight || paired.difference.value.abs() > COLOUR_ERROR
        })
    });
    Method {
        name: name.to_owned(),
        images: rows.len(),
        prompts: prompts.len(),
        metrics: metrics.collect(),
        differences: compared.into_iter().flatten().collect(),
        mending: baseline.and_then(|baseline| mended(input, rows, baseline)),
    }
}

fn estimate(metric: Metric, rows: &[&Score], resamples: usize) -> Option<Estimate> {
    if metric == Metric::GoodPerHour {
        let parts: Vec<_> = rows
            .iter()
            .filter_map(|row| {
                let good = f64::from(u8::from(row.shows_all()?));
                Some((row.prompt.as_str(), good, row.seconds? / SECONDS_AN_HOUR))
            })
            .collect();
        let n = parts.len();
        return Some(Estimate { n, interval: ratio(parts, resamples)?, deviation: None });
    }
    let values: Vec<_> =
        rows.iter().filter_map(|row| Some((row.prompt.as_str(), metric.of(row)?))).collect();
    let alone: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    let deviation = deviation(&alone).filter(|_| metric != Metric::AllPresent);
    let interval = clustered_mean(values, resamples)?;
    Some(Estimate { n: alone.len(), interval, deviation })
}

fn difference(
    metric: Metric,
    rows: &[&Score],
    baseline: &[&Score],
    resamples: usize,
) -> Option<Paired> {
    paired(&samples(metric, rows), &samples(metric, baseline), resamples)
}

fn samples<'a>(metric: Metric, rows: &[&'a Score]) -> Vec<Sample<'a>> {
    let of = |row: &&'a Score| {
        Some(Sample { prompt: &row.prompt, seed: row.seed, value: metric.of(row)? })
    };
    rows.iter().filter_map(of).collect()
}

/// `None` if no pair was looked at.
fn mended(input: Input<'_>, rows: &[&Score], baseline: &[&Score]) -> Option<Mending> {
    let key = |row: &Score| Some((row.prompt.clone(), row.seed?));
    let plain: BTreeMap<_, &Score> =
        baseline.iter().rev().filter_map(|row| Some((key(row)?, *row))).collect();
    let verdicts: Vec<Verdict<'_>> = rows
        .iter()
        .filter_map(|row| {
            let plain = plain.get(&key(row)?)?;
            Some(Verdict {
                prompt: &row.prompt,
                kind: plain.failure(),
                plain: plain.shows_all()?,
                method: row.shows_all()?,
            })
        })
        .collect();
    (!verdicts.is_empty()).then(|| mending(&verdicts, input.resamples))
}
