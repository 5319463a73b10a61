//! The link to Redis dies without a word: the display has a gap, and no job waits for it.

use excite_jobs::State;
use excite_tests::cluster::Cluster;
use excite_tests::{Rabbit, eventually};

use super::{EMPTY, LIMIT, assert_unharmed, lines};

/// What Redis says of a batch.
async fn mirrored(cluster: &Cluster, batch: excite_jobs::BatchId, jobs: u64) {
    let key = format!("excite:{{b:{batch}}}:n");
    eventually(LIMIT, "exact counts in Redis", async || {
        let mut redis = cluster.redis.connect().await.map_err(|error| format!("{error:#}"))?;
        let ask = redis::cmd("HGET").arg(&key).arg(State::Succeeded.as_str()).to_owned();
        let succeeded: Option<u64> =
            ask.query_async(&mut redis).await.map_err(|error| error.to_string())?;
        if succeeded == Some(jobs) { Ok(()) } else { Err(format!("{succeeded:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_dead_link_to_redis_is_given_up_for_a_new_one() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start_behind_proxies(rabbit, "redis-link").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let first = cluster.submit(&dispatcher, "", &lines(5, 1)).await.unwrap();
    assert_unharmed(&cluster, &dispatcher, &first).await;
    assert!(cluster.links.as_ref().unwrap().progress.forget() > 0);
    let second = cluster.submit(&dispatcher, "", &lines(20, 1)).await.unwrap();
    assert_unharmed(&cluster, &dispatcher, &second).await;
    // By a connection that was made since.
    mirrored(&cluster, second.id, 20).await;
}
