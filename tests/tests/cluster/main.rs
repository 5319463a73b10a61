//! The whole system on real servers: what people submit becomes images, whatever dies meanwhile.
//!
//! Every test has a vhost, a Redis and an S3 of its own; the broker is shared but for the tests that
//! stop it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why by ending")]

mod bad_jobs;
mod crashes;
mod duplicates;
mod end_to_end;
mod links;
mod order;
mod outages;
mod stops;

use std::time::Duration;

use excite_jobs::api::BatchView;
use excite_jobs::{Batch, Job, State, keys};
use excite_tests::cluster::{BUCKET, Cluster, count};

/// No batch of these tests takes longer, not even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Lines of one small plain image each: what these tests are about is the path, not the pictures.
fn lines(count: usize, steps: u32) -> String {
    written(count, &format!(r#""steps":{steps},"width":64,"height":64,"method":"none""#))
}

/// Lines of one guided image each, which take their time.
fn guided_lines(count: usize, steps: u32) -> String {
    written(count, &format!(r#""steps":{steps}"#))
}

fn written(count: usize, rest: &str) -> String {
    let line = |seed| format!(r#"{{"prompt":"a cat and a frog","seed":{seed},{rest}}}"#);
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}

/// Every job succeeded, once.
fn assert_all_succeeded(view: &BatchView) {
    assert_eq!(count(view, State::Succeeded), u64::from(view.jobs), "{:?}", view.tally);
}

/// A small batch as it is stored.
fn stored_batch(cluster: &Cluster, view: &BatchView) -> Batch {
    let path = cluster.s3.root().join(BUCKET).join(keys::batch(view.id));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The first publication of a job of a small batch.
fn published_job(cluster: &Cluster, view: &BatchView, index: u32) -> Job {
    let batch = stored_batch(cluster, view);
    batch.job(&batch.inline, index).unwrap()
}
