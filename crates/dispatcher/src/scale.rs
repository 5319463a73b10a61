//! How many workers a pool should have: as many as finish each batch in time, and no more.
//!
//! A batch should be done `drain_seconds` after it was accepted. That date is fixed, and whoever is
//! there stays as long as there is a job for each: the work has to be done anyway, and a start costs a
//! node, an image and a model. A number that follows the length of a queue starts many workers, then
//! stops them one after the other, and starts them again. What waits includes the manifests, retries
//! and what runs, which no queue length does. `docs/scaling.md` compares. Not here: how fast a number
//! is followed, which autoscalers decide.

use std::collections::BTreeMap;

use excite_jobs::api::Scale;
use excite_jobs::progress::{ClassStatus, Due, Status, WorkerBeat, WorkerState};

use crate::config::Pool;

/// What is late should be done in this share of `drain_seconds`.
const LATE: f64 = 0.25;
/// Estimates vary: nobody is started for less than this.
const TOLERANCE: f64 = 0.05;

/// Workers wanted of one of these pools.
pub fn desired(
    pool: &Pool,
    pools: &BTreeMap<String, Pool>,
    status: &Status,
    workers: &[WorkerBeat],
) -> Scale {
    let class = status.classes.iter().find(|status| status.class == pool.class);
    let Some(class) = class.filter(|class| class.jobs > 0) else {
        return clamp(pool, 0., format!("no job of class `{}` is open", pool.class));
    };
    let workers = || workers.iter().filter(|beat| beat.class == pool.class);
    let (wanted, reason) = match class.seconds {
        Some(seconds) => {
            let takes_jobs = |beat: &&WorkerBeat| {
                matches!(beat.state, WorkerState::Starting | WorkerState::Ready)
            };
            let have = workers().filter(takes_jobs).count();
            let (wanted, within) = in_time(pool, class, seconds, have as f64);
            let reason = format!(
                "{} jobs take {seconds:.0} compute seconds; the most urgent of them are to be done \
                 in {within:.0} s",
                class.jobs
            );
            (wanted, reason)
        }
        // Nothing was measured yet: one job a slot.
        None => {
            let slots = u64::from(workers().map(|beat| beat.slots).max().unwrap_or(1).max(1));
            let reason = format!("{} jobs, nothing measured yet; {slots} a worker", class.jobs);
            (class.jobs.div_ceil(slots) as f64, reason)
        }
    };
    // More workers than jobs have nothing to do.
    let wanted = wanted.min(class.jobs as f64).max(1.);
    let share = share(pool, pools);
    if share >= 1. {
        return clamp(pool, wanted, reason);
    }
    let reason = format!("{reason}; {wanted} workers in all, {:.0} % here", share * 100.);
    clamp(pool, (wanted * share).ceil(), reason)
}

/// Workers that are needed so that all is done by when it is due, and in how many seconds that is
/// for the jobs that need most: for each date, all that is due by then has to be done by then.
fn in_time(pool: &Pool, class: &ClassStatus, seconds: f64, have: f64) -> (f64, f64) {
    // A leader of an older version says only the sum.
    let whole = [Due { age_seconds: class.oldest_seconds.unwrap_or(0.), seconds }];
    let due = if class.due.is_empty() { &whole[..] } else { &class.due };
    let mut all = 0.;
    let needs = due.iter().map(|due| {
        all += due.seconds;
        let within = (pool.drain_seconds - due.age_seconds).max(pool.drain_seconds * LATE);
        // Those that are wanted for it were asked for when it came, so they are on their way and
        // count for nobody yet; if they are still not there much later, they take as long again.
        let start = (due.age_seconds - pool.start_seconds).abs().min(pool.start_seconds);
        (workers(all, within, start, have), within)
    });
    needs.reduce(|most, need| if need.0 > most.0 { need } else { most }).unwrap_or_default()
}

/// Workers that do so much `within` so many seconds, if some are there already and the others have
/// to `start` first.
fn workers(seconds: f64, within: f64, start: f64, have: f64) -> f64 {
    if seconds <= have * within * (1. + TOLERANCE) {
        return have;
    }
    // Who starts too late helps with what comes next; half the time is a bound, so that a short
    // time does not start everybody.
    let helps = (within - start).max(within / 2.);
    have + ((seconds - have * within) / helps).ceil()
}

/// The part of a class's workers that belongs to a pool: pools of one class share them by their
/// `max`.
fn share(pool: &Pool, pools: &BTreeMap<String, Pool>) -> f64 {
    let all: f64 = pools.values().filter(|p| p.class == pool.class).map(|p| f64::from(p.max)).sum();
    if all > 0. { f64::from(pool.max) / all } else { 1. }
}

