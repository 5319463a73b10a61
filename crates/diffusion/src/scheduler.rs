//! Schedulers: from the UNet's prediction to the next latents.
//!
//! A scheduler knows its timesteps and carries what it must remember between steps as tensors of
//! the whole batch, so that a checkpoint can save a row of each. [`SchedulerConfig`] makes one from
//! the model's file, by the model's own choice or by name.

mod config;
mod ddim;
mod dpm_solver;
mod euler;
mod pndm;
mod spacing;

use candle_core::Tensor;

use crate::error::Result;
use config::Schedule;
pub use config::SchedulerConfig;
use ddim::Ddim;
use dpm_solver::DpmSolver;
use euler::Euler;
use pndm::Pndm;

/// A scheduler in the middle of a run.
#[derive(Debug, Clone)]
pub enum Scheduler {
    /// Pseudo linear multistep (Liu et al. 2022, PLMS variant), the default of SD 1.x.
    Pndm(Pndm),
    /// Denoising diffusion implicit models (Song et al. 2021), eta 0.
    Ddim(Ddim),
    /// Euler's method in sigma space (Karras et al. 2022), also ancestral; the default of SDXL.
    Euler(Euler),
    /// DPM-Solver++ 2M (Lu et al. 2022).
    DpmSolver(DpmSolver),
}

impl Scheduler {
    /// Diffusion times in order, one a step. PNDM repeats its second; those of Euler's method may
    /// lie between two of the training's.
    pub fn timesteps(&self) -> &[f32] {
        match self {
            Self::Pndm(pndm) => pndm.timesteps(),
            Self::Ddim(ddim) => ddim.timesteps(),
            Self::Euler(euler) => euler.timesteps(),
            Self::DpmSolver(solver) => solver.timesteps(),
        }
    }

    /// What the initial noise is multiplied by to become latents.
    pub fn initial_scale(&self) -> f64 {
        match self {
            Self::Euler(euler) => euler.initial_scale(),
            _ => 1.,
        }
    }

    /// What the latents are multiplied by before the UNet sees them at `step`: 1 where the latents
    /// have the size that the UNet was trained on.
    pub fn input_scale(&self, step: usize) -> f64 {
        match self {
            Self::Euler(euler) => euler.input_scale(step),
            _ => 1.,
        }
    }

    /// Whether [`Scheduler::step`] needs fresh noise.
    pub fn draws_noise(&self) -> bool {
        matches!(self, Self::Euler(euler) if euler.draws_noise())
    }

    /// The latents after step `step`, from the UNet's prediction at its timestep. Steps are taken
    /// in order. `noise` is standard normal, of the latents' shape.
    ///
    /// # Errors
    /// If noise is needed and there is none, or the tensor library fails.
    pub fn step(
        &mut self,
        step: usize,
        prediction: &Tensor,
        latents: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        match self {
            Self::Pndm(pndm) => pndm.step(step, prediction, latents),
            Self::Ddim(ddim) => ddim.step(step, prediction, latents),
            Self::Euler(euler) => euler.step(step, prediction, latents, noise),
            Self::DpmSolver(solver) => solver.step(step, prediction, latents),
        }
    }

