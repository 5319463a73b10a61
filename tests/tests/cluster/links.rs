//! Servers and links that are slow, broken or full, one at a time: they cost time, never a job.

use excite_jobs::State;
use excite_jobs::api::BatchView;
use excite_tests::Rabbit;
use excite_tests::cluster::{Cluster, Service, count};
use excite_tests::proxy::Fault;

use super::{LIMIT, assert_all_succeeded, lines};

/// Jobs that need no model.
const EMPTY: [&str; 2] = ["--pipeline", "empty"];

/// Every job succeeded, at its first try.
fn assert_nothing_failed(view: &BatchView) {
    assert_all_succeeded(view);
    let tally = view.tally.as_ref().unwrap();
    assert!(tally.failures.is_empty() && tally.retries == 0, "{tally:?}");
}

/// The gauge follows the broker, within a moment.
async fn until_blocked(cluster: &Cluster, dispatcher: &Service, want: f64) {
    excite_tests::eventually(LIMIT, "the gauge", async || {
        let blocked = cluster.metric(dispatcher, "excite_broker_blocked", "").await;
        if blocked.as_ref().is_ok_and(|b| *b == want) {
            Ok(())
        } else {
            Err(format!("{blocked:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_redis_that_hangs_delays_no_image() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "redis-hangs").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    cluster.redis.pause().unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(6, 1)).await.unwrap();
    cluster.until_stored(view.id, 6, LIMIT).await.unwrap();
    cluster.redis.resume().await.unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_nothing_failed(&view);
}

#[tokio::test]
async fn a_bad_link_to_the_store_costs_time_and_no_try() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start_behind_proxies(rabbit, "store-link").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let store = &cluster.links.as_ref().unwrap().store;
    store.set(Fault::Throttle(20_000));
    let view = cluster.submit(&dispatcher, "", &lines(20, 1)).await.unwrap();
    // A reset may come when the server has stored what was sent, and its answer is lost.
    for jobs in 1..8 {
        cluster.until_stored(view.id, 2 * jobs, LIMIT).await.unwrap();
        store.reset();
    }
    store.set(Fault::Cut);
    excite_tests::eventually(LIMIT, "an answer that the store is away", async || {
        cluster.batch(&dispatcher, view.id).await.is_err()
    })
    .await
    .unwrap();
    store.set(Fault::None);
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_nothing_failed(&view);
}

#[tokio::test]
async fn connections_that_are_closed_again_and_again_lose_nothing() {
    let rabbit = Rabbit::start().await.unwrap();
    let cluster = Cluster::start(&rabbit, "closed").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let mut batches = Vec::new();
    for n in 1..6 {
        batches.push(cluster.submit(&dispatcher, "", &lines(20, n)).await.unwrap());
        let closed = rabbit.close_connections().await.unwrap();
        eprintln!("{closed} connections closed");
        cluster.until_stored(batches[0].id, 4 * n as usize, LIMIT).await.unwrap();
    }
    for view in batches {
        let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
        assert_nothing_failed(&view);
    }
}

#[tokio::test]
async fn a_full_broker_takes_nothing_and_loses_nothing() {
    let rabbit = Rabbit::start().await.unwrap();
    let cluster = Cluster::start(&rabbit, "alarm").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let worker = cluster.worker(&EMPTY).await.unwrap();
    let before = cluster.submit(&dispatcher, "", &lines(3, 1)).await.unwrap();
    cluster.finished(&dispatcher, before.id, LIMIT).await.unwrap();
    rabbit.alarm(true).await.unwrap();
    // What is accepted lies in the store, whatever the broker does.
    let view = cluster.submit(&dispatcher, "", &lines(30, 1)).await.unwrap();
    until_blocked(&cluster, &dispatcher, 1.).await;
    rabbit.alarm(false).await.unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_nothing_failed(&view);
    until_blocked(&cluster, &dispatcher, 0.).await;
    assert_eq!(cluster.metric(&worker, "excite_jobs_total", "failed").await.unwrap(), 0.);
}

#[tokio::test]
async fn outcomes_wait_for_a_dispatcher_and_workers_go_on_without_one() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "no-leader").await.unwrap();
    let mut dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(16, 1)).await.unwrap();
    let fed = |v: &_| count(v, State::Queued) == 16;
    cluster.until(&dispatcher, view.id, LIMIT, "16 jobs in the broker", fed).await.unwrap();
    dispatcher.program.kill();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    cluster.until_stored(view.id, 16, LIMIT).await.unwrap();
    let next = cluster.dispatcher().await.unwrap();
    let view = cluster.finished(&next, view.id, LIMIT).await.unwrap();
    assert_nothing_failed(&view);
}
