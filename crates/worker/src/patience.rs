//! Waiting for a store that fails: calls are tried again for a while before a job fails of it.
//!
//! Meanwhile nothing is acknowledged, so the worker takes nothing new: that is the back-pressure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use excite_jobs::store::{Condition, Etag, Head, Object, Store, StoreError};
use excite_jobs::{Class, Failure};
use excite_service::Pauses;
use tokio::time::Instant;
use tracing::warn;

use crate::metrics::Metrics;

/// The store, with patience.
#[derive(Clone)]
pub(crate) struct PatientStore {
    store: Arc<dyn Store>,
    patience: Duration,
    metrics: Metrics,
}

impl PatientStore {
    pub(crate) fn new(store: Arc<dyn Store>, patience: Duration, metrics: Metrics) -> Self {
        Self { store, patience, metrics }
    }

    /// As [`Store::put`].
    ///
    /// # Errors
    /// The last one, here and below; at once if trying again cannot help.
    pub(crate) async fn put(
        &self,
        key: &str,
        body: &Bytes,
        condition: &Condition,
    ) -> Result<Etag, StoreError> {
        self.call(|| self.store.put(key, body.clone(), condition.clone())).await
    }

    /// As [`Store::get`].
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.call(|| self.store.get(key)).await
    }

    /// As [`Store::head`].
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.call(|| self.store.head(key)).await
    }

    /// The first page of [`Store::list`].
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.call(|| self.store.list(prefix, None, false)).await?.keys)
    }

    /// Calls until there is an answer or patience ends.
    async fn call<T, F>(&self, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let (began, mut pauses) = (Instant::now(), Pauses::default());
        loop {
            match call().await {
                Err(error) if error.is_transient() && began.elapsed() < self.patience => {
                    warn!(%error, "the store failed; it is tried again");
                    self.metrics.store_retries.inc();
                    pauses.pause().await;
                }
                answer => return answer,
            }
        }
    }

    /// Calls the store once.
    pub(crate) fn once(&self) -> &dyn Store {
        self.store.as_ref()
    }
}

/// What a failure of the store means for a job.
pub(crate) fn failure(error: &StoreError) -> Failure {
    Failure::new(Class::Transient, "store", error.to_string())
}
