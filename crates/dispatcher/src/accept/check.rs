//! Every line of an upload checked, on all cores, in order and in constant memory.
//!
//! Runs on a thread of its own: it reads a piece of lines, checks them side by side, numbers their
//! jobs, and hands on a part whenever one is full. Not here: where parts go (`accept`).

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use excite_jobs::api::{LineRefusal, LineWarning};
use excite_jobs::limits::{
    BATCH_LINES_MAX, CUSTOM_ID_CHARS_MAX, EXPRESS_JOBS_MAX, JOBS_MAX, PART_LINES_MAX, REFUSALS_MAX,
    WARNED_LINES_MAX,
};
use excite_jobs::{
    Line, Method, MethodName, ModelFacts, Part, Resolved, Spec, StoredLine, Warning, Work,
};
use excite_prompt::Tokenizer;
use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::body::{BodyFault, Counted};
use super::memo::Memo;
use super::records::{Columns, Format, Record, RecordFault, Records, refusal};

/// Lines that are checked side by side.
const PIECE_LINES: usize = 2000;
/// Bytes of them, so that long lines do not take more memory.
const PIECE_BYTES: u64 = 8 << 20;
/// Lines of one gzip member: enough for the zipper to find what repeats.
const MEMBER_LINES: usize = 500;

/// What lines are checked against.
pub(super) struct Terms {
    pub(super) facts: ModelFacts,
    pub(super) defaults: Line,
    /// Each image is also made plain.
    pub(super) compare: bool,
    /// Each line is done with each of these; with its own if there are none.
    pub(super) methods: Vec<MethodName>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) memo: Memo,
}

/// A full part, without its key.
pub(super) struct FullPart {
    pub(super) part: Part,
    pub(super) body: Bytes,
}

/// What came of a whole upload.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) lines: u64,
    pub(super) jobs: u32,
    /// All lines, if they are few jobs.
    pub(super) inline: Option<Vec<StoredLine>>,
    /// Warnings by code, with the number of lines.
    pub(super) warnings: BTreeMap<String, u64>,
    /// Which lines, the first of them.
    pub(super) warned_lines: BTreeMap<String, Vec<u64>>,
    /// What is said of the first of them.
    pub(super) examples: Vec<LineWarning>,
    pub(super) work: Work,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Lines that were refused.
    pub(super) refused: u64,
    /// The first of them.
    pub(super) refusals: Vec<LineRefusal>,
}

/// Why a check ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckFault {
    #[error(transparent)]
    Body(#[from] BodyFault),
    #[error("the upload has more than {BATCH_LINES_MAX} lines")]
    TooManyLines,
    #[error("line {0} makes more than {JOBS_MAX} jobs of the batch")]
    TooManyJobs(u64),
    /// Nobody takes parts any more.
    #[error("the check was given up")]
    GivenUp,
}

/// Checks all lines of `input`. `put` is given each full part, in order, as long as no line was
/// refused; `false` ends the check.
pub(super) fn check(
    terms: &Terms,
    format: Format,
    input: Counted,
    put: impl FnMut(FullPart) -> bool,
) -> Result<Checked, CheckFault> {
    let mut records = match Records::new(format, input) {
        Ok(records) => records,
        Err(RecordFault::Body(fault)) => return Err(fault.into()),
        Err(RecordFault::Columns(refusal)) => {
            return Ok(Checked { refused: 1, refusals: vec![refusal], ..Checked::default() });
        }
    };
    let (format, columns) = records.reading();
    let mut check = Check { terms, format, columns, checked: Checked::default(), part: None, put };
    check.checked.inline = Some(Vec::new());
    loop {
        let piece = next_piece(&mut records)?;
        if piece.is_empty() {
            break;
        }
        check.take(piece)?;
    }
    check.end_part()?;
    let mut checked = check.checked;
    (checked.bytes, checked.sha256) = records.finish();
    Ok(checked)
}

fn next_piece(records: &mut Records) -> Result<Vec<Record>, BodyFault> {
    let mut piece = Vec::with_capacity(PIECE_LINES);
    let mut bytes = 0;
    while piece.len() < PIECE_LINES && bytes < PIECE_BYTES {
        let Some(record) = records.next()? else { break };
        bytes += record.bytes();
        piece.push(record);
    }
    Ok(piece)
}

