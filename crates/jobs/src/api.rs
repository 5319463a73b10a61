//! What travels over HTTP between `excite` and a dispatcher.
//!
//! Errors are problem details (RFC 9457) with a stable `code` and a `remedy`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::done::Tally;
use crate::id::{BatchId, JobId};
use crate::job::Lane;
use crate::model_card::ModelCard;
use crate::outcome::{Class, Failure, Success};
use crate::retry::DeadReason;
use crate::sidecar::{HeatMap, StepLine};
use crate::spec::Spec;
use crate::state::State;
use crate::tries::{Accept, Try};

/// Query of `POST /v1/batches`; the body is lines: NDJSON (`application/x-ndjson`), CSV
/// (`text/csv`, first row names fields) or one prompt a line (`text/plain`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchOptions {
    /// What a person calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Without digest; the dispatcher's default if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// By the number of jobs if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// Share beside other batches; 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Tries of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Store a picture of the subjects' maps with each image.
    pub attention: bool,
    /// Store what every step recorded with each image.
    pub trace: bool,
    /// Make each image also plain, with the same seed.
    pub compare: bool,
    /// The batch whose jobs these are made anew, edited or with other seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<BatchId>,
    /// Check and count, accept nothing.
    pub dry_run: bool,
    /// A [`crate::Line`] in JSON: what lines say nothing of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<String>,
}

/// Answer to a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Warnings by code, with the number of lines.
    pub warnings: BTreeMap<String, u64>,
    /// The first lines with warnings, at most [`crate::limits::REFUSALS_MAX`].
    pub examples: Vec<LineWarning>,
}

/// A line that is taken otherwise than its writer may expect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineWarning {
    /// From 1.
    pub line: u64,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A batch as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchView {
    /// Its name.
    pub id: BatchId,
    /// What a person calls it.
    pub name: Option<String>,
    /// Counts changes; `If-Match` of a change.
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
    pub compare: bool,
    /// A picture of the subjects' maps is stored with each image.
    pub attention: bool,
    /// What every step recorded is stored with each image.
    pub trace: bool,
    /// The batch whose jobs these are made anew.
    pub parent: Option<BatchId>,
    /// Warnings by code, with the number of lines.
    pub warnings: BTreeMap<String, u64>,
    /// Sums over its jobs; none while the mirror is made again.
    pub tally: Option<Tally>,
    /// Compute seconds left; none while nothing was measured.
    pub gpu_seconds_left: Option<f64>,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPage {
    /// The batches.
    pub batches: Vec<BatchView>,
    /// `after` of the next page.
    pub next: Option<String>,
}

/// Body of `PATCH /v1/batches/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchChange {
    /// What a person calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Feed nothing more, or go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Share beside other batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Only `true`: what was cancelled stays so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<bool>,
}

/// Answer of `DELETE /v1/batches/{id}?dry_run=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Objects that go.
    pub objects: u64,
    /// Images among them.
    pub images: u64,
    /// `false` for a dry run.
    pub deleted: bool,
}

/// Answer of `GET /v1/batches/{id}/jobs`. Without `sort`: jobs that were concluded, in the order of
/// their conclusion, where a job may come twice and the later one counts. With it: each job once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// `after` of the next page.
    pub next: Option<String>,
}

/// A job that was concluded. Its image is at `/v1/batches/{batch}/jobs/{index}/image`, its sidecar
/// at `.../sidecar`, likewise `attention` and `trace`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// Place in the batch.
    pub index: u32,
    /// Line of the upload, from 1.
    pub line: u64,
    /// The person's own name for it.
    pub custom_id: Option<String>,
    /// What the person wants to find it by.
    pub labels: BTreeMap<String, String>,
    /// The prompt.
    pub prompt: String,
    /// The seed.
    pub seed: u32,
    /// What is done for the subjects.
    pub method: String,
    /// Where it is.
    pub state: State,
    /// Its try.
    pub attempt: u32,
    /// Who reported it.
    pub worker: Option<String>,
    /// When it was concluded; none if it is not.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub at: Option<OffsetDateTime>,
    /// The job that made the same image plain, or guided.
    #[serde(default)]
    pub compared_with: Option<u32>,
    /// Of a job that succeeded.
    pub success: Option<Success>,
    /// Of a job that failed.
    pub failure: Option<Failure>,
    /// Of a dead job.
    pub dead: Option<DeadReason>,
}

/// Answer of `GET /v1/batches/{id}/jobs/{index}`: all that is known of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub job: JobView,
    /// What the image is.
    pub spec: Spec,
    /// When an image is good enough.
    pub accept: Option<Accept>,
    /// Kind of machine that made it.
    pub kind: Option<String>,
    /// What happened to it, in order.
    pub timeline: Vec<JobEvent>,
    /// Where it is, while it runs.
    pub running: Option<JobRun>,
    /// What guidance saw, an entry a step.
    pub curve: Vec<StepLine>,
    /// The step that the scores are measured at.
    pub measured_at_step: Option<usize>,
    /// Where the model looked for each subject.
    pub maps: Vec<HeatMap>,
    /// Seeds that were tried.
    pub tries: Vec<Try>,
    /// What is stored.
    pub outputs: JobOutputs,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// When, by the clock of whoever noted it.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What.
    pub event: JobEventKind,
    /// Who.
    pub worker: Option<String>,
    /// Which step it came to or went on from.
    pub step: Option<u32>,
    /// Which try.
    pub attempt: Option<u32>,
    /// Why.
    pub message: Option<String>,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEventKind {
    /// Its batch was accepted.
    Submitted,
    /// A worker began.
    Started,
    /// A worker went on from a saved state.
    Resumed,
    /// Its worker had to stop.
    Preempted,
    /// It failed and is tried again.
    Retrying,
    /// Its image is stored.
    Stored,
    /// It was given up.
    Dead,
    /// Nobody wants it any more.
    Cancelled,
    /// A person wants it tried again.
    Replayed,
}

