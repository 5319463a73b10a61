//! The methods beside Attend-and-Excite: where they are nothing they are plain sampling, and what
//! holds for it holds for them, too.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use excite_diffusion::{Checkpoint, Outputs, Rendered, Run, Trace};
use excite_jobs::Spec;

use crate::{emoji, never, project, specs};

const ALL: Outputs = Outputs { latents: true, maps: true };
const PROMPT: &str = r#""prompt": "a cat and a red balloon", "seed": 3, "steps": 3"#;

/// Everything a method may be told, where it does something.
fn methods() -> Vec<Spec> {
    [
        r#""method": "composable""#,
        r#""method": "composable", "negative_prompt": "a frog",
            "method_params": {"phrases": ["a cat", {"text": "a red balloon", "weight": 5},
                {"text": "a dog", "weight": -2}]}"#,
        r#""method": "structure""#,
        r#""method": "syngen""#,
        r#""method": "syngen", "method_params": {"include_entities": true, "max_iter_to_alter": 2}"#,
        r#""method": "none""#,
        r#""method": "attend_and_excite""#,
    ]
    .iter()
    .map(|method| specs(&format!("{{{PROMPT}, {method}}}")).remove(0))
    .collect()
}

fn of(method: &str) -> Spec {
    specs(&format!("{{{PROMPT}, {method}}}")).remove(0)
}

fn render(specs: &[Spec]) -> Vec<Rendered> {
    Run::start(emoji(), specs, ALL).unwrap().complete(&never, |_| ()).unwrap()
}

fn latents(rendered: &Rendered) -> Vec<Vec<f32>> {
    let all = rendered.record.latents().iter();
    all.map(|latents| latents.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

#[test]
fn a_method_with_nothing_to_work_with_is_plain() {
    let plain = render(&[of(r#""method": "none""#)]).remove(0);
    for method in [
        r#""method": "composable", "method_params": {"phrases": ["a cat and a red balloon"]}"#,
        r#""method": "structure", "method_params": {"phrases": []}"#,
        r#""method": "syngen", "method_params": {"sets": []}"#,
    ] {
        let same = render(&[of(method)]).remove(0);
        assert!(latents(&same) == latents(&plain), "{method}");
        assert!(same.picture == plain.picture, "{method}");
        let scores = |r: &Rendered| r.record.scores(3).unwrap().to_vec();
        assert_eq!(scores(&same), scores(&plain), "{method}");
    }
}

#[test]
fn every_method_does_something_and_its_batch_is_its_images() {
    let specs = methods();
    let together = render(&specs);
    let bytes = |r: &Rendered| (r.picture.to_png(&[]).unwrap(), Trace::to_bytes(r).unwrap());
    for (i, (spec, rendered)) in specs.iter().zip(&together).enumerate() {
        let alone = render(std::slice::from_ref(spec)).remove(0);
        assert!(bytes(&alone) == bytes(rendered), "image {i}");
        let scores = rendered.record.scores(3).unwrap();
        assert!(scores.len() == 2 && scores.iter().all(|s| (0. ..=1.).contains(s)), "{scores:?}");
        let others = together.iter().enumerate().filter(|(other, _)| *other != i);
        for (other, image) in others {
            assert!(latents(image) != latents(rendered), "images {i} and {other} are the same");
        }
    }
    let losses = |i: usize| together[i].record.steps().iter().map(|step| step.loss);
    assert!(losses(3).all(f32::is_finite), "every step of SynGen is guided");
    assert_eq!(losses(4).filter(|loss| loss.is_finite()).count(), 2, "its updates end");
    assert!(losses(0).all(f32::is_nan), "composing moves no latents");
}

#[test]
fn every_method_goes_on_after_a_stop() {
    let specs = methods();
    let whole = render(&specs);
    let mut run = Run::start(emoji(), &specs, ALL).unwrap();
    for _ in 0..2 {
        run.step(&never).unwrap();
    }
    let saved: Vec<Checkpoint> = (0..specs.len())
        .map(|row| Checkpoint::from_bytes(&run.checkpoint(row).unwrap().to_bytes().unwrap()))
        .collect::<Result<_, _>>()
        .unwrap();
    let resumed = Run::resume(emoji(), &specs, ALL, &saved).unwrap();
    let resumed = resumed.complete(&never, |_| ()).unwrap();
    for (i, (resumed, whole)) in resumed.iter().zip(&whole).enumerate() {
        let bytes = |r: &Rendered| (r.picture.to_png(&[]).unwrap(), Trace::to_bytes(r).unwrap());
        assert!(bytes(resumed) == bytes(whole), "image {i}");
    }
}

/// A subject that is in no phrase has no score, and the others keep theirs.
#[test]
fn a_subject_outside_all_phrases_has_no_score() {
    let line = r#""method": "composable", "method_params": {"phrases": ["a red balloon"]}"#;
    let rendered = render(&[of(line)]).remove(0);
    let scores = rendered.record.scores(3).unwrap();
    assert!(scores[0].is_nan() && scores[1] > 0., "{scores:?}");
}

/// Runs of ten steps beside the authors' formulas on diffusers' UNet
/// (`tests/peers/make_methods_golden.py`).
#[test]
fn the_methods_are_their_authors() {
    let path = project().join("tests/peers/golden/emoji_methods.safetensors");
    let golden: HashMap<String, Tensor> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let not = r#""method": "composable", "method_params": {"phrases": ["a cat",
        {"text": "a red car", "weight": -2.5}]}"#;
    for (name, method) in [
        ("composable", r#""method": "composable""#),
        ("composable_not", not),
        ("structure", r#""method": "structure""#),
        ("syngen", r#""method": "syngen""#),
    ] {
        let line =
            format!(r#"{{"prompt": "a cat and a red car", "seed": 3, "steps": 10, {method}}}"#);
        let rendered = render(&specs(&line)).remove(0);
        let latents = rendered.record.latents();
        let kept = [0, 1, 2, 5, latents.len() - 1].map(|step| &latents[step]);
        let got = Tensor::stack(&kept, 0).unwrap();
        let max = |t: &Tensor| {
            let flat = t.abs().unwrap().flatten_all().unwrap();
            flat.max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        // Ten times what the reference moves by when its noise moves by a millionth.
        let tolerance = (10. * max(&golden[&format!("{name}.moved")])).max(1e-3);
        let difference = max(&(got - &golden[&format!("{name}.latents")]).unwrap());
        println!("{name:>16} {difference:.1e} of {tolerance:.0e}");
        assert!(difference <= tolerance, "{name}: {difference:e}");
    }
    let losses = golden["syngen.losses"].to_vec1::<f32>().unwrap();
    let line = r#"{"prompt": "a cat and a red car", "seed": 3, "steps": 10, "method": "syngen"}"#;
    let steps = render(&specs(line)).remove(0).record.steps().to_vec();
    for (i, (step, want)) in steps.iter().zip(&losses).enumerate() {
        assert!((step.loss - want).abs() < 1e-3, "step {i}: {}, not {want}", step.loss);
    }
    assert_eq!(steps.len(), losses.len());
}
