//! Further seeds for a job: when one is good enough, which comes next, which one is kept.
//!
//! Pure, and a function of the job and the scores alone: wherever a job goes on, it goes on alike.
//! Not here: how a try is run (`excite_diffusion::Search`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::LineError;
use crate::limits;
use crate::sidecar::Number;

/// When an image is good enough, and how many seeds may be tried for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The score that the weakest subject must have after the guided steps, 0 to 1.
    pub min_score: f64,
    /// Seeds in all, the job's own among them.
    #[serde(default = "max_seeds")]
    pub max_seeds: u32,
}

fn max_seeds() -> u32 {
    Accept::MAX_SEEDS
}

/// A seed that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Try {
    /// The seed.
    pub seed: u32,
    /// Of the weakest subject after the guided steps.
    #[schema(value_type = Option<f32>)]
    pub score: Number,
}

/// The seeds that were tried for a job so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Tries {
    /// The job's own seed.
    base: u32,
    /// `None`: whatever comes is good enough.
    accept: Option<Accept>,
    made: Vec<Try>,
}

impl Accept {
    /// Seeds where nobody says otherwise.
    pub const MAX_SEEDS: u32 = 4;

    /// # Errors
    /// If a number is outside its range.
    pub fn check(&self) -> Result<(), LineError> {
        let wrong = |field: &str, value: String, range: String| {
            Err(LineError::OutOfRange { field: format!("accept.{field}"), value, range })
        };
        if !(0. ..=1.).contains(&self.min_score) {
            return wrong("min_score", self.min_score.to_string(), "0 to 1".into());
        }
        let seeds = limits::ACCEPT_SEEDS;
        if !seeds.contains(&self.max_seeds) {
            let range = format!("{} to {}", seeds.start(), seeds.end());
            return wrong("max_seeds", self.max_seeds.to_string(), range);
        }
        Ok(())
    }

    /// Whether an image with this least score is good enough.
    pub fn takes(&self, score: Number) -> bool {
        score.is_some_and(|score| f64::from(score) >= self.min_score)
    }
}

impl Tries {
    /// Nothing was tried yet for a job with this seed.
    pub fn new(seed: u32, accept: Option<Accept>) -> Self {
        Self { base: seed, accept, made: Vec::new() }
    }

    /// Goes on where another run of the job was; `None` if no run of it can have made these.
    pub fn resume(seed: u32, accept: Option<Accept>, made: &[Try]) -> Option<Self> {
        let mut tries = Self::new(seed, accept);
        for one in made {
            if tries.is_decided() || tries.seed() != one.seed {
                return None;
            }
            tries.note(one.score);
        }
        Some(tries)
    }

    /// Those whose score is known, in their order.
    pub fn made(&self) -> &[Try] {
        &self.made
    }

    /// All seeds that may be tried, in their order.
    pub fn seeds(&self) -> impl Iterator<Item = u32> + '_ {
        let count = self.accept.map_or(1, |accept| accept.max_seeds as usize);
        (0..count).map(|place| derived(self.base, place))
    }

    /// Whether no further seed is tried: the last one is good enough, or was the last.
    pub fn is_decided(&self) -> bool {
        let Some(accept) = &self.accept else { return true };
        self.made.len() >= accept.max_seeds as usize
            || self.made.last().is_some_and(|last| accept.takes(last.score))
    }

    /// The seed to run: once decided the one that is kept, before that the next one.
    pub fn seed(&self) -> u32 {
        match self.kept() {
            Some(kept) if self.is_decided() => self.made[kept].seed,
            _ => derived(self.base, self.made.len()),
        }
    }

    /// The best so far, by its place among [`Tries::made`]; of equals the first.
    pub fn kept(&self) -> Option<usize> {
        let score = |place: &usize| self.made[*place].score.unwrap_or(f32::NEG_INFINITY);
        // `max_by` takes the last of equals.
        (0..self.made.len()).rev().max_by(|a, b| score(a).total_cmp(&score(b)))
    }

    /// The seed that ran has this score. Once it is decided nothing is noted any more.
    pub fn note(&mut self, score: Number) {
        if !self.is_decided() {
            self.made.push(Try { seed: self.seed(), score });
        }
    }
}

