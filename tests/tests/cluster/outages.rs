//! A server goes away and comes back: what runs goes on, what was accepted is made.

use std::time::Duration;

use excite_jobs::State;
use excite_tests::Rabbit;
use excite_tests::cluster::{Cluster, count};

use super::{LIMIT, assert_all_succeeded, lines};

#[tokio::test]
async fn a_broker_that_was_away_changes_nothing() {
    let rabbit = Rabbit::start().await.unwrap();
    let cluster = Cluster::start(&rabbit, "broker-away").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&[]).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(40, 4)).await.unwrap();
    let begun = |v: &_| count(v, State::Succeeded) > 0;
    cluster.until(&dispatcher, view.id, LIMIT, "the first image", begun).await.unwrap();
    rabbit.kill();
    // Accepted while the broker is away: the store has it.
    let second = cluster.submit(&dispatcher, "", &lines(3, 1)).await.unwrap();
    rabbit.start_again().await.unwrap();

    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    let second = cluster.finished(&dispatcher, second.id, LIMIT).await.unwrap();
    assert_all_succeeded(&second);
    assert_eq!(cluster.stored(view.id, "images", ".png").unwrap().len(), 40);
    let failed = view.tally.unwrap().failures;
    assert!(failed.is_empty(), "an outage of the broker fails no job: {failed:?}");
}

#[tokio::test]
async fn a_broker_that_lost_its_queues_is_filled_again() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start(rabbit, "broker-lost").await.unwrap();
    // Several claims of the feeder: the last one is published again in any case.
    let window = ("EXCITE_DISPATCHER__WINDOW_MIN", "600");
    let mut dispatcher = cluster.dispatcher_with(&[window]).await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let id = cluster.submit(&dispatcher, "", &lines(600, 1)).await.unwrap().id;
    let all = |v: &_| count(v, State::Queued) == 600;
    cluster.until(&dispatcher, id, LIMIT, "all jobs in the queue", all).await.unwrap();
    dispatcher.program.kill();
    let broker = cluster.variable("EXCITE_BROKER__URL").unwrap();
    let properties = lapin::ConnectionProperties::default();
    let broker = lapin::Connection::connect(broker, properties).await.unwrap();
    let channel = broker.create_channel().await.unwrap();
    let queue = "excite.v1.jobs.default.bulk".into();
    let lost = channel.queue_purge(queue, Default::default()).await.unwrap();
    assert_eq!(lost, 600);

    let new = ("EXCITE_QUEUE_IS_NEW", "true");
    let dispatcher = cluster.dispatcher_with(&[window, new]).await.unwrap();
    let _worker = cluster.worker(&["--pipeline", "empty", "--slots", "64"]).await.unwrap();
    assert_all_succeeded(&cluster.finished(&dispatcher, id, LIMIT).await.unwrap());
}

#[tokio::test]
async fn a_flushed_redis_is_filled_again_with_exact_counts() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "redis-flushed").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&[]).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(30, 3)).await.unwrap();
    let begun = |v: &_| count(v, State::Succeeded) >= 4;
    cluster.until(&dispatcher, view.id, LIMIT, "some images", begun).await.unwrap();
    cluster.redis.flush_all().await.unwrap();
    let back = |v: &_| count(v, State::Succeeded) >= 4;
    cluster.until(&dispatcher, view.id, LIMIT, "the counts again", back).await.unwrap();

    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    let mut redis = cluster.redis.connect().await.unwrap();
    let key = format!("excite:{{b:{}}}:n", view.id);
    // The mirror is told four times a second, so it may be a moment behind the summary.
    excite_tests::eventually(LIMIT, "30 in Redis", async || {
        let ask = redis::cmd("HGET").arg(&key).arg("succeeded").to_owned();
        let succeeded: u64 = ask.query_async(&mut redis).await.map_err(|e| e.to_string())?;
        if succeeded == 30 { Ok(()) } else { Err(format!("{succeeded}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_holds_jobs_back_and_fails_none() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "store-away").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let worker = cluster.worker(&[]).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(20, 3)).await.unwrap();
    let begun = |v: &_| count(v, State::Succeeded) > 0;
    cluster.until(&dispatcher, view.id, LIMIT, "the first image", begun).await.unwrap();
    cluster.s3.kill();
    // What this test is about is 20 seconds of outage, so here time itself is waited for.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.s3.start_again().await.unwrap();

    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    assert_eq!(cluster.stored(view.id, "images", ".json").unwrap().len(), 20);
    assert_eq!(cluster.metric(&worker, "excite_jobs_total", "failed").await.unwrap(), 0.);
}
