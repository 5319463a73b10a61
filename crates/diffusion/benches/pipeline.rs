//! Seconds of the pipeline on the bundled model: a step and an image, plain and guided, and a
//! guided batch.
//!
//! What a repeat is, and how many times it times what, is the same in
//! tests/peers/bench_diffusers.py; `cargo xtask bench pipeline` runs both by turns.
//! `RAYON_NUM_THREADS` sets the number of threads.

#![expect(clippy::print_stdout, reason = "a program that is read in a terminal")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use clap::Parser;
use excite_diffusion::{Folder, Model, Outputs, Run, StepReport};
use excite_jobs::{Line, Spec};
use serde_json::{Value, json};

/// Seed 0 of this prompt is guided without refinement, so every guided step does the same work.
const PROMPT: &str = "a lion and a elephant";
const STEPS: u32 = 50;
/// Steps of a run before the timed ones.
const STEPS_UNTIMED: usize = 2;
/// Timed steps of each repeat.
const STEPS_TIMED: usize = 8;
/// Images of the batch.
const BATCH: usize = 4;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Time the pipeline on the bundled model
#[derive(Debug, Parser)]
struct Args {
    /// Timed images of each kind, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji");
    let model = Model::load(&Folder::Directory(folder))?;
    let timings = measure(&model, args.repeats as usize)?;
    if args.json {
        println!("{}", report(&timings));
    } else {
        print(&timings);
    }
    Ok(())
}

/// Each kind's name and seconds; those of a batch are those of all its images.
type Timings = [(&'static str, Vec<f64>); 5];

fn measure(model: &Model, repeats: usize) -> Result<Timings> {
    let plain = [spec(model, "none")?];
    let guided = [spec(model, "attend_and_excite")?];
    let batch = vec![guided[0].clone(); BATCH];
    Ok([
        ("plain_step", steps(model, &plain, repeats)?),
        ("guided_step", steps(model, &guided, repeats)?),
        ("plain_image", images(model, &plain, repeats)?),
        ("guided_image", images(model, &guided, repeats)?),
        ("guided_batch", images(model, &batch, repeats)?),
    ])
}

fn spec(model: &Model, method: &str) -> Result<Spec> {
    let line = json!({ "prompt": PROMPT, "seed": 0, "steps": STEPS, "guidance_scale": 7.5,
        "scheduler": "pndm", "method": method });
    let resolved = Line::parse(&line.to_string())?.resolve(&model.facts(), model.tokenizer())?;
    resolved.specs().next().ok_or_else(|| "the job has no image".into())
}

/// Seconds of single steps: guidance if the specs have it, denoising, scheduler.
fn steps(model: &Model, specs: &[Spec], repeats: usize) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..repeats {
        let mut run = Run::start(model, specs, Outputs::default())?;
        for _ in 0..STEPS_UNTIMED {
            run.step(&|| false)?;
        }
        for _ in 0..STEPS_TIMED {
            let start = Instant::now();
            let report = run.step(&|| false)?;
            times.push(start.elapsed().as_secs_f64());
            require_unrefined(&report)?;
        }
    }
    Ok(times)
}

/// Seconds of whole images: text encoding, steps, decoding.
fn images(model: &Model, specs: &[Spec], repeats: usize) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..=repeats {
        let mut refined = Ok(());
        let start = Instant::now();
        let run = Run::start(model, specs, Outputs::default())?;
        let rendered = run.complete(&|| false, |report| {
            if refined.is_ok() {
                refined = require_unrefined(report);
            }
        })?;
        times.push(start.elapsed().as_secs_f64());
        drop(rendered);
        refined?;
    }
    // The first one finds caches and pages cold.
    times.remove(0);
    Ok(times)
}

/// Refinement takes as many passes as the values of the day need: seconds would not compare.
fn require_unrefined(report: &StepReport) -> Result<()> {
    if report.refinements.iter().any(|&count| count > 0) {
        return Err(format!("step {} was refined: choose another prompt", report.step).into());
    }
    Ok(())
}

fn min_and_median(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let lower = if sorted.len().is_multiple_of(2) { middle - 1 } else { middle };
    (sorted[0], f64::midpoint(sorted[lower], sorted[middle]))
}

fn report(timings: &Timings) -> Value {
    let version = format!("{} ({})", env!("CARGO_PKG_VERSION"), excite_diffusion::kind());
    let mut report = json!({
        "tool": "excite",
        "versions": { "excite": version },
        "threads": candle_core::utils::get_num_threads(),
    });
    for (name, times) in timings {
        let (min, median) = min_and_median(times);
        report[*name] = json!({ "min": min, "median": median, "times": times });
    }
    report["guided_batch"]["images"] = BATCH.into();
    report
}

fn print(timings: &Timings) {
    println!("threads {}", candle_core::utils::get_num_threads());
    println!("{:<14}{:>10}{:>10}", "seconds", "min", "median");
    for (name, times) in timings {
        let (min, median) = min_and_median(times);
        println!("{name:<14}{min:>10.4}{median:>10.4}");
    }
}
