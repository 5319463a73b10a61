//! Guidance: what happens to the latents before a denoising step.
//!
//! A method sees the map of a pass and gives a loss and a score per subject
//! ([`attend_and_excite::Subjects`]); the run takes the gradient and moves the latents. Here is
//! what does not depend on the method's loss: step sizes and when refinement ends.

pub(crate) mod attend_and_excite;

use excite_jobs::{AttendAndExcite, Refinement};

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
    pub(crate) fn begin(params: &AttendAndExcite, threshold: f64, loss: f64) -> Option<Self> {
        let target = (1. - threshold).max(0.);
        if loss <= target {
            return None;
        }
        let (rule, max) = (params.refinement, params.max_refinement_steps);
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
        let Some(mut event) = Refining::begin(params, threshold, losses[0]) else { return 0 };
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
