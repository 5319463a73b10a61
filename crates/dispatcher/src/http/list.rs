//! Which batches there are: the names of all, kept in memory, because a store lists the oldest
//! first and people want the newest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use excite_jobs::store::{Store, StoreError};
use excite_jobs::{BatchId, keys};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::objects;

/// How long the names are good: a batch accepted elsewhere shows after that.
const KEPT: Duration = Duration::from_secs(1);
/// After that all names are read again, because batches are taken away elsewhere, too.
const ALL_AGAIN: Duration = Duration::from_secs(600);
/// A batch may show that much later than its name says: its upload takes time, and clocks differ.
const LATE_SECONDS: i64 = 2 * 3600;

/// Names of batches, also of some that are still being uploaded.
pub(super) struct BatchList {
    store: Arc<dyn Store>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    ids: BTreeSet<BatchId>,
    read: Option<Instant>,
    read_all: Option<Instant>,
}

impl BatchList {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// Up to `count` names, the newest first, older than `before`.
    pub(super) async fn newest(
        &self,
        before: Option<BatchId>,
        count: usize,
    ) -> Result<Vec<BatchId>, StoreError> {
        // One request reads, the others wait for it.
        let mut known = self.known.lock().await;
        self.refresh(&mut known).await?;
        let older = |id: &&BatchId| before.is_none_or(|before| **id < before);
        Ok(known.ids.iter().rev().filter(older).take(count).copied().collect())
    }

    /// A batch that was accepted here shows at once.
    pub(super) async fn add(&self, id: BatchId) {
        self.known.lock().await.ids.insert(id);
    }

    /// A batch that was taken away here is gone at once.
    pub(super) async fn remove(&self, id: BatchId) {
        self.known.lock().await.ids.remove(&id);
    }

    async fn refresh(&self, known: &mut Known) -> Result<(), StoreError> {
        let older = |at: Option<Instant>, than| at.is_none_or(|at| at.elapsed() >= than);
        if !older(known.read, KEPT) {
            return Ok(());
        }
        if older(known.read_all, ALL_AGAIN) {
            known.ids = self.read(None).await?;
            known.read_all = Some(Instant::now());
        } else {
            let after = known.ids.last().map(|last| {
                let from = (objects::begun_at(*last) - LATE_SECONDS).max(0);
                let hex = format!("{:012x}", from * 1000);
                format!("{}{}-{}", keys::BATCHES_PREFIX, &hex[..8], &hex[8..])
            });
            known.ids.extend(self.read(after).await?);
        }
        known.read = Some(Instant::now());
        Ok(())
    }

    async fn read(&self, after: Option<String>) -> Result<BTreeSet<BatchId>, StoreError> {
        let mut after = after;
        let mut ids = BTreeSet::new();
        loop {
            let page = self.store.list(keys::BATCHES_PREFIX, after.as_deref(), true).await?;
            let id = |key: &String| {
                key.strip_prefix(keys::BATCHES_PREFIX)?.strip_suffix('/')?.parse::<BatchId>().ok()
            };
            ids.extend(page.keys.iter().filter_map(id));
            match page.keys.last() {
                Some(last) if page.more => after = Some(last.clone()),
                _ => return Ok(ids),
            }
        }
    }
}
