//! `scheduler/scheduler_config.json`, read and checked.
//!
//! Every option is either honoured or refused by name. What a file leaves out has the default of
//! the scheduler that is made from it, as with `from_config` of diffusers: the default spacing of
//! PNDM and DDIM is "leading", that of the others "linspace".

use excite_jobs::SchedulerName;
use serde::Deserialize;
use serde_json::Value;

use super::spacing::Spacing;
use super::{Ddim, DpmSolver, Euler, Pndm, Scheduler};
use crate::error::{Error, Result};
use crate::folder::Loader;

pub(super) const FILE: &str = "scheduler/scheduler_config.json";

/// What the UNet predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Prediction {
    /// The noise in the latents.
    #[serde(rename = "epsilon")]
    Noise,
    /// `sqrt(abar) * noise - sqrt(1 - abar) * image` (Salimans and Ho 2022).
    #[serde(rename = "v_prediction")]
    Velocity,
}

/// Where the noise ends.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// How the second-order solver weighs its correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Solver {
    Midpoint,
    Heun,
}

#[derive(Debug, Clone, Deserialize)]
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
    #[serde(default)]
    timestep_spacing: Option<Spacing>,
    #[serde(default)]
    prediction_type: Option<Prediction>,
    #[serde(default)]
    use_karras_sigmas: Option<bool>,
    #[serde(default)]
    final_sigmas_type: Option<FinalSigma>,
    #[serde(default)]
    solver_type: Option<Solver>,
    #[serde(default)]
    lower_order_final: Option<bool>,
    #[serde(default)]
    euler_at_final: Option<bool>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// `scheduler/scheduler_config.json`, checked; any scheduler can be made from it.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    file: File,
    /// The scheduler that the model names, or its class if that is none of ours.
    own: Result<SchedulerName, String>,
    /// Cumulative product of alphas (`abar`), one a training timestep.
    pub(super) alphas: Vec<f64>,
}

/// What every scheduler shares.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) alphas: Vec<f64>,
    /// What stands for `abar` before timestep 0.
    pub(super) final_alpha: f64,
    /// Timesteps between two steps.
    pub(super) ratio: i64,
    pub(super) prediction: Prediction,
}

impl Schedule {
    pub(super) fn alpha(&self, timestep: i64) -> f64 {
        usize::try_from(timestep).map_or(self.final_alpha, |t| self.alphas[t])
    }
}

/// One value is done, others are refused; absent or null is that value unless `needed`.
struct Fixed {
    field: &'static str,
    want: &'static str,
    /// The schedulers to which the option means something; empty for all.
    of: &'static [SchedulerName],
    /// The default of the class is another value, so the file has to say it.
    needed: bool,
}

const fn fixed(
    field: &'static str,
    want: &'static str,
    of: &'static [SchedulerName],
    needed: bool,
) -> Fixed {
    Fixed { field, want, of, needed }
}

const EULERS: &[SchedulerName] = &[SchedulerName::Euler, SchedulerName::EulerKarras];
const SOLVERS: &[SchedulerName] = &[SchedulerName::Dpmpp2m, SchedulerName::Dpmpp2mKarras];
const SIGMAS: &[SchedulerName] = &[
    SchedulerName::Euler,
    SchedulerName::EulerKarras,
    SchedulerName::Dpmpp2m,
    SchedulerName::Dpmpp2mKarras,
];

const FIXED: &[Fixed] = &[
    fixed("trained_betas", "null", &[], false),
    fixed("thresholding", "false", &[], false),
    fixed("rescale_betas_zero_snr", "false", &[], false),
    fixed("skip_prk_steps", "true", &[SchedulerName::Pndm], true),
    fixed("clip_sample", "false", &[SchedulerName::Ddim], true),
    fixed("interpolation_type", "\"linear\"", EULERS, false),
    fixed("timestep_type", "\"discrete\"", EULERS, false),
    fixed("sigma_min", "null", EULERS, false),
    fixed("sigma_max", "null", EULERS, false),
    fixed("use_exponential_sigmas", "false", SIGMAS, false),
    fixed("use_beta_sigmas", "false", SIGMAS, false),
    fixed("algorithm_type", "\"dpmsolver++\"", SOLVERS, false),
    fixed("solver_order", "2", SOLVERS, false),
    fixed("use_lu_lambdas", "false", SOLVERS, false),
    fixed("use_flow_sigmas", "false", SOLVERS, false),
    fixed("variance_type", "null", SOLVERS, false),
    fixed("lambda_min_clipped", "null", SOLVERS, false),
];

