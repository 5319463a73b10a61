//! The broker closes channels, is not heard of any more, loses nodes: what runs goes on, and nothing
//! is run twice.

use std::time::Duration;

use excite_jobs::{Lane, keys};
use excite_tests::cluster::Cluster;
use excite_tests::{Rabbit, Trio, eventually};

use super::{EMPTY, LIMIT, assert_unharmed, guided_lines, lines, metric};

/// Two heartbeats of two seconds, on a busy machine.
const FOUND: Duration = Duration::from_secs(20);

/// The broker closes the channel of a consumer that keeps a message for too long (406), here twice
/// or more in one job.
#[tokio::test]
async fn a_job_that_takes_longer_than_the_broker_waits_is_made_once() {
    let timeout = Duration::from_secs(2);
    let rabbit = Rabbit::builder().consumer_timeout(timeout).start().await.unwrap();
    let cluster = Cluster::start(&rabbit, "consumer-timeout").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let worker = cluster.worker(&["--slots", "2"]).await.unwrap();
    // Long enough on a fast machine, too: some 8 s, with a look of the broker each half second.
    let view = cluster.submit(&dispatcher, "", &guided_lines(2, 200)).await.unwrap();
    metric(&cluster, &worker, "excite_redeliveries_total", |count| count >= 2.).await;
    assert!(rabbit.log().find(|line| line.contains("timeout")).is_some(), "nobody waited too long");
    assert_unharmed(&cluster, &dispatcher, &view).await;
    assert_eq!(cluster.metric(&worker, "excite_images_total", "").await.unwrap(), 2.);
}

/// A router forgets the connections: nobody is told, and nothing comes any more.
#[tokio::test]
async fn a_dead_link_to_the_broker_is_found_by_its_silence() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start_behind_proxies(rabbit, "dead-link").await.unwrap();
    // Ten seconds where nobody says otherwise.
    let url = format!("{}?heartbeat=2", cluster.variable("EXCITE_BROKER__URL").unwrap());
    let heartbeat = [("EXCITE_BROKER__URL", url.as_str())];
    let dispatcher = cluster.dispatcher_with(&heartbeat).await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let worker = cluster.worker_with(&EMPTY, &heartbeat).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(300, 1)).await.unwrap();
    cluster.until_stored(view.id, 5, LIMIT).await.unwrap();
    let forgotten = cluster.links.as_ref().unwrap().broker.forget();
    assert!(forgotten >= 4, "two of each: {forgotten}");
    for service in [&dispatcher, &worker] {
        eventually(FOUND, "what it says of the silence", async || {
            service.program.log().find(|line| line.contains("no heartbeat received"))
        })
        .await
        .unwrap();
    }
    assert_unharmed(&cluster, &dispatcher, &view).await;
}

#[tokio::test]
async fn a_reset_link_to_the_broker_is_made_again() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start_behind_proxies(rabbit, "reset-link").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(60, 1)).await.unwrap();
    let link = &cluster.links.as_ref().unwrap().broker;
    for part in [5, 20, 40] {
        cluster.until_stored(view.id, part, LIMIT).await.unwrap();
        link.reset();
    }
    assert_unharmed(&cluster, &dispatcher, &view).await;
}

/// Two of three nodes go on; the third comes back, and another one goes.
#[tokio::test]
#[ignore = "long: a broker of three nodes, two of which are killed in turn"]
async fn nodes_that_lead_the_queue_die_in_turn_and_no_job_pays() {
    let trio = Trio::start().await.unwrap();
    let cluster = Cluster::start_on_three(&trio, "trio").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&["--slots", "2"]).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(300, 2)).await.unwrap();
    let queue = keys::jobs_queue("default", Lane::Bulk);
    for round in 0..2 {
        cluster.until_stored(view.id, 10 + 100 * round, LIMIT).await.unwrap();
        let leader = eventually(LIMIT, "a leader of the queue", async || {
            trio.leader(&cluster.vhost, &queue).await
        });
        let leader = leader.await.unwrap();
        leader.kill();
        let made = cluster.stored(view.id, "images", ".json").unwrap().len();
        // More than could be held without a broker.
        cluster.until_stored(view.id, (made + 40).min(300), LIMIT).await.unwrap();
        leader.start_again().await.unwrap();
    }
    assert_unharmed(&cluster, &dispatcher, &view).await;
}
