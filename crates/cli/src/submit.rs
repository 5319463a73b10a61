//! `excite submit`: a file of prompts to a cluster, as it is read, or in parts if it is large.
//!
//! Nothing is checked here: the server checks every line, and what it refuses is shown.

mod parts;

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use excite_jobs::api::{BatchView, DryRun};
use excite_jobs::{BatchId, limits};
use indicatif::ProgressBar;
use serde_json::Value;
use ureq::http::Method;

use crate::args::{Format, SubmitArgs};
use crate::batch;
use crate::client::{Client, Payload, Request, encode};
use crate::fault::{Fault, Status};
use crate::printer::Printer;
use crate::prompt_set::PromptSet;
use parts::Parts;

pub(crate) fn run(
    args: &SubmitArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let client = Client::new(&args.server, printer, interrupted)?;
    let source = Source::of(args)?;
    let key = idempotency_key(args)?;
    let query = query(args)?;
    let bar = printer.bytes_bar(source.bytes().unwrap_or(0));
    bar.set_message("submitting");
    let parts = source.parts().filter(|_| !args.dry_run);
    let answer = match &parts {
        Some(parts) => parts.submit(&client, &query, &key, &bar),
        None => {
            let mut request = Request::new(Method::POST, format!("/v1/batches{query}"));
            request.headers = vec![("content-type", source.media_type().to_owned())];
            // A dry run makes nothing that could be made twice.
            if !args.dry_run {
                request.headers.push(("idempotency-key", key.clone()));
            }
            client.call_with(&request, &|| source.open(&bar, &key))
        }
    };
    bar.finish_and_clear();
    let answer = answer.map_err(|fault| maybe_accepted(fault, args, &key, parts.is_some()))?;
    if args.dry_run {
        show_dry_run(&client.document(&answer)?, printer);
        return Ok(Status::Done);
    }
    let view: BatchView = client.document(&answer)?;
    show_accepted(&view, args.watch, printer);
    if args.watch { batch::watch::follow(&client, view.id) } else { Ok(Status::Done) }
}

/// Where the lines come from.
enum Source<'a> {
    File {
        path: &'a Path,
        bytes: u64,
        format: Format,
    },
    /// Of the program.
    Set(String),
    /// `taken`: what was read of it is gone.
    Stdin {
        taken: Arc<AtomicU64>,
        format: Format,
    },
}

impl<'a> Source<'a> {
    fn of(args: &'a SubmitArgs) -> Result<Self, Fault> {
        let Some(path) = args.file.as_deref() else {
            let set = args.set.map(PromptSet::jsonl);
            return set.map(Self::Set).ok_or_else(|| Fault::bug("neither a file nor a set"));
        };
        if path == Path::new("-") {
            let format = match args.format {
                Some(format) => format,
                None => format_of_stdin().map_err(|e| Fault::io("read", path, &e))?,
            };
            return Ok(Self::Stdin { taken: Arc::default(), format });
        }
        let metadata = std::fs::metadata(path).map_err(|e| Fault::io("read", path, &e))?;
        if !metadata.is_file() {
            let message = format!("{} is no file", path.display());
            return Err(Fault::usage("no_file", message, "Name a file, or - and pipe it in."));
        }
        let format = match args.format.or_else(|| format_of_name(path)) {
            Some(format) => format,
            None => {
                let message = format!("what {} is does not show in its ending", path.display());
                let remedy = "Say it with --format txt, jsonl or csv.";
                return Err(Fault::usage("format", message, remedy));
            }
        };
        let (bytes, max) = (metadata.len(), limits::BATCH_BYTES_MAX);
        if bytes > max {
            let message = format!("{} has {bytes} bytes, more than {max}", path.display());
            return Err(Fault::usage("too_large", message, "Split the file."));
        }
        Ok(Self::File { path, bytes, format })
    }

    fn bytes(&self) -> Option<u64> {
        match self {
            Self::File { bytes, .. } => Some(*bytes),
            Self::Set(text) => Some(text.len() as u64),
            Self::Stdin { .. } => None,
        }
    }

