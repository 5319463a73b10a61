//! How long a large upload takes and how much memory: `accept [LINES] [PROMPTS]`. The lines go
//! through everything but HTTP and the network: checks, parts, commit, into a temporary folder.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use excite_dispatcher::Ports;
use excite_dispatcher::accept::{Accept, Accepted, Format, Submission};
use excite_dispatcher::estimates::EstimatesCache;
use excite_dispatcher::metrics::Metrics;
use excite_dispatcher::models::Models;
use excite_jobs::api::BatchOptions;
use excite_jobs::progress::memory::MemoryMirror;
use excite_jobs::queue::Queue;
use excite_jobs::queue::memory::MemoryQueue;
use excite_jobs::store::directory::DirectoryStore;
use excite_jobs::store::{Condition, Store};
use excite_jobs::{ModelCard, ModelFacts, SchedulerName, keys};
use futures::stream;
use prometheus::Registry;

const ANIMALS: [&str; 12] = [
    "cat", "dog", "bird", "bear", "lion", "horse", "elephant", "monkey", "frog", "turtle",
    "rabbit", "mouse",
];
const COLOURS: [&str; 11] = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white",
];
/// Lines of a piece, as it comes from the network.
const PIECE: u64 = 700;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let number = |n: usize, otherwise: u64| {
        std::env::args().nth(n).map_or(Ok(otherwise), |text| text.parse::<u64>())
    };
    let (lines, prompts) = (number(1, 1_000_000)?, number(2, 1_000_000)?);
    let folder = tempfile::tempdir()?;
    let store = Arc::new(DirectoryStore::open(folder.path())?);
    let queue = Arc::new(MemoryQueue::new());
    queue.declare(&["default".into()]).await?;
    let ports = Ports { queue, store: store.clone(), progress: Arc::new(MemoryMirror::new()) };
    let card = serde_json::to_vec(&card())?;
    store.put(&keys::model("emoji"), card.into(), Condition::Always).await?;
    let accept = Accept::new(
        ports.clone(),
        Arc::new(Models::new(store.clone())),
        Arc::new(EstimatesCache::new(store.clone())),
        Metrics::register(&Registry::new())?,
        "emoji".into(),
    )?;
    let submission = Submission {
        options: BatchOptions::default(),
        format: Format::Json,
        gzip: false,
        key: Some("one".into()),
        traceparent: None,
    };
    let pieces = (0..lines.div_ceil(PIECE))
        .map(move |n| Ok::<_, String>(piece(n * PIECE..lines.min((n + 1) * PIECE), prompts)));
    let start = Instant::now();
    let accepted = accept.accept(submission, stream::iter(pieces)).await?;
    let seconds = start.elapsed().as_secs_f64();
    let Accepted::New(batch) = accepted else { anyhow::bail!("not a new batch") };
    let bytes: u64 = batch.parts.iter().map(|part| part.bytes).sum();
    println!(
        "{} lines, {} parts of {bytes} bytes in all: {seconds:.1} s, {:.0} lines/s, peak {} MB",
        batch.lines,
        batch.parts.len(),
        batch.lines as f64 / seconds,
        peak_megabytes()?,
    );
    Ok(())
}

fn piece(lines: std::ops::Range<u64>, prompts: u64) -> Bytes {
    let line = |i: u64| {
        let n = (i % prompts) as usize;
        let (a, b) = (ANIMALS[n % 12], ANIMALS[(n / 12) % 12]);
        let (c, d) = (COLOURS[(n / 144) % 11], COLOURS[(n / 1584) % 11]);
        format!("{{\"prompt\": \"a {c} {a} and a {d} {b}, photo {n}\", \"seed\": {i}}}\n")
    };
    lines.map(line).collect::<String>().into()
}

fn card() -> ModelCard {
    ModelCard {
        v: 1,
        name: "emoji".into(),
        digest: "0".repeat(64),
        class: "default".into(),
        bytes: 0,
        facts: ModelFacts {
            name: "emoji".into(),
            width: 128,
            height: 128,
            size_multiple: 8,
            side_min: 64,
            train_timesteps: 1000,
            scheduler: Ok(SchedulerName::Pndm),
            prompt_only_tokens: false,
        },
        files: Default::default(),
    }
}

fn peak_megabytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024)
}
