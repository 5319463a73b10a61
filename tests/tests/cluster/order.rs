//! The order of writes: a process dies between any two of them, and its successor finds enough to
//! go on with. Publish, then store, then acknowledge; never the other way round.

use std::time::Duration;

use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Message, Queue, QueueName};
use excite_jobs::{Control, Job, Outcome, OutcomeKind, Sidecar, State, keys};
use excite_tests::cluster::{BUCKET, Cluster, Service, count};
use excite_tests::{Rabbit, Signal, failpoints};
use sha2::{Digest, Sha256};

use super::{LIMIT, assert_all_succeeded, guided_lines, lines};

/// Until a process that must crash has crashed.
const CRASH: Duration = Duration::from_secs(60);

async fn crashed(mut service: Service, point: &str) {
    let status = service.program.wait(CRASH).await.unwrap();
    assert!(!status.success(), "nobody came to {point}: {status}");
}

/// All images are there, each with its sidecar, and each job was concluded once.
async fn assert_whole(cluster: &Cluster, server: &Service, id: excite_jobs::BatchId, jobs: usize) {
    let view = cluster.finished(server, id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    for end in [".png", ".json"] {
        assert_eq!(cluster.stored(id, "images", end).unwrap().len(), jobs, "{end}");
    }
    let concluded = cluster.records(id).unwrap();
    let succeeded = concluded.iter().filter(|done| done.state == State::Succeeded);
    assert_eq!(succeeded.count(), jobs, "{concluded:?}");
}

#[tokio::test]
async fn a_worker_may_die_between_any_two_of_its_writes() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "worker-order").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let empty = ["--pipeline", "empty"];
    // The last one is for a worker that stops.
    for point in &failpoints::WORKER[..5] {
        let doomed = cluster.crashing_worker(&empty, point).await.unwrap();
        let view = cluster.submit(&dispatcher, "", &lines(3, 1)).await.unwrap();
        crashed(doomed, point).await;
        let worker = cluster.worker(&empty).await.unwrap();
        assert_whole(&cluster, &dispatcher, view.id, 3).await;
        drop(worker);
    }
}

#[tokio::test]
async fn a_worker_may_die_when_it_has_saved_the_state_that_it_hands_over() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "hand-over").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let mut doomed = cluster.crashing_worker(&[], "worker_saved_state").await.unwrap();
    let view = cluster.submit(&dispatcher, "", &guided_lines(1, 30)).await.unwrap();
    let runs = |v: &_| count(v, State::Running) > 0;
    cluster.until(&dispatcher, view.id, LIMIT, "a running job", runs).await.unwrap();
    doomed.program.signal(Signal::SIGTERM).unwrap();
    crashed(doomed, "worker_saved_state").await;
    let _worker = cluster.worker(&[]).await.unwrap();
    assert_whole(&cluster, &dispatcher, view.id, 1).await;
}

