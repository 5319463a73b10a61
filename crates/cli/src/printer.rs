//! What goes to the terminal: results to stdout, everything else to stderr.
//!
//! With `--json` stdout carries one JSON object a line and nothing else.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::fault::Fault;

pub(crate) struct Printer {
    json: bool,
    /// Nobody reads stdout any more (`excite ... | head`): what is left is done in silence.
    deaf: AtomicBool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, deaf: AtomicBool::new(false) }
    }

    /// Prints no results: another command shows what comes of them.
    pub(crate) fn silent() -> Self {
        Self { json: false, deaf: AtomicBool::new(true) }
    }

    /// A result for people.
    pub(crate) fn result(&self, line: &str) {
        if !self.json {
            self.stdout(line);
        }
    }

    /// A result for programs.
    pub(crate) fn object(&self, object: &impl Serialize) {
        if self.json {
            match serde_json::to_string(object) {
                Ok(line) => self.stdout(&line),
                Err(error) => self.note(&format!("a result cannot be written as JSON: {error}")),
            }
        }
    }

    fn stdout(&self, line: &str) {
        if !self.deaf.load(Ordering::Relaxed) && writeln!(std::io::stdout(), "{line}").is_err() {
            self.deaf.store(true, Ordering::Relaxed);
        }
    }

    /// Rows under their heads, for people; the last column is as wide as it wants.
    pub(crate) fn table(&self, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        if self.json {
            return;
        }
        let mut lines = vec![head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
        lines.extend(rows);
        let width = |i: usize| {
            lines.iter().filter_map(|row| Some(row.get(i)?.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &lines {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            self.stdout(cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    /// Something to know, for people.
    pub(crate) fn note(&self, line: &str) {
        // Where stderr is gone there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    pub(crate) fn warning(&self, line: &str) {
        self.note(&format!("warning: {line}"));
    }

    pub(crate) fn fault(&self, fault: &Fault) {
        self.error(fault);
        self.object(&json!({"v": 1, "error": fault}));
    }

    /// An error for people alone.
    pub(crate) fn error(&self, fault: &Fault) {
        for refused in &fault.lines {
            let (line, message, remedy) = (refused.line, &refused.message, &refused.remedy);
            // Of a line as a whole the message says all.
            let field = match refused.field.as_str() {
                "" | "line" => String::new(),
                field => format!(", field {field}"),
            };
            self.note(&format!("line {line}{field}: {message}; {remedy}"));
        }
        if let Some(more) = fault.refused.and_then(|all| all.checked_sub(fault.lines.len() as u64))
            && more > 0
        {
            self.note(&format!("and {more} more refused lines"));
        }
        self.note(&format!("error: {}\n help: {}", fault.message, fault.remedy));
    }

    /// A bar over `length` steps on a terminal, nothing elsewhere.
    pub(crate) fn bar(&self, length: u64) -> ProgressBar {
        bar(length, "{msg} {wide_bar:.cyan/blue} {percent:>3}% {elapsed} done, {eta} left")
    }

    /// A bar over bytes.
    pub(crate) fn bytes_bar(&self, bytes: u64) -> ProgressBar {
        bar(
            bytes,
            "{msg} {wide_bar:.cyan/blue} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        )
    }

    /// A result for programs, with the version that every document carries.
    pub(crate) fn document(&self, document: &impl Serialize) {
        let mut value = match serde_json::to_value(document) {
            Ok(value) => value,
            Err(error) => {
                return self.note(&format!("a result cannot be written as JSON: {error}"));
            }
        };
        if let Some(object) = value.as_object_mut() {
            object.insert("v".into(), 1.into());
        }
        self.object(&value);
    }

    /// Shows that something is going on until the value is dropped.
    pub(crate) fn spinner(&self, message: String) -> Spinner {
        let bar = ProgressBar::new_spinner().with_message(message);
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

pub(crate) struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
