//! What further seeds would give: of a prompt's images of several seeds the one is kept whose weakest
//! subject is attended to most, as `accept` chooses, or one that shows all subjects, as if somebody
//! looked at them.
//!
//! From images that are there: of `k` seeds each is the first one once, those behind it follow, and
//! the first ones come behind the last, so that no lucky seed counts more than another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::{Grid, percent};
use crate::scores::Score;
use crate::statistics::{Interval, clustered_mean, ratio};

/// Of the table.
pub(super) const TITLE: &str = "with further seeds: the one with the best weakest score is kept";

/// A number of seeds that are tried for an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Further {
    /// Of the images.
    pub method: String,
    /// Tried for each image.
    pub seeds: usize,
    /// Different prompts.
    pub prompts: usize,
    /// Share of the kept images in which every subject is seen.
    pub all_present: Interval,
    /// Share of the tries with at least one image in which every subject is seen: what choosing by
    /// looking would give at most.
    pub any_present: Interval,
    /// How much fewer of the kept images lack a subject than single ones of the baseline: 0 is no
    /// fewer, 1 is none at all. `None` without a baseline on the same prompts.
    pub removed: Option<Interval>,
}

/// What an image was, for choosing.
#[derive(Clone, Copy)]
struct Seen {
    judged: f32,
    all: bool,
}

/// For each method and number of seeds; prompts that do not have the most images of the method are
/// left out.
pub(super) fn further(rows: &[&Score], baseline: &str, resamples: usize) -> Vec<Further> {
    let mut methods: BTreeMap<&str, BTreeMap<&str, BTreeMap<u32, Seen>>> = BTreeMap::new();
    let mut plain: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows {
        let (Some(all), Some(seed)) = (row.shows_all(), row.seed) else { continue };
        if row.method == baseline {
            plain.entry(&row.prompt).or_default().push(f64::from(u8::from(!all)));
        }
        if let Some(attended) = row.attended.as_ref().filter(|_| row.tries == 1) {
            let prompts = methods.entry(&row.method).or_default();
            let seen = Seen { judged: attended.judged, all };
            prompts.entry(&row.prompt).or_default().insert(seed, seen);
        }
    }
    let failing = |prompt: &str| {
        let images = plain.get(prompt)?;
        Some(images.iter().sum::<f64>() / images.len() as f64)
    };
    let mut found = Vec::new();
    for (method, prompts) in methods {
        let most = prompts.values().map(BTreeMap::len).max().unwrap_or(0);
        let whole: Vec<(&str, Vec<Seen>)> = prompts
            .into_iter()
            .filter(|(_, seeds)| seeds.len() == most)
            .map(|(prompt, seeds)| (prompt, seeds.into_values().collect()))
            .collect();
        // One seed of one is no choice.
        for seeds in (1..=most).filter(|_| most > 1) {
            let shares: Vec<(&str, [f64; 2])> =
                whole.iter().map(|(prompt, images)| (*prompt, kept(images, seeds))).collect();
            let of = |which: usize| {
                clustered_mean(shares.iter().map(|(p, share)| (*p, share[which])), resamples)
            };
            let (Some(all_present), Some(any_present)) = (of(0), of(1)) else { continue };
            let removed = shares.iter().filter_map(|(prompt, [kept, _])| {
                let failing = failing(prompt)?;
                Some((*prompt, failing - (1. - kept), failing))
            });
            let removed = ratio(removed.collect::<Vec<_>>(), resamples);
            let (method, prompts) = (method.to_owned(), whole.len());
            found.push(Further { method, seeds, prompts, all_present, any_present, removed });
        }
    }
    found
}

/// Of all runs of `count` images in a circle: how often the best attended one shows all subjects,
/// and how often any does.
fn kept(images: &[Seen], count: usize) -> [f64; 2] {
    let mut sums = [0_f64; 2];
    for first in 0..images.len() {
        let tried = || images.iter().cycle().skip(first).take(count);
        // Of equals the first, as `accept` does.
        let best = tried().reduce(|best, one| if one.judged > best.judged { one } else { best });
        sums[0] += f64::from(u8::from(best.is_some_and(|seen| seen.all)));
        sums[1] += f64::from(u8::from(tried().any(|seen| seen.all)));
    }
    sums.map(|sum| sum / images.len() as f64)
}

pub(super) fn grid(further: &[Further], baseline: &str) -> Grid {
    let fewer = format!("failures of {baseline} removed");
    let header = ["method", "seeds", "all subjects", "any of them", &fewer].map(str::to_owned);
    let row = |one: &Further| {
        let removed = one.removed.map_or_else(|| "-".to_owned(), |share| percent(share, false));
        let shares = [one.all_present, one.any_present].map(|share| percent(share, false));
        [one.method.clone(), one.seeds.to_string()]
            .into_iter()
            .chain(shares)
            .chain([removed])
            .collect()
    };
    Grid { words: 1, header: header.to_vec(), rows: further.iter().map(row).collect() }
}
