//! The whole system on real servers: dispatchers and workers as processes, spoken to as people do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use excite_jobs::api::{BatchState, BatchView, JobPage, JobView};
use excite_jobs::{Batch, BatchId, Done, Job, JobId, State, keys};
use serde_json::Value;

use crate::poll::{Try, eventually};
use crate::proxy::Proxy;
use crate::{Folder, Port, Program, Rabbit, Redis, S3, Trio, built};

/// Long enough for the images of a ledger of half an hour, made anew one by one.
const COMMAND_MAX: Duration = Duration::from_secs(3600);
/// Where the images go.
pub const BUCKET: &str = "excite";
/// A service is up in a second; its self-test takes some more on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A dispatcher or a worker.
#[derive(Debug)]
pub struct Service {
    /// The process.
    pub program: Program,
    /// Where it listens.
    pub url: String,
}

/// What the programs of a cluster go through to its servers.
#[derive(Debug)]
pub struct Links {
    /// To RabbitMQ.
    pub broker: Proxy,
    /// To Redis.
    pub progress: Proxy,
    /// To S3.
    pub store: Proxy,
}

/// RabbitMQ, Redis and S3 of a test, and what runs on them.
#[derive(Debug)]
pub struct Cluster {
    /// Variables that every program needs to find the servers.
    env: Vec<(String, String)>,
    /// Named in the broker.
    pub vhost: String,
    /// The mirror.
    pub redis: Redis,
    /// The store.
    pub s3: S3,
    /// For files of the test.
    pub folder: Folder,
    /// Those of [`Cluster::start_behind_proxies`].
    pub links: Option<Links>,
    client: reqwest::Client,
}

impl Cluster {
    /// Servers for one test: a vhost of `rabbit`, a Redis and an S3 of its own.
    ///
    /// # Errors
    /// If a server does not start.
    pub async fn start(rabbit: &Rabbit, name: &str) -> Result<Self> {
        let (vhost, broker) = vhost(rabbit, name).await?;
        Self::servers(vhost, broker, name, None).await
    }

    /// The same, with links that can be spoilt between the programs and the servers.
    ///
    /// # Errors
    /// If a server does not start.
    pub async fn start_behind_proxies(rabbit: &Rabbit, name: &str) -> Result<Self> {
        let (vhost, broker) = vhost(rabbit, name).await?;
        let link = Proxy::start(rabbit.port()).await?;
        let broker = through(&broker, rabbit.port(), &link);
        Self::servers(vhost, broker, name, Some(link)).await
    }

    /// The same on a broker of three nodes: programs reach those that run.
    ///
    /// # Errors
    /// If a server does not start.
    pub async fn start_on_three(trio: &Trio, name: &str) -> Result<Self> {
        let (vhost, broker) = vhost(&trio.nodes[0], name).await?;
        let link = Proxy::start_before(&trio.ports()).await?;
        let broker = through(&broker, trio.nodes[0].port(), &link);
        Self::servers(vhost, broker, name, Some(link)).await
    }

    /// All but the broker; behind proxies if the broker is.
    async fn servers(
        vhost: String,
        broker: String,
        name: &str,
        link: Option<Proxy>,
    ) -> Result<Self> {
        crate::choose_cryptography();
        let (redis, s3) = tokio::try_join!(Redis::start(), S3::start())?;
        s3.bucket(BUCKET)?;
        let (mut progress, mut store) = (redis.url(), s3.env(BUCKET));
        let mut links = None;
        if let Some(link) = link {
            let made = Links {
                broker: link,
                progress: Proxy::start(redis.port()).await?,
                store: Proxy::start(s3.port()).await?,
            };
            progress = through(&progress, redis.port(), &made.progress);
            for (_, value) in &mut store {
                *value = through(value, s3.port(), &made.store);
            }
            links = Some(made);
        }
        let mut env: Vec<(String, String)> =
            vec![("EXCITE_BROKER__URL".into(), broker), ("EXCITE_PROGRESS__URL".into(), progress)];
        env.extend(store.into_iter().map(|(name, value)| (name.into(), value)));
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build()?;
        let folder = Folder::temporary(name)?;
        Ok(Self { env, vhost, redis, s3, folder, links, client })
    }

    /// Programs that are started from now on log what a filter names.
    #[must_use]
    pub fn logging(mut self, filter: &str) -> Self {
        self.env.push(("EXCITE_LOG__FILTER".into(), filter.into()));
        self
    }

    /// The variables of every program of this cluster.
    pub fn env(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.env.iter().cloned()
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn variable(&self, name: &str) -> Result<&str> {
        let found = self.env.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("no {name}"))
    }

