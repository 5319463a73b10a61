//! What becomes of jobs: run, answered, refused, grouped, cancelled.

use std::time::{Duration, Instant};

use excite_jobs::progress::{Progress, WorkerState};
use excite_jobs::queue::{Queue, QueueName};
use excite_jobs::{Lane, OutcomeKind, Sidecar, keys};
use excite_worker::pipeline::{Empty, Pipeline, Row, RunError};
use excite_worker::{Config, Task, Watch};

use crate::gate::Gate;
use crate::setting::{Setting, until};

#[tokio::test]
async fn a_job_is_stored_reported_and_acknowledged() {
    let mut setting = Setting::new().await;
    let worker = setting.work(Empty);
    let job = setting.job(3);
    setting.submit(&job).await;
    let started = setting.any_outcome().await;
    assert_eq!((started.kind, started.worker.as_str()), (OutcomeKind::Started, "w-1"));
    let (index, success) = setting.success().await;
    assert_eq!((index, success.found), (3, false));
    assert_eq!(success.key, keys::image(job.id));
    let png = setting.get(&success.key).await.unwrap();
    assert_eq!(success.bytes, png.len() as u64);
    let read = excite_diffusion::picture::Read::bytes(&png).unwrap();
    assert_eq!(read.spec(), Ok(job.spec.clone()), "the image says what it is");
    let sidecar = setting.get(&keys::sidecar(job.id)).await.unwrap();
    let sidecar: Sidecar = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!((sidecar.sha256, sidecar.spec), (success.sha256, job.spec));
    let wait = worker.metrics.queue_wait.with_label_values(&["bulk"]);
    assert_eq!(wait.get_sample_count(), 1);
    worker.stop().await;
    let jobs = QueueName::jobs("default", Lane::Bulk);
    assert_eq!(setting.queue.depth(&jobs).await.unwrap().ready, 0, "it was acknowledged");
}

#[tokio::test]
async fn a_job_that_is_delivered_twice_runs_once() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    let mut job = setting.job(0);
    setting.submit(&job).await;
    until("it runs", async || gate.runs().len() == 1).await;
    job.lease = 2;
    setting.submit(&job).await;
    let reattached = worker.metrics.redeliveries.with_label_values(&["reattached"]);
    until("the second joins", async || reattached.get() == 1).await;
    gate.open();
    let outcome = setting.outcome().await;
    assert_eq!(outcome.lease, 2, "under the highest lease");
    assert!(matches!(outcome.kind, OutcomeKind::Succeeded(_)), "{outcome:?}");
    // A third one, of a lease that is known, and a retry that finds the image.
    setting.submit(&job).await;
    assert!(!setting.success().await.1.found);
    job.lease = 3;
    setting.submit(&job).await;
    assert!(setting.success().await.1.found);
    assert_eq!(gate.runs(), [[0]]);
    // What is published again waits for other reasons.
    let wait = worker.metrics.queue_wait.with_label_values(&["bulk"]);
    assert_eq!(wait.get_sample_count(), 1);
    worker.stop().await;
    let jobs = QueueName::jobs("default", Lane::Bulk);
    assert_eq!(setting.queue.depth(&jobs).await.unwrap().ready, 0, "all were acknowledged");
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_or_set_aside() {
    let mut setting = Setting::new().await;
    let gate = Gate::default();
    let worker = setting.work(gate.clone());
    let mut dead = setting.queue.consume(&QueueName::Dead, 10).await;
    let text = serde_json::to_string(&setting.job(0)).unwrap();
    let later = text.replacen("\"v\":1", "\"v\":2", 1);
    setting.submit_bytes(Lane::Bulk, later.into_bytes()).await;
    assert_eq!(setting.failure().await, ("incompatible", "version".into()));
    let broken = text.replacen("\"steps\":2", "\"steps\":\"two\"", 1);
    setting.submit_bytes(Lane::Express, broken.into_bytes()).await;
    assert_eq!(setting.failure().await, ("invalid", "unreadable".into()));
    setting.submit_bytes(Lane::Bulk, b"no job".to_vec()).await;
    let aside = dead.recv().await.unwrap();
    assert_eq!(&aside.body[..], b"no job");
    let mut job = setting.job(1);
    job.spec.engine += 1;
    setting.submit(&job).await;
    assert_eq!(setting.failure().await, ("incompatible", "engine".into()));
    assert!(gate.runs().is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn jobs_that_share_a_run_go_together_and_express_ones_first() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let config = Config { slots: 3, micro_batch_wait_milliseconds: 300, ..Config::default() };
    let worker = setting.work_as(gate.clone(), None, config);
    setting.submit(&setting.job(0)).await;
    until("it runs", async || gate.runs() == [[0]]).await;
    for index in 1..3 {
        setting.submit(&setting.job(index)).await;
    }
    let mut express = setting.job(3);
    express.lane = Lane::Express;
    express.spec.steps = 3;
    setting.submit(&express).await;
    until("the bulk ones wait here", async || worker.metrics.held.get() == 3).await;
    gate.open();
    for _ in 0..4 {
        setting.success().await;
    }
    let mut runs = gate.runs();
    // Each was looked at by itself before it waited, so either of the two may have come first.
    runs.iter_mut().for_each(|run| run.sort_unstable());
    assert_eq!(runs, [vec![0], vec![3], vec![1, 2]]);
    worker.stop().await;
}

/// Its runs are in their last step, which takes its time, while the gate is shut.
struct LastStep(Gate);

impl Pipeline for LastStep {
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
        let (began, step) = (Instant::now(), Duration::from_millis(20));
        watch.begin(tasks, 0, 2);
        while began.elapsed() < step {
            std::thread::yield_now();
        }
        watch.step(0, 2, tasks.iter().map(|task| (task, 0., &[][..])));
        self.0.render(tasks, watch)
    }

    fn free_memory(&mut self, tasks: &[Task]) -> bool {
        self.0.free_memory(tasks)
    }

    fn self_test(&mut self) -> Result<(), String> {
        self.0.self_test()
    }
}

