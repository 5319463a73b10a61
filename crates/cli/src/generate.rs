//! `excite generate`: prompts to images on this machine.
//!
//! Every line is checked before anything is made. Then: plan (names, what is there already),
//! render in micro-batches, write each image as soon as it is finished, contact sheets last.

mod extras;
mod input;
mod plan;
mod render;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use excite_diffusion::Model;
use excite_jobs::{FoundSubject, Line, LineError, Method, MethodName, Resolved, Spec, Warning};
use excite_service::memory;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::args::GenerateArgs;
use crate::fault::{Fault, Status};
use crate::model::bytes;
use crate::printer::Printer;
use crate::{files, models};
use plan::{Image, Plan};
pub(crate) use plan::{Names, slug};
use render::Tally;

/// Faults of a file that are shown; the others are counted.
const FAULTS_SHOWN: usize = 20;

pub(crate) fn run(
    mut args: GenerateArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    use_threads(args.threads)?;
    let compared = args.compared().map_err(|message| {
        let remedy = "Write --compare at the end, or names with commas between them.";
        Fault::usage("compare", format!("--compare: {message}"), remedy)
    })?;
    let args = &args;
    let lines = input::lines(args)?;
    let compute = args.compute.choose()?;
    let model = models::load(&args.model, &compute, printer)?;
    let resolved = resolve(args, lines, compared.as_deref(), &model, printer);
    let Some(resolved) = resolved else { return Ok(Status::Usage) };
    let mut plan = Plan::new(args, &resolved)?;
    files::prepare_folder(&args.out)?;
    plan.find_finished(args)?;
    let todo: Vec<&Image> = plan.images.iter().filter(|image| image.finished.is_none()).collect();
    for image in &plan.images {
        if let Some(sidecar) = &image.finished {
            printer.object(&render::skipped(image, sidecar));
        }
    }
    greet(&model, &resolved, &plan, todo.len(), printer);

    let tally = render::run(args, &model, &todo, printer, interrupted)?;
    let sheets = if args.compare.is_some() && !tally.interrupted {
        extras::contact_sheets(args, &plan)?
    } else {
        Vec::new()
    };
    for sheet in &sheets {
        printer.result(&format!("{}  contact sheet", shown(sheet)));
    }
    finish(args, &plan, &tally, &sheets, printer)
}

/// candle and rayon read their number of threads from the environment once, so it has to be there
/// when the process starts: the program starts itself again with it.
fn use_threads(threads: Option<u32>) -> Result<(), Fault> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    let Some(threads) = threads.map(|n| n.to_string()) else { return Ok(()) };
    if std::env::var(VARIABLE).is_ok_and(|set| set == threads) {
        return Ok(());
    }
    let failed =
        |e: std::io::Error| Fault::bug(&format!("cannot start with {threads} threads: {e}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut again = std::process::Command::new(program);
    again.args(std::env::args_os().skip(1)).env(VARIABLE, &threads);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(failed(again.exec()))
    }
    #[cfg(not(unix))]
    {
        let status = again.status().map_err(failed)?;
        #[expect(clippy::exit, reason = "the other process did the work")]
        std::process::exit(status.code().unwrap_or(1))
    }
}

/// Checks all lines, each with every method that it is made with; `None` if one is wrong, which has
/// been said then.
fn resolve(
    args: &GenerateArgs,
    lines: Vec<input::Input>,
    compared: Option<&[MethodName]>,
    model: &Model,
    printer: &Printer,
) -> Option<Vec<Vec<Resolved>>> {
    let (facts, defaults) = (model.facts(), args.defaults());
    let mut resolved = Vec::with_capacity(lines.len());
    let mut faults = 0;
    for input in lines {
        let resolve = |line: Line| line.resolve(&facts, model.tokenizer());
        let methods = input.line.and_then(|line| {
            with_methods(line.or(&defaults), compared, resolve).map_err(Fault::from)
        });
        match methods {
            Ok(methods) => {
                let place = input.number.map_or(String::new(), |n| format!("line {n}: "));
                let mut said: Vec<&Warning> = Vec::new();
                for warning in methods.iter().flat_map(|line| &line.warnings) {
                    if !said.contains(&warning) {
                        printer.warning(&format!("{place}{warning}"));
                        said.push(warning);
                    }
                }
                resolved.push(methods);
            }
            Err(fault) => {
                faults += 1;
                if faults <= FAULTS_SHOWN {
                    printer.fault(&match input.number {
                        Some(number) => fault.at_line(number),
                        None => fault,
                    });
                }
            }
        }
    }
    if faults > FAULTS_SHOWN {
        printer.note(&format!("and {} more wrong lines", faults - FAULTS_SHOWN));
    }
    (faults == 0).then_some(resolved)
}

