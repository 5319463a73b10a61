//! Jobs: listed, shown, dead and tried again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::id::{BatchId, JobId};
use crate::outcome::{Failure, Success};
use crate::retry::DeadReason;
use crate::sidecar::{HeatMap, StepLine};
use crate::spec::Spec;
use crate::state::State;
use crate::tries::{Accept, Try};

/// Answer of `GET /v1/batches/{id}/jobs`. Without `sort`: jobs that were concluded, in the order of
/// their conclusion, where a job may come twice and the later one counts. With it: each job once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// `after` of the next page.
    pub next: Option<String>,
}

/// A job that was concluded. Its image is at `/v1/batches/{batch}/jobs/{index}/image`, its sidecar
/// at `.../sidecar`, likewise `attention` and `trace`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobOutputs {
    /// The image, its thumbnail and its sidecar.
    pub image: bool,
    /// A picture of the subjects' maps.
    pub attention: bool,
    /// What every step recorded.
    pub trace: bool,
}

/// Answer of `GET /v1/dead?batch=`: dead jobs by batch, reason and code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadList {
    /// The groups, the newest batch first.
    pub groups: Vec<DeadGroup>,
}

/// Dead jobs of a batch that died of the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Jobs that are tried again.
    pub jobs: u64,
}
