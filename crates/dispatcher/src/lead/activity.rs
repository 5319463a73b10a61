//! What the leader counts for the charts: a point every ten seconds, kept in the progress store so
//! that the next leader's charts go on.

use std::collections::BTreeMap;
use std::time::Duration;

use excite_jobs::progress::{Point, Status, WorkerState};
use excite_jobs::{Class, Done, State};
use tokio::time::Instant;

use super::leader::Leader;

/// Between two points.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// What happened since the last point.
#[derive(Debug)]
pub(super) struct Activity {
    images: u64,
    accepted: u64,
    failures: BTreeMap<Class, u64>,
    compute_seconds: f64,
    since: Instant,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            images: 0,
            accepted: 0,
            failures: BTreeMap::new(),
            compute_seconds: 0.,
            since: Instant::now(),
        }
    }

    /// Counts a conclusion.
    pub(super) fn count(&mut self, done: &Done) {
        if let Some(success) = &done.success {
            self.images += 1;
            self.accepted += u64::from(success.accepted);
            self.compute_seconds += success.seconds;
        }
        if let Some(failure) = &done.failure {
            *self.failures.entry(failure.class).or_default() += 1;
        }
    }
}

impl Leader {
    /// Adds a point to the charts, if it is time.
    pub(super) async fn add_point(&mut self, status: &Status) {
        let seconds = self.activity.since.elapsed();
        if seconds < EVERY || !self.mirroring.is_over() {
            return;
        }
        let activity = std::mem::replace(&mut self.activity, Activity::new());
        let mut drains = status.classes.iter().map(|class| class.drain_seconds);
        let point = Point {
            at: status.at.unix_timestamp(),
            seconds: seconds.as_secs_f64(),
            images: activity.images,
            accepted: activity.accepted,
            failures: activity.failures,
            compute_seconds: activity.compute_seconds,
            backlog_jobs: status.classes.iter().map(|class| class.jobs).sum(),
            running_jobs: self.running_jobs(),
            workers_ready: self.workers_ready(),
            // Classes drain side by side; one that never does leaves the end open.
            drain_seconds: drains.try_fold(0_f64, |most, one| Some(most.max(one?))),
        };
        let added = self.ports.progress.add_point(&point).await;
        self.told(added);
    }

    fn running_jobs(&self) -> u64 {
        self.batches.values().map(|running| running.folded.tally.of(State::Running)).sum()
    }

    fn workers_ready(&self) -> u64 {
        self.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count() as u64
    }
}
