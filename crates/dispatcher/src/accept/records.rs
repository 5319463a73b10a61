//! An upload as lines: NDJSON, CSV, or one prompt a line; each with its number, read one after
//! another, so that memory does not grow with the upload.

use std::io::{BufRead, BufReader, Read};

use csv::ByteRecord;
use excite_jobs::api::LineRefusal;
use excite_jobs::limits::{BATCH_BYTES_MAX, LINE_BYTES_MAX};
use excite_jobs::{FIELDS, Line, LineError};
use serde_json::{Map, Number, Value};
use sha2::Sha256;

use super::body::{BodyFault, Counted};
use super::matrix::Matrix;

/// What a row of a CSV file may take: quotes double, and the reader reads ahead.
const ROW_BYTES_MAX: u64 = 2 * LINE_BYTES_MAX as u64;
/// Columns of a CSV file: every field, and as many labels as a line may have, with room.
const COLUMNS_MAX: usize = 100;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// The first row names the fields.
    Csv,
    /// One prompt a line.
    Text,
    /// Combinations of values.
    Matrix,
}

impl Format {
    /// Media types that an upload may have.
    pub const MEDIA_TYPES: &str =
        "`application/x-ndjson`, `text/csv`, `text/plain` or `application/json` (a matrix)";

    /// The format of a media type; parameters do not matter.
    pub fn of(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/jsonlines" => Some(Self::Json),
            "text/csv" => Some(Self::Csv),
            "text/plain" => Some(Self::Text),
            "application/json" => Some(Self::Matrix),
            _ => None,
        }
    }

    /// How it is named here, of all its media types.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Text => "text/plain",
            Self::Matrix => "application/json",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Text => "text",
            Self::Matrix => "matrix",
        }
    }
}

/// A line as it came.
#[derive(Debug)]
pub(super) struct Record {
    /// From 1.
    pub(super) number: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    TooLong(usize),
    Row(ByteRecord),
}

/// Why nothing can be read of an upload.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum RecordFault {
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// The first row of a CSV file names no fields.
    #[error("{}", .0.message)]
    Columns(LineRefusal),
}

/// A column of a CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Field(String),
    Label(String),
}

/// Reads lines.
pub(super) enum Records {
    Lines { input: BufReader<Counted>, number: u64, format: Format },
    Rows { input: Box<csv::Reader<Counted>>, columns: Columns },
    Matrix { input: Counted, matrix: Matrix },
}

/// What the columns of a CSV file are; none for other formats.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns(Vec<Column>);

impl Records {
    /// Begins to read; of a CSV file the first row.
    pub(super) fn new(format: Format, mut input: Counted) -> Result<Self, RecordFault> {
        if format == Format::Matrix {
            let matrix = Matrix::read(&mut input)?.map_err(RecordFault::Columns)?;
            return Ok(Self::Matrix { input, matrix });
        }
        if format != Format::Csv {
            let input = BufReader::with_capacity(1 << 16, input);
            return Ok(Self::Lines { input, number: 0, format });
        }
        let mut input = csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .buffer_capacity(1 << 16)
            .from_reader(input);
        let mut first = ByteRecord::new();
        read_row(&mut input, &mut first)?;
        let columns = columns(&first).map_err(RecordFault::Columns)?;
        Ok(Self::Rows { input: Box::new(input), columns })
    }

    /// How to read what it gives.
    pub(super) fn reading(&self) -> (Format, Columns) {
        match self {
            Self::Lines { format, .. } => (*format, Columns::default()),
            Self::Rows { columns, .. } => (Format::Csv, columns.clone()),
            Self::Matrix { .. } => (Format::Matrix, Columns::default()),
        }
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Result<Option<Record>, BodyFault> {
        match self {
            Self::Lines { input, number, .. } => {
                next_line(input, number).map_err(|e| BodyFault::from_io(&e))
            }
            Self::Rows { input, .. } => {
                let mut row = ByteRecord::new();
                if !read_row(input, &mut row)? {
                    return Ok(None);
                }
                let number = row.position().map_or(0, csv::Position::line);
                Ok(Some(Record { number, content: Content::Row(row) }))
            }
            Self::Matrix { matrix, .. } => Ok(matrix.next().map(|(number, line)| Record {
                number,
                content: Content::Bytes(line.into_bytes()),
            })),
        }
    }

    /// Bytes and SHA-256 of what was read.
    pub(super) fn finish(self) -> (u64, String) {
        let counted = match self {
            Self::Lines { input, .. } => input.into_inner(),
            Self::Rows { input, .. } => input.into_inner(),
            Self::Matrix { input, .. } => input,
        };
        (counted.count(), counted.sha256())
    }
}

fn next_line(input: &mut BufReader<Counted>, number: &mut u64) -> std::io::Result<Option<Record>> {
    // One byte more than a line may have with its end, so that a file without any is no danger.
    let limit = LINE_BYTES_MAX + 2;
    loop {
        let mut bytes = Vec::with_capacity(256);
        if input.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        *number += 1;
        let record = |content| Ok(Some(Record { number: *number, content }));
        if bytes.len() > limit && bytes.last() != Some(&b'\n') {
            let length = bytes.len() + skip_line(input)?;
            return record(Content::TooLong(length));
        }
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if *number == 1 && bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(..3);
        }
        if !bytes.trim_ascii().is_empty() {
            return record(Content::Bytes(bytes));
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> std::io::Result<usize> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |end| end + 1);
        input.consume(count);
        skipped += count;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

fn read_row(input: &mut csv::Reader<Counted>, row: &mut ByteRecord) -> Result<bool, BodyFault> {
    input.get_mut().row(ROW_BYTES_MAX);
    input.read_byte_record(row).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => BodyFault::from_io(&error),
        // Nothing else can go wrong with bytes and rows of any length.
        other => BodyFault::Cut(format!("{other:?}")),
    })
}

