//! Every case of `golden/`, with the tolerances stated in its README.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use excite_diffusion::{Outputs, Rendered, Run, Subjects};
use excite_jobs::{Method, Spec};
use serde::Deserialize;

use crate::{emoji, never, project, specs};

#[derive(Debug, Deserialize)]
struct Case {
    prompt: String,
    indices: Vec<u32>,
    seed: u32,
    #[serde(default = "pndm")]
    scheduler: String,
    #[serde(default = "fifty")]
    steps: u32,
    #[serde(default = "seven_and_a_half")]
    guidance: f64,
    #[serde(default)]
    neg: String,
    #[serde(default = "yes")]
    guided: bool,
}

fn pndm() -> String {
    "pndm".into()
}
fn fifty() -> u32 {
    50
}
fn seven_and_a_half() -> f64 {
    7.5
}

fn yes() -> bool {
    true
}

impl Case {
    fn spec(&self) -> Spec {
        let line = serde_json::json!({
            "prompt": self.prompt,
            "negative_prompt": self.neg,
            "subjects": self.indices.iter().map(|i| format!("#{i}")).collect::<Vec<_>>(),
            "seed": self.seed,
            "steps": self.steps,
            "guidance_scale": self.guidance,
            "scheduler": self.scheduler,
            "method": if self.guided { "attend_and_excite" } else { "none" },
        });
        specs(&line.to_string()).remove(0)
    }
}

