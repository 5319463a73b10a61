//! How much of its time a worker computes when there is always another job, on private servers:
//! `cargo xtask bench pipeline --only worker`.
//!
//! Prints one JSON object. Nothing is rendered: steps take their time without work, as they do for
//! the processor while a GPU makes them. Between two jobs are storing, reporting, acknowledging and
//! the next delivery.

#![expect(clippy::print_stdout, reason = "its output is read by xtask")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use excite_jobs::State;
use excite_tests::cluster::{Cluster, Service, count};
use excite_tests::{Rabbit, eventually};
use serde_json::json;

const JOBS: usize = 200;
/// Of a job; 200 ms for each image.
const STEPS: usize = 4;
const STEP: Duration = Duration::from_millis(50);
/// One job a run: the gap is the same however many share one, and so each has it.
const SLOTS: &str = "1";
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let rabbit = Rabbit::start().await?;
    let cluster = Cluster::start(&rabbit, "busy").await?;
    let dispatcher = cluster.dispatcher().await?;
    cluster.push_model(&dispatcher).await?;
    let step = STEP.as_millis().to_string();
    let args = ["--pipeline", "empty", "--step-milliseconds", &step, "--slots", SLOTS];
    let worker = cluster.worker(&args).await?;
    let line = |seed| format!(r#"{{"prompt":"a cat","seed":{seed},"steps":{STEPS}}}"#);
    let lines: Vec<String> = (0..JOBS).map(line).collect();
    let id = cluster.submit(&dispatcher, "lane=bulk", &lines.join("\n")).await?.id;
    let first = steps(&cluster, &worker, 1).await?;
    // Asking costs the worker time, and it cannot be done sooner.
    tokio::time::sleep(STEP * (JOBS * STEPS - 1) as u32).await;
    let last = steps(&cluster, &worker, JOBS * STEPS).await?;
    let view = cluster.finished(&dispatcher, id, LIMIT).await?;
    ensure!(count(&view, State::Succeeded) == JOBS as u64, "{:?}", view.tally);
    let wall = (last.at - first.at).as_secs_f64();
    let busy = last.seconds - first.seconds;
    println!(
        "{}",
        json!({
            "jobs": JOBS, "steps": STEPS, "slots": SLOTS, "wall_seconds": wall,
            "busy_seconds": busy, "busy": busy / wall,
        })
    );
    Ok(())
}

/// What a worker had made at some moment.
struct Made {
    at: Instant,
    /// That its steps took.
    seconds: f64,
}

/// Waits until a worker has made so many steps.
async fn steps(cluster: &Cluster, worker: &Service, wanted: usize) -> Result<Made> {
    let sum = "excite_step_duration_seconds_sum";
    eventually(LIMIT, &format!("step {wanted}"), async || {
        let steps = cluster.metric(worker, "excite_steps_total", "").await?;
        ensure!(steps >= wanted as f64, "{steps} steps");
        let seconds = cluster.metric(worker, sum, "").await?;
        anyhow::Ok(Made { at: Instant::now(), seconds })
    })
    .await
    .context("the worker's metrics")
}
