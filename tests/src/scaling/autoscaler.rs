//! How many pods an autoscaler asks for: the formulas of the HPA and of KEDA, with the dispatcher's
//! scale function or a common trigger in front.
//!
//! The HPA's algorithm: <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>
//! (desired = ceil(current x ratio), tolerance 0.1, pods that are not ready, stabilisation, policies);
//! KEDA's part, from and to zero: <https://keda.sh/docs/latest/reference/scaledobject-spec/>.

use std::collections::{BTreeMap, VecDeque};

use excite_dispatcher::config::Pool;
use excite_dispatcher::scale;
use excite_jobs::conformance::progress as example;
use excite_jobs::progress::{ClassStatus, Due, Status, WorkerBeat, WorkerState};

/// Between two decisions: the HPA's and KEDA's own.
pub const PERIOD_SECONDS: f64 = 15.;
/// Nothing is changed for less: the HPA's default.
const TOLERANCE: f64 = 0.1;

/// What can be seen of a pool.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Seconds since the start.
    pub now: f64,
    /// Pods, whatever they do.
    pub pods: u32,
    /// Workers that load their model.
    pub starting: usize,
    /// Workers that take jobs.
    pub ready: usize,
    /// Those, by how busy each was in the last minute.
    pub busy: f64,
    /// Jobs that no worker has.
    pub queued: u64,
    /// Jobs that workers have.
    pub running: u64,
    /// Age and estimated seconds of what is left of each batch, the oldest first.
    pub due: Vec<(f64, f64)>,
}

/// What a number of pods is made from.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// `/v1/scale` of the dispatcher.
    Dispatcher(Pool),
    /// Jobs a worker, of a queue's length.
    Queue {
        /// Jobs.
        per_worker: f64,
        /// Whether running ones count: they do over HTTP, not over AMQP.
        running: bool,
    },
    /// How busy pods are, 0 to 1; never to zero.
    Utilisation(f64),
}

/// How fast the number is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Scaling down takes the most that was wanted for so long.
    pub stabilization_seconds: f64,
    /// Share of the pods that may go in a minute.
    pub down_share: f64,
    /// How long nothing must be there to do until the last pod goes.
    pub cooldown_seconds: f64,
}

/// An autoscaler of one pool.
#[derive(Debug)]
pub struct Autoscaler {
    trigger: Trigger,
    behaviour: Behaviour,
    max: u32,
    wanted: VecDeque<(f64, u32)>,
    /// Pods that were added and taken away.
    changes: VecDeque<(f64, i64)>,
    active: f64,
}

impl Autoscaler {
    /// Nothing was seen yet.
    pub fn new(trigger: Trigger, behaviour: Behaviour, max: u32) -> Self {
        Self {
            trigger,
            behaviour,
            max,
            wanted: VecDeque::new(),
            changes: VecDeque::new(),
            active: f64::NEG_INFINITY,
        }
    }

    /// Pods from now on.
    pub fn decide(&mut self, seen: &Seen) -> u32 {
        let zero = !matches!(self.trigger, Trigger::Utilisation(_));
        let metric = self.metric(seen);
        if zero && metric > 0. {
            self.active = seen.now;
        }
        let pods = if zero && seen.now - self.active > self.behaviour.cooldown_seconds {
            0
        } else if zero && seen.pods == 0 {
            u32::from(metric > 0.)
        } else {
            self.horizontal(seen, metric)
        };
        self.changes.push_back((seen.now, i64::from(pods) - i64::from(seen.pods)));
        pods
    }

    fn metric(&self, seen: &Seen) -> f64 {
        match &self.trigger {
            Trigger::Dispatcher(pool) => f64::from(desired(pool, seen)),
            Trigger::Queue { running, .. } => {
                (seen.queued + if *running { seen.running } else { 0 }) as f64
            }
            Trigger::Utilisation(_) => seen.busy,
        }
    }

    /// The HPA, from one pod up.
    fn horizontal(&mut self, seen: &Seen, metric: f64) -> u32 {
        let current = f64::from(seen.pods.max(1));
        let proposed = match &self.trigger {
            Trigger::Dispatcher(_) => average(metric, 1., current),
            Trigger::Queue { per_worker, .. } => average(metric, *per_worker, current),
            Trigger::Utilisation(target) => utilisation(seen, metric, *target, current),
        };
        let proposed = proposed.clamp(1, self.max);
        self.wanted.push_back((seen.now, proposed));
        let window = self.behaviour.stabilization_seconds;
        self.wanted.retain(|(at, _)| seen.now - at <= window);
        let most = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(proposed);
        // Up at once, down to the most that was wanted lately.
        let stable = if proposed >= seen.pods { proposed } else { most.min(seen.pods) };
        self.changes.retain(|(at, _)| seen.now - at < 60.);
        let changed = |sign: i64, within: f64| -> f64 {
            let of = self.changes.iter().filter(|(at, n)| n * sign > 0 && seen.now - at < within);
            of.map(|(_, n)| n.abs()).sum::<i64>() as f64
        };
        // Up: twice as many, or 4 more, in 15 s, the HPA's default. Down: as configured.
        let before = current - changed(1, 15.);
        let most = (2. * before).max(before + 4.);
        let before = current + changed(-1, 60.);
        let least = (before * (1. - self.behaviour.down_share)).floor();
        let pods = f64::from(stable).min(most.max(current)).max(least.min(current));
        pods.clamp(1., f64::from(self.max)) as u32
    }
}

