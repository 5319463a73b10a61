//! `excite explain`: which subject was weakest at which step.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use excite_diffusion::picture::chart::{Chart, Series};
use excite_diffusion::picture::{Picture, Read};
use excite_diffusion::{Outputs, Record, Run, Trace, step_lines, weakest};
use excite_jobs::{ENGINE, Spec, StepLine};
use serde_json::json;

use crate::args::ExplainArgs;
use crate::fault::{Fault, Status};
use crate::printer::Printer;
use crate::{files, models, sidecar};

pub(crate) fn run(
    args: &ExplainArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let bytes = std::fs::read(&args.image).map_err(|e| Fault::io("read", &args.image, &e))?;
    let (spec, steps) = if args.image.extension().is_some_and(|e| e == "safetensors") {
        let trace = Trace::from_bytes(&bytes)?;
        let steps = step_lines(&trace.record);
        (trace.spec, steps)
    } else {
        image_steps(args, &bytes, printer, interrupted)?
    };
    if spec.subjects.is_empty() {
        let message = "the image has no subjects, so none was weakest".into();
        let remedy = "Name them when it is made, with --subjects.";
        return Err(Fault::new(Status::Failed, "no_subjects", message, remedy.into()));
    }
    let told = Told::new(&spec, &steps);
    printer.result(&told.table(&args.image));
    printer.object(&told.object());
    if let Some(path) = &args.chart {
        files::write(path, &told.chart().draw().to_png(&[])?)?;
        printer.note(&format!("chart written to {}", path.display()));
    }
    Ok(Status::Done)
}

