//! `cargo xtask faults`: the ledger, for as long as one likes.
//!
//! Not the ledger itself: that is tests/src/ledger, on servers of its own.

use anyhow::{Result, bail};
use clap::Args;

use crate::project::{self, Project};
use crate::servers;

const EXAMPLES: &str = "\
Examples:
  cargo xtask faults
  cargo xtask faults --minutes 30 --seed 2

Exit status 1 if a job was lost, concluded twice, or has other bytes than an undisturbed run makes.";

/// Let everything fail in turn while jobs run, then account for each job
///
/// Starts RabbitMQ, Redis, an S3 server, dispatchers and workers of its own, and ends them. Prints
/// a table and, as the last line, one JSON object.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FaultsArgs {
    /// How long faults come; starting, mending and counting take some minutes more
    #[arg(long, default_value_t = 3., value_name = "M")]
    minutes: f64,

    /// Which faults come, in which order
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
}

/// Builds and runs it.
pub(crate) fn faults(project: &Project, args: &FaultsArgs) -> Result<()> {
    if !(args.minutes > 0. && args.minutes <= 24. * 60.) {
        bail!("--minutes is {}; set it to more than 0, at most 1440", args.minutes);
    }
    servers::find(project)?;
    // As tests build them: with the points at which programs can be made to crash.
    project::run(&mut project.cargo(&["test", "--workspace", "--no-run", "--quiet"]))?;
    let mut ledger = project.command(project.built("debug", "excite-faults")?);
    ledger.args(["--minutes", &args.minutes.to_string(), "--seed", &args.seed.to_string()]);
    project::run(&mut ledger)
}
