//! Which timesteps and noise levels a scheduler visits (Lin et al. 2024, table 2; Karras et al.
//! 2022, equation 5), rounded where diffusers rounds.

use serde::Deserialize;

/// How the steps are laid over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Spacing {
    /// Multiples of the whole-numbered ratio, plus an offset.
    Leading,
    /// Evenly from the first to the last, both included.
    Linspace,
    /// Evenly from the last down, the first left out.
    Trailing,
}

/// Exponent of the noise levels of Karras et al.
const RHO: f64 = 7.;

impl Spacing {
    /// For sigma-space schedulers: largest first; fractions are possible.
    pub(super) fn times(self, train: u32, steps: u32, offset: u32) -> Vec<f64> {
        match self {
            // The reference lays them out in single precision.
            Self::Linspace => {
                linspace(train - 1, steps).map(|t| f64::from(t as f32)).rev().collect()
            }
            _ => self.whole_times(train, steps, offset),
        }
    }

    /// Whole numbers, largest first.
    pub(super) fn whole_times(self, train: u32, steps: u32, offset: u32) -> Vec<f64> {
        match self {
            Self::Leading => {
                let ratio = train / steps;
                (0..steps).rev().map(|k| f64::from(k * ratio) + f64::from(offset)).collect()
            }
            Self::Linspace => linspace(train - 1, steps).rev().map(f64::round_ties_even).collect(),
            Self::Trailing => trailing(train, steps),
        }
    }

    /// For DPM-Solver, which makes room for one more and leaves out the last.
    pub(super) fn solver_times(self, train: u32, steps: u32, offset: u32) -> Vec<f64> {
        match self {
            Self::Leading => {
                let ratio = train / (steps + 1);
                (1..=steps).rev().map(|k| f64::from(k * ratio) + f64::from(offset)).collect()
            }
            Self::Linspace => {
                linspace(train - 1, steps + 1).skip(1).rev().map(f64::round_ties_even).collect()
            }
            Self::Trailing => trailing(train, steps),
        }
    }
}

fn linspace(last: u32, count: u32) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator {
    let step = if count > 1 { f64::from(last) / f64::from(count - 1) } else { 0. };
    let end = f64::from(last);
    (0..count).map(move |i| if i > 0 && i + 1 == count { end } else { f64::from(i) * step })
}

fn trailing(train: u32, steps: u32) -> Vec<f64> {
    let ratio = f64::from(train) / f64::from(steps);
    (0..steps).map(|i| (f64::from(train) - f64::from(i) * ratio).round_ties_even() - 1.).collect()
}

/// The noise level `sqrt((1 - abar) / abar)` of every training timestep.
pub(super) fn sigmas(alphas: &[f64]) -> Vec<f64> {
    alphas.iter().map(|alpha| f64::from(((1. - alpha) / alpha).sqrt() as f32)).collect()
}

/// The noise level at a timestep that may lie between two of the training's.
pub(super) fn sigma_at(sigmas: &[f64], time: f64) -> f64 {
    let low = (time.max(0.) as usize).min(sigmas.len() - 1);
    let high = (low + 1).min(sigmas.len() - 1);
    sigmas[low] + (sigmas[high] - sigmas[low]) * (time - low as f64)
}

/// The timestep that has the noise level `sigma`, between two of the training's.
pub(super) fn time_at(sigmas: &[f64], sigma: f64) -> f64 {
    let log = sigma.max(1e-10).ln();
    let logs = |i: usize| f64::from((sigmas[i] as f32).ln());
    let above = sigmas.partition_point(|&s| f64::from((s as f32).ln()) <= log);
    let low = above.saturating_sub(1).min(sigmas.len().saturating_sub(2));
    let weight = ((logs(low) - log) / (logs(low) - logs(low + 1))).clamp(0., 1.);
    (1. - weight) * low as f64 + weight * (low + 1) as f64
}

/// `steps` noise levels from `max` down to `min`, closer together where there is little noise.
pub(super) fn karras(min: f64, max: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (min.powf(1. / RHO), max.powf(1. / RHO));
    let ramp = |i: usize| if steps > 1 { i as f64 / (steps - 1) as f64 } else { 0. };
    (0..steps).map(|i| (high + ramp(i) * (low - high)).powf(RHO)).collect()
}
