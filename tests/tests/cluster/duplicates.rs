//! The same thing twice counts once.

use std::collections::BTreeSet;

use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Message, Queue};
use excite_jobs::{Job, Lane, State};
use excite_tests::Rabbit;
use excite_tests::cluster::{Cluster, count};

use super::{LIMIT, assert_all_succeeded, guided_lines, lines};

async fn publish_again(cluster: &Cluster, job: &Job) {
    let url = Rabbit::shared().await.unwrap().url(&cluster.vhost);
    let queue = RabbitQueue::connect(RabbitOptions::new(url, "a duplicate")).unwrap();
    let body = serde_json::to_vec(job).unwrap().into();
    let message = Message { body, id: job.id.to_string(), ..Message::default() };
    let published = excite_tests::eventually(LIMIT, "a duplicate", async || {
        queue.publish_job(&job.class, Lane::Express, None, message.clone()).await
    });
    published.await.unwrap();
    queue.close().await;
}

#[tokio::test]
async fn a_job_that_comes_again_to_its_worker_is_run_once() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "again-here").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let worker = cluster.worker(&[]).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &guided_lines(1, 12)).await.unwrap();
    let runs = |v: &_| count(v, State::Running) > 0;
    cluster.until(&dispatcher, view.id, LIMIT, "a running job", runs).await.unwrap();
    publish_again(&cluster, &cluster.published_job(view.id, 0).unwrap()).await;

    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    publish_again(&cluster, &cluster.published_job(view.id, 0).unwrap()).await;
    excite_tests::eventually(LIMIT, "both duplicates answered", async || {
        let total = cluster.metric(&worker, "excite_redeliveries_total", "").await.unwrap();
        if total >= 2. { Ok(()) } else { Err(format!("{total}")) }
    })
    .await
    .unwrap();
    assert_eq!(cluster.metric(&worker, "excite_images_total", "").await.unwrap(), 1.);
    let view = cluster.batch(&dispatcher, view.id).await.unwrap();
    assert_all_succeeded(&view);
}

#[tokio::test]
async fn a_job_that_two_workers_run_gives_one_image() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "again-there").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let slots = ["--slots", "1"];
    let (one, two) = tokio::try_join!(cluster.worker(&slots), cluster.worker(&slots)).unwrap();
    let view = cluster.submit(&dispatcher, "", &guided_lines(1, 12)).await.unwrap();
    let runs = |v: &_| count(v, State::Running) > 0;
    cluster.until(&dispatcher, view.id, LIMIT, "a running job", runs).await.unwrap();
    publish_again(&cluster, &cluster.published_job(view.id, 0).unwrap()).await;

    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    excite_tests::eventually(LIMIT, "both workers idle", async || {
        let mut outcomes = 0.;
        for worker in [&one, &two] {
            outcomes += cluster.metric(worker, "excite_jobs_total", "succeeded").await.unwrap();
        }
        if outcomes >= 2. { Ok(()) } else { Err(format!("{outcomes}")) }
    })
    .await
    .unwrap();
    assert_eq!(cluster.stored(view.id, "images", ".png").unwrap().len(), 1);
    let view = cluster.batch(&dispatcher, view.id).await.unwrap();
    assert_all_succeeded(&view);
}

#[tokio::test]
async fn one_idempotency_key_makes_one_batch_and_an_idle_pair_receives_it() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "idempotency").await.unwrap();
    let one = cluster.dispatcher().await.unwrap();
    let two = cluster.dispatcher().await.unwrap();
    cluster.push_model(&one).await.unwrap();
    let _worker = cluster.worker(&[]).await.unwrap();
    let client = reqwest::Client::new();
    let body = lines(5, 1);
    let posts = (0..10).map(|i| {
        let url = if i % 2 == 0 { &one.url } else { &two.url };
        let post = client.post(format!("{url}/v1/batches")).header("idempotency-key", "once");
        post.header("content-type", "application/x-ndjson").body(body.clone()).send()
    });
    let mut ids = BTreeSet::new();
    for answer in futures::future::join_all(posts).await {
        let answer = answer.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        ids.insert(value["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let id = ids.first().unwrap().parse().unwrap();
    // Both answer alike, whichever of them leads.
    for dispatcher in [&one, &two] {
        let view = cluster.finished(dispatcher, id, LIMIT).await.unwrap();
        assert_all_succeeded(&view);
    }
    assert_eq!(cluster.stored(id, "images", ".png").unwrap().len(), 5);
    let other = client.post(format!("{}/v1/batches", one.url)).header("idempotency-key", "once");
    let other = other.header("content-type", "text/plain").body("a dog").send().await.unwrap();
    assert_eq!(other.status(), 409);
}