struct Golden {
    name: &'static str,
    case: Case,
    refinements: BTreeMap<usize, u32>,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn read(name: &'static str) -> Self {
        let path = project().join(format!("golden/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let texts = header.metadata().clone().unwrap();
        let refinements = texts.get("refinements").map_or("{}", String::as_str);
        Self {
            name,
            case: serde_json::from_str(&texts["case"]).unwrap(),
            refinements: serde_json::from_str(refinements).unwrap(),
            tensors: candle_core::safetensors::load(&path, &Device::Cpu).unwrap(),
        }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    /// Asserts that `got` differs from the tensor `name` by at most `tolerance`.
    fn near(&self, name: &str, got: &Tensor, tolerance: f32) {
        let want = self.tensor(name);
        let difference = max_difference(got, want);
        println!("{:>20} {name:<20} {difference:.2e} of {tolerance:.2e}", self.name);
        assert!(difference <= tolerance, "{}: {name} {difference:e} > {tolerance:e}", self.name);
    }

    /// As [`Golden::near`], relative to the largest value.
    fn near_relative(&self, name: &str, got: &Tensor, tolerance: f32) {
        let largest = max_of(&self.tensor(name).abs().unwrap());
        self.near(name, got, tolerance * largest);
    }
}

fn max_of(tensor: &Tensor) -> f32 {
    tensor.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
}

fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b.to_dtype(DType::F32).unwrap()).unwrap().abs().unwrap();
    let max = max_of(&difference);
    // A NaN must not slip through a comparison.
    if max.is_finite() { max } else { f32::INFINITY }
}

/// What the reference itself moves by when its noise moves by one part in a million, from the
/// table in `golden/README.md`: final latents, image, mean of the image, losses.
fn sensitivity(case: &str) -> [f32; 4] {
    let readme = std::fs::read_to_string(project().join("golden/README.md")).unwrap();
    let row = readme.lines().find(|line| line.starts_with(&format!("| {case} |")));
    let cells: Vec<f32> =
        row.unwrap().split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
    cells.try_into().unwrap()
}

fn first_pass(golden: &Golden, spec: &Spec) {
    let model = emoji();
    let encoding = model.encode(&spec.prompt).unwrap();
    let ids: Vec<i64> = encoding.ids.iter().map(|&id| i64::from(id)).collect();
    let want = golden.tensor("token_ids").to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap();
    assert_eq!(ids, want, "{}", golden.name);

    let states = model.text_states(&spec.prompt).unwrap();
    let negative = model.negative_text_states(&spec.negative_prompt).unwrap();
    golden.near_relative("text_states", &states.states.squeeze(0).unwrap(), 2e-4);
    golden.near_relative("uncond_text_states", &negative.states.squeeze(0).unwrap(), 2e-4);

    // From here on the reference's own noise, so that its last bits do not matter.
    let noise = golden.tensor("noise").unsqueeze(0).unwrap();
    let scheduler = model.schedulers().scheduler(spec.scheduler, spec.steps).unwrap();
    let t = scheduler.timesteps()[0];
    let unet = model.unet();
    let conditional = unet.condition(&states, (128, 128)).unwrap();
    let unconditional = unet.condition(&negative, (128, 128)).unwrap();
    let latents = Var::from_tensor(&noise).unwrap();
    let map = unet.map(latents.as_tensor(), t, &conditional).unwrap().squeeze(0).unwrap();
    let size = unet.map_size((16, 16));
    golden.near_relative("first_map", &map.reshape((16, 16, 77)).unwrap(), 2e-4);
    if let Method::AttendAndExcite(params) = &spec.method {
        let mut subjects = Subjects::new(params, &spec.subjects, encoding.eot).unwrap();
        let evaluation = subjects.evaluate(&map, size).unwrap();
        let scores = Tensor::new(evaluation.scores.as_slice(), &Device::Cpu).unwrap();
        golden.near("first_scores", &scores, 2e-3);
        golden.near("first_loss", &Tensor::new(&[evaluation.loss], &Device::Cpu).unwrap(), 2e-3);
        let store = evaluation.tensor.unwrap().backward().unwrap();
        let gradient = store.get(latents.as_tensor()).unwrap().squeeze(0).unwrap();
        golden.near_relative("first_gradient", &gradient, 1e-3);
    }
    for (name, keys) in [("first_eps_uncond", &unconditional), ("first_eps_cond", &conditional)] {
        let eps = unet.noise(&noise, t, keys).unwrap();
        golden.near_relative(name, &eps.squeeze(0).unwrap(), 2e-4);
    }
}

/// The reference's evaluations by step, without the repeated first one of a refinement.
fn reference_losses(golden: &Golden) -> BTreeMap<usize, Vec<f32>> {
    let mut by_step = BTreeMap::<usize, Vec<f32>>::new();
    if !golden.case.guided {
        return by_step;
    }
    let steps = golden.tensor("eval_step").to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap();
    let losses = golden.tensor("eval_loss").flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (step, loss) in steps.into_iter().zip(losses) {
        by_step.entry(step as usize).or_default().push(loss);
    }
    for losses in by_step.values_mut().filter(|losses| losses.len() > 1) {
        losses.remove(0);
    }
    by_step
}

fn whole_run(golden: &Golden, rendered: &Rendered) {
    golden.near("noise", &rendered.noise, 2e-6);
    let record = &rendered.record;
    let refinements: BTreeMap<usize, u32> = record
        .steps()
        .iter()
        .enumerate()
        .filter(|(_, step)| step.refinements > 0)
        .map(|(i, step)| (i, step.refinements))
        .collect();
    assert_eq!(refinements, golden.refinements, "{}", golden.name);

    let reference = reference_losses(golden);
    let [latents, image, image_mean, losses] = sensitivity(golden.name);
    for (i, step) in record.steps().iter().enumerate() {
        let Some(want) = reference.get(&i) else {
            // The reference evaluates to the end and throws the rest away; here it is not done.
            assert!(step.loss.is_nan() && step.evaluations.is_empty(), "{} {i}", golden.name);
            continue;
        };
        if step.evaluations.is_empty() {
            assert!(i >= 25, "{}: no loss at step {i}", golden.name);
            continue;
        }
        assert_eq!(step.evaluations.len(), want.len(), "{}, step {i}", golden.name);
        let tolerance = if i < 5 { 2e-3 } else { (10. * losses).max(2e-3) };
        for (e, ((got, _), want)) in step.evaluations.iter().zip(want).enumerate() {
            assert!((got - want).abs() <= tolerance, "{} {i}.{e}: {got} {want}", golden.name);
        }
        assert_eq!(step.loss, step.evaluations.last().unwrap().0);
    }

    let all = golden.tensor("latents");
    let got = Tensor::stack(record.latents(), 0).unwrap();
    assert_eq!(got.dims(), all.dims(), "{}", golden.name);
    let first = max_difference(&got.get(0).unwrap(), &all.get(0).unwrap());
    assert!(first <= 2e-3, "{}: latents after the first step {first:e}", golden.name);
    golden.near("latents", &got, (10. * latents).max(1e-2));
    golden.near("final_latents", &rendered.final_latents, (10. * latents).max(1e-2));
    // Latents may differ by 1e-2 on another machine, and pixels by what the decoder makes of it.
    golden.near("image", &rendered.image, (10. * image).max(1e-2));
    let mean = (&rendered.image - golden.tensor("image")).unwrap().abs().unwrap();
    let mean = mean.mean_all().unwrap().to_scalar::<f32>().unwrap();
    println!("{:>20} {:<20} {mean:.2e}", golden.name, "mean of the image");
    assert!(mean <= (10. * image_mean).max(1e-4), "{}: image mean {mean:e}", golden.name);
}

fn check(name: &'static str) {
    let golden = Golden::read(name);
    let spec = golden.case.spec();
    if golden.tensors.contains_key("first_map") {
        first_pass(&golden, &spec);
    }
    let outputs = Outputs { latents: true, maps: false };
    let run = Run::start(emoji(), std::slice::from_ref(&spec), outputs).unwrap();
    let rendered = run.complete(&never, |_| ()).unwrap();
    whole_run(&golden, &rendered[0]);
}

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { check(stringify!($name)); })+

        /// A case that is added to the folder is a case that is tested.
        #[test]
        fn every_file_is_a_case() {
            let files = std::fs::read_dir(project().join("golden")).unwrap();
            let mut names: Vec<String> = files
                .filter_map(|file| {
                    let name = file.unwrap().file_name().into_string().unwrap();
                    name.strip_suffix(".safetensors").map(str::to_owned)
                })
                .collect();
            names.sort();
            let mut tested = vec![$(stringify!($name)),+, "vae_encoder"];
            tested.sort_unstable();
            assert_eq!(names, tested);
        }
    };
}

cases!(
    guided_ddim,
    guided_pndm,
    guided_pndm_objects,
    guided_refined,
    guided_short,
    plain_ddim,
    plain_pndm,
);

#[test]
fn the_autoencoder_encodes_and_decodes_as_diffusers() {
    let golden = Golden {
        name: "vae_encoder",
        case: Golden::read("guided_pndm").case,
        refinements: BTreeMap::new(),
        tensors: candle_core::safetensors::load(
            project().join("golden/vae_encoder.safetensors"),
            &Device::Cpu,
        )
        .unwrap(),
    };
    let vae = emoji().vae();
    let image = golden.tensor("image").unsqueeze(0).unwrap();
    let (mean, logvar) = vae.encode(&image).unwrap();
    golden.near_relative("mean", &mean.squeeze(0).unwrap(), 2e-4);
    golden.near_relative("logvar", &logvar.squeeze(0).unwrap(), 2e-4);
    let latents = (mean * vae.scaling()).unwrap();
    golden.near_relative("latents", &latents.squeeze(0).unwrap(), 2e-4);
    let decoded = vae.decode(&golden.tensor("latents").unsqueeze(0).unwrap()).unwrap();
    golden.near_relative("decoded", &decoded.squeeze(0).unwrap(), 2e-4);
}
