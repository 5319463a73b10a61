//! The runs of diffusers in `golden/`, which are part of the program, made again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use excite_diffusion::{Model, Outputs, Precision, Rendered, Run};
use excite_jobs::Line;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::json;

use super::Verdict;
use crate::fault::Fault;
use crate::printer::Printer;

macro_rules! cases {
    ($($name:literal),+ $(,)?) => {
        [$((
            $name,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../../golden/", $name, ".safetensors"
            )),
        )),+]
    };
}

/// Their names and files.
const CASES: [(&str, &[u8]); 7] = cases!(
    "plain_pndm",
    "plain_ddim",
    "guided_pndm",
    "guided_ddim",
    "guided_pndm_objects",
    "guided_short",
    "guided_refined",
);
/// What `--case` takes.
pub(crate) const NAMES: [&str; CASES.len()] = {
    let mut names = [""; CASES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = CASES[i].0;
        i += 1;
    }
    names
};
/// Says how far each case moves when its noise moves by a millionth.
const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/README.md"));
/// Largest difference of latents and pixels on another machine, where a case is not sensitive.
const TOLERANCE: f32 = 1e-2;
/// Mean differences of latents and of pixels (0 to 1) after a whole run in 16 bits. Fifty steps add up
/// what each rounds, and a loss that is near a threshold may take another number of refinements, so
/// neither those nor the largest difference are compared.
const MEANS_F16: [f32; 2] = [0.1, 0.02];
const MEANS_BF16: [f32; 2] = [0.4, 0.08];

#[derive(Debug, Deserialize)]
struct Case {
    prompt: String,
    indices: Vec<u32>,
    seed: u32,
    scheduler: Option<String>,
    steps: Option<u32>,
    guidance: Option<f64>,
    neg: Option<String>,
    guided: Option<bool>,
}

struct Golden {
    case: Case,
    refinements: BTreeMap<usize, u32>,
    final_latents: Vec<f32>,
    image: Vec<f32>,
}

/// Differences of one case, each with what is allowed.
struct Compared {
    refinements_agree: bool,
    /// Whether they have to.
    exact: bool,
    latents: (f32, f32),
    image: (f32, f32),
}

impl Compared {
    fn agrees(&self) -> bool {
        let within = |(difference, allowed): (f32, f32)| difference <= allowed;
        (self.refinements_agree || !self.exact) && within(self.latents) && within(self.image)
    }
}

pub(super) fn replay(
    model: &Model,
    wanted: &[String],
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Verdict, Fault> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let cases: Vec<_> = CASES.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    let bar = printer.bar(cases.len() as u64);
    let precision = model.compute().precision();
    if precision != Precision::F32 {
        printer.result(&format!("in {precision}, means of the differences:"));
    }
    printer.result("case                 refinements  latents (allowed)   image (allowed)");
    let mut wrong = Vec::new();
    for (name, bytes) in &cases {
        bar.set_message(*name);
        let golden =
            Golden::read(bytes).map_err(|message| Fault::bug(&format!("{name}: {message}")))?;
        let rendered = golden.case.render(model, &|| interrupted.load(Ordering::Relaxed))?;
        let compared = golden.compare(name, &rendered, precision).map_err(|e| Fault::bug(&e))?;
        if !compared.agrees() {
            wrong.push(*name);
        }
        let refinements = if compared.refinements_agree { "agree" } else { "differ" };
        let Compared { latents, image, .. } = compared;
        bar.inc(1);
        bar.suspend(|| {
            printer.result(&format!(
                "{name:<20} {refinements:<11}  {:.1e} ({:.0e})     {:.1e} ({:.0e})",
                latents.0, latents.1, image.0, image.1
            ));
            printer.object(&json!({
                "v": 1, "case": name, "agrees": compared.agrees(),
                "refinements_agree": compared.refinements_agree,
                "latents": latents.0, "latents_allowed": latents.1,
                "image": image.0, "image_allowed": image.1,
            }));
        });
    }
    bar.finish_and_clear();
    let why = match wrong.as_slice() {
        [] => format!("{} runs of diffusers came out the same", cases.len()),
        wrong => format!("{} of {} runs: {}", wrong.len(), cases.len(), wrong.join(", ")),
    };
    Ok(Verdict { agrees: Some(wrong.is_empty()), why })
}

