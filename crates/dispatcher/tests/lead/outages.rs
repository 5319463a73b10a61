//! Stores and queues that fail: nothing is lost, and it goes on by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use excite_dispatcher::lead::{LeadConfig, Metrics, lead};
use excite_dispatcher::{Ports, done_log, header};
use excite_jobs::{Class, Failure, Job, OutcomeKind, State};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::faulty::{Faults, FaultyQueue, FaultyStore};
use crate::world::{World, succeeded};

fn script(job: &Job) -> Vec<OutcomeKind> {
    let kind = match (job.index % 10, job.lease) {
        (1, 1) => OutcomeKind::Failed(Failure::new(Class::Transient, "store", "503")),
        (2, 1) => OutcomeKind::Preempted { checkpoint: None, step: 1 },
        (3, _) => OutcomeKind::Failed(Failure::new(Class::Invalid, "bad", "bad")),
        _ => succeeded(job),
    };
    vec![OutcomeKind::Started, kind]
}

/// A dispatcher on ports that fail; what stops it, and what ends with it.
fn lead_with_faults(
    world: &World,
    store: &Arc<Faults>,
    queue: &Arc<Faults>,
) -> (CancellationToken, JoinHandle<()>) {
    let own = Arc::new(world.queue.connection());
    let ports = Ports {
        queue: Arc::new(FaultyQueue(own, queue.clone())),
        store: Arc::new(FaultyStore(world.store.clone(), store.clone())),
        progress: world.mirror.clone(),
    };
    let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
    let stop = CancellationToken::new();
    let leading = lead(ports.clone(), LeadConfig::new("d"), metrics, stop.clone());
    let leading = tokio::spawn(async move {
        leading.await.unwrap();
        ports.queue.close().await;
    });
    (stop, leading)
}

async fn all_is_well(world: &World, batch: excite_jobs::BatchId, jobs: u64) {
    let summary = world.summary(batch).await;
    let tally = &summary.tally;
    assert_eq!((tally.of(State::Succeeded), tally.of(State::Dead)), (jobs * 9 / 10, jobs / 10));
    assert_eq!((tally.retries, tally.preemptions), (jobs / 10, jobs / 10));
    let done = world.done(batch).await;
    assert_eq!(done.len() as u64, jobs);
    for (index, all) in &done {
        // A part whose answer was lost is written again; it says the same.
        let ends: BTreeMap<_, _> =
            all.iter().filter(|d| d.state.is_terminal()).map(|d| (d.state, ())).collect();
        assert_eq!(ends.len(), 1, "job {index}: {all:?}");
    }
    let (header, _) = header::load(&*world.store, batch).await.unwrap().unwrap();
    let folded = done_log::fold(&*world.store, &header, None).await.unwrap();
    assert_eq!(folded.tally, summary.tally);
    world.mirrored(batch, &summary).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_either_side_is_survived() {
    let world = World::new();
    let (store, queue) = (Faults::new(0), Faults::new(0));
    lead_with_faults(&world, &store, &queue);
    let seen = world.work(1, script);
    let batch = world.accept(600, |_| ()).await;
    for (many, which) in [(100, &store), (300, &queue)] {
        world.until("a part", async || (seen.lock().unwrap().len() > many).then_some(())).await;
        which.percent.store(100, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(90)).await;
        which.percent.store(0, Ordering::Relaxed);
    }
    all_is_well(&world, batch.id, 600).await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_or_are_answered_too_late_change_nothing() {
    for percent in [5, 20] {
        let world = World::new();
        lead_with_faults(&world, &Faults::new(percent), &Faults::new(percent));
        let _ = world.work(1, script);
        let batch = world.accept(300, |_| ()).await;
        let well = all_is_well(&world, batch.id, 300);
        let hours = Duration::from_secs(6 * 3600);
        tokio::time::timeout(hours, well).await.expect("it goes on by itself");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_reach_the_store_lets_another_lead() {
    let world = World::new();
    lead_with_faults(&world, &Faults::new(100), &Faults::new(0));
    let _ = world.work(1, script);
    let batch = world.accept(300, |_| ()).await;
    // It has the messages by now, and cannot do anything with them.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let _leading = world.lead();
    all_is_well(&world, batch.id, 300).await;
}

/// A link that is dead and open answers nothing: whoever is told to stop does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_dead_link_holds_up_nobody_who_is_told_to_stop() {
    let world = World::new();
    let store = Faults::new(0);
    let (stop, leading) = lead_with_faults(&world, &store, &Faults::new(0));
    let seen = world.work(1, script);
    let batch = world.accept(600, |_| ()).await;
    world.until("a part", async || (seen.lock().unwrap().len() > 100).then_some(())).await;
    store.dead.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let told = Instant::now();
    stop.cancel();
    leading.await.unwrap();
    assert!(told.elapsed() <= Duration::from_secs(16), "{:?}", told.elapsed());

    // Another one finds all that was in hand.
    let _leading = world.lead();
    all_is_well(&world, batch.id, 600).await;
}
