//! Differences between two methods on the same prompts and seeds: what they share, chance of the
//! seed above all, falls out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Interval, clustered_mean};

/// A number measured on one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Of the image.
    pub prompt: &'a str,
    /// Of the image; without one it has no partner.
    pub seed: Option<u32>,
    /// What was measured.
    pub value: f64,
}

/// How much one method is above another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Mean difference.
    #[serde(flatten)]
    pub difference: Interval,
    /// Images of each that were compared.
    pub pairs: usize,
    /// Images of the first that have no partner.
    pub dropped: usize,
    /// Images of the other that have none.
    pub dropped_other: usize,
}

/// The mean of `first - other` over pairs of the same prompt and seed, with its interval over
/// prompts; `None` if there is no pair. Of images of the same prompt and seed the first counts.
pub fn paired(first: &[Sample<'_>], other: &[Sample<'_>], resamples: usize) -> Option<Paired> {
    let (mine, theirs) = (by_key(first), by_key(other));
    let differences: Vec<_> = mine
        .iter()
        .filter_map(|(key, value)| theirs.get(key).map(|other| (key.0, value - other)))
        .collect();
    let pairs = differences.len();
    let difference = clustered_mean(differences, resamples)?;
    let (dropped, dropped_other) = (first.len() - pairs, other.len() - pairs);
    Some(Paired { difference, pairs, dropped, dropped_other })
}

fn by_key<'a>(samples: &[Sample<'a>]) -> BTreeMap<(&'a str, u32), f64> {
    let mut values = BTreeMap::new();
    for Sample { prompt, seed, value } in samples {
        if let Some(seed) = seed {
            values.entry((*prompt, *seed)).or_insert(*value);
        }
    }
    values
}
