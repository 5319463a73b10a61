//! Whether a job must run at all: cancelled, done already, made before for its like, of another
//! engine, or a killer.

use std::sync::Arc;

use bytes::Bytes;
use excite_diffusion::Checkpoint;
use excite_jobs::store::{Condition, StoreError};
use excite_jobs::{Class, ENGINE, Failure, Job, JobId, OutcomeKind, keys};
use tracing::warn;

use crate::finish::Finisher;
use crate::metrics::Redelivery;
use crate::patience::failure;
use crate::watch::Watch;

/// Workers that a job may kill before it is given up.
const SUSPECT_MARKS_MAX: usize = 3;

/// What is done with a job.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// It runs.
    Run {
        /// In a micro-batch of its own.
        alone: bool,
        /// Where it goes on.
        checkpoint: Option<Arc<Checkpoint>>,
    },
    /// It need not or must not run.
    Answer(OutcomeKind),
}

/// Looks at a job that was delivered.
pub(crate) async fn prepare(
    finisher: &Finisher,
    watch: &Arc<Watch>,
    job: &Job,
    redelivered: bool,
) -> Prepared {
    if watch.is_cancelled(job.batch) {
        return Prepared::Answer(OutcomeKind::Cancelled);
    }
    if job.spec.engine != ENGINE {
        let message =
            format!("`engine` is {}, but this worker computes as {ENGINE}", job.spec.engine);
        let failure = Failure::new(Class::Incompatible, "engine", message);
        return Prepared::Answer(OutcomeKind::Failed(failure));
    }
    match finisher.found(job).await {
        Ok(None) => {}
        Ok(Some(success)) => {
            finisher.metrics.redelivery(Redelivery::Skipped);
            return Prepared::Answer(OutcomeKind::Succeeded(success));
        }
        Err(failure) => return Prepared::Answer(OutcomeKind::Failed(failure)),
    }
    // A job that was begun already is gone on with.
    let fresh = !redelivered && job.lease == 1 && job.checkpoint.is_none();
    if fresh && let Some(kind) = finisher.reuse(job).await {
        return Prepared::Answer(kind);
    }
    if !redelivered {
        return Prepared::Run { alone: false, checkpoint: begun(finisher, job, false).await };
    }
    match marks(finisher, job.id).await {
        Ok(marks) if marks >= SUSPECT_MARKS_MAX => {
            warn!(marks, "a job is given up: every worker that began it is gone");
            let message = format!("{marks} workers began it and were not heard of again");
            let failure = Failure::new(Class::Lost, "poison", message);
            Prepared::Answer(OutcomeKind::Failed(failure))
        }
        Ok(_) => {
            finisher.metrics.redelivery(Redelivery::Restarted);
            Prepared::Run { alone: true, checkpoint: begun(finisher, job, true).await }
        }
        Err(error) => Prepared::Answer(OutcomeKind::Failed(failure(&error))),
    }
}

/// What was made of a job elsewhere; of one that is new nobody asks the store.
async fn begun(finisher: &Finisher, job: &Job, redelivered: bool) -> Option<Arc<Checkpoint>> {
    let begun = redelivered || job.lease > 1 || job.checkpoint.is_some();
    if begun { finisher.checkpoints.find(job).await } else { None }
}

async fn marks(finisher: &Finisher, id: JobId) -> Result<usize, StoreError> {
    let prefix = keys::suspects(id);
    Ok(finisher.store.list(&prefix).await?.len())
}

/// Marks a job that may have killed a worker, just before it runs: if this one dies too, the mark
/// stays.
///
/// # Errors
/// If the store fails for too long.
pub(crate) async fn mark(finisher: &Finisher, job: &Job) -> Result<(), StoreError> {
    let body = Bytes::from(finisher.worker.clone());
    let mut n = marks(finisher, job.id).await?;
    // Marks of others may come between, but never more than workers that can run one job.
    for _ in 0..SUSPECT_MARKS_MAX {
        let key = keys::suspect(job.id, u32::try_from(n).unwrap_or(u32::MAX));
        match finisher.store.put(&key, &body, &Condition::Absent).await {
            Err(StoreError::Conflict(_)) => n += 1,
            answer => return answer.map(|_| ()),
        }
    }
    Ok(())
}
