//! Prompts and jobs as they come in: arguments, a text file, a file of jobs (JSON or CSV), standard
//! input.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use excite_dispatcher::accept::csv_lines;
use excite_jobs::api::LineRefusal;
use excite_jobs::{Line, LineError, limits};

use crate::args::GenerateArgs;
use crate::fault::{Fault, Status};

/// Lines that one command takes; more is work for a cluster.
const LINES_MAX: usize = 100_000;

/// A line and where it came from.
pub(super) struct Input {
    /// In its file, from 1; `None` for an argument.
    pub(super) number: Option<usize>,
    pub(super) line: Result<Line, Fault>,
}

/// All lines, arguments first.
pub(super) fn lines(args: &GenerateArgs) -> Result<Vec<Input>, Fault> {
    let prompt = |text: &String| Line { prompt: Some(text.clone()), ..Line::default() };
    let mut inputs: Vec<Input> =
        args.prompts.iter().map(|text| Input { number: None, line: Ok(prompt(text)) }).collect();
    match args.file.as_deref() {
        Some(path) if path == Path::new("-") => {
            read(std::io::stdin().lock(), path, None, &mut inputs)?;
        }
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|e| Fault::io("read", path, &e))?;
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            if extension == "csv" {
                read_csv(file, &mut inputs)?;
                return some(args, inputs);
            }
            let jobs = extension == "jsonl" || extension == "ndjson" || extension == "json";
            read(BufReader::new(file), path, Some(jobs), &mut inputs)?;
        }
        None => {}
    }
    if let Some(set) = args.set {
        let lines = set.jsonl();
        let line = |line| Line::parse(line).map_err(Fault::from);
        inputs.extend(lines.lines().map(|text| Input { number: None, line: line(text) }));
    }
    some(args, inputs)
}

/// All lines, unless there are none.
fn some(args: &GenerateArgs, inputs: Vec<Input>) -> Result<Vec<Input>, Fault> {
    if inputs.is_empty() {
        let (message, remedy) = match &args.file {
            Some(path) => {
                (format!("{} has no prompt", path.display()), "Write one prompt or job a line.")
            }
            None => {
                ("no prompt was given".into(), "Name one in quotes, or a file of them with --file.")
            }
        };
        return Err(Fault::usage("no_prompt", message, remedy));
    }
    Ok(inputs)
}

/// Rows of a CSV file, as a cluster reads them.
fn read_csv(file: std::fs::File, inputs: &mut Vec<Input>) -> Result<(), Fault> {
    let fault = |refusal: LineRefusal| {
        let LineRefusal { field, code, message, remedy, .. } = refusal;
        let message = if field == "line" { message } else { format!("field {field}: {message}") };
        Fault::new(Status::Usage, &code, message, remedy)
    };
    let lines = csv_lines(file, LINES_MAX.saturating_sub(inputs.len())).map_err(fault)?;
    inputs.extend(lines.into_iter().map(|(number, line)| Input {
        number: usize::try_from(number).ok(),
        line: line.map_err(fault),
    }));
    Ok(())
}

/// `jobs`: whether lines are JSON; if unknown, a line that begins with a brace is.
fn read(
    input: impl BufRead,
    path: &Path,
    jobs: Option<bool>,
    inputs: &mut Vec<Input>,
) -> Result<(), Fault> {
    let mut input = input;
    for number in 1.. {
        let mut bytes = Vec::new();
        // One byte more than a line may have, so that a file without line breaks is no danger.
        let limit = limits::LINE_BYTES_MAX as u64 + 2;
        let count = (&mut input).take(limit).read_until(b'\n', &mut bytes);
        if count.map_err(|e| Fault::io("read", path, &e))? == 0 {
            return Ok(());
        }
        if bytes.len() as u64 == limit && bytes.last() != Some(&b'\n') {
            let (bytes, max) = (bytes.len(), limits::LINE_BYTES_MAX);
            return Err(Fault::from(LineError::TooLong { bytes, max }).at_line(number));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            let message = format!("line {number} of {} is not UTF-8 text", path.display());
            Fault::usage("not_utf8", message, "Save the file as UTF-8.")
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            continue;
        }
        if inputs.len() == LINES_MAX {
            let message = format!("more than {LINES_MAX} lines");
            return Err(Fault::usage("too_many_lines", message, "Split the file."));
        }
        let line = if jobs.unwrap_or_else(|| text.trim_start().starts_with('{')) {
            Line::parse(text).map_err(Fault::from)
        } else {
            Ok(Line { prompt: Some(text.to_owned()), ..Line::default() })
        };
        inputs.push(Input { number: Some(number), line });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(text: &[u8], jobs: Option<bool>) -> Result<Vec<(usize, Option<String>)>, Fault> {
        let mut inputs = Vec::new();
        read(text, Path::new("x"), jobs, &mut inputs)?;
        let prompt = |input: Input| (input.number.unwrap(), input.line.ok().and_then(|l| l.prompt));
        Ok(inputs.into_iter().map(prompt).collect())
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "\u{feff}a cat\r\n\n  \n{\"prompt\": \"a dog\"}\n{broken".as_bytes();
        let got = prompts(text, None).unwrap();
        let text_of = |t: &str| Some(t.to_owned());
        assert_eq!(got, [(1, text_of("a cat")), (4, text_of("a dog")), (5, None)]);
        let plain = prompts(text, Some(false)).unwrap();
        assert_eq!(plain[2], (5, text_of("{broken")));
        assert_eq!(prompts(text, Some(true)).unwrap()[0], (1, None));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(prompts(b"a\n\xff\n", None).unwrap_err().code, "not_utf8");
        let long = vec![b'x'; limits::LINE_BYTES_MAX + 10];
        let error = prompts(&long, None).unwrap_err();
        assert_eq!(error.code, "line_too_long");
        assert!(error.message.starts_with("line 1"), "{}", error.message);
    }
}
