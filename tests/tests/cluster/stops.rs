//! A worker as a process is told to stop, or killed: what it did is kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use excite_jobs::{Reason, State};
use excite_tests::cluster::{Cluster, Service, count};
use excite_tests::{Rabbit, Signal};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::{LIMIT, assert_all_succeeded, guided_lines};

/// A pod's grace, with room.
const STOP: Duration = Duration::from_secs(20);

/// Steps that a worker made, by what it logged.
fn steps_of(service: &Service) -> usize {
    service.program.log().lines().iter().filter(|line| line.contains(r#""a step""#)).count()
}

/// The images as `excite generate` makes them undisturbed, by seed: SHA-256.
async fn undisturbed(cluster: &Cluster, server: &Service, lines: &str) -> Vec<String> {
    let file = cluster.folder.path().join("undisturbed.jsonl");
    let named = lines
        .lines()
        .enumerate()
        .map(|(n, line)| line.replacen('{', &format!(r#"{{"custom_id":"image-{n}","#), 1));
    std::fs::write(file, named.collect::<Vec<_>>().join("\n")).unwrap();
    let args = ["generate", "--file", "undisturbed.jsonl", "--out", "undisturbed"];
    cluster.excite(server, &args).await.unwrap();
    let folder = cluster.folder.path().join("undisturbed");
    (0..lines.lines().count())
        .map(|n| {
            format!(
                "{:x}",
                Sha256::digest(std::fs::read(folder.join(format!("image-{n}.png"))).unwrap())
            )
        })
        .collect()
}

async fn assert_undisturbed(
    cluster: &Cluster,
    server: &Service,
    id: excite_jobs::BatchId,
    lines: &str,
) {
    let want = undisturbed(cluster, server, lines).await;
    let jobs = cluster.jobs(server, id).await.unwrap();
    let made = jobs.iter().filter_map(|job| Some((job.index as usize, job.success.as_ref()?)));
    let made: BTreeMap<usize, String> = made.map(|(n, s)| (n, s.sha256.clone())).collect();
    for (n, sha256) in made {
        assert_eq!(sha256, want[n], "image {n}");
    }
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_hands_over_what_it_did() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "told-to-stop").await.unwrap();
    let cluster = cluster.logging("info,lapin=off,excite_worker::pipeline::guided=debug");
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let mut first = cluster.worker(&["--slots", "2"]).await.unwrap();
    let lines = guided_lines(1, 30);
    let view = cluster.submit(&dispatcher, "", &lines).await.unwrap();
    excite_tests::eventually(LIMIT, "some steps", async || {
        if steps_of(&first) >= 6 { Ok(()) } else { Err(steps_of(&first).to_string()) }
    })
    .await
    .unwrap();
    let began = Instant::now();
    first.program.signal(Signal::SIGTERM).unwrap();
    let status = first.program.wait(STOP).await.unwrap();
    assert!(status.success(), "{status}");
    eprintln!("gone after {:.2} s", began.elapsed().as_secs_f64());

    let second = cluster.worker(&["--slots", "2"]).await.unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_all_succeeded(&view);
    let records = cluster.records(view.id).unwrap();
    let handed_over: Vec<_> =
        records.iter().filter(|done| done.reason == Reason::Preempted).collect();
    assert_eq!(handed_over.len(), 1, "{records:?}");
    assert!(handed_over.iter().all(|done| done.checkpoint.is_some() && done.attempt == 1));
    // Thirty steps of PNDM are thirty-one; the one under way is made again.
    let made = steps_of(&first) + steps_of(&second);
    assert!((31..=32).contains(&made), "{made} steps");
    assert_undisturbed(&cluster, &dispatcher, view.id, &lines).await;
}

#[tokio::test]
#[ignore = "long: five minutes; cargo xtask test --all"]
async fn fifty_kills_at_random_change_no_image() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "kills").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let lines = guided_lines(40, 12);
    let view = cluster.submit(&dispatcher, "", &lines).await.unwrap();
    let mut rng = StdRng::seed_from_u64(50);
    let mut kills = 0;
    while kills < 50 {
        // As fast as they come, so that they die at any point of their life.
        let mut worker = cluster.worker(&["--slots", "2"]).await.unwrap();
        let before = cluster.batch(&dispatcher, view.id).await.unwrap();
        let alive = Duration::from_millis(rng.random_range(0..8000));
        tokio::time::sleep(alive).await;
        worker.program.kill();
        kills += 1;
        if count(&before, State::Succeeded) == 40 {
            break;
        }
    }
    let _worker = cluster.worker(&["--slots", "2"]).await.unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    let (made, dead) = (count(&view, State::Succeeded), count(&view, State::Dead));
    eprintln!("{kills} kills: {made} made, {dead} given up after three workers");
    assert_eq!(made + dead, 40);
    assert!(dead <= 4, "{dead} jobs given up");
    assert_undisturbed(&cluster, &dispatcher, view.id, &lines).await;
}
