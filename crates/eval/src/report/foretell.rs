//! Does the attention to the weakest subject foretell whether an image shows all of them?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::Grid;
use crate::scores::Score;
use crate::statistics::{Interval, Trial, auc};

/// Of the table.
pub(super) const TITLE: &str =
    "does the weakest score at a step foretell that all subjects are shown? (0.5 is chance)";

/// How well the score at a step foretells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foretold {
    /// Of the images.
    pub method: String,
    /// From 0.
    pub step: usize,
    /// Whose score and whose subjects are known.
    pub images: usize,
    /// The area under the curve of true over false alarms: 0.5 is chance, 1 certainty.
    pub auc: Interval,
}

pub(super) fn foretold(rows: &[&Score], resamples: usize) -> Vec<Foretold> {
    let mut trials: BTreeMap<(&str, usize), Vec<Trial<'_>>> = BTreeMap::new();
    for row in rows {
        let (Some(happened), Some(attended)) = (row.shows_all(), &row.attended) else { continue };
        for (step, score) in &attended.steps {
            let trial = Trial { prompt: &row.prompt, score: f64::from(*score), happened };
            trials.entry((&row.method, *step)).or_default().push(trial);
        }
    }
    let foretold = |((method, step), trials): ((&str, usize), Vec<Trial<'_>>)| {
        let auc = auc(&trials, resamples)?;
        Some(Foretold { method: method.to_owned(), step, images: trials.len(), auc })
    };
    trials.into_iter().filter_map(foretold).collect()
}

pub(super) fn grid(foretold: &[Foretold]) -> Grid {
    let header = ["method", "step", "images", "AUC"].map(str::to_owned).to_vec();
    let row = |one: &Foretold| {
        let Interval { value, low, high } = one.auc;
        let auc = format!("{value:.2} [{low:.2} {high:.2}]");
        vec![one.method.clone(), one.step.to_string(), one.images.to_string(), auc]
    };
    Grid { words: 1, header, rows: foretold.iter().map(row).collect() }
}
