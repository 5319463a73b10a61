//! The reckoning: every job is accounted for, once, in the store and in the mirror.
//!
//! Reads what the store holds by itself, file by file: the programs under test are asked only what
//! a person would see.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use excite_jobs::api::BatchState;
use excite_jobs::progress::unpack;
use excite_jobs::{Batch, Done, Job, JobId, JobState, Reason, Sidecar, State, StoredLine, keys};
use excite_worker::pipeline::{Empty, Pipeline};
use excite_worker::{Task, Watch};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::crew::{Crew, Role, SLOTS};
use super::load::{Kind, Load, STEPS, Submitted};
use super::report::Report;
use crate::cluster::{BUCKET, Cluster};
use crate::{Rabbit, Try, eventually};

/// Most steps of an image of the ledger: PNDM makes one more than it is asked for.
const STEPS_MAX: u64 = STEPS as u64 + 1;
/// Faults that may cost steps, by how their names begin. All others cost none.
const COSTLY: [&str; 8] = [
    "SIGKILL of a worker",
    "SIGTERM",
    "crash at worker",
    "a worker hung",
    "SIGKILL of the broker",
    "the broker closed",
    "link to",
    "the store hung",
];
/// Jobs of which one violation is enough.
const NAMED_MAX: usize = 10;

/// Waits until nothing is left to do, with mended services; what does not end is lost.
pub(super) async fn rest(
    cluster: &Cluster,
    rabbit: &Rabbit,
    crew: &mut Crew,
    load: &Load,
    report: &mut Report,
    limit: Duration,
) -> Result<()> {
    crew.led(cluster).await?;
    let began = Instant::now();
    for batch in &load.batches {
        let left = limit.saturating_sub(began.elapsed()).max(Duration::from_secs(5));
        let end = eventually(left, "the end of a batch", async || {
            crew.tend().ok();
            match cluster.batch_at(&crew.dispatchers()[0], batch.id).await {
                Ok(view) if view.state == BatchState::Finished => Try::Done(()),
                Ok(view) if view.state == BatchState::Cancelled => Try::Done(()),
                Ok(view) => Try::Again(format!("{:?} {:?}", view.state, view.tally)),
                Err(error) => Try::Again(format!("{error:#}")),
            }
        });
        if let Err(error) = end.await {
            eprintln!("ledger: batch {} has no end: {error:#}", batch.id);
            report.violations.push(format!("batch {} has no end: {error:#}", batch.id));
        }
    }
    crew.dismiss(|role| role != Role::Dispatcher).await?;
    let empty = eventually(Duration::from_secs(60), "empty queues", async || {
        let queues = rabbit.queues(&cluster.vhost).await?;
        let full = queues.iter().filter(|queue| queue.ready + queue.unacknowledged > 0);
        let full: Vec<_> = full.map(|q| format!("{}: {}", q.name, q.ready)).collect();
        if full.is_empty() { Ok(()) } else { bail!("{}", full.join(", ")) }
    });
    if let Err(error) = empty.await {
        report.violations.push(format!("{error:#}"));
    }
    crew.dismiss(|_| true).await
}

/// Looks at every job; what is wrong goes into the report.
pub(super) async fn audit(
    cluster: &Cluster,
    crew: &mut Crew,
    load: &Load,
    report: &mut Report,
) -> Result<()> {
    let undisturbed = undisturbed(cluster, load).await?;
    let mut ended = BTreeMap::new();
    let mut steps_of_cancelled = 0;
    for batch in &load.batches {
        let stored = Stored::read(cluster, batch)?;
        let found = stored.check(batch, &undisturbed, report);
        for (index, state) in found.iter().enumerate() {
            *report.states.entry(state.as_str().to_owned()).or_default() += 1;
            let job = JobId::new(batch.id, u32::try_from(index)?).to_string();
            let Some(made) = crew.steps.get(&job) else { continue };
            report.steps_made += made;
            match state {
                State::Succeeded => report.steps_needed += STEPS_MAX,
                _ => steps_of_cancelled += STEPS_MAX,
            }
        }
        report.batches += 1;
        report.jobs += found.len() as u64;
        ended.insert(batch.id, found);
    }
    let costly = |name: &str| COSTLY.iter().any(|start| name.starts_with(start));
    let faults: u64 =
        report.faults.iter().filter(|(name, _)| costly(name)).map(|(_, count)| count).sum();
    // Two workers of images; a fault of a link may take both from what they run.
    report.steps_bound = report.steps_needed + steps_of_cancelled + faults * 2 * SLOTS * STEPS_MAX;
    if report.steps_made > report.steps_bound {
        report.violations.push("more steps were made than all faults explain".into());
    }
    if report.compared == 0 || report.steps_made == 0 {
        report.violations.push("nothing was compared: the ledger itself does not work".into());
    }
    rebuilt(cluster, crew, &ended, report).await
}

