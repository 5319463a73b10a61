//! The header of a batch in the store: read, and changed by compare-and-set.
//!
//! A batch is there if its header is. Not here: how it comes there (accept).

use std::time::Duration;

use excite_jobs::store::{Condition, Etag, Store, StoreError};
use excite_jobs::{Batch, BatchId, keys};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Tries of a change: more than this many at once for one batch is a fault, not a race.
const TRIES_MAX: u32 = 20;
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Why a header, or another small document, cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be read: another version wrote it, or it is damaged.
    #[error("`{key}` cannot be read: {message}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// Others changed it at the same time, again and again.
    #[error("`{key}` was changed by others {TRIES_MAX} times in a row; try again")]
    Contended {
        /// The key.
        key: String,
    },
}

impl HeaderError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

/// The header of a batch with its version; `None` if there is no such batch.
///
/// # Errors
/// See [`HeaderError`].
pub async fn load(store: &dyn Store, batch: BatchId) -> Result<Option<(Batch, Etag)>, HeaderError> {
    document(store, &keys::batch(batch)).await
}

/// Changes a header: `change` is handed the current one and says whether it changed it; it may be
/// called several times. `revision` is raised. `None` if there is no such batch.
///
/// # Errors
/// See [`HeaderError`].
pub async fn change(
    store: &dyn Store,
    batch: BatchId,
    mut change: impl FnMut(&mut Batch) -> bool + Send,
) -> Result<Option<Batch>, HeaderError> {
    let change = |header: &mut Batch| {
        let changed = change(header);
        header.revision += u64::from(changed);
        changed
    };
    change_document(store, &keys::batch(batch), change).await
}

/// Changes a JSON document of the store as [`change`] does a header; `None` if there is none.
pub(crate) async fn change_document<T: DeserializeOwned + Serialize>(
    store: &dyn Store,
    key: &str,
    mut change: impl FnMut(&mut T) -> bool + Send,
) -> Result<Option<T>, HeaderError> {
    for _ in 0..TRIES_MAX {
        let Some((mut found, etag)) = document::<T>(store, key).await? else { return Ok(None) };
        if !change(&mut found) {
            return Ok(Some(found));
        }
        match store.put(key, json(&found), Condition::Unchanged(etag)).await {
            Ok(_) => return Ok(Some(found)),
            Err(StoreError::Conflict(_)) => pause().await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(HeaderError::Contended { key: key.to_owned() })
}

/// Waits a little while, so that two that race do not race again.
pub(crate) async fn pause() {
    let most = PAUSE_MAX.as_millis() as u64;
    let pause = Duration::from_millis(rand::rng().random_range(1..=most));
    tokio::time::sleep(pause).await;
}

/// A JSON document of the store with its version; `None` if there is none.
pub(crate) async fn document<T: DeserializeOwned>(
    store: &dyn Store,
    key: &str,
) -> Result<Option<(T, Etag)>, HeaderError> {
    let Some(object) = store.get(key).await? else { return Ok(None) };
    match serde_json::from_slice(&object.body) {
        Ok(value) => Ok(Some((value, object.etag))),
        Err(e) => Err(HeaderError::Unreadable { key: key.to_owned(), message: e.to_string() }),
    }
}

/// A document of ours as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> bytes::Bytes {
    // Our documents have string keys and finite numbers; `null` would be refused when it is read.
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec()).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use excite_jobs::store::directory::DirectoryStore;

    use super::*;

    #[tokio::test]
    async fn changes_at_the_same_time_are_all_made() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(folder.path()).unwrap());
        let id = BatchId::new();
        assert_eq!(change(&*store, id, |_| true).await.unwrap(), None);
        let header = serde_json::json!({"v": 1, "id": id, "revision": 1, "tenant": "default",
            "created_at": "2026-01-02T03:04:05Z", "jobs": 1, "lines": 1, "parts": [],
            "model": "emoji@0", "class": "default", "lane": "bulk", "max_attempts": 8,
            "weight": 1, "work": {"plain": 1., "guided": 0.}, "body_sha256": ""});
        let body = header.to_string().into();
        store.put(&keys::batch(id), body, Condition::Always).await.unwrap();
        let raise = |_| {
            let store = store.clone();
            async move {
                change(&*store, id, |batch| {
                    batch.weight += 1;
                    true
                })
                .await
            }
        };
        for changed in futures::future::join_all((0..6).map(raise)).await {
            changed.unwrap();
        }
        let unchanged = change(&*store, id, |_| false).await.unwrap().unwrap();
        assert_eq!((unchanged.weight, unchanged.revision), (7, 7));
    }
}
