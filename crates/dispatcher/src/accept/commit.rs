//! The moment an upload becomes a batch: key, mark, header, in this order.
//!
//! Of many uploads with one idempotency key the store lets one take it; the others answer with its
//! batch. If that one died in between, whoever comes next commits the batch under the name that the
//! key holds, with its own copies of the parts: nobody writes over what another may refer to.

use std::time::Duration;

use bytes::Bytes;
use excite_jobs::api::BatchOptions;
use excite_jobs::queue::{Message, QueueName};
use excite_jobs::store::{Condition, Store, StoreError};
use excite_jobs::{Batch, BatchId, Control, Idempotency, VERSION, keys};
use excite_service::failpoint;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};

use super::orphans::Orphans;
use super::{AcceptError, Accepted};
use crate::header::{self, HeaderError};
use crate::ports::Ports;

/// How long the one that took the key may need to commit.
const WINNER_MAX: Duration = Duration::from_secs(2);
/// Between two looks at it.
const WINNER_LOOK: Duration = Duration::from_millis(50);
/// First pause before a batch is told to the leading dispatcher again; doubled each time.
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// Longest such pause.
const TELL_AGAIN_MAX: Duration = Duration::from_secs(30);

/// What an idempotency key is claimed for.
pub(super) struct Claim {
    /// Of the object.
    key: String,
    /// Over options and body.
    sha256: String,
}

impl Claim {
    pub(super) fn new(key: &str, options: &BatchOptions, format: &str, body: &str) -> Self {
        let key = keys::idempotency(&format!("{:x}", Sha256::digest(key)));
        let options = BatchOptions { dry_run: false, ..options.clone() };
        let mut hash = Sha256::new();
        hash.update(header::json(&(options, format, body)));
        Self { key, sha256: format!("{:x}", hash.finalize()) }
    }
}

/// Commits a batch whose parts are stored.
pub(super) async fn commit(
    ports: Ports,
    mut batch: Batch,
    claim: Option<Claim>,
    mut orphans: Orphans,
) -> Result<Accepted, AcceptError> {
    let mut adopted = false;
    if let Some(claim) = claim {
        let holder = take(&*ports.store, &claim, batch.id, &mut orphans).await?;
        failpoint::reach("dispatcher_took_key");
        if holder != batch.id {
            if let Some(known) = wait_for(&*ports.store, holder).await? {
                return Ok(Accepted::Known(known));
            }
            warn!(batch = %holder, "its upload died before it was committed, another one takes over");
            batch = adopt(&*ports.store, batch, holder, &mut orphans).await?;
            adopted = true;
        }
    }
    let store = &*ports.store;
    // Of no use without a header, and swept then; a header without it would never be fed.
    store.put(&keys::active(batch.id), Bytes::new(), Condition::Always).await?;
    failpoint::reach("dispatcher_marked_batch");
    let body = header::json(&batch);
    match store.put(&keys::batch(batch.id), body, Condition::Absent).await {
        Ok(_) => {}
        // Somebody else of the same key was faster, or our own first put whose answer was lost.
        Err(StoreError::Conflict(key)) => {
            let there = header::load(store, batch.id).await?;
            let (there, _) = there.ok_or(StoreError::Conflict(key))?;
            if there.parts == batch.parts {
                orphans.keep();
            }
            announce(&ports, there.id, there.traceparent.clone());
            return Ok(if adopted { Accepted::Known(there) } else { Accepted::New(there) });
        }
        Err(error) => {
            // It may be there all the same. If it is not, the sweeper finds the parts.
            orphans.keep();
            return Err(error.into());
        }
    }
    failpoint::reach("dispatcher_committed_batch");
    orphans.keep();
    let (jobs, lines) = (batch.jobs, batch.lines);
    info!(batch = %batch.id, jobs, lines, model = batch.model, lane = %batch.lane, "accepted");
    announce(&ports, batch.id, batch.traceparent.clone());
    Ok(Accepted::New(batch))
}

/// Whose batch the key makes.
async fn take(
    store: &dyn Store,
    claim: &Claim,
    batch: BatchId,
    orphans: &mut Orphans,
) -> Result<BatchId, AcceptError> {
    let document = Idempotency { v: VERSION, batch, body_sha256: claim.sha256.clone() };
    match store.put(&claim.key, header::json(&document), Condition::Absent).await {
        Ok(_) => {
            // From here on another upload may commit this batch.
            orphans.keep();
            Ok(batch)
        }
        Err(StoreError::Conflict(key)) => {
            let found = header::document::<Idempotency>(store, &claim.key).await?;
            let (found, _) = found.ok_or(StoreError::Conflict(key))?;
            if found.body_sha256 != claim.sha256 {
                return Err(AcceptError::KeyReused { batch: found.batch });
            }
            if found.batch == batch {
                orphans.keep();
            }
            Ok(found.batch)
        }
        Err(error) => {
            orphans.keep();
            Err(error.into())
        }
    }
}

async fn wait_for(store: &dyn Store, batch: BatchId) -> Result<Option<Batch>, HeaderError> {
    let start = Instant::now();
    loop {
        if let Some((batch, _)) = header::load(store, batch).await? {
            return Ok(Some(batch));
        }
        if start.elapsed() >= WINNER_MAX {
            return Ok(None);
        }
        tokio::time::sleep(WINNER_LOOK).await;
    }
}

/// The same batch under the name that the key holds.
async fn adopt(
    store: &dyn Store,
    batch: Batch,
    holder: BatchId,
    orphans: &mut Orphans,
) -> Result<Batch, AcceptError> {
    let mut adopted = Batch { id: holder, ..batch.clone() };
    for (n, part) in adopted.parts.iter_mut().enumerate() {
        let object = store.get(&part.key).await?;
        let object = object.ok_or_else(|| StoreError::Damaged {
            key: part.key.clone(),
            message: "it is gone".into(),
        })?;
        part.key = keys::adopted_part(holder, batch.id, n);
        orphans.add(&part.key);
        store.put(&part.key, object.body, Condition::Always).await?;
    }
    Ok(adopted)
}

/// Tells the leading dispatcher of a batch or a change of its header, in the background, until the
/// broker takes it.
pub fn announce(ports: &Ports, batch: BatchId, traceparent: Option<String>) {
    let queue = ports.queue.clone();
    let message = Message {
        body: header::json(&Control::Batch { batch }),
        kind: Control::TYPE.into(),
        traceparent,
        ..Message::default()
    };
    tokio::spawn(async move {
        let mut pause = TELL_AGAIN;
        while let Err(error) = queue.publish(&QueueName::Control, message.clone()).await {
            warn!(%batch, %error, "the leading dispatcher does not know yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TELL_AGAIN_MAX);
        }
    });
}
