//! A store and a queue that fail now and then, before or after they did what was asked.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use excite_jobs::queue::{Consumer, Depth, Health, Message, Queue, QueueError, QueueName};
use excite_jobs::store::{Condition, Etag, Head, Object, Page, Store, StoreError};
use excite_jobs::{Lane, Rung};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How long our clients wait for an answer.
const CALL_MAX: Duration = Duration::from_secs(30);

/// How often something fails, in percent; half of it before, half of it after the deed.
pub(crate) struct Faults {
    pub(crate) percent: AtomicU32,
    /// Nothing is answered, as on a link that is dead and open.
    pub(crate) dead: AtomicBool,
    random: Mutex<StdRng>,
}

#[derive(PartialEq)]
enum Fault {
    None,
    Before,
    After,
}

impl Faults {
    pub(crate) fn new(percent: u32) -> Arc<Self> {
        let random = Mutex::new(StdRng::seed_from_u64(7));
        let dead = AtomicBool::new(false);
        Arc::new(Self { percent: AtomicU32::new(percent), dead, random })
    }

    fn draw(&self) -> Fault {
        let mut random = self.random.lock().unwrap();
        match random.random_range(0..100) < self.percent.load(Ordering::Relaxed) {
            true if random.random() => Fault::Before,
            true => Fault::After,
            false => Fault::None,
        }
    }
}

pub(crate) struct FaultyStore(pub(crate) Arc<dyn Store>, pub(crate) Arc<Faults>);

impl FaultyStore {
    async fn call<T>(
        &self,
        key: &str,
        deed: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let failed = || StoreError::Unavailable { key: key.into(), message: "on purpose".into() };
        if self.1.dead.load(Ordering::Relaxed) {
            tokio::time::sleep(CALL_MAX).await;
            return Err(failed());
        }
        match self.1.draw() {
            Fault::Before => Err(failed()),
            Fault::None => deed.await,
            Fault::After => deed.await.and(Err(failed())),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put(&self, key: &str, body: Bytes, on: Condition) -> Result<Etag, StoreError> {
        self.call(key, self.0.put(key, body, on)).await
    }
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.call(key, self.0.get(key)).await
    }
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.call(key, self.0.head(key)).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, f: bool) -> Result<Page, StoreError> {
        self.call(prefix, self.0.list(prefix, after, f)).await
    }
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.call("many", self.0.delete(keys)).await
    }
    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        self.call(key, self.0.put_file(key, path)).await
    }
    async fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError> {
        self.call(key, self.0.get_file(key, path)).await
    }
    async fn probe(&self, name: &str) -> Result<(), StoreError> {
        self.call(name, self.0.probe(name)).await
    }
}

pub(crate) struct FaultyQueue(pub(crate) Arc<dyn Queue>, pub(crate) Arc<Faults>);

impl FaultyQueue {
    async fn call<T>(
        &self,
        deed: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        match self.1.draw() {
            Fault::Before => Err(QueueError::Unavailable("on purpose".into())),
            Fault::None => deed.await,
            Fault::After => deed.await.and(Err(QueueError::Timeout(Duration::from_secs(5)))),
        }
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    async fn declare(&self, classes: &[String]) -> Result<(), QueueError> {
        self.call(self.0.declare(classes)).await
    }
    async fn publish_job(
        &self,
        class: &str,
        lane: Lane,
        rung: Option<Rung>,
        message: Message,
    ) -> Result<(), QueueError> {
        self.call(self.0.publish_job(class, lane, rung, message)).await
    }
    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), QueueError> {
        self.call(self.0.publish(queue, message)).await
    }
    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Consumer {
        self.0.consume(queue, prefetch).await
    }
    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        self.call(self.0.depth(queue)).await
    }
    fn health(&self) -> Health {
        self.0.health()
    }
    async fn close(&self) {
        self.0.close().await;
    }
}
