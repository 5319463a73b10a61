//! A dispatcher's HTTP on a free port, on ports in memory and in a folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use excite_dispatcher::Ports;
use excite_dispatcher::config::{Dispatcher, Pool};
use excite_dispatcher::http::{App, router, serve};
use excite_dispatcher::metrics::Metrics;
use excite_jobs::api::{BatchView, Problem};
use excite_jobs::progress::memory::MemoryMirror;
use excite_jobs::queue::memory::MemoryQueue;
use excite_jobs::queue::{Consumer, Queue, QueueName};
use excite_jobs::store::directory::DirectoryStore;
use excite_jobs::store::{Condition, Store};
use excite_jobs::{Batch, BatchId, Control, ModelCard, ModelFacts, ModelFile, SchedulerName, keys};
use prometheus::Registry;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long something may take that happens in the background.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// What the test's model is made of.
pub(crate) const WEIGHTS: &[u8] = b"weights";

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) store: Arc<DirectoryStore>,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) mirror: Arc<MemoryMirror>,
    _folder: TempDir,
    _stop: DropGuard,
}

impl Server {
    /// With queues and a model `emoji`.
    pub(crate) async fn start() -> Self {
        let server = Self::bare().await;
        server.offer_model().await;
        server
    }

    async fn offer_model(&self) {
        self.queue.declare(&["default".into()]).await.unwrap();
        let card = card("emoji");
        let file = keys::model_file("emoji", &sha256(WEIGHTS));
        self.store.put(&file, WEIGHTS.into(), Condition::Always).await.unwrap();
        let pushed = self.put("/v1/models/emoji").json(&card).send().await.unwrap();
        assert_eq!(pushed.status(), StatusCode::OK, "{}", pushed.text().await.unwrap());
    }

    /// Without queues and models.
    pub(crate) async fn bare() -> Self {
        Self::of(Dispatcher::default()).await
    }

    /// Configured in some way, with the pool that tests know.
    pub(crate) async fn of(config: Dispatcher) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(folder.path()).unwrap());
        let (queue, mirror) = (Arc::new(MemoryQueue::new()), Arc::new(MemoryMirror::new()));
        let ports = Ports { queue: queue.clone(), store: store.clone(), progress: mirror.clone() };
        let pool = Pool { max: 5, drain_seconds: 100., start_seconds: 0., ..Pool::default() };
        let pools = BTreeMap::from([("default".into(), pool)]);
        let config = Dispatcher { pools, ..config };
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let app = App::new(ports, config, metrics).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router(app, registry), stop.clone(), SOON));
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(120));
        let client = client.build().unwrap();
        Self { url, client, store, queue, mirror, _folder: folder, _stop: stop.drop_guard() }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn put(&self, path: &str) -> RequestBuilder {
        self.client.put(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub(crate) fn submit(
        &self,
        query: &str,
        kind: &str,
        body: impl Into<String>,
    ) -> RequestBuilder {
        let post = self.post(&format!("/v1/batches{query}"));
        post.header("content-type", kind).body(body.into())
    }

    /// Submits prompts, one a line.
    pub(crate) async fn accepted(&self, query: &str, prompts: &str) -> BatchView {
        let answer = self.submit(query, "text/plain", prompts).send().await.unwrap();
        document(answer, 202).await
    }

    pub(crate) async fn header(&self, id: BatchId) -> Batch {
        let object = self.store.get(&keys::batch(id)).await.unwrap().unwrap();
        serde_json::from_slice(&object.body).unwrap()
    }

    /// All keys of the store that begin so.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        self.store.list(prefix, None, false).await.unwrap().keys
    }

    /// Waits until nothing is stored of any batch.
    pub(crate) async fn nothing_is_stored(&self) {
        let start = std::time::Instant::now();
        loop {
            let mut keys = self.keys("batches/").await;
            keys.extend(self.keys("active/").await);
            if keys.is_empty() {
                return;
            }
            assert!(start.elapsed() < SOON, "{keys:?}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn control(&self) -> Consumer {
        self.queue.consume(&QueueName::Control, 100).await
    }
}

/// The next message of the control queue.
pub(crate) async fn next(consumer: &mut Consumer) -> Control {
    let delivery = tokio::time::timeout(SOON, consumer.recv()).await.unwrap().unwrap();
    let control = serde_json::from_slice(&delivery.body).unwrap();
    delivery.acker.ack().await;
    control
}

/// The document of an answer of this status.
pub(crate) async fn document<T: serde::de::DeserializeOwned>(answer: Response, status: u16) -> T {
    let found = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(found.as_u16(), status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The problem of an answer, which has a remedy.
pub(crate) async fn problem(answer: Response) -> Problem {
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let problem: Problem = document(answer, status).await;
    assert_eq!((kind.as_str(), problem.status), ("application/problem+json", status));
    assert!(!problem.remedy.is_empty() && !problem.code.is_empty(), "{problem:?}");
    problem
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub(crate) fn card(name: &str) -> ModelCard {
    let file = ModelFile { sha256: sha256(WEIGHTS), bytes: WEIGHTS.len() as u64 };
    let files = BTreeMap::from([("unet/weights.safetensors".to_owned(), file)]);
    let digest = ModelCard::digest_of(&files);
    ModelCard {
        v: 1,
        name: name.into(),
        class: "default".into(),
        bytes: 1000,
        facts: ModelFacts {
            name: format!("{name}@{digest}"),
            width: 128,
            height: 128,
            size_multiple: 8,
            side_min: 64,
            train_timesteps: 1000,
            scheduler: Ok(SchedulerName::Pndm),
            prompt_only_tokens: false,
        },
        digest,
        files,
    }
}
