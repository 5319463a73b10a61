//! The port to live progress: Redis, or memory within one process.
//!
//! Both run `conformance::progress`. It is a mirror: everything in it can be made again from store
//! and queue, nobody waits for it, and every caller goes on when it fails.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::done::Tally;
use crate::id::{BatchId, JobId};
use crate::outcome::Class;
use crate::state::State;

/// Seconds after which a worker that is not heard of is gone.
pub const WORKER_SECONDS: u64 = 30;
/// Seconds after which the status of a dispatcher that is not heard of is gone.
pub const STATUS_SECONDS: u64 = 15;
/// Seconds that the mirror of a finished batch is kept; then only the store knows it.
pub const FINISHED_SECONDS: u64 = 7 * 24 * 3600;
/// Seconds that a worker may take to notice that it should drain.
pub const DRAIN_SECONDS: u64 = 3600;
/// Points kept of the charts: six hours of them.
pub const POINTS_MAX: usize = 2160;
/// Events kept of a batch, roughly.
pub const EVENTS_MAX: usize = 10_000;

/// A failure of the mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the progress store failed: {0}")]
pub struct ProgressError(pub String);

/// What a worker says of itself, at most twice a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerBeat {
    /// [`crate::VERSION`].
    pub v: u32,
    /// Its name.
    pub worker: String,
    /// Which group of workers it belongs to.
    pub pool: String,
    /// Kind of machine.
    pub kind: String,
    /// Which queues it reads.
    pub class: String,
    /// What it does.
    pub state: WorkerState,
    /// Jobs it can have at a time.
    pub slots: u32,
    /// What runs.
    pub jobs: Vec<RunningJob>,
    /// `name@digest` of the models in its memory.
    pub models: Vec<String>,
    /// Bytes of them.
    pub model_bytes: u64,
    /// Bytes of the whole process, where the system tells.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// How many jobs run together at most, for each model and size of image of late.
    #[serde(default)]
    pub micro_batches: Vec<MicroBatchSize>,
    /// When it started, by its clock.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Program version.
    pub version: String,
}

/// How many jobs of a kind run together, as a worker chose it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MicroBatchSize {
    /// `name@digest`.
    pub model: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Jobs at most.
    pub jobs: u32,
    /// Why.
    pub reason: String,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Loads models, tests itself.
    Starting,
    /// Takes jobs.
    Ready,
    /// Takes none, because too many failed in a row.
    Broken,
    /// Finishes what runs, then stops.
    Draining,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunningJob {
    /// The job.
    pub job: JobId,
    /// Steps done.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Loss of the last step.
    pub loss: Option<f32>,
    /// Scores of the last step, in the order of the spec's subjects.
    pub scores: Vec<Option<f32>>,
}

/// What the mirror knows of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchProgress {
    /// Of the dispatcher that wrote it last: `<epoch>-<n>`.
    pub revision: String,
    /// Sums over its jobs.
    pub tally: Tally,
}

/// Changes of a batch since a revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The batch.
    pub batch: BatchId,
    /// What the mirror must be at for the change to fit.
    pub from: String,
    /// What it is at then.
    pub to: String,
    /// Jobs with new states.
    pub states: Vec<(u32, State)>,
    /// Sums after the change.
    pub tally: Tally,
}

/// Something that happened to a batch, for whoever watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEvent {
    /// When, by the dispatcher's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Sums after it.
    pub tally: Tally,
}

/// The leading dispatcher's numbers: what every replica answers with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`crate::VERSION`].
    pub v: u32,
    /// Who leads.
    pub dispatcher: String,
    /// Since which epoch.
    pub epoch: u64,
    /// When, by its clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// One entry a class.
    pub classes: Vec<ClassStatus>,
    /// Batches that are not finished.
    pub active_batches: u64,
    /// Images concluded a second, of late.
    #[serde(default)]
    pub images_per_second: f64,
    /// Dead jobs of batches that are not finished.
    #[serde(default)]
    pub dead_jobs: u64,
    /// The broker can be reached.
    #[serde(default)]
    pub connected: bool,
    /// The broker takes nothing.
    #[serde(default)]
    pub blocked: bool,
}

/// What happened in a stretch of time, and how things stood at its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its end, in seconds since 1970 by the leading dispatcher's clock.
    pub at: i64,
    /// How long it was.
    pub seconds: f64,
    /// Images concluded.
    pub images: u64,
    /// Those whose weakest subject is as strong as was asked for.
    pub accepted: u64,
    /// Failures, whatever followed.
    pub failures: BTreeMap<Class, u64>,
    /// Compute time of the images, in seconds.
    pub compute_seconds: f64,
    /// Jobs that are not terminal, paused batches left out.
    pub backlog_jobs: u64,
    /// Jobs that run.
    pub running_jobs: u64,
    /// Workers that take jobs.
    pub workers_ready: u64,
    /// Seconds until all is done; none if nobody works or nothing was measured.
    pub drain_seconds: Option<f64>,
}

/// What is left to do for the workers of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassStatus {
    /// The class.
    pub class: String,
    /// Jobs that are not terminal, paused batches left out.
    pub jobs: u64,
    /// Compute seconds that they take; none while nothing was measured.
    pub seconds: Option<f64>,
    /// The same by when it was accepted, the oldest first; empty while nothing was measured.
    #[serde(default)]
    pub due: Vec<Due>,
    /// Seconds until they are done with the workers that are ready; none if nobody works.
    pub drain_seconds: Option<f64>,
    /// Messages in the broker that nobody has.
    pub ready: u64,
    /// Seconds since the oldest unfinished batch that is not paused was accepted.
    pub oldest_seconds: Option<f64>,
}

