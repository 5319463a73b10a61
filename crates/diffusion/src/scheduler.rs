//! Schedulers: from a noise prediction to the next latents.
//!
//! A scheduler knows its timesteps and carries what it must remember between steps as tensors of
//! the whole batch, so that a checkpoint can save a row of each. Options of a configuration are
//! either honoured or refused.

mod ddim;
mod pndm;

use candle_core::Tensor;
use excite_jobs::SchedulerName;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::folder::Loader;
use ddim::Ddim;
use pndm::Pndm;

const FILE: &str = "scheduler/scheduler_config.json";

#[derive(Debug, Deserialize)]
struct File {
    #[serde(rename = "_class_name")]
    class: String,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    num_train_timesteps: u32,
    #[serde(default)]
    steps_offset: u32,
    #[serde(default)]
    set_alpha_to_one: Option<bool>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// `scheduler/scheduler_config.json`, read and checked; any scheduler can be made from it.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    default: SchedulerName,
    /// Cumulative product of alphas (`abar`), one a training timestep.
    alphas: Vec<f64>,
    steps_offset: u32,
    /// What stands for `abar` before timestep 0.
    final_alpha: f64,
}

impl SchedulerConfig {
    pub(crate) fn load(loader: &mut Loader<'_>) -> Result<Self> {
        Self::parse(&loader.bytes(FILE)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::Config { file: FILE.into(), message };
        let file: File = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        // diffusers' own default for `set_alpha_to_one` differs by class.
        let (default, alpha_to_one) = match file.class.as_str() {
            "PNDMScheduler" => (SchedulerName::Pndm, false),
            "DDIMScheduler" => (SchedulerName::Ddim, true),
            class => {
                return Err(refuse("_class_name", class, "Use a model with PNDM or DDIM."));
            }
        };
        file.check()?;
        let alphas = file.alphas()?;
        let one = file.set_alpha_to_one.unwrap_or(alpha_to_one);
        let final_alpha = if one { 1. } else { alphas[0] };
        Ok(Self { default, alphas, steps_offset: file.steps_offset, final_alpha })
    }

    /// The scheduler that the model names.
    pub fn default_name(&self) -> SchedulerName {
        self.default
    }

    /// Timesteps the model was trained with.
    pub fn train_timesteps(&self) -> u32 {
        self.alphas.len() as u32
    }

    /// A scheduler for `steps` steps.
    ///
    /// # Errors
    /// If `steps` is 0 or more than the training timesteps allow.
    pub fn scheduler(&self, name: SchedulerName, steps: u32) -> Result<Scheduler> {
        let train = self.train_timesteps();
        let last = |steps: u32| (train / steps) * (steps - 1) + self.steps_offset;
        if steps == 0 || steps > train || last(steps) >= train {
            let max = (1..train).rev().find(|&steps| last(steps) < train).unwrap_or(1);
            return Err(Error::Steps { steps, scheduler: name.as_str(), max });
        }
        // "leading" spacing: multiples of the whole-numbered ratio, plus the offset.
        let ratio = train / steps;
        let base: Vec<u32> = (0..steps).map(|k| k * ratio + self.steps_offset).collect();
        let schedule = Schedule {
            alphas: self.alphas.clone(),
            final_alpha: self.final_alpha,
            ratio: i64::from(ratio),
        };
        Ok(match name {
            SchedulerName::Pndm => Scheduler::Pndm(Pndm::new(schedule, &base)),
            SchedulerName::Ddim => Scheduler::Ddim(Ddim::new(schedule, &base)),
        })
    }
}

impl File {
    /// Options with one value that is done; others are refused. Absent means diffusers' default.
    fn check(&self) -> Result<()> {
        let fixed: &[(&str, &str)] = &[
            ("skip_prk_steps", "true"),
            ("prediction_type", "\"epsilon\""),
            ("timestep_spacing", "\"leading\""),
            ("trained_betas", "null"),
            ("thresholding", "false"),
            ("clip_sample", "false"),
            ("rescale_betas_zero_snr", "false"),
        ];
        for (field, want) in fixed {
            let Some(value) = self.rest.get(*field).filter(|value| !value.is_null()) else {
                let needed = match *field {
                    "skip_prk_steps" => self.class == "PNDMScheduler",
                    "clip_sample" => self.class == "DDIMScheduler",
                    _ => false,
                };
                if needed {
                    let remedy = format!("Set `{field}` to {want} in {FILE}.");
                    return Err(refuse(field, "absent (the default is the opposite)", &remedy));
                }
                continue;
            };
            let value = value.to_string();
            if value != *want {
                let remedy = format!("Use a model whose scheduler has `{field}` {want}.");
                return Err(refuse(field, &value, &remedy));
            }
        }
        Ok(())
    }

