//! Pools that are scaled, simulated: what it costs to be done by when, for the dispatcher's own
//! scale function and for what autoscalers do with queue lengths and utilisation.
//!
//! Here: what happens to a pool from second to second. Not here: how many pods it should have
//! (`autoscaler`), what is asked of it (`scenario`).

pub mod autoscaler;
pub mod scenario;

use std::collections::VecDeque;

use autoscaler::{Autoscaler, Seen};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scenario::Scenario;

/// Steps of an image: a worker that must stop loses the one that runs, at most.
const STEPS: f64 = 50.;
/// States are saved this often, for those that are killed without notice.
const CHECKPOINT_SECONDS: f64 = 10.;
/// Share of reclaimed nodes that go without notice.
const WITHOUT_NOTICE: f64 = 0.1;
/// A reclaimed node is paid for this long after the notice.
const NOTICE_SECONDS: f64 = 30.;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Until the batches were done: of one, or the 95th percentile.
    pub drain_seconds: f64,
    /// That pods existed, from their order to their end.
    pub gpu_seconds: f64,
    /// Computed seconds that were lost, of those that were computed.
    pub wasted: f64,
    /// Most pods at a time.
    pub peak: u32,
}

/// A pod.
#[derive(Debug, Clone)]
struct Pod {
    /// When its node, image and process are there.
    starts: f64,
    /// When its model is loaded, too.
    ready: f64,
    /// When its node is taken away.
    reclaimed: f64,
    job: Option<Job>,
    /// Seconds of the last minute that it computed, as a gauge of utilisation would show.
    busy: f64,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    batch: usize,
    seconds: f64,
    done: f64,
}

struct World<'a> {
    scenario: &'a Scenario,
    random: StdRng,
    now: f64,
    pods: Vec<Pod>,
    queue: VecDeque<Job>,
    /// Jobs left, and when it was done, by batch.
    batches: Vec<(usize, Option<f64>)>,
    gpu_seconds: f64,
    computed: f64,
    lost: f64,
    peak: usize,
}

/// Runs a scenario, second by second.
pub fn run(scenario: &Scenario, autoscaler: &mut Autoscaler, seed: u64) -> Outcome {
    let mut world = World {
        scenario,
        random: StdRng::seed_from_u64(seed),
        now: 0.,
        pods: Vec::new(),
        queue: VecDeque::new(),
        batches: scenario.batches.iter().map(|batch| (batch.jobs.len(), None)).collect(),
        gpu_seconds: 0.,
        computed: 0.,
        lost: 0.,
        peak: 0,
    };
    let mut arrived = 0;
    while world.now < scenario.seconds {
        while let Some(batch) = scenario.batches.get(arrived).filter(|b| b.at <= world.now) {
            let jobs = batch.jobs.iter();
            world.queue.extend(jobs.map(|seconds| Job {
                batch: arrived,
                seconds: *seconds,
                done: 0.,
            }));
            arrived += 1;
        }
        if world.now % autoscaler::PERIOD_SECONDS == 0. {
            let seen = world.seen(arrived);
            let wanted = autoscaler.decide(&seen);
            world.scale_to(wanted as usize);
        }
        world.second();
        if arrived == scenario.batches.len() && world.pods.is_empty() && world.queue.is_empty() {
            break;
        }
    }
    world.outcome()
}

