//! Euler's method in sigma space (Karras et al. 2022, algorithm 1 without churn), and its ancestral
//! form, which takes a longer step and adds fresh noise.
//!
//! The latents carry the noise at its own size, so the UNet sees them divided by
//! `sqrt(sigma^2 + 1)` ([`Euler::input_scale`]), and they start larger than one.

use candle_core::Tensor;

use super::Schedule;
use super::config::Prediction;
use super::spacing::{karras, sigma_at, sigmas, time_at};
use crate::error::{Error, Result};

/// State of the scheduler: only its schedule.
#[derive(Debug, Clone)]
pub struct Euler {
    timesteps: Vec<f32>,
    /// One a step and the one after the last step.
    sigmas: Vec<f64>,
    prediction: Prediction,
    initial_scale: f64,
    ancestral: bool,
}

impl Euler {
    /// `last` is the noise level after the last step; `None` makes the scheduler ancestral.
    pub(super) fn new(
        schedule: &Schedule,
        times: Vec<f64>,
        karras_levels: bool,
        last: Option<f64>,
        leading: bool,
    ) -> Self {
        let all = sigmas(&schedule.alphas);
        let mut levels: Vec<f64> = times.iter().map(|&time| sigma_at(&all, time)).collect();
        let mut times = times;
        if karras_levels && let (Some(&max), Some(&min)) = (levels.first(), levels.last()) {
            levels = karras(min, max, levels.len());
            times = levels.iter().map(|&sigma| time_at(&all, sigma)).collect();
        }
        levels.push(last.unwrap_or(0.));
        let levels: Vec<f64> = levels.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        let max = levels.iter().copied().fold(0., f64::max);
        Self {
            timesteps: times.into_iter().map(|time| time as f32).collect(),
            sigmas: levels,
            prediction: schedule.prediction,
            initial_scale: if leading { (max * max + 1.).sqrt() } else { max },
            ancestral: last.is_none(),
        }
    }

    pub(super) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    pub(super) fn initial_scale(&self) -> f64 {
        self.initial_scale
    }

    pub(super) fn input_scale(&self, step: usize) -> f64 {
        1. / (self.sigmas[step].powi(2) + 1.).sqrt()
    }

    pub(super) fn draws_noise(&self) -> bool {
        self.ancestral
    }

    pub(super) fn step(
        &self,
        step: usize,
        prediction: &Tensor,
        latents: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (now, then) = (self.sigmas[step], self.sigmas[step + 1]);
        // The derivative of the latents by the noise level: (latents - clean) / sigma.
        let derivative = match self.prediction {
            Prediction::Noise => prediction.clone(),
            Prediction::Velocity => {
                let clean = ((latents / (now * now + 1.))?
                    - (prediction * (now / (now * now + 1.).sqrt()))?)?;
                ((latents - clean)? / now)?
            }
        };
        if !self.ancestral {
            return Ok((latents + (derivative * (then - now))?)?);
        }
        let up = (then * then * (now * now - then * then) / (now * now)).max(0.).sqrt();
        let down = (then * then - up * up).max(0.).sqrt();
        let latents = (latents + (derivative * (down - now))?)?;
        match noise {
            Some(noise) => Ok((latents + (noise * up)?)?),
            None => Err(Error::Spec("an ancestral step needs noise".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use excite_jobs::SchedulerName;

    use crate::scheduler::tests::config;

    /// If the prediction is the true noise, every step lands on the image with the noise of the
    /// next level, and the last one on the image.
    #[test]
    fn a_perfect_prediction_leads_to_the_image() {
        let (image, noise) = (0.7f64, -1.3f64);
        let tensor = |v: f64| Tensor::new(v, &Device::Cpu).unwrap();
        for name in [SchedulerName::Euler, SchedulerName::EulerKarras] {
            let mut scheduler = config().scheduler(name, 10).unwrap();
            let level = |step| {
                let scale: f64 = scheduler.input_scale(step);
                (1. / (scale * scale) - 1.).sqrt()
            };
            let levels: Vec<f64> = (0..10).map(level).chain([0.]).collect();
            let mut z = tensor(image + levels[0] * noise);
            for step in 0..10 {
                z = scheduler.step(step, &tensor(noise), &z, None).unwrap();
                let want = image + levels[step + 1] * noise;
                assert!((z.to_scalar::<f64>().unwrap() - want).abs() < 1e-6, "{name} {step}");
            }
        }
    }

    #[test]
    fn an_ancestral_step_without_noise_is_refused() {
        let mut scheduler = config().scheduler(SchedulerName::EulerAncestral, 10).unwrap();
        assert!(scheduler.draws_noise());
        let z = Tensor::new(1f64, &Device::Cpu).unwrap();
        assert!(scheduler.step(0, &z, &z, None).is_err());
    }
}
