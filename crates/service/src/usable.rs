//! Waiting for a store that can be used.

use excite_jobs::store::{Store, StoreError};
use tracing::warn;

use crate::Pauses;

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
    let mut pauses = Pauses::default();
    loop {
        let error = match store.probe(name).await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Unsuitable(_)) => return Err(error),
            Err(error) => error,
        };
        warn!(%error, "the store cannot be used yet");
        tell(&error);
        pauses.pause().await;
    }
}
