//! How many jobs a micro-batch has at most: as few as are made within 5 % as fast as any more, and
//! never more than memory is free for.
//!
//! Bytes do not depend on it, and no job waits for it: a size is the most of a micro-batch, which
//! starts with what is there. Not here: what is measured (`sizes`), how long a job waits for others
//! (`micro_batch`), what is done when memory is short all the same (`ladder`).

mod sizes;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use sizes::{BatchSizes, STEPS_MIN, Work};

/// Throughput that is given up for images that are done sooner and need less memory.
const TOLERANCE: f64 = 0.05;
/// Memory that is left to everything else.
const RESERVE_MIN: u64 = 256 << 20;
const RESERVE_SHARE: u64 = 10;

/// How the size is set: `auto`, or a number of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BatchSize {
    /// By what is measured.
    #[default]
    Auto,
    /// This many.
    Jobs(u16),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(jobs) if jobs > 0 => Ok(Self::Jobs(jobs)),
            _ if text == "auto" => Ok(Self::Auto),
            _ => Err("write `auto`, or a number from 1 up".into()),
        }
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Jobs(jobs) => serializer.serialize_u16(*jobs),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(|wrong| serde::de::Error::custom(format!("`{text}`: {wrong}")))
    }
}

/// A size, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Jobs at most.
    pub jobs: usize,
    /// For people.
    pub reason: String,
}

/// What bounds the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may be had at a time.
    pub slots: usize,
    /// Images that memory is free for, where that is known.
    pub fits: Option<usize>,
    /// The most that is left to try after memory was short.
    pub failed: Option<usize>,
}

impl Limits {
    /// No bound but this one.
    pub fn slots(slots: usize) -> Self {
        Self { slots: slots.max(1), fits: None, failed: None }
    }

    fn most(self) -> usize {
        let all = [Some(self.slots), self.fits, self.failed];
        all.into_iter().flatten().min().unwrap_or(1).max(1)
    }

    /// Which one it is, if it is not the slots.
    fn note(self) -> String {
        let most = self.most();
        if most == self.slots {
            String::new()
        } else if self.failed == Some(most) {
            "; memory was short with more".into()
        } else {
            format!("; memory is free for {most}")
        }
    }
}

/// Chooses by what a step takes an image, in seconds, with micro-batches of some sizes.
///
/// The largest size is measured first, then halves of it. The answer is the smallest one that is
/// within 5 % of the best, or the next one that has to be measured.
pub fn choose(limits: Limits, seconds: &BTreeMap<usize, f64>) -> Choice {
    let most = limits.most();
    let mut found: Option<(usize, f64)> = None;
    let mut measured = Vec::new();
    for size in sizes(most) {
        let Some(&seconds) = seconds.get(&size) else {
            let reason = format!("so many are still to be measured{}", limits.note());
            return Choice { jobs: size, reason };
        };
        measured.push(format!("{seconds:.3} with {size}"));
        let best = found.map_or(seconds, |(_, best)| best.min(seconds));
        if seconds > best * (1. + TOLERANCE) {
            // Fewer would be slower still.
            break;
        }
        found = Some((size, best));
    }
    let jobs = found.map_or(most, |(size, _)| size);
    let reason = format!(
        "the fewest within {:.0} % of the best; seconds a step and image: {}{}",
        TOLERANCE * 100.,
        measured.join(", "),
        limits.note(),
    );
    Choice { jobs, reason }
}

/// What may be chosen: `most`, then the powers of two below, down to 1.
fn sizes(most: usize) -> impl Iterator<Item = usize> {
    let below = std::iter::successors(Some(most.next_power_of_two() / 2), |size| Some(size / 2));
    std::iter::once(most).chain(below.take_while(|size| *size > 0))
}

