//! Jobs that can never be made end dead, with their reason, and the others do not suffer.

use std::time::Duration;

use excite_jobs::{DeadReason, State};
use excite_tests::cluster::{BUCKET, Cluster, count};
use excite_tests::{Port, Program, Rabbit, built};

use super::{LIMIT, lines};

#[tokio::test]
async fn a_job_that_kills_its_workers_ends_dead_and_the_others_are_made() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "poison").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    // Too large for the memory that the worker may have: it is aborted.
    let poison = r#"{"prompt":"a cat","method":"none","steps":1,"width":2048,"height":2048}"#;
    let all = format!("{}\n{poison}\n{}", lines(3, 1), lines(3, 2));
    let view = cluster.submit(&dispatcher, "", &all).await.unwrap();

    // Somebody starts the worker again whenever it died, as Kubernetes does.
    let port = Port::free().unwrap();
    let script = "ulimit -v 2500000; while true; do \"$0\"; done";
    let worker = built("excite-worker").unwrap();
    let env = cluster.env().chain([
        ("EXCITE_WORKER__LISTEN".to_owned(), format!("127.0.0.1:{}", port.number())),
        ("EXCITE_WORKER__SLOTS".to_owned(), "2".to_owned()),
    ]);
    let args = ["-c", script, worker.to_str().unwrap()];
    let _worker = Program::start("/bin/sh", args, env).unwrap();

    let view = cluster.finished(&dispatcher, view.id, 2 * LIMIT).await.unwrap();
    assert_eq!((count(&view, State::Succeeded), count(&view, State::Dead)), (6, 1));
    let dead = view.tally.unwrap().dead;
    assert_eq!(dead.get(&DeadReason::Poison), Some(&1), "{dead:?}");
}

#[tokio::test]
async fn a_job_of_an_unknown_model_is_dead_at_once_and_can_be_replayed() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "unknown-model").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    let push = ["model", "push", "emoji", "--name", "other"];
    cluster.excite(&dispatcher, &push).await.unwrap();
    let view = cluster.submit(&dispatcher, "model=other", &lines(2, 1)).await.unwrap();
    // Somebody takes the model away while the jobs wait.
    std::fs::remove_dir_all(cluster.s3.root().join(BUCKET).join("models/other")).unwrap();
    let _worker = cluster.worker(&[]).await.unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_eq!(count(&view, State::Dead), 2);
    let tally = view.tally.unwrap();
    assert_eq!(tally.dead.get(&DeadReason::Invalid), Some(&2), "{tally:?}");
    assert_eq!(tally.failures.get("unknown_model"), Some(&2), "{tally:?}");

    cluster.excite(&dispatcher, &push).await.unwrap();
    let id = view.id.to_string();
    cluster.excite(&dispatcher, &["dead", "replay", &id]).await.unwrap();
    let done = |v: &_| count(v, State::Succeeded) == 2;
    cluster.until(&dispatcher, view.id, LIMIT, "the replayed jobs", done).await.unwrap();

    let url = format!("{}/v1/batches?model=nobody", dispatcher.url);
    let post = reqwest::Client::new().post(url).header("content-type", "text/plain");
    let answer = post.timeout(Duration::from_secs(10)).body("a cat").send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status == 422 && text.contains("unknown_model"), "{status}: {text}");
}
