//! States of unfinished jobs in the store: saved now and then and at a stop, gone on with by
//! whoever gets the job next.
//!
//! Nothing depends on them: one that is missing, damaged or of another machine costs steps, never
//! an image. Not here: when a run is at a boundary (`watch`), who decides to stop (`preempt`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use excite_diffusion::Checkpoint;
use excite_jobs::store::{Condition, Store, StoreError};
use excite_jobs::{Job, JobId, keys};
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use crate::task::wanted;

/// Saved states of a job that are tried, the latest first.
const TRIES: usize = 3;

/// What came of looking for a saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// The job goes on.
    Ok,
    /// There is none.
    Missing,
    /// It is of another image, model, engine or kind of machine.
    Mismatch,
    /// It cannot be read.
    Damaged,
    /// The store failed.
    Failed,
}

impl Resumed {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::Damaged => "damaged",
            Self::Failed => "failed",
        }
    }
}

/// Why a state was not saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Encode(#[from] excite_diffusion::Error),
    #[error("the encoder ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// The saved states of the jobs that are here.
pub(crate) struct Checkpoints {
    store: Arc<dyn Store>,
    metrics: Metrics,
    /// Of the machine.
    kind: String,
    /// How long a job runs between two saves; zero for never.
    every: Duration,
    jobs: Mutex<BTreeMap<JobId, Saved>>,
}

/// What is known of a job's states.
struct Saved {
    /// When the last was saved, or the run began.
    since: Instant,
    /// Steps made until the last one.
    step: usize,
    /// All that may be there, the latest last.
    keys: BTreeSet<String>,
    /// One is on its way.
    saving: bool,
}

impl Default for Saved {
    fn default() -> Self {
        Self { since: Instant::now(), step: 0, keys: BTreeSet::new(), saving: false }
    }
}

impl Checkpoints {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        metrics: Metrics,
        kind: String,
        every: Duration,
    ) -> Self {
        Self { store, metrics, kind, every, jobs: Mutex::default() }
    }

    /// A run of this job begins; `step` steps were made for it, in all its tries.
    pub(crate) fn begin(&self, id: JobId, step: usize) {
        let mut jobs = self.jobs();
        let saved = jobs.entry(id).or_default();
        (saved.since, saved.step) = (Instant::now(), step);
    }

    /// Whether it is time to save the state after `step` steps.
    pub(crate) fn is_due(&self, id: JobId, step: usize) -> bool {
        let jobs = self.jobs();
        let due = |saved: &Saved| {
            !saved.saving && step > saved.step && saved.since.elapsed() >= self.every
        };
        !self.every.is_zero() && jobs.get(&id).is_some_and(due)
    }

    /// Saves a state and says its key; what was saved before of the job goes.
    pub(crate) async fn save(
        &self,
        job: &Job,
        checkpoint: Arc<Checkpoint>,
    ) -> Result<String, SaveError> {
        let step = checkpoint.steps_made();
        // Without an entry the job was concluded meanwhile, and must not come back by this.
        if let Some(saved) = self.jobs().get_mut(&job.id) {
            saved.saving = true;
        }
        let key = keys::checkpoint(job.id, u32::try_from(step).unwrap_or(u32::MAX), job.lease);
        let put = async {
            let bytes = tokio::task::spawn_blocking(move || checkpoint.to_bytes()).await??;
            self.store.put(&key, Bytes::from(bytes), Condition::Always).await?;
            Ok(())
        };
        let put: Result<(), SaveError> = put.await;
        let result = if put.is_ok() { "ok" } else { "failed" };
        self.metrics.checkpoints.with_label_values(&["save", result]).inc();
        let former = self.saved(job.id, step, &key, put.is_ok());
        self.delete(&former).await;
        put?;
        Ok(key)
    }

    /// Notes a save that ended; the keys that nobody needs any more.
    fn saved(&self, id: JobId, step: usize, key: &str, worked: bool) -> Vec<String> {
        let mut jobs = self.jobs();
        // Without an entry the job was concluded meanwhile.
        let Some(saved) = jobs.get_mut(&id) else { return vec![key.to_owned()] };
        (saved.saving, saved.since) = (false, Instant::now());
        if !worked {
            return Vec::new();
        }
        debug!(job = %id, step, key, "a state is saved");
        saved.step = saved.step.max(step);
        saved.keys.insert(key.to_owned());
        // Two may be on their way, and the earlier arrive later.
        let latest = saved.keys.pop_last();
        let former = std::mem::take(&mut saved.keys).into_iter().collect();
        saved.keys.extend(latest);
        former
    }

    /// Step and key of the last state that is known to be there.
    pub(crate) fn last(&self, id: JobId) -> Option<(usize, String)> {
        let jobs = self.jobs();
        let saved = jobs.get(&id)?;
        Some((saved.step, saved.keys.last()?.clone()))
    }

    /// The latest state of a job that was begun somewhere, if there is one that fits here.
    pub(crate) async fn find(&self, job: &Job) -> Option<Arc<Checkpoint>> {
        let mut keys = match self.store.list(&keys::checkpoints(job.id), None, false).await {
            Ok(page) => page.keys,
            Err(error) => {
                warn!(%error, "saved states cannot be listed; the job begins at step 0");
                self.metrics.resumed(Resumed::Failed);
                return None;
            }
        };
        if keys.is_empty() {
            if let Some(key) = &job.checkpoint {
                warn!(key, "the saved state is gone; the job begins at step 0");
            }
            self.metrics.resumed(Resumed::Missing);
            return None;
        }
        self.jobs().entry(job.id).or_default().keys.extend(keys.iter().cloned());
        keys.reverse();
        for key in keys.iter().take(TRIES) {
            let found = self.read(job, key).await;
            match found {
                Ok(checkpoint) => {
                    info!(key, step = checkpoint.next_step(), "the job goes on");
                    self.metrics.resumed(Resumed::Ok);
                    return Some(Arc::new(checkpoint));
                }
                Err((result, reason)) => {
                    warn!(key, reason, "a saved state cannot be used");
                    self.metrics.resumed(result);
                }
            }
        }
        warn!("no saved state can be used; the job begins at step 0");
        None
    }

    async fn read(&self, job: &Job, key: &str) -> Result<Checkpoint, (Resumed, String)> {
        let got = self.store.get(key).await;
        let object = got.map_err(|error| (Resumed::Failed, error.to_string()))?;
        let object = object.ok_or_else(|| (Resumed::Missing, "it is gone".to_owned()))?;
        let parsed = Checkpoint::from_bytes(&object.body);
        let checkpoint = parsed.map_err(|error| (Resumed::Damaged, error.to_string()))?;
        let fits = checkpoint.fits(&wanted(job), &self.kind);
        fits.map_err(|error| (Resumed::Mismatch, error.to_string()))?;
        Ok(checkpoint)
    }

    /// The job is done: its states go.
    pub(crate) async fn clear(&self, id: JobId) {
        let keys = self.jobs().remove(&id).map(|saved| saved.keys).unwrap_or_default();
        self.delete(&Vec::from_iter(keys)).await;
    }

    /// The job is another's now, with its states; not while one is on its way, which would go.
    pub(crate) fn leave(&self, id: JobId) {
        self.jobs().remove(&id);
    }

    async fn delete(&self, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        if let Err(error) = self.store.delete(keys).await {
            // They go with their batch, or by the bucket's lifecycle.
            debug!(%error, "saved states stay");
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Saved>> {
        // Nothing panics while it holds the lock.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
