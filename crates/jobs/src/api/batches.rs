//! Batches: submitted, listed, changed, watched.

use std::collections::BTreeMap;

use excite_prompt::Subject;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::done::Tally;
use crate::id::BatchId;
use crate::job::Lane;

/// Query of `POST /v1/batches`; the body is lines: NDJSON (`application/x-ndjson`), CSV
/// (`text/csv`, first row names fields), one prompt a line (`text/plain`), or a matrix
/// (`application/json`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BatchOptions {
    /// What a person calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, min_length = 1, max_length = 128, example = "first")]
    pub name: Option<String>,
    /// Its name, or `name@digest` for files that are not its current ones any more; the
    /// dispatcher's default if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, min_length = 1)]
    pub model: Option<String>,
    /// By the number of jobs if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub lane: Option<Lane>,
    /// Share beside other batches; 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, minimum = 1, maximum = 100)]
    pub weight: Option<u32>,
    /// Tries of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, minimum = 1, maximum = 20)]
    pub max_attempts: Option<u32>,
    /// Store a picture of the subjects' maps with each image.
    pub attention: bool,
    /// Store what every step recorded with each image.
    pub trace: bool,
    /// Make each image also plain, with the same seed.
    pub compare: bool,
    /// Make each image with each of these methods, whatever its line says: `none,composable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, min_length = 1, example = "none,attend_and_excite")]
    pub methods: Option<String>,
    /// The batch whose jobs these are made anew, edited or with other seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub parent: Option<BatchId>,
    /// Check and count, accept nothing.
    pub dry_run: bool,
    /// A [`crate::Line`] in JSON: what lines say nothing of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, example = "{\"steps\":8}")]
    pub defaults: Option<String>,
}

/// Answer to a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRun {
    /// Lines.
    pub lines: u64,
    /// Images.
    pub jobs: u64,
    /// `name@digest`.
    pub model: String,
    /// Compute seconds, from measured ones; none while nothing was measured for the model.
    pub gpu_seconds: Option<f64>,
    /// Seconds until done behind what is queued, with the workers that are ready now; none if
    /// nobody works or nothing was measured.
    pub drain_seconds: Option<f64>,
    /// What the compute seconds cost; none where no price is set.
    #[serde(default)]
    pub price: Option<f64>,
    /// Of the price.
    #[serde(default)]
    pub currency: Option<String>,
    /// Warnings by code, with the number of lines.
    pub warnings: BTreeMap<String, u64>,
    /// The lines of each warning, the first [`crate::limits::WARNED_LINES_MAX`] of them: rows in
    /// which no subject was found, or one that a person had better look at.
    #[serde(default)]
    pub warned_lines: BTreeMap<String, Vec<u64>>,
    /// What is said of the first lines with warnings, at most [`crate::limits::REFUSALS_MAX`].
    pub examples: Vec<LineWarning>,
}

/// Body of `POST /v1/subjects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectsRequest {
    /// The prompt.
    #[schema(min_length = 1, max_length = 4096, pattern = "\\S")]
    pub prompt: String,
}

/// Answer to it: what would be found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Prompted {
    /// As a line would name them.
    pub subjects: Vec<Subject>,
    /// A person had better look at them.
    pub unsure: bool,
    /// The words of the prompt that the model sees whole.
    pub words: Vec<PromptWord>,
    /// What is not sure.
    pub warnings: Vec<WarningView>,
}

/// A word of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptWord {
    /// In lower case.
    pub word: String,
    /// Its positions among the 77 tokens.
    pub indices: Vec<u32>,
    /// Where it begins, in UTF-16 units.
    pub start: usize,
    /// Where it ends, in UTF-16 units.
    pub end: usize,
}

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WarningView {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A line that is taken otherwise than its writer may expect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LineWarning {
    /// From 1.
    pub line: u64,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A batch as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchView {
    /// Its name.
    pub id: BatchId,
    /// What a person calls it.
    pub name: Option<String>,
    /// Counts changes; `If-Match` of a change.
    #[serde(default)]
    pub revision: u64,
    /// Where it is.
    pub state: BatchState,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its last job was concluded.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub finished_at: Option<OffsetDateTime>,
    /// Lines.
    pub lines: u64,
    /// Jobs.
    pub jobs: u32,
    /// `name@digest`.
    pub model: String,
    /// Which workers.
    pub class: String,
    /// Which queue.
    pub lane: Lane,
    /// Share beside other batches.
    pub weight: u32,
    /// Each image is also made plain, with the same seed.
    #[serde(default)]
    pub compare: bool,
    /// A picture of the subjects' maps is stored with each image.
    #[serde(default)]
    pub attention: bool,
    /// What every step recorded is stored with each image.
    #[serde(default)]
    pub trace: bool,
    /// The batch whose jobs these are made anew.
    #[serde(default)]
    pub parent: Option<BatchId>,
    /// Warnings by code, with the number of lines.
    pub warnings: BTreeMap<String, u64>,
    /// Sums over its jobs; none while the mirror is made again.
    pub tally: Option<Tally>,
    /// Compute seconds left; none while nothing was measured.
    pub gpu_seconds_left: Option<f64>,
}

/// Where a batch is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Its jobs are fed and run.
    Active,
    /// Nothing more is fed.
    Paused,
    /// Every job is terminal.
    Finished,
    /// Nothing more is made of it.
    Cancelled,
}

crate::spec::names!(BatchState {
    Active = "active",
    Paused = "paused",
    Finished = "finished",
    Cancelled = "cancelled",
});

/// Answer of `GET /v1/batches?after=&limit=`: the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchPage {
    /// The batches.
    pub batches: Vec<BatchView>,
    /// `after` of the next page.
    pub next: Option<String>,
}

/// Body of `PATCH /v1/batches/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchChange {
    /// What a person calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// Feed nothing more, or go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Share beside other batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub weight: Option<u32>,
    /// Only `true`: what was cancelled stays so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<bool>,
}

/// Answer of `DELETE /v1/batches/{id}?dry_run=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deletion {
    /// Objects that go.
    pub objects: u64,
    /// Images among them.
    pub images: u64,
    /// `false` for a dry run.
    pub deleted: bool,
}

/// The event `progress` of `GET /v1/batches/{id}/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchProgressed {
    /// When, by the dispatcher's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Sums after it.
    pub tally: Tally,
    /// Where the batch is.
    pub state: BatchState,
    /// Counts changes of the batch.
    pub revision: u64,
}
