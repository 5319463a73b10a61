//! The store loses its answers, its links and its objects: calls are made again, and a job that was
//! made counts once.

use std::time::Duration;

use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Message, Queue};
use excite_jobs::{JobId, Lane, Sidecar, keys};
use excite_tests::cluster::Cluster;
use excite_tests::proxy::Fault;
use excite_tests::{Rabbit, eventually};

use super::{EMPTY, LIMIT, assert_unharmed, lines, object};

async fn behind_proxies(name: &str) -> Cluster {
    Cluster::start_behind_proxies(Rabbit::shared().await.unwrap(), name).await.unwrap()
}

/// The image is stored and its answer is lost: the next try is refused by the first one's success.
#[tokio::test]
async fn an_answer_that_was_lost_does_not_make_a_result_another_one() {
    let cluster = behind_proxies("lost-answer").await;
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let link = &cluster.links.as_ref().unwrap().store;
    for (name, end) in [("image", ".png"), ("sidecar", ".json")] {
        // So long that we see what arrived before the answer has left.
        link.set(Fault::Delay(Duration::from_millis(500)));
        let view = cluster.submit(&dispatcher, "", &lines(1, 1)).await.unwrap();
        eventually(LIMIT, name, async || {
            cluster.stored(view.id, "images", end).is_ok_and(|names| !names.is_empty())
        })
        .await
        .unwrap();
        assert!(link.reset() > 0, "the answer of the {name} is on its way");
        link.set(Fault::None);
        assert_unharmed(&cluster, &dispatcher, &view).await;
    }
}

#[tokio::test]
async fn a_dead_link_to_the_store_is_given_up_for_a_new_one() {
    let cluster = behind_proxies("store-link").await;
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(60, 1)).await.unwrap();
    cluster.until_stored(view.id, 5, LIMIT).await.unwrap();
    assert!(cluster.links.as_ref().unwrap().store.forget() > 0);
    let began = std::time::Instant::now();
    assert_unharmed(&cluster, &dispatcher, &view).await;
    // Each connection is found after ten seconds without an answer, and there are some.
    assert!(began.elapsed() < Duration::from_secs(150), "{:?}", began.elapsed());
}

/// Somebody deletes an image and leaves its sidecar.
#[tokio::test]
async fn a_sidecar_without_an_image_is_no_result() {
    let rabbit = Rabbit::shared().await.unwrap();
    let cluster = Cluster::start(rabbit, "no-image").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let worker = cluster.worker(&EMPTY).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &lines(1, 1)).await.unwrap();
    assert_unharmed(&cluster, &dispatcher, &view).await;
    drop(worker);
    let image = object(&cluster, &keys::image(JobId::new(view.id, 0)));
    let before = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();

    // One that remembers nothing.
    let _worker = cluster.worker(&EMPTY).await.unwrap();
    let job = cluster.published_job(view.id, 0).unwrap();
    let queue = RabbitOptions::new(rabbit.url(&cluster.vhost), "a duplicate");
    let queue = RabbitQueue::connect(queue).unwrap();
    let body = serde_json::to_vec(&job).unwrap().into();
    let message = Message { body, id: job.id.to_string(), ..Message::default() };
    eventually(LIMIT, "a duplicate", async || {
        queue.publish_job(&job.class, Lane::Express, None, message.clone()).await
    })
    .await
    .unwrap();
    eventually(LIMIT, "the image again", async || image.exists()).await.unwrap();
    let sidecar = std::fs::read(object(&cluster, &keys::sidecar(job.id))).unwrap();
    let sidecar: Sidecar = serde_json::from_slice(&sidecar).unwrap();
    eventually(LIMIT, "the same image", async || {
        std::fs::read(&image).is_ok_and(|it| it == before)
    })
    .await
    .unwrap();
    assert_eq!(sidecar.v, excite_jobs::VERSION);
    queue.close().await;
    assert_unharmed(&cluster, &dispatcher, &view).await;
}
