//! What travels over HTTP between `excite`, the dashboard and a dispatcher.
//!
//! Errors are problem details (RFC 9457) with a stable `code` and a `remedy`.

mod batches;
mod jobs;
mod system;
mod uploads;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use batches::{
    BatchChange, BatchOptions, BatchPage, BatchProgressed, BatchState, BatchView, Deletion, DryRun,
    LineWarning, PromptWord, Prompted, SubjectsRequest, WarningView,
};
pub use jobs::{
    DeadGroup, DeadList, JobDetail, JobEvent, JobEventKind, JobOutputs, JobPage, JobRun, JobView,
    ReplayRequest, Replayed,
};
pub use system::{
    Broker, Check, Doctor, ModelList, Overview, Scale, Statistics, StatisticsPoint, WorkerCounts,
};
pub use uploads::{UploadCommit, UploadPart, UploadView};

/// An error (RFC 9457), `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: `code` says more than a link would.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of the HTTP status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong.
    pub detail: String,
    /// Stable, for programs.
    pub code: String,
    /// What to do.
    pub remedy: String,
    /// Lines that were refused, at most [`crate::limits::REFUSALS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<LineRefusal>,
    /// How many were refused in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LineRefusal {
    /// From 1.
    pub line: u64,
    /// What must change.
    pub field: String,
    /// Stable, for programs.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}
