//! `excite eval paper`: the images of the paper's prompts, made here or fetched, then measured.

use std::sync::atomic::AtomicBool;

use excite_jobs::MethodName;

use super::evaluate;
use crate::args::{BatchCommand, FetchArgs, GenerateArgs, ImageArgs, Layout, PaperArgs};
use crate::batch;
use crate::fault::{Fault, Status};
use crate::generate;
use crate::printer::Printer;
use crate::prompt_set::PromptSet;

/// Below the folder of the evaluation.
const IMAGES: &str = "images";

pub(super) fn run(
    args: &PaperArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let images = args.metrics.report.out.join(IMAGES);
    // What is read is the report, not a line an image.
    let quiet = Printer::silent();
    let mut worst = Status::Done;
    // Each method by itself, for images of a micro-batch share its time.
    let methods = MethodName::list(&args.methods).map_err(|message| {
        Fault::usage("methods", message, "Write names with commas between them.")
    })?;
    for method in methods.into_iter().filter(|_| args.batch.is_empty()) {
        let generate = GenerateArgs {
            prompts: Vec::new(),
            file: None,
            set: Some(PromptSet::Paper),
            model: args.model.clone(),
            seeds: Some(args.seeds.clone()),
            image: ImageArgs { steps: args.steps, method: Some(method), ..ImageArgs::default() },
            subjects: None,
            out: images.clone(),
            batch_size: args.batch_size,
            threads: None,
            compute: args.compute.clone(),
            attention: false,
            compare: None,
            methods: None,
            trace: None,
            overwrite: false,
            json: false,
        };
        let status = generate::run(generate, &quiet, interrupted)?;
        if !matches!(status, Status::Done | Status::PartlyFailed) {
            return Ok(status);
        }
        worst = if status == Status::Done { worst } else { status };
    }
    for id in &args.batch {
        let fetch = FetchArgs {
            id: id.clone(),
            // Each by itself, for images of two batches may have one name.
            out: images.join(id),
            layout: Layout::Flat,
            jobs: FETCH_JOBS,
            sidecars: true,
            watch: false,
            server: args.server.clone(),
            json: false,
        };
        let status = batch::run(&BatchCommand::Fetch(fetch), &quiet, interrupted)?;
        if status != Status::Done {
            worst = status;
        }
    }
    if !matches!(worst, Status::Done | Status::PartlyFailed) {
        return Ok(worst);
    }
    let status = evaluate(&images, None, &args.metrics, printer, interrupted)?;
    Ok(if status == Status::Done { worst } else { status })
}

/// Downloads at the same time.
const FETCH_JOBS: u32 = 8;
