//! Uploads in parts: what has arrived of a batch, kept in the store until it is committed.
//!
//! `upload.json` names the object of each part and is changed by compare-and-set: a part is there
//! when it is named. Every request stores an object of its own, so nobody writes over what somebody
//! else reads, and what is named no more is taken away. A committed upload keeps its document, so
//! that whoever commits again finds the batch.
//!
//! Not here: HTTP (`http::uploads`), what the parts say (`accept`).

mod read;
mod sweep;
mod upload;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use excite_jobs::store::{Condition, Store, StoreError};
use excite_jobs::{BatchId, UploadId, VERSION, keys, limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tracing::warn;
use uuid::Uuid;

pub(crate) use self::read::Trouble;
pub use self::sweep::sweep;
pub(crate) use self::upload::{StoredPart, Upload};
use crate::header::{self, HeaderError, change_document, document};
use crate::objects;

/// Parts that are received at a time: each has a file of up to 64 MiB.
const PARTS_AT_A_TIME: usize = 32;
/// How long a part may wait for its turn.
const TURN_MAX: Duration = Duration::from_secs(10);
/// Tries to take an idempotency key: more than this many at once is a fault, not a race.
const TRIES_MAX: u32 = 20;

/// Why an upload cannot be begun, added to or committed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Nobody began it, or it was taken away.
    #[error("there is no upload {0}")]
    Missing(UploadId),
    /// It is a batch already.
    #[error("upload {upload} was committed as batch {batch}")]
    Committed {
        /// The upload.
        upload: UploadId,
        /// Its batch.
        batch: BatchId,
    },
    /// The idempotency key began another upload.
    #[error("the idempotency key began upload {0}, with other options")]
    KeyReused(UploadId),
    /// A part is too long.
    #[error("the part has more than {} bytes", limits::UPLOAD_PART_BYTES_MAX)]
    PartTooLarge,
    /// All parts are too long.
    #[error("the parts have more than {} bytes together", limits::BATCH_BYTES_MAX)]
    TooLarge,
    /// Parts that are to be committed have not arrived.
    #[error("{count} of {parts} parts are missing: {first}")]
    PartsMissing {
        /// How many are missing.
        count: usize,
        /// How many there should be.
        parts: u32,
        /// Numbers of the first that are missing, for people.
        first: String,
    },
    /// A part was replaced, or the upload taken away, while it was committed.
    #[error("part {0} was replaced or taken away meanwhile")]
    PartGone(u32),
    /// The store takes too long.
    #[error("part {0} was not read within {secs} s", secs = read::FETCH_MAX.as_secs())]
    Slow(u32),
    /// This machine has no room for a part.
    #[error("part {n} cannot be kept while it is read: {message}")]
    Disk {
        /// The part.
        n: u32,
        /// What the system says.
        message: String,
    },
    /// As many parts as can be received at a time are being received.
    #[error("too many parts at a time")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document of the store cannot be read or changed.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Whose upload an idempotency key began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UploadKey {
    v: u32,
    upload: UploadId,
    options_sha256: String,
}

/// The uploads.
pub(crate) struct Uploads {
    store: Arc<dyn Store>,
    turns: Semaphore,
    /// Uploads that are being committed here.
    commits: Mutex<BTreeMap<UploadId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Uploads {
    /// In a store.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, turns: Semaphore::new(PARTS_AT_A_TIME), commits: Mutex::default() }
    }

    /// Begins an upload, or finds the one that the idempotency key began with the same options;
    /// `true` if it is new.
    pub(crate) async fn begin(
        &self,
        upload: Upload,
        key: Option<&str>,
    ) -> Result<(Upload, bool), UploadError> {
        let own = keys::upload(upload.id);
        // Before the key, so that a key names an upload that is there, or was.
        self.store.put(&own, header::json(&upload), Condition::Absent).await?;
        let Some(key) = key else { return Ok((upload, true)) };
        match self.take(key, &upload).await {
            Ok(None) => Ok((upload, true)),
            Ok(Some(known)) => {
                self.take_away(&own).await;
                Ok((known, false))
            }
            Err(error) => {
                // After other failures the key may name it all the same. If it does not, it is swept.
                if matches!(error, UploadError::KeyReused(_)) {
                    self.take_away(&own).await;
                }
                Err(error)
            }
        }
    }

