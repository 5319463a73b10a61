//! How well a number foretells an outcome: the area under the curve of true over false alarms,
//! which is the chance that of one image where it happens and one where it does not, the first has
//! the higher number (ties count half).

use std::collections::BTreeMap;

use super::random::SplitMix64;
use super::{Interval, SEED, interval};

/// A number that was known before, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial<'a> {
    /// Of the image.
    pub prompt: &'a str,
    /// Such as the attention to the weakest subject at a step.
    pub score: f64,
    /// Such as whether the image shows it.
    pub happened: bool,
}

/// The area, with its interval over prompts; `None` if the outcome is always the same or no score
/// is a number. Resamples in which it is always the same do not count, and neither do trials whose
/// score is NaN.
pub fn auc(trials: &[Trial<'_>], resamples: usize) -> Option<Interval> {
    let mut sorted: Vec<_> = trials.iter().filter(|trial| !trial.score.is_nan()).collect();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let prompts: BTreeMap<&str, usize> = sorted.iter().map(|trial| (trial.prompt, 0)).collect();
    let places: BTreeMap<_, _> = prompts.into_keys().zip(0..).collect();
    let sorted: Vec<_> = sorted.iter().map(|t| (t.score, t.happened, places[t.prompt])).collect();

    let value = area(&sorted, &vec![1; places.len()])?;
    let mut random = SplitMix64::new(SEED);
    let drawn = (0..resamples).filter_map(|_| {
        // Sorted once: a resample says how often each prompt counts.
        let mut times = vec![0_u32; places.len()];
        (0..places.len()).for_each(|_| times[random.below(places.len())] += 1);
        area(&sorted, &times)
    });
    Some(interval(value, drawn.collect()))
}

/// Of trials `(score, happened, prompt)` by score, each as often as its prompt counts.
fn area(sorted: &[(f64, bool, usize)], times: &[u32]) -> Option<f64> {
    // Pairs in which the score is lower where it did not happen, in halves: whole numbers.
    let (mut halves, mut happened, mut not) = (0_u64, 0_u64, 0_u64);
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let (mut here, mut not_here) = (0_u64, 0_u64);
        for (_, happened, prompt) in ties {
            let count = if *happened { &mut here } else { &mut not_here };
            *count += u64::from(times[*prompt]);
        }
        halves += here * (2 * not + not_here);
        happened += here;
        not += not_here;
    }
    let pairs = happened * not;
    (pairs > 0).then(|| halves as f64 / (2 * pairs) as f64)
}