/// The bytes of every image as `excite generate` makes it, undisturbed; SHA-256 by `custom_id`.
async fn undisturbed(cluster: &Cluster, load: &Load) -> Result<BTreeMap<String, String>> {
    let mut lines = BTreeMap::new();
    for batch in load.batches.iter().filter(|batch| batch.kind == Kind::Images) {
        for line in &batch.lines {
            lines.insert(custom_id(line)?, line);
        }
    }
    let text: String = lines.values().map(|line| format!("{line}\n")).collect();
    std::fs::write(cluster.folder.path().join("undisturbed.jsonl"), text)?;
    let args = ["generate", "--file", "undisturbed.jsonl", "--out", "undisturbed"];
    cluster.excite_at("", &args).await?;
    let mut hashes = BTreeMap::new();
    for (id, line) in lines {
        let plain = if line["method"] == "none" { "-none" } else { "" };
        let name = format!("undisturbed/{id}{plain}.png");
        let bytes = std::fs::read(cluster.folder.path().join(&name)).context(name)?;
        hashes.insert(id, sha256(&bytes));
    }
    Ok(hashes)
}

fn custom_id(line: &serde_json::Value) -> Result<String> {
    Ok(line["custom_id"].as_str().context("a line without custom_id")?.to_owned())
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// What the store holds of a batch.
struct Stored {
    folder: PathBuf,
    header: Batch,
    jobs: Vec<Job>,
    done: Vec<Done>,
}

impl Stored {
    fn read(cluster: &Cluster, batch: &Submitted) -> Result<Self> {
        let bucket = cluster.s3.root().join(BUCKET);
        let folder = bucket.join(keys::batch_prefix(batch.id));
        let header = std::fs::read(bucket.join(keys::batch(batch.id))).context("a header")?;
        let header: Batch = serde_json::from_slice(&header)?;
        let mut lines = header.inline.clone();
        for part in &header.parts {
            let mut text = String::new();
            let bytes = std::fs::read(bucket.join(&part.key)).context("lines")?;
            GzDecoder::new(&bytes[..]).read_to_string(&mut text)?;
            for line in text.lines() {
                lines.push(serde_json::from_str::<StoredLine>(line)?);
            }
        }
        let jobs = (0..header.jobs).map(|i| header.job(&lines, i).context("a job has no line"));
        let jobs: Vec<Job> = jobs.collect::<Result<_>>()?;
        let done = cluster.records(batch.id)?;
        Ok(Self { folder, header, jobs, done })
    }

    /// The state of every job.
    fn check(
        &self,
        batch: &Submitted,
        undisturbed: &BTreeMap<String, String>,
        report: &mut Report,
    ) -> Vec<State> {
        let before = report.violations.len();
        if self.jobs.len() != batch.lines.len() {
            report.violations.push(format!(
                "batch {}: {} lines were submitted, {} are there",
                batch.id,
                batch.lines.len(),
                self.jobs.len()
            ));
        }
        let images = self.names("images", ".png");
        let sidecars = self.names("images", ".json");
        let mut states = Vec::new();
        for (job, line) in self.jobs.iter().zip(&batch.lines) {
            let mut wrong = Vec::new();
            if job.custom_id.as_deref() != line["custom_id"].as_str() {
                wrong.push("it is not the line that was submitted".to_owned());
            }
            let state = self.state_of(job.index, report, &mut wrong);
            let name = format!("{:08}", job.index);
            let stored = (images.contains(&name), sidecars.contains(&name));
            match (state, stored) {
                (State::Succeeded, (true, true)) => {
                    match self.image(job, batch.kind, undisturbed) {
                        Ok(()) => report.compared += 1,
                        Err(error) => wrong.push(format!("{error:#}")),
                    }
                }
                (State::Succeeded, stored) => {
                    wrong.push(format!("it succeeded; image, sidecar: {stored:?}"));
                }
                // Late: it was cancelled when the image was made.
                (State::Cancelled, _) if self.header.cancelled => {}
                (State::Dead, (_, false)) => {}
                (state, stored) => wrong.push(format!("it is {state}; stored: {stored:?}")),
            }
            states.push(state);
            for why in wrong {
                if report.violations.len() < before + NAMED_MAX {
                    report.violations.push(format!("job {}: {why}", job.id));
                }
            }
        }
        states
    }

    fn state_of(&self, index: u32, report: &mut Report, wrong: &mut Vec<String>) -> State {
        let mut known = JobState::QUEUED;
        let mut terminal = 0;
        for done in self.done.iter().filter(|done| done.index == index) {
            known = done.absorbed_by(known);
            terminal += usize::from(done.state.is_terminal());
            let mut event = |what: &str| *report.events.entry(what.into()).or_default() += 1;
            match (done.state, done.reason) {
                (State::Retrying, _) => event("retries"),
                (State::Queued, Reason::Preempted) => event("preemptions"),
                (State::Succeeded, _) if done.success.as_ref().is_some_and(|s| s.found) => {
                    event("results found by another worker");
                }
                (State::Dead, _) => wrong.push(format!("it is dead: {:?}", done.failure)),
                _ => {}
            }
        }
        if self.header.cancelled && !known.state.is_terminal() {
            // All that was open when the batch was cancelled is cancelled by the header.
            return State::Cancelled;
        }
        if terminal != 1 {
            wrong.push(format!("it was concluded {terminal} times, and is {}", known.state));
        }
        known.state
    }

    /// Image, sidecar and record belong together, and are what an undisturbed run makes.
    fn image(&self, job: &Job, kind: Kind, undisturbed: &BTreeMap<String, String>) -> Result<()> {
        let path = |end: &str| self.folder.join(format!("images/{:08}.{end}", job.index));
        let image = sha256(&std::fs::read(path("png"))?);
        let sidecar: Sidecar = serde_json::from_slice(&std::fs::read(path("json"))?)?;
        if sidecar.sha256 != image {
            bail!("the sidecar is of another image");
        }
        if sidecar.spec != job.spec || sidecar.custom_id != job.custom_id {
            bail!("the sidecar is of another job");
        }
        let success = self.done.iter().filter(|done| done.index == job.index);
        let mut success = success.filter_map(|done| done.success.as_ref());
        if success.any(|success| success.sha256 != image) {
            bail!("the record is of another image");
        }
        let want = match kind {
            Kind::Images => {
                let id = job.custom_id.as_deref().unwrap_or_default();
                undisturbed.get(id).cloned().context("it was not made undisturbed")?
            }
            Kind::Pixels => pixel(job)?,
        };
        if image != want {
            bail!("the image differs from that of an undisturbed run");
        }
        Ok(())
    }

    /// Names without their end.
    fn names(&self, folder: &str, end: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder.join(folder)).into_iter().flatten();
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(end).map(ToOwned::to_owned)).collect()
    }
}

