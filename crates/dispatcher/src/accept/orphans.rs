//! Objects of an upload that may come to nothing.

use std::sync::Arc;

use excite_jobs::store::Store;
use tracing::warn;

/// Keys that belong to nobody until [`Orphans::keep`]; dropped before, their objects are taken away.
pub(super) struct Orphans {
    store: Arc<dyn Store>,
    keys: Vec<String>,
}

impl Orphans {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, keys: Vec::new() }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// An object that will be put.
    pub(super) fn add(&mut self, key: &str) {
        self.keys.push(key.to_owned());
    }

    /// They belong to a batch now, or may.
    pub(super) fn keep(&mut self) {
        self.keys.clear();
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if keys.is_empty() {
            return;
        }
        let store = self.store.clone();
        runtime.spawn(async move {
            // What stays is swept a day later.
            if let Err(error) = store.delete(&keys).await {
                warn!(%error, objects = keys.len(), "an upload's parts were not taken away");
            }
        });
    }
}
