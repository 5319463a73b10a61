//! The end of a job: image, sidecar, pointer for its like, outcome, acknowledgement, in this order
//! and each but the pointer confirmed.
//!
//! Runs beside the next micro-batch. What is stored already counts: another worker may have made
//! the same image. Nothing is acknowledged before its outcome is confirmed.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use excite_jobs::queue::{Acked, Message, Queue, QueueName};
use excite_jobs::store::{Condition, StoreError};
use excite_jobs::{
    Accept, Class, Control, Failure, Job, JobId, Outcome, OutcomeKind, Sidecar, Success, VERSION,
    keys,
};
use excite_service::{Pauses, failpoint};
use time::OffsetDateTime;
use tracing::{debug, info, warn};

use crate::checkpoints::Checkpoints;
use crate::held::Held;
use crate::metrics::{Metrics, Stage};
use crate::models::label;
use crate::patience::{PatientStore, failure};
use crate::pipeline::{Encoded, Product, chain, sha256};

/// Stores and reports.
#[derive(Clone)]
pub(crate) struct Finisher {
    pub(crate) worker: String,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) store: PatientStore,
    pub(crate) held: Arc<Held>,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) metrics: Metrics,
    /// Of the machine, if results are to be found again.
    pub(crate) kind: Option<String>,
}

impl Finisher {
    /// Stores an image and says what is to be reported.
    pub(crate) async fn store(&self, job: &Job, product: Product) -> OutcomeKind {
        let began = Instant::now();
        let for_thread = job.clone();
        let encoded = tokio::task::spawn_blocking(move || product.encode(&for_thread)).await;
        let encoded = match encoded {
            Ok(Ok(encoded)) => encoded,
            Ok(Err(error)) => {
                let failure = Failure::new(Class::Transient, error.advice().0, chain(&error));
                return OutcomeKind::Failed(failure);
            }
            Err(error) => {
                let failure = Failure::new(Class::Transient, "panic", error.to_string());
                return OutcomeKind::Failed(failure);
            }
        };
        self.metrics.stage(Stage::Png, began.elapsed().as_secs_f64());
        let began = Instant::now();
        let made = encoded.sidecar.sha256.clone();
        let stored = self.put(job, encoded).await;
        // What another worker stored may be of another kind.
        if let Ok(Success { sha256, found: false, .. }) = &stored
            && *sha256 == made
        {
            self.remember(job, made).await;
        }
        self.metrics.stage(Stage::Upload, began.elapsed().as_secs_f64());
        match stored {
            Ok(success) => OutcomeKind::Succeeded(success),
            Err(failure) => OutcomeKind::Failed(failure),
        }
    }

    /// Stores a result, whatever came before kept: image, then sidecar.
    ///
    /// # Errors
    /// If the store fails for too long.
    pub(crate) async fn put(&self, job: &Job, encoded: Encoded) -> Result<Success, Failure> {
        let Encoded { png, mut sidecar, attention, trace } = encoded;
        // What is beside the image goes first: with the sidecar all of it is there.
        for (key, extra) in [(keys::attention(job.id), attention), (keys::trace(job.id), trace)] {
            let Some(extra) = extra.map(Bytes::from) else { continue };
            let put = self.store.put(&key, &extra, &Condition::Always).await;
            put.map_err(|e| failure(&e))?;
        }
        let (key, png) = (keys::image(job.id), Bytes::from(png));
        failpoint::reach("worker_made_image");
        let mut bytes = png.len() as u64;
        match self.store.put(&key, &png, &Condition::Absent).await {
            Ok(_) => {}
            Err(StoreError::Conflict(_)) => {
                // Another worker stored it, or this one did and the answer got lost: the stored
                // image is the result, whatever was made here.
                let found = self.store.get(&key).await.map_err(|e| failure(&e))?;
                let gone = || Failure::new(Class::Transient, "store", format!("`{key}` vanished"));
                let found = found.ok_or_else(gone)?;
                bytes = found.body.len() as u64;
                let stored = sha256(&found.body);
                if stored != sidecar.sha256 {
                    warn!(stored, made = sidecar.sha256, "the stored image is another one");
                    sidecar = adopt(sidecar, stored, &found.body);
                }
            }
            Err(error) => return Err(failure(&error)),
        }
        failpoint::reach("worker_stored_image");
        let committed = self.commit(job, sidecar, bytes).await;
        failpoint::reach("worker_stored_sidecar");
        committed
    }