/// The seed of a try, from 0: the job's own, then the low half of what SplitMix64 gives.
fn derived(seed: u32, place: usize) -> u32 {
    if place == 0 { seed } else { splitmix64(u64::from(seed), place as u64) as u32 }
}

/// The `n`th number, from 1, of the generator SplitMix64 (Steele, Lea, Flood 2014) at a seed.
fn splitmix64(seed: u64, n: u64) -> u64 {
    let z = seed.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(accept: Accept, scores: &[f32]) -> Tries {
        let mut tries = Tries::new(7, Some(accept));
        scores.iter().for_each(|score| tries.note(Some(*score)));
        tries
    }

    /// The first numbers that the reference implementation gives.
    #[test]
    fn seeds_are_those_of_the_published_generator() {
        let want = [
            0xE220_A839_7B1D_CDAF,
            0x6E78_9E6A_A1B9_65F4,
            0x06C4_5D18_8009_454F,
            0xF88B_B8A8_724C_81EC,
            0x1B39_896A_51A8_749B,
        ];
        for (n, want) in (1..).zip(want) {
            assert_eq!(splitmix64(0, n), want, "number {n}");
        }
        let of_1234567 = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([splitmix64(1_234_567, 1), splitmix64(1_234_567, 2)], of_1234567);
        assert_eq!([derived(0, 0), derived(0, 1)], [0, 0x7B1D_CDAF], "the job's own comes first");
    }

    #[test]
    fn tries_end_with_one_that_is_good_enough_or_with_the_last() {
        let accept = Accept { min_score: 0.5, max_seeds: 3 };
        let seeds = [7, derived(7, 1), derived(7, 2)];
        let of = |scores: &[f32]| {
            let tries = tried(accept, scores);
            (tries.is_decided(), tries.seed())
        };
        #[rustfmt::skip]
        let table = [
            // scores                       decided  seed to run
            (&[][..],                       false,   seeds[0]),
            (&[0.4],                        false,   seeds[1]),
            (&[0.5],                        true,    seeds[0]), // as good as it must be
            (&[0.4, 0.6],                   true,    seeds[1]),
            (&[0.4, 0.3],                   false,   seeds[2]),
            (&[0.3, 0.4, 0.2],              true,    seeds[1]), // the best of all
            (&[0.4, 0.4, 0.4],              true,    seeds[0]), // the first of equals
            (&[0.1, 0.2, 0.3],              true,    seeds[2]),
        ];
        for (scores, decided, seed) in table {
            assert_eq!(of(scores), (decided, seed), "{scores:?}");
        }
        let mut one = tried(Accept { min_score: 0., max_seeds: 3 }, &[0.]);
        one.note(Some(1.));
        assert_eq!(one.made().len(), 1, "any score is good enough, and nothing follows");
        let mut unknown = Tries::new(7, Some(accept));
        unknown.note(None);
        unknown.note(Some(0.1));
        unknown.note(None);
        assert_eq!((unknown.is_decided(), unknown.kept()), (true, Some(1)));
        let free = Tries::new(7, None);
        assert_eq!((free.is_decided(), free.seed(), free.kept()), (true, 7, None));
        assert_eq!(free.seeds().collect::<Vec<_>>(), [7]);
        assert_eq!(unknown.seeds().collect::<Vec<_>>(), seeds);
    }

    #[test]
    fn only_what_this_job_can_have_tried_is_gone_on_with() {
        let accept = Accept { min_score: 0.5, max_seeds: 2 };
        let tries = tried(accept, &[0.4, 0.3]);
        let made = tries.made();
        assert_eq!(Tries::resume(7, Some(accept), made), Some(tries.clone()));
        assert_eq!(Tries::resume(7, None, &[]), Some(Tries::new(7, None)));
        let less = |min_score, max_seeds| Some(Accept { min_score, max_seeds });
        for (seed, accept) in [(8, less(0.5, 2)), (7, less(0.4, 2)), (7, less(0.5, 1)), (7, None)] {
            assert_eq!(Tries::resume(seed, accept, made), None, "{seed} {accept:?}");
        }
    }
}
