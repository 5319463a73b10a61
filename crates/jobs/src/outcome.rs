//! What a worker says of a job.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::id::{BatchId, JobId};
use crate::job::{About, Job, VERSION};
use crate::spec::names;

/// What became of one lease of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`VERSION`].
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// Its batch.
    pub batch: BatchId,
    /// Its place in the batch.
    pub index: u32,
    /// Who says so.
    pub worker: String,
    /// Of which publication.
    pub lease: u32,
    /// Of which try.
    pub attempt: u32,
    /// When, by the worker's clock: shown, never compared.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The run that led to it; none if nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// What happened.
    #[serde(flatten)]
    pub kind: OutcomeKind,
}

/// When and where in its steps a worker began to run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When, by the worker's clock: shown, never compared.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// The first step that it made; more than 0 where it went on from a saved state.
    pub from_step: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OutcomeKind {
    /// It runs. May get lost.
    Started,
    /// Image and sidecar are stored.
    Succeeded(Success),
    /// It failed.
    Failed(Failure),
    /// The worker had to stop; its work is kept.
    Preempted {
        /// Key of the checkpoint; none if there was nothing to keep.
        checkpoint: Option<String>,
        /// Steps done.
        step: u32,
    },
    /// Its batch was cancelled before it was done.
    Cancelled,
}

/// What is known of a stored image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Success {
    /// Key of the image.
    pub key: String,
    /// Of the PNG file, in hexadecimal.
    pub sha256: String,
    /// Bytes of the PNG file.
    #[serde(default)]
    pub bytes: u64,
    /// Compute time: its share of the micro-batch's, by the steps that were made for it.
    pub seconds: f64,
    /// Steps of the image, without those of seeds that were not kept.
    pub steps: u32,
    /// One minus the least score; none without subjects.
    pub loss: Option<f32>,
    /// In the order of the spec's subjects.
    pub scores: Vec<Option<f32>>,
    /// The subject with the least score.
    #[serde(default)]
    pub weakest: Option<String>,
    /// Seeds tried.
    #[serde(default = "one")]
    pub tries: u32,
    /// The result was there already.
    #[serde(default)]
    pub found: bool,
    /// The weakest subject is as strong as the job asked for.
    #[serde(default = "yes")]
    pub accepted: bool,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Decides what follows.
    pub class: Class,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// What the server that failed asked for.
    #[serde(default)]
    pub retry_after_seconds: Option<f64>,
}

impl Failure {
    /// A failure; a long message is cut.
    pub fn new(class: Class, code: &str, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        let mut end = crate::limits::FAILURE_BYTES_MAX.min(message.len());
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        Self { class, code: code.into(), message, retry_after_seconds: None }
    }
}

/// A kind of failure.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The job itself is wrong: trying again cannot help.
    Invalid,
    /// Something else was wrong, and may be right again.
    Transient,
    /// It does not fit into the worker's memory.
    Capacity,
    /// It took too long, or stopped moving.
    Timeout,
    /// Its workers died.
    Lost,
    /// A later version wrote it.
    Incompatible,
    /// Its batch was cancelled.
    Cancelled,
}

names!(Class {
    Invalid = "invalid",
    Transient = "transient",
    Capacity = "capacity",
    Timeout = "timeout",
    Lost = "lost",
    Incompatible = "incompatible",
    Cancelled = "cancelled",
});

impl Outcome {
    /// What `worker` says of a job.
    pub fn of(job: &Job, worker: &str, kind: OutcomeKind) -> Self {
        let about = About { job: job.id, lease: job.lease, attempt: job.attempt };
        Self::about(about, worker, kind)
    }

    /// What `worker` says of a job that it could not read whole.
    pub fn about(about: About, worker: &str, kind: OutcomeKind) -> Self {
        Self {
            v: VERSION,
            job: about.job,
            batch: about.job.batch,
            index: about.job.index,
            worker: worker.into(),
            lease: about.lease,
            attempt: about.attempt,
            at: OffsetDateTime::now_utc(),
            run: None,
            kind,
        }
    }
}

impl OutcomeKind {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded(_) => "succeeded",
            Self::Failed(_) => "failed",
            Self::Preempted { .. } => "preempted",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::JOB;

    #[test]
    fn the_written_form_does_not_change_unnoticed() {
        let job = Job::parse(JOB.as_bytes()).unwrap();
        let failure = Failure::new(Class::Transient, "store", "503");
        let mut outcome = Outcome::of(&job, "w-1", OutcomeKind::Failed(failure));
        outcome.at = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let want = concat!(
            r#"{"v":1,"job":"0192d7a0-0000-7000-8000-000000000001-00000007","#,
            r#""batch":"0192d7a0-0000-7000-8000-000000000001","index":7,"worker":"w-1","lease":1,"#,
            r#""attempt":1,"at":"2026-01-02T03:04:05Z","kind":"failed","class":"transient","#,
            r#""code":"store","message":"503","retry_after_seconds":null}"#
        );
        assert_eq!(serde_json::to_string(&outcome).unwrap(), want);
        assert_eq!(serde_json::from_str::<Outcome>(want).unwrap(), outcome);
        for name in Class::NAMES {
            let parsed: Class = name.parse().unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{name}\""));
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let failure = Failure::new(Class::Invalid, "x", "ü".repeat(2000));
        assert_eq!(failure.message.len(), 2000);
        let failure = Failure::new(Class::Invalid, "x", format!("a{}", "ü".repeat(2000)));
        assert_eq!(failure.message.len(), 1999);
    }
}
