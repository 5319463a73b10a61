//! Why a line was refused: field, value, remedy.

use excite_prompt::SubjectError;
use serde_json::Value;

use crate::seeds::SeedsError;
use crate::spec::SchedulerName;

/// Why a line was refused. On the wire: `{field, code, message, remedy}`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is no JSON object.
    #[error("the line is not a JSON object: {0}")]
    Json(String),
    /// The line is too long to be a job.
    #[error("the line has {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most a line may have.
        max: usize,
    },
    /// A field that nobody knows.
    #[error("there is no field `{field}`")]
    UnknownField {
        /// The field.
        field: String,
        /// The fields there are.
        known: String,
    },
    /// A name that nobody knows.
    #[error("`{field}` is {value}")]
    UnknownName {
        /// The field.
        field: String,
        /// The name, as JSON.
        value: String,
        /// The names there are.
        known: String,
    },
    /// A value of another type.
    #[error("`{field}`: {message}")]
    Value {
        /// The field.
        field: String,
        /// What was found and what is expected.
        message: String,
    },
    /// A number outside its range.
    #[error("`{field}` is {value}")]
    OutOfRange {
        /// The field.
        field: String,
        /// The number.
        value: String,
        /// The range.
        range: String,
    },
    /// No prompt, or one without a word.
    #[error("`{field}` is empty")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// A text that is too long.
    #[error("`{field}` has {length} {unit}, more than {max}")]
    TextTooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        length: usize,
        /// "bytes", "characters" or "entries".
        unit: &'static str,
        /// The most it may have.
        max: usize,
    },
    /// A character that cannot be in a text.
    #[error("`{field}` has the character {character} at byte {at}")]
    Character {
        /// The field.
        field: &'static str,
        /// The character, escaped.
        character: String,
        /// Where.
        at: usize,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A side that the model cannot make.
    #[error("`{field}` is {value}, not a multiple of {multiple}")]
    NotAMultiple {
        /// `width` or `height`.
        field: &'static str,
        /// Pixels.
        value: u32,
        /// What the model needs, in pixels.
        multiple: u32,
    },
    /// Seeds that cannot be read.
    #[error("`seeds`: {0}")]
    Seeds(SeedsError),
    /// Nobody named a scheduler, and the model's own is none of ours.
    #[error("the model's own scheduler is {own}, which is not supported")]
    NoScheduler {
        /// Class of the model's own.
        own: String,
    },
    /// `seed` beside `seeds`.
    #[error("the line has both `seed` and `seeds`")]
    SeedAndSeeds,
    /// A subject that is not in the prompt, or not clearly.
    #[error("`subjects`: {0}")]
    Subject(SubjectError),
    /// Words of a method's option that are not in the prompt, or not clearly.
    #[error("`{field}`: {source}")]
    Phrase {
        /// The field.
        field: &'static str,
        /// Why not.
        source: SubjectError,
    },
    /// More subjects than an image can have.
    #[error("`subjects` has {count} entries, more than {max}")]
    TooManySubjects {
        /// How many.
        count: usize,
        /// The most.
        max: usize,
    },
    /// The same tokens twice.
    #[error("`subjects` names `{word}` twice")]
    SubjectTwice {
        /// The word.
        word: String,
    },
    /// Options for a method that has none.
    #[error("`method_params` is given, but the method `{method}` has no options")]
    NoOptions {
        /// The method.
        method: &'static str,
    },
    /// The tokenizer failed.
    #[error("`prompt` cannot be encoded: {0}")]
    Tokenizer(String),
}

impl LineError {
    /// The field that must change.
    pub fn field(&self) -> &str {
        match self {
            Self::Json(_) | Self::TooLong { .. } => "line",
            Self::UnknownField { field, .. }
            | Self::UnknownName { field, .. }
            | Self::Value { field, .. }
            | Self::OutOfRange { field, .. } => field,
            Self::Empty { field }
            | Self::Phrase { field, .. }
            | Self::TextTooLong { field, .. }
            | Self::Character { field, .. }
            | Self::NotAMultiple { field, .. } => field,
            Self::Seeds(_) | Self::SeedAndSeeds => "seeds",
            Self::NoScheduler { .. } => "scheduler",
            Self::Subject(_) | Self::TooManySubjects { .. } | Self::SubjectTwice { .. } => {
                "subjects"
            }
            Self::NoOptions { .. } => "method_params",
            Self::Tokenizer(_) => "prompt",
        }
    }

    /// A stable code for programs and an imperative for people.
    pub fn advice(&self) -> (&'static str, String) {
        match self {
            Self::Json(_) => (
                "line_not_json",
                r#"Write one object a line, as in {"prompt": "a cat and a frog"}."#.into(),
            ),
            Self::TooLong { max, .. } => {
                ("line_too_long", format!("Write one job a line, of at most {max} bytes."))
            }
            Self::UnknownField { known, .. } => {
                ("unknown_field", format!("Remove it, or use one of: {known}."))
            }
            Self::UnknownName { known, .. } => ("unknown_name", format!("Use one of: {known}.")),
            Self::Value { field, .. } => {
                ("wrong_type", format!("Give `{field}` a value of the type that is named."))
            }
            Self::OutOfRange { field, range, .. } => {
                ("out_of_range", format!("Set `{field}` to {range}."))
            }
            Self::Empty { .. } => ("empty", "Say what the image shows.".into()),
            Self::TextTooLong { field, max, unit, .. } => {
                ("too_long", format!("Shorten `{field}` to {max} {unit}."))
            }
            Self::Character { allowed, .. } => ("character", format!("Use only {allowed}.")),
            Self::NotAMultiple { field, value, multiple } => {
                let (below, above) =
                    (value / multiple * multiple, value.next_multiple_of(*multiple));
                let choice = match below {
                    0 => above.to_string(),
                    below => format!("{below} or {above}"),
                };
                ("not_a_multiple", format!("Set `{field}` to {choice}."))
            }
            Self::Seeds(_) => ("seeds", "Write `0..4` (0 to 3), `0..=3` or `1,5,9`.".into()),
            Self::SeedAndSeeds => ("seed_and_seeds", "Keep one of them.".into()),
            Self::NoScheduler { .. } => (
                "no_scheduler",
                format!("Set `scheduler` to one of: {}.", SchedulerName::NAMES.join(", ")),
            ),
            Self::Subject(error) | Self::Phrase { source: error, .. } => error.advice(),
            Self::TooManySubjects { max, .. } => {
                ("too_many_subjects", format!("Name at most {max}."))
            }
            Self::SubjectTwice { .. } => ("subject_twice", "Name it once.".into()),
            Self::NoOptions { .. } => {
                ("no_options", "Remove `method_params`, or name another `method`.".into())
            }
            Self::Tokenizer(_) => ("tokenizer", "Write the prompt in plain words.".into()),
        }
    }

    pub(crate) fn unknown_name(field: &str, value: &Value, known: &str) -> Self {
        Self::UnknownName { field: field.into(), value: value.to_string(), known: known.into() }
    }

    /// From a serde error that knows where it happened.
    pub(crate) fn from_path(
        prefix: &str,
        error: &serde_path_to_error::Error<serde_json::Error>,
    ) -> Self {
        let path = error.path().to_string();
        let field = match (prefix, path.as_str()) {
            ("", path) => path.to_owned(),
            (prefix, ".") => prefix.to_owned(),
            (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        Self::Value { field, message: error.inner().to_string() }
    }
}