fn columns(first: &ByteRecord) -> Result<Columns, LineRefusal> {
    let refused = |code: &str, message: String, remedy: String| LineRefusal {
        line: 1,
        field: "columns".into(),
        code: code.into(),
        message,
        remedy,
    };
    let known = format!("{}, labels.NAME", FIELDS.join(", "));
    if first.len() > COLUMNS_MAX {
        let message = format!("the first row has {} columns, more than {COLUMNS_MAX}", first.len());
        return Err(refused("too_many_columns", message, format!("Use only: {known}.")));
    }
    let mut columns = Vec::new();
    for cell in first {
        let cell = cell.strip_prefix("\u{feff}".as_bytes()).unwrap_or(cell);
        let name = String::from_utf8_lossy(cell).trim().to_owned();
        let column = match name.strip_prefix("labels.") {
            Some(label) => Column::Label(label.to_owned()),
            None if FIELDS.contains(&name.as_str()) && name != "labels" => Column::Field(name),
            None => {
                let message = format!("the first row names `{name}`, which is no field");
                let remedy = format!("Name the columns in the first row; use only: {known}.");
                return Err(refused("unknown_field", message, remedy));
            }
        };
        if columns.contains(&column) {
            let message = "the first row names a column twice".into();
            return Err(refused("column_twice", message, "Keep one of them.".into()));
        }
        columns.push(column);
    }
    Ok(Columns(columns))
}

/// A line with its number, or why it is refused.
pub type NumberedLine = (u64, Result<Line, LineRefusal>);

/// The rows of a CSV file, for those who read one themselves; rows are numbered as in the file.
///
/// # Errors
/// What is wrong with the first row or the file as a whole, for people, with the remedy.
pub fn csv_lines(
    input: impl Read + Send + 'static,
    lines_max: usize,
) -> Result<Vec<NumberedLine>, LineRefusal> {
    let whole = |message: String, remedy: String| LineRefusal {
        line: 1,
        field: "line".into(),
        code: "file".into(),
        message,
        remedy,
    };
    let failed = |fault: &BodyFault| whole(fault.to_string(), "Look at the file.".into());
    let input = Counted::new(input, false, Sha256::default(), BATCH_BYTES_MAX);
    let mut records = Records::new(Format::Csv, input).map_err(|fault| match fault {
        RecordFault::Body(fault) => failed(&fault),
        RecordFault::Columns(refusal) => refusal,
    })?;
    let (format, columns) = records.reading();
    let mut lines = Vec::new();
    while let Some(record) = records.next().map_err(|fault| failed(&fault))? {
        if lines.len() == lines_max {
            return Err(whole(format!("more than {lines_max} lines"), "Split the file.".into()));
        }
        lines.push((record.number, record.parse(format, &columns)));
    }
    Ok(lines)
}

impl Record {
    /// Its length, roughly.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = match &self.content {
            Content::Bytes(bytes) => bytes.len(),
            Content::TooLong(_) => 0,
            Content::Row(row) => row.as_slice().len(),
        };
        bytes as u64
    }

    /// What the line says.
    pub(super) fn parse(&self, format: Format, columns: &Columns) -> Result<Line, LineRefusal> {
        let refused = |error: &LineError| refusal(self.number, error);
        match &self.content {
            Content::TooLong(bytes) => {
                Err(refused(&LineError::TooLong { bytes: *bytes, max: LINE_BYTES_MAX }))
            }
            Content::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| not_utf8(self.number))?;
                match format {
                    Format::Text => {
                        Ok(Line { prompt: Some(text.trim().to_owned()), ..Line::default() })
                    }
                    Format::Json | Format::Csv | Format::Matrix => {
                        Line::parse(text).map_err(|e| refused(&e))
                    }
                }
            }
            Content::Row(row) => {
                let object = columns.object(self.number, row)?;
                Line::parse(&Value::Object(object).to_string()).map_err(|e| refused(&e))
            }
        }
    }
}