impl Golden {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| text(&e))?;
        let texts = header.metadata().clone().unwrap_or_default();
        let case = texts.get("case").ok_or("there is no text `case`")?;
        let refinements = texts.get("refinements").map_or("{}", String::as_str);
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| text(&e))?;
        let floats = |name: &str| {
            let tensor = tensors.tensor(name).map_err(|e| text(&e))?;
            let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap_or_default());
            Ok::<_, String>(tensor.data().chunks_exact(4).map(value).collect())
        };
        Ok(Self {
            case: serde_json::from_str(case).map_err(|e| text(&e))?,
            refinements: serde_json::from_str(refinements).map_err(|e| text(&e))?,
            final_latents: floats("final_latents")?,
            image: floats("image")?,
        })
    }

    fn compare(
        &self,
        name: &str,
        rendered: &Rendered,
        precision: Precision,
    ) -> Result<Compared, String> {
        let steps = rendered.record.steps().iter().enumerate();
        let refinements: BTreeMap<usize, u32> = steps
            .filter(|(_, step)| step.refinements > 0)
            .map(|(i, step)| (i, step.refinements))
            .collect();
        let sensitivity = sensitivity(name).ok_or("golden/README.md has no such case")?;
        type Measure = fn(&[f32], &[f32]) -> f32;
        let (measure, [latents, image]): (Measure, [f32; 2]) = match precision {
            Precision::F32 => (largest, sensitivity.map(|moves| (10. * moves).max(TOLERANCE))),
            Precision::F16 => (mean, MEANS_F16),
            Precision::Bf16 => (mean, MEANS_BF16),
        };
        let values = |tensor: &excite_diffusion::Tensor| {
            tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| e.to_string())
        };
        Ok(Compared {
            refinements_agree: refinements == self.refinements,
            exact: precision == Precision::F32,
            latents: (measure(&values(&rendered.final_latents)?, &self.final_latents), latents),
            image: (measure(&values(&rendered.image)?, &self.image), image),
        })
    }
}

impl Case {
    fn render(&self, model: &Model, cancelled: &dyn Fn() -> bool) -> Result<Rendered, Fault> {
        let guided = self.guided.unwrap_or(true);
        let line = json!({
            "prompt": self.prompt,
            "negative_prompt": self.neg.as_deref().unwrap_or_default(),
            "subjects": self.indices.iter().map(|i| format!("#{i}")).collect::<Vec<_>>(),
            "seed": self.seed,
            "steps": self.steps.unwrap_or(50),
            "guidance_scale": self.guidance.unwrap_or(7.5),
            "scheduler": self.scheduler.as_deref().unwrap_or("pndm"),
            "method": if guided { "attend_and_excite" } else { "none" },
        });
        let line = Line::parse(&line.to_string())?;
        let spec = line.resolve(&model.facts(), model.tokenizer())?.first;
        let run = Run::start(model, &[spec], Outputs::default())?;
        let mut rendered = run.complete(cancelled, |_| ())?;
        rendered.pop().ok_or_else(|| Fault::bug("a run of one image gave none"))
    }
}

/// Final latents and image: the first two numbers of the case's row.
fn sensitivity(name: &str) -> Option<[f32; 2]> {
    let row = README.lines().find(|line| line.starts_with(&format!("| {name} |")))?;
    let mut numbers = row.split('|').filter_map(|cell| cell.trim().parse().ok());
    Some([numbers.next()?, numbers.next()?])
}

/// The largest difference; infinite if the values are not as many, or one is no number.
fn largest(got: &[f32], want: &[f32]) -> f32 {
    if got.len() != want.len() {
        return f32::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(got, want)| (got - want).abs());
    differences.fold(0., |max, d| if d.is_nan() { f32::INFINITY } else { max.max(d) })
}

/// The mean difference; infinite as [`largest`] is.
fn mean(got: &[f32], want: &[f32]) -> f32 {
    if largest(got, want).is_infinite() {
        return f32::INFINITY;
    }
    let sum: f32 = got.iter().zip(want).map(|(got, want)| (got - want).abs()).sum();
    sum / want.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_figures() {
        for (name, bytes) in CASES {
            let golden = Golden::read(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(golden.image.len(), 3 * 128 * 128, "{name}");
            assert!(sensitivity(name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_no_number_is_a_difference() {
        assert_eq!(largest(&[1., 2.], &[1., 2.5]), 0.5);
        assert_eq!(mean(&[1., 2.], &[1., 2.5]), 0.25);
        for (got, want) in [(&[f32::NAN][..], &[0.][..]), (&[0.], &[0., 0.])] {
            assert_eq!(largest(got, want), f32::INFINITY);
            assert_eq!(mean(got, want), f32::INFINITY);
        }
    }
}
