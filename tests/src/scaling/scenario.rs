//! What is asked of a pool.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Jobs that were submitted together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// When, in seconds.
    pub at: f64,
    /// Compute seconds of each job.
    pub jobs: Vec<f64>,
}

/// Batches, and the nodes there are for them.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For tables and plots.
    pub name: &'static str,
    /// What happens.
    pub says: &'static str,
    /// In the order of their submission.
    pub batches: Vec<Batch>,
    /// Until a node and its image are there, seconds.
    pub start: Range<f64>,
    /// Until the model is loaded, then, seconds.
    pub load: f64,
    /// Nodes that are taken away, an hour and node.
    pub reclaims_per_hour: f64,
    /// Estimated seconds, of one that it takes.
    pub estimate: f64,
    /// Most pods.
    pub max: u32,
    /// How long it is looked at.
    pub seconds: f64,
}

const HOUR: f64 = 3600.;

/// All of them.
pub fn all() -> Vec<Scenario> {
    let mut random = StdRng::seed_from_u64(7);
    let mut jobs = |count: usize, seconds: Range<f64>| -> Vec<f64> {
        (0..count).map(|_| random.random_range(seconds.clone())).collect()
    };
    let burst = vec![Batch { at: 0., jobs: jobs(50_000, 4. ..12.) }];
    let usual = Scenario {
        name: "burst",
        says: "50,000 jobs of 4 to 12 s at once; nodes in 1 to 3 minutes, the model in 40 s",
        batches: burst,
        start: 60. ..180.,
        load: 40.,
        reclaims_per_hour: 0.,
        estimate: 1.05,
        max: 1000,
        seconds: 4. * HOUR,
    };
    let trickle = (0..120).map(|n| Batch { at: f64::from(n) * 120., jobs: jobs(20, 4. ..12.) });
    let trickle = trickle.collect();
    let mixed = vec![
        Batch { at: 0., jobs: jobs(20_000, 1. ..3.) },
        Batch { at: 600., jobs: jobs(4_000, 40. ..80.) },
        Batch { at: 1200., jobs: jobs(10_000, 4. ..12.) },
    ];
    let pauses =
        (0..4).map(|n| Batch { at: f64::from(n) * 1.5 * HOUR, jobs: jobs(2_000, 4. ..12.) });
    let pauses = pauses.collect();
    vec![
        Scenario {
            name: "reclaimed",
            says: "the burst on nodes of which every other one is taken away each hour, with 30 s notice",
            reclaims_per_hour: 0.5,
            ..usual.clone()
        },
        Scenario {
            name: "slow nodes",
            says: "the burst, but nodes take 6 to 12 minutes",
            start: 360. ..720.,
            ..usual.clone()
        },
        Scenario {
            name: "mixed",
            says: "20,000 jobs of 2 s, then 4,000 of a minute, then 10,000 of 8 s",
            batches: mixed,
            ..usual.clone()
        },
        Scenario {
            name: "pauses",
            says: "2,000 jobs of 4 to 12 s each hour and a half",
            batches: pauses,
            max: 200,
            seconds: 7. * HOUR,
            ..usual.clone()
        },
        Scenario {
            name: "trickle",
            says: "20 jobs of 4 to 12 s every other minute for four hours",
            batches: trickle,
            max: 50,
            seconds: 5. * HOUR,
            ..usual.clone()
        },
        usual,
    ]
}
