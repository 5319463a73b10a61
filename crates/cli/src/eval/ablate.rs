//! `excite eval ablate`: Attend-and-Excite with a part left out or changed.
//!
//! Beside the metrics, a sign of leaving the distribution: the standard deviation of the final
//! latents, whose place among those of plain sampling says how unusual they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use excite_diffusion::{Error, Model, Outputs, Rendered, Run, Tensor};
use excite_eval::images::{self, Found, Layout};
use excite_eval::statistics::{Interval, RESAMPLES, clustered_mean};
use excite_jobs::{Line, Spec};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::measure;
use crate::args::AblateArgs;
use crate::fault::{Fault, Status};
use crate::generate::slug;
use crate::printer::Printer;
use crate::prompt_set::PromptSet;
use crate::{files, models, sidecar};

/// Images made together.
const TOGETHER: usize = 4;
const LATENTS: &str = "latents.ndjson";
const PLAIN: &str = "none";

/// A name and the options that differ from the authors' code.
fn variants() -> Vec<(&'static str, Option<Value>)> {
    vec![
        (PLAIN, None),
        ("official", Some(json!({}))),
        ("no smoothing", Some(json!({"smoothing": {"kernel_size": 1}}))),
        ("no refinement", Some(json!({"thresholds": {}}))),
        ("to step 5", Some(json!({"max_iter_to_alter": 5}))),
        ("to step 10", Some(json!({"max_iter_to_alter": 10}))),
        ("to step 50", Some(json!({"max_iter_to_alter": 50}))),
        ("step size x 0.5", Some(json!({"scale_factor": 10}))),
        ("step size x 2", Some(json!({"scale_factor": 40}))),
    ]
}

/// The final latents of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Latents {
    variant: String,
    prompt: String,
    seed: u32,
    /// Standard deviation over all values.
    deviation: f64,
}

pub(super) fn run(
    args: &AblateArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let model = models::load(&args.model, &args.compute.choose()?, printer)?;
    let out = &args.metrics.report.out;
    files::prepare_folder(out)?;
    let root = out.join("images");
    let mut found = Found::default();
    let prompts = prompts(args.prompts.into());
    let mut work = Work { model: &model, printer, interrupted, latents: out.join(LATENTS) };
    for (name, options) in variants() {
        let folder = root.join(slug(name));
        files::prepare_folder(&folder)?;
        let specs = specs(&model, args, &prompts, options.as_ref())?;
        if !work.make(name, &folder, &specs)? {
            printer.note("interrupted; run the command again to go on");
            return Ok(Status::Interrupted);
        }
        let here = images::find(&folder, Some(Layout::Flat), Some(name));
        let here = here.map_err(|error| super::of_images(&error))?;
        found.entries.extend(here.entries.into_iter().map(|mut entry| {
            entry.name = format!("{}/{}", slug(name), entry.name);
            entry
        }));
        found.problems.extend(here.problems);
    }
    let status = measure(found, &args.metrics, printer, interrupted)?;
    if status != Status::Interrupted {
        strangeness(&work.latents, out, printer)?;
    }
    Ok(status)
}

/// Lines of the paper's prompts, spread evenly.
fn prompts(count: usize) -> Vec<String> {
    let lines = PromptSet::Paper.jsonl();
    let lines: Vec<&str> = lines.lines().collect();
    (0..count).map(|i| lines[i * lines.len() / count].to_owned()).collect()
}

fn specs(
    model: &Model,
    args: &AblateArgs,
    prompts: &[String],
    options: Option<&Value>,
) -> Result<Vec<Spec>, Fault> {
    let (facts, mut specs) = (model.facts(), Vec::new());
    let defaults = Line {
        seeds: Some(args.seeds.clone()),
        steps: args.steps,
        method: Some(options.map_or(excite_jobs::MethodName::None, |_| Default::default())),
        method_params: options.and_then(Value::as_object).cloned(),
        ..Line::default()
    };
    for line in prompts {
        let line = Line::parse(line)?.or(&defaults);
        specs.extend(line.resolve(&facts, model.tokenizer())?.specs());
    }
    Ok(specs)
}

struct Work<'a> {
    model: &'a Model,
    printer: &'a Printer,
    interrupted: &'a AtomicBool,
    latents: PathBuf,
}

