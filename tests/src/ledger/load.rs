//! What is submitted to a ledger, and what its submitters know of it.
//!
//! A submitter tries until it is answered, by whichever dispatcher is there, under one idempotency
//! key: that is all it needs to do for its batch to be made once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Message, Queue};
use excite_jobs::{Batch, BatchId, keys};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::crew::VOLUME;
use super::nemesis::Tally;
use crate::Rabbit;
use crate::cluster::{BUCKET, Cluster};

/// One try of a request: a dispatcher may hang.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// All tries of a request: the outages of a ledger are shorter.
const TRIES_MAX: Duration = Duration::from_secs(240);
const AGAIN: Duration = Duration::from_millis(300);

const SUBJECTS: [&str; 8] = ["cat", "frog", "lion", "bear", "horse", "mouse", "rabbit", "turtle"];
/// So many batches are enough for everything to be under way that can be; more would only wait for
/// a slow machine.
const UNFINISHED_MAX: usize = 12;
/// Denoising steps of an image: long enough that most faults find some under way.
pub(super) const STEPS: u32 = 8;

/// What jobs make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Images of the bundled model.
    Images,
    /// Single pixels.
    Pixels,
}

/// A batch that was accepted.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) id: BatchId,
    pub(super) kind: Kind,
    /// One job each.
    pub(super) lines: Vec<Value>,
    pub(super) cancelled: bool,
}

/// All that was submitted, and how.
#[derive(Debug)]
pub(super) struct Load {
    client: reqwest::Client,
    urls: Vec<String>,
    broker: String,
    bucket: PathBuf,
    rng: StdRng,
    seeds: u32,
    pub(super) batches: Vec<Submitted>,
    paused: Vec<BatchId>,
}

