//! The mirror in memory, for one process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    BatchEvent, BatchProgress, Change, DRAIN_SECONDS, EVENTS_MAX, EventId, FINISHED_SECONDS,
    POINTS_MAX, Point, Progress, ProgressError, STATUS_SECONDS, Status, WORKER_SECONDS, WorkerBeat,
};
use crate::done::Tally;
use crate::id::BatchId;

/// Progress within one process. What expires is dropped when somebody looks.
#[derive(Debug, Default)]
pub struct MemoryMirror {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    workers: BTreeMap<String, Expiring<WorkerBeat>>,
    drained: BTreeMap<String, Expiring<()>>,
    batches: BTreeMap<BatchId, Batch>,
    events: BTreeMap<BatchId, Events>,
    cancelled: BTreeSet<BatchId>,
    status: Option<Expiring<Status>>,
    points: VecDeque<Point>,
}

#[derive(Debug)]
struct Batch {
    progress: BatchProgress,
    states: Vec<u8>,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Events {
    last: u64,
    kept: VecDeque<(EventId, BatchEvent)>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Expiring<T> {
    value: T,
    until: Instant,
}

impl<T> Expiring<T> {
    fn new(value: T, seconds: u64) -> Self {
        Self { value, until: after(seconds) }
    }
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

impl Known {
    fn expire(&mut self) {
        let now = Instant::now();
        let lives = |until: Option<Instant>| until.is_none_or(|until| until > now);
        self.workers.retain(|_, beat| beat.until > now);
        self.drained.retain(|_, drain| drain.until > now);
        self.batches.retain(|_, batch| lives(batch.until));
        self.events.retain(|_, events| lives(events.until));
        self.status.take_if(|status| status.until <= now);
    }
}

impl MemoryMirror {
    /// An empty mirror.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, as a Redis that was started again.
    pub fn clear(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing is left half done by a panic: each call changes one thing.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.expire();
        known
    }
}

#[async_trait]
impl Progress for MemoryMirror {
    async fn beat(&self, beat: &WorkerBeat) -> Result<(), ProgressError> {
        let expiring = Expiring::new(beat.clone(), WORKER_SECONDS);
        self.known().workers.insert(beat.worker.clone(), expiring);
        Ok(())
    }

    async fn gone(&self, worker: &str) -> Result<(), ProgressError> {
        let mut known = self.known();
        known.workers.remove(worker);
        known.drained.remove(worker);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerBeat>, ProgressError> {
        Ok(self.known().workers.values().map(|beat| beat.value.clone()).collect())
    }

    async fn batch(&self, batch: BatchId) -> Result<Option<BatchProgress>, ProgressError> {
        Ok(self.known().batches.get(&batch).map(|batch| batch.progress.clone()))
    }

    async fn states(&self, batch: BatchId) -> Result<Option<Vec<u8>>, ProgressError> {
        Ok(self.known().batches.get(&batch).map(|batch| batch.states.clone()))
    }

    async fn update(&self, change: &Change) -> Result<bool, ProgressError> {
        let mut known = self.known();
        let Some(batch) = known.batches.get_mut(&change.batch) else { return Ok(false) };
        let jobs = batch.states.len() * 2;
        let fits = change.states.iter().all(|(index, _)| (*index as usize) < jobs);
        if !fits || batch.progress.revision != change.from {
            return Ok(false);
        }
        for (index, state) in &change.states {
            let byte = &mut batch.states[*index as usize / 2];
            *byte = match index.is_multiple_of(2) {
                true => *byte & 0x0f | state.code() << 4,
                false => *byte & 0xf0 | state.code(),
            };
        }
        batch.progress = BatchProgress { revision: change.to.clone(), tally: change.tally.clone() };
        Ok(true)
    }

    async fn replace(
        &self,
        batch: BatchId,
        revision: &str,
        states: &[u8],
        tally: &Tally,
    ) -> Result<(), ProgressError> {
        let progress = BatchProgress { revision: revision.to_owned(), tally: tally.clone() };
        let whole = Batch { progress, states: states.to_vec(), until: None };
        self.known().batches.insert(batch, whole);
        Ok(())
    }

    async fn finished(&self, batch: BatchId) -> Result<(), ProgressError> {
        if let Some(batch) = self.known().batches.get_mut(&batch) {
            batch.until = Some(after(FINISHED_SECONDS));
        }
        Ok(())
    }

    async fn forget(&self, batch: BatchId) -> Result<(), ProgressError> {
        let mut known = self.known();
        known.batches.remove(&batch);
        known.events.remove(&batch);
        known.cancelled.remove(&batch);
        Ok(())
    }

    async fn set_cancelled(&self, batch: BatchId, cancelled: bool) -> Result<(), ProgressError> {
        let mut known = self.known();
        match cancelled {
            true => known.cancelled.insert(batch),
            false => known.cancelled.remove(&batch),
        };
        Ok(())
    }

    async fn cancelled(&self) -> Result<BTreeSet<BatchId>, ProgressError> {
        Ok(self.known().cancelled.clone())
    }

    async fn drain(&self, worker: &str) -> Result<(), ProgressError> {
        self.known().drained.insert(worker.to_owned(), Expiring::new((), DRAIN_SECONDS));
        Ok(())
    }

    async fn is_drained(&self, worker: &str) -> Result<bool, ProgressError> {
        Ok(self.known().drained.contains_key(worker))
    }

    async fn event(&self, batch: BatchId, event: &BatchEvent) -> Result<(), ProgressError> {
        let mut known = self.known();
        let events = known.events.entry(batch).or_default();
        events.last += 1;
        events.kept.push_back((EventId(events.last, 0), event.clone()));
        if events.kept.len() > EVENTS_MAX {
            events.kept.pop_front();
        }
        events.until = Some(after(FINISHED_SECONDS));
        Ok(())
    }

    async fn events(
        &self,
        batch: BatchId,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<(String, BatchEvent)>, ProgressError> {
        let after = after.map(EventId::parse).transpose()?;
        let known = self.known();
        let Some(events) = known.events.get(&batch) else { return Ok(Vec::new()) };
        let behind = events.kept.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        Ok(behind.take(count).map(|(id, event)| (id.to_string(), event.clone())).collect())
    }

    async fn set_status(&self, status: &Status) -> Result<(), ProgressError> {
        self.known().status = Some(Expiring::new(status.clone(), STATUS_SECONDS));
        Ok(())
    }

    async fn status(&self) -> Result<Option<Status>, ProgressError> {
        Ok(self.known().status.as_ref().map(|status| status.value.clone()))
    }

    async fn add_point(&self, point: &Point) -> Result<(), ProgressError> {
        let points = &mut self.known().points;
        points.push_back(point.clone());
        if points.len() > POINTS_MAX {
            points.pop_front();
        }
        Ok(())
    }

    async fn points(&self, count: usize) -> Result<Vec<Point>, ProgressError> {
        let points = &self.known().points;
        Ok(points.range(points.len().saturating_sub(count)..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{advance, pause};

    use super::*;
    use crate::conformance::progress as conformance;

    #[tokio::test]
    async fn memory_does_what_every_mirror_does() {
        let mirror = Arc::new(MemoryMirror::new());
        let shared: Arc<dyn Progress> = mirror.clone();
        conformance::all(&shared).await;
        conformance::lost(&shared, async || mirror.clear()).await;
    }

    #[tokio::test]
    async fn what_expires_is_gone_in_time_and_not_before() {
        pause();
        let mirror = MemoryMirror::new();
        let batch = conformance::batch();
        mirror.beat(&conformance::beat("worker")).await.unwrap();
        mirror.drain("worker").await.unwrap();
        mirror.set_status(&conformance::status()).await.unwrap();
        mirror.replace(batch, "1-1", &[0], &Tally::default()).await.unwrap();
        mirror.finished(batch).await.unwrap();
        let mut at = 0;
        for until in [STATUS_SECONDS, WORKER_SECONDS, DRAIN_SECONDS, FINISHED_SECONDS] {
            for step in [until - 1, until] {
                advance(Duration::from_secs(step - at)).await;
                at = step;
                let there = [
                    (mirror.status().await.unwrap().is_some(), STATUS_SECONDS),
                    (!mirror.workers().await.unwrap().is_empty(), WORKER_SECONDS),
                    (mirror.is_drained("worker").await.unwrap(), DRAIN_SECONDS),
                    (mirror.batch(batch).await.unwrap().is_some(), FINISHED_SECONDS),
                ];
                for (there, until) in there {
                    assert_eq!(there, at < until, "what lives {until} s, after {at} s");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_finished_batch_that_is_written_again_is_kept() {
        pause();
        let (mirror, batch) = (MemoryMirror::new(), conformance::batch());
        mirror.replace(batch, "1-1", &[0], &Tally::default()).await.unwrap();
        mirror.finished(batch).await.unwrap();
        mirror.replace(batch, "1-2", &[0], &Tally::default()).await.unwrap();
        advance(Duration::from_secs(2 * FINISHED_SECONDS)).await;
        assert!(mirror.batch(batch).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn events_are_bounded() {
        let (mirror, batch) = (MemoryMirror::new(), conformance::batch());
        for _ in 0..EVENTS_MAX + 10 {
            mirror.event(batch, &conformance::event(1)).await.unwrap();
        }
        assert_eq!(mirror.events(batch, None, usize::MAX).await.unwrap().len(), EVENTS_MAX);
    }
}