    /// The parts of a large file.
    fn parts(&self) -> Option<Parts<'a>> {
        match *self {
            Self::File { path, bytes, .. } if bytes > parts::ABOVE_BYTES => {
                Some(Parts { path, bytes, media_type: self.media_type() })
            }
            Self::File { .. } | Self::Set(_) | Self::Stdin { .. } => None,
        }
    }

    fn media_type(&self) -> &'static str {
        let format = match self {
            Self::File { format, .. } | Self::Stdin { format, .. } => *format,
            Self::Set(_) => Format::Jsonl,
        };
        match format {
            Format::Txt => "text/plain; charset=utf-8",
            Format::Jsonl => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
        }
    }

    /// The body, for one try.
    fn open(&self, bar: &ProgressBar, key: &str) -> Result<Payload, Fault> {
        bar.reset();
        match self {
            Self::File { path, bytes, .. } => {
                let file = std::fs::File::open(path).map_err(|e| Fault::io("read", path, &e))?;
                // What is appended meanwhile is not what was announced.
                let reader = bar.wrap_read(file.take(*bytes));
                Ok(Payload::Stream { reader: Box::new(reader), bytes: Some(*bytes) })
            }
            Self::Set(text) => {
                let bytes = Some(text.len() as u64);
                let reader = bar.wrap_read(std::io::Cursor::new(text.clone().into_bytes()));
                Ok(Payload::Stream { reader: Box::new(reader), bytes })
            }
            Self::Stdin { taken, .. } => {
                if taken.load(Ordering::Relaxed) > 0 {
                    let message = "the upload broke off, and standard input cannot be read again";
                    let remedy = format!(
                        "Pipe it in again with --idempotency-key {key}: if it was accepted, \
                         nothing is submitted twice."
                    );
                    return Err(Fault::new(
                        Status::Failed,
                        "stdin_broke_off",
                        message.into(),
                        remedy,
                    ));
                }
                let counted = Counted { taken: Arc::clone(taken) };
                Ok(Payload::Stream { reader: Box::new(bar.wrap_read(counted)), bytes: None })
            }
        }
    }
}

/// Standard input, counting what is taken of it.
struct Counted {
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = std::io::stdin().read(buffer)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

fn format_of_name(path: &Path) -> Option<Format> {
    match path.extension()?.to_ascii_lowercase().to_str()? {
        "txt" => Some(Format::Txt),
        "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

/// As `excite generate` does: what begins with a brace is JSON. What is looked at stays there to
/// be read.
fn format_of_stdin() -> std::io::Result<Format> {
    let mut stdin = std::io::stdin().lock();
    let seen = stdin.fill_buf()?;
    let seen = seen.strip_prefix("\u{feff}".as_bytes()).unwrap_or(seen).trim_ascii_start();
    Ok(if seen.starts_with(b"{") { Format::Jsonl } else { Format::Txt })
}

fn idempotency_key(args: &SubmitArgs) -> Result<String, Fault> {
    // An id of version 7 is as good as any other text that nobody has used before.
    let Some(key) = &args.idempotency_key else { return Ok(BatchId::new().to_string()) };
    let max = limits::IDEMPOTENCY_KEY_CHARS_MAX;
    if !(1..=max).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = "`--idempotency-key` cannot be sent".into();
        let remedy = "Use 1 to 256 letters, digits and signs, no spaces.";
        return Err(Fault::usage("idempotency_key", message, remedy));
    }
    Ok(key.clone())
}

/// The options as a query, with its question mark.
fn query(args: &SubmitArgs) -> Result<String, Fault> {
    let options = serde_json::to_value(args.options()).map_err(|e| Fault::bug(&e.to_string()))?;
    let mut query = String::new();
    for (name, value) in options.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => encode(text),
            Value::Null | Value::Bool(false) => continue,
            other => other.to_string(),
        };
        query += &format!("{}{name}={text}", if query.is_empty() { '?' } else { '&' });
    }
    Ok(query)
}

/// Nobody knows what became of a request whose answer did not come; of parts the others are there.
fn maybe_accepted(mut fault: Fault, args: &SubmitArgs, key: &str, in_parts: bool) -> Fault {
    let unsure = fault.status == Status::Interrupted || fault.code == "server_unreachable";
    let some_there =
        in_parts && fault.status == Status::Failed && fault.code != "idempotency_key_reused";
    if (unsure || some_there) && !args.dry_run {
        let again = format!(
            "The same command with --idempotency-key {key} goes on, and never submits twice."
        );
        fault.remedy = if fault.status == Status::Interrupted {
            again
        } else {
            fault.remedy + "\n       " + &again
        };
    }
    fault
}

fn show_accepted(view: &BatchView, watched: bool, printer: &Printer) {
    batch::view::note_warnings(&view.warnings, printer);
    let (jobs, model) = (batch::view::images(view.jobs.into()), batch::view::model(&view.model));
    let lines = view.lines;
    printer.note(&format!(
        "{jobs} of {lines} lines with model {model} in the {} lane",
        view.lane.as_str()
    ));
    printer.result(&view.id.to_string());
    printer.document(view);
    if !watched {
        printer.note(&format!("follow it with `excite batch watch {}`", view.id));
    }
}

fn show_dry_run(dry: &DryRun, printer: &Printer) {
    let (images, model) = (batch::view::images(dry.jobs), batch::view::model(&dry.model));
    printer.result(&format!("{images} of {} lines with model {model}", dry.lines));
    printer.result(&match dry.gpu_seconds {
        Some(seconds) => format!("compute time: {}", batch::view::span(seconds)),
        None => "compute time: not known, nothing was measured for this model yet".to_owned(),
    });
    printer.result(&match dry.drain_seconds {
        Some(seconds) => {
            format!("done in about {} behind what is queued", batch::view::span(seconds))
        }
        None => "done: not known, no worker is ready or nothing was measured yet".to_owned(),
    });
    batch::view::note_warnings(&dry.warnings, printer);
    for example in &dry.examples {
        printer.note(&format!("  line {}: {}", example.line, example.message));
    }
    printer.note("nothing was submitted");
    printer.document(dry);
}
