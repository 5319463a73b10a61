//! Waiting for a store that can be used.

use std::time::Duration;

use excite_jobs::store::{Store, StoreError};
use tracing::warn;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

/// Tries the store until it can be written to and read from, and `tell`s why it cannot meanwhile:
/// a bucket may be made, and a permission given, while a service waits for it.
///
/// # Errors
/// If no waiting helps: the store ignores conditions, so that two services would undo each other's
/// work.
pub async fn usable(
    store: &dyn Store,
    name: &str,
    tell: impl Fn(&StoreError),
) -> Result<(), StoreError> {
    let mut pause = FIRST;
    loop {
        let error = match store.probe(name).await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Unsuitable(_)) => return Err(error),
            Err(error) => error,
        };
        warn!(%error, again_seconds = pause.as_secs(), "the store cannot be used yet");
        tell(&error);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}
