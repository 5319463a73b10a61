//! The end of a worker that must go: what runs is handed over, with the state of its last step.
//!
//! The compute thread is not waited for: it may be in the middle of a pass, and the state is in
//! memory since the step before. Not here: when that is (`worker`).

use std::time::Duration;

use excite_jobs::{JobId, OutcomeKind};
use excite_service::failpoint;
use tracing::warn;

use crate::finish::Finisher;
use crate::watch::Watch;

impl Finisher {
    /// Saves the state of a job that runs here, reports it as preempted and acknowledges it. If the
    /// state cannot be saved within `limit`, another worker begins with what was saved before.
    pub(crate) async fn preempt(&self, watch: &Watch, id: JobId, limit: Duration) {
        let Some(said) = self.held.said(id) else { return };
        let boundary = watch.boundary_of(id);
        let mut step = boundary.as_ref().map_or(0, |boundary| boundary.steps_made());
        let mut checkpoint = None;
        if let Some(boundary) = boundary {
            let save = self.checkpoints.save(&said.job, boundary);
            match tokio::time::timeout(limit, save).await {
                Ok(Ok(key)) => checkpoint = Some(key),
                Ok(Err(error)) => warn!(%error, "the state of a job is not saved"),
                Err(_) => {
                    warn!(seconds = limit.as_secs(), "the state of a job is not saved in time")
                }
            }
        }
        if checkpoint.is_none() {
            let last = self.checkpoints.last(id);
            step = last.as_ref().map_or(0, |(step, _)| *step);
            checkpoint = last.map(|(_, key)| key);
        }
        failpoint::reach("worker_saved_state");
        self.metrics.preemptions.inc();
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        self.conclude(id, OutcomeKind::Preempted { checkpoint, step }).await;
    }
}
