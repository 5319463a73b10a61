//! On a GPU, in a build with `--features cuda`: the numbers of the CPU within what a precision can
//! hold, and a device that says so when its memory is short. `tests/gpu/run` runs these.

use candle_core::{DType, Device, Tensor, Var};
use excite_diffusion::{
    Compute, DeviceChoice, Error, Model, Outputs, Precision, Run, TextStates, bundled,
};

use crate::{emoji, never, specs};

/// What differs at most, relative to the largest value: f32 sums in another order, f16 keeps 11
/// bits of each value, bf16 keeps 8.
const TOLERANCES: [(Precision, f32); 3] =
    [(Precision::F32, 1e-3), (Precision::F16, 2e-2), (Precision::Bf16, 1e-1)];

fn model(precision: Precision) -> Model {
    let compute = Compute::choose(DeviceChoice::Cuda(0), Some(precision)).unwrap();
    Model::load_on(&bundled(), &compute).unwrap()
}

/// States of a text, and for noise the prediction, the map and the gradient of the map's largest
/// values.
fn numbers(model: &Model) -> Vec<(&'static str, Tensor)> {
    let text: TextStates = model.text_states("a lion and a elephant").unwrap();
    let unet = model.unet();
    let conditioning = unet.condition(&text, (128, 128)).unwrap();
    let values = (0..4 * 16 * 16).map(|i| ((i * 37 % 101) as f32 - 50.) / 30.).collect::<Vec<_>>();
    let latents = Tensor::from_vec(values, (1, 4, 16, 16), &Device::Cpu).unwrap();
    let noise = unet.noise(&latents, 981., &conditioning).unwrap();
    let leaf = Var::from_tensor(&latents).unwrap();
    let map = unet.map(leaf.as_tensor(), 981., &conditioning).unwrap();
    let loss = (map.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
    let gradient = loss.backward().unwrap().remove(leaf.as_tensor()).unwrap();
    let picture = model.vae().decode(&latents).unwrap();
    vec![
        ("text", text.states),
        ("noise", noise),
        ("map", map.detach()),
        ("gradient", gradient),
        ("picture", picture),
    ]
}

#[test]
fn a_gpu_gives_the_numbers_of_the_cpu() {
    let wanted = numbers(emoji());
    for (precision, tolerance) in TOLERANCES {
        let model = model(precision);
        assert!(model.compute().kind().starts_with("cuda-sm"), "{}", model.compute().kind());
        for ((name, want), (_, got)) in wanted.iter().zip(numbers(&model)) {
            assert!(got.device().is_cpu() && got.dtype() == DType::F32, "{name}");
            let largest = |t: &Tensor| {
                let flat = t.abs().unwrap().flatten_all().unwrap();
                flat.max(0).unwrap().to_scalar::<f32>().unwrap()
            };
            let off = largest(&(want - &got).unwrap()) / largest(want);
            println!("{precision} {name:<10} {off:.2e} of {tolerance:.0e}");
            assert!(off <= tolerance, "{precision}: {name} is off by {off}");
        }
    }
}

#[test]
fn a_guided_image_is_made_on_a_gpu_and_says_so() {
    let line = r#"{"prompt": "a cat and a frog", "subjects": ["cat", "frog"], "seeds": "8..10",
        "steps": 4, "method_params": {"thresholds": {"0": 0.9}, "max_refinement_steps": 2}}"#;
    let specs = specs(line);
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        let model = model(precision);
        let run = Run::start(&model, &specs, Outputs::default()).unwrap();
        let made = run.complete(&never, |_| ()).unwrap();
        assert_eq!(made.len(), 2);
        assert!(made.iter().all(|image| image.kind == model.compute().kind()));
    }
}

#[test]
fn short_memory_is_an_error_that_says_so() {
    let device = Device::new_cuda(0).unwrap();
    // 16 TB.
    let error = Tensor::zeros((1 << 20, 1 << 22), DType::F32, &device).unwrap_err();
    assert!(matches!(Error::from(error), Error::OutOfMemory(_)));
    // The device goes on.
    assert!(Tensor::zeros(16, DType::F32, &device).is_ok());
}
