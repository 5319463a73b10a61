//! Takes away what uploads left behind that were never committed, and tells the leading dispatcher
//! again of those that were.

use std::time::Duration;

use excite_jobs::store::{Store, StoreError};
use excite_jobs::{BatchId, keys};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::commit::announce;
use crate::objects;
use crate::ports::Ports;

/// Between two sweeps.
const PAUSE: Duration = Duration::from_secs(600);
/// An upload that is older and not committed is dead: by its name, so a clock that is wrong by
/// hours does no harm.
const AGE_SECONDS: i64 = 24 * 3600;

/// Sweeps now and then until `stop`.
pub async fn sweeper(ports: Ports, stop: CancellationToken) {
    loop {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if let Err(error) = sweep(&ports, now - AGE_SECONDS).await {
            warn!(%error, "the sweep was not finished");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// One sweep over all batches that were begun before `until` (seconds since 1970), and over all
/// marks.
pub(super) async fn sweep(ports: &Ports, until: i64) -> Result<(), StoreError> {
    let store = &*ports.store;
    let old = |id: BatchId| objects::begun_at(id) < until;
    each(store, keys::ACTIVE_PREFIX, false, async |id| {
        if store.head(&keys::batch(id)).await?.is_some() {
            // Cheap, and whoever accepted it may have died before the broker was back.
            announce(ports, id, None);
        } else if old(id) {
            store.delete(&[keys::active(id)]).await?;
        }
        Ok(old(id))
    })
    .await?;
    each(store, keys::BATCHES_PREFIX, true, async |id| {
        if old(id) && store.head(&keys::batch(id)).await?.is_none() {
            let gone = objects::delete_all(store, &keys::batch_prefix(id), None).await?;
            info!(batch = %id, objects = gone, "an upload that was never committed is taken away");
        }
        // Names sort by time: those behind are younger.
        Ok(old(id))
    })
    .await
}

/// Calls `visit` with each batch that has something behind a prefix, until it says `false`, which
/// for marks it never needs to.
async fn each(
    store: &dyn Store,
    prefix: &str,
    folders: bool,
    visit: impl AsyncFn(BatchId) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), folders).await?;
        for key in &page.keys {
            let name = key[prefix.len()..].trim_end_matches('/');
            let Ok(id) = name.parse() else { continue };
            let go_on = visit(id).await?;
            if folders && !go_on {
                return Ok(());
            }
        }
        match page.keys.last() {
            Some(last) if page.more => after = Some(objects::behind(last)),
            _ => return Ok(()),
        }
    }
}
