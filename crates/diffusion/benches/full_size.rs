//! Passes and memory of a model of the true size: weights are made up, work is not.
//!
//! tests/peers/bench_full_size.py does the same with diffusers; `cargo xtask bench pipeline` writes
//! the model and runs both by turns. `RAYON_NUM_THREADS` sets the number of threads. Not here:
//! whole images of the bundled model (`pipeline.rs`).

#![expect(clippy::print_stdout, reason = "a program that is read in a terminal")]

mod timing;

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Tensor, Var};
use clap::Parser;
use excite_diffusion::{Conditioning, Folder, Generator, Model, Outputs, Run, Subjects, UNet};
use excite_jobs::{Method, Noise, Spec};
use serde_json::{Value, json};
use timing::{Result, Timings};

const PROMPT: &str = "a cat and a frog";
const STEPS: u32 = 50;
/// PNDM makes one more.
const STEPS_OF_MEMORY: u32 = 2;
/// Step size of the update at the first step.
const STEP_SIZE: f64 = 20.;

/// Time the passes of a model of the true size, or see how much memory an image takes
#[derive(Debug, Parser)]
struct Args {
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,

    /// Make one guided, refined image of two steps, and say how much memory that took at most
    #[arg(long)]
    memory: bool,

    /// Timed passes of each kind, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = Model::load(&Folder::Directory(args.model))?;
    if args.memory {
        let report = memory(&model)?;
        match args.json {
            true => println!("{report}"),
            false => println!("{} bytes at most", report["peak_bytes"]),
        }
        return Ok(());
    }
    let timings = Passes::new(&model)?.timings(args.repeats as usize)?;
    match args.json {
        true => println!("{}", timing::report(&timings)),
        false => timing::print(&timings),
    }
    Ok(())
}

fn line(steps: u32) -> Value {
    json!({ "prompt": PROMPT, "seed": 0, "steps": steps, "guidance_scale": 7.5,
        "scheduler": "pndm", "method": "attend_and_excite" })
}

/// What the passes of the first step are given.
struct Passes<'m> {
    unet: &'m UNet,
    /// `[1, 4, h, w]`
    latents: Tensor,
    timestep: f32,
    conditional: Conditioning,
    /// Unconditional and conditional, for a batch of two.
    both: Conditioning,
    subjects: Subjects,
    size: (usize, usize),
}

impl<'m> Passes<'m> {
    fn new(model: &'m Model) -> Result<Self> {
        let spec: Spec = timing::spec(model, &line(STEPS))?;
        let Method::AttendAndExcite(params) = &spec.method else {
            return Err("the job is not guided".into());
        };
        let unet = model.unet();
        let pixels = (spec.height as usize, spec.width as usize);
        let size = (unet.sample_size(), unet.sample_size());
        let conditional = unet.condition(&model.text_states(PROMPT)?, pixels)?;
        let unconditional = unet.condition(&model.negative_text_states("")?, pixels)?;
        let scheduler = model.schedulers().scheduler(spec.scheduler, spec.steps)?;
        Ok(Self {
            latents: Generator::new(Noise::TorchCpu, 0).normal(&[1, 4, size.0, size.1])?,
            timestep: scheduler.timesteps()[0],
            both: Conditioning::batch(&[&unconditional, &conditional])?,
            conditional,
            subjects: Subjects::new(params, &spec.subjects, model.encode(PROMPT)?.eot)?,
            unet,
            size,
        })
    }

    fn timings(&self, repeats: usize) -> Result<Timings> {
        // The first one finds caches and pages cold.
        self.forward()?;
        Ok(vec![
            ("forward", timed(repeats, || self.forward())?),
            ("forward_of_two", timed(repeats, || self.forward_of_two())?),
            ("gradient", timed(repeats, || self.gradient())?),
        ])
    }

    fn forward(&self) -> Result<()> {
        self.unet.noise(&self.latents, self.timestep, &self.conditional)?;
        Ok(())
    }

    /// What classifier-free guidance needs.
    fn forward_of_two(&self) -> Result<()> {
        let latents = Tensor::cat(&[&self.latents, &self.latents], 0)?;
        self.unet.noise(&latents, self.timestep, &self.both)?;
        Ok(())
    }

    /// Maps, loss, its gradient, and the update, as a run makes them.
    fn gradient(&self) -> Result<()> {
        let leaf = Var::from_tensor(&self.latents)?;
        let maps = self.unet.map(leaf.as_tensor(), self.timestep, &self.conditional)?;
        let map_size = self.unet.map_size(self.size);
        let evaluation = self.subjects.clone().evaluate(&maps.get(0)?, map_size)?;
        let loss = evaluation.tensor.ok_or("the loss is 0")?;
        let gradient = loss.backward()?.remove(leaf.as_tensor()).ok_or("there is no gradient")?;
        (&self.latents - (gradient.detach() * STEP_SIZE)?)?;
        Ok(())
    }
}

fn timed(repeats: usize, pass: impl Fn() -> Result<()>) -> Result<Vec<f64>> {
    let seconds = |_| {
        let start = Instant::now();
        pass()?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..repeats).map(seconds).collect()
}

/// Makes an image that is guided, refined once and decoded; then what the process had at most.
fn memory(model: &Model) -> Result<Value> {
    let mut line = line(STEPS_OF_MEMORY);
    // No attention is more than 1, so the first step is refined whatever the weights are.
    line["method_params"] = json!({ "thresholds": { "0": 1.0 }, "max_refinement_steps": 1 });
    let run = Run::start(model, &[timing::spec(model, &line)?], Outputs::default())?;
    let mut refinements = 0;
    let rendered = run.complete(&|| false, |report| {
        refinements += report.refinements.iter().sum::<u32>();
    })?;
    drop(rendered);
    Ok(json!({ "tool": "excite", "peak_bytes": peak_bytes()?, "refinements": refinements }))
}

/// The most memory that this process had.
fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no VmHWM")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}
