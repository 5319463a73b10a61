//! A process dies without a word, and nothing is lost.

use excite_jobs::State;
use excite_tests::Rabbit;
use excite_tests::cluster::{Cluster, count};

use super::{LIMIT, assert_all_succeeded, guided_lines, lines};

#[tokio::test]
async fn a_worker_that_is_killed_in_mid_job_loses_nothing() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "worker-dies").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let mut first = cluster.worker(&["--slots", "2"]).await.unwrap();
    let view = cluster.submit(&dispatcher, "", &guided_lines(3, 12)).await.unwrap();
    let runs = |v: &_| count(v, State::Running) > 0;
    cluster.until(&dispatcher, view.id, LIMIT, "a running job", runs).await.unwrap();
    first.program.kill();

    let _second = cluster.worker(&[]).await.unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    assert_eq!(cluster.stored(view.id, "images", ".png").unwrap().len(), 3);
}

#[tokio::test]
async fn when_the_leading_dispatcher_is_killed_the_other_goes_on() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "leader-dies").await.unwrap();
    let mut leader = cluster.dispatcher().await.unwrap();
    cluster.push_model(&leader).await.unwrap();
    let leads = async |service: &_| {
        excite_tests::eventually(LIMIT, "a leader", async || {
            cluster.metric(service, "excite_leader", "").await.is_ok_and(|leads| leads == 1.)
        })
        .await
        .unwrap();
    };
    leads(&leader).await;
    let other = cluster.dispatcher().await.unwrap();
    // What it makes does not matter here.
    let _worker = cluster.worker(&["--pipeline", "empty"]).await.unwrap();
    // More than the express lane takes, so that most of it is still to be fed.
    let view = cluster.submit(&leader, "", &lines(150, 1)).await.unwrap();
    let begun = |v: &_| count(v, State::Succeeded) > 0;
    cluster.until(&leader, view.id, LIMIT, "the first image", begun).await.unwrap();
    leader.program.kill();

    leads(&other).await;
    let view = cluster.finished(&other, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    let jobs = cluster.jobs(&other, view.id).await.unwrap();
    assert_eq!(jobs.len(), 150, "every job was concluded");
    assert!(jobs.iter().all(|job| job.attempt == 1), "nobody failed");
    assert_eq!(cluster.stored(view.id, "images", ".png").unwrap().len(), 150);
}