struct Check<'a, P> {
    terms: &'a Terms,
    format: Format,
    columns: Columns,
    checked: Checked,
    part: Option<FillingPart>,
    put: P,
}

/// A part that is not full.
struct FillingPart {
    part: Part,
    body: Vec<u8>,
}

impl<P: FnMut(FullPart) -> bool> Check<'_, P> {
    fn take(&mut self, piece: Vec<Record>) -> Result<(), CheckFault> {
        if self.checked.lines + piece.len() as u64 > BATCH_LINES_MAX {
            return Err(CheckFault::TooManyLines);
        }
        let (terms, format, columns) = (self.terms, self.format, &self.columns);
        let read = |record: &Record| terms.read(record, format, columns);
        let results: Vec<_> = piece.par_iter().with_min_len(16).map(read).collect();
        let mut stored = Vec::with_capacity(results.len());
        for (record, result) in piece.iter().zip(results) {
            match result {
                Ok(resolved) => stored.extend(self.number(record.number, resolved)?),
                Err(refusal) => self.refuse(refusal),
            }
        }
        if self.checked.refused > 0 {
            self.part = None;
            self.checked.inline = None;
            return Ok(());
        }
        self.store(stored)
    }

    /// The line's places among the jobs, one a method, its warnings and its work.
    fn number(
        &mut self,
        number: u64,
        methods: Vec<Resolved>,
    ) -> Result<Vec<StoredLine>, CheckFault> {
        self.checked.lines += 1;
        let mut said: Vec<&Warning> = Vec::new();
        for warning in methods.iter().flat_map(|resolved| &resolved.warnings) {
            // What is doubtful about a prompt is so with every method.
            if !said.contains(&warning) {
                self.checked.warn(number, warning);
                said.push(warning);
            }
        }
        let named = methods.len() > 1;
        let mut lines: Vec<StoredLine> = Vec::with_capacity(methods.len() + 1);
        for resolved in methods {
            // A method with nothing to do may be the plain one.
            if lines.iter().any(|line| line.spec == resolved.first) {
                continue;
            }
            let method = resolved.first.method.name();
            let suffix = if named { format!("-{method}") } else { String::new() };
            lines.push(StoredLine {
                line: number,
                first: 0,
                spec: resolved.first,
                seeds: resolved.seeds.to_string(),
                accept: resolved.accept,
                compared_with: None,
                custom_id: resolved.custom_id.map(|id| suffixed(&id, &suffix)),
                labels: resolved.labels,
            });
        }
        let is_plain = |line: &StoredLine| line.spec.method == Method::None;
        if self.terms.compare && !lines.iter().any(is_plain) {
            let plain = lines.first().map(|line| StoredLine {
                spec: Spec { method: Method::None, ..line.spec.clone() },
                accept: None,
                custom_id: line.custom_id.as_deref().map(|id| suffixed(id, "-plain")),
                ..line.clone()
            });
            lines.extend(plain);
        }
        for line in &mut lines {
            line.first = self.checked.jobs;
            self.count(line)?;
        }
        // Each with the plain one, and that with the first of them.
        let plain = lines.iter().find(|line| is_plain(line)).map(|line| line.first);
        let guided = lines.iter().find(|line| !is_plain(line)).map(|line| line.first);
        for line in &mut lines {
            line.compared_with = if is_plain(line) { plain.and(guided) } else { plain };
        }
        Ok(lines)
    }

    fn count(&mut self, line: &StoredLine) -> Result<(), CheckFault> {
        let (checked, jobs) = (&mut self.checked, line.jobs());
        checked.jobs = checked.jobs.saturating_add(jobs);
        if checked.jobs > JOBS_MAX {
            return Err(CheckFault::TooManyJobs(line.line));
        }
        let spec = &line.spec;
        let work = f64::from(jobs)
            * f64::from(spec.steps)
            * f64::from(spec.width)
            * f64::from(spec.height);
        let passes = work * spec.method.passes() as f64 / Method::None.passes() as f64;
        match spec.method.max_iter_to_alter() {
            None => checked.work.plain += passes,
            Some(_) => checked.work.guided += work,
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: LineRefusal) {
        self.checked.lines += 1;
        self.checked.refused += 1;
        if self.checked.refusals.len() < REFUSALS_MAX {
            self.checked.refusals.push(refusal);
        }
    }

    fn store(&mut self, stored: Vec<StoredLine>) -> Result<(), CheckFault> {
        let jobs = self.checked.jobs;
        match &mut self.checked.inline {
            Some(inline) if jobs <= EXPRESS_JOBS_MAX => inline.extend(stored.iter().cloned()),
            inline => *inline = None,
        }
        let mut rest = stored.as_slice();
        while !rest.is_empty() {
            let filled = self.part.as_ref().map_or(0, |part| part.part.lines as usize);
            let (now, later) = rest.split_at(rest.len().min(PART_LINES_MAX - filled));
            self.fill(now, later.first().map_or(jobs, |line| line.first));
            if filled + now.len() == PART_LINES_MAX {
                self.end_part()?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Adds lines to the part; `end` is the place behind their last job.
    fn fill(&mut self, lines: &[StoredLine], end: u32) {
        let members: Vec<Vec<u8>> = lines.par_chunks(MEMBER_LINES).map(zip).collect();
        let first = lines.first().map_or(end, |line| line.first);
        let filling = self.part.get_or_insert_with(|| FillingPart::at(first));
        filling.part.lines += lines.len() as u32;
        filling.part.jobs = end - filling.part.first;
        members.iter().for_each(|member| filling.body.extend_from_slice(member));
    }

    fn end_part(&mut self) -> Result<(), CheckFault> {
        let Some(FillingPart { mut part, body }) = self.part.take() else { return Ok(()) };
        // A small batch needs none; that it is one is known only at its end.
        if self.checked.inline.is_some() {
            return Ok(());
        }
        part.sha256 = format!("{:x}", Sha256::digest(&body));
        part.bytes = body.len() as u64;
        let full = FullPart { part, body: body.into() };
        if (self.put)(full) { Ok(()) } else { Err(CheckFault::GivenUp) }
    }
}

impl FillingPart {
    fn at(first: u32) -> Self {
        let (key, sha256) = (String::new(), String::new());
        let part = Part { key, sha256, bytes: 0, lines: 0, first, jobs: 0 };
        Self { part, body: Vec::new() }
    }
}

impl Checked {
    fn warn(&mut self, line: u64, warning: &Warning) {
        match self.warnings.get_mut(warning.code()) {
            Some(count) => *count += 1,
            None => {
                self.warnings.insert(warning.code().to_owned(), 1);
            }
        }
        let lines = self.warned_lines.entry(warning.code().to_owned()).or_default();
        // A line can have two subjects that are not sure.
        if lines.len() < WARNED_LINES_MAX && lines.last() != Some(&line) {
            lines.push(line);
        }
        if self.examples.len() < REFUSALS_MAX {
            let (code, message) = (warning.code().to_owned(), warning.to_string());
            self.examples.push(LineWarning { line, code, message });
        }
    }
}

impl Terms {
    fn read(
        &self,
        record: &Record,
        format: Format,
        columns: &Columns,
    ) -> Result<Vec<Resolved>, LineRefusal> {
        let line = record.parse(format, columns)?.or(&self.defaults);
        let resolve = |line: Line| {
            let resolve = |line: &Line| line.resolve(&self.facts, &self.tokenizer);
            let resolved = self.memo.resolve(line, record.bytes(), resolve);
            resolved.map_err(|e| refusal(record.number, &e))
        };
        if self.methods.is_empty() {
            return Ok(vec![resolve(line)?]);
        }
        self.methods.iter().map(|method| resolve(line.clone().with_method(*method))).collect()
    }
}

/// Two images may not have one name.
fn suffixed(custom_id: &str, suffix: &str) -> String {
    let most = CUSTOM_ID_CHARS_MAX.saturating_sub(suffix.len());
    let kept: String = custom_id.chars().take(most).collect();
    kept + suffix
}

/// Lines as one gzip member: members in a row are one gzip file.
fn zip(lines: &[StoredLine]) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::with_capacity(lines.len() * 64), Compression::fast());
    let mut json = Vec::with_capacity(1024);
    for line in lines {
        json.clear();
        // Writing to memory cannot fail, and our documents have string keys and finite numbers.
        let _ = serde_json::to_writer(&mut json, line);
        json.push(b'\n');
        let _ = zip.write_all(&json);
    }
    zip.finish().unwrap_or_default()
}