/// The bytes of a job without a model.
fn pixel(job: &Job) -> Result<String> {
    let watch = Watch::new(1000., Duration::from_secs(1000));
    let rows = Empty.render(&[Task::new(job.clone())], &watch);
    let rows = rows.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let row = rows.into_iter().next().context("no pixel")?;
    let product = row.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(sha256(&product.encode(job)?.png))
}

/// Redis, emptied and filled again from the store, says the same of every job.
async fn rebuilt(
    cluster: &Cluster,
    crew: &mut Crew,
    ended: &BTreeMap<excite_jobs::BatchId, Vec<State>>,
    report: &mut Report,
) -> Result<()> {
    cluster.redis.flush_all().await?;
    // A batch that is marked is read anew by whoever takes over.
    let bucket = cluster.s3.root().join(BUCKET);
    std::fs::create_dir_all(bucket.join(keys::ACTIVE_PREFIX))?;
    for id in ended.keys() {
        std::fs::write(bucket.join(keys::active(*id)), [])?;
    }
    let url = crew.recall_dispatcher().await?;
    crew.led(cluster).await?;
    let mut redis = cluster.redis.connect().await?;
    for (id, states) in ended {
        let key = format!("excite:{{b:{id}}}:st");
        let same = eventually(Duration::from_secs(60), "the mirror of a batch", async || {
            let packed: Vec<u8> =
                redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap_or_default();
            if packed.is_empty() {
                return Err("nothing".to_owned());
            }
            let wrong = |(index, state): (usize, &State)| {
                let mirrored = unpack(&packed, u32::try_from(index).unwrap_or(u32::MAX));
                (mirrored != *state).then(|| format!("job {index} is {mirrored}, not {state}"))
            };
            match states.iter().enumerate().find_map(wrong) {
                Some(wrong) => Err(wrong),
                None => Ok(()),
            }
        });
        if let Err(error) = same.await {
            report.violations.push(format!("batch {id} in Redis: {error:#}"));
            continue;
        }
        let view = cluster.batch_at(&url, *id).await?;
        for state in State::ALL {
            let want = states.iter().filter(|known| **known == state).count() as u64;
            let said = view.tally.as_ref().map_or(0, |tally| tally.of(state));
            if said != want {
                report
                    .violations
                    .push(format!("batch {id}: the server counts {said} jobs {state}, not {want}"));
            }
        }
    }
    crew.dismiss(|_| true).await
}