#[tokio::test]
async fn a_dispatcher_may_die_between_any_two_of_its_writes() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "leader-order").await.unwrap();
    let first = cluster.dispatcher().await.unwrap();
    cluster.push_model(&first).await.unwrap();
    drop(first);
    let client = reqwest::Client::new();
    let points = [&failpoints::ACCEPT[..], &failpoints::LEAD].concat();
    for point in points.iter().copied() {
        let doomed = cluster.crashing_dispatcher(point).await.unwrap();
        let post = async |url: &str| {
            let post = client.post(format!("{url}/v1/batches")).header("idempotency-key", point);
            let post = post.header("content-type", "application/x-ndjson").body(lines(3, 1));
            let answer = post.send().await.ok()?;
            let status = answer.status();
            let text = answer.text().await.ok()?;
            assert!(status.is_success(), "{point}: {status}: {text}");
            Some(text)
        };
        let accepted = post(&doomed.url).await;
        let mut worker = None;
        // Those of accepting a batch and of feeding it come by themselves.
        if let ("dispatcher_followed" | "dispatcher_recorded_run", Some(text)) = (point, &accepted)
        {
            let view: excite_jobs::api::BatchView = serde_json::from_str(text).unwrap();
            let fed = |v: &_| count(v, State::Queued) == 3;
            cluster.until(&doomed, view.id, LIMIT, "fed jobs", fed).await.unwrap();
            hand_over(&cluster, &cluster.published_job(view.id, 0).unwrap()).await;
        } else if ["recorded", "acknowledged", "summarized"].iter().any(|end| point.ends_with(end))
        {
            worker = Some(cluster.worker(&["--pipeline", "empty"]).await.unwrap());
        }
        crashed(doomed, point).await;

        let next = cluster.dispatcher().await.unwrap();
        // Whoever was not answered asks again under its key, and gets one batch.
        let text = post(&next.url).await.unwrap();
        let view: excite_jobs::api::BatchView = serde_json::from_str(&text).unwrap();
        if let Some(before) = accepted {
            let before: excite_jobs::api::BatchView = serde_json::from_str(&before).unwrap();
            assert_eq!(before.id, view.id, "{point}");
        }
        let _worker = match worker {
            Some(worker) => worker,
            None => cluster.worker(&["--pipeline", "empty"]).await.unwrap(),
        };
        assert_whole(&cluster, &next, view.id, 3).await;
        eprintln!("{point}: passed");
    }
    let batches = cluster.stored_batches().unwrap();
    assert_eq!(batches, points.len(), "one key, one batch");
}

/// Kinds of machines differ in the last bit of their pixels; whichever stored the image, its sidecar
/// is about that image, and says so if the other one wrote it.
#[tokio::test]
async fn an_image_and_its_sidecar_belong_together_whatever_kinds_of_workers_made_them() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "kinds").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let empty = ["--pipeline", "empty"];
    for (point, kind) in [
        ("worker_made_image", "here"),
        ("worker_stored_image", "adopted"),
        ("worker_stored_sidecar", "other"),
    ] {
        let crash = format!("worker_other_kind=return;{point}");
        let doomed = cluster.crashing_worker(&empty, &crash).await.unwrap();
        let view = cluster.submit(&dispatcher, "", &lines(1, 1)).await.unwrap();
        crashed(doomed, point).await;
        let _worker = cluster.worker(&empty).await.unwrap();
        assert_whole(&cluster, &dispatcher, view.id, 1).await;
        let job = cluster.jobs(&dispatcher, view.id).await.unwrap().remove(0);
        let image = cluster.image(&dispatcher, job.id).await.unwrap();
        let sha256 = format!("{:x}", Sha256::digest(&image));
        let sidecar = cluster.s3.root().join(BUCKET).join(keys::sidecar(job.id));
        let sidecar: Sidecar = serde_json::from_slice(&std::fs::read(sidecar).unwrap()).unwrap();
        assert_eq!(sidecar.sha256, sha256, "{point}");
        assert_eq!(job.success.unwrap().sha256, sha256, "{point}");
        let said = match (sidecar.adopted, sidecar.kind.as_str()) {
            (true, "empty") => "adopted",
            (false, "empty") => "here",
            (false, "other") => "other",
            other => panic!("{other:?}"),
        };
        assert_eq!(said, kind, "{point}");
    }
}

/// Says of a job that waits in the broker that a worker gave it back.
async fn hand_over(cluster: &Cluster, job: &Job) {
    let url = Rabbit::shared().await.unwrap().url(&cluster.vhost);
    let queue = RabbitQueue::connect(RabbitOptions::new(url, "a worker that stops")).unwrap();
    let kind = OutcomeKind::Preempted { checkpoint: None, step: 0 };
    let outcome = Control::Outcome(Outcome::of(job, "w-0", kind));
    let body = serde_json::to_vec(&outcome).unwrap().into();
    let message = Message { body, kind: Control::TYPE.into(), ..Message::default() };
    let published = excite_tests::eventually(LIMIT, "an outcome", async || {
        queue.publish(&QueueName::Control, message.clone()).await
    });
    published.await.unwrap();
    queue.close().await;
}
