//! The ledger by hand: `cargo xtask faults`.
//!
//! Prints a table and, as its last line, one JSON object. Exit status 1: something was lost.

#![expect(clippy::print_stdout, reason = "its output is read by people and by xtask")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use excite_tests::ledger::{self, Options};

/// Submit jobs while everything fails in turn, then account for each
#[derive(Debug, Parser)]
struct Args {
    /// How long faults come
    #[arg(long, default_value_t = 3., value_name = "MINUTES")]
    minutes: f64,

    /// Which faults, in which order
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let Args { minutes, seed } = Args::parse();
    let faults_for = Duration::try_from_secs_f64(minutes * 60.)?;
    let report = ledger::run(Options { faults_for, seed }).await?;
    print!("{}", report.table());
    println!("{}", report.json());
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
