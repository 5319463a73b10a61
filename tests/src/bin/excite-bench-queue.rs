//! What the distributed part can do, on private servers: `cargo xtask bench queue`.
//!
//! Prints one JSON object; the table is xtask's. Nothing is rendered: workers run the empty
//! pipeline.

#![expect(clippy::print_stdout, reason = "its output is read by xtask")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// Jobs of the batch that is watched while it is fed, and who watches.
const WATCHED_JOBS: usize = 100_000;
const LISTENERS: usize = 200;
const WATCHED_FOR: Duration = Duration::from_secs(60);
/// Between two requests: 20 a second.
const ASKED_EVERY: Duration = Duration::from_millis(50);

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
    report["watched"] = watched(&cluster, &dispatcher).await?;
    report["behind_a_million"] = behind_a_million(&cluster, &dispatcher).await?;
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
    let peak = bytes_of(dispatcher.program.id(), "VmHWM:")?;
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

/// Memory that a process has (`VmRSS:`) or had at most (`VmHWM:`).
fn bytes_of(process: u32, what: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    Ok(kibibytes.with_context(|| format!("no {what}"))?.trim().parse::<u64>()? * 1024)
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

/// A batch that is fed, made and watched: how long it takes to show it meanwhile.
async fn watched(cluster: &Cluster, dispatcher: &Service) -> Result<Value> {
    let args = ["--pipeline", "empty", "--slots", IN_FLIGHT];
    let _worker = cluster.worker(&args).await?;
    let line = |seed| format!(r#"{{"prompt":"a horse","seed":{seed},"steps":1}}"#);
    let lines: Vec<String> = (0..WATCHED_JOBS).map(line).collect();
    let id = cluster.submit(dispatcher, "", &lines.join("\n")).await?.id;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let address = format!("{}/v1/batches/{id}", dispatcher.url);
    let told: Vec<_> = (0..LISTENERS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut listeners = tokio::task::JoinSet::new();
    for told in told.clone() {
        let listen = client.get(format!("{address}/events")).send();
        listeners.spawn(async move {
            let mut events = listen.await?.error_for_status()?.bytes_stream();
            while let Some(piece) = events.next().await {
                let piece = piece?;
                let events = piece.windows(6).filter(|bytes| bytes == b"event:").count();
                told.fetch_add(events, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let mut seconds = Vec::new();
    let started = Instant::now();
    let mut ticks = tokio::time::interval(ASKED_EVERY);
    while started.elapsed() < WATCHED_FOR {
        ticks.tick().await;
        let asked = Instant::now();
        client.get(&address).send().await?.error_for_status()?.bytes().await?;
        seconds.push(asked.elapsed().as_secs_f64());
    }
    anyhow::ensure!(listeners.try_join_next().is_none(), "a listener was left alone");
    let view = cluster.batch(dispatcher, id).await?;
    let told: Vec<usize> = told.iter().map(|told| told.load(Ordering::Relaxed)).collect();
    listeners.shutdown().await;
    cluster.patch(dispatcher, id, json!({"cancelled": true})).await?;
    seconds.sort_by(f64::total_cmp);
    let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part) as usize];
    Ok(json!({
        "p50_seconds": at(0.5), "p99_seconds": at(0.99), "requests": seconds.len(),
        "listeners": LISTENERS, "least_events": told.iter().min(),
        "jobs_per_second": count(&view, State::Succeeded) as f64 / started.elapsed().as_secs_f64(),
        "dispatcher_bytes": bytes_of(dispatcher.program.id(), "VmRSS:")?,
    }))
}

/// From the submission of three jobs to the end of the first, when a worker has a million to do.
async fn behind_a_million(cluster: &Cluster, dispatcher: &Service) -> Result<Value> {
    let args = ["--pipeline", "empty", "--slots", IN_FLIGHT];
    let _worker = cluster.worker(&args).await?;
    let million = r#"{"prompt":"a dog","seeds":"0..1000000","steps":1}"#;
    let million = cluster.submit(dispatcher, "", million).await?.id;
    let begun = |view: &_| count(view, State::Succeeded) > 0;
    cluster.until(dispatcher, million, LIMIT, "the first of a million", begun).await?;
    let mut report = json!({});
    for lane in [Lane::Express, Lane::Bulk] {
        let started = Instant::now();
        let lines = format!(r#"{{"prompt":"a cat, {lane}","seeds":"0..3","steps":1}}"#);
        let view = cluster.submit(dispatcher, &format!("lane={lane}"), &lines).await?;
        cluster.until(dispatcher, view.id, LIMIT, "the first of three", begun).await?;
        report[format!("{lane}_seconds")] = json!(started.elapsed().as_secs_f64());
    }
    cluster.patch(dispatcher, million, json!({"cancelled": true})).await?;
    Ok(report)
}

/// From the submission of one image to its first step in Redis, with a worker that has made one
/// before: the median of five.
async fn first_progress(cluster: &Cluster, dispatcher: &Service) -> Result<f64> {
    let _worker = cluster.worker(&[]).await?;
    // Each another image: one that was made before would only be copied.
    let line = |seed| format!(r#"{{"prompt":"a cat and a frog","steps":12,"seed":{seed}}}"#);
    let warm = cluster.submit(dispatcher, "", &line(0)).await?;
    cluster.finished(dispatcher, warm.id, LIMIT).await?;
    let mut redis = cluster.redis.connect().await?;
    let mut seconds = Vec::new();
    for seed in 1..6 {
        let started = Instant::now();
        let view = cluster.submit(dispatcher, "", &line(seed)).await?;
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
