//! The ledger: jobs are submitted while everything fails in turn, and at the end each must be
//! accounted for.
//!
//! [`run`] starts servers and services of its own, lets a seeded nemesis at them for a while, mends
//! everything, waits for the end of all batches and audits what the store and the mirror say. What
//! is found goes into a [`Report`]. Not here: who starts it (`cargo xtask faults`, a test).

mod audit;
mod crew;
mod load;
mod nemesis;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::Rabbit;
use crate::cluster::Cluster;

pub use report::Report;

use crew::Crew;
use load::Load;
use nemesis::{Nemesis, Tally};

/// How long everything may take to come to rest once nothing fails any more: the rungs that jobs
/// can have come to, and the work itself.
const REST_MAX: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long faults come.
    pub faults_for: Duration,
    /// The same seed gives the same faults in the same order.
    pub seed: u64,
}

/// Runs the ledger.
///
/// # Errors
/// If the servers cannot be started or read: then nothing is known. What was lost is no error, but
/// in the report.
pub async fn run(options: Options) -> Result<Report> {
    let started = Instant::now();
    let rabbit = Rabbit::start().await?;
    let cluster = Cluster::start_behind_proxies(&rabbit, "ledger").await?;
    let mut crew = Crew::start(&cluster).await?;
    // Queues younger than a second do not outlive a kill of the node.
    rabbit.settle().await?;

    let until = Instant::now() + options.faults_for;
    let rng =
        |stream: u64| StdRng::seed_from_u64(options.seed.wrapping_mul(4).wrapping_add(stream));
    let mut load = Load::new(&cluster, &rabbit, crew.dispatchers(), rng(1))?;
    let tally = Tally::default();
    let nemesis = Nemesis { cluster: &cluster, rabbit: &rabbit, tally: &tally, until };
    let (processes, servers, loaded) = tokio::join!(
        nemesis.processes(&mut crew, rng(2)),
        nemesis.servers(rng(3)),
        load.submit_until(until, &tally),
    );
    processes.context("the faults of processes")?;
    servers.context("the faults of servers")?;
    loaded.context("the batches")?;
    eprintln!("ledger: {:.0} s: no more faults", started.elapsed().as_secs_f64());

    let mut report = Report::new(options);
    report.faults = tally.into_counts();
    // Who is asked to resume may be down, and nobody else brings it back.
    crew.mend().await?;
    load.resume().await?;
    audit::rest(&cluster, &rabbit, &mut crew, &load, &mut report, REST_MAX).await?;
    eprintln!("ledger: {:.0} s: at rest", started.elapsed().as_secs_f64());
    audit::audit(&cluster, &mut crew, &load, &mut report).await?;
    report.violations.extend(crew.violations);
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}
