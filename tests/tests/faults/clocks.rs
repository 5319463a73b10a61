//! Machines whose clocks are wrong: nothing is decided by comparing two clocks. The store alone looks
//! at one, and its client goes by the clock of the server's answers.

use std::path::Path;

use excite_tests::Rabbit;
use excite_tests::cluster::Cluster;

use super::{EMPTY, assert_unharmed, lines};

const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// Variables that set a program's clock; none where the library is not installed.
fn clock(offset: &str) -> Option<[(&'static str, &str); 3]> {
    let library = FAKETIME.into_iter().find(|path| Path::new(path).exists());
    let Some(library) = library else {
        eprintln!("skipped: libfaketime is not here; apt-get install faketime");
        return None;
    };
    // Machines differ in the time of day; how long something takes is the same everywhere.
    Some([("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")])
}

#[tokio::test]
async fn clocks_that_differ_by_hours_change_nothing() {
    let (Some(ahead), Some(behind)) = (clock("+1h"), clock("-1h")) else { return };
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "clocks").await.unwrap();
    let dispatcher = cluster.dispatcher_with(&ahead).await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let (one, two) =
        tokio::try_join!(cluster.worker_with(&EMPTY, &ahead), cluster.worker_with(&EMPTY, &behind))
            .unwrap();
    let line = one.program.log().find(|line| line.contains("the worker takes jobs")).unwrap();
    let other = two.program.log().find(|line| line.contains("the worker takes jobs")).unwrap();
    let hour = |line: &str| line.split('T').nth(1).unwrap()[..2].to_owned();
    assert_ne!(hour(&line), hour(&other), "their clocks are as wrong as they should be");
    let view = cluster.submit(&dispatcher, "", &lines(60, 1)).await.unwrap();
    assert_unharmed(&cluster, &dispatcher, &view).await;
    for worker in [&one, &two] {
        assert!(cluster.metric(worker, "excite_images_total", "").await.unwrap() > 0.);
    }
    // Both are seen, whatever their clocks say, also by a dispatcher whose clock is right.
    let right = cluster.dispatcher().await.unwrap();
    let workers = cluster.get(&format!("{}/v1/workers", right.url)).await.unwrap();
    let workers: serde_json::Value = serde_json::from_slice(&workers).unwrap();
    assert_eq!(workers["workers"].as_array().unwrap().len(), 2, "{workers}");
    let second = cluster.submit(&right, "", &lines(5, 1)).await.unwrap();
    assert_unharmed(&cluster, &right, &second).await;
}
