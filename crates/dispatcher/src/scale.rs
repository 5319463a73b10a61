//! How many workers a pool should have: by the compute seconds that wait, over the seconds in which
//! they should be done. What waits includes the manifests, retries and what runs, which no queue
//! length does.

use excite_jobs::api::Scale;
use excite_jobs::progress::{Status, WorkerBeat};

use crate::config::Pool;

/// Workers wanted.
pub fn desired(pool: &Pool, status: &Status, workers: &[WorkerBeat]) -> Scale {
    let class = status.classes.iter().find(|status| status.class == pool.class);
    let Some(class) = class.filter(|class| class.jobs > 0) else {
        return clamp(pool, 0, format!("no job of class `{}` is open", pool.class));
    };
    if let Some(seconds) = class.seconds {
        let wanted = (seconds / pool.drain_seconds).ceil().clamp(1., f64::from(u32::MAX)) as u32;
        let reason = format!(
            "{} jobs take {seconds:.0} compute seconds; to be done in {:.0} s",
            class.jobs, pool.drain_seconds
        );
        return clamp(pool, wanted, reason);
    }
    // Nothing was measured yet: one job a slot.
    let slots = workers.iter().filter(|beat| beat.class == pool.class).map(|beat| beat.slots);
    let slots = u64::from(slots.max().unwrap_or(1).max(1));
    let wanted = u32::try_from(class.jobs.div_ceil(slots)).unwrap_or(u32::MAX);
    let reason = format!("{} jobs, nothing measured yet; {slots} a worker", class.jobs);
    clamp(pool, wanted, reason)
}

fn clamp(pool: &Pool, wanted: u32, reason: String) -> Scale {
    let desired = wanted.clamp(pool.min, pool.max.max(pool.min));
    let reason = match desired {
        desired if desired == wanted => format!("{reason}: {desired}"),
        desired => format!("{reason}: {wanted}, within {} to {}: {desired}", pool.min, pool.max),
    };
    Scale { desired, reason }
}

#[cfg(test)]
mod tests {
    use excite_jobs::progress::ClassStatus;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn workers_follow_what_waits() {
        let status = |jobs, seconds| Status {
            v: 1,
            dispatcher: "a".into(),
            epoch: 1,
            at: OffsetDateTime::UNIX_EPOCH,
            classes: vec![ClassStatus {
                class: "default".into(),
                jobs,
                seconds,
                drain_seconds: None,
                ready: 0,
                oldest_seconds: None,
            }],
            active_batches: 1,
            images_per_second: 0.,
            dead_jobs: 0,
            connected: true,
            blocked: false,
        };
        let pool = |min, max| Pool { min, max, drain_seconds: 600., ..Pool::default() };
        #[rustfmt::skip]
        let table = [
            // pool       jobs    seconds         desired
            (pool(0, 10), 0,      Some(0.),       0),   // to zero
            (pool(2, 10), 0,      None,           2),
            (pool(0, 10), 3,      Some(0.5),      1),   // one, if anything is open
            (pool(0, 10), 900,    Some(1800.),    3),
            (pool(0, 10), 900,    Some(1801.),    4),
            (pool(0, 10), 90_000, Some(1e9),      10),
            (pool(0, 10), 3,      None,           3),   // nothing measured: a job a slot
            (pool(0, 10), 90_000, None,           10),
            (pool(0, 0),  90_000, None,           0),
        ];
        for (pool, jobs, seconds, want) in table {
            let got = desired(&pool, &status(jobs, seconds), &[]);
            assert_eq!(got.desired, want, "{jobs} jobs, {seconds:?}: {}", got.reason);
        }
        let other = Pool { class: "xl".into(), ..pool(1, 5) };
        assert_eq!(desired(&other, &status(7, None), &[]).desired, 1);
    }
}