/// From the sidecar, or from making the image again.
fn image_steps(
    args: &ExplainArgs,
    bytes: &[u8],
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<(Spec, Vec<StepLine>), Fault> {
    let broken = |message: String| {
        let message = format!("{}: {message}", args.image.display());
        Fault::new(Status::Failed, "png", message, "Name a PNG that excite wrote.".into())
    };
    let read = Read::bytes(bytes).map_err(|e| broken(e.to_string()))?;
    let spec = read.spec().map_err(broken)?;
    if let Some(sidecar) = sidecar::of(&args.image, bytes) {
        return Ok((spec, sidecar.steps));
    }
    printer.note("there is no JSON of this image beside it; making the image again");
    let (record, picture) = remake(args, &spec, printer, interrupted)?;
    if picture == read.picture {
        printer.note("the same pixels came out");
    } else {
        printer.warning("other pixels came out; the steps below are those of the image made now");
    }
    Ok((spec, step_lines(&record)))
}

fn remake(
    args: &ExplainArgs,
    spec: &Spec,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<(Record, Picture), Fault> {
    let model = models::load(&args.model, &args.compute.choose()?, printer)?;
    if model.name() != spec.model {
        let message =
            format!("the image was made with {}, this model is {}", spec.model, model.name());
        let remedy = "Name the folder of its model with --model.";
        return Err(Fault::usage("other_model", message, remedy));
    }
    if spec.engine != ENGINE {
        printer.warning(&format!("it was made by engine {}, this is {ENGINE}", spec.engine));
    }
    let outputs = Outputs { latents: false, maps: true };
    let run = Run::start(&model, std::slice::from_ref(spec), outputs)?;
    let bar = printer.bar(run.steps() as u64);
    bar.set_message("making the image again");
    let stop = || interrupted.load(Ordering::Relaxed);
    let rendered = run.complete(&stop, |_| bar.inc(1))?;
    bar.finish_and_clear();
    let rendered = rendered.into_iter().next();
    let rendered = rendered.ok_or_else(|| Fault::bug("a run of one image gave none"))?;
    Ok((rendered.record, rendered.picture))
}

/// What there is to tell of an image.
struct Told<'a> {
    spec: &'a Spec,
    steps: &'a [StepLine],
    /// For each step the position of the weakest subject.
    weakest: Vec<Option<usize>>,
    /// Steps at which guidance acted.
    guided: usize,
}

impl<'a> Told<'a> {
    fn new(spec: &'a Spec, steps: &'a [StepLine]) -> Self {
        let weakest = |step: &StepLine| {
            let scores: Option<Vec<f32>> = step.scores.iter().copied().collect();
            weakest(&scores?)
        };
        Self {
            spec,
            steps,
            weakest: steps.iter().map(weakest).collect(),
            guided: steps.iter().filter(|step| step.loss.is_some()).count(),
        }
    }

    fn word(&self, subject: Option<usize>) -> &str {
        subject.and_then(|s| self.spec.subjects.get(s)).map_or("-", |s| s.word.as_str())
    }

    fn table(&self, image: &Path) -> String {
        let spec = self.spec;
        let mut text = format!(
            "{}: \"{}\", seed {}, {}, {}\n\n",
            image.display(),
            spec.prompt,
            spec.seed,
            spec.method.name(),
            spec.model.get(..24).unwrap_or(&spec.model),
        );
        let wide = |word: &str| word.chars().count().max(8);
        let column = spec.subjects.iter().map(|s| wide(&s.word)).max().unwrap_or(8);
        text.push_str(&format!(
            "{:>4} {:>8} {:>8}  {:<column$}",
            "step", "timestep", "loss", "weakest"
        ));
        for subject in &spec.subjects {
            text.push_str(&format!(" {:>1$}", subject.word, wide(&subject.word)));
        }
        text.push_str("  refinements\n");
        for (i, step) in self.steps.iter().enumerate() {
            let loss = step.loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
            let weakest = self.word(self.weakest[i]);
            // Euler's method visits fractions of timesteps.
            let digits = if step.timestep.fract() == 0. { 0 } else { 2 };
            let timestep = format!("{:.digits$}", step.timestep);
            text.push_str(&format!("{i:>4} {timestep:>8} {loss:>8}  {weakest:<column$}"));
            for (subject, score) in spec.subjects.iter().zip(&step.scores) {
                let score = score.map_or("-".to_owned(), |score| format!("{score:.4}"));
                text.push_str(&format!(" {score:>0$}", wide(&subject.word)));
            }
            match step.refinements {
                0 => text.push('\n'),
                count => text.push_str(&format!("  {count}\n")),
            }
        }
        text.push_str(&format!("\n{}", self.summary()));
        text
    }

    fn summary(&self) -> String {
        let count = |s: usize| self.weakest.iter().filter(|&&weakest| weakest == Some(s)).count();
        let counts: Vec<String> = (0..self.spec.subjects.len())
            .map(|s| format!("{} at {} steps", self.word(Some(s)), count(s)))
            .collect();
        let mut text = format!("weakest: {}", counts.join(", "));
        let losses: Vec<f32> = self.steps.iter().filter_map(|step| step.loss).collect();
        if let (Some(first), Some(last)) = (losses.first(), losses.last()) {
            let refinements: u32 = self.steps.iter().map(|step| step.refinements).sum();
            text.push_str(&format!(
                "; guided at {} steps with {refinements} refinement iterations, loss {first:.3} to {last:.3}",
                self.guided
            ));
        }
        text
    }

    fn object(&self) -> serde_json::Value {
        let steps: Vec<_> = self
            .steps
            .iter()
            .zip(&self.weakest)
            .enumerate()
            .map(|(i, (step, weakest))| {
                json!({
                    "step": i, "timestep": step.timestep, "step_size": step.step_size,
                    "loss": step.loss, "scores": step.scores, "refinements": step.refinements,
                    "weakest": weakest.map(|s| self.word(Some(s))),
                })
            })
            .collect();
        json!({"v": 1, "spec": self.spec, "steps": steps})
    }

    fn chart(&self) -> Chart {
        let series = self.spec.subjects.iter().enumerate().map(|(s, subject)| {
            let score = |step: &StepLine| step.scores.get(s).copied().flatten();
            let values = self.steps.iter().map(|step| score(step).unwrap_or(f32::NAN));
            Series { label: subject.word.clone(), values: values.collect() }
        });
        let refined = self.steps.iter().enumerate().filter(|(_, step)| step.refinements > 0);
        let mut markers: Vec<(usize, String)> =
            refined.map(|(i, step)| (i, format!("refined x{}", step.refinements))).collect();
        let end = self.spec.method.max_iter_to_alter().map(|end| end as usize);
        if let Some(end) = end.filter(|end| *end < self.steps.len()) {
            markers.push((end, "guidance ends".into()));
        }
        Chart {
            title: format!("\"{}\", seed {}", self.spec.prompt, self.spec.seed),
            x_label: "step".into(),
            y_label: "score (attention of the subject)".into(),
            series: series.collect(),
            markers,
        }
    }
}
