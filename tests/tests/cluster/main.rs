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

use excite_jobs::State;
use excite_jobs::api::BatchView;
use excite_tests::cluster::count;
use excite_tests::{guided_lines, lines};

/// No batch of these tests takes longer, not even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Every job succeeded, once.
fn assert_all_succeeded(view: &BatchView) {
    assert_eq!(count(view, State::Succeeded), u64::from(view.jobs), "{:?}", view.tally);
}
