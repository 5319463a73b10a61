//! Seconds of whole images, plain and guided, for several sizes of a micro-batch: one line of JSON a
//! measurement, printed when it is made, so that whoever runs out of time has the others.
//!
//! tests/gpu/torch_images.py prints the same lines for diffusers; `tests/gpu/run` puts both side by
//! side. Not the bundled model on the CPU: that is benches/pipeline.rs.

#![expect(clippy::print_stdout, reason = "lines for a program")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use excite_diffusion::{Compute, DeviceChoice, Folder, Model, Outputs, Precision, Run};
use excite_jobs::{Line, Spec};
use serde_json::json;

const PROMPT: &str = "a cat and a frog";
/// Steps of the run that is not counted.
const WARM_UP: u32 = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Time images in micro-batches
#[derive(Debug, Parser)]
struct Args {
    /// A diffusers folder
    #[arg(long, value_name = "FOLDER")]
    model: PathBuf,

    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// f32, f16 or bf16
    #[arg(long, value_name = "FORMAT")]
    precision: Option<Precision>,

    /// Images together
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    batches: Vec<usize>,

    /// Denoising steps
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let compute = Compute::choose(args.device, args.precision)?;
    let began = Instant::now();
    let model = Model::load_on(&Folder::at(args.model), &compute)?;
    println!(
        "{}",
        json!({ "what": "load", "seconds": began.elapsed().as_secs_f64(),
            "device": compute.name(), "kind": compute.kind(), "weight_bytes": model.bytes() })
    );
    for batch in args.batches {
        for (what, method) in [("plain", "none"), ("guided", "attend_and_excite")] {
            // The first run of a shape compiles kernels and chooses algorithms.
            images(&model, method, batch, WARM_UP)?;
            let began = Instant::now();
            images(&model, method, batch, args.steps)?;
            let seconds = began.elapsed().as_secs_f64();
            let each = seconds / batch as f64;
            println!(
                "{}",
                json!({ "what": what, "batch": batch, "steps": args.steps, "seconds": seconds,
                    "seconds_per_image": each })
            );
        }
    }
    Ok(())
}

fn images(model: &Model, method: &str, batch: usize, steps: u32) -> Result<()> {
    let mut line = json!({ "prompt": PROMPT, "subjects": ["cat", "frog"], "steps": steps,
        "seeds": format!("0..{batch}"), "scheduler": "pndm", "method": method });
    if method != "none" {
        // Refinement takes as many passes as random weights happen to need.
        line["method_params"] = json!({ "thresholds": {} });
    }
    let resolved = Line::parse(&line.to_string())?.resolve(&model.facts(), model.tokenizer())?;
    let specs: Vec<Spec> = resolved.specs().collect();
    let run = Run::start(model, &specs, Outputs::default())?;
    let made = run.complete(&|| false, |_| ())?;
    if made.len() != batch {
        return Err(format!("{} images of {batch}", made.len()).into());
    }
    Ok(())
}
