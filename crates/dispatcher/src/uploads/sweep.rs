//! Takes away uploads that nobody committed in time, and what is left of parts of those that were.

use excite_jobs::store::{Store, StoreError};
use excite_jobs::{UploadId, keys};
use tracing::{info, warn};

use super::Upload;
use crate::header::{self, HeaderError};
use crate::objects;

/// Looks at a page of uploads that were begun before `until` (seconds since 1970). Up to `swept`
/// every upload was looked at before; the next page begins there. Says how many went.
///
/// # Errors
/// If the store fails; the next call goes on where this one stopped.
pub async fn sweep(
    store: &dyn Store,
    until: i64,
    swept: &mut Option<String>,
) -> Result<u64, HeaderError> {
    let mut gone = 0;
    let page = store.list(keys::UPLOADS_PREFIX, swept.as_deref(), true).await?;
    for key in page.keys {
        let name = key.strip_prefix(keys::UPLOADS_PREFIX).map(|name| name.trim_end_matches('/'));
        if let Some(id) = name.and_then(|name| name.parse::<UploadId>().ok()) {
            // Names sort by time: those behind are younger.
            if objects::begun_at(id) >= until {
                break;
            }
            gone += u64::from(sweep_upload(store, id).await?);
        }
        *swept = Some(key);
    }
    Ok(gone)
}

/// Whether it went.
async fn sweep_upload(store: &dyn Store, id: UploadId) -> Result<bool, HeaderError> {
    match header::document::<Upload>(store, &keys::upload(id)).await {
        Ok(Some((upload, _))) if upload.batch.is_some() => {
            objects::delete_all(store, &keys::upload_parts(id), None).await?;
            Ok(false)
        }
        // Also without a document: whoever deleted it did not come to its parts.
        Ok(_) => {
            delete(store, id).await?;
            info!(upload = %id, "an upload that was never committed is taken away");
            Ok(true)
        }
        // One that nobody can read must not stop all others.
        Err(error @ HeaderError::Unreadable { .. }) => {
            warn!(upload = %id, %error, "left out");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes all of an upload away, its document first.
pub(super) async fn delete(store: &dyn Store, id: UploadId) -> Result<(), StoreError> {
    store.delete(&[keys::upload(id)]).await?;
    objects::delete_all(store, &keys::upload_prefix(id), None).await.map(drop)
}