fn clamp(pool: &Pool, wanted: f64, reason: String) -> Scale {
    // At most what a number can be.
    let wanted = wanted.min(f64::from(u32::MAX)) as u32;
    let desired = wanted.clamp(pool.min, pool.max.max(pool.min));
    let reason = match desired {
        desired if desired == wanted => format!("{reason}: {desired}"),
        desired => format!("{reason}: {wanted}, within {} to {}: {desired}", pool.min, pool.max),
    };
    Scale { desired, reason }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn status(jobs: u64, seconds: Option<f64>, due: &[(f64, f64)]) -> Status {
        let due = due.iter().map(|&(age_seconds, seconds)| Due { age_seconds, seconds });
        Status {
            v: 1,
            dispatcher: "a".into(),
            epoch: 1,
            at: OffsetDateTime::UNIX_EPOCH,
            classes: vec![ClassStatus {
                class: "default".into(),
                jobs,
                seconds,
                due: due.collect(),
                drain_seconds: None,
                ready: 0,
                oldest_seconds: None,
            }],
            active_batches: 1,
            images_per_second: 0.,
            dead_jobs: 0,
            connected: true,
            blocked: false,
        }
    }

    fn beats(state: WorkerState, count: usize) -> Vec<WorkerBeat> {
        let beat = serde_json::json!({"v": 1, "worker": "w", "pool": "default", "kind": "k",
            "class": "default", "state": state, "slots": 4, "jobs": [], "models": [],
            "model_bytes": 0, "started_at": "2026-01-02T03:04:05Z", "version": "1"});
        let beat: WorkerBeat = serde_json::from_value(beat).unwrap();
        vec![beat; count]
    }

    fn pool(min: u32, max: u32) -> Pool {
        Pool { min, max, drain_seconds: 1000., start_seconds: 200., ..Pool::default() }
    }

    fn of_one(pool: &Pool, status: &Status, workers: &[WorkerBeat]) -> Scale {
        desired(pool, &BTreeMap::from([("default".to_owned(), pool.clone())]), status, workers)
    }

    #[test]
    fn as_many_as_finish_in_time() {
        type Dues = &'static [(f64, f64)];
        #[rustfmt::skip]
        let table: &[(u64, Dues, usize, u32)] = &[
            // jobs  age, seconds of batches              ready  wanted
            (900,    &[(0., 8000.)],                      0,     10), // 800 s are left after the start
            (900,    &[(0., 8001.)],                      0,     11),
            // While they work the number stays: nobody is started or stopped.
            (900,    &[(500., 5000.)],                    10,    10),
            (900,    &[(500., 5200.)],                    10,    10),
            (900,    &[(500., 4800.)],                    10,    10),
            (100,    &[(900., 2500.)],                    10,    10), // nobody helps in 100 s
            // Ahead of time: who is there stays, as long as there is a job for each.
            (900,    &[(500., 2000.)],                    10,    10),
            (8,      &[(500., 2000.)],                    10,    8),
            // Behind: those that must start first have less time.
            (900,    &[(500., 6000.)],                    10,    14),
            // What is due first decides alone if it needs most,
            (900,    &[(500., 5000.), (0., 1000.)],       10,    10),
            // and else everything together.
            (900,    &[(500., 5000.), (0., 9000.)],       10,    15),
            (900,    &[(5000., 5000.)],                   0,     40), // late
            // More workers than jobs have nothing to do.
            (3,      &[(0., 8000.)],                      0,     3),
            (3,      &[(0., 0.5)],                        0,     1),
            (900,    &[(0., 1e12)],                       0,     900),
        ];
        for (jobs, due, ready, want) in table {
            let seconds = due.iter().map(|due| due.1).sum();
            let workers = beats(WorkerState::Ready, *ready);
            let got = of_one(&pool(0, 1000), &status(*jobs, Some(seconds), due), &workers);
            assert_eq!(got.desired, *want, "{jobs} {due:?} {ready}: {}", got.reason);
        }
    }

    #[test]
    fn bounds_hold_and_nothing_open_needs_nobody() {
        #[rustfmt::skip]
        let table = [
            // pool       jobs    seconds    wanted
            (pool(0, 10), 0,      Some(0.),  0),   // to zero
            (pool(2, 10), 0,      None,      2),
            (pool(0, 10), 90_000, Some(1e9), 10),
            (pool(0, 10), 3,      None,      1),   // nothing measured: a job a slot
            (pool(0, 10), 9,      None,      3),
            (pool(0, 10), 90_000, None,      10),
            (pool(0, 0),  90_000, None,      0),
        ];
        for (pool, jobs, seconds, want) in table {
            let workers = beats(WorkerState::Ready, 1);
            let got = of_one(&pool, &status(jobs, seconds, &[]), &workers);
            assert_eq!(got.desired, want, "{jobs} jobs, {seconds:?}: {}", got.reason);
        }
        let other = Pool { class: "xl".into(), ..pool(1, 5) };
        assert_eq!(of_one(&other, &status(7, None, &[]), &[]).desired, 1);
    }

    #[test]
    fn who_starts_counts_and_who_leaves_does_not() {
        let status = status(900, Some(6000.), &[(500., 6000.)]);
        let wanted = |workers: &[WorkerBeat]| of_one(&pool(0, 1000), &status, workers).desired;
        assert_eq!(wanted(&beats(WorkerState::Starting, 10)), 14);
        assert_eq!(wanted(&beats(WorkerState::Draining, 10)), 20);
    }

    #[test]
    fn pools_of_a_class_share_its_workers_by_their_size() {
        let other = Pool { class: "xl".into(), ..pool(0, 500) };
        let pools = BTreeMap::from([
            ("demand".to_owned(), pool(0, 10)),
            ("other".to_owned(), other),
            ("spot".to_owned(), pool(0, 30)),
        ]);
        let status = status(900, Some(8000.), &[(0., 8000.)]);
        let wanted = |name: &str| desired(&pools[name], &pools, &status, &[]).desired;
        assert_eq!((wanted("demand"), wanted("spot"), wanted("other")), (3, 8, 0));
    }

    #[test]
    fn a_leader_of_an_older_version_says_only_the_sum() {
        let mut old = status(900, Some(5000.), &[]);
        old.classes[0].oldest_seconds = Some(500.);
        let workers = beats(WorkerState::Ready, 10);
        assert_eq!(of_one(&pool(0, 1000), &old, &workers).desired, 10);
    }
}
