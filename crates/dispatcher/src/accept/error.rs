//! Why an upload was not accepted.

use excite_jobs::api::LineRefusal;
use excite_jobs::store::StoreError;
use excite_jobs::{BatchId, limits};

use super::body::BodyFault;
use super::check::CheckFault;
use crate::header::HeaderError;

/// Why an upload was not accepted. Nothing of it is stored then.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// An option of the batch.
    #[error("`{field}`: {message}")]
    Option {
        /// The option.
        field: String,
        /// Stable, for programs.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// Nobody pushed the model.
    #[error("there is no model `{name}`")]
    UnknownModel {
        /// Its name.
        name: String,
        /// Names of those that are there.
        known: Vec<String>,
    },
    /// Lines are wrong.
    #[error("{refused} of {lines} lines were refused")]
    Lines {
        /// Lines in all.
        lines: u64,
        /// How many are wrong.
        refused: u64,
        /// The first of them.
        refusals: Vec<LineRefusal>,
    },
    /// No line at all.
    #[error("the upload has no line")]
    Empty,
    /// The bytes cannot be read to their end.
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// Too many lines.
    #[error("the upload has more than {} lines", limits::BATCH_LINES_MAX)]
    TooManyLines,
    /// Too many jobs.
    #[error("line {line} makes more than {} jobs of the batch", limits::JOBS_MAX)]
    TooManyJobs {
        /// The line that is too much.
        line: u64,
    },
    /// The lane is for small batches.
    #[error("the batch has {jobs} jobs, more than the express lane takes")]
    TooManyForExpress {
        /// Its jobs.
        jobs: u32,
    },
    /// The idempotency key made another batch.
    #[error("the idempotency key was used for something else: batch {batch}")]
    KeyReused {
        /// That batch.
        batch: BatchId,
    },
    /// As many uploads as can be checked at a time are being checked.
    #[error("too many uploads at a time")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document of the store cannot be read or changed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A fault of this program.
    #[error("checking the upload failed: {0}")]
    Internal(String),
}

impl From<CheckFault> for AcceptError {
    fn from(fault: CheckFault) -> Self {
        match fault {
            CheckFault::Body(fault) => Self::Body(fault),
            CheckFault::TooManyLines => Self::TooManyLines,
            CheckFault::TooManyJobs(line) => Self::TooManyJobs { line },
            CheckFault::GivenUp => Self::Internal("parts could not be stored".into()),
        }
    }
}
