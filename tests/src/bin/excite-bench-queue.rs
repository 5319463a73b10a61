//! What the distributed part can do, on private servers: `cargo xtask bench queue`.
//!
//! Prints one JSON object; the table is xtask's. Nothing is rendered: workers run the empty
//! pipeline.

#![expect(clippy::print_stdout, reason = "its output is read by xtask")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use excite_jobs::api::BatchState;
use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Message, Queue};
use excite_jobs::{BatchId, Lane, State};
use excite_tests::cluster::{Cluster, Service, count};
use excite_tests::{Rabbit, eventually};
use futures::StreamExt;
use serde_json::{Value, json};

const PUBLICATIONS: usize = 100_000;
/// Confirms that are waited for at a time.
const WINDOW: usize = 2000;
const LINES: usize = 1_000_000;
const EMPTY_JOBS: usize = 5000;
const IN_FLIGHT: &str = "16";
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let rabbit = Rabbit::start().await?;
    let mut report = json!({});
    report["publications_per_second"] = json!(publications(&rabbit).await?);
    let cluster = Cluster::start(&rabbit, "bench").await?;
    let dispatcher = cluster.dispatcher().await?;
    cluster.push_model(&dispatcher).await?;
    report["accept"] = accept(&cluster, &dispatcher).await?;
    report["empty_pipeline_jobs_per_second"] = json!(empty(&cluster, &dispatcher).await?);
    report["first_progress_seconds"] = json!(first_progress(&cluster, &dispatcher).await?);
    println!("{report}");
    Ok(())
}

/// Confirmed, persistent publications of a job's size to a quorum queue, one publisher.
async fn publications(rabbit: &Rabbit) -> Result<f64> {
    let url = rabbit.vhost("publications").await?;
    let queue = RabbitQueue::connect(RabbitOptions::new(url, "bench"))?;
    let classes = ["default".to_owned()];
    eventually(LIMIT, "the queues", async || queue.declare(&classes).await).await?;
    let message = Message { body: vec![b'x'; 900].into(), ..Message::default() };
    let started = Instant::now();
    let publish = |_| queue.publish_job("default", Lane::Bulk, None, message.clone());
    let mut answers = futures::stream::iter(0..PUBLICATIONS).map(publish).buffer_unordered(WINDOW);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    let rate = PUBLICATIONS as f64 / started.elapsed().as_secs_f64();
    drop(answers);
    queue.close().await;
    Ok(rate)
}

/// A million lines: seconds, the dispatcher's peak memory, and what Redis holds of them.
async fn accept(cluster: &Cluster, dispatcher: &Service) -> Result<Value> {
    let path = cluster.folder.path().join("million.jsonl");
    let animals = ["cat", "frog", "lion", "bear", "horse", "mouse", "dog", "bird", "turtle"];
    let mut text = String::new();
    for i in 0..LINES {
        let (one, two) = (animals[i % 9], animals[(i / 9) % 9]);
        text += &format!(
            "{{\"prompt\":\"a {one} and a {two} number {}\",\"seed\":{i},\"steps\":2}}\n",
            i % 5000
        );
    }
    std::fs::write(&path, text)?;
    let started = Instant::now();
    let file = path.to_str().context("the path is no text")?;
    let said = cluster.excite(dispatcher, &["submit", file, "--json"]).await?;
    let seconds = started.elapsed().as_secs_f64();
    let line = said.lines().last().context("submit said nothing")?;
    let batch: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let id: BatchId = batch["id"].as_str().context("no id")?.parse()?;
    let peak = peak_bytes(dispatcher.program.id())?;
    let mirrored = |view: &_| count(view, State::Waiting) > 0;
    cluster.until(dispatcher, id, LIMIT, "the mirror", mirrored).await?;
    let mut redis = cluster.redis.connect().await?;
    let mut bytes = 0u64;
    for part in ["st", "n", "ev"] {
        let key = format!("excite:{{b:{id}}}:{part}");
        let used: Option<u64> =
            redis::cmd("MEMORY").arg("USAGE").arg(key).query_async(&mut redis).await?;
        bytes += used.unwrap_or(0);
    }
    cluster.patch(dispatcher, id, json!({"cancelled": true})).await?;
    let cancelled = |view: &excite_jobs::api::BatchView| view.state == BatchState::Cancelled;
    let started = Instant::now();
    cluster.until(dispatcher, id, LIMIT, "the cancellation", cancelled).await?;
    let cancel = started.elapsed().as_secs_f64();
    Ok(json!({
        "lines": LINES, "seconds": seconds, "dispatcher_peak_bytes": peak, "redis_bytes": bytes,
        "cancel_seconds": cancel,
    }))
}

/// The most memory that a process had, from `/proc`.
fn peak_bytes(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    Ok(kibibytes.context("no VmHWM")?.trim().parse::<u64>()? * 1024)
}

/// Jobs through the whole path and one worker that renders nothing.
async fn empty(cluster: &Cluster, dispatcher: &Service) -> Result<f64> {
    let args = ["--pipeline", "empty", "--slots", IN_FLIGHT];
    let _worker = cluster.worker(&args).await?;
    let line = |seed| format!(r#"{{"prompt":"a cat","seed":{seed},"steps":1}}"#);
    let lines: Vec<String> = (0..EMPTY_JOBS).map(line).collect();
    let started = Instant::now();
    let view = cluster.submit(dispatcher, "", &lines.join("\n")).await?;
    let view = cluster.finished(dispatcher, view.id, LIMIT).await?;
    anyhow::ensure!(count(&view, State::Succeeded) == EMPTY_JOBS as u64, "{:?}", view.tally);
    Ok(EMPTY_JOBS as f64 / started.elapsed().as_secs_f64())
}

/// From the submission of one image to its first step in Redis, with a worker that has made one
/// before: the median of five.
async fn first_progress(cluster: &Cluster, dispatcher: &Service) -> Result<f64> {
    let _worker = cluster.worker(&[]).await?;
    let lines = r#"{"prompt":"a cat and a frog","steps":12}"#;
    let warm = cluster.submit(dispatcher, "", lines).await?;
    cluster.finished(dispatcher, warm.id, LIMIT).await?;
    let mut redis = cluster.redis.connect().await?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let view = cluster.submit(dispatcher, "", lines).await?;
        let id = view.id.to_string();
        eventually(LIMIT, "progress", async || {
            let workers = redis::cmd("KEYS").arg("excite:w:*").query_async(&mut redis).await;
            let keys: Vec<String> = workers.unwrap_or_default();
            let beats: Vec<Option<String>> = if keys.is_empty() {
                Vec::new()
            } else {
                redis::cmd("MGET").arg(&keys).query_async(&mut redis).await.unwrap_or_default()
            };
            beats.iter().flatten().any(|beat| beat.contains(&id))
        })
        .await?;
        seconds.push(started.elapsed().as_secs_f64());
        cluster.finished(dispatcher, view.id, LIMIT).await?;
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}