/// Images that there is memory for, an image needing `image` bytes; at least one, since these are
/// estimates.
pub fn fits(available: u64, total: u64, image: u64) -> usize {
    let reserve = RESERVE_MIN.max(total / RESERVE_SHARE);
    let images = available.saturating_sub(reserve) / image.max(1);
    usize::try_from(images).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn chosen(limits: Limits, measured: &[(usize, f64)]) -> (usize, String) {
        let Choice { jobs, reason } = choose(limits, &measured.iter().copied().collect());
        (jobs, reason)
    }

    #[test]
    fn the_largest_is_measured_first_then_halves_of_it_as_long_as_they_are_no_slower() {
        type Measured = &'static [(usize, f64)];
        #[rustfmt::skip]
        let table: &[(usize, Measured, usize)] = &[
            // slots, seconds a step and image by size,             chosen or to be measured
            (4,  &[],                                                          4),
            (4,  &[(1, 0.2), (2, 0.2)],                                        4),
            (4,  &[(4, 0.2)],                                                  2),
            (4,  &[(4, 0.2), (2, 0.205)],                                      1),
            // A CPU: nothing is gained.
            (4,  &[(4, 0.2), (2, 0.205), (1, 0.209)],                          1),
            (4,  &[(4, 0.2), (2, 0.205), (1, 0.211)],                          2),
            // A GPU: 8 are enough of 16, and what is below need not be measured.
            (16, &[(16, 0.100), (8, 0.104)],                                   4),
            (16, &[(16, 0.100), (8, 0.104), (4, 0.12)],                        8),
            // Small steps down do not add up.
            (8,  &[(8, 0.100), (4, 0.104), (2, 0.108)],                        4),
            // What is faster with fewer is the measure.
            (4,  &[(4, 0.3), (2, 0.2), (1, 0.22)],                             2),
            (4,  &[(4, 0.3), (2, 0.2), (1, 0.1)],                              1),
            (4,  &[(4, 0.2), (2, 0.3)],                                        4),
            // Not a power of two.
            (6,  &[(6, 0.2)],                                                  4),
            (6,  &[(6, 0.2), (4, 0.2), (3, 0.1)],                              2),
            (1,  &[(1, 0.2), (4, 0.1)],                                        1),
            (1,  &[],                                                          1),
        ];
        for (slots, measured, want) in table {
            let (jobs, reason) = chosen(Limits::slots(*slots), measured);
            assert_eq!(jobs, *want, "{slots} {measured:?}: {reason}");
        }
    }

    #[test]
    fn memory_bounds_the_choice_and_the_reason_says_so() {
        let limits = |fits, failed| Limits { slots: 8, fits, failed };
        let fast = [(8, 0.1), (4, 0.2), (2, 0.3), (1, 0.4)];
        assert_eq!(chosen(limits(None, None), &fast).0, 8);
        let (jobs, reason) = chosen(limits(Some(3), None), &fast);
        assert_eq!(jobs, 3, "{reason}");
        assert!(reason.contains("still to be measured; memory is free for 3"), "{reason}");
        let (jobs, reason) = chosen(limits(Some(3), Some(2)), &fast);
        assert_eq!(jobs, 2, "{reason}");
        assert!(reason.contains("0.300 with 2, 0.400 with 1; memory was short"), "{reason}");
        assert_eq!(chosen(limits(Some(0), None), &fast).0, 1, "one is always tried");
    }

    #[test]
    fn a_reserve_is_left() {
        assert_eq!(fits(10 * GB, 20 * GB, 2 * GB), 4);
        assert_eq!(fits(GB, GB, GB / 4), 3, "a quarter of a gigabyte at least");
        assert_eq!(fits(GB, 20 * GB, GB), 1);
        assert_eq!(fits(GB, GB, 0), (GB - GB / 4) as usize);
    }

    #[test]
    fn a_size_is_auto_or_a_number() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Section {
            size: BatchSize,
        }
        for (json, size) in
            [(r#"{"size":"auto"}"#, BatchSize::Auto), (r#"{"size":8}"#, BatchSize::Jobs(8))]
        {
            assert_eq!(serde_json::from_str::<Section>(json).unwrap(), Section { size });
            assert_eq!(serde_json::to_string(&Section { size }).unwrap(), json);
        }
        for wrong in [r#""most""#, "0", r#""0""#, "-1", "70000", r#""""#] {
            let json = format!(r#"{{"size":{wrong}}}"#);
            assert!(serde_json::from_str::<Section>(&json).is_err(), "{wrong}");
        }
        let said = serde_json::from_str::<Section>(r#"{"size":0}"#).unwrap_err().to_string();
        assert!(said.contains("`0`: write `auto`, or a number from 1 up"), "{said}");
    }
}