impl SchedulerConfig {
    pub(crate) fn load(loader: &mut Loader<'_>) -> Result<Self> {
        Self::parse(&loader.bytes(FILE)?)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::Config { file: FILE.into(), message };
        // Python writes infinities that JSON does not have (`lambda_min_clipped` of DPM-Solver).
        let text = String::from_utf8_lossy(bytes).replace(": -Infinity", ": null");
        let value: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        for (field, known) in NAMED {
            let found = value.get(*field).filter(|found| !found.is_null());
            if let Some(found) = found.filter(|v| v.as_str().is_none_or(|n| !known.contains(&n))) {
                let remedy = format!("Use a model whose scheduler has {}.", known.join(" or "));
                return Err(refuse(field, &found.to_string(), &remedy));
            }
        }
        let file: File = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        let karras = file.use_karras_sigmas.unwrap_or(false);
        let own = match (file.class.as_str(), karras) {
            ("PNDMScheduler", _) => Ok(SchedulerName::Pndm),
            ("DDIMScheduler", _) => Ok(SchedulerName::Ddim),
            ("EulerDiscreteScheduler", false) => Ok(SchedulerName::Euler),
            ("EulerDiscreteScheduler", true) => Ok(SchedulerName::EulerKarras),
            ("EulerAncestralDiscreteScheduler", _) => Ok(SchedulerName::EulerAncestral),
            ("DPMSolverMultistepScheduler", false) => Ok(SchedulerName::Dpmpp2m),
            ("DPMSolverMultistepScheduler", true) => Ok(SchedulerName::Dpmpp2mKarras),
            // Its betas and prediction serve the others all the same.
            (class, _) => Err(class.to_owned()),
        };
        if let Ok(name) = own {
            file.check(name)?;
        }
        let alphas = file.alphas()?;
        Ok(Self { file, own, alphas })
    }

    /// The scheduler that the model names.
    ///
    /// # Errors
    /// Its class, if that is none of ours: then one has to be chosen.
    pub fn own(&self) -> Result<SchedulerName, String> {
        self.own.clone()
    }

    /// Timesteps the model was trained with.
    pub fn train_timesteps(&self) -> u32 {
        self.alphas.len() as u32
    }

    /// Whether the UNet predicts velocity (`v_prediction`) instead of noise.
    pub fn predicts_velocity(&self) -> bool {
        self.prediction() == Prediction::Velocity
    }

    pub(crate) fn set_velocity(&mut self) {
        self.file.prediction_type = Some(Prediction::Velocity);
    }

    /// A scheduler for `steps` steps.
    ///
    /// # Errors
    /// If `steps` is 0 or more than the training timesteps allow, or the model has an option that
    /// this scheduler does not do.
    pub fn scheduler(&self, name: SchedulerName, steps: u32) -> Result<Scheduler> {
        self.file.check(name)?;
        let train = self.train_timesteps();
        if !self.fits(name, steps) {
            let max = (1..train).rev().find(|&steps| self.fits(name, steps)).unwrap_or(1);
            return Err(Error::Steps { steps, scheduler: name.as_str(), max });
        }
        let times = self.times(name, steps);
        let alpha_to_one = self.file.set_alpha_to_one.unwrap_or(name == SchedulerName::Ddim);
        let schedule = Schedule {
            alphas: self.alphas.clone(),
            final_alpha: if alpha_to_one { 1. } else { self.alphas[0] },
            ratio: i64::from(train / steps),
            prediction: self.prediction(),
        };
        let last = match self.file.final_sigmas_type.unwrap_or(FinalSigma::Zero) {
            FinalSigma::Zero => 0.,
            FinalSigma::SigmaMin => self.sigma_min(),
        };
        let karras = matches!(name, SchedulerName::EulerKarras | SchedulerName::Dpmpp2mKarras);
        Ok(match name {
            SchedulerName::Pndm => Scheduler::Pndm(Pndm::new(schedule, times)),
            SchedulerName::Ddim => Scheduler::Ddim(Ddim::new(schedule, times)),
            SchedulerName::Euler | SchedulerName::EulerKarras => {
                let leading = self.spacing(name) == Spacing::Leading;
                Scheduler::Euler(Euler::new(&schedule, times, karras, Some(last), leading))
            }
            SchedulerName::EulerAncestral => {
                let leading = self.spacing(name) == Spacing::Leading;
                Scheduler::Euler(Euler::new(&schedule, times, false, None, leading))
            }
            SchedulerName::Dpmpp2m | SchedulerName::Dpmpp2mKarras => {
                let lower = self.file.lower_order_final.unwrap_or(true) && times.len() < 15;
                let first_order_last =
                    lower || last == 0. || self.file.euler_at_final == Some(true);
                let solver = self.file.solver_type.unwrap_or(Solver::Midpoint);
                let solver = (solver, first_order_last);
                Scheduler::DpmSolver(DpmSolver::new(&schedule, &times, karras, last, solver))
            }
        })
    }

