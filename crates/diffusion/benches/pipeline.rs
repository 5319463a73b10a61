//! Seconds of the pipeline on the bundled model: a step and an image, plain and guided, and a
//! guided batch of which some images are refined.
//!
//! What a repeat is, and how many times it times what, is the same in
//! tests/peers/bench_diffusers.py; `cargo xtask bench pipeline` runs both by turns.
//! `RAYON_NUM_THREADS` sets the number of threads. Not here: models of the true size
//! (`full_size.rs`).

#![expect(clippy::print_stdout, reason = "a program that is read in a terminal")]

mod timing;

use std::path::Path;
use std::time::Instant;

use clap::Parser;
use excite_diffusion::{Folder, Model, Outputs, Run, StepReport};
use excite_jobs::Spec;
use serde::Deserialize;
use serde_json::{Value, json};
use timing::{Result, Timings, spec};

/// Seed 0 of this prompt is guided without refinement, so every guided step does the same work.
const PROMPT: &str = "a lion and a elephant";
/// Images of the batch; which of them are refined shows in the report, and xtask checks it.
const BATCH: &str = include_str!("batch.json");
const STEPS: u32 = 50;
/// Steps of a run before the timed ones.
const STEPS_UNTIMED: usize = 2;
/// Timed steps of each repeat.
const STEPS_TIMED: usize = 8;

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

/// An image of the batch, as both sides read it.
#[derive(Debug, Deserialize)]
struct Member {
    prompt: String,
    seed: u32,
    /// Positions of the subjects among the tokens.
    indices: Vec<u32>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji");
    let model = Model::load(&Folder::Directory(folder))?;
    let repeats = args.repeats as usize;
    let plain = [image(&model, PROMPT, 0, "none")?];
    let guided = [image(&model, PROMPT, 0, "attend_and_excite")?];
    let mut timings: Timings = vec![
        ("plain_step", steps(&model, &plain, repeats)?),
        ("guided_step", steps(&model, &guided, repeats)?),
        ("plain_image", images(&model, &plain, repeats)?),
        ("guided_image", images(&model, &guided, repeats)?),
    ];
    let (times, refinements) = batch(&model, repeats)?;
    timings.push(("guided_batch", times));
    if args.json {
        let mut report = timing::report(&timings);
        report["guided_batch"]["refinements"] = json!(refinements);
        println!("{report}");
    } else {
        timing::print(&timings);
        println!("refinement iterations in the batch: {refinements:?}");
    }
    Ok(())
}

fn line(prompt: &str, seed: u32, method: &str) -> Value {
    json!({ "prompt": prompt, "seed": seed, "steps": STEPS, "guidance_scale": 7.5,
        "scheduler": "pndm", "method": method })
}

fn image(model: &Model, prompt: &str, seed: u32, method: &str) -> Result<Spec> {
    spec(model, &line(prompt, seed, method))
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

/// Seconds of the whole batch, made together, and each image's refinement iterations.
fn batch(model: &Model, repeats: usize) -> Result<(Vec<f64>, Vec<u32>)> {
    let members: Vec<Member> = serde_json::from_str(BATCH)?;
    let specs = members.iter().map(|member| {
        let subjects: Vec<Value> =
            member.indices.iter().map(|index| json!({ "indices": [index] })).collect();
        let mut line = line(&member.prompt, member.seed, "attend_and_excite");
        line["subjects"] = subjects.into();
        spec(model, &line)
    });
    let specs: Vec<Spec> = specs.collect::<Result<_>>()?;
    // Memory for so many images is asked for the first time.
    let mut run = Run::start(model, &specs, Outputs::default())?;
    for _ in 0..STEPS_UNTIMED {
        run.step(&|| false)?;
    }
    drop(run);
    let mut times = Vec::new();
    let mut refinements = Vec::new();
    for _ in 0..repeats {
        refinements = vec![0; specs.len()];
        let start = Instant::now();
        let run = Run::start(model, &specs, Outputs::default())?;
        let rendered = run.complete(&|| false, |report| {
            for (all, here) in refinements.iter_mut().zip(&report.refinements) {
                *all += here;
            }
        })?;
        times.push(start.elapsed().as_secs_f64());
        drop(rendered);
    }
    Ok((times, refinements))
}
