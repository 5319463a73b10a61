//! The losses that were published for SD 1.4, step by step beside ours.

use std::sync::atomic::{AtomicBool, Ordering};

use excite_diffusion::{Model, Outputs, Run};
use excite_jobs::Line;
use serde_json::json;

use super::Verdict;
use crate::fault::Fault;
use crate::printer::Printer;

/// "a cat and a frog", a CUDA generator's seed 6141, the authors' code on SD 1.4: the loss of each
/// of the 25 guided steps (issue 12 of the authors' repository). There was no refinement. In which
/// precision it ran is not known.
const LOSSES: [f32; 25] = [
    0.2740, 0.0576, 0.1228, 0.0293, 0.0415, 0.0324, 0.0325, 0.0340, 0.0391, 0.0454, 0.0406, 0.0393,
    0.0386, 0.0374, 0.0359, 0.0335, 0.0307, 0.0289, 0.0283, 0.0278, 0.0281, 0.0292, 0.0311, 0.0328,
    0.0339,
];
const SEED: u32 = 6141;

/// Single precision comes within the four published digits and the drift of the steps; half
/// precision, which the published run may have had, about so far.
const TOLERANCE: f32 = 5e-3;

pub(super) fn replay(
    model: &Model,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Verdict, Fault> {
    let line = json!({
        "prompt": "a cat and a frog", "subjects": ["cat", "frog"], "seed": SEED, "noise": "philox",
        "scheduler": "pndm", "steps": 50, "guidance_scale": 7.5,
    });
    let spec = Line::parse(&line.to_string())?.resolve(&model.facts(), model.tokenizer())?.first;
    let mut run = Run::start(model, &[spec], Outputs::default())?;
    let bar = printer.bar(LOSSES.len() as u64);
    bar.set_message("published trace");
    printer.result("step  published    ours  difference");
    let (mut largest, mut refined) = (0f32, 0);
    let cancelled = || interrupted.load(Ordering::Relaxed);
    for (step, published) in LOSSES.iter().enumerate() {
        let report = run.step(&cancelled)?;
        let ours = report.losses.first().copied().unwrap_or(f32::NAN);
        let difference = (ours - published).abs();
        // A NaN must not pass for a small difference.
        largest = if difference.is_nan() { f32::INFINITY } else { largest.max(difference) };
        refined += report.refinements.iter().sum::<u32>();
        bar.inc(1);
        bar.suspend(|| {
            printer
                .result(&format!("{step:>4}     {published:.4}  {ours:.4}      {difference:.4}"));
            printer.object(&json!({
                "v": 1, "step": step, "published": published, "loss": ours,
                "refinements": report.refinements.first(),
            }));
        });
    }
    bar.finish_and_clear();
    let agrees = largest <= TOLERANCE && refined == 0;
    let refinements = match refined {
        0 => "no refinement, as published".to_owned(),
        n => format!("{n} refinement iterations, where there was none"),
    };
    let mut why = format!(
        "the losses of SD 1.4 differ by {largest:.4} at most, {TOLERANCE} is allowed; {refinements}"
    );
    if !agrees {
        why.push_str(" (another checkpoint than SD 1.4 has other losses)");
    }
    Ok(Verdict { agrees: Some(agrees), why })
}
