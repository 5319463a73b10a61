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
    let mut swept = None;
    loop {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if let Err(error) = sweep(&ports, now - AGE_SECONDS, &mut swept).await {
            warn!(%error, "the sweep was not finished");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// One sweep over what was begun before `until` (seconds since 1970), and over all marks. Up to
/// `swept` every batch was looked at before.
pub(super) async fn sweep(
    ports: &Ports,
    until: i64,
    swept: &mut Option<String>,
) -> Result<(), StoreError> {
    let store = &*ports.store;
    let old = |id: BatchId| objects::begun_at(id) < until;
    let mut after: Option<String> = None;
    loop {
        let page = store.list(keys::ACTIVE_PREFIX, after.as_deref(), false).await?;
        for id in page.keys.iter().filter_map(|key| id_of(key, keys::ACTIVE_PREFIX)) {
            if store.head(&keys::batch(id)).await?.is_some() {
                // Cheap, and whoever accepted it may have died before the broker was back.
                announce(ports, id, None);
            } else if old(id) {
                store.delete(&[keys::active(id)]).await?;
            }
        }
        after = page.keys.last().filter(|_| page.more).cloned();
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = store.list(keys::BATCHES_PREFIX, swept.as_deref(), true).await?;
        for key in &page.keys {
            if let Some(id) = id_of(key, keys::BATCHES_PREFIX) {
                // Names sort by time: those behind are younger.
                if !old(id) {
                    return Ok(());
                }
                sweep_batch(store, id).await?;
            }
            *swept = Some(key.clone());
        }
        if !page.more {
            return Ok(());
        }
    }
}

async fn sweep_batch(store: &dyn Store, id: BatchId) -> Result<(), StoreError> {
    if store.head(&keys::batch(id)).await?.is_none() {
        let gone = objects::delete_all(store, &keys::batch_prefix(id), None).await?;
        info!(batch = %id, objects = gone, "an upload that was never committed is taken away");
    }
    Ok(())
}

fn id_of(key: &str, prefix: &str) -> Option<BatchId> {
    key.strip_prefix(prefix)?.trim_end_matches('/').parse().ok()
}