/// `AverageValue`: a sum, divided among the pods.
fn average(metric: f64, target: f64, current: f64) -> u32 {
    let ratio = metric / (target * current);
    if (ratio - 1.).abs() <= TOLERANCE { current as u32 } else { (metric / target).ceil() as u32 }
}

/// A resource: pods that are not ready count as idle when it is about more of them.
fn utilisation(seen: &Seen, busy: f64, target: f64, current: f64) -> u32 {
    let ready = seen.ready as f64;
    if ready == 0. {
        return current as u32;
    }
    let ratio = busy / ready / target;
    let all = busy / current / target;
    let used = if ratio > 1. { all } else { ratio };
    let turned = ratio > 1. && used < 1.;
    if turned || (used - 1.).abs() <= TOLERANCE {
        return current as u32;
    }
    (used * if ratio > 1. { current } else { ready }).ceil() as u32
}

/// The dispatcher's answer.
fn desired(pool: &Pool, seen: &Seen) -> u32 {
    let due = seen.due.iter().map(|&(age_seconds, seconds)| Due { age_seconds, seconds });
    let class = ClassStatus {
        class: pool.class.clone(),
        jobs: seen.queued + seen.running,
        seconds: Some(seen.due.iter().map(|due| due.1).sum()),
        due: due.collect(),
        drain_seconds: None,
        ready: seen.queued,
        oldest_seconds: seen.due.first().map(|due| due.0),
    };
    let status = Status { classes: vec![class], ..example::status() };
    let beat = |state| {
        let class = pool.class.clone();
        WorkerBeat { class, state, slots: 1, ..example::beat("simulated") }
    };
    let mut workers = vec![beat(WorkerState::Starting); seen.starting];
    workers.extend(vec![beat(WorkerState::Ready); seen.ready]);
    let pools = BTreeMap::from([("simulated".to_owned(), pool.clone())]);
    scale::desired(pool, &pools, &status, &workers).desired
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Behaviour =
        Behaviour { stabilization_seconds: 0., down_share: 1., cooldown_seconds: 60. };

    fn seen(now: f64, pods: u32, queued: u64) -> Seen {
        Seen { now, pods, ready: pods as usize, queued, ..Seen::default() }
    }

    fn queue(behaviour: Behaviour) -> Autoscaler {
        Autoscaler::new(Trigger::Queue { per_worker: 10., running: false }, behaviour, 100)
    }

    #[test]
    fn up_by_policies_and_within_the_tolerance_not_at_all() {
        let mut scaler = queue(QUICK);
        assert_eq!(scaler.decide(&seen(0., 0, 900)), 1, "from zero");
        assert_eq!(scaler.decide(&seen(15., 1, 900)), 5, "4 more");
        assert_eq!(scaler.decide(&seen(30., 5, 900)), 10, "twice as many");
        assert_eq!(scaler.decide(&seen(45., 10, 109)), 10, "10 % are tolerated");
        assert_eq!(scaler.decide(&seen(60., 10, 111)), 12);
    }

    #[test]
    fn down_to_the_most_that_was_wanted_lately_and_by_a_share() {
        let slow = Behaviour { stabilization_seconds: 60., down_share: 0.5, ..QUICK };
        let mut scaler = queue(slow);
        assert_eq!(scaler.decide(&seen(0., 40, 400)), 40);
        assert_eq!(scaler.decide(&seen(15., 40, 100)), 40, "40 were wanted 15 s ago");
        assert_eq!(scaler.decide(&seen(75., 40, 100)), 20, "half a minute");
        assert_eq!(scaler.decide(&seen(90., 20, 100)), 20, "still that minute");
        assert_eq!(scaler.decide(&seen(150., 20, 0)), 10);
    }

    #[test]
    fn to_zero_after_nothing_was_there_for_a_while() {
        let mut scaler = queue(QUICK);
        assert_eq!(scaler.decide(&seen(0., 5, 50)), 5);
        assert_eq!(scaler.decide(&seen(15., 5, 0)), 1);
        assert_eq!(scaler.decide(&seen(60., 1, 0)), 1);
        assert_eq!(scaler.decide(&seen(75., 1, 0)), 0);
        assert_eq!(scaler.decide(&seen(90., 0, 0)), 0);
    }

    #[test]
    fn pods_that_start_are_idle_to_a_utilisation() {
        let mut scaler = Autoscaler::new(Trigger::Utilisation(0.5), QUICK, 100);
        let pods = |now, pods, ready, busy| Seen { now, pods, ready, busy, ..Seen::default() };
        assert_eq!(scaler.decide(&pods(0., 4, 4, 4.)), 8);
        assert_eq!(scaler.decide(&pods(15., 8, 4, 4.)), 8, "as many as are needed are coming");
        assert_eq!(scaler.decide(&pods(30., 8, 8, 0.)), 1, "never to zero");
    }
}
