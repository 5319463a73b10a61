//! Guidance: what the methods do, a file a method.
//!
//! A method that moves the latents before a denoising step is an [`Objective`]: it sees the map of a
//! pass and gives a loss; the run takes the gradient and moves the latents ([`attend_and_excite`],
//! [`syngen`]). Others change what the UNet is told ([`structure`]) or how its predictions are added
//! up ([`composable`]). Here is what does not depend on a loss: step sizes and when refinement ends.
//! How to add a method: `docs/guidance.md`.

pub(crate) mod attend_and_excite;
pub(crate) mod composable;
pub(crate) mod structure;
pub(crate) mod syngen;

use std::collections::BTreeMap;

use candle_core::Tensor;
use excite_jobs::{AttendAndExcite, Method, Refinement, Spec};
use excite_prompt::Encoding;

use crate::error::Result;
use attend_and_excite::{Evaluation, Subjects};

/// A loss over the map of one image.
pub(crate) trait Objective: Send + Sync {
    /// The loss of a map `[h * w, 77]` of `(h, w)` pixels, row-major: the mean over the layers of a
    /// level and their heads of the cross-attention probabilities. The gradient is taken through
    /// [`Evaluation::tensor`]; scores may be left out.
    fn evaluate(&mut self, map: &Tensor, size: (usize, usize)) -> Result<Evaluation>;

    /// At which steps latents are moved, and how far, in a run of `count` steps where `asked` were
    /// asked for (PNDM makes one more).
    fn schedule(&self, asked: u32, count: usize) -> Schedule;

    /// What a run that goes on elsewhere must know of the evaluations so far.
    fn pieces(&self) -> Vec<i64> {
        Vec::new()
    }

    /// Takes back what [`Objective::pieces`] gave.
    fn restore(&mut self, _pieces: &[i64]) {}

    fn boxed(&self) -> Box<dyn Objective>;
}

impl Clone for Box<dyn Objective> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// The objective of a spec's method, if it has one.
pub(crate) fn objective(spec: &Spec, encoding: &Encoding) -> Result<Option<Box<dyn Objective>>> {
    Ok(match &spec.method {
        Method::AttendAndExcite(params) => {
            Some(Box::new(Subjects::new(params, &spec.subjects, encoding.eot)?))
        }
        Method::SynGen(params) if !params.sets.is_empty() => {
            Some(Box::new(syngen::Binding::new(params, encoding.eot)?))
        }
        Method::Composable(_) | Method::None | Method::Structure(_) | Method::SynGen(_) => None,
    })
}

/// At which steps latents are moved, and how far.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// Every step before this one ends with an update.
    pub(crate) updates_before: usize,
    /// The factor on the gradient, one a step of the whole run.
    pub(crate) step_sizes: Vec<f64>,
    /// Step index to the attention that must be reached there: the loss is to be at most one minus
    /// that.
    pub(crate) thresholds: BTreeMap<u32, f64>,
    /// When refinement ends.
    pub(crate) rule: Refinement,
    /// Iterations at one threshold.
    pub(crate) max: u32,
}

/// Step size of the update at `step` of `count`: `scale_factor * sqrt(s)`, where s falls linearly
/// over the loop from one end of `scale_range` to the other, both included.
pub(crate) fn step_size(params: &AttendAndExcite, step: usize, count: usize) -> f64 {
    let (from, to) = params.scale_range;
    let part = if count > 1 { step as f64 / (count - 1) as f64 } else { 0. };
    params.scale_factor * (from + (to - from) * part).sqrt()
}

/// A refinement event: further updates at one step until the weakest subject is seen enough.
#[derive(Debug, Clone)]
pub(crate) struct Refining {
    target: f64,
    rule: Refinement,
    max: u32,
    iterations: u32,
    /// The loss before the last update.
    before: f64,
}

impl Refining {
    /// `None` if the loss is already good enough for `threshold`.
    pub(crate) fn begin(schedule: &Schedule, threshold: f64, loss: f64) -> Option<Self> {
        let target = (1. - threshold).max(0.);
        if loss <= target {
            return None;
        }
        let Schedule { rule, max, .. } = *schedule;
        Some(Self { target, rule, max, iterations: 0, before: loss })
    }

    /// Call after each update and the evaluation that follows it: whether to update again.
    ///
    /// Official: the exit test uses the loss *before* the update that was just made, so one more
    /// update follows the first loss that is good enough. Paper: the loss after it.
    pub(crate) fn again(&mut self, loss: f64) -> bool {
        self.iterations += 1;
        let tested = match self.rule {
            Refinement::Official => std::mem::replace(&mut self.before, loss),
            Refinement::Paper => loss,
        };
        tested > self.target && self.iterations < self.max
    }

    pub(crate) fn iterations(&self) -> u32 {
        self.iterations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_sizes_are_those_of_the_reference() {
        let params = AttendAndExcite::official();
        for (count, step, want) in [
            (51, 0, 20.),
            (51, 1, 19.899_749),
            (51, 10, 18.973_666),
            (51, 20, 17.888_544),
            (51, 24, 17.435_596),
            (51, 50, 14.142_136),
            (50, 1, 19.897_698),
            (50, 24, 17.379_322),
            (50, 49, 14.142_136),
            (1, 0, 20.),
        ] {
            let got = step_size(&params, step, count);
            assert!((got - want).abs() < 5e-7, "{step} of {count}: {got}, not {want}");
        }
    }

    /// Feeds losses, the first being the one that triggers; gives the updates made inside.
    fn updates(params: &AttendAndExcite, threshold: f64, losses: &[f64]) -> u32 {
        let schedule = attend_and_excite::schedule(params, 50, 51);
        let Some(mut event) = Refining::begin(&schedule, threshold, losses[0]) else { return 0 };
        let mut rest = losses[1..].iter().chain(std::iter::repeat(&losses[losses.len() - 1]));
        while event.again(*rest.next().unwrap()) {}
        event.iterations()
    }

    #[test]
    fn refinement_ends_where_the_rule_says() {
        let (official, paper) = (AttendAndExcite::official(), AttendAndExcite::paper());
        #[rustfmt::skip]
        let table = [
            // rule      threshold  losses                  updates inside
            (&official,  0.5,       vec![0.5],              0),    // not above the target
            (&official,  0.5,       vec![0.51, 0.4],        2),    // one would do, one follows
            (&official,  0.5,       vec![0.9, 0.8, 0.4],    3),
            (&official,  0.5,       vec![0.9],              20),   // the cap
            (&official,  1.5,       vec![0.1, 0.0],         2),    // the target is never negative
            (&paper,     0.5,       vec![0.5],              0),
            (&paper,     0.5,       vec![0.51, 0.4],        1),
            (&paper,     0.5,       vec![0.9, 0.8, 0.4],    2),
            (&paper,     0.5,       vec![0.9],              1000), // the bound of the unbounded loop
        ];
        for (params, threshold, losses, want) in table {
            let got = updates(params, threshold, &losses);
            assert_eq!(got, want, "{:?} {threshold} {losses:?}", params.refinement);
        }
    }
}