    async fn commit(&self, job: &Job, sidecar: Sidecar, bytes: u64) -> Result<Success, Failure> {
        let key = keys::sidecar(job.id);
        let json = serde_json::to_vec(&sidecar)
            .map_err(|e| Failure::new(Class::Transient, "sidecar", e.to_string()))?;
        let json = Bytes::from(json);
        match self.store.put(&key, &json, &Condition::Absent).await {
            Ok(_) => Ok(success(job, &sidecar, bytes, false)),
            Err(StoreError::Conflict(_)) => {
                let found = self.found(job).await?;
                Ok(found.unwrap_or_else(|| success(job, &sidecar, bytes, false)))
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// The stored result of a job, if there is one.
    ///
    /// # Errors
    /// If the store fails for too long, or what is there cannot be read.
    pub(crate) async fn found(&self, job: &Job) -> Result<Option<Success>, Failure> {
        let (key, image) = (keys::sidecar(job.id), keys::image(job.id));
        let Some(object) = self.store.get(&key).await.map_err(|e| failure(&e))? else {
            return Ok(None);
        };
        let read = serde_json::from_slice::<Sidecar>(&object.body);
        let sidecar = match read {
            Ok(sidecar) if sidecar.v == VERSION => sidecar,
            Ok(Sidecar { v, .. }) => {
                let message = format!("`{key}` is of version {v}");
                return Err(Failure::new(Class::Incompatible, "sidecar", message));
            }
            Err(error) => {
                let message = format!("`{key}` cannot be read: {error}");
                return Err(Failure::new(Class::Incompatible, "sidecar", message));
            }
        };
        let head = self.store.head(&image).await.map_err(|e| failure(&e))?;
        if head.is_none() {
            warn!("there is a sidecar without an image; the image is made again");
        }
        Ok(head.map(|head| success(job, &sidecar, head.bytes, true)))
    }

    /// Reports what became of a job, under every lease that it has, and acknowledges all its
    /// deliveries. Ends only when the broker confirmed.
    pub(crate) async fn conclude(&self, id: JobId, kind: OutcomeKind) {
        let (entry, ackers) = loop {
            let Some(said) = self.held.said(id) else { return };
            let lease = said.job.lease;
            let outcome = Outcome::of(&said.job, &self.worker, kind.clone());
            self.report(Outcome { run: said.run, ..outcome }, said.traceparent).await;
            failpoint::reach("worker_reported");
            if let Some(released) = self.held.release(id, lease, &kind) {
                break released;
            }
        };
        let model = label(&entry.job.spec.model);
        self.metrics.jobs.with_label_values(&[model, kind.name()]).inc();
        if entry.suspect {
            self.clear_suspect(id).await;
        }
        let began = Instant::now();
        for acker in ackers {
            if acker.ack().await == Acked::LeaseLost {
                // It is delivered again and answered from what is known or stored.
                self.metrics.leases_lost.inc();
                warn!("an acknowledgement came too late");
            }
        }
        self.metrics.stage(Stage::Ack, began.elapsed().as_secs_f64());
        match kind {
            OutcomeKind::Succeeded(_) | OutcomeKind::Cancelled => self.checkpoints.clear(id).await,
            OutcomeKind::Failed(_) => self.checkpoints.leave(id),
            OutcomeKind::Preempted { .. } | OutcomeKind::Started => {}
        }
        let seconds = entry.since.elapsed().as_secs_f64();
        self.metrics.job_duration.with_label_values(&[model]).observe(seconds);
        self.metrics.last_job.set(OffsetDateTime::now_utc().unix_timestamp() as f64);
        self.metrics.held.set(self.held.len() as i64);
        log(&kind, seconds);
    }

    /// Publishes an outcome, however long it takes: its job stays unacknowledged as long.
    pub(crate) async fn report(&self, outcome: Outcome, traceparent: Option<String>) {
        let Some(message) = message(outcome, traceparent) else { return };
        self.publish(&QueueName::Control, message).await;
    }

    /// Puts a message that nobody can read where an operator finds it.
    pub(crate) async fn set_aside(&self, body: Bytes, traceparent: Option<String>) {
        let kind = "excite.job.unreadable".to_owned();
        let message = Message { body, kind, traceparent, ..Message::default() };
        self.publish(&QueueName::Dead, message).await;
    }

    async fn publish(&self, queue: &QueueName, message: Message) {
        let mut pauses = Pauses::default();
        while let Err(error) = self.queue.publish(queue, message.clone()).await {
            warn!(%error, "a message was not confirmed; it is published again");
            pauses.pause().await;
        }
    }

    /// Says once that a job runs; that may get lost.
    pub(crate) async fn started(&self, job: &Job, traceparent: Option<String>) {
        let outcome = Outcome::of(job, &self.worker, OutcomeKind::Started);
        let Some(message) = message(outcome, traceparent) else { return };
        if let Err(error) = self.queue.publish(&QueueName::Control, message).await {
            debug!(%error, "a start was not reported");
        }
    }

    /// Takes the marks of a job away: whatever became of it, its worker lives.
    pub(crate) async fn clear_suspect(&self, id: JobId) {
        let store = self.store.once();
        let cleared = async {
            let page = store.list(&keys::suspects(id), None, false).await?;
            store.delete(&page.keys).await
        };
        if let Err(error) = cleared.await {
            warn!(%error, "the marks of a suspect stay");
        }
    }
}

/// The sidecar of an image that was stored elsewhere, with what is known of that one.
fn adopt(made: Sidecar, sha256: String, png: &[u8]) -> Sidecar {
    let read = excite_diffusion::picture::Read::bytes(png).ok().and_then(|read| read.spec().ok());
    // The other kind may have kept another seed.
    let spec = read.unwrap_or_else(|| made.spec.clone());
    Sidecar { sha256, spec, adopted: true, ..made }
}

fn message(outcome: Outcome, traceparent: Option<String>) -> Option<Message> {
    let id = outcome.job.to_string();
    // A map of texts and numbers can always be written.
    let body = serde_json::to_vec(&Control::Outcome(outcome)).ok()?;
    let kind = Control::TYPE.to_owned();
    Some(Message { body: body.into(), id, kind, traceparent, expires: None })
}

/// What a sidecar says, as an outcome says it.
fn success(job: &Job, sidecar: &Sidecar, bytes: u64, found: bool) -> Success {
    let good = |accept: Accept| sidecar.tries.iter().any(|one| accept.takes(one.score));
    Success {
        key: keys::image(job.id),
        sha256: sidecar.sha256.clone(),
        bytes,
        seconds: sidecar.seconds,
        steps: u32::try_from(sidecar.steps.len()).unwrap_or(u32::MAX),
        loss: sidecar.attention.loss,
        scores: sidecar.attention.scores.clone(),
        weakest: sidecar.attention.weakest.clone(),
        tries: u32::try_from(sidecar.tries.len()).unwrap_or(u32::MAX).max(1),
        found,
        accepted: job.accept.is_none_or(good),
    }
}

fn log(kind: &OutcomeKind, seconds: f64) {
    match kind {
        OutcomeKind::Failed(Failure { class, code, message, .. }) => {
            warn!(outcome = kind.name(), %class, code, message, seconds, "a job is done");
        }
        OutcomeKind::Succeeded(Success { key, found, .. }) => {
            info!(outcome = kind.name(), key, found, seconds, "a job is done");
        }
        _ => info!(outcome = kind.name(), seconds, "a job is done"),
    }
}
