//! A worker that is told to stop in every pass of every step of a refined image, again and again:
//! no step is made twice, and the image has the bytes of one that was never stopped.
//!
//! Alone in its process: the point where it is stopped is every worker's there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use excite_diffusion::{Compute, Model, Outputs, Run, bundled};
use excite_jobs::progress::memory::MemoryMirror;
use excite_jobs::queue::memory::MemoryQueue;
use excite_jobs::queue::{Consumer, Message, Queue, QueueName};
use excite_jobs::store::Store;
use excite_jobs::store::directory::DirectoryStore;
use excite_jobs::{BatchId, Control, Job, JobId, Lane, Line, Outcome, OutcomeKind, keys};
use excite_worker::pipeline::{Guided, Pipeline, Row, RunError};
use excite_worker::{Config, Metrics, Models, ModelsOptions, Ports, Task, Watch, Worker};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
/// Twelve steps of PNDM are thirteen, two of them refined.
const LINE: &str = r#"{"prompt": "a spiky dog and a mouse", "seed": 1, "steps": 12,
    "subjects": ["spiky", "mouse"],
    "method_params": {"thresholds": {"0": 0.9, "6": 0.99}, "max_refinement_steps": 3}}"#;
const STEPS: u64 = 13;

/// What the point does: the pass that is waited for, who is stopped there, and what holds the
/// compute thread in that pass until it was handed over.
#[derive(Default)]
struct Trap {
    passes: AtomicUsize,
    at: AtomicUsize,
    stop: Mutex<Option<(CancellationToken, mpsc::Receiver<()>)>>,
}

impl Trap {
    fn pass(&self) {
        if self.passes.fetch_add(1, Ordering::SeqCst) != self.at.load(Ordering::SeqCst) {
            return;
        }
        let armed = self.stop.lock().unwrap().take();
        if let Some((stop, handed_over)) = armed {
            stop.cancel();
            // The worker does not wait for the pass: it would wait for ever here.
            handed_over.recv_timeout(LIMIT).unwrap();
        }
    }
}

/// The guided pipeline as it is, without the test of itself that each of the many workers would
/// make.
struct Untested(Guided);

impl Pipeline for Untested {
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
        self.0.render(tasks, watch)
    }

    fn free_memory(&mut self, tasks: &[Task]) -> bool {
        self.0.free_memory(tasks)
    }

    fn self_test(&mut self) -> Result<(), String> {
        Ok(())
    }
}

async fn outcome(control: &mut Consumer) -> Outcome {
    loop {
        let delivery = tokio::time::timeout(LIMIT, control.recv()).await.unwrap().unwrap();
        let message: Control = serde_json::from_slice(&delivery.body).unwrap();
        delivery.acker.ack().await;
        match message {
            Control::Outcome(outcome) if outcome.kind != OutcomeKind::Started => return outcome,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_any_pass_costs_that_step_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(DirectoryStore::open(folder.path().join("store")).unwrap());
    let queue = MemoryQueue::new();
    queue.declare(&["default".to_owned()]).await.unwrap();
    let mut control = queue.consume(&QueueName::Control, 1000).await;
    let model = Model::load(&bundled()).unwrap();
    let line = Line::parse(LINE).unwrap().resolve(&model.facts(), model.tokenizer()).unwrap();
    let spec = line.first;
    let whole = Run::start(&model, std::slice::from_ref(&spec), Outputs::default()).unwrap();
    let want = whole.complete(&|| false, |_| ()).unwrap()[0].picture.to_png_of(&spec).unwrap();

    let trap = Arc::new(Trap::default());
    let sprung = Arc::clone(&trap);
    fail::cfg_callback("worker_pass", move || sprung.pass()).unwrap();
    let batch = BatchId::new();
    let job = serde_json::json!({
        "v": 1, "id": JobId::new(batch, 0), "batch": batch, "index": 0, "tenant": "default",
        "spec": spec, "lane": "bulk", "class": "default", "lease": 1, "attempt": 1,
        "max_attempts": 8,
    });
    let mut job = Job::parse(job.to_string().as_bytes()).unwrap();
    let metrics = Metrics::new("test").unwrap();
    let options = ModelsOptions {
        compute: Compute::cpu(),
        models_dir: None,
        cache_dir: folder.path().join("cache"),
        bytes: 1 << 30,
        pinned: Vec::new(),
    };
    let runtime = tokio::runtime::Handle::current();
    let models = Arc::new(Models::new(options, Arc::clone(&store), runtime, metrics.clone()));
    let (mut first_step, mut pass, mut stops) = (0, 0, 0);
    let mut passes_of_steps = vec![0];
    loop {
        let message =
            Message { body: serde_json::to_vec(&job).unwrap().into(), ..Message::default() };
        queue.publish_job("default", Lane::Bulk, None, message).await.unwrap();
        let (stop, (hand_over, handed_over)) = (CancellationToken::new(), mpsc::channel());
        trap.passes.store(0, Ordering::SeqCst);
        trap.at.store(pass, Ordering::SeqCst);
        *trap.stop.lock().unwrap() = Some((stop.clone(), handed_over));
        let ports = Ports {
            queue: Arc::new(queue.connection()),
            store: Arc::clone(&store),
            progress: Arc::new(MemoryMirror::new()),
        };
        let pipeline = Box::new(Untested(Guided::new(Arc::clone(&models), metrics.clone())));
        let config = Config { name: format!("w-{stops}"), ..Config::default() }.settle().unwrap();
        let worker = Worker::new(config, ports, pipeline, None, metrics.clone()).unwrap();
        let running = tokio::spawn(worker.run(stop.clone()));
        let outcome = outcome(&mut control).await;
        assert_eq!((outcome.lease, outcome.attempt), (job.lease, 1), "no attempt is spent");
        let (checkpoint, step) = match outcome.kind {
            OutcomeKind::Preempted { checkpoint, step } => (checkpoint, step),
            OutcomeKind::Succeeded(success) => {
                let png = store.get(&success.key).await.unwrap().unwrap().body;
                assert!(png == want, "the bytes of an image that was never stopped");
                stop.cancel();
                running.await.unwrap().unwrap();
                break;
            }
            other => panic!("{other:?}"),
        };
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap().unwrap();
        hand_over.send(()).unwrap();
        stops += 1;
        if step == first_step {
            *passes_of_steps.last_mut().unwrap() += 1;
            pass += 1;
        } else {
            assert_eq!(step, first_step + 1, "one step a worker at most");
            passes_of_steps.push(1);
            (first_step, pass) = (step, 1);
        }
        (job.lease, job.checkpoint) = (job.lease + 1, checkpoint);
    }
    // A guided step has two passes, one more for each refinement; the last has none after it.
    assert_eq!(passes_of_steps.len() as u64, STEPS, "{passes_of_steps:?}");
    assert!(
        passes_of_steps.iter().filter(|&&passes| passes > 2).count() > 1,
        "{passes_of_steps:?}"
    );
    assert_eq!(metrics.steps.get(), STEPS, "no step was made twice");
    assert_eq!(metrics.preemptions.get(), stops);
    assert_eq!(metrics.steps_wasted.get(), stops, "the one that was running, each time");
    let left = store.list(&keys::checkpoints(job.id), None, false).await.unwrap().keys;
    assert!(left.is_empty(), "{left:?}");
}
