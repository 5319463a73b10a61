//! Every scheduler over 20 steps on the bundled model, plain and guided, beside diffusers
//! (`tests/peers/make_emoji_golden.py`).

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use excite_diffusion::{Outputs, Run};
use excite_jobs::SchedulerName;

use crate::{emoji, never, project, specs};

#[test]
fn every_scheduler_is_diffusers() {
    let path = project().join("tests/peers/golden/emoji_schedulers.safetensors");
    let golden: HashMap<String, Tensor> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    for name in SchedulerName::NAMES {
        for (kind, method) in [("plain", "none"), ("guided", "attend_and_excite")] {
            let line = serde_json::json!({
                "prompt": "a cat and a frog", "subjects": ["cat", "frog"], "seed": 3, "steps": 20,
                "scheduler": name, "method": method,
            });
            let outputs = Outputs { latents: true, maps: false };
            let run = Run::start(emoji(), &specs(&line.to_string()), outputs).unwrap();
            let rendered = run.complete(&never, |_| ()).unwrap().remove(0);
            let want = |what: &str| &golden[&format!("{name}.{kind}.{what}")];
            let latents = rendered.record.latents();
            let kept: Vec<&Tensor> =
                [0, 1, 2, 9, latents.len() - 1].iter().map(|&step| &latents[step]).collect();
            let got = Tensor::stack(&kept, 0).unwrap();
            let max = |t: &Tensor| {
                let flat = t.abs().unwrap().flatten_all().unwrap();
                flat.max(0).unwrap().to_scalar::<f32>().unwrap()
            };
            // As the other golden runs: ten times what the reference moves by when its noise moves
            // by a millionth, at least 1e-2 of latents that are about 1 to 15.
            let tolerance = (10. * max(want("moved"))).max(1e-2);
            let difference = max(&(got - want("latents")).unwrap());
            println!("{name:>16} {kind:<6} {difference:.1e} of {tolerance:.0e}");
            assert!(difference <= tolerance, "{name} {kind}: {difference:e}");

            if kind == "plain" {
                continue;
            }
            let steps = rendered.record.steps();
            let losses = want("losses").to_vec1::<f32>().unwrap();
            for (i, (step, want)) in steps.iter().zip(&losses).enumerate() {
                let first = step.evaluations.first().map_or(f32::NAN, |(loss, _)| *loss);
                let same = (first.is_nan() && want.is_nan()) || (first - want).abs() < 2e-3;
                assert!(same, "{name} {kind}, step {i}: loss {first}, not {want}");
            }
            let refinements: Vec<i64> = steps.iter().map(|s| i64::from(s.refinements)).collect();
            let want = want("refinements").to_dtype(candle_core::DType::I64).unwrap();
            assert_eq!(refinements, want.to_vec1::<i64>().unwrap(), "{name} {kind}");
        }
    }
}
