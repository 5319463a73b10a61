//! What can be said of many images: means with intervals, differences of pairs, and how well a
//! number foretells an outcome.
//!
//! Images of one prompt resemble each other, so what is drawn again in a bootstrap are *prompts*,
//! each with all its images (a cluster bootstrap, percentile intervals of 95 %). The numbers drawn
//! are fixed: the same images give the same interval on every machine. Not here: which numbers, and
//! how they are shown.

mod auc;
mod mending;
mod pairs;
mod random;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use auc::{Trial, auc};
pub use mending::{Mending, Rate, Verdict, mending};
pub use pairs::{Paired, Sample, paired};
use random::SplitMix64;

/// What intervals are made with.
pub const RESAMPLES: usize = 10_000;
/// Of the generator; any would do, and it is always this one.
const SEED: u64 = 0x5EED;
/// Ends of the interval, shares of the resamples.
const ENDS: [f64; 2] = [0.025, 0.975];

/// A number with its interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Of all images.
    pub value: f64,
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of these values as a population (dividing by their number, as NumPy and
/// so the paper's script do); `None` of nothing.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / values.len() as f64).sqrt())
}

/// The mean of `(prompt, value)` with its interval over prompts; `None` of nothing.
pub fn clustered_mean<'a>(
    values: impl IntoIterator<Item = (&'a str, f64)>,
    resamples: usize,
) -> Option<Interval> {
    ratio(values.into_iter().map(|(prompt, value)| (prompt, value, 1.)), resamples)
}

/// The sum of numerators over the sum of denominators of `(prompt, numerator, denominator)`, with
/// its interval over prompts; `None` if the denominators sum to zero. Resamples where they do say
/// nothing and do not count.
pub fn ratio<'a>(
    parts: impl IntoIterator<Item = (&'a str, f64, f64)>,
    resamples: usize,
) -> Option<Interval> {
    let mut clusters: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (prompt, numerator, denominator) in parts {
        let sums = clusters.entry(prompt).or_default();
        sums.0 += numerator;
        sums.1 += denominator;
    }
    let sums: Vec<_> = clusters.into_values().collect();
    let of =
        |(numerator, denominator): (f64, f64)| (denominator != 0.).then(|| numerator / denominator);
    let add = |a: (f64, f64), b: &(f64, f64)| (a.0 + b.0, a.1 + b.1);
    let value = of(sums.iter().fold((0., 0.), add))?;
    let mut random = SplitMix64::new(SEED);
    let drawn = (0..resamples).filter_map(|_| {
        of((0..sums.len()).fold((0., 0.), |sum, _| add(sum, &sums[random.below(sums.len())])))
    });
    Some(interval(value, drawn.collect()))
}

/// The value with the percentiles of its resamples; without any, no more than itself.
fn interval(value: f64, mut drawn: Vec<f64>) -> Interval {
    drawn.sort_by(f64::total_cmp);
    let [low, high] = ENDS.map(|share| percentile(&drawn, share).unwrap_or(value));
    Interval { value, low, high }
}

/// Between the two nearest of the sorted values, linearly (NumPy's default).
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * (sorted.len().checked_sub(1)? as f64);
    let below = sorted.get(place.floor() as usize)?;
    let above = sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests;