impl Work<'_> {
    /// Makes the images of a variant that are not there yet; `false` if that was interrupted.
    fn make(&mut self, variant: &str, folder: &Path, specs: &[Spec]) -> Result<bool, Fault> {
        let path = |spec: &Spec| folder.join(format!("{}-{}.png", slug(&spec.prompt), spec.seed));
        let there = |spec: &&Spec| {
            let path = path(spec);
            let found = std::fs::read(&path).ok().and_then(|bytes| sidecar::of(&path, &bytes));
            found.is_some_and(|found| found.spec == **spec)
        };
        let todo: Vec<Spec> = specs.iter().filter(|spec| !there(spec)).cloned().collect();
        let bar = if todo.is_empty() {
            ProgressBar::hidden()
        } else {
            self.printer.bar(todo.len() as u64)
        };
        bar.set_message(variant.to_owned());
        for chunk in todo.chunks(TOGETHER) {
            let begun = Instant::now();
            let stop = || self.interrupted.load(Ordering::Relaxed);
            let outputs = Outputs { latents: false, maps: true };
            let run = Run::start(self.model, chunk, outputs)?;
            let rendered = match run.complete(&stop, |_| ()) {
                Ok(rendered) => rendered,
                Err(Error::Cancelled) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let seconds = begun.elapsed().as_secs_f64() / chunk.len() as f64;
            for rendered in &rendered {
                self.note(variant, rendered)?;
                let png = rendered.picture.to_png_of(&rendered.spec)?;
                let path = path(&rendered.spec);
                files::write(&path, &png)?;
                sidecar::write(&path, &png, rendered, seconds, None, BTreeMap::new())?;
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(true)
    }

    /// Before the image is there: an image made again has two lines, and the last one counts.
    fn note(&self, variant: &str, rendered: &Rendered) -> Result<(), Fault> {
        let line = Latents {
            variant: variant.to_owned(),
            prompt: rendered.spec.prompt.clone(),
            seed: rendered.spec.seed,
            deviation: deviation(&rendered.final_latents)?,
        };
        let mut json = serde_json::to_vec(&line).map_err(|e| Fault::bug(&e.to_string()))?;
        json.push(b'\n');
        let io = |e: std::io::Error| Fault::io("write", &self.latents, &e);
        let mut options = std::fs::File::options();
        let mut file = options.create(true).append(true).open(&self.latents).map_err(io)?;
        file.write_all(&json).map_err(io)
    }
}

fn deviation(latents: &Tensor) -> Result<f64, Fault> {
    let values = latents.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
    let values = values.map_err(|e| Fault::bug(&e.to_string()))?;
    let values: Vec<f64> = values.into_iter().map(f64::from).collect();
    Ok(excite_eval::statistics::deviation(&values).unwrap_or_default())
}

/// How far the final latents of a variant are from those of plain sampling.
#[derive(Debug, Serialize)]
struct Strange {
    variant: String,
    images: usize,
    /// Their standard deviation, the mean over images.
    deviation: Interval,
    /// Images whose deviation only one in a hundred plain ones reaches, or more than all.
    beyond_plain: f64,
}

fn strangeness(path: &Path, out: &Path, printer: &Printer) -> Result<(), Fault> {
    let text = std::fs::read_to_string(path).map_err(|e| Fault::io("read", path, &e))?;
    let mut all: BTreeMap<(String, String, u32), f64> = BTreeMap::new();
    for line in text.lines() {
        // A line that was cut off is made again with its image.
        if let Ok(row) = serde_json::from_str::<Latents>(line) {
            all.insert((row.variant, row.prompt, row.seed), row.deviation);
        }
    }
    let of = |variant: &str| -> Vec<(&str, f64)> {
        let own = all.iter().filter(|((found, ..), _)| found == variant);
        own.map(|((_, prompt, _), deviation)| (prompt.as_str(), *deviation)).collect()
    };
    let mut plain: Vec<f64> = of(PLAIN).into_iter().map(|(_, deviation)| deviation).collect();
    plain.sort_by(f64::total_cmp);
    let limit = plain.get((plain.len() * 99 / 100).min(plain.len().saturating_sub(1))).copied();
    let limit = limit.unwrap_or(f64::INFINITY);
    let strange: Vec<Strange> = variants()
        .into_iter()
        .filter_map(|(variant, _)| {
            let rows = of(variant);
            let beyond = rows.iter().filter(|(_, deviation)| *deviation > limit).count();
            Some(Strange {
                variant: variant.to_owned(),
                images: rows.len(),
                deviation: clustered_mean(rows.iter().copied(), RESAMPLES)?,
                beyond_plain: beyond as f64 / rows.len() as f64,
            })
        })
        .collect();
    let json = serde_json::to_vec_pretty(&strange).map_err(|e| Fault::bug(&e.to_string()))?;
    files::write(&out.join("latents.json"), &json)?;
    printer.result(
        "\nStandard deviation of the final latents, and how many exceed 99 % of plain ones",
    );
    let row = |one: &Strange| {
        let Interval { value, low, high } = one.deviation;
        let (name, beyond) = (one.variant.clone(), 100. * one.beyond_plain);
        vec![
            name,
            one.images.to_string(),
            format!("{value:.3} [{low:.3} {high:.3}]"),
            format!("{beyond:.1} %"),
        ]
    };
    printer.table(&["variant", "images", "deviation", "beyond"], strange.iter().map(row));
    Ok(())
}
