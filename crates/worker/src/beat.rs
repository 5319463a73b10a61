//! What the worker tells and asks the progress store, twice a second at most. Lossy: nothing waits
//! for it, and it goes on when it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use excite_jobs::VERSION;
use excite_jobs::progress::{Progress, ProgressError, RunningJob, WorkerBeat, WorkerState};
use excite_jobs::queue::Queue;
use excite_service::memory;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::status::Status;
use crate::watch::Watch;

const TURN: Duration = Duration::from_millis(500);
/// Without news it is told this often that the worker lives; it is forgotten after 30 s.
const QUIET: Duration = Duration::from_secs(5);

/// What is told.
pub(crate) struct Beat {
    pub(crate) config: Config,
    /// Of the machine.
    pub(crate) kind: String,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) status: Arc<Status>,
    pub(crate) models: Option<Arc<Models>>,
    pub(crate) metrics: Metrics,
    /// Told when an operator wants the worker to drain.
    pub(crate) drain: CancellationToken,
}

impl Beat {
    /// Beats until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let started_at = OffsetDateTime::now_utc();
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut told, mut told_at): (Option<News>, _) = (None, Instant::now());
        let (mut failing, mut second) = (false, false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = turns.tick() => {}
            }
            let news = (self.status.get(), self.watch.running());
            let mut answers = Vec::new();
            if told.as_ref() != Some(&news) || told_at.elapsed() >= QUIET {
                answers.push(self.progress.beat(&self.beat(&news, started_at)).await);
                (told, told_at) = (Some(news), Instant::now());
            }
            second = !second;
            if second {
                answers.push(self.ask().await);
                self.gauges();
            }
            // A turn without a call says nothing of the other side.
            for answer in answers {
                failing = self.note(&answer, failing);
            }
        }
    }

    /// Logs when calls begin and cease to fail; whether they do.
    fn note(&self, answer: &Result<(), ProgressError>, failing: bool) -> bool {
        match answer {
            Err(error) => {
                self.metrics.progress_errors.inc();
                if !failing {
                    warn!(%error, "progress is not told");
                }
            }
            Ok(()) if failing => info!("progress is told again"),
            Ok(()) => {}
        }
        answer.is_err()
    }

    async fn ask(&self) -> Result<(), ProgressError> {
        // What is not known stays as it was.
        self.watch.set_cancelled(self.progress.cancelled().await?);
        if !self.drain.is_cancelled() && self.progress.is_drained(&self.config.name).await? {
            self.drain.cancel();
        }
        Ok(())
    }

    fn gauges(&self) {
        let health = self.queue.health();
        self.metrics.broker_connected.set(i64::from(health.connected));
        self.metrics.broker_blocked.set(i64::from(health.blocked));
    }

    fn beat(&self, (state, jobs): &News, started_at: OffsetDateTime) -> WorkerBeat {
        let (models, model_bytes) =
            self.models.as_ref().map(|models| models.contents()).unwrap_or_default();
        WorkerBeat {
            v: VERSION,
            worker: self.config.name.clone(),
            pool: self.config.pool.clone(),
            kind: self.kind.clone(),
            class: self.config.class.clone(),
            state: *state,
            slots: u32::from(self.config.slots),
            jobs: jobs.clone(),
            models,
            model_bytes,
            memory_bytes: memory::resident_bytes(),
            micro_batches: self.watch.sizes().shown(),
            started_at,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

type News = (WorkerState, Vec<RunningJob>);
