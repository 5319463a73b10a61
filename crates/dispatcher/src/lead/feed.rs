//! Feeding: jobs from manifests into the broker, so many that no worker waits and no more.
//!
//! The room is what is missing to the window, asked of the broker each time: right by itself after
//! any crash. The cursor is written before what it claims is published, so whoever comes after
//! publishes the last claim again.

use std::collections::BTreeMap;

use excite_jobs::progress::WorkerState;
use excite_jobs::queue::{Depth, QueueError, QueueName};
use excite_jobs::store::{Condition, Etag, StoreError};
use excite_jobs::{BatchId, Cursor, Lane, VERSION, keys};
use excite_service::failpoint;
use futures::{StreamExt, stream};
use tracing::warn;

use super::LeadConfig;
use super::leader::{Leader, Leave};
use super::share::Offer;
use crate::header::{HeaderError, document, json};

/// Cursors that are written at a time.
const CLAIMS: usize = 8;
/// Jobs that a consumer of unknown size may run at a time.
const CONSUMER_SLOTS: u64 = 4;
/// Seconds of the measured rate that the window holds beside the capacity.
const WINDOW_SECONDS: f64 = 2.;

/// Jobs of a queue that may wait in the broker: twice what runs at a time, and what is concluded
/// in two seconds (`rate` is in jobs a second).
pub(crate) fn window(config: &LeadConfig, capacity: u64, rate: f64) -> u32 {
    let jobs = 2. * capacity as f64 + WINDOW_SECONDS * rate;
    // A float that is no number becomes 0.
    (jobs.ceil() as u32).clamp(config.window_min, config.window_max.max(config.window_min))
}

/// A claim: the batch's next jobs.
struct Claim {
    batch: BatchId,
    cursor: Cursor,
    condition: Condition,
}

impl Leader {
    /// Fills every queue up to its window.
    pub(super) async fn feed(&mut self) -> Result<(), Leave> {
        let health = self.ports.queue.health();
        if health.blocked || !self.unfed.is_empty() || !self.publishing.is_over() {
            return Ok(());
        }
        let queues: Vec<_> = self.shares.keys().cloned().collect();
        for (class, lane) in queues {
            if !self.has_unclaimed(&class, lane) {
                continue;
            }
            let Some(depth) = self.depth(&class, lane).await else { continue };
            let window =
                window(&self.config, self.capacity(&class, depth), self.rate(&class, lane));
            let room = window.saturating_sub(u32::try_from(depth.ready).unwrap_or(u32::MAX));
            self.feed_queue(&class, lane, room).await?;
        }
        Ok(())
    }

    fn has_unclaimed(&self, class: &str, lane: Lane) -> bool {
        let same = |header: &excite_jobs::Batch| header.class == class && header.lane == lane;
        self.batches.values().any(|running| same(&running.header) && running.unclaimed() > 0)
    }

    /// What a queue holds; `None` if the broker cannot say.
    pub(super) async fn depth(&mut self, class: &str, lane: Lane) -> Option<Depth> {
        let name = QueueName::jobs(class, lane);
        match self.ports.queue.depth(&name).await {
            Ok(depth) => Some(depth),
            Err(QueueError::Unroutable(_)) => {
                let declared = self.ports.queue.declare(&[class.to_owned()]).await;
                if let Err(error) = &declared {
                    warn!(class, %error, "the queues of a class cannot be declared");
                    self.publishing.failed();
                }
                declared.ok().map(|()| Depth::default())
            }
            Err(error) => {
                warn!(class, %lane, %error, "nothing is fed");
                None
            }
        }
    }

    /// Jobs that the workers of a class run at a time.
    fn capacity(&self, class: &str, depth: Depth) -> u64 {
        let ready = self
            .workers
            .iter()
            .filter(|worker| worker.class == class && worker.state == WorkerState::Ready);
        let slots: u64 = ready.map(|worker| u64::from(worker.slots)).sum();
        if slots > 0 { slots } else { depth.consumers * CONSUMER_SLOTS }
    }

    async fn feed_queue(&mut self, class: &str, lane: Lane, mut room: u32) -> Result<(), Leave> {
        while room > 0 && self.unfed.is_empty() && self.storing.is_over() {
            let turns = self.share(class, lane, room);
            if turns.is_empty() {
                break;
            }
            let mut claimed = self.claim(&turns).await?;
            for (batch, count) in turns {
                let Some(cursor) = claimed.get_mut(&batch) else { continue };
                for index in cursor.from..cursor.from + count {
                    let running = self.batches.get_mut(&batch);
                    // Some may have been concluded before their time; the cursor passes them over.
                    if running.is_some_and(|running| running.fed(index)) {
                        self.unfed.push_back((batch, index));
                        room = room.saturating_sub(1);
                    }
                }
                cursor.from += count;
            }
            self.publish_pending().await?;
        }
        Ok(())
    }