impl World<'_> {
    /// What an autoscaler, or the dispatcher, can know.
    fn seen(&self, arrived: usize) -> Seen {
        let running = self.pods.iter().filter_map(|pod| pod.job);
        let mut left = vec![0.; arrived];
        let mut jobs = vec![0_u64; arrived];
        for job in self.queue.iter().copied().chain(running.clone()) {
            left[job.batch] += job.seconds - job.done;
            jobs[job.batch] += 1;
        }
        let ready = self.pods.iter().filter(|pod| pod.ready <= self.now);
        Seen {
            now: self.now,
            pods: self.pods.len() as u32,
            starting: self
                .pods
                .iter()
                .filter(|p| p.starts <= self.now && self.now < p.ready)
                .count(),
            ready: ready.clone().count(),
            busy: ready.map(|pod| pod.busy).sum(),
            queued: self.queue.len() as u64,
            running: running.count() as u64,
            // Estimates are measured: they are wrong by what the scenario says.
            due: (0..arrived)
                .filter(|batch| jobs[*batch] > 0)
                .map(|batch| {
                    let age = self.now - self.scenario.batches[batch].at;
                    (age, left[batch] * self.scenario.estimate)
                })
                .collect(),
        }
    }

    fn scale_to(&mut self, wanted: usize) {
        while self.pods.len() < wanted {
            let start = self.random.random_range(self.scenario.start.clone());
            let starts = self.now + start;
            let reclaimed = self.lifetime();
            let pod =
                Pod { starts, ready: starts + self.scenario.load, reclaimed, job: None, busy: 0. };
            self.pods.push(pod);
        }
        // Pods that are not ready go first; of the others, nobody asks which one works.
        while self.pods.len() > wanted {
            let at = self.pods.iter().position(|pod| pod.ready > self.now);
            let at = at.unwrap_or_else(|| self.random.random_range(0..self.pods.len()));
            let pod = self.pods.swap_remove(at);
            self.hand_over(pod.job, true);
        }
        self.peak = self.peak.max(self.pods.len());
    }

    fn lifetime(&mut self) -> f64 {
        if self.scenario.reclaims_per_hour == 0. {
            return f64::INFINITY;
        }
        let share: f64 = self.random.random_range(f64::EPSILON..1.);
        self.now - share.ln() * 3600. / self.scenario.reclaims_per_hour
    }

    /// What runs goes on elsewhere, from the last step or from what was saved.
    fn hand_over(&mut self, job: Option<Job>, notice: bool) {
        let Some(mut job) = job else { return };
        let kept = if notice { job.seconds / STEPS } else { CHECKPOINT_SECONDS };
        let lost = (job.done % kept).min(job.done);
        job.done -= lost;
        self.lost += lost;
        self.queue.push_front(job);
    }

    fn second(&mut self) {
        let now = self.now;
        let reclaimed: Vec<usize> =
            (0..self.pods.len()).rev().filter(|at| self.pods[*at].reclaimed <= now).collect();
        for at in reclaimed {
            let notice = self.random.random_range(0. ..1.) >= WITHOUT_NOTICE;
            let pod = self.pods.swap_remove(at);
            if notice {
                self.gpu_seconds += NOTICE_SECONDS;
            }
            self.hand_over(pod.job, notice);
        }
        for pod in &mut self.pods {
            let mut left: f64 = if pod.ready <= now { 1. } else { 0. };
            while left > 0. {
                let Some(job) = pod.job.as_mut() else {
                    pod.job = self.queue.pop_front();
                    if pod.job.is_none() {
                        break;
                    }
                    continue;
                };
                let spent = left.min(job.seconds - job.done);
                job.done += spent;
                left -= spent;
                self.computed += spent;
                if job.done >= job.seconds {
                    let batch = &mut self.batches[job.batch];
                    batch.0 -= 1;
                    if batch.0 == 0 {
                        batch.1 = Some(now + 1.);
                    }
                    pod.job = None;
                }
            }
            let busy = if pod.ready <= now { 1. - left } else { 0. };
            pod.busy += (busy - pod.busy) / 60.;
        }
        self.gpu_seconds += self.pods.len() as f64;
        self.now += 1.;
    }

    fn outcome(self) -> Outcome {
        let batches = self.scenario.batches.iter().zip(&self.batches);
        let mut took: Vec<f64> =
            batches.map(|(batch, (_, done))| done.unwrap_or(f64::INFINITY) - batch.at).collect();
        took.sort_by(f64::total_cmp);
        let at = (took.len() as f64 * 0.95).ceil() as usize;
        Outcome {
            drain_seconds: took.get(at.saturating_sub(1)).copied().unwrap_or(0.),
            gpu_seconds: self.gpu_seconds,
            wasted: if self.computed > 0. { self.lost / self.computed } else { 0. },
            peak: self.peak as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use excite_dispatcher::config::Pool;

    use super::autoscaler::{Behaviour, Trigger};
    use super::scenario::Batch;
    use super::*;

    fn scenario(reclaims_per_hour: f64) -> Scenario {
        Scenario {
            name: "",
            says: "",
            batches: vec![Batch { at: 0., jobs: vec![10.; 600] }],
            start: 50. ..50.1,
            load: 50.,
            reclaims_per_hour,
            estimate: 1.,
            max: 100,
            seconds: 20_000.,
        }
    }

    fn outcome(scenario: &Scenario) -> Outcome {
        let behaviour =
            Behaviour { stabilization_seconds: 0., down_share: 1., cooldown_seconds: 30. };
        let pool = Pool { drain_seconds: 700., start_seconds: 100., max: 100, ..Pool::default() };
        run(scenario, &mut Autoscaler::new(Trigger::Dispatcher(pool), behaviour, 100), 1)
    }

    #[test]
    fn what_is_computed_is_all_that_was_asked_for_and_starts_are_paid() {
        let found = outcome(&scenario(0.));
        // 6,000 s of work in the 600 s that are left after the start: ten workers, and one more for
        // those that an autoscaler asked for a little later.
        assert!((10..=11).contains(&found.peak) && found.wasted < 1e-3, "{found:?}");
        assert!((660. ..760.).contains(&found.drain_seconds), "{found:?}");
        let least = 6000. + 10. * 100.;
        assert!((least..least * 1.15).contains(&found.gpu_seconds), "{found:?}");
    }

    #[test]
    fn nodes_that_are_taken_away_cost_a_step_or_what_was_not_saved() {
        let found = outcome(&scenario(4.));
        assert!(found.wasted > 0. && found.wasted < 0.01, "{found:?}");
        assert!(found.drain_seconds < 1000., "{found:?}");
    }
}
