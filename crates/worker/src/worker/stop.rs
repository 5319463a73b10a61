//! How the worker ends: it finishes, hands over or gives up what it has. And what it does each
//! second for the case that it dies.
//!
//! Not here: how a job is handed over (`preempt`).

use std::sync::Arc;
use std::time::Duration;

use excite_jobs::progress::WorkerState;
use excite_jobs::{Class, Failure, JobId, OutcomeKind};
use tracing::{error, info, warn};

use super::{Event, LAST_CALLS, Mode, Worker, WorkerError};

/// How long outcomes of stuck jobs may take to be confirmed.
const LAST_OUTCOMES: Duration = Duration::from_secs(15);

impl Worker {
    /// What is done each second.
    ///
    /// # Errors
    /// If a run is stuck; its jobs are reported then.
    pub(super) async fn check(&mut self) -> Result<(), WorkerError> {
        if self.mode == Mode::Leaving {
            return Ok(());
        }
        self.save_states();
        let Some(still) = self.watch.stuck() else { return Ok(()) };
        error!(seconds = still.as_secs(), "a run is stuck");
        let message = format!("no pass for {} s", still.as_secs());
        let failure = Failure::new(Class::Timeout, "stuck", message);
        let running: Vec<JobId> = self.watch.running().iter().map(|running| running.job).collect();
        let outcomes = running.into_iter().map(|id| {
            let kind = OutcomeKind::Failed(failure.clone());
            self.finisher.conclude(id, kind)
        });
        let all = futures::future::join_all(outcomes);
        if tokio::time::timeout(LAST_OUTCOMES, all).await.is_err() {
            warn!("stuck jobs could not be reported; they are delivered again");
        }
        Err(WorkerError::Stuck(still))
    }

    /// Saves what runs for longer than a while, in case this worker dies.
    fn save_states(&self) {
        for id in &self.running {
            let Some(boundary) = self.watch.boundary_of(*id) else { continue };
            let checkpoints = Arc::clone(&self.finisher.checkpoints);
            if !checkpoints.is_due(*id, boundary.steps_made()) {
                continue;
            }
            let Some(said) = self.held.said(*id) else { continue };
            // Nobody waits for it: what is not saved is made again.
            let save = async move {
                if let Err(error) = checkpoints.save(&said.job, boundary).await {
                    warn!(%error, "the state of a job is not saved; it is tried again");
                }
            };
            tokio::spawn(save);
        }
    }

    pub(super) async fn drain(&mut self) {
        info!(active = self.active, finishing = self.finishing, "draining");
        self.stop_taking(Mode::Draining, "it finishes what runs").await;
    }

    /// Hands over what runs; what is being stored is finished.
    pub(super) async fn hand_over(&mut self, limit: Duration) {
        info!(running = self.running.len(), finishing = self.finishing, "handing over");
        self.watch.abandon();
        self.stop_taking(Mode::Leaving, "it hands over what runs").await;
        // The report needs its time, too.
        let limit = limit / 2;
        for id in std::mem::take(&mut self.running) {
            let (finisher, watch) = (self.finisher.clone(), Arc::clone(&self.watch));
            self.tasks.spawn(async move {
                finisher.preempt(&watch, id, limit).await;
                Event::HandedOver
            });
        }
    }

    async fn stop_taking(&mut self, mode: Mode, why: &str) {
        self.mode = mode;
        self.status.set(WorkerState::Draining, why);
        self.subscribe().await;
        for task in self.waiting.drain() {
            self.give_back(task.job.id);
        }
    }

    /// What is not finished stays unacknowledged and goes to another worker.
    pub(super) async fn leave(&mut self) {
        warn!(jobs = self.held.len(), "the drain is cut short; the broker redelivers the rest");
        // This worker does not die of them.
        let suspects = self.held.suspects();
        let clear = suspects.into_iter().map(|id| self.finisher.clear_suspect(id));
        let all = futures::future::join_all(clear);
        // Marks that stay cost their jobs one of three lives, no more.
        let _ = tokio::time::timeout(LAST_CALLS, all).await;
    }
}
