//! Jobs that can never be made end dead, with their reason, and the others do not suffer.

use std::time::Duration;

use excite_jobs::{DeadReason, JobId, State};
use excite_tests::Rabbit;
use excite_tests::cluster::{BUCKET, Cluster, count};

use super::{LIMIT, lines};

/// Workers that are started for the job that kills them: three begin it, the next one gives it up.
const WORKERS_MAX: usize = 6;

#[tokio::test]
async fn a_job_that_kills_its_workers_ends_dead_and_the_others_are_made() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "poison").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let poison = r#"{"prompt":"a cat","method":"none","steps":900}"#;
    let all = format!("{}\n{poison}\n{}", lines(3, 1), lines(3, 2));
    let view = cluster.submit(&dispatcher, "", &all).await.unwrap();
    let job = JobId::new(view.id, 3).to_string();

    // Whoever begins the job is killed, as the system kills what takes all memory.
    let mut workers = 0;
    let view = loop {
        workers += 1;
        assert!(workers <= WORKERS_MAX, "the job goes on killing");
        let mut worker = cluster.worker(&["--slots", "2"]).await.unwrap();
        let begun = |line: &str| line.contains("a job starts") && line.contains(&job);
        let ended = cluster.finished(&dispatcher, view.id, LIMIT);
        tokio::select! {
            begun = worker.program.wait_for_line("the job", begun, LIMIT) => {
                begun.unwrap();
                // Whoever gets it again leaves a mark before it runs.
                let marks = cluster.s3.root().join(BUCKET).join("suspects").join(&job);
                excite_tests::eventually(LIMIT, "the mark", async || {
                    let there = std::fs::read_dir(&marks).map_or(0, Iterator::count);
                    if there + 1 >= workers { Ok(()) } else { Err(format!("{there} marks")) }
                })
                .await
                .unwrap();
                worker.program.kill();
            }
            ended = ended => break ended.unwrap(),
        }
    };
    assert_eq!((count(&view, State::Succeeded), count(&view, State::Dead)), (6, 1));
    let dead = view.tally.unwrap().dead;
    assert_eq!(dead.get(&DeadReason::Poison), Some(&1), "{dead:?}");
    assert!(workers > 3, "{workers} workers");
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
