//! The canary: one tiny job through the whole system now and then, as any user's would go.
//!
//! It runs only while a worker is ready, because it must not keep one awake. What it leaves behind
//! is taken away when it is concluded; one that an earlier leader left is adopted.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use excite_jobs::progress::WorkerState;
use excite_jobs::store::{Condition, StoreError};
use excite_jobs::{
    Batch, BatchId, ENGINE, JobOutputs, Lane, Method, ModelCard, Noise, Spec, State, StoredLine,
    VERSION, Work, keys,
};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{info, warn};

use super::leader::Leader;
use crate::header::{self, HeaderError, document, json};

/// A canary that takes longer has failed.
const TAKES_AT_MOST: Duration = Duration::from_secs(300);
/// Who pays for it.
const TENANT: &str = "canary";

/// What is known of canaries.
#[derive(Debug, Default)]
pub(super) struct Canary {
    /// The one under way, and since when.
    running: Option<(BatchId, Instant)>,
    /// When one was started last.
    started: Option<Instant>,
    /// When one was concluded well last, or this dispatcher began to lead.
    well: Option<Instant>,
}

impl Leader {
    /// Starts a canary if it is time, and gives up one that takes too long.
    pub(super) async fn canary(&mut self) {
        let Some(config) = self.config.canary.clone() else { return };
        let well = *self.canary.well.get_or_insert_with(Instant::now);
        self.metrics.canary_age.set(well.elapsed().as_secs_f64());
        if self.canary.running.is_none() {
            let left = self.batches.iter().find(|(_, running)| running.header.canary);
            self.canary.running = left.map(|(id, _)| (*id, Instant::now()));
        }
        match self.canary.running {
            Some((id, _)) if !self.batches.contains_key(&id) => self.canary.running = None,
            Some((id, at)) if at.elapsed() >= TAKES_AT_MOST => self.give_canary_up(id).await,
            Some(_) => {}
            None => {
                let early = self.canary.started.is_some_and(|at| at.elapsed() < config.every);
                let ready = |worker: &&excite_jobs::progress::WorkerBeat| {
                    worker.state == WorkerState::Ready
                };
                let classes: Vec<_> =
                    self.workers.iter().filter(ready).map(|worker| worker.class.clone()).collect();
                if early || classes.is_empty() || !self.storing.is_over() {
                    return;
                }
                self.canary.started = Some(Instant::now());
                match self.start_canary(&config.model, &classes).await {
                    Ok(Some(id)) => self.canary.running = Some((id, Instant::now())),
                    Ok(None) => {}
                    Err(error) => warn!(%error, "no canary can be started"),
                }
            }
        }
    }

    /// Accepts a canary as any batch. `None` if no worker that is ready reads its class.
    async fn start_canary(
        &mut self,
        model: &str,
        classes: &[String],
    ) -> Result<Option<BatchId>, HeaderError> {
        let store = self.ports.store.clone();
        let Some((card, _)) = document::<ModelCard>(&*store, &keys::model(model)).await? else {
            warn!(model, "the canary's model is not in the store; put it there or name another");
            return Ok(None);
        };
        if !classes.contains(&card.class) {
            return Ok(None);
        }
        let Ok(scheduler) = card.facts.scheduler.clone() else { return Ok(None) };
        let batch = batch(&card, scheduler);
        store.put(&keys::active(batch.id), Bytes::new(), Condition::Always).await?;
        store.put(&keys::batch(batch.id), json(&batch), Condition::Absent).await?;
        // What fails here is found again among the unfinished batches.
        let here = self.ensure(batch.id).await;
        Ok(here.unwrap_or(false).then_some(batch.id))
    }

    async fn give_canary_up(&mut self, id: BatchId) {
        let cancel = |batch: &mut Batch| !std::mem::replace(&mut batch.cancelled, true);
        let changed = header::change(&*self.ports.store, id, cancel).await;
        let Ok(Some(header)) = self.stored(changed) else { return };
        warn!(batch = %id, "the canary took too long");
        if let Some(running) = self.batches.get_mut(&id) {
            running.changed(header);
        }
        self.cancelled.insert(id, Instant::now());
        self.announce_cancelled(id).await;
    }

    /// A canary is concluded: it is measured, and all of it taken away.
    pub(super) async fn canary_concluded(&mut self, id: BatchId) {
        let Some(running) = self.batches.get(&id) else { return };
        let well = running.folded.tally.of(State::Succeeded) > 0;
        if let Some((_, at)) = self.canary.running.take_if(|(running, _)| *running == id) {
            let seconds = at.elapsed().as_secs_f64();
            info!(batch = %id, well, seconds, "canary");
            if well {
                self.metrics.canary_duration.observe(seconds);
                self.canary.well = Some(Instant::now());
                self.metrics.canary_age.set(0.);
            }
        }
        let deleted = self.delete_objects(id).await;
        if self.stored(deleted).is_ok() {
            self.forget(id).await;
        }
    }

    async fn delete_objects(&self, id: BatchId) -> Result<(), StoreError> {
        let store = &self.ports.store;
        // The mark goes last: whoever comes after finds what is left.
        loop {
            let page = store.list(&keys::batch_prefix(id), None, false).await?;
            store.delete(&page.keys).await?;
            if !page.more {
                break;
            }
        }
        store.delete(&[keys::active(id)]).await
    }
}

fn batch(card: &ModelCard, scheduler: excite_jobs::SchedulerName) -> Batch {
    let facts = &card.facts;
    // Another one each time: a result that was made before would prove nothing.
    let seed = OffsetDateTime::now_utc().unix_timestamp() as u32;
    let spec = Spec {
        prompt: "a canary".into(),
        negative_prompt: String::new(),
        subjects: Vec::new(),
        seed,
        noise: Noise::TorchCpu,
        width: facts.width,
        height: facts.height,
        steps: 1,
        guidance_scale: 1.,
        scheduler,
        method: Method::None,
        model: facts.name.clone(),
        engine: ENGINE,
    };
    let work = f64::from(spec.width) * f64::from(spec.height);
    let line = StoredLine {
        line: 1,
        first: 0,
        spec,
        seeds: seed.to_string(),
        accept: None,
        compared_with: None,
        custom_id: None,
        labels: BTreeMap::new(),
    };
    Batch {
        v: VERSION,
        id: BatchId::new(),
        revision: 0,
        name: Some("canary".into()),
        tenant: TENANT.into(),
        created_at: OffsetDateTime::now_utc(),
        jobs: 1,
        lines: 1,
        parts: Vec::new(),
        inline: vec![line],
        model: facts.name.clone(),
        class: card.class.clone(),
        lane: Lane::Express,
        outputs: JobOutputs::default(),
        // A canary that needs a second try is a finding.
        max_attempts: 1,
        weight: 1,
        paused: false,
        cancelled: false,
        compare: false,
        parent: None,
        canary: true,
        warnings: BTreeMap::new(),
        work: Work { plain: work, guided: 0. },
        traceparent: None,
        body_sha256: String::new(),
    }
}
