//! What the leader reports of itself every two seconds: status for all replicas, metrics,
//! estimates. Everything here is for looking and planning; nothing depends on it.

use std::collections::BTreeMap;
use std::time::Duration;

use excite_jobs::progress::{ClassStatus, Due, Status, WorkerState};
use excite_jobs::{Lane, State, VERSION, Work};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::warn;

use super::leader::Leader;
use super::running::Running;

/// Between two reports.
const EVERY: Duration = Duration::from_secs(2);
/// Between two writings of the estimates.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Dates by which work is due that are told apart.
const DUE_MAX: usize = 20;
/// Share of a new measurement of a rate.
const RATE_SHARE: f64 = 0.3;

/// How fast jobs of a queue are concluded.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Since the last report.
    pub(super) concluded: u64,
    /// A second.
    rate: f64,
}

impl Leader {
    /// Reports, if it is time.
    pub(super) async fn report(&mut self) {
        let since = self.status_at.map(|at| at.elapsed());
        if since.is_some_and(|since| since < EVERY) {
            return;
        }
        self.status_at = Some(Instant::now());
        if let Some(since) = since {
            self.measure(since);
        }
        if self.mirroring.is_over() {
            let workers = self.ports.progress.workers().await;
            // Without an answer, better the last known ones than none.
            if let Some(workers) = self.told(workers) {
                self.workers = workers;
            }
            self.look_at_mirror().await;
        }
        let status = self.status().await;
        self.export(&status);
        self.add_point(&status).await;
        if self.mirroring.is_over() {
            let set = self.ports.progress.set_status(&status).await;
            self.told(set);
        }
        self.save_estimates().await;
    }

    /// Jobs of a queue that are concluded a second.
    pub(super) fn rate(&self, class: &str, lane: Lane) -> f64 {
        self.flows.get(&(class.to_owned(), lane)).map_or(0., |flow| flow.rate)
    }

    fn measure(&mut self, since: Duration) {
        for flow in self.flows.values_mut().chain([&mut self.images]) {
            let now = std::mem::take(&mut flow.concluded) as f64 / since.as_secs_f64().max(0.001);
            flow.rate += RATE_SHARE * (now - flow.rate);
        }
    }

    async fn status(&mut self) -> Status {
        let mut names: Vec<String> = self.config.classes.clone();
        names.extend(self.batches.values().map(|running| running.header.class.clone()));
        names.sort_unstable();
        names.dedup();
        let mut classes = Vec::new();
        let mut lanes: BTreeMap<Lane, u64> = BTreeMap::new();
        for class in names {
            let mut ready = 0;
            for lane in Lane::ALL {
                let depth = self.depth(&class, lane).await.unwrap_or_default();
                ready += depth.ready;
                *lanes.entry(lane).or_default() += depth.ready;
            }
            classes.push(self.class_status(class, ready));
        }
        for (lane, ready) in lanes {
            let ready = i64::try_from(ready).unwrap_or(i64::MAX);
            self.metrics.queue_jobs.with_label_values(&[lane.as_str(), "ready"]).set(ready);
        }
        let active = self.batches.values().filter(|running| running.folded.open() > 0);
        let health = self.ports.queue.health();
        Status {
            v: VERSION,
            dispatcher: self.config.name.clone(),
            epoch: self.epoch,
            at: OffsetDateTime::now_utc(),
            active_batches: active.filter(|running| !running.header.canary).count() as u64,
            classes,
            images_per_second: self.images.rate,
            dead_jobs: self.batches.values().map(|r| r.folded.tally.of(State::Dead)).sum(),
            connected: health.connected,
            blocked: health.blocked,
        }
    }

    fn class_status(&self, class: String, ready: u64) -> ClassStatus {
        let mine = |running: &&Running| {
            let header = &running.header;
            // A canary must not keep anybody awake.
            header.class == class && !header.paused && !header.canary && running.folded.open() > 0
        };
        let running: Vec<&Running> = self.batches.values().filter(mine).collect();
        let jobs = running.iter().map(|running| running.folded.open()).sum();
        // By the clock of whoever accepted the batch: for planning only.
        let now = OffsetDateTime::now_utc();
        let age = |running: &Running| (now - running.header.created_at).as_seconds_f64().max(0.);
        let left = running.iter().filter_map(|running| {
            Some(Due { age_seconds: age(running), seconds: self.seconds(running)? })
        });
        let due = grouped(left.collect(), DUE_MAX);
        let known = jobs == 0 || !due.is_empty();
        let seconds = known.then(|| due.iter().map(|due| due.seconds).sum::<f64>());
        let workers = self
            .workers
            .iter()
            .filter(|worker| worker.class == class && worker.state == WorkerState::Ready)
            .count();
        let drain = seconds.filter(|_| workers > 0).map(|seconds| seconds / workers as f64);
        ClassStatus {
            jobs,
            seconds,
            drain_seconds: drain,
            ready,
            oldest_seconds: running.iter().map(|running| age(running)).reduce(f64::max),
            due,
            class,
        }
    }

