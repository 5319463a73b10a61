//! A store that fails when it is told to.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use excite_jobs::store::directory::DirectoryStore;
use excite_jobs::store::{Condition, Etag, Head, Object, Page, Store, StoreError};

/// A directory behind a line that can be cut.
pub(crate) struct Flaky {
    pub(crate) inner: DirectoryStore,
    down: AtomicBool,
    refused: AtomicU32,
}

impl Flaky {
    pub(crate) fn new(inner: DirectoryStore) -> Self {
        Self { inner, down: AtomicBool::new(false), refused: AtomicU32::new(0) }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Calls that failed.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(Ordering::SeqCst)
    }

    fn ask(&self, key: &str) -> Result<&DirectoryStore, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable { key: key.into(), message: "503".into() });
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Store for Flaky {
    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> Result<Etag, StoreError> {
        self.ask(key)?.put(key, body, condition).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.ask(key)?.get(key).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.ask(key)?.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        folders: bool,
    ) -> Result<Page, StoreError> {
        self.ask(prefix)?.list(prefix, after, folders).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.ask("")?.delete(keys).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        self.ask(key)?.put_file(key, path).await
    }

    async fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError> {
        self.ask(key)?.get_file(key, path).await
    }

    async fn probe(&self, name: &str) -> Result<(), StoreError> {
        self.ask(name)?.probe(name).await
    }
}
