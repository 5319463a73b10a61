//! The mirror: what people and workers see of batches, in the progress store.
//!
//! Nobody waits for it: a call takes a quarter of a second at most, and after one that failed
//! there is a pause. A mirror that was lost, or that another dispatcher wrote, is written whole.

use std::time::Duration;

use excite_jobs::BatchId;
use excite_jobs::progress::{BatchEvent, Change, ProgressError};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::debug;

use super::leader::Leader;
use super::running::Running;

/// Least time between two changes of a batch.
const EVERY: Duration = Duration::from_millis(250);
/// Changes that are told one by one; more are told by writing the batch whole.
const CHANGES_MAX: usize = 5000;
/// Batches that are looked for at a time, to notice that the mirror lost them.
const LOOK_AT: usize = 50;

impl Leader {
    /// Tells the mirror what changed.
    pub(super) async fn mirror(&mut self) {
        let due = |running: &Running| {
            let mirror = &running.mirror;
            let rested = mirror.at.is_none_or(|at| at.elapsed() >= EVERY);
            let finished = running.summarized.is_some() && !mirror.finished;
            rested && (mirror.revision.is_none() || !mirror.changes.is_empty() || finished)
        };
        let due: Vec<_> = self.batches.iter().filter(|(_, r)| due(r)).map(|(id, _)| *id).collect();
        for id in due {
            if !self.mirroring.is_over() {
                return;
            }
            let told = self.tell(id).await;
            if self.told(told).is_none()
                && let Some(running) = self.batches.get_mut(&id)
            {
                // It may have arrived or not.
                running.mirror.revision = None;
            }
        }
    }

    async fn tell(&mut self, id: BatchId) -> Result<(), ProgressError> {
        let progress = self.ports.progress.clone();
        let to = format!("{}-{}", self.epoch, self.revisions);
        self.revisions += 1;
        let Some(running) = self.batches.get_mut(&id) else { return Ok(()) };
        let tally = running.folded.tally.clone();
        let changes = std::mem::take(&mut running.mirror.changes);
        running.mirror.at = Some(Instant::now());
        let from = running.mirror.revision.take().filter(|_| changes.len() <= CHANGES_MAX);
        let mut fits = false;
        if let Some(from) = from {
            let states = changes.into_iter().collect();
            let change = Change { batch: id, from, to: to.clone(), states, tally: tally.clone() };
            fits = progress.update(&change).await?;
        }
        if !fits {
            progress.replace(id, &to, running.folded.states.packed(), &tally).await?;
        }
        running.mirror.revision = Some(to);
        let event = BatchEvent { at: OffsetDateTime::now_utc(), tally };
        progress.event(id, &event).await?;
        if running.summarized.is_some() && !running.mirror.finished {
            progress.finished(id).await?;
            running.mirror.finished = true;
        }
        Ok(())
    }

    /// Notices that the mirror lost batches, and which running jobs should stop.
    pub(super) async fn look_at_mirror(&mut self) {
        let behind = |id: &BatchId| self.looked_at.is_none_or(|at| *id > at);
        let next: Vec<_> =
            self.batches.keys().filter(|id| behind(id)).take(LOOK_AT).copied().collect();
        self.looked_at = next.last().copied();
        for id in next {
            if !self.mirroring.is_over() {
                return;
            }
            let found = self.ports.progress.batch(id).await;
            let Some(found) = self.told(found) else { return };
            if let Some(running) = self.batches.get_mut(&id)
                && running.mirror.revision != found.map(|found| found.revision)
            {
                debug!(batch = %id, "the mirror lost a batch");
                running.mirror.revision = None;
            }
        }
        self.repeat_cancelled().await;
    }

    async fn repeat_cancelled(&mut self) {
        let announced = self.ports.progress.cancelled().await;
        let Some(announced) = self.told(announced) else { return };
        let long = self.config.cancelled_for;
        let cancelled: Vec<_> = self.cancelled.iter().map(|(id, at)| (*id, at.elapsed())).collect();
        for (id, age) in cancelled {
            let (is, should) = (announced.contains(&id), age < long);
            if is != should {
                let set = self.ports.progress.set_cancelled(id, should).await;
                if self.told(set).is_none() {
                    return;
                }
            }
            if !should {
                self.cancelled.remove(&id);
            }
        }
    }

    /// Running jobs of a batch should stop.
    pub(super) async fn announce_cancelled(&mut self, id: BatchId) {
        if self.mirroring.is_over() {
            // What fails is repeated.
            let set = self.ports.progress.set_cancelled(id, true).await;
            self.told(set);
        }
    }

    /// What an earlier leader announced is announced until it is old.
    pub(super) async fn remember_cancelled(&mut self) {
        let announced = self.ports.progress.cancelled().await;
        for id in self.told(announced).into_iter().flatten() {
            self.cancelled.entry(id).or_insert_with(Instant::now);
        }
    }

    /// A batch is gone.
    pub(super) async fn forget_mirror(&mut self, id: BatchId) {
        if self.mirroring.is_over() {
            let forgotten = self.ports.progress.forget(id).await;
            self.told(forgotten);
        }
        // Jobs of it may still be in the broker: whoever gets them must not make them.
        if self.cancelled.contains_key(&id) {
            self.announce_cancelled(id).await;
        }
    }

    /// Remembers whether the mirror works.
    pub(super) fn told<T>(&mut self, result: Result<T, ProgressError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.mirroring.worked();
                Some(value)
            }
            Err(error) => {
                debug!(%error, "the mirror fails");
                self.metrics.mirror_errors.inc();
                self.mirroring.failed();
                None
            }
        }
    }
}
