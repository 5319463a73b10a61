//! `excite parity`: proof on this machine that a checkpoint gives the numbers of the references.
//!
//! Every tensor is checked at loading. The bundled model then replays `golden/`, runs of diffusers;
//! Stable Diffusion 1.x the losses that were published for SD 1.4.

pub(crate) mod golden;
mod published;

use std::sync::atomic::AtomicBool;

use excite_diffusion::Model;
use serde_json::json;

use crate::args::ParityArgs;
use crate::fault::{Fault, Status};
use crate::model::component_lines;
use crate::models::{self, BUNDLED};
use crate::printer::Printer;

/// Side of the images that the published trace is of.
const PUBLISHED_SIDE: u32 = 512;

pub(crate) fn run(
    args: &ParityArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let model = models::load(&args.model, &args.compute.choose()?, printer)?;
    let parameters: u64 = model.components().iter().map(|(_, stored)| stored.parameters).sum();
    printer.result("tensors  all there, none left over, of the right shapes, finite");
    for line in component_lines(model.components()) {
        printer.result(&line);
    }
    let bundled = models::find(BUNDLED)?;
    let same = model.name() == Model::load(&bundled)?.name();
    let published = model.family() == "SD 1.x" && model.facts().width == PUBLISHED_SIDE;
    if !same && !args.cases.is_empty() {
        let message = format!("`--case` names runs of the bundled model, not of `{}`", args.model);
        return Err(Fault::usage("case", message, "Leave `--case` out."));
    }
    let verdict = if same {
        golden::replay(&model, &args.cases, printer, interrupted)?
    } else if published {
        published::replay(&model, printer, interrupted)?
    } else {
        let why = format!(
            "no trace was published for {} at {}x{} pixels",
            model.family(),
            model.facts().width,
            model.facts().height
        );
        Verdict { agrees: None, why }
    };
    let word = match verdict.agrees {
        Some(true) => "agrees",
        Some(false) => "differs",
        None => "not compared",
    };
    printer.result(&format!("verdict  {word}: {}", verdict.why));
    printer.object(&json!({
        "v": 1, "verdict": word, "why": verdict.why, "model": model.name(),
        "family": model.family(), "parameters": parameters, "kind": model.compute().kind(),
    }));
    Ok(if verdict.agrees == Some(false) { Status::Failed } else { Status::Done })
}

/// What a comparison came to.
struct Verdict {
    /// `None` if there was nothing to compare with.
    agrees: Option<bool>,
    why: String,
}
