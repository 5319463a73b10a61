//! PNDM as Stable Diffusion 1.x uses it: PLMS only, the second timestep visited twice.
//!
//! The second visit restarts from the latents saved at the first step, so whatever guidance did to
//! the latents at step 1 is lost but for its effect on the averaged prediction; the loss rebounds
//! at step 2. The reference implementations behave so, and so does this one.

use candle_core::Tensor;

use super::Schedule;
use super::config::Prediction;
use crate::error::Result;

/// Past predictions kept between steps; the newest comes last.
const HISTORY: usize = 3;

/// State of the scheduler.
#[derive(Debug, Clone)]
pub struct Pndm {
    schedule: Schedule,
    timesteps: Vec<f32>,
    /// At most [`HISTORY`] past noise predictions, oldest first.
    past: Vec<Tensor>,
    /// The latents before step 0, from which step 1 starts again.
    sample: Option<Tensor>,
}

impl Pndm {
    pub(super) fn new(schedule: Schedule, times: Vec<f64>) -> Self {
        let mut timesteps: Vec<f32> = times.into_iter().map(|time| time as f32).collect();
        if timesteps.len() > 1 {
            timesteps.insert(1, timesteps[1]);
        }
        Self { schedule, timesteps, past: Vec::new(), sample: None }
    }

    pub(super) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    pub(super) fn step(&mut self, step: usize, noise: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let t = self.timesteps[step] as i64;
        let before = t - self.schedule.ratio;
        if step == 1 {
            // The second visit: from the saved latents, with the mean of both predictions.
            let first = self.past.last().unwrap_or(noise);
            let averaged = ((noise + first)? / 2.)?;
            let sample = self.sample.take().unwrap_or_else(|| latents.clone());
            return self.transfer(&sample, &averaged, t + self.schedule.ratio, t);
        }
        let combined = match self.past.as_slice() {
            [] => {
                self.sample = Some(latents.clone());
                noise.clone()
            }
            [e2] => ((noise * 3.)? - e2)?.affine(1. / 2., 0.)?,
            [e3, e2] => (((noise * 23.)? - (e2 * 16.)?)? + (e3 * 5.)?)?.affine(1. / 12., 0.)?,
            [.., e4, e3, e2] => {
                let newer = ((noise * 55.)? - (e2 * 59.)?)?;
                let older = ((e3 * 37.)? - (e4 * 9.)?)?;
                (newer + older)?.affine(1. / 24., 0.)?
            }
        };
        self.past.push(noise.clone());
        if self.past.len() > HISTORY {
            self.past.remove(0);
        }
        self.transfer(latents, &combined, t, before)
    }

    /// Equation 9 of the PNDM paper: from timestep `t` to `before`.
    fn transfer(&self, latents: &Tensor, noise: &Tensor, t: i64, before: i64) -> Result<Tensor> {
        let (now, then) = (self.schedule.alpha(t), self.schedule.alpha(before));
        // What is averaged over the steps is the prediction itself, whatever it means.
        let noise = match self.schedule.prediction {
            Prediction::Noise => noise,
            Prediction::Velocity => &((noise * now.sqrt())? + (latents * (1. - now).sqrt())?)?,
        };
        let scale = (then / now).sqrt();
        let divisor = now * (1. - then).sqrt() + (now * (1. - now) * then).sqrt();
        Ok(((latents * scale)? - (noise * ((then - now) / divisor))?)?)
    }

    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        let past = self.past.iter().enumerate().map(|(i, e)| (format!("eps.{i}"), e.clone()));
        past.chain(self.sample.clone().map(|sample| ("eps.sample".to_owned(), sample))).collect()
    }

    pub(super) fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) {
        self.past = (0..HISTORY).map_while(|i| get(&format!("eps.{i}"))).collect();
        self.sample = get("eps.sample");
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use excite_jobs::SchedulerName;

    use crate::scheduler::tests::config;

    fn scalar(value: f64) -> Tensor {
        Tensor::new(value as f32, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_second_timestep_comes_twice() {
        let scheduler = config().scheduler(SchedulerName::Pndm, 50).unwrap();
        let timesteps = scheduler.timesteps();
        assert_eq!(timesteps.len(), 51);
        assert_eq!(timesteps[..5], [981., 961., 961., 941., 921.]);
        assert_eq!((timesteps[10], timesteps[20], timesteps[24]), (801., 601., 521.));
        assert_eq!(timesteps[49..], [21., 1.]);
        for (steps, want) in [(1, vec![1.]), (2, vec![501., 1., 1.])] {
            let scheduler = config().scheduler(SchedulerName::Pndm, steps).unwrap();
            assert_eq!(scheduler.timesteps(), want);
        }
    }

    #[test]
    fn the_first_seven_calls_give_what_diffusers_gives() {
        let mut scheduler = config().scheduler(SchedulerName::Pndm, 50).unwrap();
        let mut z = scalar(1.);
        let want = [
            1.110_526_6,
            1.104_363_9,
            1.187_962_9,
            1.277_496_1,
            1.353_950_7,
            1.429_243_1,
            1.499_226_7,
        ];
        for (step, want) in want.into_iter().enumerate() {
            z = scheduler.step(step, &scalar(0.1 * (step + 1) as f64), &z, None).unwrap();
            let got = z.to_scalar::<f32>().unwrap();
            assert!((got - want).abs() < 3e-6, "call {step}: {got}, not {want}");
        }
    }

    #[test]
    fn a_restored_scheduler_goes_on_with_the_same_bits() {
        for stop in 1..7 {
            let mut whole = config().scheduler(SchedulerName::Pndm, 50).unwrap();
            let mut z = scalar(1.);
            let mut resumed = None;
            for step in 0..8 {
                if step == stop {
                    let saved = whole.state();
                    let mut fresh = config().scheduler(SchedulerName::Pndm, 50).unwrap();
                    fresh.restore(|name| {
                        saved.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor.clone())
                    });
                    resumed = Some((fresh, z.clone()));
                }
                let noise = scalar((step as f64).sin());
                z = whole.step(step, &noise, &z, None).unwrap();
                if let Some((fresh, other)) = &mut resumed {
                    *other = fresh.step(step, &noise, other, None).unwrap();
                }
            }
            let (_, other) = resumed.unwrap();
            let bits = |t: &Tensor| t.to_scalar::<f32>().unwrap().to_bits();
            assert_eq!(bits(&other), bits(&z), "stopped before step {stop}");
        }
    }
}