    fn share(&mut self, class: &str, lane: Lane, room: u32) -> Vec<(BatchId, u32)> {
        let (batches, most) = (&self.batches, self.config.claim);
        let offer = |id: BatchId| {
            let running = batches.get(&id);
            let jobs = running.map_or(0, |running| running.unclaimed().min(most));
            Offer { weight: running.map_or(1, |running| running.header.weight), jobs }
        };
        let key = (class.to_owned(), lane);
        let shares = self.shares.get_mut(&key);
        shares.map_or_else(Vec::new, |shares| shares.take(room, self.config.quantum, offer))
    }

    /// Writes the cursors of batches whose turns these are; says which claims hold.
    async fn claim(
        &mut self,
        turns: &[(BatchId, u32)],
    ) -> Result<BTreeMap<BatchId, Cursor>, Leave> {
        let mut counts: BTreeMap<BatchId, u32> = BTreeMap::new();
        for (batch, count) in turns {
            *counts.entry(*batch).or_default() += count;
        }
        let claims: Vec<Claim> =
            counts.into_iter().filter_map(|(id, count)| self.next_claim(id, count)).collect();
        let store = self.ports.store.clone();
        let put = |claim: Claim| {
            let store = store.clone();
            async move {
                let key = keys::cursor(claim.batch);
                let put = store.put(&key, json(&claim.cursor), claim.condition.clone()).await;
                (claim, put)
            }
        };
        let put: Vec<_> = stream::iter(claims).map(put).buffer_unordered(CLAIMS).collect().await;
        failpoint::reach("dispatcher_claimed");
        let mut held = BTreeMap::new();
        for (claim, put) in put {
            if self.claimed(&claim, put).await? {
                held.insert(claim.batch, claim.cursor);
            }
        }
        Ok(held)
    }

    fn next_claim(&self, batch: BatchId, count: u32) -> Option<Claim> {
        let running = self.batches.get(&batch)?;
        let from = running.claimed();
        let cursor = Cursor { v: VERSION, epoch: self.epoch, from, to: from + count };
        let condition = match &running.cursor {
            Some((_, etag)) => Condition::Unchanged(etag.clone()),
            None => Condition::Absent,
        };
        Some(Claim { batch, cursor, condition })
    }

    /// Whether a claim holds.
    async fn claimed(
        &mut self,
        claim: &Claim,
        put: Result<Etag, StoreError>,
    ) -> Result<bool, Leave> {
        match put {
            Ok(etag) => {
                if let Some(running) = self.batches.get_mut(&claim.batch) {
                    running.cursor = Some((claim.cursor, etag));
                }
                Ok(true)
            }
            Err(StoreError::Conflict(_)) => {
                // Another one leads, led a moment ago, or our own put was answered too late.
                self.check().await?;
                let key = keys::cursor(claim.batch);
                let stored = document::<Cursor>(&*self.ports.store, &key).await;
                self.adopt_cursor(claim, stored)
            }
            Err(error) => {
                warn!(batch = %claim.batch, %error, "a claim cannot be written");
                self.storing.failed();
                Ok(false)
            }
        }
    }

    fn adopt_cursor(
        &mut self,
        claim: &Claim,
        stored: Result<Option<(Cursor, Etag)>, HeaderError>,
    ) -> Result<bool, Leave> {
        let stored = self.stored(stored).unwrap_or_default();
        let (Some((cursor, etag)), Some(running)) = (stored, self.batches.get_mut(&claim.batch))
        else {
            return Ok(false);
        };
        if cursor == claim.cursor {
            running.cursor = Some((cursor, etag));
            return Ok(true);
        }
        let again = running.claimed_by(cursor, etag);
        self.unfed.extend(again.into_iter().map(|index| (claim.batch, index)));
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_two_rounds_of_work_and_two_seconds_of_what_is_done() {
        let config = LeadConfig::new("d");
        #[rustfmt::skip]
        let table = [
            // capacity  rate      window
            (0,          0.,       16),   // somebody may come
            (8,          0.,       16),
            (100,        0.,       200),
            (100,        30.2,     261),
            (1_000_000,  0.,       5000), // a window, not the batch
            (u64::MAX,   f64::NAN, 16),
        ];
        for (capacity, rate, want) in table {
            assert_eq!(window(&config, capacity, rate), want, "{capacity}, {rate}");
        }
    }
}
