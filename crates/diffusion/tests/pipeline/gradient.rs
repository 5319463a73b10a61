//! The gradient of the loss with respect to the latents against central differences, at three
//! steps of a real run.

use candle_core::{Tensor, Var};
use excite_diffusion::{Generator, Outputs, Run, Subjects};
use excite_jobs::{Method, Noise, Spec};

use crate::{emoji, never, specs};

struct Loss {
    spec: Spec,
    timestep: f32,
}

impl Loss {
    fn tensor(&self, latents: &Tensor) -> Tensor {
        let model = emoji();
        let Method::AttendAndExcite(params) = &self.spec.method else { panic!("not guided") };
        let eot = model.encode(&self.spec.prompt).unwrap().eot;
        let states = model.text_states(&self.spec.prompt).unwrap();
        let conditioning = model.unet().condition(&states, (128, 128)).unwrap();
        let map = model.unet().map(latents, self.timestep, &conditioning).unwrap().get(0).unwrap();
        let mut subjects = Subjects::new(params, &self.spec.subjects, eot).unwrap();
        let size = model.unet().map_size((16, 16));
        subjects.evaluate(&map, size).unwrap().tensor.unwrap()
    }

    fn gradient(&self, latents: &Tensor) -> Tensor {
        let leaf = Var::from_tensor(latents).unwrap();
        let store = self.tensor(leaf.as_tensor()).backward().unwrap();
        store.get(leaf.as_tensor()).unwrap().detach()
    }

    /// The slope of the loss along `direction`, by central differences.
    fn slope(&self, latents: &Tensor, direction: &Tensor, width: f64) -> f64 {
        let at = |h: f64| {
            let moved = (latents + (direction * h).unwrap()).unwrap();
            f64::from(self.tensor(&moved).to_scalar::<f32>().unwrap())
        };
        (at(width) - at(-width)) / (2. * width)
    }
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    f64::from((a * b).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
}

fn unit(x: &Tensor) -> Tensor {
    (x / dot(x, x).sqrt()).unwrap()
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let spec = specs(r#"{"prompt": "a cat and a frog", "seed": 8, "steps": 20}"#).remove(0);
    let outputs = Outputs { latents: true, maps: false };
    let run = Run::start(emoji(), std::slice::from_ref(&spec), outputs).unwrap();
    let rendered = run.complete(&never, |_| ()).unwrap().remove(0);
    for step in [0, 4, 12] {
        let timestep = rendered.record.timesteps()[step];
        let loss = Loss { spec: spec.clone(), timestep };
        let before = match step {
            0 => rendered.noise.clone(),
            step => rendered.record.latents()[step - 1].clone(),
        };
        let latents = before.unsqueeze(0).unwrap();
        let gradient = loss.gradient(&latents);
        let length = dot(&gradient, &gradient).sqrt();
        assert!(length > 1e-3, "step {step}: {length}");
        // Downhill, and along noise: a wrong part of the gradient shows in one of them.
        let noise = |seed| Generator::new(Noise::TorchCpu, seed).normal(&[1, 4, 16, 16]);
        let mut directions = vec![unit(&gradient)];
        directions.extend([1, 2, 3].map(|seed| unit(&noise(seed).unwrap())));
        for (i, direction) in directions.iter().enumerate() {
            let want = loss.slope(&latents, direction, 4e-3);
            let got = dot(&gradient, direction);
            println!("step {step}, direction {i}: gradient {got:.6}, slope {want:.6}");
            assert!((got - want).abs() < 3e-3 * length, "step {step} {i}: {got}, slope {want}");
        }
    }
}