#[tokio::test]
async fn the_next_jobs_come_while_the_last_step_still_runs() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let config = Config { slots: 1, ..Config::default() };
    let worker = setting.work_as(LastStep(gate.clone()), None, config);
    setting.submit(&setting.job(0)).await;
    until("it runs", async || gate.runs() == [[0]]).await;
    setting.submit(&setting.job(1)).await;
    let mut express = setting.job(2);
    express.lane = Lane::Express;
    setting.submit(&express).await;
    setting.submit(&setting.job(3)).await;
    until("a job a lane is here", async || worker.metrics.held.get() == 3).await;
    gate.open();
    let mut done = Vec::new();
    for _ in 0..4 {
        done.push(setting.success().await.0);
    }
    assert_eq!(done.remove(0), 0);
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3]);
    worker.stop().await;
}

#[tokio::test]
async fn cancelled_jobs_do_not_run_and_running_ones_stop() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    setting.submit(&setting.job(0)).await;
    until("it runs", async || gate.runs().len() == 1).await;
    setting.progress.set_cancelled(setting.batch, true).await.unwrap();
    assert_eq!(setting.outcome().await.kind, OutcomeKind::Cancelled);
    setting.submit(&setting.job(1)).await;
    assert_eq!(setting.outcome().await.kind, OutcomeKind::Cancelled);
    assert_eq!(gate.runs(), [[0]]);
    assert!(setting.keys(&keys::batch_prefix(setting.batch)).await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_tells_what_it_does_until_it_is_gone() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    setting.submit(&setting.job(5)).await;
    until("the job is told of", async || {
        let workers = setting.progress.workers().await.unwrap();
        workers.iter().any(|beat| beat.jobs.iter().any(|running| running.job.index == 5))
    })
    .await;
    let beat = setting.progress.workers().await.unwrap().remove(0);
    assert_eq!((beat.worker.as_str(), beat.state, beat.slots), ("w-1", WorkerState::Ready, 4));
    setting.progress.drain("w-1").await.unwrap();
    until("it drains", async || {
        let workers = setting.progress.workers().await.unwrap();
        workers.iter().any(|beat| beat.state == WorkerState::Draining)
    })
    .await;
    gate.open();
    setting.success().await;
    worker.end().await.unwrap();
    assert!(setting.progress.workers().await.unwrap().is_empty());
}
