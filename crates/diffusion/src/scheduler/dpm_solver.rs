//! DPM-Solver++ of second order, multistep ("2M", Lu et al. 2022, algorithm 2).
//!
//! It works on the predicted clean latents and remembers those of one step.

use candle_core::Tensor;

use super::Schedule;
use super::config::{Prediction, Solver};
use super::spacing::{karras, sigma_at, sigmas, time_at};
use crate::error::Result;

/// Name of the remembered clean latents in a checkpoint.
const CLEAN: &str = "eps.clean";

/// State of the scheduler.
#[derive(Debug, Clone)]
pub struct DpmSolver {
    timesteps: Vec<f32>,
    /// One a step and the one after the last step.
    sigmas: Vec<f64>,
    prediction: Prediction,
    solver: Solver,
    /// Whether the last step is one of first order.
    first_order_last: bool,
    /// The clean latents that the step before predicted.
    clean: Option<Tensor>,
}

/// Signal, noise and half the logarithm of their ratio squared.
struct Level {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl Level {
    /// Of latents whose noise is `sigma` times as large as their signal.
    fn of(sigma: f64) -> Self {
        let alpha = 1. / (sigma * sigma + 1.).sqrt();
        let sigma = sigma * alpha;
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

impl DpmSolver {
    pub(super) fn new(
        schedule: &Schedule,
        times: &[f64],
        karras_levels: bool,
        last: f64,
        (solver, first_order_last): (Solver, bool),
    ) -> Self {
        let all = sigmas(&schedule.alphas);
        let (mut levels, times): (Vec<f64>, Vec<f64>) = if karras_levels {
            let levels = karras(all[0], all[all.len() - 1], times.len());
            let times = levels.iter().map(|&s| time_at(&all, s).round_ties_even()).collect();
            (levels, times)
        } else {
            (times.iter().map(|&time| sigma_at(&all, time)).collect(), times.to_vec())
        };
        levels.push(last);
        Self {
            timesteps: times.into_iter().map(|time| time as f32).collect(),
            sigmas: levels.into_iter().map(|sigma| f64::from(sigma as f32)).collect(),
            prediction: schedule.prediction,
            solver,
            first_order_last,
            clean: None,
        }
    }

    pub(super) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    pub(super) fn step(
        &mut self,
        step: usize,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor> {
        let (now, then) = (Level::of(self.sigmas[step]), Level::of(self.sigmas[step + 1]));
        let clean = match self.prediction {
            Prediction::Noise => ((latents - (prediction * now.sigma)?)? / now.alpha)?,
            Prediction::Velocity => ((latents * now.alpha)? - (prediction * now.sigma)?)?,
        };
        let h = then.lambda - now.lambda;
        let shrink = (-h).exp() - 1.;
        let kept = (latents * (then.sigma / now.sigma))?;
        let first = (kept - (&clean * (then.alpha * shrink))?)?;
        let last = step + 1 == self.timesteps.len() && self.first_order_last;
        let next = match self.clean.take().filter(|_| !last) {
            None => first,
            Some(before) => {
                let ratio = (now.lambda - Level::of(self.sigmas[step - 1]).lambda) / h;
                let slope = ((&clean - before)? / ratio)?;
                let weight = match self.solver {
                    Solver::Midpoint => -0.5 * then.alpha * shrink,
                    Solver::Heun => then.alpha * (shrink / h + 1.),
                };
                (first + (slope * weight)?)?
            }
        };
        self.clean = Some(clean);
        Ok(next)
    }

    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        self.clean.iter().map(|clean| (CLEAN.to_owned(), clean.clone())).collect()
    }

    pub(super) fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) {
        self.clean = get(CLEAN);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use excite_jobs::SchedulerName;

    use crate::scheduler::tests::config;

    /// If the prediction is the true noise, the clean latents never change, and the last step gives
    /// them.
    #[test]
    fn a_perfect_prediction_leads_to_the_image() {
        let config = config();
        let (image, noise) = (0.7f64, -1.3f64);
        let tensor = |v: f64| Tensor::new(v, &Device::Cpu).unwrap();
        for name in [SchedulerName::Dpmpp2m, SchedulerName::Dpmpp2mKarras] {
            let mut scheduler = config.scheduler(name, 20).unwrap();
            // Karras' levels begin exactly at the last training timestep, the others below it.
            let first = scheduler.timesteps()[0] as usize;
            let alpha = config.alphas[first];
            let mut z = tensor(alpha.sqrt() * image + (1. - alpha).sqrt() * noise);
            for step in 0..20 {
                z = scheduler.step(step, &tensor(noise), &z, None).unwrap();
            }
            let got = z.to_scalar::<f64>().unwrap();
            assert!((got - image).abs() < 1e-5, "{name}: {got}");
        }
    }
}