    /// What must be saved between steps: name and tensor of the whole batch.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Pndm(pndm) => pndm.state(),
            Self::DpmSolver(solver) => solver.state(),
            Self::Ddim(_) | Self::Euler(_) => Vec::new(),
        }
    }

    /// Takes back what [`Scheduler::state`] gave, by name.
    pub fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) {
        match self {
            Self::Pndm(pndm) => pndm.restore(get),
            Self::DpmSolver(solver) => solver.restore(get),
            Self::Ddim(_) | Self::Euler(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::SchedulerName;
    use serde_json::Value;

    use super::*;
    use crate::error::Error;

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
        for steps in [1, 2, 3, 7, 50, 998] {
            for name in SchedulerName::NAMES {
                let scheduler = config().scheduler(name.parse().unwrap(), steps).unwrap();
                let timesteps = scheduler.timesteps();
                assert!(timesteps.iter().all(|t| (0. ..1000.).contains(t)), "{name} {steps}");
                assert!(timesteps.windows(2).all(|pair| pair[0] >= pair[1]), "{name} {steps}");
            }
        }
    }

    fn edited(edits: &[(&str, Value)]) -> Result<SchedulerConfig> {
        let mut json: serde_json::Map<String, Value> = serde_json::from_slice(EMOJI).unwrap();
        json.extend(edits.iter().map(|(field, value)| ((*field).to_owned(), value.clone())));
        SchedulerConfig::parse(&serde_json::to_vec(&json).unwrap())
    }

    #[test]
    fn options_that_are_not_done_are_refused() {
        for (class, field, value) in [
            ("PNDMScheduler", "prediction_type", Value::from("sample")),
            ("PNDMScheduler", "timestep_spacing", Value::from("random")),
            ("PNDMScheduler", "skip_prk_steps", Value::from(false)),
            ("PNDMScheduler", "beta_schedule", Value::from("squaredcos_cap_v2")),
            ("PNDMScheduler", "trained_betas", Value::from(vec![0.1])),
            ("DDIMScheduler", "rescale_betas_zero_snr", Value::from(true)),
            ("DDIMScheduler", "clip_sample", Value::from(true)),
            ("DDIMScheduler", "thresholding", Value::from(true)),
            ("EulerDiscreteScheduler", "timestep_type", Value::from("continuous")),
            ("EulerDiscreteScheduler", "interpolation_type", Value::from("log_linear")),
            ("EulerDiscreteScheduler", "use_beta_sigmas", Value::from(true)),
            ("EulerDiscreteScheduler", "sigma_max", Value::from(80.)),
            ("DPMSolverMultistepScheduler", "algorithm_type", Value::from("sde-dpmsolver++")),
            ("DPMSolverMultistepScheduler", "solver_order", Value::from(3)),
            ("DPMSolverMultistepScheduler", "solver_type", Value::from("bh2")),
            ("DPMSolverMultistepScheduler", "use_lu_lambdas", Value::from(true)),
            ("DPMSolverMultistepScheduler", "final_sigmas_type", Value::from("other")),
            ("DPMSolverMultistepScheduler", "lambda_min_clipped", Value::from(-5.1)),
        ] {
            let clip = ("clip_sample", Value::from(false));
            let error = edited(&[clip, ("_class_name", class.into()), (field, value)]).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{class} {field}: {error}");
            assert!(error.to_string().contains(field), "{class} {field}: {error}");
        }
    }

    #[derive(serde::Deserialize)]
    struct Reference {
        class: String,
        config: serde_json::Map<String, Value>,
        steps: u32,
        timesteps: Vec<f64>,
        init_noise_sigma: f64,
        scales: Vec<f64>,
        outputs: Vec<Vec<f32>>,
    }

    /// Every option that a file can choose, over whole runs whose predictions are sines, beside
    /// diffusers (`tests/peers/make_scheduler_golden.py`).
    #[test]
    fn schedulers_are_those_of_diffusers() {
        let path = "/../../tests/peers/golden/schedulers.json";
        let text = std::fs::read(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let rows: Vec<Reference> = serde_json::from_slice(&text).unwrap();
        assert!(rows.len() > 50, "{}", rows.len());
        let tensor = |f: &dyn Fn(f64) -> f64| {
            let values: Vec<f32> = (0..16).map(|j| f(f64::from(j)) as f32).collect();
            Tensor::from_vec(values, (1, 4, 2, 2), &candle_core::Device::Cpu).unwrap()
        };
        for (number, mut row) in rows.into_iter().enumerate() {
            let what = format!("row {number}: {} {} {:?}", row.class, row.steps, row.config);
            // A file of another class, as `from_config` takes it: the class is what is asked for.
            row.config.insert("_class_name".into(), row.class.clone().into());
            let config = SchedulerConfig::parse(&serde_json::to_vec(&row.config).unwrap());
            let config = config.unwrap_or_else(|e| panic!("{what}: {e}"));
            let mut scheduler = config.scheduler(config.own().unwrap(), row.steps).unwrap();
            let near = |got: f64, want: f64, of: f64| (got - want).abs() < 2e-5 * of.max(1.);
            let timesteps: Vec<f64> = scheduler.timesteps().iter().map(|&t| t.into()).collect();
            assert_eq!(timesteps.len(), row.timesteps.len(), "{what}");
            for (got, want) in timesteps.iter().zip(&row.timesteps) {
                assert!(near(*got, *want, *want), "{what}: timestep {got}, not {want}");
            }
            let scale = scheduler.initial_scale();
            assert!(near(scale, row.init_noise_sigma, scale), "{what}: {scale}");
            let mut z = (tensor(&|j| (0.9 * j).cos()) * scale).unwrap();
            for (k, want) in row.outputs.iter().enumerate() {
                assert!(near(scheduler.input_scale(k), row.scales[k], 1.), "{what}: call {k}");
                let call = k as f64;
                let prediction = tensor(&|j| (0.7 * j + 1.3 * call).sin());
                let noise = tensor(&|j| (2.1 * j + 0.4 * call + 0.5).sin());
                z = scheduler.step(k, &prediction, &z, Some(&noise)).unwrap();
                let got = z.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let largest = want.iter().fold(0f32, |max, v| max.max(v.abs()));
                for (got, want) in got.iter().zip(want) {
                    let same = near((*got).into(), (*want).into(), largest.into());
                    assert!(same, "{what}: call {k}: {got}, not {want}");
                }
            }
        }
    }

    /// An option of one scheduler does not stand in another's way, but is not forgotten either.
    #[test]
    fn an_option_counts_where_it_means_something() {
        let config = edited(&[("timestep_type", "continuous".into())]).unwrap();
        config.scheduler(SchedulerName::Pndm, 20).unwrap();
        config.scheduler(SchedulerName::Dpmpp2m, 20).unwrap();
        let error = config.scheduler(SchedulerName::Euler, 20).unwrap_err();
        let (_, remedy) = error.advice();
        assert!(error.to_string().contains("`timestep_type` is \"continuous\""), "{error}");
        assert!(remedy.contains("pndm, ddim, euler_ancestral, dpmpp_2m"), "{remedy}");
    }

    #[test]
    fn the_class_and_its_options_choose_the_default() {
        let clip = ("clip_sample", Value::from(false));
        for (class, karras, want) in [
            ("PNDMScheduler", false, SchedulerName::Pndm),
            ("DDIMScheduler", false, SchedulerName::Ddim),
            ("EulerDiscreteScheduler", false, SchedulerName::Euler),
            ("EulerDiscreteScheduler", true, SchedulerName::EulerKarras),
            ("EulerAncestralDiscreteScheduler", false, SchedulerName::EulerAncestral),
            ("DPMSolverMultistepScheduler", false, SchedulerName::Dpmpp2m),
            ("DPMSolverMultistepScheduler", true, SchedulerName::Dpmpp2mKarras),
        ] {
            let karras = ("use_karras_sigmas", Value::from(karras));
            let config = edited(&[clip.clone(), karras, ("_class_name", class.into())]).unwrap();
            assert_eq!(config.own(), Ok(want));
        }
        // Another class is no obstacle to choosing one.
        let config = edited(&[("_class_name", "LMSDiscreteScheduler".into())]).unwrap();
        assert_eq!(config.own(), Err("LMSDiscreteScheduler".to_owned()));
        config.scheduler(SchedulerName::Ddim, 20).unwrap();
        // What Python writes for an infinity is no JSON.
        let text = String::from_utf8(EMOJI.to_vec()).unwrap();
        let text = text.replacen('{', r#"{"lambda_min_clipped": -Infinity,"#, 1);
        SchedulerConfig::parse(text.as_bytes())
            .unwrap()
            .scheduler(SchedulerName::Dpmpp2m, 9)
            .unwrap();
    }
}
