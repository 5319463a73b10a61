//! Seeds as people write them: `7`, `0..4` (half open), `0..=3`, `1,5,9`, or several of these.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::limits::SEEDS_MAX;

/// A list of different seeds, 0..2^32-1, in the order written; ranges stay ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(Vec<RangeInclusive<u32>>);

/// Why a list of seeds cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedsError {
    /// No number, or no range of numbers.
    #[error("`{0}` is neither a number from 0 to 4294967295 nor a range")]
    Syntax(String),
    /// A range without a seed in it.
    #[error("the range `{0}` is empty")]
    EmptyRange(String),
    /// The same seed twice would give the same image twice.
    #[error("seed {0} is listed twice")]
    Twice(u32),
    /// More than [`SEEDS_MAX`].
    #[error("{0} seeds are more than {SEEDS_MAX}")]
    TooMany(u64),
}

impl Seeds {
    /// One seed.
    pub fn one(seed: u32) -> Self {
        Self(vec![seed..=seed])
    }

    /// How many there are; never 0.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.end() - range.start()) + 1).sum()
    }

    /// The one at a place, from 0, without walking there.
    pub fn nth(&self, place: u64) -> Option<u32> {
        let mut left = place;
        for range in &self.0 {
            let count = u64::from(range.end() - range.start()) + 1;
            if left < count {
                // Both fit: `left` is within a range of u32.
                return u32::try_from(u64::from(*range.start()) + left).ok();
            }
            left -= count;
        }
        None
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }
}

impl Seeds {
    /// Whether a seed is among them.
    pub fn contains(&self, seed: u32) -> bool {
        self.0.iter().any(|range| range.contains(&seed))
    }
}

impl FromStr for Seeds {
    type Err = SeedsError;

    fn from_str(text: &str) -> Result<Self, SeedsError> {
        let ranges = text.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
        let mut sorted: Vec<_> = ranges.iter().collect();
        sorted.sort_by_key(|range| *range.start());
        let twice = sorted.windows(2).find(|pair| pair[1].start() <= pair[0].end());
        if let Some(pair) = twice {
            return Err(SeedsError::Twice(*pair[1].start()));
        }
        let seeds = Self(ranges);
        if seeds.count() > SEEDS_MAX {
            return Err(SeedsError::TooMany(seeds.count()));
        }
        Ok(seeds)
    }
}

fn range(part: &str) -> Result<RangeInclusive<u32>, SeedsError> {
    let wrong = || SeedsError::Syntax(part.trim().to_owned());
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    let Some((from, to)) = part.split_once("..") else {
        let seed = number(part)?;
        return Ok(seed..=seed);
    };
    let from = number(from)?;
    let last = match to.trim().strip_prefix('=') {
        Some(to) => Some(number(to)?),
        // The end is not in the range; 2^32 is allowed, so that all seeds can be written.
        None => {
            let end = to.trim().parse::<u64>().map_err(|_| wrong())?;
            match end.checked_sub(1) {
                Some(last) => Some(u32::try_from(last).map_err(|_| wrong())?),
                None => None,
            }
        }
    };
    match last {
        Some(last) if last >= from => Ok(from..=last),
        _ => Err(SeedsError::EmptyRange(part.trim().to_owned())),
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            let (from, to) = (range.start(), range.end());
            if from == to {
                write!(f, "{separator}{from}")?;
            } else {
                write!(f, "{separator}{from}..={to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        for (text, want) in [
            ("7", &[7][..]),
            ("0..4", &[0, 1, 2, 3]),
            ("2..=4", &[2, 3, 4]),
            (" 9, 1 ,5", &[9, 1, 5]),
            ("8,0..2", &[8, 0, 1]),
            ("4294967295..4294967296", &[u32::MAX]),
        ] {
            let seeds: Seeds = text.parse().unwrap();
            assert_eq!(seeds.iter().collect::<Vec<_>>(), want, "{text}");
            assert_eq!(seeds.count(), want.len() as u64);
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        use SeedsError::{EmptyRange, Syntax, TooMany, Twice};
        for (text, want) in [
            ("", Syntax(String::new())),
            ("x", Syntax("x".into())),
            ("-1", Syntax("-1".into())),
            ("4294967296", Syntax("4294967296".into())),
            ("1,,2", Syntax(String::new())),
            ("0..x", Syntax("0..x".into())),
            ("4..4", EmptyRange("4..4".into())),
            ("0..0", EmptyRange("0..0".into())),
            ("5..=4", EmptyRange("5..=4".into())),
            ("0..4,3", Twice(3)),
            ("0..4294967296", TooMany(1 << 32)),
        ] {
            assert_eq!(text.parse::<Seeds>(), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_what_is_read_is_written_back(text in "[0-9.,= x-]{0,20}") {
            if let Ok(seeds) = text.parse::<Seeds>() {
                prop_assert!(seeds.count() >= 1);
                prop_assert_eq!(seeds.to_string().parse::<Seeds>(), Ok(seeds));
            }
        }
    }
}
