//! The families of checkpoints, on models of their topology with few channels: every figure beside
//! diffusers (`tests/peers/make_checkpoint_golden.py`), every form of file beside the plain one.

use std::collections::HashMap;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor, Var};
use excite_diffusion::{Folder, Model, Outputs, Rendered, Run, Subjects};
use excite_jobs::{Line, Method, Spec};
use serde_json::json;

use crate::formula::{Form, Recipe, WHOLE};
use crate::{never, project};

const FAMILIES: [&str; 3] = ["sd14", "sd21", "sdxl"];

fn model(family: &str) -> &'static Model {
    static MODELS: [OnceLock<Model>; 3] = [const { OnceLock::new() }; 3];
    let number = FAMILIES.iter().position(|name| *name == family).unwrap();
    MODELS[number].get_or_init(|| load(family, WHOLE))
}

fn load(family: &str, form: Form) -> Model {
    let folder = tempfile::tempdir().unwrap();
    Recipe::read(family).write(folder.path(), form);
    Model::load(&Folder::Directory(folder.path().to_owned())).unwrap()
}

struct Golden {
    family: &'static str,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn read(family: &'static str) -> Self {
        let path = project().join(format!("tests/peers/golden/{family}.safetensors"));
        Self { family, tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap() }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.family))
    }

    /// Asserts that `got` differs by at most `tolerance` of the largest value.
    fn near(&self, name: &str, got: &Tensor, tolerance: f32) {
        let want = self.get(name);
        assert_eq!(got.dims(), want.dims(), "{}: {name}", self.family);
        let max = |t: &Tensor| {
            t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        let relative = max(&(got - want).unwrap()) / max(want);
        println!("{:>5} {name:<20} {relative:.1e} of {tolerance:.0e}", self.family);
        assert!(relative <= tolerance, "{}: {name}: {relative:e} > {tolerance:e}", self.family);
    }
}

/// One image of 256x256 pixels, as the figures were made.
fn spec(model: &Model, edit: serde_json::Value) -> Spec {
    let mut line = json!({
        "prompt": "a cat and a frog", "negative_prompt": "blurry", "subjects": ["cat", "frog"],
        "seed": 7, "width": 256, "height": 256, "guidance_scale": 5.0, "method": "none",
    });
    line.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
    let line = Line::parse(&line.to_string()).unwrap();
    line.resolve(&model.facts(), model.tokenizer()).unwrap().first
}

fn run(model: &Model, spec: Spec) -> Rendered {
    let outputs = Outputs { latents: true, maps: false };
    let run = Run::start(model, &[spec], outputs).unwrap();
    run.complete(&never, |_| ()).unwrap().remove(0)
}

fn texts(golden: &Golden) {
    let model = model(golden.family);
    let prompt = model.text_states("a cat and a frog").unwrap();
    let negative = model.negative_text_states("blurry").unwrap();
    let ids: Vec<i32> =
        model.encode("a cat and a frog").unwrap().ids.iter().map(|id| *id as i32).collect();
    let want = golden.get("token_ids").to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap();
    assert_eq!(ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), want);
    golden.near("text_states", &prompt.states.get(0).unwrap(), 1e-4);
    golden.near("uncond_text_states", &negative.states.get(0).unwrap(), 1e-4);
    if let (Some(prompt), Some(negative)) = (&prompt.pooled, &negative.pooled) {
        golden.near("pooled", &prompt.get(0).unwrap(), 1e-4);
        golden.near("uncond_pooled", &negative.get(0).unwrap(), 1e-4);
    }
    let nothing = model.negative_text_states("").unwrap().states.abs().unwrap();
    let sum = nothing.sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(sum == 0., golden.family == "sdxl", "only SDXL sees nothing as zeros");
}