    /// Makes the key name an upload; or the one that it names already.
    async fn take(&self, key: &str, upload: &Upload) -> Result<Option<Upload>, UploadError> {
        // Apart from the keys of batches: a header has no such character.
        let hash = Sha256::digest(format!("uploads\0{key}"));
        let object = keys::idempotency(&format!("{hash:x}"));
        let options_sha256 = upload.options_sha256();
        let own = UploadKey { v: VERSION, upload: upload.id, options_sha256 };
        let mut condition = Condition::Absent;
        for _ in 0..TRIES_MAX {
            match self.store.put(&object, header::json(&own), condition.clone()).await {
                Ok(_) => return Ok(None),
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let Some((found, etag)) = document::<UploadKey>(&*self.store, &object).await? else {
                condition = Condition::Absent;
                continue;
            };
            // Our own put, whose answer was lost.
            if found.upload == upload.id {
                return Ok(None);
            }
            if found.options_sha256 != own.options_sha256 {
                return Err(UploadError::KeyReused(found.upload));
            }
            match self.load(found.upload).await {
                Ok(known) => return Ok(Some(known)),
                // It was swept or deleted: the key is free for another one.
                Err(UploadError::Missing(_)) => condition = Condition::Unchanged(etag),
                Err(error) => return Err(error),
            }
            header::pause().await;
        }
        Err(HeaderError::Contended { key: object }.into())
    }

    /// An upload that somebody began.
    pub(crate) async fn load(&self, id: UploadId) -> Result<Upload, UploadError> {
        let found = document::<Upload>(&*self.store, &keys::upload(id)).await?;
        found.map(|(upload, _)| upload).ok_or(UploadError::Missing(id))
    }

    /// A turn to receive a part.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, UploadError> {
        let turn = tokio::time::timeout(TURN_MAX, self.turns.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(UploadError::Busy)
    }

    /// Stores a part that has arrived whole, in place of an earlier one of its number.
    pub(crate) async fn add_part(
        &self,
        id: UploadId,
        n: u32,
        path: &Path,
        bytes: u64,
        sha256: &str,
    ) -> Result<(), UploadError> {
        let key = keys::upload_part(id, n, Uuid::now_v7());
        let part = StoredPart { key: key.clone(), bytes, sha256: sha256.to_owned() };
        self.store.put_file(&key, path).await?;
        let mut inserted = Ok(None);
        let insert = |upload: &mut Upload| {
            inserted = upload.insert(n, part.clone());
            inserted.is_ok()
        };
        // What fails here may have happened all the same: the object stays, and goes with the rest.
        let changed = change_document(&*self.store, &keys::upload(id), insert).await?;
        let inserted = match changed {
            Some(_) => inserted,
            None => Err(UploadError::Missing(id)),
        };
        match inserted {
            Ok(None) => Ok(()),
            Ok(Some(replaced)) => {
                self.take_away(&replaced.key).await;
                Ok(())
            }
            Err(error) => {
                self.take_away(&key).await;
                Err(error)
            }
        }
    }

    /// A turn to commit an upload: whoever commits it again meanwhile waits for what comes of it.
    pub(crate) async fn commit_turn(&self, id: UploadId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            commits.retain(|_, lock| lock.strong_count() > 0);
            let known = commits.get(&id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::default();
                commits.insert(id, Arc::downgrade(&new));
                new
            })
        };
        lock.lock_owned().await
    }

    /// Remembers the batch of an upload and takes its parts away.
    pub(crate) async fn committed(&self, id: UploadId, batch: BatchId) -> Result<(), UploadError> {
        let mark = |upload: &mut Upload| upload.batch.replace(batch) != Some(batch);
        change_document(&*self.store, &keys::upload(id), mark).await?;
        objects::delete_all(&*self.store, &keys::upload_parts(id), None).await?;
        Ok(())
    }

    /// Takes an upload away, its document first: from then on nothing is added.
    pub(crate) async fn delete(&self, id: UploadId) -> Result<(), UploadError> {
        self.load(id).await?;
        Ok(sweep::delete(&*self.store, id).await?)
    }

    /// Takes an object away that nothing names; if that fails, it goes with its upload.
    async fn take_away(&self, key: &str) {
        if let Err(error) = self.store.delete(&[key.to_owned()]).await {
            warn!(key, %error, "an object that is not needed stays for now");
        }
    }
}