    /// Compute seconds that a batch still takes.
    fn seconds(&self, running: &Running) -> Option<f64> {
        let header = &running.header;
        let left = running.folded.open() as f64 / f64::from(header.jobs.max(1));
        let work = Work { plain: header.work.plain * left, guided: header.work.guided * left };
        self.estimates.seconds(&header.model, &work)
    }

    fn export(&self, status: &Status) {
        let metrics = &self.metrics;
        metrics.broker_connected.set(i64::from(status.connected));
        metrics.broker_blocked.set(i64::from(status.blocked));
        let mut batches = BTreeMap::from([("active", 0), ("paused", 0)]);
        let mut jobs: BTreeMap<(Lane, State), u64> = BTreeMap::new();
        let mut backlog: BTreeMap<&str, f64> = BTreeMap::new();
        let mut dead = 0;
        for running in self.batches.values().filter(|running| running.folded.open() > 0) {
            let header = &running.header;
            let state = if header.paused { "paused" } else { "active" };
            *batches.entry(state).or_default() += 1;
            dead += running.folded.tally.of(State::Dead);
            for state in State::ALL.into_iter().filter(|state| !state.is_terminal()) {
                *jobs.entry((header.lane, state)).or_default() += running.folded.tally.of(state);
            }
            *backlog.entry(&header.model).or_default() += self.seconds(running).unwrap_or(0.);
        }
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.dead_jobs.set(int(dead));
        for (state, n) in batches {
            metrics.batches.with_label_values(&[state]).set(n);
        }
        for lane in Lane::ALL {
            for state in State::ALL.into_iter().filter(|state| !state.is_terminal()) {
                let n = jobs.get(&(lane, state)).copied().unwrap_or(0);
                metrics.queue_jobs.with_label_values(&[lane.as_str(), state.as_str()]).set(int(n));
            }
        }
        // Models without a backlog are no series any more.
        metrics.backlog.reset();
        for (model, seconds) in backlog {
            metrics.backlog.with_label_values(&[model]).set(seconds);
        }
        let oldest = status.classes.iter().filter_map(|class| class.oldest_seconds);
        metrics.queue_oldest.set(oldest.fold(0., f64::max));
        let drain = status.classes.iter().filter_map(|class| class.drain_seconds);
        metrics.drain.set(drain.reduce(f64::max).unwrap_or(-1.));
    }

    async fn save_estimates(&mut self) {
        let (changed, at) = self.estimates_saved;
        if !changed || at.elapsed() < SAVE_EVERY || !self.storing.is_over() {
            return;
        }
        self.estimates_saved = (false, Instant::now());
        if let Err(error) = self.estimates.save(&*self.ports.store).await {
            warn!(%error, "estimates cannot be written");
            self.estimates_saved.0 = true;
        }
    }
}

/// In at most so many groups, the oldest first; a group is as old as its oldest.
fn grouped(mut due: Vec<Due>, most: usize) -> Vec<Due> {
    due.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
    let group = due.len().div_ceil(most.max(1)).max(1);
    let sum = |group: &[Due]| Due {
        age_seconds: group.first().map_or(0., |due| due.age_seconds),
        seconds: group.iter().map(|due| due.seconds).sum(),
    };
    due.chunks(group).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_about_one_age_are_told_together() {
        let due = |age_seconds, seconds| Due { age_seconds, seconds };
        let all = vec![due(1., 10.), due(5., 20.), due(3., 30.), due(2., 40.), due(4., 50.)];
        let whole = [due(5., 20.), due(4., 50.), due(3., 30.), due(2., 40.), due(1., 10.)];
        assert_eq!(grouped(all.clone(), 5), whole);
        assert_eq!(grouped(all, 2), [due(5., 100.), due(2., 50.)]);
        assert_eq!(grouped(Vec::new(), 2), []);
    }
}
