//! What follows a failure: its class and attempt decide the rung, or the job is dead.
//!
//! The one table of it. Not here: what state that makes of the job (`state`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::outcome::Class;
use crate::spec::names;

/// Tries in all where nobody says otherwise: with the rungs below, a job outlives an outage of
/// about three hours.
pub const MAX_ATTEMPTS: u32 = 8;
/// Hours that a message of a later version waits for workers that can read it.
const INCOMPATIBLE_ATTEMPTS: u32 = 48;

/// How long a retry waits in the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rung {
    /// 5 seconds.
    #[serde(rename = "5s")]
    Seconds5,
    /// 30 seconds.
    #[serde(rename = "30s")]
    Seconds30,
    /// 2 minutes.
    #[serde(rename = "2m")]
    Minutes2,
    /// 10 minutes.
    #[serde(rename = "10m")]
    Minutes10,
    /// 1 hour.
    #[serde(rename = "1h")]
    Hour1,
}

names!(Rung {
    Seconds5 = "5s",
    Seconds30 = "30s",
    Minutes2 = "2m",
    Minutes10 = "10m",
    Hour1 = "1h",
});

impl Rung {
    /// All, the shortest first.
    pub const ALL: [Self; 5] =
        [Self::Seconds5, Self::Seconds30, Self::Minutes2, Self::Minutes10, Self::Hour1];

    /// How long it is.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Seconds5 => 5,
            Self::Seconds30 => 30,
            Self::Minutes2 => 120,
            Self::Minutes10 => 600,
            Self::Hour1 => 3600,
        }
    }

    /// The rung of the `n`th retry, from 1; the last one for all further.
    fn of_retry(n: u32) -> Self {
        Self::ALL[(n.saturating_sub(1) as usize).min(Self::ALL.len() - 1)]
    }

    /// The first rung that is at least so long; the last one if none is.
    fn at_least(seconds: f64) -> Self {
        let long_enough = |rung: &Self| rung.seconds() as f64 >= seconds;
        Self::ALL.into_iter().find(long_enough).unwrap_or(Self::Hour1)
    }

    /// This rung or the next longer one, so that what failed together does not come back
    /// together. `random` is in 0..1.
    pub fn jittered(self, random: f64) -> Self {
        let longer = Self::ALL.into_iter().find(|rung| *rung > self);
        // One in four waits longer: enough to spread a herd, and the usual wait stays short.
        if random < 0.25 { longer.unwrap_or(self) } else { self }
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another try, after a rung.
    Retry(Rung),
    /// No further try.
    Dead(DeadReason),
}

/// Why a job was given up.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The job itself is wrong.
    Invalid,
    /// It failed as often as it may.
    Attempts,
    /// It does not fit into any worker's memory.
    Capacity,
    /// It took too long, twice.
    Timeout,
    /// It killed its workers.
    Poison,
    /// No worker could read it.
    Incompatible,
    /// The broker gave it up: delivered too often, or its queue was full.
    Broker,
}

names!(DeadReason {
    Invalid = "invalid",
    Attempts = "attempts",
    Capacity = "capacity",
    Timeout = "timeout",
    Poison = "poison",
    Incompatible = "incompatible",
    Broker = "broker",
});

/// What follows the failure of try `attempt` (from 1) of `max_attempts`. `retry_after` is what the
/// server that failed asked for, in seconds.
pub fn next(class: Class, attempt: u32, max_attempts: u32, retry_after: Option<f64>) -> Next {
    let dead = match class {
        Class::Invalid | Class::Cancelled => Some(DeadReason::Invalid),
        Class::Lost => Some(DeadReason::Poison),
        Class::Incompatible => {
            (attempt >= INCOMPATIBLE_ATTEMPTS).then_some(DeadReason::Incompatible)
        }
        Class::Capacity if attempt >= 2 => Some(DeadReason::Capacity),
        Class::Timeout if attempt >= 2 => Some(DeadReason::Timeout),
        Class::Transient | Class::Capacity | Class::Timeout => {
            (attempt >= max_attempts).then_some(DeadReason::Attempts)
        }
    };
    if let Some(reason) = dead {
        return Next::Dead(reason);
    }
    let rung = match class {
        // A larger worker must have time to come.
        Class::Capacity => Rung::Minutes2,
        // New workers come with a rollout, not in seconds.
        Class::Incompatible if attempt == 1 => Rung::Minutes10,
        Class::Incompatible => Rung::Hour1,
        _ => Rung::of_retry(attempt),
    };
    Next::Retry(retry_after.map_or(rung, |seconds| rung.max(Rung::at_least(seconds))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_goes_where_its_class_sends_it() {
        use Class as C;
        use DeadReason as D;
        use Next::{Dead, Retry};
        use Rung as R;
        #[rustfmt::skip]
        let table = [
            // class          attempt  max  retry_after   next
            (C::Invalid,      1,       8,   None,         Dead(D::Invalid)),      // trying again cannot help
            (C::Transient,    1,       8,   None,         Retry(R::Seconds5)),
            (C::Transient,    2,       8,   None,         Retry(R::Seconds30)),
            (C::Transient,    5,       8,   None,         Retry(R::Hour1)),
            (C::Transient,    7,       8,   None,         Retry(R::Hour1)),       // the last rung repeats
            (C::Transient,    8,       8,   None,         Dead(D::Attempts)),
            (C::Transient,    1,       1,   None,         Dead(D::Attempts)),
            (C::Transient,    1,       8,   Some(90.),    Retry(R::Minutes2)),    // as the server asked, or later
            (C::Transient,    3,       8,   Some(1.),     Retry(R::Minutes2)),    // never earlier
            (C::Transient,    1,       8,   Some(1e9),    Retry(R::Hour1)),
            (C::Transient,    1,       8,   Some(f64::NAN), Retry(R::Hour1)),
            (C::Capacity,     1,       8,   None,         Retry(R::Minutes2)),    // give the pool time to grow
            (C::Capacity,     2,       8,   None,         Dead(D::Capacity)),
            (C::Timeout,      1,       8,   None,         Retry(R::Seconds5)),
            (C::Timeout,      2,       8,   None,         Dead(D::Timeout)),
            (C::Lost,         1,       8,   None,         Dead(D::Poison)),       // three workers died of it
            (C::Incompatible, 1,       8,   None,         Retry(R::Minutes10)),
            (C::Incompatible, 20,      8,   None,         Retry(R::Hour1)),       // a rollout may take a day
            (C::Incompatible, 48,      8,   None,         Dead(D::Incompatible)), // but not for ever
        ];
        for (class, attempt, max, retry_after, want) in table {
            let got = next(class, attempt, max, retry_after);
            assert_eq!(got, want, "{class}, attempt {attempt} of {max}, {retry_after:?}");
        }
    }

    #[test]
    fn every_class_ends() {
        for class in Class::NAMES {
            let class = class.parse().unwrap();
            let ends = |n| matches!(next(class, n, MAX_ATTEMPTS, None), Next::Dead(_));
            assert!((1..=INCOMPATIBLE_ATTEMPTS).any(ends), "{class}");
        }
    }

    #[test]
    fn jitter_goes_to_the_neighbour_and_never_earlier() {
        for rung in Rung::ALL {
            assert_eq!(rung.jittered(0.9), rung);
            assert!(rung.jittered(0.1) >= rung);
            assert_eq!(rung.as_str().parse(), Ok(rung));
        }
        assert_eq!(Rung::Seconds5.jittered(0.), Rung::Seconds30);
        assert_eq!(Rung::Hour1.jittered(0.), Rung::Hour1);
    }
}
