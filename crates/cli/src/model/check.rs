//! `excite model check`: every byte that was fetched, every tensor that is needed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use excite_diffusion::{Folder, Model};
use excite_hub::{SOURCE, Source};
use serde_json::json;

use super::component_lines;
use crate::args::ModelArgs;
use crate::fault::{Fault, Status};
use crate::models;
use crate::printer::Printer;

pub(super) fn run(
    args: &ModelArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let folder = models::find(&args.model)?;
    let fetched = match &folder {
        Folder::Directory(path) => Some(path.as_path()),
        Folder::SingleFile(path) => path.parent(),
        Folder::Embedded { .. } => None,
    };
    let mut verified = None;
    if let Some(path) = fetched.filter(|path| path.join(SOURCE).is_file()) {
        let files = digests(path, printer, interrupted)?;
        printer.result(&format!("digests  {files} files are as they were fetched"));
        verified = Some(files);
    }
    let spinner = printer.spinner(format!("loading {}", args.model));
    let model = Model::load(&folder);
    drop(spinner);
    let model = model?;
    let parameters: u64 = model.components().iter().map(|(_, stored)| stored.parameters).sum();
    printer.result("tensors  all there, none left over, of the right shapes, finite");
    for line in component_lines(model.components()) {
        printer.result(&line);
    }
    printer.result(&format!("family   {}", model.family()));
    printer.result(&format!("name     {}", model.name()));
    printer.object(&json!({
        "v": 1, "name": model.name(), "family": model.family(), "parameters": parameters,
        "files_verified": verified,
    }));
    Ok(Status::Done)
}

/// Compares the files with what they were when they were fetched; how many there are.
fn digests(path: &Path, printer: &Printer, interrupted: &AtomicBool) -> Result<usize, Fault> {
    let source = Source::read(path)?;
    let bar = printer.bytes_bar(source.files.iter().map(|file| file.bytes).sum());
    let cancelled = || interrupted.load(Ordering::Relaxed);
    let damaged = source.verify(
        path,
        &mut |progress| {
            bar.set_message(progress.path.to_owned());
            bar.set_position(progress.done);
        },
        &cancelled,
    );
    bar.finish_and_clear();
    let damaged = damaged?;
    let Some(first) = damaged.first() else { return Ok(source.files.len()) };
    for mismatch in &damaged {
        printer.note(&format!("{}: {}", mismatch.path, mismatch.damage));
    }
    let more = match damaged.len() {
        1 => String::new(),
        n => format!(", and {} more files", n - 1),
    };
    Err(Fault::new(
        Status::Failed,
        "model_damaged",
        format!("`{}` of the model is {}{more}", first.path, first.damage),
        format!("Run `excite model pull {}` again: it fetches what is damaged.", source.repository),
    ))
}
