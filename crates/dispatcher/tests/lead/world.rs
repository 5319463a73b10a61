//! A dispatcher's surroundings within one process: queue, store and mirror, batches, workers that
//! follow a script. Time is paused, so a minute takes no time.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use excite_dispatcher::lead::{LeadConfig, Metrics, lead};
use excite_dispatcher::{Ports, done_log, header};
use excite_jobs::progress::memory::MemoryMirror;
use excite_jobs::progress::{Progress, WorkerBeat, WorkerState};
use excite_jobs::queue::memory::MemoryQueue;
use excite_jobs::queue::{Message, Queue, QueueName};
use excite_jobs::store::directory::DirectoryStore;
use excite_jobs::store::{Condition, Store};
use excite_jobs::{
    Batch, BatchId, Control, Done, Job, JobOutputs, Lane, Outcome, OutcomeKind, Part, Spec,
    StoredLine, Success, Summary, VERSION, Work, keys,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SPEC: &str = r#"{"engine":1,"guidance_scale":7.5,"height":128,"method":"none",
    "model":"emoji@0","negative_prompt":"","noise":"torch_cpu","prompt":"a cat",
    "scheduler":"pndm","seed":0,"steps":2,"subjects":[],"width":128}"#;
/// Jobs of a line and lines of a part: small, so that a batch has many of both.
const LINE_JOBS: u32 = 10;
const PART_LINES: u32 = 8;

pub(crate) struct World {
    pub(crate) queue: MemoryQueue,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) mirror: Arc<MemoryMirror>,
    _folder: TempDir,
}

/// A dispatcher that leads when it is its turn.
pub(crate) struct Leading {
    pub(crate) connection: MemoryQueue,
    pub(crate) task: JoinHandle<()>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
}

impl Leading {
    /// As a process that is killed: its connection is lost with it.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        self.connection.lose();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(folder.path()).unwrap());
        let mirror = Arc::new(MemoryMirror::new());
        Self { queue: MemoryQueue::new(), store, mirror, _folder: folder }
    }

    pub(crate) fn lead(&self) -> Leading {
        self.lead_with(LeadConfig::new("d-1"), self.store.clone(), usize::MAX)
    }

    /// Leads until it was polled `polls` times: somewhere, at some await.
    pub(crate) fn lead_with(
        &self,
        config: LeadConfig,
        store: Arc<dyn Store>,
        polls: usize,
    ) -> Leading {
        let connection = self.queue.connection();
        let queue: Arc<dyn Queue> = Arc::new(connection.clone());
        let ports = Ports { queue, store, progress: self.mirror.clone() };
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let stop = CancellationToken::new();
        let leading = lead(ports, config, metrics.clone(), stop.clone());
        let leading = Polled { future: Box::pin(async move { leading.await.unwrap() }), polls };
        Leading { connection, task: tokio::spawn(leading), stop, metrics }
    }

    /// A worker that answers each delivery with what `script` says, each answer `times` times.
    pub(crate) fn work<F>(&self, times: usize, script: F) -> Arc<Mutex<Vec<Job>>>
    where
        F: Fn(&Job) -> Vec<OutcomeKind> + Send + Sync + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        for lane in Lane::ALL {
            let (queue, seen, script) = (self.queue.clone(), seen.clone(), script.clone());
            tokio::spawn(async move {
                let mut jobs = queue.consume(&QueueName::jobs("default", lane), 8).await;
                while let Some(delivery) = jobs.recv().await {
                    let job = Job::parse(&delivery.body).unwrap();
                    for kind in script(&job) {
                        let outcome = Control::Outcome(Outcome::of(&job, "w-1", kind));
                        for _ in 0..times {
                            send(&queue, &outcome).await;
                        }
                    }
                    seen.lock().unwrap().push(job);
                    // A worker that takes no time at all would leave nothing to interrupt.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    delivery.acker.ack().await;
                }
            });
        }
        seen
    }

    /// A batch as it is accepted.
    pub(crate) async fn accept(&self, jobs: u32, change: impl FnOnce(&mut Batch)) -> Batch {
        // Some tests accept before anybody leads.
        self.queue.declare(&["default".into()]).await.unwrap();
        let batch = self.store_batch(jobs, change).await;
        self.tell(Control::Batch { batch: batch.id }).await;
        batch
    }

    pub(crate) async fn store_batch(&self, jobs: u32, change: impl FnOnce(&mut Batch)) -> Batch {
        let mut batch = batch(jobs);
        if batch.lane == Lane::Express {
            batch.inline = lines(0, jobs);
        }
        let mut first = 0;
        while first < jobs && batch.lane == Lane::Bulk {
            let count = (jobs - first).min(LINE_JOBS * PART_LINES);
            let key = keys::part(batch.id, batch.parts.len());
            let lines = lines(first, count);
            let body = gzip(&lines);
            let sha256 = format!("{:x}", Sha256::digest(&body));
            let (bytes, lines) = (body.len() as u64, lines.len() as u32);
            self.store.put(&key, body.into(), Condition::Always).await.unwrap();
            batch.parts.push(Part { key, sha256, bytes, lines, first, jobs: count });
            first += count;
        }
        change(&mut batch);
        let header = serde_json::to_vec(&batch).unwrap();
        for (key, body) in [(keys::active(batch.id), Vec::new()), (keys::batch(batch.id), header)] {
            self.store.put(&key, body.into(), Condition::Always).await.unwrap();
        }
        batch
    }

    /// Changes a header as the HTTP API does.
    pub(crate) async fn patch(&self, batch: BatchId, change: impl Fn(&mut Batch) + Send + Sync) {
        let changed = header::change(&*self.store, batch, |header| {
            change(header);
            true
        });
        changed.await.unwrap().unwrap();
        self.tell(Control::Batch { batch }).await;
    }

    pub(crate) async fn tell(&self, control: Control) {
        send(&self.queue, &control).await;
    }

    /// How a batch ended, once it did.
    pub(crate) async fn summary(&self, batch: BatchId) -> Summary {
        let key = keys::summary(batch);
        self.until("the summary", async || {
            let object = self.store.get(&key).await.unwrap()?;
            Some(serde_json::from_slice(&object.body).unwrap())
        })
        .await
    }

    /// Waits until there is something.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        // Two hours of paused time: longer than any rung.
        for _ in 0..36_000 {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{what} never came");
    }

    /// All conclusions of a batch, by job.
    pub(crate) async fn done(&self, batch: BatchId) -> BTreeMap<u32, Vec<Done>> {
        let mut all: BTreeMap<u32, Vec<Done>> = BTreeMap::new();
        let mut visit = |_: &str, done: Done| all.entry(done.index).or_default().push(done);
        done_log::read(&*self.store, batch, None, &mut visit).await.unwrap();
        all
    }

    /// Waits until the mirror says of a finished batch what its summary says.
    pub(crate) async fn mirrored(&self, batch: BatchId, summary: &Summary) {
        self.until("the mirror", async || {
            let found = self.mirror.batch(batch).await.unwrap()?;
            (found.tally == summary.tally).then_some(())
        })
        .await;
        let states = self.mirror.states(batch).await.unwrap().unwrap();
        let header = header::load(&*self.store, batch).await.unwrap().unwrap().0;
        for (state, count) in &summary.tally.states {
            let is = |index: &u32| excite_jobs::progress::unpack(&states, *index) == *state;
            assert_eq!((0..header.jobs).filter(is).count() as u64, *count, "{state}");
        }
    }

    pub(crate) async fn is_active(&self, batch: BatchId) -> bool {
        self.store.head(&keys::active(batch)).await.unwrap().is_some()
    }

    pub(crate) async fn beat(&self, slots: u32) {
        let beat = WorkerBeat {
            v: VERSION,
            worker: "w-1".into(),
            pool: "p".into(),
            kind: "cpu".into(),
            class: "default".into(),
            state: WorkerState::Ready,
            slots,
            jobs: Vec::new(),
            models: Vec::new(),
            model_bytes: 0,
            memory_bytes: None,
            micro_batches: Vec::new(),
            started_at: OffsetDateTime::UNIX_EPOCH,
            version: "0".into(),
        };
        self.mirror.beat(&beat).await.unwrap();
    }
}

