//! Recording: conclusions into `done/` parts, summaries of batches that are finished.
//!
//! A part is written when it is full, when its batch has nothing open, or when its first
//! conclusion has waited long enough; then its messages are acknowledged.

use std::sync::Arc;
use std::time::Duration;

use excite_jobs::queue::Acker;
use excite_jobs::store::Condition;
use excite_jobs::{BatchId, Done, Lane, Summary, keys};
use excite_service::failpoint;
use futures::{StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::conclude::ack;
use super::leader::{Leader, Leave};
use super::running::{Entry, Running};
use crate::done_log;
use crate::header::{HeaderError, document, json};

/// Conclusions of one part: some 500 KB.
const PART_MAX: usize = 1000;
/// Parts that are written at a time.
const WRITES: usize = 8;
/// How long conclusions of small batches are collected: somebody waits for them.
const EXPRESS_DELAY: Duration = Duration::from_millis(100);
/// Acknowledgements that are under way at a time.
const ACKS: usize = 64;
/// How long a finished batch stays in memory, for what comes late.
const FINISHED_KEPT: Duration = Duration::from_secs(60);

/// A part on its way into the store.
struct PartDue {
    batch: BatchId,
    n: u64,
    entries: Vec<Entry>,
}

impl Leader {
    /// Writes the parts that are due (`all`: whatever can be written) and acknowledges what they
    /// came from.
    pub(super) async fn record_due(&mut self, all: bool) -> Result<(), Leave> {
        // A part of each batch a round; a batch has more than one only after an outage.
        while self.storing.is_over() || all {
            let due = self.parts_due(all);
            if due.is_empty() {
                break;
            }
            if !self.check().await? {
                return Ok(());
            }
            let parts = self.take_parts(due);
            if !self.write(parts).await? {
                break;
            }
        }
        Ok(())
    }

    fn parts_due(&self, all: bool) -> Vec<BatchId> {
        let delay = self.config.done_delay;
        let due = |running: &Running| {
            let ready = running.pending.iter().filter(|entry| entry.follow.is_none()).count();
            let express = running.header.lane == Lane::Express;
            let delay = if express { EXPRESS_DELAY.min(delay) } else { delay };
            let old = running.since.is_some_and(|since| since.elapsed() >= delay);
            ready > 0 && (all || old || ready >= PART_MAX || running.folded.open() == 0)
        };
        let batches = self.batches.iter().filter(|(_, running)| due(running));
        batches.map(|(id, _)| *id).collect()
    }

    fn take_parts(&mut self, due: Vec<BatchId>) -> Vec<PartDue> {
        let mut parts = Vec::new();
        for batch in due {
            let Some(running) = self.batches.get_mut(&batch) else { continue };
            let (mut entries, mut rest) = (Vec::new(), Vec::new());
            for entry in std::mem::take(&mut running.pending) {
                // What must be published first is not recorded yet.
                let ready = entry.follow.is_none() && entries.len() < PART_MAX;
                if ready { entries.push(entry) } else { rest.push(entry) }
            }
            running.since = (!rest.is_empty()).then(Instant::now);
            running.pending = rest;
            parts.push(PartDue { batch, n: self.parts, entries });
            self.parts += 1;
        }
        parts
    }

    /// `false` if the store fails.
    async fn write(&mut self, parts: Vec<PartDue>) -> Result<bool, Leave> {
        let (store, epoch) = (self.ports.store.clone(), self.epoch);
        let write = |part: PartDue| {
            let store = store.clone();
            async move {
                let records: Vec<Done> =
                    part.entries.iter().map(|entry| entry.record.clone()).collect();
                let put = done_log::append(&*store, part.batch, epoch, part.n, &records).await;
                (part, put)
            }
        };
        let written: Vec<_> =
            stream::iter(parts).map(write).buffer_unordered(WRITES).collect().await;
        let mut works = true;
        for (part, put) in written {
            match put {
                Ok(()) => {
                    // Jobs that run again: what follows must have been published by now.
                    if part.entries.iter().any(|entry| !entry.record.state.is_terminal()) {
                        failpoint::reach("dispatcher_recorded_run");
                    }
                    failpoint::reach("dispatcher_recorded");
                    acknowledge(part.entries).await;
                    failpoint::reach("dispatcher_acknowledged");
                }
                Err(error) => {
                    warn!(batch = %part.batch, %error, "conclusions cannot be recorded yet");
                    works = false;
                    self.keep(part);
                }
            }
        }
        if works {
            self.storing.worked();
        } else {
            self.storing.failed();
        }
        Ok(works)
    }

    /// A part that was not written waits again, in front.
    fn keep(&mut self, part: PartDue) {
        let Some(running) = self.batches.get_mut(&part.batch) else { return };
        let behind = std::mem::replace(&mut running.pending, part.entries);
        running.pending.extend(behind);
        running.since.get_or_insert_with(Instant::now);
    }

    /// Writes the summaries of batches that are finished, and takes their marks away.
    pub(super) async fn finish(&mut self) {
        let finished = |running: &Running| running.is_settled() && running.summarized.is_none();
        let due: Vec<_> =
            self.batches.iter().filter(|(_, r)| finished(r)).map(|(id, _)| *id).collect();
        for id in due {
            if !self.storing.is_over() {
                return;
            }
            let Some(running) = self.batches.get(&id) else { continue };
            if running.header.canary {
                self.canary_concluded(id).await;
                continue;
            }
            let summary = Summary::now(id, running.folded.tally.clone());
            let summarized = self.summarize(id, summary).await;
            if self.stored(summarized).is_ok()
                && let Some(running) = self.batches.get_mut(&id)
            {
                debug!(batch = %id, "finished");
                running.summarized = Some(Instant::now());
            }
        }
    }

    async fn summarize(&self, id: BatchId, summary: Summary) -> Result<(), HeaderError> {
        let store = &*self.ports.store;
        let key = keys::summary(id);
        // One that was written before keeps its time.
        let old = document::<Summary>(store, &key).await.ok().flatten();
        if old.is_none_or(|(old, _)| old.tally.states != summary.tally.states) {
            store.put(&key, json(&summary), Condition::Always).await?;
        }
        failpoint::reach("dispatcher_summarized");
        store.delete(&[keys::active(id)]).await?;
        Ok(())
    }

    /// Forgets batches that are finished for a while.
    pub(super) fn forget_finished(&mut self) {
        let old = |running: &Running| {
            let for_long = running.summarized.is_some_and(|at| at.elapsed() >= FINISHED_KEPT);
            for_long && running.is_settled()
        };
        let gone: Vec<_> = self.batches.iter().filter(|(_, r)| old(r)).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(running) = self.batches.remove(&id) {
                let key = (running.header.class.clone(), running.header.lane);
                if let Some(shares) = self.shares.get_mut(&key) {
                    shares.leave(id);
                }
            }
        }
        self.shares.retain(|_, shares| !shares.is_empty());
    }
}

async fn acknowledge(entries: Vec<Entry>) {
    let ackers: Vec<Arc<Acker>> = entries.into_iter().flat_map(|entry| entry.ackers).collect();
    stream::iter(ackers).for_each_concurrent(ACKS, ack).await;
}
