//! DDIM with eta 0: deterministic, one visit a timestep.

use candle_core::Tensor;

use super::Schedule;
use super::config::Prediction;
use crate::error::Result;

/// State of the scheduler: only its schedule.
#[derive(Debug, Clone)]
pub struct Ddim {
    schedule: Schedule,
    timesteps: Vec<f32>,
}

impl Ddim {
    pub(super) fn new(schedule: Schedule, times: Vec<f64>) -> Self {
        Self { schedule, timesteps: times.into_iter().map(|time| time as f32).collect() }
    }

    pub(super) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Equation 12 of the DDIM paper with sigma 0.
    pub(super) fn step(
        &self,
        step: usize,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor> {
        let t = self.timesteps[step] as i64;
        let (now, then) = (self.schedule.alpha(t), self.schedule.alpha(t - self.schedule.ratio));
        let (signal, deviation) = (now.sqrt(), (1. - now).sqrt());
        let (clean, noise) = match self.schedule.prediction {
            Prediction::Noise => {
                (((latents - (prediction * deviation)?)? / signal)?, prediction.clone())
            }
            Prediction::Velocity => (
                ((latents * signal)? - (prediction * deviation)?)?,
                ((prediction * signal)? + (latents * deviation)?)?,
            ),
        };
        Ok(((clean * then.sqrt())? + (noise * (1. - then).sqrt())?)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use excite_jobs::SchedulerName;

    use crate::scheduler::tests::config;

    #[test]
    fn timesteps_come_once() {
        let scheduler = config().scheduler(SchedulerName::Ddim, 50).unwrap();
        let timesteps = scheduler.timesteps();
        assert_eq!(timesteps.len(), 50);
        assert_eq!(
            (timesteps[0], timesteps[10], timesteps[20], timesteps[49]),
            (981., 781., 581., 1.)
        );
    }

    /// If the prediction is the true noise of a clean image, every step lands on that image noised
    /// to the next timestep, and the last one on the image itself but for the final alpha.
    #[test]
    fn a_perfect_prediction_leads_to_the_image() {
        let config = config();
        let mut scheduler = config.scheduler(SchedulerName::Ddim, 10).unwrap();
        let (image, noise) = (0.7f64, -1.3f64);
        let noised = |alpha: f64| alpha.sqrt() * image + (1. - alpha).sqrt() * noise;
        let tensor = |v: f64| Tensor::new(v, &Device::Cpu).unwrap();
        let mut z = tensor(noised(config.alphas[901]));
        for step in 0..10 {
            z = scheduler.step(step, &tensor(noise), &z, None).unwrap();
            let next = scheduler.timesteps().get(step + 1);
            let alpha = next.map_or(config.alphas[0], |&t| config.alphas[t as usize]);
            assert!((z.to_scalar::<f64>().unwrap() - noised(alpha)).abs() < 1e-12, "step {step}");
        }
    }
}
