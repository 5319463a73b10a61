//! A worker, its back ends, and what came out of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use excite_jobs::progress::Progress;
use excite_jobs::progress::memory::MemoryMirror;
use excite_jobs::queue::memory::MemoryQueue;
use excite_jobs::queue::{Consumer, Message, Queue, QueueName};
use excite_jobs::store::directory::DirectoryStore;
use excite_jobs::store::{Condition, Store};
use excite_jobs::{BatchId, Control, Job, JobId, Lane, Outcome, OutcomeKind, Spec, Success};
use excite_worker::pipeline::Pipeline;
use excite_worker::{Config, Metrics, Models, Ports, Worker, WorkerError};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::flaky::Flaky;

/// Nothing here takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Back ends, and the control queue as a dispatcher reads it.
pub(crate) struct Setting {
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) store: Arc<Flaky>,
    pub(crate) progress: Arc<MemoryMirror>,
    pub(crate) folder: TempDir,
    pub(crate) batch: BatchId,
    control: Consumer,
}

/// A worker that runs.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Metrics,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    /// How it ends.
    pub(crate) async fn end(self) -> Result<(), WorkerError> {
        tokio::time::timeout(LIMIT, self.ended).await.unwrap().unwrap()
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.end().await.unwrap();
    }
}

impl Setting {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path().join("store")).unwrap();
        let queue = Arc::new(MemoryQueue::new());
        queue.declare(&["default".to_owned()]).await.unwrap();
        let control = queue.consume(&QueueName::Control, 1000).await;
        Self {
            queue,
            store: Arc::new(Flaky::new(store)),
            progress: Arc::new(MemoryMirror::new()),
            folder,
            batch: BatchId::new(),
            control,
        }
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports {
            // Its own connection: the worker closes it.
            queue: Arc::new(self.queue.connection()),
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            progress: Arc::clone(&self.progress) as Arc<dyn Progress>,
        }
    }

    /// Starts a worker.
    pub(crate) fn work(&self, pipeline: impl Pipeline + 'static) -> Running {
        self.work_as(pipeline, None, Config::default())
    }

    pub(crate) fn work_as(
        &self,
        pipeline: impl Pipeline + 'static,
        models: Option<Arc<Models>>,
        config: Config,
    ) -> Running {
        let config = Config { name: "w-1".into(), ..config }.settle().unwrap();
        let metrics = Metrics::new("test").unwrap();
        let (ports, pipeline) = (self.ports(), Box::new(pipeline));
        let worker = Worker::new(config, ports, pipeline, models, metrics.clone()).unwrap();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(worker.run(stop.clone()));
        Running { stop, metrics, ended }
    }

    /// Job `index` with a spec of 2 plain steps on a model that nobody has.
    pub(crate) fn job(&self, index: u32) -> Job {
        let spec = r#"{"engine":1,"guidance_scale":7.5,"height":128,"method":"none",
            "model":"emoji@0","negative_prompt":"","noise":"torch_cpu","prompt":"a cat",
            "scheduler":"pndm","seed":7,"steps":2,"subjects":[],"width":128}"#;
        let mut spec: Spec = serde_json::from_str(spec).unwrap();
        spec.seed = index;
        self.job_of(index, spec)
    }

    pub(crate) fn job_of(&self, index: u32, spec: Spec) -> Job {
        let id = JobId::new(self.batch, index);
        let text = serde_json::json!({
            "v": 1, "id": id, "batch": self.batch, "index": index, "tenant": "default",
            "spec": spec, "lane": "bulk", "class": "default", "lease": 1, "attempt": 1,
            "max_attempts": 8,
        });
        Job::parse(text.to_string().as_bytes()).unwrap()
    }

    pub(crate) async fn submit(&self, job: &Job) {
        self.submit_bytes(job.lane, serde_json::to_vec(job).unwrap()).await;
    }

    pub(crate) async fn submit_bytes(&self, lane: Lane, body: Vec<u8>) {
        let kind = "excite.job.v1".to_owned();
        let message = Message { body: body.into(), kind, ..Message::default() };
        self.queue.publish_job("default", lane, None, message).await.unwrap();
    }

    /// The next outcome that is not a start.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        loop {
            let outcome = self.any_outcome().await;
            if outcome.kind != OutcomeKind::Started {
                return outcome;
            }
        }
    }

    pub(crate) async fn any_outcome(&mut self) -> Outcome {
        let delivery = tokio::time::timeout(LIMIT, self.control.recv()).await.unwrap().unwrap();
        let control: Control = serde_json::from_slice(&delivery.body).unwrap();
        delivery.acker.ack().await;
        let Control::Outcome(outcome) = control else { panic!("{control:?}") };
        outcome
    }

    /// The next outcome, which is a success.
    pub(crate) async fn success(&mut self) -> (u32, Success) {
        let outcome = self.outcome().await;
        match outcome.kind {
            OutcomeKind::Succeeded(success) => (outcome.index, success),
            other => panic!("{other:?}"),
        }
    }

    /// Class and code of the next outcome, which is a failure.
    pub(crate) async fn failure(&mut self) -> (&'static str, String) {
        match self.outcome().await.kind {
            OutcomeKind::Failed(failure) => (failure.class.as_str(), failure.code),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Option<Bytes> {
        self.store.inner.get(key).await.unwrap().map(|object| object.body)
    }

    pub(crate) async fn put(&self, key: &str, body: impl Into<Bytes>) {
        self.store.inner.put(key, body.into(), Condition::Always).await.unwrap();
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        self.store.inner.list(prefix, None, false).await.unwrap().keys
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "never: {what}");
}
