//! Headers and summaries of batches that are looked at, kept for a moment: pages ask for the same
//! batch again and again, and a store answers slowest when it is busy with what they look at.
//!
//! Not here: sums, which come from the mirror and are always as they are now; who decides about a
//! batch, who reads the store itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use excite_jobs::store::Store;
use excite_jobs::{Batch, BatchId, Summary, keys};
use tokio::time::Instant;

use crate::header::{self, HeaderError};

/// How long a look is good. After that it is still shown, and read anew behind the answer.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look is shown: a change that another replica made shows here after that.
const SHOWN: Duration = Duration::from_secs(2);
/// Batches that are kept: more than are looked at within [`SHOWN`].
const BATCHES_MAX: usize = 1000;

/// A batch without its sums.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// Its header.
    pub(super) batch: Arc<Batch>,
    /// How it ended, if it did.
    pub(super) ended: Option<Arc<Summary>>,
}

pub(super) struct Looks {
    store: Arc<dyn Store>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    looks: HashMap<BatchId, KeptLook>,
    /// Rises with each change: what was read before one is not kept after it.
    changes: u64,
}

struct KeptLook {
    look: Look,
    at: Instant,
    is_read: bool,
}

impl Looks {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, kept: Mutex::default() })
    }

    /// A batch as it was at most [`SHOWN`] ago; `None` if there is no such batch.
    pub(super) async fn of(self: &Arc<Self>, id: BatchId) -> Result<Option<Look>, HeaderError> {
        let Some((look, read_anew)) = self.kept(id) else { return self.read(id).await };
        if read_anew {
            let looks = self.clone();
            // If it fails, the next who asks after `SHOWN` reads, and is told.
            tokio::spawn(async move { looks.read(id).await.is_ok() });
        }
        Ok(Some(look))
    }

    /// A batch as it is in the store; `None` if there is no such batch.
    pub(super) async fn read(&self, id: BatchId) -> Result<Option<Look>, HeaderError> {
        let (at, changes) = (Instant::now(), self.lock().changes);
        let (found, ended) = tokio::join!(header::load(&*self.store, id), self.ended(id));
        let Some((batch, _)) = found? else {
            self.forget(id);
            return Ok(None);
        };
        let look = Look { batch: Arc::new(batch), ended: ended? };
        let mut kept = self.lock();
        if kept.changes == changes {
            kept.looks.retain(|_, look| look.at.elapsed() < SHOWN);
            // A read that began earlier may end later.
            let newer = kept.looks.get(&id).is_some_and(|known| known.at > at);
            if !newer && kept.looks.len() < BATCHES_MAX {
                kept.looks.insert(id, KeptLook { look: look.clone(), at, is_read: false });
            }
        }
        Ok(Some(look))
    }

    /// How a batch ended, if it did, as it is in the store.
    pub(super) async fn ended(&self, id: BatchId) -> Result<Option<Arc<Summary>>, HeaderError> {
        let summary = header::document(&*self.store, &keys::summary(id)).await?;
        Ok(summary.map(|(summary, _)| Arc::new(summary)))
    }

    /// A batch was changed here: the next who asks sees it.
    pub(super) fn forget(&self, id: BatchId) {
        let mut kept = self.lock();
        kept.looks.remove(&id);
        kept.changes += 1;
    }

    /// What is kept of a batch, and whether the caller is the one to read it anew.
    fn kept(&self, id: BatchId) -> Option<(Look, bool)> {
        let mut kept = self.lock();
        let kept = kept.looks.get_mut(&id)?;
        let age = kept.at.elapsed();
        if age >= SHOWN {
            return None;
        }
        let read_anew = age >= FRESH && !kept.is_read;
        kept.is_read |= read_anew;
        Some((kept.look.clone(), read_anew))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::store::Condition;
    use excite_jobs::store::directory::DirectoryStore;
    use tokio::time::{advance, sleep};

    use super::*;

    async fn put(store: &DirectoryStore, id: BatchId, weight: u32) {
        let header = serde_json::json!({"v": 1, "id": id, "revision": 1, "tenant": "default",
            "created_at": "2026-01-02T03:04:05Z", "jobs": 1, "lines": 1, "parts": [],
            "model": "emoji@0", "class": "default", "lane": "bulk", "max_attempts": 8,
            "weight": weight, "work": {"plain": 1., "guided": 0.}, "body_sha256": ""});
        store.put(&keys::batch(id), header.to_string().into(), Condition::Always).await.unwrap();
    }

    fn looks() -> (tempfile::TempDir, Arc<DirectoryStore>, Arc<Looks>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(folder.path()).unwrap());
        (folder, store.clone(), Looks::new(store))
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_kept_then_read_behind_the_answer_then_before_it() {
        let (_folder, store, looks) = looks();
        let id = BatchId::new();
        let weight = async || looks.of(id).await.unwrap().map(|look| look.batch.weight);
        assert_eq!(weight().await, None);
        put(&store, id, 1).await;
        assert_eq!(weight().await, Some(1), "that there is none is not kept");
        put(&store, id, 2).await;
        advance(FRESH / 2).await;
        assert_eq!(weight().await, Some(1));
        sleep(FRESH / 10).await;
        assert_eq!(weight().await, Some(1), "it is still good: nobody read it");
        advance(FRESH / 2).await;
        assert_eq!(weight().await, Some(1), "this one does not wait");
        sleep(FRESH / 10).await;
        assert_eq!(weight().await, Some(2), "it was read for the next");
        put(&store, id, 3).await;
        advance(SHOWN).await;
        assert_eq!(weight().await, Some(3), "too old to be shown");
        store.delete(&[keys::batch(id)]).await.unwrap();
        advance(SHOWN).await;
        assert_eq!(weight().await, None);
    }

    #[test]
    fn a_change_shows_at_once_also_if_a_read_began_before_it() {
        // One thread reads files, so that a read can be held up.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).max_blocking_threads(1).build();
        runtime.unwrap().block_on(async {
            let (_folder, store, looks) = looks();
            let id = BatchId::new();
            put(&store, id, 1).await;
            let (release, held) = std::sync::mpsc::channel::<()>();
            let holding = tokio::task::spawn_blocking(move || held.recv());
            let mut reading = std::pin::pin!(looks.read(id));
            assert!(futures::poll!(&mut reading).is_pending());
            release.send(()).unwrap();
            holding.await.unwrap().unwrap();
            put(&store, id, 2).await;
            looks.forget(id);
            let read = reading.await.unwrap().unwrap();
            assert_eq!(read.batch.weight, 1, "it began before the change");
            assert_eq!(looks.of(id).await.unwrap().unwrap().batch.weight, 2);
            put(&store, id, 3).await;
            assert_eq!(looks.of(id).await.unwrap().unwrap().batch.weight, 2, "it is kept now");
            looks.forget(id);
            assert_eq!(looks.of(id).await.unwrap().unwrap().batch.weight, 3);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_has_a_bound() {
        let (_folder, store, looks) = looks();
        for _ in 0..BATCHES_MAX + 10 {
            let id = BatchId::new();
            put(&store, id, 1).await;
            looks.of(id).await.unwrap().unwrap();
        }
        assert_eq!(looks.lock().looks.len(), BATCHES_MAX);
        advance(SHOWN).await;
        let id = BatchId::new();
        put(&store, id, 1).await;
        looks.of(id).await.unwrap().unwrap();
        assert_eq!(looks.lock().looks.len(), 1, "what is too old made room");
    }
}