/// A job on a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRun {
    /// Which.
    pub worker: String,
    /// Steps done.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Loss of the last step.
    pub loss: Option<f32>,
    /// Scores of the last step.
    pub scores: Vec<Option<f32>>,
}

/// What is stored of a job, each under its own path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutputs {
    /// The image, its thumbnail and its sidecar.
    pub image: bool,
    /// A picture of the subjects' maps.
    pub attention: bool,
    /// What every step recorded.
    pub trace: bool,
}

/// Answer of `GET /v1/overview`, and the event `overview`: how everything is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// When, by the dispatcher's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Which dispatcher leads; none if nobody knows.
    pub leader: Option<String>,
    /// The broker as the leader sees it.
    pub broker: Broker,
    /// Images concluded a second, of late.
    pub images_per_second: f64,
    /// Jobs that are not terminal, paused batches left out.
    pub backlog_jobs: u64,
    /// Compute seconds that they take; none while nothing was measured.
    pub backlog_seconds: Option<f64>,
    /// Seconds until all is done; none if nobody works or nothing was measured.
    pub drain_seconds: Option<f64>,
    /// Seconds since the oldest unfinished batch that is not paused was accepted.
    pub oldest_seconds: Option<f64>,
    /// Batches that are not finished.
    pub active_batches: u64,
    /// Dead jobs of them.
    pub dead_jobs: u64,
    /// Failures of the last hour by class.
    pub failures: BTreeMap<Class, u64>,
    /// Workers.
    pub workers: WorkerCounts,
    /// Accepted images for each hour of a ready worker, over the last hour.
    pub accepted_per_worker_hour: Option<f64>,
    /// What the workers cost an hour; none where no price is set.
    pub cost_per_hour: Option<f64>,
    /// What an image costs, idle workers included, over the last hour.
    pub cost_per_image: Option<f64>,
    /// Of the price.
    pub currency: Option<String>,
}

/// The broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// It can be reached.
    pub connected: bool,
    /// It takes nothing.
    pub blocked: bool,
}

/// Workers, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounts {
    /// Those that take jobs.
    pub ready: u64,
    /// All.
    pub total: u64,
    /// As many as the scaling wants; none where nothing is scaled.
    pub desired: Option<u64>,
}

/// Answer of `GET /v1/statistics?minutes=`: what charts show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Seconds between two points, while a dispatcher leads.
    pub every_seconds: u64,
    /// The points, the oldest first.
    pub points: Vec<StatisticsPoint>,
}

/// A point of the charts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatisticsPoint {
    /// In seconds since 1970.
    pub at: i64,
    /// Images concluded a second.
    pub images_per_second: f64,
    /// Failures a second, whatever followed.
    pub failures_per_second: f64,
    /// Jobs that are not terminal.
    pub backlog_jobs: u64,
    /// Jobs that run.
    pub running_jobs: u64,
    /// Workers that take jobs.
    pub workers_ready: u64,
    /// Seconds until all is done; none if nobody works or nothing was measured.
    pub drain_seconds: Option<f64>,
}

/// The event `progress` of `GET /v1/batches/{id}/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Answer of `GET /v1/dead?batch=`: dead jobs by batch, reason and code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadList {
    /// The groups, the newest batch first.
    pub groups: Vec<DeadGroup>,
}

/// Dead jobs of a batch that died of the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadGroup {
    /// The batch.
    pub batch: BatchId,
    /// Why they were given up.
    pub reason: DeadReason,
    /// Code of the last failure.
    pub code: String,
    /// Message of one of them.
    pub example: String,
    /// How many.
    pub jobs: u64,
    /// The first of them, at most 20.
    pub indices: Vec<u32>,
}

/// Body of `POST /v1/dead/replay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The batch.
    pub batch: BatchId,
    /// Only those that died of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Only those with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Only these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indices: Option<Vec<u32>>,
}

/// Answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Jobs that are tried again.
    pub jobs: u64,
}

/// Answer of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// Their current cards. `PUT /v1/models/{name}` takes a [`ModelCard`] once its files are there:
    /// `HEAD` and `PUT /v1/models/{name}/files/{sha256}`.
    pub models: Vec<ModelCard>,
}

/// Answer of `GET /v1/scale?pool=`, for KEDA's `metrics-api`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Workers wanted.
    pub desired: u32,
    /// How that number came about.
    pub reason: String,
}

/// Answer of `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Doctor {
    /// Whether all checks passed.
    pub ok: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, if it is not.
    pub remedy: Option<String>,
}

/// An error (RFC 9457), `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
