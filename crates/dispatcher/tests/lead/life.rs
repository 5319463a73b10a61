//! Batches from acceptance to summary: success, retries, death, preemption, replay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use excite_dispatcher::estimates::Estimates;
use excite_jobs::queue::{Message, Queue, QueueName};
use excite_jobs::store::Condition;
use excite_jobs::{
    Batch, Class, Control, DeadReason, Failure, Job, Lane, Outcome, OutcomeKind, Reason, State,
    UploadId, Work, keys,
};

use crate::world::{World, succeeded};

fn failed(class: Class, code: &str) -> OutcomeKind {
    OutcomeKind::Failed(Failure::new(class, code, "it failed"))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_jobs_are_finished_and_counted_exactly() {
    let world = World::new();
    let leading = world.lead();
    let seen = world.work(1, |job| vec![OutcomeKind::Started, succeeded(job)]);
    let batch = world.accept(1000, |_| ()).await;
    let summary = world.summary(batch.id).await;
    assert_eq!(summary.tally.states, BTreeMap::from([(State::Succeeded, 1000)]));
    assert_eq!((summary.tally.seconds, summary.tally.bytes), (500., 100_000));
    world.mirrored(batch.id, &summary).await;
    world
        .until("the end of the mark", async || (!world.is_active(batch.id).await).then_some(()))
        .await;
    let done = world.done(batch.id).await;
    assert_eq!(done.len(), 1000);
    assert!(done.values().all(|all| all.len() == 1 && all[0].state == State::Succeeded));
    let mut seeds: Vec<_> =
        seen.lock().unwrap().iter().map(|job| (job.index, job.spec.seed)).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, (0..1000).map(|i| (i, i)).collect::<Vec<_>>(), "each once, with its seed");
    let estimates = world.until("estimates", async || {
        let estimates = Estimates::load(&*world.store).await.unwrap();
        estimates.seconds("emoji@0", &Work { plain: 1., guided: 0. }).map(|_| estimates)
    });
    let two = Work { plain: 2. * 2. * 128. * 128., guided: 0. };
    let seconds = estimates.await.seconds("emoji@0", &two).unwrap();
    assert!((seconds - 1.).abs() < 1e-9, "{seconds}");
    assert_eq!(leading.metrics.published.with_label_values(&["ok"]).get(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_single_job_is_finished_in_a_second() {
    let world = World::new();
    let _leading = world.lead();
    let _ = world.work(1, |job| vec![succeeded(job)]);
    let first = world.accept(1, |_| ()).await;
    world.summary(first.id).await;
    let start = tokio::time::Instant::now();
    let batch = world.accept(1, |_| ()).await;
    world.summary(batch.id).await;
    assert!(start.elapsed().as_secs_f64() < 1., "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_after_a_rung_until_it_is_dead() {
    let world = World::new();
    let _leading = world.lead();
    let seen = world.work(1, |job| {
        let kind = match (job.index, job.lease) {
            (0, _) => failed(Class::Transient, "store"),
            (1, _) => failed(Class::Invalid, "scheduler"),
            (2, 1) => failed(Class::Transient, "store"),
            (3, 1) => OutcomeKind::Preempted { checkpoint: Some("c".into()), step: 1 },
            (4, _) => failed(Class::Capacity, "oom"),
            (5, _) => failed(Class::Lost, "killer"),
            _ => succeeded(job),
        };
        vec![OutcomeKind::Started, kind]
    });
    let batch = world.accept(7, |_| ()).await;
    let started = tokio::time::Instant::now();
    let tally = world.summary(batch.id).await.tally;
    assert!(started.elapsed().as_secs() >= 120, "capacity waits two minutes");
    assert_eq!((tally.of(State::Succeeded), tally.of(State::Dead)), (3, 4));
    let want = [
        (DeadReason::Invalid, 1),
        (DeadReason::Attempts, 1),
        (DeadReason::Capacity, 1),
        (DeadReason::Poison, 1),
    ];
    assert_eq!(tally.dead, BTreeMap::from(want));
    assert_eq!((tally.retries, tally.preemptions), (2 + 1 + 1, 1));
    assert_eq!(tally.failures["store"], 4);
    let seen = seen.lock().unwrap();
    let of = |index| -> Vec<_> {
        let jobs = seen.iter().filter(|job: &&Job| job.index == index);
        jobs.map(|job| (job.lease, job.attempt, job.checkpoint.as_deref())).collect()
    };
    assert_eq!(of(0), [(1, 1, None), (2, 2, None), (3, 3, None)]);
    assert_eq!(of(1), [(1, 1, None)]);
    assert_eq!(of(3), [(1, 1, None), (2, 1, Some("c"))], "a preemption costs no attempt");
}

#[tokio::test(start_paused = true)]
async fn duplicates_of_every_outcome_change_nothing() {
    let world = World::new();
    let leading = world.lead();
    let _ = world.work(3, |job| {
        let kind = match (job.index % 4, job.lease) {
            (1, 1) => failed(Class::Transient, "store"),
            (2, 1) => OutcomeKind::Preempted { checkpoint: None, step: 1 },
            (3, _) => failed(Class::Invalid, "bad"),
            _ => succeeded(job),
        };
        vec![OutcomeKind::Started, kind]
    });
    let batch = world.accept(200, |_| ()).await;
    let summary = world.summary(batch.id).await;
    let tally = &summary.tally;
    assert_eq!((tally.of(State::Succeeded), tally.of(State::Dead)), (150, 50));
    assert_eq!((tally.retries, tally.preemptions, tally.failures["bad"]), (50, 50, 50));
    world.mirrored(batch.id, &summary).await;
    // Long after, when nobody remembers the batch.
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    let parts = world.done(batch.id).await;
    let Some(first) = parts[&0].first() else { panic!("nothing was recorded") };
    let late = late_success(&batch, 0, first.lease);
    world.tell(Control::Outcome(late)).await;
    let stale = leading.metrics.stale_outcomes.get();
    world
        .until("the late one", async || {
            (leading.metrics.stale_outcomes.get() > stale).then_some(())
        })
        .await;
    assert_eq!(world.done(batch.id).await, parts);
    assert_eq!(world.summary(batch.id).await, summary);
}

fn late_success(batch: &excite_jobs::Batch, index: u32, lease: u32) -> Outcome {
    let job = excite_jobs::JobId::new(batch.id, index);
    let about = excite_jobs::About { job, lease, attempt: 1 };
    let success = serde_json::json!({"key": "k", "sha256": "", "seconds": 1, "steps": 2,
        "loss": null, "scores": []});
    let success = serde_json::from_value(success).unwrap();
    Outcome::about(about, "w-2", OutcomeKind::Succeeded(success))
}

#[tokio::test(start_paused = true)]
async fn a_late_success_brings_a_dead_job_back() {
    let world = World::new();
    let _leading = world.lead();
    let _ = world.work(1, |_| vec![failed(Class::Invalid, "bad")]);
    let batch = world.accept(2, |_| ()).await;
    assert_eq!(world.summary(batch.id).await.tally.of(State::Dead), 2);
    // The leader has forgotten the batch by then.
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    world.tell(Control::Outcome(late_success(&batch, 1, 1))).await;
    world
        .until("the success", async || {
            let tally = world.summary(batch.id).await.tally;
            (tally.of(State::Succeeded) == 1 && tally.dead[&DeadReason::Invalid] == 1).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn dead_jobs_are_replayed() {
    let world = World::new();
    let _leading = world.lead();
    let mended = Arc::new(AtomicBool::new(false));
    let well = mended.clone();
    let seen = world.work(1, move |job| {
        let bad = job.index.is_multiple_of(2) && !well.load(Ordering::Relaxed);
        vec![if bad { failed(Class::Invalid, "bad") } else { succeeded(job) }]
    });
    let batch = world.accept(150, |_| ()).await;
    assert_eq!(world.summary(batch.id).await.tally.of(State::Dead), 75);
    mended.store(true, Ordering::Relaxed);
    let indices = (0..200).collect();
    world.tell(Control::Replay { batch: batch.id, indices }).await;
    let tally = world.until("the end of the replay", async || {
        let tally = world.summary(batch.id).await.tally;
        (tally.of(State::Succeeded) == 150).then_some(tally)
    });
    let tally = tally.await;
    assert_eq!((tally.of(State::Dead), tally.dead.len()), (0, 0));
    assert!(
        seen.lock().unwrap().iter().any(|job| (job.index, job.lease, job.attempt) == (4, 2, 1))
    );
    let done = world.done(batch.id).await;
    let states: Vec<_> = done[&4].iter().map(|done| (done.state, done.reason)).collect();
    let want = [
        (State::Dead, Reason::Failed),
        (State::Queued, Reason::Replayed),
        (State::Succeeded, Reason::Reported),
    ];
    assert_eq!(states, want);
    world
        .until("the end of the mark", async || (!world.is_active(batch.id).await).then_some(()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_gives_up_is_dead_or_put_aside() {
    let world = World::new();
    let leading = world.lead();
    let seen = world.work(1, |job| match job.index {
        3 => Vec::new(),
        _ => vec![succeeded(job)],
    });
    let batch = world.accept(5, |_| ()).await;
    let job = world
        .until("job 3", async || seen.lock().unwrap().iter().find(|job| job.index == 3).cloned());
    let job = job.await;
    for body in [serde_json::to_vec(&job).unwrap(), b"\xff no job".to_vec()] {
        let message = Message { body: body.into(), ..Message::default() };
        world.queue.publish(&QueueName::Dead, message).await.unwrap();
    }
    let tally = world.summary(batch.id).await.tally;
    assert_eq!(tally.dead, BTreeMap::from([(DeadReason::Broker, 1)]));
    world
        .until("what was put aside", async || {
            let page = world.store.list("unreadable/", None, false).await.unwrap();
            (page.keys.len() == 1).then_some(())
        })
        .await;
    assert_eq!(leading.metrics.unreadable.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_damaged_are_dead_jobs_and_hold_nobody_up() {
    let world = World::new();
    let _leading = world.lead();
    let _ = world.work(1, |job| vec![succeeded(job)]);
    let batch = world.accept(200, |batch| batch.parts[1].sha256 = "0".into()).await;
    let other = world.accept(150, |_| ()).await;
    let tally = world.summary(batch.id).await.tally;
    assert_eq!((tally.of(State::Succeeded), tally.failures["manifest"]), (120, 80));
    assert_eq!(tally.dead, BTreeMap::from([(DeadReason::Invalid, 80)]));
    assert_eq!(world.summary(other.id).await.tally.of(State::Succeeded), 150);
}

#[tokio::test(start_paused = true)]
async fn the_leader_takes_old_uploads_away() {
    let world = World::new();
    let old: UploadId = "0192d7a0-0000-7000-8000-000000000001".parse().unwrap();
    let parts = [old, UploadId::new()].map(|id| keys::upload_part(id, 1, uuid::Uuid::now_v7()));
    for part in &parts {
        world.store.put(part, "a cat\n".into(), Condition::Always).await.unwrap();
    }
    let _leading = world.lead();
    world
        .until("the sweep", async || {
            world.store.get(&parts[0]).await.unwrap().is_none().then_some(())
        })
        .await;
    assert!(world.store.get(&parts[1]).await.unwrap().is_some(), "it has its day");
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_holds_is_summed_over_the_classes_of_a_lane() {
    let world = World::new();
    let leading = world.lead();
    world.accept(3, |batch| batch.lane = Lane::Bulk).await;
    let large = |batch: &mut Batch| (batch.lane, batch.class) = (Lane::Bulk, "large".into());
    world.accept(4, large).await;
    let ready = leading.metrics.queue_jobs.with_label_values(&["bulk", "ready"]);
    world.until("both in the broker", async || (ready.get() == 7).then_some(())).await;
}