impl Load {
    pub(super) fn new(
        cluster: &Cluster,
        rabbit: &Rabbit,
        urls: Vec<String>,
        rng: StdRng,
    ) -> Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build()?,
            urls,
            broker: rabbit.url(&cluster.vhost),
            bucket: cluster.s3.root().join(BUCKET),
            rng,
            seeds: 0,
            batches: Vec::new(),
            paused: Vec::new(),
        })
    }

    /// Submits batch after batch, and does to them what people do.
    pub(super) async fn submit_until(&mut self, until: Instant, tally: &Tally) -> Result<()> {
        while Instant::now() < until {
            if self.unfinished() > UNFINISHED_MAX {
                self.resume().await?;
                self.pause_for(500..1000).await;
                continue;
            }
            let at = self.submit(tally).await?;
            let Submitted { id, .. } = self.batches[at];
            self.pause_for(1000..4000).await;
            match self.rng.random_range(0..10) {
                0 => {
                    self.patch(id, json!({"cancelled": true})).await?;
                    self.batches[at].cancelled = true;
                    tally.count("a batch cancelled");
                }
                1 => {
                    self.patch(id, json!({"paused": true})).await?;
                    self.paused.push(id);
                    tally.count("a batch paused");
                }
                2 | 3 if self.publish_again(id).await? => tally.count("jobs published twice"),
                4 => self.resume().await?,
                _ => {}
            }
            self.pause_for(500..2500).await;
        }
        Ok(())
    }

    /// Batches that are not finished, by their marks in the store.
    fn unfinished(&self) -> usize {
        std::fs::read_dir(self.bucket.join(keys::ACTIVE_PREFIX)).map_or(0, Iterator::count)
    }

    /// Resumes what is paused.
    pub(super) async fn resume(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.paused) {
            self.patch(id, json!({"paused": false})).await?;
        }
        Ok(())
    }

    async fn pause_for(&mut self, milliseconds: std::ops::Range<u64>) {
        // The pace is part of what is tried: it decides what overlaps with what.
        let pause = self.rng.random_range(milliseconds);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn submit(&mut self, tally: &Tally) -> Result<usize> {
        let (kind, lines) = self.lines();
        let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let key = format!("ledger-{}-{}", self.batches.len(), self.rng.random::<u32>());
        let model = if kind == Kind::Pixels { VOLUME } else { "emoji" };
        // Where it goes first, and whether somebody impatient sends it twice at a time.
        let first = self.rng.random_range(0..self.urls.len());
        let twice = self.rng.random_ratio(1, 4);
        let mut copies = vec![self.post(first, model, &key, &body)];
        if twice {
            copies.push(self.post(first + 1, model, &key, &body));
            tally.count("a batch submitted twice at a time");
        }
        let ids: Vec<BatchId> = futures::future::try_join_all(copies).await?;
        if ids.iter().any(|id| *id != ids[0]) {
            bail!("one idempotency key made several batches: {ids:?}");
        }
        self.batches.push(Submitted { id: ids[0], kind, lines, cancelled: false });
        Ok(self.batches.len() - 1)
    }

    fn lines(&mut self) -> (Kind, Vec<Value>) {
        let images = self.batches.iter().filter(|batch| batch.kind == Kind::Images);
        let images: Vec<_> = images.collect();
        match self.rng.random_range(0..10) {
            // What was made before may be asked for again.
            0 if !images.is_empty() => {
                let at = self.rng.random_range(0..images.len());
                (Kind::Images, images[at].lines.clone())
            }
            // Most of these take the bulk lane.
            1..4 => {
                let count = self.rng.random_range(60..400);
                (Kind::Pixels, (0..count).map(|_| self.line(json!({}))).collect())
            }
            4..6 => {
                let count = self.rng.random_range(3..9);
                let small = json!({"method": "none", "width": 64, "height": 64, "steps": STEPS});
                (Kind::Images, (0..count).map(|_| self.line(small.clone())).collect())
            }
            _ => {
                let count = self.rng.random_range(1..5);
                let guided = json!({"steps": STEPS, "method_params": {
                    "thresholds": {"0": 0.3, "4": 0.6}, "max_refinement_steps": 2,
                }});
                (Kind::Images, (0..count).map(|_| self.line(guided.clone())).collect())
            }
        }
    }

    fn line(&mut self, mut rest: Value) -> Value {
        let mut one = || SUBJECTS[self.rng.random_range(0..SUBJECTS.len())];
        rest["prompt"] = json!(format!("a {} and a {}", one(), one()));
        rest["custom_id"] = json!(format!("job-{}", self.seeds));
        rest["seed"] = json!(self.seeds);
        self.seeds += 1;
        rest
    }

    async fn post(&self, first: usize, model: &str, key: &str, body: &str) -> Result<BatchId> {
        let answer = self.ask(first, |url| {
            let post = self.client.post(format!("{url}/v1/batches?model={model}"));
            let post = post.header("idempotency-key", key);
            post.header("content-type", "application/x-ndjson").body(body.to_owned())
        });
        let answer: Value = serde_json::from_slice(&answer.await?)?;
        let id = answer["id"].as_str().context("the answer has no id")?;
        Ok(id.parse()?)
    }

    async fn patch(&mut self, id: BatchId, change: Value) -> Result<()> {
        let first = self.rng.random_range(0..self.urls.len());
        let request = |url: &str| self.client.patch(format!("{url}/v1/batches/{id}")).json(&change);
        self.ask(first, request).await.map(drop)
    }

    /// Asks one dispatcher after the other until one answers.
    async fn ask(
        &self,
        first: usize,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
    ) -> Result<Vec<u8>> {
        let began = Instant::now();
        for turn in first.. {
            let why = match request(&self.urls[turn % self.urls.len()]).send().await {
                Ok(answer) => {
                    let status = answer.status();
                    match answer.bytes().await {
                        Ok(bytes) if status.is_success() => return Ok(bytes.to_vec()),
                        Ok(bytes) => {
                            let text = String::from_utf8_lossy(&bytes).into_owned();
                            if status.is_client_error() {
                                bail!("a dispatcher refuses: {status}: {text}");
                            }
                            format!("{status}: {text}")
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            if began.elapsed() > TRIES_MAX {
                bail!("no dispatcher answered for {} s: {why}", TRIES_MAX.as_secs());
            }
            tokio::time::sleep(AGAIN).await;
        }
        bail!("nobody was asked")
    }

    /// Publishes the first jobs of a small batch once more, as a broker may deliver them twice;
    /// whether that was possible.
    async fn publish_again(&self, id: BatchId) -> Result<bool> {
        let text = std::fs::read(self.bucket.join(keys::batch(id)));
        let batch: Batch = serde_json::from_slice(&text.context("a header")?)?;
        let jobs = (0..batch.jobs.min(5)).filter_map(|index| batch.job(&batch.inline, index));
        let jobs: Vec<_> = jobs.collect();
        let Ok(queue) = RabbitQueue::connect(RabbitOptions::new(&self.broker, "twice")) else {
            return Ok(false);
        };
        let publish = async {
            for job in &jobs {
                let body = serde_json::to_vec(job)?.into();
                let message = Message { body, id: job.id.to_string(), ..Message::default() };
                queue.publish_job(&job.class, job.lane, None, message).await?;
            }
            anyhow::Ok(())
        };
        // The broker may be away.
        let published = tokio::time::timeout(Duration::from_secs(5), publish).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), queue.close()).await;
        Ok(!jobs.is_empty() && matches!(published, Ok(Ok(()))))
    }
}
