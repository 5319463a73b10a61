//! `excite eval`: whether images show what their prompts say.
//!
//! Find the images, measure those that are not measured yet, report on all. Not here: the metrics
//! (`excite_eval`), making images (`generate`).

mod ablate;
mod output;
mod paper;
mod rows;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use excite_eval::images::{self, Entry, Found, Problem};
use excite_eval::measure::{Meter, Models};
use excite_eval::scores::{Book, Score};

use crate::args::{EvalArgs, EvalCommand, MetricArgs};
use crate::fault::{Fault, Status, with_causes};
use crate::files;
use crate::printer::Printer;

/// Images that are measured before their rows are written.
const CHUNK: usize = 64;
const SCORES: &str = "scores.ndjson";

pub(crate) fn run(
    args: &EvalArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    match (&args.command, &args.path) {
        (Some(EvalCommand::Paper(args)), _) => paper::run(args, printer, interrupted),
        (Some(EvalCommand::Ablate(args)), _) => ablate::run(args, printer, interrupted),
        (Some(EvalCommand::Report(args)), _) => rows::run(args, printer),
        (None, Some(path)) => {
            evaluate(path, args.method.as_deref(), &args.metrics, printer, interrupted)
        }
        (None, None) => Err(Fault::usage(
            "no_images",
            "no folder of images was named".into(),
            "Name one, or write `excite eval paper`.",
        )),
    }
}

/// Measures the images below a folder and reports on them.
fn evaluate(
    folder: &Path,
    method: Option<&str>,
    args: &MetricArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let spinner = printer.spinner(format!("looking at {}", folder.display()));
    let found = images::find(folder, None, method);
    drop(spinner);
    measure(found.map_err(|error| of_images(&error))?, args, printer, interrupted)
}

/// Measures what was found and reports on it.
fn measure(
    found: Found,
    args: &MetricArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    files::prepare_folder(&args.report.out)?;
    let Found { entries, mut problems } = found;
    for problem in &problems {
        printer.warning(&problem.to_string());
    }
    let mut meter = Meter::load(&Models { clip: args.clip.clone(), blip: args.blip.clone() })?;
    let path = args.report.out.join(SCORES);
    let mut book = Book::open(&path, meter.measure()).map_err(|error| of_scores(&error))?;
    complete(&mut book, &entries)?;
    let todo: Vec<&Entry> = entries.iter().filter(|entry| !book.has(entry)).collect();
    let there = entries.len() - todo.len();
    printer.note(&format!("{} images, {there} of them measured already", entries.len()));
    let bar = printer.bar(todo.len() as u64);
    bar.set_message("measuring");
    for chunk in todo.chunks(CHUNK) {
        if interrupted.load(Ordering::SeqCst) {
            bar.finish_and_clear();
            printer.note("interrupted; run the command again to go on");
            return Ok(Status::Interrupted);
        }
        for (entry, score) in chunk.iter().zip(meter.scores(chunk)) {
            match score {
                Ok(score) => book.append(score).map_err(|error| of_scores(&error))?,
                Err(error) => {
                    let reason = with_causes(&error);
                    let problem = Problem::Broken { path: entry.name.clone(), reason };
                    printer.warning(&problem.to_string());
                    problems.push(problem);
                }
            }
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    let silent = |row: &&Score| row.caption.as_ref().is_some_and(|said| said.trim().is_empty());
    for row in book.of(&entries).filter(silent) {
        let problem = Problem::EmptyCaption { path: row.path.clone() };
        printer.warning(&problem.to_string());
        problems.push(problem);
    }
    if book.of(&entries).next().is_none() {
        let message = "not one image could be measured".to_owned();
        let remedy = "See what is said of each of them.";
        return Err(Fault::new(Status::Failed, "no_images", message, remedy.into()));
    }
    let rows: Vec<&Score> = book.of(&entries).collect();
    output::write(&rows, &problems, &args.report, printer)?;
    if args.sheets {
        output::sheets(&entries, &book, args)?;
    }
    Ok(if problems.is_empty() { Status::Done } else { Status::PartlyFailed })
}

/// Rows that were written before the JSON of their image was there, or by an earlier version, get what
/// it says of the attention.
fn complete(book: &mut Book, entries: &[Entry]) -> Result<(), Fault> {
    for entry in entries.iter().filter(|entry| entry.attended.is_some()) {
        if let Some(row) = book.get(entry).filter(|row| row.attended.is_none()) {
            let row = Score { attended: entry.attended.clone(), ..row.clone() };
            book.append(row).map_err(|error| of_scores(&error))?;
        }
    }
    Ok(())
}

fn of_images(error: &images::ImagesError) -> Fault {
    let remedy = "Name a folder that `excite generate` or `excite batch fetch --sidecars` wrote.";
    Fault::usage("images", with_causes(error), remedy)
}

fn of_scores(error: &excite_eval::scores::ScoresError) -> Fault {
    let remedy = "Choose another --out, or look at the file.";
    Fault::new(Status::Failed, "scores", with_causes(error), remedy.into())
}
