//! Does the attention to the weakest subject foretell whether an image shows all of them?
//!
//! From the scores that the JSON beside each image has, step by step. 0.5 is chance, 1 certainty.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use excite_eval::images::Entry;
use excite_eval::scores::Book;
use excite_eval::statistics::{Interval, RESAMPLES, Trial, auc};
use excite_jobs::Sidecar;
use serde::Serialize;

use crate::printer::Printer;
use crate::sidecar;

/// The paper's thresholds are tested at the first ones; guidance ends behind 24.
const STEPS: [usize; 5] = [0, 10, 20, 24, 40];

/// How well the score at a step foretells it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Foretold {
    method: String,
    step: usize,
    images: usize,
    /// The area under the curve of true over false alarms.
    auc: Interval,
}

pub(super) fn foretold(entries: &[Entry], book: &Book) -> Vec<Foretold> {
    let mut trials: BTreeMap<(&str, usize), Vec<Trial<'_>>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.sidecar) {
        let Some(happened) = book.get(entry).and_then(|score| score.shows_all()) else { continue };
        let Some(sidecar) = read(entry) else { continue };
        for step in STEPS {
            let scores = sidecar.steps.get(step).map_or(&[][..], |line| &line.scores);
            let known: Option<Vec<f32>> = scores.iter().copied().collect();
            let weakest = known.and_then(|scores| scores.into_iter().reduce(f32::min));
            if let Some(weakest) = weakest {
                let trial = Trial { prompt: &entry.prompt, score: weakest.into(), happened };
                trials.entry((&entry.method, step)).or_default().push(trial);
            }
        }
    }
    let foretold = |((method, step), trials): ((&str, usize), Vec<Trial<'_>>)| {
        let auc = auc(&trials, RESAMPLES)?;
        Some(Foretold { method: method.to_owned(), step, images: trials.len(), auc })
    };
    trials.into_iter().filter_map(foretold).collect()
}

fn read(entry: &Entry) -> Option<Sidecar> {
    let text = std::fs::read(sidecar::path(&entry.path)).ok()?;
    serde_json::from_slice(&text).ok()
}

const TITLE: &str = "Does the weakest score at a step foretell that all subjects are shown?";

pub(super) fn print(foretold: &[Foretold], printer: &Printer) {
    if foretold.is_empty() {
        return;
    }
    printer.result(&format!("\n{TITLE} (0.5 is chance)"));
    let row = |one: &Foretold| {
        let (method, step, images) = (one.method.clone(), one.step, one.images);
        vec![method, step.to_string(), images.to_string(), shown(&one.auc)]
    };
    printer.table(&["method", "step", "images", "AUC"], foretold.iter().map(row));
}

pub(super) fn markdown(foretold: &[Foretold]) -> String {
    let mut text = String::new();
    if foretold.is_empty() {
        return text;
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "\n### {TITLE}\n\n| method | step | images | AUC |\n|---|---|---|---|\n");
    for Foretold { method, step, images, auc } in foretold {
        let _ = writeln!(text, "| {method} | {step} | {images} | {} |", shown(auc));
    }
    text
}

fn shown(auc: &Interval) -> String {
    format!("{:.2} [{:.2} {:.2}]", auc.value, auc.low, auc.high)
}
