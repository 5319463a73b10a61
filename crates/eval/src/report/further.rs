//! What further seeds would give: of the images of a prompt's seeds one is kept, chosen in three ways.
//!
//! By the score, as `accept` does; by the regions of the picture, which is another reading of it than
//! the one that counts; and as if whoever chooses never erred.
//!
//! From images that are there: of `k` seeds each is the first one once, those behind it follow, and
//! the first ones come behind the last, so that no lucky seed counts more than another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::{ABSENT, Grid, percent};
use crate::binding::Verdict;
use crate::scores::Score;
use crate::statistics::{Interval, clustered_mean, ratio};

/// Of the table.
pub(super) const TITLE: &str = "with further seeds, of which one image is kept";

/// A number of seeds that are tried for an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Further {
    /// Of the images.
    pub method: String,
    /// Tried for each image.
    pub seeds: usize,
    /// Different prompts.
    pub prompts: usize,
    /// The one is kept whose weakest subject was attended to most.
    pub by_score: Option<Kept>,
    /// The first one is kept whose regions show all subjects; else the first of which that is not
    /// clear; else the first.
    pub by_regions: Option<Kept>,
    /// One is kept that shows all subjects, if any does: more is not possible.
    pub any: Kept,
}

/// The images that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Share in which every subject is seen.
    pub all_present: Interval,
    /// How much fewer of them lack a subject than single images of the baseline: 0 is no fewer, 1 is
    /// none at all. `None` without a baseline on the same prompts.
    pub removed: Option<Interval>,
}

/// What is known of an image, for choosing.
#[derive(Clone, Copy)]
struct Seen {
    score: Option<f32>,
    regions: Option<Regions>,
    all: bool,
}

/// What the regions of a picture say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Regions {
    Lack,
    Unclear,
    Show,
}

impl Seen {
    fn of(row: &Score) -> Option<Self> {
        let regions = row.binding.as_ref().map(|binding| {
            let of = |verdict: Verdict| match verdict {
                Verdict::Absent => Regions::Lack,
                Verdict::Undecided => Regions::Unclear,
                _ => Regions::Show,
            };
            binding.subjects.iter().map(|s| of(s.verdict)).min().unwrap_or(Regions::Unclear)
        });
        let score = row.attended.as_ref().map(|attended| attended.judged);
        Some(Self { score, regions, all: row.shows_all()? })
    }
}

/// The images of a method by prompt and seed.
type Prompts<'a> = BTreeMap<&'a str, BTreeMap<u32, Seen>>;

/// For each method and number of seeds; prompts that do not have the most images of the method are
/// left out.
pub(super) fn further(rows: &[&Score], baseline: &str, resamples: usize) -> Vec<Further> {
    let mut methods: BTreeMap<&str, Prompts<'_>> = BTreeMap::new();
    // What chose among seeds already is no single image.
    for row in rows.iter().filter(|row| row.tries == 1) {
        if let (Some(seen), Some(seed)) = (Seen::of(row), row.seed) {
            let prompts = methods.entry(&row.method).or_default();
            prompts.entry(&row.prompt).or_default().insert(seed, seen);
        }
    }
    let plain = methods.get(baseline).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (method, prompts) in methods {
        let most = prompts.values().map(BTreeMap::len).max().unwrap_or(0);
        let whole = prompts.into_iter().filter(|(_, seeds)| seeds.len() == most);
        let whole: Vec<(&str, Vec<Seen>)> =
            whole.map(|(prompt, seeds)| (prompt, seeds.into_values().collect())).collect();
        // One seed of one is no choice.
        for seeds in (1..=most).filter(|_| most > 1) {
            let kept = |choose: fn(&[Seen]) -> Option<bool>| {
                let shares = whole.iter().map(|(prompt, images)| {
                    let sum: f64 =
                        runs(images, seeds).map(|run| choose(&run).map(from)).sum::<Option<_>>()?;
                    Some((*prompt, sum / images.len() as f64))
                });
                Kept::new(&shares.collect::<Option<Vec<_>>>()?, &plain, resamples)
            };
            let Some(any) = kept(|run| Some(run.iter().any(|seen| seen.all))) else { continue };
            found.push(Further {
                method: method.to_owned(),
                seeds,
                prompts: whole.len(),
                by_score: kept(|run| best(run, |seen| seen.score)),
                by_regions: kept(|run| best(run, |seen| seen.regions)),
                any,
            });
        }
    }
    found
}

impl Kept {
    /// From the share of each prompt; `None` of nothing.
    fn new(shares: &[(&str, f64)], plain: &Prompts<'_>, resamples: usize) -> Option<Self> {
        let removed = shares.iter().filter_map(|(prompt, share)| {
            let images = plain.get(prompt)?;
            let shown: f64 = images.values().map(|seen| from(seen.all)).sum();
            let failing = 1. - shown / images.len() as f64;
            Some((*prompt, failing - (1. - share), failing))
        });
        let removed = ratio(removed.collect::<Vec<_>>(), resamples);
        Some(Self { all_present: clustered_mean(shares.iter().copied(), resamples)?, removed })
    }
}

/// All runs of `count` images in a circle.
fn runs(images: &[Seen], count: usize) -> impl Iterator<Item = Vec<Seen>> {
    let from = move |first| images.iter().copied().cycle().skip(first).take(count).collect();
    (0..images.len()).map(from)
}

/// Whether the image that is `by` most shows all subjects; of equals the first is kept.
fn best<T: PartialOrd>(run: &[Seen], by: impl Fn(&Seen) -> Option<T>) -> Option<bool> {
    let mut best: Option<(T, bool)> = None;
    for seen in run {
        let value = by(seen)?;
        if best.as_ref().is_none_or(|(most, _)| value > *most) {
            best = Some((value, seen.all));
        }
    }
    best.map(|(_, all)| all)
}

fn from(all: bool) -> f64 {
    f64::from(u8::from(all))
}

pub(super) fn grid(further: &[Further], baseline: &str) -> Grid {
    let fewer = format!("failures of {baseline} removed");
    let ways = ["chosen by score", "chosen by regions", "any of them"];
    let header = ways.into_iter().flat_map(|way| [way.to_owned(), fewer.clone()]);
    let header = ["method", "seeds"].map(str::to_owned).into_iter().chain(header).collect();
    let row = |one: &Further| {
        let cells = [one.by_score, one.by_regions, Some(one.any)].into_iter().flat_map(|kept| {
            [kept.map(|kept| kept.all_present), kept.and_then(|kept| kept.removed)]
        });
        let cells =
            cells.map(|cell| cell.map_or_else(|| ABSENT.to_owned(), |share| percent(share, false)));
        [one.method.clone(), one.seeds.to_string()].into_iter().chain(cells).collect()
    };
    Grid { words: 1, header, rows: further.iter().map(row).collect() }
}