    /// Starts a dispatcher and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn dispatcher(&self) -> Result<Service> {
        self.service("excite-dispatcher", "EXCITE_DISPATCHER__LISTEN", &[], &[]).await
    }

    /// Starts a dispatcher with variables of its own and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn dispatcher_with(&self, env: &[(&str, &str)]) -> Result<Service> {
        self.service("excite-dispatcher", "EXCITE_DISPATCHER__LISTEN", &[], env).await
    }

    /// Starts a dispatcher that crashes when it comes to a point.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn crashing_dispatcher(&self, point: &str) -> Result<Service> {
        self.dispatcher_with(&[("FAILPOINTS", &crash_at(point))]).await
    }

    /// Starts a worker and waits until it takes jobs.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn worker(&self, args: &[&str]) -> Result<Service> {
        self.service("excite-worker", "EXCITE_WORKER__LISTEN", args, &[]).await
    }

    /// Starts a worker with variables of its own and waits until it takes jobs.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn worker_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Service> {
        self.service("excite-worker", "EXCITE_WORKER__LISTEN", args, env).await
    }

    /// Starts a worker that crashes when it comes to a point.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn crashing_worker(&self, args: &[&str], point: &str) -> Result<Service> {
        self.worker_with(args, &[("FAILPOINTS", &crash_at(point))]).await
    }

    async fn service(
        &self,
        name: &str,
        listen: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Service> {
        let port = Port::free()?;
        let address = format!("127.0.0.1:{}", port.number());
        let own = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = self.env().chain([(listen.to_owned(), address.clone())]).chain(own);
        let mut program = Program::start(built(name)?, args, env)?;
        let url = format!("http://{address}");
        program.wait_http(&format!("{url}/readyz"), START_LIMIT).await?;
        Ok(Service { program, url })
    }

    /// Runs `excite` to its end and gives what it printed.
    ///
    /// # Errors
    /// If it fails; with everything it said.
    pub async fn excite(&self, server: &Service, args: &[&str]) -> Result<String> {
        self.excite_at(&server.url, args).await
    }

    /// The same, of a server that is known by its URL.
    ///
    /// # Errors
    /// If it fails; with everything it said.
    pub(crate) async fn excite_at(&self, url: &str, args: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(built("excite")?);
        command.args(args).env("EXCITE_SERVER", url).kill_on_drop(true);
        command.current_dir(self.folder.path());
        let output = tokio::time::timeout(COMMAND_MAX, command.output()).await;
        let output = output.with_context(|| format!("`excite {}`", args.join(" ")))??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("`excite {}` ended with {}: {said}{error}", args.join(" "), output.status);
        }
        Ok(said)
    }

    /// Gives the cluster the bundled model.
    ///
    /// # Errors
    /// If it cannot be pushed.
    pub async fn push_model(&self, server: &Service) -> Result<()> {
        self.excite(server, &["model", "push", "emoji"]).await.map(drop)
    }

    /// Submits lines of JSON.
    ///
    /// # Errors
    /// If they are refused.
    pub async fn submit(&self, server: &Service, query: &str, lines: &str) -> Result<BatchView> {
        let url = format!("{}/v1/batches?{query}", server.url);
        let post = self.client.post(url).header("content-type", "application/x-ndjson");
        let answer = post.body(lines.to_owned()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Gets a document.
    ///
    /// # Errors
    /// If the answer is an error.
    pub async fn get(&self, url: &str) -> Result<Vec<u8>> {
        let answer = self.client.get(url).send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        if !status.is_success() {
            bail!("{url}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes.to_vec())
    }

    /// Sends a change.
    ///
    /// # Errors
    /// If the answer is an error.
    pub async fn patch(&self, server: &Service, batch: BatchId, change: Value) -> Result<()> {
        let url = format!("{}/v1/batches/{batch}", server.url);
        let answer = self.client.patch(url).json(&change).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{status}: {}", answer.text().await?);
        }
        Ok(())
    }

    /// A batch as the server shows it.
    ///
    /// # Errors
    /// If the answer is an error.
    pub async fn batch(&self, server: &Service, batch: BatchId) -> Result<BatchView> {
        self.batch_at(&server.url, batch).await
    }

    pub(crate) async fn batch_at(&self, url: &str, batch: BatchId) -> Result<BatchView> {
        let bytes = self.get(&format!("{url}/v1/batches/{batch}")).await?;
        serde_json::from_slice(&bytes).context("the answer is no batch")
    }

    /// Waits until something holds of a batch.
    ///
    /// # Errors
    /// After `limit`, with the batch as it was then.
    pub async fn until(
        &self,
        server: &Service,
        batch: BatchId,
        limit: Duration,
        what: &str,
        holds: impl Fn(&BatchView) -> bool,
    ) -> Result<BatchView> {
        let started = Instant::now();
        let found = eventually(limit, what, async || match self.batch(server, batch).await {
            Ok(view) if holds(&view) => Try::Done(view),
            Ok(view) => Try::Again(format!("{:?} {:?}", view.state, view.tally)),
            Err(error) => Try::Again(format!("{error:#}")),
        });
        let found = found.await;
        eprintln!("{what}: {:.1} s", started.elapsed().as_secs_f64());
        found
    }

    /// Waits until every job of a batch is terminal.
    ///
    /// # Errors
    /// As [`Cluster::until`].
    pub async fn finished(
        &self,
        server: &Service,
        batch: BatchId,
        limit: Duration,
    ) -> Result<BatchView> {
        let finished = |view: &BatchView| view.state == BatchState::Finished;
        self.until(server, batch, limit, "the end of the batch", finished).await
    }

    /// All jobs of a batch that were concluded, each as it was concluded last.
    ///
    /// # Errors
    /// If the answer is an error.
    pub async fn jobs(&self, server: &Service, batch: BatchId) -> Result<Vec<JobView>> {
        let mut jobs = std::collections::BTreeMap::new();
        let mut after = String::new();
        loop {
            let url = format!("{}/v1/batches/{batch}/jobs?limit=1000{after}", server.url);
            let page: JobPage = serde_json::from_slice(&self.get(&url).await?)?;
            jobs.extend(page.jobs.into_iter().map(|job| (job.index, job)));
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(jobs.into_values().collect()),
            }
        }
    }

    /// The bytes of an image.
    ///
    /// # Errors
    /// If there is none.
    pub async fn image(&self, server: &Service, job: JobId) -> Result<Vec<u8>> {
        let JobId { batch, index } = job;
        self.get(&format!("{}/v1/batches/{batch}/jobs/{index}/image", server.url)).await
    }

    /// The sum of a metric over its labels, as a service says it.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn metric(&self, service: &Service, name: &str, label: &str) -> Result<f64> {
        self.metric_at(&service.url, name, label).await
    }

    pub(crate) async fn metric_at(&self, url: &str, name: &str, label: &str) -> Result<f64> {
        let text = String::from_utf8(self.get(&format!("{url}/metrics")).await?)?;
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(label));
        let mine = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        Ok(mine.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Files of the store under a prefix that end so, by name; the server keeps objects as files.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn stored(&self, batch: BatchId, folder: &str, end: &str) -> Result<Vec<String>> {
        let path = self.s3.root().join(BUCKET).join(keys::batch_prefix(batch)).join(folder);
        Ok(names_in(&path)?.into_iter().filter(|name| name.ends_with(end)).collect())
    }

    /// All that was concluded of a batch, in the order of the parts.
    ///
    /// # Errors
    /// If a part cannot be read.
    pub fn records(&self, batch: BatchId) -> Result<Vec<Done>> {
        let folder = self.s3.root().join(BUCKET).join(keys::done_prefix(batch));
        let mut records = Vec::new();
        for name in names_in(&folder)? {
            for line in std::fs::read_to_string(folder.join(&name))?.lines() {
                records.push(serde_json::from_str(line).with_context(|| name.clone())?);
            }
        }
        Ok(records)
    }

    /// Waits until so many results of a batch are stored.
    ///
    /// # Errors
    /// After `limit`, with how many there are.
    pub async fn until_stored(&self, batch: BatchId, least: usize, limit: Duration) -> Result<()> {
        eventually(limit, "results", async || {
            let there = self.stored(batch, "images", ".json").map_or(0, |names| names.len());
            if there >= least { Ok(()) } else { Err(format!("{there} of {least}")) }
        })
        .await
    }

    /// The first publication of a job of a small batch.
    ///
    /// # Errors
    /// If there is no such batch, or no such job in its header.
    pub fn published_job(&self, batch: BatchId, index: u32) -> Result<Job> {
        let header = std::fs::read(self.s3.root().join(BUCKET).join(keys::batch(batch)))?;
        let header: Batch = serde_json::from_slice(&header)?;
        header.job(&header.inline, index).with_context(|| format!("no line of job {index}"))
    }

    /// How many batches the store knows.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn stored_batches(&self) -> Result<usize> {
        let folder = self.s3.root().join(BUCKET).join(keys::BATCHES_PREFIX);
        let names = names_in(&folder)?;
        Ok(names.iter().filter(|name| folder.join(name).join("batch.json").exists()).count())
    }
}

fn names_in(path: &Path) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(path)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

/// A vhost of its own, and where it is.
async fn vhost(rabbit: &Rabbit, name: &str) -> Result<(String, String)> {
    let vhost = format!("{name}-{}", uuid::Uuid::new_v4().simple());
    let url = rabbit.vhost(&vhost).await?;
    Ok((vhost, url))
}

/// A variable's value.
fn crash_at(point: &str) -> String {
    format!("{point}=return")
}

/// A URL that goes through a proxy instead.
fn through(url: &str, port: u16, proxy: &Proxy) -> String {
    url.replace(&format!(":{port}"), &format!(":{}", proxy.port()))
}

/// Jobs of a batch in a state.
pub fn count(view: &BatchView, state: State) -> u64 {
    view.tally.as_ref().map_or(0, |tally| tally.of(state))
}