    fn prediction(&self) -> Prediction {
        self.file.prediction_type.unwrap_or(Prediction::Noise)
    }

    fn spacing(&self, name: SchedulerName) -> Spacing {
        let default = match name {
            SchedulerName::Pndm | SchedulerName::Ddim => Spacing::Leading,
            _ => Spacing::Linspace,
        };
        self.file.timestep_spacing.unwrap_or(default)
    }

    fn times(&self, name: SchedulerName, steps: u32) -> Vec<f64> {
        let (train, offset) = (self.train_timesteps(), self.file.steps_offset);
        match name {
            SchedulerName::Dpmpp2m | SchedulerName::Dpmpp2mKarras => {
                self.spacing(name).solver_times(train, steps, offset)
            }
            SchedulerName::Pndm | SchedulerName::Ddim => {
                self.spacing(name).whole_times(train, steps, offset)
            }
            _ => self.spacing(name).times(train, steps, offset),
        }
    }

    /// Whether every step has a timestep of its own among those of the training.
    fn fits(&self, name: SchedulerName, steps: u32) -> bool {
        let train = self.train_timesteps();
        if steps == 0 || steps >= train {
            return false;
        }
        let times = self.times(name, steps);
        let inside = times.iter().all(|&t| t >= 0. && t <= f64::from(train - 1));
        inside && times.len() == steps as usize && times.windows(2).all(|pair| pair[0] > pair[1])
    }

    fn sigma_min(&self) -> f64 {
        ((1. - self.alphas[0]) / self.alphas[0]).sqrt()
    }
}

/// Fields whose value is one of a few names.
const NAMED: &[(&str, &[&str])] = &[
    ("timestep_spacing", &["leading", "linspace", "trailing"]),
    ("prediction_type", &["epsilon", "v_prediction"]),
    ("final_sigmas_type", &["zero", "sigma_min"]),
    ("solver_type", &["midpoint", "heun"]),
    ("beta_schedule", &["scaled_linear", "linear"]),
];

impl File {
    /// Refuses what the scheduler `name` would have to do and does not.
    fn check(&self, name: SchedulerName) -> Result<()> {
        let applies = |fixed: &&Fixed| fixed.of.is_empty() || fixed.of.contains(&name);
        for Fixed { field, want, needed, .. } in FIXED.iter().filter(applies) {
            match self.rest.get(*field).filter(|value| !value.is_null()) {
                // Of another class's file nothing is asked.
                None if *needed && self.of_class(name) => {
                    let remedy = format!("Set `{field}` to {want} in {FILE}.");
                    return Err(refuse(field, "absent (the default is the opposite)", &remedy));
                }
                Some(value) if *value != wanted(want) => {
                    let others: Vec<&str> = SchedulerName::NAMES
                        .iter()
                        .filter(|other| self.does(field, other))
                        .copied()
                        .collect();
                    let remedy = match others.as_slice() {
                        [] => format!("Use a model whose scheduler has `{field}` {want}."),
                        others => format!(
                            "Use a model whose scheduler has `{field}` {want}, or name another \
                             scheduler: {}.",
                            others.join(", ")
                        ),
                    };
                    return Err(refuse(field, &value.to_string(), &remedy));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn of_class(&self, name: SchedulerName) -> bool {
        matches!(
            (self.class.as_str(), name),
            ("PNDMScheduler", SchedulerName::Pndm) | ("DDIMScheduler", SchedulerName::Ddim)
        )
    }

    /// Whether `field` means nothing to the scheduler `other`.
    fn does(&self, field: &str, other: &str) -> bool {
        let of = FIXED.iter().find(|fixed| fixed.field == field).map_or(&[][..], |fixed| fixed.of);
        !of.is_empty() && other.parse().is_ok_and(|other: SchedulerName| !of.contains(&other))
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
        let squared = self.beta_schedule == "scaled_linear";
        let (from, to) = if squared {
            (self.beta_start.sqrt(), self.beta_end.sqrt())
        } else {
            (self.beta_start, self.beta_end)
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

/// The value that a [`Fixed`] option has to have.
fn wanted(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

fn refuse(field: &str, value: &str, remedy: &str) -> Error {
    Error::Unsupported {
        file: FILE.into(),
        field: field.into(),
        value: value.into(),
        remedy: remedy.into(),
    }
}
