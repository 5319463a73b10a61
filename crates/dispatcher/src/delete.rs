//! Takes a batch away, with its images: its mark first, its header last, so that whoever was
//! interrupted can do it again.

use bytes::Bytes;
use excite_jobs::api::Deletion;
use excite_jobs::queue::{Message, QueueName};
use excite_jobs::store::{Store, StoreError};
use excite_jobs::{BatchId, Control, keys};
use tracing::{info, warn};

use crate::header;
use crate::objects;
use crate::ports::Ports;

/// What goes with a batch.
///
/// # Errors
/// If the store fails.
pub async fn count(store: &dyn Store, batch: BatchId) -> Result<Deletion, StoreError> {
    let images = format!("{}images/", keys::batch_prefix(batch));
    let mut deletion = Deletion { objects: 0, images: 0, deleted: false };
    for prefix in prefixes(batch) {
        let mut after: Option<String> = None;
        loop {
            let page = store.list(&prefix, after.as_deref(), false).await?;
            let image = |key: &&String| key.starts_with(&images) && key.ends_with(".png");
            deletion.objects += page.keys.len() as u64;
            deletion.images += page.keys.iter().filter(image).count() as u64;
            after = page.keys.last().filter(|_| page.more).cloned();
            if after.is_none() {
                break;
            }
        }
    }
    Ok(deletion)
}

/// Where objects of a batch are.
fn prefixes(batch: BatchId) -> [String; 3] {
    // Markers and checkpoints are by job: `<batch>-<index>`.
    [keys::batch_prefix(batch), format!("suspects/{batch}-"), format!("checkpoints/{batch}-")]
}

/// Takes a batch away and tells the leading dispatcher.
///
/// # Errors
/// If the store fails; doing it again goes on.
pub async fn delete(ports: &Ports, batch: BatchId) -> Result<Deletion, StoreError> {
    let store = &*ports.store;
    store.delete(&[keys::active(batch)]).await?;
    let counted = count(store, batch).await?;
    let header = keys::batch(batch);
    let [own, ..] = prefixes(batch);
    for prefix in prefixes(batch) {
        let keep = (prefix == own).then_some(header.as_str());
        objects::delete_all(store, &prefix, keep).await?;
    }
    store.delete(&[header]).await?;
    let body: Bytes = header::json(&Control::Delete { batch });
    let message = Message { body, kind: Control::TYPE.into(), ..Message::default() };
    if let Err(error) = ports.queue.publish(&QueueName::Control, message).await {
        // It finds out itself: the header is gone.
        warn!(%batch, %error, "the leading dispatcher does not know that the batch is gone");
    }
    if let Err(error) = ports.progress.forget(batch).await {
        warn!(%batch, %error, "the mirror of a batch that is gone ends by itself");
    }
    info!(%batch, objects = counted.objects, images = counted.images, "taken away");
    Ok(Deletion { deleted: true, ..counted })
}