/// One pass: prediction, map, loss and its gradient, square and wide.
fn passes(golden: &Golden) {
    let model = model(golden.family);
    let text = model.text_states("a cat and a frog").unwrap();
    let spec = spec(model, json!({"method": "attend_and_excite"}));
    let Method::AttendAndExcite(params) = &spec.method else { panic!("not guided") };
    for form in ["square", "wide"] {
        let name = |what: &str| format!("{form}.{what}");
        let noise = golden.get(&name("noise")).unsqueeze(0).unwrap();
        let (_, _, h, w) = noise.dims4().unwrap();
        let conditioning = model.unet().condition(&text, (8 * h, 8 * w)).unwrap();
        let predicted = model.unet().noise(&noise, 501., &conditioning).unwrap();
        golden.near(&name("eps_cond"), &predicted.get(0).unwrap(), 1e-4);

        let latents = Var::from_tensor(&noise).unwrap();
        let map = model.unet().map(latents.as_tensor(), 501., &conditioning).unwrap();
        let map = map.get(0).unwrap();
        let size = model.unet().map_size((h, w));
        golden.near(&name("map"), &map.reshape((size.0, size.1, 77)).unwrap(), 1e-4);
        let eot = model.encode(&spec.prompt).unwrap().eot;
        let mut subjects = Subjects::new(params, &spec.subjects, eot).unwrap();
        let evaluation = subjects.evaluate(&map, size).unwrap();
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        golden.near(&name("scores"), &tensor(&evaluation.scores), 1e-4);
        golden.near(&name("loss"), &tensor(&[evaluation.loss]), 1e-4);
        let store = evaluation.tensor.unwrap().backward().unwrap();
        let gradient = store.get(latents.as_tensor()).unwrap().get(0).unwrap();
        golden.near(&name("gradient"), &gradient, 1e-3);
    }
}

fn autoencoder(golden: &Golden) {
    let vae = model(golden.family).vae();
    let z = (golden.get("vae.z").unsqueeze(0).unwrap() * vae.scaling()).unwrap();
    golden.near("vae.decoded", &vae.decode(&z).unwrap().get(0).unwrap(), 1e-4);
    let image = golden.get("vae.image").unsqueeze(0).unwrap();
    let (mean, variance) = vae.encode(&image).unwrap();
    golden.near("vae.mean", &mean.get(0).unwrap(), 1e-4);
    golden.near("vae.logvar", &variance.get(0).unwrap(), 1e-4);
}

/// Whole runs with the model's own scheduler, plain and guided.
fn runs(golden: &Golden) {
    let model = model(golden.family);
    let plain = run(model, spec(model, json!({"steps": 4})));
    let stack = |rendered: &Rendered| Tensor::stack(rendered.record.latents(), 0).unwrap();
    let floats = |values: Vec<f32>| Tensor::new(values, &Device::Cpu).unwrap();
    golden.near("plain.timesteps", &floats(plain.record.timesteps().to_vec()), 1e-6);
    golden.near("plain.latents", &stack(&plain), 5e-4);
    let params = json!({"thresholds": {}});
    let edit = json!({"steps": 3, "method": "attend_and_excite", "method_params": params});
    let guided = run(model, spec(model, edit));
    golden.near("guided.timesteps", &floats(guided.record.timesteps().to_vec()), 1e-6);
    let losses = guided.record.steps().iter().map(|step| step.loss).collect();
    golden.near("guided.losses", &floats(losses), 5e-4);
    golden.near("guided.latents", &stack(&guided), 5e-4);
}

fn figures(family: &'static str) {
    let golden = Golden::read(family);
    texts(&golden);
    passes(&golden);
    autoencoder(&golden);
    runs(&golden);
}

#[test]
fn stable_diffusion_1_is_diffusers() {
    figures("sd14");
    assert_eq!(model("sd14").family(), "SD 1.x");
}

#[test]
fn stable_diffusion_2_is_diffusers() {
    figures("sd21");
    let model = model("sd21");
    assert!(model.schedulers().predicts_velocity());
    assert_eq!((model.family(), model.facts().width), ("SD 2.x", 768));
}

#[test]
fn stable_diffusion_xl_is_diffusers() {
    figures("sdxl");
    assert_eq!((model("sdxl").family(), model("sdxl").facts().width), ("SDXL", 1024));
}

/// SDXL's images have time embeddings of their own, and its blocks are computed again for the
/// gradient; neither may depend on the batch.
#[test]
fn an_image_of_stable_diffusion_xl_is_the_same_in_a_batch() {
    let model = model("sdxl");
    let edit = |seed: u32, prompt: &str, height: u32| {
        json!({
            "prompt": prompt, "seed": seed, "steps": 2, "width": 192, "height": height,
            "negative_prompt": "", "method": "attend_and_excite",
            "method_params": {"thresholds": {"0": 0.99}, "max_refinement_steps": 2},
        })
    };
    let cat = spec(model, edit(1, "a cat and a frog", 128));
    let frog = spec(model, edit(2, "a small frog, a cat", 128));
    let bits = |rendered: &Rendered| {
        let latents = Tensor::stack(rendered.record.latents(), 0).unwrap();
        let values = latents.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let outputs = Outputs { latents: true, maps: false };
    let together = Run::start(model, &[cat.clone(), frog.clone()], outputs).unwrap();
    let together = together.complete(&never, |_| ()).unwrap();
    assert!(bits(&run(model, cat)) == bits(&together[0]));
    assert!(bits(&run(model, frog)) == bits(&together[1]));
}