async fn send(queue: &MemoryQueue, control: &Control) {
    let body = serde_json::to_vec(control).unwrap().into();
    let message = Message { body, kind: Control::TYPE.into(), ..Message::default() };
    queue.publish(&QueueName::Control, message).await.unwrap();
}

pub(crate) fn succeeded(job: &Job) -> OutcomeKind {
    OutcomeKind::Succeeded(Success {
        key: keys::image(job.id),
        sha256: String::new(),
        bytes: 100,
        seconds: 0.5,
        steps: 2,
        loss: None,
        scores: Vec::new(),
        weakest: None,
        tries: 1,
        found: false,
        accepted: true,
    })
}

fn lines(first: u32, jobs: u32) -> Vec<StoredLine> {
    let spec: Spec = serde_json::from_str(SPEC).unwrap();
    let starts = (first..first + jobs).step_by(LINE_JOBS as usize);
    let line = |start: u32| StoredLine {
        line: u64::from(start / LINE_JOBS) + 1,
        first: start,
        spec: spec.clone(),
        seeds: format!("{start}..{}", (start + LINE_JOBS).min(first + jobs)),
        accept: None,
        compared_with: None,
        custom_id: None,
        labels: BTreeMap::new(),
    };
    starts.map(line).collect()
}

fn gzip(lines: &[StoredLine]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for line in lines {
        serde_json::to_writer(&mut gzip, line).unwrap();
        gzip.write_all(b"\n").unwrap();
    }
    gzip.finish().unwrap()
}

fn batch(jobs: u32) -> Batch {
    Batch {
        v: VERSION,
        id: BatchId::new(),
        revision: 1,
        name: None,
        tenant: "default".into(),
        created_at: OffsetDateTime::now_utc(),
        jobs,
        lines: u64::from(jobs.div_ceil(LINE_JOBS)),
        parts: Vec::new(),
        inline: Vec::new(),
        model: "emoji@0".into(),
        class: "default".into(),
        lane: Batch::lane_of(jobs),
        outputs: JobOutputs::default(),
        max_attempts: 3,
        weight: 1,
        paused: false,
        cancelled: false,
        compare: false,
        parent: None,
        canary: false,
        warnings: BTreeMap::new(),
        work: Work { plain: f64::from(jobs) * 2. * 128. * 128., guided: 0. },
        traceparent: None,
        body_sha256: String::new(),
    }
}

/// A future that stops after so many polls, wherever it is.
struct Polled<F> {
    future: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future<Output = ()>> Future for Polled<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(left) = self.polls.checked_sub(1) else { return Poll::Ready(()) };
        self.polls = left;
        self.future.as_mut().poll(context)
    }
}
