//! Leaders that die anywhere, lead at once, or lose the mirror.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use excite_dispatcher::lead::LeadConfig;
use excite_dispatcher::{done_log, header};
use excite_jobs::progress::Progress;
use excite_jobs::store::{Condition, Etag, Head, Object, Page, Store, StoreError};
use excite_jobs::{Class, Failure, Job, OutcomeKind, State, keys};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::world::{World, succeeded};

fn script(job: &Job) -> Vec<OutcomeKind> {
    let kind = match (job.index % 10, job.lease) {
        (1, 1) => OutcomeKind::Failed(Failure::new(Class::Transient, "store", "503")),
        (2, 1 | 2) => OutcomeKind::Preempted { checkpoint: None, step: 1 },
        (3, _) => OutcomeKind::Failed(Failure::new(Class::Invalid, "bad", "bad")),
        _ => succeeded(job),
    };
    vec![OutcomeKind::Started, kind]
}

/// What must hold in the end, whatever happened.
async fn every_job_was_concluded_once(world: &World, batch: excite_jobs::BatchId, jobs: u32) {
    let done = world.done(batch).await;
    assert_eq!(done.len() as u32, jobs, "every job was concluded");
    for (index, all) in &done {
        let last = all.iter().filter(|done| done.state.is_terminal()).count();
        assert_eq!(last, 1, "job {index}: {all:?}");
    }
    let summary = world.summary(batch).await;
    let (header, _) = header::load(&*world.store, batch).await.unwrap().unwrap();
    let folded = done_log::fold(&*world.store, &header, None).await.unwrap();
    assert_eq!(folded.tally, summary.tally, "rebuilding gives what the leader counted");
    let tally = summary.tally;
    let tenth = u64::from(jobs / 10);
    assert_eq!((tally.of(State::Succeeded), tally.of(State::Dead)), (9 * tenth, tenth));
    assert_eq!((tally.retries, tally.preemptions), (tenth, 2 * tenth));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_anywhere_loses_nothing_and_counts_nothing_twice() {
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..4 {
        let world = World::new();
        let _ = world.work(1, script);
        let batch = world.accept(200, |_| ()).await;
        let (mut deaths, mut finished) = (0, false);
        while !finished {
            // Some die while they take over, some in the middle of much.
            let polls = random.random_range(1..60) * (1 + round);
            let leading = world.lead_with(LeadConfig::new("d"), world.store.clone(), polls);
            while !leading.task.is_finished() && !finished {
                tokio::time::sleep(Duration::from_millis(50)).await;
                finished = world.store.head(&keys::summary(batch.id)).await.unwrap().is_some()
                    && !world.is_active(batch.id).await;
            }
            leading.kill().await;
            deaths += 1;
            assert!(deaths < 5000, "it never ends");
        }
        assert!(deaths > 1, "{deaths}");
        every_job_was_concluded_once(&world, batch.id, 200).await;
    }
}

/// A store that tells one dispatcher that it still leads.
struct Lying {
    store: Arc<dyn Store>,
    lies: Arc<AtomicBool>,
    own: Mutex<Option<Object>>,
}

#[async_trait]
impl Store for Lying {
    async fn put(&self, key: &str, body: Bytes, on: Condition) -> Result<Etag, StoreError> {
        let etag = self.store.put(key, body.clone(), on).await?;
        if key == keys::LEADER {
            *self.own.lock().unwrap() = Some(Object { body, etag: etag.clone() });
        }
        Ok(etag)
    }
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let own = self.own.lock().unwrap().clone();
        if key == keys::LEADER && own.is_some() && self.lies.load(Ordering::Relaxed) {
            return Ok(own);
        }
        self.store.get(key).await
    }
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.store.head(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, f: bool) -> Result<Page, StoreError> {
        self.store.list(prefix, after, f).await
    }
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.store.delete(keys).await
    }
    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        self.store.put_file(key, path).await
    }
    async fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError> {
        self.store.get_file(key, path).await
    }
    async fn probe(&self, name: &str) -> Result<(), StoreError> {
        self.store.probe(name).await
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_both_think_they_lead_do_no_harm() {
    let world = World::new();
    let lies = Arc::new(AtomicBool::new(true));
    let lied = |name: &str| {
        let store = Lying { store: world.store.clone(), lies: lies.clone(), own: Mutex::default() };
        world.lead_with(LeadConfig::new(name), Arc::new(store), usize::MAX)
    };
    let leading = [lied("d-1"), lied("d-2")];
    let seen = world.work(1, script);
    let batch = world.accept(400, |_| ()).await;
    // The broker goes to and fro between them; neither learns of the other.
    let mut turns = 0;
    while turns < 60 && seen.lock().unwrap().len() < 400 {
        tokio::time::sleep(Duration::from_millis(130)).await;
        leading[turns % 2].connection.lose();
        turns += 1;
    }
    assert!(turns > 10, "{turns}");
    lies.store(false, Ordering::Relaxed);
    let summary = world.summary(batch.id).await;
    let tally = &summary.tally;
    assert_eq!((tally.of(State::Succeeded), tally.of(State::Dead)), (360, 40));
    let done = world.done(batch.id).await;
    assert_eq!(done.len(), 400);
    for (index, all) in &done {
        let ends: BTreeMap<_, _> =
            all.iter().filter(|d| d.state.is_terminal()).map(|d| (d.state, ())).collect();
        assert_eq!(ends.len(), 1, "job {index}: {all:?}");
    }
    world.mirrored(batch.id, &summary).await;
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_lost_in_the_middle_is_exact_again() {
    let world = World::new();
    let _leading = world.lead();
    let seen = world.work(1, script);
    let batch = world.accept(600, |_| ()).await;
    for part in [100, 300, 500] {
        world.until("some of it", async || (seen.lock().unwrap().len() > part).then_some(())).await;
        world.mirror.clear();
    }
    let summary = world.summary(batch.id).await;
    world.mirrored(batch.id, &summary).await;
    // Nothing changes any more, and still it is noticed.
    world.mirror.clear();
    world.mirrored(batch.id, &summary).await;
    assert!(world.mirror.status().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_hands_over_and_leaves_nothing_behind() {
    let world = World::new();
    let _ = world.work(1, script);
    let batch = world.accept(300, |_| ()).await;
    let mut stops = 0;
    loop {
        let leading = world.lead();
        tokio::time::sleep(Duration::from_millis(700)).await;
        leading.stop.cancel();
        leading.task.await.unwrap();
        stops += 1;
        if world.store.head(&keys::summary(batch.id)).await.unwrap().is_some() {
            break;
        }
        assert!(stops < 1000, "it never ends");
    }
    assert!(stops > 1);
    every_job_was_concluded_once(&world, batch.id, 300).await;
}