impl Columns {
    fn object(&self, number: u64, row: &ByteRecord) -> Result<Map<String, Value>, LineRefusal> {
        if row.len() != self.0.len() {
            return Err(LineRefusal {
                line: number,
                field: "line".into(),
                code: "columns".into(),
                message: format!("the row has {} cells, not {}", row.len(), self.0.len()),
                remedy: "Give each row as many cells as the first one; quote cells with commas."
                    .into(),
            });
        }
        let mut object = Map::new();
        let mut labels = Map::new();
        for (column, cell) in self.0.iter().zip(row) {
            let text = std::str::from_utf8(cell).map_err(|_| not_utf8(number))?;
            if text.trim().is_empty() {
                continue;
            }
            match column {
                Column::Label(name) => labels.insert(name.clone(), text.into()),
                Column::Field(name) => object.insert(name.clone(), value(name, text)),
            };
        }
        if !labels.is_empty() {
            object.insert("labels".into(), labels.into());
        }
        Ok(object)
    }
}

/// What is no number or no JSON stays text: the check of the line names the field then.
fn value(field: &str, text: &str) -> Value {
    let text = text.trim();
    match field {
        "subjects" => text.split(';').map(str::trim).filter(|word| !word.is_empty()).collect(),
        "seed" | "width" | "height" | "steps" | "guidance_scale" => {
            text.parse::<Number>().map_or_else(|_| text.into(), Value::Number)
        }
        "method_params" | "accept" => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

/// A refused line as it travels.
pub(super) fn refusal(number: u64, error: &LineError) -> LineRefusal {
    let (code, remedy) = error.advice();
    LineRefusal {
        line: number,
        field: error.field().to_owned(),
        code: code.to_owned(),
        message: error.to_string(),
        remedy,
    }
}

fn not_utf8(number: u64) -> LineRefusal {
    LineRefusal {
        line: number,
        field: "line".into(),
        code: "not_utf8".into(),
        message: "the line is not UTF-8 text".into(),
        remedy: "Save the file as UTF-8.".into(),
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::SubjectRequest;

    use super::*;

    type Numbered = (u64, Result<Line, String>);

    fn read(format: Format, body: &[u8]) -> Result<Vec<Numbered>, RecordFault> {
        let input = std::io::Cursor::new(body.to_vec());
        let counted = Counted::new(input, false, Sha256::default(), 1 << 20);
        let mut records = Records::new(format, counted)?;
        let (format, columns) = records.reading();
        let mut all = Vec::new();
        while let Some(record) = records.next()? {
            all.push((record.number, record.parse(format, &columns).map_err(|r| r.code)));
        }
        Ok(all)
    }

    fn prompt(text: &str) -> Result<Line, String> {
        Ok(Line { prompt: Some(text.into()), ..Line::default() })
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "\u{feff}a cat\r\n\n  \na dog".as_bytes();
        assert_eq!(read(Format::Text, text).unwrap(), [(1, prompt("a cat")), (4, prompt("a dog"))]);
        let json = b"{\"prompt\": \"a cat\"}\n\nnope\n\xff\n";
        let got = read(Format::Json, json).unwrap();
        let want =
            [(1, prompt("a cat")), (3, Err("line_not_json".into())), (4, Err("not_utf8".into()))];
        assert_eq!(got, want);
    }

    #[test]
    fn a_line_without_end_is_refused_and_the_next_one_read() {
        let mut body = vec![b'x'; LINE_BYTES_MAX + 500];
        body.extend_from_slice(b"\na cat\n");
        let got = read(Format::Text, &body).unwrap();
        assert_eq!(got, [(1, Err("line_too_long".into())), (2, prompt("a cat"))]);
    }

    #[test]
    fn rows_are_lines() {
        let csv = "prompt,subjects,seed,labels.set,method_params,accept\n\
            \"a cat, and\na frog\",cat; frog,7,a b,\"{\"\"preset\"\": \"\"paper\"\"}\",\"{\"\"min_score\"\": 0.5}\"\n\
            a dog,,x,,,\n\
            a dog\n";
        let got = read(Format::Csv, csv.as_bytes()).unwrap();
        let line = got[0].1.as_ref().unwrap();
        assert_eq!((got[0].0, line.prompt.as_deref()), (2, Some("a cat, and\na frog")));
        let word = |text: &str| SubjectRequest::Word(text.into());
        assert_eq!(line.subjects, Some(vec![word("cat"), word("frog")]));
        assert_eq!((line.seed, line.labels.as_ref().unwrap()["set"].as_str()), (Some(7), "a b"));
        assert_eq!(line.method_params.as_ref().unwrap()["preset"], "paper");
        assert_eq!(line.accept.map(|accept| accept.min_score), Some(0.5));
        assert_eq!(got[1], (4, Err("wrong_type".into())));
        assert_eq!(got[2], (5, Err("columns".into())));
    }

    #[test]
    fn wrong_columns_and_endless_rows_end_it() {
        let columns = |csv: &str| match read(Format::Csv, csv.as_bytes()) {
            Err(RecordFault::Columns(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(columns("prompt,promt\n"), "unknown_field");
        assert_eq!(columns("a cat and a frog\n"), "unknown_field");
        assert_eq!(columns("prompt,prompt\n"), "column_twice");
        let endless = format!("prompt\n\"{}", "x".repeat(1 << 19));
        let got = read(Format::Csv, endless.as_bytes());
        assert!(matches!(got, Err(RecordFault::Body(BodyFault::RowTooLong { .. }))), "{got:?}");
    }
}
