//! `cargo xtask bench queue`: what the distributed part can do, beside its goals.
//!
//! Not the measuring: that is tests/src/bin/excite-bench-queue.rs, on private servers.

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::machine::Machine;
use super::{PAGE, build_cluster, publish};
use crate::project::{self, Project};

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask bench queue
  cargo xtask bench queue --write";

/// Time publications, batches of a million, watching one, and jobs that render nothing
///
/// Starts RabbitMQ, Redis and an S3 server of its own, and ends them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QueueArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Also put the table into docs/performance.md
    #[arg(long)]
    write: bool,
}

const MARK: &str = "cargo xtask bench queue --write";

/// Measures and prints.
pub(crate) fn queue(project: &Project, args: &QueueArgs) -> Result<()> {
    build_cluster(project)?;
    let bench = project.built("release", "excite-bench-queue")?;
    let text = project::output(&mut project.command(&bench)).context("excite-bench-queue")?;
    let report: Value = serde_json::from_str(&text).context("it did not print one JSON object")?;
    if args.json {
        println!("{report}");
        return Ok(());
    }
    let threads = std::thread::available_parallelism()?.get() as u32;
    let machine = Machine::look(project, threads, 1)?;
    let table = format!("{}\n\n{}", table(&report)?, machine.line(&[]));
    println!("{table}");
    if args.write {
        publish(&project.path(PAGE), MARK, &table)?;
        eprintln!("written to {PAGE}");
    }
    Ok(())
}

/// A row: what, where in the report, how it is shown, the goal.
type Measured = (&'static str, &'static str, fn(f64) -> String, &'static str);

const ROWS: [Measured; 14] = [
    ("confirmed publications", "/publications_per_second", per_second, ">= 10,000/s"),
    ("1,000,000 lines: until accepted", "/accept/seconds", seconds, "<= 60 s"),
    ("... peak memory of the dispatcher", "/accept/dispatcher_peak_bytes", megabytes, "< 200 MB"),
    ("... what Redis holds of them", "/accept/redis_bytes", megabytes, "< 1 MB"),
    ("... until they are cancelled", "/accept/cancel_seconds", seconds, ""),
    ("jobs through one worker, empty pipeline", "/empty_pipeline_jobs_per_second", per_second, ""),
    ("100,000 jobs while made: p99 of a look", "/watched/p99_seconds", milliseconds, "< 50 ms"),
    ("... median", "/watched/p50_seconds", milliseconds, ""),
    ("... listeners of events meanwhile", "/watched/listeners", number, "200"),
    ("... the fewest events in a minute", "/watched/least_events", number, ""),
    ("... memory of the dispatcher", "/watched/dispatcher_bytes", megabytes, ""),
    ("3 jobs behind 1,000,000: express", "/behind_a_million/express_seconds", seconds, "< 5 s"),
    ("... in the bulk lane", "/behind_a_million/bulk_seconds", seconds, ""),
    ("submission to first progress, warm", "/first_progress_seconds", seconds, "< 1 s"),
];

fn table(report: &Value) -> Result<String> {
    let mut lines = vec!["| what | measured | goal |".to_owned(), "|---|---|---|".to_owned()];
    for (what, pointer, show, goal) in ROWS {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        let value = value.with_context(|| format!("the report lacks `{pointer}`"))?;
        lines.push(format!("| {what} | {} | {goal} |", show(value)));
    }
    Ok(lines.join("\n"))
}

fn per_second(value: f64) -> String {
    format!("{value:.0}/s")
}

fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

fn milliseconds(value: f64) -> String {
    format!("{:.1} ms", value * 1e3)
}

fn number(value: f64) -> String {
    format!("{value:.0}")
}

fn megabytes(value: f64) -> String {
    format!("{:.2} MB", value / 1e6)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_measured_thing_has_a_row() {
        let report = json!({
            "publications_per_second": 12_000.4, "empty_pipeline_jobs_per_second": 300,
            "first_progress_seconds": 0.123,
            "accept": {"seconds": 41.5, "dispatcher_peak_bytes": 1e8, "redis_bytes": 6e5,
                "cancel_seconds": 0.2},
            "watched": {"p99_seconds": 0.0123, "p50_seconds": 0.002, "listeners": 200,
                "least_events": 200, "dispatcher_bytes": 5e7},
            "behind_a_million": {"express_seconds": 0.5, "bulk_seconds": 1.5},
        });
        let table = table(&report).unwrap();
        assert!(table.contains("| confirmed publications | 12000/s | >= 10,000/s |"), "{table}");
        assert!(table.contains("| 12.3 ms | < 50 ms |"), "{table}");
        assert!(table.contains("| 0.60 MB | < 1 MB |"), "{table}");
        let error = super::table(&json!({})).unwrap_err().to_string();
        assert!(error.contains("publications_per_second"), "{error}");
    }
}
