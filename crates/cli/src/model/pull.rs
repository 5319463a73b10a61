//! `excite model pull`: fetches a repository, or goes on where a fetch stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use excite_hub::{Hub, Precision};
use serde_json::json;

use super::bytes;
use crate::args::{self, PullArgs};
use crate::fault::{Fault, Status};
use crate::models;
use crate::printer::Printer;

pub(super) fn run(
    args: &PullArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let default = args.repository.rsplit('/').next().unwrap_or_default();
    let name = args.name.as_deref().unwrap_or(default);
    if !models::is_name(name) || name == models::BUNDLED {
        let message = format!("`--name` is `{name}`, which cannot be a model's name");
        let remedy = "Use letters, digits, `.`, `_` and `-`, and not the bundled model's name.";
        return Err(Fault::usage("name", message, remedy));
    }
    let folder = models::home()?.join(name);
    let cancelled = || interrupted.load(Ordering::Relaxed);
    let hub = Hub::from_environment()?;
    let snapshot = hub.snapshot(&args.repository, &args.revision, &cancelled)?;
    let files = if args.files.is_empty() {
        let precision = match args.precision {
            args::Precision::F32 => Precision::F32,
            args::Precision::F16 => Precision::F16,
        };
        hub.selection(&snapshot, precision, &cancelled)?
    } else {
        snapshot.selection_of(&args.files.iter().map(String::as_str).collect::<Vec<_>>())?
    };
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let licence = snapshot.licence.as_deref().unwrap_or("not stated");
    printer.note(&format!(
        "{}@{:.10}: {} files, {}; licence: {licence}",
        snapshot.repository,
        snapshot.commit,
        files.len(),
        bytes(total)
    ));
    let bar = printer.bytes_bar(total);
    let source = hub.fetch(
        &snapshot,
        &files,
        &folder,
        &mut |progress| {
            bar.set_message(progress.path.to_owned());
            bar.set_position(progress.done);
        },
        &cancelled,
    );
    bar.finish_and_clear();
    let source = source?;
    printer.result(&format!("{name}: {} in {}", bytes(total), folder.display()));
    printer.note(&format!("use it with --model {name}"));
    printer.object(&json!({
        "v": 1, "name": name, "folder": folder, "bytes": total, "repository": source.repository,
        "revision": source.revision, "commit": source.commit, "licence": source.licence,
        "files": source.files.len(),
    }));
    Ok(Status::Done)
}
