//! A rollout: programs of two versions at once.

use anyhow::Context;
use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Message, Queue, QueueName};
use excite_jobs::{Lane, State};
use excite_tests::cluster::{Cluster, count};
use excite_tests::{Rabbit, eventually};
use serde_json::{Value, json};

use super::{EMPTY, LIMIT, lines};

/// A worker of the version before: what it can read it makes, with all it does not know; what it
/// cannot read waits for one that can.
#[tokio::test]
async fn a_job_of_a_later_version_waits_for_a_worker_that_reads_it() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start(rabbit, "versions").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(2, 1)).await.unwrap();
    // As a later dispatcher would have written them.
    let queue = RabbitOptions::new(rabbit.url(&cluster.vhost), "a later version");
    let queue = RabbitQueue::connect(queue).unwrap();
    let mut jobs = queue.consume(&QueueName::jobs("default", Lane::Express), 2).await;
    for _ in 0..2 {
        let delivery = tokio::time::timeout(LIMIT, jobs.recv()).await.unwrap().unwrap();
        let mut job: Value = serde_json::from_slice(&delivery.body).unwrap();
        job["later"] = json!({ "what": "nobody knows yet" });
        if job["index"] == 1 {
            job["v"] = json!(2);
        }
        let id = job["id"].as_str().unwrap().to_owned();
        let message = Message { body: job.to_string().into(), id, ..Message::default() };
        eventually(LIMIT, "a message", async || {
            queue.publish_job("default", Lane::Bulk, None, message.clone()).await
        })
        .await
        .unwrap();
        delivery.acker.ack().await;
    }
    drop(jobs);
    queue.close().await;

    let worker = cluster.worker(&EMPTY).await.unwrap();
    let settled = |v: &_| count(v, State::Succeeded) == 1 && count(v, State::Retrying) == 1;
    let view = cluster.until(&dispatcher, view.id, LIMIT, "one of each", settled).await.unwrap();
    let tally = view.tally.unwrap();
    assert_eq!(tally.failures.get("version"), Some(&1), "{tally:?}");
    assert!(tally.dead.is_empty(), "{tally:?}");
    // The mirror may be told before it is recorded.
    let record = eventually(LIMIT, "the record", async || {
        let records = cluster.records(view.id)?;
        records.into_iter().find(|done| done.index == 1).context("none of job 1")
    });
    let failure = record.await.unwrap().failure.unwrap();
    assert_eq!(failure.class.as_str(), "incompatible", "{failure:?}");
    assert!(failure.message.contains("version 2"), "{failure:?}");
    // It is not this worker's fault, nor does it take less for it.
    assert_eq!(cluster.metric(&worker, "excite_jobs_total", "failed").await.unwrap(), 1.);
    let second = cluster.submit(&dispatcher, "", &lines(3, 1)).await.unwrap();
    cluster.finished(&dispatcher, second.id, LIMIT).await.unwrap();
}
