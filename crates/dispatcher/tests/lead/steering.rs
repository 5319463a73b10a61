//! Pause, weight, cancel, delete, lost announcements, canaries.

use std::time::Duration;

use excite_dispatcher::lead::{CanaryConfig, LeadConfig};
use excite_jobs::progress::Progress;
use excite_jobs::store::Condition;
use excite_jobs::{Class, Control, Failure, OutcomeKind, State, keys};
use tokio::time::{Instant, sleep};

use crate::world::{World, succeeded};

/// A window that is never empty when something happens to the batch.
fn wide() -> LeadConfig {
    LeadConfig { window_min: 400, ..LeadConfig::new("d") }
}

#[tokio::test(start_paused = true)]
async fn a_paused_batch_waits_and_goes_on() {
    let world = World::new();
    let _leading = world.lead();
    let seen = world.work(1, |job| vec![succeeded(job)]);
    let batch = world.accept(500, |batch| batch.paused = true).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(seen.lock().unwrap().len(), 0);
    world.patch(batch.id, |batch| batch.paused = false).await;
    world.until("a hundred", async || (seen.lock().unwrap().len() > 100).then_some(())).await;
    world.patch(batch.id, |batch| batch.paused = true).await;
    sleep(Duration::from_secs(30)).await;
    let then = seen.lock().unwrap().len();
    assert!(then < 500, "only what was in the window went on: {then}");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(seen.lock().unwrap().len(), then);
    let status = world.mirror.status().await.unwrap().unwrap();
    assert_eq!((status.classes[0].jobs, status.active_batches), (0, 1));
    world.patch(batch.id, |batch| batch.paused = false).await;
    assert_eq!(world.summary(batch.id).await.tally.of(State::Succeeded), 500);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_batch_ends_at_once_and_absorbs_what_comes_late() {
    let world = World::new();
    let _leading = world.lead_with(wide(), world.store.clone(), usize::MAX);
    let seen = world.work(1, |job| vec![OutcomeKind::Started, succeeded(job)]);
    let batch = world.accept(2000, |_| ()).await;
    world.until("some", async || (seen.lock().unwrap().len() > 100).then_some(())).await;
    let start = Instant::now();
    world.patch(batch.id, |batch| batch.cancelled = true).await;
    let summary = world.summary(batch.id).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    let tally = &summary.tally;
    assert_eq!(tally.terminal(), 2000);
    assert!(tally.of(State::Cancelled) > 1000);
    world.mirrored(batch.id, &summary).await;
    assert!(world.mirror.cancelled().await.unwrap().contains(&batch.id));
    // What was in the window is still answered by workers that had not heard of it.
    sleep(Duration::from_secs(30)).await;
    assert!(seen.lock().unwrap().len() as u64 > tally.of(State::Succeeded));
    assert_eq!(world.summary(batch.id).await, summary);
    world.mirror.clear();
    world
        .until("the repetition", async || {
            world.mirror.cancelled().await.unwrap().contains(&batch.id).then_some(())
        })
        .await;
    sleep(Duration::from_secs(3 * 3600)).await;
    assert!(world.mirror.cancelled().await.unwrap().is_empty(), "not for ever");
}

#[tokio::test(start_paused = true)]
async fn three_batches_share_by_weight() {
    let world = World::new();
    let seen = world.work(1, |job| vec![succeeded(job)]);
    let mut batches = Vec::new();
    for weight in [1, 2, 5] {
        batches.push(world.accept(2000, |batch| batch.weight = weight).await.id);
    }
    let _leading = world.lead();
    world.until("a thousand", async || (seen.lock().unwrap().len() >= 1000).then_some(())).await;
    let seen = seen.lock().unwrap();
    for (id, weight) in batches.iter().zip([1., 2., 5.]) {
        let jobs = seen[..1000].iter().filter(|job| job.batch == *id).count() as f64;
        assert!((jobs / 1000. - weight / 8.).abs() < 0.04, "weight {weight}: {jobs} of 1000");
    }
    let same = seen.windows(2).filter(|pair| pair[0].batch == pair[1].batch).count();
    assert!(same > seen.len() * 8 / 10, "neighbours are alike: {same} of {}", seen.len());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_batch_is_forgotten() {
    let world = World::new();
    let leading = world.lead_with(wide(), world.store.clone(), usize::MAX);
    let seen = world.work(1, |job| vec![succeeded(job)]);
    let batch = world.accept(2000, |_| ()).await;
    world.until("some", async || (seen.lock().unwrap().len() > 50).then_some(())).await;
    loop {
        let page = world.store.list(&keys::batch_prefix(batch.id), None, false).await.unwrap();
        if page.keys.is_empty() {
            break;
        }
        world.store.delete(&page.keys).await.unwrap();
        world.store.delete(&[keys::active(batch.id)]).await.unwrap();
        world.tell(Control::Delete { batch: batch.id }).await;
        sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(world.mirror.batch(batch.id).await.unwrap(), None);
    assert!(leading.metrics.stale_outcomes.get() > 0);
    let other = world.accept(10, |_| ()).await;
    assert_eq!(world.summary(other.id).await.tally.of(State::Succeeded), 10);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_announcement_was_lost_is_found() {
    let world = World::new();
    let _leading = world.lead();
    let _ = world.work(1, |job| vec![succeeded(job)]);
    let first = world.accept(1, |_| ()).await;
    world.summary(first.id).await;
    let batch = world.store_batch(20, |_| ()).await;
    assert_eq!(world.summary(batch.id).await.tally.of(State::Succeeded), 20);
}

const CARD: &str = r#"{"v":1,"name":"emoji","digest":"0","class":"default","bytes":1,
    "facts":{"name":"emoji@0","width":128,"height":128,"size_multiple":8,"side_min":64,
    "train_timesteps":1000,"scheduler":"pndm","prompt_only_tokens":false},"files":{}}"#;

async fn put_card(world: &World) {
    let key = keys::model("emoji");
    world.store.put(&key, CARD.into(), Condition::Always).await.unwrap();
}

fn canaries() -> LeadConfig {
    let every = Duration::from_secs(60);
    let canary = Some(CanaryConfig { model: "emoji".into(), every });
    LeadConfig { canary, ..LeadConfig::new("d") }
}

#[tokio::test(start_paused = true)]
async fn a_canary_goes_through_and_leaves_nothing_behind() {
    let world = World::new();
    put_card(&world).await;
    let leading = world.lead_with(canaries(), world.store.clone(), usize::MAX);
    let seen = world.work(1, |job| vec![succeeded(job)]);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(seen.lock().unwrap().len(), 0, "no worker is ready: nobody is woken");
    for _ in 0..20 {
        world.beat(8).await;
        sleep(Duration::from_secs(10)).await;
    }
    let count = leading.metrics.canary_duration.get_sample_count();
    assert!((3..=5).contains(&count), "{count} canaries in 200 s");
    assert!(leading.metrics.canary_age.get() < 70.);
    world
        .until("an empty store", async || {
            let left = world.store.list("batches/", None, false).await.unwrap().keys;
            let marks = world.store.list(keys::ACTIVE_PREFIX, None, false).await.unwrap().keys;
            (left.is_empty() && marks.is_empty()).then_some(())
        })
        .await;
    let seen = seen.lock().unwrap();
    assert_eq!((seen[0].spec.steps, seen[0].tenant.as_str()), (1, "canary"));
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_or_hangs_does_not_count() {
    let world = World::new();
    put_card(&world).await;
    let leading = world.lead_with(canaries(), world.store.clone(), usize::MAX);
    let seen = world.work(1, |job| {
        let hangs = job.spec.seed == 0 && job.index > 0;
        let kind = OutcomeKind::Failed(Failure::new(Class::Transient, "x", "x"));
        if hangs { Vec::new() } else { vec![kind] }
    });
    for _ in 0..70 {
        world.beat(8).await;
        sleep(Duration::from_secs(10)).await;
    }
    assert!(seen.lock().unwrap().len() > 5);
    assert_eq!(leading.metrics.canary_duration.get_sample_count(), 0);
    assert!(leading.metrics.canary_age.get() > 600.);
}