/// A line with each of the methods; without names, plain and with its own.
fn with_methods(
    line: Line,
    compared: Option<&[MethodName]>,
    resolve: impl Fn(Line) -> Result<Resolved, LineError>,
) -> Result<Vec<Resolved>, LineError> {
    match compared {
        Some(methods) if !methods.is_empty() => {
            methods.iter().map(|method| resolve(line.clone().with_method(*method))).collect()
        }
        compared => {
            let own = resolve(line)?;
            let mut methods = Vec::new();
            if compared.is_some() && own.first.method != Method::None {
                let first = Spec { method: Method::None, ..own.first.clone() };
                methods.push(Resolved { first, ..own.clone() });
            }
            methods.push(own);
            Ok(methods)
        }
    }
}

fn greet(model: &Model, resolved: &[Vec<Resolved>], plan: &Plan, todo: usize, printer: &Printer) {
    let name = short_name(model.name());
    let kind = model.compute().kind();
    let images = count(plan.images.len());
    printer.note(&format!("model {name} on {kind}; {images}, {todo} to make"));
    if let [methods] = resolved
        && let Some(one) = methods.last()
        && !one.found.is_empty()
    {
        let words: Vec<String> = one.found.iter().map(with_attributes).collect();
        printer.note(&format!("subjects found: {} (--subjects names others)", words.join(", ")));
    }
}

/// `cat (red, fluffy)`.
fn with_attributes(found: &FoundSubject) -> String {
    let attributes: Vec<&str> = found.attributes.iter().map(|a| a.word.as_str()).collect();
    let word = &found.subject.word;
    if attributes.is_empty() { word.clone() } else { format!("{word} ({})", attributes.join(", ")) }
}

fn count(images: usize) -> String {
    if images == 1 { "1 image".to_owned() } else { format!("{images} images") }
}

fn short_name(name: &str) -> String {
    match name.split_once('@') {
        Some((model, digest)) => format!("{model}@{}", digest.get(..10).unwrap_or(digest)),
        None => name.to_owned(),
    }
}

fn finish(
    args: &GenerateArgs,
    plan: &Plan,
    tally: &Tally,
    sheets: &[std::path::PathBuf],
    printer: &Printer,
) -> Result<Status, Fault> {
    let skipped = plan.images.iter().filter(|image| image.finished.is_some()).count();
    let left = plan.images.len() - skipped - tally.made - tally.failed;
    let peak = memory::peak_bytes();
    let first_step = tally.first_step.and_then(|at| at.format(&Rfc3339).ok());
    printer.object(&json!({"v": 1, "summary": {
        "made": tally.made, "skipped": skipped, "failed": tally.failed,
        "left": left, "seconds": tally.seconds, "first_step_at": first_step,
        "peak_memory_bytes": peak, "out": args.out, "sheets": sheets,
    }}));
    if tally.made > 0 {
        let memory =
            peak.map_or(String::new(), |peak| format!(", at most {} of memory", bytes(peak)));
        printer.note(&format!("{} in {:.1} s{memory}", count(tally.made), tally.seconds));
    }
    if skipped > 0 {
        let was = if skipped == 1 { "was" } else { "were" };
        let images = count(skipped);
        printer.note(&format!("{images} {was} there already (--overwrite makes them anew)"));
    }
    if tally.interrupted {
        let left = count(left);
        printer.note(&format!("interrupted with {left} left; run the command again to go on"));
        return Ok(Status::Interrupted);
    }
    Ok(match (tally.failed, tally.made + skipped) {
        (0, _) => Status::Done,
        (_, 0) => Status::Failed,
        _ => Status::PartlyFailed,
    })
}

/// A path as JSON and people want it: without a leading `./`.
fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}
