//! Finds out whether a store can be used. The same for every back end.

use bytes::Bytes;
use uuid::Uuid;

use super::{Condition, Etag, Store, StoreError};
use crate::keys;

const REMEDY: &str = "excite needs conditional writes (If-None-Match and If-Match on PUT), which \
    AWS S3, MinIO, Ceph and Cloudflare R2 have: update the server or use another one";

/// Puts, reads, lists and takes away an object below `probe/`, with conditions that hold and that
/// do not: some servers ignore them without an error.
pub(super) async fn probe(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    // Its own each time: another process of that name may be at it, too.
    let key = keys::probe(&format!("{name}-{}", Uuid::new_v4().simple()));
    let found = exercise(store, &key).await;
    let deleted = store.delete(std::slice::from_ref(&key)).await;
    found.and(deleted)?;
    match store.head(&key).await? {
        None => Ok(()),
        Some(_) => Err(StoreError::Unsuitable(format!("`{key}` is there after its deletion"))),
    }
}

async fn exercise(store: &dyn Store, key: &str) -> Result<(), StoreError> {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let etag = store.put(key, first.clone(), Condition::Absent).await?;
    let read = store.get(key).await?;
    if read.is_none_or(|object| object.body != first || object.etag != etag) {
        return Err(StoreError::Unsuitable(format!("`{key}` does not read as it was written")));
    }
    refused(store.put(key, second.clone(), Condition::Absent).await, "If-None-Match")?;
    let changed = store.put(key, second, Condition::Unchanged(etag.clone())).await?;
    if changed == etag {
        let message = format!("`{key}` has the same ETag after a change");
        return Err(StoreError::Unsuitable(message));
    }
    refused(store.put(key, first, Condition::Unchanged(etag)).await, "If-Match")?;
    let page = store.list(key, None, false).await?;
    if page.keys != [key] {
        return Err(StoreError::Unsuitable(format!("`{key}` is stored, but not listed")));
    }
    Ok(())
}

/// What must have been a conflict.
fn refused(put: Result<Etag, StoreError>, header: &str) -> Result<(), StoreError> {
    match put {
        Err(StoreError::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(StoreError::Unsuitable(format!("it ignores `{header}`; {REMEDY}"))),
    }
}
