//! Options of a batch, checked.

use std::ops::RangeInclusive;

use excite_jobs::api::BatchOptions;
use excite_jobs::{Lane, Line, MAX_ATTEMPTS, MethodName, limits};

use super::error::AcceptError;

/// Options that can be used.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) name: Option<String>,
    pub(super) lane: Option<Lane>,
    pub(super) weight: u32,
    pub(super) max_attempts: u32,
    pub(super) defaults: Line,
    /// Each line is done with each of them; none: with its own.
    pub(super) methods: Vec<MethodName>,
}

impl Options {
    pub(super) fn of(options: &BatchOptions) -> Result<Self, AcceptError> {
        Ok(Self {
            name: options.name.as_deref().map(batch_name).transpose()?,
            lane: options.lane,
            weight: within("weight", options.weight.unwrap_or(1), &limits::WEIGHT)?,
            max_attempts: within(
                "max_attempts",
                options.max_attempts.unwrap_or(MAX_ATTEMPTS),
                &limits::ATTEMPTS,
            )?,
            defaults: defaults(options.defaults.as_deref())?,
            methods: methods(options.methods.as_deref())?,
        })
    }
}

/// The name, if a batch can have it.
pub(crate) fn batch_name(name: &str) -> Result<String, AcceptError> {
    let (max, chars) = (limits::BATCH_NAME_CHARS_MAX, name.chars().count());
    let wrong = |message: String, remedy: String| AcceptError::Option {
        field: "name".into(),
        code: "name",
        message,
        remedy,
    };
    if !(1..=max).contains(&chars) {
        let message = format!("it has {chars} characters");
        return Err(wrong(message, format!("Use 1 to {max} characters, or leave it out.")));
    }
    if name.chars().any(char::is_control) {
        let message = "it has a control character".into();
        return Err(wrong(message, "Write it in one line of plain text.".into()));
    }
    Ok(name.to_owned())
}

/// The number, if it is in its range.
pub(crate) fn within(
    field: &str,
    value: u32,
    range: &RangeInclusive<u32>,
) -> Result<u32, AcceptError> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(AcceptError::Option {
        field: field.into(),
        code: "out_of_range",
        message: format!("it is {value}"),
        remedy: format!("Set `{field}` to {} to {}.", range.start(), range.end()),
    })
}

fn methods(text: Option<&str>) -> Result<Vec<MethodName>, AcceptError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    MethodName::list(text).map_err(|message| AcceptError::Option {
        field: "methods".into(),
        code: "unknown_name",
        message,
        remedy: format!("Name some of: {}.", MethodName::NAMES.join(", ")),
    })
}

fn defaults(text: Option<&str>) -> Result<Line, AcceptError> {
    let Some(text) = text else { return Ok(Line::default()) };
    Line::parse(text).map_err(|error| {
        let (code, remedy) = error.advice();
        let field = match error.field() {
            "line" => "defaults".to_owned(),
            field => format!("defaults.{field}"),
        };
        AcceptError::Option { field, code, message: error.to_string(), remedy }
    })
}