    fn alphas(&self) -> Result<Vec<f64>> {
        let count = self.num_train_timesteps;
        let valid = |beta: f64| beta > 0. && beta < 1.;
        if !(2..=100_000).contains(&count) || !valid(self.beta_start) || !valid(self.beta_end) {
            let message = format!(
                "`num_train_timesteps` {count}, `beta_start` {} or `beta_end` {} is out of range",
                self.beta_start, self.beta_end
            );
            return Err(Error::Config { file: FILE.into(), message });
        }
        let (from, to, squared) = match self.beta_schedule.as_str() {
            "scaled_linear" => (self.beta_start.sqrt(), self.beta_end.sqrt(), true),
            "linear" => (self.beta_start, self.beta_end, false),
            other => {
                let remedy = "Use a model with `scaled_linear` or `linear`.";
                return Err(refuse("beta_schedule", other, remedy));
            }
        };
        // Single precision where diffusers has it: the last bits of the betas decide the eighth
        // digit of their product.
        let beta = |t: u32| {
            let root = (from + (to - from) * f64::from(t) / f64::from(count - 1)) as f32;
            if squared { root * root } else { root }
        };
        let product = |product: &mut f64, t: u32| {
            *product *= f64::from(1. - beta(t));
            Some(f64::from(*product as f32))
        };
        Ok((0..count).scan(1., product).collect())
    }
}

fn refuse(field: &str, value: &str, remedy: &str) -> Error {
    Error::Unsupported {
        file: FILE.into(),
        field: field.into(),
        value: value.into(),
        remedy: remedy.into(),
    }
}

/// What every scheduler shares.
#[derive(Debug, Clone)]
struct Schedule {
    alphas: Vec<f64>,
    final_alpha: f64,
    /// Timesteps between two steps.
    ratio: i64,
}

impl Schedule {
    fn alpha(&self, timestep: i64) -> f64 {
        usize::try_from(timestep).map_or(self.final_alpha, |t| self.alphas[t])
    }
}

/// A scheduler in the middle of a run.
#[derive(Debug, Clone)]
pub enum Scheduler {
    /// Pseudo linear multistep (Liu et al. 2022, PLMS variant), the default of SD 1.x.
    Pndm(Pndm),
    /// Denoising diffusion implicit models (Song et al. 2021), eta 0.
    Ddim(Ddim),
}

impl Scheduler {
    /// Diffusion times in order, one a step. PNDM repeats its second.
    pub fn timesteps(&self) -> &[u32] {
        match self {
            Self::Pndm(pndm) => pndm.timesteps(),
            Self::Ddim(ddim) => ddim.timesteps(),
        }
    }

    /// The latents after step `step`, from the noise prediction at its timestep. Steps are taken in
    /// order.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn step(&mut self, step: usize, noise: &Tensor, latents: &Tensor) -> Result<Tensor> {
        match self {
            Self::Pndm(pndm) => pndm.step(step, noise, latents),
            Self::Ddim(ddim) => ddim.step(step, noise, latents),
        }
    }

    /// What must be saved between steps: name and tensor of the whole batch.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Pndm(pndm) => pndm.state(),
            Self::Ddim(_) => Vec::new(),
        }
    }

    /// Takes back what [`Scheduler::state`] gave, by name.
    pub fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) {
        if let Self::Pndm(pndm) = self {
            pndm.restore(get);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMOJI: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/emoji/scheduler/scheduler_config.json"
    ));

    pub(super) fn config() -> SchedulerConfig {
        SchedulerConfig::parse(EMOJI).unwrap()
    }

    #[test]
    fn alphas_are_those_of_stable_diffusion() {
        let config = config();
        for (t, want) in [
            (0, 0.999_149_98),
            (1, 0.998_296_02),
            (21, 0.980_380_65),
            (961, 0.007_281_72),
            (981, 0.005_775_50),
        ] {
            assert!((config.alphas[t] - want).abs() < 1e-8, "{t}: {}", config.alphas[t]);
        }
    }

    #[test]
    fn impossible_numbers_of_steps_name_the_largest_possible() {
        for steps in [0, 1000, 1001, u32::MAX] {
            let error = config().scheduler(SchedulerName::Ddim, steps).unwrap_err();
            assert!(matches!(error, Error::Steps { max: 999, .. }), "{steps}: {error:?}");
        }
        for steps in [1, 2, 3, 999] {
            for name in [SchedulerName::Pndm, SchedulerName::Ddim] {
                let scheduler = config().scheduler(name, steps).unwrap();
                assert!(scheduler.timesteps().iter().all(|&t| t < 1000), "{steps}");
            }
        }
    }

    #[test]
    fn options_that_are_not_done_are_refused() {
        for (field, value) in [
            ("prediction_type", Value::from("v_prediction")),
            ("timestep_spacing", Value::from("trailing")),
            ("skip_prk_steps", Value::from(false)),
            ("_class_name", Value::from("EulerDiscreteScheduler")),
            ("beta_schedule", Value::from("squaredcos_cap_v2")),
            ("trained_betas", Value::from(vec![0.1])),
        ] {
            let mut json: serde_json::Map<String, Value> = serde_json::from_slice(EMOJI).unwrap();
            json.insert(field.into(), value);
            let error = SchedulerConfig::parse(&serde_json::to_vec(&json).unwrap()).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{field}: {error}");
        }
    }
}