/// What is left of batches that were accepted at about the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Due {
    /// Seconds since then.
    pub age_seconds: f64,
    /// Compute seconds that they take.
    pub seconds: f64,
}

/// The id of an event: two numbers, which grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct EventId(u64, u64);

impl EventId {
    fn parse(text: &str) -> Result<Self, ProgressError> {
        let parsed = text
            .split_once('-')
            .and_then(|(first, second)| Some(Self(first.parse().ok()?, second.parse().ok()?)));
        parsed.ok_or_else(|| ProgressError("this is no id of an event".to_owned()))
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// The mirror. Calls are bounded in time (250 ms by default) and never retried.
#[async_trait]
pub trait Progress: Send + Sync {
    /// A worker lives; forgotten after [`WORKER_SECONDS`].
    ///
    /// # Errors
    /// See [`ProgressError`], here and below.
    async fn beat(&self, beat: &WorkerBeat) -> Result<(), ProgressError>;

    /// A worker stopped: it is forgotten, and that it should drain.
    async fn gone(&self, worker: &str) -> Result<(), ProgressError>;

    /// The workers that live, by name.
    async fn workers(&self) -> Result<Vec<WorkerBeat>, ProgressError>;

    /// Sums of a batch; `None` if the mirror lost it.
    async fn batch(&self, batch: BatchId) -> Result<Option<BatchProgress>, ProgressError>;

    /// States of all jobs of a batch, 4 bits each: job 0 in the high half of byte 0.
    async fn states(&self, batch: BatchId) -> Result<Option<Vec<u8>>, ProgressError>;

    /// Applies a change if it fits; `false` if the mirror is at another revision, lost the batch, or
    /// has fewer jobs: then [`Progress::replace`] it. A call that failed may be made again.
    async fn update(&self, change: &Change) -> Result<bool, ProgressError>;

    /// Writes a batch whole.
    async fn replace(
        &self,
        batch: BatchId,
        revision: &str,
        states: &[u8],
        tally: &Tally,
    ) -> Result<(), ProgressError>;

    /// A batch is finished: forgotten after [`FINISHED_SECONDS`].
    async fn finished(&self, batch: BatchId) -> Result<(), ProgressError>;

    /// Forgets a batch now, with its events and whether it is cancelled.
    async fn forget(&self, batch: BatchId) -> Result<(), ProgressError>;

    /// Running jobs of a batch should stop, or need not any more.
    async fn set_cancelled(&self, batch: BatchId, cancelled: bool) -> Result<(), ProgressError>;

    /// Batches whose running jobs should stop.
    async fn cancelled(&self) -> Result<BTreeSet<BatchId>, ProgressError>;

    /// A worker should finish what runs and stop.
    async fn drain(&self, worker: &str) -> Result<(), ProgressError>;

    /// Whether it should.
    async fn is_drained(&self, worker: &str) -> Result<bool, ProgressError>;

    /// Tells whoever watches a batch.
    async fn event(&self, batch: BatchId, event: &BatchEvent) -> Result<(), ProgressError>;

    /// At most `count` events of a batch behind `after`, with their ids; from the first that is kept
    /// if `after` is no longer among them. What is no id (`<number>-<number>`) is an error.
    async fn events(
        &self,
        batch: BatchId,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<(String, BatchEvent)>, ProgressError>;

    /// The leading dispatcher's numbers; forgotten after [`STATUS_SECONDS`].
    async fn set_status(&self, status: &Status) -> Result<(), ProgressError>;

    /// The same, for all replicas.
    async fn status(&self) -> Result<Option<Status>, ProgressError>;

    /// Adds a point to the charts; the oldest behind [`POINTS_MAX`] go.
    async fn add_point(&self, point: &Point) -> Result<(), ProgressError>;

    /// The last `count` points, the oldest first.
    async fn points(&self, count: usize) -> Result<Vec<Point>, ProgressError>;
}

/// 4 bits a job, as [`Progress::states`] has them.
pub fn pack(states: impl IntoIterator<Item = State>) -> Vec<u8> {
    let mut packed = Vec::new();
    for (i, state) in states.into_iter().enumerate() {
        match packed.last_mut() {
            Some(last) if i % 2 == 1 => *last |= state.code(),
            _ => packed.push(state.code() << 4),
        }
    }
    packed
}

/// The state of a job among packed ones; waiting where they end.
pub fn unpack(packed: &[u8], index: u32) -> State {
    let byte = packed.get(index as usize / 2).copied().unwrap_or(0);
    let code = if index.is_multiple_of(2) { byte >> 4 } else { byte & 0xf };
    State::of_code(code).unwrap_or(State::Waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_states_read_back() {
        let states = [State::Dead, State::Running, State::Succeeded];
        let packed = pack(states);
        assert_eq!(packed, [0x52, 0x40]);
        for (i, state) in (0..).zip(states) {
            assert_eq!(unpack(&packed, i), state);
        }
        assert_eq!(unpack(&packed, 9), State::Waiting);
    }
}
