//! Faults: a store that fails, lost leases, killers, broken workers, the end.

use excite_jobs::progress::Progress;
use excite_jobs::queue::{Queue, QueueName};
use excite_jobs::{JobId, Lane, OutcomeKind, Sidecar, keys};
use excite_worker::pipeline::Empty;
use excite_worker::{Config, WorkerError};

use crate::gate::Gate;
use crate::setting::{Setting, until};

#[tokio::test]
async fn a_store_that_fails_for_a_while_costs_only_time() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    for index in 0..4 {
        setting.submit(&setting.job(index)).await;
    }
    until("it runs", async || !gate.runs().is_empty()).await;
    setting.store.set_down(true);
    gate.open();
    until("puts fail", async || setting.store.refused() > 4).await;
    setting.submit(&setting.job(4)).await;
    setting.store.set_down(false);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(setting.success().await.0);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    worker.stop().await;
}

#[tokio::test]
async fn a_store_that_fails_for_long_fails_the_job() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let config = Config { store_patience_seconds: 0, ..Config::default() };
    let worker = setting.work_as(gate.clone(), None, config);
    setting.submit(&setting.job(0)).await;
    until("it runs", async || !gate.runs().is_empty()).await;
    setting.store.set_down(true);
    gate.open();
    assert_eq!(setting.failure().await, ("transient", "store".into()));
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_waits_for_a_store_that_can_be_used() {
    let mut setting = Setting::new().await;
    setting.store.set_down(true);
    setting.submit(&setting.job(0)).await;
    let worker = setting.work(Empty);
    until("it tries", async || setting.store.refused() > 0).await;
    assert_eq!(worker.metrics.held.get(), 0, "it takes nothing");
    setting.store.set_down(false);
    assert_eq!(setting.success().await.0, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_lost_connection_costs_no_work() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    setting.submit(&setting.job(0)).await;
    until("it runs", async || gate.runs().len() == 1).await;
    setting.queue.lose_connections();
    let reattached = worker.metrics.redeliveries.with_label_values(&["reattached"]);
    until("it comes again", async || reattached.get() == 1).await;
    gate.open();
    setting.success().await;
    until("it is let go", async || worker.metrics.held.get() == 0).await;
    assert_eq!((gate.runs().len(), worker.metrics.leases_lost.get()), (1, 1));
    worker.stop().await;
    let jobs = QueueName::jobs("default", Lane::Bulk);
    assert_eq!(setting.queue.depth(&jobs).await.unwrap().ready, 0);
}

#[tokio::test]
async fn an_image_that_is_there_is_adopted_with_its_hash() {
    let mut setting = Setting::new().await;
    let job = setting.job(0);
    setting.put(&keys::image(job.id), "made elsewhere").await;
    let worker = setting.work(Empty);
    setting.submit(&job).await;
    let (_, success) = setting.success().await;
    let stored = setting.get(&keys::sidecar(job.id)).await.unwrap();
    let stored: Sidecar = serde_json::from_slice(&stored).unwrap();
    let hash = "cb8c737875bfea1bcbd82cd76f4d5bfbb535d3d19c7d147b2b6a5ee541b7fbf7";
    assert_eq!((stored.sha256.as_str(), success.sha256.as_str()), (hash, hash));
    assert_eq!(success.bytes, 14);
    assert_eq!(&setting.get(&keys::image(job.id)).await.unwrap()[..], b"made elsewhere");
    worker.stop().await;
}

/// Delivered before, to a worker that is gone.
async fn redeliver(setting: &Setting, index: u32) -> JobId {
    let job = setting.job(index);
    setting.submit(&job).await;
    let mut lost = setting.queue.consume(&QueueName::jobs("default", Lane::Bulk), 1).await;
    let delivery = lost.recv().await.unwrap();
    delivery.acker.requeue().await;
    job.id
}

#[tokio::test]
async fn a_job_that_may_have_killed_a_worker_runs_alone_and_marked() {
    let mut setting = Setting::new().await;
    let id = redeliver(&setting, 0).await;
    setting.put(&keys::suspect(id, 0), "w-0").await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    until("the suspect runs", async || gate.runs() == [[0]]).await;
    setting.submit(&setting.job(1)).await;
    assert_eq!(setting.keys(&keys::suspects(id)).await.len(), 2);
    gate.open();
    setting.success().await;
    setting.success().await;
    assert_eq!(gate.runs(), [[0], [1]]);
    until("the marks go", async || setting.keys(&keys::suspects(id)).await.is_empty()).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_killed_three_workers_is_given_up() {
    let mut setting = Setting::new().await;
    let id = redeliver(&setting, 0).await;
    for n in 0..3 {
        setting.put(&keys::suspect(id, n), "w-0").await;
    }
    let gate = Gate::default();
    let worker = setting.work(gate.clone());
    assert_eq!(setting.failure().await, ("lost", "poison".into()));
    until("the marks go", async || setting.keys(&keys::suspects(id)).await.is_empty()).await;
    assert!(gate.runs().is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_paint_takes_nothing() {
    let setting = Setting::new().await;
    let gate = Gate::default();
    gate.fail_self_test();
    setting.submit(&setting.job(0)).await;
    let ended = setting.work(gate.clone()).end().await;
    assert!(matches!(ended, Err(WorkerError::SelfTest(_))), "{ended:?}");
    let jobs = QueueName::jobs("default", Lane::Bulk);
    assert_eq!(setting.queue.depth(&jobs).await.unwrap().ready, 1);
}

#[tokio::test]
async fn failures_in_a_row_make_a_worker_test_itself() {
    let mut setting = Setting::new().await;
    let gate = Gate::default();
    gate.break_down(true);
    let config = Config { breaker_failures: 2, ..Config::default() };
    let worker = setting.work_as(gate.clone(), None, config.clone());
    for index in 0..2 {
        setting.submit(&setting.job(index)).await;
        assert_eq!(setting.failure().await, ("transient", "broken".into()));
    }
    until("it tests itself", async || gate.tests() == 2).await;
    gate.break_down(false);
    setting.submit(&setting.job(2)).await;
    setting.success().await;
    gate.break_down(true);
    gate.fail_self_test();
    for index in 3..5 {
        setting.submit(&setting.job(index)).await;
        setting.failure().await;
    }
    let ended = worker.end().await;
    assert!(matches!(ended, Err(WorkerError::SelfTest(_))), "{ended:?}");
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_gives_back_the_rest() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let worker = setting.work(gate.clone());
    setting.submit(&setting.job(0)).await;
    until("it runs", async || gate.runs().len() == 1).await;
    setting.submit(&setting.job(1)).await;
    until("it waits", async || worker.metrics.held.get() == 2).await;
    setting.progress.drain("w-1").await.unwrap();
    let jobs = QueueName::jobs("default", Lane::Bulk);
    until("it goes back", async || setting.queue.depth(&jobs).await.unwrap().ready == 1).await;
    gate.open();
    assert_eq!(setting.success().await.0, 0);
    worker.end().await.unwrap();
    assert_eq!(gate.runs(), [[0]]);
}

#[tokio::test]
async fn a_stop_hands_over_what_runs_and_gives_back_the_rest() {
    let mut setting = Setting::new().await;
    let gate = Gate::shut();
    let id = redeliver(&setting, 0).await;
    let worker = setting.work(gate.clone());
    until("it runs", async || gate.runs().len() == 1).await;
    setting.submit(&setting.job(1)).await;
    until("it waits", async || worker.metrics.held.get() == 2).await;
    worker.stop().await;
    let outcome = setting.outcome().await;
    let nothing = OutcomeKind::Preempted { checkpoint: None, step: 0 };
    assert_eq!((outcome.index, outcome.attempt, outcome.kind), (0, 1, nothing));
    let jobs = QueueName::jobs("default", Lane::Bulk);
    assert_eq!(setting.queue.depth(&jobs).await.unwrap().ready, 1, "only the one that waited");
    assert!(setting.keys(&keys::suspects(id)).await.is_empty(), "nobody died of it");
}

#[tokio::test]
async fn a_run_that_does_not_move_ends_the_worker() {
    let mut setting = Setting::new().await;
    let worker = setting.work_as(Still, None, Config { stuck_seconds: 1, ..Config::default() });
    setting.submit(&setting.job(0)).await;
    assert_eq!(setting.failure().await, ("timeout", "stuck".into()));
    let ended = worker.end().await;
    assert!(matches!(ended, Err(WorkerError::Stuck(_))), "{ended:?}");
}

/// Never makes a pass.
struct Still;

impl excite_worker::pipeline::Pipeline for Still {
    fn render(
        &mut self,
        tasks: &[excite_worker::Task],
        watch: &excite_worker::Watch,
    ) -> Result<Vec<excite_worker::pipeline::Row>, excite_worker::pipeline::RunError> {
        watch.begin(tasks, 0, 1);
        loop {
            std::thread::park();
        }
    }

    fn free_memory(&mut self, _tasks: &[excite_worker::Task]) -> bool {
        false
    }

    fn self_test(&mut self) -> Result<(), String> {
        Ok(())
    }
}
