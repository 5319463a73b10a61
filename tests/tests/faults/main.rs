//! Each fault that can befall the system, by itself: what it does then, and that no job pays for it.
//!
//! Every test has a vhost, a Redis and an S3 of its own; the broker is shared but for the tests that
//! harm it. Not here: outages, and whatever dies between two writes (`cluster`); all faults at once
//! (`ledger`). What takes longer than some seconds is ignored unless asked for: `cargo test
//! --workspace -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why by ending")]

mod broker;
mod clocks;
mod disk;
mod dispatchers;
mod progress;
mod store;
mod versions;
mod weights;

use std::path::PathBuf;
use std::time::Duration;

use excite_jobs::State;
use excite_jobs::api::BatchView;
use excite_tests::cluster::{BUCKET, Cluster, Service, count};
use excite_tests::{guided_lines, lines};

/// No batch of these tests takes longer, not even on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Makes one pixel a job: what most of these tests are about is the path.
const EMPTY: [&str; 2] = ["--pipeline", "empty"];

/// Every job succeeded, once and at its first try, and has its image and its sidecar.
async fn assert_unharmed(cluster: &Cluster, server: &Service, view: &BatchView) {
    let view = cluster.finished(server, view.id, LIMIT).await.unwrap();
    assert_eq!(count(&view, State::Succeeded), u64::from(view.jobs), "{:?}", view.tally);
    let tally = view.tally.as_ref().unwrap();
    assert!(tally.failures.is_empty(), "{tally:?}");
    let records = cluster.records(view.id).unwrap();
    let mut succeeded: Vec<u32> = records
        .iter()
        .filter(|done| done.state == State::Succeeded)
        .map(|done| done.index)
        .collect();
    succeeded.sort_unstable();
    assert_eq!(succeeded, (0..view.jobs).collect::<Vec<_>>(), "each job was concluded once");
    assert!(records.iter().all(|done| done.attempt == 1), "{records:?}");
    for end in [".png", ".json"] {
        let stored = cluster.stored(view.id, "images", end).unwrap();
        assert_eq!(stored.len(), view.jobs as usize, "{end}");
    }
}

/// Waits until a metric of a service is as wanted.
async fn metric(cluster: &Cluster, service: &Service, name: &str, holds: impl Fn(f64) -> bool) {
    excite_tests::eventually(LIMIT, name, async || match cluster.metric(service, name, "").await {
        Ok(value) if holds(value) => Ok(()),
        Ok(value) => Err(value.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap();
}

/// The file in which the store keeps an object.
fn object(cluster: &Cluster, key: &str) -> PathBuf {
    cluster.s3.root().join(BUCKET).join(key)
}
